"""What holds for all tests: no settings from outside, one thread a process, no deadlines on a shared machine."""

import os

from hypothesis import settings

for variable in [name for name in os.environ if name.startswith("PRECTR_")]:
    del os.environ[variable]
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("prectr", deadline=None)
settings.load_profile("prectr")
