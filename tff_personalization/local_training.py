"""The inner loop: how a model is trained on one client's data.

FedAvg(E), Reptile(K), FedSGD, fine-tuning, local-only and pooled training all run `LocalTraining.steps`; they differ in
the number of steps, the batch size and which weights are trained. In the symbols of arXiv 1909.12488, with β the client
optimizer's learning rate:

    θ_i ← θ
    for j = 1 … K:                      # FedAvg(E): K = E × (batches of the client)
        if the epoch is over: reshuffle
        g_j ← ∇ L_i(θ_i; next batch)    # adjusted, where the method has another local objective
        θ_i ← θ_i − β g_j               # or any other client optimizer
    return θ − θ_i                      # the model delta

An epoch is one pass over the client's data, freshly permuted, its last short batch kept. The loop is one
`tf.while_loop` over dense tensors: no `tf.data` pipeline, no variables.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization.models import functional

Tensors = tuple[tf.Tensor, ...]
# From the trained weights and the gradient at them to what the optimizer is given in the gradient's place.
AdjustFn = Callable[[Tensors, Tensors], Tensors]


class Examples(NamedTuple):
    """A client's examples: `x` images (uint8) or features (float32), shape (n, …); `y` int32, shape (n,)."""

    x: tf.Tensor
    y: tf.Tensor


class LocalState(NamedTuple):
    """Where local training stands.

    Attributes:
        weights: all trainable weights θ_i.
        optimizer_state: of the trained weights.
        loss_sum: float32, the loss of each visited example, summed.
        correct: int32, how many visited examples were classified rightly before the step that used them.
        examples: int32, visited examples.
    """

    weights: tuple[tf.Tensor, ...]
    optimizer_state: Any
    loss_sum: tf.Tensor
    correct: tf.Tensor
    examples: tf.Tensor


class MeanGradient(NamedTuple):
    """The gradient of the mean loss over some examples.

    Attributes:
        gradients: with respect to the trained weights; zero where there are no examples.
        loss_sum: float32, the loss of each example, summed.
        correct: int32, how many examples are classified rightly.
        examples: int32, how many there are.
    """

    gradients: Tensors
    loss_sum: tf.Tensor
    correct: tf.Tensor
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
            model: the model to train; one that follows a stem trains on features in place of images.
            optimizer: the client (or personalization) optimizer.
            batch_size: examples a step; None takes all of the client's examples at once.
            trained: which of the weights are trained; the others stay as they are.
            shuffle: whether examples are permuted anew in each epoch.
        """
        self._model = model
        self._optimizer = optimizer
        self._batch_size = batch_size
        self._trained = trained
        self._shuffle = shuffle

    def initial_state(self, weights: tuple[tf.Tensor, ...], optimizer_state: Any = None) -> LocalState:
        """The state before the first step, from the weights θ; a fresh optimizer state unless one is given."""
        if optimizer_state is None:
            optimizer_state = self.initial_optimizer_state(weights)
        return LocalState(tuple(weights), optimizer_state, tf.constant(0.0), tf.constant(0), tf.constant(0))

    def initial_optimizer_state(self, weights: tuple[Any, ...]) -> Any:
        """The optimizer's state before the first step for weights of these shapes, as tensors."""
        specs = tuple(tf.TensorSpec(w.shape, w.dtype) for w in weights[self._trained])
        return tf.nest.map_structure(tf.convert_to_tensor, self._optimizer.initialize(specs))

    def steps_per_epoch(self, examples: Examples) -> tf.Tensor:
        """int32: the batches of one pass over `examples`, the last short one included; 0 if there are no examples."""
        count = tf.shape(examples.y)[0]
        return tf.minimum(count, 1) if self._batch_size is None else -(-count // self._batch_size)

    def steps(
        self,
        state: LocalState,
        examples: Examples,
        seed: tf.Tensor,
        first: tf.Tensor | int,
        last: tf.Tensor | int,
        adjust: AdjustFn | None = None,
    ) -> LocalState:
        """Takes the steps first, first + 1, …, last − 1; an epoch ends every `steps_per_epoch` of them.

        Args:
            state: where training stands.
            examples: the client's examples; with none, nothing happens.
            seed: int32, shape (2,), from which permutations and dropout are drawn.
            first: int32, the number of the first step, counted from 0 since training began.
            last: int32, the number of the step after the last one.
            adjust: changes each step's gradient, for methods whose local objective is another one than the loss.

        Returns:
            The state after the last step.
        """
        count = tf.shape(examples.y)[0]
        batch_size = count if self._batch_size is None else tf.constant(self._batch_size)
        per_epoch = tf.maximum(self.steps_per_epoch(examples), 1)
        last = tf.where(count > 0, last, first)

        def permutation_of_epoch(epoch):
            if not self._shuffle:
                return tf.range(count)
            return tf.random.experimental.stateless_shuffle(tf.range(count), tf.random.fold_in(seed, -1 - epoch))

        def take_step(step, permutation, state):
            batch_number = step % per_epoch
            permutation = tf.cond(
                tf.equal(batch_number, 0), lambda: permutation_of_epoch(step // per_epoch), lambda: permutation
            )
            batch = permutation[batch_number * batch_size : (batch_number + 1) * batch_size]
            batch_examples = Examples(tf.gather(examples.x, batch), tf.gather(examples.y, batch))
            return step + 1, permutation, self._step(state, batch_examples, tf.random.fold_in(seed, step), adjust)

        _, _, state = tf.while_loop(
            lambda step, *_: step < last,
            take_step,
            (tf.convert_to_tensor(first), permutation_of_epoch(first // per_epoch), state),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None]), _shapes(state)),
            parallel_iterations=1,
        )
        return state

    def gradient(self, weights: tuple[tf.Tensor, ...], examples: Examples, seed: tf.Tensor) -> MeanGradient:
        """The gradient on all of `examples`, in a training pass; in batches, so that memory is bounded.

        Args:
            weights: all trainable weights, where the gradient is taken.
            examples: any number of examples.
            seed: int32, shape (2,), from which dropout is drawn.
        """
        count = tf.shape(examples.y)[0]
        batch_size = count if self._batch_size is None else tf.constant(self._batch_size)
        last = self.steps_per_epoch(examples)

        def add_batch(number, gradients, loss_sum, correct):
            batch = Examples(*(part[number * batch_size : (number + 1) * batch_size] for part in examples))
            of_batch, loss, logits = self._gradient(weights, batch, tf.random.fold_in(seed, number))
            size = tf.cast(tf.shape(batch.y)[0], tf.float32)
            share = size / tf.cast(count, tf.float32)
            gradients = tuple(g + share * b for g, b in zip(gradients, of_batch, strict=True))
            return number + 1, gradients, loss_sum + loss * size, correct + count_correct(logits, batch.y)

        zeros = tuple(tf.zeros_like(w) for w in weights[self._trained])
        _, gradients, loss_sum, correct = tf.while_loop(
            lambda number, *_: number < last, add_batch, (0, zeros, 0.0, 0), parallel_iterations=1
        )
        return MeanGradient(gradients, loss_sum, correct, count)

    def _gradient(self, weights: tuple[tf.Tensor, ...], batch: Examples, dropout_seed: tf.Tensor):
        """The gradient of the trained weights on a batch; its mean loss and its logits."""
        trained = weights[self._trained]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            logits = self._model.logits(self._with_trained(weights, trained), batch.x, dropout_seed)
            loss = self._model.loss(logits, batch.y)
        return tape.gradient(loss, trained), loss, logits

    def _step(self, state: LocalState, batch: Examples, dropout_seed: tf.Tensor, adjust: AdjustFn | None) -> LocalState:
        trained = state.weights[self._trained]
        gradients, loss, logits = self._gradient(state.weights, batch, dropout_seed)
        if adjust is not None:
            gradients = adjust(trained, gradients)
        optimizer_state, trained = self._optimizer.next(state.optimizer_state, trained, gradients)
        size = tf.shape(batch.y)[0]
        return LocalState(
            self._with_trained(state.weights, trained),
            optimizer_state,
            state.loss_sum + loss * tf.cast(size, tf.float32),
            state.correct + count_correct(logits, batch.y),
            state.examples + size,
        )

    def _with_trained(self, weights, trained):
        weights = list(weights)
        weights[self._trained] = trained
        return tuple(weights)


def evaluate(
    model: functional.Classifier, weights: tuple[tf.Tensor, ...], examples: Examples, batch_size: int = 512
) -> tuple[tf.Tensor, tf.Tensor]:
    """Loss and accuracy of `weights` on `examples`, in batches so that memory is bounded.

    Returns:
        float32, the loss of each example summed; int32, how many examples are classified rightly.
    """
    count = tf.shape(examples.y)[0]

    def add_batch(start, loss_sum, correct):
        x, y = (part[start : start + batch_size] for part in examples)
        logits = model.logits(weights, x, None)
        loss_sum += model.loss(logits, y) * tf.cast(tf.shape(y)[0], tf.float32)
        return start + batch_size, loss_sum, correct + count_correct(logits, y)

    _, loss_sum, correct = tf.while_loop(lambda start, *_: start < count, add_batch, (0, 0.0, 0), parallel_iterations=1)
    return loss_sum, correct


def features(
    model: functional.SeededModel, weights: tuple[tf.Tensor, ...], examples: Examples, batch_size: int = 512
) -> Examples:
    """The examples with the model's features, float32 of shape (n, features), in place of the images."""
    count = tf.shape(examples.y)[0]
    width = model.stem(weights, examples.x[:1]).shape[1]  # for its static shape; the graph does not keep it

    def add_batch(start, number, batches):
        return (
            start + batch_size,
            number + 1,
            batches.write(number, model.stem(weights, examples.x[start:][:batch_size])),
        )

    # In batches: memory is bounded, and convolutions, which fail on none, never see a client without examples.
    batches = tf.TensorArray(tf.float32, 0, dynamic_size=True, infer_shape=False, element_shape=[None, width])
    *_, batches = tf.while_loop(lambda start, *_: start < count, add_batch, (0, 0, batches), parallel_iterations=1)
    return Examples(batches.concat(), examples.y)


def count_correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """int32: how many of `labels`, shape (n,), are the argmax of `logits`, shape (n, classes).

    A row of logits that is not finite classifies nothing: its argmax would name the first class.
    """
    # tf.equal: in the graphs that TFF builds, `==` compares tensors by identity.
    hits = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
    finite = tf.reduce_all(tf.math.is_finite(logits), axis=1)
    return tf.reduce_sum(tf.cast(tf.logical_and(hits, finite), tf.int32))


def _shapes(structure):
    return tf.nest.map_structure(lambda tensor: tensor.shape, structure)
