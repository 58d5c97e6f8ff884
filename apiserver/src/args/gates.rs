//! `--feature-gates`: the features of Kubernetes 1.33 that can be switched there. This server does what is on by default, and
//! says so to whoever asks for something else.
//!
//! `data/gates.txt` has a line for each: its name, whether it is on by default, its stage, and `locked` where it cannot be
//! switched.

use crate::meters::Register;
use anyhow::{Context, bail, ensure};
use coracle_api::meta;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

const GATES: &str = include_str!("../../data/gates.txt");

/// Off by default there, and done here whoever asks.
const DONE: &[&str] = &["WatchList"];

/// One feature.
struct Gate {
    name: &'static str,
    on: bool,
    stage: &'static str,
    locked: bool,
}

fn gates() -> impl Iterator<Item = Gate> {
    GATES.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (name, on, stage) = (words.next()?, words.next()? == "true", words.next()?);
        Some(Gate { name, on, stage, locked: words.next() == Some("locked") })
    })
}

/// Refuses what is not as asked for; each text is `[COMPONENT:]NAME=BOOL`.
///
/// # Errors
/// A feature is unknown, or not as it is wanted.
pub fn check(asked: &[String]) -> anyhow::Result<()> {
    let prefixed = asked.iter().filter(|text| text.trim().starts_with("kube:")).count();
    ensure!(
        prefixed == 0 || prefixed == asked.len(),
        "set kube feature gates with default empty prefix or kube: prefix consistently, do not mix use"
    );
    for text in asked.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let (component, text) = text.split_once(':').unwrap_or(("kube", text));
        ensure!(component == "kube", "component not registered: {component}");
        let (name, value) = text.split_once('=').with_context(|| format!("missing bool value for {text}"))?;
        let (name, value) = (name.trim(), value.trim());
        let Some(on) = meta::parse_bool(value) else {
            bail!(
                "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
            );
        };
        let Some(gate) = gates().find(|gate| gate.name == name) else {
            bail!("unrecognized feature gate: {name}");
        };
        let usual = gate.on;
        ensure!(
            !gate.locked || on == usual,
            "cannot set feature gate {name} to {on}, feature is locked to {usual}"
        );
        ensure!(
            on == usual || DONE.contains(&name),
            "cannot set feature gate {name} to {on}: this server does what Kubernetes 1.33 does by default, which is {usual}; leave it out"
        );
    }
    Ok(())
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    name: &'static str,
    stage: &'static str,
}

/// Tells of all features as metrics.
pub fn tell(registry: &mut Registry) {
    let told: Family<Labels, Gauge> = Family::default();
    for Gate { name, on, stage, .. } in gates() {
        let stage = if stage == "GA" { "" } else { stage };
        told.get_or_create(&Labels { name, stage }).set(i64::from(on));
    }
    Register::of(registry, "kubernetes_").add(
        "feature_enabled",
        "Whether a feature of Kubernetes is on",
        told,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(flag: &str) -> String {
        let asked: Vec<String> = flag.split(',').map(str::to_owned).collect();
        check(&asked).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn features_are_as_kubernetes_has_them_by_default_or_refused() {
        let rows = [
            ("", ""),
            ("kube:APIServerIdentity=true,kube:AllAlpha=false", ""),
            ("APIServerIdentity=T", ""),
            ("WatchList=true", ""),
            ("Nope=true", "unrecognized feature gate: Nope"),
            ("WatchList", "missing bool value for WatchList"),
            (
                "WatchList=maybe",
                "invalid value of WatchList=maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            ("wardle:A=true", "component not registered: wardle"),
            (
                "StructuredAuthorizationConfiguration=false",
                "cannot set feature gate StructuredAuthorizationConfiguration to false, feature is locked to true",
            ),
            (
                "AllAlpha=true",
                "cannot set feature gate AllAlpha to true: this server does what Kubernetes 1.33 does by default, which is false; leave it out",
            ),
        ];
        for (flag, want) in rows {
            assert_eq!(told(flag), want, "{flag}");
        }
        assert!(gates().count() > 150 && gates().any(|gate| gate.locked));
    }
}
