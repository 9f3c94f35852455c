"""Where tasks are done: each once, again where a process or a machine was lost, and listed where that does not help."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from byrote.checkpoints import machine, remote_tasks, side_by_side
from byrote.checkpoints.engines import Engine, Needs, run_tasks
from byrote.checkpoints.errors import ByroteError, PlaceError
from byrote.checkpoints.remote_tasks import Answer, LostError, carry_out, done_elsewhere
from byrote.checkpoints.side_by_side import Lost

# --- what tasks do; in a process of its own this module is imported by its name ---------------------------------------


def work(task: tuple[Path, str], on_event) -> str:
    """A task of one letter: each kind of bad luck, noted in a folder, and what comes of it."""
    folder, kind = task
    tries = len(list(folder.glob(f"{kind}*")))
    (folder / f"{kind}{tries}").touch()
    on_event({"event": "checkpoint", "kind": kind})
    if kind == "killed once" and not tries:
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "always killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "full once" and not tries:
        raise PlaceError("the disk is full", help="make room")
    if kind == "always full":
        raise PlaceError("the disk is full", help="make room")
    if kind == "wrong":
        raise ByroteError("a setting is wrong", help="set it right")
    if kind == "slow":
        deadline = time.monotonic() + 30
        while not (folder / "go on").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
            on_event({"event": "checkpoint", "kind": kind})
    return kind


KINDS = ("good", "killed once", "always killed", "full once", "always full", "good too")


def run(engine: Engine, folder: Path, kinds, *, stopping=lambda: False, heard=None):
    heard = [] if heard is None else heard
    return dict(
        run_tasks(
            work,
            [(folder, kind) for kind in kinds],
            engine=engine,
            needs=Needs(),
            folder=folder,
            hear=lambda place, event: heard.append((kinds[place], event)),
            stopping=stopping,
        )
    )


def judge(found, heard) -> None:
    results = dict(zip(KINDS, (found[place] for place in range(len(KINDS))), strict=True))
    for kind in ("good", "killed once", "full once", "good too"):
        assert results[kind] == kind
    assert results["always full"] == Lost("the disk is full", "make room")
    assert isinstance(results["always killed"], Lost)
    again = [kind for kind, event in heard if event["event"] == "retried"]
    assert sorted(again) == ["always full"] * 2 + ["always killed"] * 2 + ["full once", "killed once"]
    assert [kind for kind, event in heard if event["event"] == "checkpoint"].count("good") == 1


@pytest.mark.processes
def test_a_process_that_is_killed_takes_down_its_own_task_alone(tmp_path):
    heard: list = []
    judge(run(Engine(jobs=2), tmp_path, KINDS, heard=heard), heard)


@pytest.mark.processes
def test_an_error_stops_the_others_and_a_stop_keeps_what_is_done(tmp_path):
    with pytest.raises(ByroteError, match="a setting is wrong"):
        run(Engine(jobs=2), tmp_path, ("slow", "wrong"))
    heard: list = []
    with pytest.raises(KeyboardInterrupt):
        run(Engine(jobs=2), tmp_path, ("slow", "slow", "good"), heard=heard, stopping=lambda: bool(heard))
    assert ("good", {"event": "checkpoint", "kind": "good"}) not in heard


# --- other machines: threads stand for them, and everything that passes between is what passes on a cluster ------------


class Thread:
    """A task that a thread of this process carries out, as a machine of a cluster would."""

    def __init__(self, *arguments) -> None:
        self.answers: list[Answer | None] = []
        self.cancelled = False
        self._thread = threading.Thread(target=lambda: self.answers.append(self._answer(*arguments)))
        self._thread.start()

    @staticmethod
    def _answer(task, place, where) -> Answer | None:
        folder, kind = task
        if kind == "always killed" or (kind == "killed once" and not (folder / "killed once0").exists()):
            (folder / f"{kind}0").touch()
            return None
        return carry_out(work, task, place, where)

    def done(self) -> bool:
        return bool(self.answers)

    def answer(self) -> Answer:
        if self.answers[0] is None:
            raise LostError("its machine was lost")
        return self.answers[0]

    def cancel(self) -> None:
        self.cancelled = True


def elsewhere(folder, kinds, *, at_once=9, stopping=lambda: False, heard=None):
    started: list[int] = []
    heard = [] if heard is None else heard

    def start(places, where):
        started.extend(places)
        return [Thread((folder, kinds[place]), place, where) for place in places]

    def hear(place, event):
        heard.append((kinds[place], event))

    return dict(done_elsewhere(start, len(kinds), at_once, folder, hear=hear, stopping=stopping))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(remote_tasks, "POLL_S", 0.01)


@pytest.mark.parametrize("at_once", [1, 9])
def test_tasks_of_lost_machines_are_done_again_and_then_listed(tmp_path, at_once):
    heard: list = []
    judge(elsewhere(tmp_path, KINDS, at_once=at_once, heard=heard), heard)
    assert not list(tmp_path.glob(".tasks*"))


def test_tasks_elsewhere_stop_at_a_checkpoint_and_their_errors_are_ours(tmp_path):
    heard: list = []
    with pytest.raises(KeyboardInterrupt):
        elsewhere(tmp_path, ("slow", "good", "good"), at_once=1, heard=heard, stopping=lambda: bool(heard))
    assert {kind for kind, _ in heard} == {"slow"}
    with pytest.raises(ByroteError, match="a setting is wrong"):
        elsewhere(tmp_path, ("wrong",))
    assert not list(tmp_path.glob(".tasks*"))


def test_tasks_that_no_machine_has_begun_are_cancelled_by_a_stop(tmp_path):
    """As jobs are that wait in a queue: the command does not wait for them."""
    handles = []

    class Queued:
        def __init__(self) -> None:
            self.cancelled = False
            handles.append(self)

        def done(self) -> bool:
            return False

        def answer(self) -> Answer:
            raise AssertionError("it has none")

        def cancel(self) -> None:
            self.cancelled = True

    def start(places, where):
        return [Queued() for _ in places]

    with pytest.raises(KeyboardInterrupt):
        list(done_elsewhere(start, 2, 2, tmp_path, hear=lambda *_: None, stopping=lambda: bool(handles)))
    assert [handle.cancelled for handle in handles] == [True, True]
    gone = remote_tasks.Where(str(tmp_path / ".tasks-gone"), str(tmp_path))
    assert carry_out(work, (tmp_path, "good"), 0, gone).stopped  # one that begins afterwards does nothing


def test_whoever_takes_no_more_results_lets_tasks_end_what_they_are_at(tmp_path):
    kinds, threads = ("good", "slow"), []

    def start(places, where):
        threads.extend(Thread((tmp_path, kinds[place]), place, where) for place in places)
        return threads[-len(places) :]

    results = done_elsewhere(start, 2, 2, tmp_path, hear=lambda *_: None, stopping=lambda: False)
    assert next(results) == (0, "good")
    while not (tmp_path / "slow0").exists():
        time.sleep(0.01)
    results.close()
    assert threads[1].answers[0].stopped and not threads[1].cancelled


def test_a_machine_without_the_folder_says_so(tmp_path):
    where = remote_tasks.Where(str(tmp_path), str(tmp_path / "nowhere"))
    answer = carry_out(work, (tmp_path, "good"), 0, where)
    assert isinstance(answer.error, PlaceError) and "cannot be entered on" in answer.error.message


def test_half_an_event_is_read_when_it_is_whole(tmp_path):
    heard: list = []
    said = remote_tasks._Events(tmp_path, lambda place, event: heard.append((place, event["n"])))
    (tmp_path / "3.jsonl").write_bytes(b'{"n": 1}\n{"n": ')
    said.pass_on()
    assert heard == [(3, 1)]
    (tmp_path / "3.jsonl").write_bytes(b'{"n": 1}\n{"n": 2}\n')
    said.pass_on()
    said.pass_on()
    assert heard == [(3, 1), (3, 2)]


# --- how many at once -------------------------------------------------------------------------------------------------


def test_as_many_at_once_as_memory_and_cores_allow(monkeypatch):
    monkeypatch.setattr("byrote.checkpoints.engines.cores", lambda: 8)
    monkeypatch.setattr("byrote.checkpoints.engines.memory_bytes", lambda: (64, 32))
    every = Engine(jobs=None)
    assert every.n_at_once(Needs(8), 100) == 3  # of 80% of 32
    assert every.n_at_once(Needs(1), 100) == 8
    assert every.n_at_once(Needs(1, cores=3), 100) == 2
    assert every.n_at_once(Needs(1), 5) == 5
    assert every.n_at_once(Needs(1000), 100) == 1
    assert Engine(jobs=6).n_at_once(Needs(1000), 100) == 6


def test_memory_is_that_of_the_control_group_where_it_is_less(tmp_path, monkeypatch):
    total, available = machine.memory_bytes()
    assert total is not None and available is not None and 0 < available <= total
    monkeypatch.setattr(machine, "_GROUPS", ((tmp_path, "memory.max", "memory.current", "inactive_file"),))
    (tmp_path / "memory.max").write_text("100000000\n")
    (tmp_path / "memory.current").write_text("70000000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 20000000\n")
    assert machine.memory_bytes() == (100_000_000, 50_000_000)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_bytes()[0] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_engines_that_are_not_there_and_options_that_they_do_not_have():
    with pytest.raises(ByroteError, match=r"no engine 'rya'.*did you mean 'ray'"):
        Engine("rya")
    with pytest.raises(ByroteError, match="local has no options"):
        Engine("local", options={"address": "x"})
    assert side_by_side.cores() >= 1
