"""One thread, no network, and small series to measure."""

from __future__ import annotations

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # torch's and pyarrow's too, here and in subprocesses

import atexit
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import type_checks

gc.disable()  # until everything is imported: what that makes stays
type_checks.install()  # before any of our packages is imported
os.fsync = lambda descriptor: (
    None
)  # waits for a disk whose power no test cuts; test_atomic.py sees that it is called
os.environ["BYROTE_STATE"] = tempfile.mkdtemp(prefix="byrote-state-")  # no test writes into its user's own
atexit.register(shutil.rmtree, os.environ["BYROTE_STATE"], ignore_errors=True)
ROOT = Path(__file__).resolve().parent.parent
LONGEST = (
    "test_notebooks.py", "test_package.py", "test_recipes.py", "test_report.py", "test_cli_results.py", "test_swap.py",
    "test_sweep.py", "test_pages.py", "test_hostile_results.py", "test_planted_cases.py", "test_export.py", "test_lint.py",
    "test_architectures.py", "test_causal_probes.py", "test_text_streaming.py", "test_natural_runs.py", "test_overview_and_runs.py",
    "test_verified_results.py", "test_conventions.py", "test_lab_stack.py", "test_intervene.py", "test_hostile.py",
    "test_same_sentences.py", "test_fuzz.py", "test_cli_run.py", "test_figures_page.py", "test_own_text.py", "test_planted_heads.py",
    "test_results_flips.py", "test_format_hub.py", "test_same_bytes.py", "test_kill.py", "test_head_page.py", "test_groups_shown.py",
)  # fmt: skip
_LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What needs a browser is not even imported where it is deselected."""
    unwanted = "not browser" in config.option.markexpr and collection_path.name.startswith("test_browser")
    return True if unwanted else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """What the imports left stays to the end: the collector need not look through it again and again.

    Nor, at every 700 objects, through what tests import later: that took 3% of the time, at every 10,000 still 2%.
    """
    _look_for_components_once()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    gc.enable()


def _look_for_components_once() -> None:
    """Streamlit reads what every installed package says of itself for each page that a test draws; here once."""
    if "streamlit.testing.v1" in sys.modules:
        from streamlit.components.v2 import manifest_scanner

        manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail any test that asks for a host other than this one, even where the code swallows the refusal."""
    asked: list[str] = []

    def refuse(host: Any) -> None:
        if host not in _LOCAL:
            asked.append(str(host))
            raise OSError(f"tests may not reach the network ({host})")

    def guarded(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, address: Any) -> Any:
            if self.family != socket.AF_UNIX:
                refuse(address[0])
            return original(self, address)

        return call

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        refuse(host.decode() if isinstance(host, bytes) else host)
        return real_look_up(host, *args, **kwargs)

    real_look_up = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield
    assert not asked, f"the network was asked for: {asked}"


@pytest.fixture
def hf_series(tmp_path: Path) -> Callable[..., Path]:
    """`hf_series(arch, n_steps or steps, **)` writes a folder of Hugging Face checkpoints; see `tiny_models`."""
    from tiny_models import write_hf_series

    def write(arch: str, steps: int | tuple[int, ...] = 3, *, folder: str = "", **options: Any) -> Path:
        steps = tuple(range(steps)) if isinstance(steps, int) else steps
        return write_hf_series(tmp_path / (folder or arch), arch, steps, **options)

    return write


@pytest.fixture
def lab_series(tmp_path: Path) -> Callable[..., Path]:
    """`lab_series(n_steps or steps)` writes a lab series of tiny random models; see `tiny_models`."""
    from tiny_models import write_lab_series

    def write(steps: int | tuple[int, ...] = 3, *, folder: str = "tiny", **changes: Any) -> Path:
        steps = tuple(range(steps)) if isinstance(steps, int) else steps
        return write_lab_series(tmp_path / folder, steps, **changes)

    return write


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Run a piece of Python in a fresh interpreter and give back what it printed."""
    import subprocess

    def run(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return partial(run)


@pytest.fixture(scope="session")
def run_prepared(
    tmp_path_factory: pytest.TempPathFactory, run_python: Callable[..., str]
) -> Iterator[Callable[..., str]]:
    """The same in a second less, where pandas, pyarrow and plotly may be there already and torch is not."""
    from prepared_python import PreparedPython

    if not hasattr(os, "fork"):
        yield run_python
        return
    python = PreparedPython(ROOT, tmp_path_factory.mktemp("prepared"))
    yield python.run
    python.close()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """`made_once("name", make)`: a folder that `make` fills for all processes of a run; no test may change what is in it."""
    from filelock import FileLock

    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top

    def folder_of(name: str, make: Callable[[Path], None]) -> Path:
        folder, made = top / f"once-{name}", top / f"once-{name}.made"
        with FileLock(top / f"once-{name}.lock"):
            if not made.exists():
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def degraded(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """A planted study of repeated data: three sizes of the control, three pools at the largest, five seeds each."""
    from degrade_runs import write_study

    return write_study(tmp_path_factory.mktemp("study") / "results")
