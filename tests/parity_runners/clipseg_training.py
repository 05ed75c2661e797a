"""CLIPSeg's recipe against recorded training: the Task, optimizer and step that `--mode=train` uses."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import clipseg_rd64, common
from jaxseg import optim, systems
from jaxseg import weights as W
from jaxseg.step import init_train_state, make_train_step
from jaxseg.systems.clipseg import weights as clipseg_weights
from jaxseg.text.prompts import blend_weights
from tests.parity_runners.clipseg_models import clip_fields, clipseg_fields, nhwc
from tests.parity_runners.registry import runner


def recipe(config):
    """`configs/clipseg_rd64.py` at the size of a recorded case."""
    ours = clipseg_rd64.get_config()
    ours.model = clipseg_fields(config, clip_fields(config["clip"]))
    ours.task.update(image_size=config["clip"]["res"], with_visual=True)
    ours.precision.compute = "float32"
    ours.optim.learning_rate = config["lr"]
    ours.optim.schedule = {"name": "cosine", "end_value": config["eta_min"]}
    ours.train.steps = config["T_max"]
    return ours


@runner(
    "clipseg/train_steps",
    skip={f"final/reduce.{x}": "never used by the model: no parameter of ours" for x in ("weight", "bias")},
)
def train_steps(config, weights, inputs):
    ours = recipe(config)
    task = systems.make_task(ours)
    fields = {"clip": ours.model.clip.to_dict(), "refined": ours.model.refined}
    rules = clipseg_weights.timojl_rules(fields)
    ignore = clipseg_weights.timojl_ignore(config["model"]["extract_layers"])
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0))
    params = W.to_params(weights, rules, shapes, ignore)
    trained, frozen = optim.split(params, ours.optim.freeze)
    optimizer = optim.make_optimizer(ours, trained)
    state = init_train_state(params, {}, optimizer, ours)
    step = jax.jit(make_train_step(task, optimizer, ours, "train"))

    def batch(i):
        target = jnp.asarray(inputs["target"][i])
        prompts = len(target)
        return {
            "image": nhwc(inputs["image"][i]),
            "token_ids": jnp.asarray(inputs["token_ids"]).reshape(prompts, 1, -1),
            "mask": target,
            "mask_valid": jnp.ones_like(target),
            "prompt_image": nhwc(inputs["prompt_image"][i])[:, None],
            "text_weight": jnp.asarray(blend_weights(inputs["text_weight"][i], inputs["visual_is_valid"][i]))[:, None],
        }

    def loss(trained):
        terms, _ = task.loss(optim.join(trained, frozen), {}, batch(0), jax.random.key(0), 0, kind="train")
        return terms["mask"].sum / terms["mask"].count

    def named(tree):
        """Original names and layouts; only what was trained."""
        tensors = W.to_tensors(optim.join(tree, frozen), rules)
        return {key: x for key, x in tensors.items() if not key.startswith("clip_model.")}

    grads = named(jax.grad(loss)(trained))
    features = task.capabilities["encode"](params, {}, batch(0))
    cond = task.capabilities["condition"](params, batch(0))
    out = {"pred_step0": task.capabilities["decode"](params, {}, features, {"cond": cond})["logits"]}
    losses, rates = [], []
    for i in range(config["steps"]):
        state, metrics = step(state, batch(i))
        losses.append(metrics["loss"])
        rates.append(metrics["learning_rate"])
    final = named(optim.split(state.params, ours.optim.freeze)[0])
    return {
        **out,
        "losses": np.stack(losses),
        "lrs": np.stack(rates),
        **{f"grad/{key}": x for key, x in grads.items()},
        **{f"final/{key}": x for key, x in final.items()},
    }


@runner("clipseg/lr_schedule")
def lr_schedule(config, weights, inputs):
    def rates(steps, schedule, at, peak=config["base_lr"]):
        settings = common.default().optim
        settings.learning_rate, settings.schedule = peak, schedule
        with jax.enable_x64(True):
            return np.asarray(jax.vmap(optim.make_schedule(settings, steps))(jnp.asarray(at)))

    out = {}
    for steps in (20_000, 7_000):
        at = np.linspace(0, steps, 41).astype(int)
        out[f"cosine_{steps}_idx"] = at
        out[f"cosine_{steps}_lr"] = rates(steps, {"name": "cosine", "end_value": config["eta_min"]}, at)
    for warmup, steps in ((10, 90), (0, 50)):
        schedule = {"name": "warmup_cosine", "warmup_steps": warmup}
        out[f"warmup_cosine_{warmup}_{steps}"] = rates(steps, schedule, np.arange(steps + 1), 1.0)
    return out
