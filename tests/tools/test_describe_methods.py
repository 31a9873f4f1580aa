"""docs/methods.md agrees with the registries."""

import pathlib

from absl import flags

from tff_personalization import errors, methods
from tff_personalization.algorithms import method
from tff_personalization.experiment import config
from tff_personalization.personalization import strategies
from tff_personalization.tools import describe_methods

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_committed_page_is_the_generated_one():
    made = "python -m tff_personalization.tools.describe_methods > docs/methods.md"
    assert PAGE.read_text(encoding="utf-8") == describe_methods.page(), f"out of date; run: {made}"


def test_the_page_has_a_row_for_each_method_and_strategy_and_their_papers():
    page = describe_methods.page()
    for name in methods.METHODS:
        assert page.count(f"\n| `{name}` |") == 3 + 2 * (name in strategies.STRATEGIES)
    (row,) = [line for line in page.splitlines() if line.startswith("| `fed_avg` | FedAvg")]
    assert "McMahan et al. 2017" in row
    assert "arXiv 1909.12488" in row
    assert "`--local_epochs`" in row
    assert "*server*" in row


def test_a_strategy_is_linked_to_its_own_file():
    rows = describe_methods.page().partition("## Strategies\n")[2].splitlines()
    for name in ("ditto", "best_cluster", "reconstruct"):
        (row,) = [line for line in rows if line.startswith(f"| `{name}` |") and "[file]" in line]
        assert f"personalization/{name}.py" in row


def test_every_method_says_whom_it_serves():
    assert {methods.get(name).serves for name in methods.METHODS} == set(method.SERVES)


def is_accepted(method, strategy):
    """Whether the program accepts both flags."""
    flag_values = flags.FlagValues()
    config.define_flags(flag_values)
    term = ["--update_term=fomaml"] if method == "fed_avg_terms" else []
    flag_values(["", f"--method={method}", f"--strategies={strategy}", *term])
    try:
        config.from_flags(flag_values)
    except errors.UserError as error:
        if f"{strategy} needs" not in str(error):
            raise
        return False
    return True


def test_the_table_of_what_can_be_combined_says_what_the_program_accepts():
    table = describe_methods.page().partition("## What can be combined\n")[2].partition("\n## ")[0]
    head, _, *rows = (
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.splitlines() if "|" in line
    )
    assert head[1:] == list(strategies.STRATEGIES)
    for name, *marks in rows:
        assert marks == ["+" if is_accepted(name, strategy) else "–" for strategy in head[1:]], name
    assert [name for name, *_ in rows] == list(methods.METHODS)
    assert {mark for _, *marks in rows for mark in marks} == {"+", "–"}
