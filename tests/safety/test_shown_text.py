"""Text from files is shown and never obeyed: by a spreadsheet, a terminal, a browser or a notebook."""

from __future__ import annotations

import csv
import io
import json
import sys
import unicodedata

import numpy as np
import pandas as pd
import pytest
from no_files import NO_FILES

from byrote.checkpoints import ByroteError
from byrote.cli.output import print_data
from byrote.cli.session import Session, guarded
from byrote.dashboard import export
from byrote.probes.csv_text import csv_cell, csv_frame, csv_rows
from byrote.probes.gate import read_gate
from byrote.probes.trajectory.events import EventTable
from byrote.probes.wording import visible_json
from byrote.report.html import ident

FORMULAS = (
    "=1+1", "=HYPERLINK(\"http://x\",\"y\")", "+cmd|' /C calc'!A0", "-2+3+cmd|' /C calc'!A0", "@SUM(1+9)", "\t=1+1",
    "\r=1+1", "\n=1+1", " =1+1", "\u200b=1+1", "\ufeff=1+1", "\uff1d1+1", "\tx", "\rx",
)  # fmt: skip
OBEYED = "\x1b[31m\x1b]0;title\x07\x9b2J\x7f\u202e\u2028\ud800"


def obeyed(text: str) -> set[str]:
    """Characters that a terminal or an editor would obey; line ends are ours."""
    return {c for c in text if c not in "\n " and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}


# CSV


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_a_formula(text):
    frame = pd.DataFrame({text: [text], "n": [1]})
    for written in (csv_rows([text, "n"], [[text, 1]]), csv_frame(frame)):
        head, row = csv.reader(io.StringIO(written))
        assert head[0][0] == row[0][0] == "'" and row[1] == "1"
        assert not obeyed(written)


def test_numbers_and_harmless_text_stay_as_they_are():
    for value in (
        -1,
        -0.5,
        1e300,
        None,
        np.float64(-2.5),
        "-0.5",
        "+1e-3",
        "-.5",
        "a=b",
        "L1H0",
        "–",
        "",
        "1-2",
    ):
        assert csv_cell(value) is value or csv_cell(value) == value
    assert csv_cell(True) == "true" and csv_cell(("=a", "b")) == "'=a b"
    assert csv_cell("-5 to -3") == "'-5 to -3" and csv_cell("-") == "'-"


def test_a_frame_is_what_pandas_writes_but_for_its_text():
    frame = pd.DataFrame(
        {
            "run": pd.Categorical(["a", "b", "a"]), "value": [-0.1, np.nan, 1 / 3], "step": pd.array([1, None, 3], "Int64"),
            "ok": [True, False, True], "mixed": pd.Series([1, None, "x"], dtype=object),
            "empty": pd.Series([None, None, None], dtype=object), "text": pd.Series(["a", "b,c", 'd"e'], dtype="string"),
        }
    )  # fmt: skip
    plain = frame.to_csv(index=False, lineterminator="\n", float_format="%.9g")
    assert csv_frame(frame, float_format="%.9g") == plain
    assert csv_frame(frame.iloc[:0]) == frame.iloc[:0].to_csv(index=False, lineterminator="\n")


@pytest.mark.parametrize("form", ("csv", "json", "jsonl"))
def test_rows_on_stdout_obey_nothing(form, capsys):
    print_data(form, ["run", "=x"], [{"run": f"={OBEYED}", "=x": -1.5}])
    out = capsys.readouterr().out
    assert not obeyed(out) and "-1.5" in out
    if form == "csv":
        assert out.splitlines()[0] == "run,'=x" and out.splitlines()[1].startswith("'=")
    else:
        (row,) = json.loads(out) if form == "json" else [json.loads(out)]
        assert row["run"] == f"={OBEYED}"  # the same text, written as codes


def test_files_of_json_obey_nothing():
    for ascii_only in (True, False):
        text = visible_json({OBEYED: [f"é{OBEYED}"]}, ascii_only=ascii_only, indent=1)
        assert not obeyed(text) and json.loads(text) == {OBEYED: [f"é{OBEYED}"]}
        text.encode()  # half a pair too
    assert "é" in text


# Terminals


def test_errors_obey_nothing_in_any_form(capsys):
    for args in ((), ("--json",), ("--traceback",)):
        for error in (ByroteError(OBEYED, help=OBEYED), OSError(2, OBEYED, OBEYED), KeyError(OBEYED)):

            def fail(error=error):
                raise error

            guarded(fail, Session(args))
            said = capsys.readouterr()
            assert not obeyed(said.out + said.err) and said.err


def test_events_obey_nothing():
    table = EventTable(f"<b>{OBEYED}", pd.DataFrame({"<i>": ["<u>"]}), f"<s>{OBEYED}\nsecond")
    assert not obeyed(repr(table)) and repr(table).count("\n") == 2
    page = table._repr_html_()
    assert not obeyed(page)
    assert all(f"<{tag}>" not in page.replace("<p><b>", "") for tag in ("i", "u", "s"))


# Pages and archives


def test_ids_of_a_page_are_words():
    assert ident('x" onclick="alert(1)') == "x-onclick-alert-1-" and ident("a-b_1") == "a-b_1"


def test_names_in_an_archive_lead_nowhere():
    import zipfile

    data = export._zip({"../../x.csv": "a", "/etc/passwd.csv": "b", "good_name-1.svg": "c"})
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert names == ["x.csv", "etc_passwd.csv", "good_name-1.svg"]


# Files that a user names


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"x = " + b"[" * 100_000, "nested more than 64 levels deep"),
        (b"[[expect]]\nprobe = 'induction'\nmin = 0x" + b"f" * 10_000, "a number of 40,000 bits"),
        (b"[[expect]]\nprobe = 'induction'\nmin = " + b"9" * 400, "a number of 1,329 bits"),
        (b"[[expect]]\nprobe = 'induction'\nmin = " + b"9" * 5000, "cannot be read as TOML"),
        (b"#" * (2 << 20), "has 2,097,152 bytes; at most 1,048,576"),
        (b"\xff\xfe", "cannot be read as TOML"),
        (b"[[expect]]\nprobe = 1979-05-27\nmin = 1", "has probe = datetime"),
        (b'[[expect]]\nprobe = "\\u001b[31m"\nmin = 1', "31m"),
    ],
)
def test_a_file_of_checks_that_is_none_is_refused(content, match, tmp_path, capsys):
    path = tmp_path / "checks.toml"
    path.write_bytes(content)
    with pytest.raises(ByroteError, match=match) as caught:
        read_gate(path)
    assert caught.value.help

    def fail():
        raise caught.value

    assert guarded(fail, Session()) == 2
    assert not obeyed(capsys.readouterr().err)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes in folders")
@pytest.mark.parametrize("kind", NO_FILES)
def test_only_a_regular_file_holds_checks(kind, tmp_path):
    path = tmp_path / "checks.toml"
    NO_FILES[kind](path)
    with pytest.raises(ByroteError, match="not a regular file"):
        read_gate(path)
