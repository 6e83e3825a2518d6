"""Takes an inspection and the ticked clusters, runs the action of a button; both inspectors show the table `ACTIONS`.

A screen lays out the actions by `group` and shows title, keys and `help` of each. A new button needs one entry in `ACTIONS`.

>>> merge, choice = ACTIONS["merge"], Choice([0, 3])
>>> merge.problem(work, choice)               # why the action is disabled; empty if it is enabled
''
>>> merge.do(work, choice)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tomolab.inspection import exports
from tomolab.inspection.history import counted
from tomolab.inspection.model import ENGINES, QUICK, Inspection

GROUPS = ("history", "selection", "clusters", "averages", "export")
"""Groups of buttons, in the order of the screen."""


@dataclass(frozen=True)
class Choice:
    """The ticked clusters, in the order of ticking, and the values of the fields beside the buttons.

    `n_clusters` is the number of clusters of a split, `n_similar` that of similar particles. The others are options of
    `Inspection.average`; `Inspection.discover` takes symmetry and mask.
    """

    clusters: Sequence[int] = ()
    n_clusters: int = 2
    n_similar: int = 50
    engine: str = ENGINES[0]
    classes: int = 1
    symmetry: str = "C1"
    mask_diameter: float | None = None


@dataclass(frozen=True)
class Action:
    """A button with its keys.

    Parameters
    ----------
    title, tooltip, icon
        Its label, what it does, and its picture (Font Awesome).
    keys
        In Qt's notation; they work while the inspector has the focus.
    group
        One of `GROUPS`.
    problem
        Why the action is disabled; empty if it is enabled.
    run
        Runs the action; None where the screen itself runs it.
    slow
        Whether `run` may take long. Then `run` changes nothing, may run in any thread, and returns a function that makes the
        change.
    detail
        What the action would apply to now.
    """

    title: str
    tooltip: str
    icon: str
    keys: tuple[str, ...]
    group: str
    problem: Callable[[Inspection, Choice], str]
    run: Callable[[Inspection, Choice], Any] | None = None
    slow: bool = False
    detail: Callable[[Inspection, Choice], str] | None = None

    def do(self, work: Inspection, choice: Choice) -> None:
        """Run the action now; ValueError if it is disabled."""
        problem = self.problem(work, choice)
        if problem or self.run is None:
            raise ValueError(problem or f"{self.title} is done by a screen")
        change = self.run(work, choice)
        if self.slow:
            change()

    def help(self, work: Inspection, choice: Choice) -> str:
        """Tooltip with the keys, and why the action is disabled or what it would apply to."""
        problem, detail = self.problem(work, choice), self.detail(work, choice) if self.detail else ""
        more = f"\nNot now: {problem}" if problem else f"\nNow: {detail}" if detail else ""
        return f"{self.tooltip} ({', '.join(self.keys)}){more}"


def _split(work: Inspection, choice: Choice) -> Callable[[], Any]:
    return partial(work.session.split, choice.clusters[0], work.split_labels(choice.clusters[0], choice.n_clusters))


def _select_similar(work: Inspection, choice: Choice) -> None:
    given = work.session.chosen("selection", "selected").ids
    found = work.similar(given, choice.n_similar)
    work.session.select([*given.tolist(), *found.tolist()], f"similar to {counted(len(given))}")


def _average(work: Inspection, choice: Choice, **options: Any) -> None:
    clusters: Sequence[int | None] = choice.clusters or (None,)
    for cluster in clusters:
        work.average(cluster, symmetry=choice.symmetry, mask_diameter=choice.mask_diameter, **options)


def averaged(work: Inspection, choice: Choice) -> str:
    """The particles that would be averaged: the ticked clusters, or the selection, with their numbers of particles."""
    return exports.taken_text(work, choice.clusters)


def exported(work: Inspection, choice: Choice) -> str:
    """The particles that would be exported: the ticked clusters, or the selection, or all."""
    return exports.taken_text(work, choice.clusters, every=True)


def _is_narrowed(work: Inspection) -> bool:
    return bool(work.session.filters) or any(one.hidden for one in work.session.clusters.values())


def none_ticked(_: Inspection, choice: Choice) -> str:
    """What to do if no cluster is ticked."""
    return "" if choice.clusters else "tick one cluster or more"


def discovered(work: Inspection, choice: Choice) -> str:
    """The clusters in which structures would be searched for."""
    session = work.session
    hidden = "" if session.visible.all() else "; hidden particles do not take part"
    if not session.clusters:
        return f"of all {len(session.ids):,} particles, which are in no cluster{hidden}"
    accepted = sum(one.accepted for one in session.clusters.values())
    every = (
        f"the {len(session.clusters) - accepted} clusters that are not accepted"
        if accepted
        else f"all {len(session.clusters)} clusters"
    )
    return f"of {', '.join(map(session.title, choice.clusters)) or every}{hidden}"


ACTIONS = {
    "undo": Action(
        "Undo",
        "Undo the last step",
        "undo",
        ("U", "Ctrl+Z"),
        "history",
        problem=lambda work, _: "" if work.session.history.past else "there is nothing to undo",
        run=lambda work, _: work.session.undo(),
        detail=lambda work, _: work.session.history.past[-1].what if work.session.history.past else "",
    ),
    "redo": Action(
        "Redo",
        "Redo the step that was undone last",
        "repeat",
        ("R", "Ctrl+Shift+Z"),
        "history",
        problem=lambda work, _: "" if work.session.history.future else "nothing was undone",
        run=lambda work, _: work.session.redo(),
        detail=lambda work, _: work.session.history.future[-1].what if work.session.history.future else "",
    ),
    "clear": Action(
        "Clear",
        "Select nothing",
        "eraser",
        ("Esc",),
        "history",
        problem=lambda work, _: "" if work.session.selected.any() else "nothing is selected",
        run=lambda work, _: work.session.select([], "cleared"),
    ),
    "select_shown": Action(
        "Select shown",
        "Select all particles that are shown: those within the filters and in no hidden cluster",
        "check-square",
        ("Ctrl+A",),
        "selection",
        problem=lambda work, _: "" if work.session.visible.any() else "all particles are hidden",
        run=lambda work, _: work.session.select(work.session.ids[work.session.visible], "all that are shown"),
    ),
    "similar": Action(
        "Find similar",
        "Select the particles whose features are nearest to the selected ones, as many as the field says, and these",
        "binoculars",
        ("F",),
        "selection",
        problem=lambda work, _: work.similar_problem(),
        run=_select_similar,
    ),
    "only": Action(
        "Show only",
        "Hide all clusters but the ticked ones",
        "eye",
        ("O",),
        "selection",
        problem=none_ticked,
        run=lambda work, choice: work.session.show_only(*choice.clusters),
    ),
    "all": Action(
        "Show all",
        "Remove all filters, and show hidden clusters",
        "globe",
        ("Shift+O",),
        "selection",
        problem=lambda work, _: "" if _is_narrowed(work) else "no filter is set, and no cluster is hidden",
        run=lambda work, _: work.session.show_only(),
    ),
    "new_cluster": Action(
        "New cluster",
        "Make a cluster of the selected particles; they leave the clusters that they were in",
        "plus",
        ("N",),
        "clusters",
        problem=lambda work, _: "" if work.session.chosen_rows.any() else "select particles first",
        run=lambda work, _: work.session.new_cluster(),
    ),
    "merge": Action(
        "Merge",
        "Merge the ticked clusters into one, which keeps the name of the first",
        "compress",
        ("M",),
        "clusters",
        problem=lambda _, choice: "" if len(choice.clusters) > 1 else "tick two clusters or more",
        run=lambda work, choice: work.session.merge(choice.clusters),
    ),
    "unassign": Action(
        "Unassign",
        "Remove the ticked clusters; their particles are then in no cluster",
        "times",
        ("X",),
        "clusters",
        problem=none_ticked,
        run=lambda work, choice: work.session.unassign(*choice.clusters),
    ),
    "discover": Action(
        "Discover",
        "Find the structures of the ticked clusters, or of all that are not accepted, as clusters with their averages",
        "search",
        ("D",),
        "clusters",
        problem=lambda work, choice: work.discover_problem(choice.clusters),
        run=lambda work, choice: work.discover(choice.clusters, symmetry=choice.symmetry, mask_diameter=choice.mask_diameter),
        detail=discovered,
    ),
    "accept": Action(
        "Accept",
        "Mark the ticked clusters as final, so that Discover leaves them out where none is ticked; again to take it back",
        "check",
        ("K",),
        "clusters",
        problem=none_ticked,
        run=lambda work, choice: work.session.accept(*choice.clusters),
    ),
    "send_back": Action(
        "Send back",
        "Return the particles of the ticked clusters to the clusters that they were in before they came here",
        "reply",
        ("B",),
        "clusters",
        problem=none_ticked,
        run=lambda work, choice: work.session.send_back(*choice.clusters),
    ),
    "split": Action(
        "Split",
        "Divide the ticked cluster by k-means of its features, into as many clusters as the field says",
        "expand",
        ("S",),
        "clusters",
        problem=lambda work, choice: work.split_problem(choice.clusters),
        run=_split,
        slow=True,
    ),
    "average": Action(
        "Average",
        "Average each ticked cluster, or the selected particles where none is ticked",
        "play",
        ("A",),
        "averages",
        problem=lambda work, choice: work.average_problem(choice.clusters, engine=choice.engine),
        run=lambda work, choice: _average(work, choice, engine=choice.engine, classes=choice.classes),
        detail=averaged,
    ),
    "quick": Action(
        "Quick look",
        f"Average only the {QUICK} most typical particles in few iterations, with tomolab",
        "bolt",
        ("Q",),
        "averages",
        problem=lambda work, choice: work.average_problem(choice.clusters),
        run=partial(_average, quick=True),
        detail=averaged,
    ),
    "export": Action(
        "Export…",
        "Write the particles of the ticked clusters, or else the selection, or else of all clusters, for other programs",
        "download",
        ("E",),
        "export",
        problem=lambda work, _: exports.problem(work),
        detail=exported,
    ),
}
"""The actions of an inspector by name, in the order of the screen."""
