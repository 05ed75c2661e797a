"""Segmentation from Python: `seg = jaxseg.load(name, weights)`, then `seg(image, ["a cat", "a remote control"])`."""

import difflib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxseg import preprocess, systems
from jaxseg.config import complete, from_json, load_config, validate
from jaxseg.photographs import Photograph, example_of, is_many
from jaxseg.result import Result

_MAX_MASK_PIXELS = 1 << 25  # of all prompts that are brought to the original size together: about 300 MB
_MAX_CONTEXTS = 256  # chunks of prompts whose embeddings are kept
_CAPABILITIES = ("encode", "decode", "at_original_size")


def load(name="", weights="", **options):
    """A `Segmenter` with the weights of a released or trained model.

    Args:
        name: a config by its name, `"clipseg_rd64_refined"`, or path, `"configs/mine.py:tiny"`; by default the one that is
            stored with the weights.
        weights: a folder: converted weights, a workdir, or a checkpoint.
        options: fields of `config.predict` to change, such as `threshold=0.3` or `compute="bfloat16"`.

    Raises:
        ValueError: one line: no such config or weights, weights of another model, or an unknown option.
    """
    from jaxseg.checkpoint import weights_meta

    if not weights:
        raise ValueError("weights: found none, expected a folder that holds some (main.py --mode=convert makes one)")
    if name:
        return load_segmenter(load_config(name), weights, **options)
    config = weights_meta(weights).get("config")
    if not config:
        raise ValueError(f"{weights}: no config is stored with these weights; name one, such as 'clipseg_rd64'")
    return load_segmenter(complete(from_json(config)), weights, **options)


def load_segmenter(config, weights, **options):
    """The `Segmenter` of a config, with weights from a folder; options and errors as of `load`."""
    from jaxseg.checkpoint import load_weights

    config = predict_config(config, **options)
    task = systems.make_task(config)
    _check_capabilities(task)
    params, state, _ = load_weights(weights, jax.eval_shape(task.init, jax.random.key(0)))
    return Segmenter(task, params, state, config)


def predict_config(config, **options):
    """The config for prediction: with `options` in `config.predict`, and computing in its precision.

    Raises:
        ValueError: an unknown option, with the nearest known one, or a value out of range.
    """
    config = ConfigDict(config.to_dict())
    for field, value in options.items():
        if field not in config.predict:
            near = difflib.get_close_matches(field, config.predict, 1, 0.0)[0]
            raise ValueError(f"option {field!r} is unknown; did you mean {near!r}?")
        config.predict[field] = value
    validate(config)
    config.precision.compute = config.predict.compute
    return config.lock()


class Encoded(NamedTuple):
    """A batch of images on the device: what a system keeps of them for any number of prompts.

    Attributes:
        features: of the system; rows beyond the photographs are padding.
        photographs: B of them.
        num_rows: of the features.
    """

    features: Any
    photographs: tuple[Photograph, ...]
    num_rows: int


class Segmenter:
    """A model that segments images by names.

        result = seg("photo.jpg", ["a cat", "a remote control"])     one image
        results = seg(["1.jpg", "2.jpg"], ["a cat"])                 several

        seg.set_image("photo.jpg")                                   an image that is encoded once,
        seg.segment(["a cat"]); seg.segment(["a dog", "a sofa"])     for several lists of names

    Images are paths, `PIL.Image`s, or arrays [H, W], [H, W, 3] or [H, W, 4] of uint8, uint16, bool or floats in [0, 1].
    Few programs are compiled: numbers of names are padded to powers of two, sizes of masks to multiples of
    `config.predict.canvas`. Embeddings of names are kept.

    Attributes:
        threshold: probability above which a pixel belongs to a mask.
        config, task, params, state: what it was made of.
    """

    def __init__(self, task, params, state, config):
        _check_capabilities(task)
        self.config, self.task = config, task
        self.threshold = config.predict.threshold
        self.params, self.state = jax.device_put((params, state))
        self._pipeline = preprocess.parse(config.predict.preprocess)
        self._encode, self._decode = (jax.jit(task.capabilities[name]) for name in ("encode", "decode"))
        self._at_original_size = jax.jit(_only(task.capabilities["at_original_size"]), static_argnames=("canvas", "names"))
        self._contexts = OrderedDict()
        self._image = None

    @property
    def threshold(self):
        return self._threshold

    @threshold.setter
    def threshold(self, value):
        self._threshold = float(_thresholds(value, 1)[0])

    def __call__(self, image, names, threshold=None):
        """Segments an image, or each of a list of images, by names.

        Args:
            image: one image, or a list of them.
            names: one or more; a name that occurs twice gives two equal masks.
            threshold: instead of the segmenter's: one number, or one per name.

        Returns:
            A `Result` with a row per name, of score 0 where nothing was found; of several images a list.

        Raises:
            ValueError: one line: an image that cannot be read, no names, an empty name, or one that is too long.
        """
        names = _names(names)
        if not is_many(image):
            return self.segment_encoded(self.encode([self.read(image)]), names, threshold)[0]
        results, step = [], self.config.predict.batch_size
        for start in range(0, len(image), step):
            batch = [self.read(one) for one in image[start : start + step]]
            results += self.segment_encoded(self.encode(batch, step), names, threshold)
        return results

    def set_image(self, image):
        """Encodes the image that `segment`, `probabilities` and `label_map` are about; returns the segmenter."""
        self._image = self.encode([self.read(image)])
        return self

    def segment(self, names, threshold=None):
        """The `Result` for the image that was set; arguments and errors as of a call."""
        return self.segment_encoded(self._current(), names, threshold)[0]

    def probabilities(self, names):
        """float32 [N, H, W]: how likely each pixel of the image that was set belongs to each name."""
        return np.concatenate(list(self._probabilities(_names(names))))

    def label_map(self, names, background=None):
        """int32 [H, W]: for each pixel of the image that was set the likeliest name's index; -1 where none is likely.

        Args:
            background: probability below which a pixel belongs to no name; by default the threshold.
        """
        size = self._current().photographs[0].size
        best = np.full(size, _thresholds(self._threshold if background is None else background, 1)[0], np.float32)
        labels = np.full(size, -1, np.int32)
        for i, values in enumerate(values for chunk in self._probabilities(_names(names)) for values in chunk):
            labels[values > best] = i
            np.maximum(best, values, out=best)
        return labels

    def read(self, image):
        """The `Photograph` of an image. Needs no device: it may run in a thread of its own.

        Raises:
            ValueError: one line that names the file, or what was wrong with the array.
        """
        example = self._pipeline.transform(example_of(image))
        return Photograph(example["original_image"], self._pipeline.keep(example), example.get("path", ""))

    def prepare(self, names):
        """Encodes names ahead of the first image, so that what is wrong with them is known early."""
        for _, padded in self._split(_names(names), self.config.predict.prompts_per_chunk):
            self._context(padded)

    def encode(self, photographs: Sequence[Photograph], num_rows=0):
        """Encodes photographs as one batch, filled up to `num_rows` so that a last, smaller batch compiles nothing."""
        num_rows = max(num_rows, len(photographs))
        rows = [*photographs, *[photographs[-1]] * (num_rows - len(photographs))]
        batch = {name: np.stack([row.inputs[name] for row in rows]) for name in rows[0].inputs}
        return Encoded(self._encode(self.params, self.state, batch), tuple(photographs), num_rows)

    def segment_encoded(self, encoded: Encoded, names, threshold=None):
        """A `Result` for each photograph of a batch."""
        names = _names(names)
        metas = [{"path": p.path, "original_size": p.size, "image": p.pixels} for p in encoded.photographs]
        threshold, parts = self._threshold if threshold is None else threshold, []
        for chunk, outputs in self._chunks(encoded, names, threshold, self.task.reads):
            # On the host, where slices of any size compile nothing.
            outputs = {name: np.asarray(value) for name, value in outputs.items()}
            parts.append(self.task.finalize(outputs, metas, chunk))
        return [Result.join(of_one_image) for of_one_image in zip(*parts, strict=True)]

    def _current(self):
        if self._image is None:
            raise ValueError("segment: no image is set; call set_image(image) first, or seg(image, names)")
        return self._image

    def _probabilities(self, names):
        """float32 [n, H, W] of a chunk of names at a time."""
        image = self._current()
        height, width = image.photographs[0].size
        for chunk, outputs in self._chunks(image, names, 0.5, ("probabilities",)):
            yield np.asarray(outputs["probabilities"])[0, : len(chunk), :height, :width]

    def _chunks(self, encoded, names, threshold, wanted):
        """Yields (names, the wanted outputs of `at_original_size`) of as many names at a time as fit."""
        sizes = np.array([p.size for p in encoded.photographs], np.int32)
        sizes = np.concatenate([sizes, np.repeat(sizes[-1:], encoded.num_rows - len(sizes), 0)])
        step = self.config.predict.canvas
        canvas = tuple(int(-(-side // step) * step) for side in sizes.max(0))
        length = _chunk_length(self.config.predict.prompts_per_chunk, encoded.num_rows * canvas[0] * canvas[1])
        thresholds = _thresholds(threshold, len(names))
        for chunk, padded in self._split(names, length):
            limits, thresholds = np.resize(thresholds[: len(chunk)], len(padded)), thresholds[len(chunk) :]
            outputs = self._decode(self.params, self.state, encoded.features, self._context(padded))
            limits = limits[None, :, None, None]
            yield chunk, self._at_original_size(outputs, sizes, limits, canvas=canvas, names=tuple(wanted))

    def _split(self, names, length):
        """Yields (chunk, chunk filled up to one of few lengths); names that compete stay together, as they are."""
        if self.task.names_compete:
            yield names, names
            return
        for start in range(0, len(names), length):
            chunk = names[start : start + length]
            yield chunk, _padded(chunk, length)

    def _context(self, padded):
        """The embeddings of a chunk of names, kept for the next image."""
        if padded not in self._contexts:
            self._contexts[padded] = self.task.prepare(self.params, padded)
        self._contexts.move_to_end(padded)
        if len(self._contexts) > _MAX_CONTEXTS:
            self._contexts.popitem(last=False)
        return self._contexts[padded]


def _only(at_original_size):
    """`at_original_size` with some of its outputs; the compiler leaves out the rest."""

    def wanted(outputs, original_size, threshold, *, canvas, names):
        found = at_original_size(outputs, original_size, threshold, canvas=canvas)
        return {name: found[name] for name in names}

    return wanted


def _check_capabilities(task):
    missing = [name for name in _CAPABILITIES if name not in task.capabilities]
    if missing:
        raise ValueError(f"system {task.name!r} does not segment images by names: it cannot {', '.join(missing)}")


def _chunk_length(prompts_per_chunk, canvas_pixels):
    """Names that are decoded together: fewer for large photographs, so that their masks fit into memory."""
    room = max(1, _MAX_MASK_PIXELS // canvas_pixels)
    return min(prompts_per_chunk, 1 << (room.bit_length() - 1))


def _padded(chunk, length):
    """A chunk of at most `length` names, the last one repeated up to a power of two or `length`: few sizes are compiled."""
    return chunk + chunk[-1:] * (min(length, 1 << (len(chunk) - 1).bit_length()) - len(chunk))


def _thresholds(threshold, num_names):
    """float32 [num_names]."""
    values = np.asarray(threshold)
    good = values.dtype.kind in "fiu" and values.shape in ((), (num_names,)) and bool(((values >= 0) & (values <= 1)).all())
    if not good:
        raise ValueError(f"threshold: found {threshold!r}, expected a number in [0, 1], or {num_names}: one per name")
    return np.broadcast_to(values.astype(np.float32), (num_names,))


def _names(names):
    names = (names,) if isinstance(names, str) else tuple(names)
    if not names:
        raise ValueError("names: found none, expected at least one, such as ['a cat']")
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"names[{i}]: found {name!r}, expected words")
    return names
