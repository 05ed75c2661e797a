"""`--mode=train`: one loop for every system."""

import functools
import logging
import time

import jax
import numpy as np

from jaxseg import initialize, optim, preemption, sharding, systems
from jaxseg import workdir as workdirs
from jaxseg.checkpoint import Checkpoints
from jaxseg.config import to_json, validate
from jaxseg.evaluate import Evaluation, report
from jaxseg.progress import Meter, Rate, duration
from jaxseg.step import TrainState, init_train_state, make_train_step
from jaxseg.writer import Writer, parameter_overview, write_json


def run(config, workdir, make_data, *, strict_resume=False, task=None):
    """Trains to the end, from the newest checkpoint of `workdir` if there is one.

    Args:
        make_data: `(config) -> DataModule` (input_pipeline/module.py).
        strict_resume: stop at a damaged checkpoint instead of using the one before.
        task: instead of the one that the config names.

    Returns:
        The results of the last evaluation, as in results.json.

    Raises:
        ValueError: for a user's mistake, before anything is compiled; `DivergedError` where the loss is not finite.
        preemption.Preempted: after a checkpoint was saved, where the process was asked to end.
    """
    validate(config, device_count=jax.device_count())
    with workdirs.claim(workdir), preemption.watch():
        # Everything that can be wrong with config, data and weights is found before the first compile.
        data = make_data(config)
        task = task or systems.make_task(config)
        _check_first_batch(task, data)
        if Checkpoints(f"{workdir}/checkpoints", read_only=True).latest_step() is None:  # what it started from may be gone
            prepare_recipes(config, workdir, make_data)
            initialize.check(config, init_shapes(task)[0], workdir)
        write_json(f"{workdir}/config.json", to_json(config))
        mesh = sharding.make_mesh(config.mesh)
        with sharding.using(mesh), Checkpoints(f"{workdir}/checkpoints", keep=config.train.keep) as checkpoints:
            return _train(config, workdir, data, task, mesh, checkpoints, strict_resume)


def _train(config, workdir, data, task, mesh, checkpoints, strict_resume):
    # State: shapes, shardings, and values from a checkpoint, from other weights, or from scratch.
    optimizer = optim.make_optimizer(config, optim.split(init_shapes(task)[0], config.optim.freeze)[0])
    templates = state_templates(task, optimizer, config, mesh)
    if checkpoints.latest_step() is None:
        state = first_state(task, optimizer, config, templates, workdir, data)
    else:
        state = _restored(checkpoints, templates, strict_resume)
    first_step = int(state.step)
    steps = {
        kind: jax.jit(
            make_train_step(task, optimizer, config, kind),
            donate_argnums=0,
            in_shardings=(jax.tree.map(lambda x: x.sharding, templates), sharding.batch_sharding(mesh)),
            out_shardings=(jax.tree.map(lambda x: x.sharding, templates), sharding.replicated(mesh)),
        )
        for kind in task.kinds
    }

    # Records, and what the model gives before it has learnt anything.
    writer = Writer(workdir)
    overview = parameter_overview(state.params, frozen=tuple(config.optim.freeze))
    writer.write_text("parameters.txt", overview)
    logging.info("%s", overview.splitlines()[-1])
    evaluation = Evaluation(task, config, data, mesh)
    results = _baseline(config, workdir, evaluation, state, first_step)

    # The loop: dispatch goes ahead of the devices, metrics are read when they are ready.
    meter, rate, started = Meter(config.train.nan_policy), Rate(), time.monotonic()
    total, batches = config.train.steps, data.train(first_step)
    for step in range(first_step + 1, total + 1):
        kind, batch = next(batches)
        state, metrics = steps[kind](state, sharding.global_batch(batch, mesh))
        meter.add(step, metrics)
        rate.add(config.train.batch_size)
        if step == total:
            meter.finish()
        if step % config.train.log_every == 0 or step == total:
            _log(writer, meter, rate, data, step, first_step, total, started)
        if config.train.eval_every and step % config.train.eval_every == 0 and step < total:
            meter.finish()
            where = {"workdir": workdir, "step": step, "writer": writer}
            preemption.interruptible(functools.partial(evaluation.run, state.eval_params(), state.state, **where))
        stop = preemption.requested(step)
        if step % config.train.checkpoint_every == 0 or step == total or stop:
            meter.finish()
            save(checkpoints, step, state, config)
        if stop:
            checkpoints.close()
            writer.close()
            raise preemption.Preempted(step)
    checkpoints.wait()

    # The end: evaluation with the averages where there are any.
    with preemption.saved_at(total):
        results |= evaluation.run(state.eval_params(), state.state, workdir=workdir, step=total, writer=writer)
    write_json(f"{workdir}/results.json", results)
    logging.info("%s", report(results))
    checkpoints.close()
    writer.close()
    return results


def init_shapes(task):
    """(params, state) as shapes. The key is made inside: on the mesh of a planned topology nothing can run."""
    return jax.eval_shape(lambda: task.init(jax.random.key(0)))


def state_templates(task, optimizer, config, mesh):
    """The train state as shapes with shardings."""
    shapes = jax.eval_shape(lambda: init_train_state(*task.init(jax.random.key(0)), optimizer, config))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, sharding.shardings(shapes, mesh)
    )


def first_state(task, optimizer, config, templates, workdir, data):
    """A new train state: random, overlaid with `config.init_from`, then with what the task derives from that and the names."""
    layout = jax.tree.map(lambda x: x.sharding, templates)
    rng = jax.random.key(config.seed)
    params, state = jax.jit(task.init, out_shardings=(layout.params, layout.state))(rng)
    params = initialize.init_from(config, params, workdir)
    if "begin" in task.capabilities:
        begun = task.capabilities["begin"](params, state, data.vocabulary.names)
        params, state = jax.device_put(begun, (layout.params, layout.state))
    build = jax.jit(
        lambda params, state: init_train_state(params, state, optimizer, config), out_shardings=layout, donate_argnums=0
    )
    return build(params, state)


def save(checkpoints, step, state: TrainState, config):
    """Starts saving; the devices go on."""
    items = {"params": state.params, "state": state.state, "opt": state.opt, "ema": state.ema}
    checkpoints.save(step, items, {"config": config.to_dict()})


def _restored(checkpoints, templates, strict):
    items = {name: getattr(templates, name) for name in ("params", "state", "opt", "ema")}
    step, items, _ = checkpoints.restore(items, strict=strict)
    logging.info("resumed from step %d", step)
    return TrainState(step=jax.device_put(np.int32(step), templates.step.sharding), **items)


def _baseline(config, workdir, evaluation, state, first_step):
    """Results before training, `untrained/...`, where the config asks for them."""
    results = workdirs.read_results(workdir, prefix="untrained/")
    if config.train.untrained_baseline and not first_step:
        found = {}
        logging.info("before training:")
        preemption.interruptible(lambda: found.update(evaluation.run(state.eval_params(), state.state)))
        results = {f"untrained/{name}": value for name, value in found.items()}
        write_json(f"{workdir}/results.json", results)
    return results


def _log(writer, meter, rate, data, step, first_step, total, started):
    values = meter.read()
    bad = data.report()["bad_examples"]
    values |= {"images_per_second": rate.read(), "skipped_steps": meter.skipped, "bad_examples": bad}
    left = (time.monotonic() - started) / (step - first_step) * (total - step)
    writer.write_scalars(step, {f"train/{name}": value for name, value in values.items()})
    terms = "  ".join(f"{n} {v:.4g}" for n, v in values.items() if n not in ("images_per_second", "learning_rate") and v)
    logging.info("step %d/%d  %s  %.1f img/s  %s left", step, total, terms, values["images_per_second"], duration(left))


def _check_first_batch(task, data):
    """Compares the first batch of data with what the task expects, field by field."""
    kind, batch = next(data.train(0))
    size = len(next(iter(batch.values())))
    expected = task.example_batch(size, kind)
    wrong = [
        f"batch field {name}: found {_spec(batch.get(name))}, expected {_spec(expected.get(name))}"
        for name in sorted(set(batch) | set(expected))
        if _spec(batch.get(name)) != _spec(expected.get(name))
    ]
    if wrong:
        raise ValueError("config.data.train.preprocess does not give what the model takes:\n  " + "\n  ".join(wrong))


def _spec(array):
    return "nothing" if array is None else f"{np.dtype(array.dtype).name}{list(array.shape)}"


def prepare_recipes(config, workdir, make_data):
    """Trains what `config.init_from` starts from and nobody has trained yet, where an entry names its recipe."""
    from jaxseg.config import load_config

    for entry in config.init_from:
        folder = initialize.resolve(entry["path"], workdir)
        if entry.get("recipe") and not initialize.is_finished(folder):
            logging.info("%s is not there yet: training %s first", folder, entry["recipe"])
            run(load_config(entry["recipe"]), str(folder), make_data)
