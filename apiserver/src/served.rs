//! `--runtime-config`: which of the built-in group versions and resources are served. What is not is as if it were not there:
//! neither found nor told of; what is stored of it stays.

use crate::request::RequestInfo;
use anyhow::{bail, ensure};
use coracle_api::kinds::{self, Kind};
use coracle_api::meta;
use coracle_api::openapi::{self, Documents};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

/// Group versions that Kubernetes knows and does not serve by default, and this server does not have.
const ELSEWHERE: &[&str] = &[
    "admissionregistration.k8s.io/v1alpha1",
    "admissionregistration.k8s.io/v1beta1",
    "apps/v1beta1",
    "apps/v1beta2",
    "authentication.k8s.io/v1alpha1",
    "authentication.k8s.io/v1beta1",
    "authorization.k8s.io/v1beta1",
    "autoscaling/v2beta1",
    "autoscaling/v2beta2",
    "batch/v1beta1",
    "certificates.k8s.io/v1alpha1",
    "certificates.k8s.io/v1beta1",
    "coordination.k8s.io/v1alpha2",
    "coordination.k8s.io/v1beta1",
    "discovery.k8s.io/v1beta1",
    "events.k8s.io/v1beta1",
    "extensions/v1beta1",
    "flowcontrol.apiserver.k8s.io/v1beta1",
    "flowcontrol.apiserver.k8s.io/v1beta2",
    "flowcontrol.apiserver.k8s.io/v1beta3",
    "imagepolicy.k8s.io/v1alpha1",
    "internal.apiserver.k8s.io/v1alpha1",
    "networking.k8s.io/v1alpha1",
    "networking.k8s.io/v1beta1",
    "node.k8s.io/v1alpha1",
    "node.k8s.io/v1beta1",
    "policy/v1beta1",
    "rbac.authorization.k8s.io/v1alpha1",
    "rbac.authorization.k8s.io/v1beta1",
    "resource.k8s.io/v1alpha3",
    "resource.k8s.io/v1beta1",
    "resource.k8s.io/v1beta2",
    "scheduling.k8s.io/v1alpha1",
    "scheduling.k8s.io/v1beta1",
    "storage.k8s.io/v1alpha1",
    "storage.k8s.io/v1beta1",
    "storagemigration.k8s.io/v1alpha1",
];

/// Settings of many versions, in the order in which they are heard.
const ALL: [&str; 4] = ["api/all", "api/ga", "api/beta", "api/alpha"];

/// Group, version and plural; every plural where it is empty.
type Place = (String, String, String);

/// What is not served.
#[derive(Debug, Default)]
pub struct Served {
    hidden: BTreeSet<Place>,
    /// Made when they are first asked for, where not every built-in kind is served.
    documents: OnceLock<Option<Documents>>,
}

/// `v1`, `v1beta1`, `v1alpha1`: how far a version is.
fn stage(version: &str) -> &'static str {
    match version {
        version if version.contains("alpha") => "api/alpha",
        version if version.contains("beta") => "api/beta",
        _ => "api/ga",
    }
}

/// Every group version of Kubernetes, and whether it is here.
fn known() -> BTreeMap<(String, String), bool> {
    let own = kinds::builtin().iter().map(|kind| ((kind.group.clone(), kind.version.clone()), true));
    let others = ELSEWHERE.iter().filter_map(|text| text.split_once('/'));
    let mut known: BTreeMap<_, _> =
        others.map(|(group, version)| ((group.to_owned(), version.to_owned()), false)).collect();
    known.extend(own);
    known
}

impl Served {
    /// By the flag: `KEY=true|false` for each of many.
    ///
    /// # Errors
    /// A key or value means nothing, or something that this server does not have.
    pub fn new(settings: &[String], is_fair: bool) -> anyhow::Result<Self> {
        let settings: BTreeMap<&str, &str> = settings
            .iter()
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
            .map(|text| text.split_once('=').unwrap_or((text, "")))
            .collect();
        if is_fair {
            check_fairness(&settings)?;
        }
        ensure!(
            settings.len() != 1 || settings.get("api/all") != Some(&"false"),
            "invalid key with only api/all=false"
        );
        let known = known();
        let mut served: BTreeMap<_, _> = known.iter().map(|(version, here)| (version, *here)).collect();
        for key in ALL {
            let Some(value) = settings.get(key) else { continue };
            let Some(on) = ["false", "true"].iter().position(|word| word == value).map(|on| on == 1) else {
                bail!("invalid value {key}={value}");
            };
            for ((_, version), told) in &mut served {
                if key == "api/all" || stage(version) == key {
                    *told = on;
                }
            }
        }
        let mut hidden = BTreeSet::new();
        let mut own: Vec<(Place, bool)> = Vec::new();
        for (key, value) in settings.iter().filter(|(key, _)| !ALL.contains(*key)) {
            let (place, on) = setting(key, value, &known)?;
            own.push((place, on));
        }
        // Whole versions first.
        own.sort_by_key(|((.., plural), _)| !plural.is_empty());
        for ((group, version, plural), on) in own {
            match served.get_mut(&(group.clone(), version.clone())) {
                Some(told) if plural.is_empty() => *told = on,
                _ if on => drop(hidden.remove(&(group, version, plural))),
                _ => drop(hidden.insert((group, version, plural))),
            }
        }
        for ((group, version), on) in served {
            ensure!(
                !on || known.get(&(group.clone(), version.clone())) == Some(&true),
                "--runtime-config asks for {group}/{version}, which is not part of this server; leave it out"
            );
            if !on {
                hidden.insert((group.clone(), version.clone(), String::new()));
            }
        }
        ensure!(
            !hidden.contains(&(String::new(), "v1".to_owned(), String::new())),
            "--runtime-config leaves out v1, which everything needs; add api/v1=true"
        );
        Ok(Self { hidden, documents: OnceLock::new() })
    }

    /// Whether a group version is not served.
    #[must_use]
    pub fn hides(&self, group: &str, version: &str) -> bool {
        self.hides_resource(group, version, "")
    }

    /// Whether a built-in version of a group is served.
    #[must_use]
    pub fn has_group(&self, group: &str) -> bool {
        kinds::builtin().iter().any(|kind| kind.group == group && !self.hides(group, &kind.version))
    }

    /// Whether a built-in group version is.
    #[must_use]
    pub fn has(&self, group: &str, version: &str) -> bool {
        let is_of = |kind: &Arc<Kind>| kind.group == group && kind.version == version;
        kinds::builtin().iter().any(is_of) && !self.hides(group, version)
    }

    fn hides_resource(&self, group: &str, version: &str, plural: &str) -> bool {
        !self.hidden.is_empty()
            && [plural, ""].iter().any(|plural| {
                self.hidden.contains(&(group.to_owned(), version.to_owned(), (*plural).to_owned()))
            })
    }

    /// Takes its kind from a request for what is not served.
    pub fn hide(&self, info: &mut RequestInfo) {
        if info.kind.is_some() && self.hides_resource(&info.group, &info.version, &info.resource) {
            info.kind = None;
        }
    }

    /// Takes what is not served out of an `APIResourceList` of a group version.
    pub fn prune(&self, group: &str, version: &str, list: &mut Value) {
        let Some(resources) = list["resources"].as_array_mut().filter(|_| !self.hidden.is_empty()) else {
            return;
        };
        resources.retain(|resource| {
            let name = resource["name"].as_str().or(resource["resource"].as_str()).unwrap_or_default();
            let plural = name.split('/').next().unwrap_or_default();
            !self.hides_resource(group, version, plural)
        });
    }

    /// The same of aggregated discovery.
    pub fn prune_aggregated(&self, document: &mut Value) {
        if self.hidden.is_empty() {
            return;
        }
        for item in document["items"].as_array_mut().into_iter().flatten() {
            let group = meta::name(item).to_owned();
            for version in item["versions"].as_array_mut().into_iter().flatten() {
                let name = version["version"].as_str().unwrap_or_default().to_owned();
                self.prune(&group, &name, version);
            }
        }
    }

    /// What OpenAPI tells of what is served.
    #[must_use]
    pub fn documents(&self) -> &Documents {
        let own = self.documents.get_or_init(|| {
            let is_served =
                |kind: &&Arc<Kind>| !self.hides_resource(&kind.group, &kind.version, &kind.plural);
            let kinds: Vec<Arc<Kind>> = kinds::builtin().iter().filter(is_served).cloned().collect();
            (kinds.len() < kinds::builtin().len()).then(|| Documents::builtin(&kinds))
        });
        own.as_ref().unwrap_or_else(|| openapi::builtin())
    }
}

/// One setting of a group version, or of a resource of one.
fn setting(
    key: &str,
    value: &str,
    known: &BTreeMap<(String, String), bool>,
) -> anyhow::Result<(Place, bool)> {
    let parts: Vec<&str> = key.split('/').collect();
    let (group, version, plural) = match parts[..] {
        ["v1"] | ["api", "v1"] => ("", "v1", ""),
        [group, version] => (group, version, ""),
        [group, version, plural] => (group, version, plural),
        _ => bail!("runtime-config invalid key {key}"),
    };
    ensure!(known.keys().any(|(own, _)| own == group), "unknown api groups {group}");
    ensure!(
        known.contains_key(&(group.to_owned(), version.to_owned())),
        "group version {group}/{version} that has not been registered"
    );
    let told = if value.is_empty() { Some(true) } else { meta::parse_bool(value) };
    let Some(on) = told else {
        bail!("invalid value of {key}: {value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax");
    };
    ensure!(
        plural == plural.to_lowercase(),
        "invalid key {key}: group/version/resource and resource is always lowercase plural, not {plural:?}"
    );
    Ok(((group.to_owned(), version.to_owned(), plural.to_owned()), on))
}

/// Priority and fairness goes by FlowSchemas, which must be served then.
fn check_fairness(settings: &BTreeMap<&str, &str>) -> anyhow::Result<()> {
    for key in ["flowcontrol.apiserver.k8s.io/v1", "api/ga", "api/all"] {
        match settings.get(key) {
            Some(&"false") => {
                bail!("--runtime-config={key}=false conflicts with --enable-priority-and-fairness=true")
            }
            Some(&"true") => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn served(text: &str) -> Result<Served, String> {
        let settings: Vec<String> = text.split(',').map(str::to_owned).collect();
        Served::new(&settings, false).map_err(|error| error.to_string())
    }

    #[test]
    fn versions_and_resources_are_switched_off_and_on() {
        let rows = [
            ("", "apps", "v1", false),
            ("apps/v1=false", "apps", "v1", true),
            ("api/all=false,api/v1=true", "apps", "v1", true),
            ("api/all=false,v1,apps/v1=true", "apps", "v1", false),
            ("batch/v1beta1=false", "batch", "v1", false),
            ("api/beta=false", "batch", "v1", false),
        ];
        for (text, group, version, hidden) in rows {
            assert_eq!(served(text).map(|served| served.hides(group, version)), Ok(hidden), "{text}");
        }
        let one = served("apps/v1/deployments=false").expect("a setting");
        assert!(one.hides_resource("apps", "v1", "deployments") && !one.hides("apps", "v1"));
        let mut list = json!({"resources": [{"name": "deployments/scale"}, {"name": "daemonsets"}]});
        one.prune("apps", "v1", &mut list);
        assert_eq!(list, json!({"resources": [{"name": "daemonsets"}]}));
        let told =
            |served: &Served| openapi::v3_index(served.documents(), &Documents::default())["paths"].clone();
        let (some, all) = (told(&served("batch/v1=false").expect("a setting")), told(&Served::default()));
        assert!(some["apis/batch"].is_null() && all["apis/batch"].is_object());
        assert_eq!(some["apis/apps/v1"], all["apis/apps/v1"]);
        assert_ne!(told(&one)["apis/apps/v1"], all["apis/apps/v1"], "one resource less");
    }

    #[test]
    fn settings_that_mean_nothing_or_too_much_are_refused() {
        let rows = [
            ("nope=true", "runtime-config invalid key nope"),
            ("nope/v1=true", "unknown api groups nope"),
            ("apps/v9=true", "group version apps/v9 that has not been registered"),
            ("api/all=maybe", "invalid value api/all=maybe"),
            ("api/none=true", "unknown api groups api"),
            ("api/all=false", "invalid key with only api/all=false"),
            (
                "batch/v1=maybe",
                "invalid value of batch/v1: maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            ),
            (
                "resource.k8s.io/v1beta1=true",
                "--runtime-config asks for resource.k8s.io/v1beta1, which is not part of this server; leave it out",
            ),
            (
                "v1=false,apps/v1=true",
                "--runtime-config leaves out v1, which everything needs; add api/v1=true",
            ),
        ];
        for (text, why) in rows {
            assert_eq!(served(text).map(drop), Err(why.to_owned()), "{text}");
        }
        let settings = ["api/ga=false".to_owned()];
        let fair = Served::new(&settings, true).map(drop).map_err(|error| error.to_string());
        let why = "--runtime-config=api/ga=false conflicts with --enable-priority-and-fairness=true";
        assert_eq!(fair, Err(why.to_owned()));
    }
}
