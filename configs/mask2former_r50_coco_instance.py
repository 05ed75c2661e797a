"""Mask2Former, ResNet-50, COCO instance segmentation: 80 classes.

Cheng et al. 2022, 50 epochs of large-scale jitter. (No number is quoted: none is confirmed here from a primary source.)

Status: released. Options and recipe: mask2former_r50_coco_panoptic.py.
"""

from configs import common, mask2former_r50_coco_panoptic


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", backbone="", steps=0)
    # Scenes are panoptic: their stuff is learnt along.
    config = mask2former_r50_coco_panoptic.build(options, num_outputs=27 if options.tiny else 81)
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26)
    else:
        common.coco_instances(config, options.data, train="coco_instance", evaluate=("coco_instance",))
    return config
