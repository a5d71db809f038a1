"""Draw the pictures in ``docs/images`` from the sample images: ``make pictures``."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image

from featurestore import FeatureStore
from featurestore.cli.samples import make_samples
from featurestore.drawing import Picture

FOLDER = Path(__file__).parent / "images"
COLOURS = 96  # of a PNG's palette, which makes a photograph a third as large
WHOLE, PART = "china/whole-000.jpg", "china/left-090.jpg"


def pictures(scratch: Path) -> dict[str, Picture]:
    """Return each picture by the name of its file."""
    dataset = make_samples(scratch / "images")
    store = FeatureStore.create(scratch / "store", images=scratch / "images", dataset=dataset)
    store.run()
    return {
        "show.png": store.show(WHOLE, longest=420),
        "match.png": store.show_match(PART, WHOLE, longest=360),
    }


def as_png(picture: Picture) -> bytes:
    """Return a picture as PNG with a palette."""
    image = Image.fromarray(picture.pixels[:, :, ::-1]).quantize(COLOURS, dither=Image.Dither.NONE)
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()


def main() -> None:
    """Write the pictures."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="featurestore-pictures-") as scratch:
        for name, picture in pictures(Path(scratch)).items():
            (FOLDER / name).write_bytes(as_png(picture))
            print(f"{FOLDER / name}: {picture.title}")


if __name__ == "__main__":
    main()
