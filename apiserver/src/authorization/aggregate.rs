//! Aggregated ClusterRoles: the union of the rules of those that their selectors choose.

use super::rule::Rule;
use coracle_api::meta;
use coracle_api::selector::LabelSelector;
use serde_json::Value;
use std::borrow::Borrow;

/// The rules that `role` should have among `all` ClusterRoles, in the order of their names and without repetition;
/// `None` when it does not aggregate. A chosen role that aggregates itself gives what it chooses in turn.
pub fn aggregate<R: Borrow<Value>>(role: &Value, all: &[R]) -> Option<Vec<Rule>> {
    role["aggregationRule"].is_object().then(|| {
        let mut rules = Vec::new();
        collect(role, all, &mut vec![meta::name(role).to_owned()], &mut rules);
        rules
    })
}

fn collect<R: Borrow<Value>>(role: &Value, all: &[R], seen: &mut Vec<String>, rules: &mut Vec<Rule>) {
    let mut chosen: Vec<&Value> =
        all.iter().map(Borrow::borrow).filter(|other| chooses(role, &other["metadata"]["labels"])).collect();
    chosen.sort_by_key(|role| meta::name(role));
    for other in chosen {
        let name = meta::name(other).to_owned();
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        if other["aggregationRule"].is_object() {
            collect(other, all, seen, rules);
            continue;
        }
        for rule in Rule::parse_all(&other["rules"]) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
}

fn chooses(role: &Value, labels: &Value) -> bool {
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
    selectors
        .into_iter()
        .flatten()
        .any(|selector| LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches(labels)))
}
