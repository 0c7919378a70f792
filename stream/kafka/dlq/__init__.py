"""The topic `dead-letters`: reading, summary, export and retry."""
