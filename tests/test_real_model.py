"""The scripts of `make real` on a tiny model of their own: the check without TransformerLens, and the page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

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
    for name, kept in (("known", lines), ("new", lines[::-1]), ("pages", lines * 20)):
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
    words += ["--members", str(folder / "known.txt"), "--twins", str(folder / "new.txt")]
    for probe in ("induction", "repeat_loss", "held_out_loss", "load_bearing", "extraction", "pruned_memory"):
        words += ["-p", probe]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    return folder


def test_transformers_alone_finds_the_same_numbers(measured):
    import check_smollm2 as check

    told = check.compare(measured)
    assert told["off"] < check.TOLERANCE, told
    assert len(told["compared"]) == 4 and told["n_draws"] > 1
    (measured / "check.json").write_text(json.dumps(told))


def test_a_number_that_is_off_is_noticed(measured, monkeypatch):
    import check_smollm2 as check

    stored = check._stored
    monkeypatch.setattr(check, "_stored", lambda *which: stored(*which) + 3e-4)
    assert check.compare(measured)["off"] > check.TOLERANCE


def test_the_page_says_what_came_out(measured, tmp_path):
    import check_smollm2 as check
    import smollm2_page as page

    (measured / "check.json").write_text(json.dumps(check.compare(measured)))
    page.write(measured, tmp_path)
    text = (tmp_path / "smollm2.md").read_text(encoding="utf-8")
    assert text.startswith("# tiny, dequantised from 4 bits (Q4_1)")
    assert "it extracts nothing" in text and "nan" not in text
    assert "tiny-Q4_1.gguf, dequantised from 4 bits (Q4_1), step 0" in text
    for name in ("matching", "own-text"):
        assert (tmp_path / f"smollm2-{name}.svg").read_text(encoding="utf-8").startswith("<svg")
