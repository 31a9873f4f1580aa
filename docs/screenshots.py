"""Takes docs/draw/*.png: the drawing page with a synthetic writer's examples, on a desktop and a phone, light and dark.

Usage: python -m docs.screenshots RUN
"""

import pathlib
import sys
import threading

from benchmarks import browser as browser_lib
from benchmarks import pen
from tff_personalization.draw import __main__ as draw
from tff_personalization.draw import personalizer, prompt, server
from tff_personalization.tasks import archives

SEED, WRITER = 1, 3
OUTPUT = pathlib.Path(__file__).parent / "draw"
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


def take(run: pathlib.Path) -> None:
    """Goes through the prompt except its last two characters, then draws one without labelling it."""
    trained = personalizer.load(run)
    served = server.Server(draw.pages_of(trained, run, most_visitors=1, most_examples=100), 0)
    threading.Thread(target=served.serve, daemon=True).start()
    asked = prompt.characters(trained.classes)[:-1]
    drawings = pen.strokes_of_writer(SEED, WRITER, [archives.CLASSES.index(character) for character in asked])
    with browser_lib.start() as browser:
        browser.show(*SIZES["desktop"])
        browser.driver.get(served.url)
        browser.wait("state !== null")
        for number, strokes in enumerate(drawings, start=1):
            browser.draw("#pad", strokes)
            browser.wait("seen !== null")
            if number < len(drawings):
                browser.press(browser_lib.ENTER)
                browser.wait("!sending && state.examples === arguments[0]", number)
        for name, (width, height) in SIZES.items():
            for dark in (False, True):
                browser.show(width, height, dark, phone=name == "phone")
                browser.run("scrollTo(0, 0)")
                browser.wait("innerWidth === arguments[0]", width)
                browser.driver.get_screenshot_as_file(str(OUTPUT / f"{name}_{'dark' if dark else 'light'}.png"))
    served.stop()


if __name__ == "__main__":
    OUTPUT.mkdir(exist_ok=True)
    take(pathlib.Path(sys.argv[1]))
