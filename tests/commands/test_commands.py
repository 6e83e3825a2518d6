"""Every command does its work on small data, says what it did, and refuses what it cannot do with one line."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tomolab import __main__, averaging, inspection, io, learning, picking, simulation, subtomograms, volumes
from tomolab.commands import COMMANDS
from tomolab.simulation import Imaging, densities

KNOWN = ["--contrast", "dark", "--tilts", "-60", "60"]
NAMES = [one.name for one in COMMANDS]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dark tomogram and the list of its particles."""
    place = tmp_path_factory.mktemp("data")
    maps = densities.load(["ribosome_70s", "spliceosome"], voxel_size=20.0, box=20)
    tomogram, truth = simulation.tomogram(maps, 24, shape=(40, 100, 100), imaging=Imaging(snr=0.5), seed=1)
    io.write_volume(volumes.invert(tomogram), place / "TS_1.mrc")
    io.write_particles(truth.assign(tomogram="TS_1"), place / "TS_1.star", voxel_size=20.0)
    io.write_particles(truth.assign(tomogram="TS_1"), place / "truth.csv")
    return place


@pytest.fixture(scope="module")
def folder(data: Path) -> Path:
    """A run folder that `tomolab import` made."""
    words = [*KNOWN, "--diameter", "250", "--particles", str(data / "TS_1.star"), "-o", str(data / "run")]
    assert __main__.main(["import", str(data / "TS_1.mrc"), *words, "--quiet"]) == 0
    return data / "run"


def result(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """What a command prints with --json."""
    capsys.readouterr()
    assert __main__.main([*map(str, words), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["exit_code"] == 0
    return shown


def test_import_makes_a_run_folder_and_continues_it(data: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = inspection.open(folder)
    words = [*KNOWN, "--diameter", 250, "--particles", data / "TS_1.star", "-o", folder]
    shown = result(capsys, "import", data / "TS_1.mrc", *words)
    assert shown["particles"] == len(work.session.ids) > 20
    assert (shown["tomograms"], shown["clusters"]) == (1, len(work.session.clusters))
    assert __main__.main(["import", *map(str, [data / "TS_1.mrc", *words]), "--seed", "3"]) == 1
    assert "run has an import with other seed: open that folder as it is" in capsys.readouterr().err


def test_import_writes_a_list_of_tomograms(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = result(capsys, "import", data, "--template", tmp_path / "tomograms.csv")
    assert shown["tomograms"] == 1
    assert subtomograms.read_tomogram_list(tmp_path / "tomograms.csv")["voxel_size"].tolist() == [20.0]
    assert __main__.main(["import", str(data), "--template", str(tmp_path / "tomograms.csv")]) == 1
    assert "is there already" in capsys.readouterr().err


def test_pick_extract_and_embed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = result(capsys, "pick", data / "TS_1.mrc", *KNOWN, "--diameter", 250, "-o", tmp_path / "picks.star")
    picks, truth = io.read_particles(tmp_path / "picks.star"), io.read_particles(data / "truth.csv")
    assert shown["picks"] == len(picks) == shown["by_tomogram"]["TS_1"]
    assert picking.evaluate(picks, truth, distance=100.0)["recall"] > 0.6
    words = ["--particles", tmp_path / "picks.star", "--box", 20, "--box-voxel-size", 20, "-o", tmp_path / "boxes.zarr"]
    shown = result(capsys, "extract", data / "TS_1.mrc", *KNOWN, *words)
    boxes = subtomograms.open(tmp_path / "boxes.zarr")
    assert shown["boxes"] + shown["skipped"] == len(picks)
    assert boxes.take(boxes.ids[:20]).volumes[:, 9:12, 9:12, 9:12].mean() > 0.5
    words = ["--csv", tmp_path / "z.csv", "-o", tmp_path / "embedding", "--device", "cpu"]
    shown = result(capsys, "embed", tmp_path / "boxes.zarr", *words)
    assert shown["particles"] == len(boxes)
    found = learning.read_features(tmp_path / "z.csv")
    assert np.allclose(found.vectors, learning.embed(learning.load_network("default"), boxes, progress=False).vectors)
    for words in (
        ["pick", data / "TS_1.mrc", *KNOWN, "--diameter", 250, "-o", tmp_path / "picks.star"],
        ["embed", tmp_path / "boxes.zarr", "-o", tmp_path / "embedding"],
    ):
        assert __main__.main([*map(str, words)]) == 1
        assert "replace it with --force" in capsys.readouterr().err


def test_convert_keeps_what_the_list_says(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["convert", str(data / "TS_1.star"), str(tmp_path / "a.tbl"), "--output-voxel-size", "10"]) == 1
    assert "number them anew, with --renumber" in capsys.readouterr().err
    shown = result(capsys, "convert", data / "TS_1.star", tmp_path / "a.tbl", "--output-voxel-size", 10, "--renumber")
    table, read = io.read_particles(data / "truth.csv"), io.read_particles(tmp_path / "a.tbl")
    assert shown["particles"] == len(table) == len(read)
    assert read["particle_id"].tolist() == [*range(1, len(table) + 1)]
    assert np.allclose(read[["z", "y", "x"]], table[["z", "y", "x"]], atol=0.01)
    assert __main__.main(["convert", str(tmp_path / "a.tbl"), str(tmp_path / "b.star")]) == 1
    assert "needs --voxel-size, the Å per voxel" in capsys.readouterr().err
    words = ["--output-voxel-size", 10, "--format", "relion5", "--tomogram-shape", 80, 200, 200, "--voxel-size", 10]
    result(capsys, "convert", tmp_path / "a.tbl", tmp_path / "b.star", *words)
    again = io.read_particles(tmp_path / "b.star", voxel_size=10.0, tomogram_shape=(80, 200, 200))
    assert np.allclose(again[["z", "y", "x"]], table[["z", "y", "x"]], atol=0.01)


def test_discover_average_and_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = inspection.open(folder)
    number = next(iter(before.session.clusters))
    shown = result(capsys, "average", folder, "--clusters", number, "--quick", "-o", tmp_path)
    (about,) = shown["averages"]
    saved = inspection.open(folder).averages[about["average"]]
    assert about["particles"] == len(saved.particles) <= before.session.counts()[number]
    assert np.allclose(io.read_volume(about["map"]).data, saved.volume.data)
    assert __main__.main(["average", str(folder), "--clusters", "99"]) == 1
    assert f"there is no cluster 99 in {folder}; its clusters and their particles: {number} (" in capsys.readouterr().err
    shown = result(capsys, "discover", folder, "--iterations", 2)
    after = inspection.open(folder)
    assert [one["cluster"] for one in shown["structures"]] == list(after.session.clusters)
    assert sum(one["particles"] for one in shown["structures"]) == after.session.counts().sum()
    shown = result(capsys, "report", folder)
    assert shown["report"] == str(folder / "report.html")
    assert "discover" in (folder / "report.html").read_text()


def test_all_particles_are_averaged_whatever_is_selected(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = result(capsys, "average", folder, "--all")
    work = inspection.open(folder)
    assert isinstance(work.averages["all particles"], averaging.Average)
    assert shown["averages"][0]["particles"] == len(work.session.ids)


def test_maps_that_are_there_are_refused_before_anything_is_averaged(folder: Path, tmp_path: Path, capsys) -> None:
    before = inspection.open(folder)
    name = before.average_name(inspection.Selection("all particles", before.session.ids, "all"), quick=True)
    path = tmp_path / f"{io.file_name(name)}.mrc"
    path.write_text("of another program")
    words = ["average", folder, "--all", "--quick", "--symmetry", "C1", "-o", tmp_path]
    assert __main__.main([*map(str, words)]) == 1
    assert f"{path} is there already" in capsys.readouterr().err
    assert inspection.open(folder).averages.keys() == before.averages.keys()
    (about,) = result(capsys, *words, "--force")["averages"]
    assert (about["map"], about["average"]) == (str(path), name)
    assert np.allclose(io.read_volume(path).data, inspection.open(folder).averages[name].volume.data)


@pytest.mark.display
def test_napari_shows_a_run_folder(folder: Path, tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tomolab", "napari", str(folder), "--screenshot", str(tmp_path / "a.png")]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_napari_without_a_display_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert __main__.main(["napari", str(folder)]) == 1
    assert "napari cannot open a window: neither DISPLAY" in capsys.readouterr().err


def test_tour_runs_jupyterlab_on_copied_notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jupyter_server_config.json").write_text('{"ServerApp": {"allow_root": true}}')
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    script = [sys.executable, "-m", "tomolab", "tour", str(tmp_path / "mine"), "--no-browser", "--port", "0"]
    process = subprocess.Popen(script, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path)
    try:
        assert process.stderr is not None
        lines = []
        while not re.search(r"http://\S+", "".join(lines)) and (line := process.stderr.readline()):
            lines.append(line)
        assert re.search(r"http://\S+/lab/tree/00_tour\.ipynb", "".join(lines)), lines
        assert (tmp_path / "mine" / "08_your_own_data.ipynb").is_file()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_doctor_tells_programs_and_people_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    code = __main__.main(["doctor", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert code == shown["exit_code"] == int(any(one["severity"] == "broken" for one in shown["findings"]))
    assert shown["facts"]["cores"] >= 1


@pytest.mark.parametrize("name", NAMES)
def test_help_has_an_example_that_can_be_parsed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        __main__.main([name, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "exit codes: 0 done, 1 failed" in text
    examples = re.findall(rf"^  tomolab ({name}.*)$", text, re.MULTILINE)
    assert examples
    for one in examples:
        assert __main__._parser().parse_args(one.split()).command == name


WRONG = [
    [],
    ["nothing"],
    ["import"],
    ["import", "a.mrc", "--contrast", "grey"],
    ["import", "a.mrc", "--diameter", "0", "-o", "run"],
    ["import", "a.mrc", "--tilts", "-60"],
    ["import", "a.mrc"],
    ["import", "A=a.mrc", "b.mrc", "--diameter", "9", "-o", "run"],
    ["pick", "a.mrc", "--diameter", "1", "2", "3", "-o", "a.star"],
    ["extract", "a.mrc", "-o", "a.zarr"],
    ["embed"],
    ["average", "run"],
    ["average", "run", "--all", "--clusters", "1"],
    ["convert", "a.star"],
    ["discover", "run", "--cluster", "x"],
    ["report"],
]


@pytest.mark.parametrize("words", WRONG, ids=" ".join)
def test_wrong_use_is_2(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = __main__.main(words)
    except SystemExit as left:
        code = left.code
    assert code == 2
    assert not list(tmp_path.iterdir())


def test_a_failure_is_one_line_that_names_the_option(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ["import", str(data / "TS_1.mrc"), "--diameter", "250", "-o", str(tmp_path / "run")]
    coordinates = io.read_particles(data / "truth.csv")[["x", "y", "z"]] / 5.0
    coordinates.to_csv(tmp_path / "a.coords", sep=" ", header=False, index=False)
    table = pd.DataFrame({"x": [1.0] * 9, "y": 2.0, "z": 3.0})
    table.to_csv(tmp_path / "a.csv", index=False)
    for words, message in (
        (["--tilts", "-60", "60"], r"bright or dark in TS_1\? .* give --contrast dark, .* or --contrast bright"),
        (["--contrast", "dark"], r"Give --tilts lowest highest in degrees"),
        ([*KNOWN[2:], "--contrast", "bright"], r"state --contrast dark\. .*state --no-check-contrast"),
        (
            [*KNOWN, "--particles", str(tmp_path / "a.coords")],
            r"in pixels of 5 Å.*give --particles-voxel-size, .* --unit angstrom",
        ),
        ([*KNOWN, "--particles", str(tmp_path / "a.csv")], r"give --unit angstrom, or --unit voxel"),
        ([*KNOWN, "--particles", str(tmp_path / "none.star")], r"no file .*none\.star"),
    ):
        assert __main__.main([*base, *words]) == 1
        shown = capsys.readouterr()
        assert re.search(message, shown.err), shown.err
        assert (shown.out, shown.err.count("\n"), "Traceback" in shown.err) == ("", 1, False)
    assert __main__.main([*base, "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"] in shown.err
    assert __main__.main([*base, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([one for one in NAMES if one not in ("tour", "doctor", "notebooks", "napari", "inspect")]),
    words=st.lists(
        st.one_of(st.sampled_from(["-o", "--seed", "--box", "1", "-1", "nan", "", "a.star", "."]), st.text()), max_size=5
    ),
)
def test_whatever_is_typed_ends_with_a_code_and_no_traceback(name: str, words: list[str], tmp_path: Path, capsys) -> None:
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        code = __main__.main([name, *words])
    except SystemExit as left:
        code = left.code
    finally:
        os.chdir(here)
    shown = capsys.readouterr()
    assert code in (1, 2) or "--help" in words or "-h" in words
    assert "Traceback" not in shown.err


def test_json_is_all_that_stdout_gets(folder: Path) -> None:
    script = [sys.executable, "-m", "tomolab", "report", str(folder), "--json"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["command"] == "report"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('give contrast="dark", or contrast="bright".', "give --contrast dark, or --contrast bright."),
        ("Give tilts=(lowest, highest) in degrees", "Give --tilts lowest highest in degrees"),
        ("state check_contrast=False; lower threshold=", "state --no-check-contrast; lower --threshold"),
        (
            "give particles_voxel_size=, Å, or particles={TOMOGRAM: LIST}",
            "give --particles-voxel-size, Å, or --particles TOMOGRAM=LIST",
        ),
        ("name it: tomograms={NAME: PATH}", "name it: NAME=PATH"),
        ("rot=5, alpha=(a, b)", "rot=5, alpha=(a, b)"),
        ("voxel_size=10.", "--voxel-size 10."),
    ],
)
def test_messages_name_arguments_as_the_terminal_writes_them(
    message: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError(message)

    monkeypatch.setattr(inspection, "import_data", fail)
    assert __main__.main(["import", "a.mrc", "--diameter", "250", "-o", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err == f"tomolab import: {expected}\n"
