"""A linear system that trains in milliseconds, with faults on demand; in a process of its own:

    python -m tests.faults.toy WORKDIR '{"train": {"steps": 5}, "toy": {"ballast": 1000}, "strict_resume": true}'

The process says on stdout what it is doing, one line each, so that a test can strike at that moment: `compiling`,
`step N` (its batch is handed out), `saving N`, `evaluating`.
"""

import contextlib
import dataclasses
import itertools
import json
import resource
import signal
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import runtime, train
from jaxseg.progress import Meter
from jaxseg.task import Mean
from tests import toy_evaluation

LOSSES = "losses.jsonl"


@dataclasses.dataclass(frozen=True)
class Toy:
    """Faults and delays.

    Attributes:
        ballast: number of further parameters, so that saving takes time.
        compile_seconds, step_seconds, evaluation_seconds: how long each takes at least (an evaluation: each of its batches).
        nan_steps: batches that hold NaN.
        file_limit: bytes that a file may have from the second save on; 0: no limit.
    """

    ballast: int = 16
    compile_seconds: float = 0.0
    step_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    nan_steps: tuple[int, ...] = ()
    file_limit: int = 0


def config_for(seed=0, mesh=None, **train_fields):
    """The config of a toy run: eight examples per step, a checkpoint every second step."""
    config = toy_evaluation.config_for(("miou",)).copy_and_resolve_references().unlock()
    config.mesh.update(mesh or {})
    config.system, config.seed = "clipseg", seed  # a name that exists; the toy's task is handed over beside it
    config.train.update({"steps": 6, "checkpoint_every": 2, "log_every": 1, "pictures": 0, "ema_decay": 0.5} | train_fields)
    return config.lock()


def make_task(toy):
    """`toy_evaluation.segmenter` with a loss: cross-entropy of pixels, and a pull of the ballast towards noise."""

    def init(rng):
        ballast = jax.random.normal(rng, (toy.ballast // 8, 8))
        params = {"directions": jnp.eye(3), "scale": jnp.ones(()), "ballast": {"kernel": ballast}}
        return params, {"batches": jnp.zeros((), jnp.int32)}

    def loss(params, state, batch, rng, step, *, kind):
        del step, kind
        say("compiling")
        time.sleep(toy.compile_seconds)
        logits = jnp.einsum("bhwc,pc->bhwp", batch["image"] * params["scale"], params["directions"], precision="highest")
        valid = batch["labels"] >= 0
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(batch["labels"], 0)[..., None], -1)[..., 0]
        noise = jax.random.normal(rng, params["ballast"]["kernel"].shape)
        pull = jnp.square(params["ballast"]["kernel"] - 0.1 * noise)
        terms = {
            "pixels": Mean(-jnp.sum(chosen, where=valid), jnp.sum(valid, dtype=jnp.float32), 1.0),
            "ballast": Mean(jnp.sum(pull), jnp.float32(pull.size), 0.1),
        }
        return terms, {"batches": state["batches"] + 1}

    def example_batch(batch_size, kind):
        del kind
        shape = (batch_size, toy_evaluation.SIZE, toy_evaluation.SIZE)
        fields = {"image": ((*shape, 3), np.float32), "labels": (shape, np.int32), "ids": ((batch_size,), np.int32)}
        return {name: jax.ShapeDtypeStruct(*spec) for name, spec in fields.items()}

    return dataclasses.replace(toy_evaluation.segmenter(), name="toy", init=init, loss=loss, example_batch=example_batch)


def batch_of(config, step, nan_steps=()):
    """The global batch of a step; `ids` stand for its examples."""
    rng, size = np.random.default_rng((config.seed, step)), config.train.batch_size
    shape = (size, toy_evaluation.SIZE, toy_evaluation.SIZE)
    image = rng.random((*shape, 3)).astype(np.float32)
    labels = np.where(rng.random(shape) < 0.8, np.argmax(image, -1), -1).astype(np.int32)
    if step in nan_steps:
        image[0, 0, 0, 0], labels[0, 0, 0] = np.nan, 1
    return {"image": image, "labels": labels, "ids": rng.integers(0, 10_000, size).astype(np.int32)}


class Data:
    """A data module over `batch_of`; each process gets its part."""

    splits = ("val",)

    def __init__(self, config, toy):
        self._config, self._toy = config, toy

    def train(self, start_step=0):
        share = self._config.train.batch_size // jax.process_count()
        mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        for step in itertools.count(start_step + 1):
            say(f"step {step}")
            time.sleep(self._toy.step_seconds)
            batch = batch_of(self._config, step, self._toy.nan_steps)
            yield "train", {name: x[mine] for name, x in batch.items()}

    def eval(self, split):
        assert split == "val"
        return _Split(self._toy, process_index=jax.process_index(), process_count=jax.process_count())

    def report(self):
        return {"bad_examples": 0, "paths": []}


class _Split(toy_evaluation.Split):
    def __init__(self, toy, **processes):
        super().__init__(**processes)
        self._toy = toy

    def batches(self):
        for batch in super().batches():
            say("evaluating")
            time.sleep(self._toy.evaluation_seconds)
            yield batch


def say(line):
    print(line, flush=True)


def run(workdir, config=None, toy=None, **options):
    """`train.run` of the toy; `<workdir>/losses.jsonl` gets [step, loss in hexadecimal, ids of the batch] of every step."""
    config, toy = config or config_for(), toy or Toy()
    with _recording(Path(workdir), config, toy):
        return train.run(config, str(workdir), lambda config: Data(config, toy), task=make_task(toy), **options)


@contextlib.contextmanager
def _recording(workdir, config, toy):
    """Notes exact losses, and says when a save starts."""
    saves, original = [], train.save

    class RecordingMeter(Meter):
        def add(self, step, metrics):
            super().add(step, metrics)
            if jax.process_index() == 0:
                record = [step, float(metrics["loss"]).hex(), batch_of(config, step)["ids"].tolist()]
                with (workdir / LOSSES).open("a") as file:
                    file.write(json.dumps(record) + "\n")

    def save(checkpoints, step, *args):
        if toy.file_limit and saves:
            checkpoints.wait()
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (toy.file_limit, toy.file_limit))
        saves.append(step)
        say(f"saving {step}")
        original(checkpoints, step, *args)

    with mock.patch.object(train, "save", save), mock.patch.object(train, "Meter", RecordingMeter):
        yield


def losses(workdir):
    """{step: (loss, ids)}; a step that was run twice must have given the same twice."""
    found = {}
    for line in (Path(workdir) / LOSSES).read_text().splitlines():
        step, loss, ids = json.loads(line)
        assert found.setdefault(step, (loss, ids)) == (loss, ids), f"step {step} gave another loss or batch the second time"
    return found


def main(workdir, options):
    options = json.loads(options)
    config = config_for(mesh=options.pop("mesh", None), **options.pop("train", {}))
    toy = Toy(**{name: tuple(v) if isinstance(v, list) else v for name, v in options.pop("toy", {}).items()})
    try:
        runtime.start(config)
        run(workdir, config, toy, **options)
    except (ValueError, OSError) as error:  # as main.py does
        print(f"main.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    sys.modules["tensorflow"] = None  # takes seconds to import and is not wanted here
    main(*sys.argv[1:])
