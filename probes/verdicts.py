"""Moved to byrote.probes.results.derived; to go."""

from byrote.probes.results.derived import derive as derive
