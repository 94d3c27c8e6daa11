//! What scripts answer, field by field.

use redis::Value;

use crate::clock::Timestamp;
use crate::jid::{Device, Jid, Subject};
use crate::store::StoreError;

/// The fields of an answer, or of a part of it, taken in order.
pub(super) struct Fields(std::vec::IntoIter<Value>);

pub(super) fn unreadable(what: &str) -> StoreError {
    StoreError::Unavailable(format!("a stored {what} cannot be read"))
}

fn unexpected(value: &Value) -> StoreError {
    // Its kind alone: what it holds may be somebody's.
    let kind = match value {
        Value::Nil => "nothing",
        Value::Int(_) => "a number",
        Value::BulkString(_) | Value::SimpleString(_) | Value::Okay => "a text",
        Value::Array(_) => "a list",
        _ => "something else",
    };
    StoreError::Unavailable(format!("the server answered {kind} where something else was due"))
}

impl Fields {
    /// Those of a list.
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    fn value(&mut self) -> Value {
        self.0.next().unwrap_or(Value::Nil)
    }

    pub(super) fn list(&mut self) -> Result<Self, StoreError> {
        Self::of(self.value())
    }

    pub(super) fn optional_number<T: TryFrom<i64>>(&mut self) -> Result<Option<T>, StoreError> {
        match self.value() {
            Value::Nil => Ok(None),
            value => number(value).map(Some),
        }
    }

    pub(super) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        number(self.value())
    }

    pub(super) fn optional_time(&mut self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.optional_number()?.map(Timestamp::from_millis))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.number().map(Timestamp::from_millis)
    }

    pub(super) fn optional_bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.value() {
            Value::Nil => Ok(None),
            value => bytes(value).map(Some),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        bytes(self.value())
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| unreadable("text"))
    }

    /// Two fields: device and jid. Nobody, where they are nothing.
    pub(super) fn optional_subject(&mut self) -> Result<Option<Subject>, StoreError> {
        match (self.optional_bytes()?, self.optional_bytes()?) {
            (Some(device), Some(jid)) => subject(&device, &jid).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn subject(&mut self) -> Result<Subject, StoreError> {
        self.optional_subject()?.ok_or_else(|| unreadable("device"))
    }
}

impl Iterator for Fields {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.0.next()
    }
}

pub(super) fn subject(device: &[u8], jid: &[u8]) -> Result<Subject, StoreError> {
    let text = |bytes, what| str::from_utf8(bytes).map_err(|_| unreadable(what));
    Ok(Subject {
        device: Device::new(text(device, "device")?).map_err(|_| unreadable("device"))?,
        jid: Jid::parse(text(jid, "address")?).map_err(|_| unreadable("address"))?,
    })
}

pub(super) fn number<T: TryFrom<i64>>(value: Value) -> Result<T, StoreError> {
    match value {
        Value::Int(number) => T::try_from(number).map_err(|_| unreadable("number")),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn bytes(value: Value) -> Result<Vec<u8>, StoreError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(unexpected(&other)),
    }
}
