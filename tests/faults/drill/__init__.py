"""A drill for people on call: a live system, a fault that nobody names, and afterwards what it was."""
