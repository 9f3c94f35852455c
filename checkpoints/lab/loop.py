"""The training loop itself: torch, one process, resumable after every written step."""

from __future__ import annotations

import importlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from byrote.checkpoints.atomic import append
from byrote.checkpoints.errors import ByroteError, CheckpointError
from byrote.checkpoints.lab.as_written import (
    MOMENTS,
    UNVERIFIED,
    WEIGHTS,
    hash_of,
    is_verified,
    read_as_written,
)
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.folder import SeriesFolder, step_folder_name
from byrote.checkpoints.lab.model import (
    build_model,
    dropping,
    learning_rate,
    loss_parts,
    mean_loss,
    mechanism_losses,
    position_losses,
)
from byrote.checkpoints.lab.sequences import Sequences
from byrote.checkpoints.lab.source import ArmStream, draw

EVENT_EVERY_S = 0.5
LOG_EVERY_STEPS = 10
MECHANISM_LOSSES = "mechanism_loss_nats"  # of an entry of the manifest: held-out loss by mechanism
STEPS_PER_DRAW = 64  # data is drawn for many steps at once: drawing is then about 1% of a step
MOMENTS_OF_ADAM = ("exp_avg", "exp_avg_sq")

Emit = Callable[[dict[str, Any]], None]
_OneBatch = tuple[Any, ...]  # tensors of `Batches`, of one step; None for what there is not


def run(folder: SeriesFolder, emit: Emit) -> None:
    """Train from the last written step of a folder to the end, and mark the series complete.

    Raises:
        ByroteError: training diverged, the device is not there, or a file cannot be written.
        CheckpointError: the state to resume from cannot be read.
    """
    with torch_settings(folder.config):
        _Run(folder, emit).to_end()
    folder.finish()


class _Run:
    """One process's share of a training run."""

    def __init__(self, folder: SeriesFolder, emit: Emit) -> None:
        self.folder, self.config, self.emit = folder, folder.config, emit
        config = self.config
        self.stream = folder.stream
        self.model = build_model(config)
        for part in config.arm.made_of:
            if part.changes_model:
                importlib.import_module(part.made_by).install(part, self.model)
        self.weights = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.weights.values(),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.held_out = draw(config.source, seed=0, stream="held_out", index=0, n=config.n_held_out)
        self.started = time.monotonic()

    def to_end(self) -> None:
        if self.folder.manifest is not None and self.folder.resume_file.exists():
            first = self._resume()
        else:
            first = 0
            self.folder.begin()
            if (given := initial_state(self.folder)) is not None:
                self.model.load_state_dict(given, strict=True)
            self._set_moments(step=0, saved={})
            self._write(0)
        self._train(first)

    def _train(self, first: int) -> None:
        schedule = set(self.config.schedule)
        next_event_s = self.started = time.monotonic()
        for step, batch in self._batches(first):
            rate = learning_rate(self.config, step)
            with dropping(self.model, self.config, step=step):
                loss = self._update(batch, rate)
            if step % LOG_EVERY_STEPS == 0:
                self._log(step, loss, rate)
            if (now := time.monotonic()) >= next_event_s:
                next_event_s = now + EVENT_EVERY_S
                self._report(step + 1, first, loss)
            if step + 1 in schedule:
                self._write(step + 1)

    def _batches(self, first: int) -> Iterator[tuple[int, _OneBatch]]:
        for start in range(first, self.config.steps, STEPS_PER_DRAW):
            n_steps = min(STEPS_PER_DRAW, self.config.steps - start)
            yield from enumerate(self._drawn(start, n_steps), start)

    def _drawn(self, first: int, n_steps: int) -> list[_OneBatch]:
        """What `mean_loss` takes of each of some steps."""
        drawn = self.stream.drawn(first, n_steps)
        parts = [
            None if one is None else torch.from_numpy(one).to(self.config.device)
            for one in (drawn.wide, drawn.counted, drawn.read, drawn.attended)
        ]
        return [tuple(None if one is None else one[k] for one in parts) for k in range(n_steps)]

    def _update(self, batch: _OneBatch, rate: float) -> Tensor:
        self.optimizer.param_groups[0]["lr"] = rate
        loss = mean_loss(self.model, *batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _log(self, step: int, loss: Tensor, rate: float) -> None:
        line = {"step": step, "train_loss_nats": finite(loss.item(), step, self.config), "lr": rate}
        append(self.folder.path / "log.jsonl", (json.dumps(line) + "\n").encode())

    def _report(self, done: int, first: int, loss: Tensor) -> None:
        rate = (done - first) / max(time.monotonic() - self.started, 1e-9)
        event = {"event": "step", "step": done, "total": self.config.steps, "train_loss_nats": loss.item()}
        self.emit({**event, "steps_per_s": rate, "eta_s": (self.config.steps - done) / rate})

    def _write(self, step: int) -> None:
        entry = entry_of(
            self.config,
            self.stream,
            self.held_out,
            step=step,
            train_loss=self._train_loss(step),
            losses_of=self._losses_of,
        )
        self.folder.add(
            entry, weights=self._weight_bytes(), resume=self._resume_bytes(step), stream=self.stream
        )
        assert self.folder.manifest is not None, "a step was just added to it"
        listed = self.folder.manifest["checkpoints"][-1]
        self.emit({"event": "checkpoint", **listed, "total": self.config.steps})

    def _train_loss(self, step: int) -> float:
        (upcoming,) = self._drawn(step, 1)
        with torch.inference_mode():
            return mean_loss(self.model, *upcoming).item()

    def _losses_of(self, sequences: Sequences) -> Float[Tensor, "n pos"]:
        return position_losses(self.model, torch.tensor(sequences.tokens, device=self.config.device))

    def _weight_bytes(self) -> bytes:
        return save({name: tensor.cpu() for name, tensor in self.model.state_dict().items()})

    def _resume_bytes(self, step: int) -> bytes:
        moments = {
            f"{name}.{key}": self.optimizer.state[weight][key].cpu()
            for name, weight in self.weights.items()
            for key in MOMENTS_OF_ADAM
        }
        return save(moments, metadata={"step": str(step)})

    def _resume(self) -> int:
        """Load weights and moments of the last written step; that step."""
        assert self.folder.manifest is not None, "there is something to resume"
        try:
            moments = read_as_written(self.folder.resume_file, None)
            header = json.loads(moments[8 : 8 + int.from_bytes(moments[:8], "little")])
            step = int(header["__metadata__"]["step"])
            self.folder.require_as_written(step)
            listed = {c["step"]: c for c in self.folder.manifest["checkpoints"]}[step]
            if listed.get(MOMENTS, hash_of(moments)) != hash_of(moments):
                raise ValueError("the optimiser's moments have changed since they were written")
            file = self.folder.path / step_folder_name(step) / "model.safetensors"
            weights = load(read_as_written(file, listed.get(WEIGHTS)))
            self.model.load_state_dict(weights, strict=True)
            self._set_moments(step=step, saved=load(moments))
        except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
            message = error.message if isinstance(error, ByroteError) else error
            raise CheckpointError(
                f"the series in {self.folder.path} cannot be resumed: {message}",
                help="pass --fresh to train it again from step 0",
            ) from error
        if not is_verified(self.folder.manifest):
            self.emit({"event": "unverified", "reason": UNVERIFIED})
        self.folder.rewind(step, self.stream)
        self.emit({"event": "resumed", "step": step})
        return step

    def _set_moments(self, *, step: int, saved: dict[str, Tensor]) -> None:
        set_moments(self.optimizer, self.weights, step=step, saved=saved)


def set_moments(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], *, step: int, saved: Mapping[str, Tensor]
) -> None:
    """Fill the state of AdamW; without saved moments they are zero, as it begins.

    Args:
        optimizer: of these weights.
        weights: by name.
        step: updates made.
        saved: moments by `NAME.MOMENT`; unused at step 0.

    Raises:
        LookupError: one is missing.
        RuntimeError: one has another shape.
    """
    for name, weight in weights.items():
        moments = {key: torch.zeros_like(weight) for key in MOMENTS_OF_ADAM}
        for key, moment in moments.items():
            if step:
                moment.copy_(saved[f"{name}.{key}"])
        count = torch.tensor(float(step), device=weight.device)
        optimizer.state[weight] = {"step": count, **moments}


def initial_state(folder: SeriesFolder) -> dict[str, Tensor] | None:
    """The weights that a run begins with, where its arm gives them.

    Raises:
        ByroteError: they are those of a model of another shape.
    """
    given = folder.stream.initial_weights
    if given is None:
        return None
    shapes = {name: tuple(tensor.shape) for name, tensor in build_model(folder.config).state_dict().items()}
    if {name: array.shape for name, array in given.items()} != shapes:
        raise ByroteError(
            f"{folder.path} cannot start from the weights of a model of another shape",
            help="name a run of the same width, heads, layers, norm, vocabulary and context",
        )
    return {name: torch.from_numpy(array.copy()) for name, array in given.items()}


def entry_of(
    config: LabConfig,
    stream: ArmStream,
    held_out: Sequences,
    *,
    step: int,
    train_loss: float,
    losses_of: Callable[[Sequences], Float[Tensor, "n pos"]],
) -> dict[str, Any]:
    """What the manifest says of a written step: training loss on the next batch, held-out losses, that on the pool; nats.

    Args:
        config: of the run.
        stream: its data.
        held_out: the fresh test set.
        step: that is written.
        train_loss: mean loss of the batch to come, under the weights of this step.
        losses_of: losses at every position but the last, under the same.

    Raises:
        ByroteError: training diverged.
    """

    def measured(sequences: Sequences) -> tuple[Tensor, Tensor]:
        """Loss of every position whose next token is read too, nats, and the mechanism of that token."""
        return losses_of(sequences), torch.tensor(sequences.mechanism[:, 1:-1], device=config.device)

    fresh, pool = measured(held_out), stream.pool
    parts, by_mechanism = loss_parts(*fresh), mechanism_losses(*fresh)
    losses = {
        "train_loss_nats": train_loss,
        "test_loss_nats": parts["all"],
        "copy_loss_nats": parts["copy"],
        "pool_loss_nats": None if pool is None else loss_parts(*measured(pool))["first_block"],
    }
    for loss in (*losses.values(), *by_mechanism.values()):
        if loss is not None:
            finite(loss, step, config)
    return {"step": step, **losses, MECHANISM_LOSSES: by_mechanism}


def finite(loss: float, step: int, config: LabConfig) -> float:
    """A loss, which must be a number.

    Raises:
        ByroteError: training diverged.
    """
    if math.isfinite(loss):
        return loss
    raise ByroteError(
        f"training diverged: the loss at step {step} is {loss}",
        help=f"use a learning rate below {config.lr:g}, or a longer warm-up",
    )


@contextmanager
def torch_settings(config: LabConfig) -> Iterator[None]:
    """Threads and, on a GPU, deterministic kernels; the caller's settings come back afterwards."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ByroteError("torch sees no CUDA device here", help="use --device cpu")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads)
    if config.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
        torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(mode=deterministic)
