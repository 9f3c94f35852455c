"""A callback of Hugging Face's `Trainer`, and of trainers that are built on it, such as TRL's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from byrote.integrations.monitor import Monitor


class TransformersCallback(TrainerCallback):
    """Measures at steps of a `Trainer`, and stops it when a rule of `expect` is clearly violated.

    Alone it writes the results folder; `attach` also has the trainer log the numbers.

    Attributes:
        monitor: the `Monitor`, with what was measured, skipped and checked.

    Args:
        settings: as for `Monitor`, but for the model.

    Raises:
        ByroteError: as `Monitor`; at the start of training, a model that cannot be measured, or that is sharded.
    """

    def __init__(self, **settings: Any) -> None:
        self.monitor = Monitor(**settings)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the weights that training begins with, where that step is one to be measured."""
        self.monitor.begin(state.global_step, kwargs["model"])
        self._step(state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After an optimiser step."""
        self._step(state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the last step, unless the trainer has put its best weights in the place of the last ones."""
        self.monitor.finish(measure=not args.load_best_model_at_end)

    def _step(self, state: TrainerState, control: TrainerControl) -> None:
        losses = (entry["loss"] for entry in reversed(state.log_history) if "loss" in entry)
        ends = bool(state.max_steps) and state.global_step >= state.max_steps
        tokens = int(state.num_input_tokens_seen or 0) or None
        if self.monitor(state.global_step, loss_nats=next(losses, None), tokens_seen=tokens, last=ends):
            control.should_training_stop = True


def attach(trainer: Trainer, **settings: Any) -> TransformersCallback:
    """Measure while a `Trainer` trains; what is measured is logged by the trainer, wherever it reports to.

    Args:
        trainer: before `train()`.
        settings: as for `Monitor`, but for the model.

    Returns:
        The callback, which the trainer has now.

    Raises:
        ByroteError: as `Monitor`.
    """
    callback = TransformersCallback(**settings)

    def log(values: Mapping[str, float], step: int) -> None:
        wanted = trainer.control.should_log  # `Trainer.log` takes its own numbers of this step for logged
        trainer.log(dict(values))
        trainer.control.should_log = wanted

    callback.monitor.log = callback.monitor.log or log
    trainer.add_callback(callback)
    return callback
