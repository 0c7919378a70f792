"""The state of a task: its RocksDB store, decayed aggregates, bounded rings and codecs."""
