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
import struct
import subprocess
import sys
import time
from itertools import repeat
from statistics import median
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, cast

import memformats
from memformats import Alloc, Frame, Free, Gc, Marker, MlyzeHeader, MlyzeRecord

Items = Iterable[Any]  # what a way of reading gives, in its own classes
Read = Callable[[IO[bytes]], Items]  # a generator function; its file starts with the first record


class Peer(NamedTuple):
    """Another way to read: ``load`` makes it or raises ImportError, ``restore`` makes a record of an item."""

    name: str
    load: Callable[[], Read]
    restore: Callable[[Any], Any] = lambda item: item


class Bench(NamedTuple):
    """What is measured for one format.

    ``make`` gives a file of so many records, ``writer`` takes header and tables, ``settle`` gives the records of
    a peer what hangs on the header, ``naive_write`` is the plainest way, ``analyse`` the work behind ``stats``.
    """

    make: Callable[[int], bytes]
    writer: Callable[[IO[bytes], Any, Dict[str, Any]], memformats.Writer[Any, Any]]
    peers: Tuple[Peer, ...]
    settle: Callable[[Items, Any], Items]
    naive_write: Callable[..., None]
    analyse: Callable[[Any], object]


class Sample:
    """A generated file and what it holds."""

    def __init__(self, format: str, count: int) -> None:
        self.format = format
        self.bench = BENCHES[format]
        self.data = self.bench.make(count)
        self.header, self.tables = self.reader().header, self.reader().tables
        self.writer(start := io.BytesIO()).close()
        self.body = self.data[len(start.getvalue()) :]  # from the first record on

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


def open_mlyze(file: IO[bytes], header: MlyzeHeader, tables: Dict[str, Any]) -> memformats.MlyzeWriter:
    """A writer that has its metadata."""
    tables = {name: tables[name] for name in ("stacks", "files", "functions")}
    return memformats.MlyzeWriter(file, start_us=header.start_us, **tables)


def naive_mlyze() -> Read:
    """The reading algorithm of the format's document, completed with GC and MARKER."""

    def read_varint(file: IO[bytes]) -> int:
        value = shift = 0
        while True:
            byte = file.read(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def read(file: IO[bytes]) -> Items:
        for kind in iter(lambda: file.read(1), b""):
            delta = read_varint(file)
            if kind == b"\0":
                (address,) = struct.unpack("<Q", file.read(8))
                size = read_varint(file)
                stack_id = read_varint(file)
                (thread_id,) = struct.unpack("<H", file.read(2))
                yield Alloc(delta, address, size, stack_id, thread_id)
            elif kind == b"\1":
                (address,) = struct.unpack("<Q", file.read(8))
                yield Free(delta, address)
            elif kind == b"\2":
                yield Gc(delta, read_varint(file), read_varint(file))
            elif kind == b"\3":
                yield Marker(delta, read_varint(file))

    return read


def construct_mlyze(*, compiled: bool) -> Read:
    """A declaration for construct, parsed record by record."""
    c: Any = importlib.import_module("construct")
    bodies = {
        0: c.Struct("address" / c.Int64ul, "size" / c.VarInt, "stack_id" / c.VarInt, "thread_id" / c.Int16ul),
        1: c.Struct("address" / c.Int64ul),
        2: c.Struct("objects" / c.VarInt, "bytes" / c.VarInt),
        3: c.Struct("name_id" / c.VarInt),
    }
    event = c.Struct("type" / c.Int8ul, "delta" / c.VarInt, "body" / c.Switch(c.this.type, bodies))
    if compiled:
        event = event.compile()

    def read(file: IO[bytes]) -> Items:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        while file.tell() < size:
            yield event.parse_stream(file)

    return read


def from_construct(item: Any) -> Any:
    """A record from construct's container."""
    return KINDS[item.type](item.delta, **{key: item.body[key] for key in item.body if key[0] != "_"})


def cstruct_mlyze() -> Read:
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


def with_times(records: Items, header: Any) -> Items:
    """The records of a reader that gives deltas, with absolute times."""
    time_us = header.start_us
    for record in records:
        time_us += record.time_us
        yield record._replace(time_us=time_us)


def naive_write_mlyze(file: IO[bytes], header: MlyzeHeader, records: Items) -> None:
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


# ==== All formats ======================================================================================

BENCHES: Dict[str, Bench] = {
    "mlyze": Bench(
        make_mlyze,
        open_mlyze,
        (
            Peer("the document's reading algorithm", naive_mlyze),
            Peer("construct, compiled", lambda: construct_mlyze(compiled=True), from_construct),
            Peer("construct", lambda: construct_mlyze(compiled=False), from_construct),
            Peer("dissect.cstruct", cstruct_mlyze, from_cstruct),
        ),
        with_times,
        naive_write_mlyze,
        memformats.mlyze_analysis,
    ),
}


class Way(NamedTuple):
    """Something to time: ``run``, with what ``setup`` gives before the clock starts."""

    name: str
    setup: Callable[[], Any]
    run: Callable[[Any], object]


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
            read = peer.load()
        except ImportError:
            print(f"{sample.format}: {peer.name}: not installed, left out", file=sys.stderr)
            continue
        records = list(sample.bench.settle(map(peer.restore, sample.begin(read)), sample.header))
        if records != sample.records or [*map(type, records)] != [*map(type, sample.records)]:
            raise SystemExit(f"{sample.format}: {peer.name} gives other records")
        yield Way(peer.name, functools.partial(sample.begin, read), exhaust)
    yield Way("memformats stats", sample.reader, sample.bench.analyse)
    yield Way("memformats explain", lambda: memformats.explain(io.BytesIO(sample.data)), exhaust)


def writers(sample: Sample) -> Iterator[Way]:
    """The ways to write, memformats first; each has been checked to give the sample's bytes."""
    records = sample.json_records()
    ours, naive = io.BytesIO(), io.BytesIO()
    sample.writer(ours).write_all(sample.records)
    sample.bench.naive_write(naive, sample.header, sample.records)
    if ours.getvalue() != sample.data or naive.getvalue() != sample.body:
        raise SystemExit(f"{sample.format}: a writer gives other bytes")
    naive_write = functools.partial(sample.bench.naive_write, header=sample.header, records=sample.records)
    yield Way("memformats writer", sample.writer, lambda writer: writer.write_all(sample.records))
    yield Way("json.dumps of the same records", lambda: records, json.dumps)
    yield Way("a write per field", io.BytesIO, naive_write)


def measure(ways: List[Way], counts: Iterable[int], turns: int) -> List[Dict[str, Any]]:
    """Time all in turns, after one that is not counted; ``counts`` tells of each how many records it handles.

    Of each way: the median time per record, and its ratio to the first way: median, least, most.
    """
    times: List[List[float]] = [[] for _ in ways]
    for _ in range(1 + turns):
        for way, count, taken in zip(ways, counts, times):
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
    sizes = _, some, many = (1_000, 5_000, 25_000) if quick else (10_000, 100_000, 1_000_000)
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
    }


def table(title: str, rows: List[Dict[str, Any]], *, markdown: bool) -> Iterator[str]:
    """Lines of one table; Markdown has the ratios only."""
    if markdown:
        yield f"\n| {title} | time | least to most |\n|---|---:|---:|"
        form = "| {name} | {ratio:.2f} | {low:.2f} to {high:.2f} |"
    else:
        yield f"\n{title:<36}{'ns/record':>12}{'ratio':>9}   least to most"
        form = "{name:<36}{ns:>12,.0f}{ratio:>9.2f}   {low:.2f} to {high:.2f}"
    yield from (form.format(**row) for row in rows)


def text(report: Dict[str, Any], *, markdown: bool) -> Iterator[str]:
    """The whole report as lines."""
    yield report["interpreter"]
    if report["import_ms"] is not None:
        yield f"importing memformats takes {report['import_ms']:.1f} ms, its five imports aside"
    for found in report["formats"]:
        yield f"\n{found['format']}: {found['records']:,} records of {found['size']:.1f} bytes, {found['turns']} turns"
        yield from table("reading", found["reading"], markdown=markdown)
        yield from table("writing", found["writing"], markdown=markdown)
        yield from table("memformats reader, records in the file", found["growth"], markdown=markdown)
        if found["peak"] is not None:
            peak = f"{found['peak'] >> 10:,} KiB (goal: under 1,024)"
            yield f"\nstreaming {found['growth'][-1]['name']} records takes {peak} beside the tables"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure memformats against other ways to do the same work.")
    parser.add_argument("--format", choices=BENCHES, action="append", help="only this one")
    parser.add_argument("--quick", action="store_true", help="small samples, few turns: for a look, not for figures")
    parser.add_argument("--json", metavar="FILE", help="all figures go here too")
    parser.add_argument("--markdown", action="store_true", help="print tables in Markdown, of ratios only")
    options = parser.parse_args()
    report = {
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}",
        "import_ms": import_ms(5 if options.quick else 21),
        "formats": [results(name, quick=options.quick) for name in options.format or BENCHES],
    }
    print("\n".join(text(report, markdown=options.markdown)))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
