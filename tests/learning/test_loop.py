"""A loop over several processes is the loop of one."""

import os
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tomolab import learning, particles
from tomolab.learning import loop as training_loop
from tomolab.learning import networks, recipes
from tomolab.learning.loop import Loop
from tomolab.subtomograms import Subtomograms

SCRIPT = """
import os, sys
from dataclasses import replace
from pathlib import Path
from tomolab import learning, subtomograms
from tomolab.learning import networks, recipes, training

source, folder = sys.argv[1:]
whole = subtomograms.open(source)
data = learning.Labelled(whole, batch_size=13, balanced=True, seed=1)
network = networks.create("dsrf3d", box=8, classes=data.classes, seed=2)
recipe = replace(recipes.recipe("dsrf3d"), margin=0.5, learning_rate=0.02)
common = dict(validation=whole, epochs=3, seed=1, folder=folder, device="cpu", precision="float32", progress=False)
training.fit(network, data, recipe=recipe, **common)
(Path(folder) / f"digest.{os.environ.get('RANK', 'alone')}").write_text(networks.digest(network))
"""


@pytest.fixture(scope="module")
def blobs() -> Subtomograms:
    """Noise with a bright corner or a bright edge, 15 of each."""
    rng = np.random.default_rng(1)
    volumes = rng.normal(size=(30, 8, 8, 8)).astype(np.float32)
    volumes[:15, :3, :3, :3] += 1
    volumes[15:, :, 5:, 5:] += 1
    return Subtomograms(volumes, particles.table(np.zeros((30, 3)), label=["corner"] * 15 + ["edge"] * 15), 10.0)


def test_two_processes_train_as_one(blobs: Subtomograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss over two processes with half batches each (of odd sizes) is that of one with whole batches."""
    source = str(blobs.save(tmp_path / "blobs.zarr"))
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(script), source, str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "argv", [str(script), source, str(tmp_path / "one")])
    runpy.run_path(str(script))
    one, two = (networks.describe(tmp_path / name / "network.safetensors")["record"] for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    for column in ("train_loss", "loss"):
        curves = [[row[column] for row in record["history"]] for record in (one, two)]
        np.testing.assert_allclose(*curves, atol=1e-4)
    # The curves do not agree because nothing happens.
    assert one["history"][0]["train_loss"] - one["history"][-1]["train_loss"] > 0.01
    digests = {(tmp_path / "two" / f"digest.{rank}").read_text() for rank in (0, 1)}
    assert len(digests) == 1


def looped(blobs: Subtomograms, name: str = "inception3d", **more: object) -> Loop:
    data = learning.Labelled(blobs, batch_size=10, seed=1)
    network = networks.create(name, box=8, classes=data.classes, seed=2)
    fabric = training_loop.launch(torch.device("cpu"), bfloat16=False)
    loop = Loop(network, data, recipe=replace(recipes.recipe(name), **more), epochs=2, seed=3, fabric=fabric)
    loop.start()
    return loop


def test_an_epoch_can_begin_anywhere(blobs: Subtomograms) -> None:
    """Data, drop-out and rate of a batch are the same whatever came before."""
    whole, later = looped(blobs, learning_rate=1e-12), looped(blobs, learning_rate=1e-12)
    sums = list(whole.epoch(1))
    assert [float(one[2]) for one in sums] == [10, 10, 10]
    torch.testing.assert_close(next(later.epoch(1, start=2)), sums[2])
    assert not torch.allclose(next(later.epoch(0, start=2)), sums[2])


def test_gradients_are_clipped_as_the_recipe_says(blobs: Subtomograms) -> None:
    free, held = looped(blobs, clip=None), looped(blobs, clip=1e-3)
    norms = []
    for loop in (free, held):
        next(loop.epoch(0))
        gradients = [tensor.grad.norm() for tensor in loop.network.parameters() if tensor.grad is not None]
        norms.append(float(torch.stack(gradients).norm()))
    assert norms[0] > 0.01
    assert norms[1] == pytest.approx(1e-3, rel=0.01)
