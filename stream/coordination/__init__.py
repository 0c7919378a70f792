"""Several processes that consume the same ordered stream in the same steps."""
