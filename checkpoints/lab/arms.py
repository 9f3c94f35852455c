"""Training data of the lab's arms: unique sequences, or the same with a share of each batch from a small pool.

An arm is one entry of `ARMS`: the command line, the report and the dashboard read their words from it. No numpy: help reads it too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.setting import shown


@dataclass(frozen=True)
class ArmKind:
    """What an arm does with the last places of each batch.

    Attributes:
        about: what its batches are made of, for the command line.
        words: what a run was trained on, for report and dashboard; `{share}`, `{rest}` (what is not repeated) and
            `{pool}` stand for the run's own.
        rank: where its runs stand among those of other arms, the lowest first.
        splits: a share of each batch is set apart; without, every sequence is new.
        fill: (`ArmStream`, first step, steps) -> what stands in that share, [n_steps, n_filled, width] token ids; None
            leaves it out of the batch.
        repeats: that share is drawn from a pool.
    """

    about: str
    words: str
    rank: int
    splits: bool = True
    fill: Callable[..., Any] | None = None
    repeats: bool = False


ARMS: dict[str, ArmKind] = {
    "unique": ArmKind("every sequence new", "unique data", rank=3, splits=False),
    "repeated": ArmKind(
        "a share of each batch comes from a small pool",
        "{share} of the data repeated, from a pool of {pool}",
        rank=0,
        fill=lambda stream, first_step, n_steps: stream.repeated(first_step, n_steps),
        repeats=True,
    ),
    "control": ArmKind(
        "the unique part of the repeated arm's batches, alone: the same unique tokens, no repeats",
        "control (the unique {rest} of the data alone, none repeated)",
        rank=2,
    ),
}
DEFAULT_REPEAT_FRAC, DEFAULT_POOL = 0.5, 64  # of an arm that splits its batches, where nothing was said


def describe_arm(arm: Mapping[str, Any]) -> str:
    """What a run was trained on, as far as `arm` of its series' manifest says; "" where it says nothing."""
    name, share, pool = str(arm.get("kind") or ""), arm.get("repeat_frac"), arm.get("pool_size")
    kind = ARMS.get(name)
    if kind is None:
        return name
    if kind.repeats and not (isinstance(share, int | float) and isinstance(pool, int)):
        return "repeated data"
    rest = 1 - float(share) if isinstance(share, int | float) else 1
    return kind.words.format(share=f"{share or 0:.0%}", rest=f"{rest:.0%}", pool=f"{pool or 0:,}")


def unequal_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What differs between two arms apart from repeats: how many different sequences they see; "" where that is equal.

    Args:
        one, other: `arm` of the series' manifests; where one names no arm of the lab nothing is said.
    """
    kinds = [str(arm.get("kind") or "") for arm in (one, other)]
    if not all(kind in ARMS for kind in kinds) or not any(ARMS[kind].repeats for kind in kinds):
        return ""
    unique = [1 - float(arm.get("repeat_frac") or 0) for arm in (one, other)]
    if unique[0] == unique[1]:
        return ""
    fewer = unique.index(min(unique))
    times = f"{unique[fewer] / unique[1 - fewer]:.0%}"
    frac = 1 - min(unique)
    return (
        f"the {kinds[fewer]} arm sees {times} as many different sequences as the {kinds[1 - fewer]} arm, beside any repeats; "
        f"the control arm sees the same ones and repeats none: byrote lab train OUT --arm control --repeat-frac {frac:g}"
    )


def arm_rank(kind: str) -> int:
    """Where runs of an arm stand in a list: those with repeated or synthetic data before their controls."""
    return ARMS[kind].rank if kind in ARMS else 0 if kind == "synthetic" else 1


@dataclass(frozen=True)
class Arm:
    """One arm of a repetition experiment.

    Attributes:
        kind: a name in `ARMS`.
        repeat_frac: share of each batch, above 0 and below 1, that is repeated (or, in the control, left
            out). 0 for the unique arm.
        pool_size: sequences in the pool. 0 for the unique arm; in the control it says which repeated arm is
            meant and changes nothing in training.

    Raises:
        ByroteError: an unknown kind, or values the kind cannot have.
    """

    kind: str = field(
        default="unique",
        metadata=shown(
            " ".join(f"{name}: {kind.about}." for name, kind in ARMS.items()),
            called="arm",
            choices=tuple(ARMS),
        ),
    )
    repeat_frac: float = field(
        default=0.0,
        metadata=shown(
            f"Repeated share of each batch; {DEFAULT_REPEAT_FRAC} for an arm with repeats.",
            metavar="X",
            type=float,
            default=None,
        ),
    )
    pool_size: int = field(
        default=0,
        metadata=shown(
            f"Sequences that are repeated; {DEFAULT_POOL} for an arm with repeats.",
            called="pool",
            metavar="N",
            type=int,
            default=None,
        ),
    )

    def __post_init__(self) -> None:
        if self.kind not in ARMS:
            raise ByroteError(f"the lab has no arm {self.kind!r}", help=did_you_mean(self.kind, tuple(ARMS)))
        if not self.rule.splits:
            if self.repeat_frac or self.pool_size:
                raise ByroteError(
                    f"the {self.kind} arm repeats nothing, but got repeat_frac {self.repeat_frac} and "
                    f"pool_size {self.pool_size}",
                    help="leave both at 0, or choose the repeated arm",
                )
            return
        if not 0.0 < self.repeat_frac < 1.0:
            raise ByroteError(
                f"repeat_frac is {self.repeat_frac}, but the {self.kind} arm mixes unique and repeated data",
                help="choose a share above 0 and below 1, such as 0.5",
            )
        if self.pool_size < self.rule.repeats:
            raise ByroteError(
                f"pool_size is {self.pool_size}", help="the pool holds at least 1 sequence, such as 64"
            )

    @classmethod
    def named(cls, kind: str, repeat_frac: float | None = None, pool_size: int | None = None) -> Arm:
        """An arm of a kind in `ARMS`; None is the usual share or pool of that kind.

        Raises:
            ByroteError: values the kind cannot have.
        """
        share, pool = (DEFAULT_REPEAT_FRAC, DEFAULT_POOL) if ARMS[kind].splits else (0.0, 0)
        return cls(
            kind, share if repeat_frac is None else repeat_frac, pool if pool_size is None else pool_size
        )

    @property
    def rule(self) -> ArmKind:
        """What this kind of arm does."""
        return ARMS[self.kind]

    def n_repeated(self, batch: int) -> int:
        """Sequences of a batch that the arm sets apart: drawn from the pool, or left out in the control."""
        return round(self.repeat_frac * batch)

    def n_trained(self, batch: int) -> int:
        """Sequences of a batch actually trained on."""
        left_out = self.rule.splits and self.rule.fill is None
        return batch - self.n_repeated(batch) if left_out else batch

    def repeats_per_sequence(self, *, batch: int, steps: int) -> float:
        """How often each pool sequence is trained on in `steps` steps, on average; 0 without repeats."""
        if not self.rule.repeats:
            return 0.0
        return self.n_repeated(batch) * steps / self.pool_size

    def check(self, *, batch: int, steps: int | None = None) -> None:
        """Raise a ByroteError where this batch size, or this length of training, cannot realise the arm."""
        if not self.rule.splits:
            return
        n_repeated = self.n_repeated(batch)
        if not 1 <= n_repeated < batch:
            raise ByroteError(
                f"a share of {self.repeat_frac} of a batch of {batch} is {n_repeated} sequences",
                help="a batch needs at least one repeated and one unique sequence: "
                "use a larger batch or another share",
            )
        if self.rule.repeats and steps is not None and self.pool_size > n_repeated * steps:
            raise ByroteError(
                f"a pool of {self.pool_size} is not used up by {steps} steps of {n_repeated} repeated sequences",
                help=f"use a pool of at most {n_repeated * steps}, or train longer",
            )
