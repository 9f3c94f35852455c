"""Shards of a sweep: several processes, on one machine or on many, that measure one series into one results folder. No torch.

results/<run>/.lock                          held for moments: while one joins, says what it found, or leaves
results/<run>/.shards/<plan>.<token>.lock    held by each of them for as long as it measures

Units need no lock. Each is written whole, and whoever measures one again writes the same bytes. What has to be agreed on is
the plan: two sweeps with other settings would take each other's units for superseded. So the name of a shard's lock
says which plan it follows, and a shard of another is refused. The one that leaves last, with
nothing lacking, derives the observations; until then readers derive them in memory. Both
kinds of lock end with their process, and one that a dead machine left is taken over (`byrote.checkpoints.atomic`).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from byrote.checkpoints.atomic import LOCK, locked, make_folder, remove, remove_leftovers
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import own_path
from byrote.checkpoints.series import Checkpoint, CheckpointSeries
from byrote.probes.results import run_json as store
from byrote.probes.statistics import INTERVALS
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import (
    SHARDS,
    busy,
    explained,
    made_folder,
    refuse_other_series,
    shards_at_work,
    unwritable,
)

MOST_SHARDS = 10_000
JOIN_S, LEAVE_S = (
    120.0,
    1800.0,
)  # how long the folder is waited for: nobody but a whole sweep holds it for long
_TYPED = re.compile(r"(\d{1,5})/(\d{1,5})", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """A part of the checkpoints of a series: every n-th, beginning with the k-th.

    Attributes:
        k: from 1 to n; 0 is none of them.
        n: how many shards there are.
    """

    k: int
    n: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """The shard that is typed as 3/16.

        Raises:
            ByroteError: it is typed otherwise, or there is none of that number.
        """
        found = _TYPED.fullmatch(text.strip())
        k, n = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= k <= n <= MOST_SHARDS:
            raise ByroteError(
                f"{text!r} is not a shard",
                help=f"write k/n, such as 3/16: k from 1 to n, n at most {MOST_SHARDS:,}",
            )
        return cls(k, n)

    def __str__(self) -> str:
        return f"{self.k}/{self.n}"

    def checkpoints(self, series: CheckpointSeries) -> tuple[Checkpoint, ...]:
        """Those of a series that are this shard's, in step order."""
        return series.checkpoints[self.k - 1 :: self.n] if self.k else ()


NOTHING = Shard(0, 1)


def plan_of(series: CheckpointSeries, config: SweepConfig) -> str:
    """Hash of everything that shards of one sweep have to agree on."""
    files = [f and [f.name, f.stat().st_size] for f in (config.text, config.members, config.twins)]
    facts = [
        [series.name, series.format, series.steps],
        [[i.name, i.version, i.plugin and asdict(i.plugin), config.options_of(i)] for i in config.infos],
        [config.n_seq, config.seed, config.dtype, config.device.split(":")[0], config.save_attention],
        [INTERVALS, dict(config.versions), files],
    ]
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8).hexdigest()


class SharedFolder:
    """A results folder that shards write into, as one of them sees it.

    Args:
        root: the folder.
        plan: see `plan_of`.
    """

    def __init__(self, root: Path, plan: str) -> None:
        self.root, self._plan = root, plan
        self._file: Path | None = None
        self._held = ExitStack()

    @contextmanager
    def alone(self, wait_s: float = LEAVE_S) -> Iterator[None]:
        """No other shard joins, leaves or says anything within this block."""
        with locked(
            self.root / LOCK,
            busy=busy(self.root),
            refused=lambda error: unwritable(self.root, error),
            wait_s=wait_s,
        ):
            yield

    def join(self) -> None:
        """Become one of the shards at work; within `alone`.

        Raises:
            ByroteError: others are at work on another plan, or the folder cannot be written.
        """
        others = shards_at_work(self.root)
        if any(file.name.partition(".")[0] != self._plan for file in others):
            raise ByroteError(
                f"other shards are writing to {self.root} with other probes, steps, settings or versions",
                help="give all shards the same options and install the same versions for them, or use another -o",
            )
        if not others:
            remove_leftovers(self.root)
        folder = own_path(self.root, SHARDS)
        make_folder(folder)
        self._file = folder / f"{self._plan}.{secrets.token_hex(8)}.lock"
        held = locked(self._file, busy=busy(self.root), refused=lambda error: unwritable(self.root, error))
        self._held.enter_context(held)

    def leave(self) -> bool:
        """Be none of them any more; within `alone`. Whether nobody else is at work."""
        if self._file is None:
            return not shards_at_work(self.root)
        remove(self._file)
        self._held.close()
        self._file = None
        if shards_at_work(self.root):
            return False
        remove_leftovers(self.root)
        remove(own_path(self.root, SHARDS))
        return True


@contextmanager
def open_shared_folder(out: Path, series: CheckpointSeries, config: SweepConfig) -> Iterator[SharedFolder]:
    """Make or reopen `out/<series name>` for one of several shards, and be one of those at work in it.

    Raises:
        ByroteError: it holds another series' results or parts of another plan, a whole sweep or shards of another plan are at
            work there, or it cannot be written.
    """
    root = made_folder(out, series)
    folder = SharedFolder(root, plan_of(series, config))
    with explained(root):
        with folder.alone(JOIN_S):
            refuse_other_series(root, series)
            _refuse_other_conditions(root, series, config)
            folder.join()
        try:
            yield folder
        except BaseException:
            with folder.alone():
                folder.leave()
            raise


def _refuse_other_conditions(root: Path, series: CheckpointSeries, config: SweepConfig) -> None:
    """Shards of one sweep are measured under the same conditions, wherever they are.

    Raises:
        ByroteError: a sweep that is not finished was begun under others.
    """
    earlier = store.stored_run_json(root)
    stored = earlier.get("provenance")
    steps = (earlier.get("series") or {}).get("steps")
    if earlier.get("status") != "interrupted" or not isinstance(stored, dict) or steps != list(series.steps):
        return
    now: dict[str, Any] = {
        "dtype": config.dtype,
        "seed": config.seed,
        "intervals": INTERVALS,
        **config.versions,
    }
    now["device"] = config.device.split(":")[0]
    before = {**stored, **(stored.get("versions") or {})}
    before["device"] = str(before.get("device")).split(":")[0]
    differing = [
        f"{name} {before.get(name)}, here {value}" for name, value in now.items() if before.get(name) != value
    ]
    if differing:
        raise ByroteError(
            f"{root} holds shards that were measured with {'; '.join(differing)}",
            help="measure all of them alike; `byrote run` without --shard measures again what differs",
        )


def merged(
    meta: dict[str, Any], earlier: Mapping[str, Any], *, lacking: set[int], last: bool
) -> dict[str, Any]:
    """The run.json of all shards, from what one of them would write and what the others wrote before.

    Args:
        meta: of the one.
        earlier: what is stored.
        lacking: steps of others that lack a unit.
        last: whether no other shard is at work.
    """
    if not _same_sweep(meta, earlier):
        earlier = {}
    gaps = [gap for gap in earlier.get("gaps") or () if gap.get("step") in lacking]
    place = {step: k for k, step in enumerate(meta["series"]["steps"])}
    of_series = [gap for gap in meta["gaps"] if gap["step"] not in place]
    of_steps = [gap for gap in meta["gaps"] if gap["step"] in place] + gaps
    found = [*of_series, *sorted(of_steps, key=lambda gap: place[gap["step"]])]
    unsaid = lacking - {gap["step"] for gap in found}
    interrupted = not last or bool(unsaid) or meta["status"] == "interrupted"
    notes = [*meta["notes"], *(note for note in earlier.get("notes") or () if note not in meta["notes"])]
    status = "interrupted" if interrupted else "partial" if found else "complete"
    return {**meta, "gaps": found, "notes": notes, "status": status}


def _same_sweep(meta: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    """Whether both say that the same was measured in the same way; how weights were put in place apart."""

    def facts(recorded: Mapping[str, Any]) -> list[Any]:
        conditions = recorded.get("provenance") or {}
        return [
            recorded.get("probes"),
            recorded.get("stimuli"),
            (recorded.get("series") or {}).get("steps"),
            {name: value for name, value in conditions.items() if name not in ("swap", "device")},
        ]

    return json.dumps(facts(meta), sort_keys=True) == json.dumps(facts(earlier), sort_keys=True)
