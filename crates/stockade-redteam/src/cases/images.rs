//! Images an attacker made: what is in them, and what stands where the sandbox is to mount.

use stockade_ports::{
    RootFs,
    sandbox::{AGENT_HOME, AGENTS_DIR, WORKSPACE},
};

use super::{Case, ROOT_OR_KERNEL};
use crate::{
    ATTACKER,
    field::Field,
    inside::{Call, Inside},
    judge::{Attempt, Excuse, Sighting, Trial},
    report::Group::Filesystem,
    shelf::{Layer, Shelf},
};

pub(super) const CASES: &[Case] = &[
    Case {
        id: "A-FS-13",
        group: Filesystem,
        tried: "images with links to the host's files and files below them, whiteouts of them, device nodes, set-user-ID \
                programs, file capabilities",
        expected: "each is refused, or works without any of it; a plain image starts",
        run: |field, target| Box::pin(contents(field, target)),
    },
    Case {
        id: "A-FS-08r",
        group: Filesystem,
        tried: "images with links where the sandbox mounts: /dev, /dev/null, /proc, /sys, /tmp, the workspace, /etc/hosts \
                (CVE-2025-31133, CVE-2025-52565 and their kind)",
        expected: "refused, or mounted inside all the same, and what is masked stays masked",
        run: |field, target| Box::pin(mount_points(field, target)),
    },
];

/// A hostile image, and what is tried in a sandbox of it.
struct Image {
    name: &'static str,
    layer: Layer,
    calls: Vec<Call>,
}

/// What becomes of every image.
async fn tried(field: &Field, images: Vec<Image>) -> Trial {
    let mut found = Trial::default();
    if !field.parts.sandbox.capabilities().images {
        found.excuse = Some(Excuse::NoImages);
        return found;
    }
    let shelf = match Shelf::open().await {
        Ok(shelf) => shelf,
        Err(error) => {
            found.not_tried = Some(error.to_string());
            return found;
        }
    };
    let plain = one(field, &shelf, plain(), &[Call::new("ok")]).await;
    let (works, seen) = match plain {
        Ok(attempts) => (attempts.iter().any(|attempt| attempt.got), "it starts".to_owned()),
        Err(why) => (false, why),
    };
    found
        .control_host
        .push(Sighting::new("a plain image", "it starts", seen, works));
    for Image { name, layer, calls } in images {
        let seen = match one(field, &shelf, layer, &calls).await {
            Ok(attempts) => {
                let named = |attempt: Attempt| Attempt {
                    name: format!("{name}: {}", attempt.name),
                    ..attempt
                };
                found.inside.extend(attempts.into_iter().map(named));
                "started".to_owned()
            }
            Err(why) => format!("refused: {why}"),
        };
        // Both are fine; what counts is what was got, and what the host's files look like after each.
        let planted = field.plants.unchanged();
        let ok = planted.ok;
        if !ok {
            field.plants.restore();
        }
        let seen = format!("{seen}; planted files {}", planted.seen);
        let what = format!("the image '{name}'");
        found
            .host
            .push(Sighting::new(what, "planted files unchanged", seen, ok));
    }
    found
}

/// Pulls one image, makes a sandbox of it and attacks from inside.
async fn one(field: &Field, shelf: &Shelf, layer: Layer, calls: &[Call]) -> Result<Vec<Attempt>, String> {
    let reference = shelf.put(layer);
    let tree = field.parts.images.prepare(&reference, &()).await;
    let rootfs = RootFs::Image(tree.map_err(|error| error.to_string())?);
    let own = field.sandbox_of(rootfs, field.parts.spec.environment.limits).await;
    let own = own.map_err(|error| error.to_string())?;
    let mut attempts = Vec::new();
    for call in calls {
        let told = own.run(call).await;
        attempts.extend(told.attempts.clone());
        if let Err(why) = told.complete() {
            own.end().await;
            return Err(format!("'{}' did not run: {why}", call.attack));
        }
    }
    own.end().await;
    Ok(attempts)
}

fn plain() -> Layer {
    Layer::default()
        .dir("etc/")
        .dir("tmp/")
        .file("etc/os-release", 0o644, b"ID=plain\n")
}

/// A canary of the host's that can be named in the format's hundred bytes.
fn short(field: &Field) -> Option<String> {
    field.plants.canaries().find(|path| path.len() < 70)
}

/// The host's canary by name, and by this one in the image.
fn canary(field: &Field, name: &str) -> Vec<Call> {
    let paths: Vec<_> = field.plants.canaries().chain([name.to_owned()]).collect();
    vec![
        Call::new("read").with("token", field.token()).each("path", &paths),
        Call::new("write").each("path", &paths),
    ]
}

async fn contents(field: &Field, _: &Inside) -> Trial {
    let mut images = Vec::new();
    // One of the places is enough: to whoever unpacks they are the same.
    if let Some(path) = short(field) {
        let (dir, up) = (path.trim_end_matches("/canary"), format!("../../../../../..{path}"));
        let symlink = plain().symlink("out", dir).file("out/canary", 0o666, b"attacked");
        let whiteout = plain().symlink("out", dir).file("out/.wh.canary", 0o644, b"");
        let opaque = plain().symlink("out", dir).file("out/.wh..wh..opq", 0o644, b"");
        for (name, layer) in [
            ("a file below a link", symlink),
            ("a whiteout below a link", whiteout),
            ("an opaque directory below a link", opaque),
            ("an absolute name", plain().file(&path, 0o666, b"attacked")),
            ("a name that goes up", plain().file(&up, 0o666, b"attacked")),
            ("a hard link", plain().hard_link("grab", &path)),
            ("a hard link that goes up", plain().hard_link("grab", &up)),
        ] {
            let calls = canary(field, "/grab");
            images.push(Image { name, layer, calls });
        }
    }
    let root = plain()
        .symlink("etc", "/")
        .file("etc/passwd", 0o644, b"root::0:0::/:/bin/sh\n");
    images.push(Image {
        name: "/etc linked to /",
        layer: root,
        calls: canary(field, "/etc/passwd"),
    });
    let nodes = plain()
        .device("mem", b'3', 1, 1)
        .device("kmsg", b'3', 1, 11)
        .device("disk", b'4', 254, 0);
    images.push(Image {
        name: "device nodes",
        layer: nodes,
        calls: vec![Call::new("devices").each("allowed", ["/mem", "/kmsg", "/disk"])],
    });
    // struct vfs_cap_data: revision 2 and effective, every capability permitted.
    let capabilities: Vec<u8> = [0x0200_0001_u32, u32::MAX, 0, 0x1ff, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let rights = plain()
        .file("suid", 0o6755, ATTACKER)
        .attribute("security.capability", &capabilities)
        .file("capable", 0o755, ATTACKER);
    images.push(Image {
        name: "programs with rights",
        layer: rights,
        calls: vec![
            Call::new("setuid").with("path", "/suid").with("capable", "/capable"),
            Call::new("sets"),
        ],
    });
    tried(field, images).await
}

async fn mount_points(field: &Field, _: &Inside) -> Trial {
    let Some(outside) = field.plants.public.last().map(|dir| dir.display().to_string()) else {
        return Trial::default();
    };
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let masked = Call::new("masked").with("line", line.trim());
    let calls = || {
        let mut calls = canary(field, "/tmp/canary");
        calls.extend([
            field.to_kernel(masked.clone()),
            field.to_kernel(Call::new("sysctls")),
            field.to_kernel(Call::new("devices")),
            Call::new("drop")
                .with("token", "canary")
                .each("dir", ["/tmp", "/run", WORKSPACE, AGENT_HOME]),
        ]);
        calls
    };
    // What is dropped inside is only news on the host, which looks at its planted files.
    let linked = |places: &[&str], to: &str| {
        let parents = places.iter().filter_map(|place| place.rsplit_once('/'));
        let mut layer = Layer::default();
        for (parent, _) in parents {
            layer = layer.dir(&format!("{parent}/"));
        }
        places.iter().fold(layer, |layer, place| layer.symlink(place, to))
    };
    let inside = |path: &'static str| path.trim_start_matches('/');
    let own = [inside(WORKSPACE), inside(AGENT_HOME), inside(AGENTS_DIR)];
    let null = linked(
        &["dev/null", "dev/console", "dev/ptmx"],
        "/proc/sys/kernel/core_pattern",
    );
    let kernels = linked(&["proc", "sys"], "/tmp");
    let shared = linked(&["dev", "tmp", "run", "var/tmp"], &outside);
    let files = linked(
        &["etc/hosts", "etc/resolv.conf", "etc/passwd"],
        &format!("{outside}/canary"),
    );
    let images = [
        ("/dev/null and /dev/console linked to core_pattern", null),
        ("/proc and /sys linked to /tmp", kernels),
        ("/dev, /tmp, /run and /var/tmp linked to the host", shared),
        (
            "the workspace, the home and the agents linked to the host",
            linked(&own, &outside),
        ),
        ("files of /etc linked to the host", files),
    ];
    let images = images.map(|(name, layer)| Image {
        name,
        layer,
        calls: calls(),
    });
    let mut found = tried(field, images.into_iter().collect()).await;
    let control = field.outside(&masked).await;
    found.control = control.attempts;
    found.excusable = ROOT_OR_KERNEL;
    found
}
