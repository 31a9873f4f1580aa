"""Tables and plots from run directories; needs pandas and matplotlib, never TensorFlow."""

import tff_personalization  # noqa: F401  It repairs the environment for Matplotlib, which is imported later.
