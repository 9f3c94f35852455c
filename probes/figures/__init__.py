"""Results to plotly figures: the same figure in notebook, dashboard and report. No torch.

Every function takes results first and `look` last, and returns a `Figure`: a `go.Figure` that says what it shows in
`fig.alt` and holds its data in `fig.table`. `docs/figures.md` lists them with a line of code each.
"""

from __future__ import annotations

from byrote.probes.figures.alike import density
from byrote.probes.figures.arm_grids import arm_grids
from byrote.probes.figures.attention import attention
from byrote.probes.figures.attention_steps import attention_over_steps
from byrote.probes.figures.by_position import (
    copy_curve,
    faithfulness,
    loss_by_position,
    offset_profile,
    recall_shares,
)
from byrote.probes.figures.canvas import Figure, Look, apply_theme
from byrote.probes.figures.circuit import circuit
from byrote.probes.figures.claim import claim
from byrote.probes.figures.coverage import coverage
from byrote.probes.figures.differences import difference_grid, differences, head_scatter
from byrote.probes.figures.displaced_heads import displacement
from byrote.probes.figures.doses import damage_of_arms, dose_response, effective_sizes
from byrote.probes.figures.double_descent import double_descent
from byrote.probes.figures.epochs_worth import effective_data
from byrote.probes.figures.head_grid import change_grid, grid_steps, head_grid
from byrote.probes.figures.markov import in_context_markov
from byrote.probes.figures.matrix import dependence_matrix
from byrote.probes.figures.memorised import capacity, extraction
from byrote.probes.figures.memory_plane import member_flow, memory_plane
from byrote.probes.figures.multipliers import preferential_damage
from byrote.probes.figures.paper import save
from byrote.probes.figures.pruning import pruned_heads, pruned_memory
from byrote.probes.figures.seed_curves import seed_curves
from byrote.probes.figures.timeline import timeline
from byrote.probes.figures.training_loss import training_loss
from byrote.probes.figures.trajectory import loss_curves, trajectory
from byrote.probes.results.opened import accepts_paths

__all__ = [
    "Figure",
    "Look",
    "apply_theme",
    "arm_grids",
    "attention",
    "attention_over_steps",
    "capacity",
    "change_grid",
    "circuit",
    "claim",
    "copy_curve",
    "coverage",
    "damage_of_arms",
    "density",
    "dependence_matrix",
    "difference_grid",
    "differences",
    "displacement",
    "dose_response",
    "double_descent",
    "effective_data",
    "effective_sizes",
    "extraction",
    "faithfulness",
    "grid_steps",
    "head_grid",
    "head_scatter",
    "in_context_markov",
    "loss_by_position",
    "loss_curves",
    "member_flow",
    "memory_plane",
    "offset_profile",
    "preferential_damage",
    "pruned_heads",
    "pruned_memory",
    "recall_shares",
    "save",
    "seed_curves",
    "timeline",
    "training_loss",
    "trajectory",
]

# The folder of results stands for the results wherever a figure takes them first.
for _name in __all__:
    if not isinstance(globals()[_name], type) and _name not in ("apply_theme", "save"):
        globals()[_name] = accepts_paths()(globals()[_name])


def __dir__() -> list[str]:
    """What completion lists: the figures."""
    return [*__all__]
