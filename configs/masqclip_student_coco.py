"""MasQCLIP's student, cross-dataset: taught by COCO's panoptic segments and by a teacher's masks beside them.

Xu et al. 2023, section 3.2; stage 2 of three. A tenth of the rate of masqclip_student_base48.py.

Status: released. Options and recipe: masqclip_student_base48.py; the teacher is that of masqclip_teacher_coco.py.
"""

from configs import common, masqclip_student_base48

TEACHER = "configs/masqclip_teacher_coco.py:tiny"


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="datasets", teacher="", alpha=0.8, beta=0.1, steps=0)
    config = masqclip_student_base48.build(options, teacher=TEACHER)
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26, class_agnostic=True)
        return config
    config.optim.learning_rate = 1e-5
    config.train.eval_every = 0
    common.coco_panoptic(config, options.data, class_agnostic=True)
    return config
