//! The type checker, as cel-go's: names are resolved, overloads chosen, and what does not fit is told with its place.
//!
//! In: a syntax tree and the variables' types. Out: a checked tree, or all complaints.

use super::library::{self, Row};
use super::literals;
use super::parse::{ACCUMULATOR, complaint};
use super::tree::{Entry, Fold, Kind, Literal, Node};
use super::types::{Bindings, NAMED, Type, all_assignable, assignable, most_general};
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The types of the variables that an expression may name.
pub type Variables = BTreeMap<String, Type>;

/// Checks an expression.
///
/// # Errors
/// Every complaint, in the order of their places.
pub fn check(
    text: &str,
    root: &IdedExpr,
    info: &SourceInfo,
    variables: &Variables,
    open: bool,
) -> Result<Node, String> {
    let mut checker = Checker {
        variables,
        open,
        bindings: Bindings::default(),
        next: 0,
        scope: Vec::new(),
        complaints: Vec::new(),
    };
    let mut node = checker.node(root);
    checker.finish(&mut node);
    // What is written out is looked at once all else is right.
    if checker.complaints.is_empty() {
        checker.complaints = literals::judged(&node);
    }
    if checker.complaints.is_empty() {
        return Ok(node);
    }
    let mut told: Vec<_> =
        checker.complaints.iter().map(|(id, what)| complaint(text, info, *id, what)).collect();
    told.sort_by_key(|(place, _)| *place);
    told.dedup();
    let told: Vec<String> = told.into_iter().map(|(_, text)| text).collect();
    Err(told.join("\n"))
}

struct Checker<'v> {
    variables: &'v Variables,
    /// Whether unknown names are variables too.
    open: bool,
    bindings: Bindings,
    next: u32,
    /// Variables of comprehensions, innermost last: their place is that on the stack.
    scope: Vec<(String, Type)>,
    complaints: Vec<(u64, String)>,
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

/// The name that a chain of fields spells.
fn qualified(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Ident(name) => Some(name.trim_start_matches('.').to_owned()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", qualified(&select.operand.expr)?, select.field))
        }
        _ => None,
    }
}

impl Checker<'_> {
    fn complain(&mut self, id: u64, what: impl Into<String>) {
        self.complaints.push((id, what.into()));
    }

    fn fresh(&mut self) -> Type {
        self.next += 1;
        Type::Param(self.next - 1)
    }

    fn bound(&self, ty: &Type) -> Type {
        ty.bound(&self.bindings, None)
    }

    fn node(&mut self, expr: &IdedExpr) -> Node {
        let (ty, kind) = match &expr.expr {
            Expr::Literal(value) => literal(value),
            Expr::Ident(name) => self.ident(expr.id, name.trim_start_matches('.')),
            Expr::Select(select) => self.select(expr, select),
            Expr::Call(call) => self.call(expr.id, call),
            Expr::List(list) => {
                let mut item_type = None;
                let items = list.elements.iter().enumerate().map(|(at, item)| {
                    let optional = list.optional_indices.contains(&at);
                    let node = self.node(item);
                    let ty = self.element(&node, optional);
                    item_type = Some(self.joined(item_type.take(), &ty));
                    (node, optional)
                });
                let items: Vec<(Node, bool)> = items.collect();
                let item = item_type.unwrap_or_else(|| self.fresh());
                (Type::list(item), Kind::List { items })
            }
            Expr::Map(map) => {
                let entries = map.entries.iter().filter_map(|entry| match &entry.expr {
                    EntryExpr::MapEntry(entry) => Some((&entry.key, &entry.value, entry.optional)),
                    EntryExpr::StructField(_) => None,
                });
                self.map(entries)
            }
            Expr::Comprehension(fold) => self.fold(fold),
            Expr::Struct(made) => {
                self.complain(expr.id, undeclared(&made.type_name));
                (Type::Error, Kind::Literal(Literal::Null))
            }
            Expr::Unspecified => (Type::Error, Kind::Literal(Literal::Null)),
        };
        Node { id: expr.id, ty, kind }
    }

    /// The type of an item; of an optional one, what it may hold.
    fn element(&mut self, node: &Node, optional: bool) -> Type {
        match self.bound(&node.ty) {
            Type::Optional(inner) if optional => inner.as_ref().clone(),
            ty if optional && !ty.is_dyn() => {
                self.complain(
                    node.id,
                    format!("expected type '{}' but found '{ty}'", Type::optional(ty.clone())),
                );
                ty
            }
            ty => ty,
        }
    }

    fn joined(&mut self, before: Option<Type>, own: &Type) -> Type {
        match before {
            None => own.clone(),
            Some(before) if assignable(&before, own, &mut self.bindings) => {
                most_general(&self.bound(&before), &self.bound(own))
            }
            Some(_) => Type::Dyn,
        }
    }

    fn map<'e>(&mut self, written: impl Iterator<Item = (&'e IdedExpr, &'e IdedExpr, bool)>) -> (Type, Kind) {
        let (mut keys, mut values) = (None, None);
        let mut entries = Vec::new();
        for (key, value, optional) in written {
            let key = self.node(key);
            keys = Some(self.joined(keys.take(), &key.ty));
            let value = self.node(value);
            let ty = self.element(&value, optional);
            values = Some(self.joined(values.take(), &ty));
            entries.push(Entry { key, value, optional });
        }
        let (key, value) = (keys.unwrap_or_else(|| self.fresh()), values.unwrap_or_else(|| self.fresh()));
        (Type::map(key, value), Kind::Map { entries })
    }

    fn known(&self, name: &str) -> Option<(Type, Kind)> {
        if let Some(slot) = self.scope.iter().rposition(|(own, _)| own == name) {
            return Some((self.scope[slot].1.clone(), Kind::Local(slot)));
        }
        if let Some(ty) = self.variables.get(name) {
            return Some((ty.clone(), Kind::Global(Arc::from(name))));
        }
        let (named, ty) = NAMED.iter().find(|(own, _)| *own == name)?;
        Some((Type::Type(Arc::new(ty.clone())), Kind::TypeName(named)))
    }

    fn ident(&mut self, id: u64, name: &str) -> (Type, Kind) {
        self.known(name).unwrap_or_else(|| {
            if self.open {
                return (Type::Dyn, Kind::Global(Arc::from(name)));
            }
            self.complain(id, undeclared(name));
            (Type::Error, Kind::Literal(Literal::Null))
        })
    }

    fn select(&mut self, expr: &IdedExpr, select: &SelectExpr) -> (Type, Kind) {
        if !select.test
            && let Some(name) = qualified(&expr.expr)
            && !self.scope.iter().any(|(own, _)| name.split('.').next() == Some(own))
            && let Some(known) = self.known(&name)
        {
            return known;
        }
        let operand = self.node(&select.operand);
        let found = self.field(expr.id, &operand, &select.field);
        let ty = if select.test { Type::Bool } else { found };
        let field = Arc::from(select.field.as_str());
        (ty, Kind::Select { operand: Box::new(operand), field, test: select.test, optional: false })
    }

    /// The type of a field of a value.
    fn field(&mut self, id: u64, operand: &Node, name: &str) -> Type {
        let of = self.bound(&operand.ty);
        let (inner, optional) = match &of {
            Type::Optional(inner) => (self.bound(inner), true),
            other => (other.clone(), false),
        };
        let found = match &inner {
            Type::Map(pair) => pair.1.clone(),
            Type::Object(object) => match object.fields.get(name) {
                Some(field) => field.decl.ty.clone(),
                None => {
                    self.complain(id, format!("undefined field '{name}'"));
                    Type::Error
                }
            },
            Type::Param(_) => {
                assignable(&inner, &Type::Dyn, &mut self.bindings);
                Type::Dyn
            }
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                self.complain(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if optional { Type::optional(found) } else { found }
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> (Type, Kind) {
        if call.func_name == operators::OPT_SELECT
            && let [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(field)), .. }] =
                call.args.as_slice()
        {
            let operand = self.node(operand);
            let found = match self.field(id, &operand, field.inner()) {
                optional @ Type::Optional(_) => optional,
                other => Type::optional(other),
            };
            let field = Arc::from(field.inner());
            return (found, Kind::Select { operand: Box::new(operand), field, test: false, optional: true });
        }
        let mut args: Vec<Node> = Vec::new();
        let mut name = call.func_name.clone();
        let mut member = false;
        if let Some(target) = &call.target {
            let whole = qualified(&target.expr).map(|head| format!("{head}.{}", call.func_name));
            match whole.filter(|whole| library::rows(whole).is_some()) {
                Some(whole) => name = whole,
                None => {
                    args.push(self.node(target));
                    member = true;
                }
            }
        }
        args.extend(call.args.iter().map(|arg| self.node(arg)));
        let function: Arc<str> = Arc::from(name.trim_start_matches('.'));
        let Some(rows) = library::rows(&function) else {
            self.complain(id, undeclared(&function));
            return (Type::Error, Kind::Literal(Literal::Null));
        };
        let (ty, rows) = self.resolve(id, &function, rows, &args, member);
        (ty, Kind::Call { function, rows, args })
    }

    fn resolve(
        &mut self,
        id: u64,
        function: &str,
        rows: &'static [Row],
        args: &[Node],
        member: bool,
    ) -> (Type, Vec<&'static Row>) {
        let given: Vec<Type> = args.iter().map(|arg| self.bound(&arg.ty)).collect();
        let mut result: Option<Type> = None;
        let mut fitting: Vec<&'static Row> = Vec::new();
        for row in rows {
            for signature in row.signatures.iter().filter(|signature| signature.member == member) {
                let first = self.next;
                let takes: Vec<Type> = signature.takes.iter().map(|ty| ty.shifted(first)).collect();
                if !all_assignable(&takes, &given, &mut self.bindings) {
                    continue;
                }
                self.next += signature.parameters;
                let gives = self.bound(&signature.gives.shifted(first));
                result = Some(match result {
                    None => gives,
                    Some(before) if !before.is_dyn() && !before.is_exactly(&gives) => Type::Dyn,
                    Some(before) => before,
                });
                if !fitting.iter().any(|own| std::ptr::eq(*own, row)) {
                    fitting.push(row);
                }
            }
        }
        if let Some(result) = result {
            return (result, fitting);
        }
        let shown: Vec<String> =
            given.iter().map(|ty| ty.bound(&self.bindings, Some(&Type::Dyn)).to_string()).collect();
        let shown = match (member, shown.split_first()) {
            (true, Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
            _ => format!("({})", shown.join(", ")),
        };
        self.complain(id, format!("found no matching overload for '{function}' applied to '{shown}'"));
        (Type::Error, Vec::new())
    }

    fn fold(&mut self, written: &ComprehensionExpr) -> (Type, Kind) {
        let range = self.node(&written.iter_range);
        let init = self.node(&written.accu_init);
        let (first, second) = match self.bound(&range.ty) {
            Type::List(item) if written.iter_var2.is_some() => (Type::Int, item.as_ref().clone()),
            Type::List(item) => (item.as_ref().clone(), Type::Dyn),
            Type::Map(pair) => (pair.0.clone(), pair.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => (Type::Dyn, Type::Dyn),
            other => {
                let what = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.complain(range.id, what);
                (Type::Error, Type::Error)
            }
        };
        let slot = self.scope.len();
        let accumulated = init.ty.clone();
        self.scope.push((written.accu_var.clone(), accumulated.clone()));
        self.scope.push((written.iter_var.clone(), first));
        if let Some(name) = &written.iter_var2 {
            self.scope.push((name.clone(), second));
        }
        let condition = self.node(&written.loop_cond);
        self.must_be(&condition, &Type::Bool);
        let step = self.node(&written.loop_step);
        self.must_be(&step, &accumulated);
        self.scope.truncate(slot + 1);
        let result = self.node(&written.result);
        self.scope.truncate(slot);
        let ty = self.bound(&result.ty);
        let two = written.iter_var2.is_some();
        let binds = written.accu_var != ACCUMULATOR;
        (ty, Kind::Fold(Box::new(Fold { range, init, slot, two, binds, condition, step, result })))
    }

    fn must_be(&mut self, node: &Node, wanted: &Type) {
        if assignable(wanted, &node.ty, &mut self.bindings) {
            return;
        }
        let (wanted, found) = (self.bound(wanted), self.bound(&node.ty));
        self.complain(node.id, format!("expected type '{wanted}' but found '{found}'"));
    }

    /// Gives every node its final type.
    fn finish(&self, node: &mut Node) {
        node.ty = node.ty.bound(&self.bindings, Some(&Type::Dyn));
        match &mut node.kind {
            Kind::Literal(_) | Kind::Local(_) | Kind::Global(_) | Kind::TypeName(_) => {}
            Kind::Select { operand, .. } => self.finish(operand),
            Kind::Call { args, .. } => args.iter_mut().for_each(|arg| self.finish(arg)),
            Kind::List { items } => items.iter_mut().for_each(|(item, _)| self.finish(item)),
            Kind::Map { entries } => entries.iter_mut().for_each(|entry| {
                self.finish(&mut entry.key);
                self.finish(&mut entry.value);
            }),
            Kind::Fold(fold) => {
                let Fold { range, init, condition, step, result, .. } = fold.as_mut();
                [range, init, condition, step, result].into_iter().for_each(|part| self.finish(part));
            }
        }
    }
}

fn literal(value: &LiteralValue) -> (Type, Kind) {
    let (ty, value) = match value {
        LiteralValue::Boolean(value) => (Type::Bool, Literal::Bool(*value.inner())),
        LiteralValue::Bytes(value) => (Type::Bytes, Literal::Bytes(Arc::from(value.inner()))),
        LiteralValue::Double(value) => (Type::Double, Literal::Double(*value.inner())),
        LiteralValue::Int(value) => (Type::Int, Literal::Int(*value.inner())),
        LiteralValue::Null => (Type::Null, Literal::Null),
        LiteralValue::String(value) => (Type::String, Literal::Text(Arc::from(value.inner()))),
        LiteralValue::UInt(value) => (Type::Uint, Literal::Uint(*value.inner())),
    };
    (ty, Kind::Literal(value))
}
