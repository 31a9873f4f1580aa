"""docs/methods.md agrees with the registries."""

import pathlib
import re

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
        assert page.count(f"\n| `{name}` |") == 2 + 2 * (name in strategies.STRATEGIES)
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


def test_the_exceptions_of_what_can_be_combined_are_those_that_the_program_refuses():
    part = describe_methods.page().partition("## What can be combined\n")[2].partition("\n## ")[0]
    only = {line.split("`")[1]: re.findall(r"--method=(\w+)", line) for line in part.splitlines() if "needs" in line}
    assert set(only) == {"meta_sgd", "best_cluster"}
    for strategy in strategies.STRATEGIES:
        accepting = [name for name in methods.METHODS if is_accepted(name, strategy)]
        assert accepting == only.get(strategy, list(methods.METHODS))
