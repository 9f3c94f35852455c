"""`byrote probes`, `byrote selftest` and `byrote doctor`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from byrote.probes.registry import REGISTRY

# probes


def test_probes_lists_the_registry(byrote):
    rows = json.loads(byrote("probes", "--json").stdout)
    assert [row["name"] for row in rows] == list(REGISTRY)
    (loss,) = [row for row in rows if row["name"] == "repeat_loss"]
    assert loss["unit"] == "nats" and loss["better"] == "lower"
    assert loss["range_lo"] is None and loss["range_hi"] is None


@pytest.mark.parametrize("name", REGISTRY)
def test_every_probe_has_a_card(byrote, name):
    done = byrote("probes", name)
    assert done.exit_code == 0
    info, card = REGISTRY[name], " ".join(done.stdout.split())
    assert card.startswith(name)
    for part in (info.summary, info.chance, info.source, info.unit, *info.metrics.values()):
        assert "".join(part.split()) in "".join(card.split())
    assert "how it is computed" in card and " 1. " in card


def test_one_probe_as_data(byrote):
    (row,) = json.loads(byrote("probes", "induction", "--json").stdout)
    assert row["needs"] == ["prefix_matching", "copying_logit", "sink", "induction_dla"]
    assert "verdict" in row["metrics"]


def test_an_unknown_probe_suggests_the_nearest(byrote):
    done = byrote("probes", "copying_logits")
    assert done.exit_code == 2
    assert "did you mean 'copying_logit'?" in done.stderr


# selftest


@pytest.mark.parametrize(
    ("passed", "code", "said"), [(True, 0, "all 2 checks passed"), (False, 1, "2 checks, 1 failed")]
)
def test_selftest_exits_by_its_report(byrote, monkeypatch, passed, code, said):
    from byrote.probes.selftest import Check, SelfTestReport

    asked = {}

    def run(**options):
        asked.update(options)
        checks = [Check("scores", "1", "1", True), Check("alarms", "0", "0" if passed else "3", passed)]
        return SelfTestReport(options["device"], options["dtype"], options["seed"], checks)

    monkeypatch.setattr("byrote.probes.selftest.run_selftest", run)
    done = byrote("selftest", "--dtype", "float64", "--seed", "3", "--json")
    assert done.exit_code == code
    assert asked == {
        "device": "cpu",
        "dtype": "float64",
        "seed": 3,
        "tries": 100,
        "n_random": 10,
        "n_null": 6,
        "on_progress": None,
    }
    assert [row["passed"] for row in json.loads(done.stdout)] == [True, passed]
    assert said in done.stderr
    byrote("selftest", "--long")
    assert (asked["tries"], asked["n_random"]) == (2000, 25)


# doctor


def findings(done) -> dict[str, dict]:
    return {row["check"]: row for row in json.loads(done.stdout)}


def test_doctor_says_what_is_here(byrote):
    done = byrote("doctor", "--json")
    assert done.exit_code == 0, done.stdout
    found = findings(done)
    for name in (
        "python",
        "byrote",
        "torch",
        "transformer-lens",
        "device",
        "threads",
        "memory",
        "disk",
        "writable",
    ):
        assert found[name]["status"] == "ok" or (name in ("memory", "disk") and found[name]["fix"])
    assert found["torch"]["value"].startswith("2.")
    assert found["device"]["value"].startswith("cpu")
    assert found["threads"]["value"].endswith(f"of {os.cpu_count()} cores")


def test_doctor_says_which_setting_won(byrote):
    Path("pyproject.toml").write_text(
        '[tool.byrote.run]\nout = "here"\nseed = 3\n[tool.byrote.lab.train]\nd-model = 32\n'
    )
    rows = json.loads(byrote("doctor", "--json", BYROTE_RUN_SEED="4").stdout)
    by_value = {row["value"]: row["check"] for row in rows}
    assert by_value["here ([tool.byrote] in pyproject.toml)"] == "run.out"
    assert by_value["3 in [tool.byrote] gives way to BYROTE_RUN_SEED"] == "run.seed"
    assert by_value["4 (BYROTE_RUN_SEED)"] == "run.seed"
    assert by_value["32 ([tool.byrote] in pyproject.toml)"] == "lab.train.d_model"
    assert any(row["check"] == "disk" and row["value"].endswith("free for here") for row in rows)


@pytest.mark.parametrize(
    ("settings", "env", "check", "fix"),
    [
        ("[tool.byrote.run]\ndevise = 1\n", {}, "run.devise", "did you mean 'run.device'?"),
        ("[tool.byrote\n", {}, "pyproject.toml", "fix the file"),
        ("", {"BYROTE_RUN_DEVISE": "cuda"}, "BYROTE_RUN_DEVISE", "did you mean 'BYROTE_RUN_DEVICE'?"),
    ],
)
def test_doctor_exits_2_for_settings_it_cannot_understand(byrote, settings, env, check, fix):
    Path("pyproject.toml").write_text(settings)
    done = byrote("doctor", "--json", **env)
    assert done.exit_code == 2
    assert (findings(done)[check]["status"], findings(done)[check]["fix"]) == ("wrong", fix)


def test_doctor_exits_2_when_something_needed_is_missing(byrote, monkeypatch):
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        if name == "pyarrow":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    done = byrote("doctor", "--json")
    assert done.exit_code == 2
    assert findings(done)["pyarrow"]["fix"] == "pip install pyarrow"


def test_doctor_finds_a_place_it_cannot_write(byrote, monkeypatch):
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    done = byrote("doctor", "--json", BYROTE_RUN_OUT="elsewhere/results")
    assert done.exit_code == 2
    assert findings(done)["writable"]["value"] == "elsewhere/results: Permission denied"
