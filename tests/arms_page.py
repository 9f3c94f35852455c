"""What the newer arms of the lab do, from the runs that docs/lab holds: the part of docs/lab.md between the marks, and its figures.

    byrote lab train arms --grid arms
    byrote lab train shared --grid experiments
    byrote run 'shared/subsets/*/*' 'shared/experiments/*/*' -o results -p exact_match --steps last
    PYTHONPATH=tests python tests/arms_page.py arms results

Without folders the part is only written anew. tests/probes/test_arms_page.py compares it with the runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from byrote.checkpoints.atomic import write_text
from byrote.checkpoints.lab.run_grid import grid_file, read_grid
from byrote.probes.claims.gather import read_manifest, series_rows
from byrote.probes.claims.runs_table import Place, Runs, read_runs, tidy, write_runs
from byrote.probes.claims.seed_effects import compared, copying_onset
from byrote.probes.degrade import counterfactual, dependence_matrix, member_rows
from byrote.probes.figures import dependence_matrix as matrix_figure
from byrote.probes.figures.canvas import FULL, Figure
from byrote.probes.figures.forest import ForestRow, Mark, Panel, forest
from byrote.probes.figures.paper import page_svg
from byrote.probes.figures.theme import paint
from byrote.probes.findings_degrade import matrix_sentence
from byrote.probes.groups import groups_of
from byrote.probes.registry import REGISTRY
from byrote.probes.results import Results
from byrote.probes.rules import smallest_effect
from byrote.probes.seed_statistics import SeedDifference, mean_over_seeds
from byrote.probes.wording import interval, number

DOCS = Path(__file__).parents[1] / "docs"
PAGE, FOLDER, IMAGES = DOCS / "lab.md", DOCS / "lab", DOCS / "images"
RUNS, MEMBERS = FOLDER / "arms.parquet", FOLDER / "members.parquet"
BEGIN, END = "<!-- from lab/arms.parquet: begin -->", "<!-- end of lab/arms.parquet -->"
GRID, SIZE, EXPERIMENTS = "arms", "d24", "experiments"
METRICS = {"test_loss": "all tokens", "copy_loss": "copied tokens", "table_part_loss": "tokens of the table"}
BESIDE_UNIQUE = ("rephrased", "questions", "dropout", "reweighted")
LAST = 3  # iterations of ReST-EM


def pairs() -> list[tuple[str, str]]:
    """(arm, what it stands against): its control, and for some the unique arm."""
    found = [(arm.name, arm.control) for arm in read_grid(grid_file(GRID)).arms if arm.control]
    found = [pair for pair in found if not pair[0].endswith(("-random", "-other", "-shuffled"))]
    found = [pair for pair in found if not pair[0].startswith("rest-random")]
    return [*found, *((name, "unique") for name in BESIDE_UNIQUE)]


def place(arm: str) -> Place:
    """The runs of an arm."""
    return Place(GRID, arm, SIZE)


def difference(runs: Runs, arm: str, control: str, metric: str) -> SeedDifference:
    """Final value, arm minus control, over seeds."""
    return mean_over_seeds(compared(runs, place(control), place(arm), metric).values)


def take_over(arms: Path, results: Path) -> None:
    """Read the runs of both grids and write the tables that the page is made from."""
    rows = []
    for folder in sorted(arms.glob(f"*/{SIZE}/seed*")):
        made = [part for part in read_manifest(folder).get("inputs", []) if part["kind"] == "rest_em"]
        score = {"drawn_score": made[0]["mean_score_drawn"]} if made else {}
        rows += [row | score for row in series_rows(folder, grid=GRID, arm=folder.parts[-3], size=SIZE)]
    FOLDER.mkdir(exist_ok=True)
    write_runs(RUNS, tidy(rows))
    parts = []
    for one in groups_of([Results.open(folder) for folder in sorted(results.glob("*-seed*"))]):
        accuracy, loss = (member_rows([one], metric) for metric in ("accuracy", "loss"))
        parts.append(accuracy.rename(columns={"value": "accuracy"}).assign(loss=loss["value"]))
    pd.concat(parts, ignore_index=True).to_parquet(MEMBERS, index=False)


def written() -> Mapping[Path, str]:
    """The page and its figures, by path, as the runs say it."""
    runs, members = Runs(read_runs(RUNS)), pd.read_parquet(MEMBERS)
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [*table_of(runs), "", rewarded(runs), "", *remembered(members)]
    pictures = {"lab_arms": arms_figure(runs), "lab_experiments": experiments_figure(members)}
    for name, figure in pictures.items():
        lines += ["", f"![{figure.alt}](images/{name}.svg)"]
    text = "\n".join([before + BEGIN, "", *lines, "", END + after])
    svg = {IMAGES / f"{name}.svg": page_svg(figure, name=name) for name, figure in pictures.items()}
    return {PAGE: text, **svg}


def table_of(runs: Runs) -> Iterator[str]:
    """The differences of every pair, and when copying appears."""
    names = ("arm", "against", *METRICS.values(), "copying appears, of the arm and of what it stands against")
    yield f"| {' | '.join(names)} |"
    yield f"| {' | '.join(['---'] * len(names))} |"
    for arm, control in pairs():
        cells = [arm, control]
        for metric in METRICS:
            found = difference(runs, arm, control, metric)
            cells.append(interval(found.value, found.lo, found.hi, sign=True))
        cells.append("" if arm.startswith("rest") else f"{_onset(runs, arm)}; {_onset(runs, control)}")
        yield f"| {' | '.join(cells)} |"


def _onset(runs: Runs, arm: str) -> str:
    at = copying_onset(runs, place(arm), runs.seeds(place(arm)))
    never = int(np.isinf(at).sum())
    steps = np.sort(at[np.isfinite(at)])
    return " ".join([*(f"{step:,.0f}" for step in steps), *([f"{never} never"] if never else [])])


def rewarded(runs: Runs) -> str:
    """What iterations of ReST-EM write, with the reward and with as many samples at random."""
    arms = [place(f"{name}-g{LAST}") for name in ("rest-random", "rest")]
    found = compared(runs, *arms, "drawn_score")
    gain = mean_over_seeds(found.values)
    means = [runs.final(arm, "drawn_score", runs.seeds(arm)).mean() for arm in arms]
    return (
        f"What iteration {LAST - 1} of ReST-EM writes has a log-probability under the source of {number(means[1])} nats a sequence, with as many "
        f"samples at random {number(means[0])}: {interval(gain.value, gain.lo, gain.hi, sign=True)}."
    )


def remembered(members: pd.DataFrame) -> Iterator[str]:
    """Counterfactual memorisation of `subsets`, and the matrix of `experiments`."""
    alone = members[members["arm"].str.startswith("subsets")]
    for metric, unit in (("accuracy", "of the tokens"), ("loss", "nats")):
        found = counterfactual(
            alone.assign(value=alone[metric]), better="lower" if metric == "loss" else "higher"
        )
        mean = found.mean
        yield (
            f"- `subsets`: training on a document {'raises accuracy on' if metric == 'accuracy' else 'lowers the loss of'} it by "
            f"{interval(mean.value, mean.lo, mean.hi)} {unit} over {found.runs} runs; {found.memorised_frac:.0%} of "
            f"{len(found.rows)} documents are significantly memorised by {metric}."
        )
    for metric in ("accuracy", "loss"):
        yield f"- `experiments`: {matrix_sentence(matrix_of(members, metric), metric)}"


def matrix_of(members: pd.DataFrame, metric: str):
    """The matrix of the experiments that share runs."""
    together = members[~members["arm"].str.startswith("subsets")]
    return dependence_matrix(
        together.assign(value=together[metric]), smallest=smallest_effect(REGISTRY["exact_match"], metric),
        better="lower" if metric == "loss" else "higher",
    )  # fmt: skip


def experiments_figure(members: pd.DataFrame) -> Figure:
    """The matrix of the loss."""
    return matrix_figure(matrix_of(members, "loss"), metric="loss")


def arms_figure(runs: Runs) -> Figure:
    """Every arm against its control, by what tokens are."""
    panels, rows = [], []
    for metric, words in METRICS.items():
        drawn = []
        for arm, control in pairs():
            found = difference(runs, arm, control, metric)
            said = interval(found.value, found.lo, found.hi, sign=True)
            label = f"{arm}, against {control}"
            sure = found.lo > 0 or found.hi < 0
            mark = Mark(
                "clear" if sure else "no clear change",
                found.value,
                found.lo,
                found.hi,
                paint("series0" if sure else "muted"),
                f"{label}: {said}",
                filled=sure,
            )
            drawn.append(ForestRow(label, (mark,), said, "ink" if sure else "muted"))
            rows.append(
                {
                    "arm": arm,
                    "against": control,
                    "loss": words,
                    "value": found.value,
                    "lo": found.lo,
                    "hi": found.hi,
                }
            )
        panels.append(Panel(tuple(drawn), "nats", head=f"Loss on {words}"))  # fmt: skip
    return forest(
        panels, title="What arms do to held-out loss, against their controls", look=FULL, table=lambda: pd.DataFrame(rows),
        subtitle="arm minus control, seed by seed · bar: 95% interval over 5 seeds · grey and hollow: it holds 0",
        alt="Differences of held-out loss between arms and their controls, on all tokens, copied tokens and tokens of the table.",
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("arms", nargs="?", type=Path, help="folder of the grid arms")
    parser.add_argument("results", nargs="?", type=Path, help="exact_match of the grid experiments")
    options = parser.parse_args()
    if options.results:
        take_over(options.arms, options.results)
    for path, text in written().items():
        write_text(path, text)
