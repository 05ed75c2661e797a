"""Reads examples in parallel and in order: `tf.data` over positions of a plan, numpy and PIL inside its map."""

import atexit
import json
import os
import weakref

import cv2
import numpy as np
import tensorflow as tf

from input_pipeline import batching

cv2.setNumThreads(0)  # examples are the unit of parallelism
tf.config.set_visible_devices([], "GPU")  # accelerators are JAX's
_FOREVER = 2**62
_open_iterators = weakref.WeakSet()


def num_workers(asked=0):
    """Threads that read examples: as asked, or one per core that this process may use."""
    return asked or len(os.sched_getaffinity(0))


def training_batches(read, start, batch_size, *, workers, prefetch):
    """Endless batches of `read(n)` for n = start, start + 1, ...

    Args:
        read: position -> {field: array}, or raises.
        batch_size: examples per batch.
        workers: threads; 0 = one per core.
        prefetch: batches made ahead.

    Yields:
        {field: [B, ...] array}.

    Raises:
        Exception: what `read` raised, at the batch that it was for.
    """
    like, failure = read(start), []

    def arrays(position):
        try:
            fields = read(int(position))
            for name, array in like.items():
                if fields[name].shape != array.shape:
                    raise ValueError(batching.shape_problem(name, array.shape, fields[name].shape))
            return [fields[name] for name in like]
        except Exception as error:
            failure.append(error)
            raise

    dataset = tf.data.Dataset.range(start, _FOREVER)
    dataset = _mapped(dataset, arrays, [array.dtype for array in like.values()], workers)
    dataset = dataset.batch(batch_size, drop_remainder=True).prefetch(max(prefetch, 1))
    for values in _guarded(dataset, failure):
        yield dict(zip(like, values, strict=True))


def examples_in_order(read, positions, *, workers, ahead):
    """`read(p)` for every position, each of its own shape.

    Args:
        read: position -> ({field: array}, meta of plain data and one image), or None.
        positions: in the order that is wanted; -1 gives None.
        ahead: examples read ahead.
    """
    failure = []

    def arrays(position):
        try:
            found = read(int(position)) if position >= 0 else None
            if found is None:
                return [np.zeros((0, 0, 3), np.uint8), b"", b""]
            fields, meta = found
            plain = {k: v for k, v in meta.items() if k != "image"}
            heads = {name: (array.dtype.str, array.shape) for name, array in fields.items()}
            content = b"".join(np.ascontiguousarray(array).tobytes() for array in fields.values())
            return [meta["image"], json.dumps([heads, plain], default=_plain).encode(), content]
        except Exception as error:
            failure.append(error)
            raise

    dataset = tf.data.Dataset.from_tensor_slices(np.asarray(positions, np.int64))
    dataset = _mapped(dataset, arrays, [np.uint8, np.object_, np.object_], workers).prefetch(max(ahead, 1))
    for image, head, content in _guarded(dataset, failure):
        yield _unpacked(image, head, content) if head else None


def _unpacked(image, head, content):
    heads, meta = json.loads(head)
    fields, start = {}, 0
    for name, (dtype, shape) in heads.items():
        count = int(np.prod(shape, dtype=np.int64))
        fields[name] = np.frombuffer(content, dtype, count, start).reshape(shape)
        start += count * np.dtype(dtype).itemsize
    meta["original_size"] = tuple(meta["original_size"])
    return fields, {**meta, "image": image}


def _plain(value):
    """numpy scalars and arrays as JSON takes them."""
    return value.tolist()


def _mapped(dataset, function, dtypes, workers):
    types = [tf.string if d is np.object_ else tf.as_dtype(d) for d in dtypes]
    workers = num_workers(workers)
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = workers + 1
    options.autotune.enabled = False

    def call(position):
        return tf.numpy_function(function, [position], types)

    return dataset.map(call, num_parallel_calls=workers, deterministic=True).with_options(options)


def _guarded(dataset, failure):
    """The dataset as numpy; what a map function raised comes out as itself, not wrapped in TensorFlow's report."""
    iterator = _values(dataset, failure)
    _open_iterators.add(iterator)
    return iterator


@atexit.register
def _close_iterators():
    """While the interpreter still runs: later, an iterator waits for Python functions that can no longer be called."""
    for iterator in list(_open_iterators):
        iterator.close()


def _values(dataset, failure):
    iterator = dataset.as_numpy_iterator()
    while True:
        try:
            values = next(iterator)
        except StopIteration:
            return
        except tf.errors.OpError:
            if failure:
                raise failure[0] from None
            raise
        yield values
