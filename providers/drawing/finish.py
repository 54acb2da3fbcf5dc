"""The last steps of a picture: bloom, tone, vignette, grain, and the bytes."""

import numpy as np
import numpy.typing as npt
import pyvips  # type: ignore[import-untyped]

from providers.drawing.colour import SRGB_CURVE, Plane, Planes
from providers.drawing.noise import Line, spread
from providers.drawing.sheet import Sheet

Pixels = npt.NDArray[np.uint8]
"""sRGB bytes: height by width by 3."""


def develop(sheet: Sheet, grain: float = 0.011) -> Pixels:
    """Turn the sheet's light into pixels: bright parts bleed a little, corners fall off, film grain hides banding."""
    light = sheet.light
    _bloom(light)
    light *= _vignette(sheet)
    _shoulder(light)
    steps = len(SRGB_CURVE) - 1
    noise = _grain(sheet, grain)
    pixels = np.empty((sheet.height, sheet.width, 3), dtype=np.uint8)
    for channel in range(3):
        curve = SRGB_CURVE.take((light[channel] * np.float32(steps)).astype(np.intp), mode="clip")
        pixels[..., channel] = np.clip((curve + noise) * np.float32(255) + np.float32(0.5), 0, 255)
    return pixels


def _bloom(light: Planes) -> None:
    for channel in range(3):
        plane = light[channel]
        small = np.maximum(_shrunk(plane, 32) - np.float32(0.55), 0)
        # A B-spline blurs by itself: between its points is all the softness bloom needs.
        rows, columns = (_between(*lengths) for lengths in zip(small.shape, plane.shape, strict=True))
        plane += spread(small * np.float32(0.22), rows, columns)


def _between(points: int, length: int) -> Line:
    """Where the middle of each of `length` pixels lies among so many points."""
    at: Line = ((np.arange(length) + 0.5) / length * points - 0.5).astype(np.float32)
    return at


def _shrunk(channel: Plane, factor: int) -> Plane:
    high, wide = max(1, channel.shape[0] // factor), max(1, channel.shape[1] // factor)
    step_y, step_x = channel.shape[0] // high, channel.shape[1] // wide
    blocks = channel[: high * step_y, : wide * step_x].reshape(high, step_y, wide, step_x)
    return np.ascontiguousarray(blocks.mean(axis=(1, 3), dtype=np.float32))


def _vignette(sheet: Sheet) -> Plane:
    across = (np.arange(sheet.width, dtype=np.float32) + 0.5) / np.float32(sheet.width) * 2 - 1
    down = (np.arange(sheet.height, dtype=np.float32) + 0.5) / np.float32(sheet.height) * 2 - 1
    corner = across[None, :] ** 2 + down[:, None] ** 2
    return 1 - np.float32(0.10) * corner * corner


def _shoulder(light: Planes) -> None:
    """Roll highlights off instead of cutting them: above the knee, light approaches 1."""
    knee = np.float32(0.72)
    room = 1 - knee
    excess = np.maximum(light - knee, 0)
    np.minimum(light, knee, out=light)
    light += room * excess / (excess + room)
    np.clip(light, 0, 1, out=light)


def _grain(sheet: Sheet, strength: float) -> Plane:
    shape = (sheet.height, sheet.width)
    coarse = sheet.rng.random(shape, dtype=np.float32) + sheet.rng.random(shape, dtype=np.float32)
    return (coarse - 1) * np.float32(strength * 1.6)


def encode(pixels: Pixels) -> bytes:
    """A JPEG of high quality, colours at full resolution."""
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    encoded: bytes = image.jpegsave_buffer(Q=91, subsample_mode="off", optimize_coding=True, keep="none")
    return encoded
