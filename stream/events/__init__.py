"""The event contract: `search-events` as JSON, its decoder, schema, keys and partitions."""
