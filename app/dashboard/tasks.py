"""What a job does, as the pages may start it: a verb, paths, and options that the command line declares.

A task is stored as these parts and rebuilt from them, each checked as it was the first time. A stored command line is
never run: there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from byrote.checkpoints.errors import ByroteError
from byrote.probes.registry import resolve

MAX_WORDS = 200
MAX_CHARS = 4096
RUN, TEXT = "run", "text"
# The options of `byrote run` that the pages set; what runs code or reaches the network is not among them.
_OF_RUN = ("probe", "save_attention", "out", "dry_run")
_OF_TEXT = {"steps": list, "text": str, "most_tokens": int}


@dataclass(frozen=True)
class Task:
    """What a job does.

    Attributes:
        verb: "run", a sweep; or "text", the attention on a text of one's own.
        paths: what it reads.
        options: by the name of the parameter.
    """

    verb: str
    paths: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, value: Any) -> Task:
        """The task that was stored.

        Raises:
            ByroteError: it is none that the pages start.
        """
        if not isinstance(value, dict) or set(value) != {"verb", "paths", "options"}:
            raise _no_task("it does not have the parts of a task")
        paths, options = value["paths"], value["options"]
        if not isinstance(paths, list) or not isinstance(options, dict):
            raise _no_task("it does not have the parts of a task")
        task = cls(value["verb"], tuple(paths), options)
        task.check()
        return task

    def check(self) -> None:
        """See that the pages could have started it.

        Raises:
            ByroteError: they could not.
        """
        if self.verb not in (RUN, TEXT):
            raise _no_task(f"there is no verb {self.verb!r}")
        if not 1 <= len(self.paths) <= MAX_WORDS:
            raise _no_task("it does not name a path")
        for path in self.paths:
            _word(path)
            if path.startswith("-"):
                raise _no_task(f"{path!r} is an option, not a path")
        known = _OF_RUN if self.verb == RUN else _OF_TEXT
        for name in self.options:
            if name not in known:
                raise _no_task(f"there is no option {name!r}")
        if self.verb == RUN:
            self.arguments()
            resolve([*self.options.get("probe", ())] or None)
            return
        for name, kind in _OF_TEXT.items():
            if type(self.options.get(name)) is not kind:
                raise _no_task(f"{name} is missing or has the wrong type")
        steps = self.options["steps"]
        if not 1 <= len(steps) <= MAX_WORDS or not all(type(step) is int for step in steps):
            raise _no_task("steps are not a list of steps")

    @property
    def facts(self) -> dict[str, Any]:
        """What is stored."""
        return {"verb": self.verb, "paths": [*self.paths], "options": dict(self.options)}

    @property
    def dry_run(self) -> bool:
        """Whether it only says what it would do."""
        return self.options.get("dry_run") is True

    @property
    def measures(self) -> bool:
        """Whether it writes results."""
        return self.verb == RUN and not self.dry_run

    def dry(self) -> Task:
        """The same sweep as a dry run, which says what it would do."""
        return replace(self, options={**self.options, "dry_run": True})

    def arguments(self) -> list[str]:
        """The words after `byrote`, the verb first; for a text, what it does.

        Raises:
            ByroteError: an option has a value that the command line does not take.
        """
        if self.verb != RUN:
            return [self.verb, *self.paths]
        declared = _declared()
        words = [
            word
            for name in _OF_RUN
            if name in self.options
            for word in _words(declared[name], self.options[name])
        ]
        return [RUN, *self.paths, *words]


def _declared() -> dict[str, click.Option]:
    """The options of `byrote run` as it declares them."""
    from byrote.cli.run import run

    return {str(param.name): param for param in run.params if isinstance(param, click.Option)}


def _words(option: click.Option, value: Any) -> list[str]:
    """An option as it is typed."""
    name = option.opts[0]
    if option.is_flag:
        if not isinstance(value, bool):
            raise _no_task(f"{name} has no value")
        return [name] if value else []
    if option.multiple != isinstance(value, list | tuple):
        raise _no_task(f"{name} has a value of the wrong type")
    values = [*value] if option.multiple else [value]
    if len(values) > MAX_WORDS:
        raise _no_task(f"{name} has too many values")
    for one in values:
        _word(one)
        try:
            option.type.convert(one, option, None)
        except click.BadParameter as error:
            raise _no_task(error.message) from None
    return [word for one in values for word in (name, str(one))]


def _word(value: Any) -> None:
    if not isinstance(value, str) or not value or len(value) > MAX_CHARS:
        raise _no_task("a part of it is not text, or is too long")
    if "\0" in value:
        raise ByroteError("a path cannot contain a NUL character", help="write the path as the shell would")


def _no_task(why: str) -> ByroteError:
    return ByroteError(f"this is not a job that the pages start: {why}", help="start it again")


def run_task(paths: tuple[str, ...], probes: list[str], *, keep_attention: bool, out: Path) -> Task:
    """A sweep.

    Args:
        paths: of checkpoints, as `byrote run` takes them.
        probes: by name; all except those that need many passes where none is named.
        keep_attention: of every head on two sequences per stimulus.
        out: folder that gets the results.

    Raises:
        ByroteError: a path that no file can have, or a probe there is not.
    """
    options: dict[str, Any] = {"probe": [*probes]} if probes else {}
    if keep_attention:
        options["save_attention"] = True
    task = Task(RUN, paths, {**options, "out": str(out)})
    task.check()
    return task
