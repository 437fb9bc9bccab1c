//! The curated list of files that programs outside a sandbox run or obey by themselves.
//!
//! A change to one of them can be what was asked for. It can also be how an agent gets its
//! commands run where nothing holds it: by an editor that opens the folder, by the next
//! agent, by a shell, by git, by the servers that build the change (CVE-2025-59536,
//! CVE-2026-25725).

/// Changes with the list; stands in policy versions.
pub const SENSITIVE_VERSION: &str = "2026-11-22";

/// Files with one reason to be careful.
pub(crate) struct Category {
    /// Who runs or obeys them.
    pub(crate) who: &'static str,
    /// Patterns.
    pub(crate) patterns: &'static [&'static str],
}

/// The list.
pub(crate) const SENSITIVE: &[Category] = &[
    Category {
        who: "coding agents take commands, servers and permissions from it",
        patterns: &[
            "**/.claude/settings.json",
            "**/.claude/settings.local.json",
            "**/.claude/hooks/",
            ".mcp.json",
            "**/.codex/config.toml",
            "**/.codex/hooks.json",
            "**/.cursor/mcp.json",
            "**/.cursor/hooks.json",
            "**/.gemini/settings.json",
            "opencode.json",
            "opencode.jsonc",
            "**/.opencode/plugin/",
            "**/.opencode/plugins/",
        ],
    },
    Category {
        who: "editors run what it says when the folder is opened",
        patterns: &[
            "**/.vscode/tasks.json",
            "**/.vscode/settings.json",
            "**/.vscode/launch.json",
            "**/.vscode/mcp.json",
            "*.code-workspace",
            "**/.idea/runConfigurations/",
            "**/.idea/startup.xml",
            ".devcontainer.json",
            "**/.devcontainer/",
            ".nvim.lua",
            ".exrc",
        ],
    },
    Category {
        who: "shells run it",
        patterns: &[
            ".envrc",
            ".bashrc",
            ".bash_profile",
            ".bash_login",
            ".profile",
            ".zshrc",
            ".zshenv",
            ".zprofile",
            ".zlogin",
        ],
    },
    Category {
        who: "git and its hooks obey it",
        patterns: &[
            ".gitmodules",
            ".gitconfig",
            "/.githooks/",
            "/.husky/",
            ".pre-commit-config.yaml",
            "lefthook.yml",
            "lefthook.yaml",
        ],
    },
    Category {
        who: "build servers run it, often with secrets",
        patterns: &[
            "/.github/workflows/",
            "/.github/actions/",
            ".gitlab-ci.yml",
            "/.circleci/",
            "/.buildkite/",
            "/.woodpecker/",
            ".woodpecker.yml",
            ".drone.yml",
            ".travis.yml",
            "Jenkinsfile",
            "azure-pipelines.yml",
            "bitbucket-pipelines.yml",
        ],
    },
];
