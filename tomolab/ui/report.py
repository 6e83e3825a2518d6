"""Report: what was done with a run folder, as one page that anybody can open, without scripts and without the internet.

Counts from the picks to the averages, the clusters, pictures, parameters, seeds, versions and hashes: what is in the folder,
at any stage of the work, and nothing else.

>>> report.write("runs/first")
PosixPath('runs/first/report.html')
"""

import base64
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from matplotlib.colors import is_color_like, to_hex

from tomolab import __version__, io
from tomolab.averaging.half_maps import Average
from tomolab.inspection import run_contents
from tomolab.inspection.history import History
from tomolab.inspection.model import Inspection
from tomolab.inspection.run_contents import RunContents
from tomolab.inspection.session import Session
from tomolab.ui import report_figures, style

PAGE = "report.html"
SHOWN, BOXES, STEPS = 20, 8, 80
"""Clusters and averages with pictures, boxes of each cluster, and steps of a session, at most."""
LONG = 240
"""Characters of a parameter, at most."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load for this page: nothing that is not in it."""


def write(folder: str | Path, *, verify: bool = True) -> Path:
    """Write the record of a run folder as ``report.html`` into it, whole or not at all; an older one is replaced.

    Parameters
    ----------
    folder
        The run folder, at any stage.
    verify
        Compare the recorded files with their hashes, which takes as long as reading them.

    Returns
    -------
    Path
        The page: one file, with its pictures in it.

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
    """The page as text.

    Parameters
    ----------
    found
        What the folder holds.
    verified
        Whether files were compared with their hashes.
    """
    palette = _palette(found.session)
    name = found.folder.resolve().name
    parts = [
        _head(found, name),
        "".join(f'<p class="fault">{_t(fault)}</p>' for fault in found.faults),
        _funnel(found),
        _views(found, palette),
        "" if found.session is None else _clusters(found, found.session, palette),
        _averages(found.averages),
        _decisions(found.session),
        _stages(found, verified=verified),
    ]
    css = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    meta = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    meta += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    foot = f'<footer class="quiet">Written by tomolab {_t(__version__)}. Everything on this page is in this one file.</footer>'
    head = f"<head>{meta}<title>{_t(name)} · tomolab</title><style>{css}</style></head>"
    return f'<!doctype html>\n<html lang="en">{head}<body>{"".join(parts)}{foot}</body></html>\n'


def _palette(session: Session | None) -> dict[int, str]:
    """Colour of each cluster; one that is no colour gives way to that of the palette."""
    said = {} if session is None else dict(session.clusters)
    known = {number: one if is_color_like(one.colour) else replace(one, colour="") for number, one in said.items()}
    return {number: to_hex(ink) for number, ink in style.inks(known).items()}


def _head(found: RunContents, name: str) -> str:
    told = [f"as it was on {_when(datetime.now(UTC).isoformat())}"]
    if found.table is not None:
        count = found.table["tomogram"].nunique()
        told.append(f"{len(found.table):,} particles in {count} tomogram{'s' * (count != 1)}")
    if found.averages:
        told.append(f"{len(found.averages)} average{'s' * (len(found.averages) != 1)}")
    return f'<header><h1>{_t(name)}</h1><div class="quiet">{_t(" · ".join(told))}</div></header>'


def _funnel(found: RunContents) -> str:
    if not found.steps:
        return "<p>This folder holds no particles yet.</p>"
    most = max(step.count for step in found.steps) or 1
    rows = [
        f'<tr><td class="name">{_t(step.title)}</td><td class="number">{step.count:,}</td>'
        f'<td class="track"><div class="bar" style="width:{100 * step.count / most:.1f}%"></div></td>'
        f'<td class="quiet">{_t(step.about)}</td></tr>'
        for step in found.steps
    ]
    head = '<tr><th></th><th class="number">particles</th><th></th><th></th></tr>'
    return f'<h2>From picks to averages</h2><table class="funnel">{head}{"".join(rows)}</table>'


def _views(found: RunContents, palette: dict[int, str]) -> str:
    """The tomogram with its particles, and the map of all."""
    figures = [_section(found, palette)]
    if found.session is not None and found.points is not None and set(found.session.ids) <= set(found.points["particle_id"]):
        image = report_figures.scatter(found.points, found.session, palette)
        figures.append(_figure(image, "Particles by their features, in the colours of their clusters.", "map of the particles"))
    shown = [one for one in figures if one]
    title = "Where they are" + (", and how alike" if len(shown) > 1 else "")
    return f'<h2>{title}</h2><div class="pair">{"".join(shown)}</div>' if shown else ""


def _section(found: RunContents, palette: dict[int, str]) -> str:
    places = run_contents.tomogram_files(found.folder, found.table)
    if not places:
        return ""
    if found.table is None:
        return ""
    name = found.table["tomogram"].value_counts().loc[list(places)].idxmax()
    labels = None if found.session is None else found.session.labels.to_numpy()
    table = found.table if labels is None else found.table.assign(cluster=labels)
    inside = table[table["tomogram"] == name]
    try:
        volume = io.read_volume(places[name])
        diameter = run_contents.particle_diameter(found.table, found.boxes)
    except ValueError as error:
        return f'<p class="fault">{_t(str(error))}</p>'
    image = report_figures.section(volume, inside, palette, diameter=diameter)
    size = " × ".join(map(str, volume.shape))
    of = f", one of {found.table['tomogram'].nunique()} tomograms" if found.table["tomogram"].nunique() > 1 else ""
    told = f"{name}{of}: {size} voxels (z, y, x) of {volume.voxel_size:g} Å. "
    told += f"The slice that cuts most of its {len(inside):,} particles, smoothed."
    return _figure(image, told, "slice of the tomogram with its particles")


def _clusters(found: RunContents, session: Session, palette: dict[int, str]) -> str:
    counts = session.counts().sort_values(ascending=False, kind="stable")
    held = found.boxes if found.boxes is not None and set(session.ids) <= set(found.boxes.ids) else None
    features = found.features if found.features is not None and set(session.ids) <= set(found.features.ids) else None
    work = Inspection(session, features=features, diameter=1.0)
    rows = []
    for place, (cluster, count) in enumerate(counts.items()):
        one, strip = session.clusters[cluster], ""
        if held is not None and count and place < SHOWN:
            typical = work.typical(session.members(cluster).ids)[:BOXES]
            strip = _image(report_figures.boxes(held, typical), f"boxes of {session.title(cluster)}")
        note = f'<br><span class="quiet">{_t(one.note)}</span>' if one.note else ""
        rows.append(
            f'<tr><td><span class="swatch" style="background:{_t(palette[cluster])}"></span><b>{_t(session.title(cluster))}</b>'
            f'{note}</td><td class="number">{count:,}</td><td>{strip}</td></tr>'
        )
    order = "the most typical first" if features is not None else "in the order of the table"
    boxes = f"boxes, {order}" if held is not None else ""
    head = f'<tr><th>cluster</th><th class="number">particles</th><th>{boxes}</th></tr>'
    return f'<h2>Clusters</h2><table class="clusters">{head}{"".join(rows)}</table>'


def _averages(made: Mapping[str, Average]) -> str:
    if not made:
        return ""
    cards = [_card(name, average, pictures=place < SHOWN) for place, (name, average) in enumerate(made.items())]
    told = (
        "Slices through the centre across z, y and x. The half maps share no particle; particles were chosen on the same data."
    )
    return f'<h2>Averages</h2><p class="quiet">{told}</p><div class="cards">{"".join(cards)}</div>'


def _card(name: str, average: Average, *, pictures: bool) -> str:
    record = average.record
    begun = run_contents.average_start(record)
    badges = [f"template-based: started from {begun}"] if begun else []
    badges += [] if average.believable else ["halves agree on nothing finer than how they were joined: not to be believed"]
    badges += ["quick look"] if record.get("quick") else []
    facts: dict[str, Any] = {
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
    words = "".join(f"<dt>{_t(key)}</dt><dd>{_t(str(value))}</dd>" for key, value in facts.items() if value is not None)
    marks = "".join(f'<span class="badge">{_t(badge)}</span>' for badge in badges)
    shown = f"<div>{_image(report_figures.slices(average), f'slices of {name}')}</div>" if pictures else "<div></div>"
    curve = (
        f"<div>{_image(report_figures.correlation(average), f'Fourier shell correlation of {name}')}</div>" if pictures else ""
    )
    return f'<div class="card"><div><h3>{_t(name)}</h3>{marks}<dl>{words}</dl></div>{shown}{curve}</div>'


def _decisions(session: Session | None) -> str:
    """Steps of the session, without those that only selected."""
    history = History() if session is None else session.history
    steps = [*history.older, *((step.what, step.when, sorted(step.names)) for step in history.past)]
    past = [(what, when) for what, when, names in steps if set(names) - {"selected"}]
    if not past:
        return ""
    rows = "".join(f"<li>{_t(what)} <small>{_t(_when(when))}</small></li>" for what, when in past[-STEPS:])
    left = f'<p class="quiet">The last {STEPS} of {len(past):,} steps.</p>' if len(past) > STEPS else ""
    return f'<h2>Decisions</h2>{left}<ol start="{max(1, len(past) - STEPS + 1)}">{rows}</ol>'


def _stages(found: RunContents, *, verified: bool) -> str:
    if not found.stages:
        return ""
    rows = "".join(_stage(name, entry, found.changed) for name, entry in found.stages.items())
    told = "Files are as they were recorded, but where it says otherwise." if verified else "Files were not compared."
    return f'<h2>How each thing came about</h2><p class="quiet">{told}</p>{rows}'


def _stage(name: str, entry: Mapping[str, Any], changed: Iterable[str]) -> str:
    facts = {"seed": entry.get("seed"), "scale": entry.get("scale"), **(entry.get("parameters") or {})}
    words = "".join(f"<dt>{_t(key)}</dt><dd>{_t(_short(value))}</dd>" for key, value in facts.items() if value is not None)
    gone = set(changed)
    listed = "".join(
        f"<tr><td>{_t(path)}</td><td><code>{_t(str(told)[:16])}…</code>"
        f"{' <span class=badge>changed since, or gone</span>' if path in gone else ''}</td></tr>"
        for path, told in (entry.get("files") or {}).items()
    )
    machine, versions = entry.get("machine") or {}, entry.get("versions") or {}
    made = {"tomolab": machine.get("tomolab"), "python": machine.get("python"), **versions}
    with_ = ", ".join(f"{key} {value}" for key, value in made.items() if value)
    where = ", ".join(str(machine[key]) for key in ("gpu", "cpu", "system") if machine.get(key))
    table = f'<table class="files"><tr><th>file</th><th>SHA-256</th></tr>{listed}</table>' if listed else ""
    left = f'<h3>{_t(name)}</h3><div class="quiet">{_t(_when(entry.get("time", "")))}</div>'
    return (
        f'<div class="stage"><div>{left}</div><div><dl>{words}</dl>{table}'
        f'<p class="quiet">{_t(with_)}<br>{_t(where)}</p></div></div>'
    )


def _when(text: Any) -> str:
    """A time as it is read, or what stands in its place."""
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


def _figure(image: bytes, caption: str, about: str) -> str:
    return f"<figure>{_image(image, about)}<figcaption>{_t(caption)}</figcaption></figure>"


def _image(data: bytes, about: str) -> str:
    return f'<img alt="{_t(about)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _t(text: str) -> str:
    """Text as it may stand in a page, also in quotes."""
    return html.escape(text, quote=True)
