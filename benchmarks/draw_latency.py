"""How long the drawing page takes from a correction to the new prediction.

    python -m benchmarks.draw_latency RUN [--corrections=50]

A visitor writes like a synthetic writer. After each labelled example the model is fine-tuned and predicts the example
again. It is measured in two ways, each with a new visitor:

    http       from sending the label to receiving the answer, each over a new loopback connection
    browser    from the key to the frame that shows the answer, in headless Chromium, where it is installed

draw_latency.csv in --output_dir has a row for each correction: train examples, and milliseconds. A held-back example
trains nothing and is marked. It prints medians over all corrections and over those that trained.
"""

import pathlib
import threading
import time
from collections.abc import Iterator

from benchmarks import recording  # isort: skip; before TensorFlow, which it keeps quiet

import pandas as pd
import requests

from benchmarks import browser as browser_lib
from benchmarks import pen
from tff_personalization.draw import __main__ as draw
from tff_personalization.draw import personalizer, prompt, server
from tff_personalization.tasks import archives

SEED, WRITER = 1, 3


def over_http(url: str, characters: list[str]) -> Iterator[dict]:
    """Labels the drawings one by one; a row for each."""
    session = requests.Session()
    session.trust_env = False
    session.get(url, timeout=30)
    for strokes, character in zip(_strokes(characters), characters, strict=True):
        started = time.perf_counter()
        answer = session.post(f"{url}api/examples", json={"strokes": strokes, "label": character}, timeout=60).json()
        milliseconds = 1000 * (time.perf_counter() - started)
        yield _row("http", milliseconds, answer["state"]["train"], answer["was_held_back"])


def in_browser(url: str, characters: list[str]) -> Iterator[dict]:
    """The same on the page, by pointer and keys."""
    with browser_lib.start() as browser:
        browser.show(1280, 900)
        browser.driver.get(url)
        browser.wait("state !== null")
        browser.click("#mode-free")
        held_back = 0
        for number, (strokes, character) in enumerate(zip(_strokes(characters), characters, strict=True), start=1):
            browser.draw("#pad", strokes)
            browser.wait("seen !== null")
            browser.press(character)
            browser.wait("performance.getEntriesByName('correction').length === arguments[0]", number)
            milliseconds = browser.run("return performance.getEntriesByName('correction').at(-1).duration")
            state = browser.run("return state")
            yield _row("browser", milliseconds, state["train"], state["held_back"] > held_back)
            held_back = state["held_back"]


def _strokes(characters: list[str]) -> list:
    return pen.strokes_of_writer(SEED, WRITER, [archives.CLASSES.index(character) for character in characters])


def _row(where: str, milliseconds: float, train_examples: int, held_back: bool) -> dict:
    return {
        "where": where,
        "train_examples": train_examples,
        "held_back": held_back,
        "milliseconds": round(milliseconds, 1),
    }


def main() -> None:
    parser = recording.parser(__doc__)
    parser.add_argument("run", type=pathlib.Path, help="a run directory")
    parser.add_argument("--corrections", type=int, default=50, help="how many corrections are measured")
    arguments = parser.parse_args()
    trained = personalizer.load(arguments.run)
    asked = prompt.characters(trained.classes)
    characters = (asked * (1 + arguments.corrections // len(asked)))[: arguments.corrections]
    served = server.Server(draw.pages_of(trained, arguments.run, most_visitors=2, most_examples=1000), 0)
    thread = threading.Thread(target=served.serve, daemon=True)
    thread.start()
    rows = list(over_http(served.url, characters))
    if not browser_lib.missing():
        rows.extend(in_browser(served.url, characters))
    served.stop()
    table = pd.DataFrame(rows)
    for where, part in table.groupby("where"):
        training = part[~part.held_back].milliseconds
        print(
            f"{where}: median {part.milliseconds.median():.0f} ms over {len(part)} corrections, "
            f"{training.median():.0f} ms over the {len(training)} that trained, most {part.milliseconds.max():.0f} ms"
        )
    versions = recording.words(recording.versions_of((*recording.PACKAGES, "flask")))
    recording.write(
        table.assign(run=trained.run_name, model=trained.experiment.config.model, versions=versions),
        arguments.output_dir / "draw_latency.csv",
    )


if __name__ == "__main__":
    main()
