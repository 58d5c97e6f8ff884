//! What stands in the text itself: literals that a function can never read, lists and maps of mixed types, formats that do
//! not fit their arguments, and constants that cannot be converted.
//!
//! In: a checked tree. Out: complaints by the nodes that they are about, in cel-go's words. Nothing runs but conversions.

use super::eval::{self, Globals};
use super::library;
use super::tree::{Kind, Literal, Node};
use super::types::Type;
use super::value::{Fault, Value};

/// What is told of a node.
type Complaints = Vec<(u64, String)>;

/// Functions that convert one value.
const CONVERSIONS: [&str; 9] =
    ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "uint"];

/// Everything that is wrong with what is written out.
pub fn judged(root: &Node) -> Complaints {
    let mut judge = Judge { complaints: Vec::new(), formats: 0 };
    judge.node(root);
    judge.complaints
}

struct Judge {
    complaints: Complaints,
    /// Calls of `format` around: what they write may be of many types.
    formats: usize,
}

impl Judge {
    fn node(&mut self, node: &Node) {
        match &node.kind {
            Kind::Call { function, args, .. } => {
                self.readable(function, args);
                if &**function == "format" {
                    self.format(node.id, args);
                }
            }
            Kind::List { items } if self.formats == 0 => {
                self.alike(items.iter().map(|(item, optional)| (item, *optional)));
            }
            Kind::Map { entries } if self.formats == 0 => {
                self.alike(entries.iter().map(|entry| (&entry.key, false)));
                self.alike(entries.iter().map(|entry| (&entry.value, entry.optional)));
            }
            _ => {}
        }
        let is_format = matches!(&node.kind, Kind::Call { function, .. } if &**function == "format");
        self.formats += usize::from(is_format);
        node.parts().into_iter().for_each(|part| self.node(part));
        self.formats -= usize::from(is_format);
    }

    fn readable(&mut self, function: &str, args: &[Node]) {
        let at = usize::from(function == "matches" && args.len() == 2);
        let Some(Node { id, kind: Kind::Literal(Literal::Text(text)), .. }) = args.get(at) else { return };
        let fine = match function {
            "duration" => library::time::read_duration(text).is_some(),
            "timestamp" => library::time::read_timestamp(text).is_ok(),
            "matches" => library::regex::compiled(text).is_ok(),
            _ => true,
        };
        if !fine {
            self.complaints.push((*id, format!("invalid {function} argument")));
        }
    }

    /// Whether all are of the type of the first.
    fn alike<'n>(&mut self, nodes: impl Iterator<Item = (&'n Node, bool)>) {
        let mut wanted: Option<&Type> = None;
        for (node, optional) in nodes {
            let ty = match &node.ty {
                Type::Optional(inner) if optional => inner,
                other => other,
            };
            match wanted {
                None => wanted = Some(ty),
                Some(wanted) if wanted.is_exactly(ty) => {}
                Some(wanted) => {
                    let told = format!("expected type '{wanted}' but found '{ty}'");
                    return self.complaints.push((node.id, told));
                }
            }
        }
    }

    /// A format that stands in the text with a list of arguments that does.
    fn format(&mut self, call: u64, args: &[Node]) {
        let [
            Node { kind: Kind::Literal(Literal::Text(format)), .. },
            Node { kind: Kind::List { items }, .. },
        ] = args
        else {
            return;
        };
        let items: Vec<&Node> = items.iter().map(|(item, _)| item).collect();
        let told = match clauses(format, &items) {
            Err(Misfit::Format(why)) => (call, why),
            Err(Misfit::Arg(id, why)) => (id, format!("error during formatting: {why}")),
            Ok(count) if items.len() > count => {
                let given = items.len();
                let why =
                    format!("too many arguments supplied to string.format (expected {count}, got {given})");
                (call, why)
            }
            Ok(_) => return,
        };
        self.complaints.push(told);
    }
}

/// Why a format and its arguments do not fit.
enum Misfit {
    Format(String),
    Arg(u64, String),
}

/// How many clauses a format has.
fn clauses(format: &str, args: &[&Node]) -> Result<usize, Misfit> {
    let mut count = 0;
    let mut rest = format;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(after) = after.strip_prefix('%') {
            rest = after;
            continue;
        }
        if after.is_empty() {
            return Err(Misfit::Format("unexpected end of string".to_owned()));
        }
        let arg = args.get(count).ok_or_else(|| Misfit::Format(format!("index {count} out of range")))?;
        let unread = |why: String| Misfit::Format(format!("could not parse formatting clause: {why}"));
        let clause =
            past_precision(after).map_err(|why| unread(format!("error while parsing precision: {why}")))?;
        let mut chars = clause.chars();
        let letter = chars.next().unwrap_or_default();
        let misfit = misfit(letter, arg)
            .ok_or_else(|| unread(format!("unrecognized formatting clause \"{letter}\"")))?;
        if let Some(node) = misfit {
            let (what, of) = (library::takes_only(letter), name_of(&node.ty));
            return Err(Misfit::Arg(node.id, format!("{what}, was given {of}")));
        }
        rest = chars.as_str();
        count += 1;
    }
    Ok(count)
}

/// The part of an argument that a clause does not take; `None` where there is no such clause.
fn misfit(clause: char, arg: &Node) -> Option<Option<&Node>> {
    let number = matches!(arg.ty, Type::Int | Type::Uint);
    let fits = match clause {
        's' => return Some(unwritable(arg)),
        'd' | 'o' => number,
        'f' | 'e' => matches!(arg.ty, Type::Double | Type::String),
        'b' => number || matches!(arg.ty, Type::Bool),
        'x' | 'X' => number || matches!(arg.ty, Type::String | Type::Bytes),
        _ => return None,
    };
    Some((!fits && !arg.ty.is_dyn()).then_some(arg))
}

/// What of a value cannot be written as a text.
fn unwritable(node: &Node) -> Option<&Node> {
    match (&node.ty, &node.kind) {
        (Type::Object(_) | Type::Opaque(_) | Type::Optional(_), _) => Some(node),
        (_, Kind::List { .. } | Kind::Map { .. }) => node.parts().into_iter().find_map(unwritable),
        _ => None,
    }
}

/// A type's name without what is in it.
fn name_of(ty: &Type) -> String {
    match ty {
        Type::Null => "null_type".to_owned(),
        Type::List(_) => "list".to_owned(),
        Type::Map(_) => "map".to_owned(),
        Type::Type(_) => "type".to_owned(),
        Type::Optional(_) => "optional_type".to_owned(),
        Type::Timestamp => "google.protobuf.Timestamp".to_owned(),
        Type::Duration => "google.protobuf.Duration".to_owned(),
        other => other.to_string(),
    }
}

fn past_precision(clause: &str) -> Result<&str, String> {
    let Some(after) = clause.strip_prefix('.') else { return Ok(clause) };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.is_empty() {
        return Err("could not find end of precision specifier".to_owned());
    }
    let digits = &after[..after.len() - rest.len()];
    let unread = |why: &str| {
        format!("error while converting precision to integer: strconv.Atoi: parsing \"{digits}\": {why}")
    };
    match digits.parse::<i64>() {
        Ok(_) => Ok(rest),
        Err(_) if digits.is_empty() => Err(unread("invalid syntax")),
        Err(_) => Err(unread("value out of range")),
    }
}

/// Has every constant converted, and every pattern compiled.
///
/// # Errors
/// The first that cannot be.
pub fn instantiate(root: &Node) -> Result<(), String> {
    constant(root).map(drop)
}

/// Whether a node is a constant.
fn constant(node: &Node) -> Result<bool, String> {
    let mut all = true;
    for part in node.parts() {
        all &= constant(part)?;
    }
    let Kind::Call { function, args, .. } = &node.kind else {
        return Ok(matches!(node.kind, Kind::Literal(_)));
    };
    if let ("find" | "findAll", Some(Node { kind: Kind::Literal(Literal::Text(pattern)), .. })) =
        (&**function, args.get(1))
    {
        library::regex::compiled(pattern).map_err(|fault| fault.to_string())?;
    }
    if !all || args.len() != 1 || !CONVERSIONS.contains(&&**function) {
        return Ok(false);
    }
    eval::run(node, &Nothing).0.map(|_| true).map_err(|fault| fault.to_string())
}

/// Nothing around.
struct Nothing;

impl<'a> Globals<'a> for Nothing {
    fn get(&self, _: &str) -> Option<Result<Value<'a>, Fault>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::expression::{Checked, Environment};

    #[test]
    fn constants_that_cannot_be_converted_are_told_before_anything_runs() {
        let rows = [
            ("int('x') == 1", Err("type conversion error from 'string' to 'int'")),
            ("string(int(string('y'))) == ''", Err("type conversion error from 'string' to 'int'")),
            ("uint(-1) == 1u || true", Err("unsigned integer overflow")),
            ("'a'.find('[') == ''", Err("error parsing regexp: missing closing ]: `[`")),
            ("object.x.findAll('(').size() == 1", Err("error parsing regexp: missing closing ): `(`")),
            ("int('1') / 0 == 1", Ok(())),
            ("int(object.x) == 1 && 'a'.find(object.x) == ''", Ok(())),
        ];
        for (text, want) in rows {
            let program = Checked::compile(text, &Environment::open()).expect(text);
            assert_eq!(program.instantiated().map(drop), want.map_err(str::to_owned), "{text}");
        }
    }
}
