"""The methods paragraph says what the folder records, with its numbers, and nothing else."""

from pathlib import Path

import pytest
from test_exports import average_of

from tomolab import inspection
from tomolab.inspection import run_contents
from tomolab.io.run_folder import Run
from tomolab.ui import methods


def test_it_says_what_was_done_with_numbers_and_references(folder: Path) -> None:
    work = inspection.open(folder)
    work.split(0)
    work.session.describe(1, name="ribosomes")
    members = work.session.members(1).ids
    work.add_average(
        "ribosomes", average_of(work.session.table([1]), turn=0.0, symmetry="C2", mask=200.0), cluster=1, members=members
    )
    work.add_average("a look", average_of(work.session.table([0]), turn=0.0), quick=True)
    Run(folder).record("import", parameters={"diameter": 250.0, "picked": True, "network": "default"}, seed=7)
    found = methods.text(run_contents.read(folder, verify=False))
    for words in (
        "32 particles of about 250 Å were picked in 1 tomogram (tilts from -60° to 60°).",
        "Subtomograms of 20³ voxels of 20 Å were extracted around all of them.",
        "A convolutional network 'default' gave 8 features for each subtomogram, following Xu et al. (2017)",
        "32 of 32 particles, after inspection (1 split), are in 2 clusters, among them ribosomes (16).",
        "ribosomes: 16 particles, symmetry C2, in a mask of 200 Å, without a reference;",
        "(seed 7).",
        "Rosenthal P.B., Henderson R. (2003).",
    ):
        assert words in found
    assert "a look" not in found
    assert "RELION" not in found


def test_what_the_folder_does_not_know_is_left_out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "layout.csv").unlink()
    found = methods.text(run_contents.read(folder, verify=False))
    assert "were taken from a list" in found
    assert "UMAP" not in found
    assert "halves" not in found
    assert "of about" not in found
    assert methods.text(run_contents.read(tmp_path_factory.mktemp("empty"))) == ""
