"""MasQCLIP's student, base-novel, of its Mask R-CNN variant: taught by annotated masks and by a teacher's of everything else.

Xu et al. 2023, table 1 (column "M-RCNN"), the whole system: AP50 base 40.7, novel 28.4, all 37.5; two rounds of 10,000 steps
[C].

    python main.py --config=configs/maskrcnn_student_base48.py:data=/datasets,teacher=runs/teacher --workdir=runs/round1
    python main.py --config=configs/maskrcnn_student_base48.py:data=/datasets,teacher=runs/round1 --workdir=runs/round2

Options:
    tiny     as of maskrcnn_teacher_base48.py; trains the teacher first where there is none.
    data     likewise.
    teacher  weights of maskrcnn_teacher_base48.py, or of this config: teacher and student both start from them.
    alpha    score of a box above which its mask is taken.
    beta     dice with another mask below which it is taken.
Status: reconstructed: neither code nor config of this variant is published. The schedule is the teacher's in small; alpha and
beta are those of the Mask2Former variant, whose scores have the mask's quality as a factor.
"""

from configs import common, maskrcnn_r50_coco, maskrcnn_teacher_base48

TEACHER = "configs/maskrcnn_teacher_base48.py:tiny"


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", teacher="", alpha=0.8, beta=0.1, steps=0)
    config = maskrcnn_teacher_base48.build(options, steps=10_000, milestones=(6667, 8889))
    maskrcnn_r50_coco.data(config, options, train="coco_base48", evaluate=("coco_instances65",), class_agnostic=True)
    config.task.distill = {"score_threshold": options.alpha, "dice_threshold": options.beta}
    config.optim.freeze = (*config.optim.freeze, "^teacher/")
    start = {"path": options.teacher, "leave_out": ("^teacher/",)}  # which of a student's weights is the round before
    if options.tiny:
        config.train.update(steps=300, checkpoint_every=300)
        config.optim.learning_rate = 3e-4
        start |= {"path": options.teacher or "{workdir}/teacher", "recipe": TEACHER}
    if options.steps:
        config.train.steps = options.steps
    if start["path"]:
        config.init_from = (start,)
    return config
