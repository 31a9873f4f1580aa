"""One self-contained page from a study: folders of runs, one folder an experiment, and the verdicts on them."""
