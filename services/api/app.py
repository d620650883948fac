"""Build the HTTP application over the sources of its answers."""

from functools import partial

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from services.api.alerts.loop import AlertLoop
from services.api.disk import DiskReader
from services.api.health.moment import FRESH_SECONDS, Moments
from services.api.health.snapshot import Sources, read_snapshot
from services.api.heavy import MOST_AT_ONCE, WAIT_SECONDS, Turns
from services.api.routes import completeness, data, system

_DESCRIPTION = f"""Is it healthy? Lag, freshness, universe and data of qlib-crypto. Read only.

What comes from Redis is read at most once in {FRESH_SECONDS:g} s, and answers everyone who asks within it; no \
answer is older. `/ledger`, `/gaps` and `/completeness` take processor time: {MOST_AT_ONCE} of them are made at a \
time, and one that gets no turn within {WAIT_SECONDS:g} s is answered with 503 and `Retry-After`."""


def create_app(
    sources: Sources,
    alert_loop: AlertLoop | None = None,
    *,
    fresh_seconds: float = FRESH_SECONDS,
    turns: Turns | None = None,
) -> FastAPI:
    """Return the application over some sources. Its /docs needs no internet.

    Args:
        sources: Where the answers come from.
        alert_loop: What /alerts shows.
        fresh_seconds: For how long a snapshot answers requests; 0: each has its own.
        turns: How many heavy requests are answered at a time.

    """
    app = FastAPIOffline(title="qlib-crypto", description=_DESCRIPTION)
    app.state.sources = sources
    app.state.alert_loop = alert_loop or AlertLoop(sources)
    app.state.moments = Moments(partial(read_snapshot, sources), fresh_seconds)
    app.state.turns = turns or Turns()
    app.state.disk = DiskReader(sources.data_dir, sources.qlib_dir)
    for routes in (system, data, completeness):
        app.include_router(routes.router)
    return app
