"""From a grid's folder to rows of the table of runs: what its series' manifests log, and what was measured on them. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.safe_read import read_json
from byrote.probes.claims.record import Row
from byrote.probes.claims.runs_table import is_metric
from byrote.probes.results import Results
from byrote.probes.results.run_facts import facts_of

_LOSS = "_loss_nats"
_BY_MECHANISM = "mechanism_loss_nats"


@dataclass(frozen=True)
class Reading:
    """How one metric of the table is read from results.

    Attributes:
        probe, metric: as results have them.
        of: "model" where it is one number per step; "highest" of all heads or pairs; "matching", the head that matches prefixes
            most at that step.
    """

    probe: str
    metric: str
    of: str = "model"


READINGS: Mapping[str, Reading] = {
    "prefix_matching": Reading("prefix_aggregates", "max"),
    "previous_token": Reading("previous_token", "score", "highest"),
    "duplicate_token": Reading("duplicate_token", "score", "highest"),
    "copy_gain": Reading("repeat_loss", "difference"),
    "copies_slope": Reading("copy_curve", "slope"),
    "copies_gain": Reading("copy_curve", "second_minus_last"),
    "icl_score": Reading("icl_score", "score"),
    "skip_log_odds": Reading("skip_trigram", "log_odds"),
    "pair_log_odds": Reading("skip_trigram", "pair_log_odds"),
    "p_pair": Reading("skip_trigram", "p_pair"),
    "k_composition_z": Reading("composition", "k_z", "highest"),
    "q_composition_z": Reading("composition", "q_z", "highest"),
    "v_composition_z": Reading("composition", "v_z", "highest"),
    "k_composition": Reading("composition", "k_excess", "highest"),
    "q_composition": Reading("composition", "q_excess", "highest"),
    "v_composition": Reading("composition", "v_excess", "highest"),
    "qk_positivity": Reading("qk_matching", "score", "matching"),
    "ov_positivity": Reading("ov_copying", "score", "matching"),
    "qk_trace_z": Reading("qk_matching", "trace_z", "highest"),
    "top_change": Reading("load_bearing", "top_change"),
    "first_gain": Reading("additive_heads", "first_gain"),
    "rest_gain": Reading("additive_heads", "rest_gain"),
    "joint_change": Reading("load_bearing", "joint_change"),
    "joint_excess": Reading("load_bearing", "joint_excess"),
    "load_gain": Reading("load_bearing", "gain"),
    "output_recall": Reading("associative_recall", "output", "highest"),
    "key_recall": Reading("associative_recall", "keys", "highest"),
    "position_recall": Reading("associative_recall", "positions", "highest"),
    "kl_unigram": Reading("in_context_markov", "kl_unigram"),
    "kl_bigram": Reading("in_context_markov", "kl_bigram"),
    "bits_per_parameter": Reading("unintended_bits", "per_parameter"),
    "pool_whole_loss": Reading("exact_match", "whole_loss"),
    "fresh_whole_loss": Reading("exact_match", "whole_loss@twins"),
}


def series_rows(folder: Path, *, grid: str, arm: str, size: str) -> Iterator[Row]:
    """Facts and logged losses of one trained run, one row per written step.

    Args:
        folder: of the series.
        grid, arm, size: which run it is.

    Raises:
        ByroteError: there is no series, or its manifest says no seed.
    """
    manifest = read_manifest(folder)
    facts = facts_of(folder.name, folder, {"series": {"manifest": manifest}})
    model = manifest.get("model") or {}
    d_vocab = model.get("d_vocab")
    known: Row = {
        "grid": grid, "arm": arm, "size": size, "init_seed": facts.require("init_seed", run=str(folder), what_for="a table of runs"),
        "data_seed": facts.require("data_seed", run=str(folder), what_for="a table of runs"),
        "guess_nats": math.log(d_vocab - 1) if isinstance(d_vocab, int) and d_vocab > 1 else math.nan,
        "parameters_without_embeddings": _without_embeddings(facts.parameters, model),
    }  # fmt: skip
    known |= _of_data(manifest.get("data_facts"))
    source = manifest.get("source_facts")
    floor: Any = source.get("floor_nats") if isinstance(source, dict) else None
    known |= {"test_floor": float(floor)} if _is_number(floor) else {}
    names = ("repeat_frac", "epochs", "pool", "synthetic_share", "generation", "parameters")
    known |= {name: getattr(facts, name) for name in names}
    listed = manifest.get("checkpoints")
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or type(entry.get("step")) is not int:
            raise ByroteError(
                f"{folder} lists checkpoints without a step", help="train its grid again, in another folder"
            )
        losses = {name.removesuffix("_nats"): value for name, value in entry.items() if name.endswith(_LOSS)}
        parts = entry.get(_BY_MECHANISM)
        losses |= {
            f"{name}_part_loss": value for name, value in (parts if isinstance(parts, dict) else {}).items()
        }
        yield (
            known
            | {"step": entry["step"]}
            | {k: v for k, v in losses.items() if is_metric(k) and _is_number(v)}
        )


def _of_data(facts: Any) -> Row:
    """What the manifest says of the data that were trained on, such as `bigram_entropy_nats`, as metrics of the table."""
    if not isinstance(facts, dict):
        return {}
    names = {name: f"data_{name.removesuffix('_nats')}" for name in facts if isinstance(name, str)}
    return {
        names[name]: float(value)
        for name, value in facts.items()
        if name in names and is_metric(names[name]) and _is_number(value)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a series that was trained here.

    Raises:
        ByroteError: it is not there, or not complete.
    """
    try:
        manifest = read_json(folder / "manifest.json")
    except OSError as error:
        raise ByroteError(
            f"{folder} holds no series ({error.strerror or error})",
            help="train it: byrote reproduce trains what is missing",
        ) from None
    if manifest.get("status") != "complete":
        raise ByroteError(f"{folder} is not trained to its end", help="run the same command to resume it")
    return dict(manifest)


def _without_embeddings(parameters: int | None, model: Mapping[str, Any]) -> float:
    sizes = [model.get(name) for name in ("d_vocab", "n_ctx", "d_model")]
    if parameters is None or not all(isinstance(size, int) for size in sizes):
        return math.nan
    d_vocab, n_ctx, d_model = (int(size) for size in sizes if size is not None)
    return parameters - (2 * d_vocab + n_ctx) * d_model


def measured_rows(results: Results) -> dict[int, Row]:
    """What a results folder says of each step, as far as `READINGS` name it.

    Args:
        results: of one run.

    Returns:
        Step -> metric -> value; what was not measured is left out.
    """
    found: dict[int, Row] = {step: {} for step in results.steps}
    matching = _strongest(results)
    for name, reading in READINGS.items():
        if not results.has(reading.probe, reading.metric, valid=True):
            continue
        rows = results.select(reading.probe, reading.metric)
        rows = rows[rows["valid"] & rows["position"].isna()]
        if reading.of == "matching":
            places = zip(rows["step"], rows["layer"], rows["head"], strict=True)
            rows = rows[
                np.array([matching.get(step) == (layer, head) for step, layer, head in places], dtype=bool)
            ]
        for step, value in rows.groupby("step")["value"].max().items():
            found[int(step)][name] = float(value)
    return found


def _strongest(results: Results) -> dict[int, tuple[int, int]]:
    """(layer, head) of the head that matches prefixes most, by step."""
    if not results.has("prefix_matching", "score", valid=True):
        return {}
    rows = results.select("prefix_matching", "score")
    best = rows[rows["valid"]].sort_values("value").groupby("step").tail(1)
    return {int(row.step): (int(row.layer), int(row.head)) for row in best.itertuples()}


def with_measurements(rows: list[Row], results: Results | None) -> pd.DataFrame:
    """The rows of one run with what was measured on its steps."""
    measured = {} if results is None else measured_rows(results)
    return pd.DataFrame([row | measured.get(row["step"], {}) for row in rows])
