# SPDX-FileCopyrightText: 2026 the memformats authors
# SPDX-License-Identifier: MIT
"""Tests of memformats: run ``python -m pytest``, or ``python test_memformats.py --fuzz MINUTES`` for more of section 3.

What is tested against what: the vectors under ``vectors/``, recordings of the real programs (beside the
repository, on machines that have them), files built here byte by byte, and numbers worked out by hand.

1.  helpers         files, vectors, recordings, the command line
2.  vectors         every ``.hex`` and ``.json``; the errata
3.  oracle          explain against Reader: vectors, recordings, prefixes, mutations
4.  sources         chunks, pipes, gzip
5.  module          what the one file promises: imports, names, layout
6.  documents       JSON in and out
7.  command line    as a user drives it
8.  README          its examples do what they show
9.  formats         what only one format has.   9.1 mlyze   9.2 clog   9.3 prof
                   9.4 mb   9.5 mb-json   9.6 memscope
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import contextlib
import copy
import datetime as dt
import errno
import functools
import gzip
import hashlib
import importlib
import importlib.util
import io
import itertools
import json
import os
import pickle
import random
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import time
import typing
import uuid
import zipfile
import zlib
from decimal import Decimal
from pathlib import Path
from typing import (
    IO,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
    Union,
    cast,
)

import pytest

import memformats as mf

HERE = Path(__file__).parent
MODULE = HERE / "memformats.py"
RECORDINGS = HERE.parent / "shared" / "recordings"
PYPY = sys.implementation.name == "pypy"


# ==== 1. Helpers ======================================================================================

Json = Dict[str, Any]


class Vector(NamedTuple):
    """One vector: its ``.hex`` and ``.json``."""

    id: str
    text: str
    data: bytes
    about: Json


def hex_bytes(text: str) -> bytes:
    """The bytes of a ``.hex`` by the rule of vectors/README.md, apart from the module's own function."""
    lines = [line for line in text.splitlines() if re.match(r"[0-9a-f]{8}:", line)]
    return b"".join(bytes.fromhex(line[9:].split("#")[0]) for line in lines)


def load_vectors() -> List[Vector]:
    found = []
    for path in sorted((HERE / "vectors").glob("*/*/*.hex")):
        text = path.read_bytes().decode("ascii")
        about = json.loads(path.with_suffix(".json").read_text(encoding="ascii"))
        found.append(
            Vector(path.relative_to(HERE / "vectors").with_suffix("").as_posix(), text, hex_bytes(text), about)
        )
    return found


VECTORS = load_vectors()
READABLE = [vector for vector in VECTORS if "expect" in vector.about]
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=[vector.id for vector in VECTORS])
each_readable_vector = pytest.mark.parametrize("vector", READABLE, ids=[vector.id for vector in READABLE])
each_format = pytest.mark.parametrize("name", list(mf.FORMATS))


def recordings(name: str) -> List[Path]:
    """The recordings of one format; those of mb-json stand with those of mb."""
    extensions = mf.FORMATS[name].extensions
    paths = (RECORDINGS / name.partition("-")[0]).glob("*")
    return sorted(path for path in paths if path.name.endswith(extensions) and ".expected." not in path.name)


ALL_RECORDINGS = [(name, path) for name in mf.FORMATS for path in recordings(name)]
each_recording = pytest.mark.parametrize(
    ("name", "path"), ALL_RECORDINGS, ids=[f"{name}/{path.name}" for name, path in ALL_RECORDINGS]
)


class Outcome(NamedTuple):
    """All that a Reader gives of some bytes."""

    header: Any
    records: List[Any]
    problems: List[mf.Problem]
    fault: Optional[mf.FormatError]


def outcome(file: Any, name: str, **options: Any) -> Outcome:
    """Read bytes or a file; nothing but FormatError is caught."""
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        reader = mf.FORMATS[name].reader(source, **options)
    except mf.FormatError as error:
        return Outcome(None, [], [], error)
    records = []
    try:
        for record in reader:
            records.append(record)  # noqa: PERF402 - what came before the fault counts
    except mf.FormatError as error:
        return Outcome(reader.header, records, reader.problems, error)
    return Outcome(reader.header, records, reader.problems, None)


def place(fault: Any) -> Tuple[str, int, str]:
    """Code, offset and path, of a FormatError or a Problem."""
    return fault.code, fault.offset, fault.where


def same(left: Any, right: Any) -> bool:
    """Equal values of equal classes: tuples of different classes compare equal, and so do 0.0 and -0.0."""
    return type(left) is type(right) and repr(left) == repr(right)


def assert_same(left: Sequence[Any], right: Sequence[Any]) -> None:
    """The same records; tells the first that differ."""
    pairs = itertools.zip_longest(left, right)
    assert next(((a, b) for a, b in pairs if not same(a, b)), None) is None


def decoded(data: bytes, name: str, *, lines: bool = False, **options: Any) -> str:
    with mf.open(io.BytesIO(data), format=name, **options) as reader:
        return "".join(mf.decode(reader, lines=lines))


def encoded(text: str) -> bytes:
    file = io.BytesIO()
    mf.encode(io.BytesIO(text.encode("ascii")), file)
    return file.getvalue()


def unpacked(data: bytes) -> Optional[bytes]:
    """What the gzip body of a ``.mb`` file unpacks to, as far as it does; None if it has none."""
    start, flagged = data[8:10], data[6:7] > b"" and data[6] & 1
    if data[:4] != b"MEMD" or not (start == b"\x1f\x8b" or (flagged and start in (b"", b"\x1f"))):
        return None
    try:
        return zlib.decompressobj(31).decompress(data[8:])
    except zlib.error:
        return zlib_readable(data[8:])


def assert_same_file(made: bytes, data: bytes) -> None:
    """The same bytes; of files with a gzip body the same header and what the body unpacks to."""
    body = unpacked(data)
    if body is None:
        assert made == data
    else:
        assert (made[:8], unpacked(made)) == (data[:8], body)
        gzip.decompress(made[8:])


def filled(kind: Any, value: Json) -> Json:
    """The JSON of a record with its defaults, which may be left out, filled in."""
    usual = {key: item.hex() if isinstance(item, bytes) else item for key, item in kind._field_defaults.items()}
    return {**usual, **value}


def normal(document: Json) -> str:
    """A decode document as text, the same for all spellings of the same content."""
    format = mf.FORMATS[document["format"]]
    kinds = {kind.__name__: kind for kind in format.records}
    document = {"tail": "", "problems": [], **document}
    document["header"] = filled(format.header, document["header"])
    document["records"] = [filled(kinds[record["record"]], record) for record in document["records"]]
    problems = [filled(mf.Problem, problem) for problem in document["problems"]]
    document["problems"] = [{**problem, "message": ""} for problem in problems]  # words are free
    return json.dumps(document, sort_keys=True, indent=1)


class Run(NamedTuple):
    """What a command did."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode("utf-8")


def cli(*arguments: object, stdin: bytes = b"", encoding: str = "utf-8") -> Run:
    """Run ``main`` in this process."""
    out, err = io.BytesIO(), io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        stdout, stderr = io.TextIOWrapper(out, encoding), io.TextIOWrapper(err, encoding)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding))
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        code = mf.main([str(argument) for argument in arguments])
        stdout.flush()
        stderr.flush()
        return Run(code, out.getvalue(), err.getvalue().decode(encoding))


def refused(*arguments: object, code: int, stdin: bytes = b"") -> str:
    """The one line on stderr of a command that has to fail."""
    run = cli(*arguments, stdin=stdin)
    assert run.code == code
    assert re.fullmatch(r"memformats: .+\n", run.err)
    return run.err[len("memformats: ") : -1]


def python(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run this Python on its own."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, **options)


class Trickle(io.BytesIO):
    """A file without seek that gives as many bytes at a time as ``sizes`` say."""

    def __init__(self, data: bytes, sizes: Iterable[int]) -> None:
        super().__init__(data)
        self.sizes = iter(sizes)

    def read(self, size: Optional[int] = -1) -> bytes:
        assert size is not None
        assert size >= 0  # a reader of streams asks for some, never for all
        return super().read(size and min(size, next(self.sizes)))

    read1 = read

    def seekable(self) -> bool:
        return False


# ==== 2. Vectors ======================================================================================


@each_format
def test_vectors_of_all_kinds(name: str) -> None:
    kinds = {vector.id.split("/")[1] for vector in VECTORS if vector.id.startswith(name + "/")}
    assert kinds == {"spec", "recorded", "edge", "invalid"}


@each_vector
def test_vector_schema(vector: Vector) -> None:
    about = vector.about
    keys = ["id", "format", "version", "comment", "source", "errata", "result", "roundtrip"]
    keys += ["error"] if about["result"] == "invalid" else ["expect"]
    assert [*about] in (keys, [*keys, "recover"])
    assert about["id"] == vector.id
    assert vector.id.split("/")[0] == about["format"]
    assert about["source"]["kind"] in ("spec", "recorded", "hand", "mutated")
    assert (vector.id.split("/")[1] == "recorded") == (about["source"]["kind"] == "recorded")
    assert (vector.id.split("/")[1] == "invalid") <= (about["result"] == "invalid")
    assert about["result"] in ("valid", "deviant", "invalid")
    assert about["roundtrip"] in (("bytes", "body") if {"expect", "recover"} & {*about} else ("none",))
    assert isinstance(about["version"], str)
    known = {"spec": ["section"], "recorded": ["release", "file"], "hand": ["release", "file"], "mutated": ["file"]}
    kind, *source = about["source"]
    assert source == known[about["source"][kind]][: len(source)]
    assert source or about["source"][kind] in ("hand", "mutated")
    assert isinstance(about["comment"], str)
    assert about["comment"]
    assert all(isinstance(number, int) for number in about["errata"])


@each_vector
def test_vector_text_is_what_explain_prints(vector: Vector) -> None:
    spans = mf.explain(io.BytesIO(vector.data), vector.about["format"])
    assert [*mf.hex_lines(vector.data, spans, unpacked(vector.data) or b"")] == vector.text.splitlines()
    assert vector.text.endswith("\n")
    assert mf.hex_to_bytes(vector.text) == vector.data


@each_readable_vector
def test_vector_decodes(vector: Vector) -> None:
    name = vector.about["format"]
    assert normal(json.loads(decoded(vector.data, name))) == normal(vector.about["expect"])
    deviations = [p for p in vector.about["expect"].get("problems", ()) if p["severity"] == "deviation"]
    assert bool(deviations) == (vector.about["result"] == "deviant")
    if not deviations:
        assert outcome(vector.data, name, strict=True).fault is None


@pytest.mark.parametrize("vector", [v for v in VECTORS if "error" in v.about], ids=lambda vector: vector.id)
def test_vector_is_refused(vector: Vector) -> None:
    fault = outcome(vector.data, vector.about["format"]).fault
    assert fault is not None
    assert {"code": fault.code, "space": fault.space, "offset": fault.offset} == vector.about["error"]


@pytest.mark.parametrize("vector", [v for v in VECTORS if "recover" in v.about], ids=lambda vector: vector.id)
def test_vector_recovers(vector: Vector) -> None:
    text = decoded(vector.data, vector.about["format"], recover=True)
    assert normal(json.loads(text)) == normal(vector.about["recover"])
    assert_same_file(encoded(text), vector.data)
    if vector.about["roundtrip"] == "bytes":
        assert encoded(text) == vector.data


@each_readable_vector
def test_vector_round_trip(vector: Vector) -> None:
    name = vector.about["format"]
    if vector.about["roundtrip"] == "body":
        for text in (
            decoded(vector.data, name),
            decoded(vector.data, name, lines=True),
            json.dumps(vector.about["expect"]),
        ):
            assert_same_file(encoded(text), vector.data)
    if vector.about["roundtrip"] == "bytes":
        assert encoded(decoded(vector.data, name)) == vector.data
        assert encoded(decoded(vector.data, name, lines=True)) == vector.data
        assert encoded(json.dumps(vector.about["expect"])) == vector.data


@each_vector
def test_vector_text_is_taken_like_the_file(vector: Vector, tmp_path: Path) -> None:
    name = vector.about["format"]
    for folder, data in ("binary", vector.data), ("text", vector.text.encode()):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_bytes(data)
    commands = ("info", "check", "stats", "decode", "explain", "stats --like-upstream")
    for command in commands[VECTORS.index(vector) % 6 :: 6]:  # all of them, of six vectors
        with pytest.MonkeyPatch.context() as patch:
            runs = []
            for folder in "binary", "text":
                patch.chdir(tmp_path / folder)
                runs.append(cli(*command.split(), "--format", name, "file"))
        assert runs[0] == runs[1]


def test_errata_are_all_listed() -> None:
    listed = json.loads((HERE / "vectors" / "errata.json").read_text(encoding="ascii"))
    by_number = {(erratum["format"], erratum["number"]): erratum for erratum in listed}
    assert len(by_number) == len(listed)
    shown = {(v.about["format"].partition("-")[0], number, v.id) for v in VECTORS for number in v.about["errata"]}
    assert {(e["format"], e["number"], id) for e in listed for id in e.get("vectors", ())} == shown
    for erratum in listed:
        assert {*erratum} == {"format", "number", "line", "vectors" if "vectors" in erratum else "why_none"}
        assert erratum.get("vectors") != []
        assert len(erratum["line"].splitlines()) == 1
    for name in mf.FORMATS:
        numbers = sorted(number for format, number in by_number if format == name)
        assert numbers == [*range(1, len(numbers) + 1)]
        text = HERE.parent / "shared" / "formats" / f"{name}.md"
        if text.exists():
            errata = re.split(r"^##? .*[Ee]rrata.*$", text.read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
            errata = re.split(r"^##? ", errata, flags=re.MULTILINE)[0]
            assert [int(number) for number in re.findall(r"^(\d+)\. ", errata, flags=re.MULTILINE)] == numbers


# ==== 3. Oracle: explain against the Reader ===========================================================
#
# explain and the Reader are two programs for the same bytes.  Of every file they must tell the same header,
# records and fault; the records are rebuilt here from the paths and values of explain's spans.

Rebuilt = Tuple[Any, List[Any]]
REBUILD: Dict[str, Callable[[List[mf.Span], bytes], Rebuilt]] = {}  # by format; filled by section 9
STEPPED_OVER: Dict[str, List[Tuple[str, str]]] = {}  # by format: (code, path) of the faults that recover steps over


def assert_covered(spans: Sequence[mf.Span], size: int, body: Optional[bytes] = None) -> None:
    """Every byte once, in order, the body's after the file's; only what a fault leaves may be nothing at all."""
    ends = {"file": 0, "body": 0}
    for span in spans:
        assert span.offset == ends[span.space]
        assert span.space == "body" or not ends["body"]
        assert span.size > 0 or (span.type == "unread" and span is spans[-1])
        ends[span.space] += span.size
    assert ends == {"file": size, "body": len(body or b"")}


def check_explain(data: bytes, name: str, read: Outcome, *, recover: bool) -> None:
    """Hold explain against what the Reader gave."""
    spans = [*mf.explain(io.BytesIO(data), name, recover=recover)]
    assert_covered(spans, len(data), unpacked(data))
    header, records = REBUILD[name](spans, data)
    if read.header is not None:
        assert same(header, read.header)
    assert_same(records, read.records)
    told: Dict[Any, Any] = {}  # by code and field, of several the one with the least offset, as among problems
    for span in spans:
        if span.type == "unread":
            told.setdefault((span.value, re.sub(r"\[\d+\]", "[]", span.path)), []).append(
                (int(re.split("[ :]", span.note)[1], 16), span.value, span.path, span.note)
            )
    faults = [(*place(read.fault), read.fault.reason)] if read.fault else []
    if recover and not read.fault:
        problems = [problem for problem in read.problems if problem.severity == "fault"]
        problems = [p for p in problems if (p.code, re.sub(r"\d+", "", p.where)) not in STEPPED_OVER[name]]
        faults = [(*place(p), p.message) for p in problems]
    wanted = [(offset, code, where, f"offset 0x{offset:x}: {reason}") for code, offset, where, reason in faults]
    assert sorted(min(several) for several in told.values()) == sorted(wanted)
    assert {code for code, *_ in faults} <= {*mf.CODES}


def check_readings(data: bytes, name: str) -> None:
    """Hold explain, the Reader in its three modes, and the Writer against each other."""
    plain = outcome(data, name)
    strict = outcome(data, name, strict=True)
    recovered = outcome(data, name, recover=True)
    check_explain(data, name, plain, recover=False)
    check_explain(data, name, recovered, recover=True)

    # Recovering gives up on a header only; it gives all that reading gives.
    assert recovered.fault is None or recovered.header is None
    assert_same(plain.records, recovered.records[: len(plain.records)])

    # Strict stops at a deviation, the first that is met, and at nothing else that reading does not stop at.
    deviations: List[Any] = [place(problem) for problem in plain.problems if problem.severity == "deviation"]
    assert (strict.fault and place(strict.fault)) in (deviations or [plain.fault and place(plain.fault)])

    if recovered.header is not None:
        text = decoded(data, name, lines=len(data) % 2 == 0, recover=True)
        assert_same_file(encoded(text), data)


@each_vector
def test_oracle_on_vectors(vector: Vector) -> None:
    check_readings(vector.data, vector.about["format"])


@each_recording
def test_oracle_on_recordings(name: str, path: Path) -> None:
    check_readings(path.read_bytes(), name)


@each_recording
def test_recording_round_trip(name: str, path: Path, tmp_path: Path) -> None:
    document, back = tmp_path / "document", tmp_path / "back"
    for lines in [], ["--lines"]:
        assert cli("decode", path, "--recover", *lines, "-f", "-o", document).code == 0
        assert cli("encode", document, "-f", "-o", back) == Run(0, b"", "")
        assert_same_file(back.read_bytes(), path.read_bytes())
    assert mf.detect(path) == name


BOUNDARY = (0x00, 0x01, 0x02, 0x03, 0x7F, 0x80, 0x81, 0xFE, 0xFF)


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One to three small damages, more of them near the start and in the second half than elsewhere."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        size = len(made)
        low = rng.choice((0, size // 2, size // 2, size - 40))
        at = rng.randrange(max(low, 0), size + 1) if rng.random() < 0.8 else rng.randrange(min(24, size + 1))
        kind = rng.randrange(8)
        if kind == 0 and at < size:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < size:
            made[at] = rng.choice(BOUNDARY)
        elif kind == 2:
            made[at:at] = bytes(rng.choices(BOUNDARY, k=rng.randrange(1, 12)))
        elif kind == 3:
            del made[at : at + rng.randrange(1, 9)]
        elif kind == 4:
            start = rng.randrange(len(other))
            made[at:at] = other[start : start + rng.randrange(1, 40)]
        elif kind == 5:
            start = rng.randrange(len(other))
            made[at : at + rng.randrange(20)] = other[start : start + rng.randrange(20)]
        elif kind == 6:
            made[at:at] = b"\x80" * rng.choice((1, 8, 9, 10, 62, 63, 64, 65)) + bytes([rng.choice(BOUNDARY)])
        else:
            del made[at:]
        if not made:
            break
    return bytes(made)


SMALL_FILES: Dict[str, List[bytes]] = {}  # by format: files made by hand, besides the vectors; filled by section 9


def prefixes(name: str, rng: random.Random) -> Iterator[Tuple[str, bytes]]:
    """Every prefix up to 2 KiB, a hundred of those up to 32 KiB; of all files of a format, in no order."""
    files = [(v.id, v.data) for v in VECTORS if v.about["format"] == name]
    files += [(f"SMALL_FILES[{number}]", data) for number, data in enumerate(SMALL_FILES[name])]
    files += [(path.name, path.read_bytes()) for path in recordings(name)]
    cuts = []
    for number, (_, data) in enumerate(files):
        longest = min(len(data), 1 << 15)
        sizes = {*range(min(longest, 2048) + 1), *rng.sample(range(longest + 1), min(longest, 100))}
        cuts += [(number, size) for size in sizes]
    rng.shuffle(cuts)
    for number, size in cuts:
        about, data = files[number]
        yield f"the first {size} bytes of {about}", data[:size]


def mutations(name: str, rng: random.Random) -> Iterator[Tuple[str, bytes]]:
    """Small files with small damages, without end."""
    small = [v.data for v in VECTORS if v.about["format"] == name and 0 < len(v.data) < 1000] + SMALL_FILES[name]
    for number in itertools.count():
        data = mutate(rng, rng.choice(small), rng.choice(small))
        if not data.startswith(b"\x1f\x8b\x08"):  # as a gzip file it would be read through
            yield f"mutation {number}", data


# Two minutes in all; a run on one more interpreter needs less.
ORACLE_SECONDS = float(os.environ.get("ORACLE_SECONDS", "120")) / 2 / len(mf.FORMATS)


def hold_against_each_other(
    name: str, make: Callable[[str, random.Random], Iterator[Tuple[str, bytes]]], seed: int, seconds: float
) -> int:
    """Check the readings of one made file after the other until the time is over; returns how many they were."""
    until = time.monotonic() + seconds
    files = make(name, random.Random(seed))
    for number, (about, data) in enumerate(files):
        try:
            check_readings(data, name)
        except BaseException:
            print(f"{name}, seed {seed}, {about}: {data.hex()}")
            raise
        if time.monotonic() > until:
            return number + 1
    return number + 1


@each_format
@pytest.mark.parametrize("make", [prefixes, mutations])
def test_oracle_on_made_files(name: str, make: Callable[[str, random.Random], Iterator[Tuple[str, bytes]]]) -> None:
    made = hold_against_each_other(name, make, 1, ORACLE_SECONDS)
    print(f"{made} {make.__name__} of {name}")
    assert made > 1


def fuzz(minutes: float, seed: int) -> None:
    """All formats in turn, from one seed to the next, until the time is over or the readings differ."""
    start = time.monotonic()
    made = 0
    while time.monotonic() < start + minutes * 60:
        for name in mf.FORMATS:
            for make in mutations, prefixes:
                made += hold_against_each_other(name, make, seed, min(5, minutes * 60))
        seed += 1
        print(f"{made:,} files in {time.monotonic() - start:,.0f} s; the next seed is {seed}", flush=True)


def test_fuzz_prints_the_seed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(0.0001, 7)
    assert "the next seed is 8" in capsys.readouterr().out
    good = check_readings

    def bad(data: bytes, name: str) -> None:
        good(data, name)
        assert name != "clog"

    monkeypatch.setitem(globals(), "check_readings", bad)
    with pytest.raises(AssertionError):
        fuzz(0.0001, 7)
    assert re.search("^clog, seed 7, mutation 0: [0-9a-f]*$", capsys.readouterr().out, re.MULTILINE)


# ==== 4. Sources: chunks, pipes, gzip =================================================================
#
# What a file says does not depend on the pieces it comes in.  BIG is a file of each format of about 70 KB, which
# is more than the module reads at a time; section 9 fills it.

BIG: Dict[str, Callable[[int], bytes]] = {}  # by format: a file whose records stand n bytes further to the end


def assert_same_outcome(left: Outcome, right: Outcome) -> None:
    assert same(left.header, right.header)
    assert_same(left.records, right.records)
    assert left.problems == right.problems
    assert str(left.fault) == str(right.fault)


@each_vector
def test_one_byte_at_a_time(vector: Vector) -> None:
    name = vector.about["format"]
    for recover in False, True:
        whole = outcome(vector.data, name, recover=recover)
        trickled = outcome(Trickle(vector.data, itertools.repeat(1)), name, recover=recover)
        assert_same_outcome(whole, trickled)


@each_format
@pytest.mark.parametrize("seed", range(10))
def test_chunks_of_random_sizes(name: str, seed: int) -> None:
    rng = random.Random(seed)
    data = BIG[name](0)[: -rng.randrange(1, 20)]
    sizes = (rng.choice((1, 2, 13, 200, 1000, 65536)) for _ in itertools.count())
    assert_same_outcome(outcome(data, name), outcome(Trickle(data, sizes), name))


@each_format
def test_records_astride_a_chunk_border(name: str) -> None:
    wanted = outcome(Trickle(BIG[name](0), itertools.repeat(7)), name).records
    for shift in range(1, 50):
        data = BIG[name](shift)
        assert len(data) - len(BIG[name](0)) == shift
        assert outcome(data, name).records[1:] == wanted[1:]  # in .clog only a longer first entry moves the others


@each_format
def test_pipe(name: str) -> None:
    data = SMALL_FILES[name][0]
    for format in None, name:
        end, start = os.pipe()
        os.write(start, data)
        os.close(start)
        with io.open(end, "rb") as file, mf.open(file, format=format) as reader:
            assert not file.seekable()
            assert_same([*reader], outcome(data, name).records)


def test_file_that_cannot_be_read_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read1(self, size: Optional[int] = -1) -> bytes:
            raise OSError(errno.EIO, "broken")

    file = Broken()
    monkeypatch.setattr(io, "open", lambda *_: file)
    with pytest.raises(OSError, match="broken"):
        mf.open("path")
    assert file.closed


@pytest.mark.parametrize("head", ["+0", "0_0", "0x0", " 0", "-0", ""])
def test_hex_offsets_are_digits(head: str) -> None:
    with pytest.raises(ValueError, match="line 1: not an offset"):
        mf.hex_to_bytes(f"{head}: 4d")


@pytest.mark.parametrize(
    ("option", "target"),
    [
        (["--pattern", "x"], "text"),
        (["--level", "INFO"], "text"),
        (["--sort"], "text"),
        (["--bitmap"], "json"),
        (["--timestamp", "5"], "json5"),
    ],
)
def test_convert_refuses_options_of_another_target(option: List[str], target: str, sample: Path) -> None:
    for other in {"text", "json", "html"} - {target}:
        reason = refused("convert", "--to", other, *option, sample, code=2)
        assert reason == f"{option[0]} goes with --to {target}"


def test_document_is_no_file() -> None:
    with pytest.raises(mf.FormatError, match="a document of decode, of which encode makes a file"):
        mf.open(io.BytesIO(b'{"format": "clog", "schema": 1'))


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of POSIX")
def test_file_that_does_not_wait() -> None:
    end, start = os.pipe()
    os.set_blocking(end, False)
    with io.open(end, "rb", buffering=0) as file, pytest.raises(BlockingIOError):
        mf.open(typing.cast("Any", file))
    os.close(start)


@each_format
def test_caller_closes_their_own_file(name: str, tmp_path: Path) -> None:
    data = SMALL_FILES[name][0]
    for content in data, gzip.compress(data):
        file = io.BytesIO(content)
        with mf.open(file) as reader:
            list(reader)
        list(mf.explain(file))
        assert not file.closed
    path = tmp_path / "file"
    path.write_bytes(data)
    reader = mf.open(path)
    reader.close()
    with pytest.raises(ValueError, match="closed file"):
        list(reader)


@each_format
def test_gzip_is_read_through(name: str, tmp_path: Path) -> None:
    data = BIG[name](0)
    wanted = outcome(data, name)
    for rest in b"", bytes(3), bytes(70000):
        assert_same_outcome(outcome(gzip.compress(data) + rest, name), wanted)
    for cut in 1, 100, 300, 65536:
        halves = gzip.compress(data[:cut]), gzip.compress(data[cut:])
        assert_same_outcome(outcome(b"".join(halves), name), wanted)
        for padded in (bytes(5).join(halves), Trickle(bytes(5).join(halves), itertools.repeat(1))):
            assert_same_outcome(outcome(padded, name), wanted)
    path = tmp_path / ("file" + mf.FORMATS[name].extensions[0] + ".gz")
    path.write_bytes(gzip.compress(data))
    assert mf.detect(path) == name
    with mf.open(path) as reader:
        assert_same([*reader], wanted.records)
    assert_covered([*mf.explain(path)], len(data))


@each_format
def test_gzip_cut_short(name: str) -> None:
    data = BIG[name](0)
    packed = gzip.compress(data)
    for cut in [*range(3, 25), 60, len(packed) // 2, *range(len(packed) - 9, len(packed), 4)]:
        wanted = outcome(zlib.decompressobj(31).decompress(packed[:cut]), name).records
        for size in 1 << 20, 101:
            read = outcome(Trickle(packed[:cut], itertools.repeat(size)), name)
            assert isinstance(read.fault, mf.TruncatedError)
            assert (read.fault.format, read.fault.code) == ("gzip", "truncated")
            assert_same(read.records, wanted)
        with pytest.raises(mf.TruncatedError, match="gzip"):
            list(mf.open(io.BytesIO(packed[:cut])))
        assert [*mf.explain(io.BytesIO(packed[:cut]))][-1].value == "truncated"


def zlib_readable(packed: bytes) -> bytes:
    """What comes out of a damaged gzip file, fed byte by byte."""
    inflater = zlib.decompressobj(31)
    out = b""
    try:
        for at in range(len(packed)):
            out += inflater.decompress(packed[at : at + 1])
    except zlib.error:
        pass
    return out


@each_format
@pytest.mark.parametrize("seed", range(30))
def test_gzip_damaged(name: str, seed: int) -> None:
    rng = random.Random(seed)
    data = SMALL_FILES[name][0] if seed % 5 else BIG[name](0)
    packed = bytearray(gzip.compress(data))
    packed[rng.choice((rng.randrange(10, len(packed) - 8), rng.randrange(len(packed) - 8, len(packed))))] ^= 0x40
    readable = zlib_readable(bytes(packed))
    read = outcome(bytes(packed), name)
    wanted = outcome(readable, name)
    assert read.fault is not None
    last = [*mf.explain(io.BytesIO(packed), name)][-1]
    assert last.type == "unread"
    assert (last.value, last.path) == (read.fault.code, read.fault.where)
    assert last.note == f"offset 0x{read.fault.offset:x}: {read.fault.reason}"
    if read.fault.format == "gzip":
        assert read.fault.code in ("bad-compression", "truncated")
        assert_same(read.records, wanted.records)
    else:  # the damage shows in what is unpacked first
        assert str(read.fault) == str(wanted.fault)
    recovered = outcome(bytes(packed), name, recover=True)
    if recovered.header is not None:
        assert recovered.fault is None
        assert str(read.fault).endswith(": " + recovered.problems[-1].message) or len(recovered.problems) > 1


@each_format
@pytest.mark.parametrize(("back", "field"), [(8, "crc32"), (4, "isize")])
def test_gzip_checks(name: str, back: int, field: str) -> None:
    data = SMALL_FILES[name][0]
    packed = bytearray(gzip.compress(data))
    packed[-back] ^= 1
    wanted = outcome(data, name).records
    for file in io.BytesIO(packed), Trickle(bytes(packed), itertools.repeat(1)):
        with mf.open(file) as reader:
            for record in wanted:
                assert same(next(iter(reader)), record)
            with pytest.raises(mf.FormatError) as caught:
                next(iter(reader))
        assert caught.value.format == "gzip"
        assert place(caught.value) == ("bad-compression", len(packed) - back, f"members[0].{field}")
    with mf.open(io.BytesIO(packed), recover=True) as reader:
        document = reader.read()
    assert_same(document.records, wanted)
    assert [problem.code for problem in document.problems if problem.severity == "fault"] == ["bad-compression"]


@each_format
def test_gzip_headers(name: str) -> None:
    data = SMALL_FILES[name][0]
    wanted = outcome(data, name)
    packed = gzip.compress(data)
    for flags in range(0, 32, 2):  # FHCRC, FEXTRA, FNAME, FCOMMENT
        parts = (
            b"\5\0extra" if flags & 4 else b"",
            b"name\0" if flags & 8 else b"",
            b"comment\0" if flags & 16 else b"",
        )
        head = packed[:3] + bytes([flags]) + b"\xff\xfe\xfd\xfc\2\3" + b"".join(parts)
        head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
        assert gzip.decompress(head + packed[10:]) == data
        for sizes in itertools.repeat(1), itertools.repeat(1 << 20):
            assert_same_outcome(outcome(Trickle(head + packed[10:], sizes), name), wanted)
        for cut in range(3, len(head)):
            assert isinstance(outcome(head[:cut], name).fault, mf.TruncatedError)
    for at, value, field in (2, 7, "method"), (3, 0x20, "flags"):
        odd = packed[:at] + bytes([value]) + packed[at + 1 :]
        fault = outcome(packed + odd, name).fault
        assert fault is not None
        assert place(fault) == ("bad-compression", len(packed) + at, f"members[1].{field}")


@each_format
def test_bytes_after_gzip(name: str) -> None:
    data = SMALL_FILES[name][0]
    packed = gzip.compress(data)
    read = outcome(packed + b"rubbish", name)
    assert_same(read.records, outcome(data, name).records)
    assert read.fault is not None
    assert place(read.fault) == ("trailing-data", len(packed), "members[1].magic")


@each_format
def test_bomb_is_stopped(name: str) -> None:
    data = SMALL_FILES[name][0]
    packed = gzip.compress(data + bytes(50_000_000))
    read = outcome(packed, name, max_bytes=1_000_000)
    assert read.fault is not None
    assert (read.fault.format, read.fault.code) == ("gzip", "limit")
    assert outcome(packed, name, max_bytes=len(data) - 1).fault is not None
    assert outcome(gzip.compress(data), name, max_bytes=len(data)).fault is None


# A file travels: to other threads and processes, through sockets, inside archives.


def records_of(source: Any) -> List[str]:
    with mf.open(source) as reader:
        return [repr(record) for record in reader]


def test_threads_and_processes(tmp_path: Path) -> None:
    """Readers work beside each other; what they give travels between processes, also such as share nothing."""
    for name in mf.FORMATS:
        (tmp_path / name).write_bytes(BIG[name](0))
    paths = [str(path) for path in tmp_path.iterdir()] * 2
    wanted = [records_of(path) for path in paths]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert [*threads.map(records_of, paths)] == wanted
    program = tmp_path / "program.py"
    program.write_text(
        "import json, multiprocessing, sys\nimport memformats\n"
        "def records_of(path):\n    with memformats.open(path) as reader:\n        return [*reader]\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(2) as pool:\n"
        "        print(json.dumps([[*map(repr, records)] for records in pool.map(records_of, sys.argv[1:])]))\n"
    )
    shutil.copy(MODULE, tmp_path)
    assert json.loads(python(program, *paths).stdout) == wanted


@each_format
def test_socket_and_zip_member(name: str, tmp_path: Path) -> None:
    data = BIG[name](0)
    wanted = records_of(io.BytesIO(data))
    sender, receiver = socket.socketpair()
    with sender, receiver, receiver.makefile("rb") as file, concurrent.futures.ThreadPoolExecutor(1) as thread:
        sent = thread.submit(sender.sendall, data)
        sent.add_done_callback(lambda _: sender.close())
        assert records_of(file) == wanted
    with zipfile.ZipFile(tmp_path / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", data)
    with zipfile.ZipFile(tmp_path / "archive.zip") as archive, archive.open("member") as member:
        assert records_of(member) == wanted


# A writer that is killed leaves what it had flushed.  Each program writes record after record for ever and tells after
# each flush how many there are; record n has n as its time.


class Killed(NamedTuple):
    program: str  # opens a writer on path and defines a function that writes record n
    kind: Type[Any]
    time: str  # the field that tells n


KILLED: Dict[str, Killed] = {}  # by format; filled by section 9


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@each_format
def test_killed_writer_leaves_what_it_flushed(name: str, tmp_path: Path) -> None:
    if name not in KILLED:
        assert name.startswith("mb")  # whose writers need everything before the first byte
        return
    program = f"import sys; sys.path.insert(0, {str(HERE)!r})\nimport memformats as mf\npath = sys.argv[1]\n"
    program += KILLED[name].program + (
        "number = 0\n"
        "for batch in iter(lambda: number * 7 % 300 + 1, 0):\n"
        "    for number in range(number, number + batch):\n"
        "        write(number)\n"
        "    number += 1\n"
        "    writer.flush()\n"
        "    print(number, flush=True)\n"
    )
    rng = random.Random(name)
    for turn in range(8):
        path = tmp_path / str(turn)
        with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(rng.randrange(1, 60))]
            time.sleep(rng.random() / 50)
            process.kill()
            told += process.stdout.readlines()
        if not told[-1].endswith(b"\n"):
            told.pop()
        read = outcome(path.read_bytes(), name, recover=True)
        times = [getattr(one, KILLED[name].time) for one in read.records if isinstance(one, KILLED[name].kind)]
        assert len(times) >= int(told[-1])
        assert times == [*range(len(times))]


# What a file claims costs nothing; what it holds costs time and memory by its size.

HOSTILE: Dict[str, List[bytes]] = {}  # by format: files of up to a megabyte, or of a few bytes that claim more


@each_format
def test_hostile_files_take_linear_time_and_memory(name: str) -> None:
    """What is quadratic would take minutes, at these sizes."""
    tracemalloc: Any = None if PYPY else importlib.import_module("tracemalloc")
    for data in HOSTILE[name]:
        start = time.process_time()
        outcome(data, name)
        outcome(data, name, recover=True)
        for span in mf.explain(io.BytesIO(data), name, recover=True):
            del span
        assert time.process_time() - start < 10
        if tracemalloc is not None:
            tracemalloc.start()
            outcome(data, name, recover=True)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2**21 + 100 * len(data)  # two bytes may be a record: a NamedTuple and its numbers


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[" * 100_000, "bad-json"),
        ('{"format": ' * 100_000, "bad-json"),
        ('{"format": "mlyze", "schema": ' + "9" * 1_000_000 + "}", "bad-json"),
        ('{"format": "mlyze", "schema": 1, "header": ' + "9" * 1_000_000 + "}", "bad-json"),
        ('{"format": "mlyze", "schema": 1, "records": [' + "[" * 100_000, "bad-json"),
        ('{"format": "mlyze' + "\\ud800" * 100_000, "bad-json"),
    ],
    ids=["lists", "objects", "schema", "header", "records", "text"],
)
def test_hostile_documents(text: str, code: str) -> None:
    for end in "", "\n":
        start = time.process_time()
        with pytest.raises(mf.FormatError) as caught:
            mf.encode([text + end], io.BytesIO())
        assert caught.value.code == code
        assert time.process_time() - start < 10


@each_format
def test_detect(name: str, tmp_path: Path) -> None:
    data = SMALL_FILES[name][0]
    assert mf.detect(data) == name
    assert mf.detect(gzip.compress(data)) == name
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    assert mf.detect(file) == name
    assert file.tell() == 6
    path = tmp_path / "file"
    path.write_bytes(data)
    assert mf.detect(path) == mf.detect(str(path)) == name
    assert mf.detect(Trickle(data, itertools.repeat(1))) == name
    for nothing in b"", b"no such format", gzip.compress(b"none"), gzip.compress(data)[:9], b"\x1f\x8b\x08rubbish":
        assert mf.detect(nothing) is None


def test_open_refuses(tmp_path: Path) -> None:
    with pytest.raises(mf.FormatError, match="none of the formats"):
        mf.open(io.BytesIO(b"no such format"))
    with pytest.raises(mf.FormatError, match="empty file"):
        mf.open(io.BytesIO(b""))
    with pytest.raises(ValueError, match="no format is called 'other'"):
        mf.open(io.BytesIO(b""), format="other")
    with pytest.raises(ValueError, match="mode is 'r' or 'w'"):
        mf.open(tmp_path / "file", "a")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="give the format"):
        mf.open(io.BytesIO(), "w")
    with pytest.raises(FileNotFoundError):
        mf.open(tmp_path / "missing")
    with pytest.raises(TypeError, match="'rb'"):
        mf.open(typing.cast("Any", io.StringIO("text")))
    wrong: Any
    for wrong in 5, b"bytes", None, []:
        with pytest.raises(TypeError):
            mf.open(wrong)


@each_format
def test_open_for_writing(name: str, tmp_path: Path) -> None:
    path = tmp_path / ("file" + mf.FORMATS[name].extensions[0])
    document = mf.open(io.BytesIO(SMALL_FILES[name][0])).read()
    for file in path, str(path):
        with mf.open(file, "w") as writer:
            writer.write_document(document)
        assert type(writer) is mf.FORMATS[name].writer
        assert path.read_bytes() == SMALL_FILES[name][0]
    made = io.BytesIO()
    with mf.open(made, "w", name) as writer:
        writer.write_document(document)
    assert made.getvalue() == SMALL_FILES[name][0]


@each_format
def test_empty_file_is_known_by_its_extension(name: str, tmp_path: Path) -> None:
    path = tmp_path / ("file" + mf.FORMATS[name].extensions[0])
    path.touch()
    with pytest.raises(mf.TruncatedError) as caught:
        mf.open(path)
    assert (caught.value.format, caught.value.offset) == (name, 0)


# ==== 5. The module ===================================================================================

SOURCE = MODULE.read_text(encoding="utf-8")
TREE = ast.parse(SOURCE)
BANNERS = re.findall(r"^# ==== ([\d.]*\d)\.? (.+?) =+$", SOURCE, flags=re.MULTILINE)


def imported(nodes: Iterable[ast.AST]) -> Iterator[Tuple[str, int]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno


def test_imports() -> None:
    assert {name for name, _ in imported(TREE.body)} == {"__future__", "typing", "struct", "io", "gzip", "json"}
    conditions = {ast.unparse(node.test): {*imported(node.body)} for node in TREE.body if isinstance(node, ast.If)}
    assert {*conditions} <= {"TYPE_CHECKING", "__name__ == '__main__'"}
    assert {name for name, _ in conditions.get("TYPE_CHECKING", ())} <= {"argparse", "os"}
    inside = [node for function in TREE.body if not isinstance(function, ast.If) for node in ast.walk(function)]
    names = {*imported(inside)} - {*imported(TREE.body)}
    command_line = SOURCE[: SOURCE.index("\n# ==== 10. ")].count("\n") + 1
    assert {name for name, _ in names} <= {"argparse", "os", "sys", "time", "tempfile"}
    assert all(line > command_line for _, line in names)


def test_import_is_silent_and_light(tmp_path: Path) -> None:
    shutil.copy(MODULE, tmp_path)
    code = (
        "import sys, struct, io, gzip, json, typing, __future__; before = set(sys.modules); sys.path.insert(0, '.');"
        "import memformats; extra = set(sys.modules) - before - {'memformats'}; assert not extra, extra"
    )
    run = python("-I", "-S", "-B", "-W", "error", "-c", code, cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
    assert os.listdir(tmp_path) == ["memformats.py"]


def test_runs_from_any_place(tmp_path: Path) -> None:
    shutil.copy(MODULE, tmp_path)
    for how in (["memformats.py"], ["-m", "memformats"]):
        run = python("-S", "-B", "-W", "error", *how, "--version", cwd=tmp_path)
        assert (run.returncode, run.stdout.split(), run.stderr) == (0, [b"memformats", mf.__version__.encode()], b"")


def test_works_as_a_copy_under_another_name(tmp_path: Path) -> None:
    package = tmp_path / "theirs" / "_vendor"
    package.mkdir(parents=True)
    shutil.copy(MODULE, package / "formats_copy.py")
    data = tmp_path / "data"
    name = next(iter(mf.FORMATS))
    data.write_bytes(SMALL_FILES[name][0])
    code = (
        "import io, pickle; from theirs._vendor import formats_copy as f;"
        "file = io.FileIO('data'); data = file.read(); file.close();"
        "text = ''.join(f.decode(f.open(io.BytesIO(data)))); made = io.BytesIO(); f.encode([text.encode()], made);"
        "assert made.getvalue() == data; records = f.open(io.BytesIO(data)).read().records;"
        "assert pickle.loads(pickle.dumps(records)) == records and records"
    )
    run = python("-B", "-W", "error", "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")


def test_header_of_the_module() -> None:
    lines = SOURCE.splitlines()
    assert re.fullmatch(r"# SPDX-FileCopyrightText: \d{4} .+", lines[0])
    assert lines[1] == "# SPDX-License-Identifier: MIT"
    assert re.fullmatch(r"\d+\.\d+\.\d+", mf.__version__)


def test_table_of_contents() -> None:
    text = ast.get_docstring(TREE) or ""
    assert SOURCE[: SOURCE.index('"""\n\nfrom __future__')].count("\n") < 150
    contents = text[text.index("Where to find what") :]
    listed = {
        number.rstrip("."): rest.strip().lower()
        for number, rest in re.findall(r"(?:^|  )(\d+\.\d*) +(\w+(?: \w+)?)", contents, flags=re.MULTILINE)
    }
    assert {*listed} - {"1", "5"} == {number for number, _ in BANNERS}
    for number, title in BANNERS:
        assert title.lower().startswith(listed[number].split()[0])


def public(module: Any) -> Iterator[Tuple[str, Any]]:
    for node in TREE.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name, getattr(module, node.name)


def test_public_names() -> None:
    assert mf.__all__ == sorted(mf.__all__, key=lambda name: (not name.isupper(), name.islower(), name))
    assert {name for name, _ in public(mf)} <= {*mf.__all__}
    assert all(hasattr(mf, name) for name in mf.__all__)
    for name in mf.FORMATS:
        format = mf.FORMATS[name]
        for kind in (format.reader, format.writer, format.header, *format.records):
            assert kind.__name__ in mf.__all__


def test_everything_public_is_described() -> None:
    for name, thing in public(mf):
        assert thing.__doc__, name
        assert not thing.__doc__.startswith(name + "("), name  # what NamedTuple makes by itself
        if isinstance(thing, type):
            for key, value in vars(thing).items():
                if not key.startswith("_") and (callable(value) or isinstance(value, property)):
                    assert value.__doc__ or name in ("Layout", "FormatError"), f"{name}.{key}"


# Hot loops, flat on purpose.
LONG = {"_read_records", "write_all", "mlyze_analysis"}
LONG |= {"_memscope_decoder", "usual_records", "_memscope_encoder"}


def test_functions_are_short() -> None:
    for node in ast.walk(TREE):
        if isinstance(node, ast.FunctionDef) and node.name not in LONG:
            assert (node.end_lineno or 0) - node.lineno < 80, node.name


@each_format
def test_rules_name_codes(name: str) -> None:
    rules = mf.FORMATS[name].reader.rules
    assert {severity for severity, _ in rules.values()} == {"fault", "deviation", "note"}
    assert {code for _, code in rules.values()} <= {*mf.CODES}


@each_format
def test_records_are_plain_tuples(name: str) -> None:
    format = mf.FORMATS[name]
    for kind in (*format.records, format.header):
        assert issubclass(kind, tuple)
        assert not {"count", "index"} & {*kind._fields}  # type: ignore[attr-defined]
        assert typing.get_type_hints(kind)


@each_format
def test_everything_pickles(name: str) -> None:
    document = mf.open(io.BytesIO(SMALL_FILES[name][0])).read()
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(document, protocol))
        assert type(again) is mf.Document
        assert (again.format, again.tables, again.problems, again.tail) == (
            document.format,
            document.tables,
            document.problems,
            document.tail,
        )
        assert_same([again.header, *again.records], [document.header, *document.records])
    for kind in mf.FormatError, mf.TruncatedError, mf.UnsupportedError:
        error = kind("some", "limit", 419, "events[17].size", "too much", "body")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert vars(again) == vars(error)
        assert str(again) == "some: body offset 0x1a3: events[17].size: too much"
    assert str(mf.FormatError("some", "limit", 1, "", "too much")) == "some: offset 0x1: too much"


VARINTS = [
    (0, "00"),
    (127, "7f"),
    (128, "8001"),
    (300, "ac02"),
    (16383, "ff7f"),
    (16384, "808001"),
    (2**32, "8080808010"),
]
VARINTS += [(2**63 - 1, "ff" * 8 + "7f"), (2**64 - 1, "ff" * 9 + "01"), (2**64, "80" * 9 + "02")]


def test_varint() -> None:
    for value, form in VARINTS:
        assert mf.encode_varint(value).hex() == form
        assert mf.decode_varint(bytes.fromhex("ff" + form + "ff"), 1) == (value, 1 + len(form) // 2)
    assert mf.decode_varint(b"\x81\x80\x00") == (1, 3)
    assert mf.decode_varint(b"\x80" * 63 + b"\x01") == (1 << 441, 64)
    with pytest.raises(OverflowError):
        mf.decode_varint(b"\x80" * 64 + b"\x01")
    for short in b"", b"\x80", b"\x80" * 63:
        with pytest.raises(IndexError):
            mf.decode_varint(short)
    with pytest.raises(ValueError, match="negative"):
        mf.encode_varint(-1)


def test_hex_text() -> None:
    data = bytes(range(20)) + b"\xc3"
    spans = [
        mf.Span(0, 17, "file", "all", "bytes", data[:17]),
        mf.Span(17, 1, "file", "one", "u8", 17, "caf\xe9\n"),
        mf.Span(18, 3, "file", "rest", "bytes", data[18:]),
        mf.Span(0, 2, "body", "text", "utf-8", "\u20ac"),
        mf.Span(2, 0, "body", "end", "unread", "truncated", "offset 0x2: cut"),
    ]
    lines = [
        "00000000: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  # all bytes[17]",
        "00000010: 10",
        "00000011: 11  # one u8 = 17 (caf\\u00e9\\n)",
        "00000012: 12 13 c3  # rest bytes[3] = 1213c3",
        '| 00000000: 41 42  # text utf-8[2] = "\\u20ac"',
        "| 00000002:   # end unread[0] = truncated (offset 0x2: cut)",
    ]
    assert [*mf.hex_lines(data, spans, b"AB")] == lines
    assert mf.hex_to_bytes("# a comment\n\n" + "\r\n".join(lines)) == data
    long = mf.Span(0, 100, "file", "name", "utf-8", "x" * 100)
    assert next(mf.hex_lines(b"x" * 100, [long])).endswith(f'# name utf-8[100] = "{"x" * 72}"...')
    assert hex_bytes("\n".join(lines)) == data
    for wrong in "00000001: 00", "00000000: 0", "00000000: 0g", "rubbish", "00000000 00", "x0000000: 00":
        with pytest.raises(ValueError, match="line 2: "):
            mf.hex_to_bytes(f"# a comment\n{wrong}\n")


def test_layout() -> None:
    layout = mf.Layout("pair", mf.Field("left", "H"), mf.Field("right", "I", "bytes"))
    assert layout.size == 6
    assert layout.little.pack(1, 2) == bytes.fromhex("010002000000")
    assert layout.big.pack(1, 2) == bytes.fromhex("000100000002")
    assert layout.cut(0) == (0, "left", "0 of 2 bytes")
    assert layout.cut(1) == (0, "left", "1 of 2 bytes")
    assert layout.cut(2) == (2, "right", "0 of 4 bytes")
    assert layout.offsets == {"left": 0, "right": 2}


# ==== 6. Documents: JSON in and out ===================================================================


@each_format
def test_lines_and_whole_say_the_same(name: str) -> None:
    for data in SMALL_FILES[name]:
        document = json.loads(decoded(data, name, recover=True))
        lines = [json.loads(line) for line in decoded(data, name, lines=True, recover=True).splitlines()]
        late = {key: value for key, value in lines[-1].items() if key not in ("problems", "tail")}
        assert {**lines[0], **late} == {k: v for k, v in document.items() if k not in ("records", "problems", "tail")}
        assert not {*lines[0]} & {*late}
        assert lines[1:-1] == document["records"]
        assert lines[-1] == {**late, "problems": document["problems"], "tail": document["tail"]}
        assert decoded(data, name, recover=True).isascii()
        spellings: List[Json] = [
            {"indent": 1},
            {"separators": (",", ":")},
            {"sort_keys": True},
            {"ensure_ascii": False},
        ]
        for spelling in spellings:
            text = json.dumps(document, **spelling)
            if not re.search("[\ud800-\udfff]", text):
                made = io.BytesIO()
                mf.encode(text.encode().splitlines(keepends=True), made)
                assert_same_file(made.getvalue(), data)


@each_format
def test_read_and_write_document(name: str) -> None:
    for data in SMALL_FILES[name]:
        with mf.open(io.BytesIO(data), recover=True) as reader:
            document = reader.read()
        made = io.BytesIO()
        with mf.FORMATS[name].writer(made) as writer:
            writer.write_document(document)
        assert_same_file(made.getvalue(), data)


@each_format
def test_big_round_trip(name: str) -> None:
    data = BIG[name](0)
    assert encoded(decoded(data, name)) == data
    assert encoded(decoded(data, name, lines=True)) == data


@each_format
def test_encode_takes_lines(name: str) -> None:
    data = SMALL_FILES[name][0]
    for lines in False, True:
        made = io.BytesIO()
        mf.encode(mf.decode(mf.open(io.BytesIO(data)), lines=lines), made)  # as text, piece by piece
        assert made.getvalue() == data
        text = decoded(data, name, lines=lines)
        for whole in text, text.encode():
            with pytest.raises(TypeError, match="lines"):
                mf.encode(typing.cast("Any", whole), made)
    unended = decoded(data, name, lines=True).splitlines(keepends=True)[:-1]
    with pytest.raises(mf.FormatError, match="no end"):
        mf.encode(unended, io.BytesIO())


@each_format
def test_document_shows_itself(name: str) -> None:
    document = mf.open(io.BytesIO(SMALL_FILES[name][0])).read()
    text = repr(document)
    assert name in text
    assert f"{len(document.records)} records" in text


def test_read_gives_what_is_left() -> None:
    name, files = next(iter(SMALL_FILES.items()))
    reader = mf.open(io.BytesIO(files[0]))
    first = next(iter(reader))
    assert_same([first, *reader.read().records], outcome(files[0], name).records)


NOT_DOCUMENTS = [
    (b"", "", "bad-json"),
    (b"{", "", "bad-json"),
    (b"[]", "", "bad-value"),
    (b"7", "", "bad-value"),
    (b'{"format": "\xff"}', "", "bad-utf8"),
    (b"{}", "format", "bad-value"),
    (b'{"format": "none", "schema": 1}', "format", "bad-value"),
    (b'{"format": [], "schema": 1}', "format", "bad-value"),
    (b"[" * 200_000, "", "bad-json"),
    (b'{"schema": ' + b"1" * 5000 + b"}", "", "bad-json"),
]


@pytest.mark.parametrize(("text", "where", "code"), NOT_DOCUMENTS, ids=[repr(text[:30]) for text, *_ in NOT_DOCUMENTS])
def test_not_a_document(text: bytes, where: str, code: str) -> None:
    made = io.BytesIO()
    with pytest.raises(mf.FormatError) as caught:
        mf.encode(io.BytesIO(text), made)
    assert (caught.value.format, caught.value.code, caught.value.where) == ("json", code, where)
    assert made.getvalue() == b""


@each_format
def test_schema_of_documents(name: str) -> None:
    document = json.loads(decoded(SMALL_FILES[name][0], name))
    for schema in 0, 2, "1", None, True, 1.0:
        with pytest.raises(mf.FormatError, match="schema"):
            encoded(json.dumps({**document, "schema": schema}))


# ==== 7. Command line =================================================================================


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A file of the first format, in a folder of its own."""
    name, files = next(iter(SMALL_FILES.items()))
    path = tmp_path / ("sample" + mf.FORMATS[name].extensions[0])
    path.write_bytes(files[0])
    return path


COMMANDS = ("info", "decode", "encode", "explain", "check", "stats", "demo")
READING = ("info", "decode", "explain", "check", "stats")


def test_help() -> None:
    run = cli("--help")
    assert (run.code, run.err) == (0, "")
    for name in (*COMMANDS, *mf.FORMATS):
        assert re.search(rf"^ +{name} ", run.text, flags=re.MULTILINE)
    for command in (*COMMANDS, "convert"):
        run = cli(command, "--help")
        assert run.code == 0
        assert f"example:\n  memformats {command}" in run.text
    assert cli("--version").text == f"memformats {mf.__version__}\n"


USAGE = "unknown|info|explain a b|check --format x f|explain --at body f|explain --at tail:1 f"
USAGE += "|stats --top x f|stats --top -1 f|stats --top 0 f"
USAGE += "|stats --min-age nan f|stats --min-age inf f|stats --min-age -1 f|stats --min-age x f"


@pytest.mark.parametrize("arguments", ["", *USAGE.split("|")])
def test_usage(arguments: str, sample: Path) -> None:
    run = cli(*[sample if word == "f" else word for word in arguments.split()])
    assert (run.code, run.out) == (2, b"")
    assert run.err


@each_format
def test_standard_input_and_output(name: str, tmp_path: Path) -> None:
    data = SMALL_FILES[name][0]
    path = tmp_path / "-"
    path.write_bytes(data)
    for command in READING:
        from_file, from_stdin = cli(command, path), cli(command, "-", stdin=data)
        assert from_stdin.code == 0
        assert from_stdin.err == ""
        assert from_stdin.text == from_file.text.replace(str(path), "-")
        zipped = cli(command, "-", stdin=gzip.compress(data))
        assert zipped == from_stdin
    text = cli("decode", path).out
    assert cli("encode", "-", stdin=text) == Run(0, data, "")
    assert cli("encode", "-", "-o", "-", stdin=text) == Run(0, data, "")


@each_format
def test_decode_and_encode(name: str, tmp_path: Path) -> None:
    for number, data in enumerate(SMALL_FILES[name]):
        path, text, back = (tmp_path / f"{number}{suffix}" for suffix in (".bin", ".json", ".back"))
        path.write_bytes(data)
        for lines in [], ["--lines"]:
            assert cli("decode", path, "--recover", *lines, "-f", "-o", text)[:2] == (0, b"")
            assert text.read_text(encoding="ascii") == decoded(data, name, recover=True, lines=bool(lines))
            assert cli("encode", text, "-f", "-o", back) == Run(0, b"", "")
            assert_same_file(back.read_bytes(), data)


def test_output_is_complete_or_not_there(sample: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(sample.read_bytes()[:-1])
    out = tmp_path / "out"
    before = {*os.listdir(tmp_path)}
    reason = refused("decode", cut, "-o", out, code=1)
    assert reason.startswith(f"{cut}: ")
    assert "truncated varint" in reason or "ends inside" in reason
    refused("encode", sample, "-o", out, code=1)
    refused("decode", tmp_path / "missing", "-o", out, code=2)
    refused("decode", sample, "-o", tmp_path / "no" / "folder", code=2)
    refused("decode", sample, "-o", tmp_path, code=2)
    assert {*os.listdir(tmp_path)} == before
    out.write_bytes(b"precious")
    assert "exists; -f overwrites it" in refused("decode", sample, "-o", out, code=2)
    refused("decode", cut, "-f", "-o", out, code=1)
    assert out.read_bytes() == b"precious"
    assert cli("decode", sample, "-f", "-o", out).code == 0
    assert json.loads(out.read_bytes())["records"]
    run = cli("decode", cut, "--recover", "-f", "-o", out)
    assert run.code == 0
    assert re.match(rf"memformats: {re.escape(str(cut))}: fault truncated: offset 0x", run.err)
    assert json.loads(out.read_bytes())["problems"]
    assert {*os.listdir(tmp_path)} == before | {"out"}
    assert cli("decode", sample, "-o", os.devnull) == Run(0, b"", "")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("command", ["explain", "decode"])
def test_full_disk_leaves_nothing(command: str, sample: Path, tmp_path: Path) -> None:
    import resource

    before = {*os.listdir(tmp_path)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        reason = refused(command, sample, "-o", tmp_path / "out", code=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert reason == f"{tmp_path / 'out'}: {os.strerror(errno.EFBIG)}"
    assert {*os.listdir(tmp_path)} == before


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_full_disk_leaves_no_file_of_a_folder(tmp_path: Path) -> None:
    """Also where only the first of the files is too large, which is the last to be closed."""
    import resource

    path = tmp_path / "file.memscope"
    with mf.MemscopeWriter(path) as writer:
        writer.allocation(1, 2, 3, var_name="v", type_name="t", stack_trace=("f" * 4500,))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        reason = refused("convert", "--to", "json5", path, "-o", tmp_path / "out", code=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert reason == f"{tmp_path / 'out' / 'out_memory_analysis.json'}: {os.strerror(errno.EFBIG)}"
    assert os.listdir(tmp_path) == ["file.memscope"]


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="no /dev/stdout")
def test_output_by_the_name_of_a_pipe(sample: Path) -> None:
    run = python(MODULE, "decode", sample, "-o", "/dev/stdout")
    assert (run.returncode, run.stdout, run.stderr) == (0, cli("decode", sample).out, b"")


@pytest.mark.skipif(sys.platform == "win32" or PYPY, reason="limits of POSIX; PyPy ends itself where memory does")
def test_too_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.mlyze.gz"
    with gzip.open(path, "wb", 1) as file:
        file.write(SMALL_FILES["mlyze"][0][:16] + b"\xff\xff\xff\x3f")  # the size of metadata
        file.writelines([bytes(1 << 20)] * 400)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (300 << 20,) * 2); "
    program = f"{limit}import sys; sys.path.insert(0, {str(HERE)!r}); import memformats; sys.exit(memformats.main())"
    run = python("-c", program, "info", path)
    assert (run.returncode, run.stdout) == (2, b"")
    assert run.stderr.decode() == f"memformats: {path}: takes more memory than there is\n"


def test_killed_leaves_nothing_by_the_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    name = next(iter(mf.FORMATS))
    unended = decoded(BIG[name](0), name, lines=True).encode()[:-1]
    command = [sys.executable, str(MODULE), "encode", "-", "-o", str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(unended)
        process.stdin.flush()
        until = time.monotonic() + 30
        while not os.listdir(tmp_path) and time.monotonic() < until:
            time.sleep(0.01)
        assert process.poll() is None
        process.kill()
    assert len(os.listdir(tmp_path)) == 1  # what it had so far, under another name
    assert not out.exists()


def test_interrupt_leaves_nothing(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[str]:
        yield "{"
        raise KeyboardInterrupt

    before = {*os.listdir(tmp_path)}
    monkeypatch.setattr(mf, "decode", interrupted)
    assert cli("decode", sample, "-o", tmp_path / "out") == Run(130, b"", "")
    assert {*os.listdir(tmp_path)} == before


def test_files_that_cannot_be_read(sample: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for command in READING:
        assert refused(command, missing, code=2) == f"{missing}: {os.strerror(errno.ENOENT)}"
        assert refused(command, tmp_path, code=2) == f"{tmp_path}: {os.strerror(errno.EISDIR)}"
    unknown = tmp_path / "unknown"
    unknown.write_bytes(b"no such format")
    for command in "info", "decode", "stats":
        assert "none of the formats" in refused(command, unknown, code=1)
    # The others get their turn.
    for command in "info", "check", "stats":
        run = cli(command, missing, unknown, sample)
        alone = cli(command, sample)
        assert (run.code, alone.code, alone.err) == (2, 0, "")
        assert run.text.endswith(alone.text)
        assert run.err.startswith(f"memformats: {missing}: {os.strerror(errno.ENOENT)}\n")
        assert str(unknown) in (run.text if command == "check" else run.err)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(sample: Path) -> None:
    sample.chmod(0)
    assert refused("info", sample, code=2) == f"{sample}: {os.strerror(errno.EACCES)}"


def test_bad_hex_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.hex"
    path.write_bytes(b"00000000: 4d 54\n00000003: 00\n")
    assert refused("info", path, code=1).endswith("line 2: offset 00000003, but 00000002 is next")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_closed_pipe_is_silent(tmp_path: Path) -> None:
    name = next(iter(mf.FORMATS))
    path = tmp_path / "big"
    path.write_bytes(BIG[name](0))
    for command in "decode --lines", "explain", "decode":
        end, start = os.pipe()
        process = subprocess.Popen(
            [sys.executable, str(MODULE), *command.split(), str(path)], stdout=start, stderr=subprocess.PIPE
        )
        os.close(start)
        assert len(os.read(end, 100)) > 0
        os.close(end)
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
@pytest.mark.parametrize("command", ["info", "decode"])
def test_closed_pipe_in_this_process(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big"
    path.write_bytes(next(iter(BIG.values()))(0))
    for buffering in -1, 0:
        end, start = os.pipe()
        os.close(end)
        with io.TextIOWrapper(io.open(start, "wb", buffering=buffering), "utf-8") as stdout:
            monkeypatch.setattr(sys, "stdout", stdout)
            assert mf.main([command, str(path)]) == 0
            stdout.write("goes nowhere")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_standard_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big"
    path.write_bytes(next(iter(BIG.values()))(0))
    errors = io.StringIO()
    for command in "info", "decode":
        stdout = io.TextIOWrapper(io.open("/dev/full", "wb", buffering=0), "utf-8")
        with stdout, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            patch.setattr(sys, "stderr", errors)
            assert mf.main([command, str(path)]) == 2
    assert errors.getvalue() == 2 * f"memformats: standard output: {os.strerror(errno.ENOSPC)}\n"
    with io.open("/dev/full", "w", encoding="utf-8", buffering=1) as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        assert mf.main(["info", str(tmp_path / "missing")]) == 2
        patch.undo()
        with pytest.raises(OSError, match=re.escape(os.strerror(errno.ENOSPC))):
            stderr.close()
    with io.open("/dev/full", "wb") as full:  # what is left in the buffer is written once more when Python ends
        words = [sys.executable, str(MODULE), "info", str(path)]
        run = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    assert run.returncode == 2
    assert re.fullmatch(rb"memformats: [^\n]+\n", run.stderr)


def test_without_standard_streams(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = io.StringIO()
    for stream, arguments in ("stdout", ["info", str(sample)]), ("stdin", ["info", "-"]):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", errors)
            patch.setattr(sys, stream, None)
            assert mf.main(arguments) == 2
    assert re.fullmatch("(memformats: .+\n){2}", errors.getvalue())
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert mf.main(["decode", str(sample), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").stat().st_size > 0
    assert mf.main(["info", str(tmp_path / "missing"), "-o", str(tmp_path / "other")]) == 2


def test_encode_from_damaged_gzip(sample: Path, tmp_path: Path) -> None:
    packed = gzip.compress(cli("decode", "--lines", sample).out)
    path = tmp_path / "document"
    path.write_bytes(packed)
    assert cli("encode", path).out == sample.read_bytes()
    path.write_bytes(packed[:-1])
    assert "gzip: " in refused("encode", path, "-o", tmp_path / "out", code=1)


def test_no_binary_to_a_terminal(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty")
    text = sample.with_suffix(".json")
    cli("decode", sample, "-o", text)
    master, slave = pty.openpty()
    with io.open(slave, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        errors = io.StringIO()
        monkeypatch.setattr(sys, "stderr", errors)
        assert mf.main(["encode", str(text)]) == 2
    assert "terminal; give -o FILE" in errors.getvalue()
    os.close(master)


def test_progress_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    name = next(iter(mf.FORMATS))
    path = tmp_path / "big"
    path.write_bytes(BIG[name](300_000))
    monkeypatch.setattr(mf, "_LARGE", path.stat().st_size)
    quiet = cli("check", path)
    assert quiet.err == ""
    for terminal in Terminal(), io.StringIO():
        monkeypatch.setattr(sys, "stderr", terminal)
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        monkeypatch.setattr(sys, "stdout", out)
        assert mf.main(["check", str(path)]) == quiet.code
        shown = terminal.getvalue()
        percents = [int(number) for number in re.findall(r"(\d+) %", shown)]
        if terminal.isatty():
            assert percents == sorted({*percents})
            assert len(percents) > 2
            assert shown.endswith("\r     \r")
        else:
            assert shown == ""
        monkeypatch.setattr(mf, "_LARGE", path.stat().st_size + (0 if terminal.isatty() else 1))


def test_other_encodings(sample: Path) -> None:
    utf8 = cli("stats", sample)
    assert not utf8.out.isascii()
    plain = cli("stats", sample, encoding="ascii")
    assert (plain.code, plain.out.isascii()) == (0, True)
    pairs = [*zip(utf8.text.splitlines(), plain.text.splitlines())]
    assert all(left == right for left, right in pairs if left.isascii())
    assert all(len(left) == len(right) for left, right in pairs)
    odd = sample.with_name("na\u00efve\x1b[31m")
    assert refused("info", odd, code=2).startswith(str(odd).replace("\x1b", "\\u001b"))
    run = cli("info", odd, encoding="ascii")
    assert run.err.isascii()
    assert "\\xefve\\u001b[31m" in run.err
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = python(MODULE, "stats", sample, env=environment)
    assert (process.returncode, process.stderr, process.stdout) == (0, b"", plain.out)


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(MODULE)])
    for folder in "memformats-demo", "other":
        first = cli("demo", *([] if folder == "memformats-demo" else [folder]))
        assert (first.code, first.err) == (0, "")
        paths = [str(Path(folder, "demo" + format.extensions[0])) for format in mf.FORMATS.values()]
        assert sorted(os.listdir(folder)) == sorted(Path(path).name for path in paths)
        commands = re.findall(rf"^  python3 {re.escape(str(MODULE))} (.+)$", first.text, flags=re.MULTILINE)
        assert {path for path in paths if any(path in command for command in commands)} == {*paths}
        for command in commands:
            run = cli(*shlex.split(command))
            assert (run.code, run.err) == (0, "")
            assert run.out
        for path in paths:
            assert cli("check", "--strict", path).text.splitlines()[0].endswith("no problems")
    again = cli("demo")  # nothing to write
    assert again.code == 0
    Path(paths[0]).write_bytes(b"changed by its reader")
    assert "exists; -f overwrites it" in refused("demo", "other", code=2)
    assert cli("demo", "other", "-f").code == 0
    assert Path(paths[0]).read_bytes() == Path("memformats-demo", Path(paths[0]).name).read_bytes()


@each_format
def test_explain_command(name: str, tmp_path: Path) -> None:
    data = SMALL_FILES[name][0]
    path = tmp_path / "file"
    path.write_bytes(data)
    spans = [*mf.explain(path)]
    assert cli("explain", path).text.splitlines() == [*mf.hex_lines(data, spans)]
    for offset in 0, 5, len(data) - 1:
        (span,) = [span for span in spans if span.offset <= offset < span.offset + span.size]
        for spelling in str(offset), hex(offset), f"file:{offset}":
            assert cli("explain", "--at", spelling, path).text.splitlines() == [*mf.hex_lines(data, [span])]
    assert cli("explain", "--at", "body:0", path).out == b""
    parts = {span.path for span in spans}
    for pattern, words in ("*", []), (spans[1].path, [spans[1].path]), ("[0]*", ["[0]"]), ("nowhere", ["nowhere"]):
        shown = cli("explain", "--fields", pattern, path).text.splitlines()
        wanted = [span for span in spans if all(word in span.path for word in words)]
        assert shown == [*mf.hex_lines(data, wanted)]
    assert len(parts) > 3
    kept = tmp_path / "kept"
    kept.write_bytes(b"kept")
    for options in ["-o", tmp_path / "new"], ["-f", "-o", kept]:
        assert refused("explain", "--fields", "nowhere", path, *options, code=2) == f"{path}: no such field"
    assert {name: (tmp_path / name).stat().st_size for name in os.listdir(tmp_path)} == {"file": len(data), "kept": 4}
    path.write_bytes(data[:-1])
    run = cli("explain", path)
    assert run.code == 1
    assert run.err.startswith(f"memformats: {path}: {name}: ")
    assert "\n" not in run.err[:-1]
    assert hex_bytes(run.text) == data[:-1]


@each_format
def test_check_command(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for vector in VECTORS:
        if vector.about["format"] == name:
            path.write_bytes(vector.data)
            result = vector.about["result"]
            for strict in [], ["--strict"]:
                run = cli("check", "--format", name, *strict, path)
                bad = result == "invalid" or (result == "deviant" and bool(strict))
                assert run.code == int(bad)
                assert run.err == ""
                verdict, *problems = [line for line in run.text.splitlines() if "  upstream's reader " not in line]
                assert verdict.startswith(f"{path}: {'bad' if bad else 'good'} ")
                read = outcome(vector.data, name, recover=True)
                assert len(problems) == len(read.problems) + (read.fault is not None)
                for line, problem in zip(problems, read.problems):
                    where = f"{'' if problem.space == 'file' else 'body '}offset 0x{problem.offset:x}"
                    assert line.startswith(f"  {problem.severity} {problem.code}: {where}: ")
            if result == "invalid":
                assert vector.about["error"]["code"] in run.text
                assert f"offset 0x{vector.about['error']['offset']:x}" in run.text


# ==== 8. README ========================================================================================


def readme_blocks() -> Iterator[Tuple[str, str]]:
    """The README's blocks of the languages that the tests run, in order."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if language in ("python", "console", "js"):
            yield language, block


def same_but_for_dots(wanted: str, found: str) -> bool:
    """Whether two texts are the same, where a line ``...`` stands for any lines."""
    lines = [r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in wanted.splitlines()]
    return re.fullmatch("".join(lines), found) is not None


def check_python(block: str, names: Dict[str, Any]) -> None:
    """Run a block; what it prints is in its lines that start with ``# -> ``."""
    wanted = "".join(line + "\n" for line in re.findall(r"^# -> (.*)$", block, re.MULTILINE))
    found = io.StringIO()
    with contextlib.redirect_stdout(found):
        exec(compile(block, "README.md", "exec"), names)
    assert same_but_for_dots(wanted, found.getvalue()), found.getvalue()


PROGRAM = re.compile(r"^(?:#|//) (\w+\.(?:py|js))\n")
INTERPRETERS = {"py": sys.executable, "js": shutil.which("node")}


def check_program(name: str, block: str) -> None:
    """Run a block that is a file of its own, if its language is there."""
    wanted = "".join(line + "\n" for line in re.findall(r"^(?:#|//) -> (.*)$", block, re.MULTILINE))
    program = INTERPRETERS[name.rpartition(".")[2]]
    if program is None or ("pyspark" in block and importlib.util.find_spec("pyspark") is None):
        return
    Path(name).write_text(block, encoding="utf-8")
    done = subprocess.run([program, name], capture_output=True, check=False)
    assert (done.stdout.decode(), done.returncode) == (wanted, 0), done.stderr.decode()


def check_console(block: str) -> None:
    """Run the commands of a block, each after ``$ ``; what it prints follows, errors too."""
    for command, wanted in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
        python, *arguments = shlex.split(command)
        assert python == "python3", command
        done = subprocess.run(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        found = done.stdout.decode().replace("\r\n", "\n")
        assert same_but_for_dots(wanted, found), f"{command}\n{found}"


def test_readme_examples_do_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(MODULE, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    names: Dict[str, Any] = {}
    blocks = list(readme_blocks())
    assert {language for language, _ in blocks} == {"python", "console", "js"}
    (tmp_path / "vectors").symlink_to(HERE / "vectors")
    for language, block in blocks:
        program = PROGRAM.match(block)
        if program:
            check_program(program.group(1), block)
        elif language == "python":
            check_python(block, names)
        else:
            check_console(block)


def test_readme_lists_the_errata() -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    errata = json.loads((HERE / "vectors" / "errata.json").read_text(encoding="ascii"))
    for name in {erratum["format"] for erratum in errata}:
        (listed,) = re.findall(rf"<summary>{name}: \d+ of .*?</details>", text, re.DOTALL)
        wanted = [f"{one['number']}. {one['line']}" for one in errata if one["format"] == name]
        assert re.findall(r"^\d+\. .*$", listed, re.MULTILINE) == wanted
        assert listed.startswith(f"<summary>{name}: {len(wanted)} ")
    assert f": {len(errata)} places," in text


# ==== 9. Formats ======================================================================================
# ==== 9.1 mlyze =======================================================================================
#
# Files are built here byte by byte from the format text, with an encoder of their own.


def varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def alloc(delta: int, address: int, size: int, stack_id: int = 0, thread_id: int = 1) -> bytes:
    numbers = varint(size) + varint(stack_id) + thread_id.to_bytes(2, "little")
    return b"\0" + varint(delta) + address.to_bytes(8, "little") + numbers


def free(delta: int, address: int) -> bytes:
    return b"\1" + varint(delta) + address.to_bytes(8, "little")


def gc(delta: int, objects: int, size: int = 0) -> bytes:
    return b"\2" + varint(delta) + varint(objects) + varint(size)


def marker(delta: int, name_id: int) -> bytes:
    return b"\3" + varint(delta) + varint(name_id)


EMPTY = '{"stack_traces": {}, "files": {}, "functions": {}}'


def trace(
    *events: bytes,
    metadata: object = EMPTY,
    start_us: int = 1000,
    version: int = 1,
    length: Optional[int] = None,
    reserved: bytes = bytes(236),
) -> bytes:
    """A whole file; ``metadata`` is bytes, text or an object."""
    text = metadata if isinstance(metadata, (str, bytes)) else json.dumps(metadata)
    packed = text if isinstance(text, bytes) else text.encode()
    start = b"MTRC" + version.to_bytes(4, "little") + start_us.to_bytes(8, "little")
    claim = (len(packed) if length is None else length).to_bytes(4, "little")
    return start + claim + reserved + packed + b"".join(events)


def calls(*frames: Tuple[int, int, int]) -> List[Json]:
    return [dict(zip(("file_id", "line", "func_id"), frame)) for frame in frames]


TABLES: Json = {
    "stack_traces": {
        "0": calls((0, 12, 0), (1, 31, 1)),
        "1": calls((0, 12, 0), (1, 44, 2), (1, 45, 2)),
        "2": calls((0, 12, 0)),
        "3": [],
        "4": calls((7, 1, 8)),
        "5": calls((1, 9, 3)),
    },
    "files": {"0": "main.py", "1": "cache.py"},
    "functions": {"0": "main", "1": "put", "2": "grow", "3": "", "4": "ready\x1b[2J"},
}
STORY = [
    alloc(10, 0x10, 100, 0, 1),  # 0: at 1010 live 100
    alloc(10, 0x20, 200, 1, 2),  # 1: at 1020 live 300, the peak
    free(0, 0x20),  # 2: temporary; live 100
    alloc(5, 0x10, 50, 1, 1),  # 3: at 1025 replaces 100; live 50
    free(1, 0x99),  # 4: unmatched
    alloc(4, 0x30, 0, 0, 1),  # 5: at 1030, of size zero
    marker(0, 4),  # 6: live 50
    alloc(10, 0x40, 250, 2, 65535),  # 7: at 1040 live 300, not more than before
    gc(1, 7, 90),  # 8
    free(1, 0x40),  # 9: temporary, as only a GC came between; live 50
    alloc(0, 0, 5, 9, 2),  # 10: no address, no such stack
    free(0, 0),  # 11: no address
    free(8, 0x30),  # 12: at 1050
]
STORY_FILE = trace(*STORY, metadata=TABLES)
STORY_RECORDS: List[mf.MlyzeRecord] = [
    mf.Alloc(1010, 0x10, 100, 0, 1),
    mf.Alloc(1020, 0x20, 200, 1, 2),
    mf.Free(1020, 0x20),
    mf.Alloc(1025, 0x10, 50, 1, 1),
    mf.Free(1026, 0x99),
    mf.Alloc(1030, 0x30, 0, 0, 1),
    mf.Marker(1030, 4),
    mf.Alloc(1040, 0x40, 250, 2, 65535),
    mf.Gc(1041, 7, 90),
    mf.Free(1042, 0x40),
    mf.Alloc(1042, 0, 5, 9, 2),
    mf.Free(1042, 0),
    mf.Free(1050, 0x30),
]

WIDE = [1 << bits for bits in range(0, 67, 3)] + [127, 128, 16383, 16384, (1 << 64) - 1, 1 << 441]
SMALL_FILES["mlyze"] = [
    STORY_FILE,
    trace(),
    trace(*STORY, metadata="{}"),
    trace(b"\0\x81\0" + bytes(8) + b"\x82\x80\0\x83\0\1\0", alloc(300, 5, 1 << 70, 1 << 64), metadata=TABLES),
    trace(*STORY[:3], marker(200, 1 << 30), b"\x09", metadata={"files": {"0": 1, "x": "y"}, "more": {}}),
    trace(*[alloc(n, n, n, n) + gc(n, n, n) + free(n, 1) for n in (0, 127, 128, 16383, 16384, 1 << 21)] * 2),
    trace(*[alloc(n % (1 << 64), 1, n, n % 200) + gc(n, n, 2**64 - 1) for n in WIDE[:-1]]),
    trace(b"\2", metadata='  {"files": {"0": "\u00e4\u20ac"}}\n'.encode(), version=2, reserved=b"\1" * 236),
    trace(free(1, 2), metadata=b'{"files": {"0": "\xff\xfe"}}', start_us=(1 << 64) - 1),
    trace(free(1, 2), metadata="[1, 2]"),
    trace(free(1, 2), metadata=""),
    trace(metadata='{"stack', length=200),
]


@functools.lru_cache
def big_events() -> bytes:
    """Every kind of event with numbers of every length, so that each is split by a chunk border for some shift."""
    rng = random.Random(5)
    events = []
    for _ in range(4000):
        numbers = [rng.getrandbits(rng.choice((3, 7, 8, 14, 15, 21, 40, 64))) for _ in range(3)]
        kind = rng.randrange(8)
        if kind < 4:
            events.append(alloc(numbers[0] & 0x3FFF, numbers[1], numbers[2], rng.getrandbits(15), rng.getrandbits(16)))
        elif kind < 6:
            events.append(free(numbers[0] & 0x3FFFF, numbers[1]))
        else:
            events.append(gc(*numbers) if kind == 6 else marker(numbers[0], numbers[1]))
    return b"".join(events)


HOSTILE["mlyze"] = [
    trace(b"\x03" + b"\x80" * 1_000_000 + b"\x01\x00"),
    trace(marker(1, 2), length=2**32 - 1),
    trace(marker(1, 2**70) * 8_000),
    trace(metadata='{"functions": ' + "[" * 200_000 + "]" * 200_000),
    trace(metadata='{"functions": {"0": ' + "9" * 1_000_000 + "}}"),
    trace(metadata='{"functions": {"' + "9" * 1_000_000 + '": "a"}}'),
    trace(metadata='{"functions": {' + ", ".join(f'"{number}": {number}' for number in range(8_000)) + "}}"),
    trace(b"\xff" * 100_000),
]
KILLED["mlyze"] = Killed(
    """
writer = mf.MlyzeWriter(path, metadata_room=300)
def write(number):
    writer.marker(number, "only")
""",
    mf.Marker,
    "time_us",
)
BIG["mlyze"] = lambda shift: trace(big_events(), metadata=EMPTY + " " * shift)
MLYZE_KINDS = {
    0: (mf.Alloc, ("address", "size", "stack_id", "thread_id")),
    1: (mf.Free, ("address",)),
    2: (mf.Gc, ("objects", "bytes")),
    3: (mf.Marker, ("name_id",)),
}


def rebuild_mlyze(spans: List[mf.Span], data: bytes) -> Rebuilt:
    """Header and events from the paths and values of an explanation."""
    header: Json = {span.path: span.value for span in spans[:5] if span.type != "unread"}
    events: Dict[str, List[mf.Span]] = {}
    for span in spans:
        if span.path.startswith("events[") and span.type != "unread":
            events.setdefault(span.path.split(".")[0], []).append(span)
    records: List[Any] = []
    time_us: Any = header.get("start_us")
    for number, (path, fields) in enumerate(events.items()):
        assert path == f"events[{number}]"
        values: Json = {span.path.split(".")[1]: span.value for span in fields}
        kind, names = MLYZE_KINDS[values["type"]]
        if len(values) < 2 + len(names):
            assert number == len(events) - 1  # only the last can be cut
            break
        assert [*values] == ["type", "delta", *(name for name in names)]
        time_us += values["delta"]
        forms = [
            (data[span.offset : span.offset + span.size], values[span.path.split(".")[1]], span.type) for span in fields
        ]
        plain = all(type != "varint" or (form == varint(value) and value >> 64 == 0) for form, value, type in forms)
        raw = b"" if plain else b"".join(form for form, *_ in forms)
        records.append(kind(time_us, *[values[name] for name in names], raw=raw))
    return mf.MlyzeHeader(**{name: header[name] for name in mf.MlyzeHeader._fields if name in header}), records


REBUILD["mlyze"] = rebuild_mlyze
STEPPED_OVER["mlyze"] = [("unsupported-version", "version"), ("bad-utf8", "metadata"), ("bad-json", "metadata")]


def read_trace(data: bytes, **options: Any) -> mf.MlyzeReader:
    return mf.MlyzeReader(io.BytesIO(data), **options)


# ---- mlyze: recordings


def wire(event: Json) -> bytes:
    """An event of an ``.expected.json`` as its bytes."""
    delta = event["delta_us"]
    if event["type"] == "ALLOC":
        return alloc(delta, event["address"], event["size"], event["stack_id"], event["thread_id"])
    if event["type"] == "FREE":
        return free(delta, event["address"])
    if event["type"] == "GC":
        return gc(delta, event["objects"], event["bytes"])
    return marker(delta, event["name_id"])


def document_of(expected: Json, data: bytes) -> Json:
    """The decode document of a recording, from its ``.expected.json`` (the bytes give the tail only)."""
    metadata = expected["metadata"]
    problems: Dict[Tuple[str, str, str], Json] = {}

    def problem(severity: str, code: str, offset: int, where: str, message: str) -> None:
        key = severity, code, re.sub(r"\[\d+\]", "", where)
        if key in problems:
            problems[key]["times"] += 1
            return
        problems[key] = {"severity": severity, "code": code, "space": "file", "offset": offset, "where": where}
        problems[key].update(message=message, times=1)

    records = []
    for number, event in enumerate(expected["events"]):
        kind, names = next(pair for pair in MLYZE_KINDS.values() if pair[0].__name__.upper() == event["type"])
        record = {"record": kind.__name__, "time_us": event["time_us"], **{name: event[name] for name in names}}
        at = event["offset"] + 1
        for name in ("delta_us", *names):
            where = f"events[{number}].{'delta' if name == 'delta_us' else name}"
            if name not in ("address", "thread_id") and event[name] >> 64:
                problem("deviation", "bad-varint", at, where, "varint of more than 64 bits")
                record["raw"] = wire(event).hex()
            if name == "stack_id" and str(event[name]) not in metadata["stack_traces"]:
                problem("note", "bad-reference", at, where, "no such stack in the metadata")
            if name == "name_id" and str(event[name]) not in metadata["functions"]:
                problem("note", "bad-reference", at, where, "no such name in the metadata")
            at += 8 if name == "address" else len(varint(event[name]))
        records.append(record)
    header = {key: expected["header"][key] for key in ("version", "start_us", "metadata_length")}
    document = {"format": "mlyze", "schema": 1, "header": header, "stacks": metadata["stack_traces"]}
    document.update(files=metadata["files"], functions=metadata["functions"], records=records)
    return {**document, "problems": [*problems.values()], "tail": data[expected["end"]["good_until"] :].hex()}


def expected_of(path: Path) -> Json:
    expected: Json = json.loads(path.with_suffix(".expected.json").read_text(encoding="ascii"))
    return expected


each_trace = pytest.mark.parametrize("path", recordings("mlyze"), ids=lambda path: path.stem)


@each_trace
def test_mlyze_recording(path: Path) -> None:
    data, expected = path.read_bytes(), expected_of(path)
    with mf.MlyzeReader(path, recover=True) as reader:
        records = [*reader]
        assert reader.tail == data[expected["end"]["good_until"] :]
    header, metadata, end = expected["header"], expected["metadata"], expected["end"]
    assert reader.header == (header["version"], header["start_us"], header["metadata_length"], bytes(236))
    assert header["reserved_all_zero"]
    assert hashlib.sha256(reader.metadata.encode()).hexdigest() == expected["metadata_sha256"]
    assert {str(key): calls(*frames) for key, frames in reader.stacks.items()} == metadata["stack_traces"]
    assert {str(key): name for key, name in reader.files.items()} == metadata["files"]
    assert {str(key): name for key, name in reader.functions.items()} == metadata["functions"]
    assert len(records) == expected["event_count"]
    faults = [problem.code for problem in reader.problems if problem.severity == "fault"]
    assert faults == ([] if end["complete"] else [end["reason"]])
    digest = hashlib.sha256()
    before = header["start_us"]
    for record, event in zip(records, expected["events"]):
        assert record.time_us == event["time_us"]
        assert record.time_us - before == event["delta_us"]
        kind = type(record).__name__
        assert kind.upper() == event["type"]
        assert {key: event[key] for key in MLYZE_KINDS["AFGM".index(kind[0])][1]}.items() <= record._asdict().items()
        if isinstance(record, mf.Marker):
            assert reader.functions.get(record.name_id) == event["name"]
        numbers = [record.time_us - before, *record[1:-1]]
        digest.update(" ".join([kind[0], *map(str, numbers)]).encode() + b"\n")
        before = record.time_us
    assert digest.hexdigest() == expected["events_sha256"]
    offsets = [span.offset for span in mf.explain(path) if span.path.endswith("].type")]
    assert [event["offset"] for event in expected["events"]] == offsets[: len(records)]
    assert expected["events_offset"] == 256 + header["metadata_length"]


@each_trace
def test_mlyze_recording_document(path: Path) -> None:
    data, expected = path.read_bytes(), expected_of(path)
    document = json.loads(cli("decode", "--recover", path).out)
    wanted = document_of(expected, data)
    if not expected["end"]["complete"]:
        (fault,) = [problem for problem in document["problems"] if problem["severity"] == "fault"]
        assert fault["offset"] >= expected["end"]["good_until"]
        document["problems"].remove(fault)
    assert normal(document) == normal(wanted)
    assert encoded(json.dumps(wanted)) == data


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.id.startswith("mlyze/recorded/")], ids=lambda v: v.id)
def test_mlyze_recorded_vectors_are_the_recordings(vector: Vector) -> None:
    path = RECORDINGS / "mlyze" / (vector.id.split("/")[-1] + ".mlyze")
    if not path.exists():
        pytest.skip("the recordings are not on this machine")
    assert path.read_bytes() == vector.data
    expected = expected_of(path)
    document = vector.about["expect" if expected["end"]["complete"] else "recover"]
    kept = [problem for problem in document["problems"] if problem["severity"] != "fault"]
    assert normal({**document, "problems": kept}) == normal(document_of(expected, vector.data))


@each_trace
def test_mlyze_recording_analysis(path: Path) -> None:
    expected = expected_of(path)["analysis"]
    run = cli("stats", "--json", "--recover", path)
    found = json.loads(run.out)
    assert {key: found[key] for key in expected} == expected
    assert sum(leak["bytes"] for leak in found["leaks"]) == expected["live_at_end"]["bytes"]
    assert max(found["timeline"]["live_bytes"]) == expected["peak"]["bytes"]


@each_trace
def test_mlyze_recording_like_upstream(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    wanted = expected_of(path)["upstream_analyze"]
    run = cli("stats", "--like-upstream", path.name)
    lines = run.text.splitlines()
    if PYPY and wanted["lines"][-1].startswith("  └─ Failed to parse: "):  # the words after that are CPython's
        assert lines.pop().startswith("  └─ Failed to parse: ")
        wanted["lines"].pop()
    assert lines == wanted["lines"]
    assert (run.code, run.err) == (wanted["exit_code"], "")


def drive(writer: mf.MlyzeWriter, expected: Json) -> None:
    """Make the calls that gave an ``api_*`` recording: stacks and markers as text where their text is known."""
    tables = expected["metadata"]
    stacks = {
        number: [
            (tables["files"][str(f["file_id"])], f["line"], tables["functions"][str(f["func_id"])]) for f in frames
        ]
        for number, frames in tables["stack_traces"].items()
    }
    for stack in stacks.values():  # the program that made the recordings had them all before it began
        writer.stack_id(stack)
    for event in expected["events"]:
        time_us = event["time_us"]
        if event["type"] == "ALLOC":
            stack = stacks.get(str(event["stack_id"]), event["stack_id"])
            writer.alloc(time_us, event["address"], event["size"], stack, event["thread_id"])
        elif event["type"] == "FREE":
            writer.free(time_us, event["address"])
        elif event["type"] == "GC":
            writer.gc(time_us, event["objects"], event["bytes"])
        else:
            writer.marker(time_us, event["name"])


API = [
    path for path in recordings("mlyze") if path.name.startswith("api_") and path.stem not in ("api_over64", "api_cut")
]


@pytest.mark.parametrize("path", API, ids=lambda path: path.stem)
def test_mlyze_writer_makes_the_recordings(path: Path, tmp_path: Path) -> None:
    data, expected = path.read_bytes(), expected_of(path)
    start_us, length = expected["header"]["start_us"], expected["header"]["metadata_length"]
    with mf.MlyzeReader(path) as reader:
        records = [*reader]
    tables: Json = {"stacks": reader.stacks, "files": reader.files, "functions": reader.functions}
    scratch = io.BytesIO(b"not ours")
    scratch.seek(8)
    modes: List[Json] = [{}, {"spool": scratch}, {"metadata_room": length}, tables]
    for options in modes:
        made = io.BytesIO()
        with mf.MlyzeWriter(made, start_us=start_us, **options) as writer:
            drive(writer, expected)
        assert made.getvalue() == data, [*options]
    assert scratch.getvalue().startswith(b"not ours")
    with (
        pytest.raises(ValueError, match="metadata_room"),
        mf.MlyzeWriter(io.BytesIO(), start_us=start_us, metadata_room=length - 1) as writer,
    ):
        drive(writer, expected)
    roomy = io.BytesIO()
    with mf.MlyzeWriter(roomy, start_us=start_us, metadata_room=length + 100) as writer:
        drive(writer, expected)
    assert roomy.getvalue()[256 + length + 100 :] == data[256 + length :]
    assert roomy.getvalue()[256 : 256 + length + 100] == data[256 : 256 + length] + b" " * 100
    file = tmp_path / "records.mlyze"
    with mf.MlyzeWriter(file, start_us=start_us, **tables) as writer:
        writer.write_all(records)
    assert file.read_bytes() == data


# ---- mlyze: what is wrong with a file

LIMIT = b"\x80" * 64
CUT = trace(*STORY[:2], metadata=TABLES)
AT = len(trace(metadata=TABLES))  # where the events of files with TABLES start
METADATA_PROBLEMS = [
    ({"files": []}, "deviation", "metadata.files"),
    (
        {"files": {"x": "a", "01": "b", "-1": "c", "": "d", "\u0663": "e", "9" * 136: "f"}},
        "deviation",
        "metadata.files",
    ),
    ({"functions": {"0": 1}}, "deviation", "metadata.functions"),
    ({"stack_traces": {"0": {}}}, "deviation", "metadata.stack_traces"),
    ({"stack_traces": {"0": [{"file_id": 0, "line": 1}]}}, "deviation", "metadata.stack_traces"),
    ({"stack_traces": {"0": [{"file_id": 0, "line": 1, "func_id": 0.0}]}}, "deviation", "metadata.stack_traces"),
    ({"stack_traces": {"0": [{"file_id": 0, "line": True, "func_id": 0}]}}, "deviation", "metadata.stack_traces"),
    ({"stack_traces": {"0": [5]}}, "deviation", "metadata.stack_traces"),
    ({"more": 1, "other": 2}, "note", "metadata"),
]


@pytest.mark.parametrize(("metadata", "severity", "where"), METADATA_PROBLEMS)
def test_mlyze_metadata_that_is_not_as_written(metadata: Json, severity: str, where: str) -> None:
    data = trace(free(1, 2), metadata=metadata)
    entries = metadata[where.split(".")[1]] if where != "metadata" else metadata
    (problem,) = outcome(data, "mlyze").problems
    assert problem[:4] == (severity, "bad-value", "file", 256)
    assert problem.where.startswith(where)
    assert problem.times == max(len(entries), 1)
    strict = outcome(data, "mlyze", strict=True).fault
    assert (strict is not None) == (severity == "deviation")
    reader = read_trace(data)
    assert (reader.stacks, reader.files, reader.functions) == ({}, {}, {})
    assert [*reader] == [mf.Free(1001, 2)]


def test_mlyze_metadata_is_read_as_json() -> None:
    text = ' \n{"functions":{"7":"\u00e9\\udc80\\ud83d\\ude00"},"stack_traces":{"10":[{"line":-5,"func_id":7,"x":0,'
    text += '"file_id":' + str(10**4000 // 11) + '}]},"files":{"0":"a","0":"b"}}'
    reader = read_trace(trace(metadata=text))
    assert reader.functions == {7: "\u00e9\udc80\U0001f600"}
    assert reader.files == {0: "b"}
    assert reader.stacks == {10: (mf.Frame(10**4000 // 11, -5, 7),)}
    assert reader.metadata == text
    assert [(problem.severity, *place(problem)) for problem in reader.problems] == [
        ("note", "bad-value", 256, "metadata.stack_traces"),  # x
        ("note", "bad-reference", 256, "metadata.stack_traces.file_id"),  # a number that no key can have
    ]


UNREADABLE: List[Tuple[bytes, str, int, str]] = [
    (b"", "truncated", 0, "magic"),
    (b"MT", "truncated", 0, "magic"),
    (b"MTRD", "bad-magic", 0, "magic"),
    (b"NTR", "bad-magic", 0, "magic"),
    (CUT[:6], "truncated", 4, "version"),
    (CUT[:15], "truncated", 8, "start_us"),
    (CUT[:255], "truncated", 20, "reserved"),
    (CUT[:256], "truncated", 256, "metadata"),
    (CUT[: AT - 1], "truncated", 256, "metadata"),
    (trace(length=(1 << 32) - 1), "truncated", 256, "metadata"),
    (trace(version=0), "unsupported-version", 4, "version"),
    (trace(version=1 << 24), "unsupported-version", 4, "version"),
    (trace(metadata=b'{"a\xff": 1}'), "bad-utf8", 259, "metadata"),
    (trace(metadata=b"\xef\xbb\xbf{}"), "bad-json", 256, "metadata"),
    (trace(metadata='{"\u20ac": x}'), "bad-json", 256 + 8, "metadata"),
    (trace(metadata=""), "bad-json", 256, "metadata"),
    (trace(metadata="[" * 200_000), "bad-json", 256, "metadata"),
    (trace(metadata='{"a": ' + "1" * 4001 + "}"), "bad-json", 256, "metadata"),
    (trace(metadata="[]"), "bad-json", 256, "metadata"),
    (CUT + b"\x04", "bad-value", len(CUT), "events[2].type"),
    (CUT + b"\0\x80", "truncated", len(CUT) + 1, "events[2].delta"),
    (CUT + alloc(1, 2, 300, 4, 5)[:-1], "truncated", len(CUT) + 13, "events[2].thread_id"),
    (CUT + alloc(1, 2, 300, 4, 5)[:9], "truncated", len(CUT) + 2, "events[2].address"),
    (CUT + alloc(1, 2, 300, 4, 5)[:11], "truncated", len(CUT) + 10, "events[2].size"),
    (CUT + gc(300, 1)[:-1], "truncated", len(CUT) + 4, "events[2].bytes"),
    (CUT + b"\3\0", "truncated", len(CUT) + 2, "events[2].name_id"),
    (CUT + b"\3" + LIMIT + b"\1", "limit", len(CUT) + 1, "events[2].delta"),
    (CUT + b"\3" + LIMIT[:-1], "truncated", len(CUT) + 1, "events[2].delta"),
]


@pytest.mark.parametrize(("data", "code", "offset", "where"), UNREADABLE)
def test_mlyze_faults(data: bytes, code: str, offset: int, where: str) -> None:
    fault = outcome(data, "mlyze").fault
    assert fault is not None
    assert place(fault) == (code, offset, where)
    classes = {"truncated": mf.TruncatedError, "unsupported-version": mf.UnsupportedError}
    assert type(fault) is classes.get(code, mf.FormatError)
    assert str(fault) == f"mlyze: offset 0x{offset:x}: {where}: {fault.reason}"
    recovered = outcome(data, "mlyze", recover=True)
    if recovered.header is None:
        assert offset < 256
    else:
        faults = [problem for problem in recovered.problems if problem.severity == "fault"]
        assert [place(problem) for problem in faults] == [(code, offset, where)]
        assert len(recovered.records) == (2 if data.startswith(CUT) else 0)
    check_readings(data, "mlyze")


def test_mlyze_recover_reads_on_after_version_and_metadata() -> None:
    data = trace(*STORY, metadata=b"[\xff", version=7)
    read = outcome(data, "mlyze", recover=True)
    assert_same(read.records, STORY_RECORDS)
    assert [(p.severity, p.code) for p in read.problems[:2]] == [
        ("fault", "unsupported-version"),
        ("fault", "bad-utf8"),
    ]
    assert read.header.version == 7
    with pytest.raises(ValueError, match="one of them"):
        read_trace(data, strict=True, recover=True)


def test_mlyze_problems_are_one_per_code_and_field() -> None:
    odd = b"\3\x81\0\x05"  # an overlong delta
    wide = b"\1" + varint(1 << 64) + bytes(8)
    long = b"\1\x81" + b"\x80" * 9 + b"\0" + bytes(8)  # 11 bytes for 1
    data = trace(*[alloc(1, 1, 1, 77), marker(1, 5), odd] * 500, wide, wide, long, metadata=EMPTY, reserved=b"\1" * 236)
    with read_trace(data) as reader:
        assert [problem.where for problem in reader.problems] == ["reserved"]
        records = [*reader]
    assert len(records) == 1503
    found = [(p.severity, p.code, p.offset, p.where, p.times) for p in reader.problems]
    end = 306 + 500 * (14 + 3 + 4)
    assert sorted(found) == [
        ("deviation", "bad-varint", end + 1, "events[1500].delta", 3),
        ("note", "bad-reference", 306 + 10 + 1, "events[0].stack_id", 500),
        ("note", "bad-reference", 306 + 14 + 2, "events[1].name_id", 1000),
        ("note", "bad-value", 20, "reserved", 1),
        ("note", "bad-varint", 306 + 14 + 3 + 1, "events[2].delta", 500),
    ]
    assert {p.space for p in reader.problems} == {"file"}
    strict = outcome(data, "mlyze", strict=True)
    assert len(strict.records) == 1500
    assert strict.fault is not None
    assert place(strict.fault) == ("bad-varint", end + 1, "events[1500].delta")
    assert records[2] == mf.Marker(1003, 5, odd)
    assert records[1500] == mf.Free(2500 + (1 << 64), 0, wide)
    assert records[1502] == mf.Free(2501 + (2 << 64), 0, long)


def test_mlyze_tail() -> None:
    reader = read_trace(CUT + b"\7rest")
    with pytest.raises(ValueError, match="after the last record"):
        _ = reader.tail
    for _ in range(2):
        next(iter(reader))
    with pytest.raises(mf.FormatError, match="unknown event type: 7"):
        next(iter(reader))
    with pytest.raises(mf.FormatError, match="unknown event type: 7"):
        reader.read()
    reader = read_trace(CUT + b"\7rest", recover=True)
    document = reader.read()
    assert document.tail == reader.tail == b"\7rest"
    assert len(document.records) == 2
    cut = read_trace(CUT[:300], recover=True)
    assert cut.read().tail == CUT[256:300]
    assert read_trace(CUT).read().tail == b""


# ---- mlyze: Writer


def written(*records: Any, **options: Any) -> bytes:
    """What a writer gives of records."""
    file = io.BytesIO()
    with mf.MlyzeWriter(file, **options) as writer:
        for record in records:
            writer.write(record)
    return file.getvalue()


def test_mlyze_writer_numbers_names_and_stacks() -> None:
    file = io.BytesIO()
    main = ("a.py", 1, "main")
    with mf.MlyzeWriter(file, start_us=5) as writer:
        writer.marker(5, "start")
        writer.alloc(6, 1, 10, [main, ("b.py", 2, "f")], 3)
        writer.alloc(6, 2, 20, iter([main]), 3)
        writer.alloc(7, 3, 30, (main, ("b.py", 2, "f")), 3)
        writer.marker(7, "f")
        writer.alloc(8, 4, 40, [], 3)
        writer.alloc(8, 5, 50, 99, 3)
        writer.marker(8, 1000)
        writer.free(9, 1)
        writer.gc(300, 7)
        writer.gc(300, 7, 8)
        assert writer.stack_id([main]) == 1
        assert (writer.file_id("c.py"), writer.file_id("a.py")) == (2, 0)
        assert (writer.function_id("g"), writer.function_id("f")) == (3, 2)
    metadata = {
        "stack_traces": {"0": calls((0, 1, 1), (1, 2, 2)), "1": calls((0, 1, 1)), "2": []},
        "files": {"0": "a.py", "1": "b.py", "2": "c.py"},
        "functions": {"0": "start", "1": "main", "2": "f", "3": "g"},
    }
    events = [marker(0, 0), alloc(1, 1, 10, 0, 3), alloc(0, 2, 20, 1, 3), alloc(1, 3, 30, 0, 3), marker(0, 2)]
    events += [alloc(1, 4, 40, 2, 3), alloc(0, 5, 50, 99, 3), marker(0, 1000), free(1, 1), gc(291, 7), gc(0, 7, 8)]
    assert file.getvalue() == trace(*events, metadata=metadata, start_us=5)


@pytest.mark.parametrize("name", ['\x00\x1f\x7f"\\/', "\u00e4\u20ac\U0001f600", "\udc80\ud83d", "", "\n\r\t\b\f"])
def test_mlyze_writer_escapes_names(name: str) -> None:
    file = io.BytesIO()
    with mf.MlyzeWriter(file) as writer:
        writer.marker(0, name)
    text = json.dumps({"stack_traces": {}, "files": {}, "functions": {"0": name}})
    assert file.getvalue() == trace(marker(0, 0), metadata=text, start_us=0)
    assert read_trace(file.getvalue()).functions == {0: name}


def test_mlyze_writer_for_the_upstream_analyzer(sample: Path) -> None:
    first = 1 << 20
    names = [f"mark {number}" for number in range(300)]
    functions = {"0": "mark 7", "1": "main", **{str(first + number): name for number, name in enumerate(names)}}
    metadata = {"stack_traces": {"0": calls((0, 1, 0), (0, 2, 1))}, "files": {"0": "a"}, "functions": functions}
    events = [alloc(5, 16, 8, 0, 1), *[marker(0, first + number) for number in range(300)], marker(0, first + 7)]
    wanted = trace(*events, metadata=metadata, start_us=0)
    options: List[Json] = [{}, {"metadata_room": len(json.dumps(metadata))}]
    for option in options:
        file = io.BytesIO()
        with mf.MlyzeWriter(file, analyzer_markers=True, **option) as writer:
            writer.stack_id([("a", 1, "mark 7"), ("a", 2, "main")])
            writer.alloc(5, 16, 8, 0, 1)
            for name in [*names, "mark 7"]:
                writer.marker(5, name)
        assert file.getvalue() == wanted
    sample.write_bytes(wanted)
    text = cli("stats", "--like-upstream", sample).text
    assert re.search(r"Total Events +: 603$", text, flags=re.MULTILINE)  # each marker twice
    assert re.search(r"Allocations +: 1$", text, flags=re.MULTILINE)


NUMBERS = sorted({0, 1, 2**64 - 1} | {(1 << 7 * n) + d for n in range(1, 10) for d in (-1, 0, 1)} | {2**63 - 1, 2**63})


def test_mlyze_writer_numbers_of_all_lengths() -> None:
    assert written(*[mf.Gc(5, n, n) for n in NUMBERS]) == trace(
        *[gc(5 if n == 0 else 0, n, n) for n in NUMBERS], start_us=0
    )
    for delta in NUMBERS:
        records = [mf.Free(delta, 3), mf.Free(2 * delta, 3), mf.Marker(3 * delta, 1), mf.Gc(4 * delta, 1, 1)]
        events = [free(delta, 3), free(delta, 3), marker(delta, 1), gc(delta, 1, 1)]
        assert written(*records) == trace(*events, start_us=0)
    for delta, size, stack_id in itertools.product(NUMBERS[:8] + NUMBERS[-2:], NUMBERS, NUMBERS):
        assert written(mf.Alloc(delta, 5, size, stack_id, 6), spool=io.BytesIO())[306:] == alloc(
            delta, 5, size, stack_id, 6
        )


WRONG_RECORDS = [
    (mf.Free(-1, 0), ValueError),
    (mf.Free(99, 0), ValueError),
    (mf.Free(100 + 2**64, 0), ValueError),
    (mf.Free(100, -1), ValueError),
    (mf.Free(100, 1 << 64), ValueError),
    (mf.Alloc(100, 1 << 64, 1, 1, 1), ValueError),
    (mf.Alloc(100, 1, -1, 1, 1), ValueError),
    (mf.Alloc(100, 1, 1 << 64, 1, 1), ValueError),
    (mf.Alloc(100, 1, 1, -1, 1), ValueError),
    (mf.Alloc(100, 1, 1, 1 << 64, 1), ValueError),
    (mf.Alloc(100, 1, 1, 1, -1), ValueError),
    (mf.Alloc(100, 1, 1, 1, 65536), ValueError),
    (mf.Gc(100, -1, 0), ValueError),
    (mf.Gc(100, 0, 1 << 64), ValueError),
    (mf.Marker(100, -1), ValueError),
    (mf.Alloc(100, 1, 1.0, 1, 1), TypeError),  # type: ignore[arg-type]
    (mf.Alloc(100, "1", 1, 1, 1), TypeError),  # type: ignore[arg-type]
    (mf.Alloc(100, 1, 1, 1, None), TypeError),  # type: ignore[arg-type]
    (mf.Free(100.5, 1), TypeError),  # type: ignore[arg-type]
    (mf.Free(None, 1), TypeError),  # type: ignore[arg-type]
    (mf.Free(100, 1, "text"), TypeError),  # type: ignore[arg-type]
    (mf.Gc(100, "1", 0), TypeError),  # type: ignore[arg-type]
    (mf.Marker(100, "name"), TypeError),  # type: ignore[arg-type]
    ((100, 1), TypeError),
    (mf.Frame(1, 2, 3), TypeError),
    (None, TypeError),
]


@pytest.mark.parametrize(("record", "error"), WRONG_RECORDS)
@pytest.mark.parametrize("stream", [False, True])
def test_mlyze_writer_misuse(record: Any, error: Type[Exception], *, stream: bool) -> None:
    file = io.BytesIO()
    options: Json = {"stacks": {}} if stream else {}
    with mf.MlyzeWriter(file, start_us=100, **options) as writer:
        with pytest.raises(error):
            writer.write_all([mf.Gc(100, 1, 1), record, mf.Gc(100, 2, 2)])
        writer.write(mf.Gc(101, 3, 3))
    assert file.getvalue() == trace(gc(0, 1, 1), gc(1, 3, 3), start_us=100)
    with pytest.raises(ValueError, match="closed"):
        writer.write(mf.Gc(101, 4, 4))


def test_mlyze_writer_misuse_of_names() -> None:
    file = io.BytesIO()
    with mf.MlyzeWriter(file, start_us=0) as writer:
        for stack in ([("a", "3", "f")], [(1, 3, "f")], [("a", 3, None)], ["abc"], 1.5, None, [("a", 3.0, "f")]):
            with pytest.raises((TypeError, ValueError)):
                writer.alloc(0, 1, 1, stack, 1)  # type: ignore[arg-type]
        for name in b"bytes", None, 1.5:
            with pytest.raises(TypeError):
                writer.marker(0, name)  # type: ignore[arg-type]
    text = json.loads(read_trace(file.getvalue()).metadata)
    assert text["stack_traces"] == {}
    assert outcome(file.getvalue(), "mlyze", strict=True) == (read_trace(file.getvalue()).header, [], [], None)


def test_mlyze_writer_misuse_of_options(tmp_path: Path) -> None:
    path = tmp_path / "file"
    wrong: List[Tuple[Json, Type[Exception]]] = [
        ({"start_us": -1}, ValueError),
        ({"start_us": 1 << 64}, ValueError),
        ({"start_us": "0"}, TypeError),
        ({"metadata_room": 49}, ValueError),
        ({"metadata_room": 1 << 32}, ValueError),
        ({"metadata_room": 100.5}, TypeError),
        ({"spool": object()}, TypeError),
        ({"metadata_room": 100, "spool": io.BytesIO()}, ValueError),
        ({"stacks": {}, "metadata_room": 100}, ValueError),
        ({"files": {}, "spool": io.BytesIO()}, ValueError),
        ({"stacks": {0: ((0, 1, 2),)}}, TypeError),
        ({"files": {0: None}}, TypeError),
        ({"functions": {0: b"f"}}, TypeError),
        ({"functions": {"0": "f"}}, TypeError),
        ({"files": {-1: "a"}}, ValueError),
    ]
    for options, error in wrong:
        with pytest.raises(error):
            mf.MlyzeWriter(path, **options)
        assert not path.exists()
    with pytest.raises(TypeError, match="'wb'"):
        mf.MlyzeWriter(io.StringIO())  # type: ignore[arg-type]
    with io.open(path, "w", encoding="utf-8") as text, pytest.raises(TypeError, match="'wb'"):
        mf.MlyzeWriter(text)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        mf.MlyzeWriter([])  # type: ignore[arg-type]
    writer = mf.MlyzeWriter(io.BytesIO(), files={0: "a"})
    assert writer.file_id("a") == 0
    with pytest.raises(ValueError, match="has been written"):
        writer.file_id("b")


def test_mlyze_writer_clamps_time() -> None:
    times = [(5, 5), (3, 0), (4, 0), (7, 2), (-(1 << 70), 0), (8, 1)]
    made = written(*[mf.Free(100 + time, 1) for time, _ in times], start_us=100, clamp_time=True)
    assert made == trace(*[free(delta, 1) for _, delta in times], start_us=100)
    made = written(*[mf.Alloc(100 + time, 1, 2, 3, 4) for time, _ in times], start_us=100, clamp_time=True)
    assert made == trace(*[alloc(delta, 1, 2, 3, 4) for _, delta in times], start_us=100)


class Slow(io.RawIOBase):
    """An unbuffered file that takes three bytes at a time."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data[:3])
        return min(len(data), 3)


class Plainest:
    """What can be written to, and no more."""

    def __init__(self) -> None:
        self.data = b""
        self.takes: Optional[int] = None

    def write(self, data: bytes) -> Optional[int]:
        if self.takes is None:
            self.data += data
        return self.takes


def test_mlyze_writer_on_odd_files(tmp_path: Path) -> None:
    slow = Slow()
    with mf.MlyzeWriter(slow) as writer:
        writer.write_all(STORY_RECORDS)
    assert slow.data == written(*STORY_RECORDS)
    assert not slow.closed
    with pytest.raises(ValueError, match="seek"):
        mf.MlyzeWriter(Slow(), metadata_room=100)
    plainest = Plainest()
    with mf.MlyzeWriter(plainest) as writer:
        writer.write_all(STORY_RECORDS)
    assert plainest.data == slow.data
    nothing: Dict[int, Any] = {}
    for stacks in None, nothing:
        plainest = Plainest()
        with mf.MlyzeWriter(plainest, stacks=stacks) as writer:
            writer.write_all(STORY_RECORDS)
            writer.flush()
        assert plainest.data == slow.data
    plainest.takes = 0
    writer = mf.MlyzeWriter(plainest)
    with pytest.raises(OSError, match="no more bytes"):
        writer.close()
    end, start = os.pipe()
    empty: Dict[int, Any] = {}
    with io.open(start, "wb") as pipe:
        with pytest.raises(ValueError, match="seek"):
            mf.MlyzeWriter(pipe, metadata_room=100)
        for tables in None, empty:
            with mf.MlyzeWriter(pipe, stacks=tables) as writer:
                writer.write_all(STORY_RECORDS)
    with io.open(end, "rb") as pipe:
        assert pipe.read() == 2 * slow.data
    file = io.BytesIO(b"before")  # what stands before stays, whatever is patched
    file.seek(6)
    with mf.MlyzeWriter(file, metadata_room=80) as writer:
        writer.marker(0, "name")
    assert file.getvalue()[:6] == b"before"
    reader = read_trace(file.getvalue()[6:])
    assert reader.functions == {0: "name"}
    assert [*reader] == [mf.Marker(0, 0)]
    with io.open(tmp_path / "raw", "wb", buffering=0) as raw, mf.MlyzeWriter(raw) as writer:
        writer.write_all(STORY_RECORDS)
    assert (tmp_path / "raw").read_bytes() == slow.data


def test_mlyze_writer_flush_leaves_a_readable_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    ways: List[Json] = [{"metadata_room": 500}, {"functions": {0: "first", 1: "second"}}, {}]
    for options in ways:
        writer = mf.MlyzeWriter(path, **options)
        writer.marker(1, "first")
        writer.marker(2, "second")
        writer.flush()
        if options:
            with mf.MlyzeReader(path, strict=True) as reader:
                assert [reader.functions[record[1]] for record in reader] == ["first", "second"]
        else:
            assert path.stat().st_size == 0
        writer.marker(3, "first")
        writer.close()
        writer.close()
        with mf.MlyzeReader(path, strict=True) as reader:
            assert [record.time_us for record in reader] == [1, 2, 3]


def test_mlyze_writer_completes_when_the_body_raises(tmp_path: Path) -> None:
    def body(writer: mf.MlyzeWriter) -> None:
        with writer:
            writer.marker(1, "only")
            raise LookupError

    path = tmp_path / "file"
    ways: List[Json] = [{}, {"metadata_room": 200}, {"functions": {0: "only"}}]
    for options in ways:
        with pytest.raises(LookupError):
            body(mf.MlyzeWriter(path, **options))
        with mf.MlyzeReader(path, strict=True) as reader:
            assert [*reader] == [mf.Marker(1, 0)]
            assert reader.functions == {0: "only"}


def test_mlyze_writer_and_documents() -> None:
    document = read_trace(STORY_FILE).read()
    ways: List[Json] = [{"metadata_room": 100}, {"stacks": {}}]
    for options in ways:
        writer = mf.MlyzeWriter(io.BytesIO(), **options)
        with pytest.raises(ValueError, match="first thing written"):
            writer.write_document(document)
    writer = mf.MlyzeWriter(io.BytesIO())
    writer.free(0, 1)
    with pytest.raises(ValueError, match="first thing written"):
        writer.write_document(document)
    other = mf.Document("other", document.header, document.tables, document.records)
    with pytest.raises(ValueError, match="a document of other"):
        mf.MlyzeWriter(io.BytesIO()).write_document(other)
    file = io.BytesIO()
    with mf.MlyzeWriter(file) as writer:
        writer.write_document(document)
        with pytest.raises(ValueError, match="has been written"):
            writer.file_id("new")
    assert file.getvalue() == STORY_FILE


# ---- mlyze: documents


def story_document() -> Json:
    """What STORY_FILE decodes to, by hand."""
    records = [{"record": type(record).__name__, **record._asdict()} for record in STORY_RECORDS]
    for record in records:
        del record["raw"]
    return {
        "format": "mlyze",
        "schema": 1,
        "header": {"start_us": 1000, "metadata_length": AT - 256},
        "stacks": copy.deepcopy(TABLES["stack_traces"]),
        "files": dict(TABLES["files"]),
        "functions": dict(TABLES["functions"]),
        "records": records,
        "problems": [
            {
                "severity": "note",
                "code": "bad-reference",
                "space": "file",
                "offset": offset,
                "where": where,
                "message": "",
            }
            for offset, where in (
                (256, "metadata.stack_traces.file_id"),
                (256, "metadata.stack_traces.func_id"),
                (AT + len(b"".join(STORY[:10])) + 11, "events[10].stack_id"),
            )
        ],
        "tail": "",
    }


def test_mlyze_document_by_hand() -> None:
    assert normal(json.loads(decoded(STORY_FILE, "mlyze"))) == normal(story_document())
    assert encoded(json.dumps(story_document())) == STORY_FILE
    header, records = (
        {"version": 1, "reserved": "00" * 236},
        [{"record": "Gc", "time_us": 1 << 80, "objects": 1, "bytes": 2}],
    )
    records[0]["raw"] = "02" + (varint(1 << 80) + b"\1\2").hex()
    text = json.dumps({"format": "mlyze", "schema": 1, "header": header, "records": records, "tail": "07"})
    assert encoded(text) == trace(b"\2" + varint(1 << 80) + b"\1\2\7", start_us=0)


DOCUMENT_CHANGES: List[Tuple[str, Callable[[Json], object]]] = [
    ("header", lambda d: d.pop("header")),
    ("header", lambda d: d.update(header=[])),
    ("header", lambda d: d["header"].update(more=1)),
    ("header.start_us", lambda d: d["header"].update(start_us="1")),
    ("header.start_us", lambda d: d["header"].update(start_us=1.0)),
    ("header.start_us", lambda d: d["header"].update(start_us=True)),
    ("header.reserved", lambda d: d["header"].update(reserved="0g")),
    ("header.reserved", lambda d: d["header"].update(reserved=[0])),
    ("header", lambda d: d["header"].update(reserved="00")),
    ("header", lambda d: d["header"].update(version=1 << 32)),
    ("header", lambda d: d["header"].update(start_us=-1)),
    ("header", lambda d: d.update(metadata="\ud800")),
    ("metadata", lambda d: d.update(metadata=5)),
    ("files", lambda d: d.update(files=[])),
    ("files", lambda d: d.update(files={"x": "a"})),
    ("files", lambda d: d.update(files={"1_0": "a"})),
    ("files", lambda d: d.update(files={" 1": "a"})),
    ("files", lambda d: d.update(files={"01": "a"})),
    ("files", lambda d: d.update(files={"9" * 5000: "a"})),
    ("files[0]", lambda d: d.update(files={"0": 5})),
    ("stacks[0][1]", lambda d: d["stacks"]["0"][1].pop("line")),
    ("stacks[0][0].line", lambda d: d["stacks"]["0"][0].update(line=None)),
    ("stacks[0]", lambda d: d["stacks"].update({"0": {}})),
    ("records", lambda d: d.update(records={})),
    ("records[1]", lambda d: d["records"].insert(1, {})),
    ("records[1]", lambda d: d["records"][1].pop("record")),
    ("records[1]", lambda d: d["records"][1].update(record="Frame")),
    ("records[1]", lambda d: d["records"][1].update(record=[])),
    ("records[1]", lambda d: d["records"][1].update(more=1)),
    ("records[1]", lambda d: d["records"][1].pop("size")),
    ("records[1].size", lambda d: d["records"][1].update(size="1")),
    ("records[1].raw", lambda d: d["records"][1].update(raw="0")),
    ("records[1]", lambda d: d["records"][1].update(size=-1)),
    ("records[1]", lambda d: d["records"][1].update(size=1 << 64)),
    ("records[1]", lambda d: d["records"][1].update(thread_id=1 << 16)),
    ("records[1]", lambda d: d["records"][1].update(time_us=0)),
    ("tail", lambda d: d.update(tail="xx")),
    ("tail", lambda d: d.update(tail=None)),
    ("", lambda d: d.update(recrods=[])),
]


@pytest.mark.parametrize(("where", "change"), DOCUMENT_CHANGES)
@pytest.mark.parametrize("lines", [False, True])
def test_mlyze_document_errors(where: str, change: Callable[[Json], object], *, lines: bool) -> None:
    document = story_document()
    change(document)
    text = json.dumps(document)
    if lines:
        if where == "records":
            return
        records, end = document.pop("records"), {"problems": document.pop("problems"), "tail": document.pop("tail")}
        text = "".join(json.dumps(part) + "\n" for part in (document, *records, end))
    with pytest.raises(mf.FormatError) as caught:
        encoded(text)
    assert (caught.value.format, caught.value.code) == ("json", "bad-value")
    assert caught.value.where == where


def test_mlyze_lines_errors() -> None:
    document = story_document()
    records, end = document.pop("records"), {"problems": document.pop("problems"), "tail": document.pop("tail")}
    lines = [json.dumps(part) + "\n" for part in (document, *records, end)]
    start = len("".join(lines[:3]))
    for bad, code in ("{\n", "bad-json"), ("[]\n", "bad-value"), ("{}\n", "bad-value"), ('{"x": "\n', "bad-json"):
        with pytest.raises(mf.FormatError) as caught:
            encoded("".join([*lines[:3], bad, *lines[3:]]))
        assert caught.value.code == code
        assert start <= caught.value.offset <= start + len(bad)
    with pytest.raises(mf.FormatError, match="after the end"):
        encoded("".join([*lines, lines[2]]))
    assert encoded("\n".join(lines)) == STORY_FILE  # empty lines are nothing


# ---- mlyze: semantics


def analysis(*events: bytes, metadata: object = EMPTY, start_us: int = 1000, **options: Any) -> mf.MlyzeAnalysis:
    return mf.mlyze_analysis(read_trace(trace(*events, metadata=metadata, start_us=start_us)), **options)


def test_mlyze_analysis_by_hand() -> None:
    found = analysis(*STORY, metadata=TABLES)
    assert found.counts == {"alloc": 6, "free": 5, "gc": 1, "marker": 1}
    assert (found.duration_us, found.end_time_us, found.addressed) == (50, 1050, True)
    assert (found.tracer_end_time_us, found.tracer_marker_times_us) == (None, ())
    assert found.total_allocated_bytes == 100 + 200 + 50 + 0 + 250 + 5
    assert found.unaddressed == {"allocs": 1, "bytes": 5, "frees": 1}
    assert (found.matched_frees, found.freed_bytes, found.unmatched_frees) == (3, 450, 1)
    assert (found.replaced_blocks, found.replaced_bytes, found.temporary_allocs) == (1, 100, 2)
    assert found.live_at_end == {"blocks": 1, "bytes": 50}
    assert found.peak == {"bytes": 300, "blocks": 2, "event_index": 1, "time_us": 1020}
    assert found.gc == {"collections": 1, "objects": 7, "bytes": 90}
    threads = {1: (3, 150), 2: (2, 205), 65535: (1, 250)}
    assert found.threads == {key: {"allocs": allocs, "bytes": size} for key, (allocs, size) in threads.items()}
    assert [*found.threads] == [1, 2, 65535]
    assert found.by_stack == ((1, 2, 250, 1, 50, 200), (2, 1, 250, 0, 0, 0), (0, 2, 100, 0, 0, 100), (9, 1, 5, 0, 0, 0))
    assert found.by_function == (
        ("main", "main.py", 1, 250, 5, 600),
        ("grow", "cache.py", 2, 250, 2, 250),
        ("put", "cache.py", 2, 100, 2, 100),
    )
    assert found.leaks == ((1, 1, 50, 1025),)
    assert found.markers == ((6, 1030, 4, "ready\x1b[2J", 50),)
    assert found.dangling == {"stack_ids": [9], "file_ids": [7], "func_ids": [8], "marker_name_ids": []}
    assert analysis(*STORY, min_age_us=25).leaks == ((1, 1, 50, 1025),)
    assert analysis(*STORY, min_age_us=26).leaks == ()


def test_mlyze_analysis_of_nothing() -> None:
    found = analysis()
    assert (found.duration_us, found.addressed, found.tracer_end_time_us) == (0, False, None)
    assert found.peak == {"bytes": 0, "blocks": 0, "event_index": -1, "time_us": None}
    assert (found.by_stack, found.leaks, found.markers) == ((), (), ())
    assert found.timeline.live_bytes == (0,)


def test_mlyze_peak_is_the_first_maximum_by_stack() -> None:
    found = analysis(alloc(1, 1, 10, 0), alloc(1, 2, 20, 1), free(1, 1), alloc(1, 3, 10, 2), alloc(1, 2, 20, 3))
    assert found.peak == {"bytes": 30, "blocks": 2, "event_index": 1, "time_us": 1002}
    assert {use.stack_id: use.peak_bytes for use in found.by_stack} == {0: 10, 1: 20, 2: 0, 3: 0}
    found = analysis(alloc(1, 1, 10, 0), alloc(1, 2, 20, 1), alloc(1, 1, 11, 1))  # replaced at the peak itself
    assert found.peak == {"bytes": 31, "blocks": 2, "event_index": 2, "time_us": 1003}
    assert {use.stack_id: use.peak_bytes for use in found.by_stack} == {0: 0, 1: 31}
    assert analysis(alloc(1, 1, 0)).peak == {"bytes": 0, "blocks": 0, "event_index": -1, "time_us": None}


@pytest.mark.parametrize(
    ("between", "temporary"),
    [
        ([], 1),
        ([gc(0, 1), marker(1, 1), gc(0, 1)], 1),
        ([alloc(0, 2, 1)], 0),
        ([alloc(0, 0, 1)], 0),
        ([free(0, 9)], 0),
        ([free(0, 0)], 0),
        ([free(0, 1), alloc(0, 1, 1)], 2),
    ],
)
def test_mlyze_temporary(between: List[bytes], temporary: int) -> None:
    assert analysis(alloc(1, 1, 8), *between, free(1, 1)).temporary_allocs == temporary


def test_mlyze_leaks_are_sorted() -> None:
    events = [
        alloc(1, n + 1, size, stack_id)
        for n, (size, stack_id) in enumerate([(5, 7), (10, 3), (5, 7), (5, 2), (5, 2), (1, 9)])
    ]
    found = analysis(*events)
    assert found.leaks == ((2, 2, 10, 1004), (7, 2, 10, 1001), (3, 1, 10, 1002), (9, 1, 1, 1006))
    assert [use.stack_id for use in found.by_stack] == [2, 7, 3, 9]
    assert [leak.stack_id for leak in analysis(*events, min_age_us=3).leaks] == [7, 3]


def test_mlyze_timeline_keeps_short_peaks() -> None:
    events = [alloc(300, 1, 10), alloc(10, 2, 1000), free(10, 2), gc(5680, 1)]
    timeline = analysis(*events, start_us=0).timeline  # 6000 us are 47 buckets of 128
    assert timeline == (0, 128, (0, 0, 1010, *[10] * 44))
    first = analysis(alloc(0, 1, 7), free(0, 1)).timeline
    assert first == (1000, 1, (7,))
    for steps in [1] * 500, [0, 0, 1 << 70, 3], [63, 1], [64, 63, 1]:
        timeline = analysis(*[alloc(delta, n + 1, 1) for n, delta in enumerate(steps)], start_us=7).timeline
        assert timeline.start_us == 7
        assert timeline.live_bytes[-1] == len(steps)
        assert (
            (len(timeline.live_bytes) - 1) * timeline.bucket_us
            <= sum(steps)
            < len(timeline.live_bytes) * timeline.bucket_us
        )
        assert timeline.bucket_us == 1 or 32 <= len(timeline.live_bytes) <= 64
        assert [*timeline.live_bytes] == sorted(timeline.live_bytes)


def test_mlyze_recursion_counts_once() -> None:
    tables = {
        "stack_traces": {
            "0": calls((0, 1, 0), (0, 2, 1), (0, 3, 1)),
            "1": calls((0, 1, 0)),
            "2": [],
            "3": calls((0, 9, 1), (0, 1, 0)),
        },
        "files": {"0": "a"},
        "functions": {"0": "main", "1": "f"},
    }
    found = analysis(
        alloc(0, 1, 10, 0), alloc(0, 2, 5, 1), alloc(0, 3, 3, 2), alloc(0, 4, 2, 3), alloc(0, 5, 1, 8), metadata=tables
    )
    assert found.by_function == (("f", "a", 1, 10, 2, 12), ("main", "a", 2, 7, 3, 17))


# Deltas of a stock tracer, all addresses 0, from 1000 on, and when the events happened by mlyze 8.2.
CLOCKS = [
    ([("A", 10), ("A", 10), ("F", 10)], [1010, 1010, 1010]),
    ([("A", 10), ("A", 10), ("A", 25)], [1010, 1010, 1035]),  # the next batch counts from the one before
    ([("G", 4), ("A", 6), ("A", 6)], [1004, 1010, 1010]),  # before all batches
    ([("A", 10), ("G", 12), ("M", 3), ("A", 10)], [1010, 1012, 1015, 1010]),  # inside: a clock of their own
    ([("A", 10), ("G", 12), ("A", 10), ("M", 14), ("F", 10), ("A", 20)], [1010, 1012, 1010, 1026, 1010, 1030]),
    ([("A", 10), ("G", 5), ("M", 2), ("A", 7), ("A", 7)], [1010, 1015, 1017, 1024, 1024]),  # outside: they end it
    ([("A", 10), ("G", 5)], [1010, 1015]),
    ([("A", 10), ("M", 5), ("A", 10)], [1010, 1005, 1010]),
    ([("M", 1), ("G", 2)], [1001, 1003]),
    ([("A", 0), ("G", 0), ("A", 0)], [1000, 1000, 1000]),
]
STOCK = {"A": lambda d: alloc(d, 0, 8), "F": lambda d: free(d, 0), "G": lambda d: gc(d, 1), "M": lambda d: marker(d, 3)}


@pytest.mark.parametrize(("steps", "times"), CLOCKS)
def test_mlyze_corrected_clock(steps: List[Tuple[str, int]], times: List[int]) -> None:
    events = [STOCK[kind](delta) for kind, delta in steps]
    reader = read_trace(trace(*events))
    plain = reader.read().records
    corrected = [*mf.mlyze_corrected_clock(plain, reader.header.start_us)]
    assert [record.time_us for record in corrected] == times
    assert_same([record._replace(time_us=0) for record in corrected], [record._replace(time_us=0) for record in plain])
    found = analysis(*events)
    assert found.addressed is False
    assert found.tracer_end_time_us == max(times)
    assert found.tracer_marker_times_us == tuple(time for (kind, _), time in zip(steps, times) if kind == "M")
    assert (found.peak["bytes"], found.live_at_end["bytes"]) == (0, 0)
    addressed = analysis(*events, free(0, 77))
    assert (addressed.addressed, addressed.tracer_end_time_us, addressed.tracer_marker_times_us) == (True, None, ())


def test_mlyze_labels() -> None:
    reader = read_trace(STORY_FILE)
    labels = [
        "put (cache.py:31)",
        "grow (cache.py:45)",
        "main (main.py:12)",
        "stack_3",
        "func_8 (file_7:1)",
        "cache.py:9",
    ]
    assert [mf.mlyze_stack_label(reader, number) for number in range(6)] == labels
    assert mf.mlyze_stack_label(reader, 10**30) == f"stack_{10**30}"
    assert mf.mlyze_frame_label(reader, reader.stacks[0][0]) == "main (main.py:12)"


# ---- mlyze: command line


def test_mlyze_info(sample: Path) -> None:
    run = cli("info", sample)
    assert (run.code, run.err) == (0, "")
    for words in (
        r"sample\.mlyze: mlyze, ",
        r"version +1$",
        r"started +1970-01-01T00:00:00\.001000Z$",
        r"lasts +50 us$",
        r"events +13: 6 ALLOC, 5 FREE, 1 GC, 1 MARKER$",
        r"addresses +yes$",
        r"names +6 stacks, 2 files, 5 functions$",
        r" note bad-reference: offset 0x[0-9a-f]+: events\[10\]\.stack_id: no such stack in the metadata$",
    ):
        assert re.search(words, run.text, flags=re.MULTILINE), words


def test_mlyze_stats(sample: Path) -> None:
    run = cli("stats", sample)
    assert (run.code, run.err) == (0, "")
    assert "\x1b" not in run.text
    for words in (
        r"13 events in 50 us from 1970-01-01T00:00:00\.001000Z$",
        r"peak +300 bytes in 2 blocks at \+20 us, event 1$",
        r"allocated +605 bytes in 6 blocks, 2 of them freed by the very next operation$",
        r"freed +450 bytes in 3 blocks$",
        r"left +50 bytes in 1 block$",
        r"replaced +1 block of 100 bytes",
        r"unmatched +1 FREE ",
        r"no address +1 ALLOC of 5 bytes, 1 FREE$",
        r"gc +1 collection, 7 objects, 90 bytes$",
        r"^ +50 +1 +\+25 us +grow \(cache\.py:45\)$",
        r"^ +100 +2 +100 +put \(cache\.py:31\)$",
        r"^ +250 +600 +main \(main\.py\)$",
        r"^ +250 +1 +65535$",
        r"^ +\+30 us +50 +ready\\u001b\[2J$",
    ):
        assert re.search(words, run.text, flags=re.MULTILINE), words
    top = cli("stats", "--top", 1, sample).text
    assert "(the first 1 of 4)" in top
    assert "put (cache.py:31)" not in top
    assert (
        "grow (cache.py:45)" not in cli("stats", "--min-age", "0.000026", "--top", 1, sample).text.split("Allocated")[0]
    )
    numbers = json.loads(cli("stats", "--json", "--min-age", "0.000026", sample).text)
    assert (numbers["peak"]["bytes"], numbers["leaks"]) == (300, [])


def test_mlyze_stats_of_stock_files(sample: Path) -> None:
    sample.write_bytes(trace(*[STOCK[kind](delta) for kind, delta in CLOCKS[4][0]]))
    text = cli("stats", sample).text
    assert "6 events in 30 us" in text
    assert "not known, nor peak, frees and leaks" in text
    assert "Grown, by stack" in text
    assert re.search(r"\+26 us +\? +func_3$", text, flags=re.MULTILINE)
    assert "steps of a stock tracer several times over" in cli("info", sample).text
    sample.write_bytes(
        trace(*[alloc(n, 0, n) for n in (10, 5000, 2_621_440 - 5010)], b"\1" + varint(1 << 65) + bytes(8))
    )
    text = cli("stats", sample).text
    assert "3 ALLOC of 2.5 MiB; 1 FREE" in text
    assert "problem     deviation bad-varint" in text


def test_mlyze_stats_without_a_peak(sample: Path) -> None:
    sample.write_bytes(trace(free(5, 0x10)))
    text = cli("stats", sample).text
    assert "  allocated   0 bytes in 0 blocks\n" in text
    assert "  unmatched   1 FREE of what was not live\n" in text
    assert "  peak  " not in text


def test_mlyze_like_upstream(sample: Path) -> None:
    sample.write_bytes(b"MTRX")
    run = cli("stats", "--like-upstream", "--format", "mlyze", sample)
    assert run.code == 1
    assert run.text.splitlines()[-1] == "  └─ Invalid file format"
    for data in (
        CUT[:10],
        trace(metadata="[]") + alloc(1, 1, 1),
        trace(metadata=""),
        trace(alloc(1, 1, 0)),
        CUT + b"\0\1" + bytes(8) + LIMIT,
    ):
        sample.write_bytes(data)
        run = cli("stats", "--like-upstream", sample)
        assert (run.code, run.err) == (1, "")
        assert run.text.splitlines()[-1].startswith("  └─ Failed to parse: ")
    sizes = {"WARNING": 102_401, "CRITICAL": 1_048_577}
    for word, size in sizes.items():
        for less in 0, 1:
            sample.write_bytes(trace(alloc(1, 1, size - less, 1), b"\2\1\x80", metadata=TABLES))
            run = cli("stats", "--like-upstream", sample)
            assert run.code == 0
            assert (f"{word}: " in run.text) == (less == 0)
            assert "main.py:12 main()" in run.text
            assert "GC Events      : 1" in run.text
    sample.write_bytes(trace(b"\x63\1", free(1, 9), alloc(1, 1, 8, 4), metadata=TABLES, version=9))
    assert "unknown:1 unknown()" in cli("stats", "--like-upstream", sample).text


# ==== 9.2 clog =======================================================================================

CLOG_RECORDINGS = recordings("clog")
each_log = pytest.mark.parametrize("path", CLOG_RECORDINGS, ids=[path.stem for path in CLOG_RECORDINGS])


# A file built by hand, apart from the module's writer.


def clog_head(order: str = "<", **fields: Any) -> bytes:
    values: Dict[str, Any] = {
        "magic": 0x4E414E4F,
        "major": 1,
        "minor": 0,
        "frequency": 1_000_000,
        "start": 1000,
        "sec": 1_700_000_000,
        "nsec": 999_999_000,
        "marker": 0x01020304,
        "dictionary": 0,
        "count": 0,
        "flags": 1,
        "reserved": bytes(8),
    }
    assert set(fields) <= set(values)
    return struct.pack(order + "IHHQQqiIQII8s", *{**values, **fields}.values())


def clog_entry(log_id: int, data: bytes = b"", timestamp: Optional[int] = 1000, order: str = "<") -> bytes:
    if timestamp is None:
        return struct.pack(order + "IH", log_id, len(data)) + data
    return struct.pack(order + "IQH", log_id, timestamp, len(data)) + data


TYPE_CODES = {name: code for code, name in enumerate(mf.CLOG_TYPES)}


def clog_site(log_id: int, format: bytes, *types: str, level: int = 0, order: str = "<", room: int = 50) -> bytes:
    codes = bytes(TYPE_CODES[type] for type in types)
    head = struct.pack(f"{order}IBBHHI{room}s", log_id, level, len(types), 3, len(format), 7, codes)
    return head + b"a.c" + format


def clog_sections(sites: Sequence[bytes], levels: Sequence[bytes] = (), order: str = "<") -> bytes:
    made = b""
    for magic, items in ((0x4C564C53, levels), (0x44494354, sites)):
        if items or magic == 0x44494354:
            body = b"".join(items)
            made += struct.pack(order + "4I", magic, len(items), 16 + len(body), 0) + body
    return made


def clog_file(
    entries: Sequence[bytes], sites: Sequence[bytes], levels: Sequence[bytes] = (), order: str = "<", **fields: Any
) -> bytes:
    body = b"".join(entries)
    end = {"dictionary": 64 + len(body), "count": len(entries), **fields}
    return clog_head(order, **end) + body + clog_sections(sites, levels, order)


def one_argument(type: str, data: bytes, order: str = "<") -> mf.LogEntry:
    """The only entry of a file whose only site has one argument."""
    file = clog_file([clog_entry(0, data, order=order)], [clog_site(0, b"%d", type, order=order)], order=order)
    (record,) = mf.ClogReader(io.BytesIO(file))
    assert isinstance(record, mf.LogEntry)
    return record


MIXED_SITES = [
    clog_site(0, b"started"),
    clog_site(1, b"i %d", "INT32"),
    clog_site(2, b"%s %d %s", "STRING", "INT64", "STRING", level=10),
    clog_site(3, b"%s", "STRING", level=1),
    clog_site(4, b"%f %c %p %u %lu", "DOUBLE", "CHAR", "POINTER", "UINT32", "UINT64", level=2),
]
TEXT = struct.pack("<I", 3) + b"abc"
MIXED_ENTRIES = [
    clog_entry(0),
    clog_entry(1, b"\x09\x01", 2000),
    clog_entry(2, b"\x02\x00\x02" + TEXT + bytes(4), 1500),
    clog_entry(3, TEXT),
    clog_entry(4, b"\x18\x41\x01" + struct.pack("<d", -0.5) + b"Z" + b"\x00\x00\x00\x80" + b"\x07" + b"\xff", 999),
    clog_entry(4, b"\x18\x11\x08" + struct.pack("<d", 2.5) + b"\xe9" + b"\x00" + b"\x07" + struct.pack("<Q", 1 << 63)),
    clog_entry(77, b"garbage"),
    clog_entry(1, struct.pack("<i", -7)),
    clog_entry(2, TEXT + struct.pack("<q", 5) + TEXT),
]


def small_clogs() -> List[bytes]:
    """Files of every kind: mutations start from these."""
    levels = [struct.pack("<BBH", 10, 6, 0) + b"METRIC"]
    big = [
        clog_entry(1, b"\x01\x00", order=">"),
        clog_entry(1, struct.pack(">i", 70000), order=">"),
        clog_entry(2, struct.pack(">I", 3) + b"abc" + struct.pack(">q", -5) + bytes(4), order=">"),
    ]
    big_sites = [
        clog_site(0, b"", order=">"),
        clog_site(1, b"%d", "INT32", order=">"),
        clog_site(2, b"%s", "STRING", "INT64", "STRING", order=">"),
    ]
    old = [clog_site(place, b"i %d", *["INT32"] * place, room=16) for place in range(3)]
    untimed = [clog_entry(1, b"\x01\x05", None), clog_entry(2, b"\x11\x05\x06", None)]
    hole = clog_entry(0, b"\x08" + struct.pack("<Q", 1 << 57)), clog_entry(0, b"\x08" + struct.pack("<Q", 1 << 63))
    mixed = b"".join(MIXED_ENTRIES)
    return [
        clog_file(MIXED_ENTRIES, MIXED_SITES, levels),
        clog_file([], []),
        clog_head() + mixed,
        clog_head(count=9) + mixed + clog_sections(MIXED_SITES, levels),
        clog_file(big, big_sites, order=">"),
        clog_file(untimed, old, frequency=0, start=0, flags=0),
        clog_file([clog_entry(1, b"\x03\x56\x34\x12"), clog_entry(1, bytes(4))], old, flags=0, frequency=10**9),
        clog_file(hole, [clog_site(0, b"%ld", "INT64")]),
        clog_file([clog_entry(0, b"1234")], [clog_site(0, b"%d", "INT32", "NONE")]) + b"trailing",
        clog_file(MIXED_ENTRIES[:1], MIXED_SITES, magic=0x4F4E414E, minor=1, flags=3, reserved=b"reserved"),
        clog_file(MIXED_ENTRIES[:1], MIXED_SITES, marker=0x04030201),
        clog_file(MIXED_ENTRIES[:1], MIXED_SITES, dictionary=63),
        clog_head(dictionary=64)
        + struct.pack("<4I", 0x4C564C53, 1, 99, 0)
        + struct.pack("<BBH", 9, 32, 5)
        + bytes(32)
        + clog_sections([]),
    ]


SMALL_FILES["clog"] = small_clogs()


def big_clog(shift: int) -> bytes:
    """About 70 KB; the first entry is as much longer as is asked for."""
    entries = [clog_entry(3, struct.pack("<I", shift) + b"x" * shift)]
    entries += [
        entry
        for turn in range(45)
        for entry in (*MIXED_ENTRIES[:6], clog_entry(3, struct.pack("<I", 1400) + bytes(1400)))
    ]
    return clog_file(entries, MIXED_SITES)


HOSTILE["clog"] = [
    clog_file([], [], count=2**32 - 1),
    clog_file([], [], dictionary=2**64 - 1),
    clog_file([], [])[:-12] + b"\xff" * 8 + bytes(4),
    clog_file([clog_entry(0, struct.pack("<I", 2**32 - 1))], [clog_site(0, b"%s", "STRING")]),
    clog_file([clog_entry(0, b"\xff" * 60_000)] * 16, [clog_site(0, b"%s" * 50, *["STRING"] * 50)]),
    clog_file([clog_entry(0, bytes(65_535))] * 15, [clog_site(0, b"%d" * 50, *["INT32"] * 50)]),
    clog_file([clog_entry(7)] * 8_000, [clog_site(0, b"")]),
    clog_head() + b"\xff" * 100_000,
    clog_head() + b"TCID" * 20_000,  # so many starts of a dictionary to look for
    clog_head() + struct.pack("<4I", 0x44494354, 0, 16, 0) * 8_000,
    clog_file([], [clog_site(number, b"%d", "INT32") for number in range(4_000)]),
]
KILLED["clog"] = Killed(
    """
writer = mf.ClogWriter(path)
site = writer.site(0, "a.c", 1, "%d of %s", ["INT32", "STRING"])
def write(number):
    writer.log(site, number, "many", timestamp=number)
""",
    mf.LogEntry,
    "timestamp",
)
BIG["clog"] = big_clog
STEPPED_OVER["clog"] = [("unsupported-version", "version_major")]


def rebuild_clog(spans: List[mf.Span], data: bytes) -> Tuple[Any, List[Any]]:
    """Header and entries from the lines of explain."""
    header = {span.path: span.value for span in spans[:12] if span.type != "unread"}
    order = "little" if int.from_bytes(data[36:40], "little") == header.get("endianness") else "big"
    entries: Dict[str, Dict[str, mf.Span]] = {}
    for span in spans:
        if span.path.startswith("entries[") and span.type != "unread":
            number, _, name = span.path.partition(".")
            entries.setdefault(number, {})[name] = span
    last = spans[-1]
    if last.type == "unread":
        entries.pop(last.path.partition(".")[0], None)
    records = []
    for fields in entries.values():
        numbers = {int(name[5 : name.index("]")]) for name in fields if name.startswith("args[")}
        encoding = fields["data_length"].note.split("; ")[1]
        values = [*fields.values()]
        own = data[values[0].offset : values[-1].offset + values[-1].size]
        records.append(
            mf.LogEntry(
                fields["log_id"].value,  # type: ignore[arg-type]
                fields["timestamp"].value if "timestamp" in fields else None,  # type: ignore[arg-type]
                tuple([fields[f"args[{n}]"].value if f"args[{n}]" in fields else "" for n in sorted(numbers)]),  # type: ignore[misc]
                encoding,
                any("sign of a large" in span.note for span in values),
                fields["data"].value if "data" in fields else b"",  # type: ignore[arg-type]
                own if encoding == "packed" and order == "big" else b"",
            )
        )
    return mf.ClogHeader(order, *header.values()) if len(header) == 12 else None, records  # type: ignore[arg-type]


REBUILD["clog"] = rebuild_clog


# What the real programs wrote, and what theirs say it is.


def expected_argument(value: object) -> object:
    """An argument as the recordings' README writes it."""
    if isinstance(value, float) and not abs(value) < float("inf"):
        return {"bits": f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016x}"}
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogateescape")
        return value if raw.decode("utf-8", "replace") == value else {"hex": raw.hex()}
    return value


@pytest.mark.skipif(not recordings("clog"), reason="the recordings are not here")
@pytest.mark.parametrize("vector", [v for v in VECTORS if v.id.startswith("clog/recorded/")], ids=lambda v: v.id)
def test_clog_recorded_vectors_are_the_recordings(vector: Vector) -> None:
    path = RECORDINGS / "clog" / vector.about["source"].get("file", vector.id.split("/")[-1] + ".clog")
    assert vector.data == path.read_bytes()


@each_log
def test_clog_recording(path: Path) -> None:
    wanted = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    with mf.ClogReader(path, recover=True) as reader:
        entries = [*reader]
    header = reader.header
    assert {**header._asdict(), "reserved": header.reserved.hex()} == wanted["header"]
    assert header.has_timestamps == wanted["has_timestamps"]
    assert reader.max_args == wanted["max_args"]
    levels = [{"level": level, "name": expected_argument(name)} for level, name in reader.levels]
    assert levels == (wanted["levels"] or [])
    sites = [
        {
            "log_id": log_id,
            "level": site.log_level,
            "num_args": len(site.arg_types),
            "line": site.line_number,
            "filename": expected_argument(site.filename),
            "format": expected_argument(site.format),
            "arg_types": [*site.arg_types],
        }
        for log_id, site in enumerate(reader.sites)
    ]
    assert sites == (wanted["dictionary"] or [])
    assert len(entries) == len(wanted["entries"])
    for entry, one in zip(entries, wanted["entries"]):
        assert (entry.log_id, entry.timestamp, entry.encoding) == (one["log_id"], one["timestamp"], one["encoding"])
        assert entry.sign_lost == one.get("sign_lost", False)
        if "data" in one:
            assert entry.data.hex() == one["data"]
        else:
            assert json.dumps([expected_argument(arg) for arg in entry.args]) == json.dumps(one["args"])


@each_log
def test_clog_text_like_upstream(path: Path) -> None:
    wanted = path.with_suffix(".expected.txt")
    if wanted.exists():
        run = convert(path, "--like-upstream")
        assert run.out == wanted.read_bytes()
        assert run.code == (path.stem == "drainloss_v107")


class Lines(NamedTuple):
    """What ``convert`` did; its text may hold any bytes."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "surrogateescape")


def convert(path: object, *options: str) -> Lines:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        return Lines(*cli("convert", path, "--to", "text", *options))


def edited(case: Json, folder: Path) -> Path:
    """The input of a command line of cli.expected.json, made by its rule."""
    data = bytearray((folder / case["file"]["from"]).read_bytes())
    edits = case["file"]["edit"]
    for edit in edits if isinstance(edits, list) else [edits]:
        if "keep_first" in edit:
            del data[edit["keep_first"] :]
        elif "append_hex" in edit:
            data += bytes.fromhex(edit["append_hex"])
        else:
            piece = bytes.fromhex(edit["hex"])
            data[edit["at"] : edit["at"] + len(piece)] = piece
    return Path(data.hex())


def test_clog_command_lines(tmp_path: Path) -> None:
    folder = Path(__file__).parent.parent / "shared" / "recordings" / "clog"
    if not folder.exists():
        folder = Path(__file__).parent / "shared" / "recordings" / "clog"
    if not folder.exists():
        pytest.skip("no recordings here")
    # What v1.0.7 refuses and other releases print: --like-upstream prints it as those do.
    others = {"be_raw_s390x.clog", "kinds_v100.clog", "kinds_v104.clog", "raw_cf11e5c.clog"}
    done = 0
    for case in json.loads((folder / "cli.expected.json").read_text(encoding="utf-8"))["cases"]:
        *arguments, name = case["args"] or [""]
        if not name.endswith(".clog") or name in (*others, "missing.clog"):
            continue
        path = folder / name
        if "file" in case:
            path = tmp_path / name
            path.write_bytes(bytes.fromhex(edited(case, folder).name))
        names = {"-f": "--pattern", "--format": "--pattern", "-l": "--level", "--level": "--level"}
        options = [f"{names[key]}={value}" for key, value in zip(arguments[0::2], arguments[1::2])]
        run = convert(path, "--like-upstream", *options)
        assert (run.out.decode(), run.code) == (case["stdout"], 1 if case["exit"] else 0), case["args"]
        assert run.err.count("unknown level") == case.get("unknown_level_warnings", 0)
        done += 1
    assert done == 36


# 4. Arguments: the bytes of clog 4.2 and 4.3.


PACKED = [
    ("INT32", "0100", 0),
    ("INT32", "0901", -1),
    ("INT32", "0a0001", -256),
    ("INT32", "0cffffff7f", -2147483647),
    ("INT32", "0c00000080", -(1 << 31)),
    ("INT32", "04ffffff7f", (1 << 31) - 1),
    ("INT32", "03000001", 65536),
    ("INT64", "07ffffffffffffff", (1 << 56) - 1),
    ("INT64", "0fffffffffffffff", 1 - (1 << 56)),
    ("INT64", "080000000000000080", -(1 << 63)),
    ("INT64", "050000000001", 1 << 32),
    ("UINT32", "0400000080", 1 << 31),
    ("UINT64", "08ffffffffffffffff", (1 << 64) - 1),
    ("UINT64", "06010000000001", (1 << 40) + 1),
    ("POINTER", "0100", 0),
    ("CHAR", "015a", 0x5A),
    ("DOUBLE", "08000000000000f0bf", -1.0),
]


@pytest.mark.parametrize(("type", "data", "value"), PACKED)
def test_clog_packed_argument(type: str, data: str, value: float) -> None:
    record = one_argument(type, bytes.fromhex(data))
    assert (record.args, record.encoding, record.sign_lost) == ((value,), "packed", False)
    file = io.BytesIO()
    with mf.ClogWriter(file) as writer:
        site = writer.site(0, "a.c", 7, "%d", (type,))
        if value == -(1 << 63):
            writer.write(mf.LogEntry(site, 1000, (value,)))
        else:
            writer.log(site, value, timestamp=1000)
    assert file.getvalue()[64:][: 14 + len(data) // 2] == clog_entry(0, bytes.fromhex(data))


NOT_PACKED = [
    ("INT32", "09 00"),  # minus zero
    ("INT32", "02 01 00"),  # not the shortest
    ("INT32", "04 00 00 00 80"),  # 2^31
    ("INT32", "0c 01 00 00 80"),
    ("INT32", "05 00 00 00 00 01"),
    ("INT32", "11 01"),  # the spare nibble
    ("INT32", "00"),
    ("INT32", "08"),
    ("INT32", "01"),
    ("INT32", ""),
    ("INT32", "02 01"),
    ("INT32", "01 01 01"),
    ("INT64", "08 00 00 00 00 00 00 00 00"),
    ("INT64", "08 01 00 00 00 00 00 00 80"),  # 2^63 + 1
    ("INT64", "0f 00 00 00 00 00 00"),
    ("UINT32", "09 00"),
    ("UINT64", "09 00 00 00 00 00 00 00 01 01"),
    ("DOUBLE", "07 00 00 00 00 00 00"),
    ("DOUBLE", "08 00 00"),
    ("CHAR", "02 00 01"),
    ("STRING", "04 00 00 00 61"),
    ("STRING", "00 00 00"),
    ("STRING", "00 00 00 00 61"),
]


@pytest.mark.parametrize(("type", "data"), NOT_PACKED)
def test_clog_neither_layout(type: str, data: str) -> None:
    record = one_argument(type, bytes.fromhex(data))
    assert (record.args, record.encoding, record.data) == ((), "undecodable", bytes.fromhex(data))
    file = clog_file([clog_entry(0, bytes.fromhex(data))], [clog_site(0, b"%d", type)])
    found = outcome(file, "clog").problems
    assert [(p.severity, p.code, p.offset, p.where) for p in found] == [
        ("deviation", "bad-size", 78, "entries[0].data")
    ]


def test_clog_packed_strings_and_numbers() -> None:
    types = ("INT32", "INT64", "STRING")
    data = bytes.fromhex("7105ffffffffffffff04000000") + b"tail"
    sites = [clog_site(0, b"", *types), clog_site(1, b"", "STRING", "INT32"), clog_site(2, b"", "STRING", "STRING")]
    text = bytes.fromhex("010c0400000074657874")
    two = bytes.fromhex("0100000061 02000000c3bc")
    entries = [clog_entry(0, data), clog_entry(1, text), clog_entry(2, two), clog_entry(2, two[:-1] + b"\xff")]
    records = outcome(clog_file(entries, sites), "clog").records
    assert [record.args for record in records] == [
        (5, (1 << 56) - 1, "tail"),
        ("text", 12),
        ("a", "ü"),
        ("a", "\udcc3\udcff"),
    ]
    assert [record.encoding for record in records] == ["packed", "packed", "strings", "strings"]
    # The lengths of two strings: each may be wrong.
    for broken in two[:-1], two + b"x", two[:6], b"\xff" + two[1:], two[:5] + b"\xff" + two[6:]:
        (record,) = outcome(clog_file([clog_entry(2, broken)], sites), "clog").records
        assert record.encoding == "undecodable"


def test_clog_nibbles_met_before() -> None:
    """Nibbles that were met before do not make an entry packed: a number may still take more bytes than it needs."""
    sites = [clog_site(0, b"%u", "UINT32"), clog_site(1, b"%u %s", "UINT32", "STRING")]
    good, wide, less = b"\x02\x00\x01", b"\x02\xff\x00", b"\x02\x00"
    entries = [clog_entry(0, data) for data in (good, wide, good, less)]
    entries += [clog_entry(1, data + TEXT) for data in (good, wide, good, less)]
    records = outcome(clog_file(entries, sites), "clog").records
    decodable = ["packed", "undecodable", "packed", "undecodable"]
    assert [record.encoding for record in records] == decodable * 2
    assert [record.args for record in records[::2]] == [(256,), (256,), (256, "abc"), (256, "abc")]


def test_clog_hole_of_int64() -> None:
    for magnitude in 1 << 56, (1 << 63) - 1:
        record = one_argument("INT64", b"\x08" + struct.pack("<Q", magnitude))
        assert (record.args, record.sign_lost) == ((magnitude,), True)
    data = clog_file([clog_entry(0, b"\x08" + struct.pack("<Q", 1 << 60))] * 3, [clog_site(0, b"%ld", "INT64")])
    assert [(p.severity, p.code, p.times) for p in outcome(data, "clog").problems] == [("note", "lossy", 3)]
    assert outcome(data, "clog", strict=True).fault is None


def test_clog_raw_after_the_first_that_is_only_raw() -> None:
    both = bytes.fromhex("03563412")  # packed 0x123456, or raw 0x12345603 (clog 4.5)
    packed, raw = bytes.fromhex("0105"), bytes.fromhex("07000000")
    sites = [clog_site(0, b"%d", "INT32"), clog_site(1, b"%s", "STRING")]

    def encodings(*entries: bytes) -> List[Tuple[str, Any]]:
        made = clog_file([clog_entry(0, data) for data in entries], sites)
        return [(record.encoding, record.args[0]) for record in outcome(made, "clog").records]

    assert encodings(both) == [("packed", 0x123456)]
    assert encodings(both, packed, both, raw, both, packed) == [
        ("packed", 0x123456),
        ("packed", 5),
        ("packed", 0x123456),
        ("raw", 7),
        ("raw", 0x12345603),
        ("packed", 5),
    ]
    assert encodings(both, raw) == [("raw", 0x12345603), ("raw", 7)]  # as the document writes
    # A decisive entry is looked for in 64 KiB.
    filler = [clog_entry(1, struct.pack("<I", 60000) + bytes(60000))] * 2
    made = clog_file([*filler, clog_entry(0, both), clog_entry(0, raw)], sites)
    assert [record.encoding for record in outcome(made, "clog").records] == ["strings", "strings", "packed", "raw"]


def test_clog_big_endian() -> None:
    def read(type: str, data: str) -> Tuple[Any, ...]:
        record = one_argument(type, bytes.fromhex(data), ">")
        assert bool(record.raw) == (record.encoding == "packed")
        return (*record.args, record.encoding, record.sign_lost)

    assert read("INT32", "0100") == (0, "packed", False)
    assert read("INT32", "0900") == (0, "packed", False)
    assert read("INT64", "05000000ffff") == (0xFFFF << 24, "packed", False)
    assert read("INT64", "080100000000000000") == (1 << 56, "packed", True)
    assert read("UINT64", "08ff00000000000001") == ((0xFF << 56) + 1, "packed", False)
    assert read("DOUBLE", "083ff0000000000000") == (1.0, "packed", False)
    assert read("CHAR", "0141") == (65, "packed", False)
    assert read("INT32", "fffffffe") == (-2, "raw", False)
    for type, data in ("INT32", "0101"), ("UINT64", "080011111111111111"), ("DOUBLE", "0800"):
        assert one_argument(type, bytes.fromhex(data), ">").encoding == "undecodable"
    file = clog_file([clog_entry(0, b"\x01\x00", order=">")], [clog_site(0, b"", "INT32", order=">")], order=">")
    assert [(p.code, p.where) for p in outcome(file, "clog").problems] == [("lossy", "entries[0].args")]
    file = clog_file([clog_entry(0, b"\x01\x41", order=">")], [clog_site(0, b"", "CHAR", order=">")], order=">")
    assert outcome(file, "clog").problems == []


def test_clog_many_shapes_of_one_site() -> None:
    """The decoders and encoders that are kept are not without limit."""
    types = ["INT64"] * 4
    entries = []
    for turn in range(700):
        sizes = [turn % 7 + 1, turn // 7 % 7 + 1, turn // 49 % 7 + 1, turn % 5 + 1]
        entries.append(mf.LogEntry(0, turn, tuple([(1 << 8 * size) - 1 for size in sizes])))
    file = io.BytesIO()
    with mf.ClogWriter(file) as writer:
        writer.site(0, "a.c", 1, "%d %d %d %d", types)
        writer.write_all(entries)
    assert_same(outcome(file.getvalue(), "clog").records, entries)


# 2, 5, 8. The file.


def test_clog_document_dump() -> None:
    """Errata 1 and 14: the document's header is a little-endian one with the magic spelled the other way."""
    dump = bytes.fromhex(
        "4e414e4f 01000000 00ca9a3b00000000 7856341200000000 673e572700000000"
        "00000000 04030201 0000000000000000 0f270000"
    ).ljust(64, b"\0")
    read = outcome(dump, "clog")
    assert read.header == mf.ClogHeader(
        magic=0x4F4E414E,
        timestamp_frequency=10**9,
        start_timestamp=0x12345678,
        start_time_sec=660029031,
        entry_count=9999,
    )
    assert read.fault is not None
    assert place(read.fault) == ("truncated", 64, "dictionary")
    assert [(p.severity, p.code) for p in read.problems] == [("note", "bad-magic")]


def test_clog_document_entries() -> None:
    """Erratum 15: the document's entries of 22 and 27 bytes are raw."""
    raw = bytes.fromhex("2a000000e8030000"), bytes.fromhex("05000000") + b"alice" + bytes.fromhex("7b000000")
    sites = [
        clog_site(0, b"Count: %d, Total: %d", "INT32", "INT32"),
        clog_site(1, b"User: %s, ID: %d", "STRING", "INT32"),
    ]
    entries = [clog_entry(0, raw[0]), clog_entry(1, raw[1])]
    assert [len(entry) for entry in entries] == [22, 27]
    reader = mf.ClogReader(io.BytesIO(clog_file(entries, sites)))
    assert [reader.message(entry) for entry in reader] == ["Count: 42, Total: 1000", "User: alice, ID: 123"]


def test_clog_byte_order() -> None:
    good = clog_file([], [])
    swapped = good[:36] + good[39:35:-1] + good[40:]
    read = outcome(swapped, "clog")  # erratum 8: the marker alone
    assert (read.header.byte_order, read.header.endianness, read.fault) == ("little", 0x04030201, None)
    big = clog_file([], [], order=">")
    assert outcome(big, "clog").header.byte_order == "big"
    read = outcome(big[:36] + big[39:35:-1] + big[40:], "clog")
    assert (read.header.byte_order, [p.where for p in read.problems]) == ("big", ["endianness"])
    fault = outcome(good[:36] + b"\1\1\1\1" + good[40:], "clog").fault
    assert fault is not None
    assert str(fault) == "clog: offset 0x24: endianness: neither byte order: 01 01 01 01"
    for wrong in b"NONO" + good[4:], b"x":
        fault = outcome(wrong, "clog").fault
        assert fault is not None
        assert place(fault) == ("bad-magic", 0, "magic")


def test_clog_versions() -> None:
    data = clog_file(MIXED_ENTRIES, MIXED_SITES, major=2, minor=3, flags=7, reserved=b"reserved")
    read = outcome(data, "clog")
    assert isinstance(read.fault, mf.UnsupportedError)
    assert place(read.fault) == ("unsupported-version", 4, "version_major")
    recovered = outcome(data, "clog", recover=True)
    assert len(recovered.records) == len(MIXED_ENTRIES)
    assert [(p.severity, p.where) for p in recovered.problems][:4] == [
        ("fault", "version_major"),
        ("note", "version_minor"),
        ("note", "flags"),
        ("note", "reserved"),
    ]


def families() -> Iterable[Tuple[str, bytes]]:
    entry = clog_entry(0, b"\x01\x00")
    level = [struct.pack("<BBH", 10, 1, 0) + b"M"]
    old = [clog_site(0, b"%d", "INT32", room=16)]
    new = [clog_site(0, b"%d", "INT32")]
    yield "A", clog_file([entry], old, flags=0)
    yield "B", clog_file([entry], old)
    yield "B", clog_file([clog_entry(0, b"\x01\x00", None)], old, flags=0, frequency=0)
    yield "b", clog_file([entry], old, level)
    yield "C or E", clog_file([entry], new)
    yield "E", clog_file([entry], [*new, clog_site(1, b"%c", "CHAR")])
    yield "d", clog_file([entry], [*old, clog_site(1, b"%d", "INT32", "NONE", room=16)], flags=0, frequency=10**9)
    yield "D", clog_file([clog_entry(0, b"\x00\x00\x00\x01")], old, flags=0, frequency=10**9)
    yield "", clog_head() + entry


@pytest.mark.parametrize(("family", "data"), [*families()])
def test_clog_families(family: str, data: bytes, tmp_path: Path) -> None:
    reader = mf.ClogReader(io.BytesIO(data), recover=True)
    assert reader.family == family
    assert len([*reader]) == 1
    path = tmp_path / "a.clog"
    path.write_bytes(data)
    assert f"clog{', family ' + family if family else ''}, 1 record" in cli("check", path).text
    assert (f"family {family}" if family else "no dictionary") in cli("info", "--recover", path).text


def test_clog_dictionary_problems() -> None:
    def problems(*sites: bytes, levels: Sequence[bytes] = (), **fields: Any) -> List[Tuple[str, str, int]]:
        data = clog_file([], sites, levels, **fields)
        return [(p.severity, p.where, p.offset) for p in outcome(data, "clog").problems]

    assert problems(clog_site(7, b"")) == [("deviation", "sites[0].log_id", 80)]
    assert problems(clog_site(0, b"", "INT32", "NONE")) == [("note", "sites[0].arg_types", 94)]
    extra = bytearray(clog_site(0, b"", "INT32"))
    extra[14 + 5] = 3
    assert problems(bytes(extra)) == [("note", "sites[0].arg_types", 94)]
    extra[14] = 9
    data = clog_file([clog_entry(0, b"??")], [bytes(extra)])
    assert mf.ClogReader(io.BytesIO(data)).sites[0].arg_types == ("TYPE_9",)
    assert encoded(decoded(data, "clog")) == data
    many = bytearray(clog_site(0, b"", *["INT32"] * 50))
    many[5] = 51
    assert problems(bytes(many)) == [("deviation", "sites[0].num_args", 85), ("note", "sites[0].arg_types", 94)]
    long = struct.pack("<BBH", 9, 32, 5) + b"x" * 32
    assert problems(levels=[long]) == [("deviation", "levels[0].name_length", 81), ("note", "levels[0].padding", 82)]
    assert problems(count=1) == [("deviation", "entry_count", 48)]
    data = clog_file([], [clog_site(0, b"")], [struct.pack("<BBH", 9, 1, 0) + b"x"])
    broken = bytearray(data)
    broken[72] += 1
    broken[93] += 1
    assert [(p.code, p.offset) for p in outcome(bytes(broken), "clog").problems] == [("bad-size", 72), ("bad-size", 93)]
    assert encoded(decoded(bytes(broken), "clog")) == broken
    for where, at in ("level_section.num_levels", 68), ("levels[0].level", 80), ("levels[0].name", 84):
        fault = outcome(data[:at], "clog").fault
        assert fault is not None
        assert place(fault) == ("truncated", at, where)
    fault = outcome(data[:85] + b"NOPE" + data[89:], "clog").fault
    assert fault is not None
    assert place(fault) == ("bad-magic", 85, "dictionary.magic")


def test_clog_old_dictionary_of_wrong_total_size() -> None:
    """Where total_size does not tell, the record size is that by which more sites have their number."""
    for room in 16, 50:
        data = clog_file([], [clog_site(place, b"%d", "INT32", room=room) for place in range(3)])
        data = data[:72] + b"\xff" + data[73:]
        assert mf.ClogReader(io.BytesIO(data)).max_args == room


def test_clog_not_closed() -> None:
    entries = b"".join(MIXED_ENTRIES)
    data = clog_head() + entries
    read = outcome(data, "clog")
    assert isinstance(read.fault, mf.TruncatedError)
    assert place(read.fault) == ("truncated", len(data), "dictionary")
    assert {record.encoding for record in read.records} == {"unknown"}
    assert [record.data for record in read.records[1:2]] == [b"\x09\x01"]
    closed = clog_file(MIXED_ENTRIES, MIXED_SITES)
    wanted = outcome(closed, "clog").records
    with mf.ClogReader(io.BytesIO(closed)) as other:
        for given in io.BytesIO(closed), other, other.sites, [*other.sites]:
            with mf.ClogReader(io.BytesIO(data), recover=True, dictionary=given) as reader:
                document = reader.read()
            assert_same(document.records, wanted)
            again = io.BytesIO()
            mf.ClogWriter(again).write_document(document)
            assert again.getvalue() == data
    with pytest.raises(TypeError, match="LogSites"):
        mf.ClogReader(io.BytesIO(data), dictionary=[1])  # type: ignore[list-item]
    # Erratum 7: the dictionary at the end of a file that does not tell where.
    for count in 0, len(MIXED_ENTRIES):
        at_end = clog_head(count=count) + entries + clog_sections(MIXED_SITES)
        for file in io.BytesIO(at_end), Trickle(at_end, iter(lambda: 100, 0)):
            read = outcome(file, "clog")
            assert_same(read.records, wanted)
            assert ("deviation", "dictionary_offset") in [(p.severity, p.where) for p in read.problems]
        assert encoded(decoded(at_end, "clog")) == at_end
    levels = clog_sections(MIXED_SITES, [struct.pack("<BBH", 10, 1, 0) + b"M"])
    assert len(mf.ClogReader(io.BytesIO(clog_head() + entries + levels)).levels) == 1
    assert mf.ClogReader(io.BytesIO(clog_head() + entries + levels + b"x")).levels == ()


def test_clog_long_search_for_the_dictionary() -> None:
    entries = clog_entry(3, struct.pack("<I", 65531) + bytes(65531)) * 3 + clog_entry(0) * 9000
    data = clog_head() + entries + clog_sections(MIXED_SITES)
    assert len(mf.ClogReader(io.BytesIO(data)).sites) == 5
    assert {record.encoding for record in outcome(data, "clog").records} == {"strings", "none"}


def test_clog_dictionary_in_the_wrong_place() -> None:
    data = clog_file(MIXED_ENTRIES, MIXED_SITES)
    end = 64 + len(b"".join(MIXED_ENTRIES))

    def fault(offset: int, size: Optional[int] = None) -> Tuple[str, int, str]:
        made = (data[:40] + struct.pack("<Q", offset) + data[48:])[:size]
        recovered = outcome(made, "clog", recover=True)
        assert recovered.problems[-1].severity == "fault"
        assert encoded(decoded(made, "clog", recover=True)) == made
        error = outcome(made, "clog").fault
        assert error is not None
        return place(error)

    assert fault(63) == ("bad-reference", 40, "dictionary_offset")
    assert fault(70) == ("truncated", 68, "entries[0].timestamp")
    assert fault(64 + 14 + 15) == ("truncated", 92, "entries[1].data")
    assert fault(64) == ("bad-magic", 64, "dictionary.magic")
    assert fault(end, end) == ("truncated", end, "dictionary")
    assert fault(1 << 63, end) == ("truncated", end, "dictionary")
    assert fault(end, end - 1) == ("truncated", end - 22, "entries[8].data")
    assert fault(end, end + 20)[0] == "truncated"


def test_clog_bytes_after_the_dictionary() -> None:
    data = clog_file([], []) + b"trailing"
    read = outcome(data, "clog")
    assert [(p.severity, p.code, p.offset) for p in read.problems] == [("deviation", "trailing-data", 80)]
    with mf.ClogReader(io.BytesIO(data)) as reader:
        assert reader.read().tail == b"trailing"
    assert [*mf.explain(io.BytesIO(data))][-1][:5] == (80, 8, "file", "trailing", "bytes")


def test_clog_astride_a_chunk_border() -> None:
    wanted = outcome(Trickle(big_clog(0), iter(lambda: 7, 0)), "clog").records
    for shift in range(0, 250, 7):
        assert_same(outcome(big_clog(shift), "clog").records[1:], wanted[1:])


def test_clog_file_inside_another() -> None:
    """Offsets count from where the file was when it was given."""
    data = SMALL_FILES["clog"][0]
    file = io.BytesIO(b"before" + data)
    file.seek(6)
    assert_same([*mf.ClogReader(file)], outcome(data, "clog").records)


# Semantics: time and text.


def reader_of(format: bytes, *types: str, **fields: Any) -> mf.ClogReader:
    """Of a file without entries, with one site."""
    return mf.ClogReader(io.BytesIO(clog_file([], [clog_site(0, format, *types, level=99)], **fields)))


def test_clog_time() -> None:
    reader = reader_of(b"m", frequency=3, start=100, sec=10, nsec=999_999_999)
    entry = mf.LogEntry(0, 101, (), "none")
    assert reader.time_ns(entry) == 10_999_999_999 + 333_333_333
    assert reader.time_ns(entry._replace(timestamp=99)) == 10_999_999_999 - 333_333_334
    assert reader.text(entry, "%t %T %r") == "1970-01-01 00:00:11.333333332 101 0.333333333"
    assert reader.text(entry._replace(timestamp=99), "%t %r") == "1970-01-01 00:00:10.666666665 -0.333333334"
    assert reader.text(entry, "%t %r", like_upstream=True) == "1970-01-01 00:00:10.333333333 0.333333333"
    assert reader.text(entry._replace(timestamp=99), "%t", like_upstream=True).startswith("194851351721-")
    # A counter that has gone round.
    reader = reader_of(b"m", frequency=1, start=(1 << 64) - 1, sec=0, nsec=0)
    assert reader.time_ns(entry._replace(timestamp=1)) == 2_000_000_000
    assert reader.text(entry._replace(timestamp=1), "%t %r") == "1970-01-01 00:00:02.000000000 2.000000000"
    for none in reader_of(b"m", frequency=0), reader_of(b"m", frequency=0, flags=0):
        assert none.time_ns(entry) is None
        assert none.text(entry._replace(timestamp=None), "%t %T %r") == "NO-TIMESTAMP 0 -nan"


def test_clog_utc_offset() -> None:
    data = clog_file([], [clog_site(0, b"m")], sec=0, nsec=0)
    entry = mf.LogEntry(0, 1000, (), "none")
    for offset in 3600, lambda seconds: 3600 if seconds == 0 else 0:
        reader = mf.ClogReader(io.BytesIO(data), utc_offset=offset)
        assert reader.text(entry) == "[1970-01-01 01:00:00.000000000] [INFO] [a.c:7] m"


def test_clog_pattern() -> None:
    reader = reader_of(b"50%%", sec=0, nsec=0)
    entry = mf.LogEntry(0, 1000, (), "none")
    assert reader.text(entry, "%l|%f|%L|%m|%%|%q|%n|%%m|%") == "LEVEL_99|a.c|7|50%|%|%q|%n|%m|%"
    assert reader.text(entry, "") == ""
    assert reader.text(entry, "%%") == "%"
    assert reader.text(entry, "%%%m%%%l") == "%50%%LEVEL_99"
    assert reader.message(entry) == reader.message(entry, like_upstream=True) == "50%"
    stray = mf.LogEntry(9, 1000, (), "unknown", data=bytes(40))
    assert reader.text(stray, "%l %f:%L %m%%") == f"? ?:? <site 9: {'00' * 32}...>%"
    with pytest.raises(mf.FormatError, match="no such site"):
        reader.text(stray, like_upstream=True)


PRINTF: List[Tuple[str, str, Any, str]] = [
    ("%5d|%-5d|%05d|%+d|% d", "INT32", 42, "   42|42   |00042|+42| 42"),
    ("%.4d|%8.4d|%08.4d|%-8.4d|%.0d", "INT32", -42, "-0042|   -0042|   -0042|-0042   |-42"),
    ("%.0d|%d", "INT32", 0, "|0"),
    ("%x|%X|%#x|%o|%#o|%hhx|%hx", "INT32", -1, "ffffffff|FFFFFFFF|0xffffffff|37777777777|037777777777|ff|ffff"),
    ("%lx|%llx|%#010lx", "INT64", 255, "ff|ff|0x000000ff"),
    ("%#x|%#o|%#X|%8x|%08X", "UINT32", 0, "0|0|0|       0|00000000"),
    ("%u|%+u|%lu|%zu|%'u", "UINT64", (1 << 64) - 1, "|".join(["18446744073709551615"] * 4 + ["18446744073709551615"])),
    ("%u|%i|%hd", "UINT32", 70000, "70000|70000|4464"),
    ("%f|%.2f|%8.3f|%-9.1f|%+.1f|% f", "DOUBLE", 2.5, "2.500000|2.50|   2.500|2.5      |+2.5| 2.500000"),
    ("%e|%.1E|%g|%G|%#g|%08.2f", "DOUBLE", -1234.5678, "-1.234568e+03|-1.2E+03|-1234.57|-1234.57|-1234.57|-1234.57"),
    (
        "%a|%A|%.2a|%.0a|%20a",
        "DOUBLE",
        0.1,
        "0x1.999999999999ap-4|0X1.999999999999AP-4|0x1.9ap-4|0x2p-4|0x1.999999999999ap-4",
    ),
    ("%a|%.3a|%+a", "DOUBLE", 1.0, "0x1p+0|0x1.000p+0|+0x1p+0"),
    ("%.1a|%020a", "DOUBLE", -1.96875, "-0x2.0p+0|-0x00000000001.f8p+0"),
    ("%f|%05f|%F|%-6e|", "DOUBLE", float("inf"), "inf|  inf|INF|inf   |"),
    ("%f|%g|%G|%+a", "DOUBLE", struct.unpack("<d", struct.pack("<Q", 0xFFF8 << 48))[0], "-nan|-nan|-NAN|-nan"),
    ("%f|%+f", "DOUBLE", float("nan"), "nan|+nan"),
    ("%d|%x|%s|%p", "DOUBLE", -0.5, "-0.500000|-0.500000|-0.500000|-0.500000"),
    ("%s|%5s|%-5s|%.1s|%4s", "STRING", "ü\udcff", "ü\udcff|  ü\udcff|ü\udcff  |\udcc3| ü\udcff"),
    ("%d|%x|%05s", "STRING", "abc", "abc|abc|  abc"),
    ("%c|%3c|%-3c|", "INT32", 65, "A|  A|A  |"),
    ("%c", "INT32", 0xE9, "\udce9"),
    ("%c|%d|%x|%s", "CHAR", 90, "Z|90|5a|Z"),
    ("%p|%12p|%-6p|%s|%lx|%d", "POINTER", 0xABC, "0xabc|       0xabc|0xabc |0xabc|abc|2748"),
    ("%p|%8p|%s|%d", "POINTER", 0, "(nil)|   (nil)|(nil)|0"),
    ("%s|%f|%p", "INT64", -5, "-5|-5|0xfffffffffffffffb"),
    ("%q|%|100%%|%!|%5", "INT32", 1, "%q|%|100%|%!|%5"),
]


@pytest.mark.parametrize(("format", "type", "value", "wanted"), PRINTF)
def test_clog_printf(format: str, type: str, value: Any, wanted: str) -> None:
    number = wanted.count("|") + 1
    reader = reader_of(format.encode(), *[type] * number)
    assert reader.message(mf.LogEntry(0, 0, (value,) * number)) == wanted
    for piece, text in zip(format.split("|"), wanted.split("|")):  # and each on its own, which may go the quick way
        reader = reader_of(piece.encode(), type)
        assert reader.message(mf.LogEntry(0, 0, (value,))) == text


def test_clog_printf_stars() -> None:
    def message(format: str, *args: Any) -> str:
        types = [{int: "INT32", float: "DOUBLE", str: "STRING"}[type(arg)] for arg in args]
        return reader_of(format.encode(), *types).message(mf.LogEntry(0, 0, args))

    assert message("%*d|%d", 5, 42, 1) == "   42|1"
    assert message("%*d|", -5, 42) == "42   |"
    assert message("%.*f", 2, 2.5) == "2.50"
    assert message("%.*f", -1, 2.5) == "2.500000"
    assert message("%*.*f", 8, 1, 2.5) == "     2.5"
    assert message("%*d", "text", 7) == "7"
    assert message("%*d", 5) == "%*d"
    assert message("%d %d", 1) == "1 %d"
    assert message("%d", 1, 2, 3) == "1"
    assert len(message("%2000000000d", 1)) == len(message("%*d", 2_000_000_000, 1)) == 10_000
    assert message("%.f", 2.5) == "2"
    assert message("%ls %hs", "a", "b") == "a b"


@pytest.mark.parametrize(
    ("format", "wanted"),
    [
        ("%5*d %d", "%5*d 7"),
        ("%**d %d", "%**d 7"),
        ("%.1*f %d", "%.1*f 7"),
        ("%*n %d", "%*n 7"),
        ("%*% %d", "% 7"),
        ("%*q %x %d", "%*q 7 8"),
    ],
)
def test_clog_printf_of_no_conversion(format: str, wanted: str) -> None:
    """What C's grammar does not know takes no argument; ``%*%`` is a percent sign."""
    assert reader_of(format.encode(), "INT32", "INT32").message(mf.LogEntry(0, 0, (7, 8))) == wanted


def test_clog_printf_by_modifier() -> None:
    assert reader_of(b"%hhd %hd %hhu %u", *["INT32"] * 4).message(mf.LogEntry(0, 0, (300, 70000, -1, -1))) == (
        "44 4464 255 4294967295"
    )
    assert reader_of(b"%#a|%#.0a", "DOUBLE", "DOUBLE").message(mf.LogEntry(0, 0, (0.5, 0.5))) == "0x1.p-1|0x1.p-1"


def test_clog_raw_entry_makes_what_follows_raw() -> None:
    """A packed 0x123456 after a raw entry would be read as four raw bytes (clog 4.5)."""
    file = io.BytesIO()
    with mf.ClogWriter(file, frequency=1) as writer:
        large, small = writer.site(0, "a.c", 1, "%lld", ["INT64"]), writer.site(0, "a.c", 2, "%d", ["INT32"])
        assert writer.site(0, "a.c", 2, "%d", ["INT64"]) != small
        assert writer.site(0, "a.c", 2, "%d", ["INT32"]) == small
        writer.log(small, 5, timestamp=1)
        with pytest.raises(ValueError, match="look packed"):
            writer.log(small, 0x12345603, timestamp=2, raw=True)  # 03 56 34 12: three bytes, packed
        with pytest.raises(ValueError, match="not read by CNanoLog"):
            writer.log(large, -(1 << 63), timestamp=2)
        writer.log(large, -(1 << 63), timestamp=2, raw=True)
        for value in 0x123456, 0x10000, 5:
            writer.log(small, value, timestamp=3)
    entries = mf.ClogReader(io.BytesIO(file.getvalue())).read().records
    assert [entry.args for entry in entries] == [(5,), (-(1 << 63),), (0x123456,), (0x10000,), (5,)]
    assert [entry.encoding for entry in entries] == ["packed", *["raw"] * 4]


def test_clog_writer_flushes_its_header() -> None:
    file = io.BytesIO()
    writer = mf.ClogWriter(file, frequency=1)
    writer.flush()
    assert len(file.getvalue()) == 64
    assert not [*mf.ClogReader(io.BytesIO(file.getvalue()), recover=True)]
    site = writer.site(0, "a.c", 1, "%f", ["DOUBLE"])
    with pytest.raises(ValueError, match="not as large"):
        writer.log(site, 10**400, timestamp=1)
    for wrong in (0, b"a.c", 1, "x"), (0, "a.c", 1, None):
        with pytest.raises(TypeError, match="not text"):
            writer.site(*wrong)
    with pytest.raises(TypeError, match="not text"):
        writer.level(9, cast("str", None))
    writer.close()


def test_clog_memos_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More patterns of sizes than are kept, each met twice."""
    monkeypatch.setattr(mf, "_CLOG_MEMO", 4)
    values = [(1 << 8 * one, -1 << 8 * two) for one in range(6) for two in range(6)] * 2
    file = io.BytesIO()
    with mf.ClogWriter(file, frequency=1) as writer:
        site = writer.site(0, "a.c", 1, "%lld %lld", ["INT64", "INT64"])
        writer.write_all([mf.LogEntry(site, 1, pair) for pair in values])
    assert [entry.args for entry in mf.ClogReader(io.BytesIO(file.getvalue()))] == values


def test_clog_texts_are_not_kept_for_ever() -> None:
    reader = reader_of(b"%d", "INT32")
    for number in range(40):
        assert reader.text(mf.LogEntry(0, 0, (number,)), f"{number} %m") == f"{number} {number}"
    assert len(reader._texts) <= 17


UPSTREAM: List[Tuple[str, Sequence[Tuple[str, Any]], str]] = [
    ("%x %.2f %5d", [("INT32", 255), ("DOUBLE", 2.5), ("INT32", 42)], "255 2.500000 42"),
    ("%ld %lld %zu", [("INT64", 5), ("INT64", 6), ("UINT64", 7)], "5d 6ld 7u"),
    ("star[%*d] next[%d]", [("INT32", 5), ("INT32", 42)], "star[5] next[42]"),
    ("%d", [("INT32", 1), ("INT32", 2)], "1"),
    ("%d %d %d", [("INT32", 1)], "1 %d %d"),
    ("%d%% done", [("INT32", 9)], "9% done"),
    ("lone %", [("INT32", 9)], "lone 9"),
    ("lone %", [], "lone %"),
    ("%5%d", [("INT32", 9), ("INT32", 8)], "9d"),
    ("%ü", [("INT32", 9)], "9\udcbc"),
    ("%c %c", [("INT32", 65), ("CHAR", 0xE9)], "65 \udce9"),
    ("%p %p", [("POINTER", 0), ("POINTER", 0xABC)], "(nil) 0xabc"),
    ("%f %f", [("DOUBLE", float("-inf")), ("DOUBLE", float("nan"))], "-inf nan"),
    ("%d", [("STRING", "text")], "text"),
    ("a%cb", [("CHAR", 0)], "a"),
    ("%s", [("STRING", "x" * 3000)], "x" * 2047),
]


@pytest.mark.parametrize(("format", "args", "wanted"), UPSTREAM)
def test_clog_message_like_upstream(format: str, args: Sequence[Tuple[str, Any]], wanted: str) -> None:
    reader = reader_of(format.encode(), *[type for type, _ in args])
    entry = mf.LogEntry(0, 0, tuple([value for _, value in args]))
    assert reader.message(entry, like_upstream=True) == wanted


def upstream_message(data: bytes, format: bytes, *types: str, order: str = "<", first: bytes = b"") -> str:
    """Of argument bytes, after an entry that can only be raw where ``first`` is given."""
    entries = [clog_entry(1, first, order=order)] * bool(first) + [clog_entry(0, data, order=order)]
    sites = [clog_site(0, format, *types, order=order), clog_site(1, b"", "INT32", order=order)]
    reader = mf.ClogReader(io.BytesIO(clog_file(entries, sites, order=order)), recover=True)
    return reader.message([*reader][-1], like_upstream=True)


def test_clog_loose_reading_like_upstream() -> None:
    raw = struct.pack("<i", -7)
    hole = b"\x08" + struct.pack("<Q", 1 << 56)
    assert upstream_message(struct.pack("<i", 3), b"%d", "INT32", first=raw) == "0"  # raw 3 is also packed 0
    assert upstream_message(struct.pack("<i", 70000), b"%d", "INT32", first=raw) == "70000"
    assert upstream_message(hole, b"%d", "INT64") == "8"  # erratum 19
    assert upstream_message(b"\x08" + struct.pack("<Q", 1 << 63), b"%d", "INT64") == "8"
    assert upstream_message(
        b"\x81\x05" + hole[1:] + struct.pack("<I", 4) + b"tail", b"%d %d %s", "INT32", "INT64", "STRING"
    ) == ("1409 1126999418470400 il")
    assert upstream_message(b"\x0f\xff\xff\xff\xff\xff\xff\x80", b"%d", "INT32") == "1"  # as 32 bits of it
    assert upstream_message(b"\x12\x05", b"%d %d", "CHAR", "UINT32") == "\x12 %d"  # the bytes end
    assert upstream_message(b"\x05\x00\x00", b"%s", "STRING") == ""
    assert upstream_message(b"\x10", b"%d", "NONE") == "%d"
    assert upstream_message(b"\x18\x01" + bytes(8), b"%d %d", "DOUBLE", "INT32") == "0.000000 0"  # 5e-324
    loose = b"\xf8" + struct.pack("<d", 2.5) + b"\x01" + bytes(6)  # minus 1, in seven bytes; or 16 bytes of raw
    assert upstream_message(loose, b"%f %d", "DOUBLE", "INT64") == "2.500000 -1"
    swapped = struct.pack(">i", -7)
    assert upstream_message(b"\x05\xff\x00\x00\x00\x00", b"%d", "UINT64", order=">") == str(0xFF << 56)
    both = upstream_message(b"\x08" + struct.pack(">Q", 1 << 57), b"%d", "INT64", order=">", first=swapped)
    assert both == str(0x0802 << 48)  # raw, of 9 bytes the first 8


def test_clog_like_upstream_limits() -> None:
    reader = reader_of(b"%s", "STRING", sec=0, nsec=0)
    entry = mf.LogEntry(0, 1000, ("ü" * 1200,))
    message = reader.message(entry, like_upstream=True)
    assert message == "ü" * 1023 + "\udcc3"
    line = reader.text(entry, "%m%m%m", like_upstream=True)
    assert len(line.encode("utf-8", "surrogateescape")) == 4095
    assert reader.message(entry) == "ü" * 1200
    undecodable = mf.LogEntry(0, 1000, (), "undecodable", data=bytes(33))
    assert reader.message(undecodable) == f"%s <{'00' * 32}...>"


# The writer.


def test_clog_writer() -> None:
    file = io.BytesIO()
    with mf.ClogWriter(file, frequency=1_000_000, start_timestamp=1000, start_time_sec=7, start_time_nsec=8) as writer:
        writer.level(10, "METRIC")
        one = writer.site(10, "a.c", 7, "%d", ("INT32",))
        assert writer.site(10, "a.c", 7, "%d", ("INT32",)) == one
        none = writer.site(0, "a.c", 7, "none")
        writer.log(one, -256, timestamp=1000)
        writer.log(one, 3, timestamp=1001, raw=True)
        writer.flush()
        early = file.getvalue()
        writer.log(none, timestamp=1002)
    entries = [clog_entry(0, b"\x0a\x00\x01"), clog_entry(0, b"\x03\0\0\0", 1001), clog_entry(1, timestamp=1002)]
    sites = [clog_site(0, b"%d", "INT32", level=10), clog_site(1, b"none")]
    levels = [struct.pack("<BBH", 10, 6, 0) + b"METRIC"]
    assert file.getvalue() == clog_file(entries, sites, levels, sec=7, nsec=8)
    # What a writer that dies leaves behind; before that, many entries at once.
    assert early == clog_head(sec=7, nsec=8) + b"".join(entries[:2])
    assert len(outcome(early, "clog", recover=True).records) == 2


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("max_args", [16, 50])
@pytest.mark.parametrize("timestamps", [False, True])
def test_clog_writer_options(*, order: str, max_args: int, timestamps: bool) -> None:
    file = io.BytesIO()
    options = {"byte_order": order, "max_args": max_args, "timestamps": timestamps, "raw": order == "big"}
    types = ("INT32", "STRING", "DOUBLE", "CHAR", "POINTER", "UINT32", "UINT64", "INT64")
    with mf.ClogWriter(file, **options) as writer:  # type: ignore[arg-type]
        site = writer.site(0, "a.c", 7, "%d", types)
        args = (-7, "ü", 0.5, 65, 1 << 40, 5, 6, -(1 << 40))
        writer.log(site, *args, timestamp=9 if timestamps else None)
        writer.write_all([mf.LogEntry(site, 9 if timestamps else None, args, "raw")] * 3)
    reader = mf.ClogReader(io.BytesIO(file.getvalue()))
    assert reader.header.byte_order == order
    assert reader.max_args == max_args
    assert [record.args for record in reader] == [args] * 4
    assert reader.problems == []
    assert encoded(decoded(file.getvalue(), "clog")) == file.getvalue()


def test_clog_writer_refuses() -> None:
    for wrong in (
        {"byte_order": "middle"},
        {"max_args": 8},
        {"frequency": 0},
        {"start_time_nsec": 1 << 31},
        {"frequency": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
            mf.ClogWriter(io.BytesIO(), **wrong)
    file = io.BytesIO()
    writer = mf.ClogWriter(file)
    writer.level(4, "x" * 31)
    for level, name in (3, "low"), (4, "again"), (256, "high"), (5, "x" * 32):
        with pytest.raises(ValueError, match="level"):
            writer.level(level, name)
    for level in range(5, 68):
        writer.level(level, "")
    with pytest.raises(ValueError, match="64 levels"):
        writer.level(99, "one too many")
    for refused_site in (
        (0, "a.c", 1, "", ["INT32"] * 51),
        (0, "a.c", 1, "", ["NONE"]),
        (0, "a" * 65536, 1, "", []),
        (256, "a.c", 1, "", []),
        (0, "a.c", -1, "", []),
    ):
        with pytest.raises(ValueError, match=r"site|types|record|log_level|line_number"):
            writer.site(*refused_site)
    types = ("INT32", "INT64", "UINT32", "DOUBLE", "STRING", "CHAR")
    site = writer.site(0, "a.c", 1, "", types)
    good: List[Any] = [1, 2, 3, 4.0, "five", 6]
    wrong_args: List[Tuple[int, Any]] = [
        (0, 1 << 31),
        (0, -(1 << 31) - 1),
        (0, 1.5),
        (1, 1 << 56),
        (1, -(1 << 63) - 1),
        (2, -1),
        (2, 1 << 32),
        (3, "four"),
        (4, 5),
        (4, b"five"),
        (4, "x" * 65536),
        (5, 256),
        (5, "c"),
    ]
    for at, wrong_arg in wrong_args:
        with pytest.raises((ValueError, TypeError)):
            writer.log(site, *good[:at], wrong_arg, *good[at + 1 :], timestamp=1)
    for entry in (
        mf.LogEntry(site, 1, ()),
        mf.LogEntry(9, 1, ()),
        mf.LogEntry(-1, 1, ()),
        mf.LogEntry(site, None, tuple(good)),
        mf.LogEntry(site, 1 << 64, tuple(good)),
        mf.LogEntry(site, 1, tuple(good), "strings"),
        mf.LogEntry(site, 1, tuple(good), "other"),
        mf.LogEntry(site, 1, tuple(good), raw="text"),  # type: ignore[arg-type]
        mf.LogEntry(site, 1, (), "unknown", data="text"),  # type: ignore[arg-type]
        (0, 1, (), "none", False, b"", b""),
    ):
        with pytest.raises((ValueError, TypeError)):
            writer.write(entry)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no site"):
        writer.log(9, timestamp=1)
    other = mf.ClogWriter(io.BytesIO())
    other._begin(mf.ClogHeader(flags=1), {"sites": [mf.LogSite(0, "", 0, "", ("NONE",))]})
    with pytest.raises(ValueError, match="type NONE"):
        other.write(mf.LogEntry(0, 1, (5,)))
    with pytest.raises(ValueError, match="first thing"):
        writer._begin(mf.ClogHeader(), {})
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(mf.LogEntry(0, 1, tuple(good)))
    assert len(file.getvalue()) == 64 + len(clog_sections([], [])) * 2 + 64 * 4 + 31 + 64 + 3
    untimed = mf.ClogWriter(io.BytesIO(), timestamps=False)
    with pytest.raises(ValueError, match="without timestamps"):
        untimed.log(untimed.site(0, "", 0, ""), timestamp=5)
    big = mf.ClogWriter(io.BytesIO(), byte_order="big")
    with pytest.raises(ValueError, match="destroys"):
        big.write(mf.LogEntry(big.site(0, "", 0, "", ["INT32"]), 1, (5,)))


class Pipe(io.RawIOBase):
    """A file that takes bytes and cannot seek."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)

    def writable(self) -> bool:
        return True


def test_clog_writer_of_many_entries() -> None:
    file = io.BytesIO()
    with mf.ClogWriter(file) as writer:
        writer.write_all([mf.LogEntry(writer.site(0, "a.c", 7, "m"), turn, (), "none") for turn in range(2500)])
    assert [entry.timestamp for entry in mf.ClogReader(io.BytesIO(file.getvalue()))] == [*range(2500)]


def test_clog_document_needs_no_seek() -> None:
    data = SMALL_FILES["clog"][0]
    pipe = Pipe()
    with mf.ClogWriter(cast("IO[bytes]", pipe)) as writer:
        writer.write_document(mf.ClogReader(io.BytesIO(data)).read())
    assert pipe.data == data
    with pytest.raises(ValueError, match="seekable"):
        mf.ClogWriter(cast("IO[bytes]", Pipe())).write(mf.LogEntry(0, 1))


def test_clog_document_refuses() -> None:
    good = mf.LogSite(0, "a.c", 1, "")
    for header, tables in (
        (mf.ClogHeader("middle"), {}),
        (mf.ClogHeader(reserved=b""), {}),
        (mf.ClogHeader(entry_count=1 << 32), {}),
        (mf.ClogHeader(), {"max_args": 8}),
        (mf.ClogHeader(), {"sites": [1]}),
        (mf.ClogHeader(), {"sites": [good], "levels": [good]}),
    ):
        file = io.BytesIO()
        with mf.ClogWriter(file) as writer, pytest.raises((ValueError, TypeError)):
            writer._begin(header, tables)
        assert file.getvalue() == b""
    for site, level in (good._replace(arg_types=("WORD",)), mf.LogLevel(9, "")), (good, mf.LogLevel(9, "x" * 256)):
        writer = mf.ClogWriter(io.BytesIO())
        writer._begin(mf.ClogHeader(), {"sites": [site], "levels": [level]})
        with pytest.raises(ValueError, match=r"type of argument|level name"):
            writer._end({}, b"")
    text = decoded(SMALL_FILES["clog"][0], "clog")
    for old, new in (
        ('"INT32"', '"WORD"'),
        ('"timestamp": 2000, ', ""),
        ('"dictionary_offset": 2', '"dictionary_offset": 3'),
    ):
        assert old in text
        with pytest.raises(mf.FormatError):
            encoded(text.replace(old, new))
    for wrong in "TYPE_", "TYPE_256", "TYPE_x":
        with pytest.raises(ValueError, match="type of argument"):
            mf._clog_code(wrong)


def test_clog_floats_in_json() -> None:
    nan = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
    values = [0.1, -0.0, 5e-324, float("inf"), float("-inf"), float("nan"), nan, 1e308]
    entries = [clog_entry(0, b"\x08" + struct.pack("<d", value)) for value in values]
    data = clog_file(entries, [clog_site(0, b"%f", "DOUBLE")])
    text = decoded(data, "clog")
    args = [record["args"][0] for record in json.loads(text)["records"]]
    assert repr(args) == repr(
        [0.1, -0.0, 5e-324, "Infinity", "-Infinity", "NaN", {"bits": "0x7ff8000000000001"}, 1e308]
    )
    assert encoded(text) == data
    assert encoded(text.replace("0.1", "7")) == data.replace(struct.pack("<d", 0.1), struct.pack("<d", 7.0))
    for wrong in ('{"bits": "0x1"}', '{"bits": 1}', '{"bits": "0x7ff800000000000g"}', "null", "[1]", "true", '"nan"'):
        with pytest.raises(mf.FormatError):
            encoded(text.replace("0.1", wrong))
    assert mf._from_json(float, 1, "") == 1.0
    assert mf._from_json(float, "Infinity", "") == float("inf")
    with pytest.raises(mf.FormatError):
        mf._from_json(float, 1 << 2000, "")


# The command line.


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "a.clog"
    path.write_bytes(SMALL_FILES["clog"][0])
    return path


def test_clog_convert(log: Path) -> None:
    run = convert(log)
    assert run.code == 0
    assert run.text.splitlines() == [
        "[2023-11-14 22:13:20.999999000] [INFO] [a.c:7] started",
        "[2023-11-14 22:13:21.000999000] [INFO] [a.c:7] i -1",
        "[2023-11-14 22:13:21.000499000] [METRIC] [a.c:7] abc 512 ",
        "[2023-11-14 22:13:20.999999000] [WARN] [a.c:7] abc",
        "[2023-11-14 22:13:20.999998000] [ERROR] [a.c:7] -0.500000 Z (nil) 125829120 255",
        "[2023-11-14 22:13:20.999999000] [ERROR] [a.c:7] 2.500000 \udce9 (nil) 7 9223372036854775808",
        "[2023-11-14 22:13:20.999999000] [?] [?:?] <site 77: 67617262616765>",
        "[2023-11-14 22:13:20.999999000] [INFO] [a.c:7] i -7",
        "[2023-11-14 22:13:20.999999000] [METRIC] [a.c:7] abc 5 abc",
    ]


def test_clog_convert_levels(log: Path) -> None:
    assert convert(log, "--level", "metric, Error", "--pattern", "%m").text.splitlines()[0] == "abc 512 "
    assert convert(log, "--level", "DEBUG").text == ""
    assert len(convert(log, "--level", "").text.splitlines()) == 9
    assert "no level is called 'nope'; there are: debug, error" in refused(
        "convert", log, "--to", "text", "--level", "nope", code=2
    )
    run = convert(log, "--level", "nope,WARN", "--like-upstream", "--pattern", "%l")
    assert (run.text, run.code) == ("WARN\n", 1)
    assert run.err.startswith("memformats: unknown level 'nope'\n")


def test_clog_convert_sorted(log: Path, tmp_path: Path) -> None:
    lines = convert(log, "--sort").text.splitlines()
    assert lines == sorted(convert(log).text.splitlines(), key=lambda line: line[:31])
    path = tmp_path / "crash.clog"
    path.write_bytes(clog_head() + b"".join(MIXED_ENTRIES))
    run = convert(path, "--sort")
    assert run.code == 1
    assert "not closed" in run.err
    assert len(run.text.splitlines()) == 9
    run = convert(path, "--dictionary", str(log), "--recover", "--pattern", "%m")
    assert run.code == 0
    assert run.text.splitlines()[1] == "i -1"
    assert "not closed" in run.err
    junk = tmp_path / "junk"
    junk.write_bytes(b"no log")
    for other, reason in (junk, "clog: offset 0x0: magic: not a CNanoLog file"), (path, "holds no dictionary"):
        assert refused("convert", path, "--to", "text", "--dictionary", other, code=2) == f"{other}: {reason}"


def test_clog_convert_many_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.clog"
    path.write_bytes(big_clog(0) + b"trailing")
    run = convert(path, "--pattern", "%m", "-o", str(tmp_path / "out"))
    assert run.code == 0
    assert len((tmp_path / "out").read_bytes().splitlines()) == 316
    path.write_bytes(clog_file([clog_entry(0)] * 1200, [clog_site(0, b"m")]))
    assert convert(path, "--pattern", "%m").text == "m\n" * 1200


def test_clog_convert_like_upstream_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.clog"
    level = struct.pack("<BBH", 9, 32, 0) + b"x" * 32
    for data, reason in (
        (clog_head() + MIXED_ENTRIES[0], "no dictionary"),
        (clog_file([], [], [level]), "31 bytes"),
        (clog_file([], [], major=2), "version_major: 2"),
        (clog_file([clog_entry(0)], [clog_site(0, b"m")], count=2), "no such site"),
        (clog_file([clog_entry(1)], [clog_site(0, b"m")]), "no such site"),
    ):
        path.write_bytes(data)
        run = convert(path, "--like-upstream", "--pattern", "%m")
        assert run.code == 1
        assert reason in run.err
    path.write_bytes(clog_file([clog_entry(0)] * 2, [clog_site(0, b"m")], count=1))
    assert convert(path, "--like-upstream", "--pattern", "%m").text == "m\n"


def test_clog_convert_in_local_time(log: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "XYZ-5:30")
        time.tzset()
        assert cli("convert", log, "--to", "text").out.startswith(b"[2023-11-15 03:43:20.999999000]")
    time.tzset()
    assert mf._local_offset(1 << 70) == 0


def test_convert_to_nothing_else(log: Path, tmp_path: Path) -> None:
    assert refused("convert", log, "--to", "json", code=2) == "'json': files of clog are converted to: text"
    path = tmp_path / "a.mlyze"
    with mf.MlyzeWriter(path):
        pass
    message = "'text': files of mlyze are not converted to anything yet"
    assert refused("convert", path, "--to", "text", "--dictionary", str(log), code=2) == message


def test_clog_stats(log: Path, tmp_path: Path) -> None:
    text = cli("stats", log).text
    assert "9 entries, 222 bytes in 1.001 ms from 2023-11-14T22:13:20.999998Z" in text
    assert "6 (66.7 %) are earlier than one before them" in text
    assert "METRIC" in text
    assert "opaque" in text
    numbers = json.loads(cli("stats", "--json", log).text)
    assert numbers["entries"] == 9
    assert numbers["bytes"] == sum(map(len, MIXED_ENTRIES))
    assert numbers["by_level"] == {"INFO": 3, "METRIC": 2, "ERROR": 2, "WARN": 1}
    assert numbers["encodings"] == {"none": 1, "packed": 4, "strings": 1, "unknown": 1, "raw": 2}
    assert sum(numbers["rate"]["entries"]) == 8
    assert (numbers["first_ns"], numbers["last_ns"]) == (1_700_000_000_999_998_000, 1_700_000_001_000_999_000)
    assert [use["log_id"] for use in numbers["by_site"]] == [4, 2, 1, 3, 0]
    path = tmp_path / "b.clog"
    hole = clog_entry(0, b"\x08" + struct.pack("<Q", 1 << 57))
    silent = [clog_site(0, b"%ld", "INT64"), clog_site(1, b"silent")]
    for data, words in (
        (SMALL_FILES["clog"][1], "0 entries, 0 bytes\n"),
        (clog_file([hole], silent), "whose sign the writer lost"),
        (clog_file([hole], silent), "1 site without an entry"),
        (SMALL_FILES["clog"][5], "times       none"),
        (SMALL_FILES["clog"][4], "3 entries"),
    ):
        path.write_bytes(data)
        assert words in cli("stats", path).text
        assert cli("info", path).code == 0
    path.write_bytes(clog_head() + b"".join(MIXED_ENTRIES))
    numbers = json.loads(cli("stats", "--recover", "--json", path).text)
    assert numbers["bytes"] == sum(map(len, MIXED_ENTRIES))
    assert sum(numbers["rate"]["entries"]) == 9
    assert refused("stats", "--like-upstream", log, code=2) == f"{log}: the program of clog prints no statistics"


def test_clog_info(log: Path, tmp_path: Path) -> None:
    text = cli("info", log).text
    assert "1.0, family E, little-endian" in text
    assert "9: 3 INFO, 2 METRIC, 2 ERROR, 1 WARN" in text
    assert "5 sites; levels METRIC (10)" in text
    path = tmp_path / "b.clog"
    path.write_bytes(SMALL_FILES["clog"][5])
    assert "none: the program was built without" in cli("info", path).text


def test_clog_demo(tmp_path: Path) -> None:
    assert cli("demo", tmp_path).code == 0
    path = tmp_path / "demo.clog"
    check_readings(path.read_bytes(), "clog")
    run = convert(path)
    assert run.text.splitlines()[0] == "[2025-12-06 00:00:00.000000000] [INFO] [src/main.c:21] listening on port 8080"
    assert "good clog, family C or E, 50 records, no problems" in cli("check", path).text


def test_buckets_of_what_happens() -> None:
    buckets = mf._Buckets(100, sum)
    for moment in 100, 99, 163, 164, 1000:
        buckets.happen(moment)
    assert sum(buckets.values) == 5
    assert buckets.width == 16
    assert buckets.values[0] == 2


def test_large_log_on_a_terminal() -> None:
    """The progress of a large file does not keep the reader from seeking in it."""
    data = SMALL_FILES["clog"][0]
    shown = mf._Progress(io.BytesIO(data), len(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", io.StringIO())
        with mf.ClogReader(cast("IO[bytes]", shown)) as reader:
            assert len([*reader]) == len(MIXED_ENTRIES)
        shown.close()


# ==== 9.3 prof ========================================================================================
#
# Files are built here byte by byte from the format text, apart from the module's writer.

PROF_RECORDINGS = recordings("prof")
each_capture = pytest.mark.parametrize("path", PROF_RECORDINGS, ids=lambda path: path.stem)
PROF_VERSIONS = {"A": 0x01000000, "B": 0x01020000, "C": 0x01030000, "D": 0x02000001, "E": 0x02010000}
MARK = b"ysaE"


def sized(data: bytes) -> bytes:
    return struct.pack("<H", len(data)) + data


def prof_descriptor(
    number: int, name: bytes = b"work", file: bytes = b"a.cpp", *, type: int = 1, line: int = 7, color: int = 0xFFFFECB3
) -> bytes:
    return sized(struct.pack("<IiIBBH", number, line, color, type, 1, len(name) + 1) + name + b"\0" + file + b"\0")


def prof_block(begin: int, end: int, number: int = 0, name: bytes = b"", tail: bytes = b"") -> bytes:
    return sized(struct.pack("<QQI", begin, end, number) + name + b"\0" + tail)


def prof_switch(begin: int, end: int, target: int = 8, name: bytes = b"other", wide: str = "Q") -> bytes:
    return sized(struct.pack("<QQ" + wide, begin, end, target) + name + b"\0")


def prof_value(time: int, number: int, kind: int, data: bytes, array: int = 0, variable: int = 0, **odd: int) -> bytes:
    odd = {"pad": 0, "data_size": len(data), **odd}
    fixed = struct.pack("<QQIBBHBBQ", time, time, number, 0, odd["pad"], odd["data_size"], kind, array, variable)
    return sized(fixed + data)


class ProfThread(NamedTuple):
    """A thread's section, as it will be."""

    id: int
    name: bytes = b"Main"
    switches: Sequence[bytes] = ()
    blocks: Sequence[bytes] = ()

    def section(self, wide: str) -> bytes:
        head = struct.pack("<" + wide, self.id) + sized(self.name + b"\0")
        switches = struct.pack("<I", len(self.switches)) + b"".join(self.switches)
        return head + switches + struct.pack("<I", len(self.blocks)) + b"".join(self.blocks)


def prof_head(layout: str, **fields: int) -> bytes:
    """A header by prof 1.2."""
    values = {"signature": 0x45617379, "version": PROF_VERSIONS[layout], "pid": 77, "frequency": 0, "begin": 100}
    values.update({"end": 900, "blocks": 0, "memory": 0, "descriptors": 0, "descriptors_memory": 0, "threads": 0})
    values.update({"bookmarks": 0, "padding": 0, **fields})
    start = ["signature", "version"]
    times = ["frequency", "begin", "end"]
    early = ["blocks", "memory", "descriptors", "descriptors_memory"]
    late = ["memory", "descriptors_memory", "blocks", "descriptors"]
    forms = {
        "A": ("<IIqQQIQIQ", [*start, *times, *early]),
        "B": ("<IIIqQQIQIQ", [*start, "pid", *times, *early]),
        "C": ("<IIQqQQIQIQ", [*start, "pid", *times, *early]),
        "D": ("<IIQqQQQQII", [*start, "pid", *times, *late]),
        "E": ("<IIQqQQQQIIIHH", [*start, "pid", *times, *late, "threads", "bookmarks", "padding"]),
    }
    form, names = forms[layout]
    return struct.pack(form, *[values[name] for name in names])


def prof_file(
    descriptors: Sequence[bytes] = (),
    threads: Sequence[ProfThread] = (),
    bookmarks: Sequence[bytes] = (),
    layout: str = "E",
    **fields: int,
) -> bytes:
    """A whole capture, with right counts but for those that are given."""
    records = [record for thread in threads for record in (*thread.switches, *thread.blocks)]
    counts = {
        "blocks": len(records),
        "memory": sum(len(record) - 2 for record in records),
        "descriptors": len(descriptors),
        "descriptors_memory": sum(len(one) - 2 for one in descriptors),
        "threads": len(threads),
        "bookmarks": len(bookmarks),
    }
    data = prof_head(layout, **{**counts, **fields}) + b"".join(descriptors)
    data += b"".join(thread.section("I" if layout in "AB" else "Q") for thread in threads)
    if layout == "E":
        data += MARK + b"".join(bookmarks) + MARK * bool(bookmarks)
    return data


DESCRIPTORS = [
    prof_descriptor(0),
    prof_descriptor(1, b"mark", type=0),
    prof_descriptor(2, b"speed", type=2, line=-1),
]
PROF_MIXED = [
    ProfThread(
        7,
        b"Main",
        [prof_switch(150, 160)],
        [
            prof_block(200, 300),
            prof_block(250, 250, 1),
            prof_value(260, 2, 7, struct.pack("<I", 88), variable=5),
            prof_block(120, 400, 0, b"frame"),
            prof_block(410, 420, 0, b"\xe2\x82\xac"),
            prof_block(430, 430, 1, b"", bytes(17)),
        ],
    ),
    ProfThread(9, b"", [], [prof_block(50, 99), prof_block(50, 110)]),
]
PROF_MARKS = [sized(struct.pack("<QI", 300, 0xFF00FF00) + b"here\0"), sized(struct.pack("<QI", 400, 1) + b"\0")]


def old(threads: Sequence[ProfThread]) -> List[ProfThread]:
    """The same threads with the switches of versions before 1.3.0."""
    return [thread._replace(switches=[prof_switch(150, 160, wide="I") for _ in thread.switches]) for thread in threads]


def small_profs() -> List[bytes]:
    """Files of every kind: mutations start from these."""
    return [
        prof_file(DESCRIPTORS, PROF_MIXED, PROF_MARKS),
        prof_file(),
        prof_file(DESCRIPTORS, PROF_MIXED, layout="D"),
        prof_file(DESCRIPTORS, PROF_MIXED, layout="C", frequency=3_000_000_000),
        prof_file(DESCRIPTORS[:2], old(PROF_MIXED), layout="B"),
        prof_file(DESCRIPTORS[:1], old(PROF_MIXED)[:1], layout="A", begin=0),
        prof_file([prof_descriptor(5, b"\xff", b"")], PROF_MIXED, blocks=5, memory=1, descriptors_memory=9, padding=3),
        prof_file([b"\0\0"], PROF_MIXED[1:], version=0x05000000) + b"more",
        b"Easy" + prof_file(DESCRIPTORS, PROF_MIXED)[4:] + bytes(4),
        prof_file(DESCRIPTORS, PROF_MIXED, layout="D") + b"end",
    ]


SMALL_FILES["prof"] = small_profs()
STEPPED_OVER["prof"] = []


def big_prof(shift: int) -> bytes:
    """About 70 KB; the first descriptor is as much longer as is asked for."""
    first = prof_descriptor(0, b"work" + b"x" * shift)
    thread = PROF_MIXED[0]
    long = [prof_block(500, 600, 0, b"n" * 1400)]
    return prof_file([first, *DESCRIPTORS[1:]], [thread._replace(blocks=[*thread.blocks, *long] * 45), PROF_MIXED[1]])


HOSTILE["prof"] = [
    *[prof_head(layout, blocks=2**32 - 1, descriptors=2**32 - 1) for layout in "ABCDE"],
    prof_head("E", memory=2**64 - 1, descriptors_memory=2**64 - 1, threads=2**32 - 1, bookmarks=2**16 - 1) + MARK * 2,
    prof_file([], [ProfThread(1)], blocks=2**32 - 1)[:-4] + b"\xff" * 4,
    prof_file(DESCRIPTORS, [ProfThread(1, b"", [], [prof_block(10**6 - at, 10**6 + at) for at in range(5_000)])]),
    prof_file(DESCRIPTORS, [ProfThread(number, b"") for number in range(5_000)]),
    prof_file([b"\0\0"] * 20_000),
    prof_head("E", descriptors=2**32 - 1) + b"\xff" * 100_000,
    prof_file([], [ProfThread(1, bytes(65_000), [prof_switch(1, 2, 3, bytes(65_000))] * 14)]),
]
KILLED["prof"] = Killed(
    """
writer = mf.ProfWriter(path)
work = writer.descriptor("work", "a.cpp", 1)
writer.thread(1, "Main")
def write(number):
    writer.block(number, number + 1, work, "run" * (number % 3))
""",
    mf.Block,
    "begin",
)
BIG["prof"] = big_prof


def prof_ns(ticks: int, frequency: int) -> int:
    """prof 7.1."""
    return int(float(ticks) * (1e9 / float(frequency & (2**64 - 1)))) if frequency else ticks


def rebuild_prof(spans: List[mf.Span], data: bytes) -> Rebuilt:
    """Header and records from the paths and values of an explanation."""
    found: Dict[str, Dict[str, mf.Span]] = {"": {}}
    for span in spans:
        if span.type != "unread":
            path, _, name = span.path.rpartition(".")
            found.setdefault(path, {})[name] = span
    header_values = {name: span.value for name, span in found[""].items() if name in mf.ProfHeader._fields}
    version = cast("int", header_values.get("version", 0))
    header = mf.ProfHeader(**cast("Json", header_values))
    unread = spans[-1] if spans and spans[-1].type == "unread" else None
    cut = unread.path.rpartition(".")[0] if unread else None
    frequency, capture = header.cpu_frequency, prof_ns(header.begin_time, header.cpu_frequency)

    def own(fields: Dict[str, mf.Span]) -> bytes:
        ordered = [*fields.values()]
        return data[ordered[0].offset : ordered[-1].offset + ordered[-1].size]

    def text(fields: Dict[str, mf.Span], name: str) -> Tuple[str, bool, bytes]:
        """The text, whether it ends with a NUL, and what comes after."""
        if name not in fields:
            return "", False, b""
        span = fields[name]
        whole = data[span.offset : span.offset + span.size]
        tail = fields.get(name + "_tail")
        return str(span.value), whole[-1:] == b"\0", cast("bytes", tail.value) if tail else b""

    records: List[Any] = []
    thread: Any = None
    for path, fields in found.items():
        label: Any
        values: Json = {name: span.value for name, span in fields.items()}
        kind = re.sub(r"\[\d+\]", "[]", path)
        whole = path != cut
        if kind == "descriptors[]" and whole:
            if values["size"] == 0:
                records.append(mf.Descriptor(0, type=-1, raw=bytes(2)))
                continue
            label, file = text(fields, "name"), text(fields, "file")
            room = values["size"] - 16
            plain = label[1] and file[1] and not label[2] and not file[2] and values["name_length"] <= room
            numbers: List[Any] = [values[one] for one in ("id", "line", "color", "type", "status")]
            fixed: List[Any] = [*numbers, label[0], file[0], b"" if plain else own(fields)]
            records.append(mf.Descriptor(*fixed))
        elif kind == "threads[]":
            if "switch_count" not in values:
                continue
            label = text(fields, "name")
            head = own({key: span for key, span in fields.items() if key not in ("switch_count", "block_count")})
            raw = b"" if label[1] and not label[2] else head
            thread = mf.Thread(values["thread_id"], label[0], values["switch_count"], values.get("block_count"), raw)
            records.append(thread)
        elif kind in ("threads[].context_switches[]", "threads[].blocks[]") and whole:
            begin, end = values["begin"], values["end"]
            begin_ns, end_ns = prof_ns(begin, frequency), prof_ns(end, frequency)
            blocks = kind.endswith("blocks[]")
            dropped = end_ns < capture if blocks else end_ns <= capture
            times = (begin_ns if dropped else max(begin_ns, capture), end_ns, dropped)
            if "value_id" in values:
                plain = not values["pad"] and values["data_size"] == values["size"] - 34
                numbers = [values[one] for one in ("id", "data_type", "is_array", "value_id")]
                raw = b"" if plain else own(fields)
                fixed = [thread[0], begin, end, *numbers, values.get("data", b""), *times, raw]
                records.append(mf.Value(*fixed))
            else:
                label = text(fields, "name")
                key = values["id"] if blocks else values["target_thread_id"]
                made: Any = mf.Block if blocks else mf.ContextSwitch
                raw = b"" if label[1] else own(fields)
                records.append(made(thread[0], begin, end, key, label[0], *times, label[2], raw))
        elif kind == "bookmarks[]" and whole:
            label = text(fields, "text")
            raw = b"" if label[1] and not label[2] else own(fields)
            records.append(mf.Bookmark(values["position"], values["color"], label[0], raw))
    return header if version else None, records


REBUILD["prof"] = rebuild_prof


# ---- prof: recordings


def prof_text_of(value: Any) -> str:
    """Text of an expected.json: a string, or its bytes where that is not UTF-8."""
    return bytes.fromhex(value["hex"]).decode("utf-8", "surrogateescape") if isinstance(value, dict) else str(value)


def prof_document_of(expected: Json) -> Json:
    """The decode document that the recording has to give."""
    told = ("version_string", "header_size", "begin_ns", "end_ns")
    header = {key: value for key, value in expected["header"].items() if key not in told}
    records: List[Json] = []
    tails: List[Json] = []
    for one in expected["descriptors"]:
        fields = {key: one[key] for key in ("id", "line", "color", "type", "status")}
        texts = {"name": prof_text_of(one["name"]), "file": prof_text_of(one["file"])}
        records.append({"record": "Descriptor", **fields, **texts})
    for thread in expected["threads"]:
        id, switches, blocks = thread["id"], thread["context_switches"], thread["blocks"]
        counts = {"switch_count": len(switches), "block_count": len(blocks)}
        records.append({"record": "Thread", "thread_id": id, "name": prof_text_of(thread["name"]), **counts})
        for one in (*switches, *blocks):
            fields = {key: one[key] for key in ("begin", "end", "begin_ns", "end_ns")}
            fields.update({"thread_id": id, "dropped": one.get("dropped", False)})
            if "value" in one:
                value = one["value"]
                fields.update({key: value[key] for key in ("data_type", "value_id")})
                records.append(
                    {
                        "record": "Value",
                        **fields,
                        "id": one["id"],
                        "is_array": int(value["is_array"]),
                        "data": value["raw"],
                    }
                )
                continue
            fields.update({"name": prof_text_of(one["name"]), "tail": one.get("tail", "")})
            tails += [one] * ("tail" in one)
            key = {"id": one["id"]} if "id" in one else {"target_thread_id": one["thread_id"]}
            records.append({"record": "Block" if "id" in one else "ContextSwitch", **fields, **key})
    for one in expected.get("bookmarks", ()):
        fields = {"position": one["pos"], "color": one["color"], "text": prof_text_of(one["text"])}
        records.append({"record": "Bookmark", **fields})
    return {"format": "prof", "schema": 1, "header": header, "records": records}


@each_capture
def test_prof_recording(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    read = json.loads(decoded(path.read_bytes(), "prof"))
    problems = read.pop("problems")
    assert normal(read) == normal(prof_document_of(expected))
    tails = sum("tail" in block for thread in expected["threads"] for block in thread["blocks"])
    told = {problem["where"]: problem.get("times", 1) for problem in problems}
    assert sum(times for where, times in told.items() if where.endswith("name_tail")) == tails
    more = expected["header"]["descriptors_memory_size"] != expected["check"]["descriptors_sum"]
    assert [problem["severity"] for problem in problems] == ["note"] * (bool(tails) + more)


@each_capture
def test_prof_recording_values(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    wanted = [
        block["value"]["value"] for thread in expected["threads"] for block in thread["blocks"] if "value" in block
    ]
    with mf.ProfReader(path) as reader:
        found = [record.value for record in reader if isinstance(record, mf.Value)]

    def shown(value: object) -> object:
        if isinstance(value, (list, tuple)):
            return [shown(item) for item in value]
        return str(value) if isinstance(value, float) and not abs(value) < float("inf") else value

    assert repr([shown(value) for value in found]) == repr(wanted)


def prof_tree_of(tree: mf.ProfTree) -> List[Any]:
    """The nesting as an expected.json tells it."""

    def node(index: int) -> Any:
        children = tree.children.get(index)
        return [index, [node(child) for child in children]] if children else index

    return [node(index) for index in tree.roots]


@each_capture
def test_prof_recording_nesting(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    with mf.ProfReader(path) as reader:
        header = reader.header
        ends = header.ns(header.begin_time), header.ns(header.end_time)
        assert ends == (expected["header"]["begin_ns"], expected["header"]["end_ns"])
        names = mf.ProfNames(reader.descriptors)
        trees = [*mf.prof_trees(reader)]
    assert [prof_tree_of(tree) for tree in trees] == [thread["tree"] for thread in expected["threads"]]
    for tree, thread in zip(trees, expected["threads"]):
        for block, wanted in zip(tree.blocks, thread["blocks"]):
            if not block.dropped:
                assert names.number(block) == wanted.get("runtime_id", wanted["id"])


@each_capture
def test_prof_recording_statistics(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    wanted = expected.get("upstream_statistics", [])
    with mf.ProfReader(path) as reader:
        found = mf.prof_analysis(reader)
    keys = {
        "id": "thread_id",
        **{key: key for key in ("profiled_ns", "wait_ns", "frames", "blocks", "depth", "events")},
    }
    for thread, told in zip(found.threads, wanted):
        assert {key: thread._asdict()[name] for key, name in keys.items()} == {key: told[key] for key in keys}
        uses = sorted([use for use in found.uses if use.scope == thread.thread_id], key=lambda use: use.number)
        rows = [
            (
                use.number,
                use.id,
                use.calls,
                use.total_ns,
                use.children_ns,
                use.upstream_median_ns,
                use.min_ns,
                use.max_ns,
            )
            for use in uses
        ]
        names = ("id", "descriptor", "calls", "total_ns", "children_ns", "median_ns", "min_ns", "max_ns")
        assert rows == [
            tuple([row[name] for name in names]) for row in sorted(told["blocks_by_id"], key=lambda row: row["id"])
        ]
    if wanted:
        assert len(found.threads) == len(wanted)


@each_capture
def test_prof_recording_verdict(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    accepted, _, reason = expected["upstream_2_1_0_reader"].partition(": ")
    last = cli("check", path).text.splitlines()[-1]
    assert last == (
        "  upstream's reader accepts it" if accepted == "accepted" else f"  upstream's reader refuses it: {reason}"
    )


def prof_rewritten(path: Path, **options: Any) -> bytes:
    """The records of a file written anew, with counts of the writer's own."""
    made = io.BytesIO()
    with mf.ProfReader(path) as reader:
        header = reader.header
        usual = {"version": header.version, "pid": header.pid or 0, "frequency": header.cpu_frequency}
        usual.update({"begin_time": header.begin_time, "end_time": header.end_time})
        with mf.ProfWriter(made, **{**usual, **options}) as writer:
            writer.write_all(reader)
    return made.getvalue()


@each_capture
def test_prof_writer_makes_the_recordings(path: Path) -> None:
    """Counts and sums are those of the real writers, but for the sum that the snapshot writer inflates."""
    data = bytearray(path.read_bytes())
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    if expected["header"]["descriptors_memory_size"] != expected["check"]["descriptors_sum"]:
        data[48:56] = struct.pack("<Q", expected["check"]["descriptors_sum"])
    assert prof_rewritten(path) == bytes(data)


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.id.startswith("prof/recorded/")], ids=lambda v: v.id)
def test_prof_recorded_vectors_are_the_recordings(vector: Vector) -> None:
    path = RECORDINGS / "prof" / (vector.id.split("/")[-1] + ".prof")
    if not path.exists():
        pytest.skip("the recordings are not on this machine")
    assert path.read_bytes() == vector.data
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    assert normal({**vector.about["expect"], "problems": []}) == normal(prof_document_of(expected))


# ---- prof: semantics


def capture(
    *blocks: bytes, switches: Sequence[bytes] = (), descriptors: Sequence[bytes] = DESCRIPTORS
) -> mf.ProfReader:
    """A reader of a capture of one thread."""
    return mf.ProfReader(io.BytesIO(prof_file(descriptors, [ProfThread(7, b"Main", switches, blocks)])))


NESTINGS: List[Tuple[List[Tuple[int, int]], List[Any]]] = [
    ([], []),
    ([(200, 300)], [0]),
    ([(200, 300), (100, 400)], [[1, [0]]]),
    ([(200, 300), (300, 400)], [0, 1]),  # begins where the one before ends: a sibling
    ([(200, 300), (300, 300), (300, 400)], [0, 1, 2]),  # nothing at the begin of the next: before it
    ([(310, 310), (300, 400)], [[1, [0]]]),  # nothing inside
    ([(200, 300), (200, 300)], [[1, [0]]]),  # of two alike the later is the parent
    ([(150, 400), (390, 500)], [[1, [0]]]),  # an overlap adopts what began earlier
    ([(200, 250), (260, 270), (255, 300)], [0, [2, [1]]]),
    ([(200, 250), (260, 270), (200, 300)], [[2, [0, 1]]]),
    ([(400, 300), (350, 360)], [0, 1]),  # one that ends before it begins adopts nothing, and is not adopted here
    ([(350, 360), (400, 300)], [0, 1]),
]


@pytest.mark.parametrize(("spans", "wanted"), NESTINGS)
def test_prof_nesting(spans: List[Tuple[int, int]], wanted: List[Any]) -> None:
    (tree,) = mf.prof_trees(capture(*[prof_block(begin, end) for begin, end in spans]))
    assert prof_tree_of(tree) == wanted


def test_prof_nesting_100000_deep() -> None:
    depth = 100_000
    blocks = [prof_block(10**6 - level, 10**6 + level + 1) for level in range(depth)]
    with capture(*blocks) as reader:
        (tree,) = mf.prof_trees(reader)
    assert tree.depth == depth
    assert tree.roots == [depth - 1]
    steps = [*tree.walk()]
    assert steps[0] == (True, depth - 1, 0)
    assert steps[depth - 1 : depth + 1] == [(True, 0, depth - 1), (False, 0, depth - 1)]
    assert steps[-1] == (False, depth - 1, 0)
    assert len(steps) == 2 * depth


@pytest.mark.parametrize(("levels", "refused"), [(255, False), (256, True)])
def test_prof_depth_that_upstream_takes(levels: int, *, refused: bool, tmp_path: Path) -> None:
    path = tmp_path / "deep.prof"
    blocks = [prof_block(10_000 - level, 10_000 + level + 1) for level in range(levels)]
    path.write_bytes(prof_file(DESCRIPTORS, [ProfThread(7, b"Main", [], blocks)]))
    said = cli("check", path).text.splitlines()[-1].partition("upstream's reader ")[2]
    assert said == ("refuses it: Stack depth exceeded value of 254" if refused else "accepts it")


PLAIN_BLOCK = prof_block(200, 300)
VERDICTS: List[Tuple[str, bytes, str]] = [
    (
        "signature",
        b"Easy" + prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [PLAIN_BLOCK])])[4:],
        "wrong signature",
    ),
    (
        "memory",
        prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [PLAIN_BLOCK])], memory=0),
        "Wrong memory size == 0 for 1 blocks",
    ),
    (
        "too little memory",
        prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [PLAIN_BLOCK])], memory=9),
        "memory_size",
    ),
    ("descriptors", prof_file([], [ProfThread(7, b"", [], [PLAIN_BLOCK])]), "no memory for 0 descriptors"),
    ("old order", prof_file([], [], layout="B"), "no blocks"),
    ("no descriptors", prof_file([], [ProfThread(7, b"", [], [PLAIN_BLOCK])], layout="C"), "no descriptors"),
    ("blocks", prof_file([DESCRIPTORS[0]], [ProfThread(7)], memory=1), "no blocks"),
    ("threads", prof_file([DESCRIPTORS[0]], [], blocks=1, memory=1), "no threads"),
    ("padding", prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [PLAIN_BLOCK])], padding=1), "padding is not 0"),
    ("reference", prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [prof_block(200, 300, 3)])]), "descriptor 3"),
    (
        "count",
        prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [PLAIN_BLOCK])], blocks=2),
        "Read blocks count: 1 does",
    ),
    ("mark", prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [PLAIN_BLOCK])])[:-1], "Bad threads section end mark"),
    (
        "bookmark mark",
        prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [PLAIN_BLOCK])], PROF_MARKS)[:-1],
        "bookmarks_end_mark cannot be read",
    ),
    (
        "bookmark",
        prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [PLAIN_BLOCK])], [sized(bytes(12))]),
        "a bookmark without a text",
    ),
    (
        "bookmark without NUL",
        prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [PLAIN_BLOCK])], [sized(bytes(12) + b"x")]),
        "a bookmark without its NUL",
    ),
    ("raw record", prof_file([DESCRIPTORS[0]], [ProfThread(7, b"", [], [sized(PLAIN_BLOCK[2:22] + b"x")])]), ""),
    ("value", prof_file(DESCRIPTORS, [ProfThread(7, b"", [], [prof_value(200, 2, 0, b"\1")])], PROF_MARKS), ""),
]


@pytest.mark.parametrize(("data", "reason"), [case[1:] for case in VERDICTS], ids=[case[0] for case in VERDICTS])
def test_prof_verdict(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "file.prof"
    path.write_bytes(data)
    last = cli("check", path).text.splitlines()[-1]
    if reason:
        assert last.startswith("  upstream's reader refuses it: ")
        assert reason in last
    else:
        assert last == "  upstream's reader accepts it"


def test_prof_uses() -> None:
    switches = [prof_switch(210, 220), prof_switch(240, 260), prof_switch(390, 500)]
    blocks = [
        prof_block(200, 230),
        prof_block(240, 250, 0, b"named"),
        prof_block(200, 300, 1),
        prof_block(400, 410),
        prof_block(50, 60),  # dropped
    ]
    with capture(*blocks, switches=switches) as reader:
        names = mf.ProfNames(reader.descriptors)
        (tree,) = mf.prof_trees(reader)
    found = {by: mf.prof_uses(tree, names, by) for by in ("thread", "frame", "parent")}
    named = [(use.scope, use.name, use.calls, use.total_ns, use.self_ns, use.active_ns) for use in found["thread"]]
    assert named == [(7, "mark", 1, 100, 60, 70), (7, "work", 2, 40, 40, 20), (7, "named", 1, 10, 10, 0)]
    work = found["thread"][1]
    assert (work.min_ns, work.max_ns, work.median_ns, work.average_ns, work.upstream_median_ns) == (
        10,
        30,
        20.0,
        20,
        10,
    )
    assert [(use.scope, use.name) for use in found["frame"]] == [(2, "mark"), (2, "work"), (2, "named"), (3, "work")]
    assert [(use.scope, use.name) for use in found["parent"]] == [(-1, "mark"), (-1, "work"), (2, "work"), (2, "named")]
    assert names.runtime == {"named": (3, 0)}
    with pytest.raises(ValueError, match="by is"):
        mf.prof_uses(tree, names, "file")
    totals = mf.prof_thread_use(tree, reader.descriptors)
    assert totals == mf.ProfThreadUse(7, "Main", 110, 140, 1, 4, 1, 2, 3, 1)


def test_prof_runtime_names_are_numbered_over_all_threads() -> None:
    threads = [
        ProfThread(
            1, b"", [], [prof_block(200, 300, 0, b"a"), prof_block(300, 400, 1, b"b"), prof_block(10, 20, 0, b"no")]
        ),
        ProfThread(2, b"", [], [prof_block(200, 300, 1, b"a"), prof_block(300, 400, 9)]),
    ]
    with mf.ProfReader(io.BytesIO(prof_file(DESCRIPTORS, threads))) as reader:
        found = mf.prof_analysis(reader)
    assert sorted((use.scope, use.number, use.id, use.name) for use in found.uses) == [
        (1, 3, 0, "a"),
        (1, 4, 1, "b"),
        (2, 3, 1, "a"),
        (2, 9, 9, "descriptor 9"),
    ]


def test_prof_capture_without_times() -> None:
    """Captures started over the network do not tell when they began."""
    threads = [ProfThread(7, b"", [], [prof_block(250, 300), prof_block(200, 210)])]
    for fields, wanted in ({"begin": 0, "end": 0}, (200, 300)), ({}, (100, 900)):
        found = mf.prof_analysis(mf.ProfReader(io.BytesIO(prof_file(DESCRIPTORS, threads, (), "E", **fields))))
        assert (found.begin_ns, found.end_ns) == wanted
    empty = mf.prof_analysis(mf.ProfReader(io.BytesIO(prof_file(begin=0, end=0))))
    assert (empty.begin_ns, empty.end_ns, empty.threads, empty.uses) == (0, 0, (), ())


def test_prof_duration_text() -> None:
    cases = {0: "0 ns", 999: "999 ns", 1000: "1.0 us", 1549: "1.5 us", 10**6: "1.0 ms", 12 * 10**8: "1.2 s"}
    assert {value: mf.prof_duration_text(value) for value in cases} == cases
    assert mf.prof_duration_text(1_234_567, 3) == "1.235 ms"


VALUE_TEXTS: List[Tuple[int, bytes, int, bool, str]] = [
    (0, b"\1", 0, False, "true"),
    (0, b"\0\1", 1, False, "[false, true]"),
    (1, b"A", 0, False, "A"),
    (2, b"B", 0, False, "B"),
    (6, struct.pack("<i", -5), 0, False, "-5"),
    (11, struct.pack("<d", 0.5), 0, False, "0.5"),
    (12, b"text\0more", 1, False, "text"),
    (13, b"\1\2", 0, False, "0102"),
    (6, b"\1\2", 0, False, "0102"),  # too few bytes for one
    (3, bytes(range(7)), 1, True, "[0, 1, 2, 3, 4, 5, ..., 6]"),
    (3, bytes(range(7)), 1, False, "[0, 1, 2, 3, 4, 5, 6]"),
    (3, bytes(range(6)), 1, True, "[0, 1, 2, 3, 4, 5]"),
]


@pytest.mark.parametrize(("kind", "data", "array", "short", "wanted"), VALUE_TEXTS)
def test_prof_value_text(kind: int, data: bytes, array: int, *, short: bool, wanted: str) -> None:
    value = mf.Value(1, 2, 2, 0, kind, array, 0, data)
    assert mf.prof_value_text(value, short=short) == wanted


# ---- prof: Writer


def prof_made(fill: Callable[[mf.ProfWriter], object], **options: Any) -> bytes:
    file = io.BytesIO()
    with mf.ProfWriter(file, **{"pid": 77, "begin_time": 100, "end_time": 900, **options}) as writer:
        fill(writer)
    return file.getvalue()


@pytest.mark.parametrize("layout", "ABCDE")
def test_prof_writer(layout: str) -> None:
    """All that the writer offers, against the bytes by the format text."""

    def fill(writer: mf.ProfWriter) -> None:
        assert writer.descriptor("work", "a.cpp", 7) == 0
        assert writer.descriptor("mark", "a.cpp", 7, type=0) == 1
        if layout in "CDE":
            assert writer.descriptor("speed", "a.cpp", -1, type=2) == 2
        writer.thread(7, "Main")
        writer.switch(150, 160, 8, "other")
        writer.block(200, 300, 0)
        writer.block(250, 250, 1)
        if layout in "CDE":
            writer.value(260, 2, 88, "uint32", value_id=5)
        writer.block(120, 400, 0, "frame")
        writer.thread(9)
        if layout == "E":
            writer.bookmark(300, "here", 0xFF00FF00)

    first = PROF_MIXED[0]
    blocks = [*first.blocks[: 3 if layout in "CDE" else 2], first.blocks[3]]
    threads = [first._replace(blocks=blocks), ProfThread(9, b"")]
    wanted = prof_file(
        DESCRIPTORS if layout in "CDE" else DESCRIPTORS[:2],
        threads if layout in "CDE" else old(threads),
        PROF_MARKS[:1] if layout == "E" else [],
        layout=layout,
    )
    assert prof_made(fill, version=PROF_VERSIONS[layout]) == wanted


def test_prof_writer_of_nothing() -> None:
    assert prof_made(repr) == prof_file()
    assert prof_made(lambda writer: writer.thread(7)) == prof_file([], [ProfThread(7, b"")])
    assert prof_made(repr, version=0x02000001) == prof_file(layout="D")


VALUES: List[Tuple[Any, str, int, int, bytes]] = [
    (True, "", 0, 0, b"\1"),
    (5, "", 8, 0, struct.pack("<q", 5)),
    (0.5, "", 11, 0, struct.pack("<d", 0.5)),
    ("\u20ac", "", 12, 1, b"\xe2\x82\xac\0"),
    ("a", "string", 12, 1, b"a\0"),
    ([1, 2], "uint8", 3, 1, b"\1\2"),
    ((0.5,), "float", 10, 1, struct.pack("<f", 0.5)),
    ([], "", 8, 1, b""),
]


@pytest.mark.parametrize(("value", "name", "kind", "array", "data"), VALUES)
def test_prof_writer_values(value: Any, name: str, kind: int, array: int, data: bytes) -> None:
    def fill(writer: mf.ProfWriter) -> None:
        writer.descriptor("v", "a.cpp", 7, type=2)
        writer.thread(7, "Main")
        writer.value(200, 0, value, name)

    thread = ProfThread(7, b"Main", [], [prof_value(200, 0, kind, data, array)])
    assert prof_made(fill) == prof_file([prof_descriptor(0, b"v", type=2)], [thread])


def test_prof_writer_tree() -> None:
    node = mf.ProfNode
    deep = node(4000, 4001, 0)
    for step in range(1, 200):
        deep = node(4000 - step, 4001 + step, 0, "", (deep,))
    inner = node(12_000, 13_000, 0, "b", (node(12_100, 12_100, 0),))
    roots = [
        node(10_000, 20_000, 0, "frame", (node(11_000, 12_000, 0), inner)),
        node(20_000, 21_000, 0),
    ]

    def fill(writer: mf.ProfWriter) -> None:
        writer.descriptor("work")
        writer.thread(7)
        writer.tree(deep)
        writer.tree(*roots)

    with mf.ProfReader(io.BytesIO(prof_made(fill, begin_time=0))) as reader:
        (tree,) = mf.prof_trees(reader)
    assert tree.depth == 200
    assert prof_tree_of(tree)[1:] == [[203, [200, [202, [201]]]], 204]
    wrong: List[List[mf.ProfNode]] = [
        [node(200, 300, 0, "", (node(100, 150, 0),))],  # the child ends before
        [node(200, 300, 0), node(250, 350, 0)],  # they overlap
        [node(200, 300, 0, "", (node(210, 220, 0), node(205, 206, 0)))],  # in the wrong order
        [node(200, 300, 0, "", (node(190, 250, 0), node(260, 270, 0)))],  # the first begins before its parent
    ]
    for nodes in wrong:

        def misuse(writer: mf.ProfWriter, nodes: List[mf.ProfNode] = nodes) -> None:
            writer.descriptor("work")
            writer.thread(7)
            with pytest.raises(ValueError, match="a reader puts"):
                writer.tree(*nodes)

        assert [type(record) for record in mf.ProfReader(io.BytesIO(prof_made(misuse)))] == [mf.Descriptor, mf.Thread]


def started(writer: mf.ProfWriter) -> None:
    writer.descriptor("work")
    writer.descriptor("speed", type=2)
    writer.thread(7)


MISUSES: List[Tuple[str, Callable[[mf.ProfWriter], object]]] = [
    ("stand before the first thread", lambda w: w.descriptor("late")),
    ("not the open one", lambda w: w.write(mf.Block(8, 1, 2, 0))),
    ("no descriptor of that number for a Block: 9", lambda w: w.block(1, 2, 9)),
    ("no descriptor of that number for a Block: 1", lambda w: w.block(1, 2, 1)),
    ("no descriptor of that number for a Value: 0", lambda w: w.value(1, 0, 5)),
    ("begin is not of 64 bits", lambda w: w.block(-1, 2, 0)),
    ("end is not of 64 bits", lambda w: w.block(1, 1 << 64, 0)),
    ("not an integer", lambda w: w.block(1.5, 2, 0)),  # type: ignore[arg-type]
    ("a name with a NUL", lambda w: w.block(1, 2, 0, "a\0b")),
    ("not text", lambda w: w.block(1, 2, 0, 5)),  # type: ignore[arg-type]
    ("the size of a record is not of 16 bits", lambda w: w.block(1, 2, 0, "n" * 65_536)),
    ("data_size is not of 16 bits", lambda w: w.value(1, 1, "n" * 65_536)),
    ("the size of a record is not of 16 bits", lambda w: w.value(1, 1, "n" * 65_530)),
    ("not uint8: 256", lambda w: w.value(1, 1, 256, "uint8")),
    ("not float: '?'|text is not", lambda w: w.value(1, 1, "?", "float")),
    ("not a value of a known type", lambda w: w.value(1, 1, None)),
    ("not a value of a known type", lambda w: w.value(1, 1, 5, "number")),
    ("name_size is not of 16 bits", lambda w: w.thread(8, "n" * 70_000)),
    ("thread_id is not of 64 bits", lambda w: w.thread(1 << 64)),
    ("not a record of prof", lambda w: w.write(mf.Free(1, 2))),  # type: ignore[arg-type]
    ("the size of a record is not of 16 bits", lambda w: w.bookmark(1, "n" * 65_530)),
    ("position is not of 64 bits", lambda w: w.bookmark(-5)),
]


@pytest.mark.parametrize(("reason", "misuse"), MISUSES)
def test_prof_writer_misuse(reason: str, misuse: Callable[[mf.ProfWriter], object]) -> None:
    """What is refused leaves no trace."""

    def fill(writer: mf.ProfWriter) -> None:
        started(writer)
        with pytest.raises((ValueError, TypeError), match=reason):
            misuse(writer)

    assert prof_made(fill) == prof_made(started)


@pytest.mark.parametrize(
    "wrong", [mf.Block(7, -1, 2, 0), mf.Block(7, 1, 2, 0, "a\0b"), mf.Block(7, 1, 2, 0, cast("Any", 5))]
)
def test_prof_writer_misuse_among_others(wrong: mf.Block) -> None:
    good = mf.Block(7, 200, 300, 0)

    def fill(writer: mf.ProfWriter) -> None:
        started(writer)
        with pytest.raises((ValueError, TypeError)):
            writer.write_all([good, good, wrong, good])

    def wanted(writer: mf.ProfWriter) -> None:
        started(writer)
        writer.write_all([good, good])

    assert prof_made(fill) == prof_made(wanted)


def test_prof_writer_order() -> None:
    def fill(writer: mf.ProfWriter) -> None:
        with pytest.raises(ValueError, match="no thread has been started"):
            writer.block(1, 2, 0)
        started(writer)
        writer.block(200, 300, 0)
        with pytest.raises(ValueError, match="context switches stand before blocks"):
            writer.switch(1, 2)
        writer.bookmark(5)
        for late in (lambda: writer.thread(8), lambda: writer.descriptor("x"), lambda: writer.block(1, 2, 0)):
            with pytest.raises(ValueError, match=r"stand before|not the open one"):
                late()

    assert len([*mf.ProfReader(io.BytesIO(prof_made(fill)))]) == 5

    def without_marks(writer: mf.ProfWriter) -> None:
        with pytest.raises(ValueError, match=r"no bookmarks in versions before 2\.1\.0"):
            writer.bookmark(5)

    prof_made(without_marks, version=PROF_VERSIONS["D"])

    def without_values(writer: mf.ProfWriter) -> None:
        with pytest.raises(ValueError, match=r"no values in versions before 1\.3\.0"):
            writer.descriptor("speed", type=2)

    prof_made(without_values, version=PROF_VERSIONS["B"])


def test_prof_writer_options() -> None:
    for options, reason in (
        ({"version": 5}, "a version is 0.1.0 at least, not 0.0.5"),
        ({"pid": 1 << 64}, "pid is not of 64 bits"),
        ({"pid": 1 << 32, "version": PROF_VERSIONS["B"]}, "pid is not of 32 bits"),
        ({"begin_time": -1}, "begin_time is not of 64 bits"),
        ({"frequency": 1 << 63}, "cpu_frequency is not of 64 bits"),
    ):
        with pytest.raises(ValueError, match=reason):
            mf.ProfWriter(io.BytesIO(), **cast("Json", options))
    with pytest.raises(ValueError, match="the file must be seekable"), mf.ProfWriter(Pipe()) as writer:
        writer.descriptor("work")
    closed = mf.ProfWriter(io.BytesIO())
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        closed.descriptor("work")


def test_prof_writer_flush_leaves_a_readable_file() -> None:
    """Whatever has been flushed can be read with its counts, although the writer dies."""
    file = io.BytesIO()
    writer = mf.ProfWriter(file, pid=77, begin_time=100, end_time=900)
    states = []
    for step in (
        lambda: writer.descriptor("work"),
        lambda: writer.thread(7),
        lambda: writer.switch(150, 160),
        lambda: writer.block(200, 300, 0),
        lambda: writer.write_all([mf.Block(7, 300 + number, 301 + number, 0) for number in range(5000)]),
        lambda: writer.thread(8),
        lambda: writer.bookmark(5),
    ):
        step()
        writer.flush()
        with mf.ProfReader(io.BytesIO(file.getvalue()), recover=True) as reader:
            records = [*reader]
        assert reader.header.blocks_count == sum(isinstance(one, (mf.Block, mf.ContextSwitch)) for one in records)
        states.append(len(records))
    assert states == [1, 2, 3, 4, 5004, 5005, 5006]
    with mf.ProfReader(io.BytesIO(file.getvalue()[:60_000]), recover=True) as reader:
        assert len([*reader]) > 2000


def test_prof_document_refuses() -> None:
    data = SMALL_FILES["prof"][0]
    document = json.loads(decoded(data, "prof"))
    kinds = [record["record"] for record in document["records"]]
    thread = kinds.index("Thread")

    def refused_by(change: Callable[[Json], object], where: str) -> None:
        changed = copy.deepcopy(document)
        change(changed)
        with pytest.raises(mf.FormatError) as caught:
            encoded(json.dumps(changed))
        assert where in str(caught.value)

    refused_by(lambda d: d["header"].pop("pid"), "a header of version 2.1.0 has a pid")
    refused_by(lambda d: d["header"].update(version=PROF_VERSIONS["A"]), "has no")
    refused_by(lambda d: d["header"].update(pid=-1), "pid is not of 64 bits")
    refused_by(lambda d: d["records"][thread].pop("switch_count"), "switch_count")
    refused_by(lambda d: d["records"][thread].update(block_count=1), "more blocks than block_count")
    refused_by(lambda d: d["records"][thread].update(switch_count=0), "context switches stand before blocks")
    refused_by(lambda d: d["records"][thread].update(switch_count=2), "more blocks than block_count")
    writer = mf.ProfWriter(io.BytesIO())
    writer.descriptor("work")
    with pytest.raises(ValueError, match="the first thing written"):
        writer.write_document(mf.ProfReader(io.BytesIO(data)).read())


def test_prof_document_needs_no_seek() -> None:
    data = SMALL_FILES["prof"][0]
    pipe = Pipe()
    with mf.ProfWriter(pipe) as writer:
        writer.write_document(mf.ProfReader(io.BytesIO(data)).read())
    assert pipe.data == data


def test_prof_names_are_not_kept_for_ever() -> None:
    """More names than are kept, each met again."""
    names = [f"name {number}" for number in range(5000)] * 2

    def fill(writer: mf.ProfWriter) -> None:
        writer.descriptor("work")
        writer.thread(7)
        writer.write_all([mf.Block(7, 200, 300, 0, name) for name in names])

    records = [*mf.ProfReader(io.BytesIO(prof_made(fill)))]
    assert [record.name for record in records[2:] if isinstance(record, mf.Block)] == names


def test_prof_many_switches_ahead() -> None:
    """A thread tells how many blocks come, though its context switches take more than is read at a time."""
    switches = [prof_switch(150, 160)] * 7000
    data = prof_file(DESCRIPTORS, [ProfThread(7, b"", switches, [PLAIN_BLOCK] * 3)])
    assert len(data) > 3 * 65536
    for file in io.BytesIO(data), Trickle(data, itertools.repeat(5000)):
        threads = [record for record in mf.ProfReader(file) if isinstance(record, mf.Thread)]
        assert [(thread.switch_count, thread.block_count) for thread in threads] == [(7000, 3)]


# ---- prof: command line


@pytest.fixture
def demo_capture(tmp_path: Path) -> Path:
    assert cli("demo", tmp_path).code == 0
    return tmp_path / "demo.prof"


def test_prof_info(demo_capture: Path, tmp_path: Path) -> None:
    text = cli("info", demo_capture).text
    assert "  version     2.1.0, layout E\n  process     4711\n  clock       2,500,000,000 ticks per second\n" in text
    assert "  records     15 blocks, 1 event, 4 values, 1 context switch\n" in text
    assert "  threads     2: 4711 Main, 4712 Loader\n  bookmarks   1\n" in text
    path = tmp_path / "old.prof"
    threads = [ProfThread(number, b"t", [], [prof_block(10, 20, 9)]) for number in range(9)]
    path.write_bytes(prof_file([], threads, layout="A", begin=30))
    text = cli("info", path).text
    assert "version     1.0.0, layout A\n  clock       nanoseconds\n" in text
    assert "  dropped     9 records from before the capture\n" in text
    assert "threads     9: 0 t, 1 t, 2 t, 3 t, 4 t, 5 t, 6 t, 7 t, ...\n" in text
    path.write_bytes(prof_file(begin=0))
    assert "  records     0 blocks, 0 events, 0 values, 0 context switches\n" in cli("info", path).text


def test_prof_stats(demo_capture: Path, tmp_path: Path) -> None:
    lines = cli("stats", "--top", "3", demo_capture).text.splitlines()
    assert lines[0] == f"{demo_capture}: 20 blocks of 2 threads in 68.000 ms"
    assert lines[2] == "Heaviest blocks, by thread (the first 3 of 8)"
    wanted = "50.0 ms 4.0 ms 47.6 ms 4 12.5 ms 11.0 ms 17.0 ms frame (main.cpp:21) [Main]"
    assert " ".join(lines[4].split()) == wanted
    assert "Bookmarks" in lines
    one = cli("stats", "--thread", "Loader", demo_capture).text
    assert "3 blocks of 1 thread" in one
    assert "rocks.png (assets.cpp:33)\n" in one
    assert "[" not in one
    assert cli("stats", "--thread", "4712", demo_capture).text == one
    assert "no thread is 'x'; there are: 4711 Main, 4712 Loader" in refused(
        "stats", "--thread", "x", demo_capture, code=2
    )
    numbers = json.loads(cli("stats", "--json", demo_capture).text)
    assert [thread["thread_id"] for thread in numbers["threads"]] == [4711, 4712]
    assert numbers["uses"][0]["name"] == "frame"
    assert (numbers["uses"][0]["calls"], numbers["uses"][0]["total_ns"]) == (4, 50_000_000)
    path = tmp_path / "odd.prof"
    path.write_bytes(prof_file([], [ProfThread(7, b"", [], [prof_block(200, 300, 5)])]))
    assert "descriptor 5\n" in cli("stats", path).text


def test_prof_compare(demo_capture: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.prof"
    threads = [ProfThread(7, b"Main", [], [prof_block(200, 20_000_200), prof_block(30_000_000, 30_000_010, 1)])]
    other.write_bytes(prof_file([prof_descriptor(0, b"frame"), prof_descriptor(1, b"new")], threads))
    text = cli("stats", demo_capture, other).text
    assert text.splitlines()[0].startswith(f"{demo_capture} and {other}: ")
    rows = [line.split() for line in text.splitlines()]
    assert ["-30.0", "ms", "50.0", "ms", "20.0", "ms", "4", "1", "frame"] in rows
    assert ["+10", "ns", "0", "ns", "10", "ns", "0", "1", "new"] in rows
    numbers = json.loads(cli("stats", "--json", demo_capture, other).text)
    assert numbers["files"] == [str(demo_capture), str(other)]
    assert {"name": "new", "totals_ns": [0, 10], "calls": [0, 1]} in numbers["changes"]
    same = cli("stats", demo_capture, demo_capture).text
    assert "+0 ns" in same


def test_stats_of_two_files_that_do_not_compare(demo_capture: Path, sample: Path, tmp_path: Path) -> None:
    """Those of formats that differ, or cannot be compared, are told one after the other."""
    for pair in ([demo_capture, sample], [sample, demo_capture], [sample, sample]):
        told = cli("stats", *pair)
        assert told.code == 0
        assert told.text == "".join(cli("stats", path).text for path in pair)
    alone = cli("stats", demo_capture).text
    missing, broken, cut = (tmp_path / name for name in ("missing.prof", "broken.prof", "cut.prof"))
    broken.write_bytes(b"ysaE")
    cut.write_bytes(demo_capture.read_bytes()[:300])
    for other, code in (missing, 2), (broken, 1), (cut, 1):
        for pair in [demo_capture, other], [other, demo_capture]:
            run = cli("stats", *pair)
            assert (run.code, run.text) == (code, alone)
            assert re.fullmatch(rf"memformats: {re.escape(str(other))}: .*\n", run.err)
    text = cli("stats", "--recover", cut, demo_capture).text
    assert re.search(rf"^  problem     {re.escape(str(cut))}: fault truncated: ", text, re.MULTILINE)
    found = json.loads(cli("stats", "--recover", "--json", cut, demo_capture).text)
    assert [[problem["code"] for problem in problems] for problems in found["problems"]] == [["truncated"], []]
    found = json.loads(cli("stats", "--recover", "--json", cut).text)
    assert [problem["code"] for problem in found["problems"]] == ["truncated"]
    run = cli("stats", "-", cut, stdin=demo_capture.read_bytes())
    assert (run.code, run.out) == (1, b"")  # what has been read from standard input is gone
    run = cli("stats", "--thread", "Loader", demo_capture, cut, broken)
    assert (run.code, run.text) == (1, cli("stats", "--thread", "Loader", demo_capture).text)
    run = cli("stats", "--thread", "nobody", demo_capture, demo_capture)
    assert (run.code, run.out) == (2, b"")
    assert run.err == 2 * f"memformats: {demo_capture}: no thread is 'nobody'; there are: 4711 Main, 4712 Loader\n"


def test_comparison_without_notes(tmp_path: Path) -> None:
    path = tmp_path / "a.mb"
    data = dump_of(snapshot(3.0))
    path.write_bytes(data)
    plain = cli("stats", path, path).text
    path.write_bytes(data[:4] + b"\3" + data[5:])
    assert "note unsupported-version: " in cli("info", path).text
    assert cli("stats", path, path).text == plain


def test_comparison_that_cannot_be_written(demo_capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "full")

    stderr = io.StringIO()
    monkeypatch.setattr(mf, "_drop_stdout", bool)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(typing.cast("Any", Full())))
    monkeypatch.setattr(sys, "stderr", stderr)
    assert mf.main(["stats", str(demo_capture), str(demo_capture)]) == 2
    assert stderr.getvalue() == "memformats: standard output: full\n"


def test_file_that_cannot_get_its_name(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EACCES, "not allowed")

    before = {*os.listdir(tmp_path)}
    monkeypatch.setattr(os, "replace", fail)
    assert refused("decode", sample, "-o", tmp_path / "out", code=2) == f"{tmp_path / 'out'}: not allowed"
    assert {*os.listdir(tmp_path)} == before


def test_memory_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise MemoryError

    monkeypatch.setattr(mf, "_input", fail)
    assert refused("info", "a", "b", code=2) == "a, b: takes more memory than there is"
    assert refused("decode", "a", code=2) == "a: takes more memory than there is"


def test_stats_of_dumps_without_snapshots(tmp_path: Path) -> None:
    paths = [tmp_path / "a.mb", tmp_path / "b.mb", tmp_path / "c.mb"]
    for path, points in zip(paths, ([mf.Point(1.0, 2.0)], [snapshot(3.0)], [mf.Point(4.0, 5.0)])):
        path.write_bytes(dump_of(*points))
    for pair in paths[:2], paths[1:]:
        assert cli("stats", *pair).text == "".join(cli("stats", path).text for path in pair)
    page = mf.Page(64, None, b"\x80" * 65 + b"\1")  # which cannot be compared, nor counted
    paths[0].write_bytes(dump_of(snapshot(3.0, page), like_upstream=True))
    run = cli("stats", *paths[:2])
    assert (run.code, run.text) == (1, cli("stats", paths[1]).text)
    assert "more than 64 bytes" in run.err


CONVERTED = r"""
{
 "blockDescriptors": [
  {
   "color": "0xffffecb3",
   "id": 0,
   "name": "work",
   "sourceFile": "a.cpp",
   "sourceLine": 7,
   "type": 1
  },
  {
   "color": "0xffffecb3",
   "id": 1,
   "name": "mark",
   "sourceFile": "a.cpp",
   "sourceLine": 7,
   "type": 0
  },
  {
   "color": "0xffffecb3",
   "id": 2,
   "name": "speed",
   "sourceFile": "a.cpp",
   "sourceLine": -1,
   "type": 2
  },
  {
   "color": "0xffffecb3",
   "id": 3,
   "name": "frame \"1\"\u001b",
   "parentId": 0,
   "sourceFile": "a.cpp",
   "sourceLine": 7,
   "type": 1
  }
 ],
 "bookmarks": [
  {
   "color": "0xff00ff00",
   "text": "here",
   "timestamp": 300
  }
 ],
 "threads": [
  {
   "children": [
    {
     "children": [
      {
       "children": [],
       "descriptor": 2,
       "id": 1,
       "name": "speed",
       "start": 260,
       "stop": 260
      }
     ],
     "descriptor": 3,
     "id": 2,
     "name": "frame \"1\"\u001b",
     "start": 120,
     "stop": 400
    }
   ],
   "threadId": 7,
   "threadName": "Main"
  },
  {
   "children": [],
   "threadId": 9,
   "threadName": ""
  }
 ],
 "timeUnits": "ns",
 "version": "2.1.0"
}
"""


def test_prof_convert_to_json(tmp_path: Path) -> None:
    """By prof, Semantics 8: keys sorted, one space a level, colours without leading zeros."""
    blocks = [prof_value(260, 2, 7, struct.pack("<I", 88)), prof_block(120, 400, 0, b'frame "1"\x1b')]
    threads = [ProfThread(7, b"Main", [prof_switch(150, 160)], blocks), ProfThread(9, b"")]
    path = tmp_path / "file.prof"
    path.write_bytes(prof_file(DESCRIPTORS, threads, PROF_MARKS[:1]))
    assert cli("convert", "--to", "json", "--like-upstream", path).text == CONVERTED.strip()
    more = json.loads(cli("convert", "--to", "json", path).text)
    wanted = json.loads(CONVERTED)
    wanted["threads"][0]["children"][0]["children"][0]["value"] = 88
    wanted["threads"][0]["contextSwitches"] = [{"name": "other", "start": 150, "stop": 160, "targetThreadId": 8}]
    wanted["threads"][1]["contextSwitches"] = []
    assert more == wanted
    path.write_bytes(
        prof_file([b"\0\0"], [ProfThread(7, b"", [], [prof_block(200, 300, 9, b"x"), prof_block(10, 20, 0)])])
    )
    run = cli("convert", "--to", "json", "--like-upstream", path)
    assert (run.code, json.loads(run.out)["threads"][0]["children"][0]["name"]) == (0, "x")
    refusal = "easy_profiler would write nothing of this, for its reader refuses it: no memory for 1 descriptors"
    assert run.err == f"memformats: {path}: {refusal}\n"
    made = json.loads(cli("convert", "--to", "json", path).text)
    assert made["blockDescriptors"] == []
    assert [block["name"] for block in made["threads"][0]["children"]] == ["x"]


def test_prof_value_cut_in_its_data() -> None:
    data = prof_file(DESCRIPTORS, [ProfThread(7, b"", [], [prof_value(260, 2, 9, b"nine more\0")])], layout="D")
    for cut in range(1, 10):
        check_readings(data[:-cut], "prof")
        read = outcome(data[:-cut], "prof")
        assert isinstance(read.fault, mf.TruncatedError)
        assert (read.fault.offset, read.fault.where.rpartition(".")[2]) == (len(data) - 10, "data")
        assert f"{10 - cut} of 10 bytes" in read.fault.reason


def test_prof_network_message_is_told(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(bytes.fromhex("8DA1330104000000"))
    assert "a message of easy_profiler's network protocol, not a file" in refused("info", path, code=1)


# ==== 9.4 mb ==========================================================================================
#
# Files are built here byte by byte from the format text, apart from the module's writer.

MB_RECORDINGS = recordings("mb")
each_dump = pytest.mark.parametrize("path", MB_RECORDINGS, ids=lambda path: path.stem)
MB_UUID = bytes.fromhex("123e4567e89b42d3a456426614174000")
MB_ABSENT = bytes.fromhex("000080bf")


def mb_strings(*texts: bytes) -> bytes:
    return b"\1" + varint(len(texts)) + b"".join(varint(len(text)) + text for text in texts)


def mb_series(*points: bytes, id: bytes = MB_UUID, name: int = 0, color: int = 1, visible: int = 1) -> bytes:
    return id + varint(name) + varint(color) + bytes([visible]) + varint(len(points)) + b"".join(points)


def mb_list(*series: bytes) -> bytes:
    return b"\2" + varint(len(series)) + b"".join(series)


def mb_point(
    timestamp: float = 1.0, value: float = 2.0, *, name: Any = None, id: bytes = b"", meta: Any = None, bits: int = 0
) -> bytes:
    flags = (meta is not None) | (name is not None) << 1 | bool(id) << 2 | bits
    rest = (b"" if name is None else varint(name)) + id + (meta or b"")
    return struct.pack("<ddB", timestamp, value, flags) + rest


def mb_memory(*types: bytes, event: int = 0) -> bytes:
    return varint(event) + b"\1" + varint(len(types)) + b"".join(types)


def mb_type(*pages: bytes, name: int = 0, uniform: int = 0) -> bytes:
    return varint(name) + varint(uniform) + varint(len(pages)) + b"".join(pages)


def mb_page(stream: bytes, size: Optional[int] = None, share: bytes = MB_ABSENT) -> bytes:
    return (b"" if size is None else varint(size)) + share + varint(len(stream)) + stream


def mb_member(data: bytes) -> bytes:
    """One member as the application's engines write it."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15, 8)
    packed = packer.compress(data) + packer.flush()
    head = bytes.fromhex("1f8b0800000000000003")
    return head + packed + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def mb_file(body: bytes, *, version: int = 2, flags: int = 0, packed: bool = False) -> bytes:
    return b"MEMD" + struct.pack("<HH", version, flags) + (mb_member(body) if packed else body)


MB_TABLE = mb_strings(b"Main", b"#ff5733", b"GC", b"Heap", b"\xe2\x82\xac")
MB_TYPES = [
    mb_type(mb_page(b"\0\4\4", 64), mb_page(b"\x80\1\x80\2\x80\1", 4096, struct.pack("<f", 0.25)), name=3),
    mb_type(mb_page(b""), mb_page(bytes.fromhex("8004"), share=struct.pack("<f", 1.0)), name=3, uniform=4096),
    mb_type(name=4),
]
MB_POINTS = [
    mb_point(),
    mb_point(1767225600000000.0, 5e-324, id=MB_UUID),
    mb_point(name=2),
    mb_point(name=2, id=bytes(16)),
    mb_point(meta=b"\0\0"),
    mb_point(id=MB_UUID, meta=b"\3\0"),
    mb_point(name=0, id=MB_UUID, meta=mb_memory()),
    mb_point(meta=mb_memory(*MB_TYPES, event=4)),
]
MB_BODY = MB_TABLE + mb_list(mb_series(*MB_POINTS), mb_series(id=bytes(16), name=4, visible=0), mb_series(mb_point()))


def small_dumps() -> List[bytes]:
    """Files of every kind: mutations start from these."""
    nan = struct.pack("<I", 0x7FA00001)
    odd_points = [
        mb_point(float("nan"), -0.0, bits=0xF8),
        mb_point(name=9, meta=b"\x09\2"),
        mb_point(meta=b"\x80\0\0"),
        mb_point(meta=mb_memory(mb_type(mb_page(b"\2\x80", 16), mb_page(b"\1", 0x80, nan), name=7))),
        mb_point(meta=mb_memory(mb_type(mb_page(b"\x80" * 8 + b"\1", 1 << 40), mb_page(b"\0" * 130, 1 << 20)))),
        mb_point(name=1),
        mb_point(id=b"\xff" * 16),
    ]
    odd = mb_list(mb_series(visible=2)) + mb_strings(b"a", b"\xff", b"a") + mb_strings()
    return [
        mb_file(MB_BODY),
        mb_file(MB_BODY, flags=1, packed=True),
        mb_file(mb_strings() + mb_list(), flags=1, packed=True),
        mb_file(b""),
        mb_file(odd + mb_list(mb_series(*odd_points), mb_series(color=0)) + mb_list() + b"\3more", version=1),
        mb_file(MB_BODY, version=3, flags=6, packed=True),
        mb_file(mb_strings(b"a", b"long")[:-2], version=9),
        mb_file(mb_strings(b"a", b"a") + mb_list(mb_series(mb_point(id=bytes(6) + b"\x90" * 10)))),
        mb_file(MB_TABLE + mb_list(mb_series(mb_point(name=2, id=MB_UUID), mb_point(name=2, id=MB_UUID)))),
        mb_file(MB_BODY, flags=1, packed=True) + b"\0",
        mb_file(MB_BODY, flags=1),
        mb_file(MB_BODY, version=0),
    ]


SMALL_FILES["mb"] = small_dumps()
STEPPED_OVER["mb"] = [
    ("bad-compression", "body"),
    ("unsupported-version", "version"),
    ("bad-value", "series[].id"),
    ("bad-value", "series[].points[].point_id"),
]


def big_dump(shift: int) -> bytes:
    """About 70 KB; the last string is as much longer as is asked for."""
    table = mb_strings(b"Main", b"#ff5733", b"GC", b"Heap", b"\xe2\x82\xac", b"x" * (64 + shift))
    long = mb_point(meta=mb_memory(mb_type(*[mb_page(bytes(200), 1600)] * 20)))
    return mb_file(table + mb_list(mb_series(*(MB_POINTS * 90 + [long] * 8 + MB_POINTS * 20)), mb_series(name=2)))


BIG["mb"] = big_dump
HOSTILE["mb"] = [
    mb_file(b"\1" + b"\x80" * 1_000_000 + b"\1"),
    mb_file(b"\1" + varint(2**64 - 1) + varint(2**64 - 1)),
    mb_file(b"\2" + varint(2**64 - 1) + MB_UUID + b"\0\0\1" + varint(2**64 - 1)),
    mb_file(mb_list(mb_series(mb_point(meta=b"\0\1" + varint(2**64 - 1) + b"\0\0" + varint(2**64 - 1))))),
    mb_file(mb_list(mb_series(mb_point(meta=mb_memory(mb_type(mb_page(b"\xff" * 60_000, 1 << 40))))))),
    mb_file(mb_list(mb_series(mb_point(meta=mb_memory(mb_type(mb_page(varint(2**70) * 4_000, 1 << 62))))))),
    mb_file(mb_strings(*[b""] * 12_000)),
    mb_file(mb_list(*[mb_series()] * 2_000)),
    mb_file(mb_list() * 8_000),
    mb_file(bytes(30_000)),
    mb_file(b"\1" + varint(2**40) + bytes(30_000), flags=1, packed=True),  # of 250 bytes
]


def rebuild_mb(spans: List[mf.Span], data: bytes) -> Rebuilt:
    """Header and records from the paths and values of an explanation; a record has ``raw`` if it is not as written."""
    unread = spans[-1].path if spans and spans[-1].type == "unread" else ""
    spans = [span for span in spans if span.type != "unread"]
    body = unpacked(data)
    top = {span.path: span.value for span in spans if span.space == "file"}
    header = None
    if "flags" in top:
        header = mf.MbHeader(cast("int", top["version"]), cast("int", top["flags"]), body is not None)
    source = data if body is None else body
    groups: List[Tuple[str, List[mf.Span]]] = []  # by record; of a string or section too
    for span in spans:
        found = re.match(r"(series\[\d+\]\.points\[\d+\]|series\[\d+\]|strings\[\d+\]|sections\[\d+\])\.", span.path)
        if found and (not groups or groups[-1][0] != found[1]):
            groups.append((found[1], []))
        if found:
            groups[-1][1].append(span)
    strings: List[str] = []
    usual: Dict[str, int] = {}
    leading = True
    records: List[Any] = []
    end: Optional[int] = None  # of the last record

    def string(number: int) -> Optional[str]:
        return strings[number] if 0 <= number < len(strings) else None

    def number(text: Optional[str], more: int = 0) -> bytes:
        return varint(usual[text] + more) if text in usual else b"no such string"

    for path, fields in groups:
        named: Json = {span.path[len(path) + 1 :]: span.value for span in fields}
        stop = fields[-1].offset + fields[-1].size
        ends = {span.path[len(path) + 1 :]: span.offset + span.size for span in fields}
        named["bytes after"] = lambda name, ends=ends: source[ends[name] : ends[name] + 64]
        if path.startswith("strings"):
            if "text" in named or not named["length"]:
                strings.append(named.get("text", ""))
            elif not unread.startswith(path):
                strings.append("")
            continue
        if path.startswith("sections"):
            if leading and "series_count" in named:
                leading, end = False, stop
                for place, text in enumerate(strings):
                    usual.setdefault(text, place)
            continue
        begin = fields[0].offset
        large = any(span.type == "varint" and cast("int", span.value) >> 64 for span in fields)
        if ".points" not in path:
            if "point_count" not in named:
                break
            name, color = string(named["name"]) or "", string(named["color"]) or ""
            visible = named["visible"] == 1
            wanted = named["id"] + number(name) + number(color) + bytes([visible]) + varint(named["point_count"])
            raw = b"" if source[end:stop] == wanted and not large else source[end:stop]
            records.append(mf.Series(named["id"], name, color, visible, named["point_count"], raw))
            end = stop
            continue
        try:
            point, wanted = rebuild_point(named, string, number)
        except KeyError:  # a field is missing: the point is cut
            break
        raw = b"" if source[begin:stop] == wanted and not large else source[begin:stop]
        records.append(point._replace(raw=raw))
        end = stop
    return header, records


def rebuild_point(
    named: Json, string: Callable[[int], Optional[str]], number: Callable[..., bytes]
) -> Tuple[mf.Point, bytes]:
    """A point and its bytes as they should be; KeyError if it is not whole."""
    flags = named["flags"]
    name = string(named["name"]) if flags & 2 else None
    id = named["point_id"] if flags & 4 else b""
    event = types = None
    meta = b""
    if flags & 1:
        event = string(named["event"] - 1) if named["event"] else None
        meta = number(event, 1) if named["event"] else b"\0"
        if named["has_memory"] == 1:
            types = tuple(rebuild_type(named, f"page_types[{at}].", string) for at in range(named["page_type_count"]))
        meta += b"\0" if types is None else b"\1" + varint(len(types))
    for one in types or ():
        meta += number(one.name) + varint(one.uniform_page_size) + varint(len(one.pages))
        for page in one.pages:
            share = MB_ABSENT if page.occupancy is None else struct.pack("<f", page.occupancy)
            meta += mb_page(page.run_stream, None if one.uniform_page_size else page.size, share)
    wanted = struct.pack("<ddB", named["timestamp"], named["value"], flags & 7)
    wanted += (b"" if name is None else number(name)) + id + meta
    return mf.Point(named["timestamp"], named["value"], name, id, bool(flags & 1), event, types), wanted


def rebuild_type(named: Json, path: str, string: Callable[[int], Optional[str]]) -> mf.PageType:
    uniform = named[path + "uniform_page_size"]
    pages = []
    for place in range(named[path + "page_count"]):
        inner = f"{path}pages[{place}]."
        size = uniform or named[inner + "size"]
        stream = named[inner + "run_stream"] if named[inner + "rle_length"] else b""
        share = named[inner + "occupancy"]
        follows = named["bytes after"](inner + "run_stream") if stream and stream[-1] > 127 else b""
        borrowed = follows[: 1 + next(at for at, byte in enumerate(follows) if byte < 128)] if follows else b""
        pages.append(mf.Page(size, None if share == -1.0 else share, stream, borrowed))
    return mf.PageType(string(named[path + "name"]) or "", uniform, tuple(pages))


REBUILD["mb"] = rebuild_mb


def test_mb_oracle_on_small_files() -> None:
    for data in SMALL_FILES["mb"]:
        for size in range(len(data) + 1):
            check_readings(data[:size], "mb")


# ---- mb: recordings


def expected_of_dump(path: Path) -> Json:
    return cast("Json", json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8")))


def app_text(text: str) -> str:
    """Text as the application reads it (mb 1.3)."""
    read = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return read.removeprefix("\ufeff")


def app_page(page: mf.Page) -> Json:
    share = {} if page.occupancy is None else {"occupancy": page.occupancy}
    return {"size": page.size, "freeList": [list(pair) for pair in page.free_ranges], **share}


def app_type(one: mf.PageType) -> Json:
    uniform = {"uniformPageSize": one.uniform_page_size} if one.uniform_page_size else {}
    return {"name": app_text(one.name), "pages": [app_page(page) for page in one.pages], **uniform}


def app_point(point: mf.Point) -> Json:
    """A point as the application's reader gives it; an id that it makes up is None."""
    made: Json = {"timestamp": point.timestamp, "value": point.value, "pointId": point.uuid or None}
    if point.name is not None:
        made["name"] = app_text(point.name)
    if point.has_meta:
        made["meta"] = {} if point.event is None else {"event": app_text(point.event)}
        if point.page_types is not None:
            made["meta"]["memory"] = {"pageTypes": [app_type(one) for one in point.page_types]}
    return made


def app_series(records: Iterable[Any]) -> List[Json]:
    made: List[Json] = []
    for record in records:
        if isinstance(record, mf.Series):
            head = {"id": record.uuid or None, "name": app_text(record.name), "color": app_text(record.color)}
            made.append({**head, "visible": record.visible, "data": []})
        else:
            made[-1]["data"].append(app_point(record))
    return made


def as_doubles(value: Any) -> Any:
    """JSON with all numbers as doubles, also those that an expected.json has as text."""
    if isinstance(value, dict):
        return {key: as_doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_doubles(item) for item in value]
    if value in ("NaN", "Infinity", "-Infinity", "-0") or type(value) is int:
        return float(value)
    return value


@each_dump
def test_mb_recording(path: Path) -> None:
    expected = expected_of_dump(path)
    data = path.read_bytes()
    if path.stem == "doc_flags0_gzip":  # erratum 1: the application sees no gzip here, and so nothing
        expected = {**expected_of_dump(path.with_name("gzip_v0.mb")), "header": expected["header"]}
    body = unpacked(data)
    body = data[8:] if body is None else body
    assert (len(body), hashlib.sha256(body).hexdigest()) == (expected["body_size"], expected["body_sha256"])
    with mf.MbReader(path) as reader:
        document = reader.read()
        strings = reader.strings
    assert {"version": reader.header.version, "flags": reader.header.flags} == expected["header"]
    assert [app_text(text) for text in strings] == expected["strings"]
    assert repr(as_doubles(app_series(document.records))) == repr(as_doubles(expected["series"]))
    points = [record for record in document.records if isinstance(record, mf.Point)]
    flags = [flag for series in expected["point_flags"] for flag in series]
    assert [point.point_id != b"" for point in points] == [flag & 4 > 0 for flag in flags]
    assert [point.has_meta for point in points] == [flag & 1 > 0 for flag in flags]
    streams = [
        None
        if point.page_types is None
        else [[page.run_stream.hex() for page in one.pages] for one in point.page_types]
        for point in points
    ]
    assert streams == [stream for series in expected["rle"] for stream in series]
    unread = expected["unread_body_tail"]
    assert len(document.tail) == unread + (unread > 0)


def mb_document_of(expected: Json, data: bytes) -> Json:
    """The decode document that the recording has to give, but for problems, ``raw`` and ``borrowed``."""

    def double(value: Any) -> Any:
        return {"-0": -0.0}.get(value, value) if isinstance(value, str) else float(value)

    def id_of(text: Optional[str]) -> str:
        return text.replace("-", "") if text else "00" * 16

    records: List[Json] = []
    for series, flags, streams in zip(expected["series"], expected["point_flags"], expected["rle"]):
        head = {key: series[key] for key in ("name", "color", "visible")}
        records.append({"record": "Series", "id": id_of(series["id"]), **head, "point_count": len(series["data"])})
        for point, flag, types in zip(series["data"], flags, streams):
            made = {"record": "Point", "timestamp": double(point["timestamp"]), "value": double(point["value"])}
            made.update({"name": point["name"]} if "name" in point else {})
            made.update({"point_id": id_of(point["pointId"])} if flag & 4 else {})
            made.update({"has_meta": True} if "meta" in point else {})
            meta = point.get("meta", {})
            made.update({"event": meta["event"]} if "event" in meta else {})
            if "memory" in meta:
                made["page_types"] = []
            for one, hexes in zip(meta.get("memory", {}).get("pageTypes", ()), types or ()):
                pages = []
                for page, stream in zip(one["pages"], hexes):
                    share = {"occupancy": double(page["occupancy"])} if "occupancy" in page else {}
                    pages.append({"size": page["size"], **share, **({"run_stream": stream} if stream else {})})
                uniform = {"uniform_page_size": one["uniformPageSize"]} if "uniformPageSize" in one else {}
                name = {"name": one["name"]} if one["name"] else {}
                made["page_types"].append({**name, **uniform, **({"pages": pages} if pages else {})})
            records.append(made)
    header = {**expected["header"], "compressed": unpacked(data) is not None}
    tables = {"strings": expected["strings"], "series_count": len(expected["series"])}
    return {"format": "mb", "schema": 1, "header": header, **tables, "records": records}


MB_OF_OTHERS = {"strings", "sections"}  # these have text that the application changes, and records with ``raw``


@pytest.mark.parametrize(
    "path", [path for path in MB_RECORDINGS if path.stem not in MB_OF_OTHERS], ids=lambda path: path.stem
)
def test_mb_recording_document(path: Path) -> None:
    data = path.read_bytes()
    told = path.with_name("gzip_v0.mb") if path.stem == "doc_flags0_gzip" else path
    wanted = mb_document_of(expected_of_dump(told), data)
    if path.stem == "doc_flags0_gzip":
        wanted["header"] = {"version": 2, "flags": 0, "compressed": True}
    found = json.loads(decoded(data, "mb"))
    del found["problems"]
    for record in found["records"]:
        for one in record.get("page_types", ()):
            for page in one.get("pages", ()):
                assert (page.pop("borrowed", None) is None) == (path.stem != "runs" or page.get("run_stream") != "0280")
        assert ("raw" in record) == (path.stem == "numbers" and "page_types" in record)
        record.pop("raw", None)
    assert normal(found) == normal(wanted)


@pytest.mark.skipif(not MB_RECORDINGS, reason="the recordings are not here")
@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v.id.startswith("mb/recorded/")], ids=lambda vector: vector.id
)
def test_mb_recorded_vectors_are_the_recordings(vector: Vector) -> None:
    path = RECORDINGS / "mb" / (vector.id.split("/")[-1] + ".mb")
    assert vector.data == path.read_bytes()


def mb_page_type(one: Json) -> mf.PageType:
    """A type of pages of the application's JSON."""
    uniform = one.get("uniformPageSize") or 0
    pages = []
    for page in one.get("pages", ()):
        size = page.get("size") or uniform
        share = page.get("occupancy")
        stream = mf.mb_run_stream(
            size,
            bitmap=page.get("bitmap", ""),
            free_ranges=page.get("freeList"),
            occupancy=0.0 if "occupancy" in page and share is None else share,
        )
        if "occupancy" in page and share is None:
            share = 0.0
        pages.append(mf.Page(size, share, stream))
    return mf.PageType(one.get("name", ""), uniform, tuple(pages))


def mb_rewritten(series: Sequence[Json], **options: Any) -> bytes:
    """The file that our writer makes of the application's JSON, as the application would."""
    made = io.BytesIO()
    with mf.MbWriter(made, like_upstream=True, **options) as writer:
        for one in series:
            visible = one.get("visible", False)
            writer.series(one["name"], color=one.get("color", ""), visible=visible, id=one.get("id", ""))
            for point in one["data"]:
                meta = point.get("meta")
                types = None
                if meta is not None and "memory" in meta:
                    types = tuple(mb_page_type(page_type) for page_type in meta["memory"]["pageTypes"])
                id: Any = mf.MbWriter._id(writer, point["pointId"]) if point.get("pointId") else b""
                event = (meta or {}).get("event")
                writer.write(
                    mf.Point(point["timestamp"], point["value"], point.get("name"), id, meta is not None, event, types)
                )
    return made.getvalue()


@pytest.mark.parametrize("name", ["empty", "flags", "browser", "pages", "strings", "timeline"])
@pytest.mark.skipif(not MB_RECORDINGS, reason="the recordings are not here")
def test_mb_writer_makes_the_recordings(name: str) -> None:
    path = RECORDINGS / "mb" / f"{name}.mb"
    export = path.with_name(f"{name.replace('browser', 'flags')}.export.json")
    data = path.read_bytes()
    made = mb_rewritten(json.loads(export.read_text(encoding="utf-8", errors="surrogatepass")))
    assert made[:18] == data[:18]
    assert unpacked(made) == unpacked(data)
    assert (made == data) == (name in ("empty", "browser"))  # other engines deflate to other bytes
    raw = mb_rewritten(json.loads(export.read_text(encoding="utf-8")), compressed=False)
    assert raw == b"MEMD\2\0\0\0" + (unpacked(data) or b"")


# ---- mb: run streams


RUNS = [  # size, runs, free ranges, a bit for each unit; worked out by mb 2
    (24, "", [], "07"),
    (16, "02", [], "03"),
    (64, "000404", [(0, 32)], "f0"),
    (16, "00828000", [(0, 16)], "00"),
    (16, "0000010001", [(0, 0), (8, 8)], "03"),
    (16, "017f7f", [(8, 1024)], "01"),
    (16, "808080808080800102", [(2**52, 2**52 + 16)], "03"),
    (100, "0002ff0101", [(0, 16), (2056, 2064)], "fc1f"),
    (0, "00", [], ""),
]


@pytest.mark.parametrize(("size", "stream", "ranges", "bits"), RUNS, ids=[one[1] for one in RUNS])
def test_mb_run_streams(size: int, stream: str, ranges: List[Tuple[int, int]], bits: str) -> None:
    page = mf.Page(size, None, bytes.fromhex(stream))
    assert page.free_ranges == ranges
    assert page.bitmap().hex() == bits
    assert b"".join(varint(run) for run in page.runs) == bytes.fromhex(stream.replace("828000", "02"))


def test_mb_run_streams_that_have_no_end() -> None:
    page = mf.Page(16, None, b"\2\x80")
    for ask in "runs", "free_ranges":
        with pytest.raises(mf.TruncatedError) as caught:
            getattr(page, ask)
        assert (*place(caught.value), caught.value.space) == ("truncated", 2, "run_stream", "stream")
    assert page._replace(borrowed=b"\x10").free_ranges == [(16, 16 + 8 * 2048)]
    assert mf.Page(16, None, b"\x80" * 63 + b"\1").runs == (1 << 441,)
    with pytest.raises(mf.FormatError, match="more than 64 bytes"):
        mf.Page(16, None, b"\x80" * 64 + b"\1").bitmap()
    with pytest.raises(mf.FormatError, match="more than 2 bytes") as limit:
        mf.Page(136, None, b"\x11").bitmap(2)
    assert limit.value.code == "limit"
    assert mf.Page(128, None, b"\x10").bitmap(2) == b"\xff\xff"
    assert mf.Page(1 << 60, None, b"\1").runs == (1,)  # a size that is only claimed takes no room


STREAMS: List[Tuple[int, Json, str]] = [  # size, what a page tells, the stream of the application (mb 2, mb 4)
    (4096, {}, "8004"),
    (0, {}, "00"),
    (1, {}, "01"),
    (4096, {"free_ranges": []}, "8004"),
    (4096, {"free_ranges": [[0, 4096]]}, "008004"),
    (4096, {"free_ranges": [[0, 1024], [2048, 3072]]}, "008001800180018001"),
    (4096, {"free_ranges": ((1024, 3072),)}, "800180028001"),
    (100, {"free_ranges": [[50, 100]]}, "0606"),
    (100, {"free_ranges": [[4, 12]]}, "00010b"),
    (256, {"free_ranges": [[0, 128], [64, 192]]}, "002008"),
    (256, {"free_ranges": [[0, 512]]}, "0040"),
    (256, {"free_ranges": [[128, 256], [0, 64]]}, "00080810"),
    (256, {"free_ranges": [[0, 64], [64, 128]]}, "001010"),
    (256, {"free_ranges": [[64, 32], [64, 128]]}, "0c0810"),
    (256, {"free_ranges": [["a", 8], [8], 7, [True, 8], None, [8.0, 16.5, 3]]}, "01011e"),
    (1 << 20, {"free_ranges": [[1 << 18, 1 << 19]]}, "80800280800280800 4".replace(" ", "")),
    (4096, {"occupancy": 0.25}, "80018003"),
    (4096, {"occupancy": 0}, "008004"),
    (4096, {"occupancy": 0.9999}, "ff0301"),
    (4096, {"occupancy": 1.0}, "8004"),
    (4096, {"occupancy": -0.5}, "8004"),
    (4096, {"bitmap": "800180028001", "free_ranges": []}, "800180028001"),
    (4096, {"bitmap": "FF038100", "occupancy": 0.5}, "ff038100"),
    (4096, {"free_ranges": [], "occupancy": 0.5}, "8004"),
    (4096, {"bitmap": "123"}, "1203"),
    (4096, {"bitmap": "zz0x1g 2-1+3\n4\r\n56"}, "00000102ff030456"),
    (4096, {"bitmap": "\U0001f60001"}, "0001"),
    (4096, {"bitmap": "0"}, "00"),
]


@pytest.mark.parametrize(("size", "told", "stream"), STREAMS, ids=[f"{size} {told}" for size, told, _ in STREAMS])
def test_mb_run_stream(size: int, told: Json, stream: str) -> None:
    assert mf.mb_run_stream(size, **told).hex() == stream
    assert mf.mb_run_stream(size, **told, like_upstream=True).hex() == stream


MANGLED: List[Tuple[float, Json, str]] = [  # mb 1.7, and the last page types of the recording "numbers"
    (2**36, {"free_ranges": [[0, (2**32 + 1) * 8]]}, "008100ffffffff0f"),
    (2**37, {"occupancy": 0.75}, "80008000"),
    (float("inf"), {}, "8000"),
    (float("nan"), {}, "00"),
    (float("-inf"), {}, "00"),
    (-9, {}, "ff"),
]


@pytest.mark.parametrize(("size", "told", "stream"), MANGLED, ids=[f"{size} {told}" for size, told, _ in MANGLED])
def test_mb_run_stream_that_javascript_mangles(size: float, told: Json, stream: str) -> None:
    assert mf.mb_run_stream(size, **told, like_upstream=True).hex() == stream
    with pytest.raises((ValueError, TypeError), match="a run is not"):
        mf.mb_run_stream(size, **told)


def test_mb_free_ranges_come_back() -> None:
    rng = random.Random(7)
    for _ in range(300):
        edges = sorted(rng.sample(range(512), rng.randrange(1, 20) * 2))
        ranges = [(8 * start, 8 * end) for start, end in zip(edges[::2], edges[1::2])]
        stream = mf.mb_run_stream(4096, free_ranges=ranges)
        page = mf.Page(4096, None, stream)
        assert page.free_ranges == ranges
        bits = int.from_bytes(page.bitmap(), "little")
        assert all((bits >> unit & 1) == (not any(a <= 8 * unit < b for a, b in ranges)) for unit in range(512))
        assert mf.mb_run_stream(4096, free_ranges=reversed(ranges)) == stream


# ---- mb: Writer


def dumped(fill: Callable[[mf.MbWriter], object], **options: Any) -> bytes:
    made = io.BytesIO()
    with mf.MbWriter(made, compressed=False, **options) as writer:
        fill(writer)
    return made.getvalue()[8:]


def test_mb_writer() -> None:
    def fill(writer: mf.MbWriter) -> None:
        writer.series("Main", color="#ff5733", id="123E4567-e89b-42d3-a456-426614174000")
        writer.point(1.0, 2.0)
        writer.point(1, 2, "GC", id=MB_UUID, event="Main")
        pages = (mf.Page(64, None, b"\0\4\4"), mf.Page(4096, 0.25, bytes.fromhex("800180028001")))
        writer.point(
            3.0, 4.0, event="late", page_types=[mf.PageType("Heap", 0, pages), mf.PageType("GC", 64, pages[:1])]
        )
        writer.point(5.0, 6.0, id="00000000-0000-0000-0000-000000000000", page_types=())
        writer.write(mf.Point(7.0, 8.0, has_meta=True, name="", event=""))
        writer.series()
        writer.series("last", visible=False)

    types = [
        mb_type(
            *[mb_page(b"\0\4\4", 64), mb_page(bytes.fromhex("800180028001"), 4096, struct.pack("<f", 0.25))], name=4
        )
    ]
    types.append(mb_type(mb_page(b"\0\4\4"), name=2, uniform=64))
    points = [
        mb_point(),
        mb_point(name=2, id=MB_UUID, meta=b"\1\0"),
        mb_point(3.0, 4.0, meta=mb_memory(*types, event=4)),
        mb_point(5.0, 6.0, id=bytes(16), meta=mb_memory()),
        mb_point(7.0, 8.0, meta=b"\0\0"),
    ]
    table = mb_strings(b"Main", b"#ff5733", b"GC", b"late", b"Heap", b"", b"#000000", b"last")
    series = [mb_series(*points), mb_series(id=bytes(16), name=5, color=6)]
    series.append(mb_series(id=bytes(16), name=7, color=6, visible=0))
    assert dumped(fill) == table + mb_list(*series)
    assert dumped(fill, like_upstream=True) == table + mb_list(*series)


def test_mb_writer_header() -> None:
    for options, head in (
        ({}, "4d454d44020001001f8b0800000000000003"),
        ({"version": 7}, "4d454d44070001001f8b0800000000000003"),
        ({"compressed": False}, "4d454d4402000000"),
    ):
        made = io.BytesIO()
        mf.MbWriter(made, **options).close()
        assert made.getvalue()[: len(head) // 2].hex() == head
        assert (unpacked(made.getvalue()) or made.getvalue()[8:]) == b"\1\0\2\0"
    with pytest.raises(ValueError, match="a version of 1 at least"):
        mf.MbWriter(io.BytesIO(), version=0, compressed=False)
    with pytest.raises(ValueError, match="version is not of 16 bits"):
        mf.MbWriter(io.BytesIO(), version=1 << 16)


def test_mb_writer_of_many_points() -> None:
    ids = [bytes(6) + b"\x40\0\x80" + bytes(5) + struct.pack(">H", number) for number in range(2500)]
    points = [mf.Point(float(at), 0.5, point_id=id) for at, id in enumerate(ids)]
    points[1200] = mf.Point(1200.0, 0.5, "name")
    made = dumped(lambda writer: writer.write_all([mf.Series(name="a"), *points, mf.Series(name="a"), points[0]]))
    bodies = [mb_point(float(at), 0.5, id=id) for at, id in enumerate(ids)]
    bodies[1200] = mb_point(1200.0, 0.5, name=2)
    table = mb_strings(b"a", b"#000000", b"name")
    assert made == table + mb_list(mb_series(*bodies, id=bytes(16)), mb_series(bodies[0], id=bytes(16)))


def test_mb_numbers_are_not_kept_for_ever() -> None:
    pages = tuple(mf.Page(size, None, b"") for size in range(1, 10_001))
    writer = mf.MbWriter(io.BytesIO(), compressed=False)
    with writer:
        writer.series("s")
        writer.point(1.0, 2.0, page_types=[mf.PageType("s", 0, pages)])
    assert 1000 < len(writer._varints) < 5000


def one_page_of(size: int = 8, *, uniform: int = 0, **told: Any) -> mf.Point:
    page = mf.Page(size, **told)
    return mf.Point(0.0, 0.0, page_types=(mf.PageType("H", uniform, (page,)),))


REFUSED: List[Tuple[str, Any, Optional[bytes]]] = [  # why, the record, what the application writes for it
    ("a timestamp of NaN", mf.Point(float("nan"), 0.0), mb_point(float("nan"), 0.0)),
    ("a timestamp of NaN", mf.Point(float("nan"), 0.0, None, MB_UUID), mb_point(float("nan"), 0.0, id=MB_UUID)),
    ("point_id is not a UUID", mf.Point(0.0, 0.0, None, b"\1" * 16), mb_point(0.0, 0.0, id=bytes(16))),
    ("point_id is not of 16 bytes", mf.Point(0.0, 0.0, None, b"\1" * 15), None),
    ("id is not a UUID", mf.Series(b"\1" * 16), b""),
    ("size is not of 32 bits", one_page_of(2**32), b"\x80\0"),
    ("size is not of 32 bits", one_page_of(2**32 + 5), b"\x85\0"),
    ("size is not of 32 bits", one_page_of(2**32 + 300), b"\xac\2"),
    ("size is not of 32 bits", one_page_of(-2), b"\xfe"),
    ("size is not an integer", one_page_of(typing.cast("int", 100.5)), b"\x64"),
    ("size is not an integer", one_page_of(typing.cast("int", None)), None),
    ("uniform_page_size is not of 32 bits", one_page_of(8, uniform=2**33), b"\x80\0"),
    ("a page of 8 bytes among those of 16", one_page_of(8, uniform=16), b"\x10"),
    ("an occupancy of -1", one_page_of(occupancy=-1.0), MB_ABSENT),
    ("not an occupancy", one_page_of(occupancy=1e39), struct.pack("<f", float("inf"))),
    ("not an occupancy", one_page_of(occupancy=-1e39), struct.pack("<f", float("-inf"))),
    ("has no end", one_page_of(run_stream=b"\2\x80"), b"\2\2\x80"),
    ("surrogates not allowed", mf.Point(0.0, 0.0, "a\ud800b"), b"a\xef\xbf\xbdb"),
    ("not a record of mb", mf.PageType(), None),
    ("not a record of mb", mf.Point(typing.cast("float", "1"), 0.0), None),
    ("not a record of mb", mf.Point(10**400, 0.0), None),
    ("not a record of mb", mf.Point(10**400, 0.0, None, MB_UUID), None),
    ("not text", mf.Point(0.0, 0.0, typing.cast("str", 5)), None),
]


@pytest.mark.parametrize(("reason", "record", "bytes_of"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_mb_writer_refuses(reason: str, record: Any, bytes_of: Optional[bytes]) -> None:
    good = mf.Point(1.0, 2.0, "good")

    def fill(writer: mf.MbWriter) -> None:
        writer.series("s")
        with pytest.raises((ValueError, TypeError), match=reason):
            writer.write(record)
        writer.write(good)

    series = mb_series(mb_point(name=2), id=bytes(16))
    assert dumped(fill) == mb_strings(b"s", b"#000000", b"good") + mb_list(series)  # nothing of the other is left
    if bytes_of is not None:
        assert bytes_of in dumped(lambda writer: writer.write_all([mf.Series(), record]), like_upstream=True)


def test_mb_writer_refuses_by_method() -> None:
    made = io.BytesIO()
    writer = mf.MbWriter(made)
    with pytest.raises(ValueError, match="no series has been started"):
        writer.point(1.0, 2.0)
    for wrong in "", "123e4567-e89b-42d3-a456-42661417400", "123e4567e89b42d3a456426614174000", "x" * 36, "g" * 8:
        if wrong:
            with pytest.raises(ValueError, match="not a UUID"):
                writer.series("s", id=wrong)
        assert mf._mb_id(wrong) is None
    assert mf._mb_id("123e4567-e89b-02d3-a456-426614174000") is None
    assert mf._mb_id("123e4567-e89b-42d3-a456-426614174 00") is None
    assert mf._mb_id("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF") == b"\xff" * 16
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.series("s")
    body = dumped(lambda writer: writer.series("s", id="none"), like_upstream=True)
    assert body == mb_strings(b"s", b"#000000") + mb_list(mb_series(id=bytes(16)))


def test_mb_writer_of_records_that_were_read() -> None:
    odd = SMALL_FILES["mb"][4]
    with mf.MbReader(io.BytesIO(odd)) as reader:
        records = [*reader]
    borrowing: List[Any] = [
        one for one in records if isinstance(one, mf.Point) and one.page_types and one.page_types[0].pages[0].borrowed
    ]
    assert len(borrowing) == 1
    body = dumped(lambda writer: writer.write_all([mf.Series(name="s"), borrowing[0]]))
    with mf.MbReader(io.BytesIO(b"MEMD\2\0\0\0" + body), strict=True) as reader:
        point: Any = [*reader][1]
    assert point.page_types[0].pages[0].runs == borrowing[0].page_types[0].pages[0].runs  # whole in the stream now


def test_mb_document_refuses() -> None:
    document = mf.open(io.BytesIO(mf_file := SMALL_FILES["mb"][0])).read()
    assert mf_file
    series, point = document.records[:2]
    for records, reason in (
        ([point], "no series has been started"),
        ([series, *[point] * 9], "a series of 8 points has more"),
        ([series, point, series], "a series of 8 points has 1"),
        ([series._replace(point_count=0)] * 4, "more series than series_count"),
        ([series._replace(name="other")], "not among the strings"),
        ([series._replace(id=b"1")], "id is not of 16 bytes"),
        ([series._replace(point_count=-1)], "point_count is not of 64 bits"),
    ):
        with mf.MbWriter(io.BytesIO()) as writer, pytest.raises(ValueError, match=reason):
            writer.write_document(mf.Document("mb", document.header, document.tables, records))
    with mf.MbWriter(io.BytesIO()) as writer:
        writer.series("s")
        with pytest.raises(ValueError, match="the first thing written"):
            writer.write_document(document)
    for tables in {}, {"series_count": None}, {"series_count": -1}:
        with mf.MbWriter(io.BytesIO()) as writer, pytest.raises((ValueError, TypeError), match="series_count"):
            writer.write_document(mf.Document("mb", document.header, tables, []))
    with mf.MbWriter(io.BytesIO()) as writer, pytest.raises(ValueError, match="version"):
        writer.write_document(mf.Document("mb", mf.MbHeader(-1), document.tables, []))


# ---- mb: streams


def test_mb_reads_while_unpacking() -> None:
    """Points come before the body has been unpacked, and a bomb stops where it is told to."""
    points = [mb_point(float(number), 1.0, id=MB_UUID) for number in range(20_000)]
    data = mb_file(TWO_STRINGS + mb_list(mb_series(*points)), flags=1, packed=True)
    file = Trickle(data, itertools.repeat(512))
    reader = mf.MbReader(file)
    read: Iterator[Any] = iter(reader)
    assert [next(read) for _ in range(3)][2].timestamp == 1.0
    assert file.tell() < len(data) // 2
    assert sum(1 for _ in read) == 19_998
    limited = outcome(data, "mb", max_bytes=300_000)
    assert limited.fault is not None
    assert (*place(limited.fault), limited.fault.space) == ("limit", 18, "gzip.data", "file")
    assert 1 < len(limited.records) < 300_000 // 33 + 2
    assert_same(limited.records, outcome(data, "mb").records[: len(limited.records)])


TWO_STRINGS = mb_strings(b"Main", b"#ff5733")


def test_mb_explain_stops_at_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mf, "DEFAULT_MAX_BYTES", 40)
    data = mb_file(TWO_STRINGS + mb_list(mb_series(*[mb_point()] * 20)), flags=1, packed=True)
    last = [*mf.explain(io.BytesIO(data), "mb")][-1]
    assert (last.path, last.type, last.value) == ("gzip.data", "unread", "limit")
    assert outcome(data, "mb", max_bytes=40).fault is not None


def test_mb_long_point() -> None:
    """A point of more than a chunk, and one whose size is only claimed."""
    pages = [mb_page(bytes(1000), 8000)] * 300
    long = mb_point(meta=mb_memory(mb_type(*pages)))
    data = mb_file(TWO_STRINGS + mb_list(mb_series(mb_point(), long, mb_point(name=1))))
    for sizes in itertools.repeat(1 << 20), itertools.repeat(999):
        read = outcome(Trickle(data, sizes), "mb")
        assert read.fault is None
        assert [page.run_stream for page in read.records[2].page_types[0].pages] == [bytes(1000)] * 300
        assert read.records[3].name == "#ff5733"
    claimed = outcome(data.replace(mb_page(bytes(1000), 8000), mb_page(bytes(1000), 8000)[:6] + b"\xff" * 6, 1), "mb")
    assert claimed.fault is not None
    assert len(claimed.records) == 2


def test_mb_odd_points_after_a_long_one() -> None:
    """What a long point has brought into memory is not moved for each point that is read exactly."""
    long = mb_point(meta=mb_memory(mb_type(mb_page(bytes(3_000_000), 1 << 25))))
    odd = [mb_point(bits=8) for _ in range(40_000)]
    data = mb_file(
        TWO_STRINGS
        + mb_list(mb_series(long, *odd, mb_point(meta=mb_memory(mb_type(mb_page(bytes(1 << 21), 1 << 24))))))
    )
    start = time.process_time()
    read = outcome(data, "mb")
    assert time.process_time() - start < 20  # 60 GB would have been moved
    assert len(read.records) == 40_003
    assert read.records[-2].raw == odd[0]


def test_mb_inside_damaged_gzip() -> None:
    """A whole file that is gzip and has a gzip body: what is wrong outside is told, not what follows from it."""
    inner = mb_file(MB_BODY, flags=1, packed=True)
    outer = gzip.compress(inner)
    assert_same(outcome(outer, "mb").records, outcome(inner, "mb").records)
    cut = outcome(outer[:-20], "mb")
    assert cut.fault is not None
    assert (cut.fault.format, *place(cut.fault)) == ("gzip", "truncated", 10, "members[0].data")
    wrong = outcome(outer[:-8] + b"\0\0\0\0" + outer[-4:], "mb")
    assert wrong.fault is not None
    assert (wrong.fault.format, wrong.fault.where) == ("gzip", "members[0].crc32")
    assert_same(wrong.records, outcome(inner, "mb").records)


@pytest.mark.parametrize("size", [65_535, 65_536, 200_000])
def test_mb_gzip_name_of_any_length(size: int) -> None:
    """RFC 1952 sets no limit to it, and the application's reader accepts one (mb 1.1)."""
    member = mb_member(MB_BODY)
    head = b"MEMD\2\0\1\0" + member[:3] + b"\x08" + member[4:10] + b"n" * size
    data = head + b"\0" + member[10:]
    assert_same(outcome(data, "mb").records, outcome(mb_file(MB_BODY), "mb").records)
    for cut in head, head[:100]:
        fault = outcome(cut, "mb").fault
        assert fault is not None
        assert place(fault) == ("truncated", 18, "gzip.name")
    check_explain(data, "mb", outcome(data, "mb"), recover=False)
    check_explain(head, "mb", outcome(head, "mb"), recover=False)


def test_mb_ids_as_text() -> None:
    assert (
        mf.Series(MB_UUID).uuid == mf.Point(0.0, 0.0, point_id=MB_UUID).uuid == "123e4567-e89b-42d3-a456-426614174000"
    )
    assert mf.Series().uuid == mf.Point(0.0, 0.0).uuid == mf.Point(0.0, 0.0, point_id=bytes(16)).uuid == ""


@pytest.mark.skipif(PYPY, reason="memory is counted by CPython")
def test_mb_takes_constant_memory() -> None:
    import tracemalloc

    pages = mb_memory(mb_type(mb_page(b"\x80\1\x80\2", 4096), mb_page(b"\1", 8)))
    points = [mb_point(1.0, 2.0, id=MB_UUID), mb_point(meta=pages)] * 30_000
    data = mb_file(TWO_STRINGS + mb_list(mb_series(*points)), flags=1, packed=True)
    tracemalloc.start()
    try:
        with mf.MbReader(io.BytesIO(data)) as reader:
            assert sum(1 for _ in reader) == 60_001
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# ==== 9.5 mb-json =====================================================================================
#
# What a text says is worked out here from ``json.loads`` and the rules of the format text, apart from the Reader.

MB_TEXTS = recordings("mb-json")
each_mb_text = pytest.mark.parametrize("path", MB_TEXTS, ids=lambda path: path.stem)
TIME = re.compile(
    r"([+-]\d{6}|\d{4})(?:-(\d\d)(?:-(\d\d))?)?"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(?:(Z)|([+-])(\d\d):?(\d\d))?)?",
    re.IGNORECASE | re.ASCII,
)


def iso_us(text: str) -> Optional[int]:
    """Microseconds of a time of ISO 8601, by the calendar of ``datetime``."""
    found = TIME.fullmatch(text)
    if not found:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, ahead, more = found.groups()
    cycles, same = divmod(int(year), 400)  # the calendar comes again after 400 years of 146,097 days
    try:
        day_number = dt.date(2000 + same, int(month or 1), int(day or 1)).toordinal() + 146_097 * (cycles - 5)
    except ValueError:
        return None
    numbers = [int(part or 0) for part in (hour, minute, second)]
    if numbers > [24, 0, 0] or max(numbers[1:]) > 59 or (more and (int(more) > 59 or int(ahead) > 23)):
        return None
    seconds = 3600 * numbers[0] + 60 * numbers[1] + numbers[2]
    seconds -= (60 * int(ahead or 0) + int(more or 0)) * (-60 if sign == "-" else 60)
    return 10**6 * (86400 * (day_number - dt.date(1970, 1, 1).toordinal()) + seconds) + int(
        (fraction or "")[:6].ljust(6, "0")
    )


JS_BLANK = "[\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]*"
JS_NUMBER = re.compile(
    JS_BLANK
    + r"(?:0[xX](?P<x>[0-9a-fA-F]+)|0[oO](?P<o>[0-7]+)|0[bB](?P<b>[01]+)"
    + r"|(?P<decimal>[+-]?(?:Infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)))?"
    + JS_BLANK
)


def js_number_text(value: float) -> str:
    """A number as text, by the steps of ``Number::toString`` in ECMA-262."""
    if value - value != 0:
        return {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}[repr(value)]
    if not value:
        return "0"
    negative, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    k, n = len(digits), len(digits) + int(exponent)
    text = "".join(map(str, digits))
    if k <= n <= 21:
        text += "0" * (n - k)
    elif 0 < n <= 21:
        text = f"{text[:n]}.{text[n:]}"
    elif -6 < n <= 0:
        text = "0." + "0" * -n + text
    else:
        text = f"{text[0]}{'.' * (k > 1)}{text[1:]}e{n - 1:+}"
    return "-" * negative + text


def js_json(value: float) -> str:
    return js_number_text(value) if value - value == 0 else "null"


def js_text(value: Any) -> Optional[str]:
    """What the application stores as text."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, float):
        return js_number_text(value) if value < 0 or value > 0 else None
    return "true" if value is True else None


def js_to_number(value: Any) -> float:
    """``Number(value)``: of a list by way of its text, of text by the grammar of ``StringNumericLiteral``."""
    if isinstance(value, list):
        if not value:
            return 0.0
        return js_to_number(value[0]) if len(value) == 1 and not isinstance(value[0], bool) else float("nan")
    if not isinstance(value, str):
        return float("nan") if isinstance(value, dict) else 0.0 if value is None else float(value)
    found = JS_NUMBER.fullmatch(value)
    if found is None:
        return float("nan")
    for mark, base in ("x", 16), ("o", 8), ("b", 2):
        if found[mark]:
            whole = int(found[mark], base)
            return float(whole) if whole < (1 << 1024) - (1 << 970) else float("inf")
    return float(found["decimal"] or 0)


def js_id(value: Any, none: bytes = b"") -> bytes:
    if value in (None, ""):
        return none
    text = value if isinstance(value, str) else ""
    good = re.fullmatch(r"(?i)[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", text, re.ASCII)
    return (
        bytes.fromhex(text.replace("-", ""))
        if good or text.lower() == "-".join("f" * n for n in (8, 4, 4, 4, 12))
        else bytes(16)
    )


def js_number(value: Json, key: str) -> float:
    found = value.get(key)
    if key == "timestamp" and isinstance(found, str):
        time = iso_us(found)
        return float(time) if time is not None else js_to_number(found) if found else float("nan")
    return js_to_number(found) if found is not None else float("nan")


def js_size(value: Any) -> float:
    return value if isinstance(value, float) and 0 <= value < 2**53 else 0.0


def point_of(value: Json) -> mf.Point:
    """The record of a point's JSON (mb 3.2)."""
    meta = value.get("meta")
    point = mf.Point(
        js_number(value, "timestamp"),
        js_number(value, "value"),
        js_text(value.get("name")),
        js_id(value.get("pointId")),
    )
    if not meta and not isinstance(meta, (dict, list)):
        return point
    types: Any = None
    meta = meta if isinstance(meta, dict) else {}
    memory = meta.get("memory")
    if memory or isinstance(memory, (dict, list)):
        found = memory.get("pageTypes") if isinstance(memory, dict) else ()
        types = tuple(type_of(one) for one in (found if isinstance(found, list) else ()))
    return point._replace(has_meta=True, event=js_text(meta.get("event")), page_types=types)


def type_of(value: Any) -> mf.PageType:
    if not isinstance(value, dict):
        return mf.PageType()
    uniform = js_size(value.get("uniformPageSize"))
    pages = value.get("pages")
    made = [page_of(page, uniform) for page in (pages if isinstance(pages, list) else ())]
    return mf.PageType(js_text(value.get("name")) or "", int(uniform), tuple(made))


def page_of(value: Any, uniform: float) -> mf.Page:
    value = value if isinstance(value, dict) else {}
    own = js_size(value.get("size"))
    share = value.get("occupancy", -1.0)
    share = 0.0 if share is None else share if isinstance(share, float) and "occupancy" in value else None
    bitmap, ranges = value.get("bitmap"), value.get("freeList")
    stream = mf.mb_run_stream(
        own or uniform,
        bitmap=bitmap if isinstance(bitmap, str) else "",
        free_ranges=ranges if isinstance(ranges, list) else None,
        occupancy=share,
        like_upstream=True,
    )
    if isinstance(bitmap, str) and bitmap:
        stream = re.sub(rb"[\x80-\xff]+\Z", b"", stream)
    return mf.Page(int(uniform) or int(own), share, stream)


def usual_text(record: Any) -> Optional[str]:
    """The JSON of a record as a writer has it (mb 3.1); None of a run stream that cannot be read."""
    if isinstance(record, mf.Series):
        text = js_object(
            id=quoted(str(uuid.UUID(bytes=record.id))),
            name=quoted(record.name),
            visible="true" if record.visible else "false",
            color=quoted(record.color),
            data="[",
        )
        return text[:-1]
    try:
        types = record.page_types and [type_text(one) for one in record.page_types]
    except ValueError:
        return None
    memory = js_object(pageTypes=f"[{','.join(types)}]") if types is not None else None
    return js_object(
        timestamp=js_json(record.timestamp),
        value=js_json(record.value),
        pointId=quoted(str(uuid.UUID(bytes=record.point_id))) if record.point_id else None,
        name=quoted(record.name),
        meta=js_object(event=quoted(record.event), memory=memory) if record.has_meta else None,
    )


def js_object(**members: Optional[str]) -> str:
    return "{" + ",".join([f'"{key}":{text}' for key, text in members.items() if text is not None]) + "}"


def quoted(text: Optional[str]) -> Optional[str]:
    return None if text is None else json.dumps(text, ensure_ascii=False)


def type_text(one: mf.PageType) -> str:
    pages = [
        js_object(
            size=js_json(float(page.size)),
            freeList=f"[{','.join(free_texts(page.run_stream))}]",
            occupancy=None if page.occupancy is None else js_json(page.occupancy),
        )
        for page in one.pages
    ]
    uniform = js_json(float(one.uniform_page_size)) if one.uniform_page_size else None
    return js_object(name=quoted(one.name), pages=f"[{','.join(pages)}]", uniformPageSize=uniform)


def free_texts(stream: bytes) -> Iterator[str]:
    """The free ranges of a run stream, in the doubles of JavaScript; ValueError of one that cannot be read (mb 2)."""
    numbers = re.findall(rb"[\x80-\xff]{0,63}[\0-\x7f]", stream, re.DOTALL)
    if b"".join(numbers) != stream:
        raise ValueError(stream)
    runs = [float(sum((byte & 127) << 7 * place for place, byte in enumerate(number))) for number in numbers]
    bounds = [*itertools.accumulate([8 * run for run in runs])]
    return (f"[{js_json(start)},{js_json(end)}]" for start, end in zip(bounds[::2], bounds[1::2]))


def with_raw(record: Any, before: str, text: bytes) -> Any:
    usual = usual_text(record)
    same_text = usual is not None and text == (before + usual).encode("utf-8", "backslashreplace")
    return record._replace(raw=b"" if same_text else text)


def rebuild_mb_json(spans: List[mf.Span], data: bytes) -> Rebuilt:
    """Header and records from the places and values of an explanation."""
    spans = [span for span in spans if span.type != "unread"]
    bom = data.startswith(b"\xef\xbb\xbf")
    mark = data[3 * bom :].lstrip(b" \t\r\n")[:1]
    if mark not in (b"[", b"{") or not mark:
        return None, []
    header = mf.MbJsonHeader(bom, mark == b"{")
    records: List[Any] = []
    members: List[Json] = []
    heads: List[Tuple[int, int, bytes]] = []  # of each series: its place among the records, its number, its text
    done = begin = 0
    values: Json = {}
    fresh = False  # between points
    for span in spans:
        text = data[span.offset : span.offset + span.size]
        found = re.match(r"series\[(\d+)\](?:\.(data)(\[\d+\])?)?", span.path)
        if not found:
            if fresh and b"{" in text:
                begin, values, fresh = span.offset + text.index(b"{"), {}, False
            continue
        number = int(found[1])
        if number == len(members):
            members.append({})
        if found[3]:
            if span.path == found[0] and text == b"}":
                value = json.loads(data[begin : span.offset + 1], parse_int=float)
                check_values(value, found[0], values)
                comma = "," if isinstance(records[-1], mf.Point) else ""
                records.append(with_raw(point_of(value), comma, data[done : span.offset + 1]))
                done = span.offset + 1
                fresh = True
            elif span.path != found[0]:
                values[span.path] = span.value
        elif found[2] and text.endswith(b"["):
            heads.append((len(records), number, data[done : span.offset + span.size]))
            records.append(None)
            done = span.offset + span.size
            fresh = True
        elif span.path != found[0]:
            members[number][span.path[len(found[0]) + 1 :]] = span.value
    bounds = [*[place for place, _, _ in heads], len(records)]
    for (place, number, text), stop in zip(heads, bounds[1:]):
        known = {key: float(value) if type(value) is int else value for key, value in members[number].items()}
        series = mf.Series(
            js_id(known.get("id"), bytes(16)),
            js_text(known.get("name")) or "",
            js_text(known.get("color")) or "#000000",
            bool(known.get("visible")),  # of an array the text, which is true too
            stop - place - 1,
        )
        before = "]}," if place else "\ufeff" * header.bom + "[" * (not header.single)
        usual = (before + (usual_text(series) or "")).encode("utf-8", "backslashreplace")
        records[place] = series._replace(raw=b"" if usual == text else text)
    return header, records


def check_values(value: Json, path: str, told: Json) -> None:
    """Hold the values that explain tells against those of the text; of an object with a key twice only the last."""
    for where, known in told.items():
        inner: Any = value
        try:
            for key, number in re.findall(r"\.(\w+)|\[(\d+)\]", where[len(path) :]):
                inner = inner[int(number)] if number else inner[key]
        except (KeyError, IndexError, TypeError):
            continue
        if not isinstance(known, bytes) and not isinstance(inner, (dict, list)):
            assert inner == known, where


def mb_json_document_of(data: bytes) -> Json:
    """The document of a text without faults, less its problems."""
    text = data.decode()
    read = json.JSONDecoder(parse_int=float).raw_decode
    records: List[Any] = []
    done = 0

    def after(at: int) -> int:
        """The place after blanks, and a comma or colon among them."""
        return at + len(re.match(r"\s*[,:]?\s*", text[at:])[0])  # type: ignore[index]

    header = mf.MbJsonHeader(text.startswith("\ufeff"), text.lstrip("\ufeff \t\r\n")[0] == "{")
    at = after(int(header.bom))
    at = at if header.single else after(at + 1)
    while text[at : at + 1] == "{":
        members: Json = {}
        at = after(at + 1)
        place = head = 0
        while text[at] != "}":
            key, at = read(text, at)
            at = after(at)
            if key == "data" and not head:
                place, head = len(records), at + 1
                records.append(text[done:head])
                done, at = head, after(head)
                while text[at] != "]":
                    value, end = read(text, at)
                    comma = "," if len(records) - place > 1 else ""
                    records.append(with_raw(point_of(value), comma, text[done:end].encode()))
                    done, at = end, after(end)
                at += 1
            else:
                members[key], at = read(text, at)
            at = after(at)
        series = mf.Series(
            js_id(members.get("id"), bytes(16)),
            js_text(members.get("name")) or "",
            js_text(members.get("color")) or "#000000",
            bool(members.get("visible")),
            len(records) - place - 1,
        )
        before = "]}," if place else "\ufeff" * header.bom + "[" * (not header.single)
        records[place] = with_raw(series, before, records[place].encode())
        at = after(at + 1)
    document = {"format": "mb-json", "schema": 1, "header": mf._to_json(header)}
    usual = ("]}" if header.single else "]}]") if records else "\ufeff" * header.bom + "[]"
    if text[done:] != usual:
        document["end"] = text[done:]
    document["records"] = [{"record": type(record).__name__, **mf._to_json(record)} for record in records]
    return document


REBUILD["mb-json"] = rebuild_mb_json
STEPPED_OVER["mb-json"] = [
    ("bad-value", "series[].name"),
    ("bad-value", "series[].data[].meta.memory.pageTypes"),
    ("bad-value", "series[].data[].meta.memory.pageTypes[]"),
    ("bad-value", "series[].data[].meta.memory.pageTypes[].pages[]"),
    ("bad-varint", "series[].data[].meta.memory.pageTypes[].pages[].bitmap"),
]
MB_TEXT_SERIES = (
    '{"id":"123e4567-e89b-42d3-a456-426614174000","name":"M\u00e4in \\"1\\"","visible":true,"color":"#ff5733","data":['
)
MB_TEXT_MEMORY = (
    '{"pageTypes":[{"name":"Heap","pages":[{"size":64,"freeList":[[0,32]]},'
    '{"size":4096,"freeList":[[1024,3072]],"occupancy":0.5},{"size":8,"freeList":[]}]},'
    '{"name":"","pages":[{"size":4096,"freeList":[]}],"uniformPageSize":4096}]}'
)
MB_TEXT_POINTS = [
    '{"timestamp":1767225600000000,"value":1048576}',
    '{"timestamp":1767225600000000.2,"value":1e-7,"pointId":"00000000-0000-0000-0000-000000000000"}',
    '{"timestamp":-1,"value":123456789012345680000,"name":"n\u20ac","meta":{}}',
    '{"timestamp":0,"value":0,"meta":{"event":"GC"}}',
    '{"timestamp":0,"value":1e+21,"meta":{"event":"GC","memory":' + MB_TEXT_MEMORY + "}}",
]
MB_TEXT_ODD_MEMORY = (
    '{"occupancy":1,"pageTypes":[{"name":"b","uniformPageSize":32,"pages":[{"size":64,"bitmap":"04"},'
    '{"bitmap":"zz1","occupancy":2},{"occupancy":null},{"size":16.5,"freeList":[[8,12],["0",8],[16,4]]},{"size":-1},'
    '{"occupancy":0.5,"size":100}]},{"pages":[]}]}'
)
MB_TEXT_ODD = [
    '{"value":"12","timestamp":"2026-01-01T00:00:01.5+01:00","seriesId":"x","pointId":"none"}',
    '{ "timestamp" : null, "value" : [], "name" : "", "meta" : 0 }',
    '{"timestamp":1,"value":true,"name":true,"meta":{"event":5,"host":[1,{"}":"]"}],"memory":'
    + MB_TEXT_ODD_MEMORY
    + "}}",
    '{"timestamp":"yesterday","value":1,"meta":{"memory":{}},"timestamp":"2026"}',
    '{"timestamp":1,"value":2,"meta":{"memory":null,"event":""},"\\u0069d":"\\ud83e\\udde0\\ud800"}',
]


def small_texts() -> List[bytes]:
    """Texts of every kind: mutations start from these."""
    series = MB_TEXT_SERIES
    usual = "[" + series + ",".join(MB_TEXT_POINTS) + "]}," + series + "]}]"
    odd = (
        '[\n {"data" : ['
        + ",\r\n".join(MB_TEXT_ODD)
        + '\t],"name":"o","visible":1,"more":{"x":[[]]},"id":"x"} , '
        + series
    )
    stepped = '{"size":8,"bitmap":"0080"},[]'
    memory = f'[{{"pages":[{stepped}]}},{{"name":"none"}},7]'
    return [
        usual.encode(),
        (odd + MB_TEXT_POINTS[0] + "]}]\n").encode(),
        ("\ufeff" + series + MB_TEXT_POINTS[3] + "]}").encode(),
        b'{"name":"x","data":[{"timestamp":1,"value":2}],"color":"","visible":false,"data":[]}',
        b"[]",
        b" [ ] ",
        ('[{"data":[{"timestamp":1,"value":2,"meta":{"memory":{"pageTypes":' + memory + "}}}]}]").encode(),
        b'[{"data":[{"timestamp":1,"value":2,"meta":{"memory":{"pageTypes":5}}}]}]',
    ]


SMALL_FILES["mb-json"] = small_texts()


def big_text(shift: int) -> bytes:
    """About 70 KB; the name of the first series is as much longer as is asked for."""
    first = MB_TEXT_SERIES.replace("#ff5733", "#ff5733" + "x" * shift)
    texts = [",".join((MB_TEXT_POINTS + MB_TEXT_ODD[:1]) * 50), ",".join(MB_TEXT_POINTS * 25), MB_TEXT_POINTS[0]]
    return ("[" + "".join(head + text + "]}," for head, text in zip([first, *[MB_TEXT_SERIES] * 2], texts)))[
        :-1
    ].encode() + b"]"


BIG["mb-json"] = big_text
HOSTILE["mb-json"] = [
    b'{"data": ' + b"[" * 100_000,
    b'[{"id": ' + b'{"a": ' * 50_000,
    b'[{"data": [{"timestamp": ' + b"9" * 1_000_000 + b"}]}]",
    b'[{"data": [{"timestamp": 1, "value": 1e' + b"9" * 60_000 + b"}]}]",
    b'[{"data": [{"timestamp": "' + b"2" * 60_000 + b'"}]}]',
    b'[{"name": "' + b"\\ud800" * 100_000 + b'"}]',
    b"[" + b" " * 100_000,
    b"[" + b"{}," * 4_000 + b"{}]",
    b'[{"data": [' + b"{}," * 4_000 + b"{}]}]",
    b'[{"data": [{"meta": {"memory": {"pageTypes": [{"pages": [{"size": 8, "freeList": ['
    + b"[0, 9007199254740991]," * 2_000
    + b"[0,8]]}]}]}}}]}]",
    b'[{"data": [{"meta": {"memory": {"pageTypes": [{"pages": [{"size": 9007199254740991, "occupancy": 0.5}]}]}}}]}]',
]


def test_mb_json_oracle_on_small_files() -> None:
    for data in SMALL_FILES["mb-json"]:
        for size in range(len(data) + 1):
            if size % 9 and size < len(data):
                check_explain(data[:size], "mb-json", outcome(data[:size], "mb-json"), recover=False)
            else:
                check_readings(data[:size], "mb-json")


# ---- mb-json: recordings


def numbers_of(value: Any) -> Any:
    """Expected values, in which numbers that JSON has not are words, as floats."""
    if isinstance(value, list):
        return [numbers_of(item) for item in value]
    if isinstance(value, dict):
        return {key: numbers_of(item) for key, item in value.items()}
    if type(value) in (int, float) or value in ("NaN", "Infinity", "-Infinity", "-0"):
        return float(value)
    return value


def expected_mb(path: Path) -> Json:
    name = path.name.partition(".")[0] + ".expected.json"
    return cast("Json", json.loads(path.with_name(name).read_text(encoding="utf-8")))


def body_of(data: bytes) -> bytes:
    return unpacked(data) or data[8:]


@each_mb_text
def test_mb_json_recording(path: Path) -> None:
    data = path.read_bytes()
    text = decoded(data, "mb-json", recover=True)
    if "pages.export" not in path.name:  # a type of pages without pages, which the adapter does not take
        assert normal({**json.loads(text), "problems": []}) == normal(mb_json_document_of(data))
    assert outcome(data, "mb-json", recover=True).fault is None


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.id.startswith("mb-json/recorded/")], ids=lambda v: v.id)
def test_mb_json_recorded_vectors_are_the_recordings(vector: Vector) -> None:
    path = RECORDINGS / "mb" / (vector.id.split("/")[-1] + ".json")
    if not path.exists():
        pytest.skip("the recordings are not on this machine")
    assert path.read_bytes() == vector.data
    assert normal({**vector.about["expect"], "problems": []}) == normal(mb_json_document_of(vector.data))


@pytest.mark.parametrize("path", [p for p in MB_TEXTS if ".reexport." in p.name], ids=lambda path: path.stem)
def test_mb_export_is_the_applications(path: Path) -> None:
    run = cli("convert", path.with_name(path.name.replace(".reexport.json", ".mb")), "--to", "json")
    assert (run.code, run.out) == (0, path.read_bytes())


@pytest.mark.parametrize("path", [p for p in MB_TEXTS if ".export." in p.name], ids=lambda path: path.stem)
def test_mb_json_becomes_the_applications_mb(path: Path) -> None:
    run = cli("convert", path, "--to", "mb", "--recover")
    assert run.code == 0
    assert body_of(run.out) == body_of(path.with_name(path.name.replace(".export.json", ".mb")).read_bytes())
    assert run.out[:18] == bytes.fromhex("4d454d44020001001f8b0800000000000003")


@pytest.mark.parametrize("path", [p for p in MB_TEXTS if p.name.startswith("j_")], ids=lambda path: path.stem)
def test_mb_json_imports(path: Path) -> None:
    """Import, export and the binary writer of the application, on JSON that it did not write."""
    expected = expected_mb(path)
    run = cli("convert", path, "--to", "mb", "--like-upstream")
    kind = "app_mb_body" if ".app." in path.name else "direct_mb_body"
    assert body_of(run.out).hex() == expected[kind]
    if kind == "direct_mb_body":
        made = json.loads(cli("convert", path, "--to", "json").out, parse_int=float)
        wanted = numbers_of(expected["imported"])
        for one, other in itertools.zip_longest(made, wanted):
            usual = {"color": "#000000", "visible": False, **other}
            assert list(one) == ["id", "name", "visible", "color", "data"]
            assert one == {key: usual[key] for key in one}
            assert [[*point] for point in one["data"]] == [[*point] for point in other["data"]]
            assert json.dumps([point.get("meta") for point in one["data"]]) == json.dumps(
                [point.get("meta") for point in other["data"]]
            )


@each_dump
def test_mb_recording_conclusions(path: Path) -> None:
    """The totals that the application computes of what it reads; of a file that it takes for empty there are none."""
    if path.stem == "doc_flags0_gzip":
        return
    found: List[List[Any]] = []
    for record in outcome(path.read_bytes(), "mb", recover=True).records:
        if isinstance(record, mf.Series):
            found.append([])
        else:
            conclusion = mf.mb_conclusion(record)
            found[-1].append(conclusion and mf._mb_conclusion_json(conclusion))
    wanted = numbers_of(expected_mb(path)["conclusions"])
    for one, other in itertools.zip_longest(found, wanted):
        for left, right in itertools.zip_longest(one, other):
            assert same(numbers_of(left), right)


REJECTED = sorted(path for path in (RECORDINGS / "mb" / "rejected").glob("*.json") if path.name != "expected.json")


@pytest.mark.parametrize("path", REJECTED, ids=lambda path: path.stem)
def test_mb_json_rejected(path: Path) -> None:
    """What import, or the store behind it, refuses."""
    assert path.name in json.loads(path.with_name("expected.json").read_text(encoding="utf-8"))
    fault = outcome(path.read_bytes(), "mb-json").fault
    assert fault is not None
    assert (fault.format, cli("check", "--format", "mb-json", path).code) == ("mb-json", 1)


# ---- mb-json: JavaScript's numbers and text

JS_NUMBERS = [
    (0.0, "0"),
    (-0.0, "0"),
    (-1.5, "-1.5"),
    (123456789012345680000.0, "123456789012345680000"),
    (2.0**53, "9007199254740992"),
    (1e21, "1e+21"),
    (-1.25e25, "-1.25e+25"),
    (1e-6, "0.000001"),
    (1.5e-7, "1.5e-7"),
    (5e-324, "5e-324"),
    (1.7976931348623157e308, "1.7976931348623157e+308"),
    (1767225600000000.2, "1767225600000000.2"),
    (0.10000000149011612, "0.10000000149011612"),
    (float("nan"), "null"),
    (float("-inf"), "null"),
]


@pytest.mark.parametrize(("value", "text"), JS_NUMBERS, ids=[text for _, text in JS_NUMBERS])
def test_js_number(value: float, text: str) -> None:
    assert mf._js_number(value) == text == js_json(value)


def test_js_numbers_of_any_bits() -> None:
    rng = random.Random(1)
    for _ in range(20_000):
        (value,) = struct.unpack("<d", rng.getrandbits(64).to_bytes(8, "little"))
        assert mf._js_number(value) == js_json(value)


def test_js_json() -> None:
    value = {"b": [None, True, False, {}], "10": 1.0, "2": "\u2028\x7f\x1f\ud800/", "01": 2.5, "4294967295": 0.0}
    text = '{"2":"\u2028\x7f\\u001f\ud800/","10":1,"b":[null,true,false,{}],"01":2.5,"4294967295":0}'
    assert mf._js_json(value) == text


TO_NUMBERS: List[Tuple[Any, str]] = [
    (None, "0.0"),
    (True, "1.0"),
    ("", "0.0"),
    (" \n12e1 ", "120.0"),
    ("0x1F", "31.0"),
    ("0x", "nan"),
    ("1_0", "nan"),
    ("-Infinity", "-inf"),
    ("inf", "nan"),
    (".5", "0.5"),
    ("\ufeff\u20281\x0b", "1.0"),
    ("\x851", "nan"),
    ("1\x1c", "nan"),
    ("0b11", "3.0"),
    ("0O17", "15.0"),
    ("0b12", "nan"),
    ("0x1_0", "nan"),
    ("0x\u0661", "nan"),
    ("0x" + "f" * 255, repr(float((1 << 1020) - 1))),
    ("0x" + "f" * 290, "inf"),
    ("1e400", "inf"),
    ("1e", "nan"),
    ({}, "nan"),
    ([], "0.0"),
    ([None], "0.0"),
    ([True], "nan"),
    ([[["0x10"]]], "16.0"),
    ([1.0, 2.0], "nan"),
    ([{}], "nan"),
]


@pytest.mark.parametrize(("value", "wanted"), TO_NUMBERS, ids=repr)
def test_js_to_number(value: Any, wanted: str) -> None:
    assert repr(mf._js_to_number(value)) == wanted == repr(js_to_number(value))


TIMES = [
    ("2025-12-06T00:00:00.25Z", 1764979200250000),
    ("2025-12-06 00:00", 1764979200000000),
    ("2025-12-06T05:45:00+0545", 1764979200000000),
    ("1970", 0),
    ("1969-12-31T23:59:59.9999999-00:00", -1),
    ("0000-03-01", -62162035200000000),
    ("-000001-03-01", -62193657600000000),
    ("+275760-09-13", 8640000000000000000),
    ("2024-02-29t24:00:00z", 1709251200000000),
]
NOT_TIMES = "|2025-12-06T|2025-13|2025-00|2023-02-29|2025-12-06T25:00|2025-12-06T23:60|2025-12-06T24:00:01|25-12-06"
NOT_TIMES += "|2025-12-06Z|2025-12-06T00|2025-12-06T00:00.5|2025-12-06T00:00:00.|2025-12-06T00:00:00+1|2025/12/06"
NOT_TIMES += "|2025-12-06T00:00:00+24:00|2025-12-06T00:00:00+010:0"
NOT_TIMES += "|2025-12-06T00:00:00+01:60|1767225600000000|6 Dec 2025|\u0662025-12-06|2025-12-06T00:00:61"


@pytest.mark.parametrize(("text", "wanted"), TIMES)
def test_iso_times(text: str, wanted: int) -> None:
    assert mf._mb_iso_us(text) == wanted
    assert mf._mb_iso_us(text) == iso_us(text)


@pytest.mark.parametrize("text", NOT_TIMES.split("|"))
def test_not_iso_times(text: str) -> None:
    assert mf._mb_iso_us(text) is None


def test_json_numbers_and_what_follows() -> None:
    for text, end in (
        ("12,", 2),
        ("-", 0),
        ("-0", 2),
        ("0123", 1),
        ("1.", 1),
        ("1.5e", 3),
        ("1e+5", 4),
        ("1E5.", 3),
        ("+1", 0),
    ):
        assert mf._mb_json_number_end(text.encode(), 0) == end


# ---- mb-json: Reader and Writer


def text_of(*records: Any, **options: Any) -> str:
    made = io.BytesIO()
    with mf.MbJsonWriter(made, **options) as writer:
        writer.write_all(records)
    return made.getvalue().decode()


def test_mb_json_writer() -> None:
    series = mf.Series(MB_UUID, "M\ud800", "#000000", visible=False)
    page = mf.Page(64, 0.5, b"\0\4\4")
    point = mf.Point(1.5, float("nan"), "n", MB_UUID, True, "GC", (mf.PageType("H", 0, (page,)),))
    head = '{"id":"123e4567-e89b-42d3-a456-426614174000","name":"M\\ud800","visible":false,"color":"#000000","data":['
    body = (
        '{"timestamp":1.5,"value":null,"pointId":"123e4567-e89b-42d3-a456-426614174000","name":"n",'
        '"meta":{"event":"GC","memory":{"pageTypes":[{"name":"H","pages":[{"size":64,%s,"occupancy":0.5}]}]}}}'
    )
    usual = body % '"freeList":[[0,32]]'
    assert text_of() == "[]"
    assert text_of(bom=True) == "\ufeff[]"
    assert text_of(series, series, point, point) == f"[{head}]}},{head}{usual},{usual}]}}]"
    assert text_of(series, point, bitmap=True) == f"[{head}{body}]}}]" % '"bitmap":"000404"'
    assert text_of(series, bom=True, single=True) == "\ufeff" + head + "]}"
    assert text_of(series, mf.Point(1.0, 2.0, event="E")) == head.join(
        ("[", '{"timestamp":1,"value":2,"meta":{"event":"E"}}]}]')
    )
    many = [series] + [point] * 1000
    assert text_of(*many) == f"[{head}{','.join([usual] * 1000)}]}}]"
    large = mf.Page(1 << 60, None, b"\0" + b"\xff" * 8 + b"\x7f")
    big = mf.Point(0.0, 0.0, page_types=(mf.PageType("", 1 << 55, (large,)),))  # has_meta goes without saying
    assert (
        '{"size":1152921504606847000,"freeList":[[0,73786976294838210000]]}],"uniformPageSize":36028797018963970}'
        in text_of(series, big)
    )


def test_mb_json_writer_misuse() -> None:
    series, point = mf.Series(), mf.Point(1.0, 2.0)
    for records, options, error in (
        ([point], {}, ValueError),
        ([series, series], {"single": True}, ValueError),
        ([5], {}, TypeError),
        ([series, point._replace(raw=b"\xff")], {}, ValueError),
        ([series, point._replace(page_types=cast("Any", (None,)))], {}, ValueError),
        ([series, point._replace(page_types=(mf.PageType("", 10**400),))], {}, ValueError),
        ([series._replace(id=b"\1" * 15)], {}, ValueError),
        ([series, point._replace(point_id=b"\1" * 17)], {}, ValueError),
    ):
        made = io.BytesIO()
        writer = mf.MbJsonWriter(made, **options)
        with pytest.raises(error):
            writer.write_all(cast("Any", records))
    single = mf.MbJsonWriter(io.BytesIO(), single=True)
    with pytest.raises(ValueError, match="no series"):
        single.close()
    with pytest.raises(ValueError, match="closed"):
        single.write(series)
    document = mf.open(io.BytesIO(b"[]"), format="mb-json").read()
    with mf.MbJsonWriter(io.BytesIO()) as writer:
        writer.write(series)
        with pytest.raises(ValueError, match="first thing written"):
            writer.write_document(document)


def test_mb_json_nests_without_harm() -> None:
    for depth in 5000, 300_000:
        for data in (
            b'{"data":[' + b"[" * depth,
            b'[{"a":' + b'{"b":' * depth,
            b'{"data":[{"a":' + b"[" * depth + b"]" * depth,
        ):
            fault = outcome(data, "mb-json").fault
            assert fault is not None
            assert fault.code in ("limit", "unsupported-version")
            assert [*mf.explain(io.BytesIO(data), "mb-json")][-1].value == fault.code
    brackets = b'[{"name":"","data":[{"timestamp":1,"value":2,"name":"' + b"[" * 400 + b'"}]}]'
    assert outcome(brackets, "mb-json").fault is None


def test_mb_json_is_read_without_the_quick_parser() -> None:
    """That gives up where the caller's stack is deep; what it would say is found out in another way then."""

    def give_up(_text: str, _at: int) -> Tuple[Any, int]:
        raise RecursionError

    for data in SMALL_FILES["mb-json"]:
        with mf.MbJsonReader(io.BytesIO(data), recover=True) as reader:
            reader._scan = reader._quick = reader._pass = give_up
            assert_same([*reader], outcome(data, "mb-json", recover=True).records)


def test_mb_json_values_of_other_types() -> None:
    page = '{"size":8,"occupancy":"half"},{"size":8,"bitmap":"' + "80" * 65 + '01"}'
    (point,) = json_points(
        '{"timestamp":1,"value":2,"name":{},"meta":{"event":false,"memory":{"pageTypes":[{"pages":[' + page + "]}]}}}"
    )
    assert (point.name, point.event, point.has_meta) == (None, None, True)
    assert point.page_types == (mf.PageType("", 0, (mf.Page(8, None, b"\1"), mf.Page(8, None, b"\x80" * 65 + b"\1"))),)
    with pytest.raises(mf.FormatError, match="more than 64 bytes"):
        mf.mb_json_conclusion(point)


def test_mb_json_fractions_and_infinities() -> None:
    """Sizes lose their fraction only once the runs have been made (mb 2, rule 4); a number is stored as its text."""
    pages = '{"size":16.5},{"size":16.5,"freeList":[[0,8]]},{},7'
    memory = '{"pageTypes":[{"pages":[' + pages + ']},{"pages":[{},7],"uniformPageSize":24.5}]}'
    (point,) = json_points(
        '{"timestamp":1,"value":"0x' + "f" * 290 + '","meta":{"event":-1e999,"memory":' + memory + "}}"
    )
    assert (point.value, point.event) == (float("inf"), "-Infinity")
    assert json_points('{"meta":{"event":1e999}}')[0].event == "Infinity"
    assert [[(page.size, page.run_stream.hex()) for page in one.pages] for one in point.page_types or ()] == [
        [(16, "03"), (16, "000102"), (0, "00"), (0, "00")],
        [(24, "04"), (24, "04")],
    ]


def test_mb_json_points_between_usual_ones() -> None:
    """What is not as a writer makes it keeps its own text, and those around it do not."""
    one = '{"timestamp":1,"value":2,"pointId":"123e4567-e89b-42d3-a456-426614174000","name":"n"}'
    odd = [
        one.replace('"n"', '""'),
        one.replace('"n"', '"n","seriesId":"s"'),
        one.replace("1,", "1.0,"),
        one.replace("123e4567", "123E4567"),
        one.replace("-42d3-", "-02d3-"),
        '{"timestamp":1,"value":2,"value":2}',
        '{"timestamp":9007199254740993,"value":2}',
        '{"timestamp":' + "9" * 400 + ',"value":2}',
    ]
    points = json_points(",".join([one, *[f"{point},{one}" for point in odd]]))
    assert [point.raw.decode() for point in points] == ["", *[part for point in odd for part in ("," + point, "")]]
    assert {point.timestamp for point in points} == {1.0, 9007199254740992.0, float("inf")}
    assert {point.name for point in points} == {"n", None}


def test_mb_json_cut_inside_an_escape() -> None:
    for size in range(8, 14):
        fault = outcome(b'[{"id":"\\u00e4'[:size], "mb-json").fault
        assert fault is not None
        assert place(fault) == ("truncated", 7, "series[0].id")


def test_mb_json_numbers_of_any_length() -> None:
    data = b'[{"name":"","data":[{"timestamp":1,"value":' + b"9" * 1_000_000 + b"}]}]"
    assert outcome(data, "mb-json").records[1].value == float("inf")
    digits = b"[" + b"8" * 1_000_000
    assert outcome(digits, "mb-json").fault is not None


def test_mb_json_is_found_by_its_keys() -> None:
    for text in b"[]", b" {}", b'[{"id"', b'{"x":1,"data":[', b'\xef\xbb\xbf[{"visible":1', b'{"meta":{},"series"':
        assert mf.detect(text) == "mb-json"
    assert mf.detect(b'[{"ptr":1,"data":2}]') == "memscope"
    for text in b"[1]", b'{"x":1}', b'{"format":"mb","data":1}', b"{", b"null":
        assert mf.detect(text) is None


# ---- mb: semantics, command line


COLORS = [("Main Process", "#42cad7"), ("", "#d74242"), ("forms", "#42d76e"), ("\u00e9\U0001f9e0", "#d77d42")]
COLORS += [("single \u00e9 \U0001f9e0", "#d7cd42"), ("all flags", "#ad42d7"), ("Main Process compacted", "#58d742")]


@pytest.mark.parametrize(("name", "color"), COLORS)
def test_mb_color(name: str, color: str) -> None:
    """By recordings of the application."""
    assert mf.mb_color(name) == color


def dump_of(*points: mf.Point, name: str = "P", like_upstream: bool = False) -> bytes:
    made = io.BytesIO()
    with mf.MbWriter(made, like_upstream=like_upstream) as writer:
        writer.write_all([mf.Series(MB_UUID, name), *points])
    return made.getvalue()


def snapshot(time: float, *pages: mf.Page, kind: str = "Heap", event: Optional[str] = None) -> mf.Point:
    return mf.Point(time, 0.0, None, b"", True, event, (mf.PageType(kind, 0, pages),))


def test_mb_conclusion_by_hand() -> None:
    pages = [mf.Page(64, 0.25), mf.Page(64, None, b"\4\2\2"), mf.Page(8, None, b"\0\4"), mf.Page(0), mf.Page(100, 0.0)]
    found = mf.mb_conclusion(snapshot(1.0, *pages))
    assert found is not None
    assert found == (5, 236.0, 64.0, 64 / 236, 3, 108.0, (("Heap", 5, 64 / 236, 236.0, 64.0),))
    assert mf.mb_conclusion(mf.Point(1.0, 2.0)) is None
    assert mf.mb_conclusion(snapshot(1.0)) == (0, 0.0, 0.0, 0.0, 0, 0.0, (("Heap", 0, 0.0, 0.0, 0.0),))


def json_points(*points: str) -> List[mf.Point]:
    text = '[{"name":"x","data":[' + ",".join(points) + "]}]"
    return outcome(text.encode(), "mb-json", recover=True).records[1:]


def test_mb_json_conclusion_by_hand() -> None:
    """Occupancy counts first, then freeList, then bitmap; a page with nothing is empty (mb 6.1, erratum 15)."""
    pages = (
        '{"size":64,"occupancy":0.5,"freeList":[]},{"size":100,"freeList":[[50,100]]},{"size":64,"bitmap":"0404"},'
        '{"size":64},{"size":64,"occupancy":null},{"size":10,"freeList":[[0,100],[1]]},{"size":8,"bitmap":"0080"},7,'
        '{"size":16,"freeList":[["8",16],5]}'
    )
    other = '{"name":7,"uniformPageSize":32,"pages":[{"size":5,"bitmap":"02"}]},{"pages":[]},5'
    head = '{"timestamp":1,"value":2,"meta":{"memory":'
    first, none, usual = json_points(
        head + '{"pageTypes":[{"name":"H","pages":[' + pages + "]}," + other + "]}}}",
        head + '{"conclusion":5}}}',
        head + '{"pageTypes":[{"name":"H","pages":[{"size":64,"freeList":[[0,32]]}]}]}}}',
    )
    found = mf.mb_json_conclusion(first)
    assert found is not None
    assert found.type_stats[0] == ("H", 9, (32 + 50 + 32 + 8 + 8) / 390, 390.0, 130.0)
    assert found.type_stats[1:] == (("", 1, 1.0, 32.0, 32.0), ("", 0, 0.0, 0.0, 0.0), ("", 0, 0.0, 0.0, 0.0))
    assert found[:6] == (10, 422.0, 162.0, 162 / 422, 3, 74.0)
    assert mf.mb_json_conclusion(none) is None
    assert not usual.raw or usual.raw.startswith(b",")
    assert mf.mb_json_conclusion(usual._replace(raw=b"")) == (1, 64.0, 32.0, 0.5, 0, 0.0, (("H", 1, 0.5, 64.0, 32.0),))
    assert mf.mb_json_conclusion(mf.Point(1.0, 2.0)) is None


def test_mb_analysis_by_hand() -> None:
    points = [
        mf.Point(1000.0, 5.0, "a"),
        mf.Point(1063.0, 9.0),
        mf.Point(float("nan"), 99.0),
        mf.Point(1064.0, 9.0, None, b"", True, "GC"),
        mf.Point(900.0, -1.0),
        mf.Point(1100.0, float("inf")),
        snapshot(1200.0, mf.Page(8, 0.5), event="S"),
    ]
    found = mf.mb_analysis(mf.open(io.BytesIO(dump_of(*points, like_upstream=True)), format="mb"))
    (use,) = found.series
    assert use[:5] == ("P", "123e4567-e89b-42d3-a456-426614174000", "#000000", True, 7)
    assert use[5:14] == (900.0, 1200.0, -1.0, 0.0, -1.0, 9.0, 1063.0, 1, 2)
    assert use.bucket_us == 8  # from 900 on, where -1 stands until 1000; 5 then, and 9 from 1063
    assert use.values == (*(-1,) * 12, *(5,) * 8, *(9,) * 18)
    assert [one[:5] for one in found.snapshots] == [(0, 6, 1200.0, "", "S")]
    below = [mf.Point(1.0, float("inf")), mf.Point(2.0, -7.0), mf.Point(2.0, -5.0)]
    assert mf.mb_analysis(mf.open(io.BytesIO(dump_of(*below)), format="mb")).series[0].values == (-5,)
    empty = mf.mb_analysis(mf.open(io.BytesIO(dump_of()), format="mb"))
    assert empty.series[0][4:9] == (0, None, None, None, None)
    assert empty.series[0].values == ()


def test_mb_compare_by_hand() -> None:
    page = [mf.Page(80, share) for share in (0.0, 0.5, 1.0)]
    old = snapshot(1.0, page[0], page[1], page[2])
    new = snapshot(2.0, page[1], page[1], page[0], page[2])
    assert mf.mb_compare(old, new) == (("Heap", (3, 4), (120.0, 160.0), 1, 1, 1, 0),)
    other = snapshot(2.0, page[2], kind="Stack")
    assert mf.mb_compare(old, other) == (
        ("Heap", (3, 0), (120.0, 0.0), 0, 0, 0, 3),
        ("Stack", (0, 1), (0.0, 80.0), 0, 0, 1, 0),
    )
    assert mf.mb_compare(mf.Point(1.0, 2.0), mf.Point(1.0, 2.0)) == ()


@pytest.fixture
def dumps(tmp_path: Path) -> Tuple[Path, Path]:
    paths = tmp_path / "demo.mb", tmp_path / "demo.json"
    for path, make in zip(paths, (mf._mb_demo, mf._mb_json_demo)):
        make(path)
    return paths


def test_mb_demo_is_one_file_in_two_forms(dumps: Tuple[Path, Path]) -> None:
    binary, text = dumps
    assert cli("convert", binary, "--to", "json") == Run(0, text.read_bytes(), "")
    assert cli("convert", text, "--to", "json").code == 0
    made = cli("convert", text, "--to", "mb")
    assert body_of(made.out) == body_of(binary.read_bytes())
    assert made.err == ""
    hexadecimal = cli("convert", binary, "--to", "json", "--bitmap")
    assert hexadecimal.err == ""
    assert b'"bitmap":"0018e803"' in hexadecimal.out
    assert b"freeList" not in hexadecimal.out
    path = text.with_name("bitmap.json")
    path.write_bytes(hexadecimal.out)
    assert body_of(cli("convert", path, "--to", "mb").out) == body_of(binary.read_bytes())
    again = json.loads(cli("convert", text, "--to", "json", "--bitmap").out)
    assert again[0]["data"][24]["meta"]["memory"]["pageTypes"][0]["pages"][0]["bitmap"] == "0018e803"
    assert "conclusion" in again[0]["data"][24]["meta"]["memory"]


def test_mb_info(dumps: Tuple[Path, Path], tmp_path: Path) -> None:
    lines = [cli("info", path).text.splitlines() for path in dumps]
    assert lines[0][2:] == lines[1][2:]
    assert lines[0][1:] == [
        "  version     2, gzip body",
        "  series      2: Main Process, Image Cache",
        "  points      120, 3 snapshots",
        "  from        2025-12-06T00:00:00.000000Z",
        "  to          2025-12-06T00:00:59.000000Z",
        "  pages       234 of the types Heap, Stack",
        "  problems    none",
    ]
    assert lines[1][1] == "  root        an array of series"
    path = tmp_path / "odd"
    for data, wanted in (
        (b"[]", ["series      0", "points      0, 0 snapshots"]),
        (b'{"data":[],"name":""}', ["root        one series", "series      1: (no name)"]),
        (dump_of(mf.Point(1e300, 1.0), snapshot(2.0)), ["to          1e+300 us", "pages       0 of the types Heap"]),
        (mb_file(b""), ["version     2, raw body"]),
    ):
        path.write_bytes(data)
        text = cli("info", path).text
        assert all(f"  {line}\n" in text for line in wanted), text


def test_mb_stats(dumps: Tuple[Path, Path], tmp_path: Path) -> None:
    text = cli("stats", dumps[0]).text
    assert cli("stats", dumps[1]).text.partition(":")[2] == text.partition(":")[2]
    assert text.startswith(f"{dumps[0]}: 120 points of 2 series, 3 snapshots\n\nMain Process, 60 points\n")
    assert "  peak        57.9 MiB at +49.000 s\n  marked      1 name, 2 events\n" in text
    assert (
        "       0  +24.000 s     66      0  280.0 KiB  256.0 KiB    91.4 %  Main Process, before the collection, GC"
        in text
    )
    assert "         2      2   24.0 KiB   12.0 KiB    50.0 %  Stack\n" in text
    assert "and 1 more series\n" in cli("stats", dumps[0], "--top", "1").text
    numbers = json.loads(cli("stats", dumps[0], "--json").text)
    peak = 48_000_000 + 350_000 * 24 + 90_000 * 49
    assert (numbers["series"][0]["most"], numbers["series"][0]["peak_us"]) == (peak, 1764979249000000.0)
    assert numbers["snapshots"][2]["conclusion"]["total_page_count"] == 101
    path = tmp_path / "odd.mb"
    points = [mf.Point(float("nan"), 1.0), snapshot(float("nan"), mf.Page(64, float("inf")))]
    path.write_bytes(dump_of(*points, name="", like_upstream=True))
    text = cli("stats", path).text
    assert "(no name), 2 points\n  values      none\n" in text
    assert "  none  " in text
    assert "  inf %  " in text
    path.write_bytes(dump_of(mf.Point(5.0, -1.0), snapshot(3.0)))
    text = cli("stats", path).text
    assert "first, last 0 bytes, -1 byte\n" in text  # by time
    assert "  peak        0 bytes at +0 us\n" in text
    minute = [mf.Point(1e15 + 6e7, 10.0), mf.Point(1e15, 500.0), mf.Point(1e15 + 3e7, 20.0), mf.Point(1e300, 0.0)]
    path.write_bytes(dump_of(*minute[:3]))
    assert (
        "  from        2001-09-09T01:46:40.000000Z\n  to          2001-09-09T01:47:40.000000Z\n"
        in cli("info", path).text
    )
    text = cli("stats", path).text
    assert "  from        2001-09-09T01:46:40.000000Z, 60.000 s\n" in text
    assert "  first, last 500 bytes, 10 bytes\n" in text
    assert "  peak        500 bytes at +0 us\n" in text
    (bars,) = re.findall("^  values      (.*)$", text, re.MULTILINE)
    assert (len(bars) <= 64, max(bars), bars[0]) == (True, "\u2588", "\u2588")
    path.write_bytes(dump_of(*reversed(minute)))
    text = cli("stats", path).text
    assert "  from        2001-09-09T01:46:40.000000Z, 1" in text
    path.write_bytes(dump_of(mf.Point(-1.7e308, 1.0), mf.Point(1.7e308, 2.0)))
    assert "  from        -1.7e+308 us, inf\n" in cli("stats", path).text


def test_mb_compare_command(dumps: Tuple[Path, Path], sample: Path) -> None:
    binary, text = dumps
    shown = cli("stats", binary, "--snapshots", "0,-1").text
    heap = "  +106.3 KiB  244.0 KiB  350.3 KiB     64    99      0      64     35        0  Heap\n"
    assert heap in shown
    times = "2025-12-06T00:00:24.000000Z and 2025-12-06T00:00:59.000000Z"
    assert shown.startswith(f"{binary}: snapshots of {times}, 256.0 KiB and 362.3 KiB used\n")
    for one, other in itertools.product(dumps, dumps):
        assert heap in cli("stats", one, other, "--snapshots", "0,2").text
        assert "  +0 bytes  350.3 KiB  350.3 KiB " in cli("stats", one, other).text
    changes = json.loads(cli("stats", binary, "--snapshots", "0,-1", "--json").text)["changes"]
    assert changes[0] == {
        "name": "Heap",
        "pages": [64, 99],
        "used": [249856.0, 358776.0],
        "grown": 0,
        "shrunk": 64,
        "added": 35,
        "removed": 0,
    }
    pair = json.loads(cli("stats", binary, text, "--snapshots", "0,-1", "--json").text)
    assert (pair["changes"], pair["files"]) == (changes, [str(binary), str(text)])
    assert "no snapshot 3: there are 3 snapshots" in refused("stats", binary, "--snapshots", "0,3", code=2)
    for asked in "--snapshots=-4,0", "--snapshots=0,5":
        path, number = (binary, -4) if "-4" in asked else (text, 5)
        reason = f"{path}: no snapshot {number}: there are 3 snapshots, counted from 0"
        assert refused("stats", binary, text, asked, code=2) == reason
    for wrong in "1", "1,2,3", "a,b":
        assert cli("stats", binary, "--snapshots", wrong).code == 2
    assert cli("stats", binary, sample).text == cli("stats", binary).text + cli("stats", sample).text


LOSSES = [
    (dump_of(name="\udcff"), "json", ".name: bytes that are not UTF-8 become U+FFFD"),
    (dump_of(name="\ufeffx"), "json", ".name: a leading U+FEFF is left out"),
    (dump_of(mf.Point(float("inf"), 1.0)), "json", "data[0].timestamp: not a number that JSON has: null"),
    (mb_file(mb_strings() + mb_list(mb_series(id=bytes(16)))), "json", ".id: an id of zeros"),
    (
        dump_of(snapshot(1.0, mf.Page(64, None, b"\1"))),
        "json",
        "data[0].meta.memory: runs that free ranges do not tell",
    ),
    (dump_of(snapshot(1.0, mf.Page(8, float("inf"), b"\1"))), "json", "meta.memory: not a number that JSON has: null"),
]
for text, wanted in (
    ('{"timestamp":"","value":1}', "data[0].timestamp: a timestamp that is not a number"),
    ('{"timestamp":1,"value":1,"x":1}', "note lossy: offset 0x16: series[0].data[0]: unknown key"),
    ('{"timestamp":"2026","value":1}', "note lossy: offset 0x16: series[0].data[0].timestamp: a time as text"),
):
    LOSSES.append((b'[{"name":"x","data":[ ' + text.encode() + b"]}]", "mb", wanted))
for text, wanted in (
    ('{"size":4294967296,"freeList":[]}', "a size of 2^32 or more is written modulo 2^32"),
    ('{"size":8,"freeList":[],"occupancy":-1}', "an occupancy of -1 stands for none"),
    ('{"size":8,"freeList":[],"occupancy":0.1}', "occupancy is rounded to 32 bits"),
    ('{"size":8,"freeList":[],"occupancy":1e300}', "occupancy is rounded to 32 bits"),
    ('{"size":100,"freeList":[[50,100]]}', "free ranges that are not whole units of 8 bytes in order"),
    ('{"size":100}', "a page with nothing but a size"),
):
    memory = '{"pageTypes":[{"pages":[' + text + ',{"size":8,"bitmap":"01"}]}]}'
    memory = '{"timestamp":1,"value":1,"meta":{"memory":' + memory + "}}"
    LOSSES.append((b'[{"name":"x","data":[' + memory.encode() + b"]}]", "mb", f"data[0].meta.memory: {wanted}"))
LOSSES.append((b'[{"name":"\\ud800","data":[]}]', "mb", ".name: a lone surrogate becomes U+FFFD"))
LOSSES.append((b'[{"name":"x","data":[],"owner":1}]', "json", "series[0]: unknown key"))


@pytest.mark.parametrize(("data", "to", "wanted"), LOSSES, ids=[wanted for *_, wanted in LOSSES])
def test_mb_losses_are_told(data: bytes, to: str, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    run = cli("convert", path, "--to", to)
    assert run.code == 0
    assert wanted in run.err
    assert all(line.startswith(f"memformats: {path}: ") for line in run.err.splitlines())
    if to == "json":
        assert mf.detect(run.out) == "mb-json"
    else:
        problems = mf.open(io.BytesIO(run.out), format="mb").read().problems
        assert [problem.code for problem in problems] == ["bad-varint"] * ("2^32" in wanted)


def test_mb_is_not_written_to_a_terminal(dumps: Tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    with io.open(slave, "w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        errors = io.StringIO()
        monkeypatch.setattr(sys, "stderr", errors)
        assert mf.main(["convert", str(dumps[1]), "--to", "mb"]) == 2
    assert "terminal; give -o FILE" in errors.getvalue()
    os.close(master)


def test_mb_conversion_of_text(tmp_path: Path) -> None:
    path = tmp_path / "file.mb"
    path.write_bytes(dump_of(mf.Point(1.0, 2.0, "\udce9\u20ac", event="\ufeffe"), name="\ufeffn"))
    value = json.loads(cli("convert", path, "--to", "json").out)
    assert (value[0]["name"], value[0]["data"][0]["name"], value[0]["data"][0]["meta"]["event"]) == (
        "n",
        "\ufffd\u20ac",
        "e",
    )
    text = tmp_path / "file.json"
    text.write_bytes(b'[{"name":"\\ud83e\\udde0\\ud83e","data":[]}]')
    (series,) = mf.open(io.BytesIO(cli("convert", text, "--to", "mb").out), format="mb").read().records
    assert series.name == "\U0001f9e0\ufffd"
    texts = [mf.Point(1.0, 2.0, f"name {number}") for number in range(5000)]
    path.write_bytes(dump_of(*texts, *texts[:10]))
    made = json.loads(cli("convert", path, "--to", "json").out)
    assert [point["name"] for point in made[0]["data"]] == [point.name for point in texts + texts[:10]]
    text.write_bytes(b'[{"name":"x","data":[{"timestamp":1,"meta":{"memory":{"conclusion":5,"2":[],"1":0}}}]}]')
    assert b'{"timestamp":1,"meta":{"memory":{"1":0,"2":[]}}}' in cli("convert", text, "--to", "json").out


# ==== 9.6 memscope ====================================================================================
#
# Files are built here byte by byte from the format text, apart from the module's writer.

MEMSCOPE_RECORDINGS = recordings("memscope")
each_memscope = pytest.mark.parametrize("path", MEMSCOPE_RECORDINGS, ids=lambda path: path.stem)
MEMSCOPE_LAYOUTS = ["1a", "1b", "1c", "2a", "2b", "2c", "2d", "3a", "3b", "3c"]
each_memscope_layout = pytest.mark.parametrize("layout", MEMSCOPE_LAYOUTS)
MS_JSON = ("smart_pointer_info", "memory_layout", *mf.MEMSCOPE_SLOTS)
MS_TIME = 1_755_000_000_000_000_000


def ms_text(text: Optional[bytes], layout: str = "3c") -> bytes:
    """A text, or none, by memscope 2."""
    if text is None:
        return b"\xfe\xff\xff\xff" if layout >= "2c" else bytes(4)
    return struct.pack("<I", len(text)) + text


def ms_pointer(kind: int = 0, *, full: bool = False) -> bytes:
    """A smart pointer by memscope 7.1."""
    if not full:
        return struct.pack("<QBIIBBBBB", 0x6000, 0, 0, 0, 0, 0, 0, 1, kind)
    clones = struct.pack("<IQQ", 2, 5, 6)
    history = struct.pack("<IQQQQQQ", 2, MS_TIME, 1, 2, MS_TIME + 1, 3, 4)
    return struct.pack("<QBQ", 0x6000, 1, 7) + clones + history + struct.pack("<BQBBBB", 1, 9, 1, 1, 0, kind)


MS_POINTER = mf.SmartPointer(0x6000, is_implicitly_deallocated=True)
MS_FULL_POINTER = mf.SmartPointer(
    0x6000, 7, (5, 6), (mf.RefCount(MS_TIME, 1, 2), mf.RefCount(MS_TIME + 1, 3, 4)), 9, True, True, False, "Box"
)


def ms_layout(level: int = 0) -> bytes:
    """A memory layout by memscope 7.2: of nothing, or of everything."""
    start = struct.pack("<QQ", 64, 8)
    if not level:
        return (
            start + bytes(4) + struct.pack("<QIdI", 4, 0, 0.0625, 0) + struct.pack("<ddQB", 0.9375, 80.5, 4, 0) + b"\0"
        )
    fields = struct.pack("<I", 1) + ms_text(b"len") + ms_text(b"") + struct.pack("<QQQB", 8, 16, 4, 1)
    places = struct.pack("<IQQB", 2, 1, 2, 1) + struct.pack("<QQB", 3, 4, 3) + ms_text(b"why")
    padding = struct.pack("<Q", 4) + places + struct.pack("<dI", 1e-7, 1) + ms_text(b"sort")
    suggestions = struct.pack("<I", 1) + ms_text(b"shrink") if level > 1 else b""
    efficiency = struct.pack("<ddQBQ", 0.5, 2.5e16, 4, level, 32) + suggestions
    return start + fields + padding + efficiency + b"\1" + ms_text(b'{"a":1}')


MS_LAYOUT = mf.MemoryLayout(64, 8, (), mf.PaddingInfo(4, (), 0.0625), mf.LayoutEfficiency(0.9375, 80.5, 4))
MS_FULL_LAYOUT = mf.MemoryLayout(
    64,
    8,
    (mf.FieldLayout("len", "", 8, 16, 4, True),),
    mf.PaddingInfo(
        4,
        (
            mf.PaddingLocation(1, 2, mf.PaddingReason("StructAlignment")),
            mf.PaddingLocation(3, 4, mf.PaddingReason("Other", "why")),
        ),
        1e-7,
        ("sort",),
    ),
    mf.LayoutEfficiency(0.5, 2.5e16, 4, mf.OptimizationPotential("Moderate", 32, ("shrink",))),
    '{"a":1}',
)
# By memscope 8: compact, in declared order, floats in the shortest form.
MS_POINTER_JSON = (
    b'{"data_ptr":24576,"cloned_from":null,"clones":[],"ref_count_history":[],"weak_count":null,"is_weak_reference":false,'
    b'"is_data_owner":false,"is_implicitly_deallocated":true,"pointer_type":"Rc"}'
)
MS_LAYOUT_JSON = (
    b'{"total_size":64,"alignment":8,"field_layout":[],"padding_info":{"total_padding_bytes":4,"padding_locations":[],'
    b'"padding_ratio":0.0625,"optimization_suggestions":[]},"layout_efficiency":{"memory_utilization":0.9375,'
    b'"cache_friendliness":80.5,"alignment_waste":4,"optimization_potential":"None"},"container_analysis":null}'
)
MS_FULL_LAYOUT_JSON = (
    '{"total_size":64,"alignment":8,"field_layout":[{"field_name":"len","field_type":"","offset":8,"size":16,"alignment":4,'
    '"is_padding":true}],"padding_info":{"total_padding_bytes":4,"padding_locations":[{"start_offset":1,"size":2,'
    '"reason":"StructAlignment"},{"start_offset":3,"size":4,"reason":{"Other":"why"}}],"padding_ratio":1e-7,'
    '"optimization_suggestions":["sort"]},"layout_efficiency":{"memory_utilization":0.5,"cache_friendliness":2.5e16,'
    '"alignment_waste":4,"optimization_potential":{"Moderate":{"potential_savings":32,"suggestions":["shrink"]}}},'
    '"container_analysis":{"a":1}}'
)


def ms_record(layout: str = "3c", **given: Any) -> bytes:
    """A record by memscope 6; ``given`` are parts that are not the usual ones, as they stand in the file."""
    part: Dict[str, bytes] = {
        "ptr": struct.pack("<Q", 0x1000),
        "size": struct.pack("<Q", 64),
        "alloc": struct.pack("<Q", MS_TIME),
        "dealloc": b"\0",
        "name": ms_text(b"v0"),
        "kind": ms_text(b"Vec<u8>"),
        "scope": ms_text(None, layout),
        "thread": ms_text(b"ThreadId(1)"),
        "stack": bytes(4),
        "borrow_count": bytes(4),
        "leaked": b"\0",
        "lifetime": b"\0",
        "borrow": b"\0",
        "clone": b"\0",
        "owned": b"\0",
        "pointer": b"\0",
        "memory": b"\0",
        "slots": bytes(12),
        **{key: value for key, value in given.items() if isinstance(value, bytes)},
    }
    names = [*part]
    if layout < "3b":
        names = [name for name in names if name not in ("borrow", "clone", "owned")]
    if layout < "1c":
        names = [name for name in names if name not in ("stack", "pointer", "memory", "slots")]
    if layout < "1b":
        names = ["ptr", "size", "alloc", "name", "kind", "thread"]
    body = b"".join(part[name] for name in names)
    return struct.pack("<BI", given.get("type", 1), given.get("length", len(body))) + body


def ms_header(layout: str, total: int, named: Optional[int] = None, **given: int) -> bytes:
    """A header by memscope 4, with the string block that real files have."""
    user = total if named is None else named
    value = {"version": int(layout[0]), "mode": 1, "user": user & 0xFFFF, "system": total - (user & 0xFFFF) & 0xFFFF}
    value = {**value, "features": 0, "unsafe": 0, "passports": 0, "reserved": 0, "padding": 0, **given}
    data = b"MEMSCOPE" + struct.pack("<II", value["version"], total)
    mode = struct.pack("<BHH", value["mode"], value["user"], value["system"])
    if layout == "2d":
        data += mode + struct.pack("<BH", value["reserved"], value["padding"])
    elif layout >= "3a":
        more = [value[name] for name in ("features", "unsafe", "passports", "reserved", "padding")]
        data += mode + struct.pack("<BHIHH", *more)
    return data


MS_NONE = b"NONE" + bytes(4)


def ms_file(layout: str, records: Sequence[bytes], block: bytes = MS_NONE, end: bytes = b"", **header: Any) -> bytes:
    total = header.pop("total", len(records))
    return ms_header(layout, total, **header) + (block if layout >= "2c" else b"") + b"".join(records) + end


def ms_block(*texts: bytes, **given: int) -> bytes:
    """A table of strings by memscope 5, which no real file has."""
    body = b"".join(map(ms_text, texts))
    head = (b"STBL", given.get("size", 5 + len(body)), given.get("flag", 0), given.get("number", len(texts)))
    return struct.pack("<4sIBI", *head) + body


def ms_metrics(bitmap: int, *lists: Sequence[bytes], **given: int) -> bytes:
    """ADVD by memscope 9."""
    body = b"".join(struct.pack("<I", len(entries)) + b"".join(entries) for entries in lists)
    return b"ADVD" + struct.pack("<III", given.get("size", 16 + len(body)), bitmap, given.get("reserved", 0)) + body


MS_ALIVE = b"\1" + struct.pack("<Q", 5)
MS_LIFECYCLE = struct.pack("<QQ", 0x1000, 5)
MS_BORROW = struct.pack("<BIIIBQ", 1, 4, 2, 3, 1, MS_TIME + 800_000)
MS_CLONE = struct.pack("<BIBBQ", 1, 2, 1, 1, 0x2000)


def ms_slots(**texts: bytes) -> bytes:
    return b"".join(b"\1" + ms_text(texts[name]) if name in texts else b"\0" for name in mf.MEMSCOPE_SLOTS)


def ms_objects(layout: str) -> Dict[str, bytes]:
    """A smart pointer and a memory layout as that layout stores them."""
    if layout in ("1c", "2a"):
        return {"pointer": b"\1" + ms_text(MS_POINTER_JSON), "memory": b"\1" + ms_text(MS_LAYOUT_JSON)}
    return {"pointer": b"\1" + ms_pointer(), "memory": b"\1" + ms_layout()}


def ms_records(layout: str) -> List[bytes]:
    """Records that have everything that the layout can hold."""
    freed = {"dealloc": b"\1" + struct.pack("<Q", MS_TIME + 9), "lifetime": MS_ALIVE, "leaked": b"\1"}
    stack = struct.pack("<I", 2) + ms_text(b"main") + ms_text(b"")
    return [
        ms_record(layout, **freed, **ms_objects(layout), slots=ms_slots(generic_info=b"{}", access_tracking=b"[1]")),
        ms_record(layout, name=ms_text(None, layout), kind=ms_text(None, layout), thread=ms_text(b""), stack=stack),
        ms_record(
            layout,
            scope=ms_text(b"main\xc3\xa9"),
            borrow=MS_BORROW,
            clone=MS_CLONE,
            owned=b"\1",
            borrow_count=b"\3\0\0\0",
        ),
        ms_record(layout, borrow=struct.pack("<BIIIB", 1, 1, 2, 3, 0), clone=struct.pack("<BIBB", 1, 0, 0, 0)),
    ]


def ms_rich(layout: str) -> bytes:
    """A file of all of that."""
    metrics = ms_metrics(0x23, [MS_LIFECYCLE + b"\0"], [struct.pack("<Q", 0x1000) + ms_text(MS_LAYOUT_JSON)])
    return ms_file(layout, ms_records(layout), named=3, end=metrics if layout >= "2a" else b"")


def ms_odd_pointers() -> List[bytes]:
    """With a flag that is neither 0 nor 1, and with more clones than there are bytes."""
    plain = ms_pointer()
    flagged = [plain[:8] + b"\2" + plain[9:], plain[:-4] + b"\2" + plain[-3:]]
    return [*flagged, plain[:9] + b"\xff\xff\xff\x7f" + plain[13:], plain]


def ms_odd_layouts() -> List[bytes]:
    """The same of a memory layout, and with texts that are longer than the file."""
    full = ms_layout(2)
    return [
        full.replace(struct.pack("<QB", 4, 1), struct.pack("<QB", 4, 2)),
        full[: -len(ms_text(b'{"a":1}')) - 1] + b"\2",
        full.replace(ms_text(b"len"), b"\xff\xff\xff\x7flen"),
        full.replace(ms_text(b"sort"), ms_text(b"\xff")),
    ]


def ms_odd() -> List[bytes]:
    """Files of layout 3c with what is unusual."""
    reference = b"\xff\xff\0\0\1\0"
    return [
        ms_file("3c", [ms_record(name=reference), ms_record(thread=reference)], ms_block(b"a", b"a", b"v1", flag=1)),
        ms_file(
            "3c",
            [
                ms_record(leaked=b"\2"),
                ms_record(dealloc=b"\3", owned=b"\7"),
                ms_record(clone=b"\2"),
                ms_record(owned=b"\2"),
            ],
        ),
        ms_file("3c", [ms_record(name=ms_text(b"\xff"), slots=ms_slots(type_usage=b"{\xc3}"))]),
        ms_file("3c", [ms_record(length=7), ms_record(length=2_000_000), ms_record()]),
        ms_file("3c", [ms_record(owned=b"\0x", length=70 + 20), ms_record(pointer=b"\1" + ms_pointer(9)), ms_record()]),
        ms_file("3c", [ms_record(pointer=b"\1" + ms_pointer(full=True, kind=4), memory=b"\1" + ms_layout(2))]),
        ms_file("3c", [ms_record(memory=b"\1" + ms_layout(1)), ms_record(memory=b"\1" + ms_layout(3))]),
        ms_file(
            "3c", [ms_record(scope=reference), *[ms_record(stack=b"\1\0\0\0" + reference)] * 2], ms_block(b"a", b"b")
        ),
        ms_file(
            "3c", [ms_record(borrow=b"\1" + bytes(12) + b"\2"), *[ms_record(slots=b"\1" + reference + bytes(11))] * 2]
        ),
        ms_file("3c", [ms_record(pointer=b"\1" + one) for one in ms_odd_pointers()]),
        ms_file("3c", [ms_record(memory=b"\1" + one) for one in ms_odd_layouts()]),
        ms_file("2a", [ms_record("2a", slots=b"\2" + bytes(11)), ms_record("2a", name=ms_text(b"a\xff"))]),
        ms_file("3c", [ms_record()], end=b"more", mode=2, reserved=1, padding=2),
        ms_file("3c", [ms_record()], total=3, end=ms_metrics(7, [], [], [], size=3, reserved=1)),
        ms_file("3c", [ms_record(type=2), ms_record(type=3), ms_record()], user=3, system=9),
        ms_file("3c", [ms_record()], version=2),
        ms_file("3c", [ms_record()], version=9),
        ms_file("3a", [ms_record("3a", length=9), ms_record("3a"), ms_record("3a")]),
        ms_file("2a", [ms_record("2a"), *ms_records("2a")], end=b"ADVD"),
        ms_file("3c", [ms_record(pointer=b"\1" + ms_pointer(9)), ms_record()], end=ms_metrics(0x10)),
        ms_file("3c", [ms_record(), ms_record(pointer=b"\1" + ms_pointer(9))], end=b""),
    ]


def ms_list(*members: str, end: str = "\n]") -> bytes:
    """A file of layout T as the program writes it."""
    return ("[\n" + ",\n".join("  {\n" + one + "\n  }" for one in members) + end).encode()


MS_MEMBERS = """    "ptr": 4096,
    "size": 64,
    "var_name": "v0",
    "type_name": null,
    "scope_name": null,
    "timestamp_alloc": 1755000000000000000,
    "timestamp_dealloc": 1755000000000000009,
    "thread_id": "ThreadId(1)",
    "borrow_count": 3,
    "stack_trace": [
      "main",
      "\\n"
    ],
    "is_leaked": true,
    "lifetime_ms": 5,
    "borrow_info": {
      "immutable_borrows": 1,
      "mutable_borrows": 2,
      "max_concurrent_borrows": 3,
      "last_borrow_timestamp": null
    },
    "clone_info": {
      "clone_count": 0,
      "is_clone": false,
      "original_ptr": null
    },
    "ownership_history_available": true,
    "smart_pointer_info": null,
    "memory_layout": null,
    "generic_info": {
      "a": [],
      "b": {},
      "c": 1e-7
    },
""" + ",\n".join(f'    "{name}": null' for name in (*mf.MEMSCOPE_SLOTS[1:], "drop_chain_analysis"))
MS_MODULE = MS_MEMBERS + ',\n    "module_path": "app::main"'
MS_SHORT = '    "ptr": 4096, "x": "\\u00e9", "size": 64, "timestamp_alloc": 5'
MS_LISTS = [
    ms_list(MS_MEMBERS, MS_MODULE),
    ms_list(MS_SHORT, MS_SHORT, end="\n ]\n"),
    ms_list(MS_SHORT, '    "ptr": -1', end="]"),
    b"[]",
    b"\xef\xbb\xbf" + ms_list(MS_SHORT, end="]x"),
]

SMALL_FILES["memscope"] = [
    ms_file("3c", [ms_record(), ms_record(name=ms_text(None), borrow=MS_BORROW)], named=1),
    ms_file("3c", []),
    *[ms_rich(layout) for layout in MEMSCOPE_LAYOUTS],
    *ms_odd(),
    *MS_LISTS[:3],
    MS_LISTS[4],
]
STEPPED_OVER["memscope"] = [("unsupported-version", "version")]


def big_memscope(shift: int) -> bytes:
    """About 70 KB; the first record is as much longer as is asked for."""
    long = ms_record(slots=ms_slots(stack_allocation=b'"' + b"x" * 1400 + b'"'))
    first = ms_record(name=ms_text(b"v" * (2 + shift)))
    return ms_file("3c", [first, *[*ms_records("3c"), long] * 35], named=1 + 4 * 35)


BIG["memscope"] = big_memscope
HOSTILE["memscope"] = [
    *[ms_file(layout, [], total=2**32 - 1) for layout in MEMSCOPE_LAYOUTS],
    ms_file("3c", [ms_record(length=2**32 - 1)]),
    ms_file("3c", [ms_record(name=b"\xf0\xff\xff\xff")] * 500),
    ms_file("3c", [ms_record(stack=b"\xff\xff\xff\x7f")] * 500),
    ms_file("3c", [ms_record(length=1)] * 1000),
    ms_file("3c", [ms_record(type=2)] * 1000),
    ms_file("1a", [ms_record("1a")] * 500),
    ms_file("3c", [ms_record(slots=ms_slots(type_usage=b"[" * 60_000))]),
    ms_file("3c", [ms_record(slots=ms_slots(type_usage=b"9" * 1_000_000))]),
    ms_file("3c", [ms_record(pointer=b"\1" + ms_pointer()[:9] + b"\xff" * 4 + bytes(30_000))]),
    ms_file("3c", [], ms_block(*[b""] * 12_000)),
    ms_file("3c", [], ms_block(number=2**32 - 1, size=2**32 - 1)),
    ms_file("3c", [], end=b"ADVD" + b"\xff" * 30_000),
    ms_header("3c", 9) + MS_NONE + b"\xff" * 100_000,
    ms_header("1a", 9) + bytes(30_000),
    b'[{"ptr": ' + b"[" * 100_000,
    b'[{"ptr": ' + b"9" * 1_000_000 + b"}]",
    ms_list(*[MS_SHORT] * 500),
]
KILLED["memscope"] = Killed(
    """
writer = mf.MemscopeWriter(path)
def write(number):
    writer.write(mf.Allocation(0x1000, 64, number, var_name="v", type_name="T" * (number % 9), thread_id="main"))
""",
    mf.Allocation,
    "timestamp_alloc",
)


def ms_value(hint: Any, path: str, found: Dict[str, mf.Span], texts: Sequence[str], layout: str) -> Any:
    """A value of a record from the spans of an explanation, by the type that the record says it has."""
    kinds = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        size = cast("int", found[path + "_count"].value)
        inner = "" if hasattr(kinds[0], "_fields") else ".value"
        return tuple(ms_value(kinds[0], f"{path}[{number}]{inner}", found, texts, layout) for number in range(size))
    if type(None) in kinds:
        if f"{path}_present" in found and found[f"{path}_present"].value != 1:
            return None
        if str in kinds and f"{path}_length" in found:
            none = 0xFFFFFFFE if layout >= "2c" else 0
            known = path.endswith(("var_name", "type_name", "scope_name"))
            return (
                None if known and found[f"{path}_length"].value == none else ms_value(str, path, found, texts, layout)
            )
        trace = ms_value(kinds[0], path, found, texts, layout)
        return None if path.endswith("stack_trace") and not trace else trace
    if hint in (mf.PaddingReason, mf.OptimizationPotential):
        names = ["FieldAlignment", "StructAlignment", "EnumDiscriminant", "Other"]
        if hint is mf.OptimizationPotential:
            names = ["None", "Minor", "Moderate", "Major"]
        stored = [key for key in hint._fields[1:] if any(one.startswith(f"{path}.{key}") for one in found)]
        hints = typing.get_type_hints(hint)
        more = {key: ms_value(hints[key], f"{path}.{key}", found, texts, layout) for key in stored}
        return hint(names[cast("int", found[path].value)], **more)
    if hasattr(hint, "_fields"):
        hints = typing.get_type_hints(hint)
        return hint(*[ms_value(hints[key], f"{path}.{key}", found, texts, layout) for key in hint._fields])
    if path.endswith("pointer_type"):
        return ["Rc", "Arc", "RcWeak", "ArcWeak", "Box"][cast("int", found[path].value)]
    if hint is bool:
        flag = found[path].value
        return flag == 1 if ".smart_pointer_info." in path else flag != 0
    if hint is str and f"{path}_reference" in found:
        return texts[cast("int", found[f"{path}_reference"].value)]
    return found[path].value if hint is not str or path in found else ""


MS_HINTS = typing.get_type_hints(mf.Allocation)


def ms_compact(value: Any) -> str:
    """Parsed JSON as the program writes it (memscope 8), by way of decimal digits."""
    if isinstance(value, dict):
        return "{" + ",".join(ms_compact(key) + ":" + ms_compact(item) for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(ms_compact, value)) + "]"
    if isinstance(value, float) and abs(value) != float("inf"):
        sign, digits, exponent = Decimal(repr(value)).as_tuple()
        power = cast("int", exponent) + len(digits) - 1
        if value and not -5 <= power < 16:
            tail = "".join(map(str, digits[1:])).rstrip("0")
            return "-" * sign + str(digits[0]) + ("." + tail if tail else "") + f"e{power}"
        plain = f"{Decimal(repr(value)):f}"
        return plain if "." in plain else plain + ".0"
    return "null" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def rebuild_memscope(spans: List[mf.Span], data: bytes) -> Rebuilt:
    """Header and records from the paths and values of an explanation."""
    if spans and spans[0].path == "list":
        return rebuild_memscope_list(spans, data)
    header = {
        span.path: span.value for span in spans if span.path in mf.MemscopeHeader._fields and span.type != "unread"
    }
    texts: List[str] = []
    for span in spans:
        match = re.fullmatch(r"string_block\.strings\[\d+\]\.value(_length)?", span.path)
        if match and span.type != "unread" and (match[1] is None or span.value == 0):
            text = cast("str", span.value) if match[1] is None else ""
            if text not in texts:
                texts.append(text)
    groups: List[Tuple[str, List[mf.Span]]] = []
    for span in spans:
        path = re.match(r"allocations\[\d+\]", span.path)
        if path and groups and groups[-1][0] == path[0]:
            groups[-1][1].append(span)
        elif path:
            groups.append((path[0], [span]))
    records: List[Any] = []
    family = ""
    skipped = b""
    unread = spans[-1] if spans and spans[-1].type == "unread" else None
    for path_of_record, group in groups:
        own = data[group[0].offset : group[-1].offset + group[-1].size]
        if group[-1].type == "unread":
            assert len(group) == 1 or group[-1] is unread
            skipped += own
            family = family or {"1": "1c", "2": ms_family_of_2(data)}.get(str(header.get("version")), "3c")
            continue
        found = {span.path: span for span in group}
        layout = ms_layout_of(path_of_record, found, data)
        family = family or layout
        where = path_of_record + "."
        values = {}
        for name, hint in MS_HINTS.items():
            if name == "raw" or not any(path.startswith(where + name) for path in found):
                continue
            one = hint
            if name in ("smart_pointer_info", "memory_layout"):
                one = Union[str, None] if f"{where}{name}_length" in found else Union[typing.get_args(hint)[0], None]
            values[name] = ms_value(one, where + name, found, texts, layout)
        flags = [span for span in group if span.type == "u8" and cast("int", span.value) > 1]
        odd = [span for span in flags if not span.path.endswith(("pointer_type", "reason", "optimization_potential"))]
        exact = found[where + "length"].value == len(own) - 5 and where + "rest" not in found
        usual = exact and not odd and not any(span.type == "u16" for span in group)
        usual = usual and not skipped and (family == layout or {family, layout} == {"2a", "2b"})
        records.append(mf.Allocation(**{**values, "raw": b"" if usual else skipped + own}))
        skipped = b""
    return mf.MemscopeHeader(**cast("Json", header)) if header else None, records


def ms_family_of_2(data: bytes) -> str:
    places = [("2d", 24), ("2c", 16), ("3c", 32)]
    return next((layout for layout, at in places if data[at : at + 4] in (b"NONE", b"STBL")), "2b")


def ms_layout_of(path: str, found: Dict[str, mf.Span], data: bytes) -> str:
    """The layout that a record was read in."""
    version = data[8]
    family = ms_family_of_2(data) if version == 2 else "1c" if version == 1 else "3c"
    if family == "3c":
        return "3c" if path + ".borrow_info_present" in found else "3a"
    if family == "1c" and path + ".stack_trace_count" not in found:
        return "1b" if path + ".borrow_count" in found else "1a"
    return family


def rebuild_memscope_list(spans: List[mf.Span], data: bytes) -> Rebuilt:
    records: List[Any] = []
    end = 0
    members: Json = {}
    for span in spans:
        if span.type == "json":
            members[span.path.partition(".")[2]] = span.value
        elif span.path.endswith("].end"):
            values: Json = {}
            parsed = {}
            for key, value in members.items():
                hint = MS_HINTS.get(key)
                parsed[key] = json.loads(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
                if key in (*MS_JSON, "drop_chain_analysis"):
                    whole = data[end : span.offset].decode()
                    parsed[key] = value = ms_member(whole, key)
                    values[key] = None if value is None else ms_compact(value)
                elif key == "borrow_info":
                    values[key] = parsed[key] and mf.BorrowInfo(
                        *[parsed[key].get(one) for one in mf.BorrowInfo._fields]
                    )
                elif key == "clone_info":
                    values[key] = parsed[key] and mf.CloneInfo(*[parsed[key].get(one) for one in mf.CloneInfo._fields])
                elif key == "stack_trace":
                    values[key] = None if value is None else tuple(parsed[key])
                elif hint is not None and key != "raw":
                    values[key] = value
            record = mf.Allocation(**values)
            own = data[end : span.offset + span.size]
            records.append(record if own == ms_element(record, first=not records) else record._replace(raw=own))
            end = span.offset + span.size
            members = {}
    return mf.MemscopeHeader(0), records


def ms_member(text: str, key: str) -> Any:
    """A member of the object that a text ends with, but for its last brace."""
    start = text.index("{")
    return json.loads(text[start:] + "}")[key]


def ms_element(record: mf.Allocation, *, first: bool) -> bytes:
    """A record as layout T has it, by way of Python's own indented JSON."""
    order = re.findall(r'^    "(\w+)":', MS_MODULE, re.MULTILINE)
    members: Json = {}
    for name in order:
        value = getattr(record, name)
        if name in ("borrow_info", "clone_info") and value is not None:
            value = value._asdict()
        elif name in (*MS_JSON, "drop_chain_analysis") and value is not None:
            value = json.loads(value)
        if name != "module_path" or value is not None:
            members[name] = value
    text = json.dumps(ms_marked(members), indent=2, ensure_ascii=False)
    text = re.sub(r'"\x7f\x7f(.*?)\x7f\x7f"', r"\1", text).replace("\n", "\n  ")
    return ("[\n  " if first else ",\n  ").encode() + text.encode("utf-8", "replace")


def ms_marked(value: Any) -> Any:
    """The same with floats as texts of their digits, between marks."""
    if isinstance(value, dict):
        return {key: ms_marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [ms_marked(item) for item in value]
    return f"\x7f\x7f{ms_compact(value)}\x7f\x7f" if isinstance(value, float) else value


REBUILD["memscope"] = rebuild_memscope


def test_memscope_oracle_on_small_files() -> None:
    for data in SMALL_FILES["memscope"]:
        for size in range(len(data) + 1):
            if size % 19 == len(data) % 19:
                check_readings(data[:size], "memscope")


# ---- memscope: recordings


def ms_lean(kind: Any, value: Any) -> Any:
    """An object of an expected.json as a document has it: without what is at its default."""
    if value is None or not hasattr(kind, "_fields"):
        return value
    made = {}
    for name, hint in typing.get_type_hints(kind).items():
        inner = [one for one in (*typing.get_args(hint), hint) if hasattr(one, "_fields")]
        usual = kind._field_defaults.get(name)
        item = value.get(name)
        if hint is mf.PaddingReason:
            other = isinstance(item, dict)
            item = {**({"kind": "Other"} if other else {"kind": item}), **({"text": item["Other"]} if other else {})}
            item = {key: one for key, one in item.items() if one != mf.PaddingReason._field_defaults[key]}
        elif hint is mf.OptimizationPotential and item == "None":
            continue
        elif hint is mf.OptimizationPotential:
            ((label, members),) = item.items()
            item = {"kind": label, **{key: one for key, one in members.items() if one}}
        elif name == "container_analysis":
            item = None if item is None else ms_compact(item)
        elif inner and isinstance(item, list):
            item = [ms_lean(inner[0], one) for one in item]
        elif inner:
            item = ms_lean(inner[0], item)
        if item in (usual, [] if usual == () else usual) or item == {}:
            continue
        made[name] = item
    return made


def ms_document_of(expected: Json) -> Json:
    """The decode document that the recording has to give; slots are texts there and parsed values here."""
    layout = expected["layout"]
    header = {("features" if key == "features_enabled" else key): one for key, one in expected["header"].items()}
    if layout >= "2d":
        header.setdefault("padding", 0)
    records = []
    for one in expected["records"]:
        record: Json = {"record": "Allocation", **one}
        for name in MS_JSON:
            record[name] = None if one.get(name) is None else ms_compact(one[name])
        if layout >= "2b":
            record["smart_pointer_info"] = ms_lean(mf.SmartPointer, one.get("smart_pointer_info"))
            record["memory_layout"] = ms_lean(mf.MemoryLayout, one.get("memory_layout"))
        record["borrow_info"] = ms_lean(mf.BorrowInfo, one.get("borrow_info"))
        record["clone_info"] = ms_lean(mf.CloneInfo, one.get("clone_info"))
        records.append(record)
    metrics = expected["advanced_metrics"]
    if metrics is not None:
        lists = {name: metrics[name] for number, name in enumerate(("lifecycle", "container", "type_usage"))}
        kept = {
            name: one for number, (name, one) in enumerate(lists.items()) if metrics["metrics_bitmap"] >> number & 1
        }
        kept["lifecycle"] = [{key: one for key, one in entry.items() if one is not None} for entry in kept["lifecycle"]]
        metrics = {"segment_size": metrics["segment_size"], "metrics_bitmap": metrics["metrics_bitmap"], **kept}
    tables = {"layout": {"3b": "3c"}.get(layout, layout), **({"advanced_metrics": metrics} if metrics else {})}
    return {"format": "memscope", "schema": 1, "header": header, **tables, "records": records}


@each_memscope
def test_memscope_recording(path: Path) -> None:
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    read = json.loads(decoded(path.read_bytes(), "memscope"))
    assert normal(read) == normal(ms_document_of(expected))
    with mf.MemscopeReader(path) as reader:
        for record, one in itertools.zip_longest(reader, expected["records"]):
            parsed = {name: record.slot(name) for name in MS_JSON if name in one}
            assert parsed == {name: one[name] for name in MS_JSON if name in one}
        assert reader.layout == {"3b": "3c"}.get(expected["layout"], expected["layout"])


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.id.startswith("memscope/recorded/")], ids=lambda v: v.id)
def test_memscope_recorded_vectors_are_the_recordings(vector: Vector) -> None:
    path = RECORDINGS / "memscope" / (vector.id.split("/")[-1] + ".memscope")
    if path.exists():
        assert vector.data == path.read_bytes()
        expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
        assert normal({**vector.about["expect"], "problems": []}) == normal(ms_document_of(expected))


def test_memscope_layouts_are_told_apart_early() -> None:
    for layout in MEMSCOPE_LAYOUTS:
        reader = mf.MemscopeReader(io.BytesIO(ms_rich(layout)))
        assert reader.layout == reader.family == ("3c" if layout == "3b" else layout)
    late = ms_file("2a", [ms_record("2a")] * 3 + [ms_record("2a", **ms_objects("2a"))])
    with mf.MemscopeReader(Trickle(late, itertools.repeat(1))) as reader:
        layouts = [reader.layout for _ in reader]
    assert layouts == ["2b", "2b", "2b", "2a"]


def test_memscope_metrics_come_last() -> None:
    with mf.MemscopeReader(io.BytesIO(ms_rich("3c"))) as reader:
        assert reader.advanced_metrics is None
        list(reader)
        metrics = (mf.LifecycleMetric(0x1000, 5),), (mf.JsonMetric(0x1000, MS_LAYOUT_JSON.decode()),)
        assert reader.advanced_metrics == mf.AdvancedMetrics(
            16 + 4 + 17 + 4 + 12 + len(MS_LAYOUT_JSON), 0x23, 0, *metrics
        )


def test_memscope_slots_are_parsed_on_demand() -> None:
    slots = ms_slots(generic_info=b'{"a": [1.0, null]}', runtime_state=b"{", type_usage=b"9" * 5000)
    one = ms_record(slots=slots, pointer=b"\1" + ms_pointer(), memory=b"\1" + ms_layout(2))
    (record,) = mf.MemscopeReader(io.BytesIO(ms_file("3c", [one])))
    assert (record.generic_info, record.slot("generic_info")) == ('{"a": [1.0, null]}', {"a": [1.0, None]})
    assert record.slot_text("smart_pointer_info") == MS_POINTER_JSON.decode()
    assert record.slot_text("memory_layout") == MS_FULL_LAYOUT_JSON
    assert record.slot("memory_layout") == json.loads(MS_FULL_LAYOUT_JSON)
    assert record.slot("access_tracking") is record.slot_text("access_tracking") is None
    for name in "runtime_state", "type_usage":
        with pytest.raises(mf.FormatError) as caught:
            record.slot(name)
        assert (caught.value.code, caught.value.where) == ("bad-json", name)


def test_memscope_counts_modulo_65536() -> None:
    """memscope 4, with fewer records: 70,000, of which 66,000 are named."""
    records = [ms_record(slots=bytes(12))] * 66_000 + [ms_record(name=ms_text(None))] * 4_000
    data = ms_file("3c", records, named=66_000)
    assert struct.unpack_from("<HH", data, 17) == (464, 70_000 - 464 - 65_536)
    read = outcome(data, "memscope")
    assert len(read.records) == 70_000
    assert [place(problem) for problem in read.problems] == [("bad-count", 12, "total_count")]
    assert read.problems[0].severity == "note"
    assert memscope_written(read.records, mode="full") == data[:21] + b"\3" + data[22:]


def test_memscope_faults_cost_no_memory_and_no_time() -> None:
    """What claims to be large, in each of many records: read once, and nothing is made of the claim."""
    records = [ms_record(length=0xFFFFFFFF), ms_record(name=struct.pack("<I", 0x7FFFFFFF) + b"v0"), ms_record()] * 2000
    start = time.perf_counter()
    read = outcome(ms_file("3c", records), "memscope", recover=True)
    assert time.perf_counter() - start < 20
    assert len(read.records) == 4000
    assert [problem.times for problem in read.problems if problem.severity == "fault"] == [2000]


# ---- memscope: Writer


@each_memscope
def test_memscope_writer_makes_the_recordings(path: Path) -> None:
    layout = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))["layout"]
    with mf.MemscopeReader(path) as reader:
        records = [*reader]
    options: Json = {"metrics": None if reader.advanced_metrics is None else "default"}
    if layout >= "2d":
        legacy = "config" in path.stem or "advd" in path.stem
        options["mode"] = "legacy" if legacy else "full" if reader.header.export_mode else "user"
    assert memscope_written(records, layout, **options) == path.read_bytes()


@each_memscope_layout
def test_memscope_writer(layout: str) -> None:
    """All that a layout can hold, in the usual form and by way of layout T."""
    records = [*mf.MemscopeReader(io.BytesIO(ms_rich(layout)))]
    metrics = "default" if layout >= "2a" else None
    wanted = ms_rich(layout)
    if layout == "3c":
        wanted = wanted[:21] + b"\3" + wanted[22:]
    assert memscope_written(records, layout, metrics=metrics) == wanted
    text = memscope_written(records, "T")
    assert json.loads(text)[0]["thread_id"] == "ThreadId(1)"
    back = [*mf.MemscopeReader(io.BytesIO(text))]
    assert memscope_written(back, layout, metrics=metrics) == wanted
    assert memscope_written(back, "T") == text


@each_memscope_layout
def test_memscope_old_records_in_the_layout_of_today(layout: str) -> None:
    records = [*mf.MemscopeReader(io.BytesIO(ms_rich(layout)))]
    today = [*mf.MemscopeReader(io.BytesIO(memscope_written(records)))]
    objects = {"smart_pointer_info": MS_POINTER, "memory_layout": MS_LAYOUT} if layout >= "1c" else {}
    assert_same(today, [records[0]._replace(**objects), *records[1:]])


def test_memscope_writer_objects() -> None:
    objects: Json = {"smart_pointer_info": MS_FULL_POINTER, "memory_layout": MS_FULL_LAYOUT}
    record = mf.Allocation(0x1000, 64, MS_TIME, None, "v0", "Vec<u8>", thread_id="ThreadId(1)", **objects)
    wanted = ms_file("3c", [ms_record(pointer=b"\1" + ms_pointer(4, full=True), memory=b"\1" + ms_layout(2))])
    texts: Json = {name: record.slot_text(name) for name in objects}
    as_text = record._replace(**texts)
    parsed = mf.Allocation(1, 2, 3, generic_info=cast("Any", {"a": [1e-7, "\u00e9"]}))
    (back,) = mf.MemscopeReader(io.BytesIO(memscope_written([parsed])))
    assert back.generic_info == '{"a":[1e-7,"\u00e9"]}'
    for one in record, as_text:
        assert memscope_written([one], mode="legacy") == wanted[:16] + b"\0" + wanted[17:]
    assert memscope_written([record], "2a")[16:] == ms_record(
        "2a",
        pointer=b"\1" + ms_text(cast("str", as_text.smart_pointer_info).encode()),
        memory=b"\1" + ms_text(MS_FULL_LAYOUT_JSON.encode()),
    )
    minor = mf.MemoryLayout(
        1, 1, layout_efficiency=mf.LayoutEfficiency(0.0, 0.0, 0, mf.OptimizationPotential("Minor", 3))
    )
    assert '"optimization_potential":{"Minor":{"potential_savings":3}}' in str(
        record._replace(memory_layout=minor).slot_text("memory_layout")
    )


def test_memscope_writer_modes() -> None:
    named, nameless = mf.Allocation(1, 2, 3, var_name=""), mf.Allocation(4, 5, 6)
    for mode, export_mode, counts, features in ("full", 1, (1, 1), 3), ("user", 0, (1, 0), 3), ("legacy", 0, (2, 0), 0):
        data = memscope_written([named, nameless], mode=mode)
        reader = mf.MemscopeReader(io.BytesIO(data), strict=True)
        assert len([*reader]) == sum(counts) == reader.header.total_count
        header = reader.header
        assert (header.export_mode, header.user_count, header.system_count) == (export_mode, *counts)
        assert header.features == features


def test_memscope_writer_metrics() -> None:
    record = mf.Allocation(0x1000, 64, MS_TIME, lifetime_ms=5, lifecycle_tracking="{}", memory_layout=MS_LAYOUT)
    layout = struct.pack("<Q", 0x1000) + ms_text(MS_LAYOUT_JSON)
    for metrics, bitmap in ("default", 0x23), ("comprehensive", 0x3FB):
        section = ms_metrics(bitmap, [MS_LIFECYCLE + b"\1" + ms_text(b"{}")], [layout])
        assert memscope_written([record, mf.Allocation(1, 2, 3)], metrics=metrics).endswith(section)
    assert memscope_written([], "2c", metrics="default") == ms_file("2c", [], end=ms_metrics(0x23, [], []))


def test_memscope_writer_of_a_layout_without_a_header() -> None:
    assert memscope_written([], "T") == b"[]"
    file = Trickle(b"", ())
    with mf.MemscopeWriter(file, layout="T") as writer:
        writer.write(mf.Allocation(1, 2, 3))
    assert json.loads(file.getvalue())[0]["ptr"] == 1


def test_memscope_writer_flushes(tmp_path: Path) -> None:
    path = tmp_path / "file.memscope"
    with mf.MemscopeWriter(path) as writer:
        for number in range(1200):
            writer.allocation(number, 64, MS_TIME, var_name=f"v{number}", smart_pointer_info=MS_POINTER)
        writer.flush()
        wanted = [
            mf.Allocation(number, 64, MS_TIME, var_name=f"v{number}", smart_pointer_info=MS_POINTER)
            for number in range(1200)
        ]
        assert_same(outcome(path.read_bytes(), "memscope").records, wanted)
        writer.allocation(1, 2, 3)
    assert len(outcome(path.read_bytes(), "memscope").records) == 1201
    with pytest.raises(ValueError, match="closed"):
        writer.write(mf.Allocation(1, 2, 3))


MS_ONE = mf.Allocation(1, 2, 3)
MS_ODD_PADDING = mf.PaddingLocation(1, 2, mf.PaddingReason("FieldAlignment", "x"))
MS_POTENTIAL = mf.OptimizationPotential("Minor", 1, ("x",))


@pytest.mark.parametrize(
    ("layout", "fields", "reason"),
    [
        ("3c", {"ptr": -1}, "ptr is not of 64 bits"),
        ("3c", {"size": 1 << 64}, "size is not of 64 bits"),
        ("3c", {"timestamp_alloc": 1.5}, "timestamp_alloc is not an integer"),
        ("3c", {"borrow_count": 1 << 32}, "borrow_count is not of 32 bits"),
        ("3c", {"var_name": b"v"}, "var_name is not of type str"),
        ("3c", {"thread_id": None}, "thread_id is not of type str"),
        ("3c", {"is_leaked": 2}, "is_leaked is not of type bool"),
        ("3c", {"ownership_history_available": 1}, "ownership_history_available is not of type bool"),
        ("3c", {"stack_trace": ()}, "an empty stack_trace"),
        ("3c", {"stack_trace": ("main", None)}, "stack_trace is not of type str"),
        ("3c", {"borrow_info": mf.BorrowInfo(-1)}, "immutable_borrows is not of 32 bits"),
        ("3c", {"clone_info": mf.CloneInfo(0, cast("Any", 7))}, "is_clone is not of type bool"),
        ("3c", {"clone_info": 5}, "clone_info is not of type CloneInfo"),
        ("3c", {"smart_pointer_info": MS_POINTER._replace(pointer_type="Cell")}, "pointer_type is one of Rc, Arc"),
        ("3c", {"smart_pointer_info": "{}"}, "not a value of type u64: None"),
        ("3c", {"smart_pointer_info": "{"}, "Expecting property name"),
        (
            "3c",
            {"smart_pointer_info": MS_POINTER._replace(is_data_owner=cast("Any", 1))},
            "is_data_owner is not of type bool",
        ),
        ("3c", {"memory_layout": MS_POINTER}, "memory_layout is not of type MemoryLayout"),
        (
            "3c",
            {"memory_layout": MS_LAYOUT._replace(field_layout=(mf.FieldLayout("a", "b", 1, 2, 3, cast("Any", 1)),))},
            "is_padding is not of type bool",
        ),
        (
            "3c",
            {"memory_layout": MS_LAYOUT._replace(padding_info=mf.PaddingInfo(0, (MS_ODD_PADDING,)))},
            "reason of kind FieldAlignment has no text",
        ),
        (
            "3c",
            {"memory_layout": MS_LAYOUT._replace(layout_efficiency=mf.LayoutEfficiency(0.0, 0.0, 0, MS_POTENTIAL))},
            "optimization_potential of kind Minor has no suggestions",
        ),
        (
            "3c",
            {"memory_layout": MS_LAYOUT._replace(padding_info=mf.PaddingInfo(padding_ratio=cast("Any", "1")))},
            "float",
        ),
        ("3c", {"raw": "text"}, "'str'"),
        ("3c", {"generic_info": "x" * 65535}, "generic_info is of 65535 bytes"),
        ("3c", {"var_name": "x" * 65535}, "var_name is of 65535 bytes"),
        ("3c", {"var_name": "\ud800"}, "surrogates not allowed"),
        ("3c", {"module_path": "m"}, "layout 3c has no module_path"),
        ("3c", {"drop_chain_analysis": "{}"}, "layout 3c has no drop_chain_analysis"),
        ("3a", {"borrow_info": mf.BorrowInfo()}, "layout 3a has no borrow_info"),
        ("2b", {"var_name": ""}, "an empty var_name cannot be told from none in layout 2b"),
        ("1a", {"scope_name": "s"}, "layout 1a has no scope_name"),
        ("T", {"var_name": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_memscope_writer_refuses(layout: str, fields: Json, reason: str) -> None:
    file = io.BytesIO()
    with mf.MemscopeWriter(file, layout=layout) as writer:
        writer.write(MS_ONE)
        with pytest.raises((ValueError, TypeError), match=re.escape(reason)):
            writer.write(MS_ONE._replace(**fields))
    with mf.MemscopeReader(io.BytesIO(file.getvalue()), strict=True) as reader:
        assert_same([*reader], [MS_ONE])


def test_memscope_texts_next_to_the_limit() -> None:
    for size in 65534, 65536:
        record = MS_ONE._replace(var_name="x" * size, generic_info="y" * size)
        assert_same([*mf.MemscopeReader(io.BytesIO(memscope_written([record])), strict=True)], [record])
    names = [MS_ONE._replace(var_name=f"v{number}", thread_id="", scope_name="s" * number) for number in range(5000)]
    for layout in "2c", "3c":
        assert_same([*mf.MemscopeReader(io.BytesIO(memscope_written(names, layout)), strict=True)], names)
    old = [record._replace(scope_name=record.scope_name or None, thread_id="t") for record in names]
    assert_same([*mf.MemscopeReader(io.BytesIO(memscope_written(old, "2b")), strict=True)], old)


def test_memscope_writer_misuse(tmp_path: Path) -> None:
    wrong: List[Tuple[Json, str]] = [
        ({"layout": "4a"}, "a layout is one of 1a, 1b"),
        ({"layout": "2c", "mode": "full"}, "layout 2c has no mode 'full'"),
        ({"mode": "fast"}, "layout 3c has no mode 'fast'"),
        ({"metrics": "minimal"}, "layout 3c has no metrics 'minimal'"),
        ({"layout": "1c", "metrics": "default"}, "layout 1c has no metrics"),
        ({"layout": "T", "metrics": "default"}, "layout T has no metrics"),
    ]
    for options, reason in wrong:
        with pytest.raises(ValueError, match=reason):
            mf.MemscopeWriter(tmp_path / "file", **options)
        assert not (tmp_path / "file").exists()
    writer = mf.MemscopeWriter(Trickle(b"", ()))
    with pytest.raises(ValueError, match="must be seekable"):
        writer.write(MS_ONE)
    with mf.MemscopeWriter(io.BytesIO()) as writer:
        with pytest.raises(TypeError, match="not a record of memscope"):
            writer.write(cast("Any", (1, 2, 3)))
        with pytest.raises(ValueError, match="a document of prof"):
            writer.write_document(cast("Any", mf.Document("prof", None, {}, [])))
        document = mf.MemscopeReader(io.BytesIO(ms_rich("3c"))).read()
        writer.write(MS_ONE)
        with pytest.raises(ValueError, match="first thing"):
            writer.write_document(document)
    for header, tables, reason in (
        (mf.MemscopeHeader(), {"layout": "3c"}, "a header of layout 3c has a export_mode"),
        (document.header, {"layout": "1a"}, "a header of layout 1a has no export_mode"),
        (document.header, {"layout": "5"}, "the layout is one of"),
        (document.header, {}, "the layout is one of"),
    ):
        with mf.MemscopeWriter(io.BytesIO()) as writer, pytest.raises(ValueError, match=reason):
            writer.write_document(mf.Document("memscope", header, tables, []))
    for metrics in mf.AdvancedMetrics(16, 1), mf.AdvancedMetrics(16, 0, 0, ()):
        odd: Any = mf.Document("memscope", document.header, {"layout": "3c", "advanced_metrics": metrics}, [])
        with mf.MemscopeWriter(io.BytesIO()) as writer, pytest.raises(ValueError, match="metrics_bitmap does not tell"):
            writer.write_document(odd)


def test_memscope_text_that_nests_too_deep() -> None:
    for depth in 900, 100_000:
        deep = '{"a":' * depth + "1" + "}" * depth
        data = f'[{{"ptr":1,"size":2,"timestamp_alloc":3,"generic_info":{deep}}}]'.encode()
        read = outcome(data, "memscope")
        assert read.fault is None or read.fault.code in ("bad-json", "bad-value")
        assert [*mf.explain(io.BytesIO(data), "memscope")]
    for odd in "NaN", "9" * 5000, "[" * 20_000 + '"' + "x" * 20_000:
        fault = outcome(f'[{{"ptr":1,"size":2,"timestamp_alloc":{odd}}}]'.encode(), "memscope").fault
        assert fault is not None
        assert fault.code == "bad-json"


def test_memscope_text_values() -> None:
    """Layout T: what fits a field, and what does not."""
    fields: List[Tuple[str, str, Any]] = [
        ("timestamp_dealloc", "7", 7),
        ("var_name", '"v"', "v"),
        ("thread_id", "null", None),
        ("borrow_count", "true", None),
        ("is_leaked", "1", None),
        ("stack_trace", '["a", "b"]', ("a", "b")),
        ("stack_trace", "null", "null"),
        ("stack_trace", '"a"', None),
        ("stack_trace", "[1]", None),
        ("lifetime_ms", "-1", None),
        ("lifetime_ms", str(1 << 64), None),
        (
            "borrow_info",
            '{"immutable_borrows": 1, "mutable_borrows": 2, "max_concurrent_borrows": 3}',
            mf.BorrowInfo(1, 2, 3),
        ),
        ("borrow_info", '{"immutable_borrows": 1}', None),
        ("clone_info", "[]", None),
        (
            "generic_info",
            '{"é": [1e-7, 2.5e16, 1e-5, -1.5e-5, 100000.0, "\\u0001\\"", false, 1e999]}',
            '{"é":[1e-7,2.5e16,0.00001,-0.000015,100000.0,"\\u0001\\"",false,null]}',
        ),
        ("memory_layout", "[]", "[]"),
        ("drop_chain_analysis", "{}", "{}"),
        ("module_path", '"m"', "m"),
        ("module_path", "5", None),
    ]
    for name, text, wanted in fields:
        read = outcome(f'[{{"ptr": 1, "size": 2, "timestamp_alloc": 3, "{name}": {text}}}]'.encode(), "memscope")
        if wanted is None:
            assert read.fault is not None
            assert (read.fault.code, read.fault.where) == ("bad-value", f"allocations[0].{name}")
        else:
            assert getattr(read.records[0], name) == (None if wanted == "null" else wanted)


def test_memscope_json_objects_in_today_s_layout() -> None:
    """JSON of a smart pointer and a memory layout, as layouts 1c, 2a and T have it, in binary form."""
    full = MS_ONE._replace(memory_layout=MS_FULL_LAYOUT_JSON)
    (back,) = mf.MemscopeReader(io.BytesIO(memscope_written([full])))
    assert back.memory_layout == MS_FULL_LAYOUT
    for old, new in (
        ('"StructAlignment"', '"Nothing"'),
        ('{"Other":"why"}', '{"Other":"why","More":1}'),
        ('{"Other":"why"}', '{"Other":5}'),
        ('"Moderate"', '"Moderately"'),
        ('{"Moderate":{"potential_savings":32,"suggestions":["shrink"]}}', "[]"),
        ("2.5e16", '"2.5e16"'),
    ):
        with pytest.raises(TypeError):
            memscope_written([full._replace(memory_layout=MS_FULL_LAYOUT_JSON.replace(old, new))])
    whole = MS_FULL_LAYOUT_JSON.replace("2.5e16", "3")
    (back,) = mf.MemscopeReader(io.BytesIO(memscope_written([full._replace(memory_layout=whole)])))
    assert cast("mf.MemoryLayout", back.memory_layout).layout_efficiency.cache_friendliness == 3.0


# ---- memscope: conversions


def memscope_written(records: Sequence[mf.Allocation], layout: str = "3c", **options: Any) -> bytes:
    file = io.BytesIO()
    with mf.MemscopeWriter(file, layout=layout, **options) as writer:
        writer.write_all(records)
    return file.getvalue()


def rust_json(value: Any, *, sort: bool = False) -> str:
    """JSON as the crate serde_json prints it compactly, apart from the module's own way (memscope 8)."""
    if isinstance(value, dict):
        items = sorted(value.items()) if sort else value.items()
        return "{" + ",".join(f"{rust_json(key)}:{rust_json(item, sort=sort)}" for key, item in items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(rust_json(item, sort=sort) for item in value) + "]"
    if isinstance(value, float) and value:
        text = format(abs(value), "f" if 1e-5 <= abs(value) < 1e16 else "e")
        digits = repr(abs(value)).partition("e")[0]
        if 1e-5 <= abs(value) < 1e-4:
            text = "0.0000" + digits.replace(".", "")
        elif 1e-4 <= abs(value) < 1e16:
            text = digits
        else:
            text = digits + "e" + str(int(text.partition("e")[2]))
        return "-" * (value < 0) + text
    return json.dumps(value, ensure_ascii=False)


MEMSCOPE_KINDS = ("memory_analysis", "lifetime", "performance", "unsafe_ffi", "complex_types")


def five_files(path: Path, folder: Path, *options: str) -> Dict[str, str]:
    """The texts of ``convert --to json5``, by kind."""
    run = cli("convert", "--to", "json5", *options, "-f", "-o", folder, path)
    assert (run.code, run.out) == (0, b""), run.err
    assert sorted(os.listdir(folder)) == sorted(f"{folder.name}_{kind}.json" for kind in MEMSCOPE_KINDS)
    return {kind: (folder / f"{folder.name}_{kind}.json").read_bytes().decode() for kind in MEMSCOPE_KINDS}


@each_memscope
def test_memscope_converts_like_upstream(path: Path, tmp_path: Path) -> None:
    """What the converter of the layout's time made of a recording, to the byte."""
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    told = expected["converter"]
    layout = ["--layout", "3b"] if expected["layout"] == "3b" else []
    for target, wanted in ("json", told["single_json"]), ("html", told.get("html")):
        if wanted is not None:
            run = cli("convert", "--to", target, "--like-upstream", *layout, path)
            assert (run.code, run.text, run.err) == (0, wanted, "")
    if "standard_json" in told:
        made = five_files(path, tmp_path / "out", "--like-upstream", *layout)
        assert made == {kind: rust_json(told["standard_json"][kind], sort=True) for kind in MEMSCOPE_KINDS}


@each_memscope
def test_memscope_converts_right_by_default(path: Path, tmp_path: Path) -> None:
    """The JSON holds every field of every record; the five files tell all records and exact sums."""
    expected = json.loads(path.with_suffix(".expected.json").read_text(encoding="utf-8"))
    records = expected["records"]
    made = json.loads(cli("convert", "--to", "json", path).out)
    assert [{key: record[key] for key in wanted} for record, wanted in zip(made, records)] == records
    assert len(made) == len(records)
    files = {kind: json.loads(text) for kind, text in five_files(path, tmp_path / "out").items()}
    for kind in "memory_analysis", "performance":
        summary = files[kind]["summary"]
        assert (summary["total_allocations"], len(files[kind]["allocations"])) == (len(records), len(records))
        assert summary["total_memory"] == sum(record["size"] for record in records)
        shown = [record["thread_id"] for record in files[kind]["allocations"]]
        assert shown == [record["thread_id"] for record in records]


# Of layout 3c, with all that its conversions show.
MEMSCOPE_POINTER = mf.SmartPointer(1, 2, (3,), (mf.RefCount(4, 5, 6),), 7, False, True, False, "Arc")
MEMSCOPE_POINTER_JSON = {
    "data_ptr": 1,
    "cloned_from": 2,
    "clones": [3],
    "ref_count_history": [{"timestamp": 4, "strong_count": 5, "weak_count": 6}],
    "weak_count": 7,
    "is_weak_reference": False,
    "is_data_owner": True,
    "is_implicitly_deallocated": False,
    "pointer_type": "Arc",
}
MEMSCOPE_RECORDS = (
    mf.Allocation(
        0x1000,
        64,
        10,
        90,
        var_name='</pre><script>alert("1")</script>&amp;\x1f',
        type_name="Vec<u8>",
        scope_name="größe",
        thread_id="ThreadId(1)",
        stack_trace=("f", "g"),
        borrow_count=11,
        is_leaked=True,
        lifetime_ms=0,
        borrow_info=mf.BorrowInfo(1, 2, 3),
        clone_info=mf.CloneInfo(1, True, 0x2000),
        ownership_history_available=True,
        smart_pointer_info=MEMSCOPE_POINTER,
        fragmentation_analysis='{"b":2.5e16,"a":[1e-7,0.1,{}]}',
        runtime_state='{"z":0.00001}',
    ),
    mf.Allocation(1 << 63, (1 << 64) - 1, 20, type_name="*mut c_void", thread_id="t"),
    mf.Allocation(0x20, 40, 30, var_name="v", thread_id="t", lifetime_ms=5),
)


def memscope_before_3b(record: mf.Allocation) -> mf.Allocation:
    """The record without what came with 3b."""
    return record._replace(borrow_info=None, clone_info=None, ownership_history_available=False)


def test_memscope_json(tmp_path: Path) -> None:
    """Worked out by memscope 13, for the layout of each time."""
    first = {
        "ptr": 4096,
        "size": 64,
        "var_name": '</pre><script>alert("1")</script>&amp;\x1f',
        "type_name": "Vec<u8>",
        "scope_name": "größe",
        "timestamp_alloc": 10,
        "timestamp_dealloc": 90,
        "thread_id": "ThreadId(1)",
        "borrow_count": 11,
        "stack_trace": ["f", "g"],
        "is_leaked": True,
        "lifetime_ms": 0,
        "borrow_info": {
            "immutable_borrows": 1,
            "mutable_borrows": 2,
            "max_concurrent_borrows": 3,
            "last_borrow_timestamp": None,
        },
        "clone_info": {"clone_count": 1, "is_clone": True, "original_ptr": 8192},
        "ownership_history_available": True,
        "smart_pointer_info": MEMSCOPE_POINTER_JSON,
        "memory_layout": None,
        "generic_info": None,
        "dynamic_type_info": None,
        "runtime_state": {"z": 0.00001},
        "stack_allocation": None,
        "temporary_object": None,
        "fragmentation_analysis": {"b": 2.5e16, "a": [1e-7, 0.1, {}]},
        **dict.fromkeys(mf.MEMSCOPE_SLOTS[6:]),
        "drop_chain_analysis": None,
    }
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written(MEMSCOPE_RECORDS[:1]))
    text = rust_json([first])
    assert '{"z":0.00001}' in text
    assert '{"b":2.5e16,"a":[1e-7,0.1,{}]}' in text
    assert cli("convert", "--to", "json", path) == Run(0, text.encode(), "")
    thread = '"thread_id":"ThreadId(1)",'
    assert cli("convert", "--to", "json", "--like-upstream", path).text == text.replace(thread, "")
    indented = json.dumps([first], indent=2, ensure_ascii=False)
    for python, rust in ("1e-05", "0.00001"), ("2.5e+16", "2.5e16"), ("1e-07", "1e-7"):
        assert indented.count(python) == 1
        indented = indented.replace(python, rust)
    page = cli("convert", "--to", "html", path).text
    escaped = indented.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert page.partition("<pre>")[2] == f"{escaped}</pre>\n</body>\n</html>"
    assert '<meta charset="utf-8">' in page
    assert "<p>Total allocations: 1</p>" in page
    assert page.count("<script>") == 0
    upstream = [line for line in indented.splitlines(keepends=True) if "thread_id" not in line]
    wanted = "<!DOCTYPE html>\n<html>\n<head><title>Memory Analysis</title></head>\n<body>\n"
    wanted += f"<h1>Memory Analysis Report</h1>\n<p>Total allocations: 1</p>\n<pre>{''.join(upstream)}</pre>\n"
    assert cli("convert", "--to", "html", "--like-upstream", path).text == f"{wanted}</body>\n</html>"
    in_3b = cli("convert", "--to", "json", "--like-upstream", "--layout", "3b", path).text
    assert in_3b == "".join(upstream)
    borrows = ("borrow_info", "clone_info", "ownership_history_available")
    for layout, gone in ("3a", borrows), ("2c", borrows), ("1c", (*borrows, "drop_chain_analysis")):
        path.write_bytes(memscope_written([memscope_before_3b(MEMSCOPE_RECORDS[0])], layout))
        made = cli("convert", "--to", "json", "--like-upstream", path).text
        assert made.startswith('[\n  {\n    "ptr": 4096,\n')
        assert list(json.loads(made)[0]) == [key for key in first if key not in (*gone, "thread_id")]
        whole = json.loads(cli("convert", "--to", "json", path).text)
        kept = {key: value for key, value in first.items() if key not in borrows}
        assert [{key: record[key] for key in kept} for record in whole] == [kept]
        path.write_bytes(memscope_written([], layout))
        assert cli("convert", "--to", "json", "--like-upstream", path).text == "[]"
    assert "<p>Total allocations: 0</p>\n<pre>[]</pre>" in cli("convert", "--to", "html", path).text


def test_memscope_json_reads_as_layout_t(tmp_path: Path) -> None:
    """Our JSON is a file of layout T, and T becomes the same JSON, with what only T has."""
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written(MEMSCOPE_RECORDS))
    text = cli("convert", "--to", "json", path).out
    path.write_bytes(text)
    assert cli("convert", "--to", "json", path).out == text
    path.write_bytes(text[:-2] + b',"module_path":"app::main"}]')
    assert cli("convert", "--to", "json", path).out == path.read_bytes()
    assert b"module_path" not in cli("convert", "--to", "json", "--like-upstream", path).out


def memscope_about(kind: str, features: Json, count: int) -> Json:
    """The ``metadata`` of one of the five files."""
    return {
        "analysis_type": f"integrated_{kind}_analysis",
        "export_version": "2.0",
        "optimization_level": "High",
        "pipeline_features": features,
        "timestamp": 1_700_000_000,
        "total_allocations_analyzed": count,
    }


PARALLEL = {"parallel_processing": True}
FFI = {"enhanced_ffi_analysis": True}
TYPES = {"type_categorization": True, "generic_analysis": True, "memory_layout_analysis": True}


def test_memscope_five_files(tmp_path: Path) -> None:
    """Worked out by memscope 13, first as upstream makes them, then ours."""
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written(MEMSCOPE_RECORDS))
    name = MEMSCOPE_RECORDS[0].var_name
    sized = "AlignedStruct_40bytes"
    about = functools.partial(memscope_about, count=2)
    usual: Json = {"thread_id": "ThreadId(1)", "timestamp_alloc": 10, "type_name": "Vec<u8>", "var_name": name}
    first = {"borrow_count": 11, "is_leaked": True, "lifetime_ms": 0, "ptr": 4096, "scope_name": "größe", "size": 64}
    first.update(usual)
    second = {"borrow_count": 0, "is_leaked": False, "lifetime_ms": 5, "ptr": 32, "scope_name": "global", "size": 40}
    second.update({"thread_id": "t", "timestamp_alloc": 30, "type_name": sized, "var_name": "v"})
    sums = {"total_allocations": 2, "total_memory": 104, "average_size": 52, "max_size": 64, "min_size": 40}
    event = {"event": "allocation", "ptr": "0x1000", "scope": "größe", "size": 64, "timestamp": 10}
    freed = {"event": "deallocation", "ptr": "0x1000", "scope": "größe", "timestamp": 90, "var_name": name}
    later = {"event": "allocation", "ptr": "0x20", "scope": "global", "size": 40, "timestamp": 30}
    one, other = ({"allocation_count": 1, "average_size": size, "total_size": size} for size in (64, 40))
    stand_ins = {
        "generic_info": {"generic_type": "none", "type_parameters": []},
        "generic_instantiation": {"instantiation": "none", "parameters": []},
        "smart_pointer_info": {"ref_count": 0, "type": "none"},
        "type_relationships": {"inheritance": "none", "relationships": []},
        "type_usage": {"usage_count": 1, "usage_pattern": "single"},
    }
    items = [
        {
            **stand_ins,
            "dynamic_type_info": {"runtime_type": type, "type": "static"},
            "memory_layout": {"alignment": 1, "layout_type": "default", "size": size},
            "ptr": ptr,
            "size": size,
            "type_name": type,
            "var_name": var,
        }
        for type, size, ptr, var in (("Vec<u8>", 64, "0x1000", name), (sized, 40, "0x20", "v"))
    ]
    items[0]["smart_pointer_info"] = MEMSCOPE_POINTER_JSON
    wanted: Dict[str, Any] = {
        "memory_analysis": {
            "allocations": [
                {**first, "stack_trace": "f -> g", "timestamp_dealloc": 90},
                {**second, "stack_trace": "no_stack_trace", "timestamp_dealloc": 0},
            ],
            "metadata": about("memory", {**PARALLEL, **FFI, "security_analysis": False}),
            "summary": {**sums, "leaked_count": 1},
        },
        "lifetime": {
            "lifecycle_events": [
                {**event, "type_name": "Vec<u8>", "var_name": name},
                freed,
                {**later, "type_name": sized, "var_name": "v"},
            ],
            "metadata": about("lifetime", {**PARALLEL, **FFI}),
            "scope_analysis": {"größe": {**one, "sizes": [64]}, "global": {**other, "sizes": [40]}},
            "summary": {"leaked_count": 1, "total_allocations": 2, "total_events": 3, "unique_scopes": 2},
            "variable_lifetimes": {},
        },
        "performance": {
            "allocations": [{**record, "fragmentation_score": 0.0} for record in (first, second)],
            "metadata": about("performance", {**PARALLEL, "batch_size": 1000}),
            "summary": {**sums, "unique_threads": 2},
            "thread_analysis": {"ThreadId(1)": one, "t": other},
        },
        "unsafe_ffi": [],
        "complex_types": {
            "categorized_types": {"generic": items[:1], "primitive": items[1:]},
            "generic_types": {"Vec<u8>": {"average_size": 64, "instantiation_count": 1, "total_size": 64}},
            "metadata": about("complex_types", TYPES),
            "summary": {"complex_type_ratio": 50.0, "generic_types": 1, "total_allocations": 2, "type_categories": 2},
        },
    }
    time = ("--timestamp", "1700000000")
    texts = five_files(path, tmp_path / "upstream", "--like-upstream", *time)
    assert texts == {kind: rust_json(wanted[kind], sort=True) for kind in MEMSCOPE_KINDS}

    ours = {kind: json.loads(text) for kind, text in five_files(path, tmp_path / "ours", *time).items()}
    huge = (1 << 64) - 1
    middle = {"borrow_count": 0, "is_leaked": False, "lifetime_ms": None, "ptr": 1 << 63, "scope_name": "global"}
    middle.update({"size": huge, "thread_id": "t", "timestamp_alloc": 20, "type_name": "*mut c_void", "var_name": None})
    second["type_name"] = None
    kept: List[Json] = [first, middle, second]
    fragments = {"b": 2.5e16, "a": [1e-7, 0.1, {}]}
    assert ours["memory_analysis"]["allocations"] == [
        {**record, "stack_trace": frames, "timestamp_dealloc": freed}
        for record, frames, freed in zip(kept, ("f -> g", None, None), (90, None, None))
    ]
    assert ours["memory_analysis"]["summary"]["total_memory"] == huge + 104  # upstream's would be 103
    assert ours["memory_analysis"]["metadata"]["timestamp"] == 1_700_000_000
    assert ours["performance"]["allocations"] == [
        {**record, "fragmentation_analysis": found} for record, found in zip(kept, (fragments, None, None))
    ]
    at = {"thread_id": "ThreadId(1)", "timestamp": 10, "type_name": "Vec<u8>", "var_name": name, "size": 64}
    at["ptr"] = "0x1000"
    foreign = {"thread_id": "t", "timestamp": 20, "type_name": "*mut c_void", "var_name": None, "size": huge}
    foreign["ptr"] = "0x8000000000000000"
    assert ours["unsafe_ffi"] == [
        {"severity": "high", "risk": "leaked", **at},
        {"severity": "medium", "risk": "over 10 borrows", **at},
        {"severity": "low", "risk": "lifetime of 0 ms", **at},
        {"severity": "high", "risk": "raw pointer", **foreign},
        {"severity": "medium", "risk": "over 1 MiB", **foreign},
        {"severity": "medium", "risk": "foreign type", **foreign},
    ]
    types = ours["complex_types"]["categorized_types"]
    assert sorted(types) == ["generic", "primitive", "unknown"]
    assert types["unknown"][0] == {**dict.fromkeys(items[1]), "ptr": "0x20", "size": 40, "var_name": "v"}
    assert ours["complex_types"]["summary"]["complex_type_ratio"] == 1 / 3 * 100
    assert ours["lifetime"]["scope_analysis"]["global"]["sizes"] == [huge, 40]


def test_memscope_five_files_of_old(tmp_path: Path) -> None:
    """As upstream made them before 2d: hexadecimal addresses, ``unknown``, null, the objects of the records."""
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written([*map(memscope_before_3b, MEMSCOPE_RECORDS)], "2b"))
    made = five_files(path, tmp_path / "out", "--like-upstream")
    old = {kind: json.loads(text) for kind, text in made.items()}
    assert made == {kind: rust_json(old[kind], sort=True) for kind in MEMSCOPE_KINDS}
    names = {"type_name": "Vec<u8>", "var_name": MEMSCOPE_RECORDS[0].var_name}
    first: Json = {"ptr": "0x1000", "size": 64, "thread_id": "ThreadId(1)", **names}
    counted = {**first, "borrow_count": 11, "timestamp_alloc": 10}
    assert old["memory_analysis"]["allocations"][0] == {**counted, "is_leaked": True, "scope_name": "größe"}
    assert old["memory_analysis"]["summary"]["total_memory"] == 103  # 64 + 2**64 - 1 + 40, modulo 2**64
    fragments = {"b": 2.5e16, "a": [1e-7, 0.1, {}]}
    assert old["performance"]["allocations"][0] == {**counted, "fragmentation_analysis": fragments}
    assert [record["var_name"] for record in old["performance"]["allocations"]][1:] == ["unknown", "v"]
    assert [record["type_name"] for record in old["performance"]["allocations"]][1:] == ["*mut c_void", "unknown"]
    seen = {**first, "timestamp": 10, "stack_trace": ["f", "g"], "runtime_state": {"z": 0.00001}}
    data = old["unsafe_ffi"].pop("enhanced_ffi_data")
    assert data[0] == seen
    assert [record["stack_trace"] for record in data] == [["f", "g"], None, None]
    metadata = old["unsafe_ffi"].pop("metadata")
    assert metadata["analysis_type"] == "integrated_unsafe_ffi_analysis"
    assert old["unsafe_ffi"] == {
        "boundary_events": [],
        "ffi_patterns": [],
        "safety_violations": [],
        "unsafe_indicators": [],
        "summary": {
            "boundary_events": 0,
            "enhanced_entries": 3,
            "ffi_count": 0,
            "risk_assessment": "low",
            "safety_violations": 0,
            "total_risk_items": 0,
            "unsafe_count": 0,
        },
    }
    items = old["complex_types"]["categorized_types"]
    assert [item["ptr"] for item in items["generic"] + items["primitive"]] == ["0x1000", "0x8000000000000000", "0x20"]
    assert items["primitive"][1]["dynamic_type_info"] is None


def test_memscope_five_files_of_many_records(tmp_path: Path) -> None:
    """More than are written at once, of all categories; the sizes of a scope in order."""
    types = ("Vec<u8>", "HashMapLike", "core::ops::Range", "u8")
    records = [
        mf.Allocation(number, number, number, var_name=f"v{number}", type_name=types[number % 4])
        for number in range(1201)
    ]
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written(records))
    made = {kind: json.loads(text) for kind, text in five_files(path, tmp_path / "out", "--like-upstream").items()}
    for kind in "memory_analysis", "performance":
        assert [one["ptr"] for one in made[kind]["allocations"]] == [*range(1201)]
    assert made["lifetime"]["scope_analysis"]["global"]["sizes"] == [*range(1201)]
    sorted_types = made["complex_types"]["categorized_types"]
    places = {"generic": 0, "collection": 1, "module_type": 2, "primitive": 3}
    assert list(sorted_types) == sorted(places)
    for category, place in places.items():
        assert [item["size"] for item in sorted_types[category]] == [*range(place, 1201, 4)]
    assert made["complex_types"]["summary"]["complex_type_ratio"] == 301 / 1201 * 100
    path.write_bytes(memscope_written([]))
    empty = five_files(path, tmp_path / "empty")
    assert json.loads(empty["complex_types"])["categorized_types"] == {}
    assert json.loads(empty["memory_analysis"])["summary"] == {
        "average_size": 0,
        "leaked_count": 0,
        "max_size": 0,
        "min_size": 0,
        "total_allocations": 0,
        "total_memory": 0,
    }


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (0, "ZeroSizedType"),
        (1, "u8_or_bool"),
        (2, "u16_or_char"),
        (4, "u32_or_f32_or_i32"),
        (8, "u64_or_f64_or_i64_or_usize"),
        (16, "u128_or_i128_or_complex_struct"),
        (24, "Vec_or_String_header"),
        (32, "HashMap_or_BTreeMap_header"),
        (40, "AlignedStruct_40bytes"),
        (1023, "CustomType_1023bytes"),
        (1024, "LargeAllocation_1024bytes"),
    ],
)
def test_memscope_types_without_a_name(size: int, name: str, tmp_path: Path) -> None:
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written([mf.Allocation(1, size, 1, var_name="v")]))
    made = five_files(path, tmp_path / "out", "--like-upstream")
    assert f'"type_name":"{name}"' in made["memory_analysis"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"a":"b, c: [ ]","d":[1e400,-0.0,1E2,12345678901234567890,0.10]}', None),
        (' {"a":1.50}', '{"a":1.50}'),
        ('{"a":1}\n', '{"a":1}'),
        ('{ "a" : [ 1 , 2e5 ] , "b" :\t{ } }', '{"a":[1,2e5],"b":{}}'),
        ('["NaN, Infinity",1e-5]', None),
        ('["\\u0041",0.00001]', '["A",0.00001]'),
    ],
)
def test_memscope_slots_are_made_compact(text: str, wanted: Optional[str], tmp_path: Path) -> None:
    """Without blanks, each number in its own digits."""
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written([mf.Allocation(1, 2, 3, type_usage=text)]))
    assert f'"type_usage":{wanted or text},"function_call' in cli("convert", "--to", "json", path).text


def test_memscope_slots_that_are_no_json(tmp_path: Path) -> None:
    """Upstream refuses the file; ours keeps the text.  Nor does text that is not UTF-8 spoil the JSON."""
    path = tmp_path / "file.memscope"
    deep = "[" * 100_000
    for text in "{", "", '{"a":NaN}', deep, "[" * 127 + "]" * 127, '{"a":' * 128 + "1" + "}" * 128, f"[{'[],' * 200}1]":
        record = mf.Allocation(1, 2, 3, var_name="v", type_name="t", type_usage=text)
        path.write_bytes(memscope_written([record]))
        good = text.endswith("]") and json.loads(text)  # the deepest that is taken, and many lists on one level
        made = json.loads(cli("convert", "--to", "json", path).out)
        assert made[0]["type_usage"] in (text, good)
        types = json.loads(five_files(path, tmp_path / "out")["complex_types"])
        assert types["categorized_types"]["primitive"][0]["type_usage"] in (text, good)
        if not good:
            for target in ("json",), ("html",), ("json5", "-o", tmp_path / "new"):
                reason = refused("convert", "--like-upstream", path, "--to", *target, code=1)
                assert "memscope: slot offset 0x" in reason
                assert ": type_usage: " in reason
            assert not (tmp_path / "new").exists()
    record = mf.Allocation(1, 2, 3, var_name="caf\udce9", type_name="t", lifecycle_tracking='"\\ud800"')
    path.write_bytes(memscope_written([record]))
    made = json.loads(cli("convert", "--to", "json", path).out)
    assert (made[0]["var_name"], made[0]["lifecycle_tracking"]) == ("caf\udce9", "\ud800")
    for target in ("json",), ("html",), ("json5", "-o", tmp_path / "new"):
        reason = refused("convert", "--like-upstream", path, "--to", *target, code=1)
        assert reason.endswith("memscope: offset 0x4a: allocations[0].var_name: not UTF-8")
        assert cli("convert", path, "--to", *target).code == 0


def test_memscope_files_that_are_cut(tmp_path: Path) -> None:
    """Upstream's single JSON refuses them, its other conversions take the records before the cut (memscope 12)."""
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written(MEMSCOPE_RECORDS)[:-1])
    folder = tmp_path / "out"
    for options in [], ["--like-upstream"]:
        refused("convert", "--to", "json", *options, path, code=1)
    refused("convert", "--to", "html", path, code=1)
    refused("convert", "--to", "json5", "-o", folder, path, code=1)
    assert not folder.exists()
    assert "<p>Total allocations: 2</p>" in cli("convert", "--to", "html", "--like-upstream", path).text
    upstream = five_files(path, folder, "--like-upstream")
    assert json.loads(upstream["memory_analysis"])["summary"]["total_allocations"] == 1
    run = cli("convert", "--to", "json", "--recover", path)
    assert (run.code, len(json.loads(run.out))) == (0, 2)
    assert "fault truncated" in run.err
    run = cli("convert", "--to", "json5", "--recover", "-f", "-o", folder, path)
    assert (run.code, run.out) == (0, b"")
    assert "fault truncated" in run.err
    whole = memscope_written(MEMSCOPE_RECORDS, metrics="default")
    path.write_bytes(whole)
    wanted = cli("convert", "--to", "json", "--like-upstream", path).out
    for size in (len(whole) - 1, len(memscope_written(MEMSCOPE_RECORDS)) + 5):  # all of upstream's ignore cut metrics
        path.write_bytes(whole[:size])
        assert cli("convert", "--to", "json", "--like-upstream", path).out == wanted
    data = bytearray(memscope_written(MEMSCOPE_RECORDS))
    data[len(memscope_written(MEMSCOPE_RECORDS[:1]))] = 2  # the type of the second record
    path.write_bytes(data)
    for target in ("json",), ("html",), ("json5", "-f", "-o", folder):
        assert "not a record" in refused("convert", "--like-upstream", path, "--to", *target, code=1)


def test_memscope_record_that_the_metrics_refuse_is_not_counted() -> None:
    layout = mf.MemoryLayout(1, 1, padding_info=mf.PaddingInfo(0, (), cast("Any", Decimal("1.5"))))
    made = io.BytesIO()
    with mf.MemscopeWriter(made, metrics="default") as writer:
        writer.allocation(1, 2, 3, var_name="a")
        with pytest.raises((TypeError, ValueError)):
            writer.allocation(4, 5, 6, var_name="b", memory_layout=layout)
    with mf.MemscopeReader(io.BytesIO(made.getvalue()), strict=True) as reader:
        assert [record.var_name for record in reader] == ["a"]
        assert (reader.header.user_count, reader.header.system_count) == (1, 0)


def test_memscope_folder_is_complete_or_not_there(tmp_path: Path) -> None:
    path, folder = tmp_path / "file.memscope", tmp_path / "out"
    path.write_bytes(memscope_written(MEMSCOPE_RECORDS))
    for output in [], ["-o", "-"]:
        assert "several files; give -o FOLDER" in refused("convert", "--to", "json5", *output, path, code=2)
    five_files(path, folder)
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    message = refused("convert", "--to", "json5", "-o", folder, path, code=2)
    assert message.endswith("exists; -f overwrites it")
    (folder / "out_lifetime.json").unlink()
    refused("convert", "--to", "json5", "-o", folder, path, code=2)
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == {
        name: data for name, data in before.items() if "lifetime" not in name
    }
    assert refused("convert", "--to", "json5", "-o", path, path, code=2)
    assert "files of memscope are converted to: json, html, json5" in refused("convert", "--to", "text", path, code=2)
    for wrong in "-1", "x", "1.5":
        assert "not a number of seconds" in cli("convert", "--to", "json5", "--timestamp", wrong, path).err


# ---- memscope: semantics


def test_memscope_analysis() -> None:
    """Sums by hand: 64, 2**64 - 1 and 40 bytes."""
    huge = (1 << 64) - 1
    found = mf.memscope_analysis(MEMSCOPE_RECORDS)
    use = mf.MemscopeUse
    assert found.total == use(None, 3, huge + 104, 2, huge + 40, 1, 64, 40, huge, (huge + 104) / 3)
    assert (found.named, found.first_alloc_ns, found.last_alloc_ns) == (2, 10, 30)
    assert found.lifetimes == mf.MemscopeLifetimes(2, 0, 5, 2.5)
    vec = (1, 64, 0, 0, 1, 64, 64, 64, 64.0)
    big = (1, huge, 1, huge, 0, 0, huge, huge, float(huge))
    small = (1, 40, 1, 40, 0, 0, 40, 40, 40.0)
    assert found.by_type == (use("*mut c_void", *big), use("Vec<u8>", *vec), use(None, *small))
    both = (2, huge + 40, 2, huge + 40, 0, 0, 40, huge, (huge + 40) / 2)
    assert found.by_thread == (use("t", *both), use("ThreadId(1)", *vec))
    assert found.by_scope == (use(None, *both), use("größe", *vec))
    assert found.by_generic_type == (use("Vec", *vec),)
    assert found.by_category == (use("primitive", *big), use("generic", *vec), use("unknown", *small))
    below = (2, 104, 1, 40, 1, 64, 40, 64, 52.0)
    assert found.by_size == (use("below 100", *below), use("102,400 and more", *big))
    risk = mf.MemscopeRisk
    name = MEMSCOPE_RECORDS[0].var_name
    assert found.risks == (
        risk("high", "raw pointer", "*mut c_void", None, 1, huge),
        risk("high", "leaked", "Vec<u8>", name, 1, 64),
        risk("medium", "foreign type", "*mut c_void", None, 1, huge),
        risk("medium", "over 1 MiB", "*mut c_void", None, 1, huge),
        risk("medium", "over 10 borrows", "Vec<u8>", name, 1, 64),
        risk("low", "lifetime of 0 ms", "Vec<u8>", name, 1, 64),
    )
    nothing = mf.memscope_analysis([])
    assert nothing.total == use(None, 0, 0, 0, 0, 0, 0, 0, 0, 0.0)
    assert nothing.lifetimes == mf.MemscopeLifetimes(0, 0, 0, 0.0)
    assert (nothing.first_alloc_ns, nothing.by_type, nothing.risks) == (0, (), ())


def test_memscope_size_classes() -> None:
    sizes = (99, 0, 100, 1023, 1024, 10_239, 10_240, 102_399, 102_400)
    found = mf.memscope_analysis([mf.Allocation(1, size, 1) for size in sizes])
    told = [(use.name, use.records, use.smallest, use.largest) for use in found.by_size]
    assert told == [
        ("below 100", 2, 0, 99),
        ("below 1,024", 2, 100, 1023),
        ("below 10,240", 2, 1024, 10_239),
        ("below 102,400", 2, 10_240, 102_399),
        ("102,400 and more", 1, 102_400, 102_400),
    ]


@pytest.mark.parametrize(
    ("type_name", "category"),
    [
        ("Vec<u8>", "generic"),
        ("Vec<", "collection"),
        ("a::Vec>", "module_type"),
        ("HashMapper", "collection"),
        ("core::Vec", "module_type"),
        ("", "primitive"),
        (None, "unknown"),
    ],
)
def test_memscope_category(type_name: Optional[str], category: str) -> None:
    assert mf.memscope_category(type_name) == category


@pytest.mark.parametrize(
    ("record", "risks"),
    [
        (mf.Allocation(0, 1 << 20, 0, lifetime_ms=1, borrow_count=10), []),
        (mf.Allocation(0, (1 << 20) + 1, 0), [("medium", "over 1 MiB")]),
        (mf.Allocation(0, 0, 0, borrow_count=11), [("medium", "over 10 borrows")]),
        (mf.Allocation(0, 0, 0, lifetime_ms=0), [("low", "lifetime of 0 ms")]),
        (mf.Allocation(0, 0, 0, is_leaked=True), [("high", "leaked")]),
        (mf.Allocation(0, 0, 0, type_name="Vec<*const u8>"), [("high", "raw pointer")]),
        (mf.Allocation(0, 0, 0, type_name="&mut u8"), []),
        (mf.Allocation(0, 0, 0, type_name='extern "C" fn()'), [("medium", "foreign type")]),
        (mf.Allocation(0, 0, 0, type_name="std::ffi::CString"), [("medium", "foreign type")]),
    ],
)
def test_memscope_risks(record: mf.Allocation, risks: List[Tuple[str, str]]) -> None:
    assert mf.memscope_risks(record) == risks


@pytest.mark.parametrize(
    ("name", "promised", "upstream"),
    [
        ("my_analysis", "my_analysis/my_analysis.memscope", "my_analysis.memscope"),
        ("run.v2", "run.v2/run.v2.memscope", "run.memscope"),
        ("run.memscope", "run/run.memscope", "run.memscope"),
        ("run.v2.memscope", "run.v2/run.v2.memscope", "run.v2.memscope"),
        ("a/b.json", "a/b.json/b.json.memscope", "a/b.memscope"),
        (".hidden", ".hidden/.hidden.memscope", ".hidden.memscope"),
    ],
)
def test_memscope_path(name: str, promised: str, upstream: str) -> None:
    """Erratum 1."""
    assert mf.memscope_path(name) == f"MemoryAnalysis/{promised}"
    assert mf.memscope_path(name, like_upstream=True) == f"MemoryAnalysis/{upstream}"


@pytest.mark.parametrize("name", ["", "a/", ".", "..", "a/..", ".memscope"])
def test_memscope_path_of_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of an export"):
        mf.memscope_path(name)


def test_memscope_description() -> None:
    header = mf.MemscopeHeader(3, 52, 1, 10, 42)
    assert mf.memscope_description(header, 7167) == "Full binary (52 total allocations: 10 user + 42 system, 6 KB)"
    assert mf.memscope_description(header._replace(export_mode=0), 0) == "User-only binary (52 total allocations, 0 KB)"
    assert mf.memscope_description(mf.MemscopeHeader(1, 5), 1024) == "Binary (5 total allocations, 1 KB)"


# ---- memscope: command line


@pytest.fixture
def demo_snapshot(tmp_path: Path) -> Path:
    assert cli("demo", tmp_path).code == 0
    return tmp_path / "demo.memscope"


def test_memscope_info(demo_snapshot: Path, tmp_path: Path) -> None:
    text = cli("info", demo_snapshot).text
    assert "  version     3, layout 3c\n" in text
    assert "  kind        Full binary (10 total allocations: 9 user + 1 system, 1 KB)\n" in text
    assert "  records     10: 9 named, 1 freed, 1 leaked; 2.0 MiB in all\n" in text
    assert "  allocated   from 2025-12-06T00:00:00.000000Z, within 30.000 ms\n" in text
    assert "  threads     2: ThreadId(1) 8 records, ThreadId(2) 2 records\n" in text
    assert "  objects     borrow_info 6, clone_info 6, smart_pointer_info 2\n" in text
    assert "metrics" not in text
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written(MEMSCOPE_RECORDS, metrics="default"))
    assert "  metrics     ADVD, bitmap 0x23: lifecycle 2, container 0, type_usage 0\n" in cli("info", path).text
    path.write_bytes(path.read_bytes() + b"x" * 4096)
    size = path.stat().st_size
    assert 4096 < size < 5120
    assert "  kind        Full binary (3 total allocations: 2 user + 1 system, 4 KB)\n" in cli("info", path).text
    path.write_bytes(memscope_written([]))
    assert "allocated" not in cli("info", path).text
    path.write_bytes(memscope_written([mf.Allocation(1, 2, 3, thread_id=f"t{number}") for number in range(9)], "1a"))
    text = cli("info", path).text
    assert "  version     1, layout 1a\n  kind        Binary (9 total allocations, 0 KB)\n" in text
    assert "t7 1 record, ...\n  objects     none\n" in text
    path.write_bytes(cli("convert", "--to", "json", path).out)
    text = cli("info", path).text
    assert "  version     layout T, JSON text\n" in text
    assert "kind" not in text


def test_memscope_stats(demo_snapshot: Path, tmp_path: Path) -> None:
    lines = cli("stats", "--top", "3", demo_snapshot).text.splitlines()
    assert lines[:5] == [
        f"{demo_snapshot}: 10 allocations of 2.0 MiB within 30.000 ms",
        "  sizes       48 to 2,097,152 bytes, 216,033.6 on average",
        "  named       9",
        "  active      9 of 2.0 MiB",
        "  leaked      1 of 2.0 MiB",
    ]
    assert lines[5] == "  lifetimes   50 to 60 ms, 55.0 ms on average, of 6 records that tell one"
    assert "By type (the first 3 of 4)" in lines
    rows = [line.split() for line in lines]
    assert ["2,097,152", "1", "2,097,152.0", "2,097,152", "1", "1", "*mut", "core::ffi::c_void"] in rows
    assert ["63,000", "6", "10,500.0", "32,000", "5", "0", "alloc::vec::Vec<u8>"] in rows
    assert ["high", "leaked", "2,097,152", "1", "handle:", "*mut", "core::ffi::c_void"] in rows
    numbers = json.loads(cli("stats", "--json", demo_snapshot).text)
    assert numbers["total"]["bytes"] == 63_000 + 2 * 48 + 2_097_152 + 88
    assert [use["name"] for use in numbers["by_size"]] == [
        "below 100",
        "below 1,024",
        "below 10,240",
        "below 102,400",
        "102,400 and more",
    ]
    path = tmp_path / "file.memscope"
    path.write_bytes(memscope_written([mf.Allocation(1, 2, 3, type_name="")]))
    rows = [line.split() for line in cli("stats", path).text.splitlines()]
    assert ["2", "1", "2.0", "2", "1", "0", '""'] in rows
    assert ["2", "1", "2.0", "2", "1", "0", "(none)"] in rows
    path.write_bytes(memscope_written([]))
    assert cli("stats", path).text == f"{path}: 0 allocations of 0 bytes within 0 ns\n"


def test_memscope_compare(tmp_path: Path) -> None:
    def of(var: Optional[str], size: int, *, freed: bool = False) -> mf.Allocation:
        return mf.Allocation(1, size, 1, 2 if freed else None, var_name=var, type_name="t")

    first, second = tmp_path / "first.memscope", tmp_path / "second.memscope"
    first.write_bytes(memscope_written([of("a", 10), of("b", 20), of("c", 30), of("d", 5), of(None, 7), of("f", 8)]))
    then = [of("a", 10), of("a", 15), of("c", 20), of("d", 5), of("e", 1), of("e", 900, freed=True), of(None, 7)]
    second.write_bytes(memscope_written([*then, of("f", 4), of("f", 4)]))
    lines = cli("stats", first, second).text.splitlines()
    assert lines[0] == f"{first} and {second}: not freed: 80 and 66 bytes, -14"
    assert lines[1] == "  variables   of one type and name: 1 new, 1 gone, 2 grown, 1 shrunk, 2 same"
    assert [line.split() for line in lines[5:]] == [
        ["gone", "-20", "20", "0", "1", "0", "b:", "t"],
        ["grown", "+15", "10", "25", "1", "2", "a:", "t"],
        ["shrunk", "-10", "30", "20", "1", "1", "c:", "t"],
        ["new", "+1", "0", "1", "0", "1", "e:", "t"],
        ["grown", "+0", "8", "8", "1", "2", "f:", "t"],
    ]
    numbers = json.loads(cli("stats", "--json", first, second).text)
    assert numbers["files"] == [str(first), str(second)]
    assert numbers["changes"][0] == {
        "change": "gone",
        "type_name": "t",
        "var_name": "b",
        "records": [1, 0],
        "bytes": [20, 0],
    }
    assert cli("stats", first, first).text.splitlines()[1:] == [
        "  variables   of one type and name: 0 new, 0 gone, 0 grown, 0 shrunk, 6 same"
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Hold explain and the readers against each other on made files.")
    parser.add_argument("--fuzz", type=float, metavar="MINUTES", required=True, help="go on for so long")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="start with the files of this seed")
    given = parser.parse_args()
    fuzz(given.fuzz, given.seed)
