"""Checks of what lies on this machine: libraries, disks, limits, state folders, snapshots and checkpoints."""
