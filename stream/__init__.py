"""From a click log to training examples: events, the two stages, the one order and the runners."""
