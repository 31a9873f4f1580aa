"""kNN-Per: mixes the global model's probabilities with a vote of the client's nearest train examples.

Marfoq et al., "Personalized Federated Learning through Local Memorization" (2021), arXiv 2111.09360. φ(x) is the input
of the global model's last layer, D its width, d the Euclidean distance; a flag sets k:

    N(x) ← the k train examples x' of client i with the smallest d(φ(x), φ(x'))
    p_kNN(y | x) ∝ Σ_{(x', y') ∈ N(x), y' = y} κ(φ(x), φ(x'))
    p(y | x) = λ p_kNN(y | x) + (1 − λ) p_θ(y | x)

`knn_per` uses the paper's formula κ = exp(−d) and one λ for all clients, by flag. `knn_per_tuned` follows the authors'
code and experiments: κ = exp(−d² / D), and each client chooses λ from 0, 0.1, …, 1. It does so on a random fifth of its
train part, with the votes of the others: the λ with the most right answers, then the least loss, then the smallest.
Then all of its train examples vote. A client with fewer than five train examples has λ = 0.

Nothing is trained: the curve has the global model at epoch 0 and the mixture at every later epoch. A client with fewer
than k train examples uses all of them; one with none keeps the global model. An example has one φ(x) and one y. So
models that predict a label at each place of an example, such as char_lstm, are refused.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tff_personalization import local_training
from tff_personalization.models import functional
from tff_personalization.personalization import adaptation, early_stopping
from tff_personalization.personalization.adaptation import Client, Curve, Strategy, Tuning
from tff_personalization.settings import Group, Setting

HELD_BACK = 0.2  # the share of its train part on which a client chooses λ
SHARES = np.linspace(0, 1, 11, dtype=np.float32)
# Logits of a vote, shape (n, k), from squared distances of that shape and the width D.
KernelFn = Callable[[tf.Tensor, int], tf.Tensor]


class TunedSettings(Group):
    """The settings of kNN-Per when each client chooses λ. It trains nothing."""

    knn_neighbours = Setting(
        10, "k of kNN-Per: how many of the nearest train examples vote.", theme="personalization", least=1
    )


class Settings(TunedSettings):
    """The settings of kNN-Per."""

    knn_lambda = Setting(
        0.5, "λ of kNN-Per: weight of the vote in the mixed probabilities.", theme="personalization", least=0, most=1
    )


class _Memory:
    """A client's train examples, which vote."""

    def __init__(self, client: Client, train: local_training.Examples, neighbours: int, kernel: KernelFn):
        self._model = client.model.after_stem
        self._width, self._classes = client.theta[client.model.head][0].shape
        self._without_head = functional.without_head(client.model, client.theta)
        self._features, self._labels = self._model.logits(self._without_head, train.x, None), train.y
        self._neighbours = tf.minimum(neighbours, tf.shape(train.y)[0])
        self._kernel = kernel

    def vote(self, h: tf.Tensor) -> tf.Tensor:
        """The probabilities of the classes by the vote, shape (n, classes), for features `h`."""
        phi = self._model.logits(self._without_head, h, None)
        nearest, places = tf.math.top_k(-_squared_distances(phi, self._features), self._neighbours)
        votes = tf.one_hot(tf.gather(self._labels, places), self._classes)
        return tf.einsum("nk,nkc->nc", tf.nn.softmax(self._kernel(-nearest, self._width)), votes)

    def mixed(self, share: tf.Tensor | float) -> functional.PlainClassifier:
        """The classifier with λ = `share`."""

        def log_probabilities(weights: functional.Weights, h: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
            by_model = tf.nn.softmax(self._model.logits(weights, h, dropout_seed))
            return _logits(share * self.vote(h) + (1 - share) * by_model)

        return functional.PlainClassifier(log_probabilities, self._model.scoring)


def _logits(probabilities: tf.Tensor) -> tf.Tensor:
    """Logits that give these probabilities. A probability may be 0, so it is clipped before the logarithm."""
    return tf.math.log(tf.maximum(probabilities, 1e-30))


def _by_distance(squares: tf.Tensor, width: int) -> tf.Tensor:
    del width
    return -tf.sqrt(squares)


def _by_square(squares: tf.Tensor, width: int) -> tf.Tensor:
    return -squares / width


def _given_share(client: Client, train: local_training.Examples, settings: Settings) -> float:
    del client, train
    return settings.knn_lambda


def _chosen_share(client: Client, train: local_training.Examples, settings: TunedSettings) -> tf.Tensor:
    """The best λ on examples that the client holds back."""
    held_back, rest = early_stopping.split(client.seed, train, HELD_BACK)

    def choose() -> tf.Tensor:
        memory = _Memory(client, rest, settings.knn_neighbours, _by_square)
        model = client.model.after_stem
        by_vote, by_model = memory.vote(held_back.x), tf.nn.softmax(model.logits(client.theta, held_back.x, None))
        logits = [_logits(share * by_vote + (1 - share) * by_model) for share in SHARES]
        correct = tf.stack([model.scoring.score(one, held_back.y) for one in logits])
        losses = tf.stack([model.scoring.loss(one, held_back.y) for one in logits])
        return tf.gather(SHARES, early_stopping.best_so_far(correct, losses, model.scoring.metric)[-1])

    return tf.cond(tf.shape(held_back.y)[0] > 0, choose, lambda: tf.constant(SHARES[0]))


def _curve(client: Client, tuning: Tuning, kernel: KernelFn, share_of: Callable) -> Curve:
    _, train, test = client.on_features
    before = client.judgement_of_theta
    memory = _Memory(client, train, tuning.settings.knn_neighbours, kernel)

    def with_vote() -> Curve:
        return client.judge(memory.mixed(share_of(client, train, tuning.settings)), client.theta, test)

    after = tf.cond(tf.shape(train.y)[0] > 0, with_vote, lambda: before)
    return adaptation.same_from_epoch_1(before, after, tuning.epochs)


def _squared_distances(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Squared Euclidean distance of each row of `a`, shape (n, d), from each of `b`, shape (m, d): shape (n, m)."""
    squares = tf.reduce_sum(a**2, axis=1)[:, tf.newaxis] - 2 * tf.matmul(a, b, transpose_b=True)
    return tf.maximum(squares + tf.reduce_sum(b**2, axis=1), 0)


def _lacks(model: functional.SeededModel) -> str:
    return "" if functional.has_dense_head(model) else "a last layer that is dense with a bias"


STRATEGY = Strategy(
    "mix the global model's probabilities with a vote of the nearest train examples (kNN-Per)",
    functools.partial(_curve, kernel=_by_distance, share_of=_given_share),
    settings=Settings,
    one_label=True,
    lacks=_lacks,
    differs="one λ for all clients, and another kernel than the authors' code; knn_per_tuned has both as in that code",
)
TUNED = Strategy(
    "kNN-Per with its authors' kernel; each client chooses the weight of the vote on examples that it holds back",
    functools.partial(_curve, kernel=_by_square, share_of=_chosen_share),
    settings=TunedSettings,
    one_label=True,
    lacks=_lacks,
    differs="each client chooses λ on a random fifth of its train part; afterwards this fifth votes too",
)
