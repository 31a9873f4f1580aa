"""One form for client data from any source: all examples in one compact array.

Convention: images are uint8, shape (28, 28), ink 255 on background 0. Each source converts to it when it reads.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from tff_personalization import errors

IMAGE_SHAPE = (28, 28)
CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_FLOATS_ROUND = 2.0**53  # float64 represents all integers below this one
# What spreadsheets and pandas make of large whole numbers.
_ROUNDED = re.compile(r"[+-]?\d+(\.\d+)?[eE]\+\d+")


@dataclasses.dataclass(frozen=True)
class Archive:
    """Examples, each with its client and part.

    Attributes:
        x: shape (N, …), the model's input.
        y: what the model predicts, shape (N, …): int32, indices into `classes`; or float32, real numbers.
        client_index: int, shape (N,), indices into `clients`; examples may come in any order.
        is_test: bool, shape (N,), whether an example belongs to its client's test part.
        clients: the names of the clients, sorted. A client may have no example.
        classes: the name of each class.
        source: what the data is, in a few words, for records, tables and plots; starts with "synthetic" if generated.
        notes: what was found when the data was read, one sentence each, for the user.
        has_clients: False if the data names no clients; all examples then belong to one client.
        parts_as_meant: whether a client with only one part keeps it, where other clients have both.
        held_out: the clients that the data itself holds out; empty if the run chooses them.
        inputs: how many numbers of `x` each named input has, by name; None if inputs have no names.
    """

    x: np.ndarray
    y: np.ndarray
    client_index: np.ndarray
    is_test: np.ndarray
    clients: tuple[str, ...]
    classes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    has_clients: bool = True
    held_out: tuple[str, ...] = ()
    parts_as_meant: bool = False
    inputs: Mapping[str, int] | None = None

    @classmethod
    def from_names(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        client: np.ndarray,
        is_test: np.ndarray,
        classes: tuple[str, ...],
        source: str,
        **more: Any,
    ) -> Self:
        """Makes an archive from examples and the name of each example's client, `client`, shape (N,)."""
        names, index = np.unique(client, return_inverse=True)
        return cls(x, y, index.astype(np.int32), is_test, tuple(names.tolist()), classes, source, **more)

    @classmethod
    def from_counts(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        counts: np.ndarray,
        clients: tuple[str, ...],
        classes: tuple[str, ...],
        source: str,
        **more: Any,
    ) -> Self:
        """Makes an archive from examples ordered by client, in the order of `clients`, all train parts first.

        Args:
            counts: int, shape (2, C), each client's number of train examples, then of test examples.
            clients: the C clients, sorted.
            x, y, classes, source: as in the archive.
            more: the other attributes.
        """
        client_index = np.repeat(np.tile(np.arange(len(clients), dtype=np.int32), 2), counts.ravel())
        is_test = np.repeat([False, True], counts.sum(axis=1))
        return cls(x, y, client_index, is_test, clients, classes, source, **more)

    def __post_init__(self) -> None:
        count = len(self.x)
        for name, shape in (("y", (count, *self.y.shape[1:])), ("client_index", (count,)), ("is_test", (count,))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: shape {shape} expected, got {getattr(self, name).shape}")
        # Several values for an example may be labels of 0 and 1, also of a single label; the task knows (`Task.check`).
        least = 1 if self.y.ndim == 1 else 2
        for name, most in (("y", max(len(self.classes), least)), ("client_index", len(self.clients))):
            values = getattr(self, name)
            if values.dtype.kind == "f":
                if not np.isfinite(values).all():
                    raise ValueError(f"{name}: finite numbers expected")
                continue
            if values.dtype.kind not in "iub":
                raise ValueError(f"{name}: integers or real numbers expected, got values such as {values.flat[0]!r}")
            if count and not (values.min() >= 0 and values.max() < most):
                raise ValueError(f"{name}: 0 to {most - 1} expected, got {values.min()} to {values.max()}")
        if list(self.clients) != sorted(set(self.clients)):
            raise ValueError("clients: sorted names expected, each once")

    @property
    def client(self) -> np.ndarray:
        """The name of each example's client, shape (N,). It is large, and made again at every call."""
        return np.array(self.clients)[self.client_index]

    @property
    def counts(self) -> np.ndarray:
        """Each client's number of train examples, and of test examples: int, shape (2, C)."""
        place = self.is_test * np.int64(len(self.clients)) + self.client_index
        return np.bincount(place, minlength=2 * len(self.clients)).reshape(2, -1)

    def select(self, keep: np.ndarray, **changes: Any) -> Self:
        """The examples for which the bool array `keep`, shape (N,), is true. `changes` replaces other attributes."""
        parts = {name: getattr(self, name)[keep] for name in ("x", "y", "client_index", "is_test")}
        return dataclasses.replace(self, **{**parts, **changes})


class CharacterArchive(Archive):
    """Handwritten characters: `x` is uint8 of shape (N, 28, 28), ink 255 on background 0, `y` has shape (N,)."""

    def __post_init__(self) -> None:
        if self.x.shape != (len(self.x), *IMAGE_SHAPE) or self.x.dtype != np.uint8:
            raise ValueError(f"images: uint8 of shape (N, 28, 28) expected, got {self.x.dtype} {self.x.shape}")
        if self.y.ndim != 1:
            raise ValueError(f"labels: shape (N,) expected, got {self.y.shape}")
        super().__post_init__()

    @property
    def images(self) -> np.ndarray:
        return self.x

    @property
    def labels(self) -> np.ndarray:
        return self.y


def client_name(where: str, value: Any) -> str:
    """The name of a client as text. A whole number that pandas made a float is named as the integer that it was.

    Args:
        where: the data's name in errors.
        value: the name, as in the data.

    Raises:
        UserError: it is missing, a rounded number, or bytes that are not UTF-8.
    """
    if value is None or value != value:
        raise errors.UserError(f"{where}: an example has no client: name its client, or leave the example out.")
    if isinstance(value, float) and value.is_integer():
        value = int(value) if abs(value) < _FLOATS_ROUND else f"{value:e}"
    try:
        name = value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise errors.UserError(f"{where}: the client {value!r} has a name that is not UTF-8: decode it.") from error
    if _ROUNDED.fullmatch(name):
        raise errors.UserError(
            f"{where}: client {name!r} is a rounded number: save the names of clients as text or integers."
        )
    return name


def split_by_client(labels: np.ndarray, client: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Splits each client's examples into a train and a test part, stratified by class.

    It is a systematic sample: it orders the client's examples by class and takes every fifth from a random start. So
    every example has the same probability. The test part has each class's share, rounded down or up, and never all
    examples of a class that has two or more.

    Args:
        labels: int, shape (N,).
        client: shape (N,).
        rng: source of the random choice.

    Returns:
        bool, shape (N,), true for the test part. It has a fifth of each client's examples, rounded, and at least one if
        the client has two or more.
    """
    is_test = np.zeros(len(labels), bool)
    for _, examples in sorted(_indices_by(client).items()):
        wanted = max(1, round(len(examples) / 5)) if len(examples) > 1 else 0
        by_class = list(_indices_by(labels[examples]).values())
        line = [examples[rng.permutation(by_class[i])] for i in rng.permutation(len(by_class))]
        places = (np.arange(wanted) + rng.random()) * (len(examples) / max(wanted, 1))
        is_test[np.concatenate(line)[places.astype(int)]] = True
    return is_test


def _indices_by(keys: np.ndarray) -> dict:
    """The indices of each distinct value of `keys`."""
    values, inverse = np.unique(keys, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse, minlength=len(values)))[:-1]) if len(values) else []
    return collections.OrderedDict(zip(values.tolist(), parts, strict=True))


def deal_at_random(archive: Archive, rng: np.random.Generator) -> Archive:
    """Deals all examples to the clients at random. Each client keeps its number of examples, but they may be anybody's.

    As a control of an experiment: only the random mix of classes is left to personalize to.
    """
    order = rng.permutation(len(archive.y))
    return dataclasses.replace(
        archive,
        x=archive.x[order],
        y=archive.y[order],
        source=f"{archive.source}, examples dealt to clients at random",
    )
