"""docs/images/dashboard_*.png, photographed from the dashboard on the demo's results, in Debian's Chromium.

byrote run runs/demo/unique/d32/seed2 -p induction_circuit -o runs/demo/results
PYTHONPATH=tests:tests/app/dashboard python tests/dashboard_pictures.py runs/demo/results
"""

from __future__ import annotations

import sys
from pathlib import Path

from browsing import chromium, profile, served, visit

IMAGES = Path(__file__).parents[1] / "docs" / "images"
# Name of the picture, which is that of its page, its height in pixels, colours, and the rest of the address.
UNIQUE = {"run": "unique-d32-seed2", "base": "control-d32-seed2", "head": "L1H0", "step": 1000}
PICTURES = (
    ("trajectory", 680, "light", UNIQUE | {"base": "repeated-d32-seed2", "step": 875}),
    ("circuit", 830, "light", UNIQUE),
    ("memory", 820, "light", {"run": "repeated-d32-seed2", "base": "control-d32-seed2", "step": 1000}),
    ("head", 985, "dark", UNIQUE | {"base": ""}),
)


def main(results: Path) -> None:
    """Photograph all of them."""
    with served(results) as site, chromium() as browser:
        for page, height, colours, view in PICTURES:
            size = {"width": 1440, "height": height}
            with (
                profile(browser, viewport=size, color_scheme=colours) as context,
                visit(context, site) as here,
            ):
                here.open(page, **view)
                here.drawn()
                here.tab.wait_for_timeout(1500)  # charts take their final width after the page has its own
                here.tab.screenshot(path=IMAGES / f"dashboard_{page}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
