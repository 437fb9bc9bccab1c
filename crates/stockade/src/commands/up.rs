//! `stockade up`: all roles in one process.

use super::signals;
use crate::{
    cli::Up,
    exit::Outcome,
    server,
    settings::{self, Settings},
    terminal::{out, say, style},
};

pub(crate) async fn execute(options: Up, mut settings: Settings) -> Outcome {
    if let Some(listen) = options.listen {
        settings::loopback(listen)?;
        settings.listen = listen;
    }
    let model = match &settings.provider {
        Some(provider) => format!("{} ({})", settings.model.as_deref().unwrap_or("-"), provider.describe()),
        None => style::wait("none: runs are refused until a provider is configured"),
    };
    let state_dir = settings.state_dir.display().to_string();
    server::run_until(
        settings,
        |server| {
            say(&format!(
                "{} {}",
                style::bold("stockade"),
                style::dim(env!("CARGO_PKG_VERSION"))
            ));
            say(&format!("  API    {}", server.url()));
            say(&format!("  model  {model}"));
            say(&format!("  state  {state_dir}"));
            say("  token  (also found by the CLI; keep it private)");
            out(server.token());
            say(&style::dim("  stop with Ctrl-C; waiting runs keep waiting"));
        },
        async {
            signals::stop_asked().await;
            say("\n  stopping");
        },
    )
    .await
}
