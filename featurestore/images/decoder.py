"""The decoding process: a child that decodes for a process which belongs to another program.

Decoding redirects stderr and changes other settings of the whole process (see `decoding`). Workers do nothing else, so
they decode themselves. A process that calls `FeatureStore.encode`, or runs without workers, has other threads that
print, so a child process decodes for it. The child receives an image's bytes and returns its pixels, which takes 7 ms
for a megapixel. It ends with its parent.

    request   a header and the file's bytes       header: the arguments of `decoding.judge`, or a path to measure
                                                  (null measures the file's bytes)
    answer    a header and the pixels, if any     header: the `ImageFile`, or the exception

A header is JSON, preceded by its length and the length of the data after it, as `LENGTHS`.
"""

from __future__ import annotations

import atexit
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace
from io import RawIOBase
from typing import Any

from featurestore.images import decoding
from featurestore.images.decoding import ImageFile, Size
from featurestore.rows import Status
from featurestore.system import end_with, ending, environment, python_command

LENGTHS = struct.Struct("<IQ")


class _Here:
    """The decoding of this process."""

    decodes = False  # whether it may decode
    decoder: _Decoder | None = None  # the child that decodes for it, if it may not
    turn = threading.Lock()


def decode_here() -> None:
    """Let this process decode: it is a worker, in which no other thread prints."""
    _Here.decodes = True


def judge(read: ImageFile, data: bytes, max_pixels: int, *, keep: bool) -> ImageFile:
    """Return the result of `decoding.judge`, here or in the child; ``crashed`` if the child died on the image.

    Raises:
        MemoryError: the decoder ran out of memory.
        OSError: no process can be started.
    """
    if _Here.decodes:
        return decoding.judge(read, data, max_pixels, keep=keep)
    request = {"read": asdict(read), "max_pixels": max_pixels, "keep": keep}
    try:
        header, pixels = _ask(request, data)
    except _Died as death:
        return replace(read, status=Status.CRASHED, message=f"the decoder died on this image ({death})")
    found = ImageFile(**{**header["image"], "status": Status(header["image"]["status"])})
    if header["shape"] is None:
        return found
    import numpy as np

    return replace(found, pixels=np.frombuffer(pixels, np.uint8).reshape(header["shape"]))


def size_of(file: str | bytes) -> Size | None:
    """Return the result of `decoding.size_of`, here or in the child; None if the child died on the file."""
    if _Here.decodes:
        return decoding.size_of(file)
    try:
        if isinstance(file, bytes):
            size = _ask({"path": None}, file)[0]["size"]
        else:
            size = _ask({"path": os.path.abspath(file)}, b"")[0]["size"]  # noqa: PTH100 - a path may hold any byte
    except _Died:
        return None
    return None if size is None else (size[0], size[1])


class _Died(Exception):
    """The child ended during a request; the message says how."""


class _Decoder:
    """The child process that decodes."""

    def __init__(self) -> None:
        """Start the child."""
        self._process = subprocess.Popen(
            python_command("featurestore.images.decoder", str(os.getpid())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            bufsize=0,
            process_group=0,  # Ctrl-C is for the parent
        )

    def ask(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytearray]:
        """Return the answer to a request.

        Raises:
            EOFError, BrokenPipeError: the child has ended.
        """
        _send(self._process.stdin, request, data)
        return _receive(self._process.stdout)

    def end(self) -> int:
        """End the child and return its exit code."""
        self._process.kill()
        self.forget()
        return self._process.wait()

    def forget(self) -> None:
        """Close the pipes to the child."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def leave_to_parent(self) -> None:
        """Forget the child in a forked process: it belongs to the parent."""
        self.forget()
        self._process.returncode = 0  # else Popen would wait for a child of another process


def _ask(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytearray]:
    with _Here.turn:
        try:
            try:
                header, rest = _decoder().ask(request, data)
            except (EOFError, BrokenPipeError):  # it may have been killed earlier: try once more with a new one
                _end()
                header, rest = _decoder().ask(request, data)
        except (EOFError, BrokenPipeError) as error:
            raise _Died(ending(_end())) from error
        except BaseException:  # after Ctrl-C, the rest of this answer would be read as the next one
            _end()
            raise
    if "raised" in header:
        raise (MemoryError if header["memory"] else RuntimeError)(header["raised"])
    return header, rest


def _decoder() -> _Decoder:
    if _Here.decoder is None:
        _Here.decoder = _Decoder()
    return _Here.decoder


def _end() -> int:
    decoder, _Here.decoder = _Here.decoder, None
    return 0 if decoder is None else decoder.end()


def _forget_after_fork() -> None:
    decoder, _Here.decoder, _Here.turn = _Here.decoder, None, threading.Lock()
    if decoder is not None:
        decoder.leave_to_parent()


atexit.register(_end)
os.register_at_fork(after_in_child=_forget_after_fork)


def _send(stream: Any, header: dict[str, Any], data: bytes | memoryview) -> None:
    text, rest = json.dumps(header).encode(), memoryview(data).cast("B")
    for part in (memoryview(LENGTHS.pack(len(text), len(rest)) + text), rest):
        while part:
            part = part[stream.write(part) :]


def _receive(stream: Any) -> tuple[dict[str, Any], bytearray]:
    text, rest = LENGTHS.unpack(_exactly(stream, LENGTHS.size))
    header: dict[str, Any] = json.loads(_exactly(stream, text))
    return header, _exactly(stream, rest)


def _exactly(stream: RawIOBase, count: int) -> bytearray:
    found = bytearray(count)
    left = memoryview(found)
    while left:
        read = stream.readinto(left)
        if not read:
            raise EOFError
        left = left[read:]
    return found


def _answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    if "path" in request:
        return {"size": decoding.size_of(data if request["path"] is None else request["path"])}, b""
    found = decoding.judge(ImageFile(**request["read"]), data, request["max_pixels"], keep=request["keep"])
    pixels = found.pixels
    header = {"image": asdict(replace(found, pixels=None)), "shape": None if pixels is None else pixels.shape}
    return header, b"" if pixels is None else pixels.data


def main(arguments: Sequence[str]) -> None:
    """Answer requests from stdin on stdout, until there are no more."""
    import cv2

    end_with(int(arguments[0]))
    requests, answers = open(os.dup(0), "rb", buffering=0), open(os.dup(1), "wb", buffering=0)  # noqa: SIM115, PTH123
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)  # output of libraries must not mix with answers
    cv2.setNumThreads(1)
    while True:
        try:
            request, data = _receive(requests)
        except EOFError:
            os._exit(0)
        try:
            header, rest = _answer(request, bytes(data))
        except Exception as error:
            header, rest = {"raised": str(error), "memory": isinstance(error, MemoryError)}, b""
        _send(answers, header, rest)


if __name__ == "__main__":
    main(sys.argv[1:])
