"""Pictures that share what is not their subject: a frame, the wall behind a canvas, a pattern. All seeded.

A store has one of each family, and the others are queries for which nothing should be found.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

FRAMES, WALLS, PATTERNS = 12, 8, 12  # families of each
SIDES = (500, 900)  # pixels of the longer side


def made(family: int, version: int) -> Pixels:
    """Return a picture of a family, of which each version has another subject.

    Args:
        family: from 0 to 31: those with a frame, those on a wall, those with nothing but a pattern.
        version: 0 is the one of the store.
    """
    if family < FRAMES:
        pixels = framed(family, version)
    elif family < FRAMES + WALLS:
        pixels = on_a_wall(family, version)
    else:
        pixels = patterned(family, version)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def kind_of(family: int) -> str:
    """Return what the pictures of a family share."""
    return "frame" if family < FRAMES else "wall" if family < FRAMES + WALLS else "pattern"


def framed(family: int, version: int) -> Floats:
    """Return a subject in the frame of the family: of one width, with the same grain and the same ornament."""
    rng, own = np.random.default_rng([1, family]), np.random.default_rng([2, family, version])
    width = rng.uniform(0.02, 0.12)  # of the shorter side
    high, wide = int(rng.integers(500, 700)), int(rng.integers(500, 900))
    frame = 60 + 60 * noise(rng, (high, wide), 12) + 40 * noise(rng, (high, wide), 2.5)
    margin = max(4, round(width * min(high, wide)))
    depth = np.minimum.reduce(
        [
            np.arange(high)[:, np.newaxis] + np.zeros(wide, int),
            np.arange(high)[::-1, np.newaxis] + np.zeros(wide, int),
            np.zeros((high, 1), int) + np.arange(wide),
            np.zeros((high, 1), int) + np.arange(wide)[::-1],
        ]
    )
    along = np.add.outer(np.arange(high), np.arange(wide)).astype(np.float32)
    frame += 30 * np.cos(depth * (2 * np.pi / margin)) + 15 * np.sin(along * (2 * np.pi / rng.uniform(9, 30)))
    picture = np.repeat(frame[..., np.newaxis], 3, axis=2) * np.array([0.5, 0.8, 1.0])
    inner = subject(own, high - 2 * margin, wide - 2 * margin)
    picture[margin : high - margin, margin : wide - margin] = inner
    return photographed(picture.astype(np.float32), own)


def on_a_wall(family: int, version: int) -> Floats:
    """Return a canvas with worn edges before the wall of the family, which has its own marks."""
    rng, own = np.random.default_rng([3, family]), np.random.default_rng([4, family, version])
    margin = rng.uniform(0.03, 0.08)
    high, wide = int(rng.integers(500, 700)), int(rng.integers(500, 900))
    wall = 150 + 25 * noise(rng, (high, wide), 30) + 20 * noise(rng, (high, wide), 1.5)
    picture = np.repeat(wall[..., np.newaxis], 3, axis=2).astype(np.float32)
    for _ in range(40):  # marks, nails and a scale
        x, y = int(rng.integers(wide)), int(rng.integers(high))
        colour = rng.uniform(20, 230, 3).tolist()
        cv2.rectangle(picture, (x, y), (x + int(rng.integers(3, 15)), y + int(rng.integers(3, 15))), colour, -1)
    gap = round(margin * min(high, wide))
    canvas = subject(own, high - 2 * gap, wide - 2 * gap)
    weave = 8 * np.sin(np.arange(canvas.shape[0]) * 2.1)[:, np.newaxis] * np.sin(np.arange(canvas.shape[1]) * 2.1)
    worn = noise(own, canvas.shape[:2], 4) * gap / 3 + gap / 4
    edge = np.minimum.reduce([np.indices(canvas.shape[:2])[0], np.indices(canvas.shape[:2])[1]])
    edge = np.minimum(edge, edge[::-1, ::-1])
    inside = picture[gap : high - gap, gap : wide - gap]
    picture[gap : high - gap, gap : wide - gap] = np.where(
        (edge > worn)[..., np.newaxis], canvas + weave[..., np.newaxis], inside
    )
    return photographed(picture, own)


def patterned(family: int, version: int) -> Floats:
    """Return the pattern of the family and nothing else; each version has another phase, size and turn."""
    tile: NDArray[Any]
    rng, own = np.random.default_rng([5, family]), np.random.default_rng([6, family, version])
    unit = int(rng.integers(24, 70))
    form = family % 4
    if form == 0:  # a chessboard
        tile = np.kron(np.array([[230, 30], [30, 230]]), np.ones((unit, unit)))[..., np.newaxis] * np.ones(3)
    elif form == 1:  # bricks
        tile = np.full((2 * unit, 4 * unit, 3), (70.0, 90.0, 170.0))
        tile[:3], tile[unit : unit + 3], tile[:unit, :3], tile[unit:, 2 * unit : 2 * unit + 3] = 200, 200, 200, 200
        tile += 10 * noise(rng, tile.shape[:2], 1.5)[..., np.newaxis]
    elif form == 2:  # a wallpaper, with one motif again and again
        tile = subject(rng, 3 * unit, 3 * unit)
    else:  # a page, whose letters occur on other pages too
        return photographed(page(own, unit), own)
    n = 1 + 1800 // min(tile.shape[:2])
    whole = np.tile(tile, (n, n, 1))[:1800, :1800].astype(np.float32)
    size, turn = own.uniform(0.6, 1.4), own.uniform(-30, 30)
    matrix = cv2.getRotationMatrix2D((900 + own.uniform(-60, 60), 900 + own.uniform(-60, 60)), turn, size)
    matrix[:, 2] -= 900 - 300
    shown = cv2.warpAffine(whole, matrix, (600, 600), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    return photographed(shown.astype(np.float32), own)


def page(rng: np.random.Generator, size: int) -> Floats:
    """Return a page of random letters, all of one font."""
    picture = np.full((700, 560, 3), 235, np.uint8)
    for y in range(size, 700, size):
        line = "".join(map(chr, rng.integers(97, 123, 60)))
        cv2.putText(picture, line, (10, y), cv2.FONT_HERSHEY_COMPLEX, size / 40, (30, 30, 30), 1 + size // 30)
    return picture.astype(np.float32)


def subject(rng: np.random.Generator, high: int, wide: int) -> Floats:
    """Return a picture of nothing in particular: shapes of all sizes before clouds."""
    clouds = [120 + 60 * noise(rng, (high, wide), 40) for _ in range(3)]
    picture = np.ascontiguousarray(np.stack(clouds, axis=2), np.float32)
    longest = max(high, wide)
    for _ in range(150):
        size = longest * 0.005 * 2 ** rng.uniform(0, 5)
        centre = (int(rng.integers(wide)), int(rng.integers(high)))
        axes = (max(1, int(size * rng.uniform(0.3, 1))), max(1, int(size)))
        colour = rng.uniform(0, 255, 3).tolist()
        if rng.random() < 0.5:
            cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 360)), 0, 360, colour, -1, cv2.LINE_AA)
        else:
            corners = (np.array(centre) + rng.uniform(-size, size, (4, 2))).astype(np.int32)
            cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA)
    grain: Floats = 8 * noise(rng, (high, wide), 1.2)[..., np.newaxis]
    return picture + grain


def photographed(picture: Floats, rng: np.random.Generator) -> Floats:
    """Return a picture as another photograph of it shows it: another size and brightness, and grain."""
    scale = rng.uniform(*SIDES) / max(picture.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    shown = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method) * rng.uniform(0.8, 1.15)
    return (shown + rng.normal(0, 2, shown.shape)).astype(np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> Floats:
    """Return smooth noise ``shape`` float32, of which most values are between -1 and 1."""
    smooth = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), (0, 0), sigma)
    return np.asarray(smooth / (2 * smooth.std()), np.float32)
