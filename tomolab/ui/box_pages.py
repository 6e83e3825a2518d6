"""Takes an inspection, gives pages of pictures of its boxes: those of ticked clusters, or else of the selection.

>>> pages = BoxPages(inspection, columns=8, rows=3)
>>> pages.renew([3])
>>> pages.text
'1–24 of 107, typical first'
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tomolab.inspection.model import Inspection
from tomolab.ui import images, style


class BoxPages:
    """Pages of boxes, the most typical particles first.

    Parameters
    ----------
    inspection
        Whose particles.
    columns, rows
        Boxes of a page.
    """

    def __init__(self, inspection: Inspection, *, columns: int, rows: int) -> None:
        self.inspection, self.columns, self.rows = inspection, columns, rows
        self._index = pd.Index(inspection.session.ids)
        self.ids, self._first = np.empty(0, np.int64), 0
        """Particle ids of all pages; place of the first one of this page."""
        self.view, self.low_pass = images.VIEWS[0], self.details[0][1]
        """Of `images.VIEWS`; Å, 0 for none."""

    @property
    def details(self) -> list[tuple[str, float]]:
        """Names and values of low-pass filters in Å: a seventh or a quarter of the diameter of a particle, or none."""
        sizes = [round(self.inspection.diameter / divisor, -1) for divisor in (7, 4)]
        return [*((f"to {size:g} Å", size) for size in sizes), ("all detail", 0.0)]

    @property
    def shown(self) -> np.ndarray:
        """Particle ids of this page."""
        return self.ids[self._first : self._first + self.columns * self.rows]

    @property
    def text(self) -> str:
        """What is shown, or what to do."""
        if self.inspection.subtomograms is None:
            return "there are no boxes to show"
        if not len(self.shown):
            return "tick clusters or select particles to see their boxes"
        order = ", typical first" if self.inspection.features is not None else ""
        return f"{self._first + 1:,}–{self._first + len(self.shown):,} of {len(self.ids):,}{order}"

    @property
    def has_previous(self) -> bool:
        """Whether there is a page before this one."""
        return self._first > 0

    @property
    def has_next(self) -> bool:
        """Whether there is a page after this one."""
        return self._first + self.columns * self.rows < len(self.ids)

    def turn(self, by: int) -> None:
        """Go some pages on, or back."""
        self._first += by * self.columns * self.rows

    def renew(self, ticked: Sequence[int]) -> bool:
        """Take the particles of the ticked clusters, or else the selection; whether these are others than before."""
        if self.inspection.subtomograms is None:
            return False
        session = self.inspection.session
        chosen = np.isin(session.labels.to_numpy(), ticked) if len(ticked) else session.selected
        ids = self.inspection.typical(session.ids[chosen & session.visible])
        if np.array_equal(ids, self.ids):
            return False
        # A subset of the old particles stays on its page; other particles start on the first.
        fewer, size = len(ids) and np.isin(ids, self.ids).all(), self.columns * self.rows
        self._first = min(self._first, (len(ids) - 1) // size * size) if fewer else 0
        self.ids = ids
        return True

    def frames(self) -> list[str]:
        """Colour of the frame of each box of this page, by the column that colours the particles; empty if not selected."""
        rows, session = self._index.get_indexer(self.shown), self.inspection.session
        inks = style.particle_inks(session, self.inspection.colour_by)[rows]
        return [style.hexadecimal(ink) if on else "" for ink, on in zip(inks, session.selected[rows], strict=True)]

    def picture(self) -> bytes:
        """The boxes of this page as one PNG, without a page empty."""
        if self.inspection.subtomograms is None or not len(self.shown):
            return b""
        cut, rows = self.inspection.subtomograms.choose(self.shown), -(-len(self.shown) // self.columns)
        flat = images.flattened(cut.volumes[:], cut.voxel_size, view=self.view, low_pass=self.low_pass or None)
        box = flat.shape[1]
        sheet = np.full((rows * self.columns, box, box), np.nan, dtype=np.float32)
        for place, one in zip(sheet, flat, strict=False):
            grey = images.limits(one, 1, 99.8)
            place[:] = (one - grey["vmin"]) / (grey["vmax"] - grey["vmin"])
        sheet[:, :1] = sheet[:, :, :1] = np.nan
        pages = sheet.reshape(rows, self.columns, box, box).swapaxes(1, 2).reshape(rows * box, self.columns * box)
        return images.png(pages, vmin=0.0, vmax=1.0)
