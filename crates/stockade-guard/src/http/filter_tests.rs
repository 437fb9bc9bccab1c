use proptest::prelude::*;
use tokio::io::AsyncReadExt;

use super::*;

/// Feeds bytes in pieces; gives back what passed and the fault.
async fn run(input: &[u8], piece: usize) -> (Vec<u8>, Option<Fault>) {
    let valve = Arc::<Valve>::default();
    let mut builder = Vec::new();
    for chunk in input.chunks(piece.max(1)) {
        builder.push(chunk.to_vec());
    }
    let mut filter = Filter::new(Pieces(builder.into()), BytesMut::new(), 4096, Arc::clone(&valve));
    let mut passed = Vec::new();
    let mut space = [0; 512];
    while let Ok(length @ 1..) = filter.read(&mut space).await {
        passed.extend_from_slice(&space[..length]);
    }
    (passed, valve.fault())
}

struct Pieces(std::collections::VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.pop_front() {
            buf.put_slice(&piece);
        }
        Poll::Ready(Ok(()))
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn well_formed_requests_pass_unchanged_in_any_pieces() {
    let input = [
        GET,
        "POST /x HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /x HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;ext=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HEAD / HTTP/1.0\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        GET,
    ]
    .concat();
    for piece in [1, 2, 3, 7, 64, 4096] {
        let (passed, fault) = run(input.as_bytes(), piece).await;
        assert_eq!(fault, None, "pieces of {piece}");
        assert_eq!(String::from_utf8_lossy(&passed), input, "pieces of {piece}");
    }
}

#[tokio::test]
async fn what_two_servers_could_read_differently_does_not_pass() {
    use Fault::{AmbiguousLength, ConnectMethod, HeaderTooLarge, MalformedRequest, NoHost};
    let head = |lines: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n");
    let chunked = |body: &str| format!("{}{body}", head("transfer-encoding: chunked"));
    let cases = [
        (head("content-length: 5\r\ntransfer-encoding: chunked"), AmbiguousLength),
        (head("transfer-encoding: chunked\r\ncontent-length: 5"), AmbiguousLength),
        (head("content-length: 5\r\ncontent-length: 6"), AmbiguousLength),
        (head("content-length: 5\r\ncontent-length: 5"), AmbiguousLength),
        (head("content-length: 5, 5"), AmbiguousLength),
        (head("content-length: +5"), AmbiguousLength),
        (head("content-length: 0x5"), AmbiguousLength),
        (head("content-length: "), AmbiguousLength),
        (head("content-length: 99999999999999999999"), AmbiguousLength),
        (head("transfer-encoding: gzip, chunked"), AmbiguousLength),
        (head("transfer-encoding: xchunked"), AmbiguousLength),
        (
            head("transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
            AmbiguousLength,
        ),
        (head("transfer-encoding: identity"), AmbiguousLength),
        (
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
            AmbiguousLength,
        ),
        (chunked("5\nhello\r\n0\r\n\r\n"), AmbiguousLength),
        (chunked("-1\r\n"), AmbiguousLength),
        (chunked(" 5\r\nhello\r\n"), AmbiguousLength),
        (chunked("\r\n"), AmbiguousLength),
        (chunked("ffffffffffffffffff\r\n"), AmbiguousLength),
        (chunked("5\r\nhelloX\r\n"), AmbiguousLength),
        (chunked("0\r\nx: y\n\r\n"), AmbiguousLength),
        (head("x: y\nz: w"), MalformedRequest),
        (head("x: y\rz"), MalformedRequest),
        ("GET / HTTP/1.1\nhost: a\n\n".to_owned(), MalformedRequest),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), NoHost),
        (head("Host: b"), NoHost),
        (
            "CONNECT b:443 HTTP/1.1\r\nhost: b:443\r\n\r\n".to_owned(),
            ConnectMethod,
        ),
        (head("transfer-encoding : chunked"), MalformedRequest),
        (head("x: y\r\n folded"), MalformedRequest),
        (head("x\0: y"), MalformedRequest),
        ("GET /\0 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), MalformedRequest),
        (head(&format!("x: {}", "y".repeat(5000))), HeaderTooLarge),
        (head(&"x: y\r\n".repeat(200)), HeaderTooLarge),
        (chunked(&format!("5;{}", "e".repeat(5000))), HeaderTooLarge),
        (
            chunked(&format!(
                "0\r\n{}",
                "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(400)
            )),
            HeaderTooLarge,
        ),
    ];
    for (input, expected) in cases {
        for piece in [1, 13, 8192] {
            let both = format!("{GET}{input}");
            let (passed, fault) = run(both.as_bytes(), piece).await;
            assert_eq!(fault, Some(expected), "{input:?}");
            assert!(passed.starts_with(GET.as_bytes()), "the request before it passed");
        }
    }
}

proptest! {
    /// Whatever the bytes and however they are cut: what passes is a prefix of what came, and
    /// the verdict does not depend on the cuts.
    #[test]
    fn cuts_change_nothing(
        lines in proptest::collection::vec(prop_oneof![
            Just("GET / HTTP/1.1\r\n"), Just("host: a\r\n"), Just("\r\n"), Just("content-length: 3\r\n"),
            Just("transfer-encoding: chunked\r\n"), Just("3\r\nabc\r\n"), Just("0\r\n"), Just("abc"), Just("\n"), Just("\0"),
        ], 0..12),
        piece in 1_usize..40,
    ) {
        let input = lines.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (whole, fault) = runtime.block_on(run(input.as_bytes(), 8192));
        let (cut, fault_cut) = runtime.block_on(run(input.as_bytes(), piece));
        prop_assert!(input.as_bytes().starts_with(&whole));
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(fault, fault_cut);
    }
}

/// One line of a head, good or not.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("host: a".to_owned()),
        Just("Host: b".to_owned()),
        Just("content-length: 0".to_owned()),
        Just("content-length: 3".to_owned()),
        Just("transfer-encoding: chunked".to_owned()),
        Just(" folded".to_owned()),
        "[a-z-]{1,8}: [ -~]{0,12}",
        "[\\x00-\\xff]{0,12}",
    ]
}

proptest! {
    /// A head that passes is one that even the strictest reader takes, and all read alike: lines
    /// end in CR LF, none begins with a space, there is one host and at most one length.
    #[test]
    fn a_head_that_passes_is_read_alike_by_all(
        target in "[!-~]{1,12}",
        lines in proptest::collection::vec((line(), prop_oneof![9 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")]), 0..8),
    ) {
        let lines: String = lines.iter().map(|(line, end)| format!("{line}{end}")).collect();
        let input = format!("POST {target} HTTP/1.1\r\n{lines}\r\n");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (passed, fault) = runtime.block_on(run(input.as_bytes(), 8192));
        let Some(end) = passed.windows(4).position(|w| w == b"\r\n\r\n") else {
            prop_assert!(passed.is_empty());
            return Ok(());
        };
        prop_assert!(fault.is_none() || passed.len() < input.len());
        let head = String::from_utf8_lossy(&passed[..end]).into_owned();
        let mut hosts = 0;
        let mut lengths = 0;
        for line in head.split("\r\n").skip(1) {
            prop_assert!(!line.contains(['\r', '\n', '\0']) && !line.starts_with([' ', '\t']), "{head:?}");
            let (name, _) = line.split_once(':').expect("a colon");
            prop_assert!(!name.is_empty() && !name.contains(char::is_whitespace), "{head:?}");
            hosts += usize::from(name.eq_ignore_ascii_case("host"));
            lengths += usize::from(name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding"));
        }
        prop_assert!(hosts == 1 && lengths <= 1, "{head:?}");
    }
}
