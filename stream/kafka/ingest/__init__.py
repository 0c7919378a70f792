"""`ingest`: topics of other programs, mapped to events and keyed anew, exactly once."""
