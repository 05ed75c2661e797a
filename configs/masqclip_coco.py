"""MasQCLIP, MasQ-tuning on COCO's 133 classes, evaluated there or, without further training, on other data sets.

Xu et al. 2023, table 1 (Mask2Former): ADE20K-150 PQ 23.3 (things 21.2, stuff 27.7); mIoU ADE20K-150 30.4, ADE20K-847 10.7,
Pascal Context-59 57.8, Pascal Context-459 18.2; table 5: COCO PQ 48.5, mIoU 62.0 [C].

    python main.py --config=configs/masqclip_coco.py:data=/datasets,student=runs/student,clip=runs/clip --workdir=runs/masqclip
    python main.py --config=configs/masqclip_coco.py:on=ade20k_847 --mode=eval --weights=runs/masqclip --workdir=runs/ade

Options:
    tiny, data, student, clip, tune, objects
             as of masqclip_base48.py; the student is that of configs/masqclip_student_coco.py.
    on       where it is evaluated: coco_panoptic, ade20k_panoptic, ade20k_150, ade20k_847, pascal_context_59,
             pascal_context_459 or pascal_voc_21.
Status: released; Pascal VOC is inferred (the paper's other semantic settings with VOC's 21 classes).
"""

from configs import common, masqclip_base48

STUDENT = "configs/masqclip_student_coco.py:tiny"
# Data set -> (which words a name has, object and overlap threshold). Short and long sides are 800 and 1333 on COCO, 640 and
# 2560 on ADE20K's panoptic segments, 512 and 2048 elsewhere.
ON = {
    "coco_panoptic": ("coco", 0.3),
    "ade20k_panoptic": ("commas", 0.3),
    "ade20k_150": ("commas", 0.3),
    "ade20k_847": ("commas", 0.8),
    "pascal_context_59": ("none", 0.8),
    "pascal_context_459": ("none", 0.8),
    "pascal_voc_21": ("none", 0.8),
}


def get_config(arg=""):
    options = common.parse_arg(
        arg, tiny=False, data="datasets", student="", clip="", tune="q", objects=True, on="coco_panoptic", steps=0
    )
    if options.on not in ON:
        raise ValueError(f"config option on: found {options.on!r}, expected one of {', '.join(ON)}")
    config = masqclip_base48.build(options, num_classes=133, student=STUDENT)
    config.predict.merge.object_threshold = config.predict.merge.overlap_threshold = 0.3
    if options.tiny:
        common.tiny_panoptic(config, options.data, num_classes=26)
        return config
    common.coco_panoptic(config, options.data)
    if options.on != "coco_panoptic":
        _evaluate_on(config, options.data, options.on)
    config.task.words, threshold = ON[options.on]
    config.predict.merge.object_threshold = config.predict.merge.overlap_threshold = threshold
    return config


def _evaluate_on(config, root, name):
    """Another data set's val instead of COCO's."""
    if name == "ade20k_panoptic":
        common.panoptic(config, root, "coco_panoptic", (name,), short=640, longest=2560)
        return
    common.semantic(config, root, (name,))
    config.predict.merge.semantic_first = True  # the released semantic configs sum classes at the padded size
