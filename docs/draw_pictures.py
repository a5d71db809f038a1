"""Draw the pictures in ``docs/images`` from the sample images: ``make pictures``.

That of the report needs Chromium, and stays as it is where there is none.
"""

from __future__ import annotations

import io
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from docs.browsers import ABSENT, find_browser
from featurestore import FeatureStore
from featurestore.apps import report
from featurestore.cli.samples import make_samples
from featurestore.drawing import Picture

FOLDER = Path(__file__).parent / "images"
COLOURS = 96  # of a PNG's palette, which makes a photograph a third as large
WIDTH, HEIGHT = 860, 1040  # of the report's picture
WHOLE, PART = "china/whole-000.jpg", "china/left-090.jpg"


def finished(scratch: Path) -> FeatureStore:
    """Return a store of the sample images."""
    dataset = make_samples(scratch / "images")
    store = FeatureStore.create(scratch / "store", images=scratch / "images", dataset=dataset)
    store.run()
    return store


def pictures(store: FeatureStore) -> dict[str, Picture]:
    """Return each picture by the name of its file."""
    return {
        "show.png": store.show(WHOLE, longest=420),
        "match.png": store.show_match(PART, WHOLE, longest=360),
    }


def report_picture(store: FeatureStore, scratch: Path) -> Image.Image | None:
    """Return the beginning of the report as a browser shows it; None without a browser."""
    program = find_browser()
    if program is None:
        return None
    page, shot = report(store, scratch / "report.html"), scratch / "report.png"
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--user-data-dir={scratch / 'browser'}"]
    options += [f"--screenshot={shot}", f"--window-size={WIDTH},{HEIGHT}"]
    subprocess.run([program, *options, page.as_uri()], check=True, capture_output=True)
    return Image.open(shot).convert("RGB")


def as_png(image: Image.Image) -> bytes:
    """Return a picture as PNG with a palette."""
    image = image.quantize(COLOURS, dither=Image.Dither.NONE)
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()


def main() -> None:
    """Write the pictures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="featurestore-pictures-") as scratch:
        store = finished(Path(scratch))
        for name, picture in pictures(store).items():
            (FOLDER / name).write_bytes(as_png(Image.fromarray(picture.pixels[:, :, ::-1])))
            print(f"{FOLDER / name}: {picture.title}")
        shown = report_picture(store, Path(scratch))
        if shown is None:
            print(f"{ABSENT}: report.png stays as it is")
        else:
            (FOLDER / "report.png").write_bytes(as_png(shown))
            print(f"{FOLDER / 'report.png'}: the beginning of the report")


if __name__ == "__main__":
    main()
