"""Build the HTTP application over the sources of its answers."""

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from services.api.alerts.loop import AlertLoop
from services.api.disk import DiskReader
from services.api.health.snapshot import Sources
from services.api.routes import completeness, data, system

_DESCRIPTION = "Is it healthy? Lag, freshness, universe and data of qlib-crypto. Read only."


def create_app(sources: Sources, alert_loop: AlertLoop | None = None) -> FastAPI:
    """Return the application over some sources. Its /docs needs no internet."""
    app = FastAPIOffline(title="qlib-crypto", description=_DESCRIPTION)
    app.state.sources = sources
    app.state.alert_loop = alert_loop or AlertLoop(sources)
    app.state.disk = DiskReader(sources.data_dir, sources.qlib_dir)
    for routes in (system, data, completeness):
        app.include_router(routes.router)
    return app
