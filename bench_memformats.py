# SPDX-FileCopyrightText: 2026 the memformats authors
# SPDX-License-Identifier: MIT
"""Measure memformats against other ways to do the same work, all in one run on one generated file per format.

usage: python3 bench_memformats.py [--quick] [--json FILE] [--markdown] [--format NAME]...

Everything is timed in turns (A B C A B C ...) by processor time; a ratio is taken within one turn, and the tables
show its median over the turns, the least and the most.  Header and tables are read and written outside of the
clock.  Every way is checked to give the same records, or the same bytes, before it is timed; construct and
dissect.cstruct take part where they are installed.  Another format is one more entry in ``BENCHES``.
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import io
import json
import os
import platform
import random
import re
import struct
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from itertools import islice, repeat
from statistics import median
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, cast

import memformats
from memformats import (
    Alloc,
    Allocation,
    Block,
    BorrowInfo,
    CloneInfo,
    Descriptor,
    Frame,
    Free,
    Gc,
    LogEntry,
    LogSite,
    Marker,
    MlyzeHeader,
    MlyzeRecord,
    Page,
    PageType,
    Point,
    ProfHeader,
    RefCount,
    Series,
    SmartPointer,
    Thread,
)

Items = Iterable[Any]  # what a way of reading gives, in its own classes
Read = Callable[[IO[bytes]], Items]  # a generator function; its file is what lies between header and tables
Tables = Dict[str, Any]


class Peer(NamedTuple):
    """Another way to read: ``load`` makes it of the tables or raises ImportError, ``restore`` makes records."""

    name: str
    load: Callable[[Tables], Read]
    restore: Callable[[Any], Any] = lambda item: item


class Way(NamedTuple):
    """Something to time: ``run``, with what ``setup`` gives before the clock starts."""

    name: str
    setup: Callable[[], Any]
    run: Callable[[Any], object]


class Bench(NamedTuple):
    """What is measured for one format.

    ``make`` gives a file of so many records, ``writer`` takes header and tables, ``body`` tells from the header
    where the records are, ``settle`` gives the records of a peer what hangs on header and tables, ``naive_write``
    is the plainest way, ``analyse`` the work behind ``stats``, ``more`` gives what else reads, once checked,
    ``more_writing`` what else writes, ``remarks`` what else there is to tell of the sample; there are ``fewer`` times
    less records than of the others.
    """

    make: Callable[[int], bytes]
    writer: Callable[[IO[bytes], Any, Tables], memformats.Writer[Any, Any]]
    body: Callable[[Any], slice]
    peers: Tuple[Peer, ...]
    settle: Callable[[Items, Any, Tables], Items]
    naive_write: Callable[..., None]
    analyse: Callable[[Any], object]
    more: Callable[[Sample], Iterable[Way]] = lambda _: ()
    more_writing: Callable[[Sample], Iterable[Way]] = lambda _: ()
    remarks: Callable[[Sample], Iterable[str]] = lambda _: ()
    fewer: int = 1


class Sample:
    """A generated file and what it holds."""

    def __init__(self, format: str, count: int) -> None:
        self.format = format
        self.bench = BENCHES[format]
        self.data = self.bench.make(count)
        self.header, self.tables = self.reader().header, self.reader().tables
        self.body = self.data[self.bench.body(self.header)]

    @functools.cached_property
    def records(self) -> List[Any]:
        """All records as memformats reads them."""
        return list(self.reader())

    def reader(self) -> memformats.Reader[Any, Any]:
        """An open reader, before its first record."""
        return memformats.FORMATS[self.format].reader(io.BytesIO(self.data))

    def writer(self, file: Optional[IO[bytes]] = None) -> memformats.Writer[Any, Any]:
        """An open writer, before its first record."""
        return self.bench.writer(file or io.BytesIO(), self.header, self.tables)

    def json_records(self) -> List[Dict[str, Any]]:
        """The records as ``decode`` prints them, from a document that has been checked to hold all of the file."""
        text = "".join(memformats.decode(self.reader()))
        memformats.encode(io.BytesIO(text.encode()), file := io.BytesIO())
        if file.getvalue() != self.data:
            raise SystemExit(f"{self.format}: decode and encode give another file")
        return cast("List[Dict[str, Any]]", json.loads(text)["records"])

    def begin(self, read: Read) -> Items:
        """The records by another way to read."""
        return read(io.BytesIO(self.body))


# ==== mlyze ============================================================================================


KINDS: Tuple[Any, ...] = (Alloc, Free, Gc, Marker)


def make_mlyze(count: int) -> bytes:
    """A trace like that of a real program: blocks that come and go, mostly small, from few of many places.

    52 % ALLOC, 48 % FREE, some GC and MARKER; sizes by a Pareto law, times between events exponential, 1,400
    stacks of which some are used far more than others.
    """
    chance = random.Random(count)
    files = {number: f"/app/package_{number % 9}/module_{number}.py" for number in range(120)}
    functions = {number: f"function_{number}" for number in range(900)}
    stacks = {
        number: tuple(Frame(chance.randrange(120), chance.randrange(2000), chance.randrange(900)) for _ in range(8))
        for number in range(1400)
    }
    start_us = 1_764_979_200_000_000

    def records() -> Iterator[MlyzeRecord]:
        time_us = start_us
        live: List[int] = []
        for _ in range(count):
            time_us += int(chance.expovariate(1 / 12))
            dice = chance.random()
            if dice < 0.0005:
                yield Gc(time_us, int(chance.expovariate(1 / 300)), 0)
            elif dice < 0.0007:
                yield Marker(time_us, chance.randrange(900))
            elif dice < 0.52 or not live:
                address = 0x7F3A_0000_0000 + 16 * chance.randrange(1 << 28)
                live.append(address)
                size = int(32 * chance.paretovariate(1.1))
                yield Alloc(time_us, address, size, int(1400 * chance.random() ** 3), 64 * chance.randrange(1, 9))
            else:
                place = -1 - int(min(len(live) - 1, chance.expovariate(1 / 20)))  # what is young dies first
                live[place], live[-1] = live[-1], live[place]
                yield Free(time_us, live.pop())

    file = io.BytesIO()
    with memformats.MlyzeWriter(file, start_us=start_us, stacks=stacks, files=files, functions=functions) as writer:
        writer.write_all(records())
    return file.getvalue()


def open_mlyze(file: IO[bytes], header: MlyzeHeader, tables: Tables) -> memformats.MlyzeWriter:
    """A writer that has its metadata."""
    tables = {name: tables[name] for name in ("stacks", "files", "functions")}
    return memformats.MlyzeWriter(file, start_us=header.start_us, **tables)


def varint(file: IO[bytes]) -> int:
    """A LEB128 number, a byte at a time."""
    value = shift = 0
    while True:
        byte = file.read(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7


def naive_mlyze(_tables: Tables) -> Read:
    """The reading algorithm of the format's document, completed with GC and MARKER."""

    def read(file: IO[bytes]) -> Items:
        for kind in iter(lambda: file.read(1), b""):
            delta = varint(file)
            if kind == b"\0":
                (address,) = struct.unpack("<Q", file.read(8))
                size = varint(file)
                stack_id = varint(file)
                (thread_id,) = struct.unpack("<H", file.read(2))
                yield Alloc(delta, address, size, stack_id, thread_id)
            elif kind == b"\1":
                (address,) = struct.unpack("<Q", file.read(8))
                yield Free(delta, address)
            elif kind == b"\2":
                yield Gc(delta, varint(file), varint(file))
            elif kind == b"\3":
                yield Marker(delta, varint(file))

    return read


def construct_read(declaration: Any, *, compiled: bool) -> Read:
    """Parses record by record."""
    if compiled:
        declaration = declaration.compile()

    def read(file: IO[bytes]) -> Items:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        while file.tell() < size:
            yield declaration.parse_stream(file)

    return read


def construct_mlyze(*, compiled: bool) -> Read:
    """A declaration for construct."""
    c: Any = importlib.import_module("construct")
    bodies = {
        0: c.Struct("address" / c.Int64ul, "size" / c.VarInt, "stack_id" / c.VarInt, "thread_id" / c.Int16ul),
        1: c.Struct("address" / c.Int64ul),
        2: c.Struct("objects" / c.VarInt, "bytes" / c.VarInt),
        3: c.Struct("name_id" / c.VarInt),
    }
    return construct_read(
        c.Struct("type" / c.Int8ul, "delta" / c.VarInt, "body" / c.Switch(c.this.type, bodies)), compiled=compiled
    )


def from_construct(item: Any) -> Any:
    """A record from construct's container."""
    return KINDS[item.type](item.delta, **{key: item.body[key] for key in item.body if key[0] != "_"})


def cstruct_mlyze(_tables: Tables) -> Read:
    """A declaration for dissect.cstruct; the type byte tells which structure follows."""
    c: Any = importlib.import_module("dissect.cstruct").cstruct()
    c.load(
        """
        struct alloc { uleb128 delta; uint64 address; uleb128 size; uleb128 stack_id; uint16 thread_id; };
        struct free { uleb128 delta; uint64 address; };
        struct gc { uleb128 delta; uleb128 objects; uleb128 bytes; };
        struct marker { uleb128 delta; uleb128 name_id; };
        """
    )
    events = (c.alloc, c.free, c.gc, c.marker)

    def read(file: IO[bytes]) -> Items:
        for kind in iter(lambda: file.read(1), b""):
            yield events[kind[0]](file)

    return read


def from_cstruct(item: Any) -> Any:
    """A record from dissect.cstruct's structure."""
    return getattr(memformats, type(item).__name__.title())(*item.__values__.values())


def with_times(records: Items, header: MlyzeHeader, _tables: Tables) -> Items:
    """The records of a reader that gives deltas, with absolute times."""
    time_us = header.start_us
    for record in records:
        time_us += record.time_us
        yield record._replace(time_us=time_us)


def naive_write_mlyze(file: IO[bytes], records: Items, header: MlyzeHeader, _tables: Tables) -> None:
    """A function per type of field, a write per field."""

    def write_varint(value: int) -> None:
        while value > 0x7F:
            file.write(bytes([value & 0x7F | 0x80]))
            value >>= 7
        file.write(bytes([value]))

    time_us = header.start_us
    for record in records:
        file.write(struct.pack("<B", KINDS.index(type(record))))
        write_varint(record.time_us - time_us)
        time_us = record.time_us
        if isinstance(record, Alloc):
            file.write(struct.pack("<Q", record.address))
            write_varint(record.size)
            write_varint(record.stack_id)
            file.write(struct.pack("<H", record.thread_id))
        elif isinstance(record, Free):
            file.write(struct.pack("<Q", record.address))
        elif isinstance(record, Gc):
            write_varint(record.objects)
            write_varint(record.bytes)
        else:
            write_varint(record.name_id)


# ==== clog =============================================================================================

# What a server logs, each from two files; the types of arguments follow from the conversions.
LOG_FORMATS = """%s %s -> %d, %lu bytes in %.3f ms|accepted %s:%u as %p|closing %p after %d requests|heartbeat|tick %lu
|user %s: %d of %d attempts|queue %s: %lu waiting, oldest %.1f s|allocated %lu bytes at %p|freed %p|worker %d ready
|cannot open %s: %d|retry %d in %d ms|cache: %lu hits, %lu misses, %.2f %%|read %lu bytes at offset %ld|%s|GET %s
|state %d -> %d|checksum %08x of %s|load %.2f %.2f %.2f|%d: %s = %s"""
CLOG_KINDS = {"d": "INT32", "u": "UINT32", "x": "UINT32", "lu": "UINT64", "ld": "INT64", "f": "DOUBLE"}
CLOG_KINDS.update({"s": "STRING", "p": "POINTER"})
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def make_clog(count: int) -> bytes:
    """The log of a server with 4 threads: some sites of 40 far more often than others, numbers mostly small.

    Each thread's queue is written for itself, up to 128 entries, so times go back and forth; all arguments are
    packed; strings of 6 to 31 bytes, few of them not ASCII.
    """
    chance = random.Random(count)
    words = ["/item/" + "é" * (number % 50 == 0) + "x" * (number % 24) for number in range(999)]
    values: Dict[str, Callable[[], memformats.ClogArg]] = {
        "INT32": lambda: chance.choice((1, 1, 1, -1)) * min(int(chance.paretovariate(0.7)), 1 << 30),
        "INT64": lambda: chance.choice((1, 1, 1, -1)) * min(int(4096 * chance.paretovariate(0.7)), 1 << 55),
        "UINT32": lambda: chance.randrange(1 << chance.choice((8, 16, 32))),
        "UINT64": lambda: min(int(32 * chance.paretovariate(0.7)), 1 << 60),
        "DOUBLE": lambda: round(chance.expovariate(0.1), 3),
        "STRING": lambda: chance.choice(words),
        "POINTER": lambda: 0x7F3A_0000_0000 + 16 * chance.randrange(1 << 28),
    }
    start = 7_000_000_000_000
    sites = []
    for number, format in enumerate(2 * LOG_FORMATS.replace("\n", "").split("|")):
        types = tuple([CLOG_KINDS[kind] for kind in re.findall(r"%%|%[0-9.]*(l?[a-z])", format) if kind])
        sites.append(LogSite(number % 4, f"src/module_{number % 7}.c", 20 + 13 * number, format, types))
    random.Random(40).shuffle(sites)  # the same in all files

    def records() -> Iterator[LogEntry]:
        now = [start] * 4
        left, thread = 0, 0
        for _ in range(count):
            if not left:
                left, thread = chance.randrange(1, 129), chance.randrange(4)
                now[thread] = max(now[thread], max(now) - 2_000_000)
            left -= 1
            now[thread] += int(chance.expovariate(1 / 40_000))
            log_id = int(len(sites) * chance.random() ** 2)
            types = sites[log_id].arg_types
            yield LogEntry(log_id, now[thread], tuple([values[type]() for type in types]), encoding_of(types))

    file = io.BytesIO()
    header = memformats.ClogHeader("little", 0, 1, 0, 2_500_000_000, start, 1_764_979_200, 250_000_000)
    with open_clog(file, header, {"sites": sites}) as writer:
        writer.write_all(records())
    return file.getvalue()


def open_clog(file: IO[bytes], header: memformats.ClogHeader, tables: Tables) -> memformats.ClogWriter:
    """A writer that has its sites."""
    start = {name: getattr(header, name) for name in ("start_timestamp", "start_time_sec", "start_time_nsec")}
    writer = memformats.ClogWriter(file, frequency=header.timestamp_frequency, **start)
    for site in tables["sites"]:
        writer.site(*site)
    return writer


def unpack_arguments(types: Sequence[str], file: IO[bytes]) -> Tuple[memformats.ClogArg, ...]:
    """Packed arguments, by clog 4.2: nibbles, numbers, strings."""
    numbers = [type for type in types if type != "STRING"]
    nibbles = [byte >> shift & 15 for byte in file.read((len(numbers) + 1) // 2) for shift in (0, 4)]
    found: List[memformats.ClogArg] = []
    for type, nibble in zip(numbers, nibbles):
        if type == "DOUBLE":
            found += struct.unpack("<d", file.read(8))
        elif type in ("INT32", "INT64") and nibble > 8:
            found.append(-int.from_bytes(file.read(nibble - 8), "little"))
        else:
            found.append(int.from_bytes(file.read(nibble), "little"))
    for place, type in enumerate(types):
        if type == "STRING":
            (size,) = struct.unpack("<I", file.read(4))
            found.insert(place, file.read(size).decode("utf-8", "surrogateescape"))
    return tuple(found)


def encoding_of(types: Sequence[str]) -> str:
    return "none" if not types else "packed" if {*types} != {"STRING"} else "strings"


def naive_clog(tables: Tables) -> Read:
    """A read for each field, with the packed arguments of real files in place of the document's."""
    sites = [(site.arg_types, encoding_of(site.arg_types)) for site in tables["sites"]]

    def read(file: IO[bytes]) -> Items:
        for start in iter(lambda: file.read(4), b""):
            (log_id,) = struct.unpack("<I", start)
            (timestamp,) = struct.unpack("<Q", file.read(8))
            file.read(2)  # data_length, which the arguments tell too
            types, encoding = sites[log_id]
            yield LogEntry(log_id, timestamp, unpack_arguments(types, file), encoding)

    return read


def construct_clog(*, compiled: bool) -> Read:
    """A declaration of all but the arguments: their types stand in the dictionary, so those are left as bytes."""
    c: Any = importlib.import_module("construct")
    fields = ("log_id" / c.Int32ul, "timestamp" / c.Int64ul, "size" / c.Int16ul, "data" / c.Bytes(c.this.size))
    return construct_read(c.Struct(*fields), compiled=compiled)


def entry_of(item: Any) -> LogEntry:
    return LogEntry(item.log_id, item.timestamp, data=item.data)


def with_arguments(records: Items, _header: Any, tables: Tables) -> Items:
    """Decode the arguments of undecoded entries, outside of the clock."""
    for record in records:
        types = tables["sites"][record.log_id].arg_types
        args = unpack_arguments(types, io.BytesIO(record.data)) if record.data else record.args
        yield record._replace(args=args, encoding=encoding_of(types), data=b"")


def naive_write_clog(file: IO[bytes], records: Items, _header: Any, tables: Tables) -> None:
    """Arguments one by one, a write per field."""
    for record in records:
        nibbles: List[int] = []
        numbers, strings = io.BytesIO(), io.BytesIO()
        for type, value in zip(tables["sites"][record.log_id].arg_types, record.args):
            if type == "STRING":
                text = value.encode("utf-8", "surrogateescape")
                strings.write(struct.pack("<I", len(text)))
                strings.write(text)
            elif type == "DOUBLE":
                nibbles.append(8)
                numbers.write(struct.pack("<d", value))
            else:
                size = (value.bit_length() + 7) // 8 or 1
                nibbles.append(size + 8 * (value < 0))
                numbers.write(abs(value).to_bytes(size, "little"))
        nibbles.append(0)
        pairs = bytes([low | high << 4 for low, high in zip(nibbles[0::2], nibbles[1::2])])
        file.write(struct.pack("<I", record.log_id))
        file.write(struct.pack("<Q", record.timestamp))
        file.write(struct.pack("<H", len(pairs) + numbers.tell() + strings.tell()))
        file.write(pairs + numbers.getvalue() + strings.getvalue())


def clog_text(reader: Any, *, like_upstream: bool) -> Iterator[bytes]:
    """What ``convert --to text`` does, in UTC."""
    lines = map(memformats.ClogText(reader, like_upstream=like_upstream).line, reader)
    while some := [*islice(lines, 500)]:
        yield ("\n".join(some) + "\n").encode("utf-8", "surrogateescape")


def naive_text(header: Any, tables: Tables, records: Items, *, like_upstream: bool) -> Iterator[bytes]:
    """Each message by Python's own formatting; ``like_upstream``: by the rules of clog, Semantics."""
    forms = [site.format.replace("%p", "%#x") for site in tables["sites"]]
    if like_upstream:  # the value's type counts, and what follows the first letter stays
        plain = {"%": "%%", "f": "%f", "p": "%#x"}
        forms = [re.sub("%[0-9.]*(.)", lambda found: plain.get(found[1], "%s"), s.format) for s in tables["sites"]]
    for log_id, timestamp, args, *_ in records:
        site = tables["sites"][log_id]
        ticks = timestamp - header.start_timestamp
        seconds, ns = divmod(ticks * 10**9 // header.timestamp_frequency + header.start_time_nsec, 10**9)
        if like_upstream:
            elapsed = ticks / header.timestamp_frequency
            seconds, ns = int(elapsed), int((elapsed - int(elapsed)) * 1e9)
        time = EPOCH + timedelta(seconds=header.start_time_sec + seconds)
        level = memformats.CLOG_LEVEL_NAMES[site.log_level]
        line = f"[{time:%Y-%m-%d %H:%M:%S}.{ns:09}] [{level}] [{site.filename}:{site.line_number}] "
        yield (line + forms[log_id] % args + "\n").encode()


def clog_texts(sample: Sample) -> Iterator[Way]:
    """Text, as memformats and the naive reader make it."""
    read = naive_clog(sample.tables)
    for title, like_upstream in (("text", False), ("text like upstream", True)):
        ours = functools.partial(clog_text, like_upstream=like_upstream)
        naive = functools.partial(naive_text, sample.header, sample.tables, like_upstream=like_upstream)
        if b"".join(ours(sample.reader())) != b"".join(naive(sample.begin(read))):
            raise SystemExit(f"clog: {title} is another")
        yield Way(f"memformats {title}", sample.reader, functools.partial(exhaust_made, ours))
        start = functools.partial(sample.begin, read)
        yield Way(f"a read per field, {title}", start, functools.partial(exhaust_made, naive))


def exhaust_made(make: Callable[[Any], Items], subject: Any) -> None:
    exhaust(make(subject))


# ==== prof =============================================================================================


def make_prof(count: int) -> bytes:
    """A capture of four threads with frames of nested blocks, three in ten with a run-time name, from 60 places."""
    chance = random.Random(count)
    file = io.BytesIO()
    with open_prof(file, ProfHeader(pid=4711, cpu_frequency=2_500_000_000, begin_time=10**12), {}) as writer:
        for number in range(60):
            writer.descriptor(f"function_{number}", f"src/module_{number % 9}.cpp", 20 + 13 * number)
        names = [""] * 7 + [f"job #{number}" for number in range(3)]

        def blocks(thread_id: int, number: int) -> Iterator[Block]:
            now = 10**12 + 10**6
            for place in range(number):
                now += chance.randrange(500, 90_000)
                begin = now - chance.choice((300, 400, 400, 5_000, 20_000, 500_000))
                name = chance.choice(names)
                yield Block(thread_id, begin, now, chance.randrange(60), name and f"{name} {place % 100}")

        for thread in range(4):
            writer.thread(4711 + thread, f"Worker {thread}")
            writer.write_all(blocks(4711 + thread, (count + thread) // 4))
    return file.getvalue()


def open_prof(file: IO[bytes], header: Any, _tables: Tables) -> memformats.ProfWriter:
    """A writer for records in whose header the counts are filled in."""
    start = {name: getattr(header, name) for name in ("version", "pid", "begin_time", "end_time")}
    return memformats.ProfWriter(file, frequency=header.cpu_frequency, **start)


def naive_prof(_tables: Tables) -> Read:
    """A read for each field, of the layout of 2.1.0; names up to their NUL."""

    def number(file: IO[bytes], code: str) -> int:
        return int(struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0])

    def text(file: IO[bytes], size: int) -> str:
        return file.read(size).partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def read(file: IO[bytes]) -> Items:
        descriptors, threads, _, _ = struct.unpack("<IIHH", file.read(12))
        for _ in range(descriptors):
            size = number(file, "H")
            id, line, color = number(file, "I"), number(file, "i"), number(file, "I")
            kind, status, length = number(file, "B"), number(file, "B"), number(file, "H")
            yield Descriptor(id, line, color, kind, status, text(file, length), text(file, size - 16 - length))
        for _ in range(threads):
            thread_id, name = number(file, "Q"), text(file, number(file, "H"))
            number(file, "I")  # the sample has no context switches
            blocks = number(file, "I")
            yield Thread(thread_id, name, 0, blocks)
            for _ in range(blocks):
                size = number(file, "H")
                begin, end, id = number(file, "Q"), number(file, "Q"), number(file, "I")
                yield Block(thread_id, begin, end, id, text(file, size - 20))

    return read


def construct_prof(*, compiled: bool) -> Read:
    """A declaration of the whole body; strings up to their NUL, as construct has them."""
    c: Any = importlib.import_module("construct")
    descriptor = c.Struct(
        "size" / c.Int16ul,
        "id" / c.Int32ul,
        "line" / c.Int32sl,
        "color" / c.Int32ul,
        "type" / c.Int8ul,
        "status" / c.Int8ul,
        "length" / c.Int16ul,
        "name" / c.CString("utf8"),
        "file" / c.CString("utf8"),
    )
    block = c.Struct(
        "size" / c.Int16ul, "begin" / c.Int64ul, "end" / c.Int64ul, "id" / c.Int32ul, "name" / c.CString("utf8")
    )
    head = c.Struct("thread_id" / c.Int64ul, "size" / c.Int16ul, "name" / c.CString("utf8"), "counts" / c.Int32ul[2])
    if compiled:
        descriptor, block, head = descriptor.compile(), block.compile(), head.compile()

    def read(file: IO[bytes]) -> Items:
        descriptors, threads, _, _ = struct.unpack("<IIHH", file.read(12))
        for _ in range(descriptors):
            one = descriptor.parse_stream(file)
            yield Descriptor(one.id, one.line, one.color, one.type, one.status, one.name, one.file)
        for _ in range(threads):
            thread = head.parse_stream(file)
            yield Thread(thread.thread_id, thread.name, *thread.counts)
            for _ in range(thread.counts[1]):
                yield thread.thread_id, block.parse_stream(file)

    return read


def block_of(item: Any) -> Any:
    """A record of what the declaration gives."""
    return Block(item[0], item[1].begin, item[1].end, item[1].id, item[1].name) if type(item) is tuple else item


def with_ns(records: Items, header: Any, _tables: Tables) -> Items:
    """Put nanoseconds beside ticks."""
    for record in records:
        if type(record) is Block:
            yield record._replace(begin_ns=header.ns(record.begin), end_ns=header.ns(record.end))
        else:
            yield record


def naive_write_prof(file: IO[bytes], records: Items, header: Any, _tables: Tables) -> None:
    """A write per field; the counts of the threads are in their records."""
    file.write(struct.pack("<II", header.descriptors_count, header.threads_count))
    file.write(struct.pack("<HH", 0, 0))
    for record in records:
        if type(record) is Block:
            name = record.name.encode() + b"\0"
            file.write(struct.pack("<H", 20 + len(name)))
            file.write(struct.pack("<Q", record.begin))
            file.write(struct.pack("<Q", record.end))
            file.write(struct.pack("<I", record.id))
            file.write(name)
        elif type(record) is Descriptor:
            name, path = record.name.encode() + b"\0", record.file.encode() + b"\0"
            file.write(struct.pack("<HI", 16 + len(name) + len(path), record.id))
            file.write(struct.pack("<iIBB", record.line, record.color, record.type, record.status))
            file.write(struct.pack("<H", len(name)) + name + path)
        else:
            name = record.name.encode() + b"\0"
            file.write(struct.pack("<QH", record.thread_id, len(name)) + name)
            file.write(struct.pack("<II", record.switch_count, record.block_count))
    file.write(struct.pack("<I", memformats.PROF_SIGNATURE))


def prof_work(sample: Sample) -> Iterator[Way]:
    """Nesting, and what the converter does."""
    yield Way("memformats nesting", sample.reader, lambda reader: exhaust(memformats.prof_trees(reader)))
    options = argparse.Namespace(like_upstream=True)
    yield Way(
        "memformats JSON like upstream",
        sample.reader,
        lambda reader: exhaust(memformats._prof_to_json(reader, options)),
    )


# ==== mb and mb-json ===================================================================================


def mb_records(count: int) -> Iterator[memformats.MbRecord]:
    """A time line of a heap: three processes, a snapshot every 60 points, of 24 pages with up to 40 runs each."""
    chance = random.Random(count)
    number = 0
    for process in range(3):
        points = (count - 3 + process) // 3
        yield Series(b"\1" * 6 + b"\x40\1\x80" + bytes([process]) * 7, f"Process {process}", "#42cad7", True, points)
        value = 50_000_000
        for second in range(points):
            value += chance.randrange(-400_000, 420_000)
            number += 1
            id = b"\0\0\0\0\0\0\x40\0\x80\0\0\0" + struct.pack(">I", number)
            types: Optional[Tuple[PageType, ...]] = None
            if second % 60 == 59:
                pages = []
                for _ in range(24):
                    runs = [chance.randrange(30)] + [
                        1 + int(chance.expovariate(1 / 6)) for _ in range(chance.randrange(40))
                    ]
                    left = 512 - sum(runs)
                    stream = b"".join(map(memformats.encode_varint, [*runs, left] if left > 0 else [512]))
                    pages.append(Page(4096, None if chance.random() < 0.5 else 0.5, stream))
                types = (PageType("Heap", 4096, tuple(pages)),)
            time_us = float(1_764_979_200_000_000 + 1_000_000 * second)
            yield Point(time_us, float(value), None, id, types is not None, "GC_END" if types else None, types)


def make_mb(count: int) -> bytes:
    """The time line with a raw body, so that it is reading that is measured, not zlib."""
    file = io.BytesIO()
    with memformats.MbWriter(file, compressed=False, like_upstream=True) as writer:
        writer.write_all(mb_records(count))
    return file.getvalue()


def make_mb_json(count: int) -> bytes:
    """The same as the application exports it."""
    file = io.BytesIO()
    with memformats.MbJsonWriter(file) as writer:
        writer.write_all(memformats.MbReader(io.BytesIO(make_mb(count))))
    return file.getvalue()


def naive_mb(_tables: Tables) -> Read:
    """A read for each field."""

    def page_type(file: IO[bytes], strings: Sequence[str]) -> PageType:
        name, uniform = strings[varint(file)], varint(file)
        pages = []
        for _ in range(varint(file)):
            size = uniform or varint(file)
            share = struct.unpack("<f", file.read(4))[0]
            pages.append(Page(size, None if share == -1.0 else share, file.read(varint(file))))
        return PageType(name, uniform, tuple(pages))

    def read(file: IO[bytes]) -> Items:
        file.read(1)
        strings = [file.read(varint(file)).decode() for _ in range(varint(file))]
        file.read(1)
        for _ in range(varint(file)):
            id, name, color = file.read(16), strings[varint(file)], strings[varint(file)]
            visible, points = file.read(1) == b"\1", varint(file)
            yield Series(id, name, color, visible, points)
            for _ in range(points):
                timestamp, value = struct.unpack("<d", file.read(8))[0], struct.unpack("<d", file.read(8))[0]
                flags = file.read(1)[0]
                label = strings[varint(file)] if flags & 2 else None
                point_id = file.read(16) if flags & 4 else b""
                event = types = None
                if flags & 1:
                    number = varint(file)
                    event = strings[number - 1] if number else None
                    if file.read(1) == b"\1":
                        types = tuple([page_type(file, strings) for _ in range(varint(file))])
                yield Point(timestamp, value, label, point_id, bool(flags & 1), event, types)

    return read


def construct_mb(_tables: Tables) -> Read:
    """A declaration of series and points; the strings are read first."""
    c: Any = importlib.import_module("construct")
    page = c.Struct(
        "size" / c.If(c.this._._.uniform == 0, c.VarInt),
        "share" / c.Float32l,
        "stream" / c.Prefixed(c.VarInt, c.GreedyBytes),
    )
    kind = c.Struct("name" / c.VarInt, "uniform" / c.VarInt, "pages" / c.PrefixedArray(c.VarInt, page))
    meta = c.Struct(
        "event" / c.VarInt, "memory" / c.Int8ul, "types" / c.If(c.this.memory == 1, c.PrefixedArray(c.VarInt, kind))
    )
    point = c.Struct(
        "timestamp" / c.Float64l,
        "value" / c.Float64l,
        "flags" / c.Int8ul,
        "name" / c.If(c.this.flags & 2, c.VarInt),
        "id" / c.If(c.this.flags & 4, c.Bytes(16)),
        "meta" / c.If(c.this.flags & 1, meta),
    )
    series = c.Struct(
        "id" / c.Bytes(16), "name" / c.VarInt, "color" / c.VarInt, "visible" / c.Int8ul, "points" / c.VarInt
    )
    table = c.PrefixedArray(c.VarInt, c.PascalString(c.VarInt, "utf8"))

    def read(file: IO[bytes]) -> Items:
        file.read(1)
        strings = table.parse_stream(file)
        file.read(1)
        for _ in range(c.VarInt.parse_stream(file)):
            one = series.parse_stream(file)
            yield Series(one.id, strings[one.name], strings[one.color], one.visible == 1, one.points)
            for _ in range(one.points):
                yield strings, point.parse_stream(file)

    return read


def point_of(item: Any) -> Any:
    """A record of what the declaration gives."""
    if type(item) is Series:
        return item
    strings, one = item
    types = event = None
    if one.meta is not None:
        event = strings[one.meta.event - 1] if one.meta.event else None
        types = tuple(
            [
                PageType(
                    strings[kind.name],
                    kind.uniform,
                    tuple(
                        [
                            Page(p.size or kind.uniform, None if p.share == -1.0 else p.share, p.stream)
                            for p in kind.pages
                        ]
                    ),
                )
                for kind in one.meta.types
            ]
        )
    name = None if one.name is None else strings[one.name]
    return Point(one.timestamp, one.value, name, one.id or b"", one.meta is not None, event, types)


def naive_write_mb(file: IO[bytes], records: Items, _header: Any, tables: Tables) -> None:
    """A write per field."""
    varint = memformats.encode_varint
    strings = {text: number for number, text in enumerate(tables["strings"])}
    file.write(b"\1" + varint(len(strings)))
    for text in strings:
        file.write(varint(len(text.encode())))
        file.write(text.encode())
    file.write(b"\2" + varint(tables["series_count"]))
    for record in records:
        if type(record) is Series:
            file.write(record.id)
            file.write(varint(strings[record.name]))
            file.write(varint(strings[record.color]))
            file.write(b"\1" if record.visible else b"\0")
            file.write(varint(record.point_count))
            continue
        file.write(struct.pack("<d", record.timestamp))
        file.write(struct.pack("<d", record.value))
        file.write(bytes([record.has_meta | 2 * (record.name is not None) | 4 * bool(record.point_id)]))
        file.write(record.point_id)
        if record.has_meta:
            file.write(varint(strings[record.event] + 1) + b"\1")
            file.write(varint(len(record.page_types)))
            for kind in record.page_types:
                file.write(varint(strings[kind.name]))
                file.write(varint(kind.uniform_page_size))
                file.write(varint(len(kind.pages)))
                for page in kind.pages:
                    file.write(struct.pack("<f", -1.0 if page.occupancy is None else page.occupancy))
                    file.write(varint(len(page.run_stream)))
                    file.write(page.run_stream)


def naive_mb_json(_tables: Tables) -> Read:
    """``json.load``, and a loop over what it gives."""

    def pages_of(kind: Any) -> Iterator[Page]:
        for page in kind["pages"]:
            stream = memformats.mb_run_stream(page["size"], free_ranges=page["freeList"])
            yield Page(page["size"], page.get("occupancy"), stream)

    def read(file: IO[bytes]) -> Items:
        for series in json.load(file):
            id = bytes.fromhex(series["id"].replace("-", ""))
            yield Series(id, series["name"], series["color"], series["visible"], len(series["data"]))
            for point in series["data"]:
                meta = point.get("meta")
                types = None
                if meta:
                    kinds = meta["memory"]["pageTypes"]
                    types = tuple([PageType(k["name"], k["uniformPageSize"], tuple(pages_of(k))) for k in kinds])
                point_id = bytes.fromhex(point["pointId"].replace("-", ""))
                time_us, value = float(point["timestamp"]), float(point["value"])
                yield Point(time_us, value, None, point_id, meta is not None, meta and meta["event"], types)

    return read


def naive_write_mb_json(file: IO[bytes], records: Items, _header: Any, _tables: Tables) -> None:
    """The objects that the application has, and ``json.dumps``."""
    file.write(json.dumps(mb_objects(records), separators=(",", ":"), ensure_ascii=False).encode())


def mb_objects(records: Items) -> List[Dict[str, Any]]:
    """What the application's export hands to ``JSON.stringify``."""

    def id_of(id: bytes) -> str:
        text = id.hex()
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

    def page_of(page: Page) -> Dict[str, Any]:
        made = {"size": page.size, "freeList": page.free_ranges}
        return made if page.occupancy is None else {**made, "occupancy": page.occupancy}

    found: List[Dict[str, Any]] = []
    for record in records:
        if type(record) is Series:
            names = {"id": id_of(record.id), "name": record.name, "visible": record.visible, "color": record.color}
            found.append({**names, "data": []})
            continue
        point = {"timestamp": int(record.timestamp), "value": int(record.value), "pointId": id_of(record.point_id)}
        if record.has_meta:
            kinds = [
                {
                    "name": kind.name,
                    "pages": [page_of(page) for page in kind.pages],
                    "uniformPageSize": kind.uniform_page_size,
                }
                for kind in record.page_types
            ]
            point["meta"] = {"event": record.event, "memory": {"pageTypes": kinds}}
        found[-1]["data"].append(point)
    return found


def mb_work(sample: Sample) -> Iterator[Way]:
    """Ranges, and what the application's export does."""

    def ranges(reader: Items) -> None:
        for record in reader:
            for kind in (type(record) is Point and record.page_types) or ():
                for page in kind.pages:
                    page.free_ranges  # noqa: B018 - it is decoded each time

    yield Way("memformats reader, free ranges", sample.reader, ranges)
    options = argparse.Namespace(bitmap=False, file="")
    yield Way("memformats JSON export", sample.reader, lambda reader: exhaust(memformats._mb_to_json(reader, options)))
    objects = mb_objects(sample.records)
    yield Way("json.dumps of the exported data", lambda: objects, lambda made: json.dumps(made, separators=(",", ":")))
    packed = io.BytesIO()
    with memformats.MbWriter(packed) as writer:
        writer.write_all(sample.records)
    yield Way("memformats reader, gzip body", lambda: memformats.MbReader(io.BytesIO(packed.getvalue())), exhaust)


def mb_json_work(sample: Sample) -> Iterator[Way]:
    """What is done to the JSON."""
    yield Way("json.loads of the file", lambda: sample.data, json.loads)
    options = argparse.Namespace(bitmap=False, file="")
    yield Way("memformats to .mb", sample.reader, lambda reader: exhaust(memformats._mb_json_to_mb(reader, options)))


def mb_sizes(sample: Sample) -> Iterator[str]:
    """The guide's claims about sizes (errata 19): .mb is 99 % smaller than raw arrays, hex 90 % than a freeList."""
    objects = mb_objects(sample.records)

    def size(change: Callable[[Dict[str, Any], Page], Any], **options: Any) -> int:
        pages = iter(
            [page for r in sample.records if type(r) is Point for kind in r.page_types or () for page in kind.pages]
        )
        made = json.loads(json.dumps(objects))
        for series in made:
            for point in series["data"]:
                for kind in point.get("meta", {}).get("memory", {}).get("pageTypes", ()):
                    for page in kind["pages"]:
                        change(page, next(pages))
        return len(json.dumps(made, **options))

    def units(page: Dict[str, Any], record: Page) -> None:
        page["units"] = [int(place % 2 == 0) for place, run in enumerate(record.runs) for _ in range(run)]
        del page["freeList"]

    def bitmap(page: Dict[str, Any], record: Page) -> None:
        page["bitmap"] = record.run_stream.hex()
        del page["freeList"]

    tight: Dict[str, Any] = {"separators": (",", ":")}
    file = io.BytesIO()
    with memformats.MbWriter(file) as writer:
        writer.write_all(sample.records)
    mb = len(file.getvalue())
    lists, arrays, hexes = size(lambda *_: None, **tight), size(units, **tight), size(bitmap, **tight)
    indented = size(lambda *_: None, indent=2)
    for what, small, large in (
        (".mb against JSON with an element for each 8 bytes", mb, arrays),
        (".mb against JSON with freeList", mb, lists),
        (".mb against JSON with freeList, indented", mb, indented),
        (".mb against JSON with bitmap", mb, hexes),
        ("JSON with bitmap against that with freeList", hexes, lists),
        ("JSON with bitmap against that with an element for each 8 bytes", hexes, arrays),
    ):
        yield f"{what}: {small:,} and {large:,} bytes, {100 - 100 * small / large:.1f} % smaller"


# ==== memscope =========================================================================================

SLOTS = 12  # of JSON text, which the sample has none of
POINTERS = ("Rc", "Arc", "RcWeak", "ArcWeak", "Box")


def make_memscope(count: int) -> bytes:
    """A snapshot as a tracker writes it: three in five have a name, one in five is a smart pointer."""
    chance = random.Random(count)
    file = io.BytesIO()
    types = [f"alloc::vec::Vec<app::module_{number}::Item>" for number in range(30)]
    start = 1_764_979_200_000_000_000
    with open_memscope(file, None, {}) as writer:
        for number in range(count):
            now = start + 1700 * number
            place = 0x5589_A500_0000 + 0x40 * number
            named = chance.random() < 0.6
            pointer = None
            if named and number % 3 == 0:
                pointer = SmartPointer(place, weak_count=0, is_data_owner=True)
            writer.write(
                Allocation(
                    place,
                    chance.choice((24, 48, 64, 96, 1000, 4096, 70_000)),
                    now,
                    None,
                    f"variable_{number % 5000}" if named else None,
                    chance.choice(types) if named else None,
                    None,
                    f"ThreadId({1 + number % 7})",
                    lifetime_ms=1,
                    borrow_info=BorrowInfo(4, 2, 3, now + 800_000),
                    clone_info=CloneInfo(),
                    ownership_history_available=True,
                    smart_pointer_info=pointer,
                )
            )
    return file.getvalue()


def open_memscope(file: IO[bytes], _header: Any, _tables: Tables) -> memformats.MemscopeWriter:
    """A writer of today's layout, full mode."""
    return memformats.MemscopeWriter(file)


def naive_memscope(_tables: Tables) -> Read:
    """A read for each field of layout 3c, without memory layouts."""

    def read(file: IO[bytes]) -> Items:
        def number(code: str) -> int:
            return int(struct.unpack("<" + code, file.read(struct.calcsize("<" + code)))[0])

        def text() -> Optional[str]:
            size = number("I")
            return None if size == 0xFFFFFFFE else file.read(size).decode("utf-8", "surrogateescape")

        def numbers(code: str) -> Tuple[int, ...]:
            return tuple([number(code) for _ in range(number("I"))])

        def optional(code: str) -> Optional[int]:
            return number(code) if number("B") else None

        make: Any = Allocation
        while file.read(1):
            number("I")
            ptr, size, time, freed = number("Q"), number("Q"), number("Q"), optional("Q")
            names = text(), text(), text(), text() or ""
            stack = tuple([text() or "" for _ in range(number("I"))]) or None
            state = number("I"), number("B") != 0, optional("Q")
            borrow = BorrowInfo(number("I"), number("I"), number("I"), optional("Q")) if number("B") else None
            clone = CloneInfo(number("I"), number("B") != 0, optional("Q")) if number("B") else None
            owned = number("B") != 0
            pointer = None
            if number("B"):
                start = number("Q"), optional("Q"), numbers("Q"), numbers("QQQ")
                flags = optional("Q"), number("B") == 1, number("B") == 1, number("B") == 1
                pointer = SmartPointer._make((*start, *flags, POINTERS[number("B")]))
            objects = [text() if number("B") else None for _ in range(1 + SLOTS)]
            yield make(ptr, size, time, freed, *names, stack, *state, borrow, clone, owned, pointer, *objects)

    return read


def construct_memscope(*, compiled: bool) -> Read:
    """A declaration of layout 3c, without memory layouts; text as bytes."""
    c: Any = importlib.import_module("construct")
    u8, u32, u64 = c.Int8ul, c.Int32ul, c.Int64ul

    def optional(inner: Any) -> Any:
        return c.Struct("flag" / u8, "value" / c.If(c.this.flag == 1, inner))

    text = c.Struct("size" / u32, "value" / c.If(c.this.size != 0xFFFFFFFE, c.Bytes(c.this.size)))
    plain = c.Prefixed(u32, c.GreedyBytes)
    pointer = c.Struct(
        "data_ptr" / u64,
        "cloned_from" / optional(u64),
        "clones" / c.PrefixedArray(u32, u64),
        "history" / c.PrefixedArray(u32, u64[3]),
        "weak_count" / optional(u64),
        "flags" / u8[3],
        "kind" / u8,
    )
    record = c.Struct(
        "type" / u8,
        "length" / u32,
        "ptr" / u64,
        "size" / u64,
        "time" / u64,
        "freed" / optional(u64),
        "names" / text[3],
        "thread" / plain,
        "stack" / c.PrefixedArray(u32, plain),
        "borrow_count" / u32,
        "leaked" / u8,
        "lifetime" / optional(u64),
        "borrow" / optional(c.Struct("counts" / u32[3], "last" / optional(u64))),
        "clone" / optional(c.Struct("clones" / u32, "is_clone" / u8, "original" / optional(u64))),
        "owned" / u8,
        "pointer" / optional(pointer),
        "objects" / optional(plain)[1 + SLOTS],
    )
    if compiled:
        record = record.compile()

    def read(file: IO[bytes]) -> Items:
        end = file.seek(0, io.SEEK_END)
        file.seek(0)
        while file.tell() < end:
            yield record.parse_stream(file)

    return read


def allocation_of(one: Any) -> Any:
    """A record of what the declaration gives."""
    borrow, clone, pointer = one.borrow.value, one.clone.value, one.pointer.value
    names = [None if name.value is None else name.value.decode() for name in one.names]
    stack = tuple([frame.decode() for frame in one.stack]) or None
    make: Any = Allocation
    made = pointer and SmartPointer._make(
        (
            pointer.data_ptr,
            pointer.cloned_from.value,
            tuple(pointer.clones),
            tuple([RefCount._make(counts) for counts in pointer.history]),
            pointer.weak_count.value,
            *[flag == 1 for flag in pointer.flags],
            POINTERS[pointer.kind],
        )
    )
    return make(
        one.ptr,
        one.size,
        one.time,
        one.freed.value,
        *names,
        one.thread.decode(),
        stack,
        one.borrow_count,
        one.leaked != 0,
        one.lifetime.value,
        borrow and BorrowInfo._make((*borrow.counts, borrow.last.value)),
        clone and CloneInfo(clone.clones, clone.is_clone != 0, clone.original.value),
        one.owned != 0,
        made,
        *[value.value and value.value.decode() for value in one.objects],
    )


def naive_write_memscope(file: IO[bytes], records: Items, _header: Any, _tables: Tables) -> None:
    """A write per field; the size of a record is patched in when it is known."""

    def number(code: str, value: int) -> None:
        file.write(struct.pack("<" + code, value))

    def optional(code: str, value: Optional[int]) -> None:
        number("B", value is not None)
        if value is not None:
            number(code, value)

    def text(value: Optional[str]) -> None:
        data = b"" if value is None else value.encode("utf-8", "surrogateescape")
        number("I", 0xFFFFFFFE if value is None else len(data))
        file.write(data)

    for record in records:
        number("B", 1)
        start = file.tell() + 4
        for code, value in zip("IQQQ", (0, *record[:3])):
            number(code, value)
        optional("Q", record.timestamp_dealloc)
        for name in record[4:8]:
            text(name)
        number("I", len(record.stack_trace or ()))
        for frame in record.stack_trace or ():
            text(frame)
        number("I", record.borrow_count)
        number("B", record.is_leaked)
        optional("Q", record.lifetime_ms)
        number("B", record.borrow_info is not None)
        if record.borrow_info is not None:
            for count in record.borrow_info[:3]:
                number("I", count)
            optional("Q", record.borrow_info[3])
        number("B", record.clone_info is not None)
        if record.clone_info is not None:
            number("I", record.clone_info[0])
            number("B", record.clone_info[1])
            optional("Q", record.clone_info[2])
        number("B", record.ownership_history_available)
        pointer = record.smart_pointer_info
        number("B", pointer is not None)
        if pointer is not None:
            number("Q", pointer.data_ptr)
            optional("Q", pointer.cloned_from)
            number("I", len(pointer.clones))
            for clone in pointer.clones:
                number("Q", clone)
            number("I", len(pointer.ref_count_history))
            for counts in pointer.ref_count_history:
                file.write(struct.pack("<3Q", *counts))
            optional("Q", pointer.weak_count)
            for flag in pointer[5:8]:
                number("B", flag)
            number("B", POINTERS.index(pointer.pointer_type))
        for slot in record[16:29]:
            number("B", slot is not None)
            if slot is not None:
                text(slot)
        end = file.tell()
        file.seek(start - 4)
        number("I", end - start)
        file.seek(end)


class Snapshot:
    """Records in memory, for what takes them from a reader."""

    layout = "3c"
    problems = ()

    def __init__(self, records: Sequence[Allocation]) -> None:
        self.records = records

    def __iter__(self) -> Iterator[Allocation]:
        return iter(self.records)


def memscope_options(*, like_upstream: bool) -> argparse.Namespace:
    return argparse.Namespace(like_upstream=like_upstream, layout=None, timestamp=0, scratch=io.BytesIO)


def exhausted(run: Callable[[Any], Iterable[Any]]) -> Callable[[Any], object]:
    return lambda subject: exhaust(run(subject))


def memscope_work(sample: Sample) -> Iterator[Way]:
    """The conversions."""
    for upstream in True, False:
        options = memscope_options(like_upstream=upstream)
        like = " like upstream" * upstream
        for name, convert in (
            ("JSON", memformats._memscope_to_json),
            ("five files", memformats._memscope_to_json5),
            ("HTML", memformats._memscope_to_html),
        ):
            run = functools.partial(convert, options=options)
            yield Way(f"memformats {name}{like}", sample.reader, exhausted(run))


def memscope_exports(sample: Sample) -> Iterator[Way]:
    """The guide's claims: writing the records as JSON instead, and json.dumps alone of the same objects."""
    options = memscope_options(like_upstream=True)
    snapshot: Any = Snapshot(sample.records)
    whole = b"".join(memformats._memscope_to_json(snapshot, options))
    size = f"{len(whole) / len(sample.data):.1f} times the size"
    yield Way(
        f"JSON export, {size}",
        io.BytesIO,
        lambda file: file.writelines(memformats._memscope_to_json(snapshot, options)),
    )
    objects = json.loads(whole)
    yield Way("json.dumps of its objects", lambda: objects, functools.partial(json.dumps, separators=(",", ":")))


# ==== All formats ======================================================================================

BENCHES: Dict[str, Bench] = {
    "mlyze": Bench(
        make_mlyze,
        open_mlyze,
        lambda header: slice(memformats.MLYZE_HEADER.size + header.metadata_length, None),
        (
            Peer("the document's reading algorithm", naive_mlyze),
            Peer("construct, compiled", lambda _: construct_mlyze(compiled=True), from_construct),
            Peer("construct", lambda _: construct_mlyze(compiled=False), from_construct),
            Peer("dissect.cstruct", cstruct_mlyze, from_cstruct),
        ),
        with_times,
        naive_write_mlyze,
        memformats.mlyze_analysis,
    ),
    "clog": Bench(
        make_clog,
        open_clog,
        lambda header: slice(memformats.CLOG_HEADER.size, header.dictionary_offset),
        (
            Peer("a read per field", naive_clog),
            Peer("construct, arguments as bytes", lambda _: construct_clog(compiled=False), entry_of),
            Peer("construct, compiled, arguments as bytes", lambda _: construct_clog(compiled=True), entry_of),
        ),
        with_arguments,
        naive_write_clog,
        memformats.clog_analysis,
        clog_texts,
    ),
    "prof": Bench(
        make_prof,
        open_prof,
        lambda _: slice(60, None),  # from the number of descriptors on
        (
            Peer("a read per field", naive_prof),
            Peer("construct, compiled", lambda _: construct_prof(compiled=True), block_of),
            Peer("construct", lambda _: construct_prof(compiled=False), block_of),
        ),
        with_ns,
        naive_write_prof,
        memformats.prof_analysis,
        prof_work,
    ),
    "mb": Bench(
        make_mb,
        lambda file, *_: memformats.MbWriter(file, compressed=False),
        lambda _: slice(memformats.MB_HEADER.size, None),
        (Peer("a read per field", naive_mb), Peer("construct", construct_mb, point_of)),
        lambda records, *_: records,
        naive_write_mb,
        memformats.mb_analysis,
        mb_work,
        remarks=mb_sizes,
    ),
    "mb-json": Bench(
        make_mb_json,
        lambda file, *_: memformats.MbJsonWriter(file),
        lambda _: slice(None),
        (Peer("json.load and a loop", naive_mb_json),),
        lambda records, *_: records,
        naive_write_mb_json,
        memformats.mb_analysis,
        mb_json_work,
        fewer=10,
    ),
    "memscope": Bench(
        make_memscope,
        open_memscope,
        lambda _: slice(40, None),  # after the header and the string block, which is empty
        (
            Peer("a read per field", naive_memscope),
            Peer("construct, compiled", lambda _: construct_memscope(compiled=True), allocation_of),
            Peer("construct", lambda _: construct_memscope(compiled=False), allocation_of),
        ),
        lambda records, _header, _tables: records,
        naive_write_memscope,
        memformats.memscope_analysis,
        memscope_work,
        memscope_exports,
    ),
}


def exhaust(items: Items) -> None:
    for _ in items:
        pass


def readers(sample: Sample) -> Iterator[Way]:
    """The ways to read, memformats first; each has been checked to give the sample's records."""
    yield Way("memformats reader", sample.reader, exhaust)
    text = json.dumps(sample.json_records())
    yield Way("json.loads of the same records", lambda: text, json.loads)
    for peer in sample.bench.peers:
        try:
            read = peer.load(sample.tables)
        except ImportError:
            print(f"{sample.format}: {peer.name}: not installed, left out", file=sys.stderr)
            continue
        records = list(sample.bench.settle(map(peer.restore, sample.begin(read)), sample.header, sample.tables))
        if records != sample.records or [*map(type, records)] != [*map(type, sample.records)]:
            raise SystemExit(f"{sample.format}: {peer.name} gives other records")
        yield Way(peer.name, functools.partial(sample.begin, read), exhaust)
    yield Way("memformats stats", sample.reader, sample.bench.analyse)
    yield from sample.bench.more(sample)
    yield Way("memformats explain", lambda: memformats.explain(io.BytesIO(sample.data)), exhaust)


def writers(sample: Sample) -> Iterator[Way]:
    """The ways to write, memformats first; each has been checked to give the sample's bytes."""
    records = sample.json_records()
    ours, naive = io.BytesIO(), io.BytesIO()
    with sample.writer(ours) as writer:
        writer.write_all(sample.records)

    def naive_write(file: IO[bytes]) -> None:
        sample.bench.naive_write(file, sample.records, sample.header, sample.tables)

    naive_write(naive)
    if ours.getvalue() != sample.data or naive.getvalue() != sample.body:
        raise SystemExit(f"{sample.format}: a writer gives other bytes")
    yield Way("memformats writer", sample.writer, lambda writer: writer.write_all(sample.records))
    yield Way("json.dumps of the same records", lambda: records, json.dumps)
    yield Way("a write per field", io.BytesIO, naive_write)
    yield from sample.bench.more_writing(sample)


SLOW = 2  # seconds


def measure(ways: List[Way], counts: Iterable[int], turns: int) -> List[Dict[str, Any]]:
    """Time all in turns, after one that is not counted; ``counts`` tells of each how many records it handles.

    What is SLOW has three turns.

    Of each way: the median time per record, and its ratio to the first way: median, least, most.
    """
    times: List[List[float]] = [[] for _ in ways]
    for turn in range(1 + turns):
        for way, count, taken in zip(ways, counts, times):
            if turn > 3 and taken[0] * count > SLOW * 1e9:
                continue
            subject = way.setup()
            gc.collect()
            getattr(gc, "freeze", int)()  # what was made before does not cost those more who make many objects
            start = time.process_time()
            way.run(subject)
            taken.append(1e9 * (time.process_time() - start) / count)
            getattr(gc, "unfreeze", int)()
    rows = []
    for way, taken in zip(ways, times):
        ratios = [mine / first for mine, first in zip(taken[1:], times[0][1:])]
        figures = {"ns": median(taken[1:]), "ratio": median(ratios), "low": min(ratios), "high": max(ratios)}
        rows.append({"name": way.name, **figures})
    return rows


def memory(sample: Sample) -> Optional[int]:
    """The most bytes that streaming all records takes, beyond what the open reader holds; None if not known."""
    try:
        tracemalloc: Any = importlib.import_module("tracemalloc")
    except ImportError:
        return None
    reader = sample.reader()
    tracemalloc.start()
    exhaust(reader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return int(peak)


def import_ms(turns: int) -> Optional[float]:
    """The median time to import memformats where its five imports are loaded already; None if not known."""
    folder = os.path.dirname(os.path.abspath(memformats.__file__))
    code = f"import sys; sys.path.insert(0, {folder!r}); import struct, io, gzip, json, typing; import memformats"
    command = [sys.executable, "-I", "-S", "-X", "importtime", "-c", code]
    found = []
    for _ in range(turns + 1):  # the first may compile
        log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        found += [int(line.split("|")[1]) / 1000 for line in log.splitlines() if line.endswith(" memformats")]
    return median(found[1:]) if found else None


def results(format: str, *, quick: bool) -> Dict[str, Any]:
    """All that is measured for one format."""
    turns = 3 if quick else 9
    sizes = (
        [1_000, 5_000, 25_000] if quick else [size // BENCHES[format].fewer for size in (10_000, 100_000, 1_000_000)]
    )
    _, some, many = sizes
    sample = Sample(format, some)
    return {
        "format": format,
        "records": some,
        "size": len(sample.body) / some,
        "turns": turns,
        "reading": measure(list(readers(sample)), repeat(some), turns),
        "writing": measure(list(writers(sample)), repeat(some), turns),
        "growth": measure([Way(f"{size:,}", Sample(format, size).reader, exhaust) for size in sizes], sizes, turns),
        "peak": memory(Sample(format, many)),
        "remarks": [*sample.bench.remarks(sample)],
    }


def table(title: str, rows: List[Dict[str, Any]], *, markdown: bool) -> Iterator[str]:
    """Lines of one table; Markdown has the ratios only."""
    if markdown:
        yield f"\n| {title} | time | least to most |\n|---|---:|---:|"
        form = "| {name} | {ratio:.2f} | {low:.2f} to {high:.2f} |"
    else:
        yield f"\n{title:<40}{'ns/record':>12}{'records/s':>12}{'ratio':>9}   least to most"
        form = "{name:<40}{ns:>12,.0f}{rate:>12,.0f}{ratio:>9.2f}   {low:.2f} to {high:.2f}"
    yield from (form.format(rate=1e9 / row["ns"], **row) for row in rows)


def text(found: Dict[str, Any], *, markdown: bool) -> Iterator[str]:
    """What was found of one format, as lines."""
    yield f"\n{found['format']}: {found['records']:,} records of {found['size']:.1f} bytes, {found['turns']} turns"
    yield from table("reading", found["reading"], markdown=markdown)
    yield from table("writing", found["writing"], markdown=markdown)
    yield from table("memformats reader, records in the file", found["growth"], markdown=markdown)
    if found["peak"] is not None:
        peak = f"{found['peak'] >> 10:,} KiB (goal: under 1,024)"
        yield f"\nstreaming {found['growth'][-1]['name']} records takes {peak} beside the tables"
    if found["remarks"]:
        yield "\n" + "\n".join(found["remarks"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure memformats against other ways to do the same work.")
    parser.add_argument("--format", choices=BENCHES, action="append", help="only this one")
    parser.add_argument("--quick", action="store_true", help="small samples, few turns: for a look, not for figures")
    parser.add_argument("--json", metavar="FILE", help="all figures go here too")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown, of ratios only")
    options = parser.parse_args()
    interpreter = f"{platform.python_implementation()} {platform.python_version()}"
    ms = import_ms(5 if options.quick else 21)
    print(interpreter)
    if ms is not None:
        print(f"importing memformats takes {ms:.1f} ms, its five imports aside")
    formats = []
    for name in options.format or BENCHES:
        formats.append(results(name, quick=options.quick))
        print("\n".join(text(formats[-1], markdown=options.markdown)), flush=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"interpreter": interpreter, "import_ms": ms, "formats": formats}, file, indent=1)


if __name__ == "__main__":
    main()
