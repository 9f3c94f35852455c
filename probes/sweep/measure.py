"""One forward pass over one stimulus, reduced to observations by every probe that asked for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byrote.checkpoints.errors import PluginError, did_you_mean
from byrote.interp.model import HookedModel
from byrote.interp.observe import (
    END_SITES,
    LAYER_SITES,
    EndView,
    LayerView,
    PassReport,
    leak_of,
    observe,
    read_out_error,
)
from byrote.probes.heads.matching import uniform_attention
from byrote.probes.results.schema import Measured, from_samples, not_measured
from byrote.probes.spec import NotMeasuredError, ProbeInfo
from byrote.probes.stimuli import Stimulus
from byrote.probes.sweep.plan import Group
from byrote.probes.sweep.plugin_results import called, of_model, of_weights, refuse_undefined, tensors
from byrote.probes.sweep.stimulus_set import StimulusSet

READ_OUT_TOLERANCE = 1e-2
READ_OUT_TOLERANCE_HALF = 5e-2  # rounding alone reaches 1e-2 in bfloat16
WEIGHT_AXES = {0: (), 2: ("layer", "head"), 4: ("src_layer", "src_head", "layer", "head")}


def measure_group(model: HookedModel, group: Group, shown: StimulusSet) -> list[Measured]:
    """Every metric of a unit, invalid ones included with their reason.

    Args:
        model: a loaded checkpoint.
        group: the probes, and the stimuli they share.
        shown: what the models are shown.
    """
    seed = shown.config.seed
    refused = [shown.refused[kind] for kind in group.stimuli if kind in shown.refused]
    if refused:
        return [not_measured(info, m, refused[0]) for info in group.probes for m in _metrics_of(info, group)]
    if not group.stimuli:
        assert shown.vocabulary is not None
        return measure_weights(model, group.probes, ids=shown.vocabulary.ids, seed=seed)
    stimuli = {kind: shown.stimuli[kind] for kind in group.stimuli}
    if group.direct:
        return measure_direct(model, stimuli, group.probes[0], seed=seed)
    return measure_stimulus(model, stimuli[group.stimuli[0]], group.probes, seed=seed)[0]


def _metrics_of(info: ProbeInfo, group: Group) -> list[str]:
    """Metrics of a probe that a group's unit holds."""
    if group.direct or group.stimuli[0] == info.stimuli[0]:
        return [m for m in info.metrics if "@" not in m]
    return [m for m in info.metrics if m.endswith(f"@{group.stimuli[0]}")]


def measure_stimulus(
    model: HookedModel, stimulus: Stimulus, infos: Sequence[ProbeInfo], *, seed: int
) -> tuple[list[Measured], PassReport]:
    """Run the model over a stimulus once and score it with every probe given.

    Args:
        model: a loaded checkpoint.
        stimulus: the sequences.
        infos: probes of kind "head" or "model" that use this stimulus.
        seed: of the bootstrap.

    Returns:
        The measurements, invalid ones included with their reason, and the engine's report.
    """
    readers = [_Reader(info, model, stimulus) for info in infos]
    report = observe(model, torch.from_numpy(stimulus.tokens), readers)
    measured: list[Measured] = []
    for reader in readers:
        measured += reader.measured(report, seed)
    return measured, report


def measure_weights(
    model: HookedModel, infos: Sequence[ProbeInfo], *, ids: np.ndarray, seed: int
) -> list[Measured]:
    """Score the weights with every probe of kind "weights" given. No forward pass.

    Args:
        model: a loaded checkpoint.
        infos: the probes.
        ids: token ids the model really uses.
        seed: of nulls and samples.
    """
    measured: list[Measured] = []
    for info in infos:
        try:
            shown = {"weights": model.weights, "ids": torch.from_numpy(ids).to(model.device), "seed": seed}
            scores = _called_once(info, shown)
            if info.plugin is not None:
                scores = of_weights(info, scores, model.shape.n_layers, model.shape.n_heads)
        except NotMeasuredError as reason:
            measured += [not_measured(info, metric, str(reason)) for metric in info.metrics]
            continue
        measured += [_from_weights(info, metric, score, seed) for metric, score in scores.items()]
    return measured


def measure_direct(
    model: HookedModel, stimuli: Mapping[str, Stimulus], info: ProbeInfo, *, seed: int
) -> list[Measured]:
    """Score a probe of kind "direct", which runs the model itself.

    Args:
        model: a loaded checkpoint; the probe leaves it as it found it.
        stimuli: by kind, every one the probe names.
        info: the probe.
        seed: of its draws and of the bootstrap.
    """
    try:
        scores = _called_once(info, {"model": model, "stimuli": stimuli, "seed": seed})
        scores = scores if info.plugin is None else of_model(info, scores)
    except NotMeasuredError as reason:
        return [not_measured(info, metric, str(reason)) for metric in info.metrics]
    return [_from_direct(info, metric, score, seed) for metric, score in scores.items()]


def _called_once(info: ProbeInfo, shown: Mapping[str, Any]) -> Any:
    """What a probe of weights or of the model returns, shown what it asks for by argument name."""
    update = info.implementation().update
    arguments = {name: shown[name] for name in signature_of(update) if name in shown}
    return update(**arguments) if info.plugin is None else called(info, update, **arguments)


def signature_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a function's arguments."""
    return tuple(inspect.signature(function).parameters)


def _from_direct(info: ProbeInfo, metric: str, score: Any, seed: int) -> Measured:
    shape = score.samples.shape[1:]
    kept = np.ones(shape, dtype=bool) if score.exists is None else score.exists
    sparse = score.exists is not None  # few entries of a large grid: only those are resampled
    measured = from_samples(
        info,
        metric,
        score.samples[:, kept] if sparse else score.samples,
        axes=score.axes,
        chance=np.broadcast_to(score.chance, shape)[kept] if sparse else score.chance,
        seed=seed,
        position_start=score.position_start,
        layer_reasons=score.layer_reasons,
    )
    if not sparse:
        return measured
    grids: dict[str, Any] = {name: np.full(shape, np.nan) for name in ("values", "lo", "hi", "chance", "n")}
    for name, grid in grids.items():
        grid[kept] = getattr(measured, name)
    grids["n"] = np.nan_to_num(grids["n"])
    return replace(measured, **grids, samples=score.samples, exists=kept)


def _from_weights(info: ProbeInfo, metric: str, score: Any, seed: int) -> Measured:
    chance = score.chance.numpy().astype(np.float64)
    if score.rows is not None:
        return from_samples(
            info, metric, score.rows.numpy(), axes=("layer", "head"), chance=chance, seed=seed
        )
    values = score.values.numpy().astype(np.float64)
    # Exact given the weights: the interval has no width.
    return Measured(
        info.name,
        metric,
        values,
        values,
        values,
        chance,
        np.full(values.shape, score.n),
        WEIGHT_AXES[values.ndim],
        undefined=info.undefined,
        exists=None if score.exists is None else score.exists.numpy(),
    )


class _Reader:
    """Shows a probe's function what it asks for by argument name, and collects what it returns."""

    def __init__(self, info: ProbeInfo, model: HookedModel, stimulus: Stimulus) -> None:
        self.info, self.model, self.stimulus = info, model, stimulus
        self.probe = info.implementation()
        self.finish = self.probe.finisher
        self.arguments = signature_of(self.probe.update)
        self.finish_arguments = signature_of(self.finish)[1:] if self.finish else ()
        self.needs = frozenset({*self.arguments, *self.finish_arguments}) & (LAYER_SITES | END_SITES)
        self.parts: list[list[dict[str, Tensor]]] = []
        self.ends: list[EndView] = []
        self.batch_rows: slice | None = None
        self.reason = self._refusal()
        if self.reason:
            self.needs = frozenset()

    def see_layer(self, view: LayerView) -> None:
        if self.reason:
            return
        if view.rows != self.batch_rows:
            self.parts.append([])
            self.batch_rows = view.rows
        available = {
            "pattern": view.pattern,
            "z": view.z,
            "v": view.v,
            "tokens": view.tokens,
            "match_tokens": self._rows(self.stimulus.match_tokens, view.rows),
            "weights": self.model.weights if "weights" in self.arguments else None,
            "layer": view.layer,
        }
        try:
            self.parts[-1].append(self._update(available, {"n_heads": self.model.shape.n_heads}))
        except NotMeasuredError as reason:
            self.reason = str(reason)

    def see_end(self, view: EndView) -> None:
        if self.reason:
            return
        if self.info.kind == "head":
            self.ends.append(view)
            return
        available = {
            "token_nll": view.token_nll,
            "top1": view.top1,
            "logits": view.logits,
            "tokens": view.tokens,
            "match_tokens": self._rows(self.stimulus.match_tokens, view.rows),
            "copy_index": self._rows(self.stimulus.copy_index, view.rows),
            "n_parameters": sum(p.numel() for p in self.model.parameters.values()),
            **{name: self._rows(array, view.rows) for name, array in self.stimulus.extra.items()},
        }
        self.parts.append([self._update(available, {})])

    def _update(self, available: Mapping[str, Any], axes: Mapping[str, int]) -> dict[str, Tensor]:
        """What the probe returns for what it is shown; `axes` are those of its tensors after the batch."""
        if self.info.plugin is None:
            found = self.probe.update(**{name: available[name] for name in self.arguments})
            return {self.info.main_metric: found} if isinstance(found, Tensor) else found
        if lacking := [name for name in self.arguments if name not in available]:
            raise PluginError(
                f"the probe {self.info.name} asks for {lacking[0]!r}, which {self.stimulus.kind} does not hold",
                help=did_you_mean(lacking[0], available),
            )
        found = called(self.info, self.probe.update, **{name: available[name] for name in self.arguments})
        leading = {"batch": len(available["tokens"]), **axes}
        return tensors(self.info, found, leading, metrics=self.finish is None)

    def measured(self, report: PassReport, seed: int) -> list[Measured]:
        """All metrics of the probe on this stimulus."""
        metrics, problems = self._metrics(), report.problems
        if self.info.kind == "model":
            self.reason = self.reason or leak_of(self.model, torch.from_numpy(self.stimulus.tokens), report)
        if self.info.kind == "head" and not self.reason:
            self.reason = self._unseen_layers(problems)
        if self.reason:
            return [not_measured(self.info, name, self.reason) for name in metrics.values()]
        if self.info.reads_earlier_layers:
            problems = _of_this_and_earlier_layers(problems, self.model.shape.n_layers)
        values, chances = self._values(seed), self._chance()
        chances |= {name[7:]: tensor for name, tensor in values.items() if name.startswith("chance:")}
        return [
            self._one(metric, stored_as, values, chances, problems, seed)
            for metric, stored_as in metrics.items()
        ]

    def _one(
        self,
        metric: str,
        stored_as: str,
        values: Mapping[str, Tensor],
        chances: Mapping[str, Any],
        problems: Mapping[int, str],
        seed: int,
    ) -> Measured:
        samples = values[metric].cpu().numpy()
        if self.info.plugin is not None:
            refuse_undefined(self.info, metric, samples, problems)
        axes = ("layer", "head") if self.info.kind == "head" else ()
        curve = samples.ndim - 1 > len(axes)
        chance = chances[metric]
        out = from_samples(
            self.info,
            stored_as,
            samples,
            axes=(*axes, "position") if curve else axes,
            chance=chance.cpu().numpy() if isinstance(chance, Tensor) else chance,
            seed=seed,
            position_start=self.info.position_start,
            keep_samples=not (curve and self.info.kind == "head"),
            layer_reasons=problems if self.info.kind == "head" else {},
        )
        if f"lo:{metric}" in values:
            out = _with_interval(out, values[f"lo:{metric}"], values[f"hi:{metric}"])
        return replace(out, exists=values["exists"].numpy()) if "exists" in values else out

    def _metrics(self) -> dict[str, str]:
        """Metric as computed -> name it is stored under on this stimulus."""
        if self.stimulus.kind == self.info.stimuli[0]:
            return {name: name for name in self.info.metrics if "@" not in name}
        return {
            name.split("@")[0]: name for name in self.info.metrics if name.endswith(f"@{self.stimulus.kind}")
        }

    def _values(self, seed: int) -> dict[str, Tensor]:
        """Per-sequence values: [n_seq, n_layers, n_heads(, position)] or [n_seq(, position)]."""
        if self.info.kind == "model":
            batches = [batch[0] for batch in self.parts]
            values = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
            return values if self.finish is None else self._finished(values, {})
        by_layer = {
            name: torch.cat([torch.stack([layer[name] for layer in batch]) for batch in self.parts], dim=1)
            for name in self.parts[0][0]
        }
        if self.finish is None:
            return {name: part.movedim(0, 1) for name, part in by_layer.items()}
        wanted = set(self.finish_arguments)
        shown: dict[str, Any] = {
            name: torch.cat([getattr(end, name) for end in self.ends]) for name in wanted & END_SITES
        }
        shown |= {"weights": self.model.weights} if "weights" in wanted else {}
        shown |= {"seed": seed} if "seed" in wanted else {}
        return self._finished(by_layer, shown)

    def _finished(self, parts: dict[str, Tensor], shown: Mapping[str, Any]) -> dict[str, Tensor]:
        assert self.finish is not None
        if self.info.plugin is None:
            return self.finish(parts, **shown)
        found, shape = called(self.info, self.finish, parts, **shown), self.model.shape
        axes = {"n_layers": shape.n_layers, "n_heads": shape.n_heads} if self.info.kind == "head" else {}
        return tensors(self.info, found, {"n_seq": self.stimulus.n, **axes}, metrics=True)

    def _chance(self) -> dict[str, Any]:
        """Chance levels that the probe gives, or those of uniform attention where it reads nothing else; else none."""
        none = dict.fromkeys(self._metrics(), float("nan"))
        if self.probe.chance_level is not None:
            level = self.probe.chance_level
            found = (
                level(self.stimulus) if self.info.plugin is None else called(self.info, level, self.stimulus)
            )
            return none | (dict(found) if isinstance(found, Mapping) else dict.fromkeys(none, found))
        match_tokens = torch.from_numpy(self.stimulus.match_tokens)
        available = {"match_tokens": match_tokens, "tokens": torch.from_numpy(self.stimulus.tokens)}
        if self.finish is not None or not {"pattern"} <= set(self.arguments) <= {"pattern", *available}:
            return none  # a finish returns its own
        pattern = uniform_attention(match_tokens.shape[1]).expand(match_tokens.shape[0], -1, -1, -1)
        uniform = self._update({"pattern": pattern, **available}, {"n_heads": 1})
        return none | {name: float(tensor.nanmean()) for name, tensor in uniform.items()}

    def _unseen_layers(self, problems: Mapping[int, str]) -> str:
        """Why not every layer was shown, or "" when all were."""
        n_layers = self.model.shape.n_layers
        if self.parts and all(len(batch) == n_layers for batch in self.parts):
            return ""
        return "; ".join(problem for _, problem in sorted(problems.items())[:2]) or "no layer was shown"

    def _rows(self, array: np.ndarray, rows: slice) -> Tensor:
        return torch.from_numpy(array[rows]).to(self.model.device)

    def _refusal(self) -> str:
        if not self.info.needs_read_out:
            return ""
        tokens = torch.from_numpy(self.stimulus.tokens[:2])
        error = read_out_error(self.model, tokens)
        half = self.model.dtype in (torch.bfloat16, torch.float16)
        if error <= (READ_OUT_TOLERANCE_HALF if half else READ_OUT_TOLERANCE):
            return ""
        return (
            f"logits rebuilt from the last residual, final norm and W_U differ from the model's by {error:.2g} of "
            "their spread: the direct path cannot be read on this architecture"
        )


def _of_this_and_earlier_layers(problems: Mapping[int, str], n_layers: int) -> dict[int, str]:
    """Problems of layers, each handed on to every later layer: what a probe that combines layers must not read."""
    found = [min((l for l in problems if l <= layer), default=None) for layer in range(n_layers)]
    return {layer: problems[first] for layer, first in enumerate(found) if first is not None}


def _with_interval(measured: Measured, lo: Tensor, hi: Tensor) -> Measured:
    return replace(measured, lo=lo.cpu().numpy().astype(np.float64), hi=hi.cpu().numpy().astype(np.float64))
