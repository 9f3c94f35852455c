"""The spellings people use for training steps in folder, file and branch names, in one table.

A name says the step, sometimes the tokens read so far, and sometimes which part of a longer training it belongs to:
step 1000 of `stage1` and step 1000 of `stage2-ingredient1` are different models and never one series.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.listing import cached_listing, children

_SCALE = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_FILE_ENDING = re.compile(r"\.(?:pt|pth|ckpt|bin|safetensors)$", re.IGNORECASE)
_MODEL_FILES = ("config.json", "adapter_config.json", "*.safetensors", "*.bin", "*.pt", "*.pth")

_STEP = r"(?P<step>[0-9]{1,15}(?:\.[0-9]{1,9})?[kmb]?)"
_DIGITS = r"(?P<step>[0-9]{1,15})"
_TOKENS = r"(?P<tokens>[0-9]{1,15}(?:\.[0-9]{1,9})?[kmbt])"
_PART = r"(?:stage|phase)[-_]?[0-9]+(?:[-_]ingredient[-_]?[0-9]+)?|lc-[0-9]+k-to-[0-9]+k"

# Whose spelling, and the pattern of the whole name, case ignored. The first that matches counts.
SPELLINGS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (who, re.compile(pattern, re.IGNORECASE))
    for who, pattern in (
        ("fairseq", rf"checkpoint_[0-9]+_{_DIGITS}"),
        ("Trainer, stanford-crfm", rf"checkpoint[-_]?{_STEP}"),
        ("CrystalCoder", rf"(?P<part>\w+_phase[0-9]+)_checkpoint_{_DIGITS}"),
        (
            "Pythia, DeepSpeed, OLMo, SmolLM",
            rf"(?:(?P<part>{_PART})[-_])?(?:(?:global|state)[-_]?)?step[-_]?{_STEP}(?:-tokens?-?{_TOKENS})?",
        ),
        (
            "TinyLlama",
            rf"(?P<part>.+?)(?:-intermediate)?-step-{_STEP}-(?:tokens?-)?(?P<tokens>[0-9]+(?:\.[0-9]+)?[bt])",
        ),
        ("Lightning", rf"(?:.*-)?step={_DIGITS}(?:-.*)?"),
        ("LLM360, nanoGPT", rf"ckpt[-_]?{_STEP}"),
        ("Megatron, litgpt", rf"iter(?:ation)?[-_]?{_STEP}(?:-ckpt)?"),
        ("llm.c", rf"model[-_]{_DIGITS}"),
        ("nanotron", _DIGITS),
    )
)
_BARE = "nanotron"
_MANY_DIGITS = re.compile(r"[0-9]{16,}")
MAX_COUNT = 1 << 53  # of steps or tokens: beyond it, tables of numbers lose count


class MixedPartsError(CheckpointError):
    """Steps of several parts of a training where those of one were wanted; `parts` counts each."""

    def __init__(self, message: str, *, help: str, parts: dict[str, int]) -> None:
        super().__init__(message, help=help)
        self.parts = parts


@dataclass(frozen=True)
class StepName:
    """What a name says.

    Attributes:
        step: optimiser steps.
        tokens: training tokens read so far, or None; names round them.
        part: the stage, phase or ingredient whose steps are counted, "" where the name has none.
        bare: the name is nothing but a number, which may also be a seed or an epoch.
    """

    step: int
    tokens: int | None = None
    part: str = ""
    bare: bool = False


@lru_cache(maxsize=16_384)  # every format that could read a folder asks for all of its names
def parse_name(name: str) -> StepName | None:
    """Read one name; None where it names no step. ``stage1-step1000-tokens4B.pt`` has all there is."""
    stem = _FILE_ENDING.sub("", name)
    for who, pattern in SPELLINGS:
        match = pattern.fullmatch(stem)
        if match:
            fields = match.groupdict()
            step, tokens = _count(fields["step"]), _count(fields.get("tokens") or "0")
            if max(step, tokens) >= MAX_COUNT:
                return None
            return StepName(
                step=step,
                tokens=tokens or None,
                part=(fields.get("part") or "").lower(),
                bare=who == _BARE,
            )
    return None


def has_too_many_digits(name: str) -> bool:
    """Whether a name would name a step but for the length of its number: no training has steps of 16 digits."""
    return parse_name(name) is None and parse_name(_MANY_DIGITS.sub("1", name)) is not None


@cached_listing
def step_folders(path: Path) -> list[Path]:
    """Sub-folders named like steps, by name. Bare numbers count only where nothing else does and they hold a model.

    Results are left out: those of a second training beside the first are called `model-2`, as llm.c calls step 2.
    """
    named = [(child, parse_name(child.name)) for child in children(path) if child.is_dir()]
    sure = [child for child, name in named if name and not name.bare and not is_results(child)]
    return sure or [child for child, name in named if name and _holds_model(child)]


def is_results(path: Path) -> bool:
    """Whether a folder holds the results of a run."""
    return (path / "run.json").is_file() and (path / "units").is_dir()


def refuse_mixed_parts(names: Iterable[str], *, where: str) -> None:
    """Refuse to order the steps of different parts of a training along one axis.

    Raises:
        MixedPartsError: naming the parts and how many steps each has.
    """
    parts = count_parts(names)
    if len(parts) > 1:
        listed = ", ".join(f"{part or 'no stage'} ({n})" for part, n in parts.items())
        first = next(part for part in parts if part)
        raise MixedPartsError(
            f"{where} holds {len(parts)} parts of a training, each with its own count of steps: {listed}",
            help=f"name one of them: {where}@{first}, or open_series(..., part={first!r})",
            parts=parts,
        )


def count_parts(names: Iterable[str]) -> dict[str, int]:
    """Part -> how many of the names belong to it, in name order; names without a step are left out."""
    parts = Counter(named.part for name in names if (named := parse_name(name)))
    return {part: parts[part] for part in sorted(parts)}


def _holds_model(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in _MODEL_FILES)


def _count(text: str) -> int:
    suffix = text[-1].lower() if text[-1].isalpha() else ""
    return int(Decimal(text.removesuffix(text[-1]) if suffix else text) * _SCALE[suffix])
