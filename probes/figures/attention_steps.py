"""One head's attention to what an induction head looks at, over training, on one stored text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.interp.axes import head_label, parse_head
from byrote.probes.attention import NOT_SAVED, StoredText, attention_file, patterns_over, stored_texts
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.lines import Line, chance_trace, lines_figure
from byrote.probes.figures.select import as_list
from byrote.probes.figures.theme import Style, run_styles
from byrote.probes.figures.trajectory import rule
from byrote.probes.repeats import Repeats, repeats_of
from byrote.probes.wording import clean, counted, labels_of_runs, number, short, step_number

Patterns = Mapping[int, Float[np.ndarray, "query_pos key_pos"]]


def attention_over_steps(
    results_list: Any,
    *,
    head: str | tuple[int, int],
    text: int | StoredText = 0,
    query: int | None = None,
    base: str | None = None,
    step: int | None = None,
    files: Mapping[int, Path] | None = None,
    look: Look = FULL,
) -> Figure:
    """How a token's attention to its expected target changes over the steps whose attention is stored.

    Args:
        results_list: one `Results` or several, swept with `--save-attention`.
        head: `"L5H1"` or `(5, 1)`.
        text: a stored sequence, or its number among those of the first run's last step that has any.
        query: position of the token that attends; None takes the one with the most attention on its target at the last step.
        base: name of the baseline run.
        step: a step to draw a rule through.
        files: files of attention by step, in place of those that the only run stored.
        look: theme and width.

    Returns:
        A line per run for this token, and of the last run one for the mean over all tokens with a target. A token without
        an earlier copy has no target; the key it attends to most at the last step stands in. Exact values of one
        sequence, without intervals. Dotted: uniform attention.

    Raises:
        ByroteError: no attention is stored, or at one step only.
    """
    runs = as_list(results_list)
    own = [files or {s: attention_file(run.path, s) for s in run.steps} for run in runs]
    chosen = text if isinstance(text, StoredText) else _text(own[0], text)
    layer, index = parse_head(head)
    found = {
        run.run: patterns_over(each, chosen, layer=layer, head=index)
        for run, each in zip(runs, own, strict=True)
    }
    if all(len(patterns) < 2 for patterns in found.values()):
        at = sorted({step for patterns in found.values() for step in patterns})
        raise ByroteError(
            f"the attention on this text is stored at {counted(len(at), 'step')}"
            + f" ({step_number(at[0])})" * (len(at) == 1),
            help="a curve needs two: run the same sweep again with --save-attention, over more --steps",
        )
    return _figure({run: p for run, p in found.items() if p}, chosen, head_label(layer, index), query, base, step, look)  # fmt: skip


def _text(files: Mapping[int, Path], at: int) -> StoredText:
    for _, file in sorted(files.items(), reverse=True):
        if texts := stored_texts(file):
            if 0 <= at < len(texts):
                return texts[at]
            raise ByroteError(f"there is no stored text {at}", help=f"0-{len(texts) - 1} are stored")
    raise ByroteError(f"there is no attention to draw: {NOT_SAVED}")


def _figure(
    found: Mapping[str, Patterns],
    text: StoredText,
    head: str,
    query: int | None,
    base: str | None,
    step: int | None,
    look: Look,
) -> Figure:
    repeats = repeats_of(text.tokens)
    shown = next(run for run in [*found][::-1] if run != base or len(found) == 1)
    last = list(found[shown].values())[-1]
    at = repeats.telling(last) if query is None or query >= len(last) else query
    keys = repeats.targets[at] or (int(np.argmax(last[at, : at + 1])),)
    axis = StepAxis.over(s for patterns in found.values() for s in patterns)
    styles, labels = run_styles([*found], base=base), labels_of_runs(found)
    names = [*(text.words or map(str, text.tokens.tolist()))]
    lines = []
    n_such = sum(map(bool, repeats.targets[: len(last)]))
    if repeats.targets[at] and n_such > 1:
        mean = [(s, _mean(repeats, pattern)) for s, pattern in found[shown].items()]
        lines.append(
            Line.bare(
                mean,
                axis,
                label=f"mean of {n_such} tokens",
                hover=_hover_text("mean", mean),
                style=Style("muted"),
            )
        )
    ends = []
    for run, patterns in found.items():
        points = [(s, float(pattern[at, list(keys)].sum())) for s, pattern in patterns.items()]
        label = f"token {at}" if len(found) == 1 else labels[run]
        line = Line.bare(
            points, axis, label=label, hover=_hover_text(clean(short(run)), points), style=styles[run]
        )
        lines.append(line if len(found) == 1 else replace(line, name=short(run)))
        ends.append(
            f"{clean(run)} {number(points[0][1])} at step {step_number(points[0][0])}, {number(points[-1][1])} at step {step_number(points[-1][0])}"
        )
    target = "the token after its earlier copy" if repeats.targets[at] else f"position {keys[-1]}"
    chance = len(keys) / (at + 1)
    y_axis = value_axis(0.0, 1.0, title="attention fraction")
    ends_of_axis = [10**end for end in axis.limits()]
    return lines_figure(
        lines, x_axis=axis, y_axis=y_axis, height_px=340, by=("step", "line"),
        under=chance_trace(ends_of_axis, [chance] * 2), over=rule(axis, step, y_axis["range"], hoverinfo="name"),
        title=f"{head} over training: attention to {target}",
        subtitle=f"from position {at} · one sequence, so no interval · dotted: uniform attention",
        alt=f"Attention of {head} from position {at} ({clean(names[at], limit=40)}) to {target}: {'; '.join(ends)}; uniform attention gives {number(chance)}.",
        look=look,
    )  # fmt: skip


def _mean(repeats: Repeats, pattern: Float[np.ndarray, "query_pos key_pos"]) -> float:
    return float(np.nanmean(repeats.on_target(pattern)))


def _hover_text(what: str, points: list[tuple[int, float]]) -> list[str]:
    return [f"{what}, step {step_number(s)}<br>{number(v)}" for s, v in points]
