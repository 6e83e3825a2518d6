"""Work on a cluster gives what it gives here, in order, a few items at a time, also when a worker is killed."""

import copy
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import imaged
from distributed import Client, LocalCluster
from torch import nn

from tomolab import io, parallel, particles, simulation, tomograms
from tomolab.averaging import gold_standard, initial_model, matching
from tomolab.averaging.classification import discovery
from tomolab.ctf import Lens
from tomolab.io.volumes.tomogram import Tomogram
from tomolab.learning import embedding
from tomolab.parallel import OncePerProcess
from tomolab.simulation import Imaging, densities, generator
from tomolab.subtomograms import Subtomograms, dataset, extraction, tomogram_list
from tomolab.volumes import Volume

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two worker processes that nobody else can reach."""
    settings = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        LocalCluster(scheduler_kwargs={"dashboard": False}, **settings) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def as_many_threads(client: Client) -> Iterator[None]:
    """As many as the workers have, which is one by default: some sums depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(client.run(torch.get_num_threads).values()))
    yield
    torch.set_num_threads(before)


def squared(number: int, *shared: int) -> int:
    return number**2 + sum(shared)


def failing(number: int) -> int:
    if number == 3:
        raise KeyError(f"item {number} is no good")
    return number


def dying(number: int, marker: Path, table: np.ndarray) -> int:
    """Kills its process the first time that it is given number 4."""
    if number == 4:
        die_once(marker)
    return number + int(table.sum())


def die_once(marker: Path) -> None:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def started(number: int, folder: Path) -> int:
    (folder / str(number)).touch()
    time.sleep(1.0)
    return number


def process(_: int, made: tuple[int, int]) -> tuple[int, int, int]:
    return (os.getpid(), *made)


def making(folder: Path) -> tuple[int, int]:
    """The process and how often it has made this."""
    (folder / f"{os.getpid()}-{len(list(folder.iterdir()))}").touch()
    return os.getpid(), len(list(folder.glob(f"{os.getpid()}-*")))


def nested(_: int) -> bool:
    return parallel.active() is None


@pytest.mark.parametrize("where", ["here", "there"])
def test_results_come_in_the_order_of_the_items(client: Client, where: str) -> None:
    found = parallel.each(squared, range(30), client=client if where == "there" else None, shared=(1, 2))
    assert list(found) == [number**2 + 3 for number in range(30)]
    assert list(parallel.each(squared, [], client=client)) == []


def test_here_an_item_is_taken_when_its_result_is_asked_for() -> None:
    numbers = count()
    assert list(islice(parallel.each(squared, numbers), 3)) == [0, 1, 4]
    assert next(numbers) == 3


def test_no_more_items_are_drawn_than_may_be_on_their_way(client: Client) -> None:
    drawn: list[int] = []
    endless = (drawn.append(number) or number for number in count())
    for taken, found in enumerate(parallel.each(squared, endless, client=client, ahead=3), 1):
        assert found == (taken - 1) ** 2
        assert len(drawn) <= taken + 3
        if taken == 10:
            break
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        parallel.each(squared, [1], client=client, ahead=0)


def test_by_default_two_items_are_on_their_way_for_each_thread(client: Client) -> None:
    drawn: list[int] = []
    found = parallel.each(squared, (drawn.append(number) or number for number in count()), client=client)
    next(found)
    assert len(drawn) == 1 + 2 * sum(client.nthreads().values())
    found.close()


def test_what_nobody_waits_for_is_called_off(client: Client, tmp_path: Path) -> None:
    found = parallel.each(started, range(1000), client=client, shared=(tmp_path,), ahead=40)
    assert next(found) == 0
    found.close()
    made = len(list(tmp_path.iterdir()))
    assert made < 35
    assert list(parallel.each(squared, range(4), client=client)) == [0, 1, 4, 9]
    assert len(list(tmp_path.iterdir())) <= made + 2


@pytest.mark.parametrize("where", ["here", "there"])
def test_an_error_of_an_item_comes_out_as_it_is(client: Client, where: str) -> None:
    found = parallel.each(failing, range(9), client=client if where == "there" else None)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="item 3 is no good"):
        next(found)
    assert list(found) == []


def test_an_error_where_items_come_from_comes_out_too(client: Client) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(parallel.each(squared, items(), client=client))


def test_a_killed_worker_costs_no_result(client: Client, tmp_path: Path) -> None:
    marker, table = tmp_path / "died", np.arange(1000)
    found = list(parallel.each(dying, range(20), client=client, shared=(marker, table)))
    assert marker.exists()
    assert found == [number + 499500 for number in range(20)]


def test_every_process_makes_a_value_for_itself_and_once(client: Client, tmp_path: Path) -> None:
    made = OncePerProcess(making, (tmp_path,))
    assert made.value == (os.getpid(), 1)
    found = set(parallel.each(process, range(20), client=client, shared=(made,)))
    assert os.getpid() not in {one[0] for one in found}
    assert all(own == maker and times == 1 for own, maker, times in found)
    assert copy.copy(made) is not made
    assert vars(copy.copy(made)) == {"make": making, "arguments": (tmp_path,)}


def test_the_active_client_is_used_unless_told_otherwise(client: Client) -> None:
    assert parallel.active() is None
    with client.as_current():
        assert parallel.active() is client
        assert parallel.active(False) is None
    assert parallel.active(client) is client
    assert list(parallel.each(nested, range(4), client=client)) == [True] * 4
    with pytest.raises(TypeError, match=re.escape("a distributed.Client, None for the active one, or False, got 'tcp://")):
        parallel.active("tcp://127.0.0.1:8786")


def same(a: Subtomograms, b: Subtomograms) -> None:
    np.testing.assert_array_equal(np.asarray(a.volumes[:]), np.asarray(b.volumes[:]))
    pd.testing.assert_frame_equal(a.particles, b.particles)
    pd.testing.assert_frame_equal(a.skipped, b.skipped)


@pytest.fixture(scope="module")
def made(client: Client) -> dict[str, Subtomograms]:
    """The same 150 subtomograms from here and from there."""
    maps = densities.load(["tric", "ribosome_70s"], voxel_size=25.0, box=16)
    make = partial(simulation.subtomograms, maps, 75, imaging=Imaging(snr=0.5), box=16, seed=3, device="cpu")
    torch.set_num_threads(min(client.run(torch.get_num_threads).values()))
    return {"here": make(client=False), "there": make(client=client)}


def test_simulate(made: dict[str, Subtomograms], client: Client, tmp_path: Path) -> None:
    same(made["here"], made["there"])
    maps = densities.load(["tric"], voxel_size=25.0, box=16)
    stored = [
        simulation.subtomograms(maps, 70, imaging=Imaging(), box=16, seed=4, path=tmp_path / name, device="cpu", client=who)
        for name, who in (("a.zarr", False), ("b.zarr", client))
    ]
    same(*stored)


@pytest.fixture
def killing(client: Client, monkeypatch) -> list[int]:
    """A worker is killed when the first result has come, and others are on their way; its process id."""
    killed, each = [], parallel.each

    def patched(*given: object, **options: object) -> Iterator[object]:
        for number, found in enumerate(each(*given, **options)):
            if not killed and number == 0 and options["client"] is not None:
                killed.append(min(client.run(os.getpid).values()))
                os.kill(killed[0], signal.SIGKILL)
            yield found

    monkeypatch.setattr(parallel, "each", patched)
    return killed


def test_simulate_outlives_a_worker(client: Client, tmp_path: Path, monkeypatch, killing: list[int]) -> None:
    monkeypatch.setattr(generator, "BATCHES_PER_TABLE", 1)
    maps = densities.load(["tric"], voxel_size=25.0, box=16)
    make = partial(simulation.subtomograms, maps, 600, imaging=Imaging(), box=16, seed=4, device="cpu")
    same(make(client=False, path=tmp_path / "here.zarr"), make(client=client, path=tmp_path / "there.zarr"))
    assert len(killing) == 1


def reconstructed(client: Client | bool, *, bad: int | None = None) -> np.ndarray:
    """A tomogram of noise, one image of which may be no good."""
    rng, tilts = np.random.default_rng(1), np.linspace(-60, 60, 11)
    stack = rng.normal(size=(11, 75, 60)).astype(np.float32)
    moves = (np.tile(np.eye(2), (11, 1, 1)), rng.normal(size=(11, 2)))
    common = {"voxel_size": 20.0, "pixel_size": 15.0, "transforms": moves, "weighting": "exact", "lens": Lens()}
    common |= {"defocus": np.full(11, 3.0), "dose": np.arange(11.0), "shape": (20, 53, 41), "device": "cpu", "progress": False}
    if bad is not None:
        stack[bad] = 1.0
    return tomograms.reconstruct(stack, tilts, **common, client=client).data


def test_reconstruct(client: Client) -> None:
    np.testing.assert_array_equal(reconstructed(False), reconstructed(client))
    with pytest.raises(ValueError, match="image 7"):
        reconstructed(client, bad=7)


def test_reconstruct_outlives_a_worker(client: Client, killing: list[int]) -> None:
    np.testing.assert_array_equal(reconstructed(False), reconstructed(client))
    assert len(killing) == 1


@pytest.fixture
def cell() -> tuple[Volume, pd.DataFrame]:
    """Noise, and 120 places in it, some at the border."""
    rng = np.random.default_rng(2)
    volume = Volume(rng.normal(size=(30, 40, 50)).astype(np.float32), 10.0)
    return volume, particles.table(rng.uniform(20, [280, 380, 480], (120, 3)), tomogram="cell")


@pytest.mark.filterwarnings("ignore:.* particles skipped")
@pytest.mark.parametrize("voxel_size", [10.0, 13.0])
def test_extract(client: Client, cell: tuple[Volume, pd.DataFrame], tmp_path: Path, voxel_size: float, monkeypatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.cropping.WINDOW_BYTES", 2**16)
    volume, places = cell
    lazy = io.open_volume(io.write_volume(volume, tmp_path / "cell.mrc"))
    cut = partial(extraction.extract, particles=places, box=12, voxel_size=voxel_size)
    here = cut(volume, client=False)
    same(here, cut(volume, client=client))
    same(here, cut(lazy, client=client, path=tmp_path / "cut.zarr"))


class Deadly:
    """Voxels whose reading kills a process once."""

    def __init__(self, data: np.ndarray, marker: Path) -> None:
        self.data, self.marker = data, marker

    def __call__(self, slices: tuple[slice, ...]) -> np.ndarray:
        die_once(self.marker)
        return self.data[slices]


@pytest.mark.filterwarnings("ignore:.* particles skipped")
def test_extract_outlives_a_worker(client: Client, cell: tuple[Volume, pd.DataFrame], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.cropping.WINDOW_BYTES", 2**17)
    volume, places = cell
    deadly = Tomogram(volume.shape, volume.voxel_size, Deadly(volume.data, tmp_path / "died"))
    there = extraction.extract(deadly, places, box=12, client=client)
    assert (tmp_path / "died").exists()
    same(extraction.extract(volume, places, box=12, client=False), there)


@pytest.mark.filterwarnings("ignore:.* particles skipped")
def test_extract_from_many_tomograms(client: Client, cell: tuple[Volume, pd.DataFrame], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tomolab.subtomograms.cropping.WINDOW_BYTES", 2**16)
    volume, places = cell
    paths = [io.write_volume(volume, tmp_path / "a.mrc"), io.write_volume(volume, tmp_path / "b.zarr")]
    names = np.where(np.arange(len(places)) % 3, "a", "b")
    table = pd.DataFrame({"tomogram": ["a", "b"], "path": paths, "contrast": "dark"})
    cut = partial(tomogram_list.extract, table, places.assign(tomogram=names), box=12, progress=False)
    same(cut(path=tmp_path / "here", client=False), cut(path=tmp_path / "there", client=client))


def test_a_tomogram_is_sent_by_what_it_is_called(cell: tuple[Volume, pd.DataFrame], tmp_path: Path, monkeypatch) -> None:
    io.write_volume(cell[0], tmp_path / "cell.mrc")
    monkeypatch.chdir(tmp_path)
    opened = io.open_volume("cell.mrc")
    monkeypatch.chdir(ROOT)
    assert opened.__getstate__()["fetch"] is None
    block = np.s_[3:9, 4:8, 5:7]
    np.testing.assert_array_equal(copy.copy(opened).read(block), cell[0].data[block])
    io.write_volume(Volume(cell[0].data[1:], 10.0), tmp_path / "cell.mrc")
    with pytest.raises(ValueError, match="was sent, but this process opened"):
        copy.copy(opened)


class Deep(nn.Module):
    """Two layers; kills its process once where it is told to."""

    name, box, voxel_size = "deep", 16, 25.0

    def __init__(self, marker: Path | None = None) -> None:
        super().__init__()
        self.marker, generator = marker, torch.Generator().manual_seed(1)
        self.first, self.second = nn.Conv3d(1, 8, 3), nn.Conv3d(8, 8, 3)
        for weight in self.parameters():
            weight.data.normal_(generator=generator)

    def features(self, volumes: torch.Tensor) -> torch.Tensor:
        if self.marker is not None:
            die_once(self.marker)
        return self.second(self.first(volumes[:, None]).relu()).relu().mean((2, 3, 4))


@pytest.mark.parametrize(
    ("where", "precision"), [("memory", "float32"), ("store", "auto"), ("chosen", "float32"), ("memory", "bfloat16")]
)
def test_embed(made: dict[str, Subtomograms], client: Client, tmp_path: Path, where: str, precision: str) -> None:
    held = made["here"] if where == "memory" else dataset.open(made["here"].save(tmp_path / "boxes.zarr"))
    held = held.choose(held.ids[::-2]) if where == "chosen" else held
    network = Deep().train()
    embed = partial(embedding.embed, network, held, batch_size=20, precision=precision, progress=False, device="cpu")
    here, there = embed(client=False), embed(client=client, path=tmp_path / "there.npz")
    np.testing.assert_array_equal(here.vectors, there.vectors)
    assert here.ids.tolist() == there.ids.tolist()
    assert network.training


def test_embed_outlives_a_worker_and_goes_on_after_a_cut(
    made: dict[str, Subtomograms], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = Deep(tmp_path / "died")
    there = embedding.embed(deep, made["here"], batch_size=16, progress=False, client=client, device="cpu")
    assert (tmp_path / "died").exists()
    here = embedding.embed(deep, made["here"], batch_size=16, progress=False, client=False)
    np.testing.assert_array_equal(here.vectors, there.vectors)
    monkeypatch.setattr("tomolab.learning.embedding.NOTED_ROWS", 16)
    add, seen = embedding.PartialArray.add, []

    def cut(self: embedding.PartialArray, rows: np.ndarray) -> None:
        seen.append(len(rows))
        if len(seen) == 4:
            raise KeyboardInterrupt
        add(self, rows)

    monkeypatch.setattr(embedding.PartialArray, "add", cut)
    again = partial(embedding.embed, deep, made["here"], batch_size=16, progress=False, path=tmp_path / "v.npz", client=client)
    with pytest.raises(KeyboardInterrupt):
        again()
    done = again()
    assert sum(seen) == 150 + 16  # nothing was computed twice, but for the batch that was not kept
    np.testing.assert_array_equal(here.vectors, done.vectors)


def test_a_store_that_a_worker_does_not_find_is_no_zeros(made: dict[str, Subtomograms], client: Client, tmp_path: Path) -> None:
    held = dataset.open(made["here"].save(tmp_path / "boxes.zarr"))
    assert dataset.reachable(held.volumes)
    assert not dataset.reachable(made["here"].volumes)
    os.rename(tmp_path / "boxes.zarr", tmp_path / "moved.zarr")
    with pytest.raises(FileNotFoundError, match=r"a worker on .* finds no store at .*boxes.zarr"):
        dataset.reached(held.volumes)


@pytest.fixture(scope="module")
def noisy(small: Volume) -> Subtomograms:
    return imaged(small, 24, snr=0.5, seed=0)[0]


@pytest.mark.filterwarnings("ignore:the two halves agree on nothing")  # so few particles, so few iterations
def test_average_with_checkpoint_stop_and_a_killed_worker(
    noisy: Subtomograms, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomolab.averaging.checkpoint.WRITE_INTERVAL", 0.0)
    run = partial(gold_standard.average, noisy, seed=1, iterations=4, starts=1, device="cpu", finest=80.0)
    here, told = run(client=False, progress=False), []

    def watch(step: gold_standard.Progress) -> None:
        told.append(step.iteration)
        if step.iteration == 2:
            os.kill(min(client.run(os.getpid).values()), signal.SIGKILL)

    first = run(client=client, progress=watch, stop=lambda: len(told) == 3, checkpoint=tmp_path / "at.safetensors")
    assert len(first.particles) == 24
    there = run(client=client, progress=watch, checkpoint=tmp_path / "at.safetensors")
    assert told == [1, 2, 3, 4]
    for name in ("volume", "half1", "half2"):
        np.testing.assert_array_equal(getattr(here, name).data, getattr(there, name).data)
    pd.testing.assert_frame_equal(here.particles, there.particles)
    assert threading.active_count() < 50


def test_first_structure_and_matches(noisy: Subtomograms, client: Client, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tomolab.averaging.initial_model.LOCAL", 1)
    monkeypatch.setattr("tomolab.averaging.matching.BATCH", 3)
    find = partial(initial_model.find, noisy, seed=1, starts=1, iterations=2, progress=False, device="cpu")
    here, there = find(client=False), find(client=client)
    np.testing.assert_array_equal(here.volume.data, there.volume.data)
    stored = dataset.open(noisy.save(tmp_path / "noisy.zarr"))
    for held in (noisy, stored):
        score = partial(matching.score, held, here, held.ids[6::-1], resolution=90.0, progress=False, device="cpu")
        pd.testing.assert_frame_equal(score(client=False), score(client=client))


def test_discover(noisy: Subtomograms, client: Client) -> None:
    labels = pd.Series(0, index=noisy.ids)
    find = partial(discovery.discover, noisy, labels, seed=1, iterations=1, progress=False, device="cpu")
    here, there = find(client=False), find(client=client)
    pd.testing.assert_series_equal(here.labels, there.labels)
    pd.testing.assert_series_equal(here.probability, there.probability)
    np.testing.assert_array_equal(here.volumes[0].data, there.volumes[0].data)


def test_the_script_for_slurm_asks_for_what_the_page_says() -> None:
    slurm = runpy.run_path(str(ROOT / "docs" / "slurm.py"))
    loopback = next(name for name, found in psutil.net_if_addrs().items() if any(one.address == "127.0.0.1" for one in found))
    with warnings.catch_warnings():
        # Only that the port for its state is taken, where another cluster runs.
        warnings.filterwarnings("ignore", "Port 8787 is already in use", UserWarning)
        with slurm["cluster"](loopback) as jobs:
            lines = jobs.job_script().splitlines()
    assert {"#SBATCH -p gpu", "#SBATCH -A cryoem", "#SBATCH --cpus-per-task=8", "#SBATCH --gres=gpu:1"} <= set(lines)
    assert {"#SBATCH -t 08:00:00", "#SBATCH -n 1", "export OMP_NUM_THREADS=8 MKL_NUM_THREADS=8"} <= set(lines)
    (command,) = [line for line in lines if "dask_worker" in line]
    for words in (sys.executable, "--nthreads 1", "--lifetime 7h50m", f"--interface {loopback}"):
        assert words in command


def test_a_worker_for_each_gpu_sees_no_other() -> None:
    gpus = runpy.run_path(str(ROOT / "docs" / "gpus.py"))
    with gpus["cluster"](2) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=120)
        seen = client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(seen.values()) == ["0", "1"]
        assert all(address.startswith("tcp://127.0.0.1:") for address in seen)


def test_the_default_is_a_device_that_is_there() -> None:
    assert parallel.pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert parallel.pick_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device 'cuda:1' was asked for, but torch sees no GPU here"):
        parallel.pick_device("cuda:1")


def test_bfloat16_is_fast_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, fast in (("fma avx512f avx512_bf16", True), ("fma amx_bf16 amx_tile", True), ("fma avx2", False)):
        monkeypatch.setattr(parallel.Path, "exists", lambda path: True)
        monkeypatch.setattr(parallel.Path, "read_text", lambda path, flags=flags: f"flags : {flags}\n")
        assert parallel.fast_bfloat16(torch.device("cpu")) is fast


def test_precision_is_one_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "fast_bfloat16", lambda device: True)
    answers = [parallel.use_bfloat16(torch.device("cpu"), precision) for precision in ("auto", "bfloat16", "float32")]
    assert answers == [True, True, False]
    with pytest.raises(ValueError, match="got 'bf16'"):
        parallel.use_bfloat16(torch.device("cpu"), "bf16")


BUSY = "import time; end = time.time() + {seconds}\nwhile time.time() < end: pass"
LOAD = """
import os, torch
from tomolab import parallel
print(parallel.use_free_cores(), torch.get_num_threads())
"""


def torch_threads(**environment: str) -> list[str]:
    """What a new process prints: the chosen threads and those of torch."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=clean | environment, capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.split()


def test_beside_busy_processes_torch_leaves_their_cores_to_them():
    busy = [subprocess.Popen([sys.executable, "-c", BUSY.format(seconds=100)]) for _ in range(os.cpu_count() or 1)]
    try:
        assert torch_threads() == ["1", "1"]
        assert torch_threads(OMP_NUM_THREADS="2") == ["2", "2"], "what the user asks for stays"
        assert parallel.busy_elsewhere(0.5) > 0.5
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_threads_that_were_set_by_hand_stay(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 3)
    try:
        parallel.pick_device("cpu")
        assert torch.get_num_threads() == before + 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="GNU OpenMP says what it read")
def test_waiting_threads_sleep_unless_the_user_asks_for_more():
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")} | {"OMP_DISPLAY_ENV": "TRUE"}

    def policy(**environment: str) -> str:
        command = [sys.executable, "-c", "from tomolab import parallel"]
        told = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True, timeout=120).stderr
        return next(line for line in told.splitlines() if "OMP_WAIT_POLICY" in line)

    assert "PASSIVE" in policy()
    assert "ACTIVE" in policy(OMP_WAIT_POLICY="ACTIVE")
    assert "PASSIVE" not in policy(OMP_WAIT_POLICY="ACTIVE")
