"""Tables and plots from run directories; needs pandas and matplotlib, never TensorFlow."""

import tff_personalization  # noqa: F401  It settles what the environment has for Matplotlib, which comes after it.
