"""Where a released `sem_seg_head`'s tensors go."""

from jaxseg.decoders.deformable_weights import num_encoder_points
from jaxseg.decoders.pixel_weights import infer_pixel_decoder, pixel_decoder_rules
from jaxseg.decoders.query_weights import infer_query_decoder, query_decoder_rules
from jaxseg.weights import prefixed

PIXEL, QUERY = "pixel_decoder.", "predictor."


def mask_former_rules(upsample_masks=False):
    """Rules of a `MaskFormerHead`; checkpoints prefix the keys with `sem_seg_head.`."""
    pixel = prefixed(pixel_decoder_rules(upsample_masks), PIXEL, "pixel/")
    return pixel + prefixed(query_decoder_rules(), QUERY, "query/")


def infer_mask_former(shapes, num_heads=8):
    """{"pixel": fields, "query": fields} that {key: shape} decides, once the number of heads is known.

    Raises:
        ValueError: where a key that decides a field is missing.
    """
    pixel, query = (
        {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        for prefix in (PIXEL, QUERY)
    )
    fields, num_levels = infer_pixel_decoder(pixel), pixel["transformer.level_embed"][0]
    points = num_encoder_points(pixel, num_heads, num_levels)
    return {
        "pixel": fields | {"num_heads": num_heads, "num_points": points},
        "query": infer_query_decoder(query) | {"num_heads": num_heads},
    }
