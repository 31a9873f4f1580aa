"""Command-line tools around the experiments."""
