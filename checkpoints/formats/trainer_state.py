"""Small JSON files beside weights, read whole or refused; the step and tokens in the Trainer's `trainer_state.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from byrote.checkpoints import safe_read
from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.step_names import MAX_COUNT, StepName

MAX_JSON_BYTES = 64 << 20  # the log of a million steps


@dataclass(frozen=True)
class TrainerState:
    """What the Trainer wrote beside a checkpoint; None where it says nothing usable."""

    step: int | None = None
    tokens_seen: int | None = None
    loss_nats: float | None = None


def read_json(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file is not there, is too long, is not JSON, or holds something other than an object.
    """
    try:
        return safe_read.read_json(path, max_bytes=max_bytes, follow_links=True)
    except safe_read.FileRefused as error:
        message = error.message.replace(str(path), path.name)
        raise CheckpointError(message, help=error.help or "restore the file") from None
    except OSError as error:
        raise CheckpointError(
            f"{path.name} cannot be read ({error.strerror})", help="restore the file"
        ) from None


def count_or_none(value: Any) -> int | None:
    """A number of steps or tokens; None for anything else."""
    return value if type(value) is int and 0 <= value < MAX_COUNT else None


def first_count(values: Mapping[str, Any], *names: str) -> int | None:
    """The first of several fields that holds a number of steps or tokens; None where none does."""
    counts = (count_or_none(values.get(name)) for name in names)
    return next((count for count in counts if count is not None), None)


def number_or_none(value: Any) -> float | None:
    """A loss; None for anything else, and for what is not finite."""
    return float(value) if _finite(value) and not isinstance(value, bool) else None


def trainer_state(folder: Path, named: StepName | None) -> TrainerState:
    """Step, tokens and the loss logged last before the step: `trainer_state.json` first, then what the name says.

    A step that a name says counts more than the file's; but a bare number may be a seed or an epoch, and there the
    Trainer's own count is believed first.

    Args:
        folder: one checkpoint.
        named: what its name says.

    Raises:
        CheckpointError: the file is there and is not a JSON object.
    """
    path = folder / "trainer_state.json"
    state = read_json(path) if path.is_file() else {}
    step = named.step if named and not named.bare else count_or_none(state.get("global_step"))
    tokens, loss = _tokens(state), _loss(state, step or 0)
    if named is not None:
        step = named.step if step is None else step
        tokens = named.tokens if tokens is None else tokens
    return TrainerState(step, tokens, loss)


def _tokens(state: dict[str, Any]) -> int | None:
    seen = state.get("num_input_tokens_seen")
    return int(seen) if _finite(seen) and 0 < seen < MAX_COUNT else None


def _loss(state: dict[str, Any], step: int) -> float | None:
    history = state.get("log_history")
    logged = [
        (row["step"], float(row["loss"]))
        for row in (history if isinstance(history, list) else [])
        if isinstance(row, dict) and isinstance(row.get("step"), int) and _finite(row.get("loss"))
    ]
    past = [row for row in logged if row[0] <= step]
    return max(past)[1] if past else None


def _finite(value: Any) -> TypeGuard[float]:
    """A number JSON can hold: trainers write NaN and Infinity when training diverged."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False
