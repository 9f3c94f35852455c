"""Units of a results folder: which are there, which are missing, and which are superseded. No torch.

A unit is what one pass measured at one checkpoint. It carries its provenance; one that disagrees with the weights, the
versions or the requested settings is superseded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import own_path
from byrote.checkpoints.series import Checkpoint
from byrote.probes.attention import lacks_attention
from byrote.probes.own_blocks import OWN, kind_shown
from byrote.probes.registry import REGISTRY
from byrote.probes.results.schema import Measured, unit_table
from byrote.probes.results.unit_files import (
    WrittenUnits,
    step_folder,
    step_of,
    unit_facts,
    unit_paths,
    unit_provenance,
    units_of,
    write_unit,
)
from byrote.probes.spec import ProbeInfo
from byrote.probes.statistics import INTERVALS
from byrote.probes.stimuli import STIMULI
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.plan import Group, groups
from byrote.probes.sweep.stimulus_set import StimulusSet

_DRAWN = re.compile(r"(?P<kind>\w+)-r\d+m\d+-n(?P<n>\d{1,9})-s(?P<seed>\d{1,18})-", re.ASCII)

_AS_MANY = ("repeated_random", "shuffled_repeat", "jittered_repeat")  # of as many sequences as requested


@dataclass(frozen=True)
class Look:
    """What stands at one checkpoint.

    Attributes:
        missing: groups to measure, each with those of its probes that are not stored with equal provenance.
        superseded: units of other weights or settings, to be removed before anything new is written, so that a kill
            never leaves numbers of two sets of weights side by side.
        damaged: units whose bytes are not those that were written, to be set aside.
    """

    missing: list[Group]
    superseded: list[Path]
    damaged: list[Path]


class Units:
    """The units of one results folder, as a sweep with these settings sees them.

    Args:
        root: the results folder.
        config: of this sweep.
        stimuli: what the models are shown.
    """

    def __init__(self, root: Path, config: SweepConfig, stimuli: StimulusSet) -> None:
        self.root, self.config, self.stimuli = root, config, stimuli
        self.wanted = groups(config.infos)
        self.written = WrittenUnits()

    def refuse_mixture(self, steps: Sequence[int]) -> None:
        """One run has one number of sequences and one seed: a sweep may replace all that is stored, or add to it alike.

        Looked at are units that this sweep does not measure again as a whole: other probes, and other steps.

        Args:
            steps: of this sweep.

        Raises:
            ByroteError: some of them were measured on another number of sequences, with another seed, or on blocks of one's
                own where this sweep shows others.
        """
        wanted, chosen = {info.name for info in self.config.infos}, set(steps)
        examples: dict[tuple[str, bool], Path] = {}  # the units of a name are alike at all steps
        for path in unit_paths(self.root):
            examples[path.name, step_of(path.parent) in chosen] = path
        requested = {"sequences": self.config.n_seq, "seed": self.config.seed}
        for (_, measured_again), path in examples.items():
            facts = unit_provenance(path)
            if measured_again and _mapping(facts.get("probes")).keys() <= wanted:
                continue
            shown, lost = str(facts.get("stimulus", "")), path.name.split(".")[0]
            for name, value in _drawn_with(shown).items():
                if value != requested[name]:
                    raise self._mixture(
                        f"with {name} {value}", f"has {name} {requested[name]}", lost, f"--{name} {value}"
                    )
            for stimulus in self.stimuli.stimuli.values():
                stored = next((id_ for id_ in shown.split() if kind_shown(id_) == stimulus.kind), stimulus.id)
                if stored != stimulus.id and (stored.startswith(OWN) or stimulus.id.startswith(OWN)):
                    again = "the same --stimulus" if stored.startswith(OWN) else "no --stimulus"
                    raise self._mixture(f"on {stored}", f"shows {stimulus.id}", lost, again)

    def _mixture(self, was: str, now: str, lost: str, again: str) -> ByroteError:
        return ByroteError(
            f"{self.root} was measured {was}; this command {now}, and would mix the two, or lose what it "
            f"does not measure again ({lost})",
            help=f"give {again}, or another folder with -o, or --fresh, which starts again",
        )

    def look(self, checkpoint: Checkpoint, identity: str) -> Look:
        """What of a checkpoint is still to measure, what is superseded, and what is damaged; every stored unit is read once.

        Args:
            checkpoint: of the series.
            identity: hash of its weights.
        """
        current: dict[str, set[str]] = {}
        superseded, damaged = [], []
        for path in units_of(self.root, checkpoint.step):
            key, facts = path.name.split(".")[0], unit_facts(path)
            if facts.state == "damaged":
                damaged.append(path)
                continue
            found = dict(facts.provenance)
            probes, plugins = _mapping(found.pop("probes", {})), _mapping(found.pop("plugins", {}))
            kinds = [kind for name in probes if name in REGISTRY for kind in REGISTRY[name].stimuli]
            stimulus = self._stimulus(kinds if "+" in key else [key], str(found.get("stimulus", "")))
            options = self._options(REGISTRY[name] for name in probes if name in REGISTRY)
            if found == self._provenance(checkpoint, identity, stimulus) | options and all(
                _current(name, version, plugins.get(name)) for name, version in probes.items()
            ):
                current.setdefault(key, set()).update(probes)
            else:
                superseded.append(path)
        lacking = (
            Group(g.stimuli, tuple(i for i in g.probes if i.name not in current.get(g.key, ())))
            for g in self.wanted
        )
        return Look([group for group in lacking if group.probes], superseded, damaged)

    def lacking(self, steps: Iterable[int]) -> set[int]:
        """Those of some steps that have not a unit of every probe, see `lacking_steps`."""
        return lacking_steps(self.root, self.wanted, steps)

    def write(
        self, group: Group, measured: Sequence[Measured], *, run: str, checkpoint: Checkpoint, identity: str
    ) -> None:
        """Write one unit with what it says of itself, whole or not at all.

        Args:
            group: what was measured.
            measured: its numbers.
            run: name of the run.
            checkpoint: that was measured.
            identity: hash of its weights.
        """
        table = unit_table(measured, run=run, step=checkpoint.step, tokens_seen=checkpoint.tokens_seen)
        facts = self._provenance(checkpoint, identity, self.stimuli.ids_of(group.stimuli) or group.key)
        facts |= self._options(group.probes)
        facts["probes"] = {info.name: info.version for info in group.probes}
        plugins = {info.name: asdict(info.plugin) for info in group.probes if info.plugin is not None}
        folder = own_path(self.root, "units", step_folder(self.root, checkpoint.step).name)
        file = folder / unit_name(group.key, facts["probes"])
        write_unit(file, table, facts | ({"plugins": plugins} if plugins else {}))
        self.written.add(file, table)

    def lacks_attention(self, checkpoint: Checkpoint, identity: str) -> bool:
        """Whether attention was requested and is not saved."""
        return self.config.save_attention and lacks_attention(
            self.root, checkpoint.step, fingerprint=identity, stimuli=self.stimuli.stimuli
        )

    def _stimulus(self, kinds: Sequence[str], stored: str) -> str:
        """Ids of what a unit must have been shown: a kind that this sweep does not draw is taken as it is stored.

        Args:
            kinds: of stimulus, that the unit's probes read.
            stored: the ids that the unit names.
        """
        ids, drawn = self.stimuli.ids_of(kinds), self.stimuli.stimuli.keys() | self.stimuli.refused.keys()
        if not drawn.issuperset(kinds) and set(ids.split()) <= set(stored.split()):
            return stored
        return ids or stored

    def _options(self, probes: Iterable[ProbeInfo]) -> dict[str, Any]:
        """The settings that these probes read as arguments, where they were given."""
        return {name: value for info in probes for name, value in self.config.options_of(info).items()}

    def _provenance(self, checkpoint: Checkpoint, identity: str, stimulus: str) -> dict[str, Any]:
        """What a stored unit must agree with to be reused, its probes apart.

        How weights got into memory (swapped or fresh) is left out: both are proved to give the same bits.
        """
        return {
            "fingerprint": identity,
            "format": checkpoint.format,
            "stimulus": stimulus,
            "seed": self.config.seed,
            "dtype": self.config.dtype,
            "device": self.config.device.split(":")[0],
            "weight_processing": "raw",
            "intervals": INTERVALS,
            "versions": dict(self.config.versions),
        }


def lacking_steps(root: Path, wanted: Iterable[Group], steps: Iterable[int]) -> set[int]:
    """Steps that have not a unit of every probe, whatever those there were measured under; nothing is hashed.

    Args:
        root: the results folder.
        wanted: what a sweep measures.
        steps: those in question.
    """
    names = {(group.key, info.name) for group in wanted for info in group.probes}
    found = set()
    for step in steps:
        there = {
            (path.name.split(".")[0], name)
            for path in units_of(root, step)
            for name in _mapping(unit_provenance(path).get("probes"))
        }
        found |= {step} if names - there else set()
    return found


def unit_name(key: str, probes: Mapping[str, int]) -> str:
    """File name of a unit: readable group key, short hash of the probes in it and their versions."""
    text = json.dumps(dict(probes), sort_keys=True)
    return f"{key}.{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}.parquet"


def _drawn_with(stimulus: str) -> dict[str, int]:
    """Number of sequences and seed of a stimulus of random tokens, from its id; {} for others, whose texts decide."""
    found = _DRAWN.match(stimulus)
    if found is None or found["kind"] not in STIMULI:
        return {}
    seed = {"seed": int(found["seed"])}
    return {"sequences": int(found["n"]), **seed} if found["kind"] in _AS_MANY else seed


def _mapping(value: Any) -> dict[str, Any]:
    """The value where it is an object, else an empty one: a unit may say anything."""
    return value if isinstance(value, dict) else {}


def _current(name: str, version: int, plugin: Mapping[str, str] | None) -> bool:
    """Whether stored numbers of a probe are what it would give now; those of a plugin that is not loaded are left alone."""
    info = REGISTRY.get(name)
    if info is None or not info.measurable:
        return plugin is not None
    return info.version == version and plugin == (None if info.plugin is None else asdict(info.plugin))
