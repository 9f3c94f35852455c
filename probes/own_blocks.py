"""Blocks of one's own in place of random ones: sequences of a file or a notebook, shown as `repeated_random`. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.token_files import id_array
from byrote.probes.sequences import Stimulus, Vocabulary, period

OWN = "own-"  # ids of blocks of one's own begin with it
MIN_BLOCKS, MOST_COPIES = 8, 4  # rows that an interval needs; times that a block given once is shown


def kind_shown(stimulus: str) -> str:
    """The kind of stimulus that an id names, of one's own or drawn."""
    return stimulus.removeprefix(OWN).split("-")[0]


def own_blocks(
    given: Path | str | Stimulus, vocabulary: Vocabulary, *, n_ctx: int, d_vocab: int, seed: int
) -> dict[str, Stimulus]:
    """What `repeated_random` and its null are then.

    Args:
        given: a file of token ids, one row a block, or one that repeats it; or such sequences, BOS first.
        vocabulary: what the null's later blocks are drawn from.
        n_ctx, d_vocab: of the model.
        seed: of those draws.

    Returns:
        Stimuli by kind. A block that is given once is shown up to four times, as often as fits. In the null the first one is
        as given, and the later ones are drawn anew; there is none where the vocabulary is smaller than a block.

    Raises:
        ByroteError: fewer than 8 rows, blocks of one token, ids that the model does not have, or blocks that do not fit twice.
    """
    body, where = blocks_of(given)
    known = period(body)
    r = known or body.shape[1]
    m = body.shape[1] // r if known else min(MOST_COPIES, (n_ctx - 1) // r)
    if m < 2 or r * m >= n_ctx:
        raise ByroteError(
            f"the blocks in {where} do not fit twice into a context of {n_ctx} tokens",
            help=f"blocks of at most {(n_ctx - 1) // 2} tokens",
        )
    if body.max() >= d_vocab:
        raise ByroteError(
            f"{where} holds ids from {body.min()} to {body.max()}", help=f"the model has ids below {d_vocab}"
        )
    block, sizes = body[:, :r], {"r": r, "m": m, "n_ids": len(vocabulary.ids), "bos": vocabulary.bos}
    shown = Stimulus.from_tokens(block, bos=vocabulary.bos, copies=m, name=f"{OWN}repeated_random")
    # A block may itself be a shorter one over and over: `copy_index` counts the blocks that were given.
    copy = np.broadcast_to(np.arange(r * m) // r + 1, (len(block), r * m))
    copy = np.concatenate([np.zeros((len(block), 1)), copy], axis=1).astype(np.int64)
    repeated = replace(shown, kind="repeated_random", seed=seed, copy_index=copy, params=sizes)
    if len(vocabulary.ids) < r:
        return {"repeated_random": repeated}
    rng = np.random.default_rng([seed, 2])
    later = [[rng.choice(vocabulary.ids, r, replace=False) for _ in range(m - 1)] for _ in block]
    body = np.concatenate([block, np.array(later).reshape(len(block), -1)], axis=1)
    drawn = Stimulus.from_tokens(body, bos=vocabulary.bos, name=f"{OWN}shuffled_repeat-s{seed}")
    null = replace(
        drawn, kind="shuffled_repeat", seed=seed, copy_index=copy, params=sizes, match_tokens=shown.tokens
    )
    return {one.kind: one for one in (repeated, null)}


def blocks_of(given: Path | str | Stimulus) -> tuple[np.ndarray, str]:
    """Blocks that were given, without BOS, and what they are called: what can be checked of them before a model is loaded.

    Raises:
        ByroteError: the file is not one of token ids, it has fewer than 8 rows, or its blocks are one token.
    """
    body = given.tokens[:, 1:] if isinstance(given, Stimulus) else _ids_of(Path(given))
    where = given.id if isinstance(given, Stimulus) else Path(given).name
    if body.ndim != 2 or len(body) < MIN_BLOCKS:
        raise ByroteError(
            f"{where} holds {len(body) if body.ndim == 2 else 1} sequences, and an interval needs {MIN_BLOCKS}",
            help="give one block per row",
        )
    if (period(body) or body.shape[1]) < 2:
        raise ByroteError(
            f"the rows of {where} are one token over and over", help="a block has at least 2 tokens"
        )
    return body, where


def _ids_of(file: Path) -> np.ndarray:
    """Ids of a file; what is wrong with it is an error of the command, not a gap of one checkpoint."""
    if file.suffix.lower() not in (".npy", ".safetensors"):
        raise ByroteError(
            f"{file.name} is not a file of token ids",
            help='give a .npy or .safetensors file: numpy.save("blocks.npy", ids), one block per row',
        )
    try:
        return id_array(file)
    except CheckpointError as error:
        raise ByroteError(error.message, help=error.help) from None
