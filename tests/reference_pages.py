"""docs/api.md and docs/settings.md, written from the code: ``python tests/reference_pages.py``. A test compares."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import click

import byrote as br
from byrote import integrations
from byrote.checkpoints.atomic import SYNC_VARIABLE
from byrote.cli import settings
from byrote.cli.command import Verb, commands
from byrote.cli.main import cli
from byrote.dashboard.state import VARIABLE as STATE_VARIABLE

DOCS = Path(__file__).parents[1] / "docs"
# What a notebook uses, in the order in which it does; a test requires that all of `br` is here.
GROUPS = {
    "Open checkpoints": "open_series open_runs CheckpointSeries load",
    "Measure": "measure Results Stimulus probe stimulus import_scores",
    "Query results": "onset compare group groups_of compare_groups circuit_overlap export",
    "Look inside a model, and intervene": "capture ablate clamp graft",
    "While a model trains": "Monitor",
    "Errors": "ByroteError",
}
_API = """# The Python API

Written by `python tests/reference_pages.py`; a test compares. The site has every signature and docstring below the tables; in a
notebook, `help(br.measure)` prints the same.

```python
import byrote as br

results = br.measure(br.open_series("runs/mine"))
results["prefix_matching"].top(5)
br.figures.trajectory(results["prefix_matching"])
```

Names are loaded on first use: opening a series or looking at results never imports torch; measuring does. Wherever a function takes
results, it also accepts the path of a results folder."""
_SETTINGS = """# Settings

Written by `python tests/reference_pages.py`; a test compares.

Every option of every verb has a key and a variable. An option on the command line takes precedence over its variable, the variable
over `[tool.byrote]` in the pyproject.toml of the working directory, and that over the default. `byrote doctor` lists what is set,
where, and which settings nothing reads.

```toml
[tool.byrote.run]
device = "cuda"
sequences = 64

[tool.byrote.lab.train]
threads = 4
```

A key is an option's long name, with dashes or underscores; `output = "json"` stands for `--json`. A variable is `BYROTE_`, the verb and
the option: `BYROTE_RUN_DEVICE`, `BYROTE_LAB_TRAIN_D_MODEL`. [The command line](cli.md) explains each option.

The folder in which a command is started may belong to someone else. Keys marked *not from a file* reach the network or other
machines, run code, or discard stored data: they are read from the command line and from variables only. The same applies to paths
outside the folder in keys marked *inside the folder*."""
_FORMS = "`table` on a terminal, else `csv`; or `json`, `jsonl`"
_OTHER = {
    SYNC_VARIABLE: "`0` writes without waiting for the disk (faster on slow disks; a power cut may then lose what was reported as written)",
    STATE_VARIABLE: "folder in which the dashboard stores its jobs and texts (`~/.local/state/byrote` on Linux)",
    "NO_COLOR": "set to anything: no colour in the terminal",
    "COLUMNS": "width of tables in characters where stdout is not a terminal",
    "HF_HUB_OFFLINE": "`1`: nothing is downloaded from the Hub, regardless of the options",
}


def first_sentence(thing: object) -> str:
    """First line of a docstring."""
    return (inspect.getdoc(thing) or "").split("\n")[0]


def api_page() -> str:
    """docs/api.md."""
    parts = [_API]
    for title, names in GROUPS.items():
        parts += [f"## {title}", _names("br", br, names.split())]
    parts += [
        "## Figures: `br.figures`",
        "Every function takes results first and returns a plotly figure that says what it shows in `fig.alt` and holds its data in "
        "`fig.table`; [figures](figures.md) has a line of code for each.",
        _names("br.figures", br.figures, br.figures.__all__),
        "## In training: `byrote.integrations`",
        "[Measuring while a model trains](training.md) has complete scripts.",
        _names("byrote.integrations", integrations, integrations.__all__),
        "## Degradation: `br.degrade`",
        "[The measures](degradation/README.md), each with its card.",
        _names("br.degrade", br.degrade, br.degrade.__all__),
    ]
    return "\n\n".join(parts) + "\n"


def _names(prefix: str, module: ModuleType, names: Sequence[str]) -> str:
    rows = [(f"`{prefix}.{name}`", first_sentence(_documented(module, name))) for name in names]
    return _table(("name", "is"), rows)


def settings_page() -> str:
    """docs/settings.md."""
    return "\n\n".join(_settings_parts()) + "\n"


def _settings_parts() -> Iterator[str]:
    yield _SETTINGS
    for name, command in commands(click.Context(cli, info_name="byrote")):
        if isinstance(command, Verb):
            rows = list(dict.fromkeys(_keys(name.removeprefix("byrote "), command)))
            yield f"## [{name}](cli.md#{name.replace(' ', '-')})"
            yield _table(("key", "variable", "default", "restriction"), rows)
    yield "## Other variables"
    yield _table(("variable", "does"), [(f"`{name}`", meaning) for name, meaning in _OTHER.items()])


def _keys(verb: str, command: click.Command) -> Iterator[tuple[str, str, str, str]]:
    context = click.Context(command, info_name=verb, **command.context_settings)
    shared = {"quiet", "verbose", "no_color", "traceback"}
    for option in command.params:
        if not isinstance(option, click.Option) or option.name is None or option.name in shared:
            continue
        if option.name == "output":
            yield "`output`", f"`{settings.PREFIX}{verb.replace(' ', '_').upper()}_OUTPUT`", _FORMS, ""
            continue
        shown = option.get_help_extra(context).get("default") if option.show_default else None
        where = "not from a file" if option.name in settings.BY_HAND else ""
        if (verb.replace(" ", "_"), option.name) in settings.WRITTEN:
            where = "inside the folder"
        variable = settings.PREFIX + f"{verb}_{option.name}".replace(" ", "_").upper()
        yield f"`{option.name}`", f"`{variable}`", shown or "", where


def _documented(module: ModuleType, name: str) -> object:
    """What a name is; of a callback whose library is not installed, a stand-in with its docstring."""
    try:
        return getattr(module, name)
    except br.ByroteError:
        source = find_spec(module._LAZY[name]).origin
        classes = [
            n
            for n in ast.walk(ast.parse(Path(source).read_text(encoding="utf-8")))
            if isinstance(n, ast.ClassDef)
        ]
        return type(name, (), {"__doc__": next(ast.get_docstring(n) for n in classes if n.name == name)})


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    (DOCS / "api.md").write_text(api_page(), encoding="utf-8")
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
