"""Names shared by the process that starts the server and the pages it runs."""

from __future__ import annotations

PATHS_VARIABLE = "ROTE_DASHBOARD_PATHS"
