"""Measure a model while it trains: chosen probes at given steps, within a share of the time that training takes.

    with br.Monitor(model, every=100, expect="gate.toml") as monitor:
        for step, batch in enumerate(batches, 1):
            ...
            if monitor(step):
                break

The model is left as it is, weights and random numbers bit for bit. What goes wrong while measuring is said and listed as
a gap; it never ends the training. Several processes measure in rank 0, and the others wait.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from byrote.checkpoints.errors import ByroteError
from byrote.integrations.ranks import first_decides, is_first
from byrote.probes.gate import Checked, Gate, check, read_gate
from byrote.probes.registry import use
from byrote.probes.spec import Probe
from byrote.probes.sweep.config import SweepConfig, checked_settings
from byrote.probes.wording import counted, visible

if TYPE_CHECKING:
    from torch import nn

    from byrote.probes.results import Results
    from byrote.probes.sweep.live import LiveRun

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Log = Callable[[Mapping[str, float], int], None]
PROBES = ("prefix_matching", "previous_token", "copying_logit", "repeat_loss", "induction")  # three passes
_NOT_SETTINGS = {"probes", "device", "swap", "threads", "prefetch", "save_attention", "versions"}
_SETTINGS = sorted({field.name for field in fields(SweepConfig)} - _NOT_SETTINGS)


def _leaving_generators(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """What is imported draws random numbers, as do plugins and trackers: training is to draw what it would draw without."""

    @functools.wraps(method)
    def guarded(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        from byrote.interp.quiet import own_randomness

        with own_randomness():
            return method(*args, **kwargs)

    return guarded


class Monitor:
    """Called after every optimiser step; measures at some of them and returns whether training should stop.

    Attributes:
        should_stop: whether a rule of `expect` is clearly violated.
        checks: what became of the rules of `expect` when they were last looked at.
        spent_s: seconds spent measuring so far, what happens once apart.
        measured, skipped, failed: steps.

    Args:
        model: a causal language model of transformers, TransformerLens's native one, or a TransformerBridge, also as
            torch.compile, DistributedDataParallel or peft wrap it; None where `begin` gets it.
        every: measure at multiples of this many steps, 0 included, or at the steps given. The last is measured too.
        probes: names, or probes made with `byrote.probe`; those that `expect` names are added. A verdict brings what it needs.
        name: of the run; a second training into the same `out` is called `name-2`.
        out: parent of the results folder.
        expect: a file of rules, see docs/gate.md; training should stop when one is clearly violated.
        budget_frac: share of the time spent training that measuring may take, in (0, 1]; steps beyond it are skipped. None is
            no bound. The first step that is measured and the last are measured in any case.
        log: called with {name: number} and the step after each measurement, in the process that measures.
        say: called with each remark; None prints them to stderr.
        tokenizer: the model's tokenizer.json, which says which ids text uses.
        settings: `SweepConfig`'s other fields: seed, n_seq, dtype, text, members, twins, ...

    Raises:
        ByroteError: an unknown probe or setting, a file of rules that cannot be read, or a model that is sharded.
    """

    @_leaving_generators
    def __init__(
        self,
        model: nn.Module | None = None,
        *,
        every: int | Iterable[int] = 100,
        probes: str | Probe | Iterable[str | Probe] = PROBES,
        name: str = "model",
        out: str | Path = "results",
        expect: str | Path | None = None,
        budget_frac: float | None = 0.02,
        log: Log | None = None,
        say: Callable[[str], None] | None = None,
        tokenizer: str | Path | None = None,
        **settings: Any,
    ) -> None:
        self._steps = _schedule(every)
        self._gate: Gate | None = None if expect is None else read_gate(expect)
        chosen = (probes,) if isinstance(probes, str | Probe) else tuple(probes)
        names = [use(p).name if isinstance(p, Probe) else p for p in chosen]
        names += [rule.probe for rule in self._gate.rules if rule.probe] if self._gate else []
        settings = checked_settings(settings, of="Monitor", names=_SETTINGS)
        self._config = SweepConfig(probes=tuple(dict.fromkeys(names)), **{"dtype": "", **settings})
        infos = self._config.infos  # a verdict brings those that it needs, which are measured and not logged
        self._infos = infos if {"default", "all"} & set(names) else [i for i in infos if i.name in names]
        if budget_frac is not None and not 0 < budget_frac <= 1:
            raise ByroteError(
                f"budget_frac={budget_frac} is not a fraction", help="give 0.02 for 2%, or None"
            )
        self._budget_frac, self.log, self._say = budget_frac, log, say or _print
        self._name, self._out = name, Path(out)
        self._tokenizer = None if tokenizer is None else Path(tokenizer)
        self._model = model
        self._forget()
        if model is not None:
            _refuse_sharded(model)

    def _forget(self) -> None:
        self._run: LiveRun | None = None
        self._begun, self._finished, self._first = False, False, True
        self._started = time.perf_counter()
        self._step = self._tried = -1
        self._cost_s = self.spent_s = 0.0
        self.measured = self.skipped = self.failed = 0
        self.should_stop = False
        self.checks: list[Checked] = []
        self._reported: set[str] = set()

    @property
    def results_path(self) -> Path | None:
        """The results folder, once training has begun; None in processes that do not measure."""
        return None if self._run is None else self._run.root

    def due(self, step: int) -> bool:
        """Whether this step is one to be measured, if there is time for it."""
        return self._steps(step)

    @_leaving_generators
    def begin(self, step: int = 0, model: nn.Module | None = None) -> None:
        """Say where training begins; done by the first call where it is left out, for the step before.

        Args:
            step: optimiser steps taken before; from 1 on, training is resumed, and its results are gone on with.
            model: in place of the one given before.

        Raises:
            ByroteError: a model that cannot be measured, or none.
        """
        self._forget()
        self._model = self._model if model is None else model
        if self._model is None:
            raise ByroteError("Monitor has no model", help="give one: Monitor(model)")
        _refuse_sharded(self._model)
        self._begun, self._first = True, is_first()
        if self._first:
            from byrote.probes.sweep.live import LiveRun

            self._run = LiveRun(
                self._model,
                self._config,
                name=self._name,
                out=self._out,
                tokenizer=self._tokenizer,
                begun=step,
            )
            if self._run.root.name != self._name and not step:
                self._say(f"{self._out / self._name} holds another run; this one is {self._run.root}")
        self._started = time.perf_counter()

    def __call__(
        self, step: int, *, loss_nats: float | None = None, tokens_seen: int | None = None, last: bool = False
    ) -> bool:
        """Measure, if it is time to. In every process, after every optimiser step.

        Args:
            step: optimiser steps taken.
            loss_nats: training loss, for the results' loss axis.
            tokens_seen: training tokens so far.
            last: measure in any case, as the last step.

        Returns:
            Whether training should stop, in every process alike.

        Raises:
            ByroteError: at the first call only, a model that cannot be measured.
        """
        if not self._begun:
            self.begin(max(0, step - 1))
        self._step = step
        if last or self.due(step):
            facts = {"loss_nats": loss_nats, "tokens_seen": tokens_seen}
            stop = first_decides(lambda: self._decide(step, facts, last=last))
            self.should_stop = self.should_stop or stop
        return self.should_stop

    @_leaving_generators
    def finish(self, *, measure: bool = True) -> Results | None:
        """Training has ended: measure the last step where that was not done, hold the rules against the whole run.

        Args:
            measure: False where the weights are no longer those of the last step.

        Returns:
            The results; None in processes that do not measure, and where no step could be measured.
        """
        if not self._begun or self._finished:
            return None
        if measure and self._step >= 0:
            self(self._step, last=True)
        self._finished = True
        if self._run is None:
            return None
        try:
            results = self._run.finish(self._notes())
            if results is not None and self._gate is not None:
                self.checks = check(self._gate, [results])
                self.should_stop = self.should_stop or any(one.broken for one in self.checks)
        except Exception as error:  # training is over, and its weights are still to be saved
            self._say(f"the results in {self._run.root} could not be finished: {_reason(error)}")
            return None
        for one in self.checks:
            self._say(one.line)
        self._say(self._summary())
        return results

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()

    def _decide(self, step: int, facts: dict[str, Any], *, last: bool) -> bool:
        """Measure, in the one process that does, if there is time; whether training should stop. Nothing is raised."""
        if self._run is None or step == self._tried or not (last or self._affordable(step)):
            return False
        self._tried = step
        return self._measure(self._run, step, facts)

    @_leaving_generators
    def _measure(self, run: LiveRun, step: int, facts: dict[str, Any]) -> bool:
        started = time.perf_counter()
        try:
            results = run.measure(step, **facts)
        except (
            Exception
        ) as error:  # a probe, the disk, the memory of a GPU: none of it is worth the training run
            self.failed += 1
            self._say_once(
                f"step {step:,} could not be measured, training continues: {_reason(error)}", error
            )
            with suppress(Exception):
                run.gap(step, error)
            return False
        else:
            self.measured += 1
            return self._heed(run, results, step, time.perf_counter() - started)
        finally:
            self._cost_s = time.perf_counter() - started
            self.spent_s += self._cost_s

    def _heed(self, run: LiveRun, results: Results, step: int, took_s: float) -> bool:
        """Hold the rules against what is measured, and hand the numbers on; whether a rule is broken."""
        if self.measured == 1:
            probes, once = counted(len(self._infos), "probe"), f"{run.set_up_s:.1f} s once before"
            self._say(f"step {step:,}: {probes} measured in {took_s:.2f} s ({once}), in {run.root}")
            for info in self._infos:
                rows = results.select(info.name, info.main_metric, step=step)
                if len(rows) and not rows["valid"].any():
                    self._say(f"{info.name} is not measured: {_as_settings(rows['reason'].iloc[0])}")
            if run.removed:
                steps = f"{counted(len(run.removed), 'step')} from {run.removed[0]:,} on"
                self._say(
                    f"training was resumed before {steps} that had been measured: they are measured again"
                )
        if self.log is not None:
            from byrote.probes.sweep.live import headline

            try:
                self.log(headline(results, self._infos, step) | {"byrote/measure_s": took_s}, step)
            except Exception as error:  # whatever a tracker may raise
                self._say_once(f"step {step:,} was measured, but not logged: {_reason(error)}", error)
        if self._gate is None:
            return False
        try:
            self.checks = check(self._gate, [results], finished=False)
        except Exception as error:  # a baseline that is gone, say
            self._say_once(
                f"step {step:,} was measured, but the rules could not be checked: {_reason(error)}", error
            )
            return False
        broken = [one for one in self.checks if one.broken]
        for one in broken:
            self._say(f"training should stop: {one.line}")
        return bool(broken)

    def _affordable(self, step: int) -> bool:
        """Whether another measurement stays within the share of time; said where it does not."""
        training_s = time.perf_counter() - self._started - self.spent_s
        if self._budget_frac is None or not (self.measured + self.failed):
            return True
        if self.spent_s + self._cost_s <= self._budget_frac * training_s:
            return True
        self.skipped += 1
        if "budget" not in self._reported:
            self._reported.add("budget")
            after_s = self._cost_s / self._budget_frac
            self._say(
                f"step {step:,} is skipped: measuring takes {self._cost_s:.2f} s, and budget_frac={self._budget_frac:g} "
                f"allows that once in {after_s:,.0f} s of training; skipped steps are counted"
            )
        return False

    def _notes(self) -> list[str]:
        if not self.skipped or self._budget_frac is None:
            return []
        return [
            f"{counted(self.skipped, 'step')} were not measured, to stay within {self._budget_frac:.0%} of the time of training"
        ]

    def _summary(self) -> str:
        training_s = max(time.perf_counter() - self._started - self.spent_s, 1e-9)
        text = f"{counted(self.measured, 'step')} measured in {self.spent_s:.1f} s, {self.spent_s / training_s:.1%} of the time of training"
        text += f"; {self.skipped:,} skipped" if self.skipped else ""
        text += f"; {self.failed:,} failed" if self.failed else ""
        return f"{text}; byrote show {self.results_path}"

    def _say_once(self, text: str, error: Exception) -> None:
        """What goes wrong alike at every step is said once; each is a gap of the results."""
        if (reason := _reason(error)) not in self._reported:
            self._reported.add(reason)
            self._say(text)


def _schedule(every: int | Iterable[int]) -> Callable[[int], bool]:
    if isinstance(every, int):
        if every < 1:
            raise ByroteError(
                f"every={every} would measure nothing", help="give 1 or more, or a list of steps"
            )
        return lambda step: step % every == 0
    steps = frozenset(every)
    if not steps or any(not isinstance(step, int) or step < 0 for step in steps):
        raise ByroteError(
            "every contains no steps, or values that are not steps", help="give whole numbers, 0 or more"
        )
    return lambda step: step in steps


def _refuse_sharded(model: nn.Module) -> None:
    from byrote.interp.in_memory import refuse_sharded

    refuse_sharded(model)


def _as_settings(text: str) -> str:
    """What a text asks for, in the names of settings: `--sequences 16` is `sequences=16`, `--text FILE` is `text=FILE`."""
    for one in fields(SweepConfig):
        called = one.metadata.get("called", one.name)
        text = text.replace(f"--{called} ", f"{called}=")
    return text


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ByroteError) else f"{type(error).__name__}: {error}"


def _print(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody listens any more
        print(f"byrote: {visible(text)}", file=sys.stderr, flush=True)
