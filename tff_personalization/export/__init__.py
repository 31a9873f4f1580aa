"""Exports global models: as Keras and SavedModel files, and as a file that keeps learning on a device."""
