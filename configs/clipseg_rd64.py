"""CLIPSeg, decoder width 64, plain head: `rd64-uni`, trained on PhraseCut+.

Lueddecke & Ecker 2022, table 3, row "CLIPSeg (PC+)": mIoU 43.4, foreground IoU 54.7, AP 76.7 at t = .3 [C].

    python main.py --config=configs/clipseg_rd64.py:tiny --workdir=runs/clipseg

Options:
    tiny        two-layer towers at 96 pixels on the built-in scenes: minutes on two cores. Starts from the towers of
                clip_pretrain.py:tiny, and trains those first if `clip` does not name a folder that has them. Minutes of
                captions do not teach towers to tell objects apart, so here they are trained along, with Muon. The decoder's
                blocks are pre-norm and its masks start at the share of foreground: the published ones lose half the run
                before they find the first thing.
    data        a folder of images and label maps with classes.json, a COCO .json, or a tfds name.
    clip        a checkpoint of the towers: converted (`--mode=convert`) or trained (configs/clip_pretrain.py).
    as_trained  taps (3, 7, 9), as the authors' training and scoring scripts have them; the default (3, 6, 9) is that of
                their notebook and of Hugging Face.
Status: released. The recipe's numbers are the release's: AdamW 1e-3, cosine to 1e-4 over 20,000 steps, batch 64, decay
0.01 on every trained tensor, decoder dropout 0.1, negatives 0.2; CLIP is frozen.
"""

from configs import common
from jaxseg.encoders.clip.variants import VARIANTS


def get_config(arg=""):
    options = common.parse_arg(arg, tiny=False, data="", clip="", as_trained=False, steps=0)
    return build(options)


def build(options, *, reduce_dim=64, refined=False, steps=20_000):
    """The recipe of all three released decoders, which differ in width, head and length only."""
    config = common.default()
    config.system = "clipseg"
    config.model.clip = dict(VARIANTS["ViT-B/16"])
    config.model.update(
        extract_layers=(3, 7, 9) if options.as_trained else (3, 6, 9),
        reduce_dim=reduce_dim,
        num_heads=4,
        mlp_dim=2048,
        dropout=0.1,
        refined=refined,
    )
    config.task = {"image_size": 352, "num_prompts": 1, "prompt_length": 0, "with_visual": False}
    config.train.update(steps=steps, batch_size=64, log_every=100, eval_every=5000, checkpoint_every=1000)
    config.precision.compute = "bfloat16"
    config.optim.update(learning_rate=1e-3, weight_decay=0.01, freeze=("^clip/",))
    config.optim.schedule = {"name": "cosine", "end_value": 1e-4}
    start = {"path": options.clip, "map": (("^", "clip/"),)}
    data = options.data or "scenes/352"
    if options.tiny:
        _shrink(config)
        start |= {"path": options.clip or "{workdir}/clip", "recipe": "configs/clip_pretrain.py:tiny"}
        data = options.data or "scenes/96"
    if start["path"]:
        config.init_from = (start,)
    if options.steps:
        config.train.steps = options.steps
    _read(config, data, options.tiny)
    return config


def _shrink(config):
    config.model.clip.update(common.TINY_CLIP)
    config.model.update(extract_layers=(0, 1), num_heads=2, mlp_dim=128, dropout=0.0, norm_first=True, mask_prior=0.12)
    config.task.update(image_size=96, num_prompts=3, prompt_length=16)
    config.train.update(steps=1000, batch_size=32, log_every=50, eval_every=0, checkpoint_every=500, untrained_baseline=True)
    config.precision.compute = "float32"
    config.optim.update(name="muon", learning_rate=5e-3, multipliers=(("^clip/", 0.8),))
    config.optim.freeze = ("^clip/logit_scale", "^clip/visual/(ln_post|proj)")
    config.optim.schedule = {"name": "warmup_cosine", "warmup_steps": 50}
    config.predict.canvas = 96


def _read(config, data, tiny):
    """Training on present and absent names with masks; evaluation of every name on every image."""
    size, prompts = config.task.image_size, config.task.num_prompts
    context = config.task.prompt_length or config.model.clip.context_length
    inputs = f"decode|resize({size})"
    words = "templates='plain', things=0.8" if tiny else "templates='shuffle+'"
    config.data.train.sources = (common.source(data, "train"),)
    config.data.train.preprocess = (
        f"{inputs}|flip_lr|phrases(num={prompts}, negatives=0.2, {words})"
        f"|tokenize(context_length={context})|normalize(imagenet)|keep(image, token_ids, mask, mask_valid)"
    )
    evaluation = {
        "preprocess": f"decode|resize({size}, labels=False)|normalize(imagenet)|label_map|keep(image, label_map)",
        "evaluators": ("prompt_iou(0.5)", "miou"),
        "batch_size": 16,
    }
    config.data.eval = {"val": {"source": common.source(data, "val"), **evaluation}}
    if data.startswith("scenes/"):
        for split in ("test_unseen_combinations", "test_unseen_objects"):
            config.data.eval[split] = {"source": common.source(data, split), **evaluation}
    config.predict.preprocess = f"{inputs}|normalize(imagenet)|keep(image)"
