import numpy as np
import pandas as pd
import pytest

from tomolab import particles
from tomolab.simulation import Membrane, Specimen, crowding, specimen
from tomolab.volumes import Volume

SHAPE = (40, 70, 80)
CELL = Membrane(centre=(200.0, 350.0, 100.0), radii=(600.0, 500.0, 500.0))


def build(phantom: Volume, counts=8, **changes) -> Specimen:
    settings = {"shape": SHAPE, "seed": 1, "device": "cpu", "progress": False}
    small = Volume(phantom.data[8:24, 8:24, 8:24], 10.0)
    return specimen.build({"phantom": phantom, "small": small}, counts, **(settings | changes))


@pytest.fixture(scope="module")
def full(phantom: Volume) -> Specimen:
    vesicle = Membrane(centre=(200.0, 350.0, 250.0), radii=(120.0, 120.0, 120.0))
    return build(
        phantom,
        thickness=360.0,
        cell=CELL,
        vesicles=[vesicle],
        soluble_protein=50.0,
        fiducials=3,
        fiducial_diameter=60.0,
        fiducial_site="ice",
    )


def test_a_specimen_holds_all_that_was_asked(full: Specimen) -> None:
    assert full.names == ("phantom", "small", "membrane", "gold")
    assert full.report["name"].tolist() == list(full.names)
    assert full.report["placed"].tolist() == full.report["asked"].tolist() == [8, 8, 2, 3]
    assert full.particles["label"].value_counts().to_dict() == {"phantom": 8, "small": 8}
    assert len(full.fiducials) == 3
    assert full.thickness == 360
    assert set(np.unique(full.labels)) == {0, 1, 2, 3, 4}
    assert full.labels.dtype == np.uint8
    assert (full.particles["visibility"] == 1).all()


def test_particles_and_soluble_protein_are_inside_of_the_cell(full: Specimen) -> None:
    assert full.accessible[full.instances > 0].all()
    outside = np.ones(SHAPE, dtype=bool)
    outside[:, :, :65] = False
    grid = np.stack(np.meshgrid(*[np.arange(n) * 10 for n in SHAPE], indexing="ij"), axis=-1)
    for place in full.fiducials[["z", "y", "x"]].to_numpy():
        # The edge of gold is soft.
        outside &= np.linalg.norm(grid - place, axis=-1) > 60
    assert full.density.data[outside & (full.labels == 0)].max() < 0.1
    # 50 mg/ml of protein raise the density.
    empty = full.accessible & (full.labels == 0)
    assert full.density.data[empty].mean() > 0.02


def test_labels_and_table_agree(full: Specimen) -> None:
    for row in full.particles.itertuples():
        own = full.instances == row.particle_id + 1
        assert (full.labels[own] == full.names.index(row.label) + 1).all()
        assert np.linalg.norm(np.argwhere(own).mean(0) * 10 - [row.z, row.y, row.x]) < 60
    assert full.crowding == pytest.approx((full.instances > 0).sum() / full.accessible.sum())


def test_the_same_seed_gives_the_same_specimen(phantom: Volume, full: Specimen) -> None:
    settings = {"cell": CELL, "vesicles": 1, "soluble_protein": 20.0, "fiducials": 1, "fiducial_diameter": 60.0}
    one, again, other = (build(phantom, 3, **settings | {"seed": seed}) for seed in (5, 5, 6))
    assert (one.density.data == again.density.data).all()
    pd.testing.assert_frame_equal(one.particles, again.particles)
    assert not (one.density.data == other.density.data).all()


def test_within_keeps_places_in_the_middle(full: Specimen) -> None:
    part = full.within((40, 41, 41))
    start = np.array([0, 35 - 20, 40 - 20])
    assert (part.density.data == full.density.data[:, 15:56, 20:61]).all()
    both = part.particles.merge(full.particles, on="particle_id", suffixes=("", "_old"))
    assert 0 < len(both) < len(full.particles)
    for name, shift in zip("zyx", start, strict=True):
        assert np.allclose(both[name] + 10 * shift, both[f"{name}_old"])
    for row in part.particles.itertuples():
        share = (part.instances == row.particle_id + 1).sum() / (full.instances == row.particle_id + 1).sum()
        assert row.visibility == pytest.approx(share)
    assert part.particles["visibility"].min() < 1
    assert particles.positions(part.particles).min() >= -5
    assert ((part.fiducials[["y", "x"]] >= -5) & (part.fiducials[["y", "x"]] < [495, 405])).all(axis=None)
    with pytest.raises(ValueError, match="not within a specimen"):
        full.within((40, 50, 100))


def test_what_finds_no_room_is_told(phantom: Volume) -> None:
    made = build(phantom, {"phantom": 400, "small": 1})
    asked = made.report.set_index("name").loc["phantom"]
    assert asked["asked"] == 400
    assert 20 < asked["placed"] < 400
    assert f"no room for {400 - asked['placed']}" in asked["reason"]
    assert made.report.set_index("name").loc["small", "reason"] == "" or len(made.particles) == asked["placed"]


def test_counts_ask_for_what_they_say(phantom: Volume) -> None:
    small = Volume(phantom.data[8:24, 8:24, 8:24], 10.0)
    volume = specimen.accessible_volume(shape=(100, 100, 100), voxel_size=10.0, thickness=600.0)
    assert volume == 60 * 100 * 100 * 1e3
    counts = specimen.counts_for_crowding({"phantom": phantom, "small": small}, 0.1, volume=volume)
    assert counts["phantom"] == counts["small"]
    occupied = counts["phantom"] * (crowding.molecular_volume(phantom) + crowding.molecular_volume(small))
    assert occupied / volume == pytest.approx(0.1, rel=0.02)
    # 1 µM is 602.2 molecules in a cube of 1 µm.
    assert specimen.counts_for_concentrations({"a": 1.0, "b": 0.5}, volume=1e12) == {"a": 602, "b": 301}
    with pytest.raises(ValueError, match="fraction of the volume"):
        specimen.counts_for_crowding({"phantom": phantom}, 25, volume=volume)


def test_crowding_reached_is_the_crowding_asked(phantom: Volume) -> None:
    shape = (40, 60, 60)
    volume = specimen.accessible_volume(shape=shape, voxel_size=10.0, cell=CELL)
    counts = specimen.counts_for_crowding({"phantom": phantom}, 0.08, volume=volume)
    made = specimen.build({"phantom": phantom}, counts, shape=shape, seed=2, cell=CELL, device="cpu", progress=False)
    assert made.report["placed"].iloc[0] == counts["phantom"]
    assert made.crowding == pytest.approx(0.08, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": {"ribosome": 1}}, "no density for ribosome; there are phantom, small"),
        ({"counts": 0}, "not all 0"),
        ({"thickness": 900.0}, "400 Å of the volume thick"),
        ({"thickness": 30.0}, "none of 2 particles found room: no room for 1"),
        ({"soluble_protein": -1.0}, "0 or more"),
        ({"cell": Membrane(centre=(0.0, 0.0, -900.0), radii=(200.0, 200.0, 200.0))}, "none of 2 particles found room"),
    ],
)
def test_impossible_specimens_are_refused(phantom: Volume, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(phantom, change.pop("counts", 1), **change)
