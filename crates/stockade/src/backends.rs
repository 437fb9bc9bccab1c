//! The sandbox backends and the image store, from the settings.

use std::{path::PathBuf, sync::Arc, time::Duration};

use stockade_gateway::BackendCheck;
use stockade_image::{Credential, ImageConfig, ImageStore};
use stockade_ports::{Images, Sandbox};
use stockade_sandbox::{
    DockerConfig, DockerSandbox, NativeConfig, NativeSandbox, OciConfig, OciSandbox, Runtime, UnisolatedConfig,
    UnisolatedSandbox,
};

use crate::{exit::Complaint, settings::Settings};

/// Every backend there is.
pub(crate) const KNOWN: [&str; 6] = ["native", "runc", "crun", "runsc", "docker", "unisolated"];

/// The backends of the settings, in their order.
pub(crate) fn all(settings: &Settings) -> anyhow::Result<Vec<Arc<dyn Sandbox>>> {
    if settings.sandbox.backends.is_empty() {
        return Err(Complaint::usage("sandbox.backends is empty: no run could start")
            .hint("leave it out, or name at least 'native'")
            .into());
    }
    let names = settings.sandbox.backends.iter();
    names.map(|name| one(settings, name)).collect()
}

/// One backend by name. Nothing of it is started or looked for yet.
pub(crate) fn one(settings: &Settings, name: &str) -> anyhow::Result<Arc<dyn Sandbox>> {
    let state_dir = settings.state_dir.clone();
    Ok(match name {
        "native" => Arc::new(NativeSandbox::new(NativeConfig {
            launcher: launcher()?,
            state_dir,
            copy_workspace: false,
            warm: settings.sandbox.warm,
        })),
        "runc" => oci(Runtime::Runc, name, state_dir),
        "crun" => oci(Runtime::Crun, name, state_dir),
        "runsc" => oci(Runtime::Runsc, name, state_dir),
        "docker" => Arc::new(DockerSandbox::new(DockerConfig {
            socket: settings.sandbox.docker_socket.clone(),
            state_dir,
        })),
        "unisolated" => Arc::new(UnisolatedSandbox::new(UnisolatedConfig {
            dir: state_dir.join("unisolated"),
            pretend_for_tests: false,
        })),
        _ => {
            return Err(
                Complaint::usage(format!("sandbox.backends: there is no backend '{name}'"))
                    .hint(format!("known are: {}", KNOWN.join(", ")))
                    .into(),
            );
        }
    })
}

fn oci(runtime: Runtime, program: &str, state_dir: PathBuf) -> Arc<dyn Sandbox> {
    Arc::new(OciSandbox::new(OciConfig {
        runtime,
        program: program.into(),
        state_dir,
    }))
}

/// The launcher of native sandboxes is this program.
fn launcher() -> anyhow::Result<Vec<std::ffi::OsString>> {
    Ok(vec![std::env::current_exe()?.into(), "__sandbox-launch".into()])
}

/// The image store. Nothing is opened before the first image.
pub(crate) fn images(settings: &Settings) -> Arc<dyn Images> {
    images_in(settings, settings.state_dir.join("image-store"))
}

/// The same in a directory of its own.
pub(crate) fn images_in(settings: &Settings, dir: PathBuf) -> Arc<dyn Images> {
    let images = &settings.images;
    let credentials = images.registries.iter().map(|(host, login)| {
        let credential = Credential::Password {
            user: login.username.clone(),
            password: login.password.clone(),
        };
        (host.clone(), credential)
    });
    Arc::new(ImageStore::new(ImageConfig {
        require_digest: settings.production,
        credentials: credentials.collect(),
        keep: Duration::from_secs(u64::from(images.keep_days) * 24 * 3600),
        ..ImageConfig::new(dir)
    }))
}

/// Whether a backend can give what a run asks for.
pub(crate) fn check(settings: &Settings) -> anyhow::Result<BackendCheck> {
    let backends = all(settings)?;
    let images = images(settings);
    let state_dir = settings.state_dir.clone();
    Ok(Arc::new(move |spec| {
        let backend = backends.iter().find(|backend| backend.name() == spec.backend);
        // An unknown name was refused before.
        backend.map_or(Ok(()), |backend| {
            stockade_runner::check_backend(spec, &backend.capabilities(), Some(&*images), &state_dir)
        })
    }))
}
