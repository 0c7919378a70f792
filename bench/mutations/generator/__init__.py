"""Makes the mutated events: base events, the grammar, edits by hypothesis, and records that no loader would write."""
