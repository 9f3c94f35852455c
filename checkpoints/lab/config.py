"""The configuration of a lab series: everything that determines its bytes, each setting written once with its help.

It imports nothing heavy: the command line imports it before it parses its arguments.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.sources import Source, SourceConfig
from byrote.checkpoints.setting import shown

NORMS = {"none": None, "ln": "LN"}  # as typed: `normalization_type`
DEVICES = ("cpu", "cuda")
_TWINS_WITHOUT_POOL = 64
_AT_LEAST_ONE = (
    "n_layers",
    "d_model",
    "n_heads",
    "d_head",
    "steps",
    "batch",
    "every",
    "threads",
    "n_held_out",
)
_AT_LEAST_ZERO = ("seed", "weight_decay", "warmup_steps")


# What no lab run needs and would only fill memory: a manifest may say anything, and so may a slip of the hand.
MAX_POOL = 1 << 20
MAX_CHECKPOINTS, MAX_COUNT = 1_000_000, 1 << 53
_AT_MOST = {"n_layers": 1_000, "d_model": 1 << 16, "n_heads": 1 << 16, "d_head": 1 << 16, "batch": 1 << 20,
            "n_held_out": 1 << 20, "threads": 1 << 10}  # fmt: skip


@dataclass(frozen=True)
class LabConfig:
    """A lab run: the model, its data and its training.

    Attributes:
        n_layers, d_model, n_heads, d_head: the transformer's shape; context and vocabulary are the source's.
        attn_only: leave out the MLPs.
        normalization_type: None or "LN".
        init_std: standard deviation of every weight at step 0. There are no biases: they stay 0.
        source: where sequences come from.
        arm: what each batch is made of.
        seed: decides the weights at step 0, the training data and the pool.
        steps: optimiser steps.
        batch: sequences per step (the control arm trains on fewer).
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on every weight.
        warmup_steps: steps of linear warm-up.
        final_lr_frac: share of `lr` that the linear decay ends at.
        every: spacing of the written steps after the log-spaced early ones.
        n_held_out: sequences of the fresh test set; they depend on the source, not on the seed.
        name: of the series; empty for the folder's name.
        threads: CPU threads of torch while training.
        device: "cpu" or "cuda".

    Raises:
        ByroteError: a value out of its range; the message names it.
    """

    n_layers: int = field(default=2, metadata=shown("Attention layers.", called="layers", metavar="N"))
    d_model: int = field(default=64, metadata=shown("Width of the residual stream.", metavar="N"))
    n_heads: int = field(default=4, metadata=shown("Heads per layer.", called="heads", metavar="N", least=1))
    d_head: int = 16
    attn_only: bool = True
    normalization_type: str | None = field(
        default=None,
        metadata=shown("LayerNorm or none.", called="norm", choices=tuple(NORMS), default="none"),
    )
    init_std: float = 0.1
    source: Source = field(default_factory=SourceConfig)
    arm: Arm = field(default_factory=Arm)
    seed: int = field(default=0, metadata=shown("Of weights, data and pool.", metavar="N"))
    steps: int = field(default=2400, metadata=shown("Optimiser steps.", metavar="N"))
    batch: int = field(default=64, metadata=shown("Sequences per step.", metavar="N"))
    lr: float = field(default=3e-3, metadata=shown("Peak learning rate.", metavar="X"))
    weight_decay: float = 0.01
    warmup_steps: int = 50
    final_lr_frac: float = 0.1
    every: int = field(
        default=100, metadata=shown("Steps between checkpoints, after early ones.", metavar="N")
    )
    n_held_out: int = 256
    name: str = ""
    threads: int = field(default=1, metadata=shown("CPU threads.", metavar="N"))
    device: str = field(default="cpu", metadata=shown("Where to train.", choices=DEVICES))

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if not 1 <= getattr(self, name) <= _AT_MOST.get(name, MAX_COUNT):
                raise self._refused(name, f"1 to {_AT_MOST[name]}" if name in _AT_MOST else "1 or more")
        if self.steps // self.every > MAX_CHECKPOINTS:
            raise ByroteError(
                f"{self.steps} steps, one in {self.every} of them written, are more than {MAX_CHECKPOINTS} checkpoints",
                help="train fewer steps, or write fewer of them",
            )
        for name in _AT_LEAST_ZERO:
            if getattr(self, name) < 0:
                raise self._refused(name, "0 or more")
        for name in ("lr", "init_std"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise self._refused(name, "a number above 0")
        if not 0 <= self.final_lr_frac <= 1:
            raise self._refused("final_lr_frac", "0 to 1")
        if self.normalization_type not in NORMS.values():
            raise self._refused("normalization_type", "LN or none")
        if self.device not in DEVICES:
            raise self._refused("device", "cpu or cuda")
        if self.arm.pool_size > MAX_POOL:
            raise ByroteError(f"pool_size is {self.arm.pool_size}", help=f"use 0 to {MAX_POOL}")
        self.arm.check(batch=self.batch, steps=self.steps)

    @property
    def schedule(self) -> tuple[int, ...]:
        """Steps that are written, ascending, from 0 to `steps`."""
        return checkpoint_steps(self.steps, every=self.every)

    @property
    def n_twins(self) -> int:
        """Sequences in the never-trained twin of the pool."""
        return self.arm.pool_size or _TWINS_WITHOUT_POOL

    def tokens_seen(self, step: int) -> int:
        """Tokens of the sequences trained on in the first `step` steps."""
        return step * self.arm.n_trained(self.batch) * self.source.n_ctx

    def model_fields(self) -> dict[str, Any]:
        """What `TransformerBridgeConfig` needs to rebuild the model: plain JSON values."""
        fields: dict[str, Any] = {
            "d_model": self.d_model,
            "d_head": self.d_head,
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "n_ctx": self.source.n_ctx,
            "d_vocab": self.source.d_vocab,
            "attn_only": self.attn_only,
            "normalization_type": self.normalization_type,
            "act_fn": "gelu",
            "positional_embedding_type": "standard",
        }
        return fields if self.attn_only else {**fields, "d_mlp": 4 * self.d_model}

    def definition(self) -> dict[str, Any]:
        """The parts of a series' manifest that say what it is; two equal ones train to equal bytes."""
        repeats = self.arm.repeats_per_sequence(batch=self.batch, steps=self.steps)
        train = ("steps", "batch", "lr", "weight_decay", "warmup_steps", "final_lr_frac", "every")
        return {
            "arm": {
                **asdict(self.arm),
                "repeats_per_sequence": int(repeats) if repeats.is_integer() else repeats,
            },
            "seed": self.seed,
            "data": {"source": self.source.name, **asdict(self.source), "n_held_out": self.n_held_out},
            "model": {**self.model_fields(), "init_std": self.init_std},
            "train": {
                "optimizer": "AdamW",
                **{name: getattr(self, name) for name in (*train, "threads", "device")},
            },
            "schedule": list(self.schedule),
        }

    def _refused(self, name: str, wanted: str) -> ByroteError:
        return ByroteError(f"{name} is {getattr(self, name)!r}", help=f"use {wanted}")


def checkpoint_steps(steps: int, *, every: int) -> tuple[int, ...]:
    """Steps to write: 0, the powers of two below `every`, every multiple of `every`, and the last.

    Early training is fast and gets log-spaced steps; after that the steps are even, because nobody knows in
    advance where the phase change falls.

    Args:
        steps: optimiser steps of the whole run, 1 or more.
        every: spacing of the even part, 1 or more.

    Returns:
        Ascending, without repeats, from 0 to `steps`.
    """
    powers = {2**k for k in range(every.bit_length()) if 2**k < every}
    chosen = {0, steps} | powers | set(range(every, steps, every))
    return tuple(sorted(s for s in chosen if s <= steps))
