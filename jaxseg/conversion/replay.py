"""Recorded activations of the published code, recomputed with converted weights."""

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg import systems

# Of the largest recorded value: float32 sums in another order stay far below, any misplaced weight far above.
_TOLERANCE = 1e-3


def replay(config, params, state, inputs, expected, path):
    """The errors of every output that the system can recompute.

    Args:
        config: of the model; it computes in float32 here, whatever the config trains in.
        inputs, expected: {name: array} as recorded.
        path: of the recording, for messages.

    Returns:
        {"file", "outputs": {name: {"max_abs_error", "max_abs"}}, "not_replayed": [name]}.

    Raises:
        ValueError: the system recomputes none of the outputs, inputs do not fit, or an output differs.
    """
    config = ConfigDict(config.to_dict())
    config.precision.compute = "float32"
    task = systems.make_task(config)
    if "replay" not in task.capabilities:
        raise ValueError(f"--check: {config.system} replays no recorded activations")

    @jax.jit
    def recompute(params, state, inputs):
        outputs = task.capabilities["replay"](params, state, inputs)
        known.update(outputs)
        return {name: value for name, value in outputs.items() if name in expected}

    known = set()
    try:
        with jax.default_matmul_precision("highest"):
            produced = jax.device_get(recompute(params, state, inputs))
    except (KeyError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"--check: {path}: the inputs do not fit this model: {text}") from None
    errors, wrong = {}, []
    for name in sorted(produced):
        ours, theirs = np.squeeze(produced[name]), np.squeeze(expected[name])
        if ours.shape != theirs.shape:
            wrong.append(f"{name}: shape {list(produced[name].shape)}, recorded {list(expected[name].shape)}")
            continue
        error, largest = (float(np.max(np.abs(x), initial=0)) for x in (ours.astype(float) - theirs, theirs))
        errors[name] = {"max_abs_error": error, "max_abs": largest}
        if not error <= _TOLERANCE * max(largest, 1e-6):
            wrong.append(f"{name}: max error {error:.3g} of {largest:.3g}")
    if wrong:
        raise ValueError(f"--check: {path}: the weights do not give what was recorded: {'; '.join(wrong)}")
    if not errors:
        raise ValueError(f"--check: {path}: outputs {', '.join(expected)}, expected some of {', '.join(sorted(known))}")
    return {"file": str(path), "outputs": errors, "not_replayed": sorted(expected.keys() - errors.keys())}
