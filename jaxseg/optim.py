"""Optimizers and schedules from a config: optax chains, with frozen parameters outside of everything.

A frozen parameter is no part of the tree that is differentiated, so it has no moments, no decay and no part in the clip norm.
"""

import re

import jax
import optax
import optax.contrib

from jaxseg.weights import flatten, unflatten


def split(params, freeze):
    """(trained, frozen): two trees that `join` puts together; `freeze`: regexes searched in the paths."""
    flat = flatten(params)
    frozen = {path for path in flat if any(re.search(pattern, path) for pattern in freeze)}
    return (
        unflatten({path: x for path, x in flat.items() if path not in frozen}),
        unflatten({path: x for path, x in flat.items() if path in frozen}),
    )


def join(trained, frozen):
    """The tree that `split` took apart."""
    return unflatten(flatten(frozen) | flatten(trained))


def make_schedule(optim, steps):
    """Learning rate by step.

    Args:
        optim: `config.optim`: `learning_rate` and `schedule` {"name": one of `_SCHEDULES`, and its fields}.
        steps: number of steps of the run, over which a schedule stretches unless it names its own `steps`.
    """
    peak, options = optim.learning_rate, dict(optim.schedule)
    name, steps = options.pop("name"), options.pop("steps", steps)
    if name not in _SCHEDULES:
        raise ValueError(f"config.optim.schedule.name: found {name!r}, expected one of {', '.join(_SCHEDULES)}")
    try:
        return _SCHEDULES[name](peak, steps, **options)
    except TypeError as error:
        raise ValueError(f"config.optim.schedule: {name} does not take these fields: {options} ({error})") from None


def _cosine(peak, steps, end_value=0.0):
    """Half a cosine from `peak` to `end_value`, per step (torch's CosineAnnealingLR)."""
    return optax.cosine_decay_schedule(peak, steps, alpha=end_value / peak)


def _warmup_cosine(peak, steps, warmup_steps=0, end_value=0.0):
    """peak * (i + 1) / (w + 1) for i < w, then half a cosine over the rest."""
    cosine = _cosine(peak, max(steps - warmup_steps, 1), end_value)
    if not warmup_steps:
        return cosine
    warmup = optax.linear_schedule(peak / (warmup_steps + 1), peak, warmup_steps)
    return optax.join_schedules([warmup, cosine], [warmup_steps])


def _poly(peak, steps, power=0.9, end_value=0.0):
    return optax.polynomial_schedule(peak, end_value, power, steps)


def _step(peak, steps, milestones=(), factor=0.1, warmup_steps=0, warmup_factor=1e-3):
    """`peak`, times `factor` from each milestone on; up to `warmup_steps` a line from `warmup_factor` times as much."""
    del steps
    constant = optax.piecewise_constant_schedule(peak, dict.fromkeys(milestones, factor))
    if not warmup_steps:
        return constant
    warmup = optax.linear_schedule(warmup_factor, 1.0, warmup_steps)
    return lambda step: warmup(step) * constant(step)


_SCHEDULES = {
    "constant": lambda peak, steps: optax.constant_schedule(peak),
    "cosine": _cosine,
    "warmup_cosine": _warmup_cosine,
    "poly": _poly,
    "step": _step,
}


def make_optimizer(config, trained):
    """The optax transformation for the trained parameters.

    Args:
        config: uses `config.optim` and `config.train.steps`.
        trained: tree of the trained parameters, or of their shapes; its paths decide decay and multipliers.

    Raises:
        ValueError: for an unknown optimizer, or a pattern that matches nothing.
    """
    optim, paths = config.optim, list(flatten(trained))
    for field, patterns in (("no_decay", optim.no_decay), ("multipliers", [p for p, _ in optim.multipliers])):
        for pattern in patterns:
            if not any(re.search(pattern, path) for path in paths):
                raise ValueError(f"config.optim.{field}: {pattern!r} matches no trained parameter")
    if optim.name not in _DIRECTIONS:
        raise ValueError(f"config.optim.name: found {optim.name!r}, expected one of {', '.join(_DIRECTIONS)}")
    # Decay comes after the direction, multiplied by the learning rate and by the multiplier, as in torch's AdamW groups; with
    # SGD it is part of the gradient that the momentum sums, as in torch's.
    decayed = unflatten({path: not any(re.search(p, path) for p in optim.no_decay) for path in paths})
    chain = [optax.clip_by_global_norm(optim.clip_norm)] if optim.clip_norm else []
    decay = [optax.add_decayed_weights(optim.weight_decay, mask=decayed)] if optim.weight_decay else []
    direction = [_DIRECTIONS[optim.name](optim)]
    chain += decay + direction if optim.name == "sgd" else direction + decay
    if optim.multipliers:
        chain += [_scale_by(unflatten({path: _factor(path, optim.multipliers) for path in paths}))]
    return optax.chain(*chain, optax.scale_by_learning_rate(make_schedule(optim, config.train.steps)))


_DIRECTIONS = {
    "adamw": lambda o: optax.scale_by_adam(b1=o.betas[0], b2=o.betas[1], eps=o.eps),
    "muon": lambda o: _muon(o),
    "sgd": lambda o: optax.trace(decay=o.betas[0]),
    "lion": lambda o: optax.scale_by_lion(b1=o.betas[0], b2=o.betas[1]),
}


def _muon(optim):
    """Muon (Jordan et al. 2024) for the matrices of layers, scanned ones too; Adam for all else: embeddings, gains, biases.

    Its updates have the size of Adam's (Liu et al. 2025, Moonlight), so that one learning rate serves both.
    """

    def kinds(params):
        def is_matrix(path, x):
            return path.endswith("/kernel") and x.ndim == (3 if "/blocks/" in f"/{path}" else 2)

        flat = flatten(params)
        return unflatten({path: "muon" if is_matrix(path, x) else "adam" for path, x in flat.items()})

    last_two = optax.contrib.MuonDimensionNumbers(-2, -1)
    muon = optax.contrib.muon(
        1.0,
        eps=optim.eps,
        muon_weight_dimension_numbers=lambda params: jax.tree.map(lambda x: last_two, params),
        consistent_rms=0.2,
    )
    # A direction, as the others: the rate and its sign come last.
    return optax.partition({"muon": optax.chain(muon, optax.scale(-1.0)), "adam": _DIRECTIONS["adamw"](optim)}, kinds)


def _factor(path, multipliers):
    """The factor of the last pattern that matches, so that exceptions follow the rule."""
    return next((factor for pattern, factor in reversed(multipliers) if re.search(pattern, path)), 1.0)


def _scale_by(factors):
    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda u, f: u * f, updates, factors), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
