"""A method and a strategy in a file of your own.

    python run_experiment.py --plugin=examples/my_plugin.py --method=fed_prox_example --strategies=fine_tune,recentre

Method: FedProx's local objective L_i(w) + (μ/2) ‖w − θ‖² (Li et al., 2020, arXiv 1812.06127), on top of FedAvg(E).
Strategy: fine-tune, then go a share of the way back to θ after each epoch.
"""

import tensorflow as tf
from absl import flags

from tff_personalization import local_training, methods
from tff_personalization.algorithms import client_work
from tff_personalization.personalization import adaptation, strategies

flags.DEFINE_float("example_mu", 0.1, "μ of fed_prox_example: how strongly a client's model is pulled to θ.", 0.0)
flags.DEFINE_float("example_share", 0.5, "How far recentre goes back to θ after each epoch.", 0.0, 1.0)


def _build(setup: methods.Setup) -> methods.Training:
    settings = setup.settings
    mu = settings["example_mu"]
    training = local_training.LocalTraining(setup.model, setup.optimizer("client"), settings["batch_size"])

    def update(theta, client, state):
        steps = settings["local_epochs"] * training.steps_per_epoch(client.examples)
        end = training.train(theta, client, steps, local_training.proximal(mu, theta))
        return client_work.update_from(theta, end)

    work = client_work.build_client_work(setup.model, update, settings["client_weighting"])
    process = client_work.compose(setup.model, work, setup.optimizer("server"), setup.aggregator())
    return setup.training("fed_prox", process)


def _recentre(client: adaptation.Client, settings: adaptation.Settings) -> adaptation.Curve:
    training = local_training.LocalTraining(client.model, settings.optimizer, settings.batch_size)
    share, per_epoch = settings.values["example_share"], training.steps_per_epoch(client.train)
    state, judged = training.initial_state(client.theta), [client.judgement_of_theta]
    for epoch in range(settings.epochs):
        state = training.steps(state, client.train, client.seed, epoch * per_epoch, (epoch + 1) * per_epoch)
        weights = tuple(w + share * (t - w) for w, t in zip(state.weights, client.theta, strict=True))
        state = state._replace(weights=weights)
        judged.append(local_training.evaluate(client.model, weights, client.test))
    loss_sums, corrects = zip(*judged, strict=True)
    return adaptation.Curve(tf.stack(loss_sums), tf.stack(corrects))


methods.register(
    "fed_prox_example",
    methods.Method(
        description="FedProx: FedAvg(E) with a pull to the global model",
        reads=(*methods.FEDERATED_READS, "local_epochs", "client_weighting", "example_mu"),
        build=_build,
    ),
)
strategies.register(
    "recentre",
    adaptation.Strategy("fine-tune, and go back part of the way after each epoch", _recentre, reads=("example_share",)),
)
