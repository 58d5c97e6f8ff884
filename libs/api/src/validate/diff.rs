//! The difference that some refusals show: both specs as text, and the lines that changed with three around them.

use super::shapes;
use serde_json::Value;

const AROUND: usize = 3;

/// Of PodSpecs.
pub(super) fn pod_spec(old: &Value, new: &Value) -> String {
    of(&with_host_switches(old), &with_host_switches(new), "PodSpec")
}

/// Inside, the switches for the host's namespaces stand in the security context.
fn with_host_switches(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for key in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"] {
        if let Some(value) = spec.get(key).cloned()
            && let Some(context) = spec.get_mut("securityContext").and_then(Value::as_object_mut)
        {
            context.insert(key.to_owned(), value);
        }
    }
    spec
}

/// Of ephemeral containers.
pub(super) fn ephemeral_container(old: &Value, new: &Value) -> String {
    of(old, new, "EphemeralContainer")
}

/// Of specs of PersistentVolumeClaims.
pub(super) fn claim_spec(old: &Value, new: &Value) -> String {
    of(old, new, "ClaimSpec")
}

/// Of the sources of PersistentVolumes.
pub(super) fn volume_source(old: &Value, new: &Value) -> String {
    of(old, new, "VolumeSource")
}

/// Of lists of conditions of one type.
pub(super) fn conditions(old: &Value, new: &Value) -> String {
    of(old, new, "")
}

fn of(old: &Value, new: &Value, shape: &'static str) -> String {
    unified(&shapes::lines(old, shape), &shapes::lines(new, shape))
}

/// A line and whether it is only old, only new, or both.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Both,
    Old,
    New,
}

fn unified(old: &[String], new: &[String]) -> String {
    let script = script(old, new);
    let changed: Vec<usize> =
        script.iter().enumerate().filter(|(_, (side, _))| *side != Side::Both).map(|(i, _)| i).collect();
    let mut out = String::new();
    let mut rest = &changed[..];
    while let Some(&first) = rest.first() {
        // Changes whose surroundings touch share a hunk.
        let mut last = first;
        while let Some(&next) = rest.iter().find(|&&at| at > last && at - last <= 2 * AROUND + 1) {
            last = next;
        }
        rest = &rest[rest.partition_point(|&at| at <= last)..];
        let (from, to) = (first.saturating_sub(AROUND), (last + AROUND + 1).min(script.len()));
        hunk(&script, from, to, &mut out);
    }
    out
}

fn hunk(script: &[(Side, &str)], from: usize, to: usize, out: &mut String) {
    let count = |range: &[(Side, &str)], not: Side| range.iter().filter(|(side, _)| *side != not).count();
    let (before, inside) = (&script[..from], &script[from..to]);
    out.push_str(&format!(
        "@@ -{},{} +{},{} @@\n",
        count(before, Side::New) + 1,
        count(inside, Side::New),
        count(before, Side::Old) + 1,
        count(inside, Side::Old)
    ));
    for (side, line) in inside {
        out.push(match side {
            Side::Both => ' ',
            Side::Old => '-',
            Side::New => '+',
        });
        out.push_str(line);
        out.push('\n');
    }
}

/// The shortest way from `old` to `new`, line by line: common head and tail, and the longest common part between.
fn script<'a>(old: &'a [String], new: &'a [String]) -> Vec<(Side, &'a str)> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut longest = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] = if a[i] == b[j] {
                longest[i + 1][j + 1] + 1
            } else {
                longest[i + 1][j].max(longest[i][j + 1])
            };
        }
    }
    let mut out: Vec<(Side, &str)> = old[..head].iter().map(|line| (Side::Both, line.as_str())).collect();
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push((Side::Both, &a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            out.push((Side::Old, &a[i]));
            i += 1;
        } else {
            out.push((Side::New, &b[j]));
            j += 1;
        }
    }
    out.extend(old[old.len() - tail..].iter().map(|line| (Side::Both, line.as_str())));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_is_shown_with_its_surroundings() {
        let claim = |size: &str| json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
        let want = r#"@@ -6,7 +6,7 @@
  "Resources": {
   "Limits": null,
   "Requests": {
-   "storage": "1Gi"
+   "storage": "2Gi"
   }
  },
  "VolumeName": "",
"#;
        assert_eq!(claim_spec(&claim("1Gi"), &claim("2Gi")), want);
    }
}
