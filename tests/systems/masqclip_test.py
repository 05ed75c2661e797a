"""MasQCLIP: what mask tokens see, what they leave alone, and what training starts from."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxseg import predict, systems
from jaxseg.api import Segmenter
from jaxseg.config import load_config
from jaxseg.encoders.clip.vit import VisionTransformer
from jaxseg.metrics import coco_files
from jaxseg.systems.masqclip.model import visible_tokens
from jaxseg.weights import flatten, unflatten
from tests import tiny
from tests.filling import fill

SIZE, PATCH = 24, 8


def tower(projections="q", **fields):
    made = VisionTransformer(SIZE, PATCH, 32, 2, 4, 16, mask_projections=projections, **fields)
    shapes = jax.eval_shape(lambda: made.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))["params"]
    return made, fill(shapes)


def image(batch=2):
    return jax.random.normal(jax.random.key(1), (batch, SIZE, SIZE, 3))


def copied(params):
    """Mask tokens' projections made those of the class token."""
    flat = flatten(params)
    return unflatten({path: flat[path.replace("/mask_", "/")] for path in flat})


OPTIONS = [*((names, {}) for names in ("", "q", "k", "v", "qk", "qkv")), ("q", {"scan": True}), ("q", {"remat": "full"})]


@pytest.mark.parametrize(("projections", "fields"), OPTIONS)
def test_a_mask_token_that_asks_as_the_class_token_and_sees_all_is_the_class_token(projections, fields):
    model, params = tower(projections, **fields)
    params = copied(params)
    token = params["class_embedding"] + params["position_embedding"][0]
    tokens = jnp.broadcast_to(token, (2, 3, 32))
    out = model.apply({"params": params}, image(), mask_tokens=tokens, mask_visible=jnp.ones((2, 3, 10), bool))
    found = model.apply({"params": params}, out.mask_tokens, method="project")
    np.testing.assert_allclose(found, jnp.broadcast_to(out.embedding[:, None], found.shape), atol=2e-5)


def test_the_image_does_not_depend_on_mask_tokens():
    model, params = tower()
    alone = model.apply({"params": params}, image())
    tokens = jax.random.normal(jax.random.key(2), (2, 3, 32))
    out = model.apply({"params": params}, image(), mask_tokens=tokens, mask_visible=jnp.ones((2, 3, 10), bool))
    np.testing.assert_array_equal(out.tokens, alone.tokens)
    np.testing.assert_array_equal(out.embedding, alone.embedding)


def test_a_mask_token_sees_nothing_of_other_patches():
    model, params = tower()
    tokens, visible = jnp.ones((1, 2, 32)), jnp.ones((1, 2, 10), bool).at[0, 0, 5:].set(False)

    def read(pixels):
        # One block: patches see each other, so that beyond it everything is mixed.
        out = model.apply({"params": params}, pixels, mask_tokens=tokens, mask_visible=visible, taps=(0,), embedding=False)
        return np.asarray(out.mask_tokens[0])

    first = image(1)
    other = first.at[:, 16:].add(1.0)  # patches 6, 7 and 8
    changed = np.abs(read(first) - read(other)).max(-1)
    assert changed[0] == 0
    assert changed[1] > 1e-3


def test_a_patch_is_visible_where_any_pixel_of_the_mask_is_positive():
    logits = -jnp.ones((1, 2, SIZE, SIZE))
    logits = logits.at[0, 0, 17, 3].set(0.5)
    visible = np.asarray(visible_tokens(logits, SIZE, PATCH))
    assert visible[0, 0].nonzero()[0].tolist() == [0, 1 + 2 * 3]
    assert visible[0, 1].nonzero()[0].tolist() == [0]  # an empty mask sees the class token
    assert not np.asarray(visible_tokens(jnp.zeros((1, 1, SIZE, SIZE)), SIZE, PATCH))[0, 0, 1:].any()  # zero is not positive


@pytest.fixture(scope="module")
def task():
    return systems.make_task(small())


def small(tune="q"):
    config = load_config("masqclip_base48", f"tiny,tune={tune}").copy_and_resolve_references().unlock()
    config.model.clip.update(image_size=32, patch_size=8, vision_width=32, vision_heads=2, text_width=16, embed_dim=16)
    config.task.update(image_size=(64, 64), max_targets=4, num_classes=3)
    return config.lock()


NAMES = ("cat", "dog", "sky")


def batch_of(task, seed=0):
    batch = tiny.batch_of(task, 2, seed)
    rng = np.random.default_rng(seed)
    masks = (rng.random(batch["masks"].shape) < 0.5).astype(np.uint8)
    size = np.full((2, 2), 64, np.int32)
    image = rng.integers(0, 256, batch["image"].shape).astype(np.uint8)
    valid = np.array([[True, True, False, False], [True, False, False, False]])
    return batch | {"image": image, "image_size": size, "masks": masks, "labels": batch["labels"] % 3, "valid": valid}


def test_training_begins_at_the_class_token_with_the_text_of_its_names(task):
    params, state = tiny.params_of(task)
    begun, state = task.capabilities["begin"](params, state, NAMES)
    visual = begun["clip"]["visual"]
    np.testing.assert_array_equal(begun["mask_embedding"], visual["position_embedding"][0])
    attention = visual["block_0"]["attn"]
    np.testing.assert_array_equal(attention["mask_q"]["kernel"], attention["q"]["kernel"])
    assert state["text"].shape == (4, 16)
    np.testing.assert_allclose(jnp.linalg.norm(state["text"], axis=-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(state["text"], task.prepare(params, NAMES)["text"])
    with pytest.raises(ValueError, match="config.task.num_classes: found 3, expected 2"):
        task.capabilities["begin"](params, state, NAMES[:2])


def test_only_mask_tokens_are_trained(task):
    from jaxseg.optim import split

    params, _ = tiny.params_of(task)
    trained = set(flatten(split(params, small().optim.freeze)[0]))
    expected = {f"clip/visual/block_{i}/attn/mask_q/{leaf}" for i in range(2) for leaf in ("kernel", "bias")}
    assert trained == expected | {"mask_embedding"}


def test_no_annotated_mask_is_all_background(task):
    params, state = tiny.params_of(task)
    params, state = task.capabilities["begin"](params, state, NAMES)
    batch = batch_of(task)
    batch["valid"] = np.zeros_like(batch["valid"])
    terms, _ = jax.jit(lambda batch: task.loss(params, state, batch, jax.random.key(0), 0, kind="train"))(batch)
    assert float(terms["assigned"].sum) == 0
    assert np.isfinite(float(terms["class"].sum))
    np.testing.assert_allclose(float(terms["class"].count), 0.1 * 2 * 24, rtol=1e-5)


def test_predicts_any_names_from_one_encoding(task):
    params, state = tiny.params_of(task)
    batch = {name: batch_of(task)[name] for name in ("image", "image_size")}
    features = jax.jit(task.capabilities["encode"])(params, state, batch)
    for names in (NAMES, ("a", "b, c", "d", "e", "f")):
        outputs = task.capabilities["decode"](params, state, features, task.prepare(params, names))
        found = task.capabilities["at_original_size"](outputs, jnp.array([[50, 40], [64, 64]]), 0.5, canvas=(64, 64))
        assert found["probabilities"].shape == (2, len(names), 64, 64)
        assert not np.asarray(found["panoptic_map"])[0, 50:].any()
        metas = [{"original_size": (50, 40)}, {"original_size": (64, 64)}]
        results = task.finalize({name: np.asarray(found[name]) for name in task.reads}, metas, names)
        assert [result.size for result in results] == [(50, 40), (64, 64)]
        assert all(label in names for result in results for label in result.labels)


def test_proposals_of_a_mask_rcnn():
    """The same model over the other kind of proposals: a slot for each detection, masks at a quarter of the image."""
    from jaxseg.systems.masqclip.model import MasQClip

    fields = small().model.to_dict()
    sizes = {"hidden_dim": 8, "box_dims": (8,), "mask_layers": 1}
    fields["head"] = {"num_classes": 1, "num_objects": 5, "num_before": 20, "num_proposals": 10, **sizes}
    model = MasQClip(**fields, proposals="maskrcnn")
    pixels, sizes, token_ids = jnp.zeros((1, 64, 96, 3)), jnp.array([[64, 90]]), jnp.zeros((2, 48), jnp.int32)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), pixels, sizes, token_ids))["params"]
    found = jax.jit(lambda params: model.apply({"params": params}, pixels, sizes, method="encode"))(fill(params))
    assert found.object_logits.shape == (1, 5, 2)
    assert found.mask_logits.shape == (1, 5, 16, 24)
    assert np.isfinite(found.embeddings).all()


def test_prediction_writes_panoptic_files(tmp_path):
    """Any names, images of several sizes: pictures, masks, and COCO's JSON and PNGs, which agree with each other."""
    config = small().copy_and_resolve_references().unlock()
    config.predict.preprocess = "decode|resize(64)|pad_to_multiple(32)|keep(image, image_size)"
    config.predict.merge.update(object_threshold=0.0, overlap_threshold=0.0)
    task = systems.make_task(config)
    segmenter = Segmenter(task, *tiny.params_of(task), config)
    rng, paths = np.random.default_rng(0), []
    for i, size in enumerate([(30, 50), (70, 40)]):
        paths.append(tmp_path / f"photo {i}.png")
        Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(paths[-1])
    names = ["a beer", "wine", "a table", "the sky"]
    predict.segment_files(segmenter, paths, names, tmp_path / "out")
    found = coco_files.read_panoptic(tmp_path / "out" / "panoptic.json", tmp_path / "out" / "panoptic")
    assert sorted(found) == ["photo 0", "photo 1"]
    categories = json.loads((tmp_path / "out" / "panoptic.json").read_text())["categories"]
    assert [c["name"] for c in categories] == names
    for name, size in (("photo 0", (30, 50)), ("photo 1", (70, 40))):
        segment_map, segments = found[name]
        assert segment_map.shape == size
        coco_files.check_segments(segment_map, segments, [1, 2, 3, 4], name)
        written = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert len(written["masks"]) == len(segments) > 0
        assert sum(s["area"] for s in segments) == (segment_map > 0).sum()
