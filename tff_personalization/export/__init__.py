"""Global models outside of the project: as Keras and SavedModel files, and as one that keeps learning on a device."""
