"""Perplexity of corpora: losses against transformers' own, numbers by hand, and what a model cannot read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.texts import Chunk
from byrote.checkpoints.tokenizing import open_tokenizer
from byrote.probes.statistics import pair_interval
from byrote.probes.text import TextSettings, measure_text
from byrote.probes.text.perplexity import (
    BINS,
    TENTHS,
    Excerpts,
    Reader,
    numbers,
    overlap,
    share_below_p25,
    tail_ratio,
)

D_VOCAB, BOS = 61, 0


def reader(path: Path, **changes) -> Reader:
    return Reader(path, **{"tokenizer": None, "context": 32, "device": "cpu", "dtype": "float32"} | changes)


def ids(n: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, D_VOCAB, size=(n, length))


def make_tokenizer(path: Path, words: int = D_VOCAB) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(words)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(path))
    return path


def test_losses_are_transformers_own(hf_series):
    """BOS first, then every token of the stretch is predicted; lengths differ, so some rows are padded."""
    from transformers import AutoModelForCausalLM

    series = hf_series("llama", 2)
    rows = [row[:length] for row, length in zip(ids(9, 32), (32, 3, 20, 1, 32, 7, 31, 2, 16), strict=True)]
    found = reader(series).losses(rows)
    model = AutoModelForCausalLM.from_pretrained(series / "step1", attn_implementation="eager").eval()
    expected = []
    for row in sorted(rows, key=len):
        tokens = torch.tensor([[BOS, *row]])
        with torch.inference_mode():
            log_p = model(tokens).logits[0, :-1].log_softmax(-1)
        own = log_p.gather(-1, tokens[0, 1:, None])
        tenths = np.histogram(own.exp().numpy(), np.linspace(0, 1, TENTHS + 1))[0]
        expected.append([-own.sum().item(), len(row), int((own.exp() >= 0.99).sum()), *tenths])
    assert found.tolist() == pytest.approx(np.asarray(expected), rel=1e-4)


def test_a_bos_that_is_there_is_not_put_twice(hf_series):
    read = reader(hf_series("gpt2", 1))
    row = ids(1, 10)[0]
    assert read.losses([np.concatenate([[BOS], row])]).tolist() == read.losses([row]).tolist()


def test_stretches_are_cut_to_what_the_model_can_read(hf_series):
    read = reader(hf_series("gpt2", 1), context=500)
    assert read.context == 63  # 64 positions, one for BOS
    assert read.losses([ids(1, 200)[0]])[0, 1] == 63


def test_text_is_read_by_the_models_own_tokenizer(hf_series, tmp_path):
    series = hf_series("gpt2", 1)
    make_tokenizer(series / "step0" / "tokenizer.json")
    other = make_tokenizer(tmp_path / "other.json", words=3)
    row = ids(1, 20)[0]
    text = " ".join(f"w{i}" for i in row)
    assert reader(series, tokenizer=other).losses([text]).tolist() == reader(series).losses([row]).tolist()


def test_what_the_model_cannot_read_is_refused(hf_series, tmp_path):
    series = hf_series("gpt2", 1)
    with pytest.raises(ByroteError, match=r"no tokenizer\.json beside it"):
        reader(series).losses(["some text"])
    with pytest.raises(ByroteError, match="id 61 is not in the model's vocabulary of 61"):
        reader(series).losses([np.asarray([1, 61])])
    with pytest.raises(CheckpointError):
        reader(tmp_path / "nowhere")


def counted(losses: np.ndarray) -> np.ndarray:
    """With 40% of the tokens editable, half in the first tenth and half in the last."""
    tenths = np.zeros((len(losses), TENTHS))
    tenths[:, [0, 9]] = losses[:, 1:] / 2
    return np.concatenate([losses, 0.4 * losses[:, 1:], tenths], axis=1)


def test_numbers_by_hand():
    """Stretches of 10 tokens with losses ln 1 ... ln 101 per token: perplexities 1 ... 101."""
    losses = np.stack([10 * np.log(np.arange(1.0, 102.0)), np.full(101, 10.0)], axis=1)
    found = {n.metric: n for n in numbers(counted(losses), None, n_vocab=512, seed=0)}
    assert found["editable_share"].value == pytest.approx(0.4) and found["editable_share"].n == 101
    assert [found[f"probability_{i}"].value for i in (0, 8, 9)] == pytest.approx([0.5, 0, 0.5])
    assert found["loss"].value == pytest.approx(np.log(np.arange(1, 102)).mean())
    assert found["loss"].chance == pytest.approx(np.log(512))
    for q in (5, 25, 50, 75, 95, 99):
        assert found[f"p{q:02d}"].value == pytest.approx(1 + q)
    assert found["tail_ratio"].value == pytest.approx(100 / 51)
    assert found["p50"].interval[1] < 51 < found["p50"].interval[2]


def test_loss_is_pooled_over_tokens():
    """30 nats over 10 tokens and 2 over 2 are 32 / 12, not the mean of 3 and 1."""
    (loss, *_) = numbers(counted(np.asarray([[30.0, 10.0], [2.0, 2.0]])), None, n_vocab=9, seed=0)
    assert loss.value == pytest.approx(32 / 12)


def test_overlap_by_hand():
    """Ten values each, interleaved in all bins: 1. Apart: 0. Half of one among the other: one half."""
    apart, _, _ = overlap(np.arange(100.0), np.arange(200.0, 300.0))
    same, _, _ = overlap(np.arange(0, 200.0, 2), np.arange(1, 201.0, 2))
    half, _, _ = overlap(
        np.concatenate([np.arange(0, 100.0, 2), np.arange(500.0, 550.0)]), np.arange(1, 101.0)
    )
    assert apart == 0
    assert same == pytest.approx(1)
    assert half == pytest.approx(0.5, abs=1 / BINS)


def test_overlap_without_an_item_is_what_it_says():
    """Left out one by one, with the bins of the whole, for a shift that is not trivial."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 40), rng.normal(0.7, 1, 50)
    edges = np.quantile(np.concatenate([a, b]), np.linspace(0, 1, BINS + 1)[1:-1])

    def direct(x: np.ndarray, y: np.ndarray) -> float:
        shares = [
            np.bincount(np.searchsorted(edges, v, side="right"), minlength=BINS) / len(v) for v in (x, y)
        ]
        return float(np.minimum(*shares).sum())

    _, without_a, without_b = overlap(a, b)
    assert without_a.tolist() == pytest.approx([direct(np.delete(a, i), b) for i in range(40)])
    assert without_b.tolist() == pytest.approx([direct(a, np.delete(b, i)) for i in range(50)])


def test_share_below_the_quartile_by_hand():
    """The lower quartile of 0 to 100 is 25; of -1, 24, 25, 26 two lie below it."""
    assert float(share_below_p25(np.asarray([-1.0, 24, 25, 26]), np.arange(101.0))) == 0.5


def test_interval_of_the_share_below_covers_both_samples():
    """Two samples of one source: 0.25 is inside 95 times in 100, in 150 pairs; were the quartile taken as known, 87."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(150):
        a, b = rng.normal(size=60), rng.normal(size=60)
        _, lo, hi = pair_interval(a, b, share_below_p25, seed=0)
        held += lo <= 0.25 <= hi
    assert held >= 134


def test_tail_ratio_of_draws():
    draws = np.stack([np.arange(1.0, 102.0), np.full(101, 3.0)])
    assert tail_ratio(draws).tolist() == pytest.approx([100 / 51, 1.0])


def test_a_sample_against_its_own_source_overlaps_as_its_halves_do(hf_series, tmp_path):
    series = hf_series("gpt2", 1)
    for name, seed in (("human", 1), ("same", 2)):
        np.save(tmp_path / f"{name}.npy", ids(200, 24, seed))
    settings = TextSettings(context=24, measures=("perplexity",), sample=150)
    report = measure_text(
        [tmp_path / "same.npy"], settings, reference=tmp_path / "human.npy", model=series, threads=1
    )
    found = report.frame[report.frame.corpus == "same.npy"].set_index("metric")
    assert found.value["overlap"] == pytest.approx(found.chance["overlap"], abs=0.15)
    assert found.lo["below_reference_p25"] < 0.25 < found.hi["below_reference_p25"]
    assert (found.n == 150).all()
    assert not report.incomplete


def test_excerpts_are_whole_words_of_one_document():
    """Stretches of 8 bytes per token of context: all of a short document, and no half word of a long one."""
    long = b" ".join(b"word%04d" % i for i in range(2000))
    excerpts = Excerpts(1000, context=16, seed=0)
    excerpts.add_chunk(Chunk([b"a short one", long], [0, 1]))
    short, *stretches = excerpts.items
    assert short == "a short one"
    assert len(stretches) == round(len(long) / 128)
    for i, text in enumerate(stretches):
        assert all(len(word) == 8 for word in text.split(" ")[:-1])
        assert len(text) >= 64 or i == 0


def test_sampled_text_fills_the_windows(hf_series, tmp_path):
    series = hf_series("gpt2", 1)
    make_tokenizer(series / "step0" / "tokenizer.json")
    text = " ".join(f"w{i}" for i in np.random.default_rng(0).integers(1, D_VOCAB, size=20_000))
    (tmp_path / "x.txt").write_text(text)
    settings = TextSettings(context=16, measures=("perplexity",), sample=50)
    frame = measure_text([tmp_path / "x.txt"], settings, model=series).frame
    assert set(frame.n) == {50}
    # Random weights, uniform text: far from good, near guessing.
    loss = frame[frame.metric == "loss"].iloc[0]
    assert loss.value > 0.8 * loss.chance


def test_tokenizers_of_tests_are_read_back(tmp_path):
    with open_tokenizer(make_tokenizer(tmp_path / "t.json")) as made:
        assert made.encode(["w3 w1 nothing"])[0].tolist() == [3, 1, 0]
    assert json.loads((tmp_path / "t.json").read_text())["model"]["type"] == "WordLevel"
