"""`import byrote as br`: everything by one name, loaded when it is used, nothing heavy before that."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import click
import pytest

import byrote as br
from byrote.cli.command import commands
from byrote.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
LIGHT = (
    "ByroteError",
    "CheckpointSeries",
    "Monitor",
    "Results",
    "circuit_overlap",
    "compare",
    "figures",
    "measure",
    "onset",
    "open_runs",
    "open_series",
)


def test_every_name_is_there_and_is_what_its_module_calls_it() -> None:
    assert set(br.__all__) >= {*LIGHT, "capture", "load", "__version__"}
    for name in set(br.__all__) - {"__version__"}:
        found, module = getattr(br, name), importlib.import_module(br._FROM[name])
        assert found is getattr(module, name, module)


def test_completion_lists_the_names_and_nothing_else() -> None:
    assert dir(br) == sorted(br.__all__)


def test_a_name_that_is_not_there_names_the_module() -> None:
    with pytest.raises(AttributeError, match="module 'byrote' has no attribute 'mesure'"):
        br.mesure  # noqa: B018
    assert not hasattr(br, "_repr_html_")


@pytest.mark.parametrize(
    "package",
    ["checkpoints", "checkpoints.lab", "interp", "probes", "probes.results", "probes.text"],
)
def test_every_package_completes_and_misses_names_alike(package: str) -> None:
    found = importlib.import_module(f"byrote.{package}")
    assert set(found._LAZY) <= set(dir(found))
    assert all(hasattr(found, name) for name in dir(found))
    with pytest.raises(AttributeError, match=rf"^module 'byrote\.{package}' has no attribute 'mesure'$"):
        found.mesure  # noqa: B018


def test_checkers_see_the_names_that_are_loaded_lazily() -> None:
    shown = re.findall(
        r"^    from \S+ import (\w+) as \w+$", (ROOT / "app/__init__.py").read_text(), re.MULTILINE
    )
    assert sorted(shown) == sorted(br._FROM)


def test_importing_is_light_and_looking_loads_no_torch(run_python) -> None:
    code = f"""
import sys
import byrote as br
print([m for m in ("numpy", "pandas", "torch", "plotly", "click") if m in sys.modules])
for name in {LIGHT!r}:
    getattr(br, name)
br.figures.trajectory
dir(br.integrations)
print([m for m in ("torch", "transformers", "lightning", "wandb", "streamlit") if m in sys.modules])
"""
    assert run_python(code) == "[]\n[]"


def test_code_in_the_readme_uses_names_that_are_there() -> None:
    used = set(re.findall(r"\bbr\.(\w+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert used and used <= set(br.__all__)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda run: br.measure(run, steps="log:4"), "no setting 'steps'. choose steps from the series"),
        (lambda run: br.measure(run, sequnces=8), "no setting 'sequnces'. did you mean 'sequences'"),
        (lambda run: br.measure(run, sequences=0), "sequences=0 is too small. give 1 or more"),
        (lambda run: br.measure(run, device="gpu"), "no device 'gpu'. use cpu, cuda"),
        (lambda run: br.load(run, device="gpu"), "no device 'gpu'. use cpu, cuda"),
        (lambda run: br.load(run, dtype="int8"), "no dtype 'int8' for parameters. use float32"),
        (lambda run: br.open_series(run).nearest("x"), "'x' is not a training step. give a whole number"),
        (lambda run: br.open_series(run).at("last"), "'last' is not a training step. give a whole number"),
        (lambda run: br.measure(run, sequences=10**9), "is too large. give 100,000 or less"),
        (lambda run: br.measure(run, n_seq="many"), "n_seq='many' is not a whole number"),
        (lambda run: br.measure(run, dtype="int8"), "dtype='int8' is unknown. choose from"),
        (
            lambda run: br.measure(run, text=str(run / "manifes.json")),
            "does not exist. did you mean 'manifest",
        ),
        (lambda run: br.measure(run, members=3), "members=3 is not a path"),
        (lambda run: br.measure(run, []), "names no probe"),
        (lambda run: br.compare(br.open_series(run), run), "holds checkpoints, not results"),
        (lambda run: br.group("a", 3), "3 is neither results nor the path of some"),
        (lambda run: br.group("a", f"{run}/seed*"), "matches no folder"),
        (lambda run: br.ablate(run, []), "no head is named"),
        (lambda run: br.ablate(run, "L1H0", sequences=-3), "sequences=-3 is not a number of sequences"),
        (lambda run: br.Stimulus.from_tokens([[1, 2]], copies=10**9), "not a number of copies"),
        (lambda run: br.Stimulus.from_tokens([[0.5, 2]]), r"this is float64 of shape \[1, 2\]. such as"),
        (lambda run: br.compare(run), "missing a required argument: 'b'. it needs a, b"),
        (lambda run: br.compare({}, run, aling="step"), "has no argument 'aling'. did you mean 'align'"),
        (
            lambda run: br.figures.trajectory(run, "induction"),
            "nothing more without a name. name the rest: probe=",
        ),
        (lambda run: br.figures.trajectory([], probe="induction"), "no run was given"),
        (lambda run: br.export(None, run / "play.html"), "results=None is not a path"),
        (lambda run: br.probe(br.onset), "@probe stands without its description"),
    ],
)
def test_a_mistake_in_a_notebook_is_one_error_with_advice(call, words, lab_series):
    with pytest.raises(br.ByroteError, match=words):
        call(lab_series(1))


WRONG_TYPES = {
    "br.open_runs(None)": "None is not a path of checkpoints",
    "br.open_series({})": "a dict is not a path of checkpoints",
    "br.onset(None)": "None is neither results nor the path of some",
    "br.onset({})": "a dict is not the results of one run",
    "br.compare([], [])": "a list is not the results of one run",
    "br.figures.save(None, 'x.svg')": "fig=None is not a figure",
    "br.import_scores(None, 'scores')": "frame_or_path=None is not a path",
    "br.export(None, 'play.html')": "results=None is not a path",
}


def test_another_type_is_one_error_too_where_nothing_checks_types(run_python) -> None:
    calls = "\n".join(f"    lambda: {call}," for call in WRONG_TYPES)
    printed = run_python(
        f"import byrote as br\nfor call in (\n{calls}\n):\n    try: call()\n    except br.ByroteError as error: print(error)"
    )
    for line, words in zip(printed.splitlines(), WRONG_TYPES.values(), strict=True):
        assert words in line


# An option that has another name in Python, or none there: why.
OTHERWISE = {
    "from": "from_step: a word of Python",
    "into": "into_step: as from_step",
    "disk-budget": "disk_budget_bytes: another unit",
    "threads": "of the process: torch.set_num_threads",
    "group": "compare_groups takes groups",
    "top": "of the table that is printed",
    "expect": "a gate: byrote check",
    "open": "a browser is opened",
    "losses": "with_losses(series, read_losses(file))",
    "loss-name": "as losses",
}


@pytest.mark.parametrize(
    ("verb", "functions"),
    [
        ("graft", (br.graft, br.open_series)),
        ("import", (br.import_scores,)),
        ("export", (br.export,)),
        ("compare", (br.compare,)),
        ("scan", (br.open_series,)),
    ],
)
def test_an_option_has_one_name_on_the_command_line_and_in_python(verb, functions):
    command = dict(commands(click.Context(cli, info_name="byrote")))[f"byrote {verb}"]
    names = {
        max(param.opts, key=len).removeprefix("--")
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
    }
    names -= {"table", "csv", "json", "jsonl", "quiet", "verbose", "no-color", "traceback", "help"}
    taken = {
        name.replace("_", "-") for function in functions for name in inspect.signature(function).parameters
    }
    assert names - taken <= OTHERWISE.keys(), sorted(names - taken)
