"""Chains in a grid's file: one table with `iterations = n` stands for n arms, each made from the runs of the one before. No torch.

    [arms.rest]
    kind = "rest_em"
    base = "human"
    generator = "human"         # of the first iteration
    iterations = 3              # the arms rest-g1, rest-g2 and rest-g3
    control = "rest-random"     # a chain too: each iteration is compared with the same one of it

Elsewhere in the grid the name of a chain stands for its last iteration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms.part import Part
from byrote.checkpoints.lab.arms.registry import arms

ITERATIONS, MAX_ITERATIONS = "iterations", 100


def unchained(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of arms, chains written out.

    Args:
        tables: of a grid's arms by name, of which nothing is trusted; what is no table is left as it is.

    Raises:
        ByroteError: `iterations` is no number of them, or stands with an arm that is not made from the one before.
    """
    tables = {name: _with_kind(name, table) for name, table in tables.items()}
    lengths = {name: _length(name, table) for name, table in tables.items()}
    found: dict[str, Any] = {}
    for name, table in tables.items():
        if not lengths[name]:
            found[name] = _renamed(table, lengths) if isinstance(table, dict) else table
            continue
        for number in range(1, lengths[name] + 1):
            called = f"{name}-g{number}"
            if called in tables:
                raise ByroteError(
                    f"the chain {name!r} makes an arm {called!r}, which the grid has already",
                    help="give one of them another name",
                )
            found[called] = _iteration(name, table, number, lengths)
    return found


def _with_kind(name: str, table: Any) -> Any:
    """A chain's table with its kind, which is the arm's name where it says none."""
    chain = isinstance(table, dict) and ITERATIONS in table and "parts" not in table
    return {"kind": name, **table} if chain else table


def _length(name: str, table: Any) -> int:
    """Iterations of an arm's table; 0 where it is no chain."""
    if not isinstance(table, dict) or ITERATIONS not in table:
        return 0
    value = table[ITERATIONS]
    if type(value) is not int or not 1 <= value <= MAX_ITERATIONS:
        raise ByroteError(
            f"{ITERATIONS} of [arms.{name[:40]}] is {str(value)[:40]!r}", help=f"write 1 to {MAX_ITERATIONS}"
        )
    if not any(_is_chained(part) for part in _parts(table)):
        chained = [kind for kind, part in arms().items() if part.chained]
        raise ByroteError(
            f"[arms.{name[:40]}] has {ITERATIONS}, and none of its parts is made from the iteration before",
            help=f"these are: {', '.join(chained)}",
        )
    return value


def _iteration(
    name: str, table: Mapping[str, Any], number: int, lengths: Mapping[str, int]
) -> dict[str, Any]:
    """The table of one iteration of a chain."""
    own = _renamed({key: value for key, value in table.items() if key != ITERATIONS}, lengths)
    mine = {"generation": number, **({} if number == 1 else {"generator": f"{name}-g{number - 1}"})}
    if "parts" in own:
        own["parts"] = [{**part, **mine} if _is_chained(part) else part for part in own["parts"]]
    else:
        own |= mine
    against = table.get("control")
    if isinstance(against, str) and lengths.get(against):
        own["control"] = f"{against}-g{min(number, lengths[against])}"
    return own


def _renamed(table: Mapping[str, Any], lengths: Mapping[str, int]) -> dict[str, Any]:
    """A table in which names of chains are those of their last iterations."""
    named = {"control"} | {setting for part in arms().values() for setting in part.runs}
    return {
        key: _last(value, lengths) if key in named else _within(key, value, lengths)
        for key, value in table.items()
    }


def _within(key: str, value: Any, lengths: Mapping[str, int]) -> Any:
    if key == "parts" and isinstance(value, list):
        return [_renamed(one, lengths) if isinstance(one, dict) else one for one in value]
    return value


def _last(name: Any, lengths: Mapping[str, int]) -> Any:
    length = lengths.get(name, 0) if isinstance(name, str) else 0
    return f"{name}-g{length}" if length else name


def _parts(table: Mapping[str, Any]) -> list[Any]:
    parts = table.get("parts")
    return parts if isinstance(parts, list) else [table]


def _is_chained(table: Any) -> bool:
    kind: type[Part] | None = arms().get(str(table.get("kind"))) if isinstance(table, dict) else None
    return kind is not None and kind.chained
