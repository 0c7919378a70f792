"""Connections to a broker: clients, topics, end offsets, credentials."""
