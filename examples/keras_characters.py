"""Your own Keras network on handwritten characters, in any form that `--client_data` accepts for emnist62.

python run_experiment.py --plugin=examples/keras_characters.py --task=my_characters --client_data=mine.npz
"""

import tensorflow as tf

from tff_personalization.models import outputs
from tff_personalization.tasks import archives, registry, sources


def small_cnn(num_classes, rng):
    del rng  # the layers' own initializers draw the weights, by the run's seed
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input([28, 28, 1]),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.25),
            layers.Dense(num_classes),
        ]
    )


registry.register(
    "my_characters",
    registry.Task(
        predicts=outputs.classes(archives.CLASSES),
        features=tf.TensorSpec([28, 28], tf.uint8),  # ink 255 on background 0
        models={"small_cnn": small_cnn},
        sources=sources.IMAGES,
        drawn=True,
    ),
)
