//! What the daemon is asked to make.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, ThrottleDevice,
};
use nix::sys::resource::{Resource, getrlimit};
use stockade_domain::SandboxLimits;

use super::seccomp::profile;
use crate::{
    INSIDE_ID,
    native::launch::rootfs::{HIDDEN_DIRECTORIES, HIDDEN_FILES},
    tree::GUEST_PATH,
};

/// Label with the process a container belongs to.
pub(super) const OWNER: &str = "dev.stockade.owner";
/// Label with the state directory whose reaper a container is for.
pub(super) const STATE: &str = "dev.stockade.state";

/// What the daemon mounts and no other backend has, to be covered.
const ALSO_HIDDEN: [&str; 2] = ["/dev/mqueue", "/sys/firmware"];
const READ_ONLY: [&str; 1] = ["/proc/sys"];
const SYSCTL: &str = "/proc/sys";
const NO_IPV6: &str = "net/ipv6/conf/all/disable_ipv6";
/// Most descriptors a process may have.
const FILES: u64 = 65_536;
/// When memory runs out a sandbox goes before anything of the host.
const OOM_SCORE: i64 = 500;

/// Everything that differs between two containers.
pub(super) struct Order<'o> {
    pub(super) image: String,
    /// On the host, and inside. What is read-only there or not to be executed is so inside.
    pub(super) binds: Vec<(PathBuf, String)>,
    pub(super) limits: &'o SandboxLimits,
    /// Block devices (paths in `/dev`) that the limit on input and output is for.
    pub(super) disks: &'o [String],
    pub(super) owner: String,
    pub(super) state: String,
}

impl Order<'_> {
    /// The request's body (Docker Engine API 1.41, ContainerCreate).
    pub(super) fn body(self) -> ContainerCreateBody {
        let labels = HashMap::from([
            (OWNER.to_owned(), self.owner.clone()),
            (STATE.to_owned(), self.state.clone()),
        ]);
        ContainerCreateBody {
            hostname: Some("sandbox".to_owned()),
            user: Some(format!("{INSIDE_ID}:{INSIDE_ID}")),
            image: Some(self.image.clone()),
            entrypoint: Some(vec![GUEST_PATH.to_owned()]),
            working_dir: Some("/".to_owned()),
            labels: Some(labels),
            tty: Some(false),
            open_stdin: Some(true),
            // When the one who attached is gone, however it went, the Guest's input ends, and
            // with it the Guest.
            stdin_once: Some(true),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(false),
            network_disabled: Some(false),
            host_config: Some(self.host_config()),
            ..ContainerCreateBody::default()
        }
    }

    fn host_config(self) -> HostConfig {
        let limits = self.limits;
        let memory = signed(limits.memory_bytes);
        let throttle = |rate: u64| -> Vec<_> {
            let device = |path: &String| ThrottleDevice {
                path: Some(path.clone()),
                rate: Some(signed(rate)),
            };
            self.disks.iter().map(device).collect()
        };
        let texts = |all: &[&str]| Some(all.iter().map(|&one| one.to_owned()).collect::<Vec<_>>());
        HostConfig {
            // A daemon may have another default, whose network is not the kernel's.
            runtime: Some("runc".to_owned()),
            network_mode: Some("none".to_owned()),
            ipc_mode: Some("private".to_owned()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            readonly_rootfs: Some(true),
            cap_drop: texts(&["ALL"]),
            security_opt: Some(vec![
                "no-new-privileges:true".to_owned(),
                format!("seccomp={}", profile()),
            ]),
            masked_paths: Some(hidden()),
            readonly_paths: texts(&READ_ONLY),
            memory: Some(memory),
            // Memory and swap together: no swap.
            memory_swap: Some(memory),
            nano_cpus: Some(signed(limits.cpu_millis.saturating_mul(1_000_000))),
            pids_limit: Some(signed(limits.pids)),
            blkio_device_read_bps: limits.io_bytes_per_second.map(throttle),
            blkio_device_write_bps: limits.io_bytes_per_second.map(throttle),
            oom_score_adj: Some(OOM_SCORE),
            ulimits: Some(vec![ulimit("nofile", files()), ulimit("core", 1)]),
            sysctls: Path::new(SYSCTL).join(NO_IPV6).exists().then(with_ipv6),
            init: Some(false),
            auto_remove: Some(true),
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            // Over the daemon's own /sys, which tells about the host's devices.
            tmpfs: Some(HashMap::from([(
                "/sys".to_owned(),
                "ro,nosuid,nodev,noexec,size=4k,mode=755".to_owned(),
            )])),
            mounts: Some(self.binds.into_iter().map(mount).collect()),
            ..HostConfig::default()
        }
    }
}

/// The runtime is told nothing about flags: told to make a mount read-only it would forget the
/// other flags the mount has on the host.
fn mount((source, target): (PathBuf, String)) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..MountBindOptions::default()
        }),
        ..Mount::default()
    }
}

/// Parts of `/proc` that tell about or act on the host: a longer list than the daemon's own.
fn hidden() -> Vec<String> {
    let proc = HIDDEN_DIRECTORIES.iter().chain(&HIDDEN_FILES);
    let proc = proc.map(|name| format!("/proc/{name}"));
    proc.chain(ALSO_HIDDEN.map(str::to_owned)).collect()
}

/// The daemon turns IPv6 off in a network of nothing; the boundary is to answer there as well.
fn with_ipv6() -> HashMap<String, String> {
    HashMap::from([(NO_IPV6.replace('/', "."), "0".to_owned())])
}

/// No more than this process may have: a root without CAP_SYS_RESOURCE, as in some virtual
/// machines, cannot raise it, and neither can its daemon.
fn files() -> i64 {
    let own = getrlimit(Resource::RLIMIT_NOFILE).map_or(FILES, |(_, hard)| hard);
    signed(own.min(FILES))
}

fn ulimit(name: &str, value: i64) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(value),
        hard: Some(value),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_nothing_it_does_not_need() {
        let limits = SandboxLimits {
            io_bytes_per_second: Some(5),
            ..SandboxLimits::default()
        };
        let order = Order {
            image: "stockade/skeleton:1".to_owned(),
            binds: vec![("/state/tree/tmp".into(), "/tmp".to_owned())],
            limits: &limits,
            disks: &["/dev/vda".to_owned()],
            owner: "me".to_owned(),
            state: "/state".to_owned(),
        };
        let body = serde_json::to_value(order.body()).expect("serializes");
        let host = &body["HostConfig"];
        for (path, expected) in [
            ("NetworkMode", serde_json::json!("none")),
            ("ReadonlyRootfs", serde_json::json!(true)),
            ("CapDrop", serde_json::json!(["ALL"])),
            ("PidsLimit", serde_json::json!(1024)),
            ("NanoCpus", serde_json::json!(2_000_000_000_u64)),
            ("Memory", serde_json::json!(4_u64 << 30)),
            ("MemorySwap", serde_json::json!(4_u64 << 30)),
            (
                "BlkioDeviceWriteBps",
                serde_json::json!([{"Path": "/dev/vda", "Rate": 5}]),
            ),
        ] {
            assert_eq!(host[path], expected, "{path}");
        }
        assert_eq!(host["SecurityOpt"][0], "no-new-privileges:true");
        assert!(
            host["SecurityOpt"][1]
                .as_str()
                .is_some_and(|option| option.starts_with("seccomp={"))
        );
        assert!(host.get("Privileged").is_none() && host.get("CapAdd").is_none() && host.get("Devices").is_none());
        assert_eq!(body["User"], "1000:1000");
        assert_eq!(host["Mounts"][0]["BindOptions"]["Propagation"], "rprivate");
    }
}
