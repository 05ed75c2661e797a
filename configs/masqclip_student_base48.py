"""MasQCLIP's student, base-novel: taught by the annotated masks and by a teacher's masks that nobody has annotated.

Xu et al. 2023, section 3.2; stage 2 of three. Table 4, novel AP50 of the whole system by rounds of 30,000 steps: none 22.6, one
26.1, two 31.9, three 31.2 [C]. The released script runs one round; the paper's result needs two.

    python main.py --config=configs/masqclip_student_base48.py:data=/datasets,teacher=runs/teacher --workdir=runs/round1
    python main.py --config=configs/masqclip_student_base48.py:data=/datasets,teacher=runs/round1 --workdir=runs/round2

Options:
    tiny     as of masqclip_teacher_base48.py; trains the teacher first where there is none.
    data     likewise.
    teacher  weights of masqclip_teacher_base48.py, or of this config: teacher and student both start from them.
    alpha    score above which a mask of the teacher is taken.
    beta     dice with another mask below which it is taken.
Status: released.
"""

from configs import common, masqclip_teacher_base48

TEACHER = "configs/masqclip_teacher_base48.py:tiny"


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", teacher="", alpha=0.8, beta=0.1, steps=0)
    config = build(options, teacher=TEACHER)
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26, class_agnostic=True)
    else:
        common.coco_instances(config, options.data, train="coco_base48", evaluate=("coco_instances65",), class_agnostic=True)
    return config


def build(options, *, teacher):
    """Model and recipe of one round, without data.

    Args:
        teacher: the config that `:tiny` trains first.
    """
    config = masqclip_teacher_base48.build(options, steps=30_000)
    config.task.distill = {"score_threshold": options.alpha, "dice_threshold": options.beta}
    config.train.update(batch_size=4, eval_every=5000)
    config.optim.freeze = (*config.optim.freeze, "^teacher/")
    start = {"path": options.teacher, "leave_out": ("^teacher/",)}  # which of a student's weights is the round before
    if options.tiny:
        config.train.update(steps=300, batch_size=16, eval_every=0, checkpoint_every=300)
        config.optim.learning_rate = 3e-4
        start |= {"path": options.teacher or "{workdir}/teacher", "recipe": teacher}
    if options.steps:
        config.train.steps = options.steps
    if start["path"]:
        config.init_from = (start,)
    return config
