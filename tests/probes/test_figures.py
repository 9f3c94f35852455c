"""Figures without pixels: what is drawn, what it says, and what it never leaves out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pandas as pd
import plotly.graph_objects as go
import pytest
from paper_runs import N_SEQUENCES, PREFIX_CHANCE, STEPS, planted_comparison, planted_run, rebuilt, without

from byrote.checkpoints.errors import ByroteError
from byrote.probes import figures
from byrote.probes.comparable import Comparison
from byrote.probes.figures.axis import StepAxis, round_ticks, value_axis
from byrote.probes.figures.head_grid import spaced_steps
from byrote.probes.figures.lines import spread
from byrote.probes.figures.theme import TOKENS, run_styles
from byrote.probes.results import Results
from byrote.probes.wording import clean, estimate, interval, number

REASON = "no query has a target"


@pytest.fixture(scope="module")
def unique() -> Results:
    return planted_run()


@pytest.fixture(scope="module")
def repeated() -> Results:
    return planted_run("repeated", learns=False, seed=1)


@pytest.fixture(scope="module")
def comparison(unique: Results, repeated: Results) -> Comparison:
    return planted_comparison(unique, repeated)


@pytest.fixture(scope="module")
def every_figure(unique: Results, repeated: Results, comparison: Comparison) -> dict[str, go.Figure]:
    both = [unique, repeated]
    return {
        "head_grid": figures.head_grid(unique, probe="prefix_matching"),
        "grid_steps": figures.grid_steps(unique, probe="prefix_matching"),
        "trajectory": figures.trajectory(
            both, probe="prefix_matching", base="unique", onsets={"unique": (256, 320)}
        ),
        "heads": figures.trajectory(unique, probe="copying_logit", heads=["L1H0", (1, 2)]),
        "copy_curve": figures.copy_curve(both, base="unique"),
        "offset_profile": figures.offset_profile(unique),
        "loss_curves": figures.loss_curves(both, base="unique"),
        "differences": figures.differences(comparison),
        "difference_grid": figures.difference_grid(comparison, probe="prefix_matching"),
    }


def row_at(results: Results, probe: str, step: int, layer: int, head: int) -> pd.Series:
    frame = results.frame
    mine = frame[(frame["probe"] == probe) & (frame["metric"] == "score") & (frame["step"] == step)]
    return mine[(mine["layer"] == layer) & (mine["head"] == head)].iloc[0]


def trace(fig: go.Figure, name: str) -> go.Scatter:
    return next(t for t in fig.data if t.name == name)


def font_sizes(node: object, key: str = "") -> Iterator[float]:
    if isinstance(node, dict):
        for name, child in node.items():
            if name == "size" and key.endswith("font"):
                yield child
            yield from font_sizes(child, name)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from font_sizes(child, key)


def test_every_figure_states_its_finding_in_words(every_figure: dict[str, go.Figure]) -> None:
    for name, fig in every_figure.items():
        alt = fig.layout.meta["alt"]
        assert alt.endswith(".") and len(alt) > 40, name
        assert "<" not in alt and "_" not in alt, name


def test_every_figure_of_scores_says_interval_and_chance(every_figure: dict[str, go.Figure]) -> None:
    for name, fig in every_figure.items():
        words = fig.layout.title.subtitle.text
        assert "95% interval" in words, name
        if "difference" not in name:
            assert "chance" in words or "uniform attention" in words, name


def test_text_is_never_smaller_than_twelve_pixels(every_figure: dict[str, go.Figure]) -> None:
    for name, fig in every_figure.items():
        sizes = list(font_sizes(fig.to_plotly_json()))
        assert sizes and min(sizes) >= 12, name


def test_head_grid_shows_the_values_on_the_declared_range(unique: Results) -> None:
    fig = figures.head_grid(unique, probe="prefix_matching", step=2400)
    grid = fig.data[0]
    row = row_at(unique, "prefix_matching", 2400, 1, 0)
    assert grid.z[1][0] == row["value"]
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (0, 1)
    assert grid.text[1][0] == interval(row["value"], row["lo"], row["hi"]).replace(" [", "<br>[")
    assert grid.hovertext[1][0] == estimate(row, "L1H0")
    assert grid.hovertext[1][0].endswith(f"chance 0.031, n={N_SEQUENCES}")
    assert "0.031 chance" in fig.layout.coloraxis.colorbar.ticktext


def test_a_cell_that_was_not_measured_is_marked_and_never_zero(unique: Results) -> None:
    holed = without(unique, probe="prefix_matching", step=2400, layer=1, head=3, reason=REASON)
    fig = figures.head_grid(holed, probe="prefix_matching")
    assert fig.data[0].z[1][3] is None
    mark = trace(fig, "not measured")
    assert (list(mark.x), list(mark.y), mark.marker.symbol) == ([3], [1], "x-thin")
    assert mark.hovertext[0] == f"L1H3 not measured: {REASON}"
    assert "1 of 8 heads were not measured (L1H3)" in fig.layout.meta["alt"]


def test_a_head_without_any_row_is_marked_too(unique: Results) -> None:
    frame = unique.frame
    gone = rebuilt(unique, frame=frame[~((frame["layer"] == 0) & (frame["head"] == 2))])
    fig = figures.head_grid(gone, probe="prefix_matching")
    assert list(trace(fig, "not measured").x) == [2]
    assert "no row in these results" in trace(fig, "not measured").hovertext[0]


def test_a_value_outside_the_range_is_marked_as_clipped(unique: Results) -> None:
    frame = unique.frame.copy()
    at = (frame["probe"] == "prefix_matching") & (frame["metric"] == "score") & (frame["step"] == 2400)
    frame.loc[at & (frame["layer"] == 0) & (frame["head"] == 1), ["value", "lo", "hi"]] = 1.4
    fig = figures.head_grid(rebuilt(unique, frame=frame), probe="prefix_matching")
    assert (list(trace(fig, "clipped").x), list(trace(fig, "clipped").y)) == ([1], [0])


def test_ranges_below_zero_are_drawn_about_zero(unique: Results) -> None:
    axis = figures.head_grid(unique, probe="ov_copying").layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-1, 1)
    assert axis.colorscale != figures.head_grid(unique, probe="prefix_matching").layout.coloraxis.colorscale


def test_pages_draw_a_metric_without_a_declared_range_as_figures_do(unique: Results) -> None:
    z = unique.frame[unique.frame["probe"] == "ov_copying"].assign(metric="z")
    z["value"] = z["value"].abs()
    z.loc[z.index[5], "value"] = 40.0  # one value alone: no tail is cut off
    z.loc[z.index[7], ["value", "valid"]] = 90.0, False
    results = rebuilt(unique, frame=z)
    axis = figures.head_grid(results, probe="ov_copying", metric="z").layout.coloraxis
    assert results.cube("ov_copying", "z").limits == (axis.cmin, axis.cmax) and axis.cmax == 40.0


def test_grid_steps_share_one_scale_and_keep_the_rise(unique: Results) -> None:
    fig = figures.grid_steps(unique, probe="prefix_matching")
    grids = [t for t in fig.data if t.type == "heatmap"]
    shown = [int(a.text.removeprefix("step ").replace(",", "")) for a in fig.layout.annotations]
    assert 8 <= len(grids) <= 12 and len(shown) == len(grids)
    assert shown[0] == 0 and shown[-1] == 2400 and {384, 448} <= set(shown)
    assert {t.coloraxis for t in grids} == {"coloraxis"}
    assert grids[shown.index(448)].z[1][0] == row_at(unique, "prefix_matching", 448, 1, 0)["value"]


def test_grid_steps_draws_the_steps_it_is_given(unique: Results) -> None:
    fig = figures.grid_steps(unique, probe="previous_token", steps=[0, 512, 2400])
    assert [a.text for a in fig.layout.annotations] == ["step 0", "step 512", "step 2,400"]


def test_trajectory_draws_the_strongest_head_with_its_band_and_chance(
    unique: Results, repeated: Results
) -> None:
    fig = figures.trajectory([unique, repeated], probe="prefix_matching", base="unique")
    line = trace(fig, "unique L1H0")
    assert len(line.x) == len(STEPS)
    assert line.y[-1] == row_at(unique, "prefix_matching", 2400, 1, 0)["value"]
    assert "L1H0 " in line.hovertext[-1] or ", L1H0<br>" in line.hovertext[-1]
    assert set(trace(fig, "chance").y) == {PREFIX_CHANCE}
    assert trace(fig, "chance").line.dash == "dot"
    band = trace(fig, "95% interval")
    row = row_at(unique, "prefix_matching", 2400, 1, 0)
    assert {row["lo"], row["hi"]} <= set(band.y)
    assert [a.text for a in fig.layout.annotations if a.showarrow is not False] == [
        "unique L1H0",
        line_of(fig),
    ]


def line_of(fig: go.Figure) -> str:
    return next(t.name for t in fig.data if t.name.startswith("repeated"))


def test_the_baseline_is_dashed_black_and_white_in_the_dark(unique: Results, repeated: Results) -> None:
    fig = figures.trajectory([unique, repeated], probe="prefix_matching", base="unique")
    line = trace(fig, "unique L1H0").line
    assert (line.color, line.dash) == ("#000000", "dash")
    assert trace(figures.apply_theme(fig, "dark"), "unique L1H0").line.color == "#ffffff"
    assert run_styles(["a", "b", "c"], base="b")["c"].token == "series1"


def test_step_zero_stands_apart_and_other_steps_are_real(unique: Results) -> None:
    fig = figures.trajectory(unique, probe="prefix_matching")
    assert fig.layout.xaxis.type == "log"
    assert fig.layout.xaxis.ticktext[0] == "0" and 0 < fig.layout.xaxis.tickvals[0] < 1
    assert fig.layout.xaxis.ticktext[-1] == "2,400" and fig.layout.xaxis.tickvals[-1] == 2400
    assert list(trace(fig, "unique L1H0").x)[1:] == list(STEPS)[1:]
    assert "//" in [a.text for a in fig.layout.annotations]
    assert "//" not in [
        a.text for a in figures.trajectory(_from(unique, 1), probe="prefix_matching").layout.annotations
    ]


def _from(results: Results, step: int) -> Results:
    return rebuilt(results, frame=results.frame[results.frame["step"] >= step])


def test_steps_that_could_not_be_read_are_holes_with_a_reason(unique: Results) -> None:
    holed = rebuilt(
        unique, frame=unique.frame[unique.frame["step"] != 1024], gaps=[{"step": 1024, "reason": "truncated"}]
    )
    fig = figures.trajectory(holed, probe="prefix_matching")
    line = trace(fig, "unique L1H0")
    assert line.y[list(line.x).index(1024)] is None and line.connectgaps is False
    assert list(trace(fig, "not measured").x) == [1024]
    assert trace(fig, "not measured").hovertext[0].endswith("not measured: truncated")


def test_onsets_are_shaded_between_the_steps_of_their_bracket(
    unique: Results, comparison: Comparison
) -> None:
    fig = figures.trajectory(unique, probe="prefix_matching", onsets={"unique": comparison.onset_a})
    span = trace(fig, "onset of unique")
    assert comparison.onset_a.bracket == (256, 320)
    assert (min(span.x), max(span.x)) == (256, 320)
    assert "onset: steps 256–320" in [a.text for a in fig.layout.annotations]
    early = figures.trajectory(unique, probe="prefix_matching", onsets={"unique": (None, 1)})
    assert "onset: by step 1" in [a.text for a in early.layout.annotations]


def test_lines_of_one_run_differ_in_more_than_colour(unique: Results) -> None:
    fig = figures.trajectory(unique, probe="prefix_matching", heads=["L1H0", "L1H2", "L0H1"])
    lines = [trace(fig, name) for name in ("L1H0", "L1H2", "L0H1")]
    assert len({t.marker.symbol for t in lines}) == 3 and len({t.line.color for t in lines}) == 3


def test_labels_that_would_touch_are_pushed_apart(unique: Results, repeated: Results) -> None:
    fig = figures.loss_curves([unique, repeated])
    height = fig.layout.height - fig.layout.margin.t - fig.layout.margin.b
    low, high = fig.layout.yaxis.range
    places = sorted(
        (high - a.y) / (high - low) * height + a.ay
        for a in fig.layout.annotations
        if a.showarrow is not False
    )
    assert len(places) == 4
    assert min(b - a for a, b in itertools.pairwise(places)) >= 16.9


@pytest.mark.parametrize(
    ("wanted", "placed"),
    [
        ([0.0, 100.0], [0.0, 100.0]),
        ([50.0, 50.0], [45.0, 55.0]),
        ([50.0, 52.0, 48.0], [50.0, 60.0, 40.0]),
        ([0.0, 0.0, 0.0], [0.0, 10.0, 20.0]),
        ([100.0, 100.0], [90.0, 100.0]),
    ],
)
def test_spread_worked_by_hand(wanted: list[float], placed: list[float]) -> None:
    assert spread(wanted, gap=10, lo=0, hi=100) == pytest.approx(placed)


def test_copy_curve_has_one_point_per_copy_and_the_chance_level(unique: Results, repeated: Results) -> None:
    fig = figures.copy_curve([unique, repeated])
    assert list(trace(fig, "unique").x) == list(range(1, 12))
    assert trace(fig, "chance").y[0] == pytest.approx(math.log(127))
    assert trace(fig, "unique").y[-1] < 1.1 < trace(fig, "repeated").y[-1]


def test_offset_profile_draws_the_strongest_heads(unique: Results) -> None:
    fig = figures.offset_profile(unique)
    lines = [t for t in fig.data if t.name.startswith("L")]
    assert {t.name for t in lines} > {"L1H0", "L1H2"}
    profile = trace(fig, "L1H0")
    assert profile.x[max(range(len(profile.y)), key=lambda i: profile.y[i])] == 17
    assert "L1H0 peaks 17 tokens back" in fig.layout.meta["alt"]


def test_a_step_that_lint_left_out_is_ringed_in_the_offset_profile(unique: Results) -> None:
    doubtful = rebuilt(unique, lint={"left_out": {"2400": "diverged"}})
    fig = figures.offset_profile(doubtful, heads=["L1H0"])
    ringed = trace(fig, "left out by lint")
    assert len(ringed.x) == len(trace(fig, "L1H0").x) and ringed.marker.symbol == "circle-open"
    assert "left out by lint: diverged" in ringed.hovertext[0]
    assert "no head was measured" in fig.alt


def test_two_runs_whose_short_names_are_equal_are_two_lines_and_two_rows() -> None:
    runs = [planted_run(f"a_run_with_a_long_{middle}_name_at_its_end") for middle in ("first", "other")]
    fig = figures.trajectory(runs, probe="prefix_matching")
    lines = [t for t in fig.data if t.name.startswith("a_run")]
    assert len(lines) == 2 and lines[0].name == lines[1].name
    assert len(fig.table) == 2 * len(STEPS)


def test_a_change_grid_is_one_step_minus_another_and_marks_what_was_not_measured(unique: Results) -> None:
    holed = without(unique, probe="prefix_matching", step=2400, layer=1, head=3, reason=REASON)
    fig = figures.change_grid(holed, probe="prefix_matching", first=256)
    before, after = (row_at(unique, "prefix_matching", step, 1, 0)["value"] for step in (256, 2400))
    assert fig.data[0].z[1][0] == after - before
    assert fig.data[0].hovertext[1][0] == f"L1H0: {number(before)} to {number(after)}"
    assert (list(trace(fig, "not measured").x), list(trace(fig, "not measured").y)) == ([3], [1])
    assert trace(fig, "not measured").hovertext[0].endswith(" to –")
    assert "L1H0 of unique changes most" in fig.alt


def test_loss_curves_put_the_first_block_beside_the_repeats(unique: Results) -> None:
    fig = figures.loss_curves(unique)
    assert trace(fig, "unique: first").y[-1] > 4.5 > 1 > trace(fig, "unique: repeats").y[-1]
    assert trace(fig, "unique: first").marker.symbol != trace(fig, "unique: repeats").marker.symbol


def test_differences_grey_out_what_is_not_clear(comparison: Comparison) -> None:
    fig = figures.differences(comparison)
    unclear = [t for t in fig.data if t.name == "no clear change"]
    clear = [t for t in fig.data if t.name == "clear change"]
    for t in unclear:
        assert t.marker.color == TOKENS["paper"][0]
        for x, more, less in zip(t.x, t.error_x.array, t.error_x.arrayminus, strict=True):
            assert x - less <= 0 <= x + more
    for t in clear:
        for x, more, less in zip(t.x, t.error_x.array, t.error_x.arrayminus, strict=True):
            assert not x - less <= 0 <= x + more
    assert sum(len(t.x) for t in unclear) and sum(len(t.x) for t in clear)
    assert len([t for t in fig.data if t.name == "zero"]) == len(
        [k for k in fig.layout if k.startswith("xaxis")]
    )


def test_an_interval_that_holds_zero_is_no_clear_change_whatever_the_row_says(comparison: Comparison) -> None:
    rows = comparison.rows.assign(lo=-1.0, hi=1.0, change="worse")
    fig = figures.differences(Comparison(**{**vars(comparison), "rows": rows}))
    assert {t.name for t in fig.data} == {"zero", "no clear change"}
    assert not any("worse" in a.text for a in fig.layout.annotations)


def test_differences_name_the_largest_and_the_strongest_heads(comparison: Comparison) -> None:
    fig = figures.differences(comparison)
    labels = [label for key in fig.layout if key.startswith("yaxis") for label in fig.layout[key].ticktext]
    assert {
        "prefix matching, strongest head",
        "prefix matching L1H0",
        "copying logit L1H2",
        "repeat loss, later blocks",
    } <= set(labels)
    assert "prefix matching L0H0" not in labels


def test_a_comparison_of_nothing_says_so(comparison: Comparison) -> None:
    fig = figures.differences(Comparison(**{**vars(comparison), "rows": comparison.rows.head(0)}))
    assert "Nothing to draw" in fig.layout.meta["alt"] and not fig.data


def test_difference_grid_is_centred_on_zero(comparison: Comparison) -> None:
    fig = figures.difference_grid(comparison, probe="prefix_matching")
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (-1, 1)
    grid = fig.data[0]
    assert grid.z[1][0] == pytest.approx(-0.78, abs=0.05)
    assert grid.text[0][0].startswith("(") and not grid.text[1][0].startswith("(")
    assert grid.hovertext[1][0].endswith(f"n={N_SEQUENCES}, lower")


def test_themes_differ_in_colours_only_and_go_back_and_forth(every_figure: dict[str, go.Figure]) -> None:
    for name, fig in every_figure.items():
        dark = figures.apply_theme(fig, "dark")
        assert dark.layout.template.layout.paper_bgcolor == TOKENS["paper"][1], name
        assert figures.apply_theme(dark, "dark").to_plotly_json() == dark.to_plotly_json(), name
        assert figures.apply_theme(dark, "light").to_plotly_json() == fig.to_plotly_json(), name
        assert [t.name for t in dark.data] == [t.name for t in fig.data], name


def test_a_run_named_like_a_colour_keeps_its_name() -> None:
    named = planted_run(TOKENS["series0"][0])
    dark = figures.apply_theme(figures.trajectory(named, probe="prefix_matching"), "dark")
    assert f"{TOKENS['series0'][0]} L1H0" in [t.name for t in dark.data]


def test_names_are_shown_letter_by_letter() -> None:
    hostile = planted_run("</b><img src=x>\u202e\n")
    fig = figures.trajectory(hostile, probe="prefix_matching")
    text = go.Figure(fig).update_layout(meta=None).to_json()  # the alt text is plain text, not markup
    assert "<img" not in text and "\\u003cimg" not in text and "\u202e" not in text
    assert "&lt;img" in text


def test_unknown_names_are_refused_with_the_nearest(unique: Results, comparison: Comparison) -> None:
    def refused(call: Callable[[], object]) -> str:
        with pytest.raises(ByroteError) as caught:
            call()
        return str(caught.value)

    assert "'prefix_matching'" in refused(lambda: figures.head_grid(unique, probe="prefix_match"))
    assert "L7H7" in refused(lambda: figures.head_grid(unique, probe="prefix_matching", highlight="L7H7"))
    assert "'sink_free'" in refused(
        lambda: figures.head_grid(unique, probe="prefix_matching", metric="sink_fre")
    )
    assert "nearest: 896, 1,024" in refused(
        lambda: figures.head_grid(unique, probe="prefix_matching", step=1000)
    )
    assert "there is no head L9H9" in refused(
        lambda: figures.trajectory(unique, probe="prefix_matching", heads=["L9H9"])
    )
    assert "'max head'" in refused(
        lambda: figures.trajectory(unique, probe="prefix_matching", aggregate="max heads")
    )
    assert "'dark'" in refused(lambda: figures.apply_theme(go.Figure(), "darkk"))
    assert "holds no" in refused(lambda: figures.difference_grid(comparison, probe="nothing"))


def test_pairs_of_heads_are_not_drawn_as_single_heads(unique: Results, comparison: Comparison) -> None:
    frame = unique.frame.assign(src_layer=0, src_head=1)
    for draw in (figures.head_grid, figures.grid_steps, figures.trajectory):
        with pytest.raises(ByroteError, match="pairs of heads"):
            draw(rebuilt(unique, frame=frame), probe="ov_copying")
    rows = comparison.rows
    pairs = pd.concat([rows, rows[rows["probe"] == "ov_copying"]], ignore_index=True)
    fig = figures.differences(Comparison(**{**vars(comparison), "rows": pairs}))
    labels = [label for key in fig.layout if key.startswith("yaxis") for label in fig.layout[key].ticktext]
    assert not any(label.startswith("OV copying") for label in labels)


def test_step_axis_worked_by_hand() -> None:
    axis = StepAxis.over([1000, 0, 10, 100])
    assert axis.steps == (0, 10, 100, 1000)
    assert axis.zero_at == pytest.approx(10 / 10**0.25)
    assert axis.place(0) == axis.zero_at and axis.place(100) == 100
    assert axis.ticks() == (0, 10, 100, 1000)
    assert StepAxis.over([5, 50]).zero_at is None


def test_step_ticks_never_touch() -> None:
    axis = StepAxis.over([0, *range(100, 10_001, 100)])
    places = [math.log10(axis.place(s)) for s in axis.ticks()]
    lo, hi = axis.limits()
    assert axis.ticks()[0] == 0 and axis.ticks()[-1] == 10_000
    assert min(b - a for a, b in itertools.pairwise(places)) >= 0.065 * (hi - lo) - 1e-9


def test_spaced_steps_keep_ends_and_events() -> None:
    chosen = spaced_steps(range(0, 10_000, 10), most=10, keep=[4320, 4330, 77])
    assert len(chosen) == 10 and chosen[0] == 0 and chosen[-1] == 9990
    assert {4320, 4330} <= set(chosen) and 77 not in chosen
    assert spaced_steps([3, 1, 2]) == [1, 2, 3]


def test_round_ticks_and_value_axis() -> None:
    assert round_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert round_ticks(-1, 1) == [-1, -0.5, 0, 0.5, 1]
    assert value_axis(-1, 1, title="t")["ticktext"] == ["−1.0", "−0.5", "0.0", "0.5", "1.0"]


@pytest.mark.parametrize(
    ("value", "lo", "hi", "text"),
    [
        (0.8123, 0.78, 0.84, "0.81 [0.78, 0.84]"),
        (0.8123, 0.8103, 0.8144, "0.812 [0.810, 0.814]"),
        (4.8512, 4.8482, 4.8551, "4.85 [4.85, 4.86]"),
        (12345.0, 12000.0, 13000.0, "12,300 [12,000, 13,000]"),
        (-0.0001, -0.02, 0.02, "0.00 [−0.02, 0.02]"),
        (0.7, 0.7, 0.7, "0.700 [exact]"),
        (0.31, 0.16, 0.62, "0.31 [0.16, 0.62]"),
    ],
)
def test_numbers_have_the_digits_their_interval_deserves(
    value: float, lo: float, hi: float, text: str
) -> None:
    assert interval(value, lo, hi) == text


def test_numbers_that_are_none_or_tiny() -> None:
    assert number(None) == number(math.nan) == number(math.inf) == "–"
    assert number(0.0) == "0" and number(-0.00001) == "−1.0e−05"
    assert number(0.5, sign=True) == "+0.500"


def test_clean_text_is_one_visible_line() -> None:
    assert clean("a\nb\x00\u202ec") == "a b\ufffd\ufffdc"
    assert clean("x" * 300, limit=21) == "x" * 10 + "…" + "x" * 10
