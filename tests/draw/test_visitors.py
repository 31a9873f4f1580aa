"""Examples, held-back ones, models and memory of the page's visitors."""

import io

import numpy as np
import pytest

from benchmarks import pen
from tests.draw import conftest
from tff_personalization import errors
from tff_personalization.draw import drawing, personalizer, visitors


def images_of(labels, writer=3):
    return [drawing.image_of(drawing.checked(strokes)) for strokes in pen.strokes_of_writer(1, writer, labels)]


def visitor_with(maker, labels, most=100):
    visitor = visitors.Visitor(maker, most)
    for image, label in zip(images_of(labels), labels, strict=True):
        visitor.add(image, label)
        visitor.train()
    return visitor


def test_of_every_three_examples_of_a_character_the_second_is_held_back(maker):
    visitor = visitors.Visitor(maker, 100)
    image = np.zeros((28, 28), np.uint8)
    assert [visitor.add(image, 4) for _ in range(7)] == [False, True, False, False, True, False, False]
    assert [visitor.add(image, 5) for _ in range(2)] == [False, True]


def test_the_curve_has_the_models_of_the_first_1_2_4_train_examples_and_of_all(maker):
    visitor = visitor_with(maker, [1, 2, 3] * 4)
    state = visitor.state(None)
    assert (state["examples"], state["train"], state["held_back"], state["trained_on"]) == (12, 9, 3, 9)
    assert [point["examples"] for point in state["curve"]] == [0, 1, 2, 4, 8, 9]


def test_each_point_of_the_curve_is_a_model_of_its_own_from_the_initial_one(maker):
    labels = [1, 2, 3] * 5
    state = visitor_with(maker, labels).state(None)
    numbers = np.array([labels[:i].count(label) for i, label in enumerate(labels)])
    held = numbers % 3 == 1
    images, labels = np.array(images_of(labels)), np.array(labels)
    for point in state["curve"][1:]:
        first = np.flatnonzero(~held)[: point["examples"]]
        weights = maker.personalize(images[first], labels[first], "visitor")
        assert point["right"] == maker.hits(weights, images[held], labels[held]).sum()


def test_with_many_examples_the_newest_model_is_not_made_for_each_of_them(maker, monkeypatch):
    sizes = []
    personalize = personalizer.Personalizer.personalize

    def spy(self, images, labels, writer):
        sizes.append(len(labels))
        return personalize(self, images, labels, writer)

    monkeypatch.setattr(personalizer.Personalizer, "personalize", spy)
    visitor = visitors.Visitor(maker, 1000)
    for number in range(129):
        visitor.add(np.full((28, 28), number, np.uint8), number % 62)
        visitor.train()
    # 62 characters are drawn, then the same, which are held back, then 5 once more.
    assert sizes == [*range(1, 41), *range(42, 67, 2)]
    visitor.train(at_once=True)
    assert visitor.state(None)["trained_on"] == sizes[-1] == 67


def test_undo_leaves_what_was_before(maker):
    labels = [1, 2, 1, 2, 1, 1]
    visitor, before = visitor_with(maker, labels), visitor_with(maker, labels[:3]).state(None)
    for _ in range(3):
        visitor.undo()
        visitor.train(at_once=True)
    assert visitor.state(None) == before
    for _ in range(5):
        visitor.undo()
    assert visitor.state(None)["examples"] == 0


def test_what_is_saved_and_loaded_again_is_the_same(maker):
    visitor = visitor_with(maker, [10, 61, 10, 61, 10, 61, 24])
    other = visitors.Visitor(maker, 100)
    other.load(visitor.save())
    other.train(at_once=True)
    assert other.state(None) == visitor.state(None)
    with np.load(io.BytesIO(other.save()), allow_pickle=False) as archive:
        assert archive["images"].shape == (7, 28, 28)
        assert archive["split"].tolist() == ["train", "train", "test", "test", "train", "train", "train"]
        assert archive["source"] == "drawn on the drawing page"


def test_synthetic_handwriting_that_is_loaded_is_called_so_when_it_is_saved(maker, tmp_path):
    visitor = visitors.Visitor(maker, 100)
    path = tmp_path / "x.npz"
    arrays = {"images": np.array(images_of([1, 2])), "labels": [1, 2], "writer": ["a", "a"]}
    np.savez(path, **arrays, source="synthetic, of a test")
    visitor.load(path.read_bytes())
    path.write_bytes(visitor.save())
    with np.load(path) as archive:
        assert archive["source"] == "synthetic, of a test"
        assert archive["writer"].tolist() == ["a", "a"]


def refused(maker, tmp_path, match, most=100, **changes):
    arrays = {
        "images": np.array(images_of([1, 2])),
        "labels": np.array([1, 2]),
        "writer": np.array(["a", "a"]),
        **changes,
    }
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **arrays)
    visitor = visitors.Visitor(maker, most)
    with pytest.raises(errors.UserError, match=match):
        visitor.load(path.read_bytes())
    assert visitor.state(None)["examples"] == 0


def test_archives_of_several_writers_or_too_many_examples_are_refused(maker, tmp_path):
    refused(maker, tmp_path, "2 writers", writer=np.array(["a", "b"]))
    refused(maker, tmp_path, "at most 1", most=1)
    many = 20_000  # only a few bytes when zipped
    blank = {"images": np.zeros((many, 28, 28), np.uint8), "labels": np.zeros(many, int), "writer": np.full(many, "a")}
    refused(maker, tmp_path, "declares 15 MiB, more than the 8 MiB", **blank)


def test_an_archive_with_python_objects_is_never_unpickled(maker, tmp_path):
    class Trap:
        def __reduce__(self):
            return int, ("it was unpickled",)  # which fails

    refused(maker, tmp_path, "Python objects", writer=np.array([Trap(), Trap()], object))


def test_no_more_examples_are_kept_than_agreed(maker):
    visitor = visitor_with(maker, [1, 2], most=2)
    with pytest.raises(errors.UserError, match="At most 2 examples are kept"):
        visitor.add(np.zeros((28, 28), np.uint8), 1)


def test_a_visitors_gain_is_compared_with_that_of_writers_once_enough_is_held_back(maker, writers):
    visitor = visitors.Visitor(maker, 100)
    for label in range(7):
        for image in images_of([label] * 2):
            visitor.add(image, label)
    visitor.train()
    assert visitor.state(writers)["gained_more_than"] is None
    for image in images_of([7] * 2):
        visitor.add(image, 7)
    visitor.train()
    state = visitor.state(writers)
    gain = (state["personalized_right"] - state["initial_right"]) / 8
    assert gain > 0
    assert state["gained_more_than"] == np.mean(np.linspace(0, 0.9, 10) < gain - 1e-9)


def test_who_was_away_longest_is_forgotten(maker):
    kept = visitors.Visitors(lambda: visitors.Visitor(maker, 10), most=2)
    first, second = kept.get_or_keep("a"), kept.get_or_keep("b")
    assert kept.get("a") is first
    kept.get_or_keep("c")
    assert kept.get("a") is first
    assert kept.get("b") is not second
    assert len(kept) == 2
    for number in range(100):
        kept.get(f"stranger {number}")  # a look stores nothing
    assert len(kept) == 2
    kept.forget("a")
    assert kept.get("a") is not first


@pytest.mark.usefixtures("worker")
def test_the_pages_accuracies_are_those_of_the_evaluation(tmp_path):
    """The paper's network with its dropout, in this process and in TFF's worker."""
    trained = conftest.trained_model("--personalization_learning_rate=0.1", "--personalization_epochs=10")
    visitor = visitor_with(personalizer.Personalizer(trained), [7, 36, 57, 12] * 6)
    state = visitor.state(None)
    assert conftest.by_evaluation(trained, visitor.save(), tmp_path / "mine.npz") == [
        state["initial_right"],
        state["personalized_right"],
    ]
    assert state["personalized_right"] >= state["initial_right"] + 3
