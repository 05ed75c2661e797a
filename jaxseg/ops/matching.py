"""One-to-one matching of queries with targets at the least total cost, inside a compiled program."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.typing import Array

_LARGEST_COST = 1e30  # sums of a few of them stay finite in float32


class Pairs(NamedTuple):
    """Matched pairs, by ascending query as scipy lists them; slots that are not valid come last.

    Attributes:
        queries: [..., N] int32, N = min(Q, T); distinct, in range also where not valid.
        targets: [..., N] int32; 0 where not valid.
        valid: [..., N] bool: the first min(Q, valid targets) slots. Does not depend on costs.
        finite: [...] bool: whether every cost of a valid target was a finite number.
    """

    queries: Array
    targets: Array
    valid: Array
    finite: Array

    def to_queries(self, values: Array, num_queries: int, fill) -> Array:
        """Values of pairs [B, N] at their queries [B, Q]; `fill` at unmatched queries."""

        def place(queries, valid, values):
            slots = jnp.where(valid, queries, num_queries)
            return jnp.full(num_queries, fill, values.dtype).at[slots].set(values, mode="drop")

        return jax.vmap(place)(self.queries, self.valid, values)


def match(costs: Array, valid: Array) -> Pairs:
    """The matching of least total cost (scipy's `linear_sum_assignment`), for any number of batch axes.

    Every valid target gets a query; with more valid targets than queries, every query gets a target. A cost that is not
    finite counts as the worst finite one of its image and clears `Pairs.finite`. Costs beyond 1e30 are cut there.

    Args:
        costs: [..., Q, T]; columns of targets that are not valid may hold anything.
        valid: [..., T] bool, in any order.
    """
    function = _match
    for _ in range(costs.ndim - 2):
        function = jax.vmap(function)
    return function(jax.lax.stop_gradient(costs).astype(jnp.float32), valid.astype(bool))


class _Search(NamedTuple):
    """Targets are placed one after another, each along the cheapest chain of moves (Crouse 2016, algorithm 1).

    All steps of all targets are iterations of one loop: under `vmap` no image waits for another at each target, targets that
    are not valid cost nothing, and devices agree once per step whether all are done.
    """

    num_placed: Array  # the target that is being placed
    target: Array  # whose costs are looked at next
    query: Array  # which that target would give up; -1: it has none yet
    distance: Array  # cost of the moves up to there
    reach: Array  # [Q] cheapest known cost of getting each query
    via: Array  # [Q] the query that is given up for it; -1: none
    closed: Array  # [Q] whose reach is final
    leave: Array  # cheapest known cost of leaving a target out
    leaver: Array  # the query that it gives up; -1: the target that is being placed stays out
    moving: Array  # the query that changes hands next, on the way back along the chain; -1: still searching
    target_of: Array  # [Q] position of the target in `order`; -1: free
    query_price: Array  # [Q] dual variables
    target_price: Array  # [T]


def _match(costs, valid):
    num_queries, num_targets = costs.shape
    num_pairs = min(num_queries, num_targets)
    known = jnp.isfinite(costs) & valid[None]
    finite = jnp.all(known | ~valid[None])
    if not num_pairs:
        none = jnp.zeros(0, jnp.int32)
        return Pairs(none, none, none.astype(bool), finite)
    costs = jnp.clip(costs, -_LARGEST_COST, _LARGEST_COST)
    least = jnp.min(jnp.where(known, costs, _LARGEST_COST))
    spread = jnp.maximum(jnp.max(jnp.where(known, costs, -_LARGEST_COST)) - least, 0)
    order = jnp.argsort(~valid).astype(jnp.int32)  # stable: valid targets first
    num_valid = jnp.sum(valid, dtype=jnp.int32)
    # Leaving a target out costs more than any pair, so that it happens only when queries run out.
    target_of = _place(jnp.where(known, costs - least, spread).T[order], num_valid, 2 * spread + 1)
    free = target_of < 0
    queries = jnp.argsort(free)[:num_pairs].astype(jnp.int32)
    targets = jnp.where(free[queries], 0, order[target_of[queries]])
    return Pairs(queries, targets, jnp.arange(num_pairs) < jnp.minimum(num_valid, num_queries), finite)


def _place(costs, num_valid, cost_of_leaving):
    """[Q] row of costs [T, Q] that each query takes, -1 for none; the first `num_valid` rows are placed."""
    num_targets, num_queries = costs.shape
    unreached = {
        "query": jnp.int32(-1),
        "distance": jnp.float32(0),
        "reach": jnp.full(num_queries, jnp.inf, jnp.float32),
        "via": jnp.full(num_queries, -1, jnp.int32),
        "closed": jnp.zeros(num_queries, bool),
        "leave": jnp.float32(jnp.inf),
        "leaver": jnp.int32(-1),
        "moving": jnp.int32(-1),
    }

    def step(s):
        price = s.target_price[s.target]
        through = s.distance + costs[s.target] - price - s.query_price
        shorter = ~s.closed & (through < s.reach)
        reach = jnp.where(shorter, through, s.reach)
        via = jnp.where(shorter, s.query, s.via)
        leave = s.distance + cost_of_leaving - price
        leave, leaver = (jnp.where(leave < s.leave, *x) for x in ((leave, s.leave), (s.query, s.leaver)))
        open_reach = jnp.where(s.closed, jnp.inf, reach)
        nearest = jnp.argmin(open_reach).astype(jnp.int32)
        leaves = leave < open_reach[nearest]
        distance = jnp.minimum(leave, open_reach[nearest])
        gain = jnp.where(s.closed, distance - reach, 0)
        holders = jnp.where(s.closed, s.target_of, num_targets)
        found = s._replace(
            via=via,
            moving=jnp.where(leaves, leaver, nearest),
            query_price=s.query_price - gain,
            target_price=s.target_price.at[holders].add(gain, mode="drop").at[s.num_placed].add(distance),
        )
        further = s._replace(
            target=s.target_of[nearest],
            query=nearest,
            distance=distance,
            reach=reach,
            via=via,
            closed=s.closed.at[nearest].set(True),
            leave=leave,
            leaver=leaver,
        )
        moving, done = s.moving >= 0, leaves | (s.target_of[nearest] < 0)
        return move(_select(moving, s, _select(done, found, further)), moving | done)

    def move(s, ready):
        """Where a chain was found, its last target takes the query at its end; the next one follows in the next step."""
        before = s.via[s.moving]
        taker = jnp.where(before < 0, s.num_placed, s.target_of[before])
        query = jnp.where(ready & (s.moving >= 0), s.moving, num_queries)
        moved = s._replace(target_of=s.target_of.at[query].set(taker, mode="drop"), moving=before)
        placed = moved._replace(**unreached, num_placed=s.num_placed + 1, target=jnp.minimum(s.num_placed + 1, num_targets - 1))
        return _select(ready, _select((s.moving < 0) | (before < 0), placed, moved), s)

    start = _Search(
        **unreached,
        num_placed=jnp.int32(0),
        target=jnp.int32(0),
        target_of=jnp.full(num_queries, -1, jnp.int32),
        query_price=jnp.zeros(num_queries, jnp.float32),
        target_price=jnp.zeros(num_targets, jnp.float32),
    )
    return jax.lax.while_loop(lambda s: s.num_placed < num_valid, step, start).target_of


def _select(condition, a, b):
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
