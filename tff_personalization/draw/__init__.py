"""The drawing page: a run's model meets a person's own handwriting, in a browser on the same machine."""
