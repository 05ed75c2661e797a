"""The Python API: images of every kind, any number of names, few programs."""

import contextlib
import dataclasses
import functools
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import monitoring
from PIL import Image

from jaxseg import api, systems
from jaxseg.checkpoint import save_weights
from jaxseg.ops.resize import resize
from jaxseg.photographs import example_of
from tests import tiny

NAMES = ("a cat", "a remote control", "grass")


def small_config(**predict):
    config = tiny.clipseg_config()
    config.predict.update(preprocess="decode|resize(32)|normalize(imagenet)|keep(image)", canvas=32, prompts_per_chunk=4)
    config.predict.update(predict)
    return config


@functools.cache
def task_of(truncate=False):
    """One task for all tests, so that they share what is compiled."""
    return systems.make_task(api.predict_config(small_config(truncate=truncate)))


def make(counts=None, **predict):
    """A segmenter; `counts` gets the number of calls of `prepare`."""
    config = api.predict_config(small_config(**predict))
    task = task_of(config.predict.truncate)
    params, state = tiny.params_of(task)
    if counts is not None:
        counts.append(0)

        def prepare(params, names, is_thing=None):
            counts[0] += 1
            return task.prepare(params, names)

        return api.Segmenter(dataclasses.replace(task, prepare=prepare), params, state, config)
    return api.Segmenter(task, params, state, config)


@pytest.fixture(scope="module")
def seg():
    return make()


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@contextlib.contextmanager
def compilations():
    """A list that grows by one with every program that is compiled or fetched from the compilation cache."""
    found = []

    def listen(event, duration, **fields):
        if event.endswith("jaxpr_to_mlir_module_duration"):
            found.append(fields.get("fun_name", "?"))

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        monitoring.unregister_event_duration_listener(listen)


def expected_probabilities(seg, image, names):
    """By the plain way: every name by itself, one resize to the image's size."""
    inputs = seg.read(image).inputs["image"][None]
    maps, predict = [], jax.jit(seg.task.predict)
    for name in names:
        ctx = seg.task.prepare(seg.params, (name,))
        logits = predict(seg.params, seg.state, ctx, {"image": inputs})["logits"]
        maps.append(np.asarray(resize(jax.nn.sigmoid(logits), image.shape[:2]))[0, 0])
    return np.stack(maps)


def assert_same(result, other):
    assert result.labels == other.labels and result.size == other.size
    np.testing.assert_array_equal(result.masks, other.masks)
    np.testing.assert_allclose(result.scores, other.scores, atol=1e-6)


@pytest.mark.parametrize("size", [(40, 70), (32, 32), (1, 1), (5, 90)])
def test_masks_are_those_of_the_model_at_the_size_of_the_image(seg, size):
    image = photo(*size)
    probabilities = expected_probabilities(seg, image, NAMES)
    threshold = float(np.median(probabilities))
    result = seg(image, NAMES, threshold)
    assert result.size == size and result.labels == NAMES and result.masks.shape == (3, *size)
    sure = abs(probabilities - threshold) > 1e-5
    np.testing.assert_array_equal(result.masks[sure], (probabilities > threshold)[sure])
    for mask, score, values in zip(result.masks, result.scores, probabilities, strict=True):
        assert score == pytest.approx(values[mask].mean() if mask.any() else 0, abs=1e-4)


def test_any_number_of_names_gives_the_rows_of_each_alone(seg):
    names = tuple(f"thing {i}" for i in range(11))  # chunks of 4, 4 and 3, the last one filled up
    image = photo(30, 50)
    seg.set_image(image)
    together = seg.segment(names, 0.48)
    for i in (0, 3, 4, 10):
        alone = seg.segment(names[i], 0.48)
        np.testing.assert_array_equal(together.mask(i), alone.mask(0))
        assert together.scores[i] == pytest.approx(alone.scores[0], abs=1e-6)


def test_an_image_is_encoded_once_for_several_lists_of_names(monkeypatch, seg):
    calls = []
    encode = seg._encode
    monkeypatch.setattr(seg, "_encode", lambda *args: calls.append(0) or encode(*args))
    image = photo(30, 50)
    assert seg.set_image(image) is seg
    first, second = seg.segment(NAMES), seg.segment(["a dog"])
    seg.probabilities(NAMES)
    assert len(calls) == 1
    assert_same(first, seg(image, NAMES))
    assert_same(second, seg(image, "a dog"))
    assert_same(seg.segment(NAMES), first)  # a call leaves the image that was set alone


def test_a_vocabulary_is_encoded_once():
    counts = []
    seg = make(counts)
    for seed in range(3):
        seg(photo(20, 20, seed), NAMES)
    assert counts == [1]
    seg.prepare([*NAMES, "one more", "and one"])
    assert counts == [3]  # a chunk of four and one of one
    seg(photo(20, 20), [*NAMES, "one more", "and one"])
    assert counts == [3]


def test_embeddings_that_are_kept_are_bounded(monkeypatch):
    monkeypatch.setattr(api, "_MAX_CONTEXTS", 2)
    counts = []
    seg = make(counts)
    for name in ("a", "b", "a", "c", "a", "b"):
        seg.prepare([name])
    assert len(seg._contexts) == 2 and counts == [4]


def test_programs_are_compiled_per_bucket_and_canvas_and_not_per_image_or_vocabulary():
    seg = make(batch_size=2, canvas=37)  # no other test has this canvas
    seg.set_image(photo(30, 20))
    for names in (["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d", "e"]):
        seg.segment(names)
    seg([photo(30, 20)] * 2, ["a", "b", "c"])
    with compilations() as compiled:
        for i, size in enumerate([(32, 32), (1, 1), (7, 31), (19, 23)]):
            seg(photo(*size, seed=i), [f"x{i}", f"y{i}", f"z{i}"])
            seg(photo(*size, seed=i), [f"x{i}", f"y{i}", f"z{i}", f"w{i}"])
            seg(photo(*size, seed=i), [f"{i} {j}" for j in range(10)], [0.1 * j for j in range(10)])
        seg([photo(9, 9), photo(30, 8), photo(5, 5)], ["q", "r", "s"], threshold=0.25)
        seg.threshold = 0.3
        seg.segment(["p", "q"])
    assert compiled == []
    with compilations() as compiled:
        seg(photo(38, 20), ["a", "b", "c"])  # a larger canvas: only the resize is new
    assert len(compiled) == 1, compiled


def test_large_photographs_are_cut_into_fewer_names_at_a_time():
    assert api._chunk_length(32, 512 * 512) == 32
    assert api._chunk_length(32, 4096 * 3072) == 2
    assert api._chunk_length(20, 1) == 20
    assert api._chunk_length(32, 20_000 * 4_000) == 1


def test_a_smaller_budget_of_pixels_changes_no_mask(monkeypatch, seg):
    image, names = photo(60, 60), [f"thing {i}" for i in range(5)]
    whole = seg(image, names, 0.48)
    monkeypatch.setattr(api, "_MAX_MASK_PIXELS", 64 * 64 * 2)
    assert_same(seg(image, names, 0.48), whole)


def test_a_thousand_names(seg):
    names = [f"name {i}" for i in range(1000)]
    result = seg(photo(8, 8), names)
    assert len(result) == 1000 and result.labels[999] == "name 999"
    np.testing.assert_array_equal(result.mask(777), seg(photo(8, 8), names[777]).mask(0))


def test_images_of_every_kind(tmp_path, seg):
    gray = np.asarray(Image.fromarray(photo(20, 30)).convert("L"))
    rgb = np.repeat(gray[..., None], 3, 2)
    file = tmp_path / "été 1.png"
    Image.fromarray(gray).save(file)
    expected = seg(rgb, NAMES, 0.48)
    assert expected.masks.any() and not expected.masks.all()
    kinds = {
        "path": file,
        "str": str(file),
        "bytes": file.read_bytes(),
        "PIL gray": Image.open(file),
        "PIL RGBA": Image.fromarray(rgb).convert("RGBA"),
        "gray": gray,
        "gray with a channel": gray[..., None],
        "RGBA": np.concatenate([rgb, rgb[..., :1]], -1),
        "float32": (rgb / 255).astype(np.float32),
        "float64": rgb / 255,
        "float16": (gray / 255).astype(np.float16),
        "uint16": (gray.astype(np.uint16) << 8) + 255,
        "jax": jax.numpy.asarray(rgb),
    }
    for kind, image in kinds.items():
        result = seg(image, NAMES, 0.48)
        np.testing.assert_array_equal(result.masks, expected.masks, err_msg=kind)
        np.testing.assert_array_equal(result.image, rgb, err_msg=kind)
    assert seg(file, NAMES).path == str(file) and seg(gray, NAMES).path == ""
    np.testing.assert_array_equal(example_of(gray > 128)["image"], np.where(gray > 128, 255, 0))


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((3, 20, 30), np.uint8), r"\(3, 20, 30\).*move the channels to the end"),
        (np.zeros((20, 30, 2), np.uint8), r"\(20, 30, 2\)"),
        (np.zeros(20, np.uint8), r"\(20,\)"),
        (np.zeros((0, 5, 3), np.uint8), "without pixels"),
        (np.full((4, 4), 255.0), r"floats from 255 to 255, expected \[0, 1\]"),
        (np.full((4, 4), np.nan), "floats from nan"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.zeros((4, 4), complex), "complex128"),
        ("nowhere/cat.jpg", "nowhere/cat.jpg: no such file"),
        ("https://x.org/cat.jpg", "download it first"),
        (b"", "the file is empty"),
        (b"not an image", "not an image"),
        (None, "expected"),
        (iter([]), "one image or a list"),
        (3.5, "expected"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(seg, image, message):
    with pytest.raises(ValueError, match=message) as caught:
        seg(image, NAMES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "found none"),
        ("", r"names\[0\]: found ''"),
        (["a cat", "  "], r"names\[1\]"),
        (["a cat", 3], r"names\[1\]: found 3"),
        (["word " * 100], "a context of .* holds"),
    ],
)
def test_names_that_say_nothing_or_too_much_are_refused(seg, names, message):
    with pytest.raises(ValueError, match=message):
        seg(photo(8, 8), names)


@pytest.mark.parametrize("name", ["\U0001f600", "x\0y", "كلب صغير", "<|endoftext|>", "日本の木", "é\u0301"])
def test_odd_names_work(seg, name):
    result = seg(photo(8, 8), [name, "a cat"])
    assert result.labels == (name, "a cat") and np.isfinite(result.scores).all()


def test_long_names_are_cut_where_the_config_says_so():
    seg = make(truncate=True)
    assert len(seg(photo(8, 8), ["word " * 100_000])) == 1


def test_several_images_give_the_results_of_each(seg):
    images = [photo(20, 30, 1), Image.fromarray(photo(50, 10, 2)), photo(5, 5, 3)]
    batched = make(batch_size=2)
    for several in (seg(images, NAMES, 0.48), batched(images, NAMES, 0.48)):
        assert len(several) == 3
        for image, result in zip(images, several, strict=True):
            alone = seg(image, NAMES, 0.48)
            assert alone.size == result.size
            assert (alone.masks != result.masks).mean() < 0.002  # another batch size sums in another order
            np.testing.assert_allclose(alone.scores, result.scores, atol=1e-4)
    stacked = np.stack([photo(6, 7, 1), photo(6, 7, 2)])
    assert [r.size for r in seg(stacked, NAMES)] == [(6, 7)] * 2
    assert seg([], NAMES) == []


def test_thresholds(seg):
    image = photo(20, 20)
    before = seg.threshold
    probabilities = seg.set_image(image).probabilities(NAMES)
    assert probabilities.shape == (3, 20, 20) and probabilities.dtype == np.float32
    limits = np.median(probabilities, (1, 2))
    each = seg.segment(NAMES, limits)
    np.testing.assert_array_equal(each.masks, probabilities > limits[:, None, None])
    try:
        seg.threshold = 1
        assert not seg(image, NAMES).masks.any()
        seg.threshold = 0
        assert seg(image, NAMES).masks.all()
    finally:
        seg.threshold = before
    for wrong in (2, -0.1, np.nan, "0.5", [0.1, 0.2], None):
        with pytest.raises(ValueError, match="threshold"):
            seg.threshold = wrong
    with pytest.raises(ValueError, match="or 3: one per name"):
        seg(image, NAMES, [0.5, 0.5])


def test_label_map_is_the_likeliest_name(seg):
    names = [f"thing {i}" for i in range(6)]
    probabilities = seg.set_image(photo(20, 20)).probabilities(names)
    labels = seg.label_map(names, background=0)
    np.testing.assert_array_equal(labels, probabilities.argmax(0))
    limit = float(np.median(probabilities.max(0)))
    np.testing.assert_array_equal(seg.label_map(names, limit) >= 0, probabilities.max(0) > limit)
    assert (seg.label_map(names, background=1) == -1).all()


def test_no_image_was_set():
    with pytest.raises(ValueError, match="set_image"):
        make().segment(NAMES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder of weights, and the segmenter that they make."""
    config, task = small_config(), task_of()
    params, state = tiny.params_of(task, seed=3)
    folder = tmp_path_factory.mktemp("weights here") / "été"
    save_weights(folder, params, state, {"config": config.to_dict()})
    return folder, api.Segmenter(task, params, state, api.predict_config(config))


def test_load_takes_the_config_that_lies_with_the_weights(weights):
    import jaxseg

    folder, expected = weights
    loaded = jaxseg.load(weights=folder, threshold=0.25)
    assert loaded.threshold == 0.25
    assert_same(loaded(photo(20, 20), NAMES, 0.48), expected(photo(20, 20), NAMES, 0.48))


def test_load_takes_weights_that_are_older_than_a_field_of_the_config(weights, tmp_path):
    import jaxseg

    _, expected = weights
    stored = small_config().to_dict()
    del stored["predict"]["compute"], stored["mesh"], stored["train"]["keep"]
    save_weights(tmp_path, expected.params, expected.state, {"config": stored})
    loaded = jaxseg.load(weights=tmp_path)
    assert loaded.config.to_dict() == expected.config.to_dict()


def test_load_refuses_what_does_not_fit(weights, tmp_path):
    import jaxseg

    folder, _ = weights
    with pytest.raises(ValueError, match="clipseg_rd64"):
        jaxseg.load("clipseg_rd46", folder)
    with pytest.raises(ValueError, match="shape|fit|expected"):
        jaxseg.load("clipseg_rd16:tiny", folder)
    with pytest.raises(ValueError, match="'treshold' is unknown; did you mean 'threshold'"):
        jaxseg.load("", folder, treshold=0.3)
    with pytest.raises(ValueError, match=r"predict.threshold: found 7"):
        jaxseg.load("", folder, threshold=7)
    with pytest.raises(ValueError, match="found none"):
        jaxseg.load("clipseg_rd64")
    with pytest.raises(ValueError, match="no such folder"):
        jaxseg.load("", tmp_path / "nothing")
    with pytest.raises(ValueError, match="'clip' does not segment"):
        jaxseg.load("clip_pretrain:tiny", folder)


def test_prediction_computes_in_its_own_precision():
    config = small_config()
    config.precision.compute = "bfloat16"
    assert api.predict_config(config).precision.compute == "float32"
    assert api.predict_config(config, compute="bfloat16").precision.compute == "bfloat16"
    assert config.precision.compute == "bfloat16"  # the caller's is left alone


def test_importing_jaxseg_is_quick():
    program = "import sys, jaxseg; print(sorted({'jax', 'numpy', 'flax', 'PIL'} & set(sys.modules)), 'load' in dir(jaxseg))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.strip() == "[] True", done.stderr
