"""Takes functions, calls them in the thread of the window (only that may change widgets) or in background threads.

>>> inspection.changed.connect(in_window(panel.update))
>>> in_background(lambda: inspection.open(folder), then=show, failed=tell)
"""

import threading
from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

from qtpy.QtCore import QCoreApplication, QObject, Signal, Slot  # type: ignore[attr-defined]


class Caller(QObject):
    """Calls every sent function in the thread of the Qt application.

    One object serves all calls: an object per call, as in superqt, may be destroyed in another thread while Qt still uses it.
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
    """Wrap a function so that it runs in the thread of the window: at once in that thread, else when the window is idle."""

    @wraps(function)
    def call(*arguments: Any) -> None:
        _caller().sent.emit(partial(function, *arguments))

    return call


def in_background(work: Callable[[], Any], *, then: Callable[[Any], Any], failed: Callable[[Exception], Any]) -> None:
    """Run a function in a background thread, and call `then` or `failed` in the thread of the window.

    Parameters
    ----------
    work
        A function without arguments.
    then
        Called with its result.
    failed
        Called with its exception.
    """

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - the window shows every error
            in_window(failed)(error)
        else:
            in_window(then)(result)

    # A daemon, so that closing the window does not wait for it.
    threading.Thread(target=run, daemon=True).start()
