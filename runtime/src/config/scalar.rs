//! Numbers and booleans, which may also be written as strings: values from the environment always are.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserializer, de};

/// A setting with one scalar value.
pub(super) trait Scalar: FromStr {
    /// The expected type, for error messages.
    const NAME: &'static str;

    fn from_integer(_: i64) -> Option<Self> {
        None
    }

    fn from_float(_: f64) -> Option<Self> {
        None
    }

    fn from_bool(_: bool) -> Option<Self> {
        None
    }
}

impl Scalar for i64 {
    const NAME: &'static str = "a whole number";

    fn from_integer(number: i64) -> Option<Self> {
        Some(number)
    }
}

impl Scalar for f64 {
    const NAME: &'static str = "a number";

    fn from_integer(number: i64) -> Option<Self> {
        i32::try_from(number).ok().map(f64::from)
    }

    fn from_float(number: f64) -> Option<Self> {
        Some(number)
    }
}

impl Scalar for bool {
    const NAME: &'static str = "true or false";

    fn from_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

/// Deserializes a scalar, for serde's `deserialize_with`.
pub(super) fn scalar<'de, D: Deserializer<'de>, T: Scalar>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Visitor(PhantomData))
}

/// Deserializes an optional scalar, for the same attribute.
pub(super) fn optional_scalar<'de, D: Deserializer<'de>, T: Scalar>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    scalar(deserializer).map(Some)
}

struct Visitor<T>(PhantomData<T>);

impl<T: Scalar> Visitor<T> {
    fn accept<E: de::Error>(&self, value: Option<T>, found: de::Unexpected<'_>) -> Result<T, E> {
        value.ok_or_else(|| E::invalid_type(found, self))
    }
}

impl<T: Scalar> de::Visitor<'_> for Visitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::NAME)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.accept(T::from_integer(number), de::Unexpected::Signed(number))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.accept(T::from_float(number), de::Unexpected::Float(number))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.accept(T::from_bool(value), de::Unexpected::Bool(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.accept(text.trim().parse().ok(), de::Unexpected::Str(text))
    }
}
