"""MasQCLIP's teacher, base-novel, of its Mask R-CNN variant: without classes, on the objects of COCO's 48 base classes.

Xu et al. 2023, table 1 (column "M-RCNN"), the whole system: AP50 base 40.7, novel 28.4, all 37.5; R50-FPN of schedule 1x [C].

    python main.py --config=configs/maskrcnn_teacher_base48.py:data=/datasets,backbone=weights/r50 --workdir=runs/teacher

Options:
    tiny      as of maskrcnn_r50_coco.py.
    data      the folder that holds `coco/` with the files of the 48/17 split (docs/data.md), or, with tiny, a tfds name.
    backbone  an ImageNet classifier of torchvision's kind, converted with this config.
Status: reconstructed: neither code nor config of this variant is published. What the paper does not say is detectron2's 1x (SGD
0.02, batch 16, 90,000 steps), with pixels and ImageNet weights as of the rest of MasQCLIP (RGB, torchvision's), which the third
stage shares.
"""

from configs import common, maskrcnn_r50_coco


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", backbone="", steps=0)
    config = build(options)
    maskrcnn_r50_coco.data(config, options, train="coco_base48", evaluate=("coco_instances65",), class_agnostic=True)
    return config


def build(options, steps=90_000, milestones=(60_000, 80_000)):
    """Model and recipe of a class-agnostic teacher, without data."""
    config = maskrcnn_r50_coco.build(options, num_classes=1, steps=steps, milestones=milestones)
    config.task.class_agnostic = True
    config.train.pictures = 0  # whose colours are classes
    return config
