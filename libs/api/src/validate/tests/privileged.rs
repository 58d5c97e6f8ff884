//! What the maker of a cluster decides about containers.

use super::*;

#[test]
fn privileged_containers_are_for_clusters_that_allow_them() {
    let with = |context: Value| {
        pod(&json!({"containers": [{"name": "c", "image": "i", "securityContext": context}]}))
    };
    let template = |pod: &Value| json!({"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]});
    let deployment =
        |pod: &Value| json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template(pod)}});
    let told = |name: &str, object: Value, policy: Policy| -> Vec<String> {
        let (kind, mut object) = (kind(name), whole(name, object));
        defaults::apply(&mut object, &kind);
        let faults = crate::validate::create(&object, &kind, policy);
        faults.iter().map(ToString::to_string).collect()
    };
    let at = "spec.containers[0].securityContext.privileged: Forbidden: disallowed by cluster policy";
    for (context, refused) in [(json!({"privileged": true}), true), (json!({"privileged": false}), false)] {
        let pod = with(context);
        let own = [at.to_owned()];
        let within = [format!("spec.template.{at}")];
        let want = |faults: &[String]| if refused { faults.to_vec() } else { Vec::new() };
        assert_eq!(told("Pod", pod.clone(), Policy::default()), want(&own), "{pod}");
        assert_eq!(told("Deployment", deployment(&pod), Policy::default()), want(&within), "{pod}");
        assert_eq!(told("Pod", pod, ALL), Vec::<String>::new());
    }
}
