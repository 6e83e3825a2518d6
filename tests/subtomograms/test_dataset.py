"""Boxes hold the particle where they should, and stores give back what went in."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from tomolab import fourier, io, particles, subtomograms
from tomolab.subtomograms import Subtomograms, cropping, store
from tomolab.volumes import Volume


def some(count: int = 40, box: int = 8, *, first_id: int = 100, seed: int = 0) -> Subtomograms:
    """Random boxes with ids that are not row numbers."""
    rng = np.random.default_rng(seed)
    ids = first_id + rng.permutation(count)
    table = particles.table(rng.uniform(0, 500, (count, 3)), ids=ids, label=[f"class {i % 3}" for i in range(count)])
    return Subtomograms(rng.standard_normal((count, box, box, box)).astype(np.float32), table, 20.0)


def scene(phantom: Volume, places: np.ndarray, *, shape: tuple[int, int, int] = (64, 70, 80)) -> Volume:
    """A tomogram of 10 Å with the phantom at `places` (zyx, voxels), moved there by an exact Fourier shift."""
    total = np.zeros(shape, dtype=np.float64)
    padded = torch.zeros(shape)
    padded[:32, :32, :32] = torch.from_numpy(phantom.data)
    transform = torch.fft.rfftn(padded)
    for place in places:
        phases = fourier.shift_phases(shape, torch.tensor(place[None] - 16, dtype=torch.float32))[0]
        total += torch.fft.irfftn(transform * phases, s=shape).numpy()
    return Volume(total, 10.0)


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(np.asarray(first, float).ravel(), np.asarray(second, float).ravel())[0, 1])


def test_a_particle_between_voxels_lands_on_the_centre(phantom: Volume) -> None:
    places = np.array([[30.3, 33.6, 24.5], [31.0, 30.0, 60.0]])
    cut = subtomograms.extract(scene(phantom, places), particles.table(places * 10), box=24)
    reference = phantom.data[4:28, 4:28, 4:28]
    for volume in cut.volumes:
        assert likeness(volume, reference) > 0.999
        assert likeness(volume, reference[:, :, ::-1]) < 0.9
        np.testing.assert_allclose((volume.astype(float).mean(), volume.astype(float).std()), (0, 1), atol=1e-3)
    assert len(cut.skipped) == 0
    assert cut.box == 24
    assert cut.voxel_size == 10.0


def test_extraction_at_another_voxel_size_keeps_the_particle_on_the_centre(phantom: Volume) -> None:
    places = np.array([[30.3, 33.6, 24.5], [31.0, 30.0, 61.0]])
    cut = subtomograms.extract(scene(phantom, places), particles.table(places * 10), box=14, voxel_size=20.0)
    full = fourier.resize(torch.from_numpy(phantom.data), (16, 16, 16)).numpy()
    for volume in cut.volumes:
        assert likeness(volume, full[1:15, 1:15, 1:15]) > 0.99
    assert cut.voxel_size == 20.0


def test_particles_at_the_edge_are_named_and_counted() -> None:
    tomogram = Volume(np.random.default_rng(0).standard_normal((20, 30, 40)), 10.0)
    places = np.array([[4, 4, 4], [3.4, 15, 15], [10, 15, 20], [16, 26, 36], [16.5, 15, 20], [10, 200, 20]]) * 10.0
    with pytest.warns(UserWarning, match=r"3 of 6 particles skipped: the box leaves the tomogram \(3\)"):
        cut = subtomograms.extract(tomogram, particles.table(places, ids=[10, 11, 12, 13, 14, 15]), box=8)
    assert cut.ids.tolist() == [10, 12, 13]
    assert cut.skipped["particle_id"].tolist() == [11, 14, 15]
    assert np.array_equal(np.argmax(cut.volumes[0]), np.argmax(tomogram.data[:8, :8, :8]))


def test_a_box_without_contrast_is_named() -> None:
    data = np.random.default_rng(0).standard_normal((20, 20, 40))
    data[:, :, 20:] = 5.0
    table = particles.table(np.array([[10, 10, 10], [10, 10, 30]]) * 10.0)
    with pytest.warns(UserWarning, match=r"1 of 2 particles skipped: all values in the box are equal \(1\)"):
        cut = subtomograms.extract(Volume(data, 10.0), table, box=8)
    assert cut.ids.tolist() == [0]
    assert cut.skipped["particle_id"].tolist() == [1]
    with pytest.raises(ValueError, match="none of 1 particles could be cut: all values in the box are equal"):
        subtomograms.extract(Volume(data, 10.0), table[1:], box=8)


def test_extraction_refuses_what_cannot_work() -> None:
    tomogram = Volume(np.random.default_rng(0).standard_normal((20, 30, 40)), 10.0)
    with pytest.raises(ValueError, match="a box of 24 voxels of 10 Å does not fit into 20 x 30 x 40 voxels"):
        subtomograms.extract(tomogram, particles.table([[100, 100, 100]]), box=24)
    with pytest.raises(ValueError, match="a box of 16 voxels of 20 Å does not fit into 10 x 15 x 20 voxels"):
        subtomograms.extract(tomogram, particles.table([[100, 100, 100]]), box=16, voxel_size=20.0)
    with pytest.raises(ValueError, match=r"none of 2 particles could be cut: the box leaves the tomogram \(2\)"):
        subtomograms.extract(tomogram, particles.table([[0, 0, 0], [-50, 0, 0]]), box=8)
    with pytest.raises(ValueError, match="the table of particles is empty"):
        subtomograms.extract(tomogram, particles.table([]), box=8)


def test_extraction_into_a_store_is_the_same(tmp_path) -> None:
    rng = np.random.default_rng(0)
    tomogram = Volume(rng.standard_normal((30, 40, 50)), 10.0)
    table = particles.table(rng.uniform(-20, 300, (150, 3)))
    with pytest.warns(UserWarning, match="skipped"):
        held = subtomograms.extract(tomogram, table, box=8)
    with pytest.warns(UserWarning, match="skipped"):
        stored = subtomograms.extract(tomogram, table, box=8, path=tmp_path / "cut.zarr")
    assert np.array_equal(held.volumes, stored.volumes[:])
    pd.testing.assert_frame_equal(held.particles, stored.particles)
    pd.testing.assert_frame_equal(held.skipped, stored.skipped)
    assert len(held) + len(held.skipped) == 150


@pytest.mark.parametrize("edges", ["skip", "flag"])
def test_extraction_that_was_interrupted_goes_on_and_ends_the_same(tmp_path, monkeypatch, edges: str) -> None:
    monkeypatch.setattr(cropping, "WINDOW_BYTES", 20 * 2 * 8**3)
    monkeypatch.setattr(store, "SHARD_BYTES", 16 * 2 * 8**3)
    rng = np.random.default_rng(0)
    volume = Volume(rng.standard_normal((30, 40, 50)), 10.0)
    io.write_volume(volume, tmp_path / "cell.mrc")
    table = particles.table(rng.uniform(-20, 300, (150, 3)))
    made, boxes = [], cropping.boxes

    def counted(tomogram, particles, *, cut):
        made.append(len(particles))
        return boxes(tomogram, particles, cut=cut)

    def failing(tomogram, particles, *, cut):
        if len(made) == 3:
            made.append(len(particles))
            raise KeyboardInterrupt
        return counted(tomogram, particles, cut=cut)

    for name, tomogram in (("held", volume), ("disk", io.open_volume(tmp_path / "cell.mrc"))):
        options = {"box": 8, "edges": edges, "path": tmp_path / f"{name}.zarr"}
        made.clear()
        monkeypatch.setattr(cropping, "boxes", failing)
        with pytest.raises(KeyboardInterrupt):
            subtomograms.extract(tomogram, table, **options)
        monkeypatch.setattr(cropping, "boxes", counted)
        assert not (tmp_path / f"{name}.zarr").exists()
        with pytest.warns(UserWarning, match="skipped"):
            stored = subtomograms.extract(tomogram, table, **options)
        with pytest.warns(UserWarning, match="skipped"):
            held = subtomograms.extract(volume, table, box=8, edges=edges)
        # Of 8 pieces of 20 or fewer, one was cut in vain.
        assert len(made) == 4 + 5 + 8
        assert np.array_equal(held.volumes, stored.volumes[:])
        pd.testing.assert_frame_equal(held.particles, stored.particles)
        pd.testing.assert_frame_equal(held.skipped, stored.skipped)
    monkeypatch.setattr(cropping, "boxes", failing)
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        subtomograms.extract(volume, table, box=8, path=tmp_path / "cut.zarr")
    other = Volume(volume.data + np.float32(1e-3) * (volume.data == volume.data.max()), 10.0)
    with pytest.warns(UserWarning, match="skipped"), pytest.warns(UserWarning, match="is of other particles, tomograms or"):
        subtomograms.extract(other, table, box=8, path=tmp_path / "cut.zarr")


@pytest.mark.parametrize("limit", [1, 4096, 16 * 1024 * 1024])
def test_a_store_gives_back_what_was_saved(tmp_path, monkeypatch, limit: int) -> None:
    monkeypatch.setattr("tomolab.subtomograms.store.SHARD_BYTES", limit)
    made = some()
    made.save(tmp_path / "made.zarr")
    read = subtomograms.open(tmp_path / "made.zarr")
    assert np.array_equal(read.volumes[:], made.volumes.astype(np.float16))
    pd.testing.assert_frame_equal(read.particles, made.particles)
    assert (read.box, read.voxel_size, len(read)) == (8, 20.0, 40)
    rows = np.random.default_rng(1).permutation(40)[:23]
    taken = read.take(made.ids[rows])
    assert np.array_equal(taken.ids, made.ids[rows])
    assert np.array_equal(taken.volumes, made.volumes[rows].astype(np.float16))
    batches = list(read.batches(7))
    assert np.array_equal(np.concatenate([ids for ids, _ in batches]), made.ids)
    assert [len(ids) for ids, _ in batches] == [7] * 5 + [5]
    assert batches[0][1].dtype == np.float32
    assert len(read.take([])) == 0


def test_take_keeps_the_order_asked_for_and_refuses_unknown_ids() -> None:
    made = some()
    taken = made.take([139, 100, 120])
    assert taken.ids.tolist() == [139, 100, 120]
    assert np.array_equal(taken.volumes[1], made.volumes[made.ids.tolist().index(100)])
    with pytest.raises(ValueError, match=r"2 of 3 particle ids are not in this table of 40: 7, 99"):
        made.take([7, 100, 99])
    with pytest.raises(ValueError, match="more than once: 100"):
        made.take([100, 100])


def test_joining_renumbers_only_when_ids_clash(tmp_path) -> None:
    first, second = some(10, first_id=0), some(5, first_id=50, seed=1)
    both = subtomograms.join([first, second])
    assert both.ids.tolist() == [*first.ids, *second.ids]
    assert "id_before_joining" not in both.particles
    clash = subtomograms.join([first, some(5, first_id=3)], path=tmp_path / "both.zarr")
    assert clash.ids.tolist() == list(range(15))
    assert clash.particles["id_before_joining"].tolist()[:10] == first.ids.tolist()
    assert np.array_equal(clash.volumes[:10], first.volumes.astype(np.float16))
    with pytest.raises(ValueError, match="one box and voxel size"):
        subtomograms.join([first, some(5, box=6)])
    with pytest.raises(ValueError, match="got none"):
        subtomograms.join([])


def test_volumes_and_table_must_agree() -> None:
    made = some()
    with pytest.raises(ValueError, match="40 volumes, but 39 rows"):
        Subtomograms(made.volumes, made.particles[:-1], 20.0)
    with pytest.raises(ValueError, match=r"\(n, box, box, box\)"):
        Subtomograms(made.volumes[:, 1:], made.particles, 20.0)
    with pytest.raises(ValueError, match="voxel size must be"):
        Subtomograms(made.volumes, made.particles, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repr(made) == "Subtomograms(40 boxes of 8³ voxels of 20 Å)"
