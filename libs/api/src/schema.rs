//! The built-in types as Go and protobuf know them: fields with numbers, types, and whether Go writes their zero.
//!
//! From `data/messages.txt`, a line a type: `NAME|NUMBER:JSON NAME:FLAGS:TYPE|…`. Flags: `o` omitempty, `p` pointer, `n`
//! fields stand in the parent. Types: `s` text, `b` boolean, `i` int32, `l` int64, `d` float64, `y` bytes, `@NAME` a type,
//! `*T` a list, `{K}T` a map, `?b@NAME` a type or a boolean, `?a@NAME` one or a list of them, `?s@NAME` one or texts. Built once. What Go calls texts of a type of their own stands in `data/named.txt`, a line a type:
//! `NAME|JSON NAME=GO TYPE|…`; `*` before a Go type marks that of a whole list.

use crate::kinds::Kind;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Types with a JSON form of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Duration,
    /// `RawExtension` and `FieldsV1`: any JSON.
    Raw,
    /// `apiextensions.JSON`: any JSON, written again as Go writes numbers.
    Json,
    /// `Verbs` and `ExtraValue`: a bare list of strings.
    Strings,
}

/// What may stand instead of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instead {
    Flag,
    Many,
    Texts,
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Float,
    Bytes,
    Special(Special),
    Message(usize),
    /// A message, or something else instead.
    Or(Instead, usize),
    List(Box<Type>),
    Map(Box<Type>),
}

/// A field of a type.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub number: u32,
    pub name: String,
    pub of: Type,
    pub omitempty: bool,
    pub pointer: bool,
    pub inline: bool,
}

/// A type with fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// Go's package and name, as its error texts have them: `v1.Container`.
    pub go: String,
    pub fields: Vec<Field>,
    /// Objects of its group are stored as JSON, which keeps lists and maps without items; others as protobuf, which does not.
    pub stored_as_json: bool,
    /// The types of texts that have one of their own, by field: `v1.RestartPolicy`.
    pub named: HashMap<&'static str, &'static str>,
}

/// How the names of types begin whose groups are stored as JSON.
const STORED_AS_JSON: [&str; 2] = ["apiextensions_apiserver.", "kube_aggregator."];

struct Table {
    names: HashMap<&'static str, usize>,
    messages: Vec<Message>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let lines: Vec<&'static str> = include_str!("../data/messages.txt").lines().collect();
    let name = |line: &'static str| line.split('|').next().unwrap_or_default();
    let names: HashMap<_, _> = lines.iter().enumerate().map(|(at, line)| (name(line), at)).collect();
    let named: HashMap<_, _> =
        include_str!("../data/named.txt").lines().filter_map(|line| line.split_once('|')).collect();
    let messages = lines.iter().map(|line| Message {
        go: go_name(name(line)),
        fields: fields(line, &names),
        stored_as_json: STORED_AS_JSON.iter().any(|part| name(line).starts_with(part)),
        named: named
            .get(name(line))
            .map(|text| text.split('|').filter_map(|one| one.split_once('=')).collect())
            .unwrap_or_default(),
    });
    Table { messages: messages.collect(), names }
});

/// In the order of their numbers, as Go writes them.
fn fields(line: &str, names: &HashMap<&str, usize>) -> Vec<Field> {
    let mut fields: Vec<Field> = line.split('|').skip(1).filter_map(|text| field(text, names)).collect();
    fields.sort_by_key(|field| field.number);
    fields
}

fn go_name(name: &str) -> String {
    let mut parts = name.rsplit('.');
    let (last, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{package}.{last}")
}

fn field(text: &str, names: &HashMap<&str, usize>) -> Option<Field> {
    let mut parts = text.splitn(4, ':');
    let (number, name, flags, of) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some(Field {
        number: number.parse().ok()?,
        name: name.to_owned(),
        of: parse(of, names)?,
        omitempty: flags.contains('o'),
        pointer: flags.contains('p'),
        inline: flags.contains('n'),
    })
}

fn parse(text: &str, names: &HashMap<&str, usize>) -> Option<Type> {
    if let Some(item) = text.strip_prefix('*') {
        return Some(Type::List(Box::new(parse(item, names)?)));
    }
    if let Some((_, item)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) {
        return Some(Type::Map(Box::new(parse(item, names)?)));
    }
    if let Some((kind, name)) = text.strip_prefix('?').and_then(|text| text.split_once('@')) {
        let instead = match kind {
            "b" => Instead::Flag,
            "a" => Instead::Many,
            _ => Instead::Texts,
        };
        return Some(Type::Or(instead, *names.get(name)?));
    }
    Some(match text {
        "s" => Type::String,
        "b" => Type::Bool,
        "i" => Type::Int32,
        "l" => Type::Int64,
        "d" => Type::Float,
        "y" => Type::Bytes,
        _ => {
            let name = text.strip_prefix('@')?;
            match special(name) {
                Some(special) => Type::Special(special),
                None => Type::Message(*names.get(name)?),
            }
        }
    })
}

fn special(name: &str) -> Option<Special> {
    Some(match name.rsplit('.').next()? {
        "Quantity" => Special::Quantity,
        "IntOrString" => Special::IntOrString,
        "Time" => Special::Time,
        "MicroTime" => Special::MicroTime,
        "Duration" => Special::Duration,
        "RawExtension" | "FieldsV1" => Special::Raw,
        "JSON" => Special::Json,
        "Verbs" | "ExtraValue" => Special::Strings,
        _ => return None,
    })
}

/// A type by its place in the table.
pub(crate) fn message(at: usize) -> &'static Message {
    static NONE: LazyLock<Message> = LazyLock::new(Message::default);
    TABLE.messages.get(at).unwrap_or_else(|| &NONE)
}

/// A type by its schema's name (`io.k8s.api.core.v1.Pod`).
pub(crate) fn by_definition(definition: &str) -> Option<usize> {
    let name = definition.strip_prefix("io.k8s.")?;
    // As protobuf's packages have it.
    let name = name
        .replace("kube-aggregator", "kube_aggregator")
        .replace("apiextensions-apiserver", "apiextensions_apiserver");
    TABLE.names.get(name.as_str()).copied()
}

/// The type of a kind's objects; `None` for custom resources and kinds that only travel as JSON.
pub(crate) fn of(kind: &Kind) -> Option<usize> {
    by_definition(&kind.definition)
}

/// `metadata` of every object.
pub(crate) fn object_meta() -> Option<usize> {
    by_definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_and_all_kinds_have_a_type() {
        for (line, message) in include_str!("../data/messages.txt").lines().zip(&TABLE.messages) {
            let told = line.split('|').skip(1).filter(|field| !field.is_empty());
            assert_eq!(told.count(), message.fields.len(), "{line}");
        }
        for line in include_str!("../data/named.txt").lines() {
            let message = message(
                by_definition(&format!("io.k8s.{}", line.split('|').next().unwrap_or_default())).expect(line),
            );
            assert_eq!(message.named.len(), line.split('|').count() - 1, "{line}");
            assert!(
                message.named.keys().all(|key| message.fields.iter().any(|field| field.name == *key)),
                "{line}"
            );
        }
        for kind in crate::kinds::builtin() {
            assert!(of(kind).is_some(), "{}", kind.definition);
        }
    }
}
