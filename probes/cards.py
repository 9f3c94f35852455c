"""Probe cards: what a probe measures, how, and how to read it. ``python -m byrote.probes.cards docs/probes`` writes them all.

A card is what a probe says of itself and the docstring of its file, which is read without importing it: no torch.
The command line prints the same card that stands in docs/probes.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from byrote.checkpoints.atomic import make_folder, remove, write_text
from byrote.checkpoints.errors import ByroteError
from byrote.probes.registry import REGISTRY
from byrote.probes.rules import smallest_effect, smallest_reason
from byrote.probes.spec import ProbeInfo, document_parts

INDEX = "README.md"
_NUMBERED = re.compile(r"\d+\. ")
_WRITTEN = "Written by `python -m byrote.probes.cards docs/probes`; a test compares."


@dataclass(frozen=True)
class Card:
    """What a card says, before it is laid out.

    Attributes:
        name: of the probe.
        summary: one sentence.
        facts: label -> text; those with nothing to say are left out.
        metrics: (name, meaning, unit, smallest effect).
        steps: paragraphs and numbered points of how it is computed.
    """

    name: str
    summary: str
    facts: Mapping[str, str]
    metrics: tuple[tuple[str, str, str, str], ...]
    steps: tuple[str, ...]


def card(info: ProbeInfo) -> Card:
    """The card of one probe."""
    lo, hi = info.range or (None, None)
    facts = {
        "kind": info.kind,
        "unit": info.unit,
        "range": range_text(lo, hi),
        "better": info.better or "neither: a description, not a score",
        "chance": info.chance,
        "reads as": info.reads_as,
        "smallest effect": _reasons(info),
        "not measured when": info.not_measured,
        "stimuli": ", ".join(info.stimuli) or ("none: weights only" if info.kind == "weights" else ""),
        "passes": info.passes,
        "measured": "" if info.default else "on request only; it is not among the defaults",
        "needs": ", ".join(info.needs),
        "source": info.source,
        "version": str(info.version),
    }
    return Card(
        name=info.name,
        summary=info.summary,
        facts={label: text for label, text in facts.items() if text},
        metrics=tuple(
            (name, meaning, info.unit_of(name), _smallest(info, name))
            for name, meaning in info.metrics.items()
        ),
        steps=tuple(_blocks(info.steps or _steps_of(info.module))),
    )


def _smallest(info: ProbeInfo, metric: str) -> str:
    """The smallest effect of a metric that is compared; "" for others."""
    size = smallest_effect(info, metric) if info.compares(metric) else 0.0
    return f"{size:g}" if size else ""


def _reasons(info: ProbeInfo) -> str:
    """Why the smallest effects are what they are: each reason once, with its units. Of yes and no there is no size."""
    units: dict[tuple[str, str], dict[str, None]] = {}
    for metric in info.metrics:
        size, unit = _smallest(info, metric), info.unit_of(metric)
        if size and not unit.startswith("yes"):
            units.setdefault((size, smallest_reason(info, metric)), {})[unit] = None
    return "; ".join(f"{size} ({', '.join(of)}): {reason}" for (size, reason), of in units.items())


def text_lines(shown: Card, *, width: int) -> Iterator[str]:
    """A card for the terminal, wrapped to its width."""
    yield shown.name
    yield from textwrap.wrap(shown.summary, width)
    yield ""
    indent = max(len(label) for label in shown.facts) + 2
    for label, text in shown.facts.items():
        yield from textwrap.wrap(f"{label:<{indent}}{text}", width, subsequent_indent=" " * indent)
    yield from ("", "metrics")
    for name, meaning, unit, smallest in shown.metrics:
        of = f", smallest effect {smallest}" if smallest else ""
        yield from textwrap.wrap(f"  {name}: {meaning} ({unit}{of})", width, subsequent_indent="    ")
    yield from ("", "how it is computed") if shown.steps else ()
    for step in shown.steps:
        indent_text = "     " if _NUMBERED.match(step) else "  "
        yield from textwrap.wrap(step, width, initial_indent="  ", subsequent_indent=indent_text)


def markdown(shown: Card) -> str:
    """A card as a page of the documentation."""
    facts = [f"- **{label}**: {_linked(label, _prose(text))}" for label, text in shown.facts.items()]
    metrics = ["| metric | is | unit | smallest effect |", "| --- | --- | --- | --- |"]
    metrics += [
        f"| `{name}` | {_cell(meaning)} | {_cell(unit)} | {smallest} |"
        for name, meaning, unit, smallest in shown.metrics
    ]
    numbered = [bool(_NUMBERED.match(step)) for step in shown.steps]
    steps = [
        ("" if numbered[i] and i and numbered[i - 1] else "\n") + _linked("", _prose(step))
        for i, step in enumerate(shown.steps)
    ]
    parts = [f"# {shown.name}", _prose(shown.summary), "\n".join(facts), "## Metrics", "\n".join(metrics)]
    parts += ["## How it is computed", "\n".join(steps).strip("\n")] if steps else []
    return "\n\n".join(parts) + "\n"


def pages() -> dict[str, str]:
    """File name -> text of every page of docs/probes, the index among them."""
    ours = [info for info in REGISTRY.values() if info.module]
    rows = ["| probe | kind | what it says |", "| --- | --- | --- |"]
    rows += [f"| [{i.name}]({i.name}.md) | {i.kind} | {_cell(i.summary)} |" for i in ours]
    says = (
        "`byrote probes NAME` prints a card. [How to write one](../plugins.md), of byrote's or of your own."
    )
    index = "\n\n".join(["# The probes", _WRITTEN, says, "\n".join(rows)])
    return {INDEX: f"{index}\n", **{f"{i.name}.md": markdown(card(i)) for i in ours}}


def range_text(lo: float | None, hi: float | None) -> str:
    """``0 to 1``, or ``unbounded``."""
    return "unbounded" if lo is None or hi is None else f"{lo:g} to {hi:g}"


def _steps_of(module: str) -> str:
    """How a probe is computed: its module's docstring, read from the file without importing it (or torch)."""
    spec = find_spec(module) if module else None
    if spec is None or not spec.origin:
        return ""
    return document_parts(Path(spec.origin).read_text(encoding="utf-8").split('"""')[1])[1]


def _blocks(document: str) -> Iterator[str]:
    """Paragraphs and numbered points of a docstring, each on one line."""
    block = ""
    for line in [*document.splitlines(), ""]:
        if block and (not line.strip() or _NUMBERED.match(line)):
            yield block
            block = ""
        block = f"{block} {line.strip()}".strip()


def _prose(text: str) -> str:
    """Text in which the stars and angle brackets of formulas are not taken for markup; backticks are meant."""
    return re.sub(r"\*|<(?=[A-Za-z/!])", r"\\\g<0>", text)


def _linked(label: str, text: str) -> str:
    """Prose of a page with its links: to papers by their arXiv numbers, to other pages, and to the probes that one needs."""
    text = re.sub(r"arXiv:(\d{4}\.\d{5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)
    text = re.sub(r"\bdocs/([\w/-]+\.md)", r"[\1](../\1)", text)
    names = text.split(", ")
    needed = label == "needs" and all(name in REGISTRY for name in names)
    return ", ".join(f"[{name}]({name}.md)" for name in names) if needed else text


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def module_card(
    name: str,
    summary: str,
    facts: Mapping[str, str],
    metrics: tuple[tuple[str, str, str, str], ...],
    module: str,
) -> Card:
    """A card of something that is no probe, its steps those of a module's docstring.

    Args:
        name, summary, facts, metrics: see `Card`.
        module: whose docstring says how it is computed.
    """
    return Card(name, summary, facts, metrics, tuple(_blocks(_steps_of(module))))


def index_page(title: str, command: str, rows: Iterable[tuple[str, str]]) -> str:
    """A page that lists other pages.

    Args:
        title: its heading.
        command: module and folder that write it.
        rows: (name, summary) of each.
    """
    lines = ["| name | what it says |", "| --- | --- |"]
    lines += [f"| [{name}]({name}.md) | {_cell(summary)} |" for name, summary in rows]
    says = f"Written by `python -m {command}`; a test compares. `byrote probes NAME` prints a card."
    return "\n\n".join([f"# {title}", says, "\n".join(lines)]) + "\n"


def write_from_command_line(written: Mapping[str, str]) -> None:
    """Write pages into the folder that the command line names, and remove pages of what is gone.

    Args:
        written: file name -> text.

    Raises:
        ByroteError: no folder is named.
    """
    if len(sys.argv) != 2:
        raise ByroteError("name the folder to write to", help="python -m byrote.probes.cards docs/probes")
    folder = Path(sys.argv[1])
    make_folder(folder)
    for page in folder.glob("*.md"):
        if page.name not in written:
            remove(page)
    for name, text in written.items():
        write_text(folder / name, text)


def main() -> None:
    """Write every probe's page into the folder given."""
    write_from_command_line(pages())


if __name__ == "__main__":
    main()
