"""Files derived from ADE20K: shifted maps, panoptic and instance annotations of 150 classes; maps of 847 classes."""

import io

import cv2
import numpy as np
from PIL import Image

from input_pipeline.benchmarks import WORDS
from input_pipeline.preparation.run import files, folder
from jaxseg import coco
from jaxseg.preprocess import reading
from jaxseg.text import class_lists

MAPS = {"train": 20_210, "val": 2_000}
FULL = {"train": 25_574, "val": 2_000}
VOID, VOID_16 = 255, 65_535
_SHORT = 512  # pixels; the short side of larger images of the full release


def _base(root):
    return folder(root, "ADEChallengeData2016", "ade/ADEChallengeData2016")


def make_semantic(root, splits, run):
    """`annotations_detectron2/{training,validation}/*.png`: the released numbers less one, 0 becomes 255."""
    base = _base(root)
    for split in splits:
        sources = files(base / "annotations" / WORDS[split], "*.png")
        run.expect(f"label maps of {split}", len(sources), MAPS[split])
        target = base / "annotations_detectron2" / WORDS[split]
        source_of = {target / source.name: source for source in sources}

        def make(file, source_of=source_of):
            classes = _classes(source_of[file])
            run.write_map(file, np.where(classes < 0, VOID, classes).astype(np.uint8))

        run.each(f"ade20k_semantic {split}", run.missing(source_of), make)
        run.say(f"{target}: {len(sources)} maps")


def _classes(path):
    """int32 [H, W] of 0..149, -1 = other."""
    stored = reading.read_label_map(path)
    if stored.max(initial=0) > 150:
        raise ValueError(f"{path}: pixel value {stored.max()}, expected 0 to 150")
    return stored - 1


def _instances(path, things):
    """[(class id of the 150, mask)] of a map of instances: red is the 1-based number among the 100 things, green the index."""
    rgb = np.asarray(Image.open(path))
    if rgb.ndim != 3 or rgb.shape[2] < 3:
        raise ValueError(f"{path}: found a picture of shape {rgb.shape}, expected red: class, green: instance")
    kinds, indices = rgb[..., 0].astype(np.int32), rgb[..., 1].astype(np.int32)
    found = []
    for pair in np.unique((indices * 256 + kinds)[(indices > 0) & (kinds > 0)]).tolist():
        kind = pair % 256
        if kind > len(things):
            raise ValueError(f"{path}: instance class {kind}, expected 1 to {len(things)}")
        found.append((things[kind - 1], (indices == pair // 256) & (kinds == kind)))
    return found


def _things():
    return [entry.id for entry in class_lists.class_list("ade20k_instance")]


def make_panoptic(root, splits, run):
    """`ade20k_panoptic_{train,val}/*.png` and `.json`: stuff of the semantic maps, over it the instances.

    Areas are those before instances cover stuff, as published. Ids are our own: class + 1 for stuff, 256 (class + 1) + number
    for the instances of a class; the published files colour them by chance.
    """
    base, things = _base(root), _things()
    entries = class_lists.class_list("ade20k_150")
    for split in splits:
        sources = files(base / "annotations" / WORDS[split], "*.png")
        run.expect(f"label maps of {split}", len(sources), MAPS[split])
        target = base / f"ade20k_panoptic_{split}"

        def make(source, split=split, target=target):
            instances = _instances(base / "annotations_instance" / WORDS[split] / source.name, things)
            ids, segments = panoptic(_classes(source), instances, things, source)
            run.write_map(target / source.name, np.asarray(coco.id_picture(ids)))
            return {"image_id": source.stem, "file_name": source.name, "segments_info": segments}, ids.shape

        made = run.each(f"ade20k_panoptic {split}", sources, make)
        data = {
            "images": [_image(annotation["image_id"], size) for annotation, size in made],
            "annotations": [annotation for annotation, _ in made],
            "categories": [{"id": e.id, "name": e.name, "isthing": int(e.is_thing)} for e in entries],
        }
        run.write_json(target.with_suffix(".json"), data, lambda d: [_without_ids(a) for a in d["annotations"]])
        run.say(f"{target}.json: {len(made)} images, {sum(len(a['segments_info']) for a, _ in made)} segments")


def panoptic(classes, instances, things, path):
    """(ids int32 [H, W], segments_info) of class ids [H, W] and of `_instances`."""
    ids, segments = np.zeros(classes.shape, np.int32), []
    for class_id in np.unique(classes[classes >= 0]).tolist():
        if class_id not in things:
            _paint(ids, classes == class_id, class_id + 1, class_id, segments)
    count = {}
    for class_id, mask in instances:
        if mask.shape != classes.shape:
            raise ValueError(f"{path}: instances of size {mask.shape}, the label map is {classes.shape}")
        count[class_id] = count.get(class_id, 0) + 1
        _paint(ids, mask, 256 * (class_id + 1) + count[class_id], class_id, segments)
    return ids, segments


def _paint(ids, mask, segment, class_id, segments):
    ids[mask] = segment
    x0, y0, x1, y1 = (int(v) for v in coco.box_of(mask))
    box = [x0, y0, x1 - x0, y1 - y0]
    segments.append({"id": segment, "category_id": class_id, "iscrowd": 0, "area": int(mask.sum()), "bbox": box})


def _image(stem, size):
    return {"id": stem, "file_name": f"{stem}.jpg", "height": int(size[0]), "width": int(size[1])}


def _without_ids(annotation):
    rows = [(s["category_id"], s["area"], list(s["bbox"])) for s in annotation["segments_info"]]
    return str(annotation["image_id"]), sorted(rows)


def make_instance(root, splits, run):
    """`ade20k_instance_{train,val}.json`: run-length masks of the 100 things, category ids of the 150 classes."""
    base, things = _base(root), _things()
    for split in splits:
        sources = files(base / "annotations_instance" / WORDS[split], "*.png")
        run.expect(f"instance maps of {split}", len(sources), MAPS[split])
        target = base / f"ade20k_instance_{split}.json"
        if not run.missing([target]):
            continue
        images, rows = [], []
        for image, found in run.each(f"ade20k_instance {split}", sources, lambda source: _rows(source, things)):
            images.append(image)
            rows += [{"id": len(rows) + i, **row} for i, row in enumerate(found, 1)]
        names = [{"id": e.id, "name": e.name} for e in class_lists.class_list("ade20k_instance")]
        data = {"images": images, "annotations": rows, "categories": names}
        run.write_json(
            target, data, lambda d: sorted((str(a["image_id"]), a["category_id"], a["area"]) for a in d["annotations"])
        )
        run.say(f"{target}: {len(images)} images, {len(rows)} objects")


def _rows(source, things):
    size, rows = np.asarray(Image.open(source)).shape[:2], []
    for class_id, mask in _instances(source, things):
        row = {"image_id": source.stem, "category_id": class_id, "iscrowd": 0, "area": int(mask.sum())}
        rows.append({**row, "bbox": coco.xywh(coco.box_of(mask)), "segmentation": coco.encode_mask(mask)})
    return _image(source.stem, size), rows


def make_full(root, splits, run):
    """`{images,annotations}_detectron2/{training,validation}` of ADE20K_2021_17_01: 847 classes, 65535 elsewhere.

    Of the release's `*_seg.png`: a pixel's class is red / 10 * 256 + green, as its own tools read it. Images whose short side
    is longer than 512 are resized to that (OpenCV, linear; maps nearest), others are copied.
    """
    base = folder(root, "ADE20K_2021_17_01", "ade/ADE20K_2021_17_01")
    everything = files(base / "images", "**/*_seg.png")
    class_of = np.full(256 * 26, VOID_16, np.uint16)
    for position, entry in enumerate(class_lists.class_list("ade20k_847")):
        class_of[entry.id] = position
    for split in splits:
        sources = [p for p in everything if p.name.startswith("ADE_val_") == (split == "val")]
        run.expect(f"images of {split}", len(sources), FULL[split])
        targets = {base / "annotations_detectron2" / WORDS[split] / _stem(p, ".tif"): p for p in sources}

        def make(file, targets=targets):
            photograph = targets[file].with_name(_stem(targets[file], ".jpg"))
            numbers = _full_classes(targets[file], class_of)
            content, numbers = _at_most(photograph, numbers)
            run.write(base / "images_detectron2" / file.parent.name / photograph.name, content)
            run.write_map(file, numbers)
            return bool((numbers != VOID_16).any())

        made = run.each(f"ade20k_847 {split}", run.missing(targets), make)
        if made and not any(made):
            raise ValueError(f"{base}: no map of {split} has a pixel of the 847 classes; is it the release of 2021_17_01?")
        run.say(f"{base / 'annotations_detectron2' / WORDS[split]}: {len(sources)} maps")


def _stem(path, ending):
    return path.name.removesuffix("_seg.png") + ending


def _full_classes(path, class_of):
    rgb = np.asarray(Image.open(path))
    if rgb.ndim != 3 or rgb.shape[2] < 3:
        raise ValueError(f"{path}: found a picture of shape {rgb.shape}, expected three channels")
    return class_of[rgb[..., 0].astype(np.int32) // 10 * 256 + rgb[..., 1]]


def _at_most(photograph, numbers):
    """(JPEG, label map) with the short side at 512 at most."""
    height, width = numbers.shape
    if min(height, width) <= _SHORT:
        return photograph.read_bytes(), numbers
    image, scale = reading.read_image(photograph), _SHORT / min(height, width)
    if image.shape[:2] != numbers.shape:
        raise ValueError(f"{photograph}: {image.shape[:2]}, its label map is {numbers.shape} (height, width)")
    size = (round(width * scale), round(height * scale))
    content = io.BytesIO()
    Image.fromarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)).save(content, "JPEG", quality=95)
    return content.getvalue(), cv2.resize(numbers, size, interpolation=cv2.INTER_NEAREST)
