"""CLIP contrastive pre-training on image-caption pairs (Radford et al. 2021, section 2).

Symmetric cross-entropy over the global batch with a learned temperature.

    python main.py --config=configs/clip_pretrain.py:tiny --workdir=runs/clip

Options:
    tiny     towers of two layers at 96 pixels: minutes on two cores. Every other `:tiny` config starts from them:
             they know the words of `scenes` and have seen no mask.
    data     a tfds name with captions, such as `scenes/96`.
    variant  the sizes of a released CLIP.
Status: the recipe's numbers are the paper's: batch 32,768, AdamW betas .9 .98, eps 1e-6, decay 0.2 on all but gains
and biases, cosine after 2,000 steps of warm-up.
"""

from configs import common
from jaxseg.encoders.clip.variants import VARIANTS


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="", variant="ViT-B/16", steps=0)
    config = common.default()
    config.system = "clip"
    config.model.update(VARIANTS[options.variant])
    config.train.update(steps=250_000, batch_size=32_768, log_every=100, eval_every=5000, checkpoint_every=2500)
    config.precision.compute = "bfloat16"
    config.optim.update(
        learning_rate=5e-4, weight_decay=0.2, betas=(0.9, 0.98), eps=1e-6, no_decay=("(bias|scale)$", "logit_scale")
    )
    config.optim.schedule = {"name": "warmup_cosine", "warmup_steps": 2000}
    if options.tiny:
        _shrink(config)
    size = config.model.image_size
    data = options.data or f"scenes/{size}"
    if options.steps:
        config.train.steps = options.steps
    augment = f"resize_scale_crop({size})|flip_lr" if not options.tiny else f"resize({size})|flip_lr"
    context = config.model.context_length
    config.data.train.sources = (common.source(data, "train_captions"),)
    encode = f"caption(context_length={context})|normalize(clip)|keep(image, token_ids)"
    config.data.train.preprocess = f"decode|{augment}|{encode}"
    config.data.eval = {
        "val": {
            "source": common.source(data, "val"),
            "preprocess": f"decode|resize({size})|{encode}",
            "evaluators": ("retrieval",),
            "batch_size": 100,
        }
    }
    config.task = {"max_logit_scale": 100.0}
    config.predict.preprocess = f"decode|clip_preprocess({size})|normalize(clip)"
    return config


def _shrink(config):
    config.model.update(common.TINY_CLIP)
    config.train.update(steps=500, batch_size=32, log_every=50, eval_every=0, checkpoint_every=500)
    config.precision.compute = "float32"
    config.optim.update(name="muon", learning_rate=4e-3, weight_decay=0.05)
    config.optim.schedule.warmup_steps = 100
