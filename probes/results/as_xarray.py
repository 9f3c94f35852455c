"""Results as an xarray Dataset: arrays over step, layer and head, with their intervals. xarray is optional."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from byrote.checkpoints.errors import ByroteError

if TYPE_CHECKING:
    from byrote.probes.results.table import Table

_COLUMNS = ("value", "lo", "hi", "n")
_AXES = {"head": ("step", "layer", "head"), "model": ("step",)}


def dataset_of(results: Table) -> Any:
    """See `Results.to_xarray`.

    Raises:
        ByroteError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise ByroteError(
            "xarray is not installed", help='pip install "byrote[xarray]", or pip install xarray'
        ) from None
    steps, (n_layers, n_heads) = results.steps, results.shape
    coordinates: dict[str, Any] = {"step": steps, "layer": np.arange(n_layers), "head": np.arange(n_heads)}
    variables: dict[str, Any] = {}
    for (probe, metric), kind in results.kinds.items():
        if kind not in _AXES:
            continue
        info, axes = results.info(probe), _AXES[kind]
        name = probe if metric == info.main_metric else f"{probe}__{metric}"
        rows = results.rows(probe, metric, valid=True)
        at = tuple(rows[axis].to_numpy(dtype=np.int64) for axis in axes[1:])
        at = (np.searchsorted(steps, rows["step"].to_numpy(dtype=np.int64)), *at)
        facts = {"probe": probe, "metric": metric, "unit": info.unit_of(metric), "summary": info.summary}
        for column in _COLUMNS:
            filled = np.full([len(coordinates[axis]) for axis in axes], np.nan)
            filled[at] = rows[column].to_numpy(dtype=np.float64)
            called = name if column == "value" else f"{name}__{column}"
            variables[called] = (axes, filled, facts if column == "value" else {})
    whole = {"run": results.run, "sequence_seed": results.sequence_seed, "arm": results.facts.arm}
    known = {key: value for key, value in whole.items() if value is not None}
    return xarray.Dataset(variables, coords=coordinates, attrs=known)
