"""The TensorFlow contenders do the stated work: small rounds of each, with the same network."""

import numpy as np
import pytest

from benchmarks import bounds, contenders, stock, tasks, workload

TINY = workload.Workload(clients=2, examples=40, local_epochs=3)


def test_visits_of_a_round_by_hand():
    counted = {task: tasks.visits(task, TINY) for task in ("training", "reptile", "fed_sgd", "evaluation")}
    assert counted == {"training": 2 * 40 * 3, "reptile": 2 * 10 * 20, "fed_sgd": 2 * 40, "evaluation": 2}


@pytest.mark.parametrize(("task", "steps"), [("training", 2 * 3 * 2), ("reptile", 2 * 10), ("fed_sgd", 2)])
def test_ours_and_the_stock_recipe_visit_as_many_examples_in_as_many_steps(worker, task, steps):
    ours = contenders.build_ours(task, TINY)().metrics["client_work"]
    theirs = stock.build_stock(task, TINY)().metrics["client_work"]["train"]
    assert ours["examples"] == theirs["num_examples"] == tasks.visits(task, TINY)
    # Ours does not count steps, so they are computed: examples divided by the step's size.
    assert theirs["num_batches"] == steps == ours["examples"] // (40 if task == "fed_sgd" else 20)
    # With random labels of 62 classes and few steps, losses stay near that of guessing.
    for loss in (ours["train_loss"], theirs["loss"]):
        assert loss == pytest.approx(np.log(62), abs=0.3)


def test_the_keras_twin_trains_the_weights_of_the_built_in_network(worker):
    ours, keras = (contenders.BUILDERS[name]("training", TINY)() for name in ("ours", "keras"))
    of_state = [round_.state.global_model_weights.trainable for round_ in (ours, keras)]
    for expected, seen in zip(*of_state, strict=True):
        np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_ours_and_the_stock_recipe_visit_as_many_sequences(worker):
    work = workload.TextWorkload(clients=2, examples=4, local_epochs=1, batch_size=2, learning_rate=0.1)
    ours = contenders.build_ours("text", work)().metrics["client_work"]
    theirs = stock.build_stock("text", work)().metrics["client_work"]["train"]
    assert ours["examples"] == theirs["num_examples"] == tasks.visits("text", work) == 8
    for loss in (ours["train_loss"], theirs["loss"]):
        assert loss == pytest.approx(np.log(90), abs=0.1)


def test_the_stock_recipe_gets_the_same_examples_as_floats():
    (x, y), _ = TINY.cohort()
    images, labels = zip(*stock._stock_dataset((x, y)).as_numpy_iterator(), strict=True)
    np.testing.assert_allclose(np.stack(images)[..., 0] * 255, x, atol=1e-4)
    np.testing.assert_array_equal(labels, y)


def test_a_client_is_divided_into_train_and_test_examples():
    x, y = TINY.cohort()[0]
    (train_x, train_y), (test_x, test_y) = tasks.parts((x, y))
    assert len(test_x) == 20
    np.testing.assert_array_equal(np.concatenate([train_x, test_x]), x)
    np.testing.assert_array_equal(np.concatenate([train_y, test_y]), y)


def test_evaluations_judge_every_client_before_and_after_each_epoch(worker, monkeypatch):
    monkeypatch.setattr(tasks, "EVALUATION_EPOCHS", 2)
    ours = contenders.build_ours("evaluation", TINY)()
    assert [record["test_examples"] for record in ours] == [20, 20]
    assert [record["train_examples"] for record in ours] == [20, 20]
    assert [record["correct"].shape for record in ours] == [(1, 3), (1, 3)]
    theirs = stock.build_stock("evaluation", TINY)()["fine_tune"]
    assert set(theirs) == {f"epoch_{epoch}" for epoch in range(3)}
    assert all(np.shape(judged) == (2,) for judged in theirs.values())
    raw = bounds._raw_client("evaluation", TINY)(TINY.cohort()[0])
    assert len(raw) == 3
    assert all(0 <= correct <= 20 for correct in raw)
    # Before any training, ours and plain TensorFlow evaluate the same weights.
    assert raw[0] == ours[0]["correct"][0, 0]


@pytest.mark.parametrize("task", ["training", "reptile", "fed_sgd"])
def test_plain_tensorflow_moves_all_weights(task):
    before = tasks.model("training").initial_weights[0]
    after = bounds._raw_client(task, TINY)(TINY.cohort()[0])
    assert [w.shape for w in after] == [w.shape for w in before]
    assert all((new != old).any() and np.isfinite(new).all() for new, old in zip(after, before, strict=True))


def test_the_arithmetic_bound_does_a_round_s_operations(monkeypatch):
    import tensorflow as tf

    products = []
    monkeypatch.setattr(tf, "function", lambda _: lambda: products.append(1) or tf.constant(0.0))
    bounds.build_gemm("training", TINY)()
    macs = 240 * (2 * 26 * 26 * 9 * 32 + 3 * 24 * 24 * 9 * 32 * 64 + 3 * (9216 * 128 + 128 * 62))
    assert len(products) == round(macs / 2048**3)


def test_the_bound_with_compiled_parts_trains_the_same_weights():
    client = TINY.cohort()[0]
    plain, fused = (bounds._raw_client("training", TINY, fused)(client) for fused in (False, True))
    for expected, seen in zip(plain, fused, strict=True):
        np.testing.assert_allclose(seen, expected, atol=1e-6)
    assert not np.allclose(plain[-2], tasks.model("training").initial_weights[0][-2], atol=1e-6)
