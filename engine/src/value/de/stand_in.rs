//! What serde gets in place of a broken value, so that it goes on to the next mistake.

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::{Error, Pass, child_path};

/// A deserializer that gives every type some value.
pub(super) struct StandIn<'c> {
    pub(super) path: String,
    pub(super) pass: &'c Pass<'c>,
}

impl StandIn<'_> {
    fn placed<T>(path: &str, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| error.placed(path, None, true))
    }

    /// Gives a table the keys that earlier passes found it to need.
    fn visit_needed<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let needed = self.pass.stand_ins.keys.get(&self.path);
        let keys: Vec<_> = needed.into_iter().flatten().map(String::as_str).collect();
        let path = self.path.clone();
        Self::placed(&path, visitor.visit_map(NeededKeys { table: self, keys: keys.into_iter(), next: None }))
    }
}

macro_rules! give {
    ($($method:ident $visit:ident($value:expr)),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            Self::placed(&self.path, visitor.$visit($value))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for StandIn<'_> {
    type Error = Error;

    // One rather than zero: types that refuse a number mostly refuse zero.
    give! {
        deserialize_bool visit_bool(false),
        deserialize_i8 visit_i8(1), deserialize_i16 visit_i16(1), deserialize_i32 visit_i32(1),
        deserialize_i64 visit_i64(1), deserialize_i128 visit_i128(1),
        deserialize_u8 visit_u8(1), deserialize_u16 visit_u16(1), deserialize_u32 visit_u32(1),
        deserialize_u64 visit_u64(1), deserialize_u128 visit_u128(1),
        deserialize_f32 visit_f32(1.0), deserialize_f64 visit_f64(1.0),
        deserialize_char visit_char('x'), deserialize_str visit_str(""), deserialize_string visit_str(""),
        deserialize_identifier visit_str(""),
        deserialize_bytes visit_bytes(b""), deserialize_byte_buf visit_bytes(b""),
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        Self::placed(&self.path, visitor.visit_unit())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_none()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_tuple(0, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        let path = self.path.clone();
        Self::placed(&path, visitor.visit_seq(Repeat { list: self, position: 0, length }))
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
        self.visit_needed(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.visit_needed(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Some(variant) = variants.first().copied() else {
            return Self::placed(&self.path, Err(Error::Message("an enum without variants".to_owned())));
        };
        visitor.visit_enum(FirstVariant { content: self, variant })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Repeat<'c> {
    list: StandIn<'c>,
    position: usize,
    length: usize,
}

impl<'de> de::SeqAccess<'de> for Repeat<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.position == self.length {
            return Ok(None);
        }
        let path = format!("{}[{}]", self.list.path, self.position);
        self.position += 1;
        let item = StandIn { path: path.clone(), pass: self.list.pass };
        StandIn::placed(&path, seed.deserialize(item).map(Some))
    }
}

struct NeededKeys<'c> {
    table: StandIn<'c>,
    keys: std::vec::IntoIter<&'c str>,
    next: Option<&'c str>,
}

impl<'de> de::MapAccess<'de> for NeededKeys<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.keys.next();
        let Some(key) = self.next else { return Ok(None) };
        let key: StrDeserializer<'_, Error> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let key = self.next.take().expect("serde asks for a value only after its key");
        let path = child_path(&self.table.path, key);
        let value = StandIn { path: path.clone(), pass: self.table.pass };
        StandIn::placed(&path, seed.deserialize(value))
    }
}

struct FirstVariant<'c> {
    content: StandIn<'c>,
    variant: &'static str,
}

impl<'de> de::EnumAccess<'de> for FirstVariant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let name: StrDeserializer<'_, Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for FirstVariant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.content)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_tuple(self.content, length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.content.visit_needed(visitor)
    }
}
