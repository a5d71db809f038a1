"""Decoder warnings: which of them mean that part of the picture is lost, and which are harmless.

Each line of `LOST` is a pattern of warnings, and why they mean that pixels are made up. All other warnings are
harmless: colour profiles and other metadata, extra bytes, later frames of an animation. The patterns work in both
Python and DuckDB, since old rows are judged by the warnings that they recorded.
"""

from __future__ import annotations

import re

from featurestore.rows import Status

LOST = (
    # libjpeg's warnings (jerror.h); inside of TIFF they begin with "JPEGLib: "
    (r"premature end of data segment", "a marker stands in the middle of the picture; the rest of it is grey"),
    (r"Premature end of JPEG (file|data)", "the file ends in the middle of the picture; the rest of it is grey"),
    (r"bad (Huffman|arithmetic) code", "what follows is decoded from the wrong bit on"),
    (r"found marker 0x[0-9a-f]{2} instead of RST", "whole rows of blocks are gone"),
    (r"Inconsistent progression sequence", "a scan that refines the picture is gone"),
    # Before a marker of the header (0xdb, 0xe1, ...) bytes are superfluous. Behind picture data they are picture data
    # that was not decoded, since something before them was decoded wrongly.
    (r"extraneous bytes before marker 0x([0-9ab].|c4|d[0-8acef]|f[0-9a-df])", "left over between rows or scans"),
    (r"([89]|[0-9]{2,}) extraneous bytes before marker 0xd9", "left over at the end, and more than pads to a word"),
    # libtiff: strips and tiles that are short, unreadable or undecodable stay black
    (r"Not enough data (at|for) (scanline|row)|due to lack of data", "the data of a strip ends early"),
    (r"Decoding error at scanline|cannot be read due to previous error", "a strip can't be unpacked"),
    (r"Using code not yet in table|Corrupted LZW table|Wrong length of decoded string", "a strip can't be unpacked"),
    (r"(Read|Seek) error (at|on) (scanline|row|strip)", "a strip is not in the file"),
    (r"Invalid data for scanline|Unable to decode WebP data|lerc_decode.. failed", "a strip can't be unpacked"),
    (r"Fax[34]\w*: (Bad code word|Premature EO|Uncompressed data|Line length mismatch)", "a line of a fax is wrong"),
    (r"Fax[34]\w*: (End of file|Bad line length)", "lines of a fax are gone"),
    # libpng, where it goes on
    (r"IDAT: (CRC error|[Ii]ncorrect|[Ii]nvalid|[Nn]ot enough|[Tt]runcated)", "the picture's data is not what it was"),
    # OpenJPEG
    (r"segment too long|PTERM check failure|Bad segmentation symbol", "a code block is wrong"),
    (r"Failed to decode component|Stream does not end with EOC", "the code stream ends early"),
)
_PATTERN = "|".join(f"({pattern})" for pattern, _ in LOST)
_LOST = re.compile(_PATTERN)
KEPT = "{}, kept: "  # the beginning of the message of a lossy picture that was used, after the status that refuses it

# SQL that is true for rows of usable images of which part of the picture is lost, as far as their messages tell.
LOSSY_SQL = " OR ".join(
    [
        *(f"error LIKE '{KEPT.format(status)[:-1]}%'" for status in (Status.TRUNCATED, Status.DAMAGED)),
        f"regexp_matches(error, '{_PATTERN}')",
    ]
)


# SQL that is true for rows without a picture of files of which part could be kept. An explanation in brackets says that
# the decoder was asked to keep it, and gave none.
KEEPABLE_SQL = f"status = '{Status.DAMAGED}' OR (status = '{Status.TRUNCATED}' AND coalesce(error, '') NOT LIKE '%)')"
ENDS_EARLY = "the file ends before its picture does"


def without_picture(words: str) -> str:
    """Return the message of a file that ends early and of which the decoder, saying ``words``, gives no picture."""
    return f"{ENDS_EARLY} ({words})" if words else ENDS_EARLY


def keeping(status: Status, reason: str) -> str:
    """Return the message of a lossy picture that is used, and would have ``status`` if it were refused."""
    return KEPT.format(status) + reason


def picture_is_lost(words: str) -> bool:
    """Return whether the decoders' warnings mean that part of the picture is made up."""
    return _LOST.search(words) is not None
