"""Model-level probes: worked by hand, and on models of which every loss follows from a closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from lookup_models import BLOCK, RIGHT_NATS, WRONG_NATS, lookup_state, members, random_state, write_series
from lookup_models import CONFIG as TABLE_CONFIG

from byrote.checkpoints import open_series
from byrote.checkpoints.lab.planted import HeadSpec, PlantedConfig, expected_logits, planted_model
from byrote.checkpoints.token_sets import TokenSets
from byrote.interp import HookedSeries
from byrote.interp.model import HookedModel
from byrote.probes.contexts import contexts_in_order
from byrote.probes.model.icl_score import icl_score, positions
from byrote.probes.model.inducible_loss import inducible_loss, seen_bigrams
from byrote.probes.model.loss_by_position import log_slope, loss_by_position
from byrote.probes.model.skip_trigram import by_condition, log_odds
from byrote.probes.model.token_probability import token_probability
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import Measured, to_frame, unit_table
from byrote.probes.stimuli import CONDITIONS, Stimulus, Vocabulary, make
from byrote.probes.sweep.measure import measure_stimulus

NATURAL = ("loss_by_position", "inducible_loss", "held_out_loss", "token_probability")
PLANTED = ("skip_trigram", "fuzzy_copy")
BETA = 10.0
NOTHING = HeadSpec("uniform", strength_nats=0.0, writes="nothing")
INDUCES = PlantedConfig(
    unembed_gain=BETA, heads=((HeadSpec("previous", writes="previous"), NOTHING), (HeadSpec("prefix", writes="output"), NOTHING))
)  # fmt: skip
SEES = PlantedConfig(
    unembed_gain=BETA,
    heads=(
        (HeadSpec("previous", writes="previous"), NOTHING),
        (HeadSpec("uniform", strength_nats=0.0, writes="output"), NOTHING),
    ),
)
VOCABULARY = Vocabulary(np.arange(1, INDUCES.d_vocab), 0)
ALIKE = tuple((i, i + 1) for i in range(1, 63, 2))


@pytest.fixture(scope="module")
def load(tmp_path_factory) -> Callable[..., HookedModel]:
    """`load(state)`: a checkpoint with these weights."""

    def hooked(state) -> HookedModel:
        path = write_series(tmp_path_factory.mktemp("series") / "one", {0: state})
        walker = HookedSeries(open_series(path))
        return walker.load(walker.series[0])

    return hooked


def measured(model: HookedModel, stimulus: Stimulus, *names: str) -> dict[tuple[str, str], Measured]:
    """(probe, metric) -> measurement; all of the probes read one pass."""
    found, report = measure_stimulus(model, stimulus, [REGISTRY[name] for name in names], seed=0)
    assert report.n_passes == -(-stimulus.n // 32)
    assert report.leak == ""
    assert {m.metric for m in found if m.probe == names[0]} == set(REGISTRY[names[0]].metrics)
    return {(m.probe, m.metric): m for m in found}


def value(found: dict[tuple[str, str], Measured], probe: str, metric: str) -> float:
    return float(found[probe, metric].values)


def nll_of(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """[batch next_pos] next-token loss in nats."""
    shifted = logits[:, :-1] - logits[:, :-1].max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, tokens[:, 1:, None], axis=-1)[..., 0]


def natural_of(tokens: np.ndarray, *, n_ctx: int, kind: str = "natural") -> Stimulus:
    return make(kind, VOCABULARY, n_ctx=n_ctx, seed=0, n_seq=64, token_sets=TokenSets(natural=tokens))


def measured_on_text(
    model: HookedModel, tokens: np.ndarray, *, n_ctx: int
) -> dict[tuple[str, str], Measured]:
    """The natural probes on the same text; icl_score in the order that its windows are shown in."""
    contexts = natural_of(tokens, n_ctx=n_ctx, kind="natural_contexts")
    found = measured(model, contexts, "icl_score")
    return found | measured(model, natural_of(tokens, n_ctx=n_ctx), *NATURAL)


# By hand.


@pytest.mark.parametrize(
    ("width", "used"),
    [
        (2048, (50, 500, 8)),
        (512, (50, 500, 8)),
        (256, (25, 250, 4)),
        (101, (10, 99, 2)),
        (48, (5, 47, 1)),
        (16, (2, 15, 1)),  # 15.6 would be beyond the last token
    ],
)
def test_positions_follow_the_length_of_the_sequences(width, used):
    assert positions(width) == used
    scores = icl_score(torch.zeros(3, width - 1), torch.arange(3))
    found = [scores[name].tolist() for name in ("early_position", "late_position", "half_window")]
    assert found == [[n] * 3 for n in used]


def test_icl_score_is_late_minus_early():
    nll = torch.zeros(2, 511)
    nll[0, 49], nll[0, 499] = 5.0, 3.0  # tokens 50 and 500 after BOS
    nll[1, 49 - 8 : 49 + 9] = 4.0  # tokens 42 to 58
    scores = icl_score(nll, torch.arange(2))
    assert scores["score"].tolist() == [-2.0, -4.0]
    assert (scores["early_nats"].tolist(), scores["late_nats"].tolist()) == ([5.0, 4.0], [3.0, 0.0])
    np.testing.assert_allclose(scores["windowed"], [(3 - 5) / 17, -4.0], rtol=1e-6)
    assert icl_score(nll[:, :14], torch.arange(2))["score"].isnan().all()  # 15 tokens are no context


def test_a_loss_that_falls_with_ln_t_has_that_slope():
    t = torch.arange(1, 128, dtype=torch.float64)
    nll = torch.stack([5 - 0.3 * t.log(), torch.full_like(t, 2.0)]).float()
    scores = loss_by_position(nll)
    assert torch.equal(scores["loss"], nll)
    for name in ("slope", "slope_late"):
        np.testing.assert_allclose(scores[name], [-0.3, 0.0], atol=1e-6)
    assert log_slope(nll[:, :2], first=1).isnan().all()


def test_the_slope_is_that_of_a_fit_weighted_by_1_over_t():
    nll = np.random.default_rng(0).normal(size=(3, 47))
    t = np.arange(1, 48)
    for metric, first in (("slope", 1), ("slope_late", 5)):
        later = t >= first
        fits = [np.polyfit(np.log(t[later]), row[later], 1, w=np.sqrt(1 / t[later]))[0] for row in nll]
        np.testing.assert_allclose(loss_by_position(torch.from_numpy(nll))[metric], fits, rtol=1e-9)


def test_a_late_plateau_shows_in_slope_late_alone():
    t = torch.arange(1, 512)
    scores = loss_by_position((6 - t.clamp(max=50).log())[None])
    assert scores["slope"].item() < -0.5
    assert scores["slope_late"].item() == pytest.approx(0, abs=1e-5)


def test_which_tokens_are_inducible():
    tokens = torch.tensor([[0, 5, 6, 7, 5, 6, 6, 6, 6, 7]])
    #                          56 67 75 56 66 66 66 67 -> 56, 66, 66 and 67 again; the pair 0 5 never
    assert seen_bigrams(tokens).tolist() == [[False, False, False, False, True, False, True, True, True]]
    nll = torch.tensor([[4.0, 4, 4, 4, 1, 4, 1, 2, 2]])
    scores = {name: score.item() for name, score in inducible_loss(nll, tokens).items()}
    assert scores == pytest.approx({"inducible": 1.5, "other": 4.0, "difference": -2.5, "share": 4 / 9})


def test_inducible_tokens_against_loops():
    tokens = np.random.default_rng(1).integers(0, 7, size=(20, 60))
    loops = [
        [any((row[t - 1], row[t]) == (row[s - 1], row[s]) for s in range(1, t)) for t in range(1, 60)]
        for row in tokens
    ]
    assert 0.3 < np.mean(loops) < 0.7
    assert seen_bigrams(torch.from_numpy(tokens)).tolist() == loops


def test_editable_and_surprising_tokens_are_counted_with_their_limits():
    p = torch.tensor([[1.0, 0.995, 0.98, 0.55, 0.52, 0.05, 0.0005, 0.0]])
    found = token_probability(-p.log())
    assert {name: found[name].item() for name in ("editable", "surprising")} == {
        "editable": 2 / 8,
        "surprising": 2 / 8,
    }
    assert (8 * found["histogram"]).tolist() == [[3, 0, 0, 0, 0, 2, 0, 0, 0, 3]]


def test_a_sequence_without_repeats_has_no_inducible_loss():
    scores = inducible_loss(torch.ones(1, 9), torch.arange(10)[None])
    assert scores["inducible"].isnan() and scores["difference"].isnan()
    assert (scores["other"].item(), scores["share"].item()) == (1.0, 0.0)


def test_log_odds_of_what_is_almost_sure():
    logits = torch.zeros(3, 2, 4)
    logits[0, -1, 2], logits[1, -1, 2] = 100.0, math.log(3)
    odds = log_odds(logits, torch.tensor([2, 2, -1]))
    np.testing.assert_allclose(odds, [100 - math.log(3), 0.0, np.nan], atol=1e-6)


def test_conditions_of_an_item_are_neighbouring_rows():
    assert {name: rows.tolist() for name, rows in by_condition(torch.arange(8.0)).items()} == {
        name: [i, i + 4.0] for i, name in enumerate(CONDITIONS)
    }


# On natural text.


def test_natural_probes_follow_from_the_closed_form(load):
    model = load(planted_model(INDUCES))
    rng = np.random.default_rng(3)
    text = np.concatenate([np.zeros((12, 1), dtype=np.int64), rng.integers(1, 20, size=(12, 63))], axis=1)
    found = measured_on_text(model, text, n_ctx=64)
    order = contexts_in_order(TokenSets(natural=text), n_ctx=64, seed=0)[1]
    assert sorted(order) == list(range(12)) != list(order)
    nll = nll_of(expected_logits(INDUCES, text), text)
    early, late, half = 6, 63, 1
    assert positions(64) == (early, late, half)
    seen = np.array([[(row[t - 1], row[t]) in {(row[s - 1], row[s]) for s in range(1, t)} for t in range(1, 64)] for row in text])  # fmt: skip
    inducible, other = (np.array([row[kept].mean() for row, kept in zip(nll, mask, strict=True)]) for mask in (seen, ~seen))  # fmt: skip
    answers = {
        ("icl_score", "score"): nll[:, late - 1] - nll[:, early - 1],
        ("icl_score", "windowed"): nll[:, late - 2 :].mean(1) - nll[:, early - 2 : early + 1].mean(1),
        ("icl_score", "early_nats"): nll[:, early - 1],
        ("loss_by_position", "loss"): nll,
        ("inducible_loss", "inducible"): inducible,
        ("inducible_loss", "difference"): inducible - other,
        ("inducible_loss", "share"): seen.mean(1),
        ("held_out_loss", "loss"): nll.mean(1),
        ("held_out_loss", "top1"): (expected_logits(INDUCES, text)[:, :-1].argmax(-1) == text[:, 1:]).mean(1),
        ("held_out_loss", "tokens"): np.full(12, 63.0),
        ("token_probability", "histogram"): np.stack(
            [np.histogram(np.exp(-row), np.linspace(0, 1, 11))[0] / 63 for row in nll]
        ),
    }
    for key, answer in answers.items():
        rows = order if key[0] == "icl_score" else slice(None)
        np.testing.assert_allclose(found[key].samples, answer[rows], rtol=0, atol=2e-5)
        np.testing.assert_allclose(found[key].values, answer.mean(0), rtol=0, atol=2e-5)
    curve = found["loss_by_position", "loss"]
    assert (curve.axes, curve.position_start, curve.chance[0]) == (
        ("position",),
        1,
        pytest.approx(math.log(63)),
    )
    assert (
        float(found["icl_score", "early_position"].lo) == float(found["icl_score", "early_position"].hi) == 6
    )


def test_context_is_worth_something_to_the_rule_and_nothing_to_byrote_memory(load):
    """The same sequences: a copier predicts their second block, a table of next tokens every block alike."""
    n_ctx = TABLE_CONFIG.n_ctx
    copies = measured_on_text(load(lookup_state([], copies=True)), members(), n_ctx=n_ctx)
    recalls = measured_on_text(load(lookup_state()), members(), n_ctx=n_ctx)
    nothing = measured_on_text(load(random_state()), members(), n_ctx=n_ctx)
    losses = [value(found, "held_out_loss", "loss") for found in (copies, recalls, nothing)]
    # The table names no first token, and another than the one that begins the block anew.
    known = (math.log(64) + 2 * WRONG_NATS + 28 * RIGHT_NATS) / 31
    assert losses[1] == pytest.approx(known, rel=1e-4) and losses[1] < losses[0] < losses[2]
    assert nothing["held_out_loss", "loss"].chance == pytest.approx(math.log(63))
    assert positions(TABLE_CONFIG.n_ctx) == (3, 31, 1)  # both inside a block of 12
    assert value(copies, "icl_score", "score") < -3
    assert value(recalls, "icl_score", "score") == pytest.approx(0, abs=1e-5)
    assert value(recalls, "icl_score", "late_nats") == pytest.approx(RIGHT_NATS, rel=1e-4)
    assert value(copies, "loss_by_position", "slope") < -0.5
    assert abs(value(nothing, "icl_score", "windowed")) < 0.5
    share = (TABLE_CONFIG.n_ctx - 1 - BLOCK - 1) / (
        TABLE_CONFIG.n_ctx - 1
    )  # all but the first block and one bigram
    for found in (copies, recalls, nothing):
        assert value(found, "inducible_loss", "share") == pytest.approx(share)
    assert value(copies, "inducible_loss", "difference") < -3
    assert abs(value(nothing, "inducible_loss", "difference")) < 0.5


# On repeats of random tokens.


def test_an_ideal_copier_has_no_slope_and_a_fixed_offset_copies_only_blocks_of_one_length(load):
    ideal = load(planted_model(replace(INDUCES, unembed_gain=40.0)))
    shown = make("paragraph_copies", VOCABULARY, n_ctx=64, seed=0, n_seq=16)
    found = measured(ideal, shown, "copy_curve")
    assert shown.params["m"] == 5
    assert value(found, "copy_curve", "slope") == pytest.approx(0, abs=1e-6)
    assert value(found, "copy_curve", "second_minus_last") == pytest.approx(0, abs=1e-6)

    repeated, jittered = (make(kind, VOCABULARY, n_ctx=64, seed=0, n_seq=16) for kind in ("repeated_random", "jittered_repeat"))  # fmt: skip
    offset = replace(INDUCES, unembed_gain=40.0, offset=repeated.params["r"] - 1, heads=(INDUCES.heads[0], (HeadSpec("offset", writes="output"), NOTHING)))  # fmt: skip
    for model, copies_anywhere in ((ideal, True), (load(planted_model(offset)), False)):
        blocks = {shown.kind: measure_stimulus(model, shown, [REGISTRY["repeat_loss"]], seed=0)[0] for shown in (repeated, jittered)}  # fmt: skip
        nats = {m.metric: float(m.values) for found in blocks.values() for m in found}
        assert nats["later_blocks"] < 1e-3 and nats["top1_later"] == 1
        assert set(nats) == set(REGISTRY["repeat_loss"].metrics)
        assert (nats["later_blocks@jittered_repeat"] < 1e-3) == (nats["top1_later@jittered_repeat"] == 1) == copies_anywhere  # fmt: skip
        assert nats["difference@jittered_repeat"] < 0.5 * nats["difference"] or not copies_anywhere
    assert nats["top1_later@jittered_repeat"] < 0.3
    assert nats["later_blocks@jittered_repeat"] > 10


# On planted pairs.


def pairs(n_seq: int = 16, *, vocabulary: Vocabulary = VOCABULARY) -> Stimulus:
    return make("planted_pairs", vocabulary, n_ctx=64, seed=5, n_seq=n_seq)


def odds_by_closed_form(config: PlantedConfig, shown: Stimulus) -> dict[str, np.ndarray]:
    """Condition -> log odds of b after the last token, per item."""
    logits = expected_logits(config, shown.tokens)[:, -1]
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    chosen = p[np.arange(shown.n), shown.extra["target"]]
    return {name: np.log(chosen / (1 - chosen))[i :: len(CONDITIONS)] for i, name in enumerate(CONDITIONS)}


@pytest.mark.parametrize("config", [INDUCES, SEES], ids=["induction", "sees tokens"])
def test_odds_follow_from_the_closed_form(load, config):
    shown = pairs()
    found = measured(load(planted_model(config)), shown, *PLANTED)
    odds = odds_by_closed_form(config, shown)
    for metric, condition in (("log_odds", "skip"), ("pair_log_odds", "pair"), ("apart_log_odds", "apart")):
        answer = odds[condition] - odds["null"]
        np.testing.assert_allclose(found["skip_trigram", metric].samples, answer, rtol=0, atol=1e-4)
        assert found["skip_trigram", metric].n == 16
        assert found["skip_trigram", metric].chance == 0
    for condition in CONDITIONS:
        answer = 1 / (1 + np.exp(-odds[condition]))
        np.testing.assert_allclose(found["skip_trigram", f"p_{condition}"].samples, answer, rtol=0, atol=1e-6)


def test_an_induction_head_raises_the_pair_alone(load):
    found = measured(load(planted_model(INDUCES)), pairs(), "skip_trigram")
    # Attention rests on b alone in the pair row, on all 64 tokens alike in the others, where b has 1/64 or nothing.
    assert value(found, "skip_trigram", "pair_log_odds") == pytest.approx(BETA, abs=0.4)
    for metric in ("log_odds", "apart_log_odds"):
        assert value(found, "skip_trigram", metric) == pytest.approx(BETA / 64, rel=0.05)
    assert value(found, "skip_trigram", "p_pair") > 0.99
    by_gap = found["skip_trigram", "pair_by_gap"]
    assert (by_gap.position_start, by_gap.values.shape, by_gap.n.tolist()) == (2, (4,), [4.0] * 4)
    np.testing.assert_allclose(by_gap.values, BETA, atol=0.4)


def test_a_head_that_only_sees_tokens_raises_all_alike(load):
    found = measured(load(planted_model(SEES)), pairs(), "skip_trigram")
    for metric in ("log_odds", "apart_log_odds", "pair_log_odds"):
        # In the pair row r stands twice and b no more often than elsewhere.
        assert value(found, "skip_trigram", metric) == pytest.approx(BETA / 64, rel=0.1)


def gapped_state() -> tuple[dict, dict[str, torch.Tensor]]:
    """A head whose query is the token before this one and whose keys answer to the token two before them."""
    heads = ((HeadSpec("previous", writes="previous"), HeadSpec("offset", writes="unread")), INDUCES.heads[1])
    config = PlantedConfig(unembed_gain=BETA, offset=2, heads=heads)
    fields, state = planted_model(config)
    vocab, start = config.d_vocab, config.d_vocab + config.n_ctx
    token, previous, unread = (
        slice(0, vocab),
        slice(start, start + vocab),
        slice(start + 2 * vocab, start + 3 * vocab),
    )
    part = slice(0, fields["d_head"])
    for name, old, new in (("q", token, previous), ("k", previous, unread)):
        weight = state[f"layers.1.attn.{name}.weight"]
        weight[part, new] = weight[part, old].clone()
        weight[part, old] = 0
    return fields, state


def test_a_head_that_matches_with_a_gap_raises_the_skip_alone(load):
    found = measured(load(gapped_state()), pairs(), "skip_trigram")
    assert value(found, "skip_trigram", "log_odds") == pytest.approx(BETA, abs=0.4)
    assert value(found, "skip_trigram", "pair_log_odds") < 0.5
    assert value(found, "skip_trigram", "apart_log_odds") < 0.5


def test_a_model_that_learned_nothing_has_odds_of_chance(load):
    found = measured(load(random_state()), make("planted_pairs", VOCABULARY, n_ctx=32, seed=0, n_seq=48), "skip_trigram")  # fmt: skip
    for metric in ("log_odds", "pair_log_odds", "apart_log_odds"):
        interval = found["skip_trigram", metric]
        assert interval.lo - 0.2 < 0 < interval.hi + 0.2
    assert value(found, "skip_trigram", "p_pair") < 5 / 63


def fuzzy_state(gain: float) -> tuple[dict, dict[str, torch.Tensor]]:
    """An induction head that raises, with the token it copies, that token's variant too."""
    fields, state = planted_model(INDUCES)
    head = state["head.weight"]
    output = head.argmax(1)  # where each id is written by the copying head
    for one, other in ALIKE:
        head[one, output[other]] = head[other, output[one]] = gain
    return fields, state


@pytest.mark.parametrize("gain", [0.0, 6.0])
def test_fuzzy_copying_is_what_the_variant_gains(load, gain):
    alike = Vocabulary(np.arange(1, 64), 0, "", ALIKE)
    found = measured(load(fuzzy_state(gain)), pairs(vocabulary=alike), "fuzzy_copy")
    # All attention on b: logit BETA for b, gain for b', 0 for the 62 others.
    pair = gain - math.log(math.exp(BETA) + 62)
    exact = BETA - math.log(math.exp(gain) + 62)
    assert value(found, "fuzzy_copy", "p_variant") == pytest.approx(1 / (1 + math.exp(-pair)), rel=1e-3)
    null = float(
        np.log(found["fuzzy_copy", "p_null"].samples / (1 - found["fuzzy_copy", "p_null"].samples)).mean()
    )
    assert value(found, "fuzzy_copy", "log_odds") == pytest.approx(pair - null, abs=1e-3)
    assert value(found, "fuzzy_copy", "excess_over_exact") == pytest.approx(pair - exact, abs=0.4)
    assert (value(found, "fuzzy_copy", "log_odds") > 0) == (gain > 0)


def test_without_spelling_there_is_no_fuzzy_copying(load):
    found = measured(load(planted_model(INDUCES)), pairs(), *PLANTED)
    rows = to_frame(unit_table(list(found.values()), run="r", step=0, tokens_seen=None))
    fuzzy = rows[rows["probe"] == "fuzzy_copy"]
    assert not fuzzy["valid"].any() and fuzzy["reason"].str.contains("without a tokenizer").all()
    assert rows.loc[rows["probe"] == "skip_trigram", "valid"].all()


def test_short_contexts_measure_fewer_gaps(load):
    shown = make("planted_pairs", VOCABULARY, n_ctx=16, seed=0, n_seq=8)
    found = measured(load(planted_model(INDUCES)), shown, "skip_trigram")
    assert found["skip_trigram", "pair_by_gap"].n.tolist() == [4.0, 4.0]
    assert value(found, "skip_trigram", "pair_log_odds") > BETA - 1.5
