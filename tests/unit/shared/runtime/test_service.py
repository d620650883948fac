"""How a service starts, without its surroundings."""

import pytest

from shared.runtime.service import running
from shared.runtime.settings import CommonSettings


async def test_an_address_that_is_not_of_this_machine_is_named_as_the_host_it_is(capsys):
    settings = CommonSettings(_env_file=None, metrics_host="192.0.2.1")

    with pytest.raises(SystemExit) as stopped:
        async with running("ranker", settings, metrics_port=9101):
            pass

    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "METRICS_HOST='192.0.2.1'" in said
    assert "RANKER_METRICS_PORT" not in said
