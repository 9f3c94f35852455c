"""A folder of checkpoints measured while it grows, and at the end as a sweep of the finished folder measures it.

While training goes on, the tokens that models are shown are drawn for the checkpoints there are; the results' status is
"running". A sweep of the finished folder draws them for all of it, and measures again what was shown others: what comes out is
what one sweep of the finished folder gives, byte for byte. Where checkpoints were removed meanwhile, the tokens stay as
they are: a run shows all of its steps the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.landing import Landing
from byrote.checkpoints.series import CheckpointSeries
from byrote.probes.results import Results
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.folder import SweepOutcome
from byrote.probes.sweep.many import shared_models
from byrote.probes.sweep.run import Event, sweep

_NAP_S = 0.1
_SHARE = 20  # how many times longer it waits than a look took


@dataclass(frozen=True)
class Pace:
    """When to look, when a checkpoint has landed, and when watching ends.

    Attributes:
        poll_s: seconds between looks; longer where a look takes long.
        settle_s: seconds that a checkpoint's files must not have changed.
        idle_timeout_s: ends after so many seconds without anything new; None waits for ever.
        until_step: ends when this step, or a later one, was measured or could not be; None is none.
    """

    poll_s: float = 5.0
    settle_s: float = 10.0
    idle_timeout_s: float | None = None
    until_step: int | None = None


@dataclass
class Watch:
    """Measure a series as its checkpoints land.

    Attributes:
        opened: opens the series as it is now.
        config, out: as of `sweep`.
        pace: when to look and when to end.
        on_event: called with the events of `sweep` for what is measured, "waiting" with the reason, "gap", and "gone".
        ending: asked often; True ends it after the checkpoint in flight.
        training_ended: whether training is known to be over.
        look_at: called with the results after each look that measured something; True ends it at once.
    """

    opened: Callable[[], CheckpointSeries]
    config: SweepConfig
    out: Path
    pace: Pace
    on_event: Callable[[Event], None] = lambda event: None
    ending: Callable[[], bool] = lambda: False
    training_ended: Callable[[], bool] = lambda: False
    look_at: Callable[[Results], bool] = lambda results: False

    def __post_init__(self) -> None:
        self.landing = Landing(self.pace.settle_s, changed_s=time.monotonic())
        self._models = shared_models(self.config.device, self.config.dtype, self.config.swap)
        self._reported: set[Any] = set()
        self._last_step, self._look_s = -1, 0.0
        self._series: CheckpointSeries | None = None

    def run(self) -> SweepOutcome | None:
        """Watch until it ends.

        Returns:
            What the sweep of the finished folder did; None where `look_at` ended it, or there never was a checkpoint.

        Raises:
            ByroteError: results cannot be written, or settings that cannot work.
        """
        while True:
            if self._look():
                return None
            if self._at_end():
                return self._finish()
            self._wait(max(self.pace.poll_s, _SHARE * self._look_s))

    def _look(self) -> bool:
        """Open the folder, and measure what has landed since; whether `look_at` wants to end."""
        started = time.monotonic()
        self._series = series = self._opened()
        if series is None:
            return False
        landed, gaps = self.landing.look(series, now_s=time.monotonic())
        self._look_s = time.monotonic() - started
        for gap in gaps:
            self.on_event(
                {
                    "event": "gap",
                    "step": gap.step,
                    "path": gap.path.name,
                    "reason": gap.reason,
                    "help": gap.help,
                }
            )
        for step in sorted(self.landing.gone):
            self._say("gone", {"step": step})
        self.landing.gone.clear()
        if not any(map(self.landing.is_new, landed)):
            return False
        outcome = self._sweep(
            replace(series, checkpoints=tuple(landed), gaps=()), unfinished=True, as_drawn=True
        )
        missing = {gap["step"] for gap in outcome.gaps}
        for checkpoint in landed:
            if checkpoint.step in missing:
                self.landing.unreadable(checkpoint)
            elif not outcome.interrupted:
                self.landing.measured(checkpoint)
        self._last_step = max(self._last_step, *(one.step for one in landed))
        self.landing.changed_s = time.monotonic()
        return bool(outcome.results.steps) and self.look_at(outcome.results)

    def _opened(self) -> CheckpointSeries | None:
        try:
            return self.opened()
        except (CheckpointError, OSError) as error:
            self._say("waiting", {"reason": str(getattr(error, "message", error))})
            return None

    def _say(self, event: str, facts: Event) -> None:
        """An event that is the same at every look, once."""
        key = (event, *facts.values())
        if key not in self._reported:
            self._reported.add(key)
            self.on_event({"event": event, **facts})

    def _at_end(self) -> bool:
        """Whether training is over, as far as anybody says, and what it wrote is measured."""
        if self.ending():
            return True
        pace, idle_s = self.pace, time.monotonic() - self.landing.changed_s
        if pace.until_step is not None and self._last_step >= pace.until_step:
            return True
        if pace.idle_timeout_s is not None and idle_s >= pace.idle_timeout_s:
            return True
        complete = self._series is not None and self._series.manifest.get("status") == "complete"
        return (complete or self.training_ended()) and not self.landing.waits

    def _finish(self) -> SweepOutcome | None:
        """Measure the folder as it is now, as any sweep does."""
        series = self._opened()
        if series is None or not series.checkpoints:
            return None
        self.landing.look(series, now_s=time.monotonic())
        return self._sweep(series, unfinished=False, as_drawn=self.landing.removed)

    def _sweep(self, series: CheckpointSeries, *, unfinished: bool, as_drawn: bool) -> SweepOutcome:
        def on_event(event: Event) -> None:
            if event["event"] == "gap" or event.get("measured"):
                self.on_event(event)
            last = event.get("done") == event.get("total")
            if unfinished and event["event"] == "checkpoint" and not last and self.ending():
                raise KeyboardInterrupt  # what is in flight is measured; the sweep of the finished folder goes on from it

        return sweep(
            series,
            self.config,
            out=self.out,
            on_event=on_event,
            models=self._models,
            unfinished=unfinished,
            as_drawn=as_drawn,
        )

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not self.ending():
            time.sleep(min(_NAP_S, left))
