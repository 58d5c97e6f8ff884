//! CEL as Kubernetes has it: rules of custom kinds, conditions and policies of admission.
//!
//!     parse.rs   text ─► tree (the `cel` crate's parser, Kubernetes' macros)
//!     check.rs   tree + types of variables ─► checked tree, or complaints in cel-go's words
//!     literals.rs  what stands in the text itself
//!     cost.rs    checked tree + sizes ─► the most that it may cost
//!     eval.rs    checked tree + values ─► a value, and what it has cost
//!     value.rs   values                      equality.rs  their equality and order
//!     work.rs    steps over values that their cost does not tell
//!     schema.rs  OpenAPI schemas ─► types and sizes          kinds.rs    the same for a kind
//!     library/   the functions, one table
//!     scope.rs   what expressions of admission can name      policy.rs   all expressions of a policy
//!
//! Invariants: no expression runs longer than its budget, whatever it makes of shared parts; values lie where they are, and are never copied whole.

mod check;
mod cost;
mod equality;
mod eval;
mod kinds;
mod library;
mod literals;
mod parse;
mod policy;
mod schema;
mod scope;
mod signature;
mod tree;
mod types;
mod value;
mod work;

pub use eval::Globals;
pub use kinds::declared_kind;
pub use library::{Authorizer, Check, Decision};
pub use policy::{Compiled, Policy, UNINSTANTIATED, conditions, misfits};
pub use schema::{cardinality, declared, escape, is_reserved};
pub use scope::{Answer, Failure, Scope};
pub use types::{Decl, Type};
pub use value::{Fault, Value};

use std::collections::HashMap;
use std::sync::Arc;

/// The most that all expressions about one object may cost.
pub const OBJECT_BUDGET: u64 = 10_000_000;
/// The most that all match conditions of one webhook or policy may cost.
pub const CONDITIONS_BUDGET: u64 = 2_500_000;
/// The longest message that an expression may make.
pub const MESSAGE_MAX: usize = 5 * 1024;

/// What an expression may name, with its types and sizes.
#[derive(Clone, Default)]
pub struct Environment {
    types: check::Variables,
    /// Whether it may name anything else too.
    open: bool,
    places: HashMap<String, Arc<Decl>>,
}

impl Environment {
    /// Of which nothing is declared: expressions may name anything.
    #[must_use]
    pub fn open() -> Self {
        Self { open: true, ..Self::default() }
    }

    /// With a variable whose place is declared.
    #[must_use]
    pub fn with(mut self, name: &str, place: Arc<Decl>) -> Self {
        self.types.insert(name.to_owned(), place.ty.clone());
        self.places.insert(name.to_owned(), place);
        self
    }

    /// Without a variable and what is below it.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        let below =
            |own: &str| own == name || own.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        self.types.retain(|own, _| !below(own));
        self.places.retain(|own, _| !below(own));
        self
    }

    /// With a variable of a type.
    #[must_use]
    pub fn typed(mut self, name: &str, ty: Type) -> Self {
        self.types.insert(name.to_owned(), ty);
        self
    }
}

/// An expression that is read and checked.
#[derive(Debug)]
pub struct Checked {
    root: tree::Node,
}

impl Checked {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// What is wrong with it, in cel-go's words.
    pub fn compile(text: &str, environment: &Environment) -> Result<Self, String> {
        let (root, info) = parse::parse(text)?;
        check::check(text, &root, &info, &environment.types, environment.open).map(|root| Self { root })
    }

    /// The expression, once its constants are converted and its patterns compiled.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn instantiated(self) -> Result<Self, String> {
        literals::instantiate(&self.root).map(|()| self)
    }

    /// The type of its answer.
    #[must_use]
    pub fn ty(&self) -> &Type {
        &self.root.ty
    }

    /// Whether it names a variable.
    #[must_use]
    pub fn names(&self, variable: &str) -> bool {
        self.root.names(variable)
    }

    /// The most that it may cost.
    #[must_use]
    pub fn most(&self, environment: &Environment) -> u64 {
        cost::estimate(&self.root, &environment.places).max
    }

    /// Its answer, and what that has cost.
    pub fn run<'a>(&'a self, globals: &dyn Globals<'a>) -> (Result<Value<'a>, Fault>, u64) {
        eval::run(&self.root, globals)
    }
}

pub use library::time::go_duration;

/// A text as a duration of Go.
pub(crate) fn is_duration(text: &str) -> bool {
    library::time::read_duration(text).is_some()
}

/// A text as a date.
pub(crate) fn is_date(text: &str) -> bool {
    library::time::is_date(text)
}

/// A text as a date and a time of day, as schemas have it.
pub(crate) fn is_date_time(text: &str) -> bool {
    library::time::is_date_time(text)
}
