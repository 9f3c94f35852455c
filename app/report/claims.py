"""Claims as a report: a table of verdicts first, what does not hold said as plainly, then each claim with its figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from byrote.probes import figures
from byrote.probes.claims.catalogue import GRIDS, PAPERS
from byrote.probes.claims.judging import UNTESTABLE, Judgement
from byrote.probes.claims.record import Claim
from byrote.probes.findings_degrade import verdict_sentence
from byrote.probes.rules import MIN_SEEDS, NOT_REPRODUCED, REPRODUCED, UNDECIDED
from byrote.probes.wording import counted, duration, interval, number, sentence_case
from byrote.report.model import (
    Block,
    Code,
    Estimate,
    Listing,
    Picture,
    Prose,
    Report,
    Section,
    Table,
    Tone,
    Value,
    Words,
)

ONSET_UNIT = "as a logarithm of how many times later"
_TONES: dict[str, Tone] = {REPRODUCED: "good", NOT_REPRODUCED: "bad"}


@dataclass(frozen=True)
class Made:
    """How the runs came about.

    Attributes:
        command: that makes them.
        date: ISO day.
        machine: its class, such as "2 cores, x86_64".
        seconds: it took; 0 where unknown.
        versions: of what can change a number.
    """

    command: str
    date: str
    machine: str
    seconds: float
    versions: dict[str, str]

    @classmethod
    def of(cls, data: dict[str, Any]) -> Made:
        """From what was kept; whatever is missing is empty."""
        versions, seconds = data.get("versions"), data.get("seconds")
        return cls(
            command=str(data.get("command", "")),
            date=str(data.get("date", "")),
            machine=str(data.get("machine", "")),
            seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
            versions={str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
        )


def claims_report(judgements: Sequence[Judgement], table: pd.DataFrame, made: Made) -> Report:
    """Everything that is said of these claims.

    Args:
        judgements: in the order of the page.
        table: of their runs.
        made: how the runs came about.
    """
    papers = list(dict.fromkeys(judged.claim.paper for judged in judgements))
    sections = [
        Section(
            "verdicts",
            "Verdicts",
            (Prose(_summary(judgements), "lead"), _verdicts(judgements), Prose(_HOW, "note")),
        ),
        *_unshown(judgements),
        *_revised(judgements),
        *(
            Section(
                paper,
                PAPERS[paper].title,
                tuple(_paper_blocks([j for j in judgements if j.claim.paper == paper], table)),
            )
            for paper in papers
        ),
        Section("made", "How it was made", tuple(_made(judgements, table, made))),
    ]
    return Report("Claims, reproduced or not", (), made.date, "complete", (), tuple(sections))


_HOW = (
    f"Effects are differences between arms, seed by seed, with 95% intervals over seeds. A claim is reproduced where the whole "
    f"interval lies beyond the smallest effect of interest, in the direction that was stated before the runs, and q (corrected for "
    f"the claims of its paper) is below 5%; with fewer than {MIN_SEEDS} seeds nothing is. The detectable effect is the one "
    f"that would have been found in 80% of repetitions. Verdicts are about these small models and recipes, not about larger ones."
)


def _summary(judgements: Sequence[Judgement]) -> str:
    words = [judged.word for judged in judgements]
    counts = [f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words, key=_rank))]
    return f"{counted(len(judgements), 'claim')}: {', '.join(counts)}."


def _rank(word: str) -> int:
    order = (REPRODUCED, "reproduced in direction", NOT_REPRODUCED, UNDECIDED)
    return order.index(word) if word in order else len(order)


def _verdicts(judgements: Sequence[Judgement]) -> Table:
    columns = (
        "Claim",
        "Verdict",
        "Effect",
        "Smallest of interest",
        "Detectable effect",
        "Seeds",
        "q",
        "Onset",
    )
    return Table(
        "verdicts",
        "Every claim, by its primary metric.",
        columns,
        tuple(_row(j) for j in judgements),
        group_columns=0,
    )


def _row(judged: Judgement) -> tuple[Any, ...]:
    claim, verdict = judged.claim, judged.verdict
    what = Words(f"{f'{claim.number} ' if claim.number else ''}{claim.name}", detail=claim.statement)
    word = Words(judged.word, _TONES.get(judged.word, "muted"))
    if verdict is None:
        return what, word, None, None, None, None, None, None
    onset = None if judged.verdicts is None else judged.verdicts.onset
    seen = number(verdict.seen) if math.isfinite(verdict.seen) else "nothing"
    smallest = verdict.rule.smallest
    sign = {"rises": "more than ", "falls": "less than −" if smallest else "less than ", "stays": "within "}
    bound = f"{sign[verdict.rule.direction]}{smallest:.3g}"
    return (
        what, word, Estimate(verdict.value, verdict.lo, verdict.hi, n=verdict.seeds, signed=True),
        Words(bound, detail=ONSET_UNIT if claim.primary == "onset" else claim.unit), seen, verdict.seeds, f"{verdict.q:.2g}", None if onset is None else Words(onset.word),
    )  # fmt: skip


def _unshown(judgements: Sequence[Judgement]) -> list[Section]:
    """What is not reproduced, in sentences; no section where everything is."""
    rest = sorted((j for j in judgements if j.word != REPRODUCED), key=lambda j: _rank(j.word))
    items = [f"{j.claim.name} is {j.word}: {j.claim.statement} {sentence_case(j.words)}." for j in rest]
    return (
        [Section("unshown", "What was not reproduced, or not shown, at this scale", (Listing(tuple(items)),))]
        if items
        else []
    )


def _revised(judgements: Sequence[Judgement]) -> list[Section]:
    """Of which rules something was chosen after a look; no section where of none."""
    items = [f"{j.claim.name}: {j.claim.revised}." for j in judgements if j.claim.revised]
    return (
        [Section("revised", "Choices made after looking at runs", (Listing(tuple(items)),))] if items else []
    )


def _paper_blocks(judgements: Sequence[Judgement], table: pd.DataFrame) -> list[Block]:
    blocks: list[Block] = []
    arxiv = PAPERS[judgements[0].claim.paper].arxiv
    blocks += [Prose(f"arXiv:{arxiv}", "note")] if arxiv else []
    drawn: set[str] = set()
    for judged in judgements:
        claim = judged.claim
        title = f"{claim.name}{f' (claim {claim.number})' if claim.number else ''}: {judged.word}"
        blocks.append(Prose(f"{title}. {claim.statement}", "lead"))
        blocks.append(Prose(f"{'The paper' if claim.number else 'First seen'}: {claim.reported}."))
        if judged.verdicts is None:
            blocks.append(Prose(f"Not testable here: {judged.why_not}."))
        else:
            blocks.append(Prose(_verdict_words(judged)))
        if claim.untestable:
            continue
        blocks.append(_picture(judged, table))
        drawn.add(claim.name)
    claims = [judged.claim for judged in judgements if not judged.claim.untestable]
    again = f"byrote reproduce {' '.join(claim.name for claim in claims)}{_options(claims, table)}"
    blocks.append(Code(f"again-{judgements[0].claim.paper}", "To repeat this:", again))
    return blocks


def _options(claims: Sequence[Claim], table: pd.DataFrame) -> str:
    """Of the command that makes these runs again: whether in full, and from which seed."""
    full, first = any(claim.full_only for claim in claims), 0
    for name in dict.fromkeys(name for claim in claims for name in claim.grids):
        grid, seeds = GRIDS[name], table.loc[table["grid"] == name, "init_seed"].unique()
        full = full or grid.seeds < grid.full_seeds <= len(seeds)
        first = max(first, int(seeds.min())) if len(seeds) else first
    return (" --full" if full else "") + (f" --first-seed {first}" if first else "")


def _verdict_words(judged: Judgement) -> str:
    claim, verdicts = judged.claim, judged.verdicts
    assert verdicts is not None, "a claim with runs has a verdict"
    sentences = [
        f"Here: {claim.compared}. The smallest effect of interest is {verdicts.verdict.rule.smallest:.3g}: {claim.reason}."
    ]
    for part, words, unit in (
        ("final", judged.final_words, claim.unit),
        ("onset", judged.onset_words, ONSET_UNIT),
    ):
        found = getattr(verdicts, part)
        if found is not None:
            decides = "Final value" if part == "final" else "Onset"
            sentences.append(
                f"{decides}: {verdict_sentence(found, unit)}" + (f"; {words}." if words else ".")
            )
        elif words:
            sentences.append(f"{'Final value' if part == 'final' else 'Onset'}: {UNTESTABLE}, {words}.")
        elif part == "onset":
            sentences.append("Onset: not applicable.")
    return " ".join(sentences)


_KEYS = ("arm", "label", "step", "name", "duplicates", "members")  # of the tables of a claim's figures


def _picture(judged: Judgement, table: pd.DataFrame) -> Picture:
    figure = figures.claim(table, judged)
    rows = figure.table
    names = [name for name in _KEYS if name in rows]
    shown = rows if len(rows) <= 60 else rows.iloc[:: -(-len(rows) // 60)]
    cells: tuple[tuple[Value, ...], ...] = tuple(
        (*(str(row[name]) for name in names), Estimate(row["value"], row["lo"], row["hi"], n=int(row["n"])))
        for row in shown.to_dict("records")
    )
    caption = f"{judged.claim.name}: {judged.claim.metric} by {' and '.join(names)}, mean over seeds with its 95% interval."
    numbers = Table(
        f"numbers-{judged.claim.name}",
        caption,
        (*names, "value"),
        cells,
        len(rows) - len(shown),
        group_columns=1,
    )
    return Picture(f"claim-{judged.claim.name}", figure, numbers)


def _made(judgements: Sequence[Judgement], table: pd.DataFrame, made: Made) -> list[Block]:
    took = f", {duration(made.seconds)} in all" if made.seconds else ""
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    used = list(dict.fromkeys(name for judged in judgements for name in judged.claim.grids))
    rows: list[tuple[Value, ...]] = []
    for name in used:
        mine = table[table["grid"] == name]
        runs = len(mine[["arm", "size", "init_seed", "data_seed"]].drop_duplicates())
        seeds = sorted(mine["init_seed"].unique().tolist())
        seeds_text = f"{seeds[0]} to {seeds[-1]}" if seeds else ""
        rows.append((name, GRIDS[name].what, runs, f"{len(seeds)} ({seeds_text})", len(mine)))
    columns = ("Grid", "What it is", "Runs", "Seeds", "Rows of the table")
    return [
        Code("command", "Everything on this page:", made.command),
        Prose(f"Made on {made.date}, {made.machine}{took}. Versions: {versions}."),
        Table("grids", "Runs that the claims share.", columns, tuple(rows), group_columns=0),
    ]


# The same as Markdown.


def as_markdown(report: Report, *, pictures: str, note: str) -> str:
    """The report as Markdown, its figures as files.

    Args:
        report: what to say.
        pictures: where the page finds the figures' files, such as "images/claims"; each is called after its name.
        note: a line under the title that says where the page comes from.
    """
    parts = [f"# {report.title}", note]
    for section in report.sections:
        parts.append(f"## {section.title}")
        parts += [_markdown_block(block, pictures) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _markdown_block(block: Block, pictures: str) -> str:
    if isinstance(block, Prose):
        return f"**{_cell(block.text)}**" if block.style == "lead" else _cell(block.text)
    if isinstance(block, Listing):
        return "\n".join(f"- {_cell(item)}" for item in block.items)
    if isinstance(block, Code):
        return f"{block.caption}\n\n```\n{block.text}\n```"
    if isinstance(block, Picture):
        alt = block.figure.alt.replace("[", "(").replace("]", ")")
        return f"![{_cell(alt)}]({pictures}/{block.name}.svg)"
    assert isinstance(block, Table), "a page of claims has no cards"
    rows = [block.columns, ("---",) * len(block.columns), *(tuple(map(_value, row)) for row in block.rows)]
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Estimate):
        return interval(value.value, value.lo, value.hi, sign=value.signed)
    if isinstance(value, Words):
        return _cell(f"{value.text}: {value.detail}" if value.detail else value.text)
    return _cell(str(value))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
