"""The command line: entry point, consoles, shared options, signals, log formats."""
