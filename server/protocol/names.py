"""The names on the wire: camelCase, with Runware's spelling of abbreviations."""

__all__ = ["wire_name"]

_ABBREVIATIONS = {"uuid": "UUID", "url": "URL", "uri": "URI", "nsfw": "NSFW", "cfg": "CFG"}


def wire_name(name: str) -> str:
    """`task_uuid` → `taskUUID`, `image_data_uri` → `imageDataURI`, `cfg_scale` → `CFGScale`."""
    first, *rest = name.split("_")
    head = _ABBREVIATIONS.get(first, first)
    return head + "".join(_ABBREVIATIONS.get(word, word.capitalize()) for word in rest)
