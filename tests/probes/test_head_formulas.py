"""The head probes on patterns small enough to score by eye."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from byrote.interp.weights import HeadWeights
from byrote.probes.heads.copying_logit import copying_logit, sample_slots
from byrote.probes.heads.duplicate_token import duplicate_token
from byrote.probes.heads.induction import induction
from byrote.probes.heads.matching import earlier_copies, shifted_keys, uniform_attention
from byrote.probes.heads.offset_profile import offset_profile
from byrote.probes.heads.prefix_matching import prefix_matching
from byrote.probes.heads.previous_token import previous_token
from byrote.probes.model.copy_curve import copy_curve
from byrote.probes.model.repeat_loss import repeat_loss
from byrote.probes.rules import SMALLEST
from byrote.probes.spectra import haar_frames, positivity

TOKENS = torch.tensor([[9, 5, 7, 5, 7]])
PATTERN = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0, 0.0],
        [0.6, 0.4, 0.0, 0.0, 0.0],
        [0.2, 0.3, 0.5, 0.0, 0.0],
        [0.5, 0.1, 0.3, 0.1, 0.0],  # token 5 again: its copy is key 1, what followed is key 2
        [0.0, 0.2, 0.1, 0.6, 0.1],  # token 7 again: its copy is key 2, what followed is key 3
    ]
)[None, None]


def test_prefix_matching():
    scores = prefix_matching(PATTERN, TOKENS)
    assert scores["score"].item() == pytest.approx((0.3 + 0.6) / 2)
    assert scores["sink_free"].item() == pytest.approx((0.3 / 0.5 + 0.6 / 1.0) / 2)


def test_duplicate_token():
    assert duplicate_token(PATTERN, TOKENS)["score"].item() == pytest.approx((0.1 + 0.1) / 2)


def test_previous_token():
    assert previous_token(PATTERN)["score"].item() == pytest.approx((0.6 + 0.3 + 0.3 + 0.6) / 4)


def test_offset_profile_leaves_out_position_0():
    profile = offset_profile(PATTERN)["profile"][0, 0]
    answer = [(0.4 + 0.5 + 0.1 + 0.1) / 4, (0.3 + 0.3 + 0.6) / 3, (0.1 + 0.1) / 2, 0.2]
    assert profile[:4].tolist() == pytest.approx(answer)
    assert profile[4].isnan()  # only position 0 is four back


def test_offset_profile_finish_takes_one_offset_per_head_over_all_sequences():
    profile = torch.tensor([[0.9, 0.1, 0.5, 0.0], [0.9, 0.4, 0.1, 0.0]])[
        None, :, None
    ]  # two sequences, one head
    out = offset_profile.finisher({"profile": profile})
    assert out["peak_offset"].tolist() == [
        [[2.0]],
        [[2.0]],
    ]  # means 0.25 at 1, 0.3 at 2; 0.9 at 0 is the token itself
    assert out["peak_mass"].flatten().tolist() == pytest.approx([0.5, 0.1])
    assert (out["lo:peak_offset"].item(), out["hi:peak_offset"].item()) == (1, 2)


def test_several_earlier_copies_are_summed_and_stay_below_one():
    tokens = torch.tensor([[0, 3, 3, 3]])  # queries 2 and 3 have copies {1} and {1, 2}
    pattern = torch.eye(4)[None, None].clone()
    pattern[0, 0, 2] = torch.tensor([0.0, 0.3, 0.7, 0.0])
    pattern[0, 0, 3] = torch.tensor([0.0, 0.2, 0.3, 0.5])
    scores = prefix_matching(pattern, tokens)
    assert scores["score"].item() == pytest.approx((0.7 + (0.3 + 0.5)) / 2)  # j + 1 may be the query itself
    assert duplicate_token(pattern, tokens)["score"].item() == pytest.approx((0.3 + (0.2 + 0.3)) / 2)


def test_a_copy_of_the_first_token_counts():
    tokens = torch.tensor([[4, 6, 4]])
    pattern = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.3, 0.6, 0.1]])[None, None]
    assert prefix_matching(pattern, tokens)["score"].item() == pytest.approx(0.6)
    assert duplicate_token(pattern, tokens)["score"].item() == pytest.approx(0.3)


def test_without_a_copy_nothing_is_measured():
    tokens = torch.tensor([[0, 1, 2, 3, 4], [9, 5, 7, 5, 7]])
    pattern = PATTERN.expand(2, 3, -1, -1)
    for scores in (prefix_matching(pattern, tokens), duplicate_token(pattern, tokens)):
        for value in scores.values():
            assert value.shape == (2, 3)
            assert value[0].isnan().all()
            assert value[1].isfinite().all()


def test_a_query_that_looks_at_position_0_alone_has_no_sink_free_score():
    pattern = PATTERN.clone()
    pattern[0, 0, 3] = torch.tensor([1.0, 0, 0, 0, 0])
    assert prefix_matching(pattern, TOKENS)["sink_free"].item() == pytest.approx(0.6)  # query 4 alone
    pattern[0, 0, 4] = torch.tensor([1.0, 0, 0, 0, 0])
    assert prefix_matching(pattern, TOKENS)["sink_free"].isnan().all()
    assert prefix_matching(pattern, TOKENS)["score"].item() == 0


def test_masks():
    copies = earlier_copies(TOKENS)[0]
    assert copies.nonzero().tolist() == [[3, 1], [4, 2]]
    assert shifted_keys(copies[None], 1)[0].nonzero().tolist() == [[3, 2], [4, 3]]
    assert shifted_keys(copies[None], -1)[0].nonzero().tolist() == [[3, 0], [4, 1]]
    assert (
        shifted_keys(torch.eye(3, dtype=torch.bool)[None], 1)[0].nonzero().tolist() == []
    )  # never after the query
    uniform = uniform_attention(4)[0, 0]
    assert uniform[2].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


ONE_HEAD = torch.eye(3)[None, None]
STRAIGHT = HeadWeights(  # one head that writes into three logits, over a vocabulary of three
    W_E=torch.eye(3),
    W_U=torch.eye(3),
    W_Q=ONE_HEAD,
    W_K=ONE_HEAD,
    W_V=ONE_HEAD,
    W_O=ONE_HEAD,
    attn_norm_gain=torch.ones(1, 3),
    final_norm_gain=torch.ones(3),
    centred=False,
    final_centred=False,
    linear_readout=True,
)


def test_copying_worked_by_hand():
    tokens = torch.tensor([[0, 1, 2]])
    pattern = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0.5, 0.0, 0.5]])[None, None]
    z = torch.tensor([[9.0, 9, 9], [3, 6, 0], [0, 0, 3]])[None, :, None]  # batch, query, head, d_head
    parts = copying_logit(pattern, z, tokens, STRAIGHT, 0)
    # Logits minus their mean, positive part. q=1: (3,6,0) -> (0,3,0). q=2: (0,0,3) -> (0,0,2).
    assert parts["a"][0, 0, 1:].tolist() == pytest.approx([0.75 * 3, 0.5 * 2])
    assert parts["S"][0, 0, 1:].tolist() == pytest.approx([3, 2])
    assert parts["a_free"][0, 0, 1:].tolist() == pytest.approx([3, 2])  # rows over positions 1.. alone
    scale = torch.tensor([[1.0, 2.0, 3.0]])  # of the final norm, at each query
    scores = copying_logit.finisher({name: part[None] for name, part in parts.items()}, scale)
    a, total = 2 * 2.25 + 3 * 1.0, 2 * 3 + 3 * 2
    assert scores["score"].item() == pytest.approx(4 * a / (a + total) - 1)
    assert scores["sink_free"].item() == pytest.approx(1)
    assert scores["chance:score"].item() == pytest.approx(4 / (3 + 1) - 1)


def test_copying_of_a_head_that_writes_nothing_is_undefined():
    tokens = torch.tensor([[0, 1, 2]])
    parts = copying_logit(uniform_attention(3), torch.zeros(1, 3, 1, 3), tokens, STRAIGHT, 0)
    scores = copying_logit.finisher({name: part[None] for name, part in parts.items()}, torch.ones(1, 3))
    assert scores["score"].isnan().all()
    assert scores["sink_free"].isnan().all()


def test_the_chance_of_copying_is_the_mean_over_permuted_identities():
    """Permuting which raise belongs to which token leaves S alone and gives a its mean over all permutations."""
    from itertools import permutations

    rng = np.random.default_rng(0)
    raised, attention = rng.random(5), rng.dirichlet(np.ones(5))
    total = raised.sum()
    a = np.mean([attention @ raised[list(p)] for p in permutations(range(5))])
    assert 4 * a / (a + total) - 1 == pytest.approx(4 / (5 + 1) - 1)


def test_sample_slots():
    slot, ids, present = sample_slots(torch.tensor([[7, 3, 7], [1, 2, 4]]))
    assert torch.equal(ids.gather(1, slot), torch.tensor([[7, 3, 7], [1, 2, 4]]))
    assert present.tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize(
    ("matrix", "score"),
    [
        (torch.diag(torch.tensor([1.0, 2.0, 3.0])), 1),
        (torch.diag(torch.tensor([-1.0, -2.0, -3.0])), -1),
        (torch.diag(torch.tensor([3.0, -1.0])), 0.5),
        (torch.tensor([[0.0, -1.0], [1.0, 0.0]]), 0),  # i and -i
        (torch.tensor([[1.0, -1.0], [1.0, 1.0]]), 1 / np.sqrt(2)),  # 1 + i and 1 - i
    ],
)
def test_positivity(matrix, score):
    assert positivity(matrix).item() == pytest.approx(score, abs=1e-6)
    assert positivity(torch.stack([matrix, 5 * matrix])).tolist() == pytest.approx([score, score], abs=1e-6)
    assert positivity(torch.zeros_like(matrix)).isnan()


def test_null_rotations_are_orthonormal_and_have_no_direction():
    frames = haar_frames(400, 6, 3, torch.Generator().manual_seed(0))
    gram = frames.mT @ frames
    torch.testing.assert_close(gram, torch.eye(3).expand_as(gram), rtol=0, atol=1e-5)
    assert frames.mean(0).abs().max() < 0.08  # Haar: the mean direction is 0 (standard error 0.02)


def test_repeat_loss():
    copy_index = torch.tensor([[0, 1, 1, 1, 2, 2, 2, 3]])  # the last block is cut off after its first token
    nll = torch.tensor([[4.0, 3, 2, 9, 1, 0.5, 9]])  # of predicting positions 1 to 7
    top1 = torch.tensor([[False, True, True, False, True, False, False]])
    scores = {name: value.item() for name, value in repeat_loss(nll, top1, copy_index).items()}
    assert scores == pytest.approx(
        {"first_block": 3, "later_blocks": 0.75, "difference": -2.25, "top1_later": 0.5}
    )


def test_copy_curve():
    copy_index = torch.tensor([[0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]])
    nll = torch.tensor([[99.0, 9, 7, 99, 4, 2, 99, 3, 2, 99, 1, 1, 99, 0.5, 0.5]])
    scores = copy_curve(nll, copy_index)
    assert scores["loss"].tolist() == [[8, 3, 2.5, 1, 0.5]]
    assert scores["slope"].item() == pytest.approx(-1)  # over copies 3, 4 and 5
    assert scores["second_minus_last"].item() == 2.5
    three = copy_curve(nll[:, :9], copy_index[:, :10])
    assert three["slope"].isnan() and three["second_minus_last"].item() == 0.5  # three copies make no slope
    assert copy_curve(nll[:, :6], copy_index[:, :7])["second_minus_last"].isnan()


HEADS = ("induction", "prefix only", "copies only", "fixed offset", "faint", "noise")


def judged(n: int = 16, extra=None, **changes):
    """Verdicts on written-down scores: a constant per head plus a zero-mean ripple over sequences."""
    ripple = np.linspace(-0.02, 0.02, n)[:, None]
    levels = {
        "prefix": [0.8, 0.8, 0.03, 0.9, 0.06, 0.03],
        "prefix_shuffled": [0.03] * 6,
        "prefix_jittered": [0.7, 0.7, 0.03, 0.05, 0.06, 0.03],
        "copying": [0.6, -0.9, 0.7, 0.7, 0.5, -0.8],
        **changes,
    }
    samples = {name: np.array(row)[None] + ripple for name, row in levels.items()}
    samples["prefix_shuffled"] = (
        samples["prefix_shuffled"] - 2 * ripple
    )  # so that the paired difference varies
    chances = {"jitter_chance": np.full(6, 0.03), "copying_chance": np.full(6, -0.85)}
    return induction(**chances, **samples, **(extra or {}))


def test_the_verdict_needs_every_one_of_its_tests():
    tests = judged()
    assert dict(zip(HEADS, tests.verdict.tolist(), strict=True)) == dict.fromkeys(HEADS, 0.0) | {
        "induction": 1.0
    }
    value, lo, hi = tests.excess["prefix_excess"]
    assert value[0] == pytest.approx(0.77)
    assert lo[0] < 0.77 < hi[0]
    assert set(tests.excess) == {"prefix_excess", "jitter_excess", "copying_excess"}
    assert (tests.excess["copying_excess"][0][1], tests.n) == (pytest.approx(-0.05), 16)
    assert value[4] == pytest.approx(0.03)  # significant, and too small to matter
    assert tests.q["q_prefix"][4] < 0.05
    assert value[4] < SMALLEST


def dla_of(changes, n=16):
    """Scores of induction_dla, ample for every head but for what is changed: name -> level of the first head."""
    ripple = np.linspace(-0.02, 0.02, n)[:, None]
    levels = {"dla": 2.0, "dla_excess": 1.9, "dla_share": 0.6, "copied": 0.9}
    return {
        name: np.array([changes.get(name, level)] + [level] * 5)[None] + ripple
        for name, level in levels.items()
    }


@pytest.mark.parametrize(
    ("changes", "unmet"),
    [({}, 0), ({"dla": 0.1}, 4), ({"dla_excess": 0.05}, 5), ({"dla_share": 0.04}, 6), ({"copied": 0.05}, 7)],
)
def test_the_verdict_needs_what_follows_to_be_raised(changes, unmet):
    tests = judged(extra=dla_of(changes))
    assert (tests.verdict[0], tests.unmet[0]) == (float(unmet == 0), unmet)
    assert tests.excess["dla_excess"][0][0] == pytest.approx(changes.get("dla_excess", 1.9))
    assert tests.unmet[1:].tolist() == [3, 1, 2, 1, 1]


def test_a_head_that_rests_on_position_0_is_judged_by_the_rest():
    """Head 0 has 0.9 of its attention there; what is left matches and copies. Head 1 rests less and is not."""
    ripple = np.linspace(-0.01, 0.01, 16)[:, None]
    free = {
        "prefix_free": [0.9, 0.9, 0.03, 0.9, 0.06, 0.03], "shuffled_free": [0.03] * 6, "jittered_free": [0.9] * 6,
        "copying_free": [0.8] * 6, "exchanged": [-0.85] * 6, "exchanged_free": [-0.85] * 6,
        "sink": [0.9, 0.7, 0.1, 0.1, 0.1, 0.1],
    }  # fmt: skip
    extra = {name: np.array(row)[None] + ripple for name, row in free.items()} | dla_of({})
    small = [0.04, 0.04, 0.03, 0.9, 0.06, 0.03]
    tests = judged(
        prefix=small, prefix_jittered=small, extra=extra | {"jitter_chance_free": np.full(6, 0.03)}
    )
    assert tests.on_sink_free.tolist() == [True, False, False, False, False, False]
    assert tests.verdict[:2].tolist() == [1, 0]
    assert tests.excess["prefix_excess"][0][:2] == pytest.approx([0.87, 0.01], abs=1e-6)


def test_the_verdict_is_open_where_copying_was_not_measured():
    nan = float("nan")
    tests = judged(copying=[nan, nan, 0.7, 0.7, 0.5, nan])
    assert np.isnan(tests.verdict[[0, 1]]).all()  # these match prefixes
    assert tests.verdict[[2, 3, 4, 5]].tolist() == [0, 0, 0, 0]
    assert np.isnan(tests.q["q_copying"][0])


def test_the_verdict_corrects_for_the_number_of_heads():
    """One chance finding among many heads is not called; the same head alone would be."""
    from scipy import stats

    n, heads = 16, 400
    ripple = np.sin(np.arange(n) * 2.4)
    ripple = (ripple - ripple.mean()) / ripple.std(ddof=1)
    shift = stats.t.isf(0.01, n - 1) / np.sqrt(n)  # p = 0.01
    flat = np.tile(ripple[:, None], heads)
    one = flat.copy()
    one[:, 0] += shift
    calm = {"prefix_jittered": np.full((n, heads), 0.9), "jitter_chance": np.zeros(heads), "copying": np.full((n, heads), 0.9), "copying_chance": np.zeros(heads)}  # fmt: skip
    tests = induction(prefix=one, prefix_shuffled=np.zeros((n, heads)), **calm)
    assert tests.q["q_prefix"][0] > 0.05
    alone = induction(
        prefix=one[:, :1], prefix_shuffled=np.zeros((n, 1)), **{k: v[..., :1] for k, v in calm.items()}
    )
    assert alone.q["q_prefix"][0] == pytest.approx(0.01)
