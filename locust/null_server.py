"""A server that answers every request at once with nothing: against it, Locust measures only itself."""

from __future__ import annotations

import asyncio
import sys

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
END_OF_HEAD = b"\r\n\r\n"


class Nothing(asyncio.Protocol):
    """One connection; its requests have no body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        """Answers what is complete and keeps the rest."""
        *heads, self.received = (self.received + data).split(END_OF_HEAD)
        self.transport.write(ANSWER * len(heads))


async def main(port: int) -> None:
    """Serves on loopback until it is killed."""
    server = await asyncio.get_running_loop().create_server(Nothing, "127.0.0.1", port)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
