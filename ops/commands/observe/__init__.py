"""Commands that watch a live system."""
