"""Colour: hex in, linear light inside, OKLab wherever two colours are mixed."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Plane: TypeAlias = npt.NDArray[np.float32]
"""One channel, or a mask: height by width."""
Planes: TypeAlias = npt.NDArray[np.float32]
"""Linear-light sRGB: 3 by height by width."""
Colour: TypeAlias = npt.NDArray[np.float32]
"""Linear-light sRGB: 3 numbers."""
Ramp: TypeAlias = npt.NDArray[np.float32]
"""A gradient of linear-light colours: 3 by RAMP_STEPS."""

RAMP_STEPS = 1024

# Björn Ottosson's OKLab (2020): linear sRGB to cone response, its cube root to Lab.
_TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip
_FROM_LAB = np.linalg.inv(_TO_LAB)
_FROM_LMS = np.linalg.inv(_TO_LMS)

_GAMMA_STEPS = 4096
_SRGB_KNEE = 0.04045


def srgb_to_linear(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Undo the sRGB curve; values in [0, 1]."""
    return np.where(value <= _SRGB_KNEE, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Apply the sRGB curve; values in [0, 1]."""
    return np.where(value <= _SRGB_KNEE / 12.92, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


SRGB_CURVE: Plane = linear_to_srgb(np.linspace(0, 1, _GAMMA_STEPS)).astype(np.float32)
"""The sRGB curve as a table; index with `value * (len - 1)`."""
LINEAR_CURVE: Plane = srgb_to_linear(np.linspace(0, 1, 256)).astype(np.float32)
"""Linear light of each sRGB byte."""


def to_lab(linear: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """OKLab of linear-light colours; the first axis is the channel."""
    lms = np.tensordot(_TO_LMS, np.asarray(linear, dtype=np.float64), axes=1)
    return np.tensordot(_TO_LAB, np.cbrt(np.maximum(lms, 0)), axes=1)


def from_lab(lab: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Linear-light colours of OKLab, cut to the sRGB gamut; the first axis is the channel."""
    lms = np.tensordot(_FROM_LAB, np.asarray(lab, dtype=np.float64), axes=1) ** 3
    return np.clip(np.tensordot(_FROM_LMS, lms, axes=1), 0, 1).astype(np.float32)


def colour(hex_code: str) -> Colour:
    """A colour from "#rrggbb"."""
    digits = hex_code.removeprefix("#")
    channels = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    return srgb_to_linear(channels).astype(np.float32)


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """The colour `amount` of the way from the first to the second, as the eye sees it."""
    return from_lab(to_lab(first) * (1 - amount) + to_lab(second) * amount)


def turned(value: Colour, degrees: float, chroma: float = 1.0) -> Colour:
    """The colour with its hue turned and its chroma multiplied, equally light."""
    light, a, b = to_lab(value)
    angle = np.deg2rad(degrees)
    green_red = (a * np.cos(angle) - b * np.sin(angle)) * chroma
    blue_yellow = (a * np.sin(angle) + b * np.cos(angle)) * chroma
    return from_lab(np.array([light, green_red, blue_yellow]))


def ramp(stops: Sequence[Colour], positions: Sequence[float] | None = None) -> Ramp:
    """A smooth gradient through the stops, evenly spaced unless their positions in [0, 1] are given."""
    at = np.linspace(0, 1, len(stops)) if positions is None else np.asarray(positions)
    labs = np.stack([to_lab(stop) for stop in stops], axis=1)
    steps = np.linspace(0, 1, RAMP_STEPS)
    bands = [np.interp(steps, at, channel) for channel in labs]
    # A short running mean takes the corners off the stops: no visible line where two pieces meet.
    width = RAMP_STEPS // 10 | 1
    kernel = np.hanning(width + 2)[1:-1]
    kernel /= kernel.sum()
    smooth = [np.convolve(np.pad(band, width // 2, mode="edge"), kernel, mode="valid") for band in bands]
    return from_lab(np.stack(smooth))


def along(gradient: Ramp, amount: Plane) -> Planes:
    """The gradient's colour at each amount in [0, 1]."""
    # `take` clips by itself, and faster than an index would be checked.
    return gradient.take((amount * np.float32(RAMP_STEPS - 1)).astype(np.intp), axis=1, mode="clip")
