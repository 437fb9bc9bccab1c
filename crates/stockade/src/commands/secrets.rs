//! `stockade secret`: values go in, names come out.

use std::{
    fs,
    io::{self, IsTerminal as _, Read},
    path::Path,
};

use stockade_domain::SecretName;
use stockade_ports::MAX_SECRET_BYTES;

use crate::{
    cli::Secret,
    exit::{Complaint, Exit, Outcome},
    server::Connection,
    settings::Settings,
    terminal::{self, say, table},
};

pub(crate) async fn execute(command: Secret, settings: Settings, json: bool) -> Outcome {
    // A value that cannot be used starts nothing.
    let work = match command {
        Secret::Set { name, file } => Work::Set(named(&name)?, value(file.as_deref())?),
        Secret::List => Work::List,
        Secret::Rm { name } => Work::Remove(named(&name)?),
    };
    let connection = Connection::find(settings).await?;
    let done = carry_out(work, &connection, json).await;
    connection.close().await;
    done
}

enum Work {
    Set(SecretName, Vec<u8>),
    List,
    Remove(SecretName),
}

async fn carry_out(work: Work, connection: &Connection, json: bool) -> Outcome {
    let client = connection.client();
    match work {
        Work::Set(name, value) => {
            let secret = client.put_secret(&name, value).await?;
            match json {
                true => terminal::json(&secret)?,
                false => say(&format!("secret {} is set, version {}", secret.name, secret.version)),
            }
        }
        Work::List => {
            let page = client.secrets().await?;
            if json {
                terminal::json(&page.items)?;
            } else {
                let rows = page.items.iter().map(|s| {
                    vec![
                        s.name.to_string(),
                        s.version.to_string(),
                        s.updated_at.to_string(),
                        s.created_at.to_string(),
                    ]
                });
                table::print(&["NAME", "VERSION", "SET", "CREATED"], &rows.collect::<Vec<_>>());
            }
        }
        Work::Remove(name) => {
            let secret = client.remove_secret(&name).await?;
            match json {
                true => terminal::json(&secret)?,
                false => say(&format!("secret {} is removed", secret.name)),
            }
        }
    }
    Ok(Exit::Done)
}

fn named(text: &str) -> Result<SecretName, Complaint> {
    text.parse().map_err(|error| Complaint::usage(format!("{error}")))
}

/// The value, from a file or from standard input; never from the command line, which every user of a host can read.
fn value(file: Option<&Path>) -> Result<Vec<u8>, Complaint> {
    let (value, place) = match file {
        Some(path) => {
            let read = fs::File::open(path).and_then(limited);
            let bytes = read.map_err(|e| Complaint::usage(format!("cannot read {}: {e}", path.display())))?;
            if bytes.ends_with(b"\n") {
                say(
                    "note: the file ends with a line break, which is part of the secret now; pipe it in to leave it out",
                );
            }
            (bytes, path.display().to_string())
        }
        None if io::stdin().is_terminal() => {
            return Err(Complaint::usage("a secret typed here would stand on the screen")
                .hint("pipe it in (`pass show token | stockade secret set NAME`), or name a file with --file FILE"));
        }
        None => {
            let read = limited(io::stdin().lock());
            let bytes = read.map_err(|e| Complaint::usage(format!("cannot read standard input: {e}")))?;
            (without_line_break(bytes), "standard input".to_owned())
        }
    };
    if value.is_empty() {
        return Err(
            Complaint::usage(format!("{place} holds no value")).hint("to remove a secret: `stockade secret rm NAME`")
        );
    }
    if value.len() > MAX_SECRET_BYTES {
        return Err(Complaint::usage(format!(
            "{place} holds more than {MAX_SECRET_BYTES} bytes, the most a secret can have"
        )));
    }
    Ok(value)
}

/// As much as a secret can have and a little more, so that what is too large is seen and not cut.
fn limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(MAX_SECRET_BYTES + 3);
    from.take(MAX_SECRET_BYTES as u64 + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `echo` and most programs end what they print with a line break that nobody means.
fn without_line_break(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = [&b"\r\n"[..], b"\n"].into_iter().find(|end| bytes.ends_with(end));
    if let Some(end) = end {
        bytes.truncate(bytes.len() - end.len());
        say("note: one line break at the end was left out");
    }
    bytes
}
