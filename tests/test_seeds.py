"""Seeds by named path."""

import numpy as np

from tff_personalization import seeds


def test_the_same_path_draws_the_same_whatever_was_drawn_before():
    first = seeds.generator(1, "cohort", 5).random(3)
    seeds.generator(1, "cohort", 4).random(100)
    np.testing.assert_array_equal(first, seeds.generator(1, "cohort", 5).random(3))


def test_paths_and_run_seeds_draw_differently():
    paths = [
        (1, "cohort", 5),
        (1, "cohort", 6),
        (2, "cohort", 5),
        (1, "split", 5),
        (1, "cohort", "5", "a"),
        (15, "cohort"),
    ]
    assert len({tuple(seeds.stateless(*path)) for path in paths}) == len(paths)
    assert len({seeds.generator(*path).random() for path in paths}) == len(paths)


def test_stateless_seeds_are_what_tensorflow_takes():
    seed = seeds.stateless(1, "local_training", 3, "writer")
    assert seed.shape == (2,)
    assert seed.dtype == np.int32
