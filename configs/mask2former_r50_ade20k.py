"""Mask2Former, ResNet-50, ADE20K: panoptic segmentation with 150 classes, or semantic segmentation.

Cheng et al. 2022, 160,000 steps. (No number is quoted: none is confirmed here from a primary source.)

    python main.py --config=configs/mask2former_r50_ade20k.py:data=/datasets,backbone=weights/r50 --workdir=runs/ade

Options:
    tiny, data, backbone
              as of mask2former_r50_coco_panoptic.py; `data` is the folder that holds `ADEChallengeData2016/` (docs/data.md).
    semantic  a mask for each class instead of each object; windows of 512 pixels instead of 640.
Status: inferred: the published recipe also distorts colours.
"""

from configs import common, mask2former_r50_coco_panoptic


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", backbone="", semantic=False, steps=0)
    num_outputs = 27 if options.tiny else 151
    config = mask2former_r50_coco_panoptic.build(options, num_outputs=num_outputs, steps=160_000, milestones=())
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26)
        return config
    config.optim.schedule = {"name": "poly", "power": 0.9}
    if options.semantic:
        short, longest = 512, 2048
        config.data.train.sources = (common.benchmark("ade20k_150", options.data, "train"),)
        common.semantic(config, options.data, ("ade20k_150",), short, longest)
        config.predict.merge.semantic_first = True
    else:
        short, longest = 640, 2560
        names = "ade20k_panoptic", ("ade20k_panoptic",)
        common.panoptic(config, options.data, *names, short=short, longest=longest)
        mask2former_r50_coco_panoptic.jitter(config)
    config.task.image_size = (short, short)
    shorts = tuple(short * i // 10 for i in range(5, 21))
    least = 1 if options.semantic else 0  # a class is what has pixels; segments that a window has left stay, empty
    config.data.train.preprocess = (
        f"decode|resize_short({shorts}, {longest})|crop({short})|pad({short})|flip_lr"
        f"|target_masks({config.task.max_targets}, min_pixels={least})|keep(image, image_size, masks, labels, valid)"
    )
    return config
