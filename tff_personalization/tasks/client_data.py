"""Client data in one form, whatever its source: every client's examples side by side in one compact array.

Convention: images are uint8, shape (28, 28), ink 255 on background 0. A source converts to it when it reads.
"""

import collections
import dataclasses

import numpy as np

IMAGE_SHAPE = (28, 28)
CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


@dataclasses.dataclass(frozen=True)
class WriterArchive:
    """Examples with their writer and part: what every source returns.

    Attributes:
        images: uint8, shape (N, 28, 28), ink 255 on background 0.
        labels: int32, shape (N,), indices into `classes`.
        writer: shape (N,), the name of the client that wrote each example; examples may come in any order.
        is_test: bool, shape (N,), whether an example belongs to its client's test part.
        classes: the name of each class.
        source: what the data is, in a few words, for records, tables and plots; starts with "synthetic" if generated.
    """

    images: np.ndarray
    labels: np.ndarray
    writer: np.ndarray
    is_test: np.ndarray
    classes: tuple[str, ...]
    source: str

    def __post_init__(self):
        count = len(self.images)
        if self.images.shape != (count, *IMAGE_SHAPE) or self.images.dtype != np.uint8:
            raise ValueError(
                f"images: uint8 of shape (N, 28, 28) expected, got {self.images.dtype} {self.images.shape}"
            )
        for name in ("labels", "writer", "is_test"):
            if getattr(self, name).shape != (count,):
                raise ValueError(f"{name}: shape ({count},) expected, got {getattr(self, name).shape}")
        if count and not (self.labels.min() >= 0 and self.labels.max() < len(self.classes)):
            raise ValueError(
                f"labels: 0 to {len(self.classes) - 1} expected, got {self.labels.min()} to {self.labels.max()}"
            )

    def select(self, keep: np.ndarray, **changes) -> "WriterArchive":
        """The examples where the bool array `keep`, shape (N,), is true, with any attribute replaced by `changes`."""
        parts = {name: getattr(self, name)[keep] for name in ("images", "labels", "writer", "is_test")}
        return dataclasses.replace(self, **{**parts, **changes})


def split_by_writer(
    labels: np.ndarray, writer: np.ndarray, rng: np.random.Generator, test_fraction: float = 0.2
) -> np.ndarray:
    """Splits each writer's examples into a train and a test part, stratified by class.

    A class of which the writer has two or more examples gives `test_fraction` of them (rounded, at least
    one stays in each part) to the test part; single examples are pooled and split at random, so that about
    `test_fraction` of each writer's examples are test examples, and at least one when the writer has two or more.

    Args:
        labels: int, shape (N,).
        writer: shape (N,).
        rng: source of the random choice.
        test_fraction: in (0, 1).

    Returns:
        bool, shape (N,): true for the test part.
    """
    is_test = np.zeros(len(labels), bool)
    for _, examples in sorted(_indices_by(writer).items()):
        wanted = max(1, round(test_fraction * len(examples))) if len(examples) > 1 else 0
        singles, chosen = [], []
        for _, members in sorted(_indices_by(labels[examples]).items()):
            members = rng.permutation(examples[members])
            if len(members) == 1:
                singles.append(members[0])
                continue
            share = min(max(1, round(test_fraction * len(members))), len(members) - 1)
            chosen.extend(members[:share])
        # Many classes of two would push the test part far over its share: keep a random subset then.
        if len(chosen) > wanted:
            chosen = rng.permutation(chosen)[:wanted].tolist()
        elif len(chosen) < wanted:
            chosen.extend(rng.permutation(singles)[: wanted - len(chosen)].tolist())
        is_test[np.asarray(chosen, int)] = True
    return is_test


def _indices_by(keys: np.ndarray) -> dict:
    """The indices at which each distinct value of `keys` stands."""
    values, inverse = np.unique(keys, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(inverse, minlength=len(values)))[:-1]) if len(values) else []
    return collections.OrderedDict(zip(values.tolist(), parts, strict=True))


def deal_at_random(archive: WriterArchive, rng: np.random.Generator) -> WriterArchive:
    """Deals all examples to the clients at random: each client keeps its counts, but holds anybody's writing.

    Nothing is left to personalize but the mix of classes that chance gives: the control of an experiment.
    """
    order = rng.permutation(len(archive.labels))
    return dataclasses.replace(
        archive,
        images=archive.images[order],
        labels=archive.labels[order],
        source=f"{archive.source}, examples dealt to clients at random",
    )
