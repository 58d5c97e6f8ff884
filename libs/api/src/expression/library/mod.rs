//! The functions of CEL as Kubernetes v1.33 has them, one table: what they take, what they cost, what they do.
//!
//!     standard.rs  operators, conversions, sizes, strings' own functions, optionals
//!     time.rs      timestamps and durations
//!     text.rs      the strings extension        format.rs  `string.format` and named formats
//!     lists.rs     lists                        regex.rs   find, findAll, matches
//!     compare.rs   equality, membership, sets
//!     network.rs   url, ip and cidr             quantity.rs
//!     authorizer.rs
//!
//! In: values. Out: a value, or the words why there is none. Invariant: no function does more than its cost says.

mod authorizer;
mod compare;
mod format;
mod lists;
mod network;
mod number;
mod quantity;
pub(super) mod regex;
mod standard;
#[cfg(test)]
mod tests;
mod text;
pub mod time;

pub use authorizer::{Asking, Authorizer, Check, Decision};
pub use format::takes_only;
pub use lists::typed_zero;
pub use standard::insert_into;

use super::signature::Signature;
use super::value::{Fault, Value};
use super::work::Work;
use std::collections::HashMap;
use std::sync::LazyLock;

/// What a function does. A value of no fitting type is no overload.
type Plain = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, Fault>;
/// The same of one whose work is not told by its cost.
type Counting = for<'a> fn(&[Value<'a>], &mut Work) -> Result<Value<'a>, Fault>;

/// One or the other.
#[derive(Clone, Copy)]
pub enum Run {
    Plain(Plain),
    Counting(Counting),
}

impl Run {
    /// Calls the function.
    pub fn call<'a>(self, args: &[Value<'a>], work: &mut Work) -> Result<Value<'a>, Fault> {
        match self {
            Self::Plain(run) => run(args),
            Self::Counting(run) => run(args, work),
        }
    }
}

/// How a call is charged, before and while it runs. Sizes are those of the arguments, the receiver first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// As any operation.
    One,
    /// Nothing of its own: its arguments are counted as they are evaluated.
    Branch,
    /// A walk over the text.
    Scan,
    /// The same, and what it makes of the text.
    Format,
    /// The same, told as one operation before it runs.
    ScanUntold,
    /// Two walks, told as one operation before it runs.
    ScanTwiceUntold,
    /// A walk over the text, which stays about as long.
    ScanSame,
    /// A walk over the second text before it runs, over the first when it does.
    Affix,
    Replace,
    Split,
    Join,
    /// A pattern over a text.
    Pattern,
    /// A pattern that finds parts.
    Find,
    Contains,
    /// A text into bytes, and back.
    ToBytes,
    FromBytes,
    Quote,
    In,
    AddText,
    AddList,
    Compare,
    /// A walk over a list and all that is in it, or over a text.
    Walk,
    /// Every item of one set with every one of the other, so many times.
    Sets(u64),
    /// An address in a network, given as text or not.
    InNetwork {
        network: bool,
        text: bool,
    },
    /// A question to the authorizer.
    Ask,
}

/// A row of a function: one cost, any number of signatures.
pub struct Row {
    pub signatures: Vec<Signature>,
    pub cost: Cost,
    pub run: Run,
}

/// A row as it is written.
type Written = (&'static str, &'static [&'static str], Cost, Plain);
type Counted = (&'static str, &'static [&'static str], Cost, Counting);

/// A value of a library's own type.
#[derive(Clone, Debug)]
pub enum Opaque<'a> {
    Url(network::Url),
    Ip(std::net::IpAddr),
    Cidr(ipnet::IpNet),
    Quantity(crate::quantity::Quantity),
    Format(format::Named),
    Authorizer(Box<authorizer::Asking<'a>>),
}

impl Opaque<'_> {
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorizer(asking) => asking.type_name(),
        }
    }

    pub fn size(&self) -> u64 {
        match self {
            Self::Ip(std::net::IpAddr::V4(_)) | Self::Cidr(ipnet::IpNet::V4(_)) => 4,
            Self::Ip(_) | Self::Cidr(_) => 16,
            Self::Format(named) => named.size(),
            _ => 1,
        }
    }

    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a.cmp(b).is_eq(),
            (Self::Format(a), Self::Format(b)) => a == b,
            _ => false,
        }
    }
}

/// All rows by name.
static FUNCTIONS: LazyLock<HashMap<&'static str, Vec<Row>>> = LazyLock::new(|| {
    let mut all: HashMap<&'static str, Vec<Row>> = HashMap::new();
    let tables: [&[Written]; 12] = [
        standard::OPERATORS,
        standard::CONVERSIONS,
        standard::TEXT,
        standard::OPTIONALS,
        number::TABLE,
        time::TABLE,
        text::TABLE,
        format::TABLE,
        lists::TABLE,
        network::TABLE,
        quantity::TABLE,
        authorizer::TABLE,
    ];
    let plain = tables.into_iter().flatten().map(|(name, of, cost, run)| (name, of, cost, Run::Plain(*run)));
    let counted = [compare::TABLE, regex::TABLE].into_iter().flatten();
    let counted = counted.map(|(name, of, cost, run)| (name, of, cost, Run::Counting(*run)));
    for (name, signatures, cost, run) in counted.chain(plain) {
        let signatures = signatures.iter().filter_map(|text| Signature::parse(text)).collect();
        all.entry(name).or_default().push(Row { signatures, cost: *cost, run });
    }
    all
});

/// The rows of a function; `None` where there is no such.
pub fn rows(name: &str) -> Option<&'static [Row]> {
    FUNCTIONS.get(name).map(Vec::as_slice)
}
