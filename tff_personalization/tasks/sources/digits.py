"""Client data from scikit-learn's digits: 1,797 real handwritten digits, by the writers of 14 forms.

Every writer copied the same NIST form: 0-9 three times, then 100 digits in a fixed order. The examples come form by
form. So their labels repeat the form, and aligning the labels with the form tells the writers apart. Most of the later
forms miss some examples.
"""

import numpy as np
from sklearn import datasets

from tff_personalization import seeds
from tff_personalization.tasks import archives, sources

# The digits of the form, which every writer copied.
FORM = np.array(
    list(
        "012345678901234567890123456789"
        "09556509898417735100227820126337334666491509528200"
        "17632174631391768431405369617544728225795488490898"
    ),
    int,
)
# As in MNIST, the digit fills a box of 20 x 20 pixels in the centre.
_BOX = 20
_MARGIN = (archives.IMAGE_SHAPE[0] - _BOX) // 2


def load(options: sources.SourceOptions) -> archives.CharacterArchive:
    """The 1,797 digits, scaled to 28 x 28, with 14 writers of 122 to 130 examples; labels are 0 to 9."""
    images, labels = datasets.load_digits(return_X_y=True)
    number = align_with_forms(labels) // len(FORM) + 1
    writer = np.array([f"digits_writer_{form:02d}" for form in number])
    is_test = archives.split_by_client(labels, writer, seeds.generator(options.seed, "split"))
    return archives.CharacterArchive.from_names(
        x=_scale(images.reshape(-1, 8, 8)),
        y=labels.astype(np.int32),
        client=writer,
        is_test=is_test,
        classes=archives.CLASSES,
        source=f"scikit-learn digits, {len(np.unique(writer))} writers",
    )


def align_with_forms(labels: np.ndarray) -> np.ndarray:
    """The place of each example on the forms, by the alignment with the fewest deviations (the edit distance).

    Args:
        labels: int, shape (N,), of whole forms one after another; some examples may be missing, wrong or added.

    Returns:
        int, shape (N,): f * len(FORM) + p for the example at place p of form f, never decreasing.
    """
    expected = np.tile(FORM, max(1, round(len(labels) / len(FORM))))
    places = np.arange(len(expected) + 1)
    # cost[i, j]: the fewest deviations between the first i labels and the first j places of the forms.
    cost = np.empty((len(labels) + 1, len(places)), int)
    cost[0] = places
    for i, label in enumerate(labels):
        best = cost[i] + 1  # An added example.
        best[1:] = np.minimum(best[1:], cost[i, :-1] + (expected != label))
        cost[i + 1] = np.minimum.accumulate(best - places) + places  # Missing examples: one deviation each.
    aligned = np.empty(len(labels), int)
    i, j = len(labels), len(expected)
    while i:
        if j and cost[i, j] == cost[i - 1, j - 1] + (expected[j - 1] != labels[i - 1]):
            i, j = i - 1, j - 1
            aligned[i] = j
        elif j and cost[i, j] == cost[i, j - 1] + 1:
            j -= 1
        else:
            i -= 1
            aligned[i] = max(j - 1, 0)
    return aligned


def _scale(images: np.ndarray) -> np.ndarray:
    """Images of 8 x 8 pixels, 0 to 16, as uint8 of 28 x 28, 0 to 255, by bilinear interpolation."""
    # The centres of the new pixels, in units of the old ones; constant beyond the outermost centres.
    centres = (np.arange(_BOX) + 0.5) * 8 / _BOX - 0.5
    weights = np.stack([np.interp(centres, np.arange(8), pixel) for pixel in np.eye(8)], axis=1)
    scaled = weights @ images @ weights.T
    return np.pad(np.rint(scaled * 255 / 16).astype(np.uint8), ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))
