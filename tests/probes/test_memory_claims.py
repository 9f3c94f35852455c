"""Claims on what is memorised and repeated: rows of planted members worked by hand, effects of planted truth, figures of both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from byrote.checkpoints.errors import ByroteError
from byrote.probes import figures
from byrote.probes.claims import pipeline
from byrote.probes.claims.carlini_extraction import COUNTS, slopes
from byrote.probes.claims.catalogue import CLAIMS, GRIDS
from byrote.probes.claims.judging import UNTESTABLE, judge_claims
from byrote.probes.claims.members_table import PROMPTS, with_members
from byrote.probes.claims.null_runs import simulated_runs
from byrote.probes.claims.record import Grid
from byrote.probes.claims.runs_table import tidy
from byrote.probes.degrade import capacity, extraction_threshold
from byrote.probes.degrade.capacity import line_deficit
from byrote.probes.degrade.simulated_runs import simulated_rows
from byrote.probes.results import Results
from byrote.probes.rules import NOT_REPRODUCED, REPRODUCED
from byrote.probes.seed_statistics import spearman
from byrote.report.claims import Made, claims_report
from byrote.report.files import pictures_of

REPEATS = [0, 0, 1, 1, 4, 4]


def stored(step_out: dict[int, list[float]]) -> dict[int, pd.DataFrame]:
    """Six members, of which these are extracted at each step."""
    prompts = {name: [0, 1, 0, 1, 1, 1] if k else [0] * 6 for k, name in enumerate(PROMPTS)}
    return {
        step: pd.DataFrame({"repeats": REPEATS, "extracted": out, "exposure_bits": [2.0 * x + 1 for x in out], **prompts})
        for step, out in step_out.items()
    }  # fmt: skip


def table_of(steps) -> pd.DataFrame:
    rows = [{"grid": "g", "arm": "a", "size": "s", "init_seed": 0, "data_seed": 0, "step": step, "parameters": 9.0, "test_loss": 2.0}
            for step in steps]  # fmt: skip
    return pd.DataFrame(rows)


def test_members_are_places_of_their_own_by_count_and_by_prompt():
    results = stored({10: [0, 0, 0, 1, 1, 0], 20: [0, 1, 0, 0, 1, 1]})
    found = tidy(with_members(table_of([0, 10, 20]), results)).set_index(["arm", "step"])
    assert found.loc[[("a x4", 10), ("a x4", 20)], "extracted"].tolist() == [0.5, 1.0]
    assert found.loc[("a x1", 10), ["exposure_bits", "n_members", "epochs", "parameters"]].tolist() == [
        2.0,
        2.0,
        1.0,
        9.0,
    ]
    assert found.loc[("a x0", 20), "extracted"] == 0.5
    assert found.loc[
        ("a", 10), ["extracted", "precision_for_final", "recall_of_final"]
    ].tolist() == pytest.approx([2 / 4, 1 / 2, 1 / 3])
    assert found.loc[("a", 20), ["precision_for_final", "recall_of_final"]].tolist() == [1.0, 1.0]
    assert np.isnan(found.loc[("a", 0), "extracted"]) and found.loc[("a", 0), "test_loss"] == 2.0
    # Planted: three of four go on; never planted: one of two.
    assert [found.loc[(f"a {name}", 20), "next_extracted"] for name in PROMPTS] == [0.0, 0.25, 0.25]


def test_precision_of_nothing_is_not_defined():
    found = with_members(table_of([10, 20]), stored({10: [0] * 6, 20: [0, 0, 0, 0, 0, 1]}))
    own = tidy(found).query("arm == 'a'")
    assert np.isnan(own["precision_for_final"].iloc[0]) and own["recall_of_final"].tolist() == [0.0, 1.0]


TINY = """
recipe = "names"
seeds = 1
checkpoints = 3
[settings]
steps = 40
batch = 4
n_held_out = 8
[sizes.d8]
d_model = 8
[arms.unique]
[arms.planted]
kind = "planted"
tokens = "source"
most = 4
per_count = 4
control = "unique"
"""


@pytest.mark.slow
def test_members_of_a_trained_grid_are_in_its_table(tmp_path, monkeypatch):
    (tmp_path / "tiny.toml").write_text(TINY)
    grid = Grid("tiny", "nothing much", file=str(tmp_path / "tiny.toml"), sizes=("d8",), seeds=1, measured=2, members=True,
                probes=("exact_match", "extraction", "exposure"))  # fmt: skip
    monkeypatch.setitem(GRIDS, "tiny", grid)
    claim = replace(CLAIMS["carlini-size"], grids=("tiny",), untestable="nothing is judged here")
    table = pipeline.reproduce([claim], tmp_path / "out", jobs=1).table
    assert set(table["arm"]) == {
        "unique",
        "planted",
        *(f"planted x{c}" for c in (0, 1, 2, 4)),
        *(f"planted {p}" for p in PROMPTS),
    }
    (results,) = (tmp_path / "out").glob("tiny-*/results/planted-d8-seed0")
    samples = Results.open(results).samples(40).set_index(["probe", "metric"])["samples"]
    repeats = samples["exact_match", "repeats"]
    assert sorted(repeats) == [0] * 4 + [1] * 4 + [2] * 4 + [4] * 4
    rows = table[table["step"] == 40].set_index("arm")
    bits = samples["exposure", "bits"][repeats == 4].mean()
    assert rows.loc["planted x4", "exposure_bits"] == pytest.approx(bits)
    assert rows.loc["planted x4", ["epochs", "n_members"]].tolist() == [4.0, 4.0]


# Effects


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 12).astype(float), rng.normal(size=12)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman(a, np.exp(a)) == pytest.approx(1.0) and spearman(a, np.ones(12)) == 0.0


def test_slopes_are_those_of_least_squares():
    x, y = np.array([0.0, 1, 3]), np.array([[1.0, 2, 4], [0, 5, 1]])
    assert slopes(x, y) == pytest.approx(np.polyfit(x, y.T, 1)[0])


def judged(name: str, level) -> object:
    """A claim on runs of five seeds that end at a level by (place, metric)."""
    claim = CLAIMS[name]
    places = [*claim.picture.places, *claim.exchange]

    def curve(place, metric, rng):
        return np.full(10, float(np.clip(level(place, metric) + rng.normal(0, 0.01), 0, None)))

    (found,) = judge_claims([claim], simulated_runs(places, curve, seeds=5))
    return found


def times(place) -> int:
    return int(place.arm.rpartition("x")[2])


def by_line(place, metric):
    return 16.0 if metric == "n_members" else 0.1 * np.log2(max(1, times(place)))


def by_threshold(place, metric):
    return 16.0 if metric == "n_members" else float(times(place) >= 64)


def test_a_line_in_the_logarithm_is_told_from_a_threshold():
    assert judged("carlini-log-linear", by_line).word == REPRODUCED
    found = judged("carlini-log-linear", by_threshold)
    assert found.word == NOT_REPRODUCED and "logistic curve is better by" in found.final_words
    for level in (by_line, by_threshold):
        assert judged("carlini-duplicates", level).word == REPRODUCED
    assert judged("carlini-duplicates", lambda place, metric: 0.3).word == NOT_REPRODUCED
    assert line_deficit(np.array(COUNTS, float), np.round(1.6 * np.arange(10)), np.full(10, 16.0)) < 1


def test_size_and_prompt_are_judged_by_what_they_add():
    sizes = {"d12": 0.1, "d20": 0.2, "d32": 0.3}
    assert judged("carlini-size", lambda place, metric: sizes[place.size]).word == REPRODUCED
    assert judged("carlini-size", lambda place, metric: 0.2).word == NOT_REPRODUCED
    prompts = dict(zip(PROMPTS, (0.1, 0.15, 0.2), strict=True))
    assert (
        judged("carlini-context", lambda place, metric: prompts.get(place.arm.split()[-1], 0)).word
        == REPRODUCED
    )


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ({"N8": 0.2, "N32": 0.8, "N128": 3.6, "N512": 3.6}, (REPRODUCED, REPRODUCED, REPRODUCED)),
        ({"N8": 0.056, "N32": 0.224, "N128": 0.896, "N512": 3.584}, (NOT_REPRODUCED, REPRODUCED, REPRODUCED)),
        ({"N8": 0.2, "N32": 0.8, "N128": 1.3, "N512": 1.4}, (REPRODUCED, NOT_REPRODUCED, REPRODUCED)),
    ],
)
def test_capacity_claims_follow_the_bits(bits, words):
    names = ("morris-plateau", "morris-bits", "morris-sizes")
    found = [judged(name, lambda place, metric: bits.get(place.arm, 0)) for name in names]
    assert tuple(one.word for one in found) == words


def test_repetition_out_follows_repetition_in_or_does_not():
    arms = ("few4", "few2", "random", "most2", "most4half", "most4")
    level = lambda place, metric: 0.1 * arms.index(place.arm.partition("-")[2])  # noqa: E731
    assert judged("riro-tracks", level).word == REPRODUCED
    against = lambda place, metric: level(place, metric) * (1 if place.arm[0] == "t" else -1) + 1  # noqa: E731
    assert judged("riro-tracks", against).word == NOT_REPRODUCED


def test_early_checkpoints_are_read_at_a_quarter_and_where_precision_is_defined():
    steps = np.arange(0, 2001, 250)
    rows = []
    for seed in range(5):
        for step in steps:
            early = step < 1000
            rows.append({"grid": "planted", "arm": "planted", "size": "d32", "init_seed": seed, "data_seed": seed, "step": step,
                         "extracted": step / 4000, "recall_of_final": 0.2 + 0.01 * seed if early else 1.0,
                         "precision_for_final": np.nan if step < 750 else 0.9 if early else 1.0})  # fmt: skip
    recall, precision = judge_claims([CLAIMS["biderman-recall"], CLAIMS["biderman-precision"]], tidy(rows))
    assert (
        recall.verdict.values == pytest.approx([-0.3 + 0.01 * seed for seed in range(5)])
        and recall.word == REPRODUCED
    )
    # Steps 750 to 1,750: precision 0.9, then 1; recall 0.2 and a hundredth a seed, then 1.
    assert precision.verdict.values == pytest.approx([(0.9 - 0.2 - 0.01 * seed) / 5 for seed in range(5)])


def test_what_nobody_memorised_is_not_foretold():
    rows = [
        {"grid": "planted", "arm": "planted", "size": "d32", "init_seed": seed, "data_seed": seed, "step": step,
         "extracted": 0.5 if seed < 2 and step else 0.0, "recall_of_final": 0.2, "precision_for_final": 0.9}
        for seed in range(5) for step in (0, 500, 1000)
    ]  # fmt: skip
    for found in judge_claims([CLAIMS["biderman-recall"], CLAIMS["biderman-precision"]], tidy(rows)):
        assert found.word == UNTESTABLE and found.words.startswith("2 of 5 models have memorised anything")


# Figures


def test_capacity_is_drawn_as_it_was_computed():
    pools = np.array([8.0, 32, 128])
    found = capacity(
        simulated_rows(np.array([0.5, 1.4, 1.5])[:, None] + np.linspace(-0.02, 0.02, 5), pool=pools)
    )
    fig = figures.capacity({"small": found, "large": found})
    line = next(trace for trace in fig.data if trace.name == "small")
    assert list(line.x) == pools.tolist() and list(line.y) == found.rows["value"].tolist()
    published = next(trace for trace in fig.data if trace.name.startswith("published"))
    assert set(published.y) == {3.6} and fig.layout.yaxis.range[1] > 3.6
    assert len(next(trace for trace in fig.data if trace.name == "seeds of small").y) == 15
    assert fig.table["name"].unique().tolist() == ["small", "large"] and "of large holds 1.50" in fig.alt
    assert "name" not in figures.capacity(found).table
    with pytest.raises(ByroteError, match="no capacity was given"):
        figures.capacity({})


def test_extraction_is_drawn_with_its_threshold():
    duplicates = np.array([1.0, 4, 16, 64])
    out = [[0, 0, 0, 8], [0, 0, 1, 8], [0, 0, 2, 8]]
    counts = pd.concat(
        [
            pd.DataFrame({"run": str(i), "duplicates": duplicates, "extracted": one, "members": 8})
            for i, one in enumerate(out)
        ]
    )
    found = extraction_threshold(counts)
    rows = found.rows.set_index("duplicates")
    assert rows.loc[16, "value"] == pytest.approx(1 / 8) and rows.loc[16, "values"] == (0.0, 1 / 8, 2 / 8)
    student = stats.t.interval(0.95, 2, loc=1 / 8, scale=(1 / 8) / np.sqrt(3))
    assert (rows.loc[16, "lo"], rows.loc[16, "hi"]) == pytest.approx((0.0, student[1]))  # cut at 0
    exact = stats.binomtest(24, 24).proportion_ci(method="exact")
    assert (rows.loc[64, "lo"], rows.loc[64, "hi"]) == pytest.approx((exact.low, 1.0))  # all runs agree
    fig = figures.extraction(found)
    drawn = {trace.name: trace for trace in fig.data}
    assert list(drawn["share extracted"].y) == rows["value"].tolist()
    assert list(drawn["threshold"].x) == [found.threshold] and 16 < found.threshold < 64
    curve = drawn["logistic curve"]
    assert np.interp(np.log(found.threshold), np.log(curve.x), curve.y) == pytest.approx(0.5, abs=0.01)
    assert "Half is extracted from" in fig.alt and fig.table["duplicates"].tolist() == duplicates.tolist()
    none = extraction_threshold(counts.assign(extracted=0))
    assert "at no number of duplicates that was planted" in figures.extraction(none).alt


@pytest.mark.parametrize("name", ["carlini-duplicates", "morris-bits"])
def test_claims_are_drawn_by_the_figures_of_degradation(name):
    claim = CLAIMS[name]
    pools = (
        {place.arm: float(place.arm[1:]) for place in claim.picture.places} if name == "morris-bits" else {}
    )
    level = by_threshold if not pools else lambda place, metric: 1.2
    table = simulated_runs(claim.picture.places,
                           lambda place, metric, rng: np.full(10, level(place, metric) + rng.normal(0, 1e-3)), seeds=5)  # fmt: skip
    table["epochs"] = [float(arm.rpartition("x")[2]) if " x" in arm else np.nan for arm in table["arm"]]
    table["pool"] = [pools.get(arm, np.nan) for arm in table["arm"]]
    table["extracted"] = table["extracted"].clip(0, 1)
    (found,) = judge_claims([claim], table)
    fig = figures.claim(table, found)
    assert fig.layout.title.text == name and found.word in fig.layout.title.subtitle.text
    said = "Half is extracted from" if not pools else "A parameter of d16 holds 1.2"
    assert said in fig.alt
    (kept,) = pictures_of(claims_report([found], table, Made.of({}))).values()
    assert kept.figure.alt == fig.alt and len(kept.table.rows) == len(fig.table)
