"""Runs one experiment: trains a global model, personalizes it on every test client, and leaves a run directory.

    python run_experiment.py --flagfile=configs/quick.flags
    python run_experiment.py --method=reptile --client_data=my_handwriting.npz --rounds=150

Run the same command again to resume a stopped run, or to print the table of a finished one.
--helpfull lists all flags, --method=NAME --help those that a method reads (also --strategies=, --aggregator=).
--sweep=FILE makes many runs (docs/sweeps.md); --plugin=FILE adds your own methods and strategies (docs/extending.md).
"""

import os
import signal
import sys

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]  # needed with PYTHONSAFEPATH

from tff_personalization import startup  # noqa: E402

if __name__ == "__main__":
    # Until there is something to save, Ctrl-C ends the program at once, because an import would swallow the exception.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

with startup.plain_memory_errors(), startup.without_collections():
    from absl import flags

    from tff_personalization import errors, plugins
    from tff_personalization.execution import interruption
    from tff_personalization.experiment import config, flag_help
    from tff_personalization.programs import report, training

with startup.plain_memory_errors(), startup.plain_flag_errors():
    plugins.load(sys.argv)  # Plugins add choices to flags.
    config.define_flags()


def parse_flags(argv: list[str]) -> list[str]:
    """As `startup.parse_flags`. `--help` lists the first flags, or those that a choice such as `--method=…` reads."""
    others = [argument for argument in argv if argument not in flag_help.ASKING]
    if len(others) < len(argv):
        startup.parse_flags(others)
        print(flag_help.of_choices() or f"{__doc__}\n{flag_help.of_first_flags()}")
        sys.exit(0)
    return startup.parse_flags(argv)


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        raise errors.UserError(f"{argv[1]!r} is not a flag: settings are given as --name=value (see --help).")
    if flags.FLAGS.sweep:
        from tff_personalization.sweeps import search  # SciPy and pandas take a while to import.

        with interruption.Interruption():
            return 0 if search.sweep_of(flags.FLAGS).run() else 1
    for name in config.OF_SWEEPS[1:]:  # all but --sweep itself
        if not flags.FLAGS[name].using_default_value:
            raise errors.UserError(f"--{name} has no effect without --sweep: remove it.")
    experiment = config.from_flags(flags.FLAGS)
    with interruption.Interruption() as interrupt:
        directory = training.run(experiment, interrupt)
    report.print_report(directory)
    return 0


if __name__ == "__main__":
    startup.run_main(main, parse_flags)
