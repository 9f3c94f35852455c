"""What both probes of copying by one head share: prompts that end in a pair seen before, and one head's output patched.

Source: Feucht et al. 2025, The dual-route model of induction, arXiv:2504.03022.

clean      BOS, f random tokens, e1 e2, the f tokens again, e1 e2
corrupted  BOS, f + 2 other random tokens, the f tokens, e1 e2
What predicts e1 stands before it; what predicts e2 is e1. Neither e1 nor e2 is among the random tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from byrote.interp.intervene import Edit, clean_run, edit_problem, losses_under
from byrote.interp.model import HookedModel
from byrote.probes.circuits.effects import refuse_if
from byrote.probes.stimuli import Stimulus

MIN_FILLER = 4


@dataclass(frozen=True)
class Patched:
    """Probabilities of e1 and e2 (last axis), per sequence.

    Attributes:
        clean, corrupted: with nothing patched.
        change: probability with one head's output before e1 taken from the clean run, minus that without.
    """

    clean: Float[np.ndarray, "n_seq 2"]
    corrupted: Float[np.ndarray, "n_seq 2"]
    change: Float[np.ndarray, "n_seq n_layers n_heads 2"]


def random_pairs(stimuli: Mapping[str, Stimulus]) -> Int[np.ndarray, "n_seq 2"]:
    """Two random tokens per sequence: the last two of each block."""
    repeated = stimuli["repeated_random"]
    return repeated.tokens[:, repeated.params["r"] - 1 : repeated.params["r"] + 1]


def prompts(
    stimuli: Mapping[str, Stimulus], pairs: Int[np.ndarray, "n_seq 2"]
) -> tuple[Int[Tensor, "n_seq pos"], Int[Tensor, "n_seq pos"]]:
    """Clean and corrupted sequences.

    Args:
        stimuli: "repeated_random", whose first block is what is repeated, and "shuffled_repeat", whose second stands in its
            place.
        pairs: e1 and e2 of each sequence.

    Raises:
        NotMeasuredError: a block holds fewer than 6 tokens.
    """
    repeated, other = stimuli["repeated_random"], stimuli["shuffled_repeat"]
    r = repeated.params["r"]
    refuse_if("" if r >= MIN_FILLER + 2 else f"a block of {r} tokens holds no pair and {MIN_FILLER} others")
    rows = []
    for pair, block, redrawn in zip(
        pairs, repeated.tokens[:, 1 : r + 1], other.tokens[:, r + 1 : 2 * r + 1], strict=True
    ):
        filler, instead = (part[~np.isin(part, pair)][: r - 2] for part in (block, redrawn))
        filler = filler[: r - 4]
        end, bos = [*filler, *pair], repeated.tokens[0, 0]
        rows.append([[bos, *filler, *pair, *end], [bos, *instead, *end]])
    both = torch.from_numpy(np.array(rows, dtype=np.int64))
    return both[:, 0], both[:, 1]


def patched(
    model: HookedModel, clean: Int[Tensor, "n_seq pos"], corrupted: Int[Tensor, "n_seq pos"]
) -> Patched:
    """Patch every head alone, at the token before e1, from the clean into the corrupted run.

    Raises:
        NotMeasuredError: edits of this model cannot be relied on.
    """
    refuse_if(edit_problem(model, corrupted))
    shape, at = model.shape, clean.shape[1] - 3
    change = np.empty((len(clean), shape.n_layers, shape.n_heads, 2))
    base = np.empty(0)
    for layer in range(shape.n_layers):  # one layer's outputs in memory at a time
        given, own = (clean_run(model, tokens, layers=[layer]).z[layer] for tokens in (clean, corrupted))
        own = own.clone()
        edits = [Edit()]
        for head in range(shape.n_heads):
            output = own[:, :, head].clone()
            output[:, at] = given[:, at, head]
            edits.append(Edit(outputs={(layer, head): output}))
        p = _probabilities(model, corrupted, edits)
        base = p[0]
        change[:, layer] = (p[1:] - base).swapaxes(0, 1)
    return Patched(_probabilities(model, clean, [Edit()])[0], base, change)


def _probabilities(
    model: HookedModel, tokens: Tensor, edits: list[Edit]
) -> Float[np.ndarray, "n_edits n_seq 2"]:
    return torch.exp(-losses_under(model, tokens, edits)[..., -2:].double()).numpy()
