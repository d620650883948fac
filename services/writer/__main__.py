"""`python -m services.writer`: reads the bus, makes rows durable, then acknowledges."""

import asyncio
import sys

import structlog

from services.writer.settings import WriterSettings
from services.writer.writer import LockLostError, Writer
from shared.runtime.command import run
from shared.runtime.exit_codes import ExitCode
from shared.runtime.service import running
from shared.runtime.settings import read_settings

log = structlog.get_logger()


async def serve(settings: WriterSettings) -> None:
    """Run the writer until it is stopped."""
    async with running("writer", settings, metrics_port=settings.writer_metrics_port) as service:
        try:
            await Writer(service, settings).run()
        except* LockLostError as lost:  # whoever supervises it starts it again; what was not acknowledged comes again
            log.critical("the folder is not ours any more", reasons=[str(one) for one in lost.exceptions])
            sys.exit(ExitCode.FINDING)


def main() -> None:
    """Store every event of the bus in deduplicated Parquet under DATA_DIR.

    Settings come from the environment and `.env`; see .env.example.
    """
    asyncio.run(serve(read_settings(WriterSettings)))


if __name__ == "__main__":
    run(main)
