"""Takes work that takes long, does it in another thread, and gives the result to the thread of the window, which shows it.

>>> in_background(lambda: inspection.open(folder), then=show, failed=tell)
"""

import threading
from collections.abc import Callable
from typing import Any

from superqt.utils import ensure_main_thread


def in_background(work: Callable[[], Any], *, then: Callable[[Any], Any], failed: Callable[[Exception], Any]) -> None:
    """Do work in a thread of its own, and tell the thread of Qt what came of it.

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
            ensure_main_thread(failed)(error)
        else:
            ensure_main_thread(then)(result)

    # A window that is closed does not wait for it.
    threading.Thread(target=run, daemon=True).start()
