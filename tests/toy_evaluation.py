"""A linear system and data in memory, for tests of evaluation: the class of a pixel is its brightest channel."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from jaxseg.ops.resize import resize_to_canvas
from jaxseg.task import Task
from jaxseg.text.vocabulary import Vocabulary

NAMES = ("red", "green", "blue")
VOCABULARY = Vocabulary(NAMES, (True, True, False), {"seen": (0, 2), "unseen": (1,)})
SIZE, CANVAS = 4, 8


def segmenter():
    """Logits are a projection of the channels onto a vector per name; nothing but arithmetic."""

    def prepare(params, names, is_thing=None):
        return {"directions": params["directions"][np.array([NAMES.index(name) for name in names])]}

    def encode(params, state, batch):
        return batch["image"] * params["scale"]

    def decode(params, state, features, ctx):
        return {"logits": jnp.einsum("bhwc,pc->bphw", features, ctx["directions"], precision="highest")}

    def at_original_size(outputs, original_size, threshold, *, canvas):
        return {"probabilities": resize_to_canvas(jax.nn.sigmoid(outputs["logits"]), original_size, canvas)}

    return Task(
        name="toy",
        init=lambda rng: ({"directions": jnp.zeros((3, 3)), "scale": jnp.ones(())}, {}),
        loss=None,
        example_batch=None,
        prepare=prepare,
        predict=lambda params, state, ctx, batch: decode(params, state, encode(params, state, batch), ctx),
        capabilities={"encode": encode, "decode": decode, "at_original_size": at_original_size},
    )


def params():
    return {"directions": np.eye(3, dtype=np.float32) * 4 - 2, "scale": np.float32(1)}


def pair_scorer():
    """A system without masks: embeddings of images and texts are their own sums."""

    def predict(params, state, ctx, batch):
        image = jnp.mean(batch["image"], (1, 2)) * params["scale"]
        return {
            "image_embeddings": image / jnp.linalg.norm(image, axis=-1, keepdims=True),
            "text_embeddings": jax.nn.one_hot(batch["token_ids"][:, 0], 3),
            "huge": jnp.zeros((len(image), 100)),
        }

    return Task(name="pairs", init=None, loss=None, example_batch=None, predict=predict)


class Split:
    """One split of a data module, from numpy: `num_examples` images of SIZE pixels, noisy but mostly right."""

    def __init__(self, num_examples=5, batch_size=2, vocabulary=VOCABULARY, process_index=0, process_count=1, seed=0):
        rng = np.random.default_rng(seed)
        self.vocabulary, self.num_examples = vocabulary, num_examples
        self._batch_size, self._process = batch_size, (process_index, process_count)
        self.images = rng.random((num_examples, SIZE, SIZE, 3)).astype(np.float32)
        shape = self.images.shape[:3]
        self.labels = np.where(rng.random(shape) < 0.4, rng.integers(-1, 3, shape), np.argmax(self.images, -1))
        self.labels[:1, :2] = -1
        self.labels[1::2][self.labels[1::2] == 2] = -1  # one name is absent from every other image
        self.drop = ()

    def batches(self):
        index, count = self._process
        for start in range(0, self.num_examples, self._batch_size):
            share = self._batch_size // count
            ids = [start + index * share + i for i in range(share)]
            real = np.array([i < self.num_examples for i in ids])
            rows = [min(i, self.num_examples - 1) for i in ids]
            label_map = np.full((share, CANVAS, CANVAS), -1, np.int32)
            label_map[:, :SIZE, :SIZE] = self.labels[rows]
            label_map[~real, :SIZE, :SIZE] = 0  # must not count
            batch = {
                "image": self.images[rows],
                "label_map": label_map,
                "token_ids": np.array(rows, np.int32)[:, None] % 3,
                "original_size": np.full((share, 2), SIZE, np.int32),
                "example_mask": real,
            }
            metas = [self._meta(i) for i in rows]
            yield {name: value for name, value in batch.items() if name not in self.drop}, metas

    def _meta(self, i):
        pixels = np.uint8(self.images[i] * 255)
        return {"id": f"folder/{i}.png", "path": f"{i}.png", "original_size": (SIZE, SIZE), "image": pixels}


class Data:
    """Splits by name."""

    def __init__(self, **splits):
        self._splits, self.splits = splits, tuple(splits)

    def eval(self, split):
        return self._splits[split]


def config_for(evaluators=("prompt_iou(0.5)", "miou"), splits=("val",), **predict):
    config = common.default()
    config.system = "toy"
    config.predict.update(canvas=CANVAS, **predict)
    config.train.pictures = 2
    for split in splits:
        config.data.eval[split] = {"evaluators": evaluators}
    return config.lock()
