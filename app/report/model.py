"""The model of a report, before it is HTML or JSON: sections of sentences, tables and figures. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import plotly.graph_objects as go

from byrote.probes.rules import UNCLEAR

Status = Literal["complete", "partial", "failed"]
Level = Literal["gap", "warning", "note"]
LEVELS: tuple[Level, ...] = ("gap", "warning", "note")  # the gravest first


@dataclass(frozen=True)
class Estimate:
    """A number with what makes it one: interval, chance and n, or the reason it was not measured.

    Attributes:
        value, lo, hi: point value and 95% interval; all None where not measured.
        chance: chance level, None where the probe states none.
        n: sequences; 0 where nothing was sampled, None where not measured.
        where: whose number it is, such as a head; shown in front.
        reason: why it was not measured.
        signed: a difference; written with its sign.
    """

    value: float | None
    lo: float | None = None
    hi: float | None = None
    chance: float | None = None
    n: int | None = None
    where: str = ""
    reason: str = ""
    signed: bool = False


Tone = Literal["good", "bad", "plain", "muted"]
TONES: dict[str, Tone] = {"better": "good", "worse": "bad", UNCLEAR: "muted"}  # of a difference in words


@dataclass(frozen=True)
class Words:
    """A short verdict, or what a row is about, with a quieter second line. The tone colours it; the words carry it."""

    text: str
    tone: Tone = "plain"
    detail: str = ""


@dataclass(frozen=True)
class Spark:
    """A curve as small as a word.

    Attributes:
        values: in order; None where not measured.
        limits: the fixed vertical range.
        alt: what it shows, in words.
    """

    values: tuple[float | None, ...]
    limits: tuple[float, float]
    alt: str


@dataclass(frozen=True)
class Link:
    """A way to another file of the same folder.

    Attributes:
        text: what it is called.
        to: relative, of byrote's own making: its parts are file stems.
    """

    text: str
    to: str


Value = str | int | float | Estimate | Words | Spark | Link | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
        name: unique in the report; the anchor.
        caption: what the table holds.
        columns: headings.
        rows: one value per column.
        n_left_out: rows that are in the CSV but not here.
        group_columns: how many leading columns name a group; equal neighbours are written once.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    n_left_out: int = 0
    group_columns: int = 1


@dataclass(frozen=True)
class Picture:
    """A figure and the table that says the same."""

    name: str
    figure: go.Figure
    table: Table


@dataclass(frozen=True)
class Prose:
    """A paragraph, or a list of them."""

    text: str
    style: Literal["plain", "lead", "note"] = "plain"


@dataclass(frozen=True)
class Listing:
    """Sentences of equal rank."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """Facts about one thing."""

    name: str
    title: str
    summary: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cards:
    """Cards side by side."""

    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Code:
    """Something to type."""

    name: str
    caption: str
    text: str


@dataclass(frozen=True)
class Live:
    """A place that the page's `Program` draws into.

    Attributes:
        name: unique in the report; the anchor, and how the program finds it.
        component: the program's template that is drawn there.
        caption: what it shows; shown above it.
        half: two of them stand side by side where there is room.
    """

    name: str
    component: str
    caption: str
    half: bool = False


Block = Prose | Listing | Table | Picture | Cards | Code | Live


@dataclass(frozen=True)
class Program:
    """What moves in a page. Markup, style and script are files of byrote's own; whatever came from results is in `data`.

    Attributes:
        templates: component -> (its style, its markup).
        style: of the page around them.
        script: JavaScript.
        data: gzipped JSON, which the script reads.
    """

    templates: Mapping[str, tuple[str, str]]
    style: str
    script: str
    data: bytes


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Attributes:
        name: unique in the report; the anchor.
        title: the heading.
        blocks: in order.
        folded: closed until a reader opens it, and not printed before.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    folded: bool = False


@dataclass(frozen=True)
class Alert:
    """A notice shown before any number.

    Attributes:
        text: what is the matter.
        section: name of the section that says more.
        level: "gap" makes the report partial, "warning" puts its numbers in doubt, "note" is worth knowing.
    """

    text: str
    section: str
    level: Level = "gap"

    @property
    def compares(self) -> bool:
        """Whether it touches what is said of one run or arm against another."""
        return self.section == "comparison" or (self.section, self.level) == ("provenance", "warning")


@dataclass(frozen=True)
class RunLine:
    """One run as the head of the report names it."""

    name: str
    description: str
    token: str
    dash: str
    is_base: bool


@dataclass(frozen=True)
class Report:
    """Everything the report says."""

    title: str
    runs: tuple[RunLine, ...]
    date: str
    status: Status
    alerts: tuple[Alert, ...]
    sections: tuple[Section, ...] = field(default=())
