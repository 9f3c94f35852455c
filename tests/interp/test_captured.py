"""What a capture keeps is what the model did, under names a person can read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import write_hf_series, write_lab_series
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from byrote import interp
from byrote.checkpoints import ByroteError, open_series
from byrote.probes import figures

TOKENS = np.array([[0, 5, 6, 7, 5, 6, 7], [0, 9, 8, 7, 9, 8, 7]])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    series = open_series(write_lab_series(tmp_path_factory.mktemp("lab") / "a"))
    return interp.load(series.at(1))


def test_arrays_are_those_the_bridge_gives(model):
    seen = interp.capture(model, TOKENS, hooks=["pattern", "token_nll"])
    _, cache = model.bridge.run_with_cache(torch.from_numpy(TOKENS))
    for layer in range(model.shape.n_layers):
        expected = cache[f"blocks.{layer}.attn.hook_pattern"].numpy()
        np.testing.assert_allclose(seen.pattern[layer], expected, atol=1e-6)
    logits = model.logits(torch.from_numpy(TOKENS)).log_softmax(-1)
    expected = -logits[:, :-1].gather(-1, torch.from_numpy(TOKENS)[:, 1:, None])[..., 0]
    np.testing.assert_allclose(seen.token_nll, expected.numpy(), atol=1e-5)
    assert seen.labels[0] == ("0", "5", "6", "7", "5", "6", "7") and seen.where.endswith("step 1")


def test_one_sequence_may_be_given_flat(model):
    flat = interp.capture(model, TOKENS[0])
    assert flat.pattern.shape[1] == 1
    np.testing.assert_array_equal(flat.pattern[:, 0], interp.capture(model, TOKENS).pattern[:, 0])


def test_texts_become_tokens_where_there_is_a_tokenizer(tmp_path):
    series = write_hf_series(tmp_path, "llama", (0,))
    tokenizer = Tokenizer(WordLevel({"<unk>": 3, "the": 10, "cat": 11, "\u0120sat": 12}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    checkpoint = open_series(series).at(0)
    tokenizer.save(str(checkpoint.path / "tokenizer.json"))
    seen = interp.capture(interp.load(checkpoint), "the cat the cat", hooks="pattern")
    assert seen.tokens[0, 1:].tolist() == [10, 11, 10, 11]
    assert seen.labels[0][1:] == ("the", "cat", "the", "cat")
    with pytest.raises(ByroteError, match="contains no tokens"):
        interp.capture(interp.load(checkpoint), "  ")


def test_what_cannot_be_captured_is_refused(model):
    with pytest.raises(ByroteError, match=r"no tokenizer\.json"):
        interp.capture(model, "the cat")
    with pytest.raises(ByroteError, match="no hook 'patern'") as caught:
        interp.capture(model, TOKENS, hooks="patern")
    assert "pattern" in caught.value.help
    with pytest.raises(ByroteError, match="outside the model's vocabulary"):
        interp.capture(model, np.array([[0, 10**6]]))
    with pytest.raises(ByroteError, match="attention was not captured"):
        interp.capture(model, TOKENS, hooks="z").pattern  # noqa: B018


def test_the_attention_figure_says_where_the_head_looks(model):
    seen = interp.capture(model, TOKENS)
    fig = figures.attention(seen, head="L1H0", sequence=1)
    heat = fig.data[0]  # the tokens repeat: what an induction head looks at is outlined over it
    assert heat.z[3][5] is None and heat.z[3][2] == pytest.approx(seen.pattern[1, 1, 0, 3, 2])
    assert heat.hovertext[3][2].startswith("7 (3) attends to 8 (2)")
    strongest = int(seen.pattern[1, 1, 0, -1].argmax())
    assert f"the last token attends most to position {strongest}" in fig.layout.meta["alt"]
    with pytest.raises(ByroteError, match="no head L9H0"):
        figures.attention(seen, head="L9H0")
    with pytest.raises(ByroteError, match="no sequence 2"):
        figures.attention(seen, head="L0H0", sequence=2)
