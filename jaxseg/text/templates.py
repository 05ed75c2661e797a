"""Sentences around a class name, as CLIP and CLIPSeg draw them in training (Lueddecke & Ecker 2022, released code)."""

PLAIN = ("{}",)
FIXED = ("a photo of a {}.",)
SHUFFLE = ("a photo of a {}.", "a photograph of a {}.", "an image of a {}.", "{}.")
SHUFFLE_PLUS = (
    *SHUFFLE,
    "a cropped photo of a {}.",
    "a good photo of a {}.",
    "a photo of one {}.",
    "a bad photo of a {}.",
    "a photo of the {}.",
)
TEMPLATES = {"plain": PLAIN, "fixed": FIXED, "shuffle": SHUFFLE, "shuffle+": SHUFFLE_PLUS}


def templates(name) -> tuple[str, ...]:
    """The templates of a set, each with one `{}` for the name.

    Raises:
        ValueError: an unknown set.
    """
    if name not in TEMPLATES:
        raise ValueError(f"templates: found {name!r}, expected one of {', '.join(map(repr, TEMPLATES))}")
    return TEMPLATES[name]


def fill(template, name) -> str:
    """The sentence; braces in a name are left alone."""
    return template.replace("{}", name)
