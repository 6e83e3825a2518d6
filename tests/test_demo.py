"""The report of `make demo`, on small notebooks."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "demo.py"
FIGURE = "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()"
LEAVE = "import os, pathlib\npathlib.Path(os.environ['TOMOLAB_RUNS']).mkdir(parents=True)"
FIND = "import os, pathlib\nassert pathlib.Path(os.environ['TOMOLAB_RUNS']).is_dir()"


@pytest.fixture
def demo(tmp_path):
    """Run the demo on notebooks given as name=source; returns exit code, words and the folder of the report."""

    def run(**sources: str) -> tuple[int, str, Path]:
        for name, source in sources.items():
            cells = [nbformat.v4.new_markdown_cell(f"# About {name}"), nbformat.v4.new_code_cell(source)]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name.removeprefix('n')}.ipynb")
        command = [sys.executable, SCRIPT, "--notebooks", tmp_path, "--report", tmp_path / "report", "--timeout", "60"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr, tmp_path / "report"

    return run


@pytest.mark.notebook
def test_report_shows_every_notebook_in_order(demo, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)
    code, text, report = demo(n01_second=FIND, n00_first=f"{LEAVE}\n{FIGURE}")
    assert code == 0, text
    index = (report / "index.html").read_text()
    assert index.index("About n00_first") < index.index("About n01_second")
    assert (report / "00_first.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64" in (report / "00_first.html").read_text()
    assert not (report / "01_second.png").exists()


@pytest.mark.notebook
def test_failure_ends_the_sequence_and_is_reported(demo):
    code, text, report = demo(n00_first="raise ValueError('no <density> here')", n01_second="1")
    assert code == 1
    assert "ValueError: no <density> here" in text
    index = (report / "index.html").read_text()
    assert "no &lt;density&gt; here" in index
    assert "not reached: 01_second" in index
    assert (report / "00_first.html").exists()
    assert not (report / "01_second.html").exists()


def test_folder_without_notebooks_is_an_error(demo):
    code, text, _ = demo()
    assert code == 1
    assert "no notebooks named NN_name.ipynb" in text
