"""Makes one self-contained page from a study: a folder of runs for each experiment, and the verdicts."""
