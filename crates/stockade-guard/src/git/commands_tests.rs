use proptest::prelude::*;

use super::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const ZERO: &str = "0000000000000000000000000000000000000000";

fn lines(lines: &[&str]) -> Vec<u8> {
    let mut writer = PktWriter::default();
    for line in lines {
        writer.data(line.as_bytes());
    }
    writer.flush();
    writer.finish().to_vec()
}

fn read(bytes: &[u8], piece: usize) -> Result<(Option<PushCommands>, Bytes), CommandFault> {
    let mut reader = CommandReader::default();
    let mut pieces = bytes.chunks(piece);
    for chunk in pieces.by_ref() {
        if reader.push(chunk)? {
            break;
        }
    }
    let (commands, rest) = reader.finish()?;
    Ok((
        commands,
        [rest.to_vec(), pieces.flatten().copied().collect()].concat().into(),
    ))
}

#[test]
fn commands_are_read_up_to_the_pack_and_written_anew() {
    let first = format!("{A} {B} refs/heads/x\0 report-status-v2 side-band-64k object-format=sha1 agent=git/2.47.3\n");
    let bytes = [
        lines(&[&format!("shallow {A}"), &first, &format!("{ZERO} {B} refs/heads/y")]),
        b"PACK\0\0".to_vec(),
    ]
    .concat();
    for piece in [1, 3, 50, 4096] {
        let (commands, rest) = read(&bytes, piece).unwrap();
        let commands = commands.unwrap();
        assert_eq!(rest, &b"PACK\0\0"[..]);
        assert_eq!(commands.updates.len(), 2);
        assert_eq!(commands.shallow.len(), 1);
        assert_eq!(
            commands.replies(),
            Replies {
                status: true,
                side_band: true
            }
        );
        assert!(commands.has_pack());
        let (again, rest) = read(&commands.encode(), 7).unwrap();
        let without = PushCommands {
            shallow: Vec::new(),
            ..commands
        };
        assert_eq!((again.unwrap(), rest.len()), (without, 0), "shallow lines stay behind");
    }
}

#[test]
fn a_push_of_nothing_is_a_knock_at_the_door() {
    assert_eq!(read(b"0000", 2).unwrap(), (None, Bytes::new()));
    assert!(read(b"", 1).is_err());
    assert!(read(&lines(&[&format!("shallow {A}")]), 9).is_err());
}

#[test]
fn removing_everything_needs_no_pack() {
    let (commands, _) = read(&lines(&[&format!("{A} {ZERO} refs/heads/x\0delete-refs")]), 9).unwrap();
    assert!(!commands.unwrap().has_pack());
}

#[test]
fn what_is_not_exactly_a_push_is_refused() {
    let good = format!("{A} {B} refs/heads/x");
    assert!(read(&lines(&[&good]), 9).is_ok(), "the control");
    let with = |caps: &str| lines(&[&format!("{good}\0{caps}")]);
    for (bytes, word) in [
        (lines(&[&good, &good]), "twice"),
        (
            lines(&[&good, &format!("{A} {B} refs/heads/y\0quiet")]),
            "behind the first",
        ),
        (lines(&[&good, &format!("shallow {A}")]), "behind a command"),
        (lines(&["shallow x"]), "names no commit"),
        (lines(&["push-cert\0report-status"]), "signed"),
        (lines(&["push-cert x"]), "signed"),
        (lines(&[""]), "not 'old new ref'"),
        (lines(&["\n"]), "not 'old new ref'"),
        (lines(&[&format!("{A} {B}")]), "not 'old new ref'"),
        (lines(&[&format!("{A}  {B} refs/heads/x")]), "not 'old new ref'"),
        (
            lines(&[&format!("{A} {} refs/heads/x", B.to_uppercase())]),
            "not 'old new ref'",
        ),
        (lines(&[&format!("{A} {B} HEAD")]), "no reference"),
        (lines(&[&format!("{A} {B} refs/heads/a b")]), "no reference"),
        (lines(&[&format!("{A} {B} refs/heads/x\r\n")]), "no reference"),
        (lines(&[&format!("{A} {} refs/heads/x", "b".repeat(64))]), "two lengths"),
        (with("push-options"), "push options"),
        (with("push-cert=abc"), "'push-cert=abc'"),
        (with("object-format=md5"), "md5"),
        (with("wild"), "'wild'"),
        (with("quiet\0atomic"), "control"),
        (b"0003".to_vec(), "0003"),
        (b"0001".to_vec(), "another protocol"),
        (b"PACK0000".to_vec(), "hexadecimal"),
        (lines(&[&good])[..40].to_vec(), "no end"),
        (lines(&[&good])[..lines(&[&good]).len() - 4].to_vec(), "no end"),
    ] {
        for piece in [1, 4096] {
            let fault = read(&bytes, piece).unwrap_err().to_string();
            assert!(fault.contains(word), "{word}: {fault}");
        }
    }
}

#[test]
fn there_is_an_end_to_how_much_is_read() {
    let many: Vec<String> = (0..5000).map(|n| format!("{A} {B} refs/heads/{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(matches!(read(&lines(&many), 4096), Err(CommandFault::TooMany(_))));
    let long = format!("{A} {B} refs/heads/x\0agent={}", "a".repeat(60_000));
    let endless: Vec<String> = (0..20)
        .map(|n| format!("shallow {A}{}", " ".repeat(n * 3000)))
        .collect();
    let endless: Vec<&str> = endless.iter().map(String::as_str).chain([long.as_str()]).collect();
    assert!(read(&lines(&endless), 4096).is_err());
}

proptest! {
    /// Whatever the bytes: no panic, and the answer does not depend on how they are cut.
    #[test]
    fn cuts_change_nothing(
        parts in proptest::collection::vec(prop_oneof![
            Just(lines(&[&format!("{A} {B} refs/heads/x\0quiet")])),
            Just(format!("0067{A} {B} refs/heads/main").into_bytes()),
            Just(format!("0035shallow {A}\n").into_bytes()),
            Just(b"0000".to_vec()), Just(b"PACK".to_vec()), Just(b"0004".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..8),
        ], 0..6),
        piece in 1_usize..50,
    ) {
        let bytes = parts.concat();
        prop_assert_eq!(read(&bytes, usize::MAX), read(&bytes, piece));
    }
}
