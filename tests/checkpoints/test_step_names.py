"""Every spelling of a step that is read, one row each, and the names that must not be taken for one."""

from __future__ import annotations

import pytest

from byrote.checkpoints import CheckpointError
from byrote.checkpoints.step_names import (
    SPELLINGS,
    StepName,
    count_parts,
    parse_name,
    refuse_mixed_parts,
    step_folders,
)

B = 10**9
ROWS = {
    "checkpoint-500": StepName(500),
    "checkpoint_500": StepName(500),
    "checkpoint-1000": StepName(1000),
    "checkpoint-0": StepName(0),
    "checkpoint-1.5k": StepName(1500),
    "checkpoint_3_1000.pt": StepName(1000),
    "step1000": StepName(1000),
    "step0": StepName(0),
    "step_00000512": StepName(512),
    "step-7": StepName(7),
    "step-40000": StepName(40_000),
    "step50K": StepName(50_000),
    "step1M": StepName(1_000_000),
    "step2B": StepName(2 * B),
    "STEP10": StepName(10),
    "global_step1000": StepName(1000),
    "globalstep30": StepName(30),
    "global_step_30": StepName(30),
    "state_step001000.pt": StepName(1000),
    "step1000-tokens4B": StepName(1000, 4 * B),
    "step150-tokens500M": StepName(150, B // 2),
    "step477000-tokens2000B": StepName(477_000, 2000 * B),
    "step9-tokens1.5T": StepName(9, 1500 * B),
    "stage1-step1000-tokens4B": StepName(1000, 4 * B, "stage1"),
    "stage1-step150-tokens1B": StepName(150, B, "stage1"),
    "stage2-ingredient1-step1000-tokens3B": StepName(1000, 3 * B, "stage2-ingredient1"),
    "stage2-ingredient3-step1000-tokens3B": StepName(1000, 3 * B, "stage2-ingredient3"),
    "stage1-step-40000": StepName(40_000, None, "stage1"),
    "Stage3-step10": StepName(10, None, "stage3"),
    "phase2_step10": StepName(10, None, "phase2"),
    "lc-4k-to-32k-step-4000": StepName(4000, None, "lc-4k-to-32k"),
    "CrystalCoder_phase1_checkpoint_055500": StepName(55_500, None, "crystalcoder_phase1"),
    "TinyLlama-1.1B-step-50K-105b": StepName(50_000, 105 * B, "tinyllama-1.1b"),
    "TinyLlama-1.1B-intermediate-step-1431k-3T": StepName(1_431_000, 3000 * B, "tinyllama-1.1b"),
    "TinyLlama-1.1B-intermediate-step-1195k-token-2.5T": StepName(1_195_000, 2500 * B, "tinyllama-1.1b"),
    "ckpt_100": StepName(100),
    "CKPT_020": StepName(20),
    "ckpt_512.pt": StepName(512),
    "ckpt-7.pth": StepName(7),
    "iter_0001000": StepName(1000),
    "iter-1000": StepName(1000),
    "iter-000500-ckpt.pth": StepName(500),
    "iteration_20": StepName(20),
    "model_000512": StepName(512),
    "model_00001000.bin": StepName(1000),
    "epoch=1-step=500.ckpt": StepName(500),
    "epoch=1-step=500-v1.ckpt": StepName(500),
    "tiny-epoch=02-step=1000-val_loss=0.32.ckpt": StepName(1000),
    "step=500.ckpt": StepName(500),
    "0512": StepName(512, bare=True),
    "1000.safetensors": StepName(1000, bare=True),
}  # fmt: skip
NOT_STEPS = (
    "main", "runs", "", "checkpoint", "checkpoint-final", "checkpoint-best", "last.ckpt", "ckpt.pt", "latest", "mystep10",
    "step10-backup", "steps10", "step", "step-", "stage1", "stage1-tokens4B", "epoch_3", "epoch=3.ckpt", "seed1",
    "model-00001-of-00002.safetensors", "model_7b", "pythia-70m", "gpt2-step", "v1.0", "1.5", "12k", "step1e3", "step٣",
    "step" + "9" * 200, "step1.2.3",
)  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_spelling(name):
    assert parse_name(name) == ROWS[name]


@pytest.mark.parametrize("name", NOT_STEPS)
def test_not_a_step(name):
    assert parse_name(name) is None


def test_every_spelling_in_the_table_has_a_row_here():
    def first(name: str) -> str:
        stem = (
            name.rsplit(".", 1)[0]
            if name.endswith((".pt", ".pth", ".ckpt", ".bin", ".safetensors"))
            else name
        )
        return next(who for who, pattern in SPELLINGS if pattern.fullmatch(stem))

    assert {first(name) for name in ROWS} == {who for who, _ in SPELLINGS}


def test_a_name_in_pieces_takes_no_time_to_refuse():
    assert parse_name("epoch=1-" * 4000 + "x") is None
    assert parse_name("a-step-" * 4000 + "x") is None


def test_parts_are_counted_apart():
    names = ["stage1-step1-tokens1B", "stage1-step2-tokens2B", "stage2-ingredient1-step1-tokens1B", "main"]
    assert count_parts(names) == {"stage1": 2, "stage2-ingredient1": 1}
    refuse_mixed_parts(names[:2], where="here")
    with pytest.raises(CheckpointError) as caught:
        refuse_mixed_parts(names, where="here")
    assert "here holds 2 parts of a training" in caught.value.message
    assert "stage1 (2), stage2-ingredient1 (1)" in caught.value.message
    assert "here@stage1" in caught.value.help


def test_steps_with_and_without_a_stage_do_not_mix():
    with pytest.raises(CheckpointError, match=r"no stage \(1\), stage2 \(1\).*part='stage2'"):
        refuse_mixed_parts(["step1", "stage2-step1"], where="here")


def test_bare_numbers_are_steps_only_where_they_hold_a_model(tmp_path):
    for name in ("0512", "1024", "7"):
        (tmp_path / name).mkdir()
    (tmp_path / "0512" / "config.json").write_text("{}")
    (tmp_path / "1024" / "model.safetensors").write_bytes(b"")
    (tmp_path / "7" / "checkpoint-500").mkdir()  # a run called 7
    assert [p.name for p in step_folders(tmp_path)] == ["0512", "1024"]
    (tmp_path / "step3").mkdir()
    (tmp_path / "step4").write_text("a file")
    assert [p.name for p in step_folders(tmp_path)] == ["step3"]
