import json
import logging
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxseg import sharding
from jaxseg.checkpoint import save_weights
from jaxseg.evaluate import Evaluation, _Progress, run
from jaxseg.metrics.evaluator import FACTORIES, Collected
from jaxseg.text.vocabulary import Vocabulary
from tests import toy_evaluation as toy


def mesh_of(num_devices=1, model=1):
    return sharding.make_mesh({"data": -1, "fsdp": 1, "model": model}, jax.devices()[:num_devices])


def evaluate(task=None, config=None, data=None, mesh=None, **kwargs):
    task, data = task or toy.segmenter(), data or toy.Data(val=toy.Split())
    return Evaluation(task, config or toy.config_for(), data, mesh or mesh_of()).run(toy.params(), {}, **kwargs)


@pytest.fixture(scope="module")
def results():
    return evaluate()


def by_definition(split):
    """Metrics from loops over images, names and pixels."""
    found, baseline, confusion, false_positives = [], [], np.zeros((3, 3)), []
    for image, labels in zip(split.images, split.labels, strict=True):
        probabilities, valid = 1 / (1 + np.exp(-(image @ toy.params()["directions"].T))), labels >= 0
        np.add.at(confusion, (np.argmax(probabilities, -1)[valid], labels[valid]), 1)
        for name in range(3):
            mask, truth = (probabilities[..., name] > 0.5) & valid, labels == name
            if truth.any():
                found.append((name, (mask & truth).sum() / (mask | truth).sum()))
                baseline.append(truth.sum() / valid.sum())
            else:
                false_positives.append(mask.any())
    iou = np.diagonal(confusion) / (confusion.sum(0) + confusion.sum(1) - np.diagonal(confusion))
    things = [value for name, value in found if name < 2]
    return {
        "val/prompt_iou@0.5": np.mean([value for _, value in found]),
        "val/prompt_iou@0.5/things": np.mean(things),
        "val/prompt_iou@0.5_baseline": np.mean(baseline),
        "val/present_pairs@0.5": len(found),
        "val/absent_pairs@0.5": len(false_positives),
        "val/false_positive@0.5": np.mean(false_positives),
        "val/miou": np.mean(iou),
        "val/iou/green": iou[1],
        "val/pacc": np.diagonal(confusion).sum() / confusion.sum(),
    }


def test_results_follow_the_definition_with_a_ragged_last_batch(results):
    expected = by_definition(toy.Split())
    assert {name: results[name] for name in expected} == pytest.approx(expected)
    assert 0.1 < results["val/miou"] < 0.9 and results["val/absent_pairs@0.5"] == 2  # the example tells something
    assert list(results) == sorted(results)


def test_eight_devices_equal_one(results):
    for mesh in (mesh_of(8), mesh_of(8, model=2)):
        assert evaluate(mesh=mesh) == pytest.approx(results, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batch_size_does_not_matter(results, batch_size):
    assert evaluate(data=toy.Data(val=toy.Split(batch_size=batch_size))) == pytest.approx(results, rel=1e-6)


def test_names_in_chunks_equal_all_at_once(results):
    assert evaluate(config=toy.config_for(prompts_per_chunk=2)) == pytest.approx(results, rel=1e-6)


def test_twice_is_the_same_json_and_compiles_once():
    evaluation = Evaluation(toy.segmenter(), toy.config_for(), toy.Data(val=toy.Split()), mesh_of())
    one = json.dumps(evaluation.run(toy.params(), {}))
    programs = list(evaluation._programs.values())
    assert json.dumps(evaluation.run(toy.params(), {})) == one
    assert list(evaluation._programs.values()) == programs and len(programs) == 1
    assert programs[0]._cache_size() == 1


class Writer:
    def __init__(self):
        self.scalars, self.seen = {}, []

    def write_scalars(self, step, scalars):
        self.scalars[step] = scalars

    def write_images(self, step, images):
        assert step == 7 and all(x.dtype == np.uint8 and x.ndim == 3 for x in images.values())
        self.seen.append(list(images))


def test_pictures_and_records(tmp_path):
    writer = Writer()
    config, data = toy.config_for(splits=("val", "other")), toy.Data(val=toy.Split(), other=toy.Split(1))
    found = evaluate(config=config, data=data, workdir=str(tmp_path), step=7, writer=writer)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    names = ["other/00_folder_0_png", "val/00_folder_0_png", "val/01_folder_1_png"]
    assert files == [f"pictures/{name}.png" for name in names]
    assert writer.scalars == {7: found} and "other/miou" in found and "val/miou" in found
    assert writer.seen == [["val/00_folder_0_png", "val/01_folder_1_png"], ["other/00_folder_0_png"]]


def test_no_pictures_without_a_workdir(results, monkeypatch):
    monkeypatch.setattr("jaxseg.visualize.grid", None)  # whatever draws would fail
    evaluate()


def test_collected_read_only_what_they_name():
    seen = []

    def collect(outputs, batch, metas):
        seen.append((set(outputs), type(outputs["image_embeddings"]), len(outputs["image_embeddings"])))
        return [0] * len(metas)

    evaluator = Collected(collect, lambda records: {"n": len(records)}, outputs=("image_embeddings",))
    FACTORIES["test_collected"] = lambda vocabulary: evaluator
    try:
        found = evaluate(toy.pair_scorer(), toy.config_for(("test_collected",)), mesh=mesh_of(8))
    finally:
        del FACTORIES["test_collected"]
    # Rows that fill up the devices do not reach it.
    assert seen == [({"image_embeddings"}, np.ndarray, 2)] * 3 and found == {"val/n": 6}


def test_systems_without_masks_and_names():
    data = toy.Data(val=toy.Split(6, 4, vocabulary=Vocabulary((), ())))
    for mesh in (mesh_of(), mesh_of(8)):
        found = evaluate(toy.pair_scorer(), toy.config_for(("retrieval(1)",)), data, mesh)
        split = data.eval("val")
        means = split.images.mean((1, 2))
        best = np.argmax(means, -1)  # the texts are the three axes
        assert found["val/image_to_text@1"] == pytest.approx(np.mean(best == np.arange(6) % 3))
        assert found["val/image_to_text@1_baseline"] == pytest.approx(1 / 3)


def fails(match, **kwargs):
    with pytest.raises(ValueError, match=match) as error:
        evaluate(**kwargs)
    assert "\n" not in str(error.value)


def test_mistakes_are_one_line():
    only_miou = toy.config_for(("miou",))
    dropped = toy.Split()
    dropped.drop = ("label_map",)
    fails("evaluator prompt_iou.0.5. on val: the batch has no label_map, only example_mask, image", data=toy.Data(val=dropped))
    fails("config.data.eval.val.evaluators: evaluator 'moiu' is unknown; did you mean 'miou'", config=toy.config_for(("moiu",)))
    fails("config.data.eval.val.evaluators: found none", config=toy.config_for(()))
    fails("evaluator miou on val: system 'pairs' gives no probabilities", task=toy.pair_scorer(), config=only_miou)
    empty = toy.Data(val=toy.Split(vocabulary=Vocabulary((), ())))
    fails("config.data.eval.val.evaluators: evaluator miou: the vocabulary of this split is empty",
          data=empty, config=only_miou)  # fmt: skip
    fails("evaluator miou on val: there is no example", data=toy.Data(val=toy.Split(0)), config=only_miou)
    fails("evaluator prompt_iou.0.50. on val: .* was given by another evaluator",
          config=toy.config_for(("prompt_iou(0.5)", "prompt_iou(0.50)")))  # fmt: skip
    no_masks = toy.Split()
    no_masks.drop = ("label_map",)
    fails("val: the batch has no label_map", data=toy.Data(val=no_masks), config=toy.config_for(("retrieval",)))


def test_progress_tells_rate_and_time_left(caplog):
    now = [0.0]
    progress = _Progress("val", 40, clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        for _ in range(4):
            now[0] += 4
            progress.add(10)
        progress.finish()
    # Every five seconds, and at the end.
    assert caplog.messages == ["val 20/40  2.5 img/s  0:08 left", *["val 40/40  2.5 img/s  in 0:16"] * 2]


def test_program(results, tmp_path, capsys):
    weights, workdir = tmp_path / "weights", tmp_path / "my run"
    save_weights(weights, toy.params(), {}, {})
    data, config = toy.Data(val=toy.Split()), toy.config_for()
    found = run(config, workdir, data, str(weights), task=toy.segmenter())
    assert found == pytest.approx(results, rel=1e-6) and "prompt_iou@0.5/things" in capsys.readouterr().out
    first = (workdir / "results.json").read_text()
    assert json.loads(first) == found and list(json.loads(first)) == sorted(found)
    assert (workdir / "pictures" / "val").is_dir()
    run(config, workdir, data, str(weights), task=toy.segmenter())
    assert (workdir / "results.json").read_text() == first
    # What training measured before its first step stays beside it.
    (workdir / "results.json").write_text(json.dumps({"untrained/val/miou": 0.25, "val/miou": 0.5}))
    again = run(config, workdir, data, str(weights), task=toy.segmenter())
    assert again == found | {"untrained/val/miou": 0.25}


def test_program_without_splits_or_weights(tmp_path):
    with pytest.raises(ValueError, match="^config.data.eval: found no split, expected at least one, such as val$"):
        run(toy.config_for(), tmp_path, toy.Data(), task=toy.segmenter())
    with pytest.raises(ValueError, match="no weights here"):
        run(toy.config_for(), tmp_path, toy.Data(val=toy.Split()), task=toy.segmenter())


PROCESS = """
import json, sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"localhost:{sys.argv[2]}", 2, int(sys.argv[1]))
from jaxseg import sharding
from jaxseg.evaluate import Evaluation, gathered
from tests import toy_evaluation as toy
mesh = sharding.make_mesh({"data": -1, "fsdp": 1, "model": 1})
found = {}
for task, evaluators in ((toy.segmenter(), ("prompt_iou(0.5)", "miou")), (toy.pair_scorer(), ("retrieval(1)",))):
    split = toy.Split(process_index=jax.process_index(), process_count=2)
    found |= Evaluation(task, toy.config_for(evaluators), toy.Data(val=split), mesh).run(toy.params(), {})
assert gathered([jax.process_index()] * (jax.process_index() + 1)) == [0, 1, 1]
print(json.dumps(found))
"""


def test_two_processes_equal_one(results, unused_port):
    command = [sys.executable, "-c", PROCESS]
    root = Path(__file__).parent.parent
    options = {"cwd": root, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(i), str(unused_port)], **options) for i in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    found = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    expected = results | evaluate(toy.pair_scorer(), toy.config_for(("retrieval(1)",)))
    assert found[0] == found[1] == pytest.approx(expected, rel=1e-6)


@pytest.fixture
def unused_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
