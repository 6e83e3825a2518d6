"""Damage of files, by name: what any file can have, and what only some kinds can; always the same for the same seed."""

import bz2
import gzip
import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

from malformed import Kind

NUMBER = re.compile(rb"-?\d+(\.\d+)?")
VALUES = (b"nan", b"inf", b"1e308", b"-1e308", b"1e400", b"0", b"-1", b"99999999999999999999", b"x", b"", b"1_0", b"9" * 5000)
HUGE = (0, -1, 1, 2**16, 2**24, 2**31 - 1, -(2**31))
Change = Callable[[bytes, random.Random], bytes]


def general(*, text: bool) -> dict[str, Change]:
    """Damage that any file can have."""
    some: dict[str, Change] = {"empty": lambda raw, _: b"", "doubled": lambda raw, _: raw + raw}
    for n in range(3):
        some[f"cut {n}"] = lambda raw, rng: raw[: rng.randrange(len(raw))]
        some[f"flipped {n}"] = flip
    some["NUL"] = lambda raw, rng: insert(raw, rng, b"\0" * 5)
    some["a hole"] = lambda raw, rng: raw[: len(raw) // 3] + raw[len(raw) // 3 + rng.randrange(1, 9) :]
    some["other order of bytes"] = lambda raw, _: b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    if text:
        some["no UTF-8"] = lambda raw, rng: insert(raw, rng, b"\xff\xfe\x80")
        some["UTF-16"] = lambda raw, _: raw.decode().encode("utf-16")
        some["long word"] = lambda raw, rng: insert(raw, rng, b"x" * 10**6)
        some["long line of blanks"] = lambda raw, rng: insert(raw, rng, b" " * 10**6)
        some["long line of quotes"] = lambda raw, rng: raw + b"'a " * 200_000
        some["row lost"] = lambda raw, rng: edit(raw, rng, lambda line: b"")
        some["row twice"] = lambda raw, rng: edit(raw, rng, lambda line: line + line)
        some["last row cut"] = lambda raw, _: raw.rstrip().rpartition(b" ")[0] or b" "
        some["deep brackets"] = lambda raw, rng: insert(raw, rng, b"[" * 10_000)
        some |= {f"a number is {value[:9].decode() or 'nothing'} {n}": number(value) for value in VALUES for n in range(2)}
    return some


def flip(raw: bytes, rng: random.Random) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.randrange(1, 8)):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def insert(raw: bytes, rng: random.Random, what: bytes) -> bytes:
    place = rng.randrange(len(raw))
    return raw[:place] + what + raw[place:]


def edit(raw: bytes, rng: random.Random, change: Callable[[bytes], bytes]) -> bytes:
    lines = raw.splitlines(keepends=True)
    row = rng.randrange(len(lines) // 2, len(lines))
    return b"".join([*lines[:row], change(lines[row]), *lines[row + 1 :]])


def number(value: bytes) -> Change:
    def change(raw: bytes, rng: random.Random) -> bytes:
        numbers = list(NUMBER.finditer(raw))
        if not numbers:
            return raw + value
        found = rng.choice(numbers)
        return raw[: found.start()] + value + raw[found.end() :]

    return change


def field(place: int, layout: str, value: float) -> Change:
    """A number in a header; in a packed file, in what is packed."""

    def change(raw: bytes, _: random.Random) -> bytes:
        pack = gzip if raw[:2] == b"\x1f\x8b" else bz2 if raw[:3] == b"BZh" else None
        plain = pack.decompress(raw) if pack else raw
        plain = plain[:place] + struct.pack(layout, value) + plain[place + struct.calcsize(layout) :]
        return pack.compress(plain) if pack else plain

    return change


def mrc_headers(order: str = "<") -> dict[str, Change]:
    """Fields of MRC2014 by their place."""
    words = {"nx": 0, "ny": 4, "nz": 8, "mode": 12, "mx": 28, "mapc": 64, "ispg": 88, "nsymbt": 92, "nlabl": 220}
    some = {f"{name} is {value}": field(at, f"{order}i", value) for name, at in words.items() for value in HUGE}
    for name, at in {"xlen": 40, "a value": 1024}.items():
        some |= {f"{name} is {value}": field(at, f"{order}f", value) for value in (float("nan"), float("inf"), -1.0, 1e38)}
    some["all sizes are huge"] = lambda raw, rng: field(8, f"{order}i", 2**31 - 1)(
        field(4, f"{order}i", 2**31 - 1)(field(0, f"{order}i", 2**31 - 1)(raw, rng), rng), rng
    )
    some["sizes of a gigabyte"] = lambda raw, rng: field(8, f"{order}i", 640)(
        field(4, f"{order}i", 640)(field(0, f"{order}i", 640)(raw, rng), rng), rng
    )
    some["no map"] = field(208, f"{order}i", 0)
    some["no stamp"] = field(212, f"{order}i", 0)
    return some


def em_headers() -> dict[str, Change]:
    some = {f"word {at} is {value}": field(at, "<i", value) for at in (0, 4, 8, 12) for value in HUGE}
    some |= {f"type {value}": field(3, "B", value) for value in (0, 3, 8, 9, 10, 255)}
    return some | {
        f"row {row} is {value}": field(512 + 4 * row, "<f", value)
        for row in (3, 4, 7, 19)
        for value in (float("nan"), float("inf"), 1e38, -1e38, 0.5)
    }


def model_headers() -> dict[str, Change]:
    def within(mark: bytes, after: int, layout: str, value: float) -> Change:
        return lambda raw, rng: field(raw.index(mark) + after, layout, value)(raw, rng)

    some = {f"size of a contour {value}": within(b"CONT", 4, ">i", value) for value in HUGE}
    some |= {f"objects {value}": field(8 + 128 + 16, ">i", value) for value in HUGE}
    some |= {f"point {value}": within(b"CONT", 20, ">f", value) for value in (float("nan"), float("inf"), 1e38)}
    some |= {
        f"piece of {value}": lambda raw, _, value=value: raw.replace(b"IEOF", b"ABCD" + struct.pack(">i", value) + b"IEOF")
        for value in HUGE
    }
    some |= {
        f"mesh of {value}": lambda raw, _, value=value: raw.replace(
            b"IEOF", b"MESH" + struct.pack(">iiIhh", value, 7, 0, 0, 0) + b"IEOF"
        )
        for value in HUGE
    }
    minx = struct.pack(">18f", *[float("nan")] * 3, *[0] * 3, *[1] * 3, *[float("inf")] * 3, *[float("nan")] * 6)
    some["no pixel size in MINX"] = lambda raw, _: raw.replace(b"IEOF", b"MINX" + struct.pack(">i", 72) + minx + b"IEOF")
    some["a contour of no object"] = lambda raw, _: raw.replace(b"OBJT", b"CONT" + bytes(16) + b"OBJT", 1).replace(
        b"CONT" + bytes(16), b"CONT" + struct.pack(">i", 1) + bytes(12) + bytes(12), 1
    )
    return some


def word(column: int, value: bytes) -> Change:
    """Another value in a column of the third row from the end."""

    def change(raw: bytes, _: random.Random) -> bytes:
        lines = [line for line in raw.split(b"\n") if line.strip()]
        words = lines[-3].split()
        words[column % len(words)] = value
        return b"\n".join([*lines[:-3], b" ".join(words), *lines[-2:], b""])

    return change


def swap(old: bytes, new: bytes) -> Change:
    def change(raw: bytes, _: random.Random) -> bytes:
        assert old in raw, old
        return raw.replace(old, new, 1)

    return change


def valued(path: list, value: object) -> Change:
    """A value somewhere in JSON."""

    def change(raw: bytes, _: random.Random) -> bytes:
        found = json.loads(raw.split(b"\n")[0] if raw.startswith(b'{"type"') else raw)
        place = found
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        return json.dumps(found).encode()

    return change


ODD: tuple = (None, "x", -1, 0, 1.5, 10**400, float("nan"), float("inf"), [], {}, [[1]], "../../x", True)


def odd(path: list) -> dict[str, Change]:
    return {f"{'/'.join(map(str, path))} is {str(value)[:9]}": valued(path, value) for value in ODD}


NAMES = (
    "../bait.star",
    "../../bait.star",
    "{outside}/bait.star",
    "link.star",
    "a/../../bait.star",
    "/dev/zero",
    ".",
    "",
    "nan",
)
BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE T [<!ENTITY a "aaaaaaaaaa">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b"]><TiltSeries><Angles>&j;</Angles></TiltSeries>"
)
OUTER = b'<!DOCTYPE T [<!ENTITY a SYSTEM "file://{outside}/bait.star">]><TiltSeries><Angles>&a;</Angles></TiltSeries>'


HEAVY: dict[str, Change] = {
    "many columns": lambda raw, _: raw.replace(b"loop_\n", b"loop_\n" + b"".join(b"_a%d\n" % n for n in range(10**5)), 1),
    "many blocks": lambda raw, _: raw + b"".join(b"\ndata_a%d\n_x 1\n" % n for n in range(10**5)),
}
COLUMNS: dict[str, Change] = {
    "a column twice": lambda raw, _: re.sub(rb"(\n_\w+)", rb"\1\1", raw, count=1),
    "no column": lambda raw, _: re.sub(rb"\n_[^\n]+", b"", raw, count=1),
}
GRID = ["chunk_grid", "configuration", "chunk_shape"]


def words(columns: int, *values: bytes) -> dict[str, Change]:
    """Another value in each column."""
    return {f"column {n} is {value.decode()}": word(n, value) for n in range(columns) for value in values}


def packed(pack: Any) -> dict[str, Change]:
    """Packed files that hold far more than they should, and broken ones."""
    return {
        "bomb": lambda raw, _: pack.compress(pack.decompress(raw) + bytes(10**8)),
        "bomb with an extended header": lambda raw, rng: pack.compress(
            field(92, "<i", 2**26 + 1)(pack.decompress(raw), rng) + bytes(10**8)
        ),
        **{f"packed bytes {n} wrong": flip for n in range(20)},
    }


def all_odd(*paths: list) -> dict[str, Change]:
    """Odd values at each of the places."""
    return {what: change for path in paths for what, change in odd(path).items()}


def group(root: list) -> dict[str, Change]:
    """Odd values in the metadata of a pyramid."""
    first = [*root, 0, "datasets", 0]
    moves = [*first, "coordinateTransformations"]
    places = [root, [*root, 0], [*root, 0, "axes"], [*root, 0, "axes", 0], first[:-1], first, [*first, "path"], moves]
    return all_odd(*places, [*moves, 0, "scale"], [*moves, 0, "scale", 0], [*moves, 1, "translation", 0])


SPECIAL: dict[str, dict[str, Change]] = {
    "MRC": mrc_headers(),
    "MRC, high byte first": mrc_headers(">"),
    "MRC gzip": packed(gzip),
    "MRC bzip2": packed(bz2),
    "EM": em_headers(),
    "IMOD model": model_headers(),
    "STAR": COLUMNS,
    **{f"STAR {name}": words(18, b"nan", b"1e300") for name in ("relion30", "relion4", "warp")},
    "STAR relion5": words(5, b"nan", b"1e300"),
    "STAR M": words(7, b"nan", b"1e300"),
    "STAR relion31": words(18, b"nan", b"1e300", b"0.5", b'"a b"') | HEAVY,
    "STAR stopgap": words(16, b"nan", b"1e300", b"0.5", b'"a b"'),
    "STAR optimisation set": {
        f"{what} in {one or 'nothing'}": swap(f"{what}.star".encode(), one.encode())
        for one in NAMES
        for what in ("particles", "tomograms")
    },
    "Dynamo": words(36, b"nan", b"1e300")
    | {
        "a column less": lambda raw, _: raw.replace(b" ", b"", 1),
        "wide": lambda raw, _: raw.replace(b" ", b" 1 " * 10**5, 1),
    },
    "Warp .tomostar": words(4, b"nan", b"1e300") | COLUMNS | HEAVY,
    "Warp .xml": {
        "entities": lambda raw, _: BOMB,
        "entity of a file": lambda raw, _: OUTER,
        "deep": lambda raw, _: b"<TiltSeries>" + b"<a>" * 10**5,
        "encoding": swap(b"utf-8", b"utf-77"),
    },
    "command file .com": {"many ranges": lambda raw, _: raw + b"EXCLUDELIST " + b",".join([b"1-99999"] * 10**5) + b"\n"},
    "SerialEM .mdoc": {
        "blanks in a heading": lambda raw, _: raw + b"[T = a" + b" " * 10**6 + b"x\n",
        "words in a title": lambda raw, _: raw + b"[T = " + b"tilt axis angle" * 10**5 + b"]\n",
    },
    "CSV": {
        "many columns": lambda raw, _: raw.replace(b"\n", b"".join(b",c%d" % n for n in range(10**5)) + b"\n", 1),
        "a column twice": lambda raw, _: raw.replace(b",", b",x,x,", 1),
        "quote": lambda raw, _: b'"' + raw,
        "header only a quote": lambda raw, _: b'"\n' + raw,
    },
    "portal": {
        "deep": lambda raw, _: b'{"type": "point", "location": ' + b"[" * 10**4 + b"]" * 10**4 + b"}\n",
        **all_odd(["location"], ["location", "x"], ["xyz_rotation_matrix"], ["xyz_rotation_matrix", 0, 0], ["type"], ["a"]),
    },
    "copick picks": {
        "deep": lambda raw, _: b'{"points": ' + b"[" * 10**4 + b"]" * 10**4 + b"}",
        **all_odd(["points"], ["points", 0], ["points", 0, "location"], ["points", 0, "location", "x"]),
        **all_odd(*(["points", 0, name] for name in ("transformation_", "instance_id", "score"))),
        **all_odd(["pickable_object_name"], ["run_name"], ["unit"], ["user_id"]),
    },
    "copick project": all_odd(["pickable_objects"], ["pickable_objects", 0], ["pickable_objects", 0, "name"], ["overlay_root"]),
    "Zarr 2 array": {
        **all_odd(["shape"], ["shape", 0], ["chunks"], ["chunks", 2], ["dtype"], ["order"], ["compressor"], ["filters"]),
        **all_odd(["fill_value"], ["zarr_format"]),
        "all sizes are huge": valued(["shape"], [2**39] * 3),
        "all chunks are huge": valued(["chunks"], [2**39] * 3),
    },
    "Zarr 3 array": {
        **all_odd(["shape"], ["shape", 0], ["chunk_grid"], GRID, [*GRID, 2], ["data_type"], ["codecs"], ["codecs", 0]),
        **all_odd(["codecs", 0, "configuration"], ["fill_value"], ["zarr_format"], ["chunk_key_encoding"], ["dimension_names"]),
        "all sizes are huge": valued(["shape"], [2**39] * 3),
        "all chunks are huge": valued(GRID, [2**39] * 3),
    },
    "Zarr 2 group": group(["multiscales"]),
    "Zarr 3 group": group(["attributes", "ome", "multiscales"]),
}
"""Damage that only some kinds can have, by how their names begin."""


def damages(name: str, kind: Kind) -> dict[str, tuple[str, Change]]:
    """File and change of every damage of a kind."""
    some = general(text=kind.text)
    out = {
        f"{target}: {what}": (target, change)
        for target in kind.targets
        for what, change in some.items()
        if target == kind.targets[0] or "number" not in what
    }
    own = {what: change for start, changes in SPECIAL.items() if name.startswith(start) for what, change in changes.items()}
    return out | {f"{kind.targets[0]}: {what}": (kind.targets[0], change) for what, change in own.items()}
