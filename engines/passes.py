"""Sizes beyond a model's own scale: the picture goes through it again."""

__all__ = ["sizes_of_passes"]


def sizes_of_passes(source: tuple[int, int], size: tuple[int, int], scale: int) -> list[tuple[int, int]]:
    """The size of a picture after each pass: at last `size`, before that as little as will do.

    Each pass costs what its result has in pixels; so ×5 with a network of scale 4 is ×1.25 and then ×4.

    Args:
        source: width and height to begin with, in pixels.
        size: width and height to reach.
        scale: by how much a pass enlarges at most.
    """
    (width, height), sizes = source, [size]
    while sizes[0][0] > scale * width or sizes[0][1] > scale * height:
        # No side is made smaller on the way, where one is to grow by much and the other by little.
        sizes.insert(0, (max(width, -(-sizes[0][0] // scale)), max(height, -(-sizes[0][1] // scale))))
    return sizes
