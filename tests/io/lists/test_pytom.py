"""PyTom's particle lists mean what PyTom means by them: that of its motive lists, one voxel nearer to the corner."""

from pathlib import Path

import emfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tomolab import io, particles

KNOWN = {"voxel_size": 10.0, "tilts": (-60, 60)}
PLACES = np.array([[10.0, 20.0, 30.0], [1.5, 2.0, 7.25]])
SHIFTS = np.array([[0.5, -1.0, 2.0], [0.0, 0.25, 0.0]])
ANGLES = np.array([[303.99, 272.86, 75.7], [12.0, -47.0, 110.0]])
"""Z1, Z2 and X."""


def one(place: np.ndarray, shift: np.ndarray, angles: np.ndarray, *, origin: str = "TS_01.em", binning: int = 1) -> str:
    """A particle as PyTom writes it."""
    x, y, z = place
    return (
        f'<Particle Filename="p/1.em"><Rotation Z1="{angles[0]}" Z2="{angles[1]}" X="{angles[2]}" Paradigm="ZXZ"/>'
        f'<Shift X="{shift[0]}" Y="{shift[1]}" Z="{shift[2]}"/>'
        f'<PickPosition X="{x}" Y="{y}" Z="{z}" Origin="{origin}" Binning="{binning}" RefMarkIndex="1"/>'
        '<Wedge Type="SingleTiltWedge"><SingleTiltWedge Angle1="30.0" Angle2="30.0" CutoffRadius="50.0" Smooth="0.0">'
        '<TiltAxisRotation Z1="0.0" Z2="0.0" X="0.0"/></SingleTiltWedge></Wedge><InfoGUI ProjectDir=""/>'
        '<Score Type="FLCFScore" Value="0.25" RemoveAutocorr="False"/><Class Name="3"/></Particle>'
    )


def put(folder: Path, *particles: str) -> Path:
    text = f"<!-- PyTom Version: 1.0 -->\n<ParticleList>\n{chr(10).join(particles)}\n</ParticleList>\n"
    (folder / "a.xml").write_text(text)
    return folder / "a.xml"


def test_a_particle_list_is_the_motive_list_that_pytom_makes_it_from(tmp_path: Path) -> None:
    """Row 8 to 10 less by 1, rows 11 to 13, and rows 17 to 19 as Z1, Z2 and X (`ParticleList.fromMOTL`)."""
    rows = np.zeros((2, 20), dtype=np.float32)
    rows[:, 3], rows[:, 4], rows[:, 7:10], rows[:, 10:13], rows[:, 16:19] = [1, 2], 1, PLACES + 1, SHIFTS, ANGLES
    emfile.write(str(tmp_path / "a.em"), rows[None])
    motive = io.read_particles(tmp_path / "a.em", tomogram="TS_01.em", **KNOWN)
    read = io.read_particles(put(tmp_path, *map(one, PLACES, SHIFTS, ANGLES)), **KNOWN)
    np.testing.assert_allclose(particles.positions(read), particles.positions(motive), atol=1e-5)
    np.testing.assert_allclose(particles.matrices(read), particles.matrices(motive), atol=1e-6)
    np.testing.assert_allclose(particles.positions(read), (PLACES + SHIFTS)[:, ::-1] * 10)
    assert read["tomogram"].tolist() == ["TS_01.em"] * 2
    assert read["score"].tolist() == [0.25] * 2
    assert read["class"].tolist() == [3, 3]
    assert read["pytom_filename"].tolist() == ["p/1.em"] * 2


def test_angles_are_those_that_pytom_gives_relion(tmp_path: Path) -> None:
    """The matrix about fixed axes, as angles about z, y and z, with the other sign (`pl2star`)."""
    read = io.read_particles(put(tmp_path, *map(one, PLACES, SHIFTS, ANGLES)), **KNOWN)
    theirs = -Rotation.from_euler("zxz", ANGLES[:, [0, 2, 1]], degrees=True).as_euler("zyz", degrees=True)
    expected = particles.matrices(particles.table(np.zeros((2, 3)), angles=theirs))
    np.testing.assert_allclose(particles.matrices(read), expected, atol=1e-9)


def test_what_is_missing_is_none(tmp_path: Path) -> None:
    path = put(tmp_path, '<Particle><PickPosition X="1" Y="2" Z="3"/></Particle>')
    read = io.read_particles(path, tomogram="TS_01", **KNOWN)
    assert particles.positions(read).tolist() == [[30, 20, 10]]
    np.testing.assert_array_equal(particles.matrices(read), [np.eye(3)])
    assert len(io.read_particles(put(tmp_path), **KNOWN)) == 0


GOOD = one(PLACES[0], SHIFTS[0], ANGLES[0])


@pytest.mark.parametrize(
    ("rows", "known", "message"),
    [
        ([GOOD.replace("ZXZ", "ZYZ")], {}, "must be of the paradigm ZXZ, got 'ZYZ' of particle 0"),
        ([GOOD.replace("TS_01.em", "")], {}, "1 of 1 particles do not name their tomogram; give tomogram="),
        ([GOOD], {"tomogram": "TS_02"}, "tomogram='TS_02' was given, but PickPosition names 'TS_01.em'"),
        ([GOOD, GOOD.replace('Binning="1"', 'Binning="2"')], {}, "positions are of several binnings .1, 2."),
        ([GOOD, "<Particle/>"], {}, "particle 1, counted from 0, has no PickPosition"),
        ([GOOD.replace('Y="20.0"', "")], {}, "not numbers, first place_Y of row 0: ''"),
        ([GOOD.replace('Z1="303.99"', 'Z1="far"')], {}, "not numbers, first phi of row 0: 'far'"),
        ([GOOD], {"voxel_size": None}, "a particle list of PyTom needs voxel_size="),
        ([GOOD, "<"], {}, "this is not XML"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, rows: list[str], known: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        io.read_particles(put(tmp_path, *rows), **{**KNOWN, **known})


def test_other_xml_is_refused(tmp_path: Path) -> None:
    for text, message in (
        ("<TiltSeries/>", "describes a 'TiltSeries'; expected a 'ParticleList'"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><ParticleList/>', "declares a document type"),
    ):
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(ValueError, match=message):
            io.read_particles(tmp_path / "a.xml", **KNOWN)
