"""FedAMP, Huang et al. (AAAI 2021, arXiv 2007.03797), Algorithm 1, for some tens of clients such as hospitals.

w_i: client i's model, which starts as the initial model; u_i: its cloud model, at first the same; client i keeps both;
A(z) = 1 − exp(−z / σ), so A'(z) = exp(−z / σ) / σ; α, λ; E, β as in FedAvg(E)
for each round:
    sample a cohort of M clients                                                   # the paper: all clients
    for each client i of the cohort:
        w_i ← E epochs of the client optimizer (β) on f_i(w) + λ / 2α ‖w − u_i‖², starting at w_i
    for each client i of the cohort:
        u_i ← w_i + α Σ_j A'(‖w_i − w_j‖²) (w_j − w_i), over the cohort            # attentive message passing

So clients with similar models pull each other most. With α ≤ σ / M, u_i is a weighted mean of the models. In the paper,
the server sends each client its own u_i. Here, the server sends all models of the cohort to each client, and the client
computes its own u_i. The numbers are the same. A participant's model is w_i. There is no global model: the recorded one
stays the initial model, and a held-out client would train from scratch.
"""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import local_training
from tff_personalization.algorithms import client_work, method, partial_model, stateful_clients
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.settings import Setting


class Settings(method.Local):
    """The settings of FedAMP. It has no server optimizer and no aggregator, because there is no global model."""

    local_epochs = method.LOCAL_EPOCHS
    fed_amp_alpha: Setting[float | None] = Setting(
        None,
        "α of fed_amp: step size of the message passing. Default: σ / clients_per_round, with which each cloud model "
        "is a weighted mean of the cohort's models.",
        kind=float,
        positive=True,
    )
    fed_amp_lambda = Setting(
        1.0, "λ of fed_amp: λ/α is the strength of the pull of a client's model to its cloud model.", least=0
    )
    fed_amp_sigma = Setting(
        10.0, "σ of fed_amp: squared distance of two models at which their attention falls to 1/e.", positive=True
    )


def build_fed_amp(setup: method.Setup[Settings]) -> stateful_clients.StatefulProcess:
    """Builds FedAMP as a process whose clients keep w_i and u_i."""
    settings, model, training = setup.settings, setup.model, setup.local_training()
    initial = model.initial_weights[0]
    size = len(initial)
    sigma = settings.fed_amp_sigma
    alpha = settings.fed_amp_alpha or sigma / settings.clients_per_round

    def update(nothing: Weights, client: ClientRound, state: State) -> ClientUpdate:
        w, u = state.client[:size], state.client[size:]
        pull = local_training.proximal(settings.fed_amp_lambda / alpha, u)
        end = training.train_epochs(w, client, settings.local_epochs, pull)
        return client_work.update_from(w, end, state=(*end.weights, *u))._replace(model_delta=())

    kept_type = stateful_clients.type_of((*initial, *initial))
    # The models of several clients: each weight has one axis more.
    models_type = tff.types.tensorflow_to_type(tuple(tf.TensorSpec([None, *w.shape], w.dtype) for w in initial))

    @tff.tensorflow.computation
    def no_models() -> Weights:
        return tuple(tf.zeros([0, *w.shape], w.dtype) for w in initial)

    @tff.tensorflow.computation(models_type, (kept_type, np.float32))
    def add_model(models: Weights, client: tuple[Weights, tf.Tensor]) -> Weights:
        kept, weight = client
        taken = tf.cast(weight > 0, tf.int32)  # nothing of a client that took no part
        return tuple(tf.concat([ws, w[tf.newaxis][:taken]], axis=0) for ws, w in zip(models, kept[:size], strict=True))

    @tff.tensorflow.computation(models_type, models_type)
    def join(models: Weights, others: Weights) -> Weights:
        return tuple(tf.concat(pair, axis=0) for pair in zip(models, others, strict=True))

    @tff.tensorflow.computation(models_type)
    def all_models(models: Weights) -> Weights:
        return models

    @tff.tensorflow.computation(models_type, (kept_type, np.float32))
    def attend(models: Weights, client: tuple[Weights, tf.Tensor]) -> Weights:
        kept, weight = client
        w = tuple(kept[:size])
        apart = [ws - own for ws, own in zip(models, w, strict=True)]
        squared_distances = tf.add_n([tf.reduce_sum(d**2, axis=range(1, d.shape.rank)) for d in apart])
        attention = alpha * tf.exp(-squared_distances / sigma) / sigma
        u = (own + tf.tensordot(attention, d, axes=1) for own, d in zip(w, apart, strict=True))
        return (*w, *(tf.where(weight > 0, new, old) for new, old in zip(u, kept[size:], strict=True)))

    def exchange(kept: tff.Value, weights: tff.Value) -> tff.Value:
        clients = tff.federated_zip((kept, weights))
        models = tff.federated_aggregate(clients, no_models(), add_model, join, all_models)
        return tff.federated_map(attend, (tff.federated_broadcast(models), clients))

    return partial_model.process_without_shared_part(
        model, update, (*initial, *initial), lambda weights, kept: (model, tuple(kept[:size])), exchange=exchange
    )


METHOD = method.Method(
    description="FedAMP: each client keeps a model, which is pulled to similar models of the cohort",
    serves="participants",
    differs=(
        "a cohort trains in each round (in the paper, all clients); clients train for E epochs (in the paper, to "
        "the exact minimum)"
    ),
    settings=Settings,
    build=method.one_stage("fed_amp", build_fed_amp),
    strategies=("fine_tune",),
)
