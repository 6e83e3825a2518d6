"""Fixtures shared by all tests: a phantom without symmetry, groups of features, and a web server on this machine."""

import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tomolab.vectors import Embedding
from tomolab.volumes import Volume


def blob(box: int, at: tuple[float, float, float], sigma: float) -> np.ndarray:
    """Gaussian of width `sigma` voxels at a zyx offset from the centre of the box."""
    axes = np.meshgrid(*[np.arange(box) - box // 2] * 3, indexing="ij")
    return np.exp(-sum((axis - place) ** 2 for axis, place in zip(axes, at, strict=True)) / (2 * sigma**2))


@pytest.fixture(scope="session")
def phantom() -> Volume:
    """32 voxels of 10 Å: three unequal arms and a bead off the axes, so no rotation or mirror maps it onto itself."""
    data = np.zeros((32, 32, 32))
    for arm, length in enumerate((9, 6, 4)):
        for step in np.linspace(0, length, 2 * length):
            place = [0.0, 0.0, 0.0]
            place[arm] = step
            data += 0.3 * blob(32, tuple(place), 1.5)
    data += 1.5 * blob(32, (-4, 3, 5), 1.5)
    return Volume(data, 10.0)


@pytest.fixture
def groups() -> tuple[Embedding, pd.Series]:
    """Three directions in feature space with 40, 30 and 20 particles, in random order, and the truth."""
    rng = np.random.default_rng(3)
    true = rng.permutation(np.repeat([0, 1, 2], [20, 40, 30]))
    ids = rng.choice(10_000, 90, replace=False)
    vectors = 5 * np.eye(8)[true] + 0.3 * rng.normal(size=(90, 8))
    return Embedding(ids, vectors, ""), pd.Series(np.array(["small", "large", "middle"])[true], index=ids)


@dataclass
class Server:
    """A web server on this machine: it serves `folder` at `url`, fails at /fail, and notes what was asked."""

    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server(tmp_path_factory):
    state = Server(tmp_path_factory.mktemp("server"))

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            if self.path == "/fail":
                self.send_error(500)
            else:
                super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(state.folder))) as web:
        state.url = f"http://127.0.0.1:{web.server_port}"
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield state
        web.shutdown()
        thread.join()
