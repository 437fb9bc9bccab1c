//! A strict reader of HTTP/1.1 requests (RFC 9112), which takes nothing that another reader could
//! take for something else. It stands for the server behind the Guard.

/// A request as the strict reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strict {
    pub(super) method: String,
    pub(super) target: String,
    /// The value of every `Host`.
    pub(super) hosts: Vec<String>,
    /// Bytes of its content.
    pub(super) body: usize,
}

/// Reads requests until the bytes end; how many bytes belong to no whole request yet.
pub(super) fn requests(mut bytes: &[u8]) -> Result<(Vec<Strict>, usize), String> {
    let mut found = Vec::new();
    while let Some((request, rest)) = request(bytes)? {
        found.push(request);
        bytes = rest;
    }
    Ok((found, bytes.len()))
}

fn request(bytes: &[u8]) -> Result<Option<(Strict, &[u8])>, String> {
    let Some((first, mut rest)) = line(bytes)? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) = (method, target, version, words.next())
    else {
        return Err(format!("no request line: {first:?}"));
    };
    if method.is_empty()
        || !method.bytes().all(is_token)
        || target.is_empty()
        || !target.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(format!("no method and target: {first:?}"));
    }
    let (mut hosts, mut length, mut chunked) = (Vec::new(), None, false);
    loop {
        let Some((field, after)) = line(rest)? else {
            return Ok(None);
        };
        rest = after;
        if field.is_empty() {
            break;
        }
        let (name, value) = field.split_once(':').ok_or_else(|| format!("no field: {field:?}"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("no field name: {field:?}"));
        }
        let value = value.trim_matches([' ', '\t']);
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts.push(value.to_owned()),
            "content-length" if length.is_some() || chunked => return Err("two lengths".to_owned()),
            "content-length" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                length = Some(value.parse::<usize>().map_err(|_| "a huge length".to_owned())?);
            }
            "transfer-encoding" if length.is_none() && !chunked && value.eq_ignore_ascii_case("chunked") => {
                chunked = true
            }
            "content-length" | "transfer-encoding" => return Err(format!("no length: {field:?}")),
            _ => {}
        }
    }
    let (body, rest) = if chunked {
        match chunks(rest)? {
            Some(read) => read,
            None => return Ok(None),
        }
    } else {
        let length = length.unwrap_or(0);
        match rest.get(length..) {
            Some(after) => (length, after),
            None => return Ok(None),
        }
    };
    let request = Strict {
        method: method.to_owned(),
        target: target.to_owned(),
        hosts,
        body,
    };
    Ok(Some((request, rest)))
}

/// The size of a chunked body, and what follows it.
fn chunks(mut rest: &[u8]) -> Result<Option<(usize, &[u8])>, String> {
    let mut body = 0_usize;
    loop {
        let Some((size, after)) = line(rest)? else {
            return Ok(None);
        };
        let digits = size.split(';').next().unwrap_or_default();
        if digits.is_empty() || digits.len() > 15 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("no chunk size: {size:?}"));
        }
        let size = usize::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
        rest = after;
        if size == 0 {
            break;
        }
        let Some(end) = rest.get(size..) else { return Ok(None) };
        match end {
            [b'\r', b'\n', after @ ..] => rest = after,
            [] | [b'\r'] => return Ok(None),
            _ => return Err("a chunk is longer than it says".to_owned()),
        }
        body += size;
    }
    loop {
        let Some((trailer, after)) = line(rest)? else {
            return Ok(None);
        };
        rest = after;
        if trailer.is_empty() {
            return Ok(Some((body, rest)));
        }
    }
}

/// A line that ends in CR LF, without it; nothing in it may be a control character but tab.
fn line(bytes: &[u8]) -> Result<Option<(String, &[u8])>, String> {
    let Some(end) = bytes.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
        return Ok(None);
    };
    match &bytes[end..] {
        [b'\r', b'\n', rest @ ..] => {
            let text = &bytes[..end];
            if text.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
                return Err("a control character".to_owned());
            }
            Ok(Some((text.iter().copied().map(char::from).collect(), rest)))
        }
        [b'\r'] => Ok(None),
        _ => Err("a CR or LF alone".to_owned()),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_is_clear_and_refuses_the_rest() {
        let good =
            b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;e\r\nabc\r\n0\r\nt: u\r\n\r\nGET / HT";
        let (read, left) = requests(good).unwrap();
        assert_eq!((read.len(), read[0].body, left), (1, 3, 8));
        for bad in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n",
        ] {
            assert!(requests(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
