"""Moved to byrote.probes.results.schema; to go."""

from byrote.probes.results.schema import OBSERVATION_SCHEMA as OBSERVATION_SCHEMA
from byrote.probes.results.schema import UNIT_SCHEMA as UNIT_SCHEMA
from byrote.probes.results.schema import Measured as Measured
from byrote.probes.results.schema import from_samples as from_samples
from byrote.probes.results.schema import not_measured as not_measured
from byrote.probes.results.schema import to_frame as to_frame
from byrote.probes.results.schema import unit_table as unit_table
