//! Each rule with what it finds and what it lets pass.

use super::*;

const OPENING: &str = "//! A file.\n";

/// The rules that a Rust file breaks.
fn rules(code: &str) -> Vec<&'static str> {
    check("scheduler/src/a.rs", &format!("{OPENING}{code}"), "/src/coracle")
        .into_iter()
        .map(|finding| finding.rule)
        .collect()
}

#[test]
fn a_file_says_first_what_it_is() {
    let opening = |text: &str| check("dns/src/a.rs", text, "/r").len();
    assert_eq!(opening("use std::fs;\n"), 1);
    assert_eq!(opening("#![forbid(unsafe_code)]\n\n//! Names.\n"), 0);
}

#[test]
fn long_files_and_long_functions_are_told_with_their_length() {
    let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    a();\n".repeat(lines - 2));
    assert!(rules(&function(70)).is_empty());
    assert_eq!(rules(&function(71)), ["function-length"]);
    assert!(rules(&"// a\n".repeat(499)).is_empty());
    assert_eq!(rules(&"// a\n".repeat(500)), ["file-length"]);
}

#[test]
fn work_left_to_do_needs_an_issue() {
    let mark = LEFT_TO_DO[0];
    assert_eq!(rules(&format!("// {mark}: later\n")), ["unowned-work"]);
    assert!(rules(&format!("// {mark}(#12): later\n")).is_empty());
    assert!(rules(&format!("let a = \"{mark}\";\n")).is_empty());
}

#[test]
fn time_chance_and_tasks_come_through_the_seams() {
    for (first, second, _) in SEAMS {
        let code = format!("let a = {first}{second}x();\n");
        assert_eq!(rules(&code), ["seam"], "{code}");
        assert!(rules(&format!("// {code}")).is_empty());
    }
    assert!(rules("let a = random::rand(); let b = operand::c;\n").is_empty());
}

#[test]
fn the_seams_themselves_may_use_what_they_hide() {
    let code = format!("{OPENING}let a = {}{}();\n", SEAMS[0].0, SEAMS[0].1);
    assert!(check("libs/daemon/src/clock.rs", &code, "/r").is_empty());
}

#[test]
fn an_exception_with_a_reason_excuses_what_follows() {
    let code = format!(
        "#[expect(\n    clippy::disallowed_methods,\n    reason = \"its reader ends it\"\n)]\n{}{}(x);\n",
        SEAMS[4].0, SEAMS[4].1
    );
    assert!(rules(&code).is_empty());
}

#[test]
fn no_test_is_ignored_and_no_lint_without_a_reason() {
    assert_eq!(rules(concat!("#[", "ignore]\nfn a() {}\n")), ["ignored-test"]);
    assert_eq!(rules(concat!("#[", "allow(dead_code)]\nfn a() {}\n")), ["lint-reason"]);
    assert_eq!(rules(concat!("#[", "expect(dead_code)]\nfn a() {}\n")), ["lint-reason"]);
    assert!(rules("#[expect(dead_code, reason = \"for sim\")]\nfn a() {}\n").is_empty());
}

#[test]
fn a_name_says_something() {
    assert!(check_name("kubelet/src/utils/mod.rs").is_some());
    assert!(check_name("kubelet/src/helpers.rs").is_some());
    assert!(check_name("kubelet/src/pods.rs").is_none());
}

#[test]
fn versions_and_lints_stand_in_the_root() {
    let manifest = |text: &str| check("dns/Cargo.toml", text, "/r").len();
    let lints = "[lints]\nworkspace = true\n";
    assert_eq!(manifest(&format!("[dependencies]\nserde = \"1\"\n{lints}")), 1);
    assert_eq!(manifest(&format!("[dependencies]\nserde.workspace = true\n{lints}")), 0);
    assert_eq!(manifest("[dependencies]\n"), 1);
}

#[test]
fn paths_of_one_machine_are_told() {
    assert_eq!(rules("const A: &str = \"/src/coracle/a\";\n"), ["machine-path"]);
    assert_eq!(rules(concat!("const A: &str = \"/ho", "me/ann/a\";\n")), ["machine-path"]);
    assert!(rules("const A: &str = \"/var/lib/coracle\";\n").is_empty());
}
