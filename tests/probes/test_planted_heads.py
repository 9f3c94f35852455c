"""Every head probe on the hand-built model, through the real pipeline, equals an answer that shares no code with it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import PlantedConfig, expected, write_planted
from byrote.interp import HookedSeries
from byrote.probes.registry import REGISTRY
from byrote.probes.results.derived import derive
from byrote.probes.results.schema import Measured, unit_table
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.measure import measure_once, measure_stimulus
from byrote.probes.sweep.run import sweep

CONFIG = PlantedConfig()
VOCABULARY = Vocabulary(np.arange(1, CONFIG.d_vocab), 0)
KINDS = ("repeated_random", "jittered_repeat", "shuffled_repeat")
HEAD_PROBES = ("prefix_matching", "previous_token", "duplicate_token", "offset_profile", "copying_logit")
N_SEQ = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_planted(tmp_path_factory.mktemp("planted") / "planted", CONFIG)
    hooked = HookedSeries(open_series(path))
    return hooked.load(hooked.series[0])


@cache
def stimulus_of(kind: str, n_seq: int = N_SEQ) -> Stimulus:
    return make(kind, VOCABULARY, n_ctx=CONFIG.n_ctx, seed=11, n_seq=n_seq)


@cache
def answers_for(kind: str) -> dict[str, np.ndarray]:
    return expected(CONFIG, stimulus_of(kind).tokens)


@pytest.fixture(scope="module")
def measured(model) -> dict[str, dict[tuple[str, str], Measured]]:
    """Stimulus kind -> (probe, metric) -> measurement; every head probe is read on all three stimuli here."""
    out = {}
    for kind in KINDS:
        stimulus = replace(
            stimulus_of(kind), kind="repeated_random"
        )  # the kind under which all of them are read
        found, report = measure_stimulus(model, stimulus, [REGISTRY[name] for name in HEAD_PROBES], seed=0)
        assert report.problems == {}
        out[kind] = {(m.probe, m.metric): m for m in found}
    return out


def earlier_copies(match: list[int]) -> list[list[int]]:
    """Of every position of one sequence the earlier ones that hold its token."""
    return [[j for j in range(q) if match[j] == match[q]] for q in range(len(match))]


def scores_by_loops(pattern: list[list[float]], copies: list[list[int]]) -> dict[str, float]:
    """The definitions of probes.md spelled out for one head and sequence."""
    n_pos = len(copies)
    queries = [q for q in range(n_pos) if copies[q]]
    after = {q: sum(pattern[q][j + 1] for j in copies[q]) for q in queries}
    beyond_first = {q: sum(pattern[q][1:]) for q in queries}
    seen = [q for q in queries if beyond_first[q] > 1e-6]
    return {
        "prefix_matching score": np.mean([after[q] for q in queries]),
        "prefix_matching sink_free": np.mean([after[q] / beyond_first[q] for q in seen]),
        "duplicate_token score": np.mean([sum(pattern[q][j] for j in copies[q]) for q in queries]),
        "previous_token score": np.mean([pattern[q][q - 1] for q in range(1, n_pos)]),
    }


@cache
def all_by_loops(kind: str) -> dict[str, np.ndarray]:
    """Name -> [batch n_layers n_heads], from the closed-form patterns."""
    stimulus, pattern = stimulus_of(kind), answers_for(kind)["pattern"]
    # Plain numbers: a loop over an array's own takes ten times as long.
    copies = [earlier_copies(match) for match in stimulus.match_tokens.tolist()]
    cells = [
        [[scores_by_loops(pattern[l, h, b].tolist(), copies[b]) for h in range(4)] for l in range(2)]
        for b in range(stimulus.n)
    ]
    return {name: np.array([[[c[name] for c in row] for row in b] for b in cells]) for name in cells[0][0][0]}


def assert_same(found: Measured, answer: np.ndarray) -> None:
    assert found.axes == ("layer", "head")
    np.testing.assert_allclose(found.samples, answer, rtol=0, atol=1e-5)
    defined = np.isfinite(answer)
    means = np.where(defined, answer, 0).sum(0) / np.where(defined.any(0), defined.sum(0), np.nan)
    np.testing.assert_allclose(found.values, means, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.n, defined.sum(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    ["prefix_matching score", "prefix_matching sink_free", "duplicate_token score", "previous_token score"],
)
def test_attention_scores(measured, kind, name):
    assert_same(measured[kind][tuple(name.split())], all_by_loops(kind)[name])


@pytest.mark.parametrize("kind", ["repeated_random", "jittered_repeat"])
@pytest.mark.parametrize(
    ("probe", "metric", "answer"),
    [
        ("prefix_matching", "score", "prefix_matching"),
        ("prefix_matching", "sink_free", "prefix_matching_sink_free"),
        ("previous_token", "score", "previous_token"),
        ("duplicate_token", "score", "duplicate_token"),
    ],
)
def test_attention_scores_equal_the_worked_answers(measured, kind, probe, metric, answer):
    assert_same(measured[kind][probe, metric], answers_for(kind)[answer])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("metric", "answer"), [("score", "copying_logit"), ("sink_free", "copying_logit_sink_free")]
)
def test_copying_scores(measured, kind, metric, answer):
    found = measured[kind]["copying_logit", metric]
    assert_same(found, answers_for(kind)[answer])
    assert np.isnan(found.values[0]).all()  # layer 0 writes nothing that the unembedding reads
    assert found.values[1, 2] == pytest.approx(-1, abs=1e-3)  # the anti-copying head


def test_the_fixed_offset_head_passes_for_induction_only_while_blocks_are_equal(measured):
    for kind, least in (("repeated_random", 0.99), ("jittered_repeat", None)):
        score = measured[kind]["prefix_matching", "score"].values
        assert score[1, 0] == pytest.approx(1, abs=1e-5)
        assert score[1, 3] > least if least else score[1, 3] < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_offset_profile(measured, kind):
    """Mean attention d back over the queries that can look d back, position 0 left out as a key."""
    stimulus = stimulus_of(kind)
    pattern = answers_for(kind)["pattern"]
    n_pos = stimulus.tokens.shape[1]
    answer = np.array([
        [[[np.mean([pattern[l, h, b, q, q - d] for q in range(d + 1, n_pos)]) for d in range(n_pos - 1)]
          for h in range(4)] for l in range(2)] for b in range(stimulus.n)
    ])  # fmt: skip
    found = {
        metric: measured[kind]["offset_profile", metric] for metric in ("profile", "peak_mass", "peak_offset")
    }
    assert (found["profile"].axes, found["profile"].position_start) == (("layer", "head", "position"), 0)
    np.testing.assert_allclose(found["profile"].values, answer.mean(0), rtol=0, atol=1e-5)
    peak = answer.mean(0)[..., 1:].argmax(-1) + 1  # offset 0 is the token itself
    sharp = np.array([[True, True, kind != "shuffled_repeat", False], [kind == "repeated_random"] * 4])
    np.testing.assert_array_equal(found["peak_offset"].values[sharp], peak[sharp])
    at_peak = np.take_along_axis(answer, peak[None, ..., None], axis=-1)[..., 0].mean(0)
    np.testing.assert_allclose(found["peak_mass"].values, at_peak, rtol=0, atol=1e-5)
    assert peak[0, 0] == peak[0, 1] == 1
    if kind == "repeated_random":
        assert peak[1].tolist() == [24, 24, 24, 24]
        low, high = found["peak_offset"].lo[1, 3], found["peak_offset"].hi[1, 3]
        assert low == high == 24


def test_chance_is_uniform_attention_on_the_same_tokens(measured):
    """Published: 0.0307 for BOS and 25 tokens four times. The planted uniform head L0H3 attends exactly so."""
    found = measured["repeated_random"]
    assert found["prefix_matching", "score"].chance[0, 0] == pytest.approx(0.0307, abs=5e-5)
    for key in (("prefix_matching", "score"), ("duplicate_token", "score"), ("previous_token", "score")):
        assert found[key].chance[1, 1] == pytest.approx(found[key].values[0, 3], abs=1e-6)
    queries = np.arange(1, 101)
    assert found["previous_token", "score"].chance[0, 0] == pytest.approx(
        np.mean(1 / (queries + 1)), abs=1e-7
    )
    profile = found["offset_profile", "profile"]
    np.testing.assert_allclose(profile.chance[0, 0], profile.values[0, 3], rtol=0, atol=1e-6)
    # 25 distinct tokens and BOS: each has the sample's mean raise when identities are permuted; the null is not below that
    permuted = 4 / (26 + 1) - 1
    exchanged = found["copying_logit", "exchanged"]
    np.testing.assert_allclose(found["copying_logit", "score"].chance, exchanged.values, atol=1e-6)
    assert exchanged.values.min() >= permuted - 1e-6
    assert (
        exchanged.values[1, 0] < permuted + 0.1
    )  # it copies: of another sequence only the first token is the same


def test_ov_copying(model):
    found = {m.metric: m for m in measure_once(model, REGISTRY["ov_copying"], ids=VOCABULARY.ids, seed=0)}
    np.testing.assert_allclose(found["score"].values[1], [1, 1, -1, 1], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found["score"].values[1].round(), answers_for(KINDS[0])["ov_copying"][1])
    assert np.isnan(found["score"].values[0]).all()
    np.testing.assert_array_equal(found["self_rank"].values, [[0, 0, 0, 0], [1, 1, 0, 1]])
    rows = unit_table(list(found.values()), run="r", step=0, tokens_seen=None).to_pandas()
    zero = rows[(rows["metric"] == "score") & (rows["layer"] == 0)]
    assert not zero["valid"].any()
    assert set(zero["reason"]) == {"the OV circuit is zero"}
    exact = rows[(rows["metric"] == "score") & (rows["layer"] == 1)]
    assert (exact["lo"] == exact["value"]).all()
    assert (exact["hi"] == exact["value"]).all()
    assert (
        found["z"].values[1, 0] > 3
    )  # 16 draws a head and more: nothing random keeps every eigenvalue positive
    assert found["z"].values[1, 2] < -3


def test_intervals_hold_the_value_and_have_a_width_where_sequences_differ_or_are_few(measured):
    for m in measured["jittered_repeat"].values():
        if m.samples is None or m.metric == "peak_offset":
            continue
        ok = np.isfinite(m.values)
        assert (m.lo[ok] <= m.values[ok] + 1e-9).all()
        assert (m.values[ok] <= m.hi[ok] + 1e-9).all()
        spread = np.ptp(m.samples, axis=0)  # NaN where undefined, which is not above anything
        assert ((m.hi - m.lo)[spread > 1e-6] > 0).all()
        few = (
            REGISTRY[m.probe].kind_of(m.metric) != "other"
        )  # sixteen sequences of 1.00 may have missed others
        assert (((m.hi - m.lo)[spread == 0] > 0) == few).all()


def verdicts(model, *, n_seq: int) -> dict[str, float]:
    found = []
    for kind in KINDS:
        infos = [REGISTRY[name] for name in REGISTRY["induction"].needs if kind in REGISTRY[name].stimuli]
        found += measure_stimulus(model, stimulus_of(kind, n_seq), infos, seed=0)[0]
    rows = derive(unit_table(found, run="r", step=0, tokens_seen=None)).to_pandas()
    rows = rows[rows["metric"] == "verdict"]
    return {f"L{int(r.layer)}H{int(r.head)}": r.value for r in rows.itertuples()}


@pytest.mark.parametrize("n_seq", [16, 32])
def test_exactly_the_planted_induction_heads_are_called(model, n_seq):
    found = verdicts(model, n_seq=n_seq)
    assert {head for head, value in found.items() if value == 1} == {"L1H0", "L1H1"}
    assert found["L1H2"] == 0  # matches prefixes and lowers what it attends to
    assert found["L1H3"] == 0  # copies, from a fixed distance
    assert len(found) == 8


def test_no_head_of_a_random_model_is_called(tmp_path):
    for seed in range(5):
        hooked = HookedSeries(
            open_series(write_planted(tmp_path / str(seed), CONFIG, kind="random", seed=seed))
        )
        assert set(verdicts(hooked.load(hooked.series[0]), n_seq=16).values()) == {0.0}


def test_the_sweep_writes_the_same_numbers(tmp_path, measured):
    path = write_planted(tmp_path / "planted", CONFIG)
    outcome = sweep(
        open_series(path),
        SweepConfig((*HEAD_PROBES, "induction"), n_seq=N_SEQ, seed=11),
        out=tmp_path / "results",
    )
    assert outcome.gaps == []
    results = outcome.results
    for (probe, metric), m in measured["repeated_random"].items():
        if metric == "profile":
            continue
        rows = results.select(probe, metric, step=0).sort_values(["layer", "head"])
        np.testing.assert_allclose(rows["value"].to_numpy(float), m.values.ravel(), rtol=0, atol=1e-6)
    nulls = {f"score@{k}": measured[k]["prefix_matching", "score"] for k in KINDS[1:]}
    for metric, m in nulls.items():
        rows = results.select("prefix_matching", metric).sort_values(["layer", "head"])
        np.testing.assert_allclose(rows["value"].to_numpy(float), m.values.ravel(), rtol=0, atol=1e-6)
    verdict = results.select("induction", "verdict")
    called = verdict[verdict["value"] == 1]
    assert list(zip(called["layer"], called["head"], strict=True)) == [(1, 0), (1, 1)]


def test_losses_follow_from_the_closed_form_logits(model):
    for name, kind in (("repeat_loss", "repeated_random"), ("copy_curve", "paragraph_copies")):
        stimulus = stimulus_of(kind)
        found = {m.metric: m for m in measure_stimulus(model, stimulus, [REGISTRY[name]], seed=0)[0]}
        logits = answers_for(kind)["logits"]
        shifted = logits - logits.max(-1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        nll = -np.take_along_axis(log_p[:, :-1], stimulus.tokens[:, 1:, None], axis=-1)[..., 0]
        r, m = stimulus.params["r"], stimulus.params["m"]
        # Position 0 predicts the first token of the first copy; the first of a later copy cannot be copied.
        by_copy, copied = nll.reshape(stimulus.n, m, r), np.arange(r * m) % r > 0
        copied[:r] = False
        if name == "repeat_loss":
            top1 = logits[:, :-1].argmax(-1) == stimulus.tokens[:, 1:]
            answers = {
                "first_block": by_copy[:, 0].mean(-1),
                "later_blocks": nll[:, copied].mean(-1),
                "difference": nll[:, copied].mean(-1) - by_copy[:, 0].mean(-1),
                "top1_later": top1[:, copied].mean(-1),
            }
            assert answers["difference"].max() < -1  # the planted model does copy
        else:
            by_copy = by_copy[..., 1:].mean(-1)
            slope = np.array([np.polyfit(np.arange(3, m + 1), row[2:], 1)[0] for row in by_copy])
            gain = by_copy[:, 1] - by_copy[:, -1]
            answers = {"loss": by_copy, "slope": slope, "second_minus_last": gain}
        for metric, answer in answers.items():
            np.testing.assert_allclose(found[metric].samples, answer, rtol=0, atol=2e-5)
            assert found[metric].values == pytest.approx(answer.mean(0), abs=2e-5)
        assert found[next(iter(answers))].chance.ravel()[0] == pytest.approx(np.log(63))
