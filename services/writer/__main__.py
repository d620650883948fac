"""`python -m services.writer`: reads the bus, makes rows durable, then acknowledges."""

import asyncio

from services.writer.settings import WriterSettings
from services.writer.writer import Writer
from shared.runtime.command import run
from shared.runtime.service import running
from shared.runtime.settings import read_settings


async def serve(settings: WriterSettings) -> None:
    """Run the writer until it is stopped."""
    async with running("writer", settings, metrics_port=settings.writer_metrics_port) as service:
        await Writer(service, settings).run()


def main() -> None:
    """Store every event of the bus in deduplicated Parquet under DATA_DIR.

    Settings come from the environment and `.env`; see .env.example.
    """
    asyncio.run(serve(read_settings(WriterSettings)))


if __name__ == "__main__":
    run(main)
