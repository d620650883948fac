"""`python -m cli.docs.env_example`: prints `.env.example`, the catalogue of all settings."""

from services.api.settings import ApiSettings
from services.collector.settings import CollectorSettings
from services.converter.settings import ConverterSettings
from services.ranker.settings import RankerSettings
from services.writer.settings import WriterSettings
from shared.runtime.settings import CommonSettings, RawSettings, catalogue

KINDS = (
    CommonSettings,
    RankerSettings,
    RawSettings,
    CollectorSettings,
    WriterSettings,
    ConverterSettings,
    ApiSettings,
)

_PROXY = """
# --- A proxy between this machine and the exchange; the environment may name it as well, in upper or lower case
# For https:// and wss://: http://host:port or http://user:password@host:port; unset: directly
#HTTPS_PROXY=
# The same for an OKX_REST_URL of http://
#HTTP_PROXY=
# Hosts reached directly, separated by commas: names with all that end in them, addresses, networks, host:port, *
#NO_PROXY=
"""

_DOCKER = """
# --- Docker Compose: beside the settings above, as far as they have a meaning in a container
# Password of the Redis in the network of the containers: letters, digits, - and _
#REDIS_PASSWORD=not-published
# Profile sim: more arguments of the simulator, such as --speed 60
#SIM_ARGS=
# Profile sim: a folder with a recording to replay; left out, the market is generated
#SIM_DATA_DIR=
# Profile research: the port of Jupyter on this machine, and its token; left out, Jupyter makes one up and logs it
#JUPYTER_PORT=8888
#JUPYTER_TOKEN=
"""


def example() -> str:
    """Return the text of `.env.example`."""
    return catalogue(list(KINDS)) + _PROXY + _DOCKER


if __name__ == "__main__":
    print(example(), end="")  # noqa: T201 - what the command is for
