from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tomolab import fourier, particles, rotations, subtomograms, volumes
from tomolab.simulation import Imaging, generator, rendering
from tomolab.subtomograms import writer
from tomolab.volumes import Volume

QUIET = Imaging(snr=float("inf"), defocus=None, tilts=(-90, 90))


@pytest.fixture(scope="module")
def maps(phantom: Volume) -> dict[str, Volume]:
    other = phantom.data.copy()
    other[20:] = 0
    return {"phantom": phantom, "maimed": Volume(other, phantom.voxel_size)}


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_truth_in_the_table_puts_the_density_back(maps: dict[str, Volume]) -> None:
    made = generator.subtomograms(maps, 4, imaging=QUIET, box=32, seed=3)
    for row, volume in zip(made.particles.to_dict("records"), np.asarray(made.volumes), strict=True):
        turn = rotations.from_euler([[row["true_rot"], row["true_tilt"], row["true_psi"]]])
        shift = [(row[f"true_{axis}"] - row[axis]) / made.voxel_size for axis in "zyx"]
        source = torch.from_numpy(maps[row["label"]].data)[None]
        expected = volumes.transform(source, torch.from_numpy(turn.copy()), torch.tensor([shift]))[0].numpy()
        assert correlation(volume, expected) > 0.98


def test_counts_labels_and_normalisation(maps: dict[str, Volume]) -> None:
    made = generator.subtomograms(maps, {"maimed": 3, "phantom": 70}, imaging=Imaging(), box=24, seed=1)
    assert made.particles["label"].value_counts().to_dict() == {"phantom": 70, "maimed": 3}
    data = np.asarray(made.volumes, dtype=np.float32)
    assert data.shape == (73, 24, 24, 24)
    assert np.allclose(data.mean((1, 2, 3)), 0, atol=1e-3)
    assert np.allclose(data.std((1, 2, 3)), 1, atol=1e-2)
    assert particles.check(made.particles) is not None


def test_the_same_seed_gives_the_same_particles(maps: dict[str, Volume]) -> None:
    first, second, other = (generator.subtomograms(maps, 2, imaging=Imaging(), box=16, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.volumes, second.volumes)
    assert not np.array_equal(first.volumes, other.volumes)


def test_what_goes_to_disk_is_what_memory_would_hold(maps: dict[str, Volume], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(rendering, "BATCH", 8)
    counts = dict(zip(maps, (13, 8), strict=False))
    options = {"imaging": Imaging(snr=0.5, tilt_axis=(0, 90)), "box": 16, "seed": 4, "device": "cpu"}
    here = generator.subtomograms(maps, counts, **options)
    there = generator.subtomograms(maps, counts, path=tmp_path / "made.zarr", **options)
    assert here.ids.tolist() == list(range(21))
    pd.testing.assert_frame_equal(there.particles, here.particles)
    np.testing.assert_array_equal(there.volumes[:], here.volumes.astype(np.float16))
    assert (tmp_path / "made.zarr").is_dir()


def test_a_stream_repeats_an_epoch_and_varies_between_epochs(maps: dict[str, Volume]) -> None:
    stream = generator.Stream(maps, imaging=Imaging(), box=16, batch_size=8, epoch_size=20, seed=1)
    first, again, later = (list(stream.epoch(number)) for number in (0, 0, 1))
    assert len(first) == stream.batches == 2
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], later[0][0])
    assert first[0][0].shape == (8, 16, 16, 16)
    rest = list(stream.epoch(0, start=1))
    assert len(rest) == 1
    assert torch.equal(rest[0][0], first[1][0])


def test_neighbours_enter_the_box_but_not_the_centre(maps: dict[str, Volume]) -> None:
    alone = Imaging(snr=float("inf"), defocus=None, tilts=(-90, 90), shift=0)
    crowded = Imaging(snr=float("inf"), defocus=None, tilts=(-90, 90), shift=0, neighbours=3)
    templates = rendering.prepare(maps, torch.device("cpu"))
    labels = torch.zeros(30, dtype=torch.long)
    lone, many = (
        rendering.render(templates, labels, box=32, imaging=imaging, generator=torch.Generator().manual_seed(2))[0]
        for imaging in (alone, crowded)
    )
    added = (many - lone).mean(0)
    assert float(added[0].mean()) > 20 * float(added[15:18, 15:18, 15:18].mean().abs())


def test_the_table_says_what_was_drawn_for_each_particle(maps: dict[str, Volume]) -> None:
    imaging = Imaging(dose=(80, 120), tilts=((-70, -40), (40, 70)), tilt_axis=(-20, 20), snr=(0.5, 1), defocus=(1, 4))
    made = generator.subtomograms(maps, 40, imaging=imaging, box=16, seed=3)
    table = particles.check(made.particles)
    for name, low, high in (
        ("dose", 80, 120),
        ("tilt_min", -70, -40),
        ("tilt_axis", -20, 20),
        ("snr", 0.5, 1),
        ("defocus", 1, 4),
    ):
        assert low <= table[name].min() < table[name].max() <= high
    wedges = fourier.wedge(16, *(torch.from_numpy(column) for column in particles.geometries(table).T[:2]),
                           axis=torch.from_numpy(particles.geometries(table)[:, 2]))  # fmt: skip
    power = torch.fft.rfftn(torch.from_numpy(np.asarray(made.volumes)), dim=(1, 2, 3)).abs() ** 2
    assert float((power * (1 - wedges)).sum() / power.sum()) < 1e-4
    plain = generator.subtomograms(maps, 1, imaging=Imaging(), box=16, seed=3).particles
    assert not {"dose", "tilt_axis"} & set(plain)


def test_the_full_model_gives_finite_particles_that_repeat(maps: dict[str, Volume]) -> None:
    imaging = Imaging.in_cells(membranes=1.0)
    first, second = (generator.subtomograms(maps, 6, imaging=imaging, box=20, seed=2) for _ in range(2))
    assert np.array_equal(first.volumes, second.volumes)
    assert np.isfinite(first.volumes).all()
    assert np.allclose(np.asarray(first.volumes).std((1, 2, 3)), 1, atol=1e-3)
    assert (first.particles["snr"] > 0).all()


def test_a_stream_of_the_full_model_is_that_of_its_seed(maps: dict[str, Volume]) -> None:
    streams = [generator.Stream(maps, imaging=Imaging.in_cells(), box=16, epoch_size=64, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (next(stream.epoch(0))[0] for stream in streams)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_tomogram_holds_its_particles_at_their_places(maps: dict[str, Volume]) -> None:
    volume, truth = generator.tomogram(maps, {"phantom": 6, "maimed": 2}, shape=(60, 120, 120), imaging=QUIET, seed=5)
    assert volume.shape == (60, 120, 120)
    assert len(truth) == 8
    cut = subtomograms.extract(volume, truth, box=18)
    turns = torch.from_numpy(particles.matrices(cut.particles).copy())
    for label, turn, found in zip(cut.particles["label"], turns, np.asarray(cut.volumes), strict=True):
        expected = volumes.transform(torch.from_numpy(maps[label].data)[None], turn[None], box=18)[0].numpy()
        assert correlation(found, expected) > 0.9


def test_snr_of_a_tomogram_is_that_of_its_particles(maps: dict[str, Volume]) -> None:
    kinds = [Imaging(snr=snr, defocus=None, shift=0) for snr in (float("inf"), 0.5)]
    clean, noisy = (generator.tomogram(maps, 4, shape=(64, 128, 128), imaging=imaging, seed=5)[0] for imaging in kinds)
    truth = generator.tomogram(maps, 4, shape=(64, 128, 128), imaging=kinds[0], seed=5)[1]
    corners = np.floor(particles.positions(truth) / 10).astype(int) - 16
    boxes = [tuple(slice(max(c, 0), c + 32) for c in corner) for corner in corners]
    signal = np.mean([clean.data[inside].var() for inside in boxes])
    assert signal / (noisy.data - clean.data).var() == pytest.approx(0.5, rel=0.05)


def test_bad_requests_are_refused(maps: dict[str, Volume], phantom: Volume) -> None:
    with pytest.raises(ValueError, match=r"no density for ribosome; there are phantom, maimed"):
        generator.subtomograms(maps, {"ribosome": 1}, imaging=QUIET, box=16, seed=0)
    with pytest.raises(ValueError, match="one voxel size"):
        generator.subtomograms(maps | {"coarse": Volume(phantom.data, 20.0)}, 1, imaging=QUIET, box=16, seed=0)
    with pytest.raises(ValueError, match="at least one density"):
        generator.Stream({}, imaging=QUIET, box=16, seed=0)
    with pytest.raises(ValueError, match="holds no batch"):
        generator.Stream(maps, imaging=QUIET, box=16, batch_size=64, epoch_size=10, seed=0)
    with pytest.raises(ValueError, match=r"not all particles found room in \(40, 60, 60\) voxels \(\d+ of 500 phantom\)"):
        generator.tomogram(maps, {"phantom": 500}, shape=(40, 60, 60), imaging=QUIET, seed=0)
    with pytest.raises(ValueError, match="none of 2 particles found room"):
        generator.tomogram(maps, 1, shape=(5, 60, 60), imaging=QUIET, seed=0)


def test_a_gpu_that_is_not_there_is_named(maps: dict[str, Volume], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch sees no GPU here"):
        generator.subtomograms(maps, 1, imaging=QUIET, box=16, seed=0, device="cuda")


def test_a_simulation_that_was_cut_goes_on_bit_for_bit(
    maps: dict[str, Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", 112 * 2 * 8**3)
    monkeypatch.setattr(generator, "BATCHES_PER_TABLE", 1)
    options = {"imaging": Imaging(), "box": 8, "seed": 3, "device": "cpu"}
    whole = generator.subtomograms(maps, 150, path=tmp_path / "whole.zarr", **options)
    made, cut = [], generator.simulate

    def breaking(*given: object, **named: object):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(given)
        return cut(*given, **named)

    monkeypatch.setattr(generator, "simulate", breaking)
    with pytest.raises(KeyboardInterrupt):
        generator.subtomograms(maps, 150, path=tmp_path / "cut.zarr", **options)
    assert len(list(tmp_path.glob(".cut.zarr.*.partial"))) == 1
    made.clear()
    again = generator.subtomograms(maps, 150, path=tmp_path / "cut.zarr", **options)
    # Five batches in all, of which two make a shard: the first four were kept.
    assert len(made) == 1
    np.testing.assert_array_equal(again.volumes[:], whole.volumes[:])
    pd.testing.assert_frame_equal(again.particles, whole.particles)
    monkeypatch.setattr(generator, "simulate", cut)
    held = generator.subtomograms(maps, 150, **options)
    np.testing.assert_array_equal(held.volumes.astype(np.float16), whole.volumes[:])
    assert not [one.name for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_what_was_cut_of_another_simulation_is_dropped(maps: dict[str, Volume], tmp_path: Path) -> None:
    folder = writer.begin(tmp_path / "made.zarr", "another", box=8, voxel_size=10.0).folder
    with pytest.warns(UserWarning, match="of other particles, tomograms or parameters; it is dropped"):
        made = generator.subtomograms(maps, 2, path=tmp_path / "made.zarr", imaging=QUIET, box=8, seed=0)
    assert len(made) == 4
    assert not folder.exists()


def test_a_million_that_the_disk_cannot_hold_is_refused_at_once(
    maps: dict[str, Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tomolab.subtomograms.writer.shutil.disk_usage", lambda _: pd.Series({"free": 3 * 10**9}))
    with pytest.raises(OSError, match=r"1,000,000 subtomograms of 20³ voxels need 16.1 GB, and 3 GB are free"):
        generator.subtomograms(maps, 500_000, path=tmp_path / "made.zarr", imaging=QUIET, box=20, seed=0)
    assert not list(tmp_path.iterdir())


def test_an_estimate_tells_what_will_be_written(maps: dict[str, Volume], tmp_path: Path) -> None:
    told = generator.estimate(maps, 2000, imaging=QUIET, box=8, device="cpu")
    assert told["seconds"] == pytest.approx(2000 / told["per_second"])
    generator.subtomograms(maps, 1000, imaging=QUIET, box=8, seed=1, path=tmp_path / "made.zarr", progress=False)
    written = sum(one.stat().st_size for one in (tmp_path / "made.zarr").rglob("*") if one.is_file())
    assert told["bytes"] == pytest.approx(written, rel=0.15)
