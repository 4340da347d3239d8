"""RunPod's entry point: settings, boot, job loop."""

import sys

from morpheus_worker import boot, entry
from morpheus_worker.reporting import to_runpod
from morpheus_worker.runner import JobRunner


def main() -> None:
    boot.check_test_input(sys.argv)
    settings = entry.configured()
    progress_line = to_runpod if boot.has_job_server(sys.argv) else None
    with (
        boot.started(settings) as worker,
        JobRunner(worker, concurrency=settings.concurrency, progress_line=progress_line) as runner,
    ):
        import runpod

        runpod.serverless.start({"handler": runner.handle, "concurrency_modifier": lambda _now: settings.concurrency})


if __name__ == "__main__":
    sys.exit(entry.reported(main))
