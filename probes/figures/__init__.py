"""Results to plotly figures: the same figure in notebook, dashboard and report. No torch.

Every function takes results first and returns a `go.Figure` that states its finding in `fig.layout.meta["alt"]`.
"""

from __future__ import annotations

from byrote.probes.figures.attention import attention as attention
from byrote.probes.figures.copy_curve import copy_curve as copy_curve
from byrote.probes.figures.differences import difference_grid as difference_grid
from byrote.probes.figures.differences import differences as differences
from byrote.probes.figures.head_grid import grid_steps as grid_steps
from byrote.probes.figures.head_grid import head_grid as head_grid
from byrote.probes.figures.loss_by_position import loss_by_position as loss_by_position
from byrote.probes.figures.loss_curves import loss_curves as loss_curves
from byrote.probes.figures.offset_profile import offset_profile as offset_profile
from byrote.probes.figures.theme import apply_theme as apply_theme
from byrote.probes.figures.trajectory import trajectory as trajectory
