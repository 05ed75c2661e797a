"""The built-in data set: annotation that agrees with the picture, what is held out, and that no shortcut solves it."""

import collections
import concurrent.futures
import functools
import hashlib
import subprocess
import sys

import cv2
import numpy as np
import pytest

from input_pipeline.datasets.scenes import builder as scenes_builder
from input_pipeline.datasets.scenes import prepare, to_example, vocabulary, workers
from input_pipeline.datasets.scenes.composition import SPLITS, draw_scene
from input_pipeline.datasets.scenes.vocabulary import (
    COLORS,
    HABITS,
    OBJECTS,
    SEEN_OBJECTS,
    STUFF,
    UNSEEN_COLORS,
    UNSEEN_OBJECTS,
    UNSEEN_PARTS,
)
from jaxseg.text.tokenizer import tokenize

SIZE = 64
NUM = {"train": 240, "train_captions": 240, "val": 120, "test_unseen_combinations": 40, "test_unseen_objects": 40}
NAMES, PARTS = vocabulary().names, vocabulary().parts


@functools.cache
def drawn(split):
    return [draw_scene(split, index, SIZE) for index in range(NUM[split])]


def things(scene):
    return [s for s in scene.segments if NAMES[s.class_id] in OBJECTS]


def held_out(scene):
    """Held-out pairs in a scene: (object, colour word) and (object, part word)."""
    objects = {s.id: NAMES[s.class_id] for s in scene.segments}
    pairs = [(objects[s.id], s.color) for s in things(scene) if UNSEEN_COLORS.get(objects[s.id]) == s.color]
    words = [(objects[p.segment_id], PARTS[p.class_id].name) for p in scene.parts]
    return pairs + [(name, part) for name, part in words if UNSEEN_PARTS.get(name) == part]


def test_a_scene_depends_on_split_and_index_alone():
    """Another process, which draws in another order, hashes the same bytes."""
    program = (
        "import hashlib\n"
        "from input_pipeline.datasets.scenes.composition import draw_scene\n"
        "print([hashlib.md5(repr((s, s.image.tobytes(), s.segment_map.tobytes(), s.part_map.tobytes())).encode()).hexdigest()"
        " for s in (draw_scene('val', 5, 64), draw_scene('train', 7, 64), draw_scene('train', 3, 64))])"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    same = drawn("val")[5], drawn("train")[7], drawn("train")[3]
    whole = [repr((s, s.image.tobytes(), s.segment_map.tobytes(), s.part_map.tobytes())).encode() for s in same]
    assert other.stdout.strip() == str([hashlib.md5(text).hexdigest() for text in whole])
    pictures = {scene.image.tobytes() for split in NUM for scene in drawn(split)[:40]}
    assert len(pictures) == 40 * len(NUM)


def test_size_changes_only_the_resolution():
    for index in range(6):
        small, large = draw_scene("val", index, 96), draw_scene("val", index, 256)
        assert [(s.id, s.class_id, s.color, s.size) for s in things(small)] == [
            (s.id, s.class_id, s.color, s.size) for s in things(large)
        ]
        enlarged = cv2.resize(small.segment_map.astype(np.uint8), (256, 256), interpolation=cv2.INTER_NEAREST)
        assert np.mean(enlarged == large.segment_map) > 0.97
        shrunk = cv2.resize(large.image, (96, 96), interpolation=cv2.INTER_AREA).astype(float)
        assert np.abs(shrunk - small.image).mean() < 6


@pytest.mark.parametrize("split", NUM)
def test_annotation_agrees_with_the_maps(split):
    for scene in drawn(split):
        assert scene.image.shape == (SIZE, SIZE, 3) and scene.image.dtype == np.uint8
        assert set(np.unique(scene.segment_map)) == {s.id for s in scene.segments}  # no void, nothing unseen
        stuff = [s.class_id for s in scene.segments if NAMES[s.class_id] in STUFF]
        assert len(set(stuff)) == len(stuff)
        for segment in scene.segments:
            rows, columns = np.nonzero(scene.segment_map == segment.id)
            assert segment.box_xyxy == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert segment.area == len(rows)
            assert (segment.color in COLORS) == (NAMES[segment.class_id] in OBJECTS)
        assert scene.main_object == max(things(scene), key=lambda s: s.area).id
        by_id = {p.id: p for p in scene.parts}
        assert set(np.unique(scene.part_map)) - {0} <= set(by_id)
        classes = {s.id: s.class_id for s in scene.segments}
        for part in scene.parts:
            assert PARTS[part.class_id].object == classes[part.segment_id]
            assert set(scene.segment_map[scene.part_map == part.id]) <= {part.segment_id}
            parent = PARTS[part.class_id].parent
            assert (parent == -1) == (part.parent_id == 0)
            if part.parent_id:
                assert by_id[part.parent_id].class_id == parent and by_id[part.parent_id].segment_id == part.segment_id


def test_sub_parts_lie_in_or_on_their_part():
    """Seen larger, where every part has pixels: a sub-part touches the rest of its part."""
    apart = total = 0
    for index in range(48):
        scene = draw_scene("train_captions", index, 192)
        for part in scene.parts:
            own = scene.part_map == part.id
            family = [p.id for p in scene.parts if p.parent_id == part.parent_id and p.id != part.id] + [part.parent_id]
            if part.parent_id and own.any():
                around = cv2.dilate(own.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~own
                apart += not np.isin(scene.part_map[around], family).any()
                total += 1
    assert total > 100 and apart <= 0.03 * total  # one that something in front cuts off may stand alone


def test_expressions_mean_one_object():
    kinds = collections.Counter()
    for split in NUM:
        for scene in drawn(split):
            assert len({text for text, _ in scene.expressions}) == len(scene.expressions)
            for text, segment_id in scene.expressions:
                words = set(text.split())
                same = [s for s in things(scene) if NAMES[s.class_id] in words]
                meant = [s for s in same if not words & set(COLORS) or s.color in words]
                meant = [s for s in meant if not words & {"small", "large"} or s.size in words]
                if words & {"left", "right"}:
                    side = min if "left" in words else max
                    meant = [s for s in meant if s == side(same, key=lambda s: s.box_xyxy[0] + s.box_xyxy[2])]
                assert [s.id for s in meant] == [segment_id], text
                kinds.update(words & {"left", "right", "small", "large"})
    assert min(kinds.values()) > 20 and len(kinds) == 4


def test_captions_name_everything():
    captions = set()
    for split in NUM:
        for scene in drawn(split):
            words = scene.caption.replace(",", "").replace(";", "").split()
            for segment in scene.segments:
                assert NAMES[segment.class_id] in words, scene.caption
                assert f"{segment.color} {NAMES[segment.class_id]}".strip() in scene.caption
            captions.add(scene.caption)
    assert len(captions) > 0.97 * sum(NUM.values())
    assert (tokenize(captions) > 0).sum(axis=1).max() <= 75  # raises above 77


def test_held_out_words_stay_out_of_training():
    for split in ("train", "val"):
        assert not [pair for scene in drawn(split) for pair in held_out(scene)]
        assert {NAMES[s.class_id] for scene in drawn(split) for s in things(scene)} == set(SEEN_OBJECTS)
    assert all(held_out(scene) for scene in drawn("test_unseen_combinations"))
    kinds = {word in COLORS for scene in drawn("test_unseen_combinations") for _, word in held_out(scene)}
    assert kinds == {True, False}  # both colours and parts
    for scene in drawn("test_unseen_objects"):
        assert {NAMES[s.class_id] for s in things(scene)} & set(UNSEEN_OBJECTS) and not held_out(scene)
    colors = {word for scene in drawn("train") for s in things(scene) for word in (s.color,)}
    assert set(UNSEEN_COLORS.values()) == colors == set(COLORS)  # the words of held-out pairs are known


def test_habits_are_shared_and_leave_held_out_pairs_alone():
    for name, (usual, _) in HABITS.items():
        assert UNSEEN_COLORS.get(name) not in usual
        for color in usual:
            assert any(color in other for owner, (other, _) in HABITS.items() if owner != name), f"{color} is {name}'s own"
    colors = collections.Counter(s.color for scene in drawn("train") for s in things(scene))
    assert min(colors.values()) > 0.03 * sum(colors.values())


def test_every_class_and_part_occurs():
    scenes = drawn("train_captions") + drawn("test_unseen_combinations")
    assert {s.class_id for scene in scenes for s in scene.segments} == set(range(len(NAMES)))
    assert {p.class_id for scene in scenes for p in scene.parts} == set(range(len(PARTS)))
    areas = [s.area / SIZE**2 for scene in drawn("train") for s in things(scene)]
    assert np.median(areas) > 0.05
    pairs = {pair for scene in drawn("train_captions") for pair in held_out(scene)}
    assert len(pairs) > 8  # CLIP's pre-training hears of them


def cues(split):
    """Of each object: class, and what one might guess it from."""
    found = []
    for scene in drawn(split):
        stuff = tuple(sorted(s.class_id for s in scene.segments if NAMES[s.class_id] in STUFF))
        for segment in things(scene):
            mask = scene.segment_map == segment.id
            x0, y0, x1, y1 = segment.box_xyxy
            bins = (scene.image[mask] // 64) @ np.array([16, 4, 1])
            shape = cv2.resize(mask[y0:y1, x0:x1].astype(np.float32), (12, 12), interpolation=cv2.INTER_AREA)
            if segment.area > 40:
                found.append(
                    {
                        "class": segment.class_id,
                        "color": np.bincount(bins, minlength=64) / len(bins),
                        "position": np.array([x0 + x1, y0 + y1]) / SIZE,
                        "shape": shape.reshape(-1),
                        "stuff": stuff,
                    }
                )
    return found


def nearest_centroid(cue):
    """Accuracy on `val` of the class whose mean in `train` is nearest."""
    train, val = cues("train"), cues("val")
    classes = sorted({f["class"] for f in train})
    means = np.stack([np.mean([f[cue] for f in train if f["class"] == k], axis=0) for k in classes])
    guesses = [classes[np.argmin(((f[cue] - means) ** 2).sum(axis=1))] for f in val]
    return np.mean([guess == f["class"] for guess, f in zip(guesses, val, strict=True)])


def test_shape_tells_the_class_and_shortcuts_do_not():
    """Chance is 1 in 14. A class has usual colours, as real ones have, but no colour of its own."""
    assert nearest_centroid("color") < 0.3
    assert nearest_centroid("position") < 0.2
    assert nearest_centroid("shape") > 0.8
    by_stuff = collections.defaultdict(collections.Counter)
    for found in cues("train"):
        by_stuff[found["stuff"]][found["class"]] += 1
    guesses = [by_stuff[f["stuff"]].most_common(1)[0][0] == f["class"] for f in cues("val") if by_stuff[f["stuff"]]]
    assert np.mean(guesses) < 0.2


def test_builder_draws_once_and_reads_at_random(tmp_path, monkeypatch):
    drawings = []

    def counted(split, index, size):
        drawings.append((split, index))
        return draw_scene(split, index, size)

    monkeypatch.setattr(scenes_builder, "num_examples", lambda size: dict.fromkeys(SPLITS, 3))
    monkeypatch.setattr(workers, "draw_scene", counted)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        builder, _ = pool.map(lambda _: prepare("scenes/64", tmp_path), range(2))
    assert sorted(drawings) == sorted((split, index) for split in SPLITS for index in range(3))
    source, scene = builder.as_data_source("val"), drawn("val")[2]
    example = to_example(source[2])
    assert len(source) == 3 and example["id"] == "val/000002" and example["caption"] == scene.caption
    for field in ("image", "segment_map", "part_map"):
        np.testing.assert_array_equal(example[field], getattr(scene, field))
        assert example[field].dtype == getattr(scene, field).dtype
    assert example["segments"] == [
        {
            "id": s.id,
            "class_id": s.class_id,
            "is_crowd": False,
            "box_xyxy": list(s.box_xyxy),
            "color": s.color,
            "size": s.size,
        }
        for s in scene.segments
    ]
    assert example["parts"] == [
        {"id": p.id, "class_id": p.class_id, "segment_id": p.segment_id, "parent_id": p.parent_id} for p in scene.parts
    ]
    assert example["expressions"] == [{"text": text, "segment_id": i} for text, i in scene.expressions]
    assert example["label"] in [s.class_id for s in scene.segments if s.id == scene.main_object]


def test_a_stopped_drawing_leaves_no_data(tmp_path, monkeypatch):
    def stopped(split, index, size):
        if split == "val":
            raise KeyboardInterrupt
        return draw_scene(split, index, size)

    monkeypatch.setattr(scenes_builder, "num_examples", lambda size: dict.fromkeys(SPLITS, 1))
    with monkeypatch.context() as patch:
        patch.setattr(workers, "draw_scene", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare("scenes/64", tmp_path)
    assert not [path for path in (tmp_path / "scenes" / "64").glob("*") if not path.name.startswith("incomplete")]
    assert len(prepare("scenes/64", tmp_path).as_data_source("test_unseen_objects")) == 1


def plain(features):
    return repr({k: v.getvalue() if hasattr(v, "getvalue") else v for k, v in features.items()})


def test_several_processes_draw_the_same():
    together = list(map(plain, workers.draw_all("val", 5, SIZE, num_processes=2)))
    assert together == list(map(plain, workers.draw_all("val", 5, SIZE, num_processes=1)))
    with pytest.raises(RuntimeError, match="the process that draws valley/000000 ended early"):
        next(workers.draw_all("valley", 5, SIZE, num_processes=2))


@pytest.mark.parametrize("name", ["scenes/97", "scenes", "coco/96"])
def test_unknown_names(name, tmp_path):
    with pytest.raises(ValueError, match="expected scenes/<size>, size one of 64, 96"):
        prepare(name, tmp_path)
    assert not list(tmp_path.iterdir())
