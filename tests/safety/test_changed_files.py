"""Files that change while they are measured, or that lie about having changed: never other numbers under an old fingerprint."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from pickled_files import write_dcp
from safetensors.torch import load_file, save_file
from tiny_models import lab_state, write_hf_series

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import content_of, tensor_hashes
from byrote.checkpoints.lint.report import read_lint, stamp, write_lint
from byrote.checkpoints.lint.run import lint
from byrote.checkpoints.stored_bytes import StoredFile, stamp_of
from byrote.interp.bridge import HookedSeries
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.prefetch import Fingerprints
from byrote.probes.sweep.run import sweep

FEW = SweepConfig(probes=("previous_token",), n_seq=4)


@pytest.fixture
def series(lab_series):
    return open_series(lab_series((0, 8, 64)))


def other_weights(file: Path, seed: int = 99) -> None:
    """Other numbers in place, in a file of the same size."""
    save_file(lab_state(seed), file)


def replaced_with_times_preserved(file: Path) -> None:
    """`cp -p other file`: same size, same time of change."""
    before = file.stat()
    other_weights(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_weights_replaced_with_size_and_time_preserved_are_measured_again(series, tmp_path):
    first = sweep(series, FEW, out=tmp_path / "out").results.frame["value"].tolist()
    (file,) = series.at(8).files
    replaced_with_times_preserved(file)
    again = sweep(open_series(series.path), FEW, out=tmp_path / "out")
    assert (again.measured, again.reused) == (1, 2)
    assert first != again.results.frame["value"].tolist()


def test_a_lint_report_is_not_of_weights_replaced_with_size_and_time_preserved(series):
    write_lint(series, lint(series))
    assert read_lint(series) is not None
    replaced_with_times_preserved(series.at(8).files[0])
    assert read_lint(series) is None


def test_a_report_of_0_1_still_counts(series, monkeypatch):
    from byrote.checkpoints.lint import report

    monkeypatch.setattr("byrote.checkpoints.lint.run.stamp", report._stamp_of_0_1)
    write_lint(series, lint(series))
    assert report._stamp_of_0_1(series[0]) != stamp(series[0])
    assert read_lint(series) is not None


def test_a_change_within_the_clocks_tick_changes_the_stamp(tmp_path):
    file = tmp_path / "weights"
    for i in range(20):
        file.write_bytes(b"one")
        before = stamp_of([file])
        file.write_bytes(b"two")
        assert stamp_of([file]) != before, i


@pytest.mark.parametrize("prefetch", [True, False])
def test_replaced_between_hash_and_load(series, tmp_path, monkeypatch, prefetch):
    """A gap that says so, and nothing measured; the same command measures what is there then."""
    (file,) = series.at(8).files
    load = HookedSeries.load

    def replace_first(self, checkpoint):
        if checkpoint.step == 8:
            other_weights(file)
        return load(self, checkpoint)

    config = SweepConfig(probes=FEW.probes, n_seq=4, prefetch=prefetch)
    with monkeypatch.context() as patch:
        patch.setattr(HookedSeries, "load", replace_first)
        outcome = sweep(series, config, out=tmp_path / "out")
    assert [gap["step"] for gap in outcome.gaps] == [8]
    assert "changed while they were measured" in outcome.gaps[0]["reason"]
    assert outcome.results.steps == [0, 64]
    after = sweep(series, config, out=tmp_path / "out")
    assert (after.measured, after.gaps, after.results.steps) == (1, [], [0, 8, 64])


def test_exchanged_for_the_load_alone_and_put_back(series, tmp_path, monkeypatch):
    """The hash of what is there before and afterwards is the same; the weights that were loaded were others."""
    (file,) = series.at(8).files
    load, loaded = HookedSeries.load, []
    good = file.read_bytes()

    def exchange_once(self, checkpoint):
        first = checkpoint.step == 8 and not loaded
        if first:
            other_weights(file)
        model = load(self, checkpoint)
        if first:
            loaded.append(checkpoint.step)
            file.write_bytes(good)
        return model

    expected = sweep(series, FEW, out=tmp_path / "plain").results.frame
    with monkeypatch.context() as patch:
        patch.setattr(HookedSeries, "load", exchange_once)
        outcome = sweep(series, FEW, out=tmp_path / "out")
    assert loaded == [8]
    assert outcome.gaps == []
    assert outcome.results.frame["value"].equals(expected["value"])


def test_touched_while_it_was_measured_is_no_gap(series, tmp_path, monkeypatch):
    load = HookedSeries.load

    def touch(self, checkpoint):
        model = load(self, checkpoint)
        if not checkpoint.files[0].with_suffix(".seen").exists():
            checkpoint.files[0].with_suffix(".seen").touch()
            os.utime(checkpoint.files[0])
        return model

    monkeypatch.setattr(HookedSeries, "load", touch)
    outcome = sweep(series, FEW, out=tmp_path / "out")
    assert (outcome.measured, outcome.gaps) == (3, [])


def test_written_while_it_is_hashed_is_said(series, monkeypatch):
    (file,) = series[0].files
    read_into = StoredFile.read_into

    def write_meanwhile(self, start, target):
        read_into(self, start, target)
        with file.open("r+b") as writer:
            writer.seek(-4, os.SEEK_END)
            writer.write(b"\1\2\3\4")

    monkeypatch.setattr(StoredFile, "read_into", write_meanwhile)
    with pytest.raises(CheckpointError, match="changed while they were read"):
        content_of(series[0])


def test_rehash_believes_no_stamp(series, tmp_path):
    """Where even the inode and the time of change lie, as after a restored image of the disk."""
    out = tmp_path / "out"
    sweep(series, FEW, out=out)
    cache = out / series.name / "fingerprints.json"
    known = Fingerprints(cache)
    other_weights(series.at(8).files[0])
    known._cached = {
        key: type(value)(stamp_of([Path(key), series[0].config_path]), value.fingerprint, value.zeros)
        for key, value in known._cached.items()
    }
    known.changed = True
    known.close()
    assert sweep(series, FEW, out=out).measured == 0  # that is how it looks
    assert sweep(series, FEW, out=out, rehash=True).measured == 1


CUT_SHORT = (
    ("hf", "hash"),
    ("hf", "load"),
    ("hf", "lint"),
    ("state_dict", "hash"),
    ("state_dict", "load"),
    ("dcp", "lint"),
)
CUTTER = """
import os, sys
from pathlib import Path
from byrote.checkpoints import open_series
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.fingerprint import tensor_hashes
from byrote.checkpoints.lint.run import lint
from byrote.checkpoints.stored_bytes import StoredFile

read_into = StoredFile.read_into
def cut(self, start, target):
    os.truncate(self.path, min(self.path.stat().st_size, start + len(target) // 2))
    read_into(self, start, target)
for folder, read in zip(sys.argv[1::2], sys.argv[2::2]):
    StoredFile.read_into = read_into
    series = open_series(Path(folder))
    StoredFile.read_into = cut
    try:
        if read == "hash":
            tensor_hashes(series[0])
        elif read == "load":
            from byrote.interp.loading import load_fresh
            load_fresh(series[0])
        else:
            print(read, "said:", lint(series).facts[0].evidence["reason"], flush=True)
            continue
        print(read, "was read", flush=True)
    except ByroteError as error:
        print(read, "said:", error.message, flush=True)
"""


def test_a_file_cut_short_while_it_is_read_is_an_error(tmp_path):
    """A mapped file that is cut short ends the process with SIGBUS; this runs in a process of its own for that reason."""
    words = [
        word
        for i, (format, read) in enumerate(CUT_SHORT)
        for word in (str(written(tmp_path / str(i), format)), read)
    ]
    done = subprocess.run([sys.executable, "-c", CUTTER, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    lines = done.stdout.splitlines()
    assert len(lines) == len(CUT_SHORT), lines
    for (format, read), line in zip(CUT_SHORT, lines, strict=True):
        assert line.startswith(f"{read} said:") and "was truncated while it was read" in line, (format, line)


def written(top: Path, format: str) -> Path:
    """Series with one step of each way to store tensors."""
    source = write_hf_series(top / "gpt2", "gpt2", (0,))
    if format == "hf":
        return source
    state = load_file(source / "step0" / "model.safetensors")
    folder = top / format
    folder.mkdir()
    shutil.copy(source / "step0" / "config.json", folder)
    if format == "dcp":
        write_dcp(folder / "step_1", {"model": state})
    else:
        torch.save(state, folder / "step_1.pt")
    return folder


def test_a_live_writer_never_leaves_a_fingerprint_of_other_weights(series, tmp_path):
    """Weights rewritten in place as fast as it goes: each unit's fingerprint is of weights that were written whole."""
    (file,) = series.at(8).files
    whole, stop = set(), threading.Event()
    for seed in (1, 2):
        other_weights(file, seed)
        whole.add(content_of(series.at(8)).fingerprint)

    def write() -> None:
        seed = 0
        while not stop.is_set():
            other_weights(file, 1 + seed % 2)
            seed += 1
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        outcome = sweep(series.select("8"), FEW, out=tmp_path / "out")
    finally:
        stop.set()
        writer.join()
    assert outcome.measured or outcome.gaps
    now = sweep(series.select("8"), FEW, out=tmp_path / "out")
    assert now.gaps == []
    assert Fingerprints(now.path / "fingerprints.json").cached(series.at(8)) in whole
    assert tensor_hashes(series.at(8))
