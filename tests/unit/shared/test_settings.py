import pytest

from services.collector.settings import CollectorSettings
from services.converter.settings import ConverterSettings
from services.ranker.settings import RankerSettings
from services.writer.settings import WriterSettings
from shared.settings import CommonSettings, catalogue, read_settings

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
        (CommonSettings, "OKX_REST_URL", "www.okx.com", "https?"),
    ],
)
def test_a_wrong_value_stops_the_start_naming_setting_value_and_what_is_allowed(  # noqa: PLR0917 - a table
    monkeypatch, capsys, kind, name, value, allowed
):
    monkeypatch.setenv(name, value)

    with pytest.raises(SystemExit) as stopped:
        read_settings(kind)

    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert name in told
    assert value in told
    assert allowed in told


def test_a_wrong_redis_url_is_named_without_its_password(monkeypatch, capsys):
    monkeypatch.setenv("REDIS_URL", "http://:secret@redis")

    with pytest.raises(SystemExit) as stopped:
        read_settings(CommonSettings)

    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "REDIS_URL" in told
    assert "secret" not in told


def test_history_that_would_be_deleted_again_stops_the_start(monkeypatch, capsys):
    monkeypatch.setenv("BACKFILL_DAYS", "120")
    monkeypatch.setenv("RETENTION_DAYS", "90")

    with pytest.raises(SystemExit) as stopped:
        read_settings(CollectorSettings)

    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "BACKFILL_DAYS=120" in told
    assert "RETENTION_DAYS=90" in told


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
