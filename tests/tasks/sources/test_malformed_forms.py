"""Malformed data in every form is refused in one line that names it. The stress test gives it to the program too."""

import pathlib

import pytest

from tests.stress import cases, malformed_forms
from tests.tasks.sources import small_files
from tff_personalization.models import characters
from tff_personalization.tasks import registry, sources

CASES = [(f"{kind}, {name}", make) for kind, made in malformed_forms.KINDS.items() for name, make in made.items()]


@pytest.mark.parametrize("make", [make for _, make in CASES], ids=[name for name, _ in CASES])
def test_malformed_data_is_refused_in_one_line_that_names_it(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = make(pathlib.Path())
    (path,) = [argument.partition("=")[2] for argument in arguments if argument.startswith("--client_data=")]
    text = arguments[: len(cases.TEXT)] == list(cases.TEXT)
    options = small_files.options(path, len(characters.CLASSES) if text else 62)
    message = small_files.refusal(
        sources.load, options, registry.TASKS["shakespeare" if text else "emnist62"].sources, names=[]
    )
    assert pathlib.Path(path).name.partition(".")[0] in message
