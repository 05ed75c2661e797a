"""Files derived from COCO 2017: the split of 65 classes into 48 and 17, semantic maps of the panoptic annotations."""

import numpy as np

from input_pipeline.coco import categories_of, read_json
from input_pipeline.preparation.run import folder
from jaxseg import coco
from jaxseg.preprocess import labels
from jaxseg.text import class_lists

IMAGES = {"train": 118_287, "val": 5_000}
SPLITS = {"seen48": "coco_base48", "unseen17": "coco_novel17", "instances65": "coco_instances65"}
VOID = 255


def make_splits(root, splits, run):
    """`annotations/ov_split_48_17/instances_{split}2017_{seen48,unseen17,instances65}.json`.

    Each keeps the annotations of its classes, the images that have at least one, and the classes' category entries.
    """
    base = folder(root, "coco")
    for split in splits:
        source = base / "annotations" / f"instances_{split}2017.json"
        targets = {kind: base / f"annotations/ov_split_48_17/instances_{split}2017_{kind}.json" for kind in SPLITS}
        if not run.missing(targets.values()):
            continue
        data = read_json(source)
        run.expect(f"images in {source.name}", len(data["images"]), IMAGES.get(split))
        counts = {}
        for kind, target in targets.items():
            part = subset(data, SPLITS[kind], source)
            counts[kind] = len(part["annotations"])
            run.write_json(target, part, _ids)
            numbers = [len(part[key]) for key in ("images", "annotations", "categories")]
            run.say(f"{target}: {numbers[0]} images, {numbers[1]} annotations, {numbers[2]} categories")
        if counts["seen48"] + counts["unseen17"] != counts["instances65"]:
            raise ValueError(f"{source}: annotations of 48 and 17 classes do not add up to those of 65: {counts}")


def subset(data, classes, path):
    """The part of a COCO JSON that is of a class list.

    Raises:
        ValueError: a category that the file lacks or calls by another name.
    """
    wanted = {entry.id: entry.name for entry in class_lists.class_list(classes)}
    kept = [category for category in data["categories"] if category["id"] in wanted]
    names = {category["id"]: category["name"] for category in kept}
    for number, name in wanted.items():
        if names.get(number) != name:
            raise ValueError(f"{path}: category {number} is {names.get(number)!r}, expected {name!r}")
    annotations = [a for a in data["annotations"] if a["category_id"] in wanted]
    annotated = {a["image_id"] for a in annotations}
    images = [image for image in data["images"] if image["id"] in annotated]
    return {**data, "images": images, "annotations": annotations, "categories": kept}


def _ids(data):
    return [sorted(row["id"] for row in data[key]) for key in ("images", "annotations", "categories")]


def make_semantic(root, splits, run):
    """`panoptic_semseg_{split}2017/*.png`: class ids 0..132 with crowds, 255 where there is no segment."""
    base = folder(root, "coco")
    for split in splits:
        path = base / "annotations" / f"panoptic_{split}2017.json"
        data, pictures = read_json(path, "panoptic segments"), folder(base, f"panoptic_{split}2017")
        _, class_of = categories_of(data["categories"], path, "coco_panoptic")
        run.expect(f"images in {path.name}", len(data["annotations"]), IMAGES.get(split))
        target = base / f"panoptic_semseg_{split}2017"
        tables = {target / a["file_name"]: a["segments_info"] for a in data["annotations"]}

        def make(file, tables=tables, pictures=pictures, class_of=class_of):
            segments = [{"id": s["id"], "class_id": class_of[s["category_id"]]} for s in tables[file]]
            found = labels.class_map({"segment_map": coco.read_ids(pictures / file.name), "segments": segments})
            run.write_map(file, np.where(found < 0, VOID, found).astype(np.uint8))

        run.each(f"coco_semantic {split}", run.missing(tables), make)
        run.say(f"{target}: {len(tables)} maps")
