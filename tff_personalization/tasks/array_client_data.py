"""A by-writer archive as TFF `ClientData`: one train and one test part for each client."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization.tasks import client_data


class ArrayClientData(tff.simulation.datasets.ClientData):
    """One part (train or test) of every client's data, as TFF `ClientData` over contiguous arrays.

    `examples` gives a client's arrays without a copy and without a `tf.data` graph: what a simulation of
    many rounds should use.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, bounds: dict[str, tuple[int, int]]):
        """See the class.

        Args:
            images: uint8, shape (N, 28, 28).
            labels: int32, shape (N,).
            bounds: where each client's examples begin and end.
        """
        self._images = images
        self._labels = labels
        self._bounds = bounds

    @property
    def client_ids(self) -> list[str]:
        return list(self._bounds)

    def examples(self, client_id: str) -> tuple[np.ndarray, np.ndarray]:
        """A client's images, uint8 (n, 28, 28), and labels, int32 (n,): views, not copies. KeyError if unknown."""
        start, stop = self._bounds[client_id]
        return self._images[start:stop], self._labels[start:stop]

    def num_examples(self, client_id: str) -> int:
        start, stop = self._bounds[client_id]
        return stop - start

    @property
    def element_type_structure(self) -> tuple[tf.TensorSpec, tf.TensorSpec]:
        return tf.TensorSpec(client_data.IMAGE_SHAPE, tf.uint8), tf.TensorSpec([], tf.int32)

    @property
    def serializable_dataset_fn(self):
        ids = tf.constant(list(self._bounds))
        bounds = tf.constant(list(self._bounds.values()), tf.int64)

        def dataset_of(client_id):
            start, stop = tf.unstack(bounds[tf.argmax(tf.equal(ids, client_id))])
            parts = (tf.convert_to_tensor(part)[start:stop] for part in (self._images, self._labels))
            return tf.data.Dataset.from_tensor_slices(tuple(parts))

        return dataset_of

    def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
        if client_id not in self._bounds:
            raise ValueError(f"{client_id!r} is not a client: see client_ids")
        return tf.data.Dataset.from_tensor_slices(self.examples(client_id))


def to_client_data(archive: client_data.WriterArchive) -> tuple[ArrayClientData, ArrayClientData]:
    """The train and the test part of every writer of an archive; client ids are the writers' names, sorted."""
    writers = [str(writer) for writer in np.unique(archive.writer)]
    parts = []
    for is_test in (False, True):
        members = np.flatnonzero(archive.is_test == is_test)
        members = members[np.argsort(archive.writer[members], kind="stable")]
        counts = dict.fromkeys(writers, 0)
        names, sizes = np.unique(archive.writer[members], return_counts=True)
        counts.update(zip((str(name) for name in names), sizes.tolist(), strict=True))
        stops = np.cumsum(list(counts.values())).tolist()
        bounds = {name: (stop - counts[name], stop) for name, stop in zip(counts, stops, strict=True)}
        parts.append(ArrayClientData(archive.images[members], archive.labels[members].astype(np.int32), bounds))
    return parts[0], parts[1]
