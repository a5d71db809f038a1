"""The example of ``docs/plugins.md``, as a reader would type it: a package with an extractor, and its tests."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.warm import run_warm

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "plugins.md").read_text("utf-8")


def code_with(text: str) -> str:
    """The one block of Python on the page that has some text."""
    (found,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if text in block)
    return str(found)


def test_the_extractor_of_the_page_keeps_to_its_contract(tmp_path: Path) -> None:
    (tmp_path / "my_package.py").write_text(code_with("class Corners"), "utf-8")
    (tmp_path / "test_corners.py").write_text(code_with("ExtractorContract"), "utf-8")
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[featurestore.extractors]\ncorners = my_package:Corners\n", "utf-8")
    path = os.pathsep.join(map(str, [tmp_path, ROOT]))
    options = ("-q", "-p", "no:cacheprovider", "-c", os.devnull)
    done = run_warm("pytest", *options, tmp_path, environment={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
