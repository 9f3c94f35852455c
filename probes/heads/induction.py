"""The induction verdict: a head that matches prefixes, copies, and by that moves logits, wherever the repeat lies. No torch.

Source: Olsson et al. 2022, arXiv:2209.11895 (an induction head shows both prefix matching and copying). That both must meet
in the logits of the same tokens (4 and 6) is byrote's own.

1. prefix_excess = prefix_matching - its shuffled null, paired by sequence
2. jitter_excess = prefix_matching on jittered blocks - uniform attention on the same tokens
3. copying_excess = copying_logit - its exchanged null (what the head writes on another sequence), paired by sequence
4. dla_excess = excess of induction_dla: raise of the token that followed a copy, beyond even attention and beyond another
   sequence's values, in logits
5. where more than 0.8 of a head's attention is on position 0, 1 to 3 use the sink_free metrics
6. one-sided t-tests that 1, 3 and 4 are above 0, each Benjamini-Hochberg adjusted over all heads of the step
7. yes when the adjusted p are below 0.05 and lower ends of intervals exceed a floor: 0.05 for 1, 2 and 3; 0.1 logits for 4
   and for the score of induction_dla; 0.05 for its share of the head's absolute raises; a quarter for its share of ids
8. unmet: the first condition that does not hold

Smallest effects are required beside significance because with enough sequences any trained head differs from its null by
something; see docs/decisions/0002-induction-verdict.md. Results measured before version 3 lack what 3 to 5 need: they are
judged as they were then, by 1, 2 and copying_logit above its permuted chance level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.probes.results.schema import Measured, not_measured
from byrote.probes.rules import induction_verdict, moved, rests, undecided, unmet_condition
from byrote.probes.spec import probe
from byrote.probes.statistics import benjamini_hochberg, bootstrap_mean, p_greater

Scores = Float[np.ndarray, "n heads"]
_ADDED = ("dla_excess", "q_dla", "unmet", "on_sink_free")  # metrics of version 3


@dataclass(frozen=True)
class InductionTests:
    """Outcome per head; arrays are flat over the heads of one step.

    Attributes:
        verdict: 1.0 yes, 0.0 no, NaN where copying could not be measured on a head that matches prefixes.
        excess: name -> (value, lo, hi) of the effects.
        q: name -> adjusted p of the tests.
        unmet: first condition that does not hold, see `byrote.probes.rules.FLOORS`; 0 where all do.
        on_sink_free: whether a head was judged by its attention without position 0.
        n: sequences.
    """

    verdict: Float[np.ndarray, " heads"]
    excess: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    q: Mapping[str, Float[np.ndarray, " heads"]]
    unmet: Float[np.ndarray, " heads"]
    on_sink_free: np.ndarray
    n: int


@probe(
    unit="yes (1) or no (0)",
    range=(0.0, 1.0),
    better="higher",
    inputs={
        "prefix": ("prefix_matching", "score"),
        "prefix_shuffled": ("prefix_matching", "score@shuffled_repeat"),
        "prefix_jittered": ("prefix_matching", "score@jittered_repeat"),
        "copying": ("copying_logit", "score"),
        "exchanged": ("copying_logit", "exchanged"),
        "prefix_free": ("prefix_matching", "sink_free"),
        "shuffled_free": ("prefix_matching", "sink_free@shuffled_repeat"),
        "jittered_free": ("prefix_matching", "sink_free@jittered_repeat"),
        "copying_free": ("copying_logit", "sink_free"),
        "exchanged_free": ("copying_logit", "exchanged_sink_free"),
        "sink": ("sink", "score"),
        "dla": ("induction_dla", "score"),
        "dla_excess": ("induction_dla", "excess"),
        "dla_share": ("induction_dla", "share_frac"),
        "copied": ("induction_dla", "copied_frac"),
    },
    summary="Verdict: matches prefixes, copies, and raises what followed, above its nulls, also on blocks of varying length.",
    chance="false-alarm rate at most 5% after Benjamini-Hochberg over heads",
    metrics={
        "verdict": "1 when every test below holds",
        "prefix_excess": "prefix matching minus its shuffled null, paired by sequence",
        "copying_excess": "copying minus its exchanged null, paired by sequence",
        "jitter_excess": "prefix matching on jittered blocks minus uniform attention",
        "dla_excess": "raise of the token that followed a copy, beyond even attention and another sequence's values",
        "q_prefix": "p of the prefix test, Benjamini-Hochberg adjusted over heads",
        "q_copying": "p of the copying test, Benjamini-Hochberg adjusted over heads",
        "q_dla": "p of the test of dla_excess, Benjamini-Hochberg adjusted over heads",
        "unmet": "the first condition that does not hold",
        "on_sink_free": "1: judged by its attention without position 0, on which more than 0.8 rests",
    },
    main_metric="verdict",
    units={
        "prefix_excess": "attention fraction",
        "copying_excess": "copying score",
        "jitter_excess": "attention fraction",
        "dla_excess": "logits",
        "q_prefix": "adjusted p",
        "q_copying": "adjusted p",
        "q_dla": "adjusted p",
        "unmet": "a condition",
    },
    undirected=("q_prefix", "q_copying", "q_dla", "unmet", "on_sink_free"),
    uncompared=("unmet", "on_sink_free"),
    words={
        "unmet": (
            "none", "matches no prefixes", "matches at a fixed distance only", "copies no more than by writing constantly",
            "raises what followed by less than 0.1 logits", "raises what followed by chance only",
            "raises other tokens far more", "copies few ids",
        )
    },
    reads_as="1: the head matches prefixes, copies, and raises what followed, significantly and by more than the smallest effects. 0 "
    "is not proof of absence: byrote selftest prints from which scores on heads are called, and heads that each do little "
    "may solve the task together (load_bearing: distributed induction)",
    not_measured="fewer than 16 sequences; prefix matching or copying was not measured on the heads it judges",
    undefined="copying was not measured on a head that matches prefixes",
    order=200,
    version=4,
)  # fmt: skip
def induction(
    prefix: Scores,
    prefix_shuffled: Scores,
    prefix_jittered: Scores,
    jitter_chance: Float[np.ndarray, " heads"],
    copying: Scores,
    copying_chance: Float[np.ndarray, " heads"],
    *,
    exchanged: Scores | None = None,
    prefix_free: Scores | None = None,
    shuffled_free: Scores | None = None,
    jittered_free: Scores | None = None,
    jitter_chance_free: Float[np.ndarray, " heads"] | None = None,
    copying_free: Scores | None = None,
    exchanged_free: Scores | None = None,
    sink: Scores | None = None,
    dla: Scores | None = None,
    dla_excess: Scores | None = None,
    dla_share: Scores | None = None,
    copied: Scores | None = None,
    seed: int = 0,
    dtype: str = "float32",
) -> InductionTests:
    """Judge every head of one step from per-sequence scores.

    Args:
        prefix: prefix_matching per sequence on `repeated_random`.
        prefix_shuffled: the same positions on `shuffled_repeat`.
        prefix_jittered: on `jittered_repeat`.
        jitter_chance: uniform attention on the jittered tokens.
        copying: copying_logit per sequence; NaN where the head raises no token.
        copying_chance: its chance level per head, used where `exchanged` is None.
        exchanged: null of copying_logit per sequence.
        prefix_free, shuffled_free, jittered_free, jitter_chance_free, copying_free, exchanged_free: the same without position 0.
        sink: attention on position 0; None judges no head without it.
        dla, dla_excess, dla_share, copied: of induction_dla; None leaves these conditions out, as before version 3.
        seed: of the bootstrap.
        dtype: in which the model was run: what its rounding may decide has no verdict.
    """
    on_free = np.zeros(prefix.shape[1], dtype=bool) if sink is None else rests(sink.mean(0))

    def judged_on(whole: np.ndarray, free: np.ndarray | None) -> np.ndarray:  # 5.
        return whole if free is None else np.where(on_free, free, whole)

    null = copying_chance[None] if exchanged is None else judged_on(exchanged, exchanged_free)
    chance = judged_on(jitter_chance, jitter_chance_free)
    effects = {
        "prefix_excess": judged_on(prefix, prefix_free) - judged_on(prefix_shuffled, shuffled_free),  # 1.
        "jitter_excess": judged_on(prefix_jittered, jittered_free) - chance[None],  # 2.
        "copying_excess": judged_on(copying, copying_free) - null,  # 3.
    }
    of_dla = {"dla": dla, "dla_excess": dla_excess, "dla_share": dla_share, "copied": copied}  # 4.
    effects |= {name: samples for name, samples in of_dla.items() if samples is not None}
    intervals = {name: bootstrap_mean(samples, seed=seed) for name, samples in effects.items()}
    measured = np.logical_and.reduce(
        [intervals[name].n >= 2 for name in ("copying_excess", "dla_excess") if name in intervals]
    )
    tested = {"q_prefix": "prefix_excess", "q_copying": "copying_excess", "q_dla": "dla_excess"}
    q = {  # 6.
        name: benjamini_hochberg(np.where(intervals[of].n >= 2, p_greater(effects[of]), np.nan))
        for name, of in tested.items()
        if of in effects
    }
    lower = {name: interval.lo for name, interval in intervals.items()}
    least, most = (induction_verdict(q, moved(lower, dtype, s), copying_measured=measured) for s in (-1, 1))
    by_rounding = least != most  # NaN too, which has no condition to name
    return InductionTests(
        verdict=np.where(by_rounding, np.nan, least),  # 7.
        excess={name: (i.value, i.lo, i.hi) for name, i in intervals.items() if name.endswith("_excess")},
        q=q,
        unmet=np.where(by_rounding & np.isfinite(most), np.nan, unmet_condition(q, lower)),  # 8.
        on_sink_free=on_free,
        n=prefix.shape[0],
    )


@induction.finish
def finish(rows: Mapping[str, pd.DataFrame], dtype: str = "float32") -> list[Measured]:
    """The verdict on every head of one step, from the stored rows of the probes it needs, measured in `dtype`."""
    info = induction.info
    rows = {name: _by_head(part) for name, part in rows.items()}
    lacking = info.inputs.keys() - rows.keys()
    if lacking and "exchanged" in rows:  # measured by this version, and not all of it requested
        return []
    former = bool(lacking)
    if former:
        rows = {name: rows[name] for name in ("prefix", "prefix_shuffled", "prefix_jittered", "copying")}
    metrics = [metric for metric in info.metrics if not former or metric not in _ADDED]
    if reason := _unmeasured(rows):
        return [not_measured(info, metric, reason) for metric in metrics]
    samples = {n: np.stack(part["samples"].to_list(), axis=1).astype(np.float64) for n, part in rows.items()}
    chances = {name: part["chance"].to_numpy(dtype=np.float64) for name, part in rows.items()}
    tests = induction(
        **samples,
        jitter_chance=chances["prefix_jittered"],
        jitter_chance_free=chances.get("jittered_free"),
        copying_chance=np.nan_to_num(chances["copying"], nan=0.0),  # NaN where not measured
        dtype=dtype,
    )
    prefix = rows["prefix"]
    shape = (int(prefix["layer"].max()) + 1, int(prefix["head"].max()) + 1)
    no_chance, n = np.full(shape, np.nan), np.full(shape, tests.n)
    certain = {"verdict": tests.verdict, **tests.q, "unmet": tests.unmet, "on_sink_free": tests.on_sink_free}
    estimates = {**tests.excess, **{name: (values,) * 3 for name, values in certain.items()}}
    reasons = "; or ".join(filter(None, (info.undefined, undecided(dtype))))
    measured = []
    for metric in metrics:
        value, lo, hi = (np.asarray(end, dtype=np.float64).reshape(shape) for end in estimates[metric])
        chance = np.zeros(shape) if metric in tests.excess else no_chance
        axes = ("layer", "head")
        measured.append(Measured(info.name, metric, value, lo, hi, chance, n, axes, undefined=reasons))
    return measured


def _by_head(part: pd.DataFrame) -> pd.DataFrame:
    """Rows by layer and head, as units have them; a row without either comes last."""
    layer, head = (part[name].to_numpy(dtype=np.float64, na_value=np.inf) for name in ("layer", "head"))
    later = (layer[1:] > layer[:-1]) | ((layer[1:] == layer[:-1]) & (head[1:] >= head[:-1]))
    return part if later.all() else part.sort_values(["layer", "head"])


def _unmeasured(rows: Mapping[str, pd.DataFrame]) -> str:
    """Why heads cannot be judged, "" where they can."""
    prefix = rows["prefix"]
    of_prefix = [rows[name] for name in ("prefix", "prefix_shuffled", "prefix_jittered")]
    reasons = [reason for part in of_prefix for reason in part["reason"] if reason]
    if reasons or prefix["layer"].isna().any():
        return f"prefix matching was not measured on every head: {reasons[0] if reasons else 'no heads'}"
    for name, what in (("copying", "copying"), ("dla", "induction_dla"), ("sink", "the sink")):
        if name in rows and rows[name]["layer"].isna().any():
            return f"{what} was not measured: {rows[name]['reason'].iloc[0]}"
    return ""
