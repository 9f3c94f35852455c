"""Config, tokenizer, and the names, shapes and types of tensors, compared over all steps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Generic, TypeVar

from byrote.checkpoints.lint.report import Fact
from byrote.checkpoints.lint.scan import StepScan
from byrote.checkpoints.lint.small_files import DESCRIBING, TOKENIZER_FILES

COSMETIC_FIELDS = frozenset(
    ("transformers_version", "_name_or_path", "_commit_hash", "use_cache", "torch_dtype", "dtype")
)
"""Config fields that do not change what the model computes."""


_Key = TypeVar("_Key", bound=Hashable)


class Odd(Generic[_Key]):
    """Which steps differ from most, and whether they are exceptions or a change that stays.

    Args:
        steps: ascending.
        keys: what each step has, to compare; equal keys are alike.

    Attributes:
        usual: the key most steps have; the earliest of equally frequent ones.
        groups: every other key -> its steps.
    """

    def __init__(self, steps: Sequence[int], keys: Sequence[_Key]) -> None:
        self.steps = tuple(steps)
        self.usual = Counter(keys).most_common(1)[0][0]
        self.groups: dict[_Key, tuple[int, ...]] = {}
        for step, key in zip(steps, keys, strict=True):
            if key != self.usual:
                self.groups[key] = (*self.groups.get(key, ()), step)

    def stays(self, group: tuple[int, ...]) -> bool:
        """Whether the steps are all those from some step on or up to some step, two at least: a planned change."""
        n = len(group)
        return (n > 1 or len(self.steps) == 2) and group in (self.steps[-n:], self.steps[:n])


def config_facts(scans: Sequence[StepScan]) -> list[Fact]:
    """Fields of the config that differ between steps."""
    facts = []
    for cosmetic in (False, True):
        keys = [
            frozenset((k, v) for k, v in f.items() if (k in COSMETIC_FIELDS) == cosmetic)
            for f in (scan.config for scan in scans)
        ]
        odd = Odd([scan.step for scan in scans], keys)
        for key, group in odd.groups.items():
            facts.append(_config_fact(odd, dict(key), group, cosmetic=cosmetic))
    return facts


def _config_fact(
    odd: Odd[frozenset[tuple[str, str]]], here: dict[str, str], group: tuple[int, ...], *, cosmetic: bool
) -> Fact:
    usual = dict(odd.usual)
    changed = sorted(k for k in here.keys() | usual.keys() if here.get(k) != usual.get(k))
    evidence = {k: {"here": here.get(k), "usual": usual.get(k)} for k in changed}
    if cosmetic:
        return Fact("config_change", "note", group, "The files were written by other versions.", evidence)
    stays = odd.stays(group)
    meaning = (
        "The model was changed during training, or two runs are mixed; numbers may change here for that reason."
        if stays
        else "These steps would be run as another model than the rest: a config from elsewhere."
    )
    leave_out = () if stays else group
    return Fact(
        "config_change", "warning" if stays else "error", group, meaning, evidence, leave_out=leave_out
    )


def tokenizer_facts(scans: Sequence[StepScan]) -> list[Fact]:
    """Tokenizer files that differ between the steps that have them."""
    facts = []
    for name in TOKENIZER_FILES:
        held = [(scan.step, scan.tokenizer[name]) for scan in scans if name in scan.tokenizer]
        if not held:
            continue
        odd = Odd([step for step, _ in held], [key for _, key in held])
        describing = name in DESCRIBING
        for key, group in odd.groups.items():
            meaning = (
                "Special tokens or settings changed; ids may be used otherwise."
                if describing
                else "The same id stands for another piece of text at these steps: texts are not comparable."
            )
            severity = "note" if describing else "warning"
            evidence = {"file": name, "here": key, "usual": odd.usual}
            facts.append(Fact("tokenizer_change", severity, group, meaning, evidence))
    return facts


def tensor_facts(scans: Sequence[StepScan]) -> list[Fact]:
    """Tensors missing or extra, and shapes and types that differ between steps."""
    facts = _names(scans)
    steps = [scan.step for scan in scans]
    shapes = _odd_tensors(steps, [{n: str(list(t.shape)) for n, t in s.tensors.items()} for s in scans])
    for (group, here, usual, stays), tensors in shapes.items():
        meaning = "The weights belong to a model of another size, or the model was resized."
        evidence = {"here": here, "usual": usual, "n_tensors": len(tensors)}
        leave_out = () if stays else group
        facts.append(Fact("shape_change", "error", group, meaning, evidence, tensors, leave_out))
    types = _odd_tensors(steps, [{n: t.dtype for n, t in s.tensors.items()} for s in scans])
    for (group, here, usual, _), tensors in types.items():
        meaning = (
            "The steps were saved by different code; rounding differs, and values near its size with it."
        )
        evidence = {"here": here, "usual": usual, "n_tensors": len(tensors)}
        facts.append(Fact("dtype_change", "warning", group, meaning, evidence, tensors))
    return facts


def non_finite_facts(scans: Sequence[StepScan], constant: set[str]) -> list[Fact]:
    """Steps whose weights hold NaN or infinity; a tensor that is the same at every step is meant to be so."""
    facts = []
    for scan in scans:
        found = {name: counts for name, counts in scan.non_finite.items() if name not in constant}
        if found:
            meaning = "Training diverged or the file is damaged; the model's outputs are not numbers."
            evidence = {
                "n_nan": sum(nan for nan, _ in found.values()),
                "n_inf": sum(inf for _, inf in found.values()),
                "n_tensors": len(found),
            }
            facts.append(
                Fact(
                    "non_finite", "error", (scan.step,), meaning, evidence, tuple(sorted(found)), (scan.step,)
                )
            )
    return facts


def _names(scans: Sequence[StepScan]) -> list[Fact]:
    count = Counter(name for scan in scans for name in scan.tensors)
    expected = {name for name, n in count.items() if 2 * n > len(scans)}
    facts = []
    for kind, severity, meaning in (
        (
            "missing_tensors",
            "error",
            "The file is incomplete; whatever loads it would fill the hole with random numbers.",
        ),
        ("extra_tensors", "warning", "These steps hold another model, or something beside the model."),
    ):
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for scan in scans:
            here = set(scan.tensors)
            odd = expected - here if kind == "missing_tensors" else here - expected
            if odd:
                groups[tuple(sorted(odd))].append(scan.step)
        for tensors, group in groups.items():
            leave_out = tuple(group) if kind == "missing_tensors" else ()
            facts.append(
                Fact(kind, severity, tuple(group), meaning, {"n_tensors": len(tensors)}, tensors, leave_out)
            )
    return facts


def _odd_tensors(
    steps: Sequence[int], values: Sequence[Mapping[str, str]]
) -> dict[tuple[tuple[int, ...], str, str, bool], tuple[str, ...]]:
    """(steps, value there, usual value, whether it stays) -> the tensors of which that is true."""
    found: dict[tuple[tuple[int, ...], str, str, bool], list[str]] = defaultdict(list)
    for name in sorted({name for row in values for name in row}):
        held = [(step, row[name]) for step, row in zip(steps, values, strict=True) if name in row]
        odd = Odd([step for step, _ in held], [value for _, value in held])
        for value, group in odd.groups.items():
            found[group, str(value), str(odd.usual), odd.stays(group)].append(name)
    return {key: tuple(names) for key, names in found.items()}
