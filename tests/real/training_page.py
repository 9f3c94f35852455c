"""docs/case-studies/training.md and its figures, from the table beside it: what `make real-training` measured.

    .venv/bin/python tests/real/training_page.py runs/real    # take over what was measured, and write the page
    .venv/bin/python tests/real/training_page.py              # write the page anew

The table holds the values of every sequence, so that differences are made pair by pair. tests/test_training_study.py
compares the page with the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from training_figures import changes, over_steps
from training_table import (
    ARMS,
    COMPLETED,
    CONTEXT,
    COPIED,
    COPYING,
    GAP,
    HELD_OUT,
    KNOWN,
    LATE,
    MATCHING,
    MEMBERS,
    TWINS,
    WORTH,
    Runs,
    Shown,
    take_over,
)  # fmt: skip

from byrote.checkpoints.atomic import write_text
from byrote.interp.axes import head_label
from byrote.probes.figures.canvas import Figure
from byrote.probes.figures.paper import page_svg
from byrote.probes.registry import REGISTRY
from byrote.probes.rules import smallest_effect
from byrote.probes.statistics import Triple
from byrote.probes.wording import counted, interval, listed, number

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "case-studies"
PAGE = "training.md"


def moved(found: Triple, one: Shown) -> str:
    """What a difference says: a rise, a fall, or neither significantly."""
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
        "copying": over_steps(runs, COPYING),
        "changes": changes(runs),
    }
    parts = [
        opening(runs), "\n".join(in_short(runs)), "\n".join(values(runs)), "\n".join(memory(runs)), picture(figures, "memory"),
        "\n".join(held_out(runs)), picture(figures, "held-out"), "\n".join(heads(runs)), picture(figures, "copying"),
        "\n".join(between(runs)), picture(figures, "changes"), cost(runs), limits(runs),
    ]  # fmt: skip
    page = "\n\n".join(part for part in parts if part) + "\n"
    drawn = {
        folder / f"training-{name}.svg": page_svg(figure, name=f"training-{name}")
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
    one = "There is one seed per arm: this is a case, not a finding about data"
    case = (
        one
        if len(seeds) == 1
        else (
            f"There are {len(seeds)} seeds per arm; a seed determines the pool, the order and what the model writes, but not the held-out text. "
            "Statements about the data are about all seeds together"
        )
    )
    over = (
        "over sequences"
        if len(seeds) == 1
        else "for differences over seeds, for the numbers of one seed over sequences"
    )
    arms = "\n".join(f"- **{arm}**: {words}" for arm, words in ARMS.items())
    return f"""# Continued training on unique, repeated and self-written text

<!-- Written by `python tests/real/training_page.py` from training.parquet; a test compares the two. -->

SmolLM2-135M-Instruct, dequantised from 4 bits, is trained further on {text}, and measured while it trains by
[`byrote.Monitor`](../training.md). {case}.

{arms}

Each arm trains on {n} windows of {size} tokens after BOS ({n * size:,} tokens, {plan["steps"]} steps of {plan["batch"]} windows). Then fresh windows, the same for all arms and new to all, return for {plan["fresh_steps"]} steps ({plan["batch"] * plan["fresh_steps"] * size:,} tokens). AdamW with a learning rate of {plan["lr"]:g} after
{plan["warmup"]} steps of warm-up, no decay{", autocast to bfloat16 while it trains" if plan["half"] else ""}; measurements use the float32 weights, in float32.

Pool (the {pool} windows of the repeated arm), twins (the same number, never trained on by any arm), unique and fresh windows are a random split of the text: members and twins differ only in training. Held-out text is the last sixteenth of it, from other files. The model has seen Python code before, and probably this code; this applies to members and twins alike. The synthetic arm is
drawn at temperature 1, without truncation, after BOS and {plan["prompt"] - 1} tokens of each window.

`make real-training` runs all of it in less than an hour on one core, `make real-training seeds=3` with three seeds; stopped at any moment, the same command resumes. Intervals are 95%: {over}. Made with {versions}."""


def in_short(runs: Runs) -> Iterator[str]:
    """The findings, a line each."""
    turn, last = runs.turn, runs.steps[-1]
    after = min(step for step in runs.steps if step > turn)
    plan, start = runs.facts["plan"], runs.called("unique", 0, runs.seeds[0])
    n = int(runs.row("repeated", turn, COMPLETED, runs.seeds[0])["n"])

    def known(arm: str, step: int) -> str:
        counts = [round(n * float(runs.row(arm, step, COMPLETED, seed)["value"])) for seed in runs.seeds]
        return str(counts[0]) if len(set(counts)) == 1 else and_then(counts)

    def by_turn(one: Shown) -> str:
        return "; ".join(
            f"{arm}: it {moved(runs.difference(one, (arm, turn), (arm, 0)), one)}" for arm in ARMS
        )

    yield "## In short"
    yield ""
    if len(runs.seeds) > 1:
        yield f"Changes and differences are {runs.spread}; where several numbers are given, they are those of seeds {and_then(runs.seeds)}."
        yield ""
    yield (
        f"- **Memory.** Of {n} windows seen up to {plan['epochs']} times {known('repeated', turn)} are reproduced from their first half, and {known('repeated', last)} still after "
        f"{plan['fresh_steps']} steps of fresh text; {known('repeated', 0)} were at the start, and {known('unique', turn)} in the unique and {known('synthetic', turn)} in the synthetic arm, "
        "which never saw them."
    )
    yield f"- **Held-out loss** by step {turn}. {by_turn(HELD_OUT)}."
    yield f"- **Recovery.** {recovery(runs, after, last)}"
    lost = {arm: set.union(*(start - runs.called(arm, turn, seed) for seed in runs.seeds)) for arm in ARMS}
    anywhere = " of any seed" if len(runs.seeds) > 1 else ""
    stay = (
        f"None is lost by step {turn} in any arm{anywhere}"
        if not any(lost.values())
        else f"{'; '.join(arm + ' loses ' + (names_of(lost[arm]) or 'none') for arm in ARMS)}, by step {turn}{' in some seed' if anywhere else ''}"
    )
    yield f"- **Induction heads.** {counted(len(start), 'head')} of {runs.facts['n_heads']} at the start. {stay}."
    apart, made = (
        [against_unique(runs, COPYING, arm, step) for step in (turn, last)]
        for arm in ("repeated", "synthetic")
    )
    yield (
        f"- **Copying** by step {turn}, as loss on repeats of random tokens. {by_turn(COPYING)}. Repeated minus unique: {apart[0]} nats at step {turn}, "
        f"{apart[1]} at step {last}, after fresh text; synthetic minus unique: {made[0]} and {made[1]}."
    )


def and_then(items: Sequence[object]) -> str:
    """`a, b and c`."""
    *most, last = map(str, items)
    return f"{', '.join(most)} and {last}" if most else last


def against_unique(runs: Runs, one: Shown, arm: str, step: int) -> str:
    """A difference from the unique arm with its interval, and where there are several seeds, that of each."""
    places = (arm, step), ("unique", step)
    words = interval(*runs.difference(one, *places), sign=True)
    if len(runs.seeds) == 1:
        return words
    return f"{words} ({and_then([number(v, places=2, sign=True) for v in runs.each(one, *places)])})"


def recovery(runs: Runs, after: int, last: int) -> str:
    """How much of a rise of held-out loss fresh data takes back, in the arms where there is one."""
    turn = runs.turn
    size = runs.facts["plan"]["batch"] * (runs.facts["plan"]["width"] - 1)
    found = []
    for arm in ARMS:
        rise = runs.difference(HELD_OUT, (arm, turn), (arm, 0))
        if rise[1] <= 0:
            continue
        shares = [-runs.difference(HELD_OUT, (arm, step), (arm, turn))[0] / rise[0] for step in (after, last)]
        net = runs.difference(HELD_OUT, (arm, last), (arm, 0))
        found.append(
            f"In the {arm} arm {counted(after - turn, 'step')} of fresh text ({(after - turn) * size:,} tokens) undo {some(shares[0])} of the rise, "
            f"{last - turn} undo {some(shares[1])}; overall, held-out loss {moved(net, HELD_OUT)} from the start to the end."
        )
    return (
        " ".join(found)
        or "Held-out loss does not rise significantly in any arm; there is nothing to recover from."
    )


def some(share: float) -> str:
    """A share in percent; what is more than the whole is called that."""
    return f"{share:.0%}" if share < 1 else "more than all"


def values(runs: Runs) -> Iterator[str]:
    """All numbers at the start, before fresh data returns, and at the end."""
    seed, last = runs.seeds[0], runs.steps[-1]
    places = [("unique", 0), *((arm, runs.turn) for arm in ARMS), *((arm, last) for arm in ARMS)]
    names = ["start", *(f"{arm}, step {step}" for arm, step in places[1:])]
    yield "## The numbers"
    yield ""
    yield f"Step {runs.turn} is the last before fresh text returns, step {last} the last one{f'; values are of seed {seed}' if len(runs.seeds) > 1 else ''}."
    yield ""
    yield f"| number | {' | '.join(names)} |"
    yield f"|---|{'---|' * len(names)}"
    for one in runs.numbers:
        rows = [runs.row(*place, one, seed) for place in places]
        cells = [interval(row["value"], row["lo"], row["hi"]) for row in rows]
        yield f"| {one.name} ({one.unit}) | {' | '.join(cells)} |"
    yield f"| induction heads | {' | '.join(str(len(runs.called(*place, seed))) for place in places)} |"


def memory(runs: Runs) -> Iterator[str]:
    """What was memorised, and how much of it fresh data removes."""
    seed, turn, last = runs.seeds[0], runs.turn, runs.steps[-1]
    plan = runs.facts["plan"]
    row = runs.row("repeated", turn, GAP, seed)
    its = f"in seed {seed} " if len(runs.seeds) > 1 else ""
    yield "## Memory"
    yield ""
    yield (
        f"Measured are the first {plan['known'] - 1} tokens after BOS of all {int(row['n'])} members, and of as many twins. Before training the gap {its}is "
        f"{said(runs.row('repeated', 0, GAP, seed))} nats: no window of the pool is known better than its twins beyond what the interval leaves open."
        if row_holds_zero(runs.row("repeated", 0, GAP, seed))
        else f"Measured are the first {plan['known'] - 1} tokens after BOS of all {int(row['n'])} members, and of as many twins. Before training the gap {its}is "
        f"{said(runs.row('repeated', 0, GAP, seed))} nats: the cut happened to give the pool other windows than the twins."
    )
    yield ""
    for arm in ("repeated", "unique", "synthetic"):
        change = runs.difference(GAP, (arm, turn), (arm, 0))
        members = runs.difference(MEMBERS, (arm, turn), (arm, 0))
        twins = runs.difference(TWINS, (arm, turn), (arm, 0))
        known = runs.difference(KNOWN, (arm, turn), (arm, 0))
        trained = "" if arm == "repeated" else " (which this arm never saw)"
        yield (
            f"- **{arm}**: by step {turn} the gap {moved(change, GAP)}. The loss on members{trained} {moved(members, MEMBERS)}, that on twins "
            f"{moved(twins, TWINS)}; the share of the members' tokens that are predicted first {moved(known, KNOWN)}."
        )
    kept = runs.difference(GAP, ("repeated", last), ("repeated", turn))
    share = runs.rows.query(
        "arm == 'repeated' and seed == @seed and step == @turn and metric == 'loss_share'"
    ).iloc[0]
    yield ""
    yield (
        f"At step {turn} members of the repeated arm {its}have {said(share)} of the twins' loss. While fresh text returns the gap {moved(kept, GAP)}; at step {last} "
        f"it is {said(runs.row('repeated', last, GAP, seed))} nats{f' in seed {seed}' if its else ''}."
    )
    rates, gaps = (
        [np.mean([runs.row("repeated", step, one, s)["value"] for s in runs.seeds]) for step in (turn, last)]
        for one in (COMPLETED, GAP)
    )
    if rates[1] < rates[0] / 2 and gaps[1] > gaps[0] / 3:
        yield ""
        yield (
            f"Forgetting is uneven: what is left after fresh text is {rates[1] / rates[0]:.0%} of the members that were reproduced, and {gaps[1] / gaps[0]:.0%} of the gap. Verbatim "
            "recall suggests that most of it is gone; the loss shows that it is not."
        )


def row_holds_zero(row: pd.Series) -> bool:
    """Whether the interval holds 0."""
    return bool(row["lo"] <= 0 <= row["hi"])


def said(row: pd.Series) -> str:
    """A number with its interval."""
    return interval(row["value"], row["lo"], row["hi"])


def held_out(runs: Runs) -> Iterator[str]:
    """Held-out loss, and what happens to it when fresh data returns."""
    turn = runs.turn
    after = [step for step in runs.steps if step > turn]
    yield "## Held-out text, and the return of fresh data"
    yield ""
    for arm in ARMS:
        first = runs.difference(HELD_OUT, (arm, turn), (arm, 0))
        steps = [
            f"{moved(runs.difference(HELD_OUT, (arm, step), (arm, turn)), HELD_OUT)} by step {step}"
            for step in after
        ]
        net = runs.difference(HELD_OUT, (arm, after[-1]), (arm, 0))
        yield (
            f"- **{arm}**: by step {turn} the loss {moved(first, HELD_OUT)}. From there, with fresh text, it {'; '.join(steps)}. Overall, since the start, it "
            f"{moved(net, HELD_OUT)}."
        )
    worse = [
        arm
        for arm in ARMS
        if any(runs.difference(HELD_OUT, (arm, step), (arm, turn))[1] > 0 for step in after[:-1])
    ]
    yield ""
    yield (
        f"A stability gap, held-out loss that first rises when the data changes, is seen in: {', '.join(worse)}."
        if worse
        else "No arm shows a stability gap of held-out loss: at no step measured after fresh text returns is it significantly higher than before. "
        f"One that is over within {after[0] - turn} steps would be missed. Copying in the repeated arm behaves differently; see below."
    )


def heads(runs: Runs) -> Iterator[str]:
    """What becomes of induction heads, copying and in-context learning."""
    turn, last = runs.turn, runs.steps[-1]
    start = runs.called("unique", 0, runs.seeds[0])
    yield "## Induction heads, copying, in-context learning"
    yield ""
    followed = (
        f": {names_of(start)}. Their mean prefix matching is followed (they were chosen by the same sequences at step 0, which makes a small fall "
        "more likely than a rise)."
    )
    yield f"At the start {counted(len(start), 'head')} of {runs.facts['n_heads']} are called induction heads{followed if start else '.'}"
    yield ""
    for arm in ARMS:
        at_turn = [runs.called(arm, turn, seed) for seed in runs.seeds]
        happened = [f"{and_then([len(one) for one in at_turn])} heads called at step {turn}"]
        for seed, then in zip(runs.seeds, at_turn, strict=True):
            lost, new = start - then, then - start
            back = lost & runs.called(arm, last, seed)
            of = f" in seed {seed}" if len(runs.seeds) > 1 else ""
            happened += [f"lost{of}: {names_of(lost)}"] if lost else []
            happened += [f"new{of}: {names_of(new)}"] if new else []
            happened += [f"back at step {last}{of}: {names_of(back)}"] if back else []
        parts = [
            f"{lead} {moved(runs.difference(one, (arm, turn), (arm, 0)), one)}"
            for lead, one in LEADS
            if one in runs.numbers
        ]
        yield f"- **{arm}**: {'; '.join(happened)}. By step {turn} {'; '.join(parts)}."
    yield from parting(runs)


def parting(runs: Runs) -> Iterator[str]:
    """Copying against held-out loss: whether they part ways during repetition, and what is left after fresh text."""
    turn, last = runs.turn, runs.steps[-1]
    worse, better, alone = (
        runs.difference(one, (arm, turn), (arm, 0))
        for one, arm in ((HELD_OUT, "repeated"), (COPYING, "repeated"), (COPYING, "unique"))
    )
    if worse[1] > 0 and better[2] < 0:
        cause = (
            "Repetition is not the cause: in the unique arm the same loss falls too"
            if alone[2] < 0
            else "The unique arm does not show it"
        )
        yield ""
        yield (
            "During repetition held-out loss and copying part ways in the repeated arm: text that is new is predicted worse, random tokens that repeat are copied better. "
            f"{cause}."
        )
    apart, then = (runs.difference(COPYING, ("repeated", step), ("unique", step)) for step in (turn, last))
    if then[1] <= 0:
        return
    heads_then = (
        f"; the prefix matching of the heads called at the start differs by {interval(*runs.difference(MATCHING, ('repeated', last), ('unique', last)), sign=True)} of the attention"
        if MATCHING in runs.numbers
        else ""
    )
    text, held = (
        interval(*runs.difference(one, ("repeated", last), ("unique", last)), sign=True)
        for one in (COPIED, HELD_OUT)
    )
    yield ""
    yield (
        f"The effect of repetition on copying outlasts it. At step {last}, when fresh text has brought held-out loss back to {held} nats from the unique arm's, the loss on repeats is "
        f"{against_unique(runs, COPYING, 'repeated', last)} nats above it{heads_then}. On tokens of held-out text that can be copied the difference is {text} nats. "
        "Hernandez et al. ([arXiv:2205.10487](https://arxiv.org/abs/2205.10487)) report that in models trained on repeated data from the start, copying and induction "
        "heads are damaged more than test loss."
    )
    if apart[1] > 0:
        return
    yield ""
    yield (
        f"At step {turn}, while text still repeats, the same difference is {against_unique(runs, COPYING, 'repeated', turn)} nats: a measurement only at the end of repetition "
        f"{'would have said that copying is unharmed' if len(runs.seeds) == 1 else 'is inconclusive, and single seeds point in different directions'}."
    )


LEADS = (
    ("their prefix matching", MATCHING),
    ("the loss on repeats of random tokens", COPYING),
    ("that minus the loss on their first appearance", WORTH),
    ("the loss on tokens of held-out text that can be copied", COPIED),
    ("the slope of the loss over the window (lower: more is learned from context)", CONTEXT),
    ("the slope without the first tenth, whose tokens have little before them", LATE),
)


def names_of(which: set[tuple[int, int]]) -> str:
    """Heads by name, the first twelve."""
    return listed([head_label(*head) for head in sorted(which)], most=12)


def between(runs: Runs) -> Iterator[str]:
    """Arms against the unique arm."""
    last = runs.steps[-1]
    yield "## Arms against each other"
    yield ""
    yield f"The effect of the data, at the same steps and on the same sequences; {runs.spread}."
    yield ""
    pairs = [(arm, step) for arm in ("repeated", "synthetic") for step in (runs.turn, last)]
    yield f"| minus unique | {' | '.join(f'{arm}, step {step}' for arm, step in pairs)} |"
    yield f"|---|{'---|' * len(pairs)}"
    for one in runs.compared:
        cells = [interval(*runs.difference(one, pair, ("unique", pair[1])), sign=True) for pair in pairs]
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

Training took {number(train / 60)} minutes of one core ({tokens / train:,.0f} tokens per second), {n} measurements {number(measure / 60)} ({number(measure / n)} seconds each, {measure / train:.0%} of the
time of training), writing the synthetic windows {number(wrote / 60)}. The steps are given as a list, with `budget_frac=None`: a time budget would skip different steps in different arms, which could then not be compared. Each measurement covers `induction`, `repeat_loss`, `held_out_loss`, `inducible_loss`,
`loss_by_position`, `exact_match` and `mem_gap`, on {plan["n_seq"]} sequences per stimulus. At the
default of 2% (`budget_frac=0.02`) one would be taken every {50 * measure / n / 60:.0f} minutes of training. The start is measured once for all three arms."""


def limits(runs: Runs) -> str:
    """What the page cannot say."""
    plan = runs.facts["plan"]
    one = (
        "One seed per arm is one draw of the pool, of the order and of what the model writes: intervals cover only the choice of test sequences. "
        if len(runs.seeds) == 1
        else f"{len(runs.seeds)} seeds give wide intervals, and nothing covers the choice of held-out text. "
    )
    tokens = plan["batch"] * plan["measured"][-1] * (plan["width"] - 1)
    return f"""## What it cannot say

- {one}Whether repetition or synthetic text has these effects in general needs other models, texts and sizes.
- {tokens:,} tokens per arm are few, and one learning rate was used. Damage that builds up slowly, as in the collapse of models trained on their own text again and again, cannot show in one round of this length.
- The model is an instruct model rounded to 4 bits and back; training may repair rounding, which every arm shares.
- The text is code, which the model knows: what it learns from new text may differ.
- Sequences are {plan["width"]} tokens: in-context learning over longer contexts was not measured, and `icl_score`, which needs hundreds of windows, was left out for
  its cost."""


def main() -> None:
    """Take over what was measured, where a folder is named, and write the page."""
    if len(sys.argv) > 1:
        take_over(Path(sys.argv[1]), FOLDER)
    for path, text in written().items():
        write_text(path, text)


if __name__ == "__main__":
    main()
