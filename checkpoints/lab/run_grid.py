"""A grid of lab runs: arms, seeds and sizes of one recipe, declared in a small file. No torch.

    recipe = "tiled-small"      # the settings that all runs share, by name
    seeds = 5                   # 0 to 4; or a list
    checkpoints = 20            # about so many of each run, close together early
    together = 16               # optional: at most so many runs are trained together, 1 to 16; fewer keep more cores busy

    [settings]                  # what is otherwise than in the recipe
    steps = 2400

    [sizes.d24]                 # optional: settings of each size
    d_model = 24

    [arms.unique]
    kind = "unique"

    [arms.P16]
    kind = "repeated"
    repeat_frac = 0.5
    pool_size = 16
    control = "unique"          # the arm it is compared with; every arm but unique, control and planted names one
    sizes = ["d24"]             # optional: the sizes it is trained at; all of them if left out

    [arms.syn75]
    kind = "synthetic"          # one part, with its settings (`byrote lab arms` lists them), or several: parts = [{kind = ...}]
    share = 0.75
    generator = "unique"        # made from the runs of this arm, of the same size and seed
    control = "unique"

Each run is trained into `OUT/<arm>/<size>/seed<k>`. All arms of a seed begin with the same weights (but for parts `continued`) and
see the same fresh data (but for arms whose settings name another source, as their controls' have to). Anybody may have written the file: it is read as far as these keys go, each of its kind and within its limits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.lab.arms import Arm
from byrote.checkpoints.lab.config import NORMS, LabConfig
from byrote.checkpoints.lab.grid_chains import unchained
from byrote.checkpoints.lab.recipes import recipe
from byrote.checkpoints.lab.sources import Source, source_named
from byrote.checkpoints.lab.together import MAX_RUNS as MOST_TOGETHER
from byrote.checkpoints.lab.together import stacks_of
from byrote.checkpoints.safe_read import FileRefused, read_toml

SHIPPED = Path(__file__).parent / "grids"
MAX_BYTES, MAX_ARMS, MAX_SEEDS, MAX_SIZES, MAX_RUNS = 1 << 20, 500, 1_000, 50, 10_000
RESERVED = ("results",)  # where results of a grid's runs go
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_KEYS = ("recipe", "seeds", "checkpoints", "together", "settings", "sizes", "arms")
_OF_ITS_OWN = ("arm", "seed", "name")  # fields of a run that a grid sets otherwise
_SHARED = (
    "source",
    "batch",
    "init_std",
    "n_held_out",
)  # or arms of a seed would see other data, or begin elsewhere


@dataclass(frozen=True)
class GridArm:
    """An arm of a grid.

    Attributes:
        name: of its folder.
        arm: what its batches are made of.
        control: name of the arm it is compared with; "" where it is compared with none.
        settings: of its runs that are otherwise than those of other arms.
        sizes: names of the sizes that it is trained at; all of them where empty.
    """

    name: str
    arm: Arm
    control: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRun:
    """One run of a grid.

    Attributes:
        arm, size, seed: which one it is.
        config: what is trained.
        control: name of the arm it is compared with; "" where there is none.
        needs: folders of the runs that have to be complete before it starts.
    """

    arm: str
    size: str
    seed: int
    config: LabConfig
    control: str = ""
    needs: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Where it is trained, below the grid's folder."""
        return f"{self.arm}/{self.size}/seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """Every run of a grid, and what is trained together.

    Attributes:
        runs: arm by arm, size by size, seed by seed.
        stacks: places of the runs that one process trains together, in the order they are started.
    """

    runs: tuple[PlannedRun, ...]
    stacks: tuple[tuple[int, ...], ...]

    @cached_property
    def steps(self) -> int:
        """Optimiser steps of all runs."""
        return sum(run.config.steps for run in self.runs)

    @cached_property
    def n_checkpoints(self) -> int:
        """Written steps of all runs."""
        return sum(len(run.config.schedule) for run in self.runs)

    def waves(self) -> Iterator[list[tuple[int, ...]]]:
        """Stacks in groups: those of a group can be trained side by side, once all earlier groups are complete.

        Raises:
            ByroteError: runs that wait for one another.
        """
        done: set[str] = set()
        left = list(self.stacks)
        while left:
            ready = [stack for stack in left if all(done.issuperset(self.runs[k].needs) for k in stack)]
            if not ready:
                raise ByroteError(
                    "runs of this grid depend on one another in a circle, or on a run that is not in the grid",
                    help="correct the run names that their settings refer to",
                )
            yield ready
            done.update(self.runs[k].folder for stack in ready for k in stack)
            left = [stack for stack in left if stack not in ready]


@dataclass(frozen=True)
class Grid:
    """A grid as declared.

    Attributes:
        recipe: name of the recipe.
        seeds: distinct, in the order given.
        sizes: name -> settings that all runs of this size share.
        arms: in the order given.
        together: runs that are trained together at most.
    """

    recipe: str
    seeds: tuple[int, ...]
    sizes: Mapping[str, LabConfig]
    arms: tuple[GridArm, ...]
    together: int = MOST_TOGETHER

    def plan(self) -> Plan:
        """Every run in order; equal grids give equal plans.

        Raises:
            ByroteError: an arm that a size, or the length of training, cannot realise.
        """
        runs = tuple(self._runs())
        configs = [run.config for run in runs]
        return Plan(runs, stacks_of(configs, self._levels(runs), most=self.together))

    def _levels(self, runs: Sequence[PlannedRun]) -> list[int]:
        """How many runs have to be trained one after another before each."""
        levels: dict[str, int] = {}
        while len(levels) < len(runs):
            ready = [run for run in runs if run.folder not in levels and levels.keys() >= set(run.needs)]
            if not ready:
                raise ByroteError(
                    "arms of this grid depend on one another's runs in a circle",
                    help="correct the run names that their settings refer to",
                )
            levels |= {run.folder: 1 + max((levels[one] for one in run.needs), default=-1) for run in ready}
        return [levels[run.folder] for run in runs]

    def _runs(self) -> Iterator[PlannedRun]:
        for arm in self.arms:
            for size, base in self.sizes.items():
                if arm.sizes and size not in arm.sizes:
                    continue
                shared = _with_settings(base, arm.settings, f"[arms.{arm.name}.settings]")
                for seed in self.seeds:
                    name = f"{arm.name}-{size}-seed{seed}"
                    needs = {one: f"{one}/{size}/seed{seed}" for one in arm.arm.needs}
                    made = arm.arm.with_runs({one: f"../../../{folder}" for one, folder in needs.items()})
                    try:
                        config = replace(shared, arm=made, seed=seed, name=name)
                    except ByroteError as error:
                        raise ByroteError(f"{name}: {error.message}", help=error.help) from None
                    yield PlannedRun(arm.name, size, seed, config, arm.control, tuple(needs.values()))


def shipped_grids() -> tuple[str, ...]:
    """Names of the grids that come with byrote."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def grid_file(name: str) -> Path:
    """The file that is meant: a path, or the name of a grid that comes with byrote.

    Raises:
        ByroteError: there is neither.
    """
    path = Path(name)
    if path.is_file() or path.suffix == ".toml":
        return path
    if name in shipped_grids():
        return SHIPPED / f"{name}.toml"
    raise ByroteError(
        f"there is no grid {name!r}", help=f"name a file; {did_you_mean(name, shipped_grids())}"
    )


def read_grid(path: Path, *, follow_links: bool = True) -> Grid:
    """The grid that a file declares.

    Args:
        path: the file.
        follow_links: take the file that a link leads to: one that the user names, but none that lies in a folder.

    Raises:
        ByroteError: no file that can be read, an unknown key, or a value that is none of its kind.
    """
    try:
        data = read_toml(path, max_bytes=MAX_BYTES, follow_links=follow_links)
    except OSError as error:
        raise ByroteError(
            f"{path} cannot be read ({error.strerror or error})",
            help=f"name a grid's file, or one that comes with byrote: {', '.join(shipped_grids())}",
        ) from None
    except FileRefused as error:
        raise ByroteError(error.message, help=error.help or "write it as docs/lab.md shows") from None
    try:
        return grid_from(data)
    except ByroteError as error:
        raise ByroteError(f"{path}: {error.message}", help=error.help) from None


def grid_from(data: Mapping[str, Any]) -> Grid:
    """The grid that a table declares.

    Raises:
        ByroteError: an unknown key, or a value that is none of its kind.
    """
    _known(data, _KEYS, "the grid")
    name = str(data.get("recipe", "default"))[:40]
    base = _with_settings(recipe(name), _table(data, "settings"), "[settings]")
    if "checkpoints" in data:
        base = _with_settings(base, {"checkpoints": data["checkpoints"]}, "the grid")
    sizes = {
        name: _with_settings(base, _mapping(table, f"[sizes.{name}]"), f"[sizes.{name}]")
        for name, table in _named(data, "sizes", MAX_SIZES).items()
    } or {f"d{base.d_model}": base}
    tables = _named({"arms": unchained(_named(data, "arms", MAX_ARMS))}, "arms", MAX_ARMS)
    arms = tuple(_arm(name, table, base, sizes) for name, table in tables.items())
    if not arms:
        raise ByroteError("the grid has no arms", help="write one as [arms.NAME] with its kind")
    for arm in arms:
        _require_others(arm, arms, sizes)
    together = data.get("together", MOST_TOGETHER)
    if type(together) is not int or not 1 <= together <= MOST_TOGETHER:
        raise ByroteError(
            f"together is {str(together)[:40]!r}",
            help=f"write the largest number of runs to train together, 1 to {MOST_TOGETHER}",
        )
    grid = Grid(name, _seeds(data.get("seeds", 1)), sizes, arms, together)
    if (n_runs := sum(len(arm.sizes or sizes) for arm in arms) * len(grid.seeds)) > MAX_RUNS:
        raise ByroteError(
            f"the grid has {n_runs:,} runs",
            help=f"at most {MAX_RUNS:,} are allowed: use fewer seeds, sizes or arms",
        )
    return grid


def _require_others(arm: GridArm, arms: Sequence[GridArm], sizes: Mapping[str, LabConfig]) -> None:
    """Refuse an arm whose control, or what it is made from, is not there, not at its sizes, or on other data."""
    by_name = {one.name: one for one in arms}
    if not arm.control and not all(part.left_out or part.holds_control for part in arm.arm.made_of):
        wanted = arm.arm.made_of[0].control
        raise ByroteError(
            f"the arm {arm.name!r} names no control",
            help=f'write control = "..." with the arm it is compared with ({wanted})',
        )
    control = by_name.get(arm.control)
    if control is not None and control.settings.get("source") != arm.settings.get("source"):
        raise ByroteError(
            f"the arms {arm.name!r} and {arm.control!r} are compared, but have different sources",
            help="an arm and its control share their fresh data: give both the same [arms.NAME.settings] source",
        )
    for needed in arm.arm.needs:
        if needed not in by_name:
            raise ByroteError(
                f"the arm {arm.name!r} is made from runs of {needed[:40]!r}, which is not an arm of the grid",
                help=did_you_mean(needed[:40], by_name),
            )
    if arm.control and (control is None or arm.control == arm.name):
        others = [name for name in by_name if name != arm.name]
        raise ByroteError(
            f"the control of the arm {arm.name!r} is {arm.control[:40]!r}, which is not another arm of the grid",
            help=did_you_mean(arm.control[:40], others) if others else "declare it",
        )
    for other in (*arm.arm.needs, *filter(None, [arm.control])):
        there = by_name[other].sizes or sizes
        missing = [size for size in arm.sizes or sizes if size not in there]
        if missing:
            raise ByroteError(
                f"the arm {arm.name!r} is trained at the size {missing[0]!r}, and {other!r}, which it needs there, is not",
                help=f"add {missing[0]!r} to the sizes of {other!r}",
            )


def _arm(name: str, table: Any, before: LabConfig, sizes: Mapping[str, LabConfig]) -> GridArm:
    """One arm; its settings are read as changes of `before`, the runs of all arms."""
    where = f"[arms.{name}]"
    table = _mapping(table, where)
    own = {key: value for key, value in table.items() if key not in ("control", "settings", "sizes")}
    try:
        arm = Arm.from_table(own if "parts" in own else {"kind": name, **own})
    except ByroteError as error:
        raise ByroteError(f"{where}: {error.message}", help=error.help) from None
    control = _of_kind("", table.get("control", ""), f"control of {where}")
    settings = _mapping(table.get("settings", {}), f"[arms.{name}.settings]")
    _with_settings(before, settings, f"[arms.{name}.settings]")
    others = {key: value for key, value in settings.items() if key != "source"}
    after = _with_settings(before, others, f"[arms.{name}.settings]")
    changed = [key for key in _SHARED if getattr(before, key) != getattr(after, key)]
    if changed or before.model_fields() != after.model_fields():
        raise ByroteError(
            f"the settings of the arm {name!r} change {changed[0] if changed else 'the model'}",
            help="all arms of a seed share their fresh data and their initial weights: set it in [settings] or [sizes.NAME]",
        )
    return GridArm(name, arm, control, settings, _sizes_of(table, sizes, where))


def _sizes_of(arm: Mapping[str, Any], sizes: Mapping[str, LabConfig], where: str) -> tuple[str, ...]:
    """Names of the sizes that an arm is trained at; none where it is trained at all."""
    if "sizes" not in arm:
        return ()
    listed = arm["sizes"]
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_SIZES:
        raise ByroteError(f"sizes of {where} is {str(listed)[:40]!r}", help="list names of sizes of the grid")
    for name in listed:
        if not isinstance(name, str) or name not in sizes:
            raise ByroteError(
                f"{where} names a size {str(name)[:40]!r}", help=did_you_mean(str(name)[:40], sizes)
            )
    return tuple(listed)


def _seeds(value: Any) -> tuple[int, ...]:
    listed = range(value) if type(value) is int and 0 < value <= MAX_SEEDS else value
    if not isinstance(listed, list | range) or not 0 < len(listed) <= MAX_SEEDS:
        raise ByroteError(
            f"seeds is {str(value)[:40]}", help=f"write how many, 1 to {MAX_SEEDS:,}, or a list of them"
        )
    seeds = tuple(listed)
    if not all(type(seed) is int and 0 <= seed < 1 << 31 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise ByroteError(
            f"seeds is {str(value)[:40]}", help="they are whole numbers from 0, and no two are the same"
        )
    return seeds


def _with_settings(value: Any, table: Mapping[str, Any], where: str) -> Any:
    """A configuration with the settings of a table; `d_head` follows width and heads where it is not among them."""
    known = {one.name: getattr(value, one.name) for one in fields(value) if one.name not in _OF_ITS_OWN}
    _known(table, known, where)
    changed = {key: _setting(key, known[key], new, where) for key, new in table.items()}
    if "d_head" in known and "d_head" not in changed and {"d_model", "n_heads"} & changed.keys():
        width, heads = (changed.get(key, known[key]) for key in ("d_model", "n_heads"))
        if heads < 1 or width % heads:
            raise ByroteError(
                f"{where}: {heads} heads do not divide a width of {width}",
                help="choose d_model as a multiple",
            )
        changed["d_head"] = width // heads
    try:
        return replace(value, **changed)
    except ByroteError as error:
        raise ByroteError(f"{where}: {error.message}", help=error.help) from None


def _setting(key: str, now: Any, new: Any, where: str) -> Any:
    if key == "normalization_type":
        if not isinstance(new, str) or new not in NORMS:
            raise ByroteError(
                f"{where} has {key} = {str(new)[:40]!r}", help=did_you_mean(str(new)[:40], NORMS)
            )
        return NORMS[new]
    if isinstance(now, Source):
        table = dict(_mapping(new, f"{where} {key}"))
        name = str(table.pop("name", now.name))[:40]
        source = now if name == now.name else source_named(name)
        return _with_settings(source, table, f"{where} {key}")
    return _of_kind(now, new, f"{key} of {where}")


def _of_kind(now: Any, new: Any, what: str) -> Any:
    """A value of the kind that a setting has now."""
    number = isinstance(new, int | float) and not isinstance(new, bool) and math.isfinite(new)
    if isinstance(now, bool):
        fits, kind = isinstance(new, bool), "true or false"
    elif isinstance(now, int):
        fits, kind = type(new) is int and abs(new) < 1 << 53, "a whole number"
    elif isinstance(now, float):
        fits, kind = number, "a number"
    elif isinstance(now, str):
        fits, kind = (
            isinstance(new, str) and new.isprintable() and len(new) <= 200,
            "text of at most 200 characters",
        )
    elif isinstance(now, tuple):
        fits = isinstance(new, list) and len(new) == len(now) and all(type(x) in (int, float) for x in new)
        kind = f"a list of {len(now)} numbers"
    else:
        fits, kind = False, "not a setting that a grid can change"
    if not fits:
        raise ByroteError(f"{what} is {str(new)[:40]!r}", help=f"it is {kind}")
    return tuple(map(float, new)) if isinstance(now, tuple) else float(new) if isinstance(now, float) else new


def _named(data: Mapping[str, Any], key: str, most: int) -> dict[str, Any]:
    """Tables by name; names become folders."""
    tables = _table(data, key)
    if len(tables) > most:
        raise ByroteError(f"the grid has {len(tables):,} {key}", help=f"it may have {most}")
    for name in tables:
        if not _NAME.fullmatch(name) or name.lower() in RESERVED or name.endswith("."):
            raise ByroteError(
                f"{name[:40]!r} of [{key}] is not a valid folder name",
                help=f"use letters, digits and . _ -, at most 40, and not {RESERVED[0]!r}",
            )
    if len({name.lower() for name in tables}) < len(tables):
        raise ByroteError(
            f"two names in [{key}] differ only in capitals", help="file systems may not distinguish them"
        )
    return tables


def _table(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    return _mapping(data.get(key, {}), f"[{key}]")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ByroteError(f"{where} is not a table", help="write its keys below it")
    return value


def _known(table: Mapping[str, Any], known: Any, where: str) -> None:
    for key in table:
        if key not in known:
            raise ByroteError(f"{where} has a key {key[:40]!r}", help=did_you_mean(key[:40], known))
