"""Commands about this machine: notebooks, tour, doctor."""

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from tomolab import doctor
from tomolab.commands.command import Command, Result, say
from tomolab.io import paths

TOUR = "00_tour.ipynb"


def _notebooks_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path("notebooks"), metavar="FOLDER", help="default: notebooks")
    parser.add_argument("--force", action="store_true", help="replace notebooks there that were changed")


def _notebooks(given: Namespace) -> Result:
    """Copy the shipped notebooks into a folder; copy nothing if some there differ, unless ``--force`` was given."""
    folder: Path = given.folder
    shipped = {one.name: one.read_bytes() for one in paths.notebook_folder().glob("*.ipynb")}
    there = {name for name in shipped if (folder / name).exists()}
    changed = sorted(name for name in there if (folder / name).read_bytes() != shipped[name])
    if changed and not given.force:
        problem = f"{folder} has notebooks that were changed, or are of another version: {', '.join(changed)}."
        raise FileExistsError(f"{problem} Name another folder, or replace them with --force; nothing was copied.")
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(set(shipped) - there | set(changed)):
        with paths.atomic(folder / name) as temporary:
            temporary.write_bytes(shipped[name])
    text = f"{len(shipped)} notebooks are in {folder}. Open them with: jupyter lab {folder / TOUR}"
    return Result(text, {"folder": folder, "notebooks": sorted(shipped)})


def _tour_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path("notebooks"), metavar="FOLDER", help="default: notebooks")
    parser.add_argument("--no-browser", action="store_true", help="print the address instead of opening it")
    parser.add_argument("--port", type=int, help="of JupyterLab")


def _tour(given: Namespace) -> Result:
    """Copy the notebooks if they are not there, and run JupyterLab on the tour until the user ends it."""
    if find_spec("jupyterlab") is None:
        raise ModuleNotFoundError("the tour needs jupyterlab: pip install 'tomolab[lab]'")
    if not (given.folder / TOUR).is_file():
        say(given, _notebooks(Namespace(folder=given.folder, force=False)).text)
    # Not the name of the file: the address that --no-browser prints would lead elsewhere.
    options = [f"--ServerApp.root_dir={given.folder.absolute()}", f"--LabApp.default_url=/lab/tree/{TOUR}"]
    options += ["--no-browser"] * given.no_browser + ([] if given.port is None else [f"--port={given.port}"])
    done = subprocess.run([sys.executable, "-m", "jupyterlab", *options], check=False)
    return Result("JupyterLab has ended", {"folder": given.folder}, code=int(done.returncode != 0))


def _doctor(_given: Namespace) -> Result:
    facts = doctor.look()
    findings = doctor.diagnose(facts)
    broken = any(finding.severity == "broken" for finding in findings)
    values = {"facts": asdict(facts), "findings": [asdict(one) for one in findings]}
    return Result(doctor.report(facts, findings), values, code=int(broken))


COMMANDS = (
    Command(
        "tour",
        "Open the tour in JupyterLab.",
        "tomolab tour\ntomolab tour --no-browser",
        _tour_arguments,
        _tour,
    ),
    Command(
        "notebooks",
        "Copy the notebooks into a folder, to work with them.",
        "tomolab notebooks my_notebooks",
        _notebooks_arguments,
        _notebooks,
    ),
    Command(
        "doctor",
        "Report what this machine has, and what is wrong.",
        "tomolab doctor",
        lambda _parser: None,
        _doctor,
    ),
)
