"""Everybody who looks at a results folder: rows, words, comparisons, report, figures of the pages, and `verify`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Collection
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from byrote.probes.results import Results

REFUSED = "refused"
_FLOATS = ("value", "lo", "hi", "chance")


def command_line(*words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a verb, in this process."""
    from byrote.cli.main import cli

    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main(list(words))
        except SystemExit as end:
            code = end.code
    return int(code or 0), out.getvalue(), err.getvalue()


def verb(*words: str) -> str:
    """What a verb prints, or `REFUSED` with its two lines.

    Raises:
        AssertionError: an internal error, or a refusal without a word.
    """
    code, out, err = command_line(*words, "--traceback")
    assert code != 70, f"byrote {' '.join(words)}: internal error\n{err[-3000:]}"
    if code in (0, 1, 3):
        return out
    assert err.startswith(("error: ", '{"error": ')), (
        f"byrote {' '.join(words)} ended with {code} and said {err!r}"
    )
    assert len(err.splitlines()) <= 4, f"a refusal of many lines: {err!r}"
    return REFUSED


def rows(
    folder: Path, *, only: Collection[int] | None = None, probes: Collection[str] | None = None
) -> list[str]:
    """Every observation, or those of some steps and probes; floats as bits."""
    frame = Results.open(folder, write=False).frame.copy()
    if only is not None:
        frame = frame[frame["step"].isin(only)]
    if probes is not None:
        frame = frame[frame["probe"].isin(probes)]
    for name in _FLOATS:
        frame[name] = frame[name].to_numpy("float64").view("int64")
    return sorted(map(repr, frame.drop(columns=["run"]).itertuples(index=False, name=None)))


def looks(folder: Path, other: Path, out: Path) -> dict[str, Callable[[], Any]]:
    """Ways to look, by name.

    Args:
        folder: the results.
        other: a good run to compare with.
        out: a place to write to.
    """
    return {
        "rows": lambda: rows(folder),
        "show": lambda: verb("show", str(folder)),
        "events": lambda: verb("show", str(folder), "--events", "--json"),
        "compare": lambda: verb("compare", str(other), str(folder), "--table"),
        "report": lambda: verb("report", str(folder), "-o", str(out / "r.html"), "--light"),
    }


def _script(page: str) -> None:
    from byrote.dashboard.layout import main

    main(only=page)


def page_problem(page: str, run: str, *folders: Path) -> str:
    """Draw a page without a browser; the error that it ended with, "" for none."""
    from streamlit.testing.v1 import AppTest

    from byrote.dashboard.library import PATHS_VARIABLE

    main = sys.modules["__main__"]
    os.environ[PATHS_VARIABLE] = os.pathsep.join(map(str, folders))
    try:
        drawn = AppTest.from_function(_script, kwargs={"page": page}, default_timeout=60)
        drawn.query_params["run"] = run
        drawn.run()
    finally:
        sys.modules["__main__"] = main
    found = [f"{one.message}\n{one.stack_trace}" for one in drawn.exception]
    return f"page {page} of {run}: {found[0]}" if found else ""
