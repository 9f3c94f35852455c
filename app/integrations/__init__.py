"""Measuring while a model trains: in a loop of one's own, in a Hugging Face `Trainer`, in Lightning. docs/training.md.

    from byrote.integrations import attach
    attach(trainer, every=100, expect="gate.toml")

Importing this imports neither transformers nor lightning: a callback is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from byrote.checkpoints.lazy import lazily

if TYPE_CHECKING:
    from byrote.integrations.lightning_callback import LightningCallback as LightningCallback
    from byrote.integrations.monitor import Monitor as Monitor
    from byrote.integrations.trackers import mlflow_log as mlflow_log
    from byrote.integrations.trackers import tensorboard_log as tensorboard_log
    from byrote.integrations.trackers import trackio_log as trackio_log
    from byrote.integrations.trackers import wandb_log as wandb_log
    from byrote.integrations.transformers_callback import TransformersCallback as TransformersCallback
    from byrote.integrations.transformers_callback import attach as attach

_LAZY = {
    "LightningCallback": "byrote.integrations.lightning_callback",
    "Monitor": "byrote.integrations.monitor",
    "TransformersCallback": "byrote.integrations.transformers_callback",
    "attach": "byrote.integrations.transformers_callback",
    "mlflow_log": "byrote.integrations.trackers",
    "tensorboard_log": "byrote.integrations.trackers",
    "trackio_log": "byrote.integrations.trackers",
    "wandb_log": "byrote.integrations.trackers",
}
__all__ = [*sorted(_LAZY)]
__getattr__, __dir__ = lazily(__name__, _LAZY)
