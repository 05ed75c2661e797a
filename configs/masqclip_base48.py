"""MasQCLIP, MasQ-tuning on COCO's 48 base classes: instances of 48 base and 17 novel classes.

Xu et al. 2023, table 2 and table 1 (Mask2Former): AP50 base 51.0, novel 31.9, all 46.0 generalised; base 51.2, novel 34.3
constrained to the 48 or the 17 [C].

    python main.py --config=configs/masqclip_base48.py:data=/datasets,student=runs/student,clip=runs/clip --workdir=runs/masq

Options:
    tiny     two-layer towers at 96 pixels on the built-in scenes; trains teacher, student and CLIP first where there are none.
    data     the folder that holds `coco/` (docs/data.md), or, with tiny, a tfds name.
    student  weights of configs/masqclip_student_base48.py: one round as the released script runs it, two in the paper.
    clip     OpenAI's ViT-L/14@336px, converted.
    tune     which projections mask tokens have for themselves: "q" as published; "k", "qk", "v", "qkv", or "" (table 5:
             ADE20K PQ 23.3, 22.5, 22.9, 14.4, 14.9 and 10.7 frozen) [C]; reconstructed but for "q".
    objects  whether scores are multiplied with objectness (table 3: novel AP50 11.3 without, 22.6 with) [C].
Status: released; the published evaluation of the 17 novel classes alone could not run for want of a vocabulary.
"""

from configs import common
from jaxseg.encoders.clip.variants import VARIANTS

STUDENT = "configs/masqclip_student_base48.py:tiny"
TUNED = ("", "q", "k", "v", "qk", "qkv")


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", student="", clip="", tune="q", objects=True, steps=0)
    config = build(options, num_classes=48, student=STUDENT)
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26)
        return config
    evaluate = "coco_instances65", "coco_base48", "coco_novel17"
    common.coco_instances(config, options.data, train="coco_base48", evaluate=evaluate)
    return config


def build(options, *, num_classes, student):
    """The recipe of the third stage, for any vocabulary."""
    if options.tune not in TUNED:
        raise ValueError(f"config option tune: found {options.tune!r}, expected one of {', '.join(map(repr, TUNED))}")
    config = common.default()
    config.system = "masqclip"
    common.mask_former(config, num_outputs=2, tiny=options.tiny)
    config.model.clip = {**VARIANTS["ViT-L/14@336px"], "mask_projections": options.tune}
    config.task.update(
        num_classes=num_classes,
        words="none",
        object_scores=options.objects,
        assign_threshold=0.4,  # of a dice loss: the paper's overlap of 0.6
        background_weight=0.1,
        class_weight=2.0,
        projections_from_clip=False,  # published: random, as torch fills linear layers
    )
    config.train.update(steps=10_000, batch_size=4, log_every=50, eval_every=5000, checkpoint_every=1000)
    config.optim.schedule = {"name": "step", "milestones": (9000,), "factor": 0.1}
    config.optim.multipliers, config.optim.no_decay = (), ()
    config.optim.freeze = ("^(backbone|head)/", r"^clip/(?!.*/mask_)")
    start = (
        {"path": options.student, "leave_out": ("^teacher/",)},
        {"path": options.clip, "map": (("^", "clip/"),), "leave_out": ("/mask_",)},
    )
    if options.tiny:
        config.model.clip.update(common.TINY_CLIP)
        config.train.update(steps=300, batch_size=16, eval_every=0, checkpoint_every=300)
        config.optim.update(learning_rate=2e-3, clip_norm=1.0)
        config.optim.schedule = {"name": "warmup_cosine", "warmup_steps": 20}
        config.task.projections_from_clip = True
        recipes = ("student", student), ("clip", "configs/clip_pretrain.py:tiny")
        start = tuple(
            entry | {"path": entry["path"] or f"{{workdir}}/{name}", "recipe": recipe}
            for entry, (name, recipe) in zip(start, recipes, strict=True)
        )
    config.init_from = tuple(entry for entry in start if entry["path"])
    if options.steps:
        config.train.steps = options.steps
    return config
