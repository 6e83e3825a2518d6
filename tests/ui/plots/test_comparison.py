"""Two averages of one structure are brought onto each other and shown side by side."""

import io

import numpy as np
import pandas as pd
import pytest
import torch

from tomolab import particles, rotations, volumes
from tomolab.averaging import Average
from tomolab.ui import plots
from tomolab.volumes import Volume


def average(volume: Volume, *, falls: float) -> Average:
    """An average whose half maps are said to agree less and less."""
    shells = np.arange(1, volume.shape[0] // 2 + 1)
    fsc = pd.DataFrame({"resolution": volume.extent[0] / shells, "fsc": 1 / (1 + (shells / falls) ** 6)})
    return Average(volume, volume, volume, fsc, particles.table(np.zeros((4, 3))), {})


@pytest.fixture(scope="module")
def pair(phantom: Volume) -> dict[str, Average]:
    small = volumes.fit(volumes.resample(phantom, 20.0), 16)
    turn = rotations.random(1, torch.Generator().manual_seed(3))
    turned = volumes.transform(torch.from_numpy(small.data)[None], turn, torch.tensor([[1.0, -0.5, 0.5]]))[0].numpy()
    return {"tomolab": average(small, falls=5), "RELION": average(Volume(turned, 20.0), falls=4)}


def test_the_second_is_turned_onto_the_first(pair: dict[str, Average]) -> None:
    figure = plots.two_averages(pair)
    figure.savefig(io.BytesIO(), dpi=60)
    curves, *slices = figure.axes
    between = next(line for line in curves.lines if str(line.get_label()).startswith("tomolab with RELION"))
    assert between.get_ydata()[:5].min() > 0.9
    assert len(slices) == 6
    for first, second in zip(slices[:3], slices[3:], strict=True):
        one, other = (np.asarray(ax.images[0].get_array()).ravel() for ax in (first, second))
        assert np.corrcoef(one, other)[0, 1] > 0.85
    labels = [str(line.get_label()) for line in curves.lines]
    assert any(label.startswith("halves of tomolab: ") and label.endswith(" Å") for label in labels)


def test_two_of_one_box_are_needed(pair: dict[str, Average]) -> None:
    with pytest.raises(ValueError, match="two averages can be compared, got 1: tomolab"):
        plots.two_averages({"tomolab": pair["tomolab"]})
    other = average(volumes.fit(pair["RELION"].volume, 20), falls=4)
    with pytest.raises(ValueError, match="one cubic box and voxel size"):
        plots.two_averages({"tomolab": pair["tomolab"], "RELION": other})
