"""Continue training SmolLM2-135M on unique, repeated and self-made text, measured by `byrote.Monitor` while it trains.

    .venv/bin/python tests/real/train_smollm2.py runs/real             # one seed, about an hour of one core
    .venv/bin/python tests/real/train_smollm2.py runs/real --seeds 3   # three seeds

Ended at any moment, the same command goes on: an arm resumes from its last measured step, and what is finished is left alone.
The text is the source code of Python's standard library, which is on every machine; --text FILE takes another.

    unique      windows of the text, each once
    repeated    a tenth as many windows, ten times over, in a new order each time
    synthetic   the unique arm's windows, all but the first tokens of each replaced by what the starting model writes, each once

All arms train on the same number of tokens, at the same steps and with one optimiser; then fresh windows, the same for all,
return to each. What is stored: `training/results`, one results folder for each arm and seed, and `training/facts.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import byrote as br
from byrote.checkpoints.atomic import write_text
from byrote.checkpoints.lab.sources.text import STDLIB, Text
from byrote.checkpoints.lab.sources.text_windows import digest_of, encoded

ARMS = ("repeated", "unique", "synthetic")
PROBES = (
    "induction",
    "prefix_aggregates",
    "repeat_loss",
    "held_out_loss",
    "inducible_loss",
    "loss_by_position",
    "mem_gap",
)
HELD_OUT_PARTS = 16  # the last of so many parts of the text is never trained on
CLIP_NORM = 1.0


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Attributes:
        text: "stdlib", or the path of a text.
        width: tokens of a window, BOS included.
        batch: windows a step.
        steps: before fresh data returns.
        fresh_steps: after that.
        epochs: of the repeated arm.
        prompt: tokens of a window that the starting model is shown, BOS included, in the synthetic arm.
        lr: of AdamW, after `warmup` steps.
        warmup: steps.
        measured: steps at which the monitor measures; the last is the last of training. The start, which all arms share, is
            measured in the first arm alone.
        known: tokens of every member and twin that are measured, BOS included.
        n_seq: sequences per stimulus.
        half: train with autocast to bfloat16; measured are the float32 weights in float32.
    """

    text: str = STDLIB
    width: int = 128
    batch: int = 4
    steps: int = 72
    fresh_steps: int = 20
    epochs: int = 10
    prompt: int = 8
    lr: float = 3e-4
    warmup: int = 8
    measured: tuple[int, ...] = (0, 72, 76, 92)
    known: int = 48
    n_seq: int = 16
    half: bool = True

    @property
    def n_windows(self) -> int:
        """Windows of an arm before fresh data returns."""
        return self.batch * self.steps

    @property
    def n_pool(self) -> int:
        """Windows that the repeated arm goes through again and again."""
        return -(-self.n_windows // self.epochs)

    @property
    def n_fresh(self) -> int:
        """Windows of the recovery."""
        return self.batch * self.fresh_steps


def starting_model(folder: Path, width: int) -> Any:
    """SmolLM2 as transformers reads it from GGUF, its context as long as a window; read once, then from a folder.

    Args:
        folder: with the GGUF file and its tokenizer.json.
        width: tokens of a window.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig

    start = folder / "training" / "start"
    if not (start / "config.json").is_file():
        from check_smollm2 import load

        read = load(folder)
        facts = read.config.to_dict()
        left_out = {"quantization_config", "dtype", "_name_or_path", "transformers_version"}
        config = LlamaConfig(**{k: v for k, v in facts.items() if k not in left_out})
        config.max_position_embeddings = width  # rotary positions: the weights are the same
        model = AutoModelForCausalLM.from_config(
            config
        )  # transformers refuses to save what it read from GGUF
        model.load_state_dict({name: tensor.clone() for name, tensor in read.state_dict().items()})
        part = start.with_name("start.part")
        model.save_pretrained(part)
        part.replace(start)
    return AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, attn_implementation="sdpa")


def windows(folder: Path, plan: Plan, bos: int, seed: int) -> dict[str, np.ndarray]:
    """Windows [n, width] of the text by what they are for; no window has a token in common with another.

    Args:
        folder: with tokenizer.json.
        plan: what is trained.
        bos: id in front of every window.
        seed: of the order; the held-out part is the same for all.

    Returns:
        `unique`, `pool` and `twins` (as many as the pool, never trained on), `fresh`, drawn alike; `held_out`, of files that are
        never trained on, up to two that stand across the border.
    """
    ids = encoded(Text(path=plan.text, tokenizer=str(folder / "tokenizer.json"))).ids
    size = plan.width - 1
    rows = ids[: len(ids) // size * size].reshape(-1, size)
    rows = np.concatenate([np.full((len(rows), 1), bos), rows], axis=1).astype(np.int64)
    border = len(rows) - len(rows) // HELD_OUT_PARTS
    order = np.random.default_rng([seed, 0]).permutation(border)
    sizes = {"pool": plan.n_pool, "twins": plan.n_pool, "unique": plan.n_windows, "fresh": plan.n_fresh}
    if sum(sizes.values()) > border:
        raise SystemExit(f"the text has {border:,} windows for training; {sum(sizes.values()):,} are needed")
    ends = np.cumsum([0, *sizes.values()])
    parts = {name: rows[order[a:b]] for name, a, b in zip(sizes, ends, ends[1:], strict=False)}
    return parts | {"held_out": rows[border:]}


@torch.inference_mode()
def written_by(model: Any, rows: np.ndarray, plan: Plan, seed: int, *, at_once: int = 128) -> np.ndarray:
    """Windows whose first tokens are those of text and whose others the model has drawn, at temperature 1.

    Args:
        model: the starting model.
        rows: windows of text [n, width].
        plan: how many tokens it is shown.
        seed: of the draws.
        at_once: windows in a batch.
    """
    torch.manual_seed(seed)
    model.eval()
    parts = []
    drawn = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "pad_token_id": 0}
    length = {"max_length": plan.width, "min_length": plan.width}  # no end before its time
    for first in range(0, len(rows), at_once):
        shown = torch.from_numpy(rows[first : first + at_once, : plan.prompt])
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.half):
            made = model.generate(shown, attention_mask=torch.ones_like(shown), **drawn, **length)
        parts.append(made.numpy())
        print(f"written: {first + len(shown):,} of {len(rows):,} windows", flush=True)
    return np.concatenate(parts)


def prepared(folder: Path, plan: Plan, seed: int) -> dict[str, np.ndarray]:
    """The windows of a seed, the model's own included, as files that the monitor reads too; made once.

    Args:
        folder: as for `starting_model`.
        plan: what is trained.
        seed: of everything that is drawn.
    """
    data = folder / "training" / f"data-seed{seed}"
    if not data.is_dir():
        model = starting_model(folder, plan.width)
        parts = windows(folder, plan, model.config.bos_token_id, seed)
        started = time.process_time()
        parts["synthetic"] = written_by(model, parts["unique"], plan, seed)
        note(folder, f"written-seed{seed}", {"core_s": time.process_time() - started})
        part = data.with_name(f"{data.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, rows in parts.items():
            np.save(part / f"{name}.npy", rows)
        for name in ("pool", "twins"):
            np.save(part / f"{name}-known.npy", parts[name][:, : plan.known])
        part.replace(data)
    return {path.stem: np.load(path) for path in data.glob("*.npy")}


def batch_at(parts: dict[str, np.ndarray], arm: str, step: int, plan: Plan, seed: int) -> torch.Tensor:
    """The windows of a step, 1 the first: those of the arm, from `steps` + 1 on fresh ones.

    Args:
        parts: the windows.
        arm: one of `ARMS`.
        step: of the optimiser.
        plan: what is trained.
        seed: of the order of each epoch.
    """
    fresh = step > plan.steps
    first = (step - 1 - plan.steps * fresh) * plan.batch
    places = np.arange(first, first + plan.batch)
    if fresh or arm != "repeated":
        return torch.from_numpy(parts["fresh" if fresh else arm][places])
    epochs, n = places // plan.n_pool, plan.n_pool
    order = {epoch: np.random.default_rng([seed, 1, epoch]).permutation(n) for epoch in set(epochs.tolist())}
    rows = [order[epoch][place % n] for epoch, place in zip(epochs.tolist(), places.tolist(), strict=True)]
    return torch.from_numpy(parts["pool"][rows])


def train(folder: Path, plan: Plan, arm: str, seed: int) -> None:
    """One arm of one seed, from where it was ended; nothing where it is finished.

    Args:
        folder: as for `starting_model`.
        plan: what is trained.
        arm: one of `ARMS`.
        seed: of the data.
    """
    name, place = f"{arm}-seed{seed}", folder / "training"
    if name in facts_of(folder):
        return
    parts, data = prepared(folder, plan, seed), place / f"data-seed{seed}"
    model = starting_model(folder, plan.width)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    stored, begun = place / f"{name}.pt", 0
    spent = {"train_core_s": 0.0, "measure_core_s": 0.0, "train_s": 0.0, "measure_s": 0.0}
    if stored.is_file():
        state = torch.load(stored, mmap=True, weights_only=True)
        begun, spent = state["step"], state["spent"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        del state
    else:
        shutil.rmtree(place / "results" / name, ignore_errors=True)  # begun, and nothing to go on from
    model.train()
    monitor = br.Monitor(
        model, every=plan.measured if arm == ARMS[0] else plan.measured[1:], probes=PROBES, name=name, out=place / "results",
        budget_frac=None, tokenizer=folder / "tokenizer.json", n_seq=plan.n_seq, text=data / "held_out.npy", members=data / "pool-known.npy",
        twins=data / "twins-known.npy",
    )  # fmt: skip
    with monitor:
        monitor.begin(begun)
        losses: list[float] = []
        for step in range(begun, plan.steps + plan.fresh_steps + 1):
            clock = Clock()
            if step > begun:
                losses.append(update(model, optimizer, batch_at(parts, arm, step, plan, seed), step, plan))
            spent = clock.added(spent, "train")
            if step == begun > 0 or not monitor.due(step):
                continue
            clock = Clock()
            seen = step * plan.batch * (plan.width - 1)
            monitor(step, loss_nats=float(np.mean(losses)) if losses else None, tokens_seen=seen)
            spent, losses = clock.added(spent, "measure"), []
            if step:  # the start is there anyhow
                states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                keep(stored, {"step": step, "spent": spent, **states})
            print(f"{name}: step {step:,} of {plan.steps + plan.fresh_steps:,}, {spent}", flush=True)
    note(folder, name, spent)
    stored.unlink(missing_ok=True)


def update(model: Any, optimizer: torch.optim.Optimizer, rows: torch.Tensor, step: int, plan: Plan) -> float:
    """One step of the optimiser; the loss in nats before it."""
    for group in optimizer.param_groups:
        group["lr"] = plan.lr * min(1.0, step / plan.warmup)
    with torch.autocast("cpu", torch.bfloat16, enabled=plan.half):
        loss = model(rows, labels=rows).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


class Clock:
    """Seconds, and those of a core, since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def added(self, spent: dict[str, float], what: str) -> dict[str, float]:
        """What was spent before and since."""
        wall, core = time.perf_counter() - self._started[0], time.process_time() - self._started[1]
        return spent | {
            f"{what}_s": spent[f"{what}_s"] + wall,
            f"{what}_core_s": spent[f"{what}_core_s"] + core,
        }


def keep(stored: Path, state: dict[str, Any]) -> None:
    """Write what training resumes from; the one before is there until this one is whole."""
    part = stored.with_name(f"{stored.name}.part")
    torch.save(state, part)
    part.replace(stored)


def facts_of(folder: Path) -> dict[str, Any]:
    """What is finished: name -> seconds; and the plan."""
    file = folder / "training" / "facts.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def note(folder: Path, name: str, what: dict[str, Any]) -> None:
    """Add to what is finished."""
    text = json.dumps(facts_of(folder) | {name: what}, indent=1) + "\n"
    write_text(folder / "training" / "facts.json", text)


def run(folder: Path, plan: Plan, seeds: Sequence[int]) -> None:
    """Every arm of every seed.

    Args:
        folder: as for `starting_model`.
        plan: what is trained.
        seeds: of the data.

    Raises:
        SystemExit: the folder holds runs of another plan.
    """
    (folder / "training").mkdir(exist_ok=True)
    ids = encoded(Text(path=plan.text, tokenizer=str(folder / "tokenizer.json"))).ids
    told = json.loads(json.dumps(asdict(plan) | {"digest": digest_of(ids), "n_ids": len(ids)}))
    if facts_of(folder).get("plan", told) != told:
        raise SystemExit(
            f"{folder / 'training'} holds runs of another plan or text: remove it, or name another folder"
        )
    note(folder, "plan", told)
    for seed in seeds:
        for arm in ARMS:
            train(folder, plan, arm, seed)


def main() -> None:
    """Train what is not trained yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where fetch_smollm2.py has put the model")
    parser.add_argument("--seeds", type=int, default=1, help="of each arm")
    parser.add_argument("--text", default=STDLIB, help="a text file in place of the standard library")
    parser.add_argument(
        "--float32", action="store_true", help="train without bfloat16, as processors do well that lack it"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    run(given.folder, Plan(text=given.text, half=not given.float32), range(given.seeds))


if __name__ == "__main__":
    main()
