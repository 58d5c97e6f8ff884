//! What is read as RE2 reads it, and what is refused in Go's words.

use super::Pattern;

fn matches(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}")).is_match(text)
}

#[test]
fn classes_of_perl_are_ascii() {
    let rows = [
        ("^\\d$", "5", true),
        ("^\\d$", "\u{664}", false),
        ("^\\w+$", "a_9", true),
        ("^\\w$", "ñ", false),
        ("^\\W$", "ñ", true),
        ("^[\\W]$", "ñ", true),
        ("^[^\\d]$", "\u{664}", true),
        ("^\\s$", "\u{a0}", false),
        ("^\\s$", "\u{b}", false),
        ("^\\S$", "\u{b}", true),
        ("a\\b", "añ", true),
        ("a\\Bb", "ab", true),
        ("^[[:alpha:]]$", "ñ", false),
        ("^[[:^alpha:]]$", "ñ", true),
        ("^\\p{Greek}\\pL\\P{Lu}[\\p{^Lu}]$", "αbcd", true),
    ];
    for (pattern, text, want) in rows {
        assert_eq!(matches(pattern, text), want, "{pattern} {text}");
    }
}

#[test]
fn what_only_rust_reads_otherwise_is_read_as_re2_does() {
    let rows = [
        ("^[a&&b]$", "&", true),
        ("^[+--z]$", ",", true),
        ("^[[a]$", "[", true),
        ("^[]a]$", "]", true),
        ("^[a~~b]$", "~", true),
        ("^\\Qa.b\\E$", "a.b", true),
        ("^\\Qa.b\\E$", "axb", false),
        ("^\\x41\\x{42}\\103\\07$", "ABC\u{7}", true),
        ("^a{,2}$", "a{,2}", true),
        ("^{a$", "{a", true),
        ("^(?P<n>a)(?<m>b)(?i:C)(?:d)$", "abcd", true),
        ("(?is-m)^A.b$", "a\nB", true),
        ("^\\-\\/\\_\\<\\>$", "-/_<>", true),
        ("^#x y$", "#x y", true),
        ("^.$", "ñ", true),
        ("a$", "a\n", false),
    ];
    for (pattern, text, want) in rows {
        assert_eq!(matches(pattern, text), want, "{pattern} {text}");
    }
}

#[test]
fn refusals_are_in_the_words_of_go() {
    let rows = [
        ("[", "missing closing ]: `[`"),
        ("a[b-", "missing closing ]: `[b-`"),
        ("(a", "missing closing ): `(a`"),
        ("a)", "unexpected ): `a)`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("(+a)", "missing argument to repetition operator: `+`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{3,2}", "invalid repeat count: `{3,2}`"),
        ("(a{100}){100}", "invalid repeat count: `{100}`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("[[:nothing:]]", "invalid character class range: `[:nothing:]`"),
        ("\\p{Nothing}", "invalid character class range: `\\p{Nothing}`"),
        ("\\8", "invalid escape sequence: `\\8`"),
        ("\\1", "invalid escape sequence: `\\1`"),
        ("\\h", "invalid escape sequence: `\\h`"),
        ("\\C", "invalid escape sequence: `\\C`"),
        ("\\x{110000}", "invalid escape sequence: `\\x{110000`"),
        ("a\\", "trailing backslash at end of expression: ``"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?P<a-b>c)", "invalid named capture: `(?P<a-b>`"),
        ("(?P<a", "invalid named capture: `(?P<a`"),
    ];
    for (pattern, want) in rows {
        let why = Pattern::new(pattern).err().unwrap_or_default();
        assert_eq!(why, format!("error parsing regexp: {want}"), "{pattern}");
    }
    let deep = "(".repeat(100_000);
    assert!(Pattern::new(&deep).is_err_and(|why| why.contains("expression nests too deeply")));
}

#[test]
fn the_weight_counts_what_repetitions_come_to() {
    let rows = [("abc", 3), ("a{1000}", 1000), ("(ab|c){2,10}x*", 31), ("", 0)];
    for (pattern, want) in rows {
        assert_eq!(Pattern::new(pattern).expect("a pattern").weight(), want, "{pattern}");
    }
}

#[test]
fn any_text_is_a_pattern_or_refused_in_words() {
    const PARTS: [&str; 44] = [
        "\\", "[", "]", "(", ")", "{", "}", "*", "+", "?", "|", "^", "$", ".", "-", ",", ":", "0", "2", "a",
        "d", "w", "s", "b", "p", "P", "Q", "E", "x", "L", "i", "m", "U", "<", ">", "ñ", "&", "~", "[:", ":]",
        "(?", "\\p{", "Greek", "^-",
    ];
    let mut seed = 7_u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap_or(0) % below
    };
    let mut read = 0;
    for _ in 0..20_000 {
        let text: String = (0..next(14)).map(|_| PARTS[next(PARTS.len())]).collect();
        match Pattern::new(&text) {
            Ok(pattern) => {
                read += 1;
                let _ = pattern.is_match("añ-0 a2w:]");
            }
            Err(why) => assert!(why.starts_with("error parsing regexp: "), "{text}: {why}"),
        }
    }
    assert!(read > 1000, "{read}");
}
