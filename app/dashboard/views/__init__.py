"""The pages, in the order of the menu. Each module has TITLE, ICON and draw(view, page)."""

from __future__ import annotations

from app.dashboard.views import overview, trajectory

VIEWS = {"overview": overview, "trajectory": trajectory}
