"""Commands that work on a run folder: discover, average, report, inspect, napari."""

import sys
import time
from argparse import ArgumentParser, Namespace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tomolab.commands.command import Command, Result, free_output, positive, say, values

if TYPE_CHECKING:
    from tomolab.averaging.half_maps import Average
    from tomolab.jobs import Job


def _folder(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a run folder, made by tomolab import or the notebooks")


def _discover_arguments(parser: ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument(
        "--clusters", type=int, nargs="+", default=(), metavar="N", help="whose particles take part; default: all"
    )
    parser.add_argument("--iterations", type=int, default=24, help="at most; default: 24")
    parser.add_argument("--min-particles", type=int, default=8, metavar="N", help="of a structure; default: 8")
    parser.add_argument(
        "--max-particles", type=int, metavar="N", help="to find the structures; all others are then compared with them once"
    )
    _averaging(parser)


def _averaging(parser: ArgumentParser) -> None:
    parser.add_argument("--symmetry", default="C1", help="of the averages, such as C4, or find; default: C1")
    parser.add_argument("--mask-diameter", type=positive, metavar="Å", help="by default measured")
    parser.add_argument("--seed", type=int, default=0)


def _discover(given: Namespace) -> Result:
    from tomolab import inspection

    work = inspection.open(given.folder)
    options = values(given, "iterations min_particles max_particles symmetry mask_diameter seed")
    found = _wait(work.discover(given.clusters, **options), given)
    structures = [
        {"cluster": number, "name": work.session.title(number), "particles": int(work.session.counts()[number])}
        | next((_about(name, one) for name, one in found.averages.items() if one.record.get("cluster") == number), {})
        for number in found.clusters
    ]
    lines = [f"{one['name']}: {one['particles']:,} particles{_resolution(one)}" for one in structures]
    return Result("\n".join([f"{found}, in {given.folder}", *lines]), {"folder": given.folder, "structures": structures})


def _average_arguments(parser: ArgumentParser) -> None:
    _folder(parser)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--clusters", type=int, nargs="+", default=[], metavar="N", help="each is averaged")
    chosen.add_argument("--all", action="store_true", help="one average of all particles")
    parser.add_argument(
        "--quick", action="store_true", help="only the 120 most typical particles of a cluster, fewer iterations"
    )
    _averaging(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="also write the maps here, as NAME.mrc")
    parser.add_argument("--force", action="store_true", help="replace maps that are there")


def _average(given: Namespace) -> Result:
    from tomolab import inspection, io
    from tomolab.inspection import run_contents

    work = inspection.open(given.folder)
    unknown = sorted(set(given.clusters) - set(work.session.clusters))
    if unknown:
        counts = ", ".join(f"{number} ({count:,})" for number, count in work.session.counts().items())
        raise ValueError(f"there is no cluster {unknown[0]} in {given.folder}; its clusters and their particles: {counts}")
    options = values(given, "quick symmetry mask_diameter seed")
    every = [inspection.Selection("all particles", work.session.ids, "all")] if given.all else []
    chosen: list[int | inspection.Selection] = [*dict.fromkeys(given.clusters), *every]
    maps: dict[str, Path] = {}
    if given.output is not None:
        names = [work.average_name(one, quick=given.quick) for one in chosen]
        maps = {name: given.output / f"{io.file_name(name)}.mrc" for name in names}
        given.output.mkdir(parents=True, exist_ok=True)
        for path in maps.values():
            free_output(given, path)
    jobs = [work.average(one, **options) for one in chosen]
    done: dict[str, Average] = {}
    for job in jobs:
        done |= _wait(job, given)
    averages = [_about(name, one) for name, one in done.items()]
    for about in averages if maps else []:
        about["map"] = maps[about["average"]]
        io.write_volume(done[about["average"]].volume, about["map"])
    lines = [f"{one['average']}: {one['particles']:,} particles{_resolution(one)}" for one in averages]
    lines.append(f"saved in {given.folder / run_contents.AVERAGES}{''.join(f' and as {path}' for path in maps.values())}")
    finest = 2 * next(iter(done.values())).volume.voxel_size if done else 0.0
    if any(one.resolution < 1.05 * finest for one in done.values()):
        lines.append(f"finer than {finest:g} Å needs boxes of finer voxels: tomolab import --box-voxel-size, another folder")
    return Result("\n".join(lines), {"averages": averages})


def _about(name: str, average: "Average") -> dict[str, Any]:
    return {
        "average": name,
        "particles": len(average.particles),
        "resolution": average.resolution,
        "reliable": average.reliable,
        "identity": average.record.get("identity", {}).get("sentence"),
    }


def _resolution(about: dict[str, Any]) -> str:
    if "resolution" not in about:
        return ", not averaged"
    reliable = "" if about["reliable"] else " (not reliable)"
    return f", {about['resolution']:.1f} Å{reliable}" + (f", {about['identity']}" if about["identity"] else "")


def _wait(job: "Job[Any]", given: Namespace) -> Any:
    """Result of a job, with lines of progress; Ctrl+C keeps the best so far, a second one ends the program."""
    shown = ""
    try:
        while not job.over:
            time.sleep(0.1)
            if job.progress is not None and str(job.progress) != shown:
                shown = str(job.progress)
                say(given, f"{job.name}: {shown}")
    except KeyboardInterrupt:
        say(given, f"{job.name} is stopped; the best so far is saved")
        job.stop()
    return job.result()


def _report_arguments(parser: ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="do not compare files with their hashes")


def _report(given: Namespace) -> Result:
    from tomolab import ui

    path = ui.write_report(given.folder, verify=given.verify)
    return Result(f"the report is {path}", {"report": path})


def _inspect_arguments(parser: ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument("--port", type=int, help="of the page on this machine; default: the first that is free from 8866")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and what to type on your laptop")


def _inspect(given: Namespace) -> Result:
    from tomolab.ui.notebook import server

    server.serve(given.folder, port=given.port, browser=not given.no_browser, say=partial(print, file=sys.stderr, flush=True))
    return Result("\nThe inspector has ended; every step is saved in the run folder.", {"folder": given.folder})


def _napari_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH", help="a run folder, or a tomogram to pick particles in")
    parser.add_argument("--screenshot", type=Path, metavar="PNG", help="write a picture of the canvas and close")


def _napari(given: Namespace) -> Result:
    from tomolab import inspection
    from tomolab.inspection import run_contents
    from tomolab.ui import napari, require

    is_run = (given.path / run_contents.TABLE).is_file() or not given.path.exists()
    work = inspection.open(given.path) if is_run else None
    window = napari.open_viewer()
    from tomolab.ui.napari import dock, plugin

    if work is None:
        plugin.open_path(window, given.path)
    window.window.add_dock_widget(dock.Inspector(window, work), name="tomolab", area="right")
    if given.screenshot is not None:
        napari.screenshot(window, given.screenshot)
        window.close()
        return Result(f"the picture is {given.screenshot}", {"screenshot": given.screenshot})
    require("napari").run()
    return Result("napari is closed", {"path": given.path})


COMMANDS = (
    Command(
        "discover",
        "Find the structures among the particles of a run folder, average and name them.",
        "tomolab discover runs/mine --seed 1",
        _discover_arguments,
        _discover,
    ),
    Command(
        "average",
        "Average clusters of a run folder without a reference.",
        "tomolab average runs/mine --clusters 0 3 -o maps\ntomolab average runs/mine --all --symmetry C1",
        _average_arguments,
        _average,
    ),
    Command(
        "report",
        "Write one page about what was done in a run folder.",
        "tomolab report runs/mine",
        _report_arguments,
        _report,
    ),
    Command(
        "inspect",
        "Open the inspector of a run folder in the browser, without a notebook.",
        "tomolab inspect runs/mine\ntomolab inspect runs/mine --no-browser",
        _inspect_arguments,
        _inspect,
    ),
    Command(
        "napari",
        "Open the inspector of a run folder in napari, or a tomogram to pick particles in.",
        "tomolab napari runs/mine\ntomolab napari TS_01.mrc",
        _napari_arguments,
        _napari,
    ),
)
