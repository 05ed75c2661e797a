"""Metrics are read when they are ready; steps that are not finite are named."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.progress import DivergedError, Meter, duration


def metrics(loss=1.0, mask=(6.0, 3.0)):
    terms = {"mask": (jnp.float32(mask[0]), jnp.float32(mask[1])), "iou": (jnp.float32(1), jnp.float32(2))}
    finite = bool(np.isfinite(loss) and np.isfinite(mask[0]))
    scalars = {"loss": jnp.float32(loss), "grad_norm": jnp.float32(1), "learning_rate": jnp.float32(0.1)}
    return {"terms": terms, "finite": jnp.asarray(finite), **scalars}


def test_terms_are_ratios_of_sums():
    meter = Meter("stop")
    meter.add(1, metrics(mask=(6.0, 3.0)))
    meter.add(2, metrics(loss=3.0, mask=(2.0, 5.0)))
    meter.finish()
    found = meter.read()
    assert found["mask"] == 1.0
    assert found["loss"] == 3.0
    assert "mask" not in meter.read(), "a window starts anew"


def test_dispatch_does_not_wait(monkeypatch):
    """Nothing is read while devices work, until the steps in flight reach their bound."""
    read, ready = [], set()
    monkeypatch.setattr("jaxseg.progress._is_ready", lambda metrics: metrics["name"] in ready)
    meter = Meter("stop", max_in_flight=3)
    monkeypatch.setattr(meter, "_take", lambda: read.append(meter._pending.popleft()[0]))
    for step in range(3):
        meter.add(step, {"name": step})
    assert read == []
    meter.add(3, {"name": 3})
    assert read == [0]
    ready |= {1, 2, 3}
    meter.add(4, {"name": 4})
    assert read == [0, 1, 2, 3]


def test_stop_names_the_term():
    meter = Meter("stop")
    with pytest.raises(DivergedError, match="step 7: mask is not finite"):
        meter.add(7, metrics(mask=(np.nan, 3.0)))
        meter.finish()


def test_skip_counts_and_gives_up_after_three_in_a_row():
    meter = Meter("skip")
    for step, loss in enumerate((np.nan, np.nan, 1.0, np.nan, np.nan)):
        meter.add(step, metrics(loss=loss))
    meter.finish()
    assert meter.skipped == 4
    with pytest.raises(DivergedError, match="step 5: the gradient is not finite, 3 steps in a row"):
        meter.add(5, metrics(loss=np.inf))
        meter.finish()


def test_durations():
    assert [duration(s) for s in (5, 65, 3725.9)] == ["0:05", "1:05", "1:02:05"]
