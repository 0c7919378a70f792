"""Looks a live system over: what is well, what is not, and what to do. It only reads, and disturbs nobody."""

from prectr.ops.doctor.checks import Deployment, run_checks

__all__ = ["Deployment", "run_checks"]
