"""The pages, in the order of the menu. To add one, see CONTRIBUTING.md."""

from __future__ import annotations

from byrote.dashboard.page import Page
from byrote.dashboard.views import circuit, compare, dose, head, memory, overview, runs, trajectory

PAGES: dict[str, Page] = {
    module.PAGE.name: module.PAGE
    for module in (overview, trajectory, head, circuit, compare, dose, memory, runs)
}
