"""Run directories damaged by hand: of a run to resume, or of a finished one whose plots are drawn again."""

import functools
import json
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator

import numpy as np

from tests import forked, processes
from tests.stress import cases
from tests.tasks.sources import small_files
from tff_personalization.records import checkpoints

Damage = Callable[[pathlib.Path], object]
"""Damages something in a run directory."""


class Template:
    """A small run without faults; its copies are damaged."""

    flags = (
        *(
            "--model=linear",
            "--method=scaffold",
            "--rounds=4",
            "--rounds_per_evaluation=2",
            "--rounds_per_checkpoint=2",
        ),
        *("--clients_per_round=2", "--test_clients=2", "--validation_clients=1", "--local_epochs=1"),
        *("--personalization_epochs=1", "--personalization_examples=1,all", "--output_dir=runs", "--run_name=run"),
    )

    def __init__(self, place: pathlib.Path):
        """Names the run, which is made in a directory when it is first needed."""
        self._place = place
        self._archive = place / "x.npz"

    @functools.cached_property
    def directory(self) -> pathlib.Path:
        np.savez(self._archive, **small_files.arrays(count=60, writers=6))
        forked.run(
            [sys.executable, str(processes.ROOT / "run_experiment.py"), *self._arguments(plots=False)],
            cwd=self._place,
            capture_output=True,
            check=True,
        )
        return self._place / "runs" / "run"

    def _arguments(self, plots: bool) -> list[str]:
        return [*self.flags, f"--client_data={self._archive}", "--plots" if plots else "--noplots"]

    def damaged(self, damage: Damage, until: int | None = None) -> cases.Make:
        """A copy of the run after some damage.

        Args:
            damage: does it, to a run directory.
            until: the round after which the copy was stopped; None for a finished run, whose plots are drawn.
        """

        def make(place: pathlib.Path) -> list[str]:
            copy = shutil.copytree(self.directory, place / "runs" / "run")
            if until is not None:
                (copy / "summary.json").unlink()
            if until == 2:
                shutil.rmtree(copy / "checkpoints" / "round_4")
                (copy / "checkpoints" / "round_4.json").unlink()
            damage(copy)
            return self._arguments(plots=until is None)

        return make


def _cut(name: str, share: float) -> Damage:
    def damage(run: pathlib.Path) -> None:
        for path in run.glob(name):
            content = path.read_bytes()
            path.write_bytes(content[: int(share * len(content))])

    return damage


def _filled(name: str, content: bytes) -> Damage:
    return lambda run: [path.write_bytes(content) for path in run.glob(name)]


def _json(name: str, **changes: object) -> Damage:
    """Other values in a JSON file."""

    def damage(run: pathlib.Path) -> None:
        path = run / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def _another_checkpoint(run: pathlib.Path) -> None:
    shutil.rmtree(run / "checkpoints")
    checkpoints.Checkpoints(run / "checkpoints").save({"weights": np.zeros(3, np.float32)}, 4)


def of_runs(template: Template) -> Iterator[cases.Case]:
    """Damaged run directories."""
    for kind, name, damage, until in _damages():
        yield cases.Case(kind, name, template.damaged(damage, until))


def _damages() -> Iterator[tuple[str, str, Damage, int | None]]:
    """Kind, name, damage, and `until` of `Template.damaged`."""
    # What is damaged, and until when the run has come.
    places = {
        "config.json of a run": ("config.json", 4),
        "metrics.csv of a run": ("metrics.csv", 4),
        "evaluations.csv of a run": ("evaluations.csv", 4),
        "states of clients": ("client_states/*.npz", 2),
        "kept models": ("models/round_*.npz", 4),
        "checkpoint": ("checkpoints/round_*/*.pb", 4),
        "checksums of a checkpoint": ("checkpoints/*.json", 4),
        "summary.json of a run": ("summary.json", None),
        "clients.csv of a run": ("clients.csv", None),
        "distribution.csv of a run": ("distribution.csv", None),
    }
    for kind, (pattern, until) in places.items():
        for name, content in (("empty", b""), ("a list", b"[]"), ("bytes", bytes(range(256)))):
            yield kind, name, _filled(pattern, content), until
        for share in (0.3, 0.9):
            yield kind, f"cut at {share}", _cut(pattern, share), until
    for directory, name in (("client_states", "x.npz"), ("models", "round_x.npz"), ("checkpoints", "round_x")):
        yield "run directory", f"a stranger, {name}", _with_file(f"{directory}/{name}"), 2
    for name in ("lock", "checkpoints", "models", "worker.log", "metrics.csv"):
        yield "run directory", f"{name} of another kind", _of_another_kind(name), 4
    for version in (0, 2, "1", None):
        yield (
            "checksums of a checkpoint",
            f"of format {version!r}",
            _json("checkpoints/round_4.json", format=version),
            4,
        )
    yield "checksums of a checkpoint", "of another kind", _json("checkpoints/round_4.json", sha256=[]), 4
    yield "checkpoint", "of another structure", _another_checkpoint, 4
    for name, value in (("data_sha256", 5), ("data_sha256", None), ("data_sha256", "0"), ("flags", {}), ("flags", 5)):
        yield "config.json of a run", f"{name} {value}", _json("config.json", **{name: value}), 4


def _with_file(name: str) -> Damage:
    return lambda run: (run / name).write_bytes(b"?")


def _of_another_kind(name: str) -> Damage:
    """A file in place of a directory, or a directory in place of a file."""

    def damage(run: pathlib.Path) -> None:
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
            path.write_text("")
        else:
            path.unlink()
            path.mkdir()

    return damage
