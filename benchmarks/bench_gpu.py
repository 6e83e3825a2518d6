"""Every stage on a GPU: how fast it is, how far from what the GPU can do, and what its time goes to.

    python benchmarks/bench_gpu.py                           # some four minutes
    python benchmarks/bench_gpu.py --tiny --device cpu       # whether it runs at all; writes nothing
    python benchmarks/bench_gpu.py --table                   # the last result as the table of docs/gpu.md

First the ceilings are measured: products of large matrices, and copies within the memory of the GPU. Then each stage works on
boxes of 40³ voxels of 10 Å. *busy* is the share of the time in which the GPU computes at all, by torch's profiler: where it is
small, the stage waits for the interpreter and for launches. *of the bound* is the rate of its arithmetic by that of a matrix
product in the same precision. The kernels that take most of the time are named.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import record
import torch
from bench_networks import Ready
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from tomolab import averaging, simulation, subtomograms, tomograms
from tomolab.averaging import alignment, coefficients, fsc
from tomolab.learning import embedding, networks, recipes
from tomolab.learning.loop import Loop, launch
from tomolab.simulation import Imaging, densities
from tomolab.volumes import Volume

IMAGING = Imaging(snr=(0.02, 0.4), tilts=((-66.0, -40.0), (40.0, 66.0)), defocus=(1.0, 5.0), shift=0.1, neighbours=1.0)
BATCHES = dict.fromkeys(("dsrf3d_v2", "rb3d", "cb3d", "yopo"), 64)
USUAL = 256
"""Boxes of a batch, where a network does not need more memory than others."""
CEILINGS = {"float32": "TF32", "bfloat16": "bfloat16"}
"""What bounds the arithmetic of a network: torch lets convolutions in float32 round what they multiply to TF32."""
COLUMNS = ["stage", "what", "per_second", "seconds", "TFLOP/s", "of the bound", "busy", "launches"]
LIMIT = 60.0
"""Seconds after which an average is asked to stop."""


@dataclass
class Bench:
    """Where to measure, how large, and what was found."""

    device: str
    tiny: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    ceilings: dict[str, float] = field(default_factory=dict)

    @property
    def box(self) -> int:
        """Edge of the boxes in voxels."""
        return 20 if self.tiny else 40

    @property
    def voxel_size(self) -> float:
        """In Å."""
        return 400.0 / self.box

    def wait(self) -> None:
        """Until the GPU has done what it was told."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], *, rounds: int = 5) -> float:
        """Median of some calls, after two that are not counted."""
        times = []
        for _ in range(2 + (1 if self.tiny else rounds)):
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - start)
        return statistics.median(times[2:])

    def note(self, stage: str, what: str, work: Callable[[], object], count: float, *, flop: float = 0.0, by: str = "") -> None:
        """Measure a stage: `count` a call, and `flop` operations of the precision `by` a call."""
        seconds = self.seconds(work)
        row: dict[str, Any] = {"stage": stage, "what": what, "per_second": count / seconds, "seconds": seconds}
        if flop:
            row |= {"TFLOP/s": flop / seconds / 1e12, "of the bound": flop / seconds / 1e12 / self.ceilings[by]}
        self.rows.append(row | self.profiled(work))
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in self.rows[-1].items()}, flush=True)

    def profiled(self, work: Callable[[], object]) -> dict[str, Any]:
        """Share of the time of one call in which the GPU computes, and its three longest kernels."""
        if self.device == "cpu":
            return {}
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            self.wait()
            start = time.perf_counter()
            work()
            self.wait()
            wall = time.perf_counter() - start
        kernels = sorted(seen.key_averages(), key=lambda event: -event.self_device_time_total)
        total = sum(event.self_device_time_total for event in kernels) or 1.0
        most = [f"{event.key[:60]} {event.self_device_time_total / total:.0%}" for event in kernels[:3]]
        launches = sum(event.count for event in kernels)
        return {"busy": total / 1e6 / wall, "launches": launches, "longest": "; ".join(most)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small inputs; nothing is written")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--table", action="store_true", help="print the last result for a page, and do nothing")
    options = parser.parse_args()
    if options.table:
        print(record.markdown(json.loads((record.RESULTS / "gpu.json").read_text())["rows"], COLUMNS))
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here: nothing to measure")
        return
    bench = Bench(options.device, options.tiny)
    failed = []
    for name in [name for name in STAGES if name in {"ceilings", *options.stages}]:
        # A stage that fails must not take with it what the others found on a machine that is there for a short time.
        try:
            STAGES[name](bench)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            failed.append(name)
        if not options.tiny:
            settings = {"box": bench.box, "voxel size (Å)": bench.voxel_size, "stages": options.stages, "failed": failed}
            record.write("gpu", bench.rows, settings=settings)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def ceilings(bench: Bench) -> None:
    """What the GPU can do at most: products in three precisions, and copies."""
    size = 512 if bench.tiny else 8192
    for name, dtype, tf32 in (
        ("bfloat16", torch.bfloat16, False),
        ("TF32", torch.float32, True),
        ("float32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        one, other = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
        rate = 2 * size**3 / bench.seconds(lambda one=one, other=other: one @ other) / 1e12  # type: ignore[misc]
        bench.ceilings[name] = rate
        bench.rows.append({"stage": "ceiling", "what": f"product, {name}", "TFLOP/s": rate})
    torch.backends.cuda.matmul.allow_tf32 = False
    block = torch.empty((1 if bench.tiny else 256) * 2**22, device=bench.device)
    target = torch.empty_like(block)
    seconds = bench.seconds(lambda: target.copy_(block))
    bench.rows.append(
        {"stage": "ceiling", "what": "copy, read and written (TB/s)", "per_second": 8 * block.numel() / seconds / 1e12}
    )
    print(*bench.rows, sep="\n", flush=True)


def simulate(bench: Bench) -> None:
    """Subtomograms made on the device, in batches as training takes them, with two models of imaging."""
    maps = densities.load(networks.load("default").classes, voxel_size=bench.voxel_size, box=bench.box)
    for title, imaging in (("with neighbours", IMAGING), ("in crowded cells", Imaging.in_cells(dose=120.0))):
        size = 16 if bench.tiny else USUAL
        flow = simulation.Stream(
            maps, imaging=imaging, box=bench.box, batch_size=size, epoch_size=100_000 * size, seed=1, device=bench.device
        ).epoch(0)
        bench.note("simulate", title, lambda flow=flow: next(flow), size)  # type: ignore[misc]


def learn(bench: Bench) -> None:
    """Training and inference of every network, in both precisions; ours also with what it learns from made meanwhile."""
    names = ["compact", "dsrf3d"] if bench.tiny else networks.names()
    for name in names:
        size = 8 if bench.tiny else BATCHES.get(name, USUAL)
        classes = tuple("abcdefghij")
        volumes = torch.randn(size, bench.box, bench.box, bench.box, device=bench.device)
        data = Ready(classes, volumes, torch.arange(size, device=bench.device) % len(classes))
        network = networks.create(name, box=bench.box, classes=classes)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network.eval()(volumes[:2].cpu())
        forward = counter.get_total_flops() / 2 * size
        for precision in ("float32", "bfloat16"):
            steps = _steps(bench, name, data, precision)
            bench.note(
                "train", f"{name}, {precision}", lambda steps=steps: next(steps), size, flop=3 * forward, by=CEILINGS[precision]
            )  # type: ignore[misc]
            describe = _describe(bench, name, data, precision)
            bench.note("infer", f"{name}, {precision}", describe, size, flop=forward, by=CEILINGS[precision])
    maps = densities.load(networks.load("default").classes, voxel_size=bench.voxel_size, box=bench.box)
    size = 8 if bench.tiny else USUAL
    stream = simulation.Stream(
        maps, imaging=IMAGING, box=bench.box, batch_size=size, epoch_size=100_000 * size, seed=1, device=bench.device
    )
    steps = _steps(bench, "compact", stream, "bfloat16")
    bench.note("train", "compact, bfloat16, simulated meanwhile", lambda: next(steps), size)


def _steps(bench: Bench, name: str, data: Any, precision: str) -> Iterator[torch.Tensor]:
    """Steps of `training.fit`."""
    fabric = launch(torch.device(bench.device), bfloat16=precision == "bfloat16")
    network = networks.create(name, box=bench.box, classes=data.classes)
    loop = Loop(network, data, recipe=recipes.recipe(name), epochs=1, seed=1, fabric=fabric)
    loop.start()
    return loop.epoch(0)


def _describe(bench: Bench, name: str, data: Ready, precision: str) -> Callable[[], torch.Tensor]:
    """Features as `embedding.embed` has them, of what is on the device already."""
    network = networks.create(name, box=bench.box, classes=data.classes).eval()
    network.to(bench.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    volumes = data.volumes[:, None].contiguous(memory_format=torch.channels_last_3d)

    def describe() -> torch.Tensor:
        where = torch.device(bench.device).type
        with torch.inference_mode(), torch.autocast(where, torch.bfloat16, enabled=precision == "bfloat16"):
            return network.features(volumes)

    return describe


def embed(bench: Bench) -> None:
    """A store on the disk, simulated and embedded: all that a user waits for."""
    count = 64 if bench.tiny else 8192
    maps = densities.load(networks.load("default").classes, voxel_size=bench.voxel_size, box=bench.box)
    network = networks.create("compact", box=bench.box, classes=list(maps), voxel_size=bench.voxel_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "boxes.zarr"
        start = time.perf_counter()
        each = -(-count // len(maps))
        simulation.subtomograms(
            maps, each, imaging=IMAGING, box=bench.box, seed=1, path=path, device=bench.device, progress=False
        )
        seconds = time.perf_counter() - start
        data = subtomograms.open(path)
        bench.rows.append(
            {"stage": "simulate", "what": "to a store on disk", "per_second": len(data) / seconds, "seconds": seconds}
        )
        for size in (64, USUAL):
            bench.note(
                "embed",
                f"compact, from a store on disk, {size} a batch",
                lambda size=size: embedding.embed(network, data, device=bench.device, batch_size=size, progress=False),  # type: ignore[misc]
                len(data),
            )


def align(bench: Bench) -> None:
    """Scores of poses, every rotation with every shift; and poses that move uphill."""
    truth = _truth(bench)
    data = _particles(truth, 32 if bench.tiny else 512, bench)
    radius = bench.box / 4
    tilts = torch.tensor([[-60.0, 60.0]], device=bench.device).expand(len(data), 2)
    volumes = torch.from_numpy(data.volumes[:]).float().to(bench.device)
    some = coefficients.transform(volumes, tilts[:, 0], tilts[:, 1], radius_cycles=radius)
    grids = coefficients.gradient_grids(torch.from_numpy(truth.data).to(bench.device))
    noise = torch.full((len(some.points),), 100.0, device=bench.device)
    turns = alignment.uniform_rotations(200 if bench.tiny else 4000, device=torch.device(bench.device))
    shifts = alignment.shift_grid(2.0, 1.0, device=torch.device(bench.device))
    pairs = len(some) * len(turns)
    flop = 4.0 * pairs * len(shifts) * len(some.points)
    bench.note(
        "align",
        f"search: rotations by subtomograms, each with {len(shifts)} shifts, {len(some.points)} coefficients",
        lambda: alignment.exhaustive_search(grids[0], some, turns=turns, shifts=shifts, noise=noise),
        pairs,
        flop=flop,
        by="float32",
    )
    poses = alignment.exhaustive_search(grids[0], some, turns=turns[:100], shifts=shifts, noise=noise)
    count = 5 * poses.scores.numel()
    bench.note(
        "align",
        f"refinement: evaluations of a pose, {len(some.points)} coefficients",
        lambda: alignment.refine_poses(grids, some, poses, noise=noise),
        count,
    )


def average(bench: Bench) -> None:
    """From a selection to its finished average."""
    truth = _truth(bench)
    for count in (24,) if bench.tiny else (500, 5000):
        data = _particles(truth, count, bench)
        start = time.perf_counter()
        seen: list[float] = []
        made = averaging.average(
            data,
            seed=1,
            device=bench.device,
            progress=lambda now, seen=seen: seen.append(now.seconds),  # type: ignore[misc]
            stop=lambda start=start: time.perf_counter() - start > LIMIT,  # type: ignore[misc]
        )
        seconds = time.perf_counter() - start
        fit = alignment.align_map(truth, made.volume, radius_cycles=bench.box / 3)
        table = fsc.correlate(made.volume, alignment.apply(truth, fit), diameter_voxels=0.7 * bench.box)
        reached = fsc.resolution_at(table.assign(fsc=table["masked"]), 0.5)
        row = {"stage": "average", "what": f"{count} subtomograms", "seconds": seconds, "first (s)": seen[0]}
        row |= {"iterations": len(seen), "cut": seconds > LIMIT, "reached (Å)": reached, "halves (Å)": made.resolution}
        bench.rows.append(row | {"per_second": count / seconds})
        print(bench.rows[-1], flush=True)
    few = _particles(truth, 24 if bench.tiny else 500, bench)
    bench.rows[-1 if bench.tiny else -2] |= bench.profiled(
        lambda: averaging.average(few, seed=1, iterations=6, device=bench.device, progress=False)
    )
    print(bench.rows[-1 if bench.tiny else -2], flush=True)


def reconstruct(bench: Bench) -> None:
    """A tomogram of a tilt series: one value of one image for every voxel and tilt."""
    tilts = torch.arange(-60, 61, 30 if bench.tiny else 3).float().numpy()
    side = 64 if bench.tiny else 512
    images = torch.randn(len(tilts), side, side, generator=torch.Generator().manual_seed(1)).numpy()
    shape = (side // 2, side, side)

    def work() -> Volume:
        return tomograms.reconstruct(
            images, tilts, voxel_size=10.0, pixel_size=10.0, shape=shape, device=bench.device, progress=False
        )

    bench.note("reconstruct", f"{len(tilts)} tilts to {shape} voxels: voxel updates", work, len(tilts) * side**3 / 2)


def _truth(bench: Bench) -> Volume:
    return densities.load(["ribosome_70s"], voxel_size=bench.voxel_size, box=bench.box)["ribosome_70s"]


def _particles(truth: Volume, count: int, bench: Bench) -> Any:
    """Subtomograms in poses that their table does not tell."""
    imaging = Imaging(snr=0.1, tilts=(-60, 60), shift=0.05)
    return simulation.subtomograms({"one": truth}, count, imaging=imaging, box=bench.box, seed=2, device=bench.device)


STAGES: dict[str, Callable[[Bench], None]] = {
    "ceilings": ceilings,
    "simulate": simulate,
    "align": align,
    "learn": learn,
    "embed": embed,
    "reconstruct": reconstruct,
    "average": average,
}

if __name__ == "__main__":
    main()
