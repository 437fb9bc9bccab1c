//! `read_file`, `write_file`, `edit_file`: through the Guest, needing no program inside.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use stockade_ports::{ExecRequest, Exit, SandboxError};

use super::{Hand, Said, Trouble, Write, path::absolute};

/// Largest file that is read or edited, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

fn text_of(args: &Value, key: &str) -> String {
    args[key].as_str().unwrap_or_default().to_owned()
}

pub(super) async fn read_file(hand: &Hand<'_>, args: &Value) -> Result<Said, SandboxError> {
    let path = text_of(args, "path");
    let content = match text_at(hand, &path).await? {
        Ok(content) => content,
        Err(complaint) => return Ok(complaint),
    };
    let (offset, limit) = (args["offset"].as_u64(), args["limit"].as_u64());
    if content.is_empty() {
        return Ok(Said::well("[the file is empty]"));
    }
    if offset.is_none() && limit.is_none() {
        return Ok(Said::well(content));
    }
    let first = usize::try_from(offset.unwrap_or(1)).unwrap_or(usize::MAX).max(1);
    let count = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let total = content.lines().count();
    let lines: Vec<&str> = content.lines().skip(first - 1).take(count).collect();
    if lines.is_empty() {
        return Ok(Said::complaint(format!("the file has only {total} lines")));
    }
    let last = first - 1 + lines.len();
    Ok(Said::well(format!(
        "{}\n[lines {first} to {last} of {total}]",
        lines.join("\n")
    )))
}

pub(super) async fn write_file(hand: &Hand<'_>, args: &Value) -> Result<Said, Trouble> {
    let (path, content) = (text_of(args, "path"), text_of(args, "content"));
    let bytes = content.len();
    put(hand, "write_file", &path, content).await?;
    Ok(Said {
        details: json!({ "bytes": bytes }),
        ..Said::well(format!("wrote {bytes} bytes to {path}"))
    })
}

pub(super) async fn edit_file(hand: &Hand<'_>, args: &Value) -> Result<Said, Trouble> {
    let path = text_of(args, "path");
    let content = match text_at(hand, &path).await? {
        Ok(content) => content,
        Err(complaint) => return Ok(complaint),
    };
    let all = args["replace_all"].as_bool().unwrap_or(false);
    match edited(
        &content,
        &text_of(args, "old_string"),
        &text_of(args, "new_string"),
        all,
    ) {
        Err(complaint) => Ok(Said::complaint(format!("{path}: {complaint}"))),
        Ok((content, times)) => {
            put(hand, "edit_file", &path, content).await?;
            let times_word = if times == 1 {
                "once".to_owned()
            } else {
                format!("{times} times")
            };
            Ok(Said {
                details: json!({ "replacements": times }),
                ..Said::well(format!("replaced {times_word} in {path}"))
            })
        }
    }
}

/// Replaces text; a complaint says what to do better.
fn edited(content: &str, old: &str, new: &str, all: bool) -> Result<(String, usize), String> {
    if old.is_empty() {
        return Err("old_string is empty; use write_file to write a whole file".to_owned());
    }
    if old == new {
        return Err("old_string and new_string are the same".to_owned());
    }
    // Models write line feeds; the file may have the other kind.
    let crlf = content.contains("\r\n") && !old.contains('\r') && old.contains('\n');
    let (old, new) = if crlf {
        (old.replace('\n', "\r\n"), new.replace('\n', "\r\n"))
    } else {
        (old.to_owned(), new.to_owned())
    };
    match content.matches(&old).count() {
        0 => Err("old_string does not stand in the file; read the file again and copy the text exactly".to_owned()),
        1 => Ok((content.replacen(&old, &new, 1), 1)),
        times if all => Ok((content.replace(&old, &new), times)),
        times => Err(format!(
            "old_string stands in the file {times} times; add lines around it, or set replace_all"
        )),
    }
}

async fn text_at(hand: &Hand<'_>, path: &str) -> Result<Result<String, Said>, SandboxError> {
    let bytes = hand.sandbox.read_file(&absolute(path), FILE_LIMIT).await?;
    Ok(String::from_utf8(bytes.to_vec())
        .map_err(|_| Said::complaint(format!("{path} is not UTF-8 text; look at it with bash"))))
}

/// Writes a file, keeping its executable bit.
async fn put(hand: &Hand<'_>, operation: &str, path: &str, content: String) -> Result<(), Trouble> {
    let asked = ExecRequest {
        argv: ["sh", "-c", "test -x \"$1\"", "sh", &absolute(path)]
            .map(str::to_owned)
            .to_vec(),
        timeout: Some(Duration::from_secs(10)),
        ..ExecRequest::default()
    };
    let executable = match hand.run(asked, 1024, false).await {
        Ok(ran) => ran.exit == Exit::Code(0),
        Err(error @ SandboxError::Gone(_)) => return Err(error.into()),
        // Without a shell inside there is nothing to ask.
        Err(_) => false,
    };
    let mode = if executable { 0o755 } else { 0o644 };
    let write = Write {
        operation,
        path,
        content: Bytes::from(content),
        mode,
    };
    hand.writes.put(hand.sandbox, write).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::edited;

    #[test]
    fn an_edit_needs_one_place() {
        assert_eq!(edited("a b a", "b", "c", false), Ok(("a c a".to_owned(), 1)));
        assert_eq!(edited("a b a", "a", "c", true), Ok(("c b c".to_owned(), 2)));
        for (old, new, word) in [
            ("a", "c", "2 times"),
            ("x", "c", "does not stand"),
            ("", "c", "empty"),
            ("b", "b", "same"),
        ] {
            let complaint = edited("a b a", old, new, false).unwrap_err();
            assert!(complaint.contains(word), "{complaint}");
        }
        assert_eq!(
            edited("one\r\ntwo\r\n", "one\ntwo", "1\n2", false),
            Ok(("1\r\n2\r\n".to_owned(), 1))
        );
    }
}
