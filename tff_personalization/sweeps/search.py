"""The `[search]` of a sweep: suggests learning rates and finds the best.

The space and the trials are Vizier's (`vizier.pyvizier`, installed with TFF). The points come from a scrambled Halton
sequence (SciPy), log-uniform between the bounds. Vizier's own designers, which TFF's `train_model_with_vizier` uses,
need chex and equinox, which TFF 0.87 does not install. A point depends neither on earlier results nor on the number of
trials. So a search that was stopped, or now has more trials, reuses its finished runs.
"""

from collections.abc import Mapping, Sequence

from scipy.stats import qmc
from vizier import pyvizier

from tff_personalization import metrics

OBJECTIVE = "validation_personalized_accuracy"


def problem(
    bounds: Mapping[str, tuple[float, float]], metric: metrics.Metric = metrics.ACCURACY
) -> pyvizier.ProblemStatement:
    """The search as Vizier states it: flags with their least and greatest value, and whether the metric is to rise."""
    statement = pyvizier.ProblemStatement()
    for name, (low, high) in bounds.items():
        statement.search_space.root.add_float_param(name, low, high, scale_type=pyvizier.ScaleType.LOG)
    goals = pyvizier.ObjectiveMetricGoal
    goal = goals.MAXIMIZE if metric.higher_is_better else goals.MINIMIZE
    statement.metric_information.append(pyvizier.MetricInformation(OBJECTIVE, goal=goal))
    return statement


def suggest(statement: pyvizier.ProblemStatement, count: int, seed: int) -> list[pyvizier.Trial]:
    """The first `count` points of the seed's sequence as trials, with values rounded to four digits."""
    parameters = statement.search_space.parameters
    points = qmc.Halton(len(parameters), scramble=True, seed=seed).random(count)
    trials = []
    for number, point in enumerate(points, start=1):
        values = {}
        for parameter, share in zip(parameters, point, strict=True):
            low, high = parameter.bounds
            values[parameter.name] = min(high, max(low, float(f"{low * (high / low) ** share:.4g}")))
        trials.append(pyvizier.Trial(id=number, parameters=values))
    return trials


def complete(trial: pyvizier.Trial, measured: float | None) -> None:
    """Completes a trial with its run's result. None means that the run failed, which makes the trial infeasible."""
    if measured is None:
        trial.complete(pyvizier.Measurement(), infeasibility_reason="the run failed")
    else:
        trial.complete(pyvizier.Measurement(metrics={OBJECTIVE: measured}))


def best(trials: Sequence[pyvizier.Trial], metric: metrics.Metric = metrics.ACCURACY) -> pyvizier.Trial | None:
    """The completed trial with the best objective, the earliest of several; None if there is none."""
    feasible = [trial for trial in trials if trial.is_completed and not trial.infeasible]
    return max(feasible, key=lambda trial: metric.gain(0, objective(trial)), default=None)


def objective(trial: pyvizier.Trial) -> float:
    """The result of a feasible trial."""
    assert trial.final_measurement is not None
    return trial.final_measurement.metrics[OBJECTIVE].value
