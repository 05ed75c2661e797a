"""A loss that is not finite: skipped or stopped by config, and never in a checkpoint."""

import sys

import pytest

from jaxseg.progress import DivergedError
from tests.faults import toy
from tests.faults.processes import steps_of, stored_arrays


@pytest.fixture(scope="module", autouse=True)
def without_tensorflow():
    """It takes seconds to import and is not wanted here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow", None)
        yield


def test_skipped_steps_change_nothing(tmp_path, caplog):
    config = toy.config_for(steps=4, checkpoint_every=1, keep=4, nan_policy="skip")
    toy.run(tmp_path, config, toy.Toy(nan_steps=(3,)))
    warnings = [record.getMessage() for record in caplog.records if "finite" in record.getMessage()]
    assert warnings == ["step 3: pixels is not finite; its update is left out"]
    arrays = {step: stored_arrays(tmp_path, step) for step in steps_of(tmp_path)}
    assert arrays[3] == arrays[2], "params, state, optimizer or average were touched"
    assert arrays[4] != arrays[3]
    assert all(arrays[4][item] != arrays[3][item] for item in ("params", "state", "opt", "ema"))


def test_stop_names_step_and_term(tmp_path):
    config = toy.config_for(steps=6, checkpoint_every=2, nan_policy="stop")
    with pytest.raises(DivergedError, match=r"^step 4: pixels is not finite; its update was left out"):
        toy.run(tmp_path, config, toy.Toy(nan_steps=(4,)))
    assert steps_of(tmp_path) == [2]


def test_three_in_a_row_stop_in_any_case(tmp_path):
    config = toy.config_for(steps=9, checkpoint_every=2, keep=9, nan_policy="skip")
    with pytest.raises(DivergedError, match=r"^step 7: pixels is not finite, 3 steps in a row; the last good step is kept"):
        toy.run(tmp_path, config, toy.Toy(nan_steps=(2, 3, 5, 6, 7)))
    arrays = {step: stored_arrays(tmp_path, step) for step in steps_of(tmp_path)}
    assert list(arrays) == [2, 4, 6]
    assert arrays[2] != arrays[4]
    assert arrays[4] == arrays[6], "the last good step is that of step 4"
