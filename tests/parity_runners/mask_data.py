"""Training and test transforms of the mask transformers, through op strings whose draws are the recorded ones."""

import numpy as np

from jaxseg.preprocess import Context, parse
from jaxseg.preprocess.geometry import short_side_size
from tests.parity_runners.registry import runner


class _Replay:
    """Stands for a generator: gives recorded draws one after another."""

    def __init__(self, draws):
        # They are kept in float32; the shortest decimal is the number that was drawn.
        self._draws = iter([float(str(draw)) for draw in draws])

    def uniform(self, *bounds):
        del bounds
        return next(self._draws)


def _chw(image):
    return np.moveaxis(image, -1, 0)


def _objects(annotations):
    found = []
    for a in annotations:
        x, y, w, h = a["bbox"]
        row = {"class_id": a["category_id"], "is_crowd": bool(a["iscrowd"]), "segmentation": a["segmentation"]}
        found.append({**row, "box_xyxy": (x, y, x + w, y + h)})
    return found


@runner("masqclip/dataset_mappers")
def dataset_mappers(config, weights, inputs):
    del weights
    crop, annotations = config["crop"], config["annotations"]
    segments = [{"id": s["id"], "class_id": s["category_id"], "is_crowd": bool(s["iscrowd"])} for s in config["segments_info"]]
    jitter = f"resize_scale_crop({crop}, {config['min_scale']}, {config['max_scale']})"
    ways = {
        "instance": (f"decode|flip_lr|{jitter}|target_masks({max(len(annotations), 1)})", {"objects": _objects(annotations)}),
        "panoptic": (
            f"decode|flip_lr|resize({crop})|target_masks({max(len(segments), 1)})",
            {"segment_map": inputs["panoptic_ids"].astype(np.int32), "segments": segments},
        ),
    }
    outputs = {}
    for name, draws in inputs.items():
        if name.endswith("_draws"):
            case = name.removesuffix("_draws")
            text, labels = ways[case.split("_")[0]]
            made = parse(text)({"image": inputs["image"], **labels}, Context(_Replay(draws)))
            outputs[f"{case}_image"] = _chw(made["image"])
            outputs[f"{case}_masks"] = made["masks"][made["valid"]]
            outputs[f"{case}_classes"] = made["labels"][made["valid"]]
    return outputs


@runner("masqclip/preprocessing", questions=lambda outputs: {"edges": outputs["shortest_edge_shapes"][:, :4]})
def preprocessing(config, weights, inputs):
    del weights
    crop = config["crop"]
    outputs = {"shortest_edge_shapes": np.array([[*row, *short_side_size(*row)] for row in inputs["edges"].tolist()])}
    for name, image in inputs.items():
        if not name.startswith("image_"):
            continue
        index = name.removeprefix("image_")
        example = {"image": image, "segment_map": inputs[f"seg_{index}"].astype(np.int32)}
        square = parse(f"decode|resize({crop})")(example)
        outputs[f"resize_square_{index}"], outputs[f"resize_square_seg_{index}"] = square["image"], square["segment_map"]
        edge = parse(f"decode|resize_short({config['shortest_edge']}, {config['max_size']}, labels=False)")(example)
        outputs[f"shortest_edge_{index}"] = edge["image"]
        outputs[f"hflip_{index}"] = parse("decode|flip_lr(1.0)")(example, Context(_Replay([0.0])))["image"]
        jitter = parse(f"decode|resize_scale_crop({crop}, fill={config['pad_value']})")
        for scale in config["scales"]:
            for offset in config["offsets"]:
                made = jitter(example, Context(_Replay([scale, offset])))
                outputs[f"lsj_{index}_scale{scale}_offset{offset}"] = made["image"]
    return outputs
