"""Your own table and network: a row for each example, with a column that says whose example it is.

    python run_experiment.py --plugin=examples/own_table.py --task=activity

The table is the file activity.csv beside this one. Each client is a person. An example has six figures of a phone's
motion, and its class is what the person does. Change the names of columns and classes to yours.
"""

import pathlib

import pandas as pd
import tensorflow as tf

from tff_personalization.models import outputs
from tff_personalization.tasks import conversions, registry, sources

TABLE = pathlib.Path(__file__).with_name("activity.csv")
FEATURES = ["mean_x", "mean_y", "mean_z", "spread_x", "spread_y", "spread_z"]
CLASSES = ["sitting", "walking", "running"]


def load(options):
    del options  # --seed, --cache_dir and others, if a source needs them
    return conversions.from_frame(
        pd.read_csv(TABLE),
        client="person",
        features=FEATURES,
        labels="activity",
        classes=CLASSES,
        source="my table of activities",
    )


def network(num_classes, rng):
    del rng  # the layers' own initializers draw the weights, by the run's seed
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [tf.keras.Input([len(FEATURES)]), layers.Dense(32, activation="relu"), layers.Dense(num_classes)]
    )


registry.register(
    "activity",
    registry.Task(
        predicts=outputs.classes(CLASSES),
        features=tf.TensorSpec([len(FEATURES)]),
        models={"dense": network},
        sources=sources.own(my_table=load),
    ),
)
