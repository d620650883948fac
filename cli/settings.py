"""Settings that commands need themselves; everything else goes through to the services untouched."""

from typing import Annotated

from pydantic import Field

from shared.runtime.settings import CommonSettings


class CommandSettings(CommonSettings):
    """What a command must know to start the system, or to find it."""

    api_port: Annotated[int, Field(ge=0, le=65535, description="Port of the api; 0: any free one")] = 8000
