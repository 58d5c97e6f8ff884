//! Logging: to standard error, human-readable on a terminal, one JSON object a line elsewhere when asked.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Installs the process's logger. `CORACLE_LOG` holds filter directives (`info`, `debug,h2=warn`), `CORACLE_LOG_FORMAT=json`
/// asks for JSON lines. A second call does nothing.
pub fn init(component: &str) {
    let filter = EnvFilter::try_from_env("CORACLE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=warn,h2=warn,hickory_server=warn"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let json = std::env::var("CORACLE_LOG_FORMAT").is_ok_and(|format| format == "json");
    let installed = if json { builder.json().try_init() } else { builder.try_init() };
    if installed.is_ok() {
        tracing::debug!(component, "logging started");
    }
}
