"""byrote: did a language model learn the rule, or did it learn by rote?

    import byrote as br

    results = br.measure(br.open_series("runs/mine"))
    br.figures.trajectory(results["prefix_matching"])

Everything here loads on first use: opening a series or looking at results never imports torch, measuring does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from byrote.checkpoints.lazy import lazily

if TYPE_CHECKING:
    from byrote.checkpoints.errors import ByroteError as ByroteError
    from byrote.checkpoints.opening import open_runs as open_runs
    from byrote.checkpoints.opening import open_series as open_series
    from byrote.checkpoints.series import CheckpointSeries as CheckpointSeries
    from byrote.dashboard.play import export as export
    from byrote.integrations.monitor import Monitor as Monitor
    from byrote.interp.captured import capture as capture
    from byrote.interp.loading import load as load
    from byrote.probes import degrade as degrade
    from byrote.probes import figures as figures
    from byrote.probes.degradation import compare as compare
    from byrote.probes.group_comparison import compare_groups as compare_groups
    from byrote.probes.groups import group as group
    from byrote.probes.groups import groups_of as groups_of
    from byrote.probes.imported import import_scores as import_scores
    from byrote.probes.interventions import ablate as ablate
    from byrote.probes.interventions import clamp as clamp
    from byrote.probes.interventions import graft as graft
    from byrote.probes.notebook import measure as measure
    from byrote.probes.notebook import onset as onset
    from byrote.probes.results import Results as Results
    from byrote.probes.sequences import Stimulus as Stimulus
    from byrote.probes.spec import probe as probe
    from byrote.probes.stimuli import stimulus as stimulus
    from byrote.probes.trajectory import circuit_overlap as circuit_overlap

_FROM = {
    "ByroteError": "byrote.checkpoints.errors",
    "CheckpointSeries": "byrote.checkpoints.series",
    "Monitor": "byrote.integrations.monitor",
    "Results": "byrote.probes.results",
    "Stimulus": "byrote.probes.sequences",
    "ablate": "byrote.probes.interventions",
    "capture": "byrote.interp.captured",
    "clamp": "byrote.probes.interventions",
    "circuit_overlap": "byrote.probes.trajectory",
    "compare": "byrote.probes.degradation",
    "compare_groups": "byrote.probes.group_comparison",
    "degrade": "byrote.probes.degrade",
    "figures": "byrote.probes.figures",
    "import_scores": "byrote.probes.imported",
    "export": "byrote.dashboard.play",
    "graft": "byrote.probes.interventions",
    "group": "byrote.probes.groups",
    "groups_of": "byrote.probes.groups",
    "load": "byrote.interp.loading",
    "measure": "byrote.probes.notebook",
    "onset": "byrote.probes.notebook",
    "open_runs": "byrote.checkpoints.opening",
    "open_series": "byrote.checkpoints.opening",
    "probe": "byrote.probes.spec",
    "stimulus": "byrote.probes.stimuli",
}
__all__ = [*sorted(_FROM), "__version__"]


_load, __dir__ = lazily(__name__, _FROM)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("byrote")
    return _load(name)
