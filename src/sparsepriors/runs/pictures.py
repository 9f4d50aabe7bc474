"""Pictures small enough for a repository and a page."""

from __future__ import annotations

import io
from pathlib import Path

MAX_FIGURE_BYTES = 150_000
_MOST_PIXELS = 2**26


def small_picture(path: Path) -> tuple[bytes, str]:
    """A picture as it is if it is small, else as WebP of lower quality and size until it is.

    Returns
    -------
    tuple
        At most `MAX_FIGURE_BYTES` bytes, and the file ending that suits them.

    Raises
    ------
    ValueError
        If it is not a picture, or cannot be made small enough.
    ImportError
        If it must shrink and Pillow is not installed.
    """
    data = path.read_bytes()
    if len(data) <= MAX_FIGURE_BYTES:
        return data, path.suffix
    try:
        from PIL import Image
    except ImportError as e:
        raise ImportError("shrinking figures needs Pillow: pip install Pillow") from e
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise ValueError(f"it claims {opened.width} x {opened.height} pixels")
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise ValueError(f"{path} is not a readable picture: {e}") from e
    for quality, scale in ((85, 1.0), (75, 1.0), (75, 0.75), (70, 0.5), (60, 0.35)):
        buffer = io.BytesIO()
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image.resize(size, Image.Resampling.LANCZOS).save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() <= MAX_FIGURE_BYTES:
            return buffer.getvalue(), ".webp"
    raise ValueError(f"{path} cannot be made smaller than {MAX_FIGURE_BYTES} bytes")
