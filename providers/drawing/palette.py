"""The palettes, and how the words of a prompt choose one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from providers.drawing.colour import Colour, Ramp, colour, mix, ramp, turned


@dataclass(frozen=True, slots=True)
class Palette:
    """
    The colours of one picture.

    Attributes:
        sky: From the zenith down to the horizon.
        light: The sun or moon.
        haze: What distance fades into.
        near: The darkest silhouette.
        accent: The one loud colour: lamps, a sail.
        petal: What flowers have.
        night: Whether stars are out.
    """

    sky: tuple[Colour, ...]
    light: Colour
    haze: Colour
    near: Colour
    accent: Colour
    petal: Colour
    night: bool

    @property
    def sky_ramp(self) -> Ramp:
        """The sky as a gradient."""
        return ramp(self.sky)

    @property
    def tones(self) -> Ramp:
        """All of its colours from dark to light, as one gradient."""
        middle = self.sky[len(self.sky) // 2]
        return ramp((self.near, self.sky[0], middle, self.haze, self.light), (0, 0.28, 0.52, 0.78, 1))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A palette as it is written down: hex codes, and the words that ask for it."""

    words: str
    sky: str
    light: str
    haze: str
    near: str
    accent: str
    petal: str = ""
    night: bool = False


RECIPES: dict[str, Recipe] = {
    "sunset": Recipe(
        "sunset dusk evening golden-hour sundown twilight romantic warm",
        "#27305f #5d4a86 #b3587f #ee8267 #fbc27f", "#fff0c4", "#f0a184", "#1b1630", "#ff7a4d",
    ),
    "dawn": Recipe(
        "dawn sunrise morning rose rosy pink blush cherry sakura pastel soft spring tender",
        "#6f83b5 #a99cc4 #e2adb4 #f9d3bd #fdeedd", "#fff6e6", "#f0c9c4", "#3b3453", "#e86a8a",
    ),
    "ocean": Recipe(
        "ocean sea blue teal turquoise lagoon wave waves water river lake aqua marine",
        "#0d4468 #1f7590 #5fabb2 #b5dcd2 #eff5e2", "#fffbe8", "#a9d3d0", "#06222f", "#ff9a62", "#3b93c9",
    ),
    "forest": Recipe(
        "forest wood woods jungle green moss pine pines tree trees fern leaf emerald jade valley meadow",
        "#53786f #86a894 #bed0ae #e8ebcb #f7f3d6", "#fffbe0", "#c3d3b6", "#0c241d", "#e9b44c", "#f2ead0",
    ),
    "night": Recipe(
        "night midnight dark moon moonlight moonlit indigo nocturne starry stars star sleep dream dreamy",
        "#050a1c #0c1a3d #1b3566 #3a5a8e #7d95b5", "#f6f1dc", "#44618f", "#03060f", "#ffd27a", "#5877cf", night=True,
    ),
    "aurora": Recipe(
        "aurora northern borealis polar lights",
        "#040a18 #08182e #0f2d45 #1d5560 #3f8f7f", "#eafff2", "#27646a", "#02070d", "#6ff2b0", "#3fc9b0", night=True,
    ),
    "winter": Recipe(
        "winter snow snowy ice icy frost frozen cold glacier arctic white silver christmas",
        "#6f97bd #9fbdd6 #cbdcea #e9eff4 #f9f4ee", "#fffdf6", "#d4e2ee", "#27405c", "#d6455a", "#dfe7f2",
    ),
    "fire": Recipe(
        "fire flame flames lava volcano red crimson scarlet ember embers burning hell dragon blood inferno",
        "#1c0709 #57130f #ab2f19 #ea7426 #ffcb6b", "#fff0b8", "#d65a2a", "#130405", "#ff5a3c",
    ),
    "gold": Recipe(
        "gold golden amber honey brass bronze royal treasure wheat harvest sand ochre yellow",
        "#4a3420 #8b5f2f #cf9a45 #eec779 #fbe9bd", "#fff6d9", "#e3b96c", "#21140a", "#fff0c4", "#f0ad25",
    ),
    "violet": Recipe(
        "violet purple lavender lilac plum magic magical mystic mystical wizard fantasy amethyst orchid",
        "#2a2052 #564590 #9076bd #cfaad0 #f6dde2", "#fff3f0", "#b799cb", "#171030", "#f6c95c", "#8f55c8",
    ),
    "autumn": Recipe(
        "autumn fall october november orange rust maple pumpkin copper terracotta fox",
        "#5d6a7c #96898a #cfa177 #edc07c #f9e6bd", "#fff3d2", "#dcae83", "#2c140c", "#d9542b",
    ),
    "desert": Recipe(
        "desert dune dunes sahara canyon mesa camel egypt pyramid mars arid cactus",
        "#2f6790 #76a3b5 #c9ccb4 #f2d4a0 #f9c27f", "#fff4d6", "#efc493", "#57260f", "#c2512a",
    ),
    "storm": Recipe(
        "storm stormy rain rainy grey gray cloud cloudy fog foggy mist misty thunder moody gloomy melancholy sad",
        "#1e2a36 #3f515f #73858e #abb7b7 #dcdfd6", "#f7f4e6", "#98a6aa", "#0d151c", "#e9b44c", "#8fa3b8",
    ),
    "noir": Recipe(
        "noir black monochrome mono ink charcoal minimal minimalist film photograph shadow zen",
        "#17191c #3a3d41 #74777a #b3b3b0 #ece8e0", "#fffaf0", "#9c9d9c", "#08090a", "#d8442f", "#e6dfd4",
    ),
    "tropical": Recipe(
        "tropical beach island palm summer paradise miami candy coral peach flamingo party holiday",
        "#173a7a #5c4aa0 #c65a9b #ff8a80 #ffd08a", "#fff3c9", "#f79a92", "#1a1238", "#2ad4c3", "#f0647f",
    ),
    "neon": Recipe(
        "neon cyber cyberpunk synthwave vaporwave retro electric robot futuristic sci-fi laser game digital",
        "#080619 #1f0f4a #5a1a86 #c22f93 #ff7fb0", "#ffe9f7", "#7c2a98", "#05030f", "#3ff0ff", night=True,
    ),
    "mint": Recipe(
        "mint fresh lime pistachio sage tea calm serene peaceful garden wellness",
        "#5ba39b #92c7b1 #cbe2c2 #f1f1d6 #fdf8e6", "#fffdf0", "#bcdcc6", "#173f3c", "#f08a7b",
    ),
}  # fmt: skip


MATERIAL = frozenset({"ocean", "forest", "desert", "storm", "mint"})
"""Palettes named after things; words for a time of day or a colour tell more and go first."""


def choose_palette(
    words: Sequence[str],
    unwanted: Collection[str],
    prompt_rng: np.random.Generator,
    rng: np.random.Generator,
    becoming: Collection[str] = (),
) -> Palette:
    """
    The palette the most telling word asks for, else one drawn by `prompt_rng`; its hues lean a little with every seed.

    Args:
        words: Lower-case words of the prompt, in order.
        unwanted: Words of the negative prompt; palettes that answer to them are not used.
        prompt_rng: Seeded with the prompt alone.
        rng: Seeded with the prompt and the seed.
        becoming: Palettes that suit the scene, to draw one of; empty: all.
    """
    refused = {name for name, recipe in RECIPES.items() if _answers(name, recipe) & set(unwanted)}
    offered = [name for name in RECIPES if name not in refused] or list(RECIPES)
    suited = [name for name in offered if name in becoming] or offered
    drawn = suited[int(prompt_rng.integers(len(suited)))]
    telling = sorted(offered, key=lambda name: name in MATERIAL)
    asked = [name for word in words for name in telling if word in _answers(name, RECIPES[name])]
    name = min(asked, key=lambda name: name in MATERIAL, default=drawn)
    return mixed(name, float(rng.uniform(-9, 9)), float(rng.uniform(0.94, 1.1)))


def _answers(name: str, recipe: Recipe) -> set[str]:
    return {name, *recipe.words.split()}


def mixed(name: str, degrees: float = 0, chroma: float = 1) -> Palette:
    """The palette of that name, its hues turned by so many degrees and its chroma multiplied."""
    recipe = RECIPES[name]

    def lean(code: str, share: float = 1.0) -> Colour:
        return turned(colour(code), degrees * share, chroma)

    sky = tuple(lean(code) for code in recipe.sky.split())
    return Palette(
        sky=sky,
        light=lean(recipe.light, 0.3),
        haze=mix(lean(recipe.haze), sky[-2], 0.25),
        near=lean(recipe.near),
        accent=lean(recipe.accent, 0.5),
        petal=lean(recipe.petal or recipe.accent, 0.5),
        night=recipe.night,
    )
