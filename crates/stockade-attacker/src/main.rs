//! The attacker: one attack per start, told on standard output as one JSON object per attempt.
//!
//! The red team runs it inside a sandbox, where every attempt must fail, and outside, against
//! things it planted, where the same attempt must succeed: an attack that cannot succeed
//! proves nothing. Every attack is therefore harmless when it works. It opens what it must not
//! write, writes only to what the red team planted, and kills only what it was given.
//!
//! ```text
//! stockade-attacker ATTACK [key=value ...]
//! {"name":"symlink.read","got":false,"why":"No such file or directory","errno":2}
//! {"done":true}
//! ```

mod abi;
mod args;
mod capture;
mod cgroup;
mod devices;
mod dump;
mod ferry;
mod files;
mod handles;
mod kernel;
mod meddle;
mod mounts;
mod namespaces;
mod net;
mod netlink;
mod places;
mod privilege;
mod proc;
mod resource;
mod score;
mod seek;
mod stage;
mod stay;
mod sys;
mod tell;
mod tty;

use std::process::ExitCode;

use args::Args;

/// An attack by the name it is asked for.
type Attack = fn(&Args);

const ATTACKS: &[(&str, Attack)] = &[
    ("ok", |_| tell::attempt("ran", Ok("it runs".to_owned()))),
    ("read", files::read),
    ("write", files::write),
    ("hardlink", files::hardlink),
    ("reopen", files::reopen),
    ("tamper", places::tamper),
    ("drop", places::drop_files),
    ("traps", places::traps),
    ("masked", places::masked),
    ("sysctls", places::sysctls),
    ("sockets", places::sockets),
    ("devices", devices::open),
    ("mknod", devices::make),
    ("scan", proc::scan),
    ("descriptors", proc::descriptors),
    ("exe", proc::exe),
    ("meddle", meddle::meddle),
    ("kill", meddle::kill),
    ("sets", privilege::sets),
    ("raise", privilege::raise),
    ("setuid", privilege::setuid),
    ("capable", privilege::make_capable),
    ("own-setuid", privilege::make_setuid),
    ("core", dump::core),
    ("whoami", privilege::whoami),
    ("tty", tty::inject),
    ("namespaces", namespaces::namespaces),
    ("setns", namespaces::enter),
    ("mounts", mounts::mounts),
    ("cgroups", cgroup::cgroups),
    ("primitives", kernel::primitives),
    ("keys", kernel::keys),
    ("handle", handles::shocker),
    ("abis", abi::abis),
    ("tcp", net::tcp),
    ("udp", net::udp),
    ("dns", net::dns),
    ("raw", net::raw),
    ("fetch", net::fetch),
    ("ferry", ferry::ferry),
    ("seek", seek::seek),
    ("capture", capture::capture),
    ("abstract", net::abstract_socket),
    ("serve", net::serve),
    ("netlink", netlink::tamper),
    ("forks", resource::forks),
    ("zombies", resource::zombies),
    ("threads", resource::threads),
    ("memory", resource::memory),
    ("fill", resource::fill),
    ("inodes", resource::inodes),
    ("hog", resource::descriptors),
    ("flood", resource::flood),
    ("spin", resource::spin),
    ("stay", stay::stay),
    ("victim", stay::victim),
    ("signal", stay::signal),
    ("score", score::score),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let Some((_, attack)) = ATTACKS.iter().find(|(known, _)| *known == name) else {
        tell::attempt("start", tell::refused(format!("no attack is called '{name}'")));
        return ExitCode::from(64);
    };
    let args = Args::new(words);
    if let Err(why) = stage::enter(&args) {
        tell::attempt("stage", Err(why));
        return ExitCode::from(65);
    }
    attack(&args);
    tell::done();
    ExitCode::SUCCESS
}
