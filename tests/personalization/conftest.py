"""The network of most tests of strategies."""

import numpy as np
import pytest


@pytest.fixture
def model():
    from tests.personalization import softmax_regression
    from tff_personalization.models import emnist_cnn

    return emnist_cnn.build_linear(softmax_regression.CLASSES, np.random.default_rng(0))
