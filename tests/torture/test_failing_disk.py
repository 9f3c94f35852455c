"""A disk that is full, broken or not ours at any call: a clear refusal, and the next good run ends in the same bytes."""

from __future__ import annotations

import pytest
from commands import COMMANDS, Command, differences, expected
from failing_layer import FAULTS, FailingLayer
from forgetful_disk import Tree, of_a_dead_process, put_tree, read_tree

from byrote.checkpoints import atomic
from byrote.checkpoints.errors import ByroteError

pytestmark = pytest.mark.torture(weight=1)


def calls_of(command: Command, top, monkeypatch) -> int:
    """How many calls an undisturbed run makes."""
    layer = FailingLayer(0, "EIO", for_ever=False)
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "layer", layer)
        command.run(top)
    return layer.calls


def fail(command: Command, top, layer: FailingLayer, monkeypatch) -> str:
    """A run on a failing disk; what it refused with, "" where it was done all the same."""
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "layer", layer)
        try:
            command.run(top)
        except ByroteError as error:
            assert error.message and error.help, f"no advice in {error!r}"
            return str(error)
    return ""


@pytest.mark.parametrize("name", COMMANDS)
def test_failing_disk(name, cases, tmp_path, monkeypatch):
    command, top = COMMANDS[name], tmp_path / "top"
    before, after = expected(command, top)
    n_calls = calls_of(command, top, monkeypatch)
    assert differences(read_tree(top), after) == []
    faults = [(at, fault, ever) for at in range(1, n_calls + 1) for fault in FAULTS for ever in (False, True)]
    for n, (at, fault, for_ever) in cases.of(faults, "faults"):
        put_tree(top, before)
        with cases.case(n, f"{fault} at call {at} of {n_calls}{' and ever after' if for_ever else ''}"):
            tried(command, top, FailingLayer(at, fault, for_ever=for_ever), after, monkeypatch)


def tried(command: Command, top, layer: FailingLayer, after: Tree, monkeypatch) -> None:
    """The oracle."""
    refused = fail(command, top, layer, monkeypatch)
    assert layer.failed, "the call was not reached"
    put_tree(top, of_a_dead_process(read_tree(top)))
    said = command.finish(top)
    wrong = differences(read_tree(top), after)
    assert wrong == [], (
        f"{layer.failed} failed; other bytes after a good run: {wrong}; it said {refused!r}, then {said}"
    )
