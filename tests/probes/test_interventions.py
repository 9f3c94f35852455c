"""Interventions in a line, sequences of one's own, results as arrays, and paths in place of results."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import byrote as br
from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.lab.planted import PlantedConfig, write_planted
from byrote.interp.axes import head_label
from byrote.probes.circuits.ablation import ablation
from byrote.probes.circuits.clamp import clamp
from byrote.probes.circuits.effects import later_blocks, repeated_stimulus, series_of_one, set_changes
from byrote.probes.own_blocks import own_blocks
from byrote.probes.stimuli import Vocabulary
from byrote.probes.verify import verify

N_SEQ = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_planted(
        tmp_path_factory.mktemp("planted") / "planted", PlantedConfig(d_vocab=32, n_ctx=80), kind="planted"
    )


@pytest.fixture(scope="module")
def model(place):
    return br.load(place)


@pytest.fixture(scope="module")
def stimuli(model):
    return {"repeated_random": repeated_stimulus(model, series_of_one(model.checkpoint), n_seq=N_SEQ, seed=3)}


@pytest.mark.parametrize("how", ["mean", "zero", "resample", "pattern_preserving"])
def test_one_head_ablated_has_the_numbers_of_the_probe(model, stimuli, how):
    probe = ablation(model, stimuli, seed=3)
    for layer, head in ((0, 0), (1, 0), (1, 3)):
        found = br.ablate(model, head_label(layer, head), how, sequences=N_SEQ, seed=3)
        np.testing.assert_allclose(found.samples, probe[how].samples[:, layer, head], atol=1e-6)
        assert found.change == pytest.approx(found.samples.mean()) and found.lo <= found.change <= found.hi
        np.testing.assert_allclose(found._of("clean").value, probe["clean"].samples.mean(), atol=1e-6)


def test_one_head_clamped_has_the_numbers_of_the_probe(model, stimuli):
    probe = clamp(model, stimuli, seed=3)
    pos = stimuli["repeated_random"].tokens.shape[1]
    for to in ("induction", "previous_token"):
        found = br.clamp(model, (1, 2), to, sequences=N_SEQ, seed=3)
        np.testing.assert_allclose(found.samples, probe[to].samples[:, 1, 2], atol=1e-6)
    same = br.clamp(model, "L1H2", np.diag(np.ones(pos - 1), -1), sequences=N_SEQ, seed=3)
    np.testing.assert_array_equal(same.samples, found.samples)


def test_heads_are_changed_together_and_the_model_stays_as_it_was(model):
    one = br.ablate(model, "L1H0", sequences=N_SEQ)
    both = br.ablate(model, ["L1H0", (1, 1)], sequences=N_SEQ)
    stimulus = repeated_stimulus(model, series_of_one(model.checkpoint), n_seq=N_SEQ)
    how = {"kind": "mean", "measure": later_blocks(stimulus), "seed": 0}
    (same,) = set_changes(model, torch.from_numpy(stimulus.tokens), [[(1, 0), (1, 1)]], **how)
    np.testing.assert_allclose(both.samples, same, atol=1e-6)
    assert abs(both.change - one.change) > 0.01
    assert set(both.rows["heads"]) == {"L1H0,L1H1"}
    again = br.ablate(model, "L1H0", sequences=N_SEQ)
    np.testing.assert_array_equal(again.samples, one.samples)


def test_an_effect_says_itself(model):
    found = br.ablate(model, "L1H0", sequences=N_SEQ)
    assert repr(found).startswith("L1H0 ablated (mean): loss on repeated tokens ")
    assert repr(found).endswith("n=12") and "[" in repr(found)
    assert "<table" in found._repr_html_() and len(repr(found)) < 160


def test_checkpoints_paths_and_models_in_memory_are_taken(model, place):
    there = br.ablate(model, "L1H0", "zero", sequences=N_SEQ)
    for other in (place, br.open_series(place)[0], model.bridge):
        np.testing.assert_array_equal(
            br.ablate(other, "L1H0", "zero", sequences=N_SEQ).samples, there.samples
        )


def test_graft_of_a_path(tmp_path):
    from tiny_models import write_lab_series

    from byrote.probes.circuits.graft import graft_steps

    place = write_lab_series(tmp_path / "tiny", (0, 1))
    found = br.graft(place, "L1H0", from_step=1, into_step=0, sequences=8, seed=2)
    series = br.open_series(place)
    same = graft_steps(series, from_step=1, into_step=0, heads=[(1, 0)], n_seq=8, seed=2)
    assert found.equals(same) and {"lo", "hi", "n"} <= set(found.columns)
    with pytest.raises(br.ByroteError, match="holds 2 steps"):
        br.load(place)
    assert br.load(series, step="last").checkpoint.step == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: br.ablate(m, "L7H0"), "there is no L7H0"),
        (lambda m: br.ablate(m, "L1H0", "means"), "unknown ablation 'means'"),
        (lambda m: br.clamp(m, "L1H0", "induktion"), "did you mean 'induction'?"),
        (lambda m: br.clamp(m, "L1H0", np.ones((3, 3))), "has shape"),
        (
            lambda m: br.ablate(m, "L1H0", stimulus=br.Stimulus.from_tokens([[1, 99]], bos=0)),
            "the highest id 99",
        ),
    ],
)
def test_what_cannot_be_done_is_said(model, call, words):
    with pytest.raises(br.ByroteError) as caught:
        call(model)
    assert words in str(caught.value)


# Sequences of one's own.


def test_sequences_of_ones_own_worked_by_hand():
    shown = br.Stimulus.from_tokens([[5, 6, 7], [8, 9, 4]], bos=1, copies=2)
    assert shown.tokens.tolist() == [[1, 5, 6, 7, 5, 6, 7], [1, 8, 9, 4, 8, 9, 4]]
    assert shown.copy_index.tolist() == [[0, 1, 1, 1, 2, 2, 2]] * 2
    assert (shown.n, shown.params) == (2, {"pos": 7, "r": 3, "m": 2})
    assert repr(shown) == f"Stimulus({shown.id!r}: 2 sequences of 7 tokens, blocks of 3 tokens)"
    same = br.Stimulus.from_tokens(shown.tokens)
    assert (same.id, same.copy_index.tolist()) == (shown.id, shown.copy_index.tolist())
    plain = br.Stimulus.from_tokens([1, 2, 3, 4])
    assert plain.tokens.tolist() == [[1, 2, 3, 4]] and not plain.copy_index.any()
    assert br.Stimulus.from_tokens([1, 2, 3, 5]).id != plain.id


@pytest.mark.parametrize("tokens", [[[1, 2], [3]], [[1.5, 2]], [[-1, 2]], [], [[[1, 2]]], [7], ["a", "b"]])
def test_what_is_no_sequence_is_refused(tokens):
    with pytest.raises(br.ByroteError, match="token ids"):
        br.Stimulus.from_tokens(tokens, bos=0)


def test_own_sequences_are_what_is_measured(model):
    """Without a repeat the loss is that of every token, and heads that copy are a burden; with one they are missed."""
    rng = np.random.default_rng(0)
    blocks = np.array([rng.permutation(np.arange(1, 32))[:10] for _ in range(N_SEQ)])
    once = br.ablate(model, ["L1H0", "L1H1"], stimulus=br.Stimulus.from_tokens(blocks, bos=0))
    twice = br.ablate(model, ["L1H0", "L1H1"], stimulus=br.Stimulus.from_tokens(blocks, bos=0, copies=2))
    assert once.loss_on == "loss" and twice.loss_on == "loss on repeated tokens"
    assert once.hi < 0 < 1 < twice.lo


def test_own_blocks_stand_in_for_random_ones_in_a_sweep(place, tmp_path):
    blocks = np.array([np.random.default_rng(i).permutation(np.arange(1, 32))[:12] for i in range(9)])
    np.save(tmp_path / "blocks.npy", blocks)
    measure = {"progress": False, "sequences": 16}  # as `byrote run` calls it
    own = br.measure(
        place, ["prefix_matching"], out=tmp_path / "own", stimulus=tmp_path / "blocks.npy", **measure
    )
    (used,) = [s for s in own.meta["stimuli"] if s["kind"] == "repeated_random"]
    assert used["id"].startswith("own-repeated_random-r12m4-n9-")
    assert own["prefix_matching"].top(2)["n"].tolist() == [9, 9]
    assert verify(own.path).findings == ()
    said = own.path / "run.json"
    sound = said.read_text()
    said.write_text(sound.replace(used["id"], "own-repeated_random-other"))
    assert any(
        "run.json says repeated_random was own-repeated_random-other, units say own-" in line
        for line in verify(own.path).findings
    )
    said.write_text(sound)
    assert own["prefix_matching"].top(1)["head"][0] in ("L1H0", "L1H1")
    given = br.Stimulus.from_tokens(blocks, bos=0, copies=4)
    same = br.measure(place, ["prefix_matching"], out=tmp_path / "same", stimulus=given, **measure)
    assert same.frame.equals(own.frame)
    random = br.measure(place, ["prefix_matching"], out=tmp_path / "random", **measure)
    with pytest.raises(br.ByroteError):
        br.compare(own, random)
    for folder, more in (("own", {}), ("random", {"stimulus": given})):
        with pytest.raises(br.ByroteError, match=r"on (own-)?repeated_random-.+ lose what it does not"):
            br.measure(place, ["sink"], out=tmp_path / folder, **more, **measure)
    assert (
        br.measure(place, ["sink"], out=tmp_path / "own", stimulus=given, **measure).frame.probe.nunique() > 1
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.arange(1, 8).reshape(1, 7), "an interval needs 8"),
        (np.tile(np.arange(1, 31), (8, 2))[:, :50], "do not fit twice"),
        (np.full((8, 5), 40) + np.arange(5), "ids from 40 to 44"),
        (np.full((8, 5), 7), "one token over and over"),
    ],
)
def test_own_blocks_that_cannot_be_shown(tmp_path, rows, words):
    np.save(tmp_path / "x.npy", rows)
    vocabulary = Vocabulary(np.arange(1, 32), 0)
    with pytest.raises(br.ByroteError, match=words):
        own_blocks(tmp_path / "x.npy", vocabulary, n_ctx=80, d_vocab=32, seed=0)


@pytest.mark.parametrize(
    ("name", "words"), [("x.txt", "not a file of token ids"), ("x.safetensors", "too short")]
)
def test_a_bad_file_of_own_blocks_is_an_error_of_the_command(tmp_path, name, words):
    (tmp_path / name).write_text("a b c")
    with pytest.raises(br.ByroteError, match=words) as raised:
        own_blocks(tmp_path / name, Vocabulary(np.arange(1, 32), 0), n_ctx=80, d_vocab=32, seed=0)
    assert not isinstance(raised.value, CheckpointError)


@pytest.mark.parametrize(
    ("ids", "words"),
    [(np.arange(1, 4), "an interval needs 8"), (np.full((8, 5), 40) + np.arange(5), "ids from")],
)
def test_a_bad_file_of_own_blocks_leaves_no_results_folder(place, tmp_path, ids, words):
    """Neither where the file alone says so, nor where the model does."""
    np.save(tmp_path / "x.npy", ids)
    with pytest.raises(br.ByroteError, match=words):
        br.measure(place, ["sink"], out=tmp_path / "out", stimulus=tmp_path / "x.npy", progress=False)
    assert not (tmp_path / "out").exists()


def test_the_null_of_own_blocks_repeats_nothing():
    vocabulary = Vocabulary(np.arange(1, 200), 0)
    given = br.Stimulus.from_tokens(np.arange(1, 81).reshape(8, 10), bos=0)
    found = own_blocks(given, vocabulary, n_ctx=64, d_vocab=200, seed=0)
    repeated, null = found["repeated_random"], found["shuffled_repeat"]
    assert (null.match_tokens == repeated.tokens).all()
    assert (null.tokens[:, :11] == repeated.tokens[:, :11]).all()
    assert (null.tokens[:, 11:] == repeated.tokens[:, 11:]).mean() < 0.05


# Results.


@pytest.fixture(scope="module")
def results(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    return br.measure(
        place, ["prefix_matching", "repeat_loss", "composition"], out=out, n_seq=16, progress=False
    )


def test_results_are_a_mapping_of_probes(results):
    assert {"prefix_matching", "repeat_loss", "composition"} <= set(results.keys())
    assert list(results) == results.keys() == results._ipython_key_completions_()
    assert "prefix_matching" in results and "nothing" not in results
    assert results[results.keys()[0]].probe == results.keys()[0]


def test_results_as_xarray_hold_the_numbers_of_the_frame(results):
    data = results.to_xarray()
    score = data["prefix_matching"]
    assert score.dims == ("step", "layer", "head") and score.attrs["unit"] == "attention fraction"
    assert data.attrs["run"] == "planted"
    rows = results.rows("prefix_matching", "score", valid=True)
    for row in rows.itertuples():
        at = {"step": row.step, "layer": row.layer, "head": row.head}
        assert float(score.sel(at)) == row.value
        for end in ("lo", "hi", "n"):
            assert float(data[f"prefix_matching__{end}"].sel(at)) == getattr(row, end)
    assert data["repeat_loss"].dims == ("step",)
    assert "composition" in results and "composition" not in data  # its main numbers are of pairs of heads


def test_without_xarray_the_help_is_the_line_to_type(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(br.ByroteError) as caught:
        results.to_xarray()
    assert 'pip install "byrote[xarray]"' in caught.value.help


def test_paths_stand_for_results(results):
    path = results.path
    assert br.compare(path, str(path)).rows.equals(br.compare(results, results).rows)
    assert "is compared with itself: every difference is exactly 0" in br.compare(path, results).sentence
    assert br.onset(str(path)).text == br.onset(results).text
    assert br.group("a", [str(path)]).arm == br.group("a", [results]).arm
    for several in (path, path.parent, f"{path.parent}/*"):  # as --group ARM=GLOB
        assert br.group("a", several).arm == br.group("a", [results]).arm
    figure = br.figures.head_grid(path, probe="prefix_matching")
    assert figure.table.equals(br.figures.head_grid(results, probe="prefix_matching").table)
    with pytest.raises(br.ByroteError, match="is not a results folder"):
        br.compare(path, "nowhere")


def test_what_a_notebook_shows_is_short(results, model, place):
    series = br.open_series(place)
    shown = [series, series[0], model, br.capture(model, np.array([[0, 4, 5]])), br.compare(results, results)]
    shown += [br.group("a", [results]), results, results["prefix_matching"]]
    lengths = [len(repr(one)) for one in shown]
    assert max(lengths) < 700, lengths
    assert repr(series).startswith("CheckpointSeries('planted': 1 checkpoint, step")
    assert "layers x 4 heads" in repr(model)
    assert repr(shown[3]).startswith("Capture('step 0': 1 x 3 tokens, pattern [")
    assert shown[4].sentence in repr(shown[4]) and "<table" in shown[4]._repr_html_()
    assert repr(shown[5]) == "Group('a': 1 run, planted)"


def test_completion_lists_the_api_alone():
    assert dir(br) == sorted(br.__all__) and dir(br.figures) == sorted(br.figures.__all__)
    assert {"ablate", "clamp", "graft", "Stimulus"} <= set(dir(br))
