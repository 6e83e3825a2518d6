"""Particles in 3-D: they stand at their positions, in the colours of all views; the others of a selection are pale."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import divide_run
from matplotlib.colors import to_rgb

from tomolab import inspection
from tomolab.ui import style
from tomolab.ui.notebook.positions import Positions

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword")


@pytest.fixture
def panel(folder: Path) -> Positions:
    divide_run(folder)
    return Positions(inspection.open(folder))


def drawn(panel: Positions, name: str) -> Any:
    return panel.view.objects[name][0]


def test_visible_particles_of_one_tomogram_are_drawn_where_they_are(panel: Positions) -> None:
    session = panel.session
    assert panel.view.plot is None
    panel.show()
    cell = (session.particles["tomogram"] == "cell").to_numpy()
    np.testing.assert_allclose(drawn(panel, "points").positions, session.particles.loc[cell, ["x", "y", "z"]], rtol=1e-6)
    # Its box is that of the tomogram, 80 × 60 × 40 voxels of 20 Å around the centres of the voxels.
    edges = np.asarray(drawn(panel, "box").vertices)
    assert (edges.min(axis=0).tolist(), edges.max(axis=0).tolist()) == ([-10.0] * 3, [1590.0, 1190.0, 790.0])
    assert "box 1,600 × 1,200 × 800 Å" in panel.text.value
    session.describe(1, hidden=True)
    shown = cell & (session.labels == 0).to_numpy()
    np.testing.assert_allclose(drawn(panel, "points").positions, session.particles.loc[shown, ["x", "y", "z"]], rtol=1e-6)
    panel.look(session.ids[~cell][0])
    assert panel.tomogram.value == "other"
    assert len(drawn(panel, "points").positions) == (~cell & (session.labels == 0).to_numpy()).sum()
    assert len(panel.view.plot.objects) == 2
    session.describe(0, hidden=True)
    assert len(drawn(panel, "points").positions) == 0


def test_colours_are_those_of_all_views_and_particles_beside_a_selection_are_pale(panel: Positions) -> None:
    session, where = panel.session, panel.session.particles["tomogram"] == "cell"
    panel.show()

    def colours() -> np.ndarray:
        packed = np.asarray(drawn(panel, "points").colors)
        return np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=1) / 255

    expected = style.particle_inks(session, "cluster")[where, :3]
    np.testing.assert_allclose(colours(), expected, atol=1 / 255)
    session.select(session.labels == 0)
    chosen = session.selected[where]
    np.testing.assert_allclose(colours()[chosen], expected[chosen], atol=1 / 255)
    assert colours()[~chosen].min() > 0.75
    assert f"{chosen.sum()} of 16 particles selected" in panel.text.value
    session.select([])
    panel.inspection.colour_by = "score"
    np.testing.assert_allclose(colours(), style.particle_inks(session, "score")[where, :3], atol=1 / 255)
    # Particles of no cluster stay behind the others in a dark theme, too.
    panel.inspection.colour_by = "cluster"
    session.unassign(0)
    panel.dark = True
    panel.show()
    assert panel.view.plot.background_color == 0x111111
    np.testing.assert_allclose(colours()[chosen], [to_rgb(style.FAINT_ON_DARK)] * chosen.sum(), atol=1 / 255)
