"""The train step: one pure function for every system, micro-batch accumulation and the guard against NaN included."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from jaxseg import optim
from jaxseg.task import Mean
from jaxseg.typing import Array, Params, PyTree, State


@flax.struct.dataclass
class TrainState:
    """Everything that changes in training.

    Attributes:
        step: number of steps done, int32.
        params: all parameters, frozen ones too.
        state: what changes without a gradient (batch statistics, momentum encoders).
        opt: the optimizer's state, of the trained parameters only.
        ema: exponential average of the trained parameters, or `{}`.
    """

    step: Array
    params: Params
    state: State
    opt: PyTree
    ema: Params

    def eval_params(self) -> Params:
        """The parameters to evaluate: the averages where there are any."""
        return optim.join(self.ema, self.params) if self.ema else self.params


def init_train_state(params, state, optimizer, config) -> TrainState:
    """The state before the first step; jittable."""
    dtype = jnp.dtype(config.precision.params)
    params = jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)
    trained, _ = optim.split(params, config.optim.freeze)
    ema = jax.tree.map(jnp.array, trained) if config.train.ema_decay else {}
    return TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(trained), ema)


def make_train_step(task, optimizer, config, kind):
    """`(train_state, batch) -> (train_state, metrics)` for batches of one kind, to be jitted with the state donated.

    `metrics`: `terms` {name: (sum, count)}, `loss`, `grad_norm`, `learning_rate` and `finite` (False: the update was left out,
    because the loss or a gradient was not finite).
    """
    freeze, accumulate, decay = tuple(config.optim.freeze), config.train.accumulate, config.train.ema_decay
    schedule = optim.make_schedule(config.optim, config.train.steps)
    if accumulate > 1 and not task.accumulates:
        raise ValueError(
            f"config.train.accumulate: found {accumulate}, expected 1: the loss of {task.name} compares examples of a batch"
        )

    def loss_of(trained, frozen, state, batch, rng, step, totals):
        """The weighted sum of `sum / total` and what goes on; a batch's own counts where no totals are given."""
        terms, state = task.loss(optim.join(trained, frozen), state, batch, rng, step, kind=kind)
        terms = {name: Mean(*term) for name, term in terms.items()}
        loss = sum(
            term.weight * term.sum / jnp.maximum(term.count if totals is None else totals[name], 1e-12)
            for name, term in terms.items()
            if term.weight
        )
        return jnp.asarray(loss, jnp.float32), (state, {name: (term.sum, term.count) for name, term in terms.items()})

    gradients = jax.value_and_grad(loss_of, has_aux=True)

    def accumulated(trained, frozen, state, batch, rng, step):
        batch = jax.tree.map(lambda x: _micro_batches(x, accumulate), batch)
        rngs = jax.random.split(rng, accumulate)

        def count(total, inputs):
            # Only counts are kept, which do not depend on parameters: the compiler drops the model.
            _, (_, terms) = loss_of(trained, frozen, state, *inputs, step, None)
            return jax.tree.map(jnp.add, total, {name: count for name, (_, count) in terms.items()}), None

        def add(carry, inputs):
            state, loss, grads, terms = carry
            (micro_loss, (state, micro_terms)), micro_grads = gradients(trained, frozen, state, *inputs, step, totals)
            return (state, loss + micro_loss, *jax.tree.map(jnp.add, (grads, terms), (micro_grads, micro_terms))), None

        shapes = jax.eval_shape(loss_of, trained, frozen, state, *jax.tree.map(lambda x: x[0], (batch, rngs)), step, None)
        _, (_, terms) = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        totals, _ = jax.lax.scan(count, {name: count for name, (_, count) in terms.items()}, (batch, rngs))
        start = state, jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained), terms
        (state, loss, grads, terms), _ = jax.lax.scan(add, start, (batch, rngs))
        return (loss, (state, terms)), grads

    def train_step(train_state, batch):
        step = train_state.step
        rng = jax.random.fold_in(jax.random.key(config.seed), step)
        trained, frozen = optim.split(train_state.params, freeze)
        if accumulate > 1:
            (loss, (state, terms)), grads = accumulated(trained, frozen, train_state.state, batch, rng, step)
        else:
            (loss, (state, terms)), grads = gradients(trained, frozen, train_state.state, batch, rng, step, None)
        grad_norm = optax.tree.norm(grads)
        updates, opt = optimizer.update(grads, train_state.opt, trained)
        updated = optax.apply_updates(trained, updates)
        ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, train_state.ema, updated) if decay else {}
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

        def keep(new, old):
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        new_state = TrainState(
            step=step + 1,
            params=optim.join(keep(updated, trained), frozen),
            state=keep(state, train_state.state),
            opt=keep(opt, train_state.opt),
            ema=keep(ema, train_state.ema),
        )
        metrics = {
            "terms": terms,
            "loss": loss,
            "grad_norm": grad_norm,
            "learning_rate": jnp.asarray(schedule(step), jnp.float32),
            "finite": finite,
        }
        return new_state, metrics

    return train_step


def _micro_batches(x, n):
    """[B, ...] -> [n, B / n, ...], each micro-batch with examples of every device, so that none moves."""
    return jnp.swapaxes(x.reshape(x.shape[0] // n, n, *x.shape[1:]), 0, 1)
