"""An archive as TFF `ClientData`: one train and one test part for each client."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization.tasks import archives

# A serialized graph can have at most 2 GiB, and the examples are only a part of it.
_MAX_GRAPH_BYTES = 2**31 - 2**27
_NO_CLIENT = "is not a client: see client_ids"


class ClientArrays(tff.simulation.datasets.ClientData):
    """One part (train or test) of every client's data, as TFF `ClientData` over contiguous arrays.

    `examples` gives a client's arrays without a copy and without a `tf.data` graph. Use it in simulations of many
    rounds.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, bounds: dict[str, tuple[int, int]]):
        """See the class.

        Args:
            x: shape (N, …), such as images.
            y: int32 or float32, shape (N, …), such as their labels.
            bounds: the first and the last index (exclusive) of each client's examples.
        """
        self._x = x
        self._y = y
        self._bounds = bounds

    @property
    def client_ids(self) -> list[str]:
        return list(self._bounds)

    def examples(self, client_id: str) -> tuple[np.ndarray, np.ndarray]:
        """A client's x and y, shape (n, …): views, not copies. KeyError if unknown."""
        start, stop = self._bounds[client_id]
        return self._x[start:stop], self._y[start:stop]

    def num_examples(self, client_id: str) -> int:
        start, stop = self._bounds[client_id]
        return stop - start

    @property
    def element_type_structure(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        x, y = (tf.TensorSpec(part.shape[1:], part.dtype) for part in (self._x, self._y))
        return x, y

    @property
    def serializable_dataset_fn(self) -> Callable[[tf.Tensor], tf.data.Dataset]:
        """TFF's function from a client id to its dataset. Its graph holds all examples as constants.

        The dataset of an unknown client is an InvalidArgumentError of TensorFlow.

        Raises:
            ValueError: the examples are too large for a graph.
        """
        if self._x.nbytes + self._y.nbytes > _MAX_GRAPH_BYTES:
            raise ValueError(
                f"{self._x.nbytes / 2**30:.1f} GiB of examples cannot be constants of a TensorFlow graph, which "
                "holds less than 2 GiB: use examples() or create_tf_dataset_for_client()"
            )
        ids = tf.constant(list(self._bounds))
        bounds = tf.constant(list(self._bounds.values()), tf.int64)

        def dataset_of(client_id: tf.Tensor) -> tf.data.Dataset:
            found = tf.equal(ids, client_id)
            refusal = tf.strings.join([client_id, f" {_NO_CLIENT}"])
            with tf.control_dependencies([tf.debugging.Assert(tf.reduce_any(found), [refusal])]):
                start, stop = tf.unstack(bounds[tf.argmax(found)])
            parts = (tf.convert_to_tensor(part)[start:stop] for part in (self._x, self._y))
            return tf.data.Dataset.from_tensor_slices(tuple(parts))

        return dataset_of

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        if client_id not in self._bounds:
            raise ValueError(f"{client_id!r} {_NO_CLIENT}")
        return tf.data.Dataset.from_tensor_slices(self.examples(client_id))


def to_client_data(archive: archives.Archive) -> tuple[ClientArrays, ClientArrays]:
    """The train and the test part of every client that has an example; client ids are their names, sorted.

    An archive in the order of `Archive.from_counts` is not copied.
    """
    counts = archive.counts
    place = archive.is_test * np.int64(len(archive.clients)) + archive.client_index
    x, y = archive.x, archive.y.astype(np.float32 if archive.y.dtype.kind == "f" else np.int32, copy=False)
    if (place[1:] < place[:-1]).any():
        order = np.argsort(place, kind="stable")
        x, y = x[order], y[order]
    present = np.flatnonzero(counts.any(axis=0)).tolist()
    parts, start = [], 0
    for part_counts in counts:
        part = slice(start, start := start + int(part_counts.sum()))
        stops = np.cumsum(part_counts)
        starts = (stops - part_counts).tolist()
        bounds = {
            archive.clients[i]: (starts[i], stop) for i, stop in zip(present, stops[present].tolist(), strict=True)
        }
        parts.append(ClientArrays(x[part], y[part], bounds))
    return parts[0], parts[1]
