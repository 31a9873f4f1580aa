"""Inspects client data without training: what it contains, and what looks wrong."""
