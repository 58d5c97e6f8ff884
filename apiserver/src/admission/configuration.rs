//! `AdmissionConfiguration` (apiserver.config.k8s.io): the file of `--admission-control-config-file`, and what stands in it for
//! each plugin, in place or in a file of its own.
//!
//! Fields are known by shapes; most kinds of these files take none that they do not know.

use super::optional::event_rate::{By, Limit, Limits};
use super::optional::node_selector::Selectors;
use super::optional::tolerations::Tolerations;
use super::pod_security::{Settings, is_level, is_version};
use super::quota::LimitedResource;
use crate::outbound::credentials::Credentials;
use anyhow::{Context, bail, ensure};
use coracle_api::labels;
use coracle_api::status::{FieldError, go_quoted};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const GROUP: &str = "apiserver.config.k8s.io";

/// Where a plugin's configuration stands.
enum Place {
    Here(String),
    File(PathBuf),
    Nowhere,
}

/// The configurations, by plugin.
#[derive(Default)]
pub struct Configuration(BTreeMap<String, Place>);

/// What a document may hold.
enum Shape {
    Any,
    Of(&'static [(&'static str, Shape)]),
    ListOf(&'static Shape),
}

const FILE: Shape = Shape::Of(&[(
    "plugins",
    Shape::ListOf(&Shape::Of(&[("name", Shape::Any), ("path", Shape::Any), ("configuration", Shape::Any)])),
)]);
const POD_SECURITY: Shape = Shape::Of(&[
    (
        "defaults",
        Shape::Of(&[
            ("enforce", Shape::Any),
            ("enforce-version", Shape::Any),
            ("audit", Shape::Any),
            ("audit-version", Shape::Any),
            ("warn", Shape::Any),
            ("warn-version", Shape::Any),
        ]),
    ),
    (
        "exemptions",
        Shape::Of(&[("usernames", Shape::Any), ("namespaces", Shape::Any), ("runtimeClasses", Shape::Any)]),
    ),
]);
const QUOTA: Shape = Shape::Of(&[(
    "limitedResources",
    Shape::ListOf(&Shape::Of(&[
        ("apiGroup", Shape::Any),
        ("resource", Shape::Any),
        ("matchContains", Shape::Any),
        (
            "matchScopes",
            Shape::ListOf(&Shape::Of(&[
                ("scopeName", Shape::Any),
                ("operator", Shape::Any),
                ("values", Shape::Any),
            ])),
        ),
    ])),
)]);

/// The fields of a document that its shape does not have.
fn unknown(value: &Value, shape: &Shape, path: &str, out: &mut Vec<String>) {
    match (shape, value) {
        (Shape::Of(fields), Value::Object(own)) => {
            for (key, value) in own {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let named = path == "kind" || path == "apiVersion";
                match fields.iter().find(|(name, _)| name == key) {
                    Some((_, shape)) => unknown(value, shape, &path, out),
                    None if named => {}
                    None => out.push(format!("unknown field {}", go_quoted(&path))),
                }
            }
        }
        (Shape::ListOf(shape), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                unknown(item, shape, &format!("{path}[{index}]"), out);
            }
        }
        _ => {}
    }
}

/// The document in a text, of one of these versions and kind.
fn decode(text: &str, group: &str, versions: &[&str], kind: &str, shape: &Shape) -> anyhow::Result<Value> {
    let value: Value =
        serde_yaml_ng::from_str(text).context("couldn't get version/kind; json parse error")?;
    let of = |key: &str| value[key].as_str().unwrap_or_default();
    let (own, version) = (of("kind"), of("apiVersion"));
    ensure!(!own.is_empty(), "Object 'Kind' is missing in '{text}'");
    ensure!(!version.is_empty(), "Object 'apiVersion' is missing in '{text}'");
    let known = version.strip_prefix(group).and_then(|rest| rest.strip_prefix('/'));
    ensure!(
        own == kind && known.is_some_and(|known| versions.contains(&known)),
        "no kind {own:?} is registered for version {version:?}"
    );
    let mut found = Vec::new();
    unknown(&value, shape, "", &mut found);
    ensure!(found.is_empty(), "strict decoding error: {}", found.join(", "));
    Ok(value)
}

impl Configuration {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// It is no such configuration.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                let path = path.display().to_string();
                bail!(
                    "unable to read admission control configuration from {path:?} [open {path}: {}]",
                    told(&error)
                )
            }
        };
        let value = match decode(&text, GROUP, &["v1", "v1alpha1"], "AdmissionConfiguration", &FILE) {
            Ok(value) => value,
            // What the plugin's own file was before there was this one.
            Err(_) if is_old(&text) => {
                return Ok(Self(BTreeMap::from([("PodNodeSelector".to_owned(), Place::Here(text))])));
            }
            Err(error) => return Err(error),
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut own = BTreeMap::new();
        for plugin in value["plugins"].as_array().into_iter().flatten() {
            let place = match (&plugin["configuration"], plugin["path"].as_str().unwrap_or_default()) {
                (Value::Null, "") => Place::Nowhere,
                (Value::Null, path) => Place::File(folder.join(path)),
                (inside, _) => Place::Here(inside.to_string()),
            };
            // Of several the first counts.
            own.entry(plugin["name"].as_str().unwrap_or_default().to_owned()).or_insert(place);
        }
        Ok(Self(own))
    }

    /// The text of a plugin's configuration.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn of(&self, plugin: &str) -> anyhow::Result<Option<String>> {
        match self.0.get(plugin) {
            None | Some(Place::Nowhere) => Ok(None),
            Some(Place::Here(text)) => Ok(Some(text.clone())),
            Some(Place::File(path)) => std::fs::read_to_string(path)
                .map(Some)
                .with_context(|| format!("Couldn't open admission plugin configuration {}", path.display())),
        }
    }
}

/// An error of the system without its number, as Go tells it.
fn told(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn is_old(text: &str) -> bool {
    let value: Result<Value, _> = serde_yaml_ng::from_str(text);
    value.is_ok_and(|value| value["kind"].is_null() && value["podNodeSelectorPluginConfig"].is_object())
}

/// All faults as Kubernetes puts them together.
fn check(faults: &[String]) -> anyhow::Result<()> {
    match faults {
        [] => Ok(()),
        [fault] => bail!("{fault}"),
        faults => bail!("[{}]", faults.join(", ")),
    }
}

fn texts(list: &Value) -> Vec<String> {
    coracle_api::meta::strings(list).map(str::to_owned).collect()
}

/// `podNodeSelectorPluginConfig`, as far as it can be read: it has no kind.
pub fn node_selectors(text: Option<&str>) -> Selectors {
    let value: Value = text.and_then(|text| serde_yaml_ng::from_str(text).ok()).unwrap_or_default();
    let own = value["podNodeSelectorPluginConfig"].as_object().into_iter().flatten();
    own.map(|(namespace, selector)| (namespace.clone(), selector.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Of PodTolerationRestriction.
///
/// # Errors
/// What is wrong with it.
pub fn tolerations(text: Option<&str>) -> anyhow::Result<Tolerations> {
    const GROUP: &str = "podtolerationrestriction.admission.k8s.io";
    let Some(text) = text else { return Ok(Tolerations::default()) };
    let value = decode(text, GROUP, &["v1alpha1"], "Configuration", &Shape::Any)?;
    let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    Ok(Tolerations { default: list("default"), allowed: list("whitelist") })
}

const NO_LIMITS: &str = "limits: Invalid value: []eventratelimit.Limit(nil): must not be empty";

/// Of EventRateLimit, which does nothing without.
///
/// # Errors
/// What is wrong with it.
pub fn event_limits(text: Option<&str>) -> anyhow::Result<Limits> {
    const GROUP: &str = "eventratelimit.admission.k8s.io";
    const KINDS: [&str; 4] = ["Namespace", "Server", "SourceAndObject", "User"];
    let Some(text) = text else { bail!("{NO_LIMITS}") };
    let value = decode(text, GROUP, &["v1alpha1"], "Configuration", &Shape::Any)?;
    let own = value["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (mut faults, mut limits) = (Vec::new(), Vec::new());
    if own.is_empty() {
        faults.push(NO_LIMITS.to_owned());
    }
    for (index, limit) in own.iter().enumerate() {
        let at = |field: &str| format!("limits[{index}].{field}");
        let by = serde_json::from_value::<By>(limit["type"].clone());
        let number = |field: &str| limit[field].as_i64().unwrap_or_default();
        if by.is_err() {
            let told = json!(limit["type"].as_str().unwrap_or_default());
            faults.push(FieldError::not_supported(at("type"), &told, &KINDS).to_string());
        }
        for field in ["burst", "qps"] {
            if number(field) <= 0 {
                let fault = FieldError::invalid(at(field), &json!(number(field)), "must be positive");
                faults.push(fault.to_string());
            }
        }
        let kept = number("cacheSize");
        if kept < 0 && by.as_ref().is_ok_and(|by| *by != By::Server) {
            let fault = FieldError::invalid(at("cacheSize"), &json!(kept), "must not be negative");
            faults.push(fault.to_string());
        }
        let bounded = |field: &str| f64::from(i32::try_from(number(field)).unwrap_or(i32::MAX));
        if let Ok(by) = by {
            let kept = usize::try_from(kept).unwrap_or_default();
            limits.push(Limit { by, qps: bounded("qps"), burst: bounded("burst"), kept });
        }
    }
    check(&faults)?;
    Ok(Limits::new(limits))
}

/// Of PodSecurity, as it is told.
///
/// # Errors
/// It is no such document.
pub fn pod_security(text: Option<&str>) -> anyhow::Result<Settings> {
    const GROUP: &str = "pod-security.admission.config.k8s.io";
    let Some(text) = text else { return Ok(Settings::default()) };
    let versions = ["v1", "v1beta1", "v1alpha1"];
    let value = decode(text, GROUP, &versions, "PodSecurityConfiguration", &POD_SECURITY)?;
    let mut settings = Settings::default();
    for (mode, own) in settings.modes() {
        let told = |key: &str| value["defaults"][key].as_str().filter(|text| !text.is_empty());
        if let Some(level) = told(mode) {
            // One that nobody knows is told below.
            own.level = is_level(level).unwrap_or_default();
        }
        if let Some(version) = told(&format!("{mode}-version")) {
            version.clone_into(&mut own.version);
        }
    }
    let exemptions = &value["exemptions"];
    settings.namespaces = texts(&exemptions["namespaces"]);
    settings.runtime_classes = texts(&exemptions["runtimeClasses"]);
    settings.users = texts(&exemptions["usernames"]);
    Ok(settings)
}

/// What is wrong with a name.
type Judge<'a> = &'a dyn Fn(&str) -> Vec<String>;

/// What is wrong with settings of PodSecurity: with levels and versions, or else with names.
///
/// # Errors
/// All of it.
pub fn complete(settings: &mut Settings) -> anyhow::Result<()> {
    let mut faults = Vec::new();
    for (mode, own) in settings.modes() {
        if own.level.is_empty() {
            faults.push(format!("{mode}: must be one of privileged, baseline, restricted"));
        }
        if !is_version(&own.version) {
            faults.push(format!("{mode}-version: must be \"latest\" or \"v1.x\""));
        }
    }
    check(&faults).context("PodSecurity configuration error")?;
    let named = |name: &str| {
        if name.is_empty() { vec!["username must not be empty".to_owned()] } else { Vec::new() }
    };
    let rows: [(&str, &[String], Judge<'_>); 3] = [
        ("namespaces", &settings.namespaces, &labels::is_dns1123_label),
        ("runtimeClasses", &settings.runtime_classes, &labels::is_dns1123_subdomain),
        ("usernames", &settings.users, &named),
    ];
    for (field, names, judge) in rows {
        let mut seen = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            let at = format!("exemptions.{field}[{index}]");
            let complaints = judge(name);
            if !complaints.is_empty() {
                faults.push(FieldError::invalid(at, &json!(name), complaints.join(", ")).to_string());
            } else if !seen.insert(name) {
                faults.push(FieldError::duplicate(at, &json!(name)).to_string());
            }
        }
    }
    check(&faults).context("PodSecurity invalid")
}

/// Of the webhook plugins: who this server is to webhooks, in a kubeconfig.
///
/// # Errors
/// What is wrong with it.
pub fn credentials(text: Option<&str>) -> anyhow::Result<Arc<Credentials>> {
    let Some(text) = text else { return Ok(Arc::default()) };
    let own = decode(text, GROUP, &["v1"], "WebhookAdmissionConfiguration", &Shape::Any);
    let value = match own {
        Ok(value) => value,
        Err(error) => {
            decode(text, GROUP, &["v1alpha1"], "WebhookAdmission", &Shape::Any).map_err(|_| error)?
        }
    };
    let told = value["kubeConfigFile"].as_str().unwrap_or_default();
    let path = Path::new(told);
    if !path.is_absolute() {
        let fault = FieldError::invalid("kubeConfigFile", &json!(told), "must be an absolute file path");
        bail!("{fault}");
    }
    Credentials::read(path).map(Arc::new)
}

/// Of ResourceQuota.
///
/// # Errors
/// What is wrong with it.
pub fn limited(text: Option<&str>) -> anyhow::Result<Vec<LimitedResource>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    // Older versions are of a group of their own.
    let own = decode(text, GROUP, &["v1"], "ResourceQuotaConfiguration", &QUOTA);
    let value = match own {
        Ok(value) => value,
        Err(error) => {
            let old = ["v1alpha1", "v1beta1"];
            decode(text, "resourcequota.admission.k8s.io", &old, "Configuration", &QUOTA)
                .map_err(|_| error)?
        }
    };
    let own = value["limitedResources"].as_array().map(Vec::as_slice).unwrap_or_default();
    let nameless = |one: &Value| one["resource"].as_str().unwrap_or_default().is_empty();
    let missing = own.iter().enumerate().filter(|(_, one)| nameless(one));
    let faults: Vec<String> = missing
        .map(|(index, _)| FieldError::required(format!("limitedResources[{index}].resource"), "").to_string())
        .collect();
    check(&faults)?;
    let read = |one: &Value| LimitedResource {
        group: one["apiGroup"].as_str().unwrap_or_default().to_owned(),
        resource: one["resource"].as_str().unwrap_or_default().to_owned(),
        contains: texts(&one["matchContains"]),
        scopes: one["matchScopes"].as_array().cloned().unwrap_or_default(),
    };
    Ok(own.iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why<T>(read: anyhow::Result<T>) -> String {
        read.err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    #[test]
    fn a_file_names_configurations_in_place_and_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        at("there.yaml", "there");
        let file = at(
            "all.yaml",
            "{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{name: A, path: there.yaml}, {name: B, configuration: {kind: K}}, {name: C, path: nowhere}, {name: A}, {name: D}]}",
        );
        let own = Configuration::read(Some(&file)).expect("a configuration");
        let of = |name: &str| own.of(name).map_err(|error| error.to_string());
        assert_eq!(of("A"), Ok(Some("there".to_owned())));
        assert_eq!(of("B"), Ok(Some(r#"{"kind":"K"}"#.to_owned())));
        assert!(of("C").is_err());
        assert_eq!((of("D"), of("E")), (Ok(None), Ok(None)));
        let old = at("old.yaml", "podNodeSelectorPluginConfig: {a: b=c}");
        let old =
            Configuration::read(Some(&old)).expect("the old form").of("PodNodeSelector").expect("in place");
        assert_eq!(node_selectors(old.as_deref()), Selectors::from([("a".to_owned(), "b=c".to_owned())]));
        let rows = [
            ("{}", "Object 'Kind' is missing in '{}'"),
            ("{kind: X}", "Object 'apiVersion' is missing in '{kind: X}'"),
            ("{kind: X, apiVersion: v1}", "no kind \"X\" is registered for version \"v1\""),
            (
                "{kind: AdmissionConfiguration, apiVersion: apiserver.config.k8s.io/v1, plugins: [{nme: x}], x: 1}",
                "strict decoding error: unknown field \"plugins[0].nme\", unknown field \"x\"",
            ),
        ];
        for (text, want) in rows {
            assert_eq!(why(Configuration::read(Some(&at("bad.yaml", text)))), want);
        }
        assert!(
            why(Configuration::read(Some(Path::new("/nowhere"))))
                .starts_with("unable to read admission control configuration from \"/nowhere\" [")
        );
    }

    #[test]
    fn each_plugins_faults_are_told_at_once() {
        let of = |more: &str| {
            format!(
                "{{apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, {more}}}"
            )
        };
        let told = |more: &str| {
            let settings = pod_security(Some(&of(more)));
            why(settings.and_then(|mut settings| complete(&mut settings)))
        };
        assert_eq!(told("defaults: {enforce: baseline, enforce-version: v1.30}"), "");
        assert_eq!(
            told("defaults: {enforce: x, warn-version: '1'}"),
            "PodSecurity configuration error: [enforce: must be one of privileged, baseline, restricted, warn-version: must be \"latest\" or \"v1.x\"]"
        );
        assert_eq!(
            told("exemptions: {namespaces: [a, a]}"),
            "PodSecurity invalid: exemptions.namespaces[1]: Duplicate value: \"a\""
        );
        assert_eq!(
            told("exemptions: {usernames: ['']}"),
            "PodSecurity invalid: exemptions.usernames[0]: Invalid value: \"\": username must not be empty"
        );
        assert_eq!(told("defaults: {enfoce: x}"), "strict decoding error: unknown field \"defaults.enfoce\"");
        let events = |limits: &str| {
            why(event_limits(Some(&format!("{{apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: {limits}}}"))).map(drop))
        };
        assert_eq!(events("[]"), NO_LIMITS);
        assert_eq!(
            events("[{type: X, qps: 1}]"),
            "[limits[0].type: Unsupported value: \"X\": supported values: \"Namespace\", \"Server\", \"SourceAndObject\", \"User\", limits[0].burst: Invalid value: 0: must be positive]"
        );
        let quota = "{apiVersion: apiserver.config.k8s.io/v1, kind: ResourceQuotaConfiguration, limitedResources: [{matchContains: [x]}]}";
        assert_eq!(why(limited(Some(quota))), "limitedResources[0].resource: Required value");
        let older = "{apiVersion: resourcequota.admission.k8s.io/v1beta1, kind: Configuration, limitedResources: [{resource: pods}]}";
        assert_eq!(limited(Some(older)).expect("an older version").len(), 1);
    }
}
