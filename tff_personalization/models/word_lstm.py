"""The recurrent network for next-word prediction on Stack Overflow, as TFF builds it.

Reddi et al. ("Adaptive Federated Optimization", ICLR 2021): an embedding of 96, an LSTM of 670 units, a dense layer of
96, and a logit for each of 10,000 words, padding, other words, and the beginning and end of a sentence.
"""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization.models import outputs

WORDS, LENGTH = 10_000, 20
SENTENCE = tf.TensorSpec([LENGTH], tf.int32)
_NAMES = ("<pad>", *(f"word {number}" for number in range(1, WORDS + 1)), "<out of vocabulary>", "<begin>", "<end>")
NEXT_WORD = outputs.classes_by_place(_NAMES, LENGTH, padding=0, batch_size=32)


def build_word_lstm(num_classes: int, rng: np.random.Generator) -> tf.keras.Model:
    """TFF's network: 4,050,748 weights for 10,004 logits. The layers' initializers draw them."""
    del rng
    return tff.simulation.baselines.stackoverflow.word_prediction_models.create_recurrent_model(num_classes)
