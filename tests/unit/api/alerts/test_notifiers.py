"""Addresses are secrets: they are used, and never shown."""

import io
import logging

import pytest

from services.api.alerts.message import Message
from services.api.alerts.notifiers import UnknownAddressError, addresses, configured_notifiers, notifiers
from services.api.settings import ApiSettings
from shared.runtime.settings import read_settings

SECRET = "sesame0pen"  # noqa: S105 - nobody's
UNREACHABLE = f"json://{SECRET}.invalid:81/{SECRET}"
MESSAGE = Message(title="a", body="b", severity="warning")


@pytest.mark.parametrize(
    "text",
    [
        "json://a/x,slack://b/y mailto://c?to=d@e,f@g",
        "  json://a/x\n slack://b/y,\tmailto://c?to=d@e,f@g ,",
        "json://a/x , slack://b/y , mailto://c?to=d@e,f@g",
    ],
)
def test_addresses_are_split_at_blanks_and_commas_but_not_inside(text):
    assert addresses(text) == ["json://a/x", "slack://b/y", "mailto://c?to=d@e,f@g"]


def test_no_address_is_no_notifier():
    assert notifiers("  ") == []


def test_notifier_is_named_by_number_and_kind_and_does_not_show_its_address():
    first, second = notifiers(f"{UNREACHABLE} discord://1234567/{SECRET}")

    assert (first.name, second.name) == ("1 (JSON)", "2 (Discord)")
    assert SECRET not in repr((first, second))
    assert first.digest != second.digest


@pytest.mark.parametrize("bad", [f"pigeon://{SECRET}", SECRET, "json://"])
def test_unknown_address_is_named_by_its_number_only(bad):
    with pytest.raises(UnknownAddressError, match="address 2 of 2 is unknown to apprise") as caught:
        notifiers(f"json://localhost/{SECRET} {bad}")

    assert SECRET not in str(caught.value)


def test_wrong_setting_stops_the_start_without_showing_it(capfd, monkeypatch):
    monkeypatch.setenv("ALERT_URLS", f"json://localhost/{SECRET} pigeon://{SECRET}")

    with pytest.raises(SystemExit) as caught:
        configured_notifiers(read_settings(ApiSettings).alert_urls)

    assert caught.value.code == 2
    said = capfd.readouterr()
    assert "wrong setting: ALERT_URLS: address 2 of 2 is unknown to apprise" in said.err
    assert SECRET not in said.err + said.out


def test_settings_do_not_show_their_addresses(monkeypatch):
    monkeypatch.setenv("ALERT_URLS", UNREACHABLE)

    settings = read_settings(ApiSettings)

    assert settings.alert_urls.get_secret_value() == UNREACHABLE
    assert SECRET not in repr(settings)


@pytest.fixture
def log():
    """Return what a service logs at its most talkative level."""
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


def test_failure_is_reported_without_any_part_of_the_address_in_words_or_logs(log):
    (notifier,) = notifiers(UNREACHABLE)

    problem = notifier.send(MESSAGE)
    logging.getLogger("of.the.test").debug("the log works")

    assert "onnection error" in problem
    assert SECRET not in problem
    assert "the log works" in log.getvalue()
    assert SECRET not in log.getvalue()
