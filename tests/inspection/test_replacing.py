"""An export never takes the place of what a run folder is made of; what else it replaces is asked for and stays beside."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tomolab import inspection, io
from tomolab.inspection import Inspection, exports, run_contents
from tomolab.inspection.exports import FORMATS, ExportFormat
from tomolab.io import run_folder
from tomolab.io.run_folder import Run


def wanted(title: str) -> ExportFormat:
    return next(one for one in FORMATS if title in one.title)


CSV, STAR, COPY, DYNAMO = (wanted(title) for title in ("all columns", "RELION 5", "your own list", "Dynamo (.tbl)"))
COPICK, FOLDERS = wanted("copick"), wanted("RELION, a folder")


@pytest.fixture
def work(folder: Path) -> Inspection:
    work = inspection.open(folder, diameter=250)
    work.split(0)
    (folder / "truth.csv").write_text("label\n1\n")
    (folder / "deep").mkdir()
    (folder / "deep/poses.csv").write_text("x\n1\n")
    (folder / "links").symlink_to(folder)
    Run(folder).record("one", files=["truth.csv", "deep/poses.csv"])
    return work


def held(folder: Path) -> dict[str, bytes]:
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((CSV, name) for name in ("clusters", "layout", "clusters.csv", "truth", "deep/poses", "CLUSTERS", "links/clusters")),
        *(
            (CSV, name)
            for name in ("deep/../clusters", "averages/x", "masks/deep/x", "tomogram", "session-1.npz.csv/../layout")
        ),
        *((STAR, name) for name in ("picks", "picks.star", "embedding/a", "selections/a")),
        *((COPICK, name) for name in ("averages", "tomograms", "masks", "embedding")),
        *((FOLDERS, name) for name in ("averages", "tomograms", "masks/x", "selections", "average")),
    ],
)
def test_a_part_of_a_run_folder_is_never_replaced(form: ExportFormat, name: str, work: Inspection, folder: Path) -> None:
    before = held(folder)
    for replace in (False, True):
        with pytest.raises(FileExistsError, match=r"is a part of the run folder .* choose another name"):
            exports.export_as(work, form, folder / name, replace=replace)
    if form not in (FOLDERS, COPICK):
        with pytest.raises(FileExistsError, match="is a part of the run folder"):
            inspection.export(work, exports.place(form, folder / name))
    assert held(folder) == before
    assert inspection.open(folder, diameter=250).session.labels.equals(work.session.labels)


def test_nor_that_of_another_run_folder_or_the_users_own_list(work: Inspection, folder: Path, tmp_path_factory) -> None:
    other = tmp_path_factory.mktemp("other")
    shutil.copy(folder / "clusters.csv", other)
    for name in ("clusters", "layout"):
        with pytest.raises(FileExistsError, match="is a part of the run folder"):
            exports.export_as(work, CSV, other / name, replace=True)
    away = tmp_path_factory.mktemp("away")
    own = io.write_particles(work.session.particles, away / "ours.star", voxel_size=20.0)
    (away / "link.star").symlink_to(own)
    for name in ("ours.star", "link.star"):
        with pytest.raises(FileExistsError, match="is your own list"):
            exports.export_as(work, COPY, away / name, source=str(own), replace=True)
    # Elsewhere such names are as good as any, and nothing but a manifest of ours makes a run folder.
    (away / "manifest.json").write_text('{"name": "a page"}')
    assert "32 particles are in clusters.csv" in exports.export_as(work, CSV, away / "clusters")


def test_what_is_replaced_is_asked_for_and_stays(work: Inspection, folder: Path) -> None:
    (folder / "mine.csv").write_text("dear")
    with pytest.raises(FileExistsError, match=r"mine\.csv is there already; choose another name, or tick"):
        exports.export_as(work, CSV, folder / "mine")
    told = exports.export_as(work, CSV, folder / "mine", chosen=[0], replace=True)
    assert told == f"{work.session.counts()[0]} particles are in mine.csv; before: mine.csv.~1~"
    again = (folder / "mine.csv").read_bytes()
    # The same once more leaves nothing; another list leaves the one before.
    assert "before" not in exports.export_as(work, CSV, folder / "mine", chosen=[0], replace=True)
    inspection.export(work, folder / "mine.csv", [1])
    assert (folder / "mine.csv.~1~").read_text() == "dear"
    assert (folder / "mine.csv.~2~").read_bytes() == again
    assert not (folder / "mine.csv.~3~").exists()
    assert run_contents.read(folder).faults == []


def test_so_are_files_that_are_written_beside(work: Inspection, folder: Path) -> None:
    (folder / "list.doc").write_text("dear")
    with pytest.raises(FileExistsError, match=r"list\.doc is there already"):
        exports.export_as(work, DYNAMO, folder / "list")
    assert not (folder / "list.tbl").exists()
    assert exports.export_as(work, DYNAMO, folder / "list", replace=True).endswith("; before: list.doc.~1~")
    assert (folder / "list.doc.~1~").read_text() == "dear"
    project = folder / "project"
    project.mkdir()
    (project / "particles.csv").write_text("dear")
    assert exports.there_already(COPICK, project) == [project / "particles.csv"]
    with pytest.raises(FileExistsError, match=r"particles\.csv is there already"):
        exports.export_as(work, COPICK, project)
    exports.export_as(work, COPICK, project, chosen=[0], replace=True)
    assert len(exports.there_already(COPICK, project)) == 2
    exports.export_as(work, COPICK, project, chosen=[0, 1], replace=True)
    assert (project / "particles.csv.~1~").read_text() == "dear"
    assert len(pd.read_csv(project / "particles.csv.~2~")) == work.session.counts()[0]


def test_an_export_that_fails_leaves_all_as_it_was(folder: Path) -> None:
    (folder / "a.txt").write_text("dear")
    before = held(folder)
    with pytest.raises(OSError, match="full"), run_folder.replacing(folder / "a.txt", folder=folder, replace=True):
        raise OSError("full")
    assert held(folder) == before
    with run_folder.replacing(folder / "a.txt", folder=folder, replace=True):
        (folder / "a.txt").unlink()
    assert (folder / "a.txt.~1~").read_text() == "dear"
