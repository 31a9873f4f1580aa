"""A browser that draws on the drawing page, for tests, latency and pictures."""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from tests import browser as browser_lib

ENTER, ESCAPE, BACKSPACE = "\ue007", "\ue00c", "\ue003"


def missing() -> bool:
    """Whether chromium or chromedriver is not installed."""
    return not (browser_lib.CHROMIUM and browser_lib.DRIVER)


class Browser:
    """One window of a browser."""

    def __init__(self, driver):
        """Takes the Selenium driver."""
        self.driver = driver

    def run(self, script: str, *arguments: Any) -> Any:
        """The result of a function with this body in the page."""
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: str, *arguments: Any, seconds: float = 30) -> Any:
        """Waits until a JavaScript expression is true, and returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {condition}", *arguments)):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds:g} s: {condition}")
            time.sleep(0.02)
        return value

    def click(self, selector: str) -> None:
        """Clicks an element."""
        self.driver.find_element("css selector", selector).click()

    def text(self, selector: str) -> str:
        """The text of an element."""
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def choose_file(self, selector: str, path: pathlib.Path) -> None:
        """Gives a file to a file input."""
        self.driver.find_element("css selector", selector).send_keys(str(path))

    def press(self, key: str) -> None:
        """Presses and releases a key."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self._perform({"type": "key", "id": "keyboard", "actions": actions})

    def draw(self, selector: str, strokes: Sequence[Sequence[Sequence[float]]], pointer: str = "mouse") -> None:
        """Draws on an element with a pointer.

        Args:
            selector: of the element.
            strokes: lists of points x, y, as shares of the element's width and height.
            pointer: "mouse", "pen" or "touch".
        """
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        box = self.run("return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()", selector)
        actions: list[dict] = []
        for stroke in strokes:
            for number, (x, y) in enumerate(stroke):
                place = {"x": round(box["x"] + x * box["width"]), "y": round(box["y"] + y * box["height"])}
                actions.append({"type": "pointerMove", "duration": 0, "origin": "viewport", **place})
                if number == 0:
                    actions.append({"type": "pointerDown", "button": 0})
            actions.append({"type": "pointerUp", "button": 0})
        self._perform({"type": "pointer", "id": pointer, "parameters": {"pointerType": pointer}, "actions": actions})

    def _perform(self, source: dict) -> None:
        from selenium.webdriver.remote import command

        # Selenium's own action chains wait a quarter of a second between moves.
        self.driver.execute(command.Command.W3C_ACTIONS, {"actions": [source]})

    def log(self) -> list[str]:
        """The page's console output since the last call, including loading errors."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def show(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Sets the size of the page in CSS pixels, whether it is dark, and whether it is a phone's."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


@contextlib.contextmanager
def start() -> Iterator[Browser]:
    """A browser with an empty profile, which ends with the context."""
    with browser_lib.chromium() as driver:
        yield Browser(driver)
