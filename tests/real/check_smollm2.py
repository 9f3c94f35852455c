"""SmolLM2's numbers again without byrote's hooks and without TransformerLens: transformers alone.

    .venv/bin/python tests/real/check_smollm2.py runs/real

Read from byrote's results: the random tokens that were shown, the heads that were called, and the random sets they were compared
with. The weights are read by transformers' own reader of GGUF, attention is that of its eager kernel, and heads are ablated by a
hook on the output projection. Everything else is computed here:

1. prefix matching of every head: attention from a token to what followed its earlier copies, token by token
2. loss on the first block of repeated random tokens and on later blocks
3. the loss added on later blocks when the called heads are replaced by their mean over the other sequences, minus the same
   for as many random heads, over the very draws that load_bearing made (`called_excess`); of a model without called heads
   the heads that match prefixes most (`excess`)
4. of known_texts.txt, what `generate` writes greedily after BOS and the first 32 tokens, and how many tokens of it agree with the
   text before the first that does not; the same after <|endoftext|>, which stood between the texts of the model's pretraining, in
   place of BOS
5. mean loss of each of those texts, and of those of new_texts.txt

Each is compared with the results that byrote stored; one that differs by more than 1e-4 exits with 1. What was found is
written to check.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

TOLERANCE = 1e-4
Head = tuple[int, int]
PROMPT_TOKENS = 32
SEPARATOR = "<|endoftext|>"


def load(folder: Path) -> Any:
    """The model, as transformers reads it from the GGUF file."""
    from transformers import AutoModelForCausalLM

    (file,) = folder.glob("*.gguf")
    kinds = {"dtype": torch.float32, "attn_implementation": "eager"}
    return AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, **kinds).eval()


def prefix_matching(pattern: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """Of each head on one sequence: mean over queries with an earlier copy of the attention on what followed the copies.

    Args:
        pattern: attention [head, query, key].
        tokens: of the sequence.
    """
    per_query = []
    for query, token in enumerate(tokens):
        after = [place + 1 for place in range(query) if tokens[place] == token]
        if after:
            per_query.append(pattern[:, query, after].sum(1))
    return np.mean(per_query, axis=0)


def losses(model: Any, tokens: torch.Tensor) -> np.ndarray:
    """Next-token losses in nats, [sequence, next position]."""
    with torch.inference_mode():
        logits = model(tokens).logits[:, :-1].double()
    return -logits.log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].numpy()


def by_blocks(nll: np.ndarray, *, length: int, n_blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean loss per sequence on the first block, and on the later blocks without the first token of each.

    Args:
        nll: losses; the first is that of the token after BOS.
        length: of a block.
        n_blocks: how often it comes.
    """
    blocks = nll[:, : length * n_blocks].reshape(len(nll), n_blocks, length)
    return blocks[:, 0].mean(1), blocks[:, 1:, 1:].mean((1, 2))


@contextmanager
def without(model: Any, heads: Sequence[Head], z: dict[int, torch.Tensor], size: int) -> Iterator[None]:
    """The model with what some heads hand on replaced by its mean over the other sequences, for the length of a block.

    Args:
        model: on the very sequences that `z` was taken from.
        heads: layer and head.
        z: layer -> what enters its output projection, [sequence, pos, heads x size].
        size: dimensions of a head.
    """

    def replacing(layer: int) -> Any:
        own = z[layer]
        others = (own.sum(0, keepdim=True) - own) / (len(own) - 1)

        def hook(module: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            (inside,) = args
            changed = inside.clone()
            for _, head in (one for one in heads if one[0] == layer):
                part = slice(head * size, (head + 1) * size)
                changed[..., part] = others[..., part]
            return (changed,)

        return hook

    layers = {layer for layer, _ in heads}
    handles = [
        model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(replacing(layer))
        for layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def entering_output(model: Any, tokens: torch.Tensor, layers: set[int]) -> dict[int, torch.Tensor]:
    """Layer -> what enters its output projection on a plain pass."""
    seen: dict[int, torch.Tensor] = {}

    def keeping(layer: int) -> Any:
        def hook(module: Any, args: tuple[torch.Tensor]) -> None:
            seen[layer] = args[0]

        return hook

    handles = [
        model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(keeping(layer))
        for layer in layers
    ]
    with torch.inference_mode():
        model(tokens)
    for handle in handles:
        handle.remove()
    return seen


def shown_tokens(results: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """What byrote showed the model: tokens, and how they were drawn."""
    from byrote.probes.stimuli import Vocabulary, make

    facts = next(one for one in results.meta["stimuli"] if one["kind"] == "repeated_random")
    vocabulary = Vocabulary.from_json(results.meta["vocabulary"])
    n_ctx, n_seq = results.meta["model"]["n_ctx"], facts["n"]
    shown = make("repeated_random", vocabulary, n_ctx=n_ctx, seed=facts["seed"], n_seq=n_seq)
    if shown.id != facts["id"]:
        raise SystemExit(f"the tokens that were shown ({facts['id']}) cannot be drawn again: {shown.id}")
    return shown.tokens, facts


def chosen_heads(results: Any) -> tuple[list[Head], str]:
    """The heads that byrote called, else as many as load_bearing takes of those that match prefixes most; and the metric."""
    called = results.select("induction", "verdict").query("value == 1")
    if len(called):
        return sorted((int(one.layer), int(one.head)) for one in called.itertuples()), "called_excess"
    above = [
        results.select("prefix_matching", name).set_index(["layer", "head"])["value"]
        for name in ("score", "score@shuffled_repeat")
    ]
    n_top = int(_stored(results, "load_bearing", "n_top"))
    best = (above[0] - above[1]).nlargest(n_top).index
    return sorted((int(layer), int(head)) for layer, head in best), "excess"


def encoded(folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts without special tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [one.ids for one in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def continued(model: Any, ids: Sequence[Sequence[int]], *, first: int, k: int) -> list[dict[str, Any]]:
    """What the model writes greedily after `first` and the first k tokens of each text.

    Args:
        model: as loaded.
        ids: of each text, at least 2 k.
        first: id in front of every prompt.
        k: tokens of a prompt, and tokens that are written.

    Returns:
        Per text: `matched`, tokens before the first wrong one, the ids `written` and the `true` ones.
    """
    prompts = torch.tensor([[first, *one[:k]] for one in ids])
    with torch.inference_mode():
        out = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            min_new_tokens=k,
            max_new_tokens=k,
        )
    found = []
    for written, one in zip(out[:, k + 1 :].tolist(), ids, strict=True):
        right = [a == b for a, b in zip(written, one[k : 2 * k], strict=True)]
        found.append({"matched": [*right, False].index(False), "written": written, "true": one[k : 2 * k]})
    return found


def on_texts(model: Any, folder: Path) -> dict[str, Any]:
    """Greedy continuations of known texts, and losses of known and new texts.

    Returns:
        `k`; per known text `texts` with what was written; `separator`: tokens matched after the separator in place of BOS, None
        where the vocabulary has none; `loss` and `loss@twins` in nats.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    lines = [
        (folder / f"{name}.txt").read_text(encoding="utf-8").split("\n")
        for name in ("known_texts", "new_texts")
    ]
    known, new = ([*encoded(folder, [line for line in one if line.strip()])] for one in lines)
    length = min(map(len, [*known, *new]))  # sequences of one length are what byrote shows
    k = min(PROMPT_TOKENS, length // 2)
    bos, separator = model.config.bos_token_id, tokenizer.token_to_id(SEPARATOR)
    starts = [bos] if separator is None else [bos, separator]
    after = [continued(model, known, first=first, k=k) for first in starts]
    texts = [
        {
            "matched": one["matched"],
            **{name: tokenizer.decode(one[name][:12]) for name in ("written", "true")},
        }
        for one in after[0]
    ]
    nats = [
        losses(model, torch.tensor([[bos, *ids[:length]] for ids in one])).mean(1) for one in (known, new)
    ]
    return {
        "k": k,
        "texts": texts,
        "separator": None if separator is None else [one["matched"] for one in after[1]],
        "loss": nats[0].tolist(),
        "loss@twins": nats[1].tolist(),
    }


def compare(folder: Path) -> dict[str, Any]:
    """Compute everything anew.

    Args:
        folder: with the GGUF file, the texts and `results`.

    Returns:
        `compared`: what -> [byrote's number, ours]; `off`: the largest difference; the heads ablated and what that costs; what
        was written of the texts.
    """
    from byrote.probes.circuits.effects import matched_draws
    from byrote.probes.results import Results

    (place,) = (path.parent for path in (folder / "results").glob("*/run.json"))
    results, model = Results.open(place), load(folder)
    shown, facts = shown_tokens(results)
    tokens, sizes = torch.from_numpy(shown), {"length": facts["r"], "n_blocks": facts["m"]}
    matching = all_matching(model, tokens)
    rows = results.select("prefix_matching", "score").sort_values(["layer", "head"])
    worst = int(np.abs(rows["value"] - matching.ravel()).argmax())
    found = {
        "prefix_matching, the head that differs most": (
            float(rows["value"].iloc[worst]),
            float(matching.ravel()[worst]),
        )
    }

    clean = losses(model, tokens)
    for name, own in zip(("first_block", "later_blocks"), by_blocks(clean, **sizes), strict=True):
        found[f"repeat_loss {name}"] = (_stored(results, "repeat_loss", name), float(own.mean()))

    heads, metric = chosen_heads(results)
    draws = matched_draws(heads, n_layers=matching.shape[0], n_heads=matching.shape[1], seed=0).sets
    sets = [tuple(heads), *draws]
    z = entering_output(model, tokens, {layer for one in sets for layer, _ in one})
    added = []
    for one in sets:
        with without(model, one, z, model.config.head_dim):
            added.append(by_blocks(losses(model, tokens), **sizes)[1] - by_blocks(clean, **sizes)[1])
    random = np.stack(added[1:])
    random[random.mean(1) < 0] = 0.0
    found[f"load_bearing {metric}"] = (
        _stored(results, "load_bearing", metric),
        float((added[0] - random.mean(0)).mean()),
    )
    written = on_texts(model, folder)
    samples = results.samples(results.steps[-1])
    ours = np.array([one["matched"] for one in written["texts"]]) / written["k"]
    for probe, name, each in (
        ("extraction", "matched", ours), ("exact_match", "loss", written["loss"]),
        ("exact_match", "loss@twins", written["loss@twins"]),
    ):  # fmt: skip
        theirs = samples.query("probe == @probe and metric == @name")["samples"].iloc[0]
        worst = int(np.abs(np.subtract(theirs, each)).argmax())
        found[f"{probe} {name}, the text that differs most"] = float(theirs[worst]), float(each[worst])
    return {
        "compared": {name: list(pair) for name, pair in found.items()},
        "off": max(abs(theirs - ours) for theirs, ours in found.values()),
        "heads": heads,
        "without_them_nats": float(added[0].mean()),
        "without_random_nats": float(random.mean()),
        "n_draws": len(draws),
        "tolerance": TOLERANCE,
        "known": written,
    }


def all_matching(model: Any, tokens: torch.Tensor) -> np.ndarray:
    """Prefix matching of every head, mean over the sequences: [layer, head]."""
    each = []
    for sequence in tokens:
        with torch.inference_mode():
            attentions = model(sequence[None], output_attentions=True).attentions
        own = [prefix_matching(pattern[0].double().numpy(), sequence.tolist()) for pattern in attentions]
        each.append(np.stack(own))
    return np.mean(each, axis=0)


def main() -> None:
    """Compare, print, and write check.json."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    check = compare(folder)
    for name, (theirs, ours) in check["compared"].items():
        print(f"{name}: byrote {theirs:.6f}, here {ours:.6f}, off by {abs(theirs - ours):.1e}")
    (folder / "check.json").write_text(json.dumps(check, indent=1) + "\n", encoding="utf-8")
    sys.exit(not check["off"] <= TOLERANCE)


def _stored(results: Any, probe: str, metric: str) -> float:
    return float(results.select(probe, metric)["value"].iloc[0])


if __name__ == "__main__":
    main()
