"""Structured logs: one line an event, JSON or console, the request id on every line.

Texts of callers and API keys never appear.
"""

import logging
import sys

import structlog

from services.runtime.keys import masked
from services.runtime.settings import RuntimeSettings


def configure_logging(settings: RuntimeSettings) -> None:
    """Send structlog and the standard library's loggers through one renderer on standard error."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        # The pretty traceback prints local variables, and with them the texts of callers.
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *([structlog.processors.format_exc_info] if settings.log_format == "json" else []),
            renderer,
            _mask_keys,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # Libraries that talk at INFO about every request or download.
    for noisy in ("httpx2", "httpcore2", "uvicorn", "uvicorn.error", "asyncio", "urllib3"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(root.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _mask_keys(_: object, __: str, line: structlog.typing.EventDict | str | bytes) -> str:
    """The last of the chain: whatever wrote an API key into a line, a message or a stack, it is not printed."""
    return masked(str(line))
