"""Pages drawn without a browser, on results whose answers are planted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from planted_series import damage, flat, keep_attention, rising, whole, with_gap, write_results
from streamlit.testing.v1 import AppTest

from byrote.dashboard.library import PATHS_VARIABLE, as_variable

Open = Callable[..., AppTest]
UNIQUE = {"kind": "unique", "repeat_frac": 0.0, "pool_size": 0}
REPEATED = {"kind": "repeated", "repeat_frac": 0.5, "pool_size": 64}


def script(page: str) -> None:
    from byrote.dashboard.layout import main

    main(only=page)


@pytest.fixture(autouse=True)
def own_main() -> Iterator[None]:
    """A page runs as `__main__`, from a file that is then deleted: a process started later would look for it."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Open:
    """`open_page("trajectory", results, step=10, head="L1H0")`: the page as its URL draws it."""

    def call(page: str, *paths: Path, **params: Any) -> AppTest:
        monkeypatch.setenv(PATHS_VARIABLE, as_variable(paths))
        at = AppTest.from_function(script, kwargs={"page": page}, default_timeout=60)
        for name, value in params.items():
            at.query_params[name] = str(value)
        return at.run()

    return call


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `unique`, whose L1H2 rises at step 20, and `repeated`, in which nothing does and step 10 has a gap."""
    root = tmp_path_factory.mktemp("dashboard") / "results"
    write_results(root, "unique", rising(), arm=UNIQUE)
    write_results(root, "repeated", with_gap(flat(), 10), arm=REPEATED)
    return root


@pytest.fixture(scope="session")
def full_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`repeated`, which makes every page draw all it has, and `unique`, in which nothing was there to remember."""
    root = tmp_path_factory.mktemp("full") / "results"
    folder = write_results(root, "repeated", whole(), arm=REPEATED)
    keep_attention(folder, 40, ["<bos>", " a", " b", " a", " b"])
    write_results(root, "unique", whole(at=10, remembers=False), arm=UNIQUE)
    return root


@pytest.fixture(scope="session")
def with_broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of them beside a folder whose run.json is cut short."""
    root = tmp_path_factory.mktemp("broken") / "results"
    write_results(root, "unique", rising(), arm=UNIQUE)
    write_results(root, "torn", flat())
    damage(root / "torn")
    return root


@pytest.fixture(scope="session")
def pages_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results that make every page draw all it has in a browser."""
    from browsing import write_pages

    return write_pages(tmp_path_factory.mktemp("browser") / "results")


@pytest.fixture(scope="session")
def site(pages_results: Path) -> Iterator[str]:
    """The address of one server on them, for all tests that only look."""
    from browsing import served

    with served(pages_results) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, one for all tests; each takes a profile of its own."""
    from browsing import chromium

    with chromium() as found:
        yield found
