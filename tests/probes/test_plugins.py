"""Probes and stimuli of users: from a file, an object or a package; measured, stored, shown without the plugin, and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import byrote as br
from byrote.checkpoints.errors import PluginError
from byrote.probes import registry
from byrote.probes.registry import REGISTRY, load_file, lookup, resolve, use
from byrote.probes.results import Results
from byrote.probes.results.unit_files import unit_provenance
from byrote.probes.stimuli import Vocabulary, make
from byrote.probes.stored_probes import from_json, to_json
from byrote.probes.sweep.config import SweepConfig
from byrote.probes.sweep.run import sweep

PLUGIN = '''
import byrote as br
import numpy as np

@br.stimulus
def doubled(ids, n_ctx, n_seq, seed):
    half = np.random.default_rng(seed).choice(ids, size=(n_seq, (n_ctx - 1) // 2))
    return {"tokens": np.hstack([half, half]), "half": np.full(n_seq, half.shape[1])}

@br.probe(unit="attention fraction", range=(0, 1), stimulus="repeated_random")
def self_attention(pattern):
    """Mean attention of a token to itself.

    Source: nobody.

    1. the diagonal
    """
    return pattern.diagonal(dim1=-2, dim2=-1).mean(-1)

@br.probe(unit="nats", stimulus=("doubled",), metrics={"gain": "first minus second"}, main_metric="gain", chance=0)
def doubling(token_nll, half):
    """What doubling is worth."""
    n = int(half[0])
    return {"gain": token_nll[:, :n].mean(1) - token_nll[:, n:].mean(1)}
'''
UNIT = {"unit": "share", "stimulus": "repeated_random"}


@pytest.fixture
def series(lab_series):
    return br.open_series(lab_series((0, 8)))


def measured(series, probe, tmp_path, **settings):
    return br.measure(series, probe, out=tmp_path / "results", progress=False, n_seq=4, **settings)


def write(tmp_path: Path, text: str = PLUGIN) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_probe_of_ten_lines_is_measured_like_one_of_ours(series, tmp_path):
    @br.probe(unit="attention fraction", range=(0, 1), stimulus="repeated_random")
    def self_attention(pattern):
        """Mean attention of a token to itself."""
        return pattern.diagonal(dim1=-2, dim2=-1).mean(-1)

    @br.probe(unit="attention fraction", range=(0, 1), stimulus="repeated_random")
    def again(pattern, tokens, match_tokens, z, v, weights, layer):
        """Previous-token attention, once more."""
        return pattern.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)

    frame = measured(series, [self_attention, again, "previous_token"], tmp_path).frame
    own = frame[frame["probe"] == "self_attention"]
    assert len(own) == 2 * 2 * 4  # steps, layers, heads
    assert own["valid"].all()
    assert (own["lo"] <= own["value"]).all() and own["value"].between(0, 1).all()
    pos = 2 * 15 + 1  # the tiny model's context holds BOS and two blocks of 15
    assert own["chance"].iloc[0] == pytest.approx((1 / np.arange(1, pos + 1)).mean(), rel=1e-5)
    ours = frame[(frame["probe"] == "previous_token") & (frame["metric"] == "score")]
    theirs = frame[frame["probe"] == "again"]
    assert np.array_equal(theirs["value"], ours["value"]), "the same formula gives the same bits"
    assert theirs["chance"].isna().all(), "what reads more than patterns and tokens has no chance by itself"


def test_a_file_named_on_the_command_line(series, tmp_path):
    infos = load_file(write(tmp_path))
    assert [info.name for info in infos] == ["self_attention", "doubling"]
    assert lookup("self_attention").summary == "Mean attention of a token to itself."
    assert (lookup("self_attention").source, lookup("self_attention").steps) == ("nobody", "1. the diagonal")
    assert [info.name for info in resolve(None)][-2:] == ["doubling", "self_attention"], (
        "last, by their order"
    )
    outcome = sweep(series, SweepConfig(("self_attention", "doubling", "sink"), n_seq=4), out=tmp_path / "r")
    frame, meta = outcome.results.frame, outcome.results.meta
    gain = frame[frame["probe"] == "doubling"]
    assert list(gain["metric"]) == ["gain"] * 2 and gain["valid"].all() and (gain["chance"] == 0).all()
    assert {s["kind"] for s in meta["stimuli"]} == {"repeated_random", "doubled"}
    units = [unit_provenance(p) for p in outcome.path.rglob("units/*/*.parquet")]
    plugins = [u["plugins"] for u in units if "plugins" in u]
    assert len(units) == 3 * 2 and len(plugins) == 2 * 2
    facts = plugins[0].popitem()[1]
    assert (facts["name"], facts["version"], len(facts["source"])) == ("mine.py", "", 32)


def test_its_units_are_reused_until_its_source_changes(series, tmp_path):
    config = SweepConfig(("self_attention", "sink"), n_seq=4)

    def again(text: str):
        load_file(write(tmp_path, text))
        outcome = sweep(series, config, out=tmp_path / "r")
        return outcome.measured, outcome.reused, outcome.superseded

    assert again(PLUGIN) == (4, 0, 0)
    assert again(PLUGIN) == (0, 4, 0)
    assert again(PLUGIN + "\n# another source\n") == (2, 2, 2), "ours are not measured again"


def test_without_the_plugin_its_results_stay_and_are_shown(series, tmp_path, run_prepared):
    load_file(write(tmp_path))
    sweep(series, SweepConfig(("self_attention",), n_seq=4), out=tmp_path / "r")
    REGISTRY.pop("self_attention")
    outcome = sweep(series, SweepConfig(("sink",), n_seq=4), out=tmp_path / "r")
    assert outcome.superseded == 0
    code = (
        "import sys\nimport byrote as br\nfrom byrote.probes.registry import REGISTRY\n"
        "results = br.Results.open(sys.argv[1])\ninfo = REGISTRY['self_attention']\n"
        "print(len(results['self_attention'].top(3)), info.unit, info.measurable, 'torch' in sys.modules)\n"
        "try:\n    info.implementation()\nexcept br.ByroteError as error:\n    print(error)"
    )
    shown = run_prepared(code, str(outcome.path)).splitlines()
    assert shown[0] == "3 attention fraction False False"
    assert shown[1].endswith("give its file: --plugin mine.py")


def test_a_stored_description_is_text_and_has_limits():
    hostile = {
        "name": "evil", "kind": "head", "main_metric": "score", "range": [0, float("nan")], "order": 1 << 80,
        "metrics": {"score": "<img src=x>", "not a name": "x", **{f"m{i}": "x" for i in range(500)}},
        "summary": "[click](http://x) ![i](y) <script>`a`$b$\x00\x1b[31m" + "x" * 10_000, "plugin": {"name": ["x"]},
        "module": "os", "computation": "os.system", "better": "sideways", "stimuli": "abc",
    }  # fmt: skip
    info = from_json(hostile)
    assert info is not None and not info.measurable
    assert not set("<>[]`$\x00\x1b") & set(info.summary + info.metrics["score"])
    assert len(info.summary) <= 500 and len(info.metrics) <= 64 and "not a name" not in info.metrics
    assert (info.range, info.better, info.order, info.stimuli) == (None, None, 1000, ())
    for broken in (
        None,
        [],
        {},
        {**hostile, "name": "../x"},
        {**hostile, "metrics": {}},
        {**hostile, "kind": "os"},
    ):
        assert from_json(broken) is None
    registry.register_stored([to_json(replace(lookup("sink"), unit="lies")), hostile])
    assert lookup("sink").unit == "attention fraction"
    assert lookup("evil").kind == "head"
    assert "evil" not in [info.name for info in resolve(["all"])]


def test_a_stored_description_is_read_as_it_was_written():
    info = lookup("exact_match")
    read = from_json(json.loads(json.dumps(to_json(info))))
    for name in (
        "name",
        "kind",
        "unit",
        "range",
        "better",
        "summary",
        "metrics",
        "units",
        "settings",
        "details",
        "order",
    ):
        assert getattr(read, name) == getattr(info, name)


FAULTS = {
    "a shape": (lambda pattern: pattern, r"score of shape \[4, 4, \d+, \d+\]"),
    "too few heads": (lambda pattern: pattern.mean((1, 2, 3)), r"score of shape \[4\]"),
    "no tensor": (lambda pattern: 0.5, "returned float"),
    "a list": (lambda pattern: [1, 2], "returned list"),
    "another metric": (lambda pattern: {"other": pattern.mean((2, 3))}, "returned 'other', not 'score'"),
    "NaN": (lambda pattern: pattern.mean((2, 3)) * torch.nan, "returned NaN for 32 of 32 values of score"),
    "infinity": (lambda pattern: pattern.mean((2, 3)) / 0, "an infinite score"),
    "an error": (lambda pattern: pattern.no_such_thing(), "raised AttributeError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_that_names_the_probe(series, tmp_path, fault):
    function, said = FAULTS[fault]
    function.__name__ = "faulty"
    faulty = br.probe(**UNIT, summary="What is wrong.")(function)
    with pytest.raises(PluginError, match=said) as caught:
        measured(series, faulty, tmp_path)
    assert "the probe faulty of test_plugins.py" in caught.value.message and caught.value.help


def test_undefined_is_said_and_then_allowed(series, tmp_path):
    @br.probe(**UNIT, undefined="it is never defined")
    def nothing(pattern):
        """Nothing."""
        return pattern.mean((2, 3)) * torch.nan

    frame = measured(series, nothing, tmp_path).frame
    assert not frame["valid"].any() and set(frame["reason"]) == {"it is never defined"}


def test_finish_chance_and_weights(series, tmp_path):
    @br.probe(
        **UNIT, metrics={"score": "s", "curve": "c"}, curve_axis="offset", position_start=3, chance=0.25
    )
    def both(pattern):
        """Two metrics."""
        return {"p": pattern.mean(-1)}

    @both.finish
    def finish(parts, seed):
        p = parts["p"].movedim(0, 1)
        return {"score": p.mean(-1), "curve": p[..., :2]}

    @br.probe(unit="norm", stimulus=())
    def size(weights):
        """Size of a head's output weights."""
        return weights.W_O.norm(dim=(-2, -1))

    frame = measured(series, [both, size], tmp_path).frame
    curve = frame[frame["metric"] == "curve"]
    assert set(curve["position"]) == {3, 4} and (curve["chance"] == 0.25).all()
    sizes = frame[frame["probe"] == "size"]
    assert len(sizes) == 16 and (sizes["value"] > 0).all() and (sizes["lo"] == sizes["value"]).all()


@pytest.mark.parametrize(
    ("given", "arguments", "said"),
    [
        ({"unit": "x"}, "pattern", "does not declare its stimulus"),
        (UNIT, "patern", "has no argument that byrote provides"),
        (UNIT, "pattern, tokns", "requests 'tokns', which no layer provides"),
        ({**UNIT, "sumary": "x"}, "pattern", "has an unknown field 'sumary'"),
        ({**UNIT, "unit": ""}, "pattern", "has no unit"),
    ],
)
def test_a_description_that_cannot_work_is_refused_where_it_is_written(given, arguments, said, tmp_path):
    text = f'import byrote as br\n@br.probe(**{given!r})\ndef mine({arguments}):\n    """Mine."""\n'
    with pytest.raises(br.ByroteError, match=said):
        load_file(write(tmp_path, text))


def test_names_of_ours_and_unknown_stimuli_are_refused(tmp_path):
    text = (
        'import byrote as br\n@br.probe(unit="x", stimulus="STIMULUS")\ndef NAME(pattern):\n    """It."""\n'
    )
    with pytest.raises(PluginError, match="'sink', the name of one of byrote's own"):
        load_file(write(tmp_path, text.replace("NAME", "sink").replace("STIMULUS", "natural")))
    load_file(write(tmp_path, text.replace("NAME", "mine").replace("STIMULUS", "repeated_randm")))
    with pytest.raises(
        PluginError, match=r"'repeated_randm', which does not exist\. did you mean 'repeated_random'"
    ):
        resolve(["mine"])
    with pytest.raises(PluginError, match="stimulus called 'natural'"):
        load_file(
            write(tmp_path, "import byrote as br\n@br.stimulus\ndef natural(ids, n_ctx, n_seq, seed): ...")
        )


@pytest.mark.parametrize(("text", "said"), [("1 / 0", "ZeroDivisionError"), ("x = 1", "holds no probe")])
def test_a_file_that_is_no_plugin_is_refused(tmp_path, text, said):
    with pytest.raises(PluginError, match=said):
        load_file(write(tmp_path, text))
    with pytest.raises(PluginError, match="there is no plugin at"):
        load_file(tmp_path / "nowhere.py")


VOCABULARY = Vocabulary(np.arange(5, 40), 1)


def test_a_stimulus_is_drawn_with_an_id_of_its_own():
    @br.stimulus
    def drawn(ids, n_ctx, n_seq, seed):
        return np.random.default_rng(seed).choice(ids, size=(n_seq, n_ctx - 1))

    @br.probe(unit="x", stimulus=drawn)
    def reads(pattern):
        """It."""

    use(reads)
    one, same, other = (make("drawn", VOCABULARY, n_ctx=9, seed=s, n_seq=3) for s in (0, 0, 1))
    assert (one.tokens.shape, one.tokens[:, 0].tolist(), one.kind) == ((3, 9), [1, 1, 1], "drawn")
    assert one.id == same.id != other.id and one.id.startswith("drawn-l9-n3-s0-")
    assert np.array_equal(one.match_tokens, one.tokens)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda: np.zeros((2, 9), int), "sequences of 9 tokens"),
        (lambda: np.zeros((2, 4)), "returned float64"),
        (lambda: np.zeros(4, int), r"int64 \[4\]"),
        (lambda: np.full((2, 4), -1), "the lowest id -1"),
        (
            lambda: {"tokens": np.zeros((2, 4), int), "match_tokens": np.zeros((2, 3), int)},
            "match_tokens has another",
        ),
        (lambda: {"tokens": np.zeros((2, 4), int), "row": np.zeros(3)}, "row has another shape"),
        (lambda: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_stimulus_that_cannot_be_shown_is_one_error(returned, said):
    broken = br.stimulus(lambda ids, n_ctx, n_seq, seed: returned())
    with pytest.raises(PluginError, match=said):
        broken.draw(VOCABULARY, 9, 0, 2)


def test_a_broken_stimulus_stops_the_sweep(series, tmp_path):
    @br.stimulus
    def broken(ids, n_ctx, n_seq, seed):
        return 1 / 0

    @br.probe(unit="x", stimulus=broken)
    def reads(pattern):
        """It."""
        return pattern.mean((2, 3))

    with pytest.raises(PluginError, match="the stimulus broken raised ZeroDivisionError"):
        measured(series, reads, tmp_path)


def test_packages_offer_probes_by_an_entry_point(tmp_path, monkeypatch):
    package = tmp_path / "site" / "byrote_entry_test.py"
    package.parent.mkdir()
    package.write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(package.parent))
    entries = metadata.EntryPoints(
        metadata.EntryPoint(name, f"byrote_entry_test:{name}", registry.ENTRY_POINTS)
        for name in ("self_attention", "gone")
    )
    monkeypatch.setattr(
        registry.metadata, "entry_points", lambda group: entries if group == "byrote.probes" else ()
    )
    info = lookup("self_attention")
    assert info.plugin is not None and info.plugin.name == "byrote_entry_test"
    assert "self_attention" not in [i.name for i in resolve(None)], "it is measured when it is asked for"
    with pytest.raises(PluginError, match="the probe gone of byrote_entry_test cannot be loaded"):
        lookup("gone")
    assert len(registry.load_installed()) == 1


def test_nothing_of_a_folder_is_loaded_by_itself(series, tmp_path, monkeypatch):
    """No file in the checkpoint folder, the results folder or the working folder is run."""
    bomb = "raise SystemExit('it was run')"
    for folder in (series.path, tmp_path / "results" / series.name, tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("mine.py", "conftest.py", "byrote_probes.py"):
            (folder / name).write_text(bomb, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert len(measured(series, "sink", tmp_path).frame) > 0
    assert Results.open(tmp_path / "results" / series.name).steps == [0, 8]
