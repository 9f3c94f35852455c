"""Compare config, tokenizer, and the names, shapes and types of tensors over all steps; find NaN and infinity in them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Generic, TypeVar

from byrote.checkpoints.formats.adapter import TensorInfo
from byrote.checkpoints.lint.report import Fact, fact
from byrote.checkpoints.lint.scan import TOKENIZER_FILES, StepScan
from byrote.checkpoints.zeros import Zeros, doubtful_zeros

COSMETIC_FIELDS = frozenset(
    ("transformers_version", "_name_or_path", "_commit_hash", "use_cache", "torch_dtype", "dtype")
)
"""Config fields that do not change what the model computes."""
_DESCRIBING = frozenset(
    ("special_tokens_map.json", "tokenizer_config.json")
)  # use of a tokenizer, not what ids mean

_Value = TypeVar("_Value", bound=Hashable)


@dataclass(frozen=True)
class Odd(Generic[_Value]):
    """Steps whose value differs from that of most; `stays` where it is a planned change rather than an exception."""

    steps: tuple[int, ...]
    here: _Value
    usual: _Value
    stays: bool


def odd_steps(values: Sequence[tuple[int, _Value]]) -> list[Odd[_Value]]:
    """Groups of steps whose value is not the usual one: that of most steps, the earliest of equally frequent ones.

    Args:
        values: step and value, ascending by step. A group stays where it is all steps from one on or up to one, two at
            least.
    """
    steps = tuple(step for step, _ in values)
    usual = Counter(value for _, value in values).most_common(1)
    groups: dict[_Value, tuple[int, ...]] = {}
    for step, value in values:
        if value != usual[0][0]:
            groups[value] = (*groups.get(value, ()), step)
    return [
        Odd(
            group,
            value,
            usual[0][0],
            (len(group) > 1 or len(steps) == 2) and group in (steps[-len(group) :], steps[: len(group)]),
        )
        for value, group in groups.items()
    ]


def config_facts(scans: Sequence[StepScan]) -> list[Fact]:
    """Fields of the config that differ between steps."""
    facts = []
    for cosmetic in (False, True):
        fields = [
            (s.step, frozenset((k, v) for k, v in s.config.items() if (k in COSMETIC_FIELDS) == cosmetic))
            for s in scans
        ]
        for odd in odd_steps(fields):
            here, usual = dict(odd.here), dict(odd.usual)
            changed = sorted(k for k in here.keys() | usual.keys() if here.get(k) != usual.get(k))
            evidence = {k: {"here": here.get(k), "usual": usual.get(k)} for k in changed}
            severity, meaning, leave_out = "error", "", odd.steps
            if cosmetic:
                severity, meaning, leave_out = "note", "The files were written by other versions.", ()
            elif odd.stays:
                severity, leave_out = "warning", ()
                meaning = (
                    "The model was changed during training, or two runs are mixed; numbers may change here for that "
                    "reason."
                )
            facts.append(
                fact(
                    "config_change",
                    odd.steps,
                    evidence,
                    leave_out=leave_out,
                    severity=severity,
                    meaning=meaning,
                )
            )
    return facts


def tokenizer_facts(scans: Sequence[StepScan]) -> list[Fact]:
    """Tokenizer files that differ between the steps that have them."""
    facts = []
    for name in TOKENIZER_FILES:
        severity, meaning = "", ""
        if name in _DESCRIBING:
            severity, meaning = "note", "Special tokens or settings changed; ids may be used differently."
        for odd in odd_steps([(s.step, s.tokenizer[name]) for s in scans if name in s.tokenizer]):
            evidence = {"file": name, "here": odd.here, "usual": odd.usual}
            facts.append(fact("tokenizer_change", odd.steps, evidence, severity=severity, meaning=meaning))
    return facts


def tensor_facts(scans: Sequence[StepScan]) -> list[Fact]:
    """Tensors missing or extra, and shapes and types that differ between steps."""
    count = Counter(name for scan in scans for name in scan.tensors)
    expected = {name for name, n in count.items() if 2 * n > len(scans)}
    missing: dict[tuple[str, ...], tuple[int, ...]] = {}
    extra: dict[tuple[str, ...], tuple[int, ...]] = {}
    for scan in scans:
        for groups, names in (
            (missing, expected - scan.tensors.keys()),
            (extra, scan.tensors.keys() - expected),
        ):
            if names:
                tensors = tuple(sorted(names))
                groups[tensors] = (*groups.get(tensors, ()), scan.step)
    return [
        *(
            fact("missing_tensors", steps, {"n_tensors": len(names)}, tensors=names, leave_out=steps)
            for names, steps in missing.items()
        ),
        *(
            fact("extra_tensors", steps, {"n_tensors": len(names)}, tensors=names)
            for names, steps in extra.items()
        ),
        *_differing("shape_change", scans, lambda tensor: str(list(tensor.shape))),
        *_differing("dtype_change", scans, lambda tensor: tensor.dtype),
    ]


def _differing(kind: str, scans: Sequence[StepScan], value: Callable[[TensorInfo], str]) -> list[Fact]:
    """One fact for all tensors that differ at the same steps in the same way."""
    alike: dict[Odd[str], list[str]] = defaultdict(list)
    for name in sorted({name for scan in scans for name in scan.tensors}):
        for odd in odd_steps([(s.step, value(s.tensors[name])) for s in scans if name in s.tensors]):
            alike[odd].append(name)
    facts = []
    for odd, names in alike.items():
        leave_out = odd.steps if kind == "shape_change" and not odd.stays else ()
        evidence = {"here": odd.here, "usual": odd.usual, "n_tensors": len(names)}
        facts.append(fact(kind, odd.steps, evidence, tensors=tuple(names), leave_out=leave_out))
    return facts


def non_finite_facts(scans: Sequence[StepScan], constant: set[str]) -> list[Fact]:
    """Steps whose weights hold NaN or infinity; a tensor that is the same at every step is meant to be so."""
    facts = []
    for scan in scans:
        found = {name: counts for name, counts in scan.non_finite.items() if name not in constant}
        if found:
            evidence = {
                "n_nan": sum(nan for nan, _ in found.values()),
                "n_inf": sum(inf for _, inf in found.values()),
                "n_tensors": len(found),
            }
            step = (scan.step,)
            facts.append(fact("non_finite", step, evidence, tensors=tuple(sorted(found)), leave_out=step))
    return facts


def zero_facts(scans: Sequence[StepScan]) -> list[Fact]:
    """Steps with tensors of nothing but zeros that fit neither their neighbours nor a way to begin; see `zeros`."""
    facts = []
    before: Zeros | None = None
    zeros = [scan.zeros for scan in scans]
    for scan, after in zip_longest(scans, zeros[1:]):
        doubted = doubtful_zeros(scan.zeros, before=before, after=partial(_same, after))
        if doubted:
            step, evidence = (scan.step,), {"n_tensors": len(doubted), "n_all": len(scan.tensors)}
            facts.append(fact("zero_tensors", step, evidence, tensors=doubted, leave_out=step))
        else:
            before = scan.zeros
    return facts


def _same(zeros: Zeros | None) -> Zeros | None:
    return zeros
