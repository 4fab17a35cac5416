"""Replacements for what cannot work in a notebook."""

from __future__ import annotations

from typing import Any


def cv2_imshow(a: Any) -> None:
    """Show an image as OpenCV keeps it (grey, BGR or BGRA; values outside 0 to 255 are clipped) in the output."""
    from IPython.display import display
    from PIL import Image

    show: Any = display
    image = a.clip(0, 255).astype("uint8")
    if image.ndim == 3:
        # OpenCV orders blue, green, red (, alpha); pictures are red, green, blue.
        image = image[..., [2, 1, 0, 3]] if image.shape[2] == 4 else image[..., ::-1]
    show(Image.fromarray(image))


cv_imshow = cv2_imshow
