"""Options of CLIPSeg's decoder that no released model has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.decoders.film import FilmDecoder
from jaxseg.systems.clipseg.model import ClipSeg
from jaxseg.weights import flatten
from tests.filling import fill

TOKENS, COND, GRID = jnp.ones((1, 5, 12)), jnp.ones((3, 6)), (2, 2)


def decode(decoder):
    return decoder(decoder.reduce([TOKENS]), COND, GRID)


def shapes_of(**fields):
    decoder = FilmDecoder(1, 8, 4, num_heads=2, mlp_dim=16, **fields)
    return decoder, jax.eval_shape(lambda: decoder.init(jax.random.key(0), method=decode))["params"]


def test_norm_first_moves_the_norms_and_has_the_same_parameters():
    results = []
    for norm_first in (False, True):
        decoder, shapes = shapes_of(norm_first=norm_first)
        results.append((flatten(shapes), decoder.apply({"params": fill(shapes)}, method=decode)))
    (published, after), (ours, first) = results
    assert published == ours
    assert float(jnp.abs(after - first).max()) > 1e-3


@pytest.mark.parametrize("refined", [False, True])
def test_an_untrained_mask_says_the_prior(refined):
    """Masks of zero weights are the bias alone: what the prior moves from the published one."""
    biases = []
    for prior in (0.5, 0.12):
        decoder, _ = shapes_of(mask_prior=prior, refined=refined)
        head = decoder.init(jax.random.key(1), method=decode)["params"]["head"]
        biases.append(float(head["expand_1" if refined else "expand"]["bias"][0]))
    np.testing.assert_allclose(biases[1] - biases[0], np.log(0.12 / 0.88), rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"norm_first": True, "dropout": 0.1}, "dropout: found 0.1"), ({"mask_prior": 1.0}, "mask_prior: found 1.0")],
)
def test_options_that_do_not_fit_are_named(fields, message):
    clip = {"embed_dim": 8, "image_size": 8, "patch_size": 4, "vision_width": 8, "vision_layers": 1, "text_width": 8}
    clip |= {"vision_heads": 1, "text_layers": 1, "text_heads": 1, "context_length": 8, "vocab_size": 9}
    model = ClipSeg(clip=clip, extract_layers=(0,), reduce_dim=8, num_heads=2, mlp_dim=8, **fields)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 8), jnp.int32)))
