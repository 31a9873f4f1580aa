"""Shares that are trained with weights or instead of them, and stay within [0, 1]."""

from typing import Any

import tensorflow as tf

from tff_personalization import local_training


class WithShares(local_training.LocalTraining):
    """Local training of which some weights are shares, projected onto an interval after each step."""

    def __init__(self, *arguments: Any, shares: slice, bounds: tuple[float, float] = (0.0, 1.0), **named: Any):
        """See the class.

        Args:
            arguments: as in `LocalTraining`.
            shares: which weights are shares.
            bounds: the interval; equal bounds fix the shares, also under weight decay.
            named: as in `LocalTraining`.
        """
        super().__init__(*arguments, **named)
        self._shares = shares
        self._bounds = bounds

    def step(
        self,
        state: local_training.LocalState,
        batch: local_training.Examples,
        dropout_seed: tf.Tensor,
        adjust: local_training.AdjustFn | None = None,
    ) -> local_training.LocalState:
        """Takes one step on a batch."""
        state = super().step(state, batch, dropout_seed, adjust)
        weights = list(state.weights)
        weights[self._shares] = [tf.clip_by_value(share, *self._bounds) for share in weights[self._shares]]
        return state._replace(weights=tuple(weights))


def mixture(local: tuple[Any, ...], other: tuple[Any, ...], share: Any) -> tuple[Any, ...]:
    """α v + (1 − α) w of the weights v and w, as w + α (v − w): exactly w where v is w.

    Args:
        local: v.
        other: w.
        share: α, one number or one for each weight, of the structure of the weights.
    """
    shares = share if isinstance(share, tuple | list) else [share] * len(other)
    return tuple(w + alpha * (v - w) for v, w, alpha in zip(local, other, shares, strict=True))
