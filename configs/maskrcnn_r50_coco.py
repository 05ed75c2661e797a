"""Mask R-CNN, ResNet-50 with a feature pyramid, COCO instance segmentation: 80 classes.

He et al. 2017, as detectron2's model zoo trains it. Its 3x model (`model_final_f10217.pkl`) has box AP 41.0 and mask AP 37.2 on
val2017 by the zoo's table [C]; that file is converted with this config.

    python main.py --config=configs/maskrcnn_r50_coco.py --mode=convert --torch=model_final_f10217.pkl --workdir=weights/zoo
    python main.py --config=configs/maskrcnn_r50_coco.py:data=/datasets --mode=eval --weights=weights/zoo --workdir=runs/zoo

Options:
    tiny      one bottleneck a stage, narrow heads at 96 pixels on the built-in scenes.
    data      the folder that holds `coco/` (docs/data.md), or, with tiny, a tfds name.
    backbone  an ImageNet classifier of Caffe2's kind, as detectron2's MSRA/R-50.pkl, converted with this config.
    times     of the schedule of 90,000 steps: 1 or 3.
Status: released. Images of every shape are padded to one square of 1344 for training, where detectron2 pads to the largest of a
batch, which changes nothing but anchors in the padding.
"""

from configs import common

FULL = {
    "backbone": {"num_blocks": (3, 4, 6, 3), "stem_dim": 64, "bottleneck_dim": 64, "res2_dim": 256},
    "head": {"hidden_dim": 256, "box_dims": (1024, 1024), "box_size": 7, "mask_layers": 4, "mask_size": 14},
}
TINY = {
    "backbone": {"num_blocks": (1, 1, 1, 1), "stem_dim": 16, "bottleneck_dim": 16, "res2_dim": 32},
    "head": {
        "hidden_dim": 48,
        "box_dims": (96, 96),
        "box_size": 7,
        "mask_layers": 2,
        "mask_size": 14,
        "anchor_sizes": (12, 24, 48, 72, 96),
        "roi_samples": 2,
        "num_before": 100,
        "num_proposals": 64,
        "num_objects": 24,
        "num_candidates": 200,
    },
}
SHORT_SIDES = (640, 672, 704, 736, 768, 800)


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", backbone="", times=1, steps=0)
    steps, milestones = {1: (90_000, (60_000, 80_000)), 3: (270_000, (210_000, 250_000))}[_checked(options.times)]
    config = build(options, num_classes=26 if options.tiny else 80, steps=steps, milestones=milestones)
    data(config, options, train="coco_instance", evaluate=("coco_instance",))
    if not options.tiny:
        # What detectron2's weights were trained with, which began with Caffe2's.
        config.model.pixels, config.model.backbone.stride_in_1x1 = "bgr", True
    return config


def _checked(times):
    if times not in (1, 3):
        raise ValueError(f"config option times: found {times}, expected 1 or 3")
    return times


def build(options, *, num_classes, steps, milestones):
    """Model and recipe, without data: SGD from step 1 of a warm-up of 1000, stem and first stage as they are."""
    config = common.default()
    config.system = "maskrcnn"
    sizes = TINY if options.tiny else FULL
    config.model.backbone = {"name": "resnet", **sizes["backbone"]}
    config.model.head = {"num_classes": num_classes, **sizes["head"]}
    config.task.update(
        image_size=(1344, 1344),
        max_targets=100,
        class_agnostic=False,
        distill={},
        num_points=12544,  # at which a teacher's masks are compared
        anchors={"num": 256, "positive_share": 0.5, "low": 0.3, "high": 0.7},
        regions={"num": 512, "positive_share": 0.25, "overlap": 0.5},
        num_before=2000,  # proposals of each level in training, before suppression
        num_proposals=1000,
    )
    config.train.update(steps=steps, batch_size=16, log_every=50, eval_every=5000, checkpoint_every=5000)
    config.optim.update(name="sgd", learning_rate=0.02, betas=(0.9, 0.999), weight_decay=1e-4)
    config.optim.schedule = {"name": "step", "milestones": milestones, "factor": 0.1, "warmup_steps": 1000}
    config.optim.freeze = (common.FROZEN_NORMS, "^backbone/(stem|res2)_")
    config.predict.merge = {"object_threshold": 0.5, "overlap_threshold": 0.5}
    if options.get("backbone"):
        config.init_from = ({"path": options.backbone, "map": ()},)
    if options.tiny:
        config.task.update(image_size=(96, 96), max_targets=24, num_points=512, num_before=100, num_proposals=64)
        config.task.anchors.num = config.task.regions.num = 64
        config.train.update(steps=1500, eval_every=0, checkpoint_every=500)
        # Nothing is pre-trained.
        config.optim.update(name="adamw", learning_rate=1e-3, weight_decay=0.05, clip_norm=1.0, freeze=(common.FROZEN_NORMS,))
        config.optim.schedule = {"name": "warmup_cosine", "warmup_steps": 50}
        config.predict.canvas = 96
    if options.steps:
        config.train.steps = options.steps
    return config


def data(config, options, train, evaluate, class_agnostic=False):
    """Things of the built-in scenes, or instances of COCO with the short side drawn, as detectron2 trains its zoo."""
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26, class_agnostic=class_agnostic)
        targets = f"target_masks({config.task.max_targets}, "
        config.data.train.preprocess = config.data.train.preprocess.replace(targets, f"{targets}things_only=True, ")
        return
    common.coco_instances(config, options.data, train, evaluate, class_agnostic)
    size = config.task.image_size[0]
    config.data.train.preprocess = config.data.train.preprocess.replace(
        f"resize_scale_crop({size})", f"resize_short({SHORT_SIDES}, 1333)|pad_to_multiple({size}, labels=True)"
    )
