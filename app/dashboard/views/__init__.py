"""The pages, in the order of the menu. Each module has TITLE, ICON and draw(view, page)."""

from __future__ import annotations

from byrote.dashboard.views import circuit, compare, head, memory, overview, runs, trajectory

VIEWS = {
    "overview": overview,
    "trajectory": trajectory,
    "head": head,
    "circuit": circuit,
    "compare": compare,
    "memory": memory,
    "runs": runs,
}
