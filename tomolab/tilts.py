"""Files that IMOD writes beside a tilt series: tilt angles (.tlt, .rawtlt) and alignments (.xf)."""

from pathlib import Path

import numpy as np


def read_tilts(path: str | Path) -> np.ndarray:
    """Tilt angles (n,) in degrees, in the order of the images; of several columns the first.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line does not begin with a number within ±90°, or there is no line.
    """
    rows = _numbers(path, least=1)
    angles = np.array([row[0] for _, row in rows])
    for (line, _), angle in zip(rows, angles, strict=True):
        if abs(angle) > 90:
            raise ValueError(f"{path}, line {line}: a tilt lies within ±90°, got {angle:g}")
    return angles


def read_transforms(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Alignment of each image from an IMOD .xf file: matrices A (n, 2, 2) and shifts d (n, 2) in pixels of the stack.

    A point x = (x, y) from the centre of the raw image, at pixel (size - 1) / 2 counted from 0, goes to x' = A x + d from
    the centre of the aligned image. Order (x, y) and numbers are those of the file: A11 A12 A21 A22 DX DY on each line.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line does not hold six numbers, a matrix is singular, or there is no line.
    """
    rows = _numbers(path, least=6)
    for line, row in rows:
        if len(row) != 6:
            raise ValueError(f"{path}, line {line}: expected 6 numbers (A11 A12 A21 A22 DX DY), got {len(row)}")
        if abs(row[0] * row[3] - row[1] * row[2]) < 1e-6:
            raise ValueError(f"{path}, line {line}: the matrix {row[:4]} cannot be inverted")
    numbers = np.array([row for _, row in rows])
    return numbers[:, :4].reshape(-1, 2, 2), numbers[:, 4:]


def _numbers(path: str | Path, *, least: int) -> list[tuple[int, list[float]]]:
    """Line number and finite numbers of each line that is neither empty nor a comment (#)."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    rows = []
    for line, text in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        words = text.split("#")[0].split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: expected numbers, got {text.strip()[:60]!r}") from error
        if len(row) < least or not np.isfinite(row).all():
            raise ValueError(f"{path}, line {line}: expected {least} finite numbers, got {text.strip()[:60]!r}")
        rows.append((line, row))
    if not rows:
        raise ValueError(f"{path} holds no numbers")
    return rows
