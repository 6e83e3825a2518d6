"""The menu of exports in napari offers what the browser does, asks where to, and tells what was done or why not."""

import os
from pathlib import Path

import pytest

pytest.importorskip("qtpy.QtWidgets")
from qtpy.QtWidgets import QFileDialog, QMessageBox

from tomolab import inspection
from tomolab.inspection import Inspection, exports
from tomolab.subtomograms import Subtomograms
from tomolab.ui.napari.export_menu import ExportMenu

pytestmark = [pytest.mark.display, pytest.mark.skipif(not os.environ.get("DISPLAY"), reason="needs an X display")]


@pytest.fixture
def told() -> list[tuple[str, bool]]:
    return []


@pytest.fixture
def menu(qtbot, folder: Path, told: list) -> ExportMenu:
    work = inspection.open(folder)
    work.split(0)
    menu = ExportMenu(work, chosen=lambda: [1], tell=lambda text, *, fault=True: told.append((text, fault)))
    qtbot.addWidget(menu)
    return menu


def choose(menu: ExportMenu, kind: str) -> None:
    next(action for action in menu.actions() if kind in action.text()).trigger()


def test_every_kind_is_offered(menu: ExportMenu, folder: Path, boxes: Subtomograms) -> None:
    titles = [action.text().removesuffix("…") for action in menu.actions()[1:]]
    assert titles[: len(exports.FORMATS)] == [kind.title for kind in exports.FORMATS]
    menu.aboutToShow.emit()
    assert menu.actions()[0].text() == "of cluster 1 (16)"
    assert all(action.isEnabled() for action in menu.actions()[1:])
    menu.inspection = Inspection(menu.inspection.session, diameter=250)
    menu.aboutToShow.emit()
    off = [action.text() for action in menu.actions()[1:] if not action.isEnabled() and not action.isSeparator()]
    assert off[:2] == ["RELION, a folder a class…", "Dynamo, a folder a class…"]
    assert "report.html" in off[2]


def test_what_is_chosen_is_written_and_told(
    menu: ExportMenu, qtbot, told: list, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {"save": str(tmp_path / "out"), "open": str(folder / "clusters.csv"), "folder": str(tmp_path / "project")}
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (answers["save"], ""))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (answers["open"], ""))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: answers["folder"])
    for number, (kind, text) in enumerate(
        (
            ("RELION 5", "16 particles are in out.star"),
            ("Dynamo (.tbl)", "16 particles are in out.tbl; tags are particle_id + 1"),
            ("copick", "16 particles are in project"),
            ("RELION, a folder", "16 particles are in 1 folder in out; see README.txt there"),
            ("Report", f"the report is {folder / 'report.html'}"),
        )
    ):
        choose(menu, kind)
        qtbot.waitUntil(lambda number=number: len(told) > number, timeout=10_000)
        assert told[-1] == (text, False)
    choose(menu, "Dynamo, a folder")
    qtbot.waitUntil(lambda: len(told) > 5, timeout=10_000)
    assert told[-1][1]
    assert "is there already; name another folder" in told[-1][0]
    choose(menu, "your own list")
    qtbot.waitUntil(lambda: len(told) > 6, timeout=10_000)
    assert told[-1][1]
    assert "copies are made of .star and .tbl, got .csv" in told[-1][0]
    # The dialog was asked for "out", so nobody was asked whether to replace out.star.
    choose(menu, "RELION 4")
    qtbot.waitUntil(lambda: len(told) > 7, timeout=10_000)
    assert told[-1] == ("out.star is there already; choose another name, or tick that it may be replaced", True)
    answers["save"] = str(tmp_path / "out.star")
    choose(menu, "RELION 4")
    qtbot.waitUntil(lambda: len(told) > 8, timeout=10_000)
    assert told[-1] == ("16 particles are in out.star; before: out.star.~1~", False)
    for answer, text in (("No", "particles.csv"), ("Yes", "16 particles are in project")):
        monkeypatch.setattr(QMessageBox, "question", lambda *_, answer=answer: QMessageBox.StandardButton[answer])
        count = len(told)
        choose(menu, "copick")
        qtbot.waitUntil(lambda count=count: len(told) > count, timeout=10_000)
        assert text in told[-1][0]
        assert told[-1][1] is (answer == "No")
    answers["save"] = ""
    choose(menu, "STOPGAP")
    qtbot.wait(50)
    assert len(told) == 11
