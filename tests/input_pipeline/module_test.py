"""DataModule: the same batches always, whatever happens to files; evaluation that counts every example once."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import common
from input_pipeline.module import DataModule
from jaxseg.preprocess import parse
from tests.input_pipeline.folders import coco_json, write_folder

ROOT = Path(__file__).parent.parent.parent
TRAIN = "decode|resize(8)|flip_lr|phrases(2, negatives=0.3)|normalize(imagenet)|keep(image, mask, mask_valid)"
EVAL = "decode|resize(8, labels=False)|normalize(imagenet)|label_map|keep(image, label_map)"


def make_config(*folders, num_eval=None, batch_size=4, max_bad_share=0.5, train=TRAIN, seed=0, **train_options):
    config = common.default()
    config.seed = seed
    config.train.batch_size = batch_size
    config.data.max_bad_share = max_bad_share
    config.data.train.update(sources=tuple(common.source(str(f), "train") for f in folders), preprocess=train, workers=2)
    config.data.train.update(train_options)
    config.predict.canvas = 16
    if num_eval:
        evaluation = {"preprocess": EVAL, "evaluators": (), "batch_size": num_eval}
        config.data.eval = {"val": ConfigDict({"source": common.source(str(folders[0]), "train"), **evaluation})}
    return config


def batches(config, start, number, **process):
    iterator = DataModule.from_config(config, **process).train(start)
    found = [next(iterator) for _ in range(number)]
    iterator.close()
    return found


def assert_equal(found, expected):
    assert [kind for kind, _ in found] == [kind for kind, _ in expected]
    for (_, one), (_, other) in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_resumed_run_gets_the_batches_of_the_uninterrupted_one(tmp_path):
    config = make_config(write_folder(tmp_path, 7))
    whole = batches(config, 0, 6)
    assert_equal(batches(config, 0, 6), whole)
    assert_equal(batches(config, 4, 2), whole[4:])
    assert_equal(batches(make_config(tmp_path, cache_gb=0.0), 0, 6), whole)
    kind, batch = whole[0]
    assert kind == "train" and {k: (v.shape, v.dtype) for k, v in batch.items()} == {
        "image": ((4, 8, 8, 3), np.float32), "mask": ((4, 2, 8, 8), np.float32), "mask_valid": ((4, 2, 8, 8), np.float32),
    }  # fmt: skip
    other = batches(make_config(tmp_path, seed=1), 0, 1)[0][1]
    assert not np.array_equal(other["image"], batch["image"])


def test_ids_of_a_step_are_those_after_a_resume(tmp_path):
    config = make_config(write_folder(tmp_path, 7))
    ids = [DataModule.from_config(config).example_ids(step) for step in range(14)]
    fresh = DataModule.from_config(config)
    next(fresh.train(9))
    assert [fresh.example_ids(step) for step in range(9, 14)] == ids[9:]
    flat = [i for step in ids for i in step]
    assert all(sorted(flat[i : i + 7]) == sorted(f"train/{n}.jpg" for n in range(7)) for i in range(0, 56, 7))


def test_processes_get_their_parts_of_the_global_batch(tmp_path):
    config = make_config(write_folder(tmp_path, 7))
    whole = batches(config, 1, 2)
    parts = [batches(config, 1, 2, process_index=p, process_count=2) for p in range(2)]
    for step, (_, batch) in enumerate(whole):
        for name in batch:
            joined = np.concatenate([part[step][1][name] for part in parts])
            np.testing.assert_array_equal(joined, batch[name])
    with pytest.raises(ValueError, match=r"config.train.batch_size: found 4, expected a multiple of the 3 processes"):
        DataModule.from_config(config, process_index=0, process_count=3)


def test_two_kinds_take_turns_and_resume(tmp_path):
    config = make_config(write_folder(tmp_path / "a", 5), write_folder(tmp_path / "b", 3))
    first, second = config.data.train.sources
    config.data.train.sources = (first, {**second, "batch_kind": "other", "preprocess": "decode|resize(4)|keep(image)"})
    whole = batches(config, 0, 5)
    assert [(kind, batch["image"].shape[1]) for kind, batch in whole] == [("train", 8), ("other", 4)] * 2 + [("train", 8)]
    assert_equal(batches(config, 3, 2), whole[3:])
    assert DataModule.from_config(config).example_ids(1)[0].startswith(f"{tmp_path}/b:train/train/")


@pytest.fixture(name="damaged")
def damaged_folder(tmp_path):
    """Ten images: three that cannot be used, and others that are strange but good."""
    root = write_folder(tmp_path, 10)
    content = (root / "train" / "0.jpg").read_bytes()
    (root / "train" / "0.jpg").write_bytes(content[: len(content) // 2])
    (root / "train" / "1.jpg").write_bytes(b"")
    Image.fromarray(np.full((20, 30), 99, np.uint8)).save(root / "trainannot" / "2.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(root / "trainannot" / "3.png")  # nothing but void
    Image.open(root / "train" / "4.jpg").convert("CMYK").save(root / "train" / "4.jpg")
    Image.open(root / "train" / "5.jpg").convert("L").save(root / "train" / "5.jpg")
    for part in ("train/6.jpg", "trainannot/6.png"):
        Image.open(root / part).resize((1, 1), Image.Resampling.NEAREST).save(root / part)
    return root


def test_damaged_examples_are_replaced_counted_and_named(damaged, caplog):
    config = make_config(damaged)
    data = DataModule.from_config(config)
    iterator = data.train(0)
    found = [next(iterator) for _ in range(8)]
    iterator.close()
    report = data.report()
    assert report["bad_examples"] == 3
    assert sorted(Path(p).name for p in report["paths"]) == ["0.jpg", "1.jpg", "2.jpg"]
    assert len(re.findall(r"0\.jpg: (damaged image|cannot be read)", caplog.text)) == 1
    assert caplog.text.count("1.jpg: the file is empty") == 1
    assert "2.png: pixel value 99 is no class id" in caplog.text
    assert all(np.isfinite(array).all() for _, batch in found for array in batch.values())
    assert_equal(batches(config, 0, 8), found)
    assert_equal(batches(config, 5, 3), found[5:])


def test_too_many_damaged_examples_stop_the_run_with_one_line(damaged):
    iterator = DataModule.from_config(make_config(damaged, max_bad_share=0.2)).train(0)
    with pytest.raises(ValueError) as error:
        for _ in range(10):
            next(iterator)
    assert "3 of 10 examples cannot be read, more than config.data.max_bad_share (0.2) allows; the last:" in str(error.value)
    assert "\n" not in str(error.value) and str(damaged) in str(error.value)


def test_objects_of_every_quality_give_finite_batches(tmp_path):
    path = coco_json(tmp_path, "train.json")
    data = json.loads(path.read_text())
    wrong = [
        {"segmentation": [[1, 1, 2, 2]], "bbox": [1, 1, 1, 1]},  # two points
        {"segmentation": [[0, 0, 90, 0, 90, 90]], "bbox": [-4, -4, 90, 90]},  # outside
        {"segmentation": [], "bbox": [50, 50, 5, 5]},  # gone
        {"segmentation": {"size": [10, 12], "counts": [0, 120]}, "iscrowd": 1},  # crowd
    ]
    data["images"] += [{"id": 20 + i, "file_name": "b.jpg"} for i in range(len(wrong) + 2)]
    data["annotations"] += [{"id": 5, "image_id": 20 + i, "category_id": 3, **w} for i, w in enumerate(wrong)]
    # Beyond repair: run lengths of another size, and annotations of another size than the file.
    rle = {"size": [12, 10], "counts": [120]}
    data["annotations"].append({"id": 5, "image_id": 24, "category_id": 3, "segmentation": rle})
    data["images"][-1] |= {"height": 11, "width": 12}
    path.write_text(json.dumps(data))
    module = DataModule.from_config(make_config(path))
    iterator = module.train(0)
    for _ in range(6):
        _, batch = next(iterator)
        assert all(np.isfinite(array).all() for array in batch.values())
    iterator.close()
    assert module.report()["bad_examples"] == 2


@pytest.mark.parametrize(("num", "batch_size"), [(7, 3), (6, 3), (2, 5)])
def test_evaluation_counts_every_example_once_and_masks_the_rest(tmp_path, num, batch_size):
    root = write_folder(tmp_path, num)
    split = DataModule.from_config(make_config(root, num_eval=batch_size)).eval("val")
    assert split.num_examples == num and split.vocabulary.names == ("sky", "road", "car")
    ids, masks = [], []
    for batch, metas in split.batches():
        assert batch["image"].shape == (batch_size, 8, 8, 3) and batch["label_map"].shape == (batch_size, 32, 32)
        assert batch["label_map"].dtype == batch["original_size"].dtype == np.int32
        for i, meta in enumerate(metas):
            height, width = meta["original_size"]
            assert tuple(batch["original_size"][i]) == (height, width) == meta["image"].shape[:2]
            assert (batch["label_map"][i, height:] == -1).all() and (batch["label_map"][i, :, width:] == -1).all()
            if not batch["example_mask"][i]:
                assert (batch["label_map"][i] == -1).all() and not batch["image"][i].any() and meta["id"] == ""
                continue
            alone = parse(EVAL)({**split._reader.source.load(len(ids))})
            np.testing.assert_array_equal(batch["image"][i], alone["image"])
            np.testing.assert_array_equal(batch["label_map"][i, :height, :width], alone["label_map"])
            assert [s["class_id"] for s in meta["segments"]] == [0, 2]
            ids.append(meta["id"])
        masks += batch["example_mask"].tolist()
    assert ids == [f"train/{i}.jpg" for i in range(num)]
    assert masks == [True] * num + [False] * (-num % batch_size)
    assert_equal([("", batch) for batch, _ in split.batches()], [("", batch) for batch, _ in split.batches()])


def test_who_only_evaluates_needs_no_training_data(tmp_path):
    config = make_config(write_folder(tmp_path, 2), num_eval=2)
    config.data.train.sources = (common.source(str(tmp_path), "nothing_here"),)
    with pytest.raises(ValueError, match="nothing_here"):
        DataModule.from_config(config, 0, 1)
    module = DataModule.from_config(config, 0, 1, training=False)
    assert module.plan is None
    assert sum(len(metas) for _, metas in module.eval("val").batches()) == 2


def test_evaluation_masks_what_cannot_be_read(damaged):
    module = DataModule.from_config(make_config(damaged, num_eval=4))
    masks = [m for batch, _ in module.eval("val").batches() for m in batch["example_mask"]]
    assert masks == [False] * 3 + [True] * 7 + [False] * 2
    assert module.report()["bad_examples"] == 3


def test_evaluation_canvas_holds_the_largest_and_processes_agree_on_it(tmp_path):
    root = write_folder(tmp_path, 3)
    write_folder(tmp_path / "big", 1, height=50, width=90)
    for part in ("train/0.jpg", "trainannot/0.png"):
        (root / "big" / part).rename(root / part.replace("0.", "2."))
    config = make_config(root, num_eval=4)
    whole = list(DataModule.from_config(config).eval("val").batches())
    parts = [list(DataModule.from_config(config, p, 4).eval("val").batches()) for p in range(4)]
    for step, (batch, metas) in enumerate(whole):
        assert batch["label_map"].shape == (4, 64, 96)
        for name in batch:
            np.testing.assert_array_equal(np.concatenate([part[step][0][name] for part in parts]), batch[name])
        assert [m["id"] for m in metas] == [m["id"] for part in parts for m in part[step][1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocess": "decode|resiz(8)"}, "config.data.train.sources[0].preprocess: preprocess: op 2 'resiz' is unknown"),
        ({"preprocess": "decode|keep(image)"}, "preprocess: image has shape"),
        ({"preprocess": "decode|resize(4)|keep(image, mask)"}, "keep: no field 'mask'"),
        ({"preprocess": "decode|resize(4)"}, "is no array; name the batch's fields with keep(...)"),
        ({"sources": ()}, "config.data.train.sources: found none, expected at least one source"),
    ],
)
def test_mistakes_are_found_at_the_first_batch(tmp_path, change, message):
    root = write_folder(tmp_path, 3)
    write_folder(tmp_path / "big", 1, height=50, width=90)
    for part in ("train/0.jpg", "trainannot/0.png"):
        (root / "big" / part).rename(root / part)
    config = make_config(root)
    config.data.train.update(change)
    with pytest.raises(ValueError) as error:
        next(DataModule.from_config(config).train(0))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_split_is_named(tmp_path):
    module = DataModule.from_config(make_config(write_folder(tmp_path, 2), num_eval=2))
    assert module.splits == ("val",)
    with pytest.raises(ValueError, match="evaluation split: found 'test', expected one of val"):
        module.eval("test")


def test_a_program_that_stops_amid_training_ends(tmp_path):
    """Iterators of TensorFlow that outlive the interpreter's end would wait for Python for ever."""
    write_folder(tmp_path, 4)
    program = (
        "from tests.input_pipeline.module_test import *\n"
        f"iterator = DataModule.from_config(make_config({str(tmp_path)!r}), 0, 1).train(0)\n"
        "print(next(iterator)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "train\n"), done.stderr
