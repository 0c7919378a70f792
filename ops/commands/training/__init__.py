"""Commands that train models or rank by them."""
