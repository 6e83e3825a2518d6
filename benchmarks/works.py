"""Pieces of work on small inputs, each done in a process of its own that can be killed or put into trouble, and read again.

>>> preload()
>>> inputs(given)
>>> begun = Begun("train", given, folder)
>>> begun.end(moment=0.3).code                # killed after 0.3 s
-9
>>> look("train", folder)                     # a digest of all that can be read, "nothing", or "damaged: ..."
'nothing'
"""

import errno
import fcntl
import hashlib
import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tomolab import averaging, io, particles, simulation, subtomograms
from tomolab.averaging import checkpoint, gold_standard
from tomolab.inspection import session as sessions
from tomolab.io import run_folder
from tomolab.learning import embedding, networks, training
from tomolab.simulation import Imaging, densities, generator
from tomolab.subtomograms import cropping, store
from tomolab.volumes import Volume

LOOK = Imaging(snr=0.5, tilts=(-60.0, 60.0))
BOX, VOXEL_SIZE = 20, 20.0
LISTED, HELD = 20_000, 200_000
"""Particles of a list, and of a session."""
NOBODY = 65534
"""A user who may write nowhere."""
BACK, AHEAD = -3600.0, 365 * 86400.0
"""Seconds by which a clock jumps."""
CONTEXT = multiprocessing.get_context("forkserver")
REFUSED = 3
"""Code with which a work ends that had an error of the system, as it should on a full disk."""
PATIENCE = 600.0
"""Seconds after which a work counts as hanging."""


def inputs(folder: Path) -> None:
    """What the works start from."""
    maps = densities.load(["tric", "ribosome_70s"], voxel_size=VOXEL_SIZE, box=BOX)
    simulation.subtomograms(maps, 200, imaging=LOOK, box=BOX, seed=1, path=folder / "boxes.zarr", device="cpu", progress=False)
    noise = np.random.default_rng(0).normal(size=(60, 200, 200)).astype(np.float32)
    io.write_volume(Volume(noise, VOXEL_SIZE), folder / "tomogram.mrc")


def places(count: int, seed: int) -> pd.DataFrame:
    """A particle table with places all over the tomogram."""
    drawn = np.random.default_rng(seed).uniform(0.2, 0.8, (count, 3)) * [1200, 4000, 4000]
    return particles.table(drawn, tomogram="cell", tilts=(-60.0, 60.0))


def simulate(_: Path, folder: Path, *, seed: int = 2) -> None:
    """A store of simulated subtomograms, which notes how far it is every 256 of them."""
    generator.BATCHES_PER_TABLE, store.SHARD_BYTES = 1, 256 * 2 * BOX**3
    maps = densities.load(["tric"], voxel_size=VOXEL_SIZE, box=BOX)
    options: dict[str, Any] = {"imaging": LOOK, "box": BOX, "seed": seed, "device": "cpu", "progress": False}
    simulation.subtomograms(maps, 1500, path=folder / "made.zarr", **options)


def extract(given: Path, folder: Path, *, seed: int = 3) -> None:
    """A store of boxes from a tomogram on disk, which notes how far it is every 256 boxes."""
    cropping.WINDOW_BYTES = 256 * 2 * BOX**3
    tomogram = io.open_volume(given / "tomogram.mrc")
    subtomograms.extract(tomogram, places(2000, seed), box=BOX, path=folder / "cut.zarr", progress=False)


def read_store(folder: Path, name: str) -> list[Any]:
    """Every voxel and the table."""
    boxes = subtomograms.open(folder / name)
    return [np.concatenate([volumes for volumes, _ in boxes.batches(500)]), boxes.particles]


def embed(given: Path, folder: Path) -> None:
    """Features by the shipped encoder, which notes how far it is every 32 subtomograms instead of 1,024."""
    embedding.NOTED_ROWS = 32
    boxes = subtomograms.open(given / "boxes.zarr")
    path = folder / "embedding"
    embedding.embed(networks.load(), boxes, path=path, batch_size=16, device="cpu", precision="float32", progress=False)


def read_embedding(folder: Path) -> list[Any]:
    """Vectors and ids."""
    found = embedding.load(folder / "embedding")
    return [np.asarray(found.vectors), found.ids]


def train(given: Path, folder: Path) -> None:
    """A network, with a checkpoint every few batches."""
    maps = densities.load(["tric", "ribosome_70s"], voxel_size=VOXEL_SIZE, box=BOX)
    stream = simulation.Stream(maps, imaging=LOOK, box=BOX, batch_size=8, epoch_size=64, seed=4, device="cpu")
    network = networks.create("compact", box=BOX, classes=stream.classes, voxel_size=VOXEL_SIZE)
    boxes = subtomograms.open(given / "boxes.zarr")
    options: dict[str, Any] = {"validation": boxes.choose(boxes.ids[::10]), "epochs": 2, "seed": 5, "device": "cpu"}
    options |= {"precision": "float32", "checkpoint_minutes": 0.002, "progress": False}
    training.fit(network, stream, folder=folder / "network", **options)


def read_network(folder: Path) -> list[Any]:
    """All weights, and the history but its seconds."""
    network = networks.load(folder / "network" / "network.safetensors")
    history = pd.read_csv(folder / "network" / "history.csv")
    return [networks.digest(network), history.drop(columns=["seconds", "per_second"])]


def average(given: Path, folder: Path) -> None:
    """An average in two halves, with a checkpoint after every iteration."""
    checkpoint.WRITE_INTERVAL = 0.0
    boxes = subtomograms.open(given / "boxes.zarr")
    few = boxes.take(boxes.ids[:16])
    options: dict[str, Any] = {"seed": 6, "iterations": 6, "starts": 1, "device": "cpu", "progress": False}
    gold_standard.average(few, checkpoint=folder / "state.safetensors", **options).save(folder / "average")


def read_average(folder: Path) -> list[Any]:
    """Maps, curve and poses."""
    found = averaging.load(folder / "average")
    return [found.volume.data, found.half1.data, found.half2.data, found.fsc, found.particles]


def export(_: Path, folder: Path, *, seed: int = 7) -> None:
    """A list for RELION over an earlier one."""
    io.write_particles(places(LISTED, seed), folder / "list.star", voxel_size=VOXEL_SIZE)


def read_list(folder: Path) -> list[Any]:
    """The list as it is read."""
    return [io.read_particles(folder / "list.star", voxel_size=VOXEL_SIZE)]


def keep(_: Path, folder: Path, *, seed: int = 8) -> None:
    """A session over an earlier one."""
    table = places(HELD, 9)
    labels = pd.Series(np.random.default_rng(seed).integers(0, 50, HELD), index=table["particle_id"])
    session = sessions.Session(table, labels)
    session.select(table["particle_id"][: HELD // 2])
    session.new_cluster("half of them")
    session.save(folder / "session.npz")


def read_session(folder: Path) -> list[Any]:
    """Labels and what is selected."""
    session = sessions.load(folder / "session.npz", places(HELD, 9))
    return [session.labels.to_numpy(), session.selected]


class Work(NamedTuple):
    """What is done from inputs into a folder, how it is read, options for other work, and whether that was there before."""

    perform: Callable[..., None]
    read: Callable[[Path], list[Any]]
    other: dict[str, Any] | None = None
    over: bool = False
    sums: bool = True
    """Whether a flipped bit can be noticed; a text for other programs has no place for a checksum."""

    @property
    def before(self) -> dict[str, Any] | None:
        """Options for what is there before."""
        return self.other if self.over else None


WORKS = {
    "simulate": Work(simulate, partial(read_store, name="made.zarr"), {"seed": 20}),
    "extract": Work(extract, partial(read_store, name="cut.zarr"), {"seed": 30}),
    "embed": Work(embed, read_embedding),
    "train": Work(train, read_network),
    "average": Work(average, read_average),
    "export": Work(export, read_list, {"seed": 70}, over=True, sums=False),
    "session": Work(keep, read_session, {"seed": 80}, over=True),
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
    modules = {module.__name__ for module in (gold_standard, embedding, sessions, training)}
    offered = {getattr(one, name).__module__ for one in (averaging, io, simulation, subtomograms) for name in one.__all__}
    CONTEXT.set_forkserver_preload(sorted(modules | offered))


def _trouble(full: int | None, nobody: bool, jumps: tuple[float, float] | None, *, locks: bool) -> None:
    if full is not None:
        # Python ignores the signal that comes of it, and sees an error of the system, as on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, full))
    if nobody and os.geteuid() == 0:
        # The permissions of a folder do not bind root.
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if jumps is not None:
        began, real = time.perf_counter(), time.time
        back, ahead = (began + moment for moment in jumps)

        def told() -> float:
            now = time.perf_counter()
            return real() + (AHEAD if now > ahead else BACK if now > back else 0.0)

        time.time, time.time_ns = told, lambda: int(told() * 1e9)
    if not locks:

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        fcntl.flock = refuse  # type: ignore[assignment]


def _perform(
    name: str, given: Path, folder: Path, tell: Connection, trouble: dict[str, Any], stage: str | None, options: dict[str, Any]
) -> None:
    _trouble(trouble.get("full"), trouble.get("nobody", False), trouble.get("jumps"), locks=trouble.get("locks", True))
    tell.send("begun")
    before = time.process_time()
    try:
        WORKS[name].perform(given, folder, **options)
        if stage is not None:
            run_folder.Run(folder).record(stage, parameters={"work": name})
    except (OSError, ValueError) as error:
        if not trouble or (isinstance(error, ValueError) and not trouble.get("damaged")):
            raise
        tell.send(str(error))
        sys.exit(REFUSED)
    tell.send(time.process_time() - before)


def _look(name: str, folder: Path, answer: Connection) -> None:
    try:
        answer.send(digest(WORKS[name].read(folder)))
    except FileNotFoundError:
        answer.send("nothing")
    except Exception:  # noqa: BLE001 - whatever it is, half of something was read
        answer.send(f"damaged: {traceback.format_exc(limit=-1)}")


def look(name: str, folder: Path) -> str:
    """What can be read: a digest, "nothing", or "damaged: ..."."""
    answer, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_look, args=(name, folder, there))
    process.start()
    found = str(answer.recv())
    process.join()
    return found


def seen(folder: Path) -> set[tuple[str, int, int]]:
    """Names, times and sizes of what is in a folder, hidden or not; nothing if there is no folder."""
    found = set()
    for path in folder.glob("*"):
        try:
            found.add((path.name, path.stat().st_mtime_ns, path.stat().st_size))
        except FileNotFoundError:
            continue
    return found


class Ended(NamedTuple):
    """How a work ended: its code, seconds since its beginning, seconds of computing, and the error of the system it had."""

    code: int
    seconds: float
    computed: float
    error: str

    def clear(self, folder: Path) -> bool:
        """Whether it ended with an error of the system that names what it could not read or write."""
        return self.code == REFUSED and (str(folder) in self.error or "No space" in self.error or "too large" in self.error)


class Begun:
    """A work that has begun in a process of its own.

    Parameters
    ----------
    name
        One of `WORKS`.
    given
        What `inputs` made.
    folder
        Where it is done.
    trouble
        ``full``, bytes beyond which no file may grow; ``nobody``, as a user who may write nowhere; ``jumps``, seconds after
        which the clock goes back an hour, and then ahead a year; ``locks``, False for a file system without; ``others``, who
        work at the same time; ``damaged``, whether a file is. Without any, all must go well.
    stage
        Under what name it is recorded in the manifest of the folder.
    options
        For the work.
    """

    def __init__(
        self,
        name: str,
        given: Path,
        folder: Path,
        *,
        trouble: dict[str, Any] | None = None,
        stage: str | None = None,
        **options: Any,
    ) -> None:
        self.name, self.folder, self.before, self.trouble = name, folder, seen(folder), trouble or {}
        self._heard, there = CONTEXT.Pipe(duplex=False)
        arguments = (name, given, folder, there, self.trouble, stage, options)
        self.process = CONTEXT.Process(target=_perform, args=arguments)
        self.process.start()
        there.close()
        self._heard.recv()
        self.began = time.perf_counter()

    def wait_for_writing(self) -> float:
        """Wait until it has written something, and give the seconds that it took."""
        while self.process.is_alive() and seen(self.folder) == self.before:
            time.sleep(0.0002)
        return time.perf_counter() - self.began

    def end(self, moment: float | None = None) -> Ended:
        """Wait for its end, or kill it after some seconds.

        Raises
        ------
        RuntimeError
            If it failed, or hangs.
        """
        self.process.join(PATIENCE if moment is None else moment)
        seconds, hangs = time.perf_counter() - self.began, moment is None and self.process.is_alive()
        self.process.kill()
        self.process.join()
        code = int(self.process.exitcode or 0)
        if hangs or code not in (0, *([REFUSED] if self.trouble else []), *([] if moment is None else [-9])):
            raise RuntimeError(f"{self.name} {'hangs' if hangs else f'ended with {code}'}")
        told = self._heard.recv() if code in (0, REFUSED) else None
        return Ended(code, seconds, told if isinstance(told, float) else 0.0, told if isinstance(told, str) else "")
