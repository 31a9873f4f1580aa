"""Packs several named inputs of examples into one float32 array, which the network unpacks.

So client data, the inner loop and records handle one array of features for any network.
"""

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tff_personalization import errors

Inputs = Mapping[str, tf.TensorSpec]
_LARGEST = 2**24  # float32 represents all integers up to this one


def packed_spec(inputs: Inputs) -> tf.TensorSpec:
    """The type of one example's inputs side by side, in the order of their names."""
    return tf.TensorSpec([sum(_size(spec) for spec in inputs.values())], tf.float32)


def pack(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 of shape (N, …): the arrays, each of shape (N, …), side by side, in the order of their names.

    Raises:
        UserError: an integer is too large for float32 to hold.
    """
    for name, array in arrays.items():
        check_integers(name, array)
    parts = [np.asarray(arrays[name], np.float32) for name in sorted(arrays)]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def check_integers(name: str, array: np.ndarray) -> None:
    """Raises UserError, with the name, if an integer is too large for float32 to hold."""
    low, high = (int(array.min()), int(array.max())) if array.dtype.kind in "iu" and array.size else (0, 0)
    if max(-low, high) > _LARGEST:
        raise errors.UserError(
            f"{name}: integers up to {_LARGEST} expected, got {low} to {high}: number ids from 0, or divide quantities."
        )


def sizes(inputs: Inputs | Mapping[str, np.ndarray]) -> dict[str, int]:
    """How many numbers each named input of one example has: of types for one example, or of arrays, shape (N, …)."""
    return {
        name: _size(one) if isinstance(one, tf.TensorSpec) else math.prod(one.shape[1:]) for name, one in inputs.items()
    }


def unpack(packed: tf.Tensor, inputs: Inputs) -> dict[str, tf.Tensor]:
    """The inputs of a batch by name, each in its type and shape, from `packed`, shape (batch, …)."""
    names = sorted(inputs)
    parts = tf.split(packed, [_size(inputs[name]) for name in names], axis=1)
    return {
        name: tf.cast(tf.reshape(part, [-1, *inputs[name].shape]), inputs[name].dtype)
        for name, part in zip(names, parts, strict=True)
    }


def _size(spec: tf.TensorSpec) -> int:
    return math.prod(spec.shape)
