"""Chromium without a window, driven through chromedriver by the W3C WebDriver protocol: JSON over HTTP.

A client library would bring a dozen packages, one of which asks for a newer typing-extensions than TensorFlow takes;
the protocol is a few calls.
"""

import base64
import contextlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import portpicker
import requests

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's own key
_ARGUMENTS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
)
_http = requests.Session()
_http.trust_env = False  # no proxy stands between this program and chromedriver


def missing() -> str | None:
    """What is not installed of chromium and chromedriver, in words; None if both are there."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(names)} not installed (Debian: chromium, chromium-driver)" if names else None


class Browser:
    """One window of a browser."""

    def __init__(self, session: str):
        """Takes the session's address."""
        self._session = session

    def call(self, path: str, body: dict | None = None) -> Any:
        """A command of the protocol; RuntimeError with the browser's message if it fails."""
        url = f"{self._session}/{path}"
        answer = _http.get(url, timeout=60) if body is None else _http.post(url, json=body, timeout=60)
        value = answer.json()["value"]
        if not answer.ok:
            raise RuntimeError(f"{path}: {value['message'].splitlines()[0]}")
        return value

    def open(self, url: str) -> None:
        """Goes to a page and waits until it is loaded."""
        self.call("url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function with this body returns in the page."""
        return self.call("execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str, *arguments: Any, seconds: float = 30) -> Any:
        """Waits until a JavaScript expression is true, and returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(f"return {condition}", *arguments)):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds:g} s: {condition}")
            time.sleep(0.02)
        return value

    def _element(self, selector: str) -> str:
        return self.call("element", {"using": "css selector", "value": selector})[_ELEMENT]

    def click(self, selector: str) -> None:
        """Clicks an element, which must be in sight or be scrolled to."""
        self.call(f"element/{self._element(selector)}/click", {})

    def text(self, selector: str) -> str:
        """The text of an element."""
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def choose_file(self, selector: str, path: pathlib.Path) -> None:
        """Gives a file to a file input."""
        self.call(f"element/{self._element(selector)}/value", {"text": str(path)})

    def press(self, key: str) -> None:
        """Presses and releases a key."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self.call("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

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
        parameters = {"pointerType": pointer}
        self.call(
            "actions", {"actions": [{"type": "pointer", "id": pointer, "parameters": parameters, "actions": actions}]}
        )

    def log(self) -> list[str]:
        """What the page has written to its console since the last call, errors of loading included."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.call("se/log", {"type": "browser"})]

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of Chromium's own protocol."""
        return self.call("goog/cdp/execute", {"cmd": command, "params": parameters})

    def show(self, width: int, height: int, dark: bool = False, phone: bool = False) -> None:
        """Sets the size of the page in CSS pixels, whether it is dark, and whether it is a phone's."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: pathlib.Path) -> None:
        """Writes what is in sight to a PNG file."""
        path.write_bytes(base64.b64decode(self.call("screenshot")))


@contextlib.contextmanager
def start() -> Iterator[Browser]:
    """A browser with an empty profile, which ends with the context."""
    arguments = [*_ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    port = portpicker.pick_unused_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            [shutil.which("chromedriver") or "chromedriver", f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_ready(address, driver)
            options = {"args": [*arguments, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
            capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            browser = Browser(address)
            value = browser.call("session", {"capabilities": {"alwaysMatch": capabilities}})
            session = f"{address}/session/{value['sessionId']}"
            try:
                yield Browser(session)
            finally:
                _http.delete(session, timeout=30)
        finally:
            driver.terminate()
            driver.wait(10)


def _wait_until_ready(address: str, driver: subprocess.Popen) -> None:
    end = time.monotonic() + 20
    while driver.poll() is None and time.monotonic() < end:
        with contextlib.suppress(requests.ConnectionError):
            if _http.get(f"{address}/status", timeout=5).json()["value"]["ready"]:
                return
        time.sleep(0.05)
    raise RuntimeError("chromedriver does not start")
