"""From settings to a running agent: executor, node, front door, signals."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys

import msgspec

from agent.api.listening import SocketUnusable
from agent.api.server import ApiServer
from agent.node.executors import make_executor
from agent.node.node import NodeAgent
from agent.node.settings import Settings, SettingsError, program_version

logger = logging.getLogger("agent")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class JsonLines(logging.Formatter):
    """A log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def configure_logging(settings: Settings) -> None:
    """Everything to stderr, as text or as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines() if settings.log_json else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)


async def run(settings: Settings) -> int:
    """Run the agent until SIGTERM or SIGINT; the exit status. What keeps it from starting is said on stderr."""
    configure_logging(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.socket.parent.mkdir(parents=True, exist_ok=True)
        executor = await make_executor(settings)
    except (SettingsError, OSError) as error:
        logger.critical("%s", error)
        return 1
    node = NodeAgent(settings, executor)
    try:
        # Loading makes many objects that stay: collecting meanwhile finds nothing, and later costs a pass over them all.
        gc.disable()
        await node.start()
        gc.collect()
        gc.freeze()
        gc.enable()
        async with ApiServer(node, str(settings.socket)):
            logger.info("swarmtui-agent %s answers on %s", program_version(), settings.socket)
            await stop.wait()
            logger.info("stopping; tasks go on")
            await node.hand_over()
    except SocketUnusable as error:
        logger.critical("%s", error)
        return 1
    finally:
        await node.stop()
        await executor.close()
    return 0
