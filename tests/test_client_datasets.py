"""Learning processes and the evaluation as parts of TFF: its loops, its programs, its client data, its processes."""

import asyncio
import collections
import copy
import functools
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tests.setups import setup, sgd
from tff_personalization import client_datasets, cohorts, errors, seeds
from tff_personalization.algorithms import fed_avg, reptile
from tff_personalization.models import emnist_cnn, functional, keras_network

CLIENTS = {"ada": 7, "bob": 5, "cyd": 6}
GUIDE = (pathlib.Path(__file__).parents[1] / "docs" / "your-own.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _event_loop():
    """TFF's loop asks for one, as a fresh program has it; `asyncio.run` in an earlier test has left none."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


@pytest.fixture(scope="module")
def model():
    layers = tf.keras.layers
    keras = tf.keras.Sequential([tf.keras.Input([4]), layers.Dense(5, "tanh"), layers.Dense(3, "softmax")])
    return keras_network.from_keras(
        keras, functional.ONE_PREDICTION, x_spec=tf.TensorSpec([None, 4]), rng=np.random.default_rng(0)
    )


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    arrays = {
        name: collections.OrderedDict(x=rng.normal(size=(n, 4)).astype(np.float32), y=rng.integers(0, 3, n))
        for name, n in CLIENTS.items()
    }
    return tff.simulation.datasets.TestClientData(arrays)


@pytest.fixture
def tff_context():
    """TFF's own execution context, as its programs require."""
    context = tff.backends.native.create_async_local_cpp_execution_context()
    with tff.framework.get_context_stack().install(tff.program.NativeFederatedContext(context)):
        yield


def _processes(model):
    return {
        "fed_avg": fed_avg.build_fed_avg(setup(fed_avg, model, local_epochs=2, batch_size=3)),
        "reptile": reptile.build_reptile(setup(reptile, model, local_steps=3, batch_size=3, shuffle=True)),
    }


def _of_tff(model):
    return tff.learning.algorithms.build_weighted_fed_avg(model, sgd().build(), sgd(1.0).build())


def _cohort(model, data, round_number):
    return [
        client_datasets.for_training(model, data.create_tf_dataset_for_client(name), name, round_number)
        for name in CLIENTS
    ]


def _batches(data):
    """The input of TFF's own process: two epochs of batches, in the order of the examples."""
    whole = (next(iter(data.create_tf_dataset_for_client(name).batch(100))) for name in CLIENTS)
    return [tf.data.Dataset.from_tensor_slices((e["x"], tf.cast(e["y"], tf.int32))).batch(3).repeat(2) for e in whole]


class _Source(tff.program.FederatedDataSource, tff.program.FederatedDataSourceIterator):
    """Cohorts by round. TFF's programs copy an iterator, which its own, of datasets, cannot be."""

    def __init__(self, cohort, type_):
        self._cohort, self._type, self._round = cohort, type_, 0

    federated_type = property(lambda self: self._type)

    def iterator(self):
        return self

    def select(self, k=None):
        self._round += 1
        return self._cohort(self._round)[:k]

    def __deepcopy__(self, memo):
        return copy.copy(self)

    def to_bytes(self):
        return str(self._round).encode()

    @classmethod
    def from_bytes(cls, data):
        raise AssertionError(f"round {data} is not resumed here")


def test_numbers_that_the_networks_type_would_change_are_refused():
    network = emnist_cnn.build_linear(10, np.random.default_rng(0))
    pixels = np.linspace(0, 1, 784, dtype=np.float32).reshape(1, 28, 28)
    for x, y in ((pixels, [3]), (pixels.round(), [2**32 + 3])):
        with pytest.raises(errors.UserError, match=r"the network takes (uint8|int32), and the dataset has"):
            client_datasets.for_training(network, tf.data.Dataset.from_tensor_slices((x, y)))
    whole = client_datasets.for_evaluation(network, *[tf.data.Dataset.from_tensor_slices((pixels.round(), [3]))] * 2)
    assert whole["test"][0].dtype == np.uint8


def test_tffs_training_loop_runs_them_and_its_own_and_fed_avg_is_the_same(worker, model, data):
    found = {}
    for name, process in _processes(model).items():
        state = tff.simulation.run_training_process(
            process, lambda number: _cohort(model, data, number), total_rounds=2
        )
        found[name] = process.get_model_weights(state).trainable
    process = _of_tff(model)
    state = tff.simulation.run_training_process(process, lambda number: _batches(data), total_rounds=2)
    for ours, theirs, before in zip(
        found["fed_avg"], process.get_model_weights(state).trainable, model.initial_weights[0], strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        assert np.abs(ours - before).max() > 0.01
    assert any((a != b).any() for a, b in zip(found["reptile"], model.initial_weights[0], strict=True))


def test_tffs_training_program_runs_them_and_its_own(tff_context, model, data, tmp_path):
    ends = {}
    for name, process in {**_processes(model), "tff": _of_tff(model)}.items():
        output = tff.program.MemoryReleaseManager()
        own = functools.partial(_cohort, model, data) if name != "tff" else lambda number: _batches(data)
        asyncio.run(
            tff.learning.programs.train_model(
                train_process=process,
                train_data_source=_Source(own, process.next.type_signature.parameter[1]),
                train_per_round_clients=len(CLIENTS),
                train_total_rounds=2,
                program_state_manager=tff.program.FileProgramStateManager(str(tmp_path / name)),
                model_output_manager=output,
                evaluation_manager=None,
                evaluation_periodicity=1,
            )
        )
        (ends[name],) = (value for value in output.values().values())
    for ours, theirs in zip(*(ends[name].global_model_weights.trainable for name in ("fed_avg", "tff")), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_any_client_data_of_tffs_gives_what_the_programs_own_rounds_give(model, data, tmp_path):
    dataset_of = data.create_tf_dataset_for_client
    tff.simulation.datasets.save_to_sql_client_data(list(CLIENTS), dataset_of, str(tmp_path / "x.sqlite"))
    for name in CLIENTS:
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            for example in dataset_of(name):
                x, y = tf.train.FloatList(value=example["x"].numpy()), tf.train.Int64List(value=[example["y"].numpy()])
                features = {"x": tf.train.Feature(float_list=x), "y": tf.train.Feature(int64_list=y)}
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())

    def parse(dataset):
        features = {"x": tf.io.FixedLenFeature([4], tf.float32), "y": tf.io.FixedLenFeature([], tf.int64)}
        return dataset.map(lambda example: tf.io.parse_single_example(example, features))

    several = {
        "TestClientData": data,
        "SqlClientData": tff.simulation.datasets.SqlClientData(str(tmp_path / "x.sqlite")).preprocess(parse),
        "FilePerUserClientData": tff.simulation.datasets.FilePerUserClientData(
            {name: str(tmp_path / name) for name in CLIENTS}, lambda path: parse(tf.data.TFRecordDataset(path))
        ),
    }
    whole = next(iter(dataset_of("bob").batch(100)))
    seed = seeds.stateless(5, "local_training", 2, "bob")
    expected = next(iter(cohorts.client_value(whole["x"].numpy(), whole["y"].numpy().astype(np.int32), seed, 2)))
    for client_data in several.values():
        dataset = client_data.create_tf_dataset_for_client("bob")
        (found,) = client_datasets.for_training(model, dataset, "bob", 2, seed=5)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value)


def test_the_guides_ten_lines_judge_a_process_of_tffs(worker, data):
    (lines,) = re.findall(r"<!-- evaluation -->\n```python\n(.*?)```", GUIDE, re.DOTALL)
    layers = tf.keras.layers
    keras = tf.keras.Sequential([tf.keras.Input([4]), layers.Dense(5, "tanh"), layers.Dense(3)])
    names = {"keras_model": keras, "train_data": data, "test_data": data}
    exec(compile(lines, "your-own.md", "exec"), names)  # noqa: S102  # the project's own page
    table = names["table"]
    assert sorted(table["client"].unique()) == list(CLIENTS)
    means = table.groupby("epoch")["loss"].mean()
    assert means[5] < means[0]  # evaluated on the examples that it is adapted to
    assert len([line for line in lines.splitlines() if line.strip() and not line.startswith(("import", "from"))]) <= 20
