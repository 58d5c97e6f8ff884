//! Checked expressions: every name is resolved, every node has its type, every call its overloads.

use super::library::Row;
use super::types::Type;
use std::sync::Arc;

/// A node.
#[derive(Debug)]
pub struct Node {
    pub id: u64,
    pub ty: Type,
    pub kind: Kind,
}

/// A plain value that stands in the text.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
}

/// An entry of a map; an optional one may be absent.
#[derive(Debug)]
pub struct Entry {
    pub key: Node,
    pub value: Node,
    pub optional: bool,
}

/// What a node does.
pub enum Kind {
    Literal(Literal),
    /// A variable of a comprehension, by its place on the stack.
    Local(usize),
    /// A variable of the surroundings.
    Global(Arc<str>),
    TypeName(&'static str),
    Select {
        operand: Box<Node>,
        field: Arc<str>,
        test: bool,
        optional: bool,
    },
    /// A function with the rows that may fit; the receiver is the first argument.
    Call {
        function: Arc<str>,
        rows: Vec<&'static Row>,
        args: Vec<Node>,
    },
    List {
        items: Vec<(Node, bool)>,
    },
    Map {
        entries: Vec<Entry>,
    },
    Fold(Box<Fold>),
}

/// A comprehension. Its accumulator lies on the stack below its variables.
#[derive(Debug)]
pub struct Fold {
    pub range: Node,
    pub init: Node,
    /// The accumulator's place on the stack.
    pub slot: usize,
    pub two: bool,
    /// Whether it only gives a value a name.
    pub binds: bool,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Literal(value) => value.fmt(f),
            Self::Local(slot) => write!(f, "${slot}"),
            Self::Global(name) => f.write_str(name),
            Self::TypeName(name) => f.write_str(name),
            Self::Select { operand, field, .. } => write!(f, "{operand:?}.{field}"),
            Self::Call { function, args, .. } => write!(f, "{function}{args:?}"),
            Self::List { items } => items.fmt(f),
            Self::Map { entries } => entries.fmt(f),
            Self::Fold(fold) => fold.fmt(f),
        }
    }
}

impl Node {
    /// The nodes right below it, in the order in which they are evaluated.
    pub fn parts(&self) -> Vec<&Node> {
        match &self.kind {
            Kind::Literal(_) | Kind::Local(_) | Kind::Global(_) | Kind::TypeName(_) => Vec::new(),
            Kind::Select { operand, .. } => vec![operand],
            Kind::Call { args, .. } => args.iter().collect(),
            Kind::List { items } => items.iter().map(|(item, _)| item).collect(),
            Kind::Map { entries } => entries.iter().flat_map(|entry| [&entry.key, &entry.value]).collect(),
            Kind::Fold(fold) => vec![&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result],
        }
    }

    /// Whether it names the variable `name` anywhere.
    pub fn names(&self, name: &str) -> bool {
        matches!(&self.kind, Kind::Global(own) if **own == *name)
            || self.parts().into_iter().any(|part| part.names(name))
    }
}
