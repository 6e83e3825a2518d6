"""Delivery: what another thread has found out is shown by the thread of the window, the only one that may.

>>> show = threads.to(viewer)
>>> job.watch(lambda job: show(lambda: label.setText(str(job.progress))))
"""

import threading
from collections.abc import Callable
from functools import cache, partial
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
    """As `to`, for the thread of the Qt application, which must be there.

    Raises
    ------
    RuntimeError
        If there is no application.
    """
    from qtpy.QtCore import QCoreApplication

    application = QCoreApplication.instance()
    if application is None:
        raise RuntimeError("nothing can be shown: no Qt application runs")
    return _post(application.thread())


@cache
def _post(thread: Any) -> Callable[[Work], Any]:
    """One for all: what waits to be delivered would be lost with its postman."""
    from qtpy.QtCore import QObject, Signal, Slot  # type: ignore[attr-defined]

    class Post(QObject):  # type: ignore[misc]
        sent = Signal(object)

        def __init__(self) -> None:
            super().__init__()
            self.moveToThread(thread)
            # A slot of an object: Qt queues it for the thread to which the object belongs.
            self.sent.connect(self.run)

        @Slot(object)
        def run(self, work: Work) -> None:
            work()

    post = Post()
    return lambda work: post.sent.emit(work)


def later(work: Callable[[], Any], *, then: Callable[[Any], Any], failed: Callable[[Exception], Any]) -> threading.Thread:
    """Do work in a thread of its own, so that the window stays free, and tell the thread of Qt what came of it.

    Parameters
    ----------
    work
        A function without arguments.
    then
        Called with its result.
    failed
        Called with what it raised instead.
    """
    deliver = qt()

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be told in the window
            deliver(partial(failed, error))
        else:
            deliver(lambda: then(result))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread
