"""Client data in the HDF5 files of TFF and Google, such as fed_emnist_train.h5 with fed_emnist_test.h5.

    examples/<client>/pixels     float, shape (n, 28, 28), 1 = paper
    examples/<client>/label      int, shape (n,)
    examples/<client>/snippets   strings, shape (n,), instead of both for Shakespeare

`--client_data` names one of the files, or a folder with both. If the folder also has the pair of files for digits, that
pair is read with 10 classes and the other one with 62.
"""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from tff_personalization import errors
from tff_personalization.tasks import archive_cache, archives, sources
from tff_personalization.tasks.sources import forms, gathering, snippets

_KIND = "an HDF5 file of TFF's form"
_DAMAGES = (RuntimeError, ValueError, KeyError, TypeError)  # what h5py raises
T = TypeVar("T")
_DIGITS, _NUM_DIGITS = "digitsonly", 10


def load(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The images of the files at `options.client_data`; cached in `options.cache_dir`.

    Raises:
        UserError: if they are missing or malformed.
    """
    files = _files(options)
    return gathering.cached(options, lambda allocate: _read_images(options, files, allocate), files)


def load_text(options: sources.SourceOptions) -> archives.Archive:
    """The snippets of the files at `options.client_data`, as sequences of characters.

    Raises:
        UserError: if they are missing or malformed.
    """
    files = _files(options)
    return snippets.read(options, _form(files), _clients(options, files, _snippets))


def _files(options: sources.SourceOptions) -> dict[pathlib.Path, bool]:
    files = gathering.files_of(options.client_data, forms.HDF5)
    for_digits = {file: part for file, part in files.items() if _DIGITS in file.name.lower()}
    if for_digits and len(for_digits) < len(files):
        digits = options.num_classes == _NUM_DIGITS
        files = {file: part for file, part in files.items() if (file in for_digits) == digits}
    return files


def _form(files: dict[pathlib.Path, bool]) -> str:
    return f"TFF's HDF5, {' and '.join(sorted(file.name for file in files))}"


def _read_images(
    options: sources.SourceOptions, files: dict[pathlib.Path, bool], allocate: archive_cache.Allocate
) -> archives.CharacterArchive:
    gathered = gathering.Gathered(gathering.name_of(options.client_data))
    for is_test, client, (images, labels) in _clients(options, files, _images):
        gathered.add(client, images, labels, is_test)
    return gathered.archive(allocate, _form(files))


def _images(where: str, group: Any) -> tuple[np.ndarray, np.ndarray]:
    missing = {"pixels", "label"} - set(group)
    if missing:
        raise errors.UserError(f"{where} has no '{min(missing)}', which TFF's Federated EMNIST has.")
    pixels, labels = (_array(where, name, group[name]) for name in ("pixels", "label"))
    images = gathering.to_bytes(where, pixels)
    return images, gathering.to_labels(where, labels, len(images))


def _snippets(where: str, group: Any) -> list[bytes]:
    if "snippets" not in group:
        raise errors.UserError(f"{where} has no 'snippets', which TFF's Shakespeare has.")
    values = np.ravel(_array(where, "snippets", group["snippets"])).tolist()
    if not all(isinstance(value, bytes | str) for value in values):
        raise errors.UserError(f"{where}: the snippets are not strings: make the file again.")
    return [value.encode() if isinstance(value, str) else value for value in values]


def _array(where: str, name: str, values: Any) -> np.ndarray:
    if not hasattr(values, "shape") or len(values.shape) == 0:
        raise errors.UserError(f"{where}: '{name}' is not an array: make the file again.")
    if values.size * values.dtype.itemsize > 2**32:
        raise errors.UserError(f"{where}: '{name}' declares {values.size * values.dtype.itemsize / 2**30:.0f} GiB.")
    return values[()]


def _clients(
    options: sources.SourceOptions, files: dict[pathlib.Path, bool], read: Callable[[str, Any], T]
) -> Iterator[tuple[bool, str, T]]:
    """Each client of each file: whether it is a test file, the name, and what `read` makes of its place and group."""
    import h5py  # Imported here, because only these files need it.

    for file, is_test in files.items():
        with gathering.plain_damage(file, _KIND, *_DAMAGES), h5py.File(file, "r") as opened:
            clients = opened.get("examples")
            if not isinstance(clients, h5py.Group) or not len(clients):
                raise errors.UserError(f"{file}: there is no group 'examples' with clients, which TFF's form has.")
            with gathering.bar_of(options, len(clients), " clients") as bar:
                for client in clients:
                    if not isinstance(client, str):  # h5py gives bytes then
                        raise errors.UserError(f"{file}: client {client!r}: its name is not UTF-8 text: rename it.")
                    group = clients[client]
                    if not isinstance(group, h5py.Group):
                        raise errors.UserError(f"{file}: client {client} is not a group, which TFF's form has.")
                    yield is_test, client, read(f"{file}: client {client}", group)
                    bar.update()
