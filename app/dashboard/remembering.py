"""Does a run remember or copy, in one sentence; and its members' passages, how each token is known. No Streamlit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from byrote.dashboard.run_cache import run_cache
from byrote.probes.attention import StoredText, attention_file, stored_texts
from byrote.probes.figures.by_position import TAG_WORDS
from byrote.probes.figures.memory_plane import Point
from byrote.probes.figures.memory_plane import points as points_of
from byrote.probes.findings import memory
from byrote.probes.results import Results


@run_cache(96)
def points(run: Results, probe: str, metric: str) -> tuple[Point, ...]:
    """The numbers of one axis of the plane."""
    return points_of(run, probe, metric)


def finding(run: Results, *, step: int) -> str:
    """Does the run remember, does it copy: in one sentence."""
    gaps, rules = (
        {p.step: p for p in points(run, *of)} for of in (("mem_gap", "gap"), ("prefix_matching", "score"))
    )
    return memory(run.run, gaps, rules, step=step)


@dataclass(frozen=True)
class Passage:
    """One member told apart token by token.

    Attributes:
        index: among the members.
        words: its tokens; None where no token was kept, and only places can be shown.
        tags: place -> recall, copying, both or neither.
    """

    index: int
    words: tuple[str, ...] | None
    tags: dict[int, str]


@run_cache(64)
def passages(run: Results, step: int) -> tuple[Passage, ...]:
    """The members' passages at a step, with the tag of every token; () where they were not measured."""
    if not run.has("recall_vs_copy", "recall_at"):
        return ()
    rows = run.samples(step)
    rows = rows[(rows["probe"] == "recall_vs_copy") & rows["valid"]]
    tags: dict[int, dict[int, str]] = {}
    for tag in TAG_WORDS:
        for row in rows[rows["metric"] == f"{tag}_at"].itertuples(index=False):
            for i in np.flatnonzero(np.asarray(row.samples, dtype=float) == 1):
                tags.setdefault(int(i), {})[int(row.position)] = tag
    kept = {
        text.index: text
        for text in stored_texts(attention_file(run.path, step))
        if text.stimulus == "members"
    }
    return tuple(Passage(i, _words(kept.get(i)), dict(sorted(tags[i].items()))) for i in sorted(tags))


def _words(text: StoredText | None) -> tuple[str, ...] | None:
    """Tokens of a member's passage, the first after BOS at place 1."""
    if text is None:
        return None
    return tuple(text.words or map(str, text.tokens))
