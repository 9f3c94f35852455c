"""Repositories whose branches are steps: read from the hub's cache offline, fetched step by step when allowed."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import HubServer, commit_of
from tiny_models import write_hf_series

from byrote.checkpoints import CheckpointError, at_hand, open_runs, open_series
from byrote.checkpoints.fingerprint import fingerprint, tensor_hashes
from byrote.checkpoints.formats import hub, hub_source
from byrote.checkpoints.formats.hub_source import wanted_files
from byrote.interp import HookedSeries
from byrote.interp.loading import load_fresh

REPO = "some-org/tiny-gpt"
TOKENS = torch.arange(1, 20)[None]
FLAG = "allow_download=True"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Step folders as an author pushes them, with what must never be fetched beside the weights."""
    run = write_hf_series(tmp_path_factory.mktemp("source") / "run", "gpt2", (0, 1, 2, 3))
    for step in run.iterdir():
        (step / "pytorch_model.bin").write_bytes(b"pickled")
        (step / "optimizer.pt").write_bytes(b"pickled")
        (step / "modeling_tiny.py").write_text("raise SystemExit('code from a checkpoint ran')")
        (step / "README.md").write_text("words")
        (step / "onnx").mkdir()
        (step / "onnx" / "model.safetensors").write_bytes(b"not at the top")
    return run


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_in_cache(
    cache: Path, refs: dict[str, Path], *, repo: str = REPO, commits: dict[str, str] | None = None
) -> Path:
    """Lay revisions out as huggingface_hub does: refs/, snapshots/<commit>/ of links, blobs/ by content."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for ref, files in refs.items():
        commit = (commits or {}).get(ref) or commit_of(ref)
        (folder / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in files.iterdir():
            if file.suffix in (".json", ".safetensors") and not (snapshot / file.name).exists():
                blob = folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
                shutil.copy(file, blob)
                (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return folder


def test_branches_in_the_cache_are_steps(cache, source):
    folder = put_in_cache(cache, {f"step{i}": source / f"step{i}" for i in (3, 0, 1)})
    series = open_series(REPO)
    assert (series.name, series.format, series.path) == ("tiny-gpt", "hub", folder)
    assert (series.steps, series.gaps, series.notes) == ((0, 1, 3), (), ())
    assert series[1].path == folder / "snapshots" / commit_of("step1")
    assert series[1].size_bytes == (source / "step1" / "model.safetensors").stat().st_size
    by_path = open_series(folder)
    assert (by_path.steps, by_path.name) == (series.steps, series.name)
    assert open_series(f"hf://{REPO}").steps == series.steps
    local = open_series(source)
    for step in (0, 1, 3):
        assert torch.equal(
            load_fresh(series.at(step)).logits(TOKENS), load_fresh(local.at(step)).logits(TOKENS)
        )
        assert tensor_hashes(series.at(step)) == tensor_hashes(local.at(step))


def test_swap_in_place_on_cached_steps(cache, source):
    put_in_cache(cache, {f"step{i}": source / f"step{i}" for i in range(3)})
    hooked = HookedSeries(open_series(REPO))
    for checkpoint in hooked.series:
        assert torch.equal(hooked.load(checkpoint).logits(TOKENS), load_fresh(checkpoint).logits(TOKENS))
    assert hooked.swap_used == "in place"


def test_sharded_steps_and_tokens_from_names(cache, tmp_path):
    run = write_hf_series(tmp_path / "run", "gpt2", (1000,), shard_size="20KB")
    put_in_cache(cache, {"step1000-tokens4B": run / "step1000"})
    (checkpoint,) = open_series(REPO)
    assert (checkpoint.step, checkpoint.tokens_seen) == (1000, 4 * 10**9)
    assert len(checkpoint.files) > 1


def test_one_commit_under_two_steps_is_two_steps(cache, source):
    """Published series have this: facts for lint, not something to hide."""
    put_in_cache(
        cache, {"step0": source / "step0", "step1": source / "step0"}, commits={"step1": commit_of("step0")}
    )
    series = open_series(REPO)
    assert series.steps == (0, 1)
    assert series[0].path == series[1].path
    assert fingerprint(tensor_hashes(series[0])) == fingerprint(tensor_hashes(series[1]))


def test_two_names_of_one_step(cache, source):
    refs = {"step1": source / "step1", "global_step1": source / "step1", "step2": source / "step2"}
    put_in_cache(cache, refs, commits={"global_step1": commit_of("step1")})
    assert open_series(REPO).steps == (1, 2)
    put_in_cache(cache, {"global_step2": source / "step3"})
    series = open_series(REPO)
    assert series.steps == (1,)
    assert {gap.path.name for gap in series.gaps} == {"step2", "global_step2"}
    assert "2 branches claim step 2 with different commits: global_step2, step2" in series.gaps[0].reason


def test_what_names_no_step_is_noted(cache, source):
    folder = put_in_cache(
        cache, {"step1": source / "step1", "main": source / "step3", "pr/7": source / "step2"}
    )
    (folder / "refs" / "pr" / "7").unlink()
    (folder / "refs" / "broken").write_text("../../../elsewhere")
    series = open_series(REPO)
    assert series.steps == (1,)
    assert series.notes == (
        "branches that name no step were left out: main",
        f"snapshots that no branch names were left out: {commit_of('pr/7')[:12]}",
    )


def test_main_alone_is_a_series_of_one(cache, source):
    put_in_cache(cache, {"main": source / "step3"})
    series = open_series(REPO)
    assert series.steps == (0,)
    assert series.notes == ("no branch names a training step; main is shown as step 0",)


def test_stages_are_series_of_their_own(cache, source):
    names = ["stage1-step1-tokens1B", "stage1-step2-tokens2B", "stage2-ingredient1-step1-tokens1B"]
    put_in_cache(cache, {name: source / f"step{i}" for i, name in enumerate(names)})
    with pytest.raises(CheckpointError, match=rf"{REPO} holds 2 parts.*{REPO}@stage1"):
        open_series(REPO)
    for series in (open_series(REPO, part="stage1"), open_series(f"{REPO}@stage1")):
        assert (series.name, series.steps, series.tokens_seen) == (
            "tiny-gpt-stage1",
            (1, 2),
            (10**9, 2 * 10**9),
        )
    assert open_series(f"{REPO}@{names[2]}").steps == (1,)
    assert [s.name for s in open_runs(REPO)] == ["tiny-gpt-stage1", "tiny-gpt-stage2-ingredient1"]
    with pytest.raises(CheckpointError, match=r"no part or branch called 'stage3'.*did you mean 'stage1'"):
        open_series(REPO, part="stage3")


def test_incomplete_steps_are_gaps_that_name_the_flag(cache, source):
    folder = put_in_cache(cache, {f"step{i}": source / f"step{i}" for i in range(3)})
    (folder / "snapshots" / commit_of("step1") / "model.safetensors").unlink()
    shutil.rmtree(folder / "snapshots" / commit_of("step2"))
    series = open_series(REPO)
    assert series.steps == (0,)
    assert [(gap.step, gap.path.name) for gap in series.gaps] == [(1, "step1"), (2, "step2")]
    assert "no weights" in series.gaps[0].reason
    assert "not in the cache" in series.gaps[1].reason
    assert all("--allow-download" in gap.help for gap in series.gaps)


def test_without_the_flag_nothing_is_asked_of_the_network(cache, source, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError) as caught:
        open_series(REPO)
    assert REPO in caught.value.message
    assert str(cache) in caught.value.message
    assert FLAG in caught.value.help
    assert "--allow-download" in caught.value.help
    put_in_cache(cache, {"main": source / "step0"}, repo="some-org/tiny-gptx")
    with pytest.raises(CheckpointError, match=r"did you mean 'some-org/tiny-gptx', which the cache holds\?"):
        open_series(REPO)
    with pytest.raises(CheckpointError, match="the cache holds some-org/tiny-gptx"):
        open_series("else/where")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not exist.*did you mean 'mine'"):
        open_series("runs/mime")  # a folder here by that name: a typo in a path, not a repository


def test_a_cached_repository_counts_more_than_a_folder_of_its_owners_name(
    cache, source, tmp_path, monkeypatch
):
    put_in_cache(cache, {"step1": source / "step1"})
    (tmp_path / "some-org").mkdir()
    monkeypatch.chdir(tmp_path)
    assert open_series(REPO).format == "hub"
    shutil.copytree(source, tmp_path / REPO)
    assert open_series(REPO).format == "hf"  # a path that exists is that path


@pytest.mark.parametrize(
    "text", ["gpt2", "/abs/path", "./a/b", "a/b/c", "../a", "a/../b", "org/", "hf://", "-x/y", "org/na me"]
)
def test_not_repositories(text):
    assert hub.repository(text) is None


def test_the_cache_lies_where_the_environment_says(run_python, tmp_path):
    code = (
        "import os, sys\nfor name in ('HF_HUB_CACHE', 'HF_HOME'): os.environ.pop(name, None)\n"
        "os.environ[sys.argv[1]] = sys.argv[2]\nfrom checkpoints.formats import hub\nprint(hub.cache_folder('a/b'))"
    )
    assert run_python(code, "HF_HOME", str(tmp_path)) == str(tmp_path / "hub" / "models--a--b")
    assert run_python(code, "HF_HUB_CACHE", str(tmp_path)) == str(tmp_path / "models--a--b")


def test_reading_the_cache_imports_no_torch(cache, source, run_python):
    put_in_cache(cache, {f"step{i}": source / f"step{i}" for i in range(2)})
    code = (
        "import os, sys\nos.environ['HF_HUB_CACHE'] = sys.argv[1]\nfrom checkpoints import open_series\n"
        "assert open_series(sys.argv[2]).steps == (0, 1)\n"
        "print([m for m in ('torch', 'transformers', 'httpx', 'httpx2', 'pandas') if m in sys.modules])"
    )
    assert run_python(code, str(cache), REPO) == "[]"


# From here on with a stand-in for the hub itself.


@pytest.fixture
def server(cache, source, monkeypatch) -> Iterator[HubServer]:
    from huggingface_hub import constants

    monkeypatch.setattr(hub_source, "OFFLINE", False)
    revisions = {f"step{i}": source / f"step{i}" for i in range(4)}
    with HubServer(REPO, {"main": source / "step3", **revisions}, tags=("step2",)) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


STEP_FILES = {"config.json", "generation_config.json", "model.safetensors"}


def step_bytes(source: Path) -> int:
    return sum((source / "step0" / name).stat().st_size for name in STEP_FILES)


def on_disk(cache: Path) -> tuple[set[str], int]:
    """Steps whose weights lie in the cache, and the bytes of all blobs."""
    folder = cache / f"models--{REPO.replace('/', '--')}"
    names = {commit_of(f"step{i}"): f"step{i}" for i in range(4)}
    whole = {names[s.name] for s in (folder / "snapshots").iterdir() if (s / "model.safetensors").is_file()}
    return whole, sum(blob.stat().st_size for blob in (folder / "blobs").iterdir())


def test_listing_fetches_no_files(server, cache):
    series = open_series(REPO, allow_download=True)
    assert series.steps == (0, 1, 2, 3)
    assert series.notes == ("branches that name no step were left out: main",)
    assert server.files_sent() == []
    assert not cache.exists()
    assert [checkpoint.size_bytes for checkpoint in series] == [0] * 4


def test_a_step_is_fetched_when_it_is_loaded_and_only_what_is_needed(server, cache, source):
    series = open_series(REPO, allow_download=True)
    model = load_fresh(series.at(2))
    assert torch.equal(model.logits(TOKENS), load_fresh(open_series(source).at(2)).logits(TOKENS))
    assert set(server.files_sent()) == {f"step2/{name}" for name in STEP_FILES}
    load_fresh(series.at(2))
    assert len(server.files_sent()) == len(STEP_FILES)  # once
    assert open_series(REPO).steps == (2,)  # it is in the cache like any other download
    with at_hand(series.at(2)) as ready:
        assert ready.files == open_series(REPO)[0].files


def test_what_the_cache_holds_is_not_asked_for(server, cache, source):
    put_in_cache(cache, {"step1": source / "step1"})
    series = open_series(REPO, allow_download=True)
    assert series.steps == (0, 1, 2, 3)
    load_fresh(series.at(1))
    assert server.files_sent() == []


def test_a_budget_of_two_steps_holds_two_steps(server, cache, source):
    budget = 2 * step_bytes(source) + 1000
    series = open_series(REPO, allow_download=True, disk_budget_bytes=budget)
    seen = []
    for _ in HookedSeries(series):
        steps, held = on_disk(cache)
        assert held <= budget
        seen.append(steps)
    assert seen == [{"step0"}, {"step0", "step1"}, {"step1", "step2"}, {"step2", "step3"}]
    weights = [sent for sent in server.files_sent() if sent.endswith("model.safetensors")]
    assert weights == [f"step{i}/model.safetensors" for i in range(4)]
    folder = cache / f"models--{REPO.replace('/', '--')}"
    assert sorted(p.name for p in (folder / "refs").iterdir()) == ["step2", "step3"]
    assert len(list((folder / "blobs").iterdir())) == 4  # two models; their two small files are the same


def test_what_was_there_before_is_never_removed(server, cache, source):
    folder = put_in_cache(cache, {"step0": source / "step0", "main": source / "step1"})
    before = {p.relative_to(folder) for p in folder.rglob("*")}
    series = open_series(REPO, allow_download=True, disk_budget_bytes=step_bytes(source) + 1000)
    list(HookedSeries(series))
    assert before <= {p.relative_to(folder) for p in folder.rglob("*")}
    assert open_series(REPO).steps == (0, 3)  # and of what was fetched, the last


def test_a_step_that_was_there_in_part_is_completed_and_kept(server, cache, source, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    shutil.copy(source / "step1" / "config.json", part / "config.json")
    put_in_cache(cache, {"step1": part})
    series = open_series(REPO, allow_download=True, disk_budget_bytes=2 * step_bytes(source) + 1000)
    list(HookedSeries(series))
    assert on_disk(cache)[0] == {"step1", "step3"}


def test_a_step_in_use_is_not_removed(server, cache, source):
    series = open_series(REPO, allow_download=True, disk_budget_bytes=step_bytes(source) + 1000)
    with at_hand(series[0]) as ready:
        with (
            pytest.raises(CheckpointError, match=r"taken up by steps that are in use.*step 1 of"),
            at_hand(series[1]),
        ):
            pass
        assert ready.files[0].is_file()
    with at_hand(series[1]):
        assert on_disk(cache)[0] == {"step1"}


def test_another_thread_waits_for_room(server, cache, source):
    """The sweep reads the next step ahead while the current one is measured."""
    series = open_series(REPO, allow_download=True, disk_budget_bytes=step_bytes(source) + 1000)
    hashes: list[dict[str, str]] = []
    ahead = threading.Thread(target=lambda: hashes.append(tensor_hashes(series[1])))
    with at_hand(series[0]):
        ahead.start()
        ahead.join(0.5)
        assert ahead.is_alive()
        assert on_disk(cache)[0] == {"step0"}
    ahead.join(20)
    assert hashes == [tensor_hashes(open_series(source)[1])]


def test_a_budget_too_small_for_one_step(server, source):
    series = open_series(REPO, allow_download=True, disk_budget_bytes=1000)
    with pytest.raises(
        CheckpointError, match=r"step 0 of .* needs 0\.12 MB, more than the disk budget of 0\.00 MB"
    ):
        load_fresh(series[0])
    assert server.files_sent() == []


def test_a_full_disk_is_noticed_before_the_download(server, monkeypatch):
    series = open_series(REPO, allow_download=True)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 5, 5))
    with pytest.raises(CheckpointError, match=r"needs .* the disk of .* has 0\.00 MB"):
        load_fresh(series[0])
    assert server.files_sent() == []


def test_pickled_steps_are_fetched_where_there_is_nothing_else(server, source, tmp_path):
    from safetensors.torch import load_file

    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(source / "step1" / "config.json", old)
    tensors = load_file(source / "step1" / "model.safetensors")
    torch.save({k.removeprefix("transformer."): v for k, v in tensors.items()}, old / "pytorch_model.bin")
    server.revisions["step1"] = old
    model = load_fresh(open_series(REPO, allow_download=True).at(1))
    assert torch.equal(model.logits(TOKENS), load_fresh(open_series(source).at(1)).logits(TOKENS))


def test_unreachable_and_unknown_repositories(server, monkeypatch):
    with pytest.raises(
        CheckpointError, match=r"cannot list the branches of some-org/other.*check the spelling"
    ):
        open_series("some-org/other", allow_download=True)
    series = open_series(REPO, allow_download=True)
    del server.revisions["step1"]
    with pytest.raises(CheckpointError, match=r"cannot list the files of some-org/tiny-gpt@step1"):
        load_fresh(series.at(1))
    assert load_fresh(series.at(2)).checkpoint.step == 2  # the series goes on
    monkeypatch.setattr(hub_source, "OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"):
        open_series(REPO, allow_download=True)


def test_the_process_stays_offline_outside_the_download(server):
    from huggingface_hub import HfApi, constants

    assert constants.HF_HUB_OFFLINE
    open_series(REPO, allow_download=True)
    assert constants.HF_HUB_OFFLINE
    with pytest.raises(CheckpointError):
        open_series("some-org/other", allow_download=True)
    assert constants.HF_HUB_OFFLINE
    with pytest.raises(Exception, match="offline mode is enabled"):
        HfApi(endpoint=server.url).list_repo_refs(REPO)


def test_a_sweep_within_a_budget_and_again_without_a_download(server, cache, source, tmp_path):
    from byrote.probes.sweep.config import SweepConfig
    from byrote.probes.sweep.run import sweep

    config = SweepConfig(probes=("previous_token",), n_seq=8)
    budget = 2 * step_bytes(source) + 1000
    series = open_series(REPO, allow_download=True, disk_budget_bytes=budget)
    outcome = sweep(series, config, out=tmp_path / "out")
    assert (outcome.gaps, outcome.results.steps) == ([], [0, 1, 2, 3])
    assert len(on_disk(cache)[0]) <= 2
    weights = [sent for sent in server.files_sent() if sent.endswith("model.safetensors")]
    assert weights == [f"step{i}/model.safetensors" for i in range(4)]  # each once, though read ahead
    local = sweep(open_series(source), config, out=tmp_path / "local").results.frame
    columns = ["step", "metric", "layer", "head", "value", "lo", "hi"]
    assert outcome.results.frame[columns].equals(local[columns])
    sent = len(server.files_sent())
    again = sweep(
        open_series(REPO, allow_download=True, disk_budget_bytes=budget), config, out=tmp_path / "out"
    )
    assert (again.measured, again.gaps) == (0, [])
    assert len(server.files_sent()) == sent  # what was measured and removed is known by its commit


def test_checkpoints_travel_to_other_processes(server):
    import copyreg  # what multiprocessing does, without a process

    series = open_series(REPO, allow_download=True, disk_budget_bytes=10**6)
    rebuild, arguments = series[0].source.__reduce_ex__(2)
    assert rebuild is not copyreg.__newobj__
    copy = rebuild(*arguments)
    assert (copy.repo, copy.budget_bytes, copy.revisions) == (REPO, 10**6, series[0].source.revisions)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["model.safetensors", "config.json", "pytorch_model.bin", "x.py"], {"model.safetensors", "config.json"}),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
             "config.json", "consolidated.safetensors", "vocab.json"],
            {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
             "config.json"},
        ),
        (["model.safetensors", "model.fp16.safetensors", "tokenizer.json"], {"model.safetensors", "tokenizer.json"}),
        (["pytorch_model.bin", "config.json", "optimizer.bin", "x.py"], {"pytorch_model.bin", "config.json"}),
        (
            ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "config.json", "training_args.bin"],
            {"pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "config.json"},
        ),
    ],
)  # fmt: skip
def test_which_files_are_wanted(names, wanted):
    assert set(wanted_files(dict.fromkeys(names, 10), where="here")) == wanted


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["config.json", "README.md"], "holds no weights"),
        ([], "no files"),
    ],
)
def test_which_revisions_are_refused(names, words):
    with pytest.raises(CheckpointError, match=words):
        wanted_files(dict.fromkeys(names, 10), where="here")


def test_an_adapters_base_is_found_in_the_cache(cache, source, tmp_path):
    put_in_cache(cache, {"main": source / "step2"})
    config = {"peft_type": "LORA", "base_model_name_or_path": REPO, "r": 1, "target_modules": ["c_attn"]}
    adapter = tmp_path / "run" / "checkpoint-1"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    shutil.copy(source / "step2" / "model.safetensors", adapter / "adapter_model.safetensors")
    (checkpoint,) = open_series(tmp_path / "run")
    assert checkpoint.config_path.parent.name == commit_of("main")
