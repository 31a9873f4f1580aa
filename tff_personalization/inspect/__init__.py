"""Looks at client data without training: what there is of it, and what looks wrong."""
