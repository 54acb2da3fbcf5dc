"""Smooth randomness: lattices of random numbers, read between their points by cubic B-splines."""

import numpy as np
import numpy.typing as npt

from providers.drawing.colour import Plane

Line = npt.NDArray[np.float32]
"""Values along one axis."""


def spread(grid: Plane, rows: npt.NDArray[np.floating], columns: npt.NDArray[np.floating]) -> Plane:
    """
    A lattice read at every row and column coordinate, between its points by cubic B-splines.

    Four neighbours an axis, and no matrix product: those would wake the threads of the linear algebra library, which
    take more of the machine than they give here, and round differently from one machine to the next.

    Args:
        grid: The lattice; its edges repeat beyond themselves.
        rows: Lattice coordinates; whole numbers fall on points.
        columns: The same across.

    Returns:
        len(rows) by len(columns).
    """
    return _read_rows(np.ascontiguousarray(_read_rows(grid.T, columns).T), rows)


def _read_rows(grid: Plane, at: npt.NDArray[np.floating]) -> Plane:
    cell = np.floor(at).astype(np.intp)
    t = (at - cell).astype(np.float32)[:, None]
    last = grid.shape[0] - 1
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    total: Plane = np.zeros((len(at), grid.shape[1]), dtype=np.float32)
    for offset, part in enumerate(parts):
        taken = grid.take(np.clip(cell + offset - 1, 0, last), axis=0)
        taken *= part / np.float32(6)
        total += taken
    return total


def line(rng: np.random.Generator, at: npt.NDArray[np.floating], octaves: int, gain: float = 0.5) -> Line:
    """
    Fractal noise along one axis, about in [-1, 1].

    Args:
        rng: Where the randomness comes from.
        at: Coordinates in cells of the first octave.
        octaves: Each adds detail twice as fine.
        gain: How much weaker each octave is than the one before.
    """
    total = np.zeros(len(at), dtype=np.float32)
    strength, scale = 1.0, 0.0
    for octave in range(octaves):
        where = np.asarray(at, dtype=np.float64) * 2**octave + rng.random() * 64
        points = 512
        lattice = rng.uniform(-1, 1, points).astype(np.float32)
        cell = np.floor(where).astype(np.int64)
        t = (where - cell).astype(np.float32)
        ease = t * t * t * (t * (t * 6 - 15) + 10)
        total += strength * (lattice[cell % points] * (1 - ease) + lattice[(cell + 1) % points] * ease)
        scale += strength
        strength *= gain
    return total / scale * 1.25


def field(
    rng: np.random.Generator, rows: npt.NDArray[np.floating], columns: npt.NDArray[np.floating], octaves: int = 1,
    gain: float = 0.5,
) -> Plane:  # fmt: skip
    """
    Fractal noise over the plane, about in [-1, 1].

    Rows and columns have coordinates of their own, so a field can be stretched, or seen in perspective.

    Args:
        rng: Where the randomness comes from.
        rows: Coordinates of the rows, in cells of the first octave.
        columns: Coordinates of the columns.
        octaves: Each adds detail twice as fine.
        gain: How much weaker each octave is than the one before.
    """
    total: Plane = np.zeros((len(rows), len(columns)), dtype=np.float32)
    strength, scale = 1.0, 0.0
    for octave in range(octaves):
        down, across = _lattice(rows, 2**octave), _lattice(columns, 2**octave)
        high, wide = int(down.max()) + 4, int(across.max()) + 4
        grid = rng.uniform(-1, 1, (high, wide)).astype(np.float32)
        grid *= np.float32(strength)
        total += spread(grid, down, across)
        scale += strength
        strength *= gain
    # A B-spline of uniform numbers stays well inside [-1, 1]; this brings it back to about that range.
    total *= np.float32(2.0 / scale)
    return total


def _lattice(at: npt.NDArray[np.floating], scale: int) -> npt.NDArray[np.float64]:
    where: npt.NDArray[np.float64] = np.asarray(at, dtype=np.float64) * scale
    where += 1 - np.floor(where.min())
    return where


def smoothstep(low: float, high: float, value: Plane) -> Plane:
    """0 below `low`, 1 above `high`, an S between."""
    t: Plane = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    t *= t * (3 - 2 * t)
    return t
