"""FedALA, Zhang et al. (AAAI 2023, arXiv 2212.01197), Algorithm 1, with the head as the higher layers.

    θ: global model; φ_i: client i's local model; s_i: a share of the global model for each weight of the head, ones at
    first; client i keeps φ_i and s_i; η: share learning rate; E, α, β, n_i as in FedAvg(E); ∘: weight by weight
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            D ← a random part of client i's data
            φ̂(s) ← the head s ∘ (head of θ) + (1 − s) ∘ (head of φ_i), and the rest of θ
            for one epoch of batches of D:                                   # not in the client's first round
                s_i ← [0, 1] ∩ s_i − η ∇_s f(φ̂(s_i); batch)                  # projected, weight by weight
            φ_i ← E epochs of the client optimizer (β) on client i's data, starting at φ̂(s_i)
            g_i ← θ − φ_i
        θ ← server optimizer (α) applied to Σ n_i g_i / Σ n_i

In its first round a client has no local model and starts from θ. In its second round it learns s_i for a given number
of epochs; the authors' code does so until ten losses in a row differ little. A participant's model is φ_i after its
last round; the authors evaluate φ̂ before local training. The paper's server has no momentum:
--server_sgd_momentum=0. A held-out client has no φ_i: strategies start from θ.
"""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training, rounding
from tff_personalization.algorithms import client_work, fed_avg, method, shares, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.models import functional
from tff_personalization.settings import Setting


class Settings(fed_avg.Settings):
    """The settings of FedALA."""

    ala_learning_rate = Setting(1.0, "η of fed_ala: learning rate of the mixing shares.", positive=True)
    ala_fraction = Setting(
        0.8, "Share of its examples on which a client of fed_ala learns its mixing shares.", least=0, most=1
    )
    ala_first_epochs = Setting(10, "Epochs in which a client of fed_ala first learns its mixing shares.", least=0)


def build_fed_ala(setup: method.Setup[Settings]) -> stateful_clients.StatefulProcess:
    """Builds FedALA as a process whose clients keep φ_i and s_i. The batch size is that of shares and of weights.

    Without shuffling, D is the first part of a client's examples.
    """
    settings, model, shuffle, training = setup.settings, setup.model, setup.shuffle, setup.local_training()
    initial = model.initial_weights[0]
    size = len(initial)
    sgd = tff.learning.optimizers.build_sgdm(settings.ala_learning_rate)

    def update(theta: Weights, client: ClientRound, state: State) -> ClientUpdate:
        for_part, for_shares, for_training = tf.unstack(tf.random.split(client.seed, 3))
        phi, s, rounds = state.client[:size], state.client[size:-1], state.client[-1]

        def start(s: Weights) -> Weights:
            return (*theta[model.rest], *shares.mixture(theta[model.head], phi[model.head], s))

        on_shares = functional.PlainClassifier(
            lambda s, h, dropout_seed: model.after_stem.logits(start(s), h, dropout_seed), model.scoring
        )
        learning = shares.WithShares(on_shares, sgd, settings.batch_size, shuffle=shuffle, shares=slice(None))
        count = tf.shape(client.examples.y)[0]
        order = tf.random.experimental.stateless_shuffle(tf.range(count), for_part) if shuffle else tf.range(count)
        taken = rounding.ceil_of_share(settings.ala_fraction, count)
        part = local_training.features(model, theta, local_training.take(client.examples, order[:taken]))
        epochs = tf.where(rounds > 1, 1, tf.where(rounds > 0, settings.ala_first_epochs, 0))
        learnt = learning.steps(learning.initial_state(s), part, for_shares, 0, epochs * learning.steps_per_epoch(part))
        first = tf.equal(rounds, 0)
        begin = tuple(tf.where(first, w, mixed) for w, mixed in zip(theta, start(learnt.weights), strict=True))
        end = training.train_epochs(begin, client._replace(seed=for_training), settings.local_epochs)
        found = client_work.update_from(theta, end, state=(*end.weights, *learnt.weights, rounds + 1))
        return found._replace(examples=end.examples + learnt.examples)

    return setup.stateful_process(
        update,
        settings.client_weighting,
        (*initial, *(np.ones_like(w) for w in initial[model.head]), np.int32(0)),
        personal=lambda weights, kept: (model, tuple(kept[:size])),
    )


METHOD = method.Method(
    description="FedALA: FedAvg(E) whose clients start from a learnt mixture of the global head and their own",
    serves="participants",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); clients first learn their shares for a "
        "fixed number of epochs (in the authors' code, until the loss hardly changes); a client's model is "
        "evaluated after local training in its last round (by the authors, before it, and in the final round)"
    ),
    settings=Settings,
    build=method.one_stage("fed_ala", build_fed_ala),
)
