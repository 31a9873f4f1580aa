"""kNN-Per: the global model's probabilities, mixed with a vote of the nearest of the client's train examples.

Marfoq et al., "Personalized Federated Learning through Local Memorization" (2021), arXiv 2111.09360. With φ(x) what the
global model's last layer is given, d the Euclidean distance and λ, k by flag:

    N(x) ← the k train examples x' of client i with the smallest d(φ(x), φ(x'))
    p_kNN(y | x) ∝ Σ_{(x', y') ∈ N(x), y' = y} exp(−d(φ(x), φ(x')))
    p(y | x) = λ p_kNN(y | x) + (1 − λ) p_θ(y | x)

Nothing is trained: the curve is that of the global model at epoch 0 and the same from epoch 1 on. A client with fewer
than k train examples asks all of them; one with none keeps the global model. An example has one φ(x) and one y: models
that predict a label at each place of an example, such as char_lstm, are refused.
"""

import tensorflow as tf

from tff_personalization import errors
from tff_personalization.models import functional
from tff_personalization.personalization.adaptation import Client, Curve, Strategy, Tuning
from tff_personalization.settings import Group, Setting


class Settings(Group):
    """What kNN-Per reads: it trains nothing."""

    knn_neighbours = Setting(
        10, "k, the train examples that vote in --strategies=knn_per.", theme="personalization", least=1
    )
    knn_lambda = Setting(
        0.5, "λ, the share of the vote in the probabilities of knn_per.", theme="personalization", least=0, most=1
    )


def _curve(client: Client, tuning: Tuning[Settings]) -> Curve:
    after_stem, train, test = client.on_features
    share, neighbours = tuning.settings.knn_lambda, tuning.settings.knn_neighbours
    # With the identity in place of the last layer, the logits are what that layer is given.
    shapes = [tuple(weight.shape) for weight in client.theta[client.model.head]]
    if len(shapes) != 2 or len(shapes[0]) != 2 or shapes[1] != shapes[0][1:]:
        raise errors.UserError(
            "--strategies: knn_per needs a network whose head is one dense layer with a bias, and here its weights are "
            f"of shape {', '.join(map(str, shapes))}: leave it out."
        )
    width, classes = shapes[0]
    without_head = (*client.theta[client.model.rest], tf.eye(width), tf.zeros([width]))
    memory = after_stem.logits(without_head, train.x, None)
    neighbours = tf.minimum(neighbours, tf.shape(train.y)[0])

    def log_probabilities(weights, h, dropout_seed):
        phi = after_stem.logits(without_head, h, dropout_seed)
        nearest, places = tf.math.top_k(-_distances(phi, memory), neighbours)
        votes = tf.one_hot(tf.gather(train.y, places), classes)
        by_vote = tf.einsum("nk,nkc->nc", tf.nn.softmax(nearest), votes)
        by_model = tf.nn.softmax(after_stem.logits(weights, h, dropout_seed))
        # As logits, the logarithms of probabilities give these again. With λ = 1 one may be 0; its logarithm may not.
        return tf.math.log(tf.maximum(share * by_vote + (1 - share) * by_model, 1e-30))

    before = client.judgement_of_theta
    after = tf.cond(
        tf.shape(train.y)[0] > 0,
        lambda: client.judge(functional.AfterStem(log_probabilities, after_stem.scoring), client.theta, test),
        lambda: before,
    )
    return Curve(*(tf.stack([first, *[then] * tuning.epochs]) for first, then in zip(before, after, strict=True)))


def _distances(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Euclidean distance of each row of `a`, shape (n, d), from each of `b`, shape (m, d): shape (n, m)."""
    squares = tf.reduce_sum(a**2, axis=1)[:, tf.newaxis] - 2 * tf.matmul(a, b, transpose_b=True)
    return tf.sqrt(tf.maximum(squares + tf.reduce_sum(b**2, axis=1), 0))


STRATEGY = Strategy(
    "the global model's probabilities mixed with a vote of near train examples (kNN-Per)",
    _curve,
    settings=Settings,
    one_label=True,
)
