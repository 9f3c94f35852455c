"""Adding a head probe is adding one file: what else shows it follows from the file."""

from __future__ import annotations

import inspect
import math
import textwrap
from pathlib import Path

from byrote.probes import registry
from byrote.probes.cards import card
from byrote.probes.spec import level_of

FILE = '''
"""Tenth token: attention to the token ten back.

Source: nobody 1999.

1. the diagonal at offset 10
2. its mean
"""

from byrote.probes.spec import probe


@probe(
    unit="attention fraction",
    range=(0, 1),
    better="higher",
    stimulus="repeated_random",
    summary="Attention to the token ten back.",
    chance="uniform causal attention",
    reads_as="1: always",
    order=25,
    featured=2,
)
def tenth_token(pattern: "Tensor") -> "Tensor":
    """Score one layer."""
    return pattern.diagonal(offset=-10, dim1=-2, dim2=-1).mean(-1)
'''


def test_a_file_in_one_of_the_folders_is_a_probe(tmp_path: Path):
    file = tmp_path / "tenth_token.py"
    file.write_text(textwrap.dedent(FILE).lstrip(), encoding="utf-8")
    info = registry.read_description(file, module="byrote.probes.heads.tenth_token")
    assert info is not None
    assert (info.name, info.kind, info.stimuli, info.range) == (
        "tenth_token",
        "head",
        ("repeated_random",),
        (0.0, 1.0),
    )
    assert (info.source, info.main_metric, info.metrics) == ("nobody 1999", "score", {"score": info.summary})
    assert info.not_measured.startswith("the context holds no two blocks of tokens; attention is not finite")
    assert info.summarised == ("score",) and info.compares("score")
    assert "tenth_token" in card(info).name
    known = registry._in_order([*registry.REGISTRY.values(), info])
    assert list(known)[:5] == [
        "prefix_matching", "prefix_aggregates", "previous_token", "tenth_token", "duplicate_token",
    ]  # fmt: skip


def test_places_of_ours_are_the_ones_that_faces_show():
    assert registry.featured()[:3] == ("prefix_matching", "previous_token", "copying_logit")
    assert registry.followed() == ("previous_token", "prefix_matching", "copying_logit")
    assert registry.best_compared() == ("prefix_matching", "previous_token")
    for name, info in registry.REGISTRY.items():
        named = {*info.details, *info.uncompared, *info.settings, *info.headline, *info.chance_levels}
        assert named <= set(info.metrics), name
        assert info.measurable and info.order < 1000, f"{name} says at which place it stands"


def test_a_verdict_reads_metrics_that_there_are():
    verdicts = [info for info in registry.REGISTRY.values() if info.kind == "verdict"]
    assert verdicts
    for info in verdicts:
        assert info.inputs and info.implementation().finisher is not None
        assert set(info.inputs) <= set(inspect.signature(info.implementation().update).parameters)
        for probe, metric in info.inputs.values():
            assert metric in registry.REGISTRY[probe].metrics and probe in info.needs


def test_chance_levels_in_words_are_numbers_of_the_usable_ids():
    assert [level_of(level, 8) for level in ("guess", "guess_nats", 0.5)] == [0.125, math.log(8), 0.5]
