"""Takes a run folder, serves its inspector as a page: of this machine only, and only to those who have the token.

For each page that is opened, Voilà runs one cell, which shows the inspector, in a kernel of its own. It runs no code that a
browser sends.

>>> server.serve("runs/first")
"""

import errno
import getpass
import logging
import secrets
import signal
import socket
import tempfile
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from traitlets.config import Config
from voila.app import Voila
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

ADDRESS = "127.0.0.1"
PORTS = range(8866, 8886)
"""Ports to try where none is given."""
TABLE = "clusters.csv"
"""What a run folder must have to be inspected."""
SETTINGS = {
    "Voila": {"ip": ADDRESS, "port_retries": 0, "open_browser": False, "log_level": "ERROR"},
    "VoilaConfiguration": {"file_allowlist": [], "allow_template_override": "NO", "allow_theme_override": "NO"},
    # The kernel is a file in a folder of this user, not another port.
    # It is ended at once: every file is written completely or not at all, and averages go on from their last state.
    "KernelManager": {"transport": "ipc", "shutdown_wait_time": 1.0},
}


class Server(Voila):  # type: ignore[misc]
    """Voilà with the channels of Jupyter.

    Its own hide the source of cells, of which there is none here, and read for ever in some messages that hold arrays.
    """

    def init_handlers(self) -> list[Any]:
        """The handlers by address."""
        ours = {VoilaKernelWebsocketHandler: KernelWebsocketHandler}
        return [(address, ours.get(handler, handler), *options) for address, handler, *options in super().init_handlers()]


def serve(folder: str | Path, *, port: int | None = None, browser: bool = True, say: Callable[[str], object] = print) -> None:
    """Show the inspector of a run folder in the browser until Ctrl-C.

    Parameters
    ----------
    folder
        The run folder.
    port
        Of the page; by default the first of `PORTS` that is free.
    browser
        Open a browser; otherwise say what to type on the machine that has one.
    say
        Called with each line for the user.

    Raises
    ------
    FileNotFoundError
        If there is no folder or it is no run folder.
    OSError
        If the port cannot be used.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not (folder / TABLE).is_file():
        problem = f"{folder} is no run folder that can be inspected: it has no {TABLE}"
        raise FileNotFoundError(f"{problem}, which tomolab import and the notebook 05_clusters write")
    port = _free(port)
    token = secrets.token_urlsafe(24)
    url = f"http://{ADDRESS}:{port}/?token={token}"
    with tempfile.TemporaryDirectory(prefix="tomolab-", ignore_cleanup_errors=True) as place:
        path = Path(place, "inspector.ipynb")
        nbformat.write(_notebook(folder), path)
        server = Server(
            notebook_path=str(path),
            port=port,
            token=token,
            connection_dir_root=place,
            config_file_paths=[],
            config=Config(SETTINGS),
        )
        server.initialize([])
        _end_by_signals(server)
        # What is refused for want of the token does not concern the user.
        logging.getLogger("tornado").setLevel(logging.CRITICAL)
        server.template_paths.insert(0, str(Path(__file__).with_name("page")))
        # A page of another site that calls itself by this address is refused.
        server.tornado_settings = {"allow_remote_access": False, "ws_ping_interval": 30_000, "ws_ping_timeout": 30_000}
        say(f"The inspector of {folder} is at\n    {url}")
        if browser:
            webbrowser.open(url)
        else:
            there = f"{getpass.getuser()}@{socket.gethostname()}"
            say(f"To open it from your laptop, type there\n    ssh -N -L {port}:{ADDRESS}:{port} {there}")
            say("and open the same address.")
        say("Press Ctrl-C here to end it.")
        server.start()


def _end_by_signals(server: Voila) -> None:
    """End the kernels, then the server, when the user presses Ctrl-C; only once, however often."""

    async def end() -> None:
        await server.kernel_manager.shutdown_all()
        server.ioloop.stop()

    def stop(*_: object) -> None:
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, signal.SIG_IGN)
        server.ioloop.add_callback_from_signal(end)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)


def _free(port: int | None) -> int:
    """Find a port that can be used: this one, or the first of `PORTS`."""
    if port is not None and not 0 < port < 65_536:
        raise OSError(f"port {port} cannot be used: a port is a number from 1 to 65535")
    for one in PORTS if port is None else [port]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ADDRESS, one))
            except OSError as error:
                problem = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
                continue
        return one
    raise OSError(f"port {port} {problem}" if port else f"the ports {PORTS[0]} to {PORTS[-1]} are taken")


def _notebook(folder: Path) -> nbformat.NotebookNode:
    """Make the notebook of which Voilà makes the page."""
    cell = nbformat.v4.new_code_cell(f"from tomolab.ui.notebook import pages\npages.Page({str(folder)!r})")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=[cell], metadata={"title": f"{folder.name} · tomolab", "kernelspec": kernel})
