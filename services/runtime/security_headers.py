"""Headers that tell a browser to do as little as possible with an answer. Pure: headers in, headers out."""

Headers = list[tuple[bytes, bytes]]

_ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
}
# Data: nothing of it may load, run or be framed.
_DATA = b"default-src 'none'; frame-ancestors 'none'"
_PAGE = b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
# FastAPI's page is an inline script that loads Swagger UI from the network; it shows no text of callers.
_DOCS = (
    b"default-src 'none'; script-src https: 'unsafe-inline'; style-src https: 'unsafe-inline'; img-src https: data:; "
    b"connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def with_security_headers(headers: Headers, path: str) -> Headers:
    """The headers of a response to `path`, with those added that it does not set itself."""
    present = dict(headers)
    html = present.get(b"content-type", b"").startswith(b"text/html")
    policy = (_DOCS if path == "/docs" else _PAGE) if html else _DATA
    wanted = {**_ALWAYS, b"content-security-policy": policy}
    return [*headers, *((name, value) for name, value in wanted.items() if name not in present)]
