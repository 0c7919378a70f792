"""Training examples as arrays, and the features that models read from them."""
