"""`scenes`, the built-in data set: drawn pictures with every kind of annotation, generated where they are needed.

    builder = scenes.prepare("scenes/96")
    examples = builder.as_data_source("train")
    example = scenes.to_example(examples[0])

`python -m input_pipeline.datasets.scenes --out=scenes.png` shows what it looks like.
"""

from input_pipeline.datasets.scenes.storage import to_example
from input_pipeline.datasets.scenes.vocabulary import vocabulary

__all__ = ["prepare", "to_example", "vocabulary"]


def __getattr__(name: str):
    if name in ("prepare", "IMAGE_SIZES"):  # these import TensorFlow; drawing does not
        from input_pipeline.datasets.scenes import builder

        return getattr(builder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
