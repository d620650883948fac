"""A manifest that cannot be read counts as none, so that everything is converted again."""

import pytest

from services.converter.manifest import Manifest, manifest_path, read_manifest


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"recipe":"\xff"}', b'{"days":7}', b"\0" * 100])
def test_a_damaged_manifest_is_empty(tmp_path, content):
    manifest_path(tmp_path).parent.mkdir()
    manifest_path(tmp_path).write_bytes(content)

    assert read_manifest(tmp_path) == Manifest()
