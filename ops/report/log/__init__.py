"""What the report says about the log: its health, its dead letters, its order."""
