//! CEL's types, and which may stand for which.
//!
//! In: types as written (`map(string, A)`) or as schemas give them. Out: their assignability under the bindings of type
//! parameters, and their names as cel-go writes them.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

/// A type. Objects are the same when their names are.
#[derive(Clone, Debug)]
pub enum Type {
    Dyn,
    /// Of what has been complained about already.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Object(Arc<ObjectType>),
    Optional(Arc<Type>),
    Type(Arc<Type>),
    /// A type of a library, by its name.
    Opaque(&'static str),
    /// A parameter of a signature, or a free variable of a check.
    Param(u32),
}

/// The fields of an object by the names that expressions use.
#[derive(Debug, Default)]
pub struct ObjectType {
    pub name: String,
    pub fields: BTreeMap<String, Field>,
}

/// A field: its name in JSON, and what it holds.
#[derive(Debug)]
pub struct Field {
    pub raw: String,
    pub decl: Arc<Decl>,
}

/// How a list's items correspond to those of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// What a place holds: its type with the most items or bytes it can have, and the fewest bytes that it takes in JSON.
#[derive(Debug)]
pub struct Decl {
    pub ty: Type,
    pub max: u64,
    pub min_size: u64,
    pub item: Option<Arc<Decl>>,
    pub key: Option<Arc<Decl>>,
    pub list: ListKind,
}

/// Types that expressions can name.
pub const NAMED: [(&str, Type); 17] = [
    ("bool", Type::Bool),
    ("bytes", Type::Bytes),
    ("double", Type::Double),
    ("int", Type::Int),
    ("uint", Type::Uint),
    ("string", Type::String),
    ("null_type", Type::Null),
    ("list", Type::Dyn),
    ("map", Type::Dyn),
    ("type", Type::Dyn),
    ("optional_type", Type::Dyn),
    ("google.protobuf.Timestamp", Type::Timestamp),
    ("google.protobuf.Duration", Type::Duration),
    ("net.IP", Type::Opaque("net.IP")),
    ("net.CIDR", Type::Opaque("net.CIDR")),
    ("kubernetes.URL", Type::Opaque("kubernetes.URL")),
    ("kubernetes.Quantity", Type::Opaque("kubernetes.Quantity")),
];

/// A type has no more parts than that: those beyond are taken as `dyn`. A short expression could double them over and over.
const PARTS_MAX: usize = 500;
/// Comparisons of types in one expression; once so many are made, anything fits.
const COMPARISONS_MAX: usize = 1_000_000;

/// What type parameters stand for.
#[derive(Debug, Default)]
pub struct Bindings {
    known: HashMap<u32, Type>,
    /// Those that are bound, in the order in which they were.
    order: Vec<u32>,
    comparisons: usize,
}

impl Bindings {
    fn bind(&mut self, id: u32, ty: Type) {
        self.known.insert(id, ty);
        self.order.push(id);
    }

    /// Forgets what was bound on the way to something that does not fit.
    fn keep_if(&mut self, fits: impl FnOnce(&mut Self) -> bool) -> bool {
        let before = self.order.len();
        let fits = fits(self);
        if !fits {
            for id in self.order.drain(before..) {
                self.known.remove(&id);
            }
        }
        fits
    }
}

impl Type {
    pub fn list(item: Type) -> Self {
        Self::List(Arc::new(item))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new((key, value)))
    }

    pub fn optional(inner: Type) -> Self {
        Self::Optional(Arc::new(inner))
    }

    /// Whether anything goes.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Error)
    }

    fn parts(&self) -> Vec<&Type> {
        match self {
            Self::List(item) | Self::Optional(item) | Self::Type(item) => vec![item],
            Self::Map(pair) => vec![&pair.0, &pair.1],
            _ => Vec::new(),
        }
    }

    fn mapped(&self, change: &mut impl FnMut(&Type) -> Type) -> Type {
        match self {
            Self::List(item) => Self::list(change(item)),
            Self::Optional(item) => Self::optional(change(item)),
            Self::Type(item) => Self::Type(Arc::new(change(item))),
            Self::Map(pair) => Self::map(change(&pair.0), change(&pair.1)),
            other => other.clone(),
        }
    }

    /// The type with its parameters replaced; those that stand for nothing become `free`, or stay.
    pub fn bound(&self, bindings: &Bindings, free: Option<&Type>) -> Type {
        self.bound_within(bindings, free, &mut { PARTS_MAX })
    }

    fn bound_within(&self, bindings: &Bindings, free: Option<&Type>, left: &mut usize) -> Type {
        if *left == 0 {
            return Self::Dyn;
        }
        *left -= 1;
        match self {
            Self::Param(id) => match bindings.known.get(id) {
                Some(own) => own.bound_within(bindings, free, left),
                None => free.unwrap_or(self).clone(),
            },
            other => other.mapped(&mut |part| part.bound_within(bindings, free, left)),
        }
    }

    /// The type with its parameters counted from `first` on.
    pub fn shifted(&self, first: u32) -> Type {
        match self {
            Self::Param(id) => Self::Param(first + id),
            other => other.mapped(&mut |part| part.shifted(first)),
        }
    }

    fn mentions(&self, id: u32, bindings: &Bindings) -> bool {
        match self {
            Self::Param(own) if *own == id => true,
            Self::Param(own) => bindings.known.get(own).is_some_and(|bound| bound.mentions(id, bindings)),
            other => other.parts().iter().any(|part| part.mentions(id, bindings)),
        }
    }

    fn is_nullable(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Timestamp | Self::Duration | Self::Null | Self::Opaque(_))
    }

    /// Whether both are the same, parameters and all.
    pub fn is_exactly(&self, other: &Type) -> bool {
        let same_parts = || {
            let (own, others) = (self.parts(), other.parts());
            own.len() == others.len() && own.iter().zip(others).all(|(own, other)| own.is_exactly(other))
        };
        match (self, other) {
            (Self::Param(own), Self::Param(other)) => own == other,
            (Self::Object(own), Self::Object(other)) => own.name == other.name,
            (Self::Opaque(own), Self::Opaque(other)) => own == other,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other) && same_parts(),
        }
    }
}

/// Whether a `given` value may stand where `wanted` is; binds parameters where it may.
pub fn assignable(wanted: &Type, given: &Type, bindings: &mut Bindings) -> bool {
    bindings.keep_if(|bindings| fits(wanted, given, bindings))
}

fn fits(wanted: &Type, given: &Type, bindings: &mut Bindings) -> bool {
    bindings.comparisons += 1;
    if bindings.comparisons > COMPARISONS_MAX {
        return true;
    }
    let (wanted, given) = (wanted.bound(bindings, None), given.bound(bindings, None));
    match (&wanted, &given) {
        (Type::Param(own), Type::Param(other)) if own == other => true,
        (Type::Param(id), other) | (other, Type::Param(id)) => {
            if other.mentions(*id, bindings) {
                return false;
            }
            bindings.bind(*id, other.clone());
            true
        }
        _ if wanted.is_dyn() || given.is_dyn() => true,
        (wanted, Type::Null) => wanted.is_nullable(),
        (Type::Type(_), Type::Type(_)) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => fits(a, b, bindings),
        (Type::Map(a), Type::Map(b)) => fits(&a.0, &b.0, bindings) && fits(&a.1, &b.1, bindings),
        (wanted, given) => wanted.is_exactly(given),
    }
}

/// The same for lists of types.
pub fn all_assignable(wanted: &[Type], given: &[Type], bindings: &mut Bindings) -> bool {
    wanted.len() == given.len()
        && bindings
            .keep_if(|bindings| wanted.iter().zip(given).all(|(wanted, given)| fits(wanted, given, bindings)))
}

/// The more general of two types of which one may stand for the other.
pub fn most_general(one: &Type, other: &Type) -> Type {
    let rank = |ty: &Type| -> bool { ty.is_dyn() || matches!(ty, Type::Param(_)) };
    if rank(one) || !rank(other) { one.clone() } else { other.clone() }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Error => f.write_str("!error!"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(pair) => write!(f, "map({}, {})", pair.0, pair.1),
            Self::Object(object) => f.write_str(&object.name),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::Type(inner) => write!(f, "type({inner})"),
            Self::Opaque(name) => f.write_str(name),
            Self::Param(id) => write!(f, "_var{id}"),
        }
    }
}

impl Decl {
    /// A place for a plain value.
    pub fn plain(ty: Type, max: u64, min_size: u64) -> Self {
        Self { ty, max, min_size, item: None, key: None, list: ListKind::Atomic }
    }

    /// The fields, where it holds an object.
    pub fn fields(&self) -> Option<&BTreeMap<String, Field>> {
        match &self.ty {
            Type::Object(object) => Some(&object.fields),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_stand_for_each_other_as_in_cel() {
        let list = |item: Type| Type::list(item);
        let object = Type::Object(Arc::new(ObjectType::default()));
        let rows = [
            (Type::Int, Type::Int, true),
            (Type::Int, Type::Double, false),
            (Type::Dyn, Type::Int, true),
            (list(Type::Int), list(Type::Dyn), true),
            (list(Type::Int), list(Type::String), false),
            (object, Type::Null, true),
            (Type::Int, Type::Null, false),
            (list(Type::Param(0)), list(Type::String), true),
            (Type::Param(0), list(Type::Param(0)), false),
        ];
        for (wanted, given, fits) in rows {
            assert_eq!(assignable(&wanted, &given, &mut Bindings::default()), fits, "{wanted} {given}");
        }
        let mut bindings = Bindings::default();
        let wanted = [list(Type::Param(0)), Type::Param(0)];
        assert!(!all_assignable(&wanted, &[list(Type::Int), Type::String], &mut bindings));
        assert!(bindings.known.is_empty());
        assert!(all_assignable(&wanted, &[list(Type::Int), Type::Int], &mut bindings));
        assert_eq!(
            Type::map(Type::String, Type::Param(0)).bound(&bindings, None).to_string(),
            "map(string, int)"
        );
    }
}
