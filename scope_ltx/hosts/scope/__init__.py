"""The Daydream Scope host: `pipeline_class` is what its plugin registers."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def pipeline_class() -> type[Any]:
    """The same class however often it is asked for. Raises ImportError where the host is not installed.

    It remembers no instance; a loaded model is known to it for as long as an instance holds it.
    """
    # Only here: the host, torch and the model's libraries take seconds.
    from scope_ltx.hosts.scope import loading  # noqa: PLC0415
    from scope_ltx.hosts.scope.host_api import import_host  # noqa: PLC0415
    from scope_ltx.hosts.scope.node import Parts, build_pipeline_class  # noqa: PLC0415
    from scope_ltx.hosts.scope.weights import SharedWeights  # noqa: PLC0415
    from scope_ltx.hosts.scope.worker import worker_thread  # noqa: PLC0415
    from scope_streaming.clock import SystemClock  # noqa: PLC0415

    clock = SystemClock()
    parts = Parts(
        clock=clock,
        workers=worker_thread,
        weights=SharedWeights(clock, loading.device_nbytes, loading.empty_caches),
        find=loading.find_model,
        identity=loading.identity_of,
        load=loading.model_loader(),
    )
    return build_pipeline_class(import_host(), parts)
