"""Takes an inspection, shows one particle in a line of a notebook: its box, cluster and columns; also finds it by its id.

>>> card = Card(inspection, found=print)
>>> card.show(17)
"""

import html
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from ipywidgets import HTML, HBox, Image, Layout, Text

from tomolab.conventions import ANGLES, BOX, POSITION, READ_POSE, SOURCE, WEDGE
from tomolab.inspection.model import CLUSTER, Inspection
from tomolab.inspection.session import Session
from tomolab.inspection.session_values import NONE
from tomolab.ui import images, style

SIDE = 56
QUIET = {"particle_id", CLUSTER, *POSITION, *ANGLES, *WEDGE, *SOURCE, *READ_POSE, *BOX}
"""Columns that are not told one by one."""


class Card(HBox):  # type: ignore[misc]
    """The particle under the mouse, or the one that was clicked last.

    `found` is called with the id that the user has typed, if there is such a particle.
    """

    def __init__(
        self,
        inspection: Inspection,
        *,
        found: Callable[[int], Any] = lambda _: None,
        say: Callable[[str], Any] = lambda _: None,
    ) -> None:
        self.inspection, self.found, self.say = inspection, found, say
        self._index = pd.Index(inspection.session.ids)
        self.id = Text("", description="particle", style=style.LABEL, continuous_update=False, layout=Layout(width="150px"))
        self.id.placeholder, self.id.tooltip = "id, Enter", "Select the particle of this id, and go to its slice"
        self.image = Image(
            format="png", layout=Layout(width=f"{SIDE}px", height=f"{SIDE}px", flex="0 0 auto", visibility="hidden")
        )
        self.text = HTML(layout=Layout(flex="1 1 200px", min_width="0", overflow="hidden"))
        self.id.observe(lambda _: self._typed(), "value")
        super().__init__([self.id, self.image, self.text], layout=Layout(align_items="center", height=f"{SIDE + 6}px"))
        self.add_class("tomolab-particle")

    def show(self, particle: int) -> None:
        """Show a particle by its id."""
        row = int(self._index.get_indexer([particle])[0])
        self.text.value = describe(self.inspection.session, row)
        if self.inspection.subtomograms is not None:
            self.image.value = _picture(self.inspection, particle)
            self.image.layout.visibility = "visible"

    def _typed(self) -> None:
        text = self.id.value.strip()
        if not text:
            return
        number = int(text) if text.lstrip("-").isdigit() else None
        if number is None or number not in self._index:
            low, high = self._index.min(), self._index.max()
            self.say(f"there is no particle {text!r}: ids are whole numbers, here from {low} to {high}")
            return
        self.show(number)
        self.found(number)


def describe(session: Session, row: int) -> str:
    """A particle in one line of HTML: its id, cluster, tomogram and own columns."""
    label = int(session.labels.iloc[row])
    name = "no cluster" if label == NONE else session.title(label)
    ink = style.FAINT if label == NONE else style.inks(session.clusters)[label]
    particle = session.particles.iloc[row]
    facts = [f"{column} {_value(particle[column])}" for column in particle.index if column not in QUIET]
    text = " · ".join(html.escape(fact) for fact in facts if fact)
    head = f"<b>{session.ids[row]}</b> {style.span('■', ink)} {html.escape(name)}"
    quiet = f"<span style='color:{style.QUIET_TEXT}'>{text}</span>"
    whole = f"line-height:1.35; max-height:{SIDE}px; overflow:hidden"
    return f'<div title="{text}" style="{whole}">{head}<br>{quiet}</div>'


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def _picture(inspection: Inspection, particle: int) -> bytes:
    """The mean of the central slices of a box."""
    assert inspection.subtomograms is not None
    cut = inspection.subtomograms.choose([particle])
    detail = inspection.diameter / 7 if 2 * cut.voxel_size < inspection.diameter / 7 else None
    (flat,) = images.flattened(cut.volumes[:], cut.voxel_size, low_pass=detail)
    return images.png(flat, **images.limits(flat, 1, 99.8))
