"""Anti-induction, sink, entropy and value-weighted matching: by eye, and on the hand-built model through the pipeline."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import STEP_FOLDER, PlantedConfig, expected, write_planted
from byrote.interp import HookedSeries
from byrote.interp.loading import load_fresh
from byrote.probes.heads.anti_induction import anti_induction
from byrote.probes.heads.duplicate_token import duplicate_token
from byrote.probes.heads.entropy import entropy
from byrote.probes.heads.matching import uniform_attention
from byrote.probes.heads.previous_token import previous_token
from byrote.probes.heads.sink import sink
from byrote.probes.heads.value_weighted import value_weighted
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import Measured, unit_table
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.measure import measure_stimulus

TOKENS = torch.tensor([[9, 5, 7, 5, 7]])
PATTERN = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0, 0.0],
        [0.6, 0.4, 0.0, 0.0, 0.0],
        [0.2, 0.3, 0.5, 0.0, 0.0],
        [0.5, 0.1, 0.3, 0.1, 0.0],  # token 5 again: its copy is key 1, before it key 0
        [0.0, 0.2, 0.1, 0.6, 0.1],  # token 7 again: its copy is key 2, before it key 1
    ]
)[None, None]
ALL_ON_FIRST = torch.zeros(5, 5).index_fill_(1, torch.tensor([0]), 1.0)[None, None]


def nats(*shares: float) -> float:
    return -sum(p * math.log(p) for p in shares if p)


def test_anti_induction():
    scores = anti_induction(PATTERN, TOKENS)
    assert scores["score"].item() == pytest.approx((0.5 + 0.2) / 2)
    assert scores["sink_free"].item() == pytest.approx(0.2 / 1.0)  # query 3's only target is position 0


def test_sink():
    assert sink(PATTERN)["score"].item() == pytest.approx((0.6 + 0.2 + 0.5 + 0.0) / 4)
    assert sink(ALL_ON_FIRST)["score"].item() == 1


def test_entropy():
    scores = entropy(PATTERN)
    rows = [(0.6, 0.4), (0.2, 0.3, 0.5), (0.5, 0.1, 0.3, 0.1), (0.2, 0.1, 0.6, 0.1)]
    most = [math.log(n) for n in (2, 3, 4, 5)]
    assert scores["score"].item() == pytest.approx(
        np.mean([nats(*r) / m for r, m in zip(rows, most, strict=True)])
    )
    free = [
        nats(0.3 / 0.8, 0.5 / 0.8) / math.log(2),
        nats(0.2, 0.6, 0.2) / math.log(3),
        nats(*rows[3]) / math.log(4),
    ]
    assert scores["sink_free"].item() == pytest.approx(np.mean(free))


def test_entropy_runs_from_one_key_to_all():
    uniform, one = entropy(uniform_attention(6)), entropy(torch.eye(6)[None, None])
    for name in ("score", "sink_free"):
        assert uniform[name].item() == pytest.approx(1)
        assert one[name].item() == 0
    rounded = entropy(uniform_attention(40).bfloat16())  # rows of bfloat16 do not sum to 1 exactly
    assert rounded["score"].item() == pytest.approx(1, abs=1e-6)


def test_a_head_that_only_rests_has_no_sink_free_scores():
    for scores in (
        entropy(ALL_ON_FIRST),
        previous_token(ALL_ON_FIRST),
        duplicate_token(ALL_ON_FIRST, TOKENS),
        anti_induction(ALL_ON_FIRST, TOKENS),
        value_weighted(ALL_ON_FIRST, torch.ones(1, 5, 1, 2), TOKENS),
    ):
        assert scores["score"].isfinite().all()
        assert scores["sink_free"].isnan().all()


def test_sink_free_previous_token_and_duplicate_token():
    assert previous_token(PATTERN)["sink_free"].item() == pytest.approx((0.3 / 0.8 + 0.3 / 0.5 + 0.6) / 3)
    assert duplicate_token(PATTERN, TOKENS)["sink_free"].item() == pytest.approx((0.1 / 0.5 + 0.1) / 2)


def test_a_copy_at_position_0_is_no_target_without_the_sink():
    tokens = torch.tensor([[4, 6, 4]])
    pattern = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.3, 0.6, 0.1]])[None, None]
    scores = duplicate_token(pattern, tokens)
    assert scores["score"].item() == pytest.approx(0.3)
    assert scores["sink_free"].isnan().all()
    assert anti_induction(pattern, tokens)["score"].isnan().all()  # nothing comes before position 0


VALUES = torch.tensor([0.0, 3.0, 4.0, 5.0, 1.0])[None, :, None, None] * torch.tensor([0.6, 0.8])


def test_value_weighted():
    scores = value_weighted(PATTERN, VALUES, TOKENS)
    first = 0.3 * 4 / (0.1 * 3 + 0.3 * 4 + 0.1 * 5)  # query 3, target key 2; lengths 0, 3, 4, 5, 1
    second = 0.6 * 5 / (0.2 * 3 + 0.1 * 4 + 0.6 * 5 + 0.1 * 1)  # query 4, target key 3
    assert scores["score"].item() == pytest.approx((first + second) / 2)
    assert scores["sink_free"].item() == scores["score"].item()  # position 0 holds a zero value
    for scale in (1e-12, 1e12):
        assert value_weighted(PATTERN, VALUES * scale, TOKENS)["score"].item() == pytest.approx(
            scores["score"].item()
        )


def test_rows_that_read_nothing_are_left_out_of_value_weighted():
    nothing = VALUES.clone()
    nothing[0, :3] = 0  # query 3 still reads key 3; its target reads nothing
    assert value_weighted(PATTERN, nothing, TOKENS)["score"].item() == pytest.approx(
        (0 + 0.6 * 5 / (0.6 * 5 + 0.1)) / 2
    )
    nothing[0, 3] = 0  # query 3 reads nothing at all, query 4 itself alone
    assert value_weighted(PATTERN, nothing, TOKENS)["score"].item() == 0
    assert value_weighted(PATTERN, torch.zeros_like(VALUES), TOKENS)["score"].isnan().all()


# On the hand-built model.

CONFIG = PlantedConfig()
VOCABULARY = Vocabulary(np.arange(1, CONFIG.d_vocab), 0)
KINDS = ("repeated_random", "jittered_repeat", "shuffled_repeat")
PROBES = ("anti_induction", "sink", "entropy", "value_weighted", "previous_token", "duplicate_token")


@cache
def stimulus_of(kind: str) -> Stimulus:
    return make(kind, VOCABULARY, n_ctx=CONFIG.n_ctx, seed=5, n_seq=4)


@cache
def answers_for(kind: str) -> dict[str, np.ndarray]:
    return expected(CONFIG, stimulus_of(kind).tokens)


def measured_on(model, kind: str) -> dict[tuple[str, str], Measured]:
    """Every probe, read on a stimulus of any kind."""
    stimulus = replace(stimulus_of(kind), kind="repeated_random")
    found, report = measure_stimulus(model, stimulus, [REGISTRY[name] for name in PROBES], seed=0)
    assert report.problems == {}
    return {(m.probe, m.metric): m for m in found}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, dict[tuple[str, str], Measured]]:
    series = open_series(write_planted(tmp_path_factory.mktemp("planted") / "planted", CONFIG))
    model = HookedSeries(series).load(series[0])
    return {kind: measured_on(model, kind) for kind in KINDS}


def assert_same(found: Measured, answer: np.ndarray) -> None:
    assert found.axes == ("layer", "head")
    np.testing.assert_allclose(found.samples, answer, rtol=0, atol=1e-5)
    defined = np.isfinite(answer)
    means = np.where(defined, answer, 0).sum(0) / np.where(defined.any(0), defined.sum(0), np.nan)
    np.testing.assert_allclose(found.values, means, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["repeated_random", "jittered_repeat"])
@pytest.mark.parametrize("probe", ["anti_induction", "sink", "entropy"])
def test_scores_equal_the_worked_answers(measured, kind, probe):
    answer = answers_for(kind)[probe]
    assert_same(measured[kind][probe, "score"], answer)
    assert np.ptp(answer) > 0.02  # the planted heads do differ


def by_loops(pattern: np.ndarray, match: np.ndarray, length: np.ndarray) -> dict[tuple[str, str], float]:
    """The definitions spelled out for one head and sequence; `length` is that of every position's value."""
    n_pos = len(match)
    copies = {q: [j for j in range(q) if match[j] == match[q]] for q in range(n_pos)}
    rest = pattern[:, 1:].sum(1)
    beyond = [q for q in range(n_pos) if rest[q] > 1e-6]
    queries = [q for q in range(n_pos) if copies[q]]
    before = {
        q: [j - 1 for j in copies[q] if j > 1] for q in queries
    }  # position 0 is no target without the sink
    weighed = pattern * length
    total, free = weighed.sum(1), weighed[:, 1:].sum(1)
    after = {q: sum(weighed[q, j + 1] for j in copies[q]) for q in queries}
    found = {
        ("anti_induction", "score"): [
            sum(pattern[q, j - 1] for j in copies[q] if j) for q in queries if any(copies[q])
        ],
        ("anti_induction", "sink_free"): [
            sum(pattern[q, k] for k in before[q]) / rest[q] for q in queries if before[q] and q in beyond
        ],
        ("sink", "score"): pattern[1:, 0],
        ("entropy", "score"): [nats(*pattern[q, : q + 1]) / math.log(q + 1) for q in range(1, n_pos)],
        ("entropy", "sink_free"): [
            nats(*(pattern[q, 1 : q + 1] / rest[q])) / math.log(q) for q in beyond if q >= 2
        ],
        ("previous_token", "sink_free"): [pattern[q, q - 1] / rest[q] for q in beyond if q >= 2],
        ("duplicate_token", "sink_free"): [
            sum(pattern[q, j] for j in copies[q] if j) / rest[q]
            for q in queries
            if q in beyond and any(copies[q])
        ],
        ("value_weighted", "score"): [after[q] / total[q] for q in queries if total[q] > 1e-6],
        ("value_weighted", "sink_free"): [after[q] / free[q] for q in queries if free[q] > 1e-6],
    }
    return {name: float(np.mean(values)) if len(values) else math.nan for name, values in found.items()}


def all_by_loops(kind: str, lengths: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """(probe, metric) -> [batch n_layers n_heads], from closed-form patterns; `lengths` [n_layers n_heads d_vocab]."""
    stimulus, pattern = stimulus_of(kind), answers_for(kind)["pattern"]
    cells = [
        [
            [
                by_loops(pattern[l, h, b], stimulus.match_tokens[b], lengths[l, h][stimulus.tokens[b]])
                for h in range(4)
            ]
            for l in range(2)
        ]
        for b in range(stimulus.n)
    ]
    return {name: np.array([[[c[name] for c in row] for row in b] for b in cells]) for name in cells[0][0][0]}


PLANTED_LENGTHS = np.ones((2, 4, CONFIG.d_vocab))
PLANTED_LENGTHS[0, 3] = 0  # the dead head


@pytest.mark.parametrize("kind", KINDS)
def test_scores_with_and_without_the_sink_equal_their_definitions(measured, kind):
    answers = all_by_loops(kind, PLANTED_LENGTHS)
    for name, answer in answers.items():
        assert_same(measured[kind][name], answer)
    assert set(answers) == set(measured[kind]) - {("previous_token", "score"), ("duplicate_token", "score")}


def test_planted_heads_are_told_apart(measured):
    found = {name: m.values for name, m in measured["repeated_random"].items()}
    assert found["entropy", "score"][0].tolist() == pytest.approx([0, 0.5, 0.74, 1], abs=0.25)
    assert found["anti_induction", "score"][1, [0, 2]].max() < 1e-6
    rested = found["value_weighted", "score"]
    assert rested[1, 0] == pytest.approx(1, abs=1e-5)
    assert np.isnan(rested[0, 3])


def test_dead_heads_are_not_measured_with_a_reason(measured):
    rows = unit_table(
        [measured["repeated_random"]["value_weighted", "score"]], run="r", step=0, tokens_seen=None
    )
    rows = rows.to_pandas()
    assert rows.loc[~rows["valid"], ["layer", "head"]].to_numpy().tolist() == [[0, 3]]
    assert rows["reason"].iloc[3] == REGISTRY["value_weighted"].undefined


def test_value_weighted_follows_the_values_of_the_model(tmp_path):
    """Every token's value made longer or shorter in the heads of layer 1; their patterns do not read it."""
    path = write_planted(tmp_path / "planted", CONFIG)
    file = path / STEP_FOLDER / "model.safetensors"
    state, length = load_file(file), torch.linspace(0.1, 3, CONFIG.d_vocab)
    state["layers.1.attn.v.weight"][:, : CONFIG.d_vocab] *= length  # columns of the token subspace
    save_file(state, file)
    found = measured_on(load_fresh(open_series(path)[0]), "jittered_repeat")
    lengths = PLANTED_LENGTHS.copy()
    lengths[1] = length.numpy()
    answers = all_by_loops("jittered_repeat", lengths)
    for metric in ("score", "sink_free"):
        assert_same(found["value_weighted", metric], answers["value_weighted", metric])
    plain = all_by_loops("jittered_repeat", PLANTED_LENGTHS)["value_weighted", "score"]
    assert np.abs(answers["value_weighted", "score"][:, 1, 1] - plain[:, 1, 1]).max() > 1e-3


def test_chance_is_uniform_attention(measured):
    """The planted uniform head L0H3 attends so; its values are zero, so value_weighted has the others' chance."""
    found = measured["repeated_random"]
    for name, m in found.items():
        if name[0] != "value_weighted":
            assert m.chance[1, 1] == pytest.approx(m.values[0, 3], abs=1e-6), name
    assert found["entropy", "score"].chance[0, 0] == pytest.approx(1)
    queries = np.arange(1, 101)
    assert found["sink", "score"].chance[0, 0] == pytest.approx(np.mean(1 / (queries + 1)), abs=1e-7)
    assert found["value_weighted", "score"].chance[0, 0] == pytest.approx(0.0307, abs=5e-5)


@pytest.mark.parametrize("arch", [name for name in CONFIGS if name != "mamba"])
def test_every_architecture_shows_its_values(hf_series, arch):
    """One site that does not fire would take every head probe of the pass with it."""
    model = load_fresh(open_series(hf_series(arch, 1))[0])
    stimulus = make("repeated_random", Vocabulary(np.arange(2, 61), 0), n_ctx=64, seed=0, n_seq=2)
    found, report = measure_stimulus(model, stimulus, [REGISTRY[name] for name in PROBES], seed=0)
    assert report.problems == {}
    for m in found:
        assert np.isfinite(m.values).all()
        assert np.ptp(m.values) > 0
        assert (m.values >= -1e-6).all() and (m.values <= 1 + 1e-6).all()
