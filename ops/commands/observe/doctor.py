"""`prectr doctor`: checks a live system."""

from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.option_groups import with_option_groups
from prectr.ops.cli.options import ConfigFile, JsonFile, SnapshotCheckOptions, SystemOptions
from prectr.ops.settings.loader import load_settings


@with_option_groups
def doctor(
    system: SystemOptions,
    state_dir: Annotated[
        Path | None, typer.Option(help="State folder of a stream worker, or of `prectr run` (all its processes).")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Run folder of the trainer.")] = None,
    *,
    snapshots: SnapshotCheckOptions,
    config: ConfigFile = None,
    json: JsonFile = None,
) -> None:
    """Check a live system and suggest fixes: one finding per line. Exit code 1 if one of them is an error.

    Read-only: safe to run at any time.

    Example: prectr doctor --bootstrap localhost:9092 --run-dir live --state-dir live/state
    """
    from prectr.ops.doctor import Deployment, run_checks  # noqa: PLC0415
    from prectr.ops.doctor.findings import print_findings  # noqa: PLC0415

    settings = load_settings(config)
    deployment = Deployment(
        connection=system.connection(),
        topics=system.topics(),
        group_prefix=system.group_prefix,
        config=settings.pipeline,
        is_config_given=bool(settings.sources),
        state_dir=state_dir,
        run_dir=run_dir,
        snapshots=snapshots.target(),
    )
    print_findings(run_checks(deployment), f"The live system on {system.bootstrap}", json)
