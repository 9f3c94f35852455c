"""The induction verdict: a head that matches prefixes and copies, above its nulls, wherever the repeat lies. No torch.

Source: Olsson et al. 2022, arXiv:2209.11895 (an induction head shows both prefix matching and copying).

1. prefix_excess = prefix_matching - its shuffled null, paired by sequence
2. copying_excess = copying_logit - its chance level (token identities permuted)
3. jitter_excess = prefix_matching on jittered blocks - uniform attention on the same tokens
4. one-sided t-tests that 1 and 2 are above 0, each Benjamini-Hochberg adjusted over all heads of the step
5. yes when both adjusted p are below 0.05 and the lower ends of the intervals of 1, 2 and 3 are above 0.05

A smallest effect is required beside significance because with enough sequences any trained head differs from its
null by something; see docs/decisions/0002-induction-verdict.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.probes.results.schema import Measured, not_measured
from byrote.probes.rules import induction_verdict
from byrote.probes.spec import probe
from byrote.probes.statistics import benjamini_hochberg, bootstrap_mean, p_greater


@dataclass(frozen=True)
class InductionTests:
    """Outcome per head; arrays are flat over the heads of one step.

    Attributes:
        verdict: 1.0 yes, 0.0 no, NaN where copying could not be measured on a head that matches prefixes.
        excess: name -> (value, lo, hi) of the three effects.
        q: name -> adjusted p of the two tests.
        n: sequences.
    """

    verdict: Float[np.ndarray, " heads"]
    excess: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    q: Mapping[str, Float[np.ndarray, " heads"]]
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
    },
    summary="Verdict: matches prefixes and copies, both above their nulls, also on blocks of varying length.",
    chance="false-alarm rate at most 5% after Benjamini-Hochberg over heads",
    metrics={
        "verdict": "1 when every test below holds",
        "prefix_excess": "prefix matching minus its shuffled null, paired by sequence",
        "copying_excess": "copying minus its chance level, token identities permuted",
        "jitter_excess": "prefix matching on jittered blocks minus uniform attention",
        "q_prefix": "p of the prefix test, Benjamini-Hochberg adjusted over heads",
        "q_copying": "p of the copying test, Benjamini-Hochberg adjusted over heads",
    },
    main_metric="verdict",
    units={
        "prefix_excess": "attention fraction",
        "copying_excess": "copying score",
        "jitter_excess": "attention fraction",
        "q_prefix": "adjusted p",
        "q_copying": "adjusted p",
    },
    undirected=("q_prefix", "q_copying"),
    reads_as="1: the head matches prefixes and copies, surely and by more than 0.05. 0 is not proof of absence: "
    "byrote selftest prints from which scores on heads are called",
    not_measured="prefix matching or copying was not measured on the heads it judges",
    undefined="copying was not measured on a head that matches prefixes",
    order=200,
    version=2,
)
def induction(
    prefix: Float[np.ndarray, "n heads"],
    prefix_shuffled: Float[np.ndarray, "n heads"],
    prefix_jittered: Float[np.ndarray, "n heads"],
    jitter_chance: Float[np.ndarray, " heads"],
    copying: Float[np.ndarray, "n heads"],
    copying_chance: Float[np.ndarray, " heads"],
    *,
    seed: int = 0,
) -> InductionTests:
    """Judge every head of one step from per-sequence scores.

    Args:
        prefix: prefix_matching per sequence on `repeated_random`.
        prefix_shuffled: the same positions on `shuffled_repeat`.
        prefix_jittered: on `jittered_repeat`.
        jitter_chance: uniform attention on the jittered tokens.
        copying: copying_logit per sequence; NaN where the head raises no token.
        copying_chance: its chance level per head.
        seed: of the bootstrap.
    """
    effects = {
        "prefix_excess": prefix - prefix_shuffled,  # 1.
        "copying_excess": copying - copying_chance[None],  # 2.
        "jitter_excess": prefix_jittered - jitter_chance[None],  # 3.
    }
    intervals = {name: bootstrap_mean(samples, seed=seed) for name, samples in effects.items()}
    measured = intervals["copying_excess"].n >= 2
    q_prefix = benjamini_hochberg(p_greater(effects["prefix_excess"]))  # 4.
    q_copying = benjamini_hochberg(np.where(measured, p_greater(effects["copying_excess"]), np.nan))
    q = {"q_prefix": q_prefix, "q_copying": q_copying}
    lower = {name: interval.lo for name, interval in intervals.items()}
    return InductionTests(
        verdict=induction_verdict(q, lower, copying_measured=measured),  # 5.
        excess={name: (i.value, i.lo, i.hi) for name, i in intervals.items()},
        q=q,
        n=prefix.shape[0],
    )


@induction.finish
def finish(rows: Mapping[str, pd.DataFrame]) -> list[Measured]:
    """The verdict on every head of one step, from the stored rows of the probes it needs."""
    info = induction.info
    rows = {name: part.sort_values(["layer", "head"]) for name, part in rows.items()}
    prefix, copying = rows["prefix"], rows["copying"]
    unmeasured = [
        r for name in ("prefix", "prefix_shuffled", "prefix_jittered") for r in rows[name]["reason"] if r
    ]
    reason = ""
    if unmeasured or prefix["layer"].isna().any():
        why = unmeasured[0] if unmeasured else "no heads"
        reason = f"prefix matching was not measured on every head: {why}"
    elif copying["layer"].isna().any():
        reason = f"copying was not measured: {copying['reason'].iloc[0]}"
    if reason:
        return [not_measured(info, metric, reason) for metric in info.metrics]
    samples = {n: np.stack(part["samples"].to_list(), axis=1).astype(np.float64) for n, part in rows.items()}
    tests = induction(
        **samples,
        jitter_chance=rows["prefix_jittered"]["chance"].to_numpy(dtype=np.float64),
        copying_chance=copying["chance"].fillna(0.0).to_numpy(dtype=np.float64),  # NaN where not measured
    )
    shape = (int(prefix["layer"].max()) + 1, int(prefix["head"].max()) + 1)
    no_chance, n = np.full(shape, np.nan), np.full(shape, tests.n)
    estimates = {
        "verdict": (tests.verdict,) * 3,
        **tests.excess,
        **{name: (q,) * 3 for name, q in tests.q.items()},
    }
    measured = []
    for metric, ends in estimates.items():
        value, lo, hi = (np.asarray(end, dtype=np.float64).reshape(shape) for end in ends)
        chance = np.zeros(shape) if metric in tests.excess else no_chance
        axes = ("layer", "head")
        measured.append(Measured(info.name, metric, value, lo, hi, chance, n, axes, undefined=info.undefined))
    return measured
