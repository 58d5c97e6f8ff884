//! `$(NAME)` in commands, arguments, values and paths: replaced where the name is known, left as it is where not;
//! `$$` is one dollar.

/// Replaces what `lookup` knows.
pub fn expand<'a>(input: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(further) = after.strip_prefix('$') {
            out.push('$');
            rest = further;
        } else if let Some((name, further)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = further;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The value of a variable; of two of one name the later counts.
pub fn value_of<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_dollars_kept() {
        let env = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        for (input, expected) in [
            ("plain", "plain"),
            ("$(A)-$(A)", "1-1"),
            ("$(B)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("a$", "a$"),
            ("$A ${A} $(A", "$A ${A} $(A"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(expand(input, |name| value_of(&env, name)), expected, "{input}");
        }
    }
}
