"""After a power cut at any moment, the same command ends in the bytes of one that nothing disturbed, or says how."""

from __future__ import annotations

import random

import pytest
from commands import COMMANDS, Command, differences, expected
from forgetful_disk import (
    Change,
    Disk,
    Recorder,
    Tree,
    after_power_cuts,
    of_a_dead_process,
    put_tree,
    read_tree,
)

from byrote.checkpoints import atomic
from byrote.checkpoints.errors import ByroteError
from byrote.probes.results import Results

pytestmark = pytest.mark.torture(weight=2)
AGAIN_EVERY = 8  # states after which the power fails once more, while the command makes good


def recorded(command: Command, top, monkeypatch) -> Recorder:
    """A run of the command, every change noted."""
    recorder = Recorder(top)
    with monkeypatch.context() as patched:
        patched.setattr(atomic, "layer", recorder)
        command.finish(top)
    return recorder


def readers_bear(top) -> None:
    """Who looks at what is left gets an answer or a clear refusal, and changes nothing."""
    root = top / "results" / "tiny"
    if not root.is_dir():
        return
    before = read_tree(top)
    try:
        results = Results.open(root)
        assert results.frame is not None
    except ByroteError as error:
        assert error.message
    if differences(read_tree(top), before) not in ([], ["results/tiny/observations.parquet (not expected)"]):
        raise AssertionError(f"a reader wrote: {differences(read_tree(top), before)}")


def made_good(command: Command, top, state: Tree, after: Tree) -> None:
    """The oracle: from this state, the command ends in the bytes of an undisturbed one, without leftovers."""
    state = of_a_dead_process(state)
    put_tree(top, state)
    readers_bear(top)
    put_tree(top, state)
    said = command.finish(top)
    wrong = differences(read_tree(top), after)
    assert wrong == [], f"other bytes than without the power cut: {wrong}; it said {said}"


@pytest.mark.parametrize("name", COMMANDS)
def test_power_cut(name, cases, tmp_path, monkeypatch):
    command, top = COMMANDS[name], tmp_path / "top"
    before, after = expected(command, top)
    changes = recorded(command, top, monkeypatch).changes
    assert differences(read_tree(top), after) == [], "the same command gives the same bytes"
    assert lost_when_done(before, changes, cases.rng(0)) == [], "what was said to be written can be lost"
    states = after_power_cuts(before, changes, cases.rng(0))
    for n, (where, state) in cases.of(states, "states"):
        with cases.case(n, f"power cut {where}; left on the disk:\n{describe(state, after)}"):
            made_good(command, top, state, after)
            if n % AGAIN_EVERY == 0:
                twice(command, top, state, after, cases.rng(n), monkeypatch)


def lost_when_done(before: Tree, changes: list[Change], rng: random.Random) -> list[str]:
    """Paths that a power cut can still take or spoil when the command has ended."""
    disk = Disk(before)
    for change in changes:
        disk.do(change)
    return sorted({path for tree in disk.after_a_power_cut(rng) for path in differences(tree, disk.seen())})


def twice(command: Command, top, state: Tree, after: Tree, rng: random.Random, monkeypatch) -> None:
    """The power fails again while the command makes good."""
    put_tree(top, state := of_a_dead_process(state))
    changes = recorded(command, top, monkeypatch).changes
    _, second = rng.choice(after_power_cuts(state, changes, rng))
    made_good(command, top, second, after)


def describe(state: Tree, after: Tree) -> str:
    """What of a state is not as it will be in the end."""
    lines = []
    for path, data in state.items():
        if data is not None and data != after.get(path):
            lines.append(
                f"  {path}: {len(data)} bytes, {data.count(0)} of them zero; {after.get(path) and len(after[path])} wanted"
            )
    return "\n".join([*lines, *(f"  {path}: missing" for path in after if path not in state)])
