"""Commands for RELION, and what its output tells."""

import numpy as np
import pytest

from tomolab.averaging.relion import programs
from tomolab.averaging.relion.programs import LogReader, Programs, RelionProgress

OUTPUT = """
 Auto-refine: Iteration= 2
 Auto-refine: Resolution= 57.1429 (no gain for 1 iter)
 CurrentResolution= 57.1429 Angstroms, which requires orientationSampling of at least 22.5 degrees
 Expectation iteration 2
000/??? sec ~~(,_,">                                                          [oo]
0.52/1.03 min ..............................~~(,_,">
  33/  49 sec .......................................~~(,_,">
 Maximization ...
"""


def values(words: list[str], option: str) -> list[str]:
    """What follows an option, up to the next one."""
    after = words[words.index(option) + 1 :]
    return after[: next((i for i, word in enumerate(after) if word.startswith("--")), len(after))]


def test_the_command_is_a_gold_standard_refinement() -> None:
    words = programs.command(
        diameter=280, symmetry="D2", processes=5, threads=2, initial_low_pass=70.0, seed=3, name="a", reach=3.2
    )
    assert words[:4] == ["mpirun", "-n", "5", "relion_refine_mpi"]
    assert {"--auto_refine", "--split_random_halves", "--ctf"} <= set(words)
    asked = {
        option: values(words, option)
        for option in ("--i", "--o", "--ref", "--sym", "--ini_high", "--j", "--random_seed", "--offset_range")
    }
    assert asked == {
        "--i": ["particles.star"], "--o": ["a/run"], "--ref": ["a/reference.mrc"], "--sym": ["D2"], "--ini_high": ["70"],
        "--j": ["2"], "--random_seed": ["3"], "--offset_range": ["3.2"],
    }  # fmt: skip
    assert values(words, "--particle_diameter") == ["280"]
    options = [word for word in words if word.startswith("--")]
    assert len(options) == len(set(options))


def test_extra_options_take_the_place_of_ours() -> None:
    extra = ["--healpix_order", "3", "--fast_subsets", "--sigma_ang", "-1"]
    words = programs.command(diameter=280, extra=extra)
    assert words.count("--healpix_order") == 1
    assert values(words, "--healpix_order") == ["3"]
    assert values(words, "--fast_subsets") == []
    assert values(words, "--sigma_ang") == ["-1"]
    with pytest.raises(ValueError, match="start with --, got 'healpix'"):
        programs.command(diameter=280, extra=["healpix"])


def test_going_on_names_the_iteration() -> None:
    words = programs.continue_command(7, name="a")
    assert values(words, "--continue") == ["a/run_it007_optimiser.star"]
    assert values(words, "--o") == ["a/run"]
    assert "--i" not in words


def test_the_log_tells_iteration_resolution_and_time_left() -> None:
    progress: list[RelionProgress] = []
    log = LogReader(progress.append)
    for line in OUTPUT.splitlines():
        log(line)
    assert [(now.iteration, now.stage, now.left) for now in progress] == [
        (2, "start", None),
        (2, "start", None),
        (2, "expectation", None),
        (2, "expectation", pytest.approx(30.6)),
        (2, "expectation", 16),
        (2, "maximization", None),
    ]
    assert progress[0].resolution == np.inf
    assert progress[-1].resolution == pytest.approx(57.1429)
    assert str(progress[4]) == "iteration 2, expectation, 57 Å, 16 s left"


def test_without_relion_the_message_says_how_to_get_it(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs.available() is None
    with pytest.raises(FileNotFoundError, match=r"RELION is not installed.*apt-get install"):
        programs.required("refine_mpi")
    (tmp_path / "relion_refine").write_text("#!/bin/sh\necho 'RELION version: 4.0.1 '\n")
    (tmp_path / "relion_refine").chmod(0o755)
    assert programs.available() == Programs("4.0.1", str(tmp_path / "relion_refine"), None, None, None)
    with pytest.raises(FileNotFoundError, match=r"RELION 4\.0\.1 is there, but not refine_mpi, mpirun; .*openmpi-bin"):
        programs.required("refine_mpi", "mpirun")


def test_the_users_own_settings_of_mpi_stay(monkeypatch) -> None:
    monkeypatch.setenv("OMPI_MCA_rmaps_base_oversubscribe", "0")
    assert "OMPI_MCA_rmaps_base_oversubscribe" not in programs.environment()
    monkeypatch.delenv("OMPI_MCA_rmaps_base_oversubscribe")
    assert programs.environment()["OMPI_MCA_rmaps_base_oversubscribe"] == "1"
