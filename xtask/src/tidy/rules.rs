//! Rules about names and texts of files.
//!
//! In: a path and a text. Out: findings. What a rule looks for is spelled in two parts here, so that this file keeps its own rules.

use super::Finding;
use super::source::Source;

/// Longest file, in lines.
const FILE_LINES_MAX: usize = 500;
/// Longest function, in lines.
const FUNCTION_LINES_MAX: usize = 70;
/// A reason for an exception stands at most this many lines above what it excuses.
const REASON_LINES: usize = 8;

/// Names that say nothing: whatever is in there has a name of its own.
const NAMELESS: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "manager", "managers", "misc"];

/// Words of code that only `libs/daemon` may use, and what to use instead.
const SEAMS: [(&str, &str, &str); 7] = [
    ("System", "Time::now", "take time from coracle_daemon::clock, so that sim can turn it"),
    ("Timestamp", "::now", "take time from coracle_daemon::clock, so that sim can turn it"),
    ("thread", "::sleep", "wait for the event itself, with a deadline"),
    (
        "tokio::time",
        "::sleep",
        "wait for the event itself, with a deadline; a backoff takes coracle_daemon::clock::sleep",
    ),
    ("tokio", "::spawn", "Tasks::spawn or Tasks::run: every task has a name, an owner and an end"),
    ("rand", "::", "draw from coracle_daemon::random, so that sim can give the seed"),
    ("tokio::task", "::spawn(", "Tasks::spawn or Tasks::run: every task has a name, an owner and an end"),
];

const TEXTS: [&str; 9] = [".rs", ".toml", ".md", ".yaml", ".yml", ".json", ".sh", ".proto", ".txt"];

/// Whether a file is one that people write.
pub fn is_text(path: &str) -> bool {
    TEXTS.iter().any(|end| path.ends_with(end)) || path == ".ci/run"
}

/// What a path says about its content.
pub fn check_name(path: &str) -> Option<Finding> {
    let nameless = path.split('/').map(|part| part.split('.').next().unwrap_or_default());
    let nameless = nameless.into_iter().find(|stem| NAMELESS.contains(stem))?;
    let instead =
        format!("`{nameless}` says nothing: name it for the thing it is, or put it where that thing lives");
    Some(Finding { path: path.to_owned(), line: 1, rule: "name", instead })
}

/// Checks a text; `root` is the folder of the work tree on this machine.
pub fn check(path: &str, text: &str, root: &str) -> Vec<Finding> {
    let mut file = File { path, findings: Vec::new() };
    file.paths_of_this_machine(text, root);
    // Fuzz targets are a workspace of their own, as they need another compiler.
    if path.ends_with("Cargo.toml") && !matches!(path, "Cargo.toml" | "fuzz/Cargo.toml") {
        file.manifest(text);
    }
    if path.ends_with(".rs") {
        let source = Source::new(text);
        file.opening(text);
        file.lengths(text, &source);
        file.unowned_work(&source);
        file.attributes(text, &source);
        if !path.starts_with("libs/daemon/") {
            file.seams(text, &source);
        }
    }
    file.findings
}

struct File<'a> {
    path: &'a str,
    findings: Vec<Finding>,
}

impl File<'_> {
    fn tell(&mut self, line: usize, rule: &'static str, instead: impl Into<String>) {
        self.findings.push(Finding { path: self.path.to_owned(), line, rule, instead: instead.into() });
    }

    fn opening(&mut self, text: &str) {
        let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
        if !first.is_some_and(|line| line.starts_with("//!")) {
            self.tell(
                1,
                "opening",
                "open with `//!`: what this is, what goes in, what comes out, what always holds",
            );
        }
    }

    fn lengths(&mut self, text: &str, source: &Source) {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            self.tell(
                lines,
                "file-length",
                format!("{lines} lines: split it by meaning, to under {FILE_LINES_MAX}"),
            );
        }
        for function in source.functions() {
            let lines = function.last - function.first + 1;
            if lines > FUNCTION_LINES_MAX {
                let instead =
                    format!("`{}` has {lines} lines: split it, to under {FUNCTION_LINES_MAX}", function.name);
                self.tell(function.first, "function-length", instead);
            }
        }
    }

    /// Work that is left to nobody.
    fn unowned_work(&mut self, source: &Source) {
        for (at, line) in source.comments.lines().enumerate() {
            let left = line.split(|c: char| !c.is_alphanumeric()).any(|word| LEFT_TO_DO.contains(&word));
            let issue = line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if left && !issue {
                self.tell(at + 1, "unowned-work", "do it now, or open an issue and name it here as #N");
            }
        }
    }

    fn attributes(&mut self, text: &str, source: &Source) {
        let raw: Vec<&str> = text.lines().collect();
        for (at, line) in source.code.lines().enumerate() {
            if line.contains(concat!("#[", "ignore")) {
                self.tell(
                    at + 1,
                    "ignored-test",
                    "a test runs, or it goes; what it needs is installed by xtask",
                );
            }
            let lints = [concat!("[", "allow("), concat!("[", "expect(")];
            if !lints.iter().any(|lint| line.contains(lint)) || !line.trim_start().starts_with('#') {
                continue;
            }
            let attribute: Vec<&str> = raw[at..]
                .iter()
                .take(REASON_LINES)
                .scan(false, |over, line| until_bracket(over, line))
                .collect();
            if !attribute.join(" ").contains("reason") {
                self.tell(
                    at + 1,
                    "lint-reason",
                    "`#[expect(lint, reason = \"…\")]`: say why, and let it go when it is not needed",
                );
            }
        }
    }

    fn seams(&mut self, text: &str, source: &Source) {
        let raw: Vec<&str> = text.lines().collect();
        for (at, line) in source.code.lines().enumerate() {
            for (first, second, instead) in SEAMS {
                let word = format!("{first}{second}");
                let used = line.match_indices(&word).any(|(i, _)| {
                    !line[..i].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':'))
                });
                if used && !excused(&raw, at) {
                    self.tell(at + 1, "seam", instead);
                }
            }
        }
    }

    fn manifest(&mut self, text: &str) {
        let mut section = "";
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with('[') {
                section = line;
            } else if section.ends_with("dependencies]")
                && line.contains('=')
                && !line.starts_with('#')
                && !line.contains("workspace = true")
                && !line.contains("path = \".\"")
            {
                self.tell(
                    at + 1,
                    "version",
                    "versions stand once, in the root Cargo.toml: `NAME.workspace = true`",
                );
            }
        }
        if !text.contains("[lints]\nworkspace = true") {
            self.tell(1, "lints", "the workspace's lints are everybody's: `[lints]` with `workspace = true`");
        }
    }

    fn paths_of_this_machine(&mut self, text: &str, root: &str) {
        let homes = [concat!("/ho", "me/"), concat!("/Us", "ers/")];
        for (at, line) in text.lines().enumerate() {
            let home = homes.iter().any(|home| {
                line.split(home).skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
            });
            if home || line.contains(&format!("{root}/")) {
                self.tell(
                    at + 1,
                    "machine-path",
                    "this path is on one machine only: name it relative, or by a variable",
                );
            }
        }
    }
}

/// Marks of work that is not done.
const LEFT_TO_DO: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// The lines of an attribute up to its closing bracket.
fn until_bracket<'a>(over: &mut bool, line: &&'a str) -> Option<&'a str> {
    if *over {
        return None;
    }
    *over = line.trim_end().ends_with(']');
    Some(line)
}

/// Whether a clippy exception with a reason stands right above line `at`.
fn excused(raw: &[&str], at: usize) -> bool {
    let above = raw[at.saturating_sub(REASON_LINES)..at].join("\n");
    above.contains("disallowed_methods") && above.contains("reason")
}

#[cfg(test)]
mod tests;
