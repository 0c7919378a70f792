"""The topic `dead-letters`: read, summarised, exported and retried."""
