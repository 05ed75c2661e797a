"""`--mode=eval`, and the evaluation inside training: every split of a config under its evaluators."""

import collections
import logging
import pickle
import time

import jax
import numpy as np

from jaxseg import sharding, systems
from jaxseg import workdir as workdirs
from jaxseg.checkpoint import load_weights
from jaxseg.evaluation.pictures import Gallery
from jaxseg.evaluation.step import check_fields, device_batch, encode_names, local_rows, make_step
from jaxseg.evaluation.table import report
from jaxseg.metrics.evaluator import Collected, Counts, add, make_evaluator, naming
from jaxseg.progress import duration
from jaxseg.writer import write_json

__all__ = ["Evaluation", "report", "run"]
_MAX_PROGRAMS = 8  # compiled steps that are kept per split: one for each canvas
_IN_FLIGHT = 2  # batches whose results may still be on the devices
_SAY_EVERY = 5.0  # seconds


def run(config, workdir, data, weights="", task=None):
    """Evaluates one set of weights on every split; writes results.json and pictures, prints a table.

    Args:
        data: a DataModule (input_pipeline/module.py).
        weights: a folder of `load_weights`; by default `config.weights`, then the newest checkpoint of `workdir`.
        task: instead of the one that the config names.

    Returns:
        `{"<split>/<metric>": value}`, with the `untrained/...` that training has left in results.json.

    Raises:
        ValueError: one line: nothing to evaluate on, an unknown evaluator, no weights, weights of another model, or a
            workdir that is in use or cannot be written.
    """
    if not data.splits:
        raise ValueError("config.data.eval: found no split, expected at least one, such as val")
    task, mesh = task or systems.make_task(config), sharding.make_mesh(config.mesh)
    with workdirs.claim(workdir):
        evaluation = Evaluation(task, config, data, mesh)
        params, state, _ = load_weights(weights or config.weights or workdir, _template(task, config, mesh))
        results = evaluation.run(params, state, workdir=workdir, step=0)
        results = dict(sorted((workdirs.read_results(workdir, prefix="untrained/") | results).items()))
        write_json(f"{workdir}/results.json", results)
    if jax.process_index() == 0:
        print(report(results), flush=True)
    return results


def _template(task, config, mesh):
    """(params, state) as shapes with shardings."""
    shapes = jax.eval_shape(task.init, jax.random.key(config.seed))
    layout = sharding.shardings(shapes, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, layout)


class Evaluation:
    """Evaluates parameters as often as asked; compiled steps are kept.

    One compiled program per vocabulary and canvas: images are encoded once, all names decoded, brought to the original size,
    and counted by every `Counts` evaluator; only sums, and what `Collected` evaluators read, reach the host.

    Args:
        task: a `jaxseg.task.Task` with `predict`.
        config: `data.eval.<split>.evaluators`, `predict` (threshold, prompts_per_chunk), `train.pictures`.
        data: a DataModule, or anything with `splits` and `eval(split)`.
        mesh: of `sharding.make_mesh`; a batch is padded to a multiple of its batch shards.

    Raises:
        ValueError: an unknown evaluator, or one that its split's vocabulary does not suit.
    """

    def __init__(self, task, config, data, mesh):
        if data.splits and task.predict is None:
            raise ValueError(f"system {task.name!r} cannot be evaluated: it does not predict")
        self._task, self._config, self._mesh = task, config, mesh
        self._data = {split: data.eval(split) for split in data.splits}
        self._evaluators = {split: self._make_evaluators(split) for split in data.splits}
        # Splits with the same evaluators and vocabulary share their compiled steps; the first stands for all.
        self._twin = {split: next(s for s in data.splits if self._is_alike(s, split)) for split in data.splits}
        self._programs = collections.OrderedDict()

    def run(self, params, state, *, workdir=None, step=0, writer=None):
        """`{"<split>/<metric>": float}` by name; the same for the same weights, however often it is called.

        Args:
            workdir: its `pictures/<split>/` get drawings of the first `config.train.pictures` examples; None: no pictures.
            step: of the writer.
            writer: gets the results as scalars, and the pictures.
        """
        results = {}
        with sharding.using(self._mesh):
            for split in self._data:
                gallery = Gallery(split, self._data[split].vocabulary, workdir, self._config.train.pictures)
                metrics = self._run_split(split, params, state, gallery)
                results |= {f"{split}/{name}": value for name, value in metrics.items()}
                gallery.write(step, writer)
        results = dict(sorted(results.items()))
        if writer is not None:
            writer.write_scalars(step, results)
        return results

    def _is_alike(self, one, other):
        texts = [tuple(self._evaluators[split]) for split in (one, other)]
        return texts[0] == texts[1] and self._data[one].vocabulary == self._data[other].vocabulary

    def _make_evaluators(self, split):
        texts = tuple(self._config.data.eval[split].evaluators)
        if not texts:
            raise ValueError(f"config.data.eval.{split}.evaluators: found none, expected names such as 'miou'")
        try:
            return {text: make_evaluator(text, self._data[split].vocabulary) for text in texts}
        except ValueError as error:
            raise ValueError(f"config.data.eval.{split}.evaluators: {error}") from None

    def _run_split(self, split, params, state, gallery):
        evaluators, data = self._evaluators[split], self._data[split]
        contexts = encode_names(self._task, params, data.vocabulary, self._config.predict.prompts_per_chunk)
        folds = {text: {} if isinstance(e, Counts) else [] for text, e in evaluators.items()}
        progress, pending = _Progress(split, data.num_examples), collections.deque()

        def take():
            (sums, outputs, prediction), batch, metas = pending.popleft()
            for text, counts in jax.device_get(sums).items():
                folds[text] = add(folds[text], counts)
            outputs = local_rows(outputs, len(metas), self._mesh)
            for text, evaluator in evaluators.items():
                if isinstance(evaluator, Collected):
                    with naming(text, split):
                        folds[text] += evaluator.collect(outputs, batch, metas)
            if gallery.is_open and prediction:
                gallery.add(local_rows(prediction, len(metas), self._mesh)["label_map"], batch, metas)
            progress.add(int(np.sum(batch["example_mask"])))

        for batch, metas in data.batches():
            batch = {"example_mask": np.ones(len(metas), bool), **batch}
            pending.append((self._dispatch(split, params, state, contexts, batch), batch, metas))
            if len(pending) >= _IN_FLIGHT:
                take()
        while pending:
            take()
        progress.finish()
        return self._compute(split, folds)

    def _dispatch(self, split, params, state, contexts, batch):
        """Starts the step of one batch."""
        check_fields(self._evaluators[split], split, batch)
        canvas = None
        if "at_original_size" in self._task.capabilities:
            if "label_map" not in batch:
                raise ValueError(f"{split}: the batch has no label_map; config.data.eval.{split}.preprocess must keep it")
            canvas = tuple(batch["label_map"].shape[1:3])
        arrays = device_batch(batch, self._mesh)
        shapes = tuple((name, x.shape) for name, x in sorted(arrays.items()))
        key = (self._twin[split], canvas, shapes, contexts.num_chunks, contexts.num_names)
        if key not in self._programs:
            size = f" at {canvas[0]} x {canvas[1]}" if canvas else ""
            logging.info("%s: compiling%s", split, size)
            layout = (contexts.num_chunks, contexts.num_names, canvas)
            self._programs[key] = make_step(self._task, self._evaluators[split], split, self._config, self._mesh, *layout)
            if len(self._programs) > _MAX_PROGRAMS * len(self._data):
                self._programs.popitem(last=False)
        self._programs.move_to_end(key)
        return self._programs[key](params, state, contexts.chunks, arrays)

    def _compute(self, split, folds):
        metrics = {}
        for text, evaluator in self._evaluators[split].items():
            with naming(text, split):
                fold = folds[text] if isinstance(evaluator, Counts) else gathered(folds[text])
                if not len(fold):
                    raise ValueError("there is no example")
                found = evaluator.compute(fold)
                if twice := sorted(set(found) & set(metrics)):
                    raise ValueError(f"{twice[0]} was given by another evaluator of this split already")
                metrics |= found
        return metrics


def gathered(records):
    """The records of all processes, in the order of processes."""
    if jax.process_count() == 1:
        return records
    from jax.experimental import multihost_utils

    # Between the processes of one run only: nothing here reads what others wrote.
    content = np.frombuffer(pickle.dumps(records), np.uint8)
    lengths = multihost_utils.process_allgather(np.array(len(content)))
    padded = np.zeros(int(np.max(lengths)), np.uint8)
    padded[: len(content)] = content
    parts = multihost_utils.process_allgather(padded)
    every = zip(np.reshape(parts, (len(lengths), -1)), np.reshape(lengths, -1), strict=True)
    return [record for part, length in every for record in pickle.loads(part[:length].tobytes())]


class _Progress:
    """Says how far an evaluation is, every few seconds."""

    def __init__(self, split, num_examples, clock=time.monotonic):
        self._split, self._total, self._clock = split, num_examples, clock
        self._done, self._started = 0, clock()
        self._said = self._started

    def add(self, num_examples):
        # All processes work alike.
        self._done = min(self._done + num_examples * jax.process_count(), self._total)
        if self._clock() - self._said >= _SAY_EVERY:
            self._said = self._clock()
            logging.info("%s", self._line())

    def finish(self):
        logging.info("%s", self._line())

    def _line(self):
        seconds = max(self._clock() - self._started, 1e-9)
        left = seconds / max(self._done, 1) * (self._total - self._done)
        ending = f"{duration(left)} left" if self._done < self._total else f"in {duration(seconds)}"
        return f"{self._split} {self._done}/{self._total}  {self._done / seconds:.1f} img/s  {ending}"
