"""Converts your own client data to an `Archive`, from arrays, a pandas DataFrame, or TFF's `ClientData`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors
from tff_personalization.models import named_inputs
from tff_personalization.tasks import archives
from tff_personalization.tasks.sources import named_classes

Features = np.ndarray | Mapping[str, np.ndarray]
Column = str | int | np.integer  # a table read without a header has numbers as the names of its columns


def from_arrays(
    x: Features,
    y: np.ndarray,
    client: np.ndarray,
    classes: Sequence[str],
    source: str,
    is_test: np.ndarray | None = None,
) -> archives.Archive:
    """The archive of examples in arrays.

    Args:
        x: shape (N, …), the network's input; several arrays by name for a network with named inputs.
        y: shape (N, …), what it predicts: indices into `classes`, labels of 0 and 1, or real numbers.
        client: shape (N,), the name of each example's client.
        classes: the names of the classes or labels.
        source: what the data is, in a few words; begins with "synthetic" if it was generated.
        is_test: bool, shape (N,), whether an example belongs to its client's test part. Without it, the run's seed
            chooses a fifth of each client's examples.

    Raises:
        UserError: the arrays do not fit together, or have values that cannot be used.
    """
    inputs = None
    y, client = _array("y", y), _array("client", client)
    parts = np.zeros(len(y), bool) if is_test is None else _array("is_test", is_test)
    if isinstance(x, Mapping):
        arrays = {name: _array(f"x[{name!r}]", array) for name, array in x.items()}
        _check_arrays({f"x[{name!r}]": array for name, array in arrays.items()}, y, client, classes, parts)
        x, inputs = named_inputs.pack(arrays), named_inputs.sizes(arrays)
    else:
        x = _array("x", x)
        _check_arrays({"x": x}, y, client, classes, parts)
    names, parts = _text(client), parts.astype(bool)
    return archives.Archive.from_names(x, y, names, parts, tuple(map(str, classes)), source, inputs=inputs)


def _array(name: str, values: Any) -> np.ndarray:
    """The values as an array. Raises UserError, with the name of the argument, if they are none or some are masked."""
    if np.ma.is_masked(values):
        raise errors.UserError(f"{name} has masked values: fill them, or leave their examples out.")
    try:
        return np.atleast_1d(np.asarray(values))
    except ValueError as error:  # lists of different lengths
        raise errors.UserError(f"{name} is not an array ({error}): give each example the same shape.") from error


def _text(names: np.ndarray) -> np.ndarray:
    """Names as text. Raises UserError if they cannot be names."""
    if names.dtype.kind not in "USOf":
        return names.astype(str)
    return np.array([archives.client_name("client", name) for name in names.ravel().tolist()], str)


def _check_arrays(
    xs: Mapping[str, np.ndarray], y: np.ndarray, client: np.ndarray, classes: Sequence[str], parts: np.ndarray
) -> None:
    """Raises UserError, with the name of the argument, if the arguments of `from_arrays` do not fit together."""
    if not xs:
        raise errors.UserError("x has no input: give at least one array.")
    for name, array in {"client": client, "is_test": parts}.items():
        if array.ndim != 1:
            raise errors.UserError(f"{name} has shape {array.shape}: give one value for each example.")
    for name, array in {**xs, "client": client, "is_test": parts}.items():
        if len(array) != len(y):
            raise errors.UserError(f"{name} has {len(array)} entries and y has {len(y)}: give one for each example.")
    for name, array in {**xs, "y": y}.items():
        if array.dtype.kind not in "biuf":
            raise errors.UserError(f"{name} has values such as {next(array.flat, None)!r}: give numbers.")
    if (missing := int(pd.isna(client).sum())) > 0:
        raise errors.UserError(f"client has {missing} missing values: name each example's client, or leave them out.")
    if parts.dtype.kind not in "biuf" or not np.isin(parts, (0, 1)).all():
        raise errors.UserError(f"is_test has values such as {parts.flat[0]!r}: give true or false for each example.")
    _check_classes(classes)
    if y.dtype.kind == "f":
        with np.errstate(over="ignore"):
            finite = np.isfinite(y.astype(np.float32))
        if not finite.all():
            raise errors.UserError("y has values that are not finite as float32: leave their examples out.")
    elif y.ndim == 1 and len(y) and not (y.min() >= 0 and y.max() < len(classes)):
        hint = "; a single label that applies (1) or not (0) needs y of shape (N, 1)" if len(classes) == 1 else ""
        raise errors.UserError(
            f"y goes from {y.min()} to {y.max()}: indices into the {len(classes)} classes are expected{hint}."
        )


def _check_classes(classes: Sequence[str]) -> None:
    names = list(map(str, classes))
    if len(set(names)) < max(len(names), 1):
        raise errors.UserError(f"classes: {', '.join(names) or 'none'}: give different names, at least one.")


def from_frame(
    frame: pd.DataFrame,
    *,
    client: Column,
    features: Column | Sequence[Column] | Mapping[str, Sequence[Column]],
    labels: Column | Sequence[Column],
    classes: Sequence[str] | None = None,
    real_numbers: bool = False,
    split: Column | None = None,
    source: str,
) -> archives.Archive:
    """The archive of a table with a row for each example.

    Args:
        frame: the table.
        client: the column that names the client.
        features: the column or columns of the network's input, as float32; several lists by name for named inputs.
        labels: the column with the class; or several columns, each of a label that applies (1) or not (0); or the
            columns of real numbers.
        classes: the names of the classes; by default the sorted values of the column.
        real_numbers: whether the labels are real numbers, as in `outputs.real_numbers`.
        split: the column that says "train" or "test". Without it, a fifth of each client's examples is its test part.
        source: what the data is, in a few words.

    Raises:
        UserError: a column is missing, or has values that cannot be used.
    """
    by_name = features if isinstance(features, Mapping) else {"": _listed(features)}
    inputs = {name: _listed(names) for name, names in by_name.items()}
    columns = _listed(labels)
    if not columns:
        raise errors.UserError("labels: give at least one column.")
    named = [str(column) for column in columns]
    wanted = [client, *(name for names in inputs.values() for name in names), *columns]
    wanted += [] if split is None else [split]
    if missing := [name for name in wanted if name not in frame.columns]:
        raise errors.UserError(f"the table has no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}.")
    if twice := [name for name in wanted if list(frame.columns).count(name) > 1]:
        raise errors.UserError(f"the table has several columns {twice[0]!r}: rename or drop all but one.")
    if (holes := frame[wanted].isna().sum()).any():
        raise errors.UserError(f"the column {holes.idxmax()!r} has {holes.max()} missing values: drop or fill them.")
    arrays = {name: _numbers(frame, names) for name, names in inputs.items()}
    if real_numbers:
        y, names = _numbers(frame, columns), named
    elif not isinstance(labels, str | int | np.integer):
        numbers = _numbers(frame, columns)
        y, names = numbers.astype(np.int32), named if classes is None else list(classes)
        if not np.isin(numbers, (0, 1)).all():
            raise errors.UserError(f"the labels {', '.join(named)} have values other than 0 and 1: convert them.")
    else:
        names = list(frame[labels].unique() if classes is None else classes)
        if classes is None:
            try:
                names = sorted(names)
            except TypeError as error:
                raise errors.UserError(
                    f"the column {labels!r} has values of several types: convert them, or give their order as classes."
                ) from error
        _check_classes(names)
        y = pd.Index(names).get_indexer(frame[labels]).astype(np.int32)
        if len(unknown := frame[labels][y < 0]):
            raise errors.UserError(f"the column {labels!r} has {unknown.iloc[0]!r}, which is none of the classes.")
    return from_arrays(
        arrays if isinstance(features, Mapping) else arrays[""],
        y,
        frame[client].to_numpy(),
        names,
        source,
        None if split is None else named_classes.is_test(f"the column {split!r}", frame[split].tolist()),
    )


def _listed(columns: Column | Sequence[Column]) -> list[Column]:
    return [columns] if isinstance(columns, str | int | np.integer) else list(columns)


def _numbers(frame: pd.DataFrame, columns: Sequence[Column]) -> np.ndarray:
    """The columns as float32, shape (N, columns). Raises UserError if a value is not a number, or would be rounded."""
    numbers = np.empty((len(frame), len(columns)), np.float32)
    for place, column in enumerate(columns):
        values = pd.Series(frame[column].to_numpy()).infer_objects()
        try:
            if values.dtype.kind in "mMc":  # times, which would become nanoseconds, and complex numbers
                raise TypeError(values.dtype)
            with np.errstate(over="ignore"):  # `Task.check` refuses what is not finite
                numbers[:, place] = values.to_numpy(np.float32)
        except (TypeError, ValueError) as error:
            raise errors.UserError(
                f"the column {column!r} has values that are not numbers ({error}): convert them, as with "
                "pandas.get_dummies."
            ) from error
        named_inputs.check_integers(f"the column {column!r}", values.to_numpy())
    return numbers


def from_client_data(
    train: tff.simulation.datasets.ClientData,
    test: tff.simulation.datasets.ClientData | None,
    example: Callable[..., tuple[Any, Any]],
    classes: Sequence[str],
    source: str,
    preprocess: Callable[[tf.data.Dataset], tf.data.Dataset] = lambda dataset: dataset,
    clients: Sequence[str] | None = None,
) -> archives.Archive:
    """The archive of TFF client data. Each client is read once.

    If clients are in one part only, the run's seed splits their examples, and the clients of the test part are held
    out. A name that is in both parts is one client (in TFF's CIFAR-100 it is two: see `sources/tff_cifar100.py`).

    Args:
        train: the train part of each client's data.
        test: the test part; None if there is only one.
        example: maps an element (if it is a tuple, its parts) to (x, y), tensors of one example; x may be a mapping of
            named inputs.
        classes: the names of the classes or labels.
        source: what the data is, in a few words.
        preprocess: applied to a client's dataset first; its elements are single examples.
        clients: the clients to read; by default all.

    Raises:
        UserError: there is no example, or no client of a name in `clients`.
    """
    xs, ys, names, parts = [], [], [], []
    inputs = None
    known = [dict.fromkeys(data.client_ids if data is not None else ()) for data in (train, test)]
    wanted = None if clients is None else dict.fromkeys(clients)
    if unknown := [client for client in wanted or () if not any(client in ids for ids in known)]:
        raise errors.UserError(f"{source}: {unknown[0]!r} is not one of its clients.")
    for data, ids, is_test in zip((train, test), known, (False, True), strict=True):
        for client in ids if wanted is None else filter(ids.__contains__, wanted):
            examples = preprocess(data.create_tf_dataset_for_client(client)).map(example)
            for x, y in examples.batch(4096).as_numpy_iterator():
                if isinstance(x, Mapping):
                    x, inputs = named_inputs.pack(x), named_inputs.sizes(x)
                xs.append(x)
                ys.append(y)
                names += [client] * len(y)
                parts += [is_test] * len(y)
    if not xs:
        raise errors.UserError(f"{source}: no client has an example.")
    archive = from_arrays(np.concatenate(xs), np.concatenate(ys), np.array(names), classes, source, np.array(parts))
    return dataclasses.replace(archive, inputs=inputs)
