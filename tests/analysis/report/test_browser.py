"""The page in a browser: it loads, sorts, filters, draws, and shows the hovered client."""

import pytest

from analysis import runs as runs_lib
from analysis.report import __main__ as report
from tests import browser
from tests.analysis.report.conftest import NASTY
from tests.analysis.test_metric import mirror

pytestmark = browser.needed
# The place of this client's mark on the screen.
_MARK = """
const [id, client] = arguments, figure = document.getElementById(id), plot = figure.querySelector(".plot");
const trace = plot.data.findIndex((trace) => trace.customdata), rows = plot.layout.meta.clients;
const point = plot.data[trace].customdata.findIndex(([place]) => rows[place][1] === client);
figure.scrollIntoView({block: "center", behavior: "instant"});
const box = plot.getBoundingClientRect(), {xaxis, yaxis} = plot._fullLayout, {x, y} = plot.data[trace];
return [box.left + xaxis._offset + xaxis.l2p(x[point]), box.top + yaxis._offset + yaxis.l2p(y[point])];
"""


@pytest.fixture(scope="module")
def driver(page):
    with browser.chromium() as driver:
        driver.get(page.as_uri())
        yield driver


@pytest.fixture
def find(driver):
    return lambda selector: driver.find_elements("css selector", selector)


def wait(driver, condition):
    from selenium.webdriver.support import ui

    return ui.WebDriverWait(driver, 20, poll_frequency=0.05).until(lambda _: condition())


def into_view(driver, selector):
    driver.execute_script(
        "document.querySelector(arguments[0]).scrollIntoView({block: 'center', behavior: 'instant'})", selector
    )


def texts(find, selector):
    return [element.text for element in find(selector)]


def test_tables_sort_by_click_and_by_key_numbers_as_numbers(driver, find):
    from selenium.webdriver.common.keys import Keys

    def column():
        return [float(text.split()[0]) for text in texts(find, "#all-runs tbody td:nth-child(7)")]

    into_view(driver, "#all-runs")
    (button,) = find("#all-runs th:nth-child(7) button")
    button.click()
    assert column() == sorted(column())
    button.send_keys(Keys.ENTER)
    assert column() == sorted(column(), reverse=True)
    (head,) = find("#all-runs th:nth-child(7)")
    assert head.get_attribute("aria-sort") == "descending"
    (names,) = find("#all-runs th:nth-child(1) button")
    names.click()
    assert texts(find, "#all-runs tbody th")[-3:] == ["runs/fed_avg", "runs/slow", "runs/two_stages"]
    assert head.get_attribute("aria-sort") == "none"


def test_choosing_configurations_draws_them(driver, find):
    into_view(driver, "#fine_tuning-learning_curves")
    lines = "#fine_tuning-learning_curves .scatterlayer .trace"
    wait(driver, lambda: len(find(lines)) == 6)
    find("#fine_tuning-learning_curves .choice input")[0].click()
    wait(driver, lambda: len(find(lines)) == 4)
    find("#fine_tuning-learning_curves .none")[0].click()
    wait(driver, lambda: len(find(lines)) == 0)


def test_a_hovered_client_is_shown_with_its_characters(driver, find):
    from selenium.webdriver import ActionChains

    into_view(driver, "#fine_tuning-gains")
    wait(driver, lambda: find("#fine_tuning-gains .scatterlayer .point"))
    x, y = driver.execute_script(_MARK, "fine_tuning-gains", NASTY)
    actions = ActionChains(driver, duration=0)
    actions.w3c_actions.pointer_action.move_to_location(round(x), round(y))
    actions.perform()
    wait(driver, lambda: NASTY in "".join(texts(find, "#fine_tuning-gains .hoverlayer")))
    (card,) = find("#fine_tuning-gains .card")
    assert NASTY in card.text
    assert "train examples, accuracy 0." in card.text
    assert [glyph.get_attribute("title") for glyph in find("#fine_tuning-gains .glyph")] == [
        "a: read as b before and a after personalization",
        "b: read as b before and <i> after personalization",
        "<i>: read as a before and – after personalization",
        "b: read as b before and b after personalization",
    ]


def test_a_client_is_chosen_without_a_mouse(driver, find):
    into_view(driver, "#my_own-gains")
    wait(driver, lambda: len(find("#my_own-gains .client option")) == 1 + 10)
    find("#my_own-gains .client select")[0].send_keys("writer_001")
    wait(driver, lambda: "writer_001" in find("#my_own-gains .card")[0].text)


def test_a_folder_of_runs_sorts_rates_as_numbers_and_its_cards_have_the_name_and_direction_of_the_metric(
    make_run, tmp_path
):
    for rate in (0.001, 0.0003, 0.003):
        settings = {"flags": {"client_learning_rate": rate}, "given": {"client_learning_rate": rate}}
        run = make_run(f"{rate}", method="fed_avg", clients=12, strategies=("fine_tune",), **settings)
        directory = mirror(run, tmp_path / "mirrored" / run.name)
    client, row = next(runs_lib.read(directory).client_gains().query("gain > 0.1").iterrows())
    with browser.chromium() as driver:
        driver.get(report.write(directory.parent).as_uri())
        into_view(driver, "#mirrored-results")
        (button,) = driver.find_elements("css selector", "#mirrored-results th:nth-child(1) button")
        for direction in (1, -1):
            button.click()
            names = [name.text for name in driver.find_elements("css selector", "#mirrored-results tbody th")]
            assert names[::direction] == [f"client rate {rate}" for rate in ("0.0003", "0.001", "0.003")]
        into_view(driver, "#mirrored-gains")
        select = "#mirrored-gains .client select"
        wait(driver, lambda: len(driver.find_elements("css selector", f"{select} option")) > 1)
        driver.find_element("css selector", select).send_keys(client)
        said = f"error rate {row['initial']:.3f} → {row['personalized']:.3f} (+{row['gain']:.3f})"
        wait(driver, lambda: said in driver.find_element("css selector", "#mirrored-gains .card").text)


def test_the_gallery_shows_and_filters_writers(driver, find):
    into_view(driver, "#writers")
    assert texts(find, "#writers .writer h3") == [NASTY]
    find("#gallery-filter")[0].send_keys("nobody")
    wait(driver, lambda: not find("#writers .writer"))
    find("#gallery-filter")[0].clear()


def test_the_page_fits_a_phone_in_the_dark_and_its_console_is_silent(page, driver):
    assert driver.get_log("browser") == []
    with browser.chromium(390, 844, dark=True) as phone:
        phone.get(page.as_uri())
        assert phone.execute_script("return document.documentElement.scrollWidth") == 390
        assert phone.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
        into_view(phone, "#my_own-gains")
        wait(phone, lambda: phone.find_elements("css selector", "#my_own-gains .main-svg"))
        assert phone.execute_script("return document.documentElement.scrollWidth") == 390
        assert phone.get_log("browser") == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_of_one_run_draws_each_client_and_fits(run_page, width, dark):
    with browser.chromium(width, 844, dark=dark) as driver:
        driver.get(run_page.as_uri())
        into_view(driver, "#run-before_after")
        points = "#run-before_after .scatterlayer .point"
        wait(driver, lambda: len(driver.find_elements("css selector", points)) == 2 * 10)
        assert driver.execute_script("return document.documentElement.scrollWidth") == width
        assert [h.text for h in driver.find_elements("css selector", "#writers .writer h3")] == ["writer_003"]
        assert driver.get_log("browser") == []
