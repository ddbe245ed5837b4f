"""aiobotocore's HTTP session with a bound on answers that it reads as a whole: lists and errors.

Tried with aiobotocore 3.10 and aiohttp 3.14. Bodies of objects are read in pieces and are bounded by their reader.
"""

from functools import cache
from typing import Any


@cache
def bounded_session(limit: int) -> type[Any]:
    """The session class of aiobotocore (`AioConfig(http_session_cls=...)`) whose answers hold at most `limit` bytes."""
    from aiobotocore.httpsession import AIOHTTPSession
    from aiohttp import ClientPayloadError, ClientResponse

    class BoundedResponse(ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                data = bytearray()
                async for piece in self.content.iter_any():
                    data += piece
                    if len(data) > limit:
                        self.close()
                        raise ClientPayloadError(f"an answer that is no file has more than {limit:,} bytes")
                self._body = bytes(data)
                await self.wait_for_close()
            return self._body

    class BoundedSession(AIOHTTPSession):  # type: ignore[misc]
        async def _get_session(self, proxy_url: str | None) -> Any:
            session = await super()._get_session(proxy_url)
            session._response_class = BoundedResponse
            return session

    return BoundedSession
