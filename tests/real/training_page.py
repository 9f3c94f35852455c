"""docs/case-studies/training.md and its figures, from the table beside it: what `make real-training` measured.

    .venv/bin/python tests/real/training_page.py runs/real    # take over what was measured, and write the page
    .venv/bin/python tests/real/training_page.py              # write the page anew

The table holds the values of every sequence, so that differences are made here, pair by pair. tests/test_training_study.py
compares the page with the table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.atomic import write_text
from byrote.interp.axes import head_label
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, Figure, scatter
from byrote.probes.figures.forest import ForestRow, Mark, Panel, forest
from byrote.probes.figures.lines import Line, lines_figure
from byrote.probes.figures.theme import paint, run_styles
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.rules import smallest_effect
from byrote.probes.seed_statistics import mean_over_seeds
from byrote.probes.statistics import Triple, bootstrap_mean, two_sample_interval
from byrote.probes.wording import counted, interval, listed, number
from byrote.report.html import standalone_svg

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "case-studies"
TABLE, FACTS, PAGE = "training.parquet", "training.json", "training.md"
ARMS = {
    "unique": "windows of the text, each once",
    "repeated": "a tenth as many windows, ten times over",
    "synthetic": "the same windows as the unique arm, all but the first tokens of each written by the starting model",
}
CALLED = (
    "prefix_matching",
    "score@called",
)  # mean over the heads that are called induction heads at the start


@dataclass(frozen=True)
class Shown:
    """A number of the page.

    Attributes:
        name: what it is called in tables.
        probe, metric: of byrote.
        unit: of differences.
    """

    name: str
    probe: str
    metric: str
    unit: str = "nats"


HELD_OUT = Shown("loss on held-out text", "held_out_loss", "loss")
GAP = Shown("memory gap: twins' loss minus members'", "mem_gap", "gap")
MEMBERS = Shown("loss on members of the pool", "exact_match", "loss")
TWINS = Shown("loss on their twins", "exact_match", "loss@twins")
KNOWN = Shown("tokens of members predicted first", "exact_match", "accuracy", "of the tokens")
COPYING = Shown("copying: loss on repeats of random tokens", "repeat_loss", "later_blocks")
WORTH = Shown("what copying is worth there", "repeat_loss", "difference")
COPIED = Shown("loss on tokens of text that can be copied", "inducible_loss", "inducible")
CONTEXT = Shown(
    "in-context learning: slope of the loss", "loss_by_position", "slope", "nats per e-fold of the position"
)
MATCHING = Shown("prefix matching of the heads called at the start", *CALLED, unit="of the attention")
NUMBERS = (HELD_OUT, MEMBERS, TWINS, GAP, KNOWN, COPYING, WORTH, COPIED, CONTEXT, MATCHING)
MEMORY = (MEMBERS, TWINS, GAP, KNOWN)


# What was measured, as the table holds it.


def take_over(runs: Path, folder: Path) -> None:
    """Write the table and the facts.

    Args:
        runs: folder that train_smollm2.py was given.
        folder: where both are written.
    """
    place = runs / "training"
    facts = json.loads((place / "facts.json").read_text(encoding="utf-8"))
    names = [name for name in facts if name.partition("-seed")[0] in ARMS]
    opened = {name: Results.open(place / "results" / name) for name in names}
    facts["versions"] = next(iter(opened.values())).meta["provenance"]["versions"]
    facts["n_heads"] = int(np.prod(next(iter(opened.values())).shape))
    parts = []
    for name, results in opened.items():
        arm, _, seed = name.partition("-seed")
        first = next(
            one for other, one in opened.items() if other.endswith(name[len(arm) :]) and 0 in one.steps
        )
        verdict = first.select("induction", "verdict", step=0).query("value == 1")
        called = [(int(row.layer), int(row.head)) for row in verdict.itertuples()]
        parts.append(rows_of(results, called).assign(arm=arm, seed=int(seed)))
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(parts, ignore_index=True).to_parquet(folder / TABLE, index=False)
    write_text(folder / FACTS, json.dumps(facts, indent=1) + "\n")


def rows_of(results: Results, called: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """The numbers of one run at all steps, with the values of every sequence; and which heads are called at each.

    Args:
        results: of the run.
        called: heads whose mean prefix matching is followed.
    """
    wanted = {(one.probe, one.metric) for one in NUMBERS} | {("mem_gap", "loss_share")}
    keys = [
        "step",
        "tokens_seen",
        "probe",
        "metric",
        "layer",
        "head",
        "value",
        "lo",
        "hi",
        "n",
        "valid",
        "reason",
        "samples",
    ]
    parts = []
    for step in results.steps:
        rows = results.samples(step)
        which = pd.MultiIndex.from_frame(rows[["probe", "metric"]])
        parts.append(rows.loc[which.isin(wanted) & rows["position"].isna(), keys])
        derived = [results.select("mem_gap", metric, step=step) for metric in ("gap", "loss_share")]
        verdict = results.select("induction", "verdict", step=step).query("value == 1")
        parts += [rows.reindex(columns=keys) for rows in (*derived, verdict)]
        heads = rows.query("probe == 'prefix_matching' and metric == 'score'").set_index(["layer", "head"])[
            "samples"
        ]
        if called:
            mean = np.mean([heads.loc[head] for head in called], axis=0, dtype=np.float64)
            found = bootstrap_mean(mean[:, None])
            value, lo, hi = (float(one[0]) for one in (found.value, found.lo, found.hi))
            row = {"step": step, "probe": CALLED[0], "metric": CALLED[1], "value": value, "lo": lo, "hi": hi}
            parts.append(pd.DataFrame([row | {"n": len(mean), "valid": True, "reason": "", "samples": mean}]))
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    kinds = {"layer": "Int16", "head": "Int16", "tokens_seen": "Int64", "n": "Int32"}
    return table.drop_duplicates(["step", "probe", "metric", "layer", "head"]).astype(kinds)


@dataclass(frozen=True)
class Runs:
    """The table, and what is read off it.

    Attributes:
        rows: the table.
        facts: plan, versions and seconds.
    """

    rows: pd.DataFrame
    facts: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Runs:
        """What the folder holds."""
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return cls(pd.read_parquet(folder / TABLE), facts)

    @property
    def seeds(self) -> list[int]:
        """Seeds of which every arm is there."""
        found = self.rows.groupby("seed")["arm"].nunique()
        return sorted(found[found == len(ARMS)].index.tolist())

    @property
    def numbers(self) -> list[Shown]:
        """The numbers that there are: without induction heads at the start nothing follows them."""
        there = set(self.rows["probe"] + " " + self.rows["metric"])
        return [one for one in NUMBERS if f"{one.probe} {one.metric}" in there]

    @property
    def turn(self) -> int:
        """The last step before fresh data returns."""
        return int(self.facts["plan"]["steps"])

    @property
    def steps(self) -> list[int]:
        """Measured steps."""
        return sorted(self.rows["step"].unique().tolist())

    def row(self, arm: str, step: int, one: Shown, seed: int) -> pd.Series:
        """A number with its interval; the start is measured in one arm, for all."""
        arm = arm if step else str(self.rows.query("step == 0 and seed == @seed")["arm"].iloc[0])
        rows = self.rows.query("arm == @arm and seed == @seed and step == @step")
        return rows[(rows["probe"] == one.probe) & (rows["metric"] == one.metric)].iloc[0]

    def samples(self, arm: str, step: int, one: Shown, seed: int) -> np.ndarray:
        """Its value on every sequence."""
        return np.asarray(self.row(arm, step, one, seed)["samples"], dtype=np.float64)

    def difference(self, one: Shown, now: tuple[str, int], before: tuple[str, int], seed: int) -> Triple:
        """(value, lo, hi) of a number at one (arm, step) minus that at another, over the same sequences.

        Members and twins are no pairs: of the memory gap both are resampled, each with its own change.
        """

        def change(of: Shown) -> np.ndarray:
            return self.samples(*now, of, seed) - self.samples(*before, of, seed)

        if one is GAP:
            return two_sample_interval(change(MEMBERS), change(TWINS), lambda m, t: t - m, seed=0)
        found = bootstrap_mean(change(one)[:, None])
        return tuple(float(part[0]) for part in (found.value, found.lo, found.hi))  # type: ignore[return-value]

    def called(self, arm: str, step: int, seed: int) -> set[tuple[int, int]]:
        """Heads that are called induction heads."""
        arm = arm if step else str(self.rows.query("step == 0 and seed == @seed")["arm"].iloc[0])
        rows = self.rows.query("arm == @arm and seed == @seed and step == @step and probe == 'induction'")
        return {(int(row.layer), int(row.head)) for row in rows.itertuples()}


# Sentences.


def moved(found: Triple, one: Shown) -> str:
    """What a difference says: a rise, a fall, or neither surely."""
    value, lo, hi = found
    if not lo * hi > 0:
        return f"shows no clear change ({interval(*found, sign=True)} {one.unit})"
    said = f"{'rises' if value > 0 else 'falls'} by {interval(abs(value), *sorted((abs(lo), abs(hi))))} {one.unit}"
    least = smallest_effect(REGISTRY[one.probe], one.metric.partition("@called")[0])
    return f"{said}, less than the {least:g} that byrote reports as a change" if abs(value) < least else said


def written(folder: Path = FOLDER) -> dict[Path, str]:
    """The page and its figures, by path, as the table has it."""
    runs = Runs.read(folder)
    figures = {
        "held-out": over_steps(runs, HELD_OUT),
        "memory": over_steps(runs, GAP),
        "changes": changes(runs),
    }
    parts = [
        opening(runs), "\n".join(values(runs)), "\n".join(memory(runs)), picture(figures, "memory"),
        "\n".join(held_out(runs)), picture(figures, "held-out"), "\n".join(heads(runs)), "\n".join(between(runs)),
        picture(figures, "changes"), "\n".join(over_seeds(runs)), cost(runs), limits(runs),
    ]  # fmt: skip
    page = "\n\n".join(part for part in parts if part) + "\n"
    drawn = {
        folder / f"training-{name}.svg": standalone_svg(figure, name=f"training-{name}")
        for name, figure in figures.items()
    }
    return {folder / PAGE: page, **drawn}


def picture(figures: Mapping[str, Figure], name: str) -> str:
    """A figure in the page."""
    return f"![{figures[name].alt}](training-{name}.svg)\n\n*{figures[name].alt}*"


def opening(runs: Runs) -> str:
    """What was done, and how to do it again."""
    plan, seeds = runs.facts["plan"], runs.seeds
    size, n = plan["width"] - 1, plan["batch"] * plan["steps"]
    pool = -(-n // plan["epochs"])
    versions = ", ".join(f"{name} {version}" for name, version in runs.facts["versions"].items())
    text = (
        "the source code of Python's standard library"
        if plan["text"] == "stdlib"
        else Path(plan["text"]).name
    )
    case = (
        "one seed an arm: a case, and no finding about data"
        if len(seeds) == 1
        else f"{len(seeds)} seeds an arm"
    )
    arms = "\n".join(f"- **{arm}**: {words}" for arm, words in ARMS.items())
    return f"""# Training on with unique, repeated and self-written text

<!-- Written by `python tests/real/training_page.py` from training.parquet; a test compares the two. -->

SmolLM2-135M-Instruct, dequantised from 4 bits, is trained further on {text}, and measured while it trains by
[`byrote.Monitor`](../training.md). This is {case}.

{arms}

Each arm trains on {n} windows of {size} tokens after BOS ({n * size:,} tokens, {plan["steps"]} steps of {plan["batch"]} windows). Then fresh windows, the
same for all and new to all, return for {plan["fresh_steps"]} steps ({plan["batch"] * plan["fresh_steps"] * size:,} tokens). AdamW with a learning rate of {plan["lr"]:g} after
{plan["warmup"]} steps of warm-up, no decay{", autocast to bfloat16 while it trains" if plan["half"] else ""}; what is measured are the float32 weights, in float32.

Pool (the {pool} windows of the repeated arm), twins (as many, never trained on by any arm), unique and fresh windows are one
random cut of the text: members and twins differ in nothing but training. Held-out text is the last sixteenth of it, other files than
those. The model has seen Python code before, and probably this code; so had it of members and twins alike. The synthetic arm is
drawn at temperature 1, without truncation, after BOS and {plan["prompt"] - 1} tokens of each window.

`make real-training` does all of it in less than an hour of one core, `make real-training seeds=3` with three seeds; ended at any moment, the same
command goes on. Intervals are 95%, over sequences. Made with {versions}."""


def values(runs: Runs) -> Iterator[str]:
    """All numbers at the start, before fresh data returns, and at the end."""
    seed, last = runs.seeds[0], runs.steps[-1]
    places = [("unique", 0), *((arm, runs.turn) for arm in ARMS), *((arm, last) for arm in ARMS)]
    names = ["start", *(f"{arm}, step {step}" for arm, step in places[1:])]
    yield "## The numbers"
    yield ""
    yield f"Step {runs.turn} is the last before fresh text returns, step {last} the last of all{f'; seed {seed}' if len(runs.seeds) > 1 else ''}."
    yield ""
    yield f"| number | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    for one in runs.numbers:
        rows = [runs.row(*place, one, seed) for place in places]
        cells = [interval(row["value"], row["lo"], row["hi"]) for row in rows]
        yield f"| {one.name} ({one.unit}) | {' | '.join(cells)} |"
    yield f"| heads that are called induction heads | {' | '.join(str(len(runs.called(*place, seed))) for place in places)} |"


def memory(runs: Runs) -> Iterator[str]:
    """What was learned by heart, and how much of it fresh data takes away."""
    seed, turn, last = runs.seeds[0], runs.turn, runs.steps[-1]
    plan = runs.facts["plan"]
    row = runs.row("repeated", turn, GAP, seed)
    yield "## Memory"
    yield ""
    yield (
        f"Measured are the first {plan['known'] - 1} tokens after BOS of all {int(row['n'])} members, and of as many twins. Before training the gap is "
        f"{said(runs.row('repeated', 0, GAP, seed))} nats: no window of the pool is known better than its twins beyond what the interval leaves open."
        if row_holds_zero(runs.row("repeated", 0, GAP, seed))
        else f"Measured are the first {plan['known'] - 1} tokens after BOS of all {int(row['n'])} members, and of as many twins. Before training the gap is "
        f"{said(runs.row('repeated', 0, GAP, seed))} nats: the cut happened to give the pool other windows than the twins."
    )
    yield ""
    for arm in ("repeated", "unique", "synthetic"):
        change = runs.difference(GAP, (arm, turn), (arm, 0), seed)
        members = runs.difference(MEMBERS, (arm, turn), (arm, 0), seed)
        twins = runs.difference(TWINS, (arm, turn), (arm, 0), seed)
        known = runs.difference(KNOWN, (arm, turn), (arm, 0), seed)
        trained = "" if arm == "repeated" else " (which this arm never saw)"
        yield (
            f"- **{arm}**: by step {turn} the gap {moved(change, GAP)}. The loss on members{trained} {moved(members, MEMBERS)}, that on twins "
            f"{moved(twins, TWINS)}; the share of the members' tokens that are predicted first {moved(known, KNOWN)}."
        )
    kept = runs.difference(GAP, ("repeated", last), ("repeated", turn), seed)
    share = runs.rows.query(
        "arm == 'repeated' and seed == @seed and step == @turn and metric == 'loss_share'"
    ).iloc[0]
    yield ""
    yield (
        f"At step {turn} members of the repeated arm have {said(share)} of the twins' loss. While fresh text returns the gap {moved(kept, GAP)}; at step {last} "
        f"it is {said(runs.row('repeated', last, GAP, seed))} nats."
    )


def row_holds_zero(row: pd.Series) -> bool:
    """Whether the interval holds 0."""
    return bool(row["lo"] <= 0 <= row["hi"])


def said(row: pd.Series) -> str:
    """A number with its interval."""
    return interval(row["value"], row["lo"], row["hi"])


def held_out(runs: Runs) -> Iterator[str]:
    """Held-out loss, and what happens to it when fresh data returns."""
    seed, turn = runs.seeds[0], runs.turn
    after = [step for step in runs.steps if step > turn]
    yield "## Held-out text, and the return of fresh data"
    yield ""
    for arm in ARMS:
        first = runs.difference(HELD_OUT, (arm, turn), (arm, 0), seed)
        steps = [
            f"{moved(runs.difference(HELD_OUT, (arm, step), (arm, turn), seed), HELD_OUT)} by step {step}"
            for step in after
        ]
        net = runs.difference(HELD_OUT, (arm, after[-1]), (arm, 0), seed)
        yield (
            f"- **{arm}**: by step {turn} the loss {moved(first, HELD_OUT)}. From there, with fresh text, it {'; '.join(steps)}. Against the start it "
            f"{moved(net, HELD_OUT)} in all."
        )
    worse = [
        arm
        for arm in ARMS
        if any(runs.difference(HELD_OUT, (arm, step), (arm, turn), seed)[1] > 0 for step in after[:-1])
    ]
    yield ""
    yield (
        f"A stability gap, held-out loss that first rises when the data changes, is seen in: {', '.join(worse)}."
        if worse
        else "No arm shows a stability gap: at none of the steps after fresh text returns is held-out loss surely higher than before it."
    )


def heads(runs: Runs) -> Iterator[str]:
    """What becomes of induction heads, copying and in-context learning."""
    seed, turn, last = runs.seeds[0], runs.turn, runs.steps[-1]
    start = runs.called("unique", 0, seed)
    yield "## Induction heads, copying, in-context learning"
    yield ""
    followed = (
        f": {names_of(start)}. Their mean prefix matching is followed (they were chosen by the same sequences at step 0, which makes a small fall "
        "more likely than a rise)."
    )
    yield f"At the start {counted(len(start), 'head')} of {runs.facts['n_heads']} are called induction heads{followed if start else '.'}"
    yield ""
    for arm in ARMS:
        then = runs.called(arm, turn, seed)
        lost, new = start - then, then - start
        back = lost & runs.called(arm, last, seed)
        told = [f"{counted(len(then), 'head')} called at step {turn}"]
        told += [f"lost: {names_of(lost)}"] if lost else []
        told += [f"new: {names_of(new)}"] if new else []
        told += [f"back at step {last}: {names_of(back)}"] if back else []
        parts = [
            f"{lead} {moved(runs.difference(one, (arm, turn), (arm, 0), seed), one)}"
            for lead, one in LEADS
            if one in runs.numbers
        ]
        yield f"- **{arm}**: {'; '.join(told)}. By step {turn} {'; '.join(parts)}."


LEADS = (
    ("their prefix matching", MATCHING),
    ("the loss on repeats of random tokens", COPYING),
    ("what copying is worth there", WORTH),
    ("the loss on tokens of held-out text that can be copied", COPIED),
    ("the slope of the loss over the context (lower: more is learned from context)", CONTEXT),
)


def names_of(which: set[tuple[int, int]]) -> str:
    """Heads by name, the first twelve."""
    return listed([head_label(*head) for head in sorted(which)], most=12)


def between(runs: Runs) -> Iterator[str]:
    """Arms against the unique arm."""
    seed, last = runs.seeds[0], runs.steps[-1]
    yield "## Arms against each other"
    yield ""
    yield "What the data did, at the same steps and over the same sequences; in brackets 95% intervals over sequences."
    yield ""
    pairs = [(arm, step) for arm in ("repeated", "synthetic") for step in (runs.turn, last)]
    yield f"| minus unique | {' | '.join(f'{arm}, step {step}' for arm, step in pairs)} |"
    yield f"|---|{'---|' * len(pairs)}"
    for one in runs.numbers:
        cells = [
            interval(*runs.difference(one, pair, ("unique", pair[1]), seed), sign=True) for pair in pairs
        ]
        yield f"| {one.name} ({one.unit}) | {' | '.join(cells)} |"


def over_seeds(runs: Runs) -> Iterator[str]:
    """The same over seeds, where there are several: what one seed cannot say."""
    if len(runs.seeds) < 2:
        return
    yield "## Over seeds"
    yield ""
    yield f"Means over {len(runs.seeds)} seeds of the difference from the unique arm of the seed, at step {runs.turn}; intervals over seeds."
    yield ""
    yield "| minus unique | repeated | synthetic |"
    yield "|---|---|---|"
    for one in runs.numbers:
        cells = []
        for arm in ("repeated", "synthetic"):
            each = [
                runs.difference(one, (arm, runs.turn), ("unique", runs.turn), seed)[0] for seed in runs.seeds
            ]
            found = mean_over_seeds(np.array(each))
            cells.append(interval(found.value, found.lo, found.hi, sign=True))
        yield f"| {one.name} ({one.unit}) | {' | '.join(cells)} |"


def cost(runs: Runs) -> str:
    """What measuring took, beside training."""
    plan = runs.facts["plan"]
    spent = [runs.facts[f"{arm}-seed{seed}"] for arm in ARMS for seed in runs.seeds]
    wrote = sum(runs.facts[f"written-seed{seed}"]["core_s"] for seed in runs.seeds)
    train, measure = (sum(one[f"{what}_core_s"] for one in spent) for what in ("train", "measure"))
    n = len(runs.rows[["arm", "seed", "step"]].drop_duplicates())
    tokens = plan["batch"] * (plan["width"] - 1) * plan["measured"][-1] * len(spent)
    return f"""## What it cost

Training took {number(train / 60)} minutes of one core ({tokens / train:,.0f} tokens a second), {n} measurements {number(measure / 60)} ({number(measure / n)} seconds each, {measure / train:.0%} of the
time of training), writing the synthetic windows {number(wrote / 60)}. The budget is the list of steps, and `budget_frac=None`: a share of the time would
skip other steps in one arm than in another, and arms could not be compared. Measured at each are `induction`, `repeat_loss`, `held_out_loss`, `inducible_loss`,
`loss_by_position`, `exact_match` and `mem_gap`, on {plan["n_seq"]} sequences per stimulus. At the
default of 2% (`budget_frac=0.02`) one would be taken every {50 * measure / n / 60:.0f} minutes of training. The start is measured in one arm for all three."""


def limits(runs: Runs) -> str:
    """What the page cannot say."""
    plan = runs.facts["plan"]
    one = (
        "One seed an arm is one draw of the pool, of the order and of what the model writes: intervals cover the choice of test sequences and not that. "
        if len(runs.seeds) == 1
        else ""
    )
    tokens = plan["batch"] * plan["measured"][-1] * (plan["width"] - 1)
    return f"""## What it cannot say

- {one}Whether repetition or synthetic text does this in general takes seeds.
- {tokens:,} tokens are a few minutes of pretraining's trillions, at a learning rate chosen once. Damage that builds up slowly, as in the collapse of models
  trained on their own text again and again, cannot show in one round of this length.
- The model is an instruct model rounded to 4 bits and back; training may repair rounding, which every arm shares.
- The text is code, which the model knows: what it learns of new text may differ.
- Sequences are {plan["width"]} tokens: in-context learning over longer contexts was not measured, and `icl_score`, which needs hundreds of windows, was left out for
  its cost."""


# Figures.


def over_steps(runs: Runs, one: Shown) -> Figure:
    """The change of one number since the start, a line per arm."""
    seed, axis = runs.seeds[0], StepAxis.over(runs.steps, log=False)
    lines, styles = [], run_styles(list(ARMS), base="unique")
    for arm in ARMS:
        found = [runs.difference(one, (arm, step), (arm, 0), seed) for step in runs.steps]
        rows = pd.DataFrame(found, columns=["value", "lo", "hi"]).assign(
            step=runs.steps, chance=np.nan, valid=True, reason="", layer=pd.NA, head=pd.NA,
            n=[int(runs.row(arm, step, one, seed)["n"]) for step in runs.steps],
        )  # fmt: skip
        at = [f"step {step}" for step in runs.steps]
        lines.append(Line.of(rows, runs.steps, label=arm, at=at, style=styles[arm]))
    ends = [float(end) for line in lines for name in ("lo", "hi") for end in line.rows[name]]
    y_axis = value_axis(min(ends), max(ends), title=f"change since the start, {one.unit}")
    rule = {"color": paint("muted"), "width": 1, "dash": "dot"}
    turn = scatter("fresh text returns", [runs.turn] * 2, list(y_axis["range"]), line=rule)
    told = "; ".join(
        f"{arm} {interval(*runs.difference(one, (arm, runs.steps[-1]), (arm, 0), seed), sign=True)}"
        for arm in ARMS
    )
    title = f"{one.name[0].upper()}{one.name[1:]}, change since the start"
    return lines_figure(
        lines, x_axis=axis, y_axis=y_axis, height_px=360, by=("step", "run"), under=[turn], title=title,
        subtitle=f"95% interval over sequences · dotted: step {runs.turn}, fresh text returns", look=FULL,
        alt=f"{title}, by arm; dotted where fresh text returns, after step {runs.turn}; at step {runs.steps[-1]}: {told} {one.unit}.",
    )  # fmt: skip


def changes(runs: Runs) -> Figure:
    """What each arm changed by the time fresh data returns, against the start."""
    seed, panels, table = runs.seeds[0], [], []
    shown = [one for one in runs.numbers if one not in MEMORY]
    for one in shown:
        rows = []
        for arm in ARMS:
            found = runs.difference(one, (arm, runs.turn), (arm, 0), seed)
            sure, words = found[1] * found[2] > 0, interval(*found, sign=True)
            color = paint("series0" if sure else "muted")
            mark = Mark("clear" if sure else "no clear change", *found, color, f"{arm}: {words}", filled=sure)
            rows.append(ForestRow(arm, (mark,), words, "ink" if sure else "muted"))
            table.append({"number": one.name, "arm": arm, "value": found[0], "lo": found[1], "hi": found[2]})
        panels.append(Panel(tuple(rows), one.unit, head=one.name))
    return forest(
        panels, title=f"What {runs.turn} steps changed", look=FULL, table=lambda: pd.DataFrame(table),
        subtitle=f"step {runs.turn} minus step 0, over the same sequences · bar: 95% interval · grey and hollow: it holds 0",
        alt=f"Changes of {len(shown)} numbers from step 0 to step {runs.turn} in each arm, with their intervals.",
    )  # fmt: skip


def main() -> None:
    """Take over what was measured, where a folder is named, and write the page."""
    if len(sys.argv) > 1:
        take_over(Path(sys.argv[1]), FOLDER)
    for path, text in written().items():
        write_text(path, text)


if __name__ == "__main__":
    main()
