"""pFedMe's personalized model: the point that defines the Moreau envelope of the client's loss at the global model.

Dinh et al., "Personalized Federated Learning with Moreau Envelopes" (2020), arXiv 2006.08848. The envelope is
F_i(w) = min_θ f_i(θ) + λ/2 ‖θ − w‖²; below, in the paper's symbols, is what client i does in its Algorithm 1 from the
global model w on. θ_i is the personalized model:

    w_i ← w
    for each batch D of each epoch:
        θ_i ← w_i
        K times:                                             # the inner problem, only on D
            θ_i ← θ_i − (personalization learning rate) (∇ f_i(θ_i; D) + λ (θ_i − w_i))
        w_i ← w_i − η λ (w_i − θ_i)

After an epoch θ_i is judged. With one batch and one epoch, θ_i is the inner solution θ_i(w) itself.
"""

import tensorflow as tf

from tff_personalization import local_training
from tff_personalization.personalization import adaptation
from tff_personalization.personalization.adaptation import Client, Curve, FineTuning, Strategy, Tuning
from tff_personalization.settings import Setting


class Settings(FineTuning):
    """What pFedMe reads."""

    p_fed_me_lambda = Setting(
        15.0,
        "λ, how strongly --strategies=p_fed_me is pulled back to the global model.",
        theme="personalization",
        least=0,
    )
    p_fed_me_steps = Setting(5, "K, the steps of p_fed_me's inner problem.", theme="personalization", least=1)
    p_fed_me_learning_rate = Setting(
        0.02,
        "η of --strategies=p_fed_me: after a batch the model that it is pulled back to goes ηλ of the way to its own.",
        theme="personalization",
        positive=True,
    )


def _curve(client: Client, tuning: Tuning[Settings]) -> Curve:
    strength, steps = tuning.settings.p_fed_me_lambda, tuning.settings.p_fed_me_steps
    outer_rate, batch_size = tuning.settings.p_fed_me_learning_rate, tuning.batch_size
    inner = local_training.LocalTraining(client.model, tuning.optimizer, batch_size=None, shuffle=False)
    count = tf.shape(client.train.y)[0]
    per_epoch = -(-count // batch_size)

    def one_epoch(epoch, state):
        permutation = tf.random.experimental.stateless_shuffle(
            tf.range(count), tf.random.fold_in(client.seed, -1 - epoch)
        )

        def one_batch(number, w, personal):
            del personal  # each inner problem is solved again
            batch = local_training.take(client.train, permutation[number * batch_size : (number + 1) * batch_size])
            seed = tf.random.fold_in(client.seed, epoch * per_epoch + number)
            pull = local_training.proximal(strength, w)
            personal = inner.steps(inner.initial_state(w), batch, seed, 0, steps, pull).weights
            w = tuple(a - outer_rate * strength * (a - b) for a, b in zip(w, personal, strict=True))
            return number + 1, w, personal

        return tf.while_loop(lambda number, *_: number < per_epoch, one_batch, (0, *state), parallel_iterations=1)[1:]

    return adaptation.by_epoch(
        (client.theta, client.theta),
        one_epoch,
        lambda state: client.judge(client.model, state[1], client.test),
        client.judgement_of_theta,
        tuning.epochs,
    )


STRATEGY = Strategy(
    "the inner solution of pFedMe",
    _curve,
    settings=Settings,
    gives_weights=True,
)
