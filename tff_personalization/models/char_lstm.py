"""The recurrent network for next-character prediction: an embedding, two LSTM layers, a logit for each character.

The network of McMahan et al. (2017) for Shakespeare with the sizes of Reddi et al. ("Adaptive Federated Optimization",
ICLR 2021) and of TFF's `tff.simulation.baselines.shakespeare`: 820,522 weights for 90 logits. Its weights are plain
tensors.

Every character of a sequence is predicted from the characters before it. Padding counts neither in the loss nor in the
accuracy. The end of a snippet and characters outside the vocabulary count, as in TFF's task. The beginning comes first
and is never predicted.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tff_personalization.models import characters, functional, keras_twins, outputs

EMBEDDING, UNITS = 8, 256
SEQUENCES = tf.TensorSpec([None, characters.SEQUENCE_LENGTH], tf.uint8)
NEXT_CHARACTER = outputs.classes_by_place(characters.CLASSES, characters.SEQUENCE_LENGTH, padding=characters.PAD)


def build_char_lstm(
    num_classes: int, rng: np.random.Generator, embedding: int = EMBEDDING, units: int = UNITS
) -> functional.SeededModel:
    """Embedding `embedding` – LSTM `units` – LSTM `units` – dense `num_classes`; it has no dropout.

    The initial weights are those of TFF's task in distribution: the LSTM kernels normal with variance 2 / inputs (but
    not truncated), recurrent kernels orthogonal, the embedding uniform in ±0.05, the dense kernel Glorot uniform, and
    biases zero except those of the forget gates, which are one.

    Args:
        num_classes: number of logits.
        rng: source of the initial weights.
        embedding: dimensions of the embedding.
        units: units of each LSTM layer.
    """
    initial_weights = (
        rng.uniform(-0.05, 0.05, (num_classes, embedding)).astype(np.float32),
        *_initial_lstm(rng, embedding, units),
        *_initial_lstm(rng, units, units),
        functional.glorot_uniform(rng, units, num_classes),
        np.zeros(num_classes, np.float32),
    )

    def stem(weights: functional.Weights, x: tf.Tensor) -> tf.Tensor:
        h = tf.gather(weights[0], tf.transpose(tf.cast(x, tf.int32)))  # the steps come first
        h = lstm(lstm(h, *weights[1:4]), *weights[4:7])
        return tf.transpose(h, [1, 0, 2])

    def logits_after_stem(weights: functional.Weights, h: tf.Tensor, dropout_seed: tf.Tensor | None) -> tf.Tensor:
        del dropout_seed
        kernel, bias = weights[7:]
        logits = tf.matmul(tf.reshape(h, [-1, units]), kernel) + bias
        return tf.reshape(logits, [-1, h.shape[1], num_classes])

    return functional.SeededModel(
        initial_weights,
        stem,
        logits_after_stem,
        stem_size=7,
        head_size=2,
        x_spec=SEQUENCES,
        y_spec=NEXT_CHARACTER.y_spec,
        scoring=NEXT_CHARACTER.scoring,
        to_keras=functools.partial(keras_twins.char_lstm, num_classes, embedding, units),
    )


def _initial_lstm(rng: np.random.Generator, inputs: int, units: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernel, recurrent kernel and bias of a layer."""
    bias = np.zeros(4 * units, np.float32)
    bias[units : 2 * units] = 1
    kernel = rng.normal(scale=np.sqrt(2 / inputs), size=(inputs, 4 * units)).astype(np.float32)
    columns, triangle = np.linalg.qr(rng.normal(size=(4 * units, units)))
    recurrent = (columns * np.sign(np.diag(triangle))).T.astype(np.float32)
    return kernel, recurrent, bias


def lstm(x: tf.Tensor, kernel: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """The outputs of an LSTM layer (Hochreiter and Schmidhuber, 1997; with forget gates) at all steps from zero states.

        z_t = x_t W + h_{t−1} U + b,  i, f, o = σ(z_t^i), σ(z_t^f), σ(z_t^o),  g = tanh(z_t^g)
        c_t = f c_{t−1} + i g,  h_t = o tanh(c_t)

    Products that do not depend on the previous step are computed once for all steps: x W before the loop, and the
    gradients of W, U, b and x after the gradient's loop. TensorFlow's own gradient of a loop computes them in every
    step.

    Args:
        x: shape (steps, batch, inputs).
        kernel: W, shape (inputs, 4 units), for the gates i, f, o and the cell's input g in this order.
        recurrent: U, shape (units, 4 units).
        bias: b, shape (4 units,).

    Returns:
        h, shape (steps, batch, units).
    """
    steps, units = x.shape[0], recurrent.shape[0]

    def rows_by_step(width: int) -> tf.TensorArray:
        return tf.TensorArray(x.dtype, steps, element_shape=[None, width])

    @tf.custom_gradient
    def layer(
        x: tf.Tensor, kernel: tf.Tensor, recurrent: tf.Tensor, bias: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], functional.Weights]]:
        zero = tf.zeros([tf.shape(x)[1], units], x.dtype)
        inputs = tf.TensorArray(x.dtype, steps).unstack(tf.tensordot(x, kernel, 1) + bias)

        def forward(
            t: tf.Tensor, c: tf.Tensor, h: tf.Tensor, zs: tf.TensorArray, cs: tf.TensorArray, hs: tf.TensorArray
        ) -> tuple[tf.Tensor | tf.TensorArray, ...]:
            z = inputs.read(t) + tf.matmul(h, recurrent)
            i, f, o = tf.split(tf.sigmoid(z[:, : 3 * units]), 3, axis=1)
            c = f * c + i * tf.tanh(z[:, 3 * units :])
            h = o * tf.tanh(c)
            return t + 1, c, h, zs.write(t, z), cs.write(t, c), hs.write(t, h)

        *_, zs, cs, hs = tf.while_loop(
            lambda t, *_: t < steps,
            forward,
            (0, zero, zero, rows_by_step(4 * units), rows_by_step(units), rows_by_step(units)),
            parallel_iterations=1,
        )
        h = hs.stack()

        def gradient(upstream: tf.Tensor) -> functional.Weights:
            z, c = zs.stack(), cs.stack()
            i, f, o = tf.split(tf.sigmoid(z[:, :, : 3 * units]), 3, axis=2)
            g, tanh_c = tf.tanh(z[:, :, 3 * units :]), tf.tanh(c)
            # The derivatives of c_t by z^i, z^f, z^g; those of h_t by z^o and c_t; that of c_t by c_{t−1}.
            of_gates = [g * i * (1 - i), _before(c) * f * (1 - f), i * (1 - g**2), tanh_c * o * (1 - o)]
            of_cell = [o * (1 - tanh_c**2), f]
            factors = tf.TensorArray(x.dtype, steps).unstack(tf.concat([*of_gates, *of_cell], axis=2))
            upstream = tf.TensorArray(x.dtype, steps).unstack(upstream)

            def backward(
                t: tf.Tensor, dh: tf.Tensor, dc: tf.Tensor, dzs: tf.TensorArray
            ) -> tuple[tf.Tensor | tf.TensorArray, ...]:
                c_by_i, c_by_f, c_by_g, h_by_o, h_by_c, c_by_c = tf.split(factors.read(t), 6, axis=1)
                dh += upstream.read(t)
                dc += dh * h_by_c
                dz = tf.concat([dc * c_by_i, dc * c_by_f, dh * h_by_o, dc * c_by_g], axis=1)
                return t - 1, tf.matmul(dz, recurrent, transpose_b=True), dc * c_by_c, dzs.write(t, dz)

            *_, dzs = tf.while_loop(
                lambda t, *_: t >= 0, backward, (steps - 1, zero, zero, rows_by_step(4 * units)), parallel_iterations=1
            )
            dz = tf.reshape(dzs.stack(), [-1, 4 * units])
            return (
                tf.reshape(tf.matmul(dz, kernel, transpose_b=True), tf.shape(x)),
                tf.matmul(tf.reshape(x, [-1, x.shape[2]]), dz, transpose_a=True),
                tf.matmul(tf.reshape(_before(h), [-1, units]), dz, transpose_a=True),
                tf.reduce_sum(dz, axis=0),
            )

        return h, gradient

    return layer(x, kernel, recurrent, bias)


def _before(states: tf.Tensor) -> tf.Tensor:
    """The state before each step: zero before the first."""
    return tf.concat([tf.zeros_like(states[:1]), states[:-1]], axis=0)
