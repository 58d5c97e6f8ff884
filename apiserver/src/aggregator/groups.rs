//! Discovery's groups: what this server serves and what APIServices add, in one order. Pure.

use super::priorities;
use super::remote::Remote;
use coracle_api::custom::priority;
use coracle_api::discovery::{Group, Version};
use coracle_api::{discovery, meta};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

struct Row {
    group_priority: i64,
    version_priority: i64,
    remote: Option<discovery::Remote>,
}

/// All groups but the core one. What is served stands here whether or not it has its APIService already; a local
/// APIService of something that is not served adds nothing.
pub fn groups(
    served: &[(&str, &str)],
    services: &[Arc<Value>],
    told: impl Fn(&str) -> discovery::Remote,
) -> Vec<Group> {
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    for (group, version) in served {
        let (group_priority, version_priority) = priorities::of(group, version);
        let row = Row { group_priority, version_priority, remote: None };
        rows.insert(((*group).to_owned(), (*version).to_owned()), row);
    }
    for service in services {
        let spec = &service["spec"];
        let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
        let at = (text("group"), text("version"));
        let remote = Remote::of(service).map(|_| told(meta::name(service)));
        if remote.is_none() && !rows.contains_key(&at) {
            continue;
        }
        let number = |key: &str| spec[key].as_i64().unwrap_or(0);
        let (group_priority, version_priority) = (number("groupPriorityMinimum"), number("versionPriority"));
        rows.insert(at, Row { group_priority, version_priority, remote });
    }
    ordered(rows)
}

fn ordered(rows: BTreeMap<(String, String), Row>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Vec<(String, Row)>> = BTreeMap::new();
    for ((group, version), row) in rows {
        if !group.is_empty() {
            groups.entry(group).or_default().push((version, row));
        }
    }
    let mut groups: Vec<(String, Vec<(String, Row)>)> = groups.into_iter().collect();
    // Stable: groups of one priority stay in the order of their names.
    groups.sort_by_key(|(_, rows)| Reverse(rows.iter().map(|(_, row)| row.group_priority).max()));
    let group = |(name, mut rows): (String, Vec<(String, Row)>)| {
        rows.sort_by_cached_key(|(version, row)| Reverse((row.version_priority, priority(version))));
        let priority = rows.iter().map(|(_, row)| row.group_priority).max().unwrap_or_default();
        let highest = rows.iter().filter(|(_, row)| row.group_priority == priority);
        let service = highest.map(|(version, _)| format!("{version}.{name}")).min().unwrap_or_default();
        let version = |(name, row): (String, Row)| Version { name, remote: row.remote };
        Group { name, versions: rows.into_iter().map(version).collect(), priority, service }
    };
    groups.into_iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, priorities: (i64, i64), remote: bool) -> Arc<Value> {
        let (version, group) = name.split_once('.').expect("name");
        let service = if remote { json!({"namespace": "n", "name": "s"}) } else { Value::Null };
        Arc::new(
            json!({"metadata": {"name": name}, "spec": {"group": group, "version": version, "service": service,
            "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1}}),
        )
    }

    fn shown(served: &[(&str, &str)], services: &[Arc<Value>]) -> Vec<String> {
        let groups = groups(served, services, |_| discovery::Remote::default());
        let version = |version: &Version| {
            format!("{}{}", version.name, if version.remote.is_some() { "*" } else { "" })
        };
        let versions = |group: &Group| group.versions.iter().map(version).collect::<Vec<_>>().join(",");
        groups.iter().map(|group| format!("{} {}", group.name, versions(group))).collect()
    }

    #[test]
    fn groups_and_versions_stand_in_the_order_of_their_priorities() {
        let served =
            [("", "v1"), ("batch", "v1"), ("apps", "v1"), ("autoscaling", "v1"), ("autoscaling", "v2")];
        let first = (super::super::GROUP, "v1");
        type Row<'a> = (&'a [(&'a str, &'a str)], Vec<Arc<Value>>, &'a [&'a str]);
        let rows: &[Row<'_>] = &[
            (&served, vec![], &["apps v1", "autoscaling v2,v1", "batch v1"]),
            (
                &[first],
                vec![service("v1.z.io", (20_000, 1), true)],
                &["apiregistration.k8s.io v1", "z.io v1*"],
            ),
            // Versions of definitions follow Kubernetes' order of versions.
            (
                &[("b.io", "v1"), ("a.io", "v1beta1"), ("a.io", "v2"), ("a.io", "v1")],
                vec![],
                &["a.io v2,v1,v1beta1", "b.io v1"],
            ),
            // A group is as high as its highest version; local and remote ones mix.
            (
                &[("b.io", "v1"), ("a.io", "v1")],
                vec![service("v1.a.io", (1000, 100), false), service("v2.b.io", (5000, 10), true)],
                &["b.io v1,v2*", "a.io v1"],
            ),
            // A remote one takes the place of a local one; a local one of nothing is nothing.
            (
                &[("a.io", "v1")],
                vec![service("v1.a.io", (1, 1), true), service("v1.gone.io", (9, 9), false)],
                &["a.io v1*"],
            ),
        ];
        for (served, services, want) in rows {
            assert_eq!(shown(served, services), *want);
        }
    }

    #[test]
    fn the_old_list_has_groups_of_one_priority_in_the_order_of_their_services() {
        let served =
            [("a.io", "v1beta1"), ("b.io", "v1"), ("batch", "v1"), ("c.io", "v1"), ("c.io", "v1alpha1")];
        let groups = groups(&served, &[], |_| discovery::Remote::default());
        let names = |list: &Value| -> Vec<String> {
            let listed = list["groups"].as_array().into_iter().flatten();
            listed.filter_map(|group| group["name"].as_str().map(str::to_owned)).collect()
        };
        assert_eq!(names(&discovery::group_list(&groups)), ["batch", "b.io", "c.io", "a.io"]);
        let aggregated: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(aggregated, ["batch", "a.io", "b.io", "c.io"]);
    }
}
