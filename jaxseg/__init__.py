"""Open-vocabulary, hierarchical image segmentation in JAX.

    import jaxseg
    seg = jaxseg.load("clipseg_rd64_refined", "weights/rd64_refined")
    result = seg("photo.jpg", ["a cat", "a remote control"])
    result.show()

Importing this package imports neither JAX nor anything else that is large.
"""

__version__ = "0.1.0"
_HOMES = {"load": "jaxseg.api", "Segmenter": "jaxseg.api", "Result": "jaxseg.result"}
__all__ = ["Result", "Segmenter", "load"]


def __getattr__(name):
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'jaxseg' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
