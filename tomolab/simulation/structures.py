"""Atomic models: PDB and mmCIF files in, the atoms of a whole complex out.

Positions leave this module in zyx order and Å; the xyz order of the files exists only inside.

>>> path = fetch("1kp8")                                  # GroEL, into the cache
>>> structure = read(path)                                # its first biological assembly
>>> small = read("4v5d.cif.gz", chains=["AA", "AB"])      # chosen chains only
"""

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gemmi
import numpy as np

from tomolab.io import download

LARGEST = 2**30
"""Bytes of a structure, unpacked, at most."""
SERVER = "https://files.rcsb.org/download"
ATOMIC_WEIGHTS = np.array([gemmi.Element(number).weight for number in range(119)])
_IDENTIFIER = re.compile(r"[0-9][a-z0-9]{3}|pdb_[0-9a-z]{8}")
PDB, MMCIF = (".pdb", ".ent", ".pdb1"), (".cif", ".mmcif")


@dataclass(frozen=True, eq=False)
class Structure:
    """The atoms of a complex, without hydrogens and water.

    Parameters
    ----------
    name
        Short name, such as the PDB id.
    positions
        Atom positions (n, 3), zyx, in Å; converted to float32.
    elements
        Atomic numbers (n,).
    source
        Where the atoms came from: file, assembly, models, chains.

    Raises
    ------
    ValueError
        If there is no atom, the arrays disagree in length, or a position is not finite.
    """

    name: str
    positions: np.ndarray
    elements: np.ndarray
    source: str = ""

    def __post_init__(self) -> None:
        positions = np.asarray(self.positions, dtype=np.float32)
        elements = np.asarray(self.elements, dtype=np.uint8)
        if positions.ndim != 2 or positions.shape[1:] != (3,) or elements.shape != positions.shape[:1] or not len(elements):
            raise ValueError(
                f"a structure needs n > 0 positions (n, 3) and elements (n,), got {positions.shape} and {elements.shape}"
            )
        if not np.isfinite(positions).all() or elements.max() > 118:
            raise ValueError(f"{self.name}: positions must be finite and elements atomic numbers up to 118")
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "elements", elements)

    @property
    def weights(self) -> np.ndarray:
        """Atomic weights (n,) in Da."""
        return ATOMIC_WEIGHTS[self.elements]

    @property
    def mass(self) -> float:
        """Mass of the atoms in kDa; without the hydrogens it is about 7 % below that of the molecule."""
        return float(self.weights.sum() / 1000)

    @property
    def centre(self) -> np.ndarray:
        """Centre of mass (3,), zyx, in Å."""
        return np.average(self.positions.astype(float), axis=0, weights=self.weights)

    @property
    def diameter(self) -> float:
        """Diameter in Å of the sphere about the centre of mass that holds 99.9 % of the mass."""
        distance = np.linalg.norm(self.positions - self.centre, axis=1)
        order = np.argsort(distance)
        mass = np.cumsum(self.weights[order]) / self.weights.sum()
        return float(2 * distance[order][np.searchsorted(mass, 0.999)])

    def __repr__(self) -> str:
        return f"Structure({self.name}, {len(self.elements)} atoms, {self.mass:.0f} kDa)"


def read(
    path: str | Path,
    *,
    assembly: int | str | None = 1,
    models: Literal["first", "all"] = "first",
    chains: Sequence[str] | None = None,
) -> Structure:
    """Read the atoms of a complex from a PDB or mmCIF file, plain or gzipped.

    Hydrogens and water are left out; of alternative conformations the first is taken; occupancies are not used, since
    a modelled atom belongs to the complex however often it was seen.

    Parameters
    ----------
    path
        File ending in .pdb, .ent, .pdb1, .cif or .mmcif, with or without .gz. Hybrid-36 numbering and the PDB format
        from before 1992 (entry id and line number in columns 73 to 80) are understood.
    assembly
        Biological assembly to build, by its number in the file; None takes the coordinates as they are. A file that
        lists no assembly holds the complex itself, so for it 1 means the same as None.
    models
        "first", or "all" to put all models of the file together, for files that keep each copy of a subunit as a model.
    chains
        Names of the chains to take, before the assembly is built; all by default.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a structure or holds no atoms, or the assembly or a chain is not in it.
    """
    if models not in ("first", "all"):
        raise ValueError(f"models must be 'first' or 'all', got {models!r}")
    path = Path(path)
    parsed = _parse(path)
    xyz, elements, names, subchains = _atoms(list(parsed) if models == "all" else [parsed[0]])
    keep = _chosen(names, chains, path)
    positions, numbers = [], []
    for generator in _generators(parsed, assembly, path):
        part = keep & (np.isin(subchains, generator.subchains) if generator.subchains else np.isin(names, generator.chains))
        for operator in generator.operators:
            matrix, shift = np.array(operator.transform.mat.tolist()), np.array(operator.transform.vec.tolist())
            positions.append(xyz[part] @ matrix.T + shift)
            numbers.append(elements[part])
    if not sum(map(len, positions)):
        raise ValueError(f"{path.name} holds no atoms for assembly {assembly} and chains {chains or 'all'}")
    source = f"{path.name}, assembly {assembly}, models {models}, chains {' '.join(chains or ['all'])}"
    entry = dict(parsed.info).get("_entry.id", "").lower()
    name = entry if _IDENTIFIER.fullmatch(entry) else path.name.split(".")[0]
    return Structure(name, np.concatenate(positions)[:, ::-1], np.concatenate(numbers), source)


def fetch(pdb_id: str, *, server: str = SERVER, folder: str | Path | None = None) -> Path:
    """Download an entry of the Protein Data Bank as mmCIF into a cache; a second call uses the cached file.

    The file's SHA-256 is written beside it and checked whenever the file is used again.

    Parameters
    ----------
    pdb_id
        Such as "1kp8" or "pdb_00001kp8", in either case.
    server
        Address that serves ``<id>.cif.gz``.
    folder
        Cache folder; by default ``structures`` in tomolab's cache.

    Raises
    ------
    ValueError
        If this is no PDB id, or the cached file is not what was downloaded.
    FileNotFoundError
        If the server has no such entry.
    ConnectionError
        If the server cannot be reached or fails.
    """
    name = str(pdb_id).strip().lower()
    if not _IDENTIFIER.fullmatch(name):
        raise ValueError(f"{pdb_id!r} is not a PDB id: expected four characters such as 1kp8, or pdb_ and eight characters")
    cache = Path(folder) if folder is not None else download.cache_folder() / "structures"
    return download.cached(f"{server.rstrip('/')}/{name}.cif.gz", cache / f"{name}.cif.gz")


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"no structure file {path}")
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"{path} has {size:,} bytes, expected at most {LARGEST:,}")
    raw = path.read_bytes()
    try:
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise ValueError(f"{path} holds more than {LARGEST:,} bytes, which no structure has")
        return raw.decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path.name} is not a readable structure file: {error}") from error


def _parse(path: Path) -> gemmi.Structure:
    """Structure with entities, without water, hydrogens and alternative conformations."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in (*PDB, *MMCIF):
        raise ValueError(f"{path.name} is not a structure file: expected {', '.join((*PDB, *MMCIF))}, with or without .gz")
    text = _text(path)
    try:
        if suffix in MMCIF:
            parsed = gemmi.make_structure_from_block(gemmi.cif.read_string(text).sole_block())
        else:
            parsed = gemmi.read_pdb_string(text, max_line_length=_last_column(text))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read as a structure: {error}") from error
    parsed.setup_entities()
    parsed.remove_alternative_conformations()
    parsed.remove_hydrogens()
    parsed.remove_waters()
    if not any(model.count_atom_sites() for model in parsed):
        raise ValueError(f"{path.name} holds no atoms")
    return parsed


def _last_column(text: str) -> int:
    """70 for the PDB format from before 1992, whose lines end in the entry id and their number; else 0 for no limit."""
    header = re.match(r"HEADER.{56}(\w{4})", text)
    if header is None:
        return 0
    first = next((line for line in text.splitlines() if line.startswith(("ATOM  ", "HETATM"))), "")
    return 70 if re.fullmatch(rf"{header[1]} *\d+", first[72:80].rstrip()) else 0


def _atoms(models: Sequence[gemmi.Model]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions xyz (n, 3), atomic numbers, chain names and subchain names (n,) of all atoms of known element."""
    rows = [
        (*atom.pos.tolist(), atom.element.atomic_number, chain.name, residue.subchain)
        for model in models
        for chain in model
        for residue in chain
        for atom in residue
        if atom.element.atomic_number
    ]
    x, y, z, numbers, names, subchains = zip(*rows, strict=True) if rows else ((),) * 6
    return np.array((x, y, z), dtype=float).T, np.array(numbers, dtype=np.uint8), np.array(names, str), np.array(subchains, str)


def _chosen(names: np.ndarray, chains: Sequence[str] | None, path: Path) -> np.ndarray:
    if chains is None:
        return np.ones(len(names), dtype=bool)
    missing = sorted(set(chains) - set(names))
    if missing:
        raise ValueError(f"{path.name} has no chain {', '.join(missing)}; its chains are {', '.join(sorted(set(names)))}")
    return np.isin(names, list(chains))


def _generators(parsed: gemmi.Structure, assembly: int | str | None, path: Path) -> list[gemmi.Assembly.Gen]:
    """Parts of an assembly: operators on xyz and the chains they act on."""
    if assembly is None or (not len(parsed.assemblies) and str(assembly) == "1"):
        whole = gemmi.Assembly.Gen()
        whole.chains = [chain.name for model in parsed for chain in model]
        whole.operators.append(gemmi.Assembly.Operator())
        return [whole]
    known = {entry.name: entry for entry in parsed.assemblies}
    if str(assembly) not in known:
        raise ValueError(f"{path.name} has no assembly {assembly}; it lists {', '.join(known) or 'none'}")
    return list(known[str(assembly)].generators)
