import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from tomolab import checkpoints, networks, simulation, training
from tomolab.imaging import Imaging
from tomolab.simulation import Stream
from tomolab.subtomograms import Subtomograms
from tomolab.volumes import Volume

IMAGING = Imaging(snr=1.0, defocus=None)


@pytest.fixture(scope="module")
def maps(phantom: Volume) -> dict[str, Volume]:
    half = phantom.data.copy()
    half[16:] = 0
    return {"whole": phantom, "half": Volume(half, phantom.voxel_size)}


@pytest.fixture(scope="module")
def stream(maps: dict[str, Volume]) -> Stream:
    return simulation.stream(maps, imaging=IMAGING, box=12, batch_size=16, epoch_size=64, seed=1)


@pytest.fixture(scope="module")
def held_back(maps: dict[str, Volume]) -> Subtomograms:
    return simulation.subtomograms(maps, 12, imaging=IMAGING, box=12, seed=9)


def fit(
    stream: Stream, held_back: Subtomograms, folder: Path, *, name: str = "compact", epochs: int = 3, **more: object
) -> tuple:
    network = networks.create(name, box=12, classes=stream.classes, voxel_size=10.0)
    record = training.fit(
        network,
        stream,
        validation=held_back,
        epochs=epochs,
        seed=3,
        folder=folder,
        device="cpu",
        precision="float32",
        progress=False,
        **more,
    )
    return network, record


def test_training_learns_and_leaves_its_files(stream: Stream, held_back: Subtomograms, tmp_path: Path) -> None:
    longer = simulation.stream(stream.densities, imaging=IMAGING, box=12, batch_size=16, epoch_size=320, seed=1)
    network, record = fit(longer, held_back, tmp_path, epochs=4)
    history = pd.DataFrame(record["history"])
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert history["accuracy"].max() > 0.7
    assert np.array(record["confusion"]).sum() == len(held_back)
    loaded = networks.load(tmp_path / "network.safetensors")
    assert networks.digest(loaded) == networks.digest(network)
    assert len(pd.read_csv(tmp_path / "history.csv")) == 4


@pytest.mark.parametrize("name", ["compact", "inception3d"])
def test_a_cut_run_ends_with_the_weights_of_an_unbroken_one(
    name: str, stream: Stream, held_back: Subtomograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, _ = fit(stream, held_back, tmp_path / "straight", name=name)
    whole = Stream.epoch

    def cut(self: Stream, number: int):
        for i, batch in enumerate(whole(self, number)):
            if number == 1 and i == 2:
                raise RuntimeError("power failure")
            yield batch

    monkeypatch.setattr(Stream, "epoch", cut)
    with pytest.raises(RuntimeError, match="power failure"):
        fit(stream, held_back, tmp_path / "cut", name=name)
    monkeypatch.undo()
    resumed, record = fit(stream, held_back, tmp_path / "cut", name=name)
    assert networks.digest(resumed) == networks.digest(straight)
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3]


def test_a_finished_run_is_not_repeated_and_resume_can_be_refused(
    stream: Stream, held_back: Subtomograms, tmp_path: Path
) -> None:
    first, record = fit(stream, held_back, tmp_path, epochs=2)
    again, same = fit(stream, held_back, tmp_path, epochs=2)
    assert networks.digest(first) == networks.digest(again)
    assert same["history"] == record["history"]
    anew, fresh = fit(stream, held_back, tmp_path, epochs=2, resume=False)
    assert networks.digest(anew) == networks.digest(first)
    assert fresh["history"][0]["seconds"] != record["history"][0]["seconds"]


def test_a_checkpoint_of_another_training_is_refused(stream: Stream, held_back: Subtomograms, tmp_path: Path) -> None:
    fit(stream, held_back, tmp_path, epochs=1)
    with pytest.raises(ValueError, match=r"another training \(network 'compact', now 'dsrf3d'"):
        fit(stream, held_back, tmp_path, name="dsrf3d", epochs=1)
    with safe_open(tmp_path / checkpoints.NAME, framework="pt") as file:
        assert json.loads(file.metadata()["plan"])["network"] == "compact"


def test_labelled_subtomograms_train_too(held_back: Subtomograms, tmp_path: Path) -> None:
    data = training.labelled(held_back, batch_size=8, seed=2)
    assert data.classes == ("half", "whole")
    seen = torch.cat([labels for _, labels in data.epoch(0)])
    assert len(seen) == len(held_back)
    assert int(seen.sum()) == 12
    orders = [torch.cat([volumes.flatten(1)[:, 0] for volumes, _ in data.epoch(number)]) for number in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    network = networks.create("compact", box=12, classes=data.classes)
    record = training.fit(network, data, validation=held_back, epochs=1, seed=0, folder=tmp_path, device="cpu", progress=False)
    assert len(record["history"]) == 1


def test_labels_and_classes_must_agree(stream: Stream, held_back: Subtomograms, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels half, whole are not among the classes ribosome"):
        training.labelled(held_back, classes=("ribosome",))
    network = networks.create("compact", box=12, classes=["a", "b"])
    with pytest.raises(ValueError, match="the data have classes whole, half, the network a, b"):
        training.fit(network, stream, validation=held_back, epochs=1, seed=0, folder=tmp_path)
    bare = Subtomograms(held_back.volumes, held_back.particles.drop(columns="label"), voxel_size=10.0)
    with pytest.raises(ValueError, match="needs a column 'label'"):
        training.labelled(bare)


def test_evaluate_counts_what_was_predicted(held_back: Subtomograms) -> None:
    network = networks.create("compact", box=12, classes=["whole", "half"])
    with torch.no_grad():
        network.head.vectors[1] = -network.head.vectors[0]
    judged = training.evaluate(network, held_back)
    assert judged["confusion"].sum() == len(held_back)
    assert judged["accuracy"] == pytest.approx(np.trace(judged["confusion"]) / len(held_back))
    assert network.training
