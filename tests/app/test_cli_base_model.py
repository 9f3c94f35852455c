"""`--base-model`: adapters whose own config names a base that is not here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import write_hf_series

from byrote.cli.session import Exit
from byrote.probes.results import Results

TARGET = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_hf_series(tmp_path, "llama", (0,), name="base") / "base"


@pytest.fixture
def adapters(tmp_path: Path, base: Path) -> Path:
    """Two LoRA steps over a model called someone/gone, written by hand."""
    rows, columns = load_file(base / "model.safetensors")[f"{TARGET}.weight"].shape
    for step in (10, 20):
        folder = tmp_path / "adapters" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        generator = torch.Generator().manual_seed(step)
        save_file(
            {
                f"base_model.model.{TARGET}.lora_A.weight": torch.randn(2, columns, generator=generator),
                f"base_model.model.{TARGET}.lora_B.weight": torch.randn(rows, 2, generator=generator),
            },
            folder / "adapter_model.safetensors",
        )
        config = {
            "peft_type": "LORA",
            "base_model_name_or_path": "someone/gone",
            "r": 2,
            "lora_alpha": 2,
            "target_modules": ["layers.0.self_attn.q_proj"],
        }
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path / "adapters"


def test_adapters_are_measured_over_the_model_that_is_named(byrote, adapters, base, tmp_path):
    refused = byrote("scan", adapters)
    assert refused.exit_code == Exit.NOTHING and "--base-model FOLDER" in refused.stderr
    listed = byrote("scan", adapters, "--base-model", base, "--json")
    assert [row["step"] for row in json.loads(listed.stdout)] == [10, 20]
    done = byrote(
        "run",
        adapters,
        "--base-model",
        base,
        "-p",
        "previous_token",
        "-o",
        tmp_path / "out",
        "--progress",
        "none",
    )
    assert done.exit_code == Exit.DONE, done.stderr
    scores = Results.open(tmp_path / "out" / "adapters").select("previous_token", "score")
    by_step = [rows["value"].tolist() for _, rows in scores.groupby("step")]
    assert len(by_step) == 2 and by_step[0] != by_step[1]
    assert byrote("lint", adapters, "--base-model", base, "--progress", "none").exit_code == Exit.DONE


def test_a_base_that_is_not_there_is_refused_by_name(byrote, adapters, tmp_path):
    done = byrote("scan", adapters, "--base-model", tmp_path / "nowhere")
    assert done.exit_code == Exit.USAGE and "nowhere" in done.stderr
