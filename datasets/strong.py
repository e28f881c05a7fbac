"""A strong view on the host: colour jitter, grayscale and blur with Pillow and numpy.

The arithmetic is Pillow's, in the order of torchvision's ColorJitter for PIL images.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from datasets.augment import Photometry
from datasets.hue import hue_shift, turned


def strong_image(weak: Image.Image, photometry: Photometry) -> Image.Image:
    """A strong view of a weak one: colour jitter, grayscale, blur, each where it was drawn."""
    image = weak
    if photometry.is_jittered:
        for operation in photometry.order:
            image = _jittered(image, photometry, operation)
    if photometry.is_grey:
        image = image.convert("L")  # blurred as one channel, which are the bytes of three
    if photometry.is_blurred:
        image = image.filter(ImageFilter.GaussianBlur(photometry.blur))
    return image.convert("RGB") if photometry.is_grey else image


def mean_grey(grey: Image.Image) -> int:
    """Mean of a one-channel image, halves rounded up, as ImageEnhance.Contrast takes it."""
    counts = np.array(grey.histogram())
    total = int((counts * np.arange(256)).sum())
    num_pixels = grey.width * grey.height
    return (2 * total + num_pixels) // (2 * num_pixels)


def _jittered(image: Image.Image, photometry: Photometry, operation: int) -> Image.Image:
    """One of torchvision's four colour operations, in its PIL form."""
    if operation == 0:
        return ImageEnhance.Brightness(image).enhance(photometry.brightness)
    if operation == 1:
        return _contrasted(image, photometry.contrast)
    if operation == 2:
        return ImageEnhance.Color(image).enhance(photometry.saturation)
    return turned(image, hue_shift(photometry.hue))


def _contrasted(image: Image.Image, factor: float) -> Image.Image:
    """Away from the mean grey, or towards it."""
    mean = mean_grey(image.convert("L"))
    return Image.blend(Image.new("RGB", image.size, (mean, mean, mean)), image, factor)
