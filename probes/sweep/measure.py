"""One forward pass over one stimulus, reduced to observations by every probe that uses it.

What a plugin's functions return is checked before it is believed: each fault is one error that says what to do.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from byrote.checkpoints.errors import PluginError, did_you_mean
from byrote.interp.intervene import Edit, losses_under
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
from byrote.probes.contexts import MOST_WINDOWS, contexts_note, windows_needed
from byrote.probes.heads.matching import uniform_attention
from byrote.probes.model.icl_score import icl_score
from byrote.probes.results.schema import Measured, from_samples, not_measured, withheld
from byrote.probes.spec import NotMeasuredError, ProbeInfo, ProbeScores, level_of
from byrote.probes.stimuli import Stimulus
from byrote.probes.sweep.plan import Group
from byrote.probes.sweep.stimulus_set import StimulusSet

READ_OUT_TOLERANCE = 1e-2
READ_OUT_TOLERANCE_HALF = 5e-2  # rounding alone reaches 1e-2 in bfloat16


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
        names = [(info, m) for info in group.probes for m in metrics_on(info, group.stimuli[0]).values()]
        return [not_measured(info, metric, refused[0]) for info, metric in names]
    stimuli = {kind: shown.stimuli[kind] for kind in group.stimuli}
    if reason := next((found for one in stimuli.values() if (found := out_of_reach(model, one))), ""):
        return [
            not_measured(info, m, reason)
            for info in group.probes
            for m in metrics_on(info, group.stimuli[0]).values()
        ]
    if stimuli and not group.direct:
        return measure_stimulus(model, stimuli[group.stimuli[0]], group.probes, seed=seed)[0]
    assert shown.vocabulary is not None
    by_probe = (
        measure_once(
            model,
            info,
            seed=seed,
            ids=shown.vocabulary.ids,
            stimuli=stimuli,
            options=shown.config.options_of(info),
        )
        for info in group.probes
    )
    return [m for measured in by_probe for m in measured]


def settle_contexts(model: HookedModel, shown: StimulusSet) -> tuple[int, str] | None:
    """Show as many windows of text as this model needs for its in-context learning score, where that is still open.

    Args:
        model: a loaded checkpoint, the last one that is measured.
        shown: what the models are shown.

    Returns:
        How many those are, and the finding in words; None where it was known.
    """
    if not shown.unsettled:
        return None
    every = shown.contexts(MOST_WINDOWS)
    document, tokens = every.extra["document"], torch.from_numpy(every.tokens)

    def score(rows: slice) -> np.ndarray:
        (nll,) = losses_under(model, tokens[rows], [Edit()])
        return icl_score(nll, torch.from_numpy(document[rows]))["score"].double().numpy()

    n, reached = windows_needed(score, document, seed=shown.config.seed)
    note = contexts_note(document[:n], reached, step=model.checkpoint.step)
    shown.settle(n, note)
    return n, note


def out_of_reach(model: HookedModel, stimulus: Stimulus) -> str:
    """Why no head of a model can see the copy before, "" where some can: a score of 0 would say nothing then.

    Args:
        model: a loaded checkpoint; attention of a sliding window in every layer reaches back so many tokens.
        stimulus: of repeated blocks, or another.
    """
    config = model.config
    window, kinds = (
        config.get("sliding_window"),
        config.get("layer_types") or config.get("attention_layers") or (),
    )
    window = config.get("window_size") if window is None and "local" in kinds else window
    block = int((stimulus.copy_index == 1).sum(1).max())
    everywhere = config.get("use_sliding_window", True) and not {"full_attention", "global"} & set(kinds)
    if not isinstance(window, int) or not everywhere or block <= window:
        return ""
    return f"attention reaches back {window:,} tokens in every layer, less than a block of {block}: no copy is in sight"


def metrics_on(info: ProbeInfo, kind: str) -> dict[str, str]:
    """Metric as computed -> name it is stored under, of those that a probe has on one of its stimuli."""
    if kind == info.stimuli[0]:
        return {name: name for name in info.metrics if "@" not in name}
    return {name.split("@")[0]: name for name in info.metrics if name.endswith(f"@{kind}")}


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
    refusal = _read_out_refusal(model, stimulus) if any(info.needs_read_out for info in infos) else ""
    readers = [_Reader(info, model, stimulus, refusal if info.needs_read_out else "") for info in infos]
    report = observe(model, torch.from_numpy(stimulus.tokens), readers)
    return [m for reader in readers for m in reader.measured(report, seed)], report


def measure_once(
    model: HookedModel,
    info: ProbeInfo,
    *,
    seed: int,
    ids: np.ndarray | None = None,
    stimuli: Mapping[str, Stimulus] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Measured]:
    """Score a probe of kind "weights", without a forward pass, or "direct", which runs the model itself.

    Args:
        model: a loaded checkpoint; the probe leaves it as it found it.
        info: the probe.
        seed: of its draws and of the bootstrap.
        ids: token ids the model really uses, for weights.
        stimuli: by kind, every one that a direct probe names.
        options: values of the options that a direct probe names, see `ProbeInfo.options`.
    """
    update = info.implementation().update
    shown: dict[str, Any] = {"model": model, "stimuli": stimuli or {}, "seed": seed, **(options or {})}
    if info.kind == "weights":
        shown = {"weights": model.weights, "ids": torch.as_tensor(ids).to(model.device), "seed": seed}
    try:
        found = _called(info, update, **{name: shown[name] for name in signature_of(update) if name in shown})
    except NotMeasuredError as reason:
        return [not_measured(info, metric, str(reason)) for metric in info.metrics]
    scores = found if info.plugin is None else _checked_scores(info, found, model)
    return [withheld(info, _from_scores(info, metric, score, seed)) for metric, score in scores.items()]


def signature_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of a function's arguments."""
    return tuple(inspect.signature(function).parameters)


def _from_scores(info: ProbeInfo, metric: str, score: ProbeScores, seed: int) -> Measured:
    shape = score.samples.shape[1:]
    chance = np.broadcast_to(np.asarray(score.chance, dtype=np.float64), shape)
    if score.exact_n is not None:  # the interval has no width
        value, n = np.asarray(score.samples[0], dtype=np.float64), np.full(shape, score.exact_n)
        return Measured(
            info.name, metric, value, value, value, chance, n, score.axes,
            undefined=info.undefined, exists=score.exists,
        )  # fmt: skip
    some = (
        score.exists if score.exists is not None else ...
    )  # few entries of a large grid: only they are resampled
    measured = from_samples(
        info,
        metric,
        score.samples if some is ... else score.samples[:, some],
        axes=score.axes,
        chance=chance[some],
        seed=seed,
        position_start=score.position_start,
        layer_reasons=score.layer_reasons,
    )
    if score.interval is not None:
        measured = replace(measured, lo=score.interval[0], hi=score.interval[1])
    measured = replace(measured, undefined=score.undefined or measured.undefined)
    if some is ...:
        return measured
    grids: dict[str, Any] = {name: np.full(shape, np.nan) for name in ("values", "lo", "hi", "chance", "n")}
    for name, grid in grids.items():
        grid[some] = getattr(measured, name)
    grids["n"] = np.nan_to_num(grids["n"])
    return replace(measured, **grids, samples=score.samples, exists=some)


class _Reader:
    """Passes a probe's function its arguments by name, and collects what it returns."""

    def __init__(self, info: ProbeInfo, model: HookedModel, stimulus: Stimulus, refusal: str) -> None:
        self.info, self.model, self.stimulus = info, model, stimulus
        self.probe = info.implementation()
        self.finish = self.probe.finisher
        self.arguments = signature_of(self.probe.update)
        self.finish_arguments = signature_of(self.finish)[1:] if self.finish else ()
        self.metrics = metrics_on(info, stimulus.kind)
        self.parts: list[list[dict[str, Tensor]]] = []
        self.ends: list[EndView] = []
        self.batch_rows: slice | None = None
        self.reason = refusal
        wanted = frozenset({*self.arguments, *self.finish_arguments}) & (LAYER_SITES | END_SITES)
        self.needs = frozenset() if self.reason else wanted

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
            "weights": self.model.weights if "weights" in self.arguments else None,
            "layer": view.layer,
        }
        try:
            self.parts[-1].append(self._update(available, view, {"n_heads": self.model.shape.n_heads}))
        except NotMeasuredError as reason:
            self.reason = str(reason)

    def see_end(self, view: EndView) -> None:
        if self.reason:
            return
        if self.info.kind == "head":
            self.ends.append(view)
            return
        arrays = {"copy_index": self.stimulus.copy_index, **self.stimulus.extra}
        available = {
            "token_nll": view.token_nll,
            "top1": view.top1,
            "logits": view.logits,
            "n_parameters": sum(p.numel() for p in self.model.parameters.values()),
            **{name: self._rows(array, view.rows) for name, array in arrays.items()},
        }
        self.parts.append([self._update(available, view, {})])

    def _update(
        self, available: Mapping[str, Any], view: LayerView | EndView, axes: Mapping[str, int]
    ) -> dict[str, Tensor]:
        """What the probe returns for what it is shown; `axes` are those of its tensors after the batch."""
        tokens = {
            "tokens": view.tokens,
            "match_tokens": self._rows(self.stimulus.match_tokens, view.rows),
        }
        return self._updated({**tokens, **available}, {"batch": len(view.tokens), **axes})

    def _updated(self, available: Mapping[str, Any], leading: Mapping[str, int]) -> dict[str, Tensor]:
        if lacking := [name for name in self.arguments if name not in available]:
            raise PluginError(
                f"the probe {self.info.name} requests {lacking[0]!r}, which {self.stimulus.kind} does not hold",
                help=did_you_mean(lacking[0], available),
            )
        found = _called(self.info, self.probe.update, **{name: available[name] for name in self.arguments})
        return _checked_tensors(self.info, found, leading, metrics=self.finish is None)

    def measured(self, report: PassReport, seed: int) -> list[Measured]:
        """All metrics of the probe on this stimulus."""
        problems = report.problems if self.info.kind == "head" else {}
        if self.info.kind == "model":
            self.reason = self.reason or leak_of(self.model, torch.from_numpy(self.stimulus.tokens), report)
        else:
            self.reason = self.reason or self._unseen_layers(problems)
        if self.reason:
            return [not_measured(self.info, name, self.reason) for name in self.metrics.values()]
        if self.info.reads_earlier_layers:
            problems = of_this_and_earlier_layers(problems, self.model.shape.n_layers)
        values, chances = self._values(seed), self._chance()
        chances |= {name[7:]: tensor for name, tensor in values.items() if name.startswith("chance:")}
        return [self._one(metric, values, chances[metric], problems, seed) for metric in self.metrics]

    def _one(
        self, metric: str, values: Mapping[str, Tensor], chance: Any, problems: Mapping[int, str], seed: int
    ) -> Measured:
        samples = values[metric].cpu().numpy()
        if self.info.plugin is not None:
            _refuse_undefined(self.info, metric, samples, problems)
        axes = ("layer", "head") if self.info.kind == "head" else ()
        curve = samples.ndim - 1 > len(axes)
        out = from_samples(
            self.info,
            self.metrics[metric],
            samples,
            axes=(*axes, "position") if curve else axes,
            chance=chance.cpu().numpy() if isinstance(chance, Tensor) else chance,
            seed=seed,
            position_start=self.info.position_start,
            keep_samples=not (curve and self.info.kind == "head"),
            layer_reasons=problems,
        )
        if f"lo:{metric}" in values:
            lo, hi = (values[f"{end}:{metric}"].cpu().numpy().astype(np.float64) for end in ("lo", "hi"))
            out = replace(out, lo=lo, hi=hi)
        return replace(out, exists=values["exists"].numpy()) if "exists" in values else out

    def _values(self, seed: int) -> dict[str, Tensor]:
        """Per-sequence values: [n_seq, n_layers, n_heads(, position)] or [n_seq(, position)]."""
        names = self.parts[0][0]
        shown: dict[str, Any] = {}
        if self.info.kind == "model":
            parts = {name: torch.cat([batch[0][name] for batch in self.parts]) for name in names}
        else:
            layers = {
                name: [torch.stack([one[name] for one in batch]) for batch in self.parts] for name in names
            }
            parts = {name: torch.cat(batches, dim=1) for name, batches in layers.items()}
            shown = {
                name: torch.cat([getattr(end, name) for end in self.ends])
                for name in END_SITES.intersection(self.finish_arguments)
            }
            shown |= {"weights": self.model.weights} if "weights" in self.finish_arguments else {}
            shown |= {"seed": seed} if "seed" in self.finish_arguments else {}
        if self.finish is None:
            head = self.info.kind == "head"
            return {name: part.movedim(0, 1) if head else part for name, part in parts.items()}
        found, shape = _called(self.info, self.finish, parts, **shown), self.model.shape
        axes = {"n_layers": shape.n_layers, "n_heads": shape.n_heads} if self.info.kind == "head" else {}
        return _checked_tensors(self.info, found, {"n_seq": self.stimulus.n, **axes}, metrics=True)

    def _chance(self) -> dict[str, Any]:
        """Chance levels that the probe gives, or those of uniform attention where it reads nothing else; else none."""
        none = dict.fromkeys(self.metrics, float("nan"))
        if self.info.chance_levels:
            n_ids = self.stimulus.params["n_ids"]
            return none | {
                metric: level_of(level, n_ids) for metric, level in self.info.chance_levels.items()
            }
        if self.probe.chance_level is not None:
            found = _called(self.info, self.probe.chance_level, self.stimulus)
            return none | (dict(found) if isinstance(found, Mapping) else dict.fromkeys(none, found))
        match_tokens = torch.from_numpy(self.stimulus.match_tokens)
        available = {"match_tokens": match_tokens, "tokens": torch.from_numpy(self.stimulus.tokens)}
        if self.finish is not None or not {"pattern"} <= set(self.arguments) <= {"pattern", *available}:
            return none  # a finish returns its own
        pattern = uniform_attention(match_tokens.shape[1]).expand(match_tokens.shape[0], -1, -1, -1)
        uniform = self._updated({"pattern": pattern, **available}, {"batch": self.stimulus.n, "n_heads": 1})
        return none | {name: float(tensor.nanmean()) for name, tensor in uniform.items()}

    def _unseen_layers(self, problems: Mapping[int, str]) -> str:
        """Why not every layer was shown, or "" when all were."""
        if self.parts and all(len(batch) == self.model.shape.n_layers for batch in self.parts):
            return ""
        return "; ".join(problem for _, problem in sorted(problems.items())[:2]) or "no layer was shown"

    def _rows(self, array: np.ndarray, rows: slice) -> Tensor:
        return torch.from_numpy(array[rows]).to(self.model.device)


def _read_out_refusal(model: HookedModel, stimulus: Stimulus) -> str:
    """Why the direct path to the logits cannot be read, "" where it can."""
    error = read_out_error(model, torch.from_numpy(stimulus.tokens[:2]))
    half = model.dtype in (torch.bfloat16, torch.float16)
    if error <= (READ_OUT_TOLERANCE_HALF if half else READ_OUT_TOLERANCE):
        return ""
    return (
        f"logits rebuilt from the last residual, final norm and W_U differ from the model's by {error:.2g} of "
        "their spread: the direct path cannot be read on this architecture"
    )


def of_this_and_earlier_layers(problems: Mapping[int, str], n_layers: int) -> dict[int, str]:
    """Problems of layers, each handed on to every later layer: what a probe that combines layers must not read."""
    found = [min((l for l in problems if l <= layer), default=None) for layer in range(n_layers)]
    return {layer: problems[first] for layer, first in enumerate(found) if first is not None}


def _called(info: ProbeInfo, function: Callable[..., Any], *args: Any, **shown: Any) -> Any:
    """What a function of a probe returns; what a plugin's raises is its fault, and said to be."""
    try:
        return function(*args, **shown)
    except (NotMeasuredError, PluginError):
        raise
    except Exception as error:  # whatever a user's function may raise
        if info.plugin is None:
            raise
        sizes = [f"{k} {list(v.shape)}" if isinstance(v, Tensor) else k for k, v in shown.items()]
        what = f"raised {type(error).__name__}: {error}"
        raise _fault(info, what, f"it was shown {', '.join(sizes) or 'nothing'}") from error


def _checked_tensors(
    info: ProbeInfo, found: Any, leading: Mapping[str, int], *, metrics: bool
) -> dict[str, Tensor]:
    """Tensors by name; a plugin's are looked at, and made float.

    Args:
        info: the probe.
        found: what its function returned.
        leading: name and size of the axes that every tensor begins with; one more may follow, a curve's positions.
        metrics: whether the names must be the probe's metrics on its main stimulus.
    """
    found = {info.main_metric: found} if isinstance(found, Tensor) else found
    if info.plugin is None:
        return found
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        help = "return one tensor, or a dict of tensors by metric"
        raise _fault(info, f"returned {type(found).__name__}", help)
    lacking = [m for m in info.metrics if "@" not in m and m not in found]
    if metrics and lacking:
        returned, missing = (", ".join(map(repr, names)) or "nothing" for names in (found, lacking))
        raise _fault(info, f"returned {returned}, not {missing}", "its metrics must be what it returns")
    size = tuple(leading.values())
    for name, value in found.items():
        if ":" in name or name == "exists":
            continue
        if tuple(value.shape[: len(size)]) != size or (metrics and value.ndim > len(size) + 1):
            expected = ", ".join(f"{axis} = {n}" for axis, n in leading.items())
            what = f"returned {name} of shape {list(value.shape)}"
            raise _fault(info, what, f"expected [{expected}], or a curve of it")
    return {name: value if name == "exists" else value.float() for name, value in found.items()}


def _refuse_undefined(info: ProbeInfo, metric: str, samples: np.ndarray, problems: Mapping[int, str]) -> None:
    """Numbers must be finite: NaN is for sequences on which the probe says it is undefined.

    Args:
        info: the probe.
        metric: one of its metrics.
        samples: [n_seq ...]; of heads [n_seq n_layers n_heads ...].
        problems: layers whose attention cannot be scored.
    """
    if info.kind == "head":
        samples = samples[:, [layer for layer in range(samples.shape[1]) if layer not in problems]]
    if np.isinf(samples).any():
        raise _fault(info, f"returned an infinite {metric}", "does it divide by zero?")
    n_nan = int(np.isnan(samples).sum())
    if n_nan and not info.undefined:
        raise _fault(
            info,
            f"returned NaN for {n_nan:,} of {samples.size:,} values of {metric}",
            'say when it is undefined: @probe(..., undefined="no token has an earlier copy")',
        )


def _checked_scores(info: ProbeInfo, found: Any, model: HookedModel) -> dict[str, ProbeScores]:
    """Scores of a plugin that reads weights or runs the model; tensors of weights are exact, without a chance level."""
    if isinstance(found, Mapping) and found and all(isinstance(v, ProbeScores) for v in found.values()):
        return dict(found)
    if info.kind == "direct":
        raise _fault(info, f"returned {type(found).__name__}", "return a dict of ProbeScores by metric")
    leading = {"n_layers": model.shape.n_layers, "n_heads": model.shape.n_heads}
    scores = {}
    for name, value in _checked_tensors(info, found, leading, metrics=True).items():
        samples = value.detach().cpu().numpy()[None]
        _refuse_undefined(info, name, samples, {})
        scores[name] = ProbeScores(samples, axes=("layer", "head", "position")[: value.ndim], exact_n=0)
    return scores


def _fault(info: ProbeInfo, what: str, help: str) -> PluginError:
    name = info.plugin.name if info.plugin is not None else "byrote"
    return PluginError(f"the probe {info.name} of {name} {what}", help=help)
