"""Models and examples for tests, alone and in several processes."""
