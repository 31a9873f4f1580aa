"""Opens a finished run: its records, settings, model, weights and data. Each is read when it is first used."""

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from tff_personalization import errors, global_weights, homes, identity, methods, plugins, seeds
from tff_personalization.algorithms import method
from tff_personalization.execution import runtime
from tff_personalization.experiment import config as config_lib
from tff_personalization.experiment import setup as setup_lib
from tff_personalization.models import functional
from tff_personalization.records import run_records, saved_models
from tff_personalization.tasks import federated_data, registry

LAST, BEST = "last", "best"


@dataclasses.dataclass(frozen=True)
class FinishedRun(run_records.Run):
    """A finished run. Opening it reads only config.json.

    >>> run = FinishedRun.open("runs/quick")
    >>> run.experiment.config.method, run.summary["rounds"], run.kept_rounds
    ('fed_avg', 4, [4])
    >>> run.clients["accuracy"].between(0, 1).all()                     # tables, as pandas has them
    True
    >>> weights = run.global_weights("last").model                      # NumPy arrays
    >>> client = run.data.split.test[0]
    >>> images, labels = run.data.test.examples(client)
    >>> run.model.logits(weights, images, None).shape == (len(labels), 62)
    True

    Attributes:
        directory: the run directory.
        client_data: where the run's client data is now; None if it has not moved.
    """

    directory: pathlib.Path
    client_data: str | None = None

    @classmethod
    def open(cls, directory: str | os.PathLike[str], client_data: str | None = None) -> "FinishedRun":
        """The run in a directory.

        Args:
            directory: a run directory.
            client_data: where its client data is now, if it was moved.

        Raises:
            UserError: it is not a run directory, the run is unfinished, or its config.json is damaged.
        """
        read = run_records.read(directory)
        if not isinstance(read.directory, pathlib.Path):
            raise errors.UserError(f"{read.directory}: a zip file has no models: give the run's directory.")
        if not read.finished:
            raise errors.UserError(f"{read.directory}: unfinished run (no summary.json): run its command again first.")
        return cls(read.directory, read.config, client_data)

    @functools.cached_property
    def experiment(self) -> config_lib.Experiment:
        """The run's settings, as its command gave them; its plugins are imported.

        Raises:
            UserError: config.json is damaged or comes from another program version, or a plugin is missing or has
                changed since the run.
        """
        where = self.directory / "config.json"
        try:
            given = {**self.config["given"], **({"client_data": self.client_data} if self.client_data else {})}
            sources = dict(self.config["flags"].get("plugin_sources", {}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise errors.UserError(
                f"{where}: damaged, or of another version of the program ({type(error).__name__}: {error}): restore "
                "it, or repeat the run."
            ) from error
        try:
            plugins.load_again(plugins.split(given.get("plugin", [])), sources)
            return config_lib.from_settings(given)
        except errors.UserError as error:
            files = [name for name in plugins.split(given.get("plugin", [])) if name.endswith(".py")]
            raise errors.UserError(f"{where}: {error}{_elsewhere(files)}") from error

    @property
    def task(self) -> registry.Task:
        """The run's task. If a plugin defines it, the plugin is imported."""
        return registry.TASKS[self.experiment.config.task]

    @functools.cached_property
    def model(self) -> functional.SeededModel:
        """The run's network, with its weights before the first round."""
        config = self.experiment.config
        return setup_lib.model_builder(config)(seeds.generator(config.seed, "init"))

    @functools.cached_property
    def data(self) -> federated_data.FederatedData:
        """The run's client data.

        Raises:
            UserError: it cannot be read, or has changed since the run.
        """
        config = self.experiment.config
        try:
            data = federated_data.load(config, of_source=self.experiment.of_source)
        except errors.UserError as error:
            files = [path for name in identity.CLIENT_IDS if (path := getattr(config, name))]
            if not (self.client_data or config.client_data in self.task.sources.named):
                files.append(config.client_data)
            raise errors.UserError(f"{error}{_elsewhere(files)}") from error
        then = self.config.get("data_sha256", data.sha256)
        if data.sha256 != then:
            raise errors.UserError(
                f"--client_data={config.client_data}: the data has changed since the run in {self.directory} (SHA-256 "
                f"{then[:12]}… then, {data.sha256[:12]}… now): restore it."
            )
        ids = self.experiment.client_ids
        ids_then = self.config["flags"].get("client_ids_sha256", ids)
        for name in ids:
            if ids[name] != ids_then.get(name):
                raise errors.UserError(
                    f"--{name}={getattr(config, name)}: the file names other clients than in the run in "
                    f"{self.directory}: restore it."
                )
        return data

    @functools.cached_property
    def setup(self) -> method.RunSetup[Any]:
        """The inputs from which the run's method was built."""
        return setup_lib.setup(self.experiment, self.data)

    @property
    def saved_models(self) -> saved_models.SavedModels:
        """The global models that the run has kept."""
        return saved_models.SavedModels(self.directory / "models")

    @property
    def kept_rounds(self) -> list[int]:
        """The rounds after which the run has kept the global model."""
        return self.saved_models.rounds()

    def round_number(self, which: int | str = LAST) -> int:
        """The number of a round after which the run kept the global model.

        Args:
            which: "last", "best" (the evaluated round that was best on validation clients), or a number.

        Raises:
            UserError: the run has kept no such model.
        """
        if not self.directory.is_dir():
            raise errors.UserError(f"{self.directory}: no such directory any more; open the run where it is now.")
        number = self._number(which)
        if number not in (kept := self.kept_rounds):
            raise errors.UserError(
                f"{self.directory}: it kept no model of round {number}, only of "
                f"{', '.join(map(str, kept)) or 'none'}: choose one of these, or repeat the run with "
                "--rounds_per_model and another --run_name."
            )
        return number

    def _number(self, which: int | str) -> int:
        if which == LAST:
            return self.summary["rounds"]
        if which == BEST:
            if not self.summary.get("validation_round"):
                raise errors.UserError(
                    f"{self.directory}: it has no evaluation of validation clients, so no round is the best: choose "
                    "last, or repeat the run with --validation_clients."
                )
            return self.summary["validation_round"]["round"]
        try:
            return int(which)
        except ValueError:
            raise errors.UserError(f"--round={which}: last, best, or the number of a round is expected.") from None

    def global_weights(self, which: int | str = LAST) -> global_weights.GlobalWeights:
        """The global weights after a round, by name: the model's, and what the method adds.

        Args:
            which: as in `round_number`.

        Raises:
            UserError: the run has kept no such model, or its file is damaged or belongs to another network.
        """
        number = self.round_number(which)
        added = methods.get(self.experiment.config.method).provides
        weights = global_weights.GlobalWeights.named(self.saved_models.load(number), self.model, added)
        if [w.shape for w in weights.model] != [w.shape for w in self.model.initial_weights[0]]:
            raise errors.UserError(
                f"{self.saved_models.file(number)}: not the weights of --model={self.experiment.config.model}: restore "
                "the file, or repeat the run."
            )
        return weights

    def keras_model(self, which: int | str = LAST) -> tf.keras.Model:
        """The global model after a round as a Keras model.

        Args:
            which: as in `round_number`.

        Raises:
            UserError: as in `global_weights`, or the network has no Keras form.
        """
        if self.model.to_keras is None:
            raise errors.UserError(
                f"{self.directory}: --model={self.experiment.config.model} is not a Keras model and cannot be made "
                "one: give its SeededModel a to_keras."
            )
        return self.model.to_keras(self.global_weights(which).model)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """A context in which TFF computes on this machine as it did in the run. Enter it on the main thread.

        TFF's worker writes to the run's worker.log, if that can be written.
        """
        config, threads = self.experiment.config, self.config.get("threads_per_client", 1)
        with contextlib.ExitStack() as stack:
            try:
                log = stack.enter_context((self.directory / "worker.log").open("ab"))
            except OSError:
                log = stack.enter_context(pathlib.Path(os.devnull).open("ab"))
            stack.enter_context(
                runtime.execution_context(
                    config.cores, log, threads, config.clients_per_call, config.require_closed_worker
                )
            )
            yield


def _elsewhere(paths: Iterable[str]) -> str:
    """Advice if one of the paths of a run's command, which are as they were typed, leads nowhere from this folder."""
    lost = [path for path in paths if not homes.expand(path).is_absolute() and not os.path.exists(path)]
    return f" {lost[0]} is a path from the folder of the run's command: start there." if lost else ""
