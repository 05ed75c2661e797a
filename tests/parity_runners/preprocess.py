"""Reading, resize rules and CLIPSeg's preprocessing variants against recorded ones, through the op strings."""

import re

import numpy as np

from jaxseg.preprocess import parse
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
