"""Client data from pictures of one character each: a folder `client/class/*.png`, or a table of paths in a CSV file.

Pictures may have any size, and be grey, coloured or transparent. They are padded to a square with their background and
resized to 28 x 28. If a client's background is bright, its pictures are inverted to ink 255 on 0. Folders train and
test around the clients are the parts; a folder `class/*.png` names no clients. For names of classes see
`named_classes.classes_of`. A CSV file has a column for the picture's path, relative to the file's folder, and one for
the label. Columns for the client and for train or test are optional.
"""

import csv
import dataclasses
import io
import pathlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tff_personalization import errors
from tff_personalization.tasks import archive_cache, archives, sources
from tff_personalization.tasks.sources import forms, gathering, named_classes

_PARTS = {"train": False, "training": False, "test": True, "testing": True}
_BATCH = 512
_MOST_PIXELS = 10_000_000
_DAMAGES = (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)
Row = tuple[pathlib.Path, str, str, bool]
"""A picture, its client, the name of its class, and whether it is a test example."""


def load(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The pictures in the folder `options.client_data`; cached in `options.cache_dir`.

    Raises:
        UserError: a picture is damaged, or is not in a folder of a class.
    """
    rows, has_clients = _rows_of_folder(options.client_data)
    return _load(options, rows, has_clients, "a folder of pictures", [row[0] for row in rows])


def load_csv(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The pictures that the CSV file `options.client_data` names; cached in `options.cache_dir`.

    Raises:
        UserError: if the file is malformed, or a picture is missing or damaged.
    """
    path = pathlib.Path(options.client_data)
    rows, has_clients = _rows_of_table(path)
    return _load(options, rows, has_clients, "pictures named by a CSV file", [path, *(row[0] for row in rows)])


def _load(
    options: sources.SourceOptions, rows: list[Row], has_clients: bool, form: str, files: list[pathlib.Path]
) -> archives.CharacterArchive:
    def make(allocate: archive_cache.Allocate) -> archives.CharacterArchive:
        gathered = gathering.Gathered(gathering.name_of(options.client_data))
        classes = named_classes.classes_of(options.client_data, {row[2] for row in rows})
        sizes: set[tuple[int, int]] = set()
        with gathering.bar_of(options, len(rows), " pictures") as bar:
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                images = np.stack([_read_file(row[0], sizes) for row in batch])
                labels = np.array([classes[row[2]] for row in batch])
                gathered.add([row[1] for row in batch], images, labels, np.array([row[3] for row in batch]))
                bar.update(len(batch))
        shown = (
            f"{form}, {' x '.join(map(str, next(iter(sizes))))}" if len(sizes) == 1 else f"{form} of {len(sizes)} sizes"
        )
        return gathered.archive(allocate, shown, has_clients=has_clients, each_client=True)

    for file in files:
        if not file.is_file():
            raise errors.UserError(f"{options.client_data}: the picture {file} is not there: correct its path.")
    return gathering.cached(options, make, files)


def _rows_of_folder(path: str) -> tuple[list[Row], bool]:
    root = pathlib.Path(path)
    files = sorted(file for file in forms.below(root) if file.name.lower().endswith(forms.ENDINGS[forms.PICTURES]))
    rows, named = [], set()
    for file in files:
        *folders, _ = file.relative_to(root).parts
        part = _PARTS.get(folders[0].lower()) if folders else None
        folders = folders[1:] if part is not None else folders
        if len(folders) not in (1, 2):
            raise errors.UserError(
                f"{file}: pictures are expected in folders client/class, or in class: move it there."
            )
        named.add(len(folders) == 2)
        rows.append((file, folders[0] if len(folders) == 2 else "", folders[-1], bool(part)))
    if len(named) > 1:
        raise errors.UserError(f"{path}: some pictures are in folders client/class and some in class: keep to one.")
    return rows, named == {True}


def _rows_of_table(path: pathlib.Path) -> tuple[list[Row], bool]:
    with (
        gathering.plain_damage(path, "a CSV file", csv.Error, UnicodeDecodeError),
        path.open(encoding="utf-8-sig", newline="") as file,
    ):
        first = file.readline()
        delimiter = max(",;\t", key=first.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        names = [name.strip() for name in next(reader, [])]
        columns = named_classes.columns(str(path), names)
        places = {role: names.index(name) for role, name in dataclasses.asdict(columns).items() if name is not None}
        rows: list[Row] = []
        for cells in reader:
            if not cells:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(names) or any(not cells[place].strip() for place in places.values()):
                raise errors.UserError(f"{where}: {len(names)} cells are expected, and none empty.")
            client = cells[places["client"]].strip() if "client" in places else ""
            part = "part" in places and named_classes.is_test(where, [cells[places["part"]]])[0]
            picture = path.parent / cells[places["picture"]].strip().replace("\\", "/")
            rows.append((picture, client, cells[places["label"]].strip(), bool(part)))
    if not rows:
        raise errors.UserError(f"{path}: there is no row below the names of the columns.")
    return rows, columns.client is not None


def _read_file(path: pathlib.Path, sizes: set[tuple[int, int]]) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise errors.UserError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    return read(str(path), content, sizes)


def read(where: str, content: bytes, sizes: set[tuple[int, int]] | None = None) -> np.ndarray:
    """The picture in a file's `content`, as uint8 of shape (28, 28), in its own polarity.

    Args:
        where: its name in errors.
        content: a file in one of the usual formats.
        sizes: gets the picture's width and height.

    Raises:
        UserError: it is damaged, or too large for one character.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise errors.UserError(
                    f"{where}: a picture of {opened.width} x {opened.height} pixels: one character each is expected."
                )
            if sizes is not None:
                sizes.add(opened.size)
            levels = _grey(ImageOps.exif_transpose(opened) or opened)
    except _DAMAGES as error:
        reason = " ".join(str(error).split())[:100]
        raise errors.UserError(f"{where}: a picture cannot be read ({reason}): save it again, as PNG.") from error
    if levels.shape == archives.IMAGE_SHAPE:
        return levels
    height, width = levels.shape
    edge = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    side = max(height, width)
    square = np.full((side, side), np.median(edge), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = levels
    return np.asarray(Image.fromarray(square).resize(archives.IMAGE_SHAPE, Image.Resampling.LANCZOS))


def _grey(picture: Image.Image) -> np.ndarray:
    """A picture's grey levels: uint8, shape (height, width). Transparent pixels get the level opposite to the ink."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, np.float64)
        if not np.isfinite(values).all():
            raise ValueError("it has pixels that are NaN or infinite")
        highest = 65535 if picture.mode.startswith("I") and values.max() > 255 else 255
        return np.clip(np.rint(values * 255 / highest), 0, 255).astype(np.uint8)
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return np.asarray(picture.convert("L"))
    levels, opacity = (np.asarray(band, np.float64) for band in picture.convert("LA").split())
    weight = opacity.sum()
    background = 255.0 if not weight or (levels * opacity).sum() / weight < 128 else 0.0
    return np.rint(background + (levels - background) * opacity / 255).astype(np.uint8)
