"""Real people as clients: predicts from a year's work whether a man is married and in a union. Two labels at once.

    pip install --no-deps linearmodels==6.1      # for its table; its code is not run
    python run_experiment.py --plugin=examples/wages.py --task=wages

545 young men in the USA, 1980 to 1987 (Vella and Verbeek, Journal of Applied Econometrics 13, 1998): a row for each man
and year. The last two years are a man's test part.
"""

import importlib.metadata

import pandas as pd
import tensorflow as tf

from tff_personalization import errors
from tff_personalization.models import outputs
from tff_personalization.tasks import conversions, registry, sources

LABELS = ("married", "union")
WORK = ("exper", "educ", "lwage", "thousand_hours", "years")
GROUPS = ("black", "hisp", *(f"occupation_{number}" for number in range(1, 10)))


def load(options):
    del options  # --seed, --cache_dir and others, if a source needs them
    try:
        files = importlib.metadata.files("linearmodels") or []
    except importlib.metadata.PackageNotFoundError:
        raise errors.UserError("the table comes with linearmodels: pip install --no-deps linearmodels==6.1.") from None
    (path,) = (file.locate() for file in files if file.name == "wage_panel.csv.bz2")
    table = pd.get_dummies(pd.read_csv(path), columns=["occupation"])
    table = table.assign(
        thousand_hours=table["hours"] / 1000,
        years=table["year"] - 1980,
        part=(table["year"] >= 1986).map({True: "test", False: "train"}),
    )
    return conversions.from_frame(
        table,
        client="nr",
        features={"work": WORK, "groups": GROUPS},
        labels=LABELS,
        split="part",
        source="wage panel of 545 men, 1980 to 1987",
    )


def two_inputs(num_classes, rng):
    del rng
    layers = tf.keras.layers
    work, groups = tf.keras.Input([len(WORK)], name="work"), tf.keras.Input([len(GROUPS)], name="groups")
    hidden = layers.Concatenate()([layers.LayerNormalization()(work), groups])
    hidden = layers.Dense(32, activation="tanh")(hidden)
    return tf.keras.Model([work, groups], layers.Dense(num_classes, name="labels")(hidden))


registry.register(
    "wages",
    registry.Task(
        predicts=outputs.several_labels(LABELS),
        features={"work": tf.TensorSpec([len(WORK)]), "groups": tf.TensorSpec([len(GROUPS)])},
        models={"two_inputs": two_inputs},
        sources=sources.own(wages=load),
    ),
)
