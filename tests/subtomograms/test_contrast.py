"""The contrast of a tomogram is measured at the doors: a wrong statement is refused; where it cannot be told, all is taken."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomolab import io, simulation, subtomograms, volumes
from tomolab.io.volumes import tomogram as tomogram_files
from tomolab.simulation import Imaging
from tomolab.subtomograms import contrast
from tomolab.volumes import Volume

NAMES = ["ribosome_80s", "spliceosome", "capsid_mottle"]


@pytest.fixture(scope="module", params=[0.5, 0.05])
def simulated(request: pytest.FixtureRequest) -> tuple[Volume, pd.DataFrame]:
    """A tomogram with bright particles, a hollow capsid among them, and where they are."""
    maps = simulation.load_densities(NAMES, voxel_size=20.0, box=20)
    return simulation.tomogram(maps, 20, shape=(48, 120, 120), imaging=Imaging(snr=request.param), seed=3)


def test_the_contrast_is_measured(simulated: tuple[Volume, pd.DataFrame]) -> None:
    tomogram, _ = simulated
    assert contrast.measure(tomogram_files.of(tomogram)) == "bright"
    assert contrast.measure(tomogram_files.of(volumes.invert(tomogram))) == "dark"


def test_gold_has_the_contrast_of_protein(simulated: tuple[Volume, pd.DataFrame]) -> None:
    tomogram, _ = simulated
    data = tomogram.data.copy()
    for z, y, x in np.random.default_rng(1).integers(10, 38, (12, 3)):
        data[z - 2 : z + 3, y * 2 : y * 2 + 5, x * 2 : x * 2 + 5] += 40 * data.std()
    assert contrast.measure(tomogram_files.of(Volume(-data, 20.0))) == "dark"


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_small_tomograms_tell_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for shape in ((48, 120, 120), (8, 200, 200), (20, 20, 20)):
        assert contrast.measure(tomogram_files.of(Volume(rng.normal(size=shape), 20.0))) is None
    assert contrast.measure(tomogram_files.of(Volume(np.ones((48, 120, 120)), 20.0))) is None


def test_a_wrong_contrast_is_refused_at_the_doors(simulated: tuple[Volume, pd.DataFrame], tmp_path: Path) -> None:
    tomogram, truth = simulated
    inside = truth[((truth[["z", "y", "x"]] > 220) & (truth[["z", "y", "x"]] < tomogram.extent - 220)).all(axis=1)]
    io.write_volume(volumes.invert(tomogram), tmp_path / "dark.mrc")
    dark = io.open_volume(tmp_path / "dark.mrc")
    with pytest.raises(
        ValueError, match=r'protein is dark in .*dark\.mrc.* contrast="bright" was stated: state contrast="dark"'
    ):
        subtomograms.extract(dark, inside, box=20)
    right = subtomograms.extract(dark, inside, box=20, contrast="dark")
    forced = subtomograms.extract(dark, inside, box=20, check_contrast=False)
    np.testing.assert_allclose(np.asarray(right.volumes), -np.asarray(forced.volumes), atol=0.01)

    rows = pd.DataFrame({"tomogram": inside["tomogram"].unique(), "path": [str(tmp_path / "dark.mrc")]})
    options = {"box": 20, "path": tmp_path / "cut.zarr", "progress": False}
    with pytest.raises(ValueError, match='state contrast="dark"'):
        subtomograms.extract_many(rows, inside, **options)
    assert not (tmp_path / "cut.zarr").exists()
    assert len(subtomograms.extract_many(rows.assign(contrast="dark"), inside, **options)) == len(inside)
