//! What an expression may cost at most, told before it runs, as cel-go's and Kubernetes' estimators count.
//!
//! In: a checked tree and what is declared of its variables. Out: the least and the most. Invariant: sums never overflow.

use super::library::{Cost, Row};
use super::tree::{Fold, Kind, Literal, Node};
use super::types::{Decl, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// A least and a most, of costs or of sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    pub min: u64,
    pub max: u64,
}

impl Range {
    const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    const fn fixed(value: u64) -> Self {
        Self { min: value, max: value }
    }

    fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn part(self, factor: f64) -> Self {
        Self { min: part(self.min, factor), max: part(self.max, factor) }
    }

    fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "it saturates"
)]
fn part(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

const PER_CHARACTER: f64 = 0.1;
const PER_PATTERN_CHARACTER: f64 = 0.25;

/// What an expression may cost.
pub fn estimate(root: &Node, variables: &HashMap<String, Arc<Decl>>) -> Range {
    Estimator { variables, stack: Vec::new() }.node(root).cost
}

struct Estimator<'d> {
    variables: &'d HashMap<String, Arc<Decl>>,
    /// What is known of the variables of comprehensions.
    stack: Vec<Known<'d>>,
}

/// What is known of a value: where it comes from, and its size where the expression itself tells.
#[derive(Clone, Copy, Default)]
struct Known<'d> {
    decl: Option<&'d Decl>,
    size: Option<Range>,
}

/// What is known of a node.
struct Told<'d> {
    cost: Range,
    known: Known<'d>,
}

/// What is known of an argument.
struct Arg<'d> {
    cost: Range,
    ty: Type,
    known: Known<'d>,
}

impl Arg<'_> {
    fn size(&self) -> Range {
        sized(self.known, &self.ty)
    }
}

fn is_scalar(ty: &Type) -> bool {
    matches!(ty, Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Duration | Type::Timestamp)
}

fn sized(known: Known<'_>, ty: &Type) -> Range {
    match (known.size, known.decl) {
        (Some(size), _) => size,
        (None, Some(decl)) => Range { min: 0, max: decl.max },
        (None, None) if is_scalar(ty) => Range::fixed(1),
        (None, None) => Range::UNKNOWN,
    }
}

impl<'d> Estimator<'d> {
    fn node(&mut self, node: &Node) -> Told<'d> {
        match &node.kind {
            Kind::Literal(value) => {
                Told { cost: Range::default(), known: Known { decl: None, size: Some(literal(value)) } }
            }
            // Upstream looks up the size of a name below the rule's own place, and that of a type is the place itself.
            Kind::TypeName(_) => {
                let decl = self.variables.get("self").map(Arc::as_ref);
                told(Range::fixed(1), Known { decl, size: None })
            }
            Kind::Local(slot) => told(Range::fixed(1), self.stack.get(*slot).copied().unwrap_or_default()),
            Kind::Global(name) => {
                let decl = self.variables.get(&**name).map(Arc::as_ref);
                told(Range::fixed(1), Known { decl, size: None })
            }
            Kind::Select { operand, field, test, .. } => {
                let of = self.node(operand);
                let counts = matches!(operand.ty, Type::Map(_) | Type::Object(_) | Type::Param(_)) && !test;
                let decl = of.known.decl.and_then(|decl| match decl.fields() {
                    Some(fields) => fields.get(&**field).map(|field| field.decl.as_ref()),
                    None => decl.item.as_deref(),
                });
                let own = if counts { Range::fixed(1) } else { Range::default() };
                told(of.cost.plus(own), Known { decl: decl.filter(|_| !test), size: None })
            }
            Kind::Call { function, rows, args, .. } => self.call(function, rows, args),
            Kind::List { items } => {
                let cost =
                    items.iter().fold(Range::fixed(10), |sum, (item, _)| sum.plus(self.node(item).cost));
                told(cost, Known { decl: None, size: Some(Range::fixed(items.len() as u64)) })
            }
            Kind::Map { entries } => {
                let cost = entries.iter().fold(Range::fixed(30), |sum, entry| {
                    sum.plus(self.node(&entry.key).cost).plus(self.node(&entry.value).cost)
                });
                told(cost, Known { decl: None, size: Some(Range::fixed(entries.len() as u64)) })
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn fold(&mut self, fold: &Fold) -> Told<'d> {
        let range = self.node(&fold.range);
        let init = self.node(&fold.init);
        let size = sized(range.known, &fold.range.ty);
        self.stack.truncate(fold.slot);
        self.stack.push(if fold.binds { init.known } else { Known::default() });
        let of = range.known.decl;
        let part = |decl: Option<&'d Decl>| Known { decl, size: None };
        let (keys, items) =
            (of.and_then(|decl| decl.key.as_deref()), of.and_then(|decl| decl.item.as_deref()));
        let is_list = matches!(fold.range.ty, Type::List(_));
        match (fold.two, is_list) {
            (true, _) => self.stack.extend([part(keys), part(items)]),
            (false, true) => self.stack.push(part(items)),
            (false, false) => self.stack.push(part(keys)),
        }
        let turn = self.node(&fold.condition).cost.plus(self.node(&fold.step).cost);
        self.stack.truncate(fold.slot + 1);
        let result = self.node(&fold.result);
        self.stack.truncate(fold.slot);
        let sum = range.cost.plus(init.cost).plus(result.cost);
        if fold.binds {
            return told(sum, result.known);
        }
        let size_of_result = match &fold.init.kind {
            Kind::List { .. } | Kind::Map { .. } => Some(size),
            _ => None,
        };
        told(sum.plus(size.times(turn)), Known { decl: None, size: size_of_result })
    }

    fn call(&mut self, function: &str, rows: &[&'static Row], args: &[Node]) -> Told<'d> {
        let args: Vec<Arg<'d>> = args
            .iter()
            .map(|arg| {
                let Told { cost, known } = self.node(arg);
                Arg { cost, ty: arg.ty.clone(), known }
            })
            .collect();
        let sum = args.iter().fold(Range::default(), |sum, arg| sum.plus(arg.cost));
        let cost_of = |at: usize| args.get(at).map_or(Range::default(), |arg| arg.cost);
        let size_of = |at: usize| args.get(at).map_or(Range::UNKNOWN, Arg::size);
        match function {
            "_&&_" | "_||_" => {
                let (one, other) = (cost_of(0), cost_of(1));
                return told(Range { min: one.min, max: one.plus(other).max }, Known::default());
            }
            "_?_:_" => {
                let cost = cost_of(0).plus(cost_of(1).union(cost_of(2)));
                return told(cost, Known { decl: None, size: Some(size_of(1).union(size_of(2))) });
            }
            "dyn" => {
                let known = args.first().map(|arg| arg.known).unwrap_or_default();
                return told(sum.plus(Range::fixed(1)), known);
            }
            _ => {}
        }
        let mut cost: Option<Range> = None;
        let mut size: Option<Range> = None;
        for row in rows {
            let (own, own_size) = of_call(row.cost, &args);
            cost = Some(cost.map_or(own, |cost| cost.union(own)));
            size = match (size, own_size) {
                (Some(one), Some(other)) => Some(one.union(other)),
                (one, other) => one.or(other),
            };
        }
        let decl = match function {
            "_[_]" => args.first().and_then(|arg| arg.known.decl).and_then(|decl| decl.item.as_deref()),
            _ => None,
        };
        told(cost.unwrap_or_default().plus(sum), Known { decl, size })
    }
}

fn told<'d>(cost: Range, known: Known<'d>) -> Told<'d> {
    Told { cost, known }
}

fn literal(value: &Literal) -> Range {
    Range::fixed(match value {
        Literal::Text(text) => text.chars().count() as u64,
        Literal::Bytes(bytes) => bytes.len() as u64,
        _ => 1,
    })
}

/// What a call costs beyond its arguments, and the size of what comes out.
fn of_call(cost: Cost, args: &[Arg<'_>]) -> (Range, Option<Range>) {
    let size = |at: usize| args.get(at).map_or(Range::UNKNOWN, Arg::size);
    let walk = |size: Range| size.part(PER_CHARACTER);
    let own = size(0);
    let upto = |max: u64| Some(Range { min: 0, max });
    let pattern = || walk(own.plus(Range::fixed(1))).times(size(1).part(PER_PATTERN_CHARACTER));
    match cost {
        Cost::One | Cost::Branch | Cost::ScanUntold | Cost::ScanTwiceUntold => (Range::fixed(1), None),
        Cost::Scan | Cost::Format => (walk(own), None),
        Cost::ScanSame => (walk(own), Some(own)),
        Cost::Affix => (walk(size(1)), None),
        Cost::Replace => (own.part(2.0 * PER_CHARACTER), Some(replaced(own, size(1), size(2)))),
        Cost::Split => (own.part(2.0 * PER_CHARACTER), upto(own.max)),
        Cost::Join => {
            let joined = joined(args, own);
            (walk(joined), Some(joined))
        }
        Cost::Pattern => (pattern(), None),
        Cost::Find => (pattern(), upto(own.max)),
        Cost::Contains => (walk(own).times(walk(size(1))), None),
        Cost::ToBytes => (walk(own), Some(Range { min: own.min, max: own.max.saturating_mul(4) })),
        Cost::FromBytes => (walk(own), Some(Range { min: own.min / 4, max: own.max })),
        Cost::Quote => {
            let quoted = own.plus(Range::fixed(2));
            (walk(own), Some(Range { min: quoted.min, max: own.max.saturating_mul(2).saturating_add(2) }))
        }
        Cost::In => (size(1), None),
        Cost::AddText => {
            let both = own.plus(size(1));
            (walk(both), Some(both))
        }
        Cost::AddList => (Range::fixed(1), Some(own.plus(size(1)))),
        Cost::Compare => {
            let most = own.max.min(size(1).max);
            (walk(Range { min: u64::from(most > 0), max: most }), None)
        }
        Cost::Walk => (walked(args, own), None),
        Cost::Sets(factor) => (own.times(size(1)).times(Range::fixed(factor)).plus(Range::fixed(1)), None),
        Cost::InNetwork { network, text } => {
            let address = Range { min: 4, max: 16 };
            let mut cost = walk(address.plus(address));
            if network {
                cost = cost.plus(walk(address)).plus(Range::fixed(1));
            }
            if text {
                cost = cost.plus(walk(size(1)));
            }
            (cost, None)
        }
        Cost::Ask => (Range::fixed(350_000), None),
    }
}

/// How long a text can be once parts of it are replaced.
fn replaced(own: Range, old: Range, new: Range) -> Range {
    let (mut count, mut kept) = (Range::default(), Range::default());
    if old.min == 0 {
        (count.max, kept.max) = (own.max.saturating_add(1), own.max);
    } else if new.max <= old.min {
        kept.max = own.max;
    } else {
        count.max = own.max.div_ceil(old.min);
    }
    if old.max == 0 {
        (count.min, kept.min) = (own.min.saturating_add(1), own.min);
    } else if old.max <= new.min {
        kept.min = own.min;
    } else {
        count.min = own.min.div_ceil(old.max);
    }
    count.times(new).plus(kept)
}

fn item_size(list: &Arg<'_>) -> Option<(Type, Range)> {
    let Type::List(item) = &list.ty else { return None };
    let known = Known { decl: list.known.decl.and_then(|decl| decl.item.as_deref()), size: None };
    Some((item.as_ref().clone(), sized(known, item)))
}

fn joined(args: &[Arg<'_>], list: Range) -> Range {
    let items = args.first().and_then(item_size).map_or(Range::default(), |(_, item)| list.times(item));
    let between = Range { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
    args.get(1).map_or(items, |separator| items.plus(separator.size().times(between)))
}

fn walked(args: &[Arg<'_>], own: Range) -> Range {
    match args.first().and_then(item_size) {
        Some((Type::String | Type::Bytes, item)) => own.times(Range::fixed(1).plus(item.part(PER_CHARACTER))),
        Some(_) => own.times(Range::fixed(1)),
        None => own.part(PER_CHARACTER),
    }
}
