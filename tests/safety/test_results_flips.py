"""One flipped bit anywhere in a results folder: the numbers are equal, or it is refused, or `verify` names it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_models import write_lab_series

from byrote.checkpoints import ByroteError, open_series
from byrote.probes.attention import attention_file, stored_pattern, stored_texts, stored_writes
from byrote.probes.results import Results
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep
from byrote.probes.verify import verify

STEPS = (0, 8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("flips")
    config = SweepConfig(("prefix_matching", "induction"), n_seq=8, save_attention=True)
    series = open_series(write_lab_series(root / "tiny", STEPS))
    return sweep(series, config, out=root / "results").path


class Numbers:
    """A frame; equal where every value is, down to the sign of a zero, and where each is missing in the same place."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame, self.signs = frame, np.signbit(frame.select_dtypes("float64").to_numpy())

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Numbers) and self.frame.equals(other.frame)
        return same and np.array_equal(self.signs, other.signs)


def shown(folder: Path) -> tuple[Any, ...]:
    """Everything that a reader can show of a run, in a form that can be compared."""
    results = Results.open(folder)
    meta = {name: value for name, value in results.meta.items() if name != "seal"}
    numbers = Numbers(results.frame)
    samples = [
        (where, own.tolist()) for _, where, own in results.read_samples([("prefix_matching", "score")])
    ]
    attention = []
    for step in STEPS:
        file = attention_file(folder, step)
        for text in stored_texts(file):
            writes = stored_writes(file, text, layer=1, head=0)
            pattern = stored_pattern(file, text, layer=1, head=0)
            words = (text.stimulus, text.stimulus_id, text.words, text.tokens.tolist())
            attention.append((words, pattern.tolist(), writes.ids.tolist(), writes.logits.tolist()))
    return meta, numbers, samples, attention


def outcome_of(folder: Path, expected: tuple[Any, ...]) -> str:
    """What a changed folder leads to: "equal", "refused", "named", or "wrong"."""
    try:
        found = shown(folder)
    except ByroteError:
        return "refused"
    if found == expected:
        return "equal"
    return "named" if verify(folder).findings else "wrong"


def flipped(whole: Path, folder: Path, n: int, seed: int) -> dict[str, int]:
    """The outcomes of flips spread over all files, and within a file over all its bytes."""
    expected = shown(whole)
    files = [file for file in sorted(whole.rglob("*")) if file.is_file() and file.name != ".lock"]
    assert len(files) >= 8
    shutil.copytree(whole, folder)
    draw, seen = random.Random(seed), dict.fromkeys(("equal", "refused", "named"), 0)
    for i in range(n):
        file = files[i % len(files)]
        data = bytearray(file.read_bytes())
        bit = draw.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        place = folder / file.relative_to(whole)
        place.write_bytes(data)
        outcome = outcome_of(folder, expected)
        assert outcome != "wrong", f"bit {bit} of {file.relative_to(whole)}"
        seen[outcome] += 1
        place.write_bytes(file.read_bytes())
    return seen


def test_a_flipped_bit_never_shows_other_numbers(whole, tmp_path):
    seen = flipped(whole, tmp_path / "tiny", 64, seed=11)
    assert all(seen.values()), seen


@pytest.mark.slow
def test_many_flipped_bits_never_show_other_numbers(whole, tmp_path):
    assert sum(flipped(whole, tmp_path / "tiny", 1000, seed=12).values()) == 1000


@pytest.mark.parametrize("name", ["observations.parquet", "run.json", "unit", "attention.safetensors"])
def test_a_flip_in_the_seal_or_its_mark_is_no_way_around_it(whole, tmp_path, name):
    expected = shown(whole)
    shutil.copytree(whole, tmp_path / "tiny")
    pattern = "repeated_random.*" if name == "unit" else name
    file = next((tmp_path / "tiny").rglob(pattern))
    data = file.read_bytes()
    mark = (
        b'"seal": "' if name == "run.json" else b"byrote.seal" if b"byrote.seal" in data else b"byrote-seal"
    )
    start = data.find(mark) if name.endswith("tensors") else data.rfind(mark)
    for at in range(start, min(start + 50, len(data)), 7):
        changed = bytearray(data)
        changed[at] ^= 2
        file.write_bytes(changed)
        assert outcome_of(tmp_path / "tiny", expected) in ("equal", "refused", "named")
        assert verify(tmp_path / "tiny").findings, at
