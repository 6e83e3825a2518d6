"""Densities: mass, centre and hand are kept, whatever the grid; the shipped maps are what they are said to be."""

import dataclasses
import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tomolab import io, rotations, volumes
from tomolab.simulation import Structure, densities, structures
from tomolab.volumes import Volume

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model() -> Structure:
    """Three unequal arms and a bead off the axes, 2000 atoms, about 130 Å across, far from the origin."""
    generator = np.random.default_rng(3)
    arms = [np.outer(np.linspace(0, length, 5 * length), np.eye(3)[k]) for k, length in enumerate((90, 65, 45))]
    bead = np.tile([-40.0, 35.0, 30.0], (1000, 1))
    points = np.concatenate([*arms, bead])
    points = points + generator.normal(scale=5, size=points.shape) + [311.3, -47.7, 1002.1]
    return Structure("phantom", points, generator.choice([6, 7, 8, 15], size=len(points)))


def moved(structure: Structure, matrix: np.ndarray) -> Structure:
    return dataclasses.replace(structure, positions=structure.positions @ matrix.T)


def centroid(volume: Volume) -> np.ndarray:
    axes = np.indices(volume.shape).reshape(3, -1)
    return (axes * volume.data.ravel()).sum(1) / volume.data.sum()


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


@pytest.mark.parametrize(("voxel_size", "resolution"), [(10.0, 20.0), (5.0, 20.0), (7.3, 10.0), (4.0, 40.0)])
def test_mass_and_centre_are_kept(model, voxel_size, resolution):
    volume = densities.from_structure(model, voxel_size=voxel_size, resolution=resolution)
    assert volume.shape[0] % 2 == 0
    assert volume.data.sum() * voxel_size**3 / 1000 == pytest.approx(model.mass, rel=1e-3)
    np.testing.assert_allclose(centroid(volume), volume.shape[0] // 2, atol=0.05)


def test_an_odd_box_is_centred_too(model):
    volume = densities.from_structure(model, voxel_size=10.0, resolution=20.0, box=27)
    np.testing.assert_allclose(centroid(volume), 13, atol=0.05)


def test_place_within_voxels_does_not_matter(model):
    expected = densities.from_structure(model, voxel_size=10.0, resolution=20.0).data
    for shift in ([3.3, 0, 0], [5, -5, 2.5]):
        there = dataclasses.replace(model, positions=model.positions + np.array(shift))
        found = densities.from_structure(there, voxel_size=10.0, resolution=20.0).data
        assert np.abs(found - expected).max() < 2e-3 * expected.max()


def test_an_atom_is_a_gaussian_of_its_weight():
    # Two atoms of one element: the centre of mass is between them and each lies off the grid.
    pair = Structure("pair", np.array([[0, 0, -30.6], [0, 0, 30.6]]), np.array([6, 6]))
    volume = densities.from_structure(pair, voxel_size=3.0, resolution=20.0, box=40)
    z, y, x = (np.indices((40, 40, 40)) - 20) * 3.0
    sigma = 0.225 * 20
    expected = sum(
        12.011 * (2 * np.pi * sigma**2) ** -1.5 * np.exp(-(z**2 + y**2 + (x - place) ** 2) / (2 * sigma**2))
        for place in (-30.6, 30.6)
    )
    np.testing.assert_allclose(volume.data, expected, atol=0.02 * expected.max())


def test_turning_atoms_is_turning_the_density(model):
    matrix = rotations.random(1, torch.Generator().manual_seed(5))
    before = densities.from_structure(moved(model, matrix[0].numpy()), voxel_size=5.0, resolution=25.0, box=48).data
    still = densities.from_structure(model, voxel_size=5.0, resolution=25.0, box=48).data
    after = volumes.transform(torch.from_numpy(still)[None], matrix)[0].numpy()
    assert correlation(before, after) > 0.99
    inverse = volumes.transform(torch.from_numpy(still)[None], matrix.transpose(1, 2))[0].numpy()
    assert correlation(before, inverse) < 0.8


def test_a_mirror_image_is_told_apart(model):
    mirrored = moved(model, np.diag([1.0, 1.0, -1.0]))
    left, right = (densities.from_structure(m, voxel_size=10.0, resolution=20.0, box=24).data for m in (model, mirrored))
    assert correlation(left, right) < 0.8
    # About the centre voxel x becomes -x, so only voxel 0 has no partner.
    assert correlation(left[..., 1:], right[..., :0:-1]) > 0.9999


def test_default_box_holds_the_complex_in_any_orientation(model):
    volume = densities.from_structure(model, voxel_size=10.0, resolution=20.0)
    box = volume.shape[0]
    assert model.diameter <= box * 10 < model.diameter + 2 * 4.5 + 40
    faces = np.concatenate([np.abs(volume.data.take(k, axis)).ravel() for axis in range(3) for k in (0, -1)])
    assert faces.max() < 0.05 * volume.data.max()


def test_too_small_a_box_names_both_sizes(model):
    with pytest.raises(ValueError, match=r"phantom is \d+ Å across and needs a box of \d+ voxels \(\d+ Å\), got 8 \(80 Å\)"):
        densities.from_structure(model, voxel_size=10.0, resolution=20.0, box=8)


@pytest.mark.parametrize(("voxel_size", "resolution"), [(0, 20), (-1, 20), (10, 0), (np.nan, 20), (10, np.inf)])
def test_lengths_must_be_positive(model, voxel_size, resolution):
    with pytest.raises(ValueError, match="positive numbers of Å"):
        densities.from_structure(model, voxel_size=voxel_size, resolution=resolution)


def test_too_fine_a_grid_is_refused(model):
    with pytest.raises(ValueError, match="use a coarser resolution"):
        densities.from_structure(model, voxel_size=1.0, resolution=0.5)


def test_catalogue_lists_shipped_and_fetchable():
    table = densities.catalogue()
    assert list(table.columns) == [
        "name", "title", "pdb", "mass_kda", "diameter_angstrom", "source", "licence", "sha256", "file", "shipped"
    ]  # fmt: skip
    assert table["name"].is_unique
    assert (table["shipped"].sum(), (~table["shipped"]).sum()) == (16, 22)
    assert {"ribosome_70s", "tric", "1bxr", "3dy4"} <= set(table["name"])
    table.loc[0, "name"] = "changed by a user"
    assert densities.catalogue()["name"][0] != "changed by a user"


def test_shipped_maps_have_their_mass_and_centre():
    table = densities.catalogue().set_index("name")
    loaded = densities.load()
    assert list(loaded) == list(table.index[table["shipped"]])
    for name, volume in loaded.items():
        assert (volume.shape, volume.voxel_size) == ((40, 40, 40), 10.0)
        assert volume.data.sum() == pytest.approx(table.loc[name, "mass_kda"], rel=1e-3)
        np.testing.assert_allclose(centroid(volume), 20, atol=0.02)
    assert 2000 < table.loc["ribosome_70s", "mass_kda"] < 2500
    subunits = table.loc[["ribosome_30s", "ribosome_50s"], "mass_kda"].sum()
    assert 0.95 < subunits / table.loc["ribosome_70s", "mass_kda"] < 1
    assert table.loc["atcase", "mass_kda"] == pytest.approx(310 / 1.07, rel=0.03)


def test_shipped_maps_differ():
    loaded = densities.load(["mm_cpn_open", "mm_cpn_closed", "tric"], box=26)
    assert correlation(loaded["mm_cpn_open"].data, loaded["mm_cpn_closed"].data) < 0.8
    assert correlation(loaded["mm_cpn_closed"].data, loaded["tric"].data) < 0.8


@pytest.mark.parametrize(("voxel_size", "box"), [(20.0, 20), (13.48, 32), (10.5, 40), (5.0, 80), (27.6, 17)])
def test_other_voxel_sizes_keep_mass_and_centre(voxel_size, box):
    volume = densities.load("ribosome_70s", voxel_size=voxel_size, box=box)["ribosome_70s"]
    assert (volume.shape, volume.voxel_size) == ((box,) * 3, voxel_size)
    assert volume.data.sum() * voxel_size**3 / 1000 == pytest.approx(2094, rel=0.005)
    np.testing.assert_allclose(centroid(volume), box // 2, atol=0.02)


def test_one_scale_for_all():
    peaks = [volume.data.max() for volume in densities.load().values()]
    assert min(peaks) > 0.6
    assert max(peaks) < 0.9


def test_unknown_names_are_refused_with_those_close():
    with pytest.raises(ValueError, match="did you mean ribosome_70s"):
        densities.load(["ribosome70s"])
    with pytest.raises(ValueError, match="shipped are ribosome_70s"):
        densities.load("xxxxxxxx")
    with pytest.raises(ValueError, match=r"1bxr is not shipped; simulation.fetch_structure\('1bxr'\)"):
        densities.load(["tric", "1bxr"])


def test_too_small_a_box_names_the_complexes():
    with pytest.raises(ValueError, match=r"20 voxels of 10 Å \(200 Å\) is too small for ribosome_70s \(289 Å\), capsid_mottle"):
        densities.load(["ribosome_70s", "tric", "capsid_mottle"], box=20)
    with pytest.raises(ValueError, match="must be positive"):
        densities.load("tric", voxel_size=0)


@pytest.fixture
def forget():
    densities._catalogue.cache_clear()
    densities._shipped.cache_clear()
    yield
    densities._catalogue.cache_clear()
    densities._shipped.cache_clear()


def test_a_damaged_map_is_noticed(tmp_path, monkeypatch, forget):
    data = shutil.copytree(io.data_folder(), tmp_path / "data")
    monkeypatch.setattr(io, "data_folder", lambda: data)
    path = data / "densities" / "tric.mrc"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    densities.load("ribosome_70s")
    with pytest.raises(ValueError, match="is not the map of tric"):
        densities.load("tric")


def test_a_shipped_map_can_be_made_again():
    structure = structures.read(io.data_folder() / "structures" / "1of6.pdb.gz")
    made = densities.from_structure(structure, voxel_size=10.0, resolution=densities.SHIPPED_RESOLUTION)
    shipped = densities.load("dahp_synthase", box=made.shape[0])["dahp_synthase"]
    np.testing.assert_allclose(shipped.data, made.data, atol=1e-3)


def test_the_script_writes_the_same_bytes_twice(tmp_path):
    spec = importlib.util.spec_from_file_location("make_densities", ROOT / "scripts" / "make_densities.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    recipe = next(r for r in script.RECIPES if r.name == "dahp_synthase")
    models = io.data_folder() / "structures"
    rows = [script.make(recipe, models, tmp_path / folder) for folder in ("first", "second")]
    assert rows[0] == rows[1]
    shipped = densities.catalogue().set_index("name").loc["dahp_synthase"]
    assert rows[0]["mass_kda"] == shipped["mass_kda"]


def test_readme_names_every_file_with_its_hash():
    readme = (io.data_folder() / "README.md").read_text()
    for row in densities.catalogue().query("shipped").itertuples():
        line = next(line for line in readme.splitlines() if line.startswith(f"| {row.file} "))
        assert row.sha256 in line
        assert row.pdb in line
        assert row.source in line
