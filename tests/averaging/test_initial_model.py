"""Ab initio: all particles together find what was put in, at the scale of the boxes, and both halves start from it."""

from pathlib import Path

import numpy as np
import pytest
from conftest import imaged

from tomolab import averaging, volumes
from tomolab.averaging import Average, alignment, checkpoint, initial_model
from tomolab.averaging.initial_model import InitialModel
from tomolab.inspection import run_contents
from tomolab.jobs import Progress
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

QUICK = {"seed": 2, "starts": 2, "iterations": 6, "device": "cpu"}


@pytest.fixture(scope="module")
def boxes(small: Volume) -> Subtomograms:
    return imaged(small, 80, snr=0.3, seed=0)[0]


@pytest.fixture(scope="module")
def first(boxes: Subtomograms) -> InitialModel:
    return initial_model.find(boxes, seed=1, starts=2, iterations=16, progress=False, device="cpu")


def test_the_structure_is_found_in_its_hand(first: InitialModel, small: Volume) -> None:
    score, mirrored = (alignment.align_map(one, first.volume, radius_cycles=6).score for one in (small, volumes.mirror(small)))
    assert score > 0.9
    assert score > mirrored + 0.01
    assert first.volume.shape == small.shape
    assert first.volume.voxel_size == small.voxel_size
    assert len(first.scores) == 2


def test_its_grey_values_are_those_of_the_boxes(small: Volume) -> None:
    clean, turns, shifts = imaged(small, 60, snr=20, seed=6)
    whole, _ = averaging.with_poses(clean, turns, shifts, device="cpu")
    found = initial_model.find(clean, seed=1, starts=1, iterations=12, progress=False, device="cpu").volume
    fitted = alignment.apply(whole, alignment.align_map(whole, found, radius_cycles=6))
    core = volumes.sphere(20, 10).numpy() > 0.5
    slope = np.polyfit(fitted.data[core], found.data[core], 1)[0]
    assert 0.7 < slope < 1.2


def test_an_average_from_it_is_free_of_references_and_says_so(boxes: Subtomograms, first: InitialModel, small: Volume) -> None:
    average = averaging.average(boxes, seed=3, start=first, progress=False, device="cpu")
    assert alignment.align_map(small, average.volume, radius_cycles=6).score > 0.9
    told = average.record["start"]
    assert told["ab initio"] == {key: first.record[key] for key in ("particles", "digest", "seed", "parameters")}
    assert run_contents.average_start(average.record) == ""
    assert run_contents.average_lineage(average.record) == "a first structure of 80 particles, ab initio, to 80 Å"
    again = averaging.average(boxes, seed=4, start=average, progress=False, device="cpu")
    assert run_contents.average_start(again.record) == ""
    assert "an average of 80 particles, to 80 Å, from a first structure" in run_contents.average_lineage(again.record)
    # What came of a map stays that, however many averages lie between.
    from_map = Average(average.volume, average.half1, average.half2, average.fsc, average.particles, {"start": {"map": "ab"}})
    third = averaging.average(boxes, seed=4, iterations=3, start=from_map, progress=False, device="cpu")
    assert run_contents.average_start(third.record) == "map: ab"
    assert run_contents.average_lineage(third.record) == ""


def test_a_cut_search_goes_on_to_the_same_end(boxes: Subtomograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = initial_model.find(boxes, progress=False, **QUICK)
    kept = tmp_path / "first.safetensors"
    monkeypatch.setattr(checkpoint, "WRITE_INTERVAL", 0.0)

    def cut(now: Progress) -> None:
        if now.iteration == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        initial_model.find(boxes, progress=cut, checkpoint=kept, **QUICK)
    assert kept.is_file()
    with pytest.raises(ValueError, match="begun otherwise"):
        initial_model.find(boxes, progress=False, checkpoint=kept, **QUICK | {"seed": 3})
    seen: list[Progress] = []
    rest = initial_model.find(boxes, progress=seen.append, checkpoint=kept, **QUICK)
    assert seen[0].iteration > 1
    assert not kept.exists()
    np.testing.assert_array_equal(rest.scores, whole.scores)
    np.testing.assert_array_equal(rest.volume.data, whole.volume.data)


def test_a_stop_gives_the_map_so_far(boxes: Subtomograms) -> None:
    asked = iter([False, False, True])
    found = initial_model.find(boxes, progress=False, stop=lambda: next(asked), **QUICK)
    assert np.ptp(found.volume.data) > 0
    assert len(found.scores) == 0


def test_the_best_search_is_taken(boxes: Subtomograms) -> None:
    found = initial_model.find(boxes, progress=False, **QUICK)
    alone = initial_model.find(boxes, progress=False, **QUICK | {"starts": 1})
    assert found.scores.iloc[0] == alone.scores.iloc[0]
    same = np.array_equal(found.volume.data, alone.volume.data)
    assert same == bool(found.scores.iloc[0] >= found.scores.iloc[1])


def test_too_little_is_refused(boxes: Subtomograms) -> None:
    with pytest.raises(ValueError, match="at least 4 particles"):
        initial_model.find(boxes, boxes.ids[:3], seed=1)
    with pytest.raises(ValueError, match="at least 2 iterations and 1 start"):
        initial_model.find(boxes, seed=1, starts=0)
    with pytest.raises(ValueError, match=r"safetensors"):
        initial_model.find(boxes, seed=1, checkpoint="first.pt")
