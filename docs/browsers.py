"""The browsers that can look at pages without a screen, for the pictures of the documentation and for tests."""

from __future__ import annotations

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ABSENT = f"there is no {', '.join(BROWSERS)} on the path"


def find_browser() -> str | None:
    """Return the program of the first browser that is installed; None if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)
