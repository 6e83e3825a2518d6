"""`tomolab notebooks` copies what is shipped and overwrites no work; what is missing of an extra is named with the extra."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tomolab import __main__
from tomolab.io import paths

NAMES = sorted(path.name for path in paths.notebook_folder().glob("*.ipynb"))
ABSENT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {!r}.split():
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Absent())"""
"""A Python where some packages are not installed."""


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_notebooks_are_copied_into_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert __main__.main(["notebooks"]) == 0
    assert f"{len(NAMES)} notebooks are in notebooks" in capsys.readouterr().out
    assert sorted(held(tmp_path / "notebooks")) == NAMES
    for name, data in held(tmp_path / "notebooks").items():
        assert data == (paths.notebook_folder() / name).read_bytes()
        assert json.loads(data)["nbformat"] == 4


def test_copying_again_changes_nothing_and_adds_what_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert __main__.main(["notebooks", str(folder)]) == 0
    before, time = held(folder), (folder / NAMES[1]).stat().st_mtime_ns
    (folder / NAMES[0]).unlink()
    (folder / "mine.ipynb").write_text("{}")
    assert __main__.main(["notebooks", str(folder)]) == 0
    assert held(folder) == before | {"mine.ipynb": b"{}"}
    assert (folder / NAMES[1]).stat().st_mtime_ns == time


def test_changed_notebooks_stay_unless_they_may_be_replaced(tmp_path: Path, capsys) -> None:
    (tmp_path / NAMES[2]).write_text("my work")
    assert __main__.main(["notebooks", str(tmp_path)]) == 1
    assert NAMES[2] in capsys.readouterr().err
    assert held(tmp_path) == {NAMES[2]: b"my work"}
    assert __main__.main(["notebooks", str(tmp_path), "--force"]) == 0
    assert sorted(held(tmp_path)) == NAMES
    assert (tmp_path / NAMES[2]).read_bytes() != b"my work"


def test_a_file_in_the_way_is_told(tmp_path: Path, capsys) -> None:
    (tmp_path / "taken").write_text("")
    assert __main__.main(["notebooks", str(tmp_path / "taken")]) == 1
    assert "taken" in capsys.readouterr().err


def test_no_notebook_reads_beside_itself() -> None:
    """They are copied without the rest of the checkout."""
    for name in NAMES:
        assert "../" not in paths.text(paths.notebook_folder() / name)


@pytest.mark.parametrize(
    ("missing", "statement", "expected"),
    [
        ("matplotlib", "from tomolab.ui import plots", r"needs matplotlib, .*tomolab\[lab\]'.*tomolab\[napari\]'"),
        ("matplotlib", "import tomolab.ui.napari.viewer", r"needs matplotlib, .*tomolab\[lab\]'.*tomolab\[napari\]'"),
        (
            "ipywidgets",
            "from tomolab.ui.notebook import inspector",
            r"tomolab.ui.notebook.inspector needs ipywidgets, .*tomolab\[lab\]'",
        ),
        (
            "anywidget",
            "from tomolab.ui.notebook import gallery",
            r"tomolab.ui.notebook.gallery needs anywidget, .*tomolab\[lab\]'",
        ),
        ("qtpy", "from tomolab.ui.napari import dock", r"tomolab.ui.napari.dock needs qtpy, .*tomolab\[napari\]'"),
        ("napari", "from tomolab.ui.napari import viewer; viewer.model()", r"a viewer needs napari, .*tomolab\[napari\]'"),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(missing: str, statement: str, expected: str) -> None:
    script = f"{ABSENT.format(missing)}\n{statement}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.match(f"ModuleNotFoundError: .*{expected}", last), done.stderr


def test_a_name_that_is_not_there_is_told_as_ever() -> None:
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from tomolab.ui import nothing  # noqa: F401
