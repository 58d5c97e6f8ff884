//! Signatures as the tables of functions write them: `string.(int, int) string`, `(list(A), A) bool`.

use super::types::Type;

/// What a function takes, the receiver first, and what comes out.
#[derive(Debug)]
pub struct Signature {
    pub member: bool,
    pub takes: Vec<Type>,
    pub gives: Type,
    /// How many type parameters it has.
    pub parameters: u32,
}

impl Signature {
    /// Reads a signature.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut takes = Vec::new();
        let member = !rest.starts_with('(');
        if member {
            takes.push(read(&mut rest)?);
            rest = rest.strip_prefix('.')?;
        }
        rest = rest.strip_prefix('(')?;
        while !rest.starts_with(')') {
            rest = rest.trim_start_matches([',', ' ']);
            takes.push(read(&mut rest)?);
        }
        rest = rest.strip_prefix(')')?.trim_start();
        let gives = read(&mut rest)?;
        let parameters = u32::try_from(PARAMETERS.len()).unwrap_or_default();
        rest.is_empty().then_some(Self { member, takes, gives, parameters })
    }
}

const PARAMETERS: [&str; 3] = ["A", "B", "C"];

/// Types of the libraries, by the names that signatures use.
const LIBRARY: [(&str, &str); 10] = [
    ("url", "kubernetes.URL"),
    ("ip", "net.IP"),
    ("cidr", "net.CIDR"),
    ("quantity", "kubernetes.Quantity"),
    ("format", "kubernetes.NamedFormat"),
    ("authorizer", "kubernetes.authorization.Authorizer"),
    ("path_check", "kubernetes.authorization.PathCheck"),
    ("group_check", "kubernetes.authorization.GroupCheck"),
    ("resource_check", "kubernetes.authorization.ResourceCheck"),
    ("decision", "kubernetes.authorization.Decision"),
];

fn read(rest: &mut &str) -> Option<Type> {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    *rest = after;
    let mut inner = Vec::new();
    // A receiver is followed by `.(`, never by `(`.
    if let Some(after) = rest.strip_prefix('(') {
        *rest = after;
        loop {
            inner.push(read(rest)?);
            if let Some(after) = rest.strip_prefix(')') {
                *rest = after;
                break;
            }
            *rest = rest.strip_prefix(", ")?;
        }
    }
    let mut inner = inner.into_iter();
    Some(match name {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "list" => Type::list(inner.next()?),
        "optional" => Type::optional(inner.next()?),
        "type" => Type::Type(std::sync::Arc::new(inner.next()?)),
        "map" => Type::map(inner.next()?, inner.next()?),
        other => match PARAMETERS.iter().position(|own| *own == other) {
            Some(at) => Type::Param(u32::try_from(at).ok()?),
            None => LIBRARY.iter().find(|(own, _)| *own == other).map(|(_, full)| Type::Opaque(full))?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_read() {
        let read = Signature::parse("map(A, list(B)).(string, A) optional(B)").expect("a signature");
        let shown: Vec<String> = read.takes.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["map(_var0, list(_var1))", "string", "_var0"]);
        assert_eq!((read.member, read.gives.to_string()), (true, "optional_type(_var1)".to_owned()));
        assert!(Signature::parse("(nothing) int").is_none());
        assert!(Signature::parse("() int").is_some_and(|read| read.takes.is_empty() && !read.member));
    }
}
