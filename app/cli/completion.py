"""`byrote completion`: verbs, options and names of probes, completed by the shell."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from byrote.checkpoints.atomic import make_folder, write_text
from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.cli.command import argument, flag, verb
from byrote.cli.session import Session

# Where a shell looks by itself, below the variable's folder or else below the one in the home folder; what else it needs.
_PLACES = {
    "bash": (
        "XDG_DATA_HOME",
        ".local/share",
        "bash-completion/completions/byrote",
        "",
        "bash-completion reads it",
    ),
    "fish": ("XDG_CONFIG_HOME", ".config", "fish/completions/byrote.fish", "", "fish reads it"),
    "zsh": (
        "XDG_DATA_HOME",
        ".local/share",
        "zsh/site-functions/_byrote",
        "fpath+=({folder}); autoload -Uz compinit && compinit",
        "zsh reads it once this line is in ~/.zshrc",
    ),
}
SHELLS = tuple(sorted(_PLACES))


@verb("byrote completion bash --install", "byrote completion zsh")
def completion(
    session: Session,
    *,
    shell: str = argument("[SHELL]", type=click.Choice(SHELLS), required=False),
    install: bool = flag("Write it into your home folder, where the shell reads it, instead of printing it."),
) -> None:
    """Print the lines that let a shell (bash, zsh or fish) complete verbs, options and probes, or install them.

    Without SHELL, the one that $SHELL names. It takes effect in a new shell.
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    made = get_completion_class(shell) if shell in SHELLS else None
    if made is None:
        raise ByroteError(
            f"there is no completion for {shell!r}" if shell else "the variable SHELL does not name a shell",
            help=did_you_mean(shell, SHELLS),
        )
    root = click.get_current_context().find_root().command
    text = made(root, {}, "byrote", "_BYROTE_COMPLETE").source()
    if not install:
        click.echo(text.rstrip("\n"))
        return
    variable, below_home, name, line, when = _PLACES[shell]
    base = os.environ.get(variable, "")
    place = (Path(base) if Path(base).is_absolute() else Path.home() / below_home) / name
    make_folder(place.parent)
    write_text(place, text)
    session.data(str(place))
    session.note(f"{when}: {line.format(folder=place.parent)}" if line else f"{when} when a shell starts")
