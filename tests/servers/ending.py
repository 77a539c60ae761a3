"""How every server of the tests' own is ended."""

from __future__ import annotations

import signal
import subprocess

PATIENCE_S = 15.0


class Ending:
    """A server whose process, if it runs, is `_process`."""

    _process: subprocess.Popen[bytes] | None = None

    def stop(self) -> None:
        """Ask it to end, and end it if it does not."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE_S)
