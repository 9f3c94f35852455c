"""Memory over a series: from the sequences on disk to results, flow between steps, run against run, and the report."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from lookup_models import N_IDS, RIGHT_NATS, lookup_state, members, random_state, twins, write_series
from safetensors.numpy import save_file

from byrote.checkpoints import ByroteError, open_series
from byrote.checkpoints.token_sets import TokenSets
from byrote.probes.claims.members_table import members_of
from byrote.probes.degradation import compare
from byrote.probes.degrade import extraction_counts
from byrote.probes.findings import absent_token_sets, lacks_token_sets, missing_token_sets
from byrote.probes.memory.member_flow import COLUMNS, member_flow
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.stimuli import TOKEN_SET_STIMULI, Stimulus, Vocabulary, make
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import SweepOutcome, sweep
from byrote.report.alerts import alerts_of, status_of
from byrote.report.report_inputs import report_inputs

MEMBERS, TWINS = members(), twins()
FIRST, LAST = MEMBERS[:5], MEMBERS[12:]  # with the last four, the second half of the one before them is known
DEFAULT = ("exact_match", "mem_gap", "unintended_bits")
OPT_IN = ("extraction", "exposure", "recall_vs_copy")
DATA = {
    "members": {"tokens": MEMBERS, "repeat_count": np.full(16, 100)},
    "twins": {"tokens": TWINS},
}


@pytest.fixture(scope="module")
def series(tmp_path_factory) -> Path:
    """Step 0 knows nothing, 10 the first five members, 20 five others, 30 the first again."""
    known = {10: FIRST, 20: LAST, 30: FIRST}
    states = {0: random_state()} | {step: lookup_state(rows) for step, rows in known.items()}
    return write_series(tmp_path_factory.mktemp("series") / "learns", states, data=DATA)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The same model without members or twins."""
    return write_series(tmp_path_factory.mktemp("series") / "bare", {0: random_state(), 30: lookup_state()})


def run(path: Path, out: Path, *probes: str, **options: object) -> SweepOutcome:
    return sweep(open_series(path), SweepConfig(probes or (*DEFAULT, *OPT_IN), n_seq=8, **options), out=out)


@pytest.fixture(scope="module")
def results(series, tmp_path_factory) -> Results:
    return run(series, tmp_path_factory.mktemp("results")).results


def at(results: Results, probe: str, metric: str, step: int) -> float:
    (row,) = results.select(probe, metric, step=step).to_dict("records")
    assert row["valid"], row["reason"]
    return row["value"]


def test_what_runs_without_being_asked_and_what_does_not():
    asked = {info.name for info in SweepConfig().infos}
    assert set(DEFAULT) <= asked and not set(OPT_IN) & asked
    assert all(REGISTRY[name].passes for name in OPT_IN)


def test_every_metric_is_measured_at_every_step(results):
    frame = results.frame
    for name in (*DEFAULT[:2], *OPT_IN):
        rows = frame[frame["probe"] == name]
        assert set(rows["metric"]) == set(REGISTRY[name].metrics)
        assert rows["valid"].all(), rows[~rows["valid"]][["metric", "reason"]]
        assert set(rows["step"]) == {0, 10, 20, 30}
    bits = frame[
        frame["probe"] == "unintended_bits"
    ]  # this series' source is not known, and no reference is given
    assert not bits["valid"].any() and bits["reason"].str.contains("reference_nll").all()


def test_numbers_follow_what_each_step_knows(results):
    completed = [at(results, "exact_match", "completed", step) for step in results.steps]
    assert completed == [0.0, 5 / 16, 5 / 16, 5 / 16]
    assert [at(results, "extraction", "score", step) for step in results.steps] == completed
    assert at(results, "mem_gap", "near_zero", 10) == 0.0
    rows = results.select("mem_gap", "by_repeats", step=10)
    assert rows["position"].tolist() == [6] and rows["n"].tolist() == [16]
    gap = results.select("mem_gap", "gap", step=0).iloc[0]
    assert gap["lo"] < 0 < gap["hi"]


def test_members_as_claims_read_them_are_those_that_were_stored(results):
    found = members_of(results)
    assert list(found) == list(results.steps) and set(found[10]["repeats"]) == {100}
    samples = results.samples(20).set_index(["probe", "metric"])["samples"]
    for name, at in (("extracted", ("extraction", "score")), ("exposure_bits", ("exposure", "bits")),
                     ("after_half", ("extraction", "after_half"))):  # fmt: skip
        assert found[20][name].tolist() == samples[at].tolist()
    assert found[20]["extracted"].sum() == 5
    (row,) = extraction_counts(results, 20).to_dict("records")  # trained on 100 times: 64 to 127
    assert row == {"run": results.run, "duplicates": 64.0, "extracted": 5.0, "members": 16.0}


def test_member_flow_counts_what_became_of_each(results):
    flow = member_flow(results)
    assert list(flow.columns) == list(COLUMNS)
    by_step = {
        row["step_to"]: {k: v for k, v in row.items() if k not in ("step_from", "step_to")}
        for row in flow.to_dict("records")
    }
    same = {"n": 16, "memorised": 5, "twins": 0, "n_twins": 20}
    assert by_step == {
        10: {**same, "new": 5, "again": 0, "kept": 0, "forgotten": 0, "not": 11},
        20: {**same, "new": 5, "again": 0, "kept": 0, "forgotten": 5, "not": 6},
        30: {**same, "new": 0, "again": 5, "kept": 0, "forgotten": 5, "not": 6},
    }
    assert flow["step_from"].tolist() == [0, 10, 20]


def test_flow_of_another_metric_and_threshold(results):
    loose = member_flow(results, metric="accuracy", threshold=0.0)
    assert loose["kept"].tolist() == [16, 16, 16] and loose["twins"].tolist() == [20, 20, 20]
    stored = member_flow(results, probe="extraction", metric="score")
    assert stored["memorised"].tolist() == member_flow(results)["memorised"].tolist()
    assert stored["twins"].tolist() == [0, 0, 0]
    with pytest.raises(ByroteError, match="has 0 steps with exact_match nothing"):
        member_flow(results, metric="nothing")


def test_no_memorised_text_is_in_the_results(results):
    """Ids of the sequences are in no file; only counts, losses and tags are."""
    row = json.dumps(MEMBERS[0, 1:8].tolist())[1:-1]
    run_json = (results.path / "run.json").read_text()
    assert row not in run_json and row.replace(" ", "") not in run_json.replace(" ", "").replace("\n", "")
    kept = results.samples(30)["samples"].map(
        lambda s: not np.array_equal(np.asarray(s)[:7], MEMBERS[0, 1:8])
    )
    assert kept.all()


# Runs without members.


def test_a_series_without_members_is_measured_quietly(bare, tmp_path):
    outcome = run(bare, tmp_path / "results", "repeat_loss", *DEFAULT)
    results = outcome.results
    assert (outcome.gaps, results.meta["status"]) == ([], "complete")
    memory = results.frame[results.frame["probe"].isin(DEFAULT)]
    assert set(memory["probe"]) == set(DEFAULT) and not memory["valid"].any()
    assert lacks_token_sets(results).sum() == len(memory)
    assert set(absent_token_sets(results)) == {"members", "twins"}
    alerts = alerts_of(report_inputs([results]))
    (alert,) = [a for a in alerts if "members" in a.text or "twins" in a.text]
    assert alert.level == "note" and "exact_match, mem_gap, unintended_bits" in alert.text
    assert status_of(report_inputs([results]), alerts) == "complete"


def test_nothing_is_said_where_nothing_is_missing(results):
    assert missing_token_sets(results) == ""
    assert not lacks_token_sets(results).any()


def test_members_given_later_are_measured_then(bare, tmp_path):
    out = tmp_path / "results"
    before = run(bare, out, *DEFAULT)
    nll = np.full(MEMBERS.shape, math.log(N_IDS))
    save_file({"tokens": MEMBERS, "reference_nll": nll}, tmp_path / "m.safetensors")
    np.save(tmp_path / "t.npy", TWINS)
    files = {"members": tmp_path / "m.safetensors", "twins": tmp_path / "t.npy"}
    after = run(bare, out, *DEFAULT, **files)
    assert (before.measured, after.measured, after.superseded) == (4, 4, 4)
    results = after.results
    assert at(results, "exact_match", "completed", 30) == 1.0
    assert at(results, "unintended_bits", "share", 30) == pytest.approx(
        1 - (math.log(64) + 11 * RIGHT_NATS) / (12 * math.log(N_IDS)), rel=1e-4
    )
    assert results.select("exact_match", "repeats", step=30)["value"].tolist() == [1.0]
    again = run(bare, out, *DEFAULT, **files)
    assert (again.measured, again.reused) == (0, 4)
    kept = run(bare, out, *DEFAULT)  # asked without the files, what they gave is kept
    assert (kept.measured, kept.reused) == (0, 4)


# Run against run.


def other_run(tmp_path: Path, name: str, tokens: np.ndarray) -> Path:
    data = {**DATA, "members": {"tokens": tokens, "repeat_count": np.full(len(tokens), 100)}}
    return write_series(tmp_path / name, {30: lookup_state()}, data=data)


def test_runs_with_members_of_their_own_are_compared_in_everything_else(series, tmp_path, results):
    probes = ("repeat_loss", *DEFAULT, "extraction")
    a = run(series, tmp_path / "results", *probes).results
    b = run(other_run(tmp_path, "b", MEMBERS[:7]), tmp_path / "results", *probes).results
    found = compare(a, b)
    assert set(found.rows["probe"]) == {"repeat_loss", "exact_match"}
    assert set(found.rows.loc[found.rows["probe"] == "exact_match", "metric"]) == {
        m for m in REGISTRY["exact_match"].metrics if m.endswith("@twins")
    }  # both have the same twins
    assert [note for note in found.notes if "each run's own" in note] == [found.notes[0]]


def test_runs_on_the_same_members_are_compared_member_by_member(series, tmp_path):
    a = run(series, tmp_path / "results", *DEFAULT).results
    b = run(other_run(tmp_path, "b", MEMBERS), tmp_path / "results", *DEFAULT).results
    row = compare(a, b).row("exact_match", "completed")
    assert (row["a"], row["b"], row["n"]) == (5 / 16, 1.0, 16)
    assert row["change"] == "higher"  # more memory is neither better nor worse


def test_runs_without_members_are_compared_without_a_word_on_memory(bare, tmp_path):
    a = run(bare, tmp_path / "a", "repeat_loss", *DEFAULT).results
    b = run(bare, tmp_path / "b", "repeat_loss", *DEFAULT).results
    found = compare(a, b)
    assert set(found.rows["probe"]) == {"repeat_loss"}
    assert found.notes == ()


# Stimuli of given sequences.


def drawn(kind: str, token_sets: TokenSets, *, n_seq: int = 8, n_ctx: int = 32, seed: int = 0) -> Stimulus:
    return make(
        kind, Vocabulary(np.arange(1, 64), 0), n_ctx=n_ctx, seed=seed, n_seq=n_seq, token_sets=token_sets
    )


def token_sets(**changes: object) -> TokenSets:
    known = {"members": MEMBERS, "repeat_count": np.arange(16), "twins": TWINS, "natural": TWINS}
    return TokenSets(**{**known, **changes})


def test_what_comes_with_the_tokens_is_part_of_the_id():
    one = drawn("members", token_sets())
    assert drawn("members", token_sets()).id == one.id
    assert drawn("members", token_sets(repeat_count=np.arange(16) + 1)).id != one.id
    nll = {"members": np.zeros(MEMBERS.shape)}
    assert drawn("members", token_sets(reference_nll=nll)).id != one.id
    assert one.id.startswith("members-l32-n16-s0-")


def test_large_sets_are_sampled_row_by_row_together():
    tokens = np.arange(100)[:, None] * np.ones((1, 9), dtype=np.int64)
    counts = np.arange(100)
    shown = drawn(
        "members",
        token_sets(members=tokens, repeat_count=counts, reference_nll={"members": tokens * 0.5}),
        n_seq=2,
    )
    assert shown.n == 16 and set(shown.extra["n_in_all"]) == {100}
    assert shown.tokens[:, 0].tolist() == shown.extra["repeat_count"].tolist()
    np.testing.assert_allclose(shown.extra["reference_nll"], shown.tokens * 0.5)
    other = drawn("members", token_sets(members=tokens, repeat_count=counts), n_seq=2, seed=1)
    assert other.tokens[:, 0].tolist() != shown.tokens[:, 0].tolist()


def test_long_sequences_are_cut_with_all_that_belongs_to_them():
    shown = drawn("members", token_sets(reference_nll={"members": np.ones(MEMBERS.shape)}), n_ctx=20)
    assert shown.tokens.shape == shown.extra["reference_nll"].shape == (16, 20)
    assert set(shown.extra["second_block_start"]) == {13}
    assert set(drawn("members", token_sets(), n_ctx=14).extra["second_block_start"]) == {
        14
    }  # the repeat is cut away


def test_twins_stand_in_for_candidates():
    assert drawn("candidates", token_sets()).tokens.tolist() == TWINS.tolist()
    more = np.concatenate([TWINS, TWINS + 1])
    assert drawn("candidates", token_sets(candidates=more)).n == 40
    assert set(drawn("twins", token_sets()).extra["repeat_count"]) == {0}


@pytest.mark.parametrize("kind", TOKEN_SET_STIMULI)
def test_without_token_sets_the_option_is_named(kind):
    with pytest.raises(ByroteError, match="for this series") as refusal:
        drawn(kind, TokenSets())
    assert "--" in refusal.value.help
