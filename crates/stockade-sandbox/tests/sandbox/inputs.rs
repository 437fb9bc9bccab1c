//! Requests that make no sense leave nothing behind and say what is wrong.

use std::fs;

use stockade_ports::sandbox::{Sandbox, SandboxError, SandboxSpec};
use stockade_sandbox::NativeSandbox;

use crate::bed::{Bed, cases, config, refused};

cases!(wrong_specs_are_refused, a_broken_launcher_is_reported);

async fn wrong_specs_are_refused(bed: Bed) {
    let file = bed.dir.join("workspace/README");
    let missing = bed.dir.join("missing");
    type Change<'a> = Box<dyn Fn(&mut SandboxSpec) + 'a>;
    let changes: Vec<(&str, Change<'_>)> = vec![
        ("image", Box::new(|s| s.image = "debian:12".to_owned())),
        ("limit", Box::new(|s| s.limits.pids = 0)),
        ("limit", Box::new(|s| s.limits.memory_bytes = 0)),
        ("limit", Box::new(|s| s.limits.cpu_millis = 0)),
        ("disk", Box::new(|s| s.limits.disk_bytes = 1)),
        ("not a directory", Box::new(|s| s.workspace = Some(file.clone()))),
        ("missing", Box::new(|s| s.base_git = Some(missing.clone()))),
        ("missing", Box::new(|s| s.agents_dir = Some(missing.clone()))),
    ];
    for (word, change) in changes {
        let mut spec = bed.spec();
        change(&mut spec);
        let error = refused(bed.sandbox.create(spec).await);
        assert!(matches!(error, SandboxError::Invalid(_)), "{error}");
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    let left = fs::read_dir(bed.dir.join("state/sandboxes")).map_or(0, Iterator::count);
    assert_eq!(left, 0);
    bed.create().await.destroy().await.expect("the unchanged spec is fine");
}

async fn a_broken_launcher_is_reported(bed: Bed) {
    for (launcher, word) in [
        ("/no/such/launcher", "No such file"),
        ("/bin/false", "exit status: 1"),
        ("/bin/true", "exit status: 0"),
    ] {
        let mut config = config(&bed.dir);
        config.launcher = vec![launcher.into()];
        let error = refused(NativeSandbox::new(config).create(bed.spec()).await);
        assert!(matches!(error, SandboxError::Setup { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        let left = fs::read_dir(bed.dir.join("state/sandboxes")).expect("made").count();
        assert_eq!(left, 0, "{launcher}");
    }
}
