"""The drawing page: draw characters in a browser, and see a run's model learn your handwriting.

    python -m tff_personalization.draw RUN              # a run directory, such as runs/fed_avg-handwriting-seed1-…
    python -m tff_personalization.draw --train          # trains configs/quick.flags first, if there is no such run

It listens only on 127.0.0.1 and stores nothing: docs/draw.md.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from tff_personalization import errors, startup
from tff_personalization.draw import personalizer, server, visitors
from tff_personalization.execution import interruption
from tff_personalization.experiment import config
from tff_personalization.programs import training
from tff_personalization.records import run_records

_QUICK = pathlib.Path(__file__).parents[2] / "configs" / "quick.flags"

_PORT = flags.DEFINE_integer("port", 8765, "Port on 127.0.0.1; 0 takes any free port.", 0, 65535)
_TRAIN = flags.DEFINE_bool("train", False, "Without RUN: train configs/quick.flags first (about 3 minutes, once).")
_ROUND = flags.DEFINE_integer("round", None, "Use the global model of this round. Default: the last round.", 0)
_STRATEGY = flags.DEFINE_string("strategy", None, "One of the run's strategies. Default: its main one.")
_VISITORS = flags.DEFINE_integer(
    "visitors", 8, "Number of visitors kept; with more, the longest inactive visitor is dropped.", 1
)
_EXAMPLES = flags.DEFINE_integer("examples", 400, "Examples kept for each visitor.", 1)


def _quick_run() -> pathlib.Path:
    """The directory of the small default run; trains it if there is none."""
    flag_values = flags.FlagValues()
    config.define_flags(flag_values)
    flag_values(["run_experiment", f"--flagfile={_QUICK}"])
    with interruption.Interruption() as interrupt:
        return training.run(config.from_flags(flag_values), interrupt).path


def _without_run() -> errors.UserError:
    made = sorted(pathlib.Path("runs").glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    if made:
        return errors.UserError(f"RUN is missing: give a run directory, such as make draw RUN={made[-1].parent}")
    return errors.UserError(
        "RUN is missing, and runs/ has no run: make one with make run (about 3 minutes), or with make draw "
        "FLAGS=--train."
    )


def pages_of(
    trained: personalizer.TrainedModel, run: pathlib.Path, most_visitors: int, most_examples: int
) -> server.Pages:
    """The pages for a run's model, ready to answer."""
    maker = personalizer.Personalizer(trained)
    maker.warm_up()
    settings = trained.experiment.config
    about = {
        "name": trained.run_name,
        "method": settings.method,
        "source": trained.source,
        "round": trained.round_number,
        "strategy": trained.strategy,
        "epochs": settings.personalization_epochs,
    }
    writers = visitors.held_out_writers(run_records.read(run), trained.strategy)
    return server.Pages(maker, writers, about, most_visitors, most_examples)


def main(argv: Sequence[str]) -> int:
    if len(argv) > 2 or (len(argv) == 2 and _TRAIN.value):
        raise errors.UserError("One run directory is expected, or --train without one.")
    if len(argv) < 2 and not _TRAIN.value:
        raise _without_run()
    run = pathlib.Path(argv[1]) if len(argv) == 2 else _quick_run()
    trained = personalizer.load(run, _ROUND.value, _STRATEGY.value)
    served = server.Server(pages_of(trained, run, _VISITORS.value, _EXAMPLES.value), _PORT.value)
    print(f"Draw at {served.url} (Ctrl-C ends it)", flush=True)
    served.serve()
    return 0


if __name__ == "__main__":
    startup.run_main(main)
