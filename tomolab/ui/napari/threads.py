"""Takes functions of any thread, calls them in the thread of the window, which alone may show; and takes work to other threads.

>>> inspection.changed.connect(in_window(panel.update))
>>> in_background(lambda: inspection.open(folder), then=show, failed=tell)
"""

import threading
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

from qtpy.QtCore import QCoreApplication, QObject, Signal, Slot  # type: ignore[attr-defined]


class Caller(QObject):
    """Calls in the thread of the Qt application whatever function is sent.

    There is one for all calls: an object for each, as superqt makes, may be destroyed in another thread while Qt still uses it.
    """

    sent = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        application = QCoreApplication.instance()
        if application is None:
            raise RuntimeError("nothing can be shown: no Qt application runs")
        self.moveToThread(application.thread())
        # A slot of an object: Qt queues it for the thread to which the object belongs.
        self.sent.connect(self._call)

    @Slot(object)
    def _call(self, work: Callable[[], Any]) -> None:
        work()


_caller = cache(Caller)


def in_window(function: Callable[..., None]) -> Callable[..., None]:
    """The function, called in the thread of the window: at once if that is this thread, else as soon as the window has time."""

    @wraps(function)
    def call(*arguments: Any) -> None:
        _caller().sent.emit(partial(function, *arguments))

    return call


def in_background(work: Callable[[], Any], *, then: Callable[[Any], Any], failed: Callable[[Exception], Any]) -> None:
    """Do work in a thread of its own, and tell the thread of the window what came of it.

    Parameters
    ----------
    work
        A function without arguments.
    then
        Called with its result.
    failed
        Called with what it raised instead.
    """

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be told in the window
            in_window(failed)(error)
        else:
            in_window(then)(result)

    # A window that is closed does not wait for it.
    threading.Thread(target=run, daemon=True).start()
