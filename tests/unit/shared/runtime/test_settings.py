import errno
import os
import socket
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from services.api.settings import ApiSettings
from services.collector.settings import CollectorSettings
from services.converter.settings import ConverterSettings
from services.ranker.settings import RankerSettings
from services.writer.settings import WriterSettings
from shared.exchanges.proxy import proxy_for
from shared.runtime.schedule import every_hours, next_due
from shared.runtime.settings import NAMES, REDIS_URL_FILE, CommonSettings, catalogue, read_settings, unknown_names
from tests.support.builders import at

KINDS = [RankerSettings, CollectorSettings, WriterSettings, ConverterSettings]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Read no `.env` of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name", "value", "allowed"),
    [
        (RankerSettings, "TOP_N", "0", "greater than or equal to 1"),
        (RankerSettings, "TOP_N", "many", "valid integer"),
        (RankerSettings, "RANK_BY", "size", "'raw' or 'per_8h'"),
        (RankerSettings, "RANK_EVERY_HOURS", "25", "less than or equal to 24"),
        (WriterSettings, "FLUSH_SECONDS", "0", "greater than 0"),
        (WriterSettings, "RETENTION_DAYS", "-1", "greater than or equal to 1"),
        (CollectorSettings, "BACKFILL_DAYS", "4000", "less than or equal to 3650"),
        (CollectorSettings, "OKX_WS_URL", "ws://ws.okx.com/ws/v5", "wss"),
        (ConverterSettings, "CONVERT_AT", "25:00", "HH:MM"),
        (ConverterSettings, "CONVERT_AT", "noon", "HH:MM"),
        (ConverterSettings, "CONVERT_EVERY", "-5", "greater than or equal to 0"),
        (CommonSettings, "LOG_LEVEL", "LOUD", "'DEBUG'"),
        (CommonSettings, "OKX_REST_URL", "www.okx.com", "must be https:// or http://"),
        (CommonSettings, "OKX_REST_URL", "ftp://www.okx.com", "must be https:// or http://"),
        (CommonSettings, "OKX_REST_URL", "https://www.okx.com/api", "must be https:// or http://"),
        (CommonSettings, "OKX_REST_URL", "https://www.okx .com", "must not contain a blank"),
        (CommonSettings, "OKX_REST_URL", "https://www.okx.com ", "must not contain a blank"),
        (CommonSettings, "OKX_REST_URL", " ", "must not contain a blank"),
        (CommonSettings, "OKX_REST_URL", "https://:443", "must name a host"),
        (CommonSettings, "OKX_REST_URL", "https://www.okx.com?demo", "without ? and #"),
        (CommonSettings, "OKX_WS_URL", "wss://ws.okx.com:8443/ws /v5", "must not contain a blank"),
        (CommonSettings, "OKX_WS_URL", "https://ws.okx.com:8443/ws/v5", "must be wss://"),
        (CommonSettings, "OKX_WS_URL", "wss://ws.okx.com:8443", "must be wss://"),
        (CommonSettings, "OKX_REST_URL", "https://www.okx.com:port", "Port"),
        (CommonSettings, "OKX_WS_URL", "wss://ws.okx.com:99999/ws/v5", "Port"),
        (CommonSettings, "OKX_REST_URL", "https://[::1:443", "Invalid IPv6 URL"),
        (CommonSettings, "OKX_REST_URL", f"https://{'a' * 64}.com", "at most 63"),
        (CommonSettings, "OKX_REST_URL", "https://www.okx.com#x", "without ? and #"),
        (CommonSettings, "METRICS_HOST", f"{'a' * 64}.local", "at most 63"),
        (CommonSettings, "METRICS_HOST", "a b", "an IP address"),
        (ApiSettings, "API_HOST", "a..b", "an IP address"),
        (CommonSettings, "DATA_DIR", " ", "not blank"),
        (CommonSettings, "DATA_DIR", "~nosuchuser/x", "no user here has"),
        (CommonSettings, "OKX_CA_FILE", "~nosuchuser/x.pem", "no user here has"),
        (ConverterSettings, "QLIB_DIR", "/", "a folder with a name"),
        (ApiSettings, "QLIB_DIR", "/", "a folder with a name"),
        (CommonSettings, "HTTPS_PROXY", "socks5://127.0.0.1:1080", "only one of http://"),
        (CommonSettings, "https_proxy", "https://127.0.0.1:1080", "only one of http://"),
        (CommonSettings, "HTTPS_PROXY", "http://127.0.0.1:port", "http://host:port"),
    ],
)
def test_a_wrong_value_stops_the_start_naming_setting_value_and_what_is_allowed(  # noqa: PLR0917 - a table
    monkeypatch, capsys, kind, name, value, allowed
):
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as stopped:
        read_settings(kind)

    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert name.upper() in said
    assert value in said
    assert allowed in said


@pytest.mark.parametrize("kind", [*KINDS, ApiSettings])
def test_every_number_has_a_bound_on_both_sides(kind):
    """A number that a clock, a calendar or the memory cannot take would be noticed late, somewhere else."""
    schema = kind.model_json_schema()["properties"]
    numbers = {
        name: option
        for name, field in schema.items()
        for option in field.get("anyOf", [field])
        if option.get("type") in {"integer", "number"}
    }

    assert numbers
    for name, option in numbers.items():
        assert {"minimum", "exclusiveMinimum"} & option.keys(), name
        assert "maximum" in option, name


@pytest.mark.parametrize(("kind", "name"), [(RankerSettings, "TOP_N"), (WriterSettings, "RETENTION_DAYS")])
def test_a_number_beyond_all_measure_is_refused(monkeypatch, capsys, kind, name):
    monkeypatch.setenv(name, "1000000000000")

    with pytest.raises(SystemExit):
        read_settings(kind)

    assert f"{name}='1000000000000': Input should be less than or equal to" in capsys.readouterr().err


def test_a_wrong_redis_url_is_named_without_its_password(monkeypatch, capsys):
    monkeypatch.setenv("REDIS_URL", "http://:secret@redis")

    with pytest.raises(SystemExit) as stopped:
        read_settings(CommonSettings)

    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "REDIS_URL" in said
    assert "secret" not in said


@pytest.mark.parametrize(
    ("end", "allowed"),
    [
        ("/zero", "the number of a database"),
        ("/0/1", "the number of a database"),
        ("/0#x", "the number of a database"),
        ("/0?nonsense=1", "has options that are none: nonsense; allowed are client_name, db"),
        ("/0?nonsense", "has options that are none: nonsense"),
        ("/0?timeout=5", "has options that are none: timeout"),
        ("/0?socket_timeout=abc", "redis-py does not take, among socket_timeout"),
        ("/0?socket_timeout=", "redis-py does not take, among socket_timeout"),
        ("/0?db=-1", "redis-py does not take, among db"),
        ("/0?ssl_nonsense=1", "redis-py does not take, among ssl_nonsense"),
    ],
)
def test_a_redis_url_that_fails_later_is_refused_without_its_password(monkeypatch, capsys, end, allowed):
    monkeypatch.setenv("REDIS_URL", f"redis://:hidden@127.0.0.1:6379{end}")

    with pytest.raises(SystemExit) as stopped:
        read_settings(CommonSettings)

    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith("wrong setting: REDIS_URL: ")
    assert allowed in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis",
        "redis://redis:6379/",
        "redis://:a%23b@[::1]:6379/15",
        "redis://10.0.0.1/0?socket_timeout=5&client_name=ranker",
        "rediss://my_redis.test.:6380/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none",
    ],
)
def test_a_redis_url_that_works_is_taken(monkeypatch, url):
    monkeypatch.setenv("REDIS_URL", url)

    assert read_settings(CommonSettings).redis_url.host


@pytest.mark.parametrize("host", ["10.0.0.7", "::", "fe80::1%eth0", "localhost", "metrics_1.test.", "zähler.test"])
def test_a_host_to_listen_on_is_an_address_or_a_name(monkeypatch, host):
    monkeypatch.setenv("METRICS_HOST", host)

    assert read_settings(CommonSettings).metrics_host == host


def test_history_that_would_be_deleted_again_stops_the_start(monkeypatch, capsys):
    monkeypatch.setenv("BACKFILL_DAYS", "120")
    monkeypatch.setenv("RETENTION_DAYS", "90")

    with pytest.raises(SystemExit) as stopped:
        read_settings(CollectorSettings)

    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "BACKFILL_DAYS=120" in said
    assert "RETENTION_DAYS=90" in said


@pytest.mark.parametrize("kind", KINDS)
def test_everything_has_a_default_that_works(kind):
    read_settings(kind)


def test_an_empty_value_counts_as_unset(monkeypatch):
    monkeypatch.setenv("TOP_N", "")

    assert read_settings(RankerSettings).top_n == 50


def test_the_environment_goes_before_the_file(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("TOP_N=7\nRANK_BY=per_8h\n")
    monkeypatch.setenv("TOP_N", "9")

    settings = read_settings(RankerSettings)

    assert (settings.top_n, settings.rank_by) == (9, "per_8h")


def test_the_catalogue_names_every_setting_once_with_its_default():
    text = catalogue(KINDS)

    names = [line[1:].split("=")[0] for line in text.splitlines() if line.startswith("#") and not line.startswith("# ")]
    declared = {name.upper() for kind in KINDS for name in kind.model_fields}
    assert sorted(names) == sorted(declared)
    assert "#TOP_N=50\n" in text


def test_a_catalogue_whose_values_are_switched_on_is_valid(tmp_path):
    lines = catalogue(KINDS).splitlines()
    (tmp_path / ".env").write_text("\n".join(line.removeprefix("#") for line in lines if not line.startswith("# ")))

    for kind in KINDS:
        assert read_settings(kind) == kind(_env_file=None)


# --- names that are none of ours


def test_the_names_of_all_services_are_known():
    every = {name.upper() for kind in [*KINDS, ApiSettings] for name in kind.model_fields}

    assert every == NAMES


@pytest.mark.parametrize(
    ("environment", "file", "found"),
    [
        (["TOPN"], [], {"TOPN": "TOP_N"}),
        (["top_n", "PATH", "XDG_DATA_DIRS", "LANG", "API_KEY", "DATA"], [], {}),
        (["RETENTION_DAY"], [], {"RETENTION_DAY": "RETENTION_DAYS"}),
        ([], ["TOPN", "Top_N", "REDIS_PASSWORD", "COMPOSE_PROFILES"], {"TOPN": "TOP_N"}),
        (["HTTP_PROXY", "no_proxy", "FTP_PROXY"], ["HTTPS_PROXY", "http_proxy", "NO_PROXY", "ALL_PROXY"], {}),
        ([], ["WHATEVER_IT_IS"], {"WHATEVER_IT_IS": None}),
    ],
)
def test_a_name_that_is_nearly_one_of_ours_is_found_and_no_other(environment, file, found):
    assert unknown_names(environment, file) == found


def test_a_misspelled_setting_is_said_with_the_right_name_and_stops_nothing(monkeypatch, tmp_path, capsys):
    (tmp_path / ".env").write_text("TOPN=3\n# TOPP=4\nBACKFILL_DAY=7\n")

    assert read_settings(RankerSettings).top_n == 50

    said = capsys.readouterr().err
    assert "unknown setting: TOPN is ignored; did you mean TOP_N?" in said
    assert "BACKFILL_DAYS" in said
    assert "TOPP" not in said


@pytest.mark.parametrize("hours", range(1, 25))
def test_rankings_come_at_even_distances_or_not_at_all(monkeypatch, capsys, hours):
    monkeypatch.setenv("RANK_EVERY_HOURS", str(hours))

    if 24 % hours == 0:
        settings = read_settings(RankerSettings)
        trigger, due = every_hours(settings.rank_every_hours), None
        fired = [due := next_due(trigger, due, due or at("2025-04-05 00:00:00")) for _ in range(30)]
        assert {later - earlier for earlier, later in pairwise(fired)} == {timedelta(hours=hours)}
    else:
        with pytest.raises(SystemExit):
            read_settings(RankerSettings)
        assert "1, 2, 3, 4, 6, 8, 12, 24" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
@pytest.mark.parametrize("kind", [*KINDS, ApiSettings])
def test_what_is_no_number_is_refused_by_every_setting_that_takes_one(monkeypatch, kind, value):
    numbers = [name for name, field in kind.model_fields.items() if isinstance(field.default, int | float)]
    for name in [name for name in numbers if not isinstance(kind.model_fields[name].default, bool)]:
        monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            read_settings(kind)
        monkeypatch.delenv(name)


def test_a_certificate_that_is_not_there_is_refused_for_the_exchange_itself(monkeypatch, capsys):
    monkeypatch.setenv("OKX_CA_FILE", "/nope.pem")

    with pytest.raises(SystemExit):
        read_settings(CommonSettings)
    assert "OKX_CA_FILE='/nope.pem': there is no such file" in capsys.readouterr().err

    monkeypatch.setenv("OKX_REST_URL", "https://127.0.0.1:8443")
    assert read_settings(CommonSettings).okx_ca_file is not None  # a simulator may write it still


def test_a_proxy_of_the_file_counts_where_the_environment_has_none(monkeypatch, tmp_path):
    for name in ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")  # what is put into the environment is taken out again after the test
    (tmp_path / ".env").write_text("https_proxy=http://proxy.test:3128\nNO_PROXY=localhost\n")

    read_settings(CommonSettings)

    assert str(proxy_for("https://www.okx.com")) == "the proxy of HTTPS_PROXY (http://proxy.test:3128)"
    assert proxy_for("https://localhost") is None


def test_a_proxy_that_no_library_follows_is_said(monkeypatch, capsys):
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")

    read_settings(CommonSettings)
    assert "ALL_PROXY is not used" in capsys.readouterr().err

    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1080")
    read_settings(CommonSettings)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("exchange", "folder"),
    [(None, "local"), ("https://127.0.0.1:8911", "local-127-0-0-1-8911")],
    ids=["OKX", "simulated"],
)
def test_commands_beside_a_running_system_find_the_redis_that_it_brought_along(monkeypatch, tmp_path, exchange, folder):
    if exchange:
        monkeypatch.setenv("OKX_REST_URL", exchange)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        (tmp_path / ".run" / folder).mkdir(parents=True)
        (tmp_path / ".run" / folder / REDIS_URL_FILE).write_text(address + "\n")
        assert str(read_settings(CommonSettings).redis_url) == address
        monkeypatch.setenv("REDIS_URL", "redis://elsewhere:6379/0")
        assert str(read_settings(CommonSettings).redis_url) == "redis://elsewhere:6379/0"
        monkeypatch.delenv("REDIS_URL")
    assert str(read_settings(CommonSettings).redis_url) == "redis://127.0.0.1:6379/0", "it has ended since"


def test_a_file_of_settings_that_is_not_in_utf_8_stops_the_start_in_a_sentence(tmp_path, capsys):
    (tmp_path / ".env").write_text("TOP_N=3\n", encoding="utf-16")

    with pytest.raises(SystemExit):
        read_settings(CommonSettings)

    assert "save it as UTF-8" in capsys.readouterr().err


def test_a_folder_in_a_file_of_settings_may_begin_with_the_home_folder(tmp_path):
    (tmp_path / ".env").write_text("DATA_DIR=~/okx_data\n", encoding="utf-8")

    assert read_settings(CommonSettings).data_dir == Path.home() / "okx_data"


# --- a file of settings of which something would be ignored


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('TOP_N=3\n\nDATA_DIR="a b\nRANK_BY=raw\n', "line 3 (DATA_DIR)"),
        ("CONVERT_EVERY: 7\n", "line 1 (CONVERT_EVERY)"),
        ("# every week\nCONVERT_EVERY 7", "line 2 (CONVERT_EVERY)"),
        ("\r\nTOP_N\r\n", "line 2 (TOP_N)"),
        ("=7\n", "line 1 cannot"),
        ('REDIS_URL="redis://:hidden@redis\n', "line 1 (REDIS_URL)"),
        ("REDIS_URL=redis://redis\nhidden\n", "line 2 cannot"),
    ],
)
def test_a_line_that_cannot_be_read_stops_the_start_and_is_named(tmp_path, capsys, text, line):
    (tmp_path / ".env").write_bytes(text.encode())

    with pytest.raises(SystemExit) as stopped:
        read_settings(CommonSettings)

    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert f"wrong setting: .env {line}" in said
    assert "must be NAME=value" in said
    assert "hidden" not in said


def test_lines_of_every_right_form_are_read(tmp_path):
    (tmp_path / ".env").write_text("\n# why\nexport TOP_N=3 # why\nRANK_BY = 'per_8h'\nDATA_DIR=\"a b\"\nLOG_LEVEL=\n")

    settings = read_settings(RankerSettings)

    assert (settings.top_n, settings.rank_by, settings.data_dir) == (3, "per_8h", Path("a b"))


@pytest.mark.parametrize("kind", ["folder", "loop", "nowhere", "pipe", "forbidden"])
def test_a_file_of_settings_that_cannot_be_read_stops_the_start(tmp_path, monkeypatch, capsys, kind):
    file = tmp_path / ".env"
    match kind:
        case "folder":
            file.mkdir()
        case "loop":
            file.symlink_to(file)
        case "nowhere":
            file.symlink_to(tmp_path / "nope")
        case "pipe":
            os.mkfifo(file)
        case "forbidden":
            file.write_text("TOP_N=3\n")
            monkeypatch.setattr(Path, "read_text", _forbidden)  # root may read whatever has mode 000

    with pytest.raises(SystemExit) as stopped:
        read_settings(CommonSettings)

    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.startswith("wrong setting: .env ")
    assert "must be a file" in said


def _forbidden(path, **_):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))
