"""Results to one self-contained HTML file, the same content as JSON, and every observation as CSV. No torch."""

from __future__ import annotations

from byrote.report.files import ReportFiles as ReportFiles
from byrote.report.files import build_report as build_report
