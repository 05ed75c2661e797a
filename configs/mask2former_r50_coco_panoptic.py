"""Mask2Former, ResNet-50, COCO panoptic segmentation: 80 things and 53 kinds of stuff.

Cheng et al. 2022, 50 epochs of large-scale jitter. (No number is quoted: none is confirmed here from a primary source.)

    python main.py --config=configs/mask2former_r50_coco_panoptic.py:data=/datasets,backbone=weights/r50 --workdir=runs/m2f

Options:
    tiny      one bottleneck a stage and one or two decoder layers at 96 pixels on the built-in scenes.
    data      the folder that holds `coco/` (docs/data.md), or, with tiny, a tfds name.
    backbone  an ImageNet classifier, converted by `--mode=convert --torch=R-50.pkl` with this config.
Status: released.
"""

from configs import common


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", backbone="", steps=0)
    config = build(options, num_outputs=27 if options.tiny else 134)
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26)
    else:
        common.coco_panoptic(config, options.data)
        jitter(config)
    return config


def jitter(config):
    """Large-scale jitter in place of MasQCLIP's plain square, and average precision of the things."""
    size = config.task.image_size[0]
    config.data.train.preprocess = config.data.train.preprocess.replace(f"|resize({size})|", f"|resize_scale_crop({size})|")
    for split in config.data.eval:
        config.data.eval[split].evaluators = ("pq", "miou", "mask_ap('segments')")


def build(options, *, num_outputs, steps=368_750, milestones=(327_778, 355_092)):
    """Model and recipe, without data."""
    config = common.default()
    config.system = "mask2former"
    common.mask_former(config, num_outputs, tiny=options.tiny)
    config.task.update(
        class_agnostic=False,
        distill={},
        weights={"class": 2.0, "mask": 5.0, "dice": 5.0},  # of matching costs and of losses
        no_object_weight=0.1,
        num_points=12544,
        oversample_ratio=3.0,
        importance_ratio=0.75,
    )
    config.train.update(steps=steps, batch_size=16, log_every=50, eval_every=5000, checkpoint_every=5000)
    config.optim.schedule = {"name": "step", "milestones": milestones, "factor": 0.1}
    if options.get("backbone"):
        config.init_from = ({"path": options.backbone, "map": ()},)
    if options.tiny:
        config.task.num_points = 512
        config.train.update(steps=1500, eval_every=0, checkpoint_every=500)
        config.optim.update(learning_rate=1e-3, clip_norm=1.0, multipliers=())  # nothing is pre-trained
        config.optim.schedule = {"name": "warmup_cosine", "warmup_steps": 50}
    if options.steps:
        config.train.steps = options.steps
    return config
