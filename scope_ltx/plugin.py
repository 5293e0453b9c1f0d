"""What the Daydream Scope host loads first: the module its entry point group `scope` names.

Light on purpose. The host imports this at every start, in the order of all its plugins, and calls the hook twice:
once to register, once more, positionally, to learn which package owns which pipeline. An exception here would take
every other plugin's registration with it, so a failure is logged with its reason and nothing is registered.
Imports neither torch nor the host; the pipeline is imported when the hook is called.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

HOOK_PROJECT = "scope"
"""The name of the host's plugin manager; its `hookimpl` is a marker made for this name."""


def _make_hookimpl() -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The host's marker. Without pluggy there is no host that could look for it, and the hook stays unmarked."""
    try:
        from pluggy import HookimplMarker  # noqa: PLC0415 - the host brings it
    except ImportError:
        return lambda function: function
    return HookimplMarker(HOOK_PROJECT)


hookimpl = _make_hookimpl()


@hookimpl
def register_pipelines(register: Callable[[type[Any]], object]) -> None:
    """Hand the pipeline class to the host. Never raises; the same class however often it is called."""
    try:
        from scope_ltx.hosts.scope import pipeline_class  # noqa: PLC0415 - needs torch and the host

        register(pipeline_class())
    except Exception as error:  # what any import or the host's registry may raise: other plugins must go on
        logger.error("LTX-2.3 is not available: %s", _reason(error), exc_info=error)


def _reason(error: Exception) -> str:
    """One sentence with what to do."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ImportError):
        return f"{text}. Install the plugin again (`daydream-scope install scope-ltx`), then restart the server"
    return f"{text}. `scope-ltx doctor` tells what is wrong with this installation"
