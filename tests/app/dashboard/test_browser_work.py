"""What a person does beyond looking, in a real browser: take a figure along, start a sweep and leave, ask on a text."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from browsing import CHROMIUM, profile, served, visit
from planted_series import head_metric, write_results
from tiny_models import write_lab_series

from byrote.dashboard import jobs
from byrote.probes.results import Results

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
MINUTE_MS = 120_000


@pytest.fixture
def series(tmp_path) -> Path:
    """Thirty steps of a tiny model."""
    return write_lab_series(tmp_path / "tiny", range(30))


@pytest.fixture
def results(tmp_path, series) -> Path:
    """A run that names the series, under another name."""
    import numpy as np

    units = {s: [head_metric("prefix_matching", np.linspace(0.1, 0.8, 8).reshape(2, 4))] for s in (0, 1, 2)}
    held = {"name": "tiny", "path": str(series), "n_checkpoints": 3, "steps": [0, 1, 2]}
    model = {"n_layers": 2, "n_heads": 4, "n_ctx": 32}
    write_results(tmp_path / "results", "seen", units, shape=(2, 4), model=model, series=held)
    return tmp_path / "results"


def test_a_figure_is_saved_as_png(browser, results, tmp_path):
    with served(results) as site, profile(browser) as context, visit(context, site) as here:
        here.open("trajectory", step=2)
        here.find("button").filter(has_text="Export").click()
        with here.tab.expect_download() as waited:
            here.find(".st-key-png button").click()
        file = tmp_path / waited.value.suggested_filename
        waited.value.save_as(file)
        assert file.name == "seen_prefix_matching_2_grid.png"
        head = file.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(head[16:20]) == 2 * 980  # twice the width of the SVG


def test_a_sweep_outlives_tab_and_server(browser, results, series):
    with served(results) as site, profile(browser) as context:
        with visit(context, site) as here:
            here.open("runs")
            here.tab.get_by_label("Checkpoints").fill(str(series))
            here.find("button").filter(has_text="Start").click()
            here.find(".st-key-jobs, [data-testid=stMarkdownContainer]").filter(
                has_text="running"
            ).first.wait_for()
        (job,) = jobs.all_jobs(results)  # the tab is closed
        assert job.running
    assert jobs.read_job(job.folder).running or jobs.read_job(job.folder).state == "done"  # so is the server
    end = time.monotonic() + 120
    while jobs.read_job(job.folder).running and time.monotonic() < end:
        time.sleep(0.2)
    assert jobs.read_job(job.folder).state == "done", jobs.read_job(job.folder)
    assert len(Results.open(results / "tiny").steps) == 30
    with served(results) as site, profile(browser) as context, visit(context, site) as here:
        here.open("runs")
        here.says("[data-testid=stMain]", "30 of 30")


def test_attention_on_a_text_of_ones_own(browser, results):
    with served(results) as site, profile(browser) as context, visit(context, site) as here:
        here.open("head", step=2, head="L1H3")
        here.find("summary").filter(has_text="Attention on my own text").click()
        box = here.tab.get_by_label("Text", exact=True)
        box.fill("0 5 17 9 5 17 9")
        box.press("Control+Enter")
        here.find(".st-key-own_run button:enabled").click()
        here.find(".tokens button").first.wait_for(timeout=MINUTE_MS)
        assert here.find(".tokens button").count() == 7
        here.find(".st-key-own_over button:enabled").click()
        here.find(".st-key-figure_attention_steps .main-svg").first.wait_for(timeout=MINUTE_MS)
        here.find(".st-key-own_step button").filter(has_text="0").click()
        here.until_address(step="0")
        here.says("[data-testid=stMain] h2", "Attention of L1H3 at step 0")
        here.find(
            "button.play"
        ).click()  # from the first step to the last, which is then the step of the page
        here.until_address(step="2")
