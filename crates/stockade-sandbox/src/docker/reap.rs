//! Removing what sandboxes of dead processes left.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use bollard::query_parameters::ListContainersOptionsBuilder;
use stockade_ports::sandbox::SandboxError;

use super::{
    Host,
    container::{OWNER, STATE},
    daemon::step,
    den, error, import, life,
};
use crate::{
    failure::{Failure, Step as _},
    native::{remove_old_images, subdirectories},
    owner::{ProcessId, Record},
    tree::HostFiles,
};

/// Removes containers and directories whose process is no more, and images of no use. Says how
/// many sandboxes that were.
pub(super) async fn reap(host: &Host) -> Result<u32, SandboxError> {
    let mut reaped = containers(host).await?;
    let state_dir = host.state_dir.clone();
    let swept = tokio::task::spawn_blocking(move || directories(&state_dir)).await;
    let swept = swept.step("reap").and_then(|swept| swept).map_err(error)?;
    reaped.extend(swept);
    import::collect(&host.daemon.api).await?;
    Ok(u32::try_from(reaped.len()).unwrap_or(u32::MAX))
}

/// Names of the containers removed.
async fn containers(host: &Host) -> Result<BTreeSet<String>, SandboxError> {
    let api = &host.daemon.api;
    let ours = format!("{STATE}={}", host.state_dir.display());
    let filters = HashMap::from([("label", vec![ours])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let all = api.list_containers(Some(options)).await;
    let mut removed = BTreeSet::new();
    for container in all.map_err(step("list the Docker daemon's containers"))? {
        let labels = container.labels.unwrap_or_default();
        let owner = labels
            .get(OWNER)
            .and_then(|text| serde_json::from_str::<ProcessId>(text).ok());
        let Some(id) = container.id else { continue };
        if owner.is_some_and(|owner| owner.is_alive()) {
            continue;
        }
        life::remove_abandoned(api, &id).await;
        let name = container.names.unwrap_or_default().pop();
        removed.insert(name.map_or(id, |name| name.trim_start_matches('/').to_owned()));
    }
    Ok(removed)
}

/// Names of the directories removed.
fn directories(state_dir: &Path) -> Result<BTreeSet<String>, Failure> {
    let mut removed = BTreeSet::new();
    let mut live = 0;
    for dir in subdirectories(&state_dir.join("sandboxes"))? {
        if Record::read(&dir).is_ok_and(|record| record.owner.is_alive()) {
            live += 1;
            continue;
        }
        den::remove(&dir).step(format!("remove {}", dir.display()))?;
        removed.insert(name(&dir));
    }
    if live == 0 {
        remove_old_images(&state_dir.join("images"))?;
        HostFiles::remove_old(state_dir)?;
    }
    Ok(removed)
}

fn name(dir: &Path) -> String {
    dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
