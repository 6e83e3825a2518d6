"""What this machine can do at most: multiply, move, transform, read, write, and call Python; beside it what tomolab gets of it.

    python benchmarks/bench_bounds.py

Every bound is the best of some rounds. Then a few things that tomolab does are timed in the same minute, on the same machine,
and held beside the bound that they come nearest to. `benchmarks/README.md` tells what the numbers mean.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

from tomolab import io, parallel, particles, simulation, subtomograms
from tomolab.learning import embedding, networks
from tomolab.simulation import Imaging
from tomolab.simulation.densities import load
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

BOX, VOXEL_SIZE = 20, 20.0


def best(work: Callable[[], Any], *, rounds: int) -> float:
    """Seconds of the fastest round, after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def multiply(kind: torch.dtype, *, rounds: int) -> float:
    """GFLOP/s of a product of two matrices of 2,048 rows and columns."""
    side = 2048
    one = torch.randn(side, side).to(kind)
    return 2 * side**3 / best(lambda: one @ one, rounds=rounds) / 1e9


def convolve(*, rounds: int) -> float:
    """GFLOP/s of a convolution 3 x 3 x 3 from 32 to 32 channels, as in the networks."""
    layer = torch.nn.Conv3d(32, 32, 3, padding=1).to(memory_format=torch.channels_last_3d)
    given = torch.randn(16, 32, BOX, BOX, BOX).to(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        return 16 * 2 * 27 * 32 * 32 * BOX**3 / best(lambda: layer(given), rounds=rounds) / 1e9


def copy(*, rounds: int) -> float:
    """GB/s read and written together by a copy of 512 MB."""
    source = torch.zeros(2**27)
    target = torch.ones(2**27)
    return 2 * 4 * 2**27 / best(lambda: target.copy_(source), rounds=rounds) / 1e9


def transform(*, rounds: int) -> float:
    """GFLOP/s of 3-D transforms of 64 boxes of 40 voxels, real to complex, counted as 2.5 N log2 N each."""
    boxes, count = torch.randn(64, 40, 40, 40), 40**3
    return 64 * 2.5 * count * np.log2(count) / best(lambda: torch.fft.rfftn(boxes, dim=(1, 2, 3)), rounds=rounds) / 1e9


def disk(folder: Path, *, megabytes: int) -> tuple[float, float]:
    """GB/s of writing a file until it is on the disk, and of reading it when memory has let it go."""
    path, block = folder / "disk", os.urandom(2**20)
    start = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    written = time.perf_counter() - start
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        while file.read(2**24):
            pass
    read = time.perf_counter() - start
    path.unlink()
    return megabytes / 1024 / written, megabytes / 1024 / read


def settle(folder: Path, *, rounds: int) -> float:
    """Milliseconds until a small file that is written whole or not at all is on the disk."""

    def write() -> None:
        with io.atomic(folder / "small.json") as temporary:
            temporary.write_text("{}")

    return 1000 * best(write, rounds=rounds)


def call(*, rounds: int) -> float:
    """Nanoseconds of a turn of a Python loop that calls a function."""

    def nothing() -> None:
        return None

    def loop() -> None:
        for _ in range(100_000):
            nothing()

    return best(loop, rounds=rounds) / 100_000 * 1e9


def bounds(folder: Path, *, rounds: int, megabytes: int) -> dict[str, float]:
    """All bounds by name."""
    written, read = np.max([disk(folder, megabytes=megabytes) for _ in range(rounds)], axis=0).tolist()
    found = {"multiply, float32 (GFLOP/s)": multiply(torch.float32, rounds=rounds)}
    if parallel.use_bfloat16(torch.device("cpu"), "auto"):
        found["multiply, bfloat16 (GFLOP/s)"] = multiply(torch.bfloat16, rounds=rounds)
    return found | {
        "convolve, float32 (GFLOP/s)": convolve(rounds=rounds),
        "transform (GFLOP/s)": transform(rounds=rounds),
        "copy (GB/s)": copy(rounds=rounds),
        "disk, written (GB/s)": written,
        "disk, read (GB/s)": read,
        "small file settled (ms)": settle(folder, rounds=5 * rounds),
        "call in Python (ns)": call(rounds=rounds),
    }


def operations(network: torch.nn.Module) -> float:
    """GFLOP of one box through the features of a network: its convolutions and linear layers."""
    total = 0.0

    def count(layer: Any, _: Any, out: torch.Tensor) -> None:
        nonlocal total
        total += 2 * layer.weight.numel() / layer.weight.shape[0] * out.numel() / 1e9

    kinds = (torch.nn.Conv3d, torch.nn.Linear)
    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, kinds)]
    with torch.inference_mode():
        network.features(torch.zeros(1, BOX, BOX, BOX))  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    return total


def reached(folder: Path, *, rounds: int, limits: dict[str, float]) -> list[dict[str, Any]]:
    """What tomolab gets, beside its bound: rows with a rate in the unit of the bound, and the share."""
    rng = np.random.default_rng(0)
    maps = load(["tric"], voxel_size=VOXEL_SIZE, box=BOX)
    count = 256
    made = simulation.subtomograms(maps, count, imaging=Imaging(snr=0.1), box=BOX, seed=1, device="cpu")
    network = networks.load()
    embed = lambda: embedding.embed(network, made, precision="float32", device="cpu", progress=False)  # noqa: E731
    rows = [("embedding, float32", operations(network) * count / best(embed, rounds=rounds), "convolve, float32 (GFLOP/s)")]
    many = Subtomograms(np.concatenate([made.volumes] * 32).astype(np.float16), _numbered(32 * count), VOXEL_SIZE)
    size = many.volumes.nbytes / 1e9
    rows.append(("store written", size / best(lambda: many.save(folder / "boxes.zarr"), rounds=rounds), "disk, written (GB/s)"))
    opened = subtomograms.open(folder / "boxes.zarr")
    read = best(lambda: [len(ids) for ids, _ in opened.batches(512)], rounds=rounds)
    # Read as float16 and made float32: 2 bytes in, 2 out to memory, 2 in and 4 out.
    rows.append(("store read in order, as float32", 5 * size / read, "copy (GB/s)"))
    tomogram = Volume(rng.normal(size=(128, 512, 512)).astype(np.float32), VOXEL_SIZE)
    written = tomogram.data.nbytes / best(lambda: io.write_volume(tomogram, folder / "t.mrc"), rounds=rounds) / 1e9
    rows.append(("tomogram written", written, "disk, written (GB/s)"))
    places = particles.table(rng.uniform(400, 2000, (1000, 3)), tilts=(-60.0, 60.0))
    cut = best(lambda: subtomograms.extract(tomogram, places, box=BOX), rounds=rounds)
    # A shift by less than a voxel: there and back by a transform.
    flops = 1000 * 2 * 2.5 * BOX**3 * np.log2(BOX**3) / 1e9
    rows.append(("boxes cut from memory", flops / cut, "transform (GFLOP/s)"))
    return [
        {"what": what, "rate": rate, "bound by": bound, "bound": limits[bound], "of the bound": rate / limits[bound]}
        for what, rate, bound in rows
    ]


def _numbered(count: int) -> Any:
    return particles.table(np.zeros((count, 3)), tilts=(-60.0, 60.0))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=512, help="of the file by which the disk is measured")
    parser.add_argument("--table", action="store_true", help="print the last result for a page, and do nothing")
    given = parser.parse_args()
    if given.table:
        last = json.loads((record.RESULTS / "bounds.json").read_text())
        print(record.markdown(last["rows"], ["what", "rate", "bound by", "bound", "of the bound"]))
        return
    with tempfile.TemporaryDirectory() as folder:
        limits = bounds(Path(folder), rounds=given.rounds, megabytes=given.megabytes)
        rows = [{"what": name, "bound": value} for name, value in limits.items()]
        rows += reached(Path(folder), rounds=given.rounds, limits=limits)
    load_now = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    settings = {
        "rounds": given.rounds,
        "megabytes": given.megabytes,
        "threads": torch.get_num_threads(),
        "load of the machine": load_now,
    }
    record.write("bounds", rows, settings=settings)


if __name__ == "__main__":
    main()
