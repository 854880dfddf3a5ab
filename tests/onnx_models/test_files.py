import hashlib
import os

from onnx_models.files import sha256_of


def test_a_changed_file_has_another_checksum_however_soon_and_whatever_its_times_say(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b"two", b"six"):
        path.write_bytes(content)
        os.utime(path, (1, 1))
        assert sha256_of(path) == hashlib.sha256(content).hexdigest()
