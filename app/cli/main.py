"""The `byrote` command: a group of verbs, each imported only when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.cli.command import LazyGroup
from byrote.cli.encoding import print_anywhere
from byrote.cli.session import Session, guarded
from byrote.cli.settings import former_variable, read_settings

VERBS = {
    "lab": "Train small controlled series of checkpoints.",
    "scan": "List the checkpoints in a folder; no model is loaded.",
    "lint": "Look for duplicated, exchanged, damaged and missing steps; no model is loaded.",
    "probes": "List the probes, or print one probe's card.",
    "run": "Measure every checkpoint; the same command again does only what is missing.",
    "watch": "Measure checkpoints as training writes them; stop a run that breaks its gate.",
    "import": "Make results of published scores, which have no samples.",
    "verify": "Check that results are as they were written; nothing is changed.",
    "show": "Print the top heads at a step, or events over training.",
    "compare": "Compare two runs, or two arms of several seeds: differences and onsets.",
    "check": "Check results against the rules of a gate, for pipelines.",
    "degrade": "Measure what repeated or synthetic data cost: in model sizes, over doses, over seeds.",
    "report": "Write a self-contained HTML report, with its data as JSON and CSV.",
    "export": "Write one HTML file that plays a run, and another beside it, over training.",
    "dashboard": "Explore results in the browser: heads and circuits across training steps.",
    "graft": "Put heads of one step into another, and measure how much of the loss difference they restore.",
    "logits": "Measure what a later step adds to an earlier step's logits.",
    "text": "Measure a corpus: repetition, concentration, near-duplicates, lost tails.",
    "reproduce": "Test claims of papers on small runs that are trained here.",
    "selftest": "Validate probes on planted models whose answers are known.",
    "doctor": "Check versions, device, memory, disk and configuration.",
    "completion": "Print or install completion of verbs and options for a shell.",
}


class Byrote(LazyGroup):
    """The top group: exceptions become exit codes here and nowhere else."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run one command line and leave with its exit code."""
        typed = list(sys.argv[1:] if args is None else args)
        explained: list[str] = []
        if typed[:1] == ["help"]:
            explained = typed[1:]
            typed = [*explained, "--help"]
        for stream in (sys.stdout, sys.stderr):
            print_anywhere(stream)
        session = Session(tuple(typed), settings=read_settings(Path.cwd()))
        extra = {**extra, "standalone_mode": False, "obj": session, "auto_envvar_prefix": "BYROTE"}
        extra["default_map"] = session.settings.table

        def call() -> Any:
            self.refuse_further(explained)
            return super(Byrote, self).main(typed, "byrote", **extra)

        sys.exit(guarded(call, session))

    def refuse_further(self, words: Sequence[str]) -> None:
        """Refuse what is given to `byrote help` after a verb; a verb that there is not is refused as without `help`.

        Args:
            words: typed after `help`.
        """
        command: click.Command | None = self
        for place, word in enumerate(words):
            if word.startswith("-") or command is None:
                return
            if not isinstance(command, click.Group):
                verb = " ".join(words[:place])
                raise ByroteError(
                    f"byrote help takes one verb, and {word!r} was given after {verb}",
                    help=f"byrote help {verb}",
                )
            command = command.get_command(click.Context(command), word)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; a reader that has what it wanted (`byrote show ... | head`) is no error."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(
                os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
            )  # the interpreter flushes once more
            return 0
        return code


def _version(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        from importlib import metadata

        click.echo(f"byrote {metadata.version('byrote')}")
        ctx.exit()


@click.group(
    cls=Byrote,
    verbs=VERBS,
    module="byrote.cli.{verb}",
    examples=(
        "byrote run runs/a runs/b",
        "byrote compare results/a results/b",
        "byrote report results/a results/b",
    ),
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_version,
    help="Print the version.",
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Did the model learn the rule, or did it learn by rote?

    Reads a folder of training checkpoints, finds the heads that copy in context, and says when they formed, how
    certain that is, and what repeated training data did to them. `byrote help VERB` explains a verb.
    """
    settings = ctx.ensure_object(Session).settings
    if ctx.invoked_subcommand == "doctor":
        return  # says what is wrong instead of stopping at it
    if problem := settings.problem or former_variable(os.environ, VERBS):
        raise problem
    for name, value in settings.table.items():
        if name not in VERBS or not isinstance(value, dict):
            raise ByroteError(
                f"[tool.byrote] in {settings.path} sets {name!r}, which is not a verb's table",
                help=f"write [tool.byrote.VERB]; {did_you_mean(name, VERBS)}",
            )


def main() -> None:
    """Entry point of the `byrote` command."""
    cli()
