"""`python -m launch.env_example`: prints `.env.example`, the catalogue of all settings."""

from services.api.settings import ApiSettings
from services.collector.settings import CollectorSettings
from services.converter.settings import ConverterSettings
from services.ranker.settings import RankerSettings
from services.writer.settings import WriterSettings
from shared.settings import CommonSettings, catalogue

KINDS = (CommonSettings, RankerSettings, CollectorSettings, WriterSettings, ConverterSettings, ApiSettings)

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
    return catalogue(list(KINDS)) + _DOCKER


if __name__ == "__main__":
    print(example(), end="")  # noqa: T201 - what the command is for
