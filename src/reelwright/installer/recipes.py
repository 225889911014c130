"""Lists the frameworks that can be set up, with repositories, models and sizes. A new framework is one more `Recipe`.

Sizes are those of the official repositories (weights, text encoder 11.36 GB, image encoder 4.77 GB, VAE 0.51 GB,
tokenizers). They are used only if the hub cannot be reached.

    >>> find_models(find_recipe("wan2.1"), "flf2v")[0].repository
    'Wan-AI/Wan2.1-FLF2V-14B-720P'
"""

from __future__ import annotations

from ..core.errors import ConfigurationError, guess
from . import Recipe, WeightSet

_WITH_CLIP = 11_361_920_418 + 4_772_359_047 + 507_609_880 + 40_000_000
_WITHOUT_CLIP = 11_361_920_418 + 507_609_880 + 22_000_000

WAN21 = Recipe(
    name="wan2.1",
    folder="Wan2.1",
    script="generate.py",
    git_source="https://github.com/Wan-Video/Wan2.1.git",
    commit="9737cba9c1c3c4d04b33fcad41c111989865d315",  # of 2026-03-05; all tests ran with it
    checkout_key="wan2_dir",
    checkout_bytes=25_000_000,
    pythons=("3.11", "3.12", "3.10"),  # requirements.txt needs numpy<2, which has wheels up to 3.12
    environment_bytes=9_000_000_000,
    models=(
        WeightSet("i2v-720p", "Wan-AI/Wan2.1-I2V-14B-720P", "i2v_model_dir", "i2v", 65_574_000_000 + _WITH_CLIP),
        WeightSet("i2v-480p", "Wan-AI/Wan2.1-I2V-14B-480P", "i2v_model_dir", "i2v", 65_574_000_000 + _WITH_CLIP),
        WeightSet(
            "flf2v-720p",
            "Wan-AI/Wan2.1-FLF2V-14B-720P",
            "flf2v_model_dir",
            "flf2v",
            65_575_000_000 + _WITH_CLIP,
            ("flf2v",),
        ),
        WeightSet("t2v-14b", "Wan-AI/Wan2.1-T2V-14B", "t2v_model_dir", "t2v", 57_151_000_000 + _WITHOUT_CLIP),
        WeightSet("t2v-1.3b", "Wan-AI/Wan2.1-T2V-1.3B", "t2v_1_3b_model_dir", "t2v", 5_676_000_000 + _WITHOUT_CLIP),
    ),
    # Building flash-attn takes an hour if no wheel fits, and the launcher works without it.
    left_out=("flash-attn",),
    flash_attention=("flash-attn",),
    multi_gpu=("xfuser>=0.4.1",),
    optional_modules=("flash_attn", "flash_attn_interface", "xfuser"),
    unwanted=(".gitattributes", "assets/*", "examples/*"),
)

RECIPES = (WAN21,)


def find_recipe(name: str) -> Recipe:
    """The recipe of a framework.

    Raises:
        ConfigurationError: the name is unknown.
    """
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    known = [recipe.name for recipe in RECIPES]
    raise ConfigurationError(f"`reel setup` cannot fetch {name!r}", advice=guess(name, known, "It can fetch"))


def find_models(recipe: Recipe, text: str | None) -> tuple[WeightSet, ...]:
    """The models in a list such as ``i2v-720p,flf2v``; without a list, the recipe's first one.

    Raises:
        ConfigurationError: a name is unknown, or the list is empty.
    """
    if text is None:
        return recipe.models[:1]
    found: list[WeightSet] = []
    for word in (part.strip().lower() for part in text.split(",")):
        model = next((item for item in recipe.models if word in (item.name, *item.aliases)), None)
        if model is None:
            known = [item.name for item in recipe.models]
            raise ConfigurationError(f"{recipe.name} has no model {word!r}", advice=guess(word, known, "Known models"))
        if model not in found:
            found.append(model)
    return tuple(found)
