"""Rankings that Redis has lost are published again until they are on disk."""

from datetime import timedelta

from services.ranker.history import PATIENCE_SECONDS, not_stored
from tests.support.builders import a_ranking, minute

FIRST, SECOND = a_ranking("A", ranked_time=minute(0)), a_ranking("B", ranked_time=minute(480))


def test_a_ranking_is_published_again_once_the_writer_has_had_its_time_and_not_all_the_time():
    published = {}

    looks = [not_stored([FIRST], set(), published, seconds) for seconds in (0, 30, 59, 60, 61, 119, 120)]

    assert looks == [[], [], [], [FIRST], [], [], [FIRST]]


def test_one_that_is_stored_is_left_alone_and_an_older_one_that_is_not_is_found():
    published = {}
    not_stored([FIRST, SECOND], {SECOND.ranked_time}, published, 0.0)

    assert not_stored([FIRST, SECOND], {SECOND.ranked_time}, published, PATIENCE_SECONDS) == [FIRST]
    assert not_stored([FIRST, SECOND], {FIRST.ranked_time, SECOND.ranked_time}, published, 1e9) == []


def test_a_redis_that_goes_back_in_time_forgets_that_it_was_stored():
    published = {}
    assert not_stored([FIRST], {FIRST.ranked_time}, published, 0.0) == []
    not_stored([FIRST], set(), published, 1000.0)

    assert not_stored([FIRST], set(), published, 1000.0 + PATIENCE_SECONDS) == [FIRST]


def test_one_is_stored_although_a_file_holds_no_microseconds():
    ranking = a_ranking("A", ranked_time=minute(0) + timedelta(microseconds=5_999))
    published = {ranking.ranked_time: 0.0}

    assert not_stored([ranking], {minute(0) + timedelta(milliseconds=5)}, published, PATIENCE_SECONDS) == []
