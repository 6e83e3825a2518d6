"""The threshold slider picks what `choose` picks, says how many, and the figure of scores counts them."""

import numpy as np
import pandas as pd
import pytest

from tomolab import picking
from tomolab.ui import plots
from tomolab.ui.plots.picking import ThresholdSlider
from tomolab.volumes import Volume


@pytest.fixture(scope="module")
def tomogram() -> Volume:
    """Two dozen blobs in noise."""
    rng = np.random.default_rng(1)
    data = rng.normal(0, 1, (30, 80, 90))
    grid = np.indices(data.shape)
    for place in rng.uniform([8, 8, 8], [22, 72, 82], (24, 3)):
        data += 1.5 * np.exp(-((grid - place[:, None, None, None]) ** 2).sum(0) / (2 * 3.0**2))
    return Volume(data, 20.0)


@pytest.fixture(scope="module")
def found(tomogram: Volume) -> pd.DataFrame:
    return picking.candidates(tomogram, diameter=200.0)


def test_every_position_of_the_slider_is_a_choice(tomogram, found) -> None:
    turning = ThresholdSlider(tomogram, found)
    pd.testing.assert_frame_equal(turning.picks, picking.choose(found))
    for score in (2.0, 3.5, 6.0):
        turning.score.value = score
        pd.testing.assert_frame_equal(turning.picks, picking.choose(found, score=turning.score.value))
        assert f"<b>{len(turning.picks):,} picks</b>" in turning.message.value


def test_the_picture_follows_both_sliders(tomogram, found) -> None:
    turning = ThresholdSlider(tomogram, found, low_pass=60.0, diameter=180.0, score=4.0)
    seen = {bytes(turning.picture.value)}
    for slider, value in ((turning.height, 400.0), (turning.score, 1.0), (turning.height, 0.0), (turning.height, 580.0)):
        slider.value = value
        seen.add(bytes(turning.picture.value))
    assert len(seen) == 5
    assert all(picture.startswith(b"\x89PNG") for picture in seen)
    assert "noise" not in turning.message.value
    turning.score.value = turning.score.max
    assert len(turning.picks) == 1


def test_the_figure_shows_the_scores_and_the_threshold(found) -> None:
    figure = plots.scores(found, score=4.0)
    top, below = figure.axes
    assert top.get_title(loc="left") == f"{len(picking.choose(found, score=4.0)):,} picks from a score of 4 on"
    counts = below.lines[0].get_ydata()
    assert counts[-1] == len(picking.choose(found, score=-np.inf))


def test_without_candidates_there_is_nothing_to_choose(tomogram, found) -> None:
    taken = found.assign(status="edge")
    for make in (lambda: plots.scores(taken), lambda: ThresholdSlider(tomogram, taken)):
        with pytest.raises(ValueError, match=f"none of {len(found)} candidates is free"):
            make()


def test_the_figure_of_matches_marks_those_beyond_chance() -> None:
    found = pd.DataFrame({"match": [9.0, 8.0, 7.0, 3.0, 2.0], "mirrored": [1.0, 2.5, 4.0, 3.5, 1.0]})
    figure = plots.matched(found, share=0.4)
    top, below = figure.axes[:2]
    assert top.get_title(loc="left") == "3 of 5: at most 40% by chance"
    assert [line.get_xdata()[0] for line in below.lines][-1] == 7.0
    with pytest.raises(ValueError, match="no scores"):
        plots.matched(found.iloc[:0])
