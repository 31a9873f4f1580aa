"""The page of an inspection: facts, findings, a contact sheet, and the classes of each client."""

import base64
import html
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import figure
from PIL import Image

from tff_personalization.inspect import sheet
from tff_personalization.records import files
from tff_personalization.tasks import archives, checks

_MOST_CLIENTS = 100
_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}img{max-width:100%}"


def write(path: str, archive: archives.Archive, lines: Sequence[str], found: Sequence[checks.Finding]) -> None:
    """Writes the page to one self-contained file. Raises UserError if it cannot be written."""
    said = [f"<p>{html.escape(line)}</p>" for line in lines]
    findings = "".join(f"<li><b>{html.escape(one.kind)}</b>: {html.escape(one.text)}</li>" for one in found)
    parts = [*said, "<h2>Findings</h2>", f"<ul>{findings}</ul>" if found else "<p>None.</p>"]
    if isinstance(archive, archives.CharacterArchive):
        canvas, names = sheet.picture(archive)
        stream = io.BytesIO()
        Image.fromarray(canvas).resize((canvas.shape[1] * 2, canvas.shape[0] * 2), 0).save(stream, "PNG")
        listed = html.escape(", ".join(names))
        parts += [
            "<h2>Twelve clients</h2>",
            f"<p>From above: {listed}.</p>",
            _image(stream.getvalue(), "contact sheet"),
        ]
    if archive.y.ndim == 1:
        parts += ["<h2>Classes of each client</h2>", _image(clients_by_classes(archive), "clients by classes")]
    title = html.escape(archive.source)
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    files.write_named("html", pathlib.Path(path), f"{page}<h1>{title}</h1>{''.join(parts)}</html>\n")


def _image(png: bytes, words: str) -> str:
    return f'<img alt="{words}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def clients_by_classes(archive: archives.Archive) -> bytes:
    """A plot of clients × classes, as PNG. The area of a dot is a client's number of examples of a class."""
    present = np.unique(archive.client_index)
    present = present[np.unique(np.linspace(0, len(present) - 1, _MOST_CLIENTS).astype(int))]
    counts = np.zeros((len(archive.clients), len(archive.classes)), int)
    np.add.at(counts, (archive.client_index, archive.y), 1)
    classes = np.flatnonzero(counts.sum(axis=0))
    counts = counts[np.ix_(present, classes)]
    drawn = figure.Figure(figsize=(10, 2 + 0.11 * len(classes)), layout="constrained")
    axes = drawn.subplots()
    client, column = np.nonzero(counts)
    sizes = counts[client, column]
    axes.scatter(client, column, s=60 * sizes / sizes.max(), color="#2a6f97", linewidths=0)
    axes.set_yticks(range(len(classes)), [archive.classes[c] for c in classes], fontsize=6)
    axes.set(xlabel="client" if len(present) == len(archive.clients) else f"client ({len(present)} of them)")
    axes.set(ylabel="class", title=f"Examples by client and class (largest dot: {sizes.max()})")
    stream = io.BytesIO()
    drawn.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
