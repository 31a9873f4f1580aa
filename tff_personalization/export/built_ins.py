"""The network's operations, with their gradients and its dropout, in terms of TensorFlow Lite's built-in operations.

TensorFlow Lite has no operation for the gradient of a convolution, or for random numbers that depend only on a seed.
Here both consist of its own operations, so an app needs its ordinary runtime and no TensorFlow. Values and gradients
equal TensorFlow's, except for the order of float additions. Random numbers are equal bit by bit.
"""

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from tff_personalization.models import functional

# Philox 4×32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): the factors of the products,
# and the increments of the key in each round.
_FACTORS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
# The key with which TensorFlow scrambles a seed into key and counter.
_SCRAMBLING_KEY = (0x3EC8F720, 0x02461E29)

_Words: TypeAlias = tuple[tf.Tensor, ...]


def conv2d(h: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """As `functional.conv2d`. The gradient by the kernel is a matrix product, that by `h` a convolution."""
    size, _, inputs, outputs = kernel.shape
    rows, columns = h.shape[1] - size + 1, h.shape[2] - size + 1

    @tf.custom_gradient
    def convolve(
        h: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            shifted = [h[:, i : i + rows, j : j + columns, :] for i in range(size) for j in range(size)]
            patches = tf.reshape(tf.concat(shifted, axis=3), [-1, size * size * inputs])
            by_kernel = tf.matmul(patches, tf.reshape(upstream, [-1, outputs]), transpose_a=True)
            around = [size - 1, size - 1]
            padded = tf.pad(upstream, [[0, 0], around, around, [0, 0]])
            # One axis at a time: TensorFlow Lite's reversal along two at once is wrong.
            turned = tf.reverse(tf.reshape(kernel, [size * size, inputs, outputs]), [0])
            turned = tf.reshape(tf.transpose(turned, [0, 2, 1]), [size, size, outputs, inputs])
            return functional.conv2d(padded, turned), tf.reshape(by_kernel, kernel.shape)

        return functional.conv2d(h, kernel), gradient

    return convolve(h, kernel)


def max_pool(h: tf.Tensor) -> tf.Tensor:
    """As `functional.max_pool`, with tensors of four axes at most."""

    @tf.custom_gradient
    def pool(h: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        pooled = tf.nn.max_pool2d(h, 2, 2, "VALID")

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            left, parts = upstream, []
            for entry in tf.split(tf.nn.space_to_depth(h, 2), 4, axis=3)[:3]:
                part = tf.where(entry >= pooled, left, tf.zeros_like(left))
                left -= part  # exactly zero where this entry took it
                parts.append(part)
            return tf.nn.depth_to_space(tf.concat([*parts, left], axis=3), 2)

        return pooled, gradient

    return pool(h)


def dense(h: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """As `functional.dense`."""
    return tf.nn.bias_add(tf.matmul(h, kernel), bias)


@tf.custom_gradient
def relu(h: tf.Tensor) -> tf.Tensor:
    """As `tf.nn.relu`."""
    value = tf.nn.relu(h)
    return value, lambda upstream: tf.where(value > 0, upstream, tf.zeros_like(upstream))


@tf.custom_gradient
def _times(h: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`h` times a tensor of its shape, which gets no gradient."""
    return h * factor, lambda upstream: (upstream * factor, None)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """As `functional.cross_entropy`."""
    right = tf.one_hot(labels, logits.shape[1])
    count = tf.cast(tf.shape(logits)[0], tf.float32)

    @tf.custom_gradient
    def loss(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        value = -tf.reduce_sum(right * tf.nn.log_softmax(logits)) / count
        return value, lambda upstream: upstream * (tf.nn.softmax(logits) - right) / count

    return loss(logits)


def sigmoid_cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The mean cross-entropy of the sigmoid, in nats, of `logits` against labels of 0 and 1, of the same shape."""
    right = tf.cast(labels, tf.float32)
    count = tf.cast(tf.shape(logits)[0] * logits.shape[1], tf.float32)

    @tf.custom_gradient
    def loss(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        value = tf.reduce_sum(tf.nn.relu(logits) - logits * right + tf.math.log(1 + tf.exp(-tf.abs(logits)))) / count
        return value, lambda upstream: upstream * (tf.sigmoid(logits) - right) / count

    return loss(logits)


def mean_squared_error(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """The mean of the squared differences, of the same shape."""
    count = tf.cast(tf.shape(values)[0] * values.shape[1], tf.float32)

    @tf.custom_gradient
    def loss(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        difference = values - labels
        return tf.reduce_sum(difference * difference) / count, lambda upstream: upstream * 2 * difference / count

    return loss(values)


def dropout(h: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """As `functional.dropout`; `units` must be a multiple of 16."""
    units = h.shape[1]
    words = random_words(seed, tf.shape(h)[0] * (units // 16))
    # Not compared as bytes, because TensorFlow Lite treats bytes as quantized numbers.
    values = tf.cast(tf.reshape(tf.bitcast(words, tf.uint8), [-1, units]), tf.int32)
    return _times(h, tf.cast(values >= round(256 * rate), tf.float32) / (1 - rate))


def fold_in(seed: tf.Tensor, number: int) -> tf.Tensor:
    """As `tf.random.fold_in` for int32: a seed, int32 of shape (2,)."""
    return tf.stack([random_words(seed, 1)[0], tf.constant(number, tf.int32)])


def random_words(seed: tf.Tensor, blocks: tf.Tensor | int) -> tf.Tensor:
    """The first 4 × `blocks` numbers that `tf.random.stateless_uniform` draws over all of int32.

    Args:
        seed: int32, shape (2,).
        blocks: int32, how many blocks of four.

    Returns:
        int32, shape (4 × blocks,).
    """
    first, second = tf.unstack(seed)
    signs = -tf.cast(seed < 0, tf.int32)  # of the seed's numbers as numbers of 64 bits
    scrambled = _philox(
        (first, signs[0], second, signs[1]),
        tuple(_int32(word) for word in _SCRAMBLING_KEY),
    )
    number = tf.range(blocks)
    zero = tf.zeros_like(number)
    return tf.reshape(
        tf.stack(_philox((number, zero, zero + scrambled[2], zero + scrambled[3]), scrambled[:2]), axis=1), [-1]
    )


def _philox(counter: _Words, key: _Words) -> _Words:
    """Philox of a counter of four words, int32 of one shape, and a key of two, int32 scalars: four words."""
    for _ in range(_ROUNDS):
        (high_0, low_0), (high_1, low_1) = (
            _product(counter[place], factor) for place, factor in zip((0, 2), _FACTORS, strict=True)
        )
        counter = (_xor(high_1, counter[1], key[0]), low_1, _xor(high_0, counter[3], key[1]), low_0)
        key = tuple(word + _int32(weyl) for word, weyl in zip(key, _WEYL, strict=True))
    return counter


def _product(words: tf.Tensor, factor: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The upper and the lower 32 bits of the products of unsigned numbers, all as int32."""
    # Modulo 2⁶⁴, signed and unsigned products have the same bits.
    product = tf.cast(tf.bitcast(words, tf.uint32), tf.int64) * tf.constant(factor, tf.int64)
    halves = tf.bitcast(product, tf.int32)
    return halves[..., 1], halves[..., 0]


def _xor(*words: tf.Tensor) -> tf.Tensor:
    first, second, third = words
    return tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(first, second), third)


def _int32(word: int) -> tf.Tensor:
    """A constant of these 32 bits."""
    return tf.constant(word - 2**32 if word >= 2**31 else word, tf.int32)


OPERATIONS = functional.Operations(conv2d, max_pool, dense, relu, dropout, fold_in)
# The loss of the tasks that a device can train, by the function that turns their logits into predictions.
LOSSES = {"softmax": cross_entropy, "sigmoid": sigmoid_cross_entropy, "linear": mean_squared_error}
