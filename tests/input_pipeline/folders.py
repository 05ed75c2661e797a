"""Small data sets on disk."""

import json

import numpy as np
from PIL import Image

SIZE = (20, 30)


def write_folder(root, num, split="train", height=SIZE[0], width=SIZE[1]):
    """`num` images in the layout of a label-map folder: a void, a sky and a car stripe; classes are stored as 10, 20, 30."""
    for name in (split, f"{split}annot"):
        (root / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(num):
        image = np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(image).save(root / split / f"{i}.jpg")
        stripes = np.repeat(np.array([0, 10, 30], np.uint8), width // 3)
        Image.fromarray(np.tile(stripes, (height, 1))).save(root / f"{split}annot" / f"{i}.png")
        lines.append(f"{split}/{i}.jpg {split}annot/{i}.png")
    (root / f"{split}.txt").write_text("\n".join(lines))
    classes = [{"id": 10, "name": "sky", "is_thing": False}, {"id": 20, "name": "road"}, {"id": 30, "name": "car"}]
    described = {"classes": classes, "ignore_index": 0, "groups": {"unseen": ["car"]}}
    (root / "classes.json").write_text(json.dumps(described))
    return root


def coco_json(root, name="instances.json", images=2):
    """Two images, the second without objects; a 4 x 4 cat at the corner of the first, and a dog of 2 x 4 as run lengths."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for file in ("a.jpg", "b.jpg"):
        Image.fromarray(np.full((10, 12, 3), 90, np.uint8)).save(root / "images" / file)
    listed = [{"id": 7, "file_name": "a.jpg", "height": 10, "width": 12}, {"id": 9, "file_name": "b.jpg"}][:images]
    dog = {"size": [10, 12], "counts": [65, 4, 6, 4, 41]}
    data = {
        "images": listed,
        "categories": [{"id": 17, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 17, "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]], "bbox": [0, 0, 4, 4]},
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": dog, "bbox": [6, 5, 2, 4], "iscrowd": 0},
        ],
    }
    path = root / name
    path.write_text(json.dumps(data))
    return path
