"""Logs of other systems to events of `search-events`: UBI, Metarank, and anything else by a mapping."""
