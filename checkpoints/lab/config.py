"""The configuration of a lab series: everything that determines its bytes, each setting written once with its help.

It imports nothing heavy: the command line imports it before it parses its arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.sources import Source, SourceConfig
from byrote.checkpoints.setting import MAX_SEED, shown

NORMS = {"none": None, "ln": "LN", "rms": "RMS"}  # as typed: `normalization_type`
BLOCKS = {"attention": True, "full": False}  # as typed: `attn_only`
NATIVE, SMEARED = "transformer_lens_native", "byrote_smeared_keys"  # `model_type` of config.json
ARCHITECTURES = ("native", "llama", "gpt_neox")
DEVICES = ("cpu", "cuda")
_TWINS_WITHOUT_POOL = 64
_BETAS = (0.9, 0.999)  # of torch's AdamW; a manifest says others
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
_AT_LEAST_ZERO = ("seed", "weight_decay", "warmup_steps", "init_scale", "checkpoints")


# What no lab run needs and would only fill memory: a manifest may say anything, and so may a slip of the hand.
MAX_POOL = 1 << 20
MAX_CHECKPOINTS, MAX_COUNT = 1_000_000, 1 << 53
_OWN_NORM = {"llama": "RMS", "gpt_neox": "LN"}
_AT_MOST = {"n_layers": 1_000, "d_model": 1 << 16, "n_heads": 1 << 16, "d_head": 1 << 16, "batch": 1 << 20,
            "n_held_out": 1 << 20, "threads": 1 << 10}  # fmt: skip


@dataclass(frozen=True)
class LabConfig:
    """A lab run: the model, its data and its training.

    Attributes:
        n_layers, d_model, n_heads, d_head: the transformer's shape; context and vocabulary are the source's.
        attn_only: leave out the MLPs.
        normalization_type: None, "LN" or "RMS".
        architecture: "native" (learned positions, one block after another); "llama" (rotary positions, RMSNorm, gated
            MLPs); "gpt_neox" (rotary positions on a quarter of each head, LayerNorm, attention and MLP in parallel, the
            model of transformers). The last two have MLPs and their own norm, whatever `attn_only` and
            `normalization_type` say by default.
        smeared_keys: every head mixes each key with the one before, in a share that it learns (Olsson et al. 2022).
        dropout: share of what embeddings, attention and MLPs add that training leaves out, drawn anew by step.
        init_std: standard deviation of every weight at step 0. There are no biases: they stay 0.
        init_scale: above 0, `init_std` is this divided by the square root of `d_model`, whatever it was.
        source: where sequences come from.
        arm: what each batch is made of.
        seed: decides the weights at step 0, the training data and the pool.
        steps: optimiser steps.
        batch: sequences per step (the control arm trains on fewer).
        lr: peak learning rate of AdamW.
        betas: of AdamW, decay rates of its two moments.
        weight_decay: of AdamW, on every weight.
        warmup_steps: steps of linear warm-up.
        final_lr_frac: share of `lr` that the linear decay ends at.
        every: spacing of the written steps after the log-spaced early ones.
        checkpoints: about how many steps are written, instead of by `every`; 0 for that.
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
    attn_only: bool = field(
        default=True,
        metadata=shown(
            "Attention alone, or MLPs too.", called="blocks", choices=tuple(BLOCKS), default="attention"
        ),
    )
    normalization_type: str | None = field(
        default=None,
        metadata=shown("LayerNorm, RMSNorm or none.", called="norm", choices=tuple(NORMS), default="none"),
    )
    architecture: str = field(
        default="native",
        metadata=shown(
            "Positions, norms and MLPs of this family; llama and gpt_neox have MLPs.", choices=ARCHITECTURES
        ),
    )
    smeared_keys: bool = field(
        default=False, metadata=shown("Heads mix each key with the one before it (Olsson et al. 2022).")
    )
    dropout: float = field(default=0.0, metadata=shown("Dropout rate in training.", metavar="X"))
    init_std: float = 0.1
    init_scale: float = field(
        default=0.0,
        metadata=shown("Weights start with a spread of X / sqrt(width); 0 is a spread of 0.1.", metavar="X"),
    )
    source: Source = field(default_factory=SourceConfig)
    arm: Arm = field(default_factory=Arm)
    seed: int = field(default=0, metadata=shown("Of weights, data and pool.", metavar="N"))
    steps: int = field(default=2400, metadata=shown("Optimiser steps.", metavar="N"))
    batch: int = field(default=64, metadata=shown("Sequences per step.", metavar="N"))
    lr: float = field(default=3e-3, metadata=shown("Peak learning rate.", metavar="X"))
    betas: tuple[float, float] = field(
        default=_BETAS,
        metadata=shown(
            "Of AdamW: decay rates of its two moving averages.", nargs=2, metavar="X X", type=float
        ),
    )
    weight_decay: float = field(default=0.01, metadata=shown("Of AdamW.", metavar="X"))
    warmup_steps: int = 50
    final_lr_frac: float = 0.1
    every: int = field(
        default=100, metadata=shown("Steps between checkpoints, after early ones.", metavar="N")
    )
    checkpoints: int = field(
        default=0,
        metadata=shown("About how many checkpoints in all, instead of --every; 0 for that.", metavar="N"),
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
        if self.init_scale > 0:
            object.__setattr__(self, "init_std", self.init_scale / math.sqrt(self.d_model))
        for name in _AT_LEAST_ZERO:
            if getattr(self, name) < 0:
                raise self._refused(name, "0 or more")
        if self.seed > MAX_SEED:
            raise self._refused("seed", "2^53 or less")
        for name in ("lr", "init_std"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise self._refused(name, "a number above 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise self._refused("betas", "two numbers from 0, below 1")
        if self.checkpoints > MAX_CHECKPOINTS or self.checkpoints == 1:
            raise self._refused("checkpoints", f"2 to {MAX_CHECKPOINTS}")
        if not 0 <= self.final_lr_frac <= 1:
            raise self._refused("final_lr_frac", "0 to 1")
        if self.normalization_type not in NORMS.values():
            raise self._refused("normalization_type", "LN, RMS or none")
        self._check_architecture()
        if self.device not in DEVICES:
            raise self._refused("device", "cpu or cuda")
        if self.arm.pool_size > MAX_POOL:
            raise ByroteError(f"pool_size is {self.arm.pool_size}", help=f"use 0 to {MAX_POOL}")
        self.arm.check(batch=self.batch, steps=self.steps)

    def _check_architecture(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise self._refused("architecture", " or ".join(ARCHITECTURES))
        if not 0 <= self.dropout < 1:
            raise self._refused("dropout", "a share from 0, below 1")
        if self.architecture == "native":
            return
        norm = _OWN_NORM[self.architecture]
        if self.normalization_type not in (None, norm):
            raise self._refused("normalization_type", f"{norm}, the norm of {self.architecture}")
        if self.d_head % (2 if self.architecture == "llama" else 8):
            raise self._refused(
                "d_head", "a multiple of 2 for llama and of 8 for gpt_neox, whose positions rotate it"
            )
        if self.architecture == "gpt_neox" and self.n_heads * self.d_head != self.d_model:
            raise self._refused(
                "d_head", f"{self.d_model} / {self.n_heads}: gpt_neox divides its width among its heads"
            )
        if self.smeared_keys and self.architecture == "gpt_neox":
            raise ByroteError(
                "smeared keys need a key matrix of their own, and gpt_neox has queries, keys and values in one matrix",
                help="use the native or llama architecture with smeared keys",
            )

    @property
    def schedule(self) -> tuple[int, ...]:
        """Steps that are written, ascending, from 0 to `steps`."""
        if self.checkpoints:
            return about_as_many(self.steps, checkpoints=self.checkpoints)
        return checkpoint_steps(self.steps, every=self.every)

    @property
    def n_twins(self) -> int:
        """Sequences in the never-trained twin of the pool."""
        return self.arm.pool_size or _TWINS_WITHOUT_POOL

    def tokens_seen(self, step: int) -> int:
        """Tokens of the sequences trained on in the first `step` steps."""
        return step * self.arm.n_trained(self.batch) * self.source.n_ctx

    @property
    def model_type(self) -> str:
        """What config.json calls the model: TransformerLens's native one, that with smeared keys, or transformers' name."""
        if self.architecture == "gpt_neox":
            return "gpt_neox"
        return SMEARED if self.smeared_keys else NATIVE

    def model_fields(self) -> dict[str, Any]:
        """What `TransformerBridgeConfig`, or transformers, needs to rebuild the model: plain JSON values."""
        return self._neox_fields() if self.architecture == "gpt_neox" else self._native_fields()

    def _native_fields(self) -> dict[str, Any]:
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
        if self.architecture == "llama":
            gated = {
                "attn_only": False,
                "gated_mlp": True,
                "act_fn": "silu",
                "d_mlp": 8 * math.ceil(self.d_model / 3),
            }
            return {**fields, **gated, "normalization_type": "RMS", "positional_embedding_type": "rotary"}
        if self.architecture == "gpt_neox":
            own = {"attn_only": False, "normalization_type": "LN", "d_mlp": 4 * self.d_model}
            return {**fields, **own, "positional_embedding_type": "rotary"}
        return fields if self.attn_only else {**fields, "d_mlp": 4 * self.d_model}

    def _neox_fields(self) -> dict[str, Any]:
        """What transformers' GPTNeoXConfig needs, and which model it is."""
        return {
            "architectures": ["GPTNeoXForCausalLM"],
            "hidden_size": self.d_model,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "intermediate_size": 4 * self.d_model,
            "vocab_size": self.source.d_vocab,
            "max_position_embeddings": self.source.n_ctx,
            "use_parallel_residual": True,
            "rotary_pct": 0.25,
            "hidden_act": "gelu",
            "attention_bias": True,
            "tie_word_embeddings": False,
            "bos_token_id": self.source.bos_token_id,
            "eos_token_id": None,
        }

    def definition(self) -> dict[str, Any]:
        """The parts of a series' manifest that say what it is; two equal ones train to equal bytes."""
        repeats = self.arm.repeats_per_sequence(batch=self.batch, steps=self.steps)
        train = ("steps", "batch", "lr", "weight_decay", "warmup_steps", "final_lr_frac", "every")
        return {
            "arm": {
                **self.arm.definition(),
                "repeats_per_sequence": int(repeats) if repeats.is_integer() else repeats,
            },
            "seed": self.seed,
            "data": {
                "source": self.source.name,
                **self.source.resolved().values(),
                "n_held_out": self.n_held_out,
            },
            "model": {
                **self._native_fields(),
                "init_std": self.init_std,
                **self._more("architecture", "smeared_keys"),
            },
            "train": {
                "optimizer": "AdamW",
                **{name: getattr(self, name) for name in (*train, "threads", "device")},
                **self._more("betas", "dropout", "checkpoints"),
            },
            "schedule": list(self.schedule),
        }

    def _more(self, *names: str) -> dict[str, Any]:
        """Settings that version 0.1 did not have, where they are not at their defaults: its series stay what they are."""
        defaults = {field.name: field.default for field in fields(self)}
        values = {name: getattr(self, name) for name in names}
        changed = {name: value for name, value in values.items() if value != defaults[name]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}

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


def about_as_many(steps: int, *, checkpoints: int) -> tuple[int, ...]:
    """Steps to write where their number is given: 0, three that double up to the even spacing, then even ones to the last.

    Args:
        steps: optimiser steps of the whole run, 1 or more.
        checkpoints: 2 or more; fewer are written where steps run out.

    Returns:
        Ascending, without repeats, from 0 to `steps`.
    """
    n_early = min(3, max(0, checkpoints - 4))
    n_even = checkpoints - 1 - n_early
    even = {round(steps * k / n_even) for k in range(1, n_even + 1)}
    early = {round(steps / n_even / 2**k) for k in range(1, n_early + 1)}
    return tuple(sorted({0, steps} | even | {step for step in early if step >= 1}))
