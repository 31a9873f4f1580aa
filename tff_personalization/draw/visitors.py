"""The visitors of the page: their examples and models, in memory only, and limited in number.

Of every three examples of a character, the second (k = 2, 5, 8, …) is held back for testing. The others train. The page
shows a model's accuracy on all examples held back so far.

A visitor has one model from each of the first 1, 2, 4, 8, … train examples, for the curve, and one from all of them.
Each is made from the initial model. With many examples, the last one is made again only when a fortieth of them is new.
"""

import collections
import dataclasses
import io
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from tff_personalization import errors, metrics
from tff_personalization.draw import personalizer as personalizer_lib
from tff_personalization.records import run_records
from tff_personalization.tasks import archives
from tff_personalization.tasks.sources import npz_archive

HOLD_BACK_OF, HOLD_BACK_FIRST = 3, 2
FEWEST_TO_COMPARE = 8
"""With fewer held-back examples, a visitor's gain says too little to be compared with those of writers."""
WRITER, SOURCE = "visitor", "drawn on the drawing page"
_MORE_BEFORE_TRAINING = 1 / 40
_MAX_ARCHIVE_BYTES = 8 * 2**20


@dataclasses.dataclass
class _Model:
    """A model of a visitor.

    Attributes:
        weights: its weights.
        right: whether it is right on each held-back example that it was tested on, in their order.
    """

    weights: personalizer_lib.Weights
    right: list[bool] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Example:
    image: np.ndarray
    label: int
    held_back: bool


class Visitor:
    """One visitor. Hold `lock` while using it."""

    def __init__(self, personalizer: personalizer_lib.Personalizer, most_examples: int):
        """Takes the maker of models and the largest number of examples."""
        self.lock = threading.Lock()
        self._personalizer = personalizer
        self._classes = personalizer.trained.classes
        self._most_examples = most_examples
        self._writer, self._source = WRITER, SOURCE
        self._examples: list[_Example] = []
        self._models = {0: _Model(personalizer.initial)}  # by the number of train examples

    @property
    def personalized(self) -> personalizer_lib.Weights:
        """The weights of the newest model, or of the initial model if there is no other yet."""
        return self._models[max(self._models)].weights

    def add(self, image: np.ndarray, label: int) -> bool:
        """Adds an example, a uint8 image of shape (28, 28) and its class. Returns whether it is held back.

        Raises:
            UserError: the visitor has the largest number of examples already.
        """
        if len(self._examples) >= self._most_examples:
            raise errors.UserError(f"At most {self._most_examples} examples are kept: save them and start again.")
        earlier = sum(example.label == label for example in self._examples)
        held_back = (earlier + 1) % HOLD_BACK_OF == HOLD_BACK_FIRST
        self._examples.append(_Example(image, label, held_back))
        return held_back

    def undo(self) -> None:
        """Removes the last example, if there is one."""
        if not self._examples:
            return
        self._examples.pop()
        trained, held_back = len(self._part(False)), len(self._part(True))
        self._models = {k: model for k, model in self._models.items() if k <= trained}
        for model in self._models.values():
            del model.right[held_back:]

    def train(self, at_once: bool = False) -> None:
        """Makes the models that are due, see the head of this file; with `at_once`, also that of all train examples."""
        train = self._part(False)
        count = len(train)
        sizes = {2**power for power in range(count.bit_length()) if 2**power <= count}
        newest = max(size for size in {*self._models, *sizes} if size <= count)
        if count > newest and (at_once or count - newest >= _MORE_BEFORE_TRAINING * count):
            newest = count
        for size in sorted({*sizes, newest} - set(self._models)):
            images, labels = _arrays(train[:size])
            self._models[size] = _Model(self._personalizer.personalize(images, labels, self._writer))
        self._models = {k: model for k, model in self._models.items() if k in {0, *sizes, newest}}

    def state(self, writers: pd.DataFrame | None) -> dict[str, Any]:
        """The numbers of examples, and of held-back examples that each model predicts rightly, as plain values."""
        held_back = self._part(True)
        curve = []
        for size, model in sorted(self._models.items()):
            images, labels = _arrays(held_back[len(model.right) :])
            model.right.extend(self._personalizer.hits(model.weights, images, labels).tolist())
            curve.append({"examples": size, "right": sum(model.right)})
        gained_more_than = None
        if writers is not None and len(held_back) >= FEWEST_TO_COMPARE:
            more_right = curve[-1]["right"] - curve[0]["right"]
            gained_more_than = share_that_gains_less(writers, more_right, len(held_back))
        _, labels = _arrays(self._examples)
        return {
            "examples": len(labels),
            "train": len(labels) - len(held_back),
            "held_back": len(held_back),
            "trained_on": curve[-1]["examples"],
            "initial_right": curve[0]["right"],
            "personalized_right": curve[-1]["right"],
            "curve": curve,
            "gained_more_than": gained_more_than,
            "of_each_class": np.bincount(labels, minlength=len(self._classes)).tolist(),
        }

    def _part(self, held_back: bool) -> list[_Example]:
        return [example for example in self._examples if example.held_back == held_back]

    def save(self) -> bytes:
        """The examples as a by-writer archive, in their order and with their parts. UserError if there are none."""
        if not self._examples:
            raise errors.UserError("There are no examples to save yet.")
        images, labels = _arrays(self._examples)
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            images=images,
            labels=labels,
            writer=np.full(len(labels), self._writer),
            classes=np.array(self._classes),
            split=np.array(["test" if example.held_back else "train" for example in self._examples]),
            source=np.array(self._source),
        )
        return stream.getvalue()

    def load(self, archive: bytes) -> None:
        """Replaces the examples by those of a by-writer archive.

        Parts are those of the archive, or split as for a run (a fifth of the examples is held back).

        Raises:
            UserError: it is malformed, too large, or has several writers. Nothing is changed then.
        """
        trained = self._personalizer.trained
        name = "the archive"
        read = npz_archive.read(
            io.BytesIO(archive), name, len(self._classes), trained.experiment.config.seed, _MAX_ARCHIVE_BYTES
        )
        read = read.select(read.labels < len(self._classes))
        if not len(read.labels):
            raise errors.UserError(f"{name}: no character that this model knows: load another archive.")
        if len(read.labels) > self._most_examples:
            raise errors.UserError(f"{name} holds {len(read.labels)} examples: at most {self._most_examples} are kept.")
        writers = np.unique(read.client).tolist()
        if len(writers) > 1:
            raise errors.UserError(f"{name} has examples of {len(writers)} writers: one writer is expected.")
        self._writer = writers[0]
        # Synthetic examples are still called synthetic when they are saved again.
        self._source = read.source if read.source.startswith("synthetic") else SOURCE
        self._examples = [
            _Example(image, int(label), bool(held_back))
            for image, label, held_back in zip(read.images, read.labels, read.is_test, strict=True)
        ]
        self._models = {0: _Model(self._personalizer.initial)}


def _arrays(examples: list[_Example]) -> tuple[np.ndarray, np.ndarray]:
    """Their images, uint8 of shape (n, 28, 28), and labels, int32 of shape (n,)."""
    images = np.array([example.image for example in examples], np.uint8).reshape(-1, *archives.IMAGE_SHAPE)
    return images, np.array([example.label for example in examples], np.int32)


def held_out_writers(run: run_records.Run, strategy: str) -> pd.DataFrame | None:
    """The run's `client_gains` under one of its strategies; None without per-client records of accuracy.

    Raises:
        UserError: clients.csv is damaged.
    """
    if run.metric != metrics.ACCURACY:
        return None
    try:
        return run.client_gains(strategy)
    except run_records.NotRecordedError:
        return None


def share_that_gains_less(writers: pd.DataFrame, more_right: int, test_examples: int) -> float:
    """The share of held-out writers with a smaller gain than `more_right` more right answers of `test_examples`."""
    return float((writers["more_right"] * test_examples < more_right * writers["predictions"]).mean())


class Visitors:
    """The visitors by token. Beyond the limit, the least recent one is forgotten."""

    def __init__(self, new_visitor: Callable[[], Visitor], most: int):
        self._new_visitor = new_visitor
        self._most = most
        self._lock = threading.Lock()
        self._visitors: collections.OrderedDict[str, Visitor] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._visitors)

    def get(self, token: str) -> Visitor:
        """The visitor with a token, or a new visitor who is not kept."""
        with self._lock:
            if token in self._visitors:
                self._visitors.move_to_end(token)
                return self._visitors[token]
        return self._new_visitor()

    def get_or_keep(self, token: str) -> Visitor:
        """The visitor with a token, or a new visitor who is kept."""
        with self._lock:
            visitor = self._visitors.setdefault(token, self._new_visitor())
            self._visitors.move_to_end(token)
            while len(self._visitors) > self._most:
                self._visitors.popitem(last=False)
            return visitor

    def forget(self, token: str) -> None:
        """Forgets a visitor."""
        with self._lock:
            self._visitors.pop(token, None)
