"""Finished runs of models that were not trained, and examples for them."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def linear_run(finished_run):
    return finished_run(model="linear")


@pytest.fixture(scope="session")
def cnn_run(finished_run):
    return finished_run(model="cnn")


@pytest.fixture(scope="session")
def examples(by_writer_archive):
    """Twenty-three images, uint8, and labels, int32: more than a batch, and not a multiple of it."""
    with np.load(by_writer_archive) as archive:
        return archive["images"][:23], archive["labels"][:23].astype(np.int32)
