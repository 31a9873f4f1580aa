"""Runs that are stopped."""

import contextlib
from unittest import mock

import pytest


@pytest.fixture
def stopped_after():
    """A context in which a run is stopped after a number of rounds, as by Ctrl-C."""
    from tff_personalization.programs import rounds

    @contextlib.contextmanager
    def stopped_after(count):
        train = rounds.train

        def stops(program, state):
            if state.round_number == count:
                raise KeyboardInterrupt
            return train(program, state)

        with mock.patch.object(rounds, "train", stops), pytest.raises(KeyboardInterrupt):
            yield

    return stopped_after
