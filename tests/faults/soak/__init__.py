"""The soak test: the live system at half its capacity, a fault a minute, and whether its processes stay as they are."""
