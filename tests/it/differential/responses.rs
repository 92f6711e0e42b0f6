//! Responses of an instance, byte for byte: complete, truncated, framed in every way, invalid.

/// `(name, bytes, whether the instance then closes)`; a line feed stands for CRLF.
type Sent = (&'static str, &'static str, bool);

#[rustfmt::skip] // a line for each
pub(super) const RESPONSES: &[Sent] = &[
    ("length", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false),
    ("length of nothing", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", false),
    ("length, and the end", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", true),
    ("length, said to be the last", "HTTP/1.1 200 OK\nConnection: close\nContent-Length: 5\n\nhello", true),
    ("length, cut", "HTTP/1.1 200 OK\nContent-Length: 50\n\nhello", true),
    ("length, cut at once", "HTTP/1.1 200 OK\nContent-Length: 50\n\n", true),
    ("length twice", "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\nhello", false),
    ("length as a list", "HTTP/1.1 200 OK\nContent-Length: 5, 5\n\nhello", false),
    ("lengths that disagree", "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\nhello", false),
    ("length with a sign", "HTTP/1.1 200 OK\nContent-Length: +5\n\nhello", false),
    ("length and coding", "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n", false),
    ("length, and more", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello surplus", true),
    ("chunks", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n1\n!\n0\n\n", false),
    ("chunks of nothing", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n0\n\n", false),
    ("chunks with an extension", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5;a=b\nhello\n0;c\n\n", false),
    ("chunks with trailers", "HTTP/1.1 200 OK\nTrailer: X-T\nTransfer-Encoding: chunked\n\n5\nhello\n0\nX-T: 1\n\n", false),
    ("chunks without the last", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n", true),
    ("chunks cut within one", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nhel", true),
    ("chunks cut at once", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", true),
    ("chunks of an odd size", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\nxx\nhello\n0\n\n", true),
    ("chunks longer than they say", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nhello\n0\n\n", true),
    ("coding unknown", "HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\nhello", true),
    ("coding twice", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n", true),
    ("until the end", "HTTP/1.1 200 OK\n\nhello", true),
    ("until the end, HTTP/1.0", "HTTP/1.0 200 OK\n\nhello", true),
    ("nothing until the end", "HTTP/1.1 200 OK\n\n", true),
    ("chunks, HTTP/1.0", "HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n", true),
    ("HTTP/1.0, kept alive", "HTTP/1.0 200 OK\nConnection: keep-alive\nContent-Length: 5\n\nhello", false),
    // statuses
    ("204", "HTTP/1.1 204 No Content\n\n", false),
    ("204 with a length", "HTTP/1.1 204 No Content\nContent-Length: 5\n\n", false),
    ("204 with a coding", "HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\n\n", false),
    ("304", "HTTP/1.1 304 Not Modified\nETag: \"1\"\n\n", false),
    ("304 with a length", "HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n", false),
    ("205", "HTTP/1.1 205 Reset Content\nContent-Length: 0\n\n", false),
    ("206", "HTTP/1.1 206 Partial Content\nContent-Range: bytes 0-4/10\nContent-Length: 5\n\nhello", false),
    ("401", "HTTP/1.1 401 Unauthorized\nWWW-Authenticate: Bearer\nContent-Length: 5\n\nhello", false),
    ("403", "HTTP/1.1 403 Forbidden\nContent-Length: 5\n\nhello", false),
    ("407", "HTTP/1.1 407 Proxy Authentication Required\nProxy-Authenticate: Basic\nContent-Length: 0\n\n", false),
    ("408", "HTTP/1.1 408 Request Timeout\nConnection: close\nContent-Length: 0\n\n", true),
    ("426", "HTTP/1.1 426 Upgrade Required\nUpgrade: h2c\nConnection: Upgrade\nContent-Length: 0\n\n", false),
    ("429", "HTTP/1.1 429 Too Many Requests\nRetry-After: 1\nContent-Length: 0\n\n", false),
    ("500", "HTTP/1.1 500 Internal Server Error\nContent-Length: 5\n\nhello", false),
    ("503", "HTTP/1.1 503 Service Unavailable\nRetry-After: 5\nContent-Length: 0\n\n", false),
    ("599", "HTTP/1.1 599 Odd\nContent-Length: 0\n\n", false),
    ("999", "HTTP/1.1 999 Odd\nContent-Length: 0\n\n", false),
    ("no reason", "HTTP/1.1 200\nContent-Length: 5\n\nhello", false),
    ("an odd reason", "HTTP/1.1 200 Très bien\nContent-Length: 5\n\nhello", false),
    // interim ones
    ("100 unasked", "HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false),
    ("102 and 103", "HTTP/1.1 102 Processing\n\nHTTP/1.1 103 Early Hints\nLink: </x>\n\nHTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false),
    ("103, and the end", "HTTP/1.1 103 Early Hints\nLink: </x>\n\n", true),
    ("101 unasked", "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: x\n\n", true),
    // fields
    ("hop by hop", "HTTP/1.1 200 OK\nConnection: x-hop\nX-Hop: 1\nKeep-Alive: timeout=5\nProxy-Connection: close\nUpgrade: h2c\nContent-Length: 5\n\nhello", false),
    ("cookies", "HTTP/1.1 200 OK\nSet-Cookie: a=b\nSet-Cookie: c=d\nStrict-Transport-Security: max-age=1\nContent-Length: 5\n\nhello", false),
    ("an id of its own", "HTTP/1.1 200 OK\nX-Request-Id: theirs\nContent-Length: 5\n\nhello", false),
    ("fields twice", "HTTP/1.1 200 OK\nX-A: 1\nX-B: 2\nX-A: 3\nContent-Length: 5\n\nhello", false),
    ("folded", "HTTP/1.1 200 OK\nX-A: 1\n 2\nContent-Length: 5\n\nhello", false),
    ("a space before the colon", "HTTP/1.1 200 OK\nX-A : 1\nContent-Length: 5\n\nhello", false),
    ("high bytes", "HTTP/1.1 200 OK\nX-A: \u{e9}\nContent-Length: 5\n\nhello", false),
    ("encoded", "HTTP/1.1 200 OK\nContent-Encoding: gzip\nVary: Accept-Encoding\nContent-Length: 5\n\nhello", false),
    ("a redirect elsewhere", "HTTP/1.1 302 Found\nLocation: https://sso.example/x\nContent-Length: 0\n\n", false),
    ("a redirect within", "HTTP/1.1 302 Found\nLocation: /x?y\nContent-Length: 0\n\n", false),
    // no responses
    ("nothing, and the end", "", true),
    ("half a status line", "HTTP/1.1 20", true),
    ("half a head", "HTTP/1.1 200 OK\nContent-Len", true),
    ("words", "nonsense\n\n", true),
    ("HTTP/2", "HTTP/2.0 200 OK\nContent-Length: 5\n\nhello", true),
    ("HTTP/0.9", "<html>hello</html>", true),
    ("a status of words", "HTTP/1.1 OK\nContent-Length: 5\n\nhello", true),
    ("a status of two digits", "HTTP/1.1 20 OK\nContent-Length: 5\n\nhello", true),
    ("NULs", "\0\0\0\0\n\n", true),
    ("no colon", "HTTP/1.1 200 OK\nX\nContent-Length: 5\n\nhello", true),
    ("a head of line feeds", "HTTP/1.1 200 OK\u{a}Content-Length: 5\u{a}\u{a}hello", true),
];

/// The nth response's bytes (Latin-1).
pub(super) fn bytes(nth: usize) -> Vec<u8> {
    let text = RESPONSES[nth].1.replace('\n', "\r\n");
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}
