"""The drawing page: personalizes a run's model to a person's own handwriting, in a browser on the same machine."""
