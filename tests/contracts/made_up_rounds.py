"""Rounds of a method's process with clients that are made up."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import cohorts
from tff_personalization.algorithms import stateful_clients

SEED = np.array([3, 4], np.int32)


class Round:
    """A round of one stage, from the process's first state or from other weights."""

    def __init__(self, process):
        self.process = process
        self.start = self.after = process.initialize()
        if isinstance(process, stateful_clients.StatefulProcess):
            self.kept = tf.nest.map_structure(
                lambda part: (part + np.float32(0.25)).astype(part.dtype), process.client_state
            )

    def weights_of(self, state):
        return list(self.process.get_model_weights(state).trainable)

    def with_weights(self, weights):
        """The first state with other global weights."""
        return self.process.set_model_weights(self.start, tff.learning.models.ModelWeights(tuple(weights), ()))

    def __call__(self, clients, state=None):
        """The global weights and the metrics after a round, and what clients keep."""
        values = [cohorts.client_value(*client, SEED, step_share=share) for client, share in clients]
        arguments = [self.start if state is None else state, values]
        if isinstance(self.process, stateful_clients.StatefulProcess):
            output = self.process.next(*arguments, [self.kept] * len(values))
            self.after = output.state
            return self.weights_of(output.state), output.metrics["client_work"], output.client_states
        output = self.process.next(*arguments)
        self.after = output.state
        return self.weights_of(output.state), output.metrics["client_work"], []


def client(count, brightness=255, share=1.0):
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 28, 28)) * (brightness > 0)
    return (images.astype(np.uint8), rng.integers(0, 5, count).astype(np.int32)), share
