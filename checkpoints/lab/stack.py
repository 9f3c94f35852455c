"""Train runs of one shape together, each into a folder of its own; resumed after an interruption at any moment, they end in the same bytes.

What is trained together decides the last bits of the weights, so it is the caller's plan that fixes it, and not how many
cores there are. Every written step is committed for all runs before the state to resume from is: a stack goes on from its
last committed step. A run that is complete is left alone, also where others of its stack have to be trained again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load
from torch import Tensor

from byrote.checkpoints import atomic
from byrote.checkpoints.atomic import write_bytes
from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.lab.as_written import MOMENTS, WEIGHTS, hash_of, read_as_written
from byrote.checkpoints.lab.batches import Batches
from byrote.checkpoints.lab.config import LabConfig
from byrote.checkpoints.lab.folder import SeriesFolder, Written, explained, step_folder_name
from byrote.checkpoints.lab.loop import (
    EVENT_EVERY_S,
    LOG_EVERY_STEPS,
    MOMENTS_OF_ADAM,
    STEPS_PER_DRAW,
    Emit,
    entry_of,
    finite,
    initial_state,
    set_moments,
    torch_settings,
)
from byrote.checkpoints.lab.model import learning_rate
from byrote.checkpoints.lab.sequences import Sequences
from byrote.checkpoints.lab.source import draw
from byrote.checkpoints.lab.stacked_model import StackedModel
from byrote.checkpoints.lab.together import gains, identity, shape_of
from byrote.checkpoints.lab.trainer import locked

COMMIT_EVERY_S = 2.0
_STACK = "stack"  # in the state's metadata: which runs it is of


def train_stack(
    runs: Sequence[tuple[Path, LabConfig]],
    *,
    state: Path,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Train runs together, go on with what was interrupted, or find them complete and do nothing.

    Args:
        runs: folder and configuration of each; the configurations differ in seed, arm and name alone.
        state: the file to resume from; it is there only while the stack is not complete.
        on_event: called as `train`'s: `step` about twice a second and `checkpoint` for every written step of the stack,
            with mean losses over its runs; `resumed` (step); `restarted` (reason), where what is there cannot be resumed.

    Raises:
        ByroteError: a folder holds something else, or cannot be written to; the configurations are of several shapes;
            training diverged.
    """
    shapes = {shape_of(config) for _, config in runs}
    if len(shapes) != 1 or not gains(runs[0][1]):
        what = (
            f"of {len(shapes)} shapes"
            if len(shapes) > 1
            else "so large, of this architecture, or with dropout"
        )
        raise ByroteError(f"runs {what} cannot be trained together", help="train them one after another")
    with ExitStack() as held:
        for path, _ in runs:
            held.enter_context(explained(path))
            atomic.make_folder(path)
            held.enter_context(locked(path))
        held.enter_context(explained(state))
        folders = [SeriesFolder(path, config) for path, config in runs]
        for folder in folders:
            folder.require_same()
            if folder.complete:
                folder.require_steps()
                folder.tidy()
        if not all(folder.complete for folder in folders):
            atomic.make_folder(state.parent)
            held.enter_context(torch_settings(runs[0][1]))
            _Stack(folders, state, on_event or (lambda event: None)).to_end()
        atomic.remove(state)


class TrainedStack:
    """A stacked model and its optimiser.

    Args:
        configs: of the runs, of one shape.
        dtype: of weights and moments.
    """

    def __init__(self, configs: Sequence[LabConfig], *, dtype: torch.dtype = torch.float32) -> None:
        config = self.config = configs[0]
        self.model = StackedModel(configs, dtype=dtype)
        self.optimizer = torch.optim.AdamW(
            self.model.weights.values(),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def update(
        self,
        wide: Int[Tensor, "runs batch width"],
        share: Float[Tensor, "runs batch pos"],
        *,
        rate: float,
        read: Int[Tensor, "runs batch pos"] | None = None,
        attended: Bool[Tensor, "runs batch pos"] | None = None,
    ) -> Float[Tensor, " runs"]:
        """One step of every run.

        Args:
            wide: each run's sequences.
            share: what the loss of each position counts for in its run's mean; they sum to 1 for each run.
            rate: learning rate.
            read, attended: see `StackedModel.token_nll`.

        Returns:
            Each run's training loss before the update, nats.
        """
        self.optimizer.param_groups[0]["lr"] = rate
        losses = (self.model.token_nll(wide, read=read, attended=attended) * share).sum((1, 2))
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        self.optimizer.step()
        return losses.detach()

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """Moment -> stacked tensors by the weight's name."""
        state, weights = self.optimizer.state, self.model.weights
        return {key: {name: state[w][key] for name, w in weights.items()} for key in MOMENTS_OF_ADAM}

    def set_moments(self, *, step: int, saved: dict[str, Tensor]) -> None:
        """Fill the optimiser's state; without saved moments they are zero, as AdamW begins.

        Raises:
            LookupError: one is missing.
            RuntimeError: one has another shape.
        """
        set_moments(self.optimizer, self.model.weights, step=step, saved=saved)


def padded(
    batches: Sequence[Batches],
) -> tuple[Int[Tensor, "n_steps runs batch width"], Float[Tensor, "n_steps runs batch pos"]]:
    """Batches of runs side by side, shorter ones filled up, and what each position counts for in its run's mean."""
    n_steps, _, width = batches[0].wide.shape
    n_most = max(one.wide.shape[1] for one in batches)
    wide = torch.zeros((n_steps, len(batches), n_most, width), dtype=torch.int64)
    all_alike = all(one.counted is None for one in batches)
    share = torch.zeros((1 if all_alike else n_steps, len(batches), n_most, width - 1), dtype=torch.float64)
    for run, one in enumerate(batches):
        n = one.wide.shape[1]
        wide[:, run, :n] = torch.from_numpy(one.wide)
        if one.counted is None:
            share[:, run, :n] = 1 / (n * (width - 1))
        else:
            counted = torch.from_numpy(one.counted)
            share[:, run, :n] = counted / counted.sum((1, 2), keepdim=True).clamp(min=1)
    return wide, share.expand(n_steps, -1, -1, -1)


def left_out(
    batches: Sequence[Batches],
) -> tuple[Int[Tensor, "n_steps runs batch pos"] | None, Bool[Tensor, "n_steps runs batch pos"] | None]:
    """What runs side by side read in place of their tokens, and what may be attended to; None where all do as they are."""
    n_steps, _, width = batches[0].wide.shape
    n_most = max(one.wide.shape[1] for one in batches)
    read = attended = None
    if any(one.read is not None for one in batches):
        read = torch.zeros((n_steps, len(batches), n_most, width - 1), dtype=torch.int64)
        for run, one in enumerate(batches):
            mine = one.wide[..., :-1] if one.read is None else one.read
            read[:, run, : mine.shape[1]] = torch.from_numpy(np.ascontiguousarray(mine))
    if any(one.attended is not None for one in batches):
        attended = torch.ones((n_steps, len(batches), n_most, width - 1), dtype=torch.bool)
        for run, one in enumerate(batches):
            if one.attended is not None:
                attended[:, run, : one.attended.shape[1]] = torch.from_numpy(one.attended)
    return read, attended


class _Stack:
    """One process's share of the training of a stack."""

    def __init__(self, folders: Sequence[SeriesFolder], state: Path, emit: Emit) -> None:
        self.folders, self.state, self.emit = folders, state, emit
        self.written_to = [not folder.complete for folder in folders]
        configs = [folder.config for folder in folders]
        self.config = configs[0]
        self.streams = [folder.stream for folder in folders]
        config = self.config
        self.held_out = draw(config.source, seed=0, stream="held_out", index=0, n=config.n_held_out)
        self.trained = TrainedStack(configs)
        self.pending: list[list[Written]] = [[] for _ in folders]
        self.lines: list[list[str]] = [[] for _ in folders]
        self.committed_s = time.monotonic()

    def to_end(self) -> None:
        first = self._resumed()
        if first is None:
            first = 0
            with atomic.folders_synced_once():
                atomic.remove(self.state)  # first: it must never meet runs that have begun anew
                for folder in self._unfinished():
                    folder.begin()
            self.trained = TrainedStack([folder.config for folder in self.folders])
            self.trained.set_moments(step=0, saved={})
            self._take_initial_weights()
            self._write(0)
        self._train(first)
        for folder in self._unfinished():
            folder.finish()

    def _take_initial_weights(self) -> None:
        """Begin with the weights of other runs, where arms say so."""
        given = [initial_state(folder) for folder in self.folders]
        if any(state is not None for state in given):
            own = [self.trained.model.state_dict(run) for run in range(len(given))]
            self.trained.model.load([state or mine for state, mine in zip(given, own, strict=True)])

    def _unfinished(self) -> list[SeriesFolder]:
        return [folder for folder, mine in zip(self.folders, self.written_to, strict=True) if mine]

    def _train(self, first: int) -> None:
        config, schedule = self.config, set(self.config.schedule)
        next_event_s = started = time.monotonic()
        for start in range(first, config.steps, STEPS_PER_DRAW):
            n_steps = min(STEPS_PER_DRAW, config.steps - start)
            wide, share, *others = self._drawn(start, n_steps)
            for step, (batch, counts_for) in enumerate(zip(wide, share.float(), strict=True), start):
                rate = learning_rate(config, step)
                read, attended = (None if one is None else one[step - start] for one in others)
                losses = self.trained.update(batch, counts_for, rate=rate, read=read, attended=attended)
                if step % LOG_EVERY_STEPS == 0:
                    self._log(step, losses.tolist(), rate)
                if (now := time.monotonic()) >= next_event_s:
                    next_event_s = now + EVENT_EVERY_S
                    self._report(step + 1, (step + 1 - first) / max(now - started, 1e-9), losses)
                if step + 1 in schedule:
                    self._write(step + 1)

    def _drawn(self, first: int, n_steps: int) -> tuple[Any, ...]:
        """Batches of some steps, what each position counts for, and what is left out: tensors on the device, or None."""
        drawn = [stream.drawn(first, n_steps) for stream in self.streams]
        parts = (*padded(drawn), *left_out(drawn))
        return tuple(None if one is None else one.to(self.config.device) for one in parts)

    def _log(self, step: int, losses: Sequence[float], rate: float) -> None:
        for run, loss in enumerate(losses):
            with self._naming(run):
                line = {"step": step, "train_loss_nats": finite(loss, step, self.config), "lr": rate}
            self.lines[run].append(json.dumps(line) + "\n")

    @contextmanager
    def _naming(self, run: int) -> Iterator[None]:
        """Say of which run an error is."""
        try:
            yield
        except ByroteError as error:
            raise ByroteError(f"{self.folders[run].path}: {error.message}", help=error.help) from None

    def _report(self, done: int, steps_per_s: float, losses: Tensor) -> None:
        total = self.config.steps
        event = {"event": "step", "step": done, "total": total, "train_loss_nats": losses.mean().item()}
        self.emit({**event, "steps_per_s": steps_per_s, "eta_s": (total - done) / steps_per_s})

    def _write(self, step: int) -> None:
        """Measure and slice out every run; they are committed together, at most every few seconds."""
        wide, share, *others = self._drawn(step, 1)
        read, attended = (None if one is None else one[0] for one in others)
        model = self.trained.model
        with torch.inference_mode():
            nll = model.token_nll(wide[0], read=read, attended=attended)
            upcoming = (nll * share[0].float()).sum((1, 2)).tolist()
        fresh = model.measured_nll(torch.tensor(self.held_out.tokens, device=self.config.device))
        entries = []
        for run, folder in enumerate(self.folders):

            def losses_of(sequences: Sequences, run: int = run) -> Tensor:
                if sequences is self.held_out:
                    return fresh[run]
                return model.nll_of_run(run, torch.tensor(sequences.tokens, device=self.config.device))

            with self._naming(run):
                entry = entry_of(
                    folder.config,
                    self.streams[run],
                    self.held_out,
                    step=step,
                    train_loss=upcoming[run],
                    losses_of=losses_of,
                )
            weights = save({name: tensor.cpu().numpy() for name, tensor in model.state_dict(run).items()})
            self.pending[run].append(Written(entry, weights, hash_of(self._moments_of(run, step))))
            entries.append(entry)
        if step in (0, self.config.steps) or time.monotonic() - self.committed_s >= COMMIT_EVERY_S:
            self._commit(step)
        means = {  # None where the source has no such tokens, for all runs alike
            name: None if entries[0][name] is None else sum(entry[name] for entry in entries) / len(entries)
            for name in ("train_loss_nats", "test_loss_nats", "copy_loss_nats")
        }
        self.emit({"event": "checkpoint", "step": step, **means, "total": self.config.steps})

    def _moments_of(self, run: int, step: int) -> bytes:
        """One run's moments as its own file to resume from would have them; its hash is in the manifest."""
        moments = {
            f"{name}.{key}": part.cpu().numpy()
            for key, stacked in self.trained.moments().items()
            for name, part in self.trained.model.parts_of(stacked, run).items()
        }
        return save(moments, metadata={"step": str(step)})

    def _commit(self, step: int) -> None:
        """Write what is pending of every run, then the state to resume from."""
        with atomic.folders_synced_once():
            for run, folder in enumerate(self.folders):
                if self.written_to[run]:
                    if lines := "".join(self.lines[run]):
                        atomic.append(folder.path / "log.jsonl", lines.encode())
                    folder.extend(self.pending[run], stream=self.streams[run])
                self.pending[run], self.lines[run] = [], []
        moments = {
            f"{name}.{key}": tensor.cpu().numpy()
            for key, stacked in self.trained.moments().items()
            for name, tensor in stacked.items()
        }
        write_bytes(self.state, save(moments, metadata={"step": str(step), _STACK: self._identity()}))
        self.committed_s = time.monotonic()

    def _identity(self) -> str:
        """Which runs, in which order: a state is resumed by no other stack."""
        return identity([folder.config for folder in self.folders])

    def _resumed(self) -> int | None:
        """The step that every run of the stack is set back to; None where they begin anew."""
        if not self.state.exists():
            return None
        try:
            step = self._load()
        except (
            ByroteError,
            OSError,
            SafetensorError,
            LookupError,
            TypeError,
            ValueError,
            RuntimeError,
        ) as error:
            message = error.message if isinstance(error, ByroteError) else str(error)
            self.emit({"event": "restarted", "reason": message})
            return None
        for folder, stream in zip(self.folders, self.streams, strict=True):
            if not folder.complete:
                folder.rewind(step, stream)
        self.emit({"event": "resumed", "step": step})
        return step

    def _load(self) -> int:
        """Weights and moments of the last committed step, as written; nothing on disk is changed."""
        data = read_as_written(self.state, None)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        step = int(metadata["step"])
        if metadata[_STACK] != self._identity():
            raise ValueError(f"{self.state} is the state of other runs")
        listed = []
        for folder in self.folders:
            if folder.manifest is None:
                raise ValueError(f"{folder.path} holds no run that could be resumed")
            folder.require_as_written(step)
            listed.append({entry["step"]: entry for entry in folder.manifest["checkpoints"]}[step])
        self.trained.model.load(
            [
                load(
                    read_as_written(
                        folder.path / step_folder_name(step) / "model.safetensors", entry.get(WEIGHTS)
                    )
                )
                for folder, entry in zip(self.folders, listed, strict=True)
            ]
        )
        self.trained.set_moments(step=step, saved=load(data))
        for run, entry in enumerate(listed):
            if hash_of(self._moments_of(run, step)) != entry[MOMENTS]:
                raise ValueError("the optimiser's moments have changed since they were written")
        return step
