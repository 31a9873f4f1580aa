"""IFCA with model averaging, Ghosh et al. (NeurIPS 2020, arXiv 2006.04088), Algorithm 1, option II.

HypCluster, Mansour et al. (2020, arXiv 2002.10619), is the same loop: k models; a client trains the one that fits best.

    θ_1 … θ_k: a model for each cluster, with different initial weights; E, β, n_i as in FedAvg(E)
    for each round:
        sample a cohort of M clients
        for each client i of the cohort:
            j ← argmin_j L_i(θ_j)           # on all of client i's train part
            s_i ← one-hot(j)                # s_i1 … s_ik: the client's cluster
            θ̃_i ← E epochs of the client optimizer (β) on client i's data, starting at θ_j
            g_i ← θ_j − θ̃_i
        for each cluster j that has members in the cohort:
            g_j ← Σ s_ij n_i g_i / Σ s_ij n_i          # the paper: the plain mean, with uniform weights
            θ_j ← server optimizer (α), with cluster j's own state, applied to g_j

The paper's server has no momentum: --server_sgd_momentum=0.

A client sends s_i and k blocks: g_i in its cluster's block and zeros in the others. The aggregator of the flags treats
the blocks like one model's delta, so it clips or compresses g_i itself. A plain weighted mean aggregates s_i. g_j is
the quotient of both. With any aggregator, the server learns the shares Σ s_ij n_i / Σ n_i.

The strategy `best_cluster` chooses a model in the same way as a client of a cohort. For any other strategy, θ is θ_1. A
cluster can lose all its members permanently to a model that was trained first; the shares in the metrics show this.
"""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import global_weights, local_training, optimizers, seeds
from tff_personalization.algorithms import client_work, composition, fed_avg, method
from tff_personalization.algorithms.client_work import ClientRound, ClientUpdate, State, Weights
from tff_personalization.models import functional
from tff_personalization.settings import Setting

SEVERAL_MODELS = "several models"  # needed by strategies that choose among models


def models_of(weights: global_weights.GlobalWeights) -> list[client_work.Weights]:
    """The weights of the k models, θ_1 first, or other values in their structure."""
    return [weights.model, *weights.added(SEVERAL_MODELS)]


def first_models(*models: functional.SeededModel) -> global_weights.GlobalWeights:
    """The global weights before the first round, from one untrained model for each cluster."""
    first, *further = (model.initial_weights[0] for model in models)
    return global_weights.GlobalWeights(first, SEVERAL_MODELS, tuple(further))


def choose(
    model: functional.SeededModel, models: Sequence[client_work.Weights], examples: local_training.Examples
) -> tf.Tensor:
    """int32, the model with the lowest loss on the examples; the first model if there are no examples."""
    losses = tf.stack([local_training.evaluate(model, weights, examples)[0] for weights in models])
    return tf.argmin(tf.where(tf.math.is_finite(losses), losses, np.inf), output_type=tf.int32)


def take(models: Sequence[client_work.Weights], chosen: tf.Tensor) -> client_work.Weights:
    """The weights of the model with the number `chosen`, int32."""
    return tuple(tf.gather(tf.stack(parts), chosen) for parts in zip(*models, strict=True))


class _MeanOfMembers(tff.aggregators.WeightedAggregationFactory):
    """Aggregates <blocks…, s_i> to g_1 … g_k in one flat tuple. The delta of a cluster without members is zero."""

    def __init__(self, inner: tff.aggregators.WeightedAggregationFactory, weights: global_weights.GlobalWeights):
        self._inner = inner
        self._weights = weights

    def create(self, value_type: tff.Type, weight_type: tff.Type) -> tff.templates.AggregationProcess:
        @tff.tensorflow.computation(value_type)
        def part(value: Weights) -> tuple[Weights, tf.Tensor]:
            return tuple(value[:-1]), value[-1]

        blocks_type, membership_type = part.type_signature.result
        blocks = self._inner.create(blocks_type, weight_type)
        shares = tff.aggregators.MeanFactory().create(membership_type, weight_type)

        @tff.tensorflow.computation(blocks_type, membership_type)
        def divide(means: Weights, share: tf.Tensor) -> Weights:
            per_cluster = zip(models_of(self._weights.like(means)), tf.unstack(share), strict=True)
            return tuple(tf.math.divide_no_nan(mean, of) for block, of in per_cluster for mean in block)

        @tff.federated_computation
        def initialize() -> tff.Value:
            return tff.federated_zip((blocks.initialize(), shares.initialize()))

        @tff.federated_computation(
            initialize.type_signature.result,
            tff.FederatedType(value_type, tff.CLIENTS),
            tff.FederatedType(weight_type, tff.CLIENTS),
        )
        def next_fn(state: tff.Value, value: tff.Value, weight: tff.Value) -> tff.templates.MeasuredProcessOutput:
            sent = tff.federated_map(part, value)
            mean = blocks.next(state[0], sent[0], weight)
            share = shares.next(state[1], sent[1], weight)
            return tff.templates.MeasuredProcessOutput(
                tff.federated_zip((mean.state, share.state)),
                tff.federated_map(divide, (mean.result, share.result)),
                tff.federated_zip(collections.OrderedDict(blocks=mean.measurements, shares=share.result)),
            )

        return tff.templates.AggregationProcess(initialize, next_fn)


class _StepOfMembers(tff.learning.optimizers.Optimizer):
    """The server optimizer of each cluster. A cluster without members (its delta is zero) keeps model and state."""

    def __init__(self, inner: tff.learning.optimizers.Optimizer, weights: global_weights.GlobalWeights):
        self._inner = inner
        self._weights = weights

    def initialize(self, specs: Any) -> Any:
        return tuple(self._inner.initialize(model) for model in models_of(self._weights.like(specs)))

    def next(self, state: Any, weights: Weights, gradients: Weights) -> tuple[Any, Weights]:
        steps = []
        models, deltas = (models_of(self._weights.like(flat)) for flat in (weights, gradients))
        for before in zip(state, models, deltas, strict=True):
            has_members = tf.reduce_any([tf.reduce_any(tf.not_equal(part, 0.0)) for part in before[-1]])
            after = self._inner.next(*before)
            steps.append(
                tf.nest.map_structure(lambda new, old, moves=has_members: tf.where(moves, new, old), after, before[:2])
            )
        states, moved = zip(*steps, strict=True)
        return states, sum(moved, ())


class Settings(fed_avg.Settings):
    """The settings of IFCA."""

    clusters = Setting(3, "k of ifca: number of clusters, each with its own model.", least=1)


def build_ifca(
    setup: method.Setup[Settings], initial_weights: global_weights.GlobalWeights
) -> tff.learning.templates.LearningProcess:
    """Builds IFCA as a learning process, whose metrics have each cluster's share in `aggregator`, `shares`.

    Args:
        setup: what it is built from. Its model is the network of every cluster. Its aggregator makes the mean of the
            blocks, and must be a weighted mean of deltas that were each transformed by themselves.
        initial_weights: θ_1 … θ_k before the first round; see `first_models`.
    """
    settings, model, training = setup.settings, setup.model, setup.local_training()

    def update(weights: Weights, client: ClientRound, state: State) -> ClientUpdate:
        models = models_of(initial_weights.like(weights))
        chosen = choose(model, models, client.examples)
        theta = take(models, chosen)
        end = training.train_epochs(theta, client, settings.local_epochs)
        found = client_work.update_from(theta, end)
        membership = tf.one_hot(chosen, len(models))
        blocks = tuple(member * delta for member in tf.unstack(membership) for delta in found.model_delta)
        visits = len(models) * tf.shape(client.examples.y)[0]  # for the losses by which the client chooses
        return found._replace(model_delta=(*blocks, membership), extra_examples=visits)

    return composition.build_process(
        model,
        update,
        settings.client_weighting,
        _StepOfMembers(setup.optimizer(optimizers.SERVER), initial_weights),
        _MeanOfMembers(setup.aggregator or tff.aggregators.MeanFactory(), initial_weights),
        initial_weights=initial_weights,
    )


def _build(setup: method.RunSetup[Settings]) -> method.Training:
    further = (
        setup.build_model(seeds.generator(setup.seed, "init", cluster)) for cluster in range(1, setup.settings.clusters)
    )
    initial_weights = first_models(setup.model, *further)
    return setup.training("ifca", build_ifca(setup, initial_weights), initial_weights)


METHOD = method.Method(
    description="IFCA, HypCluster: k models; each client trains the one with the lowest loss on its data",
    differs=(
        "the paper's server has no momentum (--server_sgd_momentum=0); the mean is weighted by examples (in the "
        "paper, it is uniform: --client_weighting=uniform); all models start at random (on Federated EMNIST, the "
        "authors start with layers that FedAvg trained)"
    ),
    settings=Settings,
    build=_build,
    strategies=("best_cluster",),
    provides=SEVERAL_MODELS,
    means_only=True,
)
