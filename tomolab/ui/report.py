"""Takes a run folder, writes its report as one HTML page without scripts, which needs no internet.

The page shows counts from the picks to the averages, clusters, pictures, parameters, seeds, versions and hashes, as far as the
folder has them. The template is ``report.html.jinja``.

>>> report.write("runs/first")
PosixPath('runs/first/report.html')
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.colors import is_color_like, to_hex

from tomolab import __version__, io
from tomolab.averaging.half_maps import Average
from tomolab.inspection import context, run_contents
from tomolab.inspection.model import Inspection
from tomolab.inspection.run_contents import RunContents
from tomolab.inspection.session import Session
from tomolab.inspection.session_values import NONE
from tomolab.ui import job_summary, methods, report_figures, style

PAGE = "report.html"
SHOWN, BOXES, STEPS = 20, 8, 80
"""Maximum numbers of clusters and averages with pictures, of boxes per cluster, and of steps of a session."""
LONG = 240
"""Maximum number of characters of a parameter."""


def write(folder: str | Path, *, verify: bool = True) -> Path:
    """Write the report ``report.html`` into a run folder, whole or not at all; replace an older one.

    Parameters
    ----------
    folder
        The run folder, at any stage.
    verify
        Compare the recorded files with their hashes, which takes as long as reading them.

    Returns
    -------
    Path
        The page, a single file with its pictures.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If its manifest cannot be read.
    """
    found = run_contents.read(folder, verify=verify)
    text = page(found, verified=verify)
    path = Path(folder) / PAGE
    with io.atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def page(found: RunContents, *, verified: bool = True) -> str:
    """HTML of the page.

    Parameters
    ----------
    found
        Contents of the folder.
    verified
        Whether the files were compared with their hashes.
    """
    palette, folder = _palette(found.session), Path(__file__).parent
    shown = [_section(found, palette), _map(found, palette)]
    decisions = _decisions(found.session)
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"base64": lambda png: base64.b64encode(png).decode(), "when": _when, "short": _short}
    return environment.get_template("report.html.jinja").render(
        css=(folder / "report.css").read_text(encoding="utf-8"),
        version=__version__,
        name=found.folder.resolve().name,
        about=_about(found),
        faults=[*found.faults, *(one for one in shown if isinstance(one, str))],
        steps=found.steps,
        most=max((step.count for step in found.steps), default=0) or 1,
        figures=[one for one in shown if isinstance(one, dict)],
        averages=[_card(name, one, pictures=place < SHOWN) for place, (name, one) in enumerate(found.averages.items())],
        methods=methods.text(found).split("\n"),
        decisions=decisions[-STEPS:],
        first=max(1, len(decisions) - STEPS + 1),
        stages=[_stage(name, entry) for name, entry in found.stages.items()],
        changed=set(found.changed),
        verified=verified,
        **_clusters(found, palette),
    )


def _palette(session: Session | None) -> dict[int, str]:
    """Colour of each cluster; the palette replaces an invalid one."""
    clusters = {} if session is None else dict(session.clusters)
    known = {number: one if is_color_like(one.colour) else replace(one, colour="") for number, one in clusters.items()}
    return {number: to_hex(ink) for number, ink in style.inks(known).items()}


def _about(found: RunContents) -> list[str]:
    texts = [f"as it was on {_when(datetime.now(UTC).isoformat())}"]
    if found.table is not None:
        count = found.table["tomogram"].nunique()
        texts.append(f"{len(found.table):,} particles in {count} tomogram{'s' * (count != 1)}")
    if found.averages:
        texts.append(f"{len(found.averages)} average{'s' * (len(found.averages) != 1)}")
    return texts


def _map(found: RunContents, palette: dict[int, str]) -> dict[str, Any] | None:
    if found.session is None or found.points is None or not set(found.session.ids) <= set(found.points["particle_id"]):
        return None
    image = report_figures.scatter(found.points, found.session, palette)
    caption = "Particles by their features, in the colours of their clusters."
    return {"png": image, "about": "map of the particles", "caption": caption}


def _section(found: RunContents, palette: dict[int, str]) -> dict[str, Any] | str | None:
    """Figure of the tomogram with its particles, or the message of an error."""
    places = run_contents.tomogram_files(found.folder, found.table)
    if not places or found.table is None:
        return None
    name = found.table["tomogram"].value_counts().loc[list(places)].idxmax()
    table = found.table if found.session is None else found.table.assign(cluster=found.session.labels.to_numpy())
    inside = table[table["tomogram"] == name]
    try:
        volume = io.read_volume(places[name])
        diameter = run_contents.particle_diameter(found.table, found.boxes)
    except ValueError as error:
        return str(error)
    count, size = found.table["tomogram"].nunique(), " × ".join(map(str, volume.shape))
    caption = (
        f"{name}{f', one of {count} tomograms' if count > 1 else ''}: {size} voxels (z, y, x) of {volume.voxel_size:g} Å. "
    )
    caption += f"The slice that cuts most of its {len(inside):,} particles, smoothed."
    image = report_figures.section(volume, inside, palette, diameter=diameter)
    return {"png": image, "about": "slice of the tomogram with its particles", "caption": caption}


def _clusters(found: RunContents, palette: dict[int, str]) -> dict[str, Any]:
    """Rows of the table of clusters, the largest first, and the header of its pictures."""
    session = found.session
    if session is None:
        return {"clusters": None, "boxes_are": "", "by_tomogram": None}
    held = found.boxes if found.boxes is not None and set(session.ids) <= set(found.boxes.ids) else None
    features = found.features if found.features is not None and set(session.ids) <= set(found.features.ids) else None
    work, rows = Inspection(session, features=features, diameter=1.0), []
    for place, (cluster, count) in enumerate(session.counts().sort_values(ascending=False, kind="stable").items()):
        row = {"title": session.title(cluster), "ink": palette[cluster], "note": session.clusters[cluster].note, "count": count}
        if held is not None and count and place < SHOWN:
            row["boxes"] = report_figures.boxes(held, work.typical(session.members(cluster).ids)[:BOXES])
        row["context"] = ", ".join(context.summary(session.table([cluster])))
        rows.append({"boxes": b""} | row)
    order = "the most typical first" if features is not None else "in the order of the table"
    counts = _by_tomogram(session)
    return {"clusters": rows, "boxes_are": f"boxes, {order}" if held is not None else "", "by_tomogram": counts}


def _by_tomogram(session: Session) -> dict[str, Any] | None:
    """Clusters and the number of their particles in each tomogram; None for a single one."""
    labels = session.labels
    counts = pd.crosstab(labels[labels != NONE].to_numpy(), session.particles["tomogram"].to_numpy()[labels != NONE])
    if counts.shape[1] < 2:
        return None
    rows = [(session.title(number), row.tolist(), int(row.sum())) for number, row in counts.iterrows()]
    return {"tomograms": counts.columns.tolist(), "rows": rows}


def _card(name: str, average: Average, *, pictures: bool) -> dict[str, Any]:
    record = average.record
    start = run_contents.average_start(record)
    badges = [f"template-based: started from {start}"] if start else []
    badges += (
        []
        if average.reliable
        else ["not reliable: the halves agree on nothing finer than the detail by which they were joined"]
    )
    badges += ["quick look"] if record.get("quick") else []
    facts = {
        "particles": f"{len(average.particles):,}",
        "halves agree to": f"{average.resolution:.1f} Å",
        "voxels": f"{average.volume.shape[0]}³ of {average.volume.voxel_size:g} Å",
        "from": run_contents.average_lineage(record) or None,
        "hand": run_contents.average_hand(record) or None,
        "symmetry": record.get("symmetry"),
        "mask": f"{record['mask']:.0f} Å" if "mask" in record else None,
        "by": record.get("program", "tomolab"),
        "seed": record.get("seed"),
        "took": f"{record['seconds']:.0f} s" if "seconds" in record else None,
    }
    slices = job_summary.picture(average.volume) if pictures else b""
    return {
        "name": name,
        "badges": badges,
        "facts": facts,
        "slices": slices,
        "fsc": report_figures.correlation(average) if pictures else b"",
    }


def _decisions(session: Session | None) -> list[tuple[str, str]]:
    """Descriptions and times of the steps of a session, without pure selections."""
    if session is None:
        return []
    steps = [*session.history.older, *((step.what, step.when, step.names) for step in session.history.past)]
    return [(what, when) for what, when, names in steps if set(names) - {"selected"}]


def _stage(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    machine = entry.get("machine") or {}
    versions = {"tomolab": machine.get("tomolab"), "python": machine.get("python"), **(entry.get("versions") or {})}
    return {
        "name": name,
        "time": entry.get("time", ""),
        "facts": {"seed": entry.get("seed"), "scale": entry.get("scale"), **(entry.get("parameters") or {})},
        "files": entry.get("files") or {},
        "versions": ", ".join(f"{key} {value}" for key, value in versions.items() if value),
        "machine": ", ".join(str(machine[key]) for key in ("gpu", "cpu", "system") if machine.get(key)),
    }


def _when(text: Any) -> str:
    """A time in UTC for the reader; other text unchanged."""
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC).strftime("%-d %b %Y, %H:%M UTC")
    except ValueError:
        return str(text)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_short(one)}" for key, one in value.items())
    elif isinstance(value, list):
        text = ", ".join(map(_short, value))
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONG else f"{text[:LONG]}… ({len(text):,} characters)"
