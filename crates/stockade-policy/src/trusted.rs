//! The trusted list: package registries, source hosts, toolchains and distribution mirrors.
//!
//! What is on it: hosts a build needs to *fetch* from, run by a registry, a language project
//! or a distribution. What is not on it, on purpose: pastes and gists, object storage in
//! which anybody opens a bucket, upload hosts of registries, general APIs that take writes,
//! container registries (a push looks like a pull at this level), and telemetry. An
//! environment adds what it needs under `domains`.
//!
//! A domain list judges where bytes go, not what they are: somebody who holds an account at
//! a listed source host can receive data there. Use `custom` where that matters.
//!
//! The list has a version; it and every entry are part of a policy's digest.

/// Version of the list; changes with every entry.
pub const TRUSTED_VERSION: &str = "2026-11.2";

/// Hosts for one purpose.
#[derive(Debug, Clone, Copy)]
pub struct Category {
    /// Name for documentation.
    pub name: &'static str,
    /// Entries as an environment would write them.
    pub domains: &'static [&'static str],
}

/// The whole list.
pub const TRUSTED: &[Category] = &[
    Category {
        name: "source hosts",
        domains: &[
            "github.com",
            "codeload.github.com",
            "raw.githubusercontent.com",
            "objects.githubusercontent.com",
            "release-assets.githubusercontent.com",
            "media.githubusercontent.com",
            "gitlab.com",
            "bitbucket.org",
            "codeberg.org",
        ],
    },
    Category {
        name: "JavaScript",
        domains: &[
            "registry.npmjs.org",
            "registry.yarnpkg.com",
            "repo.yarnpkg.com",
            "nodejs.org",
            "jsr.io",
            "npm.jsr.io",
            "dl.deno.land",
        ],
    },
    Category {
        name: "Python",
        domains: &[
            "pypi.org",
            "files.pythonhosted.org",
            "bootstrap.pypa.io",
            "www.python.org",
            "repo.anaconda.com",
            "conda.anaconda.org",
        ],
    },
    Category {
        name: "Rust",
        domains: &[
            "index.crates.io",
            "static.crates.io",
            "crates.io",
            "static.rust-lang.org",
            "sh.rustup.rs",
        ],
    },
    Category {
        name: "Go",
        domains: &[
            "proxy.golang.org",
            "sum.golang.org",
            "go.dev",
            "golang.org",
            "dl.google.com",
        ],
    },
    Category {
        name: "JVM",
        domains: &[
            "repo.maven.apache.org",
            "repo1.maven.org",
            "maven.google.com",
            "plugins.gradle.org",
            "services.gradle.org",
            "downloads.gradle.org",
            "repo.spring.io",
            "archive.apache.org",
            "downloads.apache.org",
            "dlcdn.apache.org",
        ],
    },
    Category {
        name: "Ruby",
        domains: &["rubygems.org", "index.rubygems.org", "cache.ruby-lang.org"],
    },
    Category {
        name: "PHP",
        domains: &["packagist.org", "repo.packagist.org", "getcomposer.org"],
    },
    Category {
        name: ".NET",
        domains: &["api.nuget.org", "www.nuget.org", "builds.dotnet.microsoft.com"],
    },
    Category {
        name: "other languages",
        domains: &[
            "pub.dev",
            "hex.pm",
            "repo.hex.pm",
            "builds.hex.pm",
            "www.cpan.org",
            "cpan.metacpan.org",
            "fastapi.metacpan.org",
            "hackage.haskell.org",
            "downloads.haskell.org",
            "download.swift.org",
            "cdn.cocoapods.org",
            "cran.r-project.org",
            "cloud.r-project.org",
            "pkg.julialang.org",
            "luarocks.org",
            "ziglang.org",
        ],
    },
    Category {
        name: "distributions",
        domains: &[
            "deb.debian.org",
            "security.debian.org",
            "ftp.debian.org",
            "archive.ubuntu.com",
            "*.archive.ubuntu.com",
            "security.ubuntu.com",
            "ports.ubuntu.com",
            "dl-cdn.alpinelinux.org",
            "dl.fedoraproject.org",
            "mirrors.fedoraproject.org",
            "mirrorlist.centos.org",
            "vault.centos.org",
            "download.opensuse.org",
            "geo.mirror.pkgbuild.com",
            "cache.nixos.org",
            "channels.nixos.org",
            "releases.nixos.org",
            "formulae.brew.sh",
        ],
    },
    Category {
        name: "tools and schemas",
        domains: &[
            "releases.hashicorp.com",
            "dl.k8s.io",
            "json.schemastore.org",
            "json-schema.org",
        ],
    },
];

/// Every entry of the list.
pub fn trusted_domains() -> impl Iterator<Item = &'static str> {
    TRUSTED.iter().flat_map(|category| category.domains.iter().copied())
}

#[cfg(test)]
#[path = "trusted_tests.rs"]
mod tests;
