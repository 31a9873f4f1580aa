"""Client data in one form, whatever its source: every client's examples side by side in one compact array.

Convention: images are uint8, shape (28, 28), ink 255 on background 0. A source converts to it when it reads.
"""

import collections
import dataclasses
from typing import Any, Self

import numpy as np

IMAGE_SHAPE = (28, 28)
CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


@dataclasses.dataclass(frozen=True)
class Archive:
    """Examples with their client and part.

    Attributes:
        x: shape (N, …), what is given to the model.
        y: what the model is to predict, shape (N, …): int32, indices into `classes`; or float32, real numbers.
        client_index: int, shape (N,), indices into `clients`; examples may come in any order.
        is_test: bool, shape (N,), whether an example belongs to its client's test part.
        clients: the names of the clients, sorted; one may have no example.
        classes: the name of each class.
        source: what the data is, in a few words, for records, tables and plots; starts with "synthetic" if generated.
        notes: what was found when the data was read, one sentence each, for the user.
        has_clients: false if nobody knows whose the examples are; all are then one client's.
        parts_as_meant: whether a client that is in one part only, where others are in both, stays so.
        held_out: the clients that the data itself holds out; empty where it leaves the choice to the run.
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

    @classmethod
    def from_names(
        cls,
        x: np.ndarray,
        y: np.ndarray,
        client: np.ndarray,
        is_test: np.ndarray,
        classes: tuple[str, ...],
        source: str,
    ) -> Self:
        """The archive of examples with the name of each one's client, `client`, shape (N,)."""
        names, index = np.unique(client, return_inverse=True)
        return cls(x, y, index.astype(np.int32), is_test, tuple(names.tolist()), classes, source)

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
        """The archive of examples that lie client by client, in the order of `clients`, all train parts first.

        Args:
            x: as in the archive.
            y: as in the archive.
            counts: int, shape (2, C), the number of each client's train examples, then of each one's test examples.
            clients: the C clients, sorted.
            classes: as in the archive.
            source: as in the archive.
            more: the other attributes.
        """
        client_index = np.repeat(np.tile(np.arange(len(clients), dtype=np.int32), 2), counts.ravel())
        is_test = np.repeat([False, True], counts.sum(axis=1))
        return cls(x, y, client_index, is_test, clients, classes, source, **more)

    def __post_init__(self):
        count = len(self.x)
        for name, shape in (("y", (count, *self.y.shape[1:])), ("client_index", (count,)), ("is_test", (count,))):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: shape {shape} expected, got {getattr(self, name).shape}")
        for name, names in (("y", self.classes), ("client_index", self.clients)):
            values = getattr(self, name)
            if values.dtype.kind == "f":
                if not np.isfinite(values).all():
                    raise ValueError(f"{name}: finite numbers expected")
                continue
            if count and not (values.min() >= 0 and values.max() < len(names)):
                raise ValueError(f"{name}: 0 to {len(names) - 1} expected, got {values.min()} to {values.max()}")
        if list(self.clients) != sorted(set(self.clients)):
            raise ValueError("clients: sorted names expected, each once")

    @property
    def client(self) -> np.ndarray:
        """The name of each example's client, shape (N,): made again at every call, and large."""
        return np.array(self.clients)[self.client_index]

    def select(self, keep: np.ndarray, **changes) -> Self:
        """The examples where the bool array `keep`, shape (N,), is true, with any attribute replaced by `changes`."""
        parts = {name: getattr(self, name)[keep] for name in ("x", "y", "client_index", "is_test")}
        return dataclasses.replace(self, **{**parts, **changes})


class CharacterArchive(Archive):
    """Handwritten characters: `x` is uint8 of shape (N, 28, 28), ink 255 on background 0, `y` has shape (N,)."""

    def __post_init__(self):
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


def split_by_client(
    labels: np.ndarray, client: np.ndarray, rng: np.random.Generator, test_fraction: float = 0.2
) -> np.ndarray:
    """Splits each client's examples into a train and a test part, stratified by class.

    A systematic sample: the client's examples are put in a line, class after class, and every fifth (for a fifth) is a
    test example, from a random start. So every example has the same chance; a class gives its share of test
    examples, rounded down or up; and none of which there are two or more goes to the test part altogether.

    Args:
        labels: int, shape (N,).
        client: shape (N,).
        rng: source of the random choice.
        test_fraction: in (0, ½].

    Returns:
        bool, shape (N,): true for the test part, which is `test_fraction` of each client's examples, rounded, and at
        least one if the client has two or more.
    """
    is_test = np.zeros(len(labels), bool)
    for _, examples in sorted(_indices_by(client).items()):
        wanted = max(1, round(test_fraction * len(examples))) if len(examples) > 1 else 0
        by_class = list(_indices_by(labels[examples]).values())
        line = [examples[rng.permutation(by_class[i])] for i in rng.permutation(len(by_class))]
        places = (np.arange(wanted) + rng.random()) * (len(examples) / max(wanted, 1))
        is_test[np.concatenate(line)[places.astype(int)]] = True
    return is_test


def _indices_by(keys: np.ndarray) -> dict:
    """The indices at which each distinct value of `keys` stands."""
    values, inverse = np.unique(keys, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse, minlength=len(values)))[:-1]) if len(values) else []
    return collections.OrderedDict(zip(values.tolist(), parts, strict=True))


def deal_at_random(archive: Archive, rng: np.random.Generator) -> Archive:
    """Deals all examples to the clients at random: each client keeps its counts, but holds anybody's examples.

    Nothing is left to personalize but the mix of classes that chance gives: the control of an experiment.
    """
    order = rng.permutation(len(archive.y))
    return dataclasses.replace(
        archive,
        x=archive.x[order],
        y=archive.y[order],
        source=f"{archive.source}, examples dealt to clients at random",
    )
