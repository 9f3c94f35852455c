"""docs/figures.md: every line in it draws its figure, no figure is missing, and all keep to what a renderer may count on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from degrade_runs import descending
from paper_runs import planted_run, rebuilt

import byrote as br
from byrote.dashboard.library import Library, or_example
from byrote.probes.attention import attention_file, stored_pattern, stored_texts
from byrote.probes.claims.runs_table import read_runs
from byrote.probes.degrade.displacement import shares_table
from byrote.probes.degrade.simulated_runs import simulated_rows
from byrote.probes.figures import Figure, Look
from byrote.probes.figures.svg import figure_svg
from byrote.probes.member_calibration import simulated_experiments
from byrote.probes.results import Results
from byrote.probes.text.report import Number, frame_of
from byrote.probes.wording import labels_of_runs

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "figures.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| `(br\.figures\.(\w+)\(.*\))` \| .+ \|$", PAGE, flags=re.MULTILINE)
COLOUR = re.compile(r"#[0-9a-f]{6}|rgba\(\d+, \d+, \d+, [0-9.]+\)")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page calls its runs: the packed example, with planted losses by copy and by place."""
    folder = next(iter(or_example(Library(paths=())).runs.values())).path.parent
    planted = planted_run().frame
    losses = planted[(planted["probe"] == "copy_curve") & (planted["metric"] == "loss")]
    found: dict[str, Any] = {"br": br}
    for name in ("unique", "repeated"):
        results = Results.open(folder / f"{name}-d32-seed0")
        more = [losses.assign(run=results.run), losses.assign(run=results.run, probe="loss_by_position")]
        curve = losses.assign(run=results.run, probe="edge_attribution", metric="faithfulness", chance=0.1)
        more.append(curve.assign(value=0.9, lo=0.8, hi=1.0))
        more += on_request(losses)
        more = [rows[rows["step"].isin(results.steps)] for rows in more]
        found[name] = rebuilt(results, frame=pd.concat([results.frame, *more], ignore_index=True))
    found["plain"] = found["unique"]
    found["both"] = found["every"] = [found["unique"], found["repeated"]]
    steps = np.linspace(-0.02, 0.02, 5)
    pools = simulated_rows(
        np.array([2.1, 3.5, 2.8])[:, None] + steps,
        pool=np.array([256.0, 16, 4]),
        parameters=3e3,
        arm=["P=256", "P=16", "P=4"],
    )
    ladder = simulated_rows(
        np.array([4.0, 3.0, 2.0])[:, None] + steps, parameters=np.array([1e3, 2e3, 3e3]), arm="control"
    )
    found["doses"] = br.degrade.dose_response(pools, "pool", baseline=ladder[ladder["parameters"] == 3e3])
    found["damage"] = br.degrade.damage_by_arm(pools, ladder[ladder["parameters"] == 3e3])
    found["sizes"] = br.degrade.effective_size(ladder, pools)
    bits = np.array([0.5, 1.4, 1.5])[:, None] + steps
    found["bits"] = br.degrade.capacity(simulated_rows(bits, pool=np.array([8.0, 64, 512])))
    counts = [{"run": str(run), "duplicates": times, "extracted": min(8, times // 4 + run), "members": 8}
              for run in range(2) for times in (1, 8, 32)]  # fmt: skip
    found["extracted"] = br.degrade.extraction_threshold(pd.DataFrame(counts))
    found["harder"] = br.degrade.preferential_damage(
        br.degrade.effective_size(ladder, pools, how="interpolate"), found["sizes"]
    )
    found["shares"] = head_shares_of(steps)
    apart = simulated_experiments(np.random.default_rng(0), runs=12, effects=0.4 * np.eye(4))
    found["experiments"] = br.degrade.dependence_matrix(apart, smallest=0.05)
    unique, epochs = (x.ravel() for x in np.meshgrid([1e5, 1e6], [1.0, 4.0, 16.0]))
    loss = 1.5 + 40 * br.degrade.effective_data(unique, epochs, 6.0) ** -0.3
    passes = simulated_rows(loss[:, None] + steps, epochs=epochs, tokens=unique * epochs, repeat_frac=1.0)
    found["passes"] = br.degrade.fit_r_star(br.degrade.with_unique_tokens(passes), n_draws=5)
    found["corpora"] = densities()
    found["seeds"] = br.groups_of(descending(tmp_path_factory.mktemp("arms"), "repeated", [1.0, 1.2]))
    found["comparison"] = br.compare(found["unique"], found["repeated"])
    found["runs"] = read_runs(DOCS / "claims" / "runs.parquet")
    kept = attention_file(found["unique"].path, found["unique"].steps[-1])
    found["text"] = stored_pattern(kept, stored_texts(kept)[0], layer=1, head=0)
    return found


def on_request(losses: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows of probes that are run by name alone, made of planted losses by copy: pruned by 30 to 90%, and distances on Markov chains."""
    tenths = losses[losses["position"] <= 4].assign(value=0.8, lo=0.7, hi=0.9)
    tenths = tenths.assign(position=tenths["position"] + 2)
    tenths["value"] -= 0.1 * tenths["position"].astype(float)
    head = {"probe": "pruned_heads", "layer": 1, "head": 0}
    single = losses[losses["position"] == 1].assign(position=pd.NA)
    found = [tenths.assign(metric="prefix", **head)]
    found += [
        single.assign(metric=name, value=at, lo=at - 0.1, hi=at + 0.1, **head)
        for name, at in (("unpruned", 0.8), ("survives", 0.5))
    ]
    found += [tenths.assign(probe="pruned_memory", metric=name) for name in ("completed", "accuracy")]
    levels = {"kl_even": 0.6, "kl_unigram": 0.3, "kl_bigram": 0.1, "kl_true": 0.2, "apart": 0.25}
    found += [
        single.assign(probe="in_context_markov", metric=name, value=at, lo=at - 0.01, hi=at + 0.01)
        for name, at in levels.items()
    ]
    return found


def densities() -> pd.DataFrame:
    """Densities of a reference and of a corpus beside it, as `byrote text` writes them."""
    numbers = (("human.txt", "mean", 0.02, 0.019), ("synthetic.txt", "mean", 0.05, np.nan), ("synthetic.txt", "p50", 0.04, np.nan),
               ("synthetic.txt", "to_reference", 0.03, 0.02))  # fmt: skip
    rows = [Number("density", metric, (value, value - 0.002, value + 0.002), "fraction", chance, n=64, resampled="pieces").row(corpus)
            for corpus, metric, value, chance in numbers]  # fmt: skip
    return frame_of(rows)


def head_shares_of(steps: np.ndarray) -> pd.DataFrame:
    """Shares by class of head of five seeds a side: what induction heads lose, others have."""
    sides = [[{"induction": a + d, "previous token": 0.1, "other": 0.9 - a - d, "all heads": 5 + d} for d in steps]
             for a in (0.8, 0.2)]  # fmt: skip
    return shares_table(*sides, paired=True)


@pytest.fixture(scope="module")
def drawn(names: dict[str, Any]) -> dict[str, Figure]:
    return {name: eval(line, dict(names)) for line, name in LINES}


def test_figures_of_probes_by_request_draw_what_was_measured(drawn: dict[str, Figure]) -> None:
    heads, memory, chains = (drawn[name] for name in ("pruned_heads", "pruned_memory", "in_context_markov"))
    (line,) = (trace for trace in heads.data if trace.name == "L1H0")
    assert list(line.x) == [0.0, 0.3, 0.4, 0.5, 0.6] and list(line.y) == pytest.approx(
        [0.8, 0.5, 0.4, 0.3, 0.2]
    )
    assert "L1H0 keeps half of its excess up to 0.50 [0.40, 0.60]" in heads.alt
    assert "members completed 0.00 [0.00, 0.21] unpruned, 0.20 [0.70, 0.90] at 60%" in memory.alt
    assert list(memory.data[-1].x) == [0.0, 0.3, 0.4, 0.5, 0.6]
    assert "predictions are nearest to the context's bigrams, 0.10 [0.09, 0.11] nats" in chains.alt
    dots = {trace.name: list(trace.x) for trace in drawn["density"].data}
    assert dots["mean among its own"] == [0.02, 0.05] and dots["the reference among its own"] == [0.02]
    assert (
        "synthetic.txt: to one another 0.050 [0.048, 0.052], to the reference's 0.030 [0.028, 0.032]"
        in drawn["density"].alt
    )
    with pytest.raises(br.ByroteError, match="density was not measured"):
        br.figures.density(frame_of([]))


def test_every_public_figure_stands_on_the_page_once() -> None:
    figures = set(br.figures.__all__) - {"Figure", "Look", "apply_theme", "save"}
    assert sorted(name for _, name in LINES) == sorted(figures)
    for name in br.figures.__all__:
        assert f"br.figures.{name}" in PAGE


def test_every_line_draws_numbers_and_says_what_they_show(drawn: dict[str, Figure]) -> None:
    for name, fig in drawn.items():
        assert isinstance(fig, Figure) and fig.data, name
        assert not fig.table.empty and len(fig.wide()) <= len(fig.table), name
        assert fig.alt.endswith(".") and "Nothing to draw" not in fig.alt, name


def test_every_line_draws_in_every_look(names: dict[str, Any]) -> None:
    for line, name in LINES:
        fig = eval(f"{line[:-1]}, look=look)", {**names, "look": Look("dark", "half")})
        assert fig.layout.meta["theme"] == "dark" and not fig.table.empty, name


def test_every_figure_keeps_to_what_another_renderer_may_count_on(drawn: dict[str, Figure]) -> None:
    for name, fig in drawn.items():
        spec = fig.to_plotly_json()
        layout = spec["layout"]
        assert {"t", "b", "l", "r"} <= set(layout["margin"]) and layout["height"] > 0, name
        for trace in spec["data"]:
            assert trace["type"] in ("scatter", "heatmap"), name
            axes = [
                layout[f"{ref[0]}axis{ref[1:]}"] for ref in (trace.get("xaxis", "x"), trace.get("yaxis", "y"))
            ]
            for axis in axes:
                assert len(axis["range"]) == 2 and len(axis["tickvals"]) == len(axis["ticktext"]), name
            if trace["type"] == "heatmap":
                assert layout["coloraxis"]["cmin"] < layout["coloraxis"]["cmax"], name
            elif "lines" in trace["mode"] and "fill" not in trace:
                assert COLOUR.fullmatch(trace["line"]["color"]), name
        for note in layout.get("annotations", ()):
            assert note["text"] and ("arrowcolor" in note or not note["showarrow"]), name


def test_every_figure_is_drawn_without_plotly(drawn: dict[str, Figure]) -> None:
    for name, fig in drawn.items():
        svg = figure_svg(fig, name=name)
        assert svg.startswith("<svg") and svg.count("<path") >= 1, name


@pytest.mark.parametrize(
    ("runs", "labels"),
    [
        (["unique-d32-seed0", "repeated-d32-seed0"], ["unique", "repeated"]),
        (["unique-d32-seed0", "unique-d32-seed1"], ["unique-d32-seed0", "unique-d32-seed1"]),
        (["accumulate-g1-d24-seed10", "accumulate-g2-d24-seed10"], ["accumulate-g1", "accumulate-g2"]),
        (["unique-d32-seed0"], ["unique-d32-seed0"]),
        (["seed0", "a-seed0"], ["seed0", "a-seed0"]),
    ],
)
def test_runs_are_called_beside_lines_by_what_tells_them_apart(runs, labels):
    assert labels_of_runs(runs) == dict(zip(runs, labels, strict=True))
