"""What all verbs share: one declaration per option, help that starts with an example, loading on first use."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, fields
from keyword import iskeyword
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.setting import MAX_SEED
from byrote.cli.output import Output, output_params
from byrote.cli.session import Session
from byrote.cli.settings import unknown_variables, unread_variables

HELP_WIDTH = 100
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH}
_SHARED = {
    ("-q", "--quiet"): "Print only errors; data still goes to stdout.",
    ("-v", "--verbose"): "Print more.",
    ("--no-color",): "No colour; NO_COLOR is honoured too.",
    ("--traceback",): "On an internal error, print the traceback.",
}


class Declared:
    """An option or argument, written once: as the default of a verb's parameter, or as a field of a record.

    Args:
        kind: `click.Option` or `click.Argument`.
        names: such as ``-p``; an option's long name is the parameter's own unless one is given.
        given: as click takes it.
    """

    def __init__(self, kind: type[click.Parameter], names: Sequence[str], **given: Any) -> None:
        self.kind, self.names, self.given = kind, names, given

    def params(self, name: str) -> list[click.Parameter]:
        """What click parses, for a parameter of this name."""
        names = list(self.names)
        if self.kind is click.Option and not any(word.startswith("--") for word in names):
            names.append(f"--{name.replace('_', '-')}")
        return [self.kind([*names, self._key(name)], **self.given)]

    def value(self, name: str, values: Mapping[str, Any]) -> Any:
        """What was typed for it."""
        return values[self._key(name)]

    @staticmethod
    def _key(name: str) -> str:
        """The name in settings and variables: `from_` is a word of Python, `from` what is typed."""
        return name.rstrip("_")


class Record:
    """Several options that become one record: the default of a verb's parameter.

    Args:
        of: a dataclass whose fields are declared options, or have a help text in their metadata.
        only: names of the fields meant, separated by spaces; all if left out.
        make: called with what was typed by name of the field; the dataclass itself if left out.
        typed: leave out what nobody typed or set, so that the default is decided elsewhere.
    """

    def __init__(
        self, of: type, only: str = "", make: Callable[..., Any] | None = None, *, typed: bool = False
    ) -> None:
        self.typed = typed
        parts = [p for p in fields(of) if isinstance(p.default, Declared) or "help" in p.metadata]
        parts = [part for part in parts if not only or part.name in only.split()]
        self.of, self.make = of, make or of
        self.declared = {
            part.name: (part.metadata.get("called", part.name), _setting(part)) for part in parts
        }

    def params(self, name: str) -> list[click.Parameter]:
        """What click parses, for all of them."""
        return [param for called, one in self.declared.values() for param in one.params(called)]

    def value(self, name: str, values: Mapping[str, Any]) -> Any:
        """The record; where nothing was typed for a list, a configuration's own default stands."""
        typed = {part: one.value(called, values) for part, (called, one) in self.declared.items()}
        if self.typed:
            source_of = click.get_current_context().get_parameter_source
            typed = {
                part: value
                for part, value in typed.items()
                if source_of(self.declared[part][0]) is not ParameterSource.DEFAULT
            }
        own = {part.name for part in fields(self.of) if not isinstance(part.default, Declared)}
        return self.make(**{part: value for part, value in typed.items() if value != () or part not in own})


class Whole(click.IntRange):
    """A whole number between limits, of which that of seeds is written as a power."""

    def _describe_range(self) -> str:
        return super()._describe_range().replace(str(MAX_SEED), "2^53")


def record(of: type, only: str = "", make: Callable[..., Any] | None = None, *, typed: bool = False) -> Any:
    """A parameter that is a record, made of the options its fields declare."""
    return Record(of, only, make, typed=typed)


def _setting(part: Field[Any]) -> Declared:
    """The option that a record's field is; `checkpoints.setting.shown` has the keys of its metadata."""
    if isinstance(part.default, Declared):
        return part.default
    given = {name: value for name, value in part.metadata.items() if name != "called"}
    if given.get("multiple"):
        given["callback"] = separated
    if part.name == "probes":
        given["shell_complete"] = probe_names
    help, names = given.pop("help"), given.pop("names", ())
    if "choices" in given:
        given["type"] = click.Choice(given.pop("choices"))
    elif "least" in given:
        given["type"] = Whole(min=given.pop("least"), max=given.pop("most", None))
    elif "path" in given:
        given |= {"metavar": "FILE", "type": click.Path(path_type=Path, **given.pop("path"))}
    elif part.default is False:
        return flag(help, *names)
    return option(help, *names, **{"default": part.default, **given})


def separated(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Words that were repeated, or typed as one word with commas."""
    parts = ((part.strip(), text) for text in value for part in text.split(","))
    return tuple(dict.fromkeys(part for part, text in parts if part or not text.strip(", ")))


def probe_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Completions of the name of a probe, the last of several separated by commas."""
    from byrote.probes.registry import REGISTRY

    before, comma, begun = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in REGISTRY if name.startswith(begun)]


def paths(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completions of a path that may be a pattern or a name instead: those of the shell."""
    return [CompletionItem(incomplete, type="file")]


def option(help: str, *names: str, **given: Any) -> Any:
    """An option: `byrote VERB --parameter-name VALUE`; a default that is not None is shown in the help."""
    return Declared(
        click.Option, names, **{"help": help, "show_default": given.get("default") is not None, **given}
    )


def flag(help: str, *names: str) -> Any:
    """An option without a value."""
    return Declared(click.Option, names, help=help, is_flag=True)


def argument(metavar: str, **given: Any) -> Any:
    """A word of the command line that has no name in front of it; several where the metavar ends in ``...``."""
    many: dict[str, Any] = {"nargs": -1, "required": True} if metavar.endswith("...") else {}
    if "type" not in given and re.search("PATH|RESULT|FOLDER|GRID", metavar):
        many["shell_complete"] = paths
    return Declared(click.Argument, (), **{"metavar": metavar, **many, **given})


def verb(*examples: str) -> Callable[[Callable[..., int | None]], Verb]:
    """Make a function the verb of its name: its docstring is the help, its declared parameters are the options.

    The function is called with the session first. One that takes `out` without declaring it prints data: it gets an
    `Output`, and the verb the options that choose its form.

    Args:
        examples: lines to type, the first shown first.
    """

    def make(function: Callable[..., int | None]) -> Verb:
        defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
        taken = {name: p for name, p in defaults.items() if isinstance(p, Declared | Record)}
        params = [param for name, one in taken.items() for param in one.params(name)]
        prints = defaults.get("out") is inspect.Parameter.empty

        def call(**values: Any) -> int | None:
            session = click.get_current_context().find_object(Session) or Session()
            out = {"out": Output.chosen(session, values.pop("output"))} if prints else {}
            return function(session, **{name: one.value(name, values) for name, one in taken.items()}, **out)

        params += output_params() if prints else []
        help = inspect.getdoc(function)
        return Verb(function.__name__.rstrip("_"), callback=call, params=params, help=help, examples=examples)

    return make


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    setattr(ctx.ensure_object(Session), str(param.name), value)


class _Help(click.HelpFormatter):
    """click's layout of help; below 60 columns, what an option means stands under its name."""

    def __init__(
        self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None
    ) -> None:
        columns = shutil.get_terminal_size().columns
        super().__init__(
            indent_increment, width or (max(columns - 1, 24) if columns < 60 else None), max_width
        )

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Names and meanings."""
        super().write_dl(rows, 4 if self.width < 60 else col_max, col_spacing)


class _Context(click.Context):
    formatter_class = _Help


class _WithExamples(click.Command):
    """A command whose help starts with examples, the first shown first."""

    context_class = _Context

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **extra: Any) -> None:
        super().__init__(*args, **extra)
        self.context_settings = CONTEXT
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, one per line, then click's usual help."""
        if self.examples:
            with formatter.section("Example" if len(self.examples) == 1 else "Examples"):
                for line in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
            formatter.write("\n")
        super().format_help(ctx, formatter)


class Verb(_WithExamples):
    """A command with examples and the options every verb has."""

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        for names, text in _SHARED.items():
            self.params.append(
                click.Option(list(names), is_flag=True, help=text, expose_value=False, callback=_keep)
            )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse options in `[tool.byrote]` that the verb does not have, then parse."""
        known = {str(p.name) for p in self.params if isinstance(p, click.Option)}
        where = ".".join(ctx.command_path.split()[1:])
        session = ctx.find_object(Session)
        for name in ctx.default_map or {}:
            if name not in known:
                raise ByroteError(
                    f"[tool.byrote.{where}] in pyproject.toml sets {name!r}, which is not an option of "
                    f"`{ctx.command_path}`",
                    help=did_you_mean(name, known),
                )
        rest = super().parse_args(ctx, args)
        if session is not None and not ctx.resilient_parsing:
            verbs = getattr(ctx.find_root().command, "verbs", {})
            unread = [*unread_variables(_prefix(ctx), known), *unknown_variables(verbs)]
            ignored = session.settings.ignored_words(where)
            for warning in [*([ignored] if ignored else []), *(unread if where != "doctor" else [])]:
                session.warn(f"warning: {warning}")
        return rest


def _prefix(ctx: click.Context) -> str:
    """``BYROTE_LAB_TRAIN_``: what variables of a verb begin with."""
    return "_".join(ctx.command_path.split()).replace("-", "_").upper() + "_"


class LazyGroup(_WithExamples, click.Group):
    """A group that imports a verb's module only when the verb is called or its own help is requested.

    Args:
        verbs: name -> summary shown in the group's help.
        module: where verbs are defined; a verb may have a module of its own name in it.
        examples: lines to type, the first shown first.
    """

    def __init__(self, *args: Any, verbs: Mapping[str, str], module: str, **extra: Any) -> None:
        super().__init__(*args, no_args_is_help=False, subcommand_metavar="VERB [ARGS]...", **extra)
        self.verbs, self.module = verbs, module

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order they are used."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported now."""
        if cmd_name not in self.verbs:
            return None
        module = importlib.import_module(self.module.format(verb=cmd_name))
        return getattr(module, f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb named by the first argument."""
        name = args[0]
        if name not in self.verbs and ctx.resilient_parsing:  # completion, of `help VERB` or after a slip
            return None, None, args[1:]
        if name not in self.verbs and not name.startswith("-"):
            raise ByroteError(f"{ctx.command_path} has no verb {name!r}", help=did_you_mean(name, self.verbs))
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without arguments, show the help: that is an answer, not an error."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Verbs with their summaries, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(self.verbs.items()))


def commands(root: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Every command below a group with its full name, such as ``byrote lab train``, groups included."""
    yield str(root.info_name), root.command
    if isinstance(root.command, LazyGroup):
        for name in root.command.verbs:
            command = root.command.get_command(root, name)
            if command is not None:
                yield from commands(click.Context(command, info_name=f"{root.info_name} {name}"))
