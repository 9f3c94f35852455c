"""What is made from another run before training: sampled, curated, edited, and chained by generations."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_runs import BASE, SOURCE

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab import Arm, train
from byrote.checkpoints.lab.arms.edited import EDITED, Edited
from byrote.checkpoints.lab.arms.repeats import Epochs
from byrote.checkpoints.lab.arms.selected import Selected
from byrote.checkpoints.lab.arms.synthetic import Curated, Generation, Synthetic, chain
from byrote.checkpoints.lab.editing import chosen_tokens, drawn_from_top, token_probabilities
from byrote.checkpoints.lab.generator import loaded, next_logits_of, sample, sampled_with
from byrote.checkpoints.lab.grid_training import Job, work
from byrote.checkpoints.lab.inputs import make_inputs
from byrote.checkpoints.lab.masks import seen_bigrams
from byrote.checkpoints.lab.model import build_model
from byrote.checkpoints.lab.other_run import open_run
from byrote.checkpoints.lab.run_grid import grid_from
from byrote.checkpoints.lab.selection import bigram_table_of, chosen, scores_of
from byrote.checkpoints.lab.source import draw
from byrote.checkpoints.lab.sources.contract import CODES
from byrote.checkpoints.lab.stack import train_stack


def made(path):
    manifest = json.loads((path / "manifest.json").read_text())
    return load_file(path / "data/inputs.safetensors"), manifest["inputs"][0], manifest


@pytest.mark.parametrize(
    "shape",
    [
        {"attn_only": True},
        {"attn_only": False, "normalization_type": "LN"},
        {"architecture": "llama"},
        {"smeared_keys": True},
    ],
    ids=["attention", "MLP and LN", "rotary", "smeared keys"],
)
def test_a_token_at_a_time_gives_the_logits_of_the_whole_prefix(shape):
    model = build_model(replace(BASE, **shape, init_std=0.5)).eval()
    tokens = torch.from_numpy(draw(SOURCE, seed=1, stream="twins", index=0, n=5).tokens)
    next_logits = next_logits_of(model)
    with torch.inference_mode():
        whole = model(tokens)
        for t in range(SOURCE.n_ctx):
            assert (next_logits(tokens, t + 1) - whole[:, t]).abs().max() < 1e-5


def test_samples_are_named_by_their_number(runs):
    run = open_run(runs / "human", like=SOURCE)
    settings = {"seed": 3, "purpose": "synthetic", "n_ctx": 8}
    few, many = sample(run, n=3, **settings), sample(run, n=600, **settings)
    assert (few.wide == many.wide[:3]).all()
    assert (many.wide[:, 0] == 0).all()
    assert (many.wide[:, 1:] > 0).all()
    assert not (sample(run, n=3, **{**settings, "seed": 4}).wide == few.wide).all()
    logits = loaded(run)(torch.from_numpy(many.wide[:, :-1])).double()
    logits[..., 0] = -torch.inf
    said = logits.log_softmax(-1).gather(-1, torch.from_numpy(many.wide[:, 1:, None]))[..., 0].sum(-1)
    assert np.abs(said.detach().numpy() - many.log_probability).max() < 1e-4


def test_sampling_by_hand_and_by_frequency():
    """Logits log 1, log 2, log 5 of tokens 1, 2, 3: a uniform number below 1/8 draws 1, below 3/8 draws 2."""
    table = torch.tensor([9.0, 0.0, np.log(2), np.log(5)])

    def logits(wide, n_read):
        return table.expand(len(wide), -1).clone()

    uniforms = np.array([[0.0, 0.1249, 0.1251, 0.3749, 0.3751, 0.9999]])
    wide, said = sampled_with(logits, uniforms, bos=0, temperature=1.0, top_k=0)
    assert wide.tolist() == [[0, 1, 1, 2, 2, 3, 3]]
    assert said[0] == pytest.approx(2 * np.log(1 / 8) + 2 * np.log(2 / 8) + 2 * np.log(5 / 8))
    assert sampled_with(logits, uniforms, bos=0, temperature=1.0, top_k=2)[0].tolist() == [
        [0, 2, 2, 2, 3, 3, 3]
    ]
    assert (sampled_with(logits, uniforms, bos=0, temperature=1.0, top_k=1)[0][0, 1:] == 3).all()
    numbers = np.random.default_rng(0).random((5000, 1))
    cold, _ = sampled_with(logits, numbers, bos=0, temperature=0.5, top_k=0)
    found = np.bincount(cold[:, 1], minlength=4)[1:] / 5000
    assert found == pytest.approx(np.array([1, 4, 25]) / 30, abs=0.02)


def test_a_synthetic_arm_is_resumed_without_its_generator(runs, tmp_path, monkeypatch):
    config = replace(BASE, arm=Arm.of(Synthetic(0.5, generator="../human", temperature=0.7)), name="syn")
    reference = train(runs / "syn", config)
    arrays, said, manifest = made(reference)
    assert said["run"] == "human"
    assert (
        said["weights"]
        == json.loads((runs / "human/manifest.json").read_text())["checkpoints"][-1]["weights"]
    )
    assert manifest["arm"]["synthetic_share"] == 0.5
    assert arrays["0.tokens"].shape == (2 * 13, 9)  # two places of 12 steps, and of the batch after the last
    assert arrays["0.tokens"].dtype == np.uint8

    shutil.copytree(runs / "human", tmp_path / "human")

    def stop(event):
        if event["event"] == "checkpoint" and event["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "syn", config, on_event=stop)
    shutil.rmtree(tmp_path / "human")
    train(tmp_path / "syn", config)
    ours, theirs = (
        {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        for path in (tmp_path / "syn", reference)
    )
    assert ours == theirs

    file = tmp_path / "syn/data/inputs.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ByroteError, match=r"data/inputs.safetensors has changed since it was written"):
        train(tmp_path / "syn", config)


def test_runs_that_cannot_be_made_from_are_refused(runs, tmp_path):
    def refused(said, like=SOURCE, step=0, name="human", at=runs):
        with pytest.raises(ByroteError, match=said):
            open_run(at / name, step=step, like=like)

    refused("there is no lab series", name="nobody")
    refused("has no checkpoint at step 5.*the nearest is 4", step=5)
    refused("another vocabulary", like=replace(SOURCE, d_vocab=11))
    refused("reads 8 tokens", like=replace(SOURCE, n_ctx=9))
    shutil.copytree(runs / "human", tmp_path / "human")
    manifest = json.loads((tmp_path / "human/manifest.json").read_text())
    for field, value, said in (
        ("status", "running", "no complete lab series"),
        ("model", {"n_layers": 10**9}, "describes no model"),
        ("data", {}, "another vocabulary"),
        ("checkpoints", [3], "has no checkpoint at step 0"),
    ):
        (tmp_path / "human/manifest.json").write_text(json.dumps({**manifest, field: value}))
        refused(said, at=tmp_path)
    (tmp_path / "human/manifest.json").write_text(json.dumps(manifest))
    weights = tmp_path / "human/step_00000012/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ByroteError, match="has changed since it was written"):
        loaded(open_run(tmp_path / "human", like=SOURCE))


def test_curated_data_are_the_best_of_what_was_drawn(runs):
    part = Curated(0.5, 6, generator="../human", candidates=3)
    arrays, said, _ = made(train(runs / "curated", replace(BASE, arm=Arm.of(part))))
    drawn = sample(open_run(runs / "human", like=SOURCE), seed=0, purpose="curated", n=18, n_ctx=8)
    best = sorted(np.argsort(drawn.log_probability)[-6:])
    assert arrays["0.tokens"].tolist() == drawn.wide[best].tolist()
    assert said["mean_score_chosen"] > said["mean_score_drawn"]
    at_random = part.controls()["a random part"]
    assert at_random[0].score == "random"


def test_scores_by_an_independent_route():
    source = replace(SOURCE, bigram_frac=0.5, bigram_successors=2)
    wide = draw(source, seed=5, stream="twins", index=0, n=4).wide
    table = bigram_table_of(source, seed=0)
    assert table.sum(1) == pytest.approx(1)
    by_hand = [sum(np.log(table[a, b]) for a, b in pairwise(row)) for row in wide]
    assert scores_of("table", wide, source=source, seed=0) == pytest.approx(by_hand)
    assert scores_of("oracle", wide, source=source, seed=0) == pytest.approx(
        -source.floor_nll(wide)[:, 1:].sum(1)
    )
    impossible = wide.copy()
    impossible[0, -1] = 1 + impossible[0, -1] % 9
    assert scores_of("oracle", impossible, source=source, seed=0)[0] == -np.inf
    assert chosen(np.array([1.0, 3.0, 2.0, 3.0]), 2).tolist() == [1, 3]


def test_which_tokens_are_edited_by_hand():
    """Bigrams 12 23 31 12: the last token is one that a copy predicts."""
    wide = np.array([[0, 1, 2, 3, 1, 2]])
    mechanism = np.array([[CODES["free"]] * 4 + [CODES["copy"]]], dtype=np.int8)
    expected = np.array([[0.1, 0.9, 0.2, 0.95, 0.99]])

    def hit(edited):
        return chosen_tokens(expected, wide, mechanism, edited=edited, threshold=0.9).astype(int).tolist()[0]

    assert hit("any") == [0, 1, 0, 1, 1]
    assert hit("no_copies") == hit("no_repeats") == [0, 1, 0, 1, 0]
    assert hit("repeats") == [0, 0, 0, 0, 1]
    assert hit("as_many_elsewhere") == [0, 1, 1, 1, 0]
    assert len(EDITED) == 5


def test_new_tokens_come_from_the_likeliest_renormalised():
    probability = np.array([[0.0, 0.1, 0.6, 0.3]]).repeat(4, axis=0)
    uniforms = np.array([0.0, 0.66, 0.67, 0.999])  # of the two likeliest: 2 up to 2/3, then 3
    assert drawn_from_top(probability, uniforms, top_k=2).tolist() == [2, 2, 3, 3]
    assert (drawn_from_top(probability, uniforms, top_k=1) == 2).all()
    certain = np.array([[0.0, 1.0, 0.0, 0.0]])
    assert drawn_from_top(certain, np.array([0.999999]), top_k=8).tolist() == [1]


def test_editing_probabilities_are_those_of_the_unedited_prefix(runs):
    """By one forward pass for each token instead of one for all."""
    model = loaded(open_run(runs / "human", like=SOURCE))
    wide = draw(SOURCE, seed=2, stream="twins", index=0, n=3).wide
    found = token_probabilities(model, wide, bos=0)
    for row in range(3):
        for t in range(8):
            logits = model(torch.from_numpy(wide[row : row + 1, : t + 1]))[0, -1, 1:].double()
            assert found[row, t, 1:] == pytest.approx(logits.softmax(-1).detach().numpy(), abs=1e-6)
    assert (found[..., 0] == 0).all()


@pytest.mark.parametrize("edited", EDITED)
def test_copy_aware_editing_leaves_copies_alone(runs, edited):
    part = Edited(1.0, 60, prior="../human", threshold=0.1, top_k=3, edited=edited)
    config = replace(BASE, arm=Arm.of(part), steps=15, every=15)
    arrays, (said,) = make_inputs(config, runs / "edited")
    originals = draw(SOURCE, seed=0, stream="train", index=0, n=60)
    changed = arrays["0.tokens"] != originals.wide
    assert (changed[:, 1:] == arrays["0.changed"]).all()
    assert changed.any()
    assert 0 < said["changed_frac"] <= said["edited_frac"]
    repeated, copies = seen_bigrams(originals.wide), originals.mechanism[:, 1:] == CODES["copy"]
    expected = token_probabilities(loaded(open_run(runs / "human", like=SOURCE)), originals.wide, bos=0)
    sure = np.take_along_axis(expected, originals.wide[:, 1:, None], -1)[..., 0] >= 0.1
    new = changed[:, 1:]
    if edited != "as_many_elsewhere":
        assert not (new & ~sure).any()
    if edited in ("no_repeats", "as_many_elsewhere"):
        assert not (new & repeated).any()
        assert (arrays["0.tokens"][:, 1:][repeated] == originals.wide[:, 1:][repeated]).all()
    if edited == "no_copies":
        assert not (new & copies).any()
        assert said["copies_edited_frac"] == 0
    if edited == "repeats":
        assert not (new & ~repeated).any()
    if edited == "any":
        assert (new & repeated).any()


def test_generations_replace_or_accumulate(runs):
    real = draw(SOURCE, seed=0, stream="train", index=0, n=8).wide
    samples, found = {}, {}
    for regime in ("replace", "accumulate", "accumulate_fixed"):
        tables = chain(regime, first="human", n=2, corpus=8)
        for name, table in tables.items():
            arm = Arm.from_table(table).with_runs({one: f"../{one}" for one in ("human", *tables)})
            path = train(runs / name, replace(BASE, arm=arm))
            arrays, _, manifest = made(path)
            generator = open_run(runs / table["generator"], like=SOURCE)
            samples[name] = sample(generator, seed=0, purpose="generation", n=8, n_ctx=8).wide
            found[name] = arrays["0.tokens"], arrays["0.rows"]
            assert manifest["arm"]["generation"] == table["generation"]
    tokens, rows = found["replace-g2"]
    assert (tokens == samples["replace-g2"]).all()
    assert rows.tolist() == list(range(8))
    for regime in ("accumulate", "accumulate_fixed"):
        blocks = np.concatenate([real, samples[f"{regime}-g1"], samples[f"{regime}-g2"]])
        assert (found[f"{regime}-g2"][0] == blocks).all()
    assert found["accumulate-g2"][1].tolist() == list(range(24))
    fixed = found["accumulate_fixed-g2"][1]
    assert len(set(fixed.tolist())) == 8
    assert fixed.max() < 24

    wrong = Generation(1.0, 8, generator="../accumulate-g1", generation=3)
    with pytest.raises(ByroteError, match="write generation = 2"):
        train(runs / "wrong", replace(BASE, arm=Arm.of(wrong)))
    other = Generation(1.0, 4, regime="accumulate", generator="../accumulate-g1", generation=2)
    with pytest.raises(ByroteError, match="blocks of another size"):
        train(runs / "other", replace(BASE, arm=Arm.of(other)))


def test_what_was_edited_is_edited_again(runs):
    part = Edited(1.0, 24, prior="../human", threshold=0.2, top_k=3)
    first, _, _ = made(train(runs / "edited1", replace(BASE, arm=Arm.of(part))))
    again = replace(part, prior="../edited1", again=True)
    second, _, _ = made(train(runs / "edited2", replace(BASE, arm=Arm.of(again))))
    differs = second["0.tokens"][:, 1:] != first["0.tokens"][:, 1:]
    assert (differs == second["0.changed"]).all()
    with pytest.raises(ByroteError, match="was trained on no edited sequences"):
        train(runs / "edited3", replace(BASE, arm=Arm.of(replace(again, prior="../human"))))


def test_a_stack_of_such_arms_is_what_its_runs_are_alone(runs, tmp_path):
    parts = {"syn": Synthetic(1.0, 9, generator=str(runs / "human")), "mask": None, "epochs": Epochs(0.5, 5)}
    from byrote.checkpoints.lab.arms.masked import Masked

    parts["mask"] = Masked()
    configs = [replace(BASE, arm=Arm.of(part), name=name) for name, part in parts.items()]
    train_stack([(tmp_path / c.name, c) for c in configs], state=tmp_path / "state")
    for config in configs:
        alone = load_file(train(tmp_path / "alone" / config.name, config) / "step_00000012/model.safetensors")
        together = load_file(tmp_path / config.name / "step_00000012/model.safetensors")
        for name, weight in alone.items():
            assert np.abs(weight - together[name]).max() < 1e-5


def test_training_goes_on_from_another_runs_weights_on_another_source(runs, tmp_path):
    """In a grid, alone and in a stack: step 0 is the last step of the run that it continues."""
    table = {
        "seeds": 1,
        "settings": {"d_model": 8, "n_heads": 2, "batch": 4, "steps": 4, "every": 4, "n_held_out": 4},
        "arms": {
            "old": {"kind": "unique", "settings": {"source": {"block_min": 20}}},
            "new": {"kind": "unique"},
            "on": {"kind": "continued", "initial": "old", "control": "new"},
            "mixed": {
                "parts": [
                    {"kind": "continued", "initial": "old"},
                    {"kind": "replay", "of": "old", "share": 0.5},
                ],
                "control": "new",
            },
        },
    }
    plan = grid_from(table).plan()
    for wave in plan.waves():
        for stack in wave:
            runs_of = [plan.runs[k] for k in stack]
            work(
                Job(tuple((tmp_path / r.folder, r.config) for r in runs_of), tmp_path / "state"),
                lambda event: None,
            )
    weights = {
        (arm, step): (tmp_path / f"{arm}/d8/seed0/step_0000000{step}/model.safetensors").read_bytes()
        for arm in ("old", "new", "on", "mixed")
        for step in (0, 4)
    }
    assert weights["on", 0] == weights["mixed", 0] == weights["old", 4]
    assert len({weights[arm, 4] for arm in ("old", "new", "on", "mixed")}) == 4
    old = next(run.config for run in plan.runs if run.arm == "old")
    arrays = load_file(tmp_path / "mixed/d8/seed0/data/inputs.safetensors")
    fresh = draw(old.source, seed=0, stream="train", index=0, n=10).wide
    assert (arrays["1.tokens"] == fresh).all()

    shutil.copytree(tmp_path / "old", tmp_path / "again/old")
    on = next(run for run in plan.runs if run.arm == "on")
    path = train(tmp_path / "again" / on.folder, on.config)
    alone = load_file(path / "step_00000004/model.safetensors")
    for name, weight in load_file(tmp_path / on.folder / "step_00000004/model.safetensors").items():
        assert np.abs(weight - alone[name]).max() < 1e-5
    wider = replace(on.config, d_model=16, d_head=8)
    with pytest.raises(ByroteError, match="weights of a model of another shape"):
        train(tmp_path / "again/on/d8/seed1", wider)


def test_difference_sampling_chooses_what_the_larger_model_finds_likelier(runs):
    part = Selected(1.0, 6, large="../human", small="../human", candidates=3)
    train(runs / "early", replace(BASE, steps=2, every=2))
    config = replace(BASE, arm=Arm.of(replace(part, small="../early")))
    arrays, (said,) = make_inputs(config, runs / "chosen")
    wide = draw(SOURCE, seed=0, stream="train", index=0, n=18).wide
    scores = []
    for row in wide:
        tokens = torch.from_numpy(row[None])
        both = [
            -loaded(open_run(runs / name, like=SOURCE))(tokens[:, :-1])[0]
            .log_softmax(-1)
            .gather(1, tokens[0, 1:, None])
            .sum()
            for name in ("early", "human")
        ]
        scores.append((both[0] - both[1]).item())
    assert arrays["0.tokens"].tolist() == wide[sorted(np.argsort(scores)[-6:])].tolist()
    assert said["mean_score_candidates"] == pytest.approx(np.mean(scores), abs=1e-4)
    assert said["mean_score_chosen"] > said["mean_score_candidates"]


def test_sequences_are_chosen_by_how_much_they_repeat_themselves(tmp_path):
    source = replace(SOURCE, n_ctx=12, block_min=2, block_max=9)
    wide = draw(source, seed=0, stream="train", index=0, n=24).wide
    n_again = [
        sum(pair in list(pairwise(row))[:k] for k, pair in enumerate(pairwise(row))) for row in wide.tolist()
    ]
    found = {}
    for by in ("fewest_repeats", "most_repeats", "random"):
        config = replace(BASE, source=source, arm=Arm.of(Selected(1.0, 6, by=by)))
        arrays, _ = make_inputs(config, tmp_path)
        rows = [int((wide == row).all(1).argmax()) for row in arrays["0.tokens"]]
        found[by] = sorted(n_again[row] for row in rows)
    assert found["fewest_repeats"] == sorted(n_again)[:6]
    assert found["most_repeats"] == sorted(n_again)[-6:]
    assert found["fewest_repeats"][-1] < found["most_repeats"][0]
