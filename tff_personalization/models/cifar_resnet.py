"""ResNet-18 with group normalization for federated CIFAR-100, as TFF builds it.

Hsieh et al. (2020) and Hsu et al. (2020, "Federated Visual Classification with Real-World Data Distribution") replace
batch normalization by group normalization, because clients with few classes break batch normalization. TFF's network
adds a loss for weight decay of 1e-4; it is left out here.
"""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

CROP = 24
IMAGE = tf.TensorSpec([CROP, CROP, 3], tf.uint8)
CLASSES = tuple(f"class {number}" for number in range(100))  # TFF's file names CIFAR-100's classes by number


def build_resnet18(num_classes: int, rng: np.random.Generator | None = None) -> tf.keras.Model:
    """From images, uint8 of shape (24, 24, 3), standardized one by one as TFF does, to probabilities.

    11,227,812 weights for 100 classes. The layers' initializers draw them; see `registry.Task.build`.
    """
    del rng
    images = tf.keras.Input(IMAGE.shape)
    standardized = tf.keras.layers.Lambda(tf.image.per_image_standardization)(images)
    resnet = tff.simulation.models.resnet_models.create_resnet18(tuple(IMAGE.shape), num_classes)
    return tf.keras.Model(images, resnet(standardized), name="resnet18")
