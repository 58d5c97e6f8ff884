//! Texts into syntax trees, by the parser of the `cel` crate, with the macros that Kubernetes adds to the standard ones.
//!
//! In: an expression. Out: its tree with the places of its nodes, or cel-go's words about what is wrong and where.

use cel::Env;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, ListExpr, LiteralValue, MapExpr,
    SourceInfo, operators,
};
use cel::parser::{Macro, MacroExprHelper, ParseError, Parser};
use std::sync::{LazyLock, Mutex, PoisonError};

/// The longest expression that is read.
const LENGTH_MAX: usize = 100_000;
/// The most calls within calls.
const DEPTH_MAX: u16 = 50;
/// The most levels of a tree: chains like `1 + 1 + 1` make one with each link.
const TREE_DEPTH_MAX: usize = 250;
/// The parser walks a chain by recursion, as long as it is, before anything can be said of its depth: it has a stack for
/// that, of which only what is used takes memory.
const STACK: usize = 4 << 20;
const STACK_PER_BYTE: usize = 4 << 10;
/// Texts that are longer are read one after the other.
const LONG: usize = 10_000;
static LONG_ONES: Mutex<()> = Mutex::new(());
/// How many errors are told at most.
const ERRORS_MAX: usize = 100;

pub const ACCUMULATOR: &str = "@result";

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    for (name, arguments, expand) in MACROS {
        let added = env.add_macro(Macro::receiver(*name, *arguments, move |helper, target, args| {
            let Some(target) = target.take() else { return Ok(None) };
            expand(&mut Builder { helper }, target, &std::mem::take(args)).map(Some)
        }));
        debug_assert!(added.is_ok(), "{name}");
    }
    env
});

type Expand = fn(&mut Builder<'_, '_>, IdedExpr, &[IdedExpr]) -> Result<IdedExpr, ParseError>;

const MACROS: &[(&str, usize, Expand)] = &[
    ("all", 3, |to, range, args| to.two_variables(range, args, Builder::all)),
    ("exists", 3, |to, range, args| to.two_variables(range, args, Builder::exists)),
    ("exists_one", 3, |to, range, args| to.two_variables(range, args, Builder::exists_one)),
    ("existsOne", 3, |to, range, args| to.two_variables(range, args, Builder::exists_one)),
    ("transformList", 3, |to, range, args| to.two_variables(range, args, Builder::list)),
    ("transformList", 4, |to, range, args| to.two_variables(range, args, Builder::list)),
    ("transformMap", 3, |to, range, args| to.two_variables(range, args, Builder::map)),
    ("transformMap", 4, |to, range, args| to.two_variables(range, args, Builder::map)),
    ("transformMapEntry", 3, |to, range, args| to.two_variables(range, args, Builder::map_entry)),
    ("transformMapEntry", 4, |to, range, args| to.two_variables(range, args, Builder::map_entry)),
];

/// Makes the nodes that macros stand for.
struct Builder<'h, 'p> {
    helper: &'h mut MacroExprHelper<'p>,
}

/// How a comprehension begins, goes on, and ends.
struct Loop {
    init: IdedExpr,
    condition: IdedExpr,
    step: IdedExpr,
    result: IdedExpr,
}

impl Builder<'_, '_> {
    fn node(&mut self, expr: Expr) -> IdedExpr {
        self.helper.next_expr(expr)
    }

    fn accumulator(&mut self) -> IdedExpr {
        self.node(Expr::Ident(ACCUMULATOR.to_owned()))
    }

    fn truth(&mut self, value: bool) -> IdedExpr {
        self.node(Expr::Literal(LiteralValue::Boolean(value.into())))
    }

    fn number(&mut self, value: i64) -> IdedExpr {
        self.node(Expr::Literal(LiteralValue::Int(value.into())))
    }

    fn items(&mut self, items: Vec<IdedExpr>) -> IdedExpr {
        self.node(Expr::List(ListExpr::new(items)))
    }

    fn call(&mut self, function: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.node(Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }))
    }

    fn name(&self, expr: &IdedExpr, what: &str) -> Result<String, ParseError> {
        match &expr.expr {
            Expr::Ident(name) => Ok(name.clone()),
            _ => Err(self.helper.new_error(expr.id, what)),
        }
    }

    fn two_variables(
        &mut self,
        range: IdedExpr,
        args: &[IdedExpr],
        body: fn(&mut Self, &str, &[IdedExpr]) -> Loop,
    ) -> Result<IdedExpr, ParseError> {
        let first = self.name(&args[0], "argument must be a simple name")?;
        let second = self.name(&args[1], "argument must be a simple name")?;
        if first == second {
            return Err(self.helper.new_error(args[1].id, format!("duplicate variable name: {first}")));
        }
        let Loop { init, condition, step, result } = body(self, &first, &args[2..]);
        Ok(self.node(Expr::Comprehension(Box::new(ComprehensionExpr {
            iter_range: range,
            iter_var: first,
            iter_var2: Some(second),
            accu_var: ACCUMULATOR.to_owned(),
            accu_init: init,
            loop_cond: condition,
            loop_step: step,
            result,
        }))))
    }

    fn all(&mut self, _: &str, args: &[IdedExpr]) -> Loop {
        let held = self.accumulator();
        let (before, result) = (self.accumulator(), self.accumulator());
        Loop {
            init: self.truth(true),
            condition: self.call(operators::NOT_STRICTLY_FALSE, vec![held]),
            step: self.call(operators::LOGICAL_AND, vec![before, args[0].clone()]),
            result,
        }
    }

    fn exists(&mut self, _: &str, args: &[IdedExpr]) -> Loop {
        let held = self.accumulator();
        let not = self.call(operators::LOGICAL_NOT, vec![held]);
        let (before, result) = (self.accumulator(), self.accumulator());
        Loop {
            init: self.truth(false),
            condition: self.call(operators::NOT_STRICTLY_FALSE, vec![not]),
            step: self.call(operators::LOGICAL_OR, vec![before, args[0].clone()]),
            result,
        }
    }

    fn exists_one(&mut self, _: &str, args: &[IdedExpr]) -> Loop {
        let (before, same, end) = (self.accumulator(), self.accumulator(), self.accumulator());
        let one = self.number(1);
        let more = self.call(operators::ADD, vec![before, one]);
        let one = self.number(1);
        Loop {
            init: self.number(0),
            condition: self.truth(true),
            step: self.call(operators::CONDITIONAL, vec![args[0].clone(), more, same]),
            result: self.call(operators::EQUALS, vec![end, one]),
        }
    }

    /// The step, taken only where the filter before the last argument holds.
    fn filtered(&mut self, args: &[IdedExpr], step: IdedExpr) -> IdedExpr {
        match args {
            [filter, _] => {
                let same = self.accumulator();
                self.call(operators::CONDITIONAL, vec![filter.clone(), step, same])
            }
            _ => step,
        }
    }

    fn last(args: &[IdedExpr]) -> IdedExpr {
        args.last().cloned().unwrap_or_default()
    }

    fn list(&mut self, _: &str, args: &[IdedExpr]) -> Loop {
        let (before, result) = (self.accumulator(), self.accumulator());
        let one = self.items(vec![Self::last(args)]);
        let step = self.call(operators::ADD, vec![before, one]);
        let init = self.items(Vec::new());
        Loop { init, condition: self.truth(true), step: self.filtered(args, step), result }
    }

    fn inserting(&mut self, args: &[IdedExpr], key: Option<IdedExpr>) -> Loop {
        let (before, result) = (self.accumulator(), self.accumulator());
        let inserted = [Some(before), key, Some(Self::last(args))].into_iter().flatten().collect();
        let step = self.call("cel.@mapInsert", inserted);
        let init = self.node(Expr::Map(MapExpr { entries: Vec::new() }));
        Loop { init, condition: self.truth(true), step: self.filtered(args, step), result }
    }

    fn map(&mut self, key: &str, args: &[IdedExpr]) -> Loop {
        let key = self.node(Expr::Ident(key.to_owned()));
        self.inserting(args, Some(key))
    }

    fn map_entry(&mut self, _: &str, args: &[IdedExpr]) -> Loop {
        self.inserting(args, None)
    }
}

/// Reads an expression.
///
/// # Errors
/// What is wrong with it, in cel-go's words.
pub fn parse(text: &str) -> Result<(IdedExpr, SourceInfo), String> {
    if text.len() > LENGTH_MAX {
        let length = text.chars().count();
        return Err(format!(
            "ERROR: <input>:-1:0: expression code point size exceeds limit: size: {length}, limit {LENGTH_MAX}"
        ));
    }
    // One long text at a time: what their stacks take is bounded.
    let _turn = (text.len() > LONG).then(|| LONG_ONES.lock().unwrap_or_else(PoisonError::into_inner));
    let stack = STACK + text.len() * STACK_PER_BYTE;
    let unread = || "ERROR: <input>:-1:0: expression cannot be read".to_owned();
    std::thread::scope(|scope| {
        // Whoever joins it takes its panic: the prefix tells that to the process's hook (`libs/daemon/src/panics.rs`).
        let thread = std::thread::Builder::new().name("joined: expression".to_owned()).stack_size(stack);
        let reading = thread.spawn_scoped(scope, || read(text));
        reading.map_err(|_| unread())?.join().map_err(|_| unread())?
    })
}

/// Reads it, and refuses a tree that is too deep for those who walk it on stacks of the usual size.
fn read(text: &str) -> Result<(IdedExpr, SourceInfo), String> {
    let parser: Parser = ENV.parser().max_recursion_depth(DEPTH_MAX);
    let read = parser.parse_with_source_info(text).map_err(|errors| {
        let told = |error: &ParseError| {
            let at = place(text, error.pos);
            format!("ERROR: <input>:{}:{}: {}{}", error.pos.0, error.pos.1, error.msg, at)
        };
        let told: Vec<String> = errors.errors.iter().take(ERRORS_MAX).map(told).collect();
        told.join("\n")
    })?;
    if is_deeper(&read.0, TREE_DEPTH_MAX) {
        return Err(format!("ERROR: <input>:-1:0: expression recursion limit exceeded: {TREE_DEPTH_MAX}"));
    }
    Ok(read)
}

/// Whether a tree has more levels than that.
fn is_deeper(node: &IdedExpr, left: usize) -> bool {
    let Some(left) = left.checked_sub(1) else { return true };
    match &node.expr {
        Expr::Call(call) => {
            call.target.iter().any(|target| is_deeper(target, left)) || any_deeper(&call.args, left)
        }
        Expr::List(list) => any_deeper(&list.elements, left),
        Expr::Select(select) => is_deeper(&select.operand, left),
        Expr::Comprehension(fold) => {
            let parts = [&fold.iter_range, &fold.accu_init, &fold.loop_cond, &fold.loop_step, &fold.result];
            parts.into_iter().any(|part| is_deeper(part, left))
        }
        Expr::Map(map) => any_entry_deeper(&map.entries, left),
        Expr::Struct(made) => any_entry_deeper(&made.entries, left),
        Expr::Literal(_) | Expr::Ident(_) | Expr::Unspecified => false,
    }
}

fn any_deeper(nodes: &[IdedExpr], left: usize) -> bool {
    nodes.iter().any(|node| is_deeper(node, left))
}

fn any_entry_deeper(entries: &[IdedEntryExpr], left: usize) -> bool {
    entries.iter().any(|entry| match &entry.expr {
        EntryExpr::MapEntry(entry) => is_deeper(&entry.key, left) || is_deeper(&entry.value, left),
        EntryExpr::StructField(field) => is_deeper(&field.value, left),
    })
}

/// The line of a place, with a mark under it.
fn place(text: &str, (line, column): (isize, isize)) -> String {
    let shown = usize::try_from(line - 1).ok().and_then(|line| text.lines().nth(line));
    let Some(shown) = shown else { return String::new() };
    let column = usize::try_from(column).unwrap_or(1).max(1);
    // Under wide characters stand wide marks.
    let is_wide = |c: char| c.len_utf8() > 1;
    let mut chars = shown.chars();
    let dots: String =
        chars.by_ref().take(column - 1).map(|c| if is_wide(c) { '\u{ff0e}' } else { '.' }).collect();
    let mark = if chars.next().is_some_and(is_wide) { '\u{ff3e}' } else { '^' };
    format!("\n | {}\n | {dots}{mark}", shown.replace('\t', " "))
}

/// An error about the node `id`.
pub fn complaint(text: &str, info: &SourceInfo, id: u64, what: &str) -> ((usize, usize), String) {
    let start = info.offset_for(id).map_or(0, |(start, _)| start as usize);
    let before: String = text.chars().take(start).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let at = place(text, (isize::try_from(line).unwrap_or(1), isize::try_from(column).unwrap_or(1)));
    ((line, column), format!("ERROR: <input>:{line}:{column}: {what}{at}"))
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn places_are_marked_as_wide_as_their_characters_are() {
        for (text, column, want) in [
            ("a.b", 2, "\n | a.b\n | .^"),
            ("aüb", 2, "\n | aüb\n | .\u{ff3e}"),
            ("aüb", 3, "\n | aüb\n | .\u{ff0e}^"),
            ("a", 9, "\n | a\n | .^"),
        ] {
            assert_eq!(place(text, (1, column)), want, "{text} {column}");
        }
    }
}
