"""The vocabulary and the sequences against TFF's own."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.simulation.baselines.shakespeare import char_prediction_preprocessing

from tff_personalization.models import characters


def test_the_vocabulary_is_tffs():
    assert list(characters.CHARACTERS) == char_prediction_preprocessing.CHAR_VOCAB
    special = (characters.PAD, characters.OUT_OF_VOCABULARY, characters.BEGIN, characters.END)
    assert special == char_prediction_preprocessing.get_special_tokens()
    assert len(characters.CHARACTERS) == 86
    assert len(characters.CLASSES) == tff.simulation.baselines.shakespeare.VOCAB_LENGTH == 90
    assert characters.SEQUENCE_LENGTH == tff.simulation.baselines.shakespeare.DEFAULT_SEQUENCE_LENGTH


def test_a_snippet_has_its_beginning_its_end_and_an_id_for_what_is_not_in_the_vocabulary():
    assert characters.encode(b"dh|\xff").tolist() == [88, 1, 2, 87, 87, 89]


def test_sequences_are_those_of_tffs_preprocessing():
    """Lengths around whole pieces: with its beginning and end, a snippet of 79 characters fills a piece of 81 ids."""
    rng = np.random.default_rng(0)
    snippets = ["".join(rng.choice(list(characters.CHARACTERS), length)) for length in (1, 78, 79, 81, 160, 162, 300)]
    preprocess = char_prediction_preprocessing.create_preprocess_fn(
        tff.simulation.baselines.ClientSpec(num_epochs=1, batch_size=100, shuffle_buffer_size=1)
    )
    ((expected_x, expected_y),) = preprocess(tf.data.Dataset.from_tensor_slices({"snippets": snippets}))
    x, y = characters.to_sequences(snippet.encode() for snippet in snippets)
    np.testing.assert_array_equal(x, expected_x)
    np.testing.assert_array_equal(y, expected_y)
    assert (x.dtype, y.dtype) == (np.uint8, np.int32)


def test_a_piece_with_nothing_to_predict_is_left_out():
    x, y = characters.to_sequences([b"d" * 80])  # 82 ids: the second piece has only the end
    assert x.shape == y.shape == (1, 80)
    assert y[0].tolist() == [1] * 80


def test_no_snippets_no_sequences():
    x, y = characters.to_sequences([])
    assert x.shape == y.shape == (0, 80)
