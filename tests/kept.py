"""Good files of every kind that a run folder holds, small enough to be damaged in many ways, and how each is read."""

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from damage import NAMES, Change, all_odd, field, general, valued
from malformed import Kind

from tomolab import averaging, particles
from tomolab import subtomograms as boxes
from tomolab.averaging import Average
from tomolab.averaging.checkpoint import Checkpoint
from tomolab.inspection import Selection, Session, run_contents, selection
from tomolab.inspection import session as sessions
from tomolab.io import checksums
from tomolab.io import download as downloads
from tomolab.io.run_folder import Run
from tomolab.learning import Embedding, checkpoints, networks
from tomolab.learning import embedding as embeddings
from tomolab.learning.embedding import PartialArray
from tomolab.subtomograms import Subtomograms
from tomolab.subtomograms import store as stores
from tomolab.volumes import Volume

COUNT, BOX, SIZE = 12, 8, 10.0
NETWORK = {"name": "compact", "box": BOX, "classes": ["a", "b"], "voxel_size": SIZE}
PLAN = {"seed": 1, "epochs": 2}


def some() -> pd.DataFrame:
    places = np.random.default_rng(1).uniform(0, 100, (COUNT, 3))
    return particles.table(places, tomogram="cell", ids=np.arange(COUNT) * 3, score=np.arange(12.0), label=["a", "b"] * 6)


def without_checksums(folder: Path) -> None:
    """Let readers see what somebody wrote who can make a checksum fit: all checksums but those of shards are gone."""
    for path in [one for one in folder.rglob("*") if one.is_file()]:
        raw = path.read_bytes()
        path.write_bytes(raw.replace(checksums.MARK, checksums.MARK[::-1]))
        if path.name == checksums.SUMS:
            path.unlink()


@contextmanager
def small_shards() -> Iterator[None]:
    """Two volumes in a chunk, and eight in a shard, so that there are several."""
    before = stores.SHARD_BYTES
    stores.SHARD_BYTES = 16 * BOX**3
    try:
        yield
    finally:
        stores.SHARD_BYTES = before


def store(target: str) -> Kind:
    def make(folder: Path) -> None:
        left = some()[:2].assign(reason="near the edge")
        data = np.random.default_rng(2).normal(size=(COUNT, BOX, BOX, BOX))
        with small_shards():
            Subtomograms(data, some(), SIZE, skipped=left).save(folder / "a.zarr")

    def read(path: Path) -> tuple[Subtomograms, np.ndarray, pd.DataFrame]:
        opened = boxes.open(path)
        return opened, np.concatenate([batch for _, batch in opened.batches(5)]), stores.read_skipped(path)

    def holds(found: tuple, _: Path) -> None:
        opened, volumes, skipped = found
        assert len(opened) == COUNT
        assert volumes.shape == (COUNT, BOX, BOX, BOX)
        assert "reason" in skipped

    return Kind(make, "a.zarr", read, holds, (target,), target.endswith("json"))


def manifest() -> Kind:
    def make(folder: Path) -> None:
        (folder / "a.csv").write_text("a\n")
        Run(folder).record("01_first", parameters={"box": 40, "names": ["a"]}, files=["a.csv"], seed=1)

    def read(path: Path) -> tuple:
        return Run(path.parent).manifest(), Run(path.parent).changed()

    def holds(found: tuple, _: Path) -> None:
        assert all(isinstance(entry, dict) for entry in found[0]["stages"].values())

    return Kind(make, "manifest.json", read, holds)


def session() -> Kind:
    def make(folder: Path) -> None:
        made = Session(some(), pd.Series(np.arange(COUNT) % 3, index=some()["particle_id"]))
        made.select([3, 6], "lasso")
        number = made.new_cluster("few")
        made.describe(number, colour="#ff0000", note="good")
        made.filter("score", 1, 9)
        made.merge([0, 1])
        made.undo()
        made.save(folder / "session.npz")

    def read(path: Path) -> Session:
        return sessions.load(path, some())

    def holds(found: Session, _: Path) -> None:
        for step in (found.undo, found.redo):
            for _ in range(len(found.history.past if step == found.undo else found.history.future)):
                step()
                assert found.counts().sum() <= COUNT
                assert found.visible.shape == found.selected.shape == (COUNT,)
                found.table([])

    return Kind(make, "session.npz", read, holds, text=False)


def embedding(target: str, *, mapped: bool = False) -> Kind:
    def make(folder: Path) -> None:
        Embedding(some()["particle_id"].to_numpy(), np.eye(COUNT, 5), "abc").save(folder / "e")

    def holds(found: Embedding, _: Path) -> None:
        assert len(found) == len(found.vectors) == COUNT
        assert np.isfinite(np.asarray(found.vectors)).all()

    files = (f"e/{target}",)
    return Kind(make, "e", lambda path: embeddings.load(path, mapped=mapped), holds, files, target.endswith("json"))


def average(target: str) -> Kind:
    def make(folder: Path) -> None:
        volume = Volume(np.random.default_rng(3).normal(size=(BOX,) * 3), SIZE)
        fsc = pd.DataFrame({"resolution": [80.0, 40.0, 20.0], "fsc": [1.0, 0.5, 0.0]})
        record = {"name": "a", "mask": 60.0, "together": 40.0, "seconds": 1.5, "start": {"ab initio": {"particles": 3}}}
        Average(volume, volume, volume, fsc, some().assign(half=1), record).save(folder / "average")

    def holds(found: Average, _: Path) -> None:
        assert len(found.particles) > 0
        assert found.resolution > 0
        assert found.reliable in (True, False)
        assert repr(found)

    return Kind(make, "average", averaging.load, holds, (f"average/{target}",), not target.endswith("parquet"))


def network(target: str) -> Kind:
    def make(folder: Path) -> None:
        networks.save(
            networks.create("compact", **{key: NETWORK[key] for key in ("box", "classes", "voxel_size")}),
            folder / "n.safetensors",
        )

    def holds(found: Any, _: Path) -> None:
        assert found.features(torch.zeros(1, BOX, BOX, BOX)).shape[0] == 1

    return Kind(make, "n.safetensors", networks.load, holds, (target,), target.endswith("json"))


def checkpoint() -> Kind:
    def parts() -> tuple:
        made = torch.nn.Linear(3, 2)
        optimiser = torch.optim.AdamW(made.parameters())
        made(torch.ones(1, 3)).sum().backward()
        optimiser.step()
        return made, optimiser

    def make(folder: Path) -> None:
        made, optimiser = parts()
        told = checkpoints.TrainingProgress(
            [{"epoch": 1, "loss": 0.5}], 3, [1.0, 2.0, 3.0], 1.5, {name: one.clone() for name, one in made.state_dict().items()}
        )
        checkpoints.write(folder, made, optimiser, plan=PLAN, progress=told)

    def read(path: Path) -> Any:
        made, optimiser = parts()
        found = checkpoints.restore(path.parent, made, optimiser, plan=PLAN)
        optimiser.step()
        return found

    def holds(found: checkpoints.TrainingProgress, _: Path) -> None:
        assert sum(row["loss"] for row in found.history) + found.seconds + sum(found.sums) is not None
        assert found.batch >= 0

    return Kind(make, checkpoints.NAME, read, holds, text=False)


class Still:
    """What a snapshot keeps, without a refinement."""

    values = torch.arange(6.0).reshape(2, 3)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"rows": self.values}

    def load_state_dict(self, saved: dict[str, torch.Tensor]) -> None:
        self.values = saved["rows"] + 0


def snapshot() -> Kind:
    def read(path: Path) -> list[Still]:
        one = [Still()]
        Checkpoint(path, {"seed": 1}).restore(one)
        return one

    return Kind(
        lambda folder: Checkpoint(folder / "a.safetensors", {"seed": 1}).write([Still()]),
        "a.safetensors",
        read,
        lambda found, _: None if found[0].values.numel() < 100 else 1 / 0,
        text=False,
    )


def part(target: str) -> Kind:
    about = {"dtype": "float32", "folder": "a.part", "about": {"network": "abc"}}

    def make(folder: Path) -> None:
        with PartialArray(COUNT, **about | {"folder": folder / "a.part"}) as one:
            one.add(np.ones((5, 4)))

    def holds(found: PartialArray, _: Path) -> None:
        assert 0 <= found.done <= COUNT
        found.add(np.ones((COUNT - found.done, found.array.shape[1] or 1)))

    def read(path: Path) -> PartialArray:
        return PartialArray(COUNT, **about | {"folder": path})

    return Kind(make, "a.part", read, holds, (f"a.part/{target}",), target.endswith("json"))


def layout() -> Kind:
    def make(folder: Path) -> None:
        pd.DataFrame({"particle_id": [0, 3], "x": [0.5, 1], "y": [1.0, 2]}).to_csv(folder / "layout.csv", index=False)

    def holds(found: pd.DataFrame, _: Path) -> None:
        assert np.isfinite(found[["particle_id", "x", "y"]].to_numpy(dtype=float)).all()

    return Kind(make, "layout.csv", lambda path: run_contents.read_layout(path.parent, None, seed=0), holds)


def download() -> Kind:
    def make(folder: Path) -> None:
        (folder / "a").write_bytes(b"abc")
        told = {"url": "http://127.0.0.1:9/a", "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
        (folder / "a.json").write_text(json.dumps(told))

    return Kind(
        make,
        "a",
        lambda path: downloads.cached("http://127.0.0.1:9/a", path),
        lambda found, _: None if found.read_bytes() == b"abc" else 1 / 0,
        ("a.json",),
    )


KINDS: dict[str, Kind] = {
    "store group": store("a.zarr/zarr.json"),
    "store array": store("a.zarr/volumes/zarr.json"),
    "store shard": store("a.zarr/volumes/c/0/0/0/0"),
    "store particles": store("a.zarr/particles.parquet"),
    "store skipped": store("a.zarr/skipped.parquet"),
    "manifest": manifest(),
    "session": session(),
    "selection": Kind(
        lambda folder: Selection("a", [1, 2, 5], "lasso").save(folder / "a.json"),
        "a.json",
        selection.load,
        lambda found, _: None if len(found) == 3 and found.name else 1 / 0,
    ),
    "embedding json": embedding("about.json"),
    "embedding ids": embedding("ids.npy"),
    "embedding vectors": embedding("vectors.npy"),
    "embedding, mapped": embedding("vectors.npy", mapped=True),
    "average record": average("record.json"),
    "average fsc": average("fsc.csv"),
    "average particles": average("particles.parquet"),
    "network json": network("n.json"),
    "network weights": network("n.safetensors"),
    "checkpoint": checkpoint(),
    "snapshot": snapshot(),
    "part json": part("about.json"),
    "part array": part("vectors.npy"),
    "layout": layout(),
    "download": download(),
}


def rezipped(change: Callable[[dict[str, bytes]], dict[str, bytes]], **options: Any) -> Change:
    """A .npz file whose parts are changed."""

    def changed(raw: bytes, _: Any) -> bytes:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", **options) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, data in change(entries).items():
                archive.writestr(name.rstrip("*"), data)
        return out.getvalue()

    return changed


HEADERS = {
    "huge": "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3)}",
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}",
    "beyond whole numbers": "{'descr': '<f4', 'fortran_order': False, 'shape': (1" + "0" * 30 + ",)}",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
    "fields of objects": "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (3,)}",
    "nothing, often": "{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,)}",
    "a call": "{'descr': __import__('os').system('touch bait'), 'fortran_order': False, 'shape': (3,)}",
    "a sum": "{'descr': '<f4', 'fortran_order': False, 'shape': (1+1,)}",
    "deep": "(" * 5000,
    "long": " " * 60000,
    "no shape": "{'descr': '<f4', 'fortran_order': False}",
    "text for a shape": "{'descr': '<f4', 'fortran_order': False, 'shape': 'abc'}",
    "true for a length": "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3)}",
    "dates": "{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (3,)}",
    "broken": "{'descr': '<f4', ",
    "strange type": "{'descr': '<q99', 'fortran_order': False, 'shape': (3,)}",
}


def headed(header: str, data: bytes = bytes(48)) -> bytes:
    """A .npy file with this header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(text), 65535)) + text + data


HEADED: dict[str, Change] = {what: lambda raw, _, header=header: headed(header) for what, header in HEADERS.items()}
"""Damage of .npy files."""


def archived(*names: str) -> dict[str, Change]:
    """Damage of .npz files, in the parts of these names."""
    some: dict[str, Change] = {
        f"{name}: {what}": rezipped(lambda entries, name=name, header=header: entries | {name: headed(header)})
        for name in names
        for what, header in HEADERS.items()
    }
    some |= {
        f"{name} is lost": rezipped(lambda entries, name=name: {k: v for k, v in entries.items() if k != name})
        for name in names
    }
    some |= {f"{name} is cut": rezipped(lambda entries, name=name: entries | {name: entries[name][:-3]}) for name in names}
    some |= {
        f"{name} is longer": rezipped(lambda entries, name=name: entries | {name: entries[name] + b"xyz"}) for name in names
    }
    some |= {f"{name} is text": rezipped(lambda entries, name=name: entries | {name: b"{}"}) for name in names}
    some |= {
        f"{name} is twice there": rezipped(lambda entries, name=name: entries | {f"{name}*": entries[name]}) for name in names
    }
    some |= {f"a part {one or 'without name'}": rezipped(lambda entries, one=one: entries | {one: b""}) for one in NAMES if one}
    some["bomb"] = rezipped(
        lambda entries: (
            entries
            | {names[0]: headed(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({3 * 10**7},)}}", bytes(12 * 10**7))}
        ),
        compression=zipfile.ZIP_DEFLATED,
    )
    some["packed"] = rezipped(lambda entries: entries, compression=zipfile.ZIP_DEFLATED)
    for what, place, layout in (
        ("packing", 10, "<H"),
        ("flags", 8, "<H"),
        ("packed length", 20, "<I"),
        ("length", 24, "<I"),
        ("start", 42, "<I"),
    ):
        for value in (1, 8, 99, 2**15, 2**16 - 1):
            some[f"{what} {value} in the directory"] = directory(place, layout, value)
    return some


def directory(place: int, layout: str, value: int) -> Change:
    """A number in the last entry of the directory of a .zip file."""
    return lambda raw, rng: field(raw.rindex(b"PK\x01\x02") + place, layout, value)(raw, rng)


def tensors(changes: dict[str, Callable[[dict[str, Any]], Any]]) -> dict[str, Change]:
    """A safetensors file whose header is changed."""

    def changed(change: Callable[[dict[str, Any]], Any]) -> Change:
        def whole(raw: bytes, _: Any) -> bytes:
            length = struct.unpack("<Q", raw[:8])[0]
            head = json.loads(raw[8 : 8 + length])
            text = json.dumps(change(head) or head).encode()
            return struct.pack("<Q", len(text)) + text + raw[8 + length :]

        return whole

    return {what: changed(change) for what, change in changes.items()}


def first(head: dict[str, Any]) -> dict[str, Any]:
    return next(head[name] for name in head if name != "__metadata__")


WEIGHTS: dict[str, Change] = {
    **{f"header of {n} bytes": field(0, "<Q", n) for n in (0, 1, 10**8, 10**9, 2**31, 2**63, 2**64 - 1)},
    **tensors(
        {
            **{
                f"shape {shape}": lambda head, shape=shape: first(head).update(shape=shape)
                for shape in ([10**12], [-1], [2**63, 2], [], [0], "x", [1.5], None)
            },
            **{
                f"offsets {offsets}": lambda head, offsets=offsets: first(head).update(data_offsets=offsets)
                for offsets in ([0, 10**12], [-4, 0], [4, 0], [0], "x", [0, 0], None)
            },
            **{
                f"type {kind}": lambda head, kind=kind: first(head).update(dtype=kind)
                for kind in ("F64", "I8", "PICKLE", "", 1, None)
            },
            **{
                f"metadata {str(value)[:20]}": lambda head, value=value: head.update(__metadata__=value)
                for value in (None, {}, [], {"plan": 1}, {"plan": "[]", "progress": "{"}, {"about": "x"}, {"plan": "[" * 5000})
            },
            "a tensor more": lambda head: head.update(more={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
            "a tensor less": lambda head: {name: one for name, one in head.items() if one is not first(head)},
            "nothing": lambda head: {"__metadata__": {}},
            "twice the same bytes": lambda head: head.update(more=first(head)),
        }
    ),
}


def tabled(change: Callable[[pd.DataFrame], Any], **options: Any) -> Change:
    """Another table in a Parquet file."""

    def changed(raw: bytes, _: Any) -> bytes:
        out = io.BytesIO()
        made = change(pd.read_parquet(io.BytesIO(raw)))
        pq.write_table(made if isinstance(made, pa.Table) else pa.Table.from_pandas(made), out, **options)
        return out.getvalue()

    return changed


def repeated(table: pd.DataFrame) -> pa.Table:
    """One text of 100,000 letters in thousands of rows, which a file holds once."""
    count = 2000 * len(table)
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["x" * 10**5]))
    return pa.table({"particle_id": pa.array(np.arange(count)), "tomogram": long})


def pictured(text: str) -> Change:
    """A Parquet file with other words of pandas in it."""

    def changed(raw: bytes, _: Any) -> bytes:
        out = io.BytesIO()
        pq.write_table(pq.read_table(io.BytesIO(raw)).replace_schema_metadata({"pandas": text}), out)
        return out.getvalue()

    return changed


TABLES: dict[str, Change] = {
    "no rows": tabled(lambda table: table[:0]),
    "a row less": tabled(lambda table: table[1:]),
    "no columns": tabled(lambda table: table[[]]),
    **{
        f"without {name}": tabled(lambda table, name=name: table.drop(columns=name, errors="ignore"))
        for name in ("particle_id", "z", "reason")
    },
    "ids twice": tabled(lambda table: table.assign(particle_id=1)),
    "ids are fractions": tabled(lambda table: table.assign(particle_id=np.linspace(0, 1, len(table)))),
    "ids are text": tabled(lambda table: table.assign(particle_id="x")),
    **{
        f"{name} is {value}": tabled(lambda table, name=name, value=value: table.assign(**{name: value}))
        for name in ("z", "tilt_min", "tomogram")
        for value in (np.nan, np.inf, "x", None, b"\xff")
    },
    "lists": tabled(lambda table: table.assign(z=[[1.0]] * len(table))),
    "many rows of one value": tabled(
        lambda table: pa.table({name: pa.array(np.zeros(3 * 10**6, np.int64)) for name in ("particle_id", "z")})
    ),
    "one long text in many rows": tabled(repeated, store_schema=False),
    "one long text that is a category": tabled(repeated),
    **{
        f"words {text[:12]}": pictured(text)
        for text in (
            "",
            "x",
            "{}",
            "[]",
            '{"index_columns": ["nope"], "columns": [], "column_indexes": []}',
            '{"index_columns": 5}',
            "[" * 10**4,
        )
    },
    **{f"packing {name}": tabled(lambda table: table, compression=name) for name in ("gzip", "zstd", "none")},
    **{
        f"footer of {n} bytes": (lambda raw, rng, n=n: field(len(raw) - 8, "<I", n)(raw, rng))
        for n in (0, 1, 2**20, 2**31 - 1, 2**32 - 1)
    },
}
CODEC = ["codecs", 0]
INNER = [*CODEC, "configuration", "codecs"]
ARRAY: dict[str, Change] = {
    **all_odd(["shape"], ["shape", 0], ["shape", 1], ["chunk_grid"], ["chunk_grid", "configuration", "chunk_shape", 0]),
    **all_odd(
        CODEC, [*CODEC, "configuration", "chunk_shape", 0], INNER, [*INNER, 0], [*CODEC, "configuration", "index_codecs"]
    ),
    **all_odd(["data_type"], ["fill_value"], ["chunk_key_encoding"], ["node_type"], ["zarr_format"]),
    **{
        f"codec {name} {where}": valued(place, [{"name": name, "configuration": {}}])
        for name in ("numcodecs.pickle", "pickle", "numcodecs.json2", "gzip", "blosc", "zstd", "vlen-utf8", "cast_value", "x")
        for where, place in (("inside", INNER), ("outside", ["codecs"]))
    },
    **{
        f"values of {kind}": valued(["data_type"], kind)
        for kind in ("object", "string", "complex64", "int64", "variable_length_bytes", "bool", "r8")
    },
    **{
        f"shape {shape[:2]}": valued(["shape"], shape)
        for shape in ([10**12, 8, 8, 8], [12, 10**6, 10**6, 10**6], [12, 8, 8], [0, 8, 8, 8], [11, 8, 8, 8])
    },
    "huge shards": valued(["chunk_grid", "configuration", "chunk_shape"], [2**39, 8, 8, 8]),
    "huge chunks": valued([*CODEC, "configuration", "chunk_shape"], [2**39, 8, 8, 8]),
    "index at the start": valued([*CODEC, "configuration", "index_location"], "start"),
    "a transformer": valued(["storage_transformers"], [{"name": "x", "configuration": {}}]),
    "names of chunks with points": valued(["chunk_key_encoding", "configuration", "separator"], "."),
}
ATTRIBUTES = all_odd(
    *(["attributes", name] for name in ("tomolab", "format", "voxel_size", "box", "count")), ["attributes"], ["node_type"]
)
STAGE = ["stages", "01_first"]
SPECIAL: dict[str, dict[str, Change]] = {
    "store group": ATTRIBUTES,
    "store array": ARRAY,
    "store shard": {
        f"bytes {n} from the end are {v}": (lambda raw, rng, n=n, v=v: field(len(raw) - n, "<Q", v)(raw, rng))
        for n in (68, 60, 52, 20, 4 + 8)
        for v in (0, 10**12, 2**64 - 1)
    },
    "store particles": TABLES,
    "store skipped": TABLES,
    "manifest": {
        **all_odd(
            ["stages"], STAGE, *([*STAGE, name] for name in ("parameters", "files", "versions", "machine", "time", "seed"))
        ),
        **{
            f"a file {name or 'without name'}": valued([*STAGE, "files"], {name: "0" * 64})
            for name in (*NAMES, "../../../etc/passwd", "a\0b", "x" * 300)
        },
    },
    "session": archived("about.npy", "ids.npy", "labels.npy", "selected.npy", "steps.npy"),
    "selection": all_odd(["name"], ["reason"], ["count"], ["ids"], ["ids", 0]),
    "embedding json": all_odd(["network"]),
    "embedding ids": HEADED,
    "embedding vectors": HEADED,
    "embedding, mapped": HEADED,
    "average record": all_odd(
        ["name"], ["mask"], ["together"], ["seconds"], ["start"], ["start", "ab initio"], ["symmetry"], ["parameters"]
    ),
    "average particles": TABLES,
    "network json": all_odd(["name"], ["box"], ["classes"], ["classes", 0], ["voxel_size"], ["sha256"], ["format"], ["record"])
    | {f"box {n}": valued(["box"], n) for n in (9, 512, 10**6)}
    | {
        "another network": valued(["name"], "dsrf3d"),
        "a large one": lambda raw, _: json.dumps(json.loads(raw) | {"name": "dsrf3d", "box": 1000}).encode(),
    },
    "network weights": WEIGHTS,
    "checkpoint": WEIGHTS,
    "snapshot": WEIGHTS,
    "part json": all_odd(["done"], ["count"], ["dtype"]),
    "part array": HEADED,
    "download": all_odd(["sha256"], ["url"]),
}
"""Damage that only some kinds can have, by how their names begin."""


def damages(name: str, kind: Kind) -> dict[str, tuple[str, Change]]:
    """File and change of every damage of a kind."""
    (target,) = kind.targets
    own = {what: change for start, changes in SPECIAL.items() if name.startswith(start) for what, change in changes.items()}
    return {f"{target}: {what}": (target, change) for what, change in (general(text=kind.text) | own).items()}
