//! The difference that some refusals show: both specs as text, and the lines that changed with three around them.

use serde_json::Value;

const AROUND: usize = 3;

/// Of PodSpecs: `allowed` is the new one with its permitted changes undone, `new` as it came.
pub(super) fn pod_spec(old: &Value, _allowed: &Value, new: &Value) -> String {
    unified(&lines(old), &lines(new))
}

/// Of specs of PersistentVolumeClaims.
pub(super) fn claim_spec(old: &Value, new: &Value) -> String {
    unified(&lines(old), &lines(new))
}

/// Of the sources of PersistentVolumes.
pub(super) fn volume_source(old: &Value, new: &Value) -> String {
    unified(&lines(old), &lines(new))
}

fn lines(value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    write(value, 0, String::new(), "", &mut out);
    out
}

/// JSON with one space for each level.
fn write(value: &Value, depth: usize, head: String, comma: &str, out: &mut Vec<String>) {
    let pad = " ".repeat(depth);
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push(format!("{pad}{head}{{"));
            for (i, (key, value)) in map.iter().enumerate() {
                let comma = if i + 1 < map.len() { "," } else { "" };
                write(value, depth + 1, format!("{}: ", crate::status::go_quoted(key)), comma, out);
            }
            out.push(format!("{pad}}}{comma}"));
        }
        Value::Array(items) if !items.is_empty() => {
            out.push(format!("{pad}{head}["));
            for (i, item) in items.iter().enumerate() {
                write(item, depth + 1, String::new(), if i + 1 < items.len() { "," } else { "" }, out);
            }
            out.push(format!("{pad}]{comma}"));
        }
        other => out.push(format!("{pad}{head}{other}{comma}")),
    }
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
