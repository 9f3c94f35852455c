"""What `byrote.probes.verify` finds in results of a real sweep, whole and damaged, one damage at a time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from planted_series import keep_attention, rising, write_results

from byrote.checkpoints.errors import ByroteError
from byrote.probes.results.derived import rebuild_observations
from byrote.probes.results.run_json import write_run_json
from byrote.probes.results.unit_files import unit_provenance, write_unit
from byrote.probes.verify import verify

Copy = Callable[..., Path]
N_UNITS = 4  # per step: repeated_random, its two controls, weights


@pytest.fixture
def sound(results_copy: Copy) -> Path:
    return results_copy("planted")


def unit(folder: Path, step: int = 20, key: str = "repeated_random") -> Path:
    (found,) = (folder / "units" / f"step_{step:08d}").glob(f"{key}.*.parquet")
    return found


def change(file: Path, column: str, at: int, value: Any, **facts: Any) -> None:
    """One cell of a unit, and what it says of itself."""
    table, held = pq.read_table(file), unit_provenance(file)
    cells = table[column].to_pylist()
    cells[at] = value
    place = table.schema.get_field_index(column)
    table = table.set_column(
        place, table.schema.field(column), pa.array(cells, table.schema.field(column).type)
    )
    write_unit(file, table.replace_schema_metadata(None), held | facts)


def say(folder: Path, **facts: Any) -> None:
    """Write over parts of run.json: `provenance__seed=1` is inside `provenance`."""
    file = folder / "run.json"
    meta = json.loads(file.read_text())
    for name, value in facts.items():
        *outer, last = name.split("__")
        held = meta
        for key in outer:
            held = held[key]
        held[last] = value
    write_run_json(folder, meta)


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


def test_nothing_is_found_in_sound_results_and_what_was_checked_is_said(sound):
    before = files(sound)
    found = verify(sound)
    assert found.findings == ()
    assert found.checked[:2] == ("run.json", f"{3 * N_UNITS} units of 3 steps")
    rows = pq.read_metadata(sound / "observations.parquet").num_rows
    assert f"{rows:,} rows of observations.parquet, made again from the units" in found.checked
    assert "3 steps and 0 gaps that run.json lists" in found.checked
    assert found.checked[-1] == "3 checkpoints by size and time of their files"
    assert files(sound) == before  # nothing is written


def test_a_unit_cut_short_is_named_and_the_others_are_still_compared(sound):
    file = unit(sound)
    file.write_bytes(file.read_bytes()[:-40])
    (line,) = verify(sound).findings
    assert (
        line
        == f"units are damaged; run the same sweep again to set them aside and measure them again: step_00000020/{file.name}"
    )


def test_a_number_changed_in_a_unit_is_found_in_the_observations(sound):
    file = unit(sound)
    rows = pq.read_table(file).to_pylist()
    at = next(i for i, r in enumerate(rows) if (r["metric"], r["layer"], r["head"]) == ("score", 1, 0))
    change(file, "value", at, 0.123)
    (line,) = verify(sound).findings
    assert line.startswith("observations.parquet differs from its units")
    assert "step 20, 1 of " in line and line.endswith(f"the first {rows[at]['probe']}/score L1H0")
    rebuild_observations(sound)
    assert verify(sound).findings == ()


def test_observations_older_than_the_units_are_found(sound):
    unit(sound, key="weights").unlink()
    (line,) = verify(sound).findings
    assert line.startswith(
        "observations.parquet differs from its units; run the same sweep again to rebuild it: step 20, "
    )
    shutil.rmtree(sound / "units" / "step_00000010")
    found = verify(sound).findings
    assert any("step 10, no units" in line for line in found)
    assert "checkpoints without units that are not listed as gaps: step 10" in found
    (sound / "observations.parquet").write_bytes(b"PAR1")
    assert any("observations.parquet is damaged" in line for line in verify(sound).findings)
    (sound / "observations.parquet").unlink()
    assert "no observations.parquet: run the same sweep again to write it" in verify(sound).checked


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"provenance__seed": 7}, "run.json says seed 7, units say 0 (12): "),
        ({"provenance__dtype": "bfloat16"}, "run.json says dtype bfloat16, units say float32 (12): "),
        ({"run": "other"}, "run.json calls the run 'other', its folder is called 'planted'"),
        ({"model__n_heads": 1}, "run.json's model has n_heads = 1"),
        ({"series__steps": [0, 10, 20, 99]}, "checkpoints without units that are not listed as gaps: step 99"),
        ({"series__steps": [0, 10]}, "it describes the last sweep requested: step 20"),
        ({"status": "partial"}, "run.json says partial and lists 0 gaps"),
        ({"gaps": [{"step": 99, "reason": "x"}]}, "run.json says complete and lists 1 gap"),
        ({"stimuli": [{"kind": "repeated_random", "id": "repeated_random-x"}]}, "run.json says repeated_random was repeated_random-x, units say"),
    ],
)  # fmt: skip
def test_an_altered_run_json_is_found(sound, facts, line):
    say(sound, **facts)
    assert any(line in found for found in verify(sound).findings), verify(sound).findings


def test_run_json_that_says_anything_at_all_is_no_reason_to_fail(sound):
    say(
        sound,
        series={"steps": [[1], "x", None, 10], "path": 7},
        stimuli=[3, {"kind": ["a"]}],
        model=[],
        provenance="no",
        gaps=["a"],
    )
    assert verify(sound).findings
    (sound / "run.json").write_text('{"schema": 1,')
    (line,) = verify(sound).findings
    assert "run.json cannot be read" in line
    with pytest.raises(ByroteError, match="is not a folder"):
        verify(sound / "nothing")


def test_an_interrupted_sweep_has_checkpoints_to_go(sound):
    say(sound, status="interrupted", series__steps=[0, 10, 20, 30])
    found = verify(sound)
    assert found.findings == ()
    assert "1 checkpoint not measured yet: the sweep was interrupted" in found.checked


def test_units_that_are_not_what_their_place_says_are_found(sound):
    file = unit(sound)
    change(file, "step", 0, 10, fingerprint="0" * 32)
    shutil.copy(unit(sound, key="weights"), file.with_name("weights.00000000.parquet"))
    (sound / "units" / "step_x").mkdir()
    (file.parent / ".left.parquet.7.tmp").write_bytes(b"")
    told = "\n".join(verify(sound).findings)
    for part in (
        f"units hold rows of another step: step_00000020/{file.name}", "units of one step are of different weights: step 20",
        "units are not named after the probes they say they hold: step_00000020/weights.00000000.parquet",
        "two units hold the same probe: step_00000020/weights.", "units contains a folder that is not a step: step_x", "1 temporary file of a sweep",
    ):  # fmt: skip
        assert part in told, told


def test_numbers_of_an_earlier_version_of_a_probe_are_told(sound):
    file = unit(sound)
    probes = unit_provenance(file)["probes"] | {"previous_token": 1}
    change(file, "n", 0, pq.read_table(file)["n"][0].as_py(), probes=probes)
    assert any(
        "previous_token was measured by its version 1, this byrote has 2" in line
        for line in verify(sound).findings
    )


def test_checkpoints_are_compared_by_content_where_their_files_changed(sound, series_copy):
    series = series_copy("planted")
    say(sound, series__path=str(series))
    found = verify(sound)
    assert found.findings == ()
    assert found.checked[-1] == (
        "3 checkpoints by size and time of their files, 3 of them by content because these had changed"
    )
    weights = max(series.glob("step_*20/*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    (line,) = verify(sound).findings
    assert line == "checkpoints have other weights than those that were measured: step 20"
    say(sound, series__path=str(series / "gone"))
    found = verify(sound)
    assert found.findings == ()
    assert found.checked[-1] == "the checkpoints are no longer at their recorded path: not compared"


def test_checkpoints_too_large_to_hash_are_said_to_be_unknown(sound, series_copy, monkeypatch):
    series = series_copy("planted")
    say(sound, series__path=str(series))
    monkeypatch.setattr("byrote.probes.verify.MAX_HASHED_BYTES", 10)
    assert (
        verify(sound).checked[-1].endswith("; 3 of them changed in size or time and too large to hash here")
    )


def test_a_checkpoint_that_is_gone_or_broken_is_told(sound, series_copy):
    series = series_copy("planted")
    say(sound, series__path=str(series))
    weights = max(series.glob("step_*20/*.safetensors"))
    os.truncate(weights, 100)
    assert any(
        line.endswith("step 20") and line.startswith("checkpoints ") for line in verify(sound).findings
    )


def test_kept_attention_is_read_whole(tmp_path):
    folder = write_results(tmp_path, "kept", rising())
    keep_attention(folder, 40, ["<bos>", " a", " b"])
    found = verify(folder)
    assert found.findings == ()
    assert "attention saved of 1 step" in found.checked
    file = folder / "arrays" / "step_00000040" / "attention.safetensors"
    os.truncate(file, file.stat().st_size - 8)
    assert any("saved attention cannot be read" in line for line in verify(folder).findings)
    shutil.rmtree(folder / "arrays")
    keep_attention(folder, 40, ["<bos>", " a", " b"], shape=(2, 2))
    assert any("another size" in line for line in verify(folder).findings)
    shutil.rmtree(folder / "arrays")
    keep_attention(folder, 41, ["<bos>", " a"])
    assert any(
        line.startswith("attention is saved of steps without units") for line in verify(folder).findings
    )


def test_looking_needs_no_torch(run_prepared, tmp_path):
    folder = write_results(tmp_path, "light", rising())
    code = "import sys; from byrote.probes.verify import verify; verify(sys.argv[1]); print('torch' in sys.modules)"
    assert run_prepared(code, str(folder)) == "False"
