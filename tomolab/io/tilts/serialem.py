"""Metadata that SerialEM and Tomography 5 write beside a tilt series (.mdoc): a section of ``key = value`` lines an image.

Where the tilt axis lies stands in two places. SerialEM's title says ``Tilt axis angle = A``, in degrees from y to x as IMOD
counts, and each image has ``RotationAngle = A + 90`` (`EMbufferManager` of its source). Tomography 5 has ``TiltAxisAngle = T``
in the title: IMOD (its program header) takes RotationAngle R for the axis where T is -(R + 90), T where it is R - 90, and -T
where it is -(R - 90); the axis is unknown where T and R agree in none of these.
"""

import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from tomolab.io.tilts import imod

AXIS = re.compile(r"tilt axis angle\s*=\s*([-+]?(?:\d+\.?\d*|\.\d+))", re.IGNORECASE)
FEI_AXIS = re.compile(r"TiltAxisAngle\s*=\s*([-+]?(?:\d+\.?\d*|\.\d+))", re.IGNORECASE)
AGREES = 0.11
"""Degrees up to which title and images say the same, as IMOD has it."""
HEADING = re.compile(r"\[\s*(\w+)\s*=(.*)\]$")
DATES = ("%d-%b-%y %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%Y-%b-%d %H:%M:%S")
"""Ways in which versions of SerialEM write the time."""

Section = dict[str, tuple[int, str]]
"""Line and value of each key."""


def read_mdoc(path: str | Path) -> pd.DataFrame:
    """Tilt table of an .mdoc file, in the order of its stack (ZValue).

    Order comes from PriorRecordDose, else from DateTime; dose and exposure from PriorRecordDose and ExposureDose, where
    0 means that the microscope was not calibrated. SerialEM does not measure defocus, so that is NaN: what was aimed at is
    in column `target_defocus` (µm underfocus). Further columns are `axis` (degrees from y to x, as IMOD counts; NaN where the
    file does not say for sure), `title_axis` and `rotation` (what the title and RotationAngle say), `image` (name of the
    movie), `use` (True).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds no images, or an image no tilt, the same ZValue as another, or what is not a number.
    """
    title, sections = _sections(path)
    if not sections:
        raise ValueError(f"{path} has no sections [ZValue = ...], one for each image")
    rows = [sections[number] for number in sorted(sections)]
    angles = np.array([_number(row, "TiltAngle", path) for row in rows])
    imod.check_tilts(angles, lambda i: f"{path}, line {rows[i]['TiltAngle' if 'TiltAngle' in rows[i] else 'ZValue'][0]}")
    exposure, prior = (np.array([_number(row, key, path) for row in rows]) for key in ("ExposureDose", "PriorRecordDose"))
    rotation = _number(rows[0], "RotationAngle", path)
    axis, title_axis = _axis(title, rotation)
    return imod.table(
        angles,
        order=_order(rows) if np.isnan(prior).any() or len(np.unique(prior)) < len(prior) else None,
        dose=np.where(np.isnan(prior).any(), np.nan, prior),
        exposure=np.where((exposure > 0).all(), exposure, np.nan),
        target_defocus=[-_number(row, "TargetDefocus", path) for row in rows],
        axis=axis,
        title_axis=title_axis,
        rotation=rotation,
        image=[re.split(r"[\\/]", row["SubFramePath"][1])[-1] if "SubFramePath" in row else "" for row in rows],
        use=True,
    )


def _sections(path: str | Path) -> tuple[str, dict[int, Section]]:
    """Text above the images, and the section of each image by its number."""
    title: list[str] = []
    sections: dict[int, Section] = {}
    section: Section = {}
    for line, written in enumerate(imod.text(path).splitlines(), start=1):
        written = written.strip()
        heading = HEADING.match(written)
        # Tomography 5, and SerialEM beside frames, write titles without brackets, above the first image.
        bare = re.match(r"T\s*=", written) and not sections
        if bare or (heading and heading.group(1) == "T"):
            title.append(written)
        elif heading:
            section = {"ZValue": (line, heading.group(2).strip())}
            # Other headings open what is not an image: a montage, a single frame.
            if heading.group(1) == "ZValue":
                _add(sections, section, path)
        elif "=" in written:
            key, value = (word.strip() for word in written.split("=", 1))
            section[key] = (line, value)
            if key == "Version":
                title.append(value)
    return "\n".join(title), sections


def _axis(title: str, rotation: float) -> tuple[float, float]:
    """Degrees of the tilt axis, NaN where that is not certain, and of what the title calls so."""
    serial, fei = AXIS.search(title), FEI_AXIS.search(title)
    if serial:
        return float(serial[1]), float(serial[1])
    if fei is None:
        return (_wrapped(rotation - 90) if "SerialEM" in title else np.nan), np.nan
    angle = float(fei[1])
    meanings = ((-(rotation + 90), rotation), (rotation - 90, angle), (-(rotation - 90), -angle))
    return next((axis for stated, axis in meanings if abs(_wrapped(stated - angle)) < AGREES), np.nan), angle


def _wrapped(angle: float) -> float:
    """The same direction from -180 up to 180 degrees."""
    return (angle + 180) % 360 - 180


def _add(sections: dict[int, Section], section: Section, path: str | Path) -> None:
    """File a new section under its number."""
    line, value = section["ZValue"]
    if not re.fullmatch(r"\d{1,9}", value):
        raise ValueError(f"{path}, line {line}: ZValue is the number of an image, got {value[:60]!r}")
    number = int(value)
    if number in sections:
        raise ValueError(f"{path}, line {line}: ZValue {number} stands already in line {sections[number]['ZValue'][0]}")
    sections[number] = section


def _number(section: Section, key: str, path: str | Path) -> float:
    """Value of a key; NaN where the section does not have it."""
    if key not in section:
        return float("nan")
    line, value = section[key]
    try:
        found = float(value)
    except ValueError as error:
        raise ValueError(f"{path}, line {line}: expected a number for {key}, got {value[:60]!r}") from error
    if not np.isfinite(found):
        raise ValueError(f"{path}, line {line}: expected a finite number for {key}, got {value[:60]!r}")
    return found


def _order(rows: list[Section]) -> np.ndarray | None:
    """Order of the times at which the images were taken; None where a time is absent, unreadable, or stands twice."""
    times = [_time(row["DateTime"][1]) if "DateTime" in row else None for row in rows]
    found = [time for time in times if time is not None]
    if len(found) < len(rows) or len(set(found)) < len(rows):
        return None
    return np.array([sorted(found).index(time) for time in found])


def _time(value: str) -> datetime | None:
    for pattern in DATES:
        try:
            return datetime.strptime(" ".join(value.split()), pattern)
        except ValueError:
            continue
    return None
