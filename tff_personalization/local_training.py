"""The inner loop: trains a model on one client's data.

FedAvg(E), Reptile(K), FedSGD, fine-tuning, local-only and pooled training all run `LocalTraining.steps`. They differ in
the number of steps, the batch size and the trained weights. In the symbols of arXiv 1909.12488, with the client
optimizer's learning rate β:

    θ_i ← θ
    for j = 1 … K:                      # FedAvg(E): K = E × (batches of the client)
        if the epoch is over: reshuffle
        g_j ← ∇ L_i(θ_i; next batch)    # adjusted, if the method has another local objective
        θ_i ← θ_i − β g_j               # or any other client optimizer
    return θ − θ_i                      # the model delta

An epoch is one pass over a new permutation of the client's data; the last short batch is kept. The loop is one
`tf.while_loop` over dense tensors, without a `tf.data` pipeline and without variables.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import rounding, schedules
from tff_personalization.models import functional

Tensors = tuple[tf.Tensor, ...]
# Maps the trained weights and their gradient to the gradient that the optimizer gets.
AdjustFn = Callable[[Tensors, Tensors], Tensors]


class Examples(NamedTuple):
    """A client's examples: `x`, such as images (uint8) or features (float32), and `y`, labels; each of shape (n, …)."""

    x: tf.Tensor
    y: tf.Tensor


class ClientRound(NamedTuple):
    """A client's input in one round.

    Attributes:
        examples: its train examples.
        seed: int32, shape (2,), from which permutations and dropout are drawn.
        round_number: int32, counted from 1; learning rates with a schedule depend on it. None outside of a round.
        step_share: float32 in (0, 1], the share of its local steps that it finishes; 1 unless it is a straggler.
    """

    examples: Examples
    seed: tf.Tensor
    round_number: tf.Tensor | None = None
    step_share: tf.Tensor | float = 1.0

    def steps_done(self, planned: tf.Tensor | int) -> tf.Tensor:
        """int32, how many of the planned local steps the client finishes; its share is rounded up."""
        return rounding.ceil_of_share(self.step_share, planned)


class LocalState(NamedTuple):
    """The state of local training.

    Attributes:
        weights: all trainable weights θ_i.
        optimizer_state: the optimizer's state for the trained weights.
        loss_sum: float32, the sum of the losses of all predictions on the visited examples.
        correct: the number of right predictions, each before the step that used the example; see `Scoring.score`.
        predictions: int32, the number of predictions: one or more for each visited example.
        examples: int32, visited examples.
        steps: int32, steps taken.
    """

    weights: tuple[tf.Tensor, ...]
    optimizer_state: Any
    loss_sum: tf.Tensor
    correct: tf.Tensor
    predictions: tf.Tensor
    examples: tf.Tensor
    steps: tf.Tensor


class MeanGradient(NamedTuple):
    """The gradient of the mean loss over some examples.

    Attributes:
        gradients: with respect to the trained weights; zero if there are no examples.
        loss_sum, correct, predictions, examples: of these examples, as in `LocalState`.
    """

    gradients: Tensors
    loss_sum: tf.Tensor
    correct: tf.Tensor
    predictions: tf.Tensor
    examples: tf.Tensor


class LocalTraining:
    """Trains `model` on one client's examples with `optimizer`, in batches of `batch_size`."""

    def __init__(
        self,
        model: functional.Classifier,
        optimizer: tff.learning.optimizers.Optimizer,
        batch_size: int | None,
        *,
        trained: slice = slice(None),
        shuffle: bool = True,
    ):
        """See the class.

        Args:
            model: the model to train. The part of a model after its stem trains on features instead of examples.
            optimizer: the client (or personalization) optimizer.
            batch_size: examples a step; None takes all of the client's examples at once.
            trained: which weights are trained; the others do not change.
            shuffle: whether each epoch permutes the examples again.
        """
        self._model, self._optimizer, self._batch_size = model, optimizer, batch_size
        self._trained, self._shuffle = trained, shuffle

    def initial_state(
        self, weights: tuple[tf.Tensor, ...], optimizer_state: Any = None, round_number: tf.Tensor | None = None
    ) -> LocalState:
        """The state before the first step, from the weights θ.

        Args:
            weights, optimizer_state: θ, and the optimizer's state; by default a fresh one.
            round_number: the round; a fresh optimizer's learning rate depends on it if it has a schedule.
        """
        if optimizer_state is None:
            optimizer_state = schedules.at_round(self._optimizer, self.initial_optimizer_state(weights), round_number)
        zero, no_score = tf.constant(0), tf.constant(0, self._model.scoring.score_dtype)
        return LocalState(tuple(weights), optimizer_state, tf.constant(0.0), no_score, zero, zero, zero)

    def initial_optimizer_state(self, weights: tuple[Any, ...]) -> Any:
        """The optimizer's state before the first step, for weights of these shapes, as tensors."""
        specs = tuple(tf.TensorSpec(w.shape, w.dtype) for w in weights[self._trained])
        return tf.nest.map_structure(tf.convert_to_tensor, self._optimizer.initialize(specs))

    def steps_per_epoch(self, examples: Examples) -> tf.Tensor:
        """int32, the batches of one pass over `examples`, including the last short one; 0 if there are no examples."""
        count = tf.shape(examples.y)[0]
        return tf.minimum(count, 1) if self._batch_size is None else -(-count // self._batch_size)

    def train(
        self,
        weights: tuple[tf.Tensor, ...],
        client: ClientRound,
        num_steps: tf.Tensor | int,
        adjust: AdjustFn | None = None,
        optimizer_state: Any = None,
    ) -> LocalState:
        """A client's local training in a round, from `weights`: as many of `num_steps` steps as the client finishes.

        Args:
            weights, optimizer_state, adjust: as in `initial_state` and `steps`.
            client: the client's examples, seed, round and step share.
            num_steps: the planned steps, int32.
        """
        start = self.initial_state(weights, optimizer_state, client.round_number)
        return self.steps(start, client.examples, client.seed, 0, client.steps_done(num_steps), adjust)

    def train_epochs(
        self,
        weights: tuple[tf.Tensor, ...],
        client: ClientRound,
        epochs: int,
        adjust: AdjustFn | None = None,
        optimizer_state: Any = None,
    ) -> LocalState:
        """As `train`, for the steps of `epochs` passes over the client's examples."""
        return self.train(weights, client, epochs * self.steps_per_epoch(client.examples), adjust, optimizer_state)

    def steps(
        self,
        state: LocalState,
        examples: Examples,
        seed: tf.Tensor,
        first: tf.Tensor | int,
        last: tf.Tensor | int,
        adjust: AdjustFn | None = None,
    ) -> LocalState:
        """The state after the steps first, first + 1, …, last − 1. An epoch has `steps_per_epoch` steps.

        Args:
            state: the state before them.
            examples: the client's examples; without any, nothing happens.
            seed: int32, shape (2,), from which permutations and dropout are drawn.
            first, last: int32, the numbers of the first step and of the one after the last, counted from 0 in training.
            adjust: changes each step's gradient, for methods with another local objective than the loss.
        """
        count = tf.shape(examples.y)[0]
        batch_size = count if self._batch_size is None else tf.constant(self._batch_size)
        per_epoch = tf.maximum(self.steps_per_epoch(examples), 1)
        last = tf.where(count > 0, last, first)

        def permuted(epoch: tf.Tensor) -> tf.Tensor:
            if not self._shuffle:
                return tf.range(count)
            return tf.random.experimental.stateless_shuffle(tf.range(count), tf.random.fold_in(seed, -1 - epoch))

        def take_step(
            step: tf.Tensor, permutation: tf.Tensor, state: LocalState
        ) -> tuple[tf.Tensor, tf.Tensor, LocalState]:
            batch_number = step % per_epoch
            permutation = tf.cond(tf.equal(batch_number, 0), lambda: permuted(step // per_epoch), lambda: permutation)
            batch = permutation[batch_number * batch_size : (batch_number + 1) * batch_size]
            state = self.step(state, take(examples, batch), tf.random.fold_in(seed, step), adjust)
            return step + 1, permutation, state

        shapes = tf.nest.map_structure(lambda tensor: tensor.shape, state)
        _, _, state = tf.while_loop(
            lambda step, *_: step < last,
            take_step,
            (tf.convert_to_tensor(first), permuted(first // per_epoch), state),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), shapes),
            parallel_iterations=1,
        )
        return state

    def gradient(self, weights: tuple[tf.Tensor, ...], examples: Examples, seed: tf.Tensor) -> MeanGradient:
        """The gradient of a training pass on all of `examples`, computed in batches to limit memory.

        Args:
            weights: all trainable weights, at which the gradient is taken.
            examples: any number of examples.
            seed: int32, shape (2,), from which dropout is drawn.
        """
        count, last = tf.shape(examples.y)[0], self.steps_per_epoch(examples)
        batch_size = count if self._batch_size is None else tf.constant(self._batch_size)
        scoring = self._model.scoring
        predictions = scoring.count_predictions(examples.y)

        def add_batch(
            number: tf.Tensor, gradients: Tensors, loss_sum: tf.Tensor, correct: tf.Tensor
        ) -> tuple[tf.Tensor, Tensors, tf.Tensor, tf.Tensor]:
            batch = Examples(*(part[number * batch_size : (number + 1) * batch_size] for part in examples))
            of_batch, loss, logits = self._gradient(weights, batch, tf.random.fold_in(seed, number))
            size = tf.cast(scoring.count_predictions(batch.y), tf.float32)
            share = tf.math.divide_no_nan(size, tf.cast(predictions, tf.float32))
            gradients = tuple(g + share * b for g, b in zip(gradients, of_batch, strict=True))
            return number + 1, gradients, loss_sum + loss * size, correct + scoring.score(logits, batch.y)

        zeros, no_score = tuple(map(tf.zeros_like, weights[self._trained])), tf.constant(0, scoring.score_dtype)
        _, gradients, loss_sum, correct = tf.while_loop(
            lambda number, *_: number < last, add_batch, (0, zeros, 0.0, no_score), parallel_iterations=1
        )
        return MeanGradient(gradients, loss_sum, correct, predictions, count)

    def _gradient(
        self, weights: Tensors, batch: Examples, dropout_seed: tf.Tensor
    ) -> tuple[Tensors, tf.Tensor, tf.Tensor]:
        """The gradient of the trained weights on a batch, the mean loss, and the logits."""
        trained = weights[self._trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            logits = self._model.logits(self._with_trained(weights, trained), batch.x, dropout_seed)
            loss = self._model.scoring.loss(logits, batch.y)
        return tape.gradient(loss, trained), loss, logits

    def step(
        self, state: LocalState, batch: Examples, dropout_seed: tf.Tensor, adjust: AdjustFn | None = None
    ) -> LocalState:
        """Takes one step on a batch.

        Args:
            state: the state before it.
            batch: the examples of the step.
            dropout_seed: int32, shape (2,), from which dropout is drawn.
            adjust: as in `steps`.
        """
        trained = state.weights[self._trained]
        gradients, loss, logits = self._gradient(state.weights, batch, dropout_seed)
        if adjust is not None:
            gradients = adjust(trained, gradients)
        optimizer_state, trained = self._optimizer.next(state.optimizer_state, trained, gradients)
        predictions = self._model.scoring.count_predictions(batch.y)
        return LocalState(
            self._with_trained(state.weights, trained),
            optimizer_state,
            state.loss_sum + loss * tf.cast(predictions, tf.float32),
            state.correct + self._model.scoring.score(logits, batch.y),
            state.predictions + predictions,
            state.examples + tf.shape(batch.y)[0],
            state.steps + 1,
        )

    def _with_trained(self, weights: Tensors, trained: Tensors) -> Tensors:
        mixed = list(weights)
        mixed[self._trained] = trained
        return tuple(mixed)


def proximal(strength: float, anchor: Tensors) -> AdjustFn:
    """The `adjust` of the local objective f(θ) + λ/2 ‖θ − w‖²: adds λ (θ − w) to each gradient.

    Args:
        strength: λ.
        anchor: w, in the shapes of the trained weights.
    """

    def adjust(trained: Tensors, gradients: Tensors) -> Tensors:
        return tuple(g + strength * (v - w) for g, v, w in zip(gradients, trained, anchor, strict=True))

    return adjust


def take(examples: Examples, places: tf.Tensor) -> Examples:
    """The examples at the indices `places`, int32 of shape (m,)."""
    return Examples(tf.gather(examples.x, places), tf.gather(examples.y, places))


def evaluate(model: functional.Classifier, weights: Tensors, examples: Examples) -> tuple[tf.Tensor, tf.Tensor]:
    """Loss and right predictions of `weights` on `examples`, in batches to limit memory.

    Returns:
        float32, the sum of the losses of all predictions; the number of right predictions, see `Scoring.score`.
    """
    count, scoring = tf.shape(examples.y)[0], model.scoring

    def add_batch(start: tf.Tensor, loss_sum: tf.Tensor, correct: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        x, y = (part[start : start + scoring.batch_size] for part in examples)
        logits = model.logits(weights, x, None)
        loss_sum += scoring.loss(logits, y) * tf.cast(scoring.count_predictions(y), tf.float32)
        return start + scoring.batch_size, loss_sum, correct + scoring.score(logits, y)

    start = 0, 0.0, tf.constant(0, scoring.score_dtype)
    return tf.while_loop(lambda start, *_: start < count, add_batch, start, parallel_iterations=1)[1:]


def in_batches(function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor, batch_size: int) -> tf.Tensor:
    """`function(x)` row by row, in batches to limit memory. No batch is empty, because a convolution would fail."""
    count, of_one = tf.shape(x)[0], function(x[:1])  # for its type; the graph does not keep it
    shape = [None, *of_one.shape[1:]]
    batches = tf.TensorArray(of_one.dtype, 0, dynamic_size=True, infer_shape=False, element_shape=shape)

    def add_batch(start: tf.Tensor, number: tf.Tensor, batches: tf.TensorArray) -> tuple[Any, ...]:
        return start + batch_size, number + 1, batches.write(number, function(x[start:][:batch_size]))

    *_, batches = tf.while_loop(lambda start, *_: start < count, add_batch, (0, 0, batches), parallel_iterations=1)
    return batches.concat()


def features(model: functional.SeededModel, weights: tuple[tf.Tensor, ...], examples: Examples) -> Examples:
    """The examples with the model's features, of shape (n, …), instead of `x`.

    Features of all examples are held in memory: 36,864 bytes an example for the CNN, 81,920 for char_lstm. A network
    without a stem has the examples themselves as features, in their own type.
    """
    return Examples(in_batches(lambda x: model.stem(weights, x), examples.x, model.scoring.batch_size), examples.y)
