"""The folder for RELION: normalised volumes, wedges where the data are, poses and ids in the list; whole or not at all."""

from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import torch

from tomolab import fourier, particles, rotations, volumes
from tomolab.conventions import BOX
from tomolab.io.lists import outdated
from tomolab.subtomograms import Subtomograms, to_relion

TILTS = torch.tensor([[-60.0, 40.0], [-50.0, 60.0]])


@pytest.fixture
def observed(phantom) -> Subtomograms:
    """Six noisy phantoms of 16 voxels of 20 Å under two asymmetric wedges, with columns of a user's own file."""
    generator = torch.Generator().manual_seed(0)
    small = volumes.fit(volumes.resample(phantom, 20.0), 16)
    turned = volumes.transform(torch.from_numpy(small.data).expand(6, -1, -1, -1), rotations.random(6, generator))
    noisy = turned + 0.1 * torch.randn(turned.shape, generator=generator)
    tilts = TILTS[torch.arange(6) % 2]
    wedge = fourier.wedge(16, tilts[:, 0], tilts[:, 1])
    seen = torch.fft.irfftn(torch.fft.rfftn(noisy, dim=(1, 2, 3)) * wedge, s=(16,) * 3, dim=(1, 2, 3))
    table = particles.table(
        np.arange(18).reshape(6, 3) * 10.0 + 160,
        tomogram=["TS_01", "TS_02"] * 3,
        ids=[1007, 3, 12, 5, 9, 8],
        angles=np.arange(18).reshape(6, 3),
        tilts=tilts.numpy(),
        label=["two words", "a", "b", "007", "c", "d"],
        score=np.arange(6) / 7,
        rlnImageName=[f"000{i}@stack.mrcs" for i in range(6)],
    )
    return Subtomograms(volumes.normalise(seen).numpy(), table, 20.0)


def rows(folder: Path) -> pd.DataFrame:
    return starfile.read(folder / "particles.star", always_dict=True)["particles"].set_index("tomolabParticleId")


def test_volumes_are_normalised_outside_the_sphere(observed, tmp_path) -> None:
    listed = rows(to_relion.write(observed, tmp_path / "relion", diameter=200.0, progress=False))
    outside = volumes.distance(16).numpy() > 5
    assert listed.index.tolist() == observed.ids.tolist()
    for number, before in zip(observed.ids, observed.volumes, strict=True):
        with mrcfile.open(tmp_path / "relion" / listed.loc[number, "rlnImageName"]) as file:
            after, voxel_size = file.data.copy(), float(file.voxel_size.x)
        assert after.dtype == np.float32
        assert voxel_size == 20
        assert after[outside].mean() == pytest.approx(0, abs=1e-5)
        assert after[outside].std() == pytest.approx(1, abs=1e-5)
        # Bright stays bright.
        assert np.corrcoef(after.ravel(), before.ravel())[0, 1] > 0.999


def test_wedges_lie_where_the_data_are(observed, tmp_path) -> None:
    listed = rows(to_relion.write(observed, tmp_path / "relion", progress=False))
    assert sorted(set(listed["rlnCtfImage"])) == ["wedges/1.mrc", "wedges/2.mrc"]
    for number, volume in zip(observed.ids, observed.volumes, strict=True):
        wedge = mrcfile.read(tmp_path / "relion" / listed.loc[number, "rlnCtfImage"])
        assert wedge.dtype == np.float32
        assert set(np.unique(wedge)) == {0, 1}
        assert wedge[8, 8, 8] == 1
        np.testing.assert_array_equal(wedge[1:, 1:, 1:], wedge[:0:-1, :0:-1, :0:-1])
        power = np.abs(np.fft.fftshift(np.fft.fftn(volume))) ** 2
        inside = volumes.distance(16).numpy() <= 7
        assert power[inside & (wedge == 0)].sum() < 1e-6 * power.sum()
        mirrored = np.roll(wedge[:, :, ::-1], 1, axis=2)
        assert power[inside & (mirrored == 0)].sum() > 1e-3 * power.sum()


def test_the_list_has_what_relion_asks_for(observed, tmp_path) -> None:
    tables = starfile.read(to_relion.write(observed, tmp_path / "a", progress=False) / "particles.star", always_dict=True)
    optics = tables["optics"].iloc[0]
    expected = {"rlnImagePixelSize": 20, "rlnImageSize": 16, "rlnImageDimensionality": 3, "rlnVoltage": 300}
    assert optics[list(expected)].to_dict() == expected
    first = tables["particles"].iloc[0]
    assert first[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].tolist() == [0, 1, 2]
    assert first[["rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"]].tolist() == [9, 8.5, 8]
    assert first[["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"]].tolist() == [0, 0, 0]
    assert first[["rlnMicrographName", "rlnImageName"]].tolist() == ["TS_01", "volumes/0000/001007.mrc"]
    assert "rlnRandomSubset" not in tables["particles"]


def test_other_poses_become_origins_and_come_back(observed, tmp_path) -> None:
    poses = observed.particles.iloc[[4, 0, 2, 1]].assign(half=[1, 2, 1, 2], rot=50.0)
    poses[["z", "y", "x"]] += [1.0, -2.0, 4.0]
    folder = to_relion.write(observed, tmp_path / "relion", poses=poses, progress=False)
    first = rows(folder).loc[9]
    assert first[["rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst"]].tolist() == [-4, 2, -1]
    assert (first["rlnAngleRot"], first["rlnRandomSubset"]) == (50, 1)
    assert len(list((folder / "volumes").rglob("*.mrc"))) == 4
    read = to_relion.particles(folder / "particles.star").set_index("particle_id").loc[poses["particle_id"]].reset_index()
    for column in ("z", "y", "x", "rot", "tilt", "psi", "label", "half", "tilt_min", "rlnImageName", "tomogram", "score"):
        assert read[column].tolist() == pytest.approx(poses[column].tolist()), column
    assert "rlnCtfImage" not in read


def test_only_some_are_written_and_few_are_held(observed, tmp_path, monkeypatch) -> None:
    class Store:
        """An array that counts how many boxes are asked for at once."""

        shape, most = observed.volumes.shape, 0

        def __getitem__(self, rows: slice) -> np.ndarray:
            part = observed.volumes[rows]
            self.most = max(self.most, len(part))
            return part

    monkeypatch.setattr(to_relion, "BATCH", 2)
    store = Store()
    to_relion.write(Subtomograms(store, observed.particles, 20.0), tmp_path / "all", progress=False)
    assert store.most == 2
    listed = rows(to_relion.write(observed, tmp_path / "some", ids=[8, 1007, 5], progress=False))
    assert sorted(listed.index) == [5, 8, 1007]
    for number in listed.index:
        one, same = (mrcfile.read(tmp_path / part / listed.loc[number, "rlnImageName"]) for part in ("some", "all"))
        np.testing.assert_array_equal(one, same)


def test_whole_or_not_at_all(observed, tmp_path) -> None:
    observed.volumes[5] = 1.0
    with pytest.raises(ValueError, match="the background of particle 8 is constant"):
        to_relion.write(observed, tmp_path / "relion", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_refinement_is_not_overwritten(observed, tmp_path) -> None:
    folder = to_relion.write(observed, tmp_path / "relion", progress=False)
    assert len(rows(to_relion.write(observed, folder, ids=[3], progress=False))) == 1
    (folder / "run").mkdir()
    with pytest.raises(ValueError, match="also holds run, which would be lost"):
        to_relion.write(observed, folder, progress=False)


def test_what_relion_cannot_take_is_refused(observed, tmp_path) -> None:
    odd = Subtomograms(observed.volumes[:, :15, :15, :15], observed.particles, 20.0)
    negative = Subtomograms(observed.volumes, observed.particles.assign(particle_id=-observed.ids), 20.0)
    for subtomograms, arguments, message in (
        (odd, {}, "an even edge, got 15"),
        (negative, {}, "must not be negative; got -1007"),
        (observed, {"ids": [4]}, "1 of 1 particle ids are not in this table"),
        (observed, {"diameter": 600.0}, "leaves no background"),
    ):
        with pytest.raises(ValueError, match=message):
            to_relion.write(subtomograms, tmp_path / "relion", progress=False, **arguments)
    assert not list(tmp_path.iterdir())


def test_what_told_of_other_boxes_waits_and_what_told_of_other_poses_goes(observed, tmp_path) -> None:
    frame = {"rlnTomoSubtomogramRot": 10.0, "rlnTomoSubtomogramTilt": 20.0, "rlnTomoSubtomogramPsi": 30.0}
    box = dict(zip(BOX, [100.0, 200.0, 300.0], strict=True))
    old = {"rlnTomoSubTomosAre2DStacks": 1, "rlnTomoVisibleFrames": "[1,1]", "rlnNormCorrection": 0.9, **frame, **box}
    priors = {"rlnAngleTiltPrior": 90.0, "rlnMaxValueProbDistribution": 0.5}
    theirs = Subtomograms(observed.volumes, observed.particles.assign(**old, **priors), 20.0)
    with pytest.warns(UserWarning, match="rlnAngleTiltPrior .they count from the angles of subtomograms, and these boxes"):
        folder = to_relion.write(theirs, tmp_path / "relion", progress=False)
    listed = rows(folder)
    assert not {*old, "rlnAngleTiltPrior"} & set(listed)
    assert (listed["rlnMaxValueProbDistribution"] == 0.5).all()
    assert "general" not in starfile.read(folder / "particles.star", always_dict=True)
    read = to_relion.particles(folder / "particles.star").set_index("particle_id").loc[observed.ids].reset_index()
    for name, value in old.items():
        assert read[name].tolist() == [value] * 6, name
    np.testing.assert_allclose(particles.matrices(read), particles.matrices(observed.particles), atol=1e-6)
    assert not {"list", "row"} & set(read)
    # What was read back is where it is said to be, whatever frame its own boxes have.
    assert not outdated.changed(read).any()
    poses = observed.particles.assign(rot=77.0)
    with pytest.warns(UserWarning, match=r"rlnAngleTiltPrior, rlnMax\w+ .6 of 6 particles were turned or moved since"):
        folder = to_relion.write(theirs, folder, poses=poses, progress=False)
    assert not set(priors) & set(rows(folder))


def test_a_particle_outside_of_its_box_is_refused(observed, tmp_path) -> None:
    poses = observed.particles.assign(x=observed.particles["x"] + np.array([0, 0, 161.0, 0, 0, 0]))
    with pytest.raises(ValueError, match="1 of 6 particles lie outside of their boxes, first particle 12"):
        to_relion.write(observed, tmp_path / "relion", poses=poses, progress=False)
