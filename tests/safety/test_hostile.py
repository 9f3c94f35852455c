"""Hostile folders end in a clear refusal within seconds, in little memory, with nothing run and nothing written.

All are opened, hashed and loaded by one process of its own, whose memory is limited; see `hostile_files`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import hostile_folders  # noqa: F401  (adds its cases)
import pytest
import torch
from hostile_files import HOSTILE, LOADS
from tiny_models import write_lab_series

from byrote.checkpoints import open_series

ROOT = Path(__file__).parents[2]
MOST_SECONDS = 10  # of one folder, on a busy machine; most take a few milliseconds
MOST_GROWTH_BYTES = 400 << 20  # of resident memory over all of them
LIMIT_BYTES = 3 << 30  # of address space beyond what the imports took

READER = """
import json, resource, signal, sys, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from byrote.checkpoints import CheckpointError, open_series
from byrote.checkpoints.fingerprint import fingerprint, tensor_hashes
from byrote.interp.loading import load_fresh

def read(folder, good):
    series = open_series(folder)
    steps = []
    for checkpoint in series:
        fingerprint(tensor_hashes(checkpoint))
        load_fresh(checkpoint)
        steps.append(checkpoint.step)
    gaps = [[gap.reason, gap.help] for gap in series.gaps]
    return {"steps": steps, "gaps": gaps, "notes": list(series.notes)}

read(sys.argv[1], True)  # imports everything there is to import
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + int(sys.argv[2]),) * 2)
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for folder in sys.argv[3:]:
    began = time.monotonic()
    signal.alarm(60)
    try:
        outcome = read(folder, False)
    except CheckpointError as error:
        outcome = {"refused": [error.message, error.help]}
    except Exception as error:
        outcome = {"crashed": repr(error)}
    signal.alarm(0)
    outcome["seconds"] = time.monotonic() - began
    outcome["grown"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) * 1024
    print(json.dumps(outcome), flush=True)
"""


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Everything in a tree, without following links: kind, size and time of change."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            state = (Path(parent) / name).lstat()
            found[str(Path(parent) / name)] = (state.st_mode, state.st_size, state.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What became of every hostile folder, and what changed on disk meanwhile."""
    top = tmp_path_factory.mktemp("hostile")
    good = write_lab_series(top / "good", (1,))
    folders = []
    for name, (write, _) in HOSTILE.items():
        folders.append(top / "folders" / name)
        folders[-1].mkdir(parents=True)
        write(folders[-1], top / "markers" / name)
    for name in ("markers", "home", "work", "tmp"):
        (top / name).mkdir()
    before = snapshot(top)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_", "TORCH"))} | {
        "HOME": str(top / "home"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1", "TMPDIR": str(top / "tmp"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", READER, str(good), str(LIMIT_BYTES), *map(str, folders)],
        capture_output=True, text=True, cwd=top / "work", env=environment, timeout=300, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(folders), (len(lines), done.returncode, done.stderr[-2000:])
    return dict(zip(HOSTILE, lines, strict=True)), before, snapshot(top)


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_with_a_reason_and_advice(outcomes, name):
    outcome, words = outcomes[0][name], HOSTILE[name][1]
    assert "crashed" not in outcome, outcome
    assert outcome["seconds"] < MOST_SECONDS
    said = [outcome["refused"]] if "refused" in outcome else outcome["gaps"]
    if words == LOADS:
        assert outcome.get("steps"), outcome
        assert said == []
        return
    assert any(re.search(words, reason) for reason, _ in said), outcome
    for reason, help in said:
        assert help
        assert reason.isprintable()
        assert len(reason) < 1000


def test_the_good_steps_beside_bad_ones_are_read(outcomes):
    for name in (
        "weights_are_a_device",
        "config_is_a_pipe",
        "step_folder_is_a_loop",
        "config_of_200_megabytes",
    ):
        assert len(outcomes[0][name]["steps"]) == 1
    for name in ("nanogpt_file_is_a_pipe", "state_dict_is_a_device"):
        assert outcomes[0][name]["steps"] == [1]


def test_links_to_regular_files_are_followed_and_listed(outcomes):
    for name in ("weights_link_outside", "config_links_outside"):
        (note,) = outcomes[0][name]["notes"]
        assert re.search(
            r"1 files lie outside the folder and are linked into it \(step1/.* -> .*elsewhere", note
        )
        assert outcomes[0][name]["steps"] == [1, 2]


def test_nothing_was_run_and_nothing_written(outcomes):
    _, before, after = outcomes
    assert len(before) > 300
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    # torch makes this empty folder when it is imported.
    assert {path for path in changed if not re.search(r"/tmp(/torchinductor_\w+)?$", path)} == set()


def test_memory_stayed_small(outcomes):
    assert max(outcome["grown"] for outcome in outcomes[0].values()) < MOST_GROWTH_BYTES


def test_the_payload_does_what_it_says_when_it_is_run(tmp_path):
    """The marker's absence above would prove nothing if the payload were broken."""
    import pickle

    from pickled_files import Payload

    pickle.loads(pickle.dumps(Payload(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


def test_torchs_own_reader_would_have_run_the_payload(tmp_path):
    """Why `.metadata` is never given to it: if this fails, torch became safer and the reader here may be too strict."""
    import warnings

    import torch.distributed.checkpoint as dcp
    from hostile_files import payload_in_dcp_metadata
    from torch.distributed.checkpoint.api import CheckpointException

    payload_in_dcp_metadata(tmp_path / "run", tmp_path / "marker")
    with warnings.catch_warnings(), pytest.raises(CheckpointException):  # on what the payload returned
        warnings.simplefilter("ignore")
        dcp.load({"w": torch.ones(1)}, checkpoint_id=tmp_path / "run" / "step_1", no_dist=True)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_read_and_reported_invalid(tmp_path, bad):
    from safetensors.torch import load_file, save_file

    from byrote.probes.sweep.config import SweepConfig
    from byrote.probes.sweep.run import sweep

    path = write_lab_series(tmp_path / "run", (1, 2))
    file = path / "step_00000002" / "model.safetensors"
    tensors = load_file(file)
    tensors["layers.0.attn.q.weight"].fill_(bad)
    save_file(tensors, file)
    before = snapshot(tmp_path / "run")
    outcome = sweep(
        open_series(path), SweepConfig(probes=("prefix_matching",), n_seq=4), out=tmp_path / "out"
    )
    frame = outcome.results.frame
    assert set(frame[frame.step == 1].valid) == {True}
    of_layer = frame[(frame.step == 2) & (frame.layer == 0)]
    assert len(of_layer)
    assert not of_layer.valid.any()
    assert of_layer.value.isna().all()
    assert (of_layer.reason != "").all()
    assert snapshot(tmp_path / "run") == before
    assert {p.name for p in tmp_path.iterdir()} == {"run", "out"}


@pytest.mark.parametrize("name", ["../../evil", "/evil", "..", "a/b"])
def test_a_name_in_a_manifest_leads_nowhere(tmp_path, name):
    path = write_lab_series(tmp_path / "top" / "run", (1,))
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"name": name}))
    assert open_series(path).name == "run"
