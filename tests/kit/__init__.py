"""The importable test kit: a store in memory, events by hand, and drivers that crash a stage at a named point."""
