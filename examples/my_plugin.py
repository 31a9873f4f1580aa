"""Your own method and strategy in one file.

    python run_experiment.py --plugin=examples/my_plugin.py --method=fed_prox_example --strategies=fine_tune,recentre

Method: FedProx's local objective L_i(w) + (μ/2) ‖w − θ‖² (Li et al., 2020, arXiv 1812.06127), on top of FedAvg(E).
Strategy: fine-tune, then move a share of the way back to θ after each epoch.
"""

from tff_personalization import local_training, methods
from tff_personalization.algorithms import client_work, fed_avg, method
from tff_personalization.personalization import adaptation, strategies
from tff_personalization.settings import Setting


class FedProx(fed_avg.Settings):
    example_mu = Setting(0.1, "μ of fed_prox_example: how strongly a client's model is pulled to θ.", least=0)


class Recentre(adaptation.FineTuning):
    example_share = Setting(0.5, "How far recentre moves back to θ after each epoch.", least=0, most=1)


def _build(setup: method.Setup[FedProx]) -> method.LearningProcess:
    settings, training = setup.settings, setup.local_training()

    def update(theta, client, state):
        pull = local_training.proximal(settings.example_mu, theta)
        return client_work.update_from(theta, training.train_epochs(theta, client, settings.local_epochs, pull))

    return setup.process(update, settings.client_weighting)


def _recentre(client: adaptation.Client, tuning: adaptation.Tuning[Recentre]) -> adaptation.Curve:
    training = local_training.LocalTraining(client.model, tuning.optimizer, tuning.batch_size)
    share, per_epoch = tuning.settings.example_share, training.steps_per_epoch(client.train)

    def one_epoch(epoch, state):
        state = training.steps(state, client.train, client.seed, epoch * per_epoch, (epoch + 1) * per_epoch)
        moved = (w + share * (t - w) for w, t in zip(state.weights, client.theta, strict=True))
        return state._replace(weights=tuple(moved))

    def judge(state):
        return client.judge(client.model, state.weights, client.test)

    return adaptation.by_epoch(
        training.initial_state(client.theta), one_epoch, judge, client.judgement_of_theta, tuning.epochs
    )


build = method.one_stage("fed_prox", _build)
methods.register("fed_prox_example", method.Method("FedAvg(E) with a pull to the global model", FedProx, build))
recentre = adaptation.Strategy("fine-tune, move part of the way back", _recentre, Recentre, gives_weights=True)
strategies.register("recentre", recentre)
