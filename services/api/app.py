"""Wire the questions to where the answers come from."""

from fastapi import FastAPI

from services.api.datasets import DiskReader
from services.api.routes import router
from services.api.snapshot import Sources
from services.api.status import Limits

_DESCRIPTION = "Is it healthy? Lag, freshness, universe and data of qlib-crypto. Read only."


def create_app(sources: Sources, limits: Limits | None = None) -> FastAPI:
    """Return the application over some sources."""
    app = FastAPI(title="qlib-crypto", description=_DESCRIPTION)
    app.state.sources = sources
    app.state.limits = limits or Limits()
    app.state.disk = DiskReader(sources.data_dir, sources.qlib_dir)
    app.include_router(router)
    return app
