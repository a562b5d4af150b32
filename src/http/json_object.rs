//! JSON objects that are written member by member.

use serde::Serialize;

use super::{ApiError, ErrorCode};

/// The text of a JSON object that is being written. A member that is JSON already is copied; serde's `RawValue` would
/// read it first to see that it is, which of a form costs as much as writing all the rest.
pub(super) struct JsonObject {
    text: Vec<u8>,
    is_empty: bool,
}

impl JsonObject {
    /// An object without members, of which about `size` bytes are expected.
    pub(super) fn new(size: usize) -> Self {
        let mut text = Vec::with_capacity(size);
        text.push(b'{');
        Self { text, is_empty: true }
    }

    /// An object that begins with the members of `value`.
    ///
    /// # Errors
    /// When `value` cannot be JSON, or is no object.
    pub(super) fn of(value: &impl Serialize, size: usize) -> Result<Self, ApiError> {
        let mut text = Vec::with_capacity(size);
        push_json(&mut text, value)?;
        match text.pop() {
            Some(b'}') => Ok(Self { is_empty: text.len() == 1, text }),
            _ => Err(ApiError::with_detail(ErrorCode::Internal, "an object was expected")),
        }
    }

    /// Appends a member.
    ///
    /// # Errors
    /// When `value` cannot be JSON.
    pub(super) fn member(&mut self, name: &'static str, value: &impl Serialize) -> Result<&mut Self, ApiError> {
        self.name(name);
        push_json(&mut self.text, value)?;
        Ok(self)
    }

    /// Appends a member that is an object itself, whose members are what `write` appends.
    ///
    /// # Errors
    /// Those of `write`.
    pub(super) fn object(
        &mut self,
        name: &'static str,
        write: impl FnOnce(&mut Self) -> Result<(), ApiError>,
    ) -> Result<&mut Self, ApiError> {
        self.name(name);
        self.text.push(b'{');
        self.is_empty = true;
        write(self)?;
        self.text.push(b'}');
        self.is_empty = false;
        Ok(self)
    }

    /// Appends a member whose value is `json`.
    pub(super) fn raw(&mut self, name: &'static str, json: &[u8]) -> &mut Self {
        self.name(name);
        self.text.extend_from_slice(json);
        self
    }

    /// The whole text.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.text.push(b'}');
        self.text
    }

    /// Names in this program's own text have nothing to escape.
    fn name(&mut self, name: &'static str) {
        if !self.is_empty {
            self.text.push(b',');
        }
        self.is_empty = false;
        self.text.push(b'"');
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\":");
    }
}

/// Appends `value` to `text`.
///
/// # Errors
/// When `value` cannot be JSON.
pub(super) fn push_json(text: &mut Vec<u8>, value: &impl Serialize) -> Result<(), ApiError> {
    serde_json::to_writer(text, value).map_err(|error| ApiError::with_detail(ErrorCode::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(object: JsonObject) -> serde_json::Value {
        serde_json::from_slice(&object.finish()).unwrap()
    }

    #[test]
    fn members_stand_behind_those_of_the_value() {
        let mut object = JsonObject::of(&BTreeMap::from([("a", 1)]), 0).unwrap();
        object.member("b", &"\"quoted\"").unwrap().raw("c", b"{\"d\":[]}");
        object.object("e", |e| e.member("f", &1)?.member("g", &2).map(drop)).unwrap();
        object.object("h", |_| Ok(())).unwrap().member("i", &3).unwrap();
        let expected = serde_json::json!({
            "a": 1, "b": "\"quoted\"", "c": { "d": [] }, "e": { "f": 1, "g": 2 }, "h": {}, "i": 3,
        });
        assert_eq!(read(object), expected);
    }

    #[test]
    fn an_object_may_begin_with_nothing() {
        for mut object in [JsonObject::new(0), JsonObject::of(&BTreeMap::<String, u8>::new(), 0).unwrap()] {
            object.member("a", &true).unwrap();
            assert_eq!(read(object), serde_json::json!({ "a": true }));
        }
        assert_eq!(read(JsonObject::new(0)), serde_json::json!({}));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert!(JsonObject::of(&[1], 0).is_err());
    }
}
