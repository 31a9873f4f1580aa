"""Global models outside of the project: as Keras and SavedModel files, and as one that goes on learning on a device."""
