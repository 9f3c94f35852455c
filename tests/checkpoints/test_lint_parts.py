"""The parts of linting on values worked out by hand: number types, grids, labels, what is kept beside the series."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drifting_series import EVEN_STEPS, drift, write_series
from pickled_files import hf_state, write_config, write_dcp
from safetensors.torch import load_file, save_file
from tiny_models import tiny_hf_model

from byrote.checkpoints import Checkpoint, CheckpointSeries, open_series
from byrote.checkpoints.lint import Fact, LintReport, lint, lint_path, read_lint, write_lint
from byrote.checkpoints.lint.copies import genuine
from byrote.checkpoints.lint.grid import find_grids, grid_facts
from byrote.checkpoints.lint.report import in_order
from byrote.checkpoints.lint.scan import RESOLUTION, Scanner, as_floats, words

TORCH_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@pytest.mark.parametrize("dtype", RESOLUTION)
def test_stored_numbers_are_what_torch_reads(dtype: str) -> None:
    width = torch.empty(0, dtype=TORCH_TYPES[dtype]).element_size()
    if width <= 2:  # every bit pattern there is
        raw = np.arange(2 ** (8 * width)).astype(f"<u{width}").view(np.uint8)
    else:
        numbers = np.array([0.0, -0.0, 1.5, -3e-5, 7e20, np.inf, -np.inf, np.nan])
        raw = numbers.astype(f"<f{width}").view(np.uint8)
    expected = torch.from_numpy(raw.copy()).view(TORCH_TYPES[dtype]).double().numpy()
    found = as_floats(words(raw, dtype), dtype)
    assert found.dtype == (np.float64 if dtype == "F64" else np.float32)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found.astype(np.float64), expected)


@pytest.mark.parametrize(
    ("steps", "missing", "beyond", "off"),
    [
        ([0, 1, 2, 4, 8, 16, 32, 64, 100, 200, 300, 400, 500], [], [], []),
        ([0, 1, 2, 4, 8, 32, 64, 100, 200, 300, 400, 500], [16], [], []),
        ([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 9000, 1000)], [], [], []),
        ([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, *range(1000, 9000, 1000)], [], [512], []),
        ([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(2000, 9000, 1000)], [], [1000], []),
        ([0, 100, 200, 300, 500, 600, 700, 800], [400], [], []),
        ([0, 100, 200, 300, 400, 430, 500, 600], [], [], [430]),
        ([0, 100, 200, 300, 400, 600], [], [500], []),
        ([0, 200, 300, 400, 500, 600], [], [100], []),
        ([0, 100, 200, 300, 400, 450], [], [], []),
        ([*range(0, 100, 10), *range(100, 1001, 100)], [], [], []),
        ([*range(0, 90, 10), *range(100, 1001, 100)], [], [90], []),
        ([100, 200, 300, 400, 500, 700, 900, 1100, 1300, 1500], [], [], []),
        ([0, 3, 10, 31, 100, 316, 1000], [], [], []),
        ([*range(40)], [], [], []),
        ([7], [], [], []),
    ],
)
def test_holes_and_strays_of_grids(
    steps: list[int], missing: list[int], beyond: list[int], off: list[int]
) -> None:
    grids = find_grids(steps)
    for name, expected in (("missing", missing), ("beyond", beyond), ("off", off)):
        assert [s for grid in grids for s in getattr(grid, name)] == expected, (name, grids)


def test_a_schedule_that_is_known_is_not_guessed() -> None:
    facts = grid_facts([0, 1, 5, 6, 7, 8, 9, 11], scheduled=[0, 1, 3, 9, 11])
    assert [(f.kind, f.severity, f.steps) for f in facts] == [("missing_steps", "warning", (3,))]
    assert grid_facts([0, 50], scheduled=[0, 50]) == []


def test_lab_series_is_held_to_the_schedule_in_its_manifest(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "run", "native", drift("native", (0, 7, 9, 30)))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["schedule"] = [0, 7, 9, 20, 30, 40]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert lint(open_series(folder)).of("missing_steps")[0].steps == (20, 40)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    assert lint(open_series(folder)).of("missing_steps")[0].steps == (20,)


def _on_a_line(where: list[float]) -> Callable[[int, int], float]:
    return lambda i, j: abs(where[i] - where[j])


@pytest.mark.parametrize(
    ("members", "where", "expected"),
    [
        ([3, 4], [0, 1, 2, 3, 3, 5, 6], 3),  # 4 repeats 3
        ([3, 4], [0, 1, 2, 4, 4, 5, 6], 4),  # 3 repeats 4
        ([1, 5], [0, 1, 2, 3, 4, 1, 6], 1),
        ([1, 5], [0, 5, 2, 3, 4, 5, 6], 5),
        ([2, 3, 6], [0, 1, 6, 6, 4, 5, 6], 6),  # final weights in the middle
        ([2, 6], [0, 1, 2, 3, 4, 5, 2], 2),  # the final step is an early one
        ([2, 4], [0, 1, 9, 3, 9, 5, 6], None),  # fits neither label
        ([0, 1, 2], [4, 4, 4], None),  # nothing to compare with
    ],
)
def test_the_label_that_fits_shared_weights(
    members: list[int], where: list[float], expected: int | None
) -> None:
    steps = [100 * k for k in range(len(where))]
    assert genuine(members, steps, _on_a_line(where)) == expected


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_very_short_series(n_steps: int, tmp_path: Path) -> None:
    steps = EVEN_STEPS[:n_steps]
    report = lint(open_series(write_series(tmp_path / "run", "llama", drift("llama", steps))))
    assert report.steps == report.usable_steps == steps
    assert report.clean


def test_a_series_of_one_repeated_step_has_no_usable_step(tmp_path: Path) -> None:
    state = drift("llama", (0,))[0]
    report = lint(open_series(write_series(tmp_path / "run", "llama", dict.fromkeys(EVEN_STEPS, state))))
    assert [f.steps for f in report.facts if f.severity == "error"] == [EVEN_STEPS]
    assert report.usable_steps == ()
    assert len(set(report.fingerprints.values())) == 1


def test_unrelated_steps_are_said_to_be_so(tmp_path: Path) -> None:
    states = {step: drift("llama", (0, 9), seed=step)[9] for step in EVEN_STEPS}
    report = lint(open_series(write_series(tmp_path / "run", "llama", states)))
    assert [f.kind for f in report.facts if f.severity != "note"] == ["unrelated_steps"]


def test_first_updates_without_effect_are_a_note(tmp_path: Path) -> None:
    states = drift("llama", (0, 1, 2, 4, 8, 16, 32, 64))
    states[1] = states[2] = states[0]
    report = lint(open_series(write_series(tmp_path / "run", "llama", states)))
    assert report.clean
    assert [f.steps for f in report.of("identical_steps")] == [(0, 1, 2)]


def test_constant_buffers_may_hold_infinity_and_integers(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "run", "gpt_neox", drift("gpt_neox", EVEN_STEPS))
    for file in folder.glob("step*/model.safetensors"):
        mask = torch.full((8, 8), -math.inf).triu(1)
        save_file({**load_file(file), "mask": mask, "ids": torch.arange(5)}, file)
    assert lint(open_series(folder)).clean


@pytest.mark.parametrize("arch", ["gpt_neox", "llama"])
def test_a_planned_change_is_told_from_an_exception(arch: str, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "run", arch, drift(arch, EVEN_STEPS))
    for step in (900, 1000, 1100, 1200):
        config = json.loads((folder / f"step{step}" / "config.json").read_text())
        config |= {"max_position_embeddings": 128, "transformers_version": "0.0"}
        (folder / f"step{step}" / "config.json").write_text(json.dumps(config))
    planned, versions = lint(open_series(folder)).of("config_change")
    assert (planned.severity, planned.steps, planned.usable) == ("warning", (900, 1000, 1100, 1200), True)
    assert planned.evidence == {"max_position_embeddings": {"here": "128", "usual": "64"}}
    assert versions.severity == "note"


def test_pickled_weights_are_linted_without_torch(tmp_path: Path, run_prepared: Callable[..., str]) -> None:
    states = drift("llama", EVEN_STEPS)
    states[600], states[700] = states[700], states[600]
    states[1000] = {**states[1000], "lm_head.weight": states[300]["lm_head.weight"]}
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(tiny_hf_model("llama", seed=0).config.to_json_string())
    for step, state in states.items():
        tensors = {name: torch.from_numpy(value) for name, value in state.items()}
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].T.contiguous().T
        torch.save(tensors, folder / f"step_{step}.pt")
    code = (
        "import json, sys; from byrote.checkpoints import open_series; from byrote.checkpoints.lint import lint\n"
        "report = lint(open_series(sys.argv[1]))\n"
        "print(json.dumps([[f.kind, f.steps] for f in report.facts if f.severity != 'note']))\n"
        "assert 'torch' not in sys.modules"
    )
    told = json.loads(run_prepared(code, str(folder)))
    assert told == [["tensors_from_other_step", [300, 1000]], ["swapped_steps", [600, 700]]]


def test_large_tensors_are_sampled_the_same_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import byrote.checkpoints.lint.scan as scanning

    folder = write_series(tmp_path / "run", "llama", drift("llama", EVEN_STEPS))
    series = open_series(folder)
    monkeypatch.setattr(scanning, "MAX_PER_TENSOR", 100)
    scanner = Scanner(len(series))
    first, second = scanner.scan(series[0]), Scanner(len(series)).scan(series[0])
    assert {len(v) for v in first.samples.values()} <= {32, *range(80, 101)}
    for name, taken in first.samples.items():
        np.testing.assert_array_equal(taken, second.samples[name])
        whole = load_file(series[0].files[0])[name].numpy().ravel()
        assert set(taken.tolist()) <= set(whole.tolist())
        assert first.norms[name] == pytest.approx(float(np.linalg.norm(whole)), rel=1e-6)
    assert lint(series).clean


def test_every_kind_of_file_gives_the_same_numbers(tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in hf_state("gpt2", 3).items()}
    found = {}
    for kind in ("safetensors", "pickled", "distributed"):
        folder = tmp_path / kind
        folder.mkdir()
        write_config(folder, "gpt2")
        if kind == "safetensors":
            save_file(state, folder / "step_5.safetensors")
        elif kind == "pickled":
            torch.save({"model": state}, folder / "step_5.pt")
        else:
            write_dcp(folder / "step_5", state)
        series = open_series(folder)
        found[kind] = Scanner(len(series)).scan(series[0])
    for name, tensor in state.items():
        for scan in found.values():
            assert scan.tensors[name].shape == tuple(tensor.shape)
            np.testing.assert_array_equal(
                scan.samples[name], tensor.numpy().ravel()[: len(scan.samples[name])]
            )
        assert len({scan.hashes[name] for scan in found.values()}) == 1


class _Far:
    """A source that says how often each step was fetched and released."""

    def __init__(self, real: CheckpointSeries) -> None:
        self.real, self.fetched, self.released = real, [], []

    def fetch(self, checkpoint: Checkpoint) -> Checkpoint:
        self.fetched.append(checkpoint.step)
        return self.real.at(checkpoint.step)

    def release(self, checkpoint: Checkpoint) -> None:
        self.released.append(checkpoint.step)


def test_steps_from_afar_are_fetched_once_and_released(tmp_path: Path) -> None:
    real = open_series(write_series(tmp_path / "run", "llama", drift("llama", EVEN_STEPS)))
    source = _Far(real)
    far = tuple(replace(c, files=(), config_path=None, source=source) for c in real)
    report = lint(replace(real, checkpoints=far))
    assert source.fetched == source.released == list(EVEN_STEPS)
    assert report.fingerprints == lint(real).fingerprints


def test_facts_are_listed_worst_first() -> None:
    facts = [
        Fact("jump", "note", (1,), "x."),
        Fact("jump", "error", (9,), "x."),
        Fact("jump", "warning", (2,), "x."),
        Fact("jump", "error", (3,), "x."),
    ]
    assert [(f.severity, f.steps[0]) for f in in_order(facts)] == [
        ("error", 3),
        ("error", 9),
        ("warning", 2),
        ("note", 1),
    ]


def test_events_count_the_steps(tmp_path: Path) -> None:
    events: list[dict[str, object]] = []
    lint(
        open_series(write_series(tmp_path / "run", "llama", drift("llama", (0, 5, 9)))),
        on_event=events.append,
    )
    assert [(e["event"], e["done"], e["total"], e["step"]) for e in events] == [
        ("checkpoint", 1, 3, 0),
        ("checkpoint", 2, 3, 5),
        ("checkpoint", 3, 3, 9),
    ]


# --- what is kept beside the series ----------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, LintReport]:
    """A series with a doubled step, and its report, written."""
    states = drift("llama", EVEN_STEPS)
    states[500] = states[400]
    folder = write_series(tmp_path / "run", "llama", states)
    series = open_series(folder)
    report = lint(series)
    assert write_lint(series, report) == lint_path(series) == tmp_path / "run.lint.json"
    return folder, report


def test_report_is_read_back_as_written(kept: tuple[Path, LintReport]) -> None:
    folder, report = kept
    found = read_lint(open_series(folder))
    assert found is not None
    assert found.left_out == report.left_out == {500: "identical steps"}
    assert [f.to_json() for f in found.facts] == [f.to_json() for f in report.facts]
    assert (found.fingerprints, found.steps) == (report.fingerprints, report.steps)
    written = json.loads(lint_path(open_series(folder)).read_text())
    assert written["usable_steps"] == [s for s in EVEN_STEPS if s != 500]


def test_report_holds_for_a_part_of_the_series(kept: tuple[Path, LintReport]) -> None:
    part = open_series(kept[0])[2:7]
    assert read_lint(part) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: os.utime(folder / "step300/model.safetensors", ns=(1, 1)),
        lambda folder: (folder / "step300/config.json").write_text("{ }"),
        lambda folder: (folder / "step300/tokenizer.json").unlink(),
        lambda folder: (folder / "step1200").rename(folder / "step1250"),
    ],
    ids=["weights", "config", "tokenizer", "a new step"],
)
def test_report_on_other_files_is_stale(
    kept: tuple[Path, LintReport], change: Callable[[Path], None]
) -> None:
    folder, _ = kept
    series = open_series(folder)
    change(folder)
    if (folder / "step1250").exists():
        series = open_series(folder)
    assert read_lint(series) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": "byrote-lint", "version": 99}', "[" * 100_000, "\udcff"],
    ids=range(6),
)
def test_report_that_cannot_be_read_is_none(kept: tuple[Path, LintReport], text: str) -> None:
    series = open_series(kept[0])
    lint_path(series).write_bytes(text.encode(errors="surrogateescape"))
    assert read_lint(series) is None


@pytest.mark.parametrize(
    ("name", "value"), [("kind", "made_up"), ("severity", "fatal"), ("steps", ["0"]), ("leave_out", [True])]
)
def test_report_with_strange_facts_is_none(kept: tuple[Path, LintReport], name: str, value: object) -> None:
    series = open_series(kept[0])
    data = json.loads(lint_path(series).read_text())
    data["facts"][0][name] = value
    lint_path(series).write_text(json.dumps(data))
    assert read_lint(series) is None


def test_report_is_not_kept_where_nothing_can_be_written(kept: tuple[Path, LintReport]) -> None:
    folder, report = kept
    series = open_series(folder)
    lint_path(series).unlink()
    lint_path(series).mkdir()  # also root cannot replace a folder by a file
    assert write_lint(series, report) is None
    assert sorted(p.name for p in folder.parent.iterdir()) == ["run", "run.lint.json"]
    assert read_lint(series) is None


def test_facts_are_sorted_and_summed_up() -> None:
    facts = (
        Fact("non_finite", "error", (3,), "x.", leave_out=(3,)),
        Fact("identical_steps", "error", (3, 5), "x.", leave_out=(3,)),
        Fact("dtype_change", "warning", (7,), "x."),
    )
    report = LintReport("run", (1, 3, 5, 7), facts)
    assert report.usable_steps == (1, 5, 7)
    assert report.left_out == {3: "non finite, identical steps"}
    assert (report.severity, report.clean) == ("error", False)
    assert LintReport("run", (1,), ()).severity is None
    assert Fact("jump", "note", (1,), "x.", {"a": float("nan"), "b": np.float32(1.5)}).to_json()[
        "evidence"
    ] == {
        "a": None,
        "b": 1.5,
    }
