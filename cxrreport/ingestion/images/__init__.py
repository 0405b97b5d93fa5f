"""From stored pixel values to the square grey image that the model sees, and checks on the way."""
