"""Series whose steps are single weight files: `step_512.pt`, `epoch=1-step=500.ckpt`, `step_512/ckpt.pt`.

What is common to them: which files are candidates, which step a name says, what is no regular file, where the
config is, and how files become a series.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from byrote.checkpoints.errors import CheckpointError
from byrote.checkpoints.formats.duplicates import without_duplicates
from byrote.checkpoints.formats.inert_pickle import shown
from byrote.checkpoints.series import Checkpoint, CheckpointSeries, Gap
from byrote.checkpoints.step_names import count_parts, parse_name, step_folders

# A step inside a longer name: model_step512, gpt-small-iter-1000-final.
_STEP_WITHIN = re.compile(
    r"(?:^|[^a-z])(?:global_?)?(?:step|iter)s?[-_=]?(\d{1,15})(?![\d.]*-of-)", re.IGNORECASE
)
_HF_NAMED = re.compile(
    r"(?:model|pytorch_model|adapter_model)(?:-\d+-of-\d+)?\.(?:safetensors|bin)", re.IGNORECASE
)
_SIDECARS = re.compile(r"(?:.*[-_.])?(?:optimi[sz]ers?|optim|scheduler|rng|scaler|sampler|training_args)"
                       r"(?:[-_.].*|states?.*)?\.\w+", re.IGNORECASE)  # fmt: skip


@dataclass(frozen=True)
class WeightFile:
    """A file that may hold one step; step and tokens where a name says them."""

    path: Path
    step: int | None = None
    tokens: int | None = None


def hf_named(name: str) -> bool:
    """Named as Hugging Face names the weights of a model folder."""
    return _HF_NAMED.fullmatch(name) is not None


def candidates(path: Path, endings: Iterable[str]) -> tuple[list[WeightFile], list[Gap]]:
    """Files that may hold weights: the path itself, those in the folder, else those in its step folders.

    Args:
        path: a file or a folder.
        endings: file endings that count, such as ``.pt``.

    Returns:
        The files by name, and gaps for what is named like one and is no regular file.
    """
    if path.is_file():
        return ([_named(path)], []) if path.suffix.lower() in endings else ([], [])
    here, gaps = _inside(path, endings)
    files = [_named(file) for file in here]
    if files or gaps:
        return files, gaps
    for folder in step_folders(path):
        inside, odd = _inside(folder, endings)
        gaps += odd
        named = parse_name(folder.name)
        assert named is not None, "step_folders gives folders whose names can be parsed"
        if len(inside) == 1:
            files.append(WeightFile(inside[0], named.step, named.tokens))
        elif len(inside) > 1:
            names = ", ".join(file.name for file in inside[:3])
            gaps.append(
                Gap(folder, f"it holds {len(inside)} weight files ({names})", "keep one per step", named.step)
            )
    return files, gaps


def file_step(name: str) -> tuple[int, int | None] | None:
    """Step and tokens a file's name says, None where it says none."""
    named = parse_name(name)
    if named is not None:
        return named.step, named.tokens
    within = _STEP_WITHIN.findall(Path(name).stem)
    return (int(within[0]), None) if len(within) == 1 else None


def assemble(
    path: Path,
    format: str,
    files: Iterable[WeightFile],
    gaps: Iterable[Gap],
    read: Callable[[WeightFile], Checkpoint],
) -> CheckpointSeries:
    """Files as a series: what cannot be read is a gap, copies of a named step are left out with a note.

    Args:
        path: the folder or file that was opened.
        format: the format's name.
        files: candidates.
        gaps: what was found unreadable already.
        read: one file as a checkpoint; raises CheckpointError for what is none.

    Raises:
        CheckpointError: the names belong to different stages, whose steps are no one axis.
    """
    files, gaps = list(files), list(gaps)
    parts = count_parts(
        file.path.name if parse_name(file.path.name) else file.path.parent.name for file in files
    )
    if len(parts) > 1:
        raise CheckpointError(
            f"{path} holds {len(parts)} parts of a training, each with its own count of steps: {', '.join(parts)}",
            help="put the files of each part into a folder of its own",
        )
    read_files: list[tuple[WeightFile, Checkpoint]] = []
    for file in files:
        try:
            read_files.append((file, read(file)))
        except CheckpointError as error:
            gaps.append(Gap(file.path, error.message, error.help, file.step))
        except OSError as error:
            gaps.append(
                Gap(file.path, f"cannot be read ({error.strerror})", "check its permissions", file.step)
            )
    named = {c.step for file, c in read_files if file.step is not None}
    kept = [c for file, c in read_files if file.step is not None or c.step not in named]
    copies = [c for file, c in read_files if file.step is None and c.step in named]
    checkpoints, clashes = without_duplicates(kept)
    return CheckpointSeries(
        name=path.resolve().stem if path.is_file() else path.resolve().name,
        path=path,
        format=format,
        checkpoints=tuple(sorted(checkpoints)),
        gaps=tuple(sorted(gaps + clashes, key=lambda g: (g.step is None, g.step or 0, g.path.name))),
        notes=tuple(f"{c.path.name} is step {c.step} again and was left out" for c in copies),
    )


def find_config(file: Path) -> Path | None:
    """The config.json beside a weight file or in the folder above; None where there is none."""
    folder = file.absolute().parent
    return next((c for c in (folder / "config.json", folder.parent / "config.json") if c.is_file()), None)


def odd_steps(path: Path) -> list[Gap]:
    """Gaps for what is named like a step and is a link that leads nowhere or back up, a pipe or a device."""
    gaps = []
    for child in sorted(path.iterdir()):
        named = parse_name(child.name)
        if named is None or named.bare or child.is_file():
            continue
        if not child.is_dir():
            reason = "it is no folder (a broken link, a loop, a pipe or a device)"
        elif child.is_symlink() and path.resolve().is_relative_to(child.resolve()):
            reason = "it is a link back to a folder that holds it"
        else:
            continue
        gaps.append(Gap(child, reason, "replace it by the folder itself", named.step))
    return gaps


def links_out(series: CheckpointSeries) -> tuple[str, ...]:
    """A note on files that are not in the opened folder but linked into it, as a hub cache does; none without links."""
    home = series.path.resolve()
    home = home if series.path.is_dir() else home.parent
    used = {f for c in series.checkpoints for f in (*c.files, c.config_path) if f is not None and f.exists()}
    linked = sorted(
        file for file in used if file.is_relative_to(series.path) and not file.resolve().is_relative_to(home)
    )
    if not linked:
        return ()
    first = f"{linked[0].relative_to(series.path)} -> {linked[0].resolve()}"
    return (f"{len(linked)} files lie outside the folder and are linked into it ({shown(first)}, ...)",)


def _named(file: Path) -> WeightFile:
    return WeightFile(file, *(file_step(file.name) or (None, None)))


def _inside(folder: Path, endings: Iterable[str]) -> tuple[list[Path], list[Gap]]:
    """Weight files of one folder, and gaps for whatever is named like one and cannot be opened as a file."""
    files, gaps = [], []
    for child in sorted(folder.iterdir()):
        if child.suffix.lower() not in endings or hf_named(child.name) or _SIDECARS.fullmatch(child.name):
            continue
        if child.is_file():
            files.append(child)
        elif not child.is_dir():
            reason = "it is no regular file (a broken link, a loop, a pipe or a device)"
            gaps.append(
                Gap(child, reason, "replace it by the file itself", (file_step(child.name) or (None,))[0])
            )
    return files, gaps
