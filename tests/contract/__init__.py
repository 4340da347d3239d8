"""The contract between worker and ComfyUI: scenarios, what is recorded of them, and what must be true of it."""

import pytest

# Before they are imported, so that a failed assertion in them shows its values.
pytest.register_assert_rewrite(
    *(f"{__name__}.{judge}" for judge in ("assert_failures", "assert_results", "assert_sockets", "checks", "story"))
)
