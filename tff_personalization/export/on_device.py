"""What an app does with the TensorFlow Lite file, in Python: predict, fine-tune, keep the result or go back.

It needs only TensorFlow's interpreter and the file, not the run. It draws permutations and dropout as the inner loop
does, so that both can be compared. An app may use any generator.
"""

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tff_personalization import errors

_BATCH_SIZE = 100


class Judgement(NamedTuple):
    """The model's right answers on some examples, and its losses (nats), summed."""

    correct: int
    loss_sum: float

    def better_than(self, other: "Judgement") -> bool:
        """Whether it has more right answers, or as many with less loss. A loss that is not finite is the greatest."""
        ranks = [(j.correct, -j.loss_sum if math.isfinite(j.loss_sum) else -math.inf) for j in (self, other)]
        return ranks[0] > ranks[1]


class OnDevice:
    """A file of `tflite.py`, in its own interpreter.

    Attributes:
        metadata: the file's description of itself.
    """

    def __init__(self, content: bytes):
        """Opens a file, given its bytes. Raises ValueError if it is not such a file."""
        self._interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
        self._run = {name: self._interpreter.get_signature_runner(name) for name in self._signatures()}
        self.metadata: dict[str, Any] = json.loads(self._run["metadata"]()["json"].item())

    def _signatures(self) -> list[str]:
        found = list(self._interpreter.get_signature_list())
        if "metadata" not in found:
            raise ValueError("no signature `metadata`")
        return found

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits, float32 of shape (n, classes), of images, uint8 of shape (n, 28, 28)."""
        parts = [x[start : start + _BATCH_SIZE] for start in range(0, len(x), _BATCH_SIZE)]
        return np.concatenate([self._run["infer"](x=part)["logits"] for part in parts])

    def judge(self, x: np.ndarray, y: np.ndarray) -> Judgement:
        """Right answers and losses on examples; `y` int32 of shape (n,)."""
        if not len(y):
            return Judgement(0, 0.0)
        logits = self.logits(x).astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
        right = (logits.argmax(axis=1) == y) & np.isfinite(logits).all(axis=1)
        return Judgement(int(right.sum()), float(losses.sum()))

    def train(self, x: np.ndarray, y: np.ndarray, dropout_seed: np.ndarray) -> float:
        """Takes one step on a batch and returns its mean loss before the step; `dropout_seed` int32 of shape (2,)."""
        return float(self._run["train"](x=x, y=y, dropout_seed=dropout_seed)["loss"])

    def save(self) -> dict[str, np.ndarray]:
        """The values that training changes, by name."""
        return self._run["save"]()

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        """Restores values that `save` returned."""
        self._run["restore"](**saved)

    def initialize(self) -> None:
        """Restores the global model, with a fresh optimizer."""
        self._run["initialize"]()

    def fine_tune(
        self, x: np.ndarray, y: np.ndarray, seed: np.ndarray, after_epoch: Callable[[int], None] = lambda epoch: None
    ) -> None:
        """Fine-tunes on a client's examples in the same way as the inner loop.

        Args:
            x: images, uint8 of shape (n, 28, 28).
            y: labels, int32 of shape (n,).
            seed: int32, shape (2,), from which permutations and dropout are drawn.
            after_epoch: called with the number of each epoch, counted from 1, when it is over.
        """
        size, step = self.metadata["personalization"]["batch_size"], 0
        for epoch in range(self.metadata["personalization"]["epochs"]):
            order = shuffled(len(y), seed, -1 - epoch)
            for start in range(0, len(y), size):
                batch = order[start : start + size]
                self.train(x[batch], y[batch], tf.random.fold_in(seed, step).numpy())
                step += 1
            after_epoch(epoch + 1)

    def fine_tune_unless_hurt(
        self,
        x: np.ndarray,
        y: np.ndarray,
        seed: np.ndarray,
        fraction: float,
        after_epoch: Callable[[int], None] = lambda epoch: None,
    ) -> int:
        """Fine-tunes on all but a share of the examples, and keeps the epoch that is best on that share.

        This is the rule of the strategy `fine_tune_early_stopping`: the most right answers, then the least loss, then
        the first epoch. The global model, epoch 0, is one of the candidates. Only for one class for each example: the
        strategy judges other tasks by their own metric, of which the file knows nothing.

        Args:
            x, y: as in `fine_tune`.
            seed: as in `fine_tune`; the share is drawn from it too.
            fraction: the share that is held back, rounded down to whole examples.
            after_epoch: as in `fine_tune`; the model is then the best so far.

        Returns:
            The number of the kept epoch.
        """
        order = shuffled(len(y), seed, int(tf.int32.min))
        size = int(np.floor(np.float32(fraction) * np.float32(len(y))))
        held_back, rest = order[:size], order[size:]
        best, kept, epoch_kept = self.judge(x[held_back], y[held_back]), self.save(), 0

        def compare(epoch: int) -> None:
            nonlocal best, kept, epoch_kept
            now, state = self.judge(x[held_back], y[held_back]), self.save()
            if now.better_than(best):
                best, kept, epoch_kept = now, state, epoch
            self.restore(kept)
            after_epoch(epoch)
            self.restore(state)

        self.fine_tune(x[rest], y[rest], seed, compare)
        self.restore(kept)
        return epoch_kept


def shuffled(count: int, seed: np.ndarray, number: int) -> np.ndarray:
    """A permutation of 0 … count − 1, as the inner loop draws it from a client's seed and a number."""
    return tf.random.experimental.stateless_shuffle(tf.range(count), tf.random.fold_in(seed, number)).numpy()


def open_file(path: pathlib.Path) -> OnDevice:
    """The file at `path`.

    Raises:
        UserError: it cannot be read, or is not a file of `tflite.py`.
    """
    try:
        return OnDevice(path.read_bytes())
    except OSError as error:
        raise errors.UserError(f"{path}: cannot be read ({error.strerror}): give a file of --format=tflite.") from None
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise errors.UserError(f"{path}: not a file of --format=tflite ({reason}).") from None
