"""aiobotocore's HTTP session with a size limit on responses that it reads whole: listings and errors.

Tested with aiobotocore 3.10 and aiohttp 3.14. Object bodies are read in pieces, and their reader limits them.
"""

from functools import cache
from typing import Any


@cache
def bounded_session(limit: int) -> type[Any]:
    """A session class for `AioConfig(http_session_cls=...)` that rejects responses of more than `limit` bytes."""
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
                        raise ClientPayloadError(f"a response that is not a file has more than {limit:,} bytes")
                self._body = bytes(data)
                await self.wait_for_close()
            return self._body

    class BoundedSession(AIOHTTPSession):  # type: ignore[misc]
        async def _get_session(self, proxy_url: str | None) -> Any:
            session = await super()._get_session(proxy_url)
            session._response_class = BoundedResponse
            return session

    return BoundedSession
