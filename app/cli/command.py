"""What all verbs share: help that starts with an example, the four options every verb has, loading on first use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.cli.session import Session

HELP_WIDTH = 100
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH}


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    setattr(ctx.ensure_object(Session), str(param.name), value)


def _shared_options() -> list[click.Option]:
    flags = {
        ("-q", "--quiet"): "Say nothing but errors; data still goes to stdout.",
        ("-v", "--verbose"): "Say more.",
        ("--no-color",): "No colour; NO_COLOR is honoured too.",
        ("--traceback",): "On an internal error, print the traceback.",
    }
    return [
        click.Option(list(names), is_flag=True, help=text, expose_value=False, callback=_keep)
        for names, text in flags.items()
    ]


class Verb(click.Command):
    """A command whose help starts with examples and which has the shared options.

    Args:
        examples: lines to type, the first shown first.
    """

    def __init__(self, *args: Any, examples: tuple[str, ...] = (), **extra: Any) -> None:
        extra.setdefault("context_settings", CONTEXT)
        super().__init__(*args, **extra)
        self.examples = examples
        self.params += _shared_options()

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, then click's usual help."""
        write_examples(formatter, self.examples)
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse options in `[tool.byrote]` that the verb does not have, then parse."""
        known = {str(p.name) for p in self.params if isinstance(p, click.Option)}
        for name in ctx.default_map or {}:
            if name not in known:
                where = ".".join(ctx.command_path.split()[1:])
                raise ByroteError(
                    f"[tool.byrote.{where}] in pyproject.toml sets {name!r}, which is no option of "
                    f"`{ctx.command_path}`",
                    help=did_you_mean(name, known),
                )
        return super().parse_args(ctx, args)


class LazyGroup(click.Group):
    """A group that imports a verb's module only when the verb is called or its own help is asked for.

    Args:
        verbs: name -> (module, summary shown in the group's help).
        examples: lines to type, the first shown first.
    """

    def __init__(
        self,
        *args: Any,
        verbs: Mapping[str, tuple[str, str]],
        examples: tuple[str, ...] = (),
        **extra: Any,
    ) -> None:
        extra.setdefault("context_settings", CONTEXT)
        super().__init__(*args, no_args_is_help=False, subcommand_metavar="VERB [ARGS]...", **extra)
        self.verbs, self.examples = verbs, examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs in the order they are used."""
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported now."""
        if cmd_name not in self.verbs:
            return None
        return getattr(importlib.import_module(self.verbs[cmd_name][0]), cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb named by the first argument."""
        name = args[0]
        if name not in self.verbs and not name.startswith("-"):
            raise ByroteError(f"{ctx.command_path} has no verb {name!r}", help=did_you_mean(name, self.verbs))
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without arguments, show the help: that is an answer, not an error."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, then click's usual help."""
        write_examples(formatter, self.examples)
        super().format_help(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Verbs with their summaries, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.verbs.items()])


def write_examples(formatter: click.HelpFormatter, examples: tuple[str, ...]) -> None:
    """The examples, one per line."""
    if examples:
        with formatter.section("Example" if len(examples) == 1 else "Examples"):
            for line in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        formatter.write("\n")
