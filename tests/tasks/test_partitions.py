import numpy as np
import pytest

from tests.tasks.sources import small_files
from tff_personalization.tasks import archives, partitions


def archive(count=3000, classes=10, seed=0, has_clients=True):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    writer = np.array([f"w{i % 20:02}" for i in range(count)])
    images = rng.integers(0, 255, (count, 28, 28)).astype(np.uint8)
    made = archives.CharacterArchive.from_names(
        images, labels, writer, np.zeros(count, bool), archives.CLASSES, "x, 20 writers"
    )
    return made if has_clients else archives.dataclasses.replace(made, has_clients=False)


def counts(dealt):
    table = np.zeros((len(dealt.clients), len(dealt.classes)), int)
    np.add.at(table, (dealt.client_index, dealt.y), 1)
    return table


def deal(kind, seed=0, made=None, **settings):
    return partitions.deal(made or archive(), np.random.default_rng(seed), kind, **settings)


@pytest.mark.parametrize("kind", list(partitions.SETTINGS)[1:])
def test_every_example_has_one_owner_and_the_seed_decides_who(kind):
    made = archive()
    first, again, other = (deal(kind, seed, made, clients=30) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.client_index, again.client_index)
    np.testing.assert_array_equal(first.is_test, again.is_test)
    assert (first.client_index != other.client_index).any()
    np.testing.assert_array_equal(first.x, made.x)
    assert len(np.unique(first.client_index)) == 30


@pytest.mark.parametrize("kind", list(partitions.SETTINGS)[1:])
def test_a_clients_two_parts_have_the_same_shares_of_the_classes(kind):
    dealt = deal(kind, clients=30)
    for client in range(30):
        mine = dealt.client_index == client
        every, test = (np.bincount(dealt.y[mine & part], minlength=10) for part in (True, dealt.is_test))
        assert (np.abs(test - test.sum() * every / every.sum()) < 1).all()


def test_the_smaller_alpha_is_the_fewer_classes_a_client_has():
    def classes(alpha):
        shares = counts(deal("dirichlet", clients=30, alpha=alpha))
        shares = shares / shares.sum(axis=1, keepdims=True)
        return (1 / (shares**2).sum(axis=1)).mean()  # the effective number

    assert classes(0.1) < 3.5 < classes(1) < 7.5 < classes(100)
    assert classes(100) == pytest.approx(1 / (0.1 + 0.9 / 100), abs=0.2)  # 100 examples of ten equal classes


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1])
def test_shares_of_equal_classes_vary_as_in_a_dirichlet_distribution_with_alpha_for_each(alpha):
    shares = counts(deal("dirichlet", clients=100, alpha=alpha, made=archive(20_000)))
    shares = shares / shares.sum(axis=1, keepdims=True)
    assert (shares**2).sum(axis=1).mean() == pytest.approx((1 + alpha) / (1 + 10 * alpha), rel=0.15)


def test_label_skew_leaves_all_clients_the_same_number_of_examples():
    assert set(counts(deal("dirichlet", clients=30, alpha=0.1)).sum(axis=1)) == {100}


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_a_pathological_client_has_the_given_number_of_classes(classes):
    table = counts(deal("pathological", clients=30, classes=classes))
    assert ((table > 0).sum(axis=1) == classes).all()
    assert table.sum() == 3000


def test_fewer_shards_than_classes_leave_classes_out_and_say_so():
    dealt = deal("pathological", clients=4, classes=2)
    assert ((counts(dealt) > 0).sum(axis=1) == 2).all()
    assert "left out" in dealt.notes[-1]


def test_the_smaller_alpha_is_the_more_quantities_differ():
    spread = [counts(deal("quantity", clients=30, alpha=alpha)).sum(axis=1) for alpha in (0.2, 100)]
    assert spread[0].std() > 5 * spread[1].std()
    assert spread[0].min() >= 2


@pytest.mark.parametrize("kind", list(partitions.SETTINGS)[1:])
def test_nobody_calls_such_clients_writers(kind):
    dealt = deal(kind, clients=30)
    assert "30 made-up clients" in dealt.source
    assert "writers" not in dealt.source
    assert not set(dealt.clients) & set(archive().clients)


def test_data_without_writers_becomes_a_hundred_clients():
    assert len(deal("dirichlet", made=archive(has_clients=False)).clients) == 100
    assert len(deal("dirichlet").clients) == 20


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"kind": "dirichlet", "clients": 2000}, ["--partition_clients=2000", "1500"]),
        ({"kind": "pathological", "classes": 11}, ["--partition_classes=11", "10 classes"]),
    ],
)
def test_what_cannot_be_dealt_is_refused(settings, names):
    small_files.refusal(lambda: deal(**settings), names=names)
