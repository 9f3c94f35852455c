"""Speed and memory of measuring a series, as ratios inside one run.

    python tests/bench/bench_sweep.py                       # Pythia-70M's shape, 20 steps
    python tests/bench/bench_sweep.py --shape 160m --steps 6
    python tests/bench/bench_sweep.py --shape 135m --steps 6 --floor-only   # SmolLM2-135M's: Llama, grouped queries
    python tests/bench/bench_sweep.py --dtype bfloat16
    python tests/bench/bench_sweep.py --floor-only          # without the tutorial way, which takes most of the time

Three ways over the same local series (GPT-NeoX; Llama at 135m) with random weights and the same tokens (20 sequences of BOS + 25 x 4),
each in its own process, in turn, several rounds; the figures are medians per step after each process's first two, as time by the
clock and as processor time, which other work on the machine disturbs less (and which counts reading ahead beside measuring).

tutorial  a fresh bridge per checkpoint, compatibility mode, run_with_cache of everything, detect_head per head type
byrote      what `byrote run` does for one stimulus: hash, load or swap, one pass with early stop, three pattern probes with
          chance levels and bootstrap intervals, the unit written to disk
floor     the bytes copied into memory once, one bare forward pass of the unwrapped module that stops after the last
          attention, with the faster of the eager and the fused attention kernel
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

LLAMA = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "tie_word_embeddings": True,
}
SHAPES = {
    "135m": LLAMA,
    "70m": {"hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 2048},
    "160m": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
}
N_IDS = 49_000  # of random tokens: below every vocabulary here
N_SEQ, WARM_UP = 20, 2
PROBES = ("prefix_matching", "previous_token", "duplicate_token")


def write_series(out: Path, shape: str, steps: int) -> Path:
    """A series of slightly different random weights: GPT-NeoX, at 135m Llama."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    common = {"max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 0, **SHAPES[shape]}
    if SHAPES[shape] is LLAMA:
        model = LlamaForCausalLM(LlamaConfig(vocab_size=49152, **common))
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=50304, rotary_pct=0.25, **common))
    for i in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.002)
        model.save_pretrained(out / f"step{1000 * i}")
    return out


def stimulus():
    """The tokens every way is shown."""
    import numpy as np

    from byrote.probes.stimuli import Vocabulary, make

    return make("repeated_random", Vocabulary(np.arange(1, N_IDS), 0), n_ctx=2048, seed=0, n_seq=N_SEQ)


def tutorial(series, dtype) -> Callable[[int], None]:
    """As people do it today."""
    import torch
    from transformer_lens.head_detector import detect_head
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import AutoModelForCausalLM

    tokens = torch.from_numpy(stimulus().tokens)

    def step(i: int) -> None:
        model = AutoModelForCausalLM.from_pretrained(series[i].path, dtype=dtype, attn_implementation="eager")
        name = type(model).__name__
        bridge = build_bridge_from_module(model, name, hf_config=model.config, tokenizer=None)
        bridge.enable_compatibility_mode()
        bridge.run_with_cache(tokens)
        # detect_head takes text; its tokenizer is stood in for by a look-up that costs nothing.
        bridge.to_tokens = lambda text: tokens if isinstance(text, list) else tokens[int(text)][None]
        texts = [str(n) for n in range(len(tokens))]
        for kind in ("previous_token_head", "duplicate_token_head", "induction_head"):
            detect_head(bridge, texts, kind)

    return step


def byrote(series, dtype) -> Callable[[int], None]:
    """What a sweep does for one stimulus."""
    from byrote.interp.bridge import HookedSeries
    from byrote.probes.registry import lookup
    from byrote.probes.results.schema import unit_table
    from byrote.probes.results.unit_files import write_unit
    from byrote.probes.sweep.measure import measure_stimulus
    from byrote.probes.sweep.prefetch import Fingerprints

    out = Path(tempfile.mkdtemp(prefix="byrote-bench-"))
    reader = Fingerprints(out / "fingerprints.json", ahead=True)
    hooked, shown = HookedSeries(series, dtype=dtype), stimulus()
    infos = [lookup(name) for name in PROBES]

    def step(i: int) -> None:
        identity = reader.of(series[i], then=series[i + 1] if i + 1 < len(series) else None)
        measured, _ = measure_stimulus(hooked.load(series[i]), shown, infos, seed=0)
        table = unit_table(measured, run="bench", step=series[i].step, tokens_seen=None)
        write_unit(out / f"{i}.parquet", table, {"fingerprint": identity})

    return step


def floor(series, dtype) -> Callable[[int], None]:
    """Nothing but bytes and matrix products."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    tokens, models = torch.from_numpy(stimulus().tokens), {}
    for kernel in ("eager", "sdpa"):
        model = AutoModelForCausalLM.from_pretrained(series[0].path, dtype=dtype, attn_implementation=kernel)
        last = model.base_model.layers[-1]
        out = last.self_attn.o_proj if hasattr(last, "self_attn") else last.attention.dense
        out.register_forward_pre_hook(stop)
        models[kernel] = model

    def forward(kernel: str) -> float:
        start = time.perf_counter()
        with torch.inference_mode(), contextlib.suppress(Stop):
            models[kernel](tokens)
        return time.perf_counter() - start

    fastest = min(models, key=lambda kernel: min(forward(kernel) for _ in range(3)))
    owned = {name: tensor.to(dtype, copy=True) for name, tensor in load_file(series[0].files[0]).items()}

    def step(i: int) -> None:
        for name, tensor in load_file(series[i].files[0]).items():
            owned[name].copy_(tensor)
        forward(fastest)

    return step


WAYS = {"tutorial": tutorial, "byrote": byrote, "floor": floor}
ALIKE = "tutorial, same dtype"  # beside the tutorial in float32, which is what its model is loaded in when nobody says


def work(way: str, path: Path, dtype: str) -> None:
    """Run one way over the series in this process and print its figures as JSON."""
    import torch

    from byrote.checkpoints import open_series
    from byrote.interp.quiet import quiet_upstream

    torch.set_num_threads(1)
    seconds, cpu = list[float](), list[float]()
    with quiet_upstream():
        series = open_series(path)
        base_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        step = WAYS[way](series, getattr(torch, dtype))
        for i in range(len(series)):
            start, before = time.perf_counter(), time.process_time()
            step(i)
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - before)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    took = {"s": statistics.median(seconds[WARM_UP:]), "cpu_s": statistics.median(cpu[WARM_UP:])}
    print(json.dumps({**took, "peak_mib": peak_mib, "base_mib": base_mib}))


def run(way: str, path: Path, dtype: str) -> dict[str, float]:
    """One way in its own process."""
    command = [sys.executable, __file__, "--worker", way, "--series", str(path), "--dtype", dtype]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="70m")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--series", type=Path, help="use this series instead of writing one")
    parser.add_argument("--floor-only", action="store_true")
    parser.add_argument("--worker", choices=WAYS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.series, options.dtype)
        return
    ways = dict.fromkeys(WAYS, options.dtype)
    if options.floor_only:
        del ways["tutorial"]
    elif options.dtype != "float32":
        ways = {ALIKE: options.dtype, **ways, "tutorial": "float32"}
    with tempfile.TemporaryDirectory(prefix="byrote-bench-") as folder:
        path = options.series or write_series(Path(folder) / "series", options.shape, options.steps)
        rounds = [
            {way: run(way.partition(",")[0], path, dtype) for way, dtype in ways.items()}
            for _ in range(options.rounds)
        ]
    for way in ways:
        seconds = statistics.median(r[way]["s"] for r in rounds)
        print(
            f"{way:20} {ways[way]:8} {seconds:.3f} s per step, peak {max(r[way]['peak_mib'] for r in rounds):.0f} MiB"
        )
    if "tutorial" in ways:
        _print_ratio(rounds, "tutorial", "byrote")
        if ALIKE in ways:
            _print_ratio(rounds, ALIKE, "byrote")
        memory = statistics.median(r["byrote"]["peak_mib"] / r["tutorial"]["peak_mib"] for r in rounds)
        print(f"peak memory, byrote / tutorial: {memory:.2f} (whole process, imports included)")
    _print_ratio(rounds, "byrote", "floor")


def _print_ratio(rounds: list[dict[str, dict[str, float]]], over: str, under: str) -> None:
    for unit, what in (("s", ""), ("cpu_s", ", processor time")):
        ratios = sorted(r[over][unit] / r[under][unit] for r in rounds)
        middle = statistics.median(ratios)
        print(f"{over} / {under}{what}: median {middle:.2f}, range {ratios[0]:.2f}-{ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
