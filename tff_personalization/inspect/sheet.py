"""Contact sheets: a few characters of twelve writers, as text or as a picture."""

import numpy as np

from tff_personalization.tasks import archives

WRITERS = 12
_TEXT_COLUMNS, _PICTURE_COLUMNS = 7, 20
_SHADES = " ░▒▓█"


def chosen(archive: archives.CharacterArchive, columns: int) -> list[tuple[str, np.ndarray]]:
    """Twelve clients, spread over the archive: each one's name, and the indices of its first examples by class."""
    order = np.lexsort((archive.labels, archive.client_index))
    present, starts, counts = np.unique(archive.client_index[order], return_index=True, return_counts=True)
    rows = []
    for i in np.unique(np.linspace(0, len(present) - 1, WRITERS).astype(int)):
        mine = order[starts[i] : starts[i] + counts[i]]
        rows.append(
            (archive.clients[present[i]], mine[np.linspace(0, len(mine) - 1, min(columns, len(mine))).astype(int)])
        )
    return rows


def text(archive: archives.CharacterArchive) -> str:
    """A row of characters for each writer, as block characters: seven lines of fourteen columns each."""
    lines = []
    for name, places in chosen(archive, _TEXT_COLUMNS):
        small = archive.images[places].reshape(-1, 7, 4, 14, 2).mean(axis=(2, 4))
        shades = np.minimum(small * len(_SHADES) / 192, len(_SHADES) - 1).astype(int)
        labels = " ".join(archive.classes[archive.labels[place]] for place in places)
        lines.append(f"{name}: {labels}")
        lines += ["|".join("".join(_SHADES[level] for level in row) for row in rows) for rows in shades.swapaxes(0, 1)]
    return "\n".join(lines)


def picture(archive: archives.CharacterArchive) -> tuple[np.ndarray, list[str]]:
    """A row of characters for each writer: uint8, shape (12 · 30, 20 · 30), ink 0 on 255, and the writers' names."""
    rows = chosen(archive, _PICTURE_COLUMNS)
    canvas = np.full((30 * len(rows), 30 * _PICTURE_COLUMNS), 255, np.uint8)
    for i, (_, places) in enumerate(rows):
        for j, place in enumerate(places):
            canvas[30 * i + 1 : 30 * i + 29, 30 * j + 1 : 30 * j + 29] = 255 - archive.images[place]
    return canvas, [name for name, _ in rows]
