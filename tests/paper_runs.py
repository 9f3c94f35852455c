"""Two runs written down by hand, of the demo's shape: one where induction heads rise, one where none does.

`unique`: L0H1 attends to the previous token and L1H0, L1H2 match prefixes from about step 400 on.
`repeated`: nothing rises above chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from byrote.interp.axes import head_label
from byrote.probes.degradation import BEST_HEAD, ROW_COLUMNS, Comparison
from byrote.probes.results import Results
from byrote.probes.results.schema import from_frame
from byrote.probes.trajectory import onset

STEPS = (
    0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1200, 1400, 1600, 1800,
    2000, 2200, 2300, 2400,
)  # fmt: skip
N_LAYERS, N_HEADS, N_SEQUENCES, D_VOCAB, N_COPIES = 2, 4, 32, 128, 11
PREFIX_CHANCE = 0.0307
COLUMNS = (
    "run", "step", "tokens_seen", "probe", "metric", "layer", "head", "src_layer", "src_head", "position", "value",
    "lo", "hi", "chance", "n", "valid", "reason",
)  # fmt: skip


def rise(step: int, *, middle: float = 400.0, width: float = 45.0) -> float:
    """A planted phase change: 0 long before `middle`, 1 long after."""
    return 1 / (1 + math.exp(-(step - middle) / width))


def planted_run(
    name: str = "unique", *, learns: bool = True, seed: int = 0, steps: Sequence[int] = STEPS
) -> Results:
    """Results of one run, as read from disk."""
    rows = _Rows(name, np.random.default_rng(seed))
    for step in steps:
        rows.at(step, rise(step) if learns else 0.0)
    frame = pd.DataFrame(rows.rows, columns=list(COLUMNS))
    integers = ["tokens_seen", "layer", "head", "src_layer", "src_head", "position"]
    frame = frame.astype(dict.fromkeys(integers, "Int64") | {"step": "int64", "n": "int64"})
    return Results(Path("planted") / name, _meta(name, learns=learns), from_frame(frame))


class _Rows:
    def __init__(self, run: str, rng: np.random.Generator) -> None:
        self.run, self.rng, self.rows, self.step = run, rng, [], 0

    def at(self, step: int, learned: float) -> None:
        self.step = step
        for layer in range(N_LAYERS):
            for head in range(N_HEADS):
                self._head(layer, head, learned)
        self._model(learned)

    def add(
        self,
        probe: str,
        value: float,
        *,
        metric: str = "score",
        chance: float = 0.0,
        half: float = 0.012,
        **key,
    ):
        value = value + self.rng.normal(0, half / 4)
        cells = {"layer": None, "head": None, "position": None, **key}
        self.rows.append(
            (self.run, self.step, self.step * 64 * 47, probe, metric, cells["layer"], cells["head"], None, None,
             cells["position"], value, value - half, value + half, chance, N_SEQUENCES, True, "")
        )  # fmt: skip

    def _head(self, layer: int, head: int, learned: float) -> None:
        where = {"layer": layer, "head": head}
        matcher = layer == 1 and head in (0, 2)
        prefix = PREFIX_CHANCE + (0.78 if head == 0 else 0.71) * learned * matcher
        self.add("prefix_matching", prefix, chance=PREFIX_CHANCE, half=0.03 if matcher else 0.004, **where)
        self.add("prefix_matching", prefix * 1.01, metric="sink_free", chance=0.032, **where)
        self.add(
            "prefix_matching", PREFIX_CHANCE, metric="score@shuffled_repeat", chance=PREFIX_CHANCE, **where
        )
        self.add("prefix_matching", prefix * 0.93, metric="score@jittered_repeat", chance=0.04, **where)
        previous = 0.09 + (0.45 * learned if (layer, head) == (0, 1) else 0.0)
        self.add("previous_token", previous, chance=0.088, **where)
        self.add("duplicate_token", 0.04 + 0.01 * head * learned, chance=0.045, **where)
        self.add("copying_logit", -0.02 + 0.85 * learned * matcher, chance=-0.01, half=0.05, **where)
        ov = -0.1 + 0.05 * head + 0.8 * learned * matcher
        self.add("ov_copying", ov, chance=0.0, half=0.0, **where)
        self.add("offset_profile", 0.08 + 0.6 * learned * matcher, metric="peak_mass", chance=0.09, **where)
        for offset in range(48):
            peak = 0.12 * learned * matcher * math.exp(-(((offset - 17) / 3) ** 2))
            self.add(
                "offset_profile",
                0.02 + peak,
                metric="profile",
                chance=0.021,
                half=0.005,
                position=offset,
                **where,
            )
        self._verdict(prefix - PREFIX_CHANCE, 0.85 * learned * matcher, where)

    def _verdict(self, prefix_excess: float, copying_excess: float, where: dict[str, int]) -> None:
        yes = prefix_excess > 0.1 and copying_excess > 0.1
        self.add("induction", float(yes), metric="verdict", chance=float("nan"), half=0.0, **where)
        self.add("induction", prefix_excess, metric="prefix_excess", half=0.03, **where)
        self.add("induction", copying_excess, metric="copying_excess", half=0.05, **where)
        self.add("induction", 0.93 * prefix_excess, metric="jitter_excess", half=0.03, **where)
        self.add("induction", 1e-6 if yes else 0.6, metric="q_prefix", half=0.0, chance=float("nan"), **where)
        self.add(
            "induction", 1e-5 if yes else 0.7, metric="q_copying", half=0.0, chance=float("nan"), **where
        )

    def _model(self, learned: float) -> None:
        guess = math.log(D_VOCAB - 1)
        first, later = guess + 0.02, guess - 4.3 * learned
        self.add("repeat_loss", first, metric="first_block", chance=guess, half=0.03)
        self.add("repeat_loss", later, metric="later_blocks", chance=guess, half=0.06)
        self.add("repeat_loss", later - first, metric="difference", half=0.05)
        self.add("repeat_loss", 0.008 + 0.9 * learned, metric="top1_later", chance=1 / 127, half=0.02)
        for copy in range(1, N_COPIES + 1):
            fall = 3.9 * learned * (1 - math.exp(-(copy - 1) / 1.2))
            self.add("copy_curve", guess - fall, metric="loss", chance=guess, half=0.07, position=copy)
        self.add("copy_curve", -0.08 * learned, metric="slope", half=0.01)


def _meta(name: str, *, learns: bool) -> dict[str, Any]:
    arm = {"kind": "unique"} if learns else {"kind": "repeated", "repeat_frac": 0.5, "pool_size": 64}
    return {
        "schema": 1,
        "run": name,
        "status": "complete",
        "series": {
            "name": name,
            "path": f"/home/ada/series/{name}",
            "format": "lab",
            "n_checkpoints": len(STEPS),
            "steps": list(STEPS),
            "manifest": {"arm": arm, "seed": 0, "train": {"steps": 2400, "batch": 64, "lr": 0.003}},
        },
        "model": {
            "architecture": "attention only", "n_layers": N_LAYERS, "n_heads": N_HEADS, "d_model": 64, "d_head": 16,
            "d_vocab": D_VOCAB, "n_ctx": 48,
        },
        "probes": [
            {"name": probe, "version": 1}
            for probe in ("prefix_matching", "previous_token", "duplicate_token", "offset_profile", "copying_logit",
                          "ov_copying", "repeat_loss", "copy_curve", "induction")
        ],
        "stimuli": [
            {"id": "repeated_random-r15m3-s0", "kind": "repeated_random", "seed": 0, "n": N_SEQUENCES},
            {"id": "shuffled_repeat-r15m3-s0", "kind": "shuffled_repeat", "seed": 0, "n": N_SEQUENCES},
            {"id": "paragraph_copies-p4m11-s0", "kind": "paragraph_copies", "seed": 0, "n": N_SEQUENCES},
        ],
        "provenance": {
            "dtype": "float32", "device": "cpu", "weight_processing": "raw", "swap": "in place, checked",
            "versions": {"byrote": "0.1.0", "torch": "2.13.0", "transformer-lens": "4.3.0"},
        },
        "gaps": [],
        "notes": [],
    }  # fmt: skip


def rebuilt(results: Results, *, frame: pd.DataFrame | None = None, **meta: Any) -> Results:
    """The same results with another frame, or other entries in run.json."""
    rows = from_frame(results.frame if frame is None else frame)
    return Results(results.path, {**results.meta, **meta}, rows)


def without(results: Results, *, probe: str, step: int, layer: int, head: int, reason: str) -> Results:
    """The same results with one cell's rows marked as not measured."""
    frame = results.frame.copy()
    cell = (
        (frame["probe"] == probe)
        & (frame["step"] == step)
        & (frame["layer"] == layer)
        & (frame["head"] == head)
    )
    frame.loc[cell, ["value", "lo", "hi"]] = float("nan")
    frame.loc[cell, "valid"] = False
    frame.loc[cell, "reason"] = reason
    return rebuilt(results, frame=frame)


def planted_comparison(a: Results, b: Results) -> Comparison:
    """Differences b - a at the last shared step, with the planted half-widths added in quadrature."""
    keys = ["step", "probe", "metric", "layer", "head", "position"]
    columns = [*keys, "tokens_seen", "value", "lo", "hi", "n", "valid"]
    both = a.frame[columns].merge(b.frame[columns], on=keys, suffixes=("_a", "_b"))
    last = int(both["step"].max())
    both = both[both["valid_a"] & both["valid_b"] & (both["step"] == last)]
    difference = both["value_b"] - both["value_a"]
    half = np.hypot(both["hi_a"] - both["lo_a"], both["hi_b"] - both["lo_b"]) / 2
    labels = [
        "" if pd.isna(l) else head_label(int(l), int(h))
        for l, h in both[["layer", "head"]].itertuples(index=False)
    ]
    rows = both[["probe", "metric", "layer", "head", "position"]].assign(
        step_a=both["step"], step_b=both["step"], tokens_a=both["tokens_seen_a"], tokens_b=both["tokens_seen_b"],
        head_a=labels, head_b=labels, a=both["value_a"], b=both["value_b"], difference=difference,
        lo=difference - half, hi=difference + half, n=both["n_a"], p=0.01, q=0.02, smallest=0.05, family="further",
    )  # fmt: skip
    rows = pd.concat([rows, _best_heads(rows)], ignore_index=True)
    rows["change"] = [_planted_change(row) for row in rows.itertuples(index=False)]
    return Comparison(
        a=a.run, b=b.run, align="step", pairs=((last, last),), rows=rows[ROW_COLUMNS],
        onset_a=onset(a), onset_b=onset(b),
        sentence=f"{a.run}: induction heads form between steps 256 and 320 (L1H0); {b.run}: no lasting induction head forms.",
    )  # fmt: skip


def _best_heads(rows: pd.DataFrame) -> pd.DataFrame:
    """The strongest heads against each other, as a comparison gives them: one row without a head."""
    scores = rows[(rows["probe"] == "prefix_matching") & (rows["metric"] == "score")]
    best_a, best_b = scores.loc[scores["a"].idxmax()], scores.loc[scores["b"].idxmax()]
    difference = best_b["b"] - best_a["a"]
    best = scores.head(1).assign(
        metric=BEST_HEAD, layer=pd.NA, head=pd.NA, head_a=best_a["head_a"], head_b=best_b["head_b"], a=best_a["a"],
        b=best_b["b"], difference=difference, lo=difference - 0.04, hi=difference + 0.04,
    )  # fmt: skip
    return best.astype({"layer": "Int64", "head": "Int64"})


def _planted_change(row: Any) -> str:
    if row.lo <= 0 <= row.hi:
        return "no clear change"
    return "higher" if row.difference > 0 else "lower"
