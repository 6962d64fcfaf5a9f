# SPDX-FileCopyrightText: 2026 the memformats authors
# SPDX-License-Identifier: MIT
"""Read, explain, check, analyse and write profiling and logging files, in one file of pure Python.

========  ==================  ===============  ============  =======  =======  ==============  ==============
format    written by          extension        magic         reads    writes   reader          writer
========  ==================  ===============  ============  =======  =======  ==============  ==============
mlyze     Memlyze, a tracer   .mlyze           ``MTRC``      1        1        MlyzeReader     MlyzeWriter
          of Python memory
clog      CNanoLog, a logger  .clog            ``ONAN``      1.0      1.0      ClogReader      ClogWriter
          for C                                ``NANO``
prof      easy_profiler, a    .prof            ``ysaE``      0.1.0    1.0.0    ProfReader      ProfWriter
          profiler for C++                                   to       to
                                                             2.1.0    2.1.0
mb        Memory Dump, a      .mb              ``MEMD``      any      2        MbReader        MbWriter
          viewer of memory
mb-json   the same, its       .json            ``[{"``       2.0      2.0      MbJsonReader    MbJsonWriter
          export
memscope  memscope-rs, a      .memscope        ``MEMSCOPE``  1a to    1a to    MemscopeReader  MemscopeWriter
          memory tracker for                                 3c, T    3c, T
          Rust
========  ==================  ===============  ============  =======  =======  ==============  ==============

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
                            explain, Reader, Writer, semantics.   5.1 mlyze   5.2 clog   5.3 prof   5.4 mb
                            5.5 memscope
6.  registry                FORMATS, detect, open, explain
7.  JSON documents          decode, encode
8.  exports                 each original tool's own output
9.  views                   what ``info`` and ``stats`` print, demos, what can be converted to what
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
    Container,
    Dict,
    FrozenSet,
    Generator,
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
    Set,
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
    "AdvancedMetrics",
    "Alloc",
    "Allocation",
    "BinaryReadable",
    "BinaryWritable",
    "Block",
    "Bookmark",
    "BorrowInfo",
    "ClogAnalysis",
    "ClogArg",
    "ClogHeader",
    "ClogRate",
    "ClogReader",
    "ClogSiteUse",
    "ClogText",
    "ClogWriter",
    "CloneInfo",
    "ContextSwitch",
    "Descriptor",
    "Document",
    "Field",
    "FieldLayout",
    "Format",
    "FormatError",
    "Frame",
    "Free",
    "Gc",
    "JsonMetric",
    "Layout",
    "LayoutEfficiency",
    "LifecycleMetric",
    "LogEntry",
    "LogLevel",
    "LogSite",
    "Marker",
    "MbAnalysis",
    "MbConclusion",
    "MbHeader",
    "MbJsonHeader",
    "MbJsonReader",
    "MbJsonWriter",
    "MbReader",
    "MbRecord",
    "MbSeriesUse",
    "MbSnapshot",
    "MbTypeChange",
    "MbTypeStats",
    "MbWriter",
    "MemoryLayout",
    "MemscopeAnalysis",
    "MemscopeHeader",
    "MemscopeLifetimes",
    "MemscopeReader",
    "MemscopeRisk",
    "MemscopeUse",
    "MemscopeWriter",
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
    "OptimizationPotential",
    "PaddingInfo",
    "PaddingLocation",
    "PaddingReason",
    "Page",
    "PageType",
    "Point",
    "Problem",
    "ProfAnalysis",
    "ProfHeader",
    "ProfNames",
    "ProfNode",
    "ProfReader",
    "ProfRecord",
    "ProfThreadUse",
    "ProfTree",
    "ProfUse",
    "ProfVerdict",
    "ProfWriter",
    "Reader",
    "RefCount",
    "Series",
    "SmartPointer",
    "Span",
    "Thread",
    "TruncatedError",
    "UnsupportedError",
    "Value",
    "Writer",
    "clog_analysis",
    "decode",
    "decode_varint",
    "detect",
    "encode",
    "encode_varint",
    "explain",
    "hex_lines",
    "hex_to_bytes",
    "main",
    "mb_analysis",
    "mb_color",
    "mb_compare",
    "mb_conclusion",
    "mb_free_ranges",
    "mb_json_conclusion",
    "mb_run_stream",
    "memscope_analysis",
    "memscope_category",
    "memscope_description",
    "memscope_path",
    "memscope_risks",
    "mlyze_analysis",
    "mlyze_corrected_clock",
    "mlyze_frame_label",
    "mlyze_stack_label",
    "open",
    "prof_analysis",
    "prof_duration_text",
    "prof_thread_use",
    "prof_trees",
    "prof_uses",
    "prof_value_text",
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

    ``format`` is the format's name, ``gzip`` for a fault of a compressed file, with the offset in that, ``json`` of a
    document, ``hex`` of a text that ``explain`` printed, or ``unknown``; ``code`` is one of ``CODES``; ``offset``
    counts bytes in ``space`` (``"file"``; ``"body"``, what a compressed body unpacks to; ``"stream"`` or ``"slot"``,
    a value by itself); ``where`` is the path of the field as ``explain`` prints it; ``reason`` tells.
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
    the document).  There is one Problem per severity, code and field: ``offset`` and ``where`` tell the first
    place, ``times`` how often.
    """

    severity: str
    code: str
    space: str
    offset: int
    where: str
    message: str
    times: int = 1


Raw = bytes  # of a record: its own bytes, where writing its fields would give others (Gc has a field named bytes)
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
    """Collects the problems of one file: one per severity, code and field, so that memory stays constant."""

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

    ``little`` and ``big`` are the ``struct.Struct`` in either byte order, without alignment; ``size`` is in bytes,
    ``offsets`` tells where each field stands, by name and in order.
    """

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.fields = fields
        self.offsets: Dict[str, int] = {}
        codes = ""
        for field in fields:
            self.offsets[field.name] = struct.calcsize("<" + codes)
            codes += field.code
        self.little = struct.Struct("<" + codes)
        self.big = struct.Struct(">" + codes)
        self.size = self.little.size

    def form(self, byte_order: str) -> struct.Struct:
        """The Struct in a byte order, ``"little"`` or ``"big"``."""
        return self.little if byte_order == "little" else self.big

    def cut(self, have: int) -> Tuple[int, str, str]:
        """Of a structure cut after ``have`` bytes: the offset and name of the cut field, and how much there is."""
        name, start = [one for one in self.offsets.items() if one[1] <= have][-1]
        size = min([at for at in self.offsets.values() if at > have], default=self.size) - start
        return start, name, f"{have - start} of {size} bytes"


_CODE_TYPES = dict(zip("BHIQbhiqfd", ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f32", "f64")))


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
        self.file = data
        self.body = b""  # what is unpacked of the file, if its format has such a body
        self.data = data  # of the two, what ``offset`` counts in
        self.recover = recover
        self.order = "<"  # of all numbers
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

    def enter_body(self, body: bytes) -> None:
        """Go on at the start of what has been unpacked; the file has been explained to its end."""
        self.body = self.data = body
        self.space = "body"
        self.offset = 0

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
        at = len(self._spans) - 1
        while name is not None and self._spans[at].path != self._prefix + name:
            at -= 1
        span = self._spans[at]
        self._spans[at] = span._replace(note=f"{span.note}; {note}" if span.note else note)

    def problem(self, rule: str, name: Optional[str] = None) -> None:
        """A deviation or note, in the note of the last span, or of the last one of that name."""
        self.annotate(f"{self.rules[rule][0]}: {rule}", name)

    def lookup(self, key: int, table: Mapping[str, object], missing: str) -> None:
        """Annotate the last span, a number, with its entry in a table of JSON; of a long one with the end of it."""
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
        (value,) = struct.unpack(self.order + code, piece)
        self.revalue(value, note)
        return value

    def text(self, name: str, size: int) -> str:
        """Text of ``size`` bytes; no field at all where it is empty."""
        if not size:
            return ""
        text = _decode_text(self.take(name, size, "utf-8"))
        self.revalue(text)
        return text

    def layout(self, layout: Layout, prefix: str = "") -> Dict[str, Any]:
        """Every field of a Layout; returns the values by name."""
        return {name: self.fixed(prefix + name, code, note) for name, code, note in layout.fields}

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

    def unread(self, error: FormatError, end: Optional[int] = None) -> None:
        """What the fault leaves unexplained: to ``end``, where reading goes on, or else the last span, to the end."""
        self._prefix = ""
        self.error = error if end is None else self.error
        note = f"offset 0x{error.offset:x}: {error.reason}"
        self._add(error.where, (len(self.data) if end is None else end) - self.offset, "unread", error.code, note)

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


_HEX_DIGITS = "0123456789abcdefABCDEF"


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
                offset = int("" if head.strip(_HEX_DIGITS) else head, 16)
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
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_VARINT_LIMIT = 64  # bytes; the longest that any of the formats' real programs was seen to write is 29
_DIGITS = 135  # of the largest number that such a varint holds
_U64_MAX = (1 << 64) - 1
_INFINITY = float("inf")
_BOM = b"\xef\xbb\xbf"
_JSON_BLANKS = b" \t\r\n"
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


def _no_json_constant(word: str) -> Any:
    """What Python takes for a number, and JSON does not have."""
    raise ValueError(f"not JSON: {word}")


_JsonScan = Callable[[str, int], Tuple[Any, int]]


def _json_scanner(number: Callable[[str], Any] = _json_integer, object_hook: Optional[Any] = None) -> _JsonScan:
    """What parses the JSON value at a place of a text and tells where it ends.

    It raises StopIteration or ValueError where there is none, and RecursionError for one too deep.
    """
    decoder: Any = json.JSONDecoder(parse_int=number, parse_constant=_no_json_constant, object_hook=object_hook)
    scan: _JsonScan = decoder.scan_once
    return scan


def _many(number: int, noun: str, nouns: str = "") -> str:
    """A number with its noun.

    >>> _many(1, "block"), _many(2000, "block")
    ('1 block', '2,000 blocks')
    """
    return f"{number:,} " + (noun if number == 1 else nouns or noun + "s")


def _skip_blanks(text: str, at: int) -> int:
    """The place of the next character that is no blank."""
    while text[at : at + 1] in (" ", "\n", "\r", "\t"):
        at += 1
    return at


def _decimal(text: str) -> Optional[int]:
    """The number that a text is the usual decimal form of, without sign and leading zeros; else None."""
    usual = text.isascii() and text.isdigit() and len(text) <= _DIGITS and (text[0] != "0" or text == "0")
    return int(text) if usual and int(text) < 1 << 7 * _VARINT_LIMIT else None


def _parse_json(text: str, parse_float: Optional[Callable[[str], Any]] = None) -> Any:
    """``json.loads`` with one exception for all that can be wrong: JSONDecodeError."""
    try:
        return json.loads(text, parse_int=_json_integer, parse_float=parse_float)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    except ValueError as error:
        raise json.JSONDecodeError(str(error), text, 0) from None


def _json_start(prefix: bytes) -> Optional[str]:
    """Of what starts like JSON: the first key of the object, or of the first one in the list; "" if there is none.

    >>> _json_start(b'[{"ptr": 1'), _json_start(b" []"), _json_start(b"MTRC")
    ('ptr', '', None)
    """
    text = _decode_text(prefix.removeprefix(_BOM)).lstrip(" \t\r\n")
    start, text = text[:1], text[1:].lstrip(" \t\r\n")
    if start == "[" and text[:1] == "{":
        start, text = "{", text[1:].lstrip(" \t\r\n")
    if start == "{" and text[:1] == '"':
        key, quote, _ = text[1:].partition('"')
        return key if quote else None
    return "" if start + text[:1] in ("[]", "{}") else None


def _decode_text(data: Union[bytes, bytearray]) -> str:
    """Text of a file: UTF-8, in which a byte that does not fit is a lone surrogate, so that any bytes survive."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def _encode_text(text: str) -> bytes:
    """The bytes that ``_decode_text`` makes this text of; raises TypeError for what is not text."""
    if not isinstance(text, str):
        raise TypeError(f"not text: {text!r}")
    return text.encode("utf-8", "surrogateescape")


def _calendar(seconds: int) -> str:
    """Seconds since 1970 as date and time of day.

    >>> _calendar(1764979200)
    '2025-12-06 00:00:00'
    """
    days, seconds = divmod(seconds, 86_400)
    # Count from 0000-03-01, so that the leap day is the last of a year of 365.2425 days.
    era, day = divmod(days + 719_468, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    date = day - (153 * month + 2) // 5 + 1
    year += 400 * era + (month > 9)
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{year:04d}-{month + 3 - 12 * (month > 9):02d}-{date:02d} {clock}"


def _utc(time_us: int) -> str:
    """Microseconds since 1970 as ISO 8601 text in UTC.

    >>> _utc(1764979200250000)
    '2025-12-06T00:00:00.250000Z'
    """
    seconds, us = divmod(time_us, 1_000_000)
    return f"{_calendar(seconds)}.{us:06d}Z".replace(" ", "T")


def _integer(name: str, value: int, bits: int, *, signed: bool = False) -> int:
    """The value itself; raises for what is not an integer of that many bits."""
    if not isinstance(value, int):
        raise TypeError(f"{name} is not an integer: {value!r}")
    least = -1 << bits - 1 if signed else 0
    if not least <= value < least + (1 << bits):
        raise ValueError(f"{name} is not of {bits} bits: {value}")
    return value


def _raw_bytes(record: Any) -> bytes:
    """The ``raw`` of a record; TypeError for what is not bytes: of a number ``bytes`` would make zeros."""
    return bytes(memoryview(record.raw))


def _pack(layout: Layout, values: Sequence[Any], byte_order: str = "little") -> bytes:
    """The bytes of a Layout; raises ValueError or TypeError, with the field's name, for what it cannot hold."""
    for (name, code, _), value in zip(layout.fields, values):
        bits = 8 * struct.calcsize("<" + code)
        if code.endswith("s"):
            if len(value) * 8 != bits:
                raise ValueError(f"{name} is not of {bits // 8} bytes: {len(value)}")
        else:
            _integer(name, value, bits, signed=code in "iq")
    return layout.form(byte_order).pack(*values)


def _pack_present(layout: Layout, values: Mapping[str, Any], kind: str) -> bytes:
    """The bytes of a header; values by name, None for a field that the layout of that kind lacks."""
    wrong = [name for name, value in values.items() if (value is None) != (name not in layout.offsets)]
    if wrong:
        raise ValueError(f"a header of {kind} has {'a' if values[wrong[0]] is None else 'no'} {wrong[0]}")
    return _pack(layout, [values[name] for name in layout.offsets])


class _Buckets:
    """A value per bucket of time: at most 64 buckets, which double in width as time goes on.

    Of a level, which holds until it changes, the largest: ``advance`` closes the open bucket, the last of
    ``values``, which ends at ``end``.  Of things that happen, with ``combine=sum``, how many: ``happen``.
    """

    def __init__(self, start: int, combine: Callable[[List[int]], int] = max) -> None:
        self.start = start
        self.width = 1
        self.values = [0]
        self.end = start + 1
        self._combine = combine

    def advance(self, time: int, high: int, level: int) -> int:
        """Close the open bucket with its largest value, and all before ``time`` with the level held since."""
        self.values[-1] = max(self.values[-1], high)
        index = self._reach(time, level)
        self.end = self.start + (index + 1) * self.width
        return self.end

    def happen(self, time: int) -> None:
        """Count one at ``time``, in any order; what is before the start counts there."""
        index = self._reach(max(time, self.start), 0)
        self.values[index] += 1

    def widen(self, time: int, level: int) -> None:
        """Begin at an earlier time, or a little before it."""
        while time < self.start:
            more = -((time - self.start) // self.width)
            if len(self.values) + more > 64:
                self._double()
            else:
                self.values[:0] = [level] * more
                self.start -= more * self.width

    def _double(self) -> None:
        self.values = [self._combine(self.values[i : i + 2]) for i in range(0, len(self.values), 2)]
        self.width *= 2

    def _reach(self, time: int, level: int) -> int:
        """The bucket of a time, which is made, and all before it, if there are not as many yet."""
        while time >= self.start + 64 * self.width:
            self._double()
        index = (time - self.start) // self.width
        self.values += [level] * (index + 1 - len(self.values))
        return index


class _Source:
    """The bytes of a binary file in order, once, in chunks; a pipe will do.

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
        self._at = 0  # where in ``_ahead`` the next byte is; what stands before it has been taken

    def chunk(self) -> bytes:
        """The next bytes, as many as come, but for what is known already; empty only at the end."""
        if self._at == len(self._ahead):
            self._ahead, self._at = self._more(), 0
        data = self._ahead[self._at : self._at + _CHUNK]
        self._at += len(data)
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
        have = len(self._ahead) - self._at
        if have < size:
            pieces = [self._ahead[self._at :]]
            while have < size:
                piece = self._more()
                if not piece:
                    break
                pieces.append(piece)
                have += len(piece)
            self._ahead, self._at = b"".join(pieces), 0
        return self._ahead[self._at : self._at + size]

    def look(self, offset: int, size: int = 1 << 62) -> bytes:
        """The bytes at an offset further on, without taking any: what cannot seek is kept in memory for that."""
        start = self._at + offset - self.position
        seekable = getattr(self._file, "seekable", bool)()
        if not seekable:
            self.peek(1 << 62)
            start = self._at + offset - self.position
        if not seekable or start + size <= len(self._ahead):
            return self._ahead[start : start + size]
        file = cast("IO[bytes]", self._file)
        place = file.tell()
        file.seek(min(place - len(self._ahead) + start, file.seek(0, 2)))
        data = file.read(size) if size <= _CHUNK else _Source(file, owned=False).read(size)
        file.seek(place)
        return data

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
        if len(data) > self._at:
            self._ahead, self._at = data + self._ahead[self._at :], len(data)
        self._at -= len(data)
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
_GZIP_AFTER = ("bytes after the member", "a second member")
_FHCRC, _FEXTRA, _FNAME, _FCOMMENT, _GZIP_RESERVED = 2, 4, 8, 16, 0xE0


class _Gunzip:
    """The uncompressed bytes of a gzip stream of one or more members (RFC 1952); faults are FormatErrors.

    All that can be unpacked comes before the fault.  NUL bytes after a member are padding.  ``inside`` names the
    format of which it is the body: then there is one member, and nothing after it.
    """

    def __init__(self, source: _Source, max_bytes: int, inside: str = "") -> None:
        self._source = source
        self._left = max_bytes
        self._inside = inside
        self._member = -1
        self._inflater: Any = None
        self._data_offset = 0
        self._head_crc = 0  # of the member's header so far
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
        while self._member >= 0 and self._source.peek(1) == b"\0" and not self._inside:
            ahead = self._source.peek(_CHUNK)
            self._source.read(len(ahead) - len(ahead.lstrip(b"\0")))
        offset = self._source.position
        if not self._source.peek(1) and (self._member >= 0 or not self._inside):
            if self._inside and self._source.error is not None:
                raise self._source.error
            return False
        if self._member >= 0 and self._inside:
            raise self._error("trailing-data", offset, "after", _GZIP_AFTER[self._source.peek(2) == _GZIP_MAGIC])
        self._member += 1
        if self._source.peek(2) != _GZIP_MAGIC and not self._inside:
            raise self._error("trailing-data", offset, "magic", "not another gzip member")
        self._head_crc = 0
        _, method, flags, _, _, _ = self._take(GZIP_HEADER)
        if method != 8:
            raise self._error("bad-compression", offset + 2, "method", f"not deflate: {method}")
        if flags & _GZIP_RESERVED:
            raise self._error("bad-compression", offset + 3, "flags", f"reserved bits are set: 0x{flags:02x}")
        if flags & _FEXTRA:
            (size,) = _U16.unpack(self._take_bytes("extra", 2))
            self._take_bytes("extra", size)
        for flag, name in ((_FNAME, "name"), (_FCOMMENT, "comment")):
            offset, size = self._source.position, 0
            while flags & flag and not size:
                size = self._source.peek(_CHUNK).find(b"\0") + 1
                self._take_bytes(name, size or _CHUNK, offset)
        if flags & _FHCRC:
            offset, wanted = self._source.position, self._head_crc & 0xFFFF
            (crc,) = _U16.unpack(self._take_bytes("header_crc", 2))
            if crc != wanted:
                raise self._error("bad-compression", offset, "header_crc", f"0x{crc:04x}, but it is 0x{wanted:04x}")
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
        self._head_crc = _zlib.crc32(data, self._head_crc)
        if len(data) < layout.size:
            start, name, detail = layout.cut(len(data))
            raise self._error("truncated", offset + start, name, f"the file ends inside this field: {detail}")
        return layout.little.unpack(data)

    def _take_bytes(self, name: str, size: int, offset: Optional[int] = None) -> bytes:
        """Bytes of a field, which begins here or at ``offset``."""
        offset = self._source.position if offset is None else offset
        data = self._source.read(size)
        self._head_crc = _zlib.crc32(data, self._head_crc)
        if len(data) < size:
            raise self._error("truncated", offset, name, "the file ends inside this field")
        return data

    def close(self) -> None:
        self._source.close()

    def _error(self, code: str, offset: int, name: str, reason: str) -> FormatError:
        if not self._inside:
            return _error("gzip", code, offset, f"members[{self._member}].{name}", reason)
        error = _error(self._inside, code, offset, f"gzip.{name}", reason)
        return self._source.error or error if code == "truncated" else error


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
        pieces.append(inflater.decompress(b""))  # a byte that was found, but was more than ``size``
        pieces.extend(inflater.decompress(data[at : at + 1]) for at in range(len(data)))
    except _zlib.error:
        pass  # the fault itself, which the caller has seen
    return b"".join(pieces)


def _explain_member(walk: _Walk) -> Optional[FormatError]:
    """The rest of the file as one gzip member, after which the walk goes on in the body.

    Raises FormatError for a member without data; what is wrong with the data and after it is returned, since the body
    as far as it goes is to be explained first.
    """

    def wrong(code: str, offset: int, name: str, reason: str) -> FormatError:
        return _error(walk.format, code, offset, f"gzip.{name}", reason)

    begin = walk.offset
    header = walk.layout(GZIP_HEADER, "gzip.")
    if header["method"] != 8:
        raise wrong("bad-compression", walk.offset - 8, "method", f"not deflate: {header['method']}")
    flags = header["flags"]
    if flags & _GZIP_RESERVED:
        raise wrong("bad-compression", walk.offset - 7, "flags", f"reserved bits are set: 0x{flags:02x}")
    parts = [(_FEXTRA, "extra"), (_FNAME, "name"), (_FCOMMENT, "comment"), (_FHCRC, "header_crc")]
    for name in [name for flag, name in parts if flags & flag]:
        size = 2
        if name == "extra":
            size += int.from_bytes(walk.data[walk.offset : walk.offset + 2], "little")
        elif name != "header_crc":
            size = (walk.data.find(b"\0", walk.offset) + 1 or len(walk.data) + 1) - walk.offset
        if walk.offset + size > len(walk.data):
            offset = walk.offset + 2 * (name == "extra" and walk.offset + 2 <= len(walk.data))
            raise wrong("truncated", offset, name, "the file ends inside this field")
        if name == "header_crc":
            crc = int.from_bytes(walk.data[walk.offset : walk.offset + 2], "little")
            wanted = _zlib.crc32(walk.data[begin : walk.offset]) & 0xFFFF
            if crc != wanted:
                raise wrong("bad-compression", walk.offset, name, f"0x{crc:04x}, but it is 0x{wanted:04x}")
        walk.take(f"gzip.{name}", size, "bytes")
    start = walk.offset
    inflater = _zlib.decompressobj(-15)
    error = None
    try:
        body = inflater.decompress(walk.data[start:], DEFAULT_MAX_BYTES + 1)
    except _zlib.error as fault:
        error = wrong("bad-compression", start, "data", str(fault).rpartition(": ")[2])
        body = _inflate_up_to_fault(_zlib.decompressobj(-15), walk.data[start:], DEFAULT_MAX_BYTES)
    left = len(inflater.unused_data)
    if len(walk.data) > start:
        walk.take("gzip.data", len(walk.data) - start - left, "deflate")
        walk.revalue(None, f"{len(body)} bytes of body")
    if len(body) > DEFAULT_MAX_BYTES:
        error = wrong("limit", start, "data", "unpacks to more than max_bytes")
    elif inflater.eof:
        error = _explain_trailer(walk, wrong, body)
    elif error is None:
        error = wrong("truncated", start, "data", "the file ends inside this field")
    walk.enter_body(body)
    return error


def _explain_trailer(
    walk: _Walk, wrong: Callable[[str, int, str, str], FormatError], body: bytes
) -> Optional[FormatError]:
    """What stands after the data of a gzip member, and the first thing that is wrong with it."""
    start = walk.offset
    have = len(walk.data) - start
    if have < 8:
        place, name, detail = GZIP_TRAILER.cut(have)
        if have:
            walk.take("gzip.trailer", have, "bytes")
        return wrong("truncated", start + place, name, f"the file ends inside this field: {detail}")
    trailer = walk.layout(GZIP_TRAILER, "gzip.")
    if have > 8:
        walk.take("gzip.after", have - 8, "bytes")
    crc = _zlib.crc32(body)
    if trailer["crc32"] != crc:
        reason = f"0x{trailer['crc32']:08x}, but the data has 0x{crc:08x}"
        return wrong("bad-compression", start, "crc32", reason)
    if trailer["isize"] != len(body) & 0xFFFFFFFF:
        reason = f"{trailer['isize']}, but the data has {len(body)} bytes"
        return wrong("bad-compression", start + 4, "isize", reason)
    if have > 8:
        second = walk.data[start + 8 : start + 10] == _GZIP_MAGIC
        return wrong("trailing-data", start + 8, "after", _GZIP_AFTER[second])
    return None


class _Fields:
    """Reads fields exactly, one by one, with every check: the slow path of the Readers.

    ``data`` stands at ``base`` in the file, ``at`` is where in ``data`` the next field starts, and all paths start with
    ``where``.  ``canonical`` turns False when a field is not in the form that a writer would give it.  What ``data``
    lacks comes from the ``source``, if there is one.
    """

    def __init__(
        self,
        problems: _Problems,
        data: bytes,
        base: int = 0,
        where: str = "",
        *,
        at: int = 0,
        byte_order: str = "little",
        source: Optional[_Source] = None,
    ) -> None:
        self._source = source
        self.at = self._mark = at
        self.where = where
        self.canonical = True
        self._problems = problems
        self.data = data
        self._base = base
        self._byte_order = byte_order

    def fault(self, rule: str, name: str, detail: str = "", *, place: int = 0) -> FormatError:
        """The exception for a fault of the next field, or of what is ``place`` bytes after its start."""
        return self._problems.fault(rule, self._base + self.at + place, self.where + name, detail)

    def problem(self, rule: str, at: int, name: str, detail: str = "") -> None:
        """Count a deviation or note of the field at ``at``."""
        self._problems.add(rule, self._base + at, self.where + name, detail)

    def have(self, size: int) -> bool:
        """Whether there are ``size`` more bytes; they are in ``data`` then."""
        while self._source is not None and self.at + size > len(self.data):
            # As much again as there is of the record, so that a long one takes linear time.
            waiting = len(self.data) - self._mark
            piece = self._source.chunk() if waiting < _CHUNK else self._source.read(waiting)
            if not piece:
                break
            self.data += piece
        return self.at + size <= len(self.data)

    def begin(self) -> None:
        """The next field begins a record: ``since`` and ``left`` count from here, what stands before is not needed."""
        if 2 * self.at >= len(self.data):  # so that all in all no more bytes are moved than there are
            self._base += self.at
            self.data = self.data[self.at :]
            self.at = 0
        self._mark = self.at

    def since(self) -> bytes:
        """The bytes of the record so far."""
        return self.data[self._mark : self.at]

    def left(self) -> bytes:
        """All that is there of the record and after it."""
        return self.data[self._mark :]

    def take(self, name: str, size: int) -> bytes:
        """``size`` bytes as one field."""
        self.have(size)
        piece = self.data[self.at : self.at + size]
        if len(piece) < size:
            raise self.fault("the file ends inside this field", name, f"{len(piece)} of {size} bytes")
        self.at += size
        return piece

    def text(self, name: str, size: int) -> str:
        """Text of ``size`` bytes."""
        return _decode_text(self.take(name, size))

    def fixed(self, name: str, form: struct.Struct) -> Any:
        """A number of fixed size."""
        return form.unpack(self.take(name, form.size))[0]

    def layout(self, layout: Layout, prefix: str = "") -> Tuple[Any, ...]:
        """Every field of a Layout."""
        if not self.have(layout.size):
            place, name, detail = layout.cut(len(self.data) - self.at)
            raise self.fault("the file ends inside this field", prefix + name, detail, place=place)
        self.at += layout.size
        return layout.form(self._byte_order).unpack_from(self.data, self.at - layout.size)

    def uvarint(self, name: str) -> int:
        """An unsigned LEB128 number of up to 64 bytes."""
        start = self.at
        self.have(_VARINT_LIMIT)
        try:
            value, self.at = decode_varint(self.data, start)
        except IndexError:
            raise self.fault("truncated varint", name) from None
        except OverflowError:
            raise self.fault("varint of more than 64 bytes", name) from None
        overlong = self.data[self.at - 1] == 0 and self.at - start > 1
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
    try:
        return _unzipped(source, max_bytes)
    except BaseException:
        source.close()
        raise


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
        else:
            self.flush()

    def flush(self) -> None:
        getattr(self.file, "flush", bool)()  # a file of the caller's may have none


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
    family = ""  # of a format whose version does not tell its kinds: which one this file is of
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
        self._max_bytes = max_bytes
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
        self._begun = False  # something has been written
        self._document = False  # it is a document, whose counts and ends are told by it
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
        if self._closed or self._begun:
            raise ValueError("a document is the first thing written")
        self._begun = self._document = True

    def _end(self, tables: Mapping[str, Any], tail: bytes) -> None:
        """Write what stands after the last record of a document, its tail last; the tables are now complete."""
        self._sink.write(tail)

    def flush(self) -> None:
        """Hand what has been written to the operating system, so that it can be read if the writer dies."""
        self._sink.flush()

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
    """The format text (mlyze 2 to 5) line by line; each ``yield`` stands between structures."""
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
        self.header = MlyzeHeader(*_Fields(self._problems, data).layout(MLYZE_HEADER)[1:])
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
        # ALLOC and FREE with short numbers are read here, everything else by _read_event, which takes four times
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
        fields = _Fields(self._problems, data, base, f"events[{index}].", at=at)
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
        self._header = MlyzeHeader(start_us=_integer("start_us", start_us, 64))
        if metadata_room is not None:
            _integer("metadata_room", metadata_room, 32)
        self._spool: Optional[_Sink] = None
        if not given and metadata_room is None:
            self._spool = _Sink(spool or io.BytesIO())
            self._spool_origin = self._spool.file.tell()
        self._set_tables(stacks or {}, files or {}, functions or {})
        text = _mlyze_metadata(self._stacks, self._files, self._functions)
        if metadata_room is not None and len(text) > metadata_room:
            raise ValueError(f"metadata_room is less than {len(text)} bytes, which empty tables take: {metadata_room}")
        super().__init__(file, seek=metadata_room is not None)
        self._clock = start_us
        self._clamp_time = clamp_time
        self._marker_ids: Optional[Dict[str, int]] = {} if analyzer_markers else None
        self._fixed = given
        self._room = metadata_room
        self._used = len(text)
        if given or metadata_room is not None:
            self._write_start(self._header, text.encode().ljust(metadata_room or 0))

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
        return self._name_id(self._file_ids, self._files, name)

    def function_id(self, name: str) -> int:
        """The number of a function or marker name, which is added if it is new."""
        return self._name_id(self._function_ids, self._functions, name)

    def marker_id(self, name: str) -> int:
        """The number of a marker name: that of the function so called, unless ``analyzer_markers`` are asked for."""
        if self._marker_ids is None:
            return self.function_id(name)
        return self._name_id(self._marker_ids, self._functions, name, _MLYZE_MARKER_IDS + len(self._marker_ids))

    def _name_id(self, ids: Dict[str, int], table: Dict[int, str], name: str, number: Optional[int] = None) -> int:
        known = ids.get(name)
        if known is None:
            known = ids[name] = self._add(table, name, json.dumps(name), number)
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
            _integer("stack number", key, 7 * _VARINT_LIMIT): tuple(frames) for key, frames in stacks.items()
        }
        self._files = {_integer("file number", key, 7 * _VARINT_LIMIT): name for key, name in files.items()}
        self._functions = {_integer("function number", key, 7 * _VARINT_LIMIT): name for key, name in functions.items()}
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
        # Plain ALLOC and FREE are packed whole, in a quarter of the time of _event, which also finds what is wrong.
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
            return _raw_bytes(record)
        if record.time_us < clock and not self._clamp_time:
            raise ValueError(f"time_us is before that of the record before: {record.time_us} < {clock}")
        delta = _integer("the step of time_us", max(record.time_us - clock, 0), 64)
        start = bytes((_MLYZE_KINDS[type(record)],)) + encode_varint(delta)
        if isinstance(record, Alloc):
            return b"".join(
                (
                    start,
                    _U64.pack(_integer("address", record.address, 64)),
                    encode_varint(_integer("size", record.size, 64)),
                    encode_varint(_integer("stack_id", record.stack_id, 64)),
                    _U16.pack(_integer("thread_id", record.thread_id, 16)),
                )
            )
        if isinstance(record, Free):
            return start + _U64.pack(_integer("address", record.address, 64))
        if isinstance(record, Gc):
            objects = encode_varint(_integer("objects", record.objects, 64))
            return start + objects + encode_varint(_integer("bytes", record.bytes, 64))
        return start + encode_varint(_integer("name_id", record.name_id, 64))

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
        length = len(metadata) or header.metadata_length
        self._sink.write(_pack(MLYZE_HEADER, (MLYZE_MAGIC, *header._replace(metadata_length=length))) + metadata)


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


# ==== 5.2 clog: binary logs of CNanoLog ===============================================================
#
# A header of 64 bytes, entries back to back, then (only in a file that was closed) a section of levels, if
# there are any, and the dictionary of log sites, to the end of the file.  Every file says version 1.0, yet
# there are seven families (clog 1.1), told apart by content; all integers are in the byte order of the machine
# that wrote the file.  Format text: "clog".  An entry names its site, and only the site tells the types of its
# arguments, so the dictionary is read first, but its faults come where it stands.

CLOG_MAGIC = 0x4E414E4F
CLOG_MARKER = 0x01020304
CLOG_VERSION = 1
CLOG_LEVEL_MAGIC = 0x4C564C53
CLOG_SITE_MAGIC = 0x44494354
CLOG_HEADER = Layout(
    "header",
    Field("magic", "I"),
    Field("version_major", "H"),
    Field("version_minor", "H"),
    Field("timestamp_frequency", "Q", "ticks per second"),
    Field("start_timestamp", "Q", "ticks"),
    Field("start_time_sec", "q", "seconds since 1970, UTC"),
    Field("start_time_nsec", "i", "nanoseconds"),
    Field("endianness", "I"),
    Field("dictionary_offset", "Q", "0 until the file is closed"),
    Field("entry_count", "I", "0 until the file is closed"),
    Field("flags", "I", "bit 0: entries have timestamps"),  # erratum 5
    Field("reserved", "8s", "all zero"),
)
_CLOG_LENGTH = Field("data_length", "H", "bytes")
CLOG_ENTRY = Layout("entry", Field("log_id", "I"), Field("timestamp", "Q", "ticks"), _CLOG_LENGTH)
CLOG_ENTRY_UNTIMED = Layout("entry", Field("log_id", "I"), _CLOG_LENGTH)  # erratum 6
CLOG_LEVELS = Layout(  # erratum 9
    "level section",
    Field("magic", "I"),
    Field("num_levels", "I"),
    Field("total_size", "I", "bytes, with this header"),
    Field("reserved", "I"),
)
CLOG_LEVEL = Layout("level", Field("level", "B"), Field("name_length", "B", "bytes"), Field("padding", "2s"))
CLOG_DICTIONARY = Layout(
    "dictionary",
    Field("magic", "I"),
    Field("num_entries", "I"),
    Field("total_size", "I", "bytes, with this header"),
    Field("reserved", "I"),
)


def _clog_site_layout(max_args: int) -> Layout:
    return Layout(
        "site",
        Field("log_id", "I"),
        Field("log_level", "B"),
        Field("num_args", "B"),
        Field("filename_length", "H", "bytes"),
        Field("format_length", "H", "bytes"),
        Field("line_number", "I"),
        Field("arg_types", f"{max_args}s"),
    )


CLOG_SITES = {
    50: _clog_site_layout(50),
    16: _clog_site_layout(16),
}  # erratum 3; by the types that a record has room for

CLOG_TYPES = ("NONE", "INT32", "INT64", "UINT32", "UINT64", "DOUBLE", "STRING", "POINTER", "CHAR")
_CLOG_CODES = {"INT32": "i", "INT64": "q", "UINT32": "I", "UINT64": "Q", "DOUBLE": "d", "POINTER": "Q", "CHAR": "B"}
_CLOG_BITS = {"INT32": 32, "INT64": 64, "UINT32": 32, "UINT64": 64, "POINTER": 64}
_CLOG_PREFIX = {"little": "<", "big": ">"}
CLOG_LEVEL_NAMES = {0: "INFO", 1: "WARN", 2: "ERROR", 3: "DEBUG"}  # erratum 4
CLOG_PATTERN = "[%t] [%l] [%f:%L] %m"

# What can be wrong, and how bad it is.  Of the faults, ``recover`` steps over the version; of all others the rest
# of the file is the tail.  Garbage among the entries has a length like any other, so reading stays in step; it is
# what a real writer leaves at shutdown, like raw entries among packed ones (clog 4.4, errata 17, 19).
CLOG_RULES: Rules = {
    **_COMMON_RULES,
    "not a CNanoLog file": ("fault", "bad-magic"),
    "neither byte order": ("fault", "bad-value"),
    "unsupported version": ("fault", "unsupported-version"),  # erratum 10
    "the dictionary begins inside this field": ("fault", "truncated"),
    "dictionary_offset is inside the header": ("fault", "bad-reference"),
    "the file ends before the dictionary": ("fault", "truncated"),
    "the file was not closed": ("fault", "truncated"),  # clog 8
    "no dictionary here": ("fault", "bad-magic"),
    "arguments fit neither layout": ("deviation", "bad-size"),
    "another number of entries": ("deviation", "bad-count"),
    "the dictionary is at the end, not at dictionary_offset": ("deviation", "bad-reference"),  # erratum 7
    "another size than total_size": ("deviation", "bad-size"),
    "level name of more than 31 bytes": ("deviation", "bad-size"),
    "log_id is not the number of the site": ("deviation", "bad-value"),
    "more arguments than a record has room for": ("deviation", "bad-count"),
    "bytes after the dictionary": ("deviation", "trailing-data"),
    "magic in the other byte order": ("note", "bad-magic"),  # erratum 1
    "byte-order marker is swapped": ("note", "bad-value"),  # erratum 8
    "newer minor version": ("note", "unsupported-version"),  # erratum 10
    "unknown flags": ("note", "bad-value"),
    "not all zero": ("note", "bad-value"),
    "argument of unknown type": ("note", "bad-value"),  # clog 5.2, families D and d
    "no such site in the dictionary": ("note", "bad-reference"),  # erratum 17
    "the sign of a large INT64 is lost": ("note", "lossy"),  # clog 4.3
    "a big-endian writer drops low bytes when it packs": ("note", "lossy"),  # clog 7
}


class ClogHeader(NamedTuple):
    """The first 64 bytes (clog 2.1): ticks per second, and the tick counter and the clock of the start.

    ``byte_order`` is ``"little"`` or ``"big"``; ``magic`` and ``endianness`` are as that order reads them.
    ``dictionary_offset`` and ``entry_count`` are 0 in a file that was not closed.
    """

    byte_order: str = "little"
    magic: int = CLOG_MAGIC
    version_major: int = CLOG_VERSION
    version_minor: int = 0
    timestamp_frequency: int = 0
    start_timestamp: int = 0
    start_time_sec: int = 0
    start_time_nsec: int = 0
    endianness: int = CLOG_MARKER
    dictionary_offset: int = 0
    entry_count: int = 0
    flags: int = 0
    reserved: bytes = bytes(8)

    @property
    def has_timestamps(self) -> bool:
        """Whether entries tell the time: by the flag, or, in files from before it, by the frequency (clog 1.1)."""
        return bool(self.flags & 1) or self.timestamp_frequency != 0


ClogArg = Union[float, int, str]  # DOUBLE; integers, POINTER and CHAR (its byte); STRING


class LogEntry(NamedTuple):
    """A line of the log: the number of its site, its time in ticks (None: the file has no times), its arguments.

    ``encoding`` is how the arguments are stored (clog 4): ``packed``; ``raw``, as the document has it and real
    files after a shutdown; ``strings`` or ``none``, where both are the same bytes; ``undecodable``, where neither
    fits; ``unknown``, where no site is known.  Of the last two ``data`` holds the argument bytes.  ``sign_lost``:
    the file does not tell the sign of an INT64 of 2^56 or more, which is given as positive (clog 4.3).  ``raw``
    holds the bytes of a packed entry of a big-endian file, whose numbers have lost their low bytes (clog 7).
    """

    log_id: int
    timestamp: Optional[int]
    args: Tuple[ClogArg, ...] = ()
    encoding: str = "packed"
    sign_lost: bool = False
    data: bytes = b""
    raw: Raw = b""


class LogSite(NamedTuple):
    """A place in the program that logs: what the number ``log_id`` of an entry stands for (clog 5.2).

    ``arg_types`` are names of ``CLOG_TYPES``; a ``NONE`` among them, or ``TYPE_n``, is a type that is not known.
    """

    log_level: int
    filename: str
    line_number: int
    format: str
    arg_types: Tuple[str, ...] = ()


class LogLevel(NamedTuple):
    """A level that the program registered, 4 to 255, with its name of at most 31 bytes (clog 5.1)."""

    level: int
    name: str


def _clog_types(num_args: int, codes: bytes) -> Tuple[str, ...]:
    """The names of the first types; those for which the record has no room are not known."""
    known = [CLOG_TYPES[code] if code < len(CLOG_TYPES) else f"TYPE_{code}" for code in codes[:num_args]]
    return (*known, *("NONE",) * (num_args - len(known)))


def _clog_byte_order(start: bytes) -> Optional[Literal["little", "big"]]:
    """The byte order of a header (errata 1, 8): the marker's, unless magic and version both speak for the other."""
    little = CLOG_HEADER.little.unpack(start)
    big = CLOG_HEADER.big.unpack(start)
    sure = CLOG_MAGIC, CLOG_VERSION
    if little[7] == CLOG_MARKER:
        return "big" if big[:2] == sure != little[:2] else "little"
    if big[7] == CLOG_MARKER:
        return "little" if little[:2] == sure != big[:2] else "big"
    return None


def _clog_max_args(data: bytes, at: int, prefix: str, number: int, total_size: int) -> int:
    """50 or 16: how many types the dictionary's records at ``at`` have room for (clog 1.1).

    The records end where total_size says; where neither kind does, fewer of them have a wrong number, or types
    after their last argument.
    """
    form = struct.Struct(prefix + "IxBHH")
    marks = {}
    for max_args, layout in CLOG_SITES.items():
        end = at
        right = wrong = 0
        while right + wrong < number and end + form.size <= len(data):
            log_id, num_args, filename_length, format_length = form.unpack_from(data, end)
            types = data[end + layout.size - max_args : end + layout.size]
            good = log_id == right + wrong and not any(types[num_args:])
            right, wrong = right + good, wrong + (not good)
            end += layout.size + filename_length + format_length
        fits = right + wrong == number and end - at + CLOG_DICTIONARY.size == total_size
        marks[max_args] = fits, -wrong, right
    return max(marks, key=lambda max_args: marks[max_args])


def _clog_ends_with_dictionary(look: Callable[[int, int], bytes], at: int, prefix: str) -> bool:
    """Whether a dictionary, with or without levels, stands at ``at`` and ends with the file (clog 8, erratum 7)."""
    form = struct.Struct(prefix + "4I")
    for magic in (CLOG_LEVEL_MAGIC, CLOG_SITE_MAGIC):
        head = look(at, form.size).ljust(form.size, b"\0")
        found, _, total_size, _ = form.unpack(head)
        if found == magic and total_size >= form.size:
            at += total_size
        elif magic == CLOG_SITE_MAGIC:
            return False
    return len(look(at - 1, 2)) == 1


# ---- clog: explain


def _explain_clog(walk: _Walk) -> Iterator[None]:
    """The format text (clog 2 to 5) line by line; each ``yield`` stands between structures."""
    header = _explain_clog_header(walk)
    yield
    stop, look = header["dictionary_offset"], lambda at, size: walk.data[at : at + size]
    timed = bool(header["flags"] & 1 or header["timestamp_frequency"])
    layout = CLOG_ENTRY if timed else CLOG_ENTRY_UNTIMED
    closed = stop > 0
    if 0 < stop < CLOG_HEADER.size:
        raise walk.fault("dictionary_offset is inside the header", 40, "dictionary_offset", str(stop))
    if not closed:
        stop = CLOG_HEADER.size
        while stop < len(walk.data) and not _clog_ends_with_dictionary(look, stop, walk.order):
            length = walk.data[stop + layout.size - 2 : stop + layout.size]
            stop += layout.size + int.from_bytes(length, "little" if walk.order == "<" else "big")
        stop = stop if stop < len(walk.data) else 0
    sites: List[Tuple[str, ...]] = []
    if stop:
        ahead = _Walk(walk.format, walk.rules, walk.data[stop:], recover=walk.recover)
        ahead.order = walk.order
        try:
            _explain_clog_dictionary(ahead, sites)
        except FormatError:
            pass
    end = stop or len(walk.data)
    raw = _explain_clog_starts_raw(walk, layout, sites, end)
    number = 0
    while walk.offset < min(end, len(walk.data)):
        with walk.record("entries"):
            raw = _explain_clog_entry(walk, layout, sites, end, raw=raw)
        number += 1
        yield
    if not stop:
        raise walk.fault("the file was not closed", walk.offset, "dictionary")
    if not walk.more():
        raise walk.fault("the file ends before the dictionary", walk.offset, "dictionary")
    _explain_clog_dictionary(walk, [])
    if not closed:
        walk.problem("the dictionary is at the end, not at dictionary_offset")
    if header["entry_count"] != number & 0xFFFFFFFF:
        walk.problem("another number of entries")
    if walk.more():
        walk.take("trailing", len(walk.data) - walk.offset, "bytes")
        walk.problem("bytes after the dictionary")


def _explain_clog_header(walk: _Walk) -> Dict[str, Any]:
    magics = [CLOG_MAGIC.to_bytes(4, order) for order in ("little", "big")]
    if not any(magic.startswith(walk.data[:4]) for magic in magics):
        raise walk.fault("not a CNanoLog file", 0, "magic")
    order = _clog_byte_order(walk.data[:64]) if len(walk.data) >= CLOG_HEADER.size else "little"
    walk.order = ">" if order == "big" else "<"
    header = walk.layout(CLOG_HEADER)
    if order is None:
        raise walk.fault("neither byte order", 36, "endianness", walk.data[36:40].hex(" "))
    if header["magic"] != CLOG_MAGIC:
        walk.problem("magic in the other byte order", "magic")
    if header["endianness"] != CLOG_MARKER:
        walk.problem("byte-order marker is swapped", "endianness")
    if header["version_major"] != CLOG_VERSION:
        error = walk.fault("unsupported version", 4, "version_major", str(header["version_major"]))
        walk.annotate(walk.skip(error), "version_major")
    if header["version_minor"]:
        walk.problem("newer minor version", "version_minor")
    if header["flags"] & ~1:
        walk.problem("unknown flags", "flags")
    if any(header["reserved"]):
        walk.problem("not all zero")
    return header


def _explain_clog_starts_raw(walk: _Walk, layout: Layout, sites: Sequence[Tuple[str, ...]], end: int) -> bool:
    """Whether the first entry that fits one layout only, in the first 64 KiB, is raw (clog 4.5)."""
    at = walk.offset
    end = min(end, len(walk.data), at + _CHUNK)
    while at + layout.size <= end:
        log_id, *_, length = (layout.little if walk.order == "<" else layout.big).unpack_from(walk.data, at)
        at += layout.size + length
        if log_id < len(sites) and at <= end:
            packed, raw = _explain_clog_fits(walk, sites[log_id], walk.data[at - length : at])
            if packed != raw:
                return raw
    return False


def _explain_clog_fits(walk: _Walk, types: Tuple[str, ...], data: bytes) -> Tuple[bool, bool]:
    """Whether argument bytes fit the packed layout, and the raw one."""
    fits = []
    for explanation in (_explain_clog_packed, _explain_clog_raw):
        trial = _Walk(walk.format, walk.rules, data, recover=False)
        trial.order = walk.order
        try:
            explanation(trial, types)
            fits.append(not trial.more())
        except FormatError:
            fits.append(False)
    return fits[0], fits[1]


def _explain_clog_entry(walk: _Walk, layout: Layout, sites: Sequence[Tuple[str, ...]], end: int, *, raw: bool) -> bool:
    """One entry; returns whether those after it are raw where they fit both layouts."""
    rule = "the dictionary begins inside this field" if end < len(walk.data) else "the file ends inside this field"
    have = min(end, len(walk.data)) - walk.offset
    if have < layout.size:
        place, name, detail = layout.cut(have)
        raise walk.fault(rule, walk.offset + place, name, detail)
    entry = walk.layout(layout)
    size = entry["data_length"]
    have -= layout.size
    if have < size:
        raise walk.fault(rule, walk.offset, "data", f"{have} of {size} bytes")
    if entry["log_id"] >= len(sites):
        walk.annotate("unknown")
        walk.problem("no such site in the dictionary", "log_id")
    else:
        types = sites[entry["log_id"]]
        packed_fits, raw_fits = _explain_clog_fits(walk, types, walk.data[walk.offset : walk.offset + size])
        if packed_fits or raw_fits:
            raw = raw or not packed_fits
            as_raw = raw_fits and raw
            encoding = "raw" if as_raw else "packed"
            walk.annotate(encoding if {*types} - {"STRING"} else "strings" if types else "none")
            (_explain_clog_raw if as_raw else _explain_clog_packed)(walk, types)
            return raw
        unknown = any(type not in CLOG_TYPES[1:] for type in types)
        walk.annotate("undecodable")
        walk.problem("argument of unknown type" if unknown else "arguments fit neither layout")
    if size:
        walk.take("data", size, "bytes")
    return raw


def _explain_clog_raw(walk: _Walk, types: Tuple[str, ...]) -> None:
    """Arguments as the document has them: in order, at full width (clog 4.1)."""
    for place, type in enumerate(types):
        if type == "STRING":
            _explain_clog_string(walk, f"args[{place}]")
        elif type in _CLOG_CODES:
            walk.fixed(f"args[{place}]", _CLOG_CODES[type], type)
        else:
            raise walk.fault("argument of unknown type", walk.offset, f"args[{place}]", type)


def _explain_clog_string(walk: _Walk, name: str) -> None:
    walk.text(name, walk.fixed(f"{name}.length", "I", "bytes"))


def _explain_clog_packed(walk: _Walk, types: Tuple[str, ...]) -> None:
    """Arguments as all releases write them: a nibble for each number, the numbers, then the strings (clog 4.2)."""
    numbers = [place for place, type in enumerate(types) if type != "STRING"]
    nibbles: List[int] = []
    for pair in range(0, len(numbers), 2):
        byte = walk.fixed(f"nibbles[{pair // 2}]", "B")
        nibbles += byte & 15, byte >> 4
        told = [
            f"args[{place}] {_explain_clog_nibble(walk, types[place], nibbles[pair + i])[0]}"
            for i, place in enumerate(numbers[pair : pair + 2])
        ]
        walk.annotate(", ".join(told))
    if any(nibbles[len(numbers) :]):
        raise walk.fault("arguments fit neither layout", walk.offset, "nibbles", "the spare nibble is not 0")
    for place, nibble in zip(numbers, nibbles):
        _explain_clog_number(walk, f"args[{place}]", types[place], nibble)
    for place, type in enumerate(types):
        if type == "STRING":
            _explain_clog_string(walk, f"args[{place}]")


def _explain_clog_nibble(walk: _Walk, type: str, nibble: int) -> Tuple[str, int, int]:
    """What a nibble says of its number, the bytes it has, and its sign, 0 if that is lost (clog 4.2, 4.3)."""
    size, sign = nibble, 1
    if type == "DOUBLE":
        fits = nibble == 8
    elif type == "CHAR":
        fits = nibble == 1
    elif type in ("INT32", "INT64") and nibble > 8:
        size, sign = nibble - 8, -1
        fits = size <= _CLOG_BITS[type] // 8
    else:
        fits = type in _CLOG_BITS and 1 <= nibble <= _CLOG_BITS[type] // 8
        sign = 0 if type == "INT64" and nibble == 8 else 1
    if not fits:
        raise walk.fault("arguments fit neither layout", walk.offset, "nibbles", f"{nibble} of {type}")
    words = f"{type}, {_many(size, 'byte')}" + {1: "", -1: ", negative", 0: ", no sign"}[sign]
    return words, size, sign


def _explain_clog_number(walk: _Walk, name: str, type: str, nibble: int) -> None:
    _, size, sign = _explain_clog_nibble(walk, type, nibble)
    if type in ("DOUBLE", "CHAR"):
        walk.fixed(name, _CLOG_CODES[type], type)
        return
    piece = walk.take(name, size, f"u{8 * size}")
    limit = 1 << _CLOG_BITS[type]
    if walk.order == "<":
        value = int.from_bytes(piece, "little")
        minimal = (size == 1 or piece[-1] != 0) and (value or sign > 0)
    else:  # the high bytes of 8; the others, where a small number is, are gone (clog 7)
        value = int.from_bytes(piece.ljust(8, b"\0"), "big")
        minimal = not any(piece[: 8 - size]) and (size < 8 or piece[0] != 0)
    if type in ("INT32", "INT64"):
        limit = limit // 2 + (sign <= 0)
    if not minimal or value >= limit:
        raise walk.fault("arguments fit neither layout", walk.offset - size, name, "not as the program packs it")
    walk.revalue(-value if sign < 0 or (value == 1 << 63 and sign == 0) else value, type)
    if sign == 0 and value != 1 << 63:
        walk.problem("the sign of a large INT64 is lost")
    if walk.order == ">" and size < 8:
        walk.problem("a big-endian writer drops low bytes when it packs")


def _explain_clog_dictionary(walk: _Walk, sites: List[Tuple[str, ...]]) -> None:
    """The section of levels, if there is one, and the dictionary; adds the types of each whole site to ``sites``."""
    magic = struct.Struct(walk.order + "I")
    start = walk.offset
    if walk.data[start : start + 4] == magic.pack(CLOG_LEVEL_MAGIC):
        head = walk.layout(CLOG_LEVELS, "level_section.")
        for _ in range(head["num_levels"]):
            with walk.record("levels"):
                level = walk.layout(CLOG_LEVEL)
                if level["name_length"] > 31:
                    walk.problem("level name of more than 31 bytes", "name_length")
                if any(level["padding"]):
                    walk.problem("not all zero")
                walk.text("name", level["name_length"])
        if walk.offset - start != head["total_size"]:
            walk.problem("another size than total_size")
        start = walk.offset
    if len(walk.data) >= start + 4 and walk.data[start : start + 4] != magic.pack(CLOG_SITE_MAGIC):
        raise walk.fault("no dictionary here", start, "dictionary.magic")
    head = walk.layout(CLOG_DICTIONARY, "dictionary.")
    max_args = _clog_max_args(walk.data, walk.offset, walk.order, head["num_entries"], head["total_size"])
    for log_id in range(head["num_entries"]):
        with walk.record("sites"):
            site = walk.layout(CLOG_SITES[max_args])
            types = _clog_types(site["num_args"], site["arg_types"])
            walk.annotate(" ".join(types))
            if any(type not in CLOG_TYPES[1:] for type in types):
                walk.problem("argument of unknown type")
            if any(site["arg_types"][site["num_args"] :]):
                walk.problem("not all zero")
            if site["num_args"] > max_args:
                walk.problem("more arguments than a record has room for", "num_args")
            if site["log_id"] != log_id:
                walk.problem("log_id is not the number of the site", "log_id")
            walk.annotate(CLOG_LEVEL_NAMES.get(site["log_level"], "registered level"), "log_level")
            walk.text("filename", site["filename_length"])
            walk.text("format", site["format_length"])
            sites.append(types)
    if walk.offset - start != head["total_size"]:
        walk.problem("another size than total_size")


# ---- clog: Reader

_ClogDecoder = Callable[[bytes, int, int], Optional[Tuple[Any, ...]]]  # the arguments from one place to another


def _clog_no_decoder(_data: bytes, _at: int, _end: int) -> None:
    """Takes nothing."""


def _clog_encoding(types: Sequence[str], encoding: str) -> str:
    """The encoding by name: the two are the same for strings alone, and for nothing."""
    if not types:
        return "none"
    return encoding if any(type != "STRING" for type in types) else "strings"


def _clog_raw_decoder(types: Sequence[str], prefix: str) -> _ClogDecoder:
    """Reads raw arguments, which end where they have to, or gives None (clog 4.1)."""
    runs = "".join("I " if type == "STRING" else _CLOG_CODES.get(type, "?") for type in types).split(" ")
    if "?" in "".join(runs):
        return _clog_no_decoder
    *before, last = [struct.Struct(prefix + run) for run in runs]
    last_size = last.size
    unpack_last = last.unpack_from
    steps = [(run.unpack_from, run.size) for run in before]

    def decode(data: bytes, at: int, end: int) -> Optional[Tuple[ClogArg, ...]]:
        args: List[ClogArg] = []
        for unpack, size in steps:
            start = at + size
            if start > end:
                return None
            *numbers, length = unpack(data, at)
            at = start + length
            if at > end:
                return None
            args += numbers
            args.append(_decode_text(data[start:at]))
        return (*args, *unpack_last(data, at)) if at + last_size == end else None

    def decode_numbers(data: bytes, at: int, end: int) -> Optional[Tuple[ClogArg, ...]]:
        return unpack_last(data, at) if at + last_size == end else None

    return decode if steps else decode_numbers


_CLOG_MEMO = 4096  # nibble patterns of one kind of site that are kept; most have fewer than a hundred
# How a number packed in 1 to 8 bytes is read; those of 3, 5, 6 and 7 come as bytes.
_CLOG_PACKED_CODES = ("", "B", "H", "3s", "I", "5s", "6s", "7s", "Q")


class _ClogPlan(NamedTuple):
    """How the entries of a site are read: by the decoder that their nibbles were met with, else by ``decode``."""

    mask: int  # which of the eight bytes after the header are nibbles
    packings: Dict[int, _ClogDecoder]
    decode: _ClogDecoder
    encoding: str


def _clog_packing(types: Sequence[str], places: Sequence[int], nibbles: bytes) -> _ClogDecoder:
    """Reads the arguments that have these nibbles, known to fit: ``types`` of numbers, ``places`` of strings."""
    codes = f"<{len(nibbles)}x"
    limits: List[Tuple[int, int, int]] = []  # place, least and greatest magnitude
    wide: List[int] = []  # places of the numbers that come as bytes
    negative: List[int] = []
    for place, type in enumerate(types):
        nibble = nibbles[place // 2] >> 4 * (place % 2) & 15
        if type not in _CLOG_BITS:
            codes += _CLOG_CODES[type]
            continue
        signed = type in ("INT32", "INT64")
        below_0 = signed and nibble > 8
        size = nibble - 8 if below_0 else nibble
        codes += _CLOG_PACKED_CODES[size]
        least = 1 << 8 * size - 8 if size > 1 else int(below_0)
        if least:
            limits.append((place, least, min((1 << 8 * size) - 1, (1 << _CLOG_BITS[type] - signed) - 1 + below_0)))
        if size in (3, 5, 6, 7):
            wide.append(place)
        if below_0:
            negative.append(place)
    form = struct.Struct(codes + "I" * (len(places) == 1))
    unpack, size = form.unpack_from, form.size
    first = places[0] if places else 0
    single = len(places) == 1
    from_bytes, unpack_size = int.from_bytes, _U32.unpack_from

    def numbers(data: bytes, at: int, end: int) -> Optional[Tuple[Any, ...]]:
        if at + size != end:
            return None
        values = unpack(data, at)
        for place, least, greatest in limits:
            if not least <= values[place] <= greatest:
                return None
        return values

    def any_arguments(data: bytes, at: int, end: int) -> Optional[Tuple[Any, ...]]:
        at += size
        if at > end:
            return None
        args = [*unpack(data, at - size)]
        for place in wide:
            args[place] = from_bytes(args[place], "little")
        for place, least, greatest in limits:
            if not least <= args[place] <= greatest:
                return None
        for place in negative:
            args[place] = -args[place]
        if single:
            if at + args.pop() != end:
                return None
            try:
                args.insert(first, data[at:end].decode())
            except UnicodeDecodeError:
                args.insert(first, _decode_text(data[at:end]))
            return tuple(args)
        for place in places:
            start = at + 4
            at = start + unpack_size(data, at)[0]
            if at > end:
                return None
            args.insert(place, _decode_text(data[start:at]))
        return tuple(args) if at == end else None

    return any_arguments if places or wide or negative else numbers


def _clog_packed_plan(types: Sequence[str]) -> _ClogPlan:
    """For packed arguments, little-endian: takes what is exactly as packed and has its signs (clog 4.2)."""
    numbers = [type for type in types if type != "STRING"]
    places = [place for place, type in enumerate(types) if type == "STRING"]
    width = (len(numbers) + 1) // 2
    packings: Dict[int, _ClogDecoder] = {}

    def decode(data: bytes, at: int, end: int) -> Optional[Tuple[Any, ...]]:
        found = _clog_packed(types, data[at:end], "little")
        if found is None:
            return None
        args: Tuple[Any, ...]
        args, sign_lost = found
        if sign_lost or -1 << 63 in args:
            return None
        if width <= 8:
            if len(packings) >= _CLOG_MEMO:
                packings.clear()
            nibbles = data[at : at + width]
            packings[int.from_bytes(nibbles, "little")] = _clog_packing(numbers, places, nibbles)
        return args

    return _ClogPlan((1 << 8 * width) - 1, packings, decode, _clog_encoding(types, "packed"))


def _clog_nibbles(types: Sequence[str], data: bytes) -> Tuple[List[str], List[int]]:
    """The types that are no STRING, and the nibbles that packed arguments begin with, two a byte."""
    numbers = [type for type in types if type != "STRING"]
    return numbers, [byte >> shift & 15 for byte in data[: (len(numbers) + 1) // 2] for shift in (0, 4)]


def _clog_packed(types: Sequence[str], data: bytes, order: Literal["little", "big"]) -> Optional[Tuple[Any, bool]]:
    """The arguments that ``data`` is the packed form of, and whether a sign is lost; else None (clog 4.2, 7)."""
    numbers, nibbles = _clog_nibbles(types, data)
    at = (len(numbers) + 1) // 2
    if len(data) < at or any(nibbles[len(numbers) :]):
        return None
    args: List[Any] = []
    sign_lost = False
    for type, nibble in zip(numbers, nibbles):
        signed = type in ("INT32", "INT64")
        negative = signed and nibble > 8
        size = nibble - 8 if negative else nibble
        piece = data[at : at + size]
        at += size
        if type in ("DOUBLE", "CHAR"):
            form = struct.Struct(_CLOG_PREFIX[order] + _CLOG_CODES[type])
            if len(piece) != form.size:
                return None
            args += form.unpack(piece)
            continue
        if not (1 <= size <= _CLOG_BITS.get(type, 0) // 8 and len(piece) == size):
            return None
        if order == "little":
            value = int.from_bytes(piece, "little")
            usual = value >> 8 * size - 8 or (size == 1 and not negative)
        else:
            value = int.from_bytes(piece + bytes(8 - size), "big")
            usual = value >> 56 if size == 8 else not any(piece[: 8 - size])
        hole = type == "INT64" and size == 8
        if not usual or value >= (1 << _CLOG_BITS[type] - signed) + (negative or hole):
            return None
        negative = negative or (hole and value == 1 << 63)
        sign_lost = sign_lost or (hole and not negative)
        args.append(-value if negative else value)
    for place, type in enumerate(types):
        if type == "STRING":
            start = at + 4
            at = start + int.from_bytes(data[at:start], order)
            if max(start, at) > len(data):
                return None
            args.insert(place, _decode_text(data[start:at]))
    return (tuple(args), sign_lost) if at == len(data) else None


class _ClogDictionary:
    """What a section of levels and a dictionary hold, as far as they can be read."""

    def __init__(self) -> None:
        self.levels: List[LogLevel] = []
        self.sites: List[LogSite] = []
        self.max_args: Optional[int] = None
        self.size = 0

    def read(self, data: bytes, order: Literal["little", "big"], base: int, problems: _Problems) -> None:
        """Take what stands at the start of ``data``, which stands at ``base`` in the file."""
        fields = _Fields(problems, data, base, byte_order=order)
        if data[:4] == CLOG_LEVEL_MAGIC.to_bytes(4, order):
            _, number, total_size, _ = fields.layout(CLOG_LEVELS, "level_section.")
            for index in range(number):
                fields.where = f"levels[{index}]."
                level, length, padding = fields.layout(CLOG_LEVEL)
                if length > 31:
                    fields.problem("level name of more than 31 bytes", fields.at - 3, "name_length")
                if any(padding):
                    fields.problem("not all zero", fields.at - 2, "padding")
                self.levels.append(LogLevel(level, fields.text("name", length)))
            fields.where = ""
            if fields.at != total_size:
                fields.problem("another size than total_size", 8, "level_section.total_size", str(fields.at))
        start = fields.at
        if len(data) >= start + 4 and data[start : start + 4] != CLOG_SITE_MAGIC.to_bytes(4, order):
            raise fields.fault("no dictionary here", "dictionary.magic")
        _, number, total_size, _ = fields.layout(CLOG_DICTIONARY, "dictionary.")
        self.max_args = _clog_max_args(data, fields.at, _CLOG_PREFIX[order], number, total_size)
        for log_id in range(number):
            fields.where = f"sites[{log_id}]."
            self._read_site(fields, log_id, self.max_args)
        fields.where = ""
        if fields.at - start != total_size:
            detail = str(fields.at - start)
            fields.problem("another size than total_size", start + 8, "dictionary.total_size", detail)
        self.size = fields.at

    def _read_site(self, fields: _Fields, log_id: int, max_args: int) -> None:
        at = fields.at
        found, level, num_args, filename_length, format_length, line, codes = fields.layout(CLOG_SITES[max_args])
        types = _clog_types(num_args, codes)
        if found != log_id:
            fields.problem("log_id is not the number of the site", at, "log_id", str(found))
        if num_args > max_args:
            fields.problem("more arguments than a record has room for", at + 5, "num_args", str(num_args))
        if any(type not in CLOG_TYPES[1:] for type in types):
            fields.problem("argument of unknown type", at + 14, "arg_types")
        elif any(codes[num_args:]):
            fields.problem("not all zero", at + 14, "arg_types")
        filename = fields.text("filename", filename_length)
        self.sites.append(LogSite(level, filename, line, fields.text("format", format_length), types))


class ClogReader(Reader[ClogHeader, LogEntry]):
    """Reads a ``.clog`` file of any family, in file order, in constant memory apart from the dictionary.

    ``header`` is the ClogHeader, ``sites`` and ``levels`` are what the program registered, ``max_args`` (50 or 16)
    how many types the dictionary has room for; None: there is no dictionary.  A file that was not closed has none:
    its entries are ``unknown``, unless ``dictionary`` (a file of the same run, a ClogReader, or sites) is given.
    ``family`` is the letter of clog 1, ``C or E`` where nothing tells these apart, "" where nothing tells any.
    The dictionary is read before the entries; of a file that cannot seek, all is kept in memory for that.
    ``utc_offset``, in seconds, or a callable that takes seconds since 1970, is added to the times of ``text``.
    """

    format = "clog"
    rules = CLOG_RULES

    def __init__(
        self,
        file: ReadableFile,
        *,
        dictionary: Union[ReadableFile, ClogReader, Sequence[LogSite], None] = None,
        utc_offset: UtcOffset = 0,
        strict: bool = False,
        recover: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self._given = _clog_given(dictionary)
        self._utc_offset = utc_offset
        self._texts: Dict[Tuple[str, bool], ClogText] = {}
        super().__init__(file, strict=strict, recover=recover, max_bytes=max_bytes)

    def _read_start(self) -> None:
        data = self._source.read(CLOG_HEADER.size)
        problems = self._problems
        if not any(CLOG_MAGIC.to_bytes(4, order).startswith(data[:4]) for order in ("little", "big")):
            raise problems.fault("not a CNanoLog file", 0, "magic")
        _Fields(problems, data).layout(CLOG_HEADER)
        order = _clog_byte_order(data)
        if order is None:
            raise problems.fault("neither byte order", 36, "endianness", data[36:40].hex(" "))
        self._order = order
        self.header = ClogHeader(order, *CLOG_HEADER.form(order).unpack(data))
        header = self.header
        if header.magic != CLOG_MAGIC:
            problems.add("magic in the other byte order", 0, "magic")
        if header.endianness != CLOG_MARKER:
            problems.add("byte-order marker is swapped", 36, "endianness")
        if header.version_major != CLOG_VERSION:
            detail = str(header.version_major)
            problems.step_over(problems.fault("unsupported version", 4, "version_major", detail))
        if header.version_minor:
            problems.add("newer minor version", 6, "version_minor", str(header.version_minor))
        if header.flags & ~1:
            problems.add("unknown flags", 52, "flags", f"0x{header.flags:x}")
        if any(header.reserved):
            problems.add("not all zero", 56, "reserved")
        self._magics = [magic.to_bytes(4, order) for magic in (CLOG_LEVEL_MAGIC, CLOG_SITE_MAGIC)]
        self._entry = CLOG_ENTRY if header.has_timestamps else CLOG_ENTRY_UNTIMED
        self._dictionary_at = header.dictionary_offset or self._find_dictionary()
        self._look_ahead()

    def _find_dictionary(self) -> int:
        """Where the dictionary of a file begins that does not tell: a border of entries, or 0 for none (clog 8)."""
        look = self._source.look
        prefix = _CLOG_PREFIX[self._order]
        unpack = self._entry.form(self._order).unpack_from
        at = CLOG_HEADER.size
        while True:
            window = look(at, _CHUNK)
            place = 0
            while place + self._entry.size <= len(window):
                if window[place : place + 4] in self._magics and _clog_ends_with_dictionary(look, at + place, prefix):
                    return at + place
                place += self._entry.size + unpack(window, place)[-1]
            if not place:
                return 0
            at += place

    def _look_ahead(self) -> None:
        """Read the dictionary, and what else has to be known before the first entry."""
        known = _ClogDictionary()
        self._dictionary: Optional[bytes] = b""
        at = self._dictionary_at
        if at >= CLOG_HEADER.size and self._source.look(at, 4) in self._magics:
            data = self._source.look(at)
            try:
                known.read(data, self._order, at, _Problems(self.format, self.rules, strict=False, recover=True))
            except FormatError:
                known.max_args = None
            else:
                data = data[: known.size]
                usual = _clog_sections(known.levels, known.sites, known.max_args or 50, self._order)
                self._dictionary = None if usual == data else data
        if self._dictionary == b"" and self._given is not None:
            known.sites, known.levels = self._given
        self.sites: Tuple[LogSite, ...] = tuple(known.sites)
        self.levels: Tuple[LogLevel, ...] = tuple(known.levels)
        self.max_args = known.max_args
        self._raw_decoders: Dict[Tuple[str, ...], _ClogDecoder] = {}
        packed = {types: self._plan(types) for types in {site.arg_types for site in self.sites}}
        self._plans = [packed[site.arg_types] for site in self.sites]
        raw = self._starts_raw()
        if raw:
            self._turn_raw()
        self.family = self._family(raw=raw)

    def _family(self, *, raw: bool) -> str:
        """The family as far as content tells (clog 1); "" without a dictionary."""
        types = {type for site in self.sites for type in site.arg_types}
        header = self.header
        if self.max_args == 50:
            return "E" if "CHAR" in types else "C or E"
        if self.max_args is None:
            return ""
        if self.levels:
            return "b"
        if header.flags & 1 or not header.timestamp_frequency:
            return "B"
        if header.timestamp_frequency == 1_000_000_000 and raw:
            return "D"
        return "d" if "NONE" in types else "A"

    def _plan(self, types: Tuple[str, ...]) -> _ClogPlan:
        """How the entries of a site are read while they are packed."""
        if self._order == "little":
            return _clog_packed_plan(types)
        same = not {*types} - {"STRING"}  # in both layouts
        decode = self._raw_decoder(types) if same else _clog_no_decoder
        return _ClogPlan(0, {}, decode, _clog_encoding(types, "packed"))

    def _turn_raw(self) -> None:
        """From the first entry on that can only be raw, those are raw that can be both (clog 4.5)."""
        self._plans[:] = [
            _ClogPlan(0, {}, self._raw_decoder(site.arg_types), _clog_encoding(site.arg_types, "raw"))
            for site in self.sites
        ]

    def _raw_decoder(self, types: Tuple[str, ...]) -> _ClogDecoder:
        """One for all sites of the same types."""
        if types not in self._raw_decoders:
            self._raw_decoders[types] = _clog_raw_decoder(types, _CLOG_PREFIX[self._order])
        return self._raw_decoders[types]

    def _starts_raw(self) -> bool:
        """Whether the first entry that fits one layout only, in the first 64 KiB, is raw (clog 4.5)."""
        end = self._dictionary_at - CLOG_HEADER.size if self._dictionary_at else _CHUNK
        data = self._source.peek(max(min(end, _CHUNK), 0)) if self.sites else b""
        unpack = self._entry.form(self._order).unpack_from
        at = 0
        while at + self._entry.size <= len(data):
            log_id, *_, size = unpack(data, at)
            at += self._entry.size + size
            if log_id < len(self.sites) and at <= len(data):
                types = self.sites[log_id].arg_types
                if {*types} - {"STRING"}:
                    packed, raw = self._fits(types, data[at - size : at])
                    if (packed is None) != (raw is None):
                        return packed is None
        return False

    def _fits(
        self, types: Tuple[str, ...], data: bytes
    ) -> Tuple[Optional[Tuple[Any, bool]], Optional[Tuple[Any, ...]]]:
        """The arguments in the packed layout, with whether a sign is lost, and in the raw one; None for no fit."""
        raw = self._raw_decoder(types)(data, 0, len(data))
        return _clog_packed(types, data, self._order), raw

    @property
    def tables(self) -> Dict[str, Any]:
        """``sites``, ``levels``, ``max_args``, and ``dictionary``: the bytes of both where a writer gives others.

        Empty bytes mean that the file has no dictionary, or one that cannot be read.
        """
        return {
            "sites": self.sites,
            "levels": self.levels,
            "max_args": self.max_args,
            "dictionary": self._dictionary,
        }

    def _read_records(self) -> Iterator[LogEntry]:
        # A site has a decoder for each pattern of nibbles that was met, which are read together with the header; what
        # these do not take, _read_entry does.
        new = tuple.__new__
        source = self._source
        header_size = self._entry.size
        timed = header_size == CLOG_ENTRY.size
        unpack = struct.Struct(_CLOG_PREFIX[self._order] + ("IQHQ" if timed else "IHQ")).unpack_from
        ahead = bytes(8)
        plans = self._plans
        count = len(plans)
        data = none = b""
        timestamp: Optional[int] = None
        base = source.position
        stop = self._dictionary_at
        at = index = need = size = have = 0
        try:
            if 0 < stop < CLOG_HEADER.size:
                raise self._problems.fault("dictionary_offset is inside the header", 40, "dictionary_offset", str(stop))
            while True:
                source.peek(need)
                piece = source.chunk()
                base += at
                data = data[at:have] + piece + ahead
                at = 0
                size = len(data) - len(ahead)
                have = min(size, stop - base) if stop else size
                last = have - header_size
                while at <= last:
                    if timed:
                        log_id, timestamp, length, nibbles = unpack(data, at)
                    else:
                        log_id, length, nibbles = unpack(data, at)
                    start = at + header_size
                    end = start + length
                    if end > have:
                        break
                    if log_id < count:
                        mask, packings, decode, encoding = plans[log_id]
                        args = packings.get(nibbles & mask, decode)(data, start, end)
                        if args is not None:
                            yield new(LogEntry, (log_id, timestamp, args, encoding, False, none, none))
                            at = end
                            index += 1
                            continue
                    yield self._read_entry(data[at:end], base + at, index)
                    at = end
                    index += 1
                if not piece or have < size:
                    break
                need = at + header_size + (length if at <= last else 0) - have
            if at < have:
                raise self._cut(data[at:have], base + at, index, whole=have == size)
            source.back(data[at:size])
            size = 0
            self._read_end(index)
        except FormatError as error:
            self._end(data[at:size], error)

    def _cut(self, data: bytes, base: int, index: int, *, whole: bool) -> FormatError:
        """The fault of an entry that goes on after the end of the file, or of the entries."""
        rule = "the file ends inside this field" if whole else "the dictionary begins inside this field"
        place, name = self._entry.size, "data"
        if len(data) < place:
            place, name, detail = self._entry.cut(len(data))
        else:
            size = self._entry.form(self._order).unpack_from(data)[-1]
            detail = f"{len(data) - place} of {size} bytes"
        return self._problems.fault(rule, base + place, f"entries[{index}].{name}", detail)

    def _read_entry(self, data: bytes, base: int, index: int) -> LogEntry:
        """An entry whose arguments are not plain, or of no known site."""
        log_id, *times, _ = self._entry.form(self._order).unpack_from(data)
        timestamp = times[0] if times else None
        where = f"entries[{index}]."
        problems = self._problems
        piece = data[self._entry.size :]
        if log_id >= len(self.sites):
            problems.add("no such site in the dictionary", base, where + "log_id", str(log_id))
            return LogEntry(log_id, timestamp, (), "unknown", data=piece)
        types = self.sites[log_id].arg_types
        packed, raw = self._fits(types, piece)
        base += self._entry.size
        if packed is None and raw is not None:
            self._turn_raw()
            return LogEntry(log_id, timestamp, raw, "raw")
        if packed is None:
            unknown = any(type not in CLOG_TYPES[1:] for type in types)
            rule = "argument of unknown type" if unknown else "arguments fit neither layout"
            problems.add(rule, base, where + "data", f"{len(piece)} bytes")
            return LogEntry(log_id, timestamp, (), "undecodable", data=piece)
        args, sign_lost = packed
        if sign_lost:
            problems.add("the sign of a large INT64 is lost", base, where + "args")
        if self._order == "little":
            return LogEntry(log_id, timestamp, args, "packed", sign_lost)
        if not sign_lost and _clog_packs_lossily(types, piece):
            problems.add("a big-endian writer drops low bytes when it packs", base, where + "args")
        return LogEntry(log_id, timestamp, args, "packed", sign_lost, raw=data)

    def _read_end(self, number: int) -> None:
        """What stands after the entries."""
        base = self._source.position
        problems = self._problems
        if not self._dictionary_at:
            raise problems.fault("the file was not closed", base, "dictionary")
        data = self._source.rest()
        if not data:
            raise problems.fault("the file ends before the dictionary", base, "dictionary")
        found = _ClogDictionary()
        try:
            found.read(data, self._order, base, problems)
        except FormatError:
            self._source.back(data)
            raise
        if not self.header.dictionary_offset:
            problems.add("the dictionary is at the end, not at dictionary_offset", 40, "dictionary_offset")
        if self.header.entry_count != number & 0xFFFFFFFF:
            detail = f"{number}, not {self.header.entry_count}"
            problems.add("another number of entries", 48, "entry_count", detail)
        if len(data) > found.size:
            detail = _many(len(data) - found.size, "byte")
            problems.add("bytes after the dictionary", base + found.size, "trailing", detail)
        self._end(data[found.size :])

    def time_ns(self, entry: LogEntry) -> Optional[int]:
        """When the entry was logged: nanoseconds since 1970, UTC, exact; None in a file without times.

        A timestamp before the start, of another core's counter, counts back (clog, Semantics).
        """
        if entry.timestamp is None or not self.header.timestamp_frequency:
            return None
        return _clog_start_ns(self.header) + _clog_elapsed_ns(self.header, entry.timestamp)

    def message(self, entry: LogEntry, *, like_upstream: bool = False) -> str:
        """The entry's format with its arguments filled in, by the rules of C; see ``ClogText``."""
        return self.text(entry, "%m", like_upstream=like_upstream)

    def text(self, entry: LogEntry, pattern: str = CLOG_PATTERN, *, like_upstream: bool = False) -> str:
        """The entry as a line of text; ``pattern`` and ``like_upstream`` are those of ``ClogText``."""
        text = self._texts.get((pattern, like_upstream))
        if text is None:
            text = ClogText(self, pattern, utc_offset=self._utc_offset, like_upstream=like_upstream)
            if len(self._texts) > 16:
                self._texts.clear()
            self._texts[pattern, like_upstream] = text
        return text.line(entry)


def _clog_start_ns(header: ClogHeader) -> int:
    return header.start_time_sec * 1_000_000_000 + header.start_time_nsec


def _clog_elapsed_ns(header: ClogHeader, timestamp: int) -> int:
    """Nanoseconds since the start; a timestamp before it counts back, by the difference as a signed number."""
    elapsed = (timestamp - header.start_timestamp + (1 << 63) & _U64_MAX) - (1 << 63)
    return elapsed * 1_000_000_000 // header.timestamp_frequency


def _clog_given(dictionary: Any) -> Optional[Tuple[List[LogSite], List[LogLevel]]]:
    """The sites and levels of another file, of its reader, or as they are."""
    if dictionary is None:
        return None
    if isinstance(dictionary, (list, tuple)):
        if not all(isinstance(site, LogSite) for site in dictionary):
            raise TypeError("a dictionary is a file, a ClogReader or LogSites")
        return [*dictionary], []
    if not isinstance(dictionary, ClogReader):
        with ClogReader(dictionary, recover=True) as reader:
            return _clog_given(reader)
    return [*dictionary.sites], [*dictionary.levels]


def _clog_packs_lossily(types: Sequence[str], data: bytes) -> bool:
    """Whether a number of packed arguments has fewer than 8 bytes, the ones that a big-endian writer drops."""
    numbers, nibbles = _clog_nibbles(types, data)
    return any(nibble != 8 for type, nibble in zip(numbers, nibbles) if type in _CLOG_BITS)


# ---- clog: Writer


def _clog_sections(levels: Iterable[LogLevel], sites: Iterable[LogSite], max_args: int, byte_order: str) -> bytes:
    """The levels, if any, and the dictionary of sites; raises ValueError for what they cannot hold (clog 5)."""
    made: List[bytes] = []
    for level, name in levels:
        data = _encode_text(name)
        if len(data) > 255:
            raise ValueError(f"a level name is of at most 31 bytes: {name!r}")
        made.append(_pack(CLOG_LEVEL, (level, len(data), bytes(2)), byte_order) + data)
    section = _clog_section(CLOG_LEVELS, CLOG_LEVEL_MAGIC, made, byte_order) if made else b""
    made = []
    for log_id, (log_level, filename, line, format, types) in enumerate(sites):
        texts = _encode_text(filename), _encode_text(format)
        codes = bytes([_clog_code(type) for type in types])
        if len(codes) > 255 or max(map(len, texts)) > 0xFFFF:
            raise ValueError(f"more than a record of the dictionary holds: {(filename, format)!r:.200}")
        values = log_id, log_level, len(codes), *map(len, texts), line, codes[:max_args].ljust(max_args, b"\0")
        made.append(_pack(CLOG_SITES[max_args], values, byte_order) + b"".join(texts))
    return section + _clog_section(CLOG_DICTIONARY, CLOG_SITE_MAGIC, made, byte_order)


def _clog_section(head: Layout, magic: int, records: Sequence[bytes], byte_order: str) -> bytes:
    body = b"".join(records)
    return head.form(byte_order).pack(magic, len(records), head.size + len(body), 0) + body


def _clog_code(type: str) -> int:
    """The code of an argument type by its name, one of ``CLOG_TYPES`` or ``TYPE_n``."""
    if type in CLOG_TYPES:
        return CLOG_TYPES.index(type)
    number = _decimal(type[5:] or "-") if type.startswith("TYPE_") else None
    if number is None or number > 255:
        raise ValueError(f"not a type of argument: {type!r}")
    return number


_CLOG_WORDS = {"NaN": float("nan"), "Infinity": _INFINITY, "-Infinity": -_INFINITY}


def _clog_argument(type: str, value: Any) -> Any:
    """The value itself; raises TypeError or ValueError for what an argument of that type cannot be.

    Of a DOUBLE it is a float; the words are those of a JSON document, which has no other way to tell them.
    """
    if type == "STRING":
        if not isinstance(value, str):
            raise TypeError(f"a STRING is text, not {value!r}")
        return value
    if type == "DOUBLE":
        value = _CLOG_WORDS.get(value, value)
        if not isinstance(value, (int, float)):
            raise TypeError(f"a DOUBLE is a number, not {value!r}")
        try:
            return float(value)
        except OverflowError:
            raise ValueError("a DOUBLE is not as large as this integer") from None
    if type in ("INT32", "INT64"):
        if not isinstance(value, int):
            raise TypeError(f"an {type} is an integer, not {value!r}")
        if not -1 << _CLOG_BITS[type] - 1 <= value < 1 << _CLOG_BITS[type] - 1:
            raise ValueError(f"an {type} is not as large as {value}")
        return value
    if type not in _CLOG_CODES:
        raise ValueError(f"an argument of type {type} cannot be written")
    return _integer(type, value, _CLOG_BITS.get(type, 8))


def _clog_write_raw(types: Sequence[str], args: Sequence[Any], prefix: str) -> bytes:
    """Raw argument bytes (clog 4.1)."""
    made: List[bytes] = []
    for type, value in zip(types, args):
        value = _clog_argument(type, value)
        if type == "STRING":
            data = _encode_text(value)
            made += struct.pack(prefix + "I", len(data)), data
        else:
            made.append(struct.pack(prefix + _CLOG_CODES[type], value))
    return b"".join(made)


def _clog_write_packed(types: Sequence[str], args: Sequence[Any], *, sign_lost: bool) -> bytes:
    """Packed argument bytes, little-endian (clog 4.2).

    An INT64 of 2^56 or more has no form with a sign (clog 4.3); ``sign_lost`` allows the one that is left.
    """
    nibbles: List[int] = []
    numbers: List[bytes] = []
    strings: List[bytes] = []
    for type, value in zip(types, args):
        if type == "STRING":
            data = _encode_text(_clog_argument(type, value))
            strings += struct.pack("<I", len(data)), data
        elif type in ("DOUBLE", "CHAR"):
            nibbles.append(8 if type == "DOUBLE" else 1)
            numbers.append(struct.pack("<" + _CLOG_CODES[type], _clog_argument(type, value)))
        else:
            value = _clog_argument(type, value)
            size = (value.bit_length() + 7) // 8 or 1
            hole = type == "INT64" and size == 8
            if hole and value != -1 << 63 and not sign_lost:
                raise ValueError(f"packed, an INT64 of 2^56 or more loses its sign: {value}; write the entry raw")
            nibbles.append(8 if hole else size + 8 * (value < 0))
            numbers.append(abs(value).to_bytes(size, "little"))
    nibbles.append(0)
    pairs = bytes([low | high << 4 for low, high in zip(nibbles[0::2], nibbles[1::2])])
    return b"".join((pairs, *numbers, *strings))


_ClogShape = Tuple[Callable[..., bytes], int, bytes]
_CLOG_SIZES = tuple([max((bits + 7) // 8, 1) for bits in range(65)])  # of a number, by its bit_length


def _clog_encoder(types: Tuple[str, ...]) -> Callable[[int, Any, Sequence[Any]], Optional[bytes]]:
    """Writes whole entries, packed, timed and little-endian, or gives None where _write_entry has to look at them."""
    limits: List[Optional[Tuple[int, int]]] = []  # None for a number that has always the same size
    for type in types:
        bits = min(_CLOG_BITS.get(type, 0), 56 if type == "INT64" else 64)
        half = bits - (type == "INT32")
        limits.append((1 - (1 << half) if type in ("INT32", "INT64") else 0, (1 << half) - 1) if bits else None)
    kinds = [(type == "STRING", limit) for type, limit in zip(types, limits)]
    strings = types.count("STRING")
    number = len(types)
    sizes = _CLOG_SIZES
    memo: Dict[int, _ClogShape] = {}

    def encode(log_id: int, timestamp: Any, args: Sequence[Any]) -> Optional[bytes]:
        shape = 1
        values: List[Any] = []
        texts: List[bytes] = []
        if len(args) != number:
            return None
        for (string, limit), value in zip(kinds, args):
            if string:
                texts.append(value.encode("utf-8", "surrogateescape"))
                continue
            if limit is not None:
                if not limit[0] <= value <= limit[1]:
                    return None
                size = sizes[value.bit_length()]
                shape = shape << 4 | size
                if value < 0:
                    shape += 8
                    value = -value
                if size in (3, 5, 6, 7):
                    value = value.to_bytes(size, "little")
            values.append(value)
        if shape not in memo:
            if len(memo) >= _CLOG_MEMO:
                memo.clear()
            memo[shape] = _clog_shape(types, shape)
        pack, size, nibbles = memo[shape]
        if not strings:
            return pack(log_id, timestamp, size, nibbles, *values)
        if strings == 1:
            text = texts[0]
            return pack(log_id, timestamp, size + len(text), nibbles, *values, len(text)) + text
        tail = b"".join([len(text).to_bytes(4, "little") + text for text in texts])
        return pack(log_id, timestamp, size + len(tail), nibbles, *values) + tail

    return encode


def _clog_shape(types: Sequence[str], shape: int) -> _ClogShape:
    """Of entries whose numbers have these nibbles: pack, size of the arguments without strings, nibble bytes."""
    nibbles = []
    codes = ""
    for type in reversed(types):
        if type in _CLOG_BITS:
            nibbles.append(shape & 15)
            shape >>= 4
            codes = _CLOG_PACKED_CODES[nibbles[-1] & 7 or 8 if type[0] == "I" else nibbles[-1]] + codes
        elif type != "STRING":
            nibbles.append(8 if type == "DOUBLE" else 1)
            codes = _CLOG_CODES[type] + codes
    nibbles = [*reversed(nibbles), 0]
    pairs = bytes([low | high << 4 for low, high in zip(nibbles[0::2], nibbles[1::2])])
    codes = f"<{len(pairs)}s{codes}" + "I" * (types.count("STRING") == 1)
    return struct.Struct("<IQH" + codes[1:]).pack, struct.calcsize(codes), pairs


class ClogWriter(Writer[ClogHeader, LogEntry]):
    """Writes a ``.clog`` file that CNanoLog's decompressor reads (clog, What a writer should do).

    ``level`` and ``site`` register, ``log`` logs; ``write`` and ``write_all`` take LogEntries.  ``close`` writes
    the dictionary and fills in the header, so the file must be seekable, unless a document is written whose
    header is complete.  ``flush`` makes the entries readable with ``recover`` should the writer die.

    ``frequency`` is in ticks per second, by default nanoseconds, ``start_timestamp`` in ticks, at the time of
    ``start_time_sec`` and ``start_time_nsec`` since 1970, UTC.  Without ``timestamps`` entries are of 6 bytes.
    ``max_args`` is 50, as releases from 1.0.5 read, or 16, as those before.  ``raw``: arguments at full width, as
    the document has them.  In a big-endian file they are always raw, since a real writer's packing, by which the
    numbers would be read, destroys them there (clog 7).
    """

    format = "clog"

    def __init__(
        self,
        file: WritableFile,
        *,
        byte_order: str = "little",
        timestamps: bool = True,
        frequency: int = 1_000_000_000,
        start_timestamp: int = 0,
        start_time_sec: int = 0,
        start_time_nsec: int = 0,
        max_args: int = 50,
        raw: bool = False,
    ) -> None:
        if byte_order not in ("little", "big"):
            raise ValueError(f"byte_order is 'little' or 'big', not {byte_order!r}")
        if max_args not in CLOG_SITES:
            raise ValueError(f"max_args is 50 or 16, not {max_args!r}")
        if timestamps and not frequency:
            raise ValueError("frequency is 0, as in a file without timestamps")
        self._header = ClogHeader(
            byte_order,
            timestamp_frequency=frequency if timestamps else 0,
            start_timestamp=start_timestamp if timestamps else 0,
            start_time_sec=start_time_sec,
            start_time_nsec=start_time_nsec,
            flags=int(timestamps),
        )
        _clog_write_header(self._header)
        self._raw = raw or byte_order == "big"
        self._sites: List[LogSite] = []
        self._levels: List[LogLevel] = []
        self._max_args = max_args
        self._document = False
        self._dictionary: Optional[bytes] = None
        self._ids: Dict[Tuple[int, str, str, Tuple[str, ...]], int] = {}
        self._number = self._position = 0  # of what has been written; the position is 0 until the header has been
        self._set_order()
        super().__init__(file)

    def _set_order(self) -> None:
        self._order: Literal["little", "big"] = "big" if self._header.byte_order == "big" else "little"
        self._prefix = _CLOG_PREFIX[self._order]
        layout = CLOG_ENTRY if self._header.has_timestamps else CLOG_ENTRY_UNTIMED
        self._timed = layout is CLOG_ENTRY
        self._entry = layout.form(self._header.byte_order)
        self._encoders: Dict[int, Tuple[Callable[..., Optional[bytes]], str]] = {}  # of the sites met so far

    def level(self, level: int, name: str) -> None:
        """Register a level, 4 to 255, with a name of at most 31 bytes (clog 5.1)."""
        if _integer("level", level, 8) < 4 or level in [known.level for known in self._levels]:
            raise ValueError(f"a level is from 4 to 255, and registered once: {level}")
        if len(_encode_text(name)) > 31:
            raise ValueError(f"a level name is of at most 31 bytes: {name!r}")
        if len(self._levels) >= 64:
            raise ValueError("there are 64 levels already")
        self._levels.append(LogLevel(level, name))

    def site(self, log_level: int, filename: str, line_number: int, format: str, arg_types: Sequence[str] = ()) -> int:
        """Register a place that logs, and return its number; the same line, file and format are the same site."""
        site = LogSite(log_level, filename, line_number, format, tuple(arg_types))
        log_id = self._ids.get((line_number, filename, format, site.arg_types))
        if log_id is not None:
            return log_id
        if len(site.arg_types) > self._max_args:
            raise ValueError(f"a site has at most {self._max_args} arguments, not {len(site.arg_types)}")
        if not all(type in _CLOG_CODES or type == "STRING" for type in site.arg_types):
            raise ValueError(f"not types of arguments: {site.arg_types}")
        _clog_sections((), (site,), self._max_args, self._order)
        self._ids[line_number, filename, format, site.arg_types] = len(self._sites)
        self._sites.append(site)
        return len(self._sites) - 1

    def log(self, site: int, *args: ClogArg, timestamp: Optional[int] = None, raw: bool = False) -> None:
        """Write an entry: the number of its site, its arguments, its time in ticks (None: the file has none).

        ``raw``: at full width, as an INT64 of 2^56 or more has to be in a file that is else packed.  All entries after
        it are raw too, as readers expect (clog 4.5); a ValueError where its bytes could be packed ones as well.
        """
        types = self._types(site)
        if types is None:
            raise ValueError(f"no site of that number: {site}")
        if not (raw or self._raw) and any(type == "INT64" and arg == -1 << 63 for type, arg in zip(types, args)):
            raise ValueError("packed, -2^63 is not read by CNanoLog: write the entry raw")
        if raw and not self._raw:
            data = _clog_write_raw(types, args, self._prefix)
            if {*types} - {"STRING"} and _clog_packed(types, data, self._order) is not None:
                raise ValueError(f"these arguments look packed when they are raw: {args}")
            self._raw = True
        self.write(LogEntry(site, timestamp, args, _clog_encoding(types, "raw" if raw or self._raw else "packed")))

    def _types(self, log_id: int) -> Optional[Tuple[str, ...]]:
        return self._sites[log_id].arg_types if 0 <= log_id < len(self._sites) else None

    def write_all(self, records: Iterable[LogEntry]) -> None:
        """Write entries in order; those that the format cannot hold are a ValueError or TypeError."""
        if self._closed:
            raise ValueError("the writer is closed")
        self._write_start()
        # Packed entries of a timed little-endian file are written here, by an encoder for each site; everything else,
        # what is wrong, and the first of each site, by _write_entry.
        plain = self._timed and self._prefix == "<"
        encoders = self._encoders
        pieces: List[bytes] = []
        add = pieces.append
        try:
            for record in records:
                piece = None
                if plain and type(record) is LogEntry:
                    log_id, timestamp, args, encoding, sign_lost, data, raw = record
                    if not (sign_lost or raw or data):
                        try:
                            encode, usual = encoders[log_id]
                            if encoding == usual:
                                piece = encode(log_id, timestamp, args)
                        except (struct.error, TypeError, LookupError, AttributeError, OverflowError):
                            pass
                add(piece or self._write_entry(record))
                if len(pieces) > 1000:
                    self._put(pieces)
        finally:
            self._put(pieces)

    def _put(self, pieces: List[bytes]) -> None:
        data = b"".join(pieces)
        self._number += len(pieces)
        self._position += len(data)
        pieces.clear()
        self._sink.write(data)

    def _write_entry(self, record: LogEntry) -> bytes:
        """The bytes of any entry; raises ValueError or TypeError for what cannot be one."""
        if type(record) is not LogEntry:
            raise TypeError(f"not a record of clog: {record!r}")
        if record.raw:
            return _raw_bytes(record)
        log_id = _integer("log_id", record.log_id, 32)
        data = self._write_args(record, self._types(log_id))
        if len(data) > 0xFFFF:
            raise ValueError(f"an entry has at most 65535 bytes of arguments, not {len(data)}")
        if self._timed:
            if record.timestamp is None:
                raise ValueError("an entry of this file has a timestamp")
            return self._entry.pack(log_id, _integer("timestamp", record.timestamp, 64), len(data)) + data
        if record.timestamp is not None:
            raise ValueError("an entry of a file without timestamps has none")
        return self._entry.pack(log_id, len(data)) + data

    def _write_args(self, record: LogEntry, types: Optional[Tuple[str, ...]]) -> bytes:
        encoding = record.encoding
        if encoding in ("undecodable", "unknown"):
            return bytes(memoryview(record.data))
        if types is None:
            raise ValueError(f"no site of that number: {record.log_id}")
        if len(record.args) != len(types):
            raise ValueError(f"site {record.log_id} has {len(types)} arguments, not {len(record.args)}")
        usual = _clog_encoding(types, "packed")
        if record.log_id not in self._encoders:
            self._encoders[record.log_id] = _clog_encoder(types), usual
        if encoding not in ("packed", "raw", usual):
            raise ValueError(f"arguments of site {record.log_id} are not {encoding!r}")
        if encoding == usual == "packed":
            if self._prefix == ">":
                raise ValueError("big-endian packing destroys numbers: write the entry raw")
            return _clog_write_packed(types, record.args, sign_lost=record.sign_lost)
        return _clog_write_raw(types, record.args, self._prefix)

    def _begin(self, header: ClogHeader, tables: Mapping[str, Any]) -> None:
        """Start with the header and tables of a document: ``sites``, ``levels``, ``max_args``, ``dictionary``."""
        if self._closed or self._position or self._sites or self._levels:
            raise ValueError("a document is the first thing written, and brings its own sites")
        self._document = True
        max_args = tables.get("max_args")
        if max_args not in (None, *CLOG_SITES):
            raise ValueError(f"max_args is 50 or 16, not {max_args!r}")
        sites, levels = tables.get("sites", ()), tables.get("levels", ())
        if not all(type(site) is LogSite for site in sites) or not all(type(level) is LogLevel for level in levels):
            raise TypeError("sites are LogSites, levels are LogLevels")
        _clog_write_header(header)
        self._header = header
        self._set_order()
        self._sites, self._levels, self._max_args = [*sites], [*levels], max_args or 50
        self._dictionary = tables.get("dictionary")
        self._write_start()

    def _end(self, tables: Mapping[str, Any], tail: bytes) -> None:
        """Write the dictionary, where the header says that it stands here, and the tail.

        Raises ValueError for entries that end elsewhere with nothing after them: those of no file.
        """
        sections = self._sections() if self._dictionary is None else self._dictionary
        place = self._header.dictionary_offset
        if place in (0, self._position):
            self._sink.write(sections)
        elif sections and not tail:
            raise ValueError(f"the entries end at {self._position}, but dictionary_offset is {place}")
        self._sink.write(tail)

    def _sections(self) -> bytes:
        return _clog_sections(self._levels, self._sites, self._max_args, self._order)

    def _write_start(self) -> None:
        if not self._position:
            if not self._document and not self._sink.seekable:
                raise ValueError("the header is filled in by close: the file must be seekable")
            self._position = CLOG_HEADER.size
            self._sink.write(_clog_write_header(self._header))

    def flush(self) -> None:
        """Hand what has been written to the operating system: the header at least."""
        self._write_start()
        super().flush()

    def _finish(self) -> None:
        if not self._document:
            self._write_start()
            header = self._header._replace(dictionary_offset=self._position, entry_count=self._number & 0xFFFFFFFF)
            self._sink.write(self._sections())
            self._sink.patch(0, _clog_write_header(header))


def _clog_write_header(header: ClogHeader) -> bytes:
    """The first 64 bytes; raises ValueError or TypeError for what they cannot hold."""
    order, *values = header
    if order not in ("little", "big"):
        raise ValueError(f"byte_order is 'little' or 'big', not {order!r}")
    return _pack(CLOG_HEADER, values, order)


# ---- clog: semantics

UtcOffset = Union[int, Callable[[int], int]]


class ClogText:
    """Turns the entries of a reader into lines of text.

    ``pattern`` has ``%t`` for the time (``YYYY-MM-DD HH:MM:SS.nnnnnnnnn``; ``NO-TIMESTAMP``), ``%T`` for the ticks,
    ``%r`` for the seconds since the start, ``%l`` level, ``%f`` file, ``%L`` line, ``%m`` message and ``%%``; anything
    else is copied (erratum 18).  ``utc_offset``, seconds or a callable of seconds since 1970, goes on top of UTC.

    The message is what C's printf makes of the format, by the types of the stored arguments.  ``like_upstream``: what
    CNanoLog's decompressor prints, with its clock, its loose reading of arguments, its disregard for all but the
    place of a conversion, and its limits (clog, Semantics); an entry of an unknown site is a FormatError then.
    """

    def __init__(
        self,
        reader: ClogReader,
        pattern: str = CLOG_PATTERN,
        *,
        utc_offset: UtcOffset = 0,
        like_upstream: bool = False,
    ) -> None:
        self._reader = reader
        self._header = reader.header
        self._start_ns = _clog_start_ns(reader.header)
        self._prefix = _CLOG_PREFIX[reader.header.byte_order]
        self._upstream = like_upstream
        # What upstream reads as packed where it can: all that is raw, but in files from before packing (family D).
        self._loose = "" if reader.family == "D" else "raw"
        self._offset = utc_offset
        self._tokens = _clog_tokens(pattern)
        self._names = {level.level: level.name for level in reversed(reader.levels)}
        self._names.update(CLOG_LEVEL_NAMES)
        self._second, self._clock = -1 << 70, ""  # of the last entry
        self._sites = [self._site(site) for site in reader.sites]
        self._parts: Dict[int, _ClogParts] = {}  # of the formats that the long way has met

    def level(self, log_level: int) -> str:
        """The name of a level; of one that is not registered, as the release of the file has it (clog 6)."""
        old = self._upstream and self._reader.max_args == 16 and not self._reader.levels
        return self._names.get(log_level, "UNKNOWN" if old else f"LEVEL_{log_level}")

    def _site(self, site: LogSite) -> Tuple[Optional[str], int, FrozenSet[float], List[Tuple[str, str]]]:
        """Of the message: template, number of arguments, values to take care of; and the tokens, with constants."""
        constants = {"l": self.level(site.log_level), "f": site.filename, "L": str(site.line_number)}
        if self._upstream:
            constants = {name: text.partition("\0")[0] for name, text in constants.items()}
        tokens: List[Tuple[str, str]] = [("", "")]
        for kind, text in self._tokens:
            text = constants.get(kind, text)
            if kind in ("", *constants):
                tokens[-1] = (tokens[-1][0], tokens[-1][1] + text)
            else:
                tokens.append((kind, ""))
        return (*self._template(site), tokens)

    def _template(self, site: LogSite) -> Tuple[Optional[str], int, FrozenSet[float]]:
        """A Python format that gives the message in most cases; None if it may not."""
        parts = _clog_upstream_parts(site.format, site.arg_types) if self._upstream else _clog_printf_parts(site)
        template = ""
        used = 0
        for part in parts:
            if isinstance(part, str):
                template += part.replace("%", "%%")
                continue
            spec = (
                "%s" if part.type == "STRING" and self._upstream else _clog_python_format(part, upstream=self._upstream)
            )
            if spec is None:
                return None, 0, frozenset()
            template += spec
            used += 1
        types = site.arg_types[:used]
        care: Dict[str, Tuple[float, ...]] = {"DOUBLE": (_INFINITY, -_INFINITY), "POINTER": (0,)}
        if self._upstream:
            care["INT64"] = (-1 << 63,)  # has no packed form that upstream reads
        return template, used, frozenset(value for type in types for value in care.get(type, ()))

    def line(self, entry: LogEntry) -> str:
        """The line of an entry, without an end of line; undecodable bytes are surrogates, as everywhere."""
        log_id, timestamp, args, encoding, sign_lost, _, _ = entry
        try:
            template, used, care, tokens = self._sites[log_id]
        except IndexError:
            return self._stray(entry)
        plain = encoding != "undecodable" and not (self._upstream and (encoding == self._loose or sign_lost))
        message = None
        if template is not None and plain:
            message = template % (args if used == len(args) else args[:used])
            if care and not care.isdisjoint(args):
                message = None
            elif _INFINITY in care and ("NAN" in message.upper() or "e+" in message):
                message = None  # the sign of a nan; and PyPy has an exponent from 1e50 on, also for %f
        if message is None:
            message = self._message(entry)
        if self._upstream and (len(message) > 511 or "\0" in message):
            message = _clog_cut(message, 2047)
        line = self._fill(tokens, timestamp, message)
        return _clog_cut(line, 4095) if self._upstream and len(line) > 1023 else line

    def _fill(self, tokens: List[Tuple[str, str]], timestamp: Optional[int], message: str) -> str:
        line = ""
        for kind, text in tokens:
            if kind == "t":
                line += self._time(timestamp) + text
            elif kind == "m":
                line += message + text
            elif kind == "T":
                line += f"{timestamp or 0}{text}"
            elif kind == "r":
                line += self._elapsed(timestamp) + text
            else:
                line += text
        return line

    def _time(self, timestamp: Optional[int]) -> str:
        header = self._header
        if timestamp is None or not header.timestamp_frequency:
            return "NO-TIMESTAMP"
        if self._upstream:  # in floating point, cut, without start_time_nsec (erratum 19)
            seconds = float(timestamp - header.start_timestamp & _U64_MAX) / float(header.timestamp_frequency)
            whole = int(seconds)
            fraction = int((seconds - whole) * 1e9)
            whole += header.start_time_sec
        else:
            whole, fraction = divmod(self._start_ns + _clog_elapsed_ns(header, timestamp), 1_000_000_000)
        if whole != self._second:
            self._second = whole
            self._clock = _calendar(whole + (self._offset(whole) if callable(self._offset) else self._offset))
        return f"{self._clock}.{fraction:09d}"

    def _elapsed(self, timestamp: Optional[int]) -> str:
        """``%r``: the seconds since the start, with nine digits."""
        frequency = self._header.timestamp_frequency
        if timestamp is None or not frequency:
            return "-nan"  # what 0 / 0 gives on an x86
        if self._upstream:
            return f"{float(timestamp - self._header.start_timestamp & _U64_MAX) / float(frequency):.9f}"
        ns = _clog_elapsed_ns(self._header, timestamp)
        return f"{'-' * (ns < 0)}{abs(ns) // 1_000_000_000}.{abs(ns) % 1_000_000_000:09d}"

    def _message(self, entry: LogEntry) -> str:
        """The message by the long way."""
        site = self._reader.sites[entry.log_id]
        args: Sequence[Any] = entry.args
        if not self._upstream:
            if entry.encoding == "undecodable":
                return f"{site.format} <{entry.data[:32].hex()}{'...' * (len(entry.data) > 32)}>"
            parts = self._parts.get(entry.log_id)
            if parts is None:
                parts = self._parts[entry.log_id] = _clog_printf_parts(site)
            return _clog_printf(parts, args)
        hole = entry.sign_lost or ("INT64" in site.arg_types and -1 << 63 in args)
        if entry.encoding in (self._loose, "undecodable") or (entry.encoding == "packed" and hole):
            data = entry.data
            if entry.raw:
                data = entry.raw[CLOG_ENTRY_UNTIMED.size if entry.timestamp is None else CLOG_ENTRY.size :]
            elif entry.encoding == "packed":
                data = _clog_write_packed(site.arg_types, args, sign_lost=True)
            elif entry.encoding == "raw":
                data = _clog_write_raw(site.arg_types, args, self._prefix)
            args = _clog_upstream_args(site.arg_types, data, self._header.byte_order)
        parts = _clog_upstream_parts(site.format, site.arg_types[: len(args)])
        values = iter(args)
        return "".join(
            [part if isinstance(part, str) else _clog_upstream_value(part.type, next(values)) for part in parts]
        )

    def _stray(self, entry: LogEntry) -> str:
        """The line of an entry that no site is known for."""
        if self._upstream:
            rule = "no such site in the dictionary"
            raise _error("clog", CLOG_RULES[rule][1], 0, "log_id", _sentence(rule, str(entry.log_id)))
        message = f"<site {entry.log_id}: {entry.data[:32].hex()}{'...' * (len(entry.data) > 32)}>"
        tokens = [
            ("", text) if kind == "" else ("", "?") if kind in "lfL" else (kind, "") for kind, text in self._tokens
        ]
        return self._fill(tokens, entry.timestamp, message)


def _clog_tokens(pattern: str) -> List[Tuple[str, str]]:
    """A pattern as tokens: a letter, or "" with text that is copied."""
    tokens = []
    head, *rest = pattern.split("%")
    tokens.append(("", head))
    literal = False
    for place, piece in enumerate(rest):
        if literal:  # after %%
            literal = False
            tokens.append(("", piece))
        elif not piece:
            literal = place + 1 < len(rest)
            tokens.append(("", "%"))
        elif piece[0] in "tTrlfLm":
            tokens += (piece[0], ""), ("", piece[1:])
        else:
            tokens.append(("", "%" + piece))
    return tokens


class ClogSiteUse(NamedTuple):
    """What one site logged: entries, and their bytes in the file."""

    log_id: int
    entries: int
    bytes: int
    level: str
    filename: str
    line_number: int
    format: str


class ClogRate(NamedTuple):
    """How many entries fall in each of the buckets of ``bucket_ns`` nanoseconds from ``start_ns`` on."""

    start_ns: int
    bucket_ns: int
    entries: Tuple[int, ...]


class ClogAnalysis(NamedTuple):
    """What a log holds: entries, ``bytes`` that they take in the file, times in nanoseconds since 1970, UTC.

    Times leave out entries of no known site, which are garbage, unless the file has no dictionary at all.
    ``out_of_order`` counts entries earlier than one before them; the sites are sorted by entries, then bytes.
    """

    entries: int
    bytes: int
    first_ns: Optional[int]
    last_ns: Optional[int]
    out_of_order: int
    sign_lost: int
    encodings: Dict[str, int]
    by_level: Dict[str, int]
    by_site: Tuple[ClogSiteUse, ...]
    rate: ClogRate


def clog_analysis(reader: ClogReader) -> ClogAnalysis:
    """Read all entries and add them up."""
    sites = reader.sites
    name = ClogText(reader).level
    rate = _Buckets(_clog_start_ns(reader.header), sum)
    happen = rate.happen
    uses = [[0, 0] for _ in sites]
    encodings: Dict[str, int] = {}
    first: Optional[int] = None
    last = latest = total = entries = out_of_order = sign_lost = 0
    for entry in reader:
        size = _clog_entry_size(reader, entry)
        entries += 1
        total += size
        encodings[entry.encoding] = encodings.get(entry.encoding, 0) + 1
        sign_lost += entry.sign_lost
        if entry.log_id < len(sites):
            use = uses[entry.log_id]
            use[0] += 1
            use[1] += size
        elif sites:
            continue
        now = reader.time_ns(entry)
        if now is not None:
            if first is None:
                first = last = latest = now
                rate = _Buckets(now, sum)
                happen = rate.happen
            happen(now)
            out_of_order += now < latest
            latest = max(latest, now)
            first = min(first, now)
            last = max(last, now)
    by_level: Dict[str, int] = {}
    for site, use in zip(sites, uses):
        if use[0]:
            by_level[name(site.log_level)] = by_level.get(name(site.log_level), 0) + use[0]
    by_site = [
        ClogSiteUse(log_id, use[0], use[1], name(site.log_level), site.filename, site.line_number, site.format)
        for log_id, (site, use) in enumerate(zip(sites, uses))
    ]
    return ClogAnalysis(
        entries,
        total,
        first,
        None if first is None else last,
        out_of_order,
        sign_lost,
        encodings,
        dict(sorted(by_level.items(), key=lambda item: -item[1])),
        tuple(sorted(by_site, key=lambda use: (-use.entries, -use.bytes, use.log_id))),
        ClogRate(rate.start, rate.width, tuple(rate.values)),
    )


def _clog_entry_size(reader: ClogReader, entry: LogEntry) -> int:
    """The bytes that an entry takes in its file."""
    size = CLOG_ENTRY_UNTIMED.size if entry.timestamp is None else CLOG_ENTRY.size
    if entry.raw or entry.encoding in ("unknown", "undecodable"):
        return len(entry.raw) or size + len(entry.data)
    numbers = 0
    packed = entry.encoding == "packed"
    for type, value in zip(reader.sites[entry.log_id].arg_types, entry.args):
        if type == "STRING":
            size += 4 + len(_encode_text(cast("str", value)))
        elif packed and type in _CLOG_BITS:
            size += (cast("int", value).bit_length() + 7) // 8 or 1
            numbers += 1
        else:
            size += {"d": 8, "B": 1, "i": 4, "I": 4}.get(_CLOG_CODES[type], 8)
            numbers += 1
    return size + (numbers + 1) // 2 * packed


class _ClogConversion(NamedTuple):
    """What stands for an argument in a format, and the stored type of that argument."""

    type: str
    flags: str = ""
    width: Union[int, str, None] = None  # "*": an argument of its own, before this one
    precision: Union[int, str, None] = None
    modifier: str = ""
    letter: str = "s"


_ClogParts = List[Union[str, _ClogConversion]]
_CLOG_WIDEST = 10_000  # columns; what a format asks for is not allocated without limit


def _clog_upstream_parts(format: str, types: Sequence[str]) -> _ClogParts:
    """A format as CNanoLog's decompressor sees it, byte by byte (clog, The message)."""
    data = _encode_text(format)
    parts: _ClogParts = []
    text = bytearray()
    at = used = 0
    while at < len(data):
        mark = data.find(b"%", at)
        text += data[at:mark] if mark >= 0 else data[at:]
        if mark < 0:
            break
        at = mark + 1
        if data[at : at + 1] == b"%":
            at += 1
        elif used < len(types):
            while data[at : at + 1] and data[at] in b"-+ #0123456789.*":
                at += 1
            at += 1
            parts += _decode_text(text), _ClogConversion(types[used])
            text.clear()
            used += 1
            continue
        text += b"%"
    return [*parts, _decode_text(text)]


def _clog_upstream_value(type: str, value: Any) -> str:
    """An argument as CNanoLog's decompressor prints it: by its type alone."""
    if type == "DOUBLE":
        return _c_format(_ClogConversion(type, letter="f"), value)
    if type == "POINTER":
        return _c_format(_ClogConversion(type, letter="p"), value)
    return _decode_text(bytes((value,))) if type == "CHAR" else str(value)


def _clog_upstream_args(types: Sequence[str], data: bytes, order: str) -> List[Any]:
    """Arguments as CNanoLog's decompressor reads them: loosely packed, else raw, as far as the bytes go (clog 4.5)."""
    prefix = _CLOG_PREFIX[order]
    numbers, nibbles = _clog_nibbles(types, data)
    at = (len(numbers) + 1) // 2
    args: List[Any] = []
    for type, nibble in zip(numbers, nibbles):
        signed = type in ("INT32", "INT64")
        size = nibble & 7 if signed else nibble
        fits = nibble == (8 if type == "DOUBLE" else 1) if type in ("DOUBLE", "CHAR") else 1 <= size <= 8
        piece = data[at : at + size]
        at += size
        if not fits or len(piece) < size:
            at = len(data) + 1
            break
        if type == "DOUBLE":
            args += struct.unpack(prefix + "d", piece)
            continue
        value = int.from_bytes(
            piece.ljust(8, b"\0") if order == "big" and type != "CHAR" else piece, cast("Any", order)
        )
        args.append(_clog_wrapped(type, -value if signed and nibble > 8 else value))
    for place, type in enumerate(types):
        if type == "STRING":
            start = at + 4
            at = start + int.from_bytes(data[at:start], cast("Any", order))
            args.insert(place, _decode_text(data[start:at]))
    if at == len(data) and len(args) == len(types):
        return args
    args = []
    at = 0
    for type in types:
        if type == "STRING":
            start = at + 4
            at = min(start + int.from_bytes(data[at:start], cast("Any", order)), len(data))
            args.append(_decode_text(data[start:at]))
            continue
        code = _CLOG_CODES.get(type, "")
        size = struct.calcsize("<" + code)
        if not code or len(data) < at + size:
            break
        args += struct.unpack_from(prefix + code, data, at)
        at += size
    return args


def _clog_wrapped(type: str, value: int) -> int:
    """A number as a C variable of the type holds it."""
    bits = _CLOG_BITS.get(type, 8)
    value &= (1 << bits) - 1
    return value - (1 << bits) if type in ("INT32", "INT64") and value >> bits - 1 else value


def _clog_cut(text: str, limit: int) -> str:
    """Text as a buffer in C holds it: so many bytes, up to the first NUL."""
    return _decode_text(_encode_text(text)[:limit].partition(b"\0")[0])


def _clog_printf_parts(site: LogSite) -> _ClogParts:
    """A format as C's printf sees it; a conversion for which no argument is left stays text."""
    format = site.format
    types = iter(site.arg_types)
    parts: _ClogParts = []
    text: List[str] = []
    at = 0
    while True:
        mark = format.find("%", at)
        if mark < 0:
            return [*parts, "".join(text) + format[at:]]
        text.append(format[at:mark])
        at = mark + 1
        flags, at = _span(format, at, "-+ #0'")
        width, at = _star_or_digits(format, at)
        precision = None
        if format[at : at + 1] == ".":
            precision, at = _star_or_digits(format, at + 1)
        modifier, at = _span(format, at, "hlqjzLt")
        letter = format[at : at + 1]
        at += 1
        taken: List[str] = []
        type = ""
        if letter and letter in "diouxXeEfFgGaAcsp":
            taken = [next(types, "") for star in (width, precision) if star == "*"]
            type = next(types, "")
        if letter == "%":
            text.append("%")
        elif type:
            parts += "".join(text), *[_ClogConversion(star, letter="*") for star in taken]
            parts.append(_ClogConversion(type, flags, _columns(width), _columns(precision, 0), modifier, letter))
            text.clear()
        else:
            text.append(format[mark:at])


def _span(text: str, at: int, letters: str) -> Tuple[str, int]:
    """The run of some letters at a place, and where it ends."""
    start = at
    while at < len(text) and text[at] in letters:
        at += 1
    return text[start:at], at


def _star_or_digits(text: str, at: int) -> Tuple[str, int]:
    return ("*", at + 1) if text[at : at + 1] == "*" else _span(text, at, "0123456789")


def _columns(digits: Optional[str], usual: Optional[int] = None) -> Union[int, str, None]:
    if digits is None or digits == "*":
        return digits
    return min(int(digits[:9]), _CLOG_WIDEST) if digits else usual


def _clog_python_format(part: _ClogConversion, *, upstream: bool) -> Optional[str]:
    """The conversion of Python's % that gives the same as C's; None where it does not always."""
    type, flags, width, precision, modifier, letter = part
    if upstream:
        return {"DOUBLE": "%f", "POINTER": "0x%x", "CHAR": None}.get(type, "%d")
    if "*" in (letter, width, precision) or "#" in flags or modifier in _C_MODIFIERS:
        return None
    columns = flags.replace("'", "") + ("" if width is None else str(width))
    if type == "DOUBLE" and letter in "eEfFgG":
        return f"%{columns}{'' if precision is None else f'.{precision}'}{letter}"
    if precision is not None:
        return None
    if type == "STRING" and letter == "s" and not columns:
        return "%s"
    if type in ("INT32", "INT64") and letter in "di":
        return f"%{columns}d"
    if type in ("UINT32", "UINT64") and letter in "diu" and not {*flags} & {"+", " "}:
        return f"%{columns}d"
    return None


def _clog_printf(parts: _ClogParts, args: Iterable[Any]) -> str:
    """The message of C's printf, with the arguments by their stored types."""
    values = iter(args)
    made = []
    stars: List[int] = []
    for part in parts:
        if isinstance(part, str):
            made.append(part)
        elif part.letter == "*":
            value = next(values)
            stars.append(max(min(value, _CLOG_WIDEST), -_CLOG_WIDEST) if isinstance(value, int) else 0)
        else:
            if part.width == "*":
                width = stars.pop(0)
                part = part._replace(width=abs(width), flags=part.flags + "-" * (width < 0))
            if part.precision == "*":
                precision = stars.pop(0)
                part = part._replace(precision=precision if precision >= 0 else None)
            made.append(_c_format(part, next(values)))
    return "".join(made)


_C_MODIFIERS = {"hh": 8, "h": 16}


def _c_format(part: _ClogConversion, value: Any) -> str:
    """What C's printf makes of one argument; where letter and type do not agree, the type decides."""
    type, flags, _, _, modifier, letter = part
    width, precision = (size if isinstance(size, int) else None for size in (part.width, part.precision))
    sign = prefix = ""
    fill = "0" in flags and "-" not in flags
    plus = "+" if "+" in flags else " " if " " in flags else ""
    if type == "STRING":
        data = _encode_text(value)
        digits = _decode_text(data[:precision] if letter == "s" else data)
        fill = False
    elif type == "DOUBLE":
        negative = struct.pack(">d", value)[0] > 0x7F
        sign = "-" if negative else plus
        if not -_INFINITY < value < _INFINITY:
            digits = "inf" if abs(value) == _INFINITY else "nan"
            digits = digits.upper() if letter in "EFGA" else digits
            fill = False
        elif letter in "aA":
            prefix, digits = _c_hexadecimal(abs(value), precision, point="#" in flags)
            prefix, digits = (prefix.upper(), digits.upper()) if letter == "A" else (prefix, digits)
        else:
            form = f"{'#' * ('#' in flags)}.{6 if precision is None else precision}"
            digits = format(abs(value), form + (letter if letter in "eEfFgG" else "f"))
    elif letter == "c" or (type == "CHAR" and letter not in "diouxX"):
        digits = _decode_text(bytes((value & 0xFF,)))
        fill = False
    elif letter == "p" or (type == "POINTER" and letter not in "diouxX"):
        digits = f"0x{value & _U64_MAX:x}" if value else "(nil)"
        fill = False
    else:
        bits = min(_C_MODIFIERS.get(modifier, 64), _CLOG_BITS.get(type, 8))
        value &= (1 << bits) - 1
        if letter not in "uoxX" and type[0] == "I" and value >> bits - 1:
            value -= 1 << bits
        digits = {"o": "%o", "x": "%x", "X": "%X"}.get(letter, "%d") % abs(value)
        if precision is not None:
            digits = digits.rjust(precision, "0") if value or precision else ""
            fill = False
        if "#" in flags and letter in "xX" and value:
            prefix = "0" + letter
        elif "#" in flags and letter == "o" and digits[:1] != "0":
            digits = "0" + digits
        sign = "-" if value < 0 else "" if letter in "uoxX" else plus
    missing = (width or 0) - len(_encode_text(sign + prefix + digits))
    if missing <= 0:
        return sign + prefix + digits
    if fill:
        return sign + prefix + "0" * missing + digits
    return sign + prefix + digits + " " * missing if "-" in flags else " " * missing + sign + prefix + digits


def _c_hexadecimal(value: float, precision: Optional[int], *, point: bool = False) -> Tuple[str, str]:
    """``%a`` of a number that is not negative: its prefix and the rest.

    >>> _c_hexadecimal(1.0, None), _c_hexadecimal(0.1, 2)
    (('0x', '1p+0'), ('0x', '1.9ap-4'))
    """
    head, _, exponent = value.hex().partition("p")
    whole, _, fraction = head[2:].partition(".")
    fraction = fraction.rstrip("0")
    if precision is not None and precision < len(fraction):
        number = int(whole + fraction, 16)
        unit = 16 ** (len(fraction) - precision)
        down, rest = divmod(number, unit)
        down += rest * 2 > unit or (rest * 2 == unit and down & 1)
        digits = f"{down:0{precision + 1}x}"
        whole, fraction = digits[: len(digits) - precision], digits[len(digits) - precision :]
    fraction = fraction.ljust(precision or 0, "0")
    return "0x", whole + ("." + fraction if fraction or point else "") + "p" + exponent


# ==== 5.3 prof: captures of easy_profiler =============================================================
#
# A header (one of five layouts, by version), descriptors of the places that blocks come from, a section for each
# thread with its context switches and blocks, and since 2.1.0 an end mark, bookmarks and a second mark.  All is
# little-endian, without padding.  Format text: "prof".  Blocks are a flat list in the order in which they end; how they
# nest follows from their times (prof 6).  Times are ticks; a reader adds the nanoseconds that upstream's reader shows.

PROF_SIGNATURE = 0x45617379
PROF_VERSION = 0x02010000  # 2.1.0
_PROF_SPELLED = b"Easy"  # how the document spells the signature (erratum 1)
_PROF_NETWORK = b"\x8d\xa1\x33\x01"  # what a message of the network protocol starts with (prof 5)
_PROF_START = (Field("signature", "I"), Field("version", "I", "major, minor, patch from the top byte on"))
_PROF_TIMES = (
    Field("cpu_frequency", "q", "ticks per second; 0: times are nanoseconds"),  # erratum 9
    Field("begin_time", "Q", "ticks"),
    Field("end_time", "Q", "ticks"),
)
_PROF_BLOCKS = Field("blocks_count", "I", "blocks and context switches")  # erratum 8
_PROF_MEMORY = Field("memory_size", "Q", "bytes, sum of their sizes")
_PROF_DESCRIPTORS = Field("descriptors_count", "I")
_PROF_DESCRIPTORS_MEMORY = Field("descriptors_memory_size", "Q", "bytes, sum of their sizes")
_PROF_COUNTS = (_PROF_BLOCKS, _PROF_MEMORY, _PROF_DESCRIPTORS, _PROF_DESCRIPTORS_MEMORY)
_PROF_COUNTS_2 = (_PROF_MEMORY, _PROF_DESCRIPTORS_MEMORY, _PROF_BLOCKS, _PROF_DESCRIPTORS)
PROF_HEADERS = {
    "A": Layout("header A", *_PROF_START, *_PROF_TIMES, *_PROF_COUNTS),  # erratum 4
    "B": Layout("header B", *_PROF_START, Field("pid", "I"), *_PROF_TIMES, *_PROF_COUNTS),
    "C": Layout("header C", *_PROF_START, Field("pid", "Q"), *_PROF_TIMES, *_PROF_COUNTS),
    "D": Layout("header D", *_PROF_START, Field("pid", "Q"), *_PROF_TIMES, *_PROF_COUNTS_2),
    "E": Layout(
        "header E",
        *_PROF_START,
        Field("pid", "Q"),
        *_PROF_TIMES,
        *_PROF_COUNTS_2,
        Field("threads_count", "I"),
        Field("bookmarks_count", "H"),
        Field("padding", "H"),
    ),
}
PROF_DESCRIPTOR = Layout(
    "descriptor",
    Field("id", "I"),
    Field("line", "i"),
    Field("color", "I", "0xAARRGGBB"),
    Field("type", "B"),
    Field("status", "B"),
    Field("name_length", "H", "bytes, with the NUL"),
)
_PROF_SPAN = (Field("begin", "Q", "ticks"), Field("end", "Q", "ticks"))
PROF_BLOCK = Layout("block", *_PROF_SPAN, Field("id", "I", "number of the descriptor"))
PROF_VALUE = Layout(
    "value",
    *PROF_BLOCK.fields,
    Field("name_stub", "B"),
    Field("pad", "B"),
    Field("data_size", "H", "bytes"),
    Field("data_type", "B"),
    Field("is_array", "B"),
    Field("value_id", "Q", "of the variable; 0 for a global one"),
)
PROF_BOOKMARK = Layout(
    "bookmark", Field("position", "Q", "as begin_time, never scaled"), Field("color", "I", "0xAARRGGBB")
)


def _prof_thread_layouts(code: str) -> Tuple[Layout, Layout]:
    """A thread section's start, and a context switch, whose thread ids are of this code (errata 5, 6)."""
    thread = Layout("thread", Field("thread_id", code), Field("name_size", "H", "bytes, with the NUL"))
    return thread, Layout("context switch", *_PROF_SPAN, Field("target_thread_id", code))


_PROF_THREADS = {"A": _prof_thread_layouts("I"), "C": _prof_thread_layouts("Q")}
_PROF_THREADS.update({"B": _PROF_THREADS["A"], "D": _PROF_THREADS["C"], "E": _PROF_THREADS["C"]})
PROF_TYPES = ("Event", "Block", "Value")  # of a descriptor
_PROF_EVENT, _PROF_BLOCK, _PROF_VALUE = range(3)
PROF_DATA_TYPES = (
    "bool",
    "char",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float",
    "double",
    "string",
)
_PROF_DATA_CODES = "?bbBhHiIqQfd"  # by data type; a string has none

# What can be wrong, and how bad it is.  No fault is stepped over: a record that is wrong in its size leaves unknown
# where the next one begins.
PROF_RULES: Rules = {
    **_COMMON_RULES,
    "not an easy_profiler capture": ("fault", "bad-signature"),
    "a message of easy_profiler's network protocol, not a file": ("fault", "unsupported-version"),  # prof 5
    "written on a big-endian machine": ("fault", "unsupported-version"),  # erratum 1
    "a version before 0.1.0": ("fault", "unsupported-version"),  # erratum 16
    "the record is shorter than its fields": ("fault", "bad-size"),
    "not an end mark": ("fault", "bad-signature"),  # errata 2, 3
    "padding is not 0": ("deviation", "bad-value"),
    "an empty descriptor": ("deviation", "bad-size"),  # prof 2
    "name_length is beyond the record": ("deviation", "bad-size"),  # erratum 10
    "no NUL at the end": ("deviation", "bad-value"),
    "no such descriptor": ("deviation", "bad-reference"),
    "data_size is not that of the record": ("deviation", "bad-size"),
    "more records than blocks_count": ("deviation", "bad-count"),
    "fewer records than blocks_count": ("deviation", "bad-count"),
    "the records take more than memory_size": ("deviation", "bad-size"),
    "the descriptors take more than descriptors_memory_size": ("deviation", "bad-size"),
    "signature as the document spells it": ("note", "bad-signature"),  # erratum 1
    "newer version": ("note", "unsupported-version"),
    "the records take less than memory_size": ("note", "bad-size"),
    "the descriptors take less than descriptors_memory_size": ("note", "bad-size"),  # prof 1.3, the snapshot writer
    "id is not the number of the descriptor": ("note", "bad-value"),
    "bytes after the NUL": ("note", "bad-size"),  # prof 4.4
    "an empty name takes no bytes": ("note", "bad-size"),  # prof 3
    "pad is not 0": ("note", "bad-value"),
    "unknown type of data": ("note", "bad-value"),
    "bytes after the last thread": ("note", "trailing-data"),  # prof 7.3
    "bytes after the end mark": ("note", "trailing-data"),  # erratum 2
}


class ProfHeader(NamedTuple):
    """The header (prof 1.2); a field that the version's layout lacks is None.

    Times are in ticks, ``cpu_frequency`` a second, or in nanoseconds if that is 0.  ``blocks_count`` counts blocks
    and context switches, ``memory_size`` sums their sizes (prof 1.3).
    """

    signature: int = PROF_SIGNATURE
    version: int = PROF_VERSION
    pid: Optional[int] = None
    cpu_frequency: int = 0
    begin_time: int = 0
    end_time: int = 0
    memory_size: int = 0
    descriptors_memory_size: int = 0
    blocks_count: int = 0
    descriptors_count: int = 0
    threads_count: Optional[int] = None
    bookmarks_count: Optional[int] = None
    padding: Optional[int] = None

    @property
    def layout(self) -> str:
        """The letter of the header's layout, ``A`` to ``E`` (prof 1.2)."""
        return _prof_layout(self.version)

    @property
    def factor(self) -> float:
        """What ticks are multiplied with, in floating point, to make nanoseconds; 0.0 if they are such (prof 7.1)."""
        frequency = self.cpu_frequency & _U64_MAX
        return 1e9 / float(frequency) if frequency else 0.0

    def ns(self, ticks: int) -> int:
        """A time in nanoseconds, as upstream's reader converts it (prof 7.1)."""
        return int(ticks * self.factor) if self.cpu_frequency else ticks


class Descriptor(NamedTuple):
    """A place in the program that makes blocks, events or values (prof 2).

    Blocks refer to it by its number in the file, which ``id`` normally is too.  ``type`` is a number of ``PROF_TYPES``;
    ``color`` is 0xAARRGGBB; ``status`` has the bits of prof 2.1.
    """

    id: int
    line: int = 0
    color: int = 0
    type: int = _PROF_BLOCK
    status: int = 1
    name: str = ""
    file: str = ""
    raw: Raw = b""


class Thread(NamedTuple):
    """The start of a thread's section (prof 3): so many context switches follow, then so many blocks.

    A count is None where the file ends before it, and for a writer to fill in.
    """

    thread_id: int
    name: str = ""
    switch_count: Optional[int] = None
    block_count: Optional[int] = None
    raw: Raw = b""


class ContextSwitch(NamedTuple):
    """The thread was switched out from ``begin`` to ``end``, in ticks, in favour of another thread (prof 3.1).

    ``begin_ns`` and ``end_ns`` are nanoseconds, the begin not before that of the capture; ``dropped``: it ends before
    the capture begins, and upstream leaves it out (prof 7.2).  ``tail`` are bytes after the name's NUL.
    """

    thread_id: int
    begin: int
    end: int
    target_thread_id: int
    name: str = ""
    begin_ns: int = 0
    end_ns: int = 0
    dropped: bool = False
    tail: bytes = b""
    raw: Raw = b""


class Block(NamedTuple):
    """A block, from ``begin`` to ``end``, or an event, of the descriptor number ``id`` (prof 3.2).

    ``name`` is a run-time name; an empty one stands for the descriptor's.  ``begin_ns``, ``end_ns``, ``dropped`` and
    ``tail`` are as in a ContextSwitch; ``tail`` is what a value leaves that shares its line with a block (prof 4.4).
    """

    thread_id: int
    begin: int
    end: int
    id: int
    name: str = ""
    begin_ns: int = 0
    end_ns: int = 0
    dropped: bool = False
    tail: bytes = b""
    raw: Raw = b""


class Value(NamedTuple):
    """A value that the program stored (prof 3.3): ``data`` of the type number ``data_type`` of ``PROF_DATA_TYPES``.

    ``value_id`` tells variables apart, 0 is a global one, known by its descriptor's name.  ``value`` decodes the data.
    """

    thread_id: int
    begin: int
    end: int
    id: int
    data_type: int
    is_array: int
    value_id: int
    data: bytes
    begin_ns: int = 0
    end_ns: int = 0
    dropped: bool = False
    raw: Raw = b""

    @property
    def value(self) -> Any:
        """The data as bool, int, float or text, a tuple of them of an array; None where it fits no type."""
        if self.data_type >= len(_PROF_DATA_CODES):
            text = self.data.partition(b"\0")[0]
            return _decode_text(text) if self.data_type == len(_PROF_DATA_CODES) else None
        form = struct.Struct("<" + _PROF_DATA_CODES[self.data_type])
        whole = len(self.data) // form.size * form.size
        values = tuple([value for (value,) in form.iter_unpack(self.data[:whole])])
        return values if self.is_array else values[0] if values else None


class Bookmark(NamedTuple):
    """A mark that somebody set in the capture (prof 3.5); ``position`` is a time in the unit of the header's."""

    position: int
    color: int = 0
    text: str = ""
    raw: Raw = b""


ProfRecord = Union[Descriptor, Thread, ContextSwitch, Block, Value, Bookmark]


def _prof_layout(version: int) -> str:
    """The letter of the header's layout (prof 1.2)."""
    limits = ((0x02010000, "E"), (0x02000000, "D"), (0x01030000, "C"), (0x01000001, "B"))
    return next((letter for limit, letter in limits if version >= limit), "A")


def _prof_version(version: int) -> str:
    """A version as people write it.

    >>> _prof_version(0x02010000)
    '2.1.0'
    """
    return f"{version >> 24}.{version >> 16 & 0xFF}.{version & 0xFFFF}"


# ---- prof: explain


def _explain_prof(walk: _Walk) -> Iterator[None]:
    """The format text (prof 1 to 3) line by line; each ``yield`` stands between structures."""
    header = _explain_prof_header(walk)
    letter = _prof_layout(header["version"])
    descriptors: List[Optional[int]] = []  # their types; None for an empty one
    start = walk.offset
    for number in range(header["descriptors_count"]):
        yield
        with walk.record("descriptors"):
            descriptors.append(_explain_prof_descriptor(walk, number))
    _explain_prof_sum(
        walk, "descriptors", walk.offset - start - 2 * len(descriptors), header["descriptors_memory_size"]
    )
    records = memory = threads = 0
    thread_layout, switch_layout = _PROF_THREADS[letter]
    id_size = thread_layout.size - 2
    while threads < header["threads_count"] if letter == "E" else len(walk.data) - walk.offset >= id_size:
        yield
        with walk.record("threads"):
            name_size = walk.layout(thread_layout)["name_size"]
            _explain_prof_text(walk, "name", name_size, empty="an empty name takes no bytes")
            for _ in range(walk.fixed("switch_count", "I")):
                yield
                with walk.record("context_switches"):
                    memory += _explain_prof_timed(walk, switch_layout)
                records += 1
            for _ in range(walk.fixed("block_count", "I")):
                yield
                with walk.record("blocks"):
                    memory += _explain_prof_block(walk, descriptors)
                records += 1
        threads += 1
    if letter == "E":
        yield
        _explain_prof_mark(walk, "threads_end_mark")
        for _ in range(header["bookmarks_count"]):
            yield
            with walk.record("bookmarks"):
                size = _explain_prof_size(walk, PROF_BOOKMARK)
                walk.layout(PROF_BOOKMARK)
                _explain_prof_text(walk, "text", size - PROF_BOOKMARK.size)
        if header["bookmarks_count"]:
            _explain_prof_mark(walk, "bookmarks_end_mark")
    if records != header["blocks_count"]:
        walk.problem(f"{'fewer' if records < header['blocks_count'] else 'more'} records than blocks_count")
    _explain_prof_sum(walk, "records", memory, header["memory_size"])
    if walk.more():
        walk.take("trailing", len(walk.data) - walk.offset, "bytes")
        walk.problem("bytes after the end mark" if letter == "E" else "bytes after the last thread")


def _explain_prof_header(walk: _Walk) -> Dict[str, Any]:
    start = walk.data[:4]
    if start == _PROF_NETWORK:
        raise walk.fault("a message of easy_profiler's network protocol, not a file", 0, "signature")
    if not PROF_SIGNATURE.to_bytes(4, "little").startswith(start) and not _PROF_SPELLED.startswith(start):
        raise walk.fault("not an easy_profiler capture", 0, "signature")
    version = int.from_bytes(walk.data[4:8], "little")
    if start == _PROF_SPELLED and len(walk.data) >= 8 and (version < 0x10000 or version & 0xFF00):
        raise walk.fault("written on a big-endian machine", 0, "signature")
    if len(walk.data) >= 8 and version < 0x10000:
        raise walk.fault("a version before 0.1.0", 4, "version", _prof_version(version))
    header = walk.layout(PROF_HEADERS[_prof_layout(version)])
    walk.annotate(_prof_version(version), "version")
    if start == _PROF_SPELLED:
        walk.problem("signature as the document spells it", "signature")
    if version >= 0x02020000:
        walk.problem("newer version", "version")
    if header.get("padding"):
        walk.problem("padding is not 0")
    return header


def _explain_prof_size(walk: _Walk, layout: Layout) -> int:
    """The size of a record whose fixed part is of that layout."""
    size: int = walk.fixed("size", "H", "bytes after this field")
    if size < layout.size:
        raise walk.fault("the record is shorter than its fields", walk.offset - 2, "size", str(size))
    return size


def _explain_prof_text(walk: _Walk, name: str, size: int, *, empty: str = "no NUL at the end") -> None:
    """Text up to its NUL, in a field of that size."""
    piece = walk.data[walk.offset : walk.offset + size]
    if len(piece) < size:
        raise walk.fault("the file ends inside this field", walk.offset, name, f"{len(piece)} of {size} bytes")
    end = piece.find(b"\0") + 1
    if size:
        walk.take(name, end or size, "utf-8")
        walk.revalue(_decode_text(piece[: end - 1] if end else piece))
    if not end:
        walk.problem("no NUL at the end" if size else empty)
    elif end < size:
        walk.take(f"{name}_tail", size - end, "bytes")
        walk.problem("bytes after the NUL")


def _explain_prof_descriptor(walk: _Walk, number: int) -> Optional[int]:
    size = walk.fixed("size", "H", "bytes after this field")
    if not size:
        walk.problem("an empty descriptor")
        return None
    if size < PROF_DESCRIPTOR.size:
        raise walk.fault("the record is shorter than its fields", walk.offset - 2, "size", str(size))
    descriptor = walk.layout(PROF_DESCRIPTOR)
    if descriptor["type"] < len(PROF_TYPES):
        walk.annotate(PROF_TYPES[descriptor["type"]], "type")
    walk.annotate(f"0x{descriptor['color']:08x}", "color")
    if descriptor["id"] != number:
        walk.problem("id is not the number of the descriptor", "id")
    room = size - PROF_DESCRIPTOR.size
    if descriptor["name_length"] > room:
        walk.problem("name_length is beyond the record")
    name_size = min(descriptor["name_length"], room)
    _explain_prof_text(walk, "name", name_size)
    _explain_prof_text(walk, "file", room - name_size)
    return int(descriptor["type"])


def _explain_prof_timed(walk: _Walk, layout: Layout) -> int:
    """A record with a begin, an end and a name; returns its size."""
    size = _explain_prof_size(walk, layout)
    walk.layout(layout)
    _explain_prof_text(walk, "name", size - layout.size)
    return size


def _explain_prof_block(walk: _Walk, descriptors: Sequence[Optional[int]]) -> int:
    start = walk.offset
    id = int.from_bytes(walk.data[start + 18 : start + 22], "little")
    kind = descriptors[id] if id < len(descriptors) else None
    size = int.from_bytes(walk.data[start : start + 2], "little")
    if kind != _PROF_VALUE or size < PROF_VALUE.size or walk.data[start + 22 : start + 23] != b"\0":
        size = _explain_prof_timed(walk, PROF_BLOCK)
        if kind is None:
            walk.problem("no such descriptor", "id")
        return size
    _explain_prof_size(walk, PROF_VALUE)
    value = walk.layout(PROF_VALUE)
    known = value["data_type"] < len(PROF_DATA_TYPES)
    walk.annotate(PROF_DATA_TYPES[value["data_type"]] if known else "unknown", "data_type")
    if not known:
        walk.problem("unknown type of data", "data_type")
    if value["pad"]:
        walk.problem("pad is not 0", "pad")
    room = size - PROF_VALUE.size
    if value["data_size"] != room:
        walk.problem("data_size is not that of the record", "data_size")
    if len(walk.data) - walk.offset < room:
        detail = f"{len(walk.data) - walk.offset} of {room} bytes"
        raise walk.fault("the file ends inside this field", walk.offset, "data", detail)
    for name, part in (("data", min(value["data_size"], room)), ("tail", max(room - value["data_size"], 0))):
        if part:
            walk.take(name, part, "bytes")
    return size


def _explain_prof_mark(walk: _Walk, name: str) -> None:
    """One of the marks at the end (errata 2, 3, 7)."""
    mark = walk.data[walk.offset : walk.offset + 4]
    if len(mark) == 4 and mark != PROF_SIGNATURE.to_bytes(4, "little"):
        raise walk.fault("not an end mark", walk.offset, name, mark.hex(" "))
    walk.fixed(name, "I")


def _explain_prof_sum(walk: _Walk, what: str, found: int, told: int) -> None:
    """Hold the sizes of some records against what the header tells."""
    if found != told:
        size = "memory_size" if what == "records" else "descriptors_memory_size"
        walk.problem(f"the {what} take {'less' if found < told else 'more'} than {size}")


# ---- prof: Reader


class ProfReader(Reader[ProfHeader, ProfRecord]):
    """Reads a ``.prof`` capture of any version, in file order: ``Descriptor``, then for each thread ``Thread``,
    ``ContextSwitch``, and ``Block`` or ``Value``, and at the end ``Bookmark``.

    ``header`` is the ProfHeader; ``descriptors`` are those read so far, all of them before the first Thread.
    Memory is constant, but for the descriptors, and the bytes of one thread's context switches: a Thread tells how
    many blocks it has, which stands behind those.
    """

    format = "prof"
    rules = PROF_RULES

    def _read_start(self) -> None:
        problems = self._problems
        start = self._source.peek(8)
        signature = start[:4]
        if signature == _PROF_NETWORK:
            raise problems.fault("a message of easy_profiler's network protocol, not a file", 0, "signature")
        if not any(known.startswith(signature) for known in (PROF_SIGNATURE.to_bytes(4, "little"), _PROF_SPELLED)):
            raise problems.fault("not an easy_profiler capture", 0, "signature")
        version = int.from_bytes(start[4:], "little")
        if len(start) == 8 and signature == _PROF_SPELLED and (version < 0x10000 or version & 0xFF00):
            raise problems.fault("written on a big-endian machine", 0, "signature")
        if len(start) == 8 and version < 0x10000:
            raise problems.fault("a version before 0.1.0", 4, "version", _prof_version(version))
        layout = PROF_HEADERS[_prof_layout(version)]
        values = _Fields(problems, self._source.read(layout.size)).layout(layout)
        self.header = ProfHeader(**dict(zip(layout.offsets, values)))
        if signature == _PROF_SPELLED:
            problems.add("signature as the document spells it", 0, "signature")
        if version >= 0x02020000:
            problems.add("newer version", 4, "version", _prof_version(version))
        if self.header.padding:
            problems.add("padding is not 0", layout.size - 2, "padding", str(self.header.padding))
        self.family = self.header.layout
        self.descriptors: List[Descriptor] = []
        self._plain: Set[int] = set()  # numbers of the descriptors of blocks and events
        self._capture_ns = self.header.ns(self.header.begin_time)
        self._memory = self._records = 0
        self._end_marks: Optional[int] = None

    @property
    def tables(self) -> Dict[str, Any]:
        """``end_marks``: how many of the marks at the end there are; None for all that the version asks for."""
        return {"end_marks": self._end_marks}

    def _read_records(self) -> Iterator[ProfRecord]:
        header = self.header
        source = self._source
        marks = 0
        try:
            for number in range(header.descriptors_count):
                descriptor = self._read_descriptor(number)
                self.descriptors.append(descriptor)
                if descriptor.type not in (-1, _PROF_VALUE):
                    self._plain.add(number)
                yield descriptor
            size = source.position - PROF_HEADERS[header.layout].size - 2 * len(self.descriptors)
            self._check_sum("descriptors", size, "descriptors_memory_size", header.descriptors_memory_size)
            number = 0
            while number < header.threads_count if header.threads_count is not None else self._more_threads():
                thread = self._read_thread(number)
                yield thread
                where = f"threads[{number}]."
                yield from self._read_timed(thread, thread.switch_count or 0, where + "context_switches", blocks=False)
                if thread.block_count is None:
                    self._fields(4, where).fixed("block_count", _U32)
                self._take(4)
                yield from self._read_timed(thread, thread.block_count or 0, where + "blocks", blocks=True)
                number += 1
            if header.layout == "E":
                self._read_mark("threads_end_mark")
                marks = 1
                for number in range(header.bookmarks_count or 0):
                    yield self._read_bookmark(number)
                if header.bookmarks_count:
                    self._read_mark("bookmarks_end_mark")
            self._check_counts()
            tail = source.rest()
            if tail:
                rule = "bytes after the end mark" if header.layout == "E" else "bytes after the last thread"
                self._problems.add(rule, source.position - len(tail), "trailing", _many(len(tail), "byte"))
            self._end(tail)
        except FormatError as error:
            self._end_marks = marks if header.layout == "E" else None
            self._end(b"", error)

    def _fields(self, size: int, where: str) -> _Fields:
        """The next bytes, up to ``size`` of them, to be read exactly; ``_take`` takes them."""
        return _Fields(self._problems, self._source.peek(size)[:size], self._source.position, where)

    def _take(self, size: int) -> None:
        self._source.read(size)

    def _record(self, where: str) -> _Fields:
        """The next record as its size tells it."""
        fields = self._fields(2, where)
        return self._fields(2 + fields.fixed("size", _U16), where)

    def _size(self, fields: _Fields, layout: Layout) -> int:
        """The size of a record whose fixed part is of that layout."""
        size: int = fields.fixed("size", _U16)
        if size < layout.size:
            fields.at = 0
            raise fields.fault("the record is shorter than its fields", "size", str(size))
        return size

    def _text(self, fields: _Fields, name: str, size: int, *, empty: str = "no NUL at the end") -> Tuple[str, bytes]:
        """Text up to its NUL, in a field of that size, and the bytes after the NUL."""
        start = fields.at
        text, nul, tail = fields.take(name, size).partition(b"\0")
        if not nul:
            fields.problem("no NUL at the end" if size else empty, start, name)
            fields.canonical = False
        elif tail:
            fields.problem("bytes after the NUL", start + len(text) + 1, f"{name}_tail", _many(len(tail), "byte"))
        return _decode_text(text), tail

    def _read_descriptor(self, number: int) -> Descriptor:
        fields = self._record(f"descriptors[{number}].")
        size = fields.fixed("size", _U16)
        if not size:
            fields.problem("an empty descriptor", 0, "size")
            self._take(2)
            return Descriptor(0, type=-1, raw=bytes(2))
        fields.at = 0
        size = self._size(fields, PROF_DESCRIPTOR)
        id, line, color, type, status, name_length = fields.layout(PROF_DESCRIPTOR)
        if id != number:
            fields.problem("id is not the number of the descriptor", 2, "id", str(id))
        room = size - PROF_DESCRIPTOR.size
        if name_length > room:
            fields.problem("name_length is beyond the record", 16, "name_length", str(name_length))
        name, name_tail = self._text(fields, "name", min(name_length, room))
        file, file_tail = self._text(fields, "file", room - min(name_length, room))
        usual = fields.canonical and not name_tail and not file_tail and name_length <= room
        self._take(size + 2)
        return Descriptor(id, line, color, type, status, name, file, b"" if usual else fields.data)

    def _more_threads(self) -> bool:
        """Whether another thread begins here, in a version that does not count them (prof 7.3)."""
        size = _PROF_THREADS[self.header.layout][0].size - 2
        return len(self._source.peek(size)) >= size

    def _read_thread(self, number: int) -> Thread:
        layout, switch_layout = _PROF_THREADS[self.header.layout]
        where = f"threads[{number}]."
        fields = self._fields(layout.size, where)
        thread_id, size = fields.layout(layout)
        fields = self._fields(layout.size + size + 4, where)
        fields.at = layout.size
        name, tail = self._text(fields, "name", size, empty="an empty name takes no bytes")
        raw = b"" if fields.canonical and not tail else fields.data[:-4]
        switch_count = fields.fixed("switch_count", _U32)
        self._take(layout.size + size + 4)
        return Thread(thread_id, name, switch_count, self._look_for_block_count(switch_count, switch_layout.size), raw)

    def _look_for_block_count(self, switch_count: int, least: int) -> Optional[int]:
        """The number of blocks, which stands after the context switches; None where reading will not get there."""
        data = self._source.peek(4)
        at = 0
        for _ in range(switch_count):
            if at + 2 > len(data):
                data = self._source.peek(2 * at + _CHUNK)
            size = data[at : at + 2]
            at += 2 + int.from_bytes(size, "little")
            if len(size) < 2 or int.from_bytes(size, "little") < least:
                return None
        if at + 4 > len(data):
            data = self._source.peek(at + 4)
        return _U32.unpack_from(data, at)[0] if at + 4 <= len(data) else None

    def _read_timed(self, thread: Thread, number: int, where: str, *, blocks: bool) -> Iterator[ProfRecord]:
        """The context switches or the blocks of a thread."""
        # A record whose name ends with the record is read here, everything else by _read_exactly.
        new = tuple.__new__
        source = self._source
        thread_id = thread.thread_id
        layout = PROF_BLOCK if blocks else _PROF_THREADS[self.header.layout][1]
        kind: type = Block if blocks else ContextSwitch
        plain = self._plain
        unpack = struct.Struct("<H" + layout.form("little").format[1:]).unpack_from
        head = 2 + layout.size
        bare = layout.size + 1  # the size of a record without a name
        names: Dict[bytes, str] = {}
        factor = self.header.factor
        first_ns = self._capture_ns
        kept_ns = first_ns if blocks else first_ns + 1  # the least end of what upstream keeps
        data = none = b""
        at = index = 0
        base = start = source.position
        try:
            while index < number:
                piece = source.chunk()
                base += at
                data = data[at:] + piece
                at = 0
                have = len(data)
                last = have - head
                while at <= last and index < number:
                    size, begin, end, key = unpack(data, at)
                    stop = at + 2 + size
                    if stop > have:
                        break
                    if size == bare and not data[at + head]:
                        name: Optional[str] = ""
                    else:
                        name = names.get(data[at + head : stop])
                        if name is None:
                            name = self._plain_name(data[at + head : stop], names)
                    if name is None or (blocks and key not in plain):
                        record = self._read_exactly(
                            data[at:stop], base + at, f"{where}[{index}].", thread_id, blocks=blocks
                        )
                        yield record
                    else:
                        if factor:
                            begin_ns = int(begin * factor)
                            end_ns = int(end * factor) if end != begin else begin_ns
                        else:
                            begin_ns = begin
                            end_ns = end
                        if begin_ns < first_ns or end_ns < kept_ns:
                            dropped = end_ns < kept_ns
                            if not dropped:
                                begin_ns = first_ns
                            yield new(kind, (thread_id, begin, end, key, name, begin_ns, end_ns, dropped, none, none))
                        else:
                            yield new(kind, (thread_id, begin, end, key, name, begin_ns, end_ns, False, none, none))
                    at = stop
                    index += 1
                if not piece and index < number:
                    self._read_exactly(data[at:], base + at, f"{where}[{index}].", thread_id, blocks=blocks)
        finally:
            source.back(data[at:])
            self._memory += base + at - start - 2 * index
            self._records += index

    def _plain_name(self, data: bytes, names: Dict[bytes, str]) -> Optional[str]:
        """The text of a name that ends with its record, which is kept for the next of its like; else None."""
        if data.find(b"\0") != len(data) - 1 or not data:
            return None
        if len(names) > 4096:
            names.clear()
        return names.setdefault(data, _decode_text(data[:-1]))

    def _read_exactly(self, data: bytes, base: int, where: str, thread_id: int, *, blocks: bool) -> ProfRecord:
        """The context switch or block that ``data`` is, or starts with where the file ends."""
        fields = _Fields(self._problems, data, base, where)
        layout = PROF_BLOCK if blocks else _PROF_THREADS[self.header.layout][1]
        size = self._size(fields, layout)
        ahead = data[2 + layout.size :]
        begin, end, key = fields.layout(layout)
        type = self.descriptors[key].type if blocks and key < len(self.descriptors) else -1
        times = self._times(begin, end, blocks=blocks)
        if type == _PROF_VALUE and size >= PROF_VALUE.size and ahead[:1] == b"\0":
            fields.at = 2
            return self._read_value(fields, thread_id, size, times)
        name, tail = self._text(fields, "name", size - layout.size)
        if blocks and type < 0:
            fields.problem("no such descriptor", 18, "id", str(key))
        raw = b"" if fields.canonical else data
        kind = Block if blocks else ContextSwitch
        return kind(thread_id, begin, end, key, name, *times, tail, raw)

    def _read_value(self, fields: _Fields, thread_id: int, size: int, times: Tuple[int, int, bool]) -> Value:
        begin, end, id, _, pad, data_size, data_type, is_array, value_id = fields.layout(PROF_VALUE)
        room = size - PROF_VALUE.size
        data = fields.take("data", room)
        if data_type >= len(PROF_DATA_TYPES):
            fields.problem("unknown type of data", 26, "data_type", str(data_type))
        if pad:
            fields.problem("pad is not 0", 23, "pad", str(pad))
        if data_size != room:
            fields.problem("data_size is not that of the record", 24, "data_size", f"{data_size}, not {room}")
        raw = fields.data if pad or data_size != room else b""
        return Value(thread_id, begin, end, id, data_type, is_array, value_id, data[:data_size], *times, raw)

    def _times(self, begin: int, end: int, *, blocks: bool) -> Tuple[int, int, bool]:
        """Begin and end in nanoseconds, and whether upstream drops the record (prof 7.1, 7.2)."""
        begin_ns, end_ns = self.header.ns(begin), self.header.ns(end)
        dropped = end_ns < self._capture_ns if blocks else end_ns <= self._capture_ns
        return begin_ns if dropped else max(begin_ns, self._capture_ns), end_ns, dropped

    def _read_mark(self, name: str) -> None:
        fields = self._fields(4, "")
        mark = fields.fixed(name, _U32)
        if mark != PROF_SIGNATURE:
            fields.at = 0
            raise fields.fault("not an end mark", name, fields.data.hex(" "))
        self._take(4)

    def _read_bookmark(self, number: int) -> Bookmark:
        fields = self._record(f"bookmarks[{number}].")
        size = self._size(fields, PROF_BOOKMARK)
        position, color = fields.layout(PROF_BOOKMARK)
        text, tail = self._text(fields, "text", size - PROF_BOOKMARK.size)
        self._take(size + 2)
        return Bookmark(position, color, text, b"" if fields.canonical and not tail else fields.data)

    def _check_counts(self) -> None:
        """Hold what was read against what the header tells."""
        found, told = self._records, self.header.blocks_count
        if found != told:
            rule = f"{'fewer' if found < told else 'more'} records than blocks_count"
            place = PROF_HEADERS[self.header.layout].offsets["blocks_count"]
            self._problems.add(rule, place, "blocks_count", f"{found}, not {told}")
        self._check_sum("records", self._memory, "memory_size", self.header.memory_size)

    def _check_sum(self, what: str, found: int, name: str, told: int) -> None:
        if found != told:
            rule = f"the {what} take {'less' if found < told else 'more'} than {name}"
            place = PROF_HEADERS[self.header.layout].offsets[name]
            self._problems.add(rule, place, name, f"{found}, not {told}")


# ---- prof: Writer


class ProfNode(NamedTuple):
    """A block with the blocks inside it, for ``ProfWriter.tree``."""

    begin: int
    end: int
    id: int
    name: str = ""
    children: Tuple[ProfNode, ...] = ()


class ProfWriter(Writer[ProfHeader, ProfRecord]):
    """Writes a ``.prof`` capture that easy_profiler opens (prof, Semantics 9).

    ``descriptor`` registers, ``thread`` starts a thread's section, ``switch``, ``block``, ``value`` and ``tree`` fill
    it, ``bookmark`` comes last; ``write`` and ``write_all`` take records.  Within a thread, context switches stand
    before blocks, and a block after those inside it.  Counts are filled in with every thousand records, by ``flush``
    and by ``close``, so the file must be seekable, unless a document is written; ``recover`` reads what was flushed
    by a writer that died.

    ``version`` decides the layout.  Times are in ticks, ``frequency`` a second; 0: in nanoseconds.
    """

    format = "prof"

    def __init__(
        self,
        file: WritableFile,
        *,
        version: int = PROF_VERSION,
        pid: int = 0,
        frequency: int = 0,
        begin_time: int = 0,
        end_time: int = 0,
    ) -> None:
        if version < 0x10000:
            raise ValueError(f"a version is 0.1.0 at least, not {_prof_version(version)}")
        usual = {"pid": pid, "threads_count": 0, "bookmarks_count": 0, "padding": 0}
        names = PROF_HEADERS[_prof_layout(version)].offsets
        given = {name: value for name, value in usual.items() if name in names}
        self._set_header(
            ProfHeader(version=version, cpu_frequency=frequency, begin_time=begin_time, end_time=end_time, **given)
        )
        self._pieces: List[bytes] = []
        self._position = 0  # of what comes next, with the pieces
        self._descriptors = self._descriptors_memory = self._threads = self._bookmarks = self._marks = 0
        self._records = self._memory = 0
        self._plain: Dict[int, bool] = {}  # by number: whether a descriptor is for blocks and events; else for values
        self._thread: Optional[Thread] = None  # the open one
        self._in_blocks = False
        self._numbers = [0, 0]  # context switches and blocks of the open thread
        self._places = [0, 0]  # where their counts stand
        self._roots: List[Tuple[int, int]] = []  # what ``tree`` wrote of the open thread
        super().__init__(file)

    def _set_header(self, header: ProfHeader) -> None:
        _prof_write_header(header)
        self._header = header
        self._thread_layout, self._switch_layout = _PROF_THREADS[header.layout]

    def descriptor(
        self,
        name: str,
        file: str = "",
        line: int = 0,
        *,
        type: int = _PROF_BLOCK,
        color: int = 0xFFFFECB3,
        status: int = 1,
    ) -> int:
        """Register a place that makes blocks, or events or values by ``type``; returns its number."""
        self.write(Descriptor(self._descriptors, line, color, type, status, name, file))
        return self._descriptors - 1

    def thread(self, thread_id: int, name: str = "") -> None:
        """Start the section of a thread."""
        self.write(Thread(thread_id, name))

    def switch(self, begin: int, end: int, target_thread_id: int = 0, name: str = "") -> None:
        """The thread was switched out from ``begin`` to ``end``."""
        self.write(ContextSwitch(self._thread_id(), begin, end, target_thread_id, name))

    def block(self, begin: int, end: int, id: int, name: str = "") -> None:
        """A block of the descriptor ``id``, after those inside it; an event begins when it ends."""
        self.write(Block(self._thread_id(), begin, end, id, name))

    def value(self, time: int, id: int, value: Any, data_type: str = "", value_id: int = 0) -> None:
        """Store a bool, int, float or text, or an array (list, tuple) of bools, ints or floats.

        ``data_type`` is a name of ``PROF_DATA_TYPES``, by default ``bool``, ``int64``, ``double`` or ``string``.
        """
        kind, array, data = _prof_write_value(value, data_type)
        self.write(Value(self._thread_id(), time, time, id, kind, array, value_id, data))

    def tree(self, *roots: ProfNode) -> None:
        """Write blocks with those inside them, children first.

        Raises ValueError where a reader would nest them in another way (prof 6): a child has to end after its parent
        begins, and not to begin before it; what stands side by side must not overlap.
        """
        thread_id = self._thread_id()
        known = [*self._roots]
        blocks: List[Block] = []
        steps = [(node, False) for node in reversed(roots)]
        while steps:
            node, inside = steps.pop()
            if not inside:
                steps.append((node, True))
                steps.extend([(child, False) for child in reversed(node.children)])
                continue
            adopted = _prof_adopted(known, node.begin)
            if adopted != len(node.children):
                reason = f"a reader puts {adopted} blocks inside the one of {node.begin} to {node.end}"
                raise ValueError(f"{reason}, not {len(node.children)}")
            known[len(known) - adopted :] = [(node.begin, node.end)]
            blocks.append(Block(thread_id, node.begin, node.end, node.id, node.name))
        self.write_all(blocks)
        self._roots = known[-1:]  # a block that takes one before the last takes the last too

    def bookmark(self, position: int, text: str = "", color: int = 0xFFFF0000) -> None:
        """Set a mark at a time; after all threads."""
        self.write(Bookmark(position, color, text))

    def _thread_id(self) -> int:
        if self._thread is None:
            raise ValueError("no thread has been started")
        return self._thread.thread_id

    def write_all(self, records: Iterable[ProfRecord]) -> None:
        """Write records in order; what the format cannot hold is a ValueError or TypeError."""
        if self._closed:
            raise ValueError("the writer is closed")
        self._write_start()
        # Plain blocks of the open thread are packed here; everything else, and what is wrong, by _write_record.
        pieces = self._pieces
        add = pieces.append
        plain = self._plain
        fixed = PROF_BLOCK.size
        pack = struct.Struct("<H" + PROF_BLOCK.little.format[1:]).pack
        names: Dict[str, bytes] = {}
        thread_id: Optional[int] = None
        done = size = room = 0
        try:
            for record in records:
                if type(record) is Block and done < room:
                    owner, begin, end, id, name, _, _, _, tail, raw = record
                    text = names.get(name)
                    if text is None:
                        text = self._plain_text(name, names)
                    if text and owner == thread_id and plain.get(id) and not (raw or tail):
                        try:
                            add(pack(fixed + len(text), begin, end, id) + text)
                        except (struct.error, TypeError):
                            pass
                        else:
                            done += 1
                            size += fixed + 2 + len(text)
                            continue
                self._count(done, size)
                done = size = 0
                self._write_record(record)
                thread_id, room = self._blocks_to_come()
        finally:
            self._count(done, size)

    def _plain_text(self, name: Any, names: Dict[str, bytes]) -> bytes:
        """A name and its NUL, kept for the next of its like; nothing for what _write_record has to look at."""
        if type(name) is not str or "\0" in name:
            return b""
        if len(names) > 4096:
            names.clear()
        return names.setdefault(name, _encode_text(name) + b"\0")

    def _blocks_to_come(self) -> Tuple[Optional[int], int]:
        """Whose blocks can be written next, and how many until the pieces are due."""
        if self._thread is None or not self._in_blocks:
            return None, 0
        room = max(1000 - len(self._pieces), 0)
        if self._document:
            room = min(room, (self._thread.block_count or 0) - self._numbers[1])
        return self._thread.thread_id, room

    def _count(self, blocks: int, size: int) -> None:
        self._numbers[1] += blocks
        self._records += blocks
        self._memory += size - 2 * blocks
        self._position += size

    def _add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._position += len(piece)

    def _put(self) -> None:
        """Write the pieces, and the counts that have changed."""
        self._sink.write(b"".join(self._pieces))
        self._pieces.clear()
        if self._document or not self._begun:
            return
        if self._thread is not None:
            for number, place in zip(self._numbers, self._places[: 1 + self._in_blocks]):
                self._sink.patch(place, _U32.pack(number))
        self._sink.patch(0, _prof_write_header(self._counted_header()))

    def _counted_header(self) -> ProfHeader:
        counts = {"threads_count": self._threads, "bookmarks_count": self._bookmarks}
        return self._header._replace(
            memory_size=self._memory,
            descriptors_memory_size=self._descriptors_memory,
            blocks_count=self._records,
            descriptors_count=self._descriptors,
            **(counts if self._header.threads_count is not None else {}),
        )

    def _write_record(self, record: ProfRecord) -> None:
        """Write any record; raises ValueError or TypeError for what cannot be one here."""
        if len(self._pieces) >= 1000:
            self._put()
        if isinstance(record, (ContextSwitch, Block, Value)):
            self._write_timed(record)
        elif isinstance(record, Descriptor):
            self._write_descriptor(record)
        elif isinstance(record, Thread):
            self._write_thread(record)
        elif isinstance(record, Bookmark):
            self._write_bookmark(record)
        else:
            raise TypeError(f"not a record of prof: {record!r}")

    def _write_descriptor(self, record: Descriptor) -> None:
        if self._thread is not None or self._marks:
            raise ValueError("descriptors stand before the first thread")
        piece = _raw_bytes(record)
        if not piece:
            name, file = _prof_text("name", record.name), _prof_text("file", record.file)
            values = (record.id, record.line, record.color, record.type, record.status, len(name))
            piece = _prof_sized(_pack(PROF_DESCRIPTOR, values) + name + file)
        if record.type == _PROF_VALUE and self._header.version < 0x01030000 and not self._document:
            raise ValueError("there are no values in versions before 1.3.0")
        self._add(piece)
        if record.type >= 0:
            self._plain[self._descriptors] = record.type != _PROF_VALUE
        self._descriptors += 1
        self._descriptors_memory += len(piece) - 2

    def _write_thread(self, record: Thread) -> None:
        if self._marks:
            raise ValueError("threads stand before bookmarks")
        piece = _raw_bytes(record)
        if not piece:
            name = _prof_text("name", record.name)
            piece = _pack(self._thread_layout, (record.thread_id, len(name))) + name
        if self._document:
            piece += _U32.pack(_integer("switch_count", cast("int", record.switch_count), 32))
        else:
            piece += bytes(4)
            self._end_thread()
        self._add(piece)
        self._thread = record
        self._threads += 1
        self._numbers[:] = 0, 0
        self._places[0] = self._position - 4
        self._in_blocks = False
        self._roots = []
        if self._document:
            self._turn_to_blocks()

    def _turn_to_blocks(self) -> None:
        """Write the number of blocks, where it stands here."""
        thread = cast("Thread", self._thread)
        if not self._document:
            self._add(bytes(4))
        elif self._numbers[0] == thread.switch_count and thread.block_count is not None:
            self._add(_U32.pack(_integer("block_count", thread.block_count, 32)))
        else:
            return
        self._places[1] = self._position - 4
        self._in_blocks = True

    def _end_thread(self) -> None:
        if self._thread is not None and not self._document:
            if not self._in_blocks:
                self._turn_to_blocks()
            self._put()

    def _write_timed(self, record: Union[ContextSwitch, Block, Value]) -> None:
        if self._thread is None or self._thread.thread_id != record.thread_id or self._marks:
            raise ValueError(f"thread {record.thread_id} is not the open one")
        switch = isinstance(record, ContextSwitch)
        if switch and self._in_blocks:
            raise ValueError("context switches stand before blocks")
        if self._document and not switch and self._numbers[1] >= (self._thread.block_count or 0) * self._in_blocks:
            raise ValueError(f"thread {record.thread_id} has more blocks than block_count")
        piece = _raw_bytes(record)
        if not piece:
            piece = self._timed_bytes(record)
        if not self._document and not isinstance(record, ContextSwitch):
            if self._plain.get(record.id) is not isinstance(record, Block):
                raise ValueError(f"no descriptor of that number for a {type(record).__name__}: {record.id}")
            if not self._in_blocks:
                self._turn_to_blocks()
        self._add(piece)
        self._numbers[not switch] += 1
        self._records += 1
        self._memory += len(piece) - 2
        if self._document and switch:
            self._turn_to_blocks()

    def _timed_bytes(self, record: Union[ContextSwitch, Block, Value]) -> bytes:
        if isinstance(record, Value):
            _, begin, end, id, data_type, is_array, value_id, data, *_ = record
            values = (begin, end, id, 0, 0, len(data), data_type, is_array, value_id)
            return _prof_sized(_pack(PROF_VALUE, values) + data)
        layout = self._switch_layout if isinstance(record, ContextSwitch) else PROF_BLOCK
        _, begin, end, key, name, _, _, _, tail, _ = record
        return _prof_sized(_pack(layout, (begin, end, key)) + _prof_text("name", name) + tail)

    def _write_bookmark(self, record: Bookmark) -> None:
        if self._header.layout != "E":
            raise ValueError("there are no bookmarks in versions before 2.1.0")
        piece = _raw_bytes(record)
        if not piece:
            text = _prof_text("text", record.text)
            piece = _prof_sized(_pack(PROF_BOOKMARK, (record.position, record.color)) + text)
        _integer("bookmarks_count", self._bookmarks + 1, 16)
        if not self._marks:
            self._end_thread()
            self._write_marks(1)
        self._add(piece)
        self._bookmarks += 1

    def _write_marks(self, number: int) -> None:
        """Write the marks that are missing to that number."""
        for _ in range(number - self._marks):
            self._add(_U32.pack(PROF_SIGNATURE))
            self._marks += 1

    def _begin(self, header: ProfHeader, tables: Mapping[str, Any]) -> None:
        """Start with the header of a document; the table is ``end_marks``."""
        _prof_write_header(header)
        super()._begin(header, tables)
        self._set_header(header)
        self._add(_prof_write_header(header))

    def _end(self, tables: Mapping[str, Any], tail: bytes) -> None:
        """Write the marks that the document has, all if it does not tell, and the tail."""
        if self._header.layout == "E":
            marks = tables.get("end_marks")
            self._write_marks(1 + bool(self._header.bookmarks_count) if marks is None else marks)
        self._put()
        self._sink.write(tail)

    def _write_start(self) -> None:
        if not self._begun:
            if not self._sink.seekable:
                raise ValueError("the counts are filled in later: the file must be seekable")
            self._begun = True
            self._add(_prof_write_header(self._header))

    def flush(self) -> None:
        """Hand what has been written to the operating system, with its counts."""
        self._write_start()
        self._put()
        super().flush()

    def _finish(self) -> None:
        if not self._document:
            self._write_start()
            self._end_thread()
            if self._header.layout == "E":
                self._thread = None
                self._write_marks(1 + (self._bookmarks > 0))
            self._put()


def _prof_write_header(header: ProfHeader) -> bytes:
    """The bytes of a header; raises ValueError or TypeError for what its layout cannot hold."""
    layout = PROF_HEADERS[_prof_layout(_integer("version", header.version, 32))]
    return _pack_present(layout, header._asdict(), f"version {_prof_version(header.version)}")


def _prof_text(name: str, text: str) -> bytes:
    """Text with its NUL."""
    data = _encode_text(text)
    if b"\0" in data:
        raise ValueError(f"a {name} with a NUL: {text!r}")
    return data + b"\0"


def _prof_sized(data: bytes) -> bytes:
    """A record behind its size; raises ValueError for one that is too long."""
    return _U16.pack(_integer("the size of a record", len(data), 16)) + data


def _prof_write_value(value: Any, data_type: str) -> Tuple[int, int, bytes]:
    """Of a value: number of the type, 1 for an array or a text, data."""
    if isinstance(value, str):
        if data_type not in ("", "string"):
            raise TypeError(f"text is not {data_type}")
        return PROF_DATA_TYPES.index("string"), 1, _encode_text(value) + b"\0"
    array = isinstance(value, (list, tuple))
    items = list(value) if array else [value]
    usual = {bool: "bool", int: "int64", float: "double"}.get(type(items[0]) if items else int)
    data_type = data_type or usual or "?"
    if data_type not in PROF_DATA_TYPES[:-1]:
        raise TypeError(f"not a value of a known type: {value!r}")
    kind = PROF_DATA_TYPES.index(data_type)
    try:
        data = struct.pack(f"<{len(items)}{_PROF_DATA_CODES[kind]}", *items)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"not {data_type}: {value!r}: {error}") from None
    return kind, int(array), data


# ---- prof: semantics


def _prof_adopted(roots: Sequence[Tuple[Any, ...]], begin: int) -> int:
    """How many of the last roots, tuples of begin, end, ..., a block that begins then takes as children (prof 6)."""
    if not roots or begin >= roots[-1][1]:
        return 0
    at = len(roots) - 1
    while at > 0 and begin <= roots[at - 1][0]:
        at -= 1
    return len(roots) - at


class ProfTree:
    """A thread with its blocks as they nest (prof 6).

    ``thread`` is the Thread, ``switches`` and ``blocks`` are its records in file order.  ``roots`` and the lists of
    ``children``, of the blocks that have some, are indexes of ``blocks``; those that upstream drops take no part.
    ``depth`` is the number of levels.
    """

    def __init__(self, thread: Thread) -> None:
        self.thread = thread
        self.switches: List[ContextSwitch] = []
        self.blocks: List[Union[Block, Value]] = []
        self.children: Dict[int, List[int]] = {}
        self.depth = 1  # upstream's count of a thread without blocks
        self._roots: List[Tuple[int, int, int, int]] = []  # begin, end, index, levels

    @property
    def roots(self) -> List[int]:
        """The blocks inside no other."""
        return [root[2] for root in self._roots]

    def add(self, block: Union[Block, Value]) -> None:
        """Take the next block of the thread."""
        index = len(self.blocks)
        self.blocks.append(block)
        if block.dropped:
            return
        roots = self._roots
        levels = 1
        adopted = _prof_adopted(roots, block.begin_ns)
        if adopted:
            inner = roots[-adopted:]
            self.children[index] = [root[2] for root in inner]
            levels += max([root[3] for root in inner])
            del roots[-adopted:]
        roots.append((block.begin_ns, block.end_ns, index, levels))
        self.depth = max(self.depth, levels)

    def walk(self) -> Iterator[Tuple[bool, int, int]]:
        """Enter and leave every block in order of nesting: True or False, its index, its level from 0 on."""
        steps = [(True, index, 0) for index in reversed(self.roots)]
        while steps:
            step = enters, index, level = steps.pop()
            yield step
            if enters:
                steps.append((False, index, level))
                steps.extend([(True, child, level + 1) for child in reversed(self.children.get(index, ()))])


def prof_trees(records: Iterable[ProfRecord]) -> Iterator[ProfTree]:
    """The threads of a capture, one at a time, with their blocks as they nest; takes a reader or its records."""
    tree: Optional[ProfTree] = None
    for record in records:
        if type(record) is Block or type(record) is Value:
            cast("ProfTree", tree).add(record)
        elif type(record) is ContextSwitch:
            cast("ProfTree", tree).switches.append(record)
        elif type(record) is Thread:
            if tree is not None:
                yield tree
            tree = ProfTree(record)
    if tree is not None:
        yield tree


class ProfNames:
    """Numbers for names: those of the descriptors, then one for each run-time name, as it first appears (prof 7.6)."""

    def __init__(self, descriptors: Sequence[Descriptor]) -> None:
        self._descriptors = descriptors
        self.runtime: Dict[str, Tuple[int, int]] = {}  # name: its number, and that of the descriptor

    def number(self, block: Union[Block, Value]) -> int:
        """The number that groups the block with its like; to be asked in file order, not for dropped ones."""
        if type(block) is Value or not block[4]:
            return block.id
        name = cast("str", block[4])
        known = self.runtime.get(name)
        if known is None:
            known = self.runtime[name] = (len(self._descriptors) + len(self.runtime), block.id)
        return known[0]

    def name(self, block: Union[Block, Value]) -> str:
        """The run-time name, or that of the descriptor."""
        if type(block) is Block and block.name:
            return block.name
        return self._descriptors[block.id].name if block.id < len(self._descriptors) else f"descriptor {block.id}"


class ProfUse(NamedTuple):
    """Blocks of one name: how often, and how long in nanoseconds (prof, Semantics 3, 4).

    ``children_ns`` is the time of the blocks directly inside them, ``self_ns`` the rest; ``active_ns`` is the time that
    the thread was not switched out.  ``upstream_median_ns`` is the median as easy_profiler computes it, which is often
    another.  ``scope`` is the thread's id, or the index of the root or parent that the use is counted in.
    """

    scope: int
    number: int
    id: int
    name: str
    calls: int
    total_ns: int
    children_ns: int
    active_ns: int
    min_ns: int
    max_ns: int
    median_ns: float
    upstream_median_ns: int

    @property
    def self_ns(self) -> int:
        """Total less what is inside."""
        return self.total_ns - self.children_ns

    @property
    def average_ns(self) -> int:
        """Total by calls, as upstream rounds it."""
        return self.total_ns // self.calls


def _prof_duration(record: Union[Block, Value, ContextSwitch]) -> int:
    return (record.end_ns - record.begin_ns) & _U64_MAX


def _prof_waits(tree: ProfTree) -> Callable[[int, int], int]:
    """A function that gives the time between two moments for which the thread was switched out."""
    spans = sorted(
        [(one.begin_ns, one.end_ns) for one in tree.switches if not one.dropped and one.end_ns > one.begin_ns]
    )
    sums = [0]
    for begin, end in spans:
        sums.append(sums[-1] + end - begin)

    def before(time: int) -> int:
        low, high = 0, len(spans)
        while low < high:
            middle = (low + high) // 2
            if spans[middle][0] < time:
                low = middle + 1
            else:
                high = middle
        return sums[low] - max(spans[low - 1][1] - time, 0) if low else 0

    return lambda begin, end: max(before(end) - before(begin), 0)


def _prof_medians(durations: List[int]) -> Tuple[float, int]:
    """The median, and what upstream takes for it (prof, Semantics 4).

    >>> _prof_medians([5, 1, 9])
    (5, 1)
    """
    durations.sort()
    half = len(durations) // 2
    low = durations[max(half - 1, 0)]
    if len(durations) % 2:
        return durations[half], low
    return (low + durations[half]) / 2, (durations[max(half - 2, 0)] + low) >> 1


def prof_uses(tree: ProfTree, names: ProfNames, by: str = "thread") -> List[ProfUse]:
    """What the blocks of a thread add up to, by name.

    ``by`` is "thread", "frame" (within each root), or "parent" (among those directly inside one; -1 for the roots).
    """
    if by not in ("thread", "frame", "parent"):
        raise ValueError(f"by is 'thread', 'frame' or 'parent', not {by!r}")
    waits = _prof_waits(tree)
    numbers = [0 if block.dropped else names.number(block) for block in tree.blocks]
    groups: Dict[Tuple[int, int], List[int]] = {}
    path: List[int] = []
    for enters, index, level in tree.walk():
        if not enters:
            continue
        path[level:] = [index]
        scope = {"thread": tree.thread.thread_id, "frame": path[0], "parent": path[level - 1] if level else -1}[by]
        groups.setdefault((scope, numbers[index]), []).append(index)
    uses = []
    for (scope, number), indexes in groups.items():
        blocks = [tree.blocks[index] for index in sorted(indexes)]
        durations = [_prof_duration(block) for block in blocks]
        inside = sum(
            [_prof_duration(tree.blocks[child]) for index in indexes for child in tree.children.get(index, ())]
        )
        total = sum(durations)
        waited = sum([waits(block.begin_ns, block.end_ns) for block in blocks]) if tree.switches else 0
        first = blocks[0]
        median, upstream = _prof_medians(durations)
        uses.append(
            ProfUse(
                scope,
                number,
                first.id,
                names.name(first),
                len(blocks),
                total,
                inside,
                total - waited,
                durations[0],
                durations[-1],
                median,
                upstream,
            )
        )
    return sorted(uses, key=lambda use: (use.scope, -use.total_ns, use.number))


class ProfThreadUse(NamedTuple):
    """Totals of a thread (prof, Semantics 2): times in nanoseconds; ``frames`` are roots that are blocks."""

    thread_id: int
    name: str
    profiled_ns: int
    wait_ns: int
    frames: int
    blocks: int
    events: int
    depth: int
    switches: int
    dropped: int


class ProfAnalysis(NamedTuple):
    """What a capture adds up to: totals of each thread, and of each name in it, with the heaviest names first.

    ``begin_ns`` and ``end_ns`` are the capture's, or, where the header tells none, the earliest and latest of a block.
    """

    begin_ns: int
    end_ns: int
    threads: Tuple[ProfThreadUse, ...]
    uses: Tuple[ProfUse, ...]
    bookmarks: Tuple[Bookmark, ...]


def prof_thread_use(tree: ProfTree, descriptors: Sequence[Descriptor]) -> ProfThreadUse:
    """The totals of one thread."""
    kept = [block for block in tree.blocks if not block.dropped]
    switches = [switch for switch in tree.switches if not switch.dropped]

    def is_block(block: Union[Block, Value]) -> bool:
        return block.id < len(descriptors) and descriptors[block.id].type == _PROF_BLOCK

    roots = [tree.blocks[index] for index in tree.roots]
    return ProfThreadUse(
        tree.thread.thread_id,
        tree.thread.name,
        sum(map(_prof_duration, roots)) & _U64_MAX,
        sum(map(_prof_duration, switches)) & _U64_MAX,
        sum(map(is_block, roots)),
        len(kept),
        sum([not is_block(block) for block in kept]),
        tree.depth,
        len(switches),
        len(tree.blocks) + len(tree.switches) - len(kept) - len(switches),
    )


def prof_analysis(reader: ProfReader) -> ProfAnalysis:
    """Read all and add it up; keeps the blocks of one thread at a time in memory."""
    header = reader.header
    names = ProfNames(reader.descriptors)
    threads = []
    uses: List[ProfUse] = []
    bookmarks: List[Bookmark] = []
    least, most = _U64_MAX, 0

    def records() -> Iterator[ProfRecord]:
        for record in reader:
            if type(record) is Bookmark:
                bookmarks.append(record)
            yield record

    for tree in prof_trees(records()):
        threads.append(prof_thread_use(tree, reader.descriptors))
        uses += prof_uses(tree, names)
        kept = [block for block in tree.blocks if not block.dropped]
        least = min([least, *[block.begin_ns for block in kept]])
        most = max([most, *[block.end_ns for block in kept]])
    begin_ns = header.ns(header.begin_time) or min(least, most)
    end_ns = header.ns(header.end_time) or max(begin_ns, most)
    uses.sort(key=lambda use: (-use.total_ns, use.scope, use.number))
    return ProfAnalysis(begin_ns, end_ns, tuple(threads), tuple(uses), tuple(bookmarks))


def prof_duration_text(duration_ns: int, precision: int = 1) -> str:
    """A duration as easy_profiler shows it (prof, Semantics 5).

    >>> prof_duration_text(1234567)
    '1.2 ms'
    """
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if duration_ns >= size:
            return f"{duration_ns / size:.{precision}f} {unit}"
    return f"{duration_ns} ns"


def prof_value_text(value: Value, *, short: bool = False) -> str:
    """A value as easy_profiler shows it (prof, Semantics 6); ``short``: of seven elements and more, seven."""

    def one(item: Any) -> str:
        if isinstance(item, bool):
            return "true" if item else "false"
        if value.data_type in (1, 2) and isinstance(item, int):
            return _decode_text(bytes((item & 0xFF,)))
        return str(item)

    found = value.value
    if not isinstance(found, tuple):
        return one(found) if found is not None else value.data.hex()
    items = [one(item) for item in found]
    if short and len(items) >= 7:
        items = [*items[:6], "...", items[-1]]
    return f"[{', '.join(items)}]"


class ProfVerdict:
    """Whether easy_profiler's own reader, release 2.1.0, accepts a capture, and if not, why (prof 7.3).

    To be given each record of a reader with ``take``, and asked then.
    """

    def __init__(self, reader: ProfReader) -> None:
        self._reader = reader
        self._fault = self._late = ""
        self._memory = self._kept = 0
        self._roots: List[Tuple[int, int, int]] = []

    def take(self, record: ProfRecord) -> None:
        """Look at the next record."""
        header = self._reader.header
        if isinstance(record, Thread):
            self._roots = []
            return
        if isinstance(record, Bookmark) and record.raw:
            if len(record.raw) < 2 + PROF_BOOKMARK.size + 1:
                self._late = self._late or "a bookmark without a text"
            elif record.raw[-1]:
                self._late = self._late or "a bookmark without its NUL"
        if not isinstance(record, (ContextSwitch, Block, Value)):
            return
        if isinstance(record, Value):
            size = PROF_VALUE.size + len(record.data)
        else:
            fixed = _PROF_THREADS[header.layout][1] if isinstance(record, ContextSwitch) else PROF_BLOCK
            size = fixed.size + len(_encode_text(record.name)) + 1 + len(record.tail)
        self._memory += len(record.raw) - 2 if record.raw else size
        if self._memory > header.memory_size:
            self._say("the blocks take more than memory_size")
        if not isinstance(record, ContextSwitch):
            descriptors = self._reader.descriptors
            if record.id >= len(descriptors) or descriptors[record.id].type < 0:
                self._say(f"a block has the descriptor {record.id}, which is not there")
        if record.dropped:
            return
        self._kept += 1
        if not isinstance(record, ContextSwitch):
            adopted = _prof_adopted(self._roots, record.begin_ns)
            levels = 1 + max([root[2] for root in self._roots[len(self._roots) - adopted :]], default=0)
            self._roots[len(self._roots) - adopted :] = [(record.begin_ns, record.end_ns, levels)]
            if levels > 255:
                self._say("Stack depth exceeded value of 254")

    def _say(self, fault: str) -> None:
        self._fault = self._fault or fault

    def text(self) -> str:
        """Why the capture is refused; "" if it is accepted."""
        header = self._reader.header
        if header.signature != PROF_SIGNATURE:
            return "wrong signature"
        checks = [
            (header.memory_size, f"Wrong memory size == 0 for {header.blocks_count} blocks"),
            (header.descriptors_memory_size, f"no memory for {header.descriptors_count} descriptors"),
            (header.blocks_count, "no blocks"),
            (header.descriptors_count, "no descriptors"),
        ]
        if header.layout in "ABC":
            checks = [checks[2], checks[0], checks[3], checks[1]]
        checks += [(header.threads_count != 0, "no threads"), (not header.padding, "padding is not 0")]
        for value, fault in checks:
            if not value:
                return fault
        if self._fault:
            return self._fault
        if self._kept != header.blocks_count:
            return (
                f"Read blocks count: {self._kept} does not match blocks count stored in header: {header.blocks_count}. "
                "File corrupted."
            )
        faults = [problem.where for problem in self._reader.problems if problem.severity == "fault"]
        if header.layout == "E" and faults and not faults[0].startswith("bookmark"):
            return "Bad threads section end mark"
        if header.layout == "E" and faults:
            return f"{faults[0]} cannot be read"
        return self._late


# ==== 5.4 mb: time series and page maps of the Memory Dump application ================================
#
# A header of eight bytes and a body, which is one gzip member, or the raw bytes where bit 0 of the flags is clear.
# The body is a row of sections: tables of strings (1), which later fields refer to by number, and lists of series (2)
# with their points; a point may hold a snapshot of memory: types of pages, pages, and of each page a stream of runs.
# All is little-endian, integers are varints.  Format text: "mb".

MB_MAGIC = b"MEMD"
MB_VERSION = 2  # erratum 8: the application looks at it only to refuse 0 with a raw body
MB_HEADER = Layout(
    "header",
    Field("magic", "4s"),
    Field("version", "H"),
    Field("flags", "H", "bit 0: the body is gzip"),  # errata 1, 2
)
MB_POINT = Layout(
    "point",
    Field("timestamp", "d", "microseconds since 1970"),
    Field("value", "d", "bytes"),
    Field("flags", "B", "1 meta, 2 name, 4 pointId"),  # erratum 4
)
MB_SECTIONS = {1: "string table", 2: "data series"}
_MB_STRINGS, _MB_SERIES = MB_SECTIONS
_MB_GZIP = 1  # bit of the header's flags
_MB_META, _MB_NAME, _MB_POINT_ID = 1, 2, 4  # bits of a point's flags; on disk the meta comes last
_MB_ABSENT = struct.pack("<f", -1.0)  # the occupancy of a page that has none
_MB_UNIT = 8  # bytes of a page that one of a run stands for
_MB_NO_ID = bytes(16)
_MB_F32 = struct.Struct("<f")
_MB_TIMES = struct.Struct("<dd")
_MB_SHARE = struct.Struct("<fB")  # of a page, with the first byte of the length of its run stream

# What can be wrong, and how bad it is.  Stepped over are the version, a body that is raw against the flags, and ids
# that are no UUIDs; of gzip itself the codes are bad-compression, truncated, trailing-data and limit.
MB_RULES: Rules = {
    **_COMMON_RULES,
    "not a Memory Dump file": ("fault", "bad-magic"),
    "version 0 with a raw body": ("fault", "unsupported-version"),
    "the body is not gzip": ("fault", "bad-compression"),
    "not a UUID": ("fault", "bad-value"),  # erratum 21
    "a gzip body, though bit 0 of flags is clear": ("deviation", "bad-value"),  # erratum 1
    "the last string goes past the end": ("deviation", "bad-size"),  # mb 1.3
    "no such string": ("deviation", "bad-reference"),
    "the last number goes on past the end of the stream": ("deviation", "bad-size"),  # mb 2
    "unknown section": ("deviation", "trailing-data"),  # mb 1.2
    "newer version": ("note", "unsupported-version"),
    "unknown bits are set": ("note", "bad-value"),
    "neither 0 nor 1": ("note", "bad-value"),
    "not UTF-8": ("note", "bad-utf8"),
}


class MbHeader(NamedTuple):
    """The header (mb 1): ``compressed`` tells whether the body is gzip, as bit 0 of ``flags`` should (erratum 1)."""

    version: int = MB_VERSION
    flags: int = _MB_GZIP
    compressed: bool = True


class Series(NamedTuple):
    """A series (mb 1.4); ``point_count`` points follow.

    ``id`` are the 16 bytes of a UUID, all zero for none; ``uuid`` is its text.  ``color`` is a text of CSS.
    """

    id: bytes = _MB_NO_ID
    name: str = ""
    color: str = "#000000"
    visible: bool = True
    point_count: int = 0
    raw: Raw = b""

    @property
    def uuid(self) -> str:
        """The id as text, "" for none."""
        return _mb_uuid(self.id) if any(self.id) else ""


class Page(NamedTuple):
    """A page of a snapshot (mb 1.6): ``size`` in bytes, ``occupancy`` the used share or None.

    ``run_stream`` is as stored and is decoded by ``runs``, ``free_ranges`` and ``bitmap`` (mb 2), each time anew.
    ``borrowed`` are the bytes after the stream which the application takes for the end of its last number.
    """

    size: int
    occupancy: Optional[float] = None
    run_stream: bytes = b""
    borrowed: bytes = b""

    @property
    def runs(self) -> Tuple[int, ...]:
        """The lengths of the runs, alternately occupied and free, in units of 8 bytes.

        Raises FormatError where the last number has no end, or one has more than 64 bytes.
        """
        return _mb_runs(self.run_stream + self.borrowed)

    @property
    def free_ranges(self) -> List[Tuple[int, int]]:
        """The free ranges in bytes, start and end, as the application lists them: neither merged nor clamped."""
        return mb_free_ranges(self.runs)

    def bitmap(self, max_bytes: int = 1 << 24) -> bytes:
        """A bit for each 8 bytes of the page, the lowest of a byte first, 1 for occupied; units past the page are cut.

        Raises FormatError (``limit``) where that takes more than ``max_bytes``.
        """
        return _mb_bitmap(self.runs, -(-self.size // _MB_UNIT), max_bytes)


class PageType(NamedTuple):
    """A type of pages in a snapshot (mb 1.6); ``uniform_page_size`` is 0 where pages have sizes of their own."""

    name: str = ""
    uniform_page_size: int = 0
    pages: Tuple[Page, ...] = ()


class Point(NamedTuple):
    """A point of the series before it (mb 1.5): ``timestamp`` in microseconds since 1970, ``value`` in bytes.

    What the file lacks is None, and ``b""`` of ``point_id``, the 16 bytes of a UUID (all zero for none).  ``has_meta``
    tells the meta {} from none; ``page_types`` is None where there is no snapshot of memory.
    """

    timestamp: float
    value: float
    name: Optional[str] = None
    point_id: bytes = b""
    has_meta: bool = False
    event: Optional[str] = None
    page_types: Optional[Tuple[PageType, ...]] = None
    raw: Raw = b""

    @property
    def uuid(self) -> str:
        """The id as text, "" for none."""
        return _mb_uuid(self.point_id) if any(self.point_id) else ""


MbRecord = Union[Series, Point]


def _mb_uuid(id: bytes) -> str:
    if len(id) != 16:
        raise ValueError(f"an id is not of 16 bytes: {len(id)}")
    text = id.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _mb_is_uuid(id: bytes) -> bool:
    """Whether the application takes these 16 bytes for a UUID (mb 1.5)."""
    return (0x10 <= id[6] < 0x90 and 0x80 <= id[8] < 0xC0) or id in (_MB_NO_ID, b"\xff" * 16)


# ---- mb: run streams


def _mb_runs(stream: bytes) -> Tuple[int, ...]:
    """The numbers of a run stream."""
    if stream.isascii():
        return tuple(stream)
    runs: List[int] = []
    add = runs.append
    rest = iter(stream)
    for value in rest:
        if value >= 0x80:
            value &= 0x7F
            shift = 7
            for byte in rest:
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
                if shift == 7 * _VARINT_LIMIT:
                    raise _error("mb", "limit", 0, "run_stream", "varint of more than 64 bytes", "stream")
            else:
                raise _error("mb", "truncated", len(stream), "run_stream", "truncated varint", "stream")
        add(value)
    return tuple(runs)


def mb_free_ranges(runs: Sequence[int]) -> List[Tuple[int, int]]:
    """The free ranges that runs of units, occupied first, stand for, in bytes (mb 2).

    >>> mb_free_ranges((128, 256, 128))
    [(1024, 3072)]
    """
    ranges: List[Tuple[int, int]] = []
    add = ranges.append
    at = 0
    for occupied, free in zip(runs[::2], runs[1::2]):
        start = at + 8 * occupied
        at = start + 8 * free
        add((start, at))
    return ranges


def _mb_bitmap(runs: Sequence[int], units: int, max_bytes: int) -> bytes:
    if units > 8 * max_bytes:
        raise _error("mb", "limit", 0, "run_stream", f"a bitmap of more than {max_bytes} bytes", "stream")
    pieces = []
    left = units
    for place, run in enumerate(runs):
        pieces.append(b"10"[place % 2 : place % 2 + 1] * min(run, left))
        left -= min(run, left)
    digits = b"".join([*pieces, b"1" * left])[::-1]
    return int(digits or b"0", 2).to_bytes((units + 7) // 8, "little")


# ---- mb: explain


def _explain_mb(walk: _Walk) -> Iterator[None]:
    """The format text (mb 1) line by line; each ``yield`` stands between structures."""
    if not MB_MAGIC.startswith(walk.data[:4]):
        raise walk.fault("not a Memory Dump file", 0, "magic")
    header = walk.layout(MB_HEADER)
    if header["flags"] >> 1:
        walk.problem("unknown bits are set")
    if header["version"] > MB_VERSION:
        walk.problem("newer version", "version")
    start = walk.data[walk.offset : walk.offset + 2]
    zipped = start == _GZIP_MAGIC
    if header["flags"] & _MB_GZIP and not zipped:
        zipped = _GZIP_MAGIC.startswith(start)
        if not zipped:
            walk.annotate(walk.skip(walk.fault("the body is not gzip", walk.offset, "body")))
    elif zipped and not header["flags"] & _MB_GZIP:
        walk.problem("a gzip body, though bit 0 of flags is clear")
    elif header["version"] == 0 and not zipped:
        walk.annotate(walk.skip(walk.fault("version 0 with a raw body", 4, "version")), "version")
    error = _explain_member(walk) if zipped else None
    try:
        yield from _explain_mb_body(walk)
    except TruncatedError as cut:
        raise error or cut from None
    if error is not None:
        raise error


def _explain_mb_body(walk: _Walk) -> Iterator[None]:
    """The sections (mb 1.2); strings and series are numbered over all of them."""
    strings: List[str] = []
    while walk.more():
        yield
        kind = walk.data[walk.offset]
        if kind not in MB_SECTIONS:
            walk.take("trailing", len(walk.data) - walk.offset, "bytes")
            walk.problem("unknown section")
            return
        with walk.record("sections"):
            walk.fixed("id", "B", MB_SECTIONS[kind])
            number = walk.uvarint("string_count" if kind == _MB_STRINGS else "series_count")
        for left in range(number, 0, -1):
            yield
            if kind == _MB_SERIES:
                with walk.record("series"):
                    yield from _explain_mb_series(walk, strings)
                continue
            with walk.record("strings"):
                size = walk.uvarint("length", "bytes")
                past = left == 1 and size > len(walk.data) - walk.offset
                strings.append(walk.text("text", len(walk.data) - walk.offset if past else size))
                if any("\udc80" <= letter <= "\udcff" for letter in strings[-1]):
                    walk.problem("not UTF-8")
                if past:
                    walk.problem("the last string goes past the end", "length")


def _explain_mb_string(walk: _Walk, name: str, strings: Sequence[str]) -> None:
    """A string by its number."""
    number = walk.uvarint(name)
    if number < len(strings):
        walk.annotate(json.dumps(strings[number][:72]))
    else:
        walk.problem("no such string")


def _explain_mb_id(walk: _Walk, name: str) -> None:
    id = walk.data[walk.offset : walk.offset + 16]
    note = ""
    if len(id) == 16 and not _mb_is_uuid(id):
        note = walk.skip(walk.fault("not a UUID", walk.offset, name, id.hex()))
    walk.fixed(name, "16s", note or ("" if any(id) else "none"))  # errata 5, 21


def _explain_mb_flag(walk: _Walk, name: str) -> bool:
    flag = walk.fixed(name, "B")
    if flag > 1:
        walk.problem("neither 0 nor 1")
    return bool(flag == 1)


def _explain_mb_series(walk: _Walk, strings: Sequence[str]) -> Iterator[None]:
    _explain_mb_id(walk, "id")
    _explain_mb_string(walk, "name", strings)
    _explain_mb_string(walk, "color", strings)
    _explain_mb_flag(walk, "visible")  # erratum 3
    for _ in range(walk.uvarint("point_count")):
        yield
        with walk.record("points"):
            flags = walk.layout(MB_POINT)["flags"]
            if flags & ~(_MB_META | _MB_NAME | _MB_POINT_ID):
                walk.problem("unknown bits are set")
            if flags & _MB_NAME:
                _explain_mb_string(walk, "name", strings)
            if flags & _MB_POINT_ID:
                _explain_mb_id(walk, "point_id")
            if flags & _MB_META:
                yield from _explain_mb_meta(walk, strings)


def _explain_mb_meta(walk: _Walk, strings: Sequence[str]) -> Iterator[None]:
    """Errata 6, 7."""
    event = walk.uvarint("event", "a string's number and 1" * (walk.data[walk.offset : walk.offset + 1] != b"\0"))
    if 0 < event <= len(strings):
        walk.annotate(json.dumps(strings[event - 1][:72]))
    elif event:
        walk.problem("no such string")
    if not _explain_mb_flag(walk, "has_memory"):
        return
    for _ in range(walk.uvarint("page_type_count")):
        with walk.record("page_types"):
            _explain_mb_string(walk, "name", strings)
            uniform = walk.uvarint("uniform_page_size", "bytes")
            for _ in range(walk.uvarint("page_count")):
                yield
                with walk.record("pages"):
                    _explain_mb_page(walk, uniform)


def _explain_mb_page(walk: _Walk, uniform: int) -> None:
    if not uniform:
        walk.uvarint("size", "bytes")
    absent = walk.data[walk.offset : walk.offset + 4] == _MB_ABSENT
    walk.fixed("occupancy", "f", "absent" if absent else "")
    size = walk.uvarint("rle_length", "bytes")
    start = walk.offset
    stream = walk.data[start : start + size]
    if len(stream) < size:
        detail = f"{len(stream)} of {size} bytes"
        raise walk.fault("the file ends inside this field", start, "run_stream", detail)
    borrowed = 0
    if stream and stream[-1] >= 0x80:
        after = walk.data[start + size : start + size + _VARINT_LIMIT]
        borrowed = 1 + next((place for place, byte in enumerate(after) if byte < 0x80), _VARINT_LIMIT)
        if borrowed > _VARINT_LIMIT:
            whole = len(after) == _VARINT_LIMIT
            rule = "varint of more than 64 bytes" if whole else "truncated varint"
            raise walk.fault(rule, start, "run_stream")
    if stream:
        walk.take("run_stream", size, "bytes")
    if borrowed:
        walk.problem("the last number goes on past the end of the stream")


# ---- mb: Reader


class MbReader(Reader[MbHeader, MbRecord]):
    """Reads a ``.mb`` file of any version: each ``Series``, and after it each ``Point`` of it.

    ``strings`` are those read so far, in general all of them before the first series.  The body is unpacked while the
    records come, in constant memory, but for the strings; run streams are left as they are.
    """

    format = "mb"
    rules = MB_RULES

    def _read_start(self) -> None:
        problems = self._problems
        start = self._source.peek(10)
        if not MB_MAGIC.startswith(start[:4]):
            raise problems.fault("not a Memory Dump file", 0, "magic")
        _, version, flags = _Fields(problems, self._source.read(8)).layout(MB_HEADER)
        body = start[8:]
        told = bool(flags & _MB_GZIP)
        compressed = body == _GZIP_MAGIC or (told and _GZIP_MAGIC.startswith(body))
        self.header = MbHeader(version, flags, compressed)
        if flags >> 1:
            problems.add("unknown bits are set", 6, "flags", f"0x{flags:04x}")
        if version > MB_VERSION:
            problems.add("newer version", 4, "version", str(version))
        if compressed and not told:
            problems.add("a gzip body, though bit 0 of flags is clear", 6, "flags")
        elif told and not compressed:
            problems.step_over(problems.fault("the body is not gzip", 8, "body"))
        elif version == 0 and not compressed:
            problems.step_over(problems.fault("version 0 with a raw body", 4, "version"))
        self.strings: List[str] = []
        if compressed:
            self._source = _Source(_Gunzip(self._source, self._max_bytes, "mb"), owned=True, name=self._source.name)
            problems.space = "body"
        self._fields = _Fields(problems, b"", 0 if compressed else 8, source=self._source)
        self._fault: Optional[FormatError] = None
        self._start: Optional[bytes] = b""
        self._series_count: Optional[int] = None
        self._sections = 0
        self._leading: Tuple[str, ...] = ()
        self._usual: Dict[int, str] = {}  # strings by the numbers that a writer would give them
        try:
            self._series_count = self._read_sections()
        except FormatError as error:
            self._fault = error
        else:
            usual = self._series_count is not None and self._sections == 2 and self._fields.canonical
            self._start = None if usual else self._fields.since()
            self._fields.begin()
            self._leading = tuple(self.strings)
            numbers: Dict[str, int] = {}
            for number, text in enumerate(self.strings):
                numbers.setdefault(text, number)
            self._usual = {number: text for text, number in numbers.items()}

    @property
    def tables(self) -> Dict[str, Any]:
        """``strings`` before the first series, and ``series_count`` of the first list of series.

        ``start``: the bytes before the first series, where that is not one table and the start of one list, else None.
        """
        return {"strings": self._leading, "series_count": self._series_count, "start": self._start}

    def _read_records(self) -> Iterator[MbRecord]:
        fields = self._fields
        try:
            if self._fault is not None:
                raise self._fault
            number = self._series_count
            done = 0
            while number is not None:
                for _ in range(number):
                    series = self._read_series(f"series[{done}].")
                    yield series
                    if series.point_count:
                        yield from self._read_points(series.point_count, f"series[{done}].points")
                    done += 1
                number = self._read_sections()
            self._end(fields.left() + self._source.rest())
        except FormatError as error:
            self._end(fields.left(), error)

    def _read_sections(self) -> Optional[int]:
        """Read strings up to the next list of series; returns its length, or None at the end."""
        fields = self._fields
        while fields.have(1):
            kind = fields.data[fields.at]
            if kind not in MB_SECTIONS:
                fields.where = ""
                fields.problem("unknown section", fields.at, "trailing", f"0x{kind:02x}")
                break
            fields.where = f"sections[{self._sections}]."
            fields.at += 1
            self._sections += 1
            if kind == _MB_SERIES:
                return fields.uvarint("series_count")
            for left in range(fields.uvarint("string_count"), 0, -1):
                self._read_string(last=left == 1)
        return None

    def _read_string(self, *, last: bool) -> None:
        fields = self._fields
        fields.where = f"strings[{len(self.strings)}]."
        start = fields.at
        size = fields.uvarint("length")
        if last and not fields.have(size):
            have = len(fields.data) - fields.at
            fields.problem("the last string goes past the end", start, "length", f"{have} of {size} bytes")
            fields.canonical = False
            size = have
        start = fields.at
        piece = fields.take("text", size)
        try:
            text = piece.decode()
        except UnicodeDecodeError:
            fields.problem("not UTF-8", start, "text")
            text = _decode_text(piece)
        self.strings.append(text)

    def _read_series(self, where: str) -> Series:
        """A series, which begins after the bytes that the sections before it, if any, have taken."""
        fields = self._fields
        fields.where = where
        fields.canonical = not fields.since()
        id = self._read_id("id")
        name, color = self._string("name") or "", self._string("color") or ""
        visible = self._read_flag("visible")
        point_count = fields.uvarint("point_count")
        raw = b"" if fields.canonical else fields.since()
        fields.begin()
        return Series(id, name, color, visible, point_count, raw)

    def _read_id(self, name: str) -> bytes:
        fields = self._fields
        id = fields.take(name, 16)
        if not _mb_is_uuid(id):
            fields.at -= 16
            self._problems.step_over(fields.fault("not a UUID", name, id.hex()))
            fields.at += 16
        return id

    def _string(self, name: str, less: int = 0) -> Optional[str]:
        """A string by its number, which ``less`` is taken from; None if there is none of that number."""
        fields = self._fields
        start = fields.at
        number = fields.uvarint(name) - less
        if number < 0:
            return None
        fields.canonical = fields.canonical and number in self._usual
        if number < len(self.strings):
            return self.strings[number]
        fields.problem("no such string", start, name, str(number))
        return None

    def _read_flag(self, name: str) -> bool:
        fields = self._fields
        flag = fields.take(name, 1)[0]
        if flag > 1:
            fields.problem("neither 0 nor 1", fields.at - 1, name, str(flag))
            fields.canonical = False
        return flag == 1

    def _read_points(self, number: int, where: str) -> Iterator[Point]:
        """The points of a series."""
        # Points of the usual forms are read here and by _mb_quick_point, everything else by _read_point.
        new = tuple.__new__
        fields = self._fields
        usual = self._usual
        with_id = struct.Struct("<ddx16s").unpack_from
        without = _MB_TIMES.unpack_from
        none = b""
        data = fields.data
        at = fields.at
        index = 0
        while index < number:
            try:
                flags = data[at + 16]
                if flags == _MB_POINT_ID:
                    timestamp, value, id = with_id(data, at)
                    if 0x10 <= id[6] < 0x90 and 0x80 <= id[8] < 0xC0:
                        stop = at + 33
                        point = new(Point, (timestamp, value, None, id, False, None, None, none))
                    else:
                        point, stop = _mb_quick_point(data, at, flags, usual)
                elif flags:
                    point, stop = _mb_quick_point(data, at, flags, usual)
                else:
                    timestamp, value = without(data, at)
                    stop = at + 17
                    point = new(Point, (timestamp, value, None, none, False, None, None, none))
            except (IndexError, struct.error, _MbOddError) as error:
                fields.at = at
                fields.begin()
                at = fields.at
                more = type(error) is not _MbOddError and fields.have(len(fields.data) - at + 1)
                data = fields.data
                if more:
                    continue
                point = self._read_point(f"{where}[{index}].")
                data = fields.data
                stop = fields.at
            yield point
            at = stop
            index += 1
        fields.at = at
        fields.begin()

    def _read_point(self, where: str) -> Point:
        fields = self._fields
        fields.where = where
        fields.canonical = True
        timestamp, value, flags = fields.layout(MB_POINT)
        if flags & ~(_MB_META | _MB_NAME | _MB_POINT_ID):
            fields.problem("unknown bits are set", fields.at - 1, "flags", f"0x{flags:02x}")
            fields.canonical = False
        name = self._string("name") if flags & _MB_NAME else None
        point_id = self._read_id("point_id") if flags & _MB_POINT_ID else b""
        event = page_types = None
        if flags & _MB_META:
            event = self._string("event", 1)
            if self._read_flag("has_memory"):
                page_types = self._read_page_types(where)
        raw = b"" if fields.canonical else fields.since()
        return Point(timestamp, value, name, point_id, bool(flags & _MB_META), event, page_types, raw)

    def _read_page_types(self, where: str) -> Tuple[PageType, ...]:
        fields = self._fields
        page_types = []
        for number in range(fields.uvarint("page_type_count")):
            inner = fields.where = f"{where}page_types[{number}]."
            name = self._string("name") or ""
            uniform = fields.uvarint("uniform_page_size")
            pages = []
            for place in range(fields.uvarint("page_count")):
                fields.where = f"{inner}pages[{place}]."
                pages.append(self._read_page(uniform))
            page_types.append(PageType(name, uniform, tuple(pages)))
        return tuple(page_types)

    def _read_page(self, uniform: int) -> Page:
        fields = self._fields
        size = uniform or fields.uvarint("size")
        bits = fields.take("occupancy", 4)
        (occupancy,) = struct.unpack("<f", bits)
        # A NaN of other bits than usual may come back from a float as another one.
        fields.canonical = fields.canonical and (occupancy <= _INFINITY or struct.pack("<f", occupancy) == bits)
        stream = fields.take("run_stream", fields.uvarint("rle_length"))
        borrowed = b""
        if stream and stream[-1] >= 0x80:
            fields.have(_VARINT_LIMIT)
            after = fields.data[fields.at : fields.at + _VARINT_LIMIT]
            size_after = 1 + next((place for place, byte in enumerate(after) if byte < 0x80), _VARINT_LIMIT)
            if size_after > _VARINT_LIMIT:
                fields.at -= len(stream)
                whole = len(after) == _VARINT_LIMIT
                raise fields.fault("varint of more than 64 bytes" if whole else "truncated varint", "run_stream")
            borrowed = after[:size_after]
            start = fields.at - len(stream)
            fields.problem("the last number goes on past the end of the stream", start, "run_stream")
        return Page(size, None if bits == _MB_ABSENT else occupancy, stream, borrowed)


class _MbOddError(Exception):
    """Something that is not of the usual form, and is left to be read exactly."""


def _mb_number(data: bytes, at: int) -> Tuple[int, int]:
    """A varint in its shortest form, and where it ends."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    try:
        value, stop = decode_varint(data, at)
    except OverflowError:
        raise _MbOddError from None
    if not data[stop - 1] or value >> 64:
        raise _MbOddError
    return value, stop


def _mb_quick_point(data: bytes, at: int, flags: int, usual: Mapping[int, str]) -> Tuple[Point, int]:
    """A point of the usual forms, and where it ends.

    Raises _MbOddError for another one, and IndexError or struct.error at the end of the data.
    """
    if flags > _MB_META | _MB_NAME | _MB_POINT_ID:
        raise _MbOddError
    timestamp, value = _MB_TIMES.unpack_from(data, at)
    at += 17
    name = event = page_types = None
    point_id = b""
    try:
        if flags & _MB_NAME:
            number = data[at]
            at += 1
            if number > 0x7F:
                number, at = _mb_number(data, at - 1)
            name = usual[number]
        if flags & _MB_POINT_ID:
            point_id = data[at : at + 16]
            at += 16
            if not (0x10 <= point_id[6] < 0x90 and 0x80 <= point_id[8] < 0xC0):
                raise _MbOddError
        if flags & _MB_META:
            number = data[at]
            at += 1
            if number > 0x7F:
                number, at = _mb_number(data, at - 1)
            if number:
                event = usual[number - 1]
            memory = data[at]
            at += 1
            if memory == 1:
                page_types, at = _mb_quick_page_types(data, at, usual)
            elif memory:
                raise _MbOddError
    except KeyError:
        raise _MbOddError from None
    if at > len(data):
        raise IndexError
    fields = (timestamp, value, name, point_id, flags & _MB_META > 0, event, page_types, b"")
    return tuple.__new__(Point, fields), at


def _mb_quick_page_types(data: bytes, at: int, usual: Mapping[int, str]) -> Tuple[Tuple[PageType, ...], int]:
    # Numbers of two bytes are put together here: page sizes and the lengths of streams often are such.  The last byte
    # of a stream is looked at for its own sake, and tells whether the stream is there.
    new = tuple.__new__
    unpack = _MB_SHARE.unpack_from
    infinity = _INFINITY
    none = b""
    page_types = []
    number, at = _mb_number(data, at)
    for _ in range(number):
        number, at = _mb_number(data, at)
        uniform, at = _mb_number(data, at)
        page_count, at = _mb_number(data, at)
        name = usual[number]
        pages: List[Page] = []
        add = pages.append
        size = uniform
        for _ in range(page_count):
            if not uniform:
                size = data[at]
                at += 1
                if size > 0x7F:
                    more = data[at]
                    at += 1
                    if 0 < more < 0x80:
                        size += (more << 7) - 128
                    else:
                        size, at = _mb_number(data, at - 2)
            share: Optional[float]
            share, length = unpack(data, at)
            at += 5
            if length > 0x7F:
                more = data[at]
                at += 1
                if 0 < more < 0x80:
                    length += (more << 7) - 128
                else:
                    length, at = _mb_number(data, at - 2)
            stop = at + length
            if data[stop - 1] > 0x7F:
                raise _MbOddError
            if share == -1.0:
                share = None
            elif not share <= infinity:
                raise _MbOddError
            add(new(Page, (size, share, data[at:stop], none)))
            at = stop
        page_types.append(new(PageType, (name, uniform, tuple(pages))))
    return tuple(page_types), at


# ---- mb: Writer


class MbWriter(Writer[MbHeader, MbRecord]):
    """Writes a ``.mb`` file as the application does: strings in the order of their first use, then all series.

    ``series`` starts a series and ``point`` adds to it; ``write`` and ``write_all`` take records, whose ``raw`` and
    ``point_count`` are not looked at.  Strings and counts stand first, so the body is kept in memory, and written by
    ``close``; of a document it is written as it comes.  ``compressed=False`` leaves the body raw.

    What the application would not read back is a ValueError: numbers of 2^32 and more or below 0 (mb 1.7), a
    timestamp of NaN, an id that is no UUID, a page of another size than the uniform one, an occupancy of -1, a run
    stream without an end, text with lone surrogates, but those that stand for bytes which are not UTF-8.
    ``like_upstream`` writes them as the application does, an id that is none as zero.
    """

    format = "mb"

    def __init__(
        self,
        file: WritableFile,
        *,
        version: int = MB_VERSION,
        compressed: bool = True,
        like_upstream: bool = False,
    ) -> None:
        self._header = MbHeader(version, _MB_GZIP * compressed, compressed)
        _mb_write_header(self._header)
        if not (version or compressed):
            raise ValueError("a raw body needs a version of 1 at least")
        self._like_upstream = like_upstream
        self._numbers: Dict[str, int] = {}
        self._strings: List[bytes] = []
        self._varints: Dict[int, bytes] = {}  # those of page sizes and of lengths, which recur
        self._pieces: List[bytes] = []
        self._body: List[bytes] = []  # the pieces so far, joined; of a document nothing
        self._open: Optional[Series] = None
        self._place = 0  # in the body, of its head, which lacks the number of points
        self._points = self._series_count = 0
        self._series_left: Optional[int] = None  # of a document; None where it is not known
        self._deflater: Any = None
        self._crc = self._size = 0
        super().__init__(file)

    def series(
        self, name: str = "", *, color: str = "", visible: bool = True, id: Union[bytes, str] = _MB_NO_ID
    ) -> None:
        """Start a series; ``id`` is a UUID, as text or 16 bytes.  No ``color`` is black, as in the application."""
        self.write(Series(self._id(id), name, color, visible))

    def point(
        self,
        timestamp: float,
        value: float,
        name: str = "",
        *,
        id: Union[bytes, str] = b"",
        event: str = "",
        page_types: Optional[Iterable[PageType]] = None,
    ) -> None:
        """A point of the open series: microseconds since 1970 and bytes, and the other fields of the record ``Point``.

        The run stream of a Page is made by ``mb_run_stream``.
        """
        types = None if page_types is None else tuple(page_types)
        self.write(Point(timestamp, value, name or None, self._id(id) if id else b"", False, event or None, types))

    def _id(self, id: Union[bytes, str]) -> bytes:
        if not isinstance(id, str):
            return id
        found = _mb_id(id)
        if found is None and not self._like_upstream:
            raise ValueError(f"not a UUID: {id!r}")
        return found or _MB_NO_ID

    def write_all(self, records: Iterable[MbRecord]) -> None:
        """Write records in order; what the format cannot hold is a ValueError or TypeError."""
        # Points with nothing but an id are packed here; everything else, and what is wrong, by _write_record.
        if self._closed:
            raise ValueError("the writer is closed")
        self._begun = True
        pack = struct.Struct("<ddB16s").pack
        for record in records:
            if type(record) is Point and self._open is not None and not self._document:
                timestamp, value, name, id, has_meta, event, page_types, _ = record
                usual = not (name or has_meta or event) and page_types is None
                if usual and type(id) is bytes and len(id) == 16 and _mb_is_uuid(id):
                    try:
                        piece = pack(timestamp, value, _MB_POINT_ID, id)
                    except (struct.error, OverflowError):
                        piece = b""
                    if piece and timestamp <= _INFINITY:
                        self._pieces.append(piece)
                        self._points += 1
                        continue
            self._write_record(record)
            if len(self._pieces) >= 1000:
                self._gather()

    def _gather(self) -> None:
        """Join the pieces; of a document, write them."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._document:
            self._write(data)
        else:
            self._body.append(data)

    def _write_record(self, record: MbRecord) -> None:
        known = len(self._strings)
        write: Any = {Point: self._write_point, Series: self._write_series}.get(type(record))
        if write is None:
            raise TypeError(f"not a record of mb: {record!r}")
        try:
            write(record)
        except (ValueError, TypeError, struct.error, OverflowError) as error:
            while len(self._strings) > known:  # what the refused record has brought
                self._numbers.popitem()
                self._strings.pop()
            if isinstance(error, (ValueError, TypeError)):
                raise
            raise ValueError(f"not a record of mb: {error}: {record!r}") from None

    def _write_series(self, record: Series) -> None:
        raw = _raw_bytes(record) if self._document else b""
        color = record.color or "#000000" * (not self._document)
        head = raw or b"".join(
            [
                self._write_id("id", record.id),
                self._string(record.name),
                self._string(color),
                b"\1" if record.visible else b"\0",
            ]
        )
        if self._document:
            if self._open is not None and self._points != self._open.point_count:
                raise ValueError(f"a series of {self._open.point_count} points has {self._points}")
            if self._series_left == 0 and not raw:
                raise ValueError("there are more series than series_count")
            if self._series_left is not None:
                self._series_left = None if raw else self._series_left - 1
            self._pieces.append(raw or head + self._varint("point_count", record.point_count))
        else:
            self._end_series()
            self._gather()
            self._place = len(self._body)
            self._body.append(head)
            self._series_count += 1
        self._open = record
        self._points = 0

    def _end_series(self) -> None:
        if self._open is not None:
            self._body[self._place] += self._varint("point_count", self._points)

    def _write_point(self, record: Point) -> None:
        if self._open is None:
            raise ValueError("no series has been started")
        if self._document and self._points >= self._open.point_count:
            raise ValueError(f"a series of {self._open.point_count} points has more")
        piece = _raw_bytes(record) if self._document else b""
        self._pieces.append(piece or self._point_bytes(record))
        self._points += 1

    def _point_bytes(self, record: Point) -> bytes:
        timestamp, value, name, id, has_meta, event, page_types, _ = record
        if not self._document:
            name, event = name or None, event or None
        has_meta = has_meta or event is not None or page_types is not None
        flags = _MB_META * has_meta | _MB_NAME * (name is not None) | _MB_POINT_ID * bool(id)
        parts = [MB_POINT.little.pack(timestamp, value, flags)]
        if not (timestamp <= _INFINITY or self._document or self._like_upstream):
            raise ValueError("a timestamp of NaN")
        if name is not None:
            parts.append(self._string(name))
        if id:
            parts.append(self._write_id("point_id", id))
        if has_meta:
            parts.append(b"\0" if event is None else self._string(event, 1))
            parts.append(b"\0" if page_types is None else b"\1" + self._varint("page_type_count", len(page_types)))
            for page_type in page_types or ():
                self._write_page_type(page_type, parts)
        return b"".join(parts)

    def _write_page_type(self, record: PageType, parts: List[bytes]) -> None:
        name, uniform, pages = record
        parts += [self._string(name), self._varint("uniform_page_size", uniform)]
        parts.append(self._varint("page_count", len(pages)))
        add = parts.append
        varints = self._varints
        for size, share, stream, borrowed in pages:
            if uniform:
                if size != uniform and not self._like_upstream:
                    raise ValueError(f"a page of {size} bytes among those of {uniform}")
            else:
                add(varints.get(size) or self._varint("size", size))
            if share is None:
                add(_MB_ABSENT)
            else:
                add(self._share(share))
            if stream and stream[-1] > 0x7F and not self._document:
                stream += borrowed
                if stream[-1] > 0x7F and not self._like_upstream:
                    raise ValueError(f"the last number of a run stream has no end: {stream.hex()}")
            length = len(stream)
            add(varints.get(length) or self._varint("rle_length", length))
            add(stream)

    def _share(self, share: float) -> bytes:
        if share == -1.0 and not self._like_upstream:
            raise ValueError("an occupancy of -1 stands for none")
        try:
            return _MB_F32.pack(share)
        except OverflowError:
            if not self._like_upstream:
                raise ValueError(f"not an occupancy: {share}") from None
            return _MB_F32.pack(_INFINITY if share > 0 else -_INFINITY)

    def _string(self, text: str, more: int = 0) -> bytes:
        """The number of a string, to which ``more`` is added; it is in the table then."""
        number = self._numbers.get(text)
        if number is None:
            if self._document:
                raise ValueError(f"not among the strings of the document: {text!r}")
            if self._like_upstream:
                self._strings.append(_js_well_formed(text).encode())
            else:
                self._strings.append(_encode_text(text))
            number = self._numbers[text] = len(self._strings) - 1
        return encode_varint(number + more)

    def _write_id(self, name: str, id: bytes) -> bytes:
        if len(id) != 16:
            raise ValueError(f"{name} is not of 16 bytes: {len(id)}")
        if not self._document and not _mb_is_uuid(id):
            if not self._like_upstream:
                raise ValueError(f"{name} is not a UUID: {id.hex()}")
            return _MB_NO_ID
        return bytes(memoryview(id))

    def _varint(self, name: str, value: int) -> bytes:
        """A number, which is remembered; raises ValueError for what the application would not write as itself."""
        if len(self._varints) > 4096:
            self._varints.clear()
        piece = _mb_write_varint(name, value, 64 if self._document else 32, like_upstream=self._like_upstream)
        return self._varints.setdefault(value, piece)

    def _begin(self, header: MbHeader, tables: Mapping[str, Any]) -> None:
        """Start with the header and the tables of a document."""
        head = _mb_write_header(header)
        super()._begin(header, tables)
        start, count = tables.get("start"), tables.get("series_count")
        self._header = header
        self._numbers.clear()
        for number, text in enumerate(tables.get("strings", ())):
            self._strings.append(_encode_text(text))
            self._numbers.setdefault(text, number)
        if start is None:
            self._series_left = _integer("series_count", cast("int", count), 64)
            start = self._first_sections(self._series_left)
        self._sink.write(head)
        self._write(start)

    def _first_sections(self, series_count: int) -> bytes:
        """The table of strings, and the start of the list of series."""
        parts = [bytes((_MB_STRINGS,)), encode_varint(len(self._strings))]
        for text in self._strings:
            parts += [encode_varint(len(text)), text]
        return b"".join([*parts, bytes((_MB_SERIES,)), encode_varint(series_count)])

    def _end(self, tables: Mapping[str, Any], tail: bytes) -> None:
        """Write the tail, which belongs to the body."""
        self._gather()
        self._write(tail)

    def _write(self, data: bytes) -> None:
        """Write some of the body."""
        if self._header.compressed:
            if self._deflater is None:
                # What the application's engines write; those that have plain zlib also write these bytes of data.
                self._sink.write(GZIP_HEADER.little.pack(_GZIP_MAGIC, 8, 0, 0, 0, 3))
                self._deflater = _zlib.compressobj(6, _zlib.DEFLATED, -15, 8)
            self._crc = _zlib.crc32(data, self._crc)
            self._size += len(data)
            data = self._deflater.compress(data)
        self._sink.write(data)

    def _finish(self) -> None:
        if not self._document:
            self._end_series()
            self._gather()
            self._sink.write(_mb_write_header(self._header))
            self._write(self._first_sections(self._series_count))
            for data in self._body:
                self._write(data)
        if self._deflater is not None:
            self._sink.write(self._deflater.flush() + GZIP_TRAILER.little.pack(self._crc, self._size & 0xFFFFFFFF))


def _mb_write_header(header: MbHeader) -> bytes:
    return _pack(MB_HEADER, (MB_MAGIC, header.version, header.flags))


def _mb_write_varint(name: str, value: float, bits: int = 32, *, like_upstream: bool = False) -> bytes:
    """A varint; raises ValueError or TypeError for what the application does not write as itself (mb 1.7)."""
    if not like_upstream:
        return encode_varint(_integer(name, cast("int", value), bits))
    groups = []
    while value > 0x7F:
        whole = int(value) if value < _INFINITY else 0
        groups.append(whole & 0x7F | 0x80)
        value = (whole & 0xFFFFFFFF) >> 7
    groups.append(int(value) & 0xFF if value > -_INFINITY else 0)
    return bytes(groups)


def _mb_id(text: str) -> Optional[bytes]:
    """The 16 bytes of a UUID; None for what the application takes for none (mb 1.5)."""
    parts = text.split("-")
    try:
        id = bytes.fromhex("".join(parts))
    except ValueError:
        return None
    usual = [len(part) for part in parts] == [8, 4, 4, 4, 12] and " " not in text and len(id) == 16
    return id if usual and _mb_is_uuid(id) else None


def mb_run_stream(
    size: float,
    *,
    bitmap: str = "",
    free_ranges: Optional[Iterable[Any]] = None,
    occupancy: Optional[float] = None,
    like_upstream: bool = False,
) -> bytes:
    """The run stream of a page of ``size`` bytes, by the first of the application's rules that applies (mb 2).

    ``bitmap`` is a stream in hexadecimal; ``free_ranges`` are pairs of start and end in bytes; of an ``occupancy``
    below 1 the used part comes first; else the page is full.  Raises ValueError for numbers that the application does
    not write as themselves, unless ``like_upstream``.

    >>> mb_run_stream(4096, free_ranges=[(1024, 3072)]).hex()
    '800180028001'
    """
    if bitmap:
        return _mb_hex(bitmap)
    total = -_mb_floor(-size / _MB_UNIT)
    if free_ranges is not None:
        free_ranges = list(free_ranges)
        runs = _mb_quick_runs(size, free_ranges) or _mb_runs_of(size, free_ranges)
    elif occupancy is not None and 0 <= occupancy < 1:
        used = _mb_floor(total * occupancy)
        runs = [used, total - used]
    else:
        runs = [total]
    return _mb_write_runs(runs, like_upstream=like_upstream)


def _mb_write_runs(runs: Iterable[Any], *, like_upstream: bool = False) -> bytes:
    data = bytearray()
    add = data.append
    for run in runs:
        if run.__class__ is not int or not 0 <= run < 0x4000:
            data += _mb_write_varint("a run", run, like_upstream=like_upstream)
        elif run < 0x80:
            add(run)
        else:
            add(run & 0x7F | 0x80)
            add(run >> 7)
    return bytes(data)


def _mb_floor(value: float) -> float:
    """As JavaScript has it: a whole number, infinity or NaN."""
    return int(value // 1) if -_INFINITY < value < _INFINITY else value


def _mb_quick_runs(size: float, ranges: Sequence[Any]) -> Sequence[float]:
    """The runs of ranges of whole units, in order and apart; none for others."""
    runs: List[float] = []
    at: float = 0
    try:
        for start, end in ranges:
            kind = type(end)
            if type(start) is not kind or (kind is not float and kind is not int):
                return ()
            runs.append((start - at) / _MB_UNIT)
            runs.append((end - start) / _MB_UNIT)
            at = end
        if at < size:
            runs.append(-(-(size - at) // _MB_UNIT))
        whole = [*map(int, runs)]
    except (TypeError, ValueError, OverflowError):
        return ()
    good = whole == runs and min(whole[1:], default=0) > 0 and whole[0] >= 0 and max(whole) < 1 << 32
    return whole if good else ()


def _mb_runs_of(size: float, free_ranges: Iterable[Any]) -> List[float]:
    """Runs of free ranges: overlaps count twice, and what is not whole units is lost at each range (mb 2)."""

    def is_range(one: Any) -> bool:
        return isinstance(one, (list, tuple)) and len(one) > 1 and {type(one[0]), type(one[1])} <= {int, float}

    runs: List[float] = [0]
    at: float = 0
    for start, end, *_ in sorted(filter(is_range, free_ranges), key=lambda one: one[0]):
        for kind, gap in ((0, start - at), (1, end - start)):
            if gap > 0:
                if len(runs) % 2 == kind:
                    runs.append(0)
                runs[-1] += _mb_floor(gap / _MB_UNIT)
        at = end
    if at < size:
        if len(runs) % 2 == 0:
            runs.append(0)
        runs[-1] += -_mb_floor((at - size) / _MB_UNIT)
    return runs


def _mb_hex(text: str) -> bytes:
    """Bytes from pairs of digits as the application takes them, whatever they are (mb 2)."""
    try:
        if text.isalnum():
            return bytes.fromhex(text)
    except ValueError:
        pass
    data = bytearray()
    pair = ""
    units = text.encode("utf-16-le", "surrogatepass")
    for unit in [chr(unit) for (unit,) in _U16.iter_unpack(units)] + ["\n"]:
        ends = unit in "\n\r\u2028\u2029"
        pair += "" if ends else unit
        if len(pair) == 2 or (ends and pair):
            data.append(_mb_parse_int(pair))
            pair = ""
    return bytes(data)


def _mb_parse_int(pair: str) -> int:
    """JavaScript's ``parseInt(pair, 16)``, modulo 256, of two characters."""
    digits = pair.lstrip(_JS_BLANKS)
    sign = -1 if digits[:1] == "-" else 1
    digits = digits[1:] if digits[:1] in ("+", "-") else digits
    value = 0
    for digit in digits if digits[:2] not in ("0x", "0X") else "":
        if digit not in _HEX_DIGITS:
            break
        value = value * 16 + int(digit, 16)
    return sign * value & 0xFF


# ---- mb-json: the application's JSON
#
# An array of series, or one series (erratum 17); a series is an object whose ``data`` are points, a point an object
# whose ``meta.memory.pageTypes`` are types of pages (mb 3).  A reader gives the records that the application would
# write as .mb, but for times as text, which it loses (erratum 11).

_MB_JSON_KEYS = {  # of a series, of a point, and of what is inside it, by the last name of the path
    "series": frozenset(("id", "name", "visible", "color", "data")),
    "data": frozenset(("timestamp", "value", "pointId", "name", "meta")),
    "meta": frozenset(("event", "memory")),
    "memory": frozenset(("pageTypes",)),
    "pageTypes": frozenset(("name", "uniformPageSize", "pages")),
    "pages": frozenset(("size", "occupancy", "freeList", "bitmap")),
}
_MB_JSON_OLD_KEYS = frozenset(("x", "y"))  # of a point of the program before 2.0
_MB_JSON_POINT_KEYS = _MB_JSON_OLD_KEYS | {"timestamp"}
_MB_JSON_DEPTH = 200  # levels of nesting
_MB_JSON_PLAIN = 1000  # characters at most of a point that is read quickly
_MB_JSON_ESCAPES = {b'"': '"', b"\\": "\\", b"/": "/", b"b": "\b", b"f": "\f", b"n": "\n", b"r": "\r", b"t": "\t"}
_MB_JSON_STOPS = frozenset((b"", b'"', b"\\", *(bytes((code,)) for code in range(0x20))))  # what ends a string's run
_MB_JSON_WORDS = {b"null": None, b"true": True, b"false": False}
_MB_JSON_BRACKETS = bytes.maketrans(b"{}", b"[]")
_MB_JSON_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_MB_JSON_NAMES: FrozenSet[str] = frozenset().union(*_MB_JSON_KEYS.values())
_MB_JSON_FIRST = _MB_JSON_KEYS["series"] | _MB_JSON_KEYS["data"] | {"", "series", "points"}  # keys that may stand first
_NAN = float("nan")
_JS_BLANKS = " \t\n\v\f\r\xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
_MB_JSON_EXACT = float(1 << 53)  # the least integer that a double does not tell from the next
_MB_JSON_BOM = "\ufeff"

# What can be wrong, and how bad it is.  Faults of values that have another meaning without them are stepped over:
# those of names, pages and bitmaps.  Problems inside a point have its offset.
MB_JSON_RULES: Rules = {
    **_COMMON_RULES,
    "not UTF-8": ("fault", "bad-utf8"),
    "not JSON": ("fault", "bad-json"),
    "nested too deeply": ("fault", "limit"),
    "bytes after the text": ("fault", "trailing-data"),
    "neither an array nor an object": ("fault", "bad-value"),
    "JSON of the program before 2.0": ("fault", "unsupported-version"),  # mb 3.2
    "a series is no object": ("fault", "bad-value"),
    "a series without an array data": ("fault", "bad-value"),
    "a point is no object": ("fault", "bad-value"),
    "a series without a name": ("fault", "bad-value"),
    "not a list of types of pages": ("fault", "bad-value"),
    "a type of pages without an array pages": ("fault", "bad-value"),
    "a page is no object": ("fault", "bad-value"),
    "the bitmap ends inside a number": ("fault", "bad-varint"),  # erratum 9
    "a second data": ("deviation", "bad-value"),
    "not of its type": ("deviation", "bad-value"),
    "not a UUID": ("deviation", "bad-value"),  # erratum 21
    "not a time": ("deviation", "bad-value"),
    "not a size": ("deviation", "bad-value"),
    "not hexadecimal": ("deviation", "bad-value"),
    "not a range": ("deviation", "bad-value"),
    "the last number of the bitmap is left out": ("deviation", "bad-varint"),
    "a run that the application does not write as itself": ("deviation", "bad-value"),  # mb 1.7
    "null for a number": ("note", "bad-value"),  # as JavaScript writes what JSON lacks
    "a time as text": ("note", "lossy"),  # erratum 11
    "unknown key": ("note", "lossy"),  # erratum 10
    "size is not uniformPageSize": ("note", "bad-size"),  # erratum 18
}


def _is_mb_json(prefix: bytes) -> bool:
    """Whether a file that starts so is the application's JSON: by its first key, or by that of the points."""
    key = _json_start(prefix)
    known = key in _MB_JSON_FIRST or (key not in ("format", "ptr") and b'"data"' in prefix)
    return key is not None and known


def _mb_json_valid(data: bytes) -> Tuple[Optional[int], bool]:
    """Where bytes begin that are not UTF-8, and whether those are only the start of a character; None if all are."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.start, error.reason == "unexpected end of data"
    return None, False


class MbJsonHeader(NamedTuple):
    """How the text begins: with a byte order mark or not; ``single``: with one series instead of an array of them."""

    bom: bool = False
    single: bool = False


class _MbJsonCursor:
    """Takes a JSON text (RFC 8259) apart piece by piece, at exact offsets; slow.

    ``at`` is the offset of the next byte of ``data``, which is UTF-8.  ``fault`` makes the exception of a rule, an
    offset and a path.  Paths are those of the values; a key that is not among ``names`` adds nothing to them.
    """

    def __init__(self, data: bytes, fault: Callable[[str, int, str], FormatError], names: Container[str]) -> None:
        self.data = data
        self.at = 0
        self._fault = fault
        self._names = names

    def peek(self) -> bytes:
        """The next byte that is no blank, which this moves to; none at the end."""
        while self.at < len(self.data) and self.data[self.at] in _JSON_BLANKS:
            self.at += 1
        return self.data[self.at : self.at + 1]

    def take(self, wanted: bytes, path: str) -> bytes:
        """The next byte that is no blank, which has to be one of those."""
        byte = self.peek()
        if not byte:
            raise self._end(self.at, path)
        if byte not in wanted:
            raise self._fault("not JSON", self.at, path)
        self.at += 1
        return byte

    def members(self, path: str) -> Iterator[Tuple[str, int]]:
        """Enter an object: gives each key and its offset, and then stands before the value, to be taken."""
        self.take(b"{", path)
        if self.peek() == b"}":
            self.at += 1
            return
        while True:
            self.take(b'"', path)
            start = self.at - 1
            key = self._string(path)
            self.take(b":", path)
            yield key, start
            if self.take(b",}", path) == b"}":
                return

    def items(self, path: str) -> Iterator[str]:
        """Enter an array: gives the path of each item, which is then to be taken; of one in an array the array's."""
        self.take(b"[", path)
        if self.peek() == b"]":
            self.at += 1
            return
        number = 0
        while True:
            yield path if path.endswith("]") else f"{path}[{number}]"
            if self.take(b",]", path) == b"]":
                return
            number += 1

    def inner(self, path: str, key: str) -> str:
        """The path of an object's value."""
        return f"{path}.{key}" if key in self._names else path

    def value(self, path: str, depth: int = 0) -> Any:
        """Any value; numbers are floats, of equal keys the last counts, as in JavaScript."""
        byte = self.peek()
        if byte in (b"{", b"[") and depth >= _MB_JSON_DEPTH:
            raise self._fault("nested too deeply", self.at, path)
        if byte == b"{":
            made = {}
            for key, _ in self.members(path):
                made[key] = self.value(self.inner(path, key), depth + 1)
            return made
        if byte == b"[":
            items = []
            for inner in self.items(path):
                items.append(self.value(inner, depth + 1))  # noqa: PERF401 - a frame less for each level
            return items
        if byte == b'"':
            self.at += 1
            return self._string(path)
        for word in _MB_JSON_WORDS:
            if byte and word.startswith(byte):
                return self._word(word, path)
        end = _mb_json_number_end(self.data, self.at)
        if end == self.at:
            cut = self.data[self.at :] in (b"", b"-")
            raise self._end(self.at, path) if cut else self._fault("not JSON", self.at, path)
        digits = self.data[self.at : end]
        self.at = end
        return float(digits)

    def _word(self, word: bytes, path: str) -> Optional[bool]:
        piece = self.data[self.at : self.at + len(word)]
        if piece != word:
            whole = self.at + len(piece) < len(self.data) or not word.startswith(piece)
            raise self._fault("not JSON", self.at, path) if whole else self._end(self.at, path)
        self.at += len(word)
        return _MB_JSON_WORDS[word]

    def _string(self, path: str) -> str:
        """The text behind a quote, up to the next."""
        start = self.at
        pieces = []
        while True:
            end = self.at
            while self.data[end : end + 1] not in _MB_JSON_STOPS:
                end += 1
            pieces.append(self.data[self.at : end].decode())
            self.at = end
            stop = self.data[end : end + 1]
            if stop == b'"':
                self.at += 1
                text = "".join(pieces)
                return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
            if not stop:
                raise self._end(start - 1, path)
            pieces.append(self._escape(start - 1, path))

    def _escape(self, start: int, path: str) -> str:
        """What a backslash and the characters behind it stand for; ``start`` is that of the string."""
        mark = self.data[self.at + 1 : self.at + 2]
        if self.data[self.at] == 0x5C and mark in _MB_JSON_ESCAPES:
            self.at += 2
            return _MB_JSON_ESCAPES[mark]
        digits = self.data[self.at + 2 : self.at + 6]
        good = (
            self.data[self.at] == 0x5C
            and mark in (b"u", b"")
            and all(byte in b"0123456789abcdefABCDEF" for byte in digits)
        )
        if not good or (len(digits) < 4 and self.at + 2 + len(digits) < len(self.data)):
            raise self._fault("not JSON", self.at, path)
        if len(digits) < 4:
            raise self._end(start, path)
        self.at += 6
        return chr(int(digits, 16))

    def _end(self, at: int, path: str) -> FormatError:
        return self._fault("the file ends inside this field", at, path)


def _mb_json_number_end(data: bytes, start: int) -> int:
    """Where a number of JSON ends; where it should begin if there is none.

    >>> _mb_json_number_end(b"-0.5e+3,", 0), _mb_json_number_end(b"01", 0), _mb_json_number_end(b".5", 0)
    (7, 1, 0)
    """

    def digits(at: int) -> int:
        while data[at : at + 1].isdigit():
            at += 1
        return at

    first = start + (data[start : start + 1] == b"-")
    end = first + 1 if data[first : first + 1] == b"0" else digits(first)
    if end == first:
        return start
    if data[end : end + 1] == b"." and digits(end + 1) > end + 1:
        end = digits(end + 1)
    if data[end : end + 1] in (b"e", b"E"):
        power = end + 1 + (data[end + 1 : end + 2] in (b"+", b"-"))
        end = digits(power) if digits(power) > power else end
    return end


# ---- mb-json: explain


def _explain_mb_json(walk: _Walk) -> Iterator[None]:
    """The format text (mb 3.1, 3.2); members are spans, what stands between them is too."""
    valid, cut = _mb_json_valid(walk.data)

    def fault(rule: str, offset: int, path: str) -> FormatError:
        if rule == "the file ends inside this field" and valid is not None and not cut:
            rule, offset = "not UTF-8", valid
        return walk.fault(rule, offset, path)

    text = _MbJsonCursor(walk.data[:valid], fault, _MB_JSON_NAMES)
    if walk.data.startswith(_BOM):
        walk.take("bom", 3, "bytes")
        text.at = 3
    first = text.peek()
    if first not in (b"[", b"{"):
        rule = "neither an array nor an object" if first else "the file ends inside this field"
        raise fault(rule, text.at, "")
    if first == b"{":
        yield from _explain_mb_json_series(walk, text, "series[0]", single=True)
    else:
        for path in text.items("series"):
            yield from _explain_mb_json_series(walk, text, path, single=False)
    if text.peek():
        raise fault("bytes after the text", text.at, "")
    if valid is not None:
        raise fault("not UTF-8", valid, "")
    _explain_mb_json_gap(walk, text.at)


def _explain_mb_json_gap(walk: _Walk, end: int) -> None:
    """Blanks and marks before the next member."""
    if walk.offset < end:
        walk.take("", end - walk.offset, "json")


def _explain_mb_json_value(walk: _Walk, text: _MbJsonCursor, path: str, kind: str, key: str, depth: int) -> Any:
    """The value of a key, in one span with it."""
    value = text.value(text.inner(path, key), depth)
    walk.take(text.inner(path, key), text.at - walk.offset, "json")
    if not isinstance(value, (dict, list)):
        whole = type(value) is float and abs(value) < _MB_JSON_EXACT and value.is_integer()
        walk.revalue(int(value) if whole else value)
    if key not in _MB_JSON_KEYS[kind]:
        walk.problem("unknown key")
    return value


def _explain_mb_json_series(walk: _Walk, text: _MbJsonCursor, path: str, *, single: bool) -> Iterator[None]:
    mark, begin = text.peek(), text.at
    if mark != b"{":
        text.value(path)
        raise walk.fault("a series is no object", begin, path)
    seen = False
    name: Any = None
    late: List[FormatError] = []
    for key, start in text.members(path):
        yield
        _explain_mb_json_gap(walk, start)
        array = text.peek() == b"["
        if single and not seen and array and key in ("series", "points"):
            raise walk.fault("JSON of the program before 2.0", start, path)
        if key == "data" and array and not seen:
            seen = True
            walk.take(f"{path}.data", text.at + 1 - walk.offset, "json")
            for inner in text.items(f"{path}.data"):
                yield
                late += _explain_mb_json_point(walk, text, inner)
            continue
        value = _explain_mb_json_value(walk, text, path, "series", key, 1)
        if key == "name":
            name = value
        if key == "data":
            if not seen:
                raise walk.fault("a series without an array data", start, path)
            walk.problem("a second data")
    if not seen:
        raise walk.fault("a series without an array data", begin, path)
    if type(name) is not str:
        late.append(walk.fault("a series without a name", begin, f"{path}.name"))
        if walk.recover:
            walk.annotate(walk.skip(late[-1]))
    if late and not walk.recover:
        raise late[0]


def _explain_mb_json_point(walk: _Walk, text: _MbJsonCursor, path: str) -> List[FormatError]:
    """A point; gives the faults that end the reading after its series, unless they are stepped over."""
    byte = text.peek()
    begin = text.at
    if byte != b"{":
        value = text.value(path)
        old = type(value) is list
        raise walk.fault("JSON of the program before 2.0" if old else "a point is no object", begin, path)
    point = _explain_mb_json_object(walk, text, path, "data", 0)
    if "x" in point and "y" in point and "timestamp" not in point:
        raise walk.fault("JSON of the program before 2.0", begin, path)
    _explain_mb_json_gap(walk, text.at - 1)
    walk.take(path, 1, "json")
    late = [walk.fault(rule, begin, where) for rule, where in _mb_json_faults(point, path)]
    for fault in late if walk.recover else ():
        walk.annotate(walk.skip(fault))
    return late


_MB_JSON_INSIDE = {"data": "meta", "meta": "memory", "memory": "pageTypes", "pageTypes": "pages"}


def _explain_mb_json_object(walk: _Walk, text: _MbJsonCursor, path: str, kind: str, depth: int) -> Dict[str, Any]:
    """An object of a point, or in one, its members one by one."""
    made: Dict[str, Any] = {}
    for key, start in text.members(path):
        _explain_mb_json_gap(walk, start)
        mark = text.peek()
        inner = text.inner(path, key)
        if key != _MB_JSON_INSIDE.get(kind) or mark != (b"[" if key.startswith("page") else b"{"):
            made[key] = _explain_mb_json_value(walk, text, path, kind, key, depth + 1)
            continue
        walk.take(inner, text.at + 1 - walk.offset, "json")
        if mark == b"{":
            made[key] = _explain_mb_json_object(walk, text, inner, key, depth + 1)
            continue
        made[key] = []
        for item in text.items(inner):
            if text.peek() == b"{":
                made[key].append(_explain_mb_json_object(walk, text, item, key, depth + 2))
                continue
            _explain_mb_json_gap(walk, text.at)
            made[key].append(text.value(item, depth + 2))
            walk.take(item, text.at - walk.offset, "json")
    return made


def _mb_json_faults(point: Dict[str, Any], path: str) -> Iterator[Tuple[str, str]]:
    """What the application stumbles over in the page types of a point, in order."""
    meta = point.get("meta")
    memory = meta.get("memory") if isinstance(meta, dict) else None
    types = memory.get("pageTypes", []) if isinstance(memory, dict) else []
    path += ".meta.memory.pageTypes"
    if not isinstance(types, list):
        yield "not a list of types of pages", path
        return
    for place, one in enumerate(types):
        pages = one.get("pages") if isinstance(one, dict) else None
        if not isinstance(pages, list):
            yield "a type of pages without an array pages", f"{path}[{place}]"
            continue
        for number, page in enumerate(pages):
            where = f"{path}[{place}].pages[{number}]"
            if not isinstance(page, dict):
                yield "a page is no object", where
            elif isinstance(page.get("bitmap"), str) and "occupancy" not in page and "freeList" not in page:
                stream = _mb_hex(page["bitmap"])
                if stream[-1:] >= b"\x80":
                    yield "the bitmap ends inside a number", f"{where}.bitmap"


def _mb_iso_us(text: str) -> Optional[int]:
    """Microseconds since 1970 of a date or time of ISO 8601, without zone in UTC; None for any other text.

    >>> _mb_iso_us("2025-12-06T01:00:00.25+01:00"), _mb_iso_us("2025-12-06"), _mb_iso_us("yesterday")
    (1764979200250000, 1764979200000000, None)
    """
    signed = text[:1] in ("+", "-")
    year_text, rest = (text[1:7], text[7:]) if signed else (text[:4], text[4:])
    date, mark, clock = rest.replace(" ", "T", 1).upper().partition("T")
    zone = next((clock[at:] for at in range(len(clock)) if clock[at] in "Z+-"), "")
    clock = clock[: len(clock) - len(zone)]
    clock, point, fraction = clock.partition(".")
    dashes = date.count("-")
    parts = [year_text, *date.split("-")[1:], *(clock.split(":") if mark else ())]
    offset = zone[1:3] + zone[3:].removeprefix(":") if zone not in ("", "Z") else "0000"
    sizes = [6 if signed else 4, *[2] * (len(parts) - 1)]
    good = [len(part) == size and _mb_is_digits(part) for part, size in zip([*parts, offset], [*sizes, 4])]
    if not all(good) or date[:1] not in ("", "-") or dashes > 2 or len(parts) - dashes not in (1, 3, 4):
        return None
    if (point and (not _mb_is_digits(fraction) or len(parts) - dashes < 4)) or (zone and not mark):
        return None
    month, day = [*map(int, parts[1 : 1 + dashes]), 1, 1][:2]
    hour, minute, second = [*map(int, parts[1 + dashes :]), 0, 0, 0][:3]
    year = -int(year_text) if text[:1] == "-" else int(year_text)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if not 1 <= month <= 12 or not 1 <= day <= (31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]:
        return None
    if hour > 24 or minute > 59 or second > 59 or (hour == 24 and (minute or second)):
        return None
    if int(offset[:2]) > 23 or int(offset[2:]) > 59:
        return None
    year -= month < 3
    era, in_era = divmod(year, 400)
    in_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days = 146_097 * era + 365 * in_era + in_era // 4 - in_era // 100 + in_year - 719_468
    ahead = (60 * int(offset[:2]) + int(offset[2:])) * (-1 if zone[:1] == "-" else 1)
    seconds = 86_400 * days + 3600 * hour + 60 * (minute - ahead) + second
    return 1_000_000 * seconds + int(fraction[:6].ljust(6, "0"))


def _mb_is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


# ---- mb-json: Reader


class MbJsonReader(Reader[MbJsonHeader, MbRecord]):
    """Reads the application's JSON, in file order: ``Series``, and its ``Point`` records.

    A time is a number of microseconds, or text of ISO 8601, without zone in UTC; with ``like_upstream`` it and the
    value are what JavaScript's ``Number`` makes of them, so text of ISO 8601 is NaN.  Pages get the run stream that the
    application would write.  ``raw`` is a record's own text, back to the record before, where a writer's would differ:
    there are unknown keys, the order of keys and blanks.  The text is kept in memory, since a series may have members
    behind its points; records are made one at a time.
    """

    format = "mb-json"
    rules = MB_JSON_RULES
    _table_names = ("end",)

    def __init__(
        self,
        file: ReadableFile,
        *,
        strict: bool = False,
        recover: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
        like_upstream: bool = False,
    ) -> None:
        self._like_upstream = like_upstream
        super().__init__(file, strict=strict, recover=recover, max_bytes=max_bytes)

    def _read_start(self) -> None:
        self._data = self._source.rest()
        self._valid, self._cut = _mb_json_valid(self._data)
        self._text = self._data[: self._valid].decode()
        self._counted = (0, 0)  # a place in the text, and in the data
        self._begin = 0  # of the record, for its problems
        self._done = 0  # where the next record's own text begins
        self._late: Optional[FormatError] = None
        self._scan = _json_scanner(float)
        self._quick = _json_scanner(int)  # twice as quick, but for long numbers
        # Makes of each object the set of these keys that it has, so that a value is checked and not kept.
        self._pass = _json_scanner(int, _MB_JSON_POINT_KEYS.intersection)
        bom = self._text.startswith(_MB_JSON_BOM)
        self._at = int(bom)
        mark = self._peek()
        if mark not in ("[", "{"):
            rule = "neither an array nor an object" if mark else "the file ends inside this field"
            raise self._fault(rule, self._offset(self._at), "")
        self.header = MbJsonHeader(bom, mark == "{")
        self.end: Optional[str] = None

    def _fault(self, rule: str, offset: int, path: str) -> FormatError:
        if rule == "the file ends inside this field" and self._valid is not None and not self._cut:
            rule, offset = "not UTF-8", self._valid
        return self._problems.fault(rule, offset, path)

    def _offset(self, at: int) -> int:
        """The offset in the file of a place in the text."""
        place, offset = self._counted if self._counted[0] <= at else (0, 0)
        self._counted = at, offset + len(self._text[place:at].encode())
        return self._counted[1]

    def _peek(self) -> str:
        """The next character that is no blank, which this moves to; none at the end."""
        self._at = _skip_blanks(self._text, self._at)
        return self._text[self._at : self._at + 1]

    def _take(self, wanted: str, path: str) -> str:
        """The next character that is no blank, which has to be one of those."""
        found = self._peek()
        if not found or found not in wanted:
            rule = "not JSON" if found else "the file ends inside this field"
            raise self._fault(rule, self._offset(self._at), path)
        self._at += 1
        return found

    def _value(self, path: str, depth: int = 0) -> Any:
        """The value that stands next, at that depth of nesting."""
        start = self._at
        try:
            value, self._at = self._scan(self._text, start)
        except (StopIteration, ValueError, RecursionError):
            return self._exactly(start, path, depth)
        return value

    def _exactly(self, start: int, path: str, depth: int) -> Any:
        """The value at a place, or the fault that is in it."""
        data = self._text[start:].encode()
        base = self._offset(start)
        cursor = _MbJsonCursor(data, lambda rule, at, where: self._fault(rule, base + at, where), _MB_JSON_NAMES)
        value = cursor.value(path, depth)
        self._at = start + len(data[: cursor.at].decode())
        return value

    def _check_depth(self, start: int, path: str, depth: int) -> None:
        """Raise where what stands from ``start`` to here nests too deeply; each round takes off the innermost level."""
        stop = self._at
        if stop - start <= _MB_JSON_DEPTH:
            return
        if self._text.count("[", start, stop) + self._text.count("{", start, stop) + depth <= _MB_JSON_DEPTH:
            return
        bare = "".join(self._text[start:stop].replace("\\\\", "").replace('\\"', "").split('"')[::2])
        marks = bare.encode().translate(_MB_JSON_BRACKETS, _MB_JSON_NO_BRACKETS)
        for _ in range(_MB_JSON_DEPTH - depth):
            marks = marks.replace(b"[]", b"")
        if marks:
            self._exactly(start, path, depth)

    def _items(self, path: str) -> Iterator[str]:
        """Enter an array: gives the path of each item, and stands before its value, which is then to be taken."""
        self._take("[", path)
        if self._peek() == "]":
            self._at += 1
            return
        number = 0
        while True:
            yield f"{path}[{number}]"
            if self._take(",]", path) == "]":
                return
            number += 1

    def _read_records(self) -> Iterator[MbRecord]:
        usual = "]}" if self.header.single else _MB_JSON_BOM * self.header.bom + "[]"
        self._source.peek(1)  # raises ValueError if the file has been closed
        try:
            if self.header.single:
                yield from self._read_series("series[0]")
            else:
                for path in self._items("series"):
                    yield from self._read_series(path)
                    usual = "]}]"
            if self._peek():
                fault = self._fault("bytes after the text", self._offset(self._at), "")
                raise self._source.error or fault
            if self._valid is not None:
                raise self._fault("not UTF-8", self._valid, "")
            end = self._text[self._done :]
            self.end = None if end == usual else end
            self._end(b"")
        except FormatError as error:
            self.end = ""
            self._end(self._data[self._offset(self._done) :], error)

    def _read_series(self, path: str) -> Iterator[MbRecord]:
        """A series and its points."""
        self._peek()
        begin = self._at
        offset = self._offset(begin)
        members = self._members_before_data(path)
        place = self._at
        points, later = self._look_ahead(path)
        members.update(later)
        self._at = place
        self._begin = begin
        series = self._series(members, points, path)
        text = self._text[self._done : place + 1]
        before = _MB_JSON_BOM * self.header.bom + "[" * (not self.header.single) if not self._done else "]},"
        if not _mb_json_is_usual(text, before + _mb_json_series(series)):
            series = series._replace(raw=text.encode())
        self._done = place + 1
        yield series
        yield from self._read_points(f"{path}.data")
        for key, start in self._members(path, first=False):
            self._member(path, key, start)
            if key == "data":
                self._problem("a second data", f"{path}.data")
        if type(members.get("name")) is not str:
            self._stumble("a series without a name", offset, f"{path}.name")
        if self._late is not None:
            raise self._late

    def _read_points(self, path: str) -> Iterator[Point]:
        """The array of points that begins here."""
        # Points as a writer makes them, without meta, are read by _usual_points, everything else by _read_point.
        self._take("[", path)
        if self._peek() == "]":
            self._at += 1
            return
        number = 0
        while True:
            point = self._read_point(f"{path}[{number}]", "," if number else "")
            yield point
            number += 1
            if not point.raw:
                number += yield from self._usual_points()
            if self._take(",]", path) == "]":
                return

    def _read_point(self, path: str, comma: str) -> Point:
        self._peek()
        self._begin = self._at
        value = self._point_value(path)
        if "meta" in value:
            for rule, where in _mb_json_faults(value, path):
                self._stumble(rule, self._offset(self._begin), where)
        point = self._point(value, path)
        text = self._text[self._done : self._at]
        try:
            usual = _mb_json_is_usual(text, comma + _mb_json_point(point))
        except FormatError:
            usual = False  # a run stream that cannot be decoded
        self._done = self._at
        return point if usual else point._replace(raw=text.encode())

    def _usual_points(self) -> Generator[Point, None, int]:
        """The points from the next comma on that are just as a writer makes them; returns how many they were."""
        text, scan, new = self._text, self._quick, tuple.__new__
        at = self._at
        number = 0
        try:
            while text.startswith(',{"timestamp":', at):
                piece = text[at : text.find("}", at, at + _MB_JSON_PLAIN) + 1]
                value, _ = scan(piece, 1)
                time, size, name = float(value["timestamp"]), float(value["value"]), value.get("name")
                made = f',{{"timestamp":{_js_number(time)},"value":{_js_number(size)}'
                id = b""
                if "pointId" in value:
                    id = bytes.fromhex(value["pointId"].replace("-", ""))
                    made += f',"pointId":"{_mb_uuid(id)}"'
                if name is not None:
                    made += f',"name":{_js_quote(name)}'
                if piece != made + "}" or name == "" or (id and not _mb_is_uuid(id)):
                    break
                at += len(piece)
                self._done = self._at = at
                number += 1
                yield new(Point, (time, size, name, id, False, None, None, b""))
        except (StopIteration, LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            pass  # _read_point tells what it is
        return number

    def _members(self, path: str, *, first: bool) -> Iterator[Tuple[str, int]]:
        """The keys of an object from the first or the next one on, and where they stand; the value is to be taken."""
        comma = "" if first and self._peek() != "}" else self._take(",}", path)
        while comma != "}":
            self._take('"', path)
            self._at -= 1
            start = self._at
            key = self._value(path)
            self._take(":", path)
            self._peek()
            yield key, start
            comma = self._take(",}", path)

    def _member(self, path: str, key: str, start: int, *, quiet: bool = False) -> Any:
        """The value of a series' key."""
        inner = f"{path}.{key}" if key in _MB_JSON_NAMES else path
        place = self._at
        value = self._value(inner, 1)
        self._check_depth(place, inner, 1)
        self._begin = start
        if key not in _MB_JSON_KEYS["series"] and not quiet:
            self._problem("unknown key", path)
        return value

    def _members_before_data(self, path: str) -> Dict[str, Any]:
        begin = self._at
        if self._peek() != "{":
            self._value(path)
            raise self._fault("a series is no object", self._offset(begin), path)
        self._at += 1
        members: Dict[str, Any] = {}
        for key, start in self._members(path, first=True):
            array = self._text[self._at : self._at + 1] == "["
            if self.header.single and array and key in ("series", "points"):
                raise self._fault("JSON of the program before 2.0", self._offset(start), path)
            if key == "data" and array:
                return members
            members[key] = self._member(path, key, start)
            if key == "data":
                raise self._fault("a series without an array data", self._offset(start), path)
        raise self._fault("a series without an array data", self._offset(begin), path)

    def _look_ahead(self, path: str) -> Tuple[int, Dict[str, Any]]:
        """Of the series whose data begins here: the number of points and what stands behind them, up to a fault."""
        points = 0
        later: Dict[str, Any] = {}
        try:
            for inner in self._items(f"{path}.data"):
                self._peek()
                self._point_value(inner)
                points += 1 + self._pass_points()
            for key, start in self._members(path, first=False):
                later[key] = self._member(path, key, start, quiet=True)
        except FormatError:
            pass  # which is met again
        return points, later

    def _pass_points(self) -> int:
        """Step over plain points from the next comma on; returns how many they were."""
        text, scan = self._text, self._pass
        at = self._at
        points = 0
        try:
            while text.startswith(",{", at):
                piece = text[at : text.find("}", at, at + _MB_JSON_PLAIN) + 1]
                if scan(piece, 1)[0] == _MB_JSON_OLD_KEYS or piece.count("[") >= _MB_JSON_DEPTH:
                    break  # one level is the point itself
                at += len(piece)
                self._at = at
                points += 1
        except (StopIteration, ValueError, RecursionError):
            pass  # it goes on behind the brace, or is at fault
        return points

    def _point_value(self, path: str) -> Dict[str, Any]:
        """The object of a point."""
        start = self._at
        value = self._value(path)
        self._check_depth(start, path, 0)
        if type(value) is not dict:
            rule = "JSON of the program before 2.0" if type(value) is list else "a point is no object"
            raise self._fault(rule, self._offset(start), path)
        if _MB_JSON_POINT_KEYS.intersection(value) == _MB_JSON_OLD_KEYS:
            raise self._fault("JSON of the program before 2.0", self._offset(start), path)
        return value

    def _stumble(self, rule: str, offset: int, path: str) -> None:
        """A fault of a value, which is told now when recovering, else raised when the series has been read."""
        fault = self._fault(rule, offset, path)
        if self._problems.recover:
            self._problems.step_over(fault)
        else:
            self._late = self._late or fault

    def _problem(self, rule: str, path: str, detail: str = "") -> None:
        """Count a deviation or note in the record that is being read."""
        self._problems.add(rule, self._offset(self._begin), path, detail)

    def _series(self, members: Dict[str, Any], points: int, path: str) -> Series:
        visible = members.get("visible")
        if type(visible) is not bool and "visible" in members:
            self._problem("not of its type", f"{path}.visible")
        color = self._text_of(members, "color", path) or "#000000"
        name = self._text_of(members, "name", path) or ""
        return Series(self._uuid(members, "id", path) or _MB_NO_ID, name, color, _js_true(visible), points)

    def _text_of(self, members: Dict[str, Any], key: str, path: str) -> Optional[str]:
        """Text, or what the application stores as text; None for nothing."""
        value = members.get(key)
        if type(value) is str:
            return value or None
        if value is None:
            return None
        self._problem("not of its type", f"{path}.{key}")
        if type(value) is float and value:
            return _js_number(value).replace("null", "-Infinity" if value < 0 else "Infinity")
        return "true" if value is True else None

    def _uuid(self, members: Dict[str, Any], key: str, path: str) -> bytes:
        value = members.get(key)
        if value is None or value == "":
            return b""
        id = _mb_id(value) if type(value) is str else None
        if id is None:
            self._problem("not a UUID", f"{path}.{key}")
        return id or _MB_NO_ID

    def _point(self, value: Dict[str, Any], path: str) -> Point:
        """The record of a point."""
        time = value.get("timestamp")
        if type(time) is not float:
            time = self._time(value, path)
        size = value.get("value")
        if type(size) is not float:
            size = self._number(value, "value", path)
        name = value.get("name")
        if name is not None:
            name = self._text_of(value, "name", path)
        self._known(value, "data", path)
        point_id = self._uuid(value, "pointId", path)
        meta = value.get("meta")
        if not _js_true(meta):
            if "meta" in value and meta is not None:
                self._problem("not of its type", f"{path}.meta")
            return Point(time, size, name, point_id)
        event: Optional[str] = None
        types: Optional[Tuple[PageType, ...]] = None
        path += ".meta"
        if type(meta) is not dict:
            self._problem("not of its type", path)
        else:
            event = self._text_of(meta, "event", path)
            self._known(meta, "meta", path)
            memory = meta.get("memory")
            if type(memory) is dict:
                self._known(memory, "memory", f"{path}.memory")
                found = memory.get("pageTypes")
                types = self._types(found, f"{path}.memory.pageTypes") if type(found) is list else ()
            elif _js_true(memory):
                self._problem("not of its type", f"{path}.memory")
                types = ()
        return Point(time, size, name, point_id, True, event, types)

    def _known(self, value: Dict[str, Any], kind: str, path: str) -> None:
        if not value.keys() <= _MB_JSON_KEYS[kind]:
            self._problem("unknown key", path)

    def _time(self, value: Dict[str, Any], path: str) -> float:
        """A time that is no number, in microseconds."""
        text = value.get("timestamp")
        if self._like_upstream or type(text) is not str:
            return self._number(value, "timestamp", path)
        time = _mb_iso_us(text)
        if time is not None:
            self._problem("a time as text", f"{path}.timestamp")
            return float(time)
        self._problem("not a time", f"{path}.timestamp")
        return _js_to_number(text) if text else _NAN

    def _number(self, value: Dict[str, Any], key: str, path: str) -> float:
        """A number that is none."""
        if key not in value or value[key] is not None:
            self._problem("not of its type", f"{path}.{key}")
            return _js_to_number(value[key]) if key in value else _NAN
        self._problem("null for a number", f"{path}.{key}")
        return 0.0 if self._like_upstream else _NAN

    def _size(self, value: Dict[str, Any], key: str, path: str) -> float:
        """A size in bytes, with the fraction that only run streams know of; 0 for none."""
        size = value.get(key)
        good = type(size) is float and 0 <= size < _MB_JSON_EXACT
        if size is not None and not (good and size.is_integer()):
            self._problem("not a size", f"{path}.{key}")
        return cast("float", size) if good else 0.0

    def _types(self, found: List[Any], path: str) -> Tuple[PageType, ...]:
        types = []
        for place, one in enumerate(found):
            if type(one) is not dict:
                types.append(PageType())  # a fault that has been stepped over
                continue
            where = f"{path}[{place}]"
            self._known(one, "pageTypes", where)
            uniform = self._size(one, "uniformPageSize", where)
            pages = one.get("pages")
            if type(pages) is not list:
                pages = []
            made = [self._page(page, uniform, f"{where}.pages[{number}]") for number, page in enumerate(pages)]
            types.append(PageType(self._text_of(one, "name", where) or "", int(uniform), tuple(made)))
        return tuple(types)

    def _page(self, page: Any, uniform: float, path: str) -> Page:
        """A page with the run stream that the application writes for it (mb 2)."""
        if type(page) is not dict:
            page = {}  # a fault that has been stepped over
        self._known(page, "pages", path)
        own = self._size(page, "size", path)
        if uniform and own and own != uniform:
            self._problem("size is not uniformPageSize", f"{path}.size")
        size = own or uniform
        occupancy = page.get("occupancy")
        if occupancy is None:
            occupancy = 0.0 if "occupancy" in page else None
        elif type(occupancy) is not float:
            self._problem("not of its type", f"{path}.occupancy")
            occupancy = None
        return Page(int(uniform) or int(own), occupancy, self._stream(page, size, occupancy, path))

    def _stream(self, page: Dict[str, Any], size: float, occupancy: Optional[float], path: str) -> bytes:
        bitmap = page.get("bitmap")
        if bitmap and type(bitmap) is str:
            stream = _mb_hex(bitmap)
            if stream.hex() != bitmap.lower():
                self._problem("not hexadecimal", f"{path}.bitmap")
            if stream[-1:] >= b"\x80" and not self._like_upstream:
                self._problem("the last number of the bitmap is left out", f"{path}.bitmap")
                stream = _mb_json_whole(stream)
            return stream
        found = page.get("freeList")
        ranges = found if type(found) is list else None
        quick = _mb_quick_runs(size, ranges) if ranges else ()
        if quick:
            return _mb_write_runs(quick)
        if ranges and not all(type(one) is list and [*map(type, one)] == [float, float] for one in ranges):
            self._problem("not a range", f"{path}.freeList")
        try:
            return mb_run_stream(size, free_ranges=ranges, occupancy=occupancy, like_upstream=self._like_upstream)
        except (ValueError, TypeError):
            self._problem("a run that the application does not write as itself", path)
            return mb_run_stream(size, free_ranges=ranges, occupancy=occupancy, like_upstream=True)


def _mb_json_is_usual(text: str, made: str) -> bool:
    """Whether a text is as a writer makes it, in which lone surrogates are escaped."""
    return text == made or ("\\ud" in text and text.encode() == made.encode("utf-8", "backslashreplace"))


# ---- mb-json: Writer


class MbJsonWriter(Writer[MbJsonHeader, MbRecord]):
    """Writes the application's JSON, as its export does for what was read from .mb (mb 3.1), without ids made up.

    ``write`` takes each ``Series`` and then its ``Point`` records.  ``bitmap`` writes run streams in hexadecimal
    instead of lists of free ranges, ``single`` one series without the array around it, ``bom`` a byte order mark first.
    Numbers that JSON lacks become null, as in JavaScript.
    """

    format = "mb-json"

    def __init__(self, file: WritableFile, *, bitmap: bool = False, bom: bool = False, single: bool = False) -> None:
        self._header = MbJsonHeader(bom, single)
        self._bitmap = bitmap
        self._inside = False
        self._comma = ""  # before the next point
        self._look: Optional[Callable[[Page, Sequence[int]], None]] = None  # is shown each page and its runs
        super().__init__(file)

    def write_all(self, records: Iterable[MbRecord]) -> None:
        """Write records in order; much quicker than one by one."""
        if self._closed:
            raise ValueError("the writer is closed")
        pieces: List[str] = []
        size = 0
        try:
            for record in records:
                piece = self._piece(record)
                pieces.append(piece)
                size += len(piece)
                if size > _CHUNK:
                    self._put(pieces)
                    size = 0
        finally:
            self._put(pieces)

    def _put(self, pieces: List[str]) -> None:
        # A lone surrogate stands inside a string, where its escape is what JavaScript writes.
        self._sink.write("".join(pieces).encode("utf-8", "backslashreplace"))
        pieces.clear()

    def _piece(self, record: MbRecord) -> str:
        """The text of a record."""
        if type(record) is Point:
            if not self._inside:
                raise ValueError("a point stands after its series")
            try:
                piece = _raw_bytes(record).decode()
                piece = piece or self._comma + _mb_json_point(record, self._look, bitmap=self._bitmap)
            except (AttributeError, OverflowError) as error:
                raise ValueError(f"not a record of mb: {error}: {record!r}") from None
            self._comma = ","
            return piece
        if type(record) is not Series:
            raise TypeError(f"not a record of mb: {record!r}")
        if self._header.single and self._inside:
            raise ValueError("a single series has been written")
        piece = _raw_bytes(record).decode() or ("]}," if self._inside else self._start()) + _mb_json_series(record)
        self._begun = self._inside = True
        self._comma = ""
        return piece

    def _start(self) -> str:
        return _MB_JSON_BOM * self._header.bom + "[" * (not self._header.single)

    def _begin(self, header: MbJsonHeader, tables: Mapping[str, Any]) -> None:
        """Start with the header of a document; the table is ``end``, the text after the last record."""
        super()._begin(header, tables)
        self._header = header

    def _end(self, tables: Mapping[str, Any], tail: bytes) -> None:
        end = tables.get("end")
        self._put([self._usual_end() if end is None else end])
        self._sink.write(tail)

    def _usual_end(self) -> str:
        if self._inside:
            return "]}" if self._header.single else "]}]"
        if self._header.single:
            raise ValueError("no series has been written")
        return self._start() + "]"

    def _finish(self) -> None:
        if not self._document:
            self._put([self._usual_end()])


_js_quote: Callable[[str], str] = json.encoder.encode_basestring  # escapes what JSON.stringify does


def _js_number(value: float) -> str:
    """A number as JavaScript writes it (mb 3.1).

    >>> _js_number(1e20), _js_number(1e21), _js_number(0.000001), _js_number(1e-7), _js_number(-0.0)
    ('100000000000000000000', '1e+21', '0.000001', '1e-7', '0')
    """
    if -_MB_JSON_EXACT < value < _MB_JSON_EXACT:
        whole = int(value)
        if whole == value:
            return str(whole)
    elif not -_INFINITY < value < _INFINITY:
        return "null"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    before, _, after = mantissa.partition(".")
    digits = (before + after).lstrip("0")
    point = len(before) + int(exponent or 0) - (len(before + after) - len(digits))
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        text = digits.ljust(point, "0")
        return sign + text[:point] + ("." + text[point:] if len(text) > point else "")
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[0]}{'.' * (len(digits) > 1)}{digits[1:]}e{point - 1:+d}"


def _js_json(value: Any) -> str:
    """A value as ``JSON.stringify`` writes it; keys that are numbers come first, in order."""
    if type(value) is str:
        return _js_quote(value)
    if type(value) is float:
        return _js_number(value)
    if type(value) is list:
        return f"[{','.join([_js_json(item) for item in value])}]"
    if type(value) is dict:
        numbers = sorted([key for key in value if _js_is_place(key)], key=int)
        keys = numbers + [key for key in value if not _js_is_place(key)] if numbers else value
        return f"{{{','.join([_js_quote(key) + ':' + _js_json(value[key]) for key in keys])}}}"
    return {True: "true", False: "false", None: "null"}[value]


def _js_true(value: Any) -> bool:
    """Whether JavaScript takes a value for true."""
    return bool(value) or isinstance(value, (dict, list))


def _js_well_formed(text: str) -> str:
    """Text, in which lone surrogates become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _js_is_place(key: str) -> bool:
    number = _decimal(key)
    return number is not None and number < (1 << 32) - 1


def _js_to_number(value: Any) -> float:
    """What JavaScript's ``Number`` makes of a value of JSON (mb 3.3).

    >>> _js_to_number(" 12 "), _js_to_number(""), _js_to_number(True), _js_to_number("1_0"), _js_to_number("0x10")
    (12.0, 0.0, 1.0, nan, 16.0)
    """
    while type(value) is list and len(value) == 1 and type(value[0]) is not bool:
        value = value[0]  # a list is taken by way of its text
    if type(value) is not str:
        return float(value) if type(value) in (float, bool) else 0.0 if value in (None, []) else _NAN
    text = value.strip(_JS_BLANKS)
    if text in ("", "Infinity", "+Infinity", "-Infinity"):
        return float(text or 0)
    base = {"0x": 16, "0o": 8, "0b": 2}.get(text[:2].lower())
    try:
        if base is not None:
            return float(int(text[2:], base)) if text[2:].isalnum() and text.isascii() else _NAN
        return float(text) if all(character in "+-.0123456789Ee" for character in text) else _NAN
    except OverflowError:
        return _INFINITY
    except ValueError:
        return _NAN


def _mb_json_series(series: Series) -> str:
    """A series up to its first point."""
    visible = "true" if series.visible else "false"
    return (
        f'{{"id":"{_mb_uuid(series.id)}","name":{_js_quote(series.name)},"visible":{visible}'
        f',"color":{_js_quote(series.color)},"data":['
    )


def _mb_json_point(
    point: Point, look: Optional[Callable[[Page, Sequence[int]], None]] = None, *, bitmap: bool = False
) -> str:
    time, value, name, point_id, has_meta, event, types, _ = point
    text = f'{{"timestamp":{_js_number(time)},"value":{_js_number(value)}'
    if point_id:
        text += f',"pointId":"{_mb_uuid(point_id)}"'
    if name is not None:
        text += f',"name":{_js_quote(name)}'
    if has_meta or event is not None or types is not None:
        members = [] if event is None else [f'"event":{_js_quote(event)}']
        if types is not None:
            members.append(
                f'"memory":{{"pageTypes":[{",".join([_mb_json_type(one, look, bitmap=bitmap) for one in types])}]}}'
            )
        text += f',"meta":{{{",".join(members)}}}'
    return text + "}"


def _mb_json_type(one: PageType, look: Optional[Callable[[Page, Sequence[int]], None]] = None, *, bitmap: bool) -> str:
    pages = []
    for page in one.pages:
        size, occupancy, stream, borrowed = page
        text = f'{{"size":{size if size < 1 << 53 else _js_number(float(size))}'
        if bitmap:
            text += f',"bitmap":"{stream.hex()}"'
        else:
            whole = stream + borrowed
            runs = whole if whole.isascii() else _mb_runs(whole)
            if look is not None:
                look(page, runs)
            text += f',"freeList":{_mb_json_ranges(runs)}'
        pages.append(text + "}" if occupancy is None else f'{text},"occupancy":{_js_number(occupancy)}}}')
    uniform = f',"uniformPageSize":{_js_number(float(one.uniform_page_size))}' if one.uniform_page_size else ""
    return f'{{"name":{_js_quote(one.name)},"pages":[{",".join(pages)}]{uniform}}}'


def _mb_json_ranges(runs: Sequence[int]) -> str:
    """The free ranges of runs, as JSON; one ``%`` for all is twice as quick as one for each."""
    half = len(runs) // 2
    if not half:
        return "[]"
    at = 0
    bounds = [(at := at + run * _MB_UNIT) for run in runs[: 2 * half]]
    if at < 1 << 53:
        return f"[{('[%d,%d],' * half % tuple(bounds))[:-1]}]"
    exact = 0.0  # here the application's sums round
    texts = [_js_number(exact := exact + float(run) * _MB_UNIT) for run in runs[: 2 * half]]
    return f"[{','.join([f'[{start},{end}]' for start, end in zip(texts[::2], texts[1::2])])}]"


# ---- mb: semantics


class MbTypeStats(NamedTuple):
    """Totals of a type of pages (mb 6.1): ``survival_rate`` is the used share, 0 of no bytes."""

    name: str
    page_count: int
    survival_rate: float
    total_size: float = 0.0
    total_used_size: float = 0.0


class MbConclusion(NamedTuple):
    """Totals of a snapshot, as the application computes them (mb 6.1), in bytes; an empty page is one of rate 0."""

    total_page_count: int
    total_size: float
    total_used_size: float
    overall_survival_rate: float
    empty_page_count: int
    total_empty_size: float
    type_stats: Tuple[MbTypeStats, ...]


# A page for its totals: size, whether there is an occupancy, which, and the free bytes; None if nothing tells them.
_MbPageFacts = Tuple[float, bool, Optional[float], Optional[float]]


def _mb_totals(types: Iterable[Tuple[str, Iterable[_MbPageFacts]]]) -> MbConclusion:
    """The sums in the application's order, so that they round as its own do."""
    pages = empty = 0
    total = used_total = empty_size = 0.0
    stats = []
    for name, facts in types:
        count = 0
        type_size = type_used = 0.0
        for size, given, share, free in facts:
            if given:
                used, rate = size * (share or 0.0), share
            else:
                used = 0.0 if free is None else max(0.0, size - free)
                rate = used / size if size else 0.0
            if rate == 0:
                empty += 1
                empty_size += size
            count += 1
            type_size += size
            type_used += used
            total += size
            used_total += used
        pages += count
        stats.append(MbTypeStats(name, count, type_used / type_size if type_size else 0.0, type_size, type_used))
    return MbConclusion(pages, total, used_total, used_total / total if total else 0.0, empty, empty_size, tuple(stats))


def mb_conclusion(point: Point) -> Optional[MbConclusion]:
    """The totals of a snapshot; None of a point without one.  Raises FormatError where ``Page.runs`` does.

    Of a point from JSON these are the totals of what .mb would hold; ``mb_json_conclusion`` gives those of the JSON.
    """
    if point.page_types is None:
        return None
    return _mb_totals((one.name, map(_mb_page_facts, one.pages)) for one in point.page_types)


def _mb_page_facts(page: Page) -> _MbPageFacts:
    size, share, stream, borrowed = page
    return float(size), share is not None, share, _mb_free(stream + borrowed) if share is None else None


def _mb_free(stream: bytes) -> float:
    """The free bytes that a run stream tells."""
    runs = stream if stream.isascii() else _mb_runs(stream)
    return float(sum(runs[1::2]) * _MB_UNIT)


def mb_json_conclusion(point: Point) -> Optional[MbConclusion]:
    """The totals of a snapshot that was read from JSON, which also has free ranges in single bytes (mb 6.1)."""
    if not point.raw:
        return mb_conclusion(point)
    memory = _mb_json_memory(_mb_json_object(point))
    return None if memory is None else _mb_json_totals(memory)


def _mb_json_object(point: Point) -> Dict[str, Any]:
    """A point that was read from JSON, as its text has it."""
    text = point.raw.decode() if point.raw else _mb_json_point(point)
    return cast("Dict[str, Any]", json.loads(text[text.index("{") :], parse_int=float))


def _mb_json_memory(value: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    meta = value.get("meta")
    memory = meta.get("memory") if isinstance(meta, dict) else None
    return memory if isinstance(memory, dict) and isinstance(memory.get("pageTypes"), list) else None


def _mb_json_totals(memory: Dict[str, Any]) -> MbConclusion:
    def facts(page: Any, uniform: float) -> _MbPageFacts:
        page = page if isinstance(page, dict) else {}
        size = uniform or _js_to_number(page.get("size") or 0.0)
        if "occupancy" in page:
            share = page["occupancy"]
            return size, True, None if share is None else _js_to_number(share), None
        ranges, bitmap = page.get("freeList"), page.get("bitmap")
        if isinstance(ranges, list):
            return size, False, None, _mb_json_free(ranges)
        if isinstance(bitmap, str) and bitmap:
            return size, False, None, _mb_free(_mb_json_whole(_mb_hex(bitmap)))
        return size, False, None, None

    def types() -> Iterator[Tuple[str, Iterable[_MbPageFacts]]]:
        for one in memory["pageTypes"]:
            one = one if isinstance(one, dict) else {}
            pages = one.get("pages")
            uniform = _js_to_number(one.get("uniformPageSize") or 0.0)
            name = one.get("name")
            found = [facts(page, uniform) for page in pages] if isinstance(pages, list) else []
            yield name if isinstance(name, str) else "", found

    return _mb_totals(types())


def _mb_json_free(ranges: Sequence[Any]) -> float:
    free = 0.0
    for one in ranges:
        if isinstance(one, list) and len(one) > 1:
            free += _js_to_number(one[1]) - _js_to_number(one[0])
    return free


def _mb_json_whole(stream: bytes) -> bytes:
    """A run stream without a last number that has no end."""
    while stream[-1:] >= b"\x80":
        stream = stream[:-1]
    return stream


def mb_color(name: str) -> str:
    """The colour that the application gives a series of that name (mb 6.2).

    >>> mb_color("Main Process"), mb_color("")
    ('#42cad7', '#d74242')
    """
    number = 0
    for (unit,) in _U16.iter_unpack(name.encode("utf-16-le", "surrogatepass")):
        number = number * 31 + unit & 0xFFFFFFFF
    number = min(number, (1 << 32) - number)
    hue = int(number * 0.618033988749895 % 1 * 360)
    a = 0.65 * 0.45
    channels = []
    for n in (0, 8, 4):
        k = (n + hue / 30) % 12
        channels.append(int(255 * (0.55 - a * max(min(k - 3, 9 - k, 1), -1)) + 0.5))
    return "#" + bytes(channels).hex()


class MbSnapshot(NamedTuple):
    """A point that holds a snapshot of memory: which series and point it is, from 0 on, and its totals."""

    series_number: int
    point_number: int
    timestamp: float
    name: str
    event: str
    conclusion: MbConclusion


class MbSeriesUse(NamedTuple):
    """What the points of a series add up to: times in microseconds since 1970, values in bytes.

    A point whose time or value is no finite number counts for nothing but ``points``; of none there are Nones.
    First and last are those by time, in whatever order the points stand.  ``values`` are the largest ones in at most
    64 spans of ``bucket_us`` from the first time, or a little before it, on.
    """

    name: str
    id: str
    color: str
    visible: bool
    points: int
    first_us: Optional[float]
    last_us: Optional[float]
    first: Optional[float]
    last: Optional[float]
    least: Optional[float]
    most: Optional[float]
    peak_us: Optional[float]
    names: int
    events: int
    bucket_us: int
    values: Tuple[int, ...]


class MbAnalysis(NamedTuple):
    """What a file adds up to: its series, and its snapshots in file order."""

    series: Tuple[MbSeriesUse, ...]
    snapshots: Tuple[MbSnapshot, ...]


class _MbSeriesSums:
    """Adds up the points of a series."""

    def __init__(self, series: Series) -> None:
        self.series = series
        self.points = self.names = self.events = 0
        self._good: List[Tuple[float, float]] = []  # earliest, latest, least and greatest
        self._buckets: Optional[_Buckets] = None

    def add(self, point: Point) -> None:
        time, value, name, _, _, event, *_ = point
        self.points += 1
        self.names += name is not None
        self.events += event is not None
        if not (-_INFINITY < time < _INFINITY and -_INFINITY < value < _INFINITY):
            return
        now = (time, value)
        buckets = self._buckets
        if buckets is None:
            buckets = self._buckets = _Buckets(int(time))
            buckets.values = [int(value)]
            self._good = [now] * 4
        good = self._good
        if time < good[0][0]:
            good[0] = now
            buckets.widen(int(time), int(value))
        if time >= good[1][0]:
            good[1] = now
        if value < good[2][1]:
            good[2] = now
        if value > good[3][1]:
            good[3] = now
        index = buckets._reach(int(time), buckets.values[-1])
        buckets.values[index] = max(buckets.values[index], int(value))

    def use(self) -> MbSeriesUse:
        none: List[Tuple[Optional[float], Optional[float]]] = [(None, None)] * 4
        first, last, least, most = self._good or none
        series, buckets = self.series, self._buckets
        width, values = (buckets.width, tuple(buckets.values)) if buckets is not None else (0, ())
        figures = (first[0], last[0], first[1], last[1], least[1], most[1], most[0])
        head = (series.name, series.uuid, series.color, series.visible, self.points)
        return MbSeriesUse(*head, *figures, self.names, self.events, width, values)


def mb_analysis(reader: Union[MbReader, MbJsonReader]) -> MbAnalysis:
    """Read all and add it up; keeps the totals of each snapshot."""
    conclude = mb_json_conclusion if reader.format == "mb-json" else mb_conclusion
    sums: List[_MbSeriesSums] = []
    snapshots = []
    for record in reader:
        if type(record) is Series:
            sums.append(_MbSeriesSums(record))
            continue
        point = cast("Point", record)
        sums[-1].add(point)
        conclusion = conclude(point) if point.page_types is not None else None
        if conclusion is not None:
            place = (len(sums) - 1, sums[-1].points - 1, point.timestamp)
            snapshots.append(MbSnapshot(*place, point.name or "", point.event or "", conclusion))
    return MbAnalysis(tuple([one.use() for one in sums]), tuple(snapshots))


class MbTypeChange(NamedTuple):
    """A type of pages in two snapshots, whose pages are held against each other in order.

    ``grown`` and ``shrunk`` are pages that use more bytes or fewer than the one in the same place, ``added`` and
    ``removed`` those that have none there.
    """

    name: str
    pages: Tuple[int, int]
    used: Tuple[float, float]
    grown: int
    shrunk: int
    added: int
    removed: int


def mb_compare(first: Point, second: Point) -> Tuple[MbTypeChange, ...]:
    """What changed from one snapshot to another, by type; types of one name are taken as one."""

    def used_by_type(point: Point) -> Dict[str, List[float]]:
        found: Dict[str, List[float]] = {}
        for one in point.page_types or ():
            pages = found.setdefault(one.name, [])
            pages += [_mb_totals([("", [_mb_page_facts(page)])]).total_used_size for page in one.pages]
        return found

    left, right = used_by_type(first), used_by_type(second)
    changes = []
    for name in [*left, *[name for name in right if name not in left]]:
        old, new = left.get(name, []), right.get(name, [])
        pairs = [*zip(old, new)]
        changes.append(
            MbTypeChange(
                name,
                (len(old), len(new)),
                (sum(old), sum(new)),
                sum([b > a for a, b in pairs]),
                sum([b < a for a, b in pairs]),
                max(len(new) - len(old), 0),
                max(len(old) - len(new), 0),
            )
        )
    return tuple(changes)


# ==== 5.5 memscope: allocations of memscope-rs ========================================================
#
# A header, since 2c a block of strings, which real files leave empty, one record an allocation, and in some files a
# section of metrics, ADVD, which repeats what the records say.  All is little-endian, without padding.  The version
# does not tell the layout: there are ten, 1a to 3c, which grew field by field, and T, a list in JSON (erratum 3).
# Format text: "memscope".  There are no statistics in any file (erratum 2).

MEMSCOPE_MAGIC = b"MEMSCOPE"
MEMSCOPE_LAYOUTS = ("1a", "1b", "1c", "2a", "2b", "2c", "2d", "3a", "3b", "3c", "T")
_MEMSCOPE_START = (Field("magic", "8s"), Field("version", "I"), Field("total_count", "I", "records"))
_MEMSCOPE_MODE = (
    Field("export_mode", "B", "0 user-only, 1 full"),
    Field("user_count", "H", "records with a name, modulo 65536"),
    Field("system_count", "H", "the others, modulo 65536"),
)
MEMSCOPE_HEADER = Layout("header of 16 bytes", *_MEMSCOPE_START)
MEMSCOPE_HEADER_24 = Layout(
    "header of 24 bytes", *_MEMSCOPE_START, *_MEMSCOPE_MODE, Field("reserved", "B"), Field("padding", "H")
)
MEMSCOPE_HEADER_32 = Layout(  # erratum 14
    "header of 32 bytes",
    *_MEMSCOPE_START,
    *_MEMSCOPE_MODE,
    Field("features", "B", "bits: call stacks 1, FFI 2, safety 4, passports 8, lifetimes 16"),
    Field("unsafe_report_count", "H", "the low 16 bits"),
    Field("passport_count", "I"),
    Field("reserved", "H"),
    Field("padding", "H", "never read"),
)
MEMSCOPE_STRINGS = Layout("string block", Field("marker", "4s"), Field("size", "I", "bytes"))
MEMSCOPE_METRICS = Layout(
    "metrics",
    Field("marker", "4s"),
    Field("segment_size", "I", "bytes, with this head"),
    Field("metrics_bitmap", "I"),
    Field("reserved", "I"),
)
_MEMSCOPE_REFERENCE = 0xFFFF  # of a text's length, since 2c: a number in the string block follows (erratum 4)
_MEMSCOPE_NULL = 0xFFFFFFFE  # the same: there is no text
MEMSCOPE_SLOTS = (
    "generic_info",
    "dynamic_type_info",
    "runtime_state",
    "stack_allocation",
    "temporary_object",
    "fragmentation_analysis",
    "generic_instantiation",
    "type_relationships",
    "type_usage",
    "function_call_tracking",
    "lifecycle_tracking",
    "access_tracking",
)
# What a record holds, in order, and the layout that brought it (memscope 6).  Of the types, "?" is a flag and, if it
# is 1, the value; "*" a number and as many values; text is "ostr" where it may be null, "pstr" where it is never a
# reference, and likewise "json" and "plain_json"; of a "bool" all but 0 is true, of a "flag" only 1; the others are
# numbers, choices and structures.
_MEMSCOPE_RECORD: Tuple[Tuple[str, str, str], ...] = (
    ("ptr", "u64", "1a"),
    ("size", "u64", "1a"),
    ("timestamp_alloc", "u64", "1a"),
    ("timestamp_dealloc", "?u64", "1b"),
    ("var_name", "ostr", "1a"),
    ("type_name", "ostr", "1a"),
    ("scope_name", "ostr", "1b"),
    ("thread_id", "sstr", "1a"),
    ("stack_trace", "*sstr", "1c"),
    ("borrow_count", "u32", "1b"),
    ("is_leaked", "bool", "1b"),
    ("lifetime_ms", "?u64", "1b"),
    ("borrow_info", "?borrow_info", "3b"),
    ("clone_info", "?clone_info", "3b"),
    ("ownership_history_available", "bool", "3b"),
    ("smart_pointer_info", "?smart_pointer_info", "1c"),
    ("memory_layout", "?memory_layout", "1c"),
    *[(name, "?json", "1c") for name in MEMSCOPE_SLOTS],
)
_MEMSCOPE_JSON_ONLY = ("1c", "2a", "T")  # the layouts in which a smart pointer and a memory layout are JSON
# The choices: a byte, the place in the list, and what follows it.
_MEMSCOPE_CHOICES: Mapping[str, Mapping[str, Tuple[Tuple[str, str], ...]]] = {
    "pointer_type": dict.fromkeys(("Rc", "Arc", "RcWeak", "ArcWeak", "Box"), ()),
    "reason": {"FieldAlignment": (), "StructAlignment": (), "EnumDiscriminant": (), "Other": (("text", "pstr"),)},
    "potential": {
        "None": (),
        "Minor": (("potential_savings", "u64"),),
        **dict.fromkeys(("Moderate", "Major"), (("potential_savings", "u64"), ("suggestions", "*pstr"))),
    },
}
_MEMSCOPE_MARKERS = (b"NONE", b"STBL")
_MEMSCOPE_NO_STRINGS = b"NONE" + bytes(4)
_MEMSCOPE_NUMBERS = {"u32": "I", "u64": "Q", "f64": "d"}
_MEMSCOPE_FORMS = {type: struct.Struct("<" + code) for type, code in _MEMSCOPE_NUMBERS.items()}
_MEMSCOPE_LEAST = {"1a": 36, "1b": 47, "3b": 68, "3c": 68}  # bytes of a record at least, after Length; else 65
_MEMSCOPE_POINTERS, _MEMSCOPE_REASONS, _MEMSCOPE_LEVELS = map(tuple, _MEMSCOPE_CHOICES.values())
_MEMSCOPE_LISTS = ("lifecycle", "container", "type_usage")  # of the metrics, by bit of metrics_bitmap
MEMSCOPE_METRICS_BITMAPS = {"default": 0x23, "comprehensive": 0x3FB}

MEMSCOPE_RULES: Rules = {
    **_COMMON_RULES,
    "not a memscope file": ("fault", "bad-magic"),
    "no such version": ("fault", "unsupported-version"),
    "neither NONE nor STBL": ("fault", "bad-signature"),
    "an STBL of no bytes": ("fault", "bad-size"),
    "not a record: its type is not 1": ("fault", "bad-signature"),
    "no such choice": ("fault", "bad-value"),
    "no such string": ("fault", "bad-reference"),
    "not JSON": ("fault", "bad-json"),
    "not UTF-8 in JSON": ("fault", "bad-utf8"),
    "not the value of this key": ("fault", "bad-value"),
    "not UTF-8": ("deviation", "bad-utf8"),
    "Length is not that of the record": ("deviation", "bad-size"),
    "neither 0 nor 1": ("deviation", "bad-value"),
    "export_mode is neither 0 nor 1": ("deviation", "bad-value"),
    "the counts are not those of the records": ("deviation", "bad-count"),
    "size is not that of the strings": ("deviation", "bad-size"),
    "segment_size is not that of the section": ("deviation", "bad-size"),
    "bytes after the last record": ("deviation", "trailing-data"),
    "a string that stands there already": ("note", "bad-value"),
    "the other counts are modulo 65536": ("note", "bad-count"),
    "the size of NONE is not 0": ("note", "bad-size"),
    "reserved bytes are not 0": ("note", "bad-value"),
}


class MemscopeHeader(NamedTuple):
    """The header (memscope 4); a field that the layout's header lacks is None; of layout T all is 0.

    ``total_count`` is exact, ``user_count`` and ``system_count`` are modulo 65536.  Writers without a mode say that
    all records are the user's, also nameless ones.
    """

    version: int = 3
    total_count: int = 0
    export_mode: Optional[int] = None
    user_count: Optional[int] = None
    system_count: Optional[int] = None
    features: Optional[int] = None
    unsafe_report_count: Optional[int] = None
    passport_count: Optional[int] = None
    reserved: Optional[int] = None
    padding: Optional[int] = None


class BorrowInfo(NamedTuple):
    """Borrows of a variable, which trackers do not measure: constants by type name (memscope 11)."""

    immutable_borrows: int = 0
    mutable_borrows: int = 0
    max_concurrent_borrows: int = 0
    last_borrow_timestamp: Optional[int] = None


class CloneInfo(NamedTuple):
    """Clones of a variable."""

    clone_count: int = 0
    is_clone: bool = False
    original_ptr: Optional[int] = None


class RefCount(NamedTuple):
    """The counts of a smart pointer at one time, in ns."""

    timestamp: int
    strong_count: int
    weak_count: int


class SmartPointer(NamedTuple):
    """What is known of an ``Rc``, ``Arc``, ``RcWeak``, ``ArcWeak`` or ``Box``, its ``pointer_type`` (memscope 7.1)."""

    data_ptr: int
    cloned_from: Optional[int] = None
    clones: Tuple[int, ...] = ()
    ref_count_history: Tuple[RefCount, ...] = ()
    weak_count: Optional[int] = None
    is_weak_reference: bool = False
    is_data_owner: bool = False
    is_implicitly_deallocated: bool = False
    pointer_type: str = "Rc"


class FieldLayout(NamedTuple):
    """A field of a type: offset, size and alignment in bytes."""

    field_name: str
    field_type: str
    offset: int
    size: int
    alignment: int
    is_padding: bool = False


class PaddingReason(NamedTuple):
    """``FieldAlignment``, ``StructAlignment``, ``EnumDiscriminant``, or ``Other`` with a text."""

    kind: str = "FieldAlignment"
    text: str = ""


class PaddingLocation(NamedTuple):
    """Bytes of a type that hold nothing."""

    start_offset: int
    size: int
    reason: PaddingReason = PaddingReason()


class PaddingInfo(NamedTuple):
    """All padding of a type."""

    total_padding_bytes: int = 0
    padding_locations: Tuple[PaddingLocation, ...] = ()
    padding_ratio: float = 0.0
    optimization_suggestions: Tuple[str, ...] = ()


class OptimizationPotential(NamedTuple):
    """``None``, ``Minor`` with savings, or ``Moderate`` or ``Major`` with savings and suggestions."""

    kind: str = "None"
    potential_savings: int = 0
    suggestions: Tuple[str, ...] = ()


class LayoutEfficiency(NamedTuple):
    """How well the memory of a type is used."""

    memory_utilization: float = 0.0
    cache_friendliness: float = 0.0
    alignment_waste: int = 0
    optimization_potential: OptimizationPotential = OptimizationPotential()


class MemoryLayout(NamedTuple):
    """The layout of a type in memory (memscope 7.2); ``container_analysis`` is JSON text."""

    total_size: int
    alignment: int
    field_layout: Tuple[FieldLayout, ...] = ()
    padding_info: PaddingInfo = PaddingInfo()
    layout_efficiency: LayoutEfficiency = LayoutEfficiency()
    container_analysis: Optional[str] = None


class Allocation(NamedTuple):
    """An allocation (memscope 6), in the order of the file, which is not that of time.

    Times are ns since 1970, ``lifetime_ms`` is in ms, ``size`` in bytes.  The twelve slots from ``generic_info`` on
    are JSON text as it stands in the file; so are ``smart_pointer_info`` and ``memory_layout`` in layouts 1c, 2a and T.
    ``slot`` parses them, and ``slot_text`` gives them as text in every layout.  Only T has ``drop_chain_analysis``
    and ``module_path``.
    """

    ptr: int
    size: int
    timestamp_alloc: int
    timestamp_dealloc: Optional[int] = None
    var_name: Optional[str] = None
    type_name: Optional[str] = None
    scope_name: Optional[str] = None
    thread_id: str = ""
    stack_trace: Optional[Tuple[str, ...]] = None
    borrow_count: int = 0
    is_leaked: bool = False
    lifetime_ms: Optional[int] = None
    borrow_info: Optional[BorrowInfo] = None
    clone_info: Optional[CloneInfo] = None
    ownership_history_available: bool = False
    smart_pointer_info: Union[SmartPointer, str, None] = None
    memory_layout: Union[MemoryLayout, str, None] = None
    generic_info: Optional[str] = None
    dynamic_type_info: Optional[str] = None
    runtime_state: Optional[str] = None
    stack_allocation: Optional[str] = None
    temporary_object: Optional[str] = None
    fragmentation_analysis: Optional[str] = None
    generic_instantiation: Optional[str] = None
    type_relationships: Optional[str] = None
    type_usage: Optional[str] = None
    function_call_tracking: Optional[str] = None
    lifecycle_tracking: Optional[str] = None
    access_tracking: Optional[str] = None
    drop_chain_analysis: Optional[str] = None
    module_path: Optional[str] = None
    raw: Raw = b""

    def slot_text(self, name: str) -> Optional[str]:
        """An object of the record, by field name, as the JSON text that the original program writes; None if absent."""
        return _memscope_json(getattr(self, name))

    def slot(self, name: str) -> Any:
        """An object of the record, by field name, as dicts, lists, ...; raises FormatError for what is no JSON."""
        text = self.slot_text(name)
        try:
            return None if text is None else _parse_json(text)
        except json.JSONDecodeError as error:
            raise _error("memscope", "bad-json", error.pos, name, error.msg, "slot") from None


class LifecycleMetric(NamedTuple):
    """Of a record that has ``lifetime_ms``: that, and its lifecycle_tracking as JSON text."""

    ptr: int
    lifetime_ms: int
    lifecycle_tracking: Optional[str] = None


class JsonMetric(NamedTuple):
    """Of a record that has it: its memory_layout, or type_usage, as JSON text."""

    ptr: int
    json: str


class AdvancedMetrics(NamedTuple):
    """The section ADVD (memscope 9), which repeats what the records say; a list whose bit is not set is None."""

    segment_size: int
    metrics_bitmap: int
    reserved: int = 0
    lifecycle: Optional[Tuple[LifecycleMetric, ...]] = None
    container: Optional[Tuple[JsonMetric, ...]] = None
    type_usage: Optional[Tuple[JsonMetric, ...]] = None
    raw: Raw = b""


_MEMSCOPE_OBJECTS: Tuple[Tuple[str, Type[Any], str], ...] = (  # memscope 7 and 9: the types of their fields
    ("borrow_info", BorrowInfo, "u32 u32 u32 ?u64"),
    ("clone_info", CloneInfo, "u32 bool ?u64"),
    ("smart_pointer_info", SmartPointer, "u64 ?u64 *u64 *ref_count ?u64 flag flag flag pointer_type"),
    ("ref_count", RefCount, "u64 u64 u64"),
    ("memory_layout", MemoryLayout, "u64 u64 *field_layout padding_info layout_efficiency ?plain_json"),
    ("field_layout", FieldLayout, "pstr pstr u64 u64 u64 bool"),
    ("padding_info", PaddingInfo, "u64 *padding_location f64 *pstr"),
    ("padding_location", PaddingLocation, "u64 u64 reason"),
    ("layout_efficiency", LayoutEfficiency, "f64 f64 u64 potential"),
    ("lifecycle", LifecycleMetric, "u64 u64 ?json"),
    ("container", JsonMetric, "u64 json"),
    ("type_usage", JsonMetric, "u64 json"),
)
_MEMSCOPE_STRUCTURES = {type: tuple(zip(kind._fields, types.split())) for type, kind, types in _MEMSCOPE_OBJECTS}
_MEMSCOPE_CLASSES: Mapping[str, Type[Any]] = {
    **{type: kind for type, kind, _ in _MEMSCOPE_OBJECTS},
    "reason": PaddingReason,
    "potential": OptimizationPotential,
}


def _memscope_float(value: float) -> str:
    """A float as the original program writes it in JSON (memscope 8).

    >>> [_memscope_float(value) for value in (0.00001, 1e-7, 2.5e16, 1e15, -0.5)]
    ['0.00001', '1e-7', '2.5e16', '1000000000000000.0', '-0.5']
    """
    if not -_INFINITY < value < _INFINITY:
        return "null"
    text = repr(value)
    mantissa, exponential, exponent = text.partition("e")
    if not exponential:
        return text
    if int(exponent) == -5:
        sign, digits = ("-", mantissa[1:]) if value < 0 else ("", mantissa)
        return f"{sign}0.0000{digits.replace('.', '')}"
    return f"{mantissa}e{int(exponent)}"


_memscope_quoted = json.JSONEncoder(ensure_ascii=False).encode  # text as a JSON string (memscope 8)


def _memscope_json(value: Any) -> Optional[str]:
    """A structure as the JSON text of the original program; text is such already, and None is absent."""
    return value if value is None or isinstance(value, str) else _memscope_json_value(value)


def _memscope_json_value(value: Any, line: str = "") -> str:
    r"""Anything as JSON (memscope 8); ``line`` is what a line starts with, and nothing for compact JSON.

    >>> _memscope_json_value([1, None, CloneInfo(2)])
    '[1,null,{"clone_count":2,"is_clone":false,"original_ptr":null}]'
    >>> _memscope_json_value({"a": ["b"]}, "\n")
    '{\n  "a": [\n    "b"\n  ]\n}'
    """
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _memscope_quoted(value)
    if isinstance(value, (int, float)):
        return _memscope_float(value) if isinstance(value, float) else str(value)
    inner = line and line + "  "
    if isinstance(value, PaddingReason):
        value = {"Other": value.text} if value.kind == "Other" else value.kind
        return _memscope_json_value(value, line)
    if isinstance(value, OptimizationPotential):
        names = [name for name, _ in _MEMSCOPE_CHOICES["potential"][value.kind]]
        choice = {value.kind: {name: getattr(value, name) for name in names}} if names else value.kind
        return _memscope_json_value(choice, line)
    if isinstance(value, MemoryLayout) and value.container_analysis:
        members = _memscope_json_value(value._replace(container_analysis=None))
        return members[: -len("null}")] + value.container_analysis + "}"
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        colon = ": " if line else ":"
        items = [f"{_memscope_quoted(key)}{colon}{_memscope_json_value(value[key], inner)}" for key in value]
    else:
        items = [_memscope_json_value(item, inner) for item in value]
    start, end = "{}" if isinstance(value, dict) else "[]"
    return f"{start}{inner}{(',' + inner).join(items)}{line}{end}" if items else start + end


_MemscopeDecoder = Callable[[bytes, int, int], Generator[Allocation, None, Tuple[int, int, int]]]


def _memscope_from_json(type_: str, value: Any) -> Any:
    """A value of a type as in ``_MEMSCOPE_RECORD`` from its JSON, parsed; raises TypeError for what does not fit."""
    if type_[0] == "?" or type_ == "ostr":
        return None if value is None else _memscope_from_json(type_[1:] if type_[0] == "?" else "sstr", value)
    if type_ in ("json", "plain_json"):
        return _memscope_json_value(value)
    if type_[0] == "*" and isinstance(value, list):
        return tuple([_memscope_from_json(type_[1:], item) for item in value])
    if type_ in _MEMSCOPE_STRUCTURES and isinstance(value, dict):
        fields = _MEMSCOPE_STRUCTURES[type_]
        return _MEMSCOPE_CLASSES[type_](*[_memscope_from_json(inner, value.get(name)) for name, inner in fields])
    if type_ in _MEMSCOPE_CHOICES:
        ((kind, inside),) = value.items() if isinstance(value, dict) and len(value) == 1 else ((value, {}),)
        choices = _MEMSCOPE_CHOICES[type_]
        if isinstance(kind, str) and kind in choices:
            if type_ not in _MEMSCOPE_CLASSES:
                return kind
            members = inside if isinstance(inside, dict) else {"text": inside}
            values = [_memscope_from_json(inner, members.get(name)) for name, inner in choices[kind]]
            return _MEMSCOPE_CLASSES[type_](kind, *values)
    kinds = {"bool": bool, "flag": bool, "pstr": str, "sstr": str, "u32": int, "u64": int, "f64": float}
    if type_ == "f64" and type(value) is int:
        value = float(value)
    if type(value) is not kinds.get(type_) or (type(value) is int and not 0 <= value <= _U64_MAX):
        raise TypeError(f"not a value of type {type_}: {value!r}")
    return value


# The keys of layout T, in order (memscope 10).
_MEMSCOPE_KEYS = (
    *("ptr", "size", "var_name", "type_name", "scope_name", "timestamp_alloc", "timestamp_dealloc", "thread_id"),
    *("borrow_count", "stack_trace", "is_leaked", "lifetime_ms", "borrow_info", "clone_info"),
    *("ownership_history_available", "smart_pointer_info", "memory_layout", *MEMSCOPE_SLOTS, "drop_chain_analysis"),
)


def _memscope_from_members(members: Any) -> Union[Allocation, str]:
    """The record that an object of layout T is; else the end of the path to what is not as it should be."""
    if not isinstance(members, dict):
        return ""
    values: Dict[str, Any] = {}
    for name, type in (*_memscope_fields("T"), ("drop_chain_analysis", "?json"), ("module_path", "ostr")):
        if name in members or type == "u64":
            value = members.get(name)
            try:
                values[name] = None if value is None and name == "stack_trace" else _memscope_from_json(type, value)
            except (TypeError, RecursionError):
                return "." + name
    return Allocation(**values)


def _memscope_members(record: Allocation, *, first: bool) -> str:
    """A record in layout T, with what stands before it."""
    members = {name: getattr(record, name) for name in _MEMSCOPE_KEYS}
    for name in ("smart_pointer_info", "memory_layout", *MEMSCOPE_SLOTS, "drop_chain_analysis"):
        members[name] = record.slot(name)
    if record.module_path is not None:
        members["module_path"] = record.module_path
    return ("[\n  " if first else ",\n  ") + _memscope_json_value(members, "\n  ")


def _memscope_layouts(start: bytes) -> Tuple[str, ...]:
    """The layouts that a file may have that starts with these 36 bytes, the likeliest first (memscope 3).

    Where the string block stands tells more than the version: today's program reads its own layout also as version 2.
    """
    version = int.from_bytes(start[8:12], "little")
    if version == 1:
        return "1c", "1b", "1a"
    if version != 2:
        return "3c", "3a"
    places: Tuple[Tuple[int, Tuple[str, ...]], ...] = ((24, ("2d",)), (16, ("2c",)), (32, ("3c", "3a")))
    return next((layouts for at, layouts in places if start[at : at + 4] in _MEMSCOPE_MARKERS), ("2b", "2a"))


def _memscope_header(layout: str) -> Layout:
    return MEMSCOPE_HEADER if layout < "2d" else MEMSCOPE_HEADER_24 if layout == "2d" else MEMSCOPE_HEADER_32


def _memscope_fields(layout: str) -> List[Tuple[str, str]]:
    """The fields of a record and their types; the first two structures are JSON until 2a."""
    return [
        (name, "?json" if layout in _MEMSCOPE_JSON_ONLY and name in ("smart_pointer_info", "memory_layout") else type)
        for name, type, since in _MEMSCOPE_RECORD
        if layout >= since
    ]


# ---- memscope: explain


def _explain_memscope(walk: _Walk) -> Iterator[None]:
    """The format text (memscope 3 to 9) line by line; each ``yield`` stands between structures."""
    if walk.data.removeprefix(_BOM).lstrip(_JSON_BLANKS)[:1] == b"[":
        yield from _explain_memscope_text(walk)
        return
    if not MEMSCOPE_MAGIC.startswith(walk.data[:8]):
        raise walk.fault("not a memscope file", 0, "magic")
    version = int.from_bytes(walk.data[8:12], "little")
    note = ""
    if len(walk.data) >= 12 and version not in (1, 2, 3):
        note = walk.skip(walk.fault("no such version", 8, "version", str(version)))
    layouts = _memscope_layouts(walk.data[:36])
    header = walk.layout(_memscope_header(layouts[0]))
    if note:
        walk.annotate(note, "version")
    if header.get("export_mode", 0) > 1:
        walk.problem("export_mode is neither 0 nor 1", "export_mode")
    if "export_mode" in header and header["total_count"] > 0xFFFF:
        walk.problem("the other counts are modulo 65536", "total_count")
    if header.get("reserved") or header.get("padding"):
        walk.problem("reserved bytes are not 0")
    yield
    texts = _explain_memscope_strings(walk) if layouts[0] >= "2c" else []
    named, stepped_over = 0, False
    for number in range(header["total_count"]):
        yield
        left = header["total_count"] - number - 1
        layouts, has_name = _explain_memscope_record(walk, number, layouts, texts, left)
        named += has_name is True
        stepped_over = stepped_over or has_name is None
    if "export_mode" in header and not stepped_over:
        mode = (named & 0xFFFF, header["total_count"] - (named & 0xFFFF) & 0xFFFF)
        counts = (header["user_count"], header["system_count"])
        if counts not in (mode, (header["total_count"] & 0xFFFF, 0)):
            walk.problem("the counts are not those of the records")
    if walk.data[walk.offset : walk.offset + 4] == b"ADVD" and layouts[0] >= "2a":
        yield
        _explain_memscope_metrics(walk, layouts[0], texts)
    if walk.more():
        walk.take("trailing", len(walk.data) - walk.offset, "bytes")
        walk.problem("bytes after the last record")


def _explain_memscope_strings(walk: _Walk) -> List[str]:
    marker = walk.data[walk.offset : walk.offset + 4]
    if len(marker) == 4 and marker not in _MEMSCOPE_MARKERS:
        raise walk.fault("neither NONE nor STBL", walk.offset, "string_block.marker", marker.hex(" "))
    size = walk.layout(MEMSCOPE_STRINGS, "string_block.")["size"]
    start = walk.offset
    texts: Dict[str, None] = {}
    if marker == b"NONE":
        if size:
            walk.problem("the size of NONE is not 0")
        return []
    if not size:
        raise walk.fault("an STBL of no bytes", walk.offset - 4, "string_block.size")
    walk.fixed("string_block.compressed", "B", "never used")
    for _ in range(walk.fixed("string_block.strings_count", "I")):
        with walk.record("string_block.strings"):
            text = _explain_memscope_value(walk, "value", "pstr", "", [])
            if text in texts:  # erratum 4: which moves those after it down by one
                walk.problem("a string that stands there already", "value_length")
            texts[text] = None
    if size != walk.offset - start:
        walk.problem("size is not that of the strings", "string_block.size")
    return [*texts]


def _explain_memscope_record(
    walk: _Walk, number: int, layouts: Tuple[str, ...], texts: Sequence[str], left: int
) -> Tuple[Tuple[str, ...], Optional[bool]]:
    """A record of one of the layouts; returns those it fits, and whether it has a name; None if it is stepped over."""
    start = walk.offset
    where = f"allocations[{number}]."
    stop = start + 5 + int.from_bytes(walk.data[start + 1 : start + 5], "little")
    trials = {}
    named = {}
    for layout in layouts:
        trial = trials[layout] = _Walk(walk.format, walk.rules, walk.data, recover=False)
        trial._prefix, trial.offset = where, start
        try:
            named[layout] = _explain_memscope_fields(trial, layout, texts)
        except FormatError as error:
            trial.error = error
    exact = tuple([layout for layout in named if trials[layout].offset == stop])
    follows = tuple(
        [layout for layout in named if _explain_memscope_follows(walk, trials[layout].offset, layout, left)]
    )
    layouts = exact or follows or layouts
    layout = layouts[0]
    end, fault = trials[layout].offset, trials[layout].error
    at_length = stop <= len(walk.data) and _explain_memscope_follows(walk, stop, layout, left)
    if fault is None and end > stop and not follows and at_length:
        detail = f"{stop - start - 5}, less than {end - start - 5}"
        fault = walk.fault("Length is not that of the record", start + 1, where + "length", detail)
    if fault is not None and at_length and walk.recover:
        walk.unread(fault, stop)
        return layouts, None
    walk._spans += trials[layout]._spans
    walk.offset = end
    if fault is not None:
        raise fault
    if end != stop:
        if not follows and at_length:
            walk.take(where + "rest", stop - end, "bytes")
        walk.problem("Length is not that of the record", where + "length")
    return layouts, named[layout]


def _explain_memscope_fields(walk: _Walk, layout: str, texts: Sequence[str]) -> bool:
    """A record of that layout; returns whether it has a name."""
    type = walk.data[walk.offset : walk.offset + 1]
    if type not in (b"", b"\1"):
        raise walk.fault("not a record: its type is not 1", walk.offset, "type", str(type[0]))
    walk.fixed("type", "B")
    walk.fixed("length", "I", "bytes after this field")
    fields = _memscope_fields(layout)
    values = {field: _explain_memscope_value(walk, field, type, layout, texts) for field, type in fields}
    return values["var_name"] is not None


def _explain_memscope_follows(walk: _Walk, at: int, layout: str, left: int) -> bool:
    """Whether what comes after a record may stand there: another one, or, of none is left, the metrics or the end."""
    ahead = walk.data[at : at + 5]
    if left:
        least = _MEMSCOPE_LEAST.get(layout, 65)
        return len(ahead) == 5 and ahead[0] == 1 and int.from_bytes(ahead[1:], "little") >= least
    return not ahead or (ahead[:4] == b"ADVD" and layout >= "2a")


def _explain_memscope_value(walk: _Walk, name: str, type: str, layout: str, texts: Sequence[str]) -> Any:
    """A value of any type; returns numbers and texts."""
    if type in _MEMSCOPE_NUMBERS:
        return walk.fixed(name, _MEMSCOPE_NUMBERS[type])
    if type in ("bool", "flag"):
        value = walk.fixed(name, "B")
        if value > 1:
            walk.problem("neither 0 nor 1")
        return value
    if type[0] == "?":
        flag = _explain_memscope_value(walk, name + "_present", "flag", layout, texts)
        return _explain_memscope_value(walk, name, type[1:], layout, texts) if flag == 1 else None
    if type[0] == "*":
        inner = "" if type[1:] in _MEMSCOPE_STRUCTURES else "value"
        for _ in range(walk.fixed(name + "_count", "I")):
            with walk.record(name):
                _explain_memscope_value(walk, inner, type[1:], layout, texts)
        return None
    fields = _MEMSCOPE_STRUCTURES.get(type, ())
    if type in _MEMSCOPE_CHOICES:
        choices = [*_MEMSCOPE_CHOICES[type]]
        number = walk.fixed(name, "B")
        if number >= len(choices):
            raise walk.fault("no such choice", walk.offset - 1, name, str(number))
        walk.annotate(choices[number])
        fields = _MEMSCOPE_CHOICES[type][choices[number]]
    if type in _MEMSCOPE_CHOICES or type in _MEMSCOPE_STRUCTURES:
        for field, inner in fields:
            _explain_memscope_value(walk, f"{name}.{field}" if name else field, inner, layout, texts)
        return None
    size = walk.fixed(name + "_length", "I")
    if layout >= "2c" and type not in ("pstr", "plain_json") and size == _MEMSCOPE_REFERENCE:
        walk.annotate("a reference")
        number = walk.fixed(name + "_reference", "H")
        if number >= len(texts):
            raise walk.fault("no such string", walk.offset - 2, name + "_reference", str(number))
        walk.annotate(json.dumps(texts[number][-72:]))
        return texts[number]
    if type == "ostr" and size == (_MEMSCOPE_NULL if layout >= "2c" else 0):
        walk.annotate("null")
        return None
    text = walk.text(name, size)
    if any("\udc80" <= letter <= "\udcff" for letter in text):
        walk.problem("not UTF-8")
    return text


def _explain_memscope_metrics(walk: _Walk, layout: str, texts: Sequence[str]) -> None:
    start = walk.offset
    head = walk.layout(MEMSCOPE_METRICS, "metrics.")
    if head["reserved"]:
        walk.problem("reserved bytes are not 0")
    for bit, name in enumerate(_MEMSCOPE_LISTS):
        if head["metrics_bitmap"] >> bit & 1:
            _explain_memscope_value(walk, "metrics." + name, "*" + name, layout, texts)
    if head["segment_size"] != walk.offset - start:
        walk.problem("segment_size is not that of the section", "metrics.segment_size")


def _explain_memscope_text(walk: _Walk) -> Iterator[None]:
    """Layout T: a list of objects, of which each member is a span, with its key and what stands before it."""
    data = walk.data
    ended = data.rstrip(_JSON_BLANKS).endswith(b"]")
    try:
        text, whole = data.decode(), True
    except UnicodeDecodeError as error:
        text, whole = data[: error.start].decode(), False
    scan = _json_scanner()
    done = 0  # in text, where walk.offset is in data

    def take(name: str, end: int, type: str = "bytes") -> None:
        nonlocal done
        walk.take(name, len(text[done:end].encode()), type)
        done = end

    def fault(rule: str, at: int, where: str) -> FormatError:
        return walk.fault(rule, walk.offset + len(text[done:at].encode()), where)

    take("list", text.index("[") + 1)
    number = 0
    while True:
        where = f"allocations[{number}]"
        at = _skip_blanks(text, done)
        if text[at : at + 1] == "]":
            break
        if number:
            if text[at : at + 1] != ",":
                raise fault("the file ends inside this field" if whole and at == len(text) else "not JSON", at, where)
            at = _skip_blanks(text, at + 1)
        try:
            members, end = scan(text, at)
        except (StopIteration, ValueError, RecursionError):
            if ended and not whole:
                raise fault("not UTF-8 in JSON", len(text), where) from None
            raise fault("not JSON" if ended else "the file ends inside this field", at, where) from None
        record = _memscope_from_members(members)
        if isinstance(record, str):
            raise fault("not the value of this key", at, where + record)
        yield
        if at > done:
            take("list", at)
        with walk.record("allocations"):
            at += 1
            while True:
                at = _skip_blanks(text, at)
                if text[at] == "}":
                    take("end", end)
                    break
                key, at = scan(text, _skip_blanks(text, at + (text[at] == ",")))
                start = _skip_blanks(text, _skip_blanks(text, at) + 1)
                value, at = scan(text, start)
                take(key, at, "json")
                walk.revalue(text[start:at] if isinstance(value, (float, list, dict)) else value)
        number += 1
    take("list", at + 1)
    if walk.more():
        tail = walk.take("trailing", len(data) - walk.offset, "bytes")
        if tail.strip(_JSON_BLANKS):
            walk.problem("bytes after the last record")


# ---- memscope: Reader


class _MemscopeFields(_Fields):
    """Reads values of the types of memscope 6 exactly."""

    form = "3c"  # the layout
    texts: Sequence[str] = ()  # of the string block

    def value(self, name: str, type: str) -> Any:
        """A value of any type, as it goes into a record."""
        form = _MEMSCOPE_FORMS.get(type)
        if form is not None:
            return self.fixed(name, form)
        if type[0] == "?":
            return self.value(name, type[1:]) if self._flag(name + "_present") == 1 else None
        if type[0] == "*":
            inner = "" if type[1:] in _MEMSCOPE_STRUCTURES else ".value"
            size = self.fixed(name + "_count", _U32)
            # A list comprehension would have PyPy make room for all that the file claims.
            return tuple(self.value(f"{name}[{place}]{inner}", type[1:]) for place in range(size))
        if type in ("bool", "flag"):
            flag = self._flag(name)
            return flag != 0 if type == "bool" else flag == 1
        if type in _MEMSCOPE_CHOICES:
            choices = [*_MEMSCOPE_CHOICES[type].items()]
            number = self.take(name, 1)[0]
            if number >= len(choices):
                raise self.fault("no such choice", name, str(number), place=-1)
            kind, fields = choices[number]
            if type not in _MEMSCOPE_CLASSES:
                return kind
            return _MEMSCOPE_CLASSES[type](kind, *[self.value(f"{name}.{field}", inner) for field, inner in fields])
        if type in _MEMSCOPE_STRUCTURES:
            values = [self.value(f"{name}.{field}", inner) for field, inner in _MEMSCOPE_STRUCTURES[type]]
            return _MEMSCOPE_CLASSES[type](*values)
        return self._text(name, type)

    def _flag(self, name: str) -> int:
        flag: int = self.take(name, 1)[0]
        if flag > 1:
            self.problem("neither 0 nor 1", self.at - 1, name)
            self.canonical = False
        return flag

    def _text(self, name: str, type: str) -> Optional[str]:
        size = self.fixed(name + "_length", _U32)
        if self.form >= "2c" and type not in ("pstr", "plain_json") and size == _MEMSCOPE_REFERENCE:
            number: int = self.fixed(name + "_reference", _U16)
            if number >= len(self.texts):
                raise self.fault("no such string", name + "_reference", str(number), place=-2)
            self.canonical = False
            return self.texts[number]
        if type == "ostr" and size == (_MEMSCOPE_NULL if self.form >= "2c" else 0):
            return None
        data = self.take(name, size)
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.problem("not UTF-8", self.at - size, name)
        return _decode_text(data)

    def record(self) -> Dict[str, Any]:
        """The fields of a record."""
        self.take("type", 1)
        self.fixed("length", _U32)
        values = {name: self.value(name, type) for name, type in _memscope_fields(self.form)}
        values["stack_trace"] = values.get("stack_trace") or None
        return values


class MemscopeReader(Reader[MemscopeHeader, Allocation]):
    """Reads a ``.memscope`` file of any layout: Allocations in the order of the file.

    ``layout`` is the layout, a name of ``MEMSCOPE_LAYOUTS``, as far as the records read so far tell: 3b is read as 3c,
    which it is but for a header byte, and 2a as 2b up to the first record that tells them apart.  ``strings`` are the
    texts of the string block.  ``advanced_metrics`` is the section ADVD, if there is one, after the last record.
    """

    format = "memscope"
    rules = MEMSCOPE_RULES
    advanced_metrics: Optional[AdvancedMetrics] = None

    def _read_start(self) -> None:
        self._fields = fields = _MemscopeFields(self._problems, b"", source=self._source)
        self._skipped: List[bytes] = []  # records stepped over: they go into the raw of what comes next
        self._text_end: Optional[bytes] = None
        self._string_block: Optional[bytes] = None
        self._silent = _Problems(self.format, self.rules, strict=False, recover=False)
        self._layouts: Tuple[str, ...] = ("1a",)  # those that fit all records so far
        self._decoders: Dict[str, _MemscopeDecoder] = {}
        self.strings: List[str] = []
        while fields.have(len(fields.data) + 1) and (len(fields.data) < 36 or not fields.data.strip(_JSON_BLANKS)):
            pass
        if fields.data.removeprefix(_BOM).lstrip(_JSON_BLANKS)[:1] == b"[":
            self._layouts = ("T",)
            self.header = MemscopeHeader(version=0)
        else:
            self._read_header()
        self.family = self.layout  # what the tables say, which come before the records

    def _read_header(self) -> None:
        fields = self._fields
        start = fields.data[:36]
        if not MEMSCOPE_MAGIC.startswith(start[:8]):
            raise fields.fault("not a memscope file", "magic")
        version = int.from_bytes(start[8:12], "little")
        if len(start) >= 12 and version not in (1, 2, 3):
            self._problems.step_over(fields.fault("no such version", "version", str(version), place=8))
        self._layouts = _memscope_layouts(start)
        layout = _memscope_header(self.layout)
        self.header = header = MemscopeHeader(**dict([*zip(layout.offsets, fields.layout(layout))][1:]))
        fields.begin()
        if self.layout >= "2c":
            block = self._whole(self._read_strings)
            self._string_block = None if block == _MEMSCOPE_NO_STRINGS else block
        if header.export_mode is not None and header.total_count > 0xFFFF:
            self._problems.add("the other counts are modulo 65536", 12, "total_count", str(header.total_count))
        if (header.export_mode or 0) > 1:
            self._problems.add("export_mode is neither 0 nor 1", 16, "export_mode", str(header.export_mode))
        for name, place in ("reserved", 21 if self.layout == "2d" else 28), ("padding", layout.size - 2):
            if getattr(header, name):
                self._problems.add("reserved bytes are not 0", place, name, str(getattr(header, name)))
        if header.total_count:
            self._judge(0)

    @property
    def layout(self) -> str:
        """The layout: the likeliest of those that fit all records so far."""
        return self._layouts[0]

    @property
    def tables(self) -> Dict[str, Any]:
        """``layout``, ``advanced_metrics``, and, where they are not usual, ``string_block`` and T's ``text_end``."""
        return {
            "layout": self.family,
            "string_block": self._string_block,
            "text_end": self._text_end,
            "advanced_metrics": self.advanced_metrics,
        }

    def _size(self, read: Callable[[_MemscopeFields], object]) -> int:
        """The size of what can be read so from here on."""
        fields = self._fields
        start = fields.at
        fields._problems = self._silent
        try:
            read(fields)
            return fields.at - start
        finally:
            fields.at = start
            fields.canonical = True
            fields._problems = self._problems

    def _whole(self, read: Callable[[_MemscopeFields], object]) -> bytes:
        """Read a part of the file; returns its bytes.  A fault comes before deviations."""
        self._size(read)
        read(self._fields)
        data = self._fields.since()
        self._fields.begin()
        return data

    def _read_strings(self, fields: _MemscopeFields) -> None:
        texts: Dict[str, None] = {}
        self.strings = []
        marker = fields.data[fields.at : fields.at + 4]
        if len(marker) == 4 and marker not in _MEMSCOPE_MARKERS:
            raise fields.fault("neither NONE nor STBL", "string_block.marker", marker.hex(" "))
        start = fields.at + 8
        marker, size = fields.layout(MEMSCOPE_STRINGS, "string_block.")
        if marker == b"NONE":
            if size:
                fields.problem("the size of NONE is not 0", start - 4, "string_block.size", str(size))
            return
        if not size:
            raise fields.fault("an STBL of no bytes", "string_block.size", place=-4)
        fields.take("string_block.compressed", 1)
        for place in range(fields.fixed("string_block.strings_count", _U32)):
            at = fields.at
            text = fields.value(f"string_block.strings[{place}].value", "pstr")
            if text in texts:
                name = f"string_block.strings[{place}].value_length"
                fields.problem("a string that stands there already", at, name)
            texts[text] = None
        self.strings = fields.texts = [*texts]
        if size != fields.at - start:
            fields.problem("size is not that of the strings", start - 4, "string_block.size", str(size))

    def _read_records(self) -> Iterator[Allocation]:
        if self.layout == "T":
            return self._read_text_records()
        return self._read_binary_records()

    def _read_binary_records(self) -> Iterator[Allocation]:
        # Usual records that are at hand are decoded by a generator for the layout, everything else by _read_exactly.
        fields = self._fields
        total = self.header.total_count
        number = named = 0
        stepped_over = False
        try:
            while number < total:
                decode = self._decoder()
                if decode is not None:
                    fields.at, done, has_name = yield from decode(fields.data, fields.at, total - number)
                    fields.begin()
                    number += done
                    named += has_name
                    left = len(fields.data) - fields.at
                    length = int.from_bytes(fields.data[fields.at + 1 : fields.at + 5], "little")
                    if number == total or (left < 5 + length and fields.have(left + 1)):
                        continue
                one = self._read_exactly(number)
                number += 1
                if one is None:
                    stepped_over = True
                else:
                    named += one.var_name is not None
                    yield one
            fields.where = ""
            if not stepped_over:
                self._check_counts(named)
            if fields.have(4) and fields.data[fields.at : fields.at + 4] == b"ADVD" and self.layout >= "2a":
                self._read_metrics()
            tail = fields.left() + self._source.rest()
            if tail:
                fields.problem("bytes after the last record", fields.at, "trailing", _many(len(tail), "byte"))
            self._end(b"".join([*self._skipped, tail]))
        except FormatError as error:
            self._end(b"".join([*self._skipped, fields.left()]), error)

    def _decoder(self) -> Optional[_MemscopeDecoder]:
        """What decodes the usual records of the layouts that are left; None if they are still to be told apart."""
        both = self._layouts == ("2b", "2a")
        if self._skipped or (self._layouts[1:] and not both) or not self._same_form():
            return None
        key = f"{self.layout}{both}"
        if key not in self._decoders:
            self._decoders[key] = _memscope_decoder(self.layout, both=both)
        return self._decoders[key]

    def _same_form(self) -> bool:
        """Whether records are written in the form that the file was taken to be of at its start."""
        return self.layout in (self.family, "2a")

    def _fits(self, layout: str, size: int) -> bool:
        """Whether so many bytes are a record in a layout."""
        start = self._fields.at
        fields = _MemscopeFields(self._silent, self._fields.data[start : start + size])
        fields.form, fields.texts = layout, self.strings
        try:
            fields.record()
        except FormatError:
            return False
        return fields.at == size

    def _try(self, layout: str) -> Tuple[int, Optional[FormatError]]:
        """The size of the record at hand in a layout, and what is wrong with it."""
        self._fields.form = layout
        try:
            return self._size(_MemscopeFields.record), None
        except FormatError as error:
            return -1, error

    def _judge(self, number: int) -> Tuple[int, Optional[FormatError]]:
        """Narrow the layouts by the record at hand (memscope 3).

        Returns its size, and what is wrong with it; the size of what cannot be read is where its Length leads to, if
        a record may follow there, else 0.
        """
        fields = self._fields
        fields.where = f"allocations[{number}]."
        left = self.header.total_count - number - 1
        fields.have(5)
        head = fields.data[fields.at : fields.at + 5]
        stop = 5 + int.from_bytes(head[1:], "little")
        whole = fields.have(stop)
        if head[:1] not in (b"", b"\1"):
            error: Optional[FormatError] = fields.fault("not a record: its type is not 1", "type", str(head[0]))
            return stop if whole and self._follows(stop, self.layout, left) else 0, error
        exact = tuple([layout for layout in self._layouts if whole and self._fits(layout, stop)])
        if exact:
            self._layouts = exact
            return stop, None
        trials = {layout: self._try(layout) for layout in self._layouts}
        fitting = [layout for layout, (size, _) in trials.items() if size > 0 and self._follows(size, layout, left)]
        self._layouts = tuple(fitting) or self._layouts
        size, error = trials[self.layout]
        if fitting or not whole or not self._follows(stop, self.layout, left):
            return max(size, 0), error
        if size > stop:
            detail = f"{stop - 5}, less than {size - 5}"
            error = fields.fault("Length is not that of the record", "length", detail, place=1)
        return stop, error

    def _follows(self, size: int, layout: str, left: int) -> bool:
        """Whether, so far on, another record may start, or, if none is left, the metrics or the end of the file."""
        fields = self._fields
        fields.have(size + 5)
        ahead = fields.data[fields.at + size : fields.at + size + 5]
        if left:
            least = _MEMSCOPE_LEAST.get(layout, 65)
            return len(ahead) == 5 and ahead[0] == 1 and _U32.unpack_from(ahead, 1)[0] >= least
        return not ahead or (ahead[:4] == b"ADVD" and layout >= "2a")

    def _read_exactly(self, number: int) -> Optional[Allocation]:
        """The record at hand, with every check; None for one that was stepped over."""
        size, error = self._judge(number)
        fields = self._fields
        start = fields.at
        if error is not None:
            if not size:
                raise error
            self._problems.step_over(error)
            fields.at += size
            self._skipped.append(fields.since())
            fields.begin()
            return None
        fields.form = self.layout
        values = fields.record()
        length = _U32.unpack_from(fields.data, start + 1)[0]
        if length != fields.at - start - 5:
            detail = f"{length}, not {fields.at - start - 5}"
            fields.problem("Length is not that of the record", start + 1, "length", detail)
            fields.canonical = False
        usual = fields.canonical and not self._skipped and self._same_form()
        fields.at = start + size
        own = b"".join([*self._skipped, fields.since()])
        fields.begin()
        fields.canonical = True
        self._skipped.clear()
        return Allocation(**values, raw=b"" if usual else own)

    def _check_counts(self, named: int) -> None:
        """Hold the counts of the header against the records (memscope 4)."""
        header = self.header
        if header.export_mode is None:
            return
        by_mode = (named & 0xFFFF, header.total_count - (named & 0xFFFF) & 0xFFFF)
        counts = (header.user_count, header.system_count)
        if counts not in (by_mode, (header.total_count & 0xFFFF, 0)):
            detail = f"{counts[0]} and {counts[1]}, not {by_mode[0]} and {by_mode[1]}"
            self._problems.add("the counts are not those of the records", 17, "user_count", detail)

    def _read_metrics(self) -> None:
        metrics: Optional[AdvancedMetrics] = None
        usual = not self._skipped

        def read(fields: _MemscopeFields) -> None:
            nonlocal metrics, usual
            start = fields.at
            fields.form = self.layout
            _, size, bitmap, reserved = fields.layout(MEMSCOPE_METRICS, "metrics.")
            if reserved:
                fields.problem("reserved bytes are not 0", start + 12, "metrics.reserved", str(reserved))
            lifecycle, container, usage = [
                fields.value("metrics." + name, "*" + name) if bitmap >> bit & 1 else None
                for bit, name in enumerate(_MEMSCOPE_LISTS)
            ]
            if size != fields.at - start:
                detail = f"{size}, not {fields.at - start}"
                fields.problem("segment_size is not that of the section", start + 4, "metrics.segment_size", detail)
            metrics = AdvancedMetrics(size, bitmap, reserved, lifecycle, container, usage)
            usual = usual and fields.canonical

        own = b"".join([*self._skipped, self._whole(read)])
        self._skipped.clear()
        self.advanced_metrics = metrics if usual else cast("AdvancedMetrics", metrics)._replace(raw=own)

    def _read_text_records(self) -> Iterator[Allocation]:
        """Layout T: the objects of the list, one by one."""
        fields = self._fields
        scan = _json_scanner()
        number = 0
        if fields.data.startswith(_BOM):
            fields.at = len(_BOM)
        try:
            while True:
                fields.where = f"allocations[{number}]"
                byte = self._next()
                if number and byte == b"]":
                    break
                if byte != (b"," if number else b"["):
                    raise fields.fault("not JSON" if byte else "the file ends inside this field", "")
                fields.at += 1
                if self._next() == b"]" and not number:
                    break
                record = self._read_members(scan)
                own = fields.since()
                fields.begin()
                if own.decode("utf-8", "replace") != _memscope_members(record, first=not number):
                    record = record._replace(raw=own)
                number += 1
                yield record
            fields.at += 1
            own = fields.since()
            fields.begin()
            self._text_end = None if own == (b"\n]" if number else b"[]") else own
            tail = fields.left() + self._source.rest()
            if tail.strip(_JSON_BLANKS):
                fields.where = ""
                fields.problem("bytes after the last record", fields.at, "trailing", _many(len(tail), "byte"))
            self._end(tail)
        except FormatError as error:
            self._text_end = b""
            self._end(fields.left(), error)

    def _next(self) -> bytes:
        """The next byte that is no blank; nothing at the end of the file."""
        fields = self._fields
        while fields.have(1) and fields.data[fields.at] in _JSON_BLANKS:
            fields.at += 1
        return fields.data[fields.at : fields.at + 1]

    def _read_members(self, scan: _JsonScan) -> Allocation:
        """The object that starts here."""
        fields = self._fields
        size = 1 << 13
        while True:
            more = fields.have(size)
            data = fields.data[fields.at : fields.at + size]
            try:
                text, bad = data.decode(), None
            except UnicodeDecodeError as error:
                text, bad = data[: error.start].decode(), error.start
            try:
                members, end = scan(text, 0)
            except (StopIteration, ValueError, RecursionError):
                if more:
                    size *= 4
                    continue
                if not fields.data.rstrip(_JSON_BLANKS).endswith(b"]"):
                    raise fields.fault("the file ends inside this field", "") from None
                if bad is not None:
                    raise fields.fault("not UTF-8 in JSON", "", place=bad) from None
                raise fields.fault("not JSON", "") from None
            record = _memscope_from_members(members)
            if isinstance(record, str):
                raise fields.fault("not the value of this key", record)
            fields.at += len(text[:end].encode())
            return record


def _memscope_decoder(layout: str, *, both: bool) -> _MemscopeDecoder:
    """A generator of the usual records from a place in data on; it returns where it stops, how many these were, and
    how many have a name.

    It takes ``data``, the place, and the number of records at most; ``both``: only what 2a and 2b read the same.
    """
    # Each run of numbers up to the next text or flag that matters is one unpack, if need be with bytes that turn out to
    # be something else; what is too near the end of data for that is read by _read_exactly.
    new = tuple.__new__
    oldest, modern, borrows = layout == "1a", layout >= "1c", layout >= "3b"
    binary = layout >= "2b" and not both
    null, reference = (_MEMSCOPE_NULL, _MEMSCOPE_REFERENCE) if layout >= "2c" else (0, -1)
    head = struct.Struct("<BIQQQI" if oldest else "<BIQQQBI").unpack_from
    freed = struct.Struct("<QI").unpack_from
    size_at = _U32.unpack_from
    sizes_at = struct.Struct("<II").unpack_from
    number_at = _U64.unpack_from
    state = struct.Struct("<IIBB" if modern else "<IBB").unpack_from
    state_of_stack = struct.Struct("<IBB").unpack_from
    borrowed = struct.Struct("<BIIIB").unpack_from
    lived = struct.Struct("<QBIIIB").unpack_from
    cloned = struct.Struct("<BIBB").unpack_from
    cloned_after = struct.Struct("<QBIBB").unpack_from
    absent = bytes(14)
    nothing = (None,) * 14
    none = b""
    names: Dict[bytes, str] = {}

    def keep(piece: bytes) -> str:
        """The text of a name that comes again and again."""
        if len(names) > 4096:
            names.clear()
        return names.setdefault(piece, piece.decode())

    def usual_records(data: bytes, at: int, most: int) -> Generator[Allocation, None, Tuple[int, int, int]]:
        have = len(data)
        done = named = start = 0
        flag = length = 0
        try:
            while done < most:
                start = at
                dealloc = name = kind = scope = stack = lifetime = borrow = clone = None
                leaked = owned = False
                borrow_count = 0
                if oldest:
                    type, length, ptr, size, alloc, next_size = head(data, at)
                    stop = at + 5 + length
                    at += 33
                else:
                    type, length, ptr, size, alloc, flag, next_size = head(data, at)
                    stop = at + 5 + length
                    at += 34
                    if flag:
                        dealloc, next_size = freed(data, at - 4)
                        at += 8
                if type != 1 or flag > 1 or stop > have:
                    break
                if next_size != null:
                    if next_size == reference:
                        break
                    name = data[at : at + next_size].decode()
                    at += next_size
                (next_size,) = size_at(data, at)
                at += 4
                if next_size != null:
                    if next_size == reference:
                        break
                    piece = data[at : at + next_size]
                    kind = names.get(piece)
                    if kind is None:
                        kind = keep(piece)
                    at += next_size
                if oldest:
                    (next_size,) = size_at(data, at)
                    at += 4
                else:
                    length, next_size = sizes_at(data, at)
                    at += 8
                    if length != null:
                        if length == reference:
                            break
                        piece = data[at - 4 : at - 4 + length]
                        scope = names.get(piece)
                        if scope is None:
                            scope = keep(piece)
                        at += length
                        (next_size,) = size_at(data, at - 4)
                if next_size == reference:
                    break
                piece = data[at : at + next_size]
                thread = names.get(piece)
                if thread is None:
                    thread = keep(piece)
                at += next_size
                if not oldest:
                    if modern:
                        depth, borrow_count, leaked, flag = state(data, at)
                        at += 10
                        if depth:
                            frames = []
                            at -= 6
                            for _ in range(depth):
                                (length,) = size_at(data, at)
                                at += 4
                                if length == reference or at > stop:
                                    break
                                frames.append(data[at : at + length].decode())
                                at += length
                            if len(frames) < depth:
                                break
                            stack = tuple(frames)
                            borrow_count, leaked, flag = state_of_stack(data, at)
                            at += 6
                    else:
                        borrow_count, leaked, flag = state(data, at)
                        at += 6
                    if leaked > 1 or flag > 1:
                        break
                    leaked = leaked == 1
                    if borrows:
                        if flag:
                            lifetime, flag, immutable, mutable, most_borrows, last = lived(data, at)
                            at += 9
                        else:
                            flag, immutable, mutable, most_borrows, last = borrowed(data, at)
                            at += 1
                        if not flag:
                            flag, times, is_clone, original = cloned(data, at)
                            at += 1
                        else:
                            if flag > 1 or last > 1:
                                break
                            if last:
                                last, flag, times, is_clone, original = cloned_after(data, at + 13)
                                at += 22
                            else:
                                last = None
                                flag, times, is_clone, original = cloned(data, at + 13)
                                at += 14
                            borrow = new(BorrowInfo, (immutable, mutable, most_borrows, last))
                        if flag:
                            if flag > 1 or is_clone > 1 or original > 1:
                                break
                            at += 6
                            if original:
                                (original,) = number_at(data, at)
                                at += 8
                            else:
                                original = None
                            clone = new(CloneInfo, (times, is_clone == 1, original))
                        flag = data[at]
                        at += 1
                        if flag > 1:
                            break
                        owned = flag == 1
                    elif flag:
                        (lifetime,) = number_at(data, at)
                        at += 8
                objects: Sequence[Any] = nothing
                if modern and data[at : at + 14] != absent:
                    objects = []
                    for place in range(14):
                        flag = data[at]
                        at += 1
                        if not flag:
                            objects.append(None)
                        elif flag > 1 or (both and place < 2):
                            break
                        elif place < 2 and binary:
                            value, at = (_memscope_layout_at if place else _memscope_pointer_at)(data, at)
                            objects.append(value)
                        else:
                            (length,) = size_at(data, at)
                            if length == reference:
                                break
                            at += 4 + length
                            objects.append(data[at - length : at].decode())
                    if len(objects) < 14:
                        break
                elif modern:
                    at += 14
                if at != stop:
                    break
                values = (ptr, size, alloc, dealloc, name, kind, scope, thread)
                state_of_it = (stack, borrow_count, leaked, lifetime, borrow, clone, owned)
                record = new(Allocation, (*values, *state_of_it, *objects, None, None, none))
                done += 1
                if name is not None:
                    named += 1
                yield record
            else:
                start = at
        except (struct.error, IndexError, ValueError):
            pass
        return start, done, named

    return usual_records


_MEMSCOPE_PLAIN_POINTER = struct.Struct("<QBIIBBBBB").unpack_from
_MEMSCOPE_TRIPLE = struct.Struct("<QQQ").pack
_MEMSCOPE_LAYOUT_START = struct.Struct("<QQI")
_MEMSCOPE_FIELD_END = struct.Struct("<QQQB")
_MEMSCOPE_NUMBER_SIZE = struct.Struct("<QI")
_MEMSCOPE_NUMBERS_BYTE = struct.Struct("<QQB")
_MEMSCOPE_FLOAT_SIZE = struct.Struct("<dI")
_MEMSCOPE_EFFICIENCY = struct.Struct("<ddQB")


def _memscope_pointer_at(data: bytes, at: int) -> Tuple[SmartPointer, int]:
    """A smart pointer in its usual form, and where it ends; ValueError, IndexError or struct.error is another."""
    pointer, flag, *sizes, is_weak, owner, gone, kind = _MEMSCOPE_PLAIN_POINTER(data, at)
    origin = weak = None
    clones: Tuple[int, ...] = ()
    history: Tuple[RefCount, ...] = ()
    has_weak = 0
    if not flag and not any(sizes):
        at += 22
    else:
        at += 9
        if flag:
            (origin,) = _U64.unpack_from(data, at)
            at += 8
        (size,) = _U32.unpack_from(data, at)
        clones = _memscope_numbers(data, at + 4, size)
        at += 4 + 8 * size
        (size,) = _U32.unpack_from(data, at)
        counts = iter(_memscope_numbers(data, at + 4, 3 * size))
        history = tuple([tuple.__new__(RefCount, triple) for triple in zip(counts, counts, counts)])
        at += 4 + 24 * size
        has_weak = data[at]
        at += 1
        if has_weak:
            (weak,) = _U64.unpack_from(data, at)
            at += 8
        is_weak, owner, gone, kind = data[at : at + 4]
        at += 4
    if max(flag, has_weak, is_weak, owner, gone) > 1:
        raise ValueError("a flag of another form")
    values = (pointer, origin, clones, history, weak, is_weak == 1, owner == 1, gone == 1, _MEMSCOPE_POINTERS[kind])
    return tuple.__new__(SmartPointer, values), at


def _memscope_numbers(data: bytes, at: int, size: int) -> Tuple[int, ...]:
    """So many u64."""
    if not size:
        return ()
    if size > len(data) // 8:
        raise ValueError("more numbers than there are bytes")
    return struct.unpack_from(f"<{size}Q", data, at)


def _memscope_layout_at(data: bytes, at: int) -> Tuple[MemoryLayout, int]:
    """A memory layout in its usual form, and where it ends; raises the same."""
    new = tuple.__new__
    total, alignment, size = _MEMSCOPE_LAYOUT_START.unpack_from(data, at)
    at += 20
    fields = []
    for _ in range(size):
        name, at = _memscope_text_at(data, at)
        kind, at = _memscope_text_at(data, at)
        *numbers, padding = _MEMSCOPE_FIELD_END.unpack_from(data, at)
        at += 25
        if padding > 1:
            raise ValueError("a flag of another form")
        fields.append(new(FieldLayout, (name, kind, *numbers, padding == 1)))
    padding, size = _MEMSCOPE_NUMBER_SIZE.unpack_from(data, at)
    at += 12
    places = []
    for _ in range(size):
        start, length, reason = _MEMSCOPE_NUMBERS_BYTE.unpack_from(data, at)
        at += 17
        text = ""
        if reason == 3:
            text, at = _memscope_text_at(data, at)
        places.append(new(PaddingLocation, (start, length, new(PaddingReason, (_MEMSCOPE_REASONS[reason], text)))))
    (ratio,) = _MEMSCOPE_FORMS["f64"].unpack_from(data, at)
    advice, at = _memscope_texts_at(data, at + 8)
    use, cache, waste, level = _MEMSCOPE_EFFICIENCY.unpack_from(data, at)
    at += 25
    savings = 0
    suggestions: Tuple[str, ...] = ()
    if level:
        (savings,) = _U64.unpack_from(data, at)
        at += 8
        if level > 1:
            suggestions, at = _memscope_texts_at(data, at)
    potential = new(OptimizationPotential, (_MEMSCOPE_LEVELS[level], savings, suggestions))
    flag = data[at]
    at += 1
    analysis = None
    if flag:
        analysis, at = _memscope_text_at(data, at)
    if flag > 1:
        raise ValueError("a flag of another form")
    info = new(PaddingInfo, (padding, tuple(places), ratio, advice))
    efficiency = new(LayoutEfficiency, (use, cache, waste, potential))
    return new(MemoryLayout, (total, alignment, tuple(fields), info, efficiency, analysis)), at


def _memscope_text_at(data: bytes, at: int) -> Tuple[str, int]:
    (size,) = _U32.unpack_from(data, at)
    at += 4 + size
    if at > len(data):
        raise ValueError("the text goes on")
    return data[at - size : at].decode(), at


def _memscope_texts_at(data: bytes, at: int) -> Tuple[Tuple[str, ...], int]:
    (size,) = _U32.unpack_from(data, at)
    at += 4
    texts = []
    for _ in range(size):
        text, at = _memscope_text_at(data, at)
        texts.append(text)
    return tuple(texts), at


# ---- memscope: Writer


class MemscopeWriter(Writer[MemscopeHeader, Allocation]):
    """Writes a ``.memscope`` file, in layout 3c, which today's programs open, or in another (memscope 11).

    ``mode`` is ``"full"``, ``"user"``, which leaves out records without a name, or ``"legacy"``, whose header counts
    all records as the user's; layouts before 2d have none.  ``metrics`` adds the section ADVD, with what the original's
    ``"default"`` or ``"comprehensive"`` configuration puts there.  The counts are filled in with every 500 records, by
    ``flush`` and by ``close``, so the file must be seekable, unless a document or layout T is written.
    """

    format = "memscope"

    def __init__(
        self, file: WritableFile, *, layout: str = "3c", mode: Optional[str] = None, metrics: Optional[str] = None
    ) -> None:
        if layout not in MEMSCOPE_LAYOUTS:
            raise ValueError(f"a layout is one of {', '.join(MEMSCOPE_LAYOUTS)}, not {layout!r}")
        modes = ("full", "user", "legacy") if "2d" <= layout < "T" else (None,)
        if mode not in (*modes, None):
            raise ValueError(f"layout {layout} has no mode {mode!r}")
        if metrics is not None and (metrics not in MEMSCOPE_METRICS_BITMAPS or not "2a" <= layout < "T"):
            raise ValueError(f"layout {layout} has no metrics {metrics!r}")
        self._set_layout(layout)
        self._mode = mode or modes[0]
        self._bitmap = MEMSCOPE_METRICS_BITMAPS[metrics] if metrics else None
        self._lists: Tuple[List[bytes], List[bytes]] = ([], [])  # what the metrics will hold
        self._pieces: List[bytes] = []
        self._total = self._named = 0
        super().__init__(file)

    def _set_layout(self, layout: str) -> None:
        self._layout = layout
        self._fields = _memscope_fields(layout)
        held = {name for name, _ in self._fields}
        usual = Allocation._field_defaults
        self._missing = {name: usual[name] for name in usual if name not in held and name != "raw"}

    def allocation(self, ptr: int, size: int, timestamp_alloc: int, **fields: Any) -> None:
        """Write an allocation; ``fields`` are those of Allocation, by name."""
        self.write(Allocation(ptr, size, timestamp_alloc, **fields))

    def write_all(self, records: Iterable[Allocation]) -> None:
        """Write records in order; what the layout cannot hold is a ValueError or TypeError."""
        if self._closed:
            raise ValueError("the writer is closed")
        self._write_start()
        # Usual records are encoded here, everything else, and what is wrong, by _record_bytes.
        encode = _memscope_encoder(self._layout)
        pieces = self._pieces
        user_only = self._mode == "user"
        for record in records:
            piece = encode(record) if type(record) is Allocation else None
            if piece is None:
                piece = self._record_bytes(record)
            named = record.var_name is not None
            if user_only and not named:
                continue
            if self._bitmap is not None:
                self._collect(record)
            self._named += named
            pieces.append(piece)
            self._total += 1
            if len(pieces) >= 500:
                self._put()

    def _record_bytes(self, record: Allocation) -> bytes:
        """Any record; raises ValueError or TypeError for what cannot be one here."""
        if not isinstance(record, Allocation):
            raise TypeError(f"not a record of memscope: {record!r}")
        if record.raw:
            return _raw_bytes(record)
        if self._layout == "T":
            return _memscope_members(record, first=not self._total).encode()
        for name, usual in self._missing.items():
            if getattr(record, name) != usual:
                raise ValueError(f"layout {self._layout} has no {name}")
        if record.stack_trace is not None and not record.stack_trace:
            raise ValueError("an empty stack_trace cannot be told from none")  # erratum 8
        parts = []
        for name, type in self._fields:
            value = getattr(record, name)
            if type == "?" + name and isinstance(value, str):
                if self._document and self._layout == "2b":
                    type = "?json"  # a file of layout 2a, which began like one of 2b
                else:
                    value = _memscope_from_json(type, record.slot(name))
            elif type == "?json":
                value = _memscope_json(value)
            parts.append(
                _memscope_write_value(name, type, () if value is None and type == "*sstr" else value, self._layout)
            )
        data = b"".join(parts)
        return b"\1" + _U32.pack(_integer("Length", len(data), 32)) + data

    def _collect(self, record: Allocation) -> None:
        """Keep what the metrics say of a record."""
        if record.lifetime_ms is not None:
            metric = LifecycleMetric(record.ptr, record.lifetime_ms, record.lifecycle_tracking)
            self._lists[0].append(_memscope_write_value("lifecycle", "lifecycle", metric, self._layout))
        layout = record.slot_text("memory_layout")
        if layout is not None:
            metric_of_layout = JsonMetric(record.ptr, layout)
            self._lists[1].append(_memscope_write_value("container", "container", metric_of_layout, self._layout))

    def _header(self) -> bytes:
        user, system, mode = self._named & 0xFFFF, self._total - (self._named & 0xFFFF) & 0xFFFF, self._mode == "full"
        if self._mode == "legacy":
            user, system = self._total & 0xFFFF, 0
        version = int(self._layout[0])
        start = (MEMSCOPE_MAGIC, version, self._total)
        features = 3 if self._layout == "3c" and self._mode != "legacy" else 0
        rest = {1: (), 2: (mode, user, system, 0, 0), 3: (mode, user, system, features, 0, 0, 0, 0)}
        return _pack(_memscope_header(self._layout), (*start, *rest[version if self._mode else 1]))

    def _begin(self, header: MemscopeHeader, tables: Mapping[str, Any]) -> None:
        """Start with the header of a document; the tables are ``layout`` and ``string_block``."""
        super()._begin(header, tables)
        layout = tables.get("layout")
        if layout not in MEMSCOPE_LAYOUTS:
            raise ValueError(f"the layout is one of {', '.join(MEMSCOPE_LAYOUTS)}, not {layout!r}")
        start = b"" if layout == "T" else _memscope_write_header(header, layout)
        if "2c" <= layout < "T":
            block = tables.get("string_block")
            start += _MEMSCOPE_NO_STRINGS if block is None else block
        self._set_layout(layout)
        self._mode = self._bitmap = None
        self._pieces.append(start)

    def _end(self, tables: Mapping[str, Any], tail: bytes) -> None:
        """Write the metrics, or the end of T's list, and the tail."""
        metrics = tables.get("advanced_metrics")
        if metrics is not None:
            self._pieces.append(_raw_bytes(metrics) or _memscope_write_metrics(metrics, self._layout))
        if self._layout == "T":
            self._end_list(tables.get("text_end"))
        self._put()
        self._sink.write(tail)

    def _write_start(self) -> None:
        if not self._begun:
            if self._layout != "T":
                if not self._sink.seekable:
                    raise ValueError("the counts are filled in later: the file must be seekable")
                self._pieces.append(self._header() + (_MEMSCOPE_NO_STRINGS if self._layout >= "2c" else b""))
            self._begun = True

    def _put(self) -> None:
        """Write the pieces, and the counts."""
        self._sink.write(b"".join(self._pieces))
        self._pieces.clear()
        if not self._document and self._layout != "T":
            self._sink.patch(0, self._header())

    def _end_list(self, end: Optional[bytes]) -> None:
        self._pieces.append((b"\n]" if self._total else b"[]") if end is None else end)

    def flush(self) -> None:
        """Hand what has been written to the operating system, with its counts."""
        self._write_start()
        self._put()
        super().flush()

    def _finish(self) -> None:
        if self._document:
            return
        self._write_start()
        if self._bitmap is not None:
            data = b"".join([_U32.pack(len(entries)) + b"".join(entries) for entries in self._lists])
            self._pieces.append(_pack(MEMSCOPE_METRICS, (b"ADVD", 16 + len(data), self._bitmap, 0)) + data)
        if self._layout == "T":
            self._end_list(None)
        self._put()


def _memscope_write_header(header: MemscopeHeader, layout: str) -> bytes:
    """The bytes of a header; raises ValueError or TypeError for what its layout cannot hold."""
    values = {"magic": MEMSCOPE_MAGIC, **header._asdict()}
    return _pack_present(_memscope_header(layout), values, f"layout {layout}")


def _memscope_write_metrics(metrics: AdvancedMetrics, layout: str) -> bytes:
    parts = []
    for bit, name in enumerate(_MEMSCOPE_LISTS):
        entries = getattr(metrics, name)
        if (entries is None) == bool(metrics.metrics_bitmap >> bit & 1):
            raise ValueError(f"metrics_bitmap does not tell whether there is a list {name}")
        if entries is not None:
            parts.append(_memscope_write_value(name, "*" + name, entries, layout))
    head = (b"ADVD", metrics.segment_size, metrics.metrics_bitmap, metrics.reserved)
    return _pack(MEMSCOPE_METRICS, head) + b"".join(parts)


def _memscope_write_value(name: str, type: str, value: Any, layout: str) -> bytes:
    """A value of any type; raises ValueError or TypeError, with its name, for what cannot be one."""
    if type in ("u32", "u64"):
        return _MEMSCOPE_FORMS[type].pack(_integer(name, value, int(type[1:])))
    if type[0] == "?":
        return b"\0" if value is None else b"\1" + _memscope_write_value(name, type[1:], value, layout)
    if type[0] == "*":
        parts = [_memscope_write_value(name, type[1:], item, layout) for item in value]
        return _U32.pack(len(parts)) + b"".join(parts)
    kind: Any = {"f64": float, "bool": bool, "flag": bool}.get(type) or _MEMSCOPE_CLASSES.get(type, str)
    if not isinstance(value, kind) and not (type == "ostr" and value is None):
        raise TypeError(f"{name} is not of type {kind.__name__}: {value!r}")
    if type == "f64":
        return _MEMSCOPE_FORMS[type].pack(value)
    if kind is bool:
        return b"\1" if value else b"\0"
    if type in _MEMSCOPE_STRUCTURES:
        fields = _MEMSCOPE_STRUCTURES[type]
        return b"".join([_memscope_write_value(field, inner, getattr(value, field), layout) for field, inner in fields])
    if type in _MEMSCOPE_CHOICES:
        choices = _MEMSCOPE_CHOICES[type]
        choice = value if kind is str else value.kind
        if choice not in choices:
            raise ValueError(f"{name} is one of {', '.join(choices)}, not {choice!r}")
        held = dict(choices[choice])
        for field, usual in () if kind is str else value._field_defaults.items():
            if field not in ("kind", *held) and getattr(value, field) != usual:
                raise ValueError(f"{name} of kind {choice} has no {field}")
        parts = [_memscope_write_value(field, held[field], getattr(value, field), layout) for field in held]
        return bytes([[*choices].index(choice)]) + b"".join(parts)
    if value is None:
        return _U32.pack(_MEMSCOPE_NULL if layout >= "2c" else 0)
    data = _encode_text(value)
    if layout >= "2c":
        if len(data) == _MEMSCOPE_REFERENCE and type not in ("pstr", "plain_json"):
            raise ValueError(f"{name} is of 65535 bytes, which cannot be told from a reference")  # memscope 12
    elif type == "ostr" and not data:
        raise ValueError(f"an empty {name} cannot be told from none in layout {layout}")  # erratum 8
    return _U32.pack(_integer(f"the size of {name}", len(data), 32)) + data


def _memscope_encoder(layout: str) -> Callable[[Any], Optional[bytes]]:
    """What gives the bytes of a usual record, and None for an unusual one, as all are in layouts 1a and 1b."""
    if not "1c" <= layout < "T":
        return lambda _record: None
    borrows, all_json = layout >= "3b", layout in _MEMSCOPE_JSON_ONLY
    start = struct.Struct("<BIQQQ").pack
    time = struct.Struct("<BQ").pack
    present = struct.Struct("<BI").pack
    state = struct.Struct("<IBB").pack
    state_alive = struct.Struct("<IBBQ").pack
    borrowed = struct.Struct("<BIIIB").pack
    borrowed_at = struct.Struct("<BIIIBQ").pack
    cloned = struct.Struct("<BIBB").pack
    cloned_from = struct.Struct("<BIBBQ").pack
    bare = (*(None,) * 16, b"")  # from smart_pointer_info on
    absent = bytes(14)
    names: Dict[Optional[str], bytes] = {}
    none = _U32.pack(_MEMSCOPE_NULL if layout >= "2c" else 0)

    def encode(record: Any) -> Optional[bytes]:
        ptr, size, alloc, dealloc, name, kind, scope, thread, stack, borrow_count, leaked, lifetime = record[:12]
        rest = record[15:]
        if type(thread) is not str or type(leaked) is not bool:
            return None
        try:
            data = b""
            for text in (name, kind, scope, thread):
                piece = names.get(text) or keep(text)
                if not piece:
                    return None
                data += piece
            if not stack:
                if stack is not None:
                    return None
                data += b"\0\0\0\0"
            else:
                data += _U32.pack(len(stack)) + b"".join([sized(frame) for frame in stack])
            if lifetime is None:
                data += state(borrow_count, leaked, 0)
            else:
                data += state_alive(borrow_count, leaked, 1, lifetime)
            if borrows:
                borrow, clone, owned = record[12:15]
                if borrow is None:
                    data += b"\0"
                else:
                    immutable, mutable, most, last = borrow
                    if last is None:
                        data += borrowed(1, immutable, mutable, most, 0)
                    else:
                        data += borrowed_at(1, immutable, mutable, most, 1, last)
                if clone is None:
                    data += b"\0"
                else:
                    times, is_clone, original = clone
                    if type(is_clone) is not bool:
                        return None
                    if original is None:
                        data += cloned(1, times, is_clone, 0)
                    else:
                        data += cloned_from(1, times, is_clone, 1, original)
                if type(owned) is not bool:
                    return None
                data += b"\1" if owned else b"\0"
            elif record[12:15] != (None, None, False):
                return None
            if rest == bare:
                data += absent
            else:
                pointer, memory, *slots, drop, path, raw = rest
                if raw or drop is not None or path is not None:
                    return None
                parts = [b"", data]  # the start comes last, when the length is known
                if all_json:
                    slots = [pointer, memory, *slots]
                else:
                    parts.append(b"\0" if pointer is None else b"\1" + _memscope_pointer_bytes(pointer))
                    parts.append(b"\0" if memory is None else b"\1" + _memscope_layout_bytes(memory))
                for slot in slots:
                    if slot is None:
                        parts.append(b"\0")
                    else:
                        text = slot.encode("utf-8", "surrogateescape")
                        if len(text) == _MEMSCOPE_REFERENCE:
                            return None
                        parts += (present(1, len(text)), text)
                length = sum(map(len, parts))
                parts[0] = start(1, length + 25, ptr, size, alloc) + b"\0"
                if dealloc is not None:
                    parts[0] = start(1, length + 33, ptr, size, alloc) + time(1, dealloc)
                return b"".join(parts)
            if dealloc is None:
                return start(1, 25 + len(data), ptr, size, alloc) + b"\0" + data
            return start(1, 33 + len(data), ptr, size, alloc) + time(1, dealloc) + data
        except (struct.error, TypeError, ValueError, AttributeError, OverflowError):
            return None  # _record_bytes tells what is wrong

    def keep(text: Optional[str]) -> bytes:
        """The bytes of a name, kept for the next of its like; none of an unusual one."""
        if len(names) > 4096:
            names.clear()
        if text is None:
            return none
        piece = sized(text)
        usual = len(piece) > 4 or layout >= "2c"
        return names.setdefault(text, piece) if usual else b""

    def sized(text: str) -> bytes:
        data = text.encode("utf-8", "surrogateescape")
        if len(data) == _MEMSCOPE_REFERENCE:
            raise ValueError("a text of 65535 bytes")
        return _U32.pack(len(data)) + data

    return encode


def _memscope_pointer_bytes(pointer: SmartPointer) -> bytes:
    """The bytes of a usual smart pointer; TypeError, ValueError, AttributeError or struct.error: it is another."""
    clones, history = pointer.clones, pointer.ref_count_history
    flags = (pointer.is_weak_reference, pointer.is_data_owner, pointer.is_implicitly_deallocated)
    if not all(flag is True or flag is False for flag in flags):
        raise TypeError("a flag that is no bool")
    origin, weak = pointer.cloned_from, pointer.weak_count
    parts = [
        _U64.pack(pointer.data_ptr),
        b"\0" if origin is None else b"\1" + _U64.pack(origin),
        struct.pack(f"<I{len(clones)}Q", len(clones), *clones) if clones else b"\0\0\0\0",
        _U32.pack(len(history)) if history else b"\0\0\0\0",
        *[_MEMSCOPE_TRIPLE(*counts) for counts in history],
        b"\0" if weak is None else b"\1" + _U64.pack(weak),
        bytes([*flags, _MEMSCOPE_POINTERS.index(pointer.pointer_type)]),
    ]
    return b"".join(parts)


def _memscope_layout_bytes(layout: MemoryLayout) -> bytes:
    """The same of a usual memory layout."""
    total, alignment, fields, info, efficiency, analysis = layout
    parts = [_MEMSCOPE_LAYOUT_START.pack(total, alignment, len(fields))]
    for name, kind, offset, size, field_alignment, padding in fields:
        if type(padding) is not bool:
            raise TypeError("a flag that is no bool")
        numbers = _MEMSCOPE_FIELD_END.pack(offset, size, field_alignment, padding)
        parts += (_memscope_texts_bytes((name, kind)), numbers)
    parts.append(_MEMSCOPE_NUMBER_SIZE.pack(info.total_padding_bytes, len(info.padding_locations)))
    for start, size, (reason, text) in info.padding_locations:
        parts.append(_MEMSCOPE_NUMBERS_BYTE.pack(start, size, _MEMSCOPE_REASONS.index(reason)))
        if reason == "Other":
            parts.append(_memscope_texts_bytes((text,)))
        elif text:
            raise ValueError("a text that is not stored")
    advice = info.optimization_suggestions
    parts += (_MEMSCOPE_FLOAT_SIZE.pack(info.padding_ratio, len(advice)), _memscope_texts_bytes(advice))
    use, cache, waste, (kind, savings, suggestions) = efficiency
    level = _MEMSCOPE_LEVELS.index(kind)
    parts.append(_MEMSCOPE_EFFICIENCY.pack(use, cache, waste, level))
    if level:
        parts.append(_U64.pack(savings))
    if level > 1:
        parts += (_U32.pack(len(suggestions)), _memscope_texts_bytes(suggestions))
    elif suggestions or (savings and not level):
        raise ValueError("suggestions that are not stored")
    parts.append(b"\0" if analysis is None else b"\1" + _memscope_texts_bytes((analysis,)))
    return b"".join(parts)


def _memscope_texts_bytes(texts: Iterable[str]) -> bytes:
    return b"".join([_U32.pack(len(data)) + data for data in map(_encode_text, texts)])


# ---- memscope: semantics

_MEMSCOPE_FOREIGN = ("CStr", "c_void", "extern ")  # in types that come from C
_MEMSCOPE_SIZE_CLASSES = (100, 1024, 10_240, 102_400)  # bytes; the bounds of upstream's dashboard (memscope 13)
_MEMSCOPE_LARGE = 1 << 20  # bytes above which a size is a risk


def memscope_path(name: str, *, like_upstream: bool = False) -> str:
    """Where an export of this name is to be found: as the guide promises, or as the program does it (erratum 1).

    The program replaces what it takes for another extension: ``run.v2`` becomes ``run``.

    >>> memscope_path("run.v2"), memscope_path("run.v2", like_upstream=True)
    ('MemoryAnalysis/run.v2/run.v2.memscope', 'MemoryAnalysis/run.memscope')
    """
    path = name.removesuffix(".memscope")
    folder, slash, file = path.rpartition("/")
    if like_upstream and path == name and "." in file[1:]:
        file = file.rpartition(".")[0]
    if file in ("", ".", ".."):
        raise ValueError(f"not the name of an export: {name!r}")
    return f"MemoryAnalysis/{folder}{slash}{file}" + ("" if like_upstream else f"/{file}") + ".memscope"


def memscope_description(header: MemscopeHeader, size: int) -> str:
    """The line of upstream's ``detect_binary_type`` about a file of ``size`` bytes (memscope 13).

    >>> memscope_description(MemscopeHeader(3, 52, 1, 10, 42), 6700)
    'Full binary (52 total allocations: 10 user + 42 system, 6 KB)'
    """
    kilobytes = f"{size // 1024} KB"
    if header.export_mode == 1:
        users = f"{header.user_count} user + {header.system_count} system"
        return f"Full binary ({header.total_count} total allocations: {users}, {kilobytes})"
    kind = "Binary" if header.export_mode is None else "User-only binary"
    return f"{kind} ({header.total_count} total allocations, {kilobytes})"


def memscope_category(type_name: Optional[str]) -> str:
    """What upstream's converter sorts types by; ``unknown`` without a name (memscope 13, complex_types).

    >>> memscope_category("alloc::vec::Vec<u8>"), memscope_category("alloc::string::String"), memscope_category("u8")
    ('generic', 'module_type', 'primitive')
    """
    if type_name is None:
        return "unknown"
    if "<" in type_name and ">" in type_name:
        return "generic"
    if type_name.startswith(("Vec", "HashMap")):
        return "collection"
    return "module_type" if "::" in type_name else "primitive"


class MemscopeUse(NamedTuple):
    """Records that have something in common, ``name``: how many, and their bytes.

    ``active`` of them are not freed, ``leaked`` carry that flag; the last three are sizes in bytes.
    """

    name: Optional[str]
    records: int
    bytes: int
    active: int
    active_bytes: int
    leaked: int
    leaked_bytes: int
    smallest: int
    largest: int
    average: float


class MemscopeLifetimes(NamedTuple):
    """The lifetimes that records tell, in milliseconds; 1 is what the tracker gives where it measured none."""

    records: int
    min_ms: int
    max_ms: int
    average_ms: float


class MemscopeRisk(NamedTuple):
    """A risk, and the records of one type and variable that run it (memscope 13, the converter's risk list)."""

    severity: str  # high, medium, low
    risk: str
    type_name: Optional[str]
    var_name: Optional[str]
    records: int
    bytes: int


class MemscopeAnalysis(NamedTuple):
    """What a snapshot adds up to; sums are exact, where upstream's wrap.

    Uses are sorted by bytes, the largest first.  ``by_generic_type`` takes what stands before the ``<`` of generic
    types, ``by_size`` upstream's five classes in order.  Times are nanoseconds since 1970, 0 without records.
    """

    total: MemscopeUse
    named: int
    first_alloc_ns: int
    last_alloc_ns: int
    lifetimes: MemscopeLifetimes
    by_scope: Tuple[MemscopeUse, ...]
    by_thread: Tuple[MemscopeUse, ...]
    by_type: Tuple[MemscopeUse, ...]
    by_generic_type: Tuple[MemscopeUse, ...]
    by_category: Tuple[MemscopeUse, ...]
    by_size: Tuple[MemscopeUse, ...]
    risks: Tuple[MemscopeRisk, ...]


def memscope_risks(record: Allocation) -> List[Tuple[str, str]]:
    """The risks of one record, each with its severity, by what the record itself tells."""
    found = []
    if record.is_leaked:
        found.append(("high", "leaked"))
    type_name = record.type_name or ""
    if "*const " in type_name or "*mut " in type_name:
        found.append(("high", "raw pointer"))
    if record.size > _MEMSCOPE_LARGE:
        found.append(("medium", "over 1 MiB"))
    if record.borrow_count > 10:
        found.append(("medium", "over 10 borrows"))
    if any(part in type_name for part in _MEMSCOPE_FOREIGN):
        found.append(("medium", "foreign type"))
    if record.lifetime_ms == 0:
        found.append(("low", "lifetime of 0 ms"))
    return found


_MemscopeKey = Tuple[Optional[str], Optional[str], Optional[str], int]  # scope, thread, type, size class


def memscope_analysis(reader: Iterable[Allocation]) -> MemscopeAnalysis:
    """Read all, or take any records, and add them up; what is kept grows with scopes, threads, types and risks."""
    groups: Dict[_MemscopeKey, List[int]] = {}
    risks: Dict[Tuple[str, str, Optional[str], Optional[str]], List[int]] = {}
    lived = lived_ms = longest_ms = 0
    shortest_ms = _U64_MAX
    named, first, last = 0, _U64_MAX, 0
    under_100, under_1k, under_10k, under_100k = _MEMSCOPE_SIZE_CLASSES
    for record in reader:
        size, time_ns, freed = record.size, record.timestamp_alloc, record.timestamp_dealloc
        place = 0 if size < under_100 else 1 if size < under_1k else 2 if size < under_10k else 3 + (size >= under_100k)
        key = record.scope_name, record.thread_id, record.type_name, place
        numbers = groups.get(key)
        if numbers is None:
            numbers = groups[key] = [0, 0, 0, 0, 0, 0, size, size]
        numbers[0] += 1
        numbers[1] += size
        if freed is None:
            numbers[2] += 1
            numbers[3] += size
        if record.is_leaked:
            numbers[4] += 1
            numbers[5] += size
        if size < numbers[6]:
            numbers[6] = size
        elif size > numbers[7]:
            numbers[7] = size
        if record.var_name is not None:
            named += 1
        if time_ns < first:
            first = time_ns
        if time_ns > last:
            last = time_ns
        lifetime = record.lifetime_ms
        if lifetime is not None:
            lived += 1
            lived_ms += lifetime
            shortest_ms = min(shortest_ms, lifetime)
            longest_ms = max(longest_ms, lifetime)
        for severity, risk in memscope_risks(record):
            sums = risks.setdefault((severity, risk, record.type_name, record.var_name), [0, 0])
            sums[0] += 1
            sums[1] += size
    generic = {key: numbers for key, numbers in groups.items() if memscope_category(key[2]) == "generic"}
    bounds = [f"below {bound:,}" for bound in _MEMSCOPE_SIZE_CLASSES] + [f"{under_100k:,} and more"]
    sizes = {use.name: use for use in _memscope_uses(groups, lambda key: bounds[key[3]])}
    (total,) = _memscope_uses(groups, lambda _: None) or (MemscopeUse(None, 0, 0, 0, 0, 0, 0, 0, 0, 0.0),)
    return MemscopeAnalysis(
        total,
        named,
        min(first, last),
        last,
        MemscopeLifetimes(lived, min(shortest_ms, longest_ms), longest_ms, lived_ms / max(lived, 1)),
        _memscope_uses(groups, lambda key: key[0]),
        _memscope_uses(groups, lambda key: key[1]),
        _memscope_uses(groups, lambda key: key[2]),
        _memscope_uses(generic, lambda key: cast("str", key[2]).partition("<")[0]),
        _memscope_uses(groups, lambda key: memscope_category(key[2])),
        tuple([sizes[name] for name in bounds if name in sizes]),
        tuple(
            sorted(
                [MemscopeRisk(*key, *sums) for key, sums in risks.items()],
                key=lambda one: (
                    ("high", "medium", "low").index(one.severity),
                    -one.bytes,
                    -one.records,
                    one.risk,
                    one.type_name or "",
                    one.var_name or "",
                ),
            )
        ),
    )


def _memscope_uses(
    groups: Mapping[_MemscopeKey, List[int]], name: Callable[[_MemscopeKey], Optional[str]]
) -> Tuple[MemscopeUse, ...]:
    """The sums of the groups of one name."""
    uses: Dict[Optional[str], List[int]] = {}
    for key, numbers in groups.items():
        sums = uses.setdefault(name(key), [0, 0, 0, 0, 0, 0, *numbers[6:]])
        sums[:] = [*map(sum, zip(sums[:6], numbers)), min(sums[6], numbers[6]), max(sums[7], numbers[7])]
    made = [MemscopeUse._make((key, *sums, sums[1] / sums[0])) for key, sums in uses.items()]
    return tuple(sorted(made, key=lambda use: (-use.bytes, -use.records, use.name or "")))


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
    "clog": Format(
        "clog",
        "binary log of CNanoLog, a logger for C",
        (".clog",),
        lambda prefix: prefix.startswith((b"ONAN", b"NANO")),
        ClogReader,
        ClogWriter,
        _explain_clog,
        ClogHeader,
        (LogEntry,),
        {
            "sites": Tuple[LogSite, ...],
            "levels": Tuple[LogLevel, ...],
            "max_args": Optional[int],
            "dictionary": Optional[bytes],
        },
    ),
    "prof": Format(
        "prof",
        "capture of easy_profiler, a profiler for C++",
        (".prof",),
        lambda prefix: prefix.startswith((PROF_SIGNATURE.to_bytes(4, "little"), _PROF_SPELLED, _PROF_NETWORK)),
        ProfReader,
        ProfWriter,
        _explain_prof,
        ProfHeader,
        (Descriptor, Thread, ContextSwitch, Block, Value, Bookmark),
        {"end_marks": Optional[int]},
    ),
    "mb": Format(
        "mb",
        "time series and page maps of the Memory Dump application",
        (".mb",),
        lambda prefix: prefix.startswith(MB_MAGIC),
        MbReader,
        MbWriter,
        _explain_mb,
        MbHeader,
        (Series, Point),
        {"strings": Tuple[str, ...], "series_count": Optional[int], "start": Optional[bytes]},
    ),
    "mb-json": Format(
        "mb-json",
        "time series and page maps of the Memory Dump application, as JSON",
        (".json",),
        _is_mb_json,
        MbJsonReader,
        MbJsonWriter,
        _explain_mb_json,
        MbJsonHeader,
        (Series, Point),
        {"end": Optional[str]},
    ),
    "memscope": Format(
        "memscope",
        "allocations of memscope-rs, a memory tracker for Rust",
        (".memscope",),
        lambda prefix: prefix.startswith(MEMSCOPE_MAGIC) or _json_start(prefix) == "ptr",
        MemscopeReader,
        MemscopeWriter,
        _explain_memscope,
        MemscopeHeader,
        (Allocation,),
        {
            "layout": str,
            "string_block": Optional[bytes],
            "text_end": Optional[bytes],
            "advanced_metrics": Optional[AdvancedMetrics],
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
        if _json_start(source.peek(_PREFIX)) == "format":
            raise FormatError("unknown", "bad-magic", 0, "", "a document of decode, of which encode makes a file")
        raise FormatError("unknown", "bad-magic", 0, "", f"none of the formats {', '.join(FORMATS)}")
    if name not in FORMATS:
        raise ValueError(f"no format is called {name!r}; there are: {', '.join(FORMATS)}")
    return FORMATS[name]


@overload
def open(file: ReadableFile, mode: Literal["r"] = "r", *, format: Literal["mlyze"], **options: Any) -> MlyzeReader: ...


@overload
def open(file: WritableFile, mode: Literal["w"], format: Literal["mlyze"], **options: Any) -> MlyzeWriter: ...


@overload
def open(file: ReadableFile, mode: Literal["r"] = "r", *, format: Literal["clog"], **options: Any) -> ClogReader: ...


@overload
def open(file: WritableFile, mode: Literal["w"], format: Literal["clog"], **options: Any) -> ClogWriter: ...


@overload
def open(file: ReadableFile, mode: Literal["r"] = "r", *, format: Literal["prof"], **options: Any) -> ProfReader: ...


@overload
def open(file: WritableFile, mode: Literal["w"], format: Literal["prof"], **options: Any) -> ProfWriter: ...


@overload
def open(file: ReadableFile, mode: Literal["r"] = "r", *, format: Literal["mb"], **options: Any) -> MbReader: ...


@overload
def open(file: WritableFile, mode: Literal["w"], format: Literal["mb"], **options: Any) -> MbWriter: ...


@overload
def open(
    file: ReadableFile, mode: Literal["r"] = "r", *, format: Literal["mb-json"], **options: Any
) -> MbJsonReader: ...


@overload
def open(file: WritableFile, mode: Literal["w"], format: Literal["mb-json"], **options: Any) -> MbJsonWriter: ...


@overload
def open(
    file: ReadableFile, mode: Literal["r"] = "r", *, format: Literal["memscope"], **options: Any
) -> MemscopeReader: ...


@overload
def open(file: WritableFile, mode: Literal["w"], format: Literal["memscope"], **options: Any) -> MemscopeWriter: ...


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
_JSON_FLOATS = {0x7FF8 << 48: "NaN", 0x7FF0 << 48: "Infinity", 0xFFF0 << 48: "-Infinity"}  # by their bits


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
    if isinstance(value, float) and not -_INFINITY < value < _INFINITY:
        bits = struct.unpack("<Q", struct.pack("<d", value))[0]
        return _JSON_FLOATS.get(bits, {"bits": f"0x{bits:016x}"})
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
            writer._end(document.tables, document.tail)
        except FormatError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            raise _bad_json(document.where, str(error), offset=document.offset) from None


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
    if not isinstance(value, dict):
        raise _bad_json("", "not an object, as a document or a line of one is", offset=offset)
    return value


def _float_from_json(value: Any) -> Optional[float]:
    """A float from a number, from one of the words for those that JSON lacks, or from its bits; else None."""
    if isinstance(value, dict) and [*value] == ["bits"] and type(value["bits"]) is str:
        digits = value["bits"]
        if digits[:2] == "0x" and len(digits) == 18 and all(c in "0123456789abcdef" for c in digits[2:]):
            return cast("float", struct.unpack(">d", bytes.fromhex(digits[2:]))[0])
    if type(value) is int and -1 << 1023 < value < 1 << 1023:
        return float(value)
    bits = next((bits for bits, word in _JSON_FLOATS.items() if word == value), None)
    if bits is not None:
        return cast("float", struct.unpack("<d", struct.pack("<Q", bits))[0])
    return value if type(value) is float else None


_HINTS: Dict[type, Dict[str, Any]] = {}  # filled by _from_json: the field types of each NamedTuple


def _from_json(hint: Any, value: Any, where: str, offset: int = 0) -> Any:
    """A value of the type ``hint`` from its JSON form, the reverse of _to_json; ``offset`` is for errors."""
    if hint is object or (hint in (int, str, bool, type(None)) and type(value) is hint):
        return value
    origin = get_origin(hint)
    inner = get_args(hint)
    if hint is bytes and isinstance(value, str):
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise _bad_json(where, "not hexadecimal", offset=offset) from None
    if origin is Union:
        fitting = [one for one in inner if type(value) is one]
        return _from_json((fitting or inner)[0], value, where, offset)
    if hint is float:
        number = _float_from_json(value)
        if number is not None:
            return number
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


def _clog_to_text(reader: ClogReader, options: _Options) -> Iterator[bytes]:
    """The lines of ``convert --to text``, some at a time; those before a fault come before it is raised."""
    upstream = options.like_upstream
    text = ClogText(reader, options.pattern, utc_offset=_local_offset, like_upstream=upstream)
    entries = _clog_upstream_entries(reader) if upstream else iter(reader)
    wanted = _clog_wanted(reader, text, options.level, like_upstream=upstream) if options.level is not None else None
    sort: Optional[List[Tuple[int, str]]] = [] if options.sort else None
    lines: List[str] = []
    add = lines.append
    line = text.line
    try:
        for entry in entries:
            made = line(entry)
            if wanted is not None and entry[0] not in wanted:
                continue
            if sort is not None:
                sort.append((reader.time_ns(entry) or 0, made))
                continue
            add(made)
            if len(lines) >= 500:
                yield _encode_text("\n".join(lines) + "\n")
                lines.clear()
    except FormatError as error:
        yield _clog_sorted_lines(lines, sort)
        for problem in reader.problems:
            if problem.where.endswith("." + error.where):  # an entry of no known site, which knows not where it stands
                raise _error("clog", error.code, problem.offset, problem.where, error.reason) from None
        raise
    yield _clog_sorted_lines(lines, sort)


def _clog_sorted_lines(lines: Iterable[str], sort: Optional[List[Tuple[int, str]]]) -> bytes:
    if sort is not None:
        lines = [line for _, line in sorted(sort, key=lambda timed: timed[0])]
    return _encode_text("".join([line + "\n" for line in lines]))


def _ascii_lower(text: str) -> str:
    return _decode_text(_encode_text(text).lower())


def _clog_upstream_entries(reader: ClogReader) -> Iterator[LogEntry]:
    """As many entries as CNanoLog's decompressor reads; raises FormatError where it refuses a file, or stops."""
    header = reader.header
    if header.version_major != CLOG_VERSION:
        raise _error("clog", "unsupported-version", 4, "version_major", str(header.version_major))
    if not header.dictionary_offset or reader.max_args is None:
        raise _error("clog", "bad-reference", 40, "dictionary_offset", "no dictionary there that can be read")
    if any(len(_encode_text(level.name)) > 31 for level in reader.levels):
        raise _error("clog", "bad-size", header.dictionary_offset, "levels", "level name of more than 31 bytes")
    number = 0
    for number, entry in enumerate(reader, 1):
        if number > header.entry_count:
            return
        yield entry
    if number < header.entry_count:
        raise _error("clog", "bad-reference", header.dictionary_offset, f"entries[{number}].log_id", "no such site")


def _clog_wanted(reader: ClogReader, text: ClogText, wanted: str, *, like_upstream: bool) -> Optional[FrozenSet[int]]:
    """The numbers of the sites whose level is asked for by name; None for all.

    ``like_upstream``: unknown names are passed over, those of no known level filter nothing, 255 has no name.
    """
    names = {_ascii_lower(level.name): level.level for level in reversed(reader.levels)}
    names.update({name.lower(): level for level, name in CLOG_LEVEL_NAMES.items()})
    if like_upstream:
        names = {name: level for name, level in names.items() if level != 255}
    else:
        names.update({_ascii_lower(text.level(site.log_level)): site.log_level for site in reader.sites})
    levels = set()
    for name in wanted.split(","):
        key = _ascii_lower(name.strip(" \t"))
        if key in names:
            levels.add(names[key])
        elif key and like_upstream:
            _complain(f"unknown level {name.strip()!r}")
        elif key:
            raise _UsageError(
                f"no level is called {name.strip()!r}; there are: {', '.join(sorted(filter(None, names)))}"
            )
    return frozenset(place for place, site in enumerate(reader.sites) if site.log_level in levels) if levels else None


def _prof_to_json(reader: ProfReader, options: _Options) -> Iterator[bytes]:
    """The JSON of easy_profiler's converter (prof, Semantics 8), with context switches and values besides.

    With ``like_upstream`` without these, as the converter prints it.  It prints nothing where its reader refuses a
    file; here a line on stderr says so.
    """
    upstream = options.like_upstream
    verdict = ProfVerdict(reader)
    names = ProfNames(reader.descriptors)
    bookmarks: List[Bookmark] = []

    def records() -> Iterator[ProfRecord]:
        for record in reader:
            verdict.take(record)
            if type(record) is Bookmark:
                bookmarks.append(record)
            yield record

    threads = []  # they come after what only the last of them completes
    first = 0  # the number of the next record that upstream keeps
    for tree in prof_trees(records()):
        first += sum([not switch.dropped for switch in tree.switches])
        threads.append(_encode_text("".join(_prof_thread_json(tree, names, first, upstream=upstream))))
        first += sum([not block.dropped for block in tree.blocks])
    refused = verdict.text()
    if upstream and refused:
        _complain(f"{options.file}: easy_profiler would write nothing of this, for its reader refuses it: {refused}")
    text = json.dumps
    parts = [f'{{\n "blockDescriptors": {_prof_json_list(_prof_descriptors_json(reader.descriptors, names), 1)}']
    marks = [
        f'{{\n   "color": "0x{one.color:x}",\n   "text": {text(one.text, ensure_ascii=False)},\n'
        f'   "timestamp": {one.position}\n  }}'
        for one in bookmarks
    ]
    parts.append(f' "bookmarks": {_prof_json_list(marks, 1)}')
    parts.append(' "threads": [' + "\n  " * bool(threads))
    yield _encode_text(",\n".join(parts))
    for place, thread in enumerate(threads):
        yield b",\n  " + thread if place else thread
    yield b"\n ]" if threads else b"]"
    yield b',\n "timeUnits": "ns",\n "version": "2.1.0"\n}'


def _prof_json_list(items: Sequence[str], indent: int) -> str:
    """A list in JSON, its items on lines of their own."""
    space = "\n" + " " * indent
    return f"[{space} " + f",{space} ".join(items) + f"{space}]" if items else "[]"


def _prof_descriptors_json(descriptors: Sequence[Descriptor], names: ProfNames) -> List[str]:
    made: List[Tuple[Descriptor, int, Optional[int], str]] = [
        (one, one.id, None, one.name) for one in descriptors if one.type >= 0
    ]
    made += [
        (descriptors[parent], number, descriptors[parent].id, name)
        for name, (number, parent) in names.runtime.items()
        if parent < len(descriptors)
    ]
    return [
        "{\n   "
        + ",\n   ".join(
            [
                f'"color": "0x{one.color:x}"',
                f'"id": {number}',
                f'"name": {json.dumps(name, ensure_ascii=False)}',
                *([] if parent is None else [f'"parentId": {parent}']),
                f'"sourceFile": {json.dumps(one.file, ensure_ascii=False)}',
                f'"sourceLine": {one.line}',
                f'"type": {one.type}',
            ]
        )
        + "\n  }"
        for one, number, parent, name in made
    ]


def _prof_thread_json(tree: ProfTree, names: ProfNames, first: int, *, upstream: bool) -> Iterator[str]:
    """A thread with its blocks, which nest without limit; ``first`` is the number of its first block that is kept."""
    numbers: Dict[int, Tuple[int, int]] = {}  # of the blocks that are kept: in the capture, and by name
    for index, block in enumerate(tree.blocks):
        if not block.dropped:
            numbers[index] = first + len(numbers), names.number(block)
    quoted: Dict[int, str] = {}
    yield '{\n   "children": ['
    indents: List[str] = []
    comma = ""
    for enters, index, level in tree.walk():
        if len(indents) <= level:
            indents.append(
                "\n" + " " * (4 + 2 * min(level, 255))
            )  # upstream's deepest; else the text grows with the square
        indent = indents[level]
        if enters:
            yield f'{comma}{indent}{{{indent} "children": [' + ("" if index in tree.children else "]")
            comma = ""
            continue
        block = tree.blocks[index]
        number, name = numbers[index]
        if name not in quoted:
            quoted[name] = json.dumps(names.name(block), ensure_ascii=False)
        end = f"{indent} ]" if index in tree.children else ""
        value = ""
        if type(block) is Value and not upstream:
            value = f',{indent} "value": {json.dumps(_to_json(block.value), ensure_ascii=False)}'
        yield (
            f'{end},{indent} "descriptor": {name},{indent} "id": {number},{indent} "name": {quoted[name]}'
            f',{indent} "start": {block.begin_ns},{indent} "stop": {block.end_ns}{value}{indent}}}'
        )
        comma = ","
    yield "\n   ]" if tree.roots else "]"
    if not upstream:
        yield f',\n   "contextSwitches": {_prof_json_list(_prof_switches_json(tree), 3)}'
    name_text = json.dumps(tree.thread.name, ensure_ascii=False)
    yield f',\n   "threadId": {tree.thread.thread_id},\n   "threadName": {name_text}\n  }}'


def _prof_switches_json(tree: ProfTree) -> List[str]:
    return [
        f'{{\n     "name": {json.dumps(one.name, ensure_ascii=False)},\n     "start": {one.begin_ns},\n'
        f'     "stop": {one.end_ns},\n     "targetThreadId": {one.target_thread_id}\n    }}'
        for one in tree.switches
        if not one.dropped
    ]


_MB_LOSSES: Rules = dict.fromkeys(
    (
        "bytes that are not UTF-8 become U+FFFD, as the application reads them",
        "a leading U+FEFF is left out, as the application reads it",
        "a lone surrogate becomes U+FFFD",
        "not a number that JSON has: null",
        "an id of zeros: the application will make one up",
        "runs that free ranges do not tell again",
        "occupancy is rounded to 32 bits",
        "an occupancy of -1 stands for none",
        "free ranges that are not whole units of 8 bytes in order",
        "a page with nothing but a size: free in the application's totals of JSON, used in .mb",
        "a size of 2^32 or more is written modulo 2^32, as the application does",
        "a timestamp that is not a number",
    ),
    ("note", "lossy"),
)


class _MbLosses:
    """Counts what a conversion loses, to be told on stderr."""

    def __init__(self, format: str) -> None:
        self._problems = _Problems(format, _MB_LOSSES, strict=False, recover=False)
        self._series = self._point = -1
        self._texts: Set[str] = set()  # that stay as they are

    def add(self, rule: str, where: str) -> None:
        """Count one in the record that is being converted."""
        point = f".data[{self._point}]" if self._point >= 0 else ""
        self._problems.add(rule, 0, f"series[{self._series}]{point}{where}")

    def enter(self, record: MbRecord) -> None:
        """The record that comes next."""
        if type(record) is Series:
            self._series += 1
            self._point = -1
        else:
            self._point += 1

    def look(self, page: Page, runs: Sequence[int]) -> None:
        """A page that becomes a list of free ranges."""
        if sum(runs) != -(-page[0] // _MB_UNIT) or 0 in runs[1:]:
            self.add("runs that free ranges do not tell again", ".meta.memory")
        if page[1] is not None and not -_INFINITY < page[1] < _INFINITY:
            self.add("not a number that JSON has: null", ".meta.memory")

    def tell(self, file: str) -> None:
        """Print what there is, a line for each kind."""
        for one in self._problems.list():
            times = f" ({one.times:,} times)" if one.times > 1 else ""
            _complain(f"{file}: lost: {one.where}: {one.message}{times}")

    def text(self, text: str, where: str, *, like_reader: bool) -> str:
        """Text as it arrives: ``like_reader`` from .mb, as the application reads it, else from JSON."""
        if text in self._texts:
            return text
        if like_reader:
            made = _encode_text(text).decode("utf-8", "replace")
            rule = "bytes that are not UTF-8 become U+FFFD, as the application reads them"
        else:
            made, rule = _js_well_formed(text), "a lone surrogate becomes U+FFFD"
        if made != text:
            self.add(rule, where)
        if like_reader and made.startswith("\ufeff"):
            made = made[1:]
            self.add("a leading U+FEFF is left out, as the application reads it", where)
        if len(self._texts) > 4096:
            self._texts.clear()
        if made == text:
            self._texts.add(text)
        return made


class _Pieces:
    """A file that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._pieces: List[bytes] = []
        self.write = self._pieces.append

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def _mb_to_json(reader: MbReader, options: _Options) -> Iterator[bytes]:
    """The application's JSON export of what it reads (mb 3.1), with ``--bitmap`` in the form of its guide."""
    losses = _MbLosses(reader.format)
    made = _Pieces()
    writer = MbJsonWriter(made, bitmap=options.bitmap)
    writer._look = losses.look
    pieces: List[str] = []
    size = 0
    for record in reader:
        losses.enter(record)
        piece = writer._piece(_mb_for_json(record, losses))
        pieces.append(piece)
        size += len(piece)
        if size > _CHUNK:
            writer._put(pieces)
            yield made.take()
            size = 0
    writer._put(pieces)
    writer.close()
    yield made.take()
    losses.tell(options.file)


def _mb_for_json(record: MbRecord, losses: _MbLosses) -> MbRecord:
    """A record of .mb with what the application's reader makes of its texts, and without its bytes."""
    if type(record) is Series:
        if not any(record.id):
            losses.add("an id of zeros: the application will make one up", ".id")
        title = losses.text(record.name, ".name", like_reader=True)
        return record._replace(name=title, color=losses.text(record.color, ".color", like_reader=True), raw=b"")
    time, value, name, id, has_meta, event, types, raw = cast("Point", record)
    if not (-_INFINITY < time < _INFINITY and -_INFINITY < value < _INFINITY):
        losses.add("not a number that JSON has: null", ".value" if time - time == 0 else ".timestamp")
    if name is None and not has_meta and not raw:
        return record
    if name is not None:
        name = losses.text(name, ".name", like_reader=True)
    if event is not None:
        event = losses.text(event, ".meta.event", like_reader=True)
    if types:
        titles = [losses.text(one.name, ".meta.memory", like_reader=True) for one in types]
        types = tuple([one._replace(name=title) for one, title in zip(types, titles)])
    return tuple.__new__(Point, (time, value, name, id, has_meta, event, types, b""))


def _mb_json_to_json(reader: MbJsonReader, options: _Options) -> Iterator[bytes]:
    """What the application's export writes of what its import reads: five keys of a series, all of a point (mb 3)."""
    made = _Pieces()
    writer = MbJsonWriter(made)
    for record in reader:
        if type(record) is Series:
            writer.write(record._replace(raw=b""))
        else:
            point = cast("Point", record)
            text = _mb_json_imported(point, bitmap=options.bitmap)
            writer.write(point._replace(raw=(writer._comma + text).encode("utf-8", "backslashreplace")))
        yield made.take()
    writer.close()
    yield made.take()
    _mb_tell_losses(options.file, (problem for problem in reader.problems if ".data" not in problem.where))


def _mb_tell_losses(file: str, problems: Iterable[Problem]) -> None:
    for problem in problems:
        if problem.code == "lossy":
            _complain(f"{file}: {_problem_text(problem)}")


def _mb_json_imported(point: Point, *, bitmap: bool) -> str:
    """The JSON of a point after import, which computes the totals of a snapshot anew."""
    value = _mb_json_object(point)
    memory = _mb_json_memory(value)
    if memory is not None:
        memory["conclusion"] = _mb_conclusion_json(_mb_json_totals(memory))
        for one, made in zip(memory["pageTypes"] if bitmap else (), point.page_types or ()):
            for page, record in zip(one["pages"], made.pages):
                page.pop("freeList", None)
                page["bitmap"] = record.run_stream.hex()
    elif isinstance(value.get("meta"), dict) and isinstance(value["meta"].get("memory"), dict):
        value["meta"]["memory"].pop("conclusion", None)
    return _js_json(value)


def _mb_conclusion_json(found: MbConclusion) -> Dict[str, Any]:
    return {
        "totalPageCount": float(found.total_page_count),
        "totalSize": found.total_size,
        "totalUsedSize": found.total_used_size,
        "overallSurvivalRate": found.overall_survival_rate,
        "emptyPageCount": float(found.empty_page_count),
        "totalEmptySize": found.total_empty_size,
        "typeStats": [
            {"name": one.name, "count": float(one.page_count), "survivalRate": one.survival_rate}
            for one in found.type_stats
        ],
    }


def _mb_json_to_mb(reader: MbJsonReader, options: _Options) -> Iterator[bytes]:
    """The .mb that the application writes of the JSON, but that times as text become microseconds (erratum 11)."""
    losses = _MbLosses(reader.format)
    made = _Pieces()
    with MbWriter(made, like_upstream=True) as writer:
        for record in reader:
            losses.enter(record)
            if type(record) is Series:
                name = losses.text(record.name, ".name", like_reader=False)
                color = losses.text(record.color, ".color", like_reader=False)
                writer.write(record._replace(name=name, color=color, raw=b""))
                continue
            point = cast("Point", record)
            if point.timestamp != point.timestamp:
                losses.add("a timestamp that is not a number", ".timestamp")
            if point.page_types:
                _mb_json_page_losses(point, losses)
            writer.write(point._replace(raw=b""))
    yield made.take()
    losses.tell(options.file)
    _mb_tell_losses(options.file, reader.problems)


def _mb_json_page_losses(point: Point, losses: _MbLosses) -> None:
    """Count what pages lose between JSON and .mb."""
    memory = _mb_json_memory(_mb_json_object(point)) or {"pageTypes": []}
    for one, made in zip(memory["pageTypes"], point.page_types or ()):
        pages = one.get("pages") if isinstance(one, dict) else None
        for page, record in zip(pages if isinstance(pages, list) else (), made.pages):
            size, share, stream, _ = record
            if size >= 1 << 32:
                losses.add("a size of 2^32 or more is written modulo 2^32, as the application does", ".meta.memory")
            if share == -1.0:
                losses.add("an occupancy of -1 stands for none", ".meta.memory")
            elif share is not None and not _mb_is_f32(share):
                losses.add("occupancy is rounded to 32 bits", ".meta.memory")
            if not isinstance(page, dict) or page.get("bitmap"):
                continue
            if "freeList" in page:
                if page["freeList"] != [[*one] for one in mb_free_ranges(_mb_runs(_mb_json_whole(stream)))]:
                    losses.add("free ranges that are not whole units of 8 bytes in order", ".meta.memory")
            elif "occupancy" not in page and size:
                rule = "a page with nothing but a size: free in the application's totals of JSON, used in .mb"
                losses.add(rule, ".meta.memory")


def _mb_is_f32(value: float) -> bool:
    try:
        return cast("float", _MB_F32.unpack(_MB_F32.pack(value))[0]) == value
    except OverflowError:
        return False


_MEMSCOPE_KEPT = "\ud800"  # around the digits of a float that Python would write in another way; no UTF-8 gives it
_MEMSCOPE_DEPTH = 127  # levels of objects and lists in each other that upstream's JSON library takes
_MEMSCOPE_COMPACT: Any = {"separators": (",", ":")}
# What JSON holds that is not compact, may be escaped otherwise, or is Python's; inside a string it only costs time.
_MEMSCOPE_LOOSE = (*"\n\r\t", ", ", ": ", "{ ", "[ ", " ,", " :", " }", " ]", "\\u", "\\/", "NaN", "Infinity")


def _memscope_digits(digits: str) -> Union[float, str]:
    """A float of a JSON text, or, where Python's form of it is another, what keeps its digits."""
    return float(digits) if repr(float(digits)) == digits else _MEMSCOPE_KEPT + digits + _MEMSCOPE_KEPT


def _memscope_again(text: str, **form: Any) -> str:
    """JSON text in another form, one of ``json.dumps``; its numbers stay.  Raises ValueError for what is no JSON."""
    deep = text.count("[") + text.count("{") > _MEMSCOPE_DEPTH
    if (
        form == _MEMSCOPE_COMPACT
        and not deep
        and text == text.strip()
        and not any(map(text.__contains__, _MEMSCOPE_LOOSE))
    ):
        _parse_json(text)
        return text
    digits = None if "\\ud800" in text.lower() else _memscope_digits  # no text of upstream's has such an escape
    value = _parse_json(text, digits)
    level = [value] if deep else []
    depth = -1
    while level:
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for items in inner for one in items if isinstance(one, (dict, list))]
        depth += 1
    if depth >= _MEMSCOPE_DEPTH:
        raise ValueError("nested too deeply")
    made = json.dumps(value, ensure_ascii=False, allow_nan=False, **form)
    return made if digits is None else made.replace(f'"{_MEMSCOPE_KEPT}', "").replace(f'{_MEMSCOPE_KEPT}"', "")


def _memscope_part(name: str, value: Any, form: Mapping[str, Any], *, upstream: bool) -> str:
    """An object of a record as JSON; where a slot holds none, upstream refuses the file, and ours gives a string."""
    if isinstance(value, SmartPointer):  # which many records have
        history = [counts._asdict() for counts in value.ref_count_history]
        return json.dumps({**value._asdict(), "ref_count_history": history}, **form)
    text = _memscope_json(value)
    if text is None:
        return "null"
    try:
        return _memscope_again(text, **form)
    except ValueError as error:
        if upstream:
            place = getattr(error, "pos", 0)
            raise _error("memscope", "bad-json", place, name, getattr(error, "msg", str(error)), "slot") from None
        return _memscope_quoted(text)


def _memscope_bytes(text: str) -> bytes:
    """JSON or HTML in UTF-8; of what was none the lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace")


def _memscope_chunks(file: IO[bytes], offset: int = 0) -> Iterator[bytes]:
    """What has been written to a scratch file."""
    file.seek(offset)
    yield from iter(lambda: file.read(_CHUNK), b"")


def _memscope_refuse(reader: MemscopeReader, *, cut: bool = False) -> None:
    """Raise what upstream's converters refuse; some take files that are cut, all cut metrics (memscope 12)."""
    for problem in reader.problems:
        cut_off = problem.code == "truncated" and (cut or problem.where.startswith("metrics."))
        if problem.code == "bad-utf8" or not (problem.severity != "fault" or cut_off):
            raise _error("memscope", problem.code, problem.offset, problem.where, problem.message)


def _memscope_list(reader: MemscopeReader, options: _Options, *, indented: Optional[bool] = None) -> Iterator[str]:
    """The records as upstream's single JSON (memscope 13), a piece for each and one for the end.

    Unless ``like_upstream`` with what that leaves out.  Upstream indents the JSON before 3c, that of a page always.
    """
    upstream = options.like_upstream
    layout = options.layout or reader.layout
    if indented is None:
        indented = upstream and layout < "3c"
    borrows = not upstream or layout >= "3b"
    end = 30 if not upstream or layout >= "2c" else 29  # drop_chain_analysis came with 2c
    names = [*_MEMSCOPE_KEYS[:7], *_MEMSCOPE_KEYS[7 + upstream : 12], *_MEMSCOPE_KEYS[12 if borrows else 15 : end]]
    comma, colon = (",\n    ", ": ") if indented else (",", ":")
    keys = [f'{comma}"{name}"{colon}' for name in names]
    keys[0] = ("\n  {" if indented else "{") + keys[0][1:]
    form = {"indent": 2} if indented else _MEMSCOPE_COMPACT
    text = _memscope_quoted
    borrow_info, clone_info = (
        "{" + inner + f",{inner}".join([f'"{name}"{colon}%s' for name in kind._fields]) + outer + "}"
        for kind in (BorrowInfo, CloneInfo)
        for inner, outer in [("\n      ", "\n    ") if indented else ("", "")]
    )

    def number(value: Optional[int]) -> str:
        return "null" if value is None else str(value)

    def part(name: str, value: Any) -> str:
        made = _memscope_part(name, value, form, upstream=upstream)
        return made.replace("\n", "\n    ") if indented else made

    before = "["
    for record in reader:
        ptr, size, alloc, dealloc, var, type, scope, thread, stack, borrow_count, leaked, lifetime = record[:12]
        values = [
            str(ptr),
            str(size),
            "null" if var is None else text(var),
            "null" if type is None else text(type),
            "null" if scope is None else text(scope),
            str(alloc),
            number(dealloc),
            *(() if upstream else (text(thread),)),
            str(borrow_count),
            "null" if stack is None else part("stack_trace", f"[{','.join(map(text, stack))}]"),
            "true" if leaked else "false",
            number(lifetime),
        ]
        objects = record[15:end]
        if borrows:
            borrow, clone, history = record[12:15]
            values += [
                "null" if borrow is None else borrow_info % (*borrow[:3], number(borrow[3])),
                "null" if clone is None else clone_info % (clone[0], "true" if clone[1] else "false", number(clone[2])),
                "true" if history else "false",
            ]
        if objects.count(None) == len(objects):
            values += ["null"] * len(objects)
        else:
            values += map(part, record._fields[15:end], objects)
        if record[30] is not None and not upstream:
            values[-1] += f'{comma}"module_path"{colon}{text(record[30])}'
        yield before + "".join([key + value for key, value in zip(keys, values)]) + ("\n  }" if indented else "}")
        before = ","
    yield "[]" if before == "[" else "\n]" if indented else "]"


def _memscope_to_json(reader: MemscopeReader, options: _Options) -> Iterator[bytes]:
    """``parse_binary_to_json`` (memscope 13): a list of all records, which reads like layout T."""
    for piece in _memscope_list(reader, options):
        yield _memscope_bytes(piece)
    if options.like_upstream:
        _memscope_refuse(reader)


def _memscope_to_html(reader: MemscopeReader, options: _Options) -> Iterator[bytes]:
    """``parse_binary_to_html`` (memscope 13): a page with the records as JSON, escaped unless ``like_upstream``."""
    upstream = options.like_upstream
    number = -1  # the last piece is the end of the list
    with options.scratch() as scratch:  # for the number of records stands before them
        for piece in _memscope_list(reader, options, indented=True):
            number += 1
            if not upstream:
                piece = piece.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
            scratch.write(_memscope_bytes(piece))
        if upstream:
            _memscope_refuse(reader, cut=True)
        html, head = ("<html>", "") if upstream else ('<html lang="en">', '<meta charset="utf-8">')
        yield (
            f"<!DOCTYPE html>\n{html}\n<head>{head}<title>Memory Analysis</title></head>\n<body>\n"
            f"<h1>Memory Analysis Report</h1>\n<p>Total allocations: {number}</p>\n<pre>"
        ).encode()
        yield from _memscope_chunks(scratch)
    yield b"</pre>\n</body>\n</html>"


MEMSCOPE_FILES = ("memory_analysis", "lifetime", "performance", "unsafe_ffi", "complex_types")
_MEMSCOPE_TYPE_OBJECTS = (  # that complex_types shows, in its order
    "dynamic_type_info",
    "generic_info",
    "generic_instantiation",
    "memory_layout",
    "smart_pointer_info",
    "type_relationships",
    "type_usage",
)
# By name, what each of the five files tells of itself; of unsafe_ffi the one before 2d (memscope 13).
_MEMSCOPE_FEATURES = {
    "memory_analysis": '"enhanced_ffi_analysis":true,"parallel_processing":true,"security_analysis":false',
    "lifetime": '"enhanced_ffi_analysis":true,"parallel_processing":true',
    "performance": '"batch_size":1000,"parallel_processing":true',
    "unsafe_ffi": '"boundary_event_processing":true,"enhanced_ffi_analysis":true,"memory_passport_tracking":true',
    "complex_types": '"generic_analysis":true,"memory_layout_analysis":true,"type_categorization":true',
}


def _memscope_sized_type(size: int) -> str:
    """What upstream calls a type without a name, by its size (memscope 13).

    >>> [_memscope_sized_type(size) for size in (8, 40, 41, 2048)]
    ['u64_or_f64_or_i64_or_usize', 'AlignedStruct_40bytes', 'CustomType_41bytes', 'LargeAllocation_2048bytes']
    """
    known = {
        0: "ZeroSizedType",
        1: "u8_or_bool",
        2: "u16_or_char",
        4: "u32_or_f32_or_i32",
        8: "u64_or_f64_or_i64_or_usize",
        16: "u128_or_i128_or_complex_struct",
        24: "Vec_or_String_header",
        32: "HashMap_or_BTreeMap_header",
    }
    kind = "LargeAllocation" if size >= 1024 else "CustomType" if size % 8 else "AlignedStruct"
    return known.get(size, f"{kind}_{size}bytes")


def _memscope_type_item(
    record: Allocation, type_text: str, var_text: str, form: Any, *, stand_ins: bool, upstream: bool
) -> str:
    """An item of complex_types; for objects that the record lacks, null or what upstream puts there."""
    absent = ["null"] * 7
    if stand_ins:
        absent = [
            f'{{"runtime_type":{type_text},"type":"static"}}',
            '{"generic_type":"none","type_parameters":[]}',
            '{"instantiation":"none","parameters":[]}',
            f'{{"alignment":1,"layout_type":"default","size":{record.size}}}',
            '{"ref_count":0,"type":"none"}',
            '{"inheritance":"none","relationships":[]}',
            '{"usage_count":1,"usage_pattern":"single"}',
        ]
    values = [getattr(record, name) for name in _MEMSCOPE_TYPE_OBJECTS]
    if values.count(None) < len(values):
        absent = [
            other if value is None else _memscope_part(name, value, form, upstream=upstream)
            for name, value, other in zip(_MEMSCOPE_TYPE_OBJECTS, values, absent)
        ]
    dynamic, generic, instance, layout, pointer, relations, usage = absent
    return (
        f'{{"dynamic_type_info":{dynamic},"generic_info":{generic},"generic_instantiation":{instance}'
        f',"memory_layout":{layout},"ptr":"{record.ptr:#x}","size":{record.size},"smart_pointer_info":{pointer}'
        f',"type_name":{type_text},"type_relationships":{relations},"type_usage":{usage},"var_name":{var_text}}}'
    )


def _memscope_sums(groups: Mapping[Any, Sequence[Any]], counted: str, *, wraps: bool) -> str:
    """What records of one name add up to, as a JSON object: their number, the sum of their sizes, and the sizes."""
    made = []
    for name, (count, total, *sizes) in sorted(groups.items()):
        total = total & _U64_MAX if wraps else total
        listed = f'"sizes":[{sizes[0][:-1].decode()}],' if sizes else ""
        told = sorted([f'"{counted}":{count},', f'"average_size":{total // count},'])
        made.append(f'{_memscope_quoted(name)}:{{{"".join(told)}{listed}"total_size":{total}}}')
    return f"{{{','.join(made)}}}"


def _memscope_metadata(name: str, count: int, timestamp: int) -> str:
    """What each of the five files tells of itself."""
    return (
        f'"metadata":{{"analysis_type":"integrated_{name.replace("_analysis", "")}_analysis","export_version":"2.0"'
        f',"optimization_level":"High","pipeline_features":{{{_MEMSCOPE_FEATURES[name]}}},"timestamp":{timestamp}'
        f',"total_allocations_analyzed":{count}}}'
    )


def _memscope_complex_types(
    categories: Mapping[str, Tuple[IO[bytes], List[str]]],
    types: Mapping[Optional[str], List[Any]],
    about: str,
    *,
    wraps: bool,
) -> Iterator[bytes]:
    """The fifth of the five files: the records by category of their type, then totals of the generic types."""
    start = '{"categorized_types":{'
    for category in sorted(categories):
        yield f'{start}"{category}":['.encode()
        yield from _memscope_chunks(categories[category][0], 1)  # after the first comma
        start = "],"
    brackets = "]" if categories else start
    generics = {name: sums[:2] for name, sums in types.items() if memscope_category(name) == "generic"}
    count = sum([sums[0] for sums in types.values()])
    ratio = sum([sums[0] for sums in generics.values()]) / max(count, 1) * 100
    yield _memscope_bytes(
        f'{brackets}}},"generic_types":{_memscope_sums(generics, "instantiation_count", wraps=wraps)}'
        f',{about},"summary":{{"complex_type_ratio":{_memscope_float(ratio)}'
        f',"generic_types":{len(generics)},"total_allocations":{count},"type_categories":{len(categories)}}}}}'
    )


class _MemscopeFive:
    """The five files: the lines of each that wait to be written, and what all records add up to.

    With ``like_upstream`` as its converter made them: "old" before 2d, "new" since.  Else like the new ones, but of
    all records, with null for what a record does not tell, its fragmentation_analysis in place of a score of 0.0,
    exact sums, and as unsafe_ffi the risks that the records run (erratum 6).
    """

    def __init__(self, layout: str, options: _Options) -> None:
        self.upstream: bool = options.like_upstream
        self.old = self.upstream and layout < "2d"
        self.new = self.upstream and not self.old
        self.scratch: Callable[[], IO[bytes]] = options.scratch
        self.timestamp: int = options.timestamp
        self.form = {"sort_keys": True, **_MEMSCOPE_COMPACT}
        self.count = self.total = self.leaks = self.freed = self.largest = 0
        self.smallest = _U64_MAX
        self.scopes: Dict[str, List[Any]] = {}  # here and below: how many, the sum of their sizes, and more
        self.threads: Dict[str, List[Any]] = {}
        self.types: Dict[Optional[str], List[Any]] = {}
        self.categories: Dict[str, Tuple[IO[bytes], List[str]]] = {}
        self.lines: Dict[str, List[str]] = {name: [] for name in MEMSCOPE_FILES[:4]}
        self.commas = dict.fromkeys(self.lines, "")

    def starts(self) -> Iterator[Tuple[str, bytes]]:
        yield "memory_analysis", b'{"allocations":['
        yield "lifetime", b'{"lifecycle_events":['
        yield "performance", b'{"allocations":['
        yield "unsafe_ffi", b'{"boundary_events":[],"enhanced_ffi_data":[' if self.old else b"["

    def add(self, record: Allocation) -> None:
        """Take a record into all five."""
        ptr, size, alloc, dealloc, var, type, scope, thread = record[:8]
        if self.old:
            var, type = ("unknown" if name is None else name for name in (var, type))
        elif self.new:
            if var is None:
                return
            if type is None:
                type = _memscope_sized_type(size)
        if scope is None:
            scope = "global"
        self.count += 1
        self.total += size
        if size < self.smallest:
            self.smallest = size
        if size > self.largest:
            self.largest = size
        self.leaks += record.is_leaked
        self.freed += dealloc is not None
        by_scope = self.scopes.get(scope) or self.scopes.setdefault(scope, [0, 0, bytearray()])
        by_scope[2] += b"%d," % size
        by_thread = self.threads.get(thread) or self.threads.setdefault(thread, [0, 0])
        by_type = self.types.get(type) or self._new_type(type)
        for one in by_scope, by_thread, by_type:
            one[0] += 1
            one[1] += size
        _, _, type_text, items = by_type
        text = _memscope_quoted
        var_text = "null" if var is None else text(var)
        item = _memscope_type_item(record, type_text, var_text, self.form, stand_ins=self.new, upstream=self.upstream)
        items.append("," + item)
        scope_text = text(scope)
        names = f'"type_name":{type_text},"var_name":{var_text}}}'
        events = self.lines["lifetime"]
        events.append(
            f'{{"event":"allocation","ptr":"{ptr:#x}","scope":{scope_text},"size":{size},"timestamp":{alloc},{names}'
        )
        if dealloc is not None:
            events.append(
                f'{{"event":"deallocation","ptr":"{ptr:#x}","scope":{scope_text},"timestamp":{dealloc}'
                f',"var_name":{var_text}}}'
            )
        (self._add_old if self.old else self._add_new)(record, scope_text, text(thread), names)

    def _new_type(self, type: Optional[str]) -> List[Any]:
        """The sums of a type that is new, its text, and the list of the items of its category."""
        category = memscope_category(type)
        if category not in self.categories:
            self.categories[category] = self.scratch(), []
        text = "null" if type is None else _memscope_quoted(type)
        return self.types.setdefault(type, [0, 0, text, self.categories[category][1]])

    def _add_old(self, record: Allocation, scope: str, thread: str, names: str) -> None:
        """The lines of three of the files as they were before 2d."""
        ptr, size, alloc = record[:3]
        start = f'{{"borrow_count":{record.borrow_count},'
        end = f'"size":{size},"thread_id":{thread},"timestamp_alloc":{alloc},{names}'
        leaked = "true" if record.is_leaked else "false"
        fragments, state = [
            _memscope_part(name, getattr(record, name), self.form, upstream=True)
            for name in ("fragmentation_analysis", "runtime_state")
        ]
        frames = "null" if record.stack_trace is None else f"[{','.join(map(_memscope_quoted, record.stack_trace))}]"
        place = f'"is_leaked":{leaked},"ptr":"{ptr:#x}","scope_name":{scope}'
        self.lines["memory_analysis"].append(f"{start}{place},{end}")
        self.lines["performance"].append(f'{start}"fragmentation_analysis":{fragments},"ptr":"{ptr:#x}",{end}')
        self.lines["unsafe_ffi"].append(
            f'{{"ptr":"{ptr:#x}","runtime_state":{state},"size":{size},"stack_trace":{frames}'
            f',"thread_id":{thread},"timestamp":{alloc},{names}'
        )

    def _add_new(self, record: Allocation, scope: str, thread: str, names: str) -> None:
        """The same since 2d, and here."""
        ptr, size, alloc, dealloc, _, _, _, _, stack, borrow_count, is_leaked, lifetime_ms = record[:12]
        no_number, no_frames = ("0", '"no_stack_trace"') if self.new else ("null", "null")
        lived = no_number if lifetime_ms is None else lifetime_ms
        ended = no_number if dealloc is None else dealloc
        frames = no_frames if stack is None else _memscope_quoted(" -> ".join(stack))
        fragments = '"fragmentation_score":0.0'
        if not self.new:
            analysis = record.fragmentation_analysis
            made = _memscope_part("fragmentation_analysis", analysis, self.form, upstream=False)
            fragments = f'"fragmentation_analysis":{made}'
            self.lines["unsafe_ffi"] += [
                f'{{"ptr":"{ptr:#x}","risk":"{risk}","severity":"{severity}","size":{size}'
                f',"thread_id":{thread},"timestamp":{alloc},{names}'
                for severity, risk in memscope_risks(record)
            ]
        start = f'{{"borrow_count":{borrow_count},'
        place = f'"is_leaked":{"true" if is_leaked else "false"},"lifetime_ms":{lived},"ptr":{ptr},"scope_name":{scope}'
        end = f'"thread_id":{thread},"timestamp_alloc":{alloc}'
        self.lines["memory_analysis"].append(
            f'{start}{place},"size":{size},"stack_trace":{frames},{end},"timestamp_dealloc":{ended},{names}'
        )
        self.lines["performance"].append(f'{start}{fragments},{place},"size":{size},{end},{names}')

    def flush(self) -> Iterator[Tuple[str, bytes]]:
        """The lines that wait."""
        for name, made in self.lines.items():
            if made:
                yield name, _memscope_bytes(self.commas[name] + ",".join(made))
                self.commas[name] = ","
                made.clear()
        for file, items in self.categories.values():
            file.write(_memscope_bytes("".join(items)))
            items.clear()

    def ends(self) -> Iterator[Tuple[str, bytes]]:
        """What stands behind the records, and the fifth file."""
        total = self.total & _U64_MAX if self.upstream else self.total
        about = {name: _memscope_metadata(name, self.count, self.timestamp) for name in MEMSCOPE_FILES}
        mean = f'"average_size":{total // max(self.count, 1)}'
        sizes = f'"max_size":{self.largest},"min_size":{min(self.smallest, self.largest)}'
        summary = f'{sizes},"total_allocations":{self.count},"total_memory":{total}'
        leaks = f'"leaked_count":{self.leaks}'
        by_scope, by_thread = [
            _memscope_sums(groups, "allocation_count", wraps=self.upstream) for groups in (self.scopes, self.threads)
        ]
        ends = {
            "memory_analysis": f',{about["memory_analysis"]},"summary":{{{mean},{leaks},{summary}}}}}',
            "lifetime": f',{about["lifetime"]},"scope_analysis":{by_scope},"summary":{{{leaks}'
            f',"total_allocations":{self.count},"total_events":{self.count + self.freed}'
            f',"unique_scopes":{len(self.scopes)}}},"variable_lifetimes":{{}}}}',
            "performance": f',{about["performance"]},"summary":{{{mean},{summary}'
            f',"unique_threads":{len(self.threads)}}},"thread_analysis":{by_thread}}}',
            "unsafe_ffi": f',"ffi_patterns":[],{about["unsafe_ffi"]},"safety_violations":[],"summary":{{'
            f'"boundary_events":0,"enhanced_entries":{self.count},"ffi_count":0,"risk_assessment":"low"'
            ',"safety_violations":0,"total_risk_items":0,"unsafe_count":0},"unsafe_indicators":[]}'
            if self.old
            else "",
        }
        for name, end in ends.items():
            yield name, _memscope_bytes("]" + end)
        for piece in _memscope_complex_types(self.categories, self.types, about["complex_types"], wraps=self.upstream):
            yield "complex_types", piece

    def close(self) -> None:
        for file, _ in self.categories.values():
            file.close()


def _memscope_to_json5(reader: MemscopeReader, options: _Options) -> Iterator[Tuple[str, bytes]]:
    """``parse_binary_to_standard_json`` (memscope 13): pieces of the five files, each with the name of its file."""
    files = _MemscopeFive(options.layout or reader.layout, options)
    try:
        yield from files.starts()
        for record in reader:
            files.add(record)
            if not files.count % 500:
                yield from files.flush()
        yield from files.flush()
        if options.like_upstream:
            _memscope_refuse(reader, cut=True)
        yield from files.ends()
    finally:
        files.close()


# ==== 9. Views: what the command line tells of each format ==========================================

_Options = Any  # argparse.Namespace, which the command line alone imports
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
        return _many(value, "byte")
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


def _first_names(names: Sequence[str]) -> str:
    """As many names as fit a line."""
    return ", ".join(names[:8]) + ", ..." * (len(names) > 8)


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
    """What the command line can tell of one format, and what it converts it to."""

    info: Callable[[Any], Iterator[Tuple[str, str]]]
    stats: Callable[[Any, _Options], Iterator[str]]
    stats_json: Callable[[Any, _Options], Any]
    demo: Callable[[WritableFile], None]
    targets: Mapping[str, Callable[[Any, _Options], Iterator[bytes]]]
    compare: Optional[Callable[[Any, Any, _Options], Iterator[str]]] = None  # what ``stats`` prints of two files
    compare_json: Optional[Callable[[Any, Any, _Options], Any]] = None
    verdict: Optional[Callable[[Any], Any]] = None  # is given each record, then tells what upstream's reader says
    # What fills a folder: the names of its files, and what gives pieces of them.
    folders: Mapping[str, Tuple[Sequence[str], Callable[[Any, _Options], Iterator[Tuple[str, bytes]]]]] = {}
    upstream_stats: Optional[Callable[[_Source, str], Tuple[List[str], bool]]] = None


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


def _clog_info(reader: ClogReader) -> Iterator[Tuple[str, str]]:
    """What ``info`` tells of a log."""
    header = reader.header
    found = clog_analysis(reader)
    family = f"family {reader.family}" if reader.family else "no dictionary"
    yield "version", f"{header.version_major}.{header.version_minor}, {family}, {header.byte_order}-endian"
    yield "started", _utc(header.start_time_sec * 1_000_000 + header.start_time_nsec // 1000)
    if found.first_ns is not None and found.last_ns is not None:
        yield "first", _utc(found.first_ns // 1000)
        yield "lasts", _duration((found.last_ns - found.first_ns) // 1000)
    elif not header.has_timestamps:
        yield "times", "none: the program was built without"
    levels = ", ".join(f"{number:,} {_printable(name) or '(no name)'}" for name, number in found.by_level.items())
    yield "entries", f"{found.entries:,}" + (f": {levels}" if levels else "")
    yield "arguments", ", ".join(f"{number:,} {name}" for name, number in found.encodings.items()) or "none"
    registered = ", ".join(f"{_printable(level.name) or '(no name)'} ({level.level})" for level in reader.levels)
    yield "registered", _many(len(reader.sites), "site") + (f"; levels {registered}" if registered else "")


def _clog_stats(reader: ClogReader, options: _Options) -> Iterator[str]:
    """What ``stats`` prints of a log."""
    found = clog_analysis(reader)
    timed = found.first_ns is not None and found.last_ns is not None
    took = f" in {_duration(((found.last_ns or 0) - (found.first_ns or 0)) // 1000)}" if timed else ""
    since = f" from {_utc((found.first_ns or 0) // 1000)}" if timed else ""
    yield f"{_many(found.entries, 'entry', 'entries')}, {_size(found.bytes)}{took}{since}"
    yield from _facts(_clog_facts(found))
    yield from _table(
        "Entries, by level",
        ("entries", "level"),
        list(found.by_level.items()),
        lambda use: (f"{use[1]:,}", _printable(use[0])),
        options.top,
    )
    yield from _table(
        "Entries, by site",
        ("entries", "bytes", "level", "where"),
        found.by_site,
        lambda use: (
            f"{use.entries:,}",
            f"{use.bytes:,}",
            _printable(use.level),
            _printable(f"{use.filename}:{use.line_number}  {use.format}"),
        ),
        options.top,
    )


def _clog_facts(found: ClogAnalysis) -> Iterator[Tuple[str, str]]:
    if found.first_ns is not None:
        yield "entries", _sparkline(found.rate.entries)
        yield "", f"in each {prof_duration_text(found.rate.bucket_ns, 3)}"
        share = 100 * found.out_of_order / max(found.entries, 1)
        yield "order", f"{found.out_of_order:,} ({share:.1f} %) are earlier than one before them"
    else:
        yield "times", "none"
    yield "arguments", ", ".join(f"{number:,} {name}" for name, number in found.encodings.items()) or "none"
    if found.sign_lost:
        yield "lossy", f"{found.sign_lost:,} with an INT64 whose sign the writer lost"
    opaque = found.encodings.get("unknown", 0) + found.encodings.get("undecodable", 0)
    if opaque:
        yield "opaque", f"{opaque:,}, of no known site, or with arguments that cannot be told"
    silent = sum(use.entries == 0 for use in found.by_site)
    if silent:
        yield "silent", _many(silent, "site") + " without an entry"


def _clog_demo(file: WritableFile) -> None:
    """A small log of an invented server: two threads out of order, a level of its own."""
    frequency = 2_500_000_000
    with ClogWriter(file, frequency=frequency, start_timestamp=7_000_000, start_time_sec=1_764_979_200) as writer:
        writer.level(10, "METRIC")
        started = writer.site(0, "src/main.c", 21, "listening on port %u", ("UINT32",))
        request = writer.site(3, "src/http.c", 88, "%s %s -> %d in %.3f ms", ("STRING", "STRING", "INT32", "DOUBLE"))
        slow = writer.site(1, "src/http.c", 93, "slow request %s from %08x", ("STRING", "UINT32"))
        metric = writer.site(10, "src/main.c", 57, "%lu bytes sent, %d%% busy", ("UINT64", "INT32"))
        failed = writer.site(2, "src/store.c", 140, "cannot open %s: %d", ("STRING", "INT32"))
        writer.log(started, 8080, timestamp=7_000_000)
        for turn in range(40):
            now = 7_000_000 + frequency // 50 * (turn + 1)
            path = f"/item/{turn * 37 % 50}"
            writer.log(request, "GET", path, 200, 0.31 + turn % 7, timestamp=now)
            if turn % 9 == 5:
                writer.log(slow, path, 0xC0A80000 + turn, timestamp=now - 90_000)
            if turn % 10 == 9:
                writer.log(metric, 4096 * turn * turn, 5 * turn % 100, timestamp=now + 1000)
        writer.log(failed, "/var/lib/items", -13, timestamp=7_000_000 + frequency)


def _prof_info(reader: ProfReader) -> Iterator[Tuple[str, str]]:
    """What ``info`` tells of a capture."""
    counts = dict.fromkeys((Descriptor, Thread, ContextSwitch, Block, Value, Bookmark), 0)
    events = dropped = 0
    threads = []
    for record in reader:
        counts[type(record)] += 1
        if isinstance(record, Thread):
            threads.append(f"{record.thread_id} {_printable(record.name)}".strip())
        elif isinstance(record, Block):
            events += record.id < len(reader.descriptors) and reader.descriptors[record.id].type == _PROF_EVENT
        if isinstance(record, (ContextSwitch, Block, Value)):
            dropped += record.dropped
    header = reader.header
    yield "version", f"{_prof_version(header.version)}, layout {header.layout}"
    if header.pid is not None:
        yield "process", str(header.pid)
    yield "clock", f"{header.cpu_frequency:,} ticks per second" if header.cpu_frequency else "nanoseconds"
    if 0 < header.begin_time <= header.end_time:
        yield "lasts", prof_duration_text(header.ns(header.end_time) - header.ns(header.begin_time), 3)
    blocks = counts[Block] - events
    kinds = (_many(blocks, "block"), _many(events, "event"), _many(counts[Value], "value"))
    yield "records", ", ".join((*kinds, _many(counts[ContextSwitch], "context switch", "context switches")))
    if dropped:
        yield "dropped", f"{_many(dropped, 'record')} from before the capture"
    yield "descriptors", f"{counts[Descriptor]:,}"
    yield "threads", f"{counts[Thread]:,}" + (f": {_first_names(threads)}" if threads else "")
    if counts[Bookmark]:
        yield "bookmarks", f"{counts[Bookmark]:,}"


def _prof_numbers(reader: ProfReader, options: _Options) -> Tuple[ProfAnalysis, List[ProfThreadUse], List[ProfUse]]:
    """The analysis, and of the threads that ``--thread`` asks for their totals, and uses of a name added up."""
    found = prof_analysis(reader)
    wanted = options.thread
    threads = [one for one in found.threads if wanted is None or wanted in (str(one.thread_id), one.name)]
    if wanted is not None and not threads:
        names = ", ".join(f"{one.thread_id} {one.name}".strip() for one in found.threads)
        raise _UsageError(f"no thread is {wanted!r}; there are: {names or 'none'}")
    ids = {one.thread_id for one in threads}
    return found, threads, [use for use in found.uses if use.scope in ids]


def _prof_stats(reader: ProfReader, options: _Options) -> Iterator[str]:
    """What ``stats`` prints of a capture."""
    found, threads, uses = _prof_numbers(reader, options)
    blocks = _many(sum([one.blocks for one in threads]), "block")
    lasts = prof_duration_text(max(found.end_ns - found.begin_ns, 0), 3)
    yield f"{blocks} of {_many(len(threads), 'thread')} in {lasts}"
    names = {one.thread_id: one.name or str(one.thread_id) for one in found.threads}
    several = len(threads) > 1
    yield from _table(
        "Heaviest blocks, by thread" if several else "Heaviest blocks",
        ("total", "self", "active", "calls", "average", "median", "longest", "name"),
        uses,
        lambda use: (
            *map(prof_duration_text, (use.total_ns, max(use.self_ns, 0), use.active_ns)),
            f"{use.calls:,}",
            *map(prof_duration_text, (use.average_ns, int(use.median_ns), use.max_ns)),
            _prof_label(reader, use) + (f"  [{_printable(names[use.scope])}]" if several else ""),
        ),
        options.top,
    )
    yield from _table(
        "Threads",
        ("profiled", "switched out", "frames", "blocks", "events", "levels", "thread"),
        sorted(threads, key=lambda one: -one.profiled_ns),
        lambda one: (
            prof_duration_text(one.profiled_ns),
            prof_duration_text(one.wait_ns),
            *(f"{number:,}" for number in (one.frames, one.blocks, one.events, one.depth)),
            _printable(f"{one.thread_id} {one.name}".strip()),
        ),
        options.top,
    )
    yield from _table(
        "Bookmarks",
        ("at", "text"),
        found.bookmarks,
        lambda mark: (f"+{prof_duration_text(max(mark.position - found.begin_ns, 0))}", _printable(mark.text)),
        options.top,
    )


def _prof_label(reader: ProfReader, use: ProfUse) -> str:
    """A name with its place in the program."""
    place = ""
    if use.id < len(reader.descriptors):
        one = reader.descriptors[use.id]
        place = f" ({one.file.replace(chr(92), '/').rpartition('/')[2]}:{one.line})"
    return _printable(use.name + place)


def _prof_stats_json(reader: ProfReader, options: _Options) -> Any:
    found, threads, uses = _prof_numbers(reader, options)
    return {**found._asdict(), "threads": threads, "uses": uses}


class _ProfChange(NamedTuple):
    """What a name took in two captures, all threads together."""

    name: str
    totals_ns: Tuple[int, int]
    calls: Tuple[int, int]


def _prof_changes(reader: ProfReader, other: ProfReader, options: _Options) -> Tuple[List[_ProfChange], List[int]]:
    """What each name took in both, and how long the threads of each were in a block at all."""
    sums: Dict[str, List[int]] = {}
    profiled_ns = []
    for place, one in enumerate((reader, other)):
        _, threads, uses = _prof_numbers(one, options)
        profiled_ns.append(sum([thread.profiled_ns for thread in threads]))
        for use in uses:
            numbers = sums.setdefault(use.name, [0, 0, 0, 0])
            numbers[place] += use.total_ns
            numbers[2 + place] += use.calls
    changes = [_ProfChange(name, (a, b), (c, d)) for name, (a, b, c, d) in sums.items()]
    return sorted(changes, key=lambda one: (-abs(one.totals_ns[1] - one.totals_ns[0]), one.name)), profiled_ns


def _prof_compare(reader: ProfReader, other: ProfReader, options: _Options) -> Iterator[str]:
    """What ``stats`` prints of two captures: by how much each name has grown or shrunk."""
    changes, profiled_ns = _prof_changes(reader, other, options)
    yield f"{_many(len(changes), 'name')}, {' and '.join(map(prof_duration_text, profiled_ns))} in blocks"
    yield from _table(
        "Changes",
        ("change", "first", "second", "calls", "then", "name"),
        changes,
        lambda one: (
            ("-" if one.totals_ns[1] < one.totals_ns[0] else "+")
            + prof_duration_text(abs(one.totals_ns[1] - one.totals_ns[0])),
            *map(prof_duration_text, one.totals_ns),
            *(f"{calls:,}" for calls in one.calls),
            _printable(one.name),
        ),
        options.top,
    )


def _prof_demo(file: WritableFile) -> None:
    """A game's two threads, four frames: what the profiler is most used for."""
    with ProfWriter(file, pid=4711, frequency=2_500_000_000, begin_time=10_000_000, end_time=180_000_000) as writer:
        frame = writer.descriptor("frame", "src/main.cpp", 21)
        update = writer.descriptor("update", "src/world.cpp", 88)
        draw = writer.descriptor("draw", "src/render.cpp", 140)
        load = writer.descriptor("load", "src/assets.cpp", 33)
        missed = writer.descriptor("missed vsync", "src/main.cpp", 30, type=_PROF_EVENT, color=0xFFF44336)
        bodies = writer.descriptor("bodies", "src/world.cpp", 90, type=_PROF_VALUE)
        writer.thread(4711, "Main")
        writer.switch(60_000_000, 66_000_000, 4712, "demo")
        at = 12_000_000
        for number in range(4):
            writer.value(at + 500_000, bodies, 40 + 13 * number, "uint32", value_id=0x7F00_1000)
            end = at + (17 if number == 1 else 11) * 2_500_000
            inner = ProfNode(at + 1_000_000, at + 9_000_000, update), ProfNode(at + 9_500_000, end - 1_000_000, draw)
            for node in inner:
                writer.block(*node[:3])
            if number == 1:
                writer.block(end - 500_000, end - 500_000, missed)
            writer.block(at, end, frame)
            at = end
        writer.thread(4712, "Loader")
        for number, name in enumerate(("rocks.png", "trees.png", "")):
            writer.block(20_000_000 + 9_000_000 * number, 27_000_000 + 9_500_000 * number, load, name)
        writer.bookmark(30_000_000, "the long frame", 0xFF4CAF50)


def _mb_time(time_us: Optional[float]) -> str:
    """A time as date and time; "none" of what is none, or outside of the calendar."""
    if time_us is None or not -62_135_596_800_000_000 <= time_us < 253_402_300_800_000_000:
        return "none" if time_us is None else f"{time_us:g} us"
    return _utc(int(time_us))


def _mb_duration(value_us: float) -> str:
    """A time span; the difference of two times may be infinite, though they are not."""
    return _duration(int(value_us)) if value_us < _INFINITY else "inf"


def _mb_bytes(value: float) -> str:
    """Bytes for people, of a floating-point number."""
    if not -_INFINITY < value < _INFINITY:
        return str(value)
    return ("-" if value < 0 else "") + _size(int(abs(value)))


def _mb_info(reader: Union[MbReader, MbJsonReader]) -> Iterator[Tuple[str, str]]:
    """What ``info`` tells of a file of the Memory Dump application."""
    found = mb_analysis(reader)
    if isinstance(reader, MbReader):
        body = "gzip" if reader.header.compressed else "raw"
        yield "version", f"{reader.header.version}, {body} body"
    else:
        yield "root", "one series" if reader.header.single else "an array of series"
    points = sum([one.points for one in found.series])
    shown = _first_names([_printable(one.name) or "(no name)" for one in found.series])
    yield "series", f"{len(found.series):,}" + (f": {shown}" if shown else "")
    yield "points", f"{points:,}, {_many(len(found.snapshots), 'snapshot')}"
    times = [time for one in found.series for time in (one.first_us, one.last_us) if time is not None]
    if times:
        yield "from", _mb_time(min(times))
        yield "to", _mb_time(max(times))
    if found.snapshots:
        pages = sum([one.conclusion.total_page_count for one in found.snapshots])
        names = {type.name: None for one in found.snapshots for type in one.conclusion.type_stats}
        shown = _first_names([_printable(name) or "(no name)" for name in names])
        yield "pages", f"{pages:,}" + (f" of the types {shown}" if names else "")


def _mb_stats(reader: Union[MbReader, MbJsonReader], options: _Options) -> Iterator[str]:
    """What ``stats`` prints of a file of the Memory Dump application; with ``--snapshots`` two of its snapshots."""
    if options.snapshots is not None:
        first, second = _mb_pick(reader, options.snapshots)
        yield from _mb_compare_lines(first, second, options)
        return
    found = mb_analysis(reader)
    points = sum([one.points for one in found.series])
    yield f"{_many(points, 'point')} of {len(found.series):,} series, {_many(len(found.snapshots), 'snapshot')}"
    for one in found.series[: options.top]:
        yield ""
        yield f"{_printable(one.name) or '(no name)'}, {_many(one.points, 'point')}"
        yield from _facts(_mb_series_facts(one))
    if len(found.series) > options.top:
        yield f"and {len(found.series) - options.top:,} more series"
    yield from _mb_snapshot_tables(found, options)


def _mb_series_facts(one: MbSeriesUse) -> Iterator[Tuple[str, str]]:
    if one.first_us is None:
        yield "values", "none"
        return
    yield "from", f"{_mb_time(one.first_us)}, {_mb_duration(cast('float', one.last_us) - one.first_us)}"
    yield "values", _sparkline([max(value, 0) for value in one.values])
    yield "", f"in each {_duration(one.bucket_us)}"
    yield "first, last", f"{_mb_bytes(cast('float', one.first))}, {_mb_bytes(cast('float', one.last))}"
    after = cast("float", one.peak_us) - one.first_us
    yield "least", _mb_bytes(cast("float", one.least))
    yield "peak", f"{_mb_bytes(cast('float', one.most))} at +{_mb_duration(after)}"
    if one.names or one.events:
        yield "marked", f"{_many(one.names, 'name')}, {_many(one.events, 'event')}"


def _mb_snapshot_tables(found: MbAnalysis, options: _Options) -> Iterator[str]:
    first_us = [one.first_us for one in found.series]

    def at(one: MbSnapshot) -> str:
        start = first_us[one.series_number]
        if start is None or not -_INFINITY < one.timestamp < _INFINITY:
            return "none"
        return ("-" if one.timestamp < start else "+") + _mb_duration(abs(one.timestamp - start))

    numbered = [*enumerate(found.snapshots)]
    yield from _table(
        "Snapshots",
        ("number", "at", "pages", "empty", "size", "used", "survival", "series, name and event"),
        numbered,
        lambda row: (
            str(row[0]),
            at(row[1]),
            f"{row[1].conclusion.total_page_count:,}",
            f"{row[1].conclusion.empty_page_count:,}",
            _mb_bytes(row[1].conclusion.total_size),
            _mb_bytes(row[1].conclusion.total_used_size),
            f"{100 * row[1].conclusion.overall_survival_rate:.1f} %",
            _printable(", ".join(filter(None, (found.series[row[1].series_number].name, row[1].name, row[1].event)))),
        ),
        options.top,
    )
    yield from _table(
        "Pages by type",
        ("snapshot", "pages", "size", "used", "survival", "type"),
        [(number, type) for number, one in numbered for type in one.conclusion.type_stats],
        lambda row: (
            str(row[0]),
            f"{row[1].page_count:,}",
            _mb_bytes(row[1].total_size),
            _mb_bytes(row[1].total_used_size),
            f"{100 * row[1].survival_rate:.1f} %",
            _printable(row[1].name) or "(no name)",
        ),
        options.top,
    )


def _mb_pick(reader: Union[MbReader, MbJsonReader], numbers: Sequence[int]) -> List[Point]:
    """The snapshots of those numbers, counted from 0, from the end where negative."""
    kept: Dict[int, Point] = {}
    total = 0
    back = max([-number for number in numbers])
    for record in reader:
        if type(record) is Point and record.page_types is not None:
            kept[total] = record
            if total - back not in numbers:
                kept.pop(total - back, None)
            total += 1
    found = [kept.get(number if number >= 0 else total + number) for number in numbers]
    if None in found:
        wrong = numbers[found.index(None)]
        raise _UsageError(f"no snapshot {wrong}: there are {_many(total, 'snapshot')}, counted from 0")
    return cast("List[Point]", found)


def _mb_compare_lines(first: Point, second: Point, options: _Options) -> Iterator[str]:
    changes = sorted(mb_compare(first, second), key=lambda one: (-abs(one.used[1] - one.used[0]), one.name))
    totals = [sum([one.used[place] for one in changes]) for place in (0, 1)]
    times = f"{_mb_time(first.timestamp)} and {_mb_time(second.timestamp)}"
    yield f"snapshots of {times}, {_mb_bytes(totals[0])} and {_mb_bytes(totals[1])} used"
    yield from _table(
        "Changes by type",
        ("change", "used", "then", "pages", "then", "grown", "shrunk", "added", "removed", "type"),
        changes,
        lambda one: (
            ("+" if one.used[1] >= one.used[0] else "") + _mb_bytes(one.used[1] - one.used[0]),
            *map(_mb_bytes, one.used),
            *(f"{number:,}" for number in (*one.pages, one.grown, one.shrunk, one.added, one.removed)),
            _printable(one.name) or "(no name)",
        ),
        options.top,
    )


def _mb_stats_json(reader: Union[MbReader, MbJsonReader], options: _Options) -> Any:
    if options.snapshots is not None:
        return {"changes": mb_compare(*_mb_pick(reader, options.snapshots))}
    return mb_analysis(reader)


def _mb_pair(reader: Any, other: Any, options: _Options) -> Tuple[Point, Point]:
    """A snapshot of either file: those that are asked for, else the last ones."""
    left, right = options.snapshots or (-1, -1)
    return _mb_pick(reader, [left])[0], _mb_pick(other, [right])[0]


def _mb_compare(reader: Any, other: Any, options: _Options) -> Iterator[str]:
    """What ``stats`` prints of two files: what changed between a snapshot of each, by type of pages."""
    first, second = _mb_pair(reader, other, options)
    return _mb_compare_lines(first, second, options)


def _mb_compare_json(reader: Any, other: Any, options: _Options) -> Any:
    return {"changes": mb_compare(*_mb_pair(reader, other, options))}


def _mb_demo_records() -> Iterator[MbRecord]:
    """A program's heap and cache over a minute: a leak, two collections, and snapshots of its pages."""
    start_us = 1_764_979_200_000_000
    ids = [bytes.fromhex(f"0190a5c0000040008000{number:012x}") for number in range(200)]
    for number, name in enumerate(("Main Process", "Image Cache")):
        yield Series(ids[number], name, mb_color(name), True, 60)
        for second in range(60):
            value = (
                48_000_000 + 350_000 * (second % 25) + 90_000 * second if not number else 9_000_000 + 64_000 * second
            )
            id = ids[2 + 60 * number + second]
            snapshot = not number and second in (24, 25, 59)
            event = {24: "GC_START", 25: "GC_END"}.get(second) if snapshot else None
            types = None
            if snapshot:
                heap = [
                    Page(
                        4096, None, mb_run_stream(4096, free_ranges=[(512 * (page % 5), 512 * (page % 5) + 8 * second)])
                    )
                    for page in range(40 + second)
                ]
                stack = [Page(size, 0.5, mb_run_stream(size, occupancy=0.5)) for size in (8192, 16384)]
                types = (PageType("Heap", 4096, tuple(heap)), PageType("Stack", 0, tuple(stack)))
            label = "before the collection" if second == 24 and snapshot else None
            time = float(start_us + 1_000_000 * second)
            yield Point(time, float(value), label, id, snapshot, event, types)


def _mb_demo(file: WritableFile) -> None:
    with MbWriter(file) as writer:
        writer.write_all(_mb_demo_records())


def _mb_json_demo(file: WritableFile) -> None:
    with MbJsonWriter(file) as writer:
        writer.write_all(_mb_demo_records())


def _memscope_info(reader: MemscopeReader) -> Iterator[Tuple[str, str]]:
    """What ``info`` tells of a snapshot."""
    counts = dict.fromkeys(Allocation._fields[12:31], 0)
    records = named = freed = leaked = total = last = 0
    first = _U64_MAX
    threads: Dict[str, int] = {}
    for record in reader:
        records += 1
        named += record.var_name is not None
        freed += record.timestamp_dealloc is not None
        leaked += record.is_leaked
        total += record.size
        first = min(first, record.timestamp_alloc)
        last = max(last, record.timestamp_alloc)
        threads[record.thread_id] = threads.get(record.thread_id, 0) + 1
        for name, value in zip(counts, record[12:31]):
            if value:
                counts[name] += 1
    _ = reader.tail  # with it the whole file has been read
    if reader.layout == "T":
        yield "version", "layout T, JSON text"
    else:
        yield "version", f"{reader.header.version}, layout {reader.layout}"
        yield "kind", memscope_description(reader.header, reader._source.position)
    yield "records", f"{records:,}: {named:,} named, {freed:,} freed, {leaked:,} leaked; {_size(total)} in all"
    if records:
        lasts = prof_duration_text(last - first, 3)
        yield "allocated", f"from {_utc(first // 1000)}, within {lasts}"
        heaviest = sorted(threads, key=lambda name: (-threads[name], name))
        shown = _first_names([f"{_memscope_name(name)} {_many(threads[name], 'record')}" for name in heaviest])
        yield "threads", f"{len(threads):,}: {shown}"
        yield "objects", ", ".join([f"{name} {number:,}" for name, number in counts.items() if number]) or "none"
    metrics = reader.advanced_metrics
    if metrics is not None:
        lists = [f"{name} {len(getattr(metrics, name) or ()):,}" for name in _MEMSCOPE_LISTS]
        yield "metrics", f"ADVD, bitmap 0x{metrics.metrics_bitmap:x}: {', '.join(lists)}"


def _memscope_stats(reader: MemscopeReader, options: _Options) -> Iterator[str]:
    """What ``stats`` prints of a snapshot."""
    found = memscope_analysis(reader)
    total = found.total
    lasts = prof_duration_text(found.last_alloc_ns - found.first_alloc_ns, 3)
    yield f"{_many(total.records, 'allocation')} of {_size(total.bytes)} within {lasts}"
    yield from _facts(_memscope_facts(found))
    for word, uses in (
        ("type", found.by_type),
        ("generic type", found.by_generic_type),
        ("category of types", found.by_category),
        ("thread", found.by_thread),
        ("scope", found.by_scope),
        ("size", found.by_size),
    ):
        yield from _table(
            f"By {word}",
            ("bytes", "records", "average", "largest", "active", "leaked", word),
            uses,
            lambda use: (
                f"{use.bytes:,}",
                f"{use.records:,}",
                f"{use.average:,.1f}",
                f"{use.largest:,}",
                f"{use.active:,}",
                f"{use.leaked:,}",
                _memscope_name(use.name),
            ),
            options.top,
        )
    yield from _table(
        "Risks",
        ("severity", "risk", "bytes", "records", "variable, type"),
        found.risks,
        lambda one: (
            one.severity,
            one.risk,
            f"{one.bytes:,}",
            f"{one.records:,}",
            f"{_memscope_name(one.var_name)}: {_memscope_name(one.type_name)}",
        ),
        options.top,
    )


def _memscope_name(name: Optional[str]) -> str:
    return "(none)" if name is None else _printable(name) or '""'


def _memscope_facts(found: MemscopeAnalysis) -> Iterator[Tuple[str, str]]:
    total, lived = found.total, found.lifetimes
    if total.records:
        yield "sizes", f"{total.smallest:,} to {total.largest:,} bytes, {total.average:,.1f} on average"
        yield "named", f"{found.named:,}"
        yield "active", f"{total.active:,} of {_size(total.active_bytes)}"
        yield "leaked", f"{total.leaked:,} of {_size(total.leaked_bytes)}"
    if lived.records:
        span = f"{lived.min_ms:,} to {lived.max_ms:,} ms, {lived.average_ms:,.1f} ms on average"
        yield "lifetimes", f"{span}, of {_many(lived.records, 'record')} that tell one"


def _memscope_changes(reader: MemscopeReader, other: MemscopeReader) -> List[Dict[str, Any]]:
    """The allocations of a type and variable that are not freed, in two snapshots."""
    sums: Dict[Tuple[Optional[str], Optional[str]], List[int]] = {}
    for place, one in enumerate((reader, other)):
        for record in one:
            if record.timestamp_dealloc is None:
                numbers = sums.setdefault((record.type_name, record.var_name), [0, 0, 0, 0])
                numbers[place] += 1
                numbers[2 + place] += record.size
    changes = []
    by_change = sorted(
        sums.items(),
        key=lambda one: (-abs(one[1][3] - one[1][2]), -abs(one[1][1] - one[1][0]), *(name or "" for name in one[0])),
    )
    for (type_name, var_name), (first, second, before, after) in by_change:
        grown = (after > before) - (after < before) or (second > first) - (second < first)
        change = "new" if not first else "gone" if not second else ("same", "grown", "shrunk")[grown]
        names = {"change": change, "type_name": type_name, "var_name": var_name}
        changes.append({**names, "records": (first, second), "bytes": (before, after)})
    return changes


def _memscope_compare(reader: MemscopeReader, other: MemscopeReader, options: _Options) -> Iterator[str]:
    """What ``stats`` prints of two snapshots: what is new, gone, grown and shrunk, by type and variable."""
    changes = _memscope_changes(reader, other)
    before, after = (sum([one["bytes"][place] for one in changes]) for place in (0, 1))
    yield f"not freed: {before:,} and {after:,} bytes, {after - before:+,}"
    kinds = [one["change"] for one in changes]
    told = [f"{kinds.count(kind):,} {kind}" for kind in ("new", "gone", "grown", "shrunk", "same")]
    yield from _facts([("variables", f"of one type and name: {', '.join(told)}")])
    yield from _table(
        "Changes",
        ("change", "bytes", "first", "second", "records", "then", "variable, type"),
        [one for one in changes if one["change"] != "same"],
        lambda one: (
            one["change"],
            f"{one['bytes'][1] - one['bytes'][0]:+,}",
            *(f"{number:,}" for number in (*one["bytes"], *one["records"])),
            f"{_memscope_name(one['var_name'])}: {_memscope_name(one['type_name'])}",
        ),
        options.top,
    )


def _memscope_demo(file: WritableFile) -> None:
    """A snapshot of an invented program: pages of a cache, a table shared by two threads, what was handed to C."""
    start_ns = 1_764_979_200_000_000_000
    cache, table = "alloc::vec::Vec<u8>", "alloc::sync::Arc<std::collections::hash::map::HashMap<u32, u64>>"
    pages = [
        Allocation(
            0x5589_A501_0000 + 0x4000 * number,
            1000 << number,
            start_ns + 1_500_000 * number,
            start_ns + 41_500_000 if number == 2 else None,
            var_name=f"page_{number}",
            type_name=cache,
            scope_name="cache::put",
            thread_id="ThreadId(1)",
            lifetime_ms=60 - 2 * number,
            borrow_info=BorrowInfo(4, 2, 3, start_ns + 1_500_000 * number + 800_000),
            clone_info=CloneInfo(),
        )
        for number in range(6)
    ]
    shared = [
        Allocation(
            0x6000_0001 + number,
            48,
            start_ns + 20_000_000 + number,
            var_name="table",
            type_name=table,
            thread_id=f"ThreadId({number + 1})",
            stack_trace=("main", "app::share", "src/share.rs:31"),
            smart_pointer_info=SmartPointer(
                0x6000_0001, 0x6000_0001 if number else None, weak_count=0, pointer_type="Arc"
            ),
        )
        for number in range(2)
    ]
    handle = Allocation(
        0x5589_A510_0000,
        2 << 20,
        start_ns + 30_000_000,
        var_name="handle",
        type_name="*mut core::ffi::c_void",
        thread_id="ThreadId(2)",
        is_leaked=True,
    )
    with MemscopeWriter(file) as writer:
        writer.write_all([*pages, *shared, handle, Allocation(0x5589_A500_0010, 88, start_ns, thread_id="ThreadId(1)")])


_MB_VIEW = _View(_mb_info, _mb_stats, _mb_stats_json, _mb_demo, {"json": _mb_to_json}, _mb_compare, _mb_compare_json)
_VIEWS = {
    "mlyze": _View(
        _mlyze_info, _mlyze_stats, _mlyze_stats_json, _mlyze_demo, {}, upstream_stats=_mlyze_upstream_report
    ),
    "clog": _View(
        _clog_info, _clog_stats, lambda reader, _: clog_analysis(reader), _clog_demo, {"text": _clog_to_text}
    ),
    "prof": _View(
        _prof_info,
        _prof_stats,
        _prof_stats_json,
        _prof_demo,
        {"json": _prof_to_json},
        _prof_compare,
        lambda reader, other, options: {"changes": _prof_changes(reader, other, options)[0]},
        ProfVerdict,
    ),
    "mb": _MB_VIEW,
    "mb-json": _MB_VIEW._replace(demo=_mb_json_demo, targets={"mb": _mb_json_to_mb, "json": _mb_json_to_json}),
    "memscope": _View(
        _memscope_info,
        _memscope_stats,
        lambda reader, _: memscope_analysis(reader),
        _memscope_demo,
        {"json": _memscope_to_json, "html": _memscope_to_html},
        _memscope_compare,
        lambda reader, other, _: {"changes": _memscope_changes(reader, other)},
        folders={"json5": (MEMSCOPE_FILES, _memscope_to_json5)},
    ),
}


# ==== 10. Command line ================================================================================

_NO_TERMINAL = "will not write a binary file to a terminal; give -o FILE"
_LARGE = 32 << 20  # bytes from which on a file's progress is shown


class _UsageError(Exception):
    """What the user asked for cannot be done; one line, exit code 2."""


def _local_offset(seconds: int) -> int:
    """How far the local time zone is ahead of UTC at a time."""
    import time

    try:
        return time.localtime(seconds).tm_gmtoff
    except (OverflowError, ValueError, OSError):  # what this machine's calendar does not reach
        return 0


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

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._done = self._file.seek(offset, whence)
        return self._done

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
        if size >= _LARGE and sys.stderr is not None and sys.stderr.isatty():
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

        path = self._path = None if options.output in (None, "-") else options.output
        self._part: Optional[str] = None
        self.failed = False
        self.encoding = "utf-8"
        self.complete = True  # to be set False when what has been written shall not appear
        if self._path is None:
            if sys.stdout is None:
                raise _UsageError("there is no standard output; give -o FILE")
            self._file: IO[bytes] = sys.stdout.buffer
            self.encoding = sys.stdout.encoding or "ascii"
        elif os.path.exists(self._path) and not os.path.isfile(self._path):
            self._file = io.open(self._path, "wb")  # a device or a pipe
        elif os.path.exists(self._path) and not options.force:
            raise _UsageError(f"{path}: exists; -f overwrites it")
        else:
            self._path = os.path.realpath(self._path)
            folder, name = os.path.split(self._path)
            part = os.path.join(folder, f".{name[:40]}.{os.getpid()}.part")  # long names would be too long
            try:
                self._file = io.open(part, "xb")
            except OSError as error:
                raise self._failed(error) from None
            self._part = part

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
        self.failed = True
        if self._path is None:
            _drop_stdout()
        return _UsageError(f"{self._path or 'standard output'}: {error.strerror}")

    def finish(self) -> None:
        """All is written: the file is closed, and has not yet its name."""
        try:
            if not self._file.closed:
                self._file.flush()
            if self._path is not None:
                self._file.close()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from None

    def __enter__(self: SelfType) -> SelfType:
        return self

    def __exit__(self, kind: object, *exc_info: object) -> None:
        import os

        try:
            self.finish()
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


def _reading(
    options: _Options,
    name: str,
    *,
    recover: bool = False,
    dictionary: Optional[str] = None,
    like_upstream: bool = False,
) -> Reader[Any, Any]:
    """The Reader of a file of the command line."""
    source = _input(name)
    try:
        known = _known(options.format, source)
        given: Dict[str, Any] = {}
        if dictionary is not None and known.name == "clog":
            given["dictionary"] = _other_sites(dictionary)
        if like_upstream and known.name == "mb-json":
            given["like_upstream"] = True
        return known.reader(source, recover=recover or options.recover, **given)
    except BaseException:
        source.close()
        raise


def _other_sites(name: str) -> ClogReader:
    """The reader of the file that ``--dictionary`` names."""
    try:
        with ClogReader(_input(name), recover=True) as reader:
            if reader.sites:
                return reader
    except FormatError as error:
        raise _UsageError(f"{name}: {error}") from None
    raise _UsageError(f"{name}: holds no dictionary")


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
            except (OSError, _UsageError) as error:
                if output.failed:
                    raise
                _complain(f"{name}: {getattr(error, 'strerror', None) or error}")
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
        said: Optional[str] = None  # by upstream's reader
        try:
            with _reading(options, name, recover=True) as reader:
                word = "family" if reader.format == "clog" else "layout"
                format = f"{reader.format}, {word} {reader.family}" if reader.family else reader.format
                make = _VIEWS[reader.format].verdict
                verdict = make(reader) if make is not None else None
                for record in reader:
                    records += 1
                    if verdict is not None:
                        verdict.take(record)
                problems = reader.problems
                said = verdict and verdict.text()
        except FormatError as error:
            format = error.format
            problems = [Problem("fault", error.code, error.space, error.offset, error.where, error.reason)]
        kinds = [problem.severity for problem in problems]
        bad = "fault" in kinds or (options.strict and "deviation" in kinds)
        counts = [_many(kinds.count(kind), kind) for kind in ("fault", "deviation", "note") if kind in kinds]
        found = f"{_many(records, 'record')}, {', '.join(counts) or 'no problems'}"
        output.line(f"{_printable(name)}: {'bad' if bad else 'good'} {format}, {found}")
        for problem in problems:
            output.line(f"  {_problem_text(problem)}")
        if said is not None:
            output.line(
                _printable(f"  upstream's reader refuses it: {said}" if said else "  upstream's reader accepts it")
            )
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


# What ``convert`` takes with one target alone, and what it is if it is not given.
_CONVERT_OPTIONS = {
    "pattern": ("text", CLOG_PATTERN),
    "level": ("text", None),
    "sort": ("text", False),
    "bitmap": ("json", False),
    "timestamp": ("json5", 0),
}


def _run_convert(options: _Options) -> int:
    import tempfile

    for name, (target, usual) in _CONVERT_OPTIONS.items():
        if options.to != target and getattr(options, name) != usual:
            raise _UsageError(f"--{name} goes with --to {target}")
    options.scratch = tempfile.TemporaryFile
    upstream = options.like_upstream
    with _reading(
        options, options.file, recover=upstream, dictionary=options.dictionary, like_upstream=upstream
    ) as reader:
        view = _VIEWS[reader.format]
        if options.to in view.folders:
            names, convert = view.folders[options.to]
            _fill_folder(options, names, convert(reader, options))
        elif options.to in view.targets:
            with _Output(options) as output:
                if options.to == "mb" and output.isatty():
                    raise _UsageError(_NO_TERMINAL)
                for piece in view.targets[options.to](reader, options):
                    output.write(piece)
        else:
            offer = ", ".join([*view.targets, *view.folders])
            offer = f"converted to: {offer}" if offer else "not converted to anything yet"
            raise _UsageError(f"{options.to!r}: files of {reader.format} are {offer}")
        for problem in reader.problems:
            if problem.severity == "fault" and options.recover:
                _complain(f"{options.file}: {_problem_text(problem)}")
    return 0


def _fill_folder(options: _Options, names: Sequence[str], pieces: Iterable[Tuple[str, bytes]]) -> None:
    """Write the files of the folder that -o gives, whose name stands before theirs; all of them, or none."""
    import os

    if options.output in (None, "-"):
        raise _UsageError(f"{options.to} is several files; give -o FOLDER")
    folder = os.path.realpath(options.output)
    new = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    outputs: Dict[str, _Output] = {}

    def fill(names: Sequence[str]) -> None:
        if names:
            options.output = os.path.join(folder, f"{os.path.basename(folder)}_{names[0]}.json")
            with _Output(options) as outputs[names[0]]:
                fill(names[1:])
        else:
            for name, piece in pieces:
                outputs[name].write(piece)
            for output in outputs.values():  # what fails now fails before one of them has its name
                output.finish()

    try:
        fill(names)
    except BaseException:
        if new and not os.listdir(folder):
            os.rmdir(folder)
        raise


def _run_encode(options: _Options) -> int:
    source = _input(options.file)
    try:
        with _Output(options) as output:
            if output.isatty():
                raise _UsageError(_NO_TERMINAL)
            encode(_lines(source), output)
    finally:
        source.close()
    return 0


def _lines(source: _Source) -> Iterator[bytes]:
    """The lines of a source."""
    pieces: List[bytes] = []  # of a line that goes on
    for chunk in iter(source.chunk, b""):
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            yield b"".join([*pieces, line, b"\n"])
            pieces.clear()
        pieces.append(rest)
    if source.error is not None:
        raise source.error
    yield b"".join(pieces)


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
            if options.at is not None:
                return

    with _Output(options) as output:
        for span in wanted():
            for line in hex_lines(walk.file, (span,), walk.body):
                output.line(line)
        if walk.error is not None:
            _complain(f"{options.file}: {walk.error}")
        if not found:
            raise _UsageError(f"{options.file}: no such field")
    return 1 if walk.error is not None and not options.recover else 0


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
    pair: List[Union[Reader[Any, Any], Exception, None]] = []  # of two files what is to be printed, when it is its turn
    if len(options.files) == 2 and not options.like_upstream:
        pair = [_opened(options, name) for name in options.files]

    def stats(name: str, output: _Output) -> bool:
        if options.like_upstream:
            return _print_upstream_stats(options, output, name)
        if len(pair) == 2:
            pair[:] = _compared(options, output, *pair)
        reader = pair.pop(0) if pair else _reading(options, name)
        if isinstance(reader, Exception):
            raise reader
        if reader is not None:
            _print_stats(options, output, name, reader)
        return True

    return _each_file(options, stats)


def _opened(options: _Options, name: str) -> Union[Reader[Any, Any], Exception]:
    """The Reader of a file, or why there is none."""
    try:
        return _reading(options, name)
    except (FormatError, OSError) as error:
        return error


def _compared(options: _Options, output: _Output, first: Any, second: Any) -> List[Any]:
    """Print what has changed between two files, if they can be compared; returns what is still to be told of each."""
    compare = isinstance(first, Reader) and isinstance(second, Reader) and _VIEWS[first.format].compare
    if not compare or compare is not _VIEWS[second.format].compare:
        return [first, second]
    left: List[Any] = [None, None]
    try:
        _print_comparison(options, output, first, second)
    except FormatError as error:
        if error is first._error:
            left = [error, second]
        else:
            left = [_again(options, 0), error if error is second._error else _again(options, 1)]
    except _UsageError as error:
        if output.failed:
            raise
        if options.snapshots is not None:
            left = [None, error] if second._ended else [error, None]
        else:
            left = [_again(options, 0), _again(options, 1)]
    finally:
        first.close()
        if left[1] is not second:
            second.close()
    return left


def _again(options: _Options, place: int) -> Union[Reader[Any, Any], Exception, None]:
    """A file that has been read, from its start; standard input, which has none, is not told a second time."""
    name: str = options.files[place]
    return None if name == "-" else _opened(options, name)


def _print_upstream_stats(options: _Options, output: _Output, name: str) -> bool:
    source = _input(name)
    try:
        format = _known(options.format, source)
        upstream_stats = _VIEWS[format.name].upstream_stats
        if upstream_stats is None:
            raise _UsageError(f"the program of {format.name} prints no statistics")
        lines, good = upstream_stats(source, name)
    finally:
        source.close()
    for line in lines:
        output.line(_printable(line))
    return good


def _print_stats(options: _Options, output: _Output, name: str, reader: Reader[Any, Any]) -> None:
    view = _VIEWS[reader.format]
    with reader:
        if options.json:
            numbers = _to_json(view.stats_json(reader, options))
            found = {"file": name, "format": reader.format, **numbers, "problems": _to_json(reader.problems)}
            output.line(json.dumps(found, indent=1 if len(options.files) == 1 else None))
        else:
            _print_lines(output, name, view.stats(reader, options))
            for problem in reader.problems:
                if problem.severity != "note":
                    output.line(f"  {'problem':<12}{_problem_text(problem)}")


def _print_comparison(options: _Options, output: _Output, first: Reader[Any, Any], second: Reader[Any, Any]) -> None:
    view = _VIEWS[first.format]
    if options.json:
        numbers = _to_json(cast("Any", view.compare_json)(first, second, options))
        problems = [_to_json(reader.problems) for reader in (first, second)]
        found = {"files": options.files, "format": first.format, **numbers, "problems": problems}
        output.line(json.dumps(found, indent=1))
    else:
        title = " and ".join(options.files)
        _print_lines(output, title, cast("Any", view.compare)(first, second, options))
        for name, reader in zip(options.files, (first, second)):
            for problem in reader.problems:
                if problem.severity != "note":
                    output.line(f"  {'problem':<12}{_printable(name)}: {_problem_text(problem)}")


def _print_lines(output: _Output, title: str, lines: Iterable[str]) -> None:
    """Statistics, the first line with the title."""
    for place, line in enumerate(lines):
        output.line(line if place else f"{_printable(title)}: {line}")


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
            targets = [f"convert --to {target}" for target in _VIEWS[format.name].targets]
            for command in ("stats", "explain", "check", "decode", *targets):
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


def _two_numbers(text: str) -> Tuple[int, int]:
    """Two numbers and a comma, of the command line."""
    try:
        left, right = map(int, text.split(","))
    except ValueError:
        raise _misuse(f"not two numbers: {text!r}; try 0,5 or 0,-1") from None
    return left, right


def _seconds(text: str) -> int:
    """A time since 1970 in whole seconds, of the command line."""
    number = _decimal(text)
    if number is None:
        raise _misuse(f"not a number of seconds: {text!r}")
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
    made = command(
        "stats",
        _run_stats,
        "the numbers that a file is about; of two captures, dumps or snapshots what has changed",
        "stats trace.mlyze --top 20",
    )
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
    made.add_argument("--thread", metavar="T", help="prof: only the thread of this number or name")
    made.add_argument(
        "--snapshots",
        type=_two_numbers,
        metavar="A,B",
        help="mb: what changed between two snapshots, counted from 0, or from the end: --snapshots=-2,-1; "
        "of two files, one of each",
    )
    made.add_argument(
        "--like-upstream", action="store_true", help="what the format's own program prints, right or wrong"
    )
    made = command("convert", _run_convert, "to another format", "convert app.clog --to text --level WARN,ERROR")
    reading(made)
    _add_convert_options(made)
    made = command("demo", _run_demo, "write a small file of each format, and say what to try", "demo")
    made.add_argument("folder", nargs="?", default="memformats-demo", metavar="DIR", help="where to (memformats-demo)")
    return parser


def _add_convert_options(made: Any) -> None:
    made.add_argument(
        "--to",
        required=True,
        metavar="TARGET",
        help="what to: text (clog), json (prof, mb, mb-json, memscope), mb (mb-json), html (memscope), "
        "json5 (memscope; into the folder -o)",
    )
    made.add_argument(
        "--bitmap", action="store_true", help="json: runs of pages in hexadecimal, as mb's guide has them"
    )
    made.add_argument(
        "--pattern",
        default=CLOG_PATTERN,
        metavar="P",
        help="text: %%t time, %%T ticks, %%r seconds, %%l level, %%f file, %%L line, %%m message (%(default)s)",
    )
    made.add_argument("--level", metavar="A,B", help="text: only entries of these levels")
    made.add_argument("--sort", action="store_true", help="text: by time; keeps all lines in memory")
    made.add_argument("--dictionary", metavar="FILE", help="clog: of a file of the same run, for one not closed")
    made.add_argument(
        "--timestamp", type=_seconds, default=0, metavar="SECONDS", help="json5: the time of conversion, since 1970 (0)"
    )
    made.add_argument(
        "--layout",
        choices=MEMSCOPE_LAYOUTS,
        metavar="NAME",
        help="memscope, with --like-upstream: of the time of this layout (3b cannot be told from 3c)",
    )
    made.add_argument("--like-upstream", action="store_true", help="as the format's own program does it")


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
    except MemoryError:
        _complain(f"{getattr(options, 'file', '') or ', '.join(options.files)}: takes more memory than there is")
    except KeyboardInterrupt:
        return 130
    else:
        return status
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
