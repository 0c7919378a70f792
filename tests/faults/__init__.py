"""The fault matrix: the whole live system is broken in every way, and must come out as if nothing had happened."""
