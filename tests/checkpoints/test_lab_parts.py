"""Arms made of parts: what stands in each batch, what counts in the loss, and what the controls share with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig
from byrote.checkpoints.lab.arms import ARMS, describe_arm
from byrote.checkpoints.lab.arms.clamped import Clamped
from byrote.checkpoints.lab.arms.continued import Continued, Replay
from byrote.checkpoints.lab.arms.edited import Edited
from byrote.checkpoints.lab.arms.masked import Masked, Noisy, RepetitionDropout, Unreliable
from byrote.checkpoints.lab.arms.members import Planted, Subsets
from byrote.checkpoints.lab.arms.repeats import Control, Epochs, Repeated
from byrote.checkpoints.lab.arms.rephrased import Questions, Rephrased
from byrote.checkpoints.lab.arms.rest_em import RestEM
from byrote.checkpoints.lab.arms.reweighted import Reweighted
from byrote.checkpoints.lab.arms.selected import Selected
from byrote.checkpoints.lab.arms.synthetic import Curated, Generation, Synthetic
from byrote.checkpoints.lab.batches import Batches
from byrote.checkpoints.lab.clamping import copied_logits, forced_pattern, install
from byrote.checkpoints.lab.corpus_facts import data_facts, ngram_facts
from byrote.checkpoints.lab.masks import seen_bigrams
from byrote.checkpoints.lab.model import build_model, mean_loss
from byrote.checkpoints.lab.run_grid import grid_from
from byrote.checkpoints.lab.source import ArmStream, draw
from byrote.checkpoints.lab.stack import padded
from byrote.checkpoints.lab.together import stacks_of

SOURCE = SourceConfig(d_vocab=16, n_ctx=12, block_min=3, block_max=4)
OF_EACH_KIND = {
    "repeated": Repeated(0.5, 3),
    "control": Control(0.25),
    "epochs": Epochs(0.75, 5),
    "synthetic": Synthetic(0.5, generator="../g"),
    "generation": Generation(0.5, 4, generator="../g", regime="accumulate"),
    "curated": Curated(0.5, 4, generator="../g"),
    "edited": Edited(0.5, prior="../g"),
    "masked": Masked(),
    "noisy": Noisy(0.5),
    "unreliable": Unreliable(0.5, 0.5),
    "planted": Planted(2, 2),
    "selected": Selected(0.5, large="../g", small="../h"),
    "clamped": Clamped(),
    "continued": Continued("../g"),
    "replay": Replay(0.5, of="../g"),
    "rephrased": Rephrased(0.5, 3, 2),
    "questions": Questions(0.5, 4),
    "repetition_dropout": RepetitionDropout(),
    "reweighted": Reweighted(0.5, 4),
    "rest_em": RestEM(0.5, 4, base="../g", generator="../g"),
    "subsets": Subsets(4, 2),
}  # fmt: skip


def stream(*parts, seed=0, steps=6, inputs=None, source=SOURCE):
    made = None if inputs is None else lambda: inputs
    return ArmStream(source, Arm.of(*parts), seed=seed, batch=8, steps=steps, inputs=made)


def rows(n, first=100):
    """Sequences that say which one they are: row i holds first + i throughout."""
    return np.repeat(np.arange(first, first + n)[:, None], SOURCE.n_ctx + 1, axis=1)


def test_fresh_sequences_come_first_then_the_parts_in_their_order():
    made = {"0.tokens": rows(14).astype(np.uint8)}
    mixed = stream(Synthetic(0.25, generator="../g"), Repeated(0.25, 3), Control(0.125), inputs=made)
    batches = mixed.batches(2, 2)
    assert batches.shape == (2, 7, 13)  # 3 fresh, 2 synthetic, 2 repeated; one place is left out
    unique = stream().batches(2, 2)
    assert (batches[:, :3] == unique[:, :3]).all()
    assert batches[:, 3:5, 0].tolist() == [[104, 105], [106, 107]]  # step 2 shows the fifth and sixth
    pool = draw(SOURCE, seed=0, stream="pool", index=0, n=3).wide
    assert (batches[:, 5:] == pool[mixed.members(2, 2)]).all()
    assert mixed.repeat_counts(6).tolist() == [4, 4, 4]
    assert mixed.arm.kind == "synthetic+repeated+control"
    assert (mixed.arm.repeat_frac, mixed.arm.pool_size) == (0.25, 3)
    assert mixed.arm.synthetic_share == pytest.approx(0.25 / 0.875)
    assert LabConfig(source=SOURCE, arm=mixed.arm, batch=8, steps=6).tokens_seen(2) == 2 * 7 * 12


@pytest.mark.parametrize("kind", [name for name in ARMS if name != "unique"])
def test_an_arm_and_its_controls_see_the_same_fresh_sequences(kind):
    arm = Arm.of(OF_EACH_KIND[kind])
    n_fresh = 8 - sum(arm.n_places(8))
    unique = stream().batches(3, 1)[0, :n_fresh]
    assert arm.controls(), "every arm names its control"
    for control in arm.controls().values():
        if any(part.made_before for part in control.made_of):
            first = control.made_of[0]
            chosen = [getattr(first, name, "") for name in ("score", "by", "accepted", "weights", "subject")]
            assert {"random", "shuffled", "other"}.intersection(chosen) or first.gives_weights
            continue
        if kind == "planted":
            continue  # members stand in place of fresh sequences: a test of their own
        seen = ArmStream(SOURCE, control, seed=0, batch=8, steps=6).batches(3, 1)[0]
        assert (seen[:n_fresh] == unique).all()


def test_edited_sequences_stand_where_their_originals_stand_in_the_control():
    for corpus in (0, 5):
        unedited = stream(Epochs(0.5, corpus) if corpus else Noisy(1e-12)).batches(0, 6)[:, 4:]
        edited = stream(Edited(0.5, corpus, prior="../g"))
        originals = edited.places[0].originals(corpus).wide
        again = stream(Edited(0.5, corpus, prior="../g"), inputs={"0.tokens": originals.astype(np.uint8)})
        assert (again.batches(0, 6)[:, 4:] == unedited).all()


def test_a_corpus_is_gone_through_as_a_whole_before_anything_comes_again():
    shown = stream(Epochs(1.0, 12), seed=3).batches(0, 6).reshape(4, 12, 13)
    corpus = {row.tobytes() for row in draw(SOURCE, seed=3, stream="train", index=0, n=12).wide}
    for epoch in shown:
        assert {row.tobytes() for row in epoch} == corpus
    assert not (shown[0] == shown[1]).all()


def test_all_blocks_of_a_generation_are_shown_where_it_accumulates():
    made = {"0.tokens": rows(12), "0.rows": np.array([0, 3, 4, 7, 8, 11])}
    shown = stream(Generation(0.25, 4, regime="accumulate", generator="../g", generation=2), inputs=made)
    first = shown.batches(0, 3)[:, 6:, 0].ravel()
    assert sorted(first.tolist()) == [100, 103, 104, 107, 108, 111]


def test_seen_bigrams_by_hand():
    wide = np.array([[0, 1, 2, 1, 2, 3, 1, 2, 2, 2], [0, 5, 5, 5, 5, 5, 6, 7, 8, 9]])
    #        ends:       01 12 21 12 23 31 12 22 22
    assert seen_bigrams(wide).astype(int).tolist() == [
        [0, 0, 0, 1, 0, 0, 1, 0, 1],
        [0, 0, 1, 1, 1, 0, 0, 0, 0],
    ]


def test_masks_leave_out_inducible_tokens_or_as_many_at_random():
    masked, control = stream(Masked()), stream(Masked("random"))
    drawn, at_random = masked.drawn(1, 3), control.drawn(1, 3)
    assert (drawn.wide == stream().batches(1, 3)).all()
    assert (drawn.counted == ~seen_bigrams(drawn.wide)).all()
    assert (at_random.counted.sum(-1) == drawn.counted.sum(-1)).all()
    assert (at_random.counted != drawn.counted).any()
    assert (at_random.counted[1:] == control.drawn(2, 2).counted).all()  # a step depends on its number alone


def test_only_counted_tokens_are_in_the_loss_alone_and_in_a_stack():
    config = LabConfig(source=SOURCE, d_model=8, n_heads=1, d_head=8, batch=2)
    model = build_model(config)
    wide = torch.from_numpy(draw(SOURCE, seed=0, stream="train", index=0, n=2).wide)
    counted = torch.zeros((2, 12), dtype=torch.bool)
    counted[0, 3] = counted[1, 7] = True
    log_probs = model(wide[:, :-1]).log_softmax(-1)
    by_hand = -(log_probs[0, 3, wide[0, 4]] + log_probs[1, 7, wide[1, 8]]) / 2
    assert mean_loss(model, wide, counted).item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert mean_loss(model, wide, counted & False).item() == 0

    batch = Batches(wide[None].numpy(), counted[None].numpy())
    _, share = padded([batch, Batches(wide[None, :1].numpy())])
    assert share[0, 0].nonzero().tolist() == [[0, 3], [1, 7]]
    assert share[0, 0].sum() == share[0, 1].sum() == 1
    assert share[0, 1, 1].sum() == 0


def test_noise_changes_the_stated_share_and_never_bos():
    noisy, clean = stream(Noisy(0.3), steps=400).batches(0, 400), stream(steps=400).batches(0, 400)
    assert (noisy[..., 0] == 0).all()
    assert (noisy[..., 1:] > 0).all()
    changed = (noisy != clean)[..., 1:]
    expected = 0.3 * 14 / 15  # a draw may give the token that was there
    assert changed.mean() == pytest.approx(expected, abs=4 * (expected / changed.size) ** 0.5)
    assert (noisy[50:60] == stream(Noisy(0.3), steps=400).batches(50, 10)).all()


def test_n_gram_statistics_by_hand():
    """Two sequences of 4: 1 2 1 2 and 3 3 3 3. Bigrams 12 21 12 33 33 33; again: 12 once, 33 twice."""
    facts = ngram_facts(np.array([[0, 1, 2, 1, 2], [0, 3, 3, 3, 3]]))
    half, quarter, third, sixth = (-p * np.log(p) for p in (1 / 2, 1 / 4, 1 / 3, 1 / 6))
    assert facts["unigram_entropy_nats"] == pytest.approx(half + 2 * quarter)
    assert facts["bigram_entropy_nats"] == pytest.approx(half + third + sixth)
    assert facts["bigram_top_1pct_mass"] == 0.5
    assert facts["inducible_frac"] == 3 / 8
    assert facts["induction_signal_frac"] == 3 / 8  # neither sequence says anything about the other
    both = ngram_facts(np.array([[0, 1, 2, 1, 2], [0, 1, 2, 3, 4]]))
    assert (both["inducible_frac"], both["induction_signal_frac"]) == (1 / 8, 0)
    assert (facts["rep_2_frac"], facts["rep_3_frac"], facts["rep_4_frac"]) == (3 / 6, 1 / 4, 0)


def test_facts_are_of_what_is_trained_on():
    facts = data_facts(stream(Repeated(0.5, 3)), steps=6)
    assert (facts["n_sequences"], facts["n_steps"]) == (48, 6)
    assert facts["distinct_frac"] == (24 + 3) / 48
    assert facts["hash"] != data_facts(stream(Repeated(0.5, 2)), steps=6)["hash"]
    assert data_facts(stream(Masked()), steps=6)["counted_frac"] < 1


def test_arms_are_written_as_tables():
    plain = Arm.from_table({"kind": "repeated", "share": 0.5, "pool_size": 16})
    assert plain == Arm("repeated", 0.5, 16) == Arm.of(Repeated(0.5, 16))
    assert Arm.from_table({"kind": "unique"}) == Arm() == Arm.of()
    tables = [
        {"kind": "synthetic", "share": 0.5, "generator": "human"},
        {"kind": "repeated", "share": 0.25, "pool_size": 4},
    ]
    whole = Arm.of(Repeated(1.0, 8))
    assert Arm.from_table({"parts": whole.definition()["parts"]}) == whole
    with pytest.raises(ByroteError, match="mixes unique and repeated data"):
        Arm.from_table({"kind": "repeated", "share": 1.0, "pool_size": 8})
    mixed = Arm.from_table({"parts": tables})
    assert mixed == Arm.of(Synthetic(0.5, generator="human"), Repeated(0.25, 4))
    assert mixed.needs == ("human",)
    moved = mixed.with_runs({"human": "../../../human/d8/seed0"})
    written = moved.definition()
    assert Arm.from_table({"parts": written["parts"]}) == moved
    assert describe_arm(written) == (
        "50% of the data sampled from human at temperature 1; 25% of the data repeated, from a pool of 4"
    )
    assert (
        describe_arm({"kind": "synthetic", "parts": [{"kind": "synthetic", "share": "all"}]}) == "synthetic"
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"kind": "sinthetic"}, "did you mean 'synthetic'"),
        ({"kind": "synthetic", "generator": "g", "temprature": 1.0}, "did you mean 'temperature'"),
        ({"kind": "synthetic", "generator": "g", "temperature": float("inf")}, "which is not of type float"),
        ({"kind": "synthetic", "generator": "g", "temperature": 0.0}, "use above 0"),
        ({"kind": "synthetic", "generator": "g", "corpus": True}, "which is not of type int"),
        ({"kind": "synthetic", "generator": "g", "corpus": 1 << 40}, "corpus of the arm synthetic"),
        ({"kind": "synthetic"}, "generator of the arm synthetic is ''"),
        ({"kind": "edited", "prior": "g", "edited": "everything"}, "use any or no_copies"),
        ({"kind": "repeated", "share": "half"}, "give a number"),
        ({"kind": 3}, "write the name of an arm"),
        ({"parts": []}, "a list of 1 to 8 tables"),
        ({"parts": [{"kind": "noisy"}] * 9}, "a list of 1 to 8 tables"),
        ({"parts": [{"kind": "noisy"}], "share": 0.5}, "and nothing beside it"),
        (
            {"parts": [{"kind": "epochs", "share": 0.6}, {"kind": "control", "share": 0.6}]},
            "take 1.2 of each batch",
        ),
    ],
)
def test_tables_that_make_no_arm_are_refused(table, said):
    with pytest.raises(ByroteError) as refused:
        Arm.from_table(table)
    assert said in str(refused.value)


def test_what_a_batch_cannot_realise_is_refused():
    with pytest.raises(ByroteError, match="less than one sequence"):
        stream(Epochs(0.01, 2))
    with pytest.raises(ByroteError, match="is not used up by 6 steps"):
        stream(Epochs(0.5, 25))
    with pytest.raises(ByroteError, match="other shares"):
        LabConfig(source=SOURCE, arm=Arm.of(Control(0.97), Epochs(0.03, 2)), batch=16, steps=6)


GRID = """
recipe = "tiled-small"
seeds = 2
[arms.human]
[arms.syn]
kind = "synthetic"
share = 0.5
generator = "human"
control = "human"
[arms.next]
kind = "generation"
generator = "human"
control = "human"
"""


def test_runs_of_a_grid_wait_for_those_they_are_made_from():
    import tomllib

    table = tomllib.loads(GRID)
    table["arms"]["human"] = {"kind": "unique"}
    plan = grid_from(table).plan()
    waves = [[plan.runs[k].arm for stack in wave for k in stack] for wave in plan.waves()]
    assert waves == [["human"] * 2, ["syn"] * 2 + ["next"] * 2]
    syn = plan.runs[3]
    assert (syn.folder, syn.needs) == ("syn/d16/seed1", ("human/d16/seed1",))
    (named,) = syn.config.arm.needs
    assert (Path("/g") / syn.folder / named).resolve() == Path("/g/human/d16/seed1")

    for change, said in (
        ({"generator": "humans"}, "which is not an arm of the grid. did you mean 'human'"),
        ({"generator": "next"}, "in a circle"),
        ({"control": ""}, "names no control"),
        ({"settings": {"source": {"block_min": 7}}}, "are compared, but have different sources"),
    ):
        changed = {**table["arms"], "next": {**table["arms"]["next"], **change}}
        with pytest.raises(ByroteError) as refused:
            grid_from({**table, "arms": changed}).plan()
        assert said in str(refused.value)


def test_an_arm_is_the_same_however_it_is_replaced():
    config = LabConfig(source=SOURCE, arm=Arm.of(Epochs(0.5, 5)), batch=8, steps=6)
    assert replace(config, seed=1).arm == config.arm
    assert hash(config.arm) == hash(Arm.of(Epochs(0.5, 5)))


@pytest.mark.parametrize("tokens", ["random", "source"])
def test_members_are_planted_as_often_as_they_say_and_halves_stand_where_all_do(tokens):
    """Counts 0, 1, 2, 4 with 3 members each: 21 of 160 sequences."""
    large = replace(SOURCE, d_vocab=512)  # no fresh sequence is a member by chance
    arms = ((), (Planted(4, 3, tokens),), (Planted(4, 3, tokens, "even"),))
    plain, whole, even = (stream(*parts, steps=20, source=large) for parts in arms)
    fresh, shown, half = (one.batches(0, 20) for one in (plain, whole, even))
    members = whole.pool.wide
    found = [int((shown == member).all(-1).sum()) for member in members]
    assert found == whole.repeat_counts(20).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 4, 4, 4]
    assert even.repeat_counts(20).tolist() == [0, 0, 0, 0, 1, 0, 2, 0, 2, 0, 4, 0]
    planted = (shown != fresh).any(-1)
    assert planted.sum() == 21
    is_even = (shown[:, :, None] == members[None, None, ::2]).all(-1).any(-1)
    assert (half == np.where(is_even[..., None], shown, fresh)).all()
    early = [int((shown[:7] == member).all(-1).sum()) for member in members]
    assert whole.repeat_counts(7).tolist() == early
    assert (whole.batches(5, 4) == shown[5:9]).all()
    with pytest.raises(ByroteError, match="more than half of the 40"):
        stream(Planted(4, 3), steps=5)


def test_members_are_planted_among_fresh_sequences_alone():
    made = {"0.tokens": rows(26)}
    mixed = stream(Synthetic(0.5, 26, generator="../g"), Planted(4, 2), steps=20, inputs=made).batches(0, 20)
    assert (mixed[:, 4:, 0] >= 100).all()
    assert (mixed[:, :4, 0] == 0).all()


def test_forced_patterns_by_hand():
    """Tokens 0 5 6 5 6 5: from the third token on each stood before."""
    tokens = torch.tensor([[0, 5, 6, 5, 6, 5]])
    attended = {name: forced_pattern(name, tokens)[0] for name in ("previous_token", "induction", "uniform")}
    assert attended["previous_token"].argmax(-1).tolist() == [0, 0, 1, 2, 3, 4]
    assert attended["induction"].argmax(-1).tolist() == [0, 0, 0, 2, 3, 4]
    assert attended["uniform"][3].tolist() == pytest.approx([0.25] * 4 + [0, 0])
    for pattern in attended.values():
        assert torch.allclose(pattern.sum(-1), torch.ones(6))
        assert not pattern.triu(1).any()


def test_a_clamp_replaces_one_head_and_nothing_else():
    """The head's output by hand from its values; its queries and keys no longer matter, those of the other head do."""
    config = LabConfig(source=SOURCE, n_layers=1, d_model=8, n_heads=2, d_head=4, init_std=0.5)
    tokens = torch.from_numpy(draw(SOURCE, seed=0, stream="train", index=0, n=3).tokens)
    model, clamped = build_model(config), build_model(config)
    install(Clamped(0, 1), clamped)
    block = model.layers[0]
    hidden = model.tok_embed(tokens) + model.pos(torch.arange(12))
    _, pattern = block.attn(block.ln1(hidden))
    values = block.attn.v(block.ln1(hidden)).view(3, 12, 2, 4).transpose(1, 2)
    z = pattern @ values
    z[:, 1] = values[:, 1][:, [0, *range(11)]]  # each position has the value of the token before
    by_hand = model.head(model.ln_out(hidden + block.attn.o(z.transpose(1, 2).reshape(3, 12, 8))))
    assert (clamped(tokens) - by_hand).abs().max() < 1e-5
    loss = mean_loss(clamped, tokens)
    loss.backward()
    keys = clamped.layers[0].attn.k.weight.grad
    assert keys[:4].abs().max() > 0
    assert keys[4:].abs().max() == 0
    with pytest.raises(ByroteError, match=r"no head L1H0.*a layer from 0 to 0"):
        install(Clamped(1, 0), model)


def test_copies_are_kept_in_their_share_of_the_sequences_as_often_as_said():
    source = SourceConfig(d_vocab=64, n_ctx=23, block_min=6, block_max=6)
    was = stream(source=source).batches(0, 200)
    copies = seen_bigrams(was)
    kept = (stream(Unreliable(0.25, 0.5), source=source).batches(0, 200) == was)[..., 1:]
    assert kept[~copies].all()  # nothing else is touched
    share = (kept & copies).sum(-1) / copies.sum(-1)
    repeating = share > 0.25  # of 16 copies; of those that are all replaced 1 in 63 is drawn again
    assert repeating.mean() == pytest.approx(0.25, abs=0.03)
    assert share[repeating].mean() == pytest.approx(0.5 + 0.5 / 63, abs=0.02)
    assert share[~repeating].mean() == pytest.approx(1 / 63, abs=0.01)
    assert (stream(Unreliable(1.0, 1.0), source=source).batches(0, 3) == was[:3]).all()


def test_a_head_that_is_clamped_to_copy_raises_what_it_attends_to_and_writes_nothing():
    attention = torch.tensor([[[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.5, 0.2, 0.3]]])
    raised = copied_logits(attention, torch.tensor([[2, 1, 2]]), d_vocab=4) / (2 * np.log(4))
    assert raised[0].tolist() == pytest.approx(np.array([[0, 0, 1, 0], [0, 0.75, 0.25, 0], [0, 0.2, 0.8, 0]]))
    config = LabConfig(source=SOURCE, n_layers=1, d_model=8, n_heads=2, d_head=4, init_std=0.5)
    tokens = torch.from_numpy(draw(SOURCE, seed=0, stream="train", index=0, n=3).tokens)
    model, clamped = build_model(config), build_model(config)
    install(Clamped(0, 1, "copying"), clamped)
    _, pattern = model.layers[0].attn(
        model.layers[0].ln1(model.tok_embed(tokens) + model.pos(torch.arange(12)))
    )
    with torch.no_grad():
        model.layers[0].attn.o.weight[:, 4:] = 0  # the second head writes nothing
    by_hand = model(tokens) + copied_logits(pattern[:, 1], tokens, d_vocab=16)
    assert (clamped(tokens) - by_hand).abs().max() < 1e-5
    mean_loss(clamped, tokens).backward()
    attn = clamped.layers[0].attn
    assert attn.k.weight.grad[4:].abs().max() > 0  # what it attends to is learned
    assert attn.v.weight.grad[4:].abs().max() == attn.o.weight.grad[:, 4:].abs().max() == 0


def test_runs_with_a_clamp_are_not_stacked():
    base = LabConfig(source=SOURCE, d_model=8, n_heads=1, d_head=8, batch=4)
    configs = [base, replace(base, seed=1), replace(base, arm=Arm.of(Clamped())), replace(base, seed=2)]
    assert stacks_of(configs) == ((0, 1, 3), (2,))
