"""Client data from an SQLite database of text in the form of TFF's `SqlClientData`, like TFF's own Shakespeare file.

The tables are those of `sqlite`. An example is a `tf.Example` with `snippets`, one string of bytes: one utterance of a
client.
"""

import collections
import dataclasses
import os
from collections.abc import Iterable

import numpy as np

from tff_personalization import errors
from tff_personalization.models import characters
from tff_personalization.tasks import archives, sources
from tff_personalization.tasks.sources import gathering, sqlite


def load(options: sources.SourceOptions) -> archives.Archive:
    """The snippets of the SQLite database at the path `options.client_data`, as sequences of characters.

    Raises:
        UserError: if the file is missing, incomplete or malformed.
    """
    path = options.client_data
    with sqlite.open_database(path) as connection:
        splits, metadata = sqlite.read_index(path, connection, options.num_classes)
        rows = connection.execute(
            "SELECT split_name, client_id, serialized_example_proto FROM examples WHERE split_name IN (?, ?)",
            splits,
        ).fetchall()
        description = sqlite.read_description(connection)
    parts: dict[tuple[str, str], list[bytes]] = collections.defaultdict(list)
    for (split, client, _), snippet in zip(rows, _parse(path, [proto for *_, proto in rows]), strict=True):
        parts[str(split), archives.client_name(path, client)].append(snippet)
    if not parts.keys() <= metadata.keys():
        raise errors.UserError(f"{path} has examples that its client_metadata does not count: {sqlite.AGAIN}")
    sqlite.check_counts(path, metadata, {part: len(parts[part]) for part in metadata})
    clients = sorted({client for _, client in metadata})
    train, test = ({client: parts[split, client] for client in clients} for split in splits)
    stem = os.path.splitext(os.path.basename(path))[0]
    archive = to_archive(train, test, description or f"{stem}, {len(clients)} roles")
    return _with_note(archive, f"{path}: TFF's SQLite form")


def read(options: sources.SourceOptions, form: str, said: Iterable[tuple[bool, str, list[bytes]]]) -> archives.Archive:
    """The archive of snippets that are read client by client.

    Args:
        options: names the data.
        form: the form of the data, in words.
        said: whether snippets belong to the test part, their client, and the snippets. A client may come again.
    """
    parts: tuple[dict[str, list[bytes]], ...] = ({}, {})
    for is_test, client, mine in said:
        parts[is_test].setdefault(client, []).extend(mine)
    name, clients = gathering.name_of(options.client_data), sorted({*parts[0], *parts[1]})
    train, test = ({client: part.get(client, []) for client in clients} for part in parts)
    return _with_note(to_archive(train, test, f"{name}, {len(clients)} roles"), f"{name}: {form}")


def to_archive(train: dict[str, list[bytes]], test: dict[str, list[bytes]], source: str) -> archives.Archive:
    """The archive of each client's snippets, as sequences of `characters.to_sequences`.

    Args:
        train: the snippets of each client's train part.
        test: the snippets of each client's test part, for the same clients.
        source: what the data is.
    """
    clients = tuple(sorted(train))
    sequences = [[characters.to_sequences(part[client]) for client in clients] for part in (train, test)]
    x, y = (np.concatenate([pair[i] for part in sequences for pair in part]) for i in (0, 1))
    counts = np.array([[len(x) for x, _ in part] for part in sequences])
    return archives.Archive.from_counts(x, y, counts, clients, characters.CLASSES, source)


def _with_note(archive: archives.Archive, form: str) -> archives.Archive:
    """The archive with a line that says what was found; `form` is the data's name and form."""
    found = (
        f"{form}; {len(archive.clients):,} roles, {len(archive.y):,} sequences, {archive.is_test.sum():,} of them test."
    )
    return dataclasses.replace(archive, notes=(found, *archive.notes))


def _parse(path: str, protos: list[bytes]) -> list[bytes]:
    """The snippets of serialized examples."""
    import tensorflow as tf  # Imported here: it takes seconds, which a wrong path should not cost.

    spec = {"snippets": tf.io.FixedLenFeature([], tf.string)}
    try:
        return tf.io.parse_example(tf.constant(protos, tf.string), spec)["snippets"].numpy().tolist()
    except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
        raise errors.UserError(
            f"{path}: an example is not a tf.Example of snippets, a string: make it again."
        ) from error
