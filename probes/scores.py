"""Moved to byrote.probes.results.scores; to go."""

from byrote.probes.results.scores import Scores as Scores
