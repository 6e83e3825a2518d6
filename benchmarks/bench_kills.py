"""Work killed at random moments, or out of disk, and asked for again: what is left, what can be read, what comes of it.

Every piece of work runs in a process of its own on small inputs, first unbroken, then killed (SIGKILL) at moments drawn over
the whole of its time, every other one from the time in which it writes. The same with a disk that is full: no file may grow
beyond a size drawn up to that of the largest. After each, everything is read: there may be nothing, what was there before, or
the whole result. Then the same call is made again, and its result compared with the unbroken one, number by number.
"""

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import record

from tomolab import (
    averages,
    averaging,
    densities,
    embedding,
    files,
    networks,
    particles,
    parts,
    sessions,
    simulation,
    snapshots,
    subtomograms,
    training,
)
from tomolab.imaging import Imaging
from tomolab.volumes import Volume

LOOK = Imaging(snr=0.5, tilts=(-60.0, 60.0))
BOX, VOXEL_SIZE = 20, 20.0
LISTED, HELD = 50_000, 500_000
"""Particles of a list, and of a session."""
CONTEXT = multiprocessing.get_context("forkserver")
REFUSED = 3
"""Code with which a work ends that had an error of the system, as it should on a full disk."""


def inputs(folder: Path) -> None:
    """What the works start from."""
    maps = densities.load(["tric", "ribosome_70s"], voxel_size=VOXEL_SIZE, box=BOX)
    simulation.subtomograms(maps, 200, imaging=LOOK, box=BOX, seed=1, path=folder / "boxes.zarr", device="cpu")
    noise = np.random.default_rng(0).normal(size=(60, 200, 200)).astype(np.float32)
    files.write_volume(Volume(noise, VOXEL_SIZE), folder / "tomogram.mrc")


def places(count: int, seed: int) -> pd.DataFrame:
    """A particle table with places all over the tomogram."""
    drawn = np.random.default_rng(seed).uniform(0.2, 0.8, (count, 3)) * [1200, 4000, 4000]
    return particles.table(drawn, tomogram="cell", tilts=(-60.0, 60.0))


def simulate(_: Path, folder: Path) -> None:
    """A store of simulated subtomograms."""
    maps = densities.load(["tric"], voxel_size=VOXEL_SIZE, box=BOX)
    simulation.subtomograms(maps, 1500, imaging=LOOK, box=BOX, seed=2, path=folder / "made.zarr", device="cpu")


def extract(given: Path, folder: Path) -> None:
    """A store of boxes from a tomogram on disk."""
    tomogram = files.open_volume(given / "tomogram.mrc")
    subtomograms.extract(tomogram, places(2000, 3), box=BOX, path=folder / "made.zarr")


def read_store(folder: Path) -> list[Any]:
    """Every voxel and the table."""
    boxes = subtomograms.open(folder / "made.zarr")
    return [np.concatenate([volumes for volumes, _ in boxes.batches(500)]), boxes.particles]


def embed(given: Path, folder: Path) -> None:
    """Features by the shipped encoder, which notes how far it is every 32 subtomograms instead of 1,024."""
    parts.KEEP = 32
    boxes = subtomograms.open(given / "boxes.zarr")
    path = folder / "embedding.npz"
    embedding.embed(networks.load(), boxes, path=path, batch_size=16, device="cpu", precision="float32", progress=False)


def read_embedding(folder: Path) -> list[Any]:
    """Vectors and ids."""
    found = embedding.load(folder / "embedding.npz")
    return [np.asarray(found.vectors), found.ids]


def train(given: Path, folder: Path) -> None:
    """A network, with a checkpoint every few batches."""
    maps = densities.load(["tric", "ribosome_70s"], voxel_size=VOXEL_SIZE, box=BOX)
    stream = simulation.stream(maps, imaging=LOOK, box=BOX, batch_size=16, epoch_size=160, seed=4, device="cpu")
    network = networks.create("compact", box=BOX, classes=stream.classes, voxel_size=VOXEL_SIZE)
    options: dict[str, Any] = {"validation": subtomograms.open(given / "boxes.zarr"), "epochs": 3, "seed": 5, "device": "cpu"}
    options |= {"precision": "float32", "checkpoint_minutes": 0.002, "progress": False}
    training.fit(network, stream, folder=folder / "network", **options)


def read_network(folder: Path) -> list[Any]:
    """All weights, and the history but its seconds."""
    network = networks.load(folder / "network" / "network.safetensors")
    history = pd.read_csv(folder / "network" / "history.csv")
    return [networks.digest(network), history.drop(columns=["seconds", "per_second"])]


def average(given: Path, folder: Path) -> None:
    """An average in two halves, with a checkpoint after every iteration."""
    snapshots.EVERY = 0.0
    boxes = subtomograms.open(given / "boxes.zarr")
    few = boxes.take(boxes.ids[:40])
    options: dict[str, Any] = {"seed": 6, "iterations": 6, "device": "cpu", "progress": False}
    averaging.average(few, checkpoint=folder / "state.safetensors", **options).save(folder / "average")


def read_average(folder: Path) -> list[Any]:
    """Maps, curve and poses."""
    found = averages.load(folder / "average")
    return [found.volume.data, found.half1.data, found.half2.data, found.fsc, found.particles]


def export(_: Path, folder: Path, *, seed: int = 7) -> None:
    """A list for RELION over an earlier one."""
    files.write_particles(places(LISTED, seed), folder / "list.star", voxel_size=VOXEL_SIZE)


def read_list(folder: Path) -> list[Any]:
    """The list as it is read."""
    return [files.read_particles(folder / "list.star", voxel_size=VOXEL_SIZE)]


def keep(_: Path, folder: Path, *, seed: int = 8) -> None:
    """A session over an earlier one."""
    table = places(HELD, 9)
    labels = pd.Series(np.random.default_rng(seed).integers(0, 50, HELD), index=table["particle_id"])
    session = sessions.Session(table, labels)
    session.select(table["particle_id"][: HELD // 2])
    session.gather("half of them")
    session.save(folder / "session.npz")


def read_session(folder: Path) -> list[Any]:
    """Labels and what is selected."""
    session = sessions.load(folder / "session.npz", places(HELD, 9))
    return [session.labels.to_numpy(), session.selected]


class Work(NamedTuple):
    """What is done from inputs into a folder, how it is read, and perhaps what was there before."""

    perform: Callable[[Path, Path], None]
    read: Callable[[Path], list[Any]]
    before: dict[str, Any] | None = None


WORKS = {
    "simulate": Work(simulate, read_store),
    "extract": Work(extract, read_store),
    "embed": Work(embed, read_embedding),
    "train": Work(train, read_network),
    "average": Work(average, read_average),
    "export": Work(export, read_list, {"seed": 70}),
    "session": Work(keep, read_session, {"seed": 80}),
}


def digest(values: list[Any]) -> str:
    """Of all numbers and words, to the last bit."""
    total = hashlib.sha256()
    for value in values:
        if isinstance(value, pd.DataFrame):
            total.update(value.to_csv(index=False, float_format="%.17g").encode())
        else:
            total.update(np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else str(value).encode())
    return total.hexdigest()


def preload() -> None:
    """Import what is slow once, in the process from which all others are forked."""
    CONTEXT.set_forkserver_preload([module.__name__ for module in (averaging, embedding, files, sessions, training)])


def _perform(name: str, given: Path, folder: Path, begun: Connection, full: int | None, options: dict[str, Any]) -> None:
    if full is not None:
        # Python ignores the signal that comes of it, and sees an error of the system, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, full))
    begun.send(True)
    try:
        WORKS[name].perform(given, folder, **options)
    except OSError:
        if full is None:
            raise
        sys.exit(REFUSED)


def _look(name: str, folder: Path, answer: Connection) -> None:
    try:
        answer.send(digest(WORKS[name].read(folder)))
    except FileNotFoundError:
        answer.send("nothing")
    except Exception:  # noqa: BLE001 - whatever it is, half of something was read
        answer.send(f"damaged: {traceback.format_exc(limit=-1)}")


def _seen(folder: Path) -> set[tuple[str, int, int]]:
    """Names, times and sizes of what is in a folder, hidden or not."""
    found = set()
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_mtime_ns, path.stat().st_size))
    return found


class Run(NamedTuple):
    """Seconds from the beginning of a work to the first thing that it wrote, and to its end, and the code of its end."""

    first: float
    end: float
    code: int | None


def run(
    name: str,
    given: Path,
    folder: Path,
    *,
    moment: float | None = None,
    writing: bool = False,
    full: int | None = None,
    **options: Any,
) -> Run:
    """Do the work in a process of its own; perhaps kill it, or let no file grow beyond `full` bytes.

    It is killed so many seconds after its beginning, or after it began to write.

    Raises
    ------
    RuntimeError
        If it failed by itself, with room enough.
    """
    begun, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_perform, args=(name, given, folder, there, full, options))
    before = _seen(folder)
    process.start()
    begun.recv()
    began = time.perf_counter()
    if moment is None or writing:
        while process.is_alive() and _seen(folder) == before:
            time.sleep(0.0002)
    first = time.perf_counter() - began
    process.join(moment)
    process.kill()
    process.join()
    if full is None and process.exitcode not in (0, *([] if moment is None else [-signal.SIGKILL])):
        raise RuntimeError(f"{name} ended with {process.exitcode}")
    return Run(first, time.perf_counter() - began, process.exitcode)


def look(name: str, folder: Path) -> str:
    """What can be read: a digest, "nothing", or "damaged: ..."."""
    answer, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_look, args=(name, folder, there))
    process.start()
    found = str(answer.recv())
    process.join()
    return found


class Trial:
    """A work that was done unbroken, beside which those are held that were not.

    Parameters
    ----------
    name
        One of `WORKS`.
    given
        What `inputs` made.
    place
        Folder for all that is written.
    """

    def __init__(self, name: str, given: Path, place: Path) -> None:
        self.name, self.given, self.place, self.count = name, given, place / name, 0
        self.complaints: list[str] = []
        whole = self.fresh()
        self.before = look(name, whole)
        first = run(name, given, whole)
        # The second time is without what the first has warmed.
        self.times = min(first, run(name, given, self.fresh()), key=lambda one: one.end)
        self.wanted, self.names = look(name, whole), {path.name for path in whole.rglob("*")}
        self.largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())

    def fresh(self) -> Path:
        """A folder in which there is what was there before."""
        folder = self.place / str(self.count)
        folder.mkdir(parents=True)
        self.count += 1
        if WORKS[self.name].before is not None:
            run(self.name, self.given, folder, **WORKS[self.name].before)
        return folder

    def judge(self, folder: Path, row: dict[str, Any]) -> float:
        """Count what can be read in a folder, do the work again there, and count what came of it; seconds of the second."""
        found = look(self.name, folder)
        known = {self.before: "earlier", "nothing": "nothing", self.wanted: "whole"}
        row[known.get(found, "damaged")] += 1
        if found not in known:
            self.complaints.append(found)
        seconds = run(self.name, self.given, folder).end
        row["resumed as unbroken"] += look(self.name, folder) == self.wanted
        left = sorted({path.name for path in folder.rglob("*")} - self.names)
        row["left over"] += len(left)
        self.complaints += [f"left over: {', '.join(left)}"] if left else []
        return seconds

    def killed(self, moments: int, *, seed: int) -> dict[str, Any]:
        """The work killed at moments drawn from the time that it takes."""
        row, spared = _row(self.name, "killed", moments), []
        for number, share in enumerate(np.random.default_rng(seed).uniform(0, 1, moments)):
            folder = self.fresh()
            # Every other one while it writes, which may be a small part of its time.
            writing = number % 2 == 0
            moment = float(share) * (self.times.end - writing * self.times.first)
            run(self.name, self.given, folder, moment=moment, writing=writing)
            spared.append(1 - self.judge(folder, row) / self.times.end)
        return row | {"seconds": self.times.end, "time spared": float(np.median(spared))}

    def filled(self, moments: int, *, seed: int) -> dict[str, Any]:
        """The work on a disk that is full: no file may grow beyond a share of the largest."""
        row = _row(self.name, "disk full", moments) | {"clear errors": 0}
        for share in np.random.default_rng(seed).uniform(0.02, 0.98, moments):
            folder = self.fresh()
            code = run(self.name, self.given, folder, full=int(share * self.largest)).code
            row["clear errors"] += code == REFUSED
            self.judge(folder, row)
        return row


def _row(name: str, what: str, moments: int) -> dict[str, Any]:
    counts = ("nothing", "earlier", "whole", "damaged", "resumed as unbroken", "left over")
    return {"work": name, "broken by": what, "times": moments} | dict.fromkeys(counts, 0)


def table(*, moments: int, seed: int = 0, works: list[str] | None = None) -> list[dict[str, Any]]:
    """Two rows for each work."""
    preload()
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given"
        given.mkdir()
        inputs(given)
        rows = []
        for name in works or WORKS:
            trial = Trial(name, given, Path(folder))
            rows += [trial.killed(moments, seed=seed), trial.filled(max(1, moments // 5), seed=seed)]
            print(pd.DataFrame(rows[-2:]).to_string(index=False), *trial.complaints[:3], sep="\n", flush=True)
    return rows


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--works", nargs="+", choices=list(WORKS), default=list(WORKS))
    given = parser.parse_args()
    # Bars of hundreds of processes, which is for them to know before they begin.
    os.environ["TQDM_DISABLE"] = "1"
    rows = table(moments=given.moments, seed=given.seed, works=given.works)
    record.write("kills", rows, settings={"moments": given.moments, "seed": given.seed})


if __name__ == "__main__":
    main()
