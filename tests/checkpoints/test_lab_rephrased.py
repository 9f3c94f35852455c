"""Documents in other words, questions about them, repetition dropout, and corpora reweighted by their n-grams."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import optimize

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, LabConfig, SourceConfig, train
from byrote.checkpoints.lab.arms.masked import Masked, RepetitionDropout
from byrote.checkpoints.lab.arms.repeats import Repeated
from byrote.checkpoints.lab.arms.rephrased import Questions, Rephrased
from byrote.checkpoints.lab.arms.reweighted import Reweighted
from byrote.checkpoints.lab.batches import Batches, places_of
from byrote.checkpoints.lab.corpus_facts import data_facts
from byrote.checkpoints.lab.folder import SeriesFolder
from byrote.checkpoints.lab.masks import seen_ngrams
from byrote.checkpoints.lab.model import build_model, mean_loss
from byrote.checkpoints.lab.questions import Posed, chosen_spans, mentions_of, others_questions
from byrote.checkpoints.lab.rephrasing import shared_bigrams
from byrote.checkpoints.lab.reweighting import balanced, not_seen_before, sampled_rows, seen_before
from byrote.checkpoints.lab.source import ArmStream, draw
from byrote.checkpoints.lab.sources import source_named
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.stack import left_out, padded
from byrote.checkpoints.lab.stacked_model import StackedModel

NAMES = replace(source_named("names"), d_vocab=24, n_ctx=24, start_frac=0.4, phrase_max=4)
TILED = SourceConfig(d_vocab=16, n_ctx=12, block_min=3, block_max=4)


def _no_run(name, step):
    raise AssertionError("no other run is needed")


def made(part, source=NAMES, *, seed=0, batch=8, steps=12):
    """The stream of an arm of one part with what is made for it, the arrays, and what the manifest says of them."""
    arm = Arm.of(part)
    (places,) = places_of(source, arm, seed=seed, batch=batch, steps=steps)
    found = part.inputs(places, _no_run)
    arrays = {f"0.{name}": array for name, array in found.arrays.items()}
    stream = ArmStream(source, arm, seed=seed, batch=batch, steps=steps, inputs=lambda: arrays)
    return stream, found.arrays, dict(found.facts)


# Other words.


@pytest.mark.parametrize("name", ["names", "graded", "markov", "trigger_bigrams"])
def test_a_phrasing_is_a_draw_of_the_source_that_says_the_same(name):
    source = source_named(name)
    said = [source.rephrased(seed=3, stream="pool", index=2, n=8, phrasing=k) for k in range(3)]
    assert (said[0].wide == draw(source, seed=3, stream="pool", index=2, n=8).wide).all()
    for one in said:
        assert np.isfinite(source.floor_nll(one)[:, 1:]).all()  # the source can produce it
    assert not (said[1].wide == said[2].wide).all(-1).any()
    again = source.rephrased(seed=3, stream="pool", index=5, n=2, phrasing=2)
    assert (again.wide == said[2].wide[3:5]).all()


def test_private_phrases_are_the_same_in_every_phrasing_and_of_no_other_document():
    phrases = []
    for number in range(4):
        rephrased = NAMES.rephrased(seed=0, stream="pool", index=0, n=40, phrasing=number)
        spans = [mentions_of(row) for row in rephrased.mechanism]
        mine = [
            [tuple(row[a:b]) for a, b in where if b < len(row) and b - a > 1]
            for row, where in zip(rephrased.wide.tolist(), spans, strict=True)
        ]
        phrases.append([one[0] if one else None for one in mine])
    by_document = [set(of) - {None} for of in zip(*phrases, strict=True)]
    assert all(len(of) == 1 for of in by_document)
    assert len({next(iter(of)) for of in by_document}) > 35


def test_the_pool_comes_in_the_next_phrasing_every_round_and_counted_word_for_word():
    part = Rephrased(0.5, 3, 2)
    stream, arrays, facts = made(part)
    documents = draw(NAMES, seed=0, stream="pool", index=0, n=3).wide
    shown = stream.batches(0, 12)[:, 4:].reshape(-1, 25)  # 4 places of 12 steps: 16 rounds of 3
    for number, row in enumerate(shown):
        of = [k for k in range(6) if (arrays["tokens"][k] == row).all()]
        assert [k // 3 for k in of] == [number // 3 % 2]
    word_for_word = np.cumsum([(row == documents).all(-1) for row in shown], axis=0)
    for steps in range(1, 13):
        assert (stream.repeat_counts(steps) == word_for_word[4 * steps - 1]).all()
    assert (stream.batches(5, 3) == stream.batches(0, 12)[5:8]).all()
    assert facts["word_for_word_frac"] == 0
    assert facts["shared_bigrams_frac"] == shared_bigrams(arrays["tokens"][3:], documents)
    assert 0.2 < facts["shared_bigrams_frac"] < 0.8


def test_one_phrasing_is_the_pool_as_it_is():
    rephrased, _, facts = made(Rephrased(0.5, 3, 1))
    word_for_word = ArmStream(NAMES, Arm.of(Repeated(0.5, 3)), seed=0, batch=8, steps=12)
    assert (rephrased.batches(0, 12) == word_for_word.batches(0, 12)).all()
    assert (rephrased.repeat_counts(7) == word_for_word.repeat_counts(7)).all()
    assert "word_for_word_frac" not in facts


def test_shared_bigrams_by_hand():
    assert shared_bigrams(np.array([[0, 1, 2, 3, 1]]), np.array([[0, 2, 3, 1, 2]])) == 1.0
    assert (
        shared_bigrams(np.array([[0, 1, 2, 3], [0, 4, 4, 4]]), np.array([[0, 2, 1, 2], [0, 1, 2, 3]]))
        == 1 / 3
    )


def test_what_cannot_be_rephrased_or_questioned_is_refused():
    with pytest.raises(ByroteError, match="cannot be rephrased") as refused:
        made(Rephrased(0.5, 3, 2), TILED)
    assert "names or graded" in refused.value.help
    with pytest.raises(ByroteError, match="more than the 48 sequences"):
        made(Rephrased(0.5, 3, 17))
    with pytest.raises(ByroteError, match="mention nothing that a question"):
        made(Questions(0.5, 4), TILED)
    with pytest.raises(ByroteError, match="question_token 24 is not one of the 24"):
        made(Questions(0.5, 4, question_token=24))


# Questions.


def test_mentions_and_questions_by_hand():
    """A phrase at 2 to 4, a single token at 7 with the one before it as its cue, and one that the end cuts."""
    new, other = CODES["first_mention"], CODES["table"]
    codes = [CODES["bos"], other, new, new, new, other, other, new, other, other, other, new]
    mechanism = np.array(codes, dtype=np.int8)
    assert mentions_of(mechanism) == [(2, 5), (6, 8), (10, 12)]
    first, second = np.array([1, 2, 3], dtype=np.uint64), np.array([2, 1, 3], dtype=np.uint64)
    three = [(2, 5), (6, 8), (10, 12)]
    assert chosen_spans(three, first, width=12, questions=1) == Posed(((2, 5),), 8)
    assert chosen_spans(three, second, width=12, questions=1) == Posed(((6, 8),), 9)
    # with both, 12 - 4 - 3 = 5 tokens are left: the phrase still stands in them and the other does not; twice it does not fit
    assert chosen_spans(three, first, width=12, questions=2) == Posed(((2, 5),), 8)
    assert chosen_spans([(2, 5)], first, width=13, questions=2) == Posed(((2, 5), (2, 5)), 5)
    assert chosen_spans([], first, width=12, questions=1) == Posed((), 12)
    alike = [Posed(((1, 4),), 9), Posed((), 9), Posed(((3, 6),), 9), Posed(((1, 3),), 9), Posed(((2, 5),), 9)]
    assert others_questions(alike).tolist() == [2, 1, 4, 3, 0]


def test_questions_are_about_what_the_document_says_and_the_control_what_another_one_says():
    documents = draw(NAMES, seed=0, stream="train", index=0, n=40).wide
    _, own, facts = made(Questions(1.0, 40))
    _, other, control = made(Questions(1.0, 40, subject="other"))
    assert facts["answered_frac"] == 1 and control["answered_frac"] < 0.1
    assert facts["questioned_frac"] == control["questioned_frac"] > 0.9
    placed = [row[1:].tolist().index(0) + 1 if 0 in row[1:] else None for row in own["tokens"]]
    blocks = Counter(), Counter()
    for mine, its, document, at in zip(own["tokens"], other["tokens"], documents, placed, strict=True):
        if at is None:
            assert (mine == document).all() and (its == document).all()
            continue
        assert (mine[:at] == document[:at]).all() and (its[:at] == document[:at]).all()
        said = mine[at + 1 :].tolist()
        assert any(document[k : k + len(said)].tolist() == said for k in range(1, at - len(said) + 1))
        for counter, row in zip(blocks, (mine, its), strict=True):
            counter[tuple(row[at:])] += 1
    assert blocks[0] == blocks[1]  # the same questions, after other documents
    assert facts["answer_frac"] == sum(
        len(row[at:]) - 2 for row, at in zip(own["tokens"], placed, strict=True) if at
    ) / (40 * 24)


def test_documents_with_questions_stand_where_they_stand_without():
    """With corpus = 0 each is the sequence of its place in the unique arm, cut and with its questions."""
    stream, _, _ = made(Questions(0.5))
    shown = stream.batches(3, 2)[:, 4:]
    plain = ArmStream(NAMES, Arm(), seed=0, batch=8).batches(3, 2)[:, 4:]
    assert (shown[..., :8] == plain[..., :8]).all()
    assert (shown != plain).any()


def test_what_is_made_is_written_with_its_hash_and_facts(tmp_path):
    config = LabConfig(
        source=NAMES,
        arm=Arm.of(Questions(0.5)),
        d_model=8,
        n_heads=1,
        d_head=8,
        batch=4,
        n_held_out=8,
        steps=2,
    )
    folder = SeriesFolder(train(tmp_path / "a", config), config)
    assert folder.manifest["inputs"][0]["kind"] == "questions"
    assert folder.manifest["inputs"][0]["answered_frac"] == 1
    assert "data/inputs.safetensors" in folder.manifest["files"]
    assert folder.manifest["data_facts"]["inducible_frac"] > 0


# Repetition dropout.


def test_seen_trigrams_by_hand():
    wide = np.array([[0, 1, 2, 3, 1, 2, 3, 3, 1, 2, 3]])
    assert seen_ngrams(wide, 3).astype(int).tolist() == [[0, 0, 0, 0, 0, 1, 0, 0, 1, 1]]
    assert seen_ngrams(wide, 2).astype(int).tolist() == [[0, 0, 0, 0, 1, 1, 0, 1, 1, 1]]


def dropped(**settings):
    return ArmStream(TILED, Arm.of(RepetitionDropout(**settings)), seed=0, batch=8, steps=40).drawn(0, 40)


def test_repeated_tokens_are_dropped_with_their_rate_and_as_many_at_random():
    whole = ArmStream(TILED, Arm.of(Masked()), seed=0, batch=8, steps=40).drawn(0, 40)
    assert (dropped(rate=1.0, how="loss").counted == whole.counted).all()
    repeated = ~whole.counted
    half = ~dropped(rate=0.5, how="loss").counted
    assert not (half & ~repeated).any()
    assert half.sum() / repeated.sum() == pytest.approx(0.5, abs=4 * 0.5 / repeated.sum() ** 0.5)
    at_random = ~dropped(rate=0.5, how="loss", dropped="random").counted
    assert (at_random.sum(-1) == half.sum(-1)).all() and (at_random & ~repeated).any()
    read, attended = dropped(rate=0.5, how="input"), dropped(rate=0.5)
    assert ((read.read == 0)[..., 1:] == ~attended.attended[..., 1:]).all()  # the same draw
    assert attended.attended[..., 0].all() and (read.wide == whole.wide).all()
    assert (np.where(attended.attended, read.read, read.wide[..., :-1]) == read.wide[..., :-1]).all()
    later = ArmStream(TILED, Arm.of(RepetitionDropout(rate=0.5)), seed=0, batch=8, steps=40).drawn(7, 3)
    assert (later.attended == attended.attended[7:10]).all()
    facts = data_facts(
        ArmStream(TILED, Arm.of(RepetitionDropout(rate=1.0)), seed=0, batch=8, steps=40), steps=40
    )
    assert facts["attended_frac"] == pytest.approx(1 - repeated[..., :-1].sum() / attended.attended.size)


def test_what_is_dropped_is_not_attended_to_alone_and_in_a_stack():
    """By hand from one layer's pattern; a stack of two runs, one of which drops nothing."""
    config = LabConfig(source=TILED, n_layers=1, d_model=8, n_heads=2, d_head=4, init_std=0.5, batch=3)
    other = replace(config, seed=1)
    wide = torch.from_numpy(draw(TILED, seed=0, stream="train", index=0, n=3).wide)
    attended = torch.ones((3, 12), dtype=torch.bool)
    attended[0, [2, 5]] = attended[2, 7] = False
    model = build_model(config)
    block, tokens = model.layers[0], wide[:, :-1]
    hidden = model.tok_embed(tokens) + model.pos(torch.arange(12))
    _, pattern = block.attn(block.ln1(hidden))
    left = pattern * attended[:, None, None]
    values = block.attn.v(block.ln1(hidden)).view(3, 12, 2, 4).transpose(1, 2)
    z = (left / left.sum(-1, keepdim=True)) @ values
    logits = model.head(model.ln_out(hidden + block.attn.o(z.transpose(1, 2).reshape(3, 12, 8))))
    by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wide[:, 1:].flatten())
    alone = mean_loss(model, wide, attended=attended)
    assert alone.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert alone.item() != pytest.approx(mean_loss(model, wide).item(), rel=1e-4)

    read = tokens.clone()
    read[1, 4] = 0
    batches = [
        Batches(wide[None].numpy(), read=read[None].numpy(), attended=attended[None].numpy()),
        Batches(wide[None, :2].numpy()),
    ]
    stacked = StackedModel([config, other])
    both, share = padded(batches)
    shown = left_out(batches)
    nll = stacked.token_nll(both[0], read=shown[0][0], attended=shown[1][0])
    losses = (nll * share[0].float()).sum((1, 2)).tolist()
    assert losses == pytest.approx(
        [mean_loss(model, wide, None, read, attended).item(), mean_loss(build_model(other), wide[:2]).item()],
        rel=1e-5,
    )
    with pytest.raises(ByroteError, match="attention only in the native and llama"):
        mean_loss(torch.nn.Embedding(16, 16), wide, attended=attended)


# Reweighting.


def test_weights_nearest_to_equal_ones_by_hand_and_by_another_route():
    """Three documents with x = 2 and five with x = -1 balance at weights 1/3 and 2/3 of the whole."""
    weights = balanced(np.array([[2.0]] * 3 + [[-1.0]] * 5))
    assert weights == pytest.approx([1 / 9] * 3 + [2 / 15] * 5)
    x = np.random.default_rng(0).normal(0.4, 1, (50, 2))
    found = balanced(x)
    assert np.abs(found @ x).max() < 1e-9 and found.sum() == pytest.approx(1)
    best = optimize.minimize(
        lambda w: float((w * np.log(w * 50)).sum()), np.full(50, 1 / 50), method="SLSQP", bounds=[(1e-9, 1)] * 50,
        constraints=[{"type": "eq", "fun": lambda w: np.append(w @ x, w.sum() - 1)}], options={"maxiter": 200},
    )  # fmt: skip
    assert best.success and np.abs(found - best.x).max() < 1e-3
    with pytest.raises(ByroteError, match="no weighting of these documents"):
        balanced(np.array([[1.0], [2.0], [0.5]]))


def test_a_sampled_corpus_by_hand():
    assert sampled_rows(np.array([0.5, 0.25, 0.25]), 4, 0.5).tolist() == [0, 0, 1, 2]
    assert sampled_rows(np.array([0.5, 0.1, 0.4]), 4, 0.1).tolist() == [0, 0, 1, 2]
    assert sampled_rows(np.array([0.5, 0.1, 0.4]), 4, 0.7).tolist() == [0, 0, 2, 2]


def test_n_grams_lose_their_correlation_and_shuffled_weights_keep_it():
    stream, arrays, facts = made(Reweighted(1.0, 96, ngrams=2), batch=8)
    assert facts["ratio_weighted"] == pytest.approx(1, abs=1e-7)
    assert facts["ratio_before"] > 3 and abs(facts["ratio_after"] - 1) < 0.35
    _, _, control = made(Reweighted(1.0, 96, ngrams=2, weights="shuffled"))
    assert control["ratio_after"] > 3
    assert (
        control["effective_frac"] == pytest.approx(facts["effective_frac"]) and facts["effective_frac"] < 0.9
    )
    # by another route: the strongest bigram of the candidates, counted in what is trained on
    counts = np.zeros((24, 24))
    wide = draw(NAMES, seed=0, stream="train", index=0, n=4 * 96).wide
    np.add.at(counts, (wide[:, 1:-1], wide[:, 2:]), 1)
    joint, row, column = counts / counts.sum(), counts.sum(1), counts.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.nan_to_num(joint * np.log(joint * counts.sum() ** 2 / np.outer(row, column)))
    a, b = np.unravel_index(information.argmax(), information.shape)

    def ratio(tokens):
        before, after = tokens[:, 1:-1], tokens[:, 2:]
        return (after[before == a] == b).mean() / (after == b).mean()

    assert ratio(wide) > 3 and ratio(arrays["tokens"]) < 1.6
    shown = stream.batches(0, 12).reshape(-1, 25)
    assert {row.tobytes() for row in shown} <= {row.tobytes() for row in arrays["tokens"].astype(np.int64)}


def test_documents_that_repeat_earlier_ones_are_left_out_by_hand():
    """Bigrams: the second document repeats two of three, the third two where the second is retained and none else, the fourth one."""
    wide = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 5], [0, 3, 5, 3, 5], [0, 6, 1, 2, 6]])
    assert not_seen_before(wide, n=2, most=0.5).tolist() == [True, False, True, True]
    assert not_seen_before(wide, n=2, most=0.3).tolist() == [True, False, True, False]
    assert not_seen_before(wide, n=2, most=0.7).tolist() == [True, True, True, True]
    assert seen_before(wide, 2) == (0 + 2 + 2 + 1) / 12


def test_thinned_out_and_at_random_leave_as_many():
    _, arrays, facts = made(Reweighted(1.0, 96, by="duplicates", n=3, most=0.2))
    _, others, control = made(Reweighted(1.0, 96, by="duplicates", n=3, most=0.2, weights="shuffled"))
    assert arrays["tokens"].shape == others["tokens"].shape
    assert facts["seen_frac_after"] < control["seen_frac_after"] < facts["seen_frac_before"]
