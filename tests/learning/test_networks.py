import json
from pathlib import Path

import pytest
import torch

from tomolab.learning import architectures, networks

CLASSES = [f"class{i}" for i in range(22)]


def parameters(network: torch.nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.parameters())


def imagined(name: str, box: int) -> networks.Network:
    """A network whose weights take no memory."""
    with torch.device("meta"):
        return architectures.build(networks.Network(name, box=box, classes=CLASSES, voxel_size=None))


@pytest.mark.parametrize(
    ("name", "box", "millions"),
    [
        *(("inception3d", 40, 17.42), ("inception3d", 32, 7.86), ("dsrf3d", 40, 33.24), ("dsrf3d", 32, 17.25)),
        # The successors are given to three digits.
        *(("dsrf3d_v2", 40, 18.3), ("rb3d", 40, 263)),
    ],
)
def test_published_networks_have_their_published_size(name: str, box: int, millions: float) -> None:
    within = 0.01 if name in ("inception3d", "dsrf3d") else 0.003 * millions
    assert parameters(imagined(name, box)) / 1e6 == pytest.approx(millions, abs=within)


def test_the_mean_of_inception3d_is_average_pooling() -> None:
    layer = networks.create("inception3d", box=8, classes=CLASSES).body[3]
    batch = torch.randn(2, 3, 5, 5, 5, dtype=torch.double)
    torch.testing.assert_close(layer(batch), torch.nn.functional.avg_pool3d(batch, 2, stride=1))


def test_dense_layers_stay_in_float32_on_cpus() -> None:
    network = networks.create("dsrf3d", box=8, classes=CLASSES).eval()
    seen = []
    for layer in network.body:
        layer.register_forward_hook(lambda layer, _, out: seen.append((type(layer).__name__, out.dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network.features(torch.randn(2, 8, 8, 8))
    assert {kind for name, kind in seen if name == "_Dense"} == {torch.float32}
    assert seen[0] == ("Sequential", torch.bfloat16)


@pytest.mark.parametrize(("name", "features"), [("dsrf3d_v2", 16_000), ("rb3d", 256_000), ("cb3d", 10_240), ("yopo", 1360)])
def test_published_networks_have_as_many_features_before_their_dense_layers(name: str, features: int) -> None:
    dense = [layer for layer in imagined(name, 40).modules() if isinstance(layer, torch.nn.Linear)]
    assert dense[0].in_features == features


def test_yopo_has_ten_convolutions_and_fills_up_small_boxes_only() -> None:
    network = networks.create("yopo", box=20, classes=CLASSES).eval()
    found = [layer.out_channels for layer in network.modules() if isinstance(layer, torch.nn.Conv3d)]
    assert found == list(range(64, 209, 16))
    volumes = torch.randn(2, 20, 20, 20)
    framed = torch.nn.functional.pad(volumes, (2,) * 6)
    assert torch.equal(network.features(volumes), network.features(framed))
    larger = torch.randn(2, 22, 22, 22)
    padded = torch.nn.functional.pad(larger, (1,) * 6)
    assert not torch.allclose(network.features(larger), network.features(padded))


def test_gaussian_dropout_has_mean_and_spread_in_training_only() -> None:
    layer = networks.create("yopo", box=16, classes=CLASSES).body[0]
    ones = torch.ones(100_000)
    noisy = layer(ones)
    assert float(noisy.mean()) == pytest.approx(1, abs=0.02)
    assert float(noisy.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(layer.eval()(ones), ones)


@pytest.mark.parametrize(
    ("name", "smallest"), [("compact", 8), ("inception3d", 8), ("dsrf3d", 4), ("dsrf3d_v2", 8), ("cb3d", 16)]
)
def test_boxes_that_are_too_small_are_refused(name: str, smallest: int) -> None:
    with pytest.raises(ValueError, match=f"{name} needs a box of at least {smallest} voxels, got {smallest - 1}"):
        imagined(name, smallest - 1)
    assert imagined(name, smallest).box == smallest
    with pytest.raises(ValueError, match="at least 16 voxels, which are filled up to 24"):
        imagined("yopo", 15)


def test_the_convolutions_of_inception3d_have_the_papers_size() -> None:
    network = networks.create("inception3d", box=16, classes=CLASSES)
    dense = [layer for layer in network.body if isinstance(layer, torch.nn.Linear)]
    assert parameters(network) - sum(parameters(layer) for layer in dense) == 127_120


WIDTHS = {"compact": 64, "dsrf3d": 512, "inception3d": 22, "dsrf3d_v2": 1024, "rb3d": 1024, "cb3d": 4096, "yopo": 1024}


@pytest.mark.parametrize(("name", "width"), WIDTHS.items())
def test_features_logits_and_gradients(name: str, width: int) -> None:
    network = networks.create(name, box=16, classes=CLASSES)
    volumes = torch.randn(4, 16, 16, 16)
    assert network.features(volumes).shape == (4, width)
    logits = network(volumes[:, None])
    assert logits.shape == (4, 22)
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    assert all(tensor.grad is not None and bool(tensor.grad.abs().sum() > 0) for tensor in network.parameters())


@pytest.mark.parametrize("name", networks.names())
def test_a_batch_does_not_change_its_members(name: str) -> None:
    network = networks.create(name, box=16, classes=CLASSES).eval()
    volumes = torch.randn(5, 16, 16, 16)
    assert torch.allclose(network(volumes)[3], network(volumes[3:4])[0], atol=1e-4)


def test_compact_is_small_and_takes_any_box() -> None:
    network = networks.create("compact", box=20, classes=CLASSES).eval()
    assert parameters(network) * 4 < 6e6
    assert network.features(torch.randn(2, 26, 26, 26)).shape == (2, 64)


def test_save_and_load_give_the_same_network(tmp_path: Path) -> None:
    network = networks.create("compact", box=16, classes=CLASSES, voxel_size=20.0, seed=5).eval()
    networks.save(network, tmp_path / "network.safetensors", record={"epochs": 3})
    again = networks.load(tmp_path / "network.safetensors")
    assert (again.name, again.box, again.classes, again.voxel_size) == ("compact", 16, tuple(CLASSES), 20.0)
    assert networks.digest(again) == networks.digest(network)
    assert networks.describe(tmp_path / "network.safetensors")["record"] == {"epochs": 3}
    volumes = torch.randn(2, 16, 16, 16)
    assert torch.equal(again(volumes), network(volumes))


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    networks.save(networks.create("compact", box=16, classes=CLASSES), tmp_path / "network.safetensors")
    with pytest.raises(ValueError, match=r"holds another network than dsrf3d with box 16 and 22 classes"):
        networks.weights(networks.create("dsrf3d", box=16, classes=CLASSES), tmp_path / "network.safetensors")


def test_changed_weights_are_noticed(tmp_path: Path) -> None:
    for seed, name in ((1, "a"), (2, "b")):
        networks.save(networks.create("compact", box=16, classes=CLASSES, seed=seed), tmp_path / f"{name}.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "b.safetensors").read_bytes())
    with pytest.raises(ValueError, match="SHA-256 differs"):
        networks.load(tmp_path / "a.safetensors")


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no network description"):
        networks.load(tmp_path / "absent.safetensors")
    (tmp_path / "odd.json").write_text(json.dumps({"name": "compact"}))
    with pytest.raises(ValueError, match="lacks"):
        networks.load(tmp_path / "odd.safetensors")
    with pytest.raises(
        ValueError, match=r"unknown network 'resnet'; there are compact, dsrf3d, inception3d, dsrf3d_v2, rb3d, cb3d, yopo"
    ):
        networks.create("resnet", box=20, classes=CLASSES)
    with pytest.raises(ValueError, match="at least two classes"):
        networks.create("compact", box=20, classes=["one"])
    with pytest.raises(ValueError, match="takes volumes of 20 x 20 x 20"):
        networks.create("dsrf3d", box=20, classes=CLASSES).features(torch.zeros(1, 24, 24, 24))


def test_the_seed_decides_the_weights_and_leaves_torch_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (
        networks.digest(networks.create("compact", box=16, classes=CLASSES, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == second != other
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("name", "voxel_size", "box"), [("default", 20.0, 20), ("fine", 10.0, 40)])
def test_shipped_encoders_know_what_they_are_for(name: str, voxel_size: float, box: int) -> None:
    """And what they were not trained on is left for tests of what they are worth."""
    assert name in networks.shipped()
    network, record = networks.load(name), networks.describe(name)["record"]
    assert (network.voxel_size, network.box) == (voxel_size, box)
    assert len(record["left_out"]) == 6
    assert not set(record["left_out"]) & set(network.classes)
    assert record["machine"]["torch"]
    assert record["history"][-1]["accuracy"] > 0.8


def test_a_name_that_is_not_shipped_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    networks.save(networks.create("compact", box=8, classes=CLASSES), "finest.safetensors")
    assert networks.load("finest.safetensors").box == 8
    with pytest.raises(FileNotFoundError):
        networks.load("finest")
