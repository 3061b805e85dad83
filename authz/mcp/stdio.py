"""A server that is a command: it reads messages from its standard input and writes them to its standard output."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from typing import Final, Self, final

from authz.errors import UnavailableError, UsageError

__all__ = ["StdioServer"]

_GRACE_SECONDS: Final = 5.0


@final
class StdioServer:
    """The command, in a process group of its own. Its standard error is that of this process.

    Args:
        command: Program and its arguments; never read by a shell.
        max_message: Bytes of the largest message of the server.
    """

    def __init__(self, command: Sequence[str], max_message: int) -> None:
        self._command = command
        self._max_message = max_message
        self._process: asyncio.subprocess.Process | None = None
        self._status: int | None = None

    async def __aenter__(self) -> Self:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=self._max_message,
                process_group=0,
            )
        except OSError as error:
            raise UsageError(f"{self._command[0]}: {error.strerror}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise UnavailableError("the server was not started")
        return self._process

    async def send(self, text: str) -> None:
        """Send a message; a server that reads no more gets none."""
        stream = self._started.stdin
        if stream is None or stream.is_closing():
            return
        with contextlib.suppress(ConnectionError):
            stream.write(text.encode() + b"\n")
            await stream.drain()

    async def messages(self) -> AsyncIterator[bytes]:
        """Read messages until the server closes its standard output.

        Yields:
            Lines.

        Raises:
            UnavailableError: A message is larger than the limit.
        """
        stream = self._started.stdout
        while stream is not None:
            try:
                line = await stream.readuntil()
            except asyncio.IncompleteReadError as end:
                if end.partial.strip():
                    yield end.partial
                return
            except asyncio.LimitOverrunError as error:
                raise UnavailableError(
                    f"a message of the server is larger than {self._max_message} bytes; see --max-message"
                ) from error
            if line.strip():
                yield line

    async def finish(self) -> None:
        """Tell the server that no further message comes."""
        stream = self._started.stdin
        if stream is not None:
            stream.close()

    async def stop(self) -> int:
        """End the server: close its input, then SIGTERM, then SIGKILL, each after some seconds.

        Returns:
            Its exit status; 128 and the signal's number if a signal ended it.
        """
        if self._status is not None:
            return self._status
        process = self._started
        await self.finish()
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            if number:
                self._signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_SECONDS):
                    await process.wait()
            if process.returncode is not None:
                break
        # What the command started and left behind ends with it.
        self._signal(signal.SIGKILL)
        code = process.returncode if process.returncode is not None else -signal.SIGKILL
        self._status = code if code >= 0 else 128 - code
        return self._status

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._started.pid, number)
