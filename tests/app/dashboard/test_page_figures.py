"""What pages do to figures before they show them, and the example they open on."""

from __future__ import annotations

import itertools
import tarfile

import numpy as np
import pytest
from pandas import DataFrame

from byrote.checkpoints.errors import ByroteError
from byrote.dashboard.components.base import LEVELS, encode
from byrote.dashboard.components.head_grid import cell_decimals
from byrote.dashboard.library import PACKED, Library, or_example
from byrote.dashboard.page import with_chips
from byrote.probes.figures.axis import StepAxis, value_axis
from byrote.probes.figures.canvas import FULL, SUBTITLE_CHARS, TITLE_CHARS, Canvas, Figure, Look, finish
from byrote.probes.figures.forest import ForestRow, Mark, Panel, forest


def figure(title: str, subtitle: str, look: Look = FULL, axis: StepAxis | None = None) -> Figure:
    fig = Figure(layout={"xaxis": axis.layout()} if axis else {})
    return finish(fig, Canvas(height_px=300), title=title, subtitle=subtitle, alt="nothing", look=look)


def test_long_titles_are_broken_and_the_plot_keeps_its_height():
    title = "rep64_s0 minus unique_s0, paired on the same sequences"
    subtitle = "bar: 95% interval of the paired difference · grey and hollow: no clear change"
    fig = figure(title, subtitle, Look(width="page"))
    lines, below = fig.layout.title.text.split("<br>"), fig.layout.title.subtitle.text.split("<br>")
    assert " ".join(lines) == title
    assert " ".join(below) == subtitle
    assert len(lines) == len(below) == 2
    assert max(map(len, lines)) <= TITLE_CHARS
    assert max(map(len, below)) <= SUBTITLE_CHARS
    plain = figure(title, subtitle).layout
    assert fig.layout.height - fig.layout.margin.t == plain.height - plain.margin.t
    assert fig.layout.height > plain.height


def test_short_titles_stay_as_they_are_and_entities_count_as_one_letter():
    title, subtitle = "a &lt;b&gt; " * 4, "dotted: chance 0.05"
    assert figure(title, subtitle, Look(width="page")).layout.title == figure(title, subtitle).layout.title


@pytest.mark.parametrize("width", ["page", "half"])
def test_on_a_page_labels_are_level_and_do_not_touch_and_the_first_and_the_last_are_among_them(width):
    axis = StepAxis.over([0, *(2**i for i in range(20))])
    drawn = figure("t", "s", Look(width=width), axis).layout
    labels = [(s, text) for s, text in zip(axis.ticks(), drawn.xaxis.ticktext, strict=True) if text]
    assert (labels[0][1], labels[-1][1]) == ("0", "524,288")
    assert drawn.xaxis.tickangle == 0 and len(drawn.xaxis.tickvals) == len(axis.ticks()) > len(labels) > 5
    room = 480 - drawn.margin.l - drawn.margin.r
    for (a, left), (b, right) in itertools.pairwise(labels):
        assert room * (axis.share(b) - axis.share(a)) > 6 * (len(left) + len(right)) / 2  # pixels


def test_labels_of_an_even_axis_stay_even_with_zero_among_them():
    fig = Figure({"layout": {"xaxis": value_axis(-1, 0.5, title="t")}})
    said = {"title": "t", "subtitle": "s", "alt": "a"}
    drawn = finish(fig, Canvas(height_px=300, left_px=320), look=Look(width="page"), **said)
    assert drawn.layout.xaxis.ticktext == ("−1.00", "", "−0.50", "", "0.00", "", "0.50")


def test_a_look_that_there_is_not_is_refused():
    with pytest.raises(ByroteError, match="no theme 'drak'"):
        Look("drak")
    with pytest.raises(ByroteError, match="no width 'narrow'"):
        Look(width="narrow")


@pytest.mark.parametrize(
    ("limits", "places"), [((0.0, 1.0), 2), ((-1.0, 1.0), 2), ((0.0, 10.0), 1), ((0.0, 500.0), 0)]
)
def test_a_cell_of_the_grid_reads_as_the_table_does(limits, places):
    assert cell_decimals(limits) == places
    values = np.linspace(*limits, 9_973)
    sent = limits[0] + encode(values, limits).astype(float) / LEVELS * (limits[1] - limits[0])
    differ = np.round(sent, places) != np.round(values, places)
    assert differ.mean() < 0.01  # where the value lies on the border between two roundings


EXAMPLE = {f"{arm}-d32-seed0" for arm in ("unique", "control", "repeated", "synthetic")}


def test_the_example_is_small_stays_in_its_folder_and_tells_of_no_machine(tmp_path):
    assert PACKED.stat().st_size < 600_000
    with tarfile.open(PACKED) as packed:
        names = packed.getnames()
        assert all(member.isfile() or member.isdir() for member in packed)
        packed.extractall(tmp_path, filter="data")
    assert not [name for name in names if name.startswith("/") or ".." in name]
    for file in tmp_path.rglob("run.json"):
        assert '"/' not in file.read_text(encoding="utf-8")
    shown = or_example(Library(paths=(tmp_path,)))
    assert (set(shown.runs), shown.is_example, shown.paths) == (EXAMPLE, True, (tmp_path,))
    assert {run.facts.arm for run in shown.runs.values()} == {"unique", "control", "repeated", "synthetic"}
    assert all(run.steps == [0, 125, 375, 500, 625, 1000] for run in shown.runs.values())


def test_names_of_runs_in_a_title_are_chips_and_nothing_in_it_is_markup():
    runs = {"rep": False, "rep-2": True, "a*b": False}
    said = with_chips("rep-2 and a*b, reps of rep", runs)
    assert said == r":gray-badge[rep\-2] and :blue-badge[a\*b], reps of :blue-badge[rep]"
    assert with_chips("*none*", runs) == r"\*none\*"


def test_on_a_page_the_words_of_a_forest_stand_below_its_labels_and_the_plot_gains_their_room():
    row = ForestRow("loss & more", (Mark("m", 1.0, 0.5, 1.5, "#000", ""),), "+1.0 [0.5, 1.5]  higher")
    drawn = {
        width: forest([Panel((row,), "nats")], title="t", subtitle="s", alt="a", look=Look(width=width), table=DataFrame)
        for width in ("full", "page")
    }  # fmt: skip
    assert drawn["full"].layout.yaxis.ticktext == ("loss &amp; more",)
    assert drawn["page"].layout.yaxis.ticktext == ("loss &amp; more<br>+1.0 [0.5, 1.5]  higher",)
    sides = {width: fig.layout.margin.l + fig.layout.margin.r for width, fig in drawn.items()}
    assert sides["page"] < sides["full"] and not drawn["page"].layout.annotations
