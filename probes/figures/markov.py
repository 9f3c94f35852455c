"""On Markov chains that are drawn anew: which statistics of its context does a model predict like, over training?"""

from __future__ import annotations

from typing import Any

from byrote.probes.figures.axis import StepAxis
from byrote.probes.figures.canvas import FULL, Figure, Look
from byrote.probes.figures.lines import Line, lines_figure, loss_axis
from byrote.probes.figures.select import observations
from byrote.probes.figures.theme import Style, series_style
from byrote.probes.wording import clean, interval, markup, short, step_number

_PREDICTORS = {
    "kl_even": "even",
    "kl_unigram": "the context's unigrams",
    "kl_bigram": "the context's bigrams",
    "kl_true": "the chain itself",
}
_APART = "unigrams from bigrams"


def in_context_markov(results: Any, *, look: Look = FULL) -> Figure:
    """How far a model's predictions are from even ones, and from the unigrams and bigrams of the context, over training.

    Args:
        results: a `Results` with `in_context_markov`.
        look: theme and width.

    Returns:
        Training steps on a log axis, KL in nats on y, 95% bands; dotted, how far unigrams and bigrams lie apart: where a model that counts
        pairs perfectly is from the unigrams.

    Raises:
        ByroteError: the results hold no `in_context_markov`.
    """
    tables = {
        metric: observations(results, "in_context_markov", metric) for metric in (*_PREDICTORS, "apart")
    }
    axis = StepAxis.over(tables["kl_bigram"]["step"])
    styles = [series_style(i) for i in range(len(_PREDICTORS))] + [Style("muted", "dot", "diamond")]
    lines = [
        Line.of(
            rows,
            [axis.place(step) for step in rows["step"]],
            label=_PREDICTORS.get(metric, _APART),
            at=[f"step {step_number(step)}" for step in rows["step"]],
            style=style,
        )
        for (metric, rows), style in zip(tables.items(), styles, strict=True)
    ]
    return lines_figure(
        lines, x_axis=axis, y_axis=loss_axis(lines, (), title="KL from the model's predictions, nats"), height_px=380, by=("step", "from"),
        title=f"What predictions on Markov chains are nearest to, {markup(short(results.run))}",
        subtitle="band: 95% interval over sequences · the lowest line is what the model predicts like · dotted: unigrams from bigrams",
        alt=_finding(results, lines[: len(_PREDICTORS)]), look=look,
    )  # fmt: skip


def _finding(results: Any, lines: list[Line]) -> str:
    """Which predictor is the nearest at the first and the last measured step."""
    sentences = []
    for row in (0, -1):
        near = []
        for line in lines:
            known = line.rows[line.rows["valid"]]
            if len(known):
                near.append((float(known["value"].iloc[row]), line.label, known.iloc[row]))
        if near:
            _, label, found = min(near, key=lambda one: one[0])
            sentences.append(
                f"at step {step_number(found['step'])} predictions are nearest to {_whose(label)}, "
                f"{interval(found['value'], found['lo'], found['hi'])} nats"
            )
    return f"{clean(results.run)}: {', '.join(sentences) or 'not measured at any step'}."


def _whose(label: str) -> str:
    return "even ones" if label == "even" else label
