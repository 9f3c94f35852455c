"""The script that Streamlit runs again at every click; caches are in the modules it imports."""

from __future__ import annotations

from byrote.dashboard.layout import main

main()
