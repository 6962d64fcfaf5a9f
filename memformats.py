# SPDX-FileCopyrightText: 2026 the memformats authors
# SPDX-License-Identifier: MIT
"""Read, explain, check, analyse and write profiling and logging files, in one file of pure Python.

======  ==================  ===============  ==========  =======  =======  ===========  ===========
format  written by          extension        magic       reads    writes   reader       writer
======  ==================  ===============  ==========  =======  =======  ===========  ===========
mlyze   Memlyze, a tracer   .mlyze           ``MTRC``    1        1        MlyzeReader  MlyzeWriter
        of Python memory
======  ==================  ===============  ==========  =======  =======  ===========  ===========

Reading, from a path or a binary file, gzipped or not, one record at a time::

    import memformats
    with memformats.open("trace.mlyze") as reader:      # the format is found by content
        print(reader.header.start_us)
        for record in reader:                           # Alloc, Free, Gc, Marker
            print(record)
        print(reader.problems)                          # what the file does that it should not

Writing::

    with memformats.MlyzeWriter("out.mlyze", start_us=1_700_000_000_000_000) as writer:
        writer.alloc(1_700_000_000_000_010, 0x1000, 64, [("app.py", 3, "main")], thread_id=1)

Whatever a file contains, a reader raises nothing but :class:`FormatError`.  ``recover=True`` keeps what
stands before a fault, ``strict=True`` refuses every departure from the rules.  Every format is read
twice: by its Reader, which is quick, and by :func:`explain`, which names every single byte::

    python3 memformats.py explain trace.mlyze
    python3 memformats.py --help

Where to find what (search for the banner ``# ==== N``):

1.  this text, ``__all__``, imports
2.  errors and problems     FormatError, TruncatedError, UnsupportedError, Problem
3.  facts                   Field, Layout, Span; how ``explain`` walks; its text (``.hex``)
4.  primitives              varint, JSON, time; source and sink; what all readers and writers share
5.  formats                 a section each, always in this order: constants and layouts, records,
                            explain, Reader, Writer, semantics.   5.1 mlyze
6.  registry                FORMATS, detect, open, explain
7.  JSON documents          decode, encode
8.  exports                 each original tool's own output
9.  statistics              what ``info`` and ``stats`` print
10. command line            main
"""

from __future__ import annotations

import gzip
import io
import json
import struct
from typing import (
    IO,
    Any,
    Callable,
    Dict,
    Generic,
    Iterable,
    Iterator,
    List,
    Literal,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    Type,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

__version__ = "0.1.0"

__all__ = [
    "FORMATS",
    "Alloc",
    "BinaryReadable",
    "BinaryWritable",
    "Document",
    "Field",
    "Format",
    "FormatError",
    "Frame",
    "Free",
    "Gc",
    "Layout",
    "Marker",
    "MlyzeAnalysis",
    "MlyzeFunctionUse",
    "MlyzeHeader",
    "MlyzeLeak",
    "MlyzeMark",
    "MlyzeReader",
    "MlyzeRecord",
    "MlyzeStackUse",
    "MlyzeTimeline",
    "MlyzeWriter",
    "Problem",
    "Reader",
    "Span",
    "TruncatedError",
    "UnsupportedError",
    "Writer",
    "decode",
    "decode_varint",
    "detect",
    "encode",
    "encode_varint",
    "explain",
    "hex_lines",
    "hex_to_bytes",
    "main",
    "mlyze_analysis",
    "mlyze_corrected_clock",
    "mlyze_frame_label",
    "mlyze_stack_label",
    "open",
]


# ==== 2. Errors and problems ==========================================================================

CODES = (
    "bad-magic",
    "unsupported-version",
    "truncated",
    "bad-varint",
    "bad-utf8",
    "bad-reference",
    "bad-size",
    "bad-count",
    "bad-signature",
    "bad-value",
    "bad-json",
    "bad-compression",
    "trailing-data",
    "lossy",
    "limit",
)


class FormatError(ValueError):
    """What is wrong with a file, and where: the only exception that a file's content can cause.

    ``format`` is the format's name, or ``gzip`` for a fault of a compressed file, with the offset in that;
    ``code`` is one of ``CODES``; ``offset`` counts bytes in ``space`` (``"file"``, or ``"body"`` for what a
    compressed body unpacks to); ``where`` is the path of the field as ``explain`` prints it; ``reason`` tells.
    """

    def __init__(self, format: str, code: str, offset: int, where: str, reason: str, space: str = "file") -> None:
        super().__init__(format, code, offset, where, reason, space)
        self.format = format
        self.code = code
        self.offset = offset
        self.where = where
        self.reason = reason
        self.space = space

    def __str__(self) -> str:
        space = "" if self.space == "file" else self.space + " "
        place = f"{self.where}: " if self.where else ""
        return f"{self.format}: {space}offset 0x{self.offset:x}: {place}{self.reason}"


class TruncatedError(FormatError):
    """The file ends inside the field at ``where``; code ``truncated``."""


class UnsupportedError(FormatError):
    """The file is of a version, byte order or kind that is not read; code ``unsupported-version``."""


class Problem(NamedTuple):
    """Something about a file that did not stop the reading, or, with ``recover``, what did.

    ``severity`` is ``"fault"`` (reading ended, or a part was stepped over), ``"deviation"`` (a rule is
    broken that the format states or real readers need) or ``"note"`` (what real files commonly do against
    the document).  There is one Problem per code and field: ``offset`` and ``where`` tell the first place,
    ``times`` how often.
    """

    severity: str
    code: str
    space: str
    offset: int
    where: str
    message: str
    times: int = 1


Raw = bytes  # of a record: its own bytes, where its fields would be written as others (Gc has a field named bytes)
Rules = Mapping[str, Tuple[str, str]]

# What every format has in common; each section adds its own: rule -> (severity, code).
_COMMON_RULES: Rules = {
    "the file ends inside this field": ("fault", "truncated"),
    "truncated varint": ("fault", "truncated"),
    "varint of more than 64 bytes": ("fault", "limit"),
    "overlong varint": ("note", "bad-varint"),
    "varint of more than 10 bytes": ("deviation", "bad-varint"),
    "varint of more than 64 bits": ("deviation", "bad-varint"),
}

_ERROR_CLASSES = {"truncated": TruncatedError, "unsupported-version": UnsupportedError}


def _error(format: str, code: str, offset: int, where: str, reason: str, space: str = "file") -> FormatError:
    """The exception of the class that goes with the code, to be raised by the caller."""
    return _ERROR_CLASSES.get(code, FormatError)(format, code, offset, where, reason, space)


def _sentence(rule: str, detail: str) -> str:
    return f"{rule}: {detail}" if detail else rule


class _Problems:
    """Collects the problems of one file: one per code and field, so that memory stays constant."""

    def __init__(self, format: str, rules: Rules, *, strict: bool, recover: bool) -> None:
        self.format = format
        self.rules = rules
        self.space = "file"  # what offsets count in at this point of the reading
        self.strict = strict
        self.recover = recover
        self._found: Dict[Tuple[str, ...], Problem] = {}

    def add(self, rule: str, offset: int, where: str, detail: str = "", times: int = 1) -> None:
        """Count a deviation or note; raises FormatError for a deviation when strict."""
        severity, code = self.rules[rule]
        message = _sentence(rule, detail)
        if self.strict and severity == "deviation":
            raise _error(self.format, code, offset, where, message, self.space)
        self._keep(Problem(severity, code, self.space, offset, where, message, times))

    def fault(self, rule: str, offset: int, where: str, detail: str = "") -> FormatError:
        """The exception for a broken rule of severity fault, to be raised by the caller."""
        return _error(self.format, self.rules[rule][1], offset, where, _sentence(rule, detail), self.space)

    def step_over(self, error: FormatError) -> None:
        """Keep a fault as a problem when recovering, else raise it."""
        if not self.recover:
            raise error
        self._keep(Problem("fault", error.code, error.space, error.offset, error.where, error.reason))

    def _keep(self, problem: Problem) -> None:
        key = (*problem[:3], _field_of(problem.where))
        other = self._found.get(key, problem._replace(times=0))
        first = min(other, problem, key=lambda one: one.offset)
        self._found[key] = first._replace(times=other.times + problem.times)

    def list(self) -> List[Problem]:
        """In order of space (the file first), offset, path and code."""
        return sorted(self._found.values(), key=lambda one: (one.space != "file", one.offset, one.where, one.code))


def _field_of(where: str) -> str:
    """A path without its indexes.

    >>> _field_of("events[17].stack_id")
    'events[].stack_id'
    """
    head, *rest = where.split("[")
    return head + "".join("[" + part[part.find("]") :] for part in rest)


# ==== 3. Facts: fields, layouts, spans; how explain walks a file =======================================


class Field(NamedTuple):
    """One field of a fixed-size structure: its name, its ``struct`` code, and what it means."""

    name: str
    code: str
    note: str = ""


class Layout:
    """A fixed-size structure, written down once: the Struct and the lines of ``explain`` come from it.

    ``little`` and ``big`` are the ``struct.Struct`` in either byte order, without alignment; ``size`` is in bytes.
    """

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.fields = fields
        codes = "".join(field.code for field in fields)
        self.little = struct.Struct("<" + codes)
        self.big = struct.Struct(">" + codes)
        self.size = self.little.size

    def cut(self, have: int) -> Tuple[int, str, str]:
        """Of a structure cut after ``have`` bytes: the offset and name of the cut field, and how much there is."""
        start = 0
        for field in self.fields:
            size = struct.calcsize("<" + field.code)
            if have < start + size:
                return start, field.name, f"{have - start} of {size} bytes"
            start += size
        raise ValueError(f"{have} bytes are all of {self.name}")


_CODE_TYPES = {"B": "u8", "H": "u16", "I": "u32", "Q": "u64", "b": "i8", "h": "i16", "i": "i32", "q": "i64", "d": "f64"}


class Span(NamedTuple):
    """What some bytes of a file are: ``explain`` yields these for every byte, none twice.

    ``offset`` and ``size`` are in bytes of ``space`` (``"file"`` or ``"body"``).  ``type`` is ``u8``,
    ``u64``, ``varint``, ``bytes``, ``json`` and the like, or ``unread`` for what stands after a fault;
    then ``value`` is the code of the FormatError and ``note`` its offset and reason.
    """

    offset: int
    size: int
    space: str
    path: str
    type: str
    value: object
    note: str = ""


class _Walk:
    """A cursor that explains: each call takes a field, keeps a Span for it, and returns its value."""

    def __init__(self, format: str, rules: Rules, data: bytes, *, recover: bool) -> None:
        self.format = format
        self.rules = rules
        self.data = data
        self.recover = recover
        self.space = "file"
        self.offset = 0
        self.error: Optional[FormatError] = None  # what ended the walk
        self._spans: List[Span] = []
        self._prefix = ""
        self._indexes: Dict[str, int] = {}

    def more(self) -> bool:
        return self.offset < len(self.data)

    def drain(self) -> List[Span]:
        """The spans since the last drain."""
        spans, self._spans = self._spans, []
        return spans

    def record(self, name: str) -> _WalkRecord:
        """``with walk.record("events"):`` makes paths inside start with ``events[i].``, i counted from 0."""
        index = self._indexes[name] = self._indexes.get(name, -1) + 1
        return _WalkRecord(self, f"{self._prefix}{name}[{index}].")

    def fault(self, rule: str, offset: int, name: str, detail: str = "") -> FormatError:
        reason = _sentence(rule, detail)
        return _error(self.format, self.rules[rule][1], offset, self._prefix + name, reason, self.space)

    def skip(self, error: FormatError) -> str:
        """A fault that ``recover`` steps over becomes a note; else it is raised."""
        if not self.recover:
            raise error
        return f"{error.code}: {error.reason}"

    def annotate(self, note: str, name: Optional[str] = None) -> None:
        """Add to the note of the last span, or of the last one of that name."""
        places = [at for at, span in enumerate(self._spans) if name is None or span.path == self._prefix + name]
        span = self._spans[places[-1]]
        self._spans[places[-1]] = span._replace(note=f"{span.note}; {note}" if span.note else note)

    def problem(self, rule: str) -> None:
        """A deviation or note, in the note of the last span."""
        self.annotate(f"{self.rules[rule][0]}: {rule}")

    def lookup(self, key: int, table: Mapping[str, object], missing: str) -> None:
        """Note of the last span, a number, what it stands for in a table of JSON; of much the end."""
        value = table.get(str(key))
        if value is None:
            self.problem(missing)
        else:
            end = value[-72:] if isinstance(value, str) else value[-1:] if isinstance(value, list) else value
            self.annotate(json.dumps(end)[-72:])

    def take(self, name: str, size: int, type: str) -> bytes:
        """``size`` bytes as one field of that type, whose value is the bytes."""
        piece = self.data[self.offset : self.offset + size]
        if len(piece) < size:
            raise self.fault("the file ends inside this field", self.offset, name, f"{len(piece)} of {size} bytes")
        self._add(name, size, type, piece)
        return piece

    def fixed(self, name: str, code: str, note: str = "") -> Any:
        """A number or bytes by its ``struct`` code."""
        piece = self.take(name, struct.calcsize("<" + code), _CODE_TYPES.get(code, "bytes"))
        (value,) = struct.unpack("<" + code, piece)
        self.revalue(value, note)
        return value

    def layout(self, layout: Layout) -> Dict[str, Any]:
        """Every field of a Layout; returns the values by name."""
        return {field.name: self.fixed(*field) for field in layout.fields}

    def uvarint(self, name: str, note: str = "") -> int:
        """An unsigned LEB128 number: seven bits a byte, the lowest first, the top bit set on all but the last."""
        groups = []
        for byte in self.data[self.offset : self.offset + _VARINT_LIMIT]:
            groups.append(byte & 0x7F)
            if byte < 0x80:
                break
        else:
            whole = len(groups) == _VARINT_LIMIT
            raise self.fault("varint of more than 64 bytes" if whole else "truncated varint", self.offset, name)
        value = sum(group << 7 * place for place, group in enumerate(groups))
        self._add(name, len(groups), "varint", value, note)
        if value >> 64:
            self.problem("varint of more than 64 bits")
        elif len(groups) > 10:
            self.problem("varint of more than 10 bytes")
        elif groups[-1] == 0 and len(groups) > 1:
            self.problem("overlong varint")
        return value

    def revalue(self, value: object, note: str = "") -> None:
        """Give the last span the value that its bytes stand for."""
        self._spans[-1] = self._spans[-1]._replace(value=value, note=note)

    def unread(self, error: FormatError) -> None:
        """The last span: what the fault leaves unexplained, to the end."""
        self._prefix = ""
        self.error = error
        note = f"offset 0x{error.offset:x}: {error.reason}"
        self._add(error.where, len(self.data) - self.offset, "unread", error.code, note)

    def _add(self, name: str, size: int, type: str, value: object, note: str = "") -> None:
        self._spans.append(Span(self.offset, size, self.space, self._prefix + name, type, value, note))
        self.offset += size


class _WalkRecord:
    """While it is entered, paths of the walk start with its own."""

    def __init__(self, walk: _Walk, prefix: str) -> None:
        self._walk = walk
        self._prefix = prefix

    def __enter__(self) -> None:
        self._outer = self._walk._prefix, self._walk._indexes
        self._walk._prefix, self._walk._indexes = self._prefix, {}

    def __exit__(self, *exc_info: object) -> None:
        self._walk._prefix, self._walk._indexes = self._outer


def hex_lines(data: bytes, spans: Iterable[Span], body: bytes = b"") -> Iterator[str]:
    """The text of an explanation: one field a line, of longer fields 16 bytes a line.

    ``data`` are the bytes of the file that ``spans`` explain; lines of a body start with ``| ``.
    Bytes and offsets are exact, the comment is ASCII; ``vectors/README.md`` describes the syntax.

    >>> list(hex_lines(b"MTRC", [Span(0, 4, "file", "magic", "bytes", b"MTRC")]))
    ['00000000: 4d 54 52 43  # magic bytes[4] = "MTRC"']
    """
    for span in spans:
        source, margin = (data, "") if span.space == "file" else (body, "| ")
        for at in range(span.offset, max(span.offset + span.size, span.offset + 1), 16):
            pairs = source[at : min(at + 16, span.offset + span.size)].hex(" ")
            comment = f"  # {_comment(span)}" if at == span.offset else ""
            yield f"{margin}{at:08x}: {pairs}{comment}"


def _comment(span: Span) -> str:
    """The comment of a hex line: path, type, value, note; in ASCII."""
    value = span.value
    shown = None if value is None else str(value)
    if isinstance(value, bytes):
        if value.isascii() and value.decode("ascii").isprintable():
            shown = _quoted_start(value.decode("ascii"))
        else:
            shown = None if span.size > 16 else value.hex()
    elif isinstance(value, str) and span.type != "unread":
        shown = _quoted_start(value)
    size = f"[{span.size}]" if span.type in ("bytes", "json", "utf-8", "unread") else ""
    note = "".join(c if c.isascii() and c.isprintable() else json.dumps(c)[1:-1] for c in span.note)
    parts = (f"{span.path} {span.type}{size}".lstrip(), f" = {shown}" if shown else "", f" ({note})" if note else "")
    return "".join(parts)


def _quoted_start(text: str) -> str:
    return json.dumps(text) if len(text) <= 72 else json.dumps(text[:72]) + "..."


def hex_to_bytes(text: str) -> bytes:
    r"""The bytes of the file that a hex text holds; comments and lines of a body are passed over.

    Empty lines and lines that start with ``#`` are passed over too.  Raises ValueError for any other line that is
    not of this form, or whose offset is not the number of bytes before it.

    >>> hex_to_bytes("00000000: 4d 54  # magic\n00000002: 52 43\n")
    b'MTRC'
    """
    data = bytearray()
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith(("#", "| ")):
            head, _, rest = line.partition(":")
            try:
                offset = int(head, 16)
                piece = bytes.fromhex(rest.partition("#")[0])
            except ValueError:
                raise ValueError(f"line {number}: not an offset, a colon and pairs of digits") from None
            if offset != len(data):
                raise ValueError(f"line {number}: offset {head}, but {len(data):08x} is next")
            data += piece
    return bytes(data)


# ==== 4. Primitives: varint, JSON, time; source and sink; what all readers and writers share ===========

H = TypeVar("H")  # a format's header
R = TypeVar("R")  # a format's records
SelfType = TypeVar("SelfType")

_U16 = struct.Struct("<H")
_U64 = struct.Struct("<Q")
_VARINT_LIMIT = 64  # bytes; the longest that any of the formats' real programs was seen to write is 29
_DIGITS = 135  # of the largest number that such a varint holds
_CHUNK = 65536


def encode_varint(value: int) -> bytes:
    """The unsigned LEB128 form of ``value`` >= 0, in the fewest bytes.

    >>> encode_varint(300).hex(" ")
    'ac 02'
    """
    if value < 0:
        raise ValueError(f"a varint is not negative: {value}")
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def decode_varint(data: bytes, offset: int = 0) -> Tuple[int, int]:
    r"""The unsigned LEB128 number at ``offset`` and the offset after it.

    Accepts any form of up to 64 bytes.  Raises IndexError where the data ends inside the number and
    OverflowError for a longer one.

    >>> decode_varint(b"\x80\x80\x01")
    (16384, 3)
    """
    value = shift = 0
    for at in range(offset, offset + _VARINT_LIMIT):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
    raise OverflowError("varint of more than 64 bytes")


def _json_integer(digits: str) -> int:
    """An integer of a JSON text; refuses what would take quadratic time."""
    if len(digits) > 4000:
        raise ValueError("a number of more than 4000 digits")
    return int(digits)


def _decimal(text: str) -> Optional[int]:
    """The number that a text is the usual decimal form of, without sign and leading zeros; else None."""
    usual = text.isascii() and text.isdigit() and len(text) <= _DIGITS and (text[0] != "0" or text == "0")
    return int(text) if usual and int(text) < 1 << 7 * _VARINT_LIMIT else None


def _parse_json(text: str) -> Any:
    """``json.loads`` with one exception for all that can be wrong: JSONDecodeError."""
    try:
        return json.loads(text, parse_int=_json_integer)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    except ValueError as error:
        raise json.JSONDecodeError(str(error), text, 0) from None


def _utc(time_us: int) -> str:
    """Microseconds since 1970 as ISO 8601 text in UTC.

    >>> _utc(1764979200250000)
    '2025-12-06T00:00:00.250000Z'
    """
    days, us = divmod(time_us, 86_400_000_000)
    # Count from 0000-03-01, so that the leap day is the last of a year of 365.2425 days.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    date = day - (153 * month + 2) // 5 + 1
    year += 400 * era + (month > 9)
    seconds, us = divmod(us, 1_000_000)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{us:06d}"
    return f"{year:04d}-{month + 3 - 12 * (month > 9):02d}-{date:02d}T{clock}Z"


def _unsigned(name: str, value: int, bits: int) -> int:
    """The value itself; raises for what is not an integer of that many bits."""
    if not isinstance(value, int):
        raise TypeError(f"{name} is not an integer: {value!r}")
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{name} is not of {bits} bits: {value}")
    return value


class _Buckets:
    """The largest value per bucket of time: 32 to 64 buckets, which double in width as time goes on.

    ``end`` is where the open bucket ends, the last of ``values``; a value holds until the next change.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self.width = 1
        self.values = [0]
        self.end = start + 1

    def advance(self, time: int, high: int, level: int) -> int:
        """Close the open bucket with its largest value, and all before ``time`` with the level held since."""
        self.values[-1] = max(self.values[-1], high)
        while time >= self.start + 64 * self.width:
            self.values = [max(self.values[i : i + 2]) for i in range(0, len(self.values), 2)]
            self.width *= 2
        index = (time - self.start) // self.width
        self.values += [level] * (index + 1 - len(self.values))
        self.end = self.start + (index + 1) * self.width
        return self.end


class _Source:
    """The bytes of a binary file in order, once, in chunks; seeks nothing, so a pipe will do.

    ``position`` is the offset of the next byte, ``name`` the path or "".  A fault in compressed data ends
    the bytes; ``error`` holds it, so that all that stands before it can be read first.
    """

    def __init__(self, file: BinaryReadable, *, owned: bool, name: str = "") -> None:
        self.position = 0
        self.name = name
        self.error: Optional[FormatError] = None
        self._file = file
        self._read: Callable[[int], bytes] = getattr(file, "read1", file.read)  # of a pipe, what there is
        self._owned = owned
        self._ahead = b""

    def chunk(self) -> bytes:
        """The next bytes, as many as come; empty only at the end."""
        data = self._ahead or self._more()
        self._ahead = b""
        self.position += len(data)
        return data

    def _more(self) -> bytes:
        if self.error is None:
            try:
                data: Optional[bytes] = self._read(_CHUNK)
            except FormatError as error:
                self.error = error
                return b""
            if data is None:
                raise BlockingIOError("the file has no bytes yet; one that waits for them is needed")
            return bytes(data)
        return b""

    def peek(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end, without taking them."""
        pieces = [self._ahead]
        have = len(self._ahead)
        while have < size:
            piece = self._more()
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        self._ahead = b"".join(pieces)
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer only at the end; never allocates more than the file holds."""
        pieces = []
        while size > 0:
            piece = self.chunk()
            if not piece:
                break
            if len(piece) > size:
                self.back(piece[size:])
                piece = piece[:size]
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def back(self, data: bytes) -> None:
        """Put bytes back that were taken last."""
        self._ahead = data + self._ahead
        self.position -= len(data)

    def rest(self) -> bytes:
        """All that is left."""
        return b"".join(iter(self.chunk, b""))

    def close(self) -> None:
        if self._owned:
            cast("IO[bytes]", self._file).close()


# The gzip module is built on zlib and holds it; the raw decompressor tells where a member ends and what follows it.
_zlib: Any = vars(gzip)["zlib"]


GZIP_HEADER = Layout(
    "gzip header",
    Field("magic", "2s"),
    Field("method", "B", "8 is deflate"),
    Field("flags", "B"),
    Field("mtime", "I", "seconds since 1970"),
    Field("extra_flags", "B"),
    Field("os", "B"),
)
GZIP_TRAILER = Layout("gzip trailer", Field("crc32", "I"), Field("isize", "I", "bytes unpacked, modulo 2^32"))
_GZIP_MAGIC = b"\x1f\x8b"
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _GZIP_RESERVED = 2, 4, 8, 16, 0xE0


class _Gunzip:
    """The uncompressed bytes of a gzip stream of one or more members (RFC 1952); faults are FormatErrors.

    All that can be unpacked comes before the fault.  NUL bytes after a member are padding.
    """

    def __init__(self, source: _Source, max_bytes: int) -> None:
        self._source = source
        self._left = max_bytes
        self._member = -1
        self._inflater: Any = None
        self._data_offset = 0
        self._crc = self._size = 0  # of what the member has given so far
        self._data = b""  # compressed bytes that the inflater has not taken yet
        self._fault: Optional[FormatError] = None

    def read(self, size: int) -> bytes:
        """At most ``size`` of the next bytes; empty only at the end."""
        while True:
            if self._fault is not None:
                raise self._fault
            if self._inflater is None and not self._start_member():
                return b""
            output = self._inflate(size)
            self._crc = _zlib.crc32(output, self._crc)
            self._size += len(output)
            self._left -= len(output)
            if self._left < 0:
                raise self._error("limit", self._data_offset, "data", "unpacks to more than max_bytes")
            if self._inflater.eof:
                self._source.back(self._inflater.unused_data)
                self._inflater = None
                try:
                    self._end_member()
                except FormatError as error:
                    self._fault = error
            if output:
                return output

    def _inflate(self, size: int) -> bytes:
        """Some output, or none at the end of some input; what stands before a fault comes first."""
        data = self._data or self._source.chunk()
        before = self._inflater.copy()
        try:
            output: bytes = self._inflater.decompress(data, size)
        except _zlib.error as error:
            reason = str(error).rpartition(": ")[2]
            self._fault = self._error("bad-compression", self._data_offset, "data", reason)
            return _inflate_up_to_fault(before, data, size)
        self._data = b"" if self._inflater.eof else self._inflater.unconsumed_tail
        if not data and not output and not self._inflater.eof:
            self._fault = self._error("truncated", self._data_offset, "data", "the file ends inside this field")
        return output

    def _start_member(self) -> bool:
        """Take the header of the next member; False at the end."""
        while self._member >= 0 and self._source.peek(1) == b"\0":
            ahead = self._source.peek(_CHUNK)
            self._source.read(len(ahead) - len(ahead.lstrip(b"\0")))
        if not self._source.peek(1):
            return False
        self._member += 1
        offset = self._source.position
        if self._source.peek(2) != _GZIP_MAGIC:
            raise self._error("trailing-data", offset, "magic", "not another gzip member")
        _, method, flags, _, _, _ = self._take(GZIP_HEADER)
        if method != 8:
            raise self._error("bad-compression", offset + 2, "method", f"not deflate: {method}")
        if flags & _GZIP_RESERVED:
            raise self._error("bad-compression", offset + 3, "flags", f"reserved bits are set: 0x{flags:02x}")
        if flags & _FEXTRA:
            (size,) = _U16.unpack(self._take_bytes("extra", 2))
            self._take_bytes("extra", size)
        for flag, name in ((_FNAME, "name"), (_FCOMMENT, "comment")):
            if flags & flag:
                self._take_bytes(name, self._source.peek(_CHUNK).find(b"\0") + 1 or _CHUNK)
        if flags & _FHCRC:
            self._take_bytes("header_crc", 2)
        self._data_offset = self._source.position
        self._inflater = _zlib.decompressobj(-15)
        self._crc = self._size = 0
        return True

    def _end_member(self) -> None:
        offset = self._source.position
        crc, size = self._take(GZIP_TRAILER)
        if crc != self._crc:
            raise self._error("bad-compression", offset, "crc32", f"0x{crc:08x}, but the data has 0x{self._crc:08x}")
        if size != self._size & 0xFFFFFFFF:
            raise self._error("bad-compression", offset + 4, "isize", f"{size}, but the data has {self._size} bytes")

    def _take(self, layout: Layout) -> Tuple[Any, ...]:
        offset = self._source.position
        data = self._source.read(layout.size)
        if len(data) < layout.size:
            start, name, detail = layout.cut(len(data))
            raise self._error("truncated", offset + start, name, f"the file ends inside this field: {detail}")
        return layout.little.unpack(data)

    def _take_bytes(self, name: str, size: int) -> bytes:
        offset = self._source.position
        data = self._source.read(size)
        if len(data) < size:
            raise self._error("truncated", offset, name, "the file ends inside this field")
        return data

    def close(self) -> None:
        self._source.close()

    def _error(self, code: str, offset: int, name: str, reason: str) -> FormatError:
        return _error("gzip", code, offset, f"members[{self._member}].{name}", reason)


def _inflate_up_to_fault(inflater: Any, data: bytes, size: int) -> bytes:
    """What ``data`` unpacks to before the fault that it holds: zlib itself drops that with the exception."""
    pieces = []
    while size:
        trial = inflater.copy()
        try:
            pieces.append(trial.decompress(data, size))
        except _zlib.error:
            size //= 2
        else:
            inflater, data = trial, trial.unconsumed_tail
    try:
        pieces.extend(inflater.decompress(data[at : at + 1]) for at in range(len(data)))
    except _zlib.error:
        pass  # the fault itself, which the caller has seen
    return b"".join(pieces)


class _Fields:
    """Reads the fields of one record exactly, with every check: the slow path of the Readers.

    ``canonical`` turns False when a field is not in the form that a writer would give it.
    """

    def __init__(self, reader: Reader[Any, Any], data: bytes, at: int, base: int, where: str) -> None:
        self.at = at
        self.canonical = True
        self._reader = reader
        self._data = data
        self._base = base
        self._where = where

    def fault(self, rule: str, name: str, detail: str = "") -> FormatError:
        return self._reader._problems.fault(rule, self._base + self.at, self._where + name, detail)

    def problem(self, rule: str, at: int, name: str, detail: str = "") -> None:
        self._reader._problems.add(rule, self._base + at, self._where + name, detail)

    def fixed(self, name: str, form: struct.Struct) -> Any:
        """A number of fixed size."""
        end = self.at + form.size
        if end > len(self._data):
            detail = f"{len(self._data) - self.at} of {form.size} bytes"
            raise self.fault("the file ends inside this field", name, detail)
        (value,) = form.unpack_from(self._data, self.at)
        self.at = end
        return value

    def uvarint(self, name: str) -> int:
        """An unsigned LEB128 number of up to 64 bytes."""
        start = self.at
        try:
            value, self.at = decode_varint(self._data, start)
        except IndexError:
            raise self.fault("truncated varint", name) from None
        except OverflowError:
            raise self.fault("varint of more than 64 bytes", name) from None
        overlong = self._data[self.at - 1] == 0 and self.at - start > 1
        if value >> 64:
            self.problem("varint of more than 64 bits", start, name)
        elif self.at - start > 10:
            self.problem("varint of more than 10 bytes", start, name)
        elif overlong:
            self.problem("overlong varint", start, name)
        self.canonical = self.canonical and not overlong and value < 1 << 64
        return value


class _PathLike(Protocol):
    def __fspath__(self) -> str: ...


class BinaryReadable(Protocol):
    """A binary file to read: ``read(size)`` is all it needs."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, none only at the end."""
        ...


class BinaryWritable(Protocol):
    """A binary file to write: ``write(data)`` is all it needs, ``seek`` and ``tell`` where bytes are patched."""

    def write(self, data: bytes, /) -> Any:
        """Take all of ``data``, or tell how much was taken."""
        ...


FilePath = Union[str, _PathLike]
ReadableFile = Union[FilePath, BinaryReadable]
WritableFile = Union[FilePath, BinaryWritable]

DEFAULT_MAX_BYTES = 8 << 30


def _is_path(file: object) -> bool:
    return isinstance(file, str) or hasattr(file, "__fspath__")


def _source(file: Union[ReadableFile, _Source], max_bytes: int) -> _Source:
    """A source over a path or a binary file; what is gzip as a whole is unpacked on the way."""
    if isinstance(file, _Source):
        return file
    if _is_path(file):
        source = _Source(io.open(cast("FilePath", file), "rb"), owned=True, name=str(file))
    else:
        if not hasattr(file, "read"):
            raise TypeError(f"not a path or a binary file: {file!r}")
        stream = cast("BinaryReadable", file)
        if isinstance(stream.read(0), str):
            raise TypeError("the file is open in text mode; open it with mode 'rb'")
        source = _Source(stream, owned=False)
    return _unzipped(source, max_bytes)


def _unzipped(source: _Source, max_bytes: int) -> _Source:
    if source.peek(3) != _GZIP_MAGIC + b"\x08":
        return source
    return _Source(_Gunzip(source, max_bytes), owned=True, name=source.name)


class _Sink:
    """Where a writer's bytes go: a path, which it opens and closes, or a binary file of the caller's."""

    def __init__(self, file: WritableFile) -> None:
        self._owned = _is_path(file)
        if isinstance(file, io.TextIOBase):
            raise TypeError("the file is open in text mode; open it with mode 'wb'")
        if not self._owned and not hasattr(file, "write"):
            raise TypeError(f"not a path or a binary file: {file!r}")
        self.file = io.open(cast("FilePath", file), "wb") if self._owned else cast("IO[bytes]", file)
        self.seekable = bool(getattr(self.file, "seekable", bool)())
        self._origin = self.file.tell() if self.seekable else 0

    def write(self, data: bytes) -> None:
        """Write all of it, also through an unbuffered file that takes less at a time."""
        while data:
            taken: Optional[int] = self.file.write(data)
            if taken is None or taken >= len(data):  # None: a file that does not say, and takes all
                return
            if not taken:
                raise OSError("the file takes no more bytes")
            data = data[taken:]

    def patch(self, offset: int, data: bytes) -> None:
        """Write over what stands at ``offset``, counted from where the sink began."""
        place = self.file.tell()
        self.file.seek(self._origin + offset)
        self.write(data)
        self.file.seek(place)

    def close(self) -> None:
        if self._owned:
            self.file.close()
        elif hasattr(self.file, "flush"):
            self.file.flush()


class Document(Generic[H, R]):
    """A whole file as one object: what ``reader.read()`` gives and ``writer.write_document()`` takes.

    ``header`` is the format's header record; ``tables`` what the records refer to, by name; ``records``
    all of them in file order; ``problems`` what was found; ``tail`` the bytes after what could be read.
    """

    __slots__ = ("format", "header", "problems", "records", "tables", "tail")

    def __init__(
        self,
        format: str,
        header: H,
        tables: Mapping[str, Any],
        records: Sequence[R],
        problems: Sequence[Problem] = (),
        tail: bytes = b"",
    ) -> None:
        self.format = format
        self.header = header
        self.tables = tables
        self.records = records
        self.problems = problems
        self.tail = tail

    def __repr__(self) -> str:
        return f"<Document of {self.format}: {self.header}, {len(self.records)} records, {len(self.problems)} problems>"


class Reader(Generic[H, R]):
    """What all readers share: opening, iterating, problems, the document.

    ``file`` is a path or a binary file, which need not be seekable.  ``strict`` refuses deviations,
    ``recover`` turns faults into problems, ``max_bytes`` bounds what compressed data may unpack to.
    A header that cannot be read is the end also with ``recover``.  The records can be iterated over once.
    """

    format = ""
    rules: Rules = _COMMON_RULES
    header: H
    _table_names: Tuple[str, ...] = ()
    _read_records: Callable[[], Iterator[R]]  # yields the records in file order

    def __init__(
        self,
        file: ReadableFile,
        *,
        strict: bool = False,
        recover: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        if strict and recover:
            raise ValueError("strict refuses what recover steps over: give one of them")
        self._problems = _Problems(self.format, self.rules, strict=strict, recover=recover)
        self._ended = self._torn = False
        self._error: Optional[FormatError] = None
        self._left = b""
        self._source = _source(file, max_bytes)
        try:
            self._read_start()
        except TruncatedError as error:
            self.close()
            raise self._source.error or error from None
        except BaseException:
            self.close()
            raise
        self._iterator = self._read_records()

    def _read_start(self) -> None:
        """Read what stands before the records; sets ``header``."""

    def __iter__(self) -> Iterator[R]:
        return self._iterator

    @property
    def problems(self) -> List[Problem]:
        """What was found so far; complete once all records have been read."""
        return self._problems.list()

    @property
    def tables(self) -> Dict[str, Any]:
        """What the records refer to, by name, as it goes into a document."""
        return {name: getattr(self, name) for name in self._table_names}

    @property
    def tail(self) -> bytes:
        """The bytes after what could be read; raises ValueError before the last record has been read."""
        if not self._ended:
            raise ValueError("the tail stands after the last record")
        if self._torn:
            self._left += self._source.rest()
        return self._left

    def read(self) -> Document[H, R]:
        """Everything (that has not been iterated over yet) as one document."""
        records = list(self._iterator)
        if self._error is not None:
            raise self._error
        return Document(self.format, self.header, self.tables, records, self.problems, self.tail)

    def close(self) -> None:
        """Close the file, if the reader opened it."""
        self._source.close()

    def __enter__(self: SelfType) -> SelfType:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _end(self, left: bytes, error: Optional[FormatError] = None) -> None:
        """Reading ends; by a fault: raise it, or, when recovering, keep what is left as the tail."""
        if error is None or isinstance(error, TruncatedError):
            error = self._source.error or error
        self._ended = True
        self._torn = error is not None
        self._left = left
        if error is not None:
            self._error = None if self._problems.recover else error
            self._problems.step_over(error)


class Writer(Generic[H, R]):
    """What all writers share: opening, writing, closing.

    ``file`` is a path or a binary file; one that the caller opened is flushed, not closed.  Use it with
    ``with``: the file is completed also when the body raises.  Misuse is a ValueError or TypeError, before
    a byte of the refused record is written.
    """

    format = ""

    def __init__(self, file: WritableFile, *, seek: bool = False) -> None:
        self._sink = _Sink(file)
        self._closed = False
        if seek and not self._sink.seekable:
            self._sink.close()
            raise ValueError("what is written first is patched later: the file must be seekable")

    def write(self, record: R) -> None:
        """Write one record."""
        self.write_all((record,))

    def write_all(self, records: Iterable[R]) -> None:
        """Write records in order; much quicker than one by one."""

    def write_document(self, document: Document[H, R]) -> None:
        """Write a whole document, to the same bytes as the file that it was read from."""
        if document.format != self.format:
            raise ValueError(f"a document of {document.format} is not written as {self.format}")
        self._begin(document.header, document.tables)
        self.write_all(document.records)
        self._end(document.tables, document.tail)

    def _begin(self, header: H, tables: Mapping[str, Any]) -> None:
        """Start with the header and tables of a document; before anything else is written."""

    def _end(self, tables: Mapping[str, Any], tail: bytes) -> None:
        """Write what stands after the last record of a document, its tail last; the tables are now complete."""
        self._sink.write(tail)

    def flush(self) -> None:
        """Hand what has been written to the operating system, so that it can be read if the writer dies."""
        self._sink.file.flush()

    def _abandon(self) -> None:
        """Close without completing the file."""
        self._closed = True
        self._sink.close()

    def close(self) -> None:
        """Complete the file; closes it, if the writer opened it."""
        if not self._closed:
            self._closed = True
            try:
                self._finish()
            finally:
                self._sink.close()

    def _finish(self) -> None:
        """Write what is still owed."""

    def __enter__(self: SelfType) -> SelfType:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


# ==== 5.1 mlyze: memory traces of Memlyze ==============================================================
#
# A header of 256 bytes, one JSON object (stacks, file names, function names, told by number), then events
# to the end of the file: no count, no terminator, no checksum.  Format text: "mlyze"; there is one version,
# 1.  The stock tracer writes the JSON while it is still empty and never comes back (erratum 1), so in its
# files every stack and marker number dangles, and all addresses are 0 (erratum 5).

MLYZE_MAGIC = b"MTRC"
MLYZE_VERSION = 1
MLYZE_VERSION_SWAPPED = 0x01000000  # what a header shows that was written in big-endian order
MLYZE_HEADER = Layout(
    "header",
    Field("magic", "4s"),
    Field("version", "I"),
    Field("start_us", "Q", "microseconds since 1970, UTC"),
    Field("metadata_length", "I", "bytes"),
    Field("reserved", "236s", "all zero"),
)
_ALLOC, _FREE, _GC, _MARKER = range(4)
MLYZE_EVENTS = {_ALLOC: "ALLOC", _FREE: "FREE", _GC: "GC", _MARKER: "MARKER"}

# The longest event is an ALLOC of three varints of 64 bytes: type, delta, address, size, stack_id, thread_id.
_MLYZE_MARGIN = 1 + 64 + 8 + 64 + 64 + 2
_MLYZE_MARKER_IDS = 1 << 20  # above any function of a real program; the analyzer was tried with 128, 199 and 20000
_UNUSUAL = -1  # a kind for the fast loop: read this event exactly
_MLYZE_TABLES = ("stack_traces", "files", "functions")

# What can be wrong, and how bad it is.  The faults of version and metadata are stepped over by ``recover``:
# events need neither; the others end the reading, since events have no length to skip them by (erratum 7).
MLYZE_RULES: Rules = {
    **_COMMON_RULES,
    "not a Memlyze trace": ("fault", "bad-magic"),
    "empty file, as a killed tracer leaves it": ("fault", "truncated"),
    "written on a big-endian machine": ("fault", "unsupported-version"),  # erratum 9
    "unsupported version": ("fault", "unsupported-version"),  # erratum 8
    "metadata is not UTF-8": ("fault", "bad-utf8"),
    "metadata is not JSON": ("fault", "bad-json"),
    "metadata is not a JSON object": ("fault", "bad-json"),
    "unknown event type": ("fault", "bad-value"),
    "not as the program writes it": ("deviation", "bad-value"),  # a table, a stack or a name of the wrong JSON type
    "reserved bytes are not zero": ("note", "bad-value"),  # erratum 15
    "unknown key": ("note", "bad-value"),
    "no such file in the metadata": ("note", "bad-reference"),  # erratum 1
    "no such stack in the metadata": ("note", "bad-reference"),  # erratum 1
    "no such name in the metadata": ("note", "bad-reference"),  # erratum 1
}


class MlyzeHeader(NamedTuple):
    """The first 256 bytes (mlyze 2.1): ``start_us`` counts microseconds since 1970, UTC."""

    version: int = MLYZE_VERSION
    start_us: int = 0
    metadata_length: int = 0
    reserved: bytes = bytes(236)


class Frame(NamedTuple):
    """One call of a stack: numbers of ``files`` and ``functions``, and the line, 0 for unknown (mlyze 3)."""

    file_id: int
    line: int
    func_id: int


class Alloc(NamedTuple):
    """``size`` bytes were allocated at ``address`` (0: not known, erratum 5).

    ``time_us`` is absolute: the header's ``start_us`` plus all deltas so far (mlyze 8.1).  ``thread_id`` is
    the low 16 bits of an identifier, an opaque label (erratum 17).  ``raw`` holds the event's own bytes
    where the shortest form of its fields would be others.
    """

    time_us: int
    address: int
    size: int
    stack_id: int
    thread_id: int
    raw: Raw = b""


class Free(NamedTuple):
    """What was allocated at ``address`` was freed."""

    time_us: int
    address: int
    raw: Raw = b""


class Gc(NamedTuple):
    """A garbage collection released ``objects`` objects of together ``bytes`` bytes (always 0 in stock files)."""

    time_us: int
    objects: int
    bytes: int
    raw: Raw = b""


class Marker(NamedTuple):
    """The program left a mark; its name is number ``name_id`` of ``functions`` (erratum 3)."""

    time_us: int
    name_id: int
    raw: Raw = b""


MlyzeRecord = Union[Alloc, Free, Gc, Marker]
_MLYZE_KINDS: Dict[type, int] = {Alloc: _ALLOC, Free: _FREE, Gc: _GC, Marker: _MARKER}
MlyzeStack = Iterable[Tuple[str, int, str]]  # (file name, line, function name) of each call, the outermost first
MlyzeStacks = Mapping[int, Tuple[Frame, ...]]
MlyzeNames = Mapping[int, str]


# ---- mlyze: explain


def _explain_mlyze(walk: _Walk) -> Iterator[None]:
    """The format text (mlyze 2 to 5) line by line; each ``yield`` ends a structure."""
    if not walk.more():
        raise walk.fault("empty file, as a killed tracer leaves it", 0, "magic")
    if not MLYZE_MAGIC.startswith(walk.data[:4]):
        raise walk.fault("not a Memlyze trace", 0, "magic")
    header = walk.layout(MLYZE_HEADER)
    if any(header["reserved"]):
        walk.problem("reserved bytes are not zero")
    if header["version"] == MLYZE_VERSION_SWAPPED:
        raise walk.fault("written on a big-endian machine", 4, "version")
    if header["version"] != MLYZE_VERSION:
        walk.annotate(walk.skip(walk.fault("unsupported version", 4, "version", str(header["version"]))), "version")
    metadata = _explain_mlyze_metadata(walk, header["metadata_length"])
    stacks = metadata.get("stack_traces", {})
    functions = metadata.get("functions", {})
    yield
    while walk.more():
        with walk.record("events"):
            _explain_mlyze_event(walk, stacks, functions)
        yield


def _explain_mlyze_event(walk: _Walk, stacks: Mapping[str, Any], functions: Mapping[str, Any]) -> None:
    kind = walk.data[walk.offset]
    if kind not in MLYZE_EVENTS:
        raise walk.fault("unknown event type", walk.offset, "type", str(kind))
    walk.fixed("type", "B", MLYZE_EVENTS[kind])
    walk.uvarint("delta", "us")
    if kind == _ALLOC:
        walk.annotate(f"0x{walk.fixed('address', 'Q'):x}")
        walk.uvarint("size", "bytes")
        walk.lookup(walk.uvarint("stack_id"), stacks, "no such stack in the metadata")
        walk.fixed("thread_id", "H")
    elif kind == _FREE:
        walk.annotate(f"0x{walk.fixed('address', 'Q'):x}")
    elif kind == _GC:
        walk.uvarint("objects")
        walk.uvarint("bytes")
    else:
        walk.lookup(walk.uvarint("name_id"), functions, "no such name in the metadata")


def _explain_mlyze_metadata(walk: _Walk, size: int) -> Dict[str, Any]:
    start = walk.offset
    piece = walk.data[start : start + size]
    metadata: Any = {}
    note = ""
    if len(piece) < size:
        raise walk.fault("the file ends inside this field", start, "metadata", f"{len(piece)} of {size} bytes")
    try:
        text = piece.decode("utf-8")
        metadata = _parse_json(text)
        if not isinstance(metadata, dict):
            note = walk.skip(walk.fault("metadata is not a JSON object", start, "metadata"))
    except UnicodeDecodeError as error:
        note = walk.skip(walk.fault("metadata is not UTF-8", start + error.start, "metadata"))
    except json.JSONDecodeError as error:
        place = start + len(text[: error.pos].encode())
        note = walk.skip(walk.fault("metadata is not JSON", place, "metadata"))
    if size:
        walk.take("metadata", size, "json")
        walk.revalue(piece.decode("utf-8", "surrogateescape"))
    if note:
        walk.annotate(note, "metadata" if size else "metadata_length")
    return {key: value for key, value in metadata.items() if isinstance(value, dict)} if not note else {}


# ---- mlyze: Reader


class MlyzeReader(Reader[MlyzeHeader, MlyzeRecord]):
    """Reads a ``.mlyze`` trace: ``Alloc``, ``Free``, ``Gc`` and ``Marker`` in file order, in constant memory.

    ``header`` is the MlyzeHeader; ``stacks`` maps a stack number to its Frames, outermost call first,
    ``files`` and ``functions`` map numbers to names; marker names are in ``functions``.  In files of the
    stock tracer the three are empty, and every number dangles: a note, not an error (erratum 1).
    ``metadata`` is the text that the three were read from.
    """

    format = "mlyze"
    rules = MLYZE_RULES
    _table_names = ("stacks", "files", "functions")

    def _read_start(self) -> None:
        data = self._source.read(MLYZE_HEADER.size)
        if not data:
            raise self._problems.fault("empty file, as a killed tracer leaves it", 0, "magic")
        if data[:4] != MLYZE_MAGIC[: len(data)]:
            raise self._problems.fault("not a Memlyze trace", 0, "magic")
        if len(data) < MLYZE_HEADER.size:
            offset, name, detail = MLYZE_HEADER.cut(len(data))
            raise self._problems.fault("the file ends inside this field", offset, name, detail)
        self.header = MlyzeHeader(*MLYZE_HEADER.little.unpack(data)[1:])
        if self.header.version == MLYZE_VERSION_SWAPPED:
            raise self._problems.fault("written on a big-endian machine", 4, "version")
        if self.header.version != MLYZE_VERSION:
            self._problems.step_over(
                self._problems.fault("unsupported version", 4, "version", str(self.header.version))
            )
        if any(self.header.reserved):
            self._problems.add("reserved bytes are not zero", 20, "reserved")
        self.stacks: Dict[int, Tuple[Frame, ...]] = {}
        self.files: Dict[int, str] = {}
        self.functions: Dict[int, str] = {}
        self.metadata = ""
        self._read_metadata(self.header.metadata_length)

    def _read_metadata(self, size: int) -> None:
        start = self._source.position
        data = self._source.read(size)
        if len(data) < size:
            detail = f"{len(data)} of {size} bytes"
            self._end(data, self._problems.fault("the file ends inside this field", start, "metadata", detail))
            return
        self.metadata = data.decode("utf-8", "surrogateescape")
        try:
            metadata = _parse_json(data.decode("utf-8"))
            if isinstance(metadata, dict):
                self._read_tables(metadata)
                return
            error = self._problems.fault("metadata is not a JSON object", start, "metadata")
        except UnicodeDecodeError as fault:
            error = self._problems.fault("metadata is not UTF-8", start + fault.start, "metadata")
        except json.JSONDecodeError as fault:
            place = start + len(fault.doc[: fault.pos].encode())
            error = self._problems.fault("metadata is not JSON", place, "metadata")
        self._problems.step_over(error)

    def _read_tables(self, metadata: Dict[str, Any]) -> None:
        """Take what is as the program writes it; each thing that is not is a problem (mlyze 3)."""
        for name in metadata:
            if name not in _MLYZE_TABLES:
                self._problems.add("unknown key", MLYZE_HEADER.size, "metadata", json.dumps(name[:40]))
        self.files.update(self._table(metadata, "files", str))
        self.functions.update(self._table(metadata, "functions", str))
        for key, frames in self._table(metadata, "stack_traces", list):
            try:
                self.stacks[key] = tuple([self._frame(**frame) for frame in frames])
            except TypeError:
                self._problems.add("not as the program writes it", MLYZE_HEADER.size, "metadata.stack_traces", str(key))

    def _frame(self, *, file_id: int, line: int, func_id: int, **others: object) -> Frame:
        """A Frame from its JSON object; raises TypeError where a key is missing or not an integer."""
        if not type(file_id) is type(line) is type(func_id) is int:
            raise TypeError("a frame holds integers")
        if others:
            self._problems.add("unknown key", MLYZE_HEADER.size, "metadata.stack_traces", json.dumps(min(others)[:40]))
        if file_id not in self.files:
            self._problems.add("no such file in the metadata", MLYZE_HEADER.size, "metadata.stack_traces.file_id")
        if func_id not in self.functions:
            self._problems.add("no such name in the metadata", MLYZE_HEADER.size, "metadata.stack_traces.func_id")
        return Frame(file_id, line, func_id)

    def _table(self, metadata: Dict[str, Any], name: str, type: type) -> Iterator[Tuple[int, Any]]:
        """The entries of one table, by number."""
        table = metadata.get(name, {})
        if not isinstance(table, dict):
            self._problems.add("not as the program writes it", MLYZE_HEADER.size, f"metadata.{name}")
            return
        for key, value in table.items():
            number = _decimal(key)
            if number is not None and isinstance(value, type):
                yield number, value
            else:
                detail = json.dumps(key[:40])
                self._problems.add("not as the program writes it", MLYZE_HEADER.size, f"metadata.{name}", detail)

    @property
    def tables(self) -> Dict[str, Any]:
        """``stacks``, ``files``, ``functions``, and ``metadata``: their text, or None where it is the usual one."""
        usual = _mlyze_metadata(self.stacks, self.files, self.functions) == self.metadata
        return {**super().tables, "metadata": None if usual else self.metadata}

    def _read_records(self) -> Iterator[MlyzeRecord]:
        # ALLOC and FREE with short numbers are read here, everything else by _read_event, which takes five times
        # as long (measured).  An event that starts before ``stop`` lies within ``data`` whatever its numbers are.
        new = tuple.__new__
        unpack_alloc = struct.Struct("<Q7B").unpack_from
        unpack_address = _U64.unpack_from
        stacks = self.stacks
        time_us = self.header.start_us
        data = raw = b""
        base = self._source.position
        at = index = dangling = dangling_at = dangling_index = 0
        more = True
        if self._ended:
            return
        try:
            while more:
                piece = self._source.chunk()
                more = bool(piece)
                base += at
                data = data[at:] + piece
                at = 0
                stop = len(data) - _MLYZE_MARGIN if more else 0
                while at < stop:
                    kind = data[at]
                    delta = data[at + 1]
                    after = at + 2
                    if delta > 0x7F:
                        high = data[after]
                        delta += (high << 7) - 0x80
                        after += 1
                        if not 0 < high < 0x80:
                            top = data[after]
                            delta += (top << 14) - 0x4000
                            after += 1
                            if not (high and 0 < top < 0x80):
                                kind = _UNUSUAL
                    if kind == _ALLOC:
                        address, size, b, c, d, e, f, g = unpack_alloc(data, after)
                        if size > 0x7F:
                            if 0 < b < 0x80:
                                size += (b << 7) - 0x80
                                b, c, d, e = c, d, e, f
                                after += 1
                            elif b and 0 < c < 0x80:
                                size += (b << 7) + (c << 14) - 0x4080
                                b, c, d, e = d, e, f, g
                                after += 2
                            else:
                                b = c = 0x80
                        if b < 0x80:
                            stack_id = b
                            thread_id = c | d << 8
                            at = after + 12
                        elif 0 < c < 0x80:
                            stack_id = b + (c << 7) - 0x80
                            thread_id = d | e << 8
                            at = after + 13
                        else:
                            kind = _UNUSUAL
                        if kind == _ALLOC:
                            if stack_id not in stacks:
                                if not dangling:
                                    dangling_at = base + after + 9
                                    dangling_index = index
                                dangling += 1
                            time_us += delta
                            yield new(Alloc, (time_us, address, size, stack_id, thread_id, raw))
                            index += 1
                            continue
                    elif kind == _FREE:
                        (address,) = unpack_address(data, after)
                        at = after + 8
                        time_us += delta
                        yield new(Free, (time_us, address, raw))
                        index += 1
                        continue
                    record, at = self._read_event(data, at, base, index, time_us)
                    time_us = record.time_us
                    yield record
                    index += 1
            while at < len(data):
                record, at = self._read_event(data, at, base, index, time_us)
                time_us = record.time_us
                yield record
                index += 1
            self._end(b"")
        except FormatError as error:
            self._end(data[at:], error)
        finally:
            if dangling:
                where = f"events[{dangling_index}].stack_id"
                self._problems.add("no such stack in the metadata", dangling_at, where, times=dangling)

    def _read_event(self, data: bytes, at: int, base: int, index: int, time_us: int) -> Tuple[MlyzeRecord, int]:
        """The event at ``at`` of ``data``, which stands at ``base`` in the file, and where the next one starts."""
        fields = _Fields(self, data, at, base, f"events[{index}].")
        kind = data[at]
        if kind not in MLYZE_EVENTS:
            raise fields.fault("unknown event type", "type", str(kind))
        fields.at += 1
        time_us += fields.uvarint("delta")
        record: MlyzeRecord
        if kind == _ALLOC:
            address = fields.fixed("address", _U64)
            size = fields.uvarint("size")
            stack_at = fields.at
            stack_id = fields.uvarint("stack_id")
            if stack_id not in self.stacks:
                fields.problem("no such stack in the metadata", stack_at, "stack_id")
            record = Alloc(time_us, address, size, stack_id, fields.fixed("thread_id", _U16))
        elif kind == _FREE:
            record = Free(time_us, fields.fixed("address", _U64))
        elif kind == _GC:
            record = Gc(time_us, fields.uvarint("objects"), fields.uvarint("bytes"))
        else:
            name_at = fields.at
            record = Marker(time_us, fields.uvarint("name_id"))
            if record.name_id not in self.functions:
                fields.problem("no such name in the metadata", name_at, "name_id")
        return record if fields.canonical else record._replace(raw=data[at : fields.at]), fields.at


# ---- mlyze: Writer


def _mlyze_metadata(stacks: MlyzeStacks, files: MlyzeNames, functions: MlyzeNames) -> str:
    """The metadata text as the real encoder writes it (mlyze 3)."""
    traces = {str(key): [frame._asdict() for frame in frames] for key, frames in stacks.items()}
    return json.dumps(
        {
            "stack_traces": traces,
            "files": {str(key): name for key, name in files.items()},
            "functions": {str(key): name for key, name in functions.items()},
        }
    )


# A varint v is written with its event: below 2^14 as the u16 v + (v & 0x3F80) + 0x80, below 2^21 as that and a byte.
_MLYZE_ALLOC_PACKS = tuple(
    struct.Struct(f"<B{delta}Q{size}{stack}H").pack
    for delta in ("B", "H", "HB")
    for size in ("B", "H", "HB")
    for stack in "BH"
)
_MLYZE_FREE_PACKS = tuple(struct.Struct(f"<B{delta}Q").pack for delta in ("B", "H", "HB"))


class MlyzeWriter(Writer[MlyzeHeader, MlyzeRecord]):
    """Writes a ``.mlyze`` trace that Memlyze reads, with the bytes that its own encoder gives (mlyze 9).

    ``alloc``, ``free``, ``gc`` and ``marker`` take stacks and names as text and number them in order of first
    use; ``write`` and ``write_all`` take records, with numbers.  Times are absolute microseconds since 1970;
    one before its predecessor is a ValueError, or, with ``clamp_time``, written as no step.

    The metadata stands before the events and is known only after them (erratum 2), so there are three ways:

    - ``stacks``, ``files`` and ``functions`` are given (as a MlyzeReader has them): events go straight to the file;
    - ``metadata_room`` bytes are left in the file, which must be seekable, and filled in by ``flush`` and
      ``close``: a writer that dies leaves a readable file behind;
    - else events are kept in ``spool``, a scratch binary file (by default memory), and written by ``close``.

    ``analyzer_markers`` numbers marker names from 2^20 on instead of with the functions: ``memlyze analyze`` does
    not read these numbers (erratum 3), and stays in step only where they take several bytes.
    """

    format = "mlyze"

    def __init__(
        self,
        file: WritableFile,
        *,
        start_us: int = 0,
        stacks: Optional[MlyzeStacks] = None,
        files: Optional[MlyzeNames] = None,
        functions: Optional[MlyzeNames] = None,
        metadata_room: Optional[int] = None,
        spool: Optional[IO[bytes]] = None,
        clamp_time: bool = False,
        analyzer_markers: bool = False,
    ) -> None:
        given = (stacks, files, functions) != (None, None, None)
        if given + (metadata_room is not None) + (spool is not None) > 1:
            raise ValueError("give the tables, metadata_room or spool, not several of them")
        self._header = MlyzeHeader(start_us=_unsigned("start_us", start_us, 64))
        self._set_tables(stacks or {}, files or {}, functions or {})
        text = _mlyze_metadata(self._stacks, self._files, self._functions)
        if metadata_room is not None and not len(text) <= metadata_room < 1 << 32:
            raise ValueError(f"metadata_room is not between {len(text)} bytes and 4 GiB: {metadata_room}")
        super().__init__(file, seek=metadata_room is not None)
        self._clock = start_us
        self._clamp_time = clamp_time
        self._marker_ids: Optional[Dict[str, int]] = {} if analyzer_markers else None
        self._fixed = given
        self._room = metadata_room
        self._used = len(text)
        self._spool: Optional[_Sink] = None
        if given:
            self._write_start(self._header, text.encode())
        elif metadata_room is not None:
            self._write_start(self._header, text.encode().ljust(metadata_room))
        else:
            self._spool = _Sink(spool or io.BytesIO())
            self._spool_origin = self._spool.file.tell()

    def alloc(self, time_us: int, address: int, size: int, stack: Union[int, MlyzeStack], thread_id: int) -> None:
        """``size`` bytes were allocated; ``stack`` is a number or calls (file, line, function), outermost first."""
        record = Alloc(time_us, address, size, stack if isinstance(stack, int) else 0, thread_id)
        if not isinstance(stack, int):
            self._event(record, self._clock)  # what is refused shall leave no stack behind
            record = record._replace(stack_id=self.stack_id(stack))
        self.write(record)

    def free(self, time_us: int, address: int) -> None:
        """The block at ``address`` was freed."""
        self.write(Free(time_us, address))

    def gc(self, time_us: int, objects: int, bytes: int = 0) -> None:
        """A garbage collection released ``objects`` objects, ``bytes`` bytes."""
        self.write(Gc(time_us, objects, bytes))

    def marker(self, time_us: int, name: Union[int, str]) -> None:
        """The program left a mark; ``name`` is its text, or a number of ``functions``."""
        record = Marker(time_us, name if isinstance(name, int) else 0)
        if not isinstance(name, int):
            self._event(record, self._clock)
            record = record._replace(name_id=self.marker_id(name))
        self.write(record)

    def stack_id(self, stack: MlyzeStack) -> int:
        """The number of a stack, which is added if it is new; names get theirs in the real encoder's order."""
        calls = tuple(stack)
        known = self._stack_ids.get(calls)
        if known is None:
            for call in calls:
                if [type(part) for part in call] != [str, int, str]:
                    raise TypeError(f"a call is (file, line, function), not {call!r}")
            frames = tuple([Frame(self.file_id(file), line, self.function_id(name)) for file, line, name in calls])
            text = json.dumps([frame._asdict() for frame in frames])
            known = self._stack_ids[calls] = self._add(self._stacks, frames, text)
        return known

    def file_id(self, name: str) -> int:
        """The number of a file name, which is added if it is new."""
        known = self._file_ids.get(name)
        if known is None:
            known = self._file_ids[name] = self._add(self._files, name, json.dumps(name))
        return known

    def function_id(self, name: str) -> int:
        """The number of a function or marker name, which is added if it is new."""
        known = self._function_ids.get(name)
        if known is None:
            known = self._function_ids[name] = self._add(self._functions, name, json.dumps(name))
        return known

    def marker_id(self, name: str) -> int:
        """The number of a marker name: that of the function so called, unless ``analyzer_markers`` are asked for."""
        if self._marker_ids is None:
            return self.function_id(name)
        known = self._marker_ids.get(name)
        if known is None:
            number = _MLYZE_MARKER_IDS + len(self._marker_ids)
            known = self._marker_ids[name] = self._add(self._functions, name, json.dumps(name), number)
        return known

    def _add(self, table: Dict[int, Any], value: object, text: str, number: Optional[int] = None) -> int:
        if not isinstance(value, (str, tuple)):
            raise TypeError(f"a name is text, not {value!r}")
        if self._fixed:
            raise ValueError(f"not in the metadata, which has been written: {value!r}")
        if number is None:
            number = len(table) - len(self._marker_ids or ()) * (table is self._functions)
        used = self._used + len(f'"{number}": {text}') + (2 if table else 0)
        if self._room is not None and used > self._room:
            raise ValueError(f"metadata_room of {self._room} bytes is full: {value!r}")
        self._used = used
        table[number] = value
        return number

    def _set_tables(self, stacks: MlyzeStacks, files: MlyzeNames, functions: MlyzeNames) -> None:
        self._stacks = {
            _unsigned("stack number", key, 7 * _VARINT_LIMIT): tuple(frames) for key, frames in stacks.items()
        }
        self._files = {_unsigned("file number", key, 7 * _VARINT_LIMIT): name for key, name in files.items()}
        self._functions = {
            _unsigned("function number", key, 7 * _VARINT_LIMIT): name for key, name in functions.items()
        }
        if not all(type(frame) is Frame for frames in self._stacks.values() for frame in frames):
            raise TypeError("a stack is a tuple of Frames")
        if not all(isinstance(name, str) for table in (files, functions) for name in table.values()):
            raise TypeError("a name is text")
        self._file_ids = {name: key for key, name in files.items()}
        self._function_ids = {name: key for key, name in functions.items()}
        self._stack_ids = {
            tuple([(files.get(file, ""), line, functions.get(name, "")) for file, line, name in frames]): key
            for key, frames in stacks.items()
        }

    def write_all(self, records: Iterable[MlyzeRecord]) -> None:
        """Write records in order; those of another class are a TypeError, impossible values a ValueError."""
        if self._closed:
            raise ValueError("the writer is closed")
        # Plain ALLOC and FREE are packed whole, in a third of the time of _event, which also finds what is wrong.
        out = self._spool or self._sink
        pieces: List[bytes] = []
        add = pieces.append
        clock = self._clock
        try:
            for record in records:
                piece = b""
                try:
                    if type(record) is Alloc:
                        time_us, address, size, stack_id, thread_id, raw = record
                        delta = time_us - clock
                        if 0 <= delta < 0x200000 and size < 0x200000 and stack_id < 0x4000 and not raw:
                            shape = delta_top = size_top = 0
                            if stack_id > 0x7F:
                                stack_id += (stack_id & 0x3F80) + 0x80
                                shape = 1
                            if size > 0x3FFF:
                                size_top = size >> 14
                                size = (size & 0x3FFF) + (size & 0x3F80) + 0x8080
                                shape += 4
                            elif size > 0x7F:
                                size += (size & 0x3F80) + 0x80
                                shape += 2
                            if delta > 0x3FFF:
                                delta_top = delta >> 14
                                delta = (delta & 0x3FFF) + (delta & 0x3F80) + 0x8080
                                shape += 12
                            elif delta > 0x7F:
                                delta += (delta & 0x3F80) + 0x80
                                shape += 6
                            pack = _MLYZE_ALLOC_PACKS[shape]
                            if not delta_top and not size_top:
                                piece = pack(_ALLOC, delta, address, size, stack_id, thread_id)
                            elif not delta_top:
                                piece = pack(_ALLOC, delta, address, size, size_top, stack_id, thread_id)
                            elif not size_top:
                                piece = pack(_ALLOC, delta, delta_top, address, size, stack_id, thread_id)
                            else:
                                piece = pack(_ALLOC, delta, delta_top, address, size, size_top, stack_id, thread_id)
                            clock = time_us
                    elif type(record) is Free:
                        time_us, address, raw = record
                        delta = time_us - clock
                        if 0 <= delta < 0x80 and not raw:
                            piece = _MLYZE_FREE_PACKS[0](_FREE, delta, address)
                            clock = time_us
                        elif 0 <= delta < 0x4000 and not raw:
                            piece = _MLYZE_FREE_PACKS[1](_FREE, delta + (delta & 0x3F80) + 0x80, address)
                            clock = time_us
                        elif 0 <= delta < 0x200000 and not raw:
                            low = (delta & 0x3FFF) + (delta & 0x3F80) + 0x8080
                            piece = _MLYZE_FREE_PACKS[2](_FREE, low, delta >> 14, address)
                            clock = time_us
                except (struct.error, TypeError):
                    pass
                if not piece:
                    piece = self._event(record, clock)
                    clock = max(clock, record.time_us)
                add(piece)
                if len(pieces) > 1000:
                    out.write(b"".join(pieces))
                    pieces.clear()
        finally:
            self._clock = clock
            out.write(b"".join(pieces))

    def _event(self, record: MlyzeRecord, clock: int) -> bytes:
        """The bytes of any event; raises ValueError or TypeError for what cannot be one."""
        if type(record) not in _MLYZE_KINDS:
            raise TypeError(f"not a record of mlyze: {record!r}")
        if record.raw:
            return bytes(memoryview(record.raw))  # raises TypeError for what is not bytes
        if record.time_us < clock and not self._clamp_time:
            raise ValueError(f"time_us is before that of the record before: {record.time_us} < {clock}")
        delta = _unsigned("the step of time_us", max(record.time_us - clock, 0), 64)
        start = bytes((_MLYZE_KINDS[type(record)],)) + encode_varint(delta)
        if isinstance(record, Alloc):
            return b"".join(
                (
                    start,
                    _U64.pack(_unsigned("address", record.address, 64)),
                    encode_varint(_unsigned("size", record.size, 64)),
                    encode_varint(_unsigned("stack_id", record.stack_id, 64)),
                    _U16.pack(_unsigned("thread_id", record.thread_id, 16)),
                )
            )
        if isinstance(record, Free):
            return start + _U64.pack(_unsigned("address", record.address, 64))
        if isinstance(record, Gc):
            objects = encode_varint(_unsigned("objects", record.objects, 64))
            return start + objects + encode_varint(_unsigned("bytes", record.bytes, 64))
        return start + encode_varint(_unsigned("name_id", record.name_id, 64))

    def _begin(self, header: MlyzeHeader, tables: Mapping[str, Any]) -> None:
        """Start with the header and tables of a document: ``stacks``, ``files``, ``functions``, ``metadata``."""
        if self._closed or self._spool is None or self._spool.file.tell() != self._spool_origin:
            raise ValueError("a document is the first thing written, and brings its own metadata")
        self._set_tables(tables.get("stacks", {}), tables.get("files", {}), tables.get("functions", {}))
        text = tables.get("metadata")
        metadata = self._metadata() if text is None else text.encode("utf-8", "surrogateescape")
        self._write_start(header, metadata)
        self._clock = header.start_us
        self._fixed = True
        self._spool = None

    def flush(self) -> None:
        """Hand what has been written to the operating system; with ``metadata_room``, the metadata too."""
        if self._room is not None:
            self._sink.patch(MLYZE_HEADER.size, self._metadata().ljust(self._room))
        super().flush()

    def _metadata(self) -> bytes:
        return _mlyze_metadata(self._stacks, self._files, self._functions).encode()

    def _finish(self) -> None:
        if self._spool is not None:
            self._write_start(self._header, self._metadata())
            spool = self._spool.file
            spool.seek(self._spool_origin)
            for piece in iter(lambda: spool.read(_CHUNK), b""):
                self._sink.write(piece)
        else:
            self.flush()

    def _write_start(self, header: MlyzeHeader, metadata: bytes) -> None:
        """Header and metadata.  Without metadata the header keeps its own claim, as a file cut there has it."""
        version, start_us, length, reserved = header
        length = len(metadata) or length
        if len(reserved) != 236:
            raise ValueError(f"reserved is not of 236 bytes: {len(reserved)}")
        version = _unsigned("version", version, 32)
        start_us = _unsigned("start_us", start_us, 64)
        length = _unsigned("metadata_length", length, 32)
        self._sink.write(MLYZE_HEADER.little.pack(MLYZE_MAGIC, version, start_us, length, reserved) + metadata)


# ---- mlyze: semantics


class _TracerClock:
    """The times of a stock tracer's events, in which each event of a batch repeats the whole step (erratum 4).

    A batch is a run of blocks (ALLOC, FREE) of one delta; a GC or MARKER is in it if the next block has that
    delta too, which is why these wait (mlyze 8.2).
    """

    def __init__(self, start_us: int) -> None:
        self._before_us = start_us  # the plain sum of deltas
        self._last_us = start_us  # what the next delta counts from
        self._batch: Optional[int] = None  # the delta of the open batch
        self._batch_us = self._inside_us = start_us  # the time of the open batch, and of the last event inside it
        self._waiting: List[Tuple[MlyzeRecord, int]] = []

    def feed(self, record: MlyzeRecord) -> List[Tuple[MlyzeRecord, int]]:
        """The records, in order and with their times, that this one settles: none, itself, or others before it too."""
        time_us = record[0]
        delta = time_us - self._before_us
        self._before_us = time_us
        if type(record) is not Alloc and type(record) is not Free:
            self._waiting.append((record, delta))
            return [] if self._batch is not None else self.end()
        settled = []
        if delta == self._batch:
            for waiting, step in self._waiting:
                self._inside_us += step
                settled.append((waiting, self._inside_us))
            self._waiting.clear()
        else:
            settled = self.end()
            if self._batch is not None:
                self._last_us = self._batch_us
            self._batch = delta
            self._batch_us = self._last_us + delta
            self._inside_us = self._last_us
        settled.append((record, self._batch_us))
        return settled

    def end(self) -> List[Tuple[MlyzeRecord, int]]:
        """Those that wait are outside of the batch, and end it."""
        if self._waiting and self._batch is not None:
            self._last_us = self._batch_us
            self._batch = None
        settled = []
        for record, step in self._waiting:
            self._last_us += step
            settled.append((record, self._last_us))
        self._waiting.clear()
        return settled


def mlyze_corrected_clock(records: Iterable[MlyzeRecord], start_us: int) -> Iterator[MlyzeRecord]:
    """The records of a stock tracer's file with the times at which they happened (mlyze 8.2).

    The plain sum of deltas, which a Reader gives, runs far ahead in such files.  Times may step back from a
    Gc or Marker to the block after it.  Holds back the Gc and Marker records between two blocks, no more.
    """
    clock = _TracerClock(start_us)
    for record in records:
        for settled, time_us in clock.feed(record):
            yield settled._replace(time_us=time_us)
    for settled, time_us in clock.end():
        yield settled._replace(time_us=time_us)


def mlyze_frame_label(reader: MlyzeReader, frame: Frame) -> str:
    """``function (file:line)``, or ``file:line`` where the function has no name (mlyze 8.5)."""
    file = reader.files.get(frame.file_id, f"file_{frame.file_id}")
    function = reader.functions.get(frame.func_id, f"func_{frame.func_id}")
    return f"{function} ({file}:{frame.line})" if function else f"{file}:{frame.line}"


def mlyze_stack_label(reader: MlyzeReader, stack_id: int) -> str:
    """Where a stack allocates: its last frame; ``stack_N`` where it is unknown or empty (erratum 13)."""
    frames = reader.stacks.get(stack_id)
    return mlyze_frame_label(reader, frames[-1]) if frames else f"stack_{stack_id}"


class MlyzeStackUse(NamedTuple):
    """What one stack allocated in all, what of it is live at the end, and how much was live at the peak."""

    stack_id: int
    allocs: int
    bytes: int
    live_blocks: int
    live_bytes: int
    peak_bytes: int


class MlyzeFunctionUse(NamedTuple):
    """What a function allocated itself, and what it and all it called did; recursion counts once (mlyze 8.5)."""

    function: str
    file: str
    self_allocs: int
    self_bytes: int
    total_allocs: int
    total_bytes: int


class MlyzeMark(NamedTuple):
    """A marker: its place among the events, from 0, and the bytes live at that point; ``name`` None if unknown."""

    event_index: int
    time_us: int
    name_id: int
    name: Optional[str]
    live_bytes: int


class MlyzeLeak(NamedTuple):
    """What one stack allocated and nobody freed before the trace ended."""

    stack_id: int
    blocks: int
    bytes: int
    oldest_us: int


class MlyzeTimeline(NamedTuple):
    """The largest number of live bytes in each of the buckets of ``bucket_us`` microseconds from ``start_us`` on."""

    start_us: int
    bucket_us: int
    live_bytes: Tuple[int, ...]


class MlyzeAnalysis(NamedTuple):
    """What a trace says about its program's memory (mlyze 8); sizes in bytes, times in microseconds.

    In a file without addresses (``addressed`` False: the stock tracer's) live bytes, peak, leaks and frees
    are not known and count as 0; ``tracer_end_time_us`` and ``tracer_marker_times_us`` are by the corrected clock.
    """

    counts: Dict[str, int]
    duration_us: int
    end_time_us: int
    addressed: bool
    tracer_end_time_us: Optional[int]
    tracer_marker_times_us: Tuple[int, ...]
    total_allocated_bytes: int
    unaddressed: Dict[str, int]
    matched_frees: int
    freed_bytes: int
    unmatched_frees: int
    replaced_blocks: int
    replaced_bytes: int
    temporary_allocs: int
    live_at_end: Dict[str, int]
    peak: Dict[str, Optional[int]]
    gc: Dict[str, int]
    threads: Dict[int, Dict[str, int]]
    by_stack: Tuple[MlyzeStackUse, ...]
    by_function: Tuple[MlyzeFunctionUse, ...]
    leaks: Tuple[MlyzeLeak, ...]
    timeline: MlyzeTimeline
    markers: Tuple[MlyzeMark, ...]
    dangling: Dict[str, List[int]]


def mlyze_analysis(reader: MlyzeReader, *, min_age_us: int = 0) -> MlyzeAnalysis:
    """Read all records and add them up by the rules of mlyze 8.

    ``min_age_us``: of the blocks live at the end only those at least this old count as ``leaks``.
    """
    # State after each event (mlyze 8.3).  ``allocs`` and ``sizes`` count by stack and thread in one number, which
    # measured faster than by each.  ``since`` is what each stack's live bytes have changed by since the peak, so
    # that a new peak costs no more than clearing it.
    live: Dict[int, Alloc] = {}
    allocs: Dict[int, int] = {}
    sizes: Dict[int, int] = {}
    since: Dict[int, int] = {}
    markers: List[MlyzeMark] = []
    header = reader.header
    timeline = _Buckets(header.start_us)
    tracer: Optional[_TracerClock] = _TracerClock(header.start_us)
    tracer_marks: List[int] = []
    tracer_end_us = time_us = header.start_us
    live_bytes = high = peak = peak_blocks = peak_time = 0
    peak_index = index = latest = -1
    matched = freed_bytes = unmatched = replaced = replaced_bytes = temporary = 0
    no_address = [0, 0, 0]
    gc = [0, 0, 0]
    bucket_end = timeline.end
    for index, record in enumerate(reader):
        time_us = record[0]
        if time_us >= bucket_end:
            bucket_end = timeline.advance(time_us, high, live_bytes)
            high = live_bytes
        if type(record) is Alloc:
            _, address, size, stack_id, thread_id, _ = record
            use = stack_id << 16 | thread_id
            if use in allocs:
                allocs[use] += 1
                sizes[use] += size
            else:
                allocs[use] = 1
                sizes[use] = size
            latest = address
            if address:
                if address in live:
                    block = live[address]
                    replaced += 1
                    replaced_bytes += block.size
                    live_bytes -= block.size
                    since[block.stack_id] = since.get(block.stack_id, 0) - block.size
                live[address] = record
                live_bytes += size
                if live_bytes > high:
                    high = live_bytes
                if live_bytes > peak:
                    peak = live_bytes
                    peak_index = index
                    peak_time = time_us
                    peak_blocks = len(live)
                    since.clear()
                else:
                    since[stack_id] = since.get(stack_id, 0) + size
                tracer = None
            else:
                no_address[0] += 1
                no_address[1] += size
        elif type(record) is Free:
            address = record[1]
            if address in live:
                block = live.pop(address)
                size = block[2]
                stack_id = block[3]
                matched += 1
                freed_bytes += size
                live_bytes -= size
                since[stack_id] = since.get(stack_id, 0) - size
                if address == latest:
                    temporary += 1
            elif address:
                unmatched += 1
                tracer = None
            else:
                no_address[2] += 1
            latest = -1
        elif type(record) is Gc:
            gc[0] += 1
            gc[1] += record.objects
            gc[2] += record.bytes
        else:
            name_id = cast("Marker", record).name_id
            markers.append(MlyzeMark(index, time_us, name_id, reader.functions.get(name_id), live_bytes))
        if tracer is not None:
            tracer_end_us = max(tracer_end_us, _settle(tracer.feed(record), tracer_marks))
    timeline.advance(time_us, high, live_bytes)
    by_thread: Dict[int, List[int]] = {use & 0xFFFF: [0, 0] for use in sorted(allocs, key=lambda use: use & 0xFFFF)}
    by_stack: Dict[int, List[int]] = {use >> 16: [0, 0] for use in allocs}
    for use, number in allocs.items():
        for total in (by_stack[use >> 16], by_thread[use & 0xFFFF]):
            total[0] += number
            total[1] += sizes[use]
    uses = _mlyze_stack_uses(by_stack, live.values(), since)
    addressed = tracer is None
    if tracer is not None:
        tracer_end_us = max(tracer_end_us, _settle(tracer.end(), tracer_marks))
    return MlyzeAnalysis(
        counts={
            "alloc": sum(use.allocs for use in uses),
            "free": matched + unmatched + no_address[2],
            "gc": gc[0],
            "marker": len(markers),
        },
        duration_us=time_us - header.start_us,
        end_time_us=time_us,
        addressed=addressed,
        tracer_end_time_us=None if addressed or index < 0 else tracer_end_us,
        tracer_marker_times_us=() if addressed else tuple(tracer_marks),
        total_allocated_bytes=sum(use.bytes for use in uses),
        unaddressed=dict(zip(("allocs", "bytes", "frees"), no_address)),
        matched_frees=matched,
        freed_bytes=freed_bytes,
        unmatched_frees=unmatched,
        replaced_blocks=replaced,
        replaced_bytes=replaced_bytes,
        temporary_allocs=temporary,
        live_at_end={"blocks": len(live), "bytes": live_bytes},
        peak={
            "bytes": peak,
            "blocks": peak_blocks,
            "event_index": peak_index,
            "time_us": peak_time if peak_index >= 0 else None,
        },
        gc=dict(zip(("collections", "objects", "bytes"), gc)),
        threads={thread_id: dict(zip(("allocs", "bytes"), total)) for thread_id, total in by_thread.items()},
        by_stack=uses,
        by_function=_mlyze_function_uses(reader, uses),
        leaks=_mlyze_leaks(block for block in live.values() if time_us - block.time_us >= min_age_us),
        timeline=MlyzeTimeline(timeline.start, timeline.width, tuple(timeline.values)),
        markers=tuple(markers),
        dangling=_mlyze_dangling(reader, uses, markers),
    )


def _settle(settled: Iterable[Tuple[MlyzeRecord, int]], marks: List[int]) -> int:
    """The latest of some corrected times, 0 for none; those of markers are added to ``marks``."""
    latest = 0
    for record, time_us in settled:
        latest = max(latest, time_us)
        if type(record) is Marker:
            marks.append(time_us)
    return latest


def _mlyze_stack_uses(
    by_stack: Mapping[int, Sequence[int]], live: Iterable[Alloc], since: Mapping[int, int]
) -> Tuple[MlyzeStackUse, ...]:
    """Sorted by bytes, then allocations, both falling, then number (mlyze 8.5)."""
    left: Dict[int, List[int]] = {stack_id: [0, 0] for stack_id in by_stack}
    for block in live:
        left[block.stack_id][0] += 1
        left[block.stack_id][1] += block.size
    uses = []
    for stack_id, (allocs, size) in by_stack.items():
        live_blocks, live_bytes = left[stack_id]
        peak_bytes = live_bytes - since.get(stack_id, 0)
        uses.append(MlyzeStackUse(stack_id, allocs, size, live_blocks, live_bytes, peak_bytes))
    return tuple(sorted(uses, key=lambda use: (-use.bytes, -use.allocs, use.stack_id)))


def _mlyze_function_uses(reader: MlyzeReader, uses: Iterable[MlyzeStackUse]) -> Tuple[MlyzeFunctionUse, ...]:
    """Of the functions in known stacks, sorted by their own bytes, then by all of theirs."""
    totals: Dict[Tuple[int, int], List[int]] = {}
    for use in uses:
        frames = reader.stacks.get(use.stack_id, ())
        calls = [(frame.func_id, frame.file_id) for frame in frames]
        for call in set(calls):
            total = totals.setdefault(call, [0, 0, 0, 0])
            own = call == calls[-1]
            total[0] += own * use.allocs
            total[1] += own * use.bytes
            total[2] += use.allocs
            total[3] += use.bytes
    functions = [
        MlyzeFunctionUse(
            reader.functions.get(func_id, f"func_{func_id}"), reader.files.get(file_id, f"file_{file_id}"), *total
        )
        for (func_id, file_id), total in totals.items()
    ]
    return tuple(sorted(functions, key=lambda use: (-use.self_bytes, -use.total_bytes, use.function, use.file)))


def _mlyze_leaks(blocks: Iterable[Alloc]) -> Tuple[MlyzeLeak, ...]:
    """Grouped by stack, sorted by bytes, then blocks, both falling, then number (mlyze 8.4)."""
    leaks: Dict[int, MlyzeLeak] = {}
    for block in blocks:
        leak = leaks.get(block.stack_id, MlyzeLeak(block.stack_id, 0, 0, block.time_us))
        oldest_us = min(leak.oldest_us, block.time_us)
        leaks[block.stack_id] = MlyzeLeak(block.stack_id, leak.blocks + 1, leak.bytes + block.size, oldest_us)
    return tuple(sorted(leaks.values(), key=lambda leak: (-leak.bytes, -leak.blocks, leak.stack_id)))


def _mlyze_dangling(
    reader: MlyzeReader, uses: Iterable[MlyzeStackUse], markers: Iterable[MlyzeMark]
) -> Dict[str, List[int]]:
    """The numbers that are referred to and missing from the metadata, by kind (erratum 1)."""
    frames = [frame for stack in reader.stacks.values() for frame in stack]
    return {
        "stack_ids": sorted({use.stack_id for use in uses} - reader.stacks.keys()),
        "file_ids": sorted({frame.file_id for frame in frames} - reader.files.keys()),
        "func_ids": sorted({frame.func_id for frame in frames} - reader.functions.keys()),
        "marker_name_ids": sorted({mark.name_id for mark in markers if mark.name is None}),
    }


# ==== 6. Registry: FORMATS, detect, open, explain =====================================================


class Format(NamedTuple):
    """What the module knows of one format.

    ``matches`` tells from the first bytes of a file whether it is of this format.  ``header``, ``records``
    and ``tables`` are the types of a document's parts; ``explanation`` is the walk behind ``explain``.
    """

    name: str
    title: str
    extensions: Tuple[str, ...]
    matches: Callable[[bytes], bool]
    reader: Type[Reader[Any, Any]]
    writer: Type[Writer[Any, Any]]
    explanation: Callable[[_Walk], Iterator[None]]
    header: type
    records: Tuple[type, ...]
    tables: Mapping[str, Any]


FORMATS: Dict[str, Format] = {
    "mlyze": Format(
        "mlyze",
        "memory trace of Memlyze, a tracer of Python memory",
        (".mlyze",),
        lambda prefix: prefix.startswith(MLYZE_MAGIC),
        MlyzeReader,
        MlyzeWriter,
        _explain_mlyze,
        MlyzeHeader,
        (Alloc, Free, Gc, Marker),
        {
            "stacks": Dict[int, Tuple[Frame, ...]],
            "files": Dict[int, str],
            "functions": Dict[int, str],
            "metadata": Optional[str],
        },
    ),
}

_PREFIX = 4096  # bytes that detection looks at


def detect(file: Union[ReadableFile, bytes]) -> Optional[str]:
    """The name of the format of a file, path or bytes, by content; None if it is none of ``FORMATS``.

    Looks through gzip, and puts a seekable file back to where it was; of another file the bytes are gone.
    """
    if isinstance(file, bytes):
        return detect(io.BytesIO(file))
    place = None
    if hasattr(file, "seekable") and file.seekable():
        place = cast("IO[bytes]", file).tell()
    source = _source(file, DEFAULT_MAX_BYTES)
    prefix = source.peek(_PREFIX)
    if place is not None:
        cast("IO[bytes]", file).seek(place)
    if source is not file:
        source.close()
    return next((format.name for format in FORMATS.values() if format.matches(prefix)), None)


def _known(format: Optional[str], source: _Source) -> Format:
    """The format by name, else by content, else, of an empty file, by extension."""
    name = format or detect(source)
    if name is None and source.error is not None:
        raise source.error
    if name is None and not source.peek(1):
        name = next((f.name for f in FORMATS.values() if source.name.endswith(f.extensions)), None)
    if name is None:
        if not source.peek(1):
            raise TruncatedError("unknown", "truncated", 0, "", "empty file")
        raise FormatError("unknown", "bad-magic", 0, "", f"none of the formats {', '.join(FORMATS)}")
    if name not in FORMATS:
        raise ValueError(f"no format is called {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]


@overload
def open(file: ReadableFile, mode: Literal["r"], format: Literal["mlyze"], **options: Any) -> MlyzeReader: ...


@overload
def open(file: WritableFile, mode: Literal["w"], format: Literal["mlyze"], **options: Any) -> MlyzeWriter: ...


@overload
def open(
    file: ReadableFile, mode: Literal["r"] = "r", format: Optional[str] = None, **options: Any
) -> Reader[Any, Any]: ...


@overload
def open(file: WritableFile, mode: Literal["w"], format: Optional[str] = None, **options: Any) -> Writer[Any, Any]: ...


def open(
    file: Any, mode: Literal["r", "w"] = "r", format: Optional[str] = None, **options: Any
) -> Union[Reader[Any, Any], Writer[Any, Any]]:
    """Open a file for reading (``mode`` "r") or writing ("w") and return its Reader or Writer.

    ``file`` is a path or a binary file.  When reading, the format is found by content unless it is given;
    when writing it is given, or found by the path's extension.  ``options`` go to the Reader or Writer.
    Raises FormatError for a file of no known format.
    """
    if mode == "w":
        name = format or next((f.name for f in FORMATS.values() if str(file).endswith(f.extensions)), "")
        if name not in FORMATS:
            raise ValueError(f"give the format to write, one of: {', '.join(FORMATS)}")
        return FORMATS[name].writer(file, **options)
    if mode != "r":
        raise ValueError(f"mode is 'r' or 'w', not {mode!r}")
    source = _source(file, options.get("max_bytes", DEFAULT_MAX_BYTES))
    try:
        return _known(format, source).reader(source, **options)
    except BaseException:
        source.close()
        raise


def explain(file: ReadableFile, format: Optional[str] = None, *, recover: bool = False) -> Iterator[Span]:
    """Every byte of a file, field by field: yields Spans that cover it from the first byte to the last.

    ``file`` is a path or a binary file; it is read into memory.  Content raises nothing: at a fault the last
    Span is of type ``unread`` and tells the FormatError that the Reader raises there.  With ``recover``, faults
    that the Reader steps over are notes.
    """
    _, spans = _explain(_source(file, DEFAULT_MAX_BYTES), format, recover=recover)
    return spans


def _explain(source: _Source, format: Optional[str], *, recover: bool) -> Tuple[_Walk, Iterator[Span]]:
    """The walk, which holds the bytes, and the spans."""
    unknown: Optional[FormatError] = None
    try:
        known = _known(format, source)
        walk = _Walk(known.name, known.reader.rules, source.rest(), recover=recover)
    except FormatError as error:
        unknown = error
        walk = _Walk(error.format, _COMMON_RULES, source.rest(), recover=recover)
    finally:
        source.close()

    def spans() -> Iterator[Span]:
        try:
            if unknown is not None:
                raise unknown
            for _ in known.explanation(walk):
                yield from walk.drain()
            if source.error is not None:
                raise source.error
        except TruncatedError as error:
            walk.unread(source.error or error)
        except FormatError as error:
            walk.unread(error)
        yield from walk.drain()

    return walk, spans()


# ==== 7. JSON documents: decode, encode ===============================================================
#
# {"format": ..., "schema": 1, "header": {...}, <tables>, "records": [...], "problems": [...], "tail": "hex"}.
# A NamedTuple is an object with its field names as keys; fields at their default are left out; a record also
# tells its class.  Bytes are lower-case hex, text that is not UTF-8 has lone surrogates.

_SCHEMA = 1


def _to_json(value: Any) -> Any:
    """What ``json.dumps`` takes, of any value in a document."""
    fields = getattr(value, "_fields", None)
    if fields is not None:
        usual = value._field_defaults
        return {
            name: _to_json(item)
            for name, item in zip(fields, value)
            if name not in usual or item != usual[name] or type(item) is not type(usual[name])
        }
    if isinstance(value, (list, tuple)):
        return [_to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _to_json(item) for key, item in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def _record_to_json(record: Any) -> str:
    return json.dumps({"record": type(record).__name__, **_to_json(record)})


def decode(reader: Reader[Any, Any], *, lines: bool = False) -> Iterator[str]:
    """The JSON document of all that a reader reads, as pieces of ASCII text, a record a line.

    ``lines``: JSON Lines instead: first the document without records, then each record, then problems and
    tail.  Either way memory stays constant, but for a tail.  A table that is None before the records, and is
    known after them, goes to the end.
    """
    tables = {name: value for name, value in reader.tables.items() if value is not None}
    start = json.dumps(
        {"format": reader.format, "schema": _SCHEMA, "header": _to_json(reader.header), **_to_json(tables)}
    )
    yield start + "\n" if lines else start[:-1] + ', "records": ['
    comma = "\n"
    for record in reader:
        if lines:
            yield _record_to_json(record) + "\n"
        else:
            yield comma + _record_to_json(record)
            comma = ",\n"
    late = {name: value for name, value in reader.tables.items() if value is not None and name not in tables}
    end = json.dumps({**_to_json(late), "problems": _to_json(reader.problems), "tail": reader.tail.hex()}) + "\n"
    yield end if lines else "\n], " + end[1:]


def encode(text: Iterable[Union[str, bytes]], file: WritableFile) -> None:
    """Write the binary file of a JSON document as ``decode`` gives it, whole or as JSON Lines.

    ``text`` yields lines, as an open file or ``decode`` does; JSON Lines are taken one at a time.  ``problems`` are
    not looked at.  Raises FormatError (format ``json``) for what is no such document; ``file`` is then incomplete.
    """
    if isinstance(text, (str, bytes)):
        raise TypeError("text is not one string, but lines: an open file or a list")
    document = _JsonDocument(line.encode() if isinstance(line, str) else line for line in text)
    writer = document.format.writer(file)
    try:
        writer._begin(document.header, document.tables)
    except (ValueError, TypeError) as error:
        writer._abandon()
        raise _bad_json(document.where, str(error)) from None
    with writer:
        try:
            writer.write_all(document.records())
        except FormatError:
            raise
        except (ValueError, TypeError) as error:
            raise _bad_json(document.where, str(error), offset=document.offset) from None
        writer._end(document.tables, document.tail)


class _JsonDocument:
    """A document as it comes in: format, header and tables first, then ``records()``, and last ``tail``.

    ``where`` and ``offset`` tell the part that was taken last; of a document that is not JSON Lines the offset is 0.
    """

    def __init__(self, text: Iterable[bytes]) -> None:
        lines = iter(text)
        first = next(lines, b"")
        try:
            head = _json_object(first, 0)
        except FormatError:
            head = {"records": None}
        whole = "records" in head
        if whole:
            head = _json_object(first + b"".join(lines), 0)
        name = head.pop("format", None)
        if type(name) is not str or name not in FORMATS or _from_json(int, head.pop("schema", 0), "schema") != _SCHEMA:
            raise _bad_json("format", f"not a document of schema {_SCHEMA} and one of the formats {', '.join(FORMATS)}")
        self.format = FORMATS[name]
        self.where = "header"
        self.offset = 0
        self.header = _from_json(self.format.header, head.pop("header", None), "header")
        self.tables: Dict[str, Any] = {}
        self.tail = b""
        self._ended = False
        self._items: Iterator[Tuple[int, Any]] = _json_lines(lines, len(first))
        if whole:
            self._items = iter([(0, item) for item in _from_json(List[object], head.pop("records", []), "records")])
            self._take_end(head)
        else:
            self._take_tables(head)
            self._refuse_rest(head)

    def records(self) -> Iterator[Any]:
        kinds = {kind.__name__: kind for kind in self.format.records}
        lines = not self._ended
        done = 0
        for offset, item in self._items:
            self.offset = offset
            self.where = f"records[{done}]"
            if lines and self._ended:
                raise _bad_json(self.where, "stands after the end of the document", offset=offset)
            if lines and "record" not in item and "tail" in item:
                self._take_end(item)
                continue
            name = item.pop("record", None) if isinstance(item, dict) else None
            if type(name) is not str or name not in kinds:
                raise _bad_json(self.where, f"not a record of {self.format.name}", offset=offset)
            yield _from_json(kinds[name], item, self.where, offset)
            done += 1
        if not self._ended:
            raise _bad_json("tail", "the document has no end: a last line with its tail", "truncated", self.offset)

    def _take_end(self, end: Dict[str, Any]) -> None:
        self._take_tables(end)
        end.pop("problems", None)
        self.tail = _from_json(bytes, end.pop("tail", ""), "tail")
        self._refuse_rest(end)
        self._ended = True

    def _take_tables(self, parts: Dict[str, Any]) -> None:
        for name, hint in self.format.tables.items():
            if name in parts:
                self.tables[name] = _from_json(hint, parts.pop(name), name)

    def _refuse_rest(self, parts: Dict[str, Any]) -> None:
        if parts:
            raise _bad_json("", f"unknown key {json.dumps(next(iter(parts))[:40])}")


def _json_lines(lines: Iterable[bytes], offset: int) -> Iterator[Tuple[int, Any]]:
    """The objects of JSON Lines with their offsets; empty lines are passed over."""
    for line in lines:
        if line.strip():
            yield offset, _json_object(line, offset)
        offset += len(line)


def _bad_json(where: str, reason: str, code: str = "bad-value", offset: int = 0) -> FormatError:
    return _error("json", code, offset, where, reason)


def _json_object(text: bytes, offset: int) -> Dict[str, Any]:
    try:
        value = _parse_json(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _bad_json("", f"not UTF-8: {error.reason}", "bad-utf8", offset + error.start) from None
    except json.JSONDecodeError as error:
        raise _bad_json("", error.msg, "bad-json", offset + len(error.doc[: error.pos].encode())) from None
    return cast("Dict[str, Any]", _from_json(Dict[str, object], value, "", offset))


_HINTS: Dict[type, Dict[str, Any]] = {}  # filled by _from_json: the field types of each NamedTuple


def _from_json(hint: Any, value: Any, where: str, offset: int = 0) -> Any:
    """A value of the type ``hint`` from its JSON form, the reverse of _to_json; ``offset`` is for errors."""
    if hint is object or (hint in (int, str, bool) and type(value) is hint):
        return value
    origin = get_origin(hint)
    inner = get_args(hint)
    if hint is bytes and isinstance(value, str):
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise _bad_json(where, "not hexadecimal", offset=offset) from None
    if origin is Union:
        return None if value is None else _from_json(inner[0], value, where, offset)
    if origin in (tuple, list) and isinstance(value, list):
        return origin([_from_json(inner[0], item, f"{where}[{place}]", offset) for place, item in enumerate(value)])
    if origin is dict and isinstance(value, dict):
        made = {}
        for key, item in value.items():
            number = key if inner[0] is str else _decimal(key)
            if number is None:
                raise _bad_json(where, f"not a number: {json.dumps(key[:40])}", offset=offset)
            made[number] = _from_json(inner[1], item, f"{where}[{key}]", offset)
        return made
    if hasattr(hint, "_fields") and isinstance(value, dict):
        hints = _HINTS.get(hint) or _HINTS.setdefault(hint, get_type_hints(hint))
        unknown = [key for key in value if key not in hints]
        missing = [key for key in hints if key not in value and key not in hint._field_defaults]
        if unknown or missing:
            reason = f"unknown key {json.dumps(unknown[0][:40])}" if unknown else f"no key {missing[0]!r}"
            raise _bad_json(where, reason, offset=offset)
        return hint(**{key: _from_json(hints[key], item, f"{where}.{key}", offset) for key, item in value.items()})
    raise _bad_json(where, f"not of type {getattr(hint, '__name__', hint)}", offset=offset)


# ==== 8. Exports: each original tool's own output =====================================================


def _mlyze_upstream_report(source: _Source, name: str) -> Tuple[List[str], bool]:
    """What ``memlyze analyze`` prints, without colours, and whether it succeeds: its defects too (mlyze 6.3, 8.6)."""
    data = source.rest()
    lines = ["  Memlyze v0.1.0 | Trace Analyzer", "  TRACE FILE", f"  └─ {name}"]
    if data[:4] != MLYZE_MAGIC:
        return [*lines, "  ERROR", "  └─ Invalid file format"], False
    lines += [
        "  FILE INFO",
        f"  ├─ Size           : {len(data):,} bytes ({len(data) / 1024:.2f} KB)",
        "  ├─ Format         : Valid Memlyze file",
        "  └─ Version        : 1",
    ]
    try:
        lines.extend(_mlyze_upstream_numbers(data))
    except (struct.error, ValueError, AttributeError, TypeError, KeyError, ZeroDivisionError) as error:
        return [*lines, "  ERROR", f"  └─ Failed to parse: {error}"], False
    return [*lines, "  Analysis complete. Use --detailed for more info (coming soon)"], True


def _mlyze_upstream_numbers(data: bytes) -> Iterator[str]:
    """The report from the number of events on; raises what the analyzer stumbles over."""
    (length,) = struct.unpack("<I", data[16:20])
    metadata = _parse_json(data[256 : 256 + length].decode("utf-8"))
    counts, blocks, by_stack = _mlyze_upstream_events(data, 256 + length)
    left = [size for size, freed in blocks.values() if not freed]
    total = sum(size for size, _ in blocks.values())
    yield "  EVENTS PARSED"
    yield f"  ├─ Total Events   : {sum(counts):,}"
    yield f"  ├─ Allocations    : {counts[_ALLOC]:,}"
    yield f"  ├─ Deallocations  : {counts[_FREE]:,}"
    yield f"  └─ GC Events      : {counts[_GC]:,}"
    yield "  LEAK DETECTION"
    yield f"  ├─ Still Allocated: {len(left):,}"
    yield f"  └─ Total Size     : {sum(left):,} bytes ({sum(left) / 1024:.1f} KB)"
    top = sorted(by_stack, key=lambda stack_id: -by_stack[stack_id])[:5]
    for place, stack_id in enumerate(top, 1):
        if place == 1:
            yield "  TOP ALLOCATORS"
        share = by_stack[stack_id] / sum(by_stack.values()) * 100
        label = _mlyze_upstream_label(metadata, stack_id)
        branch = "└" if place == len(top) else "├"
        yield f"  {branch}─ #{place}: {by_stack[stack_id]:10,} bytes ({share:5.1f}%) - {label}"
    yield "  MEMORY STATISTICS"
    yield f"  ├─ Total Allocated: {total:,} bytes ({total / 1024:.1f} KB)"
    yield f"  ├─ Total Freed    : {total - sum(left):,} bytes ({(total - sum(left)) / 1024:.1f} KB)"
    yield f"  └─ Still in Use   : {sum(left):,} bytes ({sum(left) / 1024:.1f} KB)"
    if sum(left) > 102_400:
        yield "  RECOMMENDATIONS"
        if sum(left) > 1_048_576:
            yield f"  └─ CRITICAL: Significant memory leak detected ({sum(left) / 1_048_576:.1f} MB)"
        else:
            yield f"  └─ WARNING: Potential memory leak ({sum(left) / 1024:.1f} KB)"


def _mlyze_upstream_events(data: bytes, at: int) -> Tuple[List[int], Dict[int, Tuple[int, bool]], Dict[int, int]]:
    """The analyzer's loop: events by type (any other last), the last block of each address, bytes by stack.

    It reads no name of a MARKER and takes it for the next event (erratum 3); in a varint that the file cuts
    it finds 0.
    """

    def varint() -> int:
        nonlocal at
        try:
            value, at = decode_varint(data, at)
        except IndexError:
            value, at = 0, len(data)
        except OverflowError as error:
            raise ValueError(str(error)) from None
        return value

    counts = [0, 0, 0, 0]
    blocks: Dict[int, Tuple[int, bool]] = {}
    by_stack: Dict[int, int] = {}
    while at < len(data):
        kind = data[at]
        at += 1
        varint()
        counts[min(kind, _MARKER)] += 1
        if kind in (_ALLOC, _FREE):
            (address,) = struct.unpack("<Q", data[at : at + 8])
            at += 8
        if kind == _ALLOC:
            blocks[address] = (varint(), False)
            stack_id = varint()
            struct.unpack("<H", data[at : at + 2])
            at += 2
            by_stack[stack_id] = by_stack.get(stack_id, 0) + blocks[address][0]
        elif kind == _FREE:
            if address in blocks:
                blocks[address] = (blocks[address][0], True)
        elif kind == _GC:
            varint()
            varint()
    return counts, blocks, by_stack


def _mlyze_upstream_label(metadata: Any, stack_id: int) -> str:
    frames = metadata.get("stack_traces", {}).get(str(stack_id))
    if not frames:
        return f"stack_{stack_id}" if frames is None else "unknown"
    file = metadata.get("files", {}).get(str(frames[0]["file_id"]), "unknown")
    function = metadata.get("functions", {}).get(str(frames[0]["func_id"]), "unknown")
    return f"{file.rpartition('/')[2]}:{frames[0]['line']} {function}()"[:50]


# ==== 9. Statistics: what info and stats print ========================================================

_Options = Any  # an argparse.Namespace; argparse is imported by the command line alone
_BARS = "▁▂▃▄▅▆▇█"
_PLAIN = str.maketrans(_BARS + "├└─", "_.:-=+*#|`-")  # for terminals that lack them


def _sparkline(values: Sequence[int]) -> str:
    """A curve of one line; the lowest bar is for 0 alone."""
    top = max(values)
    return "".join(_BARS[-(-value * 7 // top) if top else 0] for value in values)


def _size(value: int) -> str:
    """Bytes for people.

    >>> _size(374332), _size(1023)
    ('365.5 KiB', '1,023 bytes')
    """
    unit = min((value.bit_length() - 1) // 10, 6)
    if unit < 1:
        return f"{value:,} bytes"
    tenths = 10 * value >> 10 * unit
    return f"{tenths // 10:,}.{tenths % 10} {'KMGTPE'[unit - 1]}iB"


def _duration(value_us: int) -> str:
    """A time span for people.

    >>> _duration(71545)
    '71.545 ms'
    """
    if value_us < 1000:
        return f"{value_us} us"
    if value_us < 1_000_000:
        return f"{value_us // 1000}.{value_us % 1000:03d} ms"
    return f"{value_us // 1_000_000:,}.{value_us % 1_000_000 // 1000:03d} s"


def _many(number: int, noun: str) -> str:
    """A number with its noun.

    >>> _many(1, "block"), _many(2000, "block")
    ('1 block', '2,000 blocks')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _printable(text: str) -> str:
    """Text of a file for a terminal: what is not printable is escaped; of very long text the start."""
    shown = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text[:1000])
    return shown if len(text) <= 1000 else shown + "..."


def _facts(facts: Iterable[Tuple[str, str]]) -> Iterator[str]:
    """Lines of a name and a text."""
    for name, text in facts:
        yield f"  {name:<12}{text}"


def _table(
    title: str, head: Sequence[str], rows: Sequence[R], cells: Callable[[R], Sequence[str]], top: int
) -> Iterator[str]:
    """A table of the first ``top`` rows; the last column is text, the others are numbers."""
    if rows:
        yield ""
        yield title + (f" (the first {top:,} of {len(rows):,})" if len(rows) > top else "")
        lines = [head, *map(cells, rows[:top])]
        widths = [max(map(len, column)) for column in zip(*lines)]
        for *numbers, text in lines:
            yield "  " + "".join(f"{cell:>{width}}  " for cell, width in zip(numbers, widths)) + text


def _mlyze_info(reader: MlyzeReader) -> Iterator[Tuple[str, str]]:
    """What ``info`` tells of a trace."""
    counts = dict.fromkeys(MLYZE_EVENTS.values(), 0)
    addressed = False
    time_us = reader.header.start_us
    for record in reader:
        counts[MLYZE_EVENTS[_MLYZE_KINDS[type(record)]]] += 1
        addressed = addressed or (isinstance(record, (Alloc, Free)) and record.address != 0)
        time_us = record.time_us
    blocks = counts["ALLOC"] + counts["FREE"]
    yield "version", str(reader.header.version)
    yield "started", _utc(reader.header.start_us)
    yield (
        "lasts",
        _duration(time_us - reader.header.start_us)
        + (
            ""
            if addressed or not blocks
            else " by its deltas, which count the steps of a stock tracer several times over"
        ),
    )
    yield "events", f"{sum(counts.values()):,}: " + ", ".join(f"{number:,} {name}" for name, number in counts.items())
    yield "addresses", "yes" if addressed else "none: what was freed is not known, as in all files of the stock tracer"
    yield (
        "names",
        ", ".join(
            (
                _many(len(reader.stacks), "stack"),
                _many(len(reader.files), "file"),
                _many(len(reader.functions), "function"),
            )
        ),
    )


def _mlyze_stats(reader: MlyzeReader, options: _Options) -> Iterator[str]:
    """What ``stats`` prints of a trace."""
    found = mlyze_analysis(reader, min_age_us=options.min_age)
    counts = found.counts
    start_us = reader.header.start_us
    events = _many(sum(counts.values()), "event")
    end_us = found.tracer_end_time_us or found.end_time_us
    yield f"{events} in {_duration(end_us - start_us)} from {_utc(start_us)}"
    yield from _facts(_mlyze_facts(found, start_us))
    yield from _table(
        "Left at the end, by stack",
        ("bytes", "blocks", "oldest at", "where"),
        found.leaks,
        lambda leak: (
            f"{leak.bytes:,}",
            f"{leak.blocks:,}",
            f"+{_duration(leak.oldest_us - start_us)}",
            _printable(mlyze_stack_label(reader, leak.stack_id)),
        ),
        options.top,
    )
    yield from _table(
        "Allocated, by stack" if found.addressed else "Grown, by stack",
        ("bytes", "times", "at the peak", "where"),
        found.by_stack,
        lambda use: (
            f"{use.bytes:,}",
            f"{use.allocs:,}",
            f"{use.peak_bytes:,}" if found.addressed else "?",
            _printable(mlyze_stack_label(reader, use.stack_id)),
        ),
        options.top,
    )
    yield from _table(
        "Allocated, by function",
        ("own bytes", "with callees", "function"),
        found.by_function,
        lambda use: (f"{use.self_bytes:,}", f"{use.total_bytes:,}", _printable(f"{use.function} ({use.file})".strip())),
        options.top,
    )
    yield from _table(
        "Allocated, by thread" if found.addressed else "Grown, by thread",
        ("bytes", "times", "thread"),
        sorted(found.threads.items(), key=lambda item: -item[1]["bytes"]),
        lambda item: (f"{item[1]['bytes']:,}", f"{item[1]['allocs']:,}", str(item[0])),
        options.top,
    )
    yield from _table(
        "Markers",
        ("at", "live bytes", "name"),
        [*zip(found.markers, found.tracer_marker_times_us or [mark.time_us for mark in found.markers])],
        lambda item: (
            f"+{_duration(item[1] - start_us)}",
            f"{item[0].live_bytes:,}" if found.addressed else "?",
            f"func_{item[0].name_id}" if item[0].name is None else _printable(item[0].name),
        ),
        options.top,
    )


def _mlyze_facts(found: MlyzeAnalysis, start_us: int) -> Iterator[Tuple[str, str]]:
    counts = found.counts
    unaddressed = found.unaddressed
    grown = f"{unaddressed['allocs']:,} ALLOC of {_size(unaddressed['bytes'])}"
    if found.addressed:
        yield "live bytes", _sparkline(found.timeline.live_bytes)
        yield "", f"the most in each {_duration(found.timeline.bucket_us)}"
        peak = found.peak
        if peak["time_us"] is not None:
            place = f"{_many(peak['blocks'] or 0, 'block')} at +{_duration(peak['time_us'] - start_us)}"
            yield "peak", f"{_size(peak['bytes'] or 0)} in {place}, event {peak['event_index']}"
        short = (
            f", {found.temporary_allocs:,} of them freed by the very next operation" if found.temporary_allocs else ""
        )
        yield "allocated", f"{_size(found.total_allocated_bytes)} in {_many(counts['alloc'], 'block')}{short}"
        yield "freed", f"{_size(found.freed_bytes)} in {_many(found.matched_frees, 'block')}"
        yield "left", f"{_size(found.live_at_end['bytes'])} in {_many(found.live_at_end['blocks'], 'block')}"
        if any(unaddressed.values()):
            yield "no address", f"{grown}, {unaddressed['frees']:,} FREE"
    else:
        yield "live bytes", "not known, nor peak, frees and leaks: no event has an address"
        yield "grown", f"{grown}; {unaddressed['frees']:,} FREE, whose sizes the file does not tell"
    if found.replaced_blocks:
        yield "replaced", f"{_many(found.replaced_blocks, 'block')} of {_size(found.replaced_bytes)}, never freed"
    if found.unmatched_frees:
        yield "unmatched", f"{_many(found.unmatched_frees, 'FREE')} of what was not live"
    if found.gc["collections"]:
        freed = f", {_size(found.gc['bytes'])}" if found.gc["bytes"] else ""
        yield "gc", f"{_many(found.gc['collections'], 'collection')}, {_many(found.gc['objects'], 'object')}{freed}"


def _mlyze_stats_json(reader: MlyzeReader, options: _Options) -> Any:
    return mlyze_analysis(reader, min_age_us=options.min_age)


class _View(NamedTuple):
    """What the command line can tell of one format."""

    info: Callable[[Any], Iterator[Tuple[str, str]]]
    stats: Callable[[Any, _Options], Iterator[str]]
    stats_json: Callable[[Any, _Options], Any]
    upstream_stats: Callable[[_Source, str], Tuple[List[str], bool]]
    demo: Callable[[WritableFile], None]


def _mlyze_demo(file: WritableFile) -> None:
    """A small trace of an invented program: a cache that only grows, requests that come and go, two threads."""
    main = ("/app/main.py", 12, "main")
    cache = [main, ("/app/cache.py", 31, "Cache.put")]
    request = [("/app/server.py", 88, "worker"), ("/app/server.py", 40, "handle"), ("/app/render.py", 17, "render")]
    start_us = 1_764_979_200_000_000
    with MlyzeWriter(file, start_us=start_us) as writer:
        writer.alloc(start_us + 150, 0x7F3A_0000_0000, 262_144, [main, ("/app/config.py", 5, "load")], 1)
        writer.marker(start_us + 200, "ready")
        for turn in range(60):
            now_us = start_us + 1000 * (turn + 1)
            base = 0x7F3A_1000_0000 + 4096 * turn
            writer.alloc(now_us, base, 8_000 + 100 * (turn % 7), request, 2)
            writer.alloc(now_us + 40, base + 1024, 2_000, cache, 2)
            writer.alloc(now_us + 55, base + 2048, 512, request, 2)
            writer.free(now_us + 58, base + 2048)
            writer.free(now_us + 300, base)
            if turn % 20 == 19:
                writer.gc(now_us + 400, 35)
        writer.free(start_us + 62_000, 0x7F3A_0000_0000)
        writer.marker(start_us + 62_500, "done")


_VIEWS = {"mlyze": _View(_mlyze_info, _mlyze_stats, _mlyze_stats_json, _mlyze_upstream_report, _mlyze_demo)}


# ==== 10. Command line ================================================================================

_LARGE = 32 << 20  # bytes from which on a file's progress is shown


class _UsageError(Exception):
    """What the user asked for cannot be done; one line, exit code 2."""


class _Progress:
    """A binary file that tells on a terminal how much of it has been read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self._done = 0
        self._shown = -1

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._done += len(data)
        percent = 100 * self._done // self._size
        if percent != self._shown:
            self._tell(f"\r{percent:3d} %")
            self._shown = percent
        return data

    def close(self) -> None:
        self._tell("\r     \r")
        self._file.close()

    def _tell(self, text: str) -> None:
        import sys

        sys.stderr.write(text)
        sys.stderr.flush()


def _input(name: str) -> _Source:
    """The bytes of a file of the command line: a path, ``-``, gzip, or the hex text of explain."""
    import os
    import sys

    if name == "-":
        if sys.stdin is None:
            raise _UsageError("there is no standard input")
        source = _source(sys.stdin.buffer, DEFAULT_MAX_BYTES)
    else:
        file: Any = io.open(name, "rb")
        size = os.fstat(file.fileno()).st_size
        if size >= _LARGE and sys.stderr.isatty():
            file = _Progress(file, size)
        source = _unzipped(_Source(file, owned=True, name=name), DEFAULT_MAX_BYTES)
    lines = source.peek(_PREFIX).splitlines() if source.peek(1) in b"0#\r\n" else []
    if next((line for line in lines if line.strip() and not line.startswith(b"#")), b"").startswith(b"00000000: "):
        text = source.rest().decode("ascii", "replace")
        source.close()
        try:
            return _Source(io.BytesIO(hex_to_bytes(text)), owned=True, name=name)
        except ValueError as error:
            raise FormatError("hex", "bad-value", 0, "", str(error)) from None
    return source


class _Output:
    """Standard output, or a file that appears under its name only when it is complete."""

    def __init__(self, options: _Options) -> None:
        import os
        import sys

        path: Optional[str] = None if options.output in (None, "-") else options.output
        self._path = path and os.path.realpath(path)
        self._part: Optional[str] = None
        self.encoding = "utf-8"
        self.complete = True  # to be set False when what has been written shall not appear
        if self._path is None:
            if sys.stdout is None:
                raise _UsageError("there is no standard output; give -o FILE")
            self._file: IO[bytes] = sys.stdout.buffer
            self.encoding = sys.stdout.encoding or "ascii"
        elif os.path.exists(self._path) and not os.path.isfile(self._path):
            self._file = io.open(self._path, "wb")
        elif os.path.exists(self._path) and not options.force:
            raise _UsageError(f"{path}: exists; -f overwrites it")
        else:
            folder, name = os.path.split(self._path)
            self._part = os.path.join(folder, f".{name}.{os.getpid()}.part")
            self._file = io.open(self._part, "xb")

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from None

    def line(self, text: str) -> None:
        """A line of text; what the encoding lacks is replaced or escaped."""
        try:
            data = text.encode(self.encoding)
        except UnicodeEncodeError:
            data = text.translate(_PLAIN).encode(self.encoding, "backslashreplace")
        self.write(data + b"\n")

    def flush(self) -> None:
        self._file.flush()

    def isatty(self) -> bool:
        return self._file.isatty()

    def _failed(self, error: OSError) -> _UsageError:
        if self._path is None:
            _drop_stdout()
        return _UsageError(f"{self._path or 'standard output'}: {error.strerror}")

    def __enter__(self: SelfType) -> SelfType:
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        import os

        try:
            self._file.flush()
            if self._path is not None:
                self._file.close()
            if self._part is not None and self._path is not None and kind is None and self.complete:
                if os.path.exists(self._path):
                    os.chmod(self._part, os.stat(self._path).st_mode & 0o777)
                os.replace(self._part, self._path)
                self._part = None
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from None
        finally:
            if self._part is not None:
                _discard(self._file, self._part)


def _discard(file: IO[bytes], path: str) -> None:
    """Close and remove an unfinished file; what its buffer still holds may fail once more."""
    import os

    try:
        file.close()
    except OSError:
        pass
    os.remove(path)


def _reading(options: _Options, name: str, *, strict: bool = False, recover: bool = False) -> Reader[Any, Any]:
    """The Reader of a file of the command line."""
    source = _input(name)
    try:
        return _known(options.format, source).reader(source, strict=strict, recover=recover or options.recover)
    except BaseException:
        source.close()
        raise


def _complain(text: str) -> None:
    """A line on stderr."""
    import sys

    if sys.stderr is not None:
        encoding = sys.stderr.encoding or "ascii"
        line = f"memformats: {_printable(text)}\n"
        try:
            sys.stderr.write(line.encode(encoding, "backslashreplace").decode(encoding))
            sys.stderr.flush()
        except OSError:
            pass  # there is nowhere left to say it; the exit code does


def _problem_text(problem: Problem) -> str:
    space = "" if problem.space == "file" else problem.space + " "
    times = f" ({problem.times:,} times)" if problem.times > 1 else ""
    where = f"{problem.where}: " if problem.where else ""
    place = f"{space}offset 0x{problem.offset:x}: {where}"
    return _printable(f"{problem.severity} {problem.code}: {place}{problem.message}{times}")


def _each_file(options: _Options, action: Callable[[str, _Output], bool]) -> int:
    """Do something for each file named; one that cannot be read does not keep the others from their turn."""
    status = 0
    with _Output(options) as output:
        for name in options.files:
            try:
                status = max(status, 0 if action(name, output) else 1)
            except FormatError as error:
                _complain(f"{name}: {error}")
                output.complete = False
                status = max(status, 1)
            except BrokenPipeError:
                raise
            except OSError as error:
                _complain(f"{name}: {error.strerror or error}")
                output.complete = False
                status = 2
    return status


def _run_info(options: _Options) -> int:
    def info(name: str, output: _Output) -> bool:
        with _reading(options, name) as reader:
            facts = [*_VIEWS[reader.format].info(reader)]
            problems = reader.problems
        output.line(f"{_printable(name)}: {reader.format}, {FORMATS[reader.format].title}")
        for line in _facts(facts):
            output.line(line)
        for place, text in enumerate([*map(_problem_text, problems)] or ["none"]):
            output.line(f"  {'' if place else 'problems':<12}{text}")
        return True

    return _each_file(options, info)


def _run_check(options: _Options) -> int:
    def check(name: str, output: _Output) -> bool:
        records = 0
        try:
            with _reading(options, name, recover=True) as reader:
                format = reader.format
                for _ in reader:
                    records += 1
                problems = reader.problems
        except FormatError as error:
            format = error.format
            problems = [Problem("fault", error.code, error.space, error.offset, error.where, error.reason)]
        kinds = [problem.severity for problem in problems]
        bad = "fault" in kinds or (options.strict and "deviation" in kinds)
        counts = [_many(kinds.count(kind), kind) for kind in ("fault", "deviation", "note") if kind in kinds]
        verdict = (
            f"{'bad' if bad else 'good'} {format}, {_many(records, 'record')}, {', '.join(counts) or 'no problems'}"
        )
        output.line(f"{_printable(name)}: {verdict}")
        for problem in problems:
            output.line(f"  {_problem_text(problem)}")
        return not bad

    return _each_file(options, check)


def _run_decode(options: _Options) -> int:
    with _reading(options, options.file) as reader, _Output(options) as output:
        for piece in decode(reader, lines=options.lines):
            output.write(piece.encode("ascii"))
        for problem in reader.problems:
            if problem.severity == "fault":
                _complain(f"{options.file}: {_problem_text(problem)}")
    return 0


def _run_encode(options: _Options) -> int:
    source = _input(options.file)
    try:
        with _Output(options) as output:
            if output.isatty():
                raise _UsageError("will not write a binary file to a terminal; give -o FILE")
            encode(_lines(source), output)
    finally:
        source.close()
    return 0


def _lines(source: _Source) -> Iterator[bytes]:
    """The lines of a source."""
    data = b""
    for chunk in iter(source.chunk, b""):
        *lines, data = (data + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if source.error is not None:
        raise source.error
    yield data


def _run_explain(options: _Options) -> int:
    walk, spans = _explain(_input(options.file), options.format, recover=options.recover)
    found = False

    def wanted() -> Iterator[Span]:
        nonlocal found
        for span in spans:
            if options.at is not None:
                space, offset = options.at
                if span.space != space or not span.offset <= offset < span.offset + span.size:
                    continue
            if options.fields is None or _matches(span.path, options.fields):
                found = True
                yield span

    with _Output(options) as output:
        for line in hex_lines(walk.data, wanted()):
            output.line(line)
    if not found:
        raise _UsageError(f"{options.file}: no such field")
    if walk.error is not None:
        _complain(f"{options.file}: {walk.error}")
        return 1
    return 0


def _matches(path: str, pattern: str) -> bool:
    """Whether a path contains the pattern, in which ``*`` stands for anything.

    >>> _matches("events[17].size", "events[*].size")
    True
    """
    at = 0
    for part in pattern.split("*"):
        at = path.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True


def _run_stats(options: _Options) -> int:
    def stats(name: str, output: _Output) -> bool:
        if options.like_upstream:
            source = _input(name)
            try:
                lines, good = _VIEWS[_known(options.format, source).name].upstream_stats(source, name)
            finally:
                source.close()
            for line in lines:
                output.line(_printable(line))
            return good
        with _reading(options, name) as reader:
            view = _VIEWS[reader.format]
            if options.json:
                numbers = {"file": name, "format": reader.format, **_to_json(view.stats_json(reader, options))}
                output.line(json.dumps(numbers, indent=1 if len(options.files) == 1 else None))
                return True
            title = _printable(name)
            for line in view.stats(reader, options):
                output.line(f"{title}: {line}" if title else line)
                title = ""
            for problem in reader.problems:
                if problem.severity != "note":
                    output.line(f"  {'problem':<12}{_problem_text(problem)}")
        return True

    return _each_file(options, stats)


def _run_demo(options: _Options) -> int:
    import os
    import sys

    os.makedirs(options.folder, exist_ok=True)
    me = f"python3 {_quoted(sys.argv[0])}" if sys.argv[0].endswith(".py") else "memformats"
    with _Output(options) as output:
        for format in FORMATS.values():
            path = os.path.join(options.folder, "demo" + format.extensions[0])
            made = io.BytesIO()
            _VIEWS[format.name].demo(made)
            if not (os.path.exists(path) and _holds(path, made.getvalue())):
                options.output = path
                with _Output(options) as file:
                    file.write(made.getvalue())
            output.line(f"{path}: {format.title}")
            for command in ("stats", "explain", "check", "decode"):
                output.line(f"  {me} {command} {_quoted(path)}")
    return 0


def _quoted(text: str) -> str:
    """A word for a shell."""
    plain = all(c.isalnum() or c in "/._-+" for c in text)
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


def _holds(path: str, data: bytes) -> bool:
    with io.open(path, "rb") as file:
        return file.read() == data


def _offset(text: str) -> Tuple[str, int]:
    """``0x21e``, ``542`` or ``body:0x21e``, of the command line."""
    space, _, offset = text.rpartition(":")
    try:
        return {"": "file", "file": "file", "body": "body"}[space], int(offset, 0)
    except (KeyError, ValueError):
        raise _misuse(f"not an offset: {text!r}; try 317, 0x13d or body:0x21e") from None


def _rows(text: str) -> int:
    """A number of rows, of the command line."""
    number = _decimal(text)
    if not number:
        raise _misuse(f"not a number of rows: {text!r}")
    return number


def _microseconds(text: str) -> int:
    """A time span in seconds, of the command line."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e12:
        raise _misuse(f"not a number of seconds: {text!r}")
    return int(value * 1_000_000)


def _misuse(text: str) -> Exception:
    import argparse

    return argparse.ArgumentTypeError(text)


def _parser() -> Any:
    import argparse

    raw = argparse.RawDescriptionHelpFormatter
    formats = "\n".join(f"  {f.name:<10}{' '.join(f.extensions):<12}{f.title}" for f in FORMATS.values())
    parser = argparse.ArgumentParser(
        "memformats",
        formatter_class=raw,
        description="Read, explain, check and rewrite profiling and logging files.",
        epilog=f"formats, found by content, also gzipped or as the hex text of explain:\n{formats}\n\n"
        "A file named - is standard input. Exit codes: 0 fine, 1 bad data, 2 usage or I/O.",
    )
    parser.add_argument("--version", action="version", version=f"memformats {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[_Options], int], help: str, example: str) -> Any:
        made = commands.add_parser(
            name, help=help, formatter_class=raw, description=help, epilog=f"example:\n  memformats {example}"
        )
        made.set_defaults(run=run)
        made.add_argument("-o", "--output", metavar="FILE", help="write here, completely or not at all")
        made.add_argument("-f", "--force", action="store_true", help="overwrite the file given by -o")
        return made

    def reading(made: Any, *, several: bool = False) -> Any:
        if several:
            made.add_argument("files", nargs="+", metavar="FILE", help="the files to read; - is standard input")
        else:
            made.add_argument("file", metavar="FILE", help="the file to read; - is standard input")
        made.add_argument("--format", choices=FORMATS, metavar="NAME", help="do not look for the format, take this one")
        made.add_argument("--recover", action="store_true", help="read on after a fault, or end there, and report it")
        return made

    made = command("info", _run_info, "what is in a file, on one screen", "info trace.mlyze")
    reading(made, several=True)
    made = command("decode", _run_decode, "to JSON, without loss", "decode trace.mlyze -o trace.json")
    reading(made).add_argument("--lines", action="store_true", help="JSON Lines: a record a line")
    made = command("encode", _run_encode, "from JSON back to the same bytes", "encode trace.json -o trace.mlyze")
    made.add_argument("file", metavar="FILE", help="a document that decode wrote; - is standard input")
    made = command("explain", _run_explain, "every byte, with its field and meaning", "explain trace.mlyze --at 0x13d")
    reading(made)
    made.add_argument(
        "--at", type=_offset, metavar="OFFSET", help="only the field at this byte: 317, 0x13d, body:0x21e"
    )
    made.add_argument("--fields", metavar="PATTERN", help="only fields with this in their path; * is anything")
    made = command("check", _run_check, "all that is wrong, with offsets", "check --strict *.mlyze")
    reading(made, several=True).add_argument("--strict", action="store_true", help="exit 1 for deviations too")
    made = command("stats", _run_stats, "the numbers that the file is about", "stats trace.mlyze --top 20")
    reading(made, several=True)
    made.add_argument("--json", action="store_true", help="all numbers, as JSON")
    made.add_argument("--top", type=_rows, default=10, metavar="N", help="rows of each table (10)")
    made.add_argument(
        "--min-age",
        type=_microseconds,
        default=0,
        metavar="SECONDS",
        help="mlyze: blocks left at the end and younger are no leaks",
    )
    made.add_argument(
        "--like-upstream", action="store_true", help="what the format's own program prints, right or wrong"
    )
    made = command("demo", _run_demo, "write a small file of each format, and say what to try", "demo")
    made.add_argument("folder", nargs="?", default="memformats-demo", metavar="DIR", help="where to (memformats-demo)")
    return parser


def _drop_stdout() -> None:
    """What the buffer still holds would be written, and fail, once more when Python ends: send it nowhere."""
    import os
    import sys

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command line; returns the exit code: 0 fine, 1 bad data, 2 usage or I/O."""
    import sys

    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    try:
        status: int = options.run(options)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return 0
    except FormatError as error:
        _complain(f"{getattr(options, 'file', '')}: {error}")
        return 1
    except _UsageError as error:
        _complain(str(error))
    except OSError as error:
        _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        return 130
    else:
        return status
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
