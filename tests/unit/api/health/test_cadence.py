"""When results are due: as heartbeats have it, else as settings are by default."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.api.health.cadence import cadence_of
from services.converter.settings import ConverterSettings
from services.ranker.settings import RankerSettings
from services.writer.settings import WriterSettings
from shared.bus.heartbeat import Cadence


@pytest.mark.parametrize(
    ("service", "settings"), [("ranker", RankerSettings), ("writer", WriterSettings), ("converter", ConverterSettings)]
)
def test_service_that_publishes_no_cadence_is_taken_to_be_set_to_its_defaults(healthy, service, settings):
    """A heartbeat of an older version has none."""
    assert cadence_of(service, healthy.heartbeats) == cadence_of(service, {}) == settings.model_construct().cadence


def test_minutes_are_on_their_way_for_as_long_as_the_writer_holds_rows(healthy, make_beat, now):
    beat = make_beat("writer", cadence=WriterSettings(flush_seconds=300).cadence)
    slow = replace(healthy, heartbeats={**healthy.heartbeats, "writer": beat})

    assert healthy.arrived_until == now - timedelta(seconds=60 + 25 + 5)
    assert slow.arrived_until == now - timedelta(seconds=60 + 25 + 300)


@pytest.mark.parametrize(
    ("kind", "settings", "cadence"),
    [
        (RankerSettings, {"rank_every_hours": 1}, Cadence(3600)),
        (WriterSettings, {"flush_seconds": 0.5}, Cadence(0.5)),
        (ConverterSettings, {"convert_at": "04:30"}, Cadence(86_400, delay_seconds=16_200)),
        (ConverterSettings, {"convert_at": "04:30", "convert_every": 60}, Cadence(60)),
    ],
)
def test_cadence_of_a_service_follows_from_its_settings(kind, settings, cadence):
    assert kind(**settings).cadence == cadence
