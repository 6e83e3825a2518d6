"""Folders for RELION and Dynamo: another program's reader finds the particle where it lies and stands; whole or not at all."""

import os
import shlex
import subprocess
from pathlib import Path

import dynamotable
import emfile
import eulerangles
import mrcfile
import numpy as np
import pandas as pd
import pytest
import starfile
import torch
from scipy.ndimage import map_coordinates

from tomolab import io, particles, rotations, volumes
from tomolab.averaging import Average, alignment, relion
from tomolab.averaging.relion import programs
from tomolab.inspection import export_folders
from tomolab.inspection.export_folders import Bundle
from tomolab.subtomograms import Subtomograms, to_dynamo
from tomolab.volumes import Volume

SHIFTS = np.array([[20.0, -15.0, 10.0], [-12.0, 8.0, 25.0], [0.0, 18.0, -22.0]])
"""Å, zyx, of the particles from the centres of their boxes."""


@pytest.fixture
def boxes(phantom: Volume) -> Subtomograms:
    """Three phantoms, turned and shifted, with ids from 0 and a grain of noise around them."""
    turns = rotations.random(3, torch.Generator().manual_seed(4))
    batch = torch.from_numpy(phantom.data).expand(3, -1, -1, -1)
    turned = volumes.transform(batch, turns, torch.from_numpy(SHIFTS / 10).float()).numpy()
    noise = np.random.default_rng(1).normal(size=turned.shape) * 0.01
    table = particles.table(
        np.array([[500.0, 600.0, 700.0], [510.0, 840.0, 900.0], [300.0, 310.0, 320.0]]), tomogram=["b", "a", "b"], ids=[0, 7, 3]
    )
    return Subtomograms((turned + noise).astype(np.float32), table, 10.0)


@pytest.fixture
def poses(boxes: Subtomograms) -> pd.DataFrame:
    """Where they lie, and how."""
    turns = rotations.random(3, torch.Generator().manual_seed(4)).double().numpy()
    places = particles.positions(boxes.particles) + SHIFTS
    names = boxes.particles["tomogram"].tolist()
    return particles.table(places, tomogram=names, ids=boxes.ids, rotations=turns, half=[1, 2, 1])


@pytest.fixture
def average(phantom: Volume, poses: pd.DataFrame) -> Average:
    """Of them, made elsewhere."""
    fsc = pd.DataFrame({"resolution": [100.0, 50.0], "fsc": [1.0, 0.0]})
    return Average(phantom, phantom, phantom, fsc, poses, {"mask": 240.0, "symmetry": "C2"})


def test_dynamo_finds_the_phantom(
    boxes: Subtomograms, poses: pd.DataFrame, average: Average, phantom: Volume, tmp_path: Path
) -> None:
    (place,) = export_folders.write([Bundle("all", poses, average)], boxes, tmp_path / "d", program="Dynamo", diameter=200)
    table = dynamotable.read(place / "data" / "crop.tbl", place / "data" / "indices_column_20.doc")
    assert table["tag"].tolist() == [1, 8, 4]
    assert table["tomo_file"].tolist() == ["b", "a", "b"]
    assert table["apix"].tolist() == [10.0] * 3
    points = np.argwhere(phantom.data > 0.3)[:, ::-1] - 16
    values = phantom.data[phantom.data > 0.3]
    for (_, row), box in zip(table.iterrows(), particles.positions(boxes.particles), strict=True):
        header, data = emfile.read(place / "data" / f"particle_{int(row['tag']):05d}.em")
        assert (header["xdim"], header["ydim"], header["zdim"]) == (32, 32, 32)
        np.testing.assert_allclose(row[["z", "y", "x"]].to_numpy(dtype=float) - 0.5, box / 10)
        turn = eulerangles.euler2matrix(
            row[["tdrot", "tilt", "narot"]].to_numpy(dtype=float), axes="zxz", intrinsic=False, right_handed_rotation=True
        )
        middle = 16 + row[["dx", "dy", "dz"]].to_numpy(dtype=float)
        seen, wrong = (map_coordinates(data, (middle + points @ m)[:, ::-1].T, order=1) for m in (turn, turn.T))
        assert np.corrcoef(seen, values)[0, 1] > 0.95
        assert np.corrcoef(wrong, values)[0, 1] < 0.8
    _, template = emfile.read(place / "template.em")
    assert np.array_equal(template, phantom.data)
    assert "tag of a particle is its particle_id + 1" in (tmp_path / "d" / "README.txt").read_text()


def test_relion_has_all_that_its_command_names(
    boxes: Subtomograms, poses: pd.DataFrame, average: Average, tmp_path: Path
) -> None:
    sets = [Bundle("my ribosomes", poses.iloc[[2, 0]], average, "about these"), Bundle("rest", poses.iloc[[1]])]
    places = export_folders.write(sets, boxes, tmp_path / "r", program="RELION", diameter=200)
    assert [one.name for one in places] == ["my_ribosomes", "rest"]
    rows = starfile.read(places[0] / "particles.star", always_dict=True)["particles"]
    np.testing.assert_allclose(
        rows.set_index("tomolabParticleId").loc[[0, 3], [f"rlnOrigin{axis}Angst" for axis in "ZYX"]], -SHIFTS[[0, 2]], atol=1e-5
    )
    assert rows["rlnRandomSubset"].tolist() == [1, 1]
    for name in ("reference.mrc", "mask.mrc", rows["rlnImageName"][0], rows["rlnCtfImage"][0]):
        assert mrcfile.validate(places[0] / name)
        with mrcfile.open(places[0] / name) as file:
            assert file.data.shape == (32, 32, 32)
            assert file.is_volume()
            assert (int(file.header.ispg), float(file.voxel_size.x)) == (1, 10.0)
            assert [float(file.header.origin[axis]) for axis in "xyz"] == [0, 0, 0]
    mask = io.read_volume(places[0] / "mask.mrc").data
    assert (mask.min(), mask.max()) == (0, 1)
    assert np.count_nonzero((mask > 0) & (mask < 1)) > 1000
    # As wide as the mask of the average.
    assert mask[16, 16].nonzero()[0][[0, -1]].tolist() == [16 - 11, 16 + 11]
    text = (tmp_path / "r" / "README.txt").read_text()
    commands = [shlex.split(line) for line in text.splitlines() if line.strip().startswith("cd ")]
    words = commands[0]
    assert words[:3] == ["cd", "my_ribosomes", "&&"]
    options = {words[n]: words[n + 1] for n in range(len(words) - 1) if words[n].startswith("--")}
    assert (options["--i"], options["--o"], options["--sym"]) == ("particles.star", "run/run", "C2")
    assert float(options["--particle_diameter"]) == 240
    for option in ("--i", "--ref", "--solvent_mask"):
        assert (places[0] / options[option]).is_file()
    assert "about these" in text
    assert "put a map of the same box there as reference.mrc" in text
    assert not (places[1] / "reference.mrc").exists()


@pytest.mark.relion
@pytest.mark.skipif(relion.available() is None, reason="RELION is not installed (apt-get install relion openmpi-bin)")
def test_relion_takes_the_command_as_it_stands(phantom: Volume, tmp_path: Path) -> None:
    small, generator = volumes.fit(volumes.resample(phantom, 20.0), 16), torch.Generator().manual_seed(0)
    turns, shifts = rotations.random(16, generator), torch.randn(16, 3, generator=generator)
    batch = volumes.transform(torch.from_numpy(small.data).expand(16, -1, -1, -1), turns, shifts)
    noisy = volumes.normalise(batch + 0.3 * batch.std() * torch.randn(batch.shape, generator=generator))
    cut = Subtomograms(noisy.numpy(), particles.table(np.arange(48).reshape(16, 3) * 20.0), 20.0)
    places = particles.positions(cut.particles) + 20 * shifts.numpy()
    poses = particles.table(places, rotations=turns.double().numpy())
    fsc = pd.DataFrame({"resolution": [100.0, 50.0], "fsc": [1.0, 0.0]})
    made = Average(small, small, small, fsc, poses, {"mask": 280.0})
    export_folders.write([Bundle("a $(b)\n    cd elsewhere", poses, made)], cut, tmp_path / "r", program="RELION", diameter=280)
    lines = [line for line in (tmp_path / "r" / "README.txt").read_text().splitlines() if line.startswith("    ")]
    assert len(lines) == 1
    first, _, rest = lines[0].partition(" && ")
    assert first.split() == ["cd", "a_b_cd_elsewhere"]
    words = shlex.split(rest.removeprefix("mkdir -p run && "))
    (tmp_path / "r" / "a_b_cd_elsewhere" / "run").mkdir()
    some = ["--auto_iter_max", "1", "--healpix_order", "1"]
    surroundings = os.environ | programs.environment()
    done = subprocess.run(
        [*words, *some], cwd=tmp_path / "r" / "a_b_cd_elsewhere", env=surroundings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = relion.read(tmp_path / "r" / "a_b_cd_elsewhere")
    assert found.record["iterations"] == 1
    assert alignment.align_map(found.volume, small).score > 0.85


def test_names_cannot_lead_anywhere_else_and_are_different() -> None:
    names = export_folders.named(["../../etc", "a b", "a_b", "A B", "$(rm -rf)", "", "x" * 300, "..", "Ölbaum"])
    assert names == ["etc", "a_b", "a_b_2", "A_B_3", "rm_-rf", "average", "x" * 80, "average_2", "Ölbaum"]


def test_all_or_nothing(boxes: Subtomograms, poses: pd.DataFrame, tmp_path: Path) -> None:
    flat = Subtomograms(np.concatenate([boxes.volumes[:2], np.zeros((1, 32, 32, 32))]), boxes.particles, 10.0)
    sets = [Bundle("first", poses.iloc[[0, 1]]), Bundle("second", poses.iloc[[2]])]
    with pytest.raises(ValueError, match="background of particle 3 is constant"):
        export_folders.write(sets, flat, tmp_path / "r", program="RELION", diameter=200)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r").mkdir()
    for program in export_folders.PROGRAMS:
        with pytest.raises(FileExistsError, match="is there already; name another folder"):
            export_folders.write(sets, boxes, tmp_path / "r", program=program, diameter=200)
    with pytest.raises(FileExistsError, match="is there already"):
        to_dynamo.write(boxes, tmp_path / "r", poses=poses)
    with pytest.raises(ValueError, match="no particles in none"):
        export_folders.write([Bundle("none", poses[:0])], boxes, tmp_path / "s", program="RELION", diameter=200)
    with pytest.raises(ValueError, match="there is no class to write"):
        export_folders.write([], boxes, tmp_path / "s", program="RELION", diameter=200)
    with pytest.raises(ValueError, match="program is one of RELION, Dynamo, got 'EMAN2'"):
        export_folders.write(sets, boxes, tmp_path / "s", program="EMAN2", diameter=200)
