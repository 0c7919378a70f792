"""Snapshots of a task's store: taken, described by manifests, kept in a storage, restored."""
