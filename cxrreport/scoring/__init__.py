"""The metrics of `evaluation` for training and generation, which do not import `evaluation`."""
