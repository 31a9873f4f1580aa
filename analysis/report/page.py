"""The page of a study or of one run: one file, made only from records. The same records give the same bytes."""

import base64
import gzip
import html
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jinja2
import pandas as pd
import plotly.graph_objects as go
import plotly.offline

from analysis import gallery, metric, names, outcome, run_labels, study, style
from analysis import runs as runs_lib
from analysis import tables as tables_lib
from analysis.report import configurations as configurations_lib
from analysis.report import galleries, look, sections, tables, verdicts
from tff_personalization.records import places

_HERE = pathlib.Path(__file__).parent
_MOST_GALLERIES = 6
_COMPRESSED_FROM = 100_000  # bytes of a CSV file


def contents(directory: places.Named) -> dict[str, Any]:
    """The contents of a study's report in any form, by their names in the templates.

    Raises:
        UserError: there is no finished run in it, or a record is damaged.
    """
    found = study.read(directory)
    judged = verdicts.read(places.place(directory))
    return {
        "study": found,
        "one_run": None if found.one_run is None else _of_run(found.one_run),
        "sources": _sources(found),
        "scales": list(dict.fromkeys(experiment.scale for experiment in found.experiments if experiment.scale)),
        "of_paper": bool(judged) or any(experiment.paper or experiment.claim for experiment in found.experiments),
        "compared": "One run" if len(found.runs) == 1 else f"{len(found.runs)} runs compared",
        "claims": verdicts.CLAIMS,
        "verdicts": judged,
        "by_claim": verdicts.by_claim(judged),
        "counts": verdicts.counts(judged),
        "sections": [sections.build(found, experiment) for experiment in found.experiments if experiment.runs],
    }


def environment(autoescape: bool) -> jinja2.Environment:
    """The environment of the templates."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def build(directory: places.Named) -> str:
    """The page of the study in a folder, or of a run directory.

    Raises:
        UserError: there is no finished run in it, or a record is damaged.
    """
    said = contents(directory)
    templates = environment(autoescape=True)
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":")}  # in the order of the page
    templates.filters |= {"uri": data_uri, "svg": _svg, "plotly": as_dict, "tidy": tidy_csv, "slug": slug}
    return templates.get_template("template.html").render(
        **said,
        intervals={verdict["id"]: verdicts.interval(verdict, said["verdicts"]) for verdict in said["verdicts"]},
        runs=tables.all_runs(said["study"]).about(metric.of(said["study"].runs)),
        galleries=_galleries(said["study"]),
        outcomes=list(gallery.OUTCOMES),
        themes={"light": look.LIGHT, "dark": look.DARK},
        plotly_js=plotly.offline.get_plotlyjs(),
        css=(_HERE / "report.css").read_text(encoding="utf-8"),
        js=(_HERE / "report.js").read_text(encoding="utf-8"),
    )


def as_dict(figure: go.Figure) -> dict[str, Any]:
    """An interactive figure for the page: without its template, which depends on light or dark."""
    made = json.loads(figure.to_json())
    made["layout"].pop("template", None)
    return made


def tidy(figure: go.Figure) -> pd.DataFrame:
    """The numbers of an interactive figure: one row per mark, with the axes' titles as columns, without HTML."""
    x, y = (
        axis.title.text or name for axis, name in ((figure.layout.xaxis, "configuration"), (figure.layout.yaxis, "y"))
    )
    rows = []
    for trace in figure.data:
        if trace.hoverinfo == "skip":
            continue
        places = trace.x
        if _two_levels(trace):
            places = [html.unescape(", ".join(names)) for names in zip(*trace.x, strict=True)]
        errors = {
            "error bar": trace.error_y.array,
            "error bar of x": trace.error_x.array,
            "error bar of x, left": trace.error_x.arrayminus,
        }
        for number, (place, value) in enumerate(zip(places, trace.y, strict=True)):
            row = {"series": _series(trace), x: place, y: value}
            row |= {name: None if ends is None else ends[number] for name, ends in errors.items()}
            text = trace.text[number] if isinstance(trace.text, tuple) else None
            row["mark"] = text and html.unescape(text.replace("<br>", "; "))
            rows.append(row)
    return pd.DataFrame(rows).dropna(axis=1, how="all")


def _series(trace: Any) -> str:
    """The name of a trace, with its configuration."""
    name, configuration = html.unescape(trace.name), (trace.meta or {}).get("choice")
    return name if configuration is None or name.startswith(configuration) else f"{configuration}, {name}"


def tidy_csv(figure: go.Figure) -> str:
    """`tidy` as CSV."""
    return tidy(figure).to_csv(index=False)


def data_uri(content: str, kind: str) -> tuple[str, str]:
    """A file inside the page, compressed if it is large: its address, and the further ending of its name."""
    content_bytes, ending = content.encode(), ""
    if len(content_bytes) > _COMPRESSED_FROM:
        content_bytes, kind, ending = gzip.compress(content_bytes, mtime=0), "application/gzip", ".gz"
    return f"data:{kind};base64,{base64.b64encode(content_bytes).decode()}", ending


def slug(name: str) -> str:
    """A name in the form for addresses within the page and for file names."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-")


def _svg(figure: sections.Shown) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(style.as_bytes(figure.drawn, '.svg')).decode()}"


def _two_levels(trace: Any) -> bool:
    return len(trace.x) == 2 and isinstance(trace.x[0], list | tuple)


def _sources(found: study.Study) -> dict[str, bool]:
    """What the data is, and whether it is synthetic."""
    return {run.source: bool(run.config["synthetic"]) for run in found.runs}


def _of_run(run: runs_lib.Run) -> dict[str, Any]:
    """The texts at the top and end of the page of one run."""
    summary, target = run.summary, run.summary["rounds_to_target"]
    strategy, epochs = names.strategy(summary["strategy"]), summary["personalization_epochs"]
    hurt = tables_lib.number(summary["share_hurt"], ".1%")
    return {
        "title": f"{names.method(run.config['method'])} on {run.source}",
        "sentence": outcome.sentence(run),
        "facts": {
            metric.named(name, run.metric): fact
            for name, fact in {
                "initial accuracy": _spread(summary["initial_accuracy"]),
                "personalized accuracy": f"{_spread(summary['personalized_accuracy'])}, {strategy}, {epochs} epochs",
                "gain": _spread(summary["gain"], "+"),
                "hurt": f"{hurt} of {outcome.tested_clients(run)} clients with test examples",
                f"first round at {target['target_accuracy']:g}": ", ".join(
                    f"{kind} {target[kind] or 'never'}" for kind in look.KINDS
                ),
                "run": f"{run.name}: {summary['rounds']} rounds, seed {run.config['seed']}",
            }.items()
        },
        "settings": {
            name: run_labels.as_text(value)
            for name, value in sorted(runs_lib.without_paths(run_labels.settings(run)).items())
        },
    }


def _spread(figures: Mapping[str, float | None], sign: str = "") -> str:
    mean, sd = tables_lib.number(figures["mean"], f"{sign}.3f"), tables_lib.number(figures["sd"], ".3f")
    return f"{mean} ± {sd} over clients"


def _galleries(found: study.Study) -> Mapping[str, Any]:
    """The writers of runs with a gallery, by the runs' folders; one run for each configuration."""
    made: dict[str, Any] = {}
    for experiment in found.experiments:
        for configuration in configurations_lib.of_experiment(experiment):
            having = [run for run in configuration.runs if (run.directory / gallery.FILE).exists()]
            if not having or found.key(having[0]) in made or len(made) == _MOST_GALLERIES:
                continue
            clients = galleries.writers(having[0])
            label = f"{experiment.title}: {configuration.label}, seed {having[0].config['seed']}"
            shown = {"label": label, "source": having[0].source, "writers": clients, "order": list(clients)}
            made[found.key(having[0])] = shown
    return made
