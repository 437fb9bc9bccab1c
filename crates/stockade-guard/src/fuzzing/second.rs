//! Second readers: small, written apart from those they are compared with.

/// The server name in a ClientHello in TLS records (RFC 8446 4.1.2, RFC 6066 3), where both are well-formed.
pub(super) fn server_name(mut records: &[u8]) -> Option<String> {
    let mut message = Vec::new();
    while let [22, 3, _, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        message.extend_from_slice(&rest[..length]);
        records = &rest[length..];
    }
    // Type, length, version, random.
    let length =
        usize::from(*message.get(1)?) << 16 | usize::from(*message.get(2)?) << 8 | usize::from(*message.get(3)?);
    let mut rest = message.get(4..4 + length)?.get(34..)?;
    for width in [1, 2, 1] {
        (_, rest) = vector(rest, width)?;
    }
    let (mut extensions, _) = vector(rest, 2)?;
    while let [kind_high, kind_low, after @ ..] = extensions {
        let (body, next) = vector(after, 2)?;
        extensions = next;
        if [*kind_high, *kind_low] == [0, 0] {
            let (list, _) = vector(body, 2)?;
            let (name, _) = vector(list.strip_prefix(&[0])?, 2)?;
            return String::from_utf8(name.to_vec()).ok();
        }
    }
    None
}

/// A vector with its length in so many bytes before it, and what follows.
fn vector(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

/// The name, type and class of the only question of a DNS message (RFC 1035 4.1.2), labels joined
/// with dots; the name may point backwards (4.1.4).
pub(super) fn question(message: &[u8]) -> Option<(String, u16, u16)> {
    let (mut at, mut jumped, mut labels) = (12_usize, None, Vec::new());
    loop {
        let length = usize::from(*message.get(at)?);
        match length {
            0 => break,
            1..=63 => {
                labels.push(String::from_utf8_lossy(message.get(at + 1..at + 1 + length)?).into_owned());
                at += 1 + length;
            }
            192..=255 => {
                let to = (length & 63) << 8 | usize::from(*message.get(at + 1)?);
                jumped.get_or_insert(at + 2);
                if to >= at || labels.len() > 128 {
                    return None;
                }
                at = to;
            }
            _ => return None,
        }
    }
    let end = jumped.unwrap_or(at + 1);
    let number = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    Some((labels.join("."), number(end)?, number(end + 2)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_through_a_pointer() {
        let mut message = vec![0; 12];
        message.extend(b"\x01a\x07example\0\0\x01\0\x01");
        assert_eq!(question(&message), Some(("a.example".to_owned(), 1, 1)));
        assert_eq!(question(&message[..message.len() - 1]), None);
    }
}
