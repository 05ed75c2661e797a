"""MasQCLIP's teacher, base-novel: a class-agnostic Mask2Former on the objects of COCO's 48 base classes.

Xu et al. 2023, section 3.2; stage 1 of three. An object of a novel class is background here. Table 4: novel AP50 22.6 of the
whole system with this teacher and no student, 18.2 if it trains for 200,000 steps [C].

    python main.py --config=configs/masqclip_teacher_base48.py:data=/datasets,backbone=weights/r50 --workdir=runs/teacher

Options:
    tiny      as of mask2former_r50_coco_panoptic.py.
    data      the folder that holds `coco/` with the files of the 48/17 split (docs/data.md), or, with tiny, a tfds name.
    backbone  an ImageNet classifier, converted by `--mode=convert --torch=R-50.pkl` with this config.
Status: released. What the published program prints as it evaluates compares masks of another size; here recall and precision of
objects are those of the original size.
"""

from configs import common, mask2former_r50_coco_panoptic


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", backbone="", steps=0)
    config = build(options)
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26, class_agnostic=True)
    else:
        common.coco_instances(config, options.data, train="coco_base48", evaluate=("coco_instances65",), class_agnostic=True)
    return config


def build(options, steps=100_000):
    """Model and recipe of a class-agnostic teacher, without data."""
    config = mask2former_r50_coco_panoptic.build(options, num_outputs=2, steps=steps, milestones=())
    config.task.class_agnostic = True
    config.train.pictures = 0  # whose colours are classes
    if not options.tiny:
        config.optim.schedule = {"name": "constant"}  # the published milestones lie behind the last step
        config.train.update(eval_every=0, checkpoint_every=5000)
    return config
