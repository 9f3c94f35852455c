"""Training in several processes: rank 0 measures, all go on and stop alike; what is in shards is refused. Trackers, for real."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import byrote as br

pytestmark = pytest.mark.processes
TESTS = Path(__file__).resolve().parents[1]
START = f"""
import os, sys, warnings
sys.path.insert(0, {str(TESTS)!r})
warnings.simplefilter("ignore")
import torch
import torch.distributed as dist
import byrote as br
from tiny_models import tiny_hf_model
dist.init_process_group("gloo")
rank = dist.get_rank()
"""
DDP = (
    START
    + """
from torch.nn.parallel import DistributedDataParallel

watched = sys.argv[1] == "watched"
torch.manual_seed(rank)
model = DistributedDataParallel(tiny_hf_model("gpt2", seed=3).train())
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
monitor = br.Monitor(model, every=2, out="results", probes="repeat_loss", n_seq=8, budget_frac=None, expect="gate.toml") if watched else None
for step in range(1, 7):
    tokens = torch.randint(0, 61, (4, 16))
    model(tokens, labels=tokens).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step == 4:
        torch.save([p.detach() for p in model.parameters()], f"{sys.argv[1]}-{rank}.pt")
    if monitor and monitor(step):
        break
if monitor:
    monitor.finish()
    print(f"rank {rank} stopped at {step}, measured {monitor.measured}", flush=True)
dist.destroy_process_group()
os._exit(0)  # all is said and written; gloo's threads may abort an interpreter that ends
"""
)
SHARDED = (
    START
    + """
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from torch.distributed.device_mesh import init_device_mesh

second = fully_shard(tiny_hf_model("llama", seed=3), mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
first = FullyShardedDataParallel(tiny_hf_model("llama", seed=3), device_id=torch.device("cpu"))
for model in (first, second):
    try:
        br.Monitor(model)
    except br.ByroteError as error:
        print(error, flush=True)
dist.destroy_process_group()
os._exit(0)  # all is said and written; gloo's threads may abort an interpreter that ends
"""
)


def in_processes(code: str, folder: Path, *arguments: str, n: int = 2) -> list[str]:
    """What each of n processes of one group prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(n), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments], cwd=folder, env={**os.environ, **group, "RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(n)
    ]  # fmt: skip
    ended = [process.communicate(timeout=240) for process in started]
    assert [process.returncode for process in started] == [0] * n, [error[-2000:] for _, error in ended]
    return [out for out, _ in ended]


def test_rank_0_measures_and_all_stop_alike(tmp_path):
    import torch

    gate = '[[expect]]\nprobe = "repeat_loss"\nstep = "every"\nfrom_step = 4\nmax = 0.1\n'
    (tmp_path / "gate.toml").write_text(gate)
    in_processes(DDP, tmp_path, "alone")
    said = in_processes(DDP, tmp_path, "watched")
    assert said == ["rank 0 stopped at 4, measured 2\n", "rank 1 stopped at 4, measured 0\n"]
    assert br.Results.open(tmp_path / "results" / "model").steps == [2, 4]
    for rank in (0, 1):
        alone, watched = (torch.load(tmp_path / f"{name}-{rank}.pt") for name in ("alone", "watched"))
        assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))


def test_models_in_shards_are_refused(tmp_path):
    (said,) = in_processes(SHARDED, tmp_path, n=1)
    first, second = said.splitlines()
    assert "sharded by FSDP" in first and "sharded by FSDP" in second and "byrote watch FOLDER" in first


TRACKED = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import byrote as br
from byrote.integrations import wandb_log
from tiny_models import tiny_hf_model
import wandb

run = wandb.init(mode="offline", dir=".")
run.log({{"mine": 1}})
with br.Monitor(tiny_hf_model("llama", seed=1), every=1, n_seq=8, probes="repeat_loss", log=wandb_log(), budget_frac=None) as monitor:
    monitor(0), monitor(5)
run.log({{"mine": 2}})
summary = dict(run.summary)
print(summary["byrote/step"], summary["mine"], summary["byrote/repeat_loss/later_blocks"])
run.finish()
"""


def test_weights_and_biases_offline(tmp_path):
    pytest.importorskip("wandb")
    done = subprocess.run(
        [sys.executable, "-c", TRACKED], cwd=tmp_path, env={**os.environ, "WANDB_SILENT": "true"},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    step, mine, loss = done.stdout.split()
    assert (step, mine) == ("5", "2")
    assert (
        float(loss)
        == br.Results.open(tmp_path / "results" / "model")["repeat_loss"].at(5).rows["value"].iloc[0]
    )
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
