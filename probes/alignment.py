"""Which checkpoint of one run stands against which of another: by step, tokens seen, or training loss. No torch."""

from __future__ import annotations

import pandas as pd

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.probes.results import Results

ALIGNMENTS = ("step", "tokens", "loss")
_TOLERANCE = {"tokens": 0.02, "loss": 0.05}  # relative distance within which two checkpoints count as matched


def matched_steps(a: Results, b: Results, align: str) -> list[tuple[int, int]]:
    """Pairs (step of A, step of B), ascending. Steps that lint asked to leave out are not matched.

    By step: the steps both have. By tokens or loss: each step of A with the nearest of B, within 2% of the tokens or
    5% of the loss; each step of B is used once.

    Raises:
        ByroteError: an unknown axis, an axis one run does not record, or nothing that matches.
    """
    if align not in ALIGNMENTS:
        raise ByroteError(f"runs cannot be aligned by {align!r}", help=did_you_mean(align, ALIGNMENTS))
    if align == "step":
        pairs = [(step, step) for step in sorted(set(a.usable_steps) & set(b.usable_steps))]
    else:
        pairs = _nearest(_axis(a, align), _axis(b, align), _TOLERANCE[align])
    if not pairs:
        raise ByroteError(
            f"{a.run} (steps {_span(a)}) and {b.run} (steps {_span(b)}) have no checkpoint in common by {align}",
            help="align by another axis: --align step, tokens or loss; or measure more steps",
        )
    return pairs


def _axis(results: Results, align: str) -> dict[int, float]:
    if align == "tokens":
        seen = results.frame.drop_duplicates("step").set_index("step")["tokens_seen"]
        values = {step: float(seen[step]) for step in results.usable_steps if not pd.isna(seen[step])}
    else:
        recorded = results.meta["series"].get("loss_nats", {})
        values = {
            step: float(recorded[str(step)])
            for step in results.usable_steps
            if recorded.get(str(step)) is not None
        }
    if not values:
        raise ByroteError(f"{results.run} records no {align} per checkpoint", help="use --align step")
    return values


def _nearest(a: dict[int, float], b: dict[int, float], tolerance: float) -> list[tuple[int, int]]:
    pairs, free = [], dict(b)
    for step, value in sorted(a.items()):
        if not free:
            break
        other = min(free, key=lambda s: (abs(free[s] - value), s))
        if abs(free[other] - value) <= tolerance * max(abs(value), 1e-9):
            pairs.append((step, other))
            del free[other]
    return sorted(pairs)


def _span(results: Results) -> str:
    steps = results.steps
    return f"{steps[0]}-{steps[-1]}" if steps else "none"
