"""The screen and the time estimate of `prectr check`."""
