"""One specimen, projected once by Warp's formula, becomes the same tomogram, hand included, by the files of every program."""

from itertools import product
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from test_aretomo import written
from test_warp import xml

from tomolab import tomograms
from tomolab.tomograms import tilt_series

TILTS = np.arange(-52.0, 65, 4)
"""Degrees by IMOD's sign; Warp's angles are the negatives."""
SIZE, PIXEL = 64, 10.0
BEADS = np.array([[6.0, -10, 9], [-12, 8, -7], [3, 15, 11], [9, 4, -16]])
"""Places x, y, z in pixels from the middle, without symmetry."""
RNG = np.random.default_rng(5)
AXIS = RNG.uniform(80, 85, len(TILTS))
OFFSETS = RNG.uniform(-60, 60, (len(TILTS), 2))
"""Å in the image, as Warp has them."""
ORDER = RNG.permutation(len(TILTS))
DOSE = 3.0 * ORDER


def projected() -> np.ndarray:
    """Raw images (n, y, x) of bright beads, by `TiltSeries.GetPositionInAllTilts`.

    They are turned by the angle about y, then by the axis in the image, shifted, and counted from its middle at pixel n / 2.
    """
    row, column = np.indices((SIZE, SIZE))
    images = np.zeros((len(TILTS), SIZE, SIZE), dtype=np.float32)
    for image, angle, axis, offset in zip(images, np.radians(-TILTS), np.radians(AXIS), OFFSETS, strict=True):
        for x, y, z in BEADS:
            flat = np.array([x * np.cos(angle) - z * np.sin(angle), y])
            turn = np.array([[np.cos(axis), -np.sin(axis)], [np.sin(axis), np.cos(axis)]])
            at = turn @ flat + offset / PIXEL + SIZE / 2
            image += np.exp(-((column - at[0]) ** 2 + (row - at[1]) ** 2) / 3)
    return images


def imod() -> tuple[np.ndarray, np.ndarray]:
    """The same alignment as in an .xf: x' = A x + d, from (n - 1) / 2 in the raw image."""
    cos, sin = np.cos(np.radians(AXIS)), np.sin(np.radians(AXIS))
    matrices = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], axis=1)
    return matrices, -(matrices @ (OFFSETS / PIXEL + 0.5)[..., None])[..., 0]


def lists(rows: np.ndarray) -> dict[str, list]:
    """What Warp's .xml says of some images."""
    names = [f"../frames/TS_01_{turn:03d}.tif" for turn in ORDER[rows]]
    offsets = {"AxisOffsetX": OFFSETS[rows, 0], "AxisOffsetY": OFFSETS[rows, 1]}
    return {"Dose": DOSE[rows], "AxisAngle": AXIS[rows], **offsets, "MoviePath": names}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The stack, in order of tilt, and the files of every program; names with "exposed" have the order of exposure."""
    path = tmp_path_factory.mktemp("pair")
    with mrcfile.new(path / "a.st") as file:
        file.set_data(projected())
        file.voxel_size = PIXEL
    stack, exposed = np.arange(len(TILTS)), np.argsort(ORDER)
    (path / "a.tlt").write_text("".join(f"{tilt:.2f}\n" for tilt in TILTS))
    matrices, shifts = imod()
    lines = np.concatenate([matrices.reshape(-1, 4), shifts], axis=1)
    (path / "a.xf").write_text("".join(" ".join(f"{value:.7f}" for value in line) + "\n" for line in lines))
    raw = OFFSETS / PIXEL + 0.5
    rows = [(i, AXIS[i], *raw[i], TILTS[i]) for i in ORDER]
    (path / "a.aln").write_text(written(rows, title=f"# RawSize = {SIZE} {SIZE} {len(TILTS)}\n"))
    for name, order in (("a", stack), ("exposed", exposed)):
        sections = "".join(
            f"[ZValue = {i}]\nTiltAngle = {TILTS[row]}\nPriorRecordDose = {DOSE[row]}\nExposureDose = 3\n"
            f"SubFramePath = D:\\frames\\TS_01_{ORDER[row]:03d}.tif\n"
            for i, row in enumerate(order)
        )
        (path / f"{name}.mdoc").write_text(f"[T = Tilt axis angle = {AXIS.mean():.1f}, binning = 1]\n\n{sections}")
        (path / f"{name}.xml").write_text(xml(-TILTS[order], **lists(order)))
        star = [
            f"../frames/TS_01_{ORDER[row]:03d}.tif {-TILTS[row]} {AXIS[row]} {OFFSETS[row, 0]} {OFFSETS[row, 1]} {DOSE[row]}"
            for row in order
        ]
        head = ("MovieName", "AngleTilt", "AxisAngle", "AxisOffsetX", "AxisOffsetY", "Dose")
        (path / f"{name}.tomostar").write_text("\n".join(["data_", "", "loop_", *(f"_wrp{one}" for one in head), *star, ""]))
        star = [
            f"MotionCorr/TS_01_{ORDER[row]:03d}.mrc {TILTS[row]} {TILTS[row]} {AXIS[row]} {OFFSETS[row, 0]} {OFFSETS[row, 1]} "
            f"{DOSE[row]} 0 30000 31000"
            for row in order
        ]
        head = ("MicrographName", "TomoNominalStageTiltAngle", "TomoYTilt", "TomoZRot", "TomoXShiftAngst", "TomoYShiftAngst")
        head += ("MicrographPreExposure", "TomoXTilt", "DefocusU", "DefocusV")
        (path / f"{name}.star").write_text("\n".join(["data_TS_01", "", "loop_", *(f"_rln{one}" for one in head), *star, ""]))
    return path


METADATA = [f"{name}.{end}" for name, end in product(("a", "exposed"), ("mdoc", "xml", "tomostar", "star"))]
WAYS = [
    *({"tilts": "a.tlt", "transforms": "a.xf", "metadata": name} for name in METADATA),
    *({"transforms": "a.xf", "metadata": f"a.{end}"} for end in ("mdoc", "xml", "tomostar", "star")),
    *({"alignment": "a.aln", "metadata": name} for name in METADATA if name not in ("exposed.xml", "exposed.tomostar")),
    *({"alignment": "a.aln", "metadata": f"exposed.{end}", "metadata_order": "tilt"} for end in ("xml", "tomostar")),
    *({"alignment": f"a.{end}"} for end in ("xml", "tomostar", "star")),
    *({"alignment": f"a.{end}", "metadata": name} for end in ("xml", "tomostar") for name in ("exposed.mdoc", "exposed.star")),
    {"alignment": "a.star", "metadata": "exposed.xml"},
]


def paths(folder: Path, way: dict[str, str]) -> dict:
    return {name: value if name == "metadata_order" else folder / value for name, value in way.items()}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: " ".join(way.values()))
def test_every_pair_of_files_gives_the_same_series(folder: Path, way: dict[str, str]) -> None:
    series = tilt_series.read(folder / "a.st", **paths(folder, way))
    np.testing.assert_allclose(series.tilts, TILTS, atol=0.01)
    np.testing.assert_allclose(series.dose, DOSE)
    assert [name.rsplit(".", 1)[0] for name in series.table["image"]] == [f"TS_01_{turn:03d}" for turn in ORDER]
    matrices, shifts = imod()
    np.testing.assert_allclose(series.transforms[0], matrices, atol=1e-5)
    np.testing.assert_allclose(series.transforms[1], shifts, atol=2e-3)


@pytest.mark.parametrize(
    "way",
    [{"tilts": "a.tlt", "transforms": "a.xf"}, *({"alignment": f"a.{end}"} for end in ("aln", "xml", "tomostar", "star"))],
)
def test_beads_are_where_they_are_in_warp(folder: Path, way: dict[str, str]) -> None:
    series = tilt_series.read(folder / "a.st", **paths(folder, way))
    options = {"transforms": series.transforms, "voxel_size": PIXEL, "pixel_size": PIXEL, "shape": (48, SIZE, SIZE)}
    made = tomograms.reconstruct(series.images, series.tilts, invert=False, progress=False, **options)
    near = np.indices((5, 5, 5)).reshape(3, -1).T - 2
    for x, y, z in BEADS:
        whole = np.array([24 + z, 32 + y, 32 + x], dtype=int)
        values = np.array([made.data[tuple(whole + step)] for step in near]).clip(0)
        values[values < values.max() / 2] = 0
        # The missing wedge draws beads out along z, evenly on both sides.
        np.testing.assert_allclose(values @ near / values.sum(), 0, atol=0.3)
        assert values.max() > 0.5 * made.data.max()
        assert made.data[int(24 - z), int(32 + y), int(32 + x)] < 0.2 * made.data.max()


def test_tilts_that_warp_wrote_are_not_taken_for_those_of_imod(folder: Path, tmp_path) -> None:
    """A .tlt beside an .xml may have Warp's sign, if it comes from the .rawtlt that Warp writes."""
    (tmp_path / "w.tlt").write_text("".join(f"{-tilt}\n" for tilt in TILTS))
    given = {"tilts": tmp_path / "w.tlt", "transforms": folder / "a.xf", "metadata": folder / "a.xml"}
    with pytest.raises(ValueError, match=r"agree with the opposite sign only, row by row .* metadata_order="):
        tilt_series.read(folder / "a.st", **given)
    with pytest.warns(UserWarning, match="the mirror image of the one by the other file"):
        series = tilt_series.read(folder / "a.st", **given, metadata_order="stack")
    np.testing.assert_array_equal(series.tilts, -TILTS)
    series = tilt_series.read(folder / "a.st", **given, metadata_order="stack", invert_tilts=True)
    np.testing.assert_array_equal(series.tilts, TILTS)
    np.testing.assert_array_equal(series.dose, DOSE)


def test_an_unknown_offset_leaves_warps_order_open(folder: Path) -> None:
    """Tilts from -52 to 64 are those from -64 to 52, 12 degrees on, and AreTomo may have added these."""
    with pytest.raises(
        ValueError, match="agree with the same sign in another order, and with the opposite sign in another one"
    ):
        tilt_series.read(folder / "a.st", alignment=folder / "a.aln", metadata=folder / "exposed.xml")


def test_level_angles(folder: Path, tmp_path) -> None:
    text = (folder / "a.xml").read_text()
    (tmp_path / "a.xml").write_text(text.replace("<TiltSeries ", '<TiltSeries LevelAngleX="0" LevelAngleY="7.5" '))
    series = tilt_series.read(folder / "a.st", alignment=tmp_path / "a.xml", metadata=folder / "a.mdoc")
    np.testing.assert_allclose(series.tilts, TILTS - 7.5)
    with pytest.warns(
        UserWarning, match=r"lies at 8.* from y; images are shifted by up to 5.* Å; .*turned by 7.5° about .*LevelAngleY"
    ):
        tilt_series.read(folder / "a.st", metadata=tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text(text.replace("<TiltSeries ", '<TiltSeries LevelAngleX="-2" '))
    with pytest.raises(ValueError, match=r"about x, by up to 2° \(LevelAngleX of Warp, rlnTomoXTilt of RELION\)"):
        tilt_series.read(folder / "a.st", alignment=tmp_path / "a.xml")
    grid = '<GridMovementX Width="1" Height="1" Depth="2"><Node X="0" Y="0" Z="0" Value="0" />{}</GridMovementX></TiltSeries>'
    for node, told in (('<Node X="0" Y="0" Z="1" Value="0.5" />', True), ('<Node X="0" Y="0" Z="1" Value="0" />', False)):
        (tmp_path / "a.xml").write_text(text.replace("</TiltSeries>", grid.format(node)))
        if told:
            with pytest.warns(UserWarning, match="moves parts of the images or of the specimen, too"):
                tilt_series.read(folder / "a.st", alignment=tmp_path / "a.xml")
        else:
            tilt_series.read(folder / "a.st", alignment=tmp_path / "a.xml")
    (tmp_path / "a.xml").write_text(xml(-TILTS))
    with pytest.raises(ValueError, match="holds no alignment: the tilt axis is not known"):
        tilt_series.read(folder / "a.st", alignment=tmp_path / "a.xml")
