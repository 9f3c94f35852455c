"""The report's picture of loss by place in the context, with its table."""

from __future__ import annotations

from byrote.probes import figures
from byrote.probes.figures.by_position import spread_places
from byrote.probes.results import Results
from byrote.probes.wording import chance_number, short
from byrote.report.model import Block, Picture, Table
from byrote.report.scene import Scene, at_last, estimate_of

MAX_ROWS = 24


def position_blocks(scene: Scene) -> list[Block]:
    """One picture of all runs that measured it; none where none did."""
    runs = [
        r
        for r in scene.with_valid("loss_by_position", "loss")
        if not at_last(r, "loss_by_position", "loss").empty
    ]
    if not runs:
        return []
    return [Picture("loss-by-position", figures.loss_by_position(runs, base=scene.base), _table(runs))]


def _table(runs: list[Results]) -> Table:
    rows = [at_last(run, "loss_by_position", "loss") for run in runs]
    columns = [
        {int(r.position): estimate_of(r) for r in spread_places(mine, MAX_ROWS).itertuples(index=False)}
        for mine in rows
    ]
    places = sorted({place for column in columns for place in column})
    counted = " and ".join(sorted({f"{int(n):,}" for mine in rows for n in mine["n"]}))
    chance = rows[0]["chance"].dropna()
    level = "no chance level" if chance.empty else f"chance {chance_number(float(chance.median()))}"
    return Table(
        name="loss-by-position-table",
        caption="Mean loss in nats of the t-th token of real text after BOS, with 95% intervals. "
        f"n = {counted} sequences, {level}.",
        columns=("Token", *(short(r.run) for r in runs)),
        rows=tuple((f"{place:,}", *(column.get(place) for column in columns)) for place in places),
        n_left_out=max(len(mine) for mine in rows) - len(places),
    )
