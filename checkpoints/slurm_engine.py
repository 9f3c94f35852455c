"""Tasks as jobs of Slurm, through submitit. A job that is preempted or runs out of its time is queued again by submitit and finds
what is finished. Jobs outlive the command that submitted them where that command is killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from byrote.checkpoints.errors import ByroteError
from byrote.checkpoints.remote_tasks import Answer, Handle, LostError, Where, carry_out, done_elsewhere
from byrote.checkpoints.side_by_side import OnEvent

if TYPE_CHECKING:
    from byrote.checkpoints.engines import Needs

DEFAULT_MINUTES = 24 * 60
_SPARE_BYTES = 1 << 30  # submitit and the interpreter


def on_slurm(
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
    """Do tasks as jobs of Slurm; see `run_tasks`.

    Args:
        work, tasks, folder, hear, stopping: see there.
        jobs: of the array at the same time, at most.
        needs: of one task.
        options: of submitit's executor, such as `slurm_partition`, `slurm_account` or `timeout_min`; `cluster=local` starts
            processes of this machine in place of jobs.

    Raises:
        ByroteError: submitit is not installed, there is no Slurm here, or an option is unknown.
    """
    submitit = _submitit()

    def start(places: Sequence[int], where: Where) -> list[Handle]:
        executor = _executor(submitit, Path(where.folder) / "jobs", needs, options, jobs)
        with executor.batch():
            started = [executor.submit(_carry_out(submitit), work, tasks[k], k, where) for k in places]
        return [_Job(submitit, job) for job in started]

    at_once = len(tasks) if options.get("cluster", "slurm") == "slurm" else jobs or len(tasks)
    yield from done_elsewhere(start, len(tasks), at_once, folder, hear=hear, stopping=stopping)


def _carry_out(submitit: Any) -> Any:
    """`carry_out`, which submitit may queue again."""

    class Again(submitit.helpers.Checkpointable):
        def __call__(self, *arguments: Any) -> Answer:
            return carry_out(*arguments)

    return Again()


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise ByroteError(
            "the engine slurm needs submitit, which is not installed", help="pip install 'byrote[slurm]'"
        ) from None
    return submitit


def _executor(submitit: Any, folder: Path, needs: Needs, options: Mapping[str, str], jobs: int | None) -> Any:
    """An executor that asks for what a task needs.

    Raises:
        ByroteError: there is no Slurm here, or submitit refuses an option.
    """
    given = {name: int(text) if text.isdecimal() else text for name, text in options.items()}
    cluster = given.pop("cluster", "slurm")
    fields = {
        "timeout_min": DEFAULT_MINUTES,
        "cpus_per_task": needs.cores,
        "mem_gb": -(-(needs.memory_bytes + _SPARE_BYTES) // (1 << 30)),
        "gpus_per_node": needs.gpus,
        "name": "byrote",
    }
    if jobs is not None and cluster == "slurm":
        fields["slurm_array_parallelism"] = jobs
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**{**fields, **given})
    except (RuntimeError, ValueError, NameError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise ByroteError(
            f"submitit cannot start jobs ({reason})",
            help="give options of submitit's executor, such as --engine-option slurm_partition=gpu; "
            "cluster=local runs the jobs on this machine",
        ) from None
    return executor


class _Job:
    """A job of Slurm."""

    def __init__(self, submitit: Any, job: Any) -> None:
        self._submitit, self._job = submitit, job

    def done(self) -> bool:
        return bool(self._job.done())

    def answer(self) -> Answer:
        jobs = self._submitit.core.utils
        try:
            answer: Answer = self._job.result()
        except jobs.FailedJobError as error:
            lines = [line for line in str(error).split("\n") if line.strip()]
            raise ByroteError(
                f"a job failed: {lines[-1].strip()[:300]}",
                help="`byrote run` with --shard, or without an engine, shows where",
            ) from None
        except jobs.UncompletedJobError:
            raise LostError(f"its job {self._job.job_id} ended without a result") from None
        return answer

    def cancel(self) -> None:
        self._job.cancel()
