"""The provenance of figures, against the records of the runs."""

import json

from analysis import study
from analysis.report import configurations, provenance


def test_a_run_that_was_resumed_has_the_commits_and_cores_of_all_its_starts(make_study):
    directory = make_study("table1", [("", {"local_epochs": 2}, {"seed": seed}) for seed in (1, 2)])
    changes = (
        {"git_commit": "a", "cores": 2},
        {"git_commit": "a", "starts": [{"git_commit": "a", "cores": 2}, {"git_commit": "b", "cores": 4}]},
    )
    for number, of_run in enumerate(changes):
        path = directory / "runs" / f"table1_{number}" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | of_run))
    found = study.read(directory)
    facts = provenance.of(found, found.experiments[0], configurations.of(found.experiments[0].runs)).facts
    assert (facts["commit of the code"], facts["cores"]) == ("a; b", "2; 4")
