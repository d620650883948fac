"""The last ranking on disk: a Redis that forgets everything, and a ranker that starts anew, lose no ranking. I/O.

Who was in the universe until when is nowhere else, until the writer has stored it.
"""

from pathlib import Path

import msgspec
import structlog

from shared.dataset import RANKING_FILE
from shared.durable import replace_text
from shared.events import Ranking

log = structlog.get_logger()


def keep(folder: Path, ranking: Ranking) -> None:
    """Keep a ranking, whole and durably. Raises `OSError`."""
    replace_text(folder / RANKING_FILE, msgspec.json.encode(ranking).decode() + "\n")


def kept(folder: Path) -> Ranking | None:
    """Return the ranking that was kept last; None where there is none, or none that can be read."""
    try:
        return msgspec.json.decode((folder / RANKING_FILE).read_bytes(), type=Ranking)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        log.warning("last ranking cannot be read, going on without it", error=str(error))
        return None
