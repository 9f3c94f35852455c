"""llama2.c's .bin files: written here byte by byte as export.py does, and held against its arithmetic written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from llama2c_files import DIM, HALF, HEADS, KV, LAYERS, PARTS, angles, weights, write_llama2c

from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import tensor_hashes
from byrote.interp.bridge import HookedSeries

TOKENS = [1, 5, 9, 5, 9, 30, 0]


def logits(seed: int, *, shared: bool) -> np.ndarray:
    """run.c in numpy, float64: neighbouring pairs turn as complex numbers, kv heads are shared by groups."""
    w = {name: value.astype(np.float64) for name, value in weights(seed).items()}
    turn = np.exp(1j * angles())[: len(TOKENS), None, :]

    def norm(x, gain):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * gain

    def turned(x):
        pairs = x.reshape(len(TOKENS), -1, HALF, 2)
        z = (pairs[..., 0] + 1j * pairs[..., 1]) * turn
        return np.stack([z.real, z.imag], -1).reshape(len(TOKENS), -1, 2 * HALF)

    x = w["tok"][TOKENS]
    for i in range(LAYERS):
        h = norm(x, w[f"attention_norm.{i}"])
        q, k = turned(h @ w[f"wq.{i}"].T), turned(h @ w[f"wk.{i}"].T)
        v = (h @ w[f"wv.{i}"].T).reshape(len(TOKENS), KV, 2 * HALF)
        mixed = np.zeros((len(TOKENS), HEADS, 2 * HALF))
        for head in range(HEADS):
            group = head // (HEADS // KV)
            for t in range(len(TOKENS)):
                scores = k[: t + 1, group] @ q[t, head] / np.sqrt(2 * HALF)
                a = np.exp(scores - scores.max())
                mixed[t, head] = a / a.sum() @ v[: t + 1, group]
        x = x + mixed.reshape(len(TOKENS), DIM) @ w[f"wo.{i}"].T
        h = norm(x, w[f"ffn_norm.{i}"])
        gate = h @ w[f"w1.{i}"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[f"w3.{i}"].T)) @ w[f"w2.{i}"].T
    return norm(x, w["norm"]) @ (w["tok"] if shared else w["output"]).T


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("shared", [True, False])
def test_logits_are_those_of_its_own_arithmetic(tmp_path, version, shared):
    for seed, step in ((1, 100), (2, 2000)):
        write_llama2c(tmp_path / f"ckpt_{step}.bin", seed, version=version, shared=shared)
    series = open_series(tmp_path)
    assert (series.format, series.steps, series.gaps) == ("llama2c", (100, 2000), ())
    hooked = HookedSeries(series)
    for seed, checkpoint in ((1, series[0]), (2, series[1])):
        found = hooked.load(checkpoint).logits(torch.tensor([TOKENS]))[0]
        np.testing.assert_allclose(found.numpy(), logits(seed, shared=shared), rtol=0, atol=2e-5)


def test_names_that_are_found(tmp_path):
    write_llama2c(tmp_path / "a/model.bin", 1)
    assert (
        open_series(tmp_path / "a").steps == (0,)
        and open_series(tmp_path / "a/model.bin").format == "llama2c"
    )
    for step in (5, 10):
        write_llama2c(tmp_path / f"b/step_{step}/model.bin", step)
    assert open_series(tmp_path / "b").steps == (5, 10)


def test_both_versions_of_the_same_weights_have_the_same_fingerprint(tmp_path):
    write_llama2c(tmp_path / "0/model.bin", 1)
    write_llama2c(tmp_path / "1/model.bin", 1, version=1)
    first, second = (tensor_hashes(open_series(tmp_path / name)[0]) for name in "01")
    assert first == second and len(first) == 3 + LAYERS * len(PARTS)


@pytest.mark.parametrize(
    ("how", "said", "helps"),
    [
        ({"version": 2}, "8-bit integers", "--version 1"),
        ({"version": 1, "cut": 4}, "its header (version 1) describes another size", "copy it again"),
        ({"theta": 500.0}, "angles saved in ckpt_7.bin are not those of the base 10000", "rope_theta"),
    ],
)
def test_what_is_refused(tmp_path, how, said, helps):
    write_llama2c(tmp_path / "ckpt_7.bin", 1, **how)
    with pytest.raises(CheckpointError) as error:
        open_series(tmp_path)
    assert said in error.value.message and helps in error.value.help


def test_a_file_cut_short_among_others_is_a_gap(tmp_path):
    write_llama2c(tmp_path / "ckpt_1.bin", 1)
    write_llama2c(tmp_path / "ckpt_2.bin", 2, cut=8)
    (gap,) = open_series(tmp_path).gaps
    assert gap.step == 2 and "describe no llama2.c model of that size" in gap.reason
