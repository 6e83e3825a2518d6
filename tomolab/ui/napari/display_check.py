"""Takes the environment, gives why no window can open, before Qt starts: Qt ends the whole process without a display.

>>> display_problem()
'the display :9 does not answer'
"""

import os
import socket
import sys


def display_problem() -> str:
    """Why no window can open here; empty if one can.

    On Linux this connects to the display, since Qt ends the whole kernel if the display does not answer.
    """
    if sys.platform != "linux" or os.environ.get("WAYLAND_DISPLAY"):
        return ""
    display = os.environ.get("DISPLAY", "")
    if not display:
        return "neither DISPLAY nor WAYLAND_DISPLAY is set"
    host, _, rest = display.rpartition(":")
    number = rest.split(".")[0]
    if not number.isdigit():
        return f"DISPLAY is {display!r}, which names no display"
    remote = bool(host) and host != "unix"
    places = [(socket.AF_INET, (host, 6000 + int(number)))] if remote else _sockets(number)
    return "" if any(_answers(*place) for place in places) else f"the display {display} does not answer"


def _sockets(number: str) -> list[tuple[int, str]]:
    path = f"/tmp/.X11-unix/X{number}"
    return [(socket.AF_UNIX, path), (socket.AF_UNIX, "\0" + path)]


def _answers(family: int, address: str | tuple[str, int]) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as caller:
        caller.settimeout(3)
        return caller.connect_ex(address) == 0
