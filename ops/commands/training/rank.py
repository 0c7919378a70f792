"""`prectr rank`: candidates in the order in which a run would show them, and why."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from prectr.ops.cli.options import ConfigFile, JsonFile
from prectr.ops.json_file import write_json
from prectr.ops.ranking.candidates import read_candidates
from prectr.ops.ranking.features import parse_context, parse_features


def rank(
    run_dir: Annotated[Path, typer.Option(help="Run folder of prectr replay, train or run.")],
    query: Annotated[str, typer.Option(help="Raw query text.")],
    user: Annotated[str, typer.Option(help="User id; an unknown user is treated as new.")],
    candidates: Annotated[
        Path,
        typer.Option(
            help="Items to rank: JSON Lines or CSV with item_id, title, price, features ...; - reads standard input."
        ),
    ],
    state_dir: Annotated[
        list[Path] | None,
        typer.Option(help="For a live run: the state folder of each prectr stream worker; repeatable."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model to rank with, if the run has trained several.")] = None,
    expect_without: Annotated[
        str | None, typer.Option(help="Fail unless the model was trained without these components, comma-separated.")
    ] = None,
    position: Annotated[int, typer.Option(min=1, max=200, help="Score every item as if shown at this position.")] = 1,
    as_of: Annotated[
        str | None,
        typer.Option(help="Rank as of this time, such as 2026-01-31T12:00 (UTC); default: the newest event."),
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="Custom feature of the page, NAME=VALUE; repeatable. Those of items are in the candidates."),
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(help="Context of the page, NAME=VALUE, such as device=phone; repeatable.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of items to print.")] = 20,
    config: ConfigFile = None,
    json: JsonFile = None,
) -> None:
    """Rank candidates with the newest checkpoint and state of a run, with an explanation: P(level), incentive, rates.

    Any settings given must match the run's.

    Example: prectr rank --run-dir run --query "usb cable" --user u7 --candidates items.csv
    """
    items = read_candidates(candidates)
    as_of_ms = None if as_of is None else _milliseconds(as_of)
    page_features = parse_features(feature or (), "--feature")
    page_context = parse_context(context or (), "--context")
    # torch takes seconds to import, and --help and an invalid file need none.
    from prectr.ops.ranking.service import RankQuery, RunRanker, RunRef  # noqa: PLC0415
    from prectr.ops.ranking.terminal import print_ranking  # noqa: PLC0415

    run_ref = RunRef(run_dir=run_dir, state_dirs=state_dir or (), model=model, without=expect_without, config=config)
    ranking = RunRanker(run_ref).rank(
        RankQuery(
            query=query,
            user_id=user,
            items=items,
            position=position,
            as_of=as_of_ms,
            features=page_features,
            context=page_context,
        )
    )
    write_json(json, ranking)
    print_ranking(ranking, top)


def _milliseconds(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a time such as 2026-01-31T12:00", param_hint="--as-of") from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
