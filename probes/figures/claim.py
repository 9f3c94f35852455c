"""A claim's runs: the metric it is judged by, for every arm and seed, with the mean of each arm and its interval over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from byrote.checkpoints.errors import ByroteError
from byrote.probes.degrade.capacity import capacity as capacity_of
from byrote.probes.degrade.capacity import extraction_threshold
from byrote.probes.figures.axis import StepAxis, axis_layout, log_axis, value_axis
from byrote.probes.figures.canvas import FULL, Canvas, Figure, Look, Trace, finish, scatter
from byrote.probes.figures.doses import size_line
from byrote.probes.figures.lines import Line, end_labels, label_margin_px, lines_figure
from byrote.probes.figures.memorised import capacity, extraction
from byrote.probes.figures.theme import Style, paint, run_styles, tint
from byrote.probes.findings_degrade import SIZE_WORDS, capacity_sentence, extraction_sentence
from byrote.probes.seed_statistics import mean_over_seeds
from byrote.probes.wording import clean, count, counted, interval, markup, number, step_number

if TYPE_CHECKING:
    from byrote.probes.claims.judging import Judgement
    from byrote.probes.claims.runs_table import Place, Runs

FACT_WORDS = {
    "epochs": "times each repeated sequence is seen",
    "synthetic_share": "share of the data that is synthetic",
}
METRIC_WORDS = {
    "test_loss": "loss on fresh data, nats",
    "copy_loss": "loss on copied tokens, nats",
    "pool_loss": "loss on the pool, nats",
    "excess_risk": "excess risk",
    "data_rep_2_frac": "rep-2, share of bigrams",
    "extracted": "share extracted",
    "next_extracted": "share going on, above never planted",
    "recall_of_final": "recall of what is extracted at last",
    "precision_for_final": "precision for what is extracted at last",
    "prefix_matching": "prefix matching, strongest head",
    "pool_whole_loss": "loss on the pool, all tokens, nats",
    "copy_start_part_loss": "loss on first tokens of copies, nats",
    "copies_gain": "loss on the second copy minus the last, nats",
    "pair_log_odds": "pair_log_odds, nats of log odds",
    "skip_log_odds": "log_odds, nats of log odds",
    "copy_gain": "later copies minus the first, nats",
    "table_part_loss": "loss on tokens of the table, nats",
    "rare_table_part_loss": "loss on rare tokens, nats",
    "data_bigram_entropy": "entropy of bigrams, nats",
    "kl_unigram": "KL to the unigram, nats",
    "joint_change": "lost without induction heads, nats",
    "k_composition": "K-composition above its rotations, highest",
    "k_composition_z": "K-composition, highest z",
    "first_gain": "saved by the strongest head alone, nats",
    "top_change": "lost without the strongest head, nats",
    "position_recall": "positions before that are recalled, fraction",
    "key_recall": "tokens that key memory recalls, fraction",
    "qk_positivity": "positivity of the QK circuit",
    "qk_trace_z": "trace of the QK circuit, z",
    "data_induction_signal_frac": "repeats that the text's bigrams do not predict, share of tokens",
}


def claim(table: pd.DataFrame, of: str | Judgement, *, look: Look = FULL) -> Figure:
    """The runs that a claim is judged by.

    Args:
        table: of the runs, see `byrote.probes.claims.runs_table`.
        of: name of the claim, which is judged with all claims of its paper; or its judgement.
        look: theme and width.

    Returns:
        Doses or arms on x, training steps, or the size of the model; the metric on y; a thin line or a dot per seed, the mean of each
        arm with its 95% interval over seeds. Of sizes the runs without repeats are a line, and all others stand where they are on it.

    Raises:
        ByroteError: there is no such claim, it cannot be tested and has no runs, or its runs are not in the table.
    """
    judged = _judged(of, table) if isinstance(of, str) else of
    picture = judged.claim.picture
    if picture is None:
        raise ByroteError(
            f"{judged.claim.name} has no runs to draw: {judged.claim.untestable}", help="draw another claim"
        )
    from byrote.probes.claims.runs_table import Runs

    runs = Runs(table)
    if picture.kind in _OF_DEGRADATION:
        return _OF_DEGRADATION[picture.kind](judged, runs, look)
    draw = {"steps": _over_steps, "onsets": _onsets}.get(picture.kind, _by_arm)
    labels = picture.labels or tuple(
        _label(place, runs, picture.fact if picture.kind == "doses" else "") for place in picture.places
    )
    return draw(judged, runs, picture.places, labels, look)


def _judged(name: str, table: pd.DataFrame) -> Judgement:
    from byrote.probes.claims.catalogue import chosen
    from byrote.probes.claims.judging import judge_claims

    (claim,) = chosen([name])[:1]
    found = judge_claims(chosen([claim.paper]), table)
    return next(judged for judged in found if judged.claim.name == name)


def _label(place: Place, runs: Runs, fact: str) -> str:
    value = runs.fact(place, fact) if fact else np.nan
    if not np.isfinite(value) or value == 0:
        return place.arm
    return count(value) if value.is_integer() else number(value)


def _by_arm(
    judged: Judgement, runs: Runs, places: Sequence[Place], labels: Sequence[str], look: Look
) -> Figure:
    """Final values: a dot per seed, a bar for the interval of each mean, a line through the means of doses."""
    picture = judged.claim.picture
    assert picture is not None, "checked by the caller"
    seeds = runs.seeds(*places)
    values = np.stack([runs.final(place, picture.metric, seeds) for place in places], axis=1)
    rows = [_mean(values[:, k]) | {"arm": places[k].arm, "label": labels[k]} for k in range(len(places))]
    traces: list[Trace] = [
        scatter(f"seed {seed[0]}", list(range(len(places))), values[i].tolist(),
                marker={"size": 5, "color": tint("series0", 0.55), "symbol": "circle"}, line=_thin(joined=picture.kind == "doses"),
                hover=[f"{markup(label)}, seed {seed[0]}<br>{number(v)}" for label, v in zip(labels, values[i].tolist(), strict=True)])
        for i, seed in enumerate(seeds)
    ]  # fmt: skip
    for k, row in enumerate(rows):
        traces.append(
            scatter("95% interval", [k, k], [row["lo"], row["hi"]], line={"color": paint("ink"), "width": 2})
        )
    traces.append(
        scatter("mean", list(range(len(places))), [row["value"] for row in rows],
                marker={"size": 8, "color": paint("ink"), "symbol": "diamond"},
                line={"color": paint("ink"), "width": 2} if picture.kind == "doses" else None,
                hover=[f"{markup(r['label'])}, mean of {len(seeds)}<br>{interval(r['value'], r['lo'], r['hi'])}" for r in rows])
    )  # fmt: skip
    title = FACT_WORDS[picture.fact] if picture.kind == "doses" else ""
    x_axis = axis_layout(
        (-0.5, len(places) - 0.5),
        list(range(len(places))),
        [clean(one, limit=14) for one in labels],
        title=title,
    )
    y_axis = value_axis(*_ends(values), title=_words(picture.metric))
    fig = Figure({"data": traces, "layout": {"xaxis": x_axis, "yaxis": y_axis}})
    alt = (
        f"{_head(judged)} Means: "
        + "; ".join(f"{r['label']} {interval(r['value'], r['lo'], r['hi'])}" for r in rows)
        + "."
    )
    return finish(
        fig, Canvas(height_px=380), title=markup(judged.claim.name), subtitle=_below(judged, len(seeds)), alt=alt, look=look,
        table=lambda: pd.DataFrame([{name: row[name] for name in ("arm", "label", "value", "lo", "hi", "n")} for row in rows]),
    )  # fmt: skip


def _onsets(
    judged: Judgement, runs: Runs, places: Sequence[Place], labels: Sequence[str], look: Look
) -> Figure:
    """When copying appears against a fact of each arm's data: a dot per run, the mean of each arm with its interval."""
    from byrote.probes.claims.seed_effects import copying_onset

    picture = judged.claim.picture
    assert picture is not None, "checked by the caller"
    seeds = runs.seeds(*places)
    last = max(float(runs.curve(place, "copy_loss", seeds[0])[0][-1]) for place in places)
    x = np.stack([runs.final(place, picture.metric, seeds) for place in places])
    y = np.stack([copying_onset(runs, place, seeds) for place in places])
    never, y = np.isinf(y), np.minimum(y, last)
    rows = [
        _mean(y[k]) | {"arm": label, "label": number(float(x[k].mean()))} for k, label in enumerate(labels)
    ]
    traces: list[Trace] = []
    for k, (label, row) in enumerate(zip(labels, rows, strict=True)):
        middle, late = float(x[k].mean()), int(never[k].sum())
        hover_text = f"{markup(label)}<br>step {interval(row['value'], row['lo'], row['hi'])}" + (
            f"<br>{late} of {len(seeds)} never" if late else ""
        )
        dots = {"size": 5, "color": tint("series0", 0.55), "symbol": "circle"}
        traces.append(scatter(f"{markup(label)}, runs", x[k].tolist(), y[k].tolist(), marker=dots))
        line = {"color": paint("ink"), "width": 2}
        traces.append(scatter("95% interval", [middle, middle], [row["lo"], row["hi"]], line=line))
        mean = {"size": 8, "color": paint("ink"), "symbol": "diamond"}
        traces.append(scatter(markup(label), [middle], [row["value"]], marker=mean, hover=[hover_text]))
    ends = np.concatenate([y.ravel(), [row[end] for row in rows for end in ("lo", "hi")]])
    notes = [
        {"x": float(x[k].mean()), "y": row["value"], "text": markup(label), "showarrow": False, "xshift": 8, "xanchor": "left"}
        for k, (label, row) in enumerate(zip(labels, rows, strict=True))
    ]  # fmt: skip
    x_lo, x_hi = _ends(x)
    layout = {
        "xaxis": value_axis(x_lo, x_hi + 0.12 * (x_hi - x_lo), title=_words(picture.metric)),
        "yaxis": value_axis(*_ends(ends), title="step at which copying appears"),
        "annotations": notes,
    }
    at = "; ".join(f"{r['arm']} {r['label']}: {interval(r['value'], r['lo'], r['hi'])}" for r in rows)
    none = f" {int(never.sum())} runs never copy and stand at the last step." if never.any() else ""
    return finish(
        Figure({"data": traces, "layout": layout}), Canvas(height_px=420), title=markup(judged.claim.name),
        subtitle=_below(judged, len(seeds)), alt=f"{_head(judged)} Share and step: {at}.{none}", look=look,
        table=lambda: pd.DataFrame([{name: row[name] for name in ("arm", "label", "value", "lo", "hi", "n")} for row in rows]),
    )  # fmt: skip


def _over_steps(
    judged: Judgement, runs: Runs, places: Sequence[Place], labels: Sequence[str], look: Look
) -> Figure:
    """Curves: a thin line per seed, and the mean of each arm with its band."""
    picture = judged.claim.picture
    assert picture is not None, "checked by the caller"
    seeds = runs.seeds(*places)
    curves = {place: [runs.curve(place, picture.metric, seed) for seed in seeds] for place in places}
    axis = StepAxis.over(int(s) for found in curves.values() for steps, _ in found for s in steps)
    styles = run_styles(list(labels), base=labels[0])
    thin, lines = list[Trace](), list[Line]()
    for place, label in zip(places, labels, strict=True):
        common = sorted(set.intersection(*(set(steps.tolist()) for steps, _ in curves[place])))
        values = np.stack([v[np.isin(s, common)] for s, v in curves[place]])
        thin += [
            _thin_curve(f"seed {seed[0]}", axis, common, row, styles[label])
            for seed, row in zip(seeds, values, strict=True)
        ]
        rows = pd.DataFrame([_mean(values[:, k]) | {"step": int(step)} for k, step in enumerate(common)])
        rows = rows.assign(chance=np.nan, valid=True, left_out=False, reason="", layer=pd.NA, head=pd.NA)
        at = [f"step {step_number(step)}" for step in rows["step"]]
        lines.append(
            Line.of(rows, [axis.place(step) for step in common], label=label, at=at, style=styles[label])
        )
    drawn = np.concatenate([v for found in curves.values() for _, v in found])
    y_axis = value_axis(*_ends(drawn), title=_words(picture.metric))
    canvas = Canvas(height_px=400, right_px=label_margin_px(labels))
    traces = [*thin, *(trace for line in lines for trace in line.traces(floor=y_axis["range"][0]))]
    notes = end_labels(lines, height_px=canvas.plot_px, y_range=y_axis["range"], log_x=True)
    x_axis = axis.layout()
    x_axis["title"]["text"] = x_axis["title"]["text"].replace("training step", picture.step)
    fig = Figure(
        {
            "data": traces,
            "layout": {"xaxis": x_axis, "yaxis": y_axis, "annotations": [*notes, *axis.break_mark()]},
        }
    )
    text = "; ".join(f"{line.label} {number(line.rows['value'].iloc[-1])}" for line in lines)
    return finish(
        fig, canvas, title=markup(judged.claim.name), subtitle=_below(judged, len(seeds)), look=look,
        alt=f"{_head(judged)} At the last step: {text}.",
        table=lambda: pd.concat([line.rows.assign(arm=line.label)[["arm", "step", "value", "lo", "hi", "n"]] for line in lines], ignore_index=True),
    )  # fmt: skip


def _extraction(judged: Judgement, runs: Runs, look: Look) -> Figure:
    """The share extracted of what was planted against duplicates, as `byrote degrade` draws it."""
    assert judged.claim.picture is not None, "checked by the caller"
    places = [place for place in judged.claim.picture.places if runs.fact(place, "epochs") > 0]
    seeds, parts = runs.seeds(*places), []
    for place in places:
        share, members = (
            runs.final(place, name, seeds) for name in (judged.claim.picture.metric, "n_members")
        )
        columns = {
            "run": [str(seed) for seed in seeds],
            "members": np.round(members),
            "extracted": np.round(share * members),
        }
        parts.append(pd.DataFrame(columns | {"duplicates": runs.fact(place, "epochs")}))
    found = extraction_threshold(pd.concat(parts))
    return extraction(found, title=markup(judged.claim.name), subtitle=_below(judged, found.seeds), look=look,
                      alt=f"{_head(judged)} {extraction_sentence(found)}")  # fmt: skip


def _capacity(judged: Judgement, runs: Runs, look: Look) -> Figure:
    """Bits per parameter against the number of sequences, a line per size, as `byrote degrade` draws it."""
    picture = judged.claim.picture
    assert picture is not None, "checked by the caller"
    found, seeds = {}, runs.seeds(*picture.places)
    for size in dict.fromkeys(place.size for place in picture.places):
        mine = [place for place in picture.places if place.size == size]
        rows = [
            {"run": f"{place.arm} {seed}", "pool": runs.fact(place, "pool"), "init_seed": seed[0], "data_seed": seed[1],
             "samples": None, "value": value}
            for place in mine for seed, value in zip(seeds, runs.final(place, picture.metric, seeds), strict=True)
        ]  # fmt: skip
        found[size] = capacity_of(pd.DataFrame(rows))
    text = " ".join(capacity_sentence(one, size) for size, one in found.items())
    return capacity(found, title=markup(judged.claim.name), subtitle=_below(judged, len(seeds)), look=look,
                    alt=f"{_head(judged)} {text}")  # fmt: skip


def _on_ladder(judged: Judgement, runs: Runs, look: Look) -> Figure:
    """Final values over parameters: the ladder as a line with its band, every other place a point, and a dot per seed."""
    picture = judged.claim.picture
    assert picture is not None, "checked by the caller"
    places = (*picture.places, *picture.beside)
    seeds = runs.seeds(*places)
    values = [runs.final(place, picture.metric, seeds) for place in places]
    means = pd.DataFrame([
        _mean(v) | {"arm": place.arm, "label": place.size, "parameters": runs.fact(place, "parameters")}
        for place, v in zip(places, values, strict=True)
    ])  # fmt: skip
    arms = list(dict.fromkeys(means["arm"]))
    styles = run_styles(arms, base=picture.places[0].arm)
    lines = list[Line]()
    for arm in arms:
        mine = means[means["arm"] == arm].sort_values("parameters")
        numbers = {name: mine[name].tolist() for name in ("lo", "hi", "n")}
        lines.append(
            size_line(arm, mine["parameters"].tolist(), mine["value"].tolist(), styles[arm], **numbers)
        )
    dots = [
        scatter(f"seeds of {place.arm} {place.size}", [n] * len(v), v.tolist(),
                marker={"size": 4, "color": styles[place.arm].color, "symbol": "circle", "opacity": 0.5})
        for place, v, n in zip(places, values, means["parameters"].tolist(), strict=True)
    ]  # fmt: skip
    bars = [
        scatter("95% interval", [row.parameters] * 2, [row.lo, row.hi], line={"color": styles[row.arm].color, "width": 2})
        for row in means[len(picture.places) :].itertuples()
    ]  # fmt: skip
    ends = _ends(np.concatenate([*values, means[["lo", "hi"]].to_numpy().ravel()]))
    sizes = sorted(set(means["parameters"]))
    text = "; ".join(
        f"{row.arm} at {number(row.parameters)} parameters {interval(row.value, row.lo, row.hi)}"
        for row in means.itertuples()
    )
    return lines_figure(
        lines, x_axis=log_axis(sizes, [count(n) for n in sizes], title=SIZE_WORDS["parameters"]),
        y_axis=value_axis(*ends, title=_words(picture.metric)), height_px=400, by=(), under=[*dots, *bars],
        title=markup(judged.claim.name), subtitle=_below(judged, len(seeds)), look=look, alt=f"{_head(judged)} Means: {text}.",
        table=lambda: means[["arm", "label", "parameters", "value", "lo", "hi", "n"]],
    )  # fmt: skip


_OF_DEGRADATION = {"extraction": _extraction, "capacity": _capacity, "ladder": _on_ladder}


def _mean(values: Float[np.ndarray, " seeds"]) -> dict[str, Any]:
    found = mean_over_seeds(values)
    return {"value": found.value, "lo": found.lo, "hi": found.hi, "n": len(values)}


def _thin(*, joined: bool) -> dict[str, Any] | None:
    return {"color": tint("series0", 0.45), "width": 1} if joined else None


def _thin_curve(
    name: str, axis: StepAxis, steps: Sequence[float], values: Float[np.ndarray, " steps"], style: Style
) -> Trace:
    line = {"color": tint(style.token, 0.45), "width": 1, "dash": style.dash}
    return scatter(name, [axis.place(step) for step in steps], values.tolist(), line=line)


def _ends(values: Float[np.ndarray, "*k"]) -> tuple[float, float]:
    lo, hi = float(values.min()), float(values.max())
    room = 0.05 * (hi - lo) or 0.5
    return lo - room, hi + room


def _words(metric: str) -> str:
    return METRIC_WORDS.get(metric, metric.replace("_", " "))


def _head(judged: Judgement) -> str:
    return f"{clean(judged.claim.name)}: {judged.word}."


def _below(judged: Judgement, n: int) -> str:
    verdict = judged.verdict
    text = (
        ""
        if verdict is None
        else f" · effect {interval(verdict.value, verdict.lo, verdict.hi)} {markup(judged.claim.unit)}"
    )
    return f"{judged.word}{text} · {counted(n, 'seed')}, means with 95% intervals"
