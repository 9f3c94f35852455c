"""Names shared by the process that starts the server and the pages it runs."""

from __future__ import annotations

PATHS_VARIABLE = "BYROTE_DASHBOARD_PATHS"
