"""Tables and plots from run directories; needs pandas and matplotlib, never TensorFlow."""
