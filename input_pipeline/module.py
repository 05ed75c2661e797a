"""Data for the programs of jaxseg: training batches under a plan, evaluation splits in order."""

import dataclasses
import logging
from collections.abc import Iterator

import numpy as np

from input_pipeline import batching
from input_pipeline.cache import ExampleCache
from input_pipeline.faults import Faults, TooManyBadExamples
from input_pipeline.plan import BatchPlan, Part, evaluation_batches, local_slots
from input_pipeline.sources import Source, open_source
from jaxseg.coco import encode_mask
from jaxseg.preprocess import Context, Pipeline, parse
from jaxseg.text.vocabulary import Vocabulary

_ATTEMPTS = 16  # examples tried for one place of a batch
_AUGMENTATION = 1  # keeps the streams of augmentation apart from those of the plan
_META = ("id", "path", "original_size", "segments", "objects", "parts", "caption", "expressions")


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Examples of one source through its ops; with a cache, what comes before the first random op is done once."""

    source: Source
    pipeline: Pipeline
    faults: Faults
    key: str
    cache: ExampleCache | None = None

    def read(self, index, rng=None):
        """(fields, whole example), or None after the failure was noted."""
        path = self.source.id(index)
        try:
            example = self.cache.get((self.key, index)) if self.cache else None
            if example is None:
                loaded = self.source.load(index)
                path = loaded.get("path", path)
                example = self._fixed(loaded, index)
            path = example.get("path", path)
            example = self.pipeline.transform(example, Context(rng, self.source.vocabulary), first=self.pipeline.num_fixed)
            fields = {k: np.asarray(v) for k, v in self.pipeline.keep(example).items()}
            if any(v.dtype == object for v in fields.values()):
                name = next(k for k, v in fields.items() if v.dtype == object)
                raise ValueError(f"preprocess: {name} is no array; name the batch's fields with keep(...)")
            return fields, example
        except Exception as error:  # whatever is in a file, the run goes on
            self.faults.add((self.key, index), path, error)
            return None

    def _fixed(self, loaded, index):
        """What is the same every time."""
        example = self.pipeline.transform(loaded, Context(None, self.source.vocabulary), last=self.pipeline.num_fixed)
        if self.cache:
            example = {k: v for k, v in example.items() if k != "original_image"}
            self.cache.put((self.key, index), example)
        return example


class DataModule:
    """The data that a config names.

    Attributes:
        splits: names of the evaluation splits.
        vocabulary: of the first training source, or of the first evaluation split.
        plan: the `BatchPlan` of training; None without training.
    """

    def __init__(self, config, process_index=0, process_count=1, training=True):
        self._config = config
        self._process = (process_index, process_count)
        self._sources, self._train, self.plan = {}, [], None
        sources = tuple(config.data.train.sources)
        if sources and training:
            self._open_training(sources)
        self._evaluations = {split: self._open_evaluation(split) for split in config.data.eval}

    @classmethod
    def from_config(cls, config, process_index=None, process_count=None, training=True):
        """Opens every source and parses every text of ops.

        Args:
            config: `seed`, `train.batch_size`, `data`, `predict.canvas`.
            process_index: of this process; by default JAX's.
            process_count: processes that share each batch; by default JAX's.
            training: False leaves the training sources alone, which who only evaluates need not have.

        Raises:
            ValueError: data that are not there, ops that cannot be parsed, or a batch that processes cannot share; each names
                the field.
        """
        if process_count is None:
            import jax

            process_index, process_count = jax.process_index(), jax.process_count()
        return cls(config, process_index, process_count, training)

    @property
    def splits(self):
        return tuple(self._evaluations)

    @property
    def vocabulary(self) -> Vocabulary:
        if self._train:
            return self._train[0].source.vocabulary
        return next(iter(self._evaluations.values())).vocabulary

    def train(self, start_step=0) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """(kind, this process's part of the global batch) for steps `start_step`, `start_step` + 1, ...; see BatchPlan.

        Raises:
            ValueError: no training source; a field that no op has made; more bad examples than config.data.max_bad_share.
        """
        if self.plan is None:
            raise ValueError("config.data.train.sources: found none, expected at least one source")
        return self._train_batches(start_step)

    def example_ids(self, step) -> list[str]:
        """Ids of the global batch of a step, `"<source>/<id>"` where there are several sources."""
        several = len(self._train) > 1
        entries = [(self._train[e.source].source, e.index) for e in self.plan.batch(step)]
        return [f"{source.name}/{source.id(index)}" if several else source.id(index) for source, index in entries]

    def eval(self, split) -> "EvaluationData":
        """The data of an evaluation split.

        Raises:
            ValueError: no such split.
        """
        if split not in self._evaluations:
            raise ValueError(f"evaluation split: found {split!r}, expected one of {', '.join(self.splits) or 'none'}")
        return self._evaluations[split]

    def report(self):
        """{"bad_examples": how many, "paths": [...]} of what could not be read so far."""
        faults = [self._train[0].faults] if self._train else []
        paths = [p for f in faults + [e.faults for e in self._evaluations.values()] for p in f.paths]
        return {"bad_examples": len(paths), "paths": paths}

    def _open(self, spec, where):
        """The source; one object for the same description, since opening may read a large list."""
        key = repr(sorted((k, v) for k, v in dict(spec).items() if k not in ("ratio", "batch_kind", "preprocess")))
        if key not in self._sources:
            self._sources[key] = open_source(spec, where)
        return self._sources[key]

    def _open_training(self, sources):
        data, parts, opened = self._config.data, [], []
        for i, spec in enumerate(sources):
            where = f"config.data.train.sources[{i}]"
            text = spec.get("preprocess", "") or data.train.preprocess
            opened.append((self._open(spec, where), _parsed(text, f"{where}.preprocess")))
            kind = spec.get("batch_kind", "train")
            parts.append(Part(opened[-1][0].name, len(opened[-1][0]), spec.get("ratio", 1.0), kind))
        self.plan = BatchPlan(parts, self._config.train.batch_size, self._config.seed)
        self._slots = local_slots(self._config.train.batch_size, *self._process, "config.train.batch_size")
        faults = Faults(sum(part.size for part in parts), data.max_bad_share, "the training data")
        cache = ExampleCache(int(data.train.cache_gb * 2**30))
        self._train = [_Reader(source, pipeline, faults, str(i), cache) for i, (source, pipeline) in enumerate(opened)]

    def _open_evaluation(self, split):
        spec, where = self._config.data.eval[split], f"config.data.eval.{split}"
        source = self._open(spec.source, f"{where}.source")
        pipeline = _parsed(spec.preprocess, f"{where}.preprocess")
        faults = Faults(len(source), self._config.data.max_bad_share, f"split {split!r}")
        reader = _Reader(source, pipeline, faults, split)
        slots = local_slots(spec.batch_size, *self._process, f"{where}.batch_size")
        return EvaluationData(reader, spec.batch_size, slots, self._config.predict.canvas, self._config.data.train.workers)

    def _train_batches(self, start_step):
        from input_pipeline import loader

        share, options = len(self._slots), self._config.data.train
        batches = {}
        step = start_step
        while True:
            kind = self.plan.kind(step)
            if kind not in batches:
                first = self.plan.steps_before(step)[kind] * share
                batches[kind] = loader.training_batches(
                    self._position_reader(kind), first, share, workers=options.workers, prefetch=options.prefetch
                )
            yield kind, next(batches[kind])
            step += 1

    def _position_reader(self, kind):
        """position among this process's examples of a kind -> fields."""

        def read(position):
            number, slot = divmod(position, len(self._slots))
            entry = self.plan.entry(kind, number * self.plan.batch_size + self._slots[slot])
            return self._read_or_replace(entry)

        return read

    def _read_or_replace(self, entry):
        reader = self._train[entry.source]
        for attempt in range(_ATTEMPTS):
            place = self.plan.replacement(entry, attempt)
            rng = np.random.default_rng((self._config.seed, _AUGMENTATION, entry.source, entry.number, attempt))
            found = reader.read(place.index, rng)
            if found is not None:
                return found[0]
        raise TooManyBadExamples(f"{reader.source.name}: {_ATTEMPTS} examples in a row cannot be read; see the log")


class EvaluationData:
    """One evaluation split, in order.

    Attributes:
        vocabulary, num_examples: of the split.
        batch_size: global.
        faults: its bad examples, which are masked, not replaced.
    """

    def __init__(self, reader, batch_size, slots, canvas, workers):
        self._reader, self._slots, self._canvas, self._workers = reader, slots, canvas, workers
        self.batch_size, self.faults = batch_size, reader.faults

    @property
    def vocabulary(self) -> Vocabulary:
        return self._reader.source.vocabulary

    @property
    def num_examples(self):
        return len(self._reader.source)

    def batches(self) -> Iterator[tuple[dict[str, np.ndarray], list[dict]]]:
        """(batch, metas) per batch; see `batching.evaluation_batch`.

        `original_size` [B, 2] and `example_mask` [B] come beside the kept fields; the last batch is padded, and what could not
        be read is masked too. Metas are dicts of id, path, original_size, image (uint8, the original pixels), segments and the
        words of the example.

        Raises:
            ValueError: more bad examples than config.data.max_bad_share.
        """
        from input_pipeline import loader

        plan = evaluation_batches(self.num_examples, self.batch_size)
        positions = [batch[slot] for batch in plan for slot in self._slots]
        ahead = 2 * len(self._slots)
        examples = loader.examples_in_order(self._read, positions, workers=self._workers, ahead=ahead)
        like = None
        for indices in plan:
            local = [next(examples) for _ in self._slots]
            like = like or next((e[0] for e in local if e is not None), None) or self._any_fields()
            yield batching.evaluation_batch(local, self._canvas_of(indices, local), like)

    def _read(self, index):
        found = self._reader.read(index)
        if found is None:
            return None
        fields, example = found
        meta = {name: example[name] for name in _META if name in example}
        if "objects" in meta:
            meta["objects"] = [_packed(item) for item in meta["objects"]]
        return fields, {"segments": [], **meta, "image": example["original_image"]}

    def _any_fields(self):
        """Fields of the first example that can be read, where a process holds none of its own."""
        for index in range(self.num_examples):
            found = self._reader.read(index)
            if found is not None:
                return found[0]
        raise TooManyBadExamples(f"{self._reader.source.name}: no example can be read; see the log")

    def _canvas_of(self, indices, local):
        """A size that all processes find alike: with several, from the heads of all images of the global batch."""
        if len(self._slots) == self.batch_size:
            return batching.canvas_size([e[1]["original_size"] for e in local if e is not None] or [(1, 1)], self._canvas)
        return batching.canvas_size([self._size(i) for i in indices if i >= 0], self._canvas)

    def _size(self, index):
        try:
            return self._reader.source.size(index)
        except Exception:
            logging.debug("size of %s", self._reader.source.id(index), exc_info=True)
            return (1, 1)


def _packed(item):
    """An object whose mask is run lengths: as numbers, those of a photograph take a second to hand over."""
    segmentation = item["segmentation"]
    return {**item, "segmentation": encode_mask(segmentation)} if isinstance(segmentation, np.ndarray) else item


def _parsed(text, where):
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
