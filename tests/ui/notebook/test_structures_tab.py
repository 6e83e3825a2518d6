"""The view of averages in 3-D: what is drawn is the density, the threshold is that of the surface, and two are compared."""

import time
from pathlib import Path

import numpy as np
import pytest
from test_exports import average_of
from test_inspector import picture, said

from tomolab import inspection, rotations, volumes
from tomolab.averaging.half_maps import Average
from tomolab.ui.notebook import structures
from tomolab.ui.notebook.inspector import Inspector
from tomolab.ui.notebook.structures import Structures
from tomolab.volumes import Volume

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


@pytest.fixture
def panel(folder: Path, phantom: Volume) -> Structures:
    """Two averages: the phantom, and the phantom rotated by 40° about z."""
    work = inspection.open(folder)
    turn = rotations.from_euler(np.array([[40.0, 0.0, 0.0]]))
    import torch

    turned = volumes.transform(torch.from_numpy(phantom.data)[None], torch.as_tensor(np.asarray(turn)).float())[0].numpy()
    table = work.session.table([0])
    for name, data in (("straight", phantom.data), ("turned", turned)):
        average = average_of(table[:12], turn=0.0)
        map_ = Volume(data, phantom.voxel_size)
        maps = dict.fromkeys(("volume", "half1", "half2"), map_)
        work.add_average(name, Average(**{**vars(average), **maps, "record": {"mask": 300.0}}))
    return Structures(work)


def test_the_newest_average_is_drawn_in_deviations_and_only_when_it_is_looked_at(panel: Structures, phantom: Volume) -> None:
    assert panel.first.choice.value == "turned"
    assert panel.first.view.plot is None
    panel.first.choice.value = "straight"
    panel.show()
    mesh = panel.first.view.objects["surface"][0]
    assert panel.first.threshold.value == mesh.level
    assert panel.second.view.plot is None
    # The same density as that of the phantom, twice as fine: brightest where the bead is.
    field = np.asarray(mesh.scalar_field)
    assert field.shape == (64, 64, 64)
    assert field.std() == pytest.approx(1, abs=0.05)
    at = np.unravel_index(field.argmax(), field.shape)
    np.testing.assert_allclose(np.array(at) / 2, np.unravel_index(phantom.data.argmax(), phantom.shape), atol=1)
    # A box of 320 Å around 0, x first.
    assert [mesh.model_matrix[axis, axis] for axis in range(3)] == pytest.approx([320.0] * 3)
    assert picture(panel.first.slices.value).std() > 1
    light = picture(panel.curve.value)
    panel.dark = True
    panel.show()
    assert panel.first.view.plot.background_color == 0x111111
    assert len(panel.first.view.plot.objects) == 1
    # The curve, too, and nothing of it is lost: what was ink is light.
    dark = picture(panel.curve.value)
    assert dark.shape == light.shape
    assert (light[0, 0], dark[0, 0]) == (255, 0x11)
    assert dark.max() > 200


def test_two_averages_are_aligned_and_compared(panel: Structures) -> None:
    heard: list[str] = []
    panel.say = heard.append
    panel.first.choice.value = "straight"
    panel.show()
    assert panel.button.disabled
    assert panel.compare() is None
    assert heard == ["choose two averages to compare"]
    panel.second.choice.value = "turned"
    before = np.asarray(panel.second.view.objects["surface"][0].scalar_field)
    job = panel.compare()
    assert job is not None
    job.result(100)
    end = time.monotonic() + 20
    while "FSC of the two" not in panel.text.value:
        assert time.monotonic() < end
        time.sleep(0.05)
    first, second = (np.asarray(one.view.objects["surface"][0].scalar_field).ravel() for one in (panel.first, panel.second))
    assert np.corrcoef(first, before.ravel())[0, 1] < 0.9
    assert np.corrcoef(first, second)[0, 1] > 0.95
    assert panel.comparison is not None
    straight, mirrored = panel.comparison[2].resolutions
    assert straight < mirrored
    assert picture(panel.curve.value).std() > 1


def test_an_average_is_deleted_and_brought_back_and_ticked_clusters_are_put_side_by_side(folder: Path) -> None:
    work = inspection.open(folder)
    work.split(0)
    view = Inspector(work)
    panel = view.structures
    assert panel.layout.display == "none"
    for cluster in work.session.clusters:
        ids = work.session.members(cluster).ids
        average = average_of(work.session.table([cluster]), turn=0.0)
        work.add_average(f"average {cluster}", average, cluster=cluster, members=ids)
    view.tabs.selected_index = view.tabs.children.index(panel)
    view.table.ticked = [1, 0]
    assert (panel.first.choice.value, panel.second.choice.value) == ("average 1", "average 0")
    panel.delete.click()
    assert list(work.averages) == ["average 0"]
    assert panel.first.choice.value == "average 0"
    assert "delete the average average 1" in said(view)
    assert view.averages.results.choice.options == ("average 0",)
    assert not any("image" in row for row in view.table.rows if row["cluster"] == 1)
    assert list(inspection.open(folder).averages) == ["average 0"]
    view.buttons["undo"].click()
    assert list(work.averages) == ["average 0", "average 1"]
    with pytest.raises(ValueError, match="there is no average 'nothing'; there are average 0, average 1"):
        work.delete_average("nothing")


def test_the_threshold_divides_dense_from_empty(phantom: Volume) -> None:
    data, cut = structures.in_deviations(phantom, 320.0)
    share = (data > cut).mean()
    assert 0.001 < share < 0.1


def test_a_map_without_a_surface_says_so_and_the_other_is_drawn(panel: Structures) -> None:
    heard: list[str] = []
    panel.say = heard.append
    work = panel.inspection
    flat = Volume(np.zeros((32, 32, 32), dtype=np.float32), 10.0)
    work.add_average("flat", Average(**{**vars(work.averages["turned"]), "volume": flat, "record": {}}))
    panel.first.choice.value, panel.second.choice.value = "flat", "straight"
    panel.show()
    assert "flat cannot be drawn in 3-D: a constant volume" in heard[-1]
    assert "surface" in panel.second.view.objects
