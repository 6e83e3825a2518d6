"""The command line: ``tomolab doctor``, ``inspect``, ``notebooks`` and ``--version``, also as ``python -m tomolab``."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tomolab import __version__, doctor
from tomolab.io import paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 if all is well.

    Parameters
    ----------
    arguments
        Words after the program's name; those of the process by default.
    """
    parser = argparse.ArgumentParser(prog="tomolab", description="From cryo-electron tomograms to clusters and averages.")
    parser.add_argument("--version", action="version", version=f"tomolab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("doctor", help="report what this machine has, and what is wrong")
    copying = commands.add_parser("notebooks", help="copy the notebooks into a folder, to work with them")
    copying.add_argument("folder", nargs="?", type=Path, default=Path("notebooks"), metavar="FOLDER", help="default: notebooks")
    copying.add_argument("--force", action="store_true", help="replace notebooks there that were changed")
    inspecting = commands.add_parser("inspect", help="open the inspector of a run folder in the browser, without a notebook")
    inspecting.add_argument("folder", type=Path, metavar="DIR", help="run folder")
    inspecting.add_argument(
        "--port", type=int, help="port of the page on this machine; default: the first that is free from 8866"
    )
    inspecting.add_argument("--no-browser", action="store_true", help="print the address, and what to type on your laptop")
    given = parser.parse_args(arguments)
    if given.command == "doctor":
        return _doctor()
    if given.command == "inspect":
        return _inspect(given.folder, port=given.port, browser=not given.no_browser)
    try:
        return _notebooks(given.folder, force=given.force)
    except OSError as error:
        print(f"the notebooks could not be copied: {error}", file=sys.stderr)
        return 1


def _doctor() -> int:
    facts = doctor.look()
    findings = doctor.diagnose(facts)
    print(doctor.report(facts, findings))
    return int(any(finding.severity == "broken" for finding in findings))


def _inspect(folder: Path, *, port: int | None, browser: bool) -> int:
    from tomolab.ui.notebook import server

    try:
        server.serve(folder, port=port, browser=browser, say=partial(print, flush=True))
    except OSError as error:
        print(f"tomolab inspect: {error}", file=sys.stderr)
        return 1
    return 0


def _notebooks(folder: Path, *, force: bool) -> int:
    """Copy the shipped notebooks into a folder; copy nothing and return 1 if some there differ, unless `force` is True."""
    shipped = {one.name: one.read_bytes() for one in paths.notebook_folder().glob("*.ipynb")}
    there = {name for name in shipped if (folder / name).exists()}
    changed = sorted(name for name in there if (folder / name).read_bytes() != shipped[name])
    if changed and not force:
        problem = f"{folder} has notebooks that were changed, or are of another version: {', '.join(changed)}."
        print(f"{problem} Name another folder, or replace them with --force; nothing was copied.", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(set(shipped) - there | set(changed)):
        with paths.atomic(folder / name) as temporary:
            temporary.write_bytes(shipped[name])
    print(f"{len(shipped)} notebooks are in {folder}. Open them with: jupyter lab {folder / '00_tour.ipynb'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
