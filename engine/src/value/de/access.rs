//! Walks through lists and tables, and reads the keys of tables.

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::super::{Entry, Value};
use super::stand_in::StandIn;
use super::{Decoder, Error, child_path};

pub(super) struct ListAccess<'a, 'v, 'c> {
    pub(super) list: &'a Decoder<'v, 'c>,
    pub(super) items: std::slice::Iter<'v, Value>,
    pub(super) position: usize,
}

impl<'de> de::SeqAccess<'de> for ListAccess<'_, '_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let path = format!("{}[{}]", self.list.path, self.position);
        self.position += 1;
        let child = self.list.child(item, path);
        let (path, origin) = (child.path.clone(), child.origin);
        // A type that converts what it read (`try_from`) fails outside the decoder it was given.
        seed.deserialize(child).map(Some).map_err(|error| error.placed(&path, origin, false))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

pub(super) struct TableAccess<'a, 'v, 'c> {
    pub(super) table: &'a Decoder<'v, 'c>,
    /// Keys and entries; no entry means a stand-in.
    pub(super) fields: std::vec::IntoIter<(&'a str, Option<&'v Entry>)>,
    pub(super) next: Option<(&'a str, Option<&'v Entry>)>,
}

impl<'de> de::MapAccess<'de> for TableAccess<'_, '_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.fields.next();
        let Some((key, entry)) = self.next else { return Ok(None) };
        let origin = entry.and_then(Entry::place).or(self.table.origin);
        seed.deserialize(KeyDecoder(key))
            .map(Some)
            .map_err(|error| error.placed(&child_path(&self.table.path, key), origin, entry.is_none()))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (key, entry) = self.next.take().expect("serde asks for a value only after its key");
        let path = child_path(&self.table.path, key);
        match entry {
            Some(entry) => {
                let mut child = self.table.child(&entry.value, path);
                child.origin = entry.value.origin.as_ref().or(entry.key_origin.as_ref()).or(child.origin);
                let (path, origin) = (child.path.clone(), child.origin);
                seed.deserialize(child).map_err(|error| error.placed(&path, origin, false))
            }
            None => {
                let stand_in = StandIn { path: path.clone(), pass: self.table.pass };
                seed.deserialize(stand_in).map_err(|error| error.placed(&path, None, true))
            }
        }
    }
}

/// Decodes a table's key: a text, or a number or variant in its text form.
struct KeyDecoder<'k>(&'k str);

macro_rules! decode_number_keys {
    ($($method:ident $visit:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0.parse() {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(Error::Message(format!("expected a whole number as key, found `{}`", self.0))),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for KeyDecoder<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.0)
    }

    decode_number_keys!(deserialize_i8 visit_i8, deserialize_i16 visit_i16);
    decode_number_keys!(deserialize_i32 visit_i32, deserialize_i64 visit_i64);
    decode_number_keys!(deserialize_u8 visit_u8, deserialize_u16 visit_u16);
    decode_number_keys!(deserialize_u32 visit_u32, deserialize_u64 visit_u64);

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if variants.contains(&self.0) {
            visitor.visit_enum(self.0.into_deserializer())
        } else {
            let known = crate::suggest::listed(variants.iter().copied());
            Err(Error::Message(format!("expected a key among {known}, found `{}`", self.0)))
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}
