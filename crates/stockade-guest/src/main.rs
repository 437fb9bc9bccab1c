//! The Guest: pid 1 of every sandbox. It starts commands, moves their bytes, reads and
//! writes files for the host, reaps what dies and kills what must. It holds no secret,
//! decides nothing, and the sandbox ends with it.

mod confine;
mod conn;
mod ending;
mod exec;
mod files;
mod guest;
mod inotify;
mod input;
mod jobs;
mod keeper;
mod landlock;
mod list;
mod output;
mod path;
mod probe;
mod remove;
mod sweep;
mod sys;
mod sysfile;
mod terminal;
mod watch;
mod woods;
mod write;

/// The argument that says that no mount will be added to this sandbox and that this Guest is
/// confined: what is prepared for the first command can be prepared at once.
const SETTLED: &str = "settled";

fn main() {
    // Anywhere but as pid 1 of its own pid namespace its sweeps would be a massacre.
    if std::process::id() != 1 {
        std::process::exit(64);
    }
    let settled = std::env::args_os().nth(1).is_some_and(|arg| arg == SETTLED);
    let code = match guest::Guest::new().and_then(|guest| guest.run(settled)) {
        Ok(()) => 0,
        Err(_) => 1,
    };
    std::process::exit(code);
}
