"""Shares of counts in whole numbers. A share such as 0.3 or 0.26 is not exact in float32, so it gets a small margin."""

import tensorflow as tf

_MARGIN = 1.0000003


def floor_of_share(share: tf.Tensor | float, count: tf.Tensor | int) -> tf.Tensor:
    """int32, share × count rounded down: 0.26 × 450 is 117, although float32 gives less."""
    return tf.cast(tf.floor(_MARGIN * share * tf.cast(count, tf.float32)), tf.int32)


def ceil_of_share(share: tf.Tensor | float, count: tf.Tensor | int) -> tf.Tensor:
    """int32, share × count rounded up: 0.3 × 50 is 15, although float32 gives more."""
    return count - floor_of_share(1 - share, count)
