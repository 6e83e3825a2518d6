"""Lists in the form in which public programs write them: where particles lie, and what is asked where that cannot be told."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomolab import io, particles

PLACES = np.array([[1416.968, 1588.528, 303.312], [2200.4, 3000.8, 500.0], [300.0, 4000.0, 120.4]])
"""Particles, xyz in Å from the first voxel."""
POSE = (10.0, 20.0, 30.0)
EXTENT = np.array([4000.0, 6000.0, 1000.0])
SHORT = {
    "CENTRED": "rlnCenteredCoordinateXAngst rlnCenteredCoordinateYAngst rlnCenteredCoordinateZAngst",
    "ANGLES": "rlnAngleRot rlnAngleTilt rlnAnglePsi",
    "COORDINATES": "rlnCoordinateX rlnCoordinateY rlnCoordinateZ",
}
SHAPES = {"tomogram_shape": (100, 600, 400), "voxel_size": 10.0}


def table(name: str, head: str, rows: list[str], version: str = "") -> str:
    """Text of one block: names of columns, shortened as in `SHORT`, and rows."""
    for short, columns in SHORT.items():
        head = head.replace(short, columns)
    mark = f"\n# version {version}\n" if version else ""
    return (
        f"{mark}\ndata_{name}\n\nloop_\n"
        + "".join(f"_{one} #{i}\n" for i, one in enumerate(head.split(), 1))
        + "\n".join(rows)
        + "\n"
    )


def text(values: np.ndarray, digits: int = 3) -> list[str]:
    return [" ".join(f"{value:.{digits}f}" for value in row) for row in values]


def images(pattern: str) -> list[str]:
    return [pattern.format(i + 1) for i in range(len(PLACES))]


ANGLES = " ".join(map(str, POSE))
GENERAL = "\ndata_general\n\n_rlnTomoSubTomosAre2DStacks   1\n\n"
WARP_OPTICS = (
    "rlnOpticsGroup rlnOpticsGroupName rlnSphericalAberration rlnVoltage rlnTomoTiltSeriesPixelSize "
    "rlnCtfDataAreCtfPremultiplied rlnImageDimensionality rlnTomoSubtomogramBinning "
    "rlnImagePixelSize rlnImageSize rlnAmplitudeContrast"
)
STACK = "../particleseries/TS_A/TS_A_4.00A_{:06d}.mrcs"


def warp_2d(
    *, series: float = 0.7894, image: float = 4.0, names: str = STACK, version: str = "", digits: int = 3, **changed: str
) -> str:
    """What ts_export_particles --2d writes; with a version, as RELION writes it again."""
    optics = f"1 opticsGroup1 2.700 300.000 {series:.5f} 1 2 {image / series:.5f} {image:.5f} 64 0.070"
    rows = [
        f"{changed.get('tomogram', 'TS_A.tomostar')} {i + 1} {place} {ANGLES} TS_A/{i + 1} 1 {name} 0.0 0.0 0.0 [1,1,0]"
        for i, (place, name) in enumerate(zip(text(PLACES / image, digits), images(names), strict=True))
    ]
    head = "rlnTomoName rlnTomoParticleId COORDINATES ANGLES rlnTomoParticleName rlnOpticsGroup rlnImageName "
    head += "rlnOriginXAngst rlnOriginYAngst rlnOriginZAngst rlnTomoVisibleFrames"
    return GENERAL + table("optics", WARP_OPTICS, [optics], version) + table("particles", head, rows, version)


def warp_3d(*, detector: float = 4.0, reference: str = "4.00000", name: str = "TS_A.tomostar", extra: str = "") -> str:
    """What ts_export_particles --3d writes."""
    head = "COORDINATES ANGLES rlnMicrographName rlnMagnification rlnDetectorPixelSize rlnCtfMaxResolution rlnImageName "
    head += "rlnCtfImage rlnPixelSize rlnVoltage rlnSphericalAberration "
    head += "rlnMicrographPixelSize rlnTomoTiltSeriesPixelSize" if extra else ""
    cut = [images(f"../subtomo/TS_A/TS_A_{{:07d}}{middle}_4.00A.mrc") for middle in ("", "_ctf")]
    rows = [
        f"{place} {ANGLES} {name} 10000.0 {detector:.5f} 8.1 {image} {ctf} {reference} 300.000 2.700 {extra}"
        for place, image, ctf in zip(text(PLACES / 4), *cut, strict=True)
    ]
    return table("", head, rows)


def template_matching(*, tomogram: str = "TS_A.tomostar", score: str = "rlnAutopickFigureOfMerit") -> str:
    rows = [f"{place} {ANGLES} {tomogram} 7.{i}" for i, place in enumerate(text(PLACES / EXTENT, 7))]
    return table("", f"COORDINATES ANGLES rlnMicrographName {score}", rows)


def relion31(optics: str, values: str, image: str = "Extract/job005/tomo_1{:06d}.mrc", size: float = 2.5) -> str:
    """What RELION 3.1 writes after extraction."""
    rows = [f"{place} {name} {ANGLES} tomo_1.mrc 1" for place, name in zip(text(PLACES / size, 6), images(image), strict=True)]
    head = "COORDINATES rlnImageName ANGLES rlnMicrographName rlnOpticsGroup"
    return table(
        "optics", f"rlnOpticsGroup rlnVoltage rlnImageSize rlnImageDimensionality {optics}", [f"1 300.0 32 3 {values}"], "30001"
    ) + table("particles", head, rows, "30001")


def relion4(
    *, image: str = "PseudoSubtomo/job010/Subtomograms/TS_A/{}_data.mrc", dimensions: int = 3, name: str = "TS_A"
) -> str:
    rows = [
        f"{name} {i + 1} {place} {ANGLES} 1 {one}"
        for i, (place, one) in enumerate(zip(text(PLACES / 1.35, 6), images(image), strict=True))
    ]
    head = "rlnOpticsGroup rlnTomoTiltSeriesPixelSize rlnTomoSubtomogramBinning rlnImagePixelSize rlnImageDimensionality"
    return table("optics", head, [f"1 1.35 4.0 5.4 {dimensions}"], "30001") + table(
        "particles", "rlnTomoName rlnTomoParticleId COORDINATES ANGLES rlnOpticsGroup rlnImageName", rows, "30001"
    )


def relion5() -> str:
    rows = [
        f"TS_A {place} {ANGLES} 1 Extract/job010/Subtomograms/TS_A/{i}_stack2d.mrcs"
        for i, place in enumerate(text(PLACES - EXTENT / 2, 6))
    ]
    head = "rlnTomoName CENTRED ANGLES rlnOpticsGroup rlnImageName"
    optics = table(
        "optics",
        "rlnOpticsGroup rlnTomoTiltSeriesPixelSize rlnImagePixelSize rlnImageDimensionality",
        ["1 1.35 5.4 2"],
        "50001",
    )
    return GENERAL + optics + table("particles", head, rows, "50001")


def relion30(*, image: str = "", size: float = 5.0, name: str = "tomo_1.mrc") -> str:
    head = "rlnMicrographName COORDINATES ANGLES rlnMagnification rlnDetectorPixelSize " + ("rlnImageName" if image else "")
    rows = [
        f"{name} {place} {ANGLES} 28000 {size * 2.8:.6f} {one}"
        for place, one in zip(text(PLACES / 5, 6), images(image), strict=True)
    ]
    return table("", head, rows)


def m(time: str = "") -> str:
    head = " ".join(
        f"wrp{name}{time}" for name in ("CoordinateX", "CoordinateY", "CoordinateZ", "AngleRot", "AngleTilt", "AnglePsi")
    )
    return table("", f"{head} wrpRandomSubset wrpSourceName", [f"{place} {ANGLES} 1 TS_A.tomostar" for place in text(PLACES)])


RESCALED = ("rlnMicrographOriginalPixelSize rlnImagePixelSize", "2.5 10.0")
FORMS = {
    "Warp 2-D stacks, until July 2026": (warp_2d(), {}),
    "Warp 2-D stacks, since": (warp_2d(series=4.0), {}),
    "Warp 2-D stacks, beside a hundredth": (warp_2d(series=3.98), {}),
    "Warp 2-D stacks after Refine3D": (warp_2d(version="50001", digits=6), {}),
    "Warp 2-D stacks, images renamed": (warp_2d(names="stacks/{}.mrcs", version="50001"), {}),
    "Warp 2-D stacks, pixel size by the binning": (warp_2d().replace("rlnImagePixelSize", "rlnOther"), {}),
    "Warp 2-D stacks, pixel size of the images alone": (warp_2d().replace("TiltSeriesPixel", "Other"), {}),
    "Warp 2-D stacks, tomograms renamed": (warp_2d(tomogram="TS_A"), {}),
    "Warp 2-D stacks, voxel size given": (warp_2d(), {"voxel_size": 4.0}),
    "Warp 2-D stacks, lines of Windows": (warp_2d().replace("\n", "\r\n"), {}),
    "Warp 2-D stacks, columns of the list before": (
        warp_2d()
        .replace(
            "_rlnTomoVisibleFrames #15",
            "_rlnTomoVisibleFrames #15\n_tomolabTiltMin #16\n_rlnMagnification #17\n_rlnDetectorPixelSize #18",
        )
        .replace("[1,1,0]", "[1,1,0] -60.0 10000 10"),
        {},
    ),
    "Warp volumes": (warp_3d(), {}),
    "Warp volumes, sizes of the list before": (warp_3d(extra="10.0 1.35"), {}),
    "Warp volumes, old rlnPixelSize": (warp_3d(reference="10.0"), {}),
    "Warp volumes, tomograms renamed": (warp_3d(name="TS_A"), {}),
    "Warp volumes, converted by RELION": (relion31("rlnImagePixelSize", "4.0", "TS_A_{:07d}_4.00A.mrc", 4.0), {}),
    "Warp template matching": (template_matching(), SHAPES),
    "Warp template matching, unit stated": (template_matching(tomogram="TS_A"), {**SHAPES, "unit": "fraction"}),
    "Warp template matching, combined": (template_matching(tomogram="../TS_A.tomostar"), SHAPES),
    "M": (m(), {}),
    "M, particles that move": (m("1"), {"unit": "angstrom"}),
    "RELION 3.1": (relion31("rlnMicrographPixelSize rlnImagePixelSize", "2.5 2.5"), {}),
    "RELION 3.1, extracted again": (
        relion31("rlnMicrographPixelSize rlnMicrographOriginalPixelSize rlnImagePixelSize", "2.5 1.25 10"),
        {},
    ),
    "RELION 3.1, rescaled, voxel size given": (relion31(*RESCALED), {"voxel_size": 2.5}),
    "RELION 3.1, nothing rescaled": (relion31("rlnMicrographOriginalPixelSize rlnImagePixelSize", "2.5 2.5"), {}),
    "RELION 3.1, converted, no images": (relion31("rlnImagePixelSize", "2.5", "None"), {}),
    "RELION 4": (relion4(), {}),
    "RELION 4, names as Warp's": (relion4(name="TS_A.tomostar"), {}),
    "RELION 4, early 2-D stacks": (relion4(image="Extract/job010/Subtomograms/TS_A/{}_stack2d.mrcs", dimensions=2), {}),
    "RELION 5": (relion5(), SHAPES),
    "RELION 2, 3.0, no images": (relion30(), {}),
    "RELION 2, 3.0, rescaled": (relion30(image="Extract/job005/{:06d}.mrc", size=20.0), {"voxel_size": 5.0}),
    "coordinates in Å": (
        m().replace("wrpCoordinate", "rlnCoordinate").replace("wrpAngle", "rlnAngle").replace("wrpSource", "rlnMicrograph"),
        {"unit": "angstrom"},
    ),
    "coordinates in voxels, stated": (relion4(), {"unit": "voxel"}),
}
ASKED = {
    "Warp 2-D stacks without any name": (
        warp_2d(names="{}.mrcs", tomogram="TS_A"),
        4.0,
        [0.7894, 4.0],
        r"TiltSeriesPixelSize, 0\.7894 Å\) as in RELION.*\(4 Å\) as in Warp; give voxel_size=",
    ),
    "Warp stacks without dimensionality": (
        warp_2d(names="{}.mrcs").replace(GENERAL, "").replace("rlnImageDimensionality", "rlnOther"),
        4.0,
        [0.7894, 4.0],
        "give voxel_size=",
    ),
    "another size in the names": (
        warp_2d(names="TS_A_10.00A_{:06d}.mrcs"),
        4.0,
        [0.7894, 4.0],
        "is not clear .* give voxel_size=",
    ),
    "Warp stacks without their pixel size": (
        warp_2d().replace("rlnImagePixelSize", "rlnOther").replace("Binning", "Other"),
        4.0,
        [0.7894, 4.0],
        r"of the images \(of another size by their names\) as in Warp; give voxel_size=",
    ),
    "Warp stacks of a pixel size with nan": (
        warp_2d().replace("4.00000 64", "nan 64").replace("Binning", "Other"),
        4.0,
        [4.0],
        "is not clear .* give voxel_size=",
    ),
    "RELION 3.1, rescaled": (
        relion31(*RESCALED),
        2.5,
        [2.5, 5.0, 10.0],
        r"may have been rescaled.*10 Å.*OriginalPixelSize.* give voxel_size=",
    ),
    "RELION 3.1, images alone": (
        relion31("rlnImagePixelSize", "10.0"),
        2.5,
        [2.5, 10.0],
        "may have been rescaled.* give voxel_size=",
    ),
    "RELION 2, 3.0 with images": (
        relion30(image="Extract/job005/{:06d}.mrc"),
        5.0,
        [5.0, 2.5],
        "may have been rescaled.* give voxel_size=",
    ),
    "Warp volumes of another size than their names": (
        warp_3d(detector=8.0, reference="8.0"),
        4.0,
        [4.0, 8.0],
        "give voxel_size=",
    ),
}
REFUSED = {
    "Warp stacks": (warp_2d(), {"voxel_size": 10.0}, "is 0.7894 Å, and images have 4 Å, but voxel_size=10 was given"),
    "Warp stacks, since": (warp_2d(series=4.0), {"voxel_size": 0.7894}, "Warp named images is 4 Å, but voxel_size=0.7894 was"),
    "Warp volumes": (warp_3d(), {"voxel_size": 10.0}, "by which Warp named images is 4 Å, but voxel_size=10 was given"),
    "RELION 4": (relion4(), {"voxel_size": 5.4}, "rlnTomoTiltSeriesPixelSize is 1.35 Å, but voxel_size=5.4"),
    "neither of two": (warp_2d(names="{}.mrcs", tomogram="TS_A"), {"voxel_size": 10.0}, "0.7894 Å, .* but voxel_size=10"),
    "no shape": (
        template_matching(),
        {"voxel_size": 10.0},
        "fractions of the tomogram .* give voxel_size= and tomogram_shape=",
    ),
    "no size": (template_matching(), {"tomogram_shape": (100, 600, 400)}, "fractions of the tomogram .* give voxel_size="),
    "no marks": (template_matching(tomogram="TS_A"), SHAPES, 'give unit="voxel" or unit="fraction"'),
    "no score": (template_matching(score="rlnOther"), SHAPES, 'give unit="voxel" or unit="fraction"'),
    "not fractions": (
        relion4(),
        {**SHAPES, "unit": "fraction"},
        'unit="fraction" says 0 to 1, but coordinates reach from .* to',
    ),
    "centred": (
        relion5(),
        {**SHAPES, "unit": "angstrom"},
        "counts from the first voxel, but rlnCenteredCoordinateXAngst is Å from the middle",
    ),
    "M in voxels": (m(), {"unit": "voxel", "voxel_size": 4.0}, "wrpCoordinateX of M is in Å"),
    "nm": (relion4(), {"unit": "nm"}, "unknown unit 'nm'; there are angstrom, voxel, fraction"),
    "zero": (relion30(), {"voxel_size": 0.0}, "needs voxel_size="),
    "zero in the file": (relion30(size=0.0), {}, "must be positive"),
}


def put(folder: Path, content: str, name: str = "a.star") -> Path:
    (folder / name).write_bytes(content.encode())
    return folder / name


@pytest.mark.parametrize("form", FORMS)
def test_particles_lie_where_the_program_means_them(tmp_path, form: str) -> None:
    content, known = FORMS[form]
    read = io.read_particles(put(tmp_path, content), tilts=(-60, 60), **known)
    np.testing.assert_allclose(particles.positions(read)[:, ::-1], PLACES, atol=1e-3)
    passive = Rotation.from_euler("ZYZ", POSE, degrees=True).as_matrix()
    np.testing.assert_allclose(particles.matrices(read)[:, ::-1, ::-1], [passive.T] * 3, atol=1e-6)


@pytest.mark.parametrize("form", ASKED)
def test_what_cannot_be_told_is_asked(tmp_path, form: str) -> None:
    content, counted, answers, message = ASKED[form]
    path = put(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        io.read_particles(path, tilts=(-60, 60))
    for size in answers:
        read = io.read_particles(path, tilts=(-60, 60), voxel_size=size)
        np.testing.assert_allclose(particles.positions(read)[:, ::-1], PLACES * size / counted, rtol=1e-6)


@pytest.mark.parametrize("form", REFUSED)
def test_what_contradicts_the_list_is_refused(tmp_path, form: str) -> None:
    content, known, message = REFUSED[form]
    with pytest.raises(ValueError, match=message):
        io.read_particles(put(tmp_path, content), tilts=(-60, 60), **known)


@pytest.mark.parametrize("names", [STACK, "{}.mrcs"])
def test_the_word_of_the_user_decides_between_two_sizes_that_the_list_states(tmp_path, names: str) -> None:
    path = put(tmp_path, warp_2d(names=names))
    with pytest.warns(UserWarning, match="looks as if Warp wrote it, .* of 4 Å; voxel_size=0.7894 is taken, as it was given"):
        read = io.read_particles(path, tilts=(-60, 60), voxel_size=0.7894)
    np.testing.assert_allclose(particles.positions(read)[:, ::-1], PLACES * 0.7894 / 4, rtol=1e-6)


@pytest.mark.parametrize("version", ["relion31", "relion4", "relion30", "warp"])
@pytest.mark.parametrize("form", ["Warp 2-D stacks, until July 2026", "Warp volumes", "RELION 4"])
def test_what_we_write_of_such_lists_means_the_same(tmp_path, form: str, version: str) -> None:
    """Names and sizes of images stay in the list, though coordinates count other pixels."""
    read = io.read_particles(put(tmp_path, FORMS[form][0]), tilts=(-60, 60))
    size = 1.35 if form == "RELION 4" and version == "relion4" else 8.0
    with warnings.catch_warnings():
        # What cannot stand in such a list is left out with a word.
        warnings.filterwarnings("ignore", "columns that no longer hold are left out: .*rlnImageName")
        path = io.write_particles(read, tmp_path / "b.star", voxel_size=size, format=version)
    again = io.read_particles(path, **({"voxel_size": size} if form == "Warp volumes" else {}))
    np.testing.assert_allclose(particles.positions(again), particles.positions(read), atol=1e-3)
