"""The page in a real browser: characters of a held-out writer are drawn, labelled and learnt.

The writer is real if the variable UNIPEN62 names the archive, else synthetic.
"""

import threading

import numpy as np
import pandas as pd
import pytest
import requests
from absl import flags
from absl.testing import flagsaver

from benchmarks import browser as browser_lib
from benchmarks import pen
from tests import browser as browser_tests
from tests import unipen
from tests.draw import conftest, ink
from tff_personalization.draw import __main__ as draw
from tff_personalization.draw import personalizer, server
from tff_personalization.tasks.sources import handwriting

pytestmark = browser_tests.needed


@pytest.fixture(scope="module")
def browser():
    with browser_lib.start() as browser:
        yield browser


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A small run."""
    import run_experiment  # which defines its flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["run_experiment"])
    root = tmp_path_factory.mktemp("runs")
    made = {"cache_dir": str(root / "cache"), "num_clients": 14}
    data = {"client_data": str(unipen.ARCHIVE)} if unipen.ARCHIVE else made
    settings = {"model": "linear", "rounds": 3, "local_epochs": 2, "train_clients": 3, "test_clients": 10}
    settings |= {"rounds_per_evaluation": 0, "personalization_learning_rate": 0.1, "plots": False}
    with flagsaver.flagsaver(**data, **settings, output_dir=str(root), run_name="run"):
        assert run_experiment.main(["run_experiment"]) == 0
    return root / "run"


@pytest.fixture(scope="module")
def trained(directory):
    return personalizer.load(directory)


@pytest.fixture(scope="module")
def url(directory, trained):
    """The address of the page that shows that run."""
    served = server.Server(draw.pages_of(trained, directory, most_visitors=5, most_examples=100), 0)
    thread = threading.Thread(target=served.serve)
    thread.start()
    yield served.url
    served.stop()
    thread.join(10)


@pytest.fixture
def page(browser, url):
    """The browser on the page, as a visitor who was not there before."""
    browser.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    browser.show(1280, 900)
    browser.driver.get(url)
    browser.wait("state !== null")
    return browser


def held_out_writer(directory, most):
    """A test client of the run: its examples of the classes that it has three of or more, at most as many as given.

    Returns:
        For each example its strokes, in shares of the page's pad, and its class.
    """
    clients = pd.read_csv(directory / "clients.csv", dtype={"client": str}).client.unique()
    if unipen.ARCHIVE:
        with np.load(unipen.ARCHIVE) as archive:
            mine = archive["writer"] == clients[0]
            images, labels = archive["images"][mine], archive["labels"][mine]
    else:
        writer = int(clients[0].removeprefix("writer_"))
        labels, _ = handwriting.examples(1, writer)
        paths = pen.strokes_of_writer(1, writer, labels)
    classes, counts = np.unique(labels, return_counts=True)
    often = classes[np.argsort(-counts, kind="stable")][: most // 3]
    places = [place for label in often for place in np.flatnonzero(labels == label)[:3]]
    drawn = [ink.strokes_along_ink(images[place]) if unipen.ARCHIVE else paths[place] for place in places]
    return drawn, labels[places]


def rights_on_page(browser):
    """Right answers and held-back examples that the page shows, for the initial and the personalized model."""
    shown = [browser.text(f"#{name}-accuracy small").split() for name in ("initial", "personalized")]
    assert [words[1] for words in shown] == ["of", "of"]
    return [int(words[0]) for words in shown], int(shown[0][2])


def saved(browser, url):
    """The file that the page's visitor would save."""
    cookies = {cookie["name"]: cookie["value"] for cookie in browser.driver.get_cookies()}
    session = requests.Session()
    session.trust_env = False
    return session.get(f"{url}api/archive", cookies=cookies, timeout=10).content


@pytest.mark.usefixtures("worker")
def test_a_held_out_writers_accuracies_on_the_page_are_those_of_the_evaluation(page, url, directory, trained, tmp_path):
    drawn, labels = held_out_writer(directory, most=12)
    page.click("#mode-free")
    for number, (strokes, label) in enumerate(zip(drawn, labels, strict=True)):
        page.draw("#pad", strokes, ("mouse", "pen", "touch")[number % 3])
        page.press(trained.classes[label])
        page.wait("!sending && state.examples === arguments[0]", number + 1)
    rights, held_back = rights_on_page(page)
    assert held_back == len(labels) // 3
    archive = saved(page, url)
    assert conftest.by_evaluation(trained, archive, tmp_path / "drawn.npz") == rights
    assert rights[1] > rights[0]

    # The drawn image equals the page's own image of it, and survives saving and loading.
    with np.load(tmp_path / "drawn.npz", allow_pickle=False) as arrays:
        assert arrays["labels"].tolist() == labels.tolist()
        assert arrays["images"].shape == (len(labels), 28, 28)
    page.run("return call('forget', {}).then(answer => { state = answer; showState(); })")
    page.wait("state.examples === 0")
    page.choose_file("#file", tmp_path / "drawn.npz")
    page.wait("state.examples === arguments[0]", len(labels))
    assert rights_on_page(page) == (rights, held_back)
    assert page.log() == []


def test_the_prompt_is_gone_through_with_enter_and_each_drawing_is_seen_first(page, trained):
    assert "digit 0" in page.text("#pad-title")
    (strokes,) = pen.strokes_of_writer(1, 5, [0])
    page.draw("#pad", strokes)
    page.wait("seen !== null")
    assert page.text("#initial-answer") in trained.classes
    assert page.run("return performance.getEntriesByName('correction').length") == 0
    page.press(browser_lib.ENTER)
    page.wait("state.examples === 1 && !sending")
    assert page.text("#personalized-answer") == "0"
    assert "capital O" in page.text("#pad-title")
    assert page.wait("performance.getEntriesByName('correction').length") == 1
    page.click("#skip")
    assert "small o" in page.text("#pad-title")
    assert page.log() == []


def test_a_wrong_stroke_or_drawing_is_taken_back(page):
    strokes = [[[0.2, 0.2], [0.8, 0.8]], [[0.8, 0.2], [0.2, 0.8]]]
    page.draw("#pad", strokes)
    assert page.run("return strokes.length") == 2
    page.press(browser_lib.BACKSPACE)
    assert page.run("return strokes.length") == 1
    page.press(browser_lib.ESCAPE)
    assert page.run("return strokes.length") == 0
    page.press(browser_lib.ENTER)  # nothing is drawn: nothing is labelled
    page.draw("#pad", strokes)
    page.press("x")
    page.wait("state.examples === 1 && !sending")
    page.press("x")  # the same drawing is labelled once
    page.click("#undo")
    page.wait("state.examples === 0")


def test_the_page_shows_what_the_server_refuses(page, tmp_path):
    (tmp_path / "not_one.npz").write_bytes(b"not an archive")
    page.choose_file("#file", tmp_path / "not_one.npz")
    page.wait("document.getElementById('message').classList.contains('wrong')")
    assert "cannot be read as an .npz archive" in page.text("#message")
    assert [line for line in page.log() if "400" not in line] == []  # Chromium notes the refusal itself


def test_the_page_fits_a_phone_and_everything_in_it_has_a_name(page):
    page.show(390, 844, phone=True)
    page.wait("innerWidth === 390")
    assert page.run("return document.documentElement.scrollWidth") <= 390
    unnamed = """
        return [...document.querySelectorAll('button, canvas, svg, input, summary')]
            .filter((e) => !e.getAttribute('aria-label') && !e.textContent.trim()).map((e) => e.outerHTML)
    """
    assert page.run(unnamed) == []
    assert page.log() == []
