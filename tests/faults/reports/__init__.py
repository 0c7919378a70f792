"""What the system says of a fault: in its metrics, in its logs and through `prectr doctor`."""
