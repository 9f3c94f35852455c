"""Many steps in one file: found by their own numbers, read one at a time, and the same checkpoints as in files of their own."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch
from pickled_files import hf_state, write_config
from tl_legacy_golden import config, golden, redrawn, state

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import tensor_hashes
from byrote.checkpoints.formats.torch_zip import read_torch_file
from byrote.checkpoints.lint import lint
from byrote.checkpoints.stored_bytes import StoredFile
from byrote.interp.bridge import HookedSeries
from byrote.interp.loading import load_fresh
from byrote.probes.sweep.prefetch import Fingerprints

SMALL = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 8}
STEPS = (0, 100, 2000)


def states(steps=STEPS):
    return [{name: t.clone() for name, t in hf_state("gpt2", step, **SMALL).items()} for step in steps]


LAYOUTS = {
    "a list and its epochs": lambda s: {
        "state_dicts": s,
        "epochs": list(STEPS),
        "train_losses": [3.0] * 5000,
    },
    "a list and its steps": lambda s: {
        "checkpoints": s,
        "checkpoint_steps": list(STEPS),
        "config": {"p": 113},
    },
    "by step": lambda s: dict(zip(STEPS, s, strict=True)),
    "by name of step": lambda s: {f"step_{n}": one for n, one in zip(STEPS, s, strict=True)},
    "by step, in a field": lambda s: {"models": dict(zip(STEPS, s, strict=True)), "seed": 0},
    "records": lambda s: [{"step": n, "state_dict": one} for n, one in zip(STEPS, s, strict=True)],
}


@pytest.fixture
def folder(tmp_path):
    write_config(tmp_path / "run", "gpt2", **SMALL)
    return tmp_path / "run"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_every_layout_opens_as_the_series_it_is(folder, layout, zipped):
    torch.save(LAYOUTS[layout](states()), folder / "all.pt", _use_new_zipfile_serialization=zipped)
    series = open_series(folder)
    assert (series.format, series.steps, series.gaps) == ("many_steps", STEPS, ())
    assert open_series(folder / "all.pt").steps == STEPS
    assert any("epochs are shown as steps" in note for note in series.notes) == ("epochs" in layout)


def test_each_step_is_what_it_would_be_in_a_file_of_its_own(folder, tmp_path):
    torch.save({"state_dicts": states(), "steps": list(STEPS)}, folder / "all.pt")
    write_config(tmp_path / "apart", "gpt2", **SMALL)
    for step, one in zip(STEPS, states(), strict=True):
        torch.save(one, tmp_path / f"apart/step_{step}.pt")
    tokens = torch.tensor([[1, 2, 3, 4]])
    for inside, alone in zip(open_series(folder), open_series(tmp_path / "apart"), strict=True):
        assert tensor_hashes(inside) == tensor_hashes(alone)
        assert torch.equal(load_fresh(inside).logits(tokens), load_fresh(alone).logits(tokens))


def test_a_step_reads_its_own_bytes_alone(folder, monkeypatch):
    torch.save({"state_dicts": states(), "epochs": list(STEPS)}, folder / "all.pt")
    series = open_series(folder)
    stored = read_torch_file(folder / "all.pt")
    read: list[tuple[int, int]] = []
    whole = StoredFile.read_into

    def note(self, start, target):
        read.append((start, len(target)))
        whole(self, start, target)

    monkeypatch.setattr(StoredFile, "read_into", note)
    load_fresh(series[1])
    tensor_hashes(series[1])
    mine = {t.storage.key for t in stored.content["state_dicts"][1].values()}
    spans = [(stored.start_bytes[k], stored.start_bytes[k] + _bytes(stored, k)) for k in mine]
    assert read and all(any(a <= start and start + n <= b for a, b in spans) for start, n in read)
    assert series[1].size_bytes == sum(b - a for a, b in spans) < (folder / "all.pt").stat().st_size / 2


def _bytes(stored, key):
    return next(
        t.storage.size_bytes
        for one in stored.content["state_dicts"]
        for t in one.values()
        if t.storage.key == key
    )


def test_fingerprints_are_cached_per_step(folder, tmp_path):
    torch.save({"state_dicts": states(), "epochs": list(STEPS)}, folder / "all.pt")
    series, cache = open_series(folder), Fingerprints(tmp_path / "f.json")
    found = [cache.of(checkpoint) for checkpoint in series]
    cache.close()
    again = Fingerprints(tmp_path / "f.json")
    assert len(set(found)) == 3 and [again.cached(checkpoint) for checkpoint in series] == found


def test_transformer_lens_names_with_the_config_in_the_file_or_beside(tmp_path):
    first = state("attn_only_ln")
    content = {"state_dicts": [first, redrawn(first, 1)], "epochs": [0, 50], "config": config("attn_only_ln")}
    (tmp_path / "a").mkdir()
    torch.save(content, tmp_path / "a/run.pth")
    series = open_series(tmp_path / "a")
    assert [c.format for c in series] == ["tl_legacy"] * 2 and series.steps == (0, 50)
    tokens, logits, _ = golden("attn_only_ln")
    hooked = HookedSeries(series)
    torch.testing.assert_close(hooked.load(series[0]).logits(tokens), logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(hooked.load(series[1]).logits(tokens), logits, atol=1e-2)
    (tmp_path / "b").mkdir()
    torch.save({0: first, 50: redrawn(first, 1)}, tmp_path / "b/run.pth")
    assert "config" in _refusal(tmp_path / "b").message
    (tmp_path / "b/config.json").write_text(json.dumps(config("attn_only_ln")))
    assert open_series(tmp_path / "b").steps == (0, 50)


def test_lint_looks_at_every_step(folder):
    one, two, three = states()
    torch.save(
        {"state_dicts": [one, two, {k: t.clone() for k, t in two.items()}, three], "epochs": [0, 1, 2, 3]},
        folder / "all.pt",
    )
    facts = lint(open_series(folder)).facts
    assert [(fact.kind, fact.steps) for fact in facts] == [("identical_steps", (1, 2))]


def test_a_list_without_numbers_says_how_to_save_it(folder):
    torch.save({"state_dicts": states(), "epochs": [0, 1]}, folder / "all.pt")
    error = _refusal(folder)
    assert "holds 3 state dicts in state_dicts and no list of 3 whole numbers" in error.message
    content = torch.load(folder / "all.pt", weights_only=True)
    run = compile(error.help.partition(": ")[2].replace("'run.pt'", "path"), "<help>", "exec")
    exec(run, {"torch": torch, "steps": STEPS, "states": content["state_dicts"], "path": folder / "all.pt"})
    assert open_series(folder).steps == STEPS


def test_states_saved_by_reference_are_called_what_they_are(folder):
    model = torch.nn.Linear(2, 2)
    kept = [model.state_dict() for _ in STEPS]  # the mistake: no copy
    torch.save({"state_dicts": kept, "epochs": list(STEPS)}, folder / "all.pt")
    error = _refusal(folder)
    assert (
        "3 steps (0, 100, 2000) in all.pt are the very same tensors" in error.message
        and "clone()" in error.help
    )


def test_a_step_of_other_shapes_is_a_gap(folder):
    one, two, three = states()
    two["transformer.wte.weight"] = torch.zeros(3, 5)
    torch.save(
        {"state_dicts": [one, {"w": torch.zeros(10**6)}, three], "steps": list(STEPS)}, folder / "all.pt"
    )
    series = open_series(folder)
    assert len(series) >= 2 and series.at(0) and series.at(2000)


def test_one_state_dict_is_still_one_step(folder):
    torch.save(states()[0], folder / "step_5.pt")
    assert (open_series(folder).format, open_series(folder).steps) == ("state_dict", (5,))


def _refusal(folder) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_series(folder)
    return caught.value


def test_what_an_optimiser_keeps_by_parameter_is_no_series(folder):
    model = torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    adam.step()
    torch.save(adam.state_dict(), folder / "adam.pt")
    assert "holds no tensors by name" in _refusal(folder).message


def test_files_named_by_step_stay_what_they_are(folder):
    torch.save(states()[0], folder / "step_5.pt")
    torch.save(dict(zip(STEPS, states(), strict=True)), folder / "history.pt")
    series = open_series(folder)
    assert (series.format, series.steps) == ("state_dict", (5,)) and len(series.gaps) == 1


def test_configs_that_are_objects_say_what_to_save_instead(tmp_path, monkeypatch):
    module = types.ModuleType("transformer_lens")
    module.Config = type(
        "Config", (), {"__module__": "transformer_lens", "to_dict": lambda self: config("attn_only_ln")}
    )
    monkeypatch.setitem(sys.modules, "transformer_lens", module)
    first = state("attn_only_ln")
    content = {
        "config": module.Config(),
        "checkpoints": [first, redrawn(first, 1)],
        "checkpoint_epochs": [0, 50],
    }
    torch.save(content, tmp_path / "demo.pth")
    error = _refusal(tmp_path)
    assert "refers to transformer_lens.Config" in error.message
    assert "torch.save({step: state_dict, ...}, 'run.pth')" in error.help and "cfg.to_dict()" in error.help
    (tmp_path / "saved").mkdir()  # as the message says
    torch.save({0: content["checkpoints"][0], 50: content["checkpoints"][1]}, tmp_path / "saved/run.pth")
    (tmp_path / "saved/config.json").write_text(json.dumps(content["config"].to_dict(), default=str))
    assert open_series(tmp_path / "saved").steps == (0, 50)
