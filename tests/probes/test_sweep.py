"""The sweep: what is measured again, what is not, and what is said of what could not be measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import BASIC_PROBES, lab_state

from byrote.checkpoints import ByroteError, CheckpointError, open_series
from byrote.interp.observe import _Engine
from byrote.probes.registry import REGISTRY, resolve
from byrote.probes.results import Results
from byrote.probes.results import run_json as store
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import open_run_folder
from byrote.probes.sweep.plan import groups
from byrote.probes.sweep.run import SweepOutcome, sweep

UNITS = 5  # of the basic probes: repeated, shuffled, jittered, paragraph copies, weights
FEW = ("prefix_matching", "previous_token")


@pytest.fixture
def series(lab_series):
    return open_series(lab_series((0, 8, 64)))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results"


def run(series, out, *, probes=BASIC_PROBES, seed=0, **options) -> SweepOutcome:
    return sweep(series, SweepConfig(probes=probes, seed=seed, n_seq=4), out=out, **options)


def counts(outcome: SweepOutcome) -> tuple[int, int, int]:
    return outcome.measured, outcome.reused, outcome.superseded


def rewrite(series, step: int, edit) -> None:
    (file,) = series.at(step).files
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


def test_the_embedding_is_read_for_untrained_ids_only_where_a_number_depends_on_the_ids(
    series, out, monkeypatch
):
    looked = []
    monkeypatch.setattr("byrote.probes.sweep.stimulus_set.untrained_in", lambda *of: looked.append(of) or {5})

    def looked_for(*probes: str, fresh: bool = False) -> tuple[bool, int]:
        outcome = run(series, out, probes=probes, fresh=fresh)
        return outcome.results.meta["vocabulary"].get("trained", True), len(looked)

    assert looked_for("composition") == looked_for("composition") == (False, 0)
    assert looked_for("prefix_matching", "composition") == (True, 1)
    assert looked_for("composition") == (True, 1)  # the ids that the folder has
    assert looked_for("ov_copying", fresh=True) == (True, 2)


def test_everything_asked_for_is_measured_and_complete(series, out):
    events = []
    outcome = run(series, out, on_event=events.append)
    assert counts(outcome) == (3 * UNITS, 0, 0)
    assert (outcome.gaps, outcome.interrupted, outcome.path) == ([], False, out / "tiny")
    assert [(e["event"], e["done"], e["total"], e["step"], e["measured"]) for e in events] == [
        ("checkpoint", 1, 3, 0, UNITS), ("checkpoint", 2, 3, 8, UNITS), ("checkpoint", 3, 3, 64, UNITS),
    ]  # fmt: skip
    results = outcome.results
    assert results.steps == [0, 8, 64]
    assert set(results.frame["probe"]) == {
        *BASIC_PROBES,
        "prefix_aggregates",
    }  # which follow from prefix_matching
    assert results.meta["status"] == "complete"
    assert {s["kind"] for s in results.meta["stimuli"]} == {
        "repeated_random", "shuffled_repeat", "jittered_repeat", "paragraph_copies",
    }  # fmt: skip
    keys = ["step", "probe", "metric", "layer", "head", "position"]
    assert not results.frame.duplicated(keys).any()
    assert (results.frame["valid"] | (results.frame["reason"] != "")).all()


def test_all_probes_of_the_catalogue_by_default(series, out):
    outcome = sweep(series[:1], SweepConfig(n_seq=4), out=out)
    default = resolve(None)
    assert (outcome.measured, outcome.gaps) == (len(groups(default)), [])
    frame = outcome.results.frame
    assert set(frame["probe"]) == {info.name for info in default}
    assert (frame["valid"] | (frame["reason"] != "")).all()


def test_probes_that_share_a_stimulus_share_its_pass(series, tmp_path, monkeypatch):
    """One probe or every default one: as many passes as stimuli."""
    shown, run_batch = [], _Engine.run

    def counted(engine, tokens, rows, report):
        shown.append(tokens.shape)
        run_batch(engine, tokens, rows, report)

    monkeypatch.setattr(_Engine, "run", counted)
    every = [
        i.name for i in resolve(None) if i.kind in ("head", "model") and i.stimuli[0] == "repeated_random"
    ]
    assert len(every) > 8
    alone = [name for name in every if len(REGISTRY[name].stimuli) == 1]
    for probes, stimuli in ((["sink"], 1), (alone, 1), (every, 3)):
        shown.clear()
        run(series[:1], tmp_path / str(len(probes)), probes=tuple(probes))
        assert len(shown) == stimuli  # prefix_matching and repeat_loss are read on nulls as well


def test_the_same_command_again_measures_nothing_and_loads_no_model(series, out, monkeypatch):
    first = run(series, out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    monkeypatch.setattr("byrote.interp.bridge.load_fresh", lambda *a, **k: pytest.fail("a model was loaded"))
    again = run(series, out)
    assert counts(again) == (0, 3 * UNITS, 0)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")} == before
    assert again.results.frame.equals(first.results.frame)


def test_adding_a_probe_measures_that_one_alone(series, out):
    run(series, out, probes=FEW)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("step_*/*.parquet")}
    outcome = run(series, out, probes=(*FEW, "duplicate_token"))
    assert counts(outcome)[0] == 3
    assert {p: p.stat().st_mtime_ns for p in before} == before
    frame = outcome.results.frame
    assert set(frame["probe"]) == {*FEW, "prefix_aggregates", "duplicate_token"}
    assert frame.equals(run(series, out.with_name("other"), probes=(*FEW, "duplicate_token")).results.frame)


def test_run_json_describes_the_whole_folder_after_a_sweep_of_one_probe_at_one_step(series, out):
    (broken,) = series.at(8).files
    whole = broken.read_bytes()
    broken.write_bytes(b"broken")
    run(series, out, probes=(*FEW, "exact_match"))
    before = store.read_run_json(out / "tiny")
    assert before["refused_stimuli"].keys() == {"members", "twins"} and before["status"] == "partial"
    after = run(series.select("last"), out, probes=("ablation",)).results.meta
    assert after.pop("probes") == [{"name": "ablation", "version": 2}, *before.pop("probes")]
    assert after.pop("seal") != before.pop("seal") and after == before
    broken.write_bytes(whole)
    complete = run(series, out, probes=FEW).results.meta
    assert (complete["gaps"], complete["status"]) == ([], "complete")


def test_a_probe_of_several_stimuli_stays_when_a_later_sweep_shows_only_some_of_them(series, out):
    """load_bearing reads three kinds of repeated tokens, previous_token one of them, and ov_copying none."""
    first = run(series, out, probes=("load_bearing",))
    stored = sorted(path.name for path in out.rglob("repeated_random+load_bearing*.parquet"))
    assert stored and first.superseded == 0
    assert run(series, out, probes=("previous_token",)).superseded == 0
    assert run(series, out, probes=("ov_copying",)).superseded == 0
    assert sorted(path.name for path in out.rglob("repeated_random+load_bearing*.parquet")) == stored
    assert counts(run(series, out, probes=("load_bearing",)))[0] == 0


def test_verdicts_bring_the_probes_they_need(series, out):
    frame = run(series, out, probes=("induction",)).results.frame
    needed = {"prefix_matching", "copying_logit", "sink", "induction_dla"}
    assert set(frame["probe"]) == {*needed, "prefix_aggregates", "induction"}
    assert len(frame[(frame["probe"] == "induction") & (frame["metric"] == "verdict")]) == 3 * 2 * 4


def test_a_later_checkpoint_is_added(series, out):
    run(series[:2], out, probes=FEW)
    outcome = run(series, out, probes=FEW)
    assert counts(outcome) == (3, 2 * 3, 0)
    assert outcome.results.steps == [0, 8, 64]


def test_changed_weights_supersede_that_step_alone(series, out):
    first = run(series, out).results.frame
    rewrite(series, 8, lambda tensors: tensors["head.weight"].mul_(2))
    outcome = run(series, out)
    assert counts(outcome) == (UNITS, 2 * UNITS, UNITS)
    second = outcome.results.frame
    same = first.set_index(["step", "probe", "metric", "layer", "head", "position"])["value"]
    now = second.set_index(["step", "probe", "metric", "layer", "head", "position"])["value"]
    assert not second.duplicated(["step", "probe", "metric", "layer", "head", "position"]).any()
    assert now.loc[[0, 64]].equals(same.loc[[0, 64]])
    assert not now.loc[[8]].equals(same.loc[[8]])


def test_touched_files_with_the_same_numbers_are_not_measured_again(series, out):
    run(series, out, probes=FEW)
    rewrite(series, 8, lambda tensors: None)
    assert counts(run(series, out, probes=FEW)) == (0, 9, 0)


def test_another_seed_measures_everything_again(series, out):
    first = run(series, out, probes=FEW).results.frame
    outcome = run(series, out, probes=FEW, seed=1)
    assert counts(outcome) == (9, 0, 9)
    assert len(outcome.results.frame) == len(first)
    assert not outcome.results.frame["value"].equals(first["value"])
    assert outcome.results.meta["provenance"]["seed"] == 1


def test_another_library_version_measures_everything_again(series, out):
    config = SweepConfig(probes=FEW, n_seq=4)
    sweep(series, config, out=out)
    newer = SweepConfig(probes=FEW, n_seq=4, versions={**config.versions, "torch": "99.0"})
    assert counts(sweep(series, newer, out=out)) == (9, 0, 9)


@pytest.mark.parametrize(
    "damage",
    [lambda p: p.write_bytes(p.read_bytes()[:-20]), lambda p: p.write_bytes(b""), lambda p: p.unlink()],
)
def test_a_damaged_unit_is_measured_again(series, out, damage):
    first = run(series, out, probes=FEW)
    whole = (first.path / "observations.parquet").read_bytes()
    damage(sorted((first.path / "units" / "step_00000008").glob("repeated_random.*"))[0])
    outcome = run(series, out, probes=FEW)
    assert (outcome.measured, outcome.gaps) == (1, [])
    assert (outcome.path / "observations.parquet").read_bytes() == whole


def test_observations_are_derived_again_when_they_are_missing(series, out):
    first = run(series, out, probes=FEW)
    file = first.path / "observations.parquet"
    whole = file.read_bytes()
    file.unlink()
    assert Results.open(first.path).frame.equals(first.results.frame)
    assert not file.exists()  # readers never write
    run(series, out, probes=FEW)
    assert file.read_bytes() == whole


def test_one_sweep_at_a_time(series, out):
    with open_run_folder(out, series, fresh=False) as folder:
        for fresh in (False, True):
            with pytest.raises(ByroteError, match="another sweep is writing to"):
                run(series, out, probes=FEW, fresh=fresh)
            assert folder.is_dir()
    assert run(series, out, probes=FEW).measured == 9


def test_fresh_starts_over_but_never_deletes_what_is_not_ours(series, out):
    first = run(series, out, probes=FEW)
    assert counts(run(series, out, probes=FEW, fresh=True)) == (9, 0, 0)
    (first.path / "thesis.docx").write_text("years of work")
    with pytest.raises(ByroteError, match=r"holds files byrote did not write \(thesis.docx\)"):
        run(series, out, probes=FEW, fresh=True)
    assert (first.path / "thesis.docx").read_text() == "years of work"
    assert (first.path / "observations.parquet").is_file()


def test_a_series_that_was_copied_goes_on_and_another_of_its_name_is_refused(
    series, out, tmp_path, monkeypatch
):
    first = run(series[:2], out, probes=FEW)
    (tmp_path / "elsewhere").mkdir()
    copied = shutil.copytree(series.path, tmp_path / "elsewhere" / "tiny")
    assert counts(run(open_series(copied), out, probes=FEW)) == (3, 6, 0)
    assert Results.open(first.path).series_place == copied
    monkeypatch.chdir(copied.parent)
    assert counts(run(open_series("tiny"), Path("../results"), probes=FEW)) == (0, 9, 0)
    rewrite(series, 64, lambda tensors: tensors["head.weight"].mul_(2))
    with pytest.raises(ByroteError, match="is another: at step 64 these have different weights"):
        run(series, out, probes=FEW)
    with pytest.raises(ByroteError, match="none of its 3 steps is among those given"):
        run(series[:0], out, probes=FEW)


def test_a_run_says_where_its_checkpoints_are_from_wherever_it_is_opened(series, out, tmp_path, monkeypatch):
    """The notebooks after `make demo`: results by another path than the sweep was started with."""
    monkeypatch.chdir(tmp_path)
    run(open_series("tiny"), Path("results"), probes=FEW)
    assert Results.open("results/tiny").series_shown == "tiny"
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Results.open("../results/tiny").series_place == series.path
    assert counts(run(open_series("../tiny"), Path("../results"), probes=FEW)) == (0, 9, 0)
    file = tmp_path / "results" / "tiny" / "run.json"
    meta = json.loads(file.read_text())
    meta["series"] |= {"path": "tiny"}  # as version 0.1 wrote it
    del meta["series"]["relative_to"], meta["seal"], meta["sealed"]
    file.write_text(json.dumps(meta))
    assert Results.open("../results/tiny").series_place == series.path
    assert counts(run(open_series("../tiny"), Path("../results"), probes=FEW)) == (0, 9, 0)


def test_a_checkpoint_that_cannot_be_loaded_is_a_gap_and_the_rest_is_measured(series, out):
    rewrite(series, 8, lambda tensors: tensors.pop("head.weight"))
    outcome = run(series, out, probes=FEW)
    assert outcome.measured == 6
    (gap,) = outcome.gaps
    assert (gap["step"], gap["path"]) == (8, "step_00000008")
    assert "head.weight" in gap["reason"]
    assert gap["help"]
    results = outcome.results
    assert (results.steps, results.gaps, results.meta["status"]) == ([0, 64], [gap], "partial")
    with pytest.raises(CheckpointError, match=r"head\.weight"):
        run(series, out, probes=FEW, fail_fast=True)


def test_a_first_checkpoint_that_cannot_be_loaded_is_a_gap_too(series, out):
    rewrite(series, 0, lambda tensors: tensors.pop("head.weight"))
    outcome = run(series, out, probes=FEW)
    assert ([g["step"] for g in outcome.gaps], outcome.results.steps) == ([0], [8, 64])


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("step", [0, 8, 64])
def test_files_that_vanish_after_opening_are_a_gap_of_their_step_alone(series, out, step, prefetch):
    (series.at(step).path / "model.safetensors").unlink()
    outcome = sweep(series, SweepConfig(probes=FEW, n_seq=4, prefetch=prefetch), out=out)
    assert [g["step"] for g in outcome.gaps] == [step]
    assert "can no longer be read" in outcome.gaps[0]["reason"]
    assert outcome.results.steps == [s for s in (0, 8, 64) if s != step]


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}"])
def test_a_damaged_cache_of_fingerprints_costs_only_reading(series, out, text):
    first = run(series, out, probes=FEW)
    (first.path / "fingerprints.json").write_text(text)
    assert counts(run(series, out, probes=FEW)) == (0, 9, 0)


def test_a_flipped_bit_in_the_cache_of_fingerprints_gives_no_unit_another_identity(series, out):
    cache = run(series, out, probes=FEW).path / "fingerprints.json"
    before = cache.read_bytes()
    at = before.index(b'"fingerprint": "') + 20
    cache.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
    assert counts(run(series, out, probes=FEW)) == (0, 9, 0)
    assert cache.read_bytes() == before


def test_folders_that_were_gaps_from_the_start_are_listed(series, out):
    (series.at(8).path / "model.safetensors").write_bytes(b"")
    outcome = run(open_series(series.path), out, probes=FEW)
    assert [(g["step"], g["path"]) for g in outcome.gaps] == [(8, "step_00000008")]
    assert outcome.results.steps == [0, 64]


def test_another_architecture_in_the_series_is_a_gap(hf_series, out):
    path = hf_series("llama", (0, 1))
    hf_series("llama", (2,), hidden_size=48, intermediate_size=80)
    outcome = run(open_series(path), out, probes=FEW)
    assert [g["step"] for g in outcome.gaps] == [2]
    assert "d_model 32 -> 48" in outcome.gaps[0]["reason"]
    assert outcome.results.steps == [0, 1]


def test_weights_that_are_not_finite_are_said_to_be(series, out):
    rewrite(series, 64, lambda tensors: tensors["layers.1.attn.q.weight"].fill_(float("nan")))
    outcome = run(series, out)
    frame = outcome.results.frame
    at_fault = frame[(frame["step"] == 64) & (frame["probe"] == "prefix_matching") & (frame["layer"] == 1)]
    assert not at_fault["valid"].any()
    assert at_fault["reason"].str.contains("not finite").all()
    sound = frame[(frame["step"] == 64) & (frame["probe"] == "prefix_matching") & (frame["layer"] == 0)]
    assert sound["valid"].all()
    assert frame.loc[~frame["valid"], "value"].isna().all()


def test_a_context_too_short_for_repeats_is_said_of_every_metric(lab_series, out):
    outcome = run(open_series(lab_series(1, n_ctx=4)), out)
    frame = outcome.results.frame
    heads = frame[frame["probe"] == "prefix_matching"]
    kinds = ("", "@shuffled_repeat", "@jittered_repeat")
    assert set(heads["metric"]) == {f"{name}{kind}" for name in ("score", "sink_free") for kind in kinds}
    assert heads["reason"].str.contains("cannot hold a repeated block").all()
    assert frame[frame["probe"] == "ov_copying"]["valid"].all()


def test_a_finished_sweep_asked_again_imports_no_torch(series, out, run_prepared):
    run(series, out)
    code = (
        "import sys\nfrom byrote.checkpoints import open_series\n"
        "from byrote.probes.sweep.config import SweepConfig\nfrom byrote.probes.sweep.run import sweep\n"
        "outcome = sweep(open_series(sys.argv[1]), SweepConfig(sys.argv[3:], n_seq=4), out=sys.argv[2])\n"
        "print(outcome.measured, outcome.reused, 'torch' in sys.modules, len(outcome.results.frame) > 0)"
    )
    assert run_prepared(code, str(series.path), str(out), *BASIC_PROBES) == f"0 {3 * UNITS} False True"


def test_keyboard_interrupt_keeps_what_is_finished(series, out):
    def stop(event):
        if event["done"] == 2:
            raise KeyboardInterrupt

    outcome = run(series, out, probes=FEW, on_event=stop)
    assert (outcome.interrupted, outcome.measured, outcome.results.meta["status"]) == (True, 6, "interrupted")
    assert outcome.results.steps == [0, 8]
    assert counts(run(series, out, probes=FEW)) == (3, 6, 0)


def test_hugging_face_series_and_the_way_weights_are_loaded(hf_series, out):
    """Swapped in place or loaded afresh: not one bit of the results differs."""
    series = open_series(hf_series("gpt_neox", 3))
    swapped = sweep(series, SweepConfig(BASIC_PROBES, n_seq=4), out=out)
    fresh = sweep(series, SweepConfig(BASIC_PROBES, n_seq=4, swap="fresh"), out=out.with_name("fresh"))
    assert swapped.results.meta["provenance"]["swap"] == "in place"
    assert fresh.results.meta["provenance"]["swap"] == "fresh"
    files = [o.path / "observations.parquet" for o in (swapped, fresh)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert (swapped.results.frame["value"].notna() | ~swapped.results.frame["valid"]).all()


def test_a_lower_precision_says_how_far_it_lies_from_float32(series, out):
    half = sweep(series[:1], SweepConfig(probes=FEW, n_seq=4, dtype="bfloat16"), out=out)
    exact = sweep(series[:1], SweepConfig(probes=FEW, n_seq=4), out=out.with_name("exact"))
    keys = ["probe", "metric", "layer", "head"]
    frames = (o.results.frame for o in (half, exact))
    one, other = (f[f["probe"].isin(FEW)].set_index(keys)["value"] for f in frames)  # measured, not derived
    off = (one - other).abs().groupby(["probe", "metric"])
    assert half.results.meta["drift_from_float32"] == half.drift and exact.drift == []
    assert [(r["probe"], r["metric"]) for r in half.drift] == list(off.groups)
    assert [r["max_abs"] for r in half.drift] == off.max().tolist()
    assert [r["mean_abs"] for r in half.drift] == pytest.approx(off.mean().tolist(), rel=1e-12)
    assert all(r["n"] == 8 and r["interval"] > 0 for r in half.drift)


# What a unit may still be used for, and what may stand beside it.

KEYS = ["step", "probe", "metric", "layer", "head", "position"]


def test_a_raised_probe_version_replaces_its_old_numbers(series, out, monkeypatch):
    from dataclasses import replace

    from byrote.probes import registry

    first = run(series[:1], out, probes=FEW)
    raised = replace(registry.REGISTRY["previous_token"], version=99)
    monkeypatch.setitem(registry.REGISTRY, "previous_token", raised)
    outcome = run(series[:1], out, probes=FEW)
    assert outcome.measured == 1
    frame = outcome.results.frame
    assert not frame.duplicated(KEYS).any()
    assert frame.equals(first.results.frame)


def test_a_step_never_shows_numbers_of_two_sets_of_weights(series, out):
    run(series[:1], out)
    rewrite(series, 0, lambda tensors: tensors["head.weight"].mul_(2))
    frame = run(series[:1], out, probes=("prefix_matching",)).results.frame
    assert set(frame["probe"]) == {"prefix_matching", "prefix_aggregates"}


def test_a_kill_before_the_old_unit_is_removed_leaves_one_set_of_numbers(series, out):
    run(series[:1], out, probes=("previous_token",))
    (old,) = out.glob("tiny/units/step_00000000/repeated_random.*")
    saved = old.read_bytes()
    rewrite(series, 0, lambda tensors: tensors["head.weight"].mul_(2))
    run(series[:1], out, probes=("previous_token", "duplicate_token"))
    assert not old.exists()
    old.write_bytes(saved)  # as if the kill had come between writing the new unit and removing this one
    frame = run(series[:1], out, probes=("previous_token", "duplicate_token")).results.frame
    assert not frame.duplicated(KEYS).any()


def test_fresh_after_a_kill_is_not_stopped_by_our_own_leftovers(series, out):
    first = run(series[:1], out, probes=FEW)
    for name in (".run.json.123.tmp", ".observations.parquet.123.tmp", ".fingerprints.json.123.tmp"):
        (first.path / name).write_bytes(b"half")
    assert run(series[:1], out, probes=FEW, fresh=True).measured == 3


@pytest.mark.parametrize("text", ["{", "[]", '{"model": 3}', '{"model": {"n_ctx": 4}, "vocabulary": 1}'])
def test_a_damaged_run_json_is_written_again(series, out, text):
    first = run(series[:1], out, probes=FEW)
    meta = (first.path / "run.json").read_text()
    (first.path / "run.json").write_text(text)
    run(series[:1], out, probes=FEW)
    again = json.loads((first.path / "run.json").read_text())
    expected = json.loads(meta)
    for data in (again, expected):
        data.pop("seal")
    assert again == expected


def test_a_model_trained_again_at_another_size_in_the_same_folder_is_measured(lab_series, out):
    path = lab_series(2)
    run(open_series(path), out, probes=FEW)
    shutil.rmtree(path)
    lab_series(2, d_model=24)
    outcome = run(open_series(path), out, probes=FEW)
    assert outcome.gaps == []
    assert outcome.measured == 6
    assert outcome.results.meta["model"]["d_model"] == 24


def test_states_of_the_tiny_series_differ():
    assert not lab_state(0)["head.weight"].equal(lab_state(1)["head.weight"])
