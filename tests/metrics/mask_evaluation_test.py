"""From queries to panoptic quality and average precision, through the compiled evaluation step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import sharding
from jaxseg.evaluate import Evaluation
from jaxseg.ops.padding import inside_canvas
from jaxseg.ops.resize import resize_to_canvas
from jaxseg.postprocess.instance import instances
from jaxseg.postprocess.panoptic import panoptic_segments
from jaxseg.preprocess.segment_table import segment_table
from tests import toy_evaluation as toy

EVALUATORS = ("pq", "mask_ap('segments')", "box_ap('segments')")
IDS = (70000, 12, 900)  # of red, green and blue


def segmenter():
    """The toy, with a query for each name."""

    def at_original_size(outputs, original_size, threshold, *, canvas):
        logits = resize_to_canvas(outputs["logits"], original_size, canvas)
        probabilities, inside = jax.nn.sigmoid(logits), inside_canvas(original_size, canvas)
        logits = jnp.where(inside[:, None], logits, 0)
        scores = jnp.broadcast_to(0.9 * jnp.eye(3)[None], (len(logits), 3, 3))
        is_thing = np.array(toy.VOCABULARY.is_thing)
        merge = functools.partial(panoptic_segments, is_thing=is_thing, object_threshold=0.5, overlap_threshold=0.1)
        found = jax.vmap(lambda s, p, i: merge(s, p, inside=i))(scores, probabilities, inside)
        return {"probabilities": probabilities, **found, **jax.vmap(functools.partial(instances, num=9))(scores, logits)}

    task = toy.segmenter()
    return dataclasses.replace(task, capabilities={**task.capabilities, "at_original_size": at_original_size})


class Split(toy.Split):
    """The toy's images, every class of a label map one segment."""

    def __init__(self, num_examples=5, exact=False):
        super().__init__(num_examples)
        if exact:
            self.images = np.eye(3, dtype=np.float32)[np.maximum(self.labels, 0)]
            self.labels = np.maximum(self.labels, 0)

    def batches(self):
        for batch, metas in super().batches():
            batch["segment_map"] = np.array([*IDS, 0], np.int32)[batch["label_map"]]
            tables = []
            for segment_map, meta in zip(batch["segment_map"], metas, strict=True):
                rows = [{"id": i, "class_id": c} for c, i in enumerate(IDS) if np.any(segment_map == i)]
                meta["segments"] = rows
                tables.append(segment_table(5)({"segments": rows, "segment_map": segment_map}, None))
            fields = [name for name in tables[0] if name.startswith("segment_") and name != "segment_map"]
            yield {**batch, **{name: np.stack([table[name] for table in tables]) for name in fields}}, metas


def evaluate(split, num_devices):
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "model": 1}, jax.devices()[:num_devices])
    run = Evaluation(segmenter(), toy.config_for(EVALUATORS), toy.Data(val=split), mesh)
    return run.run(toy.params(), {})


@pytest.fixture(scope="module")
def results():
    return evaluate(Split(), 1)


def test_noise_costs_something(results):
    assert 0.1 < results["val/pq"] < 0.9 and 0.01 < results["val/mask_ap"] < 0.9 and 0.1 < results["val/box_ap"] < 1
    assert {"val/pq/things", "val/pq/harmonic", "val/class_pq/blue", "val/class_mask_ap50/red"} < set(results)
    assert "val/class_mask_ap/blue" not in results  # stuff
    counts = [results[f"val/class_{name}/{label}"] for name in ("tp", "fn") for label in toy.NAMES]
    assert sum(counts) == 5 * 3 - 2  # segments; blue is absent twice


def test_eight_devices_are_exactly_one(results):
    assert evaluate(Split(), 8) == results


def test_the_truth_reaches_one():
    found = evaluate(Split(exact=True), 1)
    for name in ("pq", "sq", "rq", "mask_ap", "box_ap"):
        assert found[f"val/{name}"] == pytest.approx(1)
