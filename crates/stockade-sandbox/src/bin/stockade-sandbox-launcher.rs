//! The launcher as a program of its own, for tests and benchmarks. The `stockade` binary
//! starts itself instead.

fn main() {
    std::process::exit(stockade_sandbox::launcher_main());
}
