"""The state of a task: its RocksDB store, snapshots of it, decayed aggregates and byte encodings."""
