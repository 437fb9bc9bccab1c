//! Finding and killing what must not live: everything that is not below a healthy keeper.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use crate::sys::{self, Pid};

/// Kills every process of the sandbox that is neither the Guest, nor a keeper in `spare`,
/// nor below a keeper in `healthy`, nor in one of `sessions`. Returns how many it found, so that
/// the caller repeats until a pass finds none (a process may fork while we look).
pub(crate) fn sweep(healthy: &HashSet<Pid>, spare: &HashSet<Pid>, sessions: &HashSet<Pid>) -> usize {
    let parents = parents();
    let mut found = 0;
    for (&pid, process) in &parents {
        if pid == 1 || process.zombie || spare.contains(&pid) || healthy.contains(&pid) {
            continue;
        }
        if sessions.contains(&process.session) {
            continue;
        }
        match place(pid, healthy, &parents) {
            Place::Below => {}
            // Its parent ended while we looked: judge it on the next pass.
            Place::Unclear => found += 1,
            Place::Elsewhere => {
                sys::kill(pid);
                found += 1;
            }
        }
    }
    found
}

/// The parent of a process that has not ended.
pub(crate) fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&stat)
        .filter(|process| !process.zombie)
        .map(|process| process.parent)
}

/// Every process that has not ended.
pub(crate) fn living() -> Vec<Pid> {
    let living = parents().into_iter().filter(|(_, process)| !process.zombie);
    living.map(|(pid, _)| pid).collect()
}

/// Whether a process of a session has not ended.
pub(crate) fn session_lives(session: Pid) -> bool {
    let mut all = parents().into_values();
    all.any(|process| process.session == session && !process.zombie)
}

struct Process {
    parent: Pid,
    session: Pid,
    zombie: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Below,
    Elsewhere,
    Unclear,
}

fn place(pid: Pid, roots: &HashSet<Pid>, parents: &HashMap<Pid, Process>) -> Place {
    let mut at = pid;
    // Bounded: the table is a snapshot taken while processes moved and may hold a cycle.
    for _ in 0..=parents.len() {
        if roots.contains(&at) {
            return Place::Below;
        }
        match parents.get(&at) {
            Some(process) if process.parent > 1 => at = process.parent,
            Some(_) => return Place::Elsewhere,
            None => return Place::Unclear,
        }
    }
    Place::Unclear
}

fn parents() -> HashMap<Pid, Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<Pid>().ok())
        .filter_map(|pid| {
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parse_stat(&stat)?))
        })
        .collect()
}

/// Reads state, parent and session out of `/proc/<pid>/stat` (proc(5)): the name in brackets may
/// hold any bytes, so fields count from the last bracket.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Process {
        parent,
        session,
        zombie: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_process_name_does_not_shift_the_fields() {
        let process = parse_stat(b"42 (a) S 1 (b) Z 7 2 3 0").expect("parses");
        assert_eq!((process.parent, process.session), (7, 3));
        assert!(process.zombie);
        assert!(parse_stat(b"42 nothing").is_none());
    }

    #[test]
    fn only_descendants_of_a_root_are_below_it() {
        let live = |parent| Process {
            parent,
            session: 0,
            zombie: false,
        };
        let parents = HashMap::from([
            (2, live(1)),
            (3, live(2)),
            (4, live(1)),
            (5, live(4)),
            (6, live(7)),
            (7, live(6)),
            (8, live(99)),
        ]);
        let roots = HashSet::from([2]);
        assert_eq!(place(3, &roots, &parents), Place::Below);
        assert_eq!(place(5, &roots, &parents), Place::Elsewhere);
        assert_eq!(place(6, &roots, &parents), Place::Unclear, "a cycle ends");
        assert_eq!(place(8, &roots, &parents), Place::Unclear, "parent is gone");
    }
}
