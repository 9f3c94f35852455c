"""The dashboard in a real browser: page load, click, bytes, memory, four users at once.

    python tests/bench/bench_dashboard.py                # 154 steps x 1,024 heads x 10 probes, two runs; some minutes
    python tests/bench/bench_dashboard.py --steps 20     # smaller, to see whether it works

Results of that size are written with the code's own store into a temporary folder (`--keep FOLDER` keeps and reuses
them). The server and Debian's Chromium run on this machine, so both share its cores; medians over `--rounds`.

first    sight of the two runs: from its full address until everything on the overview is drawn, on a server that has read none of it;
         the server and the browser have shown the example before, so that the programs themselves are loaded
cpu      seconds of processor the server and the page itself spent on that change: what is left of it on a quiet machine
page     from choosing a page in the menu until everything on it is drawn and the script has ended, every page seen before
reload   the same from a full address in the same browser: the program itself is loaded again
click    from choosing a head in the grid until its name is in the address
bytes    what the server sends for a full address, files of the program left out: WebSocket frames and responses
memory   of the server: median of the last tenth of the interactions minus that of the first tenth, after 40 that are not
         counted, because the last few figures are kept and room for them is found then
users    four browsers change to the same page at the same moment: the slowest of them
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from byrote.dashboard.views import PAGES as PAGES_DECLARED  # noqa: E402

CHROMIUM = "/usr/bin/chromium"
PAGES = tuple(PAGES_DECLARED)
PROBES = (
    "prefix_matching", "previous_token", "duplicate_token", "anti_induction", "sink", "entropy", "value_weighted",
    "copying_logit", "ov_copying", "qk_matching",
)  # fmt: skip
SHAPE = (32, 32)
N_SEQ, N_PAIRS, N_TOKENS = 32, 4096, 96
PAGE_S, FIRST_S, CLICK_S, USERS = 0.7, 3.0, 0.25, 4
PAGE_BYTES, MEMORY_BYTES, SERVER_BYTES = 2_000_000, 16_000_000, 300_000_000
WARM_UP = 40

# True when the page is at rest and everything on it is drawn.
DRAWN = """(path) => {
  const app = document.querySelector('[data-testid="stApp"]');
  if (!app || app.getAttribute('data-test-script-state') !== 'notRunning') return false;
  if (path && location.pathname !== path) return false;
  if (!document.querySelector('h1') || document.querySelector('[data-testid="stSkeleton"]')) return false;
  if ([...document.querySelectorAll('[data-stale="true"]')].length) return false;
  if (window.left && window.left === document.querySelector('h1').textContent + location.pathname) return false;
  const all = (what, has) => [...document.querySelectorAll(`[data-testid="${what}"]`)].every(has);
  const ours = (e) => [e, ...e.querySelectorAll('*')].some((one) => one.shadowRoot && one.shadowRoot.querySelector('button'));
  return all('stPlotlyChart', (e) => e.querySelector('.main-svg')) && all('stDataFrame', (e) => e.querySelector('canvas'))
    && all('stBidiComponentIsolated', ours);
}"""
# Starts a change of page and leaves the seconds it took in window.took.
CHANGE = f"""([path, name]) => {{
  const drawn = {DRAWN};
  window.left = document.querySelector('h1').textContent + location.pathname;
  window.took = null;
  const link = [...document.querySelectorAll('[data-testid="stSidebar"] a')].find((a) => a.textContent.includes(name));
  const start = performance.now();
  const look = () => drawn(path) ? (window.took = (performance.now() - start) / 1000) : requestAnimationFrame(look);
  link.click();
  requestAnimationFrame(look);
}}"""
CLICK = """(name) => new Promise((done) => {
  const roots = [...document.querySelectorAll('*')].map((e) => e.shadowRoot).filter(Boolean);
  const cells = roots.flatMap((r) => [...r.querySelectorAll('.cell')]);
  const cell = cells.find((c) => (c.getAttribute('aria-label') || '').startsWith(name + ':') || (c.getAttribute('aria-label') || '').startsWith(name + ','));
  const start = performance.now();
  const look = () => new URLSearchParams(location.search).get('head') === name ? done((performance.now() - start) / 1000) : setTimeout(look, 2);
  cell.click();
  look();
})"""


def pythia_steps(n: int) -> list[int]:
    """The steps of a Pythia model, or the first few: 0, powers of two, then every thousand."""
    return [0, *(2**i for i in range(10)), *range(1000, 144_000, 1000)][:n]


def write_run(root: Path, name: str, steps: list[int], *, late: float, kind: str) -> None:
    """A run in which a few heads become induction heads: ten probes per head, verdicts, composition, losses.

    Args:
        root: folder of results.
        name: of the run.
        steps: training steps.
        late: how much later it happens, as a factor.
        kind: of its data, unique or repeated.
    """
    from byrote.checkpoints.atomic import write_json
    from byrote.probes.results.derived import rebuild_observations
    from byrote.probes.results.schema import Measured, unit_table
    from byrote.probes.results.unit_files import step_folder, write_unit

    rng = np.random.default_rng(len(name))
    level = rng.beta(1.2, 9, size=(len(PROBES), *SHAPE))
    rises = rng.random((len(PROBES), *SHAPE)) < 0.03
    pairs = rng.choice(np.flatnonzero(np.triu(np.ones((32, 32)), 1)), N_PAIRS)
    for i, step in enumerate(steps):
        on = 1 / (1 + (2000 * late / max(step, 1)) ** 3)
        grown = np.where(rises, level + 0.7 * on * (1 - level), level * (1 + 0.05 * np.sin(i / 9)))
        measured = [head_scores(Measured, p, grown[k], rng) for k, p in enumerate(PROBES)]
        called = (grown[0] > 0.5) & rises[0]
        nan, n = np.full(SHAPE, np.nan), np.full(SHAPE, float(N_SEQ))
        measured.append(
            Measured("induction", "verdict", *[called.astype(float)] * 3, nan, n, ("layer", "head"))
        )
        measured += [
            losses(Measured, metric, v, rng)
            for metric, v in (("first_block", 9.5 - 5 * on), ("later_blocks", 9.4 - 8 * on))
        ]
        table = unit_table(measured, run=name, step=step, tokens_seen=2_097_152 * step)
        write_unit(
            step_folder(root / name, step) / "all.00000000.parquet", table, {"fingerprint": f"{name}{step}"}
        )
        wires = pair_table(name, step, pairs, 2 + 6 * on * rng.random(N_PAIRS))
        write_unit(
            step_folder(root / name, step) / "pairs.00000000.parquet", wires, {"fingerprint": f"{name}{step}"}
        )
    meta = {
        "schema": 1, "run": name, "status": "complete",
        "series": {"name": name, "path": f"runs/{name}", "format": "hf", "n_checkpoints": len(steps), "steps": steps,
                   "loss_nats": {str(s): 10 - 7 / (1 + 500 / max(s, 1)) for s in steps}, "manifest": {"arm": {"kind": kind}}},
        "model": {"n_layers": SHAPE[0], "n_heads": SHAPE[1], "n_ctx": 2048},
        "provenance": {"dtype": "float32", "device": "cpu", "seed": 0, "versions": {}},
        "stimuli": [{"id": "repeated_random-bench", "kind": "repeated_random"}], "gaps": [], "notes": [],
    }  # fmt: skip
    write_json(root / name / "run.json", meta)
    rebuild_observations(root / name)
    write_attention(root / name, steps[-1], rng)


def head_scores(made: Any, probe: str, values: np.ndarray, rng: np.random.Generator) -> Any:
    """One probe's score of every head, with the samples its interval is made of."""
    half = 0.01 + 0.02 * rng.random(SHAPE)
    samples = np.round(values + half * rng.normal(size=(N_SEQ, *SHAPE)), 2)
    chance, n = np.full(SHAPE, 0.04), np.full(SHAPE, float(N_SEQ))
    return made(
        probe, "score", values, values - half, values + half, chance, n, ("layer", "head"), samples=samples
    )


def losses(made: Any, metric: str, value: float, rng: np.random.Generator) -> Any:
    """One number of the model."""
    numbers = [np.array(v) for v in (value, value - 0.05, value + 0.05, 10.8, float(N_SEQ))]
    return made("repeat_loss", metric, *numbers, (), samples=value + 0.1 * rng.normal(size=(N_SEQ,)))


def pair_table(run: str, step: int, layers: np.ndarray, z: np.ndarray) -> Any:
    """Composition of as many pairs as a sweep keeps of a model this large."""
    import pyarrow as pa

    from byrote.probes.results.schema import UNIT_SCHEMA

    n = len(z)
    rng = np.random.default_rng(7)
    heads = rng.integers(0, 32, size=(2, n))
    columns: dict[str, Any] = {
        "run": [run] * n, "step": [step] * n, "tokens_seen": [2_097_152 * step] * n, "probe": ["composition"] * n,
        "metric": ["k_z"] * n, "layer": layers % 32, "head": heads[0], "src_layer": layers // 32, "src_head": heads[1],
        "position": pa.nulls(n, pa.int64()), "value": z, "lo": z, "hi": z, "chance": np.zeros(n), "n": [16] * n,
        "valid": [True] * n, "reason": [""] * n, "samples": [[]] * n,
    }  # fmt: skip
    return pa.table({f.name: pa.array(columns[f.name], f.type) for f in UNIT_SCHEMA}, schema=UNIT_SCHEMA)


def write_attention(folder: Path, step: int, rng: np.random.Generator) -> None:
    """Every head's attention on two sequences, as `--save-attention` keeps it."""
    import json

    from safetensors.numpy import save_file

    from byrote.probes.attention import FORMAT, attention_file

    weights = np.tril(rng.random((2, *SHAPE, N_TOKENS, N_TOKENS), dtype=np.float32) ** 8)
    weights /= weights.sum(-1, keepdims=True).clip(1e-6)
    file = attention_file(folder, step)
    file.parent.mkdir(parents=True)
    arrays = {
        "repeated_random/pattern": np.round(255 * weights).astype(np.uint8),
        "repeated_random/tokens": rng.integers(0, 50_000, size=(2, N_TOKENS)),
    }
    facts = {"format": FORMAT, "stimuli": json.dumps({"repeated_random": "bench"}), "words": "{}"}
    save_file(arrays, file, metadata=facts)


@dataclass
class Server:
    """The dashboard's server process."""

    process: subprocess.Popen
    port: int
    opened_by: str

    def address(self, page: str, **state: Any) -> str:
        """A full link."""
        path = "" if page == "overview" else page
        return f"http://localhost:{self.port}/{path}?{urlencode(state)}"

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving(results: Path) -> Iterator[Server]:
    """The server, as `byrote dashboard` starts it, until the block ends."""
    from byrote.dashboard import launch

    started = launch.start([results], port=launch.free_port(None), output=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and started.process.poll() is None and not launch.answers(started.port):
            time.sleep(0.1)
        yield Server(started.process, started.port, started.address)
    finally:
        started.process.terminate()
        started.process.wait(timeout=20)


@dataclass
class Traffic:
    """What came over the network since `reset`, the program's own files left out."""

    n_bytes: int = 0
    outside: set[str] = field(default_factory=set)
    program: set[str] = field(default_factory=set)

    def reset(self) -> None:
        """Count from here."""
        self.n_bytes = 0

    def watch(self, page: Any) -> None:
        """Listen to a page's WebSocket frames and responses."""
        page.on("websocket", lambda socket: socket.on("framereceived", self._frame))
        client = page.context.new_cdp_session(page)
        client.send("Network.enable")
        client.on("Network.responseReceived", self._response)
        client.on("Network.loadingFinished", self._finished)

    def _frame(self, payload: str | bytes) -> None:
        self.n_bytes += len(payload if isinstance(payload, bytes) else payload.encode())

    def _response(self, event: dict[str, Any]) -> None:
        url = urlsplit(event["response"]["url"])
        if url.hostname not in (None, "localhost", "127.0.0.1") and url.scheme in (
            "http",
            "https",
            "ws",
            "wss",
        ):
            self.outside.add(url.hostname)
        if "/static/" in url.path or url.path.endswith((".js", ".css", ".woff2", ".png", ".ico")):
            self.program.add(event["requestId"])

    def _finished(self, event: dict[str, Any]) -> None:
        if event["requestId"] not in self.program:
            self.n_bytes += int(event["encodedDataLength"])


@dataclass
class Row:
    """One figure beside its budget."""

    what: str
    value: float
    budget: float | None
    unit: str

    @property
    def passed(self) -> bool:
        """Within the budget, or only told."""
        return self.budget is None or self.value <= self.budget

    def __str__(self) -> str:
        scale, unit = (1e6, "MB") if self.unit == "bytes" else (1, self.unit)
        budget = "" if self.budget is None else f"{self.budget / scale:.3g} {unit}"
        said = "" if self.budget is None else "pass" if self.passed else "MISS"
        return f"{self.what:<34} {self.value / scale:>9.3f} {unit:<3} {budget:>10}  {said}"


class Bench:
    """One browser on one server.

    Args:
        server: the dashboard.
        browser: Playwright's.
        state: the link's parameters.
    """

    def __init__(self, server: Server, browser: Any, state: dict[str, Any]) -> None:
        self.server, self.browser, self.state = server, browser, state
        self.traffic = Traffic()
        self.page = self.new_page()
        self.traffic.watch(self.page)
        self.client = self.page.context.new_cdp_session(self.page)
        self.client.send("Performance.enable", {"timeDomain": "threadTicks"})

    def new_page(self) -> Any:
        """A user of their own: another session, another cache."""
        context = self.browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(60_000)
        context.request.get(self.server.opened_by, max_redirects=1)  # the key, as in the printed address
        return context.new_page()

    def open(self, name: str, page: Any = None) -> float:
        """Seconds from a full address until everything is drawn."""
        page = page or self.page
        start = time.perf_counter()
        page.goto(self.server.address(name, **self.state), wait_until="commit")
        page.wait_for_function(DRAWN, arg=None, polling=20)
        return time.perf_counter() - start

    def begin_change(self, name: str, page: Any) -> None:
        """Choose a page in the menu."""
        page.evaluate(CHANGE, ["/" if name == "overview" else f"/{name}", PAGES_DECLARED[name].title])

    def end_change(self, page: Any) -> float:
        """Seconds the change took."""
        return float(page.wait_for_function("() => window.took", polling=20).json_value())

    def change(self, name: str) -> float:
        """Seconds from choosing a page in the menu until everything on it is drawn."""
        self.begin_change(name, self.page)
        return self.end_change(self.page)

    def cpu_s(self) -> float:
        """Processor seconds of the server and of the page's own thread, so far."""
        told = self.client.send("Performance.getMetrics")["metrics"]
        page = next(m["value"] for m in told if m["name"] == "TaskDuration")
        return self.server.cpu_s() + float(page)

    def rest(self, page: Any = None) -> None:
        """Until nothing runs."""
        (page or self.page).wait_for_function(DRAWN, arg=None, polling=20)

    def pages(self, rounds: int) -> list[Row]:
        """Bytes, reload and change of every page."""
        rows = []
        for name in PAGES:  # first sight: what is computed once is computed here
            self.open(name)
        reloads: dict[str, list[float]] = {name: [] for name in PAGES}
        changes: dict[str, list[float]] = {name: [] for name in PAGES}
        spent: dict[str, list[float]] = {name: [] for name in PAGES}
        sent: dict[str, int] = {}
        for _ in range(rounds):
            for name in PAGES:
                self.page.goto("about:blank")
                self.traffic.reset()
                reloads[name].append(self.open(name))
                self.page.wait_for_timeout(300)
                sent[name] = max(self.traffic.n_bytes, sent.get(name, 0))
        for _ in range(rounds):
            for name in (*PAGES[1:], PAGES[0]):
                before = self.cpu_s()
                changes[name].append(self.change(name))
                spent[name].append(self.cpu_s() - before)
        rows += [Row(f"page {n}", statistics.median(changes[n]), PAGE_S, "s") for n in PAGES]
        rows += [Row(f"cpu {n}", statistics.median(spent[n]), None, "s") for n in PAGES]
        rows += [Row(f"reload {n}", statistics.median(reloads[n]), None, "s") for n in PAGES]
        rows += [Row(f"bytes {n}", sent[n], PAGE_BYTES, "bytes") for n in PAGES]
        return rows

    def clicks(self, n: int) -> tuple[list[float], list[int]]:
        """Seconds from a click on a head to its name in the address, and the server's memory after each."""
        self.open("trajectory")
        rng = np.random.default_rng(1)
        taken, memory = [], []
        for i in range(n):
            name = f"L{rng.integers(SHAPE[0])}H{rng.integers(SHAPE[1])}"
            if self.page.url.find(f"head={name}&") >= 0:
                continue
            taken.append(float(self.page.evaluate(CLICK, name)))
            self.rest()
            memory.append(self.server.resident_bytes())
            if i % 20 == 19:  # now and then another page, as people do
                self.change("head")
                self.change("trajectory")
        return taken, memory

    def users(self, rounds: int) -> tuple[float, bool]:
        """Four users change page at once: the slowest, and whether everybody still saw their own head."""
        pages = [self.new_page() for _ in range(USERS)]
        heads = [f"L{i}H{i}" for i in range(USERS)]
        mine = self.state
        for page, head in zip(pages, heads, strict=True):
            self.state = mine | {"head": head}
            self.open("trajectory", page)
        self.state = mine
        slowest, apart = [], True
        for i in range(rounds):
            for name in ("head", "trajectory") if i % 2 else ("circuit", "trajectory"):
                for page in pages:
                    self.begin_change(name, page)
                slowest.append(max(self.end_change(page) for page in pages))
                apart &= all(f"head={h}" in page.url for page, h in zip(pages, heads, strict=True))
        for page in pages:
            page.context.close()
        return statistics.median(slowest), apart


def first_sight(results: Path, playwright: Any, state: dict[str, Any]) -> list[Row]:
    """Two runs that the server has never looked at: seconds until they are drawn, and the server's processor seconds of it."""
    with tempfile.TemporaryDirectory() as empty, serving(Path(empty)) as server:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        bench = Bench(server, browser, {})
        bench.open("overview")  # the example
        bench.page.goto("about:blank")
        for folder in sorted(results.iterdir()):
            (Path(empty) / folder.name).symlink_to(folder, target_is_directory=True)
        bench.state, before = state, server.cpu_s()
        taken = bench.open("overview")
        spent = server.cpu_s() - before
        assert state["run"] in bench.page.locator("h1").inner_text()
        browser.close()
    cpu = Row("cpu first sight, server", spent, None, "s")
    return [Row("first sight of two runs", taken, FIRST_S, "s"), cpu]


def measure(results: Path, *, rounds: int, interactions: int) -> list[Row]:
    """Every figure."""
    from playwright.sync_api import sync_playwright

    state = {"run": "repeated", "base": "unique", "probe": "prefix_matching", "head": "L5H1"}
    with serving(results) as server, sync_playwright() as playwright:
        first = first_sight(results, playwright, state)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        bench = Bench(server, browser, state)
        rows = pages = bench.pages(rounds)
        bench.clicks(min(WARM_UP, interactions))
        taken, memory = bench.clicks(interactions)
        slowest, apart = bench.users(rounds)
        n = max(1, len(memory) // 10)
        grown = statistics.median(memory[-n:]) - statistics.median(memory[:n])
        rows = [
            *first,
            *pages,
            Row("click to address, median", statistics.median(taken), CLICK_S, "s"),
            Row("click to address, 95 of 100", float(np.quantile(taken, 0.95)), None, "s"),
            Row(f"memory over {len(memory)} interactions", grown, MEMORY_BYTES, "bytes"),
            Row("memory of the server", memory[-1], SERVER_BYTES, "bytes"),
            Row(f"page, slowest of {USERS} users", slowest, USERS * PAGE_S, "s"),
            Row("users who saw another's head", float(not apart), 0, ""),
            Row("hosts asked other than this one", len(bench.traffic.outside), 0, ""),
        ]
        browser.close()
    return rows


def main() -> int:
    """Write the results, measure, print the table; 1 on a miss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=154)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--interactions", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="write the results here and use them again next time")
    asked = parser.parse_args()
    if not Path(CHROMIUM).exists():
        print(f"skipped: no browser at {CHROMIUM}")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        results = (asked.keep or Path(temporary)) / "results"
        steps = pythia_steps(asked.steps)
        for name, late, kind in (("unique", 1.0, "unique"), ("repeated", 4.0, "repeated")):
            if not (results / name / "arrays").is_dir():
                write_run(results, name, steps, late=late, kind=kind)
        print(
            f"{len(steps)} steps x {SHAPE[0] * SHAPE[1]:,} heads x {len(PROBES)} probes, two runs; load {os.getloadavg()[0]:.1f}"
        )
        rows = measure(results, rounds=asked.rounds, interactions=asked.interactions)
    print(f"{'figure':<34} {'measured':>13} {'budget':>10}")
    print("\n".join(map(str, rows)))
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
