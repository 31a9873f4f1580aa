"""Finds what looks wrong with client data before training; each finding is one sentence.

Comparisons with the reference characters use a sample, so a large archive takes seconds.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from tff_personalization.tasks import archives, references
from tff_personalization.tasks.sources import emnist_files, gathering

_MOST_IMAGES = 100_000  # images whose border and range are checked
_SAMPLE = 2_000  # images that are compared with the reference
_PER_WRITER, _MOST_WRITERS = 60, 150  # images of a client, and clients, that are compared with it
_LEAST_CLASSES = 5  # fewest classes of a client to compare it by itself: a few characters may look the same upside down
_MOST_PAIRED = 400  # clients whose train and test images are compared with one another
_NEAR = 0.003  # the squared difference of near-duplicates, relative to their ink
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that looks wrong: `kind` is one word for it, `text` a sentence."""

    kind: str
    text: str


def findings(archive: archives.Archive) -> list[Finding]:
    """What looks wrong with an archive, the worst first; empty if nothing does."""
    found = list(_parts(archive))
    if isinstance(archive, archives.CharacterArchive) and len(archive.y):
        found = [*_images(archive), *_orientation_and_labels(archive), *_duplicates(archive), *found]
    return found


def _named(archive: archives.Archive, clients: np.ndarray) -> str:
    """How many clients, of how many, and the names of a few."""
    names = ", ".join(archive.clients[client] for client in clients[:_NAMED])
    return f"{len(clients):,} of {len(archive.clients):,} clients ({names}{', …' if len(clients) > _NAMED else ''})"


def _images(archive: archives.CharacterArchive) -> Iterator[Finding]:
    """Polarity and range, of all and of each client."""
    step = -(-len(archive.y) // _MOST_IMAGES)
    images, clients = archive.images[::step], archive.client_index[::step]
    writers = len(archive.clients)
    seen = np.bincount(clients, minlength=writers)
    bright = np.bincount(clients, gathering.bright_border(images), writers) / np.maximum(seen, 1)
    inverted = np.flatnonzero((bright > 0.5) & (seen > 0))
    if len(inverted):
        yield Finding(
            "polarity",
            f"{_named(archive, inverted)} have images with a bright background, where ink 255 on background 0 is "
            "expected: invert theirs.",
        )
    brightest = images.max(axis=(1, 2))
    of_client = np.zeros(writers, np.uint8)
    np.maximum.at(of_client, clients, brightest)
    faint = np.flatnonzero((of_client < 64) & (of_client > 0))
    if len(faint):
        yield Finding(
            "range",
            f"{_named(archive, faint)} have no pixel above {of_client[faint].max()} of 255: multiply theirs to the "
            "full range.",
        )
    blank = int((brightest == 0).sum()) * step
    if blank:
        yield Finding("blank", f"About {blank:,} images are blank." if step > 1 else f"{blank:,} images are blank.")


def _ink(images: np.ndarray) -> np.ndarray:
    """Images with bright ink, inverted if necessary."""
    return np.where(gathering.bright_border(images)[:, None, None], 255 - images, images)


def label_maps(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Other meanings of labels than 0-9, A-Z, a-z: the class of each label from 0 to 61, -1 for none."""
    places = np.arange(len(archives.CLASSES))
    maps = {
        "one less: they begin at 1": places - 1,
        "one more: they begin at -1": np.where(places < 61, places + 1, -1),
        "A-Z from 1, as EMNIST's letters": np.where((places >= 1) & (places <= 26), places + 9, -1),
        "A-Z from 0": np.where(places < 26, places + 10, -1),
        "EMNIST's 47 balanced classes": np.array(
            [archives.CLASSES.index(c) for c in emnist_files.BALANCED] + [-1] * (len(places) - 47)
        ),
        "0-9, a-z, A-Z": np.concatenate([places[:10], places[36:], places[10:36]]),
    }
    present = np.unique(labels)
    return {name: of for name, of in maps.items() if (of[present] >= 0).all()}


def _orientation_and_labels(archive: archives.CharacterArchive) -> Iterator[Finding]:
    """The orientation of the images, of all and of each client, and the meaning of their labels."""
    some = np.linspace(0, len(archive.y) - 1, min(len(archive.y), _SAMPLE)).astype(int)
    images, labels = archive.images[some], archive.labels[some]
    images = _ink(images)
    alike = references.similarities(images)
    rows = np.arange(len(labels))
    own = alike[:, rows, labels]
    best = int(own.mean(axis=1).argmax())
    turned = references.clearly_greater(own[best], own[0])
    for name, meant in label_maps(archive.labels).items():
        differ = meant[labels] != labels
        other = alike[:, rows, meant[labels]].max(axis=0) if turned else alike[0, rows, meant[labels]]
        plain = own.max(axis=0) if turned else own[0]
        if differ.mean() <= 0.1 or other[differ].mean() < references.ALIKE:
            continue
        if references.clearly_greater(other[differ], plain[differ], margin=0.06):
            yield Finding(
                "labels",
                f"The labels seem to mean {name}, not 0-9, A-Z, a-z from 0: the images are more like these characters.",
            )
            return
    if own[best].mean() < references.ALIKE:
        return  # none of these characters: nothing to compare
    if turned:
        yield Finding(
            "orientation",
            f"The images seem to be {references.ORIENTATIONS[best]}: upright, they would look more like the characters "
            "that their labels name. Turn them.",
        )
        return
    wrong: dict[str, list[int]] = {}
    for client, mine in _some_clients(archive, _MOST_WRITERS):
        mine = mine[:: max(1, len(mine) // _PER_WRITER)]
        if len(mine) < 20 or len(np.unique(archive.y[mine])) < _LEAST_CLASSES:
            continue
        images = _ink(archive.images[mine])
        own = references.own_similarities(images, archive.labels[mine])
        best = int(own.mean(axis=1).argmax())
        if best and references.clearly_greater(own[best], own[0], errors=3.5):
            wrong.setdefault(references.ORIENTATIONS[best], []).append(client)
    for orientation, clients in wrong.items():
        yield Finding("orientation", f"{_named(archive, np.array(clients))} seem to have {orientation} images.")


def _some_clients(archive: archives.Archive, most: int) -> Iterator[tuple[int, np.ndarray]]:
    """Up to `most` clients, from all over the archive, each with the sorted indices of its examples."""
    chosen = np.unique(np.linspace(0, len(archive.clients) - 1, most).astype(int))
    order = np.argsort(archive.client_index, kind="stable")
    starts, stops = np.searchsorted(archive.client_index[order], [chosen, chosen + 1])
    return ((client, order[start:stop]) for client, start, stop in zip(chosen, starts, stops, strict=True))


def hashes(images: np.ndarray) -> np.ndarray:
    """A hash of each image, uint8 of shape (n, 28, 28): equal for equal bytes, and almost never for others."""
    factors = np.random.default_rng(0).integers(1, 2**63, 98, np.uint64) | np.uint64(1)
    words = np.ascontiguousarray(images).reshape(len(images), -1).view(np.uint64)
    mixed = words * factors
    mixed ^= mixed >> np.uint64(29)
    return (mixed * factors[::-1]).sum(axis=1, dtype=np.uint64)


def _duplicates(archive: archives.CharacterArchive) -> Iterator[Finding]:
    """Images that occur in both parts of a client, or in two clients."""
    number = np.concatenate([hashes(archive.images[i : i + 8192]) for i in range(0, len(archive.y), 8192)])
    inked = number != 0
    _, picture = np.unique(number, return_inverse=True)
    clients, is_test = archive.client_index, archive.is_test
    key = picture.astype(np.int64) * len(archive.clients) + clients
    leaked = is_test & inked & np.isin(key, key[~is_test])
    writers = len(archive.clients)
    lost, tested = np.bincount(clients[leaked], minlength=writers), np.bincount(clients[is_test], minlength=writers)
    if _many(leaked.sum(), is_test.sum()) or ((lost >= 3) & (lost >= 0.1 * tested)).any():
        yield Finding(
            "duplicates",
            f"{leaked.sum():,} of {is_test.sum():,} test images are also in their client's train part, byte for byte, "
            f"for {_named(archive, np.flatnonzero(lost))}: gains on these images say nothing. Remove them.",
        )
    pairs = np.unique(key[inked])
    owners = np.bincount(pairs // writers, minlength=picture.max() + 1)
    shared = inked & (owners[picture] > 1)
    of_client, all_of_client = (np.bincount(part, minlength=writers) for part in (clients[shared], clients))
    alike = np.flatnonzero((of_client >= 3) & (of_client >= 0.1 * all_of_client))
    if len(alike):
        yield Finding(
            "duplicates",
            f"{of_client[alike].sum():,} images of {_named(archive, alike)} are in another client too, byte for byte: "
            "are they one writer under two names?",
        )
    low, high = (np.full(picture.max() + 1, fill) for fill in (len(archive.classes), -1))
    np.minimum.at(low, picture, archive.y)
    np.maximum.at(high, picture, archive.y)
    torn = inked & (low != high)[picture]
    if _many(torn.sum(), len(torn)):
        yield Finding("duplicates", f"{torn.sum():,} images have several labels: the same image, byte for byte.")
    near = _near_duplicates(archive, leaked)
    if _many(near, is_test.sum()):
        yield Finding(
            "duplicates",
            f"{near:,} test images are nearly the same as a train image of their client: check if they are copies.",
        )


def _many(count: int, of: int) -> bool:
    """Whether a count is higher than by chance, since simple strokes can be equal twice."""
    return count > 0.01 * of


def _near_duplicates(archive: archives.CharacterArchive, leaked: np.ndarray) -> int:
    """How many test images are nearly equal to a train image of the same client, for a sample of clients."""
    near = 0
    for _, mine in _some_clients(archive, _MOST_PAIRED):
        mine = mine[:2000]
        tested, trained = mine[archive.is_test[mine] & ~leaked[mine]], mine[~archive.is_test[mine]]
        if not len(tested) or not len(trained):
            continue
        a, b = (_ink(archive.images[part]).reshape(len(part), -1).astype(np.float32) for part in (tested, trained))
        ink = (a * a).sum(1)
        distance = ink[:, None] + (b * b).sum(1) - 2 * a @ b.T
        near += int(((distance < _NEAR * ink[:, None]).any(axis=1) & (ink > 0)).sum())
    return near


def _parts(archive: archives.Archive) -> Iterator[Finding]:
    """Clients without a train or a test part."""
    counts = archive.counts
    present = counts.sum(axis=0) > 0
    for part, word, cannot in ((0, "train", "personalized for"), (1, "test", "evaluated, and count in no average")):
        lacking = np.flatnonzero((counts[part] == 0) & present)
        if len(lacking):
            yield Finding("parts", f"{_named(archive, lacking)} have no {word} example: they cannot be {cannot}.")
