"""What TensorFlow says when it writes, as Python has it."""

import errno

import pytest
import tensorflow as tf

from tff_personalization.programs import files


def test_want_of_room_is_told_from_want_of_memory(tmp_path):
    with pytest.raises(OSError, match="No space left") as full, files.as_os_errors(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, f"{tmp_path}/x; No space left on device")
    assert full.value.errno == errno.ENOSPC
    with pytest.raises(MemoryError), files.as_os_errors(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[784,62]")
