//! Rebuilds when a migration changes: the migrations are embedded.

#[allow(clippy::print_stdout)] // how a build script speaks to cargo
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
