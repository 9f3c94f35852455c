"""Verbs keep within memory, descriptors and seconds, on what is long and on what is hostile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import hostile_folders  # noqa: F401  (adds its cases)
import pytest
from commands import SHAPE, measured, series_of
from hostile_files import HOSTILE
from limited import limited, quiet
from looking import command_line
from tiny_models import write_lab_series

N_LONG = 120  # checkpoints: twice as many as there may be open files
ANSWERS = (0, 1, 2, 3, 4)
FOLDERS_S = 25
LONG_LINES = (
    "scan {top}/runs/long",
    "lint {top}/runs/long",
    "run {top}/runs/long -p prefix_matching --sequences 8 -o {top}/results --progress none",
    "run {top}/runs/long -p prefix_matching --sequences 8 -o {top}/results --progress none",
    "show {top}/results/long --events",
    "report {top}/results/long -o {top}/report --light",
)


def call_all(note: Any, lines: list[str], traceback: str = "--traceback") -> list[tuple[int, str]]:
    """Verbs, one after the other: exit codes and what they said."""
    quiet()
    found = []
    for line in lines:
        note(line)
        code, _, said = command_line(*line.split(), traceback)
        found.append((code, said[-1500:]))
    return found


@pytest.mark.torture(seconds=30)
def test_a_long_series_needs_few_descriptors_and_little_memory(tmp_path):
    write_lab_series(tmp_path / "runs" / "long", range(N_LONG), **SHAPE)
    lines = [line.format(top=tmp_path) for line in LONG_LINES]
    ended = limited(call_all, lines, memory=2 << 30, files=64, seconds=90)
    assert not ended.problem, (ended.progress, ended.problem)
    for line, (code, said) in zip(lines, ended.answer, strict=True):
        assert code in (0, 1), (line, said)


@pytest.mark.torture(weight=2)
def test_hostile_folders(cases, tmp_path):
    """`scan`, `lint` and `run` on what `tests/safety` has collected."""
    for number, name in cases.of(sorted(HOSTILE), "folders"):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (tmp_path / "markers").mkdir(exist_ok=True)
        HOSTILE[name][0](folder, tmp_path / "markers" / name)
        lines = [
            f"scan {folder}",
            f"lint {folder} --no-write",
            f"run {folder} -p ov_copying --sequences 8 -o {tmp_path / 'results'} --progress none",
        ]
        with cases.case(number, name):
            ended = limited(call_all, lines, memory=3 << 30, files=64, seconds=FOLDERS_S)
            assert not ended.problem, (ended.progress, ended.problem)
            for line, (code, said) in zip(lines, ended.answer, strict=True):
                assert code in ANSWERS, (line, code, said)
            assert not any((tmp_path / "markers").iterdir()), "code was run"


# --- links ------------------------------------------------------------------------------------------------------------


LINK_LINES = (
    "show {top}/results/tiny",
    "show {top}/results/tiny --events",
    "verify {top}/results/tiny",
    "report {top}/results/tiny -o {top}/report --light",
    "run {top}/runs/tiny -p prefix_matching -p ov_copying --sequences 8 -o {top}/results --progress none",
    "run {top}/runs/tiny -p prefix_matching --sequences 8 --seed 1 -o {top}/results --progress none",
)


def linked(top: Path, kind: str, which: int) -> str:
    """Replace a file or folder of the results by a link, a second name or a pipe; its name."""
    folder = top / "results" / "tiny"
    places = sorted(p for p in folder.rglob("*") if not p.is_symlink())
    place = places[which % len(places)]
    name, was_folder = str(place.relative_to(folder)), place.is_dir()
    place.rename(top / "precious" / "moved") if was_folder else place.unlink()
    target = top / "precious" / ("moved" if was_folder else "file")
    if kind == "second name" and not was_folder:
        os.link(target, place)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(target)
    return name


@pytest.mark.torture(weight=2)
def test_links_and_pipes(cases, tmp_path):
    """Nothing outside a results folder is changed through it, and nobody waits for a pipe."""
    from byrote.cli.main import VERBS

    lines = [line for line in LINK_LINES if line.split()[0] in VERBS]
    for case, rng in cases.drawn():
        top = tmp_path / str(case)
        (top / "precious").mkdir(parents=True)
        (top / "precious" / "file").write_bytes(b"precious")
        measured(series_of(top), attention=case % 3 == 0)
        kind = rng.choice(("link", "link", "second name", "pipe"))
        name = linked(top, kind, rng.randrange(1000))
        with cases.case(case, f"{kind} in the place of {name}"):
            before = tree(top / "precious")
            ended = limited(call_all, [line.format(top=top) for line in lines], memory=3 << 30, seconds=40)
            assert not ended.problem, (ended.progress, ended.problem)
            assert all(code in ANSWERS for code, _ in ended.answer), ended.answer
            assert tree(top / "precious") == before, "something outside was changed"


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in it; a second name of a file of ours included."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
