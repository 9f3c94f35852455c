"""State dicts without a config.json: the message says what they look like, and its lines, run as they stand, make them open."""

from __future__ import annotations

import re

import pytest
import torch
from pickled_files import hf_state
from tiny_models import N_CTX, N_HEADS, tiny_hf_model

from byrote.checkpoints import CheckpointError, open_series
from byrote.interp.loading import load_fresh

TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6]])
ANSWERS = {
    "n_head": N_HEADS,
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": N_HEADS // 2,
    "max_position_embeddings": N_CTX,
}


def refusal(folder) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_series(folder)
    return caught.value


@pytest.mark.parametrize(
    ("arch", "family"),
    [("gpt2", "GPT-2 or nanoGPT"), ("llama", "Llama, Mistral or Qwen"), ("qwen2", "Llama, Mistral or Qwen"),
     ("gpt_neox", "GPT-NeoX or Pythia")],
)  # fmt: skip
def test_the_lines_of_the_message_make_it_open(tmp_path, arch, family):
    torch.save(hf_state(arch, 3), tmp_path / "step_3.pt")
    error = refusal(tmp_path)
    assert f"look like those of {family}" in error.message and "tensors such as" in error.message
    lines = error.help.partition("for each ?: ")[2]
    lines = re.sub(r"(\w+)=\?", lambda found: f"{found[1]}={ANSWERS[found[1]]}", lines)
    exec(compile(lines, "<help>", "exec"), {})
    with torch.inference_mode():
        expected = tiny_hf_model(arch, seed=3)(TOKENS).logits
    torch.testing.assert_close(
        load_fresh(open_series(tmp_path)[0]).logits(TOKENS), expected, rtol=0, atol=1e-5
    )


def test_a_bare_state_dict_of_nanogpt_is_not_taken_for_gpt2(tmp_path):
    state = {
        k: t.t().contiguous() if ".c_" in k and t.ndim == 2 else t for k, t in hf_state("gpt2", 3).items()
    }
    torch.save(state, tmp_path / "step_3.pt")
    help = refusal(tmp_path).help
    lines = (
        help.partition("number of heads: ")[2]
        .replace("?", str(N_HEADS))
        .replace('f"ckpt_', 'f"{folder}/ckpt_')
    )
    (tmp_path / "saved").mkdir()
    exec(
        compile(lines, "<help>", "exec"),
        {"torch": torch, "state": state, "step": 3, "folder": tmp_path / "saved"},
    )
    series = open_series(tmp_path / "saved")
    assert (series.format, series.steps) == ("nanogpt", (3,))
    assert torch.isfinite(load_fresh(series[0]).logits(TOKENS)).all()


def test_models_of_ones_own_and_of_llama2c(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 3)).state_dict(), tmp_path / "step_1.pt")
    error = refusal(tmp_path)
    assert "2 tensors such as 0.weight, 0.bias" in error.message and "Adding a format" in error.help
    state = {"tok_embeddings.weight": torch.zeros(4, 4), "layers.0.attention.wq.weight": torch.zeros(4, 4)}
    (tmp_path / "l").mkdir()
    torch.save(
        {"model": state, "model_args": {"dim": 4, "n_layers": 1}, "iter_num": 5}, tmp_path / "l/ckpt.pt"
    )
    error = refusal(tmp_path / "l")
    assert "llama2.c" in error.message and "export.py" in error.help
