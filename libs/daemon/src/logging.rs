//! Logging: to standard error, human-readable on a terminal, one JSON object a line elsewhere when asked.

use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

const USUAL: &str = "info,openraft=warn,h2=warn,hickory_server=warn";

/// Takes another filter.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Installs the process's logger. `CORACLE_LOG` holds filter directives (`info`, `debug,h2=warn`), `CORACLE_LOG_FORMAT=json`
/// asks for JSON lines. A second call does nothing.
pub fn init(component: &str) {
    let filter = EnvFilter::try_from_env("CORACLE_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let json = std::env::var("CORACLE_LOG_FORMAT").is_ok_and(|format| format == "json");
    let installed = if json {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        let reload: Reload = Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        builder.try_init().map(|()| reload)
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        let reload: Reload = Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        builder.try_init().map(|()| reload)
    };
    if let Ok(reload) = installed {
        // The first logger stays.
        let _ = RELOAD.set(reload);
        tracing::debug!(component, "logging started");
    }
}

/// Logs as much as Kubernetes' components do at a level: from 4 on what developers want to know, from 6 on everything.
///
/// # Errors
/// There is no logger of this process.
pub fn set_verbosity(level: u32) -> Result<(), String> {
    let reload = RELOAD.get().ok_or("nothing is logged")?;
    reload(EnvFilter::new(directives(level)))
}

fn directives(level: u32) -> String {
    let own = match level {
        0..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    };
    USUAL.replacen("info", own, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_kubernetes_are_levels_of_ours() {
        for (level, want) in [(0, "info,"), (2, "info,"), (4, "debug,"), (5, "debug,"), (9, "trace,")] {
            assert!(directives(level).starts_with(want), "{level}");
            assert!(EnvFilter::try_new(directives(level)).is_ok(), "{level}");
        }
    }
}
