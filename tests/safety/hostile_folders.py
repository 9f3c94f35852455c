"""Hostile folders whose files are honest by themselves: links, pipes, names, configs. Adds to `hostile_files.HOSTILE`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile_files import (
    LOADS,
    SMALL,
    Writer,
    cases,
    hostile,
    state_file,
)
from pickled_files import (
    hf_state,
    nanogpt_content,
    write_config,
    write_dcp,
    write_nanogpt,
)
from safetensors.torch import save_file
from tiny_models import tiny_hf_model, write_hf_series, write_lab_series

# --- links, pipes, devices --------------------------------------------------------------------------------------------


def model(folder: Path, step: int = 1) -> Path:
    """A good step folder."""
    write_hf_series(folder, "gpt2", (step,), **SMALL)
    return folder / f"step{step}"


def replaced(name: str, by: Callable[[Path], None]) -> Writer:
    """A good series of two steps with one file of the first replaced."""

    def write(folder: Path, marker: Path) -> None:
        model(folder, 2)
        file = model(folder, 1) / name
        file.unlink(missing_ok=True)
        by(file)

    return write


def link_to(target: str) -> Callable[[Path], None]:
    return lambda file: file.symlink_to(target)


def outside(file: Path) -> None:
    """A link to a good file of the same name elsewhere, as in a hub cache."""
    good = (
        model(file.parent.parent.parent / f"elsewhere-{file.parent.parent.name}-{file.name}", 1) / file.name
    )
    file.symlink_to(good)


cases(
    "not a regular file",
    weights_are_a_device=replaced("model.safetensors", link_to("/dev/zero")),
    weights_are_a_pipe=replaced("model.safetensors", os.mkfifo),
    weights_are_a_loop=replaced("model.safetensors", link_to("model.safetensors")),
    weights_are_a_folder=replaced("model.safetensors", Path.mkdir),
    weights_link_to_a_folder=replaced("model.safetensors", link_to("..")),
    weights_link_nowhere=replaced("model.safetensors", link_to("/nowhere/at/all")),
)
cases(
    "config.json is missing",
    config_is_a_pipe=replaced("config.json", os.mkfifo),
    config_is_a_device=replaced("config.json", link_to("/dev/zero")),
    config_is_a_folder=replaced("config.json", Path.mkdir),
)
cases(
    LOADS,
    weights_link_outside=replaced("model.safetensors", outside),
    config_links_outside=replaced("config.json", outside),
    trainer_state_is_a_pipe=replaced("trainer_state.json", os.mkfifo),
    index_is_a_pipe=replaced("model.safetensors.index.json", os.mkfifo),
)


@hostile("link to a folder that contains it")
def step_folder_links_to_itself(folder: Path, marker: Path) -> None:
    model(folder, 1)
    (folder / "step2").symlink_to(".")


@hostile("it is not a folder")
def step_folder_is_a_loop(folder: Path, marker: Path) -> None:
    model(folder, 1)
    (folder / "step2").symlink_to("step2")


@hostile("it is not a folder")
def step_folder_is_a_pipe(folder: Path, marker: Path) -> None:
    model(folder, 1)
    os.mkfifo(folder / "step2")


@hostile("cannot load step")
def wrong_dtype(folder: Path, marker: Path) -> None:
    file = model(folder, 1) / "model.safetensors"
    file.write_bytes(file.read_bytes().replace(b'"F32"', b'"F99"', 1))


@hostile("not a regular file")
def nanogpt_file_is_a_pipe(folder: Path, marker: Path) -> None:
    write_nanogpt(folder / "ckpt_1.pt", 1)
    os.mkfifo(folder / "ckpt_2.pt")


@hostile("not a regular file")
def state_dict_is_a_device(folder: Path, marker: Path) -> None:
    state_file(folder, hf_state("gpt2", 1))
    (folder / "step_2.pt").symlink_to("/dev/zero")


@hostile("is missing")
def dcp_piece_is_a_pipe(folder: Path, marker: Path) -> None:
    write_config(folder, "gpt2")
    write_dcp(folder / "step_1", hf_state("gpt2", 1))
    (folder / "step_1" / "__0_0.distcp").unlink()
    os.mkfifo(folder / "step_1" / "__0_0.distcp")


@hostile("holds|no weights|config.json is missing")
def metadata_is_a_pipe(folder: Path, marker: Path) -> None:
    (folder / "step_1").mkdir(parents=True)
    os.mkfifo(folder / "step_1" / ".metadata")


@hostile("config.json is missing")
def manifest_is_a_pipe(folder: Path, marker: Path) -> None:
    write_lab_series(folder, (1,))
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")


# --- paths that lead out ----------------------------------------------------------------------------------------------


def shards(*names: str) -> Writer:
    return replaced(
        "model.safetensors",
        lambda file: (
            (file.parent / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {str(i): name for i, name in enumerate(names)}})
            )
            and None
        ),
    )


cases(
    "points outside its folder",
    shard_in_the_folder_above=shards("../../elsewhere.safetensors"),
    shard_at_the_root=shards("/etc/passwd.safetensors"),
)
cases(
    "another kind|points outside",
    shard_is_the_folder_above=shards(".."),
    shard_with_a_nul=shards("a/../b.safetensors\0"),
)


@hostile("without a step or a folder")
def manifest_leads_out(folder: Path, marker: Path) -> None:
    write_lab_series(folder / "inner", (1,))
    path = folder / "manifest.json"
    (folder / "inner" / "manifest.json").rename(path)
    (folder / "inner" / "config.json").rename(folder / "config.json")
    manifest = json.loads(path.read_text())
    manifest["checkpoints"] = [{"step": 3, "folder": ".."}, {"step": 4, "folder": "../.."}]
    path.write_text(json.dumps(manifest))


# --- configs ----------------------------------------------------------------------------------------------------------


def config(arch: str = "gpt2", **changes: Any) -> Writer:
    """A good model whose config says something else."""

    def write(folder: Path, marker: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tiny = tiny_hf_model(arch, seed=1)
        save_file(
            {n: t.clone() for n, t in tiny.state_dict().items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
        (folder / "config.json").write_text(json.dumps({**tiny.config.to_dict(), **changes}))

    return write


def lab_config(**changes: Any) -> Writer:
    def write(folder: Path, marker: Path) -> None:
        write_lab_series(folder, (1,))
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(fields | changes))

    return write


TOO_MUCH = "but the weights have|far more than the weights have"
cases("run code", config_asks_for_code=config(auto_map={"AutoModelForCausalLM": "evil.Model"}))
cases(
    "quantised",
    config_is_quantised=config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
)
cases(
    TOO_MUCH,
    billion_layers=config(n_layer=10**9),
    million_layers_by_another_name=config(num_hidden_layers=10**6),
    layers_in_a_nested_list=config("gpt_neo", attention_types=[[["global"], 10**9]]),
    width_of_millions=config(n_embd=10**7),
    vocabulary_of_millions=config("llama", vocab_size=10**9),
    positions_of_millions=config(n_positions=10**7),
    table_of_millions=config("gptj", n_positions=10**7, rotary_dim=32),
    feed_forward_of_millions=config("llama", intermediate_size=10**8),
    lab_billion_layers=lab_config(n_layers=10**9),
    lab_width_of_millions=lab_config(d_model=10**7),
    lab_positions_of_millions=lab_config(n_ctx=10**7),
    nanogpt_million_layers=lambda f, m: torch.save(
        nanogpt_content(1) | {"model_args": {**nanogpt_content(1)["model_args"], "n_layer": 10**6}},
        f / "ckpt.pt",
    ),
)
cases("no architecture", config_names_a_path=config(model_type="../../evil", architectures=["../evil"]))
cases(LOADS, config_names_other_weights=config(transformers_weights="../../elsewhere.safetensors"))
cases(
    LOADS, config_names_a_kernel=config(_attn_implementation="evil/kernel", attn_implementation="evil/kernel")
)


def oversized(name: str) -> Writer:
    """A good series of two steps with one JSON file of 200 MB, which takes no room on disk."""

    def write(folder: Path, marker: Path) -> None:
        model(folder, 1)
        path = model(folder, 2) / name
        with path.open("ab") as file:
            file.truncate(200 << 20)
        if name.endswith("index.json"):
            (path.parent / "model.safetensors").unlink()

    return write


cases(
    "are read of such a file",
    config_of_200_megabytes=oversized("config.json"),
    trainer_state_of_200_megabytes=oversized("trainer_state.json"),
    index_of_200_megabytes=oversized("model.safetensors.index.json"),
)
cases(
    "nested more than 64 levels deep",
    config_nested_for_ever=replaced("config.json", lambda f: f.write_text('{"a":' * 500_000) and None),
)
cases(
    "cannot be read as JSON",
    config_with_an_endless_number=replaced(
        "config.json", lambda f: f.write_text('{"a":' + "9" * 10**6 + "}") and None
    ),
)


# --- nothing in them --------------------------------------------------------------------------------------------------


def empty(name: str) -> Writer:
    return lambda f, m: (write_config(f, "gpt2"), (f / name).parent.mkdir(exist_ok=True), (f / name).touch())[
        0
    ]


cases(
    "0 bytes",
    no_bytes_of_safetensors=empty("model.safetensors"),
    no_bytes_of_state_dict=empty("step_1.safetensors"),
)
cases(
    r"\(0 bytes\)|is empty",
    no_bytes_of_bin=empty("pytorch_model.bin"),
    no_bytes_of_nanogpt=empty("ckpt_1.pt"),
    no_bytes_of_lightning=empty("step=1.ckpt"),
)
cases("not a readable pickle file|damaged", no_bytes_of_metadata=empty("step_1/.metadata"))
cases("config.json is missing", folders_named_like_files=lambda f, m: [(f / n).mkdir(parents=True) for n in
      ("step_1.pt", "ckpt.pt", "model.safetensors", "manifest.json", "pytorch_model.bin", ".metadata", "a.ckpt")] and None)  # fmt: skip
