//! Requests that make no sense leave nothing behind and say what is wrong.

use std::{fs, os::unix::fs::PermissionsExt};

use stockade_ports::sandbox::{Sandbox, SandboxError, SandboxSpec};
use stockade_sandbox::{NativeSandbox, OciConfig, OciSandbox, Runtime};

use crate::bed::{Bed, Mode, cases, config, refused};

cases!(wrong_specs_are_refused; native: a_broken_launcher_is_reported; oci: a_broken_runtime_is_reported);

async fn wrong_specs_are_refused(bed: Bed) {
    let file = bed.dir.join("workspace/README");
    let missing = bed.dir.join("missing");
    type Change<'a> = Box<dyn Fn(&mut SandboxSpec) + 'a>;
    let changes: Vec<(&str, Change<'_>)> = vec![
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

async fn a_broken_runtime_is_reported(bed: Bed) {
    let runtime = match bed.mode {
        Mode::Crun => Runtime::Crun,
        Mode::Runsc => Runtime::Runsc,
        _ => Runtime::Runc,
    };
    let with = |program: &str| {
        OciSandbox::new(OciConfig {
            runtime,
            program: program.into(),
            state_dir: bed.dir.join("state"),
        })
    };
    let missing = with("/no/such/runtime");
    let install = format!("apt-get install {}", runtime.name());
    for error in [
        refused(missing.check().await),
        refused(missing.create(bed.spec()).await),
    ] {
        assert!(
            matches!(&error, SandboxError::Unsupported { backend, .. } if *backend == runtime.name()),
            "{error}"
        );
        assert!(error.to_string().contains(&install), "{error}");
    }
    // Says a version and then fails, or ends at once.
    let broken = bed.dir.join("broken");
    fs::write(
        &broken,
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 1 && exit\necho out of order >&2\nexit 3\n",
    )
    .expect("writes");
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).expect("chmod");
    for (program, word) in [
        (broken.to_str().expect("text"), "out of order"),
        ("/bin/true", "code 0"),
    ] {
        let error = refused(with(program).create(bed.spec()).await);
        assert!(matches!(error, SandboxError::Setup { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        let left = fs::read_dir(bed.dir.join("state/sandboxes")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{program}");
    }
}
