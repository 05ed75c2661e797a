"""Several words for one class: how the names of a data set are read."""

# COCO's stuff and merged classes in plain words (Xu et al. 2023, released code).
COCO_WORDS = {
    "door-stuff": "door",
    "floor-wood": "wood floor",
    "mirror-stuff": "mirror",
    "wall-brick": "brick wall",
    "wall-stone": "stone wall",
    "wall-tile": "wall tile",
    "wall-wood": "wood wall",
    "water-other": "water",
    "window-blind": "window blind",
    "window-other": "window",
    "tree-merged": "branch, tree, bush, leaves",
    "fence-merged": "cage, fence, railing",
    "ceiling-merged": "ceiling tile, ceiling",
    "sky-other-merged": "clouds, sky, fog",
    "cabinet-merged": "cupboard, cabinet",
    "table-merged": "desk stuff, table",
    "floor-other-merged": "marble floor, floor, floor tile",
    "pavement-merged": "stone floor, pavement",
    "mountain-merged": "hill, mountain",
    "grass-merged": "moss, grass, straw",
    "dirt-merged": "mud, dirt",
    "paper-merged": "napkin, paper",
    "food-other-merged": "salad, vegetable, food",
    "building-other-merged": "skyscraper, building",
    "rock-merged": "stone, rock",
    "wall-other-merged": "wall, concrete wall, panel wall",
    "rug-merged": "mat, rug, carpet",
}
RULES = {
    "none": lambda name: (name,),
    "commas": lambda name: tuple(name.split(", ")),
    "coco": lambda name: tuple(COCO_WORDS.get(name, name).split(", ")),
}


def words_of(names, rule="none") -> tuple[tuple[str, ...], ...]:
    """The words of each class.

    Args:
        rule: "none": a name is one word; "commas": names are separated by ", "; "coco": COCO's stuff in plain words.

    Raises:
        ValueError: an unknown rule.
    """
    if rule not in RULES:
        raise ValueError(f"synonyms: found {rule!r}, expected one of {', '.join(RULES)}")
    return tuple(RULES[rule](name) for name in names)
