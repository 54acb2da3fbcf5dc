"""The sheet a scene is drawn on: a plane of linear light with coordinates, a palette and a seeded generator."""

import numpy as np
import pyvips  # type: ignore[import-untyped]

from providers.drawing.colour import Colour, Plane, Planes
from providers.drawing.noise import Line, field
from providers.drawing.palette import Palette


class Sheet:
    """
    A picture in the making.

    Positions down the sheet are shares of its height; sizes and noise use the unit, the side of a square of
    the same area, so that a scene keeps its grain in every aspect.
    """

    def __init__(self, width: int, height: int, palette: Palette, rng: np.random.Generator) -> None:
        self.width = width
        self.height = height
        self.palette = palette
        self.rng = rng
        self.unit = float(np.sqrt(width * height))
        self.x: Line = (np.arange(width, dtype=np.float32) + np.float32(0.5)) / np.float32(self.unit)
        self.y: Line = (np.arange(height, dtype=np.float32) + np.float32(0.5)) / np.float32(self.unit)
        self.light: Planes = np.zeros((3, height, width), dtype=np.float32)

    @property
    def right(self) -> float:
        """The width in units."""
        return self.width / self.unit

    @property
    def bottom(self) -> float:
        """The height in units."""
        return self.height / self.unit

    def chance(self, share: float) -> bool:
        """A coin that falls on its face so often."""
        return bool(self.rng.random() < share)

    def row(self, share: float) -> int:
        """The row at that share of the height, inside the sheet."""
        return min(self.height, max(0, round(share * self.height)))

    def noise(self, across: float, down: float, octaves: int = 4, gain: float = 0.5, top: int = 0) -> Plane:
        """Fractal noise from row `top` down, with `across` and `down` cells to the unit."""
        return field(self.rng, self.y[top:] * down, self.x * across, octaves, gain)

    def enlarged(self, plane: Plane) -> Plane:
        """A plane worked out at every second point, brought to the size of the sheet."""
        small = pyvips.Image.new_from_array(np.ascontiguousarray(plane))
        large = small.affine((2, 0, 0, 2), oarea=(0, 0, self.width, self.height), extend="copy").numpy()
        return np.asarray(large, dtype=np.float32)

    def distance(self, x: float, y: float, top: int = 0, end: int | None = None) -> Plane:
        """How far every point of those rows is from one point, in units."""
        away: Plane = np.hypot(self.x[None, :] - np.float32(x), self.y[top:end, None] - np.float32(y))
        return away

    def over(self, colour: Colour | Planes, alpha: Plane, top: int = 0) -> None:
        """Lay a colour, or colours, over the rows from `top`; `alpha` in [0, 1] says how much."""
        part = self.light[:, top : top + alpha.shape[0]]
        paint = colour[:, None, None] if colour.ndim == 1 else colour
        part += alpha * (paint - part)

    def shine(self, colour: Colour, amount: Plane, top: int = 0) -> None:
        """Add light of one colour to the rows from `top`."""
        part = self.light[:, top : top + amount.shape[0]]
        for channel in range(3):
            part[channel] += amount * colour[channel]

    def below(self, profile: Line, top: int, end: int | None = None) -> Plane:
        """How far, in rows, each point of the rows from `top` to `end` lies under a skyline given in rows."""
        rows = np.arange(top, self.height if end is None else end, dtype=np.float32)[:, None] + np.float32(0.5)
        return rows - profile[None, :]

    def edge(self, profile: Line, below: Plane) -> Plane:
        """Everything below a skyline, antialiased; `below` is what the method of that name gave."""
        steep = np.hypot(np.float32(1), np.gradient(profile).astype(np.float32))
        return np.clip(below / steep[None, :] + np.float32(0.5), 0, 1)
