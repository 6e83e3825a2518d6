"""What lists say of poses and boxes is turned along, kept where it still holds, or left out with a word."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tomolab import io, particles
from tomolab.io.lists import outdated
from tomolab.io.lists.star import relion as io_lists_relion
from tomolab.io.lists.star.columns import CONSUMED, VERSIONS

PIXEL, IMAGE, EDGE, SHAPE = 1.35, 2.7, 64, (800, 1000, 900)
MIDDLE = np.array(SHAPE[::-1]) / 2 * PIXEL
VERSIONS = list(VERSIONS)
PRIORS = ["rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior"]
SUBTOMOGRAM = ["rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi"]
ANGLES = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
ORIGINS = [f"rlnOrigin{axis}Angst" for axis in "XYZ"]
KINDS = ["angles", "subtomogram", "priors", "origins", "origin priors", "fits", "images"]
FITS = ["rlnLogLikeliContribution", "rlnMaxValueProbDistribution", "rlnNrOfSignificantSamples"]


def turn(angles: Any) -> np.ndarray:
    """Rotations on xyz vectors, reference to tomogram, from RELION's angles."""
    return Rotation.from_euler("ZYZ", np.reshape(angles, (-1, 3)), degrees=True).as_matrix().transpose(0, 2, 1)


def loop(name: str, columns: dict[str, Any]) -> str:
    head = "".join(f"_{column} #{place}\n" for place, column in enumerate(columns, 1))
    rows = zip(*columns.values(), strict=True)
    return f"\n# version 50001\n\ndata_{name}\n\nloop_\n{head}" + "".join(" ".join(map(str, row)) + "\n" for row in rows)


def relion(folder: Path, *, seed: int, count: int, version: str, has: set[str]) -> Path:
    """A list as RELION writes it, with some of the columns that tell of poses and boxes."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(300, 900, (count, 3)).round(6)
    columns: dict[str, Any] = {"rlnTomoName": [f"TS_{n % 2}" for n in range(count)], "rlnOpticsGroup": [1] * count}
    if version == "relion5":
        columns |= dict(zip([f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"], (places - MIDDLE).T, strict=True))
    else:
        columns |= dict(zip([f"rlnCoordinate{axis}" for axis in "XYZ"], (places / PIXEL).T, strict=True))
    angles = rng.uniform([-180, 5, -180], [180, 175, 180], (3, count, 3)).round(4).transpose(0, 2, 1)
    kinds: dict[str, dict[str, Any]] = {
        "angles": dict(zip(ANGLES, angles[0], strict=True)),
        "subtomogram": dict(zip(SUBTOMOGRAM, angles[1], strict=True)),
        "priors": dict(zip(PRIORS, angles[2], strict=True)) | {"rlnAnglePsiFlipRatio": [0.5] * count},
        "origins": dict(zip(ORIGINS, rng.uniform(-15, 15, (3, count)).round(4), strict=True)),
        "origin priors": {f"rlnOrigin{axis}PriorAngst": rng.uniform(-5, 5, count).round(3) for axis in "XYZ"},
        "fits": {FITS[0]: rng.uniform(1e5, 1e6, count), FITS[1]: rng.uniform(0, 1, count), FITS[2]: range(count)},
        "images": {
            "rlnImageName": [f"Extract/{n}.mrcs" for n in range(count)],
            "rlnCtfImage": ["ctf.mrc"] * count,
            "rlnTomoVisibleFrames": ["[1,1,0]"] * count,
        },
    }
    for kind in KINDS:
        columns |= kinds[kind] if kind in has else {}
    optics = {"rlnOpticsGroup": [1], "rlnVoltage": [300.0], "rlnTomoTiltSeriesPixelSize": [PIXEL]}
    if "images" in has:
        optics |= {"rlnImagePixelSize": [IMAGE], "rlnImageSize": [EDGE], "rlnCtfDataAreCtfPremultiplied": [1]}
        optics |= {"rlnTomoSubtomogramBinning": [IMAGE / PIXEL], "rlnImageDimensionality": [2 if "stacks" in has else 3]}
    text = loop("optics", optics) + loop("particles", columns)
    if "stacks" in has:
        text = "\n# version 50001\n\ndata_general\n\n_rlnTomoSubTomosAre2DStacks    1\n" + text
    path = folder / "source.star"
    path.write_text(text)
    return path


def read(path: Path, version: str = "") -> pd.DataFrame:
    known: dict[str, Any] = {"tomogram_shape": SHAPE, "voxel_size": PIXEL} if version == "relion5" else {"voxel_size": PIXEL}
    return io.read_particles(path, tilts=(-60, 60), **known)


def written(table: pd.DataFrame, path: Path, version: str) -> tuple[pd.DataFrame, dict[str, Any], str]:
    """Rows with what the optics and data_general say, the blocks, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        known = {"tomogram_shape": SHAPE} if version == "relion5" else {}
        io.write_particles(table, path, voxel_size=PIXEL, format=version, **known)
    assert len(caught) <= 1
    blocks = starfile.read(path, always_dict=True)
    rows = next(one for name, one in blocks.items() if name in ("", "particles")).copy()
    for name in ("optics", "general"):
        one = blocks.get(name, {})
        for column in one:
            rows[column] = one[column] if name == "general" else one[column].iloc[0]
    return rows, blocks, str(caught[0].message) if caught else ""


def cut(rows: pd.DataFrame) -> np.ndarray:
    """Where RELION takes the boxes from, (n, 3) in Å, xyz."""
    if "rlnCenteredCoordinateXAngst" in rows:
        return rows[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy() + MIDDLE
    return rows[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy() * PIXEL


def frames(rows: pd.DataFrame) -> np.ndarray:
    return turn(rows[SUBTOMOGRAM]) if set(SUBTOMOGRAM) <= set(rows) else np.tile(np.eye(3), (len(rows), 1, 1))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99),
    count=st.integers(1, 4),
    source=st.sampled_from(["relion31", "relion4", "relion5"]),
    target=st.sampled_from(VERSIONS),
    has=st.sets(st.sampled_from([*KINDS, "stacks"])),
    change=st.sampled_from(["none", "turned", "moved", "far", "one"]),
    by_csv=st.booleans(),
)
def test_what_a_list_says_fits_its_poses_and_boxes(
    tmp_path: Path, *, seed: int, count: int, source: str, target: str, has: set[str], change: str, by_csv: bool
) -> None:
    before = starfile.read(relion(tmp_path, seed=seed, count=count, version=source, has=has), always_dict=True)["particles"]
    table = read(tmp_path / "source.star", source)
    if by_csv:
        table = io.read_particles(io.write_particles(table, tmp_path / "a.csv"))
    rows_changed = np.arange(count) == 0 if change == "one" else np.full(count, change != "none")
    if change in ("turned", "one"):
        table.loc[rows_changed, "tilt"] += 20.0
    if change in ("moved", "far"):
        table["x"] += 7.0 if change == "moved" else 150.0
    rows, blocks, told = written(table, tmp_path / "out.star", target)
    again = read(tmp_path / "out.star", target)
    np.testing.assert_allclose(particles.positions(again), particles.positions(table), atol=2e-5)
    np.testing.assert_allclose(particles.matrices(again), particles.matrices(table), atol=1e-6)
    assert len(rows) == count

    holds = change == "none"
    _check_pose(rows, before, told, holds=holds)
    _check_boxes(rows, before, told, holds=holds)
    if "rlnImageName" in rows:
        assert target not in ("relion30", "warp")
        assert ("stacks" in has) == (blocks.get("general", {}).get("rlnTomoSubTomosAre2DStacks") == 1)
        assert (rows["rlnImagePixelSize"] == IMAGE).all()
    # Nothing is left out without need.
    if holds and target == source and target == "relion5":
        assert not told
    assert not told or told.startswith("columns that no longer hold are left out: ")


def _gone(rows: pd.DataFrame, before: pd.DataFrame, told: str, names: list[str]) -> None:
    """Left out whole, each with a word if it was there."""
    assert not set(names) & set(rows)
    assert all(name in told for name in names if name in before)


def _check_pose(rows: pd.DataFrame, before: pd.DataFrame, told: str, *, holds: bool) -> None:
    if PRIORS[0] in rows:
        assert holds
        ours, theirs = (frames(one) @ turn(one[PRIORS]) for one in (rows, before))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        # As they were read, so that of two triples for one orientation it is that which is near the prior.
        if ANGLES[0] in before:
            np.testing.assert_allclose(rows[ANGLES], before[ANGLES], atol=1e-6)
    else:
        _gone(rows, before, told, [*PRIORS, "rlnAnglePsiFlipRatio"])
    assert (FITS[0] in rows) == (holds and FITS[0] in before)
    if not holds:
        _gone(rows, before, told, FITS)


def _check_boxes(rows: pd.DataFrame, before: pd.DataFrame, told: str, *, holds: bool) -> None:
    if {"rlnImageName", "rlnOriginXPriorAngst"} & set(rows):
        np.testing.assert_allclose(cut(rows), cut(before), atol=2e-6)
        np.testing.assert_allclose(frames(rows), frames(before), atol=1e-6)
    if "rlnImageName" not in rows:
        _gone(rows, before, told, ["rlnImageName", "rlnCtfImage", "rlnTomoVisibleFrames"])
        assert not {"rlnImageSize", "rlnCtfDataAreCtfPremultiplied"} & set(rows)
    if "rlnOriginXPriorAngst" in rows:
        assert holds
    else:
        _gone(rows, before, told, ["rlnOriginXPriorAngst"])


def test_a_list_that_is_read_and_written_says_the_same(tmp_path: Path) -> None:
    path = relion(tmp_path, seed=3, count=3, version="relion5", has={*KINDS, "stacks"})
    before = starfile.read(path, always_dict=True)
    rows, blocks, told = written(read(path, "relion5"), tmp_path / "out.star", "relion5")
    assert not told
    assert blocks["general"] == {"rlnTomoSubTomosAre2DStacks": 1}
    for name, values in before["particles"].items():
        if pd.api.types.is_numeric_dtype(values):
            np.testing.assert_allclose(rows[name], values, atol=1e-5, err_msg=name)
        else:
            assert rows[name].tolist() == values.tolist()
    assert set(before["optics"]) <= set(blocks["optics"])


def test_angles_and_priors_stay_in_the_frame_of_the_subtomogram(tmp_path: Path) -> None:
    """A filament along z of its box: angles near the priors of 90° and 0°."""
    text = loop("optics", {"rlnOpticsGroup": [1], "rlnTomoTiltSeriesPixelSize": [PIXEL]})
    rows = {"rlnTomoName": ["A", "A"], **{f"rlnCenteredCoordinate{axis}Angst": [5.0, 9.0] for axis in "XYZ"}}
    rows |= dict(zip(SUBTOMOGRAM, [[167.69, 175.41], [98.1, 75.35], [-164.55, -132.29]], strict=True))
    # Of two triples for one orientation, that which is near the priors.
    rows |= dict(zip(ANGLES, [[-0.25, -22.22], [-97.32, 0.0], [9.02, -1.11]], strict=True))
    rows |= {"rlnAngleTiltPrior": [-90.0, 0.0], "rlnAnglePsiPrior": [0.0, 0.0], "rlnOpticsGroup": [1, 1]}
    (tmp_path / "a.star").write_text(text + loop("particles", rows))
    table = read(tmp_path / "a.star", "relion5")
    found, _, told = written(table, tmp_path / "b.star", "relion5")
    assert not told
    np.testing.assert_allclose(found[ANGLES], np.transpose([rows[name] for name in ANGLES]), atol=1e-6)
    np.testing.assert_allclose(found[SUBTOMOGRAM], np.transpose([rows[name] for name in SUBTOMOGRAM]), atol=1e-6)
    # RELION 3.1 knows no angles of subtomograms.
    found, _, told = written(table, tmp_path / "c.star", "relion31")
    assert not {"rlnAngleTiltPrior", *SUBTOMOGRAM} & set(found)
    assert "rlnAngleTiltPrior, rlnAnglePsiPrior (they count from rlnTomoSubtomogramRot, Tilt, Psi, which relion31" in told


def test_rows_of_another_list_count_from_the_tomogram(tmp_path: Path) -> None:
    turned = read(relion(tmp_path, seed=1, count=2, version="relion5", has={"angles", "subtomogram", "priors"}), "relion5")
    plain = particles.table([[500.0, 400, 300]], tomogram="TS_0", ids=[7], angles=[[10, 20, 30]])
    both = pd.concat([turned, plain], ignore_index=True)
    rows, _, told = written(both.assign(rlnOpticsGroup=1, rlnTomoTiltSeriesPixelSize=PIXEL), tmp_path / "out.star", "relion5")
    assert not told
    assert rows.loc[2, [*SUBTOMOGRAM, *ANGLES]].tolist() == [0, 0, 0, 10, 20, 30]
    again = read(tmp_path / "out.star", "relion5")
    np.testing.assert_allclose(particles.matrices(again), particles.matrices(both), atol=1e-6)


def test_stacks_and_volumes_are_not_mixed(tmp_path: Path) -> None:
    table = read(relion(tmp_path, seed=1, count=3, version="relion5", has={"images", "stacks"}), "relion5")
    table["rlnTomoSubTomosAre2DStacks"] = [1, 0, 1]
    with pytest.raises(ValueError, match="2 of 3 particles have stacks of images, the others volumes; a list cannot have both"):
        io.write_particles(table, tmp_path / "b.star", voxel_size=PIXEL, format="relion5", tomogram_shape=SHAPE)
    for said, message in (("abc", "must be 0 or 1, got abc"), ("true", "")):
        text = (tmp_path / "source.star").read_text().replace("2DStacks    1", f"2DStacks {said}")
        (tmp_path / "odd.star").write_text(text)
        if message:
            with pytest.raises(ValueError, match=message):
                read(tmp_path / "odd.star", "relion5")
        else:
            assert read(tmp_path / "odd.star", "relion5")["rlnTomoSubTomosAre2DStacks"].tolist() == [1, 1, 1]
    one = table.assign(rlnTomoSubTomosAre2DStacks=[True] * 3)
    rows, blocks, _ = written(one, tmp_path / "b.star", "relion5")
    assert blocks["general"] == {"rlnTomoSubTomosAre2DStacks": 1}
    assert len(rows) == 3


def test_boxes_of_other_pixels_are_not_those_of_relion30(tmp_path: Path) -> None:
    """RELION 3.0 says the pixel size of the boxes only; coordinates may be in others, if whoever reads knows them."""
    names = ["rlnMicrographName", *(f"rlnCoordinate{axis}" for axis in "XYZ"), "rlnMagnification", "rlnDetectorPixelSize"]
    values = ["001.mrc", 100.0, 200.0, 50.0, 12500.0, 5.0]
    columns = dict(zip([*names, "rlnOriginX", "rlnImageName"], [[one] for one in (*values, 0.5, "a.mrc")], strict=True))
    (tmp_path / "a.star").write_text(loop("", columns))
    table = io.read_particles(tmp_path / "a.star", tilts=(-60, 60), voxel_size=8.0)
    path = io.write_particles(table, tmp_path / "b.star", voxel_size=8.0)
    blocks = starfile.read(path, always_dict=True)
    assert blocks["optics"]["rlnImagePixelSize"].tolist() == [4.0]
    assert blocks["particles"][["rlnCoordinateX", "rlnOriginXAngst"]].to_numpy().tolist() == [[100.0, 2.0]]
    with pytest.warns(UserWarning, match=r"rlnImageName \(pixels of the boxes are 4 Å, those of coordinates 8,"):
        path = io.write_particles(table, tmp_path / "c.star", voxel_size=8.0, format="relion30")
    rows = starfile.read(path)
    assert "rlnImageName" not in rows
    assert rows[["rlnCoordinateX", "rlnOriginX"]].to_numpy().tolist() == [[99.75, 0.0]]
    table = io.read_particles(tmp_path / "a.star", tilts=(-60, 60), voxel_size=4.0)
    rows = starfile.read(io.write_particles(table, tmp_path / "d.star", voxel_size=4.0, format="relion30"))
    assert rows[["rlnCoordinateX", "rlnOriginX", "rlnImageName"]].to_numpy().tolist() == [[100.0, 0.5, "a.mrc"]]


def test_aberrations_stay_with_the_optics(tmp_path: Path) -> None:
    said = {"rlnBeamTiltX": 0.1, "rlnEvenZernike": "[0,0.5,1]", "rlnMagMat00": 1.01, "rlnCtfDataAreCtfCorrected": 1}
    optics = {"rlnOpticsGroup": [1], "rlnTomoTiltSeriesPixelSize": [PIXEL], **{name: [value] for name, value in said.items()}}
    rows = {"rlnTomoName": ["A"], "rlnOpticsGroup": [1], **{f"rlnCoordinate{axis}": [5.0] for axis in "XYZ"}}
    (tmp_path / "a.star").write_text(loop("optics", optics) + loop("particles", rows))
    found = written(read(tmp_path / "a.star"), tmp_path / "b.star", "relion31")[1]["optics"]
    assert found[list(said)].iloc[0].to_dict() == said


def test_later_points_of_a_path_do_not_stand_beside_coordinates_of_relion(tmp_path: Path) -> None:
    names = [f"wrp{name}{time}" for time in (1, 2, 13) for name in ("CoordinateX", "CoordinateY", "CoordinateZ", "AngleRot")]
    columns = {"wrpSourceName": ["A.tomostar"], "wrpRandomSubset": [2], **{name: [1.0 + n] for n, name in enumerate(names)}}
    (tmp_path / "a.star").write_text(loop("", columns))
    table = io.read_particles(tmp_path / "a.star", tilts=(-60, 60)).assign(half=1)
    rows, _, told = written(table, tmp_path / "b.star", "relion31")
    assert [name for name in rows if name.startswith("wrp")] == ["wrpRandomSubset"]
    assert "wrpCoordinateX2, wrpCoordinateY2" in told
    assert "wrpAngleRot13 (only M reads the later points of a path)" in told
    assert rows[["wrpRandomSubset", "rlnRandomSubset"]].to_numpy().tolist() == [[1, 1]]


@pytest.mark.parametrize(("suffix", "column"), [(".tbl", 26 + 1), (".em", "motl_14")])
def test_what_dynamo_and_av3_say_of_the_last_alignment_goes_with_the_pose(tmp_path: Path, suffix: str, column: Any) -> None:
    name = "dynamo_dshift" if suffix == ".tbl" else column
    table = particles.table([[80.0, 90, 100], [50, 60, 70]], tomogram="A", ids=[1, 2], **{name: [1.5, 2.5]})
    path = io.write_particles(table, tmp_path / f"a{suffix}", voxel_size=8.0)
    found = io.read_particles(path, voxel_size=8.0, tilts=(-60, 60))
    again = io.write_particles(found, tmp_path / f"b{suffix}", voxel_size=8.0)
    assert io.read_particles(again, voxel_size=8.0, tilts=(-60, 60))[name].tolist() == [1.5, 2.5]
    found.loc[1, "z"] += 4
    with pytest.warns(UserWarning, match=rf"{name} \(1 of 2 particles were turned or moved since the list was read\)"):
        again = io.write_particles(found, tmp_path / f"c{suffix}", voxel_size=8.0)
    assert name not in io.read_particles(again, voxel_size=8.0, tilts=(-60, 60))
    # A format that has no place for it says nothing of it.
    io.write_particles(found, tmp_path / "d.ndjson", voxel_size=8.0)


def test_every_column_of_the_table_is_known_once() -> None:
    names = [*outdated.POSES, *outdated.BOXES, *outdated.HALF_SETS]
    assert len(names) == len(set(names))
    assert not set(names) & set(CONSUMED)
    assert io_lists_relion.GENERAL == "general"
