"""Help, the frozen option list, the written reference, and what looking at results does not import."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from cli_page import reference

from byrote.cli.command import commands
from byrote.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
ROOT_CONTEXT = click.Context(cli, info_name="byrote")
SHARED = {"-q", "--quiet", "-v", "--verbose", "--no-color", "--traceback", "-h", "--help"}
OUTPUT = {"-t", "--table", "--csv", "--json", "--jsonl"}
# What people script against. An option that goes or changes its name breaks them: change this list knowingly.
OPTIONS: dict[str, set[str]] = {
    "byrote": {"-V", "--version", "-h", "--help"},
    "byrote lab": {"-h", "--help"},
    "byrote lab train": SHARED
    | {"--arm", "--repeat-frac", "--pool", "--steps", "--batch", "--lr", "--seed", "--layers", "--heads"}
    | {"--d-model", "--norm", "--bigram-frac", "--every", "--threads", "--device", "--fresh", "--progress"}
    | {"--recipe", "--size", "--source", "--source-set", "--blocks", "--architecture", "--smeared-keys"}
    | {"--dropout", "--init-scale", "--betas", "--weight-decay"}
    | {"--grid", "--jobs", "--checkpoints", "--arm-set", "--retrain-stale", "--engine", "--engine-option"},
    "byrote lab recipes": SHARED | OUTPUT,
    "byrote lab plan": SHARED | {"--jobs"},
    "byrote lab status": SHARED | OUTPUT,
    "byrote scan": SHARED
    | OUTPUT
    | {"--losses", "--loss-name", "--base-model", "--step-map", "--allow-download", "--disk-budget"},
    "byrote lint": SHARED
    | OUTPUT
    | {
        "--results",
        "--write",
        "--no-write",
        "--base-model",
        "--step-map",
        "--allow-download",
        "--disk-budget",
        "--progress",
    },
    "byrote import": SHARED
    | {"-o", "--out", "--metric", "--unit", "--range", "--better", "--run", "--source", "--fresh"},
    "byrote probes": SHARED | OUTPUT,
    "byrote run": SHARED
    | {
        "-p",
        "--probe",
        "--plugin",
        "--steps",
        "--device",
        "--dtype",
        "--seed",
        "--sequences",
        "-o",
        "--out",
        "--swap",
    }
    | {
        "--text",
        "--members",
        "--stimulus",
        "--twins",
        "--threads",
        "--dry-run",
        "--fresh",
        "--fail-fast",
        "--rehash",
        "--allow-partial",
        "--prefetch",
        "--no-prefetch",
        "--trace",
        "--save-attention",
        "--top-heads",
        "--base-model",
        "--step-map",
        "--allow-download",
        "--disk-budget",
    }
    | {"--losses", "--loss-name", "--progress", "--jobs", "--engine", "--engine-option", "--shard"},
    "byrote watch": SHARED
    | {"-p", "--probe", "--plugin", "--device", "--dtype", "--seed", "--sequences", "-o", "--out", "--swap"}
    | {
        "--text",
        "--stimulus",
        "--members",
        "--twins",
        "--threads",
        "--prefetch",
        "--no-prefetch",
        "--save-attention",
    }
    | {"--top-heads", "--base-model", "--step-map", "--allow-download", "--disk-budget"}
    | {"--losses", "--loss-name", "--progress", "--allow-partial"}
    | {"--poll", "--settle", "--idle-timeout", "--until-step", "--expect", "--stop-on-fail", "--stop-signal"},
    "byrote verify": SHARED | OUTPUT | {"--content"},
    "byrote show": SHARED | OUTPUT | {"--step", "--top", "-p", "--probe", "--metric", "--events"},
    "byrote compare": SHARED | OUTPUT | {"--group", "--align", "--at", "--heads", "--top", "--expect"},
    "byrote check": SHARED | OUTPUT | {"--expect", "--junit", "--github", "--no-github"},
    "byrote report": SHARED
    | {"--group", "-o", "--out", "--base", "--light", "--figures", "--each", "--open", "--expect"},
    "byrote export": SHARED
    | {"-o", "--out", "--run", "--base", "-p", "--probe", "--metric", "--heads", "--step", "--open"},
    "byrote graft": SHARED
    | OUTPUT
    | {"--from", "--into", "--heads", "--sequences", "--device", "--dtype", "--seed", "--threads"}
    | {"--base-model", "--step-map", "--allow-download", "--disk-budget"},
    "byrote logits": SHARED
    | OUTPUT
    | {"--from", "--to", "--sequences", "--device", "--dtype", "--seed", "--threads"}
    | {"--base-model", "--step-map", "--allow-download", "--disk-budget"},
    "byrote dashboard": SHARED | {"--port", "--no-browser", "--allow-origin"},
    "byrote degrade": SHARED
    | OUTPUT
    | {
        "--group",
        "--baseline",
        "--over",
        "--metric",
        "--copy",
        "--how",
        "--size",
        "--floor",
        "--step",
        "--measure",
        "--seed",
    },
    "byrote text": SHARED
    | OUTPUT
    | {
        "--reference",
        "--synthetic",
        "--units",
        "--tokenizer",
        "--context",
        "--windows",
        "--separator",
        "--text-field",
    }
    | {"--measure", "--model", "--sample", "--device", "--dtype", "--threads", "--seed"},
    "byrote reproduce": SHARED
    | OUTPUT
    | {
        "--all",
        "--list",
        "--plan",
        "--full",
        "--quick",
        "-o",
        "--folder",
        "--first-seed",
        "--jobs",
        "--engine",
        "--engine-option",
        "--progress",
    },
    "byrote selftest": SHARED | OUTPUT | {"--device", "--dtype", "--seed", "--threads", "--long"},
    "byrote doctor": SHARED | OUTPUT | {"--torch"},
    "byrote completion": SHARED | {"--install"},
}


def test_verbs_and_options_are_the_frozen_ones():
    found = {}
    for name, command in commands(ROOT_CONTEXT):
        context = click.Context(command, info_name=name, **command.context_settings)
        options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
        found[name] = {word for option in options for word in (*option.opts, *option.secondary_opts)}
    assert found == OPTIONS


def test_written_reference_is_current():
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == reference(), (
        "run: python tests/cli_page.py > docs/cli.md"
    )


def test_reference_names_every_verb_and_option():
    text = reference()
    missing = [word for words in OPTIONS.values() for word in words if f"`{word}`" not in text]
    assert not missing
    assert [name for name in OPTIONS if f"## {name}\n" not in text] == []


@pytest.mark.parametrize("name", OPTIONS)
def test_help_starts_with_an_example(byrote, name):
    args = name.split()[1:]
    done = byrote(*args, "-h")
    assert done.exit_code == 0
    head, first = done.stdout.splitlines()[:2]
    assert re.fullmatch("Examples?:", head)
    assert first.startswith("  byrote ")
    assert byrote(*args, "--help").stdout == done.stdout


@pytest.mark.parametrize("args", [(), ("lab",)])
def test_no_verb_shows_the_help(byrote, args):
    done = byrote(*args)
    assert done.exit_code == 0
    assert done.stdout == byrote(*args, "-h").stdout


def test_version(byrote):
    assert re.fullmatch(r"byrote \d+\.\d+\S*\n", byrote("-V").stdout)


def test_an_environment_variable_cannot_ask_for_the_version(byrote):
    assert byrote("probes", "--json", BYROTE_VERSION="1").stdout.startswith("[")


def test_lab_defaults_are_the_labs_own():
    from byrote.checkpoints.lab import LabConfig

    train = dict(commands(ROOT_CONTEXT))["byrote lab train"]
    context = click.Context(train)
    defaults = {p.name: p.get_default(context) for p in train.params if isinstance(p, click.Option)}
    config = LabConfig()
    assert defaults["layers"] == config.n_layers and defaults["heads"] == config.n_heads
    assert defaults["norm"] == "none" and config.normalization_type is None
    assert defaults["arm"] == config.arm.kind
    assert defaults["bigram_frac"] == config.source.bigram_frac
    assert defaults["blocks"] == "attention" and config.attn_only
    for name in (
        "d_model",
        "architecture",
        "smeared_keys",
        "dropout",
        "init_scale",
        "betas",
        "weight_decay",
        "steps",
        "batch",
        "lr",
        "seed",
        "every",
        "threads",
        "device",
    ):
        assert defaults[name] == getattr(config, name), name


# Options of `byrote run` about processes and files around a sweep, which a notebook has other means for.
AROUND = {
    "losses",
    "loss_name",
    "allow_partial",
    "dry_run",
    "fail_fast",
    "jobs",
    "plugin",
    "rehash",
    "trace",
    "engine",
    "engine_option",
    "shard",
}
SERIES = {
    "disk_budget": "disk_budget_bytes",
    "steps": "select",
}  # in GB on the command line


def test_an_option_of_run_has_the_same_name_in_python():
    import inspect
    from dataclasses import fields

    import byrote as br
    from byrote.probes.sweep.config import SweepConfig

    run = dict(commands(ROOT_CONTEXT))["byrote run"]
    typed = {p.name for p in run.params if isinstance(p, click.Option)}
    typed -= {"quiet", "verbose", "no_color", "traceback", "help"} | AROUND
    settings = {one.metadata.get("called", one.name) for one in fields(SweepConfig)}
    taken = settings | {
        *inspect.signature(br.measure).parameters,
        *inspect.signature(br.open_series).parameters,
    }
    assert typed - taken == set(SERIES), typed - taken
    assert AROUND | set(SERIES) <= {p.name for p in run.params}


def test_help_imports_no_verb_and_nothing_heavy(run_python):
    code = """
import sys
from click.testing import CliRunner
from byrote.cli.main import cli, VERBS
assert CliRunner().invoke(cli, ["--help"]).exit_code == 0
loaded = [m for m in VERBS if f"byrote.cli.{m}" in sys.modules]
heavy = [m for m in ("torch", "pandas", "numpy", "rich", "probes") if m in sys.modules]
print(loaded, heavy)
for verb in (["lab", "train"], *([v] for v in VERBS)):
    assert CliRunner().invoke(cli, [*verb, "--help"]).exit_code == 0, verb
print([m for m in ("torch", "pandas", "numpy", "rich") if m in sys.modules])
"""
    assert run_python(code) == "[] []\n[]"


def test_looking_imports_no_torch(run_prepared, planted_runs, planted_results):
    code = """
import sys
from click.testing import CliRunner
from byrote.cli.main import cli
runs, results, out = sys.argv[1:]
for args in (
    ["scan", runs],
    ["probes", "copying_logit"],
    ["doctor"],
    ["show", f"{results}/planted", "-t"],
    ["compare", f"{results}/planted", f"{results}/random"],
    ["report", results, "-o", out, "--light"],
    ["run", runs, "-p", "previous_token", "--sequences", "16", "-o", results, "--dry-run"],
):
    done = CliRunner().invoke(cli, args)
    assert done.exit_code == 0, (args, done.stderr)
print(done.stdout.count(", 3 already stored, "), "torch" in sys.modules)
"""
    out = planted_results.parent / "page.html"
    assert run_prepared(code, str(planted_runs), str(planted_results), str(out)) == "2 False"


def test_byrote_command_is_this_group():
    from importlib import metadata

    (entry,) = metadata.entry_points(group="console_scripts", name="byrote")
    from byrote.cli.main import main

    assert entry.load() is main


def documented() -> list[str]:
    """Every command line of a code block in the documentation."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shell = "".join(block for language, block in blocks if language in ("", "sh"))
    lines = shell.replace("\\\n", " ").splitlines()
    return list(dict.fromkeys(line for line in lines if line.startswith("byrote ") and "VERB" not in line))


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_has_the_options_it_names(line):
    words = shlex.split(line, comments=True)[1:]
    known = dict(commands(ROOT_CONTEXT))
    named = (
        ("byrote",) if words[0].startswith("-") else (f"byrote {' '.join(words[:2])}", f"byrote {words[0]}")
    )
    name = next(n for n in named if n in known)
    command = known[name]
    parser = command.make_parser(click.Context(command, info_name=name))
    typed, rest, _ = parser.parse_args(words[len(name.split()) - 1 :])
    assert not rest and set(typed) <= {param.name for param in command.params} | {"help"}
