"""The model of bench_scale recovers lines that were put in, and says what runs out first."""

from pathlib import Path

import bench_scale
import numpy as np
import pandas as pd
import pytest


def rows() -> list[dict[str, object]]:
    """Two stages whose needs are lines, but for 5 % of one of them."""
    out = []
    for count in (10_000, 100_000, 1_000_000):
        about = {"box": 20, "count": count, "per_second": 1.0, "peak GB": 1.0}
        wrong = 1.05 if count == 100_000 else 1.0
        out.append({"stage": "simulate", "seconds": 5 + 1e-3 * count, "GB": 0.5, "GB on disk": 16e-6 * count} | about)
        out.append(
            {"stage": "embed", "seconds": wrong * 2e-4 * count, "GB": 0.3 + 1e-6 * count, "GB on disk": 1e-7 * count} | about
        )
    return out


def test_lines_are_found() -> None:
    lines = bench_scale.model(rows(), 20)
    assert lines.loc["simulate", ["seconds, start", "seconds, slope"]].tolist() == pytest.approx([5, 1e-3])
    assert lines.loc["simulate", "seconds, off"] == pytest.approx(0, abs=1e-9)
    assert lines.loc["simulate", "GB, slope"] == pytest.approx(0, abs=1e-12)
    assert lines.loc["embed", "GB, start"] == pytest.approx(0.3)
    assert 0.01 < lines.loc["embed", "seconds, off"] < 0.05
    assert bench_scale.line(np.array([10.0, 20.0]), np.array([5.0, 4.0]))[1] >= 0


def test_what_more_would_need_and_where_it_ends() -> None:
    lines = bench_scale.model(rows(), 20)
    at = bench_scale.needed(lines, 1e7)
    assert at["RAM (GB)"] == pytest.approx(10.3, rel=1e-6)
    # The embedding is there twice until its file is whole.
    assert at["disk (GB)"] == pytest.approx(162, rel=1e-6)
    assert at["hours"] == pytest.approx((5 + 1e4 + 2e3) / 3600, rel=0.02)
    assert bench_scale.most(lines, "RAM (GB)", 8) == pytest.approx(7.7e6, rel=1e-3)
    machine = {"cpu": "some", "cores": 2, "gpu": None, "torch": "2"}
    text = bench_scale.told({"rows": rows(), "machine": machine, "time": "2026-11-27T12:00:00"})
    assert "| 8 GB, 1 TB | 7.7 million | 61.7 million |" in text
    assert "| 10,000,000 |" in text


def test_a_stage_leaves_a_row(tmp_path: Path) -> None:
    row = bench_scale.measured("simulate", tmp_path, 40, 8)
    # The index of a shard has room for 4,096 volumes.
    assert row["GB on disk"] * 1e9 == pytest.approx(40 * 2 * 8**3 + 16 * 4096, rel=0.2)
    assert pd.isna(pd.DataFrame([row])).sum().sum() == 0
