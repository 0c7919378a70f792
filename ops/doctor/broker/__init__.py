"""Checks of what lies at the brokers: topics, groups, transactions, and what the newest records say."""
