"""Which proxy the environment means, and what it looks like where none can be made of it."""

import base64
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.exchanges.proxy import Proxy, ProxyError, proxy_for, take_over

REST, SOCKET = "https://www.okx.com", "wss://ws.okx.com:8443/ws/v5"
PROXY = "http://proxy.test:3128"


@pytest.mark.parametrize("url", [REST, SOCKET])
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_rest_and_websocket_follow_one_setting_in_either_case(url, name):
    assert proxy_for(url, {name: PROXY}) == Proxy("HTTPS_PROXY", "proxy.test", 3128)


def test_a_host_without_tls_has_a_setting_of_its_own():
    assert proxy_for("http://127.0.0.1:80", {"HTTPS_PROXY": PROXY}) is None
    assert proxy_for("http://127.0.0.1:80", {"HTTP_PROXY": PROXY}) == Proxy("HTTP_PROXY", "proxy.test", 3128)
    assert proxy_for(REST, {"HTTP_PROXY": PROXY}) is None


@pytest.mark.parametrize("other", ["ALL_PROXY", "SOCKS_PROXY", "WSS_PROXY", "all_proxy", "FTP_PROXY"])
def test_no_other_variable_counts(other):
    assert proxy_for(SOCKET, {other: "socks5://127.0.0.1:9"}) is None
    assert proxy_for(SOCKET, {other: "socks5://127.0.0.1:9", "HTTPS_PROXY": PROXY}).host == "proxy.test"


def test_the_lower_case_wins_and_what_is_empty_is_not_set():
    assert proxy_for(REST, {"HTTPS_PROXY": PROXY, "https_proxy": "http://lower:1"}).host == "lower"
    assert proxy_for(REST, {"HTTPS_PROXY": PROXY, "https_proxy": ""}).host == "proxy.test"
    assert proxy_for(REST, {"HTTPS_PROXY": " ", "https_proxy": ""}) is None
    assert proxy_for(REST, {}) is None


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("http://proxy.test", "proxy.test", 80),
        ("HTTP://Proxy.Test:8080/", "proxy.test", 8080),
        ("proxy.test:8080", "proxy.test", 8080),
        ("http://[::1]:8080", "::1", 8080),
        (" http://10.0.0.1:8080 ", "10.0.0.1", 8080),
    ],
)
def test_usual_spellings_of_a_proxy_are_taken(value, host, port):
    assert proxy_for(REST, {"HTTPS_PROXY": value}) == Proxy("HTTPS_PROXY", host, port)


@pytest.mark.parametrize("scheme", ["https", "socks5", "socks5h", "socks4", "ftp", "wss", "file"])
@pytest.mark.parametrize("url", [REST, SOCKET])
def test_a_scheme_that_cannot_be_used_is_refused_by_name_for_rest_and_websocket_alike(url, scheme):
    with pytest.raises(ProxyError, match=f"HTTPS_PROXY='{scheme}://proxy.test:1080'.*only one of http://"):
        proxy_for(url, {"HTTPS_PROXY": f"{scheme}://proxy.test:1080"})


@pytest.mark.parametrize(
    "value",
    [
        "http://",
        "http://:3128",
        "http://proxy.test:0",
        "http://proxy.test:99999",
        "http://proxy.test:port",
        "http://proxy.test:3128/path",
        "http://proxy.test:3128?a=b",
        "http://proxy.test:3128#a",
        "http://proxy test:3128",
        "http://[::1:3128",
        "://proxy.test",
    ],
)
def test_what_is_no_address_of_a_proxy_is_refused(value):
    with pytest.raises(ProxyError, match=r"^HTTPS_PROXY="):
        proxy_for(REST, {"HTTPS_PROXY": value})


@pytest.mark.parametrize(
    "value",
    [
        "socks5://user:s3cret@proxy.test:1080",
        "http://user:s3cret@proxy.test:port",
        "http://user:s3/cret@proxy.test:3128",
        "http://user:s3#cret@proxy.test:3128",
        "http://us@er:s3cret@proxy.test:0",
        "user:s3cret@proxy.test:0",
    ],
)
def test_no_error_shows_a_password(value):
    with pytest.raises(ProxyError) as refused:
        proxy_for(REST, {"HTTPS_PROXY": value})

    assert "proxy.test" in str(refused.value)
    assert "cret" not in "".join(traceback.format_exception(refused.value)).replace(value, "")


@given(
    user=st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), min_size=1),
    password=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_user_and_password_reach_the_proxy_as_they_are_and_are_shown_nowhere(user, password):
    """A property: whatever the characters, once they are %-codes; both libraries get the same."""
    proxy = Proxy("HTTPS_PROXY", "proxy.test", 3128, user, password)

    again = proxy_for(REST, {"HTTPS_PROXY": proxy.url})

    assert again == proxy
    code = proxy.headers["Proxy-Authorization"].removeprefix("Basic ")
    assert base64.b64decode(code).decode() == f"{user}:{password}"
    assert str(proxy) == "the proxy of HTTPS_PROXY (http://proxy.test:3128)"
    assert repr(proxy) == "Proxy(setting='HTTPS_PROXY', host='proxy.test', port=3128)"


def test_a_user_without_a_password_is_one_with_an_empty_one():
    assert proxy_for(REST, {"HTTPS_PROXY": "http://token@proxy.test"}).url == "http://token:@proxy.test:80"


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("*", REST, True),
        ("www.okx.com", REST, True),
        ("www.okx.com", SOCKET, False),
        ("okx.com", REST, True),
        ("okx.com", SOCKET, True),
        (".okx.com", SOCKET, True),
        ("*.okx.com", SOCKET, True),
        ("OKX.com", REST, True),
        ("kx.com", REST, False),
        ("okx.com.test", REST, False),
        ("localhost, ,127.0.0.1,okx.com", REST, True),
        ("localhost okx.com", REST, True),
        ("localhost,127.0.0.1,::1", REST, False),
        ("ws.okx.com:8443", SOCKET, True),
        ("ws.okx.com:443", SOCKET, False),
        ("www.okx.com:443", REST, True),
        ("127.0.0.1", "wss://127.0.0.1:9/ws", True),
        ("127.0.0.1:8", "wss://127.0.0.1:9/ws", False),
        ("127.0.0.0/8", "wss://127.1.2.3:9/ws", True),
        ("10.0.0.0/8,192.168.0.0/16", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", REST, False),
        ("::1", "https://[::1]:8443", True),
        ("[::1]", "https://[::1]:8443", True),
        ("[::1]:8443", "https://[::1]:8443", True),
        ("[::1]:8444", "https://[::1]:8443", False),
        ("0.0.1", "https://127.0.0.1", False),
        (",;/[]:-*..", REST, False),
        ("", REST, False),
    ],
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_what_no_proxy_names_is_reached_directly_and_nothing_else(name, no_proxy, url, direct):
    found = proxy_for(url, {"HTTPS_PROXY": PROXY, name: no_proxy})

    assert (found is None) == direct


@given(st.text())
def test_no_list_of_exceptions_is_too_odd(no_proxy):
    proxy_for(REST, {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy})


@given(st.text())
def test_of_whatever_is_set_a_proxy_is_made_or_the_setting_is_named(value):
    try:
        found = proxy_for(REST, {"HTTPS_PROXY": value})
    except ProxyError as error:
        assert str(error).startswith("HTTPS_PROXY=")  # noqa: PT017 - either is right
    else:
        assert found is None or proxy_for(REST, {"HTTPS_PROXY": found.url}) == found


def test_a_proxy_that_cannot_be_used_does_not_matter_where_it_is_not():
    assert proxy_for(REST, {"HTTPS_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "okx.com"}) is None


def test_a_file_of_settings_fills_in_what_the_environment_lacks():
    environment = {"https_proxy": "http://environment:1", "NO_PROXY": ""}

    take_over({"HTTPS_PROXY": "http://file:1", "no_proxy": "here", "TOP_N": "7"}, environment)

    assert environment == {"https_proxy": "http://environment:1", "NO_PROXY": "here", "no_proxy": "here"}
