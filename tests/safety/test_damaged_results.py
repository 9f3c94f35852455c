"""Damage in a results folder: named, never shown as numbers, and mended by the same command."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tiny_models import write_lab_series

from byrote.checkpoints import ByroteError, CheckpointSeries, open_series
from byrote.cli.main import cli
from byrote.probes.results import Results
from byrote.probes.results.derived import observations_current
from byrote.probes.results.parquet_files import write_parquet
from byrote.probes.results.unit_files import checked_unit, unit_facts, unit_paths, units_digest
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import SweepOutcome, sweep
from byrote.probes.verify import digest, verify

CONFIG = SweepConfig(("prefix_matching", "previous_token", "induction"), n_seq=8, save_attention=True)


@dataclass(frozen=True)
class Swept:
    """A series, a copy of its results, and the same sweep again."""

    series: CheckpointSeries
    path: Path

    def again(self, **options: object) -> SweepOutcome:
        return sweep(self.series, CONFIG, out=self.path.parent, **options)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Swept:
    root = tmp_path_factory.mktemp("damaged")
    series = open_series(write_lab_series(root / "tiny", (0, 8)))
    return Swept(series, sweep(series, CONFIG, out=root / "results").path)


@pytest.fixture
def swept(measured: Swept, tmp_path: Path) -> Swept:
    shutil.copytree(measured.path, tmp_path / "results" / "tiny")
    copied = Swept(measured.series, tmp_path / "results" / "tiny")
    copied.again()  # run.json says how to get from here to the series
    return copied


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its path, byte for byte."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and ".damaged" not in file.name
    }


def change(file: Path, edit: Callable[[bytearray], None]) -> None:
    """Write over a file in place, its times put back: nothing but its bytes tells."""
    data, stat = bytearray(file.read_bytes()), file.stat()
    edit(data)
    file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def zero_a_page(data: bytearray) -> None:
    data[100:400] = bytes(300)


def flip_a_bit(data: bytearray) -> None:
    data[len(data) // 2] ^= 4


@pytest.mark.parametrize("edit", [zero_a_page, flip_a_bit])
def test_a_damaged_unit_is_refused_named_set_aside_and_measured_again(swept, edit):
    whole, frame = contents(swept.path), Results.open(swept.path).frame
    unit = next(file for file in unit_paths(swept.path) if file.name.startswith("repeated_random"))
    change(unit, edit)
    assert any(
        line.startswith("units are damaged") and unit.name in line for line in verify(swept.path).findings
    )
    with pytest.raises(ByroteError, match="is damaged"):
        Results.open(swept.path).samples(0)
    outcome = swept.again()
    assert (outcome.measured, outcome.set_aside) == (1, [unit.with_name(f"{unit.name}.damaged")])
    assert contents(swept.path) == whole
    assert outcome.results.frame.equals(frame)
    assert verify(swept.path).findings == ()
    assert "1 damaged file that a sweep set aside" in "\n".join(verify(swept.path).checked)
    assert swept.again().measured == 0


def test_the_command_names_what_it_set_aside(swept):
    unit = unit_paths(swept.path)[0]
    change(unit, zero_a_page)
    words = [str(swept.series.path), *(w for p in CONFIG.probes for w in ("-p", p)), "--sequences", "8"]
    words += ["--save-attention", "-o", str(swept.path.parent), "--progress", "none"]
    done = CliRunner().invoke(cli, ["run", *words])
    assert done.exit_code == 0, done.stderr
    assert "damaged file was set aside as" in done.stderr and f"{unit.name}.damaged" in done.stderr


def test_a_damaged_unit_of_a_step_that_is_not_asked_for_does_not_stop_the_sweep(swept):
    unit = unit_paths(swept.path)[0]
    change(unit, zero_a_page)
    (swept.path / "observations.parquet").unlink()
    outcome = sweep(swept.series[1:], CONFIG, out=swept.path.parent)
    assert [file.name for file in outcome.set_aside] == [f"{unit.name}.damaged"]
    assert outcome.results.steps


def test_the_digest_tells_a_damaged_unit_and_not_a_recompressed_one(swept):
    before, stated = digest(swept.path), units_digest(swept.path)
    assert before == stated
    unit = unit_paths(swept.path)[0]
    facts, table = unit_facts(unit), pq.read_table(unit)
    kept = {k: v for k, v in pq.ParquetFile(unit).metadata.metadata.items() if k.startswith(b"byrote.")}
    write_parquet(unit, table, kept, rows_per_group=7)
    assert checked_unit(unit)[0] == facts
    assert digest(swept.path) == before
    change(unit, flip_a_bit)
    assert digest(swept.path) != before


def test_numbers_that_are_not_those_hashed_are_damage_even_under_a_good_seal(swept):
    unit = unit_paths(swept.path)[0]
    table = pq.read_table(unit)
    kept = {k: v for k, v in pq.ParquetFile(unit).metadata.metadata.items() if k.startswith(b"byrote.")}
    write_parquet(unit, table.slice(1), kept)
    assert any(line.startswith("units are damaged") for line in verify(swept.path).findings)


def test_units_of_the_first_version_are_read_and_called_unverified(swept):
    for unit in unit_paths(swept.path):
        table, provenance = pq.read_table(unit), unit_facts(unit).provenance
        said = {b"rote.provenance": json.dumps(provenance, sort_keys=True).encode()}
        pq.write_table(table.replace_schema_metadata(said), unit, compression="zstd")
    n = len(unit_paths(swept.path))
    found = verify(swept.path)
    assert found.findings == ()
    assert f"{n} units of 2 steps, {n} of them unverified (of version 0.1)" in found.checked
    outcome = swept.again()
    assert (outcome.measured, outcome.reused) == (0, n)
    change(unit_paths(swept.path)[0], zero_a_page)
    assert swept.again().measured == 1


@pytest.mark.parametrize("edit", [zero_a_page, flip_a_bit, lambda data: data.clear()])
def test_damaged_observations_are_not_read_and_are_made_anew(swept, edit):
    whole, frame = contents(swept.path), Results.open(swept.path).frame
    change(swept.path / "observations.parquet", edit)
    assert Results.open(swept.path).frame.equals(frame)
    assert any("observations.parquet is damaged" in line for line in verify(swept.path).findings)
    swept.again()
    assert contents(swept.path) == whole


def test_a_clock_that_goes_back_hides_no_unit(swept):
    unit = unit_paths(swept.path)[-1]
    before = Results.open(swept.path).n_rows
    unit.unlink()
    for file in (*unit_paths(swept.path), unit.parent):
        os.utime(file, ns=(0, 0))  # older than observations.parquet
    assert not observations_current(swept.path)
    assert Results.open(swept.path).n_rows < before
    shutil.copy(unit_paths(swept.path)[0], unit.with_name("weights.00000000.parquet"))
    assert not observations_current(swept.path), "as many units as before, and none newer"


def test_times_of_a_copy_say_nothing(swept):
    for file in unit_paths(swept.path):
        os.utime(file)  # as `cp -r` leaves them: newer than observations.parquet
    assert observations_current(swept.path)


def test_a_sweep_killed_before_the_observations_were_written_makes_them(swept):
    whole = contents(swept.path)
    (swept.path / "observations.parquet").unlink()
    assert swept.again().measured == 0
    assert contents(swept.path) == whole


@pytest.mark.parametrize("edit", [flip_a_bit, lambda data: data.__delitem__(slice(-9, None))])
def test_damaged_attention_is_refused_named_and_saved_again(swept, edit):
    from byrote.probes.attention import attention_file, stored_texts

    whole, file = contents(swept.path), attention_file(swept.path, 8)
    change(file, edit)
    with pytest.raises(ByroteError, match="cannot be read"):
        stored_texts(file)
    assert any("saved attention cannot be read" in line for line in verify(swept.path).findings)
    swept.again()
    assert contents(swept.path) == whole
