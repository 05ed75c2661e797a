"""Reading, resize rules and CLIPSeg's preprocessing variants against recorded ones, through the op strings."""

import json
import re

import numpy as np

from jaxseg.preprocess import geometry, objects, parse
from jaxseg.preprocess.geometry import resize_image, resize_nearest, scaled_size, short_side_size
from jaxseg.preprocess.reading import read_image
from tests.parity_runners.registry import runner


def _chw(example):
    return np.moveaxis(example["image"], -1, 0)


@runner("clipseg/preprocess")
def clipseg_preprocess(config, weights, inputs):
    del weights
    clip, size = f"decode(rgb=False)|clip_preprocess({config['clip_n_px']})|normalize(clip)", config["size"]
    variants = {
        "quickstart_noaa": f"decode|normalize(imagenet)|resize_float({size})",
        "quickstart_aa": f"decode|normalize(imagenet)|resize_float({size}, antialias=True)",
        "coco_pil": f"decode|resize({size})|normalize(imagenet)",
        "phrasecut": f"decode|resize_float({size}, align_corners=True)|normalize(imagenet)",
    }
    outputs = {}
    for name, image in inputs.items():
        if name.startswith("image_"):
            what = name.removeprefix("image_")
            outputs[f"clip_{what}"] = _chw(parse(clip)({"image": image}))
            for variant, text in variants.items():
                outputs[f"{variant}_{what}"] = _chw(parse(text)({"image": image}))
    segments = inputs["seg"]
    example = {"image": np.zeros((*segments.shape, 3), np.uint8), "segment_map": segments}
    outputs["phrasecut_seg"] = parse(variants["phrasecut"])(example)["segment_map"]
    return outputs


@runner("dataeval/image_read")
def image_read(config, weights, inputs):
    del config, weights
    outputs = {}
    for name, content in inputs.items():
        # The reference converts as PIL does, which cuts 16-bit gray at 255.
        image = read_image(content.tobytes(), name=name, sixteen_bit="clip")
        index = name.removeprefix("file_")
        outputs[f"rgb_{index}"], outputs[f"bgr_{index}"] = image, image[..., ::-1]
    return outputs


def _sizes_asked(outputs):
    """Rows of the two tables hold the arguments first; the sizes of images and labels stand in their names."""
    names = [name for name in outputs if re.fullmatch(r"(image|label)_\d+x\d+", name)]
    shortest, scale = outputs["resize_shortest_edge"][:, :4], outputs["resize_scale"][:, :3]
    return {"shortest": shortest, "scale": scale, "names": names}


@runner("dataeval/resize_rules", questions=_sizes_asked)
def resize_rules(config, weights, inputs):
    del config, weights
    shortest = [[*row, *short_side_size(*row)] for row in inputs["shortest"].tolist()]
    scale = [[h, w, s, *scaled_size(int(h), int(w), s, (1024, 1024))] for h, w, s in inputs["scale"].tolist()]
    outputs = {"resize_shortest_edge": np.array(shortest), "resize_scale": np.array(scale)}
    for name in inputs["names"]:
        what, height, width = re.split("[_x]", name)
        resized = resize_image if what == "image" else resize_nearest
        outputs[name] = resized(inputs[what], (int(height), int(width)))
    return outputs


def _moved(example, transform):
    op, (height, width) = transform["op"], example["image"].shape[:2]
    if op == "hflip":
        return geometry.flipped(example)
    if op == "resize":
        return geometry.resized(example, (transform["new_h"], transform["new_w"]))
    if op == "crop":
        y, x = transform["y0"], transform["x0"]
        return geometry.cropped(example, y, x, min(transform["h"], height - y), min(transform["w"], width - x))
    if op == "pad":
        return geometry.padded(example, (height + transform["y1"], width + transform["x1"]), int(transform["pad_value"]))
    return example


def _boxes(masks):
    """float32 [N, 4] around the masks, right and bottom exclusive; zeros where one is empty."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        ys, xs = np.nonzero(mask)
        if len(ys):
            box[:] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    return boxes


@runner("dataeval/mapper")
def mapper(config, weights, inputs):
    del weights
    image, pan = inputs["image"], inputs["pan"]
    annotations = [a for a in json.loads(str(inputs["annotations"])) if not a["iscrowd"]]
    segments = [s for s in json.loads(str(inputs["segments_info"])) if not s["iscrowd"]]
    items = []
    for a in annotations:
        x, y, w, h = a["bbox"]
        items.append({"segmentation": a["segmentation"], "box_xyxy": (x, y, x + w, y + h)})
    example = {
        "image": image,
        "segment_map": pan,
        "part_map": (pan % 251).astype(np.uint8),  # what the file calls sem_seg
        "objects": objects.checked(items, image.shape[:2], "annotation"),
        "label_size": image.shape[:2],
    }
    for transform in config["transforms"]:
        example = _moved(example, transform)
    of_segments = np.stack([example["segment_map"] == s["id"] for s in segments])
    of_objects = objects.draw(example["objects"], example["label_size"])
    kept = of_segments.any((1, 2))
    return {
        "image": example["image"],
        "pan": example["segment_map"],
        "sem_seg": example["part_map"],
        "pan_classes_kept": np.array([s["category_id"] for s in segments])[kept],
        "pan_boxes_kept": _boxes(of_segments[kept]),
        "pan_masks_kept": np.packbits(of_segments[kept]),
        "pan_masks_shape": np.array(of_segments[kept].shape),
        "inst_keep": of_objects.any((1, 2)),
        "inst_classes": np.array([a["category_id"] for a in annotations]),
        "inst_boxes_from_masks": _boxes(of_objects),
        "inst_boxes_from_annotation": np.stack([o["box_xyxy"] for o in example["objects"]]),
        "inst_masks": np.packbits(of_objects),
        "inst_masks_shape": np.array(of_objects.shape),
    }
