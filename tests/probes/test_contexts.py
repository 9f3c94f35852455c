"""How many windows of text the in-context learning score is shown, in which order, and what is resampled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lookup_models import lookup_state, random_state, write_series

from byrote.checkpoints import open_series
from byrote.checkpoints.token_sets import TokenSets, natural_windows
from byrote.probes import contexts
from byrote.probes.contexts import by_document, contexts_in_order, half_width, windows_needed
from byrote.probes.degradation import compare
from byrote.probes.results import Results
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.dry_run import cost_estimate
from byrote.probes.sweep.run import sweep

DOCUMENT = np.repeat([4, 7, 9], [5, 1, 3])
TEXT = TokenSets(natural=np.arange(9)[:, None] * np.ones(40, dtype=np.int64), natural_document=DOCUMENT)


def test_every_document_gives_a_first_window_before_any_gives_a_second():
    windows, document = contexts_in_order(TEXT, n_ctx=20, seed=0)
    assert windows.shape == (9, 20)
    assert sorted(document[:3]) == [4, 7, 9] and sorted(document[3:5]) == [4, 9]
    assert sorted(document[5:7]) == [4, 9] and document[7:].tolist() == [4, 4]
    np.testing.assert_array_equal(DOCUMENT[windows[:, 0]], document)
    assert sorted(windows[:, 0]) == list(range(9))
    again, other = (contexts_in_order(TEXT, n_ctx=20, seed=seed)[0] for seed in (0, 1))
    assert (again == windows).all() and (other != windows).any()


def test_fewer_windows_are_the_first_of_more_and_the_id_says_so():
    vocabulary = Vocabulary(np.arange(1, 30), 0)
    few, many = (
        make("natural_contexts", vocabulary, n_ctx=32, seed=0, n_seq=n, token_sets=TEXT) for n in (4, 9)
    )
    np.testing.assert_array_equal(many.tokens[:4], few.tokens)
    np.testing.assert_array_equal(many.extra["document"][:4], few.extra["document"])
    assert few.id.replace("-n4-", "-n9-") == many.id != few.id


def test_a_document_counts_once_with_the_mean_of_its_windows(monkeypatch):
    document = np.array([3, 1, 3, 2, 3])
    samples = np.array([[1.0, 10], [2, 20], [4, 40], [8, 80], [1, 10]])
    np.testing.assert_array_equal(by_document(samples, document), samples)  # too few to be resampled
    monkeypatch.setattr(contexts, "MIN_DOCUMENTS", 3)
    found = by_document(samples, document)
    assert found[:, 0].tolist()[:2] == [2.0, 2.0] and found[3].tolist() == [8, 80]
    assert np.isnan(found[[2, 4]]).all() and found[0, 1] == 20


def test_intervals_of_documents_hold_the_truth_where_those_of_windows_do_not():
    """40 documents of 6 windows that have three quarters of their variance in common."""
    document, rng = np.tile(np.arange(40), 6), np.random.default_rng(1)
    held = {"documents": 0, "windows": 0}
    for i in range(60):
        samples = rng.normal(0, 1.7, size=40)[document] + rng.normal(size=240)
        for what, of in (("documents", document), ("windows", np.arange(240))):
            held[what] += abs(samples.mean()) <= half_width(samples, of, seed=i)
    assert held["documents"] >= 51 and held["windows"] <= 45  # 57 are expected


@pytest.mark.parametrize(("sd", "n"), [(0.0, 32), (0.2, 32), (0.5, 128), (0.8, 256), (3.0, 300)])
def test_windows_are_added_until_the_mean_is_known_to_a_tenth_of_a_nat(sd, n):
    scores, asked = np.random.default_rng(0).normal(0, sd, size=300), []

    def score(rows: slice) -> np.ndarray:
        asked.extend(range(rows.start, rows.stop))
        return scores[rows]

    found, reached = windows_needed(score, np.arange(300), seed=0)
    assert found == n and asked == list(range(n))
    assert reached == pytest.approx(1.96 * sd / np.sqrt(n), rel=0.25)
    assert (reached <= 0.1) == (sd < 3)


def test_a_context_without_a_score_is_not_shown_more():
    found, reached = windows_needed(
        lambda rows: np.full(rows.stop - rows.start, np.nan), np.arange(300), seed=0
    )
    assert found == 32 and np.isnan(reached)
    assert contexts.contexts_note(np.arange(32), reached, step=3).endswith("at step 3 is not known")


@pytest.mark.parametrize(
    ("rows", "length", "width", "document"),
    [
        (3, 24, 9, [0, 0, 0, 1, 1, 1, 2, 2, 2]),  # windows of 8 tokens lie within a document
        (24, 6, 17, [16 * k // 7 for k in range(10)]),  # documents of 6 and a BOS between are joined
    ],
)
def test_windows_know_the_document_that_they_begin_in(tmp_path, rows, length, width, document):
    ids = 1 + np.arange(rows)[:, None] + np.zeros((1, length), dtype=np.int64)
    np.save(tmp_path / "ids.npy", ids)
    found = natural_windows(tmp_path / "ids.npy", tokenizer=None, bos=0, width=width, wanted=8)
    assert found.document.tolist() == document
    body = found.tokens[:, 1]
    begins = body[body > 0] - 1  # one that begins with BOS begins between two documents
    assert (begins == np.array(document)[body > 0]).all() and len(begins) >= 8


# Sweeps of models that recall, or copy, what the lab's held-out split repeats.


def lab(folder: Path, last: dict) -> Path:
    blocks = np.random.default_rng(0).integers(1, 64, size=(300, 12))
    text = np.concatenate([np.zeros((300, 1), dtype=np.int64), np.tile(blocks, 3)[:, :31]], axis=1)
    return write_series(folder, {0: random_state(), 30: last}, data={"held_out": {"tokens": text}})


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """`swept(name, state, half_width)`: results of icl_score, and what the sweep found out on the way."""

    def one(name: str, last: dict, half_width: float):
        monkeypatch.setattr(contexts, "HALF_WIDTH_NATS", half_width)
        series = open_series(lab(tmp_path / name, last))
        return series, sweep(series, SweepConfig(("icl_score",), n_seq=8), out=tmp_path / "out")

    return one


def test_a_sweep_shows_as_many_as_its_last_step_needs(swept, monkeypatch):
    series, outcome = swept("copies", lookup_state([], copies=True), 0.5)
    results = outcome.results
    (shown,) = results.meta["stimuli"]
    rows = results.select("icl_score", "score")
    last, reached = rows.iloc[-1], (rows.iloc[-1]["hi"] - rows.iloc[-1]["lo"]) / 2
    assert (rows["n"] == shown["n"]).all() and shown["n"] in contexts.RUNGS
    assert last["step"] == 30 and reached <= 0.5 + 0.02
    (note,) = [n for n in results.meta["notes"] if n.startswith("icl_score")]
    assert f"{shown['n']} windows of {shown['n']} documents" in note and "at step 30 is at most 0.5" in note
    monkeypatch.setattr("byrote.interp.bridge.load_fresh", lambda *a, **k: pytest.fail("a model was loaded"))
    stored = (outcome.path / "run.json").read_bytes()
    assert sweep(series, SweepConfig(("icl_score",), n_seq=8), out=outcome.path.parent).reused == 2
    assert (outcome.path / "run.json").read_bytes() == stored  # with the note, though no window was counted
    monkeypatch.undo()
    sweep(series[-1:], SweepConfig(("prefix_matching",), n_seq=8), out=outcome.path.parent)
    assert note in Results.open(outcome.path).meta["notes"]


def test_runs_that_show_different_numbers_are_compared_on_what_both_saw(swept):
    few = swept("few", lookup_state([], copies=True), 1e9)[1].results
    many = swept("many", lookup_state(), 1e-9)[1].results
    assert [r.meta["stimuli"][0]["n"] for r in (few, many)] == [32, 300]
    assert "these are all there are" in " ".join(many.meta["notes"])
    row = compare(few, many).row("icl_score", "score")
    a, b = (
        r.samples(30).query("probe == 'icl_score' and metric == 'score'")["samples"].iloc[0]
        for r in (few, many)
    )
    assert (row["n"], row["a"]) == (32, pytest.approx(a.mean(), abs=1e-6))
    assert row["difference"] == pytest.approx((b[:32] - a).mean(), abs=1e-6)
    assert row["b"] == pytest.approx(b[:32].mean(), abs=1e-6)


def test_a_dry_run_counts_them(swept):
    series, _ = swept("dry", lookup_state(), 1e-9)
    found = cost_estimate(series, SweepConfig(("icl_score",), n_seq=8))
    assert 300 <= found.sequences <= 330  # a few more see to it that swapping weights is exact
    assert "300 windows of 300 documents" in found.notes[0]
