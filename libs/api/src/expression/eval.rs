//! Evaluation of checked expressions, with what it costs.
//!
//! In: a tree and the variables' values. Out: a value, or why there is none. Invariant: it stops once its budget is spent.

use super::library::{Cost, Row};
use super::tree::{Fold, Kind, Literal, Node};
use super::value::{Fault, List, Map, Text, Value, told};
use super::work::Work;
use indexmap::IndexMap;
use std::sync::Arc;

/// The most that one evaluation may cost.
pub const CALL_LIMIT: u64 = 1_000_000;

const PER_CHARACTER: f64 = 0.1;
const PER_PATTERN_CHARACTER: f64 = 0.25;
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;

/// Where variables of the surroundings come from.
pub trait Globals<'a> {
    /// A variable's value.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Fault>>;

    /// A field of a variable that is never made whole.
    fn field(&self, _name: &str, _field: &str) -> Option<Result<Value<'a>, Fault>> {
        None
    }
}

/// Evaluates a tree; tells also what it cost.
pub fn run<'a>(root: &'a Node, globals: &dyn Globals<'a>) -> (Result<Value<'a>, Fault>, u64) {
    let mut machine = Machine { globals, stack: Vec::new(), cost: 0, work: Work::within(CALL_LIMIT) };
    let answer = machine.node(root);
    if matches!(answer, Err(Fault::Limit)) {
        machine.cost = machine.cost.max(CALL_LIMIT + 1);
    }
    (answer, machine.cost)
}

struct Machine<'g, 'a> {
    globals: &'g dyn Globals<'a>,
    /// Accumulators and variables of comprehensions. An accumulator may have failed and go on.
    stack: Vec<Result<Value<'a>, Fault>>,
    cost: u64,
    work: Work,
}

impl<'a> Machine<'_, 'a> {
    fn charge(&mut self, cost: u64) -> Result<(), Fault> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > CALL_LIMIT { Err(Fault::Limit) } else { Ok(()) }
    }

    fn node(&mut self, node: &'a Node) -> Result<Value<'a>, Fault> {
        match &node.kind {
            Kind::Literal(value) => Ok(literal(value)),
            Kind::TypeName(name) => Ok(Value::Type(Text::Lent(name))),
            Kind::Local(slot) => {
                self.charge(1)?;
                self.stack.get(*slot).cloned().unwrap_or(Err(Fault::NoOverload))
            }
            Kind::Global(name) => {
                self.charge(1)?;
                let found = self.globals.get(name);
                found.unwrap_or_else(|| told(format!("no such attribute(s): {name}")))
            }
            Kind::Select { operand, field, test, optional } => self.select(operand, field, *test, *optional),
            Kind::Call { function, rows, args, .. } => self.call(node, function, rows, args),
            Kind::List { items } => {
                let mut all = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    match (self.node(item)?, optional) {
                        (Value::Optional(inner), true) => {
                            all.extend(inner.map(|inner| inner.as_ref().clone()));
                        }
                        (value, _) => all.push(value),
                    }
                }
                self.charge(LIST_COST)?;
                Ok(Value::list(all))
            }
            Kind::Map { entries } => {
                let mut all = IndexMap::with_capacity(entries.len());
                for entry in entries {
                    let key = self.node(&entry.key)?;
                    let value = match (self.node(&entry.value)?, entry.optional) {
                        (Value::Optional(None), true) => continue,
                        (Value::Optional(Some(inner)), true) => inner.as_ref().clone(),
                        (value, _) => value,
                    };
                    let known = key
                        .key()
                        .ok_or_else(|| Fault::Told(format!("unsupported key type: {}", key.type_name())))?;
                    all.insert(known, (key, value));
                }
                self.charge(MAP_COST)?;
                Ok(Value::Map(Map::Own(Arc::new(all))))
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    fn select(
        &mut self,
        operand: &'a Node,
        field: &str,
        test: bool,
        optional: bool,
    ) -> Result<Value<'a>, Fault> {
        if let Kind::Global(name) = &operand.kind
            && let Some(found) = self.globals.field(name, field)
        {
            self.charge(2)?;
            return found;
        }
        let of = self.node(operand)?;
        if !test {
            self.charge(1)?;
        }
        if optional && matches!(of, Value::Optional(None)) {
            return Ok(of);
        }
        let wrapped = matches!(of, Value::Optional(_));
        let found = of.field(field)?;
        if let Some(bytes @ Value::Bytes(_)) = &found {
            // They were read from a text.
            self.counted(|work| work.look(std::slice::from_ref(bytes)))?;
        }
        match (test, optional || wrapped, found) {
            (true, _, found) => Ok(Value::Bool(found.is_some())),
            (false, true, Some(value)) if !wrapped => Ok(Value::some(value)),
            (false, _, Some(value)) => Ok(value),
            (false, true, None) => Ok(Value::Optional(None)),
            (false, false, None) => told(format!("no such key: {field}")),
        }
    }

    fn call(
        &mut self,
        node: &'a Node,
        function: &str,
        rows: &'a [&'static Row],
        args: &'a [Node],
    ) -> Result<Value<'a>, Fault> {
        match (function, args) {
            ("_&&_", [one, other]) => return self.both(one, other, false),
            ("_||_", [one, other]) => return self.both(one, other, true),
            ("_?_:_", [condition, one, other]) => {
                return match self.node(condition)? {
                    Value::Bool(true) => self.node(one),
                    Value::Bool(false) => self.node(other),
                    _ => Err(Fault::NoOverload),
                };
            }
            ("@not_strictly_false", [one]) => {
                let held = match self.node(one) {
                    Err(Fault::Limit) => return Err(Fault::Limit),
                    held => !matches!(held, Ok(Value::Bool(false))),
                };
                self.charge(1)?;
                return Ok(Value::Bool(held));
            }
            ("or" | "orValue", [one, other]) => {
                return match self.node(one)? {
                    Value::Optional(None) => self.node(other),
                    Value::Optional(Some(value)) if function == "orValue" => Ok(value.as_ref().clone()),
                    some @ Value::Optional(_) => Ok(some),
                    _ => Err(Fault::NoOverload),
                };
            }
            _ => {}
        }
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.node(arg)?);
        }
        if function == "sum" && matches!(&values[..], [Value::List(list)] if list.len() == 0) {
            self.charge(0)?;
            return Ok(super::library::typed_zero(&node.ty));
        }
        let taken = self.work.taken();
        self.work.look(&values)?;
        let cost = charged(rows, &values, &mut self.work)?;
        // What would cost too much is not begun.
        if self.cost.saturating_add(cost) > CALL_LIMIT {
            self.charge(cost)?;
        }
        let mut answer = Err(Fault::NoOverload);
        for row in rows {
            answer = row.run.call(&values, &mut self.work);
            if !matches!(answer, Err(Fault::NoOverload)) {
                break;
            }
        }
        let answer = answer?;
        let made = made(rows, &answer);
        self.charge(cost.max(made).max(self.work.cost_since(taken)))?;
        Ok(answer)
    }

    /// Takes steps, and charges what they cost.
    fn counted(&mut self, steps: impl FnOnce(&mut Work) -> Result<(), Fault>) -> Result<(), Fault> {
        let taken = self.work.taken();
        steps(&mut self.work)?;
        self.charge(self.work.cost_since(taken))
    }

    /// `&&` and `||`: one side that settles it wins over the other's failure.
    fn both(&mut self, one: &'a Node, other: &'a Node, settles: bool) -> Result<Value<'a>, Fault> {
        let first = self.node(one);
        match first {
            Err(Fault::Limit) => return first,
            Ok(Value::Bool(value)) if value == settles => return first,
            _ => {}
        }
        let second = self.node(other);
        match (first, second) {
            (_, Err(Fault::Limit)) => Err(Fault::Limit),
            (_, Ok(Value::Bool(value))) if value == settles => Ok(Value::Bool(value)),
            (Err(fault), _) | (Ok(Value::Bool(_)), Err(fault)) => Err(fault),
            (Ok(Value::Bool(_)), Ok(Value::Bool(value))) => Ok(Value::Bool(value)),
            _ => Err(Fault::NoOverload),
        }
    }

    fn fold(&mut self, fold: &'a Fold) -> Result<Value<'a>, Fault> {
        let range = self.node(&fold.range)?;
        let init = self.node(&fold.init);
        if matches!(init, Err(Fault::Limit)) {
            return init;
        }
        self.stack.truncate(fold.slot);
        self.stack.push(init);
        match &range {
            Value::List(list) => {
                for at in 0..list.len() {
                    let Some(item) = list.get(at) else { break };
                    let index = Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
                    let (first, second) = if fold.two { (index, Some(item)) } else { (item, None) };
                    if !self.step(fold, first, second)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                self.counted(|work| work.step(map.len() as u64))?;
                for (key, value) in map.entries() {
                    if !self.step(fold, key, fold.two.then_some(value))? {
                        break;
                    }
                }
            }
            _ => return told(format!("got '{}', expected iterable type", range.go_type())),
        }
        self.stack.truncate(fold.slot + 1);
        let result = self.node(&fold.result);
        self.stack.truncate(fold.slot);
        result
    }

    /// One turn of a comprehension; whether it goes on.
    fn step(&mut self, fold: &'a Fold, first: Value<'a>, second: Option<Value<'a>>) -> Result<bool, Fault> {
        self.stack.truncate(fold.slot + 1);
        self.stack.push(Ok(first));
        self.stack.extend(second.map(Ok));
        if !matches!(self.node(&fold.condition)?, Value::Bool(true)) {
            return Ok(false);
        }
        if self.extended(&fold.step, fold.slot)? {
            return Ok(true);
        }
        let next = self.node(&fold.step);
        if matches!(next, Err(Fault::Limit)) {
            return Err(Fault::Limit);
        }
        self.stack[fold.slot] = next;
        Ok(true)
    }

    /// Grows the accumulator in place where the step only adds to it, so that it is not copied over and over.
    fn extended(&mut self, step: &'a Node, slot: usize) -> Result<bool, Fault> {
        let Kind::Call { function, args, .. } = &step.kind else { return Ok(false) };
        if !matches!(self.stack[slot], Ok(Value::List(List::Own(_)) | Value::Map(Map::Own(_)))) {
            return Ok(false);
        }
        let is_own = |node: &Node| matches!(node.kind, Kind::Local(own) if own == slot);
        match (&**function, args.as_slice()) {
            ("_+_", [own, Node { kind: Kind::List { items }, .. }]) if is_own(own) => {
                let [(item, false)] = items.as_slice() else { return Ok(false) };
                let value = self.node(item);
                self.charge(2 + LIST_COST)?;
                let grown = value.and_then(|value| match &mut self.stack[slot] {
                    Ok(Value::List(List::Own(list))) => {
                        Arc::make_mut(list).push(value);
                        Ok(())
                    }
                    _ => Err(Fault::NoOverload),
                });
                self.settle(slot, grown)
            }
            ("cel.@mapInsert", [own, added @ ..]) if is_own(own) => {
                let added: Result<Vec<Value<'a>>, Fault> = added.iter().map(|one| self.node(one)).collect();
                self.charge(2)?;
                let grown = added.and_then(|added| match &mut self.stack[slot] {
                    Ok(Value::Map(Map::Own(map))) => super::library::insert_into(Arc::make_mut(map), &added),
                    _ => Err(Fault::NoOverload),
                });
                self.settle(slot, grown)
            }
            ("_?_:_", [condition, more, own])
                if is_own(own)
                    && matches!(&more.kind, Kind::Call { function, .. } if matches!(&**function, "_+_" | "cel.@mapInsert")) =>
            {
                match self.node(condition) {
                    Ok(Value::Bool(true)) => {
                        if !self.extended(more, slot)? {
                            self.stack[slot] = self.node(more);
                        }
                        Ok(true)
                    }
                    Ok(Value::Bool(false)) => self.charge(1).map(|()| true),
                    Ok(_) => self.settle(slot, Err(Fault::NoOverload)),
                    Err(fault) => self.settle(slot, Err(fault)),
                }
            }
            _ => Ok(false),
        }
    }

    /// An accumulator that could not grow has failed, and may go on so; a spent budget ends all.
    fn settle(&mut self, slot: usize, grown: Result<(), Fault>) -> Result<bool, Fault> {
        match grown {
            Err(Fault::Limit) => return Err(Fault::Limit),
            Err(fault) => self.stack[slot] = Err(fault),
            Ok(()) => {}
        }
        Ok(true)
    }
}

fn literal(value: &Literal) -> Value<'_> {
    match value {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::Text(text) => Value::Text(Text::Lent(text)),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "costs are small and no less than zero"
)]
fn part(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn cost_of(rows: &[&Row]) -> Cost {
    match rows {
        [only] => only.cost,
        [first, rest @ ..] if rest.iter().all(|row| row.cost == first.cost) => first.cost,
        _ => Cost::One,
    }
}

/// What a call costs by what it has made.
fn made(rows: &[&Row], answer: &Value<'_>) -> u64 {
    match (cost_of(rows), answer) {
        (Cost::Join, answer) => part(answer.size(), 2.0 * PER_CHARACTER),
        // Of these the arguments tell little.
        (Cost::Replace | Cost::Format, Value::Text(text)) => part(text.len() as u64, PER_CHARACTER),
        _ => 0,
    }
}

/// What a call costs on these values.
fn charged(rows: &[&Row], args: &[Value<'_>], work: &mut Work) -> Result<u64, Fault> {
    let size = |at: usize| args.get(at).map_or(1, Value::size);
    let walk = |size: u64| part(size, PER_CHARACTER);
    Ok(match cost_of(rows) {
        Cost::One => 1,
        Cost::Branch | Cost::Join => 0,
        Cost::Scan
        | Cost::Format
        | Cost::ScanUntold
        | Cost::ScanSame
        | Cost::Affix
        | Cost::ToBytes
        | Cost::FromBytes
        | Cost::Quote => walk(size(0)),
        Cost::ScanTwiceUntold | Cost::Replace | Cost::Split => part(size(0), 2.0 * PER_CHARACTER),
        Cost::Pattern | Cost::Find => walk(size(0) + 1) * part(size(1), PER_PATTERN_CHARACTER),
        Cost::Contains => walk(size(0)) * walk(size(1)),
        Cost::In => size(1),
        Cost::AddText => walk(size(0) + size(1)),
        Cost::AddList => 1,
        Cost::Compare => walk(size(0).min(size(1))),
        Cost::Walk => args.first().map_or(Ok(0), |first| walked(first, work))?,
        Cost::Sets(factor) => size(0).saturating_mul(size(1)).saturating_mul(factor).saturating_add(1),
        Cost::InNetwork { network, text } => {
            let own = size(0);
            let inner = if network { walk(own) + 1 } else { 0 };
            walk(2 * own) + inner + if text { walk(size(1)) } else { 0 }
        }
        Cost::Ask => 350_000,
    })
}

/// What a walk over all that is in a value costs.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "rounded down, as upstream"
)]
fn walked(value: &Value<'_>, work: &mut Work) -> Result<u64, Fault> {
    work.step(1)?;
    Ok(match value {
        Value::Text(text) => (text.len() as f64 * PER_CHARACTER) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * PER_CHARACTER) as u64,
        Value::List(list) => {
            let mut sum = 0_u64;
            for item in list.iter() {
                sum = sum.saturating_add(walked(&item, work)?);
            }
            sum
        }
        Value::Map(map) => {
            let mut sum = 0_u64;
            for (key, value) in &map.entries() {
                sum = sum.saturating_add(walked(key, work)?).saturating_add(walked(value, work)?);
            }
            sum
        }
        _ => 1,
    })
}

/// Values by their names.
impl<'a> Globals<'a> for Vec<(&str, Value<'a>)> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, Fault>> {
        self.iter().find(|(own, _)| *own == name).map(|(_, value)| Ok(value.clone()))
    }
}
