"""docs/gallery.md and its pictures: every figure of `br.figures`, drawn from runs by the line that docs/figures.md has for it.

    PYTHONPATH=tests python tests/gallery_page.py FOLDER

Trains and measures what is missing in FOLDER (15 small runs), takes the rest from the runs that docs/claims and docs/lab hold, and
draws. tests/test_tutorials.py requires that no figure is missing and that the page is the one written here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import byrote as br
from byrote.checkpoints.atomic import make_folder, write_text
from byrote.probes.attention import attention_file, stored_pattern, stored_texts
from byrote.probes.claims.runs_table import read_runs
from byrote.probes.degrade.runs import RUN_COLUMNS
from byrote.probes.text import TextSettings, measure_text

DOCS = Path(__file__).parents[1] / "docs"
PAGE, PICTURES = DOCS / "gallery.md", DOCS / "images" / "gallery"
LINES = re.compile(r"^\| `(br\.figures\.(\w+)\(.*\))` \| (.+) \|$", flags=re.MULTILINE)
# The runs of the tutorial "Unique against repeated".
GRID = """recipe = "tiled-4-heads"
seeds = 5
checkpoints = 11

[arms.unique]

[arms.control]
kind = "control"
share = 0.5
pool_size = 16
control = "unique"

[arms.repeated]
kind = "repeated"
share = 0.5
pool_size = 16
control = "control"
"""
OF_ALL = ("induction", "previous_token", "repeat_loss", "held_out_loss")
OF_ONE = ("default", "in_context_markov", "pruned_heads", "pruned_memory", "recall_vs_copy", "edge_attribution", "induction_circuit")  # fmt: skip
SECTIONS = {
    "Heads": (
        "head_grid", "grid_steps", "trajectory", "timeline", "attention", "attention_over_steps", "offset_profile", "circuit", "faithfulness", "pruned_heads",
        "in_context_markov", "change_grid",
    ),
    "The loss": ("loss_curves", "training_loss", "copy_curve", "loss_by_position"),
    "Run against run": ("differences", "difference_grid", "head_scatter"),
    "Arms of several seeds": ("arm_grids", "seed_curves", "displacement", "double_descent", "claim"),
    "Memory": ("memory_plane", "member_flow", "recall_shares", "pruned_memory"),
    "Doses and sizes": (
        "dose_response", "damage_of_arms", "effective_sizes", "preferential_damage", "capacity", "extraction", "effective_data", "dependence_matrix",
    ),
    "Text, and what was measured": ("density", "coverage"),
}  # fmt: skip
WIDE = (
    "differences",
    "preferential_damage",
    "grid_steps",
    "arm_grids",
    "timeline",
    "coverage",
    "claim",
    "circuit",
    "displacement",
    "damage_of_arms",
)


def lines() -> dict[str, tuple[str, str]]:
    """Name of a figure -> (the line that draws it, what it shows), from docs/figures.md."""
    found = LINES.findall((DOCS / "figures.md").read_text(encoding="utf-8"))
    return {name: (line, shows) for line, name, shows in found}


def measured(folder: Path) -> Path:
    """Results of the runs, trained and measured as far as they are missing."""
    make_folder(folder)
    write_text(folder / "arms.toml", GRID)
    for verb in (
        ["lab", "train", "runs", "--grid", "arms.toml", "--jobs", "1"],
        ["run", "runs/*/*/*", "-o", "results", "-p", ",".join(OF_ALL)],
        ["run", "runs/*/*/seed0", "-o", "results", "--save-attention", "-p", ",".join(OF_ONE)],
    ):
        subprocess.run([sys.executable, "-m", "byrote", *verb], cwd=folder, check=True)
    return folder / "results"


def of_table(where: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The last values of runs in a table of claims, as `br.degrade.run_rows` gives those of results folders."""
    last = where.dropna(subset=[metric])
    last = last[last["step"] == last.groupby(["arm", "size", "init_seed"])["step"].transform("max")]
    rows = last.rename(columns={metric: "value"}).assign(
        run=last["arm"] + "-" + last["size"] + "-" + last["init_seed"].astype(str), sequence_var=0.0, n=1, samples=None,
        probe="held_out_loss", metric="loss", unit="nats", better="lower", smallest=0.05,
    )  # fmt: skip
    return rows.reindex(columns=list(RUN_COLUMNS)).astype({"samples": object}).reset_index(drop=True)


def names(results: Path) -> dict[str, Any]:
    """What docs/figures.md calls its runs and tables."""
    found: dict[str, Any] = {"br": br}
    for name, arm in {"unique": "unique", "plain": "control", "repeated": "repeated"}.items():
        found[name] = br.Results.open(results / f"{arm}-d32-seed0")
    found["both"] = [found["unique"], found["repeated"]]
    found["every"] = [
        br.Results.open(one) for one in sorted(results.iterdir()) if (one / "run.json").exists()
    ]
    found["seeds"] = br.groups_of(found["every"])
    found["comparison"] = br.compare(found["unique"], found["repeated"])
    kept = attention_file(found["unique"].path, found["unique"].steps[-1])
    found["text"] = stored_pattern(kept, stored_texts(kept)[0], layer=1, head=0)
    arms = {one.name.split()[0]: one for one in found["seeds"]}
    found["shares"], _ = br.degrade.displacement(arms["control"], arms["repeated"])
    found["corpora"] = corpora(results.parent)
    found |= of_claims(read_runs(DOCS / "claims" / "runs.parquet"))
    found["experiments"] = experiments()
    return found


def of_claims(runs: pd.DataFrame) -> dict[str, Any]:
    """Doses, sizes, bits and shares extracted of the runs that docs/claims holds."""
    found: dict[str, Any] = {"runs": runs}
    grid = dict(iter(runs.groupby("grid")))
    pools = grid["hernandez"][grid["hernandez"]["arm"].str.startswith("P")]
    half = grid["hernandez"][grid["hernandez"]["arm"] == "half"]
    found["doses"] = br.degrade.dose_response(
        of_table(pools, "test_loss"), "pool", baseline=of_table(half, "test_loss")
    )
    generations = grid["generations"]
    real = generations["arm"] == "real"
    bred = generations["arm"].str.contains("-g")
    found["damage"] = br.degrade.damage_by_arm(
        of_table(generations[bred], "test_loss"), of_table(generations[real], "test_loss")
    )
    ladder = grid["ladder"]
    of_none, worst = (
        ladder[ladder["arm"] == "none"],
        ladder[ladder["arm"].isin(["half-P64", "low-P16", "low-P4"])],
    )
    found["sizes"] = br.degrade.effective_size(
        of_table(of_none, "test_loss"), of_table(worst, "test_loss"), floor=float(of_none["test_floor"].max())
    )
    copying = br.degrade.effective_size(
        of_table(of_none, "copy_loss"), of_table(worst, "copy_loss"), how="interpolate"
    )
    found["harder"] = br.degrade.preferential_damage(copying, found["sizes"])
    found["bits"] = br.degrade.capacity(
        of_table(grid["capacity"][grid["capacity"]["size"] == "d16"], "bits_per_parameter")
    )
    planted = grid["planted"]
    planted = planted[(planted["size"] == "d32") & (planted["step"] == planted["step"].max())]
    times = planted["arm"].str.extract(r"(\d+)$")[0].astype(float)
    counts = planted.assign(
        duplicates=times, run=planted["init_seed"].astype(str), members=planted["n_members"]
    )
    counts = counts[counts["duplicates"] > 0].dropna(subset=["extracted", "n_members"])
    found["extracted"] = br.degrade.extraction_threshold(
        counts.assign(extracted=(counts["extracted"].clip(0, 1) * counts["members"]).round())
    )
    epochs = of_table(grid["epochs"], "test_loss")
    short = epochs["run"].str.contains("-short-")
    once = pd.Series(np.where(short, 16_000.0, 32_000.0), epochs.index)  # sequences of a run
    total = epochs["arm"].str[1:].where(epochs["arm"] != "unique").astype(float).fillna(once)
    again = (epochs["arm"] == "c16000") & short  # once through it: the fresh data again
    epochs = epochs.assign(unique_tokens=total, epochs=once / total)[~again]
    found["passes"] = br.degrade.fit_r_star(epochs, n_draws=100)
    return found


def experiments() -> Any:
    """What training on each of the lab's four experiments does to each other one, in nats."""
    members = pd.read_parquet(DOCS / "lab" / "members.parquet")
    mine = members[members["arm"] == "experiments"].rename(columns={"loss": "value"})
    return br.degrade.dependence_matrix(mine, smallest=0.05, better="lower")


def corpora(folder: Path) -> pd.DataFrame:
    """Densities of words drawn from one law, from it again, and from it at temperature 0.7, as docs/text.md makes them."""
    law = 1 / np.arange(1, 20_001)
    for seed, (name, temperature) in enumerate({"human": 1.0, "again": 1.0, "synthetic": 0.7}.items()):
        p = law ** (1 / temperature)
        words = np.random.default_rng(seed).choice(20_000, size=(300, 256), p=p / p.sum())
        write_text(
            folder / f"{name}.txt", "<|endoftext|>".join(" ".join(f"w{i}" for i in row) for row in words)
        )
    paths = [folder / "again.txt", folder / "synthetic.txt"]
    return measure_text(paths, TextSettings(measures=("density",)), reference=folder / "human.txt")


def page() -> str:
    """docs/gallery.md."""
    known = lines()
    parts = [
        "# Gallery",
        "Every figure of `br.figures`, with the line that draws it. [Figures](figures.md) defines the names in those lines, and explains "
        'what a figure contains and how to save one for a paper: `br.figures.save(fig, "heads.svg", "column")`.',
        "`PYTHONPATH=tests python tests/gallery_page.py FOLDER` drew them, from the runs of the tutorial [Unique against "
        "repeated](tutorials/unique-against-repeated.md) and, where many doses or sizes are needed, from the runs behind [the "
        "claims](claims.md) and [the lab](lab.md).",
    ]
    for title, figures in SECTIONS.items():
        parts.append(f"## {title}")
        for name in figures:
            line, shows = known[name]
            parts += [
                f"### {name}",
                shows,
                f"```python\n{line}\n```",
                f"![{shows}](images/gallery/{name}.svg)",
            ]
    return "\n\n".join(parts) + "\n"


def draw(found: dict[str, Any]) -> None:
    """Every picture, from the names of `names`; one that cannot be drawn is an error."""
    make_folder(PICTURES)
    for name, (line, _) in lines().items():
        fig = eval(line, dict(found))
        br.figures.save(fig, PICTURES / f"{name}.svg", "page" if name in WIDE else "column")


if __name__ == "__main__":
    draw(names(measured(Path(sys.argv[1]))))
    write_text(PAGE, page())
