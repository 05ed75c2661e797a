"""MasQCLIP's teacher, cross-dataset: a class-agnostic Mask2Former on COCO's panoptic segments, 200,000 steps.

Xu et al. 2023, section 3.2; stage 1 of three, for the models that table 1 evaluates on ADE20K and Pascal Context.

Status: released. Options and recipe: masqclip_teacher_base48.py.
"""

from configs import common, masqclip_teacher_base48


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", backbone="", steps=0)
    config = masqclip_teacher_base48.build(options, steps=200_000)
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26, class_agnostic=True)
    else:
        common.coco_panoptic(config, options.data, class_agnostic=True)
    return config
