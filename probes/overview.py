"""What a results folder holds, in the few lines a notebook shows. Torch-free, offline, everything escaped."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from byrote.checkpoints.errors import ByroteError
from byrote.probes.registry import REGISTRY
from byrote.probes.trajectory import onset

if TYPE_CHECKING:
    from byrote.probes.store import Results

_PROBES_SHOWN = ("prefix_matching", "previous_token", "copying_logit")


def overview_html(results: Results) -> str:
    """Coverage, onset, strongest heads at the last step, gaps and provenance of one run."""
    parts = [f"<p><b>{html.escape(repr(results))}</b></p>"]
    if results.steps:
        parts.append(f"<p>{html.escape(onset(results).text)}</p>")
    parts += [_table(results, name) for name in _PROBES_SHOWN]
    parts += [f"<p>{html.escape(line)}</p>" for line in _remarks(results)]
    return "".join(parts)


def _table(results: Results, probe: str) -> str:
    try:
        scores = results[probe]
        top = scores.top(3)
    except ByroteError:
        return ""
    title = f"{probe}, {scores.unit}, step {scores.steps[-1]:,}: {REGISTRY[probe].summary}"
    table = top.to_html(index=False, float_format="%.3f", escape=True, border=0)
    return f"<details open><summary>{html.escape(title)}</summary>{table}</details>"


def _remarks(results: Results) -> Iterator[str]:
    for gap in results.gaps[:5]:
        yield f"gap: {_text(gap.get('path'))}: {_text(gap.get('reason'))}"
    if len(results.gaps) > 5:
        yield f"and {len(results.gaps) - 5} more gaps"
    provenance = results.meta.get("provenance") or {}
    named = {key: provenance.get(key) for key in ("dtype", "device", "seed") if key in provenance}
    yield f"{', '.join(f'{key} {_text(value)}' for key, value in named.items())}; folder {results.path}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)
