//! Formats of texts, as go-openapi's library of them judges.

use crate::expression;
use crate::pattern::Pattern;
use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::LazyLock;

const BYTE: &str = r"rgb\(\s*B\s*,\s*B\s*,\s*B\s*\)";
/// The formats that are a pattern.
const PATTERNS: [(&str, &str); 8] = [
    ("uuid", "[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"),
    ("uuid3", "[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}"),
    ("uuid4", "[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}"),
    ("uuid5", "[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}"),
    ("hexcolor", "#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    ("rgbcolor", BYTE),
    ("ssn", r"\d{3}-\d{2}-\d{4}"),
    ("bsonobjectid", "[0-9a-fA-F]{24}"),
];

static COMPILED: LazyLock<HashMap<&str, Pattern>> = LazyLock::new(|| {
    let compiled = PATTERNS.iter().filter_map(|(format, pattern)| {
        let pattern = pattern.replace('B', r"(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])");
        let flags = if format.starts_with("uuid") { "(?i)" } else { "" };
        Some((*format, Pattern::new(&format!("{flags}^({pattern})$")).ok()?))
    });
    compiled.collect()
});

/// Formats that are names only: everything has them, or they are judged in `fits`.
const NAMED: [&str; 17] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "byte",
    "password",
    "date",
    "duration",
    "date-time",
];

/// Whether a format of definitions means anything; `-` in names does not count.
pub(super) fn is_known(format: &str) -> bool {
    let plain = |name: &str| name.replace('-', "");
    COMPILED.contains_key(format) || NAMED.iter().any(|name| plain(name) == plain(format))
}

/// Whether a text has a format; unknown formats are not checked.
pub(super) fn fits(text: &str, format: &str) -> bool {
    use base64::Engine;
    if let Some(pattern) = COMPILED.get(format) {
        return pattern.is_match(text);
    }
    match format {
        "date-time" | "datetime" => expression::is_date_time(text),
        "date" => expression::is_date(text),
        "duration" => expression::is_duration(text) || is_spelled_duration(text),
        "ipv4" => is_ipv4(text),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "hostname" => is_hostname(text),
        "mac" => is_mac(text),
        "uri" => is_uri(text),
        "byte" => !text.is_empty() && base64::prelude::BASE64_STANDARD.decode(text).is_ok(),
        "email" => text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "creditcard" => is_card(text),
        _ => true,
    }
}

/// Numbers with units anywhere, such as `2 days`.
fn is_spelled_duration(text: &str) -> bool {
    const UNITS: [&str; 15] =
        ["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk", "nano", "micro", "milli", "sec"];
    const LONG: [&str; 8] = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let after = rest[at..].trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic() && c != 'µ').unwrap_or(after.len());
        let unit = after[..end].to_lowercase();
        if UNITS.contains(&unit.as_str()) || LONG.iter().any(|long| unit.starts_with(long)) {
            return true;
        }
        rest = &after[end..];
    }
    false
}

/// Four numbers, which may begin with zeros.
fn is_ipv4(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    let is_byte = |part: &&str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse::<u64>().is_ok_and(|number| number < 256)
    };
    parts.len() == 4 && parts.iter().all(is_byte)
}

/// One label, with a hyphen after its first letter at most, or some before a last one of letters.
fn is_hostname(text: &str) -> bool {
    const LABEL_MAX: usize = 63;
    let fine = |c: char| c.is_alphanumeric() || "$+<=>^`|~".contains(c);
    let fits = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && label.starts_with(fine)
            && label.ends_with(fine)
            && label.chars().all(|c| c == '-' || fine(c))
    };
    match text.rsplit_once('.') {
        Some((labels, last)) => {
            let letters = last.chars().count();
            (2..=LABEL_MAX).contains(&letters)
                && last.chars().all(char::is_alphabetic)
                && labels.split('.').all(fits)
        }
        None => fits(text) && text.match_indices('-').all(|(at, _)| at == 1),
    }
}

/// 6, 8 or 20 bytes in pairs, or in fours between dots.
fn is_mac(text: &str) -> bool {
    let hex =
        |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    [(':', 2, [6, 8, 20]), ('-', 2, [6, 8, 20]), ('.', 4, [3, 4, 10])].iter().any(
        |(between, length, counts)| {
            counts.contains(&text.split(*between).count())
                && text.split(*between).all(|part| hex(part, *length))
        },
    )
}

/// An absolute path, or something after a scheme.
fn is_uri(text: &str) -> bool {
    if text.chars().any(|c| c.is_ascii_control()) {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut letters = scheme.chars();
    let host =
        rest.strip_prefix("//").and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        && !host.contains(' ')
}

/// The digits of a number, without what stands between them; `None` where there is something else.
fn digits(text: &str) -> Option<Vec<u32>> {
    text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_digit(10)).collect()
}

fn is_isbn10(text: &str) -> bool {
    let (head, last) = match text.strip_suffix(['X', 'x']) {
        Some(head) => (head, Some(10)),
        None => (text, None),
    };
    let Some(mut digits) = digits(head) else { return false };
    digits.extend(last);
    digits.len() == 10
        && (1..).zip(&digits).map(|(place, digit)| place * digit).sum::<u32>().is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let Some(digits) = digits(text) else { return false };
    let sum: u32 = digits.iter().enumerate().map(|(at, digit)| digit * if at % 2 == 0 { 1 } else { 3 }).sum();
    digits.len() == 13 && sum.is_multiple_of(10)
}

/// By the sum of its digits.
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| if at % 2 == 0 { *digit } else { doubled(*digit) })
        .sum();
    (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
}
