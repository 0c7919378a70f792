"""Input and output of the live system: log loader, example reader, sink runner, quality producer."""
