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
