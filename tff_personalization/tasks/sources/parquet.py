"""Client data in Parquet or Arrow files, as on Hugging Face, such as `flwrlabs/femnist`.

    image       struct {bytes, path}, a PNG file in `bytes`; or binary; or lists of pixels
    writer_id   string or integer
    character   integer, the index of the class, or its name

A data set is one file, a folder of shards, or a folder that `datasets` saved with `save_to_disk`.
"""

import collections
import itertools
import json
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np

from tff_personalization import errors
from tff_personalization.tasks import archive_cache, archives, sources
from tff_personalization.tasks.sources import forms, gathering, named_classes, pictures

_KIND = "a Parquet or Arrow file"
_BATCH = 2048
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})")
INSTALL = "pip install --no-deps pyarrow==21.0.0"


def load(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The images of the file or folder at `options.client_data`; cached in `options.cache_dir`.

    Raises:
        UserError: it is missing or malformed, or pyarrow is not installed.
    """
    files = {
        file: part
        for file, part in gathering.files_of(options.client_data, forms.PARQUET).items()
        if file.name in _saved_beside(file)
    }
    if pathlib.Path(options.client_data).is_dir():
        _refuse_missing(files)
    return gathering.cached(options, lambda allocate: _read(options, files, allocate), files)


def _refuse_missing(files: Iterable[pathlib.Path]) -> None:
    """Raises UserError if the names of files, such as train-00000-of-00002.parquet, say that one is missing."""
    named = [(file.parent, found) for file in files if (found := _SHARD.match(file.name))]
    for (stem, whole), count in collections.Counter((folder / of[1], int(of[2])) for folder, of in named).items():
        if count < whole:
            raise errors.UserError(
                f"{stem}: {count} of its {whole} files are there: get the others, or give the path of one file."
            )


def _read(
    options: sources.SourceOptions, files: dict[pathlib.Path, bool], allocate: archive_cache.Allocate
) -> archives.CharacterArchive:
    try:
        import pyarrow
    except ImportError as error:
        raise errors.UserError(
            f"--client_data={options.client_data}: Parquet and Arrow files need pyarrow: {INSTALL}"
        ) from error
    gathered = gathering.Gathered(gathering.name_of(options.client_data))
    has_clients = True
    damages = (pyarrow.ArrowException, ValueError, TypeError, KeyError)
    present: set[str] = set()
    for file in files:
        with gathering.plain_damage(file, _KIND, *damages), _Table(file) as table:
            present |= table.classes()
    classes = named_classes.classes_of(options.client_data, present)
    for file, is_test in files.items():
        with gathering.plain_damage(file, _KIND, *damages), _Table(file) as table:
            columns = named_classes.columns(str(file), table.names)
            names = table.class_names(columns.label)
            has_clients = has_clients and columns.client is not None
            wanted = [name for name in (columns.picture, columns.label, columns.client, columns.part) if name]
            with gathering.bar_of(options, table.count or 0) as bar:
                for batch in table.batches(wanted):
                    rows = {name: batch.column(name).to_pylist() for name in wanted}
                    if any(value is None for values in rows.values() for value in values):
                        raise errors.UserError(f"{file}: a row lacks {' or '.join(wanted)}: remove it.")
                    count = batch.num_rows
                    clients = [""] * count
                    if columns.client:
                        clients = [archives.client_name(str(file), value) for value in rows[columns.client]]
                    parts: bool | np.ndarray = is_test
                    if columns.part:
                        parts = named_classes.is_test(str(file), rows[columns.part])
                    gathered.add(
                        clients,
                        _images(str(file), rows[columns.picture]),
                        named_classes.indices(str(file), rows[columns.label], names, classes),
                        parts,
                    )
                    bar.update(count)
    form = f"Parquet or Arrow, {len(files)} file{'s' if len(files) > 1 else ''}"
    return gathered.archive(allocate, form, has_clients=has_clients)


def _images(where: str, values: list[Any]) -> np.ndarray:
    if not values:
        return np.zeros((0, *archives.IMAGE_SHAPE), np.uint8)
    first = values[0]
    if isinstance(first, dict | bytes):
        contents = [value.get("bytes") if isinstance(value, dict) else value for value in values]
        if not all(isinstance(content, bytes) for content in contents):
            raise errors.UserError(f"{where}: an image has no 'bytes': save the data set with its pictures.")
        return np.stack([pictures.read(where, content) for content in contents])
    return gathering.to_bytes(where, np.array(values))


def _saved_beside(file: pathlib.Path) -> Collection[str]:
    """The names of the data files in a file's folder: `datasets` saves which they are, and keeps others beside them."""
    try:
        state = json.loads(file.with_name("state.json").read_text(encoding="utf-8"))
        return {saved["filename"] for saved in state["_data_files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {file.name}


class _Table:
    """A Parquet or Arrow file, read batch by batch."""

    def __init__(self, path: pathlib.Path):
        self._path = path

    def __enter__(self) -> "_Table":
        import pyarrow
        import pyarrow.parquet

        with self._path.open("rb") as file:
            magic = file.read(6)
        self._file: Any
        self.count: int | None = None
        if magic.startswith(b"PAR1"):
            self._file = pyarrow.parquet.ParquetFile(self._path)
            schema, self.count = self._file.schema_arrow, self._file.metadata.num_rows
        else:
            self._source = pyarrow.memory_map(str(self._path))
            opened = pyarrow.ipc.open_file if magic == b"ARROW1" else pyarrow.ipc.open_stream
            self._file = opened(self._source)
            schema = self._file.schema
        self.names = list(schema.names)
        self._metadata = schema.metadata or {}
        self._is_parquet = magic.startswith(b"PAR1")
        self._is_file = magic == b"ARROW1"
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_parquet:
            self._file.close()
        else:
            self._source.close()

    def class_names(self, column: str) -> list[str] | None:
        """The names of the classes that `datasets` keeps with the file; None if there are none."""
        try:
            features = json.loads(self._metadata[b"huggingface"])["info"]["features"]
            return [str(name) for name in features[column]["names"]]
        except (KeyError, TypeError, ValueError):
            return None

    def classes(self) -> set[str]:
        """The names of all classes that occur; empty if labels are the indices of 0-9, A-Z, a-z."""
        column = named_classes.columns(str(self._path), self.names).label
        names = self.class_names(column)
        found: set[str] = set()
        for batch in self.batches([column]):
            values = [value for value in batch.column(column).to_pylist() if value is not None]
            found.update(named_classes.named(str(self._path), values, names) or ())
        return found

    def batches(self, columns: list[str]) -> Iterator[Any]:
        if self._is_parquet:
            yield from self._file.iter_batches(_BATCH, columns=columns)
            return
        batches = (
            (self._file.get_batch(i) for i in range(self._file.num_record_batches)) if self._is_file else self._file
        )
        for batch in batches:
            for start in itertools.count(0, _BATCH):
                if start and start >= batch.num_rows:
                    break
                yield batch.slice(start, _BATCH)
