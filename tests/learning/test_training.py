import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from tomolab import learning, simulation
from tomolab.io import paths
from tomolab.learning import checkpoints, metrics, networks, training
from tomolab.simulation import Imaging, Stream
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
    return simulation.Stream(maps, imaging=IMAGING, box=12, batch_size=16, epoch_size=64, seed=1)


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
    longer = simulation.Stream(stream.densities, imaging=IMAGING, box=12, batch_size=16, epoch_size=320, seed=1)
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

    def cut(self: Stream, number: int, *, start: int = 0):
        for i, batch in enumerate(whole(self, number, start=start)):
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
    data = learning.Labelled(held_back, batch_size=8, balanced=True, seed=2)
    network = networks.create("compact", box=12, classes=data.classes)
    record = training.fit(network, data, validation=held_back, epochs=1, seed=0, folder=tmp_path, device="cpu", progress=False)
    assert len(record["history"]) == 1


def test_data_network_and_options_must_agree(stream: Stream, held_back: Subtomograms, tmp_path: Path) -> None:
    network = networks.create("compact", box=12, classes=["a", "b"])
    with pytest.raises(ValueError, match="the data have classes whole, half, the network a, b"):
        training.fit(network, stream, validation=held_back, epochs=1, seed=0, folder=tmp_path)
    for options, told in (
        ({"keep": "first"}, 'keep is "last" or "best", got \'first\''),
        ({"novel": held_back}, "of which the network knows half, whole"),
    ):
        with pytest.raises(ValueError, match=told):
            fit(stream, held_back, tmp_path, **options)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def left_out(maps: dict[str, Volume]) -> Subtomograms:
    """Two classes that no test trains on."""
    quarters = {}
    for name, sides in (("front", np.s_[:, 16:]), ("left", np.s_[:, :, 16:])):
        data = maps["whole"].data.copy()
        data[sides] = 0
        quarters[name] = Volume(data, 10.0)
    return simulation.subtomograms(quarters, 12, imaging=IMAGING, box=12, seed=10)


def test_the_best_weights_are_kept_across_a_cut(
    stream: Stream, held_back: Subtomograms, left_out: Subtomograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the middle of an epoch, a run goes on from that batch and keeps the same best weights."""
    values = iter([0.1, 0.7, 0.3])
    judged: list[str] = []

    def novel(network: networks.Network, subtomograms: Subtomograms, **_: object) -> dict[str, float]:
        assert subtomograms is left_out
        judged.append(networks.digest(network))
        return {"novel_ari": next(values), "novel_purity": 0.5}

    monkeypatch.setattr(metrics, "novel", novel)
    starts, whole = [], Stream.epoch

    def cut(self: Stream, number: int, *, start: int = 0):
        starts.append((number, start))
        for i, batch in enumerate(whole(self, number, start=start), start):
            if (number, i) in troubles:
                troubles.remove((number, i))
                raise RuntimeError("power failure")
            yield batch

    monkeypatch.setattr(Stream, "epoch", cut)
    troubles = [(0, 3), (2, 1)]
    more = {"novel": left_out, "keep": "best", "checkpoint_minutes": 0.0}
    for _ in range(2):
        with pytest.raises(RuntimeError, match="power failure"):
            fit(stream, held_back, tmp_path / "cut", **more)
    resumed, record = fit(stream, held_back, tmp_path / "cut", **more)
    assert starts == [(0, 0), (0, 3), (1, 0), (2, 0), (2, 1)]
    assert record["kept"] == 2
    assert [row["novel_ari"] for row in record["history"]] == [0.1, 0.7, 0.3]
    assert networks.digest(resumed) == judged[1] != judged[2]
    values = iter([0.1, 0.7, 0.3])
    straight, unbroken = fit(stream, held_back, tmp_path / "straight", **more)
    assert networks.digest(straight) == networks.digest(resumed)
    columns = ("train_loss", "train_accuracy", "loss", "accuracy")
    assert [[row[name] for name in columns] for row in unbroken["history"]] == [
        [row[name] for name in columns] for row in record["history"]
    ]
    assert networks.digest(networks.load(tmp_path / "cut" / "network.safetensors")) == judged[1]
    # A run that is over is told again with the weights that were kept.
    again, same = fit(stream, held_back, tmp_path / "cut", **more)
    assert networks.digest(again) == judged[1]
    assert same["confusion"] == record["confusion"]


def test_novel_classes_join_the_history(
    stream: Stream, held_back: Subtomograms, left_out: Subtomograms, tmp_path: Path
) -> None:
    seen: list[int] = []
    network, record = fit(
        stream, held_back, tmp_path, epochs=2, novel=left_out, watch=lambda history: seen.append(len(history))
    )
    assert record["history"][-1] | metrics.novel(network, left_out, seed=3, precision="float32") == record["history"][-1]
    assert {"novel_ari", "novel_purity"} < set(pd.read_csv(tmp_path / "history.csv").columns)
    assert seen == [1, 2]


def test_training_stops_when_nothing_gets_better(
    stream: Stream, held_back: Subtomograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([0.3, 0.5, 0.4, 0.5, 0.9])
    evaluate = metrics.evaluate
    monkeypatch.setattr(metrics, "evaluate", lambda *args, **more: evaluate(*args, **more) | {"accuracy": next(shares, 0.0)})
    _, record = fit(stream, held_back, tmp_path, epochs=9, patience=2)
    assert [row["accuracy"] for row in record["history"]] == [0.3, 0.5, 0.4, 0.5]
    _, same = fit(stream, held_back, tmp_path, epochs=9, patience=2)
    assert len(same["history"]) == 4


def test_dropout_leaves_the_random_numbers_of_others_alone(stream: Stream, held_back: Subtomograms, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(stream, held_back, tmp_path, name="inception3d", epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_an_estimate_leaves_the_network_alone(stream: Stream) -> None:
    network = networks.create("compact", box=12, classes=stream.classes)
    before = networks.digest(network)
    expected = training.estimate(network, stream, epochs=10, batches=2, device="cpu")
    assert networks.digest(network) == before
    assert expected["seconds"] == pytest.approx(10 * 64 / expected["per_second"])


def test_two_kernels_do_not_train_into_one_folder(
    stream: Stream, held_back: Subtomograms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "PATIENCE", 0.1)
    with (
        paths.lock(tmp_path / "training"),
        pytest.raises(BlockingIOError, match=r"another process has been writing .*training"),
    ):
        fit(stream, held_back, tmp_path, epochs=1)
    assert not list(tmp_path.iterdir())
