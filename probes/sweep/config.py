"""Configuration of a sweep, each setting written once: its name, default, and the help that the command line shows.

It imports nothing heavy: the command line imports it before it parses its arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from byrote.checkpoints.errors import ByroteError, did_you_mean
from byrote.checkpoints.setting import MAX_SEED, is_whole, shown
from byrote.interp import device

if TYPE_CHECKING:
    from byrote.probes.spec import ProbeInfo

_VERSIONED = ("torch", "transformer-lens", "transformers", "numpy", "byrote")
_A_FILE = {"exists": True, "dir_okay": False}


def installed_versions() -> dict[str, str]:
    """Installed versions of what can change a number."""
    return {name: _version(name) for name in _VERSIONED}


@cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class SweepConfig:
    """The configuration of a sweep: the settings that decide the numbers of a sweep, and how its models run.

    Every field says what it means; these are the options of `byrote run`. `versions` are of what can change a number.
    """

    probes: tuple[str, ...] | None = field(
        default=None,
        metadata=shown(
            "A probe to run, `default` or `all`; repeat for more, or separate them by commas. If left out, all but those that cost many passes.",
            names=("-p",),
            called="probe",
            metavar="NAME",
            multiple=True,
        ),
    )
    seed: int = field(
        default=0, metadata=shown("Of stimuli, bootstraps and nulls.", metavar="N", least=0, most=MAX_SEED)
    )
    n_seq: int = field(
        default=32,
        metadata=shown(
            "Sequences per stimulus: n of the intervals.",
            called="sequences",
            metavar="N",
            least=8,
            most=100_000,
        ),
    )
    device: str = field(
        default="cpu", metadata=shown("Where the model runs: cpu, cuda, cuda:N or mps.", metavar="NAME")
    )
    dtype: str = field(
        default="float32",
        metadata=shown("Of weights and activations.", choices=("float32", "bfloat16", "float64")),
    )
    swap: Literal["auto", "fresh"] = field(
        default="auto",
        metadata=shown(
            "auto copies weights into one live model where that is proved exact; fresh builds each step from scratch.",
            choices=("auto", "fresh"),
        ),
    )
    top_heads: int | None = field(
        default=None,
        metadata=shown(
            "Number of top heads for load_bearing; if left out, 5% of all, at least 1.",
            metavar="K",
            least=1,
        ),
    )
    text: Path | None = field(
        default=None,
        metadata=shown(
            "Real text: .txt, .jsonl or .parquet, a file or a folder, for the model's own tokenizer, or token ids "
            "(.npy, .safetensors).",
            path={"exists": True},
        ),
    )
    members: Path | None = field(
        default=None,
        metadata=shown(
            "Sequences the model was trained on: one per line, .jsonl (text, repeat_count), or token ids, one per row; "
            "a lab series carries its own.",
            path=_A_FILE,
        ),
    )
    twins: Path | None = field(
        default=None,
        metadata=shown(
            "As --members: sequences of the same source that were never trained on.", path=_A_FILE
        ),
    )
    stimulus: Any = field(  # a path, or a `Stimulus` of one's own
        default=None,
        metadata=shown(
            "Blocks of your own in place of random tokens: token ids, one block per row (.npy, .safetensors). Each is shown two "
            "to four times, or as often as its row repeats it.",
            path=_A_FILE,
        ),
    )
    threads: int | None = field(
        default=None,
        metadata=shown(
            "CPU threads of torch; if left out, one for small models, else torch's own choice.",
            metavar="N",
            least=1,
        ),
    )
    prefetch: bool = field(
        default=True,
        metadata=shown(
            "Read and hash the next step's files while this one is measured.",
            names=("--prefetch/--no-prefetch",),
        ),
    )
    save_attention: bool = field(
        default=False,
        metadata=shown(
            "Store for the dashboard, on two sequences per stimulus: every head's attention, one byte per weight, and the "
            "tokens it raises and lowers most, 60 bytes per position."
        ),
    )
    versions: Mapping[str, str] = field(default_factory=installed_versions)

    @property
    def infos(self) -> tuple[ProbeInfo, ...]:
        """The probes to run, those that verdicts need included."""
        from byrote.probes.registry import resolve

        return resolve(self.probes)

    def options_of(self, info: ProbeInfo) -> dict[str, Any]:
        """The settings that a probe reads as arguments, where they were given."""
        found = {name: getattr(self, name) for name in info.options}
        return {name: value for name, value in found.items() if value is not None}


def checked_settings(settings: Mapping[str, Any], *, of: str, names: Iterable[str]) -> dict[str, Any]:
    """Settings as `SweepConfig` takes them, paths as paths.

    Args:
        settings: by the names of its fields, or as the options of `byrote run` are called (`sequences` for `n_seq`).
        of: what they are settings of, for the message.
        names: fields that may be set.

    Raises:
        ByroteError: an unknown setting, a value that no sweep can use, or a file that is not there.
    """
    known = {one.name: one for one in fields(SweepConfig)}
    called = {one.metadata["called"]: name for name, one in known.items() if "called" in one.metadata}
    found, names = {called.get(name, name): value for name, value in settings.items()}, set(names)
    given = {called.get(name, name): name for name in settings}
    for name, value in found.items():
        if name not in names:
            choices = names | {option for option, field_name in called.items() if field_name in names}
            steps = "choose steps from the series: series.select('log:12')"
            raise ByroteError(
                f"{of} has no setting {name!r}",
                help=steps if name == "steps" else did_you_mean(name, choices),
            )
        wrong, help = _wrong_with(value, known[name])
        if wrong:
            raise ByroteError(f"{given[name]}={value!r} {wrong}", help=help)
        if "path" in known[name].metadata and isinstance(value, str):
            found[name] = Path(value)
    return found


def _wrong_with(value: Any, setting: Field[Any]) -> tuple[str, str]:
    """What is wrong with the value of a setting, and what to give instead; ("", "") where nothing is."""
    meta = setting.metadata
    if value is None and setting.default is None:
        return "", ""
    if "least" in meta:
        least, most = min(meta["least"], 1), meta.get("most")
        if not is_whole(value):
            return "is not a whole number", f"give {least} or more"
        if value < least:
            return "is too small", f"give {least} or more"
        return ("is too large", f"give {most:,} or less") if most and value > most else ("", "")
    if "choices" in meta:  # "" is the model's own
        known = value == "" or value in meta["choices"]
        return ("", "") if known else ("is unknown", did_you_mean(str(value), meta["choices"]))
    if "path" in meta and not hasattr(value, "tokens"):
        if not isinstance(value, str | Path):
            return "is not a path", meta["help"]
        path = Path(value)
        beside = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        return (
            ("", "")
            if path.exists()
            else ("does not exist", did_you_mean(path.name, beside[:1000] or [path.name]))
        )
    if setting.name == "device" and not isinstance(value, str):
        return "is not a device", meta["help"]
    return "", ""


def require_device(config: SweepConfig) -> None:
    """Refuse a device that is not there before any work starts; see `byrote.interp.device`.

    Raises:
        ByroteError: an unknown device, or one this machine or dtype does not have.
    """
    device.require_device(config.device, dtype=config.dtype)
