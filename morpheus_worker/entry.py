"""What every entry point does first and last: read the environment once, and end with an exit code and a sentence."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import Final

from morpheus_worker import logs
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.settings import Settings, SettingsError, unknown_settings

log = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
EXIT_TERMINATED: Final = 128 + signal.SIGTERM


def reported(main: Callable[[], None]) -> int:
    """Runs a program and returns its exit code; what stops it is said in one sentence, not in a traceback."""
    try:
        main()
    except SettingsError as failure:
        log.error("%s", failure)
        return EXIT_USAGE
    except MorpheusError as failure:
        log.error("%s", failure.message, extra={"code": failure.code, "details": failure.details})
        return EXIT_USAGE if failure.code == Code.INVALID_INPUT else EXIT_FAILED
    return EXIT_OK


def configured(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process's environment, with logging set up by them and misspelt names warned about.

    Raises:
        SettingsError: with every setting that is wrong.
    """
    environ = dict(os.environ) if environ is None else environ
    logs.configure("auto", "INFO")
    settings = Settings.from_environment(environ)
    logs.configure(settings.log_format, settings.log_level)
    for problem in unknown_settings(environ):
        log.warning("%s", problem)
    return settings
