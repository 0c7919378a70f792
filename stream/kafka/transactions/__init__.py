"""Kafka transactions: a task's commits, their outcome, and hanging ones."""
