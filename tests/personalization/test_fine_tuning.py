"""Fine-tuning of some weights, or with another optimizer, against a few lines of NumPy."""

import numpy as np

from tests import numpy_oracle
from tests.personalization.softmax_regression import (
    CLASSES,
    EPOCHS,
    RATE,
    VALUES,
    assert_curve,
    batches,
    initial,
    measure,
    part,
)
from tff_personalization import local_training
from tff_personalization.models import emnist_cnn


def test_fine_tuning_of_biases_changes_only_biases(model):
    """Softmax regression with a fixed kernel; only the bias is trained."""
    train, test = part(10, 1), part(40, 2)
    models = [initial(model)]
    for epoch in range(EPOCHS):
        kernel, bias = models[-1]
        for x, y in batches(train, epoch):
            bias = bias - RATE * numpy_oracle.gradient([kernel, bias], x, y)[1]
        models.append([kernel, bias])
    assert_curve(measure("fine_tune_biases", model, train, test), models, test)


def test_the_biases_of_the_cnn_are_its_four_vectors(monkeypatch):
    model = emnist_cnn.build_cnn(CLASSES, np.random.default_rng(0))
    seen = []
    steps = local_training.LocalTraining.steps

    def spy(self, state, *arguments):
        seen.append([w.shape.as_list() for w in state.weights])
        return steps(self, state, *arguments)

    monkeypatch.setattr(local_training.LocalTraining, "steps", spy)
    losses, _ = measure("fine_tune_biases", model, part(10, 1), part(20, 2), epochs=1)
    assert seen[0] == [[32], [64], [128], [CLASSES]]
    assert losses[1] != losses[0]


def test_fine_tuning_with_adam_takes_adams_steps_whatever_the_personalization_optimizer_is(model):
    train, test, rate = part(10, 1), part(40, 2), VALUES["fine_tune_adam_learning_rate"]
    weights, models, step = initial(model), [initial(model)], 0
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for epoch in range(EPOCHS):
        for x, y in batches(train, epoch):
            step += 1
            gradient = numpy_oracle.gradient(weights, x, y)
            m = [0.9 * a + 0.1 * g for a, g in zip(m, gradient, strict=True)]
            v = [0.999 * a + 0.001 * g**2 for a, g in zip(v, gradient, strict=True)]
            scale = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weights = [w - scale * a / (np.sqrt(b) + 1e-7) for w, a, b in zip(weights, m, v, strict=True)]
        models.append(weights)
    assert_curve(measure("fine_tune_adam", model, train, test), models, test)
