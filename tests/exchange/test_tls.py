import stat

import trustme

from services.simulator.tls import server_context


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_certificates_are_kept_and_their_keys_are_private(tmp_path):
    ca_file = tmp_path / "certificates" / "ca.pem"

    server_context(ca_file)
    made = contents(ca_file.parent)
    server_context(ca_file)

    assert contents(ca_file.parent) == made
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ca_file.parent.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "ca-leaf.pem": 0o600}


def test_a_new_name_takes_a_new_leaf_of_the_same_authority(tmp_path):
    server_context(tmp_path / "ca.pem")
    made = contents(tmp_path)

    server_context(tmp_path / "ca.pem", ("exchange.test",))

    changed = {name for name, content in contents(tmp_path).items() if content != made[name]}
    assert changed == {"ca-leaf.pem"}


def test_a_leaf_of_another_authority_is_replaced(tmp_path):
    server_context(tmp_path / "ca.pem")
    made = contents(tmp_path)
    (tmp_path / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())

    server_context(tmp_path / "ca.pem")

    assert not any(content == made[name] for name, content in contents(tmp_path).items())
