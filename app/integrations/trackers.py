"""Where a loop of one's own logs to: each function gives a `log` for `Monitor`. The libraries are the user's own.

Inside a `Trainer` or Lightning none of this is needed: measured numbers go where its own numbers go.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from byrote.checkpoints.errors import ByroteError

Log = Callable[[Mapping[str, float], int], None]
STEP = "byrote/step"


def wandb_log(run: Any = None) -> Log:
    """Log to a run of Weights & Biases, with `byrote/step` as the axis: the run's own step is not touched.

    Args:
        run: from `wandb.init`; None is the one that is active.

    Raises:
        ByroteError: wandb is not installed, or no run is active.
    """
    run = run or _library("wandb").run
    if run is None:
        raise ByroteError("no run of Weights & Biases is active", help="call wandb.init(...) first")
    run.define_metric(STEP)
    run.define_metric("byrote/*", step_metric=STEP)

    def log(values: Mapping[str, float], step: int) -> None:
        run.log({**values, STEP: step})

    return log


def tensorboard_log(writer: Any) -> Log:
    """Log to a `torch.utils.tensorboard.SummaryWriter`.

    Args:
        writer: it is flushed after each measurement, and closed by its owner.
    """

    def log(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def mlflow_log(run_id: str | None = None) -> Log:
    """Log to MLflow.

    Args:
        run_id: None is the active run, or one that is started then.

    Raises:
        ByroteError: mlflow is not installed.
    """
    mlflow = _library("mlflow")

    def log(values: Mapping[str, float], step: int) -> None:
        mlflow.log_metrics(dict(values), step=step, run_id=run_id)

    return log


def trackio_log() -> Log:
    """Log to the active run of trackio, with `byrote/step` beside the numbers: its steps count calls of `log`.

    Raises:
        ByroteError: trackio is not installed.
    """
    trackio = _library("trackio")

    def log(values: Mapping[str, float], step: int) -> None:
        trackio.log({**values, STEP: step})

    return log


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ByroteError(f"{name} is not installed", help=f"pip install {name}") from None
