"""Defaults shared by every config. A config is plain data: a system's name, sizes, recipe and data."""

from ml_collections import ConfigDict


def parse_arg(arg, **defaults):
    """`"tiny,data=/my/folder"` -> ConfigDict(tiny=True, data="/my/folder"), typed and named by `defaults`.

    Raises:
        ValueError: for a name that is not an option of this config, or a value of another type.
    """
    options = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, given, value = item.partition("=")
        if name not in options:
            raise ValueError(f"config option {name!r} is unknown; this config takes: {', '.join(sorted(options))}")
        kind = type(options[name])
        if kind is bool:
            if value.lower() not in ("", "true", "false"):
                raise ValueError(f"config option {name}: found {value!r}, expected true or false")
            options[name] = not given or value.lower() == "true"
        else:
            try:
                options[name] = kind(value)
            except ValueError:
                raise ValueError(f"config option {name}: found {value!r}, expected {kind.__name__}") from None
    return ConfigDict(options)


def default():
    """The fields that every config has, with values that suit a single host."""
    config = ConfigDict()
    config.system = ""
    config.seed = 0
    config.model = ConfigDict()  # keyword arguments of the system's model
    config.task = ConfigDict()  # losses and inference of the system
    # Devices per axis; -1 takes what the others leave. Parameters are sharded over `fsdp` and `model`, the batch over
    # `data` and `fsdp`.
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "model": 1})
    config.precision = ConfigDict({"compute": "float32", "params": "float32", "matmul": "default"})
    config.train = ConfigDict(
        {
            "steps": 1000,
            "batch_size": 8,  # global: over all devices and micro-batches
            "accumulate": 1,  # micro-batches per step
            "log_every": 50,
            "eval_every": 0,  # 0: only at the end
            "checkpoint_every": 1000,
            "keep": 2,  # newest checkpoints kept
            "ema_decay": 0.0,  # 0: no average
            "nan_policy": "stop",  # or "skip"; three bad steps in a row always stop
            "pictures": 8,  # images drawn at each evaluation
            "untrained_baseline": False,  # evaluate before the first step too; results as `untrained/<split>/...`
        }
    )
    config.optim = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-3,
            "schedule": {"name": "constant"},
            "weight_decay": 0.0,
            "betas": (0.9, 0.999),
            "eps": 1e-8,
            "clip_norm": 0.0,  # 0: no clipping
            "multipliers": (),  # (regex on the parameter's path, factor on the learning rate)
            "no_decay": (),  # regexes on the parameter's path
            "freeze": (),  # regexes on the parameter's path
        }
    )
    config.data = ConfigDict(
        {
            # Share of unreadable examples above which a run stops.
            "max_bad_share": 0.01,
            # workers: threads that read, 0 = one per core. prefetch: batches made ahead. cache_gb: examples that stay in
            # memory as they are before the first random op, up to so many GB.
            "train": {"sources": (), "preprocess": "", "workers": 0, "prefetch": 2, "cache_gb": 1.0},
            "eval": {},
        }
    )
    config.predict = ConfigDict(
        {
            "preprocess": "",
            "batch_size": 1,
            "threshold": 0.5,
            # Prompts decoded together. 4 is the fastest on CPU: 16 take 2.2 times less than at once, 8 at a time 1.9 times.
            "prompts_per_chunk": 4,
            "compute": "float32",  # of prediction, whatever training computes in
            "truncate": False,  # cut prompts that are longer than the text tower reads, instead of refusing them
            "canvas": 256,  # original sizes are padded to multiples of this, so that few sizes are compiled
        }
    )
    config.init_from = ()  # ({"path", "map", "leave_out", "recipe"}, ...): what training starts from
    config.weights = ""
    return config


# Towers that learn the words of `scenes` in minutes on two cores; `clip_pretrain.py:tiny` trains them, every other `:tiny`
# config starts from them. The context holds the longest caption of `scenes` (40 ids).
TINY_CLIP = {
    "embed_dim": 64,
    "image_size": 96,
    "patch_size": 12,
    "vision_width": 96,
    "vision_layers": 2,
    "vision_heads": 3,
    "text_width": 64,
    "text_layers": 2,
    "text_heads": 2,
    "context_length": 48,
}


def source(data, split, **options):
    """A data source as plain data: a folder or JSON by its path, anything else by its tfds name.

    With `root=FOLDER`, `data` is a published data set in that folder: a name of `input_pipeline.benchmarks.LAYOUTS`.
    """
    import os

    if "root" in options:
        return {"kind": "benchmark", "name": data, "split": split, **options}
    kind = "tfds"
    if os.path.isdir(data):
        kind = "folder"
    elif data.endswith(".json"):
        kind = "coco"
    elif os.sep in data and not data.startswith("scenes/"):
        raise ValueError(f"config option data: found {data!r}, expected a folder, a COCO .json or a tfds name")
    return {"kind": kind, "name": data, "split": split, **options}


# Mask2Former with a ResNet-50, and one that a laptop trains.
MASK_FORMER = {
    "backbone": {"num_blocks": (3, 4, 6, 3), "stem_dim": 64, "bottleneck_dim": 64, "res2_dim": 256},
    "pixel": {"hidden_dim": 256, "mask_dim": 256, "num_layers": 6, "num_heads": 8, "mlp_dim": 1024},
    "query": {"hidden_dim": 256, "mask_dim": 256, "num_layers": 9, "num_heads": 8, "mlp_dim": 2048, "num_queries": 100},
}
TINY_MASK_FORMER = {
    "backbone": {"num_blocks": (1, 1, 1, 1), "stem_dim": 16, "bottleneck_dim": 16, "res2_dim": 32},
    "pixel": {"hidden_dim": 64, "mask_dim": 64, "num_layers": 1, "num_heads": 4, "mlp_dim": 128},
    "query": {"hidden_dim": 64, "mask_dim": 64, "num_layers": 2, "num_heads": 4, "mlp_dim": 128, "num_queries": 24},
}
# Of detectron2's R50: statistics and gains of its batch normalizations are constants.
FROZEN_NORMS = r"^(teacher/)?backbone/.*norm\d?/"


def mask_former(config, num_outputs, *, tiny=False):
    """Fills in Mask2Former with a ResNet-50: model, optimizer and merging as its authors have them.

    AdamW with a tenth of the rate for the backbone, no decay on norms and query embeddings, gradients clipped at 0.01.
    """
    sizes = TINY_MASK_FORMER if tiny else MASK_FORMER
    config.model.backbone = {"name": "resnet", **sizes["backbone"]}
    config.model.head = {"pixel": dict(sizes["pixel"]), "query": {"num_outputs": num_outputs, **sizes["query"]}}
    config.task.update(image_size=(1024, 1024), max_targets=100)
    config.precision.compute = "bfloat16"
    config.optim.update(learning_rate=1e-4, weight_decay=0.05, clip_norm=0.01, multipliers=(("^backbone/", 0.1),))
    config.optim.no_decay = (r"norm\d?(_\d)?/", r"/ln_", "/query/(query_content|query_position|level_embedding)$")
    config.optim.freeze = (FROZEN_NORMS,)
    config.predict.merge = {"object_threshold": 0.8, "overlap_threshold": 0.8, "num_instances": 100}
    if tiny:
        config.task.update(image_size=(96, 96), max_targets=24)
        config.precision.compute = "float32"
        config.predict.canvas = 96


def tiny_panoptic(config, data, num_classes, class_agnostic=False):
    """Training and evaluation of mask transformers on `scenes`: panoptic quality, mIoU and average precision."""
    name = data if data.startswith("scenes/") else "scenes/96"
    size, slots = config.task.image_size[0], config.task.max_targets
    targets = f"target_masks({slots}, class_agnostic={class_agnostic})"
    config.data.train.sources = (source(name, "train"),)
    config.data.train.preprocess = f"decode|resize({size})|flip_lr|{targets}|keep(image, image_size, masks, labels, valid)"
    inputs = f"decode|resize({size}, labels=False)|pad_to_multiple(32)"
    fields = "image, image_size, label_map, segment_map, segment_ids, segment_classes, segment_areas, segment_is_crowd"
    evaluation = {
        "preprocess": f"{inputs}|label_map|segment_table({slots})|keep({fields})",
        "evaluators": ("pq", "miou", "mask_ap('segments')"),
        "batch_size": 8,
    }
    if class_agnostic:
        evaluation["evaluators"] = ("mask_ap('segments', class_agnostic=True)",)
    else:
        config.task.num_classes = num_classes
    splits = ("val", "test_unseen_combinations", "test_unseen_objects")
    config.data.eval = {split: {"source": source(name, split), **evaluation} for split in splits}
    config.predict.preprocess = f"decode|resize({size})|pad_to_multiple(32)|keep(image, image_size)"


_TRAINED = "keep(image, image_size, masks, labels, valid)"
# Published semantic maps of COCO show crowds; other sources have maps of their own.
_EVALUATED = "decode|resize_short({short}, {longest}, labels=False)|pad_to_multiple(32)|label_map(crowds=True)"


def coco_instances(config, root, train, evaluate, class_agnostic=False):
    """Instances at large-scale jitter; each of the vocabularies of `evaluate` is a split."""
    config.data.train.sources = (source(train, "train", root=root),)
    targets = f"target_masks({config.task.max_targets}, class_agnostic={class_agnostic})"
    size = config.task.image_size[0]
    config.data.train.preprocess = f"decode|flip_lr|resize_scale_crop({size})|{targets}|{_TRAINED}"
    inputs = _EVALUATED.format(short=800, longest=1333)
    evaluators = ("mask_ap(class_agnostic=True)",) if class_agnostic else ("mask_ap", "box_ap")
    evaluation = {"preprocess": f"{inputs}|keep(image, image_size, label_map)", "evaluators": evaluators, "batch_size": 1}
    config.data.eval = {name: {"source": source(name, "val", root=root), **evaluation} for name in evaluate}
    config.predict.preprocess = "decode|resize_short(800, 1333)|pad_to_multiple(32)|keep(image, image_size)"


def panoptic(config, root, train, evaluate, class_agnostic=False, short=800, longest=1333):
    """Panoptic segments, trained at a square that does not keep proportions, as MasQCLIP's data mapper has it."""
    targets = f"target_masks({config.task.max_targets}, class_agnostic={class_agnostic})"
    size = config.task.image_size[0]
    config.data.train.sources = (source(train, "train", root=root),)
    config.data.train.preprocess = f"decode|flip_lr|resize({size})|{targets}|{_TRAINED}"
    inputs = _EVALUATED.format(short=short, longest=longest)
    table = "segment_map, segment_ids, segment_classes, segment_areas, segment_is_crowd"
    evaluators = ("mask_ap('segments', class_agnostic=True)",) if class_agnostic else ("pq", "miou(absent_classes='skip')")
    evaluation = {
        "preprocess": f"{inputs}|segment_table(200)|keep(image, image_size, label_map, {table})",
        "evaluators": evaluators,
        "batch_size": 1,
    }
    config.data.eval = {name: {"source": source(name, "val", root=root), **evaluation} for name in evaluate}
    config.predict.preprocess = f"decode|resize_short({short}, {longest})|pad_to_multiple(32)|keep(image, image_size)"


def coco_panoptic(config, root, class_agnostic=False):
    """COCO's 133 classes."""
    panoptic(config, root, "coco_panoptic", ("coco_panoptic",), class_agnostic)


def semantic(config, root, evaluate, short=512, longest=2048):
    """Evaluation of classes of pixels."""
    inputs = _EVALUATED.format(short=short, longest=longest)
    evaluation = {
        "preprocess": f"{inputs}|keep(image, image_size, label_map)",
        "evaluators": ("miou(absent_classes='skip')",),
        "batch_size": 1,
    }
    config.data.eval = {name: {"source": source(name, "val", root=root), **evaluation} for name in evaluate}
    config.predict.preprocess = f"decode|resize_short({short}, {longest})|pad_to_multiple(32)|keep(image, image_size)"
