"""Into and out of the live system: log loader, example reader, sink runner, quality producer."""
