"""Kafka transactions: a task's commits, committed offsets, and recovery of hanging transactions."""
