"""docs/methods.md is what the registries say."""

import dataclasses
import pathlib

from tff_personalization import methods
from tff_personalization.personalization import strategies
from tff_personalization.tools import describe_methods

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_committed_page_is_the_generated_one():
    made = "python -m tff_personalization.tools.describe_methods > docs/methods.md"
    assert PAGE.read_text(encoding="utf-8") == describe_methods.page(), f"out of date; run: {made}"


def test_the_page_has_a_row_for_each_method_and_strategy_and_their_papers():
    page = describe_methods.page()
    for name in methods.METHODS:
        assert page.count(f"\n| `{name}` |") == 2 + (name in strategies.STRATEGIES)
    (row,) = [line for line in page.splitlines() if line.startswith("| `fed_avg` | FedAvg")]
    assert "McMahan et al. 2017" in row
    assert "arXiv 1909.12488" in row
    assert "`--local_epochs`" in row
    assert "*server*" in row


def test_a_strategy_that_needs_more_than_the_method_trains_is_not_combined():
    @dataclasses.dataclass
    class Needs:
        needs: str = ""

    @dataclasses.dataclass
    class Provides:
        provides: str = ""

    assert describe_methods.fits(Provides(), Needs())
    assert describe_methods.fits(Provides("rates"), Needs())
    assert describe_methods.fits(Provides("rates"), Needs("rates"))
    assert not describe_methods.fits(Provides(), Needs("rates"))
    assert not describe_methods.fits(Provides("models"), Needs("rates"))
