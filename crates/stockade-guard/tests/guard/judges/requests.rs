//! Requests that readers disagree about: a table, and mutations of it from a seed.

/// Bytes that a client says; `HOST` and `CASE` are filled in.
pub(super) struct Case(Vec<u8>);

impl Case {
    /// The bytes, and behind them a request that tells whether both sides still agree on where one begins. To a
    /// proxy both name their whole URL, where they have a path.
    pub(super) fn bytes(&self, at: usize, host: &str, proxied: bool) -> Vec<u8> {
        let own = replaced(
            &replaced(&self.0, b"HOST", host.as_bytes()),
            b"CASE",
            at.to_string().as_bytes(),
        );
        let last = format!("GET /last HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes();
        [own, last]
            .map(|bytes| if proxied { whole(bytes, host) } else { bytes })
            .concat()
    }
}

/// A request whose target is a path, with its whole URL.
fn whole(mut bytes: Vec<u8>, host: &str) -> Vec<u8> {
    if let Some(at) = bytes.windows(2).position(|pair| pair == b" /") {
        bytes.splice(at + 1..at + 1, format!("http://{host}").into_bytes());
    }
    bytes
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(from) {
            out.extend_from_slice(to);
            at += from.len();
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// The table, and so many mutations of it.
pub(super) fn all(seed: u64, generated: usize) -> Vec<Case> {
    let table = table();
    let mut chance = Chance(seed);
    let made: Vec<Case> = (0..generated).map(|_| mutated(&table, &mut chance)).collect();
    table.into_iter().map(Case).chain(made).collect()
}

/// Request targets.
const TARGETS: &[&str] = &[
    "/",
    "/x?y=1",
    "/%61/b",
    "/a%2fb",
    "/a%2Fb",
    "/a%5cb",
    "/a\\b",
    "/./x",
    "/a/../b",
    "/a/%2e%2e/b",
    "/..;/b",
    "/a;p=1/b",
    "//HOST/x",
    "/a//b",
    "/%",
    "/%zz",
    "/%00",
    "/%0d%0aX:y",
    "/%252e%252e/",
    "/\u{ff0f}",
    "/a?b#c",
    "/#c",
    "/a b",
    "/\t",
    "http://HOST/x",
    "http://HOST",
    "http://HOST?x",
    "http://HOST:80/x",
    "HTTP://HOST/x",
    "http://HOST./x",
    "https://HOST/x",
    "http://u@HOST/x",
    "http://evil.example@HOST/x",
    "http://HOST@evil.example/x",
    "http://evil.example/x",
    "http://HOST\\x",
    "http:/x",
    "http:///x",
    "*",
    "x",
    "HOST:80",
    "?x",
    "/x?a=http://HOST/&b=%2e%2e/",
    "/~user/%7Euser",
    "/{a}|\"b\"",
    "/caf%C3%A9",
];

/// Lines of a head beside `Host: HOST`.
const FIELDS: &[&str] = &[
    "Host: HOST",
    "Host: evil.example",
    "host: HOST:80",
    "Host : evil.example",
    " Host: evil.example",
    "Host:\tevil.example",
    "Host: HOST, evil.example",
    "Host: HOST evil.example",
    "Host: evil.example@HOST",
    "X-Host: evil.example",
    "X-Forwarded-Host: evil.example",
    "Content-Length: 0",
    "Content-Length: 4",
    "Content-Length: +4",
    "Content-Length: 4, 4",
    "Content-Length : 4",
    "content-length: 4\r\nContent-Length: 5",
    "Content-Length: 0x4",
    "Content-Length: -1",
    "Content-Length: 4 ",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: \x0bchunked",
    "X: y\r\n folded",
    "X: y\r\n\tTransfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "Connection: close, Host",
    "Connection: Content-Length",
    "Connection: keep-alive",
    "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk",
    "Expect: 100-continue",
    "TE: trailers",
    "Trailer: Host",
    "Range: bytes=0-1",
    "X: \0",
    "X\0: y",
    "X: \u{e9}",
    ": y",
    "X",
    "X_y: z",
    "Accept: */*",
    "Cookie: a=b; c=d",
];

/// What stands behind a head.
const BODIES: &[&str] = &[
    "",
    "body",
    "4\r\nbody\r\n0\r\n\r\n",
    "4;x=y\r\nbody\r\n0\r\nT: u\r\n\r\n",
    "4\nbody\n0\n\n",
    "04\r\nbody\r\n00\r\n\r\n",
    "4 \r\nbody\r\n0\r\n\r\n",
    "0x4\r\nbody\r\n0\r\n\r\n",
    "5\r\nbody\r\n0\r\n\r\n",
    "0\r\n\r\n",
    "0\r\nHost: evil.example\r\n\r\n",
    "4\r\nbodyXX0\r\n\r\n",
    "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: HOST\r\nX-Case: CASE\r\n\r\n",
    "fffffffffffffffff\r\nbody",
    "4;\u{e9}\r\nbody\r\n0\r\n\r\n",
    "4;x=\"\r\n\"\r\nbody\r\n0\r\n\r\n",
];

const METHODS: &[&str] = &[
    "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "GET2", "M-SEARCH", "TRACE", "CONNECT", "PRI",
];
const VERSIONS: &[&str] = &[
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/0.9",
    "http/1.1",
    "HTTP/1.1 ",
];

fn request(method: &str, target: &str, fields: &[&str], body: &str) -> Vec<u8> {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\nHost: HOST\r\nX-Case: CASE\r\n{fields}\r\n{body}").into_bytes()
}

fn table() -> Vec<Vec<u8>> {
    let mut table = Vec::new();
    table.extend(TARGETS.iter().map(|target| request("GET", target, &[], "")));
    table.extend(FIELDS.iter().map(|field| request("POST", "/field", &[field], "")));
    table.extend(
        BODIES
            .iter()
            .map(|body| request("POST", "/chunked", &["Transfer-Encoding: chunked"], body)),
    );
    table.extend(BODIES.iter().map(|body| {
        let length = format!("Content-Length: {}", body.len());
        request("POST", "/sized", &[&length], body)
    }));
    table.extend(METHODS.iter().map(|method| request(method, "/method", &[], "")));
    for both in [
        ["Content-Length: 4", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 4"],
    ] {
        table.extend(BODIES.iter().map(|body| request("POST", "/both", &both, body)));
    }
    for huge in [4000, 60_000, 70_000] {
        let field = format!("X: {}", "y".repeat(huge));
        table.push(request("GET", "/huge", &[&field], ""));
        table.push(request("GET", &format!("/{}", "z".repeat(huge)), &[], ""));
    }
    table.push(b"GET /bare HTTP/1.1\nHost: HOST\n\n".to_vec());
    table.push(b"GET /old HTTP/1.0\r\nHost: HOST\r\n\r\n".to_vec());
    table.push(b"GET /none HTTP/1.1\r\n\r\n".to_vec());
    table.push(b"\r\n\r\nGET /after HTTP/1.1\r\nHost: HOST\r\n\r\n".to_vec());
    table
}

/// Chance from a seed (xorshift64), the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    /// Three times of four one of the first.
    fn mostly<'a, T>(&mut self, plain: &'a [T], all: &'a [T]) -> &'a T {
        if self.below(4) == 0 {
            self.of(all)
        } else {
            self.of(plain)
        }
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// A request put together, or one of the table with bytes changed.
fn mutated(table: &[Vec<u8>], chance: &mut Chance) -> Case {
    let mut bytes = if chance.below(2) == 0 {
        put_together(chance)
    } else {
        chance.of(table).clone()
    };
    for _ in 0..chance.below(5).saturating_sub(2) {
        change(&mut bytes, chance);
    }
    Case(bytes)
}

fn put_together(chance: &mut Chance) -> Vec<u8> {
    let body = *chance.of(BODIES);
    let length = format!("Content-Length: {}", body.len());
    let framing = match chance.below(4) {
        0 => "Transfer-Encoding: chunked",
        1 => "X-None: y",
        _ => length.as_str(),
    };
    let mut fields = vec![framing];
    fields.extend((0..chance.below(2)).map(|_| *chance.of(FIELDS)));
    // Mostly plain, or hardly anything would get through and nothing be compared.
    let method = *chance.mostly(&["GET", "POST"], METHODS);
    let target = *chance.mostly(&["/x", "/x?y=1", "/%61/b", "/a;p=1/b"], TARGETS);
    let version = *chance.mostly(&["HTTP/1.1"], VERSIONS);
    let text = request(method, target, &fields, body);
    replaced(
        &text,
        b" HTTP/1.1\r\nHost: HOST\r\nX-Case",
        format!(" {version}\r\nHost: HOST\r\nX-Case").as_bytes(),
    )
}

fn change(bytes: &mut Vec<u8>, chance: &mut Chance) {
    // Mostly in the head of the request, where readers differ.
    let place = chance.below(bytes.len().min(200));
    match chance.below(7) {
        0 => drop(bytes.remove(place)),
        1 => bytes.insert(place, *chance.of(b"\r\n\t \0%/\\.;:,@#\x7f\xff")),
        2 => bytes[place] ^= 0x20,
        3 => bytes[place] = *chance.of(b"\r\n\t \0%/\\.;:,@#\x7f\xff"),
        4 => {
            let word: &[u8] = chance.of::<&[u8]>(&[
                b"%2e", b"%2f", b"/../", b"\r\n", b"\r\n ", b"HOST", b"%00", b"chunked", b";a=b",
            ]);
            bytes.splice(place..place, word.iter().copied());
        }
        5 => {
            let end = (place + 1 + chance.below(20)).min(bytes.len());
            let twice = bytes[place..end].to_vec();
            bytes.splice(place..place, twice);
        }
        _ => {
            if let Some(at) = bytes.windows(2).position(|pair| pair == b"\r\n") {
                bytes.remove(at);
            }
        }
    }
    if bytes.is_empty() {
        bytes.push(b'G');
    }
}
