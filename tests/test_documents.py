"""The documents: every page in the navigation, links and anchors that lead somewhere, code that parses; and the site builds."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import reference_pages
from markdown_it import MarkdownIt

import byrote as br
from byrote.probes.results.run_json import FIELDS
from byrote.probes.results.schema import OBSERVATION_SCHEMA

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")])
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@cache
def text_of(page: Path) -> str:
    """Markdown of a page; of a notebook, of its text cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@cache
def anchors(page: Path) -> frozenset[str]:
    """Anchors of a page's headings, by GitHub's rule, which the site follows too."""
    seen: Counter[str] = Counter()
    found = []
    tokens = MarkdownIt().parse(text_of(page))
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            words = "".join(
                part.content for part in inline.children or () if part.type in ("text", "code_inline")
            )
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            found.append(slug + (f"-{seen[slug]}" if seen[slug] else ""))
            seen[slug] += 1
    return frozenset(found)


def links(page: Path) -> Iterator[str]:
    """Targets of links and images of a page that lie in this repository."""
    for token in MarkdownIt().enable("table").parse(text_of(page)):
        for part in token.children or ():
            target = str(part.attrGet("href") or part.attrGet("src") or "")
            if target and not re.match(r"[a-z]+:", target):
                yield target


def lost_links(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    lost = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    return lost


def settings_of_site() -> dict[str, object]:
    """Constants of docs/conf.py, read without Sphinx."""
    found = {}
    for node in ast.parse((DOCS / "conf.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    site = settings_of_site()
    patterns = [pattern for listed in site["NAVIGATION"].values() for pattern in listed]
    patterns += [f"{page.rpartition('/')[0]}/{pattern}" for page, pattern in site["LISTED"].items()]
    listed = Counter(
        file.relative_to(DOCS).with_suffix("").as_posix()
        for pattern in patterns
        for suffix in (".md", ".ipynb")
        for file in DOCS.glob(pattern + suffix)
        if not pattern.endswith("/*") or file.stem != "README"
    )
    assert {name for name, times in listed.items() if times > 1} == set()
    assert {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES} - set(listed) == {"index"}


def test_links_and_anchors_lead_somewhere() -> None:
    assert {str(page.relative_to(ROOT)): lost for page in [*TOP, *PAGES] if (lost := lost_links(page))} == {}


def test_a_lost_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# Two words: `code`\n\n## Again\n\n## Again\n")
    page = tmp_path / "a.md"
    page.write_text(
        "[x](b.md#two-words-code) [x](b.md#again-1) [x](c.md) ![x](d.png) [x](b.md#again-2) [x](#no)\n"
    )
    assert lost_links(page) == ["c.md", "d.png", "b.md#again-2", "#no"]


def test_code_of_every_page_parses() -> None:
    wrong = []
    for page in [*TOP, *PAGES]:
        for language, code in _FENCED.findall(text_of(page)):
            try:
                if language == "python":
                    compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                elif language == "toml":
                    tomllib.loads(code)
                elif language == "json":
                    json.loads(code)
            except (SyntaxError, ValueError) as error:
                wrong.append(f"{page.relative_to(ROOT)}: {error}: {code[:60]!r}")
    assert wrong == []


def test_the_api_page_has_every_name() -> None:
    named = {name for names in reference_pages.GROUPS.values() for name in names.split()}
    assert named | {"degrade", "figures", "__version__"} == set(br.__all__)
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    assert shown == {
        *(f"br.{name}" for name in named),
        *(f"br.figures.{name}" for name in br.figures.__all__),
        *(f"byrote.integrations.{name}" for name in br.integrations.__all__),
        *(f"br.degrade.{name}" for name in br.degrade.__all__),
    }


@pytest.mark.processes
def test_reference_pages_are_what_the_code_says() -> None:
    say = "run: python tests/reference_pages.py"
    assert (DOCS / "api.md").read_text(encoding="utf-8") == reference_pages.api_page(), say
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == reference_pages.settings_page(), say


def names_in_table(heading: str) -> list[str]:
    """Names in the first column of a table of results.md."""
    table = (DOCS / "results.md").read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def test_the_columns_of_results_are_described() -> None:
    assert names_in_table("Columns") == OBSERVATION_SCHEMA.names


def test_the_fields_of_run_json_are_described() -> None:
    fields = {re.split(r"[.\[{]", name)[0] for name in FIELDS}
    named = names_in_table("run.json")
    assert sorted(named) == sorted(fields | {"seal"})


# What the messages of docs/troubleshooting.md fill in as examples; what is between has to be in the code as it stands there.
FILLED = re.compile(
    r"\.\.\.|'[^']*'|\b[\d.]+\b|[\w/]+\.(?:toml|npy|pt)\b|\b(?:runs|results)/mine\b|^results\b|(?<=in )runs\b|\b(?:with|has) sequences \d+|^byrote(?= has)|"
    r"^a and b\b|^induction(?= was)|\bLitModel\b|\bcuda\b|\btraining members\b|--members FILE|\[tool\.byrote\.run\]"
)
NOT_OURS = {"byrote: command not found", "icl_score", "not measured"}


def lost_messages(page: str) -> list[str]:
    """Messages in the first column of a page's tables of which a part is in no text of the code."""
    said = []
    for file in (
        file
        for folder in ("app", "checkpoints", "interp", "probes")
        for file in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                said.append("".join(p.value if isinstance(p, ast.Constant) else "\0" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
    code = "\1".join(said)
    quotes = [
        quote
        for cell in re.findall(r"^\| (.*?`.+?) \| ", page, re.MULTILINE)
        for quote in re.findall("`(.+?)`", cell)
        if quote not in NOT_OURS
    ]
    return [
        q
        for q in quotes
        if not all(part.strip() in code for part in FILLED.split(q) if len(part.strip()) > 3)
    ]


@pytest.mark.processes  # reads the whole code: a second
def test_messages_of_the_page_of_troubles_are_those_of_the_code() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    assert lost_messages(page + "\n| `no process has all the weights` | a | b |\n") == [
        "no process has all the weights"
    ]


@pytest.mark.processes
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        DOCS,
        tmp_path / "site",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    for name in ("install.html", "cli.html", "api.html", "probes/README.html", "releases.html"):
        assert f'href="{name}"' in home
    assert "://" not in " ".join(re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="([^"]+)"', home))
