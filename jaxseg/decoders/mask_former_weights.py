"""Where a released `sem_seg_head`'s tensors go."""

from jaxseg.decoders.pixel_weights import infer_pixel_decoder, pixel_decoder_rules
from jaxseg.decoders.query_weights import infer_query_decoder, query_decoder_rules
from jaxseg.weights import below, prefixed

PIXEL, QUERY = "pixel_decoder.", "predictor."


def mask_former_rules(upsample_masks=False):
    """Rules of a `MaskFormerHead`; checkpoints prefix the keys with `sem_seg_head.`."""
    pixel = prefixed(pixel_decoder_rules(upsample_masks), PIXEL, "pixel/")
    return pixel + prefixed(query_decoder_rules(), QUERY, "query/")


def infer_mask_former(shapes):
    """{"pixel": fields, "query": fields} that {key: shape} decides; the number of heads is not among them, nor that of points.

    Raises:
        ValueError: where a key that decides a field is missing.
    """
    return {"pixel": infer_pixel_decoder(below(shapes, PIXEL)), "query": infer_query_decoder(below(shapes, QUERY))}
