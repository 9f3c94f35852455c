"""docs/cli.md, written from the commands themselves: ``python tests/cli_page.py > docs/cli.md``."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Sequence

import click

from byrote.cli import settings
from byrote.cli.command import LazyGroup, Verb, commands
from byrote.cli.main import cli
from byrote.cli.output import FORCED, Column
from byrote.cli.session import MEANING
from byrote.probes.gate import grammar

SHARED = frozenset({"quiet", "verbose", "no_color", "traceback"})
_WITH_COLUMNS = (
    "scan",
    "lint",
    "verify",
    "show",
    "compare",
    "check",
    "degrade",
    "graft",
    "logits",
    "text",
    "reproduce",
)
_INTRO = """# The command line

Written by `python tests/cli_page.py > docs/cli.md`; a test compares the two.

`byrote help VERB` says the same in the terminal, and `byrote completion --install` lets the shell complete it. stdout carries data only; progress, notes and errors go to stderr."""
_OUTPUT = """## Output

A table when stdout is a terminal, tidy CSV otherwise; these options of `scan`, `lint`, `probes`, `verify`, `show`, `compare`,
`check`, `degrade`, `text`, `reproduce`, `selftest` and `doctor` force a form:

{options}

In JSON what is not there is `null`, and a number that was not measured has a `reason`; NaN never appears. In CSV it is an
empty cell. Control characters in names that come from files are replaced in tables and CSV, escaped in JSON.
Text of CSV that a spreadsheet would take for a formula has an apostrophe before it."""
_ERRORS = """## Errors

Two lines on stderr, `error:` with what was requested and found, `help:` with what to do. With `--json` or `--jsonl` they are
one object, `{"error": ..., "help": ..., "exit": 2}`. An unexpected error prints one line and saves its traceback to a file;
`--traceback` prints it."""
_SETTINGS = """## Settings

Options win over `BYROTE_*` variables, those over `[tool.byrote]` in the pyproject.toml of the working directory, that over
defaults. The variable of `byrote run --device` is `BYROTE_RUN_DEVICE`, that of `byrote lab train --d-model` is
`BYROTE_LAB_TRAIN_D_MODEL`. `byrote doctor` lists what is set and which won. `NO_COLOR` is honoured.

```toml
{example}
```

{prose}"""
_EXPECT = """## Checks: `--expect FILE`

{prose}

```toml
{example}
```

[docs/gate.md](gate.md) has every rule with examples."""


def reference() -> str:
    """The whole page, Markdown."""
    return "\n\n".join(_parts()).rstrip() + "\n"


def _parts() -> Iterator[str]:
    yield _INTRO
    for name, command in commands(click.Context(cli, info_name="byrote")):
        yield from _command(name, command)
    scan = importlib.import_module("byrote.cli.scan").scan
    context = click.Context(scan, info_name="byrote scan", **scan.context_settings)
    shared = [(names, meaning) for names, meaning, _ in _options(scan, context, shared=True)]
    yield "## Options every verb has\n\n" + _table(("option", "meaning"), shared)
    options = [(_names(names), help) for names, (_, help) in FORCED.items()]
    yield _OUTPUT.format(options=_table(("option", "meaning"), options))
    yield "## Exit codes\n\n" + _table(("code", "meaning"), [(str(c), m) for c, m in MEANING.items()])
    yield _ERRORS
    document = settings.__doc__ or ""
    yield _SETTINGS.format(example=_indented(document), prose="\n\n".join(_prose(document)[-2:]))
    document = grammar.__doc__ or ""
    yield _EXPECT.format(prose="\n\n".join(_prose(document)), example=_indented(document))


def _command(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=name, **command.context_settings)
    yield f"## {name}"
    if isinstance(command, Verb | LazyGroup):
        yield "```sh\n" + "\n".join(command.examples) + "\n```"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"`{name} {usage}`"
    yield from (_unwrapped(block) for block in inspect.cleandoc(command.help or "").split("\n\n"))
    if isinstance(command, LazyGroup):
        verbs = [(f"`{verb}`", summary) for verb, summary in command.verbs.items()]
        yield _table(("verb", "does"), verbs)
    rows = list(_options(command, context, shared=False))
    if rows:
        yield _table(("option", "meaning", "default"), rows)
    if isinstance(command, Verb):
        prints = any(param.name == "output" for param in command.params)
        also = "the [output options](#output) and " if prints else ""
        yield f"Also {also}the [options every verb has](#options-every-verb-has)."
    if (verb := name.split()[-1]) in _WITH_COLUMNS:
        columns: tuple[Column, ...] = importlib.import_module(f"byrote.cli.{verb}").COLUMNS
        listed = ", ".join(f"`{column.name}`" for column in columns if not column.name.startswith("_"))
        yield f"Columns of its CSV and JSON: {listed}."


def _options(
    command: click.Command, context: click.Context, *, shared: bool
) -> Iterator[tuple[str, str, str]]:
    """Names, meaning and default of a command's own options, or of those that every verb has."""
    for option in command.get_params(context):
        if not isinstance(option, click.Option) or option.name == "output":
            continue
        if (option.name in SHARED or "--help" in option.opts) != shared:
            continue
        shown = option.get_help_extra(context).get("default") if option.show_default else None
        yield (
            _names((*option.opts, *option.secondary_opts), _value_of(option)),
            option.help or "",
            shown or "",
        )


def _value_of(option: click.Option) -> str:
    if option.is_flag:
        return ""
    if isinstance(option.type, click.Choice) and not option.metavar:
        return "|".join(str(choice) for choice in option.type.choices)
    return option.metavar or option.type.name.upper()


def _names(names: tuple[str, ...], value: str = "") -> str:
    return ", ".join(f"`{name}`" for name in names) + (f" `{value}`" if value else "")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _prose(document: str) -> list[str]:
    """The paragraphs of a docstring, its example apart."""
    return [_unwrapped(block) for block in document.strip().split("\n\n") if not block.startswith("    ")]


def _unwrapped(block: str) -> str:
    return re.sub(r"\s*\n\s*", " ", block)


def _indented(document: str) -> str:
    """The indented example of a docstring."""
    lines = document.splitlines()
    block = [line[4:] for line in lines if line.startswith("    ") or not line.strip()]
    return "\n".join(block).strip("\n")


if __name__ == "__main__":
    click.echo(reference(), nl=False)
