"""Merging of queries into masks, and COCO's measures of them, against the numbers of the published code."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import coco
from jaxseg.encoders.clip import weights as clip_weights
from jaxseg.encoders.clip.text import TextTransformer
from jaxseg.metrics import ap, coco_files, miou
from jaxseg.metrics import pq as quality
from jaxseg.metrics.evaluator import add
from jaxseg.metrics.groups import ratio
from jaxseg.ops.resize import resize
from jaxseg.postprocess.class_scores import log_product_scores, softmax_scores
from jaxseg.postprocess.instance import instances
from jaxseg.postprocess.original_size import crop_and_resize
from jaxseg.postprocess.panoptic import panoptic_segments
from jaxseg.postprocess.semantic import semantic_scores
from jaxseg.systems.masqclip import text_classifier
from jaxseg.text import tokenizer
from jaxseg.weights import to_params
from tests.parity_runners.registry import runner


@runner("masqclip/inference")
def inference(config, weights, inputs):
    del weights
    logits, masks = jnp.asarray(inputs["pred_logits"]), jnp.asarray(inputs["pred_masks"])
    padded_size, sizes = tuple(config["padded_size"]), (tuple(config["image_size"]), tuple(config["out_size"]))
    at_original = crop_and_resize(masks[None], *sizes, padded_size=padded_size)[0]
    things = np.isin(np.arange(config["num_classes"]), config["thing_contiguous_ids"])
    log_scores = log_product_scores(jnp.asarray(inputs["clip_logits"]), jnp.asarray(inputs["object_logits"]))
    out = {
        "masks_upsampled": resize(masks, padded_size),
        "masks_postprocessed": at_original,
        "masq_log_probs": log_scores,
    }
    systems = {
        "m2f": (softmax_scores(logits), jax.nn.softmax(logits, -1), "instances_all"),
        "masq": (jnp.exp(log_scores), jnp.exp(log_scores), "instances"),
    }
    for name, (scores, with_no_object, instance) in systems.items():
        probabilities = jax.nn.sigmoid(at_original)
        out[f"{name}_sem_seg"] = semantic_scores(scores, probabilities)
        at_padded = semantic_scores(scores, jax.nn.sigmoid(resize(masks, padded_size)))
        out[f"{name}_sem_seg_semantic_only"] = crop_and_resize(at_padded[None], *sizes)[0]
        for key, limits in config["thresholds"].items():
            thresholds = {"object_threshold": limits["object_mask"], "overlap_threshold": limits["overlap"]}
            found = panoptic_segments(with_no_object, probabilities, jnp.asarray(things), **thresholds)
            out |= panoptic_outputs(f"{name}_panoptic_{key}", found)
        out |= instance_outputs(f"{name}_{instance}", instances(scores, at_original, config["topk"]))
        only = instances(scores, at_original, config["topk"], is_thing=jnp.asarray(things))
        out |= instance_outputs(f"{name}_instances_thingonly", only)
    return out


def panoptic_outputs(name, found):
    rows = np.flatnonzero(found["panoptic_valid"])
    table = [rows + 1, found["panoptic_classes"][rows], found["panoptic_is_thing"][rows]]
    return {name: found["panoptic_map"], f"{name}_segments": np.stack([np.asarray(x, np.int64) for x in table], -1)}


def instance_outputs(name, found):
    keep = np.asarray(found["instance_valid"])
    return {f"{name}_{part}": np.asarray(found[f"instance_{part}"])[keep] for part in ("scores", "classes", "masks")}


@runner("masqclip/panoptic_quality")
def panoptic_quality(config, weights, inputs):
    del weights
    ids = [category["id"] for category in config["categories"]]
    sums = {}
    for i in range(sum(name.startswith("gt_segments_") for name in inputs)):
        maps = [np.where(inputs[f"{x}_{i}"] == config["void_id"], 0, inputs[f"{x}_{i}"]) for x in ("gt", "pred")]
        truth = [
            {"id": s, "category_id": c, "iscrowd": crowd, "area": np.sum(maps[0] == s)}
            for s, c, crowd in inputs[f"gt_segments_{i}"].tolist()
        ]
        predicted = [{"id": s, "category_id": c} for s, c in inputs[f"pred_segments_{i}"].tolist()]
        sums = add(sums, _counts(maps[0], truth, maps[1], predicted, ids))
    found = quality.class_quality(sums)
    out = {
        "per_class": np.stack([ids, found["pq"], found["sq"], found["rq"]], -1),
        "per_class_tp_fp_fn_iou": np.stack([ids, found["tp"], found["fp"], found["fn"], found["overlap"]], -1),
    }
    for name, row in zip(("All", "Things", "Stuff"), _averages(found, config["categories"]), strict=True):
        out |= {f"{name}_{measure}": value for measure, value in zip(("pq", "sq", "rq", "n"), row, strict=True)}
    return out


def _counts(true_map, truth, predicted_map, predicted, category_ids):
    """The counts of one image from maps of ids and COCO's segment tables."""
    coco_files.check_segments(predicted_map, predicted, category_ids, "prediction")
    sides = []
    for segment_map, segments in ((predicted_map, predicted), (true_map, truth)):
        ids = jnp.asarray([s["id"] for s in segments] or [0], jnp.int32)
        classes = jnp.asarray([category_ids.index(s["category_id"]) for s in segments] or [-1], jnp.int32)
        crowd = jnp.asarray([bool(s.get("iscrowd", 0)) for s in segments] or [False])
        areas = jnp.asarray([int(s.get("area", 0)) for s in segments] or [0], jnp.int32)
        index = quality.index_of(jnp.asarray(segment_map, jnp.int32), ids)
        sides.append(quality.Segments(index, ids > 0, classes, crowd, areas))
    return quality.segment_counts(*sides, len(category_ids))


def _averages(found, categories):
    """Rows for all classes, things and stuff: pq, sq, rq and the number of classes that occur; 0 where there are none."""
    things = np.array([bool(category["isthing"]) for category in categories])
    rows = []
    for chosen in (np.ones(len(things), bool), things, ~things):
        ids = np.flatnonzero(chosen)
        means = [quality.quality_mean(found[name], found["n"], ids) for name in ("pq", "sq", "rq")]
        rows.append([*np.nan_to_num(means), np.sum(found["n"][ids] > 0)])
    return np.array(rows)


@runner("dataeval/pq")
def pq(config, weights, inputs):
    del weights
    read = {name: json.loads(str(inputs[name])) for name in ("categories", "gt_annotations", "pred_annotations")}
    categories = read["categories"]
    ids = [category["id"] for category in categories]
    numbers = sorted(re.sub(r"\D", "", name) for name in inputs if name.startswith("gt_pan_"))
    maps = {side: [np.asarray(inputs[f"{side}_pan_{n}"]) for n in numbers] for side in ("gt", "pred")}
    predictions = {a["image_id"]: (a, m) for a, m in zip(read["pred_annotations"], maps["pred"], strict=True)}
    sums = []
    for annotation, true_map in zip(read["gt_annotations"], maps["gt"], strict=True):
        predicted, predicted_map = predictions[annotation["image_id"]]
        segments = annotation["segments_info"], predicted["segments_info"]
        sums.append(_counts(true_map, segments[0], predicted_map, segments[1], ids))
    out = {}
    for suffix, counted in (("", sums), ("_missing", sums[:-1])):
        total = {}
        for counts in counted:
            total = add(total, counts)
        found = quality.class_quality(total)
        per_category = [ids, found["overlap"], found["tp"], found["fp"], found["fn"]]
        out[f"per_category{suffix}"] = np.stack(per_category, -1)
        out[f"avg{suffix}"] = _averages(found, categories)
        out[f"per_class_pq_sq_rq{suffix}"] = np.stack([found["pq"], found["sq"], found["rq"]], -1)
    class_of = {category: i for i, category in enumerate(ids)}
    for n, annotation, true_map in zip(numbers, read["gt_annotations"], maps["gt"], strict=True):
        out[f"semseg_{n}"] = coco_files.semantic_map(true_map, annotation["segments_info"], class_of)
    instances_of = coco_files.panoptic_to_instances(read["gt_annotations"], maps["gt"])
    return {**out, "detection_format": json.dumps(instances_of)}


@runner("dataeval/coco_ap", "dataeval/coco_ap_ties")
def coco_ap(config, weights, inputs):
    del weights
    truth, detections = (json.loads(str(inputs[name])) for name in ("gt_json", "dt_json"))
    options = {
        "iou_thresholds": config.get("iou_thrs", ap.IOU_THRESHOLDS),
        "max_detections": config.get("max_dets", ap.MAX_DETECTIONS),
    }
    out = {}
    for kind in ("bbox", "segm"):
        curves = ap.precision_recall(truth, detections, kind, **options)
        subset = ap.precision_recall(truth, detections, kind, category_ids=config["subset_cat_ids"], **options)
        out |= {
            f"{kind}_precision": np.asarray(curves.precision, np.float32),
            f"{kind}_recall": np.asarray(curves.recall, np.float32),
            f"{kind}_stats12": _twelve(curves),
            f"{kind}_subset_stats12": _twelve(subset),
            f"{kind}_per_class_AP": _recorded_class_ap(curves),
        }
    by_boxes = ap.precision_recall(truth, detections, "segm", box_areas=True, **options)
    return {**out, "segm_stats12_if_box_area_used": _twelve(by_boxes)}


def _recorded_class_ap(curves):
    """`ap.class_ap` x 100 as it was recorded: averaged and scaled in float32, to 1e-7, and compared to 1e-9."""
    found = []
    for k, value in enumerate(ap.class_ap(curves)):
        precision = np.asarray(curves.precision[:, :, k, 0, -1], np.float32)
        recorded = float(np.mean(precision[precision > -1]) * 100) if np.isfinite(value) else np.nan
        np.testing.assert_allclose(recorded, 100 * value, rtol=1e-6)
        found.append(recorded)
    return np.array(found)


def _twelve(curves):
    return np.nan_to_num(list(ap.summary(curves).values()), nan=-1)


@runner("masqclip/coco_ap_base_novel")
def coco_ap_base_novel(config, weights, inputs):
    del weights
    size, categories = (config["height"], config["width"]), config["categories65"]
    image_ids = np.union1d(inputs["gt_image_category_crowd"][:, 0], inputs["pred_image_class"][:, 0]).tolist()
    truth = {
        "images": [{"id": i, "height": size[0], "width": size[1]} for i in image_ids],
        "categories": [{"id": i} for i in categories],
        "annotations": [],
    }
    rows = zip(_unpacked(inputs["gt_masks"], size), inputs["gt_image_category_crowd"].tolist(), strict=True)
    for number, (mask, (image, category, crowd)) in enumerate(rows, 1):
        row = {"id": number, "image_id": image, "category_id": category, "iscrowd": crowd, "area": float(mask.sum())}
        truth["annotations"].append({**row, "segmentation": coco.encode_mask(mask)})
    detections = []
    rows = zip(_unpacked(inputs["pred_masks"], size), inputs["pred_image_class"].tolist(), inputs["pred_scores"], strict=True)
    for mask, (image, label), score in rows:
        detections += coco_files.mask_rows(image, mask[None], [score], [categories[label]])
    curves = ap.precision_recall(truth, detections, "segm")
    per_class = {"ap": 100 * ap.class_ap(curves), "ap50": 100 * ap.class_ap(curves, 0.5)}
    stats = 100 * np.array(list(ap.summary(curves).values()))
    out = {"stats": np.nan_to_num(stats, nan=-100)}
    groups = {"base": config["base_ids"], "novel": config["novel_ids"], "all": categories}
    for name, values in per_class.items():
        out[f"{name}_per_class"] = np.nan_to_num(values, nan=-1)
        for group, ids in groups.items():
            known = values[np.isin(curves.category_ids, ids) & ~np.isnan(values)]
            out[f"{name}_{group}"] = np.nan_to_num(ratio(known.sum(), known.size), nan=-1)
    return out


def _unpacked(packed, size):
    return np.unpackbits(packed, axis=-1, count=size[1]).astype(bool).reshape(-1, *size)


@runner("masqclip/semseg_metrics")
def semseg_metrics(config, weights, inputs):
    del weights
    total, num_classes = {}, config["num_classes"]
    for i in range(sum(name.startswith("scores_") for name in inputs)):
        predicted = miou.semantic_labels({"probabilities": jnp.asarray(inputs[f"scores_{i}"])[None]})
        truth = jnp.asarray(inputs[f"gt_{i}"], jnp.int32)[None]
        truth = jnp.where(truth == config["ignore_label"], -1, truth)
        total = add(total, {"confusion": miou.confusion_matrix(predicted, truth, num_classes)})
    scores = miou.class_scores(total["confusion"])
    values = {
        "mIoU": miou.mean_iou(total["confusion"], absent_classes="skip"),
        "fwIoU": scores["fwiou"],
        "mACC": scores["macc"],
        "pACC": scores["pacc"],
        **{f"IoU-c{i}": value for i, value in enumerate(scores["iou"])},
        **{f"ACC-c{i}": value for i, value in enumerate(scores["acc"])},
    }
    out = {name: -1.0 if np.isnan(value) else 100 * value for name, value in values.items()}
    return {**out, "confusion": total["confusion"]}


@runner("masqclip/text_classifier")
def text_classifier_case(config, weights, inputs):
    del inputs
    model = TextTransformer(
        context_length=config["context_length"],
        vocab_size=config["vocab_size"],
        width=config["width"],
        num_layers=config["layers"],
        num_heads=config["heads"],
        embed_dim=config["emb"],
    )
    rules = [rule for rule in clip_weights.openai_rules(1) if all(path.startswith("text/") for path in rule.paths)]
    example = jnp.zeros((1, config["context_length"]), jnp.int32)
    params = to_params(weights, rules, {"text": jax.eval_shape(lambda: model.init(jax.random.key(0), example))["params"]})

    def encode(token_ids):
        return model.apply({"params": params["text"]}, jnp.asarray(token_ids))

    raw_tokens = tokenizer.tokenize(config["raw_texts"], config["context_length"])
    out = {"raw_tokens": raw_tokens, "raw_features": encode(raw_tokens)}
    for dataset in config["datasets"]:
        words = text_classifier.tokenized(text_classifier.dataset_words(dataset), config["context_length"])
        embeddings = text_classifier.class_embeddings(encode(words.token_ids), words.per_class)
        parts = {"text_embeddings": embeddings, "tokens": words.token_ids, "tokens_per_class": words.per_class}
        out |= {f"{part}/{dataset}": value for part, value in parts.items()}
    return out
