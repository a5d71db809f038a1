"""The objects of a NumPy object array, out of its pickle, without unpickling it.

Unpickling runs any code that a file names. This module reads the opcodes as data, with `pickletools.genops`, and
follows only the few that arrays, numbers and text need. It calls nothing that the file names: the names that arrays
need are known and handled here, and any other is refused.

Objects are handed out as they are met, and what they were made of is forgotten: a file of 12 GB takes the memory of
one image. ``pickle.Unpickler`` would keep every array's bytes until the end.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

LARGEST = 1 << 30  # bytes in one item: two million SIFT descriptors as float32
LONGEST_LINE = 1024
DEEPEST_STACK = 10_000  # pickles write lists a thousand items at a time
MOST_NOTES = 1_000_000  # memoized values, which a later opcode may refer to

_NAMES = {
    "numpy._core.multiarray _reconstruct": "reconstruct",
    "numpy.core.multiarray _reconstruct": "reconstruct",
    "numpy._core.multiarray scalar": "scalar",
    "numpy.core.multiarray scalar": "scalar",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    # how protocol 2 spells bytes, which Python 2 had no word for
    "_codecs encode": "encode",
    "__builtin__ bytes": "bytes",
}
_DTYPES = re.compile(r"O[48]?|[fiu][1248]|[US]\d{1,6}")
LONGEST_NOTE = 4096  # characters of a text that may be referred to: a filename, and not the bytes of an array


class NotPlain(ValueError):
    """The pickle holds something other than arrays, numbers and text, or is damaged."""


class Readable(Protocol):
    """A binary file."""

    def read(self, n: int, /) -> bytes:
        """Return at most ``n`` bytes."""
        ...

    def readline(self, limit: int, /) -> bytes:
        """Return at most ``limit`` bytes, up to the end of the line."""
        ...


class Bounded:
    """A file that is never asked for more bytes than it can hold, whatever lengths it claims."""

    def __init__(self, file: Readable, size: int) -> None:
        """Take a file of ``size`` bytes."""
        self._file, self._limit = file, min(size, LARGEST)

    def read(self, n: int) -> bytes:
        """Return at most ``n`` bytes.

        Raises:
            NotPlain: the file can't hold so many, or they are too many.
        """
        if not 0 <= n <= self._limit:
            raise NotPlain(f"it claims an item of {n:,} bytes")
        return self._file.read(n)

    def readline(self) -> bytes:
        """Return the rest of a line, which is a short name."""
        return self._file.readline(LONGEST_LINE)


class _Name:
    """One of the names that a pickle of an array needs."""

    def __init__(self, meaning: str) -> None:
        self.meaning = meaning


class _Dtype:
    """A dtype, of which the byte order follows later."""

    def __init__(self, text: str) -> None:
        self.value = np.dtype(text)


class _Array:
    """An array, of which the values follow later."""

    values: NDArray[Any] | None = None


class Empty:
    """An empty list among the objects."""


_MARK = object()
_ITEMS = object()  # the list of the outer array's objects, which are handed out and not kept


def read_objects(file: Bounded, shape: tuple[int, ...]) -> Iterator[Any]:
    """Yield the objects of a pickled object array, in C order: None, text, bytes, a number, an array, or `Empty`.

    Args:
        file: at the beginning of the pickle.
        shape: of the array, as its header has it.

    Raises:
        NotPlain: it holds anything else, is damaged, or is not of this shape.
    """
    machine, count = _Machine(shape), 0
    try:
        for opcode, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
            machine.step(opcode.name, argument)
            count += len(machine.out)
            yield from machine.out
            machine.out.clear()
    except (IndexError, TypeError) as error:
        raise NotPlain("its pickle makes no sense") from error
    if not machine.finished or count != _product(shape):
        raise NotPlain(f"it holds {count:,} objects, and its header says {_product(shape):,}")


class _Machine:
    """Follows a pickle's instructions on a stack, as far as arrays need them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.out: list[Any] = []
        self.finished = False
        self._shape = shape
        self._stack: list[Any] = []
        self._notes: dict[int, Any] = {}  # pickle's memo
        self._n_notes = 0
        self._items_at: int | None = None  # where on the stack the list of objects is
        self._acts: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(("PROTO", "FRAME"), lambda _: None),
            "NONE": lambda _: self._push(None),
            "NEWTRUE": lambda _: self._push(True),
            "NEWFALSE": lambda _: self._push(False),
            **dict.fromkeys(_VALUES, self._push),
            **dict.fromkeys(("MEMOIZE", "BINPUT", "LONG_BINPUT"), self._note),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), self._recall),
            "EMPTY_TUPLE": lambda _: self._push(()),
            "TUPLE1": lambda _: self._tuple(1),
            "TUPLE2": lambda _: self._tuple(2),
            "TUPLE3": lambda _: self._tuple(3),
            "MARK": lambda _: self._push(_MARK),
            "TUPLE": lambda _: self._push(tuple(self._pop_to_mark())),
            "EMPTY_LIST": self._begin_items,
            "APPEND": self._append,
            "APPENDS": self._appends,
            "GLOBAL": self._name,
            "STACK_GLOBAL": self._stack_name,
            "REDUCE": self._reduce,
            "BUILD": self._build,
            "STOP": self._stop,
        }

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        if name not in self._acts:
            raise NotPlain(f"its pickle has the instruction {name}, which no array needs")
        if name not in _MEMO_OPCODES:
            self._refuse_to_fill(name)
            self._hand_out_early()
        self._acts[name](argument)

    def _refuse_to_fill(self, name: str) -> None:
        """Refuse what would go into a list among the objects that was empty so far."""
        if self._stack and isinstance(self._stack[-1], Empty):
            alone = self._stack[-2:-1] == [_ITEMS]  # the outer list's last item, which is appended by itself
            if name == "MARK" or (alone and name != "APPEND"):
                raise NotPlain("it holds lists")

    def _hand_out_early(self) -> None:
        # What stands right after the list's beginning is complete: it need not wait for the other 999.
        if self._items_at is None:
            return
        above = self._stack[self._items_at + 1 :] if len(self._stack) <= self._items_at + 3 else ()
        item = above[-1] if above and (len(above) == 1 or above[0] is _MARK) else _MARK
        if item is None or isinstance(item, Empty) or (isinstance(item, _Array) and item.values is not None):
            self.out.append(_value(self._stack.pop()))

    def _push(self, value: Any) -> None:
        if len(self._stack) >= DEEPEST_STACK:
            raise NotPlain("its pickle piles up more than arrays need")
        self._stack.append(value)

    def _pop_to_mark(self) -> list[Any]:
        found: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            found.append(value)
        return found[::-1]

    def _tuple(self, n: int) -> None:
        values = tuple(self._stack[-n:])
        if len(values) < n:
            raise IndexError
        del self._stack[-n:]
        self._push(values)

    def _note(self, number: int | None) -> None:
        value = self._stack[-1]
        if len(self._notes) < MOST_NOTES and _is_light(value):
            self._notes[self._n_notes if number is None else number] = value
        self._n_notes += 1

    def _recall(self, number: int) -> None:
        if number not in self._notes:
            raise NotPlain("one array stands in it twice")
        self._push(self._notes[number])

    def _begin_items(self, _: Any) -> None:
        if self._items_at is not None:
            self._push(Empty())
            return
        self._items_at = len(self._stack)
        self._push(_ITEMS)

    def _append(self, _: Any) -> None:
        if self._stack[-1] is not _ITEMS:  # else it was handed out early
            self.out.append(_value(self._stack.pop()))
        self._expect_items()

    def _appends(self, _: Any) -> None:
        self.out.extend(map(_value, self._pop_to_mark()))
        self._expect_items()

    def _expect_items(self) -> None:
        if self._stack[-1] is not _ITEMS:
            raise NotPlain("it holds lists")

    def _name(self, written: str) -> None:
        if written not in _NAMES:
            raise NotPlain(f"it names {'.'.join(written.split(' ', 1))}, and may name nothing but NumPy arrays")
        self._push(_Name(_NAMES[written]))

    def _stack_name(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name(f"{module} {name}")

    def _reduce(self, _: Any) -> None:
        arguments, callee = self._stack.pop(), self._stack.pop()
        meaning = callee.meaning if isinstance(callee, _Name) else ""
        match meaning, arguments:
            case "reconstruct", (_Name(meaning="ndarray"), (0,), b"b"):
                self._push(_Array())
            case "dtype", (str(text), 0, 1) if _DTYPES.fullmatch(text):
                self._push(_Dtype(text))
            case "encode", (str(text), "latin1"):
                self._push(text.encode("latin1"))
            case "bytes", ():
                self._push(b"")
            case "scalar", (_Dtype(value=dtype), bytes(raw)) if dtype.kind != "O" and 0 < dtype.itemsize == len(raw):
                self._push(np.frombuffer(raw, dtype)[0].item())
            case _:
                raise NotPlain("it makes something that is not a plain array")

    def _build(self, _: Any) -> None:
        state, built = self._stack.pop(), self._stack[-1]
        match built, state:
            case _Dtype(), (3, ("<" | ">" | "=" | "|") as order, None, None, None, int(), int(), int()):
                built.value = built.value.newbyteorder(order)
            case _Array(values=None), (1, shape, _Dtype(value=dtype), _, items) if items is _ITEMS:
                if shape != self._shape or dtype.kind != "O" or len(self._stack) != 1:
                    raise NotPlain(f"its header says {self._shape}, and its pickle {shape}")
                built.values, self._items_at = np.empty(0), None
            case _Array(values=None), (1, tuple(shape), _Dtype(value=dtype), fortran, bytes(raw)) if dtype.kind != "O":
                if not all(isinstance(n, int) and n >= 0 for n in shape) or _product(shape) * dtype.itemsize != len(
                    raw
                ):
                    raise NotPlain("the size of one of its arrays is wrong")
                built.values = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
            case _:
                raise NotPlain("it makes something that is not a plain array")

    def _stop(self, _: Any) -> None:
        self.finished = len(self._stack) == 1 and isinstance(self._stack[0], _Array)


_VALUES = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
)
_MEMO_OPCODES = frozenset({"MEMOIZE", "BINPUT", "LONG_BINPUT", "FRAME"})


def _value(item: Any) -> Any:
    if isinstance(item, _Array) and item.values is not None:
        return item.values
    if item is None or isinstance(item, (str, bytes, float, int, Empty)):
        return item
    raise NotPlain(f"it holds a {type(item).__name__.lstrip('_').lower()} among its objects")


def _is_light(value: Any, depth: int = 0) -> bool:
    """Whether a value may be kept: nothing that holds the bytes of an array."""
    if isinstance(value, tuple):
        return depth < 2 and all(_is_light(part, depth + 1) for part in value)
    if isinstance(value, (str, bytes)):
        return len(value) <= LONGEST_NOTE
    return value is None or isinstance(value, (_Name, _Dtype, Empty, int))


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for n in shape:
        product *= n
    return product
