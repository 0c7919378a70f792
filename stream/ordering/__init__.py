"""The total event-time order: frames, merged watermarks and the k-way merge that waits for them."""
