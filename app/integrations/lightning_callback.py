"""A callback of Lightning, by either name of the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.integrations.monitor import Monitor

if TYPE_CHECKING:
    Callback: Any = object
else:
    try:
        if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
            from pytorch_lightning import Callback
        else:
            from lightning.pytorch import Callback
    except ImportError:
        raise ByroteError("lightning is not installed", help="pip install lightning") from None


class LightningCallback(Callback):
    """Measures at steps of a Lightning `Trainer`, and stops it when a rule of `expect` is clearly violated.

    Numbers go to every logger of the trainer and, by `self.log`, to `trainer.callback_metrics`, where other callbacks look.

    Attributes:
        monitor: the `Monitor`, with what was measured, skipped and checked.

    Args:
        model: the attribute of the LightningModule that holds the model; found where there is one that can be measured.
        settings: as for `Monitor`, but for the model.

    Raises:
        ByroteError: as `Monitor`; at the start of training, no such attribute, or a model that cannot be measured.
    """

    def __init__(self, *, model: str = "", **settings: Any) -> None:
        super().__init__()
        self.monitor = Monitor(**settings)
        self._attribute, self._own_log = model, self.monitor.log
        self._may_log = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure the weights that training begins with, where that step is one to be measured."""

        def log(values: Mapping[str, float], step: int) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(dict(values), step=step)
            if self._may_log:
                pl_module.log_dict(
                    dict(values), logger=False, on_step=True, on_epoch=False, rank_zero_only=True
                )

        self.monitor.log = self._own_log or log
        self.monitor.begin(trainer.global_step, model_in(pl_module, self._attribute))
        self._step(trainer)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After a batch: measured where it ended in an optimiser step."""
        self._may_log = True
        self._step(trainer)
        self._may_log = False

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure the last step."""
        self.monitor.finish()

    def _step(self, trainer: Any) -> None:
        loss = None
        if self.monitor.due(trainer.global_step):  # else nothing waits for the device
            metrics = trainer.callback_metrics
            loss = next((float(metrics[name]) for name in ("train_loss", "loss") if name in metrics), None)
        if self.monitor(trainer.global_step, loss_nats=loss):
            trainer.should_stop = True


def model_in(module: nn.Module, attribute: str = "") -> nn.Module:
    """The language model of a LightningModule.

    Args:
        module: it, or a model itself.
        attribute: the name it has there; "" finds the one that there is.

    Raises:
        ByroteError: no such attribute, none that can be measured, or several.
    """
    parts = dict(module.named_children())
    if attribute:
        if attribute not in parts:
            raise ByroteError(
                f"{type(module).__name__} has no model {attribute!r}", help=did_you_mean(attribute, parts)
            )
        return parts[attribute]
    found = {name: part for name, part in parts.items() if _is_language_model(part)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found and _is_language_model(module):
        return module
    raise ByroteError(
        f"{type(module).__name__} has {len(found)} models that could be measured"
        + (f" ({', '.join(found)})" if found else ""),
        help='name its attribute: LightningCallback(model="...")',
    )


def _is_language_model(module: nn.Module) -> bool:
    inner: Any = getattr(module, "_orig_mod", module)
    kinds = {kind.__name__ for kind in type(inner).__mro__}
    return bool({"NativeModel", "TransformerBridge", "PeftModel"} & kinds) or (
        "PreTrainedModel" in kinds and inner.get_output_embeddings() is not None
    )
