"""Python's collector of cycles stops every thread while it runs: it must not walk over what never goes away."""

from __future__ import annotations

import gc


def keep_all_there_is() -> None:
    """Once, when the model is loaded and nothing plays yet: what lives now is never looked at again.

    A full collection walks over every container there is. With torch and the model's classes those are 440,000,
    which takes 0.2 to 0.3 s on the machine of docs/reliability.md; meanwhile no packet leaves and no chunk goes
    on. Afterwards it takes some milliseconds, for those of viewers and chunks.
    """
    gc.collect()
    gc.freeze()
    # The collector decides by the size of what it found last when the next full collection is worth it.
    gc.collect()
