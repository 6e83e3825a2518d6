"""`tomolab doctor`: facts in, plain words out; and the facts of this machine."""

import os
import re
import stat
import subprocess
import sys
from dataclasses import replace

import pytest

from tomolab import __main__, __version__, doctor

CARD = doctor.GPU("NVIDIA RTX A4000", "580.65.06", 16e9, 15e9)
HEALTHY = doctor.Facts(
    torch="2.13.0",
    torch_cuda="13.0",
    torch_gpus=1,
    gpus=(CARD,),
    cards=1,
    display=":0",
    opengl="Mesa",
    packages={"numpy>=2.0": "2.4.6"},
)


def words(**changes: object) -> str:
    """The findings on a healthy machine but for `changes`, as one text."""
    return "\n".join(f"{finding.severity}: {finding.text}" for finding in doctor.diagnose(replace(HEALTHY, **changes)))


def test_healthy_machine_has_no_findings():
    assert words() == ""
    assert "Nothing is wrong." in doctor.report(HEALTHY, [])
    assert "RTX A4000, 15.0 GB of 16.0 GB free" in doctor.report(HEALTHY, [])
    assert "2 cores; PyTorch uses 2 threads now" in doctor.report(HEALTHY, [])


def test_laptop_without_gpu_has_no_findings():
    assert words(gpus=(), cards=0, torch_cuda=None, torch_gpus=0) == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"torch": "2.13.0+cpu", "torch_cuda": None, "torch_gpus": 0}, r"limited: .*CPU build; `pip install .*torch==2.13.0`"),
        (
            {"gpus": (replace(CARD, driver="525.60.13"),)},
            "limited: .*525.60.13 is too old.*CUDA 13.0 needs 580 or newer",
        ),
        ({"gpus": (), "torch_gpus": 0}, "limited: .*NVIDIA card, but no working driver"),
        (
            {"gpus": (), "cards": 0, "torch_gpus": 0, "visible_devices": "0"},
            "limited: CUDA_VISIBLE_DEVICES asks for GPU 0",
        ),
        ({"visible_devices": "", "torch_gpus": 0}, "limited: .*hidden by CUDA_VISIBLE_DEVICES=''"),
        ({"gpu_error": "no kernel image is available"}, "limited: .*PyTorch says: no kernel image"),
        ({"gpus": (replace(CARD, memory_free=1e9),)}, "limited: .*only 1.0 GB free: other programs"),
        ({"cores_free": 0.2}, "limited: other programs keep all but 0.2 of the cores busy"),
        ({"waiting": "ACTIVE"}, "limited: OMP_WAIT_POLICY=ACTIVE .*many times as long. Unset it; tomolab then sets PASSIVE"),
        ({"memory_free": 3e9}, "limited: only 3.0 GB of memory is free"),
        ({"disk_free": 1e9}, "limited: only 1.0 GB of disk"),
        ({"display": None, "opengl": None}, "limited: there is no display.*work in the browser"),
        ({"opengl": None, "opengl_error": "libEGL.so.1: cannot open"}, "limited: napari cannot draw on display :0: libEGL"),
        ({"packages": {"zarr>=3.0.8": None}}, "broken: zarr is not installed"),
        ({"packages": {"zarr>=3.0.8": "2.18.0"}}, "limited: zarr 2.18.0 is installed, but tomolab asks for zarr>=3.0.8"),
        ({"python": "3.10.4"}, "broken: Python 3.10.4 does not fit"),
        ({"torch": None, "torch_error": "libc10.so is missing"}, "broken: PyTorch cannot be imported: libc10.so"),
    ],
)
def test_each_trouble_is_the_only_finding(changes, expected):
    text = words(**changes)
    assert "\n" not in text
    assert re.match(expected, text)


def test_worst_finding_comes_first():
    findings = doctor.diagnose(replace(HEALTHY, memory_free=1e9, packages={"zarr>=3": None}))
    assert [finding.severity for finding in findings] == ["broken", "limited"]


def test_exit_code_tells_whether_tomolab_can_run(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "look", lambda: replace(HEALTHY, memory_free=1e9))
    assert __main__.main(["doctor"]) == 0
    monkeypatch.setattr(doctor, "look", lambda: replace(HEALTHY, packages={"zarr>=3": None}))
    assert __main__.main(["doctor"]) == 1
    assert "tomolab cannot run: zarr is not installed" in capsys.readouterr().out


def test_facts_of_this_machine_are_plausible():
    facts = doctor.look()
    assert facts.torch is not None
    assert 0 < facts.memory_free <= facts.memory
    assert facts.disk_free > 0
    assert {name.split(">")[0] for name in facts.packages} >= {"numpy", "torch", "napari"}
    assert not any(name.startswith(("ruff", "tomolab")) for name in facts.packages)
    assert set(facts.extras) == {"lab", "napari", "cluster", "objects"}
    assert facts.extras["napari"] == ()


def test_a_node_without_extras_is_healthy_and_says_what_is_not_there():
    node = replace(HEALTHY, display=None, opengl=None, extras={"cluster": (), "napari": ("napari", "pyside6-essentials")})
    assert doctor.diagnose(node) == []
    assert re.search(r"^extras +cluster, napari \(lacks napari, pyside6-essentials\)$", doctor.report(node, []), re.MULTILINE)


def test_gpus_are_read_from_the_driver(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.95.05, 143771, 143000'\necho 'Tesla T4, 580.95.05, 15360, 100'\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    first, second = doctor.gpus()
    assert (first.name, first.driver, second.name) == ("NVIDIA H200", "580.95.05", "Tesla T4")
    assert first.memory == pytest.approx(143771 * 2**20)
    program.write_text("#!/bin/sh\necho 'NVIDIA GB10, 580.95.05, [N/A], [N/A]'\n")
    assert "unknown of unknown free" in doctor.report(replace(HEALTHY, gpus=doctor.gpus()), [])
    program.write_text("#!/bin/sh\necho 'has failed because it could not communicate with the NVIDIA driver'; exit 9\n")
    assert doctor.gpus() == ()


def test_nvidia_cards_are_counted_on_the_bus(tmp_path):
    bus = {"a": "0x030000 0x10de", "b": "0x030200 0x10de", "c": "0x030000 0x8086", "d": "0x020000 0x10de"}
    for name, (kind, vendor) in ((name, text.split()) for name, text in bus.items()):
        (tmp_path / name).mkdir()
        (tmp_path / name / "class").write_text(kind + "\n")
        (tmp_path / name / "vendor").write_text(vendor + "\n")
    assert doctor.cards(tmp_path) == 2
    assert doctor.cards(tmp_path / "absent") == 0


def test_missing_display_is_reported_not_fatal(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":7777")
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    renderer, trouble = doctor.opengl()
    assert renderer is None
    assert "could not connect to display :7777" in trouble


def test_opengl_renderer_is_named_on_a_virtual_display():
    command = [
        "xvfb-run",
        "--auto-servernum",
        sys.executable,
        "-c",
        "from tomolab import doctor; print(*doctor.opengl(), sep='|')",
    ]
    environment = os.environ | {"QT_QPA_PLATFORM": "xcb"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    renderer, trouble = done.stdout.strip().split("|")
    assert renderer not in ("", "None")
    assert trouble == "None"


@pytest.mark.parametrize("command", [[sys.executable, "-m", "tomolab"], ["tomolab"]])
def test_version_on_the_command_line(command, monkeypatch):
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"tomolab {__version__}"


def test_command_line_without_a_command_explains_itself(capsys):
    assert __main__.main([]) == 2
    assert "doctor" in capsys.readouterr().err
