"""The result of a finished run in one sentence."""

import math

from analysis import inference, metric, names
from analysis import runs as runs_lib

_NORMAL = 1.96  # standard errors on each side of a mean, for 95 %


def gain_interval(run: runs_lib.Run) -> tuple[float, float]:
    """The 95 % interval of the mean gain over test clients, under the main strategy.

    A percentile bootstrap over clients. If the run released only aggregates, it uses mean and standard deviation.
    """
    try:
        gains = run.client_gains()["gain"]
    except runs_lib.NotRecordedError:
        gain = run.summary["gain"]
        margin = _NORMAL * gain["sd"] / math.sqrt(tested_clients(run))
        return gain["mean"] - margin, gain["mean"] + margin
    return inference.estimate([gains]).interval()


def sentence(run: runs_lib.Run) -> str:
    """The effect of personalization on the test clients, with the interval of the mean gain if there are several."""
    summary = run.summary
    clients = tested_clients(run)
    if not clients:
        return "No held-out client has test examples, so there is nothing to compare."
    strategy = names.strategy(summary["strategy"])
    before, after = (summary[f"{kind}_accuracy"]["mean"] for kind in ("initial", "personalized"))
    gaining, hurt = (round(summary[f"share_{name}"] * clients) for name in ("gaining", "hurt"))
    of_plugin = summary["strategy"] not in names.STRATEGIES
    subject = f"The strategy {strategy}" if of_plugin else f"{strategy[0].upper()}{strategy[1:]}"
    subject += " on each client's own examples"
    if f"{before:.2f}" == f"{after:.2f}":
        said = f"{subject} left mean accuracy at {after:.2f}"
    else:
        said = f"{subject} {'raised' if after > before else 'lowered'} mean accuracy from {before:.2f} to {after:.2f}"
    gain = f"gain {summary['gain']['mean']:+.3f}"
    if clients > 1:  # one client has no interval
        low, high = gain_interval(run)
        gain += f", 95 % interval {low:+.3f} to {high:+.3f}"
    of = f"{clients} client{'s' if clients > 1 else ''}"
    counted = f"{gaining} of {of} gained, {hurt} {'was' if hurt == 1 else 'were'} hurt"
    return f"{metric.named(said, run.metric)} ({gain}); {counted}."


def tested_clients(run: runs_lib.Run) -> int:
    """The number of test clients with test examples."""
    return run.summary["test_clients"] - run.summary.get("test_clients_without_test_data", 0)
