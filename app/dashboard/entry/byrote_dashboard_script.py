"""Run anew by Streamlit at every click. What is remembered is remembered by the modules it imports."""

from __future__ import annotations

from byrote.dashboard.layout import main

main()
