//! Decodes a [`Value`] into a typed struct and finds every mistake on the way.
//!
//! Serde gives up at the first mistake. Here a mistake is written down, and serde is handed a stand-in of the type it
//! asked for (`stand_in.rs`), so that it goes on to the next one. Only a missing key stops a pass, since its type is
//! not known before serde asks for it: it is written down, filled with a stand-in, and the whole value is decoded
//! again. The result of a pass with mistakes is thrown away, so stand-ins are never seen.

mod access;
mod enums;
mod stand_in;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{self, DeserializeOwned, Visitor};
use serde::forward_to_deserialize_any;

use self::access::{ListAccess, TableAccess};
use self::enums::EnumDecoder;
use self::stand_in::StandIn;
use super::{Data, DecodeError, Entry, Origin, Value};
use crate::suggest::hint_among;

/// How often a value is decoded anew; each pass but the last finds a missing key.
const MAX_PASSES: usize = 200;

/// Returns `value` as a `T`, or all its mistakes in the order of the source text.
pub(super) fn decode_all<T: DeserializeOwned>(value: &Value) -> Result<T, Vec<DecodeError>> {
    let mut fatal: Vec<DecodeError> = Vec::new();
    let mut stand_ins = StandIns::default();
    for _ in 0..MAX_PASSES {
        let pass = Pass { errors: RefCell::default(), stand_ins: &stand_ins };
        let result = T::deserialize(Decoder::root(value, &pass));
        let found = pass.errors.into_inner();
        match result {
            Ok(typed) if fatal.is_empty() && found.is_empty() => return Ok(typed),
            Ok(_) => return Err(sorted(fatal, found)),
            Err(error) => {
                let placed = error.at_root(value);
                // What a conversion makes of a stand-in, or of a table that holds one, says nothing about the file.
                let follows = placed.in_stand_in
                    || (placed.missing_key.is_none()
                        && (stand_ins.values.contains(&placed.path)
                            || found.iter().any(|earlier| earlier.path.starts_with(&placed.path))));
                let is_new = match &placed.missing_key {
                    Some(key) => stand_ins.keys.entry(placed.path.clone()).or_default().insert(key.clone()),
                    None => stand_ins.values.insert(placed.path.clone()),
                };
                if !follows {
                    fatal.push(placed.error);
                }
                // A stand-in that the type refuses ends the search: what was found so far is real.
                if !is_new {
                    return Err(sorted(fatal, found));
                }
            }
        }
    }
    Err(fatal)
}

fn sorted(mut errors: Vec<DecodeError>, more: Vec<DecodeError>) -> Vec<DecodeError> {
    errors.extend(more);
    errors.sort_by_key(|error| error.origin.as_ref().map(|origin| (origin.source, origin.span.start)));
    let mut seen = Vec::new();
    errors.retain(|error| {
        !seen.contains(error) && {
            seen.push(error.clone());
            true
        }
    });
    errors
}

/// Where stand-ins take the place of something broken.
#[derive(Default)]
struct StandIns {
    /// Paths of values that no visitor accepted.
    values: BTreeSet<String>,
    /// Missing keys, by the path of their table.
    keys: BTreeMap<String, BTreeSet<String>>,
}

/// One attempt to decode.
struct Pass<'c> {
    errors: RefCell<Vec<DecodeError>>,
    stand_ins: &'c StandIns,
}

/// A mistake that stopped serde.
#[derive(Debug)]
pub(super) enum Error {
    /// Raised by a visitor, which does not know where it is.
    Message(String),
    /// A key without a default is absent from the table being read.
    MissingKey(&'static str),
    /// With its place.
    Placed(Box<Placed>),
}

/// A mistake with its place.
#[derive(Debug)]
pub(super) struct Placed {
    error: DecodeError,
    /// The path of the value, or of the table that misses a key.
    path: String,
    missing_key: Option<String>,
    /// Whether it only follows from an earlier mistake.
    in_stand_in: bool,
}

impl Error {
    /// Returns the error with its place, which is `path` unless a place within is known.
    fn placed(self, path: &str, origin: Option<&Origin>, in_stand_in: bool) -> Self {
        let (message, missing_key) = match self {
            Self::Placed(placed) => return Self::Placed(placed),
            Self::Message(message) => (message, None),
            Self::MissingKey(key) => (format!("missing key `{key}`"), Some(key.to_owned())),
        };
        let error = DecodeError { path: path.to_owned(), origin: origin.cloned(), message, hint: None };
        Self::Placed(Box::new(Placed { error, path: path.to_owned(), missing_key, in_stand_in }))
    }

    fn at_root(self, value: &Value) -> Placed {
        match self.placed("", value.origin.as_ref(), false) {
            Self::Placed(placed) => *placed,
            Self::Message(_) | Self::MissingKey(_) => unreachable!("`placed` returns `Placed`"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => f.write_str(message),
            Self::MissingKey(key) => write!(f, "missing key `{key}`"),
            Self::Placed(placed) => placed.error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Message(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::MissingKey(field)
    }
}

/// Returns the path of `key` in the table at `path`.
pub(super) fn child_path(path: &str, key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    let key = if is_bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A deserializer over one value.
struct Decoder<'v, 'c> {
    value: &'v Value,
    path: String,
    /// Of the value, else of the nearest enclosing value that was written in a text.
    origin: Option<&'v Origin>,
    pass: &'c Pass<'c>,
}

impl<'v, 'c> Decoder<'v, 'c> {
    fn root(value: &'v Value, pass: &'c Pass<'c>) -> Self {
        Self { value, path: String::new(), origin: value.origin.as_ref(), pass }
    }

    fn child(&self, value: &'v Value, path: String) -> Self {
        Self { value, path, origin: value.origin.as_ref().or(self.origin), pass: self.pass }
    }

    /// Writes a mistake down and returns the stand-in to go on with.
    fn mistake(&self, message: String, hint: Option<String>) -> StandIn<'c> {
        self.record(&self.path, self.origin, message, hint);
        self.stand_in()
    }

    fn stand_in(&self) -> StandIn<'c> {
        StandIn { path: self.path.clone(), pass: self.pass }
    }

    fn record(&self, path: &str, origin: Option<&Origin>, message: String, hint: Option<String>) {
        let error = DecodeError { path: path.to_owned(), origin: origin.cloned(), message, hint };
        self.pass.errors.borrow_mut().push(error);
    }

    fn expected(&self, what: &str) -> StandIn<'c> {
        self.mistake(format!("expected {what}, found {}", self.value.described()), None)
    }

    fn must_stand_in(&self) -> bool {
        self.pass.stand_ins.values.contains(&self.path)
    }

    /// Returns the whole number, or the stand-in to go on with.
    fn integer(&self, least: i64, most: i64) -> Result<i64, StandIn<'c>> {
        if self.must_stand_in() {
            return Err(self.stand_in());
        }
        match self.value.data {
            Data::Integer(number) if (least..=most).contains(&number) => Ok(number),
            Data::Integer(number) => {
                let range =
                    if most == i64::MAX { format!("of at least {least}") } else { format!("from {least} to {most}") };
                Err(self.mistake(format!("expected a whole number {range}, found `{number}`"), None))
            }
            Data::Float(number) => {
                let is_whole = number.fract() == 0.0 && number.abs() < 1e15;
                let hint = is_whole.then(|| format!("write it without point and exponent: `{number:.0}`"));
                Err(self.mistake(format!("expected a whole number, found `{}`", self.value), hint))
            }
            _ => Err(self.expected("a whole number")),
        }
    }

    /// Returns the number, or the stand-in to go on with.
    #[allow(clippy::cast_precision_loss)]
    fn number(&self, most: f64) -> Result<f64, StandIn<'c>> {
        if self.must_stand_in() {
            return Err(self.stand_in());
        }
        let number = match self.value.data {
            Data::Integer(number) => number as f64,
            Data::Float(number) => number,
            _ => return Err(self.expected("a number")),
        };
        if !number.is_finite() {
            return Err(self.mistake(format!("expected a finite number, found `{number}`"), None));
        }
        if number.abs() > most {
            return Err(
                self.mistake(format!("expected a number of at most {most:e} in size, found `{number:e}`"), None)
            );
        }
        Ok(number)
    }

    fn placed<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.placed(&self.path, self.origin, false))
    }

    /// Reads a table's entries except `skip`, with stand-ins for the keys known to be missing.
    ///
    /// `known` are the keys the type has, when it says so; others are mistakes.
    fn visit_table<'de, V: Visitor<'de>>(
        self,
        entries: &'v BTreeMap<String, Entry>,
        known: Option<&'static [&'static str]>,
        skip: Option<&str>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut fields = Vec::with_capacity(entries.len());
        for (key, entry) in entries.iter().filter(|(key, _)| Some(key.as_str()) != skip) {
            if let Some(known) = known
                && !known.contains(&key.as_str())
            {
                let hint = hint_among(key, "known keys", known.iter().copied());
                let path = if self.path.is_empty() { "" } else { &self.path };
                self.record(path, entry.place().or(self.origin), format!("unknown key `{key}`"), hint);
                continue;
            }
            fields.push((key.as_str(), Some(entry)));
        }
        if let Some(missing) = self.pass.stand_ins.keys.get(&self.path) {
            fields.extend(missing.iter().filter(|key| !entries.contains_key(*key)).map(|key| (key.as_str(), None)));
        }
        let access = TableAccess { table: &self, fields: fields.into_iter(), next: None };
        let result = visitor.visit_map(access);
        self.placed(result)
    }
}

macro_rules! decode_integers {
    ($($method:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            // Types wider than TOML's own integers take all of them.
            let least = i64::try_from(<$type>::MIN).unwrap_or(i64::MIN);
            let most = i64::try_from(<$type>::MAX).unwrap_or(i64::MAX);
            match self.integer(least, most) {
                Ok(number) => self.placed(visitor.visit_i64(number)),
                Err(stand_in) => stand_in.$method(visitor),
            }
        }
    )*};
}

macro_rules! decode_texts {
    ($($method:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match &self.value.data {
                _ if self.must_stand_in() => self.stand_in().$method(visitor),
                Data::String(text) => self.placed(visitor.visit_str(text)),
                _ => self.expected("a string").$method(visitor),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Decoder<'_, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.must_stand_in() {
            return self.stand_in().deserialize_any(visitor);
        }
        match &self.value.data {
            Data::Bool(flag) => self.placed(visitor.visit_bool(*flag)),
            Data::Integer(number) => self.placed(visitor.visit_i64(*number)),
            Data::Float(number) => self.placed(visitor.visit_f64(*number)),
            Data::String(text) => self.placed(visitor.visit_str(text)),
            Data::Array(_) => self.deserialize_seq(visitor),
            Data::Table(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value.data {
            _ if self.must_stand_in() => self.stand_in().deserialize_bool(visitor),
            Data::Bool(flag) => self.placed(visitor.visit_bool(flag)),
            _ => self.expected("`true` or `false`").deserialize_bool(visitor),
        }
    }

    decode_integers!(deserialize_i8 i8, deserialize_i16 i16, deserialize_i32 i32, deserialize_i64 i64);
    decode_integers!(deserialize_u8 u8, deserialize_u16 u16, deserialize_u32 u32, deserialize_u64 u64);

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.number(f64::from(f32::MAX)) {
            Ok(number) => self.placed(visitor.visit_f64(number)),
            Err(stand_in) => stand_in.deserialize_f32(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.number(f64::MAX) {
            Ok(number) => self.placed(visitor.visit_f64(number)),
            Err(stand_in) => stand_in.deserialize_f64(visitor),
        }
    }

    decode_texts!(deserialize_str, deserialize_string, deserialize_char, deserialize_identifier);

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.must_stand_in() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value.data {
            _ if self.must_stand_in() => self.stand_in().deserialize_seq(visitor),
            Data::Array(items) => {
                let result = visitor.visit_seq(ListAccess { list: &self, items: items.iter(), position: 0 });
                self.placed(result)
            }
            _ => self.expected("a list").deserialize_seq(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        match &self.value.data {
            Data::Array(items) if items.len() != length => {
                let message = format!("expected a list of {length} values, found {}", items.len());
                self.mistake(message, None).deserialize_tuple(length, visitor)
            }
            Data::Array(_) if !self.must_stand_in() => self.deserialize_seq(visitor),
            Data::Array(_) => self.stand_in().deserialize_tuple(length, visitor),
            _ => self.expected(&format!("a list of {length} values")).deserialize_tuple(length, visitor),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value.data {
            _ if self.must_stand_in() => self.stand_in().deserialize_map(visitor),
            Data::Table(entries) => self.visit_table(entries, None, None, visitor),
            _ => self.expected("a table").deserialize_map(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value.data {
            _ if self.must_stand_in() => self.stand_in().deserialize_struct(name, fields, visitor),
            Data::Table(entries) => self.visit_table(entries, Some(fields), None, visitor),
            _ => self.expected("a table").deserialize_struct(name, fields, visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.must_stand_in() {
            return self.stand_in().deserialize_enum(name, variants, visitor);
        }
        match enums::variant_of(&self, variants) {
            Ok(variant) => {
                let path = self.path.clone();
                let origin = self.origin;
                visitor
                    .visit_enum(EnumDecoder { node: self, variant })
                    .map_err(|error| error.placed(&path, origin, false))
            }
            Err(stand_in) => stand_in.deserialize_enum(name, variants, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        match &self.value.data {
            Data::Table(entries) => {
                for (key, entry) in entries {
                    self.record(&self.path, entry.place().or(self.origin), format!("unknown key `{key}`"), None);
                }
                visitor.visit_unit()
            }
            _ => self.expected("an empty table").deserialize_unit(visitor),
        }
    }

    forward_to_deserialize_any! { i128 u128 bytes byte_buf unit }
}
