"""Outcomes of checks in the forms that CI systems read: JUnit XML, and annotations of GitHub Actions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from byrote.checkpoints.atomic import write_text
from byrote.probes.wording import visible

if TYPE_CHECKING:
    from byrote.probes.gate import Checked

_NO_XML = dict.fromkeys(
    (0xFFFE, 0xFFFF), "\ufffd"
)  # no characters of XML 1.0, and not among those that `visible` replaces


def write_junit(path: Path, checks: Sequence[Checked]) -> None:
    """Write checks as JUnit XML: a suite per run, a case per rule, whole or not at all.

    What counts as failed is a failure of the type "fail" or "undecided"; an undecided one that passes is skipped.

    Raises:
        OSError: it cannot be written.
    """
    root = ElementTree.Element("testsuites", {"name": "byrote check", **_counts(checks)})
    for run, mine in groupby(sorted(checks, key=lambda one: one.run), key=lambda one: one.run):
        own = list(mine)
        suite = ElementTree.SubElement(root, "testsuite", {"name": _text(run), **_counts(own)})
        for one in own:
            case = ElementTree.SubElement(suite, "testcase", name=_text(_title(one)), classname=_text(run))
            if one.rule.line:
                case.set("line", str(one.rule.line))
            if not one.passed:
                failure = ElementTree.SubElement(case, "failure", message=_text(one.line), type=one.outcome)
                failure.text = _text(one.line)
            elif one.outcome == "undecided":
                ElementTree.SubElement(case, "skipped", message=_text(one.line))
            else:
                ElementTree.SubElement(case, "system-out").text = _text(one.line)
    ElementTree.indent(root)
    write_text(path, ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n")


def github_lines(checks: Sequence[Checked], file: Path | None) -> Iterator[str]:
    """Workflow commands of GitHub Actions for what did not pass: errors for failed rules, warnings for undecided ones.

    Args:
        checks: of a gate.
        file: the gate, at whose lines they are shown.
    """
    for one in checks:
        if one.outcome == "pass":
            continue
        level = "warning" if one.passed else "error"
        places = {
            "file": "" if file is None else file.as_posix(),
            "line": one.rule.line or "",
            "title": f"byrote: {_title(one)}",
        }
        properties = ",".join(f"{name}={_property(value)}" for name, value in places.items() if value != "")
        yield f"::{level} {properties}::{_data(one.line)}"


def _title(one: Checked) -> str:
    return one.rule.name or f"{one.what}: {one.expected}"


def _counts(checks: Sequence[Checked]) -> dict[str, str]:
    skipped = sum(one.passed and one.outcome == "undecided" for one in checks)
    failed = sum(not one.passed for one in checks)
    return {"tests": str(len(checks)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}


def _text(text: str) -> str:
    return visible(text).translate(_NO_XML)


def _data(text: object) -> str:
    """Text after the last `::`; a line break would begin another command."""
    return visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: object) -> str:
    """Text of a property, which ends at a comma or a colon."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
