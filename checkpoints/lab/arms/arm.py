"""An arm: the parts that its batches are made of. No numpy: help reads it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.lab.arms.part import Part
from byrote.checkpoints.lab.arms.registry import ARMS, part_kind
from byrote.checkpoints.setting import shown

DEFAULT_REPEAT_FRAC, DEFAULT_POOL = 0.5, 64  # of an arm that splits its batches, where nothing was said
MAX_PARTS = 8
_TOLERANCE = 1e-9  # of shares that add up to 1


@dataclass(frozen=True)
class Arm:
    """What each batch is made of: fresh data, and what its parts make of it.

    Arms whose one part is described by a share and a pool (`by_repeat_frac`) are written `Arm("repeated", 0.5, 64)`; all
    others are made by `Arm.of(part, ...)`, or `Arm.from_table` from what a grid or a manifest says.

    Attributes:
        kind: a name in `ARMS`; of several parts, their names with + between them.
        repeat_frac: share of each batch, above 0 and below 1, that is repeated (or, in the control, left out). 0 for the unique
            arm.
        pool_size: sequences in the pool. 0 for the unique arm; in the control it says which repeated arm is meant and
            changes nothing in training.
        parts: all of them, where `repeat_frac` and `pool_size` do not say everything.

    Raises:
        ByroteError: an unknown kind, values the kind cannot have, or parts that do not go together.
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
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if self.parts:
            self._check_parts()
            return
        rule = part_kind(self.kind)
        if not rule.by_repeat_frac:
            settings = ", ".join(rule.settings())
            raise ByroteError(
                f"the {self.kind} arm has no share and pool settings",
                help=f"give its settings: {settings}",
            )
        if "share" not in rule.settings():
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
        if self.pool_size < rule.repeats:
            raise ByroteError(
                f"pool_size is {self.pool_size}", help="a pool needs at least 1 sequence, such as 64"
            )

    def _check_parts(self) -> None:
        names = [part.name for part in self.parts]
        if len(names) > MAX_PARTS:
            raise ByroteError(f"an arm of {len(names)} parts", help=f"use at most {MAX_PARTS}")
        if sum(part.gives_weights for part in self.parts) > 1:
            raise ByroteError("an arm begins with the weights of one run", help="name one of them")
        if "unique" in names:
            raise ByroteError(
                "unique cannot be a part of an arm",
                help="fresh data fills what the other parts leave of each batch: leave unique out",
            )
        taken = sum(part.fresh_frac_taken for part in self.parts)
        if taken > 1 + _TOLERANCE:
            raise ByroteError(
                f"the parts of the arm {'+'.join(names)} take {taken:g} of each batch",
                help="their shares may add up to at most 1",
            )
        self._describe()

    def _describe(self) -> None:
        """Kind, share and pool as the parts say; one part that these describe is not written twice."""
        repeating = [part for part in self.parts if part.by_repeat_frac and part.repeats]
        described = repeating or [part for part in self.parts if part.by_repeat_frac and len(self.parts) == 1]
        share = sum(part.fresh_frac_taken for part in described)
        parts = {
            "kind": "+".join(part.name for part in self.parts),
            "repeat_frac": float(share),
            "pool_size": sum(getattr(part, "pool_size", 0) for part in repeating),
            "parts": () if len(self.parts) == 1 and described and share < 1 else self.parts,
        }
        for name, value in parts.items():
            object.__setattr__(self, name, value)

    @classmethod
    def named(cls, kind: str, repeat_frac: float | None = None, pool_size: int | None = None) -> Arm:
        """An arm that is described by a share and a pool; None is the usual share or pool of that kind.

        Raises:
            ByroteError: values the kind cannot have.
        """
        splits = "share" in part_kind(kind).settings()
        share, pool = (DEFAULT_REPEAT_FRAC, DEFAULT_POOL) if splits else (0.0, 0)
        return cls(
            kind, share if repeat_frac is None else repeat_frac, pool if pool_size is None else pool_size
        )

    @classmethod
    def of(cls, *parts: Part) -> Arm:
        """The arm of these parts; none is the unique arm.

        Raises:
            ByroteError: parts that do not go together.
        """
        return cls(parts=parts)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Arm:
        """The arm that a table of a grid or a manifest declares, of which nothing is trusted.

        Args:
            table: `kind` and the settings of one part, `share` or `repeat_frac` for its share; or `parts`, a list of such tables.

        Raises:
            ByroteError: an unknown kind or setting, a value of another type, or parts that do not go together.
        """
        if "parts" not in table:
            return cls._from_part(table)
        tables = table["parts"]
        only_tables = isinstance(tables, list) and all(isinstance(one, dict) for one in tables)
        if not only_tables or not 0 < len(tables) <= MAX_PARTS or table.keys() != {"parts"}:
            raise ByroteError(
                f"parts is {str(tables)[:40]}",
                help=f"write a list of 1 to {MAX_PARTS} tables, each with its kind and settings, and nothing beside it",
            )
        made = [cls._from_part(one, alone=False) for one in tables]
        return cls(parts=tuple(part for arm in made for part in (arm.parts or arm.made_of)))

    @classmethod
    def _from_part(cls, table: Mapping[str, Any], *, alone: bool = True) -> Arm:
        """The arm of one part; one of several, or of a list of one, may repeat all of the data."""
        kind, settings = table.get("kind", "unique"), {k: v for k, v in table.items() if k != "kind"}
        if not isinstance(kind, str):
            raise ByroteError(f"kind is {str(kind)[:40]!r}", help="write the name of an arm")
        rule = part_kind(kind)
        if not rule.by_repeat_frac:
            return cls(parts=(rule.from_settings(settings),))
        share = {("repeat_frac" if name == "share" else name): value for name, value in settings.items()}
        for name, value in share.items():
            if name not in ("repeat_frac", "pool_size"):
                raise ByroteError(
                    f"the arm {kind} has no setting {str(name)[:40]!r}",
                    help=did_you_mean(str(name)[:40], ("share", "repeat_frac", "pool_size")),
                )
            if type(value) is not int and (name == "pool_size" or type(value) is not float):
                raise ByroteError(f"{name} of the arm {kind} is {str(value)[:40]!r}", help="give a number")
        if "repeat_frac" in share:
            share["repeat_frac"] = float(share["repeat_frac"])
        if not alone and rule.repeats and share.get("repeat_frac") == 1.0:
            return cls(
                parts=(rule.from_settings({"share": 1.0, "pool_size": share.get("pool_size", DEFAULT_POOL)}),)
            )
        return cls.named(kind, **share)

    @property
    def rule(self) -> type[Part]:
        """The kind of its first part."""
        return type(self.parts[0]) if self.parts else part_kind(self.kind)

    @property
    def made_of(self) -> tuple[Part, ...]:
        """All its parts, also where `repeat_frac` and `pool_size` describe them."""
        settings = self.rule.settings() if not self.parts else {}
        if self.parts or "share" not in settings:
            return self.parts
        values = {"share": self.repeat_frac, "pool_size": self.pool_size}
        return (self.rule.from_settings({name: values[name] for name in settings}),)

    @property
    def repeats(self) -> bool:
        """Whether it repeats sequences on purpose."""
        return any(part.repeats for part in self.made_of)

    @property
    def fresh_frac(self) -> float:
        """Share of each batch, before anything is left out, that is fresh sequences of the source."""
        return 1 - sum(part.fresh_frac_taken for part in self.made_of)

    @property
    def synthetic_share(self) -> float:
        """Share of what it is trained on that was sampled from a model."""
        taken = [(part.fresh_frac_taken, part) for part in self.made_of]
        trained = 1 - sum(share for share, part in taken if part.left_out)
        return sum(share for share, part in taken if part.synthetic) / trained if trained else 0.0

    @property
    def generation(self) -> int:
        """Which generation of models trained on one another's samples it is; 0 where no part is of one."""
        return max((int(getattr(part, "generation", 0)) for part in self.made_of), default=0)

    @property
    def needs(self) -> tuple[str, ...]:
        """The runs that have to be complete before it is trained, as its parts name them."""
        named = [getattr(part, setting) for part in self.made_of for setting in part.runs]
        return tuple(dict.fromkeys(name for name in named if name))

    def with_runs(self, places: Mapping[str, str]) -> Arm:
        """The same arm, its parts naming other runs by these places instead of these names."""
        if not self.needs:
            return self
        moved = [
            replace(part, **{s: places.get(getattr(part, s), getattr(part, s)) for s in part.runs})  # type: ignore[type-var]
            for part in self.made_of
        ]
        return Arm.of(*moved)

    def controls(self) -> dict[str, Arm]:
        """What its runs are compared with, by what it is called; for several parts each is replaced in turn."""
        found: dict[str, Arm] = {}
        parts = self.made_of
        for place, part in enumerate(parts):
            for name, instead in part.controls().items():
                called = f"{part.name}: {name}" if len(parts) > 1 else name
                found[called] = Arm.of(*parts[:place], *instead, *parts[place + 1 :])
        return found

    def definition(self) -> dict[str, Any]:
        """What the manifest of a series says of its arm, training apart."""
        definition: dict[str, Any] = {
            "kind": self.kind,
            "repeat_frac": self.repeat_frac,
            "pool_size": self.pool_size,
        }
        if not self.parts:
            return definition
        definition["parts"] = [part.definition() for part in self.parts]
        return definition | {"synthetic_share": self.synthetic_share, "generation": self.generation}

    def n_places(self, batch: int) -> tuple[int, ...]:
        """Places of a batch that each part has."""
        return tuple(part.n_places(batch) for part in self.made_of)

    def n_repeated(self, batch: int) -> int:
        """Sequences of a batch that are set apart by `repeat_frac`: drawn from the pool, or left out in the control."""
        return sum(part.n_places(batch) for part in self.made_of if part.by_repeat_frac)

    def n_trained(self, batch: int) -> int:
        """Sequences of a batch actually trained on."""
        return batch - sum(part.n_places(batch) for part in self.made_of if part.left_out)

    def repeats_per_sequence(self, *, batch: int, steps: int) -> float:
        """How often each sequence of its pool, or corpus, is trained on in `steps` steps, on average; 0 without repeats."""
        repeated = [part for part in self.made_of if part.repeats]
        size = sum(int(getattr(part, "pool_size", 0) or getattr(part, "corpus", 0)) for part in repeated)
        return sum(part.n_places(batch) for part in repeated) * steps / size if size else 0.0

    def check(self, *, batch: int, steps: int | None = None) -> None:
        """Raise a ByroteError where this batch size, or this length of training, cannot realise the arm."""
        n_repeated = self.n_repeated(batch)
        if not self.parts and self.made_of and not 1 <= n_repeated < batch:
            raise ByroteError(
                f"a share of {self.repeat_frac} of a batch of {batch} is {n_repeated} sequences",
                help="a batch needs at least one repeated and one unique sequence: "
                "use a larger batch or another share",
            )
        if sum(self.n_places(batch)) > batch or self.n_trained(batch) < 1:
            raise ByroteError(
                f"the parts of the arm {self.kind} take {sum(self.n_places(batch))} of the {batch} places of a batch",
                help="shares are rounded to whole places: use a larger batch or other shares",
            )
        for part in self.made_of:
            part.check(batch=batch, steps=steps)
