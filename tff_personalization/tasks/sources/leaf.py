"""Client data in LEAF's form (Caldas et al. 2018): JSON files of `users`, `num_samples` and `user_data`.

    {"users": ["f0001_41", …], "num_samples": [232, …],
     "user_data": {"f0001_41": {"x": [[1.0, …], …], "y": [3, …]}, …}}

FEMNIST has 784 floats an image, 1 = paper, and labels 0 to 61 in the order digits, upper case, lower case. Shakespeare
has 80 characters in `x` and the next one in `y`, for each place of a role's text. A data set is one file or a folder of
files, whose folders or names may say train and test.

Files are read client by client, so memory holds one client's numbers at a time.
"""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import tqdm

from tff_personalization import errors
from tff_personalization.tasks import archive_cache, archives, sources
from tff_personalization.tasks.sources import forms, gathering, snippets

_BLOCK = 2**24
_LONGEST = 2**29  # characters of one client
_SPACE = re.compile(r"\s*")
_KIND = "LEAF's JSON"


def load(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The images of the LEAF file or folder at `options.client_data`; cached in `options.cache_dir`.

    Raises:
        UserError: if it is missing or malformed.
    """
    files = _files(options)
    return gathering.cached(options, lambda allocate: _read_images(options, files, allocate), files)


def load_text(options: sources.SourceOptions) -> archives.Archive:
    """The text of the LEAF file or folder at `options.client_data`, as sequences of characters.

    Raises:
        UserError: if it is missing or malformed.
    """
    files = _files(options)
    said = (
        (files[file], client, _text(f"{file}: client {client}", data))
        for file, client, data in _clients(options, files)
    )
    return snippets.read(options, _form(files), said)


def _files(options: sources.SourceOptions) -> dict[pathlib.Path, bool]:
    files = gathering.files_of(options.client_data, forms.LEAF)
    if len(files) > 1:  # The folder may have other JSON files.
        files = {file: is_test for file, is_test in files.items() if forms.begins_as_leaf(file)}
    return files


def _form(files: dict[pathlib.Path, bool]) -> str:
    count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    return f"{_KIND}, {count}, {'train and test' if len(set(files.values())) > 1 else 'not split'}"


def _read_images(
    options: sources.SourceOptions, files: dict[pathlib.Path, bool], allocate: archive_cache.Allocate
) -> archives.CharacterArchive:
    gathered = gathering.Gathered(gathering.name_of(options.client_data))
    has_floats, undecided = False, []
    for file, client, data in _clients(options, files):
        where = f"{file}: client {client}"
        if data["x"] and isinstance(data["x"][0], str):
            raise errors.UserError(f"{where}: x is text: images are expected; for Shakespeare give --task=shakespeare.")
        try:
            x, y = np.array(data["x"]), np.array(data["y"])
        except (ValueError, OverflowError) as error:
            raise errors.UserError(f"{where}: the images of x do not have {gathering.PIXELS} pixels each.") from error
        if not len(x):
            continue
        images, labels = gathering.to_bytes(where, x), gathering.to_labels(where, y, len(x))
        if x.dtype.kind in "iu" and images.max() <= 1:  # of 255, or 1.0 as some programs write it
            undecided.append((client, images, labels, files[file]))
            continue
        has_floats = has_floats or x.dtype.kind == "f"
        gathered.add(client, images, labels, files[file])
    for client, images, labels, is_test in undecided:
        gathered.add(client, images * np.uint8(255 if has_floats else 1), labels, is_test)
    return gathered.archive(allocate, _form(files))


def _clients(
    options: sources.SourceOptions, files: dict[pathlib.Path, bool]
) -> Iterator[tuple[pathlib.Path, str, dict[str, list]]]:
    """Each client of each file: the file, the client's name, and its x and y, of equal length."""
    seen: set[tuple[bool, str]] = set()
    if not files:
        raise errors.UserError(f"--client_data={options.client_data}: there is no .json file in it.")
    size = sum(file.stat().st_size for file in files)
    with gathering.bar_of(options, size, "B", unit_scale=True) as bar:
        for file, is_test in files.items():
            for client, data in _clients_of(file, bar):
                if (is_test, client) in seen:
                    raise errors.UserError(f"{file}: client {client} appears more than once: keep one.")
                seen.add((is_test, client))
                yield file, client, data


def _clients_of(path: pathlib.Path, bar: tqdm.tqdm) -> Iterator[tuple[str, dict[str, list]]]:
    counted: dict[str, int] = {}
    told: dict[str, Any] = {}
    with (
        gathering.plain_damage(path, _KIND, UnicodeDecodeError, RecursionError),
        path.open(encoding="utf-8-sig") as file,
    ):
        json_file = _Json(path, file, bar)
        for key in json_file.entries():
            if key != "user_data":
                told[key] = json_file.value()
                continue
            for client in json_file.entries():
                data = json_file.value()
                x, y = (data.get(name) if isinstance(data, dict) else None for name in ("x", "y"))
                if not (isinstance(x, list) and isinstance(y, list) and len(x) == len(y)):
                    raise errors.UserError(f"{path}: client {client} does not have an x and a y of the same length.")
                counted[client] = len(x)
                yield client, {"x": x, "y": y}
        json_file.end()
    if not counted:
        raise errors.UserError(f"{path}: there are no clients under 'user_data', which LEAF's form has.")
    users, counts = told.get("users"), told.get("num_samples")
    if isinstance(users, list) and (missing := sorted({str(user) for user in users} ^ counted.keys())):
        raise errors.UserError(f"{path}: 'users' and 'user_data' do not name the same clients (see {missing[0]}).")
    if isinstance(users, list) and isinstance(counts, list) and counts != [counted[str(user)] for user in users]:
        raise errors.UserError(f"{path}: 'num_samples' does not count what 'user_data' has: make the file again.")


class _Json:
    """A JSON object that is read key by key, with only one value in memory."""

    def __init__(self, path: pathlib.Path, file: IO[str], bar: tqdm.tqdm):
        self._path, self._file, self._bar = path, file, bar
        self._text, self._at, self._ended = "", 0, False
        self._decoder = json.JSONDecoder()

    def entries(self) -> Iterator[str]:
        """The keys of the object that begins here. Call `value` before the next key is read."""
        self._take("{")
        if self._peek() == "}":
            return self._take("}")
        while True:
            key = self.value()
            if not isinstance(key, str):
                self._refuse("a key that is not a string")
            self._take(":")
            yield key
            if self._peek() != ",":
                return self._take("}")
            self._take(",")

    def value(self) -> Any:
        """The value that begins here."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended or isinstance(value, dict | list | str):
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                whole = error.pos < len(self._text) - 64 and not error.msg.startswith("Unterminated")
                if self._ended or whole or len(self._text) > _LONGEST:
                    self._refuse(error.msg)
            self._read(max(_BLOCK, len(self._text) - self._at))

    def end(self) -> None:
        if self._peek():
            self._refuse("more after its end")

    def _peek(self) -> str:
        """The next character that is not a space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._read(_BLOCK)

    def _take(self, character: str) -> None:
        if (found := self._peek()) != character:
            self._refuse(f"{found!r} where {character!r} is expected" if found else "it ends too early")
        self._at += 1

    def _read(self, size: int) -> None:
        block = self._file.read(size)
        self._ended = not block
        self._text, self._at = self._text[self._at :] + block, 0
        self._bar.update(len(block))

    def _refuse(self, reason: str) -> None:
        raise errors.UserError(
            f"{self._path} cannot be read as {_KIND} ({reason}): it is damaged, cut short or of another kind; make it "
            "again."
        )


def _text(where: str, data: dict[str, list]) -> list[bytes]:
    """The text behind windows that slide over it, each with its next character: consecutive windows give one piece."""
    pieces: list[list[str]] = []
    expected = None
    for window, character in zip(data["x"], data["y"], strict=True):
        if not (isinstance(window, str) and isinstance(character, str) and len(character) == 1):
            raise errors.UserError(f"{where}: x is not strings, each with the character that follows it in y.")
        if window == expected:
            pieces[-1].append(character)
        else:
            pieces.append([window, character])
        expected = window[1:] + character
    return ["".join(piece).encode(errors="surrogatepass") for piece in pieces]  # half of an emoji, as JavaScript cuts
