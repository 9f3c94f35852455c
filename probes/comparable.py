"""Which checkpoints of two runs stand against each other, whether they may be compared, and what a comparison holds. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Num

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.steps import span_of
from byrote.probes.results.table import Table
from byrote.probes.results.unit_files import step_folder, unit_provenance
from byrote.probes.rules import NOT_TESTED, PRIMARY, SECONDARY
from byrote.probes.statistics import benjamini_hochberg, holm
from byrote.probes.trajectory.verdict import Onset
from byrote.probes.wording import clean, probe_name, summary_html

ALIGNMENTS = ("step", "tokens", "loss")
BEST_HEAD = "score:best_head"
SORTED, MASS, MATCHED = (
    "sorted",
    "mass",
    "matched",
)  # of heads that are not each other's likes by name: `metric:how`
BY_NAME = "name"
HEADS = ("auto", BY_NAME, SORTED, MASS, MATCHED)
HELD_OUT = ("held_out_loss", "loss")
_TOLERANCE = {"tokens": 0.02, "loss": 0.05}  # relative distance within which two checkpoints count as matched
_WEIGHTS_ONLY = frozenset({"fingerprint", "format"})  # what two runs are expected to differ in

# A run's own sequences, as its training data is; natural text is where each lab series carries its own.
OWN_STIMULI = frozenset({"members", "twins", "candidates", "natural", "natural_contexts", "labelled"})
_SHOWN = re.compile(
    r"^(natural_contexts-l\d+)-n\d+-"
)  # as many as a run needs, the first of the same windows


_MEANINGS = {
    ("repeat_loss", "difference"): "change of the loss where random tokens are repeated: below 0 it copies",
    ("repeat_loss", "later_blocks"): "loss on the repeats of random tokens",
    ("repeat_loss", "top1_later"): "share of the repeated random tokens that it predicts first",
    ("prefix_matching", "score"): "attention to what followed the earlier copies of a token",
    ("previous_token", "score"): "attention to the token just before",
    ("icl_score", "score"): "loss late in a text minus loss early in it",
    (
        "inducible_loss",
        "difference",
    ): "loss where a text repeats a pair of tokens, minus loss elsewhere in it",
    ("held_out_loss", "loss"): "loss on text that it was not trained on",
    ("mem_gap", "gap"): "loss on fresh sequences minus loss on those it was trained on: above 0 it remembers",
}


@dataclass(frozen=True)
class Comparison:
    """What differs between run A and run B.

    Attributes:
        a, b: run names.
        align: axis the runs were matched on.
        pairs: matched (step of A, step of B).
        rows: one row per number compared: values a and b, difference b - a with its interval, n, p and q, the
            smallest effect in its unit, the `family` it was corrected in, and `change`: "higher", "lower",
            "no clear change", or "exact" for weight-only scores, "not tested" for imported ones.
        onset_a, onset_b: of the induction heads in each run.
        sentence: what happened, in words.
        notes: what could not be compared, and why.
        heads: how heads of the two stand against each other: "name", or other words of `HEADS`.
        unnamed: the note that says why they are not compared by name; "" where they are.
    """

    a: str
    b: str
    align: str
    pairs: tuple[tuple[int, int], ...]
    rows: pd.DataFrame
    onset_a: Onset
    onset_b: Onset
    sentence: str
    notes: tuple[str, ...] = ()
    heads: tuple[str, ...] = (BY_NAME,)
    unnamed: str = ""

    def __repr__(self) -> str:
        at = f"step {self.pairs[-1][0]:,}" if len(self.pairs) == 1 else f"{len(self.pairs)} matched steps"
        names = f"A = {clean(self.a)}, B = {clean(self.b)}"
        return f"Comparison({names}: {len(self.rows):,} numbers at {at} in .rows)\n{self.sentence}"

    def _repr_html_(self) -> str:
        """For notebooks: what happened, and the numbers about the whole model; offline, everything escaped."""
        return summary_html(repr(self), self.rows[self.rows["layer"].isna() & self.rows["position"].isna()])

    @property
    def untested(self) -> bool:
        """Whether a run's scores were imported: there are no intervals, and nothing was tested."""
        return bool((self.rows["change"] == NOT_TESTED).any())

    def row(self, probe: str, metric: str) -> pd.Series | None:
        """The model-level row of a metric at the last compared pair; None when it was not compared."""
        found = self.rows[
            (self.rows["probe"] == probe) & (self.rows["metric"] == metric) & self.rows["layer"].isna()
        ]
        found = found[found["position"].isna()]
        return None if found.empty else found.iloc[-1]


def matched_steps(a: Table, b: Table, align: str) -> list[tuple[int, int]]:
    """Pairs (step of A, step of B), ascending. Steps that lint leaves out are not matched.

    By step: the steps both have. By tokens or loss: each step of A with the nearest of B, within 2% of the tokens or
    5% of the loss; each step of B is used once. The loss is that on held-out text: an arm that memorised has a low
    training loss where a healthy one has it early.

    Raises:
        ByroteError: an unknown axis, an axis one run does not record, held-out texts that differ, or nothing that matches.
    """
    if align not in ALIGNMENTS:
        raise ByroteError(f"runs cannot be aligned by {align!r}", help=did_you_mean(align, ALIGNMENTS))
    if align == "step":
        pairs = [(step, step) for step in sorted(set(a.usable_steps) & set(b.usable_steps))]
    else:
        pairs = _nearest(_axis(a, align), _axis(b, align), _TOLERANCE[align])
        if align == "loss":
            _refuse_other_text(a, b, pairs)
    if not pairs:
        raise ByroteError(
            f"{a.run} ({span_of(a.steps)}) and {b.run} ({span_of(b.steps)}) have no checkpoint in common by {align}",
            help="align by another axis: --align step, tokens or loss; or measure more steps",
        )
    return pairs


def _axis(results: Table, align: str) -> dict[int, float]:
    if align == "tokens":
        recorded = {step: float(seen) for step, seen in results.tokens.items() if seen is not None}
    else:
        found = results.rows(*HELD_OUT, valid=True)
        recorded = dict(zip(found["step"].tolist(), found["value"].tolist(), strict=True))
    values = {step: recorded[step] for step in results.usable_steps if step in recorded}
    if not values:
        if align == "tokens":
            raise ByroteError(f"{results.run} records no tokens per checkpoint", help="use --align step")
        raise ByroteError(
            f"{results.run} has no held-out loss, and its training loss does not show what was learned",
            help="measure it: byrote run SERIES -p held_out_loss (--text FILE outside the lab); or use --align step",
        )
    return values


def _refuse_other_text(a: Table, b: Table, pairs: list[tuple[int, int]]) -> None:
    """Losses are a common axis only where both are of the same text."""
    for step_a, step_b in pairs[-1:]:
        of = [_by_stimulus(r, s).get("natural", {}).get("stimulus") for r, s in ((a, step_a), (b, step_b))]
        if of[0] != of[1]:
            raise ByroteError(
                f"the held-out losses of {a.run} and {b.run} are of different texts ({of[0]} and {of[1]})",
                help="measure both with the same --text, or use --align step",
            )


def init_disagreement(a: Table, b: Table) -> str:
    """Why heads of two runs are not each other's likes by name; "" where both grew from the same weights.

    Which of equal heads becomes the previous-token head is decided by the weights at step 0: another seed gives another
    order. They are known to agree where the same seed of one architecture is declared, or where the weights measured at
    step 0 have one fingerprint.
    """
    if a.shape != b.shape:
        return f"{a.run} has {a.shape[0]} layers of {a.shape[1]} heads, {b.run} {b.shape[0]} of {b.shape[1]}"
    models = [run.facts.recipe.get("model") for run in (a, b)]
    seeds = [run.facts.init_seed for run in (a, b)]
    if None not in seeds and seeds[0] == seeds[1] and models[0] == models[1]:
        return ""
    first = [{facts.get("fingerprint") for facts in _by_stimulus(run, 0).values()} - {None} for run in (a, b)]
    if a.path == b.path or first[0] & first[1]:
        return ""
    unknown = [run.run for run, seed in zip((a, b), seeds, strict=True) if seed is None]
    if unknown:
        return f"init_seed of {' and '.join(unknown)} is not declared (byrote.toml beside the results)"
    return f"{a.run} has init_seed {seeds[0]}, {b.run} {seeds[1]}" + (
        " of another model" if models[0] != models[1] else ""
    )


def how_heads(heads: str, disagreement: str) -> tuple[str, ...]:
    """How heads are compared, as requested or, with "auto", by name where that means something and else unnamed.

    Args:
        heads: one of `HEADS`.
        disagreement: see `init_disagreement`.

    Raises:
        ByroteError: an unknown word, or names where the heads are not each other's likes.
    """
    if heads not in HEADS:
        raise ByroteError(f"heads cannot be compared by {heads!r}", help=did_you_mean(heads, HEADS))
    if heads == BY_NAME and disagreement:
        raise ByroteError(
            f"heads are not compared by name: {disagreement}",
            help="compare sorted scores (--heads sorted), their sum above chance (--heads mass), or heads matched by their "
            "other scores (--heads matched)",
        )
    return ((SORTED, MASS) if disagreement else (BY_NAME,)) if heads == "auto" else (heads,)


def metric_words(metric: str) -> str:
    """What a metric of a comparison is called after its probe's name; "" for the plain score."""
    own, _, how = metric.partition(":")
    ways = {"best_head": "strongest head", MASS: "summed over heads above chance", SORTED: "sorted heads",
            MATCHED: "matched heads"}  # fmt: skip
    return ways.get(how, "" if own == "score" else probe_name(own))


def measure_name(probe: str, metric: str) -> str:
    """``prefix matching, strongest head``, ``repeat loss: later blocks``, ``sink``."""
    words = metric_words(metric)
    if probe_name(probe).endswith(f" {words}"):  # of a probe that is called after its only number
        words = ""
    between = ", " if ":" in metric else ": " if words else ""
    return f"{probe_name(probe)}{between}{words}"


def meaning(probe: str, metric: str) -> str:
    """A named measure in words that need no other; "" of all others."""
    own, _, how = metric.partition(":")[0].partition("@")
    text = _MEANINGS.get((probe, own), "")
    return f"{text}; blocks of varying length" if text and how == "jittered_repeat" else text


def family_of(row: Any, primary: tuple[str, str] | None) -> str:
    """Which tests a row's is corrected with: "primary", "secondary", "heads", "curves" or "further".

    Args:
        row: with probe, metric, layer and position.
        primary: the one metric that decides, see `byrote.probes.rules.PRIMARY`; None where it was not measured.
    """
    name = (row.probe, row.metric)
    if not pd.isna(row.layer) or row.metric.endswith((f":{SORTED}", f":{MATCHED}")):
        return "heads"
    if not pd.isna(row.position):
        return "curves"
    return "primary" if name == primary else "secondary" if name in SECONDARY else "further"


def corrected(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with `family` and `q`: p adjusted within the family, over metrics, heads and all steps compared.

    The one primary metric is corrected over steps alone and the eight secondary ones over metrics and steps (Holm: 5% is
    the chance of any false alarm); heads, points of curves and further metrics by Benjamini-Hochberg (5% is the share of
    false ones among those reported). A strongest head's p counts twice, because it is chosen on half of the sequences.
    """
    names = set(zip(rows["probe"], rows["metric"], strict=True))
    primary = next((name for name in PRIMARY if name in names), None)
    rows = rows.assign(family=[family_of(row, primary) for row in rows.itertuples(index=False)])
    p = rows["p"].to_numpy(np.float64) * np.where(rows["metric"] == BEST_HEAD, 2.0, 1.0)
    q = np.full(len(rows), np.nan)
    for family in rows["family"].unique():
        mine = (rows["family"] == family).to_numpy()
        adjust = holm if family in ("primary", "secondary") else benjamini_hochberg
        q[mine] = adjust(np.minimum(p[mine], 1.0))
    return rows.assign(q=q)


def _nearest(a: dict[int, float], b: dict[int, float], tolerance: float) -> list[tuple[int, int]]:
    pairs, free = [], dict(b)
    for step, value in sorted(a.items()):
        if not free:
            break
        other = min(free, key=lambda s: (abs(free[s] - value), s))
        if abs(free[other] - value) <= tolerance * max(abs(value), 1e-9):
            pairs.append((step, other))
            del free[other]
    return sorted(pairs)


def how_to_measure_alike(a: Table, b: Table, command: str) -> str:
    """What to do about two runs that were not measured alike.

    Args:
        a, b: runs for which `differing_provenance` found something.
        command: measures both alike, where their models can be shown the same sequences.
    """
    models = [run.meta.get("model") or {} for run in (a, b)]
    named = {"n_ctx": "contexts of {} and {} tokens", "d_vocab": "vocabularies of {} and {} ids"}
    sizes = {name: [model.get(name) for model in models] for name in named}
    other = [named[name].format(*two) for name, two in sizes.items() if two[0] != two[1] and None not in two]
    if not other:
        return f"measure {command}"
    return (
        f"the models have {' and '.join(other)}, so they are shown other random tokens: put their numbers side by side "
        f"with byrote show {a.path} {b.path}, or byrote report"
    )


def differing_provenance(a: Table, b: Table, pairs: list[tuple[int, int]]) -> list[str]:
    """What differs besides the weights at the steps compared, in words; empty when the runs are comparable.

    Stimuli and probes that only one run has are no obstacle: they are not compared. Nor are members, twins and natural
    text that are each run's own: see `own_units`.
    """
    found: dict[str, None] = {}
    for step_a, step_b in pairs:
        left, right = _by_stimulus(a, step_a), _by_stimulus(b, step_b)
        for kind in (left.keys() & right.keys()) - own_units(a, b, (step_a, step_b)):
            found.update(dict.fromkeys(_differences(left[kind], right[kind])))
    return list(found)


def own_units(a: Table, b: Table, pair: tuple[int, int]) -> set[str]:
    """Units measured on sequences of each run's own, which cannot be subtracted sequence by sequence.

    Units measured on the same sequences in both runs are not among them; those that neither run could measure are.
    """
    left, right = (_by_stimulus(r, step) for r, step in zip((a, b), pair, strict=True))
    return {
        key
        for key in left.keys() & right.keys()
        if key.split("+")[0] in OWN_STIMULI
        and (left[key]["stimulus"] != right[key]["stimulus"] or left[key]["stimulus"] == key)
    }


def _by_stimulus(results: Table, step: int) -> dict[str, dict[str, Any]]:
    """Stimulus kind -> provenance, probes merged (a kind may be spread over several units)."""
    return results.cached(
        ("provenance of units", step), lambda: _read_by_stimulus(results, step), _facts_bytes
    )


def _facts_bytes(merged: Mapping[str, Any]) -> int:
    return 3 * len(str(merged))


def _read_by_stimulus(results: Table, step: int) -> dict[str, dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for path in sorted(step_folder(results.path, step).glob("*.parquet")):
        facts = unit_provenance(path)
        kind = path.name.split(".")[0]
        probes = {**merged.get(kind, {}).get("probes", {}), **facts.get("probes", {})}
        stimulus = {"stimulus": _SHOWN.sub(r"\1-", str(facts["stimulus"]))} if "stimulus" in facts else {}
        merged[kind] = {**facts, **stimulus, "probes": probes}
    return merged


def shared_sequences(samples: Sequence[Num[np.ndarray, n * k]]) -> list[Num[np.ndarray, n * k]]:
    """Values by sequence of runs that were shown the same ones, one of them more than another: of those that all saw."""
    n = min(map(len, samples))
    return [values[:n] for values in samples]


def _differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    words = [
        f"{key} {left.get(key)} against {right.get(key)}"
        for key in sorted((left.keys() | right.keys()) - _WEIGHTS_ONLY - {"probes", "versions"})
        if left.get(key) != right.get(key)
    ]
    for group in ("versions", "probes"):
        ours, theirs = left.get(group, {}), right.get(group, {})
        shared = ours.keys() & theirs.keys()
        words += [
            f"{name} version {ours[name]} against {theirs[name]}"
            for name in sorted(shared)
            if ours[name] != theirs[name]
        ]
    return words
