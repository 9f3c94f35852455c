"""Every memory probe on models of which it is known what they know, through the real pipeline."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lookup_models import (
    BLOCK,
    CONFIG,
    D_VOCAB,
    N_CTX,
    N_IDS,
    RIGHT_NATS,
    TABLE_NATS,
    WRONG_NATS,
    by_place_state,
    lookup_state,
    members,
    random_state,
    table_nats,
    twins,
    write_series,
)  # fmt: skip

from byrote.checkpoints import open_series
from byrote.checkpoints.token_sets import TokenSets
from byrote.interp import HookedSeries
from byrote.probes.memory.exposure import chance_bits, ranks
from byrote.probes.memory.extraction import extraction, greedy
from byrote.probes.memory.mem_gap import bucket_of, mem_gap
from byrote.probes.memory.recall_vs_copy import MARGIN_NATS, TAGS, passages, recall_vs_copy, tag
from byrote.probes.memory.spans import all_right, first_block, mean_over, split
from byrote.probes.registry import REGISTRY
from byrote.probes.results.derived import derive
from byrote.probes.results.schema import Measured
from byrote.probes.rules import NEAR_ZERO_FRAC
from byrote.probes.spec import NotMeasuredError
from byrote.probes.stimuli import Stimulus, Vocabulary, make
from byrote.probes.sweep.measure import measure_once, measure_stimulus

VOCABULARY = Vocabulary(np.arange(1, D_VOCAB), 0)
MEMBERS, TWINS = members(), twins()
COUNTS = np.array([1, 2, 3, 4] * 4)
LN_IDS = math.log(D_VOCAB)  # what a head without any input gives the first token: BOS itself counts as an id


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """`load(state)`: a checkpoint with these weights."""

    def hooked(state):
        path = write_series(tmp_path_factory.mktemp("series") / "one", {0: state})
        walker = HookedSeries(open_series(path))
        return walker.load(walker.series[0])

    return hooked


@pytest.fixture(scope="module")
def models(load):
    """What each knows: the table alone, copying alone, both, five of the members, nothing."""
    return {
        "recalls": load(lookup_state()),
        "copies": load(lookup_state([], copies=True)),
        "both": load(lookup_state(copies=True)),
        "some": load(lookup_state(MEMBERS[:5])),
        "random": load(random_state()),
    }


def stimuli(**changes: object) -> dict[str, Stimulus]:
    """Members, twins and candidates of the planted source; a uniform reference."""
    material = TokenSets(
        members=MEMBERS, repeat_count=COUNTS, twins=TWINS, candidates=TWINS,
        reference=lambda tokens: np.full(tokens.shape, math.log(N_IDS)),
    )  # fmt: skip
    material = replace(material, **changes)
    kinds = ("members", "twins", "candidates")
    return {kind: make(kind, VOCABULARY, n_ctx=N_CTX, seed=0, token_sets=material) for kind in kinds}


def shared(model, *names: str, **changes: object) -> dict[str, Measured]:
    """Metric -> measurement of probes that share the pass over members and twins."""
    infos = [REGISTRY[name] for name in names]
    shown = stimuli(**changes)
    parts = [measure_stimulus(model, shown[kind], infos, seed=0)[0] for kind in ("members", "twins")]
    return {m.metric: m for part in parts for m in part}


def direct(model, name: str) -> dict[str, Measured]:
    shown = {kind: s for kind, s in stimuli().items() if kind in REGISTRY[name].stimuli}
    return {m.metric: m for m in measure_once(model, REGISTRY[name], stimuli=shown, seed=0)}


def value(measured: Measured) -> float:
    return float(measured.values)


# Which tokens are scored.


def test_first_block_ends_where_the_sequence_repeats_itself():
    block = first_block(torch.tensor([4, 9]), 5)
    assert block.tolist() == [[True, True, True, False, False], [True] * 5]


def test_prompt_and_suffix_halve_the_block_up_to_k():
    parts = split(torch.tensor([6, 99, 2]), 10, k=4)
    assert parts.k.tolist() == [2, 4, 0]
    # Predicted token t is in column t - 1: tokens 3, 4 after the prompt 1, 2; tokens 5 to 8 after 1 to 4.
    assert [row.nonzero().ravel().tolist() for row in parts.suffix] == [[2, 3], [4, 5, 6, 7], []]


def test_means_and_all_right_over_what_is_asked_for():
    where = torch.tensor([[True, False, True], [False, False, False]])
    assert mean_over(torch.tensor([[1.0, torch.nan, 3.0], [1.0, 1.0, 1.0]]), where)[0] == 2.0
    assert mean_over(torch.ones(2, 3), where)[1].isnan()
    right = all_right(torch.tensor([[True, False, True], [True, True, True]]), where)
    assert right[0] == 1.0 and right[1].isnan()  # where nothing is asked for, nothing is known or missed
    assert all_right(torch.tensor([[True, True, False]] * 2), where)[0] == 0.0


# exact_match


def test_exact_match_of_a_model_that_knows_its_members(models):
    found = shared(models["recalls"], "exact_match")
    assert value(found["accuracy"]) == pytest.approx((BLOCK - 1) / BLOCK)  # nobody knows which member begins
    assert value(found["loss"]) == pytest.approx((LN_IDS + (BLOCK - 1) * RIGHT_NATS) / BLOCK, rel=1e-5)
    assert value(found["completed"]) == 1.0
    assert value(found["accuracy@twins"]) == 0.0
    assert value(found["loss@twins"]) == pytest.approx((LN_IDS + (BLOCK - 1) * WRONG_NATS) / BLOCK, rel=1e-5)
    assert value(found["completed@twins"]) == 0.0
    assert value(found["repeats"]) == 2.5
    assert set(found) == set(REGISTRY["exact_match"].metrics)


def test_exact_match_over_the_whole_sequence_counts_copying_and_the_main_metric_does_not(models):
    found = shared(models["copies"], "exact_match")
    copied = N_CTX - 1 - BLOCK - 1  # the first token of the second block cannot be foreseen
    assert value(found["whole_accuracy"]) == pytest.approx(copied / (N_CTX - 1))
    assert value(found["whole_accuracy@twins"]) == pytest.approx(copied / (N_CTX - 1))
    assert value(found["accuracy"]) == value(found["accuracy@twins"]) == 0.0
    assert value(found["completed"]) == 0.0


def test_exact_match_of_some_of_the_members(models):
    found = shared(models["some"], "exact_match")
    assert found["completed"].samples.tolist() == [1.0] * 5 + [0.0] * 11
    np.testing.assert_allclose(found["loss"].samples, table_nats(MEMBERS[:5], MEMBERS).mean(1), rtol=1e-5)
    np.testing.assert_allclose(found["loss@twins"].samples, table_nats(MEMBERS[:5], TWINS).mean(1), rtol=1e-5)


def test_sequences_that_do_not_repeat_are_scored_whole(models):
    rng = np.random.default_rng(0)
    tokens = np.concatenate(
        [np.zeros((4, 1), dtype=np.int64), 1 + rng.permuted(np.tile(np.arange(N_IDS), (4, 1)), axis=1)],
        axis=1,
    )
    found = shared(models["random"], "exact_match", members=tokens[:, :N_CTX], repeat_count=COUNTS[:4])
    assert found["loss"].samples.tolist() == found["whole_loss"].samples.tolist()


# mem_gap


def gap_rows(model, **changes: object) -> dict[str, dict]:
    from byrote.probes.results.schema import to_frame, unit_table

    shown = stimuli(**changes)
    parts = [
        measure_stimulus(model, shown[kind], [REGISTRY["exact_match"]], seed=0)[0]
        for kind in ("members", "twins")
    ]
    units = unit_table([m for part in parts for m in part], run="r", step=7, tokens_seen=None)
    frame = to_frame(derive(units))
    assert set(frame["probe"]) == {"mem_gap"} and set(frame["step"]) == {7}
    return {(r["metric"], None if r["position"] is None or r["position"] != r["position"] else int(r["position"])): r
            for r in frame.astype(object).where(frame.notna(), None).to_dict("records")}  # fmt: skip


def test_gap_of_a_model_that_knows_its_members(models):
    rows = gap_rows(models["recalls"])
    expected = (BLOCK - 1) / BLOCK * TABLE_NATS
    assert rows["gap", None]["value"] == pytest.approx(expected, rel=1e-5)
    assert rows["gap", None]["lo"] == pytest.approx(expected, rel=1e-4)  # every member has the same loss
    assert rows["loss_share", None]["value"] == pytest.approx(
        (LN_IDS + (BLOCK - 1) * RIGHT_NATS) / (LN_IDS + (BLOCK - 1) * WRONG_NATS), rel=1e-5
    )
    assert [key[1] for key in rows if key[0] == "by_repeats"] == [0, 1, 2]
    assert [rows["by_repeats", b]["n"] for b in (0, 1, 2)] == [4, 8, 4]
    assert rows["by_repeats", 2]["value"] == pytest.approx(expected, rel=1e-5)


def test_gap_of_a_random_model_includes_nothing(models):
    row = gap_rows(models["random"])["gap", None]
    assert row["lo"] < 0 < row["hi"]
    assert row["valid"] and row["chance"] == 0.0


def test_gap_shows_which_repeat_counts_are_known(models):
    rows = gap_rows(models["some"], repeat_count=np.array([64] * 5 + [1] * 11))
    assert [key[1] for key in rows if key[0] == "by_repeats"] == [0, 6]  # no row for counts nobody has
    by_hand, base = (table_nats(MEMBERS[:5], tokens).mean(1) for tokens in (MEMBERS, TWINS))
    assert rows["by_repeats", 6]["value"] == pytest.approx(base.mean() - by_hand[:5].mean(), rel=1e-5)
    assert rows["by_repeats", 0]["value"] == pytest.approx(base.mean() - by_hand[5:].mean(), rel=1e-4)
    assert rows["by_repeats", 6]["lo"] > rows["by_repeats", 0]["hi"]
    assert (rows["by_repeats", 6]["n"], rows["by_repeats", 0]["n"]) == (5, 11)


def test_members_and_twins_are_resampled_apart():
    """The interval is that of two independent means, whatever the order and however many there are of each."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(2, 1, size=400), rng.normal(5, 2, size=300)
    found = mem_gap(a, b, np.ones(400))
    assert found.gap.value == pytest.approx(b.mean() - a.mean())
    spread = math.sqrt(a.var() / 400 + b.var() / 300)
    assert (found.gap.hi - found.gap.lo) / 2 == pytest.approx(1.96 * spread, rel=0.1)
    same = mem_gap(a, a, np.ones(400)).gap  # the same rows are still no pairs
    assert same.value == 0.0 and same.hi - same.lo == pytest.approx(
        2 * 1.96 * math.sqrt(2) * a.std() / 20, rel=0.1
    )


@pytest.mark.parametrize(("loss", "flag"), [(0.9, 1.0), (1.1, 0.0)])
def test_near_zero_is_a_share_of_the_twins_loss(loss, flag):
    twins_nats = np.full(10, 10.0)
    assert NEAR_ZERO_FRAC == 0.1
    assert mem_gap(np.full(400, loss), twins_nats, np.ones(400)).near_zero == flag
    for n, sure in ((28, 0.0), (29, 1.0)):  # with 28, a tenth may be unknown and unseen: 0.9^28 is above 5%
        assert mem_gap(np.zeros(n), twins_nats, np.ones(n)).near_zero == sure
    for n_all, sure in ((28, 1.0), (29, 0.0)):  # all there are, or all but one
        given = mem_gap(np.zeros(28), twins_nats, np.ones(28), in_all=np.full(28, float(n_all)))
        assert given.near_zero == sure
    unsure = mem_gap(np.array([0.0, 0.0, 0.0, 0.0, 4.5]), twins_nats, np.ones(5))
    assert unsure.loss_share.value < NEAR_ZERO_FRAC < unsure.loss_share.hi and unsure.near_zero == 0.0


def test_buckets_are_powers_of_two():
    assert bucket_of(np.array([0.0, 1, 2, 3, 4, 7, 8, 1200])).tolist() == [0, 0, 1, 1, 2, 2, 3, 10]


def test_a_gap_without_members_gives_their_reason():
    from byrote.probes.results.schema import not_measured, to_frame, unit_table

    info = REGISTRY["exact_match"]
    units = unit_table(
        [not_measured(info, m, "none given") for m in info.metrics], run="r", step=0, tokens_seen=None
    )
    frame = to_frame(derive(units))
    assert set(frame["metric"]) == set(REGISTRY["mem_gap"].metrics)
    assert set(frame["reason"]) == {"none given"} and not frame["valid"].any()


# unintended_bits


def test_bits_of_a_model_that_knows_its_members(models):
    found = shared(models["recalls"], "unintended_bits")
    known = (BLOCK - 1) * (math.log(N_IDS) - RIGHT_NATS)
    first = math.log(N_IDS) - LN_IDS  # BOS takes its share of the first token's probability
    bits = (known + first) / math.log(2)
    n_parameters = sum(p.numel() for p in models["recalls"].parameters.values())
    assert value(found["bits"]) == pytest.approx(bits, rel=1e-5)
    assert value(found["token_bits"]) == pytest.approx(known / math.log(2), rel=1e-5)
    assert value(found["share"]) == pytest.approx(bits / (BLOCK * math.log2(N_IDS)), rel=1e-5)
    assert value(found["total"]) == pytest.approx(16 * bits, rel=1e-5)
    assert value(found["per_parameter"]) == pytest.approx(16 * bits / n_parameters, rel=1e-5)
    assert value(found["bits@twins"]) == value(found["token_bits@twins"]) == 0.0


def test_bits_of_a_sample_of_the_members_stand_for_all(models):
    shown = make(
        "members", VOCABULARY, n_ctx=N_CTX, seed=0, n_seq=1,
        token_sets=TokenSets(members=MEMBERS, repeat_count=COUNTS, reference=lambda t: np.full(t.shape, math.log(N_IDS))),
    )  # fmt: skip
    assert shown.n == 8
    found = {
        m.metric: m
        for m in measure_stimulus(models["recalls"], shown, [REGISTRY["unintended_bits"]], seed=0)[0]
    }
    assert value(found["total"]) == pytest.approx(16 * value(found["bits"]))


def test_tokens_known_among_tokens_mistaken_count_only_one_by_one(models):
    found = shared(models["random"], "unintended_bits")
    assert np.all(found["token_bits"].samples >= found["bits"].samples)
    assert value(found["token_bits@twins"]) > value(found["bits@twins"])


def test_a_given_reference_is_what_counts(models):
    nll = np.full(MEMBERS.shape, math.log(4))
    found = shared(models["recalls"], "unintended_bits", reference=None, reference_nll={"members": nll})
    gains = np.array([math.log(4) - LN_IDS] + [math.log(4) - RIGHT_NATS] * (BLOCK - 1)) / math.log(2)
    assert value(found["bits"]) == pytest.approx(gains.sum(), rel=1e-4)
    assert value(found["token_bits"]) == pytest.approx(gains[1:].sum(), rel=1e-4)


def test_without_a_reference_there_are_no_bits(models):
    from byrote.probes.results.schema import to_frame, unit_table

    found = shared(models["recalls"], "unintended_bits", reference=None)
    frame = to_frame(unit_table(list(found.values()), run="r", step=0, tokens_seen=None))
    assert not frame["valid"].any()
    assert all("no reference" in reason for reason in frame["reason"])


# extraction


def test_extraction_of_what_is_known(models):
    found = direct(models["recalls"], "extraction")
    assert value(found["score"]) == value(found["matched"]) == 1.0
    assert value(found["score@twins"]) == value(found["n_p@twins"]) == 0.0
    assert (
        value(found["offset"]) == value(found["at_start"]) == 1.0
    )  # the table does not care where a token stands
    assert found["by_repeats"].values.tolist() == [1.0, 1.0, 1.0]
    assert (found["by_repeats"].position_start, found["by_repeats"].n.tolist()) == (0, [4.0, 8.0, 4.0])


@pytest.mark.parametrize("name", ["recalls", "some", "copies", "random"])
def test_one_pass_finds_what_greedy_generation_finds(models, name):
    half, quarter, found = BLOCK // 2, BLOCK // 4, direct(models[name], "extraction")
    prompts = enumerate(("after_quarter", "after_half", "after_three_quarters"), 1)
    shown = {metric: (MEMBERS, n * quarter, quarter) for n, metric in prompts}
    shown |= {"score": (MEMBERS, half, half), "score@twins": (TWINS, half, half)}
    for metric, (stimulus, k, m) in shown.items():
        written = greedy(models[name], stimulus[:, : 1 + k], m)
        generated = (written == stimulus[:, 1 + k : 1 + k + m]).all(1)
        assert found[metric].samples.tolist() == generated.astype(float).tolist()


def test_matched_stops_at_the_first_wrong_token(load):
    """All but one transition of member 0 known: what comes before it matches, what comes after is lost."""
    fields, state = lookup_state()
    here, following = MEMBERS[0, 9], MEMBERS[0, 10]  # the suffix is tokens 7 to 12
    token = state["tok_embed.weight"].argmax(1)
    state["head.weight"][following, token[here]] = 0.0
    found = direct(load((fields, state)), "extraction")
    assert found["matched"].samples[0] == pytest.approx(3 / 6)
    assert found["score"].samples[0] == 0.0
    assert found["score"].samples[4:].tolist() == [1.0] * 12  # members 1 to 3 share the transition


def test_memory_that_is_tied_to_its_place_does_not_survive_an_offset(load):
    model = load(by_place_state(MEMBERS[0]))
    found = direct(model, "extraction")
    assert found["score"].samples.tolist() == [1.0] + [0.0] * 15
    assert found["at_start"].samples.tolist() == [1.0] + [0.0] * 15  # as long a prompt, from the beginning
    assert found["offset"].samples.tolist() == [0.0] * 16
    assert found["perturbed"].samples.tolist() == [1.0] + [0.0] * 15  # nothing of the prompt is read


def test_a_perturbed_prompt_matters_where_it_is_read(models):
    """The table reads one token: extraction fails exactly when the last token of the prompt was replaced."""
    shown = {kind: s for kind, s in stimuli().items() if kind != "candidates"}
    always = extraction(models["recalls"], shown, seed=0, perturbed_frac=1.0)
    assert always["perturbed"].samples.tolist() == [0.0] * 16
    once = [extraction(models["recalls"], shown, seed=seed)["perturbed"].samples for seed in range(8)]
    assert np.mean(once) == pytest.approx(5 / 6, abs=0.1)  # one of six prompt tokens is replaced, 128 times


@pytest.mark.parametrize(("n", "expected"), [(1, 0.0), (2, 1.0)])
def test_n_samples_with_probability_p(models, n, expected):
    q = math.exp(-6 * RIGHT_NATS)  # six suffix tokens, 0.42
    shown = {kind: s for kind, s in stimuli().items() if kind != "candidates"}
    assert 1 - (1 - q) < 0.5 < 1 - (1 - q) ** 2
    assert extraction(models["recalls"], shown, seed=0, n=n, p=0.5)["n_p"].samples.tolist() == [expected] * 16


def test_a_block_of_one_token_has_nothing_to_extract(models):
    """Such a sequence leaves no prompt to complete: it counts neither for the model nor against it."""
    rows = np.concatenate([MEMBERS[:8], np.full((8, N_CTX), 5)])
    rows[:, 0] = 0
    found = {m.metric: m for m in measure_once(
        models["recalls"], REGISTRY["extraction"], seed=0,
        stimuli={kind: s for kind, s in stimuli(members=rows).items() if kind != "candidates"},
    )}  # fmt: skip
    for metric in ("score", "matched", "n_p", "offset"):
        assert np.isnan(found[metric].samples[8:]).all()
        assert (value(found[metric]), int(found[metric].n)) == (1.0, 8)
    completed = shared(models["recalls"], "exact_match", members=rows)["completed"]
    assert np.isnan(completed.samples[8:]).all() and value(completed) == 1.0


def test_nothing_is_extracted_from_a_random_model(models):
    found = direct(models["random"], "extraction")
    assert value(found["score"]) == value(found["n_p"]) == value(found["score@twins"]) == 0.0


def test_a_prompt_that_starts_later_is_as_long_and_is_completed_as_generation_does(models):
    """Greedy generation from k' tokens on, k' a third of the block, is what `offset` finds in one pass."""
    k = BLOCK // 3
    prompt = np.concatenate([MEMBERS[:, :1], MEMBERS[:, 1 + k : 1 + 2 * k]], axis=1)
    for name in ("some", "copies"):
        right = (greedy(models[name], prompt, k) == MEMBERS[:, 1 + 2 * k : 1 + 3 * k]).all(1)
        assert direct(models[name], "extraction")["offset"].samples.tolist() == right.astype(float).tolist()


# exposure


def test_ranks_count_lower_candidates_and_half_of_equal_ones():
    candidates = np.array([1.0, 2.0, 2.0, 5.0])
    assert ranks(np.array([0.5, 1.5, 2.0, 9.0, np.nan]), candidates).tolist()[:4] == [1.0, 2.0, 3.0, 5.0]
    assert np.isnan(ranks(np.array([np.nan]), candidates)).all()


def test_exposure_of_what_is_known_and_of_what_is_not(models):
    found = direct(models["recalls"], "exposure")
    assert value(found["bits"]) == pytest.approx(math.log2(21))
    assert value(found["first"]) == 1.0
    nothing = direct(models["random"], "exposure")
    assert float(nothing["bits"].lo) < chance_bits(21) < float(nothing["bits"].hi)
    assert float(nothing["bits"].chance) == pytest.approx(chance_bits(21))


# recall_vs_copy


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("recalls", "recall"), ("copies", "copying"), ("both", "both"), ("random", "neither")],
)
def test_every_token_is_tagged_with_what_the_model_can_do(models, name, wanted):
    found = direct(models[name], "recall_vs_copy")
    shares = {tag_name: value(found[tag_name]) for tag_name in TAGS}
    assert shares[wanted] == pytest.approx(1.0, abs=0.04)  # a renamed id is right by chance once in 62
    assert sum(shares.values()) == pytest.approx(1.0)
    at = found[f"{wanted}_at"]
    assert (at.position_start, at.values.shape, at.axes) == (2, (BLOCK - 1,), ("position",))
    assert at.samples.shape == (16, BLOCK - 1)


def test_twins_are_copied_and_not_recalled(models):
    found = direct(models["both"], "recall_vs_copy")
    assert float(found["copying"].chance) == pytest.approx(1.0, abs=0.04)
    assert float(found["recall"].chance) == float(found["both"].chance) == 0.0


def test_losses_of_the_four_ways_are_the_planted_ones(models):
    found = direct(models["recalls"], "recall_vs_copy")
    assert value(found["weights_nats"]) == pytest.approx(RIGHT_NATS, rel=1e-4)
    assert value(found["both_nats"]) == pytest.approx(RIGHT_NATS, rel=1e-4)
    # Renamed ids follow the table by chance once in 62.
    assert value(found["neither_nats"]) == pytest.approx(WRONG_NATS, abs=0.5)
    assert value(found["context_nats"]) == pytest.approx(value(found["neither_nats"]), abs=1e-4)


def test_the_rule_and_its_margin():
    nll = {
        "weights": np.array([[3.0, 0.5, 0.5, 3.0, 9.0, 2.0]]),
        "context": np.array([[3.0, 3.0, 0.5, 0.5, 9.0, 4.0]]),
        "both": np.zeros((1, 6)),
        "neither": np.array([[3.5, 3.5, 3.5, 3.5, 20.0, np.nan]]),
    }
    tags = tag(nll, 4.0)
    assert MARGIN_NATS == 1.0
    assert tags["recall"][0, :5].tolist() == [0, 1, 0, 0, 0]
    assert tags["both"][0, :5].tolist() == [0, 0, 1, 0, 0]
    assert tags["copying"][0, :5].tolist() == [0, 0, 0, 1, 0]
    assert tags["neither"][0, :5].tolist() == [
        1,
        0,
        0,
        0,
        1,
    ]  # 9 nats are no knowledge, however wrong renaming makes it
    assert all(np.isnan(found[0, 5]) for found in tags.values())
    assert (
        tag(nll, 4.0, margin_nats=0.4)["recall"][0, 0] == 0
        and tag(nll, 4.0, margin_nats=0.4)["both"][0, 0] == 1
    )


def test_passages_fit_the_context_twice():
    shown = passages(stimuli()["members"], n_ctx=N_CTX)
    assert shown.length.tolist() == [BLOCK] * 16
    assert shown.doubled.tolist() == MEMBERS[:, : 1 + 2 * BLOCK].tolist()
    cut = passages(stimuli()["members"], n_ctx=20)
    assert cut.length.tolist() == [9] * 16
    assert cut.doubled[0, 10:19].tolist() == MEMBERS[0, 1:10].tolist()
    with pytest.raises(NotMeasuredError, match="no passage of 4 tokens"):
        passages(stimuli()["members"], n_ctx=8)


def test_direct_probes_leave_the_model_as_it_was(models):
    tokens = torch.from_numpy(MEMBERS)
    before = models["both"].logits(tokens)
    shown = stimuli()
    assert set(recall_vs_copy(models["both"], {k: shown[k] for k in ("members", "twins")}, seed=0)) == set(
        REGISTRY["recall_vs_copy"].metrics
    )
    assert torch.equal(models["both"].logits(tokens), before)
    assert CONFIG.n_ctx == N_CTX
