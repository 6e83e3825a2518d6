"""Delivery: what another thread has found out is shown by the thread of the window, the only one that may.

>>> show = delivery.to(viewer)
>>> job.watch(lambda job: show(lambda: label.setText(str(job.progress))))
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari.components import ViewerModel

Work = Callable[[], Any]


def to(viewer: "ViewerModel") -> Callable[[Work], Any]:
    """A function that has its argument called in the thread of the viewer's window, at once if that is this thread.

    Parameters
    ----------
    viewer
        Of napari. One without a window belongs to no thread: there it is called where it is.
    """
    return qt() if hasattr(viewer, "window") else _here


def _here(work: Work) -> None:
    work()


def qt() -> Callable[[Work], Any]:
    """As `to`, for the thread that asks for it, which must be that of Qt."""
    from qtpy.QtCore import QObject, Signal, Slot  # type: ignore[attr-defined]

    class Post(QObject):  # type: ignore[misc]
        sent = Signal(object)

        def __init__(self) -> None:
            super().__init__()
            # A slot of an object: Qt queues it for the thread in which the object was made.
            self.sent.connect(self.run)

        @Slot(object)
        def run(self, work: Work) -> None:
            work()

    post = Post()
    # The signal alone would not keep its owner alive.
    return lambda work: post.sent.emit(work)
