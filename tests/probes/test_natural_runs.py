"""Model-level probes over a series: one pass for what shares a text, text that is given once, models that look ahead."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lookup_models import lookup_state, random_state, write_series
from safetensors.torch import load_file, save_file

from byrote.checkpoints import ByroteError, open_series
from byrote.interp.observe import future_leak
from byrote.probes.degradation import compare
from byrote.probes.registry import REGISTRY, resolve
from byrote.probes.results import Results
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.plan import groups
from byrote.probes.sweep.run import SweepOutcome, sweep
from byrote.probes.sweep.stimulus_set import WINDOWS

NATURAL = ("held_out_loss", "loss_by_position", "inducible_loss")
TEXT_AND_BLOCKS = (*NATURAL, "icl_score", "repeat_loss")
PLANTED = ("skip_trigram", "fuzzy_copy")
FIRST = slice(1)  # where one step shows it
RNG = np.random.default_rng(0)
WORDS = {
    word: i
    for i, word in enumerate(["<s>", "cat", "cats", "dog", "dogs", "the", "The", "mat", "sat", "ran", "far"])
}
TEXT = " ".join(RNG.choice(list(WORDS)[1:], size=3000))


@pytest.fixture
def series(hf_series) -> Path:
    """Three steps of a small GPT-2 with a tokenizer beside them."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    path = hf_series("gpt2")
    fill = {f"w{i}": i for i in range(len(WORDS), 61)}
    made = Tokenizer(WordLevel({**WORDS, **fill}, unk_token="<s>"))
    made.pre_tokenizer = WhitespaceSplit()
    made.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture
def text(tmp_path) -> Path:
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path / "book.txt"


def run(path: Path, out: Path, *probes: str, steps: slice = slice(None), **options: object) -> SweepOutcome:
    config = SweepConfig(probes or NATURAL, n_seq=8, **options)
    return sweep(open_series(path)[steps], config, out=out)


def counts(outcome: SweepOutcome) -> tuple[int, int, int]:
    return outcome.measured, outcome.reused, outcome.superseded


def values(results: Results) -> dict[tuple, float]:
    frame = results.frame.fillna({"position": -1})
    return {(r.step, r.probe, r.metric, r.position): r.value for r in frame.itertuples()}


def test_probes_that_share_a_stimulus_share_its_pass():
    assert {info.name for info in resolve(None)} >= {*NATURAL, *PLANTED}
    assert [(g.stimuli, len(g.probes)) for g in groups(resolve((*NATURAL, *PLANTED)))] == [
        (("natural",), 3),
        (("planted_pairs",), 2),
    ]


def test_text_is_measured_with_the_models_own_tokenizer(series, text, tmp_path):
    outcome = run(series, tmp_path / "out", text=text)
    assert counts(outcome) == (3, 0, 0)
    results = outcome.results
    assert results.frame["valid"].all() and set(results.frame["probe"]) == set(NATURAL)
    (stimulus,) = results.meta["stimuli"]
    assert (stimulus["kind"], stimulus["pos"], stimulus["n"]) == ("natural", 64, 8)
    assert "natural text: 8 windows of 64 tokens from book.txt" in results.meta["notes"]
    curve = results.select("loss_by_position", "loss", step=0)
    assert curve["position"].tolist() == list(range(1, 64))
    from safetensors.numpy import load_file

    ids = np.array([WORDS[word] for word in TEXT.split()])
    kept = load_file(results.path / WINDOWS)["tokens"]
    starts = {tuple(ids[at : at + 63]) for at in range(0, 2938, 63)}
    assert kept.shape == (8, 64) and (kept[:, 0] == 0).all()
    assert {tuple(row[1:]) for row in kept} <= starts


def test_the_text_is_not_needed_again(series, text, tmp_path, monkeypatch):
    first = run(series, tmp_path / "out", text=text, steps=slice(2))
    text.unlink()
    monkeypatch.setattr(
        "byrote.probes.sweep.stimulus_set.natural_windows",
        lambda *a, **k: pytest.fail("the text was read again"),
    )
    more = run(series, tmp_path / "out")
    assert counts(more) == (1, 2, 0)
    assert more.results.frame["valid"].all()
    assert more.results.meta["stimuli"] == first.results.meta["stimuli"]
    assert more.results.meta["notes"] == first.results.meta["notes"]
    monkeypatch.setattr("byrote.interp.bridge.load_fresh", lambda *a, **k: pytest.fail("a model was loaded"))
    assert counts(run(series, tmp_path / "out")) == (0, 3, 0)


def test_what_was_shown_before_equals_what_the_text_gives(series, text, tmp_path):
    whole = run(series, tmp_path / "whole", text=text).results
    run(series, tmp_path / "parts", text=text, steps=slice(1))
    parts = run(series, tmp_path / "parts").results
    assert values(parts) == values(whole)
    assert counts(run(series, tmp_path / "parts", text=text)) == (0, 3, 0)


def test_another_text_is_measured_anew(series, text, tmp_path):
    first = run(series, tmp_path / "out", text=text).results
    text.write_text(" ".join(reversed(TEXT.split())))
    second = run(series, tmp_path / "out", text=text)
    assert counts(second) == (3, 0, 3)
    assert second.results.meta["stimuli"] != first.meta["stimuli"]
    assert counts(run(series, tmp_path / "out")) == (0, 3, 0)  # what is kept is the new one


def test_windows_drawn_otherwise_need_the_text_and_say_why(series, text, tmp_path):
    run(series, tmp_path / "out", text=text, steps=FIRST)
    results = run(series, tmp_path / "out", seed=3, steps=FIRST).results
    rows = results.frame
    assert not rows["valid"].any()
    (reason,) = set(rows["reason"])
    assert "book.txt" in reason and "seed 0, now 3" in reason and "--text" in reason
    assert run(series, tmp_path / "out", seed=3, text=text, steps=FIRST).results.frame["valid"].all()


def test_a_damaged_copy_is_said_and_the_text_mends_it(series, text, tmp_path):
    out = run(series, tmp_path / "out", text=text, steps=FIRST).path
    for file in (out / WINDOWS, *out.glob("units/*/*")):
        file.write_bytes(b"half")
    rows = run(series, tmp_path / "out", steps=FIRST).results.frame
    assert set(rows["reason"]) == {"the natural text saved by an earlier sweep cannot be read"}
    assert run(series, tmp_path / "out", text=text, steps=FIRST).results.frame["valid"].all()


def test_fresh_removes_what_was_kept(series, text, tmp_path):
    run(series, tmp_path / "out", text=text, steps=FIRST)
    outcome = sweep(
        open_series(series)[FIRST], SweepConfig(NATURAL, n_seq=8), out=tmp_path / "out", fresh=True
    )
    assert not (outcome.path / WINDOWS).exists()
    assert not outcome.results.frame["valid"].any()


def test_without_text_nothing_is_run_and_the_option_is_named(series, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "byrote.probes.sweep.measure.observe", lambda *a, **k: pytest.fail("a pass was spent")
    )
    results = run(series, tmp_path / "out").results
    assert results.meta["status"] == "complete"
    assert set(results.frame["reason"]) == {"no natural text for this series: add --text FILE"}
    assert set(zip(results.frame["probe"], results.frame["metric"], strict=True)) == {
        (name, metric) for name in NATURAL for metric in REGISTRY[name].metrics
    }


def test_text_that_cannot_be_used_stops_the_run(series, tmp_path):
    (tmp_path / "short.txt").write_text("the cat sat")
    with pytest.raises(ByroteError, match=r"short\.txt holds 3 tokens, too few for 8 windows"):
        run(series, tmp_path / "out", text=tmp_path / "short.txt")
    assert not (tmp_path / "out" / "gpt2" / "stimuli").exists()


def test_spelling_is_read_once_and_remembered(series, tmp_path, monkeypatch):
    first = run(series, tmp_path / "out", *PLANTED, steps=slice(1)).results
    assert first.frame["valid"].all()
    assert first.meta["vocabulary"]["variants"] == [[1, 2], [3, 4], [6, 5]]
    (series / "tokenizer.json").unlink()
    more = run(series, tmp_path / "out", *PLANTED)
    assert counts(more) == (2, 1, 0) and more.results.frame["valid"].all()
    plain = run(series, tmp_path / "plain", *PLANTED).results.frame
    assert set(plain.loc[~plain["valid"], "probe"]) == {"fuzzy_copy"}


# The lab's held-out split.


def lab(folder: Path, *, held_out: np.ndarray, steps: dict | None = None) -> Path:
    tokens = {"held_out": {"tokens": held_out}}
    return write_series(folder, steps or {0: random_state(), 30: lookup_state([], copies=True)}, data=tokens)


def held_out(seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(1, 64, size=(24, 12))
    return np.concatenate([np.zeros((24, 1), dtype=np.int64), np.tile(blocks, 3)[:, :31]], axis=1)


def test_a_lab_series_brings_its_text(tmp_path):
    series = lab(tmp_path / "lab", held_out=held_out(0))
    results = run(series, tmp_path / "out", *NATURAL, "icl_score").results
    assert results.frame["valid"].all()
    score = results.select("icl_score", "score").set_index("step")
    assert score["n"].tolist() == [24, 24]  # all there are, each a document of its own
    assert abs(score.loc[0, "value"]) < 1 and score.loc[30, "hi"] < -2
    assert not (results.path / WINDOWS).exists()


def test_runs_with_texts_of_their_own_are_compared_in_everything_else(tmp_path):
    runs = [
        run(lab(tmp_path / name, held_out=held_out(seed)), tmp_path / "out", *TEXT_AND_BLOCKS).results
        for name, seed in (("a", 0), ("b", 1), ("c", 0))
    ]
    apart, together = compare(runs[0], runs[1]), compare(runs[0], runs[2])
    assert set(apart.rows["probe"]) == {"repeat_loss"}
    assert len(apart.notes) == 1 and "each run's own" in apart.notes[0]
    assert set(together.rows["probe"]) == set(TEXT_AND_BLOCKS) and together.notes == ()
    assert together.row("icl_score", "score")["difference"] == 0


# Models that look ahead.


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A masked language model: every token sees every other."""
    import transformers

    folder = tmp_path_factory.mktemp("encoders") / "bert"
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=61, max_position_embeddings=64, bos_token_id=0, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BertForMaskedLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(folder / "step1")
    return folder


def test_losses_of_a_model_that_looks_ahead_are_not_numbers(encoder, tmp_path):
    ids = RNG.integers(1, 61, size=(12, 64))
    np.save(tmp_path / "ids.npy", ids)
    probes = (*NATURAL, *PLANTED, "repeat_loss", "copy_curve", "exact_match", "extraction", "prefix_matching")
    files = {"text": tmp_path / "ids.npy", "members": tmp_path / "ids.npy", "twins": tmp_path / "ids.npy"}
    results = run(encoder, tmp_path / "out", *probes, **files).results
    assert set(results.frame["probe"]) >= set(probes)
    valid = results.frame[results.frame["valid"]]
    assert valid.empty, valid[["probe", "metric", "value"]]
    for probe, rows in results.frame.groupby("probe"):
        assert rows["reason"].str.contains("not causal").all(), probe
    assert results.meta["status"] == "complete"


@pytest.mark.parametrize("arch", ["gpt2", "llama", "gemma2", "opt", "bloom", "gpt_neo"])
def test_causal_models_are_not_taken_for_others(hf_series, tmp_path, arch):
    frame = run(
        hf_series(arch, 1), tmp_path / "out", "repeat_loss", "skip_trigram", "copy_curve"
    ).results.frame
    assert frame["valid"].all(), set(frame["reason"])


def test_a_leak_is_more_than_rounding():
    expected = torch.linspace(-3, 3, 50)
    apart = torch.stack([expected, expected + 1e-4 * expected.std() * torch.ones(50)])
    assert future_leak(apart, expected) == ""
    assert "not causal" in future_leak(apart + torch.tensor([[0.0], [0.01]]), expected)
    assert future_leak((apart + 0.02).bfloat16(), expected) == ""
    assert future_leak(apart[:0], expected) == ""
    assert future_leak(apart * torch.nan, expected) == ""  # said where the losses are read
    flat = torch.zeros(4)
    assert future_leak(torch.full((1, 4), 5e-5), flat) == ""


def test_results_of_an_older_sweep_are_gone_on_with(series, tmp_path):
    """run.json of before variants were remembered: the first model loaded says it again."""
    out = run(series, tmp_path / "out", "previous_token", steps=slice(1)).path
    meta = json.loads((out / "run.json").read_text())
    del meta["vocabulary"]["variants"]
    (out / "run.json").write_text(json.dumps(meta))
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    assert counts(run(series, tmp_path / "out", "previous_token")) == (2, 1, 0)


def test_ids_that_were_never_trained_are_in_no_random_sequence(hf_series, tmp_path):
    """Found at the last step, left out from the first, which has learned nothing yet; said in run.json and the report."""
    path, never = hf_series("gpt2"), np.arange(20, 40)
    file = path / "step2" / "model.safetensors"
    state = load_file(file)
    (name,) = (name for name in state if name.endswith("wte.weight"))
    state[name][never] = state[name][never[0]] * torch.linspace(1, 1.2, len(never))[:, None]
    save_file(state, file, metadata={"format": "pt"})
    outcome = run(path, tmp_path / "out", "repeat_loss", steps=slice(0, 3, 2))
    assert outcome.gaps == []
    meta = outcome.results.meta
    assert meta["vocabulary"]["ids"] == [[1, 19], [40, 60]]
    assert any("20 ids were left out of random sequences: never trained" in note for note in meta["notes"])
    chance = outcome.results.select("repeat_loss", "later_blocks")["chance"]
    np.testing.assert_allclose(chance, np.log(40))


def test_copies_out_of_reach_of_a_sliding_window_are_said_and_not_scored(hf_series, tmp_path):
    outcome = run(hf_series("mistral", 1, sliding_window=8), tmp_path / "out", "prefix_matching", "sink")
    rows = outcome.results.select("prefix_matching", "score")
    assert not rows["valid"].any()
    assert rows["reason"].iloc[0] == (
        "attention reaches back 8 tokens in every layer, less than a block of 15: no copy is in sight"
    )
    wide = run(hf_series("mistral", 1, folder="wide", sliding_window=32), tmp_path / "out", "prefix_matching")
    assert wide.results.select("prefix_matching", "score")["valid"].all()
