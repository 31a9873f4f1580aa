"""Client data from TFF's Stack Overflow, for next-word prediction. TFF downloads it if it is missing.

A client is a user. Its train part is the user's posts in TFF's split "train"; its test part is the later posts in the
split "test". Words become numbers as in TFF's baseline task: 0 padding, 1 to 10,000 the most frequent words, 10,001 any
other word, 10,002 the beginning and 10,003 the end of a sentence (Reddi et al., "Adaptive Federated Optimization",
2021).
"""

import os
import sqlite3

import tensorflow as tf
import tensorflow_federated as tff

from tff_personalization import errors, seeds
from tff_personalization.models import word_lstm
from tff_personalization.tasks import archives, conversions, sources
from tff_personalization.tasks.sources import download

FILE_NAME, WORDS_NAME = "stackoverflow.sqlite", "stackoverflow.word_count"
MOST_SENTENCES = 1000  # most sentences of a client's part, as in the literature
_stackoverflow = tff.simulation.datasets.stackoverflow


def load(options: sources.SourceOptions) -> archives.Archive:
    """Draws `num_clients` users that are in both splits by the seed; sequences of 20 words.

    The files `stackoverflow.sqlite` and `stackoverflow.word_count` are kept in `options.cache_dir`, by default TFF's
    own `~/.tff`.

    Raises:
        UserError: a file is missing and cannot be downloaded, or it is incomplete or malformed.
    """
    path = download.database(
        FILE_NAME, options.cache_dir, lambda directory: _stackoverflow.load_data(cache_dir=directory), "a plugin"
    )
    cache = os.path.dirname(path)
    preprocess = tff.simulation.baselines.stackoverflow.word_prediction_preprocessing.create_preprocess_fn(
        tff.simulation.baselines.ClientSpec(
            num_epochs=1, batch_size=MOST_SENTENCES, max_elements=MOST_SENTENCES, shuffle_buffer_size=1
        ),
        _vocabulary(cache),
        word_lstm.LENGTH,
    )
    num_clients = options.settings.num_clients
    try:
        train, _, test = _stackoverflow.load_data(cache_dir=cache)
        both = sorted(set(train.client_ids) & set(test.client_ids))
        order = seeds.generator(options.seed, "stackoverflow_users").permutation(len(both))
        return conversions.from_client_data(
            train,
            test,
            lambda x, y: (tf.cast(x, tf.int32), tf.cast(y, tf.int32)),
            word_lstm.NEXT_WORD.names,
            f"TFF's Stack Overflow, {min(num_clients, len(both))} of {len(both):,} users",
            lambda dataset: preprocess(dataset).unbatch(),
            clients=[both[i] for i in order[:num_clients]],
        )
    except (tf.errors.OpError, sqlite3.Error, ValueError, errors.UserError) as error:
        raise errors.UserError(
            f"{path}: cannot be read as TFF's Stack Overflow ({' '.join(str(error).split())[:200]}): delete it and "
            "download it again."
        ) from error


def _vocabulary(cache: str) -> list[str]:
    """The most frequent words, from TFF's file. Downloads it if it is missing."""
    path = os.path.join(cache, WORDS_NAME)
    try:
        if not os.path.exists(path):
            return list(_stackoverflow.load_word_counts(cache_dir=cache, vocab_size=word_lstm.WORDS))
        with open(path, encoding="utf-8") as file:
            words = [line.split()[0] for line in file if line.strip()][: word_lstm.WORDS]
    except Exception as error:  # errors of the network, archives and files
        raise errors.UserError(
            f"--client_data=tff: {path} is not there or damaged, and TFF could not download it "
            f"({' '.join(str(error).split())[:200]}): put it there by hand."
        ) from error
    if len(words) < word_lstm.WORDS:
        raise errors.UserError(f"{path}: it has {len(words)} words, {word_lstm.WORDS} are expected: download it again.")
    return words
