"""`prectr top`: what the exporters and the monitor of a live system say, on one screen."""
