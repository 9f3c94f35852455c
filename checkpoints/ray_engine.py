"""Tasks on a Ray cluster, each placed where its memory, cores and GPUs are free. Weights never enter Ray's object store: every
task reads the checkpoints from the folder that all machines see.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.remote_tasks import Answer, Handle, LostError, Where, carry_out, done_elsewhere
from byrote.checkpoints.side_by_side import OnEvent

if TYPE_CHECKING:
    from byrote.checkpoints.engines import Needs

OPTIONS = {
    "address": "of the cluster, such as auto or ray://host:10001; RAY_ADDRESS, or one of this machine alone, if left out",
    "cores": "per task",
    "gpus": "per task, such as 0.5",
    "memory_gb": "per task",
}


def on_ray(
    work: Callable[[Any, OnEvent], Any],
    tasks: Sequence[Any],
    jobs: int | None,
    needs: Needs,
    options: Mapping[str, str],
    folder: Path,
    *,
    hear: Callable[[int, dict[str, Any]], None],
    stopping: Callable[[], bool],
) -> Iterator[tuple[int, Any]]:
    """Do tasks on a Ray cluster; see `run_tasks`.

    Raises:
        ByroteError: Ray is not installed, an option is unknown, or no machine of the cluster has what a task needs.
    """
    ray, wanted = _ray(), _wanted(needs, options)
    begun = not ray.is_initialized()
    if begun:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell Ray's makers
        try:
            ray.init(address=options.get("address"), log_to_driver=False, logging_level="error")
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise ByroteError(
                f"no Ray cluster can be reached ({reason})",
                help="give --engine-option address=..., or start one",
            ) from None
    try:
        _refuse_too_small(ray, wanted)
        remote = ray.remote(carry_out).options(max_retries=0, **wanted)

        def start(places: Sequence[int], where: Where) -> list[Handle]:
            return [_Task(ray, remote.remote(work, tasks[place], place, where)) for place in places]

        at_once = jobs or len(tasks)
        yield from done_elsewhere(start, len(tasks), at_once, folder, hear=hear, stopping=stopping)
    finally:
        if begun:
            ray.shutdown()


class _Task:
    """A task on Ray."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def done(self) -> bool:
        return bool(self._ray.wait([self._reference], timeout=0)[0])

    def answer(self) -> Answer:
        errors = self._ray.exceptions
        try:
            answer: Answer = self._ray.get(self._reference)
        except errors.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except errors.RayError as error:
            raise LostError(f"its machine or process died ({type(error).__name__})") from None
        return answer

    def cancel(self) -> None:
        self._ray.cancel(self._reference, force=True)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ByroteError(
            "the engine ray needs Ray, which is not installed", help="pip install 'byrote[ray]'"
        ) from None
    return ray


def _wanted(needs: Needs, options: Mapping[str, str]) -> dict[str, float]:
    """What Ray is to reserve for a task.

    Raises:
        ByroteError: an option is unknown, or no number.
    """
    for name in options:
        if name not in OPTIONS:
            raise ByroteError(f"the engine ray has no option {name!r}", help=did_you_mean(name, OPTIONS))
    try:
        memory = float(options["memory_gb"]) * 1e9 if "memory_gb" in options else needs.memory_bytes
        cores, gpus = float(options.get("cores", needs.cores)), float(options.get("gpus", needs.gpus))
    except ValueError as error:
        raise ByroteError(
            f"an option of the engine ray is not a number ({error})", help="give a number"
        ) from None
    return {"num_cpus": cores, "num_gpus": gpus, "memory": int(memory)}


def _refuse_too_small(ray: Any, wanted: Mapping[str, float]) -> None:
    """Ray would wait for ever for a machine that is large enough.

    Raises:
        ByroteError: none is.
    """
    named = {"CPU": wanted["num_cpus"], "GPU": wanted["num_gpus"], "memory": wanted["memory"]}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(one.get(name, 0) >= value for name, value in named.items()) for one in machines):
        return
    has = "; ".join(
        f"{one.get('CPU', 0):g} cores, {one.get('GPU', 0):g} GPUs, {one.get('memory', 0) / 1e9:.1f} GB"
        for one in machines[:4]
    )
    raise ByroteError(
        f"no machine of the cluster has enough for one task: {named['CPU']:g} cores, {named['GPU']:g} GPUs, "
        f"{named['memory'] / 1e9:.1f} GB (they have {has or 'nothing'})",
        help="add a larger machine, or set cores, gpus or memory_gb with --engine-option",
    )
