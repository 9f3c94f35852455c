"""Results folders that somebody made to do harm: every kind is refused in two lines, or harmless, and quickly."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from no_files import NO_FILES, put_device, put_pipe
from tiny_models import write_lab_series

from byrote.checkpoints import ByroteError, CheckpointSeries, open_series
from byrote.cli.main import cli
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.results.run_json import FIELDS, read_run_json, write_run_json
from byrote.probes.results.schema import OBSERVATION_SCHEMA, UNIT_SCHEMA
from byrote.probes.results.unit_files import read_unit, unit_paths, write_unit
from byrote.probes.stored_probes import from_json, to_json
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep
from byrote.probes.verify import verify

CONFIG = SweepConfig(("prefix_matching", "previous_token", "induction"), n_seq=8, save_attention=True)
SECONDS = 5.0


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[CheckpointSeries, Path]:
    root = tmp_path_factory.mktemp("hostile")
    series = open_series(write_lab_series(root / "tiny", (0, 8)))
    return series, sweep(series, CONFIG, out=root / "results").path


@pytest.fixture
def folder(measured, tmp_path) -> Path:
    return shutil.copytree(measured[1], tmp_path / "results" / "tiny")


def read(folder: Path) -> None:
    """Whatever readers ask of results."""
    results = Results.open(folder)
    for name in ("gaps", "left_out", "loss", "arm", "sequence_seed", "training_seed", "steps", "usable_steps", "all_steps",
                 "last_step", "n_rows", "shape", "kinds", "head_probes", "series_place", "series_shown", "outcomes"):  # fmt: skip
        getattr(results, name)
    repr(results)
    results._repr_html_()
    results.cube("prefix_matching")
    results.curves("prefix_matching")


def looked_at(folder: Path) -> tuple[str, tuple[str, ...]]:
    """The message of a refusal by the readers, "" where they read it, and what `verify` finds; `show` never fails otherwise."""
    start, said = time.monotonic(), ""
    try:
        read(folder)
    except ByroteError as error:
        said = f"{error.message}; {error.help}"
    findings = verify(folder).findings
    done = CliRunner().invoke(cli, ["show", str(folder)])
    assert done.exit_code in (0, 2), (done.stderr, done.exception)
    assert done.exit_code == 0 or len(done.stderr.strip().splitlines()) == 2
    assert time.monotonic() - start < SECONDS
    return said, findings


def put_link(path: Path) -> None:
    target = path.with_name("target-elsewhere")
    target.write_bytes(b"secret")
    path.symlink_to(target)


@pytest.mark.parametrize("put", [*NO_FILES.values(), put_link])
@pytest.mark.parametrize("which", ["run.json", "unit", "observations.parquet", "attention"])
def test_a_file_that_is_none_is_refused(folder, measured, put, which):
    file = {
        "run.json": folder / "run.json",
        "unit": unit_paths(folder)[0],
        "observations.parquet": folder / "observations.parquet",
        "attention": next(folder.glob("arrays/*/*.safetensors")),
    }[which]
    file.unlink()
    put(file)
    said, findings = looked_at(folder)
    if which in ("run.json", "unit"):
        assert "not a regular file" in said or "is damaged" in said
    assert which == "observations.parquet" or findings


@pytest.mark.parametrize("put", [put_pipe, put_link, put_device])
def test_a_sweep_sets_aside_a_unit_that_is_none_and_leaves_its_target(measured, folder, put):
    unit = unit_paths(folder)[0]
    unit.unlink()
    put(unit)
    outcome = sweep(measured[0], CONFIG, out=folder.parent)
    assert (outcome.measured, [file.name for file in outcome.set_aside]) == (1, [f"{unit.name}.damaged"])
    assert put is not put_link or unit.with_name("target-elsewhere").read_bytes() == b"secret"
    assert verify(folder).findings == ()


@pytest.mark.parametrize("which", ["units", "arrays"])
def test_a_sweep_writes_through_no_link(measured, folder, tmp_path, which):
    shutil.rmtree(folder / which)
    (tmp_path / "elsewhere").mkdir()
    (folder / which).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ByroteError, match="is a symbolic link"):
        sweep(measured[0], CONFIG, out=folder.parent)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_units_that_do_not_go_together_are_a_refusal(folder):
    (folder / "observations.parquet").unlink()
    table = read_unit(unit_paths(folder)[0])
    for said in ({"probes": [1]}, {"probes": {"sink": "x"}}, {"plugins": 3}):
        write_unit(unit_paths(folder)[0], table, said)
        assert "damaged" in "".join(verify(folder).findings)
    odd = table.set_column(4, "metric", pa.array(["x"] * len(table)))
    write_unit(unit_paths(folder)[0].with_name("odd.00000000.parquet"), pa.concat_tables([odd] * 3), {})
    looked_at(folder)


@pytest.mark.parametrize("which", ["units", "step", "arrays"])
def test_a_folder_that_is_a_link_is_not_followed(folder, tmp_path, which):
    place = {
        "units": folder / "units",
        "step": folder / "units" / "step_00000008",
        "arrays": folder / "arrays",
    }[which]
    shutil.move(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    said, findings = looked_at(folder)
    assert which == "arrays" or "is a symbolic link" in said
    assert any("link" in line for line in findings)


VALUES: tuple[Any, ...] = (
    "x",
    "9" * 5000,
    [],
    [[1]],
    {},
    {"a": [None]},
    True,
    -1,
    1.5,
    10**30,
    [None],
    [10**12],
    ["x", 3],
)


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, the first of long lists alone."""
    yield way
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    )
    for key, one in inner:
        yield from places(one, (*way, key))


def test_run_json_may_say_anything_and_no_reader_fails(folder):
    """Every field replaced by every kind of value: refused by name, or read without a fault."""
    whole = read_run_json(folder) | {
        "gaps": [{"step": 99, "path": "p", "reason": "r", "help": "h"}],
        "lint": {"facts": [], "left_out": {"8": "why"}},
        "refused_stimuli": {"natural": "none"},
        "notes": ["n"],
        "plugins": [{"name": "mine", "kind": "head"}],
    }
    n_refused = 0
    for i, way in enumerate(sorted(places(whole), key=str)):
        if not way or way[0] in ("seal", "sealed"):
            continue
        value = VALUES[i % len(VALUES)]
        changed = json.loads(json.dumps(whole))
        inner = changed
        for key in way[:-1]:
            inner = inner[key]
        inner[way[-1]] = value
        write_run_json(folder, changed)
        try:
            read(folder)
        except ByroteError as error:
            assert "run.json" in error.message or "schema" in error.message, (way, value)
            n_refused += 1
    assert n_refused > 30


@pytest.mark.parametrize("field", [name for name in FIELDS if name not in ("plugins[]", "sealed")])
def test_every_field_is_checked(folder, field):
    """A value of no kind that any field has."""
    meta = read_run_json(folder)
    inner: Any = meta
    *outer, last = field.split(".")
    for part in outer:
        name = part.removesuffix("[]")
        if part.endswith("[]"):
            inner[name] = [{}]
            inner = inner[name][0]
        else:
            inner[name] = inner.get(name) or {}
            inner = inner[name]
    name = last.partition("[")[0].partition("{")[0]
    wrong: Any = [[]] if last.endswith("[]") else {"8": []} if last.endswith("}") else []
    inner[name] = wrong
    write_run_json(folder, meta)
    with pytest.raises(ByroteError, match=r"run\.json cannot be used|results schema"):
        Results.open(folder)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[" * 100_000, "nested"),
        (b'{"schema": 1, "run": ' + b"[" * 70 + b"]" * 70 + b"}", "nested"),
        (b'{"schema": 1, "run": "a", "series": {"n_checkpoints": 1' + b"0" * 5000 + b"}}", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"null", "no JSON object"),
        (b'{"schema": 1}', "it has no run"),
        (b'{"schema": 1, "run": "a", "series": {"loss_nats": {"0": Infinity}}}', 'series.loss_nats."0" is Infinity, not a number'),
        (b'{"schema": 1, "run": "a", "gaps": [{"step": "8"}]}', "gaps[0].step is the text"),
    ],
)  # fmt: skip
def test_run_json_that_is_none(folder, data, words):
    (folder / "run.json").write_bytes(data)
    assert words in looked_at(folder)[0]


def test_run_json_of_two_gigabytes_is_not_read(folder):
    os.truncate(folder / "run.json", 2 << 30)
    assert "at most 67,108,864 are read" in looked_at(folder)[0]


def constant(n: int, schema: pa.Schema, **values: Any) -> pa.Table:
    """A table of one row over and over."""
    row = {"run": "tiny", "step": 0, "probe": "prefix_matching", "metric": "score", "value": 0.5, "lo": 0.5, "hi": 0.5,
           "chance": 0.0, "n": 8, "valid": True, "reason": "", "samples": [], "layer": 0, "head": 0}  # fmt: skip
    columns = {}
    for field in schema:
        value = (row | values).get(field.name)
        columns[field.name] = (
            pa.repeat(pa.scalar(value, field.type), n) if value is not None else pa.nulls(n, field.type)
        )
    return pa.table(columns, schema=schema)


ODD: dict[str, Callable[[pa.Schema], pa.Table]] = {
    "other columns": lambda schema: pa.table({"a": [1]}),
    "another kind": lambda schema: constant(1, schema).set_column(1, "step", pa.array(["x"])),
    "nested": lambda schema: constant(1, schema).set_column(1, "step", pa.array([[[1]]])),
    "many columns": lambda schema: pa.table({f"c{i}": [0] for i in range(5000)}),
    "without a step": lambda schema: constant(1, schema, step=None),
    "a layer of 10^12": lambda schema: constant(1, schema, layer=10**12),
    "a head below 0": lambda schema: constant(1, schema, head=-1),
    "a long word": lambda schema: constant(1, schema, reason="x" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("which", ["unit", "observations.parquet"])
def test_a_parquet_file_of_another_kind(folder, odd, which):
    """A unit is refused; odd observations are too, or derived from the units instead."""
    schema = UNIT_SCHEMA if which == "unit" else OBSERVATION_SCHEMA
    file = unit_paths(folder)[0] if which == "unit" else folder / which
    before = None if which == "unit" else Results.open(folder).frame
    kept = {
        k: v for k, v in (pq.ParquetFile(file).metadata.metadata or {}).items() if k in (b"byrote.units",)
    }
    pq.write_table(ODD[odd](schema).replace_schema_metadata(kept), file)
    said, findings = looked_at(folder)
    assert findings
    if before is None:
        assert "damaged" in said
    else:
        assert said.endswith("it is damaged, or was not written by byrote") or Results.open(
            folder
        ).frame.equals(before)


def test_millions_of_rows_in_a_small_file_are_not_read(folder, monkeypatch):
    monkeypatch.setattr("byrote.probes.results.parquet_files.MAX_ROWS", 50_000)
    pq.write_table(constant(60_000, OBSERVATION_SCHEMA), folder / "observations.parquet", compression="zstd")
    assert (folder / "observations.parquet").stat().st_size < 20_000
    frame = Results.open(folder).frame
    assert 0 < len(frame) < 10_000
    assert any("promises 60,000 rows" in line for line in verify(folder).findings)


def test_a_stored_vocabulary_of_a_million_million_ids_is_drawn_anew(measured, folder):
    series, _ = measured
    sweep(series, CONFIG, out=folder.parent)
    for vocabulary in ({"ids": [[0, 10**12]]}, {"ids": [[5, 10**6]]}, {"ids": [[0, 20]], "bos": 10**12}):
        meta = read_run_json(folder)
        meta["vocabulary"] |= vocabulary
        write_run_json(folder, meta)
        outcome = sweep(series, CONFIG, out=folder.parent)
        assert (outcome.measured, outcome.gaps) == (0, [])


def test_arrays_that_lie_about_their_size(folder):
    file = next(folder.glob("arrays/*/*.safetensors"))
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert any("saved attention cannot be read" in line for line in verify(folder).findings)
    file.write_bytes((1 << 62).to_bytes(8, "little") + np.zeros(4, np.uint8).tobytes())
    assert any("saved attention cannot be read" in line for line in verify(folder).findings)


def test_a_stored_description_of_a_probe_may_say_anything():
    whole = to_json(REGISTRY["prefix_matching"]) | {"name": "mine", "plugin": {"name": "mine.py"}}
    n_refused = 0
    for field in whole:
        for value in VALUES:
            info = from_json(json.loads(json.dumps(whole | {field: value})))
            n_refused += info is None
            if info is not None:
                assert (info.unit_of("score"), info.better_of("score")) is not None
                assert all(
                    isinstance(text, str) and len(text) <= 500
                    for text in (info.unit, info.summary, info.chance)
                )
                assert hash(info.stimuli) is not None and info.main_metric in info.metrics
    assert n_refused >= 3 * len(VALUES)  # name, kind, metrics
