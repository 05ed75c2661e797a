"""Means and deviations of RGB pixels that the released models were trained with."""

# Per channel, in units of 1.
STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
# detectron2's, of pixels in 0..255: ImageNet's, rounded.
DETECTRON2 = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# Of Caffe2's ImageNet models, which detectron2's own detectors start from: blue first, not divided.
CAFFE2_BGR = ((103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
