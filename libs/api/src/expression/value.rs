//! CEL's values: JSON is looked into where it lies, and never copied whole.
//!
//! In: JSON with what its schema declares. Out: values; equality.rs compares them.

use super::library::Opaque;
use super::types::{Decl, Field, ListKind, Type};
use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value as Json;
use std::sync::Arc;

/// Why an expression has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No overload takes these values.
    NoOverload,
    /// The budget is spent.
    Limit,
    /// Anything else, in words.
    Told(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoOverload => f.write_str("no such overload"),
            Self::Limit => f.write_str("operation cancelled: actual cost limit exceeded"),
            Self::Told(text) => f.write_str(text),
        }
    }
}

pub fn told<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Told(text.into()))
}

/// A text, borrowed where it can be.
#[derive(Clone, Debug)]
pub enum Text<'a> {
    Lent(&'a str),
    Own(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Lent(text) => text,
            Self::Own(text) => text,
        }
    }
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Arc<[u8]>),
    List(List<'a>),
    Map(Map<'a>),
    Timestamp(Timestamp),
    Duration(SignedDuration),
    Type(Text<'a>),
    Optional(Option<Arc<Value<'a>>>),
    Opaque(Arc<Opaque<'a>>),
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    Json(&'a [Json], Option<&'a Decl>),
    Own(Arc<Vec<Value<'a>>>),
}

/// A map, or an object.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    Json(&'a serde_json::Map<String, Json>, Option<&'a Decl>),
    Own(Arc<IndexMap<Key, (Value<'a>, Value<'a>)>>),
}

/// A key as it is compared: numbers of every kind are the same when they are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    Bool(bool),
    Number(i128),
    Text(Arc<str>),
}

static NO_FIELDS: std::sync::LazyLock<serde_json::Map<String, Json>> =
    std::sync::LazyLock::new(serde_json::Map::new);

impl<'a> Value<'a> {
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::Text(Text::Own(text.into()))
    }

    pub fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(List::Own(Arc::new(items)))
    }

    pub fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub fn as_text(&self) -> Result<&str, Fault> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(Fault::NoOverload),
        }
    }

    pub fn as_int(&self) -> Result<i64, Fault> {
        match self {
            Self::Int(value) => Ok(*value),
            _ => Err(Fault::NoOverload),
        }
    }

    /// A value of JSON by what is declared of its place.
    pub fn of(json: &'a Json, decl: Option<&'a Decl>) -> Self {
        let ty = decl.map(|decl| &decl.ty);
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), ty) {
                (Some(whole), None | Some(Type::Int | Type::Dyn)) => Self::Int(whole),
                _ => Self::Double(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Self::of_text(text, ty),
            Json::Array(items) => Self::List(List::Json(items, decl)),
            Json::Object(map) => Self::Map(Map::Json(map, decl)),
        }
    }

    fn of_text(text: &'a str, ty: Option<&Type>) -> Self {
        use base64::Engine;
        let special = match ty {
            Some(Type::Bytes) => {
                base64::prelude::BASE64_STANDARD.decode(text).ok().map(|bytes| Self::Bytes(bytes.into()))
            }
            Some(Type::Timestamp) => super::library::time::read_written(text).map(Self::Timestamp),
            Some(Type::Duration) => super::library::time::read_duration(text).map(Self::Duration),
            _ => None,
        };
        special.unwrap_or(Self::Text(Text::Lent(text)))
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Opaque(value) => value.type_name(),
        }
    }

    /// The type that stands behind it in cel-go, for its texts.
    pub fn go_type(&self) -> String {
        match self {
            Self::Null => "types.Null".to_owned(),
            Self::Type(_) => "*types.Type".to_owned(),
            Self::Optional(_) => "*types.Optional".to_owned(),
            Self::Opaque(value) => value.type_name().to_owned(),
            other => {
                let name = other.type_name().rsplit('.').next().unwrap_or_default();
                let (first, rest) = name.split_at(name.len().min(1));
                format!("types.{}{rest}", first.to_ascii_uppercase())
            }
        }
    }

    /// What `size()` says; 1 for what has no size. Costs are counted by it.
    pub fn size(&self) -> u64 {
        match self {
            Self::Text(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Opaque(value) => value.size(),
            _ => 1,
        }
    }

    /// How it is compared as a key.
    #[expect(clippy::cast_possible_truncation, reason = "only whole numbers in range are turned")]
    pub fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Bool(value) => Key::Bool(*value),
            Self::Int(value) => Key::Number(i128::from(*value)),
            Self::Uint(value) => Key::Number(i128::from(*value)),
            Self::Double(value) if value.fract() == 0.0 && value.abs() < 1e30 => Key::Number(*value as i128),
            Self::Text(text) => Key::Text(match text {
                Text::Lent(text) => Arc::from(*text),
                Text::Own(text) => text.clone(),
            }),
            _ => return None,
        })
    }

    /// A field of a map, as `.name` finds it.
    pub fn field(&self, name: &str) -> Result<Option<Value<'a>>, Fault> {
        match self {
            Self::Map(map) => Ok(map.field(name)),
            Self::Optional(Some(inner)) => Ok(inner.field(name)?.map(Value::some)),
            Self::List(_) => Err(Fault::Told("unsupported index type 'string' in list".to_owned())),
            // What has no fields lacks this one, too.
            _ => Ok(None),
        }
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Own(items) => items.len(),
        }
    }

    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(items, decl) => {
                items.get(index).map(|item| Value::of(item, decl.and_then(|decl| decl.item.as_deref())))
            }
            Self::Own(items) => items.get(index).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub fn kind(&self) -> &'a ListKind {
        match self {
            Self::Json(_, Some(decl)) => &decl.list,
            _ => &ListKind::Atomic,
        }
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Own(map) => map.len(),
        }
    }

    /// The declared field of that name.
    fn declared(decl: Option<&'a Decl>, name: &str) -> Option<&'a Field> {
        decl?.fields()?.get(name)
    }

    /// What the field `name` holds, by its name in expressions.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Json(map, decl) => match Self::declared(*decl, name) {
                Some(field) => map.get(&field.raw).map(|value| Value::of(value, Some(&field.decl))),
                None => {
                    map.get(name).map(|value| Value::of(value, decl.and_then(|decl| decl.item.as_deref())))
                }
            },
            Self::Own(map) => map.get(&Key::Text(Arc::from(name))).map(|(_, value)| value.clone()),
        }
    }

    pub fn get(&self, key: &Value<'a>) -> Option<Value<'a>> {
        match (self, key) {
            (_, Value::Text(text)) => self.field(text),
            (Self::Own(map), key) => map.get(&key.key()?).map(|(_, value)| value.clone()),
            (Self::Json(..), _) => None,
        }
    }

    /// The entries; an object's under the names that expressions use.
    pub fn entries(&self) -> Vec<(Value<'a>, Value<'a>)> {
        match self {
            Self::Own(map) => map.values().cloned().collect(),
            Self::Json(map, decl) => {
                let fields = decl.and_then(Decl::fields);
                // Few fields are named otherwise than they are written.
                let known = |raw: &str| {
                    let fields = fields?;
                    let same = fields.get_key_value(raw).filter(|(_, field)| field.raw == raw);
                    same.or_else(|| fields.get_key_value(&super::schema::escape(raw)?))
                };
                let entry = |(raw, value): (&'a String, &'a Json)| match known(raw) {
                    Some((name, field)) => {
                        (Value::Text(Text::Lent(name)), Value::of(value, Some(&field.decl)))
                    }
                    None => {
                        let item = decl.and_then(|decl| decl.item.as_deref());
                        (Value::Text(Text::Lent(raw)), Value::of(value, item))
                    }
                };
                map.iter().map(entry).collect()
            }
        }
    }

    pub fn empty() -> Self {
        Self::Json(&NO_FIELDS, None)
    }
}
