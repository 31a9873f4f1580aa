"""Structures of tensors, such as an optimizer's state, a model delta, or what a client keeps."""

from typing import Any

import tensorflow as tf

from tff_personalization import errors


def check_types(maker: str, what: str, before: Any, after: Any) -> None:
    """Raises UserError unless the tensors of a structure have the types and shapes that they had before.

    Args:
        maker: what made the new structure, for the message.
        what: what the structure is, for the message.
        before, after: the old and the new structure.
    """
    old, new = (list(map(tf.convert_to_tensor, tf.nest.flatten(part))) for part in (before, after))
    if len(old) != len(new) or not all(
        a.dtype == b.dtype and a.shape.is_compatible_with(b.shape) for a, b in zip(old, new, strict=True)
    ):
        was, became = (", ".join(map(_typed, tensors)) or "nothing" for tensors in (old, new))
        raise errors.UserError(f"{maker} gives {became} as {what}; {was}, as before, is expected.")


def _typed(tensor: tf.Tensor) -> str:
    """The type and shape of a tensor, in words."""
    return f"{tensor.dtype.name}{'[?]' if tensor.shape.rank is None else [*tensor.shape]}"


def all_finite(structure: Any) -> tf.Tensor:
    """Whether all real numbers in a structure are finite: a bool scalar."""
    numbers = (tensor for tensor in map(tf.convert_to_tensor, tf.nest.flatten(structure)) if tensor.dtype.is_floating)
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(tensor)) for tensor in numbers])


def zero_unless(condition: tf.Tensor, structure: Any) -> Any:
    """The structure itself, or zeros in its place if the condition does not hold."""
    if not tf.nest.flatten(structure):
        return structure
    # Not tf.where: usually the tensors, each of the model's size, pass through unchanged.
    return tf.cond(condition, lambda: structure, lambda: tf.nest.map_structure(tf.zeros_like, structure))


def where(condition: tf.Tensor, new: Any, old: Any) -> Any:
    """`tf.where` of two structures, in the form of the second one."""
    chosen = [tf.where(condition, *pair) for pair in zip(tf.nest.flatten(new), tf.nest.flatten(old), strict=True)]
    return tf.nest.pack_sequence_as(old, chosen)
