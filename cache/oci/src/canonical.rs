//! The one way from a document to bytes, so that equal documents have equal digests.

use serde::Serialize;

/// Compact JSON with every object's keys sorted by their bytes.
///
/// `serde_json::Value` keeps objects in a `BTreeMap` (its `preserve_order` feature is off), so going
/// through it sorts the fields of structs and of maps alike.
pub(crate) fn bytes<T: Serialize>(document: &T) -> Vec<u8> {
    let value = serde_json::to_value(document).expect("our documents have text keys and finite numbers");
    serde_json::to_vec(&value).expect("a JSON value can be written")
}
