"""Makes clients from an archive's examples by their labels: the non-IID partitions of the literature.

    dirichlet     draws a client's shares of K classes from Dirichlet(α K p); p are the shares in the archive. With
                  equal p this is Dirichlet(α, …, α). It follows Hsu et al. (2019, "Measuring the Effects of
                  Non-Identical Data Distribution"), who draw from Dirichlet(α p): their α is K times this one
    pathological  examples sorted by class are cut into shards, and a client gets c of them (McMahan et al. 2017)
    quantity      a client's share of the examples is drawn from Dirichlet(α); classes are as in the archive

Each client's examples are then split 80:20 within classes. So its train and test parts have the same shares, and a
model can be personalized to them. Such a client is not a person: results on it say nothing about writers.
"""

import dataclasses

import numpy as np

from tff_personalization import errors
from tff_personalization.settings import Group, Setting
from tff_personalization.tasks import archives

NATURAL, DIRICHLET, PATHOLOGICAL, QUANTITY = "natural", "dirichlet", "pathological", "quantity"
DEFAULT_CLIENTS = 100
_FEWEST = 2  # fewest examples of a client: one for each part


class Natural(Group):
    """The settings of the data's own clients."""

    deal_examples_at_random = Setting(
        False,
        "Assign all examples to clients at random, so that no client has a style of its own: a control.",
        theme="data",
    )


class Made(Group):
    """The settings that all made-up clients share."""

    partition_clients: Setting[int | None] = Setting(
        None,
        f"Number of clients that a partition makes. Default: as many as the data has, or {DEFAULT_CLIENTS} if it "
        "has no clients.",
        theme="data",
        kind=int,
        least=2,
    )


class Skewed(Made):
    """The settings of a partition by a Dirichlet distribution."""

    partition_alpha = Setting(
        0.5,
        "α of the distributions of --partition=dirichlet and quantity. A smaller α makes clients differ more.",
        theme="data",
        positive=True,
    )


class Shards(Made):
    """The settings of a partition that gives each client a few classes."""

    partition_classes = Setting(2, "Classes of each client with --partition=pathological.", theme="data", least=1)


SETTINGS: dict[str, type[Group]] = {NATURAL: Natural, DIRICHLET: Skewed, PATHOLOGICAL: Shards, QUANTITY: Skewed}


def deal(
    archive: archives.Archive,
    rng: np.random.Generator,
    kind: str,
    *,
    clients: int | None = None,
    alpha: float = 0.5,
    classes: int = 2,
) -> archives.Archive:
    """Deals the archive's examples to made-up clients.

    Args:
        archive: the examples; their own clients do not matter.
        rng: source of the random choices.
        kind: a partition of `SETTINGS`, not natural.
        clients: how many to make; None for as many as the archive has, or 100 if it names none.
        alpha: α of the Dirichlet distributions. Clients differ more with a smaller α.
        classes: c, the number of a client's shards, and so the most classes that it can have.

    Raises:
        UserError: there are too few examples, or examples do not have one class each.
    """
    if archive.y.ndim != 1:
        raise errors.UserError(
            f"--partition={kind} needs one class for each example, and these examples have other labels: remove it."
        )
    if clients is None:
        clients = len(np.unique(archive.client_index)) if archive.has_clients else DEFAULT_CLIENTS
    if len(archive.y) < _FEWEST * clients:
        raise errors.UserError(
            f"--partition_clients={clients}: there are {len(archive.y)} examples, and a client needs {_FEWEST}; give "
            f"{len(archive.y) // _FEWEST} or fewer."
        )
    if kind == PATHOLOGICAL:
        owner, words = _pathological(archive.y, rng, clients, classes), f"{classes} classes a client"
    elif kind == DIRICHLET:
        owner, words = _dirichlet(archive.y, rng, clients, alpha), f"Dirichlet label skew, α = {alpha:g}"
    else:
        owner, words = _quantity(archive.y, rng, clients, alpha), f"Dirichlet quantity skew, α = {alpha:g}"
    dealt = owner >= 0
    if not dealt.all():
        archive, owner = archive.select(dealt), owner[dealt]
        words += f", {len(dealt) - len(owner):,} examples of other classes left out"
    names = tuple(f"part_{number:0{len(str(clients - 1))}d}" for number in range(clients))
    base = archive.source.split(", ")[0] if not archive.source.startswith("synthetic") else archive.source
    return dataclasses.replace(
        archive,
        client_index=owner,
        is_test=archives.split_by_client(archive.y, owner, rng),
        clients=names,
        source=f"{base}, dealt to {clients} made-up clients ({words})",
        has_clients=True,
        held_out=(),
        notes=(
            *archive.notes[:1],
            f"The examples are assigned to {clients} made-up clients, which are not writers: {words}. The examples of "
            "each are split 80:20 into train and test within classes.",
        ),
    )


def _dirichlet(y: np.ndarray, rng: np.random.Generator, clients: int, alpha: float) -> np.ndarray:
    """Clients draw their examples by turns from those that are left, by their own shares of the classes.

    So all clients have about the same number of examples, and α affects only the labels.
    """
    present, labels = np.unique(y, return_inverse=True)
    left = [rng.permutation(np.flatnonzero(labels == label)).tolist() for label in range(len(present))]
    prior = np.bincount(labels) / len(labels)
    owner = np.empty(len(y), np.int32)
    # All draw by turns: otherwise the last clients would get what is left when classes run out.
    shares = np.array(
        [_positive(rng.dirichlet(np.maximum(alpha * prior * len(present), 1e-9))) for _ in range(clients)]
    )
    order = np.concatenate([rng.permutation(clients) for _ in range(-(-len(y) // clients))])[: len(y)]
    cumulative = np.cumsum(shares, axis=1)
    for client in order.tolist():
        label = int(np.searchsorted(cumulative[client], rng.random() * cumulative[client, -1], side="right"))
        label = min(label, len(present) - 1)
        owner[left[label].pop()] = client
        if not left[label]:
            shares[:, label] = 0
            shares[shares.sum(axis=1) <= 0] = [float(bool(places)) for places in left]
            cumulative = np.cumsum(shares, axis=1)
    return owner


def _positive(shares: np.ndarray) -> np.ndarray:
    """Shares that add up to 1, even if α is so small that NumPy gives NaN."""
    return shares if np.isfinite(shares).all() and shares.sum() > 0 else np.full(len(shares), 1 / len(shares))


def _pathological(y: np.ndarray, rng: np.random.Generator, clients: int, classes: int) -> np.ndarray:
    """Makes shards of one class each, of about equal size. A client gets `classes` of them, of different classes."""
    present, labels, counts = np.unique(y, return_inverse=True, return_counts=True)
    shards = clients * classes
    if classes > len(present):
        raise errors.UserError(f"--partition_classes={classes}: the data has {len(present)} classes: give fewer.")
    # The number of shards of each class: by its size, at least one, and at most its examples or the clients.
    given = np.minimum(np.maximum(1, np.floor(counts / counts.sum() * shards)), np.minimum(counts, clients)).astype(int)
    while given.sum() != shards:
        step = 1 if given.sum() < shards else -1
        free = given < np.minimum(counts, clients) if step > 0 else given > (1 if shards >= len(present) else 0)
        if not free.any():
            raise errors.UserError(
                f"--partition_classes={classes}: {clients} clients need {shards} shards, more than the classes give: "
                "give fewer --partition_clients, or fewer classes."
            )
        given[np.flatnonzero(free)[np.argmax(step * (counts / np.maximum(given, 1e-9))[free])]] += step
    owner = np.full(len(y), -1, np.int32)  # if there are fewer shards than classes, some classes are left out
    # Deals the shards to the clients by turns. A class has at most one shard for each client, so no client gets two.
    turn = rng.permutation(clients)
    place = 0
    for label in rng.permutation(len(present)):
        examples = rng.permutation(np.flatnonzero(labels == label))
        for shard in np.array_split(examples, given[label]) if given[label] else []:
            owner[shard] = turn[place % clients]
            place += 1
    return owner


def _quantity(y: np.ndarray, rng: np.random.Generator, clients: int, alpha: float) -> np.ndarray:
    """Each client gets two examples, and a share of the rest that is drawn from Dirichlet(α)."""
    shares = _positive(rng.dirichlet(np.full(clients, alpha)))
    counts = _FEWEST + rng.multinomial(len(y) - _FEWEST * clients, shares / shares.sum())
    owner = np.empty(len(y), np.int32)
    owner[rng.permutation(len(y))] = np.repeat(np.arange(clients, dtype=np.int32), counts)
    return owner
