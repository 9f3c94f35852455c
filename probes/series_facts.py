"""Facts about a series that follow from measurements: steps that predict worse than guessing, where their neighbours do not.

Torch-free: read from a results folder, beside what `byrote.checkpoints.lint` reads from the weights.
"""

from __future__ import annotations

import pandas as pd

from byrote.checkpoints.lint.report import Fact
from byrote.probes.findings import UNLIKE, text_losses
from byrote.probes.results import Results
from byrote.probes.wording import sentence_case

METRICS = {"first_block": "random tokens", "later_blocks": "repeated tokens"}


def loss_facts(results: Results) -> list[Fact]:
    """Steps whose loss on random or on repeated tokens is above that of guessing uniformly, or on text beyond doubt too high.

    A loss above uniform is natural where random tokens are unlike anything in the training data, and where a model
    memorised: it is a note. A single step above it, between steps significantly below, is a warning.

    Args:
        results: with the probes `repeat_loss` and `held_out_loss`; without them there are no facts.
    """
    facts: list[Fact] = []
    for metric, words in METRICS.items():
        rows = results.select("repeat_loss", metric)
        rows = rows[rows["valid"]].sort_values("step")
        worse, better = rows["lo"] > rows["chance"], rows["hi"] < rows["chance"]  # than guessing
        alone = worse & better.shift(1, fill_value=False) & better.shift(-1, fill_value=False)
        meaning = (
            f"On {words} this step is worse than guessing and its neighbours are not: look at its weights."
        )
        facts += [_fact(rows.loc[[row]], metric, meaning, "warning") for row in rows.index[alone]]
        rest = rows[worse & ~alone]
        if not rest.empty:
            meaning = f"On {words} these steps are worse than guessing: {UNLIKE}."
            facts.append(_fact(rest, metric, meaning, "note"))
    rows = results.select("held_out_loss", "loss")
    for sentence, steps, leave_out in text_losses(results):
        facts.append(
            _fact(
                rows[rows["step"].isin(steps)],
                "held_out_loss",
                f"{sentence_case(sentence)}.",
                "warning",
                leave_out=leave_out,
            )
        )
    return facts


def _fact(
    rows: pd.DataFrame, metric: str, meaning: str, severity: str, *, leave_out: bool | None = None
) -> Fact:
    worst = rows.loc[(rows["value"] - rows["chance"]).idxmax()]
    evidence = {
        "metric": metric,
        "worst_step": int(worst["step"]),
        "loss_nats": float(worst["value"]),
        "lo_nats": float(worst["lo"]),
        "uniform_nats": float(worst["chance"]),
    }
    steps = tuple(rows["step"].tolist())
    excluded = severity == "warning" if leave_out is None else leave_out
    return Fact("loss_above_uniform", severity, steps, meaning, evidence, leave_out=steps if excluded else ())
