"""Checks a live system and gives advice. Only reads; safe at any time."""

from prectr.ops.doctor.checks import Deployment, run_checks

__all__ = ["Deployment", "run_checks"]
