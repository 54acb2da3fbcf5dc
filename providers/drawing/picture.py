"""From words to pixels: which scene, which palette, and the picture itself. Everything follows from text and seed."""

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyvips  # type: ignore[import-untyped]

from providers.drawing.abstract import flower, silk, space
from providers.drawing.colour import LINEAR_CURVE, along
from providers.drawing.finish import Pixels, develop
from providers.drawing.land import dunes, forest, lake, mountains, northern_lights
from providers.drawing.palette import Palette, choose_palette, mixed
from providers.drawing.sheet import Sheet
from providers.drawing.shore import city, sea

SCENES: dict[Callable[[Sheet], None], str] = {
    northern_lights: "aurora borealis polar iceland norway",
    space: "space planet galaxy nebula cosmos cosmic astronaut universe rocket saturn alien orbit spaceship comet star",
    city: "city skyline town street tokyo manhattan skyscraper building tower urban cyberpunk neon architecture "
    "metropolis london paris house bridge downtown robot car",
    flower: "flower rose bloom blossom petal dahlia lotus peony tulip garden bouquet orchid lily daisy sunflower heart",
    dunes: "desert dune sahara sand camel egypt pyramid mars arid canyon mesa oasis cactus",
    forest: "forest wood woods tree pine jungle fern deer wolf fox bear bird cabin",
    sea: "sea ocean beach wave boat ship sail sailboat sailing island harbor harbour coast lighthouse whale surf fish "
    "lagoon pirate yacht horizon",
    lake: "lake pond tarn fjord river reflection swan",
    mountains: "mountain hill peak alps ridge valley hike landscape everest cliff fuji highland snow snowy glacier "
    "dragon castle village",
    silk: "abstract silk fabric flow texture pattern gradient fluid cloth satin swirl paint marble background "
    "wallpaper minimal portrait face music dress",
}
UNNAMED = (lake, sea, forest, dunes, silk, mountains, northern_lights, space)
"""What a prompt gets whose words name no scene."""


BECOMING: dict[Callable[[Sheet], None], frozenset[str]] = {
    space: frozenset({"violet", "neon", "night", "sunset", "tropical"}),
    city: frozenset({"night", "neon", "sunset", "dawn", "tropical", "violet"}),
    flower: frozenset({"dawn", "violet", "fire", "tropical", "autumn", "ocean"}),
}
"""Palettes that suit a scene, for prompts whose words name none; other scenes take any."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the picture depends on besides its size."""

    prompt: str
    negative: str
    seed: int

    @property
    def words(self) -> tuple[str, ...]:
        """The prompt's words, in order, lower case and also in the singular."""
        return _words(self.prompt)

    @property
    def unwanted(self) -> frozenset[str]:
        """The negative prompt's words."""
        return frozenset(_words(self.negative))


def draw(wish: Wish, width: int, height: int) -> Pixels:
    """The picture that was wished for; the same wish and size give the same pixels."""
    scene = choose_scene(wish.words, wish.unwanted, _generator(wish.prompt, "scene"))
    sheet = Sheet(width, height, _palette(wish, scene), _generator(wish.prompt, wish.negative, wish.seed))
    scene(sheet)
    return develop(sheet)


def recolour(source: pyvips.Image, wish: Wish) -> Pixels:
    """
    A picture graded towards the colours the prompt asks for: its shapes stay, its light changes.

    Args:
        source: sRGB, three bands of 8 bits.
        wish: The seed leans the hues.
    """
    # None of the scenes: what is asked for here is a palette.
    palette = _palette(wish, None)
    bytes_in: Pixels = np.asarray(source.numpy())
    sheet = Sheet(source.width, source.height, palette, _generator(wish.prompt, wish.negative, wish.seed))
    light = LINEAR_CURVE[bytes_in].transpose(2, 0, 1)
    luminance = light[0] * np.float32(0.2126) + light[1] * np.float32(0.7152) + light[2] * np.float32(0.0722)
    lightness = np.cbrt(luminance)
    low, high = np.quantile(lightness[::4, ::4], (0.01, 0.99))
    spread = (lightness - np.float32(low)) / np.float32(max(0.05, high - low))
    sheet.light[:] = along(palette.tones, spread) * np.float32(0.76) + light * np.float32(0.24)
    return develop(sheet)


def choose_scene(words: Sequence[str], unwanted: Collection[str], rng: np.random.Generator) -> Callable[[Sheet], None]:
    """The scene the first telling word names, else one drawn by `rng`; never one that answers to an unwanted word."""
    offered = [scene for scene, named in SCENES.items() if not set(named.split()) & set(unwanted)] or [silk]
    unnamed = [scene for scene in UNNAMED if scene in offered] or offered
    drawn = unnamed[int(rng.integers(len(unnamed)))]
    named = [scene for word in words for scene in offered if word in SCENES[scene].split()]
    if mountains in named[:1] and lake in named:
        return lake
    return named[0] if named else drawn


def _palette(wish: Wish, scene: Callable[[Sheet], None] | None) -> Palette:
    rng = _generator(wish.prompt, wish.seed, "palette")
    becoming = BECOMING.get(scene, ()) if scene else ()
    palette = choose_palette(wish.words, wish.unwanted, _generator(wish.prompt, "palette"), rng, becoming)
    if scene is northern_lights and not palette.night:
        return mixed("aurora", float(rng.uniform(-9, 9)))
    return palette


def _words(text: str) -> tuple[str, ...]:
    found = re.findall(r"\w+", text.lower())
    return tuple(form for word in found for form in dict.fromkeys((word, word.removesuffix("s"))))


def _generator(*parts: str | int) -> np.random.Generator:
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest)))
