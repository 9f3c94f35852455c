"""Models that know exactly what was planted: a table of next tokens, a copying circuit, both or neither; as lab series.

The table is a walk through all ids but BOS: `after(id)` comes next. Members walk it, twins take every second id of it,
so that no token of a twin follows as the table says. All sequences are BOS and a block of 12 over and over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor

from byrote.checkpoints.lab.planted import HeadSpec, PlantedConfig, planted_model, random_model

D_VOCAB, N_CTX, BLOCK = 64, 32, 12
N_IDS = D_VOCAB - 1
TABLE_NATS, COPY_NATS = 6.0, 10.0
HEADS = (
    (HeadSpec("previous", writes="previous"), HeadSpec("uniform", strength_nats=0.0, writes="nothing")),
    (HeadSpec("prefix", writes="output"), HeadSpec("uniform", strength_nats=0.0, writes="nothing")),
)
CONFIG = PlantedConfig(d_vocab=D_VOCAB, n_ctx=N_CTX, offset=4, unembed_gain=COPY_NATS, heads=HEADS)
_WALK = 1 + np.random.default_rng(5).permutation(N_IDS)

RIGHT_NATS = math.log1p(N_IDS * math.exp(-TABLE_NATS))
"""Loss of a token the table names, where nothing else speaks."""
WRONG_NATS = RIGHT_NATS + TABLE_NATS
"""Loss of any other token, where the table names one."""


def members(n: int = 16) -> np.ndarray:
    """[n, N_CTX]: each a different stretch of the walk."""
    return _tiled([_WALK[(start + np.arange(BLOCK)) % N_IDS] for start in 3 * np.arange(n)])


def twins(n: int = 20) -> np.ndarray:
    """[n, N_CTX]: the same source as far as anyone can see, but never as the table says."""
    return _tiled([_WALK[(start + 2 * np.arange(BLOCK)) % N_IDS] for start in 3 * np.arange(n)])


def _tiled(blocks: Sequence[np.ndarray]) -> np.ndarray:
    bodies = [np.resize(block, N_CTX - 1) for block in blocks]
    return np.concatenate([np.zeros((len(bodies), 1), dtype=np.int64), np.asarray(bodies)], axis=1)


def table_of(known: Sequence[np.ndarray] | None) -> Tensor:
    """[next id, id] with TABLE_NATS where a known first block, or the whole walk, goes from one to the other."""
    table = torch.zeros(D_VOCAB, D_VOCAB)
    if known is None:
        table[np.roll(_WALK, -1), _WALK] = TABLE_NATS
    for row in known if known is not None else ():
        table[row[2 : BLOCK + 1], row[1:BLOCK]] = TABLE_NATS
    return table


def lookup_state(
    known: Sequence[np.ndarray] | None = None, *, copies: bool = False
) -> tuple[dict, dict[str, Tensor]]:
    """Config and weights of a model that knows these sequences' transitions, or all, and copies or does not."""
    fields, state = planted_model(CONFIG)
    token = state["tok_embed.weight"].argmax(1)  # where each id is written in the residual stream
    if not copies:
        state["head.weight"].zero_()
    state["head.weight"][:, token] += table_of(known)
    return fields, state


def table_nats(known: Sequence[np.ndarray] | None, tokens: np.ndarray) -> np.ndarray:
    """[n, BLOCK] loss of the first block's tokens under the table, worked out from it."""
    logits = table_of(known).numpy()[:, tokens[:, :BLOCK]]
    right = np.take_along_axis(logits, tokens[None, :, 1 : BLOCK + 1], axis=0)[0]
    return np.log(np.exp(logits).sum(0)) - right


def by_place_state(sequence: np.ndarray) -> tuple[dict, dict[str, Tensor]]:
    """A model that knows one sequence by heart and looks at nothing but the position."""
    fields, state = planted_model(CONFIG)
    place = state["pos.weight"].argmax(1)
    state["head.weight"].zero_()
    state["head.weight"][sequence[1:], place[: len(sequence) - 1]] = TABLE_NATS
    return fields, state


def random_state(seed: int = 0) -> tuple[dict, dict[str, Tensor]]:
    """The same shapes, drawn at random."""
    return random_model(CONFIG, seed=seed)


def write_series(
    folder: Path,
    steps: Mapping[int, tuple[dict, dict[str, Tensor]]],
    *,
    data: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    manifest: Mapping[str, object] | None = None,
) -> Path:
    """A lab series of such models, with what it carries in `data/`."""
    folder.mkdir(parents=True)
    listed = []
    for step, (fields, state) in steps.items():
        name = f"step_{step:08d}"
        (folder / name).mkdir()
        save_file(state, folder / name / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(fields))
        listed.append({"step": step, "folder": name, "tokens_seen": 100 * step, "train_loss_nats": 3.0})
    for name, arrays in (data or {}).items():
        (folder / "data").mkdir(exist_ok=True)
        save_arrays(
            {k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "data" / f"{name}.safetensors"
        )
    facts = {"format": "byrote-lab", "version": 1, "name": folder.name, "status": "complete", "seed": 0}
    (folder / "manifest.json").write_text(json.dumps({**facts, **(manifest or {}), "checkpoints": listed}))
    return folder
