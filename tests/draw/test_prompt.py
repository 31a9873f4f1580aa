"""The characters that the page asks for."""

from tff_personalization.draw import prompt, visitors
from tff_personalization.tasks import archives


def test_look_alikes_are_asked_for_three_times_so_that_some_of_each_are_held_back():
    asked = prompt.characters(archives.CLASSES)
    assert asked[:12] == list("0Oo1lI5S2Zuv")
    assert asked == asked[:12] * 3
    assert len(set(asked)) >= visitors.FEWEST_TO_COMPARE


def test_only_characters_of_the_task_are_asked_for():
    asked = prompt.characters(archives.CLASSES[:10])
    assert asked == list("17495638") * 3
