"""Runs the competitors' own driver `run.py` in its environment: FOLDER BOOTSTRAP ARGUMENTS…

The driver's check has a fixed default broker address, which `run.py` does not override; this script does.
"""

import importlib
import sys

if __name__ == "__main__":
    folder, bootstrap = sys.argv[1:3]
    sys.path.insert(0, folder)
    importlib.import_module("check").read.__defaults__ = (bootstrap,)
    sys.argv[:] = ["run.py", "--bootstrap", bootstrap, *sys.argv[3:]]
    importlib.import_module("run").main()
