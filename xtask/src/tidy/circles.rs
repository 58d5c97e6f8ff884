//! Modules of a crate point one way, as its crates do: none needs what needs it.
//!
//! In: the crate's sources. Out: for each circle of modules one finding, with the arrows that close it. A module is what the
//! crate's root names: a file, or a folder with all that is in it. What the root itself holds may be used everywhere.

use super::Finding;
use super::source::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Which modules a module uses, and in which file it does first.
type Arrows = BTreeMap<String, BTreeMap<String, String>>;

/// The arrows between the modules of each crate.
#[derive(Debug, Default)]
pub struct Crates(BTreeMap<String, Arrows>);

impl Crates {
    /// Takes note of a file.
    pub fn add(&mut self, path: &str, text: &str) {
        let Some((folder, below)) = path.split_once("/src/") else { return };
        let is_test = |part: &str| matches!(part, "tests" | "tests.rs" | "fake" | "fake.rs" | "testing.rs");
        let module = below.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if !path.ends_with(".rs") || below.split('/').any(is_test) || matches!(module, "lib" | "main") {
            return;
        }
        let used = used(&Source::new(text).code);
        let arrows = self.0.entry(folder.to_owned()).or_default().entry(module.to_owned()).or_default();
        for other in used.into_iter().filter(|other| other != module) {
            arrows.entry(other).or_insert_with(|| below.to_owned());
        }
    }

    /// The circles of all crates.
    pub fn check(&self) -> Vec<Finding> {
        let each = self.0.iter().flat_map(|(folder, arrows)| {
            circles(arrows).into_iter().map(move |circle| Finding {
                path: format!("{folder}/src"),
                line: 1,
                rule: "circle",
                instead: format!(
                    "these modules need each other: {}; let what they share stand below them",
                    told(arrows, &circle)
                ),
            })
        });
        each.collect()
    }
}

/// The modules of its own crate that some code names, its unit tests left out.
fn used(code: &str) -> BTreeSet<String> {
    let tests = code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len());
    let names = code[..tests].split("crate::").skip(1).flat_map(|after| {
        let listed = after.strip_prefix('{').and_then(|list| list.split_once(';')).map(|(list, _)| top(list));
        listed.unwrap_or_else(|| vec![after])
    });
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
    };
    names.map(name).filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase())).collect()
}

/// The parts of `a, b::{c, d}}`, but for those within other braces.
fn top(list: &str) -> Vec<&str> {
    let (mut depth, mut begins, mut parts) = (0_u32, 0, Vec::new());
    for (at, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                parts.push(&list[begins..at]);
                begins = at + 1;
            }
            _ => {}
        }
    }
    parts
}

/// The largest sets of modules that all reach each other.
fn circles(arrows: &Arrows) -> BTreeSet<BTreeSet<&str>> {
    let all: BTreeMap<&str, BTreeSet<&str>> =
        arrows.keys().map(|module| (module.as_str(), reached(arrows, module))).collect();
    let circle = |module: &&str| -> BTreeSet<&str> {
        let back = all[module].iter().filter(|other| all.get(*other).is_some_and(|all| all.contains(module)));
        back.copied().collect()
    };
    all.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

/// Whatever can be reached from a module.
fn reached<'a>(arrows: &'a Arrows, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut todo: Vec<&str> = vec![from];
    while let Some(module) = todo.pop() {
        for other in arrows.get(module).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(other.as_str()) {
                todo.push(other);
            }
        }
    }
    reached
}

fn told(arrows: &Arrows, circle: &BTreeSet<&str>) -> String {
    let within = circle.iter().flat_map(|module| {
        let used = arrows.get(*module).into_iter().flatten();
        used.filter(|(other, _)| circle.contains(other.as_str()))
            .map(move |(other, file)| format!("{module} needs {other} in {file}"))
    });
    within.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut crates = Crates::default();
        for (path, text) in files {
            crates.add(path, text);
        }
        crates.check().into_iter().map(|finding| format!("{}: {}", finding.path, finding.instead)).collect()
    }

    #[test]
    fn modules_that_need_each_other_are_told_with_the_files_that_tie_them() {
        let found = found(&[
            ("a/src/x/one.rs", "use crate::y::Y;"),
            ("a/src/y.rs", "use crate::{Root, z::{self, Z}};"),
            ("a/src/z.rs", "fn z() { crate::x::one() }"),
            ("b/src/x.rs", "use crate::y::Y;"),
        ]);
        assert_eq!(
            found,
            [
                "a/src: these modules need each other: x needs y in x/one.rs, y needs z in y.rs, z needs x in z.rs; let what they share stand below them"
            ]
        );
    }

    #[test]
    fn comments_tests_the_root_and_a_module_itself_close_no_circle() {
        let none = found(&[
            ("a/src/x.rs", "use crate::y::Y;\nuse crate::x::X;\nuse crate::Root;"),
            (
                "a/src/y.rs",
                "//! See [`crate::x`].\nlet a = \"crate::x\";\n#[cfg(test)]\nmod tests {\n    use crate::x::X;\n}",
            ),
            ("a/src/y/tests.rs", "use crate::x::X;"),
            ("a/src/lib.rs", "use crate::x::X;"),
            ("a/tests/y.rs", "use crate::x::X;"),
        ]);
        assert_eq!(none, Vec::<String>::new());
    }
}
