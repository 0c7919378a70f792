"""Common to all tests: no PRECTR_* settings from outside, one thread per process, no deadlines of hypothesis."""

import os

from hypothesis import settings

for variable in [name for name in os.environ if name.startswith("PRECTR_")]:
    del os.environ[variable]
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("prectr", deadline=None)
settings.load_profile("prectr")
