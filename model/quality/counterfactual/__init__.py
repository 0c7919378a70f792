"""What a log says about the clicks of another ranking."""
