"""Words for a scene: a caption that names everything, and expressions that each mean one object."""

from collections import Counter

from input_pipeline.datasets.scenes.vocabulary import vocabulary

MAX_EXPRESSIONS = 3  # per object
_SIDE_GAP = 0.12  # left and right objects' centres lie at least this far apart, in picture sides

_CAPTIONS = (
    "{things}, {stuff}",
    "{things} with {stuff}",
    "{stuff} with {things}",
    "{stuff} and {things}",
    "a picture of {things} in front of {stuff}",
    "there is {things}; behind is {stuff}",
    "in a scene of {stuff} there is {things}",
)


def _enumerate(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def caption(segments, parts, dice) -> str:
    """Names every segment, things with their colours and some with size and parts, in varied order; <= 75 CLIP tokens."""
    words, is_thing = vocabulary().names, vocabulary().is_thing
    things, stuff, detailed = [], [], 0
    for segment in dice.shuffled(segments):
        if not is_thing[segment.class_id]:
            stuff.append(words[segment.class_id])
            continue
        size = segment.size if dice.chance(0.4) else ""
        phrase = _article(" ".join(w for w in (size, segment.color, words[segment.class_id]) if w))
        if detailed < 2 and dice.chance(0.5):
            names = sorted({vocabulary().parts[p.class_id].name for p in parts if p.segment_id == segment.id})
            if names:
                phrase += f" with {_enumerate(dice.shuffled(names)[: 1 + dice.below(3)])}"
                detailed += 1
        things.append(phrase)
    if not stuff:
        return _enumerate(things)
    return dice.pick(_CAPTIONS).format(things=_enumerate(things), stuff=_enumerate(stuff))


def expressions(things, dice, size: int) -> tuple[tuple[str, int], ...]:
    """(text, segment id) of up to three expressions per thing; each is true of that segment only."""
    names = vocabulary().names
    said = []
    by_class = Counter(thing.class_id for thing in things)
    for thing in things:
        name = names[thing.class_id]
        said.append((f"the {name}", thing.id))
        said.append((f"the {thing.color} {name}", thing.id))
        if thing.size:
            said.append((f"the {thing.size} {name}", thing.id))
            said.append((f"the {thing.size} {thing.color} {name}", thing.id))
        if by_class[thing.class_id] == 2:
            other = next(t for t in things if t.class_id == thing.class_id and t.id != thing.id)
            gap = (_middle(other) - _middle(thing)) / size
            if abs(gap) > _SIDE_GAP:
                side = "left" if gap > 0 else "right"
                said.append((f"the {name} on the {side}", thing.id))
                said.append((f"the {side} {thing.color} {name}" if dice.chance(0.5) else f"the {side} {name}", thing.id))
    times = Counter(text for text, _ in said)
    unique = [(text, segment_id) for text, segment_id in said if times[text] == 1]
    kept, count = [], Counter()
    for text, segment_id in dice.shuffled(unique):
        if count[segment_id] < MAX_EXPRESSIONS:
            count[segment_id] += 1
            kept.append((text, segment_id))
    return tuple(sorted(kept, key=lambda pair: pair[1]))


def _middle(thing) -> float:
    return (thing.box_xyxy[0] + thing.box_xyxy[2]) / 2
