"""The Prometheus of `make up`: `python -m prectr.ops.local_stack.prometheus` execs it."""

import json
import os
import shutil
from pathlib import Path
from typing import Final

from prectr.ops.local_stack.settings import CHECKOUT, UpSettings
from prectr.state.errors import PrectrError

INSTALL_HINT: Final = "install it (Debian: apt-get install prometheus), so that `prometheus` is on the PATH"
_CONFIG: Final = CHECKOUT / "ops" / "prometheus" / "prometheus.yml"
_RULES: Final = CHECKOUT / "ops" / "alerts"


def write_config(settings: UpSettings) -> Path:
    """Write the configuration of Prometheus into the folder of this run; returns its path.

    It is that of the containers, with the targets of this machine. The rules are linked, so that a change of them takes
    effect at the next start or SIGHUP.
    """
    folder = settings.dir / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "prometheus.yml"
    shutil.copyfile(_CONFIG, config)
    groups = [{"labels": {"job": job}, "targets": targets} for job, targets in settings.targets.items()]
    # JSON is valid YAML.
    (folder / "targets.yml").write_text(json.dumps(groups, indent=2) + "\n", encoding="utf-8")
    rules = settings.dir / "alerts"
    if not rules.exists():
        rules.symlink_to(_RULES)
    return config


def main() -> None:
    """Write the configuration and replace this process by Prometheus, so that signals reach it."""
    settings, program = UpSettings.from_environment(), shutil.which("prometheus")
    if program is None:
        raise PrectrError(f"make up finds no Prometheus: {INSTALL_HINT}")
    flags = [
        f"--config.file={write_config(settings)}",
        f"--storage.tsdb.path={settings.dir / 'prometheus' / 'data'}",
        f"--web.listen-address=127.0.0.1:{settings.prometheus_port}",
    ]
    os.execv(program, [program, *flags])


if __name__ == "__main__":
    main()
