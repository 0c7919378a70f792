"""The faults: what each does to the system, and how the operator puts it right."""
