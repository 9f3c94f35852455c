"""The package as a stranger gets it: built, installed beside nothing of this repository, used next to their own files."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
from streamlit_client import visit

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
NOT_SOURCE = (
    ".git",
    ".venv",
    "build",
    "dist",
    "runs",
    "results",
    "reports",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
)
# What a user may have beside a notebook. None of it may ever be imported in the place of ours.
THEIRS = (
    "app.py",
    "probes.py",
    "interp.py",
    "cli.py",
    "streamlit.py",
    "checkpoints/__init__.py",
    "byrote_notes.py",
)
NOTEBOOK = """
import sys
from pathlib import Path
import byrote as br

assert Path(br.__file__).is_relative_to(sys.argv[1]), br.__file__
series = br.open_series("runs/a")
assert {"figures", "onset", "compare", "measure"} <= set(dir(br))
br.onset, br.figures.trajectory, br.compare
assert "torch" not in sys.modules, "looking imports torch"
first = br.measure(series, ["previous_token"], out="results", n_seq=8)
second = br.measure(br.open_series("runs/b"), ["previous_token"], out="results", n_seq=8)
print(br.compare(first, second).a, br.onset(first).text)
print(type(br.figures.trajectory(first["previous_token"])).__name__)
print(sorted(n for n in sys.modules if n.split(".")[0] in ("app", "probes", "interp", "cli", "checkpoints")))
"""


@dataclass(frozen=True)
class Built:
    """The two files of a release, and a fresh environment with the wheel in it."""

    wheel: Path
    sdist: Path
    environment: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.environment / "bin" / "python"

    @property
    def command(self) -> Path:
        """The installed script."""
        return self.environment / "bin" / "byrote"

    def run(self, *words: str | Path, cwd: Path) -> str:
        """What a command of this environment prints on stdout."""
        done = subprocess.run(
            [*map(str, words)], cwd=cwd, env=clean_variables(), capture_output=True, text=True
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()


def clean_variables() -> dict[str, str]:
    """The variables of a shell that knows nothing of this repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BYROTE_"))}


def _not_source(folder: str, names: list[str]) -> set[str]:
    """What a fresh clone lacks: at the top whatever git ignores, below it only caches (`probes/results` is source)."""
    patterns = NOT_SOURCE if Path(folder) == ROOT else ("__pycache__",)
    return shutil.ignore_patterns(*patterns)(folder, names)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """sdist from a copy of the tree, wheel from the sdist, installed into an environment that has the libraries only.

    The libraries come from the running environment through a path file: what is installed there in editable form is
    not seen, because path files inside a folder that a path file names are not read.
    """
    place = tmp_path_factory.mktemp("release")
    copy = shutil.copytree(ROOT, place / "tree", ignore=_not_source)
    subprocess.run(
        [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", place / "dist", copy],
        check=True, capture_output=True, text=True, env=clean_variables(), cwd=place,
    )  # fmt: skip
    (wheel,), (sdist,) = (place / "dist").glob("*.whl"), (place / "dist").glob("*.tar.gz")
    environment = place / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text("\n".join(libraries))
    install = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "-q"]
    options = ["--no-deps", "--no-index", "--force-reinstall", "--disable-pip-version-check"]
    subprocess.run(
        [*install, *options, wheel], check=True, capture_output=True, text=True, env=clean_variables()
    )
    return Built(wheel, sdist, environment)


@pytest.fixture
def folder(tmp_path: Path, lab_series) -> Path:
    """A working folder with files of the user's own, and two short series in `runs`."""
    for name in THEIRS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"raise RuntimeError('the user\\'s own {name} was imported')\n")
    for name in ("a", "b"):
        lab_series(2, folder=f"runs/{name}")
    return tmp_path


@pytest.mark.processes
def test_the_wheel_is_one_package_with_everything_it_needs(built: Built) -> None:
    names = zipfile.ZipFile(built.wheel).namelist()
    tops = {PurePosixPath(name).parts[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"byrote"}
    here = {
        f"byrote/{path.relative_to(ROOT / 'app') if top == 'app' else path.relative_to(ROOT)}"
        for top in ("app", "checkpoints", "interp", "probes")
        for path in (ROOT / top).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == here  # css, js, html and the example too
    assert {"byrote/py.typed", "byrote/dashboard/style.css"} <= here
    assert {Path(name).suffix for name in here} >= {".py", ".css", ".js", ".xz"}


@pytest.mark.processes
def test_the_source_archive_holds_what_a_packager_needs(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    for name in ("Makefile", "constraints.txt", "MANIFEST.in", "LICENSE", "CITATION.cff", "CONTRIBUTING.md"):
        assert name in names
    for top in ("tests", "docs"):
        kept = {str(path.relative_to(ROOT)) for path in (ROOT / top).rglob("*") if path.is_file()}
        assert {name for name in kept if "_cache" not in name and "__pycache__" not in name} <= names
    assert not [
        name for name in names if name.endswith(".pyc") or name.startswith((".venv", "build", "runs"))
    ]


@pytest.mark.processes
def test_the_command_works_beside_files_of_the_same_names(built: Built, folder: Path) -> None:
    version = f"byrote {PROJECT['project']['version']}"
    assert built.run(built.command, "--version", cwd=folder) == version
    assert built.run(built.python, "-m", "byrote", "--version", cwd=folder) == version
    assert (
        built.run(built.python, "-c", "import byrote; print(byrote.__version__)", cwd=folder) == version[7:]
    )
    assert built.run(built.command, "scan", "runs", "--csv", cwd=folder).startswith("run,step,")


@pytest.mark.processes
def test_a_notebook_works_beside_files_of_the_same_names(built: Built, folder: Path) -> None:
    *found, theirs = built.run(built.python, "-c", NOTEBOOK, built.environment, cwd=folder).splitlines()
    assert found[-2].startswith("a ")
    assert found[-1] == "Figure"
    assert theirs == "[]"


@pytest.mark.processes
def test_the_dashboard_works_beside_files_of_the_same_names(built: Built, folder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(built.command), "dashboard", "--no-browser", "--port", str(port)]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=clean_variables(), stdout=subprocess.PIPE, stderr=file, text=True
        )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith(f"http://localhost:{port}/?token="), log.read_text()
        page = visit(address)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert page.errors == [], log.read_text()
    assert page.finished and "plotly_chart" in page.elements  # the example that comes with the package


def test_the_list_of_packages_is_the_folders() -> None:
    folders = {
        ".".join(("byrote", *file.parent.relative_to(ROOT).parts)).replace("byrote.app", "byrote")
        for top in ("app", "checkpoints", "interp", "probes")
        for file in (ROOT / top).rglob("*.py")
    }
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == folders


def test_nothing_is_imported_under_two_names() -> None:
    import byrote.probes  # noqa: F401

    ours = {name.split(".")[1] for name in sys.modules if name.startswith("byrote.")}
    assert "probes" in ours
    assert ours & set(sys.modules) - set(sys.stdlib_module_names) == set()


def test_pins_and_ranges_are_about_the_same_libraries() -> None:
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    pinned |= set(
        re.findall(r"^RAY := (ray)==", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )  # too large for all
    project = PROJECT["project"]
    ranges = [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]
    names = {re.match(r"[\w.-]+", entry).group() for entry in ranges}  # type: ignore[union-attr]
    assert {name.replace("_", "-").lower() for name in names} <= {p.replace("_", "-").lower() for p in pinned}
