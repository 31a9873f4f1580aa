"""Your own client data as archives, and a task's requirements."""

import collections
import dataclasses

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors
from tff_personalization.models import named_inputs, outputs
from tff_personalization.tasks import archives, conversions, registry, sources

L = tf.keras.layers
TABLE = pd.DataFrame(
    {
        "phone": ["b", "a", "b", "a"],
        "speed": [1.0, 2.0, 3.0, 4.0],
        "step": [10, 20, 30, 40],
        "mood": ["calm", "loud", "loud", "calm"],
        "up": [1, 0, 1, 1],
        "part": ["train", "train", "test", "test"],
    }
)
FRAME = {"client": "phone", "features": ["speed", "step"], "labels": "mood", "split": "part", "source": "phones"}


def test_a_table_becomes_clients_with_features_classes_and_parts():
    archive = conversions.from_frame(TABLE, **FRAME)
    assert archive.clients == ("a", "b")
    assert archive.client.tolist() == TABLE["phone"].tolist()
    assert archive.x.tolist() == [[1, 10], [2, 20], [3, 30], [4, 40]]
    assert archive.classes == ("calm", "loud")
    assert archive.y.tolist() == [0, 1, 1, 0]
    assert archive.is_test.tolist() == [False, False, True, True]


def test_columns_of_labels_and_named_inputs():
    features = {"small": ["speed"], "large": ["step"]}
    archive = conversions.from_frame(
        TABLE.assign(loud=TABLE["mood"] == "loud"), **FRAME | {"features": features, "labels": ["up", "loud"]}
    )
    assert archive.y.tolist() == [[1, 0], [0, 1], [1, 1], [1, 0]]
    inputs = {"small": tf.TensorSpec([1]), "large": tf.TensorSpec([1], tf.int32)}
    unpacked = named_inputs.unpack(tf.constant(archive.x), inputs)
    assert unpacked["small"].numpy().ravel().tolist() == TABLE["speed"].tolist()
    assert unpacked["large"].numpy().ravel().tolist() == TABLE["step"].tolist()
    assert unpacked["large"].dtype == tf.int32


def test_columns_of_real_numbers():
    archive = conversions.from_frame(TABLE, **FRAME | {"labels": ["speed"], "features": ["step"], "real_numbers": True})
    assert (archive.y.dtype, archive.y.ravel().tolist()) == (np.float32, TABLE["speed"].tolist())
    with pytest.raises(ValueError, match="y: finite numbers expected"):
        dataclasses.replace(archive, y=np.full_like(archive.y, np.inf))


def test_an_integer_that_named_inputs_would_round_is_refused():
    for array in (np.array([[2**24 + 1]]), np.array([[2**64 - 1]], np.uint64), np.array([[-(2**63)]])):
        with pytest.raises(errors.UserError, match=r"ids: integers up to 16777216 expected.*: number ids from 0"):
            named_inputs.pack({"ids": array})


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"client": "person"}, "no column 'person'; it has phone"),
        ({"labels": ["speed"]}, "values other than 0 and 1"),
        ({"labels": ["half"]}, "values other than 0 and 1"),
        ({"split": "mood"}, "the part of a row is 'calm'"),
        ({"classes": ["calm"]}, "'mood' has 'loud'"),
        ({"labels": "up", "classes": [1]}, "'up' has 0, which is none"),
        ({"features": ["speed", "mood"]}, "'mood' has values that are not numbers .*'calm'"),
        ({"labels": ["mood"]}, "'mood' has values that are not numbers"),
        ({"labels": "mood", "real_numbers": True}, "'mood' has values that are not numbers"),
        ({"features": "hole"}, "'hole' has 1 missing"),
        ({"features": ["speed", "when"]}, r"'when' has values that are not numbers \(datetime64\[ns\]\)"),
        ({"features": "since"}, r"'since' has values that are not numbers \(timedelta64\[ns\]\)"),
        ({"labels": ["when"], "real_numbers": True}, "'when' has values that are not numbers"),
        ({"features": ["id"]}, "the column 'id': integers up to 16777216 expected, got 0 to 16777217"),
        ({"features": {"a": ["id"]}}, "the column 'id': integers up to 16777216 expected"),
        ({"client": "twice"}, "the table has several columns 'twice': rename or drop all but one"),
        ({"features": ["speed", "twice"]}, "the table has several columns 'twice'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(changes, hint):
    when = pd.to_datetime(["2020-01-01"] * 4)
    table = TABLE.assign(half=[0, 0.5, 1, 1], hole=[1, None, 1, 1], when=when, since=when - when, id=[0, 2**24 + 1] * 2)
    table = pd.concat([table, table[["step", "step"]].set_axis(["twice"] * 2, axis=1)], axis=1)
    with pytest.raises(errors.UserError, match=hint):
        conversions.from_frame(table, **FRAME | changes)


@pytest.mark.parametrize("dtype", ["category", "string"])
def test_classes_may_be_a_column_of_pandas_own_types(dtype):
    archive = conversions.from_frame(TABLE.astype({"mood": dtype}), **FRAME)
    assert (archive.classes, archive.y.tolist()) == (("calm", "loud"), [0, 1, 1, 0])


def test_one_feature_may_be_given_without_a_list():
    assert conversions.from_frame(TABLE, **FRAME | {"features": "speed"}).x.tolist() == [[1], [2], [3], [4]]


def test_a_table_without_a_header_has_numbers_as_names_of_columns():
    columns = ["phone", "speed", "step", "mood", "up", "part"]
    table = TABLE[columns].set_axis(range(6), axis=1)
    archive = conversions.from_frame(table, client=0, features=[1, 2], labels=3, split=5, source="phones")
    expected = conversions.from_frame(TABLE, **FRAME)
    np.testing.assert_array_equal(archive.x, expected.x)
    np.testing.assert_array_equal(archive.y, expected.y)
    assert archive.classes == expected.classes
    assert conversions.from_frame(table, client=0, features=1, labels=[4], source="phones").classes == ("4",)
    with pytest.raises(errors.UserError, match="no column 7; it has 0, 1, 2"):
        conversions.from_frame(table, client=7, features=1, labels=3, source="phones")


def test_classes_may_have_numbers_as_names():
    archive = conversions.from_arrays(np.zeros([2, 1]), np.arange(2), np.arange(2), np.arange(2), "numbers")
    assert archive.classes == ("0", "1")
    assert outputs.classes(np.arange(2)).names == ("0", "1")


ARRAYS = {"x": np.zeros((4, 1)), "y": [0, 1, 1, 0], "client": [*"abab"], "classes": ["calm", "loud"], "source": ""}


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"client": [*"aba"]}, "client has 3 entries and y has 4"),
        ({"x": np.zeros((5, 1))}, "x has 5 entries and y has 4"),
        ({"client": [None, "a", np.nan, "b"]}, "client has 2 missing values"),
        ({"classes": ["yes"]}, r"y goes from 0 to 1: indices into the 1 classes.*y of shape \(N, 1\)"),
        ({"y": [0, 1, 2, 0]}, "y goes from 0 to 2: indices into the 2 classes are expected.$"),
        ({"y": [0, 1, np.inf, 0]}, "y has values that are not finite"),
        ({"y": [0, 1, 1e300, 0]}, "y has values that are not finite as float32"),
        ({"client": [("a", "b")] * 4}, r"client has shape \(4, 2\): give one value for each example"),
        ({"x": {}}, "x has no input: give at least one array"),
        ({"classes": ["calm", "calm"]}, "classes: calm, calm: give different names"),
        ({"classes": []}, "classes: none"),
        ({"is_test": ["train", "test"] * 2}, "is_test has values such as .*'train'"),
        ({"y": [*"baab"]}, "y has values such as 'b': give numbers"),
        ({"y": np.array([*"baab"], object)}, "y has values such as 'b': give numbers"),
        ({"x": {"a": np.zeros((4, 1)), "b": np.zeros(5)}}, r"x\['b'\] has 5 entries and y has 4"),
        ({"x": {"a": np.zeros((4, 1)), "b": [*"abab"]}}, r"x\['b'\] has values such as 'a': give numbers"),
        ({"x": {"a": [[1, 2], [3], [4], [5]]}}, r"x\['a'\] is not an array"),
        ({"client": "a"}, "client has 1 entries and y has 4"),
        ({"client": [b"\xff"] * 4}, r"client: the client b'\\xff' has a name that is not UTF-8: decode it"),
        ({"client": [1e17, 1e17 + 16, 1e17, 1e17]}, r"client: client '1.000000e\+17' is a rounded number"),
        *[
            ({name: np.ma.masked_array(ARRAYS[name], [True, False, False, False])}, f"{name} has masked values: fill")
            for name in ("x", "y", "client")
        ],
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_the_name_of_the_argument(changes, hint):
    conversions.from_arrays(**ARRAYS)
    with pytest.raises(errors.UserError, match=hint):
        conversions.from_arrays(**ARRAYS | changes)


def test_one_column_of_labels_that_apply_or_not():
    archive = conversions.from_frame(TABLE, **FRAME | {"labels": ["up"]})
    assert (archive.classes, archive.y.tolist()) == (("up",), [[1], [0], [1], [1]])
    dataclasses.replace(TASK, predicts=outputs.several_labels(["up"])).check(archive)


@pytest.mark.parametrize("dtype", [None, object])
def test_names_of_clients_as_bytes_are_decoded(dtype):
    names = np.array([name.encode() for name in ("Zoë", "a", "Zoë", "a")], dtype)
    assert conversions.from_arrays(**ARRAYS | {"client": names}).clients == ("Zoë", "a")


def test_clients_whose_numbers_pandas_made_floats_have_the_names_of_the_integers():
    assert conversions.from_arrays(**ARRAYS | {"client": [1.0, 2.5, 1.0, 12.0]}).clients == ("1", "12", "2.5")


def test_client_data_of_tff_becomes_an_archive_with_both_parts():
    train, test = (
        tff.simulation.datasets.TestClientData(
            {
                name: collections.OrderedDict(pixels=np.full([n, 2], n, np.float32), label=np.full([n], n))
                for name, n in counts
            }
        )
        for counts in ([("a", 3), ("b", 2)], [("a", 1)])
    )
    archive = conversions.from_client_data(train, test, lambda e: (e["pixels"], e["label"]), "0123", "toys")
    assert archive.client.tolist() == ["a", "a", "a", "b", "b", "a"]
    assert archive.is_test.tolist() == [False] * 5 + [True]
    assert archive.y.tolist() == [3, 3, 3, 2, 2, 1]
    assert archive.x[:, 0].tolist() == archive.y.tolist()


TASK = registry.Task(
    outputs.classes(("calm", "loud")), tf.TensorSpec([2]), {}, sources.own(phones=lambda options: None)
)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"x": np.zeros((4, 3), np.float32)}, r"features of float32 and shape \(N, 3\).*\(N, 2\)"),
        ({"x": np.zeros((4, 2), np.uint8)}, "features of uint8"),
        ({"y": np.zeros((4, 2), np.int32)}, "one class for each example"),
        ({"classes": ("calm", "loud", "shrill")}, "3 classes.*2"),
        ({"classes": ("loud", "calm")}, "class 0 is 'loud' in the client data and 'calm' in the task"),
        ({"x": np.full((4, 2), np.nan, np.float32)}, "NaN or infinite"),
        ({"x": np.full((4, 2), -np.inf, np.float32)}, "NaN or infinite"),
    ],
)
def test_client_data_that_is_not_what_the_task_says_is_refused(changes, hint):
    archive = conversions.from_frame(TABLE, **FRAME)
    TASK.check(archive)
    with pytest.raises(errors.UserError, match=hint):
        TASK.check(dataclasses.replace(archive, **changes))


def test_several_labels_other_than_0_and_1_are_refused():
    task = dataclasses.replace(TASK, predicts=outputs.several_labels("abc"))
    archive = conversions.from_arrays(np.zeros((4, 2), np.float32), [[0, 1, 2]] * 4, [*"abab"], "abc", "")
    with pytest.raises(errors.UserError, match="labels up to 2, and the task expects 0 and 1"):
        task.check(archive)


@pytest.mark.parametrize("features", [{"fast": 1, "far": 1}, {"speed": 2, "step": 1}], ids=["names", "sizes"])
def test_named_inputs_of_other_names_or_sizes_are_refused(features):
    x = {name: np.zeros((4, size), np.float32) for name, size in features.items()}
    archive = conversions.from_arrays(x, np.zeros(4, int), [*"abab"], ("calm", "loud"), "")
    specs = {"speed": tf.TensorSpec([]), "step": tf.TensorSpec([sum(features.values()) - 1])}
    dataclasses.replace(TASK, features={name: tf.TensorSpec([size]) for name, size in features.items()}).check(archive)
    said = ", ".join(f"{name} of {features[name]}" for name in sorted(features))
    with pytest.raises(errors.UserError, match=f"the inputs {said} numbers, and the task speed of 1"):
        dataclasses.replace(TASK, features=specs).check(archive)


def _load(archive, num_classes):
    options = sources.SourceOptions("mine", num_classes, 0, "")
    return sources.load(options, sources.own(mine=lambda options: archive))


def test_classes_that_the_task_lacks_are_refused_by_its_check():
    for labels in (FRAME["labels"], ["up"]):
        archive = conversions.from_frame(TABLE, **FRAME | {"labels": labels})
        archive = dataclasses.replace(archive, classes=(*archive.classes, "x"))
        assert len(_load(archive, 1).y) == 4


def test_a_source_that_returns_something_other_than_an_archive_is_refused():
    with pytest.raises(errors.UserError, match="--client_data=mine: its source gives nothing; an Archive is"):
        _load(None, 2)


@pytest.mark.parametrize(
    ("client", "said"), [(["a\r", "b"], r": client 'a\\r': its name has a carriage"), ([], " has no example")]
)
def test_clients_that_records_cannot_hold_and_no_clients_are_refused(client, said):
    labels = np.zeros(len(client), int)
    archive = conversions.from_arrays(np.zeros((len(client), 1)), labels, client, ["one"], "")
    with pytest.raises(errors.UserError, match=f"--client_data=mine{said}"):
        _load(archive, 1)


def test_clients_that_are_chosen_are_read_once_and_must_be_there():
    examples = {"x": np.zeros((2, 2), np.float32), "y": np.zeros(2, np.int32)}
    data = tff.simulation.datasets.TestClientData({"a": examples})
    arguments = (data, None, lambda e: (e["x"], e["y"]), "0", "toys")
    assert len(conversions.from_client_data(*arguments, clients=["a", "a"]).y) == 2
    with pytest.raises(errors.UserError, match="toys: 'b' is not one of its clients"):
        conversions.from_client_data(*arguments, clients=["a", "b"])


@pytest.mark.parametrize(
    ("output", "predicts"),
    [
        ([L.Dense(3)], outputs.classes("ab")),
        ([L.Dense(1)], outputs.real_numbers("ab", within=1)),
        ([L.Dense(1), L.Reshape([])], outputs.real_numbers("a", within=1)),
        ([L.Dense(2)], outputs.classes_by_place("ab", 4)),
    ],
    ids=["more", "fewer", "squeezed", "no places"],
)
def test_a_network_with_another_output_than_the_task_is_refused(output, predicts):
    network = tf.keras.Sequential([tf.keras.Input([2]), *output])
    task = dataclasses.replace(TASK, predicts=predicts, models={"mine": lambda num_classes, rng: network})
    with pytest.raises(errors.UserError, match=r"--model=mine: its output has the shape .* for an example, and .*task"):
        task.build("mine", np.random.default_rng(0))


@pytest.mark.parametrize(
    "features",
    [tf.TensorSpec([3]), tf.TensorSpec([2, 2]), {"mine": tf.TensorSpec([3])}, {"mine": tf.TensorSpec([])}],
    ids=["more", "another rank", "of one name", "a name's rank"],
)
def test_a_network_with_another_input_than_the_features_is_refused(features):
    network = tf.keras.Sequential([tf.keras.Input([2], name="mine"), L.Dense(2)])
    task = dataclasses.replace(TASK, features=features, models={"mine": lambda num_classes, rng: network})
    with pytest.raises(errors.UserError, match=r"its input 'mine' has the shape \(2,\) .* features have .*: give both"):
        task.build("mine", np.random.default_rng(0))


def test_a_functional_model_of_tffs_is_a_network(worker):
    weights = (np.ones([2, 2], np.float32), np.zeros(2, np.float32))

    def predict(model_weights, x, training):
        del training
        return x @ model_weights[0][0] + model_weights[0][1]

    model = tff.learning.models.FunctionalModel(
        initial_weights=(weights, ()),
        predict_on_batch_fn=tf.function(predict),
        loss_fn=lambda output, label, sample_weight=None: 2.0 * tf.reduce_mean(output**2),
        input_spec=(tf.TensorSpec([None, 2]), tf.TensorSpec([None], tf.int32)),
    )
    task = dataclasses.replace(TASK, models={"mine": lambda num_classes, rng: model})
    network = task.build("mine", np.random.default_rng(0))
    logits = network.logits(weights, tf.constant([[1.0, 2]]), None)
    assert logits.numpy().tolist() == [[3, 3]]
    assert float(network.scoring.loss(logits, tf.constant([0]))) == 18  # its own loss
    assert int(network.scoring.score(logits, tf.constant([0]))) == 1
    assert network.head == slice(0, None)


def test_something_other_than_a_network_is_refused():
    task = dataclasses.replace(TASK, models={"mine": lambda num_classes, rng: "a network"})
    with pytest.raises(errors.UserError, match="--model=mine: it is built as a str"):
        task.build("mine", np.random.default_rng(0))


def test_the_numbers_of_an_archive_are_checked_where_they_are_classes():
    with pytest.raises(ValueError, match="y: 0 to 1 expected"):
        archives.Archive.from_names(np.zeros((1, 2)), np.array([2]), np.array(["a"]), np.array([False]), ("a", "b"), "")
