"""Client data from an SQLite database in the form of TFF's `SqlClientData`, like Federated EMNIST's own file.

    examples(split_name TEXT, client_id TEXT, serialized_example_proto BLOB)
    client_metadata(client_id TEXT, split_name TEXT, num_examples INTEGER)

An example is a `tf.Example` of `pixels`, float[784], and `label`, int64. Pixels are 1.0 for background and 0.0 for ink,
the inverse of this project's convention. A database that was converted from other data may name its source in a third
table, `source(description TEXT)`.

Such a file has no index and takes minutes to read. So its examples are kept in the cache.
"""

import collections
import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Mapping

import numpy as np

from tff_personalization import errors
from tff_personalization.tasks import archive_cache, archives, sources
from tff_personalization.tasks.sources import gathering

DIGITS_PREFIX, ALL_PREFIX = "digits_only_", "all_"
_NUM_DIGITS = 10
_COLUMNS = {
    "examples": {"split_name", "client_id", "serialized_example_proto"},
    "client_metadata": {"client_id", "split_name", "num_examples"},
}
AGAIN = "delete it and download or make it again."
# Examples parsed at once: 26 MB of float pixels.
_CHUNK = 8192


def load(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The examples of the SQLite database at the path `options.client_data`; cached in `options.cache_dir`.

    With `options.num_classes` of 10 the splits `digits_only_train` and `digits_only_test` are preferred, else
    `all_train` and `all_test`. Otherwise the database must have one pair of splits that end with "train" and "test", or
    a single split, such as the `default_split` of TFF's own writer. A single split is read as train examples.

    Raises:
        UserError: if the file is missing, incomplete or malformed.
    """
    if not os.path.isfile(options.client_data):
        raise errors.UserError(f"{options.client_data}: there is no such file: give the path of an SQLite database.")
    return gathering.cached(
        options, lambda allocate: _read_database(options, allocate), variant=f"{options.num_classes}classes"
    )


def _read_database(options: sources.SourceOptions, allocate: archive_cache.Allocate) -> archives.CharacterArchive:
    path = options.client_data
    with open_database(path) as connection:
        splits, metadata = read_index(path, connection, options.num_classes)
        _check_total(path, sum(metadata.values()))
        writers = tuple(sorted({client for _, client in metadata}))
        counts = np.array([[metadata.get((split, client), 0) for client in writers] for split in splits])
        images = allocate(int(counts.sum()))
        labels = _read_examples(options, connection, splits, metadata, images)
        description = read_description(connection)
    form = f"TFF's SQLite form, {' and '.join(filter(None, splits))}"
    found = f"{path}: {form}; {len(writers):,} writers, {len(labels):,} examples"
    some = images[:: max(1, len(images) // 10_000)]
    if gathering.bright_border(some).mean() > 0.5:
        np.subtract(255, images, out=images)
        found += "; bright ink on a dark background, unlike Federated EMNIST"
    if description is None:
        stem = os.path.splitext(os.path.basename(path))[0]
        description = f"{stem}, {len(writers)} writers"
    return archives.CharacterArchive.from_counts(
        images, labels, counts, writers, archives.CLASSES, description, notes=(f"{found}.",), parts_as_meant=True
    )


def read_index(
    path: str, connection: sqlite3.Connection, num_classes: int
) -> tuple[tuple[str, str], dict[tuple[str, str], int]]:
    """The names of the train and of the test split to read, and their numbers of examples by split and client.

    The second name is "" if there is only one split.

    Raises:
        UserError: the tables do not have the form, or it is not clear which two splits to read.
    """
    _check_columns(path, connection)
    metadata = _read_metadata(path, connection)
    splits = _choose_splits(path, {split for split, _ in metadata}, num_classes)
    return splits, {key: count for key, count in metadata.items() if key[0] in splits}


@contextlib.contextmanager
def open_database(path: str) -> Iterator[sqlite3.Connection]:
    """Opens a database read-only. SQLite's errors, here or while it is read, become UserErrors."""
    if not os.path.getsize(path):
        raise errors.UserError(f"{path} is empty, perhaps because a download was interrupted: {AGAIN}")
    try:
        with contextlib.closing(
            sqlite3.connect(f"{pathlib.Path(path).absolute().as_uri()}?mode=ro", uri=True)
        ) as connection:
            (page_size,) = connection.execute("PRAGMA page_size").fetchone()
            if os.path.getsize(path) % page_size:
                # SQLite itself does not notice a cut within its last page.
                raise sqlite3.DatabaseError("its last page is cut short")
            yield connection
    except (sqlite3.Error, UnicodeDecodeError) as error:  # UnicodeDecodeError: a message quotes damaged text.
        reason = " ".join(str(error).split())
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise errors.UserError(f"{path}: {reason}: close the program that writes to it.") from error
        raise errors.UserError(
            f"{path} cannot be read as an SQLite database ({reason}): it is damaged, cut short or of another kind; "
            f"{AGAIN}"
        ) from error
    except MemoryError as error:
        if error.args:  # NumPy's, which says for what
            raise
        raise errors.UserError(
            f"{path}: SQLite is out of memory: free some; if that does not help, the file is damaged, {AGAIN}"
        ) from error


def _check_columns(path: str, connection: sqlite3.Connection) -> None:
    for table, columns in _COLUMNS.items():
        missing = columns - {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if missing == columns:
            raise errors.UserError(f"{path} has no table '{table}': a database of TFF's SqlClientData form has one.")
        if missing:
            raise errors.UserError(f"{path}: the table '{table}' has no column '{min(missing)}', which TFF's form has.")


def _read_metadata(path: str, connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """The number of examples by split and client."""
    metadata: collections.Counter[tuple[str, str]] = collections.Counter()
    for split, client, count in connection.execute("SELECT split_name, client_id, num_examples FROM client_metadata"):
        if not isinstance(count, int) or count < 0:
            raise errors.UserError(f"{path}: client_metadata gives client {client} {count!r} examples: {AGAIN}")
        metadata[str(split), archives.client_name(path, client)] += count
    return metadata


def _choose_splits(path: str, splits: set[str], num_classes: int) -> tuple[str, str]:
    """The names of the train and of the test split to read; the second is "" if there is only one split."""
    pairs = {name.removesuffix("train") for name in splits if name.endswith("train")}
    pairs &= {name.removesuffix("test") for name in splits if name.endswith("test")}
    preferred = [DIGITS_PREFIX, ALL_PREFIX] if num_classes == _NUM_DIGITS else [ALL_PREFIX]
    for prefix in preferred:
        if prefix in pairs:
            return f"{prefix}train", f"{prefix}test"
    if len(splits) == 1 and (split := min(splits)):
        return split, ""
    if len(pairs) != 1:
        found = ", ".join(sorted(splits)) or "none"
        raise errors.UserError(
            f"{path} has the splits {found}: either all_train and all_test, digits_only_train and digits_only_test, "
            "one pair of other names ending in train and test, or a single split is expected."
        )
    prefix = pairs.pop()
    return f"{prefix}train", f"{prefix}test"


def _check_total(path: str, total: int) -> None:
    if not total:
        raise errors.UserError(f"{path}: client_metadata names no example: {AGAIN}")
    # Checked before memory is allocated for the number in the metadata: pixels take four bytes each in the file.
    if total * gathering.PIXELS * 4 > os.path.getsize(path):
        raise errors.UserError(f"{path} is too short for the {total} examples of its client_metadata: {AGAIN}")


def _read_examples(
    options: sources.SourceOptions,
    connection: sqlite3.Connection,
    splits: tuple[str, str],
    metadata: dict[tuple[str, str], int],
    images: np.ndarray,
) -> np.ndarray:
    """Reads two splits into `images`, client by client, all of the train split first. Returns their labels."""
    path, total = options.client_data, len(images)
    labels = np.empty(total, np.int32)
    # The file has the examples in any order, but each has a fixed place, client by client.
    next_place, start = {}, 0
    for part in sorted(metadata, key=lambda part: (part[0] == splits[1], part[1])):
        next_place[part] = start
        start += metadata[part]
    starts = next_place.copy()
    # One pass in the order of the file; an index would read from all over the file.
    rows = connection.execute(
        "SELECT split_name, client_id, serialized_example_proto FROM examples NOT INDEXED WHERE split_name IN (?, ?)",
        splits,
    )
    num_labels = _NUM_DIGITS if splits[0].startswith(DIGITS_PREFIX) else len(archives.CLASSES)
    done = 0
    with gathering.bar_of(options, total) as bar:
        while chunk := rows.fetchmany(_CHUNK):
            done += len(chunk)
            parts = [(str(split), archives.client_name(path, client)) for split, client, _ in chunk]
            if done > total or not next_place.keys() >= set(parts):
                raise errors.UserError(f"{path} has examples that its client_metadata does not count: {AGAIN}")
            places = []
            for part in parts:
                # A client with too many examples overflows its places; the check of the counts below reports it.
                places.append(min(next_place[part], total - 1))
                next_place[part] += 1
            images[places], labels[places] = _parse(path, [proto for _, _, proto in chunk], num_labels)
            bar.update(len(chunk))
    check_counts(path, metadata, {part: next_place[part] - starts[part] for part in metadata})
    return labels


def check_counts(path: str, metadata: Mapping[tuple[str, str], int], found: Mapping[tuple[str, str], int]) -> None:
    """Raises UserError if the numbers of examples found, by split and client, differ from the metadata."""
    for (split, client), expected in metadata.items():
        if found[split, client] != expected:
            raise errors.UserError(
                f"{path} has {found[split, client]} of the {expected} examples of client {client} in {split}: "
                f"it is damaged or cut short; {AGAIN}"
            )


def _parse(path: str, protos: list[bytes], num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """The images, with ink 255 on 0, and the labels of serialized examples."""
    import tensorflow as tf  # Imported here: it takes seconds, which a wrong path should not cost.

    spec = {
        "pixels": tf.io.FixedLenFeature([gathering.PIXELS], tf.float32),
        "label": tf.io.FixedLenFeature([], tf.int64),
    }
    try:
        parsed = tf.io.parse_example(tf.constant(protos, tf.string), spec)
    except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
        raise errors.UserError(
            f"{path}: an example is not a tf.Example of pixels, float[{gathering.PIXELS}], and label, int64: make it "
            "again."
        ) from error
    pixels, labels = parsed["pixels"].numpy(), parsed["label"].numpy()
    if not (pixels.min() >= 0 and pixels.max() <= 1):
        raise errors.UserError(f"{path}: an example has pixels outside 0 (ink) to 1 (background): make it again.")
    if labels.min() < 0 or labels.max() >= num_labels:
        raise errors.UserError(
            f"{path}: labels go from {labels.min()} to {labels.max()}: 0 to {num_labels - 1} are expected."
        )
    images = np.rint((1 - pixels) * 255).astype(np.uint8)
    return images.reshape(-1, *archives.IMAGE_SHAPE), labels


def read_description(connection: sqlite3.Connection) -> str | None:
    if not list(connection.execute("PRAGMA table_info(source)")):
        return None
    row = connection.execute("SELECT description FROM source").fetchone()
    return " ".join(str(row[0]).split()) if row else None
