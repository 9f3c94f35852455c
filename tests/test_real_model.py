"""The scripts of `make real` and `make real-training` on a tiny model of their own: checks, resuming, and the pages."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from gguf_files import VOCAB, write_gguf

from byrote.cli.main import cli

sys.path.insert(0, str(Path(__file__).parent / "real"))

pytestmark = pytest.mark.processes
WORDS = [f"w{i}" for i in range(VOCAB - 3)]


def write_tokenizer(folder: Path) -> None:
    """One id per word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<unk>", "<s>", "</s>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    """A folder as `make real` leaves it, of a tiny model and made-up texts."""
    folder = tmp_path_factory.mktemp("real")
    write_gguf(folder / "tiny-Q4_1.gguf", 3, tied=True)
    write_tokenizer(folder)
    lines = [" ".join(WORDS[(i * k) % len(WORDS)] for i in range(1, 30)) for k in range(1, 17)]
    for name, kept in (("known_texts", lines), ("new_texts", lines[::-1]), ("pages", lines * 20)):
        (folder / f"{name}.txt").write_text("\n".join(kept), encoding="utf-8")
    words = [
        "run",
        str(folder / "tiny-Q4_1.gguf"),
        "-o",
        str(folder / "results"),
        "--sequences",
        "16",
        "--progress",
        "none",
    ]
    words += ["--trace", str(folder / "trace.jsonl"), "--text", str(folder / "pages.txt")]
    words += ["--members", str(folder / "known_texts.txt"), "--twins", str(folder / "new_texts.txt")]
    probes = "induction repeat_loss held_out_loss load_bearing extraction mem_gap pruned_memory pruned_heads"
    words += [word for probe in probes.split() for word in ("-p", probe)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    return folder


def test_transformers_alone_finds_the_same_numbers(measured):
    import check_smollm2

    check = check_smollm2.compare(measured)
    assert check["off"] < check_smollm2.TOLERANCE, check
    assert len(check["compared"]) == 7 and check["n_draws"] > 1


def test_a_number_that_is_off_is_noticed(measured, monkeypatch):
    import check_smollm2

    stored = check_smollm2._stored
    monkeypatch.setattr(check_smollm2, "_stored", lambda *which: stored(*which) + 3e-4)
    assert check_smollm2.compare(measured)["off"] > check_smollm2.TOLERANCE


def test_tokens_count_up_to_the_first_that_is_wrong():
    import check_smollm2
    import torch

    class Counts:
        """Writes the next numbers."""

        def generate(self, prompts, *, max_new_tokens, **_):
            return torch.cat([prompts, prompts[:, -1:] + torch.arange(1, max_new_tokens + 1)], dim=1)

    ids = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 9, 6, 7], [1, 2, 9, 4, 5, 6, 7]]
    found = check_smollm2.continued(Counts(), ids, first=0, k=3)
    assert [one["matched"] for one in found] == [3, 1, 0]
    assert found[2] == {"matched": 0, "written": [10, 11, 12], "true": [4, 5, 6]}


def test_the_page_says_what_was_measured(measured, tmp_path):
    import check_smollm2
    import smollm2_page

    (measured / "check.json").write_text(json.dumps(check_smollm2.compare(measured)))
    smollm2_page.write(measured, tmp_path)
    text = (tmp_path / "smollm2.md").read_text(encoding="utf-8")
    assert text.startswith("# tiny, dequantised from 4 bits (Q4_1)")
    assert "Nothing is extracted" in text and "nan" not in text
    assert "tiny-Q4_1.gguf, dequantised from 4 bits (Q4_1), step 0" in text
    for name in ("matching", "pruning", "own-text"):
        assert (tmp_path / f"smollm2-{name}.svg").read_text(encoding="utf-8").startswith("<svg")


PLAN = {
    "width": 32,
    "batch": 4,
    "steps": 8,
    "fresh_steps": 4,
    "epochs": 4,
    "measured": (0, 4, 8, 10, 12),
    "known": 16,
    "n_seq": 8,
}


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A tiny model as GGUF, its tokenizer, and a text of random words."""
    folder = tmp_path_factory.mktemp("start")
    write_gguf(folder / "tiny-Q4_1.gguf", 3, tied=True)
    write_tokenizer(folder)
    words = np.random.default_rng(0).choice(WORDS, 12_000)
    (folder / "text.txt").write_text(" ".join(words), encoding="utf-8")
    return folder


def trained(start: Path, place: Path) -> tuple[Any, Any]:
    """A folder of its own to train in, and the plan."""
    import train_smollm2 as train

    if not place.is_dir():
        shutil.copytree(start, place)
    return place, train.Plan(text=str(start / "text.txt"), **PLAN)


def test_a_training_that_was_killed_ends_with_the_numbers_of_one_that_was_not(start, tmp_path, monkeypatch):
    import train_smollm2 as train
    import training_page as page
    import training_table as table

    whole, plan = trained(start, tmp_path / "whole")
    train.run(whole, plan, [0])
    killed, _ = trained(start, tmp_path / "killed")
    update, n = train.update, 0

    def dies(*args: Any) -> float:
        nonlocal n
        n += 1
        if n in (3, 15, 40):  # before anything is stored, between two stored steps, in another arm
            raise KeyboardInterrupt
        return update(*args)

    monkeypatch.setattr(train, "update", dies)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            train.run(killed, plan, [0])
    train.run(killed, plan, [0])
    for folder in (whole, killed):
        table.take_over(folder, folder / "page")
    first, second = (pd.read_parquet(folder / "page" / table.TABLE) for folder in (whole, killed))
    pd.testing.assert_frame_equal(first, second)
    measured = {arm: sorted(rows["step"].unique()) for arm, rows in first.groupby("arm")}
    assert measured["repeated"] == [0, 4, 8, 10, 12] and measured["unique"] == measured["synthetic"] == [
        4,
        8,
        10,
        12,
    ]
    text = page.written(whole / "page")[whole / "page" / page.PAGE]
    assert "this is a case, not a finding about data" in text and "nan" not in text
    assert not list((killed / "training").glob("*.pt*"))


def test_arms_train_on_what_they_say(start, tmp_path):
    import train_smollm2 as train

    folder, plan = trained(start, tmp_path / "arms")
    parts = train.prepared(folder, plan, 1)
    every = {
        arm: [train.batch_at(parts, arm, step, plan, 1).numpy() for step in range(1, 13)]
        for arm in train.ARMS
    }
    rows = {
        arm: [row.tobytes() for batch in batches[: plan.steps] for row in batch]
        for arm, batches in every.items()
    }
    assert {arm: len(set(own)) for arm, own in rows.items()} == {
        "repeated": plan.n_pool,
        "unique": 32,
        "synthetic": 32,
    }
    assert set(Counter(rows["repeated"]).values()) == {plan.epochs}
    unique, written = parts["unique"], parts["synthetic"]
    assert (unique[:, : plan.prompt] == written[:, : plan.prompt]).all() and (unique != written).any(1).all()
    assert all(
        (a == b).all()
        for a, b in zip(every["unique"][plan.steps :], every["repeated"][plan.steps :], strict=True)
    )
    shown = {
        row.tobytes() for name in ("pool", "twins", "unique", "fresh", "held_out") for row in parts[name]
    }
    assert len(shown) == sum(len(parts[name]) for name in ("pool", "twins", "unique", "fresh", "held_out"))
