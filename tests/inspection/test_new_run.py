"""A tomogram becomes a run folder with picks, boxes, features and clusters, whatever its contrast, with a list or without."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomolab import inspection, io, simulation, volumes
from tomolab.inspection import run_contents
from tomolab.simulation import Imaging, densities
from tomolab.volumes import Volume

OPTIONS = {"contrast": "bright", "tilts": (-60.0, 60.0), "diameter": 250.0, "seed": 1, "progress": False}


@pytest.fixture(scope="module")
def simulated() -> tuple[Volume, pd.DataFrame]:
    """A small tomogram with particles of two species, and where they are."""
    maps = densities.load(["ribosome_70s", "spliceosome"], voxel_size=20.0, box=20)
    return simulation.tomogram(maps, 40, shape=(40, 120, 120), imaging=Imaging(snr=0.5), seed=1)


def test_a_tomogram_becomes_a_run_folder_with_its_particles(simulated: tuple[Volume, pd.DataFrame], tmp_path: Path) -> None:
    tomogram, truth = simulated
    io.write_volume(volumes.invert(tomogram), tmp_path / "dark.mrc")
    with pytest.warns(UserWarning, match="the box leaves the tomogram"):
        work = inspection.from_tomogram(tmp_path / "dark.mrc", tmp_path / "run", **OPTIONS | {"contrast": "dark"})
    there = truth[["z", "y", "x"]].to_numpy()
    picked = work.session.particles[["z", "y", "x"]].to_numpy()
    nearest = np.linalg.norm(there[:, None] - picked, axis=2).min(1)
    inside = ((there > 200) & (there < np.array(tomogram.extent) - 200)).all(1)
    assert inside.sum() > 20
    assert (nearest[inside] < 100).mean() > 0.8
    assert work.subtomograms is not None
    assert len(work.subtomograms) == len(work.session.particles)
    assert len(work.session.clusters) == len(picked) // 16
    # Dark density was inverted: what was picked is bright.
    assert work.subtomograms.take(work.subtomograms.ids[:20]).volumes[:, 9:12, 9:12, 9:12].mean() > 0.5
    # It opens again, with its numbers for the report.
    again = inspection.open(tmp_path / "run")
    assert again.session.labels.equals(work.session.labels)
    assert again.diameter == 250.0
    steps = {step.title: step.count for step in run_contents.read(tmp_path / "run").steps}
    assert steps["picked"] >= steps["cut out"] == steps["embedded"] == len(picked)
    with pytest.raises(FileExistsError, match="open it with"):
        inspection.from_tomogram(tomogram, tmp_path / "run", **OPTIONS)


def test_a_list_is_taken_as_it_is(simulated: tuple[Volume, pd.DataFrame], tmp_path: Path) -> None:
    tomogram, truth = simulated
    with pytest.warns(UserWarning, match="the box leaves the tomogram"):
        work = inspection.from_tomogram(tomogram, tmp_path, particles=truth.drop(columns=["tilt_min", "tilt_max"]), **OPTIONS)
    assert set(work.session.particles["particle_id"]) <= set(truth["particle_id"])
    assert (work.session.particles["tilt_max"] == 60.0).all()
    assert "label" in work.session.particles


def test_what_cannot_be_a_run_is_refused(simulated: tuple[Volume, pd.DataFrame], tmp_path: Path) -> None:
    tomogram, truth = simulated
    with pytest.raises(ValueError, match="contrast must be"):
        inspection.from_tomogram(tomogram, tmp_path, **OPTIONS | {"contrast": "unknown"})
    with pytest.raises(ValueError, match=r'protein is bright in the tomogram.*: state contrast="bright"'):
        inspection.from_tomogram(tomogram, tmp_path, **OPTIONS | {"contrast": "dark"})
    with pytest.raises(ValueError, match=r'protein is dark in the tomogram.*: state contrast="dark"'):
        inspection.from_tomogram(volumes.invert(tomogram), tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="tilts must be the lowest and the highest"):
        inspection.from_tomogram(tomogram, tmp_path, **OPTIONS | {"tilts": (60.0, -60.0)})
    two = truth.assign(tomogram=np.where(truth.index % 2, "a", "b"))
    with pytest.raises(ValueError, match="of 2 tomograms"):
        inspection.from_tomogram(tomogram, tmp_path, particles=two, **OPTIONS)
    with pytest.raises(ValueError, match="8 particles or more are needed, got 3"):
        inspection.from_tomogram(tomogram, tmp_path, particles=truth[:3], **OPTIONS)
    empty = Volume(np.random.default_rng(1).normal(size=(24, 24, 24)), 20.0)
    with pytest.raises(ValueError, match=r"8 particles or more are needed, got \d: lower threshold="):
        inspection.from_tomogram(empty, tmp_path, **OPTIONS)
    assert not list(tmp_path.iterdir())
