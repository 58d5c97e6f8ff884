//! JSON with Go's words for what is wrong with it, and with duplicate fields told.

use super::findings::{COUNT_MAX, is_full, tell};
use super::syntax;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::collections::HashSet;
use std::fmt;

/// Parses a document; the last of duplicate fields counts, as in Go.
///
/// # Errors
/// Go's text.
pub(super) fn parse(text: &[u8], findings: &mut Vec<String>) -> Result<Value, String> {
    read(text, &mut State { path: String::new(), findings, unknown: Vec::new(), skipped: false })
        .map_err(|fault| words(text, &fault))
}

/// The findings about a document that was parsed and then read by its type, in the order in which Go meets them, which
/// looks into no field that it does not know.
pub(super) fn in_order(text: &[u8], found: Vec<String>) -> Vec<String> {
    if found.len() < 2 || !found.iter().any(|finding| finding.starts_with(UNKNOWN)) {
        return found;
    }
    let unknown =
        found.iter().filter(|finding| finding.starts_with(UNKNOWN)).map(|own| (own.as_str(), false));
    let mut findings = Vec::new();
    let mut state =
        State { path: String::new(), findings: &mut findings, unknown: unknown.collect(), skipped: false };
    if read(text, &mut state).is_err() {
        return found;
    }
    let missed: Vec<String> =
        state.unknown.iter().filter(|(_, told)| !told).map(|(own, _)| (*own).to_owned()).collect();
    for finding in missed {
        tell(&mut findings, || finding);
    }
    findings
}

/// Whether a finding about an unknown field is about that path. Their ends tell most paths of a document apart, and soon.
/// Names with quotes in them are not recognized.
fn is_about(finding: &str, path: &str) -> bool {
    let quoted = finding.strip_prefix(UNKNOWN).and_then(|rest| rest.strip_prefix('"')?.strip_suffix('"'));
    let end = path.len().saturating_sub(END);
    let is_same = |quoted: &[u8]| {
        quoted.len() == path.len() && quoted[end..] == path.as_bytes()[end..] && quoted == path.as_bytes()
    };
    quoted.map(str::as_bytes).is_some_and(is_same)
}

fn read(text: &[u8], state: &mut State<'_>) -> Result<Value, serde_json::Error> {
    let mut from = serde_json::Deserializer::from_slice(text);
    let value = At(state).deserialize(&mut from)?;
    from.end().map(|()| value)
}

fn words(text: &[u8], fault: &serde_json::Error) -> String {
    let told = fault.to_string();
    if told.starts_with("recursion limit exceeded") {
        return "exceeded max depth".to_owned();
    }
    syntax::fault(text).unwrap_or(told)
}

const UNKNOWN: &str = "unknown field ";
/// Bytes at the end of a path that are compared first.
const END: usize = 32;

struct State<'a> {
    path: String,
    findings: &'a mut Vec<String>,
    /// Findings about unknown fields, and whether each was met.
    unknown: Vec<(&'a str, bool)>,
    /// Whether the value is that of an unknown field.
    skipped: bool,
}

impl State<'_> {
    /// Takes note of the key at the end of the path; whether it is of an unknown field, as far as that is known.
    fn meet(&mut self, repeated: bool) -> bool {
        // Paths may be long: nothing is made of them in vain.
        if self.skipped || is_full(self.findings, COUNT_MAX) {
            return false;
        }
        if let Some((finding, met)) =
            self.unknown.iter_mut().find(|(finding, _)| is_about(finding, &self.path))
        {
            if !std::mem::replace(met, true) {
                self.findings.push((*finding).to_owned());
            }
            return true;
        }
        if repeated {
            let told = format!("duplicate field {:?}", self.path);
            if !self.findings.contains(&told) {
                self.findings.push(told);
            }
        }
        false
    }
}

/// A value at the state's path.
struct At<'s, 'f>(&'s mut State<'f>);

impl<'de> DeserializeSeed<'de> for At<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        let length = self.0.path.len();
        loop {
            self.0.path.push_str(&format!("[{}]", list.len()));
            let item = items.next_element_seed(At(self.0))?;
            self.0.path.truncate(length);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut repeated = HashSet::new();
        let length = self.0.path.len();
        while let Some(key) = entries.next_key::<String>()? {
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            let repeated = map.contains_key(&key) && repeated.insert(key.clone());
            let outer = self.0.skipped;
            self.0.skipped |= self.0.meet(repeated);
            let value = entries.next_value_seed(At(self.0))?;
            self.0.path.truncate(length);
            self.0.skipped = outer;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
