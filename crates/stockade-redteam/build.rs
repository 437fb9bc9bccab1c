//! Builds the attacker as a static binary and hands its path to `include_bytes!`.
//!
//! A nested cargo with its own target directory: the attacker needs other flags than the
//! host program (static, small, aborting), and an artifact dependency is not stable Rust.
#![allow(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: [&str; 4] = [
    "profile.release.opt-level=\"z\"",
    "profile.release.panic=\"abort\"",
    "profile.release.strip=true",
    "profile.release.codegen-units=1",
];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let crates = here.parent().expect("crates/ is above this crate");
    let attacker = crates.join("stockade-attacker");
    for part in ["src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", attacker.join(part).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    assert!(
        env::var("TARGET").is_ok_and(|target| target == TARGET),
        "the attacker is made for {TARGET}"
    );
    let target = out.join("attacker-target");
    build(&attacker, &target);
    let binary = target.join(TARGET).join("release/stockade-attacker");
    fs::copy(&binary, out.join("attacker.bin")).expect("the attacker was built");
}

fn build(manifest_dir: &Path, target: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    // What the outer cargo was told about its own build must not change the attacker:
    // flags, wrappers (clippy), coverage, another target directory.
    for (key, _) in env::vars_os() {
        let Some(name) = key.to_str() else { continue };
        let outer = name.starts_with("CARGO_")
            && !["CARGO_HOME", "CARGO_MAKEFLAGS"].contains(&name)
            && !["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"]
                .iter()
                .any(|keep| name.starts_with(keep));
        let compiler = ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CLIPPY_ARGS"];
        if outer || compiler.contains(&name) {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .args(["build", "--release", "--locked", "--target", TARGET])
        .arg("--target-dir")
        .arg(target)
        .args(PROFILE.iter().flat_map(|line| ["--config", line]))
        .current_dir(manifest_dir)
        .status()
        .expect("cargo starts");
    assert!(status.success(), "building the attacker failed, see above");
}
