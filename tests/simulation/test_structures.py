"""Atomic models: what is put into a file comes out, whole complexes, and clear refusals."""

import gzip
from pathlib import Path

import gemmi
import numpy as np
import pytest

from tomolab import io
from tomolab.simulation import Structure, structures

ATOMS = [
    ("A", "N", "N", (1.0, 2.0, 3.0)),
    ("A", "CA", "C", (4.0, 5.5, 6.0)),
    ("A", "H", "H", (4.0, 5.5, 7.0)),
    ("B", "CA", "C", (-7.0, 8.0, 9.25)),
]
"""Chain, atom, element and xyz."""
HEADER = "HEADER    LIGASE                                  01-JAN-90   1ABC"
BIOMT = [
    "REMARK 350 BIOMOLECULE: 1",
    "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A, B",
    "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000",
    "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000",
    "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000",
    "REMARK 350   BIOMT1   2  0.000000 -1.000000  0.000000       10.00000",
    "REMARK 350   BIOMT2   2  1.000000  0.000000  0.000000        0.00000",
    "REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000",
]


def lines(atoms=ATOMS, *, tail: str = "", altloc: str = " ", residue: str = "ALA", first: str = "    1") -> list[str]:
    rows = []
    for chain, name, element, (x, y, z) in atoms:
        place = f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00 20.00"
        rows.append(f"ATOM  {first}  {name:<3s}{altloc}{residue} {chain}   1    {place}{tail or element.rjust(12)}")
    return rows


def write(path: Path, *content: str) -> Path:
    text = "\n".join([HEADER, *content, "END", ""])
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_positions_are_zyx_without_hydrogens(tmp_path):
    structure = structures.read(write(tmp_path / "model.pdb", *lines()))
    np.testing.assert_allclose(structure.positions, [(3, 2, 1), (6, 5.5, 4), (9.25, 8, -7)])
    assert structure.positions.dtype == np.float32
    assert structure.elements.tolist() == [7, 6, 6]
    assert structure.mass == pytest.approx((14.007 + 2 * 12.011) / 1000, rel=1e-4)
    assert structure.name == "1abc"
    assert "model.pdb" in structure.source


def test_water_and_second_conformations_are_left_out(tmp_path):
    water = lines([("W", "O", "O", (0, 0, 0))], residue="HOH")
    double = [*lines(ATOMS[:1]), *lines(ATOMS[1:2], altloc="A"), *lines([("A", "CA", "C", (4.0, 5.0, 6.5))], altloc="B")]
    structure = structures.read(write(tmp_path / "model.pdb", *double, *water))
    np.testing.assert_allclose(structure.positions, [(3, 2, 1), (6, 5.5, 4)])


def test_formats_agree(tmp_path):
    plain = write(tmp_path / "model.pdb", *BIOMT, *lines())
    packed = write(tmp_path / "model.ent.gz", *BIOMT, *lines())
    parsed = gemmi.read_structure(str(plain))
    parsed.setup_entities()
    parsed.make_mmcif_document().write_file(str(tmp_path / "model.cif"))
    expected = structures.read(plain)
    for path in (packed, tmp_path / "model.cif"):
        structure = structures.read(path)
        order = np.lexsort(structure.positions.T), np.lexsort(expected.positions.T)
        np.testing.assert_allclose(structure.positions[order[0]], expected.positions[order[1]], atol=1e-3)


def test_assembly_applies_its_operators(tmp_path):
    path = write(tmp_path / "model.pdb", *BIOMT, *lines())
    whole, unit = structures.read(path), structures.read(path, assembly=None)
    assert (len(whole.elements), len(unit.elements)) == (6, 3)
    x, y, z = unit.positions[:, ::-1].T
    np.testing.assert_allclose(whole.positions[3:], np.stack([z, x, 10 - y], axis=1), atol=1e-5)
    assert whole.mass == pytest.approx(2 * unit.mass)


def test_assembly_of_mmcif_goes_by_its_own_chain_names(tmp_path):
    # In mmCIF an assembly names label chains; here label A is author chain B and the other way round.
    path = write(tmp_path / "model.pdb", *lines())
    parsed = gemmi.read_structure(str(path))
    parsed.setup_entities()
    for chain, label in zip(parsed[0], "BA", strict=True):
        for residue in chain:
            residue.subchain = label
    generator = gemmi.Assembly.Gen()
    generator.subchains = ["B"]
    generator.operators.append(gemmi.Assembly.Operator())
    parsed.assemblies.append(gemmi.Assembly("1"))
    parsed.assemblies[0].generators.append(generator)
    parsed.make_mmcif_document().write_file(str(tmp_path / "model.cif"))
    assert len(structures.read(tmp_path / "model.cif").elements) == 2


def test_unknown_assembly_names_those_there(tmp_path):
    path = write(tmp_path / "model.pdb", *BIOMT, *lines())
    with pytest.raises(ValueError, match="no assembly 3; it lists 1"):
        structures.read(path, assembly=3)
    without = write(tmp_path / "plain.pdb", *lines())
    assert len(structures.read(without).elements) == 3
    with pytest.raises(ValueError, match="no assembly 2; it lists none"):
        structures.read(without, assembly=2)


def test_models_are_taken_first_or_all(tmp_path):
    second = lines([("A", "N", "N", (50.0, 2.0, 3.0))])
    path = write(tmp_path / "model.pdb", "MODEL        1", *lines(), "ENDMDL", "MODEL        2", *second, "ENDMDL")
    assert len(structures.read(path).elements) == 3
    assert structures.read(path, models="all").positions[-1].tolist() == [3, 2, 50]
    with pytest.raises(ValueError, match="models must be"):
        structures.read(path, models="second")


def test_chains_are_selected_by_name(tmp_path):
    path = write(tmp_path / "model.pdb", *BIOMT, *lines())
    assert len(structures.read(path, chains=["B"]).elements) == 2
    with pytest.raises(ValueError, match="no chain X; its chains are A, B"):
        structures.read(path, chains=["A", "X"])


def test_old_format_ends_at_column_70(tmp_path):
    old = [f"{line[:70]}  1ABC{number:4d}" for number, line in enumerate(lines(tail=" " * 14), start=483)]
    structure = structures.read(write(tmp_path / "1abc.ent.gz", *old))
    assert structure.elements.tolist() == [7, 6, 6]


def test_hybrid_36_numbers(tmp_path):
    assert len(structures.read(write(tmp_path / "model.pdb", *lines(first="A000F"))).elements) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.txt", b"", "not a structure file: expected .pdb"),
        ("model.cif", b"this is no cif", "cannot be read as a structure"),
        ("model.cif", b"data_x\n_cell.length_a 1\n", "holds no atoms"),
        ("model.pdb", b"hello\n", "holds no atoms"),
        ("model.pdb", b"\xff\xfe\x00\x80", "not a readable structure file"),
        ("model.pdb.gz", gzip.compress(b"ATOM" * 1000, mtime=0)[:-12], "not a readable structure file"),
    ],
)
def test_what_is_no_structure_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        structures.read(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no structure file"):
        structures.read(tmp_path / "model.pdb")


def test_structure_checks_its_arrays():
    with pytest.raises(ValueError, match="got \\(0, 3\\)"):
        Structure("none", np.zeros((0, 3)), np.zeros(0))
    with pytest.raises(ValueError, match="must be finite"):
        Structure("nan", np.full((1, 3), np.nan), np.ones(1))


def test_diameter_of_a_shell():
    points = np.random.default_rng(0).normal(size=(5000, 3))
    points = 40 * points / np.linalg.norm(points, axis=1, keepdims=True) + 100
    shell = Structure("shell", points, np.full(5000, 6))
    np.testing.assert_allclose(shell.centre, 100, atol=2)
    assert shell.diameter == pytest.approx(80, abs=3)


def test_shipped_model():
    structure = structures.read(io.data_folder() / "structures" / "1of6.pdb.gz")
    assert structure.mass == pytest.approx(277, abs=1)
    assert len(structure.elements) == 20912


@pytest.mark.parametrize("name", ["kp8", "1kp8x", "../1kp8", "akp8", "pdb_1kp8", ""])
def test_fetch_refuses_what_is_no_id(tmp_path, name):
    with pytest.raises(ValueError, match="not a PDB id"):
        structures.fetch(name, folder=tmp_path)


def test_fetch_gives_a_readable_structure(tmp_path, server):
    parsed = gemmi.read_structure(str(write(tmp_path / "model.pdb", *lines())))
    parsed.setup_entities()
    text = parsed.make_mmcif_document().as_string()
    (server.folder / "1abc.cif.gz").write_bytes(gzip.compress(text.encode()))
    path = structures.fetch("1ABC", server=server.url, folder=tmp_path / "cache")
    assert path == tmp_path / "cache" / "1abc.cif.gz"
    assert len(structures.read(path).elements) == 3
    with pytest.raises(FileNotFoundError, match=r"9xyz\.cif\.gz"):
        structures.fetch("9xyz", server=server.url, folder=tmp_path / "cache")
