"""Synthetic handwriting: reproducible, with Federated EMNIST's sizes, and as personal as the heterogeneity says."""

import numpy as np
import pytest

from tff_personalization import errors
from tff_personalization.tasks import archives, sources
from tff_personalization.tasks.sources import handwriting, strokes


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def options(cache_dir, num_clients=4, writer_heterogeneity=1.0, seed=3, num_classes=62):
    return sources.SourceOptions(
        client_data="handwriting",
        num_classes=num_classes,
        seed=seed,
        cache_dir=str(cache_dir),
        settings=sources.Handwriting(num_clients=num_clients, writer_heterogeneity=writer_heterogeneity),
    )


def same(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("images", "labels", "is_test"))


def of_writer(archive, name):
    return archive.select(archive.client == name)


def test_the_same_seed_gives_the_same_archive_and_another_seed_another(tmp_path):
    archive = handwriting.load(options(tmp_path / "a"))
    assert same(archive, handwriting.load(options(tmp_path / "b")))
    assert not same(archive, handwriting.load(options(tmp_path / "a", seed=4)))


def test_a_writer_is_the_same_however_many_writers_there_are(cache_dir):
    few, many = (handwriting.load(options(cache_dir, num_clients=count)) for count in (2, 5))
    assert same(of_writer(few, "writer_0001"), of_writer(many, "writer_0001"))


def test_an_archive_of_digits_has_the_digits_of_the_same_writers(cache_dir):
    everything = handwriting.load(options(cache_dir))
    digits = handwriting.load(options(cache_dir, num_classes=10))
    assert digits.classes == archives.CLASSES[:10]
    assert np.array_equal(digits.labels, everything.labels[everything.labels < 10])
    assert np.array_equal(digits.client, everything.client[everything.labels < 10])
    assert np.array_equal(digits.is_test, everything.is_test[everything.labels < 10])
    assert digits.images.mean() == pytest.approx(everything.images[everything.labels < 10].mean(), rel=0.1)


def test_the_dial_changes_the_images_but_neither_labels_nor_parts(cache_dir):
    alike, personal = (handwriting.load(options(cache_dir, writer_heterogeneity=h)) for h in (0.0, 1.0))
    assert np.array_equal(alike.labels, personal.labels)
    assert np.array_equal(alike.client, personal.client)
    assert np.array_equal(alike.is_test, personal.is_test)
    assert not np.array_equal(alike.images, personal.images)


@pytest.mark.parametrize("heterogeneity", [0.0, 1.0, 3.0])
def test_images_are_bright_ink_on_a_background_that_reaches_the_border(cache_dir, heterogeneity):
    images = handwriting.load(options(cache_dir, writer_heterogeneity=heterogeneity)).images
    assert images.dtype == np.uint8
    assert images.shape[1:] == archives.IMAGE_SHAPE
    border = np.ones(archives.IMAGE_SHAPE, bool)
    border[1:-1, 1:-1] = False
    assert not images[:, border].any()
    assert (images.max((1, 2)) > 200).all()
    assert 0.02 < (images > 127).mean() < 0.3


@pytest.mark.parametrize("num_classes", [10, 62])
def test_every_writer_has_train_and_test_examples(cache_dir, num_classes):
    archive = handwriting.load(options(cache_dir, num_clients=12, num_classes=num_classes))
    names = {f"writer_{writer:04d}" for writer in range(12)}
    assert set(archive.client[archive.is_test]) == set(archive.client[~archive.is_test]) == names


def test_the_archive_says_that_it_is_synthetic(cache_dir):
    assert handwriting.load(options(cache_dir)).source == "synthetic handwriting, 4 writers, heterogeneity 1"


def test_counts_are_those_of_federated_emnist():
    labels, is_test = zip(*(handwriting.examples(0, writer) for writer in range(400)), strict=True)
    train, test = np.array([[np.sum(~part), np.sum(part)] for part in is_test]).T
    # 671,585 train and 77,483 test examples of 3,400 writers; the standard error of the first mean is about 4.
    assert train.mean() == pytest.approx(671_585 / 3_400, abs=14)
    assert test.mean() == pytest.approx(77_483 / 3_400, abs=2)
    assert 70 < (train + test).std() < 105
    assert (train + test).min() >= 20
    assert np.mean(np.concatenate(labels) < 10) == pytest.approx(0.5, abs=0.02)
    assert len(np.unique(np.concatenate(labels))) == 62


def mean_zero(writer, heterogeneity):
    zeros = np.zeros(200, int)
    return handwriting.draw(0, writer, zeros, heterogeneity).mean(0)


def test_writers_means_agree_at_heterogeneity_zero_and_only_there():
    def spread(heterogeneity):
        means = np.stack([mean_zero(writer, heterogeneity) for writer in range(8)])
        return means.var(0).sum()

    # If writers had no style, the variance between means of 200 images would be a 200th of that of one image.
    chance = handwriting.draw(0, 0, np.zeros(2000, int), 0.0).var(0).sum() / 200
    assert spread(0.0) < 1.5 * chance
    assert spread(1.0) > 20 * chance
    assert spread(0.5) > 5 * chance


def test_the_population_looks_the_same_at_heterogeneity_zero_and_one():
    labels = np.tile([4, 24, 50], 4)
    alike, personal = (
        np.concatenate([handwriting.draw(0, writer, labels, h) for writer in range(150)]) for h in (0.0, 1.0)
    )
    assert np.corrcoef(alike.mean(0).ravel(), personal.mean(0).ravel())[0, 1] > 0.99
    assert alike.var(0).sum() == pytest.approx(personal.var(0).sum(), rel=0.05)


def nearest_neighbour_accuracy(train, test):
    squares = (train.images.reshape(len(train.labels), -1) / 255.0) ** 2
    flat_train, flat_test = (part.images.reshape(len(part.labels), -1) / 255.0 for part in (train, test))
    distance = squares.sum(1)[None] - 2 * flat_test @ flat_train.T
    return np.mean(train.labels[distance.argmin(1)] == test.labels)


def test_a_writers_own_examples_classify_better_than_those_of_others_only_at_heterogeneity_one(cache_dir):
    def advantage(heterogeneity):
        archive = handwriting.load(options(cache_dir, num_clients=24, writer_heterogeneity=heterogeneity))
        own, others = [], []
        for index in range(24):
            mine = archive.client == f"writer_{index:04d}"
            neighbour = archive.client == f"writer_{(index + 1) % 24:04d}"
            test = archive.select(mine & archive.is_test)
            own.append(nearest_neighbour_accuracy(archive.select(mine & ~archive.is_test), test))
            others.append(nearest_neighbour_accuracy(archive.select(neighbour & ~archive.is_test), test))
        return np.mean(own) - np.mean(others)

    assert advantage(1.0) > 0.15
    assert abs(advantage(0.0)) < 0.07


def test_no_two_classes_of_a_family_share_a_form_in_one_writers_hand():
    families = strokes.forms().families
    assert sorted(np.concatenate([family.classes for family in families])) == list(range(62))
    for family in families:
        assert all(len(set(row)) == len(row) for row in family.draw(np.linspace(0, 1, 500, endpoint=False)).tolist())


def test_a_pen_draws_a_line_as_wide_as_itself():
    x = np.linspace(6, 22, 200)
    line = np.stack([x, np.full(200, 14.0)], 1)[None]
    image = handwriting.render(line, np.ones((1, 199), bool), np.array([1.5]))[0] / 255
    assert image[:, 14].sum() == pytest.approx(3.0, abs=0.2)
    assert not image[:10].any()
    assert not image[:, :3].any()
    assert not handwriting.render(line, np.zeros((1, 199), bool), np.array([1.5])).any()


def test_the_second_load_reads_the_cache(tmp_path, monkeypatch):
    archive = handwriting.load(options(tmp_path))
    monkeypatch.setattr(handwriting, "draw", None)
    assert same(archive, handwriting.load(options(tmp_path)))


def test_every_setting_that_changes_the_data_has_a_cache_of_its_own(tmp_path):
    changes = ({}, {"num_clients": 3}, {"writer_heterogeneity": 0.5}, {"seed": 4}, {"num_classes": 10})
    archives = [handwriting.load(options(tmp_path, **change)) for change in changes]
    assert len(list((tmp_path / "synthetic_handwriting").iterdir())) == len(changes)
    assert not any(same(archives[0], other) for other in archives[1:])


def test_a_new_version_replaces_what_the_old_one_kept(tmp_path, monkeypatch):
    handwriting.load(options(tmp_path))
    monkeypatch.setattr(handwriting, "VERSION", handwriting.VERSION + 1)
    handwriting.load(options(tmp_path))
    assert len(list((tmp_path / "synthetic_handwriting").iterdir())) == 1


def test_a_flipped_byte_in_the_cache_is_noticed(tmp_path):
    archive = handwriting.load(options(tmp_path))
    before = archive.images.copy()
    (path,) = tmp_path.glob("*/*/images.npy")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    np.testing.assert_array_equal(handwriting.load(options(tmp_path)).images, before)


@pytest.mark.parametrize("heterogeneity", [-0.5, float("nan"), float("inf")])
def test_a_heterogeneity_that_means_nothing_is_refused(tmp_path, heterogeneity):
    with pytest.raises(errors.UserError, match="--writer_heterogeneity"):
        handwriting.load(options(tmp_path, writer_heterogeneity=heterogeneity))


def test_no_writers_are_refused(tmp_path):
    with pytest.raises(errors.UserError, match="--num_clients"):
        handwriting.load(options(tmp_path, num_clients=0))


def test_a_cache_directory_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.UserError, match="--cache_dir"):
        handwriting.load(options(tmp_path / "file"))
