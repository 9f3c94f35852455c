"""Plugins that a test makes known are gone with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from byrote.probes.registry import REGISTRY
from byrote.probes.stimuli import PLUGIN_STIMULI


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What is known is the same after a test as before it."""
    known, stimuli = dict(REGISTRY), dict(PLUGIN_STIMULI)
    yield
    for now, before in ((REGISTRY, known), (PLUGIN_STIMULI, stimuli)):
        now.clear()
        now.update(before)
