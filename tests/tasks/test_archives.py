"""The archive, its split by client, and the deal at random."""

import dataclasses

import numpy as np
import pytest

from tff_personalization.tasks import archives


def archive(**changes):
    rng = np.random.default_rng(0)
    fields = {
        "x": rng.integers(0, 256, (40, 28, 28)).astype(np.uint8),
        "y": rng.integers(0, 5, 40).astype(np.int32),
        "client": np.repeat(["a", "b", "c", "d"], 10),
        "is_test": np.tile([False] * 8 + [True] * 2, 4),
        "classes": archives.CLASSES,
        "source": "made up",
    }
    return archives.CharacterArchive.from_names(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"x": np.zeros((40, 28, 28))},
        {"x": np.zeros((40, 27, 28), np.uint8)},
        {"y": np.zeros(39, np.int32)},
        {"y": np.full(40, 62, np.int32)},
        {"client": np.array(["a"])},
    ],
)
def test_an_archive_that_breaks_the_convention_is_refused(changes):
    with pytest.raises(ValueError, match="expected"):
        archive(**changes)


def test_counts_and_names_describe_the_same_archive():
    named = archive(client=np.repeat(["b", "a", "b"], [3, 30, 7]), is_test=np.repeat([False, True], [33, 7]))
    in_order = named.select(np.concatenate([np.arange(3, 33), np.arange(3), np.arange(33, 40)]))
    counted = archives.CharacterArchive.from_counts(
        in_order.images, in_order.labels, np.array([[30, 3], [0, 7]]), ("a", "b"), archives.CLASSES, "made up"
    )
    np.testing.assert_array_equal(counted.client, ["a"] * 30 + ["b"] * 10)
    np.testing.assert_array_equal(counted.client, in_order.client)
    np.testing.assert_array_equal(counted.is_test, in_order.is_test)


@pytest.mark.parametrize("clients", [("b", "a"), ("a", "a"), ("a",)])
def test_clients_out_of_order_twice_or_missing_are_refused(clients):
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(archive(client=np.repeat(["a", "b"], 20)), clients=clients)


def classes_of_many_sizes():
    """Three writers with classes of 1, 2, 2, … examples, and of 13, 7, 1, in mixed order."""
    rng = np.random.default_rng(3)
    labels = [np.array([0] + [c for c in range(1, 20) for _ in range(2)]), np.repeat([0, 1, 2], [13, 7, 1])]
    labels.append(np.zeros(1, int))
    writer = np.repeat(["twos", "uneven", "one"], [len(part) for part in labels])
    order = rng.permutation(len(writer))
    return np.concatenate(labels)[order], writer[order]


@pytest.mark.parametrize("seed", range(20))
def test_the_split_is_a_fifth_of_each_writer_and_of_each_class(seed):
    labels, writer = classes_of_many_sizes()
    is_test = archives.split_by_client(labels, writer, np.random.default_rng(seed))
    assert is_test[writer == "twos"].sum() == 8  # of 39
    assert is_test[writer == "uneven"].sum() == 4  # of 21
    assert is_test[writer == "one"].sum() == 0
    for name in ("twos", "uneven"):
        members = writer == name
        for label in np.unique(labels[members]):
            of_class = members & (labels == label)
            share = of_class.sum() * is_test[members].mean()
            assert np.floor(share) <= is_test[of_class].sum() <= np.ceil(share)
            if of_class.sum() > 1:
                assert not is_test[of_class].all()


def test_every_example_has_the_same_chance_to_be_a_test_example():
    labels, writer = classes_of_many_sizes()
    draws = [archives.split_by_client(labels, writer, np.random.default_rng(seed)) for seed in range(2000)]
    chance = np.mean(draws, axis=0)[writer == "twos"]
    # 2,000 draws at 8/39: a standard deviation of 0.009; 39 examples stay within five.
    np.testing.assert_allclose(chance, 8 / 39, atol=0.045)


def test_dealing_keeps_every_clients_counts_and_every_example():
    before = archive()
    after = archives.deal_at_random(before, np.random.default_rng(1))
    np.testing.assert_array_equal(after.client, before.client)
    np.testing.assert_array_equal(after.is_test, before.is_test)

    def pairs(a):
        return sorted((int(label), image.tobytes()) for label, image in zip(a.labels, a.images, strict=True))

    assert pairs(after) == pairs(before)
    assert not np.array_equal(after.labels, before.labels)
    assert "dealt to clients at random" in after.source
