"""Images that are broken, or merely unusual, made from nothing: bytes by file name."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

# What read_image says of the files that are no images, under whatever limit and policy.
NOT_IMAGES: dict[str, bytes] = {
    "empty.jpg": b"",
    "newline.png": b"\n",
    "pointer.png": LFS_POINTER,
    "page.jpg": b"<!DOCTYPE html>\n<html><body>404</body></html>",
    "text.jpg": b"filename,subset\na.jpg,train\n",
    "random.jpg": np.random.default_rng(0).bytes(5000),
    "markers_only.jpg": b"\xff\xd8\xff\xd9",
    "bad_chunks.png": b"\x89PNG\r\n\x1a\n" + np.random.default_rng(1).bytes(200),
}


def picture(width: int = 160, height: int = 120, seed: int = 0) -> NDArray[np.uint8]:
    """Blobs at several scales, BGR: something that SIFT finds keypoints in and that no format compresses to nothing."""
    rng = np.random.default_rng(seed)
    layers = [rng.uniform(0, 255, (max(height // s, 2), max(width // s, 2), 3)).astype(np.float32) for s in (2, 8, 32)]
    total = np.zeros((height, width, 3))
    for layer in layers:
        total += cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total / len(layers), 0, 255).astype(np.uint8)


def encoded(extension: str, pixels: NDArray[Any], *flags: int) -> bytes:
    """The pixels as OpenCV writes them."""
    ok, data = cv2.imencode(extension, pixels, list(flags))
    assert ok
    return data.tobytes()


def saved(kind: str, image: Image.Image, **options: Any) -> bytes:
    """The image as Pillow writes it."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@cache
def cuttable() -> dict[str, bytes]:
    """One file of every kind that OpenCV reads and that ends at the end of its picture."""
    bgr = picture()
    image = Image.fromarray(bgr[:, :, ::-1].copy())
    return {
        "baseline.jpg": saved("JPEG", image),
        "progressive.jpg": saved("JPEG", image, progressive=True),
        "restart.jpg": encoded(".jpg", bgr, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        "thumbnail.jpg": with_thumbnail(saved("JPEG", image), saved("JPEG", image.resize((40, 30)))),
        "cmyk.jpg": saved("JPEG", image.convert("CMYK")),
        "plain.png": saved("PNG", image),
        "animated.png": saved("PNG", image, save_all=True, append_images=[image.rotate(180)]),
        "raw.tif": saved("TIFF", image),
        "lzw.tif": saved("TIFF", image, compression="tiff_lzw"),
        "plain.bmp": saved("BMP", image),
        "plain.gif": saved("GIF", image.quantize(64)),
        "lossy.webp": saved("WEBP", image),
        "lossless.webp": saved("WEBP", image, lossless=True),
        "plain.jp2": encoded(".jp2", bgr),
        "plain.ppm": saved("PPM", image),
    }


@cache
def unusual() -> dict[str, bytes]:
    """Whole files that are read like any other, though something about them is odd."""
    bgr = picture()
    image = Image.fromarray(bgr[:, :, ::-1].copy())
    turned = image.getexif()
    turned[0x0112] = 6  # orientation: rotate by 90 degrees
    others = [image.rotate(180), image.rotate(90)]
    jpeg = saved("JPEG", image)
    return {
        "two_pictures.jpg": saved("MPO", image, save_all=True, append_images=others[:1]),
        "garbage_behind.jpg": jpeg + b"\0" * 3000 + b"garbage",
        "grey.jpg": saved("JPEG", image.convert("L")),
        "rotated.jpg": saved("JPEG", image, exif=turned),
        "rotated.png": saved("PNG", image, exif=turned),
        "rotated.webp": saved("WEBP", image, exif=turned),
        "16bit.png": encoded(".png", bgr.astype(np.uint16) * 257),
        "16bit.tif": encoded(".tif", bgr.astype(np.uint16) * 257),
        "alpha.png": saved("PNG", image.convert("RGBA")),
        "palette.png": saved("PNG", image.quantize(16)),
        "animated.gif": saved("GIF", image, save_all=True, append_images=others),
        "animated.webp": saved("WEBP", image, save_all=True, append_images=others),
        "hidden_first.png": saved("PNG", image, save_all=True, append_images=others, default_image=True),
        "radiance.hdr": encoded(".hdr", bgr.astype(np.float32) / 255),
        "jpeg_inside.png": jpeg,
        "no_extension": jpeg,
        "картина 1.jpg": jpeg,
        "1x1.png": saved("PNG", Image.new("RGB", (1, 1))),
    }


def cuts(data: bytes) -> dict[str, bytes]:
    """The file, cut at every tenth and a few bytes before its end."""
    tenths = {f"{10 * tenth}%": data[: len(data) * tenth // 10] for tenth in range(1, 10)}
    return tenths | {f"-{count}": data[:-count] for count in (20, 3, 2, 1)}


def hollow(jpeg: bytes) -> dict[str, bytes]:
    """The JPEG with half of its picture gone and its end marker in place."""
    middle = len(jpeg) // 2
    hole = bytes(len(jpeg) - middle - 2)  # as of a download in parts of which one is absent
    return {"closed": jpeg[:middle] + b"\xff\xd9", "hole": jpeg[:middle] + hole + b"\xff\xd9"}


def bomb_png(width: int, height: int, *, text: bytes = b"") -> bytes:
    """A few bytes that promise width x height pixels; ``text`` goes into a compressed text chunk before them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text)) if text else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(min(height * (3 * width + 1), 10_000))))
    return b"\x89PNG\r\n\x1a\n" + header + comment + pixels + chunk(b"IEND", b"")


def bombs(width: int = 30_000, height: int = 30_000) -> dict[str, bytes]:
    """Small files whose headers promise width x height pixels."""
    gif = bytearray(saved("GIF", Image.new("P", (8, 8))))
    gif[6:10] = struct.pack("<HH", width, height)
    bmp = bytearray(encoded(".bmp", picture(8, 8)))
    bmp[18:26] = struct.pack("<ii", width, height)
    jpeg = bytearray(encoded(".jpg", picture(8, 8)))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return {
        "bomb.png": bomb_png(width, height),
        "bomb_with_text.png": bomb_png(width, height, text=bytes(2_000_000)),
        "bomb.gif": bytes(gif),
        "bomb.bmp": bytes(bmp),
        "bomb.jpg": bytes(jpeg),
        "bomb.ppm": b"P6\n%d %d\n255\n" % (width, height) + bytes(100),
        "bomb.hdr": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (height, width) + bytes(100),
    }


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """The JPEG with another one, end marker and all, in its EXIF segment."""
    at = 8 + 6 + 2 + 2 * 12 + 4
    entries = struct.pack("<HHIIHHII", 0x201, 4, 1, at, 0x202, 4, 1, len(thumbnail))
    tiff = b"II*\0" + struct.pack("<IHIH", 8, 0, 14, 2) + entries + struct.pack("<I", 0) + thumbnail
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
