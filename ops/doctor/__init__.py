"""Checks a live system and suggests fixes. Read-only; safe at any time."""

from prectr.ops.doctor.checks import Deployment, run_checks

__all__ = ["Deployment", "run_checks"]
