"""The frames that once held up the event loop longest, as large as a server takes; for `benchmarks.loop`."""

from collections.abc import Iterator

import msgspec

SIZE = 48 * 2**20 - 4096  # a little less than `max_frame_bytes`
ESCAPE, QUOTE = chr(92), chr(34)
UUID = "00000000-0000-4000-8000-000000000000"


def worst_frames() -> Iterator[tuple[str, str | bytes]]:
    """What each is, and the frame: text in JSON, bytes in MessagePack."""
    for what, parameter in (
        ("long name", f'"model":"{"a" * SIZE}"'),
        ("long escaped name", f'"model":"{_filled(ESCAPE + "u20ac")}"'),
        ("long search", f'"search":"{_filled("a ")}"'),
        ("unknown parameter", f'"novelty":"{"a" * SIZE}"'),
        ("escaped quotes", f'"novelty":"{_filled(ESCAPE + QUOTE)}"'),
        ("image of numbers", f'"inputImage":[{_filled("0,")}0]'),
        ("deep image", f'"inputImage":{"[" * (SIZE // 2)}{"]" * (SIZE // 2)}'),
        ("large base64", f'"inputImage":"{"A" * (SIZE // 4 * 4)}"'),
        ("wrapped base64", f'"inputImage":"{_filled("A" * 76 + ESCAPE + "n")}"'),
        ("broken base64", f'"inputImage":"{"A" * SIZE}*"'),
        ("many names", ",".join(f'"{number:05d}{"k" * 2900}":0' for number in range(16_000))),
        ("a number of digits", f'"upscaleFactor":{"1" * SIZE}'),
    ):
        kind = "modelSearch" if "search" in what else "upscale"
        yield f"JSON, {what}", f'[{{"taskType":"{kind}","taskUUID":"{UUID}",{parameter}}}]'
    yield "JSON, commas", f"[{',' * SIZE}]"
    ping, wrong = {"taskType": "ping"}, {"taskType": "steal", "taskUUID": UUID, "a": 1}
    yield "JSON, 16,000 pings", msgspec.json.encode([ping] * 16_000).decode()
    yield "JSON, 16,000 wrong tasks", msgspec.json.encode([wrong] * 16_000).decode()
    maps = b"\xdd" + (SIZE - 200).to_bytes(4) + b"\x80" * (SIZE - 200)
    for what, name, value in (
        ("empty maps as image", "inputImage", maps),
        ("empty maps in safety", "safety", b"\x81\xa1a" + maps),
        ("empty maps in settings", "settings", b"\x81\xa8clipSkip" + maps),
        ("a million strings", "outputType", b"\xdd" + (2**20).to_bytes(4) + b"\xa3URL" * 2**20),
        ("large image", "inputImage", msgspec.msgpack.encode(bytes(SIZE))),
        ("large base64", "inputImage", msgspec.msgpack.encode("A" * SIZE)),
        ("long name", "model", msgspec.msgpack.encode("a" * SIZE)),
    ):
        head = {"taskType": "upscale", "taskUUID": UUID}
        fields = [part for item in head.items() for part in map(msgspec.msgpack.encode, item)]
        yield f"MessagePack, {what}", b"".join((b"\x91\x83", *fields, msgspec.msgpack.encode(name), value))
    yield "MessagePack, deep", b"\x91" * SIZE


def _filled(unit: str) -> str:
    return unit * (SIZE // len(unit))
