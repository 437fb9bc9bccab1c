//! Builds one crate of this workspace as a static binary into `OUT_DIR`, for `include_bytes!`.
//! Shared by the build scripts of the crates that carry such a binary.
//!
//! A nested cargo with its own target directory: the binary needs other flags than the
//! host program (static, small, aborting), and an artifact dependency is not stable Rust.

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

/// Builds the crate `name`, which is made of itself and the crates `of`, and leaves the binary
/// as `OUT_DIR/output`.
pub(crate) fn build(name: &str, of: &[&str], output: &str) {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let crates = here.parent().expect("crates/ is above this crate");
    for name in of.iter().chain([&name]) {
        for part in ["src", "Cargo.toml"] {
            println!("cargo::rerun-if-changed={}", crates.join(name).join(part).display());
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../build/static_binary.rs");
    assert!(
        env::var("TARGET").is_ok_and(|target| target == TARGET),
        "{name} is made for {TARGET}"
    );
    let target = out.join(format!("{output}-target"));
    run(&crates.join(name), &target);
    let (binary, output) = (target.join(TARGET).join("release").join(name), out.join(output));
    // Never into a file that may have other names: a target directory may be a linked copy.
    let _ = fs::remove_file(&output);
    fs::copy(&binary, &output).unwrap_or_else(|error| panic!("{} was built: {error}", binary.display()));
}

fn run(manifest_dir: &Path, target: &Path) {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    // What the outer cargo was told about its own build must not change the binary:
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
    assert!(
        status.success(),
        "building {} failed, see above",
        manifest_dir.display()
    );
}
