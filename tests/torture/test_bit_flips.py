"""One bit of any file is another: the answer is what it was, or a refusal, or somebody names the damage.

Times are kept in half of the cases, for a disk that forgets a bit does not touch them.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from commands import COMMANDS, LAB, Command, differences, earlier_training, expected, trained
from forgetful_disk import put_tree, read_tree
from looking import REFUSED, command_line, rows
from tiny_models import write_hf_series

from byrote.checkpoints import atomic, open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.trainer import train
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep
from byrote.probes.verify import verify

pytestmark = pytest.mark.torture
UNSEALED = {"log.jsonl"}  # for people; nothing is read from it


def flip(top: Path, rng: random.Random) -> str:
    """Flip one bit of one file below a folder; says which."""
    files = [p for p in sorted(top.rglob("*")) if p.is_file() and p.name not in {atomic.LOCK, *UNSEALED}]
    file = rng.choice([p for p in files if p.stat().st_size])
    data, times = bytearray(file.read_bytes()), file.stat()
    at, bit = rng.randrange(len(data)), rng.randrange(8)
    data[at] ^= 1 << bit
    file.write_bytes(data)
    if rng.random() < 0.5:
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    return f"bit {bit} of byte {at} of {len(data)} of {file.relative_to(top)}"


def test_bit_flips_in_results(cases, tmp_path):
    command, top = COMMANDS["attention"], tmp_path / "top"
    _, after = expected(command, top)
    put_tree(top, after)
    root = top / "results" / "tiny"
    wanted = rows(root)
    for case, rng in cases.drawn():
        put_tree(top, after)
        with cases.case(case, done := flip(root, rng)):
            shown = look(root)
            named = bool(verify(root).findings)
            assert named or shown in (REFUSED, wanted), (
                f"{done}: other numbers are shown, verify finds nothing"
            )
            said = command.finish(top)
            for path in root.rglob("*.damaged*"):
                path.unlink()
            wrong = differences(read_tree(top), after)
            assert not wrong or (bool(verify(root).findings) and shown != REFUSED), (
                f"{done}: the same command does not make it good: {wrong}; it said {said}"
            )


def look(root: Path) -> list[str] | str:
    try:
        return rows(root)
    except ByroteError as error:
        assert error.message
        return REFUSED


def test_bit_flips_in_a_series_in_training(cases, tmp_path):
    """Going on from it gives the bytes of an undisturbed training, or a refusal whose advice does."""
    command, top = Command("training_resumed", earlier_training, trained), tmp_path / "top"
    before, after = expected(command, top)
    for case, rng in cases.drawn():
        put_tree(top, before)
        with cases.case(case, done := flip(top, rng)):
            said = command.finish(top)
            wrong = differences(read_tree(top), after)
            assert not wrong or scan_names(top / "runs" / "lab"), f"{done}: {wrong}; it said {said}"


def test_bit_flips_in_a_finished_series(cases, tmp_path):
    """`scan` or `lint` names it, or nothing can be opened, or the same training finds it."""
    top = tmp_path / "top"
    train(top / "runs" / "lab", LAB)
    good = read_tree(top)
    for case, rng in cases.drawn():
        put_tree(top, good)
        with cases.case(case, done := flip(top, rng)):
            assert scan_names(top / "runs" / "lab"), f"{done}: nobody finds it"


def scan_names(folder: Path) -> bool:
    """Whether `scan` finds anything wrong with a series, or refuses it."""
    code, out, said = command_line("scan", str(folder))
    assert code != 70, said
    return code != 0 or "warning" in said or "damaged" in said + out


def test_bit_flips_in_measured_checkpoints(cases, tmp_path):
    """Of anybody's checkpoints: measured anew, or a gap; `verify --content` tells before that."""
    series, out = (
        write_hf_series(tmp_path / "runs", "gpt2", (0, 1), n_embd=8, n_layer=2, n_head=2),
        tmp_path / "results",
    )
    config = SweepConfig(("prefix_matching",), n_seq=8)
    root = sweep(open_series(series), config, out=out).path
    checkpoints, results, wanted = read_tree(series), read_tree(root), rows(root)
    for case, rng in cases.drawn():
        put_tree(series, checkpoints)
        put_tree(root, results)
        with cases.case(case, done := flip(series, rng)):
            named = bool(verify(root, content=True).findings)
            try:
                again = sweep(open_series(series), config, out=out)
                fresh = sweep(open_series(series), config, out=tmp_path / "fresh", fresh=True)
            except ByroteError as error:
                assert error.message and named
                continue
            assert again.gaps == fresh.gaps
            steps = set(fresh.results.steps)
            assert rows(root, only=steps) == rows(fresh.path), f"{done}: not as a fresh sweep"
            assert named or rows(root) == wanted, f"{done}: other numbers, verify found nothing"
