//! The launcher as a program of its own, for tests and benchmarks. The `stockade` binary
//! starts itself instead. With an argument it leaves a defence out, for the tests of what
//! notices that.

use stockade_sandbox::{Sabotage, launcher_main, sabotaged_launcher_main};

fn main() {
    let code = match std::env::args().nth(1).as_deref() {
        None => launcher_main(),
        Some("without-filter") => sabotaged_launcher_main(Sabotage::Filter),
        Some("with-capabilities") => sabotaged_launcher_main(Sabotage::Capabilities),
        Some("without-limits") => sabotaged_launcher_main(Sabotage::Limits),
        Some("with-more-disk") => sabotaged_launcher_main(Sabotage::Disk),
        Some(_) => 64,
    };
    std::process::exit(code);
}
