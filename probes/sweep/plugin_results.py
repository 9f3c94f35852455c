"""What a plugin's probe returned, looked at before it is believed: each fault is one error that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byrote.checkpoints.errors import PluginError
from byrote.probes.direct_scores import DirectScores
from byrote.probes.spec import NotMeasuredError, ProbeInfo
from byrote.probes.weight_scores import WeightScores


def called(info: ProbeInfo, function: Callable[..., Any], *args: Any, **shown: Any) -> Any:
    """What a function of a plugin returns.

    Raises:
        PluginError: it raised something.
        NotMeasuredError: it says that it cannot measure here.
    """
    try:
        return function(*args, **shown)
    except (NotMeasuredError, PluginError):
        raise
    except Exception as error:  # whatever a user's function may raise
        raise _fault(
            info, f"raised {type(error).__name__}: {error}", f"it was shown {_sizes(shown)}"
        ) from error


def tensors(info: ProbeInfo, found: Any, leading: Mapping[str, int], *, metrics: bool) -> dict[str, Tensor]:
    """Tensors by name, in float.

    Args:
        info: the probe.
        found: what its function returned.
        leading: name and size of the axes that every tensor begins with; one more may follow, a curve's positions.
        metrics: whether the names must be the probe's metrics on its main stimulus.

    Raises:
        PluginError: something else was returned.
    """
    found = {info.main_metric: found} if isinstance(found, Tensor) else found
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise _fault(
            info, f"returned {type(found).__name__}", "return one tensor, or a dict of tensors by metric"
        )
    wanted = [m for m in info.metrics if "@" not in m]
    if metrics and (lacking := [m for m in wanted if m not in found]):
        raise _fault(
            info, f"returned {_listed(found)}, not {_listed(lacking)}", "its metrics must be what it returns"
        )
    size = tuple(leading.values())
    for name, value in found.items():
        if ":" in name or name == "exists":
            continue
        if tuple(value.shape[: len(size)]) != size or (metrics and value.ndim > len(size) + 1):
            expected = ", ".join(f"{axis} = {n}" for axis, n in leading.items())
            raise _fault(
                info,
                f"returned {name} of shape {list(value.shape)}",
                f"expected [{expected}], or a curve of it",
            )
    return {name: value if name == "exists" else value.float() for name, value in found.items()}


def refuse_undefined(info: ProbeInfo, metric: str, samples: np.ndarray, problems: Mapping[int, str]) -> None:
    """Numbers must be finite: NaN is for sequences on which the probe says it is undefined.

    Args:
        info: the probe.
        metric: one of its metrics.
        samples: [n_seq ...]; of heads [n_seq n_layers n_heads ...].
        problems: layers whose attention cannot be scored.

    Raises:
        PluginError: they are not.
    """
    sound = (
        [layer for layer in range(samples.shape[1]) if layer not in problems]
        if info.kind == "head"
        else slice(None)
    )
    looked_at = samples[:, sound] if info.kind == "head" else samples
    if np.isinf(looked_at).any():
        raise _fault(info, f"returned an infinite {metric}", "is something divided by zero?")
    n_nan = int(np.isnan(looked_at).sum())
    if n_nan and not info.undefined:
        raise _fault(
            info,
            f"returned NaN for {n_nan:,} of {looked_at.size:,} values of {metric}",
            'say when it is undefined: @probe(..., undefined="no token has an earlier copy")',
        )


def of_weights(info: ProbeInfo, found: Any, n_layers: int, n_heads: int) -> dict[str, WeightScores]:
    """Scores of a plugin that reads weights: exact, without a chance level where it gives tensors.

    Raises:
        PluginError: something else was returned.
    """
    if isinstance(found, Mapping) and found and all(isinstance(v, WeightScores) for v in found.values()):
        return dict(found)
    values = tensors(info, found, {"n_layers": n_layers, "n_heads": n_heads}, metrics=True)
    values = {name: value.detach().cpu() for name, value in values.items()}
    for name, value in values.items():
        refuse_undefined(info, name, value.numpy()[None], {})
    return {name: WeightScores(value, torch.full_like(value, torch.nan), 0) for name, value in values.items()}


def of_model(info: ProbeInfo, found: Any) -> dict[str, DirectScores]:
    """Scores of a plugin that runs the model itself.

    Raises:
        PluginError: something else was returned.
    """
    if not isinstance(found, Mapping) or not all(isinstance(value, DirectScores) for value in found.values()):
        raise _fault(info, f"returned {type(found).__name__}", "return a dict of DirectScores by metric")
    return dict(found)


def _fault(info: ProbeInfo, what: str, help: str) -> PluginError:
    name = info.plugin.name if info.plugin is not None else "byrote"
    return PluginError(f"the probe {info.name} of {name} {what}", help=help)


def _sizes(shown: Mapping[str, Any]) -> str:
    parts = [f"{k} {list(v.shape)}" if isinstance(v, Tensor) else k for k, v in shown.items()]
    return ", ".join(parts) or "nothing"


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "nothing"
