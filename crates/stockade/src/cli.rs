//! The command line: what can be asked, nothing of how it is done.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 the run failed, 2 usage or configuration, 3 refused by policy or by a person,
            4 unsafe configuration refused, 5 a dependency is unavailable.
State lives in --state-dir (or STOCKADE_STATE_DIR; default ~/.local/share/stockade).";

/// Runs AI agents in sandboxes without a network card, and proves it.
#[derive(Debug, Parser)]
#[command(name = "stockade", version, about, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Where runs, keys and the token live
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Configuration file (default: stockade.yaml in the state directory, where it exists)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Model provider: anthropic[:URL], openai[:URL], scripted:FILE, replay:DIR
    #[arg(long, global = true, value_name = "SPEC")]
    pub(crate) provider: Option<String>,
    /// Print data as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One real run end to end on an embedded everything; also a self-check
    Demo(Demo),
    /// All roles in one process (development)
    Up(Up),
    /// Hand a task to an agent and watch it
    Run(RunTask),
    /// List, show, cancel, read and apply runs
    #[command(subcommand)]
    Runs(Runs),
    /// Say something to a running run
    Send(Send),
    /// Questions that wait for a person
    #[command(subcommand)]
    Approvals(Approvals),
    /// What a run did, signed
    #[command(subcommand)]
    Receipt(Receipt),
    /// Environments: what a sandbox may reach
    #[command(subcommand)]
    Env(Env),
    /// Agents: who does the work
    #[command(subcommand)]
    Agent(Agent),
    /// Secrets that the Guard puts into requests; their values are never shown
    #[command(subcommand)]
    Secret(Secret),
    /// API tokens
    #[command(subcommand)]
    Token(Token),
    /// The configuration file
    #[command(subcommand)]
    Config(Config),
    /// What this host has, what is missing and how to get it
    Doctor,
    /// Attack this installation's sandboxes, with a control for every attack
    Redteam(Redteam),
    /// Sets up one sandbox; started by stockade itself
    #[command(name = "__sandbox-launch", hide = true)]
    SandboxLaunch,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Approve without asking (automation)
    #[arg(long)]
    pub(crate) yes: bool,
    /// Keep the demo's files and say where they are
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Redteam {
    /// Sandbox backend, or `all` that are configured (default: the first one)
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Address to listen on; loopback only
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<std::net::SocketAddr>,
}

#[derive(Debug, Args)]
pub(crate) struct RunTask {
    /// What the agent is asked to do
    pub(crate) prompt: String,
    /// Repository: a path, a URL git understands, or owner/name at the first git host
    #[arg(long, value_name = "PATH|URL|OWNER/NAME")]
    pub(crate) repo: Option<String>,
    /// Branch, tag or commit to start from
    #[arg(long = "ref", value_name = "REF")]
    pub(crate) reference: Option<String>,
    /// Agent: a name (`stockade agent list`) or a YAML file
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) agent: Option<String>,
    /// Environment: a name (`stockade env list`)
    #[arg(long, value_name = "NAME")]
    pub(crate) env: Option<String>,
    /// Model to ask for
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Sandbox backend
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// Start from the writable layer that another run kept
    #[arg(long, value_name = "DIGEST")]
    pub(crate) from_snapshot: Option<String>,
    /// Keep the sandbox's writable layer at the end
    #[arg(long)]
    pub(crate) keep_snapshot: bool,
    /// Start it and return; needs a running `stockade up`
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) publish: Publish,
}

/// What becomes of the change on the server that the repository came from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Publishing")]
pub(crate) struct Publish {
    /// Push the change to a branch of its own on the repository's server
    #[arg(long)]
    pub(crate) push: bool,
    /// And open a pull request; a person is asked first, unless the environment says otherwise
    #[arg(long)]
    pub(crate) pr: bool,
    /// Branch the pull request goes into (default: the one the run starts from)
    #[arg(long, value_name = "BRANCH", requires = "pr")]
    pub(crate) pr_base: Option<String>,
    /// Title of the pull request (default: the first line of the task)
    #[arg(long, value_name = "TEXT", requires = "pr")]
    pub(crate) pr_title: Option<String>,
    /// Text of the pull request, in Markdown (default: the task and the agent's summary, quoted)
    #[arg(long, value_name = "TEXT", requires = "pr")]
    pub(crate) pr_body: Option<String>,
    /// Open the pull request as a draft
    #[arg(long, requires = "pr")]
    pub(crate) pr_draft: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Runs {
    /// Runs, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// One run
    Show { run: String },
    /// End a run
    Cancel {
        run: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
    /// What happened in a run
    Events {
        run: String,
        /// Keep watching until the run ends
        #[arg(long, short)]
        follow: bool,
        /// Start after this place
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// The change a run made, as a patch
    Diff { run: String },
    /// Bring a run's change into the working tree that --repo PATH named
    Apply {
        run: String,
        /// Another working tree
        #[arg(long, value_name = "PATH")]
        repo: Option<PathBuf>,
        /// Make the run's branch instead of changing files
        #[arg(long)]
        branch: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Send {
    pub(crate) run: String,
    pub(crate) text: String,
    /// Interrupt the current turn
    #[arg(long)]
    pub(crate) steer: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Approvals {
    /// Questions that wait
    List {
        /// Also the answered ones
        #[arg(long)]
        all: bool,
    },
    /// One question
    Show { id: String },
    /// Say yes
    Approve {
        id: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// Run the action with the arguments in this JSON file instead
        #[arg(long, value_name = "FILE")]
        edit: Option<PathBuf>,
    },
    /// Say no
    Reject {
        id: String,
        /// Why; the agent reads it
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Receipt {
    /// A run's receipt; with --out the exact file to keep
    Show {
        run: String,
        /// Write the receipt's file here
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check a receipt's file, offline
    Verify {
        file: PathBuf,
        /// Public key (PEM); default: this installation's
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Also check these events (`runs events --json`) against the receipt's chain
        #[arg(long, value_name = "FILE")]
        events: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Env {
    /// Environments
    List,
    /// One environment
    Show { name: String },
    /// What an environment says to a URL, which rule says it, and why the others do not
    Explain {
        name: String,
        /// https://…, http://…, or ssh://, postgres://, tls://, tcp:// with host and port
        url: String,
        /// Method of the request (default: GET)
        #[arg(long, value_name = "METHOD")]
        method: Option<String>,
        /// Agent whose rules are laid over it (default: the configured one)
        #[arg(long, value_name = "NAME|FILE")]
        agent: Option<String>,
    },
    /// Take hosts away from an environment's running and future runs at once: their connections there
    /// are closed and no new ones let out, until it is lifted
    Revoke {
        name: String,
        /// A host, '*.suffix' for every name below one, an address, or '*' for every host
        hosts: String,
        /// Why; events and receipts tell it
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Revocations of an environment, with who made them
    Revocations {
        name: String,
        /// Also those that were lifted
        #[arg(long)]
        all: bool,
    },
    /// Lift a revocation
    Lift { name: String, id: String },
    /// Print somebody else's access list as an environment of this configuration
    Import(Import),
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// An Open Envelope team, or an accessPolicy by itself
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "smokescreen",
        conflicts_with = "smokescreen"
    )]
    pub(crate) open_envelope: Option<PathBuf>,
    /// An access list of smokescreen
    #[arg(long, value_name = "FILE")]
    pub(crate) smokescreen: Option<PathBuf>,
    /// The agent of the team
    #[arg(long, value_name = "KEY", conflicts_with = "smokescreen")]
    pub(crate) agent: Option<String>,
    /// The role of the access list
    #[arg(long, value_name = "NAME", conflicts_with = "open_envelope")]
    pub(crate) role: Option<String>,
    /// Another name for the environment
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Agent {
    /// Agents, and whether they are installed
    List,
    /// One agent
    Show { name: String },
    /// Check an agent's file
    Check { file: PathBuf },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token; its secret is shown once
    Create {
        /// Whom it stands for
        name: String,
    },
    /// Tokens, without their secrets
    List,
    /// Make a token useless at once
    Revoke { id: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Set a secret to what comes on standard input, or to a file's content
    Set {
        /// What environments call it
        name: String,
        /// Read the value from this file, as it is
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Secrets, without their values
    List,
    /// Remove a secret; requests that need it are refused from then on
    Rm { name: String },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Check the configuration and say what it means
    Check,
}
