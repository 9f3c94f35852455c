"""Results to one self-contained HTML file, the same content as JSON, and every observation as CSV. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from byrote.checkpoints.lazy import lazily

if TYPE_CHECKING:
    from byrote.report.files import ReportFiles as ReportFiles
    from byrote.report.files import build_report as build_report

SCHEMA = "byrote-report"
SCHEMA_VERSION = 1
_LAZY = {"ReportFiles": "byrote.report.files", "build_report": "byrote.report.files"}
__getattr__, __dir__ = lazily(__name__, _LAZY)
