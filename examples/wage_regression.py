"""Regression with real people as clients: predicts a man's log wage in a year from his work.

    pip install --no-deps linearmodels==6.1      # for its table; its code is not run
    python run_experiment.py --plugin=examples/wage_regression.py --task=wage_regression

545 young men in the USA, 1980 to 1987 (Vella and Verbeek, Journal of Applied Econometrics 13, 1998): a row for each man
and year. The last two years are a man's test part. The metric is the mean absolute error, where lower is better: 0.1 is
about 10 % of the wage.
"""

import importlib.metadata

import pandas as pd
import tensorflow as tf

from tff_personalization import errors
from tff_personalization.models import outputs
from tff_personalization.tasks import conversions, registry, sources

FEATURES = ("exper", "educ", "thousand_hours", "years", "black", "hisp", "married", "union")


def load(options):
    del options  # --seed, --cache_dir and others, if a source needs them
    try:
        files = importlib.metadata.files("linearmodels") or []
    except importlib.metadata.PackageNotFoundError:
        raise errors.UserError("the table comes with linearmodels: pip install --no-deps linearmodels==6.1.") from None
    (path,) = (file.locate() for file in files if file.name == "wage_panel.csv.bz2")
    table = pd.read_csv(path)
    table = table.assign(
        thousand_hours=table["hours"] / 1000,
        years=table["year"] - 1980,
        part=(table["year"] >= 1986).map({True: "test", False: "train"}),
    )
    return conversions.from_frame(
        table,
        client="nr",
        features=FEATURES,
        labels=["lwage"],
        real_numbers=True,
        split="part",
        source="wage panel of 545 men, 1980 to 1987",
    )


def network(numbers, rng):
    del rng
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input([len(FEATURES)]),
            layers.Rescaling(0.1),
            layers.Dense(32, activation="relu"),
            layers.Dense(numbers),
        ]
    )


registry.register(
    "wage_regression",
    registry.Task(
        predicts=outputs.real_numbers(["log wage"], largest_error=2.0),
        features=tf.TensorSpec([len(FEATURES)]),
        models={"dense": network},
        sources=sources.own(wage_panel=load),
    ),
)
