"""The site: `make docs` builds it from the pages as they are read on GitHub.

The pages are plain Markdown. What only a site can show is added here while Sphinx reads them: the navigation, the texts
that lie above this folder, signatures and docstrings, notebooks as pages.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
# Caption -> pages by glob, in order. A pattern that matches nothing is left out; tests/test_documents.py requires that every
# page is matched once.
NAVIGATION = {
    "Start": [
        "install", "tutorials/README", "tutorials/first-run", "tutorials/your-trainer-run", "tutorials/unique-against-repeated",
        "tutorials/memorisation",
    ],
    "How to": [
        "howto/README", "howto/callback", "howto/watch", "howto/trackers", "howto/gate", "howto/odd-layouts", "howto/live-model",
        "howto/members", "howto/own-probe", "howto/own-stimulus", "howto/seeds", "howto/clusters", "howto/data-frames",
    ],
    "Notebooks": ["notebooks/*"],
    "Explanation": [
        "numbers", "trust", "limits", "statistics", "calibration", "memory", "lab", "claims", "case-studies/*", "comparison",
    ],
    "Reference": [
        "cli", "api", "probes/README", "degradation/README", "formats", "architectures", "results", "gate", "settings",
        "training", "watch", "scale", "lint", "text", "plugins", "dashboard", "figures", "speed",
    ],
    "More": [
        "gallery", "faq", "troubleshooting", "glossary", "architecture", "decisions/README", "contributing",
        "security", "releases", "citation",
    ],
}  # fmt: skip
# Pages that list a folder of others.
LISTED = {"probes/README": "*", "degradation/README": "*", "decisions/README": "0*"}
ABOVE = {
    "CHANGELOG.md": "releases.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CITATION.cff": "citation.md",
    "README.md": "index.md",
}
_INCLUDED = re.compile(r"^<!-- the text of \.\./(\S+) -->$", re.MULTILINE)

project = "byrote"
author = "The byrote authors"
copyright = "2026, The byrote authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "byrote"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sphinx = False
html_use_index = False  # the API page lists every name, and the search finds them
smartquotes_action = "q"  # quotation marks alone: --every in a sentence keeps its dashes
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"font-stack": "system-ui, sans-serif", "code-font-size": "0.75rem"},
    "footer_icons": [],
}

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
default_role = "code"
autodoc_mock_imports = ["lightning"]
pygments_style = "a11y-high-contrast-light"  # of accessible-pygments, which Furo brings
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
napoleon_numpy_docstring = False
napoleon_use_rtype = False
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # importing for docstrings reaches nothing


def navigation() -> str:
    """The directives of the first page."""
    return "".join(_listing(pages, caption) for caption, pages in NAVIGATION.items())


def _listing(patterns: list[str], caption: str = "", folder: Path = DOCS) -> str:
    """The directive that lists what patterns match."""
    pages = [
        page.relative_to(folder).with_suffix("").as_posix()
        for pattern in patterns
        for suffix in (".md", ".ipynb")
        for page in sorted(folder.glob(pattern + suffix))
        if pattern != "*" or page.stem != "README"
    ]
    head = [f":caption: {caption}"] if caption else []
    return "\n".join(["", "```{toctree}", ":hidden:", *head, "", *pages, "```", ""])


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add to a page what GitHub does not show."""
    text = _INCLUDED.sub(lambda found: _text_above(found.group(1)), source[0])
    for name, page in ABOVE.items():
        depth = docname.count("/")
        text = re.sub(
            rf"\]\({'../' * (depth + 1)}{re.escape(name)}(?=[#)])", f"]({'../' * depth}{page}", text
        )
    if docname == "index":
        text += navigation()
    if docname == "api":
        text += signatures()
    if docname in LISTED:
        text += _listing([LISTED[docname]], folder=(DOCS / docname).parent)
    source[0] = text


def signatures() -> str:
    """Directives that show what the tables of the API name, with signature and docstring."""
    import byrote as br
    from byrote import integrations

    parts = ["\n## Signatures and docstrings\n"]
    shown = {"__version__", "degrade", "figures"}
    for prefix, module, names in (
        ("byrote", br, br.__all__),
        ("byrote.figures", br.figures, br.figures.__all__),
        ("byrote.integrations", integrations, integrations.__all__),
        ("byrote.degrade", br.degrade, br.degrade.__all__),
    ):
        parts.append(f"\n### {prefix}\n\n```{{eval-rst}}\n.. currentmodule:: {module.__name__}\n")
        for name in names:
            if name in shown:
                continue
            shown.add(name)
            kind = "exception" if name.endswith("Error") else "class" if name[0].isupper() else "function"
            members = "\n   :members:\n" if kind == "class" else "\n"
            parts.append(f".. auto{kind}:: {name}{members}")
        parts.append("```\n")
    return "\n".join(parts)


def _text_above(name: str) -> str:
    """A file of the repository's first folder, without its title, its links as seen from here."""
    text = (DOCS.parent / name).read_text(encoding="utf-8")
    if not name.endswith(".md"):
        return f"```yaml\n{text}```"
    text = text.split("\n", 1)[1]
    text = text.replace("](docs/", "](")
    return re.sub(r"\]\((?!https?:|#)(\w+\.\w+)(?=[#)])", lambda m: f"]({ABOVE.get(m[1], m[1])}", text)


def finish(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """Make a list of each signature of several lines, which Sphinx writes as definitions without a term; let a long `a|b_c/d` break.

    Between a parameter and what it is, where Sphinx writes two hyphens for a dash, stands a colon.
    """
    body = re.sub(
        r"<dl>\n(<dd>.*?)</dl>",
        lambda found: (
            f'<ul class="parameters">\n{found[1].replace("<dd>", "<li>").replace("</dd>", "</li>")}</ul>'
        ),
        context.get("body", "").replace(" -- ", ": "),
        flags=re.DOTALL,
    )
    context["body"] = re.sub(
        '(<span class="pre">)([^<]+)',
        lambda found: found[1] + re.sub("(?<=[|_/])(?=[^|_/])", "<wbr>", found[2]),
        body,
    )


def without_factories(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returns: Any
) -> Any:
    """A default made by a function is not Python, and Sphinx would set the whole signature as plain text."""
    return (
        (signature.replace("<factory>", "..."), returns) if signature and "<factory>" in signature else None
    )


class NotebookParser(MystParser):
    """A notebook as a page: its texts, and its code as blocks."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse the cells as Markdown."""
        parts = []
        for cell in json.loads(inputstring)["cells"]:
            text = "".join(cell["source"])
            parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        super().parse("\n\n".join(parts), document)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", read)
    app.connect("html-page-context", finish)
    app.connect("autodoc-process-signature", without_factories)
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True}
