"""Runs the peers' own `run.py`, in the peers' environment: FOLDER BOOTSTRAP ARGUMENTS…

Its check reads from a broker at a fixed address unless it is told of another, which `run.py` does not do.
"""

import importlib
import sys

if __name__ == "__main__":
    folder, bootstrap = sys.argv[1:3]
    sys.path.insert(0, folder)
    importlib.import_module("check").read.__defaults__ = (bootstrap,)
    sys.argv[:] = ["run.py", "--bootstrap", bootstrap, *sys.argv[3:]]
    importlib.import_module("run").main()
