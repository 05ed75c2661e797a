"""What `scenes` draws: object classes with their parts, stuff classes, colour words, and what is held out of training."""

import functools

from jaxseg.text.vocabulary import Part, Vocabulary

# object class -> part -> sub-parts
OBJECTS = {
    "dog": {"head": ("eye", "ear", "nose"), "body": (), "leg": (), "tail": (), "hat": ()},
    "bird": {"head": ("eye", "beak"), "body": (), "wing": (), "tail": (), "leg": (), "hat": ()},
    "fish": {"head": ("eye", "mouth"), "body": (), "fin": (), "tail": ()},
    "butterfly": {"wing": ("spot",), "head": ("eye",), "body": (), "antenna": ()},
    "turtle": {"shell": ("spot",), "head": ("eye", "mouth"), "leg": (), "tail": (), "hat": ()},
    "robot": {"head": ("eye", "mouth", "antenna"), "body": (), "arm": (), "leg": (), "hat": ()},
    "car": {"wheel": ("hub",), "window": (), "door": ("handle",), "light": (), "flag": ()},
    "boat": {"hull": (), "sail": (), "mast": (), "flag": (), "window": ()},
    "airplane": {"body": (), "wing": ("engine",), "tail": (), "window": ()},
    "house": {"roof": (), "door": ("handle",), "window": (), "chimney": (), "flag": ()},
    "tree": {"crown": ("fruit",), "trunk": ()},
    "flower": {"blossom": ("petal", "center"), "stem": (), "leaf": ()},
    "mushroom": {"cap": ("spot",), "stem": ()},
    "umbrella": {"canopy": (), "handle": (), "tip": ()},
    # held out: never in `train` and `val`
    "cat": {"head": ("eye", "ear", "nose"), "body": (), "leg": (), "tail": (), "hat": ()},
    "bus": {"wheel": ("hub",), "window": (), "door": (), "light": ()},
    "rocket": {"body": (), "nose": (), "fin": (), "window": (), "flame": ()},
}
UNSEEN_OBJECTS = ("cat", "bus", "rocket")
SEEN_OBJECTS = tuple(name for name in OBJECTS if name not in UNSEEN_OBJECTS)

STUFF = ("sky", "mountain", "grass", "sand", "snow", "water", "road", "wall", "floor")

# colour word -> RGB; objects of every class are drawn in every colour
COLORS = {
    "red": (214, 62, 60),
    "orange": (240, 138, 48),
    "yellow": (247, 204, 72),
    "green": (96, 170, 88),
    "blue": (64, 122, 206),
    "purple": (140, 94, 184),
    "pink": (242, 150, 182),
    "brown": (146, 98, 62),
    "white": (244, 242, 236),
    "black": (62, 60, 70),
}

# (object, colour word) pairs that `train` and `val` never show: one colour of each seen class, each colour at least once
UNSEEN_COLORS = {name: tuple(COLORS)[(3 * i + 2) % len(COLORS)] for i, name in enumerate(SEEN_OBJECTS)}

# object class -> (usual colour words, usual pattern of its surface). Real classes have such habits; here no colour and no
# pattern is one class's own, every class is seen in others, and held-out pairs are outside of them.
HABITS = {
    "dog": (("brown", "black"), "speckle"),
    "bird": (("blue", "red"), "bars"),
    "fish": (("orange", "yellow"), "stripes"),
    "butterfly": (("purple", "pink"), "cloudy"),
    "turtle": (("green", "brown"), "checks"),
    "robot": (("white", "purple"), "diagonal"),
    "car": (("black", "yellow"), "plain"),
    "boat": (("white", "red"), "planks"),
    "airplane": (("white", "blue"), "bars"),
    "house": (("orange", "pink"), "bricks"),
    "tree": (("green", "blue"), "blades"),
    "flower": (("pink", "yellow"), "speckle"),
    "mushroom": (("red", "brown"), "dots"),
    "umbrella": (("purple", "green"), "diagonal"),
    "cat": (("orange", "black"), "stripes"),
    "bus": (("yellow", "red"), "plain"),
    "rocket": (("white", "black"), "checks"),
}

# parts which `train` and `val` show on other classes only
UNSEEN_PARTS = {"bird": "hat", "car": "flag", "boat": "window", "turtle": "spot"}

# RGB of the classes in pictures of label maps
CLASS_COLORS = {
    "dog": (230, 25, 75),
    "bird": (255, 160, 30),
    "fish": (0, 130, 200),
    "butterfly": (240, 50, 230),
    "turtle": (60, 180, 75),
    "robot": (145, 30, 180),
    "car": (255, 225, 25),
    "boat": (128, 0, 40),
    "airplane": (70, 240, 240),
    "house": (170, 110, 40),
    "tree": (0, 100, 50),
    "flower": (250, 150, 190),
    "mushroom": (190, 60, 20),
    "umbrella": (90, 90, 255),
    "cat": (255, 110, 60),
    "bus": (210, 245, 60),
    "rocket": (0, 128, 128),
    "sky": (150, 200, 240),
    "mountain": (140, 130, 150),
    "grass": (150, 200, 110),
    "sand": (230, 210, 150),
    "snow": (235, 240, 245),
    "water": (90, 150, 190),
    "road": (110, 110, 115),
    "wall": (215, 185, 175),
    "floor": (175, 145, 115),
}


@functools.cache
def vocabulary() -> Vocabulary:
    """The classes of `scenes`: objects (things) first, then stuff; groups `seen` and `unseen` of classes and of parts.

    Unseen parts are all parts of the held-out objects, and parts held out of a seen object (`UNSEEN_PARTS`).
    """
    names = (*OBJECTS, *STUFF)
    parts = []
    for object_id, tree in enumerate(OBJECTS.values()):
        for part, subparts in tree.items():
            parent = len(parts)
            parts.append(Part(object_id, part))
            parts.extend(Part(object_id, subpart, parent) for subpart in subparts)
    unseen = tuple(names.index(name) for name in UNSEEN_OBJECTS)
    unseen_parts = tuple(
        i for i, part in enumerate(parts) if part.object in unseen or UNSEEN_PARTS.get(names[part.object]) == part.name
    )
    return Vocabulary(
        names=names,
        is_thing=tuple(name in OBJECTS for name in names),
        groups={"seen": tuple(k for k in range(len(names)) if k not in unseen), "unseen": unseen},
        colors=tuple(CLASS_COLORS[name] for name in names),
        parts=tuple(parts),
        part_groups={
            "seen": tuple(i for i in range(len(parts)) if i not in unseen_parts),
            "unseen": unseen_parts,
        },
    )


@functools.cache
def part_ids() -> dict[tuple[str, str], int]:
    """Part id by (object, part word)."""
    names = vocabulary().names
    return {(names[part.object], part.name): i for i, part in enumerate(vocabulary().parts)}
