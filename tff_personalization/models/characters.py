"""Text as sequences of character ids, in the convention of TFF's Shakespeare task.

The vocabulary is that of `tff.simulation.baselines.shakespeare`: 86 characters with the ids 1 to 86, and four more ids:
padding (0), out of vocabulary (87), the beginning (88) and the end (89) of a snippet. So a model of it has 90 logits
(Reddi et al., "Adaptive Federated Optimization", ICLR 2021).

A snippet is one utterance. With its beginning and end it is cut into pieces of 81 ids; the last piece is padded at its
end. The first 80 ids of a piece are `x` and the last 80 are `y`, so `y` has the next character for each place. A last
piece with a single id is left out, because it has nothing to predict.
"""

from collections.abc import Iterable

import numpy as np

CHARACTERS = (
    "dhlptx@DHLPTX $(,048cgkoswCGKOSW[_#'/37;?bfjnrvzBFJNRVZ\"&*.26:\naeimquyAEIMQUY]!%)-159\r"  # TFF's CHAR_VOCAB
)
PAD = 0
OUT_OF_VOCABULARY, BEGIN, END = range(len(CHARACTERS) + 1, len(CHARACTERS) + 4)
CLASSES = ("<pad>", *CHARACTERS, "<out of vocabulary>", "<begin>", "<end>")
SEQUENCE_LENGTH = 80

_ID_OF_BYTE = np.full(256, OUT_OF_VOCABULARY, np.uint8)
_ID_OF_BYTE[np.frombuffer(CHARACTERS.encode("ascii"), np.uint8)] = np.arange(1, len(CHARACTERS) + 1)


def encode(snippet: bytes) -> np.ndarray:
    """The ids of a snippet with its beginning and end, uint8 of shape (bytes + 2,)."""
    return np.concatenate([[BEGIN], _ID_OF_BYTE[np.frombuffer(snippet, np.uint8)], [END]]).astype(np.uint8)


def to_sequences(snippets: Iterable[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The sequences of some snippets: x, uint8, and y, int32, both of shape (n, `SEQUENCE_LENGTH`)."""
    length = SEQUENCE_LENGTH + 1
    parts = [np.zeros((0, length), np.uint8)]
    for snippet in snippets:
        ids = encode(snippet)
        ids = np.pad(ids, (0, -len(ids) % length), constant_values=PAD)
        parts.append(ids.reshape(-1, length))
    pieces = np.concatenate(parts)
    pieces = pieces[pieces[:, 1] != PAD]
    return pieces[:, :-1], pieces[:, 1:].astype(np.int32)
