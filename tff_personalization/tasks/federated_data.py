"""Makes clients from the flags: reads a source, splits each client's examples, and splits the clients."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from tff_personalization import errors, homes, identity, seeds
from tff_personalization.settings import Group, Setting
from tff_personalization.tasks import archives, checks, client_arrays, partitions, registry, sources, splits


class Settings(sources.Handwriting, partitions.Natural, partitions.Skewed, partitions.Shards):
    """The settings of the clients and of their split."""

    task = Setting("emnist62", "What the model learns to predict.", theme="data", choices=registry.TASKS)
    client_data = Setting(
        None,
        "Where the clients come from. For emnist62 and emnist10: handwriting (synthetic, generated; the default), "
        "digits (scikit-learn), tff (Federated EMNIST), or the path of a file or folder: a by-writer .npz archive, "
        "LEAF's JSON, TFF's SQLite or HDF5, Parquet, Arrow, pictures, CSV, EMNIST's MATLAB or IDX (docs/data.md). "
        "For shakespeare: plays (the roles of his plays; the default), tff, or the path of TFF's or LEAF's files. "
        "For cifar100 and stackoverflow: tff. A plugin's task brings its own.",
        theme="data",
        kind=str,
    )
    partition = Setting(
        partitions.NATURAL,
        "Which client gets which examples. natural: as in the data. The others make up clients. dirichlet: clients "
        "differ in their classes; pathological: each client has --partition_classes classes; quantity: clients differ "
        "in their numbers of examples.",
        theme="data",
        choices=partitions.SETTINGS,
    )
    test_client_ids: Setting[str | None] = Setting(
        None, "File with the names of the held-out test clients, one per line.", theme="data", kind=str
    )
    train_client_ids: Setting[str | None] = Setting(
        None, "File with the names of the clients that train (or validate), one per line.", theme="data", kind=str
    )
    train_clients: Setting[int | None] = Setting(
        None, "Number of train clients. Default: all that are not held out.", theme="data", kind=int, least=1
    )
    validation_clients = Setting(0, "Number of clients used for validation instead of training.", theme="data", least=0)
    test_clients: Setting[int | None] = Setting(
        None,
        "Number of held-out test clients. Default: 900/3,400 (26 %) of the clients.",
        theme="data",
        kind=int,
        least=1,
    )
    evaluate_on = Setting(
        "test",
        "Which clients are evaluated at the end. validation: only the validation clients, never the test clients. The "
        "trials of a [search] use it.",
        theme="data",
        choices=("test", "validation"),
    )
    data_seed: Setting[int | None] = Setting(
        None,
        "Seed of the data: synthetic writers, made-up clients, train and test parts, and the choice of held-out "
        "clients. Give it to train several seeds on the same clients. Default: --seed.",
        theme="data",
        kind=int,
        least=0,
    )
    seed = Setting(1, "Seeds every random choice except DP noise and compression rounding.", theme="run", least=0)


@dataclasses.dataclass(frozen=True)
class FederatedData:
    """All clients, each with a train and a test part, and their split into train, validation and test clients.

    Attributes:
        train: every client's train part.
        test: every client's test part.
        split: the train, validation and test clients.
        source: what the data is, in words; begins with "synthetic" if it was generated.
        notes: what was found when the data was read, one sentence each.
        findings: what looks wrong with it, one sentence each.
        sha256: hash of all examples with their clients and parts, in hexadecimal digits.
        examples_sha256: hash of all examples with their clients, independent of their order and parts; "" if they were
            generated. It does not depend on the seed.
    """

    train: client_arrays.ClientArrays
    test: client_arrays.ClientArrays
    split: splits.ClientSplit
    source: str
    sha256: str
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    examples_sha256: str = ""

    @property
    def synthetic(self) -> bool:
        return self.source.startswith("synthetic")


def path_of(config: Settings) -> pathlib.Path | None:
    """The file or folder of the client data; None for a named source, or if it is missing."""
    path = homes.expand(config.client_data)
    named = config.client_data in registry.TASKS[config.task].sources.named
    return path if not named and path.exists() else None


def check_places(config: Settings) -> None:
    """Raises UserError if the client data, or a file that names clients, is missing. Reads nothing."""
    registry.TASKS[config.task].sources.find(str(homes.expand(config.client_data)))
    for name in identity.CLIENT_IDS:
        path = getattr(config, name)
        if path is not None and not homes.expand(path).is_file():
            raise errors.UserError(f"--{name}={path}: there is no such file.")


def read(config: Settings, of_source: Group | None = None, *, needs_clients: bool) -> archives.Archive:
    """The client data that the settings name, with its own clients.

    Args:
        config: the settings that name the data.
        of_source: the values of the source's own settings; if None, those in `config`, or their defaults.
        needs_clients: whether data that does not name its examples' clients is refused.

    Raises:
        UserError: the source cannot be read, or does not fit the task.
    """
    task = registry.TASKS[config.task]
    options = sources.SourceOptions(
        client_data=str(homes.expand(config.client_data)),
        num_classes=task.num_classes,
        seed=_seed(config),
        cache_dir=config.cache_dir or "",
        needs_clients=needs_clients,
        settings=of_source or task.sources.settings_of(config.client_data).read(config.values),
    )
    archive = sources.load(options, task.sources)
    try:
        task.check(archive)
    except errors.UserError as error:
        raise errors.UserError(f"--client_data={config.client_data}: {error}") from error
    return archive


def dealt(config: Settings, archive: archives.Archive) -> archives.Archive:
    """Client data with the clients that the settings ask for: its own, or others to whom its examples are dealt."""
    if config.partition != partitions.NATURAL:
        archive = partitions.deal(
            archive,
            seeds.generator(_seed(config), "partition"),
            config.partition,
            clients=config.partition_clients,
            alpha=config.partition_alpha,
            classes=config.partition_classes,
        )
    if config.deal_examples_at_random:
        archive = archives.deal_at_random(archive, seeds.generator(_seed(config), "deal"))
    return archive


def _seed(config: Settings) -> int:
    return config.seed if config.data_seed is None else config.data_seed


def load(config: Settings, look: bool = False, of_source: Group | None = None) -> FederatedData:
    """Loads the client data that the settings name and splits the clients.

    Args:
        config: the settings that name the data.
        look: whether to look for problems in data that was not generated (`FederatedData.findings`).
        of_source: the values of the source's own settings; if None, those in `config`, or their defaults.

    Raises:
        UserError: the source cannot be read, or the numbers of clients do not fit.
    """
    archive = read(config, of_source, needs_clients=config.partition == partitions.NATURAL)
    examples_sha256 = "" if archive.source.startswith("synthetic") else _examples_sha256(archive)
    archive = dealt(config, archive)
    train, test = client_arrays.to_client_data(archive)
    looked_at = look and not archive.source.startswith("synthetic")
    findings = tuple(finding.text for finding in checks.findings(archive)) if looked_at else ()
    testing, training = (_named_clients(name, getattr(config, name), train.client_ids) for name in identity.CLIENT_IDS)
    split = splits.split_clients(
        train.client_ids,
        seeds.generator(_seed(config), "client_split"),
        config.train_clients,
        config.validation_clients,
        config.test_clients,
        testing or archive.held_out,
        training,
    )
    source = archive.source
    if config.evaluate_on == "validation":
        split = splits.ClientSplit(split.train, validation=(), test=split.validation)
        source += ", validation clients"
    if not np.sum([test.num_examples(client) for client in split.test]):
        raise errors.UserError(
            f"--client_data={config.client_data}: none of the {len(split.test)} test clients has a test example, so "
            "nothing can be evaluated: name others with --test_client_ids, or use clients with two examples or more."
        )
    if not np.sum([train.num_examples(client) for client in split.train]):
        raise errors.UserError(
            f"--client_data={config.client_data}: no train client has a train example: use other client data or other "
            "--test_client_ids."
        )
    return FederatedData(train, test, split, source, _sha256(archive), archive.notes, findings, examples_sha256)


def client_ids_sha256(config: Settings) -> dict[str, str]:
    """The SHA-256 of the clients that each file of client ids names, by flag; only of flags that are given.

    Raises:
        UserError: a file cannot be read.
    """
    given = {name: path for name in identity.CLIENT_IDS if (path := getattr(config, name)) is not None}
    return {
        name: hashlib.sha256(json.dumps(_names_in(name, path)).encode()).hexdigest() for name, path in given.items()
    }


def _names_in(flag: str, path: str) -> tuple[str, ...]:
    """The names in a file, one a line."""
    try:
        lines = homes.expand(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.UserError(
            f"--{flag}={path} cannot be read ({error}): give a text file with one client per line."
        ) from error
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _named_clients(flag: str, path: str | None, clients: Sequence[str]) -> tuple[str, ...]:
    """The clients that a file names; empty without a file."""
    if path is None:
        return ()
    names = _names_in(flag, path)
    unknown = sorted(set(names) - set(clients))
    if unknown or not names:
        what = f"{unknown[0]!r} is no client of the data" if unknown else "it names no client"
        raise errors.UserError(f"--{flag}={path}: {what}; its clients have names such as {min(clients)!r}.")
    return names


def _examples_sha256(archive: archives.Archive) -> str:
    names = [f"{name}\0".encode() for name in archive.clients]
    x, y = np.ascontiguousarray(archive.x), np.ascontiguousarray(archive.y)
    found = sorted(
        names[client] + hashlib.blake2b(example.tobytes() + label.tobytes(), digest_size=16).digest()
        for example, label, client in zip(x, y, archive.client_index.tolist(), strict=True)
    )
    return hashlib.sha256(json.dumps(archive.classes).encode() + b"".join(found)).hexdigest()


def _sha256(archive: archives.Archive) -> str:
    digest = hashlib.sha256(json.dumps([archive.clients, archive.classes]).encode())
    for array in (archive.x, archive.y, archive.client_index, archive.is_test):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
