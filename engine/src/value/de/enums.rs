//! Decodes enums: a table whose key `kind` names the variant, or the variant's name as a plain string.
//!
//! The fields of the variant are the other keys of the same table, so every mistake in them keeps its own place. A
//! variant around something that is no table holds it under the key `value`.

use std::collections::BTreeMap;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::super::{Data, Entry, KIND, VALUE};
use super::stand_in::StandIn;
use super::{Decoder, Error, child_path};
use crate::suggest::hint_among;

/// Returns the variant that a value names, or the stand-in to go on with.
pub(super) fn variant_of<'c>(
    node: &Decoder<'_, 'c>,
    variants: &'static [&'static str],
) -> Result<&'static str, StandIn<'c>> {
    let find = |name: &str| variants.iter().copied().find(|variant| *variant == name);
    match &node.value.data {
        Data::String(name) => find(name).ok_or_else(|| {
            let hint = hint_among(name, "known values", variants.iter().copied());
            node.mistake(format!("unknown value `{name}`"), hint)
        }),
        Data::Table(entries) => {
            let Some(entry) = entries.get(KIND) else {
                let known = crate::suggest::listed(variants.iter().copied());
                return Err(node.mistake(format!("missing key `{KIND}`"), Some(format!("known kinds: {known}"))));
            };
            let kind = node.child(&entry.value, child_path(&node.path, KIND));
            let Data::String(name) = &entry.value.data else {
                kind.expected("a string");
                return Err(node.stand_in());
            };
            find(name).ok_or_else(|| {
                let hint = hint_among(name, "known kinds", variants.iter().copied());
                node.record(&kind.path, kind.origin, format!("unknown kind `{name}`"), hint);
                node.stand_in()
            })
        }
        _ => Err(node.expected("a string or a table with the key `kind`")),
    }
}

/// An enum's value whose variant is known.
pub(super) struct EnumDecoder<'v, 'c> {
    pub(super) node: Decoder<'v, 'c>,
    pub(super) variant: &'static str,
}

static NO_ENTRIES: BTreeMap<String, Entry> = BTreeMap::new();

impl<'v, 'c> EnumDecoder<'v, 'c> {
    /// Returns the table around the variant's fields; a plain string has none.
    fn entries(&self) -> &'v BTreeMap<String, Entry> {
        match &self.node.value.data {
            Data::Table(entries) => entries,
            _ => &NO_ENTRIES,
        }
    }

    fn visit_fields<'de, V: Visitor<'de>>(
        self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = self.entries();
        self.node.visit_table(entries, known, Some(KIND), visitor)
    }

    fn refuse_other_keys(&self, known: &[&'static str]) {
        for (key, entry) in self.entries().iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let hint = format!("`{}` takes no such key", self.variant);
            self.node.record(
                &self.node.path,
                entry.place().or(self.node.origin),
                format!("unknown key `{key}`"),
                Some(hint),
            );
        }
    }

    /// Returns what the key `value` holds, or the stand-in to go on with when it is missing.
    fn held(self) -> Result<Decoder<'v, 'c>, StandIn<'c>> {
        self.refuse_other_keys(&[KIND, VALUE]);
        match self.entries().get(VALUE) {
            Some(entry) => Ok(self.node.child(&entry.value, child_path(&self.node.path, VALUE))),
            None => Err(self.node.mistake(format!("missing key `{VALUE}`"), None)),
        }
    }
}

impl<'de> de::EnumAccess<'de> for EnumDecoder<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for EnumDecoder<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        self.refuse_other_keys(&[KIND]);
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(Content(self))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        Content(self).deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        let name = self.variant;
        Content(self).deserialize_struct(name, fields, visitor)
    }
}

/// What a variant with fields holds.
struct Content<'v, 'c>(EnumDecoder<'v, 'c>);

macro_rules! decode_held {
    ($($method:ident($($argument:ident: $type:ty),*)),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Error> {
            match self.0.held() {
                Ok(held) => held.$method($($argument,)* visitor),
                Err(stand_in) => stand_in.$method($($argument,)* visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Content<'_, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.entries().contains_key(VALUE) {
            match self.0.held() {
                Ok(held) => held.deserialize_any(visitor),
                Err(stand_in) => stand_in.deserialize_any(visitor),
            }
        } else {
            self.0.visit_fields(None, visitor)
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if !fields.contains(&KIND) {
            return self.0.visit_fields(Some(fields), visitor);
        }
        match self.0.held() {
            Ok(held) => held.deserialize_struct(name, fields, visitor),
            Err(stand_in) => stand_in.deserialize_struct(name, fields, visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // A map that needs the key `kind` for itself was put under `value`.
        let needs_kind = self.0.entries().get(VALUE).is_some_and(|entry| entry.value.get(KIND).is_some());
        if !needs_kind {
            return self.0.visit_fields(None, visitor);
        }
        match self.0.held() {
            Ok(held) => held.deserialize_map(visitor),
            Err(stand_in) => stand_in.deserialize_map(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.entries().keys().all(|key| key == KIND) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.refuse_other_keys(&[KIND]);
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    decode_held! {
        deserialize_bool(),
        deserialize_i8(), deserialize_i16(), deserialize_i32(), deserialize_i64(),
        deserialize_u8(), deserialize_u16(), deserialize_u32(), deserialize_u64(),
        deserialize_f32(), deserialize_f64(),
        deserialize_char(), deserialize_str(), deserialize_string(), deserialize_identifier(),
        deserialize_seq(), deserialize_tuple(length: usize),
        deserialize_tuple_struct(name: &'static str, length: usize),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
    }

    forward_to_deserialize_any! { i128 u128 bytes byte_buf ignored_any }
}
