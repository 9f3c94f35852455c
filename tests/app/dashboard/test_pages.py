"""Every page: from a full link, with nothing to show, beside a broken folder, and from a bad link."""

from __future__ import annotations

import json

import pytest
from planted_series import damage, rising, whole, write_results
from streamlit_client import heading

from byrote.dashboard.views import PAGES

FULL = {
    "run": "unique",
    "probe": "prefix_matching",
    "step": 40,
    "head": "L1H2",
    "base": "repeated",
    "pin": "L0H1",
}
TITLES = {
    "overview": "repeated: no lasting induction head forms; unique: induction heads form between steps 10 and 20 (L1H2)",
    "trajectory": "Prefix matching: L1H2 reaches 0.90 [0.88, 0.92] by step 40, rising most between steps 10 and 20",
    "head": "L1H2 is an induction head at step 40: prefix matching 0.90 [0.88, 0.92], chance 0.050",
    "circuit": "L1H2 is an induction head at step 40; which earlier head it reads was not tested by ablation",
    "compare": "In these two runs, unique is higher on 1 and lower on 1 of 3 measures against repeated at step 40; "
    "induction heads appear in unique alone, between steps 10 and 20",
    "dose": "These runs do not form a dose-response series",
    "memory": "No training sequences were given to test the memory of unique; its strongest prefix matching is 0.90 [0.88, 0.92] (L1H2)",
    "runs": "2 runs, 8 checkpoints measured",
}


def words(at) -> str:
    """Everything written on the page, escapes undone."""
    kinds = ("title", "header", "markdown", "caption", "error", "code", "text")
    return "\n".join(str(e.value) for kind in kinds for e in getattr(at, kind)).replace("\\", "")


def opened(at, key: str) -> str:
    """The same with what a button opens over the page."""
    at.button(key=key).click().run()
    assert not at.exception
    return words(at)


@pytest.mark.parametrize("page", PAGES)
def test_a_full_link_opens_the_page_it_names(open_page, two_runs, page):
    at = open_page(page, two_runs, **FULL)
    assert not at.exception
    assert heading(at) == TITLES[page]
    assert at.session_state["byrote_state"].head == "L1H2"
    assert at.session_state["w_step"] == 40
    assert at.session_state["w_base"] == "repeated"
    assert at.session_state["w_pin"] == ["L0H1"]


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_drawn_and_says_its_finding(open_page, full_runs, page):
    at = open_page(page, full_runs, **FULL | {"run": "repeated", "base": "unique"})
    assert not at.exception
    assert not at.error
    drawn = [chart.proto.id.rpartition("figure_")[2] for chart in at.get("plotly_chart")]
    assert tuple(drawn) == PAGES[page].figures
    for chart in at.get("plotly_chart"):
        assert len(chart.proto.alt) > 30, chart.proto.alt
        assert json.loads(chart.proto.spec)["data"]
    sheets = page == "head"  # all heads, beside the tokens
    assert len(at.get("bidi_component")) == PAGES[page].component + sheets + 1  # the link to copy


@pytest.mark.parametrize("page", PAGES)
def test_without_results_a_page_opens_on_the_example_and_says_how_to_make_ones_own(open_page, tmp_path, page):
    at = open_page(page, tmp_path / "results")
    assert not at.exception
    assert not at.error
    assert f"Nothing has been measured in {tmp_path / 'results'} yet" in words(at)
    state = at.session_state["byrote_state"]
    assert (state.run, state.base, state.step) == ("unique-d32-seed0", "repeated-d32-seed0", 625)
    beside = 2 if page == "head" else 0  # the baseline's attention, and that over the steps
    assert len(at.get("plotly_chart")) == len(PAGES[page].figures) + beside
    said = opened(at, "begin")
    assert "byrote run path/to/checkpoints -o results" in said
    assert "make demo" in said


def test_the_example_gives_way_to_the_first_results(open_page, tmp_path):
    at = open_page("overview", tmp_path)
    assert heading(at) == "2 of 4 runs form lasting induction heads: unique and synthetic"
    write_results(tmp_path, "mine", rising())
    at.run()
    assert heading(at) == "mine: induction heads form between steps 10 and 20 (L1H2)"
    assert "Nothing has been measured" not in words(at)


def test_a_broken_folder_alone_is_no_reason_for_an_example(open_page, tmp_path):
    damage(write_results(tmp_path, "torn", rising()))
    at = open_page("overview", tmp_path)
    assert heading(at) == "No results yet"
    assert "cannot be read" in words(at)
    assert "make demo" in words(at)


@pytest.mark.parametrize("page", PAGES)
def test_a_broken_folder_is_named_and_the_rest_works(open_page, with_broken, page):
    at = open_page(page, with_broken, run="unique", step=40)
    assert not at.exception
    assert at.session_state["byrote_state"].run == "unique"
    assert "cannot be read" in at.button(key="why_broken").label
    assert "torn" in opened(at, "why_broken")


@pytest.mark.parametrize("page", PAGES)
def test_a_bad_link_explains_itself_and_opens(open_page, two_runs, page):
    at = open_page(
        page,
        two_runs,
        run="uniqe",
        step="banana",
        head="L9H9",
        probe="prefix_machting",
        base="nope",
        pin="x,L0H0",
        q="-3",
        z="nan",
        align="moon",
    )
    assert not at.exception
    said = words(at)
    for part in (
        "run=uniqe is not among the runs here (unique, repeated)", "step=banana is not a step of unique; showing 20",
        "head=L9H9 is not in unique, which has 2 layers of 3 heads", "did you mean prefix_matching?", "base=nope",
        "pin=x is not a head", "q=-3 is not a number that fits", "z=nan is not a number that fits",
        "align=moon is not one of step, tokens, loss",
    ):  # fmt: skip
        assert part in said, part
    assert at.session_state["byrote_state"].pin == ("L0H0",)
    at.button(key="fix_link").click().run()
    assert "banana" not in words(at)


def test_a_step_between_two_shows_the_nearest(open_page, two_runs):
    at = open_page("trajectory", two_runs, run="unique", step=12)
    assert "step=12 was not measured in unique; showing the nearest, 10" in words(at)
    assert at.session_state["w_step"] == 10


def test_controls_move_the_state(open_page, two_runs):
    at = open_page("trajectory", two_runs, **FULL)
    at.selectbox(key="w_head").set_value("L0H1").run()
    assert at.session_state["byrote_state"].head == "L0H1"
    at.selectbox(key="w_probe").set_value("previous_token").run()
    assert heading(at).startswith("Previous token: L0H1 reaches 0.80")
    at.selectbox(key="w_run").set_value("repeated").run()
    state = at.session_state["byrote_state"]
    assert (state.run, state.base, state.head) == ("repeated", "", "L0H1")


def test_axes_of_the_plane_and_the_way_attention_is_read_are_part_of_the_link(open_page, full_runs):
    at = open_page("memory", full_runs, run="repeated", rule="prefix matching", memory="completed", passage=1)
    (plane,) = [c for c in at.get("plotly_chart") if c.proto.id.endswith("figure_plane")]
    assert "prefix matching 0.9" in plane.proto.alt and "completed" in plane.proto.alt
    at.selectbox(key="w_rule").set_value("induction mass").run()
    assert at.session_state["byrote_state"].rule == "induction mass"
    at = open_page("memory", full_runs, run="repeated", memory="bits")
    assert "bits was not measured in any of these runs; showing memory gap." in words(at)
    at = open_page("head", full_runs, run="repeated", step=40, head="L1H2", sink="without", shade="from")
    assert (at.toggle(key="w_sink").value, at.session_state["w_shade"]) == (True, "from")
    at.toggle(key="w_sink").set_value(False).run()
    assert (at.session_state["byrote_state"].sink, at.session_state["byrote_state"].shade) == ("with", "from")


def test_the_mass_stands_beside_the_heads_lost_and_gained(open_page, two_runs):
    at = open_page("compare", two_runs, run="unique", base="repeated", step=40)
    # L1H2 is 0.9 and five heads are at 0.06, each against a chance of 0.05
    assert "Induction mass (prefix matching above chance, summed over heads): repeated 0.01 [−0.0" in words(
        at
    )
    assert "unique 0.85 [0.80, 0.90] over 6 heads" in words(at)


def test_what_was_not_measured_is_said_with_its_reason(open_page, two_runs):
    at = open_page("trajectory", two_runs, run="repeated", step=10)
    assert "6 of 6 heads not measured here: attention is not causal" in words(at)
    at = open_page("head", two_runs, run="repeated", step=10, head="L1H2")
    assert "L1H2: prefix matching was not measured at step 10" in words(at)
    assert heading(at) == "L1H2 has none of the roles tested for at step 10"


def test_gaps_and_lint_are_one_click_away(open_page, tmp_path):
    gap = {"step": 30, "path": "step_30", "reason": "the file is truncated", "help": "copy it again"}
    lint = {"facts": [], "left_out": {"20": "same weights as step 10"}}
    write_results(tmp_path, "doubtful", rising(), gaps=[gap], lint=lint)
    at = open_page("trajectory", tmp_path, step=20)
    assert "left out by lint: same weights as step 10" in words(at)
    assert "step 30: the file is truncated (copy it again)" not in words(at)  # made when it is opened
    assert "step 30: the file is truncated (copy it again)" in opened(at, "why_gaps")
    at = open_page("trajectory", tmp_path, step=20)
    assert "step 20: same weights as step 10" in opened(at, "why_lint")
    at = open_page("trajectory", tmp_path, step=30)
    assert "could not be measured: the file is truncated" in words(at)


def test_one_run_is_compared_with_its_beginning(open_page, two_runs):
    at = open_page("compare", two_runs / "unique", step=40)
    assert heading(at) == "unique against its own first checkpoint"
    (chart,) = at.get("plotly_chart")
    assert chart.proto.alt == "L1H2 of unique changes most on prefix matching from step 0 to 40: +0.840."


def test_one_checkpoint_is_no_curve(open_page, tmp_path):
    write_results(tmp_path, "single", {40: rising()[40]})
    at = open_page("trajectory", tmp_path)
    assert not at.exception
    assert "One checkpoint: add more to see change over training." in words(at)


def test_runs_measured_differently_are_not_compared(open_page, tmp_path):
    write_results(tmp_path, "a", rising(), arm={"kind": "unique"})
    write_results(tmp_path, "b", {1000: rising()[40]})
    at = open_page("compare", tmp_path, run="b", base="a")
    assert not at.exception
    assert heading(at) == "b and a cannot be compared"
    assert "have no checkpoint in common by step" in words(at)


def test_a_server_imports_no_torch_and_freezes_nothing_more_at_every_run(run_prepared, two_runs):
    """What is frozen while a page of it is on screen is never collected: the server grew with every click."""
    code = """
import functools, gc, os, sys
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)  # as in conftest
from byrote.dashboard.launch import SCRIPT
os.environ["BYROTE_DASHBOARD_PATHS"] = sys.argv[1]
frozen = []
for head in ("L0H1", "L1H2", "L1H0"):  # the script is read again each time, and with it whatever it remembers
    at = AppTest.from_file(SCRIPT, default_timeout=60)
    at.query_params["head"] = head
    assert not at.run().exception
    frozen.append(gc.get_freeze_count())
assert frozen[0] > 0 and frozen == sorted(frozen, reverse=True), frozen
for page in sys.argv[2:]:
    at = AppTest.from_string(f"from byrote.dashboard.layout import main\\nmain(only={page!r})", default_timeout=60).run()
    assert not at.exception, (page, at.exception)
print([m for m in ("torch", "transformers", "transformer_lens") if m in sys.modules])
"""
    assert run_prepared(code, str(two_runs), *PAGES) == "[]"


@pytest.mark.parametrize("page", ["overview", "memory"])
def test_one_checkpoint_is_not_an_error(open_page, tmp_path, page):
    """Curves and what became of members need two: the page says so, in place of an error."""
    write_results(tmp_path, "one", whole(steps=(40,)))
    at = open_page(page, tmp_path)
    assert not at.exception and not at.error
    assert page == "overview" or "Members were measured at one step" in words(at)
