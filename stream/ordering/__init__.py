"""The total event-time order: frames, merged watermarks and the k-way merge behind them."""
