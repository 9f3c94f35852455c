"""Moved to byrote.probes.results; to go."""

from byrote.probes.results.derived import observations_of as observations_of
from byrote.probes.results.derived import rebuild_observations as rebuild_observations
from byrote.probes.results.rows import mark_left_out as mark_left_out
from byrote.probes.results.run import Results as Results
from byrote.probes.results.schema import in_order as in_order
from byrote.probes.results.units import SCHEMA_VERSION as SCHEMA_VERSION
from byrote.probes.results.units import read_units as read_units
from byrote.probes.results.units import step_folder as step_folder
from byrote.probes.results.units import unit_paths as unit_paths
from byrote.probes.results.units import unit_provenance as unit_provenance
from byrote.probes.results.units import write_unit as write_unit
