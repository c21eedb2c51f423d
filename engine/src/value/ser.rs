//! Turns typed parameters into a [`Value`]: the inverse of `de.rs`.
//!
//! `None` is left out of tables. An enum becomes a table whose key `kind` names the variant, a variant without fields
//! a plain string. A variant around something that is no table, or that needs the key `kind` for itself, holds it
//! under the key `value`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::ser::{self, Impossible};

use super::{Data, Entry, KIND, VALUE, Value};

/// Returns `value` as a tree without origins.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Value, EncodeError> {
    value.serialize(Encoder)?.ok_or_else(|| ser::Error::custom("`None` has no place outside a table"))
}

/// A type that pipeline values cannot express.
#[derive(Debug)]
pub(super) struct EncodeError(String);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EncodeError {}

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// What a value became; `None` stands for an absent value, which only a table can hold.
type Encoded = Result<Option<Value>, EncodeError>;

struct Encoder;

fn some(data: Data) -> Encoded {
    Ok(Some(Value::new(data)))
}

fn table(entries: BTreeMap<String, Value>) -> Data {
    Data::Table(entries.into_iter().map(|(key, value)| (key, Entry::new(value))).collect())
}

fn tagged(variant: &str, content: Option<Value>) -> Encoded {
    let kind = Value::new(Data::String(variant.to_owned()));
    let mut entries = BTreeMap::new();
    match content {
        Some(Value { data: Data::Table(fields), .. }) if !fields.contains_key(KIND) => {
            entries.extend(fields.into_iter().map(|(key, entry)| (key, entry.value)));
        }
        Some(other) => drop(entries.insert(VALUE.to_owned(), other)),
        None => {}
    }
    entries.insert(KIND.to_owned(), kind);
    some(table(entries))
}

macro_rules! integers {
    ($($method:ident $type:ty),*) => {$(
        fn $method(self, number: $type) -> Encoded {
            i64::try_from(number).map_err(ser::Error::custom).and_then(|number| some(Data::Integer(number)))
        }
    )*};
}

impl ser::Serializer for Encoder {
    type Ok = Option<Value>;
    type Error = EncodeError;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    integers!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64);
    integers!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64);

    fn serialize_bool(self, flag: bool) -> Encoded {
        some(Data::Bool(flag))
    }

    fn serialize_f32(self, number: f32) -> Encoded {
        // The shortest decimal keeps `0.1` readable where the widened bits would give 0.10000000149011612.
        let shortest = number.to_string().parse::<f64>().unwrap_or(f64::NAN);
        #[allow(clippy::cast_possible_truncation)]
        let reads_back = (shortest as f32).to_bits() == number.to_bits();
        self.serialize_f64(if reads_back { shortest } else { f64::from(number) })
    }

    fn serialize_f64(self, number: f64) -> Encoded {
        if number.is_finite() {
            some(Data::Float(number))
        } else {
            Err(ser::Error::custom(format!("expected a finite number, found `{number}`")))
        }
    }

    fn serialize_char(self, character: char) -> Encoded {
        some(Data::String(character.to_string()))
    }

    fn serialize_str(self, text: &str) -> Encoded {
        some(Data::String(text.to_owned()))
    }

    fn serialize_bytes(self, _: &[u8]) -> Encoded {
        Err(ser::Error::custom("bytes have no form in a pipeline file"))
    }

    fn serialize_none(self) -> Encoded {
        Ok(None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Encoded {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Encoded {
        Ok(None)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Encoded {
        some(table(BTreeMap::new()))
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Encoded {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Encoded {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Encoded {
        tagged(variant, value.serialize(self)?)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<List, EncodeError> {
        Ok(List { items: Vec::with_capacity(length.unwrap_or(0)), variant: None })
    }

    fn serialize_tuple(self, length: usize) -> Result<List, EncodeError> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<List, EncodeError> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<List, EncodeError> {
        Ok(List { items: Vec::with_capacity(length), variant: Some(variant) })
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields, EncodeError> {
        Ok(Fields { entries: BTreeMap::new(), key: None, variant: None })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields, EncodeError> {
        self.serialize_map(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields, EncodeError> {
        Ok(Fields { entries: BTreeMap::new(), key: None, variant: Some(variant) })
    }
}

/// A list under construction, perhaps the content of an enum's variant.
struct List {
    items: Vec<Value>,
    variant: Option<&'static str>,
}

impl List {
    fn push<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), EncodeError> {
        self.items.push(encode(item)?);
        Ok(())
    }

    fn finish(self) -> Encoded {
        let list = Data::Array(self.items);
        match self.variant {
            Some(variant) => tagged(variant, Some(Value::new(list))),
            None => some(list),
        }
    }
}

/// A table under construction, perhaps the content of an enum's variant.
struct Fields {
    entries: BTreeMap<String, Value>,
    key: Option<String>,
    variant: Option<&'static str>,
}

impl Fields {
    fn insert<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), EncodeError> {
        if let Some(value) = value.serialize(Encoder)? {
            self.entries.insert(key.to_owned(), value);
        }
        Ok(())
    }

    fn finish(self) -> Encoded {
        let fields = table(self.entries);
        match self.variant {
            Some(variant) => tagged(variant, Some(Value::new(fields))),
            None => some(fields),
        }
    }
}

macro_rules! list_builder {
    ($($trait:ident $method:ident),*) => {$(
        impl ser::$trait for List {
            type Ok = Option<Value>;
            type Error = EncodeError;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), EncodeError> {
                self.push(item)
            }

            fn end(self) -> Encoded {
                self.finish()
            }
        }
    )*};
}

list_builder!(SerializeSeq serialize_element, SerializeTuple serialize_element);
list_builder!(SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field);

macro_rules! field_builder {
    ($($trait:ident),*) => {$(
        impl ser::$trait for Fields {
            type Ok = Option<Value>;
            type Error = EncodeError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), EncodeError> {
                self.insert(key, value)
            }

            fn end(self) -> Encoded {
                self.finish()
            }
        }
    )*};
}

field_builder!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Fields {
    type Ok = Option<Value>;
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.key = Some(key.serialize(Key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let key =
            self.key.take().ok_or_else(|| <EncodeError as ser::Error>::custom("a map's value came before its key"))?;
        self.insert(&key, value)
    }

    fn end(self) -> Encoded {
        self.finish()
    }
}

/// Accepts what can be a table's key: texts, and numbers in their text form.
struct Key;

type NoKey = Impossible<String, EncodeError>;

macro_rules! text_keys {
    ($($method:ident $type:ty),*) => {$(
        fn $method(self, key: $type) -> Result<String, EncodeError> {
            Ok(key.to_string())
        }
    )*};
}

macro_rules! no_keys {
    ($($method:ident($($argument:ty),*) -> $result:ty),* $(,)?) => {$(
        fn $method(self, $(_: $argument),*) -> Result<$result, EncodeError> {
            Err(ser::Error::custom("a table's key must be a text"))
        }
    )*};
}

impl ser::Serializer for Key {
    type Ok = String;
    type Error = EncodeError;
    type SerializeSeq = NoKey;
    type SerializeTuple = NoKey;
    type SerializeTupleStruct = NoKey;
    type SerializeTupleVariant = NoKey;
    type SerializeMap = NoKey;
    type SerializeStruct = NoKey;
    type SerializeStructVariant = NoKey;

    text_keys!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64);
    text_keys!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64);
    text_keys!(serialize_str &str, serialize_char char);

    no_keys! {
        serialize_bool(bool) -> String,
        serialize_f32(f32) -> String,
        serialize_f64(f64) -> String,
        serialize_bytes(&[u8]) -> String,
        serialize_none() -> String,
        serialize_unit() -> String,
        serialize_unit_struct(&'static str) -> String,
        serialize_seq(Option<usize>) -> NoKey,
        serialize_tuple(usize) -> NoKey,
        serialize_tuple_struct(&'static str, usize) -> NoKey,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> NoKey,
        serialize_map(Option<usize>) -> NoKey,
        serialize_struct(&'static str, usize) -> NoKey,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> NoKey,
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<String, EncodeError> {
        Ok(variant.to_owned())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, EncodeError> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<String, EncodeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String, EncodeError> {
        Err(ser::Error::custom("a table's key must be a text"))
    }
}
